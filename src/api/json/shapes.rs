//! What goes over the JSON door, and what it is in the messages of gRPC.

use hashpact_core::reject::Rejection;
use hashpact_core::signal::{Signal, SignalKind};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::wire;

/// Signals to ask for.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct MatchBody {
    /// At most 10,000.
    signals: Vec<AskedSignal>,
    /// PDQ: bits that may differ, 0 to 64; absent means 31. 0 asks for the very value.
    #[serde(default)]
    max_distance: Option<u32>,
    /// vPDQ: how many percent of the asked video's frames must match, 0 to 100.
    video_query_percent: Option<u32>,
    /// The same of the frames of the entry's video.
    video_compared_percent: Option<u32>,
    /// Where they turned up, such as "upload": rules of the policy may be for some only.
    #[serde(default)]
    surface: String,
    /// In which region, likewise.
    #[serde(default)]
    region: String,
}

/// A signal.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AskedSignal {
    /// Such as "PDQ", "MD5" or "SHA256".
    kind: String,
    /// As `hashpact lookup` takes it: hexadecimal for most kinds.
    value: String,
    /// The caller's own name for it, at most 128 bytes; kept in the match journal, if that
    /// is on, and nowhere else.
    #[serde(default)]
    reference: String,
}

/// A question as by gRPC, and what of it could not be read.
pub(super) struct Asked {
    pub(super) request: wire::MatchRequest,
    pub(super) refused: Vec<Option<Rejection>>,
}

impl MatchBody {
    /// The question; an item that cannot be read keeps its place.
    pub(super) fn signals(self) -> Asked {
        let mut signals = Vec::with_capacity(self.signals.len());
        let mut refused = Vec::with_capacity(self.signals.len());
        let mut references = Vec::new();
        let are_named = self.signals.iter().any(|asked| !asked.reference.is_empty());
        for asked in self.signals {
            let read = asked.read();
            if are_named {
                references.push(asked.reference);
            }
            match read {
                Ok(signal) => {
                    signals.push(wire::Signal {
                        kind: signal.kind().number(),
                        value: signal.value().clone(),
                        quality: None,
                    });
                    refused.push(None);
                }
                Err(rejection) => {
                    signals.push(wire::Signal::default());
                    refused.push(Some(rejection));
                }
            }
        }
        Asked {
            request: wire::MatchRequest {
                signals,
                max_distance: self.max_distance,
                video_query_percent: self.video_query_percent,
                video_compared_percent: self.video_compared_percent,
                surface: self.surface,
                region: self.region,
                references,
            },
            refused,
        }
    }
}

impl AskedSignal {
    fn read(&self) -> Result<Signal, Rejection> {
        let kind = SignalKind::parse(&self.kind).map_err(|_| {
            Rejection::invalid("signal", "of a kind that this program does not know")
        })?;
        Signal::parse(kind, &self.value)
    }
}

/// The answers.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Matched {
    /// One a signal, in order.
    answers: Vec<Answer>,
    /// PDQ values known of which near ones are not found yet.
    near_pending: u64,
    /// Whether near matches are answered at all.
    near_ready: bool,
    /// The policy that the verdicts are of: SHA-256 of its file, or "shipped".
    policy: String,
}

/// What is known of one signal.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Answer {
    /// Nearest first.
    matches: Vec<Found>,
    /// There are more than are told.
    more: bool,
    /// What this node's policy makes of it: enforce, review, observe or ignore; absent
    /// where nothing matches.
    #[serde(skip_serializing_if = "Option::is_none")]
    verdict: Option<String>,
    /// Of the signal; absent where nothing matches.
    #[serde(skip_serializing_if = "Option::is_none")]
    standing: Option<String>,
    /// What was wrong with this item; the others are answered all the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Problem>,
}

/// An entry that matches.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Found {
    /// The set, "member/set".
    set: String,
    /// The entry, "member/set#index".
    entry: String,
    /// The index of the version.
    index: u64,
    /// The feed, in hexadecimal.
    feed_id: String,
    /// Who says so.
    publisher: Publisher,
    /// Such as "tc:A1"; empty for none.
    classification: String,
    /// human, automated or inherited.
    basis: String,
    /// image, video, url or other.
    media_kind: String,
    /// Milliseconds since 1970.
    published_ms: u64,
    /// Of the published signal, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    quality: Option<u32>,
    /// active, disputed or review.
    standing: String,
    /// The kind of signal that was asked for.
    kind: String,
    /// Differing bits of PDQ; 0 for the very value.
    distance: u32,
    /// What members think of it; absent where nobody said anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    opinions: Option<Opinions>,
    /// What the node itself doubts: `class_conflict`, `flood`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    doubts: Vec<String>,
}

/// What members think of an entry.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Opinions {
    /// Members that say it is what the publisher says.
    positive: u64,
    /// Members that say it is worth investigating.
    seed: u64,
    /// Members that say it is not what the publisher says: the standing is disputed.
    negative: u64,
    /// Members in turn, those against first; at most 16.
    told: Vec<Opinion>,
    /// There are more than are told.
    more: bool,
}

/// One opinion.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Opinion {
    /// The member.
    member: String,
    /// positive, seed or negative.
    stance: String,
    /// 0 to 100.
    confidence: u32,
    /// A number of the table of reasons in docs/FORMATS.md; 0 for none.
    reason_id: u32,
    /// Its name; empty for one that this node does not know.
    reason: String,
    /// Milliseconds since 1970.
    said_ms: u64,
    /// entry, kind or signal.
    about: String,
    /// The opinions feed, in hexadecimal.
    feed_id: String,
    /// The leaf's index in it.
    index: u64,
    /// What takes it back is held for review.
    in_doubt: bool,
}

/// Who publishes an entry, and whom to call.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Publisher {
    /// The member.
    slug: String,
    /// Its permanent number.
    number: u32,
    /// Its name for people.
    display_name: String,
    /// Who answers around the clock.
    contact_name: String,
    /// By mail.
    contact_email: String,
    /// By telephone.
    contact_phone: String,
}

/// Why there is no answer.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Problem {
    /// Stable; docs/API.md lists them.
    pub(super) code: String,
    /// What is wrong, and what to do.
    pub(super) message: String,
    /// How long to wait before the next call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) retry_after_ms: Option<u64>,
}

impl Matched {
    pub(super) fn of(response: wire::MatchResponse, refused: Vec<Option<Rejection>>) -> Self {
        let answers = response.answers.into_iter().zip(refused);
        Self {
            answers: answers
                .map(|(answer, refused)| Answer::of(answer, refused))
                .collect(),
            near_pending: response.near_pending,
            near_ready: response.near_ready,
            policy: response.policy,
        }
    }
}

impl Answer {
    fn of(answer: wire::Answer, refused: Option<Rejection>) -> Self {
        let problem = |code: String, message: String| Problem {
            code,
            message,
            retry_after_ms: None,
        };
        let told = |text: String| (!text.is_empty()).then_some(text);
        let error = match refused {
            Some(rejection) => Some(problem(rejection.code().to_owned(), rejection.to_string())),
            None => told(answer.error_code).map(|code| problem(code, answer.error)),
        };
        Self {
            matches: answer.matches.into_iter().map(Found::of).collect(),
            more: answer.more,
            verdict: told(answer.verdict),
            standing: told(answer.standing),
            error,
        }
    }
}

impl Found {
    fn of(found: wire::Match) -> Self {
        let publisher = found.publisher.unwrap_or_default();
        let kind = SignalKind::from_number(found.kind);
        Self {
            set: found.set,
            entry: found.entry,
            index: found.index,
            feed_id: hex(&found.feed_id),
            publisher: Publisher {
                slug: publisher.slug,
                number: publisher.number,
                display_name: publisher.display_name,
                contact_name: publisher.contact_name,
                contact_email: publisher.contact_email,
                contact_phone: publisher.contact_phone,
            },
            classification: found.classification,
            basis: found.basis,
            media_kind: found.media_kind,
            published_ms: found.published_ms,
            quality: found.quality,
            standing: found.standing,
            kind: kind.map_or_else(String::new, |kind| kind.to_string()),
            distance: found.distance,
            opinions: found.opinions.map(Opinions::of),
            doubts: found.doubts,
        }
    }
}

impl Opinions {
    fn of(opinions: wire::Opinions) -> Self {
        Self {
            positive: opinions.positive,
            seed: opinions.seed,
            negative: opinions.negative,
            told: opinions.told.into_iter().map(Opinion::of).collect(),
            more: opinions.more,
        }
    }
}

impl Opinion {
    fn of(told: wire::MatchOpinion) -> Self {
        Self {
            member: told.member,
            stance: told.stance,
            confidence: told.confidence,
            reason_id: told.reason_id,
            reason: told.reason,
            said_ms: told.said_ms,
            about: told.about,
            feed_id: hex(&told.feed_id),
            index: told.index,
            in_doubt: told.in_doubt,
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to memory cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
