//! Sets whose entries never match: an allow list that its publisher keeps.
//!
//! The operator names them ([`allow_sets`](crate::StoreOptions::allow_sets)). The values of
//! their living entries stand on the list beside those of its files, and with them what is
//! near; what is taken back there matches again. Owns the list in force and how it follows
//! the sets: what is held is looked at again by the values that came or went alone.
//!
//! ⚠ What waits in quarantine itself for growth, room or a roster is on no list: a stolen
//! key that publishes everything within an hour would else disarm a node.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, RwLock};

use hashpact_core::leaf::{self, Leaf, PUBLISH};
use hashpact_core::signal::SignalKind;
use roaring::RoaringTreemap;

use crate::error::Result;
use crate::families::Family;
use crate::feeds::{FeedState, said_by};
use crate::frame_room::read_all;
use crate::gate::{self, AllowList};
use crate::index::derive::derive;
use crate::keys::{self, FRAME_KIND, FeedNo, IndexKey};
use crate::leaves::page_end;
use crate::quarantine::{Marks, WHOLE_LEAF};
use crate::store::{Inner, Store, hold, read, write};

/// Values of all sets together, as of all files: some 40 MB of memory.
pub const ALLOWED_MAX: usize = 1_000_000;
/// Leaves that are looked at again at one time.
const BATCH_LEAVES: usize = 1_024;

/// The list in force.
#[derive(Default)]
pub(crate) struct Allowed {
    list: RwLock<(u64, AllowList)>,
    /// The sets that it was made of, as they were.
    seen: Mutex<BTreeMap<FeedNo, u64>>,
}

impl Allowed {
    /// Calls `look` with the list.
    pub(crate) fn with<R>(&self, look: impl FnOnce(&AllowList) -> R) -> R {
        look(&read(&self.list).1)
    }

    /// Grows with every other list.
    pub(crate) fn generation(&self) -> u64 {
        read(&self.list).0
    }

    fn replace(&self, list: AllowList) {
        let mut held = write(&self.list);
        *held = (held.0.wrapping_add(1), list);
    }
}

/// Makes the list of files and sets; feeds are loaded.
pub(crate) fn load(inner: &Inner) -> Result<()> {
    let (keys, seen) = of_sets(inner)?;
    inner.allowed.replace(inner.options.allow_list.and(&keys));
    *hold(&inner.allowed.seen) = seen;
    Ok(())
}

impl Store {
    /// Whether sets are on the allow list, of which not everybody may know what is in them.
    #[must_use]
    pub fn has_allow_sets(&self) -> bool {
        !self.inner.options.allow_sets.is_empty()
    }

    /// Whether any of the sets that the operator named changed since they were looked at.
    #[must_use]
    pub fn allow_sets_changed(&self) -> bool {
        let inner = &*self.inner;
        !inner.options.allow_sets.is_empty() && versions(inner) != *hold(&inner.allowed.seen)
    }

    /// Follows the sets: what they hold now is held back, what they took back counts.
    /// Answers how many leaves were looked at for it.
    ///
    /// # Errors
    /// What the store answers; then the next start looks at all that is held.
    pub fn follow_allow_sets(&self) -> Result<u64> {
        let inner = &*self.inner;
        if !self.allow_sets_changed() {
            return Ok(0);
        }
        let (keys, seen) = of_sets(inner)?;
        let list = inner.options.allow_list.and(&keys);
        let changed = inner.allowed.with(|held| held.changed(&list));
        // What comes from here on goes by the new list.
        inner.allowed.replace(list.clone());
        *hold(&inner.allowed.seen) = seen;
        if changed.is_empty() {
            return Ok(0);
        }
        let mut leaves = 0_u64;
        for (no, indexes) in concerned(inner, &changed, &list)? {
            let Some(state) = inner.feeds().by_no.get(&no).cloned() else {
                continue;
            };
            leaves = leaves.saturating_add(indexes.len());
            apply_to(inner, &state, &indexes)?;
        }
        gate::note_applied(inner, &list)?;
        Ok(leaves)
    }
}

/// The sets that are held, as they stand.
fn versions(inner: &Inner) -> BTreeMap<FeedNo, u64> {
    let feeds = inner.feeds();
    let named = feeds.by_no.values().filter(|state| is_named(inner, state));
    let each = named.map(|state| (state.no, state.version.load(Ordering::Acquire)));
    each.collect()
}

fn is_named(inner: &Inner, state: &FeedState) -> bool {
    let live = read(&state.live);
    let said = live.describe.as_ref();
    let said = said.and_then(|(index, payload)| said_by(*index, payload));
    live.status.answers() && said.is_some_and(|(name, _)| inner.options.allow_sets.contains(&name))
}

/// The values of all sets, with the versions that they are of.
fn of_sets(inner: &Inner) -> Result<(HashSet<IndexKey>, BTreeMap<FeedNo, u64>)> {
    let mut keys = HashSet::new();
    if inner.options.allow_sets.is_empty() {
        return Ok((keys, BTreeMap::new()));
    }
    // Before they are read: a change meanwhile is found by the next look.
    let seen = versions(inner);
    for no in seen.keys() {
        let state = inner.feed(*no)?;
        if !gather(inner, &state, &mut keys)? {
            tracing::error!(
                limit = ALLOWED_MAX,
                "the sets of quarantine.allow_sets have more values than are taken: the rest matches"
            );
            break;
        }
    }
    Ok((keys, seen))
}

/// Takes the values of a set's living entries; answers whether there was room for all.
fn gather(inner: &Inner, state: &FeedState, keys: &mut HashSet<IndexKey>) -> Result<bool> {
    let (stored, indexed, quarantine) = {
        let live = read(&state.live);
        let quarantine = Arc::clone(&live.quarantine);
        (live.row.stored, live.row.indexed, quarantine)
    };
    let waits = |index: u64| {
        let mut lots = quarantine.lots.iter();
        lots.any(|(name, lot)| {
            name.kind == WHOLE_LEAF && !name.reason.is_derived() && lot.withholds(index)
        })
    };
    let mut at = 0;
    while at < indexed {
        let end = page_end(at).min(indexed);
        for (index, raw) in (at..).zip(inner.leaves(state.no, stored, at, end)?) {
            let dead = raw.kind != PUBLISH || read(&state.live).liveness.is_dead(index);
            if dead || waits(index) {
                continue;
            }
            if let Leaf::Publish(publish) = leaf::read(&raw, index) {
                for signal in &publish.signals {
                    if keys.len() >= ALLOWED_MAX {
                        return Ok(false);
                    }
                    keys.insert(signal.index_key());
                }
            }
        }
        at = end;
    }
    Ok(true)
}

/// The leaves that a changed value, or one near it, stands in. One sweep of all pictures
/// and frames where a picture changed.
fn concerned(
    inner: &Inner,
    changed: &HashSet<IndexKey>,
    list: &AllowList,
) -> Result<BTreeMap<FeedNo, RoaringTreemap>> {
    let mut found: BTreeMap<FeedNo, RoaringTreemap> = BTreeMap::new();
    for key in changed {
        let to = [key.as_slice(), &[0xff; 13]].concat();
        inner.scan(Family::Signals, key, &to, |row, _| {
            let (no, index) = keys::read_signal(row)?;
            found.entry(no).or_default().insert(index);
            Ok(true)
        })?;
    }
    let Some(near) = list.near_to(changed) else {
        return Ok(found);
    };
    for kind in [SignalKind::Pdq.number_byte(), FRAME_KIND] {
        let mut last: Option<([u8; 32], bool)> = None;
        let to = [kind.saturating_add(1)];
        inner.scan(Family::Signals, &[kind], &to, |row, _| {
            let value = row
                .get(1..33)
                .and_then(|value| <[u8; 32]>::try_from(value).ok());
            let Some(value) = value else {
                return Ok(true);
            };
            let is_near = match last {
                Some((same, is_near)) if same == value => is_near,
                Some(_) | None => near.is_near(&value),
            };
            last = Some((value, is_near));
            if is_near {
                let (no, index) = keys::read_signal(row)?;
                found.entry(no).or_default().insert(index);
            }
            Ok(true)
        })?;
    }
    Ok(found)
}

/// Puts leaves at what the gate says by the list in force.
pub(crate) fn apply_to(inner: &Inner, state: &FeedState, leaves: &RoaringTreemap) -> Result<()> {
    let indexed = read(&state.live).row.indexed;
    let mut rest = leaves
        .iter()
        .take_while(|index| *index < indexed)
        .peekable();
    while rest.peek().is_some() {
        let batch: RoaringTreemap = rest.by_ref().take(BATCH_LEAVES).collect();
        let mut marks = Marks::default();
        for (index, leaf) in read_all(inner, state, &batch)? {
            for lot in derive(inner, state, index, &leaf)?.held {
                marks.add(lot, index);
            }
        }
        state.change_quarantine(inner, |quarantine| {
            gate::reapply(quarantine, &marks, Some(&batch))
        })?;
    }
    Ok(())
}
