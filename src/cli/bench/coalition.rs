//! `hashpact bench coalition`: many members in one process, with a network and a time
//! that are made up, and what each of them pays.

use hashpact_net::exchange::sim::{self, Outcome, Part, Plan};
use serde::Serialize;

use super::machine::Machine;
use super::{Bench, CoalitionArgs, CommonArgs, count_of, rounded, say, seconds};
use crate::cli::error::CliError;
use crate::cli::{Context, output};

#[derive(Debug, Serialize)]
struct Report {
    bench: &'static str,
    seed: u64,
    members: u32,
    listening: u32,
    sets: usize,
    connections: usize,
    /// The digest of everything that happened: the same for the same seed.
    trace: String,
    events: u64,
    /// What every member holds in the end.
    state: String,
    /// From nothing but the first documents until all cards are everywhere.
    start: Cost,
    rounds: u32,
    entries: u64,
    /// One round: each set grows once, and everybody who may read it has it.
    round: Cost,
    /// A minute in which nothing changes.
    idle_minute: Cost,
    simulated_in_s: f64,
    machine: Machine,
}

/// What one member pays.
#[derive(Debug, Serialize)]
struct Cost {
    virtual_s: f64,
    messages: f64,
    bytes: f64,
    heads: f64,
    cards: f64,
    calls: f64,
    signs_of_life: f64,
    cpu_ms: f64,
    /// The member that sends the most.
    most_messages: f64,
    most_bytes: f64,
}

impl Cost {
    fn of(part: &Part, members: u32, times: u32) -> Self {
        let times = f64::from(times.max(1));
        let each = |count: u64| rounded(count_of(count) / f64::from(members.max(1)) / times);
        let all = &part.all;
        Self {
            virtual_s: rounded(count_of(part.virtual_ms) / 1_000.0 / times),
            messages: each(all.messages),
            bytes: each(all.bytes),
            heads: each(all.heads),
            cards: each(all.cards),
            calls: each(all.calls),
            signs_of_life: each(all.alive),
            cpu_ms: rounded(all.cpu.as_secs_f64() * 1_000.0 / f64::from(members.max(1)) / times),
            most_messages: rounded(count_of(part.most.messages) / times),
            most_bytes: rounded(count_of(part.most.bytes) / times),
        }
    }

    fn line(&self) -> String {
        format!(
            "{:.0} messages, {:.1} KB, {:.1} ms of CPU",
            self.messages,
            self.bytes / 1_000.0,
            self.cpu_ms
        )
    }
}

/// Simulates and prints.
pub(super) fn run(args: &CoalitionArgs, context: &Context) -> Result<(), CliError> {
    let common = CommonArgs {
        entries: 0,
        dir: args.dir.clone(),
        keep: args.keep,
    };
    let bench = Bench::begin("coalition", &common)?;
    let plan = Plan {
        seed: args.seed,
        members: args.members,
        listening: args.listening.unwrap_or(args.members).min(args.members),
        publishers: args.publishers.min(args.members.saturating_sub(1)),
        joiners: 0,
        trouble: args.trouble,
        rounds: args.rounds,
        entries: args.entries,
        ..Plan::default()
    };
    say(format!(
        "{} members, {} of them listen; seed {}",
        plan.members, plan.listening, plan.seed
    ));
    let outcome = sim::run(&plan, bench.dir()).map_err(CliError::failed)?;
    bench.end()?;
    print(&report(&plan, &outcome), context)
}

fn report(plan: &Plan, outcome: &Outcome) -> Report {
    Report {
        bench: "coalition",
        seed: plan.seed,
        members: plan.members,
        listening: plan.listening,
        sets: outcome.sets,
        connections: outcome.connections,
        trace: outcome.trace.to_string(),
        events: outcome.events,
        state: outcome.state.to_string(),
        start: Cost::of(&outcome.start, plan.members, 1),
        rounds: plan.rounds,
        entries: plan.entries,
        round: Cost::of(&outcome.rounds, plan.members, plan.rounds),
        idle_minute: Cost::of(&outcome.idle, plan.members, 1),
        simulated_in_s: seconds(outcome.took),
        machine: Machine::here(),
    }
}

fn print(report: &Report, context: &Context) -> Result<(), CliError> {
    let count = |n: usize| output::count(u64::try_from(n).unwrap_or(u64::MAX));
    let rows = [
        ("members", output::count(u64::from(report.members))),
        ("of them listen", output::count(u64::from(report.listening))),
        ("sets", count(report.sets)),
        ("connections", count(report.connections)),
        ("start, per member", report.start.line()),
        ("round, per member", report.round.line()),
        ("idle minute, per member", report.idle_minute.line()),
        (
            "most of a round, one member",
            format!(
                "{:.0} messages, {:.1} KB",
                report.round.most_messages,
                report.round.most_bytes / 1_000.0
            ),
        ),
        ("trace", report.trace.chars().take(16).collect()),
    ];
    super::print(report, &rows, &report.machine, context)
}
