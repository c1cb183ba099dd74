//! Lists of links: one a line. Only the digest of each link's most exact expression is
//! kept; the link goes with its line.

use std::io::Read;

use crate::draft::Draft;
use crate::lines::{Line, Lines};
use crate::links;
use crate::options::Options;
use crate::record::{Counters, Item, Record};
use crate::reject::{FatalError, Reject, RejectReason};

pub(crate) struct Urls<R> {
    lines: Lines<R>,
    line: Vec<u8>,
}

impl<R: Read> Urls<R> {
    pub(crate) fn new(input: R) -> Self {
        Self {
            lines: Lines::new(input),
            line: Vec::new(),
        }
    }

    pub(crate) fn next(
        &mut self,
        options: &Options,
        counters: &mut Counters,
    ) -> Result<Option<Item>, FatalError> {
        loop {
            let what = self.lines.read(&mut self.line)?;
            counters.lines = self.lines.number();
            let number = counters.lines;
            let text = self.line.trim_ascii();
            let record = match what {
                Line::End => return Ok(None),
                Line::TooLong { bytes } => Err(RejectReason::LineTooLong { bytes }),
                Line::Whole if text.is_empty() => {
                    counters.blank += 1;
                    continue;
                }
                Line::Whole if text.starts_with(b"#") => {
                    counters.comments += 1;
                    continue;
                }
                Line::Whole => record(text, number, options),
            };
            return Ok(Some(match record {
                Ok(record) => Item::Record(record),
                Err(reason) => {
                    let original = if options.keep_links {
                        self.line.as_slice()
                    } else {
                        // Whatever it is, it stands where a link was meant to be.
                        &[]
                    };
                    Item::Reject(Reject::new(number, reason, original))
                }
            }));
        }
    }
}

fn record(line: &[u8], number: u64, options: &Options) -> Result<Record, RejectReason> {
    let mut draft = Draft::default();
    draft.push(links::signal(line)?)?;
    draft.finish(number, options)
}
