//! Small files that travel alone: taken from the node, written, read back.

use std::fs::File;
use std::future::Future;
use std::io::{self, IsTerminal as _, Read as _};
use std::path::Path;

use bytes::{Bytes, BytesMut};
use hashpact_api::wire;
use hashpact_core::id::Digest;
use hashpact_core::limits::PROOF_MAX_BYTES;
use tonic::{Response, Status, Streaming};

use crate::cli::client::{Client, failed};
use crate::cli::error::CliError;
use crate::cli::new_files::{NewFiles, at};
use crate::cli::output::{Output, Progress};
use crate::cli::{Context, output};

/// Takes a file from the node, up to the longest that there is.
///
/// # Errors
/// What the node answers.
pub(in crate::cli) fn fetch(
    client: &Client,
    call: impl Future<Output = Result<Response<Streaming<wire::FileResponse>>, Status>>,
) -> Result<Bytes, CliError> {
    let fetched = client.wait(async {
        let mut pieces = call.await?.into_inner();
        let mut file = BytesMut::new();
        let mut progress = Progress::bytes(None);
        while let Some(piece) = pieces.message().await? {
            if file.len().saturating_add(piece.data.len()) > PROOF_MAX_BYTES {
                return Err(Status::resource_exhausted("the file has no end"));
            }
            file.extend_from_slice(&piece.data);
            progress.add(u64::try_from(piece.data.len()).unwrap_or(u64::MAX));
        }
        Ok(file.freeze())
    });
    fetched.map_err(|status: Status| failed(&status))
}

/// Refuses to begin where the file could not be written.
///
/// # Errors
/// A file that exists; a terminal, or JSON, where the bytes would go.
pub(in crate::cli) fn check_target(out: Option<&Path>, output: &Output) -> Result<(), CliError> {
    match out {
        Some(path) if path.exists() => Err(CliError::failed(format!(
            "{} exists already and is left as it is",
            path.display()
        ))
        .next("name another file with --out")),
        None if output.is_json() || io::stdout().is_terminal() => Err(CliError::usage(
            "the file is bytes, which nobody reads here",
        )
        .next("--out FILE, or > FILE without --json")),
        Some(_) | None => Ok(()),
    }
}

/// Writes the file: with mode 0600, or to standard output.
///
/// # Errors
/// What the file system answers.
pub(in crate::cli) fn write(
    out: Option<&Path>,
    file: &[u8],
    output: &Output,
) -> Result<(), CliError> {
    let Some(path) = out else {
        return output.write(file);
    };
    let mut made = NewFiles::default();
    made.write(path, file)?;
    made.keep();
    Ok(())
}

/// What messages call the file: `-` is standard input.
pub(in crate::cli) fn called(path: &Path) -> String {
    if path == Path::new("-") {
        "standard input".to_owned()
    } else {
        path.display().to_string()
    }
}

/// Reads a file that is no longer than one may be, or standard input for `-`.
///
/// # Errors
/// What the file system answers; a terminal, where nobody types such a file.
pub(in crate::cli) fn read(path: &Path) -> Result<Bytes, CliError> {
    let next = "name a file, or - for standard input";
    let failed = |error: &io::Error| at(path, error).next(next);
    if path != Path::new("-") {
        return bounded(File::open(path).map_err(|error| failed(&error))?, path);
    }
    let input = io::stdin();
    if input.is_terminal() {
        return Err(
            CliError::usage("standard input is a terminal, and the file is bytes").next(next),
        );
    }
    bounded(input.lock(), path)
}

/// All of it, up to the longest that there is.
fn bounded(from: impl io::Read, path: &Path) -> Result<Bytes, CliError> {
    let most = u64::try_from(PROOF_MAX_BYTES).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    let read = from.take(most.saturating_add(1)).read_to_end(&mut bytes);
    read.map_err(|error| CliError::failed(format!("{}: {error}", called(path))))?;
    if bytes.len() > PROOF_MAX_BYTES {
        let why = format!("{}: too large for such a file", called(path));
        return Err(CliError::failed(why));
    }
    Ok(bytes.into())
}

/// The genesis digest that was given, else that of the configuration.
pub(in crate::cli) fn genesis(given: Option<Digest>, context: &Context) -> Option<Digest> {
    let configured = || context.config_text().ok();
    given.or_else(|| configured().map(|config| config.coalition.genesis))
}

/// A name and what is said under it, wrapped at 80 columns.
///
/// # Errors
/// As [`Output::line`].
pub(in crate::cli) fn field(output: &Output, name: &str, text: &str) -> Result<(), CliError> {
    const NAME: usize = 11;
    const TEXT: usize = 80 - NAME;
    let mut line = String::new();
    let mut name = name;
    for word in text.split_whitespace() {
        let longer = line.chars().count().saturating_add(word.chars().count());
        if !line.is_empty() && longer >= TEXT {
            output.line(format_args!("{name:<NAME$}{line}"))?;
            (name, line) = ("", String::new());
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    output.line(format_args!("{name:<NAME$}{line}"))
}

/// Text that others wrote, without what a terminal would take for a command.
pub(in crate::cli) fn plain(text: &str) -> String {
    let plain = |letter: char| if letter.is_control() { ' ' } else { letter };
    text.chars().map(plain).collect()
}

/// The time of a cosignature.
pub(in crate::cli) fn seconds(time_s: u64) -> String {
    output::time(time_s.saturating_mul(1_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_read_than_the_longest_file_has() {
        let path = Path::new("-");
        let whole = bounded(io::repeat(7).take(9), path).unwrap();
        assert_eq!(whole.len(), 9);
        let error = bounded(io::repeat(7), path).unwrap_err().to_string();
        assert_eq!(error, "error: standard input: too large for such a file");
    }
}
