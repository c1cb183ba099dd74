//! Opinions: said, changed, withdrawn by this member; what others say is in [`hearing`],
//! what followers are told in [`following`].

mod following;
mod hearing;

use hashpact_core::checkpoint::{self, Checkpoint, Origin};
use hashpact_core::id::{EntryName, FeedId, MemberNumber, SetName};
use hashpact_core::keys::Feed;
use hashpact_core::leaf::{
    DESCRIBE, Describe, FeedKind as DescribedKind, IndexRange, OPINION, Opinion, RETRACT, RawLeaf,
    Reason, Retract, RetractReason, Source, Stance, Subject, Terms,
};
use hashpact_store::{FeedKind, FeedNo, Head, NewFeed};
use proptest::prelude::*;

use super::*;
use crate::error::NodeError;
use crate::model::{Match, MatchStanding, Opine, OpineAbout, Opined, Retraction, Saying, Selector};
use crate::opinions::{About, Which};

/// A member beside `north`.
const HARBOR: u32 = 2;

fn reason(name: &str) -> &'static Reason {
    Reason::parse(name).unwrap()
}

fn on(entry: &str, kind: Option<SignalKind>) -> OpineAbout {
    OpineAbout::Entry {
        entry: EntryName::parse(entry).unwrap(),
        kind,
    }
}

fn no(about: OpineAbout) -> Opine {
    Opine {
        about,
        says: Some(Saying {
            stance: Stance::Negative,
            confidence: 80,
            reason: reason("false-positive"),
        }),
        note: "looked at by two".to_owned(),
        set: None,
    }
}

fn yes(about: OpineAbout) -> Opine {
    Opine {
        says: Some(Saying {
            stance: Stance::Positive,
            confidence: 100,
            reason: reason("confirmed"),
        }),
        ..no(about)
    }
}

fn withdraw(about: OpineAbout) -> Opine {
    Opine {
        says: None,
        ..no(about)
    }
}

/// What is known of the signal of entry `n`: one match.
fn found(node: &Node, n: u64) -> Match {
    node.lookup(&[sha256_of(n)]).unwrap()[0].remove(0)
}

fn standing(node: &Node, n: u64) -> MatchStanding {
    found(node, n).standing
}

/// A node with a set of ten entries; entry `n` is leaf `n + 1`.
fn with_entries(scene: &Scene) -> Arc<Node> {
    let node = scene.open();
    node.create_set(&own_work("confirmed")).unwrap();
    let entries = (0..10).map(|n| entry(n, "first")).collect();
    import(&node, "confirmed", entries);
    node
}

fn set_feed(node: &Node) -> FeedId {
    let name = SetName::parse("north/confirmed").unwrap();
    node.feed_of(&name).unwrap().id
}

/// Another member's opinions, as they came by a pull, after their describe leaf.
pub(super) fn foreign(node: &Node, name: &[u8], leaves: &[RawLeaf]) -> FeedNo {
    others(node, (name, FeedKind::Opinions), describe(), leaves)
}

/// A feed of another member, after its describe leaf.
pub(super) fn others(
    node: &Node,
    (name, kind): (&[u8], FeedKind),
    describe: RawLeaf,
    leaves: &[RawLeaf],
) -> FeedNo {
    let id = FeedId(Digest::of(name));
    let store = node.store();
    let (mut all, mut no) = (Vec::new(), store.feed_no(&id));
    if no.is_none() {
        let new = NewFeed {
            id,
            publisher: MemberNumber::new(HARBOR).unwrap(),
            own: false,
            kind,
        };
        no = Some(store.create_feed(&new).unwrap());
        all.push(describe);
    }
    let no = no.unwrap();
    all.extend_from_slice(leaves);
    let mut writer = store.writer(no).unwrap();
    writer.append(&all).unwrap();
    let (size, root) = (writer.size(), writer.frontier().root().unwrap());
    let coalition = CoalitionName::parse("test.example").unwrap();
    let origin = Origin {
        coalition: coalition.clone(),
        feed: id,
        epoch: 0,
    };
    let key = SecretKey::<Feed>::from_seed(&[9; 32]);
    let note = checkpoint::sign(&Checkpoint { origin, size, root }, &key);
    let verified = checkpoint::verify(&note, &coalition, &id, |_| vec![key.public()]).unwrap();
    writer.commit(Some(&Head::new(&verified, NOW))).unwrap();
    no
}

fn describe() -> RawLeaf {
    described("harbor/opinions", DescribedKind::Opinions)
}

pub(super) fn described(name: &str, feed_kind: DescribedKind) -> RawLeaf {
    let describe = Describe {
        genesis: Digest::of(b"genesis"),
        feed_kind,
        name: SetName::parse(name).unwrap(),
        title: String::new(),
        grants: Vec::new(),
        terms: Terms {
            source: Source::OwnWork,
            may_share: true,
            text: String::new(),
        },
        classification_scheme: None,
        created: NOW,
        identity_signature: None,
    };
    RawLeaf::new(DESCRIBE, describe.encode([4; 16]).unwrap())
}

pub(super) fn opinion(subject: Subject, stance: Stance, replaces: Vec<u64>) -> RawLeaf {
    let opinion = Opinion {
        subject,
        stance,
        confidence: 50,
        reason_id: 77_777,
        note: String::new(),
        replaces,
        created: NOW,
    };
    RawLeaf::new(OPINION, opinion.encode([5; 16]).unwrap())
}

/// What `harbor` says of the entry at leaf `first` of north's set.
fn harbor_says(node: &Node, first: u64, stance: Stance) -> FeedNo {
    let subject = Subject::Entry {
        feed: set_feed(node),
        first,
        kind: None,
    };
    let leaf = opinion(subject, stance, Vec::new());
    foreign(node, b"harbor/opinions", &[leaf])
}

fn misuse(node: &Node, opine: &Opine) -> String {
    match node.opine(opine) {
        Err(NodeError::Misuse(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_text_for_all_readers_with_a_value_in_it_is_refused_and_nothing_is_said() {
    let scene = Scene::new();
    let node = with_entries(&scene);
    let value = data_encoding::HEXLOWER.encode(sha256_of(1).value());
    let mut opine = no(OpineAbout::Entry {
        entry: EntryName::parse("north/confirmed#2").unwrap(),
        kind: None,
    });
    opine.note = format!("see {value}");
    assert!(misuse(&node, &opine).contains("signal's value"));
    let retraction = Retraction {
        reason: RetractReason::Wrong,
        note: value,
        recheck: false,
        selectors: vec![(0, Selector::SourceReference("ref-1".to_owned()))],
    };
    let refused = node.retract(&slug("confirmed"), &retraction);
    assert!(matches!(refused, Err(NodeError::Misuse(_))));
    assert_eq!(standing(&node, 1), MatchStanding::Active);
}

#[test]
fn an_opinion_is_said_changed_and_withdrawn() {
    let scene = Scene::new();
    let node = with_entries(&scene);
    let of = || on("north/confirmed#4", None);
    let said = node.opine(&no(of())).unwrap();
    let expected = Opined {
        set: "north/opinions".to_owned(),
        is_new: true,
        granted: false,
        index: Some(1),
        replaced: 0,
        size: 2,
    };
    assert_eq!(said, expected);
    assert_eq!(standing(&node, 3), MatchStanding::Disputed);
    let told = &found(&node, 3).opinions.told[0];
    assert_eq!((told.stance, told.confidence), (Stance::Negative, 80));
    assert_eq!((told.reason_id, told.about), (1, About::Entry));
    assert_eq!((told.index, told.created), (1, NOW));
    assert_eq!(standing(&node, 4), MatchStanding::Active);
    assert!(found(&node, 4).opinions.told.is_empty());
    // The same again is no new leaf.
    assert_eq!(node.opine(&no(of())).unwrap().index, None);
    let changed = node.opine(&yes(of())).unwrap();
    assert_eq!((changed.index, changed.replaced), (Some(2), 1));
    assert_eq!(standing(&node, 3), MatchStanding::Active);
    let stances = found(&node, 3).opinions.stances;
    assert_eq!((stances.positive, stances.negative), (1, 0));
    let changed = node.opine(&no(of())).unwrap();
    assert_eq!((changed.index, changed.replaced), (Some(3), 2));
    let withdrawn = node.opine(&withdraw(of())).unwrap();
    assert_eq!((withdrawn.index, withdrawn.replaced), (Some(4), 3));
    assert_eq!(
        found(&node, 3).opinions,
        crate::opinions::Opinions::default()
    );
    assert!(misuse(&node, &withdraw(of())).contains("no opinion there"));
    // Said anew it replaces nothing that was withdrawn.
    assert_eq!(node.opine(&no(of())).unwrap().replaced, 0);
    assert_eq!(standing(&node, 3), MatchStanding::Disputed);
    drop(node);
    let node = scene.open();
    assert_eq!(standing(&node, 3), MatchStanding::Disputed);
    let findings = node
        .store()
        .verify(|_, _| Ok(()), |_, _| ())
        .unwrap()
        .findings;
    assert_eq!(findings, []);
}

#[test]
fn an_opinion_on_any_version_is_on_the_entry() {
    let scene = Scene::new();
    let node = with_entries(&scene);
    import(&node, "confirmed", vec![entry(3, "second")]);
    node.opine(&no(on("north/confirmed#11", None))).unwrap();
    assert_eq!(standing(&node, 3), MatchStanding::Disputed);
    assert_eq!(found(&node, 3).index, 11);
    let listed = node.list_opinions(&Which::All, None, 10).unwrap();
    let entry = listed.opinions[0].entry.as_ref().unwrap();
    assert_eq!(entry.name, "north/confirmed#4");
}

#[test]
fn what_cannot_be_said_is_refused_with_what_to_do() {
    let scene = Scene::new();
    let node = with_entries(&scene);
    let of = |entry: &str| no(on(entry, None));
    for entry in ["north/confirmed#0", "north/confirmed#99", "north/other#1"] {
        let refused = node.opine(&of(entry));
        assert!(
            matches!(refused, Err(NodeError::NotFound { .. })),
            "{entry}"
        );
    }
    let wrong = Opine {
        says: Some(Saying {
            stance: Stance::Positive,
            confidence: 1,
            reason: reason("false-positive"),
        }),
        ..of("north/confirmed#1")
    };
    assert!(misuse(&node, &wrong).contains("is a reason for negative"));
    let kind = no(on("north/confirmed#1", Some(SignalKind::Pdq)));
    assert!(misuse(&node, &kind).contains("no signal of kind PDQ"));
    let signal = no(OpineAbout::Signal(sha256_of(99)));
    assert!(misuse(&node, &signal).contains("publishes itself"));
    let retraction = Retraction {
        reason: RetractReason::Wrong,
        note: String::new(),
        recheck: false,
        selectors: vec![(1, Selector::Entry(1))],
    };
    node.retract(&slug("confirmed"), &retraction).unwrap();
    assert!(misuse(&node, &of("north/confirmed#1")).contains("no longer stands"));
    // Nothing was made for what was refused.
    assert_eq!(node.sets().len(), 1);
    assert!(node.create_opinions_set(&own_work("views")).is_ok());
    assert!(matches!(
        node.import(&slug("views")),
        Err(NodeError::Misuse(_))
    ));
}

#[test]
fn an_opinion_on_one_kind_is_on_no_other() {
    let scene = Scene::new();
    let node = scene.open();
    node.create_set(&own_work("confirmed")).unwrap();
    let mut both = entry(1, "first");
    let md5 = Signal::new(SignalKind::Md5, vec![7; 16].into(), None).unwrap();
    both.body.signals.push(md5.clone());
    import(&node, "confirmed", vec![both]);
    node.opine(&no(on("north/confirmed#1", Some(SignalKind::Md5))))
        .unwrap();
    assert_eq!(standing(&node, 1), MatchStanding::Active);
    assert!(found(&node, 1).opinions.told.is_empty());
    let by_md5 = node.lookup(std::slice::from_ref(&md5)).unwrap()[0].remove(0);
    assert_eq!(by_md5.standing, MatchStanding::Disputed);
    assert_eq!(by_md5.opinions.told[0].about, About::Kind);
    // The narrower word of one member stands before its wider one.
    node.opine(&no(on("north/confirmed#1", None))).unwrap();
    node.opine(&yes(on("north/confirmed#1", Some(SignalKind::Md5))))
        .unwrap();
    assert_eq!(standing(&node, 1), MatchStanding::Disputed);
    let by_md5 = node.lookup(&[md5]).unwrap()[0].remove(0);
    assert_eq!(by_md5.standing, MatchStanding::Active);
}

#[test]
fn a_word_on_an_own_signal_is_heard_wherever_it_is_met() {
    let scene = Scene::new();
    let node = with_entries(&scene);
    node.opine(&no(OpineAbout::Signal(sha256_of(3)))).unwrap();
    let met = found(&node, 3);
    assert_eq!(met.standing, MatchStanding::Disputed);
    assert_eq!(met.opinions.told[0].about, About::Signal);
    node.opine(&withdraw(OpineAbout::Signal(sha256_of(3))))
        .unwrap();
    assert_eq!(standing(&node, 3), MatchStanding::Active);
}
