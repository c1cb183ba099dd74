//! The dictionary of classifications, so that a posting names one in two bytes.
//!
//! Classifications are the publishers' text: the dictionary is bounded, and what
//! does not fit is read from the leaf instead.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, RwLock};

use rocksdb::WriteBatch;

use crate::error::{Result, StoreError};
use crate::families::Family;
use crate::store::{Inner, hold, read, write};

/// The code for "read the leaf".
pub(crate) const UNLISTED: u16 = u16::MAX;
/// Classifications that get a code; 60,000 of 64 bytes are 8 MB of memory at most.
const CLASSES_MAX: usize = 60_000;
/// A longer text gets no code.
const CLASS_MAX_BYTES: usize = 64;

/// All classifications met so far, by text and by code.
#[derive(Default)]
pub(crate) struct Classes {
    tables: RwLock<Tables>,
    /// One new code at a time; look-ups do not wait while it goes to disk.
    turn: Mutex<()>,
}

#[derive(Default)]
struct Tables {
    codes: HashMap<Arc<str>, u16>,
    texts: Vec<Arc<str>>,
}

impl Classes {
    /// Reads the dictionary.
    pub(crate) fn load(&self, inner: &Inner) -> Result<()> {
        let mut tables = Tables::default();
        inner.scan(Family::Classes, &[], &[0xff; 3], |_, value| {
            let text = value
                .split_first()
                .and_then(|(_, text)| std::str::from_utf8(text).ok())
                .ok_or(StoreError::corrupt("a classification is no text"))?;
            tables.add(text);
            Ok(true)
        })?;
        *write(&self.tables) = tables;
        Ok(())
    }

    /// The code of `text`; a new one is durable before it is answered.
    pub(crate) fn code(&self, inner: &Inner, text: &str) -> Result<u16> {
        if let Some(code) = self.known(text) {
            return Ok(code);
        }
        let _turn = hold(&self.turn);
        if let Some(code) = self.known(text) {
            return Ok(code);
        }
        let taken = read(&self.tables).texts.len();
        // What has no classification has a code however many others have come.
        let full = taken >= CLASSES_MAX && !text.is_empty();
        if text.len() > CLASS_MAX_BYTES || full {
            return Ok(UNLISTED);
        }
        let code = u16::try_from(taken).unwrap_or(UNLISTED);
        // Crash: before, the code is not used anywhere; after, it is taken.
        let mut batch = WriteBatch::default();
        let record = [&[1_u8], text.as_bytes()].concat();
        batch.put_cf(inner.cf(Family::Classes)?, code.to_be_bytes(), record);
        inner.write_synced(batch, "recording a classification")?;
        write(&self.tables).add(text);
        Ok(code)
    }

    fn known(&self, text: &str) -> Option<u16> {
        read(&self.tables).codes.get(text).copied()
    }

    /// The text of `code`; `None` means: read the leaf.
    pub(crate) fn text(&self, code: u16) -> Option<Arc<str>> {
        read(&self.tables).texts.get(usize::from(code)).cloned()
    }
}

impl Tables {
    fn add(&mut self, text: &str) {
        let code = u16::try_from(self.texts.len()).unwrap_or(UNLISTED);
        let text: Arc<str> = text.into();
        self.texts.push(Arc::clone(&text));
        self.codes.insert(text, code);
    }
}
