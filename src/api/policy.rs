//! The policy over the local API: why something gets its verdict, what another policy
//! would change, and mutes.

use std::collections::BTreeSet;
use std::sync::Arc;

use hashpact_core::id::{EntryName, SetName, Slug, UnixMillis};
use hashpact_core::leaf::Reason;
use hashpact_core::leaf::audit::Act;
use hashpact_core::policy::{
    Action, ClassPattern, Needs, Negative, Policy, PolicyError, Rule, Scope, SetPattern, Verdict,
    Witnessed, Word,
};
use hashpact_core::signal::SignalKind;
use hashpact_node::model::MatchOptions;
use hashpact_node::policy::{Compared, Explained, ExplainedLeaf, Judge, MuteOf, MuteView};
use hashpact_node::{Node, NodeError};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::error::status;
use crate::{convert, matches, places, wire};

/// Signals of one entry that are explained; a leaf has no more.
const SIGNALS_MAX: usize = 256;
/// Progress that waits for a slow reader; more of it is left out.
const WAITING: usize = 4;

pub(crate) type Compares = ReceiverStream<Result<wire::ComparePoliciesResponse, Status>>;

/// Writes a policy, for the program that read it from a file.
#[must_use]
pub fn policy_to_wire(policy: &Policy) -> wire::Policy {
    wire::Policy {
        default: policy.default_verdict().name().to_owned(),
        rules: policy.rules().iter().map(rule_to_wire).collect(),
    }
}

fn rule_to_wire(rule: &Rule) -> wire::PolicyRule {
    let scope = &rule.scope;
    let words =
        |words: &BTreeSet<Word>| words.iter().map(|word| word.as_str().to_owned()).collect();
    let written = wire::PolicyRule {
        name: rule.name.clone(),
        classifications: scope
            .classifications
            .iter()
            .map(ToString::to_string)
            .collect(),
        kinds: scope.kinds.iter().map(ToString::to_string).collect(),
        sets: scope.set_patterns().map(|set| set.to_string()).collect(),
        surfaces: words(&scope.surfaces),
        regions: words(&scope.regions),
        ..wire::PolicyRule::default()
    };
    match &rule.action {
        Action::AtLeast(verdict, needs) => wire::PolicyRule {
            verdict: verdict.name().to_owned(),
            members: needs.members,
            alone: needs.alone.iter().map(ToString::to_string).collect(),
            witnesses: needs.witnesses,
            min_age_ms: needs.min_age_ms,
            negative: needs.negative.name().to_owned(),
            negative_members: needs.negative_members,
            rollout: needs.rollout.into(),
            ..written
        },
        Action::AtMost {
            verdict,
            negative_members,
        } => wire::PolicyRule {
            at_most: verdict.name().to_owned(),
            negative_members: *negative_members,
            ..written
        },
    }
}

pub(crate) fn policy(message: wire::Policy) -> Result<Policy, NodeError> {
    let refused = |error: PolicyError| NodeError::Misuse(format!("the policy: {error}"));
    let default = Verdict::parse(&message.default).map_err(refused)?;
    let rules: Result<Vec<Rule>, PolicyError> = message.rules.into_iter().map(rule).collect();
    Policy::new(default, rules.map_err(refused)?).map_err(|(_, error)| refused(error))
}

fn rule(message: wire::PolicyRule) -> Result<Rule, PolicyError> {
    let classes = message.classifications.iter();
    let kinds = message.kinds.iter().map(|kind| SignalKind::parse(kind));
    let words = |words: &[String]| -> Result<BTreeSet<Word>, PolicyError> {
        words.iter().map(|word| Word::parse(word)).collect()
    };
    let mut scope = Scope {
        classifications: classes
            .map(|c| ClassPattern::parse(c))
            .collect::<Result<_, _>>()?,
        kinds: kinds
            .collect::<Result<_, _>>()
            .map_err(|_| PolicyError::Name)?,
        surfaces: words(&message.surfaces)?,
        regions: words(&message.regions)?,
        ..Scope::default()
    };
    let sets = message.sets.iter().map(|set| SetPattern::parse(set));
    scope.add(sets.collect::<Result<Vec<_>, _>>()?);
    let action = if message.at_most.is_empty() {
        let alone = message.alone.iter().map(|slug| Slug::parse(slug));
        let needs = Needs {
            members: message.members,
            alone: alone
                .collect::<Result<_, _>>()
                .map_err(|_| PolicyError::Name)?,
            witnesses: message.witnesses,
            min_age_ms: message.min_age_ms,
            negative: Negative::parse(&message.negative)?,
            negative_members: message.negative_members,
            rollout: u16::try_from(message.rollout).unwrap_or(0),
        };
        Action::AtLeast(Verdict::parse(&message.verdict)?, needs)
    } else {
        Action::AtMost {
            verdict: Verdict::parse(&message.at_most)?,
            negative_members: message.negative_members,
        }
    };
    Ok(Rule {
        name: message.name,
        scope,
        action,
    })
}

/// Explains a signal, or every signal of an entry. Blocking.
pub(crate) fn explain(
    node: &Node,
    request: wire::ExplainPolicyRequest,
    act: &mut Act,
) -> Result<wire::ExplainPolicyResponse, NodeError> {
    use wire::explain_policy_request::Of;
    let judge = node.judge(&request.surface, &request.region)?;
    let options = MatchOptions {
        max_distance: request.max_distance,
        ..MatchOptions::default()
    };
    let signals = match request.of {
        Some(Of::Signal(signal)) => vec![convert::signal(signal)?],
        Some(Of::Entry(text)) => {
            let entry = entry_name(node, &text)?;
            act.detail("entry", &entry);
            node.signals_of(&entry)?
        }
        None => return Err(NodeError::Misuse("name a signal or an entry".to_owned())),
    };
    let mut explained = Vec::new();
    for signal in signals.iter().take(SIGNALS_MAX) {
        act.add(&format!("asked {}", signal.kind()), 1);
        explained.push(node.explain(&judge, signal, options)?);
    }
    let verdict = explained.iter().filter_map(|signal| signal.verdict).max();
    Ok(wire::ExplainPolicyResponse {
        verdict: verdict_name(verdict),
        policy: judge.in_force().name.clone(),
        default: judge.in_force().policy.default_verdict().name().to_owned(),
        signals: explained
            .into_iter()
            .map(|signal| explained_signal(node, &judge, signal))
            .collect(),
    })
}

fn entry_name(node: &Node, text: &str) -> Result<EntryName, NodeError> {
    let wrong = || NodeError::Misuse("an entry is written member/set#index".to_owned());
    let (set, _) = text.split_once('#').ok_or_else(wrong)?;
    let set: SetName = convert::set_name(node, set)?;
    let short = text.split_once('#').map_or("", |(_, index)| index);
    let first = convert::entry_of(&format!("#{short}"), &set)?;
    Ok(EntryName { set, first })
}

fn verdict_name(verdict: Option<Verdict>) -> String {
    verdict.map_or_else(String::new, |verdict| verdict.name().to_owned())
}

fn explained_signal(node: &Node, judge: &Judge<'_>, explained: Explained) -> wire::ExplainedSignal {
    let evaluation = explained.evaluation;
    let made = evaluation.voices.iter().zip(&evaluation.ceilings);
    let leaves = explained.leaves.into_iter().zip(made);
    let rules = judge.in_force().policy.rules().iter();
    wire::ExplainedSignal {
        kind: explained.kind.to_string(),
        verdict: verdict_name(explained.verdict),
        leaves: leaves
            .map(|(leaf, (verdict, ceiling))| explained_leaf(node, leaf, (*verdict, *ceiling)))
            .collect(),
        rules: rules
            .zip(&evaluation.rules)
            .map(|(rule, outcome)| {
                let place = |place: usize| u32::try_from(place).unwrap_or(u32::MAX);
                let (action, needed) = match &rule.action {
                    Action::AtLeast(verdict, needs) => (verdict.to_string(), needs.members),
                    Action::AtMost { verdict, .. } => (format!("at most {verdict}"), None),
                };
                wire::ExplainedRule {
                    name: rule.name.clone(),
                    action,
                    fired: outcome.not_fired.is_none(),
                    why_not: outcome
                        .not_fired
                        .map_or_else(String::new, |why| why.code().to_owned()),
                    members: outcome.members,
                    members_needed: needed.unwrap_or_default(),
                    leaves: outcome.voices.iter().map(|at| place(*at)).collect(),
                    left_out: outcome
                        .left_out
                        .iter()
                        .map(|(at, why)| wire::LeftOutLeaf {
                            leaf: place(*at),
                            why: why.code().to_owned(),
                        })
                        .collect(),
                }
            })
            .collect(),
        more: explained.more,
    }
}

fn explained_leaf(
    node: &Node,
    leaf: ExplainedLeaf,
    (verdict, ceiling): (Verdict, Verdict),
) -> wire::ExplainedLeaf {
    let found = leaf.found;
    let entry = found.entry;
    let publisher = node.member(entry.publisher);
    let publisher = publisher.map_or_else(|| entry.entry.set.member.clone(), |m| m.slug);
    let hash = leaf.leaf_hash.map(|hash| hash.0.to_vec());
    wire::ExplainedLeaf {
        entry: entry.entry.to_string(),
        index: entry.index,
        feed_id: entry.feed.as_bytes().to_vec().into(),
        leaf_hash: hash.unwrap_or_default().into(),
        publisher: publisher.to_string(),
        classification: entry.classification,
        basis: convert::basis_name(entry.basis).to_owned(),
        published_ms: entry.published.0,
        distance: found.distance,
        standing: convert::standing_name(entry.standing).to_owned(),
        ceiling: ceiling.name().to_owned(),
        verdict: verdict.name().to_owned(),
        muted: leaf.muted,
        witnessed: match leaf.witnessed {
            Witnessed::Yes => "yes",
            Witnessed::No => "no",
            Witnessed::Unknown => "unknown",
        }
        .to_owned(),
        detection_only: leaf.detection_only,
        doubts: matches::codes(leaf.doubts),
    }
}

/// Compares two policies on a thread of its own, and tells how far it is.
pub(crate) fn compare(
    node: Arc<Node>,
    request: wire::ComparePoliciesRequest,
) -> Result<Compares, Status> {
    let said = |error: NodeError| status(&error);
    let new = request.new.ok_or_else(|| {
        said(NodeError::Misuse(
            "say which policy to compare with".to_owned(),
        ))
    })?;
    let new = policy(new).map_err(said)?;
    let old = request.old.map(policy).transpose().map_err(said)?;
    let (tell, told) = mpsc::channel(WAITING);
    tokio::task::spawn_blocking(move || {
        let unknown_names = node.unknown_policy_names(&new);
        if request.names_only {
            let compared = wire::ComparedPolicies {
                unknown_names,
                ..wire::ComparedPolicies::default()
            };
            let answer = wire::ComparePoliciesResponse {
                compared: Some(compared),
                ..wire::ComparePoliciesResponse::default()
            };
            places::hand(&tell, Ok(answer));
            return;
        }
        let mut last = wire::ComparePoliciesResponse::default();
        let compared = node
            .judge(&request.surface, &request.region)
            .and_then(|judge| {
                let old = old.unwrap_or_else(|| judge.in_force().policy.clone());
                node.compare_policies(&judge, &old, &new, |done, total| {
                    (last.leaves_done, last.leaves_total) = (done, total);
                    // A reader that is behind misses a step; one that is gone ends it.
                    !matches!(
                        tell.try_send(Ok(last.clone())),
                        Err(mpsc::error::TrySendError::Closed(_))
                    )
                })
            });
        let ended = compared.map(|compared| wire::ComparePoliciesResponse {
            compared: Some(wire::ComparedPolicies {
                unknown_names,
                ..compared_to_wire(compared)
            }),
            ..last
        });
        places::hand(&tell, ended.map_err(|error| status(&error)));
    });
    Ok(ReceiverStream::new(told))
}

fn compared_to_wire(compared: Compared) -> wire::ComparedPolicies {
    let changed = compared.shifts.values().map(|(count, _)| *count).sum();
    wire::ComparedPolicies {
        entries: compared.entries,
        changed,
        shifts: compared
            .shifts
            .into_iter()
            .map(|(shift, (entries, examples))| wire::PolicyShift {
                set: shift.set.to_string(),
                from: shift.from.name().to_owned(),
                to: shift.to.name().to_owned(),
                entries,
                examples: examples
                    .into_iter()
                    .map(|example| wire::PolicyExample {
                        entry: example.entry.to_string(),
                        kind: example.kind.to_string(),
                    })
                    .collect(),
            })
            .collect(),
        same: compared
            .same
            .into_iter()
            .map(|(verdict, entries)| wire::VerdictCount {
                verdict: verdict.name().to_owned(),
                entries,
            })
            .collect(),
        unknown_names: Vec::new(),
    }
}

/// Mutes something. Blocking.
pub(crate) fn mute(
    node: &Node,
    request: wire::MuteRequest,
    by: &str,
    act: &mut Act,
) -> Result<wire::Muted, NodeError> {
    let of = subject(node, request.subject)?;
    act.said("case", &request.case);
    act.count("expires_ms", request.expires_ms);
    let tell = match request.tell.as_str() {
        "" => None,
        name => Some(Reason::parse(name).ok_or_else(|| {
            NodeError::Misuse("no such reason: hashpact opine --reasons lists them".to_owned())
        })?),
    };
    let expires = UnixMillis(request.expires_ms);
    let muted = node.mute_and_tell(&of, &request.case, by, expires, tell)?;
    if let Some(reason) = tell {
        act.detail("tell", reason.name);
        act.count("told", u64::try_from(muted.told).unwrap_or(u64::MAX));
    }
    note(act, &muted);
    Ok(muted_to_wire(muted))
}

/// Ends a mute. Blocking.
pub(crate) fn unmute(
    node: &Node,
    request: wire::UnmuteRequest,
    act: &mut Act,
) -> Result<wire::Muted, NodeError> {
    let muted = node.unmute(&subject(node, request.subject)?)?;
    act.said("case", &muted.case);
    note(act, &muted);
    Ok(muted_to_wire(muted))
}

/// Lists what is muted. Blocking.
pub(crate) fn mutes(node: &Node) -> Result<wire::ListMutesResponse, NodeError> {
    let mutes = node.mutes()?.into_iter().map(muted_to_wire);
    Ok(wire::ListMutesResponse {
        mutes: mutes.collect(),
    })
}

fn subject(node: &Node, subject: Option<wire::MuteSubject>) -> Result<MuteOf, NodeError> {
    use wire::mute_subject::Of;
    let subject = subject.and_then(|subject| subject.of);
    let subject =
        subject.ok_or_else(|| NodeError::Misuse("name a signal, a set or a member".to_owned()))?;
    Ok(match subject {
        Of::Member(slug) => MuteOf::Member(
            Slug::parse(&slug).map_err(|error| NodeError::Misuse(error.to_string()))?,
        ),
        Of::Set(set) => MuteOf::Set(convert::set_name(node, &set)?),
        Of::Signal(signal) => MuteOf::Signal(convert::signal(signal)?),
        Of::Name(name) => MuteOf::Named(name),
    })
}

/// What the audit feed has of it: a signal by its keyed digest.
fn note(act: &mut Act, muted: &MuteView) {
    act.detail(muted.what, &muted.name);
}

fn muted_to_wire(muted: MuteView) -> wire::Muted {
    wire::Muted {
        what: muted.what.to_owned(),
        name: muted.name,
        kind: muted.kind.map_or_else(String::new, |kind| kind.to_string()),
        case: muted.case,
        by: muted.by,
        since_ms: muted.since.0,
        expires_ms: muted.expires.0,
        told: u64::try_from(muted.told).unwrap_or(u64::MAX),
        not_told: muted.not_told.unwrap_or_default(),
        unheard: muted.unheard,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_reads_back_as_written_and_a_wrong_one_is_refused() {
        let mut scope = Scope::default();
        scope.add([
            SetPattern::parse("north/*").unwrap(),
            SetPattern::parse("a/b").unwrap(),
        ]);
        scope.kinds.insert(SignalKind::Pdq);
        scope
            .classifications
            .insert(ClassPattern::parse("tc:*").unwrap());
        scope.surfaces.insert(Word::parse("upload").unwrap());
        scope.regions.insert(Word::parse("eu").unwrap());
        let needs = Needs {
            members: None,
            alone: [Slug::parse("north").unwrap()].into(),
            witnesses: true,
            min_age_ms: 5,
            negative: Negative::Discount,
            negative_members: 2,
            rollout: 77,
        };
        let rules = vec![
            Rule {
                name: "one".to_owned(),
                scope: scope.clone(),
                action: Action::AtLeast(Verdict::Enforce, needs),
            },
            Rule {
                name: "two".to_owned(),
                scope,
                action: Action::AtMost {
                    verdict: Verdict::Observe,
                    negative_members: 3,
                },
            },
        ];
        let written = Policy::new(Verdict::Observe, rules).unwrap();
        assert_eq!(policy(policy_to_wire(&written)).unwrap(), written);
        let mut wrong = policy_to_wire(&written);
        wrong.rules[0].rollout = 1 << 20;
        assert!(policy(wrong).is_err());
        assert!(policy(wire::Policy::default()).is_err());
    }
}
