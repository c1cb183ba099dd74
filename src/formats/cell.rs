//! Text cells that a spreadsheet must not take for a formula, and label lists.
//!
//! A cell that begins with a character that starts a formula gets an apostrophe in
//! front (OWASP "CSV Injection"). One that begins with an apostrophe gets one too,
//! so that [`unguard`] is the exact inverse.

use std::borrow::Cow;
use std::io;

const STARTERS: [char; 11] = ['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠'];

/// What the output said when a row was not written, with its kind: the crate's own
/// conversion hides a closed pipe and a full disk.
pub(crate) fn write_error(error: csv::Error) -> io::Error {
    let text = error.to_string();
    if let csv::ErrorKind::Io(error) = error.into_kind() {
        return error;
    }
    io::Error::other(text)
}

/// Makes text safe as a cell.
pub(crate) fn guard(text: &str) -> Cow<'_, str> {
    if text.starts_with('\'') || needs_guard(text) {
        Cow::Owned(format!("'{text}"))
    } else {
        Cow::Borrowed(text)
    }
}

/// Takes the apostrophe off. Text of other tools that begins with an
/// apostrophe stays, unless it looks guarded.
pub(crate) fn unguard(text: &str) -> &str {
    match text.strip_prefix('\'') {
        Some(rest) if rest.starts_with('\'') || needs_guard(rest) => rest,
        _ => text,
    }
}

/// Whether a cell is what tools write where there is no value.
pub(crate) fn is_nothing(text: &[u8]) -> bool {
    text.is_empty()
        || text.len() <= 4
            && [&b"-"[..], b"null", b"none", b"n/a", b"nan", b"nil", b"\\n"]
                .iter()
                .any(|nothing| text.eq_ignore_ascii_case(nothing))
}

fn needs_guard(text: &str) -> bool {
    text.starts_with(STARTERS) || !text.is_empty() && is_nothing(text.as_bytes())
}

/// Joins labels with `;`; one within a label is written `\;`, a backslash `\\`.
pub(crate) fn join(labels: &[String]) -> String {
    let mut text = String::new();
    for (index, label) in labels.iter().enumerate() {
        if index > 0 {
            text.push(';');
        }
        for character in label.chars() {
            if matches!(character, ';' | '\\') {
                text.push('\\');
            }
            text.push(character);
        }
    }
    text
}

/// Splits what [`join`] wrote, or labels of other tools with `;` between them.
pub(crate) fn split(text: &str) -> Vec<String> {
    let mut labels = vec![String::new()];
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        let escaped = if character == '\\' {
            characters.next_if(|next| matches!(next, ';' | '\\'))
        } else {
            None
        };
        if character == ';' {
            labels.push(String::new());
        } else if let Some(label) = labels.last_mut() {
            label.push(escaped.unwrap_or(character));
        }
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_pipe_is_still_one_behind_a_csv_writer() {
        let error = csv::Error::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(write_error(error).kind(), io::ErrorKind::BrokenPipe);
    }
    use proptest::prelude::*;

    #[test]
    fn no_cell_starts_a_formula() {
        assert_eq!(guard("=1+1"), "'=1+1");
        assert_eq!(guard("+1"), "'+1");
        assert_eq!(guard("plain"), "plain");
        assert_eq!(unguard("'90s"), "'90s");
    }

    proptest! {
        #[test]
        fn guarding_is_undone(text in r"['=+\-@\t\r\na;＝]{0,4}(null|n/a|.*)") {
            let guarded = guard(&text).into_owned();
            prop_assert!(!guarded.starts_with(STARTERS));
            prop_assert_eq!(unguard(&guarded), text);
        }

        #[test]
        fn joined_labels_are_split_again(labels in prop::collection::vec(r"[a;\\ü]{1,5}", 1..5)) {
            prop_assert_eq!(split(&join(&labels)), labels);
        }
    }
}
