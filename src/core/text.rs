//! Text in documents that people read: bounded, and harmless in a terminal.

use crate::reject::Rejection;

/// Takes a text of at most `max` bytes without control characters and without
/// characters that reorder or hide what stands around them.
pub(crate) fn optional(what: &'static str, text: String, max: usize) -> Result<String, Rejection> {
    Rejection::cap(what, text.len(), max)?;
    if text.chars().any(deceives) {
        return Err(Rejection::invalid(
            what,
            "control or invisible characters in it",
        ));
    }
    Ok(text)
}

/// As [`optional`], and not blank.
pub(crate) fn required(what: &'static str, text: String, max: usize) -> Result<String, Rejection> {
    if text.trim().is_empty() {
        return Err(Rejection::invalid(what, "it is empty"));
    }
    optional(what, text, max)
}

fn deceives(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_deceives_is_refused() {
        for bad in ["a\u{1b}[2J", "a\nb", "\u{202e}txt", "a\u{200b}b", " "] {
            assert!(required("name", bad.to_owned(), 100).is_err(), "{bad:?}");
        }
        assert!(required("name", "Nordstern GmbH · Zürich".to_owned(), 100).is_ok());
        assert!(required("name", "x".repeat(101), 100).is_err());
        assert!(optional("name", String::new(), 100).is_ok());
    }
}
