//! Warninglists of MISP, as lists of what must never match.
//!
//! Taken is what a hash can be compared with: digests, and pages and hosts as the digest
//! of their most exact expression. ⚠ A host allows the entry for the whole host, not its
//! pages: of those only digests are known. Lists of patterns (`cidr`, `regex`,
//! `substring`) say nothing of hashes and are refused.
//!
//! Trust: none in the input; the caller caps its size. No value stands in an error.

use std::collections::BTreeMap;

use hashpact_core::signal::{Signal, SignalKind};
use serde::Deserialize;

use crate::links;

/// Bytes of a file that is read.
pub const WARNINGLIST_MAX_BYTES: usize = 64 << 20;
/// Values of one list.
pub const WARNINGLIST_VALUES_MAX: usize = 1_000_000;
/// Characters of a list's name that are kept.
const NAME_MAX_CHARS: usize = 120;

/// A list as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warninglist {
    /// Its name, on one line.
    pub name: String,
    /// Its version.
    pub version: u64,
    /// `string` or `hostname`.
    pub kind: String,
    /// What was taken, each value once.
    pub signals: Vec<Signal>,
    /// How many values were not, by why.
    pub skipped: BTreeMap<Skipped, u64>,
}

/// Why a value is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Skipped {
    /// Neither a digest nor a page nor a host that the list's attributes speak of.
    NoHash,
    /// No address of a page or host.
    BadLink,
    /// The same value again.
    Repeated,
}

impl Skipped {
    /// The stable code.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::NoHash => "no_hash",
            Self::BadLink => "bad_link",
            Self::Repeated => "repeated",
        }
    }
}

/// Why a file is no list that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WarninglistError {
    /// No such JSON.
    #[error("it is no warninglist: line {line} of the JSON is not understood")]
    Json {
        /// The line.
        line: usize,
    },
    /// A list of patterns.
    #[error(
        "it is a list of type {kind}: parts and patterns of values cannot be compared with \
         hashes, only lists of type string and hostname can"
    )]
    Patterns {
        /// The type.
        kind: &'static str,
    },
    /// A type that MISP does not have.
    #[error("it is a list of a type that is not known; string and hostname are read")]
    UnknownType,
    /// About something else.
    #[error("none of its matching_attributes is a digest, a link or a host")]
    OtherAttributes,
    /// More than [`WARNINGLIST_VALUES_MAX`].
    #[error("it has more than 1,000,000 values")]
    TooLong,
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    name: String,
    #[serde(default)]
    version: serde_json::Value,
    #[serde(default = "string_type", rename = "type")]
    kind: String,
    #[serde(default)]
    matching_attributes: Vec<String>,
    list: Vec<String>,
}

fn string_type() -> String {
    "string".to_owned()
}

/// What a list is about.
struct About {
    digests: [Option<SignalKind>; 4],
    links: bool,
    hosts: bool,
}

const DIGESTS: [(SignalKind, &str); 4] = [
    (SignalKind::Md5, "md5"),
    (SignalKind::Sha1, "sha1"),
    (SignalKind::Sha256, "sha256"),
    (SignalKind::Sha512, "sha512"),
];

impl About {
    /// `filename|md5` and the like are about both; a list without attributes about all.
    fn of(attributes: &[String]) -> Self {
        let words = || attributes.iter().flat_map(|all| all.split('|'));
        let about = |names: &[&str]| {
            attributes.is_empty() || words().any(|word| names.contains(&word.trim()))
        };
        Self {
            digests: DIGESTS.map(|(kind, name)| about(&[name]).then_some(kind)),
            links: about(&["url", "uri", "link"]),
            hosts: about(&["domain", "hostname", "url"]),
        }
    }

    fn is_something(&self) -> bool {
        self.links || self.hosts || self.digests.iter().any(Option::is_some)
    }

    fn digest(&self, value: &str) -> Option<Signal> {
        let mut kinds = self.digests.iter().flatten();
        kinds.find_map(|kind| Signal::parse(*kind, value).ok())
    }
}

/// Reads a warninglist.
///
/// # Errors
/// Why it cannot be used.
pub fn warninglist(bytes: &[u8]) -> Result<Warninglist, WarninglistError> {
    let file: File = serde_json::from_slice(bytes)
        .map_err(|error| WarninglistError::Json { line: error.line() })?;
    let hostnames = match file.kind.as_str() {
        "string" => false,
        "hostname" => true,
        "cidr" => return Err(WarninglistError::Patterns { kind: "cidr" }),
        "regex" => return Err(WarninglistError::Patterns { kind: "regex" }),
        "substring" => return Err(WarninglistError::Patterns { kind: "substring" }),
        _ => return Err(WarninglistError::UnknownType),
    };
    let about = About::of(&file.matching_attributes);
    if !about.is_something() {
        return Err(WarninglistError::OtherAttributes);
    }
    if file.list.len() > WARNINGLIST_VALUES_MAX {
        return Err(WarninglistError::TooLong);
    }
    let mut read = Warninglist {
        name: one_line(&file.name),
        version: file.version.as_u64().unwrap_or_default(),
        kind: file.kind,
        signals: Vec::new(),
        skipped: BTreeMap::new(),
    };
    let mut known = std::collections::HashSet::new();
    for value in &file.list {
        let signal = signal(value.trim(), &about, hostnames);
        match signal {
            Ok(signal) if known.insert(signal.index_key()) => read.signals.push(signal),
            Ok(_) => read.skip(Skipped::Repeated),
            Err(why) => read.skip(why),
        }
    }
    Ok(read)
}

impl Warninglist {
    fn skip(&mut self, why: Skipped) {
        let count = self.skipped.entry(why).or_default();
        *count = count.saturating_add(1);
    }
}

fn signal(value: &str, about: &About, hostnames: bool) -> Result<Signal, Skipped> {
    let link = |text: &str| links::signal(text.as_bytes()).map_err(|_| Skipped::BadLink);
    if hostnames {
        // `.example.com` is the domain with all below it.
        return link(value.trim_start_matches('.'));
    }
    if let Some(digest) = about.digest(value) {
        return Ok(digest);
    }
    let is_link = value.contains("://");
    if is_link && about.links {
        return link(value);
    }
    let is_host = !is_link && !value.contains('/') && value.contains('.');
    if (is_host && about.hosts) || (!is_link && value.contains('/') && about.links) {
        return link(value);
    }
    Err(Skipped::NoHash)
}

/// A name that can stand in a line.
fn one_line(name: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    name.chars().map(plain).take(NAME_MAX_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(kind: &str, attributes: &str, values: &[&str]) -> String {
        let values = values.iter().map(|value| format!("{value:?}"));
        let values: Vec<String> = values.collect();
        format!(
            r#"{{"name":"A\nlist","version":7,"description":"d","type":"{kind}",
            "matching_attributes":[{attributes}],"list":[{}]}}"#,
            values.join(",")
        )
    }

    fn specs(read: &Warninglist) -> Vec<String> {
        let spec = |signal: &Signal| format!("{}:{}", signal.kind(), signal.to_text());
        read.signals.iter().map(spec).collect()
    }

    #[test]
    fn digests_are_taken_in_any_letters_and_once() {
        let (md5, sha256) = ("0A".repeat(16), "0b".repeat(32));
        let text = list(
            "string",
            r#""md5","filename|sha256""#,
            &[&md5, &md5.to_lowercase(), &sha256, &"0c".repeat(20), "x"],
        );
        let read = warninglist(text.as_bytes()).unwrap();
        assert_eq!((read.name.as_str(), read.version), ("A list", 7));
        let wanted = [
            format!("MD5:{}", "0a".repeat(16)),
            format!("SHA256:{sha256}"),
        ];
        assert_eq!(specs(&read), wanted);
        let skipped = BTreeMap::from([(Skipped::NoHash, 2), (Skipped::Repeated, 1)]);
        assert_eq!(
            read.skipped, skipped,
            "a SHA-1 is none that the list speaks of"
        );
    }

    #[test]
    fn hosts_and_links_are_the_digests_that_entries_have() {
        let text = list(
            "hostname",
            r#""hostname","url""#,
            &[".a.example", "b", "a.example"],
        );
        let read = warninglist(text.as_bytes()).unwrap();
        let host = links::signal(b"https://a.example/").unwrap();
        assert_eq!(read.signals, std::slice::from_ref(&host));
        assert_eq!(read.skipped.values().sum::<u64>(), 2);
        let text = list(
            "string",
            r#""url""#,
            &["https://a.example/b?c=d", "a.example", "a.example/b"],
        );
        let read = warninglist(text.as_bytes()).unwrap();
        let page = links::signal(b"http://a.example/b?c=d").unwrap();
        assert_eq!(read.signals[..2], [page, host]);
        assert_eq!(read.signals.len(), 3);
    }

    #[test]
    fn what_says_nothing_of_hashes_is_refused_with_the_reason() {
        let error = |text: String| warninglist(text.as_bytes()).unwrap_err();
        for kind in ["cidr", "regex", "substring"] {
            let said = error(list(kind, "", &["10.0.0.0/8"]));
            assert_eq!(said, WarninglistError::Patterns { kind });
        }
        let said = error(list("ipv4", "", &[]));
        assert_eq!(said, WarninglistError::UnknownType);
        let said = error(list("string", r#""ip-src""#, &["10.0.0.1"]));
        assert_eq!(said, WarninglistError::OtherAttributes);
        for broken in ["", "[]", "{}", r#"{"list":[1]}"#, "{\"list\":[\"secret"] {
            let said = error(broken.to_owned());
            assert!(matches!(said, WarninglistError::Json { .. }), "{broken}");
            assert!(!said.to_string().contains("secret"));
        }
    }
}
