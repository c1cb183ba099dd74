//! Which entries of an own set a command means: names, signals, source references, or
//! a file of them.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;
use hashpact_api::wire::selector::By;
use hashpact_api::{SELECTORS_MAX, wire};
use hashpact_core::id::EntryName;
use hashpact_core::signal::{Signal, SignalKind};
use serde::Serialize;

use super::error::CliError;
use super::output::note;
use super::values::SetReference;

/// Selectors in one message.
pub const BATCH: usize = 4_096;
/// A line of a file of selectors: the longest signal that can be written, and room.
const LINE_MAX_BYTES: u64 = 64 * 1024;

/// Which entries.
#[derive(Debug, Default, Args)]
pub struct SelectorArgs {
    /// Entries: SET#INDEX or MEMBER/SET#INDEX, or #INDEX with --set
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
}

/// What names nothing in the set.
#[derive(Serialize)]
pub struct NotFound {
    /// Which of what was given, from 1; of a file its line.
    at: u64,
    code: String,
    reason: String,
}

impl NotFound {
    /// As JSON has them.
    #[must_use]
    pub fn list(missing: Vec<wire::EntryRejection>) -> Vec<Self> {
        let one = |missing: wire::EntryRejection| Self {
            at: missing.line,
            code: missing.code,
            reason: missing.reason,
        };
        missing.into_iter().map(one).collect()
    }

    /// Says them to a person: which of what was named, or which line of its file.
    pub fn print(missing: &[wire::EntryRejection], named: &SelectorArgs) {
        let what = match &named.file {
            Some(file) if named.given() == 0 => format!("{}, line", file.display()),
            Some(_) | None => "number".to_owned(),
        };
        for missing in missing {
            note(format!(
                "{what} {}: {}: {}",
                missing.line, missing.code, missing.reason
            ));
        }
    }
}

impl SelectorArgs {
    /// The set that is named, or that all entries are of.
    ///
    /// # Errors
    /// When none is, or several are.
    pub fn set(&self) -> Result<String, CliError> {
        set_of(self)
    }

    /// A set by its whole name, as all that is printed says it.
    pub fn whole_name(set: String, own: impl Display) -> String {
        if set.contains('/') {
            set
        } else {
            format!("{own}/{set}")
        }
    }

    /// How much is named on the command line itself.
    fn given(&self) -> usize {
        self.entries.len() + self.signals.len() + self.references.len()
    }

    /// All that is named, at least one.
    ///
    /// # Errors
    /// When something cannot be read, or nothing is named.
    pub fn selectors(&self) -> Result<Vec<wire::Selector>, CliError> {
        let mut selectors = given(self)?;
        if let Some(path) = &self.file {
            read(path, &mut selectors)?;
        }
        if selectors.is_empty() {
            return Err(CliError::usage("nothing is named")
                .next("give entries, --signal, --reference or a --file with some"));
        }
        Ok(selectors)
    }

    /// Asks at the terminal; refuses to guess where there is none.
    ///
    /// # Errors
    /// Unless the answer is yes.
    pub fn confirm(&self, what: &str, question: &str) -> Result<(), CliError> {
        let from_stdin = self.file.as_deref() == Some(Path::new("-"));
        if from_stdin || !io::stdin().is_terminal() {
            return Err(CliError::usage(format!(
                "{what} is permanent, and there is no terminal to ask at"
            ))
            .next("give --yes"));
        }
        let mut stderr = io::stderr();
        let asked = stderr
            .write_all(format!("{question} [y/N] ").as_bytes())
            .and_then(|()| stderr.flush());
        asked.map_err(CliError::failed)?;
        let mut answer = String::new();
        io::stdin()
            .read_line(&mut answer)
            .map_err(CliError::failed)?;
        if matches!(answer.trim(), "y" | "Y" | "yes") {
            Ok(())
        } else {
            Err(CliError::failed("nothing was changed"))
        }
    }
}

/// What a question says of selectors that name nothing.
pub(super) fn missing(selectors: usize) -> String {
    match selectors {
        0 => String::new(),
        1 => " (1 of what is named is not there)".to_owned(),
        more => format!(" ({more} of what is named are not there)"),
    }
}

/// The set that is named, or that all entries are of.
fn set_of(args: &SelectorArgs) -> Result<String, CliError> {
    if let Some(set) = &args.set {
        return Ok(set.to_string());
    }
    let mut sets = args.entries.iter().map(|entry| {
        // A set alone is one of this member's, as everywhere.
        let set = match entry.split_once('#') {
            Some((set, index)) if index.parse::<u64>().is_ok() => set.parse(),
            _ => EntryName::parse(entry).map(|name| SetReference::Full(name.set)),
        };
        set.map(|set| set.to_string()).map_err(|error| {
            CliError::usage(error).next("write SET#INDEX or MEMBER/SET#INDEX, or #INDEX with --set")
        })
    });
    let first = sets
        .next()
        .ok_or_else(|| CliError::usage("no set is named"))??;
    for set in sets {
        if set? != first {
            return Err(CliError::usage("the entries are of several sets")
                .next("name those of one set at a time"));
        }
    }
    Ok(first)
}

fn given(args: &SelectorArgs) -> Result<Vec<wire::Selector>, CliError> {
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
            return Err(wrong(&format!("more than {SELECTORS_MAX} in one command")));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_named_with_its_set_with_its_member_or_not_or_by_its_index_alone() {
        let of = |entries: &[&str], set: Option<&str>| {
            let named = SelectorArgs {
                entries: entries.iter().map(ToString::to_string).collect(),
                set: set.map(|set| set.parse().unwrap()),
                ..SelectorArgs::default()
            };
            named.set().map_err(|error| error.to_string())
        };
        assert_eq!(of(&["confirmed#6"], None), Ok("confirmed".to_owned()));
        assert_eq!(of(&["a/confirmed#6"], None), Ok("a/confirmed".to_owned()));
        assert_eq!(of(&["#6"], Some("confirmed")), Ok("confirmed".to_owned()));
        for wrong in ["#6", "confirmed", "a/confirmed", "confirmed#x", "A#6"] {
            assert!(of(&[wrong], None).is_err(), "{wrong}");
        }
        assert!(of(&["confirmed#6", "links#6"], None).is_err());
    }

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
}
