//! Videos that are near one, with the index in memory and without.

use hashpact_core::id::Digest;
use hashpact_core::leaf::{MediaKind, RetractReason};
use hashpact_core::signal::{Signal, SignalKind};

use super::{Scene, entry, import, own_work, sha256_of, slug};
use crate::error::NodeError;
use crate::model::{Erasure, MatchOptions, Matched, NewEntry, Retraction, Selector, VideoShare};
use crate::node::Node;

/// A frame: a value with half of its bits set, some of them changed.
pub(super) struct Frame {
    number: u64,
    flipped: u32,
    quality: u8,
}

pub(super) fn frames(numbers: impl IntoIterator<Item = u64>) -> Vec<Frame> {
    let frame = |number| Frame {
        number,
        flipped: 0,
        quality: 90,
    };
    numbers.into_iter().map(frame).collect()
}

pub(super) fn video(frames: &[Frame]) -> Signal {
    let frames = frames.iter().enumerate().map(|(second, frame)| {
        let digest = Digest::of(&frame.number.to_be_bytes());
        let mut value = [0; 32];
        let (front, back) = value.split_at_mut(16);
        front.copy_from_slice(&digest.as_bytes()[..16]);
        for (back, front) in back.iter_mut().zip(front.iter()) {
            *back = !*front;
        }
        for bit in 0..frame.flipped as usize {
            value[(bit * 7 / 8) % 32] ^= 1 << (bit % 8);
        }
        let hex = data_encoding::HEXLOWER.encode(&value);
        format!("\"{hex},{},{second}.0\"", frame.quality)
    });
    let frames: Vec<String> = frames.collect();
    Signal::parse(SignalKind::Vpdq, &format!("[{}]", frames.join(","))).unwrap()
}

fn said(n: u64, frames: &[Frame]) -> NewEntry {
    let mut said = entry(n, "one");
    said.body.media_kind = MediaKind::Video;
    said.body.signals.push(video(frames));
    said
}

fn ask_with(node: &Node, frames: &[Frame], options: MatchOptions) -> Vec<(u64, u8, u8)> {
    let matched: Matched = node.matches(&[video(frames)], options).unwrap().remove(0);
    let of = |share: VideoShare| (share.query_percent, share.compared_percent);
    let found = matched.found.into_iter().map(|found| {
        let (query, compared) = of(found.video.unwrap());
        (found.entry.entry.first, query, compared)
    });
    found.collect()
}

fn ask(node: &Node, frames: &[Frame]) -> Vec<(u64, u8, u8)> {
    ask_with(node, frames, MatchOptions::default())
}

fn at_least(query: u8, compared: u8) -> MatchOptions {
    MatchOptions {
        max_distance: None,
        video_query_percent: Some(query),
        video_compared_percent: Some(compared),
    }
}

fn wait_until_ready(node: &Node) {
    for _ in 0..9_000 {
        if node.near_loading() == (true, 0) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("the first sweep does not end");
}

/// A hundred frames; the same video with other bits; another video.
fn published() -> Vec<NewEntry> {
    vec![said(1, &frames(0..100)), said(2, &frames(1_000..1_050))]
}

#[test]
fn a_video_is_known_by_enough_of_its_frames_with_an_index_and_without() {
    let scene = Scene::new();
    for with_index in [true, false] {
        let node = if with_index {
            scene.open_with_near_index()
        } else {
            scene.open()
        };
        if with_index {
            node.create_set(&own_work("confirmed")).unwrap();
            import(&node, "confirmed", published());
            wait_until_ready(&node);
        }
        // The very one, and one of which every frame is a little different.
        assert_eq!(ask(&node, &frames(0..100)), [(1, 100, 100)]);
        let mut altered = frames(0..100);
        for frame in &mut altered {
            frame.flipped = 31;
        }
        assert_eq!(ask(&node, &altered), [(1, 100, 100)]);
        for frame in &mut altered {
            frame.flipped = 40;
        }
        assert_eq!(ask(&node, &altered), []);
        // A clip of it; with something before and behind; with too much.
        assert_eq!(ask(&node, &frames(20..40)), [(1, 100, 20)]);
        assert_eq!(ask_with(&node, &frames(20..40), at_least(80, 21)), []);
        let with_more = |own: u64| frames((20..20 + own).chain(5_000..5_100 - own));
        assert_eq!(ask(&node, &with_more(80)), [(1, 80, 80)]);
        assert_eq!(ask(&node, &with_more(79)), []);
        assert_eq!(ask_with(&node, &with_more(1), at_least(1, 0)), [(1, 1, 1)]);
        // Two videos one after the other: the one that has more of it comes first.
        let both = frames((0..100).chain(1_000..1_050));
        assert_eq!(
            ask_with(&node, &both, at_least(30, 0)),
            [(1, 66, 100), (2, 33, 100)]
        );
        // The very value alone.
        let exact = MatchOptions::exact();
        let found = node.matches(&[video(&frames(0..100))], exact).unwrap();
        assert_eq!(found[0].found.len(), 1);
        let found = node.matches(&[video(&frames(0..99))], exact).unwrap();
        assert!(found[0].found.is_empty());
    }
}

#[test]
fn frames_that_show_too_little_find_nothing() {
    let scene = Scene::new();
    let node = scene.open_with_near_index();
    node.create_set(&own_work("confirmed")).unwrap();
    let mut blank = frames(0..100);
    for frame in blank.iter_mut().skip(10) {
        frame.quality = 49;
    }
    import(&node, "confirmed", vec![said(1, &blank)]);
    wait_until_ready(&node);
    assert_eq!(ask(&node, &frames(0..10)), [(1, 100, 100)]);
    assert_eq!(ask(&node, &frames(10..100)), []);
    // Asked for by blank frames alone, only the very value counts.
    for frame in &mut blank {
        frame.quality = 10;
    }
    assert_eq!(ask(&node, &blank), []);
}

#[test]
fn a_video_that_is_taken_back_or_erased_is_known_no_more_and_one_that_comes_is_at_once() {
    let scene = Scene::new();
    let node = scene.open_with_near_index();
    node.create_set(&own_work("confirmed")).unwrap();
    wait_until_ready(&node);
    import(&node, "confirmed", published());
    assert_eq!(ask(&node, &frames(0..90)), [(1, 100, 90)]);
    let retraction = Retraction {
        reason: RetractReason::Wrong,
        note: String::new(),
        recheck: false,
        selectors: vec![(1, Selector::SourceReference("ref-1".to_owned()))],
    };
    node.retract(&slug("confirmed"), &retraction).unwrap();
    assert_eq!(ask(&node, &frames(0..90)), []);
    assert_eq!(ask(&node, &frames(1_000..1_050)), [(2, 100, 100)]);
    let erasure = Erasure {
        legal_basis: "order 7".to_owned(),
        selectors: vec![(1, Selector::SourceReference("ref-2".to_owned()))],
    };
    node.erase(&slug("confirmed"), &erasure).unwrap();
    assert_eq!(ask(&node, &frames(1_000..1_050)), []);
    let report = node.verify_in_words(&mut |_, _| {}).unwrap();
    // Of the scene's own cards there are none, so its heads have no keys.
    let mut others = report.problems.iter();
    let other = others.find(|problem| !problem.contains("a head's signature"));
    assert_eq!(other, None);
    assert!(node.lookup(&[sha256_of(2)]).unwrap()[0].is_empty());
}

#[test]
fn what_one_call_may_cost_has_a_bound() {
    let scene = Scene::new();
    let node = scene.open();
    let many = vec![video(&frames(0..200)); 300];
    let refused = node.matches(&many, MatchOptions::default()).unwrap_err();
    assert!(matches!(refused, NodeError::Misuse(text) if text.contains("frames")));
    let refused = node.matches(&many[..1], at_least(101, 0)).unwrap_err();
    assert!(matches!(refused, NodeError::Misuse(text) if text.contains("101")));
}
