//! Appending: one atomic write, read back, recorded, signed.

use bytes::Bytes;
use hashpact_core::checkpoint::{Checkpoint, Origin};
use hashpact_core::id::{Digest, FeedId, UnixMillis};
use hashpact_core::leaf::RawLeaf;
use hashpact_core::leaf::audit::{AUDIT_ACT, AUDIT_SEGMENT, Act, Break, Predecessor, Segment};
use hashpact_core::merkle::CompactRange;
use hashpact_store::AuditBatch;
use hashpact_store::sign_state::{SignState, SignedState};

use super::{Audit, Step};
use crate::error::NodeError;

/// The epoch of every segment: keys that leak are answered by the next one.
pub(super) const EPOCH: u32 = 0;

/// What only one thread at a time changes.
pub(super) struct Writing {
    pub(super) state: SignState,
    /// `None` before it was read, and where a fault left it in doubt.
    at: Option<Position>,
    next_begun: u64,
}

/// Where the next leaf goes.
pub(super) struct Position {
    /// The segment that is open; none before the first.
    pub(super) open: Option<Open>,
    /// A segment that can never be signed again, which the next one names.
    broken: Option<Predecessor>,
    /// The number of the next segment.
    next_segment: u64,
}

impl Position {
    /// Whether the next segment says that what was signed last is gone.
    pub(super) const fn is_broken(&self) -> bool {
        self.broken.is_some()
    }
}

/// The segment that is open.
pub(super) struct Open {
    pub(super) number: u64,
    pub(super) id: FeedId,
    created: UnixMillis,
    /// Over all its leaves, as read from the disk.
    pub(super) range: CompactRange,
    /// Over those that the sign-state file has.
    recorded: CompactRange,
    /// Its newest head: how many leaves it covers, and its note.
    pub(super) head: Option<(u64, Bytes)>,
}

impl Writing {
    pub(super) const fn new(state: SignState, next_begun: u64) -> Self {
        Self {
            state,
            at: None,
            next_begun,
        }
    }

    pub(super) const fn take_number(&mut self) -> u64 {
        let number = self.next_begun;
        self.next_begun = number.saturating_add(1);
        number
    }

    /// Where the next leaf goes, if that is known.
    pub(super) const fn position(&self) -> Option<&Position> {
        self.at.as_ref()
    }
}

impl Audit {
    /// Reads where the feed stands, and signs what is not signed.
    pub(super) fn settle(&self) -> Result<(), NodeError> {
        let mut writing = self.writing();
        let at = self.load(&writing.state)?;
        if let Some(broken) = &at.broken {
            let code = broken.broken.map_or("", Break::code);
            tracing::error!(
                code, segment = %broken.feed.0.short(), signed = broken.size,
                "the audit feed goes on in a new segment: what was signed last is not held"
            );
        }
        writing.at = Some(at);
        self.sign_or_say(&mut writing);
        Ok(())
    }

    /// Appends an act in one step with what it ends or removes, and signs. An error
    /// means that nothing was written.
    pub(super) fn append(
        &self,
        act: &Act,
        ended: Option<u64>,
        remove: Option<u64>,
    ) -> Result<(), NodeError> {
        let leaf = RawLeaf::new(AUDIT_ACT, act.encode(self.publisher.salt())?);
        let mut writing = self.writing();
        let mut at = match writing.at.take() {
            Some(at) => at,
            None => self.load(&writing.state)?,
        };
        let mut change = AuditBatch {
            ended,
            remove,
            ..AuditBatch::default()
        };
        let begun = self.next_segment(&at)?;
        let (number, mut index) = match (&begun, &at.open) {
            (Some((open, first)), _) => {
                change.begin = Some((open.number, open.id));
                change.leaves.push((open.number, 0, first.clone()));
                (open.number, 1)
            }
            (None, Some(open)) => (open.number, open.range.end()),
            (None, None) => {
                return Err(NodeError::Internal(
                    "the audit feed has no segment".to_owned(),
                ));
            }
        };
        change.leaves.push((number, index, leaf));
        let written =
            (self.fault)(Step::Append).and_then(|()| Ok(self.store.write_audit(&change)?));
        if let Err(error) = written {
            writing.at = Some(at);
            return Err(error);
        }
        if let Some((open, _)) = begun {
            at.next_segment = open.number.saturating_add(1);
            at.broken = None;
            at.open = Some(open);
            index = 0;
        }
        // From here on it is written: what goes wrong is made up for by the next.
        match self.take_in(&mut at, index) {
            Ok(()) => writing.at = Some(at),
            Err(error) => tracing::error!(%error, "the audit feed is read again"),
        }
        self.sign_or_say(&mut writing);
        drop(writing);
        self.told
            .send_modify(|leaves| *leaves = leaves.wrapping_add(1));
        Ok(())
    }

    /// Hashes what the disk holds from `index` on, not what memory thinks.
    fn take_in(&self, at: &mut Position, index: u64) -> Result<(), NodeError> {
        let Some(open) = &mut at.open else {
            return Ok(());
        };
        let mut index = index;
        while let Some(leaf) = self.store.audit_leaf(open.number, index)? {
            open.range.push(leaf.hash());
            index = index.saturating_add(1);
        }
        Ok(())
    }

    /// The segment that must begin now, with its first leaf; `None` where the open one
    /// goes on.
    fn next_segment(&self, at: &Position) -> Result<Option<(Open, RawLeaf)>, NodeError> {
        let now = self.clock.now();
        let predecessor = match (&at.broken, &at.open) {
            (Some(broken), _) => Some(broken.clone()),
            (None, None) => None,
            (None, Some(open)) => match self.sealed(open, now) {
                Some(sealed) => Some(sealed),
                None => return Ok(None),
            },
        };
        let segment = Segment {
            genesis: self.membership.genesis(),
            member: self.membership.slug().clone(),
            node: self.node.clone(),
            number: at.next_segment,
            created: now,
            predecessor,
        };
        let payload = segment.encode(self.publisher.salt())?;
        let open = Open {
            number: segment.number,
            id: FeedId::derive(&segment.genesis, &segment.member, &payload),
            created: now,
            range: CompactRange::default(),
            recorded: CompactRange::default(),
            head: None,
        };
        Ok(Some((open, RawLeaf::new(AUDIT_SEGMENT, payload))))
    }

    /// The last state of a segment that is full or old. One that is not signed to its
    /// end goes on: there is no roster yet, and so no name to sign under.
    fn sealed(&self, open: &Open, now: UnixMillis) -> Option<Predecessor> {
        let full = open.range.end() >= self.settings.segment_leaves;
        let old = now.since(open.created) >= self.settings.segment_ms;
        let (size, note) = open.head.as_ref()?;
        if !(full || old) || *size != open.range.end() {
            return None;
        }
        Some(Predecessor {
            feed: open.id,
            size: *size,
            root: open.range.root()?,
            note: note.clone(),
            broken: None,
        })
    }

    fn sign_or_say(&self, writing: &mut Writing) {
        if let Err(error) = self.sign(writing) {
            tracing::error!(%error, "the audit feed is not signed up to its end; the next record tries again");
        }
    }

    /// Records the state over all leaves, signs it, keeps the head, and forgets the
    /// segments that the open one has taken the place of.
    fn sign(&self, writing: &mut Writing) -> Result<(), NodeError> {
        let Writing { state, at, .. } = writing;
        let Some(at) = at.as_mut().filter(|at| at.broken.is_none()) else {
            return Ok(());
        };
        let Some(open) = &mut at.open else {
            return Ok(());
        };
        // Before the first roster there is no name to sign under.
        let Ok(coalition) = self.membership.coalition() else {
            return Ok(());
        };
        let (size, Some(root)) = (open.range.end(), open.range.root()) else {
            return Ok(());
        };
        if open
            .head
            .as_ref()
            .is_some_and(|(signed, _)| *signed == size)
        {
            return Ok(());
        }
        (self.fault)(Step::Record)?;
        let internal = |error: hashpact_store::sign_state::SignStateError| {
            NodeError::Internal(error.to_string())
        };
        let new = SignedState {
            epoch: EPOCH,
            size,
            root,
        };
        state
            .advance(&open.id, state.state(&open.id), new, &open.recorded)
            .map_err(internal)?;
        open.recorded = open.range.clone();
        (self.fault)(Step::Sign)?;
        // Crash here: recorded, not signed; the next start signs the identical state, or
        // a longer one.
        let checkpoint = Checkpoint {
            origin: Origin {
                coalition,
                feed: open.id,
                epoch: EPOCH,
            },
            size,
            root,
        };
        let signed = self.publisher.sign_checkpoint(&checkpoint)?;
        self.store.put_audit_head(open.number, &signed.note)?;
        open.head = Some((size, signed.note.clone()));
        let before: Vec<FeedId> = state.states().map(|(feed, _)| feed).collect();
        for feed in before.iter().filter(|feed| **feed != open.id) {
            state.end(feed).map_err(internal)?;
        }
        Ok(())
    }

    /// Reads where the feed stands: leaves from the disk, and what was signed of them.
    fn load(&self, state: &SignState) -> Result<Position, NodeError> {
        let segments = self.store.audit_segments()?;
        let held = |feed: &FeedId| segments.iter().any(|(_, id)| id == feed);
        let lost = state.states().find(|(feed, _)| !held(feed));
        let lost = lost.map(|(feed, signed)| gone(feed, signed, Break::StoreBehind));
        let Some((number, id)) = segments.last().copied() else {
            return Ok(Position {
                open: None,
                broken: lost,
                next_segment: 0,
            });
        };
        let recorded = state.state(&id);
        let (open, root) = self.open_segment(number, id, recorded)?;
        let broken = lost.or_else(|| broken(&open, recorded, root));
        Ok(Position {
            open: Some(open),
            broken,
            next_segment: number.saturating_add(1),
        })
    }

    /// The segment as the disk holds it, and its root at the size recorded of it.
    fn open_segment(
        &self,
        number: u64,
        id: FeedId,
        recorded: Option<SignedState>,
    ) -> Result<(Open, Option<Digest>), NodeError> {
        let mut open = Open {
            number,
            id,
            created: UnixMillis(0),
            range: CompactRange::default(),
            recorded: CompactRange::default(),
            head: None,
        };
        let mut root = None;
        self.store.audit_leaves(number, 0, |index, leaf| {
            // A first leaf that cannot be read leads to another root, which is said.
            let first = leaf.payload().filter(|_| index == 0).map(Segment::read);
            if let Some(Ok(first)) = first {
                open.created = first.created;
            }
            open.range.push(leaf.hash());
            if recorded.is_some_and(|recorded| recorded.size == open.range.end()) {
                open.recorded = open.range.clone();
                root = open.range.root();
            }
            Ok(true)
        })?;
        open.head = self.store.audit_head(number)?.and_then(|note| {
            let size = super::verify::size_of(&note)?;
            Some((size, note))
        });
        Ok((open, root))
    }
}

/// Why a segment cannot be signed any more, if so.
fn broken(open: &Open, recorded: Option<SignedState>, root: Option<Digest>) -> Option<Predecessor> {
    match recorded {
        // Never signed: its head is still to be made.
        None if open.head.is_none() => None,
        None => {
            let (_, note) = open.head.clone()?;
            Some(Predecessor {
                feed: open.id,
                size: open.range.end(),
                root: open.range.root()?,
                note,
                broken: Some(Break::StateLost),
            })
        }
        Some(signed) if signed.size > open.range.end() => {
            Some(gone(open.id, signed, Break::StoreBehind))
        }
        Some(signed) if root != Some(signed.root) => Some(gone(open.id, signed, Break::OtherRoot)),
        Some(_) => None,
    }
}

fn gone(feed: FeedId, signed: SignedState, why: Break) -> Predecessor {
    Predecessor {
        feed,
        size: signed.size,
        root: signed.root,
        note: Bytes::new(),
        broken: Some(why),
    }
}
