//! The lexical side of the walk: strings, brackets and scalars of JSON, kept up to
//! a bound or skipped.

use std::io::{self, BufRead, BufReader, Read};

use crate::limits::{BUFFER_BYTES, VICS_DEPTH_MAX};

/// Why the walk cannot go on.
#[derive(Debug)]
pub(super) enum Broken {
    /// Reading failed.
    Io(io::Error),
    /// Text in UTF-16.
    Utf16,
    /// The input ends within the document.
    End,
    /// What was expected instead.
    Syntax(&'static str),
}

/// Bytes that are kept up to a bound; beyond it they are only passed over.
pub(super) struct Kept {
    pub(super) bytes: Vec<u8>,
    pub(super) too_long: bool,
    pub(super) too_deep: bool,
    most: usize,
}

impl Kept {
    pub(super) const fn new(most: usize) -> Self {
        Self {
            bytes: Vec::new(),
            too_long: false,
            too_deep: false,
            most,
        }
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.too_long = false;
        self.too_deep = false;
    }

    pub(super) fn add(&mut self, more: &[u8]) {
        if self.too_long || self.bytes.len() + more.len() > self.most {
            self.too_long = true;
        } else {
            self.bytes.extend_from_slice(more);
        }
    }
}

pub(super) struct Tokens<R> {
    input: BufReader<R>,
    at: u64,
}

impl<R: Read> Tokens<R> {
    pub(super) fn new(input: R) -> Self {
        Self {
            input: BufReader::with_capacity(BUFFER_BYTES, input),
            at: 0,
        }
    }

    /// How many bytes were read.
    pub(super) const fn at(&self) -> u64 {
        self.at
    }

    /// What is buffered; empty only at the end of the input.
    fn buffer(&mut self) -> Result<&[u8], Broken> {
        loop {
            match self.input.fill_buf() {
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Broken::Io(error)),
            }
        }
        Ok(self.input.buffer())
    }

    /// The next byte, which stays.
    pub(super) fn peek(&mut self) -> Result<Option<u8>, Broken> {
        Ok(self.buffer()?.first().copied())
    }

    /// Goes over `bytes` that are buffered.
    pub(super) fn bump(&mut self, bytes: usize) {
        self.input.consume(bytes);
        self.at += bytes as u64;
    }

    /// Goes over a byte order mark; one of UTF-16 is an error.
    pub(super) fn mark(&mut self) -> Result<(), Broken> {
        let begins = self.buffer()?;
        if begins.starts_with(b"\xff\xfe") || begins.starts_with(b"\xfe\xff") {
            return Err(Broken::Utf16);
        }
        for byte in *b"\xef\xbb\xbf" {
            if self.peek()? == Some(byte) {
                self.bump(1);
            }
        }
        Ok(())
    }

    /// Goes over whitespace, and commas where `commas`; the next byte stays.
    pub(super) fn space(&mut self, commas: bool) -> Result<Option<u8>, Broken> {
        loop {
            let buffer = self.buffer()?;
            if buffer.is_empty() {
                return Ok(None);
            }
            let is_space = |byte: &u8| byte.is_ascii_whitespace() || commas && *byte == b',';
            let spaces = buffer.iter().take_while(|byte| is_space(byte)).count();
            let next = buffer.get(spaces).copied();
            self.bump(spaces);
            if next.is_some() {
                return Ok(next);
            }
        }
    }

    /// Goes over whitespace and commas to what must come.
    pub(super) fn next(&mut self) -> Result<u8, Broken> {
        self.space(true)?.ok_or(Broken::End)
    }

    /// Takes a key with its colon; returns the first byte of its value, which stays.
    pub(super) fn key(&mut self, key: &mut Kept) -> Result<u8, Broken> {
        key.clear();
        if self.peek()? != Some(b'"') {
            return Err(Broken::Syntax("a key was expected"));
        }
        self.string(Some(key))?;
        match self.space(false)? {
            Some(b':') => self.bump(1),
            Some(_) => return Err(Broken::Syntax("a colon was expected")),
            None => return Err(Broken::End),
        }
        self.space(false)?.ok_or(Broken::End)
    }

    /// Takes a string that begins here, with its quotes.
    fn string(&mut self, mut kept: Option<&mut Kept>) -> Result<(), Broken> {
        let mut opened = false;
        let mut escaped = false;
        loop {
            let buffer = self.buffer()?;
            if buffer.is_empty() {
                return Err(Broken::End);
            }
            let mut closed = false;
            let mut taken = 0;
            for byte in buffer {
                taken += 1;
                if escaped {
                    escaped = false;
                } else if *byte == b'\\' {
                    escaped = true;
                } else if *byte == b'"' {
                    closed = opened;
                    opened = true;
                    if closed {
                        break;
                    }
                }
            }
            if let Some(kept) = kept.as_deref_mut() {
                kept.add(buffer.get(..taken).unwrap_or_default());
            }
            self.bump(taken);
            if closed {
                return Ok(());
            }
        }
    }

    /// Takes the value that begins here: brackets to their end, a string, or a
    /// scalar up to what ends it.
    pub(super) fn value(&mut self, mut kept: Option<&mut Kept>) -> Result<(), Broken> {
        let mut depth: u64 = 0;
        loop {
            let Some(byte) = self.space(false)? else {
                return Err(Broken::End);
            };
            match byte {
                b'"' => self.string(kept.as_deref_mut())?,
                b'{' | b'[' => {
                    depth += 1;
                    if let Some(kept) = kept.as_deref_mut() {
                        kept.too_deep |= depth > u64::from(VICS_DEPTH_MAX);
                        kept.add(&[byte]);
                    }
                    self.bump(1);
                    continue;
                }
                b'}' | b']' | b',' | b':' if depth == 0 => {
                    return Err(Broken::Syntax("a value was expected"));
                }
                b'}' | b']' => {
                    depth -= 1;
                    self.take(byte, kept.as_deref_mut());
                }
                b',' | b':' => {
                    self.take(byte, kept.as_deref_mut());
                    continue;
                }
                _ => self.scalar(kept.as_deref_mut())?,
            }
            if depth == 0 {
                return Ok(());
            }
        }
    }

    fn take(&mut self, byte: u8, kept: Option<&mut Kept>) {
        if let Some(kept) = kept {
            kept.add(&[byte]);
        }
        self.bump(1);
    }

    fn scalar(&mut self, mut kept: Option<&mut Kept>) -> Result<(), Broken> {
        loop {
            let buffer = self.buffer()?;
            if buffer.is_empty() {
                return Err(Broken::End);
            }
            let ends = |byte: &u8| byte.is_ascii_whitespace() || b",]}\"".contains(byte);
            let end = buffer.iter().position(ends);
            let taken = end.unwrap_or(buffer.len());
            if let Some(kept) = kept.as_deref_mut() {
                kept.add(buffer.get(..taken).unwrap_or_default());
            }
            self.bump(taken);
            if end.is_some() {
                // Two scalars with only a space between them must not become one.
                if let Some(kept) = kept.as_deref_mut() {
                    kept.add(b" ");
                }
                return Ok(());
            }
        }
    }
}
