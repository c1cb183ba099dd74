//! vPDQ: a video as a set of frames, each a PDQ value with its quality and where it stands.
//!
//! Two videos are compared by the share of frames of each that the other has within a distance. Upstream's programs
//! contradict each other; what is done here, and why:
//!
//! | question | upstream | here |
//! |---|---|---|
//! | distance | C++ `<`, Python `≤` the tolerance | ≤, as PDQ itself |
//! | thresholds | Python: query 80 %, compared 0 %; the README's examples: the reverse | query 80 %, compared 0 %, both settable |
//! | the same frame twice | Python counts it once, C++ twice | once: a still picture shown for an hour is one frame |
//! | which comes first | deduplication or the quality filter, by program | the filter; of equal values the best quality stays |
//! | nothing left after the filter | 0 %, or an exception | 0 %, and never a match |
//! | time stamps | three significant digits | milliseconds |
//!
//! Reads both text forms: lines `frame,quality,hex[,seconds]` (the C++ programs) and the JSON list of
//! `"hex,quality,seconds"` (Python). What was read is written back the same, but for time stamps to the millisecond.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::pdq::{DEFAULT_DISTANCE, DistanceTooLarge, MAX_DISTANCE, PdqIndex, distance};

/// Most frames of a video: ten hours at one a second.
pub const MAX_FRAMES: usize = 36_000;

/// Longest text form: 110 bytes a frame.
pub const MAX_TEXT_BYTES: usize = MAX_FRAMES * 110;

/// Frames above which an index is made rather than all pairs compared.
const INDEX_FROM: usize = 512;

/// One frame.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// PDQ of the picture.
    pub value: [u8; 32],
    /// 0 to 100.
    pub quality: u8,
    /// Number in the video, where known.
    pub number: Option<u64>,
    /// Time in the video, where known.
    pub time_ms: Option<u64>,
}

impl std::fmt::Debug for Frame {
    /// Shows all but the value, which is a signal.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = f.debug_struct("Frame");
        debug
            .field("quality", &self.quality)
            .field("number", &self.number)
            .field("time_ms", &self.time_ms);
        debug.finish_non_exhaustive()
    }
}

/// Why a text is no vPDQ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VpdqError {
    /// Longer than is read.
    #[error("the text has {bytes} bytes, more than the {MAX_TEXT_BYTES} that are read")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// More frames than are taken.
    #[error("more than {MAX_FRAMES} frames")]
    TooManyFrames,
    /// No frame at all.
    #[error("no frames")]
    NoFrames,
    /// A frame that is not of either form.
    #[error(
        "frame {at}: {field} is missing or wrong; expected number,quality,64 hex digits[,seconds] or hex,quality,seconds"
    )]
    Frame {
        /// Which frame, from 1.
        at: usize,
        /// What of it.
        field: &'static str,
    },
    /// A list that is not a JSON list of plain strings.
    #[error("not a JSON list of strings")]
    NotAList,
}

impl VpdqError {
    /// The stable reason code.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::TooLong { .. } => "vpdq_too_long",
            Self::TooManyFrames => "vpdq_too_many_frames",
            Self::NoFrames => "vpdq_no_frames",
            Self::Frame { .. } => "vpdq_bad_frame",
            Self::NotAList => "vpdq_not_a_list",
        }
    }
}

/// Reads either text form.
///
/// # Errors
///
/// [`VpdqError`] says which frame is wrong and what of it.
pub fn parse(text: &str) -> Result<Vec<Frame>, VpdqError> {
    if text.len() > MAX_TEXT_BYTES {
        return Err(VpdqError::TooLong { bytes: text.len() });
    }
    let text = text.trim_start_matches('\u{feff}').trim();
    let frames = match text.strip_prefix('[') {
        Some(list) => parse_list(list)?,
        None => parse_lines(text)?,
    };
    if frames.is_empty() {
        Err(VpdqError::NoFrames)
    } else {
        Ok(frames)
    }
}

fn parse_lines(text: &str) -> Result<Vec<Frame>, VpdqError> {
    let mut frames = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let at = next(&frames)?;
        let mut fields = line.split(',').map(str::trim);
        let number = fields.next().and_then(|number| number.parse().ok());
        frames.push(Frame {
            number: Some(number.ok_or(VpdqError::Frame {
                at,
                field: "the number",
            })?),
            quality: quality(fields.next(), at)?,
            value: value(fields.next(), at)?,
            time_ms: fields.next().map(|seconds| time(seconds, at)).transpose()?,
        });
        end(fields.next(), at)?;
    }
    Ok(frames)
}

/// Reads what follows the bracket. Strings hold no escapes: none of their characters needs one.
fn parse_list(list: &str) -> Result<Vec<Frame>, VpdqError> {
    let list = list.strip_suffix(']').ok_or(VpdqError::NotAList)?;
    let mut frames = Vec::new();
    let quotes = list.matches('"').count();
    if !quotes.is_multiple_of(2) {
        return Err(VpdqError::NotAList);
    }
    for item in list.split('"').enumerate() {
        match item {
            // Between strings there is a comma, before the first and after the last nothing.
            (at, between) if at.is_multiple_of(2) => {
                let last = at == quotes;
                let expected = if at == 0 || last { "" } else { "," };
                if between.trim() != expected {
                    return Err(VpdqError::NotAList);
                }
            }
            (_, string) => {
                let at = next(&frames)?;
                let mut fields = string.split(',').map(str::trim);
                frames.push(Frame {
                    value: value(fields.next(), at)?,
                    quality: quality(fields.next(), at)?,
                    time_ms: fields.next().map(|seconds| time(seconds, at)).transpose()?,
                    number: None,
                });
                end(fields.next(), at)?;
            }
        }
    }
    Ok(frames)
}

fn next(frames: &[Frame]) -> Result<usize, VpdqError> {
    if frames.len() < MAX_FRAMES {
        Ok(frames.len() + 1)
    } else {
        Err(VpdqError::TooManyFrames)
    }
}

fn value(field: Option<&str>, at: usize) -> Result<[u8; 32], VpdqError> {
    let wrong = VpdqError::Frame {
        at,
        field: "the value",
    };
    let field = field.filter(|hex| hex.len() == 64).ok_or(wrong)?;
    let mut value = [0; 32];
    let (pairs, _) = field.as_bytes().as_chunks::<2>();
    for (byte, [high, low]) in value.iter_mut().zip(pairs) {
        let digit = |digit: &u8| {
            char::from(*digit)
                .to_digit(16)
                .and_then(|digit| u8::try_from(digit).ok())
        };
        *byte = digit(high).ok_or(wrong)? << 4 | digit(low).ok_or(wrong)?;
    }
    Ok(value)
}

fn quality(field: Option<&str>, at: usize) -> Result<u8, VpdqError> {
    let quality = field
        .and_then(|quality| quality.parse().ok())
        .filter(|quality| *quality <= 100);
    quality.ok_or(VpdqError::Frame {
        at,
        field: "the quality",
    })
}

/// Reads seconds, as Python may write them (`1.23e+03`), to the millisecond.
fn time(field: &str, at: usize) -> Result<u64, VpdqError> {
    let seconds: Option<f64> = field
        .parse()
        .ok()
        .filter(|seconds| (0.0..1e9).contains(seconds));
    let seconds = seconds.ok_or(VpdqError::Frame {
        at,
        field: "the time",
    })?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "0 to 10^12"
    )]
    let time_ms = (seconds * 1_000.0).round() as u64;
    Ok(time_ms)
}

fn end(field: Option<&str>, at: usize) -> Result<(), VpdqError> {
    field.map_or(Ok(()), |_| {
        Err(VpdqError::Frame {
            at,
            field: "what follows the last field",
        })
    })
}

/// Writes lines `frame,quality,hex,seconds`; a frame without a number gets its position, one without a time no time.
#[must_use]
pub fn to_lines(frames: &[Frame]) -> String {
    let mut text = String::new();
    for (at, frame) in frames.iter().enumerate() {
        let number = frame.number.unwrap_or(at as u64);
        let time = frame
            .time_ms
            .map(|time| format!(",{}", seconds(time)))
            .unwrap_or_default();
        _ = writeln!(
            text,
            "{number},{},{}{time}",
            frame.quality,
            hex(&frame.value)
        );
    }
    text
}

/// Writes the JSON list of `"hex,quality,seconds"`; a frame without a time gets 0.
#[must_use]
pub fn to_list(frames: &[Frame]) -> String {
    let items = frames.iter().map(|frame| {
        format!(
            "\"{},{},{}\"",
            hex(&frame.value),
            frame.quality,
            seconds(frame.time_ms.unwrap_or(0))
        )
    });
    format!("[{}]", items.collect::<Vec<_>>().join(","))
}

fn seconds(time_ms: u64) -> String {
    format!("{}.{:03}", time_ms / 1_000, time_ms % 1_000)
}

fn hex(value: &[u8; 32]) -> String {
    value
        .iter()
        .fold(String::with_capacity(64), |mut hex, byte| {
            _ = write!(hex, "{byte:02x}");
            hex
        })
}

/// What makes frames, and videos, the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Largest distance between the same frames, at most [`MAX_DISTANCE`].
    pub distance: u32,
    /// Smallest quality of a frame that counts.
    pub quality: u8,
    /// Smallest share of the query's frames that the other has, in percent.
    pub query_percent: u8,
    /// Smallest share of the other's frames that the query has, in percent.
    pub compared_percent: u8,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            distance: DEFAULT_DISTANCE,
            quality: 50,
            query_percent: 80,
            compared_percent: 0,
        }
    }
}

/// How much of two videos is the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Different frames of the query that count.
    pub query_frames: usize,
    /// Those that the other has.
    pub query_matched: usize,
    /// Different frames of the other that count.
    pub compared_frames: usize,
    /// Those that the query has.
    pub compared_matched: usize,
}

impl Comparison {
    /// The share of the query's frames that the other has, in percent.
    #[must_use]
    pub fn query_percent(&self) -> f64 {
        percent(self.query_matched, self.query_frames)
    }

    /// The share of the other's frames that the query has, in percent.
    #[must_use]
    pub fn compared_percent(&self) -> f64 {
        percent(self.compared_matched, self.compared_frames)
    }

    /// Says whether this is a match: both shares large enough, and at least one frame the same.
    #[must_use]
    pub fn is_match(&self, thresholds: &Thresholds) -> bool {
        let reached = |matched: usize, frames: usize, percent: u8| {
            matched * 100 >= usize::from(percent) * frames
        };
        self.query_matched > 0
            && reached(
                self.query_matched,
                self.query_frames,
                thresholds.query_percent,
            )
            && reached(
                self.compared_matched,
                self.compared_frames,
                thresholds.compared_percent,
            )
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of frames")]
fn percent(part: usize, whole: usize) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 * 100.0 / whole as f64
    }
}

/// Keeps the frames that count: of enough quality, each value once, with its best quality, in the order of values.
#[must_use]
pub fn distinct(frames: &[Frame], quality: u8) -> Vec<Frame> {
    let mut best: BTreeMap<[u8; 32], Frame> = BTreeMap::new();
    for frame in frames.iter().filter(|frame| frame.quality >= quality) {
        let held = best.entry(frame.value).or_insert(*frame);
        if held.quality < frame.quality {
            *held = *frame;
        }
    }
    best.into_values().collect()
}

/// Compares two videos frame by frame.
///
/// # Errors
///
/// [`DistanceTooLarge`] if the thresholds ask for more than [`MAX_DISTANCE`].
pub fn compare(
    query: &[Frame],
    compared: &[Frame],
    thresholds: &Thresholds,
) -> Result<Comparison, DistanceTooLarge> {
    if thresholds.distance > MAX_DISTANCE {
        return Err(DistanceTooLarge {
            asked: thresholds.distance,
        });
    }
    let query = distinct(query, thresholds.quality);
    let compared = distinct(compared, thresholds.quality);
    Ok(Comparison {
        query_frames: query.len(),
        query_matched: matched(&query, &compared, thresholds.distance)?,
        compared_frames: compared.len(),
        compared_matched: matched(&compared, &query, thresholds.distance)?,
    })
}

/// Counts the frames that have a near one among others.
fn matched(frames: &[Frame], others: &[Frame], max: u32) -> Result<usize, DistanceTooLarge> {
    if frames.len().min(others.len()) < INDEX_FROM {
        let near = |frame: &&Frame| {
            others
                .iter()
                .any(|other| distance(&frame.value, &other.value) <= max)
        };
        return Ok(frames.iter().filter(near).count());
    }
    let index = PdqIndex::build(others.iter().map(|frame| frame.value), 1);
    let values: Vec<_> = frames.iter().map(|frame| frame.value).collect();
    let mut near = vec![false; values.len()];
    index.query_batch(&values, max, |query, _, _| {
        if let Some(near) = near.get_mut(query) {
            *near = true;
        }
    })?;
    Ok(near.into_iter().filter(|near| *near).count())
}

#[cfg(test)]
#[path = "vpdq_tests.rs"]
mod tests;
