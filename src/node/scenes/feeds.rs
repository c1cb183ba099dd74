//! Feeds of other members as they come to a node, in pieces, said again, with leaves left
//! out: what scenes about several members are made from.

use std::collections::BTreeSet;

use hashpact_core::checkpoint::{self, Checkpoint, Origin};
use hashpact_core::chunk::{self, ChunkParts, Layout, PinnedHead};
use hashpact_core::id::{FeedId, MemberNumber, SetName};
use hashpact_core::keys::Feed;
use hashpact_core::leaf::{
    DESCRIBE, Describe, ERASE, Erase, FeedKind as DescribedKind, IndexRange, OPINION, Opinion,
    PUBLISH, RETRACT, RawLeaf, Retract, RetractReason, Source, Stance, Subject, Terms,
};
use hashpact_core::merkle::CompactRange;
use hashpact_core::page;
use hashpact_store::{FeedKind, Head, NewFeed, RefillTerms};

use super::*;

/// Feeds: who publishes them, how they are called, whether they hold opinions. The node
/// is north's, which is member 1.
pub(super) const FEEDS: [(u32, &str, bool); 5] = [
    (2, "harbor/one", false),
    (3, "tide/one", false),
    (4, "vale/one", false),
    (2, "harbor/opinions", true),
    (3, "tide/opinions", true),
];
pub(super) const SETS: usize = 3;
/// Media: each has a SHA-256 and an MD5.
pub(super) const MEDIA: u64 = 5;
pub(super) const CLASSES: [&str; 2] = ["A1", "B1"];

/// What a leaf says, for the model.
#[derive(Debug, Clone)]
pub(super) enum Says {
    Describe,
    Publish {
        media: u64,
        inherited: bool,
        class: usize,
        replaces: Vec<u64>,
    },
    /// Retracts or erases.
    Kills(u64),
    Opinion {
        set: usize,
        first: u64,
        stance: Stance,
        replaces: Vec<u64>,
    },
}

#[derive(Debug, Clone, Default)]
pub(super) struct History {
    pub(super) says: Vec<Says>,
    pub(super) leaves: Vec<RawLeaf>,
}

/// Something that happens, by numbers.
pub(super) type Op = (u8, u8, u64, u64);

pub(super) fn id_of(feed: usize) -> FeedId {
    FeedId(Digest::of(FEEDS[feed].1.as_bytes()))
}

pub(super) fn md5_of(n: u64) -> Signal {
    let digest = Digest::of(&(n + 1_000).to_be_bytes());
    let value = Bytes::copy_from_slice(&digest.as_bytes()[..16]);
    Signal::new(SignalKind::Md5, value, None).unwrap()
}

pub(super) fn histories(ops: &[Op]) -> Vec<History> {
    let mut all: Vec<History> = (0..FEEDS.len()).map(|_| History::default()).collect();
    for (feed, history) in all.iter_mut().enumerate() {
        history.says.push(Says::Describe);
        history.leaves.push(describe(feed));
    }
    for (feed, what, a, b) in ops {
        let feed = usize::from(*feed) % FEEDS.len();
        let says = next(&all, feed, *what, *a, *b);
        let salt = u8::try_from(all[feed].says.len() % 250).unwrap();
        all[feed].leaves.push(leaf(&says, salt));
        all[feed].says.push(says);
    }
    all
}

/// Something that the feed may say next.
fn next(all: &[History], feed: usize, what: u8, a: u64, b: u64) -> Says {
    let says = &all[feed].says;
    let before = |wanted: fn(&Says) -> bool| {
        let all = (0_u64..).zip(says).filter(|(_, says)| wanted(says));
        let all: Vec<u64> = all.map(|(at, _)| at).collect();
        let place = usize::try_from(b).unwrap() % all.len().max(1);
        all.get(place).copied()
    };
    let chain = |at: Option<u64>| {
        let Some(at) = at else { return Vec::new() };
        let mut chain = match &says[usize::try_from(at).unwrap()] {
            Says::Publish { replaces, .. } | Says::Opinion { replaces, .. } => replaces.clone(),
            Says::Describe | Says::Kills(_) => Vec::new(),
        };
        chain.push(at);
        chain
    };
    if FEEDS[feed].2 {
        let set = usize::try_from(a).unwrap() % SETS;
        let there = u64::try_from(all[set].says.len()).unwrap();
        let replaced = before(|says| matches!(says, Says::Opinion { .. }));
        return match (what % 6, replaced) {
            (0, Some(at)) => Says::Kills(at),
            (kind, replaced) => Says::Opinion {
                set,
                first: 1 + b % there.max(2),
                stance: [
                    Stance::Negative,
                    Stance::Negative,
                    Stance::Positive,
                    Stance::Seed,
                ][usize::from(kind) % 4],
                replaces: chain(replaced.filter(|_| kind == 5)),
            },
        };
    }
    let published = before(|says| matches!(says, Says::Publish { .. }));
    match (what % 6, published) {
        (0 | 1, Some(at)) => Says::Kills(at),
        (kind, published) => Says::Publish {
            media: a % MEDIA,
            inherited: a.is_multiple_of(3),
            class: usize::from(what / 6) % CLASSES.len(),
            replaces: chain(published.filter(|_| kind == 2)),
        },
    }
}

fn describe(feed: usize) -> RawLeaf {
    let (_, name, opinions) = FEEDS[feed];
    let describe = Describe {
        genesis: Digest::of(b"genesis"),
        feed_kind: if opinions {
            DescribedKind::Opinions
        } else {
            DescribedKind::HashSet
        },
        name: SetName::parse(name).unwrap(),
        title: String::new(),
        grants: Vec::new(),
        terms: Terms {
            source: Source::OwnWork,
            may_share: true,
            text: String::new(),
        },
        classification_scheme: (!opinions).then(|| slug("tc")),
        created: NOW,
        identity_signature: None,
    };
    RawLeaf::new(DESCRIBE, describe.encode([4; 16]).unwrap())
}

fn leaf(says: &Says, salt: u8) -> RawLeaf {
    let salt = [salt; 16];
    match says {
        Says::Describe => panic!("only the first"),
        Says::Publish {
            media,
            inherited,
            class,
            replaces,
        } => {
            let mut body = entry(*media, "a").body;
            body.signals.push(md5_of(*media));
            body.classification = Some(Classification::parse(CLASSES[*class]).unwrap());
            body.replaces.clone_from(replaces);
            if *inherited {
                body.basis = Basis::Inherited;
            }
            RawLeaf::new(PUBLISH, body.encode(salt).unwrap())
        }
        Says::Kills(at) => {
            let indexes = vec![IndexRange {
                first: *at,
                count: 1,
            }];
            if at.is_multiple_of(2) {
                let erase = Erase {
                    indexes,
                    legal_basis: "court order".to_owned(),
                    created: NOW,
                };
                return RawLeaf::new(ERASE, erase.encode(salt).unwrap());
            }
            let retract = Retract {
                indexes,
                reason: RetractReason::Other,
                note: String::new(),
                recheck: false,
                created: NOW,
                identity_signature: None,
            };
            RawLeaf::new(RETRACT, retract.encode(salt).unwrap())
        }
        Says::Opinion {
            set,
            first,
            stance,
            replaces,
        } => {
            let opinion = Opinion {
                subject: Subject::Entry {
                    feed: id_of(*set),
                    first: *first,
                    kind: None,
                },
                stance: *stance,
                confidence: 50,
                reason_id: 0,
                note: String::new(),
                replaces: replaces.clone(),
                created: NOW,
            };
            RawLeaf::new(OPINION, opinion.encode(salt).unwrap())
        }
    }
}

/// The words of the design: dead is what a later kill names, or what a later leaf
/// replaces that is not dead itself.
pub(super) fn dead(says: &[Says], size: usize) -> BTreeSet<u64> {
    let mut dead = BTreeSet::new();
    for (at, says) in says.iter().enumerate().take(size).rev() {
        let at = at as u64;
        match says {
            Says::Kills(killed) => drop(dead.insert(*killed)),
            Says::Publish { replaces, .. } | Says::Opinion { replaces, .. } => {
                if !dead.contains(&at) {
                    dead.extend(replaces);
                }
            }
            Says::Describe => {}
        }
    }
    dead
}

impl History {
    pub(super) const fn len(&self) -> usize {
        self.leaves.len()
    }

    pub(super) fn publish(&mut self, media: u64, replaces: Vec<u64>) {
        let says = Says::Publish {
            media,
            inherited: false,
            class: 0,
            replaces,
        };
        let salt = u8::try_from(self.len() % 250).unwrap();
        self.leaves.push(leaf(&says, salt));
        self.says.push(says);
    }

    /// Retracts so many leaves from one on, by the feed key alone.
    pub(super) fn retract(&mut self, first: u64, count: u64) {
        let retract = Retract {
            indexes: vec![IndexRange { first, count }],
            reason: RetractReason::Other,
            note: String::new(),
            recheck: false,
            created: NOW,
            identity_signature: None,
        };
        let retract = retract.encode([9; 16]).unwrap();
        self.leaves.push(RawLeaf::new(RETRACT, retract));
        self.says.push(Says::Kills(first));
    }
}

/// A set of so many media, once each.
pub(super) fn publishing(feed: usize, media: u64) -> History {
    let mut history = History {
        says: vec![Says::Describe],
        leaves: vec![describe(feed)],
    };
    for medium in 0..media {
        history.publish(medium, Vec::new());
    }
    history
}

/// A node that feeds are brought to: north's, which is member 1.
pub(super) struct Reader {
    pub(super) scene: Scene,
    node: Option<Arc<Node>>,
}

impl Reader {
    pub(super) fn new() -> Self {
        let scene = Scene::of(&["north", "harbor", "tide", "vale"]);
        let node = Some(scene.open());
        Self { scene, node }
    }

    pub(super) fn node(&self) -> &Arc<Node> {
        self.node.as_ref().unwrap()
    }

    pub(super) fn restart(&mut self) {
        self.node = None;
        self.node = Some(self.scene.open());
    }

    /// Does something while the node does not run.
    pub(super) fn while_off(&mut self, then: impl FnOnce(&Scene)) {
        self.node = None;
        then(&self.scene);
        self.node = Some(self.scene.open());
    }

    /// Two days later: drops what has been dead for one.
    pub(super) fn retire(&self) {
        let later = self.scene.clock.now().plus(2 * DAY_MS);
        self.scene.clock.set(later);
        self.node().set_retention(1);
        while self.node().follow_retention().unwrap().is_some() {}
    }

    /// Does what follows from retractions, as after a pull.
    pub(super) fn settle(&self, feed: usize) {
        let store = self.node().store();
        let no = store.feed_no(&id_of(feed)).unwrap();
        let mut writer = store.writer(no).unwrap();
        self.node().settle(&mut writer, 0).unwrap();
    }

    pub(super) fn held(&self, feed: usize) -> usize {
        let store = self.node().store();
        let no = store.feed_no(&id_of(feed));
        let stored = no.map_or(0, |no| store.feed(no).unwrap().stored);
        usize::try_from(stored).unwrap()
    }

    /// Brings the leaves up to a size, those that `elide` names as records.
    pub(super) fn bring(
        &self,
        feed: usize,
        history: &History,
        to: usize,
        elide: impl Fn(u64) -> bool,
    ) {
        let (from, store) = (self.held(feed), self.node().store());
        let no = store.feed_no(&id_of(feed)).unwrap_or_else(|| {
            let new = NewFeed {
                id: id_of(feed),
                publisher: MemberNumber::new(FEEDS[feed].0).unwrap(),
                own: false,
                kind: if FEEDS[feed].2 {
                    FeedKind::Opinions
                } else {
                    FeedKind::HashSet
                },
            };
            store.create_feed(&new).unwrap()
        });
        if from >= to {
            return;
        }
        let chunk = chunk_of(&history.leaves, from, to, &elide);
        let mut writer = store.writer(no).unwrap();
        writer.append_verified(&chunk).unwrap();
        // Said again it changes nothing.
        assert!(writer.append_verified(&chunk).is_err());
        let (size, root) = (writer.size(), writer.frontier().root().unwrap());
        let head = head(feed, size, root, self.scene.clock.now());
        writer.commit(Some(&head)).unwrap();
        writer.commit(Some(&head)).unwrap();
        if store.feed(no).unwrap().missing > 0 {
            // What was dead at the size before may live again, and is asked for again.
            let dead = dead(&history.says, to);
            let whole = chunk_of(&history.leaves, 0, to, |at| dead.contains(&at) && elide(at));
            let terms = RefillTerms {
                stale: false,
                records_only: false,
                growth: None,
            };
            writer.refill(&whole, &terms).unwrap();
            writer.commit(Some(&head)).unwrap();
        }
        writer.drop_erased().unwrap();
        drop(writer);
        let held = store.feed(no).unwrap();
        assert_eq!(held.missing, 0, "only what may be left out was");
    }
}

fn head(feed: usize, size: u64, root: Digest, received: UnixMillis) -> Head {
    let coalition = CoalitionName::parse("test.example").unwrap();
    let id = id_of(feed);
    let origin = Origin {
        coalition: coalition.clone(),
        feed: id,
        epoch: 0,
    };
    let key = SecretKey::<Feed>::from_seed(&[9; 32]);
    let note = checkpoint::sign(&Checkpoint { origin, size, root }, &key);
    let verified = checkpoint::verify(&note, &coalition, &id, |_| vec![key.public()]).unwrap();
    Head::new(&verified, received)
}

fn chunk_of(
    leaves: &[RawLeaf],
    from: usize,
    to: usize,
    elide: impl Fn(u64) -> bool,
) -> chunk::VerifiedChunk {
    let range = |to: usize| {
        let mut range = CompactRange::empty(0);
        range.extend(leaves[..to].iter().map(RawLeaf::hash));
        range
    };
    let sent: Vec<RawLeaf> = (from as u64..)
        .zip(&leaves[from..to])
        .map(|(at, leaf)| {
            if elide(at) {
                leaf.elided()
            } else {
                leaf.clone()
            }
        })
        .collect();
    let (first, last) = (from as u64, to as u64);
    let layout = Layout::of(first, last);
    let (leading, trailing) = sent.split_at(layout.leading);
    assert_eq!(layout.pages, 0, "short feeds");
    let parts = ChunkParts {
        from: first,
        to: last,
        leading: page::encode_plain(leading).unwrap(),
        pages: Vec::new(),
        trailing: page::encode_plain(trailing).unwrap(),
        before: range(from).hashes().to_vec(),
        after: Vec::new(),
    };
    let root = range(to).root().unwrap();
    chunk::verify(&parts, &PinnedHead { size: last, root }).unwrap()
}
