//! `bench watch`: entries published one by one into a large set, until the other
//! node answers for each.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use hashpact_core::signal::Signal;
use serde::Serialize;

use super::entries::Which;
use super::latency::{Latency, Times};
use super::machine::Machine;
use super::meters::Meters;
use super::pull::{self, Pulled, Running};
use super::serve::{Serving, Upstream};
use super::{Bench, CommonArgs, entries, rounded, say, seconds};
use crate::cli::error::CliError;
use crate::cli::{Context, output};

/// Between looks for entries that have come.
const LOOK: Duration = Duration::from_millis(2);
/// The longest that the last entries are waited for.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Serialize)]
struct Report {
    bench: &'static str,
    entries: u64,
    published: u64,
    published_per_s: u32,
    elapsed_s: f64,
    /// From handing an entry to its publisher until the other node answers for it.
    latency_ms: Latency,
    /// Both ways, everything that went over the connection meanwhile.
    wire_bytes_per_entry: f64,
    first_pull: Pulled,
    upstream: Serving,
    machine: Machine,
}

/// Measures and prints.
pub(super) fn run(
    common: &CommonArgs,
    rate: u32,
    time: u32,
    context: &Context,
) -> Result<(), CliError> {
    let meters = Meters::start()?;
    let bench = Bench::begin("watch", common)?;
    let trial = pull::trial()?;
    let (mut upstream, serving) =
        Upstream::start(&trial, bench.dir().join("north"), (common.entries, false))?;
    let mut running = Running::start(&trial, &bench.dir().join("harbor"))?;
    let first_pull = running.pull(&meters, common.entries)?;
    say(format!("publishing {rate} entries a second for {time} s"));
    let wire = || {
        meters.sum("hashpact_wire_read_bytes_total", "")
            + meters.sum("hashpact_wire_written_bytes_total", "")
    };
    let before = wire();
    let began = Instant::now();
    let times = publish(&mut upstream, &running, common.entries, rate, time)?;
    let elapsed = began.elapsed();
    let bytes = wire() - before;
    running.stop()?;
    upstream.stop()?;
    let published = times.count();
    let report = Report {
        bench: "watch",
        entries: common.entries,
        published,
        published_per_s: rate,
        elapsed_s: seconds(elapsed),
        latency_ms: times.latency(),
        wire_bytes_per_entry: rounded(bytes / super::count_of(published.max(1))),
        first_pull,
        upstream: serving,
        machine: Machine::here(),
    };
    bench.end()?;
    print(&report, context)
}

/// Publishes at a steady rate, and notes when each entry is answered for.
fn publish(
    upstream: &mut Upstream,
    running: &Running,
    first: u64,
    rate: u32,
    time: u32,
) -> Result<Times, CliError> {
    let count = u64::from(rate) * u64::from(time);
    let (mut times, mut waiting) = (Times::default(), VecDeque::new());
    let began = Instant::now();
    let mut next = 0;
    while next < count || !waiting.is_empty() {
        let due = began.elapsed().as_secs_f64() * f64::from(rate);
        while next < count && super::count_of(next) <= due {
            let n = first + next;
            waiting.push_back((signal(n)?, Instant::now()));
            upstream.publish(n)?;
            next += 1;
        }
        // Entries come in the order that they were published in.
        let asked: Vec<Signal> = waiting.iter().take(256).map(|w| w.0.clone()).collect();
        let found = running.node.lookup(&asked).map_err(CliError::failed)?;
        let now = Instant::now();
        for _ in found.iter().take_while(|matches| !matches.is_empty()) {
            if let Some((_, since)) = waiting.pop_front() {
                times.push(now - since);
            }
        }
        if waiting
            .front()
            .is_some_and(|(_, since)| since.elapsed() > PATIENCE)
        {
            return Err(CliError::failed(
                "an entry that was published does not come",
            ));
        }
        std::thread::sleep(LOOK);
    }
    Ok(times)
}

fn signal(n: u64) -> Result<Signal, CliError> {
    let which = if n.is_multiple_of(2) {
        Which::Sha256
    } else {
        Which::Pdq
    };
    entries::signal(n, which).map_err(CliError::failed)
}

fn print(report: &Report, context: &Context) -> Result<(), CliError> {
    let rows = [
        ("entries before", output::count(report.entries)),
        ("published", output::count(report.published)),
        ("per second", report.published_per_s.to_string()),
        ("until answered, p50 / p99", report.latency_ms.line()),
        (
            "on the wire, per entry",
            format!("{:.0} B", report.wire_bytes_per_entry),
        ),
    ];
    super::print(report, &rows, &report.machine, context)
}
