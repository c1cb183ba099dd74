//! Opinion: a member's view of an entry, or of a signal that it publishes itself.

use bytes::Bytes;

use super::publish::{signal_from_wire, signal_to_wire};
use super::rules::{self, Lines};
use crate::id::{FeedId, UnixMillis};
use crate::reject::Rejection;
use crate::signal::Signal;
use crate::wire;

const WHAT: &str = "opinion leaf";
const NOTE_MAX_BYTES: usize = 500;
const CONFIDENCE_MAX: u8 = 100;

/// One view, in one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opinion {
    /// What it is about.
    pub subject: Subject,
    /// What the member thinks of it.
    pub stance: Stance,
    /// How sure, 0 to 100.
    pub confidence: u8,
    /// A number of the table of reasons ([`super::REASONS`]); 0 for none.
    pub reason_id: u32,
    /// For people, at most 500 bytes.
    pub note: String,
    /// Earlier indexes of the same opinion, ascending.
    pub replaces: Vec<u64>,
    /// When, by the writer's clock.
    pub created: UnixMillis,
}

/// What an opinion is about. Somebody else's signal cannot be named by itself:
/// that would hand a restricted one to all readers of the opinion.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Subject {
    /// An entry, by its feed and the index of its first version.
    Entry {
        /// The entry's feed.
        feed: FeedId,
        /// The index of its first version.
        first: u64,
        /// The number of one kind of signal of it; none for the whole entry.
        kind: Option<u32>,
    },
    /// A signal that the writer itself publishes.
    OwnSignal(Signal),
}

/// A member's view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stance {
    /// It is what the publisher says.
    Positive,
    /// Worth investigating.
    Seed,
    /// It is not what the publisher says.
    Negative,
}

impl Stance {
    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Positive => "positive",
            Self::Seed => "seed",
            Self::Negative => "negative",
        }
    }

    /// Reads the word for it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let all = [Self::Positive, Self::Seed, Self::Negative];
        all.into_iter().find(|stance| stance.name() == text)
    }
}

impl Opinion {
    /// Encodes the payload, with fresh random bytes as `salt`.
    ///
    /// # Errors
    /// [`Rejection::Invalid`] for a broken rule, [`Rejection::TooLarge`].
    pub fn encode(&self, salt: [u8; 16]) -> Result<Bytes, Rejection> {
        self.check()?;
        let subject = match &self.subject {
            Subject::Entry { feed, first, kind } => {
                wire::opinion::Subject::Entry(wire::EntrySubject {
                    feed_id: Bytes::copy_from_slice(feed.as_bytes()),
                    index: *first,
                    kind: kind.unwrap_or_default(),
                })
            }
            Subject::OwnSignal(signal) => wire::opinion::Subject::OwnSignal(signal_to_wire(signal)),
        };
        rules::encode(&wire::Opinion {
            salt: Bytes::copy_from_slice(&salt),
            stance: match self.stance {
                Stance::Positive => wire::Stance::Positive,
                Stance::Seed => wire::Stance::Seed,
                Stance::Negative => wire::Stance::Negative,
            }
            .into(),
            confidence: self.confidence.into(),
            reason_id: self.reason_id,
            note: self.note.clone(),
            replaces: self.replaces.clone(),
            created_ms: self.created.0,
            subject: Some(subject),
        })
    }

    pub(super) fn read(payload: &Bytes, index: u64) -> Result<Self, Rejection> {
        let message: wire::Opinion = rules::decode(WHAT, payload)?;
        rules::salt(WHAT, &message.salt)?;
        let stance = match message.stance() {
            wire::Stance::Positive => Some(Stance::Positive),
            wire::Stance::Seed => Some(Stance::Seed),
            wire::Stance::Negative => Some(Stance::Negative),
            wire::Stance::Unspecified => None,
        };
        let opinion = Self {
            stance: rules::enumerated("stance", stance)?,
            // More than a byte is refused with what is above 100.
            confidence: u8::try_from(message.confidence).unwrap_or(u8::MAX),
            reason_id: message.reason_id,
            note: message.note,
            replaces: message.replaces,
            created: UnixMillis(message.created_ms),
            subject: Subject::from_wire(message.subject)?,
        };
        opinion.check()?;
        let end = opinion.replaces.last().map(|last| last.saturating_add(1));
        rules::before(WHAT, end, index)?;
        Ok(opinion)
    }

    fn check(&self) -> Result<(), Rejection> {
        if self.confidence > CONFIDENCE_MAX {
            return Err(Rejection::invalid(WHAT, "confidence is above 100"));
        }
        if matches!(self.subject, Subject::Entry { kind: Some(0), .. }) {
            return Err(Rejection::invalid(WHAT, "no signal kind has the number 0"));
        }
        rules::text("opinion note", &self.note, NOTE_MAX_BYTES, Lines::Many)?;
        rules::ascending(WHAT, &self.replaces)
    }
}

impl Subject {
    fn from_wire(message: Option<wire::opinion::Subject>) -> Result<Self, Rejection> {
        match message {
            Some(wire::opinion::Subject::Entry(entry)) => Ok(Self::Entry {
                feed: FeedId::from_slice(&entry.feed_id)?,
                first: entry.index,
                kind: (entry.kind > 0).then_some(entry.kind),
            }),
            Some(wire::opinion::Subject::OwnSignal(signal)) => {
                let signal = rules::enumerated("signal kind", signal_from_wire(&signal))?;
                Ok(Self::OwnSignal(signal?))
            }
            None => Err(Rejection::invalid(WHAT, "no subject")),
        }
    }
}
