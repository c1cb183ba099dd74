//! The service behind real TLS: who calls, the roster, hello, a watch both ways.

use futures_util::stream;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::exchange::directory::Directory;
use crate::exchange::inbox::{Heard, Inbox, Said};
use crate::exchange::serve::{NodeService, node_info};
use crate::types::RosterItem;
use crate::{
    Connections, Dialler, Expected, Identity, NetError, Peer, PeerDirectory as _, PeerStatus,
    Settings, serve,
};

/// A node that serves, and what it hears.
struct Served {
    node: Arc<Node>,
    address: String,
    heard: tokio::sync::mpsc::Receiver<Heard>,
    stop: CancellationToken,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn identity(coalition: &Coalition, member: u32, node: &Node) -> Identity {
    Identity {
        credentials: coalition.credentials[usize::try_from(member).unwrap() - 1].clone(),
        directory: Directory::of(node),
        connections: Connections::new(),
        settings: Settings::default(),
    }
}

async fn served(coalition: &Coalition) -> Served {
    let node = coalition.open(NORTH);
    let (inbox, heard) = Inbox::new();
    let service = NodeService::new(
        Arc::clone(&node),
        inbox,
        crate::exchange::bulk::Bulk::start().unwrap(),
        tokio_util::sync::CancellationToken::new(),
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let stop = CancellationToken::new();
    let grace = Duration::from_millis(100);
    let identity = identity(coalition, NORTH, &node);
    tokio::spawn(serve(listener, identity, service, stop.clone(), grace));
    Served {
        node,
        address,
        heard,
        stop,
    }
}

async fn dial(coalition: &Coalition, member: u32, node: &Node, served: &Served) -> Peer {
    let dialler = Dialler::new(identity(coalition, member, node), Arc::new(|| NOW));
    let expected = Expected::Member(number(NORTH));
    dialler.dial(&served.address, expected).await.unwrap()
}

async fn roster_of(peer: &Peer, from: u64) -> Vec<RosterItem> {
    let mut items = peer.roster(from).await.unwrap();
    let mut got = Vec::new();
    while let Some(item) = items.next().await {
        got.push(item.unwrap());
    }
    got
}

fn kinds(items: &[RosterItem]) -> String {
    let kind = |item: &RosterItem| match item {
        RosterItem::Roster(_) => 'r',
        RosterItem::NodeCard(_) => 'c',
        RosterItem::Suspension(_) => 's',
    };
    items.iter().map(kind).collect()
}

fn refusal<T: std::fmt::Debug>(result: Result<T, NetError>) -> String {
    format!("{:?}", result.unwrap_err())
}

#[tokio::test]
async fn a_refused_pull_is_the_same_on_the_wire_whatever_the_reason() {
    let coalition = Coalition::new();
    let served = served(&coalition).await;
    let south = coalition.open(SOUTH);
    let private = create_set(&served.node, "private", &[]);
    let peer = dial(&coalition, SOUTH, &south, &served).await;
    let ungranted = all_of(&served.node, &private);
    let unknown = PullRequest {
        feed: FeedId(Digest::of(b"no such feed")),
        ..ungranted
    };
    let get = async |request| refusal(peer.pull(&request).await.map(|_| ()));
    assert_eq!(get(ungranted).await, get(unknown).await);
}

#[tokio::test]
async fn a_watch_goes_both_ways_and_its_end_is_heard() {
    let coalition = Coalition::new();
    let mut served = served(&coalition).await;
    let south = coalition.open(SOUTH);
    let feed = create_set(&served.node, "set", &[("south", false)]);
    let peer = dial(&coalition, SOUTH, &south, &served).await;
    let said = stream::iter([Announcement::SnapshotEnd]).chain(stream::pending());
    let mut heard = peer.watch(Box::pin(said)).await.unwrap();
    let mut feeds = Vec::new();
    loop {
        let item = heard.next().await.unwrap().unwrap();
        if item == Announcement::SnapshotEnd {
            break;
        }
        if let Announcement::Head(told) = item {
            feeds.push(told.feed);
        }
    }
    assert_eq!(feeds, [feed]);
    drop(heard);
    let mut told = Vec::new();
    while let Some(Heard { peer, said, .. }) = served.heard.recv().await {
        assert_eq!(peer.member, number(SOUTH));
        let ended = matches!(said, Said::Ended);
        told.push(said);
        if ended {
            break;
        }
    }
    assert!(matches!(told[0], Said::Began));
    assert!(matches!(
        told[1],
        Said::Announced(Announcement::SnapshotEnd)
    ));
}

#[tokio::test]
async fn hello_says_the_roster_and_refuses_another_coalition() {
    let coalition = Coalition::new();
    let served = served(&coalition).await;
    let south = coalition.open(SOUTH);
    let peer = dial(&coalition, SOUTH, &south, &served).await;
    let answer = peer.hello(&node_info(&south)).await.unwrap();
    assert_eq!(answer.roster_version, 2);
    let stranger = crate::types::NodeInfo {
        genesis: Digest::of(b"another coalition"),
        ..node_info(&south)
    };
    assert!(refusal(peer.hello(&stranger).await).contains("wrong_genesis"));
    let future = crate::types::NodeInfo {
        protocol_versions: vec![99],
        ..node_info(&south)
    };
    assert!(peer.hello(&future).await.is_err());
}

#[tokio::test]
async fn the_roster_is_chain_then_cards_then_suspensions_also_for_who_is_suspended() {
    let coalition = Coalition::new();
    let served = served(&coalition).await;
    let south = coalition.open(SOUTH);
    let peer = dial(&coalition, SOUTH, &south, &served).await;
    assert_eq!(kinds(&roster_of(&peer, 1).await), "rrcccc");
    assert_eq!(kinds(&roster_of(&peer, 2).await), "rcccc");
    suspend(&served.node, SOUTH);
    assert_eq!(kinds(&roster_of(&peer, 3).await), "ccccs");
    let watch = peer.watch(Box::pin(stream::pending())).await;
    assert!(refusal(watch.map(|_| ())).contains("not_active"));
}

#[tokio::test]
async fn a_removed_member_reads_the_roster_up_to_its_removal() {
    let coalition = Coalition::new();
    let served = served(&coalition).await;
    let south = coalition.open(SOUTH);
    coalition.clock.set(NOW.plus(DAY_MS));
    set_status(&served.node, SOUTH, MemberStatus::Removed);
    set_status(&served.node, WEST, MemberStatus::Suspended);
    suspend(&served.node, WITNESS);
    let peer = dial(&coalition, SOUTH, &south, &served).await;
    assert_eq!(kinds(&roster_of(&peer, 1).await), "rrrcccc");
}

#[tokio::test]
async fn the_directory_knows_one_node_per_key_and_how_its_member_stands() {
    let coalition = Coalition::new();
    let node = coalition.open_with(NORTH, &[WEST]);
    let directory = Directory::of(&node);
    let status = |member: u32| {
        let credentials = &coalition.credentials[usize::try_from(member).unwrap() - 1];
        let peer = directory
            .peer_of(&credentials.key_digest().unwrap())
            .unwrap();
        assert_eq!(peer.member, number(member));
        assert_eq!(peer.to_string(), format!("{}/n1", peer.slug));
        peer.status
    };
    assert_eq!(status(SOUTH), PeerStatus::Active);
    assert_eq!(status(WEST), PeerStatus::Suspended, "denied here");
    suspend(&node, SOUTH);
    assert_eq!(status(SOUTH), PeerStatus::Suspended);
    // A suspension that ends by itself needs nobody to say so.
    coalition.clock.set(NOW.plus(2 * DAY_MS));
    assert_eq!(status(SOUTH), PeerStatus::Active);
    set_status(&node, SOUTH, MemberStatus::Removed);
    assert_eq!(status(SOUTH), PeerStatus::Removed);
    assert_eq!(directory.peer_of(&Digest::of(b"no key")), None);
}
