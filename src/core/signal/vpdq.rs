//! vPDQ: the PDQ of a video's frames, with one canonical encoding.
//!
//! Canonical bytes are frames of 37 bytes: 32 of PDQ, one of quality, four of the
//! time in milliseconds, big-endian; strictly ascending by time, then PDQ, then
//! quality. Upstream has two text forms, which are both read: a JSON list of
//! `"hex,quality,seconds"` (threatexchange in Python) and lines of
//! `frame,quality,hex,seconds` (C++). The first is printed, with milliseconds in
//! full; upstream's own printing keeps three significant digits.

use std::fmt::Write as _;

use bytes::Bytes;
use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};

use super::QUALITY_MAX;
use crate::reject::Rejection;

/// Bytes of one frame.
pub(super) const FRAME_BYTES: usize = 37;
/// Frames in one signal: 7,400 bytes, so that a leaf of 8,000 holds it with its
/// classification and labels. Longer videos are thinned out by their publisher.
pub const VPDQ_FRAMES_MAX: usize = 200;

const WHAT: &str = "vPDQ";

/// One frame of a video.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// The frame's PDQ.
    pub pdq: [u8; 32],
    /// Its quality, 0 to 100.
    pub quality: u8,
    /// Its time from the beginning, in milliseconds.
    pub at_ms: u32,
}

impl Frame {
    fn order(&self) -> (u32, [u8; 32], u8) {
        (self.at_ms, self.pdq, self.quality)
    }
}

/// Shows the time, never the value.
impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Frame(at {} ms)", self.at_ms)
    }
}

/// The frames of canonical bytes.
pub(super) fn frames(value: &[u8]) -> impl Iterator<Item = Frame> + '_ {
    let (chunks, _) = value.as_chunks::<FRAME_BYTES>();
    chunks.iter().filter_map(|chunk| {
        let (pdq, rest) = chunk.split_first_chunk::<32>()?;
        let (quality, at_ms) = rest.split_first()?;
        Some(Frame {
            pdq: *pdq,
            quality: *quality,
            at_ms: u32::from_be_bytes(at_ms.try_into().ok()?),
        })
    })
}

/// Refuses bytes that are not canonical.
pub(super) fn check(value: &[u8]) -> Result<(), Rejection> {
    let whole = value.len().is_multiple_of(FRAME_BYTES);
    let good_quality = frames(value).all(|frame| frame.quality <= QUALITY_MAX);
    let ascending = frames(value).is_sorted_by(|a, b| a.order() < b.order());
    if whole && good_quality && ascending {
        Ok(())
    } else {
        let why = "frames of 37 bytes, quality 0 to 100, ascending by time";
        Err(Rejection::invalid(WHAT, why))
    }
}

/// The canonical bytes of frames in any order; equal ones count once.
pub(super) fn to_bytes(mut frames: Vec<Frame>) -> Result<Bytes, Rejection> {
    frames.sort_unstable_by_key(Frame::order);
    frames.dedup();
    Rejection::cap("vPDQ frames", frames.len(), VPDQ_FRAMES_MAX)?;
    let mut bytes = Vec::with_capacity(frames.len().saturating_mul(FRAME_BYTES));
    for frame in &frames {
        bytes.extend_from_slice(&frame.pdq);
        bytes.push(frame.quality);
        bytes.extend_from_slice(&frame.at_ms.to_be_bytes());
    }
    Ok(bytes.into())
}

/// Reads either upstream form.
pub(super) fn parse(text: &str) -> Result<Bytes, Rejection> {
    let frames = match text.strip_prefix('[') {
        Some(list) => parse_list(list)?,
        None => text
            .lines()
            .filter(|line| !line.trim().is_empty())
            .map(parse_line)
            .collect::<Result<_, _>>()?,
    };
    if frames.is_empty() {
        return Err(Rejection::invalid(WHAT, "no frame"));
    }
    to_bytes(frames)
}

/// Prints the JSON list.
pub(super) fn to_text(value: &[u8]) -> String {
    let mut text = String::from("[");
    for frame in frames(value) {
        let separator = if text.len() > 1 { ", " } else { "" };
        let pdq = HEXLOWER.encode(&frame.pdq);
        let (seconds, millis) = (frame.at_ms / 1_000, frame.at_ms % 1_000);
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "{separator}\"{pdq},{},{seconds}.{millis:03}\"",
            frame.quality
        );
    }
    text.push(']');
    text
}

/// Reads the JSON list after its `[`: strings without escapes.
fn parse_list(list: &str) -> Result<Vec<Frame>, Rejection> {
    let wrong = || Rejection::invalid(WHAT, "no JSON list of \"hex,quality,seconds\"");
    let inner = list.trim_end().strip_suffix(']').ok_or_else(wrong)?;
    let mut frames = Vec::new();
    for item in inner.split('"').enumerate() {
        match item {
            (number, text) if number % 2 == 1 => frames.push(parse_item(text)?),
            (0, between) if between.trim().is_empty() => {}
            (_, between) if matches!(between.trim(), "" | ",") => {}
            _ => return Err(wrong()),
        }
    }
    let quotes = inner.matches('"').count();
    let commas_between = inner
        .split('"')
        .step_by(2)
        .filter(|between| between.contains(','));
    let balanced =
        quotes.is_multiple_of(2) && commas_between.count() == frames.len().saturating_sub(1);
    if balanced { Ok(frames) } else { Err(wrong()) }
}

/// Reads `hex,quality,seconds`.
fn parse_item(text: &str) -> Result<Frame, Rejection> {
    let mut fields = text.split(',').map(str::trim);
    match (fields.next(), fields.next(), fields.next(), fields.next()) {
        (Some(pdq), Some(quality), Some(seconds), None) => frame(pdq, quality, seconds),
        _ => Err(Rejection::invalid(
            WHAT,
            "a frame reads hex,quality,seconds",
        )),
    }
}

/// Reads `frame,quality,hex,seconds`; the frame's number says nothing more.
fn parse_line(line: &str) -> Result<Frame, Rejection> {
    let fields: Vec<&str> = line.split(',').map(str::trim).take(5).collect();
    match fields.as_slice() {
        [number, quality, pdq, seconds] if number.parse::<u64>().is_ok() => {
            frame(pdq, quality, seconds)
        }
        _ => Err(Rejection::invalid(
            WHAT,
            "a line reads frame,quality,hex,seconds",
        )),
    }
}

fn frame(pdq: &str, quality: &str, seconds: &str) -> Result<Frame, Rejection> {
    let pdq = HEXLOWER_PERMISSIVE.decode(pdq.as_bytes()).ok();
    let pdq = pdq.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    let quality = quality.parse().ok().filter(|q: &u8| *q <= QUALITY_MAX);
    match (pdq, quality, millis(seconds)) {
        (Some(pdq), Some(quality), Some(at_ms)) => Ok(Frame {
            pdq,
            quality,
            at_ms,
        }),
        _ => Err(Rejection::invalid(
            WHAT,
            "a frame has 64 hexadecimal digits, a quality of 0 to 100 and a time in seconds",
        )),
    }
}

/// Seconds as upstream prints them (`61.25`, also `1.23e+03`) to milliseconds.
fn millis(seconds: &str) -> Option<u32> {
    let seconds: f64 = seconds.parse().ok()?;
    if !(0.0..4_294_967.0).contains(&seconds) {
        return None;
    }
    // Printing rounds to the nearest without a lossy cast.
    format!("{:.0}", seconds * 1_000.0).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "f8f8f0cee0f4a84f06370a22038f63f0b36e2ed596621e1d33e6b39c4e9c9b22";
    const B: &str = "00f8f0cee0f4a84f06370a22038f63f0b36e2ed596621e1d33e6b39c4e9c9b22";

    #[test]
    fn both_upstream_forms_give_the_same_bytes() {
        let list = parse(&format!(r#"["{A},100,0.0", "{B},51,1.23e+03"]"#)).unwrap();
        let lines = parse(&format!("0,100,{A},0.000\r\n30,51,{B},1230.0\n")).unwrap();
        assert_eq!(list, lines);
        assert_eq!(list.len(), 2 * FRAME_BYTES);
        assert_eq!(list[33..37], [0; 4]);
    }

    #[test]
    fn frames_are_ordered_by_time_and_equal_ones_count_once() {
        let ordered = parse(&format!(r#"["{A},100,0.0","{B},51,2"]"#)).unwrap();
        let mixed = parse(&format!(r#"["{B},51,2","{A},100,0.0","{B},51,2.000"]"#)).unwrap();
        assert_eq!(ordered, mixed);
        assert!(check(&ordered).is_ok());
        let mut swapped = ordered[FRAME_BYTES..].to_vec();
        swapped.extend_from_slice(&ordered[..FRAME_BYTES]);
        assert!(check(&swapped).is_err());
        assert!(check(&ordered[1..]).is_err());
    }

    #[test]
    fn printed_times_keep_their_milliseconds() {
        let value = parse(&format!(r#"["{A},100,1234.567"]"#)).unwrap();
        assert_eq!(to_text(&value), format!(r#"["{A},100,1234.567"]"#));
    }

    #[test]
    fn what_is_neither_form_is_refused() {
        for text in [
            "",
            "[]",
            "[",
            &format!(r#"["{A},100,0.0""#),
            &format!(r#"["{A},100,0.0"x"{B},1,1"]"#),
            &format!(r#"["{A},100,0.0" "{B},1,1"]"#),
            &format!(r#"["{A},101,0.0"]"#),
            &format!(r#"["{A},100,-1"]"#),
            &format!(r#"["{A},100,NaN"]"#),
            &format!(r#"["{A},100"]"#),
            &format!("0,100,{A}"),
            &format!("x,100,{A},0"),
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn frames_are_capped() {
        let list = |count: usize| {
            let items: Vec<String> = (0..count).map(|i| format!("\"{A},99,{i}\"")).collect();
            parse(&format!("[{}]", items.join(",")))
        };
        assert!(list(VPDQ_FRAMES_MAX).is_ok());
        assert_eq!(list(VPDQ_FRAMES_MAX + 1).unwrap_err().code(), "too_large");
    }
}
