//! What a policy makes of a signal: a pure function of who says what of it.

use std::collections::BTreeSet;

use super::{Action, Needs, Negative, Policy, Rule, Verdict};
use crate::id::{MemberNumber, SetName, UnixMillis};
use crate::leaf::Basis;
use crate::signal::SignalKind;

use super::scope::Word;

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub struct Question<'q> {
    /// The kind of signal.
    pub kind: SignalKind,
    /// Where it turned up, if that was said.
    pub surface: Option<&'q Word>,
    /// In which region, if that was said.
    pub region: Option<&'q Word>,
    /// When.
    pub now: UnixMillis,
}

/// Whether the witness threshold stands behind an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Witnessed {
    /// A head over it was cosigned by as many as the roster asks for.
    Yes,
    /// It was not, or not yet.
    No,
    /// It cannot be told, or was not looked at.
    #[default]
    Unknown,
}

/// One live entry that carries the signal.
///
/// It *corroborates* others' unless the signal is an MD5 or a SHA-1, of which one
/// value can be made for two files, or the publisher took it over from somebody else.
#[derive(Debug, Clone, Copy)]
pub struct Voice<'v> {
    /// Who publishes it.
    pub member: MemberNumber,
    /// The set.
    pub set: &'v SetName,
    /// With its scheme; empty for none.
    pub classification: &'v str,
    /// How the publisher came to it.
    pub basis: Basis,
    /// When, by the publisher's clock.
    pub published: UnixMillis,
    /// How many members say that it is not so.
    pub negatives: u64,
    /// Whether witnesses stand behind it.
    pub witnessed: Witnessed,
    /// The most that it may become, whatever a policy says.
    pub ceiling: Verdict,
    /// The share of the signal that it publishes.
    pub share: u16,
}

impl Voice<'_> {
    fn corroborates(&self, kind: SignalKind) -> bool {
        corroborates(kind, self.basis)
    }
}

/// Whether a second entry of this basis counts of a signal of this kind.
#[must_use]
pub fn corroborates(kind: SignalKind, basis: Basis) -> bool {
    let weak = matches!(kind, SignalKind::Md5 | SignalKind::Sha1);
    !weak && basis != Basis::Inherited
}

/// Why a rule that is about an entry does not count it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LeftOut {
    /// It may not become as much: another rule, or the node itself, caps it.
    Capped,
    /// Members dispute it.
    Disputed,
    /// It is not old enough.
    TooYoung,
    /// Witnesses do not stand behind it, or it cannot be told.
    NotWitnessed,
    /// The signal is not in the share that the rule is for.
    NotInShare,
}

impl LeftOut {
    /// A stable code.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Capped => "capped",
            Self::Disputed => "disputed",
            Self::TooYoung => "too_young",
            Self::NotWitnessed => "not_witnessed",
            Self::NotInShare => "not_in_share",
        }
    }
}

/// Why a rule did not fire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NotFired {
    /// It is about other kinds, surfaces or regions.
    OtherQuestion,
    /// It is about none of the entries.
    NoEntry,
    /// A negative opinion blocks it.
    Blocked,
    /// Not as many members as it asks for.
    TooFewMembers,
}

impl NotFired {
    /// A stable code.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::OtherQuestion => "other_question",
            Self::NoEntry => "no_entry",
            Self::Blocked => "blocked",
            Self::TooFewMembers => "too_few_members",
        }
    }
}

/// What became of one rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleOutcome {
    /// Its place in the policy.
    pub rule: usize,
    /// Why it did not fire; `None` where it did.
    pub not_fired: Option<NotFired>,
    /// The entries that it counts, or caps, by their places.
    pub voices: Vec<usize>,
    /// Entries in its scope that it does not count.
    pub left_out: Vec<(usize, LeftOut)>,
    /// Distinct members that count for it.
    pub members: u64,
}

/// What a policy makes of a signal, and how it came to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evaluation {
    /// Of the signal; `None` where nobody says it.
    pub verdict: Option<Verdict>,
    /// Of each entry, in order.
    pub voices: Vec<Verdict>,
    /// The most that each may become, in order.
    pub ceilings: Vec<Verdict>,
    /// Of each rule, in order.
    pub rules: Vec<RuleOutcome>,
}

impl Policy {
    /// What becomes of a signal that is said by these voices; `None` where by nobody.
    #[must_use]
    pub fn verdict(&self, question: &Question<'_>, voices: &[Voice<'_>]) -> Option<Verdict> {
        if self.is_plain() {
            let most = voices.iter().map(|voice| voice.ceiling).max()?;
            return Some(most.min(self.default));
        }
        self.evaluate(question, voices).verdict
    }

    /// The same, with what becomes of each voice and why.
    #[must_use]
    pub fn evaluate(&self, question: &Question<'_>, voices: &[Voice<'_>]) -> Evaluation {
        let mut ceilings: Vec<Verdict> = voices.iter().map(|voice| voice.ceiling).collect();
        let mut rules = Vec::with_capacity(self.rules.len());
        // Caps first: what is capped below a rule's verdict does not count for it.
        for (place, rule) in self.rules.iter().enumerate() {
            if let Action::AtMost {
                verdict,
                negative_members,
            } = rule.action
            {
                let mut outcome = in_scope(place, rule, question, voices);
                outcome.voices.retain(|at| {
                    let voice = voices.get(*at);
                    voice.is_some_and(|voice| voice.negatives >= negative_members)
                });
                if outcome.voices.is_empty() && outcome.not_fired.is_none() {
                    outcome.not_fired = Some(NotFired::NoEntry);
                }
                for ceiling in chosen(&mut ceilings, &outcome.voices) {
                    *ceiling = verdict.min(*ceiling);
                }
                rules.push(outcome);
            }
        }
        let mut verdicts: Vec<Verdict> = ceilings
            .iter()
            .map(|ceiling| self.default.min(*ceiling))
            .collect();
        for (place, rule) in self.rules.iter().enumerate() {
            if let Action::AtLeast(verdict, needs) = &rule.action {
                let mut outcome = in_scope(place, rule, question, voices);
                if outcome.not_fired.is_none() {
                    count(&mut outcome, needs, (*verdict, &ceilings), question, voices);
                }
                if outcome.not_fired.is_none() {
                    for raised in chosen(&mut verdicts, &outcome.voices) {
                        *raised = (*verdict).max(*raised);
                    }
                }
                rules.push(outcome);
            }
        }
        rules.sort_unstable_by_key(|outcome| outcome.rule);
        Evaluation {
            verdict: verdicts.iter().copied().max(),
            voices: verdicts,
            ceilings,
            rules,
        }
    }
}

/// The voices that a rule is about.
fn in_scope(
    place: usize,
    rule: &Rule,
    question: &Question<'_>,
    voices: &[Voice<'_>],
) -> RuleOutcome {
    let mut outcome = RuleOutcome {
        rule: place,
        not_fired: None,
        voices: Vec::new(),
        left_out: Vec::new(),
        members: 0,
    };
    if !rule.scope.asks(question) {
        outcome.not_fired = Some(NotFired::OtherQuestion);
        return outcome;
    }
    let all = voices.iter().enumerate();
    let taken = all.filter(|(_, voice)| rule.scope.takes(voice));
    outcome.voices = taken.map(|(at, _)| at).collect();
    if outcome.voices.is_empty() {
        outcome.not_fired = Some(NotFired::NoEntry);
    }
    outcome
}

/// Decides whether a rule that is about some voices fires.
fn count(
    outcome: &mut RuleOutcome,
    needs: &Needs,
    (verdict, ceilings): (Verdict, &[Verdict]),
    question: &Question<'_>,
    voices: &[Voice<'_>],
) {
    let (mut strong, mut anybody, mut alone, mut blocked) = (BTreeSet::new(), false, false, false);
    let RuleOutcome {
        voices: counted,
        left_out,
        ..
    } = outcome;
    counted.retain(|at| {
        let (Some(voice), Some(ceiling)) = (voices.get(*at), ceilings.get(*at)) else {
            return false;
        };
        let disputed = voice.negatives >= needs.negative_members;
        blocked |= disputed && needs.negative == Negative::Block;
        let why = if *ceiling < verdict {
            LeftOut::Capped
        } else if disputed && needs.negative != Negative::Accept {
            LeftOut::Disputed
        } else if question.now.since(voice.published) < needs.min_age_ms {
            LeftOut::TooYoung
        } else if needs.witnesses && voice.witnessed != Witnessed::Yes {
            LeftOut::NotWitnessed
        } else if voice.share >= needs.rollout {
            LeftOut::NotInShare
        } else {
            anybody = true;
            alone |= needs.alone.contains(&voice.set.member);
            if voice.corroborates(question.kind) {
                strong.insert(voice.member);
            }
            return true;
        };
        left_out.push((*at, why));
        false
    });
    // One voice says it, whatever it rests on; a second has to corroborate it.
    let members = u64::try_from(strong.len()).unwrap_or(u64::MAX);
    outcome.members = members.max(u64::from(anybody));
    let enough = needs.members.is_some_and(|need| outcome.members >= need);
    outcome.not_fired = if blocked {
        Some(NotFired::Blocked)
    } else if alone || enough {
        None
    } else {
        Some(NotFired::TooFewMembers)
    };
}

/// The items at these places, which ascend.
fn chosen<'a, T>(items: &'a mut [T], places: &'a [usize]) -> impl Iterator<Item = &'a mut T> {
    let mut places = places.iter().copied().peekable();
    let items = items.iter_mut().enumerate();
    items.filter_map(move |(at, item)| places.next_if_eq(&at).map(|_| item))
}
