//! The other node of a measurement, in a process of its own: what its memory and
//! its counters say is its own.
//!
//! Driven by lines on standard input: first the trial, as JSON, then commands. It
//! answers each with a line of JSON, and ends with its input.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use hashpact_core::card::EndpointPolicy;
use hashpact_net::exchange::{Exchange, ExchangeOptions};
use hashpact_node::Node;
use hashpact_priority::give_way_wholly;
use hashpact_store::StoreOptions;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use super::machine::Memory;
use super::{import, limit, seconds};
use crate::cli::error::CliError;
use crate::cli::trial::{Seat, Trial, TrialText};

/// Commands that wait.
const WAITING: usize = 4_096;
/// How long the process may take to end before it is killed.
const END_WITHIN: Duration = Duration::from_secs(20);

#[derive(Serialize, Deserialize)]
struct Order {
    trial: TrialText,
    dir: PathBuf,
    entries: u64,
    /// It stands for another machine, whose work is not this one's.
    gives_way: bool,
}

/// What the process says once it serves.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Serving {
    /// Where the bytes of the limit come from.
    pub(super) limit_port: u16,
    /// How long it took to publish everything.
    pub(super) setup_s: f64,
    memory: Memory,
}

/// Runs the process: `hashpact bench serve`.
pub(super) fn run() -> Result<(), CliError> {
    let mut lines = BufReader::new(std::io::stdin()).lines();
    let first = lines.next().transpose().map_err(CliError::failed)?;
    let first = first.ok_or_else(|| CliError::usage("this is run by other measurements"))?;
    let order: Order = serde_json::from_str(&first)
        .map_err(|_| CliError::usage("this is run by other measurements"))?;
    let trial = Trial::from_text(order.trial)?;
    let seat = trial.seat(0)?;
    let node = trial.open(seat, &order.dir, StoreOptions::default())?;
    node.create_set(&super::new_set()?)
        .map_err(CliError::failed)?;
    let setup = import::fill(&node, order.entries)?;
    if order.gives_way {
        // The threads that begin from now on have it too.
        give_way_wholly();
    }
    let runtime = Runtime::new().map_err(CliError::failed)?;
    let stop = CancellationToken::new();
    let exchange = runtime.block_on(exchange(&node, seat, stop.clone()))?;
    let limit_port = runtime.block_on(serve_limit(&trial, &node))?;
    say(&Serving {
        limit_port,
        setup_s: seconds(setup),
        memory: Memory::here(),
    })?;
    let (sender, commands) = sync_channel(WAITING);
    std::thread::spawn(move || {
        let mut lines = lines.map_while(Result::ok);
        lines.all(|line| sender.send(line).is_ok())
    });
    obey(&node, &commands)?;
    stop.cancel();
    runtime.block_on(exchange.wait());
    runtime.shutdown_timeout(Duration::from_secs(2));
    Ok(())
}

/// Publishes the entries that are asked for, all that wait under one signature.
fn obey(node: &Arc<Node>, commands: &Receiver<String>) -> Result<(), CliError> {
    while let Ok(command) = commands.recv() {
        let waiting = std::iter::once(command).chain(commands.try_iter());
        let numbers: Result<Vec<u64>, _> = waiting.map(|line| line.trim().parse()).collect();
        let numbers = numbers.map_err(CliError::failed)?;
        let entries = numbers.iter().map(|n| import::entry(*n));
        let entries = entries.collect::<Result<Vec<_>, _>>()?;
        let mut import = node.import(&super::set_slug()?).map_err(CliError::failed)?;
        import.push(entries).map_err(CliError::failed)?;
        import.finish().map_err(CliError::failed)?;
    }
    Ok(())
}

/// Starts the exchange of a seat.
pub(super) async fn exchange(
    node: &Arc<Node>,
    seat: &Seat,
    stop: CancellationToken,
) -> Result<Exchange, CliError> {
    let options = ExchangeOptions {
        listen: seat.listen(),
        endpoint_policy: EndpointPolicy::AllowLocal,
        grace: Duration::from_secs(2),
        ..ExchangeOptions::new(seat.credentials()?)
    };
    Exchange::start(Arc::clone(node), options, stop)
        .await
        .map_err(CliError::failed)
}

async fn serve_limit(trial: &Trial, node: &Arc<Node>) -> Result<u16, CliError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let listener = listener.map_err(CliError::failed)?;
    let port = listener.local_addr().map_err(CliError::failed)?.port();
    let (credentials, table) = (trial.seat(0)?.credentials()?, trial.peers()?);
    let node = Arc::clone(node);
    tokio::spawn(async move {
        if let Err(error) = limit::serve(listener, node, credentials, table).await {
            super::say(error);
        }
    });
    Ok(port)
}

fn say(what: &impl Serialize) -> Result<(), CliError> {
    let mut line = serde_json::to_vec(what).map_err(CliError::failed)?;
    line.push(b'\n');
    let mut out = std::io::stdout().lock();
    let written = out.write_all(&line).and_then(|()| out.flush());
    written.map_err(CliError::failed)
}

/// The process, as the one that started it sees it. Killed when dropped.
pub(super) struct Upstream {
    child: Child,
    input: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Upstream {
    /// Starts the process and waits until it has published and serves.
    pub(super) fn start(
        trial: &Trial,
        dir: PathBuf,
        (entries, gives_way): (u64, bool),
    ) -> Result<(Self, Serving), CliError> {
        let program = std::env::current_exe().map_err(CliError::failed)?;
        let mut child = Command::new(program)
            .args(["bench", "serve"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(CliError::failed)?;
        let input = child.stdin.take();
        let output = child.stdout.take();
        let output = output.ok_or_else(|| CliError::failed("the process has no output"))?;
        let mut upstream = Self {
            child,
            input,
            answers: BufReader::new(output),
        };
        let order = Order {
            trial: trial.to_text(),
            dir,
            entries,
            gives_way,
        };
        upstream.send(&serde_json::to_string(&order).map_err(CliError::failed)?)?;
        let serving = upstream.answer()?;
        Ok((upstream, serving))
    }

    /// Has entry `n` published.
    pub(super) fn publish(&mut self, n: u64) -> Result<(), CliError> {
        self.send(&n.to_string())
    }

    fn send(&mut self, line: &str) -> Result<(), CliError> {
        let ended = || CliError::failed("the other node ended");
        let input = self.input.as_mut().ok_or_else(ended)?;
        let written = writeln!(input, "{line}").and_then(|()| input.flush());
        written.map_err(|_| ended())
    }

    fn answer(&mut self) -> Result<Serving, CliError> {
        let mut line = String::new();
        self.answers
            .read_line(&mut line)
            .map_err(CliError::failed)?;
        serde_json::from_str(&line)
            .map_err(|_| CliError::failed("the other node ended; it said why above"))
    }

    /// Asks the process to end, and waits for it.
    pub(super) fn stop(mut self) -> Result<(), CliError> {
        self.input = None;
        let step = Duration::from_millis(20);
        for _ in 0..END_WITHIN.as_millis() / step.as_millis() {
            if let Some(status) = self.child.try_wait().map_err(CliError::failed)? {
                if status.success() {
                    return Ok(());
                }
                return Err(CliError::failed(format!("the other node ended: {status}")));
            }
            std::thread::sleep(step);
        }
        Err(CliError::failed("the other node does not end"))
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        // After a clean end there is nothing left to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
