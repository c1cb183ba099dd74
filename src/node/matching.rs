//! Matching: who says what of a signal, near duplicates of PDQ and vPDQ included.
//!
//! Blocking; the local API calls it off the reactor. Values near one are found in
//! memory ([`Near`]); what is said of them is read from the store afterwards, so a
//! match is never older than a look-up.

use std::collections::{BinaryHeap, HashMap};

use hashpact_core::id::MemberNumber;
use hashpact_core::signal::{Signal, SignalKind};
use hashpact_matching::pdq::{self, DEFAULT_DISTANCE, MAX_DISTANCE};
use hashpact_store::{IndexKey, Postings, Store};

use crate::error::NodeError;
use crate::lookup::{self, LOOKUP_MAX, Met};
use crate::model::{Found, Match, MatchOptions, Matched, VideoShare};
use crate::near::Near;
use crate::opinions::Heard;
use crate::videos::Videos;

/// Matches of one item that are told; the nearest. More mean a flood, not more truth.
pub const MATCHES_MAX: usize = 256;
/// Entries of one set that are told of one signal.
pub(crate) const PER_FEED: usize = 32;
/// Values near one item that are looked up, the nearest: many may say nothing any
/// more, or be one publisher's flood, and what others say lies behind them. Some 100 ms.
const VALUES_MAX: usize = 32_768;
/// Values near its items that are looked up in one call: some 1 s. What comes after is
/// not answered, and says so.
const VALUES_PER_CALL: usize = 262_144;
/// Values near an item that are always looked up, and matches that are always told.
const FEW: usize = 16;
/// Matches that one call makes: some 30 MB of them.
const MATCHES_PER_CALL: usize = 65_536;
/// Values looked up at one time, which bounds what is in memory.
const SLICE: usize = LOOKUP_MAX;

/// What values are near, in memory; without them the store is swept.
#[derive(Clone, Copy, Default)]
pub(crate) struct Indexes<'n> {
    pub(crate) pictures: Option<&'n Near>,
    /// Frames of videos.
    pub(crate) frames: Option<&'n Near>,
}

/// One value to be looked up for one item.
struct Asked {
    item: usize,
    key: IndexKey,
    distance: u32,
}

/// Answers each signal with the entries that carry it or, for PDQ, one near it, that
/// `keep` lets stand: nearest first, then in the order of feeds and indexes.
///
/// # Errors
/// [`NodeError::Misuse`] for too many signals or too large a distance; what the store
/// answers.
pub(crate) fn matches(
    store: &Store,
    Indexes {
        pictures: near,
        frames,
    }: Indexes<'_>,
    signals: &[Signal],
    options: MatchOptions,
    (heard, keep): (Heard, impl Fn(&mut Match) -> bool),
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
    let mut answering = Answering {
        store,
        names: lookup::Names::new(store, heard),
        keep,
        signals,
        answers: signals.iter().map(|_| Telling::default()).collect(),
        asked: Vec::new(),
        left: MATCHES_PER_CALL,
    };
    let mut swept = match near {
        None => near_by_sweep(store, signals, max)?,
        Some(_) => HashMap::new(),
    };
    let mut videos = Videos::new(store, frames, options, max)?;
    let mut room = VALUES_PER_CALL;
    for (item, signal) in signals.iter().enumerate() {
        if let Some(query) = videos.query(signal)? {
            if let Some(answer) = answering.answers.get_mut(item) {
                videos.tell(&query, &mut answering.names, &answering.keep, answer)?;
            }
            continue;
        }
        let nearest = match (near, pdq_value(signal).filter(|_| max > 0)) {
            (_, None) => None,
            (None, Some(_)) => swept.remove(&item).map(Nearest::finish),
            (Some(near), Some(value)) => {
                let limit = VALUES_MAX.min(room.max(MATCHES_MAX));
                let nearest = near.within(&value, max, limit)?;
                // ⚠ What one publisher's flood takes is not taken from items beside it.
                if room == 0 && nearest.0.len() > FEW {
                    answering.give_up(item);
                    continue;
                }
                Some(nearest)
            }
        };
        let Some((values, more)) = nearest else {
            answering.ask(item, signal.index_key(), 0)?;
            continue;
        };
        room = room.saturating_sub(values.len());
        if let Some(answer) = answering.answers.get_mut(item) {
            answer.more |= more;
            answer.crowded |= more;
        }
        for (value, distance) in values {
            answering.ask(item, near_key(&value), distance)?;
        }
    }
    answering.look_up()?;
    Ok(answering.answers.into_iter().map(Telling::finish).collect())
}

/// The answers of one call, as values are looked up for them.
struct Answering<'s, K> {
    store: &'s Store,
    names: lookup::Names<'s>,
    keep: K,
    signals: &'s [Signal],
    answers: Vec<Telling>,
    asked: Vec<Asked>,
    /// Matches that the call may still make.
    left: usize,
}

impl<K: Fn(&mut Match) -> bool> Answering<'_, K> {
    fn ask(&mut self, item: usize, key: IndexKey, distance: u32) -> Result<(), NodeError> {
        self.asked.push(Asked {
            item,
            key,
            distance,
        });
        if self.asked.len() >= SLICE {
            self.look_up()?;
        }
        Ok(())
    }

    /// Leaves an item unanswered, and says so.
    fn give_up(&mut self, item: usize) {
        if let Some(answer) = self.answers.get_mut(item) {
            answer.over = true;
        }
    }

    fn look_up(&mut self) -> Result<(), NodeError> {
        let asked = std::mem::take(&mut self.asked);
        let keys: Vec<IndexKey> = asked.iter().map(|asked| asked.key).collect();
        let found = self.store.lookup_bounded(&keys, PER_FEED)?;
        for (asked, found) in asked.into_iter().zip(found) {
            self.tell(&asked, &found)?;
        }
        Ok(())
    }

    /// Adds what is said of one value to an item's answer.
    fn tell(&mut self, asked: &Asked, found: &Postings) -> Result<(), NodeError> {
        let signal = self.signals.get(asked.item);
        let Some((answer, signal)) = self.answers.get_mut(asked.item).zip(signal) else {
            return Ok(());
        };
        answer.more |= found.more;
        if found.postings.is_empty() {
            return Ok(());
        }
        let value = || match asked.distance {
            0 => Some(signal.clone()),
            // What is near a picture is one.
            _ => {
                let (_, value) = asked.key.split_first()?;
                Signal::new(SignalKind::Pdq, value.to_vec().into(), None).ok()
            }
        };
        let opinions = self.names.on_signal(&asked.key, value)?;
        let met = Met {
            kind: signal.kind(),
            opinions: &opinions,
        };
        for posting in &found.postings {
            let entry: Option<Match> = self.names.answer(posting, met)?;
            let entry = entry.and_then(|mut entry| (self.keep)(&mut entry).then_some(entry));
            let Some(entry) = entry else { continue };
            // ⚠ Of a call's first item all is told, which has a bound of its own, and of
            // any item a few matches.
            if self.left == 0 && asked.item > 0 && answer.found.len() >= FEW {
                answer.over = true;
                break;
            }
            if answer.add(entry, asked.key, asked.distance, None) {
                self.left = self.left.saturating_sub(1);
            }
        }
        Ok(())
    }
}

/// What is told of one item, as it is found: the nearest first.
///
/// ⚠ However much one publisher says, nobody else's word is left out for it: where
/// there is more than is told, publishers take turns.
#[derive(Default)]
pub(crate) struct Telling {
    /// With how many of the same publisher's come before it.
    found: Vec<(usize, Found)>,
    of_publisher: HashMap<MemberNumber, usize>,
    pub(crate) more: bool,
    crowded: bool,
    over: bool,
}

impl Telling {
    /// Answers whether there was room for it.
    pub(crate) fn add(
        &mut self,
        entry: Match,
        key: IndexKey,
        distance: u32,
        video: Option<VideoShare>,
    ) -> bool {
        let before = self.of_publisher.entry(entry.publisher).or_default();
        if *before == MATCHES_MAX {
            self.more = true;
            return false;
        }
        let found = Found {
            entry,
            distance,
            video,
            key,
        };
        self.found.push((*before, found));
        *before = before.saturating_add(1);
        true
    }

    fn finish(self) -> Matched {
        let mut found: Vec<_> = self.found.into_iter().enumerate().collect();
        let more = self.more || found.len() > MATCHES_MAX;
        if found.len() > MATCHES_MAX {
            found.sort_unstable_by_key(|(place, (before, _))| (*before, *place));
            found.truncate(MATCHES_MAX);
            found.sort_unstable_by_key(|(place, _)| *place);
        }
        let found = found.into_iter().map(|(_, (_, found))| found);
        Matched {
            found: found.collect(),
            more,
            crowded: self.crowded,
            over: self.over,
        }
    }
}

/// Values, nearest first, each with how many bits differ.
pub type NearValues = Vec<([u8; 32], u32)>;

/// The nearest of the values that are met, and whether there were more.
pub(crate) struct Nearest {
    limit: usize,
    more: bool,
    /// The furthest of them on top.
    values: BinaryHeap<(u32, [u8; 32])>,
}

impl Nearest {
    pub(crate) const fn new(limit: usize) -> Self {
        Self {
            limit,
            more: false,
            values: BinaryHeap::new(),
        }
    }

    pub(crate) fn meet(&mut self, value: &[u8; 32], distance: u32) {
        if self.values.len() < self.limit {
            self.values.push((distance, *value));
            return;
        }
        self.more = true;
        if let Some(mut furthest) = self.values.peek_mut()
            && (distance, *value) < *furthest
        {
            *furthest = (distance, *value);
        }
    }

    /// Nearest first.
    pub(crate) fn finish(self) -> (NearValues, bool) {
        let values = self.values.into_sorted_vec().into_iter();
        let values = values.map(|(distance, value)| (value, distance));
        (values.collect(), self.more)
    }
}

/// The PDQ values near each item that is one, by a sweep over the store.
fn near_by_sweep(
    store: &Store,
    signals: &[Signal],
    max: u32,
) -> Result<HashMap<usize, Nearest>, NodeError> {
    let items = signals.iter().enumerate();
    let items = items.filter_map(|(item, signal)| Some((item, pdq_value(signal)?)));
    let items: Vec<(usize, [u8; 32])> = items.filter(|_| max > 0).collect();
    // As much for all of them together as for one call with an index.
    let each = VALUES_PER_CALL.checked_div(items.len()).unwrap_or(0);
    let limit = VALUES_MAX.min(each.saturating_add(MATCHES_MAX));
    let mut found: HashMap<usize, ([u8; 32], Nearest)> = items
        .into_iter()
        .map(|(item, value)| (item, (value, Nearest::new(limit))))
        .collect();
    if !found.is_empty() {
        store.scan_values(SignalKind::Pdq.number_byte(), |held| {
            for (value, nearest) in found.values_mut() {
                let distance = pdq::distance(value, held);
                if distance <= max {
                    nearest.meet(held, distance);
                }
            }
            true
        })?;
    }
    let found = found.into_iter();
    Ok(found.map(|(item, (_, nearest))| (item, nearest)).collect())
}

fn pdq_value(signal: &Signal) -> Option<[u8; 32]> {
    if signal.kind() == SignalKind::Pdq {
        signal.value().as_ref().try_into().ok()
    } else {
        None
    }
}

fn near_key(value: &[u8; 32]) -> IndexKey {
    let mut key = [0; 33];
    key[0] = SignalKind::Pdq.number_byte();
    key[1..].copy_from_slice(value);
    key
}

#[cfg(test)]
mod tests {
    use hashpact_core::id::{Digest, EntryName, FeedId, SetName, UnixMillis};
    use hashpact_core::leaf::{Basis, MediaKind};

    use super::*;
    use crate::model::MatchStanding;
    use crate::opinions::Opinions;

    fn said(publisher: u32, index: u64) -> Match {
        Match {
            entry: EntryName {
                set: SetName::parse("a/b").unwrap(),
                first: index,
            },
            index,
            feed: FeedId(Digest::of(b"feed")),
            publisher: MemberNumber::new(publisher).unwrap(),
            classification: String::new(),
            basis: Basis::Human,
            media_kind: MediaKind::Image,
            published: UnixMillis(0),
            quality: None,
            standing: MatchStanding::Active,
            opinions: Opinions::default(),
        }
    }

    #[test]
    fn however_much_one_publisher_says_the_others_are_heard() {
        let mut telling = Telling::default();
        for n in 0..10_000 {
            telling.add(said(1, n), [5; 33], 2, None);
        }
        assert_eq!(telling.found.len(), MATCHES_MAX, "what is kept is bounded");
        for publisher in 2..5 {
            telling.add(said(publisher, 7), [5; 33], 20, None);
        }
        let told = telling.finish();
        assert!(told.more);
        assert_eq!(told.found.len(), MATCHES_MAX);
        let (first, others) = told.found.split_at(MATCHES_MAX - 3);
        assert!(first.iter().all(|found| found.entry.publisher.value() == 1));
        let others: Vec<u32> = others.iter().map(|f| f.entry.publisher.value()).collect();
        assert_eq!(others, [2, 3, 4]);
    }

    #[test]
    fn the_nearest_values_are_kept_and_no_more() {
        let mut nearest = Nearest::new(2);
        for distance in [9, 3, 7, 1, 8] {
            nearest.meet(&[0; 32], distance);
        }
        assert_eq!(nearest.finish(), (vec![([0; 32], 1), ([0; 32], 3)], true));
    }
}
