//! The connections that stand, in either direction, and the switch of each.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hashpact_core::id::{Digest, UnixMillis};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::error::NetError;
use crate::io::Traffic;
use crate::peer::PeerIdentity;
use crate::tls::CallingSide;

/// Between looks at whether a connection's pulls have ended.
const DRAIN_LOOK: Duration = Duration::from_millis(50);
/// Before the first look: a pull that is about to begin takes no longer.
const DRAIN_BEGINS: Duration = Duration::from_secs(1);

/// Who dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The peer did.
    Inbound,
    /// We did.
    Outbound,
}

impl Direction {
    /// The label in metrics and tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

/// One connection, as everything that serves it sees it.
#[derive(Debug, Clone)]
pub struct Connection {
    /// Unique in this process.
    pub id: u64,
    /// Who dialled.
    pub direction: Direction,
    /// Which side calls.
    pub caller: CallingSide,
    /// Who is at the other end, as decided in the handshake.
    pub peer: PeerIdentity,
    /// The TLS key that this node proved to hold.
    pub own_key: Digest,
    /// When the peer's certificate runs out, by what it says: shown, and no more.
    pub certificate_expires: Option<UnixMillis>,
    /// From or to where.
    pub address: SocketAddr,
    traffic: Arc<Traffic>,
    cut: CancellationToken,
    gone: CancellationToken,
    renewal: CancellationToken,
    watching: Arc<AtomicBool>,
    pulls: Arc<AtomicUsize>,
}

impl Connection {
    /// Bytes that went over it.
    #[must_use]
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// Whether this node answers the calls on it.
    #[must_use]
    pub const fn is_served(&self) -> bool {
        match (self.direction, self.caller) {
            (Direction::Inbound, CallingSide::Dialler)
            | (Direction::Outbound, CallingSide::Dialled) => true,
            (Direction::Inbound, CallingSide::Dialled)
            | (Direction::Outbound, CallingSide::Dialler) => false,
        }
    }

    /// Closes the connection at once, with all its streams.
    pub fn cut(&self) {
        self.cut.cancel();
    }

    /// Asks for another connection in this one's place. What runs on it goes on;
    /// watches end, which asks a peer that dialled to dial again.
    pub fn ask_renewal(&self) {
        self.renewal.cancel();
    }

    /// Waits until another connection is asked for.
    pub(crate) fn renewal_asked(&self) -> WaitForCancellationFutureOwned {
        self.renewal.clone().cancelled_owned()
    }

    /// Counts a pull that runs over the connection, in either direction.
    pub(crate) fn begin_pull(&self) -> PullCount {
        self.pulls.fetch_add(1, Ordering::AcqRel);
        PullCount(self.pulls.clone())
    }

    /// Waits until no pull runs, or the connection is closed.
    pub(crate) async fn drained(&self) {
        tokio::time::sleep(DRAIN_BEGINS).await;
        while self.pulls.load(Ordering::Acquire) > 0 && !self.is_closed() {
            tokio::time::sleep(DRAIN_LOOK).await;
        }
    }

    /// Waits until the connection is closed, by whomever.
    pub async fn closed(&self) {
        self.gone.cancelled().await;
    }

    /// Tells whether the connection is closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.gone.is_cancelled()
    }

    /// Takes the one watch that a connection may have, if it is free.
    pub(crate) fn begin_watch(&self) -> Option<WatchSlot> {
        let free = !self.watching.swap(true, Ordering::AcqRel);
        free.then(|| WatchSlot(self.watching.clone()))
    }
}

/// The connection's one watch; given back when dropped.
#[derive(Debug)]
pub(crate) struct WatchSlot(Arc<AtomicBool>);

impl Drop for WatchSlot {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// A pull over a connection; counted until dropped.
#[derive(Debug)]
pub(crate) struct PullCount(Arc<AtomicUsize>);

impl Drop for PullCount {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// All connections of this node. Share one between the server and the dialler, so
/// that a cut reaches both directions.
#[derive(Debug, Default)]
pub struct Connections {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next_id: u64,
    open: BTreeMap<u64, Connection>,
}

impl Connections {
    /// Makes an empty list.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Adds a connection, unless `limit` connections of that direction and that calling
    /// side with the same member stand already. It leaves the list when the guard is dropped.
    pub(crate) fn add(
        self: &Arc<Self>,
        new: NewConnection,
        limit: usize,
    ) -> Result<Listed, NetError> {
        let mut state = self.state();
        let same = |open: &&Connection| {
            open.peer.member == new.peer.member
                && open.direction == new.direction
                && open.caller == new.caller
        };
        if state.open.values().filter(same).count() >= limit {
            return Err(NetError::TooManyConnections(limit));
        }
        state.next_id += 1;
        let connection = Connection {
            id: state.next_id,
            direction: new.direction,
            caller: new.caller,
            peer: new.peer,
            own_key: new.own_key,
            certificate_expires: new.certificate_expires,
            address: new.address,
            traffic: new.traffic,
            cut: new.cut,
            gone: CancellationToken::new(),
            renewal: CancellationToken::new(),
            watching: Arc::default(),
            pulls: Arc::default(),
        };
        state.open.insert(connection.id, connection.clone());
        drop(state);
        gauge(connection.direction).increment(1);
        Ok(Listed {
            list: self.clone(),
            connection,
        })
    }

    /// Cuts every connection that `which` names, and says how many.
    pub fn cut(&self, which: impl Fn(&Connection) -> bool) -> usize {
        let state = self.state();
        let chosen = state.open.values().filter(|open| which(open));
        chosen.map(Connection::cut).count()
    }

    /// Asks for others in place of the connections that `which` names.
    pub fn renew(&self, which: impl Fn(&Connection) -> bool) -> usize {
        let state = self.state();
        let chosen = state.open.values().filter(|open| which(open));
        chosen.map(Connection::ask_renewal).count()
    }

    /// The connections that stand.
    pub fn open(&self) -> Vec<Connection> {
        self.state().open.values().cloned().collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn gauge(direction: Direction) -> metrics::Gauge {
    metrics::gauge!("hashpact_connections", "direction" => direction.name())
}

/// What a connection is listed with.
#[derive(Debug)]
pub(crate) struct NewConnection {
    pub(crate) direction: Direction,
    pub(crate) caller: CallingSide,
    pub(crate) peer: PeerIdentity,
    pub(crate) own_key: Digest,
    pub(crate) certificate_expires: Option<UnixMillis>,
    pub(crate) address: SocketAddr,
    pub(crate) traffic: Arc<Traffic>,
    pub(crate) cut: CancellationToken,
}

/// Keeps a connection listed; lies with its stream.
pub(crate) struct Listed {
    list: Arc<Connections>,
    connection: Connection,
}

impl Listed {
    pub(crate) const fn connection(&self) -> &Connection {
        &self.connection
    }
}

impl fmt::Debug for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.connection.fmt(f)
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.connection.gone.cancel();
        self.list.state().open.remove(&self.connection.id);
        gauge(self.connection.direction).decrement(1);
    }
}
