//! `hashpact lookup --as-of`: what the node would have answered then.

use std::str::FromStr;

use hashpact_api::wire;
use hashpact_core::signal::Signal;
use serde::Serialize;

use super::item::Item;
use crate::cli::Context;
use crate::cli::client::connect_or_embed;
use crate::cli::error::{CliError, Exit};
use crate::cli::output::{count, note, stamp, table};
use crate::cli::proof::make::AsOf;
use crate::cli::values::SetReference;

/// Signals in one call.
const BATCH: usize = 500;
/// What is no part of any feed.
const NOT_REPLAYED: &str = "not replayed: near values, access, freezes, quarantine, mutes and \
    policy; sets that were dropped since are not known any more";

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
struct Sets {
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
    let output = &context.output;
    let (mut known, mut asked, mut complete) = (0_u64, 0_u64, true);
    let mut sets = Vec::new();
    for batch in batches(items) {
        let signals = batch.iter().flat_map(|item| &item.signals);
        let request = wire::LookupPastRequest {
            signals: signals.map(|asked| to_wire(&asked.signal)).collect(),
            as_of_ms,
            sizes: sizes.clone(),
        };
        let answered = client.call(client.node().lookup_past(request))?;
        sets = answered.sets;
        let mut answers = answered.answers.into_iter();
        for item in batch {
            let object = ItemObject::of(&item, &mut answers);
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
    output.json(&Sets {
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
        let (set, many) = (&self.set, count(self.count));
        match self.code.as_str() {
            "payloads_gone" => format!("{set}: {many} entries of then have no content here now"),
            "opinions_gone" => format!("{set}: {many} opinions of then have no content here now"),
            "heads_pruned" => format!("{set}: changed about then, and heads of then are pruned"),
            "cut_off" => format!("{set}: a roster cut off what stood then"),
            "too_many" => format!("{set}: too many leaves carry it"),
            "too_many_opinions" => format!("{set}: more opinions about it than are looked at"),
            code => format!("{set}: {code}"),
        }
    }
}

impl ItemObject {
    fn of(item: &Item, answers: &mut impl Iterator<Item = wire::PastAnswer>) -> Self {
        let mut object = Self {
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
