//! When calls at a steady rate are made: by a thread of its own, the few of a quarter of a
//! millisecond at a time.
//!
//! Timers of the runtime go by whole milliseconds: at 20,000 calls a second they would
//! let twenty go at once, and each of these wait for those before it. One at a time would
//! cost more than the calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::cli::error::CliError;
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// Between looks at which calls are due.
const EVERY: Duration = Duration::from_micros(250);
/// If the thread itself wakes later than this, all that follows is put off: callers
/// elsewhere would not have come all at once then.
const LATE: Duration = Duration::from_millis(1);

/// Turns that wait for one stream.
const WAITING: usize = 4_096;

/// That a call is to be made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turn {
    /// When it was due.
    pub(super) due: Instant,
    /// When it was said: up to a quarter of a millisecond before or after.
    pub(super) said: Instant,
}

/// The turns of one stream; they end when the pacing does.
pub(super) type Turns = Receiver<Turn>;

/// Streams that take turns.
#[derive(Debug, Default)]
pub(super) struct Pacer(Vec<Sender<Turn>>);

/// Tells streams whose turn it is, until it ends.
#[derive(Debug)]
pub(super) struct Pacing {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Duration>,
}

impl Pacer {
    /// One more stream.
    pub(super) fn stream(&mut self) -> Turns {
        let (sender, turns) = channel(WAITING);
        self.0.push(sender);
        turns
    }

    /// Begins with so many calls a second over all streams.
    pub(super) fn begin(self, per_s: f64) -> Pacing {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || self.run(per_s.max(1.0), &stopped));
        Pacing { stop, thread }
    }

    fn run(self, per_s: f64, stop: &AtomicBool) -> Duration {
        let (mut begun, mut put_off) = (Instant::now(), Duration::ZERO);
        let mut next = begun;
        for (turn, stream) in (0_u32..).zip(self.0.iter().cycle()) {
            let mut due = begun + Duration::from_secs_f64(f64::from(turn) / per_s);
            while due >= next {
                let now = Instant::now();
                std::thread::sleep(next.saturating_duration_since(now));
                if stop.load(Ordering::Relaxed) {
                    return put_off;
                }
                let late = next.elapsed();
                next += EVERY;
                if late > LATE {
                    begun += late;
                    due += late;
                    next += late;
                    put_off += late;
                }
            }
            let said = Instant::now();
            // A stream that failed says so itself. One that is so far behind puts all off.
            let _ = stream.blocking_send(Turn { due, said });
        }
        put_off
    }
}

impl Pacing {
    /// Ends it; streams make the calls that were said. Answers by how much calls were put
    /// off in all.
    pub(super) fn end(self) -> Result<Duration, CliError> {
        self.stop.store(true, Ordering::Relaxed);
        let put_off = self.thread.join();
        put_off.map_err(|_| CliError::failed("the thread that paces calls panicked"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_take_turns_and_end_with_the_pacing() {
        let mut pacer = Pacer::default();
        let mut streams = [pacer.stream(), pacer.stream(), pacer.stream()];
        let pacing = pacer.begin(10_000.0);
        let mut last: Option<Turn> = None;
        for n in 0..30 {
            let turn = streams[n % 3].blocking_recv().unwrap();
            if let Some(last) = last {
                assert!(turn.said >= last.said);
                assert!(turn.due - last.due >= Duration::from_micros(100));
            }
            last = Some(turn);
        }
        pacing.end().unwrap();
        for turns in &mut streams {
            while turns.blocking_recv().is_some() {}
        }
    }
}
