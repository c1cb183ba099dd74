//! Links: what looks like one, the digest that is kept of one, and texts without them.

use std::borrow::Cow;

use hashpact_core::signal::{Signal, SignalKind};
use hashpact_matching::url::{UrlError, canonicalize};

use crate::reject::RejectReason;

/// What stands in a link's place.
const LEFT_OUT: &[u8] = b"[link left out]";
/// The longest top-level domain that there is has 24 letters, or is Punycode.
const TOP_LEVEL_MAX: usize = 63;

/// Whether a text begins as a link with its scheme.
pub(crate) fn is_link(text: &[u8]) -> bool {
    let scheme = text.iter().position(|byte| !is_of_scheme(*byte));
    scheme.is_some_and(|end| end > 0 && text.get(end..).is_some_and(|at| at.starts_with(b"://")))
}

/// Whether a line is a link of the web and certainly nothing else: no delimiter of a
/// table in it, and no blank.
pub(crate) fn is_plain_link(line: &[u8]) -> bool {
    let begins = |scheme: &[u8]| {
        let start = line.get(..scheme.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(scheme)) && line.len() > scheme.len()
    };
    let other = |byte: &u8| byte.is_ascii_whitespace() || b",;|\"".contains(byte);
    (begins(b"http://") || begins(b"https://")) && !line.iter().any(other)
}

/// The signal of a link: the SHA-256 of its most exact expression.
pub(crate) fn signal(link: &[u8]) -> Result<Signal, RejectReason> {
    let bad = |why| Err(RejectReason::BadUrl { why });
    let link = link.trim_ascii();
    if link.iter().any(u8::is_ascii_whitespace) {
        return bad("there is a blank in it");
    }
    // A number can be an address, and a value in hexadecimal a host.
    if !link.contains(&b'.') && !link.contains(&b'[') {
        return bad("it names no domain");
    }
    let canonical = match canonicalize(link) {
        Ok(canonical) => canonical,
        Err(UrlError::TooLong { .. }) => return bad("it is longer than 8,192 bytes"),
        Err(UrlError::NoHost) => return bad("it names no host"),
        Err(UrlError::NotHierarchical) => return bad("it is not of a page on a host"),
    };
    let exact = canonical.exact();
    let host = exact.text().split('/').next().unwrap_or_default();
    if !host.contains('.') && !host.starts_with('[') {
        return bad("it names no domain");
    }
    let digest = exact.digest().to_vec();
    Signal::new(SignalKind::Url, digest.into(), None).or_else(|_| bad("it has no digest"))
}

/// The text with whatever could be a link left out, to the next blank or quote: rather
/// too much than a part of one.
pub(crate) fn left_out(text: &[u8]) -> Cow<'_, [u8]> {
    let mut kept = Vec::new();
    let mut at = 0;
    let mut found = false;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let length = rest.iter().position(|byte| ends_word(*byte));
        let length = length.unwrap_or(rest.len());
        let Some((word, _)) = rest.split_at_checked(length.max(1)) else {
            break;
        };
        if !could_be_link(word) {
            kept.extend_from_slice(word);
            at += word.len();
            continue;
        }
        found = true;
        kept.extend_from_slice(LEFT_OUT);
        let end = |byte: &u8| byte.is_ascii_whitespace() || *byte == b'"';
        at += rest.iter().position(end).unwrap_or(rest.len());
    }
    if found {
        Cow::Owned(kept)
    } else {
        Cow::Borrowed(text)
    }
}

const fn is_of_scheme(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.')
}

/// What stands between the cells, fields and words of any format.
fn ends_word(byte: u8) -> bool {
    byte.is_ascii_whitespace() || b"\"'`,;|=<>(){}".contains(&byte)
}

fn could_be_link(word: &[u8]) -> bool {
    let has = |part: &[u8]| word.windows(part.len()).any(|window| window == part);
    // Links are written like this where they are not to be opened by mistake.
    if has(b"//") || has(b"[.]") || has(b"[:]") || has(b"%2F") || has(b"%2f") || has(b"\\/") {
        return true;
    }
    // Behind the name of a kind, or of a user.
    word.split(|byte| matches!(byte, b':' | b'@')).any(|part| {
        let host = part.split(|byte| matches!(byte, b'/' | b'?' | b'#'));
        host.into_iter().next().is_some_and(is_host)
    })
}

/// Whether it reads as a domain or an address; a file's name does so as well.
fn is_host(text: &[u8]) -> bool {
    let text = text.strip_suffix(b".").unwrap_or(text);
    let labels: Vec<&[u8]> = text.split(|byte| *byte == b'.').collect();
    let plain = |label: &&[u8]| {
        let good =
            |byte: &u8| byte.is_ascii_alphanumeric() || b"-_".contains(byte) || *byte >= 0x80;
        !label.is_empty() && label.iter().all(good)
    };
    if labels.len() < 2 || !labels.iter().all(plain) {
        return false;
    }
    let digits = |label: &&[u8]| label.iter().all(u8::is_ascii_digit);
    let top = labels.last().copied().unwrap_or_default();
    if labels.iter().all(digits) {
        labels.len() == 4
    } else {
        let begins = top.first();
        let letter = begins.is_some_and(|byte| byte.is_ascii_alphabetic() || *byte >= 0x80);
        (2..=TOP_LEVEL_MAX).contains(&top.len()) && letter
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_becomes_the_digest_of_its_most_exact_expression() {
        let digest = |link: &str| signal(link.as_bytes()).map(|signal| signal.to_text());
        let page = digest("https://a.example/b?c=d").unwrap();
        for same in [
            "HTTP://A.EXAMPLE/b?c=d",
            "a.example/b?c=d#part",
            "https://user@a.example:443/x/../b?c=d",
        ] {
            assert_eq!(digest(same), Ok(page.clone()), "{same}");
        }
        assert_ne!(digest("https://a.example/b"), Ok(page));
        assert_eq!(digest("a.example"), digest("https://a.example/"));
        assert!(digest("http://[2001:db8::1]/x").is_ok());
        for bad in [
            "00112233445566778899aabbccddeeff",
            "12345678",
            "mailto:a@b.example",
            "https://a.example/b c",
            "https://localhost/x",
            "https://",
            "",
        ] {
            assert_eq!(
                digest(bad).map_err(|error| error.code()),
                Err("bad_url"),
                "{bad}"
            );
        }
        let error = signal(format!("https://a.example/{}", "x".repeat(9_000)).as_bytes());
        assert!(!error.unwrap_err().to_string().contains("xxx"));
    }

    #[test]
    fn whatever_could_be_a_link_is_left_out() {
        for (text, expected) in [
            ("a,https://x.example/b,c;d e", "a,[link left out] e"),
            (
                "{\"url\": \"https://x.example/b\", \"md5\": \"0a\"}",
                "{\"url\": \"[link left out]\", \"md5\": \"0a\"}",
            ),
            (
                "{\"url\":\"https:\\/\\/x.example\"}",
                "{\"url\":\"[link left out]\"}",
            ),
            ("x.example/b", "[link left out]"),
            ("URL:x.example", "[link left out]"),
            ("someone@x.example", "[link left out]"),
            ("hxxps[:]//x[.]example/b", "[link left out]"),
            ("http%3A%2F%2Fx.example", "[link left out]"),
            ("192.0.2.1:80/b", "[link left out]"),
            ("ref=x.example/b", "ref=[link left out]"),
            ("b\u{fc}cher.example", "[link left out]"),
            ("0a0b0c  *photo.jpg", "0a0b0c  *photo.jpg"),
            ("2026-01-05T10:00:01.5Z", "2026-01-05T10:00:01.5Z"),
            ("MD5:00112233;tc:A1;0.95", "MD5:00112233;tc:A1;0.95"),
            ("", ""),
        ] {
            let kept = left_out(text.as_bytes()).into_owned();
            assert_eq!(String::from_utf8(kept).unwrap(), expected, "{text}");
        }
    }
}
