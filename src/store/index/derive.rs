//! What one leaf means for the index: a pure function of the leaf, its index and
//! the dictionary of classifications.

use std::collections::BTreeMap;

use bytes::Bytes;
use hashpact_core::id::Digest;
use hashpact_core::leaf::{self, Basis, Leaf, MediaKind, Publish, RawLeaf};
use hashpact_core::liveness::Kills;
use hashpact_core::signal::Signal;
use sha2::{Digest as _, Sha256};

use crate::counts::FeedCounts;
use crate::error::Result;
use crate::feeds::FeedState;
use crate::gate;
use crate::keys::{self, FRAME_KIND, IndexKey};
use crate::opinions::OpinionRow;
use crate::quarantine::LotName;
use crate::record::{KillerRecord, PostingRecord};
use crate::retractions::RetractionRow;
use crate::store::Inner;

/// Frames of videos below this quality show too little to find anything by.
pub(crate) const FRAME_QUALITY_MIN: u8 = 50;

/// All rows that one leaf gives.
pub(crate) struct Derived {
    pub(crate) index: u64,
    pub(crate) sort: Sort,
    pub(crate) postings: Vec<(IndexKey, PostingRecord)>,
    /// How many of them are frames of videos, and counted as such.
    pub(crate) frames: u64,
    /// Frames among them that are in no count.
    pub(crate) frames_uncounted: u64,
    /// An own entry's reference and content digests.
    pub(crate) reference: Option<([u8; 16], [u8; 16])>,
    pub(crate) killer: Option<KillerRecord>,
    /// The kind byte and the leaf itself, where it has a killer's row.
    pub(crate) killing: Option<(u8, Leaf)>,
    /// What a retract or erase leaf says.
    pub(crate) retraction: Option<RetractionRow>,
    /// The entry, where the leaf replaces earlier versions of it.
    pub(crate) replaces: Option<Replaces>,
    pub(crate) describe: Option<Bytes>,
    /// What an opinion says, of whom.
    pub(crate) opinion: Option<OpinionRow>,
    /// The lots of the quarantine that the gate puts it in.
    pub(crate) held: Vec<LotName>,
}

/// Which entry a leaf is a later version of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Replaces {
    pub(crate) first: u64,
    pub(crate) previous: u64,
}

/// What a leaf is counted as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sort {
    Describe,
    Publish,
    Retract,
    Opinion,
    Erase,
    Unknown,
    Void,
    Elided,
}

impl Sort {
    /// The count that the leaf belongs to.
    pub(crate) const fn counter(self, counts: &mut FeedCounts) -> &mut u64 {
        match self {
            Self::Describe => &mut counts.describe,
            Self::Publish => &mut counts.publish,
            Self::Retract => &mut counts.retract,
            Self::Opinion => &mut counts.opinion,
            Self::Erase => &mut counts.erase,
            Self::Unknown => &mut counts.unknown,
            Self::Void => &mut counts.void,
            Self::Elided => &mut counts.elided,
        }
    }
}

/// Reads the leaf at `index` and says what rows it gives.
pub(crate) fn derive(
    inner: &Inner,
    feed: &FeedState,
    index: u64,
    raw: &RawLeaf,
) -> Result<Derived> {
    let leaf = leaf::read(raw, index);
    let mut derived = Derived {
        index,
        sort: sort(&leaf),
        postings: Vec::new(),
        frames: 0,
        frames_uncounted: 0,
        reference: None,
        killer: Kills::of(raw.kind, &leaf).map(|kills| KillerRecord::of(raw.kind, &kills)),
        killing: None,
        retraction: RetractionRow::of(index, &leaf),
        replaces: None,
        describe: None,
        opinion: None,
        held: Vec::new(),
    };
    match &leaf {
        Leaf::Publish(publish) => {
            derived.postings = postings(inner, publish, index)?;
            let frames = derived.postings.iter().filter(|(key, _)| is_frame(key));
            derived.frames = u64::try_from(frames.count()).unwrap_or(u64::MAX);
            derived.held = inner.allowed.with(|list| gate::lots(list, publish));
            derived.reference = feed
                .own
                .then(|| (reference_digest(publish), content_digest(publish)));
            let ends = publish.replaces.first().zip(publish.replaces.last());
            derived.replaces = ends.map(|(first, previous)| Replaces {
                first: *first,
                previous: *previous,
            });
        }
        Leaf::Describe(_) => {
            derived.describe = raw.payload().map(|payload| Bytes::copy_from_slice(payload));
        }
        Leaf::Opinion(opinion) => derived.opinion = OpinionRow::of(feed, index, opinion),
        Leaf::Retract(_) | Leaf::Erase(_) | Leaf::Unknown(_) | Leaf::Void(_) | Leaf::Elided => {}
    }
    if derived.killer.is_some() {
        derived.killing = Some((raw.kind, leaf));
    }
    Ok(derived)
}

impl Derived {
    /// Postings that the feed counts.
    pub(crate) fn counted(&self) -> u64 {
        let postings = u64::try_from(self.postings.len()).unwrap_or(u64::MAX);
        postings.saturating_sub(self.frames_uncounted)
    }

    /// Takes the frames away.
    pub(crate) fn leave_out_frames(&mut self) {
        self.postings.retain(|(key, _)| !is_frame(key));
        (self.frames, self.frames_uncounted) = (0, 0);
    }

    /// Takes all else away that [`put_sorted`](crate::index::put_sorted) writes.
    pub(crate) fn keep_frames_alone(&mut self) {
        self.postings.retain(|(key, _)| is_frame(key));
        self.reference = None;
    }
}

/// Whether a posting is of a frame of a video.
pub(crate) fn is_frame(key: &IndexKey) -> bool {
    key.first() == Some(&FRAME_KIND)
}

fn postings(
    inner: &Inner,
    publish: &Publish,
    index: u64,
) -> Result<Vec<(IndexKey, PostingRecord)>> {
    let class = match &publish.classification {
        Some(class) => inner.classes.code(inner, &class.to_string())?,
        None => inner.classes.code(inner, "")?,
    };
    let record = PostingRecord {
        media_kind: media_kind(publish.media_kind),
        basis: basis(publish.basis),
        quality: None,
        class,
        published: publish.published,
        first_back: index.saturating_sub(publish.first_index(index)),
    };
    let mut postings: Vec<(IndexKey, PostingRecord)> = Vec::with_capacity(publish.signals.len());
    for signal in &publish.signals {
        let key = signal.index_key();
        if postings.iter().all(|(other, _)| *other != key) {
            let quality = signal.quality();
            postings.push((key, PostingRecord { quality, ..record }));
        }
    }
    let frames = frames(publish).into_iter();
    postings.extend(frames.map(|(key, quality)| {
        let quality = Some(quality);
        (key, PostingRecord { quality, ..record })
    }));
    Ok(postings)
}

/// The keys by which an entry's videos are found: each frame of some quality once, with
/// the best quality that it has.
fn frames(publish: &Publish) -> BTreeMap<IndexKey, u8> {
    let mut frames = BTreeMap::new();
    for frame in publish.signals.iter().flat_map(Signal::frames) {
        if frame.quality >= FRAME_QUALITY_MIN {
            let best: &mut u8 = frames.entry(keys::frame(&frame.pdq)).or_default();
            *best = frame.quality.max(*best);
        }
    }
    frames
}

/// The digest that an import knows an entry by: of its source reference, else of
/// its signals.
#[must_use]
pub fn reference_digest(publish: &Publish) -> [u8; 16] {
    let mut hasher = Sha256::new();
    if publish.source_reference.is_empty() {
        hasher.update(b"signals");
        let mut keys: Vec<_> = publish
            .signals
            .iter()
            .map(hashpact_core::signal::Signal::index_key)
            .collect();
        keys.sort_unstable();
        for key in keys {
            hasher.update(key);
        }
    } else {
        hasher.update(b"reference");
        hasher.update(publish.source_reference.as_bytes());
    }
    half(hasher)
}

/// The digest of what an entry says, apart from its salt, its time of publication
/// and what it replaces: equal content need not be published again.
#[must_use]
pub fn content_digest(publish: &Publish) -> [u8; 16] {
    let mut hasher = Sha256::new();
    let mut field = |bytes: &[u8]| {
        hasher.update(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
        hasher.update(bytes);
    };
    field(&[media_kind(publish.media_kind), basis(publish.basis)]);
    let mut signals: Vec<_> = publish.signals.iter().collect();
    signals.sort_unstable_by_key(|signal| signal.index_key());
    for signal in signals {
        let quality = signal
            .quality()
            .map_or(0, |quality| quality.saturating_add(1));
        field(&signal.kind().number().to_be_bytes());
        field(signal.value());
        field(&[quality]);
    }
    let class = publish.classification.as_ref();
    field(
        class
            .map(ToString::to_string)
            .unwrap_or_default()
            .as_bytes(),
    );
    for label in &publish.labels {
        field(label.as_bytes());
    }
    field(publish.source_reference.as_bytes());
    for time in [publish.first_seen, publish.expires] {
        field(&time.map_or(0, |time| time.0).to_be_bytes());
    }
    half(hasher)
}

fn half(hasher: Sha256) -> [u8; 16] {
    let digest = Digest(hasher.finalize().into());
    let mut half = [0; 16];
    half.copy_from_slice(&digest.0[..16]);
    half
}

const fn sort(leaf: &Leaf) -> Sort {
    match leaf {
        Leaf::Describe(_) => Sort::Describe,
        Leaf::Publish(_) => Sort::Publish,
        Leaf::Retract(_) => Sort::Retract,
        Leaf::Opinion(_) => Sort::Opinion,
        Leaf::Erase(_) => Sort::Erase,
        Leaf::Unknown(_) => Sort::Unknown,
        Leaf::Void(_) => Sort::Void,
        Leaf::Elided => Sort::Elided,
    }
}

/// The proto's number.
const fn media_kind(kind: MediaKind) -> u8 {
    match kind {
        MediaKind::Image => 1,
        MediaKind::Video => 2,
        MediaKind::Url => 3,
        MediaKind::Other => 4,
    }
}

/// The proto's number.
const fn basis(basis: Basis) -> u8 {
    match basis {
        Basis::Human => 1,
        Basis::Automated => 2,
        Basis::Inherited => 3,
    }
}
