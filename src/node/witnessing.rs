//! This node as a witness: its key, what it has cosigned, and who may be told.
//!
//! The core's [`Witness`](hashpact_core::witness) decides, the exchange drives it; here
//! lies what it needs of the disk and of the key. Blocking where it says so.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use bytes::Bytes;
use hashpact_core::checkpoint::{self, Checkpoint, Origin};
use hashpact_core::id::{CoalitionName, Digest, FeedId, MemberNumber, Slug, UnixMillis};
use hashpact_core::keys::{PublicKey, SecretKey, Witness};
use hashpact_core::witness::Cosigned;
use hashpact_core::witness::roster::RosterHead;
use hashpact_store::cosigned::{CosignedError, CosignedStates};

use crate::error::NodeError;

/// The folder of the records, beside the sign-state file.
const FOLDER: &str = "witness";

/// What stands for the epoch in records of roster chains, which are no feeds: no feed
/// comes so far.
const ROSTER: u32 = u32::MAX;

/// Epoch, size and root.
type Shown = (u32, u64, Digest);

/// With what a node witnesses.
#[derive(Debug)]
pub struct WitnessOptions {
    /// The key that stands on the node card. In a rotation the former one; see
    /// [`Witnessing::use_key`].
    pub key: SecretKey<Witness>,
    /// The node does nothing else: it pulls no leaves, whatever its member may read.
    pub only: bool,
}

/// What is told of a feed that was cosigned.
#[derive(Debug, Clone)]
pub struct Said {
    /// The state.
    pub cosigned: Cosigned,
    /// The cosignature's line.
    pub line: Bytes,
    /// When this state was first cosigned since the node began.
    pub since: UnixMillis,
    /// When it was cosigned last.
    pub at: UnixMillis,
}

/// This node as a witness.
#[derive(Debug)]
pub struct Witnessing {
    /// The records are the same whichever key it is: PROTOCOL 11.13a.
    key: RwLock<SecretKey<Witness>>,
    only: bool,
    states: Mutex<CosignedStates>,
    said: RwLock<BTreeMap<FeedId, Said>>,
    /// What each member showed last of a feed: it knows of that state.
    showed: Mutex<BTreeMap<FeedId, BTreeMap<MemberNumber, Shown>>>,
}

impl Witnessing {
    /// Opens the records of a node that witnesses. Blocking.
    ///
    /// # Errors
    /// As [`Witnessing::open`].
    pub(crate) fn of(
        dir: &Path,
        options: Option<WitnessOptions>,
    ) -> Result<Option<Arc<Self>>, NodeError> {
        let opened = options
            .map(|options| Self::open(dir, options))
            .transpose()?;
        Ok(opened.map(Arc::new))
    }

    /// Opens the records in the sign-state folder. Blocking.
    ///
    /// # Errors
    /// Records that cannot be read or are in use.
    fn open(dir: &Path, options: WitnessOptions) -> Result<Self, NodeError> {
        let states = CosignedStates::open(&dir.join(FOLDER));
        let states = states.map_err(|error| NodeError::Internal(error.to_string()))?;
        Ok(Self {
            key: RwLock::new(options.key),
            only: options.only,
            states: Mutex::new(states),
            said: RwLock::default(),
            showed: Mutex::default(),
        })
    }

    /// The key that it signs with.
    #[must_use]
    pub fn key(&self) -> PublicKey<Witness> {
        self.signing().public()
    }

    /// Takes another key into use, which stands on the node card beside the former one.
    /// Whoever drives the witness then has everything signed again.
    pub fn use_key(&self, key: SecretKey<Witness>) {
        *self.key.write().unwrap_or_else(PoisonError::into_inner) = key;
    }

    /// Whether the node does nothing else.
    #[must_use]
    pub const fn only(&self) -> bool {
        self.only
    }

    /// What is recorded of every feed.
    #[must_use]
    pub fn recorded(&self) -> Vec<(FeedId, Cosigned)> {
        let states = self.states();
        let all = states.states();
        let feeds = all.filter(|(_, state)| state.epoch != ROSTER);
        feeds.map(|(feed, state)| (*feed, state.clone())).collect()
    }

    /// Whether a state of a feed is recorded.
    #[must_use]
    pub fn has_record(&self, feed: &FeedId) -> bool {
        let states = self.states();
        states
            .state(feed)
            .is_some_and(|state| state.epoch != ROSTER)
    }

    /// The version and root of a roster chain that is recorded under a name.
    #[must_use]
    pub fn recorded_roster(&self, record: &FeedId) -> Option<(u64, Digest)> {
        let states = self.states();
        let state = states.state(record)?;
        Some((state.size, state.root))
    }

    /// Records a version of the roster chain durably before it is cosigned. Blocking.
    ///
    /// # Errors
    /// As [`CosignedStates::advance`].
    pub fn record_roster(
        &self,
        record: FeedId,
        own: MemberNumber,
        head: &RosterHead,
    ) -> Result<(), CosignedError> {
        let mut states = self.states();
        let expected = states.state(&record).map(Cosigned::state);
        let new = Cosigned {
            publisher: own,
            epoch: ROSTER,
            size: head.version,
            root: head.root,
            note: head.body().into(),
        };
        states.advance(record, expected, new)
    }

    /// Records a state durably before it is cosigned. Blocking.
    ///
    /// # Errors
    /// As [`CosignedStates::advance`].
    pub fn record(
        &self,
        feed: FeedId,
        expected: Option<(u32, u64, Digest)>,
        new: Cosigned,
    ) -> Result<(), CosignedError> {
        self.states().advance(feed, expected, new)
    }

    /// What is recorded of a feed, read from the disk. Blocking.
    ///
    /// # Errors
    /// As [`CosignedStates::read_again`].
    pub fn read_again(&self, feed: FeedId) -> Result<Option<Cosigned>, CosignedError> {
        Ok(self.states().read_again(feed)?.cloned())
    }

    /// Cosigns a state that is recorded, and keeps it to be told; `None` where another
    /// state is recorded, which no caller asks for.
    pub fn cosign(
        &self,
        feed: FeedId,
        cosigned: &Cosigned,
        (coalition, member): (&CoalitionName, &Slug),
        now: UnixMillis,
    ) -> Option<Said> {
        // The last door before the key: PROTOCOL 11.13.
        if self.states().state(&feed).map(Cosigned::state) != Some(cosigned.state()) {
            return None;
        }
        let checkpoint = Checkpoint {
            origin: Origin {
                coalition: coalition.clone(),
                feed,
                epoch: cosigned.epoch,
            },
            size: cosigned.size,
            root: cosigned.root,
        };
        let name = checkpoint::witness_name(coalition, member);
        let line = checkpoint::cosign(&checkpoint.body(), &name, &self.signing(), now.0 / 1_000);
        let mut all = self.said.write().unwrap_or_else(PoisonError::into_inner);
        let before = all.get(&feed);
        let before = before.filter(|said| said.cosigned.state() == cosigned.state());
        let said = Said {
            cosigned: cosigned.clone(),
            line: line.into(),
            since: before.map_or(now, |said| said.since),
            at: now,
        };
        all.insert(feed, said.clone());
        Some(said)
    }

    /// Cosigns a version of the roster chain that is recorded under `record`; `None`
    /// where another state is recorded, which no caller asks for.
    #[must_use]
    pub fn cosign_roster(
        &self,
        record: FeedId,
        head: &RosterHead,
        (coalition, member): (&CoalitionName, &Slug),
        now: UnixMillis,
    ) -> Option<Bytes> {
        // The last door before the key: PROTOCOL 11.17.
        let recorded = self.states().state(&record).map(Cosigned::state);
        if recorded != Some((ROSTER, head.version, head.root)) {
            return None;
        }
        let name = checkpoint::witness_name(coalition, member);
        let line = checkpoint::cosign(&head.body(), &name, &self.signing(), now.0 / 1_000);
        Some(line.into())
    }

    /// What was cosigned last of a feed.
    #[must_use]
    pub fn said(&self, feed: &FeedId) -> Option<Said> {
        let all = self.said.read().unwrap_or_else(PoisonError::into_inner);
        all.get(feed).cloned()
    }

    /// Every feed of which something was cosigned.
    #[must_use]
    pub fn feeds(&self) -> Vec<FeedId> {
        let all = self.said.read().unwrap_or_else(PoisonError::into_inner);
        all.keys().copied().collect()
    }

    /// A member showed a verified head. Answers whether it may be told what it might not be
    /// before: evidence about a feed of which it showed none, or the cosignature of that very
    /// state.
    pub fn shown(&self, feed: FeedId, state: Shown, by: MemberNumber) -> bool {
        let before = self.showed().entry(feed).or_default().insert(by, state);
        let all = self.said.read().unwrap_or_else(PoisonError::into_inner);
        let said = all.get(&feed).map(|said| said.cosigned.state());
        before.is_none() || said == Some(state) && before != Some(state)
    }

    /// Whether a member that is neither publisher nor witness may be told of what was
    /// cosigned last: it showed this very state itself.
    #[must_use]
    pub fn is_known_to(&self, feed: &FeedId, member: MemberNumber) -> bool {
        let shown = self.last_shown(feed, member);
        let said = self.said(feed).map(|said| said.cosigned.state());
        said.is_some() && said == shown
    }

    /// Whether a member showed a head of the feed, and so knows that there is one.
    #[must_use]
    pub fn showed_by(&self, feed: &FeedId, member: MemberNumber) -> bool {
        self.last_shown(feed, member).is_some()
    }

    fn last_shown(&self, feed: &FeedId, member: MemberNumber) -> Option<Shown> {
        let showed = self.showed();
        showed.get(feed)?.get(&member).copied()
    }

    fn signing(&self) -> RwLockReadGuard<'_, SecretKey<Witness>> {
        self.key.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn states(&self) -> MutexGuard<'_, CosignedStates> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn showed(&self) -> MutexGuard<'_, BTreeMap<FeedId, BTreeMap<MemberNumber, Shown>>> {
        self.showed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
