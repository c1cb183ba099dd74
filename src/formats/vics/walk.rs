//! Walks a VICS document to its media entries in constant memory.
//!
//! It knows the keys that lead to media; whether an entry is proper JSON is for
//! serde to say. Members before and beside the path are skipped, however long.

use std::io::Read;

use super::tokens::{Broken, Kept, Tokens};
use crate::limits::{VICS_ENTRY_MAX_BYTES, VICS_TEXT_MAX_BYTES};

/// What the walk came upon.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The document's context, which names version and country.
    Context(String),
    /// A media entry, to be read by [`Walk::entry`].
    Entry,
    /// One of more bytes than the limit.
    TooLong,
    /// One nested too deep.
    TooDeep,
    /// Something else where an entry should be.
    NoObject,
    /// The end of the document.
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Start,
    /// Between members of the document.
    Root,
    /// Between elements of `value`, or of a bare list.
    Values {
        bare: bool,
    },
    /// Between elements of a case's `Media`.
    CaseMedia {
        bare: bool,
    },
    /// Between members of a case, behind its `Media`.
    Case {
        bare: bool,
    },
    /// Behind the document.
    Behind,
    End,
}

/// What an element of a list turned out to be.
enum Element {
    Media,
    /// A case whose `Media` begins here.
    CaseMedia,
}

pub(super) struct Walk<R> {
    tokens: Tokens<R>,
    place: Place,
    /// Whether the context says that `value` lists cases.
    cases: bool,
    key: Kept,
    entry: Kept,
}

impl<R: Read> Walk<R> {
    pub(super) fn new(input: R) -> Self {
        Self {
            tokens: Tokens::new(input),
            place: Place::Start,
            cases: false,
            key: Kept::new(VICS_TEXT_MAX_BYTES),
            entry: Kept::new(VICS_ENTRY_MAX_BYTES),
        }
    }

    /// How many bytes were read.
    pub(super) const fn at(&self) -> u64 {
        self.tokens.at()
    }

    /// The entry found last, as JSON.
    pub(super) fn entry(&self) -> &[u8] {
        &self.entry.bytes
    }

    /// Goes to the next entry.
    pub(super) fn next(&mut self) -> Result<Found, Broken> {
        loop {
            let found = match self.place {
                Place::Start => self.start()?,
                Place::Root => self.root()?,
                Place::Values { bare } => self.values(bare)?,
                Place::CaseMedia { bare } => self.case_media(bare)?,
                Place::Case { bare } => self.case(bare)?,
                Place::Behind => self.behind()?,
                Place::End => Some(Found::End),
            };
            if let Some(found) = found {
                return Ok(found);
            }
        }
    }

    fn start(&mut self) -> Result<Option<Found>, Broken> {
        self.tokens.mark()?;
        self.place = match self.tokens.space(false)? {
            None => Place::End,
            Some(b'{') => Place::Root,
            Some(b'[') => Place::Values { bare: true },
            Some(_) => return Err(Broken::Syntax("an object or a list was expected")),
        };
        if self.place != Place::End {
            self.tokens.bump(1);
        }
        Ok(None)
    }

    fn root(&mut self) -> Result<Option<Found>, Broken> {
        if self.tokens.next()? == b'}' {
            self.tokens.bump(1);
            self.place = Place::Behind;
            return Ok(None);
        }
        let first = self.tokens.key(&mut self.key)?;
        match self.key.bytes.as_slice() {
            b"\"value\"" if first == b'[' => {
                self.tokens.bump(1);
                self.place = Place::Values { bare: false };
                Ok(None)
            }
            b"\"@odata.context\"" | b"\"odata.metadata\"" => {
                self.key.clear();
                self.tokens.value(Some(&mut self.key))?;
                let context: String = serde_json::from_slice(&self.key.bytes).unwrap_or_default();
                self.cases = context.ends_with("#Cases");
                Ok(Some(Found::Context(context)))
            }
            _ => {
                self.tokens.value(None)?;
                Ok(None)
            }
        }
    }

    fn values(&mut self, bare: bool) -> Result<Option<Found>, Broken> {
        match self.tokens.next()? {
            b']' => {
                self.tokens.bump(1);
                self.place = if bare { Place::Behind } else { Place::Root };
                Ok(None)
            }
            b'{' => match self.element()? {
                Element::CaseMedia => {
                    self.place = Place::CaseMedia { bare };
                    Ok(None)
                }
                // A case without media.
                Element::Media if self.cases => Ok(None),
                Element::Media => Ok(Some(self.found())),
            },
            _ => self.no_object(),
        }
    }

    fn case_media(&mut self, bare: bool) -> Result<Option<Found>, Broken> {
        match self.tokens.next()? {
            b']' => {
                self.tokens.bump(1);
                self.place = Place::Case { bare };
                Ok(None)
            }
            b'{' => {
                self.entry.clear();
                self.tokens.value(Some(&mut self.entry))?;
                Ok(Some(self.found()))
            }
            _ => self.no_object(),
        }
    }

    fn case(&mut self, bare: bool) -> Result<Option<Found>, Broken> {
        if self.tokens.next()? == b'}' {
            self.tokens.bump(1);
            self.place = Place::Values { bare };
            return Ok(None);
        }
        let first = self.tokens.key(&mut self.key)?;
        if self.key.bytes == b"\"Media\"" && first == b'[' {
            self.tokens.bump(1);
            self.place = Place::CaseMedia { bare };
        } else {
            self.tokens.value(None)?;
        }
        Ok(None)
    }

    fn behind(&mut self) -> Result<Option<Found>, Broken> {
        if self.tokens.space(false)?.is_some() {
            return Err(Broken::Syntax("nothing was expected behind the document"));
        }
        self.place = Place::End;
        Ok(None)
    }

    fn no_object(&mut self) -> Result<Option<Found>, Broken> {
        self.tokens.value(None)?;
        Ok(Some(Found::NoObject))
    }

    /// Keeps the object that begins here, up to a member `Media` that is a list: so
    /// a case is entered instead of being kept.
    fn element(&mut self) -> Result<Element, Broken> {
        self.entry.clear();
        self.entry.add(b"{");
        self.tokens.bump(1);
        let mut separator: &[u8] = b"";
        while self.tokens.next()? != b'}' {
            let first = self.tokens.key(&mut self.key)?;
            if self.key.bytes == b"\"Media\"" && first == b'[' {
                self.tokens.bump(1);
                return Ok(Element::CaseMedia);
            }
            if self.key.too_long {
                // No key of ours is that long.
                self.tokens.value(None)?;
                continue;
            }
            self.entry.add(separator);
            self.entry.add(&self.key.bytes);
            self.entry.add(b":");
            self.tokens.value(Some(&mut self.entry))?;
            separator = b",";
        }
        self.tokens.bump(1);
        self.entry.add(b"}");
        Ok(Element::Media)
    }

    const fn found(&self) -> Found {
        if self.entry.too_deep {
            Found::TooDeep
        } else if self.entry.too_long {
            Found::TooLong
        } else {
            Found::Entry
        }
    }
}
