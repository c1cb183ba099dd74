//! `hashpact run`: runs the node until it is told to stop.

use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use hashpact_api::http::Pages;
use hashpact_api::socket::Socket;
use hashpact_api::{About, NodeService};
use hashpact_core::id::Digest;
use hashpact_core::leaf::audit::{Act, Actor, ActorRole, OK};
use hashpact_net::NetError;
use hashpact_net::exchange::Exchange;
use hashpact_node::Node;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Context;
use super::client::SOFTWARE;
use super::counters;
use super::doors::Doors;
use super::error::CliError;
use super::keys::{EVERY, Keeper};
use super::logging;
use super::open::{credentials, exchange_options, open_node, open_witness};
use super::policy::keep::PolicyKeeper;
use crate::config::Config;

/// How often what was measured is put into its histograms.
const UPKEEP: Duration = Duration::from_secs(5);
/// The buckets of how long a look-up or a match takes: from one signal in memory to
/// 10,000 behind a full queue.
const ASK_SECONDS: [f64; 12] = [
    0.000_1, 0.000_3, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0,
];
/// What threads that wait for the disk may take after the grace.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// Run the node until SIGTERM or SIGINT
///
/// Logs go to standard error, as the configuration says. On SIGTERM the node
/// takes no new work, ends what is under way within the grace time of the
/// configuration (20 s by default), and exits with 0. A second signal ends it at
/// once. SIGHUP reads the TLS certificate and its key, and the policy, again.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Stop as on SIGTERM when standard input ends
    #[arg(long, hide = true)]
    pub until_stdin_closes: bool,
}

/// Runs the command.
///
/// # Errors
/// When the configuration is wrong, or the node cannot start.
pub fn run(args: RunArgs, context: &Context) -> Result<(), CliError> {
    run_as(args.until_stdin_closes, context, Kind::Whole)
}

/// What a node is run for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// All that its member does.
    Whole,
    /// Witnessing alone.
    Witness,
}

/// Runs a node of either kind.
///
/// # Errors
/// As [`run`].
pub(super) fn run_as(
    until_stdin_closes: bool,
    context: &Context,
    kind: Kind,
) -> Result<(), CliError> {
    let config = context.config()?;
    if kind == Kind::Witness {
        super::witness::check(&config)?;
    }
    logging::start(config.log.format, &config.log.level)?;
    let metrics = record_metrics()?;
    let runtime = Runtime::new().map_err(CliError::failed)?;
    // Which configuration counts is an administrator's act, too.
    let digest = std::fs::read(&context.config_path).map(|text| Digest::of(&text));
    let digest = digest.map_err(CliError::failed)?;
    // Drafts of cards lie beside the configuration.
    let folder = context.config_path.parent().map(Path::to_path_buf);
    let folder = folder.unwrap_or_default();
    let ended = runtime.block_on(async {
        let mut signals = Signals::new(until_stdin_closes)?;
        let started = start(&config, (digest, folder), kind, metrics, &mut signals);
        let Some(running) = started.await? else {
            return Ok(());
        };
        running.until_told(&config, &mut signals).await
    });
    runtime.shutdown_timeout(LAST_WAIT);
    ended
}

/// A node of which everything is bound and answers.
struct Running {
    node: Arc<Node>,
    reload: Arc<Notify>,
    stop: CancellationToken,
    servers: JoinSet<Result<(), CliError>>,
    exchange: Exchange,
}

/// Binds everything, opens the store, and starts to answer; `None` when told to stop
/// before that.
async fn start(
    config: &Config,
    (digest, folder): (Digest, PathBuf),
    kind: Kind,
    metrics: PrometheusHandle,
    signals: &mut Signals,
) -> Result<Option<Running>, CliError> {
    recover_keys(config)?;
    let credentials = credentials(config)?;
    // First, so that a second start of the same node says so.
    let socket = Socket::bind(&config.api.socket).await;
    let socket = socket.map_err(|error| {
        keyed("api.socket", &error).next("hashpact status asks the node that runs, if one does")
    })?;
    let http = match config.api.http_listen {
        Some(address) => Some(bind("api.http_listen", address).await?),
        None => None,
    };
    let doors = Doors::bind(config).await?;
    let opening = config.clone();
    let opened = tokio::task::spawn_blocking(move || match kind {
        Kind::Whole => open_node(&opening, true),
        Kind::Witness => open_witness(&opening),
    });
    let node = tokio::select! {
        opened = opened => opened.map_err(CliError::failed)??,
        () = signals.stop() => return Ok(None),
    };
    let mut act = Act::new("node.start", Actor::node());
    act.detail("software", SOFTWARE);
    act.detail("config_digest", digest);
    note(&node, act).await?;
    let stop = CancellationToken::new();
    let options = exchange_options(config, credentials.clone());
    let exchange = Exchange::start(Arc::clone(&node), options, stop.clone()).await;
    let exchange = exchange.map_err(|error| exchange_error(config, error))?;
    let about = About {
        software: SOFTWARE.to_owned(),
        certificate_expires: credentials.not_after(),
    };
    let mut servers = JoinSet::new();
    let service = NodeService::until(Arc::clone(&node), about.clone(), stop.clone());
    let service = service.with_bundles(exchange.bundles(&node));
    doors.serve(&mut servers, &service, &stop);
    let told = stop.clone().cancelled_owned();
    servers.spawn(async move { socket.serve(service, told).await.map_err(CliError::failed) });
    if let Some(listener) = http {
        let pages = Pages::new(Arc::clone(&node), about, metrics.clone());
        let told = stop.clone().cancelled_owned();
        servers.spawn(async move { pages.serve(listener, told).await.map_err(CliError::failed) });
    }
    servers.spawn(upkeep(metrics, stop.clone()));
    if roster_version(&node) == 0 && config.coalition.bootstrap.is_empty() {
        tracing::warn!(
            "no roster yet, and coalition.bootstrap names nobody to ask: run hashpact roster import \
             FILE with what the administrators sent"
        );
    }
    let reload = Arc::new(Notify::new());
    let connections = Arc::clone(exchange.connections());
    let keeper = Keeper::new(
        Arc::clone(&node),
        credentials,
        connections,
        config.clone(),
        folder,
    );
    let policy = PolicyKeeper::new(Arc::clone(&node), config.policy.file.clone());
    servers.spawn(keep((keeper, policy), Arc::clone(&reload), stop.clone()));
    tracing::info!(
        member = %config.member.slug,
        node = %config.node.name,
        witness = node.witnessing().map(|witness| if witness.only() { "only" } else { "also" }),
        software = SOFTWARE,
        federation = config.federation.listen.map(tracing::field::display),
        http = config.api.http_listen.map(tracing::field::display),
        grpc = config.api.grpc_listen.map(tracing::field::display),
        json = config.api.json_listen.map(tracing::field::display),
        roster = roster_version(&node),
        "everything is bound; the node runs"
    );
    Ok(Some(Running {
        node,
        reload,
        stop,
        servers,
        exchange,
    }))
}

impl Running {
    /// Runs until a signal, or until a server ends by itself; then stops within the
    /// grace.
    async fn until_told(mut self, config: &Config, signals: &mut Signals) -> Result<(), CliError> {
        let ended = loop {
            tokio::select! {
                told = signals.next() => match told {
                    Told::Stop => break Ok(()),
                    Told::Reload => self.reload.notify_one(),
                },
                ended = self.servers.join_next() => break unexpected(ended),
            }
        };
        let grace = Duration::from_secs(config.shutdown.grace_s);
        tracing::info!(grace_s = config.shutdown.grace_s, "stopping");
        self.stop.cancel();
        let stopped = async {
            while self.servers.join_next().await.is_some() {}
            self.exchange.wait().await;
        };
        tokio::select! {
            within = tokio::time::timeout(grace, stopped) => match within {
                Ok(()) => tracing::info!("stopped"),
                Err(_) => tracing::warn!("the grace is over: what is under way is cut off"),
            },
            () = signals.stop() => tracing::warn!("told twice: what is under way is cut off"),
        }
        // A thread that a client holds must not keep the node from ending.
        let stop = note(&self.node, Act::new("node.stop", Actor::node()));
        match tokio::time::timeout(LAST_WAIT, stop).await {
            Ok(noted) => noted?,
            Err(_) => tracing::warn!("the stop could not be recorded in time"),
        }
        ended
    }
}

/// Records what has happened, on a thread that may wait for the disk.
async fn note(node: &Arc<Node>, act: Act) -> Result<(), CliError> {
    let audit = Arc::clone(node.audit());
    let noted = tokio::task::spawn_blocking(move || {
        audit.close();
        audit.note(act, OK);
    });
    noted.await.map_err(CliError::failed)
}

/// A server does not end unless it is told to.
fn unexpected(
    ended: Option<Result<Result<(), CliError>, tokio::task::JoinError>>,
) -> Result<(), CliError> {
    match ended {
        Some(Ok(Err(error))) => Err(error),
        Some(Err(error)) => Err(CliError::failed(format!("a server broke: {error}"))),
        Some(Ok(Ok(()))) | None => Err(CliError::failed("a server ended by itself")),
    }
}

pub(super) async fn bind(key: &str, address: SocketAddr) -> Result<TcpListener, CliError> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|error| cannot_listen(key, address, &error))
}

/// The address is what is wrong most often.
fn exchange_error(config: &Config, error: NetError) -> CliError {
    match (config.federation.listen, error) {
        (Some(address), NetError::Connect(error)) => {
            cannot_listen("federation.listen", address, &error)
        }
        (_, error) => keyed("federation", &error),
    }
}

fn cannot_listen(key: &str, address: SocketAddr, error: &std::io::Error) -> CliError {
    CliError::failed(format!("{key}: cannot listen at {address}: {error}"))
        .next("free the port, or set another in the configuration")
}

fn keyed(key: &str, error: &impl std::fmt::Display) -> CliError {
    CliError::failed(format!("{key}: {error}"))
}

fn roster_version(node: &Node) -> u64 {
    let state = node.membership().state();
    state
        .chain
        .as_ref()
        .map_or(0, hashpact_core::roster::RosterChain::version)
}

/// Makes this process' one recorder of metrics.
fn record_metrics() -> Result<PrometheusHandle, CliError> {
    let asking = Matcher::Full("hashpact_api_ask_seconds".to_owned());
    let builder = PrometheusBuilder::new().set_buckets_for_metric(asking, &ASK_SECONDS);
    let builder = builder.map_err(|error| CliError::failed(format!("metrics: {error}")))?;
    let recorder = builder.build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder)
        .map_err(|error| CliError::failed(format!("metrics: {error}")))?;
    counters::register();
    Ok(handle)
}

/// Ends the renaming of keys that a crash cut in two.
fn recover_keys(config: &Config) -> Result<(), CliError> {
    let keys = &config.keys;
    let files = [&keys.tls_key, &keys.feed, &keys.receipt].into_iter();
    for path in files.chain(&keys.tls_certificate).chain(&keys.witness) {
        let recovered = super::keys::recover(path);
        recovered.map_err(|error| CliError::failed(format!("{}: {error}", path.display())))?;
    }
    Ok(())
}

/// Keeps card, keys, certificate and policy in order; a thread of its own each time, for it
/// reads files and the store.
async fn keep(
    mut keepers: (Keeper, PolicyKeeper),
    reload: Arc<Notify>,
    stop: CancellationToken,
) -> Result<(), CliError> {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let again = tokio::select! {
            _ = ticks.tick() => false,
            () = reload.notified() => true,
            () = stop.cancelled() => {
                let (_, policy) = keepers;
                let left = tokio::task::spawn_blocking(move || policy.leave());
                return left.await.map_err(CliError::failed);
            }
        };
        let looked = tokio::task::spawn_blocking(move || {
            let (keeper, policy) = &mut keepers;
            if again {
                let by = Actor {
                    via: "signal".to_owned(),
                    role: ActorRole::Administrator,
                    ..Actor::default()
                };
                keeper.reload(by.clone());
                policy.read(by);
            }
            keeper.look();
            policy.look();
            keepers
        });
        keepers = looked.await.map_err(CliError::failed)?;
    }
}

async fn upkeep(metrics: PrometheusHandle, stop: CancellationToken) -> Result<(), CliError> {
    let mut ticks = tokio::time::interval(UPKEEP);
    loop {
        tokio::select! {
            _ = ticks.tick() => metrics.run_upkeep(),
            () = stop.cancelled() => return Ok(()),
        }
    }
}

/// What tells the node to stop or to read its certificate again.
struct Signals {
    term: Signal,
    int: Signal,
    hup: Signal,
    /// Where the end of standard input counts, until it came.
    stdin: Option<oneshot::Receiver<()>>,
}

impl Signals {
    fn new(until_stdin_closes: bool) -> Result<Self, CliError> {
        let on = |kind| signal(kind).map_err(CliError::failed);
        let stdin = until_stdin_closes.then(watch_stdin).transpose()?;
        Ok(Self {
            term: on(SignalKind::terminate())?,
            int: on(SignalKind::interrupt())?,
            hup: on(SignalKind::hangup())?,
            stdin,
        })
    }

    /// Waits until the node is told something.
    async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.term.recv() => tracing::info!(signal = "SIGTERM", "told to stop"),
            _ = self.int.recv() => tracing::info!(signal = "SIGINT", "told to stop"),
            _ = self.hup.recv() => return Told::Reload,
            () = ended(&mut self.stdin) => tracing::info!("told to stop: standard input ended"),
        }
        Told::Stop
    }

    /// Waits until the node is told to stop.
    async fn stop(&mut self) {
        while self.next().await != Told::Stop {}
    }
}

/// What a node is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Stop,
    Reload,
}

/// Answers once, and never again.
async fn ended(stdin: &mut Option<oneshot::Receiver<()>>) {
    match stdin {
        Some(waiting) => {
            // The thread at the other end sends, or is gone; both are an end.
            let _ = waiting.await;
            *stdin = None;
        }
        None => std::future::pending().await,
    }
}

/// A thread of its own: reading standard input cannot be called off.
fn watch_stdin() -> Result<oneshot::Receiver<()>, CliError> {
    let (ended, waiting) = oneshot::channel();
    let thread = std::thread::Builder::new().name("stdin".to_owned());
    let watching = thread.spawn(move || {
        let mut stdin = std::io::stdin().lock();
        let mut block = [0_u8; 256];
        while matches!(stdin.read(&mut block), Ok(1..)) {}
        // The node may have ended first.
        let _ = ended.send(());
    });
    watching.map_err(CliError::failed)?;
    Ok(waiting)
}
