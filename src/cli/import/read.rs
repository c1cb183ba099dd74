//! Reading one input file into messages, on a thread of its own.

use std::collections::VecDeque;
use std::fs::{File, Metadata};
use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use hashpact_api::{basis_name, media_name, wire};
use hashpact_core::leaf::{Basis, MediaKind};
use hashpact_core::signal::{Signal, SignalKind};
use hashpact_formats::{Counters, FatalError, Format, Item, Options, Reader, Record};
use tokio::sync::mpsc;

use super::rejects::Rejects;

/// Entries in a message.
const BATCH_ENTRIES: usize = 4_096;
/// Bytes in a message, roughly: a quarter of what one may have.
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// What an entry takes beside its signals and texts.
const ENTRY_BYTES: usize = 64;

/// What is kept of an entry until the node has answered for its message.
pub(super) struct Kept {
    line: u64,
    signals: Vec<Signal>,
    reference: String,
}

/// Entries under way, a queue of messages; bounded as the messages are.
pub(super) type InFlight = Arc<Mutex<VecDeque<Vec<Kept>>>>;

/// A reader that may have looked at the beginning already.
type Input = Reader<io::Chain<Cursor<Vec<u8>>, Counting>>;

/// What one reading needs.
pub(super) struct Reading {
    pub(super) path: PathBuf,
    pub(super) format: Option<Format>,
    pub(super) options: Options,
    pub(super) basis: Basis,
    /// Bytes read so far, of all files.
    pub(super) bytes: Arc<AtomicU64>,
    pub(super) rejects: Arc<Mutex<Rejects>>,
    pub(super) in_flight: InFlight,
    /// Where messages go; none in a dry run.
    pub(super) send: Option<mpsc::Sender<wire::ImportRequest>>,
}

/// What became of a reading.
#[derive(Default)]
pub(super) struct ReadFile {
    pub(super) format: &'static str,
    pub(super) counters: Counters,
    pub(super) warnings: Vec<String>,
    /// Why the file was not read to its end, or may not be believed.
    pub(super) error: Option<String>,
}

impl Reading {
    /// Reads the file to its end and sends the last message, unless something is
    /// wrong with the file: then the node is told of no end and signs nothing.
    pub(super) fn run(self) -> ReadFile {
        let mut done = ReadFile {
            format: "unknown format",
            ..ReadFile::default()
        };
        if let Err(error) = self.read(&mut done) {
            done.error = Some(error);
        } else if let Some(send) = &self.send {
            let last = wire::ImportRequest {
                last: true,
                ..wire::ImportRequest::default()
            };
            // Whoever does not take it any more has told why.
            let _ = send.blocking_send(last);
        }
        done
    }

    fn read(&self, done: &mut ReadFile) -> Result<(), String> {
        let (input, before) = open(&self.path).map_err(|error| error.to_string())?;
        let counting = Counting {
            input,
            bytes: Arc::clone(&self.bytes),
        };
        let mut reader = self.reader(counting).map_err(|error| error.to_string())?;
        done.format = reader.format().name();
        let ended = self.items(&mut reader);
        done.counters = reader.counters();
        done.warnings = reader.warnings().iter().map(ToString::to_string).collect();
        ended?;
        if before.is_some_and(|before| before != seen(&self.path)) {
            return Err(
                "the file changed while it was read; nothing of it is signed: import it \
                 again"
                    .to_owned(),
            );
        }
        Ok(())
    }

    fn reader(&self, input: Counting) -> Result<Input, FatalError> {
        let options = self.options.clone();
        match self.format {
            Some(format) => {
                let whole = Cursor::new(Vec::new()).chain(input);
                Ok(Reader::new(format, whole, options))
            }
            None => Reader::detect(input, &self.path.to_string_lossy(), options),
        }
    }

    fn items(&self, reader: &mut Input) -> Result<(), String> {
        let mut batch = Batch::default();
        for item in reader {
            match item.map_err(|error| error.to_string())? {
                Item::Record(record) if self.send.is_some() => {
                    batch.add(record, self.basis);
                    if batch.is_full() && !self.send(std::mem::take(&mut batch)) {
                        return Ok(());
                    }
                }
                Item::Record(_) => {}
                Item::Reject(reject) => {
                    let mut rejects = self.rejects.lock().unwrap_or_else(PoisonError::into_inner);
                    let written = rejects.read(&reject);
                    written.map_err(|error| format!("the rejects file: {error}"))?;
                }
            }
        }
        self.send(batch);
        Ok(())
    }

    /// Sends a message; false once nobody takes any.
    fn send(&self, batch: Batch) -> bool {
        let Some(send) = self.send.as_ref().filter(|_| !batch.entries.is_empty()) else {
            return true;
        };
        let mut in_flight = self
            .in_flight
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        in_flight.push_back(batch.kept);
        drop(in_flight);
        let message = wire::ImportRequest {
            entries: batch.entries,
            ..wire::ImportRequest::default()
        };
        send.blocking_send(message).is_ok()
    }
}

/// Entries on their way into one message.
#[derive(Default)]
struct Batch {
    entries: Vec<wire::Entry>,
    kept: Vec<Kept>,
    bytes: usize,
}

impl Batch {
    fn is_full(&self) -> bool {
        self.entries.len() >= BATCH_ENTRIES || self.bytes >= BATCH_BYTES
    }

    fn add(&mut self, record: Record, basis: Basis) {
        let reference = record.reference.unwrap_or_default();
        let texts = record.labels.iter().map(String::len).sum::<usize>() + reference.len();
        let values: usize = record
            .signals
            .iter()
            .map(|signal| signal.value().len())
            .sum();
        self.bytes += ENTRY_BYTES + texts + values;
        let media = record
            .media_kind
            .unwrap_or_else(|| media_of(&record.signals));
        self.entries.push(wire::Entry {
            signals: record.signals.iter().map(signal).collect(),
            media_kind: media_name(media).to_owned(),
            classification: record
                .classification
                .map(|classification| classification.to_string())
                .unwrap_or_default(),
            labels: record.labels,
            basis: basis_name(record.basis.unwrap_or(basis)).to_owned(),
            source_reference: reference.clone(),
            first_seen_ms: record.first_seen_ms.unwrap_or_default(),
            expires_ms: record.expires_ms.unwrap_or_default(),
            line: record.line,
        });
        self.kept.push(Kept {
            line: record.line,
            signals: record.signals,
            reference,
        });
    }
}

impl Kept {
    /// What would have been imported of `line`, as the readers take it again.
    pub(super) fn original(kept: &[Self], line: u64) -> String {
        let Some(entry) = kept.iter().find(|entry| entry.line == line) else {
            return String::new();
        };
        let specs = entry.signals.iter().map(|signal| {
            let quality = signal.quality().map(|quality| format!("#{quality}"));
            let (kind, text) = (signal.kind(), signal.to_text());
            format!("{kind}:{text}{}", quality.unwrap_or_default())
        });
        let mut parts: Vec<String> = specs.collect();
        if !entry.reference.is_empty() {
            parts.push(entry.reference.clone());
        }
        parts.join(";")
    }
}

fn signal(signal: &Signal) -> wire::Signal {
    wire::Signal {
        kind: signal.kind().number(),
        value: signal.value().clone(),
        quality: signal.quality().map(u32::from),
    }
}

/// What the media is, by what its signals are made of.
fn media_of(signals: &[Signal]) -> MediaKind {
    let of = |signal: &Signal| match signal.kind() {
        SignalKind::Pdq | SignalKind::PhotoDna => Some(MediaKind::Image),
        SignalKind::Vpdq
        | SignalKind::TmkPdqf
        | SignalKind::Videntifier
        | SignalKind::SsvhPdna
        | SignalKind::SsvhSaferHash => Some(MediaKind::Video),
        SignalKind::Url => Some(MediaKind::Url),
        SignalKind::Md5
        | SignalKind::Sha1
        | SignalKind::Sha256
        | SignalKind::Sha512
        | SignalKind::Netclean => None,
    };
    signals.iter().find_map(of).unwrap_or(MediaKind::Other)
}

/// Length and time of change of a plain file.
type Seen = Option<(u64, Option<SystemTime>)>;

/// Opens a file, or standard input for "-"; says how a plain file looks before it
/// is read.
fn open(path: &Path) -> io::Result<(Box<dyn Read + Send>, Option<Seen>)> {
    if path == Path::new("-") {
        return Ok((Box::new(io::stdin()), None));
    }
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    let before = metadata.is_file().then(|| look(&metadata));
    Ok((Box::new(file), before))
}

fn seen(path: &Path) -> Seen {
    std::fs::metadata(path)
        .ok()
        .and_then(|metadata| look(&metadata))
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "a file that is gone has looked like nothing"
)]
fn look(metadata: &Metadata) -> Seen {
    Some((metadata.len(), metadata.modified().ok()))
}

/// Counts what is read, for the progress bar.
pub(super) struct Counting {
    input: Box<dyn Read + Send>,
    bytes: Arc<AtomicU64>,
}

impl Read for Counting {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.input.read(buffer)?;
        let read = u64::try_from(length).unwrap_or(u64::MAX);
        self.bytes.fetch_add(read, Ordering::Relaxed);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(text: &str, send: Option<mpsc::Sender<wire::ImportRequest>>) -> (ReadFile, u64) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("in.txt");
        std::fs::write(&path, text).unwrap();
        let rejects = Arc::new(Mutex::new(Rejects::new(
            folder.path().join("rejects.csv"),
            false,
        )));
        let reading = Reading {
            path,
            format: Some(Format::List),
            options: Options::default(),
            basis: Basis::Inherited,
            bytes: Arc::default(),
            rejects: Arc::clone(&rejects),
            in_flight: Arc::default(),
            send,
        };
        let done = reading.run();
        let rejected = rejects.lock().unwrap().by_reader;
        (done, rejected)
    }

    #[test]
    fn every_line_is_accounted_for() {
        let text = "MD5:00112233445566778899aabbccddeeff\n\nnothing\n# a comment\n";
        let (done, rejected) = reading(text, None);
        assert_eq!(done.error, None);
        assert_eq!((done.counters.records, rejected), (1, 1));
        assert!(done.counters.is_balanced());
    }

    #[test]
    fn entries_are_sent_and_then_the_last_message() {
        let (send, mut sent) = mpsc::channel(8);
        let text = "MD5:00112233445566778899aabbccddeeff\n";
        reading(text, Some(send));
        let first = sent.blocking_recv().unwrap();
        assert_eq!(first.entries.len(), 1);
        assert_eq!(first.entries[0].basis, "inherited");
        assert!(!first.last);
        assert!(sent.blocking_recv().unwrap().last);
    }

    #[test]
    fn a_file_that_cannot_be_read_sends_no_last_message() {
        let (send, mut sent) = mpsc::channel(8);
        let (done, _) = reading("\u{feff}", Some(send));
        assert_eq!(done.error, None);
        assert!(sent.blocking_recv().unwrap().last);
        let (send, mut sent) = mpsc::channel(8);
        let mut reading = Reading {
            path: PathBuf::from("/nonexistent"),
            format: None,
            options: Options::default(),
            basis: Basis::Human,
            bytes: Arc::default(),
            rejects: Arc::new(Mutex::new(Rejects::new(PathBuf::new(), false))),
            in_flight: Arc::default(),
            send: None,
        };
        reading.send = Some(send);
        assert!(reading.run().error.is_some());
        assert!(sent.blocking_recv().is_none());
    }

    #[test]
    fn the_original_of_a_refused_entry_is_what_would_have_been_imported() {
        let pdq = "f8f8f0cce0f4e84d0e370a22028f67f0b36e2ed596623e1d33e6b39c4e9c9b22";
        let signal = Signal::parse(SignalKind::Pdq, pdq)
            .unwrap()
            .with_quality(Some(80));
        let kept = [Kept {
            line: 5,
            signals: vec![signal.unwrap()],
            reference: "r".to_owned(),
        }];
        assert_eq!(Kept::original(&kept, 5), format!("PDQ:{pdq}#80;r"));
        assert_eq!(Kept::original(&kept, 6), "");
    }

    #[test]
    fn the_media_follows_from_the_signals() {
        let of = |spec: &str| media_of(&[Signal::parse_spec(spec).unwrap()]);
        let pdq = "f8f8f0cce0f4e84d0e370a22028f67f0b36e2ed596623e1d33e6b39c4e9c9b22";
        assert_eq!(of(&format!("PDQ:{pdq}")), MediaKind::Image);
        assert_eq!(of(&format!("URL:{pdq}")), MediaKind::Url);
        assert_eq!(of(&format!("SHA256:{pdq}")), MediaKind::Other);
    }
}
