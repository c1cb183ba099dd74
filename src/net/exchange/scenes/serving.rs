//! What a pull gets.

use hashpact_core::chunk::verify_extension;
use hashpact_core::merkle::CompactRange;
use hashpact_core::reject::Rejection;

use super::*;

/// What whoever asks for something that is not there gets.
const NOT_FOUND: ServiceError = ServiceError::Rejected(Rejection::NotFound);

#[tokio::test]
async fn what_is_served_verifies_from_any_index() {
    let coalition = Coalition::new();
    let north = coalition.open(NORTH);
    let feed = create_set(&north, "set", &[("south", false)]);
    publish(&north, "set", 0, 1_000);
    for (from, to) in [(0, 1_001), (1, 1_001), (256, 512), (700, 701), (513, 1_000)] {
        let request = PullRequest {
            from,
            to,
            ..all_of(&north, &feed)
        };
        let parts = pull(&north, SOUTH, request).await.unwrap();
        let chunks = verified(&parts, &request);
        assert_eq!(chunks[0].from, from);
        assert_eq!(chunks.last().unwrap().to, to);
        assert!(chunks.windows(2).all(|pair| pair[0].to == pair[1].from));
    }
}

#[tokio::test]
async fn what_is_not_granted_answers_as_what_does_not_exist() {
    let coalition = Coalition::new();
    let north = coalition.open(NORTH);
    let granted = create_set(&north, "granted", &[("south", false)]);
    let private = create_set(&north, "private", &[("west", false)]);
    publish(&north, "granted", 0, 10);
    let known = all_of(&north, &granted);
    let unknown = PullRequest {
        feed: FeedId(Digest::of(b"no such feed")),
        ..known
    };
    let other_root = PullRequest {
        head_root: Digest::of(b"another root"),
        ..known
    };
    let other_root_below = PullRequest {
        head_size: 5,
        to: 5,
        ..known
    };
    let beyond = PullRequest {
        head_size: 12,
        ..known
    };
    let backwards = PullRequest {
        from: 7,
        to: 5,
        ..known
    };
    let ungranted = all_of(&north, &private);
    for request in [
        unknown,
        other_root,
        other_root_below,
        beyond,
        backwards,
        ungranted,
    ] {
        for proof_only in [false, true] {
            let request = PullRequest {
                proof_only,
                ..request
            };
            let refused = pull(&north, SOUTH, request).await;
            assert_eq!(refused, Err(NOT_FOUND), "{request:?}");
        }
    }
    assert!(pull(&north, SOUTH, known).await.is_ok());
}

#[tokio::test]
async fn an_older_head_is_served_as_long_as_its_root_is_right() {
    let coalition = Coalition::new();
    let north = coalition.open(NORTH);
    let feed = create_set(&north, "set", &[("south", false)]);
    publish(&north, "set", 0, 10);
    let old = all_of(&north, &feed);
    publish(&north, "set", 10, 700);
    let parts = pull(&north, SOUTH, old).await.unwrap();
    assert_eq!(verified(&parts, &old)[0].to, 11);
}

#[tokio::test]
async fn a_grant_that_is_taken_away_ends_a_pull_before_its_next_chunk() {
    let coalition = Coalition::new();
    let north = coalition.open(NORTH);
    let feed = create_set(&north, "set", &[("south", false)]);
    publish(&north, "set", 0, 60_000);
    let request = all_of(&north, &feed);
    let mut parts = pulls(&north).serve(number(SOUTH), request).await.unwrap();
    let first = parts.next().await.unwrap().unwrap();
    assert!(verified(&[first], &request)[0].to < request.to);
    // Time to read ahead what must not leave.
    tokio::time::sleep(Duration::from_millis(100)).await;
    change_grants(&north, "set", &[], &["south"]);
    assert_eq!(parts.next().await, Some(Err(NOT_FOUND)));
}

#[tokio::test]
async fn a_suspension_ends_a_pull_before_its_next_chunk() {
    let coalition = Coalition::new();
    let north = coalition.open(NORTH);
    let feed = create_set(&north, "set", &[("south", false)]);
    publish(&north, "set", 0, 60_000);
    let request = all_of(&north, &feed);
    let mut parts = pulls(&north).serve(number(SOUTH), request).await.unwrap();
    parts.next().await.unwrap().unwrap();
    suspend(&north, SOUTH);
    assert_eq!(parts.next().await, Some(Err(NOT_FOUND)));
}

#[tokio::test]
async fn leaves_are_relayed_only_under_a_relay_grant_and_proofs_to_any_reader() {
    let coalition = Coalition::new();
    let (north, west) = (coalition.open(NORTH), coalition.open(WEST));
    let feed = create_set(&north, "set", &[("south", false), ("west", false)]);
    publish(&north, "set", 0, 500);
    bring(&north, &west, &feed, false).await;
    let request = all_of(&west, &feed);
    assert_eq!(pull(&west, SOUTH, request).await, Err(NOT_FOUND));
    let proof = PullRequest {
        proof_only: true,
        ..request
    };
    assert!(pull(&west, SOUTH, proof).await.is_ok());
    // The publisher reads its own feed back from any holder.
    let parts = pull(&west, NORTH, request).await.unwrap();
    verified(&parts, &request);

    change_grants(&north, "set", &[("west", true)], &[]);
    bring(&north, &west, &feed, false).await;
    let parts = pull(&west, SOUTH, request).await.unwrap();
    verified(&parts, &request);
}

#[tokio::test]
async fn a_relay_serves_nobody_beyond_what_the_publisher_lets_it_read() {
    let coalition = Coalition::new();
    let (north, west) = (coalition.open(NORTH), coalition.open(WEST));
    let feed = create_set(&north, "set", &[("west", true)]);
    publish(&north, "set", 0, 500);
    bring(&north, &west, &feed, false).await;
    let before = all_of(&west, &feed);
    // Who has no grant of the publisher gets nothing of a relay either.
    for caller in [SOUTH, WITNESS] {
        assert_eq!(pull(&west, caller, before).await, Err(NOT_FOUND));
    }
    change_grants(&north, "set", &[("south", false)], &[]);
    // A grant that the relay has not applied yet is none there.
    assert_eq!(pull(&west, SOUTH, before).await, Err(NOT_FOUND));
    bring(&north, &west, &feed, false).await;
    let granted = all_of(&west, &feed);
    assert!(pull(&west, SOUTH, granted).await.is_ok());
    // Nothing is served beyond the head that the relay has applied.
    publish(&north, "set", 500, 510);
    let beyond = all_of(&north, &feed);
    assert_eq!(pull(&west, SOUTH, beyond).await, Err(NOT_FOUND));
    // What the publisher took back is taken back at the relay, for older heads too.
    change_grants(&north, "set", &[], &["south"]);
    bring(&north, &west, &feed, false).await;
    for head in [before, granted, all_of(&west, &feed)] {
        for proof_only in [false, true] {
            let request = PullRequest { proof_only, ..head };
            assert_eq!(pull(&west, SOUTH, request).await, Err(NOT_FOUND));
        }
    }
}

#[tokio::test]
async fn a_witness_gets_proofs_and_never_leaves() {
    let coalition = Coalition::new();
    let north = coalition.open(NORTH);
    let feed = create_set(&north, "private", &[]);
    publish(&north, "private", 0, 300);
    let held_size = feed_of(&north, &feed).applied.unwrap().size;
    let no = feed_of(&north, &feed).no;
    let held: CompactRange = north.store().range(no, 0, held_size).unwrap();
    publish(&north, "private", 300, 900);
    let request = PullRequest {
        from: held_size,
        ..all_of(&north, &feed)
    };
    assert_eq!(pull(&north, WITNESS, request).await, Err(NOT_FOUND));
    let proof = PullRequest {
        proof_only: true,
        ..request
    };
    let parts = pull(&north, WITNESS, proof).await.unwrap();
    let [PullPart::Proof(parts)] = parts.as_slice() else {
        panic!("not one proof");
    };
    let now = verify_extension(parts, &held, &pinned(&request)).unwrap();
    assert_eq!(now.root(), Some(request.head_root));
}

#[tokio::test]
async fn exactly_the_dead_leaves_are_elided_when_asked_and_all_verifies() {
    let coalition = Coalition::new();
    let north = coalition.open(NORTH);
    let feed = create_set(&north, "set", &[("south", false)]);
    publish(&north, "set", 0, 600);
    let before = all_of(&north, &feed);
    retract(&north, "set", 100..300);
    let plain = all_of(&north, &feed);
    let eliding = |request| PullRequest {
        elide_dead: true,
        ..request
    };
    for (request, expected) in [
        (plain, Vec::new()),
        (eliding(plain), (101..301).collect::<Vec<u64>>()),
        // What retracts them is beyond this head.
        (eliding(before), Vec::new()),
    ] {
        let parts = pull(&north, SOUTH, request).await.unwrap();
        let chunks = verified(&parts, &request);
        let leaves = chunks.iter().flat_map(VerifiedChunk::leaves);
        let elided = leaves.filter(|(_, leaf)| leaf.is_elided());
        assert_eq!(elided.map(|(index, _)| index).collect::<Vec<_>>(), expected);
    }
}

#[tokio::test]
async fn what_was_pulled_elided_is_not_served_for_a_head_that_does_not_justify_it() {
    let coalition = Coalition::new();
    let (north, west) = (coalition.open(NORTH), coalition.open(WEST));
    let feed = create_set(&north, "set", &[("south", false), ("west", true)]);
    publish(&north, "set", 0, 600);
    let before = all_of(&north, &feed);
    retract(&north, "set", 100..300);
    bring(&north, &west, &feed, true).await;
    let newest = all_of(&west, &feed);
    let parts = pull(&west, SOUTH, newest).await.unwrap();
    verified(&parts, &newest);
    assert_eq!(pull(&west, SOUTH, before).await, Err(NOT_FOUND));
    // Nor do leaves that come meanwhile keep a pull from ending.
    publish(&north, "set", 600, 700);
    bring(&north, &west, &feed, true).await;
    let parts = pull(&west, SOUTH, newest).await.unwrap();
    verified(&parts, &newest);
}
