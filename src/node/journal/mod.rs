//! The match journal: what was answered that somebody acts on, so that a member finds its
//! own decisions again when an entry turns out to be wrong.
//!
//! Off unless the operator turns it on. Answers are handed to a thread of the journal's
//! own: a look-up never waits for it, and what does not fit is counted as lost. Digests of
//! what was asked are made there, under the node's secret.
//!
//! Whoever asks to recheck is shown what of the journal rests on entries that were
//! withdrawn since; what is only held for review is not withdrawn.

mod recheck;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hashpact_core::id::UnixMillis;
use hashpact_core::policy::{Salt, Verdict};
use hashpact_store::{IndexKey, JournalEntry, JournalRow, Store, StoreError};
use metrics::counter;
use tracing::{error, info};

use crate::clock::Clock;
use crate::error::NodeError;
use crate::node::Node;

pub use self::recheck::{RecheckOf, RecheckPage, RecheckRequest, Rechecked, Withdrawal};

/// Bytes of a caller's own name for what it asks.
pub const REFERENCE_MAX_BYTES: usize = 128;
/// Answers that wait for the thread, and their entries: some 100 bytes each.
const WAITING_MAX: usize = 131_072;
/// Calls whose answers wait.
const CALLS_MAX: usize = 16_384;
/// Answers written at one time.
const BATCH: usize = 1_024;
/// How long answers wait to be written together.
const GATHER: Duration = Duration::from_millis(500);
/// Between looks for what is too old.
const TIDY: Duration = Duration::from_secs(60);

/// How much is kept, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalSettings {
    /// Answers at most; 0 turns the journal off.
    pub max_entries: u64,
    /// No longer than this.
    pub keep_ms: u64,
}

/// An answer that somebody may act on. ⚠ It has the value that was asked for: no `Debug`.
#[derive(Clone)]
pub struct Answered {
    /// What was asked for.
    pub key: IndexKey,
    /// What the policy made of it.
    pub verdict: Verdict,
    /// The caller's own name for it.
    pub reference: String,
    /// The entries that matched.
    pub entries: Vec<JournalEntry>,
}

impl Answered {
    /// What it counts for while it waits.
    fn weight(&self) -> usize {
        self.entries.len().saturating_add(1)
    }
}

/// The answers of one call, on their way to the thread.
struct Call {
    at: UnixMillis,
    answered: Vec<Answered>,
    weight: usize,
}

/// The journal of a running node.
pub struct Journal {
    told: Option<SyncSender<Call>>,
    waiting: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
    clock: Clock,
    settings: JournalSettings,
}

impl Journal {
    fn start(
        store: &Arc<Store>,
        salt: Salt,
        clock: Clock,
        settings: JournalSettings,
    ) -> Result<Self, NodeError> {
        let mut writer = Writer {
            store: Arc::clone(store),
            salt,
            clock: clock.clone(),
            settings,
            numbers: store.journal_numbers()?,
            waiting: Arc::default(),
            failed: false,
        };
        writer.tidy()?;
        let waiting = Arc::clone(&writer.waiting);
        let (told, heard) = sync_channel(CALLS_MAX);
        let thread = std::thread::Builder::new()
            .name("match-journal".to_owned())
            .spawn(move || writer.run(&heard))
            .map_err(|error| NodeError::Internal(format!("a thread for the journal: {error}")))?;
        Ok(Self {
            told: Some(told),
            waiting,
            thread: Some(thread),
            clock,
            settings,
        })
    }

    /// How much is kept.
    #[must_use]
    pub const fn settings(&self) -> JournalSettings {
        self.settings
    }

    /// Notes answers, without waiting: where too many wait already, these are lost, and
    /// counted as such.
    pub fn note(&self, answered: Vec<Answered>) {
        let count = answered.len();
        if count == 0 {
            return;
        }
        let weight = answered.iter().map(Answered::weight).sum();
        let before = self.waiting.fetch_add(weight, Ordering::Relaxed);
        let fits = before.saturating_add(weight) <= WAITING_MAX;
        let call = Call {
            at: self.clock.now(),
            answered,
            weight,
        };
        let told = self.told.as_ref().filter(|_| fits);
        if told.is_none_or(|told| told.try_send(call).is_err()) {
            self.waiting.fetch_sub(weight, Ordering::Relaxed);
            lost(count);
        }
    }
}

impl Drop for Journal {
    /// What waits is written first.
    fn drop(&mut self) {
        self.told = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Node {
    /// Begins to keep a journal, or forgets the one there is where it is turned off. Once,
    /// for a running node. Blocking.
    ///
    /// # Errors
    /// What the store answers.
    pub fn keep_journal(&self, settings: JournalSettings) -> Result<(), NodeError> {
        let store = self.store();
        if settings.max_entries == 0 {
            let kept = store.journal_numbers()?;
            if !kept.is_empty() {
                store.clear_journal()?;
                info!("the match journal is off: what it had is gone");
            }
            return Ok(());
        }
        let (salt, clock) = (self.desk().salt, self.clock().clone());
        let journal = Journal::start(store, salt, clock, settings)?;
        let _ = self.journal.set(journal);
        Ok(())
    }

    /// The journal of what is answered; `None` where it is off.
    #[must_use]
    pub fn journal(&self) -> Option<&Journal> {
        self.journal.get()
    }
}

/// What was not noted.
fn lost(count: usize) {
    let count = u64::try_from(count).unwrap_or(u64::MAX);
    counter!("hashpact_match_journal_lost_total").increment(count);
}

/// The thread's own.
struct Writer {
    store: Arc<Store>,
    salt: Salt,
    clock: Clock,
    settings: JournalSettings,
    /// Of the answers that are kept.
    numbers: Range<u64>,
    waiting: Arc<AtomicUsize>,
    /// Whether the last write failed: said once.
    failed: bool,
}

impl Writer {
    fn run(&mut self, heard: &Receiver<Call>) {
        let mut rows = Vec::new();
        // Since when the first of them waits.
        let mut since = Instant::now();
        let mut tidied = Instant::now();
        loop {
            let wait = if rows.is_empty() {
                TIDY
            } else {
                GATHER.saturating_sub(since.elapsed())
            };
            let next = heard.recv_timeout(wait);
            let over = matches!(next, Err(RecvTimeoutError::Disconnected));
            if let Ok(call) = next {
                if rows.is_empty() {
                    since = Instant::now();
                }
                self.waiting.fetch_sub(call.weight, Ordering::Relaxed);
                let answered = call.answered.into_iter();
                rows.extend(answered.map(|one| self.row(call.at, one)));
            }
            if over || rows.len() >= BATCH || since.elapsed() >= GATHER {
                self.report(rows.len(), |writer| writer.write(&rows));
                rows.clear();
            }
            if tidied.elapsed() >= TIDY {
                tidied = Instant::now();
                self.report(0, Self::tidy);
            }
            if over {
                return;
            }
        }
    }

    fn row(&self, at: UnixMillis, answered: Answered) -> JournalRow {
        let [kind, ..] = answered.key;
        JournalRow {
            at,
            kind,
            digest: digest(&self.salt, &answered.key),
            verdict: answered.verdict,
            reference: answered.reference,
            entries: answered.entries,
        }
    }

    /// Writes answers; the oldest go where there are too many.
    fn write(&mut self, rows: &[JournalRow]) -> Result<(), StoreError> {
        let max = self.settings.max_entries;
        let at_once = usize::try_from(max).unwrap_or(BATCH).clamp(1, BATCH);
        for rows in rows.chunks(at_once) {
            let first = self.numbers.end;
            let end = first.saturating_add(u64::try_from(rows.len()).unwrap_or(0));
            let mut keep = self.numbers.start;
            if end.saturating_sub(keep) > max {
                // Some more than must, so that it is not for every batch.
                let slack = max / 64;
                keep = end.saturating_sub(max.saturating_sub(slack));
            }
            // Those of this very batch are let go by the next one.
            let keep = keep.min(first);
            let to = if keep > self.numbers.start { keep } else { 0 };
            self.store.write_journal(first, rows, to)?;
            self.numbers = keep..end;
            let count = u64::try_from(rows.len()).unwrap_or(0);
            counter!("hashpact_match_journal_noted_total").increment(count);
        }
        Ok(())
    }

    /// Lets go of what is too old, or beyond a bound that is lower than it was.
    fn tidy(&mut self) -> Result<(), StoreError> {
        let now = self.clock.now().0;
        let oldest = now.saturating_sub(self.settings.keep_ms);
        let kept = self.numbers.end.saturating_sub(self.settings.max_entries);
        let mut keep = self.numbers.start.max(kept);
        self.store.scan_journal(keep, |number, row| {
            keep = number;
            Ok(row.at.0 < oldest)
        })?;
        // The last one that was seen may be too old itself.
        let mut last_is_old = false;
        self.store.scan_journal(keep, |_, row| {
            last_is_old = row.at.0 < oldest;
            Ok(false)
        })?;
        if last_is_old {
            keep = self.numbers.end;
        }
        if keep > self.numbers.start {
            self.store.write_journal(self.numbers.end, &[], keep)?;
            self.numbers.start = keep;
        }
        Ok(())
    }

    fn report(&mut self, rows: usize, work: impl FnOnce(&mut Self) -> Result<(), StoreError>) {
        match work(self) {
            Ok(()) => self.failed = false,
            Err(failed) => {
                lost(rows);
                if !std::mem::replace(&mut self.failed, true) {
                    error!(error = %failed, "the match journal cannot be written");
                }
            }
        }
    }
}

fn digest(salt: &Salt, key: &IndexKey) -> [u8; 16] {
    let digest = salt.digest("journal", key);
    digest.first_chunk().copied().unwrap_or_default()
}
