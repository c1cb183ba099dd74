//! `hashpact lookup --as-of`: what the node would have answered then.

use std::str::FromStr;

use hashpact_api::{policy_to_wire, wire};
use hashpact_core::policy::{Policy, Verdict};
use hashpact_core::signal::Signal;
use hashpact_node::policy::SHIPPED;
use serde::Serialize;

use super::item::Item;
use crate::cli::Context;
use crate::cli::client::{Client, connect_or_embed};
use crate::cli::error::{CliError, Exit};
use crate::cli::output::{count, counted, note, stamp, table, time};
use crate::cli::proof::make::AsOf;
use crate::cli::values::SetReference;
use crate::config::policy;

/// Signals in one call.
const BATCH: usize = 500;
/// Why nothing is sure of a moment in which no node ran on this store.
const NOT_RUNNING: &str = "not_running";
/// What is no part of any feed.
const NOT_REPLAYED: &str = "not replayed: near values, access, freezes, quarantine, mutes, and what \
    the node doubted by itself; sets that were dropped since are not known any more";

/// A time, or a set at a size.
#[derive(Debug, Clone)]
pub(in crate::cli) enum Moment {
    Time(u64),
    Size(SetReference, u64),
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((set, size)) = text.split_once('=') else {
            return match text.parse::<AsOf>() {
                Ok(AsOf::Time(time)) => Ok(Self::Time(time)),
                Ok(AsOf::Size(_)) => Err("a size is of a set: SET=SIZE".to_owned()),
                Err(_) => Err("a time such as 2026-11-22T06:40:00Z, or SET=SIZE".to_owned()),
            };
        };
        let size = size
            .parse()
            .map_err(|_| "SIZE is a number of leaves".to_owned())?;
        let set = set.parse().map_err(|error| format!("{error}"))?;
        Ok(Self::Size(set, size))
    }
}

#[derive(Serialize)]
struct ItemObject {
    item: String,
    /// None where nothing was found and something cannot be said any more.
    known: Option<bool>,
    matches: Vec<MatchObject>,
    unknown: Vec<UnknownObject>,
    /// By the policy that was in force then; none where nothing was known, or it cannot
    /// be said.
    verdict: Option<String>,
    /// Why it cannot be said: policy, answer, witnesses or `signal_opinions`.
    verdict_unknown: Option<String>,
}

#[derive(Serialize)]
struct MatchObject {
    signal: String,
    entry: String,
    index: u64,
    publisher: String,
    classification: String,
    basis: String,
    published: Option<String>,
    standing: String,
}

#[derive(Serialize, PartialEq, Eq)]
struct UnknownObject {
    set: String,
    code: String,
    count: u64,
}

#[derive(Serialize)]
struct SetObject {
    set: String,
    size: u64,
    epoch: u32,
    received: Option<String>,
    unknown: Vec<UnknownObject>,
}

#[derive(Serialize)]
struct OfAll {
    /// The policy that was in force then, and since when; none where that is not known.
    policy: Option<String>,
    policy_since: Option<String>,
    /// Why it is not: `not_noted`, `not_running`, `text_gone` or `unreadable`.
    policy_unknown: Option<String>,
    sets: Vec<SetObject>,
    not_replayed: &'static str,
}

/// Asks about items as they would have been answered then.
///
/// # Errors
/// When no node can be asked.
pub(super) fn run(
    moments: &[Moment],
    items: Vec<Item>,
    hits_only: bool,
    context: &Context,
) -> Result<(), CliError> {
    let client = connect_or_embed(context)?;
    let own = &client.config().member.slug;
    let (mut as_of_ms, mut sizes) = (0, Vec::new());
    for moment in moments {
        match moment {
            Moment::Time(time) if as_of_ms == 0 => as_of_ms = *time,
            Moment::Time(_) => return Err(CliError::usage("--as-of takes one time")),
            Moment::Size(set, size) => sizes.push(wire::SetAtSize {
                set: set.resolve(own).to_string(),
                size: *size,
            }),
        }
    }
    if as_of_ms > 0 && !sizes.is_empty() {
        return Err(CliError::usage(
            "--as-of takes a time, or SET=SIZE for each set that is meant",
        ));
    }
    let then = Then::ask(&client, as_of_ms)?;
    let output = &context.output;
    let (mut known, mut asked, mut complete) = (0_u64, 0_u64, true);
    let mut sets = Vec::new();
    for batch in batches(items) {
        let signals = batch.iter().flat_map(|item| &item.signals);
        let request = wire::LookupPastRequest {
            signals: signals.map(|asked| to_wire(&asked.signal)).collect(),
            as_of_ms,
            sizes: sizes.clone(),
            with_policy: false,
            policy: then.policy.clone(),
        };
        let answered = client.call(client.node().lookup_past(request))?;
        sets = answered.sets;
        let mut answers = answered.answers.into_iter();
        for item in batch {
            let object = ItemObject::of(&item, &mut answers, &then);
            asked += 1;
            known += u64::from(object.known == Some(true));
            complete &= object.unknown.is_empty();
            if object.known == Some(true) || !hits_only {
                object.print(context)?;
                output.json(&object)?;
            }
        }
    }
    let sets: Vec<SetObject> = sets.into_iter().map(SetObject::of).collect();
    print_sets(&sets, context)?;
    if as_of_ms > 0 {
        output.line(format_args!("policy then: {}", then.words()))?;
    }
    output.json(&OfAll {
        policy: then.name,
        policy_since: stamp(then.since_ms),
        policy_unknown: then.unknown,
        sets,
        not_replayed: NOT_REPLAYED,
    })?;
    output.line(format_args!("{} of {} known", count(known), count(asked)))?;
    note(NOT_REPLAYED);
    if known > 0 && complete {
        return Ok(());
    }
    Err(CliError::Quiet(Exit::Partial))
}

/// The policy that was in force.
#[derive(Default)]
struct Then {
    name: Option<String>,
    since_ms: u64,
    /// As the node is to judge by it; none where it is not known, or cannot be read.
    policy: Option<wire::Policy>,
    unknown: Option<String>,
}

impl Then {
    fn ask(client: &Client, as_of_ms: u64) -> Result<Self, CliError> {
        if as_of_ms == 0 {
            return Ok(Self::default());
        }
        let request = wire::LookupPastRequest {
            as_of_ms,
            with_policy: true,
            ..wire::LookupPastRequest::default()
        };
        let told = client.call(client.node().lookup_past(request))?;
        let mut then = Self {
            name: Some(told.policy).filter(|name| !name.is_empty()),
            since_ms: told.policy_since_ms,
            policy: None,
            unknown: Some(told.policy_unknown).filter(|why| !why.is_empty()),
        };
        if then.unknown.is_none() {
            let policy = match then.name.as_deref() {
                Some(SHIPPED) => Some(Policy::default()),
                _ => policy::parse(&String::from_utf8_lossy(&told.policy_text)).ok(),
            };
            then.policy = policy.as_ref().map(policy_to_wire);
            if then.policy.is_none() {
                then.unknown = Some("unreadable".to_owned());
            }
        }
        Ok(then)
    }

    fn words(&self) -> String {
        let why = match self.unknown.as_deref() {
            None => "",
            Some("not_noted") => "unknown, nothing is noted of so long ago",
            Some(NOT_RUNNING) => "unknown, this node did not run then",
            Some("text_gone") => "its text is kept no longer",
            Some("unreadable") => "this program cannot read its text any more",
            Some(code) => code,
        };
        let Some(name) = &self.name else {
            return why.to_owned();
        };
        let name = name.get(..12).unwrap_or(name);
        let since = time(self.since_ms);
        let between = if why.is_empty() { "" } else { "; " };
        format!("{name}, since {since}{between}{why}")
    }
}

/// Items in calls that are not too large; one item never in two.
fn batches(items: Vec<Item>) -> Vec<Vec<Item>> {
    let mut all: Vec<Vec<Item>> = Vec::new();
    let mut signals = BATCH;
    for item in items {
        signals = signals.saturating_add(item.signals.len());
        match all.last_mut() {
            Some(last) if signals <= BATCH => last.push(item),
            Some(_) | None => {
                signals = item.signals.len();
                all.push(vec![item]);
            }
        }
    }
    all
}

fn to_wire(signal: &Signal) -> wire::Signal {
    wire::Signal {
        kind: signal.kind().number(),
        value: signal.value().clone(),
        quality: signal.quality().map(u32::from),
    }
}

impl UnknownObject {
    fn of(unknown: wire::PastUnknown) -> Self {
        Self {
            set: unknown.set,
            code: unknown.code,
            count: unknown.count,
        }
    }

    fn words(&self) -> String {
        let (set, many) = (&self.set, |one, all| counted(self.count, one, all));
        match self.code.as_str() {
            "payloads_gone" => {
                let entries = many("entry", "entries");
                format!("{set}: {entries} of then without content here now")
            }
            "opinions_gone" => {
                let opinions = many("opinion", "opinions");
                format!("{set}: {opinions} of then without content here now")
            }
            "heads_pruned" => format!("{set}: changed about then, and heads of then are pruned"),
            "cut_off" => format!("{set}: a roster cut off what stood then"),
            NOT_RUNNING => "this node did not run then, or on a store that is gone".to_owned(),
            "too_many" => format!("{set}: too many leaves carry it"),
            "too_many_opinions" => format!("{set}: more opinions about it than are looked at"),
            code => format!("{set}: {code}"),
        }
    }
}

impl ItemObject {
    fn of(item: &Item, answers: &mut impl Iterator<Item = wire::PastAnswer>, then: &Then) -> Self {
        let mut verdicts = Vec::new();
        let mut object = Self {
            verdict: None,
            verdict_unknown: None,
            item: item.name.clone(),
            known: None,
            matches: Vec::new(),
            unknown: Vec::new(),
        };
        for (asked, answer) in item.signals.iter().zip(answers) {
            if !answer.error.is_empty() {
                note(format_args!("error: {}: {}", object.item, answer.error));
            }
            let signal = format!("{}:{}", asked.signal.kind(), asked.signal.to_text());
            verdicts.extend(Verdict::parse(&answer.verdict));
            if !answer.verdict_unknown.is_empty() {
                object.verdict_unknown = Some(answer.verdict_unknown);
            }
            let matches = answer.matches.into_iter();
            object.matches.extend(matches.map(|found| MatchObject {
                signal: signal.clone(),
                entry: found.entry,
                index: found.index,
                publisher: found.publisher,
                classification: found.classification,
                basis: found.basis,
                published: stamp(found.published_ms),
                standing: found.standing,
            }));
            for unknown in answer.unknown.into_iter().map(UnknownObject::of) {
                if !object.unknown.contains(&unknown) {
                    object.unknown.push(unknown);
                }
            }
        }
        if then.unknown.as_deref() == Some(NOT_RUNNING) {
            // What is here is by the heads in this store; there may have been others.
            object.unknown.push(UnknownObject {
                set: String::new(),
                code: NOT_RUNNING.to_owned(),
                count: 0,
            });
        }
        if then.policy.is_none() && !object.matches.is_empty() {
            object.verdict_unknown = Some("policy".to_owned());
        }
        // Of several signals the highest counts: where one is not known, none is.
        let highest = verdicts.into_iter().max();
        object.verdict = highest
            .filter(|_| object.verdict_unknown.is_none())
            .map(|verdict| verdict.name().to_owned());
        object.known = match (object.matches.is_empty(), object.unknown.is_empty()) {
            (false, _) => Some(true),
            (true, true) => Some(false),
            (true, false) => None,
        };
        object
    }

    fn print(&self, context: &Context) -> Result<(), CliError> {
        let output = &context.output;
        let name = crate::cli::output::plain(&self.item);
        match self.known {
            Some(false) => output.line(format_args!("{name}  was not known"))?,
            None => output.line(format_args!("{name}  unknown"))?,
            Some(true) => {}
        }
        for found in &self.matches {
            let class = match found.classification.as_str() {
                "" => "-",
                class => class,
            };
            let (entry, standing) = (&found.entry, &found.standing);
            output.line(format_args!("{name}  {class}  {entry}  {standing}"))?;
        }
        match (&self.verdict, &self.verdict_unknown) {
            (Some(verdict), _) => output.line(format_args!("  verdict then: {verdict}"))?,
            (None, Some(why)) => output.line(format_args!("  verdict then: unknown ({why})"))?,
            (None, None) => {}
        }
        for unknown in &self.unknown {
            output.line(format_args!("  {}", unknown.words()))?;
        }
        Ok(())
    }
}

impl SetObject {
    fn of(set: wire::PastSet) -> Self {
        Self {
            set: set.set,
            size: set.size,
            epoch: set.epoch,
            received: stamp(set.received_ms),
            unknown: set.unknown.into_iter().map(UnknownObject::of).collect(),
        }
    }
}

fn print_sets(sets: &[SetObject], context: &Context) -> Result<(), CliError> {
    let mut shown = table(&["SET", "HEAD", "HERE SINCE"], &[1]);
    for set in sets {
        let (size, since) = match &set.received {
            Some(received) => (set.size.to_string(), received.clone()),
            None => ("-".to_owned(), "not here yet".to_owned()),
        };
        shown.add_row([set.set.clone(), size, since]);
    }
    context.output.table(&shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_time_or_a_set_at_a_size() {
        assert!(matches!(
            "2026-11-22T06:40:00Z".parse(),
            Ok(Moment::Time(_))
        ));
        assert!(matches!(
            "north/confirmed=7".parse(),
            Ok(Moment::Size(_, 7))
        ));
        for bad in ["7", "", "north/confirmed=", "=7", "then"] {
            assert!(bad.parse::<Moment>().is_err(), "{bad}");
        }
    }

    #[test]
    fn no_call_is_too_large_and_no_item_is_in_two() {
        let signal = Signal::parse_spec(&format!("MD5:{}", "ab".repeat(16))).unwrap();
        let item = |signals: usize| Item {
            name: String::new(),
            signals: (0..signals).map(|_| signal.clone().into()).collect(),
            bytes: None,
            not_seen: None,
        };
        let all = batches(vec![item(300), item(200), item(1), item(500), item(1)]);
        let sizes: Vec<usize> = all.iter().map(Vec::len).collect();
        assert_eq!(sizes, [2, 1, 1, 1]);
    }
}
