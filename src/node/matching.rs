//! Matching: who says what of a signal, near duplicates of PDQ included.
//!
//! Blocking; the local API calls it off the reactor. Values near one are found in
//! memory ([`Near`]); what is said of them is read from the store afterwards, so a
//! match is never older than a look-up.

use std::collections::HashMap;

use hashpact_core::signal::{Signal, SignalKind};
use hashpact_matching::pdq::{self, DEFAULT_DISTANCE, MAX_DISTANCE};
use hashpact_store::{IndexKey, Postings, Store};

use crate::error::NodeError;
use crate::lookup::{self, LOOKUP_MAX};
use crate::model::{Found, Match, MatchOptions, Matched};
use crate::near::Near;

/// Matches of one item that are told; the nearest. More mean a flood, not more truth.
pub const MATCHES_MAX: usize = 256;
/// Entries of one set that are told of one signal.
pub(crate) const PER_FEED: usize = 32;

/// One value to be looked up for one item.
struct Asked {
    item: usize,
    distance: u32,
}

/// Answers each signal with the entries that carry it or, for PDQ, one near it:
/// nearest first, then in the order of feeds and indexes.
///
/// # Errors
/// [`NodeError::Misuse`] for too many signals or too large a distance; what the store
/// answers.
pub(crate) fn matches(
    store: &Store,
    near: Option<&Near>,
    signals: &[Signal],
    options: MatchOptions,
) -> Result<Vec<Matched>, NodeError> {
    if signals.len() > LOOKUP_MAX {
        return Err(NodeError::Misuse(format!(
            "{} signals in one call, the limit is {LOOKUP_MAX}; ask in several, or use the stream",
            signals.len()
        )));
    }
    let max = options.max_distance.unwrap_or(DEFAULT_DISTANCE);
    if max > MAX_DISTANCE {
        return Err(NodeError::Misuse(format!(
            "a distance of {max} bits matches what is not alike; the largest is {MAX_DISTANCE}"
        )));
    }
    let mut answers: Vec<Matched> = Vec::new();
    answers.resize_with(signals.len(), Matched::default);
    let mut keys: Vec<IndexKey> = Vec::with_capacity(signals.len());
    let mut asked: Vec<Asked> = Vec::with_capacity(signals.len());
    let values = near_values(store, near, signals, max)?;
    for (item, signal) in signals.iter().enumerate() {
        let Some(values) = values.get(&item) else {
            keys.push(signal.index_key());
            asked.push(Asked { item, distance: 0 });
            continue;
        };
        for (value, distance) in values.iter().take(MATCHES_MAX) {
            keys.push(near_key(value));
            let distance = *distance;
            asked.push(Asked { item, distance });
        }
        if values.len() > MATCHES_MAX
            && let Some(answer) = answers.get_mut(item)
        {
            answer.more = true;
        }
    }
    let found = store.lookup_bounded(&keys, PER_FEED)?;
    let mut names = lookup::Names::new(store);
    for (asked, found) in asked.into_iter().zip(found) {
        if let Some(answer) = answers.get_mut(asked.item) {
            add(answer, &mut names, asked.distance, found)?;
        }
    }
    Ok(answers)
}

/// Adds what is said of one value to an item's answer. Values come nearest first.
fn add(
    answer: &mut Matched,
    names: &mut lookup::Names<'_>,
    distance: u32,
    found: Postings,
) -> Result<(), NodeError> {
    answer.more |= found.more;
    for posting in &found.postings {
        if answer.found.len() == MATCHES_MAX {
            answer.more = true;
            return Ok(());
        }
        let entry: Option<Match> = names.answer(posting)?;
        answer
            .found
            .extend(entry.map(|entry| Found { entry, distance }));
    }
    Ok(())
}

/// The PDQ values near each item that is one, nearest first; from the index, or
/// without one by a sweep over the store.
fn near_values(
    store: &Store,
    near: Option<&Near>,
    signals: &[Signal],
    max: u32,
) -> Result<HashMap<usize, Vec<([u8; 32], u32)>>, NodeError> {
    let mut found: HashMap<usize, ([u8; 32], Vec<([u8; 32], u32)>)> = HashMap::new();
    if max == 0 {
        return Ok(HashMap::new());
    }
    for (item, signal) in signals.iter().enumerate() {
        if let (SignalKind::Pdq, Ok(value)) = (signal.kind(), signal.value().as_ref().try_into()) {
            let value: [u8; 32] = value;
            found.insert(item, (value, Vec::new()));
        }
    }
    if let Some(near) = near {
        for (value, values) in found.values_mut() {
            *values = near.within(value, max)?;
        }
    } else if !found.is_empty() {
        store.scan_values(SignalKind::Pdq.number_byte(), |held| {
            for (value, values) in found.values_mut() {
                let distance = pdq::distance(value, held);
                if distance <= max {
                    values.push((*held, distance));
                }
            }
            true
        })?;
        for (_, values) in found.values_mut() {
            values.sort_unstable_by_key(|(value, distance)| (*distance, *value));
        }
    }
    let found = found.into_iter();
    Ok(found.map(|(item, (_, values))| (item, values)).collect())
}

fn near_key(value: &[u8; 32]) -> IndexKey {
    let mut key = [0; 33];
    key[0] = SignalKind::Pdq.number_byte();
    key[1..].copy_from_slice(value);
    key
}
