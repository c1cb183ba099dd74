//! Dials the nodes on the newest cards and keeps one watch with each.
//!
//! One task per node, begun and ended as cards and access change. A connection
//! lives as long as its watch; the next one is dialled with exponential back-off
//! and full jitter. Connections of either direction end at once when their member
//! may not be spoken to any more, or their key has left the card.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use hashpact_core::card::{CardState, Endpoint, EndpointPolicy};
use hashpact_core::id::{MemberNumber, Slug, UnixMillis};
use hashpact_core::limits::CLOCK_SKEW_MS;
use hashpact_core::puller::Waits;
use hashpact_core::reject::Rejection;
use hashpact_node::Node;
use hashpact_node::hub::Change;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::announce::outgoing;
use super::directory::Snapshots;
use super::documents_in;
use super::inbox::Inbox;
use super::inside::Inside;
use super::links::{Cut, Down, Leaving};
use super::rejections::Rejections;
use super::serve::node_info;
use super::targets::{Target, greeted, may_stand, targets};
use super::view::{Board, PeerKey};
use super::waits::{pause, wait};
use crate::accept::Entrance;
use crate::client::{Dialler, Peer};
use crate::connections::{Connections, Direction};
use crate::error::NetError;
use crate::peer::Expected;
use crate::service::ServiceError;
use crate::stream::PeerStream;
use crate::tls::CallingSide;

/// Time alone changes who may be dialled: cards expire, suspensions end.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// Addresses tried of one name.
const ADDRESSES_MAX: usize = 4;

/// A node to ask for the roster before its card is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bootstrap {
    /// The member that is meant; a node of any other is not gone on with. `None` asks
    /// whoever answers.
    pub member: Option<Slug>,
    /// Where its node listens, `host:port`.
    pub endpoint: String,
}

/// What all dial tasks share.
pub(crate) struct Dialling {
    pub(crate) node: Arc<Node>,
    pub(crate) dialler: Dialler,
    pub(crate) connections: Arc<Connections>,
    pub(crate) snapshots: Arc<Snapshots>,
    pub(crate) inbox: Inbox,
    pub(crate) driver: mpsc::Sender<Inside>,
    pub(crate) board: Arc<Board>,
    pub(crate) rejections: Arc<Rejections>,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
    pub(crate) policy: EndpointPolicy,
    pub(crate) waits: Waits,
    /// Names are resolved by the proxy, if there is one.
    pub(crate) proxied: bool,
    pub(crate) bootstrap: Vec<Bootstrap>,
    /// Where connections go on which peers call this node, where they cannot dial it.
    pub(crate) reverse: Option<Entrance>,
}

struct Running {
    target: Target,
    stop: CancellationToken,
}

impl Dialling {
    /// Keeps the tasks in line with cards and access until told to stop.
    pub(crate) async fn supervise(self: Arc<Self>) {
        for bootstrap in self.bootstrap.clone() {
            let dialling = Arc::clone(&self);
            self.tasks
                .spawn(async move { dialling.bootstrap(bootstrap).await });
        }
        let mut changes = self.node.hub().watch();
        let mut running = BTreeMap::new();
        loop {
            self.align(&mut running);
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = relevant(&mut changes) => {}
                () = tokio::time::sleep(self.until_next_look()) => {}
            }
        }
    }

    /// Begins tasks for new targets, ends those of others, and cuts connections
    /// that may not stand.
    fn align(self: &Arc<Self>, running: &mut BTreeMap<PeerKey, Running>) {
        let (targets, rows) = targets(&self.node, &self.snapshots);
        self.board.plan(rows);
        running.retain(|key, task| {
            let stays = targets.get(key) == Some(&task.target);
            if !stays {
                task.stop.cancel();
            }
            stays
        });
        self.connections
            .cut(|c| !may_stand(&self.node, &self.snapshots, &c.peer));
        for (key, target) in targets {
            running.entry(key).or_insert_with(|| {
                let stop = self.stop.child_token();
                let dialling = Arc::clone(self);
                let (task, ended) = (target.clone(), stop.clone());
                self.tasks
                    .spawn(async move { dialling.keep(task, ended).await });
                if let Some(entrance) = self.reverse.clone() {
                    let (dialling, task, ended) = (Arc::clone(self), target.clone(), stop.clone());
                    self.tasks
                        .spawn(async move { dialling.keep_reverse(task, entrance, ended).await });
                }
                Running { target, stop }
            });
        }
    }

    fn until_next_look(&self) -> Duration {
        let until = self.snapshots.newest().and_then(|s| s.valid_until());
        let now = self.node.clock().now();
        let left = until.map_or(LOOK_AGAIN, |until| Duration::from_millis(until.since(now)));
        left.clamp(Duration::from_millis(100), LOOK_AGAIN)
    }

    /// Keeps a session with one node, one after the other.
    async fn keep(self: Arc<Self>, target: Target, stop: CancellationToken) {
        let mut failures = 0;
        let mut before: Option<Leaving> = None;
        loop {
            before = before.filter(|leaving| !leaving.cut.0.is_closed());
            if before.is_none() {
                self.board.peer(&target.key, |row| {
                    row.state = "connecting";
                    row.next_attempt = UnixMillis(0);
                });
            }
            let began = tokio::time::Instant::now();
            let ended = tokio::select! {
                () = stop.cancelled() => break,
                ended = self.session(&target, &stop, &mut before) => ended,
            };
            self.board.tried(&target.key);
            let ended = match ended {
                Ok(leaving) if before.is_none() => {
                    before = leaving;
                    Ok(())
                }
                other => other.map(drop),
            };
            let wait = pause(self.waits, &mut failures, began);
            self.note_end(&target, ended, wait);
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    fn note_end(&self, target: &Target, ended: Result<(), NetError>, wait: Duration) {
        let next = self.node.clock().now().plus(millis(wait));
        let error = ended.err();
        if let Some(error) = &error {
            let (member, node) = (&target.slug, &target.key.1);
            let code = error.code();
            tracing::info!(%member, %node, code, %error, wait_ms = millis(wait), "no connection");
            metrics::counter!("hashpact_dial_failures_total", "code" => code).increment(1);
        }
        let Some(error) = error else { return };
        self.board.dial_failed(&target.key, self.node.clock().now());
        self.board.peer(&target.key, |row| {
            row.state = "backing off";
            row.next_attempt = next;
            row.last_error = (error.code().to_owned(), error.to_string());
        });
    }

    /// One connection, from the dial to the end of its watch; answers it where
    /// another one is asked for in its place. `before` goes once this one stands.
    async fn session(
        &self,
        target: &Target,
        stop: &CancellationToken,
        before: &mut Option<Leaving>,
    ) -> Result<Option<Leaving>, NetError> {
        let stream = self.reach(target, CallingSide::Dialler).await?;
        let connection = stream.connection().clone();
        // However this ends, dropped in the middle as well: the connection goes.
        let cut = Cut(connection.clone());
        let peer = self.dialler.call_over(stream).await?;
        tokio::select! {
            () = stop.cancelled() => Ok(None),
            () = connection.closed() => Err(NetError::Closed("by the peer".to_owned())),
            ended = self.exchange(&target.key, &peer, before) => {
                ended.map(|down| Some(Leaving { down, cut }))
            }
        }
    }

    /// Keeps a connection that makes way open until what runs on it has ended.
    pub(super) fn let_go(&self, cut: Cut) {
        let grace = self.dialler.settings().connection_age_grace;
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = cut.0.drained() => {}
                () = tokio::time::sleep(grace) => {}
                () = stop.cancelled() => {}
            }
            drop(cut);
        });
    }

    /// Greets and watches a peer over one connection; the driver pulls over it, also
    /// after another connection was asked for, until what this answers is dropped.
    pub(super) async fn exchange(
        &self,
        key: &PeerKey,
        peer: &Peer,
        before: &mut Option<Leaving>,
    ) -> Result<Down, NetError> {
        self.greet(key, peer).await?;
        let up = Inside::LinkUp {
            peer: Box::new(peer.clone()),
        };
        // Without a driver the exchange has stopped.
        let _ = self.driver.send(up).await;
        let down = Down {
            driver: self.driver.clone(),
            peer: peer.clone(),
        };
        let (member, _) = *key;
        let mut said = outgoing(Arc::clone(&self.node), Arc::clone(&self.snapshots), member);
        if peer.connection().direction == Direction::Inbound {
            // PROTOCOL 19.7a: only the peer can dial another, so it is told so.
            let over = peer.connection().renewal_asked();
            said = Box::pin(said.take_until(over));
        }
        let heard = match peer.watch(said).await {
            Err(error) if is_inactive(&error) => {
                self.ask_roster(peer).await?;
                return Err(error);
            }
            other => other?,
        };
        self.board.tried(key);
        self.board.peer(key, |row| {
            row.state = "connected";
            row.certificate_expires = peer.connection().certificate_expires.unwrap_or_default();
            row.last_error = (String::new(), String::new());
        });
        tracing::info!(peer = %peer.identity(), "connected");
        if let Some(Leaving { down, cut }) = before.take() {
            drop(down);
            self.let_go(cut);
        }
        // On its own, so that a watch is heard to its end whatever becomes of this.
        let (inbox, identity) = (self.inbox.clone(), peer.identity().clone());
        let listening = async move { inbox.listen(&identity, heard).await };
        let mut listening = self.tasks.spawn(listening);
        tokio::select! {
            ended = &mut listening => match ended {
                Ok(Some(error)) => Err(error),
                Ok(None) | Err(_) => Ok(down),
            },
            () = peer.connection().renewal_asked() => Ok(down),
        }
    }

    /// Hello, and the roster where the peer's is newer.
    async fn greet(&self, key: &PeerKey, peer: &Peer) -> Result<(), NetError> {
        let own = node_info(&self.node);
        let info = peer.hello(&own).await?;
        let has_newer = greeted(&own, &info)?;
        let now = self.node.clock().now();
        let skew = now.since(info.clock).max(info.clock.since(now));
        if skew > CLOCK_SKEW_MS {
            tracing::warn!(peer = %peer.identity(), skew_ms = skew, "the clocks differ");
        }
        self.board.peer(key, |row| {
            row.last_seen = now;
            row.roster_version = info.roster_version;
            row.software.clone_from(&info.software);
        });
        if has_newer {
            self.ask_roster(peer).await?;
        }
        Ok(())
    }

    /// Takes in what the peer knows of rosters after ours, of cards and suspensions.
    /// A member that is suspended learns of it so, and by no watch.
    async fn ask_roster(&self, peer: &Peer) -> Result<(), NetError> {
        let after = node_info(&self.node).roster_version.saturating_add(1);
        let documents = peer.roster(after).await?;
        let name = peer.identity().to_string();
        documents_in::take_in(&self.node, &self.rejections, &name, documents).await
    }

    /// Tries the node's endpoints in order, and each of their addresses.
    pub(super) async fn reach(
        &self,
        target: &Target,
        caller: CallingSide,
    ) -> Result<PeerStream, NetError> {
        let (member, node) = target.key.clone();
        let expected = Expected::Node(member, node);
        let mut last = NetError::Endpoint("no address that may be dialled".to_owned());
        for endpoint in &target.endpoints {
            let addresses = match self.addresses(endpoint).await {
                Ok(addresses) => addresses,
                Err(error) => {
                    last = error;
                    continue;
                }
            };
            for address in addresses {
                let opened = self.dialler.open(&address, expected.clone(), caller);
                match opened.await {
                    Ok(stream) => return Ok(stream),
                    Err(error) => last = error,
                }
            }
        }
        Err(last)
    }

    /// What to dial for an endpoint. ⚠ A name can point anywhere: the policy is
    /// asked for each address that it resolves to.
    async fn addresses(&self, endpoint: &Endpoint) -> Result<Vec<String>, NetError> {
        let text = endpoint.to_string();
        if self.policy.check(endpoint).is_err() {
            return Err(NetError::Endpoint(text));
        }
        if self.proxied {
            return Ok(vec![text]);
        }
        let resolved = tokio::net::lookup_host(text.clone())
            .await
            .map_err(NetError::Connect)?;
        let allowed = self.allowed(resolved);
        if allowed.is_empty() {
            return Err(NetError::Endpoint(text));
        }
        Ok(allowed)
    }

    fn allowed(&self, resolved: impl Iterator<Item = SocketAddr>) -> Vec<String> {
        let allowed = resolved.filter(|address| self.policy.allows_address(address.ip()));
        let addresses = allowed.take(ADDRESSES_MAX);
        addresses.map(|address| address.to_string()).collect()
    }

    /// Asks a configured peer for the roster until its member's card is known. ⚠ Who
    /// answers is a stranger: it is asked for nothing but the roster, which is
    /// verified from the genesis digest.
    async fn bootstrap(self: Arc<Self>, bootstrap: Bootstrap) {
        let mut failures = 0;
        while !self.knows(bootstrap.member.as_ref()) {
            let wait = tokio::select! {
                () = self.stop.cancelled() => return,
                asked = self.ask_stranger(&bootstrap) => match asked {
                    Ok(()) => return,
                    Err(error) => {
                        let code = error.code();
                        tracing::info!(endpoint = bootstrap.endpoint, code, %error, "no roster yet");
                        failures += 1;
                        wait(self.waits, failures)
                    }
                },
            };
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    async fn ask_stranger(&self, bootstrap: &Bootstrap) -> Result<(), NetError> {
        let stranger = self.dialler.dial_stranger(&bootstrap.endpoint).await?;
        let from = node_info(&self.node).roster_version.saturating_add(1);
        let documents = stranger.roster(from).await?;
        let name = &bootstrap.endpoint;
        documents_in::take_in(&self.node, &self.rejections, name, documents).await?;
        let Some(meant) = &bootstrap.member else {
            // Nobody is meant: what was given is verified, and says whom to dial.
            return self.knows(None).then_some(()).ok_or_else(nobody_known);
        };
        let Some(member) = self.number_of(meant) else {
            return Err(Rejection::Unknown {
                what: "bootstrap member",
                why: format!("{meant} is not in the roster"),
            }
            .into());
        };
        // The key that was met must be on the card of the member that was meant; the
        // connection itself is not kept: the card says where to dial.
        stranger.pin(&Expected::Member(member)).map(drop)
    }

    fn number_of(&self, slug: &Slug) -> Option<MemberNumber> {
        let state = self.node.membership().state();
        let roster = state.chain.as_ref()?.roster();
        roster.member_by_slug(slug).map(|member| member.number)
    }

    /// Whether the member's card is here, or where none is meant any other member's.
    fn knows(&self, meant: Option<&Slug>) -> bool {
        let state = self.node.membership().state();
        let Some(chain) = state.chain.as_ref() else {
            return false;
        };
        let roster = chain.roster();
        let now = self.node.clock().now();
        let own = self.node.membership().slug();
        let is_meant = |slug: &Slug| meant.map_or(slug != own, |meant| slug == meant);
        let mut meant = roster
            .members
            .iter()
            .filter(|member| is_meant(&member.slug));
        meant.any(|member| {
            let newest = state.cards.newest(member.number);
            newest.is_some_and(|card| card.state(roster, now) == CardState::Current)
        })
    }
}

fn nobody_known() -> NetError {
    let why = "the roster that was given names nobody to dial".to_owned();
    Rejection::Unknown {
        what: "roster",
        why,
    }
    .into()
}

/// Waits for a change of who may be dialled, and where.
async fn relevant(changes: &mut broadcast::Receiver<Change>) {
    loop {
        match changes.recv().await {
            Ok(
                Change::Head(_)
                | Change::Evidence(_)
                | Change::Equivocation
                | Change::Receipt(_)
                | Change::Overdue
                | Change::Cosigned(..)
                | Change::RosterWord,
            ) => {}
            Ok(Change::Roster | Change::Card(_) | Change::Suspension | Change::Access)
            | Err(RecvError::Lagged(_)) => return,
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// Whether a peer refused because this node's member is not active there.
fn is_inactive(error: &NetError) -> bool {
    let code = ServiceError::NotActive.code();
    matches!(error, NetError::Peer(refusal) if refusal.code == code)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
