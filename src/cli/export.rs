//! `hashpact export`: writes live entries to a file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use hashpact_api::wire;
use hashpact_core::leaf::{Basis, Classification, MediaKind};
use hashpact_core::reject::Rejection;
use hashpact_core::signal::{Signal, SignalKind};
use hashpact_formats::{CsvExport, ExportRow, JsonExport, State};
use serde::Serialize;

use super::Context;
use super::client::{Client, connect_or_embed, failed};
use super::error::CliError;
use super::output::{Progress, counted, note};
use super::values::SetReference;

/// What is gathered before it is written.
const BUFFER_BYTES: usize = 256 * 1024;

/// Write the live entries of sets as CSV or JSON Lines
///
/// The output holds signal values: keep it as safe as the store. A file is written
/// for its owner alone, and appears only once it is whole. A set that its terms
/// keep local is refused, with the terms.
///
/// With --follow it goes on with every change, for a matcher of the member's own:
/// each line says what became of one version of an entry, named by set and index.
/// A line may come twice, and none is lost. Sets that may not be shared on are
/// among them, so the lines are for this member's systems alone.
#[derive(Debug, Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line"
)]
pub struct ExportArgs {
    /// A set to write: SET of this member, or MEMBER/SET; may be repeated
    #[arg(long = "set", value_name = "SET", required_unless_present_any = ["all", "follow"])]
    pub sets: Vec<SetReference>,
    /// Every set that the node holds and that may be shared on
    #[arg(long, conflicts_with = "sets")]
    pub all: bool,
    /// The format
    #[arg(long, value_name = "FORMAT", default_value = "csv")]
    pub format: ExportFormat,
    /// File to write, which must not exist; "-" is standard output
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    pub output: PathBuf,
    /// Print every change of what the node acts on, of all sets, from where the
    /// consumer acknowledged last; a new one is told everything first
    #[arg(long, requires = "consumer", conflicts_with_all = ["sets", "all", "output"])]
    pub follow: bool,
    /// Add what this node's policy makes of each entry, as a last column "verdict"
    #[arg(long, conflicts_with = "follow")]
    pub verdicts: bool,
    /// Only entries with this verdict; may be repeated. Implies --verdicts
    #[arg(long = "verdict", value_name = "VERDICT", conflicts_with = "follow",
        value_parser = ["enforce", "review", "observe", "ignore"])]
    pub only: Vec<String>,
    /// With --follow: the name that the node remembers this consumer by
    #[arg(long, value_name = "NAME", requires = "follow")]
    pub consumer: Option<String>,
    /// With --follow: start over with everything
    #[arg(long, requires = "follow")]
    pub restart: bool,
    /// With --follow: end once there is nothing more at present
    #[arg(long, requires = "follow")]
    pub until_caught_up: bool,
}

/// Formats of exported files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// Comma-separated, one entry a line; hashpact import reads it back
    Csv,
    /// One JSON object per entry and line; hashpact import reads it back
    Jsonl,
}

#[derive(Serialize)]
struct Summary {
    file: String,
    format: &'static str,
    entries: u64,
    sets: Vec<String>,
    left_out: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// When a set is not held, may not leave, or the file cannot be written.
pub fn run(args: &ExportArgs, context: &Context) -> Result<(), CliError> {
    if args.follow {
        return super::follow::run(args, context);
    }
    let to_stdout = args.output == Path::new("-");
    if to_stdout && context.output.is_json() {
        return Err(CliError::usage(
            "--json prints one object on standard output, and so would the export",
        )
        .next("give a file with --output FILE"));
    }
    if !to_stdout && args.output.exists() {
        return Err(
            CliError::failed(format!("{} exists", args.output.display()))
                .next("name another file with --output FILE, or move it away"),
        );
    }
    let client = connect_or_embed(context)?;
    let (sets, left_out) = chosen(&client, args)?;
    for set in &left_out {
        note(format!("left out: {set}"));
    }
    let mut output = Target::open(&args.output, context)?;
    let verdicts = args.verdicts || !args.only.is_empty();
    let mut writer = Writer::new(
        (args.format, verdicts),
        BufWriter::with_capacity(BUFFER_BYTES, &mut output),
    )
    .map_err(write_error(&args.output))?;
    let mut progress = Progress::count(None);
    let mut entries = 0;
    for set in &sets {
        progress.name(set.clone());
        let request = wire::ExportRequest {
            set: set.clone(),
            include_dead: false,
            verdicts,
            only_verdicts: args.only.clone(),
        };
        let written = export(&client, request, &mut writer, &mut progress, &args.output);
        entries += client.wait(written)?;
    }
    drop(progress);
    writer.finish().map_err(write_error(&args.output))?;
    output.finish().map_err(write_error(&args.output))?;
    let file = args.output.display().to_string();
    if !to_stdout {
        let (entries, sets) = (counted(entries, "entry", "entries"), sets.join(", "));
        context
            .output
            .line(format_args!("{file}: {entries} of {sets}"))?;
    }
    context.output.json(&Summary {
        file,
        format: match args.format {
            ExportFormat::Csv => "csv",
            ExportFormat::Jsonl => "jsonl",
        },
        entries,
        sets,
        left_out,
    })
}

/// The names of the sets to write, and those that their terms keep here.
fn chosen(client: &Client, args: &ExportArgs) -> Result<(Vec<String>, Vec<String>), CliError> {
    if !args.all {
        let own = &client.config().member.slug;
        let mut names = Vec::new();
        for set in &args.sets {
            // Asked before anything is written; the node refuses it as well.
            let set = set.resolve(own).to_string();
            let set = client.call(client.node().show_set(wire::ShowSetRequest { set }))?;
            if !set.may_share {
                let refused = CliError::failed(format!("not shared on: {}", terms(&set)));
                return Err(refused.next("without the list owner's permission it stays here"));
            }
            names.push(set.name);
        }
        return Ok((names, Vec::new()));
    }
    let all = client
        .call(client.node().list_sets(wire::ListSetsRequest {}))?
        .sets;
    let (may, may_not): (Vec<_>, Vec<_>) = all.into_iter().partition(|set| set.may_share);
    Ok((
        may.into_iter().map(|set| set.name).collect(),
        may_not.iter().map(terms).collect(),
    ))
}

/// The terms that keep a set here, as they are quoted.
fn terms(set: &wire::SetInfo) -> String {
    let (name, owner) = (&set.name, &set.source);
    match set.terms.as_str() {
        "" => format!("{name}: a list of {owner} that may not be shared on"),
        terms => format!("{name}: a list of {owner}: {terms}"),
    }
}

async fn export<W: Write>(
    client: &Client,
    request: wire::ExportRequest,
    writer: &mut Writer<W>,
    progress: &mut Progress,
    path: &Path,
) -> Result<u64, CliError> {
    let mut node = client.node();
    let pages = node
        .export(request)
        .await
        .map_err(|status| failed(&status))?;
    let mut pages = pages.into_inner();
    let mut entries = 0;
    while let Some(page) = pages.message().await.map_err(|status| failed(&status))? {
        for entry in page.entries {
            let name = entry.entry.clone();
            let row = row(entry).map_err(|error| CliError::failed(format!("{name}: {error}")))?;
            writer.write(&row).map_err(write_error(path))?;
            entries += 1;
            progress.add(1);
        }
    }
    Ok(entries)
}

/// An entry as the writers take it.
pub(super) fn row(entry: wire::ExportedEntry) -> Result<ExportRow, Rejection> {
    let body = entry.body.unwrap_or_default();
    let signals: Result<Vec<Signal>, Rejection> = body.signals.into_iter().map(signal).collect();
    let classification = (!body.classification.is_empty())
        .then(|| Classification::parse(&body.classification))
        .transpose()?;
    let time = |millis: u64| (millis > 0).then_some(millis);
    Ok(ExportRow {
        set: entry.set,
        entry: entry.entry,
        publisher: entry.publisher,
        state: match entry.state.as_str() {
            "active" => State::Active,
            "review" | "disputed" => State::Disputed,
            _ => State::Retracted,
        },
        reference: Some(body.source_reference).filter(|reference| !reference.is_empty()),
        media_kind: Some(match body.media_kind.as_str() {
            "image" => MediaKind::Image,
            "video" => MediaKind::Video,
            "url" => MediaKind::Url,
            _ => MediaKind::Other,
        }),
        signals: signals?,
        classification,
        labels: body.labels,
        basis: Some(match body.basis.as_str() {
            "automated" => Basis::Automated,
            "inherited" => Basis::Inherited,
            _ => Basis::Human,
        }),
        first_seen_ms: time(body.first_seen_ms),
        expires_ms: time(body.expires_ms),
        verdict: Some(entry.verdict).filter(|verdict| !verdict.is_empty()),
    })
}

fn signal(message: wire::Signal) -> Result<Signal, Rejection> {
    let kind = SignalKind::from_number(message.kind)
        .ok_or_else(|| Rejection::invalid("signal", "of a kind that this program does not know"))?;
    let quality = message
        .quality
        .and_then(|quality| u8::try_from(quality).ok());
    Signal::new(kind, message.value, quality)
}

enum Writer<W: Write> {
    Csv(Box<CsvExport<W>>),
    Json(JsonExport<W>),
}

impl<W: Write> Writer<W> {
    fn new((format, verdicts): (ExportFormat, bool), output: W) -> io::Result<Self> {
        Ok(match format {
            ExportFormat::Csv if verdicts => Self::Csv(Box::new(CsvExport::with_verdicts(output)?)),
            ExportFormat::Csv => Self::Csv(Box::new(CsvExport::new(output)?)),
            ExportFormat::Jsonl => Self::Json(JsonExport::new(output)),
        })
    }

    fn write(&mut self, row: &ExportRow) -> io::Result<()> {
        match self {
            Self::Csv(csv) => csv.write(row),
            Self::Json(json) => json.write(row),
        }
    }

    fn finish(self) -> io::Result<()> {
        match self {
            Self::Csv(csv) => csv.finish()?.flush(),
            Self::Json(json) => json.finish()?.flush(),
        }
    }
}

/// Standard output, or a file that gets its name once it is whole.
pub(super) enum Target<'a> {
    Stdout(&'a Context),
    File {
        file: File,
        beside: PathBuf,
        path: PathBuf,
    },
}

impl<'a> Target<'a> {
    pub(super) fn open(path: &Path, context: &'a Context) -> Result<Self, CliError> {
        if path == Path::new("-") {
            return Ok(Self::Stdout(context));
        }
        let mut beside = path.as_os_str().to_owned();
        beside.push(".part");
        let beside = PathBuf::from(beside);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&beside)
            .map_err(write_error(&beside))?;
        Ok(Self::File {
            file,
            beside,
            path: path.to_owned(),
        })
    }

    pub(super) fn finish(mut self) -> io::Result<()> {
        self.flush()?;
        if let Self::File { file, beside, path } = &self {
            file.sync_all()?;
            // Unlike a rename, this replaces nothing that appeared meanwhile.
            fs::hard_link(beside, path)?;
        }
        Ok(())
    }
}

impl Drop for Target<'_> {
    fn drop(&mut self) {
        if let Self::File { beside, .. } = self {
            let _ = fs::remove_file(beside);
        }
    }
}

impl Write for Target<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File { file, .. } => file.write(bytes),
            Self::Stdout(context) => match context.output.write(bytes) {
                Ok(()) => Ok(bytes.len()),
                Err(CliError::OutputClosed) => Err(io::ErrorKind::BrokenPipe.into()),
                Err(error) => Err(io::Error::other(error.to_string())),
            },
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::File { file, .. } => file.flush(),
            Self::Stdout(_) => Ok(()),
        }
    }
}

pub(super) fn write_error(path: &Path) -> impl Fn(io::Error) -> CliError {
    move |error| {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return CliError::OutputClosed;
        }
        CliError::failed(format!("{}: {error}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn a_file_has_its_name_only_once_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.csv");
        let (context, _) = Context::for_test(false);
        let mut target = Target::open(&path, &context).unwrap();
        target.write_all(b"x").unwrap();
        drop(target);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        let mut target = Target::open(&path, &context).unwrap();
        target.write_all(b"x").unwrap();
        target.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"x");
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_exported_reads_back_as_it_was() {
        let message = wire::ExportedEntry {
            set: "a/b".to_owned(),
            entry: "a/b#1".to_owned(),
            publisher: "a".to_owned(),
            state: "active".to_owned(),
            body: Some(wire::Entry {
                signals: vec![wire::Signal {
                    kind: 1,
                    value: vec![7; 16].into(),
                    quality: None,
                }],
                media_kind: "video".to_owned(),
                classification: "A1".to_owned(),
                basis: "inherited".to_owned(),
                ..wire::Entry::default()
            }),
            ..wire::ExportedEntry::default()
        };
        let row = row(message).unwrap();
        assert_eq!(row.basis, Some(Basis::Inherited));
        assert_eq!(row.media_kind, Some(MediaKind::Video));
        assert_eq!(row.state, State::Active);
        assert_eq!(row.reference, None);
    }
}
