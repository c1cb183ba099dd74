//! Feeds that a member makes by hand: leaves, heads, chunks and proofs of any history
//! it likes, signed with its own key.
//!
//! Owns no network; `hostile` serves what is made here.

use futures_util::stream;
use hashpact_core::checkpoint::{Checkpoint, Origin};
use hashpact_core::chunk::{ChunkParts, Layout};
use hashpact_core::id::SetName;
use hashpact_core::keys::Feed;
use hashpact_core::leaf::{
    DESCRIBE, Describe, FeedKind as DescribedKind, Grant, Grantee as LeafGrantee, IndexRange,
    PUBLISH, RETRACT, RawLeaf, Retract, Source, Terms,
};
use hashpact_core::merkle::{self, CompactRange};
use hashpact_core::page;

use super::hostile::{Give, Script, coalition_name, feed_key};
use super::*;
use crate::types::Head as ToldHead;

/// A head of anything, as a member says that a publisher signed it.
pub(super) fn told(feed: FeedId, publisher: u32, note: Vec<u8>) -> Announcement {
    Announcement::Head(Box::new(ToldHead {
        feed,
        publisher: number(publisher),
        note: note.into(),
        cosignatures: Vec::new(),
        receipts: Vec::new(),
    }))
}

/// A note that the key of `signer` makes.
pub(super) fn note(feed: FeedId, signer: u32, size: u64, root: Digest) -> Vec<u8> {
    note_of(feed, 0, &feed_key(signer), (size, root))
}

/// A note of any epoch and key.
pub(super) fn note_of(
    feed: FeedId,
    epoch: u32,
    key: &SecretKey<Feed>,
    (size, root): (u64, Digest),
) -> Vec<u8> {
    let origin = Origin {
        coalition: coalition_name(),
        feed,
        epoch,
    };
    checkpoint::sign(&Checkpoint { origin, size, root }, key)
}

/// A leaf that withdraws one index.
pub(super) fn retract_leaf(first: u64) -> RawLeaf {
    let retract = Retract {
        indexes: vec![IndexRange { first, count: 1 }],
        reason: RetractReason::Wrong,
        note: String::new(),
        recheck: false,
        created: NOW,
        identity_signature: None,
    };
    RawLeaf::new(RETRACT, retract.encode([9; 16]).unwrap())
}

/// A feed that is made by hand: any leaves, with right trees and signatures.
#[derive(Debug, Clone)]
pub(in crate::exchange) struct Forged {
    pub(in crate::exchange) publisher: u32,
    pub(in crate::exchange) feed: FeedId,
    pub(in crate::exchange) leaves: Vec<RawLeaf>,
}

impl Forged {
    /// A feed as it should be, of `size` leaves.
    pub(super) fn new(coalition: &Coalition, publisher: u32, set: &str, size: u64) -> Self {
        let describe = describe(coalition, publisher, set);
        Self::with(coalition, publisher, &describe, size)
    }

    pub(super) fn with(
        coalition: &Coalition,
        publisher: u32,
        describe: &Describe,
        size: u64,
    ) -> Self {
        let payload = describe.encode([7; 16]).unwrap();
        let member = slug(SLUGS[usize::try_from(publisher).unwrap() - 1]);
        let feed = FeedId::derive(&coalition.genesis, &member, &payload);
        let mut leaves = vec![RawLeaf::new(DESCRIBE, payload)];
        leaves.extend((1..size).map(publish_leaf));
        Self {
            publisher,
            feed,
            leaves,
        }
    }

    pub(in crate::exchange) fn size(&self) -> u64 {
        u64::try_from(self.leaves.len()).unwrap()
    }

    fn slice(&self, from: u64, to: u64) -> &[RawLeaf] {
        &self.leaves[usize::try_from(from).unwrap()..usize::try_from(to).unwrap()]
    }

    pub(in crate::exchange) fn range(&self, from: u64, to: u64) -> CompactRange {
        let mut range = CompactRange::empty(from);
        range.extend(self.slice(from, to).iter().map(RawLeaf::hash));
        range
    }

    pub(in crate::exchange) fn root(&self, size: u64) -> Digest {
        self.range(0, size)
            .root()
            .unwrap_or_else(merkle::empty_root)
    }

    /// The proof that a leaf is in the tree of `size` leaves.
    pub(super) fn inclusion(&self, index: u64, size: u64) -> Vec<Digest> {
        let subtree = |node: merkle::NodeId| {
            let width = 1_u64 << node.level;
            let range = self.range(node.index * width, (node.index + 1) * width);
            Ok::<_, std::convert::Infallible>(range.hashes()[0])
        };
        let proof = merkle::proof::inclusion_proof(index, size, subtree);
        proof.unwrap().unwrap()
    }

    pub(super) fn head(&self, size: u64) -> Announcement {
        let note = note(self.feed, self.publisher, size, self.root(size));
        told(self.feed, self.publisher, note)
    }

    pub(in crate::exchange) fn chunk(&self, from: u64, to: u64, size: u64) -> ChunkParts {
        let layout = Layout::of(from, to);
        let middle = from + u64::try_from(layout.leading).unwrap();
        let pages = u64::try_from(layout.pages).unwrap();
        let page = |n: u64| self.slice(middle + n * 256, middle + (n + 1) * 256);
        ChunkParts {
            from,
            to,
            leading: page::encode_plain(self.slice(from, middle)).unwrap(),
            pages: (0..pages).map(|n| page::encode(page(n)).unwrap()).collect(),
            trailing: page::encode_plain(self.slice(middle + pages * 256, to)).unwrap(),
            before: self.range(0, from).hashes().to_vec(),
            after: self.range(to, size).hashes().to_vec(),
        }
    }

    /// Answers pulls of this feed, chunk by chunk, with proofs where those are asked.
    pub(super) fn give(self) -> Give {
        Arc::new(move |_, request| {
            (request.feed == self.feed).then(|| {
                let (from, to, size) = (request.from, request.to, request.head_size);
                let part = if request.proof_only {
                    PullPart::Proof(crate::types::ProofParts {
                        from,
                        to,
                        before: self.range(0, from).hashes().to_vec(),
                        range: self.range(from, to).hashes().to_vec(),
                        after: self.range(to, size).hashes().to_vec(),
                    })
                } else {
                    PullPart::Chunk(self.chunk(from, to, size))
                };
                Box::pin(stream::iter([Ok(part)])) as Answers<PullPart>
            })
        })
    }

    /// Announces the newest head and serves the feed.
    pub(super) fn script(&self) -> Script {
        Script {
            first: vec![self.head(self.size())],
            give: Some(self.clone().give()),
            ..Script::default()
        }
    }
}

pub(super) fn publish_leaf(n: u64) -> RawLeaf {
    let mut body = entry(n).body;
    body.published = NOW;
    RawLeaf::new(PUBLISH, body.encode([9; 16]).unwrap())
}

/// What describes a set that everybody may read and relay.
pub(super) fn describe(coalition: &Coalition, publisher: u32, set: &str) -> Describe {
    Describe {
        genesis: coalition.genesis,
        feed_kind: DescribedKind::HashSet,
        name: SetName {
            member: slug(SLUGS[usize::try_from(publisher).unwrap() - 1]),
            set: slug(set),
        },
        title: "A set".to_owned(),
        grants: vec![Grant {
            grantee: LeafGrantee::All,
            relay: true,
        }],
        terms: Terms {
            source: Source::OwnWork,
            may_share: true,
            text: String::new(),
        },
        classification_scheme: Some(slug("tc")),
        created: NOW,
        identity_signature: None,
    }
}
