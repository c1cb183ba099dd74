//! Bundles that are damaged, cut off, forged, or of another history.

use std::sync::Arc;

use hashpact_core::bundle::{CHECK_BYTES, Header, MAGIC, PREFIX_BYTES, RecordKind, Writer};
use hashpact_core::evidence::ForkEvidence;
use hashpact_core::puller::Settings;
use hashpact_node::NodeError;
use hashpact_node::bundle::SetOutcome;
use hashpact_store::FeedStatus;

use super::bundles::{
    GoesAway, InMemory, answers, codes, exported, for_south, framed, hand_made, import,
    import_from, only, order, published, records, try_import,
};
use super::hostile::{Forged, coalition_name, describe, feed_key};
use super::hostile_heads::forked;
use super::live::verify;
use super::*;
use crate::exchange::bundle::show;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_byte_changed_anywhere_is_refused_with_a_reason_and_the_rest_is_not_lost() {
    let (coalition, north, feed) = published(300);
    let file = for_south(&north, 0).await;
    let whole = feed_of(&north, &feed).applied.unwrap();
    let reasons = |view: &crate::exchange::BundleView| {
        let of_feeds = view.feeds.iter().map(|feed| feed.refused.len());
        view.refused.len() + of_feeds.sum::<usize>()
    };
    // Every byte is seen by whoever looks.
    for at in (0..file.len()).step_by(7) {
        let mut changed = file.clone();
        changed[at] ^= 0x10;
        let shown = show(
            Arc::new(InMemory(changed.into())),
            Some(coalition.genesis),
            |_, _| {},
        );
        match shown.await {
            Ok(view) => assert!(reasons(&view) > 0, "byte {at} was not noticed"),
            Err(error) => assert!(matches!(error, NodeError::Rejected(_)), "{error}"),
        }
    }
    // And by whoever takes it in; what is stored of it is right, and goes on from there.
    for n in 0..24 {
        let mut changed = file.clone();
        let at = (changed.len() - 1) * n / 23;
        changed[at] ^= 0x10;
        let south = coalition.open_in(&format!("south-{n}"), SOUTH, &[]);
        match try_import(&south, &changed).await {
            Ok(taken) => assert!(!codes(&taken).is_empty(), "byte {at} was not noticed"),
            Err(error) => assert!(matches!(error, NodeError::Rejected(_)), "{error}"),
        }
        verify(&south);
        if let Some(no) = south.store().feed_no(&feed) {
            let stored = south.store().feed(no).unwrap().stored;
            let theirs = feed_of(&north, &feed).no;
            let root = |node: &Node, no| node.store().root_at(no, stored).unwrap();
            assert_eq!(root(&south, no), root(&north, theirs), "byte {at}");
        }
        let good = import(&south, &file).await;
        assert_ne!(
            only(&good).outcome,
            SetOutcome::Refused,
            "byte {at}: {good:?}"
        );
        assert_eq!(feed_of(&south, &feed).applied, Some(whole));
        assert_eq!(answers(&south, 300), 300);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_in_one_set_loses_nothing_of_the_others() {
    let (coalition, north, _) = published(30);
    let other = create_set(&north, "other", &[("south", false)]);
    publish(&north, "other", 100, 130);
    let both = order("south", &["north/set", "north/other"], &[]);
    let (file, _) = exported(&north, both).await.unwrap();
    let mut all = records(&file);
    let first = all
        .iter()
        .position(|(kind, _)| *kind == RecordKind::Chunk)
        .unwrap();
    let last = all[first].1.len() - 1;
    all[first].1[last - 40] ^= 1;
    let south = coalition.open(SOUTH);
    let taken = import(&south, &framed(&all)).await;
    let outcomes: Vec<_> = taken.sets.iter().map(|set| set.outcome).collect();
    assert_eq!(
        outcomes,
        [SetOutcome::Refused, SetOutcome::Taken],
        "{taken:?}"
    );
    assert_eq!(taken.sets[0].held, 0, "nothing of the bad part");
    assert!(feed_of(&south, &other).applied.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bundle_that_is_cut_off_is_noticed_and_a_whole_one_goes_on_from_there() {
    let (coalition, north, feed) = published(40_000);
    let file = for_south(&north, 0).await;
    let chunks = records(&file)
        .iter()
        .filter(|(kind, _)| *kind == RecordKind::Chunk)
        .count();
    assert!(chunks > 1, "the scene needs some chunks, not {chunks}");
    let south = coalition.open(SOUTH);
    for cut in [3, MAGIC.len() + 2] {
        assert!(try_import(&south, &file[..cut]).await.is_err(), "{cut}");
    }
    let taken = import(&south, &file[..file.len() - 1]).await;
    assert_eq!(codes(&taken), ["truncated"], "only its end is missing");
    assert_eq!(only(&taken).outcome, SetOutcome::Taken);
    let west = coalition.open_in("south-2", SOUTH, &[]);
    let taken = import(&west, &file[..file.len() - 200]).await;
    assert_eq!(only(&taken).outcome, SetOutcome::Refused);
    assert_eq!(
        codes(&taken),
        ["truncated", "truncated"],
        "the file, and the set"
    );
    let stored = only(&taken).stored;
    assert!(
        stored > 0 && stored < 40_001,
        "the good part is not lost: {stored}"
    );
    assert_eq!(answers(&west, 10), 0, "nothing answers before its head");
    verify(&west);
    let whole = import(&west, &file).await;
    assert_eq!(only(&whole).outcome, SetOutcome::Taken, "{whole:?}");
    assert_eq!(
        only(&whole).stored,
        40_001 - stored,
        "what is held is skipped"
    );
    assert_eq!(
        feed_of(&west, &feed).applied,
        feed_of(&north, &feed).applied
    );
    assert_eq!(answers(&west, 500), 500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bundle_whose_owner_goes_away_says_what_was_taken_in() {
    let (coalition, north, _) = published(700);
    create_set(&north, "other", &[("south", false)]);
    publish(&north, "other", 1_000, 1_700);
    let both = order("south", &["north/set", "north/other"], &[]);
    let (file, _) = exported(&north, both).await.unwrap();
    // Until the second set begins.
    let mut begins = Vec::new();
    let mut at = MAGIC.len();
    for (kind, body) in records(&file) {
        if kind == RecordKind::Feed {
            begins.push(at);
        }
        at += PREFIX_BYTES + body.len() + CHECK_BYTES;
    }
    let south = coalition.open(SOUTH);
    let file = GoesAway {
        file: file.into(),
        after: u64::try_from(begins[1]).unwrap(),
    };
    let taken = import_from(&south, Arc::new(file), Settings::default());
    let taken = taken.await.unwrap();
    assert_eq!(only(&taken).outcome, SetOutcome::Taken, "{taken:?}");
    assert_eq!(codes(&taken), ["busy"], "and what ended it");
    assert_eq!(answers(&south, 700), 700);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_that_claim_more_leaves_than_a_feed_has_are_refused_and_nothing_overflows() {
    let (coalition, north, _) = published(1);
    let documents = for_south(&north, 0).await;
    let mut all = records(&documents);
    for to in [u64::MAX, u64::MAX - 1, (1 << 40) + 1] {
        let bounds = [0_u64.to_be_bytes(), to.to_be_bytes()].concat();
        all.push((RecordKind::Feed, Vec::new()));
        all.push((RecordKind::Chunk, bounds));
    }
    let south = coalition.open(SOUTH);
    let file = framed(&all);
    let taken = import(&south, &file).await;
    let refused = codes(&taken);
    assert_eq!(
        refused.iter().filter(|code| **code == "invalid").count(),
        3,
        "{taken:?}"
    );
    let file = Arc::new(InMemory(file.into()));
    let view = show(file, None, |_, _| ()).await;
    assert!(view.is_ok(), "{view:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_zstd_bomb_and_forged_leaves_under_right_checks_store_nothing() {
    let (coalition, north, _) = published(1);
    let documents = for_south(&north, 0).await;
    let forged = Forged::new(&coalition, NORTH, "forged", 600);
    let good = forged.chunk(0, 600, 600);
    // Declares 2^62 bytes, in a single segment: the whole of it.
    let mut huge = vec![0x28, 0xb5, 0x2f, 0xfd, 0xe0];
    huge.extend_from_slice(&(1_u64 << 62).to_le_bytes());
    huge.extend_from_slice(&[0x03, 0, 0]);
    let mut bomb = good.clone();
    bomb.pages[0] = Bytes::from(huge);
    let mut other_leaf = good.clone();
    other_leaf.trailing = forked(&forged, 599, 600).chunk(0, 600, 600).trailing;
    let mut other_proof = good.clone();
    other_proof.before = vec![Digest([1; 32])];
    let cases = [
        (bomb, "too_large"),
        (other_leaf, "wrong_root"),
        (other_proof, "proof_length"),
    ];
    let south = coalition.open(SOUTH);
    for (chunk, code) in cases {
        let taken = import(&south, &hand_made(&documents, &forged, &[chunk])).await;
        assert_eq!(codes(&taken), [code]);
        assert_eq!(
            (only(&taken).outcome, only(&taken).held),
            (SetOutcome::Refused, 0)
        );
        assert!(south.store().feed_no(&forged.feed).is_none());
    }
    let taken = import(&south, &hand_made(&documents, &forged, &[good])).await;
    assert_eq!(only(&taken).outcome, SetOutcome::Taken, "{taken:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_by_another_key_or_of_another_coalition_is_refused() {
    let (coalition, north, _) = published(1);
    let documents = for_south(&north, 0).await;
    let mut forged = Forged::new(&coalition, NORTH, "forged", 10);
    let chunk = forged.chunk(0, 10, 10);
    forged.publisher = WEST; // signs with west's key, and says so
    let south = coalition.open(SOUTH);
    let taken = import(&south, &hand_made(&documents, &forged, &[chunk])).await;
    assert_eq!(
        (only(&taken).outcome, only(&taken).held),
        (SetOutcome::Refused, 0)
    );
    assert_eq!(codes(&taken), ["invalid"], "the name is of another member");
    let mut all = records(&documents);
    let mut header = Header::read(&all[0].1).unwrap();
    header.genesis = Digest([1; 32]);
    let (mut writer, first) = Writer::begin(&header).unwrap();
    let mut file = first.to_vec();
    for (kind, body) in all.drain(1..) {
        file.extend_from_slice(&writer.record(kind, &body).unwrap());
    }
    file.extend_from_slice(&writer.end().unwrap());
    let refused = try_import(&south, &file).await.unwrap_err();
    assert_eq!(refused.code(), "wrong_genesis");
}

/// A fork in a bundle: the feed is frozen as it is held, and there is portable evidence.
async fn fork_in_a_bundle(held: u64, forged_size: u64) {
    let (coalition, north, _) = published(1);
    let documents = for_south(&north, 0).await;
    let said = describe(&coalition, NORTH, "forged");
    let honest = Forged::with(&coalition, NORTH, &said, held);
    let fork = forked(
        &Forged::with(&coalition, NORTH, &said, 200),
        100,
        forged_size,
    );
    let south = coalition.open(SOUTH);
    let first = hand_made(&documents, &honest, &[honest.chunk(0, held, held)]);
    assert_eq!(
        only(&import(&south, &first).await).outcome,
        SetOutcome::Taken
    );
    let chunk = fork.chunk(0, forged_size, forged_size);
    let taken = import(&south, &hand_made(&documents, &fork, &[chunk])).await;
    assert_eq!(only(&taken).outcome, SetOutcome::Forked, "{taken:?}");
    assert!(codes(&taken).contains(&"two_roots"), "{taken:?}");
    let now = feed_of(&south, &honest.feed);
    assert_eq!((now.status, now.stored), (FeedStatus::Frozen, held));
    let evidence = south.store().evidence().unwrap();
    let evidence = ForkEvidence::decode(&evidence[0]).unwrap();
    let keys = |_| vec![feed_key(NORTH).public()];
    assert!(evidence.verify(&coalition_name(), keys, |_| None).is_ok());
    // Whoever gets a bundle of the frozen set gets the evidence too.
    let (file, made) = exported(&south, order("west", &["north/forged"], &[]))
        .await
        .unwrap();
    assert_eq!(made.evidence, 1);
    let west = coalition.open(WEST);
    let taken = import(&west, &file).await;
    assert_eq!(taken.evidence, 1, "{taken:?}");
    assert_eq!(feed_of(&west, &honest.feed).status, FeedStatus::Frozen);
    assert_eq!(west.store().evidence().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_larger_fork_in_a_bundle_ends_as_evidence() {
    fork_in_a_bundle(200, 260).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fork_of_the_same_size_in_a_bundle_ends_as_evidence() {
    fork_in_a_bundle(200, 200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_smaller_fork_in_a_bundle_ends_as_evidence() {
    fork_in_a_bundle(300, 200).await;
}
