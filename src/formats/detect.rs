//! Tells the format of a file from its beginning and its name.

use crate::delimited::is_header;
use crate::links::is_plain_link;

/// The formats that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// CSV and its relatives, columns by header.
    Csv,
    /// JSON Lines: one object a line.
    JsonLines,
    /// One signal a line, or what checksum programs print.
    List,
    /// VICS JSON 1.x or 2.0.
    Vics,
    /// One link a line, of which only a digest is kept.
    Urls,
}

impl Format {
    /// The format by the name that settings use.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            "csv" | "tsv" => Self::Csv,
            "jsonl" | "ndjson" | "json-lines" => Self::JsonLines,
            "list" | "plain" | "txt" => Self::List,
            "vics" => Self::Vics,
            "urls" | "url" | "links" => Self::Urls,
            _ => return None,
        })
    }

    /// The name that settings use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::JsonLines => "jsonl",
            Self::List => "list",
            Self::Vics => "vics",
            Self::Urls => "urls",
        }
    }
}

/// Tells the format by the first [`crate::DETECT_BYTES`] of a file and its name.
///
/// The content decides where it can; the name only where it says nothing.
#[must_use]
pub fn detect(first: &[u8], file_name: &str) -> Format {
    let first = first.strip_prefix(b"\xef\xbb\xbf").unwrap_or(first);
    let extension = file_name
        .rsplit_once('.')
        .map_or("", |(_, extension)| extension);
    let extension = extension.to_ascii_lowercase();
    let text = first.trim_ascii_start();
    if text.starts_with(b"{") || text.starts_with(b"[") {
        return json(text, &extension);
    }
    let mut lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let line = lines.find(|line| !line.is_empty() && !line.starts_with(b"#"));
    match line {
        Some(line) if is_header(line) => Format::Csv,
        Some(_) if is_list_of_links(text) => Format::Urls,
        _ => match extension.as_str() {
            "csv" | "tsv" => Format::Csv,
            "jsonl" | "ndjson" => Format::JsonLines,
            "json" if line.is_none() => Format::Vics,
            _ => Format::List,
        },
    }
}

/// Whether every whole line of the beginning is a link and nothing else. ⚠ One that is
/// not sure is not guessed: what is published is for ever.
fn is_list_of_links(text: &[u8]) -> bool {
    let whole = match text.iter().rposition(|byte| *byte == b'\n') {
        Some(end) if text.len() >= crate::DETECT_BYTES / 2 => text.get(..end).unwrap_or(text),
        _ => text,
    };
    let lines = whole.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let mut lines = lines.filter(|line| !line.is_empty() && !line.starts_with(b"#"));
    lines.all(is_plain_link)
}

/// A VICS document is one value, its beginning names itself; a line is an object.
fn json(text: &[u8], extension: &str) -> Format {
    let has = |needle: &[u8]| text.windows(needle.len()).any(|window| window == needle);
    let vics = text.starts_with(b"[")
        || has(b"odata.context\"")
        || has(b"odata.metadata\"")
        || has(b"\"MediaID\"");
    if vics && !matches!(extension, "jsonl" | "ndjson") {
        Format::Vics
    } else {
        Format::JsonLines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_decides() {
        let hash = "00112233445566778899aabbccddeeff";
        for (text, name, format) in [
            ("md5,sha1\n".to_owned(), "x", Format::Csv),
            (
                "# made by x\r\nid;SHA-256\r\n".to_owned(),
                "x.txt",
                Format::Csv,
            ),
            ("md5\n".to_owned(), "x", Format::Csv),
            (format!("{hash}\n"), "x", Format::List),
            (format!("{hash}  usr/bin/x,y\n"), "x", Format::List),
            (format!("MD5:{hash}\n"), "x", Format::List),
            (format!("MD5 (a) = {hash}\n"), "x", Format::List),
            ("{\"md5\":".to_owned(), "x", Format::JsonLines),
            (
                "\u{feff}{\n\"@odata.context\":\"x\"".to_owned(),
                "x.json",
                Format::Vics,
            ),
            ("{\"odata.metadata\":\"x\"".to_owned(), "x", Format::Vics),
            ("[{\"MediaID\":1}]".to_owned(), "x", Format::Vics),
            (
                "# made by x\n\nhttps://a.example/b\nHTTP://c.example\n".to_owned(),
                "x",
                Format::Urls,
            ),
            // A link beside something else, or something else beside links, is nothing that
            // is guessed.
            (format!("https://a.example/b,{hash}\n"), "x", Format::List),
            (format!("https://a.example/b\n{hash}\n"), "x", Format::List),
            ("https://a.example/b c\n".to_owned(), "x", Format::List),
            ("a.example/b\n".to_owned(), "x", Format::List),
            (
                "url,md5\nhttps://a.example/b,\n".to_owned(),
                "x",
                Format::Csv,
            ),
            (String::new(), "x", Format::List),
            (String::new(), "x.CSV", Format::Csv),
        ] {
            assert_eq!(detect(text.as_bytes(), name), format, "{text:?} {name}");
        }
    }
}
