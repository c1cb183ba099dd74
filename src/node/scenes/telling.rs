//! Mutes that the others are told of.

use hashpact_core::id::{EntryName, SetName};
use hashpact_core::leaf::{Reason, Stance};

use super::feeds::{Reader, publishing};
use super::*;
use crate::error::NodeError;
use crate::model::{Opine, OpineAbout, Saying};
use crate::policy::{MuteOf, MuteView};

const HOUR: u64 = 3_600_000;

/// North's node, which reads what harbor publishes: so many media, once each.
fn reader(media: u64) -> Reader {
    let reader = Reader::new();
    let history = publishing(0, media);
    reader.bring(0, &history, history.len(), |_| false);
    reader
}

fn tell(node: &Node, of: &MuteOf, reason: &str) -> Result<MuteView, NodeError> {
    let expires = node.clock().now().plus(HOUR);
    let reason = Reason::parse(reason).unwrap();
    node.mute_and_tell(of, "case 7", "test", expires, Some(reason))
}

/// How many members are against, for, and not sure of what carries the signal of `n`.
fn stances(node: &Node, n: u64) -> (u64, u64, u64) {
    let found = node.lookup(&[sha256_of(n)]).unwrap();
    let of = found[0][0].opinions.stances;
    (of.negative, of.positive, of.seed)
}

fn say(node: &Node, first: u64, stance: Stance, reason: &str) {
    say_of(node, first, Some(SignalKind::Sha256), (stance, reason));
}

fn say_of(node: &Node, first: u64, kind: Option<SignalKind>, (stance, reason): (Stance, &str)) {
    let entry = EntryName {
        set: SetName::parse("harbor/one").unwrap(),
        first,
    };
    let opine = Opine {
        about: OpineAbout::Entry { entry, kind },
        says: Some(Saying {
            stance,
            confidence: 90,
            reason: Reason::parse(reason).unwrap(),
        }),
        note: String::new(),
        set: None,
    };
    node.opine(&opine).unwrap();
}

#[test]
fn a_mute_that_is_told_is_an_opinion_that_ends_with_it() {
    let mut reader = reader(3);
    let of = MuteOf::Signal(sha256_of(1));
    let told = tell(reader.node(), &of, "false-positive").unwrap();
    assert_eq!((told.told, told.not_told), (1, None));
    assert_eq!(stances(reader.node(), 1), (1, 0, 0));
    assert_eq!(stances(reader.node(), 2), (0, 0, 0));
    // Said again it says nothing new.
    let size = |reader: &Reader| reader.node().publisher().feeds()[0].stored;
    let before = size(&reader);
    assert_eq!(tell(reader.node(), &of, "false-positive").unwrap().told, 1);
    assert_eq!(size(&reader), before);
    reader.restart();
    assert_eq!(reader.node().mutes().unwrap()[0].told, 1);
    // Nothing is published before a peer was heard; the mute ends all the same, and what
    // was said with it as soon as may be.
    let node = reader.node();
    assert!(node.unmute(&of).unwrap().not_told.is_some());
    assert!(node.mutes().unwrap().is_empty());
    assert!(node.follow_mutes().unwrap().is_empty());
    assert!(node.notices()[0].contains("still stands"));
    assert_eq!(stances(node, 1), (1, 0, 0));
    node.confirm_head(&slug("opinions"), "test").unwrap();
    assert_eq!(node.follow_mutes().unwrap().len(), 1);
    assert_eq!(stances(node, 1), (0, 0, 0));
    assert!(node.store().mutes().unwrap().is_empty() && node.notices().is_empty());
}

#[test]
fn a_mute_that_ends_takes_back_what_was_said_with_it() {
    let reader = reader(2);
    let of = MuteOf::Signal(sha256_of(1));
    tell(reader.node(), &of, "benign").unwrap();
    assert_eq!(reader.node().unmute(&of).unwrap().not_told, None);
    assert_eq!(stances(reader.node(), 1), (0, 0, 0));
    assert!(reader.node().store().mutes().unwrap().is_empty());
}

#[test]
fn what_was_told_with_a_mute_is_taken_back_when_its_time_is_over() {
    let reader = reader(3);
    let set = MuteOf::Set(SetName::parse("harbor/one").unwrap());
    assert_eq!(tell(reader.node(), &set, "outdated").unwrap().told, 3);
    assert_eq!(stances(reader.node(), 0), (1, 0, 0));
    reader.scene.clock.set(UnixMillis(NOW.0 + HOUR));
    assert_eq!(reader.node().follow_mutes().unwrap().len(), 1);
    assert_eq!(stances(reader.node(), 0), (0, 0, 0));
}

#[test]
fn a_mute_that_ends_while_the_node_is_off_is_taken_back_after_the_start() {
    let mut reader = reader(2);
    let of = MuteOf::Signal(sha256_of(1));
    tell(reader.node(), &of, "benign").unwrap();
    reader.scene.clock.set(UnixMillis(NOW.0 + 2 * HOUR));
    reader.restart();
    let node = reader.node();
    node.confirm_head(&slug("opinions"), "test").unwrap();
    assert_eq!(stances(node, 1), (1, 0, 0));
    assert_eq!(node.follow_mutes().unwrap().len(), 1);
    assert_eq!(stances(node, 1), (0, 0, 0));
    assert!(node.store().mutes().unwrap().is_empty());
}

#[test]
fn what_a_store_has_no_mute_of_any_more_is_taken_back_after_the_start() {
    let mut reader = reader(3);
    let kept = MuteOf::Signal(sha256_of(1));
    tell(reader.node(), &kept, "benign").unwrap();
    say(reader.node(), 3, Stance::Negative, "benign");
    tell(reader.node(), &MuteOf::Signal(sha256_of(0)), "benign").unwrap();
    // As after a backup of before the second mute, once the own leaves are back.
    let store = reader.node().store();
    let lost = store.mutes().unwrap().into_iter().find(|mute| {
        let told = mute.told.as_ref().unwrap();
        told.entries[0].1 == 1
    });
    let subject = lost.unwrap().subject;
    store.remove_mutes(&[subject], &[], NOW).unwrap();
    reader.restart();
    let node = reader.node();
    node.confirm_head(&slug("opinions"), "test").unwrap();
    assert!(node.follow_mutes().unwrap().is_empty());
    let all = [0, 1, 2].map(|n| stances(node, n).0);
    assert_eq!(
        all,
        [0, 1, 1],
        "the mute's own and what was said without one stay"
    );
}

#[test]
fn what_two_mutes_tell_ends_with_the_second() {
    let reader = reader(2);
    let node = reader.node();
    let set = MuteOf::Set(SetName::parse("harbor/one").unwrap());
    let member = MuteOf::Member(slug("harbor"));
    tell(node, &set, "benign").unwrap();
    assert_eq!(tell(node, &member, "benign").unwrap().told, 2);
    node.unmute(&set).unwrap();
    assert_eq!(stances(node, 0), (1, 0, 0));
    node.unmute(&member).unwrap();
    assert_eq!(stances(node, 0), (0, 0, 0));
}

#[test]
fn a_mute_tells_nothing_that_it_was_not_asked_to() {
    let reader = reader(2);
    let (node, of) = (reader.node(), MuteOf::Signal(sha256_of(1)));
    tell(node, &of, "benign").unwrap();
    // The mute is over, and nobody has cleared it away yet.
    reader.scene.clock.set(UnixMillis(NOW.0 + HOUR));
    let later = node.clock().now().plus(HOUR);
    assert_eq!(node.mute(&of, "case 8", "test", later).unwrap().told, 0);
    assert_eq!(stances(node, 1), (0, 0, 0));
    assert_eq!(node.mutes().unwrap()[0].told, 0);
}

#[test]
fn what_this_member_said_itself_before_or_since_stays() {
    let reader = reader(3);
    let node = reader.node();
    say(node, 1, Stance::Positive, "confirmed");
    let of = MuteOf::Signal(sha256_of(0));
    assert_eq!(tell(node, &of, "benign").unwrap().told, 0);
    assert_eq!(stances(node, 0), (0, 1, 0));
    node.unmute(&of).unwrap();
    assert_eq!(stances(node, 0), (0, 1, 0));
    let other = MuteOf::Signal(sha256_of(1));
    tell(node, &other, "benign").unwrap();
    say(node, 2, Stance::Seed, "wants-review");
    node.unmute(&other).unwrap();
    assert_eq!(stances(node, 1), (0, 0, 1));
    // A word on the whole entry is one on each of its signals.
    say_of(node, 3, None, (Stance::Positive, "confirmed"));
    let third = MuteOf::Signal(sha256_of(2));
    assert_eq!(tell(node, &third, "benign").unwrap().told, 0);
    assert_eq!(node.mutes().unwrap()[0].told, 0);
    assert_eq!(stances(node, 2), (0, 1, 0));
}

#[test]
fn a_mute_of_another_reason_takes_the_place_of_what_was_told() {
    let reader = reader(2);
    let (node, of) = (reader.node(), MuteOf::Member(slug("harbor")));
    tell(node, &of, "benign").unwrap();
    assert_eq!(tell(node, &of, "outdated").unwrap().told, 2);
    assert_eq!(stances(node, 0), (1, 0, 0));
    // A longer one that tells nothing leaves what was told.
    let later = node.clock().now().plus(5 * HOUR);
    assert_eq!(node.mute(&of, "case 7", "test", later).unwrap().told, 2);
    node.unmute(&of).unwrap();
    assert_eq!(stances(node, 0), (0, 0, 0));
}

#[test]
fn what_nobody_can_have_looked_at_is_not_told_and_nothing_is_muted_then() {
    let reader = reader(70);
    let node = reader.node();
    node.create_set(&own_work("confirmed")).unwrap();
    import(node, "confirmed", vec![entry(900, "a")]);
    let refused = |of: MuteOf, reason: &str| match tell(node, &of, reason) {
        Err(NodeError::Misuse(why)) => why,
        other => panic!("{other:?}"),
    };
    let set = MuteOf::Set(SetName::parse("harbor/one").unwrap());
    assert!(refused(set, "benign").contains("more than 64"));
    assert!(refused(MuteOf::Member(slug("harbor")), "benign").contains("more than 64"));
    let own = MuteOf::Signal(sha256_of(900));
    assert!(refused(own, "benign").contains("retract what is your own"));
    let signal = MuteOf::Signal(sha256_of(1));
    assert!(refused(signal, "confirmed").contains("negative"));
    assert!(node.mutes().unwrap().is_empty());
}
