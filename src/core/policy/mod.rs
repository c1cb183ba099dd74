//! Policy: what this node makes of what members say of a signal.
//!
//! Owns: the rules ([`Policy`], [`Rule`]), what they ask of whom, and their evaluation
//! as a pure function ([`Policy::evaluate`]). Does not own: how a policy is written
//! (TOML, messages), nor where the facts come from: caller's look-ups, opinions and
//! cosignatures.
//!
//! Each entry that carries a signal is a [`Voice`]. A rule that *raises* says of which
//! voices how many members are wanted, and what all of them become then; a rule that
//! *caps* says what voices become at most. A voice gets the highest verdict that a rule
//! raises it to, never above its ceiling: the lowest of the rules that cap it and of what
//! the node knows (in doubt, held, muted). A signal gets the highest of its voices. So no
//! order of rules or voices counts, and a voice more never lowers a verdict unless it is
//! disputed.
//!
//! Trusts nobody's count: members are counted by their number in the roster, and MD5,
//! SHA-1 and basis `inherited` corroborate nothing ([`Voice`]).

mod classes;
mod evaluate;
#[cfg(test)]
mod model;
mod names;
mod scope;
mod share;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;

use crate::id::Slug;

pub use self::classes::{Classed, Conflict, exclude_each_other, in_conflict};
pub use self::evaluate::{
    Evaluation, LeftOut, NotFired, Question, RuleOutcome, Voice, Witnessed, corroborates,
};
pub use self::names::{Unknown, UnknownName};
pub use self::scope::{ClassPattern, Scope, SetPattern, Word};
pub use self::share::{SHARES, Salt, share_of};

/// Rules of one policy: more than anybody reads.
pub const RULES_MAX: usize = 256;
/// Items of one list of a rule.
pub const LIST_MAX: usize = 1_000;
/// Bytes of a rule's name.
pub const NAME_MAX_BYTES: usize = 64;
/// Members that a rule may ask for: more than any coalition has.
pub const MEMBERS_MAX: u64 = 10_000;

/// What a node makes of a signal or an entry, the mildest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verdict {
    /// Nothing.
    Ignore,
    /// It is counted, and nobody acts.
    Observe,
    /// People look at it.
    Review,
    /// Systems act on it.
    Enforce,
}

impl Verdict {
    /// All, the mildest first.
    pub const ALL: [Self; 4] = [Self::Ignore, Self::Observe, Self::Review, Self::Enforce];

    /// The word for it, everywhere.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ignore => "ignore",
            Self::Observe => "observe",
            Self::Review => "review",
            Self::Enforce => "enforce",
        }
    }

    /// Reads the word.
    ///
    /// # Errors
    /// [`PolicyError::Verdict`].
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let known = Self::ALL.into_iter().find(|verdict| verdict.name() == text);
        known.ok_or(PolicyError::Verdict)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a negative opinion of an entry does to a rule that would count it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Negative {
    /// The rule does not fire for the signal, whoever else says it.
    #[default]
    Block,
    /// The disputed entry is not counted; others are.
    Discount,
    /// Nothing.
    Accept,
}

impl Negative {
    /// All.
    pub const ALL: [Self; 3] = [Self::Block, Self::Discount, Self::Accept];

    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Block => "block",
            Self::Discount => "discount",
            Self::Accept => "accept",
        }
    }

    /// Reads the word.
    ///
    /// # Errors
    /// [`PolicyError::Negative`].
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let known = Self::ALL.into_iter().find(|word| word.name() == text);
        known.ok_or(PolicyError::Negative)
    }
}

/// What a rule that raises asks for before it fires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needs {
    /// Distinct members; `None` where only [`alone`](Self::alone) suffices.
    pub members: Option<u64>,
    /// Members each of which suffices.
    pub alone: BTreeSet<Slug>,
    /// Only entries under a head that the threshold of witnesses cosigned count.
    pub witnesses: bool,
    /// Only entries published at least so long ago count, by the publisher's clock.
    pub min_age_ms: u64,
    /// What negative opinions do.
    pub negative: Negative,
    /// From how many members on that say so an entry is disputed; at least 1.
    pub negative_members: u64,
    /// The share of signals that the rule is for, of [`SHARES`].
    pub rollout: u16,
}

impl Default for Needs {
    fn default() -> Self {
        Self {
            members: Some(1),
            alone: BTreeSet::new(),
            witnesses: false,
            min_age_ms: 0,
            negative: Negative::Block,
            negative_members: 1,
            rollout: SHARES,
        }
    }
}

/// What a rule does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Raises to at least this what is in scope, where the needs are met.
    AtLeast(Verdict, Needs),
    /// Caps at this what is in scope.
    AtMost {
        /// The most that it becomes.
        verdict: Verdict,
        /// Only entries that so many members say no of; 0 for all.
        negative_members: u64,
    },
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Its name, which answers and explanations use.
    pub name: String,
    /// What it is about.
    pub scope: Scope,
    /// What it does.
    pub action: Action,
}

/// Why something is no policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum PolicyError {
    /// A word that is no verdict.
    #[error("this is no verdict; there are enforce, review, observe and ignore")]
    Verdict,
    /// A word that says nothing of negative opinions.
    #[error("there are block, discount and accept")]
    Negative,
    /// A default that acts by itself.
    #[error("nothing is enforced unless a rule says what")]
    EnforcesAll,
    /// More rules than [`RULES_MAX`].
    #[error("there are more than 256 rules")]
    TooManyRules,
    /// A list of more than [`LIST_MAX`].
    #[error("there are more than 1,000 items in one list")]
    TooLong,
    /// A name that is none.
    #[error("a rule's name has 1 to 64 of a to z, 0 to 9 and -")]
    Name,
    /// Two rules of one name.
    #[error("another rule has this name")]
    SameName,
    /// A rule that changes nothing.
    #[error("everything is at least ignore, and at most enforce: the rule does nothing")]
    Nothing,
    /// A rule that nobody can meet.
    #[error("the rule asks for no member, and so for nothing")]
    NoMember,
    /// A rule for no signal.
    #[error("the rule is for no signal at all: a share is 1 to 10,000 of 10,000")]
    NoShare,
    /// A pattern of sets that is none.
    #[error("a set is written member/set, and all sets of a member member/*")]
    Set,
    /// A pattern of classifications that is none.
    #[error("a classification is written scheme:code, and all of a scheme scheme:*")]
    Class,
    /// A surface or region that is none.
    #[error("a surface or region has 1 to 64 of letters, digits, -, _ and .")]
    Word,
}

/// Rules, and what becomes of what no rule is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    default: Verdict,
    rules: Vec<Rule>,
    needs_witnesses: bool,
    needs_shares: bool,
    counts_members: bool,
}

impl Default for Policy {
    /// As shipped: people look at everything.
    fn default() -> Self {
        Self::of(Verdict::Review, Vec::new())
    }
}

impl Policy {
    /// Makes a policy of checked rules.
    ///
    /// # Errors
    /// What is wrong, with the place of the rule that it is wrong with.
    pub fn new(default: Verdict, rules: Vec<Rule>) -> Result<Self, (Option<usize>, PolicyError)> {
        if default == Verdict::Enforce {
            return Err((None, PolicyError::EnforcesAll));
        }
        if rules.len() > RULES_MAX {
            return Err((None, PolicyError::TooManyRules));
        }
        let mut names = BTreeSet::new();
        for (place, rule) in rules.iter().enumerate() {
            let wrong = |error| (Some(place), error);
            rule.check().map_err(wrong)?;
            if !names.insert(rule.name.as_str()) {
                return Err(wrong(PolicyError::SameName));
            }
        }
        Ok(Self::of(default, rules))
    }

    fn of(default: Verdict, rules: Vec<Rule>) -> Self {
        let raises = |wanted: fn(&Needs) -> bool| {
            rules.iter().any(|rule| match &rule.action {
                Action::AtLeast(_, needs) => wanted(needs),
                Action::AtMost { .. } => false,
            })
        };
        Self {
            needs_witnesses: raises(|needs| needs.witnesses),
            needs_shares: raises(|needs| needs.rollout < SHARES),
            counts_members: raises(|_| true),
            default,
            rules,
        }
    }

    /// What becomes of what no rule is about.
    #[must_use]
    pub const fn default_verdict(&self) -> Verdict {
        self.default
    }

    /// The rules, in the order that they were written in, which means nothing.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Whether there is no rule: then only the default and ceilings count.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether any rule asks for witnesses.
    #[must_use]
    pub const fn needs_witnesses(&self) -> bool {
        self.needs_witnesses
    }

    /// Whether any rule is for a share of signals.
    #[must_use]
    pub const fn needs_shares(&self) -> bool {
        self.needs_shares
    }

    /// Whether what becomes of one entry can depend on others.
    #[must_use]
    pub const fn counts_members(&self) -> bool {
        self.counts_members
    }
}

impl Rule {
    /// Checks what a rule says by itself.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self) -> Result<(), PolicyError> {
        let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let length = 1..=NAME_MAX_BYTES;
        if !length.contains(&self.name.len()) || !self.name.bytes().all(letter) {
            return Err(PolicyError::Name);
        }
        self.scope.check()?;
        match &self.action {
            Action::AtLeast(verdict, needs) => {
                if *verdict == Verdict::Ignore {
                    return Err(PolicyError::Nothing);
                }
                if needs.alone.len() > LIST_MAX {
                    return Err(PolicyError::TooLong);
                }
                let none = needs.members.is_none() && needs.alone.is_empty();
                if none || needs.members == Some(0) || needs.negative_members == 0 {
                    return Err(PolicyError::NoMember);
                }
                if needs.rollout == 0 || needs.rollout > SHARES {
                    return Err(PolicyError::NoShare);
                }
            }
            Action::AtMost { verdict, .. } => {
                if *verdict == Verdict::Enforce {
                    return Err(PolicyError::Nothing);
                }
            }
        }
        Ok(())
    }
}
