//! Leaves of honest feeds, badly served: withheld, cut short, changed, left out.

use bytes::Bytes;
use hashpact_core::chunk::Layout;
use hashpact_core::leaf::{RETRACT, RawLeaf};
use hashpact_core::page;
use hashpact_core::reject::Rejection;

use super::cast::Habit;
use super::fork::publish_leaf;
use super::{Kit, Served, Way};
use crate::types::{ChunkParts, PullPart, PullRequest};

/// Numbers of entries that nobody ever published begin here.
const FORGED: u64 = 0xE0_0000_0000;
/// So many of them at most.
pub(super) const FORGED_MAX: u64 = 16;

/// Entries that nobody ever published.
pub(super) fn forged_entries() -> impl Iterator<Item = u64> {
    FORGED..FORGED + FORGED_MAX
}

impl Kit {
    /// Whether a pull is answered at all.
    pub(super) fn withheld(&mut self, way: Way) -> Served {
        if !self.does(way.at, Habit::Withhold, 600) {
            Served::Truth
        } else if self.dice.happens(500) {
            Served::Never
        } else {
            Served::Refused(Rejection::NotFound.into())
        }
    }

    /// What is served in place of a true chunk.
    pub(super) fn tampered(
        &mut self,
        way: Way,
        _request: &PullRequest,
        mut chunk: ChunkParts,
    ) -> Vec<PullPart> {
        if self.tries(way.at, Habit::Truncate, 400) {
            return self.truncated(chunk);
        }
        if self.tries(way.at, Habit::Tamper, 400) {
            let forged = FORGED + self.dice.below(FORGED_MAX);
            let changed = if self.dice.happens(700) {
                self.one_of(&mut chunk, |_| publish_leaf(forged))
            } else {
                let hashes = [&mut chunk.before, &mut chunk.after].into_iter().flatten();
                hashes.map(|hash| hash.0[3] ^= 1).count() > 0
            };
            self.count_if(Habit::Tamper, changed);
        }
        if self.tries(way.at, Habit::Elide, 400) {
            let changed = self.one_of(&mut chunk, RawLeaf::elided);
            self.count_if(Habit::Elide, changed);
        }
        if self.tries(way.at, Habit::Unretract, 800) {
            let changed = edit(&mut chunk, |_, leaf| match leaf.kind {
                RETRACT => leaf.elided(),
                _ => leaf.clone(),
            });
            self.count_if(Habit::Unretract, changed);
        }
        vec![PullPart::Chunk(chunk)]
    }

    fn truncated(&mut self, mut chunk: ChunkParts) -> Vec<PullPart> {
        let whole = chunk.clone();
        match self.dice.below(4) {
            0 => {
                self.count(Habit::Truncate);
                return Vec::new();
            }
            1 => chunk.trailing = cut(&chunk.trailing),
            2 => chunk.to = chunk.to.saturating_sub(1),
            _ => drop(chunk.after.pop()),
        }
        self.count_if(Habit::Truncate, chunk != whole);
        vec![PullPart::Chunk(chunk)]
    }

    /// Counts a lie that changed something: in a chunk without a retraction, say, none can
    /// be left out.
    fn count_if(&mut self, habit: Habit, changed: bool) {
        if changed {
            self.count(habit);
        }
    }

    /// Changes one leaf; says whether it is another one now.
    fn one_of(&mut self, chunk: &mut ChunkParts, change: impl Fn(&RawLeaf) -> RawLeaf) -> bool {
        let which = self.dice.between(chunk.from, chunk.to.saturating_sub(1));
        edit(chunk, |index, leaf| {
            if index == which {
                change(leaf)
            } else {
                leaf.clone()
            }
        })
    }
}

fn cut(bytes: &Bytes) -> Bytes {
    bytes.slice(..bytes.len() / 2)
}

/// Makes each leaf of a chunk what a function makes of it; says whether any is another one.
fn edit(chunk: &mut ChunkParts, change: impl Fn(u64, &RawLeaf) -> RawLeaf) -> bool {
    let layout = Layout::of(chunk.from, chunk.to);
    let mut next = chunk.from;
    let mut any = false;
    let mut changed = |leaves: Vec<RawLeaf>| -> Vec<RawLeaf> {
        let changed = leaves.iter().map(|leaf| {
            next += 1;
            let made = change(next - 1, leaf);
            any |= made != *leaf;
            made
        });
        changed.collect()
    };
    let leading = page::decode_plain(&chunk.leading, layout.leading).unwrap();
    chunk.leading = page::encode_plain(&changed(leading)).unwrap();
    for whole in &mut chunk.pages {
        let leaves = changed(page::decode(whole).unwrap());
        *whole = page::encode(&leaves).unwrap();
    }
    let trailing = page::decode_plain(&chunk.trailing, layout.trailing).unwrap();
    chunk.trailing = page::encode_plain(&changed(trailing)).unwrap();
    any
}
