//! Who has a copy of a publisher's disk and its feed key, and no other key: appends
//! whatever it likes to a set and signs a head over it, with a program of its own.
//!
//! The publisher's node must not run meanwhile; one that is started afterwards serves
//! what the thief made, as the thief's own would.

use hashpact::keyfile;
use hashpact_core::checkpoint::{self, Checkpoint, Origin};
use hashpact_core::id::{CoalitionName, FeedId, UnixMillis};
use hashpact_core::keys::{Feed, SecretKey};
use hashpact_core::leaf::{
    self, ERASE, Erase, IndexRange, Leaf, PUBLISH, Publish, RETRACT, RawLeaf, Retract,
    RetractReason,
};
use hashpact_store::sign_state::{SignState, SignedState};
use hashpact_store::{Head, Store, StoreOptions};

use super::{COALITION, Member};

/// The stolen disk and key.
pub(crate) struct Thief {
    store: Store,
    sign_state: SignState,
    key: SecretKey<Feed>,
}

impl Thief {
    /// Breaks in at a member whose node does not run.
    pub(crate) fn at(member: &Member) -> Self {
        let folder = member.folder();
        let sign_state = folder.join("sign-state/sign-state.json");
        Self {
            store: Store::open(&folder.join("data"), &StoreOptions::default()).unwrap(),
            sign_state: SignState::open(&sign_state).unwrap(),
            key: keyfile::load(&folder.join("keys/feed.key")).unwrap(),
        }
    }

    /// Appends leaves to a set under a new head; answers the first one's index.
    pub(crate) fn sign(&mut self, feed: &FeedId, leaves: &[RawLeaf]) -> u64 {
        let no = self.store.feed_no(feed).unwrap();
        let mut writer = self.store.writer(no).unwrap();
        let first = writer.append(leaves).unwrap();
        let size = writer.sync().unwrap();
        let root = self.store.root_at(no, size).unwrap();
        let epoch = writer.info().epoch;
        let recorded = self.sign_state.state(feed);
        let before = self.store.frontier(no, recorded.unwrap().size).unwrap();
        let new = SignedState { epoch, size, root };
        self.sign_state
            .advance(feed, recorded, new, &before)
            .unwrap();
        let coalition = CoalitionName::parse(COALITION).unwrap();
        let origin = Origin {
            coalition: coalition.clone(),
            feed: *feed,
            epoch,
        };
        let note = checkpoint::sign(&Checkpoint { origin, size, root }, &self.key);
        let key = self.key.public();
        let verified = checkpoint::verify(&note, &coalition, feed, |_| vec![key]).unwrap();
        writer.commit_head(&Head::new(&verified, now())).unwrap();
        first
    }

    /// What stands at an index.
    pub(crate) fn publish_at(&self, feed: &FeedId, index: u64) -> Publish {
        let no = self.store.feed_no(feed).unwrap();
        let raw = self.store.read_leaf(no, index).unwrap();
        let Leaf::Publish(publish) = leaf::read(&raw, index) else {
            panic!("no entry at {index}")
        };
        *publish
    }
}

/// A retraction of so many leaves, without the identity key's signature.
pub(crate) fn retraction(first: u64, count: u64) -> RawLeaf {
    let retract = Retract {
        indexes: vec![IndexRange { first, count }],
        reason: RetractReason::Wrong,
        note: String::new(),
        recheck: false,
        created: now(),
        identity_signature: None,
    };
    RawLeaf::new(RETRACT, retract.encode([5; 16]).unwrap())
}

/// An erasure of so many leaves.
pub(crate) fn erasure(first: u64, count: u64) -> RawLeaf {
    let erase = Erase {
        indexes: vec![IndexRange { first, count }],
        legal_basis: "none at all".to_owned(),
        created: now(),
    };
    RawLeaf::new(ERASE, erase.encode([5; 16]).unwrap())
}

/// A version that takes the place of all these leaves.
pub(crate) fn in_place_of(mut publish: Publish, replaces: Vec<u64>) -> RawLeaf {
    publish.replaces = replaces;
    RawLeaf::new(PUBLISH, publish.encode([5; 16]).unwrap())
}

fn now() -> UnixMillis {
    let now = jiff::Timestamp::now().as_millisecond();
    UnixMillis(u64::try_from(now).unwrap())
}
