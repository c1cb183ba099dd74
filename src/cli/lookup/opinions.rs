//! What members think of a match, as it is printed.

use hashpact_api::wire;
use serde::Serialize;

use crate::cli::output::stamp;

/// What members think of an entry.
#[derive(Serialize)]
pub(super) struct OpinionsObject {
    positive: u64,
    seed: u64,
    negative: u64,
    /// Members in turn, those against first.
    told: Vec<OpinionObject>,
    /// Whether there are more than these.
    more: bool,
}

#[derive(Serialize)]
struct OpinionObject {
    member: String,
    stance: String,
    confidence: u32,
    reason_id: u32,
    reason: String,
    said: Option<String>,
    about: String,
    feed: String,
    index: u64,
    in_doubt: bool,
}

impl OpinionsObject {
    pub(super) fn of(opinions: wire::Opinions) -> Self {
        Self {
            positive: opinions.positive,
            seed: opinions.seed,
            negative: opinions.negative,
            told: opinions.told.into_iter().map(OpinionObject::of).collect(),
            more: opinions.more,
        }
    }

    /// Who takes which side: names for a few members, numbers for more.
    pub(super) fn line(&self) -> String {
        let sides = [
            ("negative", self.negative),
            ("seed", self.seed),
            ("positive", self.positive),
        ];
        let sides = sides.into_iter().filter(|(_, count)| *count > 0);
        let sides = sides.map(|(stance, count)| match self.only(stance) {
            Some(told) if count == 1 => {
                let because = match told.reason.as_str() {
                    "" => String::new(),
                    reason => format!(", {reason}"),
                };
                format!("{stance}: {}{because}", told.member)
            }
            Some(_) | None => format!("{count} {stance}"),
        });
        sides.collect::<Vec<_>>().join("; ")
    }

    fn only(&self, stance: &str) -> Option<&OpinionObject> {
        self.told.iter().find(|told| told.stance == stance)
    }
}

impl OpinionObject {
    fn of(told: wire::MatchOpinion) -> Self {
        Self {
            member: told.member,
            stance: told.stance,
            confidence: told.confidence,
            reason_id: told.reason_id,
            reason: told.reason,
            said: stamp(told.said_ms),
            about: told.about,
            feed: data_encoding::HEXLOWER.encode(&told.feed_id),
            index: told.index,
            in_doubt: told.in_doubt,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_member_is_named_and_more_are_counted() {
        let told = |member: &str, stance: &str| wire::MatchOpinion {
            member: member.to_owned(),
            stance: stance.to_owned(),
            reason: "false-positive".to_owned(),
            ..wire::MatchOpinion::default()
        };
        let opinions = wire::Opinions {
            negative: 1,
            positive: 2,
            told: vec![
                told("harbor", "negative"),
                told("a", "positive"),
                told("b", "positive"),
            ],
            ..wire::Opinions::default()
        };
        let line = OpinionsObject::of(opinions).line();
        assert_eq!(line, "negative: harbor, false-positive; 2 positive");
    }
}
