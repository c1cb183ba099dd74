//! Checking: everything recomputed from the leaves, and compared with what was signed.
//!
//! The newest head's signature, by a key of this member, stands for all: its leaves
//! lead to its root, its first leaf names the state of the segment before, and so on.

use std::collections::BTreeSet;

use bytes::Bytes;
use hashpact_core::checkpoint::{self, Checkpoint, SignedCheckpoint};
use hashpact_core::id::{Digest, FeedId, Slug};
use hashpact_core::keys::{Feed, PublicKey};
use hashpact_core::leaf::audit::{AUDIT_SEGMENT, Segment};
use hashpact_core::merkle::CompactRange;
use hashpact_core::note::Note;
use hashpact_core::reject::Rejection;
use hashpact_core::verified::Verified;
use hashpact_store::sign_state::SignedState;

use super::read::Said;
use super::{AUDIT_SET, Audit, retention};
use crate::error::NodeError;

/// What a check of the audit feed found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AuditReport {
    /// What is wrong, a sentence each; empty when all is sound.
    pub problems: Vec<String>,
    /// What is as it may be, and worth knowing.
    pub notices: Vec<String>,
    /// Segments held.
    pub segments: u64,
    /// Leaves hashed.
    pub leaves: u64,
    /// Heads of which the signature was checked.
    pub heads: u64,
    /// Leaves that are not signed yet.
    pub unsigned: u64,
    /// Acts that have begun and not ended.
    pub under_way: u64,
    /// The newest head as signed; empty for none.
    pub head: Bytes,
}

/// What the sign-state file has of each segment.
type Recorded = Vec<(FeedId, SignedState)>;

/// A segment as it stood when the check began.
struct Held {
    number: u64,
    id: FeedId,
    note: Option<Bytes>,
    /// How many leaves it had, where it is still open.
    size: Option<u64>,
}

/// A segment's leaves, hashed.
struct Hashed {
    first: Option<Segment>,
    size: u64,
    root: Digest,
    /// The root at the size that its head names.
    at_head: Option<Digest>,
}

impl Audit {
    /// Recomputes the whole feed from its leaves. Blocking, for as long as that takes.
    ///
    /// # Errors
    /// What the store answers; what is wrong with the data is in the report.
    pub fn verify(&self) -> Result<AuditReport, NodeError> {
        let _keeping = self.keep();
        let (segments, recorded) = self.held()?;
        let mut report = AuditReport {
            under_way: count(self.store.audit_begun()?.len()),
            segments: count(segments.len()),
            ..AuditReport::default()
        };
        let mut removed = BTreeSet::new();
        let mut before: Option<(Held, Hashed)> = None;
        let mut missing = None;
        let newest = segments.last().map(|held| held.number);
        for held in segments {
            let hashed = self.hash(&held, &mut removed, &mut report)?;
            let newest = newest == Some(held.number);
            self.check_head(&held, &hashed, newest, &mut report);
            if before.is_none() {
                missing = hashed
                    .first
                    .as_ref()
                    .and_then(|first| first.predecessor.clone());
            }
            check_chain(before.as_ref(), &held, &hashed, &mut report);
            before = Some((held, hashed));
        }
        if let Some(missing) = missing {
            // A broken predecessor was never held here to be removed.
            if missing.broken.is_none() && !removed.contains(&missing.feed) {
                report.problems.push(format!(
                    "the segment before the oldest one, {}, is not held, and nothing says that it \
                     was removed",
                    missing.feed.0.short()
                ));
            } else if missing.broken.is_none() {
                report.notices.push(format!(
                    "older segments were removed; the last of them was {}, {} leaves",
                    missing.feed.0.short(),
                    missing.size
                ));
            }
        }
        if let Some((held, hashed)) = &before {
            check_recorded(held, hashed, &recorded, &mut report);
        } else if !recorded.is_empty() {
            report.problems.push(
                "the sign-state file knows an audit feed, and the store holds none".to_owned(),
            );
        }
        Ok(report)
    }

    /// What there is to check, and what the sign-state file says, at one moment.
    fn held(&self) -> Result<(Vec<Held>, Recorded), NodeError> {
        let writing = self.writing();
        let recorded = writing.state.states().collect();
        let open = writing.position().and_then(|at| at.open.as_ref());
        let mut held = Vec::new();
        for (number, id) in self.store.audit_segments()? {
            held.push(Held {
                number,
                id,
                note: self.store.audit_head(number)?,
                size: open
                    .filter(|open| open.id == id)
                    .map(|open| open.range.end()),
            });
        }
        Ok((held, recorded))
    }

    fn hash(
        &self,
        held: &Held,
        removed: &mut BTreeSet<FeedId>,
        report: &mut AuditReport,
    ) -> Result<Hashed, NodeError> {
        let signed = held.note.as_ref().and_then(|note| size_of(note));
        let mut range = CompactRange::default();
        let mut first = None;
        let mut at_head = None;
        let name = held.number;
        self.store.audit_leaves(held.number, 0, |index, leaf| {
            if held.size.is_some_and(|size| index >= size) {
                return Ok(false);
            }
            if index != range.end() {
                report
                    .problems
                    .push(format!("segment {name}: leaf {} is missing", range.end()));
                return Ok(false);
            }
            match (index, Said::of(&leaf)) {
                (0, Said::Segment(segment)) => {
                    let payload = leaf.payload().cloned().unwrap_or_default();
                    let id = FeedId::derive(&segment.genesis, &segment.member, &payload);
                    if id != held.id || segment.number != held.number {
                        let what = format!("segment {name}: its first leaf is another's");
                        report.problems.push(what);
                    }
                    first = Some(*segment);
                }
                (1.., Said::Act(act)) => removed.extend(retention::removed(&act)),
                (_, Said::Segment(_) | Said::Act(_) | Said::Unread) => {
                    let newer = leaf.kind != AUDIT_SEGMENT && index > 0;
                    let text =
                        format!("segment {name}: leaf {index} says nothing that can be read");
                    let list = if newer {
                        &mut report.notices
                    } else {
                        &mut report.problems
                    };
                    list.push(text);
                }
            }
            range.push(leaf.hash());
            if signed == Some(range.end()) {
                at_head = range.root();
            }
            Ok(true)
        })?;
        report.leaves = report.leaves.saturating_add(range.end());
        let unsigned = range.end().saturating_sub(signed.unwrap_or(0));
        report.unsigned = report.unsigned.saturating_add(unsigned);
        let root = range
            .root()
            .unwrap_or_else(hashpact_core::merkle::empty_root);
        Ok(Hashed {
            first,
            size: range.end(),
            root,
            at_head,
        })
    }

    fn check_head(&self, held: &Held, hashed: &Hashed, newest: bool, report: &mut AuditReport) {
        let name = held.number;
        let Some(note) = &held.note else {
            report
                .notices
                .push(format!("segment {name} is not signed yet"));
            return;
        };
        report.head = note.clone();
        match self.check_note(note, &held.id) {
            Ok(signed) if hashed.at_head == Some(signed.root()) => {
                report.heads = report.heads.saturating_add(1);
            }
            Ok(signed) if signed.size() > hashed.size => report.problems.push(format!(
                "segment {name}: {} leaves were signed, {} are held",
                signed.size(),
                hashed.size
            )),
            Ok(_) => report.problems.push(format!(
                "segment {name}: its leaves do not lead to the root that was signed"
            )),
            // Cards of before a new founding are not in the store: what the segment after
            // names is covered by that one's signature.
            Err(Rejection::BadSignature { .. })
                if !newest && root_of(note).is_some() && root_of(note) == hashed.at_head =>
            {
                report.notices.push(format!(
                    "segment {name}: its head was signed by a key of no card held here; the \
                     segment after it stands for it"
                ));
            }
            Err(rejection) => report
                .problems
                .push(format!("segment {name}: its head is refused: {rejection}")),
        }
    }

    /// Checks a note with every key that this member's cards ever let sign the audit
    /// feed, and the one in use, which may not be on a card yet.
    fn check_note(
        &self,
        note: &[u8],
        feed: &FeedId,
    ) -> Result<Verified<SignedCheckpoint>, Rejection> {
        let coalition = self.membership.coalition().map_err(|error| {
            let why = error.to_string();
            Rejection::Unknown {
                what: "roster",
                why,
            }
        })?;
        checkpoint::verify(note, &coalition, feed, |epoch| self.keys(*feed, epoch))
    }

    fn keys(&self, feed: FeedId, epoch: u32) -> Vec<PublicKey<Feed>> {
        let mut keys = vec![self.publisher.feed_key()];
        let state = self.membership.state();
        if let (Some(chain), Ok(own), Ok(set)) =
            (&state.chain, self.membership.own(), Slug::parse(AUDIT_SET))
        {
            let roster = chain.roster();
            keys.extend(state.cards.feed_keys(own, &set, feed, epoch, roster));
        }
        keys
    }
}

/// A segment names the last state of the one before it.
fn check_chain(
    before: Option<&(Held, Hashed)>,
    held: &Held,
    hashed: &Hashed,
    report: &mut AuditReport,
) {
    let named = hashed
        .first
        .as_ref()
        .and_then(|first| first.predecessor.as_ref());
    let name = held.number;
    if let Some(broken) = named.and_then(|named| named.broken) {
        report.notices.push(format!(
            "segment {name} began anew: {}; the record between is lost",
            broken.code()
        ));
        return;
    }
    let Some((last, sealed)) = before else {
        return;
    };
    let same = named.is_some_and(|named| {
        named.feed == last.id
            && named.size == sealed.size
            && named.root == sealed.root
            && Some(&named.note) == last.note.as_ref()
    });
    if !same {
        report.problems.push(format!(
            "segment {name} does not name the last state of segment {}",
            last.number
        ));
    }
}

/// The sign-state file has the newest segment as its head says.
fn check_recorded(
    held: &Held,
    hashed: &Hashed,
    recorded: &[(FeedId, SignedState)],
    report: &mut AuditReport,
) {
    let name = held.number;
    let of = recorded.iter().find(|(feed, _)| *feed == held.id);
    let signed = held.note.as_ref().and_then(|note| size_of(note));
    match (of, signed) {
        (None, None) => {}
        (Some((_, state)), Some(size))
            if state.size == size && hashed.at_head == Some(state.root) => {}
        (Some((_, state)), _) => report.problems.push(format!(
            "segment {name}: {} leaves were recorded as signed, and the head held is another",
            state.size
        )),
        (None, Some(_)) => report.problems.push(format!(
            "segment {name}: the sign-state file does not know what was signed of it"
        )),
    }
}

/// The size that a note names; nothing of it is checked.
pub(super) fn size_of(note: &[u8]) -> Option<u64> {
    Some(body_of(note)?.size)
}

fn root_of(note: &[u8]) -> Option<Digest> {
    Some(body_of(note)?.root)
}

fn body_of(note: &[u8]) -> Option<Checkpoint> {
    Checkpoint::parse_body(&Note::parse(note).ok()?.text).ok()
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
