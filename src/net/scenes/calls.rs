//! The four calls carry what they should.

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use hashpact_core::id::{Digest, MemberNumber};

use super::{NOW, PLAIN, Scene, chunk, feed, pull_of, quick};
use crate::NetError;
use crate::types::{Announcement, GrantEnded, Head, PullPart, PullRequest, RosterItem};

#[tokio::test]
async fn the_roster_comes_in_its_order() {
    let scene = Scene::new(quick()).await;
    let peer = scene.dial().await;
    let items = peer.roster(41).await.unwrap();
    let items: Vec<_> = items.map(Result::unwrap).collect().await;
    assert_eq!(
        items,
        [
            RosterItem::Roster(Bytes::from_static(b"41")),
            RosterItem::NodeCard(Bytes::from_static(b"card")),
            RosterItem::Suspension(Bytes::from_static(b"suspension")),
        ]
    );
}

#[tokio::test]
async fn announcements_of_every_kind_come_back_as_told() {
    let head = Head {
        feed: feed(7),
        publisher: MemberNumber::new(9).unwrap(),
        note: Bytes::from_static(b"note"),
        cosignatures: vec![Bytes::from_static(b"cosignature"); 2],
        receipts: vec![Bytes::from_static(b"receipt"); 3],
    };
    let said = vec![
        Announcement::Roster {
            version: 3,
            digest: Digest::of(b"roster"),
            cosignatures: vec![Bytes::from_static(b"cosignature"); 2],
        },
        Announcement::NodeCard(Bytes::from_static(b"card")),
        Announcement::Suspension(Bytes::from_static(b"suspension")),
        Announcement::Head(Box::new(head.clone())),
        Announcement::SnapshotEnd,
        Announcement::Evidence(Bytes::from_static(b"evidence")),
        Announcement::DocumentEvidence(Bytes::from_static(b"two cards")),
        Announcement::GrantEnded(Box::new(GrantEnded {
            head,
            index: 5,
            leaf: Bytes::from_static(b"leaf"),
            inclusion: vec![Digest::of(b"sibling"); 4],
        })),
    ];
    let scene = Scene::new(quick()).await;
    let peer = scene.dial().await;
    let telling = stream::iter(said.clone()).chain(stream::pending());
    let answers = peer.watch(Box::pin(telling)).await.unwrap();
    let alive = Announcement::Alive { clock: NOW };
    let answers = answers.map(Result::unwrap).take(said.len() + 1);
    let answers: Vec<_> = answers.collect().await;
    assert_eq!(answers.last(), Some(&alive));
    assert_eq!(answers[..said.len()], said);
}

#[tokio::test]
async fn a_pull_brings_its_chunks_in_order() {
    let scene = Scene::new(quick()).await;
    let peer = scene.dial().await;
    let parts = peer.pull(&pull_of(PLAIN, 3 * 1024)).await.unwrap();
    let parts: Vec<_> = parts.map(Result::unwrap).collect().await;
    let expected = [0, 1024, 2048].map(|from| PullPart::Chunk(chunk(from, 256 * 1024)));
    assert!(parts == expected);
}

#[tokio::test]
async fn a_proof_only_pull_brings_ranges_and_no_leaves() {
    let scene = Scene::new(quick()).await;
    let peer = scene.dial().await;
    let request = PullRequest {
        proof_only: true,
        ..pull_of(PLAIN, 1 << 20)
    };
    let mut parts = peer.pull(&request).await.unwrap();
    let part = parts.next().await.unwrap().unwrap();
    let PullPart::Proof(proof) = part else {
        panic!("{part:?}")
    };
    assert_eq!((proof.from, proof.to, proof.range.len()), (0, 1 << 20, 30));
    assert!(parts.next().await.is_none());
}

#[tokio::test]
async fn a_pull_beyond_the_head_is_refused() {
    let scene = Scene::new(quick()).await;
    let peer = scene.dial().await;
    for request in [
        PullRequest {
            head_size: 10,
            ..pull_of(PLAIN, 11)
        },
        PullRequest {
            from: 5,
            ..pull_of(PLAIN, 4)
        },
        PullRequest {
            head_size: u64::MAX,
            ..pull_of(PLAIN, 4)
        },
    ] {
        let refused = peer.pull(&request).await.err().unwrap();
        assert!(
            matches!(&refused, NetError::Peer(refusal) if refusal.code == "invalid"),
            "{refused:?}"
        );
    }
}
