//! One spelling per URL, of bytes that come from anybody: each step is bounded, none
//! panics.

use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::MAX_URL_BYTES;

/// Why something has no canonical form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Longer than is read.
    #[error("the URL has {bytes} bytes, more than the {MAX_URL_BYTES} that are read")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Nothing that could be a host.
    #[error("the URL names no host")]
    NoHost,
    /// A scheme without an authority.
    #[error("the URL is not of a page on a host: its scheme is not followed by //")]
    NotHierarchical,
}

impl UrlError {
    /// The stable reason code.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::TooLong { .. } => "url_too_long",
            Self::NoHost => "url_no_host",
            Self::NotHierarchical => "url_not_hierarchical",
        }
    }
}

/// A URL in canonical form: ASCII, escaped.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct CanonicalUrl {
    pub(super) scheme: String,
    pub(super) host: String,
    pub(super) is_address: bool,
    /// Begins with a slash.
    pub(super) path: String,
    pub(super) query: Option<String>,
}

impl std::fmt::Debug for CanonicalUrl {
    /// Shows nothing: a link must not reach a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CanonicalUrl").finish_non_exhaustive()
    }
}

impl CanonicalUrl {
    /// Writes the URL out.
    #[must_use]
    pub fn text(&self) -> String {
        let query = self
            .query
            .as_ref()
            .map(|query| format!("?{query}"))
            .unwrap_or_default();
        format!("{}://{}{}{query}", self.scheme, self.host, self.path)
    }
}

/// Brings a URL into canonical form.
///
/// # Errors
///
/// [`UrlError`] if it is too long or not of a page on a host.
pub fn canonicalize(url: &[u8]) -> Result<CanonicalUrl, UrlError> {
    if url.len() > MAX_URL_BYTES {
        return Err(UrlError::TooLong { bytes: url.len() });
    }
    let mut url: Vec<u8> = url
        .trim_ascii()
        .iter()
        .copied()
        .filter(|byte| !b"\t\r\n".contains(byte))
        .collect();
    if let Some(fragment) = url.iter().position(|byte| *byte == b'#') {
        url.truncate(fragment);
    }
    let url = unescape(url);
    let (scheme, rest) = split_scheme(&url)?;
    let end = rest
        .iter()
        .position(|byte| b"/?".contains(byte))
        .unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    let (path, query) = match rest.iter().position(|byte| *byte == b'?') {
        Some(at) => (
            rest.get(..at).unwrap_or_default(),
            rest.get(at.saturating_add(1)..),
        ),
        None => (rest, None),
    };
    let (host, is_address) = canonical_host(authority)?;
    Ok(CanonicalUrl {
        scheme,
        host,
        is_address,
        path: escape(&canonical_path(path)),
        query: query.map(escape),
    })
}

/// Undoes percent escapes until none is left.
///
/// In one pass from the end: an escape that undoing another one makes can only begin at or before it, so that what is
/// behind is settled. So the time is linear in the length however deep escapes are nested.
fn unescape(url: Vec<u8>) -> Vec<u8> {
    // The settled rest, last byte first.
    let mut settled: Vec<u8> = Vec::with_capacity(url.len());
    for byte in url.into_iter().rev() {
        let mut byte = byte;
        // What was undone may itself be the first byte of an escape with what follows.
        while byte == b'%'
            && let [.., low, high] = settled.as_slice()
            && let Some(undone) = hex_pair(*high, *low)
        {
            settled.truncate(settled.len().saturating_sub(2));
            byte = undone;
        }
        settled.push(byte);
    }
    settled.reverse();
    settled
}

fn hex_pair(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    Some(digit(high)? << 4 | digit(low)?)
}

/// Escapes what is not printable ASCII, `#` and `%`.
fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        if byte <= 32 || byte >= 127 || byte == b'#' || byte == b'%' {
            _ = write!(text, "%{byte:02X}");
        } else {
            text.push(char::from(byte));
        }
    }
    text
}

/// Splits a scheme off; without one it is `http`.
fn split_scheme(url: &[u8]) -> Result<(String, &[u8]), UrlError> {
    let is_scheme = |name: &[u8]| {
        name.first().is_some_and(u8::is_ascii_alphabetic)
            && name
                .iter()
                .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte))
    };
    let http = || "http".to_owned();
    if let Some(rest) = url.strip_prefix(b"//") {
        return Ok((http(), rest));
    }
    let Some(colon) = url.iter().position(|byte| *byte == b':') else {
        return Ok((http(), url));
    };
    let (name, rest) = url.split_at(colon);
    if !is_scheme(name) {
        return Ok((http(), url));
    }
    if let Some(rest) = rest.strip_prefix(b"://") {
        return Ok((String::from_utf8_lossy(name).to_ascii_lowercase(), rest));
    }
    let port = rest
        .iter()
        .skip(1)
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    let after = rest.get(port.saturating_add(1));
    if matches!(after, None | Some(b'/' | b'?')) {
        Ok((http(), url))
    } else {
        Err(UrlError::NotHierarchical)
    }
}

/// Brings the host of an authority into canonical form; says whether it is an address.
fn canonical_host(authority: &[u8]) -> Result<(String, bool), UrlError> {
    let host = authority
        .rsplit(|byte| *byte == b'@')
        .next()
        .unwrap_or_default();
    if let Some(address) = bracketed(host) {
        return Ok((address, true));
    }
    let host = without_port(host);
    let host = to_ascii(host).to_ascii_lowercase();
    let labels: Vec<&[u8]> = host
        .split(|byte| *byte == b'.')
        .filter(|label| !label.is_empty())
        .collect();
    let host = labels.join(&b'.');
    if host.is_empty() {
        return Err(UrlError::NoHost);
    }
    match ipv4(&labels) {
        Some(address) => Ok((address.to_string(), true)),
        None => Ok((escape(&host), false)),
    }
}

/// Drops what a port could be, also twice: the canonical form must not lose another.
fn without_port(mut host: &[u8]) -> &[u8] {
    while let Some(colon) = host.iter().rposition(|byte| *byte == b':') {
        let (name, port) = host.split_at(colon);
        if !port.iter().skip(1).all(u8::is_ascii_digit) {
            break;
        }
        host = name;
    }
    host
}

/// Converts an internationalised name; what cannot be converted stays.
fn to_ascii(host: &[u8]) -> Vec<u8> {
    if host.is_ascii() {
        return host.to_vec();
    }
    let name = std::str::from_utf8(host)
        .ok()
        .and_then(|host| idna::domain_to_ascii(host).ok());
    name.map_or_else(|| host.to_vec(), String::into_bytes)
}

/// Reads an IPv6 address in brackets; one that stands for an IPv4 address becomes that.
fn bracketed(host: &[u8]) -> Option<String> {
    let end = host.iter().position(|byte| *byte == b']')?;
    let text = std::str::from_utf8(host.get(..end)?.strip_prefix(b"[")?).ok()?;
    let address: Ipv6Addr = text.parse().ok()?;
    // The well-known prefix of NAT64 (RFC 6052) is 64:ff9b::/96.
    let [prefix @ .., high, low] = address.segments();
    let nat64 = prefix == [0x64, 0xff9b, 0, 0, 0, 0];
    let inner = Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    let v4 = address.to_ipv4_mapped().or(nat64.then_some(inner));
    Some(v4.map_or_else(|| format!("[{address}]"), |v4| v4.to_string()))
}

/// Reads an IPv4 address as `inet_aton` does: one to four numbers, decimal, octal or hexadecimal, the last of which
/// fills the rest.
fn ipv4(labels: &[&[u8]]) -> Option<Ipv4Addr> {
    let (last, first) = labels.split_last()?;
    if first.len() > 3 {
        return None;
    }
    let mut address = 0_u32;
    let mut shift = 32_u32;
    for label in first {
        let byte = u8::try_from(ipv4_number(label)?).ok()?;
        shift = shift.checked_sub(8)?;
        address |= u32::from(byte).checked_shl(shift)?;
    }
    let rest = ipv4_number(last)?;
    let fits = rest.checked_shr(shift).is_none_or(|over| over == 0);
    fits.then_some(())?;
    Some(Ipv4Addr::from(address | u32::try_from(rest).ok()?))
}

fn ipv4_number(label: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(label).ok()?;
    if text.starts_with('+') {
        return None;
    }
    if let Some(hex) = text.strip_prefix("0x") {
        return if hex.is_empty() {
            Some(0)
        } else {
            u64::from_str_radix(hex, 16).ok()
        };
    }
    match text.strip_prefix('0') {
        Some(octal) if !octal.is_empty() => u64::from_str_radix(octal, 8).ok(),
        _ => text.parse().ok(),
    }
}

/// Resolves `.` and `..` and makes one slash of many.
fn canonical_path(path: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    let mut folder = true;
    for part in path.split(|byte| *byte == b'/') {
        folder = matches!(part, b"" | b"." | b"..");
        match part {
            b"" | b"." => {}
            b".." => _ = parts.pop(),
            name => parts.push(name),
        }
    }
    let mut out = Vec::with_capacity(path.len().saturating_add(1));
    for part in &parts {
        out.push(b'/');
        out.extend_from_slice(part);
    }
    if folder || parts.is_empty() {
        out.push(b'/');
    }
    out
}
