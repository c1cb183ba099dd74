//! Lines of a file of hashes, which is trusted for nothing: of bounded length each.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::Path;

use hashpact_core::signal::SignalKind;

use super::item::Item;
use crate::cli::error::CliError;

/// A line: the longest signal that can be written, and room.
const LINE_MAX_BYTES: u64 = 64 * 1024;

/// Calls `take` with what each line asks for, or with which line cannot be read and why;
/// "-" is standard input.
pub(in crate::cli) fn each(
    path: &Path,
    kind: Option<SignalKind>,
    mut take: impl FnMut(Result<Item, String>) -> Result<(), CliError>,
) -> Result<(), CliError> {
    let fail = |error: io::Error| CliError::failed(format!("{}: {error}", path.display()));
    let mut input: Box<dyn BufRead> = if path == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        Box::new(BufReader::new(File::open(path).map_err(fail)?))
    };
    let mut text = Vec::new();
    for line in 1_u64.. {
        text.clear();
        let mut limited = (&mut input).take(LINE_MAX_BYTES);
        if limited.read_until(b'\n', &mut text).map_err(fail)? == 0 {
            break;
        }
        if text.len() as u64 == LINE_MAX_BYTES {
            let what = format!("{}, line {line}: the line is too long", path.display());
            return Err(CliError::failed(what).next("one KIND:VALUE a line"));
        }
        let wrong = |why: &dyn std::fmt::Display| format!("line {line}: {why}");
        let Ok(text) = std::str::from_utf8(&text) else {
            take(Err(wrong(&"not UTF-8")))?;
            continue;
        };
        let text = text.trim_start_matches('\u{feff}').trim();
        if !text.is_empty() && !text.starts_with('#') {
            take(Item::line(text, kind).map_err(|error| wrong(&error)))?;
        }
    }
    Ok(())
}
