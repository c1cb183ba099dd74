//! Verdicts of a whole node against a naive model: members publish, replace, retract and
//! erase entries and say what they think of them, policies judge.
//!
//! Feeds come in any interleaving, in pieces, said again, with restarts between; whole,
//! one after another; or with what is dead left out. All three end where the model does,
//! which knows nothing of stores, order or speed.

use std::collections::{BTreeMap, BTreeSet};

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
use hashpact_core::policy::{Action, ClassPattern, Needs, Negative, Policy, Rule, Scope, Verdict};
use hashpact_store::{FeedKind, FindingKind, Head, NewFeed, RefillTerms};
use proptest::prelude::*;

use super::*;
use crate::model::MatchOptions;

use Verdict::{Enforce, Observe, Review};

/// Feeds: who publishes them, how they are called, whether they hold opinions. The node
/// is north's, which is member 1.
const FEEDS: [(u32, &str, bool); 5] = [
    (2, "harbor/one", false),
    (3, "tide/one", false),
    (4, "vale/one", false),
    (2, "harbor/opinions", true),
    (3, "tide/opinions", true),
];
const SETS: usize = 3;
/// Media: each has a SHA-256 and an MD5.
const MEDIA: u64 = 5;
const CLASSES: [&str; 2] = ["A1", "B1"];

/// What a leaf says, for the model.
#[derive(Debug, Clone)]
enum Says {
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
struct History {
    says: Vec<Says>,
    leaves: Vec<RawLeaf>,
}

type Op = (u8, u8, u64, u64);

fn id_of(feed: usize) -> FeedId {
    FeedId(Digest::of(FEEDS[feed].1.as_bytes()))
}

fn md5_of(n: u64) -> Signal {
    let digest = Digest::of(&(n + 1_000).to_be_bytes());
    let value = Bytes::copy_from_slice(&digest.as_bytes()[..16]);
    Signal::new(SignalKind::Md5, value, None).unwrap()
}

fn histories(ops: &[Op]) -> Vec<History> {
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
fn dead(says: &[Says], size: usize) -> BTreeSet<u64> {
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

/// An entry that stands, as the model sees it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Stands {
    set: usize,
    index: u64,
    negatives: u64,
    positives: u64,
}

/// All that stands of one medium, with its class and whether it corroborates.
fn standing(all: &[History], media: u64) -> Vec<(Stands, usize, bool)> {
    let mut words: BTreeMap<(usize, (usize, u64)), Stance> = BTreeMap::new();
    for (feed, history) in all.iter().enumerate().skip(SETS) {
        let dead = dead(&history.says, usize::MAX);
        for (at, says) in (0_u64..).zip(&history.says) {
            if let Says::Opinion {
                set, first, stance, ..
            } = says
                && !dead.contains(&at)
            {
                words.insert((feed, (*set, *first)), *stance); // the last word counts
            }
        }
    }
    let mut found = Vec::new();
    for (set, history) in all.iter().enumerate().take(SETS) {
        let dead = dead(&history.says, usize::MAX);
        for (index, says) in (0_u64..).zip(&history.says) {
            let Says::Publish {
                media: of,
                inherited,
                class,
                replaces,
            } = says
            else {
                continue;
            };
            if *of != media || dead.contains(&index) {
                continue;
            }
            let first = replaces.first().copied().unwrap_or(index);
            let count = |wanted| {
                let of_entry = words
                    .iter()
                    .filter(|((_, about), _)| *about == (set, first));
                of_entry.filter(|(_, stance)| **stance == wanted).count() as u64
            };
            let stands = Stands {
                set,
                index,
                negatives: count(Stance::Negative),
                positives: count(Stance::Positive),
            };
            found.push((stands, *class, !inherited));
        }
    }
    found
}

/// A policy of one rule that enforces, and one that caps what is disputed.
#[derive(Debug, Clone)]
struct Simple {
    members: u64,
    alone: Option<usize>,
    class: Option<usize>,
    negative: Negative,
    capped_from: Option<u64>,
    default: Verdict,
}

fn simple() -> impl Strategy<Value = Simple> {
    (
        1..4_u64,
        prop::option::of(0..SETS),
        prop::option::of(0..CLASSES.len()),
        prop::sample::select(Negative::ALL.to_vec()),
        prop::option::of(1..3_u64),
        prop::sample::select(vec![Review, Observe]),
    )
        .prop_map(
            |(members, alone, class, negative, capped_from, default)| Simple {
                members,
                alone,
                class,
                negative,
                capped_from,
                default,
            },
        )
}

fn slug_of(set: usize) -> &'static str {
    FEEDS[set].1.split('/').next().unwrap()
}

fn policy_of(simple: &Simple) -> Policy {
    let mut scope = Scope::default();
    let class = simple.class.map(|class| format!("tc:{}", CLASSES[class]));
    let classes = class
        .iter()
        .map(|class| ClassPattern::parse(class).unwrap());
    scope.classifications.extend(classes);
    let needs = Needs {
        members: Some(simple.members),
        alone: simple
            .alone
            .into_iter()
            .map(|of| slug(slug_of(of)))
            .collect(),
        negative: simple.negative,
        ..Needs::default()
    };
    let mut rules = vec![Rule {
        name: "raise".to_owned(),
        scope,
        action: Action::AtLeast(Enforce, needs),
    }];
    rules.extend(simple.capped_from.map(|negative_members| Rule {
        name: "cap".to_owned(),
        scope: Scope::default(),
        action: Action::AtMost {
            verdict: Observe,
            negative_members,
        },
    }));
    Policy::new(simple.default, rules).unwrap()
}

/// The verdict by the words of the documentation.
fn verdict(simple: &Simple, strong_kind: bool, said: &[(Stands, usize, bool)]) -> Option<Verdict> {
    let capped = |stands: &Stands| simple.capped_from.is_some_and(|n| stands.negatives >= n);
    let about = |class: usize| simple.class.is_none_or(|of| of == class);
    let counted: Vec<_> = said
        .iter()
        .filter(|(stands, class, _)| {
            let disputed = stands.negatives > 0 && simple.negative != Negative::Accept;
            about(*class) && !capped(stands) && !disputed
        })
        .collect();
    let blocked = simple.negative == Negative::Block
        && said
            .iter()
            .any(|(stands, class, _)| about(*class) && stands.negatives > 0);
    let members: BTreeSet<usize> = counted
        .iter()
        .filter(|(_, _, corroborates)| *corroborates && strong_kind)
        .map(|(stands, ..)| stands.set)
        .collect();
    let number = members.len().max(usize::from(!counted.is_empty())) as u64;
    let alone = counted
        .iter()
        .any(|(stands, ..)| simple.alone == Some(stands.set));
    if !counted.is_empty() && !blocked && (alone || number >= simple.members) {
        return Some(Enforce);
    }
    let becomes = |stands: &Stands| {
        let most = if capped(stands) { Observe } else { Enforce };
        most.min(simple.default)
    };
    said.iter().map(|(stands, ..)| becomes(stands)).max()
}

/// A node that feeds are brought to.
struct Reader {
    scene: Scene,
    node: Option<Arc<Node>>,
}

impl Reader {
    fn new() -> Self {
        let scene = Scene::of(&["north", "harbor", "tide", "vale"]);
        let node = Some(scene.open());
        Self { scene, node }
    }

    fn node(&self) -> &Arc<Node> {
        self.node.as_ref().unwrap()
    }

    fn restart(&mut self) {
        self.node = None;
        self.node = Some(self.scene.open());
    }

    fn held(&self, feed: usize) -> usize {
        let store = self.node().store();
        let no = store.feed_no(&id_of(feed));
        let stored = no.map_or(0, |no| store.feed(no).unwrap().stored);
        usize::try_from(stored).unwrap()
    }

    /// Brings the leaves up to a size, those that `elide` names as records.
    fn bring(&self, feed: usize, history: &History, to: usize, elide: impl Fn(u64) -> bool) {
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
        let head = head(feed, size, root);
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

    fn stands(&self, signal: &Signal) -> Vec<Stands> {
        let found = self.node().lookup(std::slice::from_ref(signal)).unwrap();
        let stands = found[0].iter().map(|found| Stands {
            set: (0..SETS).find(|set| id_of(*set) == found.feed).unwrap(),
            index: found.index,
            negatives: found.opinions.stances.negative,
            positives: found.opinions.stances.positive,
        });
        let mut stands: Vec<Stands> = stands.collect();
        stands.sort();
        stands
    }

    fn verdict(&self, signal: &Signal) -> Option<Verdict> {
        let judge = self.node().judge("", "").unwrap();
        let asked = std::slice::from_ref(signal);
        let matched = self.node().matches(asked, MatchOptions::exact()).unwrap();
        judge.verdict(signal, &matched[0])
    }

    /// That every medium stands, and is judged, as the model says.
    fn agrees(&self, all: &[History], policies: &[Simple], how: &str) {
        for media in 0..MEDIA {
            let model = standing(all, media);
            let stands: Vec<Stands> = model.iter().map(|(stands, ..)| stands.clone()).collect();
            for signal in [sha256_of(media), md5_of(media)] {
                assert_eq!(self.stands(&signal), stands, "{how}: medium {media}");
            }
            for (at, simple) in policies.iter().enumerate() {
                let policy = policy_of(simple);
                let text = [u8::try_from(at).unwrap()];
                self.node().set_policy(Some((policy, &text))).unwrap();
                for (strong, signal) in [(true, sha256_of(media)), (false, md5_of(media))] {
                    let expected = verdict(simple, strong, &model);
                    assert_eq!(self.verdict(&signal), expected, "{how}: {simple:?} {media}");
                }
            }
        }
        let mut findings = self.node().verify(|_, _| {}).unwrap().findings;
        // Nobody here has a card.
        findings.retain(|finding| finding.kind != FindingKind::HeadSignature);
        assert!(findings.is_empty(), "{how}: {findings:?}");
    }
}

fn head(feed: usize, size: u64, root: Digest) -> Head {
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
    Head::new(&verified, NOW)
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn standing_and_verdict_are_the_models_by_any_way_that_feeds_come(
        ops in prop::collection::vec((0_u8..5, 0_u8..12, 0_u64..30, 0_u64..40), 1..60),
        policies in prop::collection::vec(simple(), 2..4),
        steps in prop::collection::vec((0_usize..5, 1_usize..12, 0_u8..6), 0..30),
        taken in any::<u64>(), cut in 0_usize..30,
    ) {
        let all = histories(&ops);
        // Live: in pieces, in any order between feeds, with restarts.
        let mut live = Reader::new();
        for (feed, count, then) in steps {
            let to = (live.held(feed) + count).min(all[feed].leaves.len());
            live.bring(feed, &all[feed], to, |_| false);
            if then == 0 {
                live.restart();
            }
        }
        for (feed, history) in all.iter().enumerate().rev() {
            live.bring(feed, history, history.leaves.len(), |_| false);
        }
        live.agrees(&all, &policies, "live");
        live.restart();
        live.agrees(&all, &policies, "after a start");
        // Replayed: whole, one after another.
        let replayed = Reader::new();
        // Elided: what a head that is asked for makes dead may be left out.
        let elided = Reader::new();
        for (feed, history) in all.iter().enumerate() {
            let size = history.leaves.len();
            replayed.bring(feed, history, size, |_| false);
            for to in [cut.clamp(1, size), size] {
                let dead = dead(&history.says, to);
                let leaves_out = |at: u64| {
                    let kills = matches!(
                        history.says[usize::try_from(at).unwrap()],
                        Says::Kills(_) | Says::Describe
                    );
                    dead.contains(&at) && !kills && taken >> (at % 64) & 1 == 1
                };
                elided.bring(feed, history, to, leaves_out);
            }
        }
        replayed.agrees(&all, &policies, "replayed");
        elided.agrees(&all, &policies, "elided");
    }
}
