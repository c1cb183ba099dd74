//! The hygiene gate: which signals of an entry say nothing, or too much.
//!
//! A pure function of the leaf and of the operator's allow list, asked when a leaf is
//! indexed, a member's own ones too. What it flags goes into quarantine: the kind of
//! signal, or the entry where nothing else is left of it. When the rules or the list
//! change, the next open applies them to all that is held; what the operator decided
//! stays.

use std::collections::HashSet;
use std::sync::Arc;

use hashpact_core::id::Digest;
use hashpact_core::leaf::Publish;
use hashpact_core::signal::{Signal, SignalKind, hygiene};
use roaring::RoaringTreemap;
use rocksdb::WriteBatch;

use crate::error::Result;
use crate::families::Family;
use crate::index::derive::{FRAME_QUALITY_MIN, derive};
use crate::keys::IndexKey;
use crate::leaves::page_end;
use crate::quarantine::{LotName, Marks, Quarantine, Reason, WHOLE_LEAF};
use crate::store::{Inner, read};

/// The version of the rules; another one is applied to all that is held.
const RULES: &[u8] = b"hygiene rules 1";
/// Beside the rules where a list has pictures.
const NEAR_RULE: &[u8] = b"near 31";
/// Where it stands what was applied last, in `meta`.
const APPLIED: &[u8] = b"gate";

/// Which PDQ values are near those of an allow list: an index is not this crate's.
pub trait NearAllowed: Send + Sync {
    /// Whether any allowed value is within the distance at which pictures match.
    fn is_near(&self, pdq: &[u8; 32]) -> bool;
}

/// Makes an index of pictures.
pub type NearBuilder = fn(Vec<[u8; 32]>) -> Arc<dyn NearAllowed>;

/// Values that the operator never wants matched. Its `Debug` tells their number.
#[derive(Clone, Default)]
pub struct AllowList {
    exact: Arc<HashSet<IndexKey>>,
    near: Option<Arc<dyn NearAllowed>>,
    builder: Option<NearBuilder>,
}

impl AllowList {
    /// Of these signals.
    pub fn of<'s>(signals: impl IntoIterator<Item = &'s Signal>) -> Self {
        Self {
            exact: Arc::new(signals.into_iter().map(Signal::index_key).collect()),
            near: None,
            builder: None,
        }
    }

    /// The same, with pictures near those of the list, and of what is added to it.
    #[must_use]
    pub fn with_near_by(self, builder: NearBuilder) -> Self {
        let near = pictures(&self.exact).map(builder);
        Self {
            near,
            builder: Some(builder),
            ..self
        }
    }

    /// The same, with more values.
    pub(crate) fn and(&self, more: &HashSet<IndexKey>) -> Self {
        if more.is_empty() {
            return self.clone();
        }
        let list = Self {
            exact: Arc::new(self.exact.union(more).copied().collect()),
            ..self.clone()
        };
        match self.builder {
            Some(builder) => list.with_near_by(builder),
            None => list,
        }
    }

    /// What is on one of two lists alone.
    pub(crate) fn changed(&self, other: &Self) -> HashSet<IndexKey> {
        let changed = self.exact.symmetric_difference(&other.exact);
        changed.copied().collect()
    }

    /// What is near some values, where pictures are among them.
    pub(crate) fn near_to(&self, keys: &HashSet<IndexKey>) -> Option<Arc<dyn NearAllowed>> {
        Some(self.builder?(pictures(keys)?))
    }

    /// The same, with pictures near those of the list.
    #[must_use]
    pub fn with_near(self, near: Arc<dyn NearAllowed>) -> Self {
        Self {
            near: Some(near),
            ..self
        }
    }

    /// Values on it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.exact.len()
    }

    /// Whether nothing is on it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty()
    }

    fn digest(&self) -> Digest {
        let mut keys: Vec<&IndexKey> = self.exact.iter().collect();
        keys.sort_unstable();
        let mut bytes = RULES.to_vec();
        for key in keys {
            bytes.extend_from_slice(key);
        }
        // Nobody without pictures on a list pays for the rule.
        if self.near.is_some() {
            bytes.extend_from_slice(NEAR_RULE);
        }
        Digest::of(&bytes)
    }

    /// Why the list holds a signal back.
    fn flags(&self, signal: &Signal) -> Option<Reason> {
        let listed = !self.is_empty() && self.exact.contains(&signal.index_key());
        listed.then_some(Reason::AllowList)
    }

    /// Whether a picture is near an allowed one, or all that a video shows is.
    fn is_near(&self, signal: &Signal) -> bool {
        let Some(near) = &self.near else {
            return false;
        };
        match signal.kind() {
            SignalKind::Pdq => {
                let value = <&[u8; 32]>::try_from(signal.value().as_ref());
                value.is_ok_and(|value| near.is_near(value))
            }
            SignalKind::Vpdq => {
                let shown = signal.frames().filter(|f| f.quality >= FRAME_QUALITY_MIN);
                let mut shown = shown.peekable();
                shown.peek().is_some() && shown.all(|frame| near.is_near(&frame.pdq))
            }
            SignalKind::Md5
            | SignalKind::Sha1
            | SignalKind::Sha256
            | SignalKind::Sha512
            | SignalKind::PhotoDna
            | SignalKind::TmkPdqf
            | SignalKind::Url
            | SignalKind::Netclean
            | SignalKind::Videntifier
            | SignalKind::SsvhPdna
            | SignalKind::SsvhSaferHash => false,
        }
    }
}

/// The pictures among values; `None` where there are none.
fn pictures(keys: &HashSet<IndexKey>) -> Option<Vec<[u8; 32]>> {
    let pdq = SignalKind::Pdq.number_byte();
    let of = keys
        .iter()
        .filter_map(|[kind, value @ ..]| (*kind == pdq).then_some(*value));
    let pictures: Vec<[u8; 32]> = of.collect();
    (!pictures.is_empty()).then_some(pictures)
}

impl std::fmt::Debug for AllowList {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AllowList({} values)", self.len())
    }
}

/// The lots that an entry belongs to.
pub(crate) fn lots(allowed: &AllowList, publish: &Publish) -> Vec<LotName> {
    let flag = |signal: &Signal| {
        let reason = allowed.flags(signal);
        let reason = reason.or_else(|| hygiene(signal).map(Reason::from));
        let reason = reason.or_else(|| allowed.is_near(signal).then_some(Reason::NearAllowed));
        reason.map(|reason| LotName {
            reason,
            kind: u8::try_from(signal.kind().number()).unwrap_or(WHOLE_LEAF),
        })
    };
    let mut lots: Vec<LotName> = publish.signals.iter().filter_map(flag).collect();
    if lots.len() == publish.signals.len() {
        for lot in &mut lots {
            lot.kind = WHOLE_LEAF;
        }
    }
    lots.dedup();
    lots
}

/// Applies rules and list to all that is held, where they are others than were
/// applied last: reads every leaf, once.
pub(crate) fn apply(inner: &Inner) -> Result<()> {
    let digest = inner.allowed.with(AllowList::digest);
    if inner.get(Family::Meta, APPLIED)?.as_deref() == Some(digest.as_bytes()) {
        return Ok(());
    }
    for state in inner.feeds().by_no.values() {
        let (stored, indexed) = {
            let row = &read(&state.live).row;
            (row.stored, row.indexed)
        };
        let mut marks = Marks::default();
        let mut at = 0;
        while at < indexed {
            let end = page_end(at).min(indexed);
            for (index, leaf) in (at..).zip(inner.leaves(state.no, stored, at, end)?) {
                for lot in derive(inner, state, index, &leaf)?.held {
                    marks.add(lot, index);
                }
            }
            at = end;
        }
        state.change_quarantine(inner, |quarantine| reapply(quarantine, &marks, None))?;
    }
    put_applied(inner, &digest)
}

/// Notes that a list was applied to all that is held.
pub(crate) fn note_applied(inner: &Inner, list: &AllowList) -> Result<()> {
    put_applied(inner, &list.digest())
}

fn put_applied(inner: &Inner, digest: &Digest) -> Result<()> {
    // Crash: before, all of it is done again; after, it is done.
    let mut batch = WriteBatch::default();
    batch.put_cf(inner.cf(Family::Meta)?, APPLIED, digest.as_bytes());
    inner.write_synced(batch, "applying the hygiene gate")
}

/// Puts the derived lots at what the gate says, of all leaves or of some; answers all
/// leaves concerned.
pub(crate) fn reapply(
    quarantine: &mut Quarantine,
    marks: &Marks,
    only: Option<&RoaringTreemap>,
) -> std::collections::BTreeMap<LotName, RoaringTreemap> {
    let held = quarantine.lots.keys().filter(|n| n.reason.is_derived());
    let names: Vec<LotName> = held.chain(marks.0.keys()).copied().collect();
    let mut changed = std::collections::BTreeMap::new();
    for name in names {
        let lot = quarantine.lots.entry(name).or_default();
        let before = lot.clone();
        let mut flagged = marks.0.get(&name).cloned().unwrap_or_default();
        if let Some(only) = only {
            // Of all others the gate says what it said.
            flagged |= before.all() - only;
        }
        lot.released &= &flagged;
        lot.dropped &= &flagged;
        lot.held = flagged;
        lot.held -= &lot.released;
        lot.held -= &lot.dropped;
        if *lot != before {
            let mut all = before.all();
            all |= lot.all();
            changed.insert(name, all);
        }
    }
    changed
}
