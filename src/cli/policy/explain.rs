//! `hashpact policy explain`: every rule that fired, with the leaves behind it.

use clap::Args;
use data_encoding::HEXLOWER;
use hashpact_api::wire;
use hashpact_api::wire::explain_policy_request::Of;
use hashpact_core::signal::Signal;
use serde::Serialize;

use crate::cli::Context;
use crate::cli::client::connect_or_embed;
use crate::cli::error::CliError;
use crate::cli::lookup::doubt_in_words;
use crate::cli::output::{stamp, time};

/// Say why a signal or an entry gets its verdict
///
/// Shows the entries that carry the signal or, for PDQ, one near it, each with the
/// hash of its leaf; then every rule: those that fired, with the entries that they
/// count, and those that did not, with why not. An entry is explained by each of
/// its signals.
#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// A signal, KIND:VALUE, or an entry, MEMBER/SET#INDEX
    #[arg(value_name = "SIGNAL|ENTRY")]
    what: String,
    /// Where it turned up, such as "upload"
    #[arg(long, value_name = "NAME", default_value = "")]
    surface: String,
    /// In which region it turned up
    #[arg(long, value_name = "NAME", default_value = "")]
    region: String,
    /// PDQ: bits that may differ; 0 asks for the very value
    #[arg(long, value_name = "BITS", value_parser = clap::value_parser!(u32).range(..=64))]
    distance: Option<u32>,
}

#[derive(Serialize)]
struct Explained {
    #[serde(skip_serializing_if = "String::is_empty")]
    verdict: String,
    policy: String,
    default: String,
    signals: Vec<SignalObject>,
}

#[derive(Serialize)]
struct SignalObject {
    kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    verdict: String,
    more: bool,
    leaves: Vec<LeafObject>,
    rules: Vec<RuleObject>,
}

#[derive(Serialize)]
struct LeafObject {
    entry: String,
    index: u64,
    feed_id: String,
    leaf_hash: String,
    publisher: String,
    classification: String,
    basis: String,
    published: Option<String>,
    distance: u32,
    standing: String,
    witnessed: String,
    /// The quorum of its witnesses finds a fork and does not prevent one.
    detection_only: bool,
    muted: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    doubts: Vec<String>,
    ceiling: String,
    verdict: String,
}

#[derive(Serialize)]
struct RuleObject {
    name: String,
    does: String,
    fired: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    why_not: String,
    members: u64,
    /// By their places among the leaves.
    leaves: Vec<u32>,
    left_out: Vec<LeftOutObject>,
}

#[derive(Serialize)]
struct LeftOutObject {
    leaf: u32,
    why: String,
}

/// Runs the command.
///
/// # Errors
/// When no node can be asked, or there is no such entry.
pub(super) fn run(args: &ExplainArgs, context: &Context) -> Result<(), CliError> {
    let of = of(&args.what)?;
    let client = connect_or_embed(context)?;
    let request = wire::ExplainPolicyRequest {
        of: Some(of),
        surface: args.surface.clone(),
        region: args.region.clone(),
        max_distance: args.distance,
    };
    let answer = client.call(client.node().explain_policy(request))?;
    print(&answer, context)?;
    context.output.json(&object(answer))
}

/// What is asked; what cannot be read is not repeated.
fn of(text: &str) -> Result<Of, CliError> {
    if text.contains('#') {
        return Ok(Of::Entry(text.to_owned()));
    }
    let signal = Signal::parse_spec(text).map_err(|error| {
        CliError::usage(error).next("write KIND:VALUE, such as MD5:HEX, or MEMBER/SET#INDEX")
    })?;
    Ok(Of::Signal(wire::Signal {
        kind: signal.kind().number(),
        value: signal.value().clone(),
        quality: None,
    }))
}

fn print(answer: &wire::ExplainPolicyResponse, context: &Context) -> Result<(), CliError> {
    let output = &context.output;
    let policy = answer.policy.get(..16).unwrap_or(&answer.policy);
    let verdict = match answer.verdict.as_str() {
        "" => "not known",
        verdict => verdict,
    };
    output.line(format_args!("{verdict}, by the policy {policy}"))?;
    for signal in &answer.signals {
        let verdict = match signal.verdict.as_str() {
            "" => "not known",
            verdict => verdict,
        };
        output.line(format_args!("{}: {verdict}", signal.kind))?;
        for (place, leaf) in signal.leaves.iter().enumerate() {
            leaf_lines(place, leaf, context)?;
        }
        if signal.more {
            output.line("  and more")?;
        }
        if signal.leaves.is_empty() {
            continue;
        }
        for rule in &signal.rules {
            rule_lines(rule, context)?;
        }
        output.line(format_args!("  else {}", answer.default))?;
    }
    Ok(())
}

fn leaf_lines(place: usize, leaf: &wire::ExplainedLeaf, context: &Context) -> Result<(), CliError> {
    let output = &context.output;
    let mut said = vec![leaf.basis.clone()];
    if !leaf.classification.is_empty() {
        said.insert(0, leaf.classification.clone());
    }
    if leaf.distance > 0 {
        said.push(format!("{} bits off", leaf.distance));
    }
    if leaf.standing != "active" {
        said.push(leaf.standing.clone());
    }
    if leaf.muted {
        said.push("muted".to_owned());
    }
    let doubts = leaf.doubts.iter();
    said.extend(doubts.map(|code| doubt_in_words(code).to_owned()));
    if leaf.ceiling != "enforce" {
        said.push(format!("at most {}", leaf.ceiling));
    }
    output.line(format_args!("  [{place}] {}: {}", leaf.entry, leaf.verdict))?;
    output.line(format_args!("      {}", said.join(", ")))?;
    let hash = HEXLOWER.encode(&leaf.leaf_hash);
    output.line(format_args!("      leaf {hash}"))?;
    let witnessed = match leaf.witnessed.as_str() {
        "yes" if leaf.detection_only => "witnessed (detection only)",
        "yes" => "witnessed",
        "no" => "not witnessed",
        _ => "witnesses unknown",
    };
    let published = time(leaf.published_ms);
    output.line(format_args!("      published {published}, {witnessed}"))
}

fn rule_lines(rule: &wire::ExplainedRule, context: &Context) -> Result<(), CliError> {
    let output = &context.output;
    let places = |leaves: &[u32]| {
        let places: Vec<String> = leaves.iter().map(|leaf| format!("[{leaf}]")).collect();
        places.join(" ")
    };
    let head = format!("  rule {} ({})", rule.name, rule.action);
    if rule.fired {
        output.line(format_args!("{head}: fired"))?;
        output.line(format_args!("      by {}", places(&rule.leaves)))?;
    } else {
        let why = match rule.why_not.as_str() {
            "other_question" => "about other kinds, surfaces or regions".to_owned(),
            "no_entry" => "about none of these entries".to_owned(),
            "blocked" => "blocked by a negative opinion".to_owned(),
            "too_few_members" => match rule.members_needed {
                0 => "none of the members that suffice".to_owned(),
                needed => format!("{} of {needed} members", rule.members),
            },
            other => other.to_owned(),
        };
        output.line(format_args!("{head}: no"))?;
        output.line(format_args!("      {why}"))?;
    }
    for left in &rule.left_out {
        let why = match left.why.as_str() {
            "capped" => "may not become as much",
            "disputed" => "disputed",
            "too_young" => "not old enough",
            "not_witnessed" => "not witnessed",
            "not_in_share" => "not in the share of signals",
            other => other,
        };
        output.line(format_args!("      without [{}]: {why}", left.leaf))?;
    }
    Ok(())
}

fn object(answer: wire::ExplainPolicyResponse) -> Explained {
    let signals = answer.signals.into_iter().map(|signal| SignalObject {
        kind: signal.kind,
        verdict: signal.verdict,
        more: signal.more,
        leaves: signal.leaves.into_iter().map(leaf_object).collect(),
        rules: signal.rules.into_iter().map(rule_object).collect(),
    });
    Explained {
        verdict: answer.verdict,
        policy: answer.policy,
        default: answer.default,
        signals: signals.collect(),
    }
}

fn leaf_object(leaf: wire::ExplainedLeaf) -> LeafObject {
    LeafObject {
        entry: leaf.entry,
        index: leaf.index,
        feed_id: HEXLOWER.encode(&leaf.feed_id),
        leaf_hash: HEXLOWER.encode(&leaf.leaf_hash),
        publisher: leaf.publisher,
        classification: leaf.classification,
        basis: leaf.basis,
        published: stamp(leaf.published_ms),
        distance: leaf.distance,
        standing: leaf.standing,
        witnessed: leaf.witnessed,
        detection_only: leaf.detection_only,
        muted: leaf.muted,
        doubts: leaf.doubts,
        ceiling: leaf.ceiling,
        verdict: leaf.verdict,
    }
}

fn rule_object(rule: wire::ExplainedRule) -> RuleObject {
    RuleObject {
        name: rule.name,
        does: rule.action,
        fired: rule.fired,
        why_not: rule.why_not,
        members: rule.members,
        leaves: rule.leaves,
        left_out: rule
            .left_out
            .into_iter()
            .map(|left| LeftOutObject {
                leaf: left.leaf,
                why: left.why,
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_not_repeated() {
        let error = of("MD5:abab").unwrap_err().to_string();
        assert!(!error.contains("abab"), "{error}");
        assert!(matches!(of("north/one#3"), Ok(Of::Entry(_))));
        let value = "0a".repeat(16);
        assert!(matches!(of(&format!("MD5:{value}")), Ok(Of::Signal(_))));
    }
}
