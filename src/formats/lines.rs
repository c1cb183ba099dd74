//! Lines of bounded length from any reader.
//!
//! A longer line is skipped in constant memory and reported with its beginning and
//! length. `LF` and `CR LF` end a line; a UTF-8 byte order mark before the first
//! is dropped, one of UTF-16 is an error.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};

use crate::limits::{BUFFER_BYTES, LINE_MAX_BYTES, ORIGINAL_MAX_BYTES};
use crate::reject::FatalError;

/// What [`Lines::read`] put into the caller's buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Line {
    /// A whole line without its end.
    Whole,
    /// The beginning of a line of `bytes` bytes, give or take its end, which is over
    /// the limit.
    TooLong { bytes: u64 },
    /// Nothing: the input has ended.
    End,
}

pub(crate) struct Lines<R> {
    input: BufReader<R>,
    number: u64,
    started: bool,
    pending: VecDeque<(Vec<u8>, Line)>,
}

impl<R: Read> Lines<R> {
    pub(crate) fn new(input: R) -> Self {
        Self {
            input: BufReader::with_capacity(BUFFER_BYTES, input),
            number: 0,
            started: false,
            pending: VecDeque::new(),
        }
    }

    /// The number of the line read last, from 1; so also how many were read.
    pub(crate) const fn number(&self) -> u64 {
        self.number
    }

    /// Reads the next line into `line`, which is cleared first.
    pub(crate) fn read(&mut self, line: &mut Vec<u8>) -> Result<Line, FatalError> {
        line.clear();
        if let Some((pending, what)) = self.pending.pop_front() {
            line.extend_from_slice(&pending);
            self.number += 1;
            return Ok(what);
        }
        let failed = |source| FatalError::Io {
            line: self.number + 1,
            source,
        };
        // Two bytes more than a line may have, for its end.
        let most = LINE_MAX_BYTES as u64 + 2;
        let read = (&mut self.input).take(most).read_until(b'\n', line);
        if read.map_err(failed)? == 0 {
            return Ok(Line::End);
        }
        let ended = line.last() == Some(&b'\n');
        trim_end(line);
        if !self.started {
            self.started = true;
            strip_mark(line)?;
        }
        if line.len() <= LINE_MAX_BYTES {
            self.number += 1;
            return Ok(Line::Whole);
        }
        let mut bytes = line.len() as u64;
        if !ended {
            let skipped = self.input.skip_until(b'\n').map_err(failed)?;
            bytes += skipped as u64;
        }
        line.truncate(ORIGINAL_MAX_BYTES);
        self.number += 1;
        Ok(Line::TooLong { bytes })
    }

    /// Gives lines back, the first of them to be read next.
    pub(crate) fn unread(&mut self, lines: Vec<(Vec<u8>, Line)>) {
        self.number -= lines.len() as u64;
        for line in lines.into_iter().rev() {
            self.pending.push_front(line);
        }
    }
}

fn trim_end(line: &mut Vec<u8>) {
    if line.last() == Some(&b'\n') {
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
    }
}

fn strip_mark(line: &mut Vec<u8>) -> Result<(), FatalError> {
    if line.starts_with(b"\xef\xbb\xbf") {
        line.drain(..3);
    }
    if line.starts_with(b"\xff\xfe") || line.starts_with(b"\xfe\xff") {
        return Err(FatalError::Utf16);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(input: &[u8]) -> Vec<(Line, Vec<u8>)> {
        let mut lines = Lines::new(input);
        let mut line = Vec::new();
        let mut out = Vec::new();
        loop {
            let what = lines.read(&mut line).unwrap();
            if what == Line::End {
                assert_eq!(lines.number(), out.len() as u64);
                return out;
            }
            out.push((what, line.clone()));
        }
    }

    fn texts(input: &[u8]) -> Vec<Vec<u8>> {
        all(input).into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn line_ends_and_the_mark_are_dropped() {
        assert_eq!(
            texts(b"\xef\xbb\xbfa\r\nb\n\nc"),
            [&b"a"[..], b"b", b"", b"c"]
        );
        assert!(texts(b"").is_empty());
    }

    #[test]
    fn utf_16_is_an_error() {
        let mut lines = Lines::new(&b"\xff\xfea\0"[..]);
        assert!(matches!(
            lines.read(&mut Vec::new()),
            Err(FatalError::Utf16)
        ));
    }

    #[test]
    fn a_line_of_the_longest_length_is_whole_and_one_more_is_not() {
        let mut input = vec![b'a'; LINE_MAX_BYTES];
        input.extend(b"\r\n");
        input.extend(vec![b'b'; LINE_MAX_BYTES + 1]);
        input.extend(b"\nc\n");
        let lines = all(&input);
        assert_eq!(lines[0].0, Line::Whole);
        let bytes = LINE_MAX_BYTES as u64 + 1;
        assert_eq!(lines[1].0, Line::TooLong { bytes });
        assert_eq!(lines[2], (Line::Whole, b"c".to_vec()));
    }

    #[test]
    fn a_gigabyte_in_one_line_is_skipped_in_constant_memory() {
        let long = std::io::repeat(b'x').take(1 << 30);
        let mut lines = Lines::new(long.chain(&b"\nnext\n"[..]));
        let mut line = Vec::new();
        let bytes = (1 << 30) + 1;
        assert_eq!(lines.read(&mut line).unwrap(), Line::TooLong { bytes });
        assert_eq!(line.len(), ORIGINAL_MAX_BYTES);
        assert!(line.capacity() <= 4 * LINE_MAX_BYTES);
        assert_eq!(lines.read(&mut line).unwrap(), Line::Whole);
        assert_eq!(line, b"next");
    }
}
