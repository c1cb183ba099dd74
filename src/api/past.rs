//! Look-ups into the past, in messages.

use hashpact_core::id::UnixMillis;
use hashpact_core::leaf::Basis;
use hashpact_core::leaf::audit::Act;
use hashpact_core::policy::Policy;
use hashpact_core::signal::Signal;
use hashpact_core::standing::Standing;
use hashpact_node::past::{PAST_SIGNALS_MAX, PastAnswer, PastMatch, PastOf, PastSet, PastUnknown};
use hashpact_node::policy::{PolicyAt, SHIPPED};
use hashpact_node::{Node, NodeError};

use crate::convert::{self, set_name};
use crate::policy::policy as read_policy;
use crate::wire;

/// The policy that was in force, as it is told.
#[derive(Default)]
struct PolicyThen {
    name: String,
    text: Vec<u8>,
    since_ms: u64,
    unknown: &'static str,
}

fn policy_then(at: PolicyAt) -> PolicyThen {
    let unknown = |unknown| PolicyThen {
        unknown,
        ..PolicyThen::default()
    };
    match at {
        PolicyAt::Before => unknown("not_noted"),
        PolicyAt::Between => unknown("not_running"),
        PolicyAt::Known(policy) => PolicyThen {
            unknown: if policy.name == SHIPPED || policy.text.is_some() {
                ""
            } else {
                "text_gone"
            },
            name: policy.name,
            text: policy.text.unwrap_or_default(),
            since_ms: policy.since.0,
        },
    }
}

/// Answers every signal; one that cannot be read is answered with the reason. Blocking.
pub(crate) fn lookup(
    node: &Node,
    request: wire::LookupPastRequest,
    act: &mut Act,
) -> Result<wire::LookupPastResponse, NodeError> {
    if request.signals.len() > PAST_SIGNALS_MAX {
        return Err(NodeError::Misuse(format!(
            "more than {PAST_SIGNALS_MAX} signals in one question about the past"
        )));
    }
    let of = moment(node, &request)?;
    act.count("signals", count(request.signals.len()));
    let (mut signals, mut wrong) = (Vec::new(), Vec::new());
    for message in request.signals {
        match convert::signal(message) {
            Ok(signal) => {
                signals.push(signal);
                wrong.push(None);
            }
            Err(rejection) => wrong.push(Some(rejection)),
        }
    }
    let past = node.past(&signals, &of)?;
    let policy = request.policy.map(read_policy).transpose()?;
    let time = match of {
        PastOf::Time(time) => Some(time),
        PastOf::Sizes(_) => None,
    };
    let judges = policy.as_ref().zip(time);
    let then = match time.filter(|_| request.with_policy) {
        Some(time) => policy_then(node.policy_at(time)?),
        None => PolicyThen::default(),
    };
    let mut answered = past.answers.into_iter().zip(&signals);
    let answers = wrong.into_iter().map(|wrong| match wrong {
        Some(rejection) => wire::PastAnswer {
            error_code: rejection.code().to_owned(),
            error: rejection.to_string(),
            ..wire::PastAnswer::default()
        },
        None => answered
            .next()
            .map_or_else(wire::PastAnswer::default, |(found, signal)| {
                answer(node, found, signal, judges)
            }),
    });
    let answers: Vec<wire::PastAnswer> = answers.collect();
    let known = answers.iter().filter(|answer| !answer.matches.is_empty());
    act.count("known", count(known.count()));
    Ok(wire::LookupPastResponse {
        sets: past.sets.into_iter().map(set).collect(),
        answers,
        policy: then.name,
        policy_text: then.text.into(),
        policy_since_ms: then.since_ms,
        policy_unknown: then.unknown.to_owned(),
    })
}

fn moment(node: &Node, request: &wire::LookupPastRequest) -> Result<PastOf, NodeError> {
    match (request.as_of_ms, request.sizes.as_slice()) {
        (time, []) if time > 0 => Ok(PastOf::Time(UnixMillis(time))),
        (0, [_, ..]) => {
            let sizes = request.sizes.iter();
            let sizes = sizes.map(|at| Ok((set_name(node, &at.set)?, at.size)));
            Ok(PastOf::Sizes(sizes.collect::<Result<_, NodeError>>()?))
        }
        (_, _) => Err(NodeError::Misuse(
            "a moment is a time, or a size for each set that is meant".to_owned(),
        )),
    }
}

fn set(set: PastSet) -> wire::PastSet {
    let (epoch, size, received) = set.head.unwrap_or_default();
    let name = set.set.to_string();
    let why = set.unknown.into_iter();
    wire::PastSet {
        unknown: why.map(|why| unknown(&name, why)).collect(),
        set: name,
        size,
        epoch,
        received_ms: received.0,
    }
}

fn unknown(set: &str, why: PastUnknown) -> wire::PastUnknown {
    let count = match why {
        PastUnknown::PayloadsGone(count) | PastUnknown::OpinionsGone(count) => count,
        PastUnknown::HeadsPruned
        | PastUnknown::CutOff
        | PastUnknown::TooMany
        | PastUnknown::TooManyOpinions => 0,
    };
    wire::PastUnknown {
        set: set.to_owned(),
        code: why.code().to_owned(),
        count,
    }
}

fn answer(
    node: &Node,
    answer: PastAnswer,
    signal: &Signal,
    judges: Option<(&Policy, UnixMillis)>,
) -> wire::PastAnswer {
    let verdict = judges.map(|(policy, time)| node.past_verdict(policy, signal, &answer, time));
    let (verdict, verdict_unknown) = match verdict {
        Some(Ok(Some(verdict))) => (verdict.name(), ""),
        Some(Err(why)) => ("", why.code()),
        Some(Ok(None)) | None => ("", ""),
    };
    let why = answer.unknown.into_iter();
    wire::PastAnswer {
        verdict: verdict.to_owned(),
        verdict_unknown: verdict_unknown.to_owned(),
        matches: answer
            .found
            .into_iter()
            .map(|found| told(node, found))
            .collect(),
        unknown: why
            .map(|(set, why)| unknown(&set.to_string(), why))
            .collect(),
        ..wire::PastAnswer::default()
    }
}

fn told(node: &Node, found: PastMatch) -> wire::PastMatch {
    let member = node.member(found.publisher);
    wire::PastMatch {
        entry: found.entry.to_string(),
        index: found.index,
        publisher: member.map_or_else(String::new, |member| member.slug.to_string()),
        classification: found.classification,
        basis: match found.said.basis {
            Basis::Human => "human",
            Basis::Automated => "automated",
            Basis::Inherited => "inherited",
        }
        .to_owned(),
        published_ms: found.said.published.0,
        standing: match found.standing {
            Standing::Active => "active",
            Standing::Disputed => "disputed",
            Standing::Review => "review",
            Standing::Retracted => "retracted",
        }
        .to_owned(),
    }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
