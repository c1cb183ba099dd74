//! One input file through the node: entries there, progress back.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use data_encoding::HEXLOWER;
use hashpact_api::wire;
use hashpact_core::leaf::Basis;
use hashpact_formats::{Format, Options};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};

use super::read::{InFlight, Kept, ReadFile, Reading};
use super::rejects::Rejects;
use crate::cli::client::{Client, failed};
use crate::cli::error::CliError;
use crate::cli::output::{Progress, note};

/// Messages that wait between the reader and the connection.
const WAITING: usize = 4;
/// Said while the file brings nothing: the node ends imports that are silent.
const ALIVE: Duration = Duration::from_secs(20);
/// How often the progress bar moves.
const TICK: Duration = Duration::from_millis(100);

/// What all files of one command share.
pub(super) struct Importer<'a> {
    /// None in a dry run.
    pub(super) client: Option<&'a Client>,
    pub(super) set: String,
    pub(super) format: Option<Format>,
    /// Whether the rejects file may hold links.
    pub(super) keep_links: bool,
    pub(super) options: Options,
    pub(super) basis: Basis,
    pub(super) progress: Progress,
}

/// What became of one file; every line of it is in one of the counts.
#[derive(Debug, Default, Serialize)]
pub(super) struct FileSummary {
    pub(super) file: String,
    pub(super) format: &'static str,
    pub(super) lines: u64,
    /// Lines that are entries.
    pub(super) records: u64,
    pub(super) added: u64,
    pub(super) replaced: u64,
    pub(super) unchanged: u64,
    pub(super) rejected_by_reader: u64,
    pub(super) rejected_by_node: u64,
    pub(super) header: u64,
    pub(super) blank: u64,
    pub(super) comments: u64,
    pub(super) continued: u64,
    /// Whether a head that covers the entries was signed.
    pub(super) published: bool,
    pub(super) head_size: u64,
    pub(super) head_root: String,
    pub(super) rejects_file: Option<String>,
    pub(super) warnings: Vec<String>,
    pub(super) error: Option<String>,
}

impl FileSummary {
    /// Lines that were refused, by the reader or by the node.
    pub(super) fn rejected(&self) -> u64 {
        self.rejected_by_reader
            .saturating_add(self.rejected_by_node)
    }

    /// What is counted of this format.
    pub(super) fn unit(&self) -> (&'static str, &'static str) {
        if self.format == Format::Vics.name() {
            ("media entry", "media entries")
        } else {
            ("line", "lines")
        }
    }

    /// Whether every entry that was read has an outcome.
    const fn is_balanced(&self) -> bool {
        let outcomes = self.added + self.replaced + self.unchanged + self.rejected_by_node;
        !self.published || self.records == outcomes
    }
}

/// One file on its way.
struct Transfer {
    rejects: Arc<Mutex<Rejects>>,
    in_flight: InFlight,
    bytes: Arc<AtomicU64>,
}

impl Importer<'_> {
    /// Imports one file. What is wrong with the file is in the summary.
    ///
    /// # Errors
    /// When the node does not take it, or the rejects file cannot be written.
    pub(super) fn file(&mut self, path: &Path, rejects: &Path) -> Result<FileSummary, CliError> {
        self.progress.name(path.display().to_string());
        let transfer = Transfer {
            rejects: Arc::new(Mutex::new(Rejects::new(
                rejects.to_owned(),
                self.keep_links,
            ))),
            in_flight: InFlight::default(),
            bytes: Arc::default(),
        };
        let done_before = self.progress.done();
        let (read, last) = match self.client {
            Some(client) => client.wait(self.publish(client, path, &transfer))?,
            None => (self.reading(path, &transfer, None).run(), None),
        };
        let bytes = transfer.bytes.load(Ordering::Relaxed);
        self.progress.set(done_before.saturating_add(bytes));
        let mut summary = summary(path, read, last);
        let mut written = transfer
            .rejects
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let file = written
            .finish()
            .map_err(|error| rejects_error(rejects, &error))?;
        summary.rejects_file = file.map(|file| file.display().to_string());
        summary.rejected_by_reader = written.by_reader;
        summary.rejected_by_node = written.by_node;
        let stale = |error| rejects_error(rejects, &error);
        if summary.error.is_none() && written.remove_stale().map_err(stale)? {
            note(format_args!(
                "removed {}: nothing of {} is rejected any longer",
                rejects.display(),
                summary.file
            ));
        }
        if summary.error.is_none() && !summary.is_balanced() {
            summary.error = Some("the counts do not add up: report this as a defect".to_owned());
        }
        Ok(summary)
    }

    fn reading(
        &self,
        path: &Path,
        transfer: &Transfer,
        send: Option<mpsc::Sender<wire::ImportRequest>>,
    ) -> Reading {
        Reading {
            path: path.to_owned(),
            format: self.format,
            options: self.options.clone(),
            basis: self.basis,
            bytes: Arc::clone(&transfer.bytes),
            rejects: Arc::clone(&transfer.rejects),
            in_flight: Arc::clone(&transfer.in_flight),
            send,
        }
    }

    /// Reads on one thread and follows the node's answers on this one. The last
    /// answer is there only if all was signed.
    async fn publish(
        &mut self,
        client: &Client,
        path: &Path,
        transfer: &Transfer,
    ) -> Result<(ReadFile, Option<wire::ImportResponse>), CliError> {
        let (send, requests) = mpsc::channel(WAITING);
        let first = wire::ImportRequest {
            set: self.set.clone(),
            ..wire::ImportRequest::default()
        };
        send.send(first).await.map_err(CliError::failed)?;
        let reading = self.reading(path, transfer, Some(send));
        let reading = tokio::task::spawn_blocking(move || reading.run());
        let answered = self
            .follow(client, with_signs_of_life(requests), transfer)
            .await;
        // The reader has ended: it sends nothing once nobody takes it.
        let read = reading.await.map_err(CliError::failed)?;
        if read.error.is_some() {
            // The node broke off because the file did.
            return Ok((read, None));
        }
        Ok((read, Some(answered?)))
    }

    async fn follow(
        &mut self,
        client: &Client,
        requests: impl Stream<Item = wire::ImportRequest> + Send + 'static,
        transfer: &Transfer,
    ) -> Result<wire::ImportResponse, CliError> {
        let before = self.progress.done();
        let mut node = client.node();
        let answers = node
            .import(requests)
            .await
            .map_err(|status| failed(&status))?;
        let mut answers = answers.into_inner();
        let mut tick = tokio::time::interval(TICK);
        loop {
            let answer = tokio::select! {
                answer = answers.message() => answer.map_err(|status| failed(&status))?,
                _ = tick.tick() => {
                    let bytes = transfer.bytes.load(Ordering::Relaxed);
                    self.progress.set(before.saturating_add(bytes));
                    continue;
                }
            };
            let Some(answer) = answer else {
                return Err(
                    CliError::failed("the node ended the import without its last word")
                        .next("import the file again: what stands already adds nothing"),
                );
            };
            transfer.rejected(&answer)?;
            if answer.done {
                return Ok(answer);
            }
        }
    }
}

impl Transfer {
    /// Writes down what the node refused of the message that it answers.
    fn rejected(&self, answer: &wire::ImportResponse) -> Result<(), CliError> {
        let mut in_flight = self
            .in_flight
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let kept = if answer.done {
            None
        } else {
            in_flight.pop_front()
        };
        drop(in_flight);
        let kept = kept.unwrap_or_default();
        let mut rejects = self.rejects.lock().unwrap_or_else(PoisonError::into_inner);
        for rejection in &answer.rejected {
            let original = Kept::original(&kept, rejection.line);
            let facts = (
                rejection.line,
                rejection.code.as_str(),
                rejection.reason.as_str(),
            );
            let written = rejects.refused(facts, &original);
            written.map_err(|error| CliError::failed(format!("the rejects file: {error}")))?;
        }
        Ok(())
    }
}

fn summary(path: &Path, read: ReadFile, last: Option<wire::ImportResponse>) -> FileSummary {
    let counters = read.counters;
    let published = last.is_some();
    let last = last.unwrap_or_default();
    FileSummary {
        file: path.display().to_string(),
        format: read.format,
        lines: counters.lines,
        records: counters.records,
        added: last.added,
        replaced: last.replaced,
        unchanged: last.unchanged,
        header: counters.header,
        blank: counters.blank,
        comments: counters.comments,
        continued: counters.continued,
        published,
        head_size: last.head_size,
        head_root: HEXLOWER.encode(&last.head_root),
        warnings: read.warnings,
        error: read.error,
        ..FileSummary::default()
    }
}

fn rejects_error(path: &Path, error: &std::io::Error) -> CliError {
    CliError::failed(format!("{}: {error}", path.display()))
        .next("name another place with --rejects FILE")
}

/// What is read, and something empty wherever nothing was for a while.
fn with_signs_of_life(
    requests: mpsc::Receiver<wire::ImportRequest>,
) -> impl Stream<Item = wire::ImportRequest> {
    let ticks = tokio::time::interval_at(tokio::time::Instant::now() + ALIVE, ALIVE);
    let requests = ReceiverStream::new(requests).timeout_repeating(ticks);
    requests.map(Result::unwrap_or_default)
}
