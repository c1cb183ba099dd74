//! Videos that are near one: enough of their frames are.
//!
//! Frames are found near as pictures are, and lead to entries; the videos of those are
//! read from their leaves and compared whole. Where at least p percent of n frames must
//! be found, any n - ⌈p·n/100⌉ + 1 of them have one among them: so many are asked for,
//! evenly chosen, and nothing is missed.
//!
//! Blocking; the local API calls it off the reactor.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use hashpact_core::id::MemberNumber;
use hashpact_core::leaf::{self, Leaf};
use hashpact_core::signal::{Signal, SignalKind};
use hashpact_matching::pdq;
use hashpact_matching::vpdq::{self, Comparison, Frame, Thresholds};
use hashpact_store::{FRAME_KIND, FeedNo, IndexKey, Posting, Store, StoreError, frame_key};

use crate::error::NodeError;
use crate::lookup::{Met, Names};
use crate::matching::{Nearest, Telling};
use crate::model::{Match, MatchOptions, VideoShare};
use crate::near::Near;

/// Frames that are asked for in one call: half a second with a million frames known.
const FRAMES_PER_CALL: usize = 8_192;
/// Values near one frame that are looked up, the nearest.
const VALUES_PER_FRAME: usize = 1_024;
/// Values near all frames of one video.
const VALUES_MAX: usize = 32_768;
/// Entries of one set that are met by one frame: an opening that many videos share.
const PER_FEED: usize = 16;
/// Values looked up at one time, and entries that are met: what is in memory has a bound.
const SLICE: usize = 512;
const MET_MAX: usize = 65_536;
/// Entries of one publisher whose videos are compared, those with most frames met first.
const PER_PUBLISHER: usize = 64;
/// Entries whose videos are compared for one item, and in one call: leaves are read,
/// some 1 ms each.
const COMPARED_MAX: usize = 512;
const COMPARED_PER_CALL: usize = 2_048;

/// Answers for the videos of one call.
pub(crate) struct Videos<'s> {
    store: &'s Store,
    near: Option<&'s Near>,
    thresholds: Thresholds,
    frames_left: usize,
    leaves_left: usize,
}

/// A video that is asked for.
pub(crate) struct Query<'q> {
    signal: &'q Signal,
    /// All frames.
    frames: Vec<Frame>,
    /// Values of those that are asked for.
    asked: Vec<[u8; 32]>,
}

/// An entry that some frames lead to.
struct Candidate {
    said: Match,
    feed: FeedNo,
    index: u64,
    met: usize,
}

impl<'s> Videos<'s> {
    pub(crate) fn new(
        store: &'s Store,
        near: Option<&'s Near>,
        options: MatchOptions,
        distance: u32,
    ) -> Result<Self, NodeError> {
        let percent = |asked: Option<u8>, default| {
            let percent = asked.unwrap_or(default);
            let good = (percent <= 100).then_some(percent);
            good.ok_or_else(|| NodeError::Misuse(format!("{percent} percent of the frames")))
        };
        let default = Thresholds::default();
        Ok(Self {
            store,
            near,
            thresholds: Thresholds {
                distance,
                query_percent: percent(options.video_query_percent, default.query_percent)?,
                compared_percent: percent(
                    options.video_compared_percent,
                    default.compared_percent,
                )?,
                ..default
            },
            frames_left: FRAMES_PER_CALL,
            leaves_left: COMPARED_PER_CALL,
        })
    }

    /// What to ask for a video; none for another signal, for the very value, and for a
    /// video without a frame that counts: these are looked up as they are.
    pub(crate) fn query<'q>(&mut self, signal: &'q Signal) -> Result<Option<Query<'q>>, NodeError> {
        if signal.kind() != SignalKind::Vpdq || self.thresholds.distance == 0 {
            return Ok(None);
        }
        let frames: Vec<Frame> = frames_of(signal);
        let counted = vpdq::distinct(&frames, self.thresholds.quality);
        if counted.is_empty() {
            return Ok(None);
        }
        let asked = chosen(&counted, self.thresholds.query_percent);
        self.frames_left = self.frames_left.checked_sub(asked.len()).ok_or_else(|| {
            NodeError::Misuse(format!(
                "more than {FRAMES_PER_CALL} frames of videos in one call; ask in several"
            ))
        })?;
        Ok(Some(Query {
            signal,
            frames,
            asked,
        }))
    }

    /// Adds the entries whose videos match, those with most in common first.
    pub(crate) fn tell(
        &mut self,
        query: &Query<'_>,
        names: &mut Names<'_>,
        keep: &impl Fn(&mut Match) -> bool,
        answer: &mut Telling,
    ) -> Result<(), NodeError> {
        let candidates = self.candidates(query, names, keep, &mut answer.more)?;
        let mut found = Vec::new();
        for candidate in candidates {
            let Some(left) = self.leaves_left.checked_sub(1) else {
                answer.more = true;
                break;
            };
            self.leaves_left = left;
            if let Some((share, key)) = self.compare(query, &candidate)? {
                found.push((share, key, candidate));
            }
        }
        found.sort_by(|(a, _, first), (b, _, second)| {
            let place = |of: &Candidate| (of.feed, of.index);
            b.cmp(a).then(place(first).cmp(&place(second)))
        });
        for (share, key, candidate) in found {
            answer.add(candidate.said, key, 0, Some(share));
        }
        Ok(())
    }

    /// The entries that frames lead to, most frames first, publishers in turn.
    fn candidates(
        &self,
        query: &Query<'_>,
        names: &mut Names<'_>,
        keep: &impl Fn(&mut Match) -> bool,
        more: &mut bool,
    ) -> Result<Vec<Candidate>, NodeError> {
        let values = self.values(&query.asked, more)?;
        let mut keys: Vec<_> = values.iter().map(frame_key).collect();
        // Whoever says the very video is found, whatever its frames lead to.
        keys.push(query.signal.index_key());
        let mut met: BTreeMap<(FeedNo, u64), (usize, Posting)> = BTreeMap::new();
        for keys in keys.chunks(SLICE) {
            for found in self.store.lookup_bounded(keys, PER_FEED)? {
                *more |= found.more;
                for posting in found.postings {
                    let place = (posting.feed, posting.index);
                    if met.len() < MET_MAX || met.contains_key(&place) {
                        met.entry(place).or_insert((0, posting)).0 += 1;
                    } else {
                        *more = true;
                    }
                }
            }
        }
        // Of frames nobody has an opinion; of the very video one may.
        let key = query.signal.index_key();
        let opinions = names.on_signal(&key, || Some(query.signal.clone()))?;
        let met_by = Met {
            kind: SignalKind::Vpdq,
            opinions: &opinions,
        };
        let mut met: Vec<_> = met.into_iter().collect();
        met.sort_by_key(|(place, (count, _))| (std::cmp::Reverse(*count), *place));
        let mut of_publisher: HashMap<MemberNumber, usize> = HashMap::new();
        let mut candidates = Vec::new();
        for ((feed, index), (count, posting)) in met {
            let said: Option<Match> = names.answer(&posting, met_by)?;
            let said = said.and_then(|mut said| keep(&mut said).then_some(said));
            let Some(said) = said else { continue };
            let before = of_publisher.entry(said.publisher).or_default();
            if *before == PER_PUBLISHER {
                *more = true;
                continue;
            }
            let turn = *before;
            *before = before.saturating_add(1);
            let met = count;
            candidates.push((
                turn,
                Candidate {
                    said,
                    feed,
                    index,
                    met,
                },
            ));
        }
        candidates.sort_by_key(|(turn, candidate)| (*turn, std::cmp::Reverse(candidate.met)));
        *more |= candidates.len() > COMPARED_MAX;
        candidates.truncate(COMPARED_MAX);
        Ok(candidates.into_iter().map(|(_, one)| one).collect())
    }

    /// The values known that are near those asked for.
    fn values(&self, asked: &[[u8; 32]], more: &mut bool) -> Result<BTreeSet<[u8; 32]>, NodeError> {
        let max = self.thresholds.distance;
        let mut values = BTreeSet::new();
        let mut take = |(near, cut): (Vec<([u8; 32], u32)>, bool)| {
            *more |= cut;
            for (value, _) in near {
                if values.len() == VALUES_MAX {
                    *more = true;
                    return;
                }
                values.insert(value);
            }
        };
        if let Some(near) = self.near {
            for value in asked {
                take(near.within(value, max, VALUES_PER_FRAME)?);
            }
            return Ok(values);
        }
        let mut nearest: Vec<_> = asked
            .iter()
            .map(|value| (value, Nearest::new(VALUES_PER_FRAME)))
            .collect();
        self.store.scan_values(FRAME_KIND, |held| {
            for (value, nearest) in &mut nearest {
                let distance = pdq::distance(value, held);
                if distance <= max {
                    nearest.meet(held, distance);
                }
            }
            true
        })?;
        for (_, nearest) in nearest {
            take(nearest.finish());
        }
        Ok(values)
    }

    /// How much of the entry's video that has most in common is the same, if enough is,
    /// and what that video is found by.
    fn compare(
        &self,
        query: &Query<'_>,
        candidate: &Candidate,
    ) -> Result<Option<(VideoShare, IndexKey)>, NodeError> {
        let raw = match self.store.read_leaf(candidate.feed, candidate.index) {
            // The feed went meanwhile, or the leaf was cut off.
            Err(StoreError::UnknownFeed(_) | StoreError::OutOfRange { .. }) => return Ok(None),
            other => other?,
        };
        let Leaf::Publish(publish) = leaf::read(&raw, candidate.index) else {
            // It was erased meanwhile.
            return Ok(None);
        };
        let mut best = None;
        for signal in &publish.signals {
            if signal.kind() != SignalKind::Vpdq {
                continue;
            }
            let compared = vpdq::compare(&query.frames, &frames_of(signal), &self.thresholds);
            let compared = compared.map_err(|error| NodeError::Misuse(error.to_string()))?;
            if compared.is_match(&self.thresholds) {
                best = best.max(Some((share(&compared), signal.index_key())));
            }
        }
        Ok(best)
    }
}

fn frames_of(signal: &Signal) -> Vec<Frame> {
    let frames = signal.frames().map(|frame| Frame {
        value: frame.pdq,
        quality: frame.quality,
        number: None,
        time_ms: Some(u64::from(frame.at_ms)),
    });
    frames.collect()
}

/// The values of as many frames as a match has one of, evenly chosen.
fn chosen(frames: &[Frame], percent: u8) -> Vec<[u8; 32]> {
    let needed = frames.len().saturating_mul(usize::from(percent));
    let needed = needed.div_ceil(100).max(1);
    let count = frames.len().saturating_sub(needed).saturating_add(1);
    let places = (0..count).map(|place| place.saturating_mul(frames.len()) / count);
    let frames = places.filter_map(|place| frames.get(place));
    frames.map(|frame| frame.value).collect()
}

fn share(compared: &Comparison) -> VideoShare {
    let percent = |part: usize, whole: usize| {
        let percent = part.saturating_mul(100).checked_div(whole).unwrap_or(0);
        u8::try_from(percent).unwrap_or(100)
    };
    VideoShare {
        query_percent: percent(compared.query_matched, compared.query_frames),
        compared_percent: percent(compared.compared_matched, compared.compared_frames),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_frames_are_asked_for_that_every_match_has_one_of_them() {
        for (frames, percent, expected) in [
            (200, 80, 41),
            (1, 80, 1),
            (10, 100, 1),
            (10, 0, 10),
            (10, 1, 10),
            (3, 50, 2),
        ] {
            let frames: Vec<Frame> = (0..frames)
                .map(|n| Frame {
                    value: [n; 32],
                    quality: 90,
                    number: None,
                    time_ms: None,
                })
                .collect();
            let asked = chosen(&frames, percent);
            let distinct: BTreeSet<_> = asked.iter().collect();
            assert_eq!(distinct.len(), expected, "{} at {percent} %", frames.len());
        }
    }
}
