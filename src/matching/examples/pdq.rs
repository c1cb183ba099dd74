//! Measures the PDQ index: `pdq [VALUES [DATA|all [QUERIES]]]`, one JSON object per line.
//!
//! Rates are per second of processor time of one thread, so that other load on the machine changes them less; `wall`
//! says what two threads did in real time.
#![expect(clippy::print_stdout, reason = "a report")]

use std::time::Instant;

use hashpact_matching::pdq::bench::{Data, Reference, queries};
use hashpact_matching::pdq::{DEFAULT_DISTANCE, PdqIndex};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let number = |text: Option<String>, otherwise: usize| {
        text.and_then(|text| text.parse().ok()).unwrap_or(otherwise)
    };
    let count = number(arguments.next(), 1_000_000);
    let wanted = arguments.next().unwrap_or_else(|| "all".into());
    let asked = number(arguments.next(), 20_000);
    for data in Data::ALL {
        if wanted == "all" || wanted == data.name() {
            measure(data, count, asked);
        }
    }
}

fn measure(data: Data, count: usize, asked: usize) {
    let values = data.values(count, 1);
    let started = Instant::now();
    let index = PdqIndex::build(values.iter().copied(), 1);
    let build_s = started.elapsed().as_secs_f64();
    let reference = Reference::new(&values);
    let asked = queries(&values, asked, DEFAULT_DISTANCE, 2);
    let few = asked.get(..asked.len().min(40)).unwrap_or_default();

    let linear = rate(few, |query| {
        reference.query(query, DEFAULT_DISTANCE, |_, _| {});
    });
    let single = rate(&asked, |query| {
        _ = index.query(query, DEFAULT_DISTANCE, |_, _| {});
    });
    let started = busy_s();
    let mut matches = 0_usize;
    _ = index.query_batch(&asked, DEFAULT_DISTANCE, |_, _, _| matches += 1);
    let batch = float(asked.len()) / (busy_s() - started);
    let started = Instant::now();
    std::thread::scope(|scope| {
        for queries in asked.chunks(asked.len().div_ceil(2).max(1)) {
            let index = &index;
            scope.spawn(move || _ = index.query_batch(queries, DEFAULT_DISTANCE, |_, _, _| {}));
        }
    });
    let wall = float(asked.len()) / started.elapsed().as_secs_f64();
    let worst = few.iter().map(|query| {
        let started = busy_s();
        _ = index.query(query, DEFAULT_DISTANCE, |_, _| {});
        busy_s() - started
    });
    let worst = worst.fold(0.0, f64::max);
    let check = reference.check(&index, few, DEFAULT_DISTANCE);
    let check = check.map_or_else(|wrong| wrong.to_string(), |_| "equal".into());
    let bytes = float(index.stats().memory_bytes) / float(index.len().max(1));
    println!(
        "{{\"data\":\"{}\",\"values\":{count},\"build_s\":{build_s:.2},\"bytes_per_value\":{bytes:.1},\
         \"linear\":{linear:.0},\"single\":{single:.0},\"batch\":{batch:.0},\"single_to_linear\":{:.2},\
         \"batch_to_linear\":{:.2},\"two_threads_wall\":{wall:.0},\"worst_of_few_us\":{:.0},\"matches\":{matches},\
         \"check\":\"{check}\"}}",
        data.name(),
        single / linear,
        batch / linear,
        worst * 1e6,
    );
}

/// Queries per second of this thread's processor time.
fn rate(queries: &[[u8; 32]], mut ask: impl FnMut(&[u8; 32])) -> f64 {
    let started = busy_s();
    queries.iter().for_each(&mut ask);
    float(queries.len()) / (busy_s() - started)
}

/// Seconds that this thread has run; where the system does not say, seconds of the clock.
fn busy_s() -> f64 {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let busy_ns = stat.and_then(|stat| stat.split(' ').next()?.parse::<f64>().ok());
    let clock = || START.get_or_init(Instant::now).elapsed().as_secs_f64();
    busy_ns.map_or_else(clock, |ns| ns / 1e9)
}

#[expect(clippy::cast_precision_loss, reason = "a report")]
fn float(n: usize) -> f64 {
    n as f64
}
