//! `hashpact scan`: hashes all files of folders and asks the node for them.

mod report;
mod state;
mod walk;

use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use clap::Args;
use hashpact_api::wire;
use hashpact_core::signal::SignalKind;

use self::report::{Report, not_text};
use self::state::{Key, State};
use self::walk::{Event, Met, Walk};
use super::Context;
use super::client::{Client, connect_or_embed};
use super::error::{CliError, Exit};
use super::lookup::answer::{NearArgs, Told, ask, still_loading};
use super::lookup::item::Item;
use super::lookup::{BATCH_SIGNALS, BATCH_VIDEOS, lines};
use super::media::{Hasher, INSTALL_FFMPEG, MediaArgs};
use super::output::{Progress, note};

/// How long what was hashed waits for more before it is asked for.
const LINGER: Duration = Duration::from_millis(50);
/// How long a node is given to load what near matches need, and between looks.
const LOADING_MAX: Duration = Duration::from_secs(600);
const LOADING_LOOK: Duration = Duration::from_millis(200);

/// Hash files and folders and ask the node which are known
///
/// Each file is asked for by its digests, pictures by PDQ and videos by vPDQ as well,
/// as "hashpact lookup --hash-of" does. Prints what is known; --all prints the rest
/// too. Symbolic links are not followed, pipes and devices not opened; they are
/// counted, and so is every file that could not be read, with the reason.
///
/// With --state a second run goes on where the first was stopped, and takes up what
/// could not be read; the file is removed once all was read. It costs 17 bytes a
/// file, and names no file.
///
/// Names are whole in a file or a pipe; a terminal gets what fits it. With --json one
/// object an item and line, then one with the summary. Exit code 10 when something is
/// known, 0 when nothing is, 3 when nothing is and something could not be read, 1
/// when the scan broke off, also since nobody read on, with nothing known by then.
#[derive(Debug, Args)]
pub struct ScanArgs {
    /// Files and folders; "-" reads hashes from standard input, one KIND:VALUE a line
    #[arg(value_name = "PATH", required_unless_present = "hashes")]
    paths: Vec<PathBuf>,
    /// A file of hashes to ask for, one KIND:VALUE a line or as md5sum prints them
    #[arg(long, value_name = "FILE")]
    hashes: Vec<PathBuf>,
    /// The kind of hashes that name none
    #[arg(long, value_name = "KIND", value_parser = SignalKind::parse)]
    kind: Option<SignalKind>,
    /// Where to note what is done, to go on after a stop
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Files hashed at one time [default: as many as there are processors]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: Option<u16>,
    /// Follow symbolic links
    #[arg(long)]
    follow_links: bool,
    /// Stay on the file system of each folder given
    #[arg(long)]
    one_file_system: bool,
    /// Print what is not known as well
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    near: NearArgs,
    #[command(flatten)]
    media: MediaArgs,
}

/// A scan under way.
struct Scan<'a> {
    client: &'a Client,
    context: &'a Context,
    args: &'a ScanArgs,
    met: Arc<Met>,
    progress: Progress,
    state: Option<State>,
    report: Report,
    told: Told,
    /// With where each was found, among all.
    waiting: Vec<(u64, Item, Option<Key>)>,
    signals: usize,
    wants_ffmpeg: bool,
    /// Whether a second run has something to take up.
    again: bool,
}

/// Runs the command.
///
/// # Errors
/// When no node can be asked, or when something is known or could not be read.
pub fn run(args: &ScanArgs, context: &Context) -> Result<(), CliError> {
    let client = connect_or_embed(context)?;
    let (state, done) = match &args.state {
        Some(path) => {
            let (state, done) = State::open(path, &settings(args))?;
            (Some(state), done)
        }
        None => (None, state::Done::default()),
    };
    wait_until_loaded(&client)?;
    let earlier_known = done.known;
    let mut scan = Scan {
        client: &client,
        context,
        args,
        met: Arc::default(),
        progress: Progress::count(None),
        state,
        report: Report::default(),
        told: Told::default(),
        waiting: Vec::new(),
        signals: 0,
        wants_ffmpeg: false,
        again: false,
    };
    let (listed, roots): (Vec<_>, Vec<_>) = args
        .paths
        .iter()
        .cloned()
        .partition(|path| path == Path::new("-"));
    let threads = args.threads.map_or_else(
        || thread::available_parallelism().map_or(1, NonZero::get),
        usize::from,
    );
    let walk = Walk {
        roots,
        follow: args.follow_links,
        one_file_system: args.one_file_system,
        threads,
        done,
    };
    let hasher = Arc::new(Hasher::new(&args.media));
    let lists: Vec<&PathBuf> = listed.iter().chain(&args.hashes).collect();
    let scanned = scan.all(&lists, walk, hasher);
    let known = scan.report.known.saturating_add(earlier_known);
    match scanned.and_then(|()| scan.end(earlier_known)) {
        Err(CliError::OutputClosed) => Err(CliError::Quiet(broken_off(known))),
        ended => ended,
    }
}

/// In the order they were found in: threads end in any. Lines of hashes, which have no
/// place, keep theirs.
fn in_order<T, K>(mut waiting: Vec<(u64, T, K)>) -> Vec<(u64, T, K)> {
    waiting.sort_by_key(|(at, _, _)| *at);
    waiting
}

/// How a scan ends whose reader went away: what was known by then is said, and that
/// nothing is known is never said of what was not looked at.
const fn broken_off(known: u64) -> Exit {
    if known > 0 { Exit::Known } else { Exit::Failed }
}

/// What answers depend on.
fn settings(args: &ScanArgs) -> String {
    let ScanArgs { near, media, .. } = args;
    format!(
        "{near:?} dihedral {} video {} picture {} {} {}",
        media.dihedral,
        !media.no_video,
        media.picture_max_mib,
        media.picture_max_megapixels,
        media.picture_memory_mib
    )
}

/// Waits while the node loads what near matches need: what it said meanwhile could be
/// taken for more than it is.
fn wait_until_loaded(client: &Client) -> Result<(), CliError> {
    let looks = LOADING_MAX.as_millis() / LOADING_LOOK.as_millis();
    for look in 0..looks {
        let empty = wire::MatchRequest::default();
        let answer = client.call(client.node().r#match(empty))?;
        if answer.near_ready && answer.near_pending == 0 {
            return Ok(());
        }
        if look == 5 {
            note("the node is still loading what near matches need; the scan waits for it");
        }
        thread::sleep(LOADING_LOOK);
    }
    note(still_loading());
    Ok(())
}

impl Scan<'_> {
    /// Asks for all lines and files there are.
    fn all(&mut self, lists: &[&PathBuf], walk: Walk, hasher: Arc<Hasher>) -> Result<(), CliError> {
        for path in lists {
            self.lines(path)?;
        }
        let events = walk::start(walk, hasher, &self.met)?;
        self.follow(&events)
    }

    /// Asks for every line of a file of hashes.
    fn lines(&mut self, path: &Path) -> Result<(), CliError> {
        let name = path.display().to_string();
        lines::each(path, self.args.kind, |item| match item {
            Ok(item) => self.add(0, item, None),
            Err(error) => {
                let to = (&self.context.output, &self.progress);
                self.report.unread((&name, None), ("bad_line", &error), to)
            }
        })?;
        self.ask()
    }

    /// Asks for files as they come.
    fn follow(&mut self, events: &Receiver<Event>) -> Result<(), CliError> {
        loop {
            match events.recv_timeout(LINGER) {
                Ok(Event::Hashed(path, key, at, hashed)) => {
                    let mut item = Item::file(path.display().to_string(), &hashed)?;
                    item.bytes = not_text(&path);
                    if let Some(why) = &item.not_seen {
                        self.wants_ffmpeg |= why.wants_ffmpeg();
                    }
                    self.add(at, item, Some(key))?;
                }
                Ok(Event::Unread(path, code, error)) => {
                    let name = path.display().to_string();
                    let to = (&self.context.output, &self.progress);
                    self.report
                        .unread((&name, Some(&path)), (code, &error), to)?;
                }
                Err(RecvTimeoutError::Timeout) => self.ask()?,
                Err(RecvTimeoutError::Disconnected) => return self.ask(),
            }
        }
    }

    fn add(&mut self, at: u64, item: Item, key: Option<Key>) -> Result<(), CliError> {
        let videos = self.waiting.iter().filter(|(_, item, _)| item.is_video());
        let videos = videos.count() + usize::from(item.is_video());
        let signals = self.signals.saturating_add(item.signals.len());
        if signals > BATCH_SIGNALS || videos > BATCH_VIDEOS {
            self.ask()?;
        }
        self.signals = self.signals.saturating_add(item.signals.len());
        self.waiting.push((at, item, key));
        Ok(())
    }

    /// Asks for what waits, prints it and then notes it as done.
    fn ask(&mut self) -> Result<(), CliError> {
        self.signals = 0;
        let waiting = in_order(std::mem::take(&mut self.waiting));
        let (items, keys): (Vec<Item>, Vec<Option<Key>>) = waiting
            .into_iter()
            .map(|(_, item, key)| (item, key))
            .unzip();
        if items.is_empty() {
            self.show();
            return Ok(());
        }
        // What is not known is printed for whoever asked for all.
        let answers = ask(self.client, &self.args.near, items, &mut self.told)?;
        let incomplete = std::mem::take(&mut self.told.incomplete);
        let mut done = Vec::new();
        for (answer, key) in answers.iter().zip(keys) {
            let to = (&self.context.output, &self.progress);
            self.report.item(answer, self.args.all, to)?;
            self.report.incomplete += u64::from(incomplete);
            // What could not be looked into for now is taken up again.
            let again = answer.not_seen.as_ref().is_some_and(|why| why.is_passing) || incomplete;
            self.again |= again;
            done.extend(key.filter(|_| !again).map(|key| (key, answer.known)));
        }
        for wrong in std::mem::take(&mut self.told.wrong) {
            let to = (&self.context.output, &self.progress);
            self.report
                .unread(("a signal", None), ("bad_signal", &wrong), to)?;
        }
        if let Some(state) = &mut self.state {
            state.add(&done)?;
        }
        self.show();
        Ok(())
    }

    fn show(&mut self) {
        let found = self.met.files.load(Ordering::Relaxed);
        self.progress.set_total(found.max(self.report.asked));
        self.progress.set(self.report.asked);
        self.progress.name(format!("{} known", self.report.known));
    }

    fn end(mut self, earlier_known: u64) -> Result<(), CliError> {
        self.told.hang_up(self.client)?;
        let Self { report, state, .. } = self;
        drop(self.progress);
        report.end(&self.met, earlier_known, &self.context.output)?;
        if report.incomplete > 0 {
            note(still_loading());
        }
        if self.wants_ffmpeg {
            note(format_args!("next: {INSTALL_FFMPEG}"));
        }
        if report.unread.is_empty()
            && !self.again
            && let Some(state) = state
        {
            state.remove()?;
        }
        let whole =
            report.unread.is_empty() && report.not_seen.is_empty() && report.incomplete == 0;
        if report.known > 0 || earlier_known > 0 {
            Err(CliError::Quiet(Exit::Known))
        } else if whole {
            Ok(())
        } else {
            Err(CliError::Quiet(Exit::Partial))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_hashed_together_is_asked_for_in_the_order_it_was_found() {
        let hashed = vec![(2, "c", ()), (0, "a", ()), (1, "b", ()), (0, "a2", ())];
        let names = in_order(hashed).into_iter().map(|(_, name, ())| name);
        assert_eq!(names.collect::<Vec<_>>(), ["a", "a2", "b", "c"]);
    }

    #[test]
    fn a_scan_that_nobody_reads_on_never_says_that_nothing_is_known() {
        assert_eq!(broken_off(1), Exit::Known);
        assert_eq!(broken_off(0), Exit::Failed);
    }
}
