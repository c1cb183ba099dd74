//! `hashpact lookup`: asks the node whether signals, files and links are known.

pub(super) mod answer;
pub(super) mod item;
pub(super) mod lines;
mod opinions;
mod past;

use std::path::{Path, PathBuf};

use clap::Args;
use hashpact_core::signal::SignalKind;

pub(super) use self::answer::doubt_in_words;
use self::answer::{NearArgs, Told, ask, still_loading};
use self::item::Item;
use super::Context;
use super::client::{Client, connect_or_embed};
use super::error::{CliError, Exit};
use super::media::{Hasher, INSTALL_FFMPEG, MediaArgs, links_of};
use super::output::{count, note};

/// Signals in one call.
pub(super) const BATCH_SIGNALS: usize = 2_000;
/// Videos in one call, each of which has up to 200 frames.
pub(super) const BATCH_VIDEOS: usize = 8;

/// Ask the node whether signals, files or links are known
///
/// An answer names entry (with publisher and set), classification, time, and whom
/// to ask. A value without a kind is asked about as --kind says; without --kind by
/// its hexadecimal digits: 32 MD5, 40 SHA1, 128 SHA512, and 64 both SHA256 and PDQ.
/// PDQ matches what differs in at most --distance of its 256 bits.
///
/// --hash-of hashes files as "hashpact hash" does and asks for all of it at once:
/// digests, PDQ of pictures, vPDQ of videos. --url asks for a link by its
/// expressions: what is sent and shown are digests and a number.
///
/// --as-of asks by what was held then; what cannot be said any more is "unknown".
///
/// With --json, one object per item and line, and with --as-of a last one for the
/// sets. Exit code 0 when something is known, 3 when nothing is, or when some items
/// could not be read.
#[derive(Debug, Args)]
pub struct LookupArgs {
    /// Signals such as MD5:HEX or PDQ:HEX; hexadecimal of any case, base64, base32
    #[arg(value_name = "KIND:VALUE", required_unless_present_any = ["file", "hash_of", "url"])]
    pub signals: Vec<String>,
    /// A file with one KIND:VALUE a line, or what md5sum and sha256sum print; "-" is
    /// standard input
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Files to hash and ask for; "-" is standard input
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub hash_of: Vec<PathBuf>,
    /// A link to ask for; may be repeated. "-" reads links from standard input, one a
    /// line, so that they stand in no process list
    #[arg(long, value_name = "URL")]
    pub url: Vec<String>,
    /// The kind of values that name none
    #[arg(long, value_name = "KIND", value_parser = SignalKind::parse)]
    pub kind: Option<SignalKind>,
    /// What the node would have answered then, by exact values: a time such as
    /// 2026-11-22T06:40:00Z, or SET=SIZE for each set that is meant
    #[arg(long, value_name = "TIME|SET=SIZE", conflicts_with_all = ["file", "hash_of"])]
    as_of: Vec<past::Moment>,
    /// Print what is known only
    #[arg(long)]
    pub hits_only: bool,
    #[command(flatten)]
    near: NearArgs,
    #[command(flatten)]
    media: MediaArgs,
}

/// What was asked so far, and what came of it.
struct Asking<'a> {
    client: &'a Client,
    context: &'a Context,
    args: &'a LookupArgs,
    told: Told,
    waiting: Vec<Item>,
    signals: usize,
    asked: u64,
    known: u64,
    unread: u64,
    /// Lines of a file among them.
    unread_lines: u64,
    wants_ffmpeg: bool,
}

/// Runs the command.
///
/// # Errors
/// When no node can be asked, or a signal on the command line cannot be read.
pub fn run(args: &LookupArgs, context: &Context) -> Result<(), CliError> {
    let mut given = Vec::new();
    for (at, text) in (1..).zip(&args.signals) {
        let item = Item::read(text, args.kind).map_err(|error| {
            CliError::usage(format!("signal number {at}: {error}"))
                .next("write KIND:VALUE, such as MD5:HEX")
        })?;
        given.push(item);
    }
    let links = links_of(&args.url)?;
    if !args.as_of.is_empty() {
        let items = links.into_iter().map(Item::link);
        let items: Result<Vec<Item>, String> = items.collect();
        given.extend(items.map_err(CliError::usage)?);
        return past::run(&args.as_of, given, args.hits_only, context);
    }
    let client = connect_or_embed(context)?;
    let mut asking = Asking {
        client: &client,
        context,
        args,
        told: Told::default(),
        waiting: Vec::new(),
        signals: 0,
        asked: 0,
        known: 0,
        unread: 0,
        unread_lines: 0,
        wants_ffmpeg: false,
    };
    for item in given {
        asking.add(item)?;
    }
    for link in links {
        asking.take(Item::link(link))?;
    }
    if let Some(path) = &args.file {
        let name = path.display();
        lines::each(path, args.kind, |item| {
            asking.unread_lines += u64::from(item.is_err());
            asking.take(item.map_err(|why| format!("{name}, {why}")))
        })?;
    }
    let hasher = Hasher::new(&args.media);
    for path in &args.hash_of {
        asking.hash_of(path, &hasher)?;
    }
    asking.ask()?;
    asking.end()
}

/// A look-up whose reader went away has not asked for everything: 0 is for what is
/// known by then.
fn closed(error: CliError, known: u64) -> CliError {
    if known == 0 && matches!(error, CliError::OutputClosed) {
        CliError::Quiet(Exit::Partial)
    } else {
        error
    }
}

impl Asking<'_> {
    fn take(&mut self, item: Result<Item, String>) -> Result<(), CliError> {
        match item {
            Ok(item) => self.add(item),
            Err(error) => {
                self.skip(error);
                Ok(())
            }
        }
    }

    fn add(&mut self, item: Item) -> Result<(), CliError> {
        let videos = self.waiting.iter().filter(|item| item.is_video());
        let videos = videos.count() + usize::from(item.is_video());
        let signals = self.signals.saturating_add(item.signals.len());
        if signals > BATCH_SIGNALS || videos > BATCH_VIDEOS {
            self.ask()?;
        }
        self.signals = self.signals.saturating_add(item.signals.len());
        self.waiting.push(item);
        Ok(())
    }

    fn hash_of(&mut self, path: &Path, hasher: &Hasher) -> Result<(), CliError> {
        let name = path.display().to_string();
        let hashed = match hasher.named(path, |_| ()) {
            Ok(hashed) => hashed,
            Err(error) => {
                self.skip(format!("{name}: {error}"));
                return Ok(());
            }
        };
        let item = Item::file(name, &hashed)?;
        if let Some(error) = &item.not_seen {
            self.wants_ffmpeg |= error.wants_ffmpeg();
            let what = format!("{}: {error}", item.name);
            self.skip(what);
        }
        self.add(item)
    }

    /// Names what cannot be read, without its value.
    fn skip(&mut self, what: String) {
        self.unread += 1;
        note(format_args!("error: {what}"));
    }

    /// Asks for what waits.
    fn ask(&mut self) -> Result<(), CliError> {
        let items = std::mem::take(&mut self.waiting);
        self.signals = 0;
        if items.is_empty() {
            return Ok(());
        }
        let answered = ask(self.client, &self.args.near, items, &mut self.told)?;
        for wrong in std::mem::take(&mut self.told.wrong) {
            self.skip(wrong);
        }
        for item in answered {
            self.asked += 1;
            self.known += u64::from(item.known);
            if item.known || !self.args.hits_only {
                let output = &self.context.output;
                let printed = item.lines(output).and_then(|()| output.json(&item));
                printed.map_err(|error| closed(error, self.known))?;
            }
        }
        Ok(())
    }

    fn end(mut self) -> Result<(), CliError> {
        self.told.hang_up(self.client)?;
        let output = &self.context.output;
        let (known, asked) = (count(self.known), count(self.asked));
        output.line(format_args!("{known} of {asked} known"))?;
        if self.told.incomplete {
            note(still_loading());
        }
        if self.unread_lines > 0 {
            note("next: write KIND:VALUE a line, such as MD5:HEX; --kind is for lines without one");
        }
        if self.wants_ffmpeg {
            note(format_args!("next: {INSTALL_FFMPEG}"));
        }
        for (slug, publisher) in &self.told.publishers {
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
