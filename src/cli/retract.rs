//! `hashpact retract`: takes this member's entries back.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use data_encoding::HEXLOWER;
use hashpact_api::wire::selector::By;
use hashpact_api::{SELECTORS_MAX, wire};
use hashpact_core::id::EntryName;
use hashpact_core::signal::{Signal, SignalKind};
use serde::Serialize;

use super::Context;
use super::client::connect_or_embed;
use super::error::{CliError, Exit};
use super::output::{count, counted, note};
use super::values::SetReference;

/// Selectors in one message.
const BATCH: usize = 4_096;
/// A line of a file of selectors: the longest signal that can be written, and room.
const LINE_MAX_BYTES: u64 = 64 * 1024;

/// Take entries of this member back; look-ups of them stop at every member
///
/// Permanent. More entries in 24 hours than the larger of 100 and 1 % of the set
/// need the identity key's signature as well, which the node adds where its
/// configuration names the key. What names nothing in the set is listed, and the
/// exit code is then 3.
#[derive(Debug, Args)]
pub struct RetractArgs {
    /// Entries: MEMBER/SET#INDEX, or #INDEX with --set
    #[arg(value_name = "ENTRY", required_unless_present_any = ["signals", "references", "file"])]
    pub entries: Vec<String>,
    /// The set [default: that of the entries]
    #[arg(long, value_name = "SET")]
    pub set: Option<SetReference>,
    /// Every entry with this signal, such as MD5:HEX; may be repeated
    #[arg(long = "signal", value_name = "KIND:VALUE", requires = "set")]
    pub signals: Vec<String>,
    /// The entry with this source reference; may be repeated
    #[arg(long = "reference", value_name = "REF", requires = "set")]
    pub references: Vec<String>,
    /// A file with an entry, KIND:VALUE or source reference a line; "-" is standard
    /// input
    #[arg(long, value_name = "FILE", requires = "set")]
    pub file: Option<PathBuf>,
    /// Why
    #[arg(long, value_name = "REASON")]
    pub reason: ReasonArg,
    /// A note for the other members; at most 500 bytes
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub note: String,
    /// Ask the others to recheck what they did because of these entries
    #[arg(long)]
    pub recheck: bool,
    /// Do not ask; needed where there is no terminal to ask at
    #[arg(long)]
    pub yes: bool,
}

/// Why an entry is taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReasonArg {
    /// It is not what it was said to be
    Wrong,
    /// Another entry says the same
    Duplicate,
    /// The source took it back
    SourceWithdrew,
    /// The law asks for it
    Legal,
    /// Anything else; say it in --note
    Other,
}

impl ReasonArg {
    const fn name(self) -> &'static str {
        match self {
            Self::Wrong => "wrong",
            Self::Duplicate => "duplicate",
            Self::SourceWithdrew => "source-withdrew",
            Self::Legal => "legal",
            Self::Other => "other",
        }
    }
}

#[derive(Serialize)]
struct Outcome {
    set: String,
    asked: usize,
    retracted: u64,
    already_dead: u64,
    not_found: Vec<NotFound>,
    head_size: u64,
    head_root: String,
    identity_signed: bool,
}

#[derive(Serialize)]
struct NotFound {
    /// Which of what was given, from 1; of a file its line.
    at: u64,
    code: String,
    reason: String,
}

/// Runs the command.
///
/// # Errors
/// When an entry is not known or not this member's.
pub fn run(args: &RetractArgs, context: &Context) -> Result<(), CliError> {
    let set = set_of(args)?;
    let mut selectors = given(args)?;
    if let Some(path) = &args.file {
        read(path, &mut selectors)?;
    }
    if selectors.is_empty() {
        return Err(CliError::usage("nothing is named to take back")
            .next("give entries, --signal, --reference or a --file with some"));
    }
    confirm(args, &set, selectors.len())?;
    let asked = selectors.len();
    let client = connect_or_embed(context)?;
    let requests = tokio_stream::iter(messages(args, &set, selectors));
    let answer = client.call(client.node().retract(requests))?;
    report(set, asked, answer, context)
}

/// The set that is named, or that all entries are of.
fn set_of(args: &RetractArgs) -> Result<String, CliError> {
    if let Some(set) = &args.set {
        return Ok(set.to_string());
    }
    let mut sets = args.entries.iter().map(|entry| {
        let name = EntryName::parse(entry);
        name.map(|name| name.set.to_string()).map_err(|error| {
            CliError::usage(error).next("write MEMBER/SET#INDEX, or #INDEX with --set")
        })
    });
    let first = sets
        .next()
        .ok_or_else(|| CliError::usage("no set is named"))??;
    for set in sets {
        if set? != first {
            return Err(CliError::usage("the entries are of several sets")
                .next("retract those of one set at a time"));
        }
    }
    Ok(first)
}

fn given(args: &RetractArgs) -> Result<Vec<wire::Selector>, CliError> {
    let mut selectors: Vec<By> = args.entries.iter().cloned().map(By::Entry).collect();
    for (at, spec) in (1..).zip(&args.signals) {
        let signal = Signal::parse_spec(spec)
            .map_err(|error| CliError::usage(format!("--signal, number {at}: {error}")))?;
        selectors.push(By::Signal(message(&signal)));
    }
    selectors.extend(args.references.iter().cloned().map(By::SourceReference));
    let numbered = (1..).zip(selectors);
    Ok(numbered
        .map(|(line, by)| wire::Selector { by: Some(by), line })
        .collect())
}

/// Reads a file of selectors. Blank lines and lines beginning with `# ` are skipped.
fn read(path: &Path, selectors: &mut Vec<wire::Selector>) -> Result<(), CliError> {
    let fail = |error: io::Error| CliError::failed(format!("{}: {error}", path.display()));
    let mut input: Box<dyn BufRead> = if path == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        Box::new(BufReader::new(File::open(path).map_err(fail)?))
    };
    let mut text = Vec::new();
    for line in 1.. {
        text.clear();
        let mut limited = io::Read::take(&mut input, LINE_MAX_BYTES);
        if limited.read_until(b'\n', &mut text).map_err(fail)? == 0 {
            return Ok(());
        }
        let wrong = |why: &str| {
            CliError::usage(format!("{}, line {line}: {why}", path.display()))
                .next("one MEMBER/SET#INDEX, #INDEX, KIND:VALUE or source reference a line")
        };
        if text.len() as u64 == LINE_MAX_BYTES {
            return Err(wrong("the line is too long"));
        }
        let text = std::str::from_utf8(&text).map_err(|_| wrong("not UTF-8"))?;
        let text = text.trim_start_matches('\u{feff}').trim();
        if text.is_empty() || text == "#" || text.starts_with("# ") {
            continue;
        }
        let by = Some(selector(text).map_err(|error| wrong(&error))?);
        selectors.push(wire::Selector { by, line });
        if selectors.len() > SELECTORS_MAX {
            return Err(wrong(&format!(
                "more than {SELECTORS_MAX} in one retraction"
            )));
        }
    }
    Ok(())
}

/// An entry where it reads as one, a signal where it begins with a kind's name, else
/// a source reference.
fn selector(text: &str) -> Result<By, String> {
    if text.starts_with('#') || EntryName::parse(text).is_ok() {
        return Ok(By::Entry(text.to_owned()));
    }
    let kind = text
        .split_once(':')
        .map(|(kind, _)| SignalKind::parse(kind.trim()));
    if let Some(Ok(_)) = kind {
        let signal = Signal::parse_spec(text).map_err(|error| error.to_string())?;
        return Ok(By::Signal(message(&signal)));
    }
    Ok(By::SourceReference(text.to_owned()))
}

fn message(signal: &Signal) -> wire::Signal {
    wire::Signal {
        kind: signal.kind().number(),
        value: signal.value().clone(),
        quality: None,
    }
}

/// Asks at the terminal; refuses to guess where there is none.
fn confirm(args: &RetractArgs, set: &str, asked: usize) -> Result<(), CliError> {
    if args.yes {
        return Ok(());
    }
    let from_stdin = args.file.as_deref() == Some(Path::new("-"));
    if from_stdin || !io::stdin().is_terminal() {
        return Err(CliError::usage(
            "a retraction is permanent, and there is no terminal to ask at",
        )
        .next("give --yes"));
    }
    let number = count(u64::try_from(asked).unwrap_or(u64::MAX));
    let mut stderr = io::stderr();
    let question = format!("Take back what {number} selectors name in {set}, permanently? [y/N] ");
    let asked = stderr
        .write_all(question.as_bytes())
        .and_then(|()| stderr.flush());
    asked.map_err(CliError::failed)?;
    let mut answer = String::new();
    io::stdin()
        .read_line(&mut answer)
        .map_err(CliError::failed)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        Ok(())
    } else {
        Err(CliError::failed("nothing was retracted"))
    }
}

/// The first message says why; the last one says that it is the last.
fn messages(
    args: &RetractArgs,
    set: &str,
    selectors: Vec<wire::Selector>,
) -> Vec<wire::RetractRequest> {
    let mut messages = vec![wire::RetractRequest {
        set: set.to_owned(),
        reason: args.reason.name().to_owned(),
        note: args.note.clone(),
        recheck: args.recheck,
        ..wire::RetractRequest::default()
    }];
    let mut selectors = selectors.into_iter();
    loop {
        let batch: Vec<wire::Selector> = selectors.by_ref().take(BATCH).collect();
        let last = batch.len() < BATCH;
        messages.push(wire::RetractRequest {
            selectors: batch,
            last,
            ..wire::RetractRequest::default()
        });
        if last {
            return messages;
        }
    }
}

fn report(
    set: String,
    asked: usize,
    answer: wire::RetractResponse,
    context: &Context,
) -> Result<(), CliError> {
    for missing in &answer.not_found {
        note(format!(
            "number {}: {}: {}",
            missing.line, missing.code, missing.reason
        ));
    }
    let output = &context.output;
    let retracted = counted(answer.retracted, "entry", "entries");
    let dead = count(answer.already_dead);
    let missing = answer.not_found.len();
    output.line(format_args!(
        "{set}: {retracted} retracted, {dead} no longer stood, {missing} not found"
    ))?;
    if answer.retracted > 0 {
        let identity = if answer.identity_signed {
            ", with the identity key as well"
        } else {
            ""
        };
        let size = counted(answer.head_size, "leaf", "leaves");
        output.line(format_args!("  signed: {size}{identity}"))?;
    }
    output.json(&Outcome {
        set,
        asked,
        retracted: answer.retracted,
        already_dead: answer.already_dead,
        not_found: answer
            .not_found
            .into_iter()
            .map(|missing| NotFound {
                at: missing.line,
                code: missing.code,
                reason: missing.reason,
            })
            .collect(),
        head_size: answer.head_size,
        head_root: HEXLOWER.encode(&answer.head_root),
        identity_signed: answer.identity_signed,
    })?;
    if missing > 0 {
        return Err(CliError::Quiet(Exit::Partial));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_an_entry_a_signal_or_a_reference() {
        let of = |text: &str| selector(text).unwrap();
        assert_eq!(of("#12"), By::Entry("#12".to_owned()));
        assert_eq!(of("a/b#12"), By::Entry("a/b#12".to_owned()));
        let md5 = "md5:00112233445566778899aabbccddeeff";
        assert!(matches!(of(md5), By::Signal(signal) if signal.kind == 1));
        let reference = "case:2026-11";
        assert_eq!(of(reference), By::SourceReference(reference.to_owned()));
        let error = selector("md5:0011").unwrap_err();
        assert!(!error.contains("0011"), "{error}");
    }

    #[test]
    fn the_last_message_says_so_even_where_batches_are_full() {
        let args = RetractArgs {
            entries: Vec::new(),
            set: None,
            signals: Vec::new(),
            references: Vec::new(),
            file: None,
            reason: ReasonArg::Wrong,
            note: String::new(),
            recheck: false,
            yes: true,
        };
        let selectors = vec![wire::Selector::default(); BATCH];
        let messages = messages(&args, "s", selectors);
        assert_eq!(messages.iter().filter(|message| message.last).count(), 1);
        assert!(messages.last().unwrap().last);
        let sum: usize = messages.iter().map(|message| message.selectors.len()).sum();
        assert_eq!(sum, BATCH);
    }
}
