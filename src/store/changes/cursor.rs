//! A consumer's place in the log, as bytes that mean nothing to it.

/// Where a consumer is: what it was told by then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChangeCursor {
    /// The newest record told whole.
    pub(crate) number: u64,
    /// That record's tag.
    pub(crate) tag: u64,
    pub(crate) place: Place,
}

/// How far beyond the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    /// Not at all.
    After,
    /// Within the next one: leaves that are shown up to this index were told.
    Present { from: u64 },
    /// Within the next one, all that is shown told, and of the rest those below this.
    Absent { from: u64 },
    /// Within everything: the log goes on after the record once it is told.
    Snapshot { feed: u32, from: u64 },
}

/// Why a cursor does not say where to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum CursorError {
    /// These bytes are no cursor of any node's.
    #[error("this is no cursor")]
    NoCursor,
    /// What came after it is no longer kept.
    #[error("changes after this cursor are no longer kept")]
    TooOld,
    /// The node's store is another, or was restored since.
    #[error("this cursor is of another history than the node's")]
    OtherHistory,
}

impl CursorError {
    /// The stable code for answers and metrics.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::NoCursor => "cursor_invalid",
            Self::TooOld => "cursor_too_old",
            Self::OtherHistory => "cursor_other_history",
        }
    }
}

/// Bytes of a cursor.
const LENGTH: usize = 30;
/// The form of the bytes.
const FORM: u8 = 1;

impl ChangeCursor {
    /// After a whole record.
    pub(crate) const fn after(number: u64, tag: u64) -> Self {
        let place = Place::After;
        Self { number, tag, place }
    }

    pub(crate) const fn at(self, place: Place) -> Self {
        Self { place, ..self }
    }

    /// Whether the consumer is still being told everything from the start.
    #[must_use]
    pub const fn in_snapshot(&self) -> bool {
        matches!(self.place, Place::Snapshot { .. })
    }

    /// The newest record of the log told whole.
    #[must_use]
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// The bytes that a consumer keeps.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let (part, feed, from) = match self.place {
            Place::After => (0, 0, 0),
            Place::Present { from } => (1, 0, from),
            Place::Absent { from } => (2, 0, from),
            Place::Snapshot { feed, from } => (3, feed, from),
        };
        let mut bytes = Vec::with_capacity(LENGTH);
        bytes.push(FORM);
        bytes.extend_from_slice(&self.number.to_be_bytes());
        bytes.extend_from_slice(&self.tag.to_be_bytes());
        bytes.push(part);
        bytes.extend_from_slice(&feed.to_be_bytes());
        bytes.extend_from_slice(&from.to_be_bytes());
        bytes
    }

    /// Reads what [`ChangeCursor::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`CursorError::NoCursor`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CursorError> {
        let (form, rest) = bytes.split_first().ok_or(CursorError::NoCursor)?;
        if *form != FORM || bytes.len() != LENGTH {
            return Err(CursorError::NoCursor);
        }
        let (number, rest) = eight(rest)?;
        let (tag, rest) = eight(rest)?;
        let (part, rest) = rest.split_first().ok_or(CursorError::NoCursor)?;
        let (feed, rest) = rest.split_first_chunk::<4>().ok_or(CursorError::NoCursor)?;
        let feed = u32::from_be_bytes(*feed);
        let (from, _) = eight(rest)?;
        let place = match (part, feed, from) {
            (0, 0, 0) => Place::After,
            (1, 0, from) => Place::Present { from },
            (2, 0, from) => Place::Absent { from },
            (3, feed, from) => Place::Snapshot { feed, from },
            _ => return Err(CursorError::NoCursor),
        };
        Ok(Self { number, tag, place })
    }

    /// What orders cursors of one history.
    pub(crate) const fn order(&self) -> (u64, u8, u32, u64) {
        match self.place {
            // A snapshot comes before the log goes on where it began.
            Place::Snapshot { feed, from } => (self.number, 0, feed, from),
            Place::After => (self.number, 1, 0, 0),
            Place::Present { from } => (self.number, 2, 0, from),
            Place::Absent { from } => (self.number, 3, 0, from),
        }
    }
}

fn eight(bytes: &[u8]) -> Result<(u64, &[u8]), CursorError> {
    let (eight, rest) = bytes
        .split_first_chunk::<8>()
        .ok_or(CursorError::NoCursor)?;
    Ok((u64::from_be_bytes(*eight), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_read_back_and_other_bytes_are_none() {
        let after = ChangeCursor::after(7, 9);
        let all = [
            after,
            after.at(Place::Present { from: 3 }),
            after.at(Place::Absent { from: 3 }),
            after.at(Place::Snapshot { feed: 2, from: 3 }),
        ];
        for cursor in all {
            let bytes = cursor.to_bytes();
            assert_eq!(ChangeCursor::from_bytes(&bytes), Ok(cursor));
            assert!(ChangeCursor::from_bytes(&bytes[1..]).is_err());
        }
        assert!(all[3].order() < all[0].order() && all[0].order() < all[1].order());
        assert!(ChangeCursor::from_bytes(b"").is_err());
    }
}
