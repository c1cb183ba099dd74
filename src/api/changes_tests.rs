//! Changes as a consumer meets them: told everything, then what changes, from where it
//! acknowledged last.

use tonic::Streaming;

use super::*;
use crate::wire::change::Kind;

async fn watch(
    scene: &Scene,
    snapshot: bool,
    cursor: &[u8],
) -> Result<Streaming<wire::WatchChangesResponse>, Status> {
    let request = wire::WatchChangesRequest {
        consumer: "matcher".to_owned(),
        snapshot,
        cursor: cursor.to_vec().into(),
        until_caught_up: false,
    };
    let mut client = scene.client.clone();
    let watched = client.watch_changes(request).await;
    watched.map(tonic::Response::into_inner)
}

/// What comes until there is nothing more at present, and the cursor after it.
async fn until_caught_up(
    changes: &mut Streaming<wire::WatchChangesResponse>,
) -> (Vec<(Kind, u64)>, bool, Bytes) {
    let (mut told, mut snapshot_over) = (Vec::new(), false);
    loop {
        let message = changes.message().await.unwrap().unwrap();
        told.extend(message.changes.iter().map(|c| (c.kind(), c.index)));
        snapshot_over |= message.snapshot_over;
        if message.caught_up && (!told.is_empty() || snapshot_over) {
            return (told, snapshot_over, message.cursor);
        }
    }
}

async fn acknowledge(scene: &Scene, cursor: Bytes) -> Result<wire::Consumer, Status> {
    let request = wire::AcknowledgeChangesRequest {
        consumer: "matcher".to_owned(),
        cursor,
    };
    let mut client = scene.client.clone();
    let taken = client.acknowledge_changes(request).await;
    taken.map(tonic::Response::into_inner)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_is_told_everything_and_then_what_changes_also_after_it_was_away() {
    let scene = Scene::with_set().await;
    scene
        .import_entries(vec![entry(1, "A1"), entry(2, "A1")])
        .await;
    let mut changes = watch(&scene, true, b"").await.unwrap();
    let (told, over, cursor) = until_caught_up(&mut changes).await;
    assert_eq!(told, [(Kind::Added, 1), (Kind::Added, 2)]);
    assert!(over);
    let consumer = acknowledge(&scene, cursor.clone()).await.unwrap();
    assert_eq!((consumer.behind, consumer.in_snapshot), (0, false));

    // A change comes by itself; a new version replaces the old one, not before it.
    scene.import_entries(vec![entry(1, "A2")]).await;
    let (told, _, _) = until_caught_up(&mut changes).await;
    assert_eq!(told, [(Kind::Added, 3), (Kind::Withdrawn, 1)]);
    drop(changes);

    // What was not acknowledged comes again.
    let mut changes = watch(&scene, false, b"").await.unwrap();
    let (told, over, _) = until_caught_up(&mut changes).await;
    assert_eq!(told, [(Kind::Added, 3), (Kind::Withdrawn, 1)]);
    assert!(!over);
    let mut changes = watch(&scene, false, &cursor).await.unwrap();
    assert_eq!(until_caught_up(&mut changes).await.0, told);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_is_the_entry_as_it_counts() {
    let scene = Scene::with_set().await;
    scene.import_entries(vec![entry(1, "A1")]).await;
    let mut changes = watch(&scene, true, b"").await.unwrap();
    let message = changes.message().await.unwrap().unwrap();
    assert!(message.in_snapshot);
    let change = &message.changes[0];
    let told = change.entry.as_ref().unwrap();
    assert_eq!(told.entry, "north/confirmed#1");
    assert_eq!((told.state.as_str(), change.may_share), ("active", true));
    assert_eq!(told.body.as_ref().unwrap().signals, [md5(1)]);
    assert_eq!(change.feed_id.len(), 32);
}

#[tokio::test(flavor = "multi_thread")]
async fn cursors_of_nothing_and_consumers_that_are_not_there_are_told_what_to_do() {
    let scene = Scene::with_set().await;
    let unknown = watch(&scene, false, b"").await.unwrap_err();
    assert_eq!(
        (unknown.code(), code(&unknown)),
        (Code::NotFound, "not_found")
    );
    drop(watch(&scene, true, b"").await.unwrap());
    let wrong = watch(&scene, false, b"nonsense").await.unwrap_err();
    assert_eq!(
        (wrong.code(), code(&wrong)),
        (Code::InvalidArgument, "cursor_invalid")
    );
    // Well made, and of another node.
    let mut other = vec![1; 9];
    other.extend([9; 8]);
    other.extend([0; 13]);
    let mut changes = watch(&scene, false, &other).await.unwrap();
    let lost = changes.message().await.unwrap_err();
    assert_eq!(
        (lost.code(), code(&lost)),
        (Code::OutOfRange, "cursor_other_history")
    );
    let refused = acknowledge(&scene, other.into()).await.unwrap_err();
    assert_eq!(code(&refused), "cursor_other_history");

    let mut client = scene.client.clone();
    let request = || wire::RemoveConsumerRequest {
        consumer: "matcher".to_owned(),
    };
    client.remove_consumer(request()).await.unwrap();
    let gone = client.remove_consumer(request()).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
    let left = client.list_consumers(wire::ListConsumersRequest {}).await;
    assert!(left.unwrap().into_inner().consumers.is_empty());
}
