//! Near matches of PDQ, with the index in memory and without.

use hashpact_core::id::SetName;
use hashpact_core::leaf::RetractReason;
use hashpact_core::policy::Verdict;
use hashpact_core::signal::{Signal, SignalKind};

use super::{Scene, entry, import, own_work, sha256_of, slug};
use crate::error::NodeError;
use crate::matching::{MATCHES_MAX, PER_FEED};
use crate::model::{MatchOptions, Matched, NewEntry, Retraction, Selector};
use crate::node::Node;
use crate::policy::MuteOf;

/// A value that has half of its bits set, and with `flipped` of them changed.
pub(super) fn pdq(n: u64, flipped: usize) -> Signal {
    let digest = hashpact_core::id::Digest::of(&n.to_be_bytes());
    let mut value = [0; 32];
    let (front, back) = value.split_at_mut(16);
    front.copy_from_slice(&digest.as_bytes()[..16]);
    for (back, front) in back.iter_mut().zip(front.iter()) {
        *back = !*front;
    }
    for bit in 0..flipped {
        value[(bit * 7 / 8) % 32] ^= 1 << (bit % 8);
    }
    Signal::new(SignalKind::Pdq, value.to_vec().into(), Some(90)).unwrap()
}

fn distance_of(flipped: usize) -> u32 {
    let (a, b) = (pdq(1, 0), pdq(1, flipped));
    let bits = a.value().iter().zip(b.value().iter());
    bits.map(|(a, b)| (a ^ b).count_ones()).sum()
}

fn picture(n: u64) -> NewEntry {
    let mut picture = entry(n, "one");
    picture.body.signals.push(pdq(n, 0));
    picture
}

fn ask(node: &Node, signal: Signal, max: u32) -> Matched {
    let options = MatchOptions {
        max_distance: Some(max),
        ..MatchOptions::default()
    };
    node.matches(&[signal], options).unwrap().remove(0)
}

fn distances(matched: &Matched) -> Vec<u32> {
    matched.found.iter().map(|found| found.distance).collect()
}

/// The keeper's first sweep is short here, and takes a moment all the same.
pub(super) fn wait_until_ready(node: &Node) {
    for _ in 0..9_000 {
        let near = node.near().unwrap();
        if near.is_ready() && near.pending() == 0 {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("the first sweep does not end");
}

#[test]
fn a_picture_that_differs_a_little_is_known_and_one_that_differs_more_is_not() {
    assert_eq!(distance_of(8), 8);
    let scene = Scene::new();
    for with_index in [true, false] {
        let node = if with_index {
            scene.open_with_near_index()
        } else {
            scene.open()
        };
        if with_index {
            node.create_set(&own_work("confirmed")).unwrap();
            import(&node, "confirmed", (0..100).map(picture).collect());
            wait_until_ready(&node);
        }
        assert_eq!(distances(&ask(&node, pdq(7, 8), 31)), [8]);
        assert_eq!(distances(&ask(&node, pdq(7, 8), 8)), [8]);
        assert_eq!(distances(&ask(&node, pdq(7, 8), 7)), [0; 0]);
        assert_eq!(distances(&ask(&node, pdq(7, 0), 0)), [0]);
        let known = &ask(&node, pdq(7, 8), 31).found[0].entry;
        assert_eq!(known.entry.to_string(), "north/confirmed#8");
        assert_eq!(distances(&ask(&node, sha256_of(7), 31)), [0]);
    }
}

#[test]
fn what_is_taken_back_matches_no_more_and_what_comes_matches_at_once() {
    let scene = Scene::new();
    let node = scene.open_with_near_index();
    node.create_set(&own_work("confirmed")).unwrap();
    wait_until_ready(&node);
    let said = import(&node, "confirmed", vec![picture(1), picture(2)]);
    assert_eq!((said.added, said.rejected.len()), (2, 0), "{said:?}");
    assert_eq!(distances(&ask(&node, pdq(1, 8), 31)), [8]);
    let retraction = Retraction {
        reason: RetractReason::Wrong,
        note: String::new(),
        recheck: false,
        selectors: vec![(1, Selector::SourceReference("ref-1".to_owned()))],
    };
    node.retract(&slug("confirmed"), &retraction).unwrap();
    assert!(ask(&node, pdq(1, 8), 31).found.is_empty());
    assert_eq!(distances(&ask(&node, pdq(2, 8), 31)), [8]);
}

#[test]
fn a_bulk_load_is_found_once_nothing_is_pending_and_again_after_a_start() {
    let scene = Scene::new();
    let node = scene.open_with_near_index();
    node.create_set(&own_work("confirmed")).unwrap();
    wait_until_ready(&node);
    import(&node, "confirmed", (0..20_000).map(picture).collect());
    wait_until_ready(&node);
    assert_eq!(node.near().unwrap().status().stats.values, 20_000);
    assert_eq!(distances(&ask(&node, pdq(19_999, 8), 31)), [8]);
    drop(node);
    let node = scene.open_with_near_index();
    wait_until_ready(&node);
    assert_eq!(node.near().unwrap().status().stats.values, 20_000);
    assert_eq!(distances(&ask(&node, pdq(123, 8), 31)), [8]);
}

#[test]
fn one_set_that_says_a_signal_often_does_not_fill_the_answer() {
    let scene = Scene::new();
    let node = scene.open_with_near_index();
    for set in ["confirmed", "other"] {
        node.create_set(&own_work(set)).unwrap();
    }
    let same = |n| {
        let mut same = entry(n, "one");
        same.body.signals = vec![pdq(1, 0)];
        same
    };
    import(&node, "confirmed", (0..200).map(same).collect());
    import(&node, "other", vec![same(1)]);
    let matched = ask(&node, pdq(1, 0), 0);
    assert_eq!(matched.found.len(), PER_FEED + 1);
    assert!(matched.more);
    let sets: Vec<String> = matched
        .found
        .iter()
        .map(|found| found.entry.entry.set.to_string())
        .collect();
    assert_eq!(sets.last().unwrap(), "north/other");
    assert_eq!(node.lookup(&[pdq(1, 0)]).unwrap()[0].len(), PER_FEED + 1);
    const { assert!(MATCHES_MAX > PER_FEED) };
}

/// The value that is asked for with two bits changed, another two for each `n`.
fn beside(asked: &Signal, n: usize) -> Signal {
    let mut value = asked.value().to_vec();
    for bit in [n / 16, 128 + n % 16] {
        value[bit / 8] ^= 1 << (bit % 8);
    }
    Signal::new(SignalKind::Pdq, value.into(), Some(90)).unwrap()
}

#[test]
fn nearer_values_that_were_taken_back_hide_nothing() {
    let scene = Scene::new();
    let node = scene.open_with_near_index();
    let asked = pdq(1, 8);
    for set in ["confirmed", "flood"] {
        node.create_set(&own_work(set)).unwrap();
    }
    let count = MATCHES_MAX + 100;
    let flood = (0..count).map(|n| {
        let number = 1_000 + u64::try_from(n).unwrap();
        let mut nearer = entry(number, "one");
        nearer.body.signals = vec![beside(&asked, n)];
        nearer
    });
    import(&node, "flood", flood.collect());
    import(&node, "confirmed", vec![picture(1)]);
    wait_until_ready(&node);
    let matched = ask(&node, asked.clone(), 31);
    assert_eq!((matched.found.len(), matched.more), (MATCHES_MAX, true));
    let selectors = (1_000..).take(count).map(|n| {
        let reference = Selector::SourceReference(format!("ref-{n}"));
        (n, reference)
    });
    let retraction = Retraction {
        reason: RetractReason::Wrong,
        note: String::new(),
        recheck: false,
        selectors: selectors.collect(),
    };
    node.retract(&slug("flood"), &retraction).unwrap();
    assert_eq!(distances(&ask(&node, asked.clone(), 31)), [8]);
    drop(node);
    assert_eq!(distances(&ask(&scene.open(), asked, 31)), [8]);
}

#[test]
fn a_crowd_of_nearer_values_takes_nobodys_word_away_unseen() {
    let scene = Scene::new();
    let node = scene.open_with_near_index();
    let asked = pdq(1, 20);
    for set in ["confirmed", "crowd"] {
        node.create_set(&own_work(set)).unwrap();
    }
    import(&node, "confirmed", vec![picture(1)]);
    wait_until_ready(&node);
    let judge = |matched: &Matched| {
        let judge = node.judge("", "").unwrap();
        judge.verdict(&asked, matched)
    };
    assert!(!ask(&node, asked.clone(), 31).crowded);
    // Three bits of the asked value, each another way: more than are looked up.
    let mut values = (0..60_usize)
        .flat_map(|a| (a + 1..60).flat_map(move |b| (b + 1..60).map(move |c| [a, b, c])));
    for lot in 0..34 {
        let crowd = (0..31_u64).map(|n| {
            let mut many = entry(1_000 + lot * 100 + n, "one");
            let few = values.by_ref().take(32);
            let signals = few.map(|bits| {
                let mut value = asked.value().to_vec();
                for bit in bits {
                    value[bit / 8] ^= 1 << (bit % 8);
                }
                Signal::new(SignalKind::Pdq, value.into(), Some(90)).unwrap()
            });
            many.body.signals = signals.collect();
            many
        });
        import(&node, "crowd", crowd.collect());
    }
    wait_until_ready(&node);
    let expires = node.clock().now().plus(3_600_000);
    let crowd = MuteOf::Set(SetName::parse("north/crowd").unwrap());
    node.mute(&crowd, "case 7", "test", expires).unwrap();
    let matched = ask(&node, asked.clone(), 31);
    assert!(matched.crowded && matched.more);
    assert_eq!(judge(&matched), Some(Verdict::Review), "people are asked");
}

#[test]
fn a_call_full_of_what_lies_in_a_flood_is_bounded_and_the_rest_of_it_answered() {
    let scene = Scene::new();
    let node = scene.open_with_near_index();
    for set in ["confirmed", "flood"] {
        node.create_set(&own_work(set)).unwrap();
    }
    let flooded = pdq(1, 0);
    let flood = (0..MATCHES_MAX).map(|n| {
        let mut one = entry(1_000 + u64::try_from(n).unwrap(), "one");
        one.body.signals = vec![beside(&flooded, n)];
        one
    });
    import(&node, "flood", flood.collect());
    import(&node, "confirmed", vec![picture(2)]);
    wait_until_ready(&node);
    let mut signals: Vec<Signal> = (0..400)
        .map(|n: usize| {
            let mut value = flooded.value().to_vec();
            for bit in (0..9).filter(|bit| n >> bit & 1 == 1) {
                value[20 + bit] ^= 0x10;
            }
            Signal::new(SignalKind::Pdq, value.into(), Some(90)).unwrap()
        })
        .collect();
    signals.push(pdq(2, 0));
    let answers = node.matches(&signals, MatchOptions::default()).unwrap();
    let whole = answers.iter().filter(|answer| !answer.over).count();
    assert!((200..400).contains(&whole), "{whole} were answered");
    let made: usize = answers.iter().map(|answer| answer.found.len()).sum();
    assert!(made <= 65_536 + 400 * 16 + MATCHES_MAX, "{made} matches");
    assert_eq!(distances(&answers[0]).len(), MATCHES_MAX);
    let last = answers.last().unwrap();
    assert_eq!((distances(last), last.over), (vec![0], false));
    // Asked by itself, what was left out is answered.
    let alone = ask(&node, signals[399].clone(), 31);
    assert_eq!((alone.found.len(), alone.over), (MATCHES_MAX, false));
}

#[test]
fn a_distance_at_which_nothing_is_alike_is_refused() {
    let scene = Scene::new();
    let node = scene.open();
    let options = MatchOptions {
        max_distance: Some(65),
        ..MatchOptions::default()
    };
    let refused = node.matches(&[pdq(1, 0)], options).unwrap_err();
    assert!(matches!(refused, NodeError::Misuse(text) if text.contains("64")));
}
