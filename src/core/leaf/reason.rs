//! Why a member holds an opinion: a table with stable numbers, which are never given
//! another meaning.
//!
//! The words are the field's: ThreatExchange's reactions (saw this too, want more
//! info, disagree with tags), the negative votes of NCMEC's hash sharing, and `StopNCII`'s
//! feedback (not blocked, quality unknown). A number that is not in the table is kept,
//! relayed and shown as a number: a coalition may agree on more, from 1,000 on.

use super::Stance;

/// One reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reason {
    /// Its number in leaves.
    pub id: u32,
    /// Its name, for commands and answers.
    pub name: &'static str,
    /// What it says, in a sentence.
    pub says: &'static str,
    /// The stances that it can be a reason for.
    pub stances: &'static [Stance],
}

use Stance::{Negative, Positive, Seed};

/// All reasons, by their numbers.
pub const REASONS: [Reason; 14] = [
    Reason {
        id: 1,
        name: "false-positive",
        says: "it matches content that is not what the entry is about",
        stances: &[Negative],
    },
    Reason {
        id: 2,
        name: "not-illegal",
        says: "the content is not illegal where this member judges it",
        stances: &[Seed, Negative],
    },
    Reason {
        id: 3,
        name: "wrong-classification",
        says: "the content is bad, and of another class than is said",
        stances: &[Seed, Negative],
    },
    Reason {
        id: 4,
        name: "adult",
        says: "the people in it are adults",
        stances: &[Seed, Negative],
    },
    Reason {
        id: 5,
        name: "consensual",
        says: "it is shared with the consent of those in it",
        stances: &[Seed, Negative],
    },
    Reason {
        id: 6,
        name: "benign",
        says: "ordinary content: a meme, news, art, a family's picture",
        stances: &[Negative],
    },
    Reason {
        id: 7,
        name: "bad-signal",
        says: "the value identifies nothing: blank, damaged or of low quality",
        stances: &[Seed, Negative],
    },
    Reason {
        id: 8,
        name: "outdated",
        says: "what was said of it holds no longer",
        stances: &[Seed, Negative],
    },
    Reason {
        id: 9,
        name: "synthetic",
        says: "the content is generated, which people should look at",
        stances: &[Positive, Seed, Negative],
    },
    Reason {
        id: 10,
        name: "confirmed",
        says: "people of this member looked, and it is what is said",
        stances: &[Positive],
    },
    Reason {
        id: 11,
        name: "seen",
        says: "this member has met the content itself",
        stances: &[Positive, Seed],
    },
    Reason {
        id: 12,
        name: "wants-review",
        says: "this member is not sure, and asks others to look",
        stances: &[Seed],
    },
    Reason {
        id: 13,
        name: "own-rules",
        says: "it breaks this member's rules, not the law",
        stances: &[Positive, Seed],
    },
    Reason {
        id: 14,
        name: "other",
        says: "anything else; the note says what",
        stances: &[Positive, Seed, Negative],
    },
];

impl Reason {
    /// The reason of a number; `None` for one that is not in the table.
    #[must_use]
    pub fn of(id: u32) -> Option<&'static Self> {
        REASONS.iter().find(|reason| reason.id == id)
    }

    /// The reason of a name, or of a number in decimal.
    #[must_use]
    pub fn parse(text: &str) -> Option<&'static Self> {
        let mut reasons = REASONS.iter();
        match text.parse::<u32>() {
            Ok(id) => Self::of(id),
            Err(_) => reasons.find(|reason| reason.name == text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_never_change() {
        let table: Vec<(u32, &str)> = REASONS.iter().map(|r| (r.id, r.name)).collect();
        let fixed = [
            (1, "false-positive"),
            (2, "not-illegal"),
            (3, "wrong-classification"),
            (4, "adult"),
            (5, "consensual"),
            (6, "benign"),
            (7, "bad-signal"),
            (8, "outdated"),
            (9, "synthetic"),
            (10, "confirmed"),
            (11, "seen"),
            (12, "wants-review"),
            (13, "own-rules"),
            (14, "other"),
        ];
        assert_eq!(table, fixed);
    }

    #[test]
    fn a_reason_is_found_by_name_and_by_number() {
        for reason in &REASONS {
            assert_eq!(Reason::parse(reason.name), Some(reason));
            assert_eq!(Reason::parse(&reason.id.to_string()), Some(reason));
            assert!(!reason.stances.is_empty() && reason.says.len() <= 66);
        }
        assert_eq!(Reason::parse("nonsense"), None);
        assert_eq!(Reason::of(0), None);
    }
}
