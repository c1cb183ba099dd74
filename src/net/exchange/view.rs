//! How the exchange stands, as `status`, `peers`, `feeds` and metrics show it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hashpact_core::id::{FeedId, MemberNumber, Slug, UnixMillis};
use hashpact_node::ExchangeView;
use hashpact_node::model::{FeedPull, PeerLag, PeerView};
use hashpact_node::publish::{AskedPeer, Contact};

/// Names a node of the coalition.
pub(crate) type PeerKey = (MemberNumber, Slug);

/// The board that the dial tasks and the driver write on.
#[derive(Debug, Default)]
pub(crate) struct Board {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    peers: BTreeMap<PeerKey, PeerView>,
    /// Dialled at least once, with whatever outcome.
    tried: BTreeSet<PeerKey>,
    /// When the last dial of a peer failed that is not connected.
    failed: BTreeMap<PeerKey, UnixMillis>,
    feeds: HashMap<FeedId, FeedPull>,
    /// How far connected peers are ahead.
    lags: Vec<PeerLag>,
    /// The set of peers to dial is known.
    planned: bool,
    /// Pulls of leaves that were asked for.
    pulls: u64,
    /// Pulls that failed, whosever fault it was.
    failed_pulls: u64,
    /// How often the driver looked at what only time changes.
    looks: u64,
}

impl Board {
    /// Puts peers up that are not on the board, and takes down all others.
    pub(crate) fn plan(&self, peers: Vec<PeerView>) {
        let mut state = self.state();
        let keys: BTreeSet<PeerKey> = peers.iter().map(key).collect();
        state.peers.retain(|key, _| keys.contains(key));
        state.tried.retain(|key| keys.contains(key));
        state.failed.retain(|key, _| keys.contains(key));
        for peer in peers {
            let row = state
                .peers
                .entry(key(&peer))
                .or_insert_with(|| peer.clone());
            row.endpoints = peer.endpoints;
            // A node that cannot be dialled may have dialled to be called.
            let called = peer.state == "no endpoint" && row.state == "connected";
            let given = matches!(peer.state, "no endpoint" | "not active");
            if (given && !called) || row.state == "not active" {
                row.state = peer.state;
            }
        }
        state.planned = true;
    }

    /// Changes a peer's row, if it is on the board.
    pub(crate) fn peer(&self, key: &PeerKey, change: impl FnOnce(&mut PeerView)) {
        if let Some(row) = self.state().peers.get_mut(key) {
            change(row);
        }
    }

    /// Notes that a peer was dialled.
    pub(crate) fn tried(&self, key: &PeerKey) {
        self.state().tried.insert(key.clone());
    }

    /// Notes that dialling a peer failed.
    pub(crate) fn dial_failed(&self, key: &PeerKey, now: UnixMillis) {
        self.state().failed.insert(key.clone(), now);
    }

    /// Every node that may be asked for heads, and how; `None` while the peers are not
    /// known.
    pub(crate) fn asked(&self) -> Option<Vec<AskedPeer>> {
        let state = self.state();
        let may = state.peers.values().filter(|row| row.state != "not active");
        let asked = may.map(|row| {
            let key = key(row);
            let contact = match (row.state, state.failed.get(&key)) {
                ("no endpoint", _) => Contact::Dials,
                ("connected", _) | (_, None) => Contact::Awaited,
                (_, Some(at)) => Contact::Failed(*at),
            };
            let name = format!("{}/{}", row.slug, row.node);
            AskedPeer { key, name, contact }
        });
        let asked = asked.collect();
        state.planned.then_some(asked)
    }

    /// Whether every peer that can be dialled was.
    pub(crate) fn all_tried(&self) -> bool {
        let state = self.state();
        let dialled = |(_, row): &(&PeerKey, &PeerView)| {
            row.state != "no endpoint" && row.state != "not active"
        };
        let mut rows = state.peers.iter().filter(dialled);
        state.planned && rows.all(|(key, _)| state.tried.contains(key))
    }

    /// Whether no feed is behind a head that was heard of.
    pub(crate) fn caught_up(&self) -> bool {
        let state = self.state();
        let mut feeds = state.feeds.values();
        feeds.all(|feed| matches!(feed.state, "caught up" | "frozen"))
    }

    /// Notes when a peer said something.
    pub(crate) fn heard(&self, key: &PeerKey, now: UnixMillis) {
        self.peer(key, |row| row.last_seen = now);
    }

    /// Counts a pull that is asked for.
    pub(crate) fn pull_asked(&self) {
        let mut state = self.state();
        state.pulls = state.pulls.saturating_add(1);
    }

    /// How many pulls were asked for.
    #[cfg(test)]
    pub(crate) fn pulls(&self) -> u64 {
        self.state().pulls
    }

    /// Counts a pull that failed.
    pub(crate) fn pull_failed(&self) {
        let mut state = self.state();
        state.failed_pulls = state.failed_pulls.saturating_add(1);
    }

    /// How many pulls failed.
    #[cfg(test)]
    pub(crate) fn failed_pulls(&self) -> u64 {
        self.state().failed_pulls
    }

    /// Counts a look at what only time changes.
    pub(crate) fn looked(&self) {
        let mut state = self.state();
        state.looks = state.looks.saturating_add(1);
    }

    /// How often that was looked at.
    #[cfg(test)]
    pub(crate) fn looks(&self) -> u64 {
        self.state().looks
    }

    /// Changes a feed's row, making it if there is none.
    pub(crate) fn feed(&self, feed: FeedId, change: impl FnOnce(&mut FeedPull)) {
        change(self.state().feeds.entry(feed).or_default());
    }

    /// Writes how far connected peers are ahead, all of them.
    pub(crate) fn show_lags(&self, lags: Vec<PeerLag>) {
        self.state().lags = lags;
    }

    /// Takes feeds off the board that `keep` does not name.
    pub(crate) fn keep_feeds(&self, keep: impl Fn(&FeedId) -> bool) {
        self.state().feeds.retain(|feed, _| keep(feed));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(peer: &PeerView) -> PeerKey {
    (peer.member, peer.node.clone())
}

impl ExchangeView for Board {
    fn peers(&self) -> Vec<PeerView> {
        self.state().peers.values().cloned().collect()
    }

    fn feed(&self, feed: &FeedId) -> Option<FeedPull> {
        self.state().feeds.get(feed).cloned()
    }

    fn lags(&self) -> Vec<PeerLag> {
        self.state().lags.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(number: u32, state: &'static str) -> PeerView {
        PeerView {
            member: MemberNumber::new(number).unwrap(),
            slug: Slug::parse("north").unwrap(),
            node: Slug::parse("n1").unwrap(),
            endpoints: Vec::new(),
            state,
            last_seen: UnixMillis(0),
            next_attempt: UnixMillis(0),
            last_error: (String::new(), String::new()),
            roster_version: 0,
            software: String::new(),
            certificate_expires: UnixMillis(0),
            overdue_receipts: Vec::new(),
        }
    }

    #[test]
    fn peers_without_an_endpoint_need_not_be_tried() {
        let board = Board::default();
        assert!(!board.all_tried(), "nothing was planned yet");
        board.plan(vec![row(1, "connecting"), row(2, "no endpoint")]);
        assert!(!board.all_tried());
        board.tried(&key(&row(1, "")));
        assert!(board.all_tried());
    }

    #[test]
    fn a_peer_is_awaited_until_its_dial_fails_and_while_it_is_connected() {
        let board = Board::default();
        assert_eq!(board.asked(), None, "nothing was planned yet");
        let rows = ["connecting", "no endpoint", "not active"];
        board.plan((1..).zip(rows).map(|(n, state)| row(n, state)).collect());
        let contacts = || -> Vec<Contact> {
            let asked = board.asked().unwrap();
            asked.iter().map(|peer| peer.contact).collect()
        };
        assert_eq!(contacts(), [Contact::Awaited, Contact::Dials]);
        let first = key(&row(1, ""));
        board.dial_failed(&first, UnixMillis(9));
        let failed = Contact::Failed(UnixMillis(9));
        assert_eq!(contacts(), [failed, Contact::Dials]);
        board.peer(&first, |row| row.state = "connected");
        assert_eq!(contacts(), [Contact::Awaited, Contact::Dials]);
    }

    #[test]
    fn a_plan_keeps_the_rows_of_peers_that_stay() {
        let board = Board::default();
        board.plan(vec![row(1, "connecting"), row(2, "connecting")]);
        board.peer(&key(&row(1, "")), |row| row.state = "connected");
        board.plan(vec![row(1, "connecting")]);
        let states: Vec<_> = board.peers().iter().map(|row| row.state).collect();
        assert_eq!(states, ["connected"]);
    }
}
