//! `hashpact lookup`: asks the node whether signals are known.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use clap::Args;
use hashpact_api::wire;
use hashpact_core::signal::{Signal, SignalKind};
use hashpact_matching::pdq::{DEFAULT_DISTANCE, MAX_DISTANCE};
use serde::Serialize;

use super::Context;
use super::client::{Client, connect_or_embed};
use super::error::{CliError, Exit};
use super::hash::hash_path;
use super::output::{count, note, stamp};

/// Items in one call.
const BATCH: usize = 2_000;
/// A line of a file of items: the longest signal that can be written, and room.
const LINE_MAX_BYTES: u64 = 64 * 1024;
/// Columns of an item's name in the lines for people.
const ITEM_WIDTH: usize = 26;

/// Ask the node whether signals are known
///
/// An answer names entry (with publisher and set), classification, time, and whom
/// to ask. A value without a kind is asked about as --kind says; without --kind by
/// its hexadecimal digits: 32 MD5, 40 SHA1, 128 SHA512, and 64 both SHA256 and PDQ.
/// PDQ matches what differs in at most --distance of its 256 bits.
///
/// With --json, one object per item and line. Exit code 0 when something is known,
/// 3 when nothing is, or when some items could not be read.
#[derive(Debug, Args)]
pub struct LookupArgs {
    /// Signals such as MD5:HEX or PDQ:HEX; hexadecimal of any case, base64, base32
    #[arg(value_name = "KIND:VALUE", required_unless_present_any = ["file", "hash_of"])]
    pub signals: Vec<String>,
    /// A file with one KIND:VALUE a line, or what md5sum and sha256sum print; "-" is
    /// standard input
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Files to hash (MD5, SHA-1, SHA-256) and ask for
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub hash_of: Vec<PathBuf>,
    /// The kind of values that name none
    #[arg(long, value_name = "KIND", value_parser = SignalKind::parse)]
    pub kind: Option<SignalKind>,
    /// PDQ: bits that may differ, 0 to 64; 0 asks for the very value
    #[arg(long, value_name = "BITS", default_value_t = DEFAULT_DISTANCE,
        value_parser = clap::value_parser!(u32).range(..=i64::from(MAX_DISTANCE)))]
    pub distance: u32,
    /// Print what is known only
    #[arg(long)]
    pub hits_only: bool,
}

/// One thing that is asked for, by all its signals.
struct Item {
    /// As it is shown: a signal, or a file's path.
    name: String,
    signals: Vec<Signal>,
}

#[derive(Serialize)]
struct ItemObject {
    item: String,
    known: bool,
    /// Whether there are more matches than these.
    more: bool,
    matches: Vec<MatchObject>,
}

#[derive(Serialize)]
struct MatchObject {
    signal: String,
    distance: u32,
    entry: String,
    set: String,
    index: u64,
    publisher: String,
    publisher_number: u32,
    publisher_name: String,
    contact_name: String,
    contact_email: String,
    contact_phone: String,
    classification: String,
    basis: String,
    media_kind: String,
    published: Option<String>,
    quality: Option<u32>,
    standing: String,
}

/// What was asked so far, and what came of it.
struct Asking<'a> {
    client: &'a Client,
    context: &'a Context,
    hits_only: bool,
    distance: u32,
    /// Whether the node said that near matches are not all to be had.
    incomplete: bool,
    waiting: Vec<Item>,
    asked: u64,
    known: u64,
    unread: u64,
    publishers: BTreeMap<String, wire::Publisher>,
}

/// Runs the command.
///
/// # Errors
/// When no node can be asked, or a signal on the command line cannot be read.
pub fn run(args: &LookupArgs, context: &Context) -> Result<(), CliError> {
    let mut given = Vec::new();
    for (at, text) in (1..).zip(&args.signals) {
        let item = item(text, args.kind).map_err(|error| {
            CliError::usage(format!("signal number {at}: {error}"))
                .next("write KIND:VALUE, such as MD5:HEX")
        })?;
        given.push(item);
    }
    let client = connect_or_embed(context)?;
    let mut asking = Asking {
        client: &client,
        context,
        hits_only: args.hits_only,
        distance: args.distance,
        incomplete: false,
        waiting: Vec::new(),
        asked: 0,
        known: 0,
        unread: 0,
        publishers: BTreeMap::new(),
    };
    for item in given {
        asking.add(item)?;
    }
    if let Some(path) = &args.file {
        asking.file(path, args.kind)?;
    }
    for path in &args.hash_of {
        asking.hash_of(path)?;
    }
    asking.ask()?;
    asking.end()
}

impl Asking<'_> {
    fn add(&mut self, item: Item) -> Result<(), CliError> {
        self.waiting.push(item);
        if self.waiting.len() >= BATCH {
            self.ask()?;
        }
        Ok(())
    }

    /// Asks for every line of a file; one that cannot be read is named and the
    /// others go on.
    fn file(&mut self, path: &Path, kind: Option<SignalKind>) -> Result<(), CliError> {
        let fail = |error: io::Error| CliError::failed(format!("{}: {error}", path.display()));
        let mut input: Box<dyn BufRead> = if path == Path::new("-") {
            Box::new(io::stdin().lock())
        } else {
            Box::new(BufReader::new(File::open(path).map_err(fail)?))
        };
        let mut text = Vec::new();
        for line in 1_u64.. {
            text.clear();
            let mut limited = io::Read::take(&mut input, LINE_MAX_BYTES);
            if limited.read_until(b'\n', &mut text).map_err(fail)? == 0 {
                break;
            }
            if text.len() as u64 == LINE_MAX_BYTES {
                let what = format!("{}, line {line}: the line is too long", path.display());
                return Err(CliError::failed(what).next("one KIND:VALUE a line"));
            }
            let Ok(text) = std::str::from_utf8(&text) else {
                self.skip(format_args!("{}, line {line}: not UTF-8", path.display()));
                continue;
            };
            let text = text.trim_start_matches('\u{feff}').trim();
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            match item(text, kind).or_else(|error| listed(text).ok_or(error)) {
                Ok(item) => self.add(item)?,
                Err(error) => self.skip(format_args!("{}, line {line}: {error}", path.display())),
            }
        }
        Ok(())
    }

    fn hash_of(&mut self, path: &Path) -> Result<(), CliError> {
        let name = path.display().to_string();
        let hashes = match hash_path(path, |_| ()) {
            Ok(hashes) => hashes,
            Err(error) => {
                self.skip(format_args!("{name}: {error}"));
                return Ok(());
            }
        };
        let parsed: Result<Vec<Signal>, _> = [
            (SignalKind::Md5, &hashes.md5),
            (SignalKind::Sha1, &hashes.sha1),
            (SignalKind::Sha256, &hashes.sha256),
        ]
        .into_iter()
        .map(|(kind, text)| Signal::parse(kind, text))
        .collect();
        let signals = parsed.map_err(CliError::failed)?;
        self.add(Item { name, signals })
    }

    /// Names what cannot be read, without its value.
    fn skip(&mut self, what: std::fmt::Arguments<'_>) {
        self.unread += 1;
        note(format_args!("error: {what}"));
    }

    /// Asks for what waits.
    fn ask(&mut self) -> Result<(), CliError> {
        let items = std::mem::take(&mut self.waiting);
        let signals = items.iter().flat_map(|item| &item.signals);
        let request = wire::MatchRequest {
            max_distance: Some(self.distance),
            signals: signals
                .map(|signal| wire::Signal {
                    kind: signal.kind().number(),
                    value: signal.value().clone(),
                    quality: None,
                })
                .collect(),
        };
        let response = self.client.call(self.client.node().r#match(request))?;
        self.incomplete |= !response.near_ready || response.near_pending > 0;
        let mut answers = response.answers.into_iter();
        for item in items {
            let answers: Vec<wire::Answer> = answers.by_ref().take(item.signals.len()).collect();
            self.answer(item, answers)?;
        }
        Ok(())
    }

    fn answer(&mut self, item: Item, answers: Vec<wire::Answer>) -> Result<(), CliError> {
        let mut matches = Vec::new();
        let mut more = false;
        for (signal, answer) in item.signals.iter().zip(answers) {
            if !answer.error_code.is_empty() {
                self.skip(format_args!(
                    "a signal of kind {}: {}",
                    signal.kind(),
                    answer.error
                ));
            }
            more |= answer.more;
            for found in answer.matches {
                matches.push(object(signal, found, &mut self.publishers));
            }
        }
        self.asked += 1;
        let known = !matches.is_empty();
        self.known += u64::from(known);
        if !known && self.hits_only {
            return Ok(());
        }
        let output = &self.context.output;
        if !known {
            output.line(format_args!("{:<ITEM_WIDTH$}  not known", clip(&item.name)))?;
        }
        for found in &matches {
            let class = match found.classification.as_str() {
                "" => "-",
                class => class,
            };
            let published = found.published.as_deref();
            let day = published.and_then(|time| time.get(..10)).unwrap_or("-");
            let review = if found.standing == "active" {
                ""
            } else {
                "  review"
            };
            let near = match found.distance {
                0 => String::new(),
                bits => format!("  {bits} bits off"),
            };
            let (name, entry) = (clip(&item.name), &found.entry);
            output.line(format_args!(
                "{name:<ITEM_WIDTH$}  {class:<8}  {day}  {entry}{near}{review}"
            ))?;
        }
        if more {
            output.line(format_args!("{:<ITEM_WIDTH$}  and more", ""))?;
        }
        let item = item.name;
        output.json(&ItemObject {
            item,
            known,
            more,
            matches,
        })
    }

    fn end(self) -> Result<(), CliError> {
        let output = &self.context.output;
        let (known, asked) = (count(self.known), count(self.asked));
        output.line(format_args!("{known} of {asked} known"))?;
        if self.incomplete {
            note(
                "the node is still loading PDQ signals: near matches may be missing; ask again \
                 when /ready says near_ready",
            );
        }
        for (slug, publisher) in &self.publishers {
            let contact = [
                publisher.display_name.as_str(),
                publisher.contact_name.as_str(),
                publisher.contact_email.as_str(),
                publisher.contact_phone.as_str(),
            ];
            let contact: Vec<&str> = contact
                .into_iter()
                .filter(|text| !text.is_empty())
                .collect();
            output.line(format_args!("  {slug}: {}", contact.join(", ")))?;
        }
        if self.known > 0 && self.unread == 0 {
            Ok(())
        } else {
            Err(CliError::Quiet(Exit::Partial))
        }
    }
}

/// Reads `KIND:VALUE`, or a bare value by `kind` or its length.
fn item(text: &str, kind: Option<SignalKind>) -> Result<Item, String> {
    let text = text.trim();
    let parse = |kind| Signal::parse(kind, text).map_err(|error| error.to_string());
    let named = text
        .split_once(':')
        .map(|(kind, _)| SignalKind::parse(kind.trim()));
    let signals = match (named, kind) {
        (Some(Ok(_)), _) => {
            vec![Signal::parse_spec(text).map_err(|error| error.to_string())?]
        }
        (_, Some(kind)) => vec![parse(kind)?],
        (Some(Err(error)), None) => return Err(error.to_string()),
        (None, None) => {
            let kinds = kinds_of(text)?;
            kinds.iter().copied().map(parse).collect::<Result<_, _>>()?
        }
    };
    let name = match signals.as_slice() {
        [one] => format!("{}:{}", one.kind(), one.to_text()),
        _ => text.to_ascii_lowercase(),
    };
    Ok(Item { name, signals })
}

/// Reads what a checksum program printed, as `hashpact import` does; the file's name
/// is dropped.
fn listed(line: &str) -> Option<Item> {
    let signal = hashpact_formats::checksum_line(line)?;
    Some(Item {
        name: format!("{}:{}", signal.kind(), signal.to_text()),
        signals: vec![signal],
    })
}

/// The kinds that a bare value can be of.
fn kinds_of(text: &str) -> Result<&'static [SignalKind], String> {
    let hexadecimal = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    match text.len() {
        32 if hexadecimal => Ok(&[SignalKind::Md5]),
        40 if hexadecimal => Ok(&[SignalKind::Sha1]),
        64 if hexadecimal => Ok(&[SignalKind::Sha256, SignalKind::Pdq]),
        128 if hexadecimal => Ok(&[SignalKind::Sha512]),
        _ => Err("the kind cannot be told from the value: name it, or give --kind".to_owned()),
    }
}

/// The beginning of a long name.
fn clip(name: &str) -> String {
    if name.chars().count() <= ITEM_WIDTH {
        return name.to_owned();
    }
    let start: String = name.chars().take(ITEM_WIDTH.saturating_sub(1)).collect();
    format!("{start}…")
}

fn object(
    signal: &Signal,
    found: wire::Match,
    publishers: &mut BTreeMap<String, wire::Publisher>,
) -> MatchObject {
    let publisher = found.publisher.unwrap_or_default();
    publishers
        .entry(publisher.slug.clone())
        .or_insert_with(|| publisher.clone());
    MatchObject {
        signal: format!("{}:{}", signal.kind(), signal.to_text()),
        distance: found.distance,
        entry: found.entry,
        set: found.set,
        index: found.index,
        publisher: publisher.slug,
        publisher_number: publisher.number,
        publisher_name: publisher.display_name,
        contact_name: publisher.contact_name,
        contact_email: publisher.contact_email,
        contact_phone: publisher.contact_phone,
        classification: found.classification,
        basis: found.basis,
        media_kind: found.media_kind,
        published: stamp(found.published_ms),
        quality: found.quality,
        standing: found.standing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_value_is_asked_about_by_its_length() {
        let kinds = |text: &str| -> Vec<SignalKind> {
            let signals = item(text, None).unwrap().signals;
            signals.iter().map(Signal::kind).collect()
        };
        assert_eq!(kinds(&"0a".repeat(16)), [SignalKind::Md5]);
        assert_eq!(kinds(&"0A".repeat(20)), [SignalKind::Sha1]);
        assert_eq!(
            kinds(&"0a".repeat(32)),
            [SignalKind::Sha256, SignalKind::Pdq]
        );
        assert_eq!(kinds(&"0a".repeat(64)), [SignalKind::Sha512]);
        let url = item(&"0a".repeat(32), Some(SignalKind::Url)).unwrap();
        assert_eq!(url.signals[0].kind(), SignalKind::Url);
    }

    #[test]
    fn a_named_kind_counts_and_errors_have_no_value() {
        let md5 = format!("md5:{}", "0A".repeat(16));
        assert_eq!(
            item(&md5, None).unwrap().name,
            format!("MD5:{}", "0a".repeat(16))
        );
        for bad in ["c0ffee", "md5:c0ffee", "crc:c0ffee"] {
            let error = item(bad, None).err().unwrap();
            assert!(!error.contains("c0ffee"), "{error}");
        }
    }

    #[test]
    fn what_checksum_programs_print_is_asked_for_without_the_file_name() {
        let digest = "0a".repeat(32);
        for line in [
            format!("{digest}  a photo.jpg"),
            format!("{digest} *a photo.jpg"),
            format!("SHA256 (a photo.jpg) = {digest}"),
        ] {
            assert!(item(&line, None).is_err(), "{line}");
            let item = listed(&line).unwrap();
            assert_eq!(item.name, format!("SHA256:{digest}"));
            assert_eq!(item.signals.len(), 1);
        }
        assert!(listed("no digest at all").is_none());
    }

    #[test]
    fn long_names_are_clipped() {
        assert_eq!(clip("short"), "short");
        assert_eq!(clip(&"x".repeat(100)).chars().count(), ITEM_WIDTH);
    }
}
