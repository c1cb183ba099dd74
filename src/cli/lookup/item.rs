//! One thing that is asked for, and how it is read.

use hashpact_core::signal::{Signal, SignalKind};

use crate::cli::error::CliError;
use crate::cli::media::{Hashed, Link, Look, LookError, scope};

/// One thing that is asked for, by all its signals.
pub(in crate::cli) struct Item {
    /// As it is shown: a signal, a file's path, or a link's number.
    pub(in crate::cli) name: String,
    pub(in crate::cli) signals: Vec<Asked>,
    /// The bytes of a name that is no text, in hexadecimal.
    pub(in crate::cli) bytes: Option<String>,
    /// Why only part of it is asked for.
    pub(in crate::cli) not_seen: Option<LookError>,
}

/// A signal, and what of the item it is of.
pub(in crate::cli) struct Asked {
    pub(in crate::cli) signal: Signal,
    /// How a picture was turned, or what of a link it covers.
    pub(in crate::cli) aspect: Option<String>,
}

impl From<Signal> for Asked {
    fn from(signal: Signal) -> Self {
        Self {
            signal,
            aspect: None,
        }
    }
}

impl Item {
    fn of(name: String, signals: Vec<Signal>) -> Self {
        Self {
            name,
            signals: signals.into_iter().map(Asked::from).collect(),
            bytes: None,
            not_seen: None,
        }
    }

    /// Whether frames are compared, which takes more than a value does.
    pub(in crate::cli) fn is_video(&self) -> bool {
        let mut signals = self.signals.iter();
        signals.any(|asked| asked.signal.kind() == SignalKind::Vpdq)
    }

    /// A file, by everything that it hashes to.
    pub(in crate::cli) fn file(name: String, hashed: &Hashed) -> Result<Self, CliError> {
        let signals = hashed.signals().map_err(CliError::failed)?;
        let mut item = Self::of(name, signals);
        match &hashed.look {
            Look::Picture(turns) if turns.len() > 1 => {
                for asked in &mut item.signals {
                    let turn = turns.iter().find(|(_, hashed)| {
                        asked.signal.kind() == SignalKind::Pdq
                            && asked.signal.value().as_ref() == hashed.value.as_slice()
                    });
                    asked.aspect = turn.map(|(turn, _)| turn.name().to_owned());
                }
            }
            Look::Failed(error) => item.not_seen = Some(error.clone()),
            Look::Nothing | Look::Picture(_) | Look::Video { .. } => {}
        }
        Ok(item)
    }

    /// A link, by all its expressions; the error names it by its number.
    pub(in crate::cli) fn link(link: Link) -> Result<Self, String> {
        let Link { name, expressions } = link;
        let expressions = expressions.map_err(|error| format!("{name}: {error}"))?;
        let signals = Link::signals(&expressions).map_err(|error| error.to_string())?;
        let asked = signals.into_iter().zip(&expressions);
        let asked = asked.map(|(signal, expression)| {
            let (host, path) = scope(expression);
            Asked {
                signal,
                aspect: Some(format!("{host}, {path}")),
            }
        });
        Ok(Self {
            name,
            signals: asked.collect(),
            bytes: None,
            not_seen: None,
        })
    }

    /// Reads `KIND:VALUE`, or a bare value by `kind` or its length.
    pub(in crate::cli) fn read(text: &str, kind: Option<SignalKind>) -> Result<Self, String> {
        let text = text.trim();
        let parse = |kind| Signal::parse(kind, text).map_err(|error| error.to_string());
        let named = text
            .split_once(':')
            .map(|(kind, _)| SignalKind::parse(kind.trim()));
        let signals = match (named, kind) {
            (Some(Ok(_)), _) => {
                vec![Signal::parse_spec(text).map_err(|error| error.to_string())?]
            }
            (_, Some(kind)) => vec![parse(kind)?],
            (Some(Err(error)), None) => return Err(error.to_string()),
            (None, None) => {
                let kinds = kinds_of(text)?;
                kinds.iter().copied().map(parse).collect::<Result<_, _>>()?
            }
        };
        let name = match signals.as_slice() {
            [one] => format!("{}:{}", one.kind(), one.to_text()),
            _ => text.to_ascii_lowercase(),
        };
        Ok(Self::of(name, signals))
    }

    /// Reads a line of a file of hashes: as [`read`](Self::read), or what a checksum
    /// program printed, whose file name is dropped.
    pub(in crate::cli) fn line(text: &str, kind: Option<SignalKind>) -> Result<Self, String> {
        Self::read(text, kind).or_else(|error| listed(text).ok_or(error))
    }
}

/// Reads what a checksum program printed, as `hashpact import` does; the file's name
/// is dropped.
fn listed(line: &str) -> Option<Item> {
    let signal = hashpact_formats::checksum_line(line)?;
    let name = format!("{}:{}", signal.kind(), signal.to_text());
    Some(Item::of(name, vec![signal]))
}

/// The kinds that a bare value can be of.
fn kinds_of(text: &str) -> Result<&'static [SignalKind], String> {
    let hexadecimal = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    match text.len() {
        32 if hexadecimal => Ok(&[SignalKind::Md5]),
        40 if hexadecimal => Ok(&[SignalKind::Sha1]),
        64 if hexadecimal => Ok(&[SignalKind::Sha256, SignalKind::Pdq]),
        128 if hexadecimal => Ok(&[SignalKind::Sha512]),
        _ => Err("the kind cannot be told from the value: name it, or give --kind".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_value_is_asked_about_by_its_length() {
        let kinds = |text: &str| -> Vec<SignalKind> {
            let signals = Item::read(text, None).unwrap().signals;
            signals.iter().map(|asked| asked.signal.kind()).collect()
        };
        assert_eq!(kinds(&"0a".repeat(16)), [SignalKind::Md5]);
        assert_eq!(kinds(&"0A".repeat(20)), [SignalKind::Sha1]);
        assert_eq!(
            kinds(&"0a".repeat(32)),
            [SignalKind::Sha256, SignalKind::Pdq]
        );
        assert_eq!(kinds(&"0a".repeat(64)), [SignalKind::Sha512]);
        let url = Item::read(&"0a".repeat(32), Some(SignalKind::Url)).unwrap();
        assert_eq!(url.signals[0].signal.kind(), SignalKind::Url);
    }

    #[test]
    fn a_named_kind_counts_and_errors_have_no_value() {
        let md5 = format!("md5:{}", "0A".repeat(16));
        assert_eq!(
            Item::read(&md5, None).unwrap().name,
            format!("MD5:{}", "0a".repeat(16))
        );
        for bad in ["c0ffee", "md5:c0ffee", "crc:c0ffee"] {
            let error = Item::line(bad, None).err().unwrap();
            assert!(!error.contains("c0ffee"), "{error}");
        }
    }

    #[test]
    fn what_checksum_programs_print_is_asked_for_without_the_file_name() {
        let digest = "0a".repeat(32);
        for line in [
            format!("{digest}  a photo.jpg"),
            format!("{digest} *a photo.jpg"),
            format!("SHA256 (a photo.jpg) = {digest}"),
        ] {
            assert!(Item::read(&line, None).is_err(), "{line}");
            let item = Item::line(&line, None).unwrap();
            assert_eq!(item.name, format!("SHA256:{digest}"));
            assert_eq!(item.signals.len(), 1);
        }
        assert!(listed("no digest at all").is_none());
    }
}
