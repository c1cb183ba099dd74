//! What a rule is about: classifications, kinds of signal, sets, surfaces and regions.
//!
//! Each list that is empty is about all. A rule that names surfaces or regions is only
//! about questions that name one of them.

use std::collections::BTreeSet;
use std::fmt;

use super::evaluate::{Question, Voice};
use super::{LIST_MAX, PolicyError};
use crate::id::{SetName, Slug};
use crate::signal::SignalKind;

/// Bytes of a surface, region or classification.
const WORD_MAX_BYTES: usize = 64;
/// Bytes of a pattern of classifications: no classification of a leaf is longer.
const CLASS_MAX_BYTES: usize = 256;

/// A surface or a region, as a question and a rule name it: small letters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Word(String);

impl Word {
    /// Reads it; capitals are as good as small letters.
    ///
    /// # Errors
    /// [`PolicyError::Word`].
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let letter = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        let good = (1..=WORD_MAX_BYTES).contains(&text.len()) && text.bytes().all(letter);
        let word = good.then(|| Self(text.to_ascii_lowercase()));
        word.ok_or(PolicyError::Word)
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Classifications: one, such as `tc:A1`, or all of a scheme, `tc:*`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ClassPattern {
    /// This one.
    One(String),
    /// Those of a scheme; the text ends with `:`.
    Scheme(String),
}

impl ClassPattern {
    /// Reads it.
    ///
    /// # Errors
    /// [`PolicyError::Class`].
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let plain = |b: u8| b.is_ascii_graphic() && b != b'*';
        let (scheme, code) = text.split_once(':').ok_or(PolicyError::Class)?;
        if scheme.is_empty() || code.is_empty() || text.len() > CLASS_MAX_BYTES {
            return Err(PolicyError::Class);
        }
        let named = if code == "*" { scheme } else { text };
        if !named.bytes().all(plain) {
            return Err(PolicyError::Class);
        }
        Ok(if code == "*" {
            Self::Scheme(format!("{scheme}:"))
        } else {
            Self::One(text.to_owned())
        })
    }

    fn takes(&self, classification: &str) -> bool {
        match self {
            Self::One(one) => one == classification,
            Self::Scheme(scheme) => classification.starts_with(scheme),
        }
    }
}

impl fmt::Display for ClassPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(one) => f.write_str(one),
            Self::Scheme(scheme) => write!(f, "{scheme}*"),
        }
    }
}

/// Sets: one, `member/set`, or all of a member, `member/*`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SetPattern {
    /// This one.
    One(SetName),
    /// All of a member.
    Member(Slug),
}

impl SetPattern {
    /// Reads it.
    ///
    /// # Errors
    /// [`PolicyError::Set`].
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let parsed = match text.strip_suffix("/*") {
            Some(member) => Slug::parse(member).map(Self::Member),
            None => SetName::parse(text).map(Self::One),
        };
        parsed.map_err(|_| PolicyError::Set)
    }
}

impl fmt::Display for SetPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(set) => set.fmt(f),
            Self::Member(member) => write!(f, "{member}/*"),
        }
    }
}

/// What a rule is about.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scope {
    /// Classifications of entries.
    pub classifications: BTreeSet<ClassPattern>,
    /// Kinds of signal.
    pub kinds: BTreeSet<SignalKind>,
    /// Sets.
    pub sets: BTreeSet<SetName>,
    /// Members of whom all sets are meant.
    pub members: BTreeSet<Slug>,
    /// Surfaces that a question may name.
    pub surfaces: BTreeSet<Word>,
    /// Regions that a question may name.
    pub regions: BTreeSet<Word>,
}

impl Scope {
    /// Adds sets.
    pub fn add(&mut self, sets: impl IntoIterator<Item = SetPattern>) {
        for pattern in sets {
            match pattern {
                SetPattern::One(set) => drop(self.sets.insert(set)),
                SetPattern::Member(member) => drop(self.members.insert(member)),
            }
        }
    }

    /// The sets, as they are written.
    pub fn set_patterns(&self) -> impl Iterator<Item = SetPattern> + '_ {
        let members = self.members.iter().cloned().map(SetPattern::Member);
        members.chain(self.sets.iter().cloned().map(SetPattern::One))
    }

    pub(super) fn check(&self) -> Result<(), PolicyError> {
        let lengths = [
            self.classifications.len(),
            self.kinds.len(),
            self.sets.len().saturating_add(self.members.len()),
            self.surfaces.len(),
            self.regions.len(),
        ];
        let short = lengths.into_iter().all(|length| length <= LIST_MAX);
        short.then_some(()).ok_or(PolicyError::TooLong)
    }

    /// Whether the rule is about a question.
    pub(super) fn asks(&self, question: &Question<'_>) -> bool {
        let named = |words: &BTreeSet<Word>, word: Option<&Word>| {
            words.is_empty() || word.is_some_and(|word| words.contains(word))
        };
        (self.kinds.is_empty() || self.kinds.contains(&question.kind))
            && named(&self.surfaces, question.surface)
            && named(&self.regions, question.region)
    }

    /// Whether the rule is about a voice, by its set and classification.
    pub(super) fn takes(&self, voice: &Voice<'_>) -> bool {
        let of_set = (self.sets.is_empty() && self.members.is_empty())
            || self.sets.contains(voice.set)
            || self.members.contains(&voice.set.member);
        let class = &self.classifications;
        of_set && (class.is_empty() || class.iter().any(|c| c.takes(voice.classification)))
    }
}
