//! `hashpact import`: brings files of hashes into a set.

mod file;
mod read;
mod rejects;

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use hashpact_api::wire;
use hashpact_core::leaf::Basis;
use hashpact_core::signal::SignalKind;
use hashpact_formats::{Format, Options, OptionsError};
use serde::Serialize;

use self::file::{FileSummary, Importer};
use super::Context;
use super::client::{Client, connect_or_embed};
use super::error::{CliError, Exit};
use super::output::{Progress, count, counted, note};
use super::values::SetReference;

/// Bring files of hashes into a set and publish them
///
/// Takes CSV (columns by header), JSON Lines, plain lists (one hash a line, and
/// what md5sum and sha256sum print), VICS JSON 1.3 and 2.0, and links, one a line,
/// of which only digests are kept. File names, paths and EXIF are dropped while
/// reading. An entry is known by its source reference,
/// else by its signals: the same again adds nothing, a changed one replaces.
///
/// Every line is accounted for: added, replaced, unchanged or rejected. Where a
/// file does not say what an entry is about, its signals do (PDQ: an image);
/// where it does not say who judged it, people of this member did, or, in a set of
/// somebody else's list, it is inherited.
///
/// Exit code 3 when lines were rejected, 1 when a file could not be read to its
/// end or changed meanwhile; nothing of such a file is published.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// A set of this member
    #[arg(long, value_name = "SET")]
    pub set: SetReference,
    /// Files to read; "-" is standard input
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// What the files are
    #[arg(long, value_name = "FORMAT", default_value = "auto")]
    pub format: FormatArg,
    /// The kind of bare hashes, in a list or a "value" column [default: by length]
    #[arg(long, value_name = "KIND", value_parser = SignalKind::parse)]
    pub kind: Option<SignalKind>,
    /// What a column holds, such as "Hash A=md5" or "notes=ignore"; may be repeated
    #[arg(long = "column", value_name = "NAME=FIELD")]
    pub columns: Vec<String>,
    /// A value for rows that leave a field empty, such as classification=A1,
    /// basis=automated, media=video or labels=x; may be repeated
    #[arg(long = "constant", value_name = "FIELD=VALUE")]
    pub constants: Vec<String>,
    /// The country whose categories a VICS file uses, where it does not say so
    #[arg(long, value_name = "COUNTRY")]
    pub vics_country: Option<String>,
    /// Where rejected lines go: line, reason, original [default: FILE.rejects.csv]
    #[arg(long, value_name = "FILE")]
    pub rejects: Option<PathBuf>,
    /// Write links into the rejects file; else they are left out
    #[arg(long)]
    pub rejects_with_links: bool,
    /// Read and check everything, and publish nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Formats of input files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FormatArg {
    /// By the file's content
    Auto,
    /// Comma-separated, columns by header
    Csv,
    /// One JSON object a line
    Jsonl,
    /// One hash a line, or what md5sum and sha256sum print
    List,
    /// VICS JSON 1.3 or 2.0
    Vics,
    /// One link a line; only digests are kept
    Urls,
}

impl FormatArg {
    const fn format(self) -> Option<Format> {
        match self {
            Self::Auto => None,
            Self::Csv => Some(Format::Csv),
            Self::Jsonl => Some(Format::JsonLines),
            Self::List => Some(Format::List),
            Self::Vics => Some(Format::Vics),
            Self::Urls => Some(Format::Urls),
        }
    }
}

#[derive(Serialize)]
struct Summary {
    set: String,
    dry_run: bool,
    files: Vec<FileSummary>,
    received: u64,
    added: u64,
    replaced: u64,
    unchanged: u64,
    rejected: u64,
    quarantined: u64,
}

/// Runs the command.
///
/// # Errors
/// When a file cannot be read or the set cannot be published.
pub fn run(args: &ImportArgs, context: &Context) -> Result<(), CliError> {
    let options = options(args)?;
    if args.rejects.is_some() && args.files.len() > 1 {
        return Err(
            CliError::usage("--rejects names one file, and there are several to read")
                .next("leave it out: each file gets its own, FILE.rejects.csv"),
        );
    }
    let client = if args.dry_run {
        None
    } else {
        Some(connect_or_embed(context)?)
    };
    let set = match &client {
        Some(client) => args.set.own(&client.config().member.slug)?.to_string(),
        None => args.set.to_string(),
    };
    let (basis, held_before) = match &client {
        Some(client) => {
            let held = held_back(client, &set)?;
            let set = set.clone();
            let set = client.call(client.node().show_set(wire::ShowSetRequest { set }))?;
            (basis_of(&set)?, held)
        }
        None => (Basis::Human, 0),
    };
    let mut importer = Importer {
        client: client.as_ref(),
        set: set.clone(),
        format: args.format.format(),
        keep_links: args.rejects_with_links,
        options,
        basis,
        progress: Progress::bytes(total_bytes(&args.files)),
    };
    let mut files = Vec::new();
    for path in &args.files {
        let rejects = args.rejects.clone().unwrap_or_else(|| rejects_beside(path));
        let summary = importer.file(path, &rejects)?;
        importer.progress.around(|| print(context, &summary))?;
        files.push(summary);
    }
    drop(importer);
    let held = match &client {
        Some(client) => held_back(client, &set)?,
        None => 0,
    };
    // What waited before is none of this import's doing.
    let quarantined = held.saturating_sub(held_before);
    if quarantined > 0 {
        let entries = counted(quarantined, "entry", "entries");
        context.output.line(format_args!(
            "  ! {set}: {entries} in quarantine: published, but not matched here;"
        ))?;
        context
            .output
            .line(format_args!("    hashpact quarantine list {set} says why"))?;
    }
    end((set, args.dry_run), files, quarantined, context)
}

/// Entries of the set that the hygiene gate holds back.
fn held_back(client: &Client, set: &str) -> Result<u64, CliError> {
    let request = wire::QuarantineRequest {
        set: set.to_owned(),
        ..wire::QuarantineRequest::default()
    };
    let answer = client.call(client.node().quarantine(request))?;
    Ok(answer.lots.iter().map(|lot| lot.held).sum())
}

fn options(args: &ImportArgs) -> Result<Options, CliError> {
    let mut options = Options::default();
    options.kind = args.kind;
    options.keep_links = args.rejects_with_links;
    options.vics_country.clone_from(&args.vics_country);
    let wrong = |option: &str, error: &OptionsError| CliError::usage(format!("{option}: {error}"));
    for column in &args.columns {
        options
            .column(column)
            .map_err(|error| wrong("--column", &error))?;
    }
    for constant in &args.constants {
        options
            .constant(constant)
            .map_err(|error| wrong("--constant", &error))?;
    }
    Ok(options)
}

/// Who judged the entries, where their file does not say: this member's people, or
/// somebody whose list it is.
fn basis_of(set: &wire::SetInfo) -> Result<Basis, CliError> {
    if !set.publishing_closed.is_empty() {
        let why = &set.publishing_closed;
        return Err(
            CliError::failed(format!("{} takes nothing at present: {why}", set.name))
                .next("hashpact status shows what the node waits for"),
        );
    }
    Ok(if set.source.is_empty() {
        Basis::Human
    } else {
        Basis::Inherited
    })
}

fn rejects_beside(path: &Path) -> PathBuf {
    if path == Path::new("-") {
        return PathBuf::from("stdin.rejects.csv");
    }
    let mut name = path.as_os_str().to_owned();
    name.push(".rejects.csv");
    PathBuf::from(name)
}

/// Bytes of all files together, where all are plain files.
fn total_bytes(files: &[PathBuf]) -> Option<u64> {
    files.iter().try_fold(0_u64, |total, path| {
        let found = std::fs::metadata(path).ok()?;
        found.is_file().then(|| total.saturating_add(found.len()))
    })
}

fn print(context: &Context, file: &FileSummary) -> Result<(), CliError> {
    for warning in &file.warnings {
        note(format!("warning: {}: {warning}", file.file));
    }
    if let Some(error) = &file.error {
        note(format!("error: {}: {error}", file.file));
        note("next: see to the file and import it again; what stands already adds nothing");
    }
    let output = &context.output;
    let (one, many) = file.unit();
    if file.error.is_some() && file.lines == 0 {
        return Ok(()); // it could not be opened, and that is said
    }
    output.line(format_args!(
        "{}: {}, {}",
        file.file,
        file.format,
        counted(file.lines, one, many)
    ))?;
    let rejected = count(file.rejected());
    if file.published {
        output.line(format_args!(
            "  {} added, {} replaced, {} unchanged, {rejected} rejected",
            count(file.added),
            count(file.replaced),
            count(file.unchanged),
        ))?;
    } else {
        let good = count(file.records);
        output.line(format_args!(
            "  {good} good, {rejected} rejected; nothing published"
        ))?;
    }
    let skipped: Vec<String> = [
        (file.header, "header"),
        (file.blank, "blank"),
        (file.comments, "comment"),
        (file.continued, "continued"),
    ]
    .into_iter()
    .filter(|(number, _)| *number > 0)
    .map(|(number, what)| format!("{} {what}", count(number)))
    .collect();
    if !skipped.is_empty() {
        output.line(format_args!("  other lines: {}", skipped.join(", ")))?;
    }
    if let Some(rejects) = &file.rejects_file {
        output.line(format_args!("  rejected lines: {rejects}"))?;
    }
    if file.published {
        let size = counted(file.head_size, "leaf", "leaves");
        output.line(format_args!("  signed: {size}, root {}", file.head_root))?;
    }
    Ok(())
}

fn end(
    (set, dry_run): (String, bool),
    files: Vec<FileSummary>,
    quarantined: u64,
    context: &Context,
) -> Result<(), CliError> {
    let sum = |of: fn(&FileSummary) -> u64| files.iter().map(of).sum();
    let failed = files.iter().any(|file| file.error.is_some());
    let rejected: u64 = sum(FileSummary::rejected);
    context.output.json(&Summary {
        set,
        dry_run,
        received: sum(|file| file.records),
        added: sum(|file| file.added),
        replaced: sum(|file| file.replaced),
        unchanged: sum(|file| file.unchanged),
        rejected,
        quarantined,
        files,
    })?;
    match (failed, rejected) {
        (true, _) => Err(CliError::Quiet(Exit::Failed)),
        (false, 0) => Ok(()),
        (false, _) => Err(CliError::Quiet(Exit::Partial)),
    }
}
