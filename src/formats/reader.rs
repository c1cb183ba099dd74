//! The reader of any format, as an iterator.

use std::io::{Chain, Cursor, Read};

use crate::delimited::Delimited;
use crate::detect::{Format, detect};
use crate::jsonl::JsonLines;
use crate::limits::DETECT_BYTES;
use crate::list::List;
use crate::options::Options;
use crate::record::{Counters, Item, Warning};
use crate::reject::FatalError;
use crate::urls::Urls;
use crate::vics::Vics;

/// Reads one file: an iterator of items, which ends after the first error.
pub struct Reader<R> {
    format: Format,
    options: Options,
    input: Input<R>,
    counters: Counters,
    warnings: Vec<Warning>,
    ended: bool,
}

enum Input<R> {
    Csv(Delimited<R>),
    JsonLines(JsonLines<R>),
    List(List<R>),
    Vics(Box<Vics<R>>),
    Urls(Urls<R>),
}

impl<R: Read> Reader<R> {
    /// Reads `input` as `format`. It buffers by itself.
    #[must_use]
    pub fn new(format: Format, input: R, options: Options) -> Self {
        Self {
            format,
            options,
            input: match format {
                Format::Csv => Input::Csv(Delimited::new(input)),
                Format::JsonLines => Input::JsonLines(JsonLines::new(input)),
                Format::List => Input::List(List::new(input)),
                Format::Vics => Input::Vics(Box::new(Vics::new(input))),
                Format::Urls => Input::Urls(Urls::new(input)),
            },
            counters: Counters::default(),
            warnings: Vec::new(),
            ended: false,
        }
    }

    /// The format that is read.
    pub const fn format(&self) -> Format {
        self.format
    }

    /// What was met so far; balanced whenever an item has been yielded or none is
    /// left.
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// What the operator should know about the file; complete at its end.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }
}

impl<R: Read> Reader<Chain<Cursor<Vec<u8>>, R>> {
    /// Tells the format by the beginning of `input` and the file's name, and reads.
    ///
    /// # Errors
    /// [`FatalError::Io`] if the beginning cannot be read.
    pub fn detect(mut input: R, file_name: &str, options: Options) -> Result<Self, FatalError> {
        let mut first = Vec::new();
        (&mut input)
            .take(DETECT_BYTES as u64)
            .read_to_end(&mut first)
            .map_err(|source| FatalError::Io { line: 1, source })?;
        let format = detect(&first, file_name);
        Ok(Self::new(format, Cursor::new(first).chain(input), options))
    }
}

impl<R: Read> Iterator for Reader<R> {
    type Item = Result<Item, FatalError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let (options, counters) = (&self.options, &mut self.counters);
        let next = match &mut self.input {
            Input::Csv(input) => input.next(options, counters, &mut self.warnings),
            Input::JsonLines(input) => input.next(options, counters, &mut self.warnings),
            Input::List(input) => input.next(options, counters),
            Input::Vics(input) => input.next(options, counters),
            Input::Urls(input) => input.next(options, counters),
        };
        match &next {
            Ok(Some(Item::Record(_))) => counters.records += 1,
            Ok(Some(Item::Reject(_))) => counters.rejects += 1,
            Ok(None) | Err(_) => self.ended = true,
        }
        next.transpose()
    }
}
