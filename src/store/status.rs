//! What a feed's status means for look-ups, and its number in the row.

use crate::error::{Result, StoreError};
use crate::feeds::FeedStatus;

impl FeedStatus {
    /// Whether what look-ups find of it is to be reviewed, whatever else is said.
    #[must_use]
    pub const fn is_in_doubt(self) -> bool {
        match self {
            Self::Frozen | Self::Leaving => true,
            Self::Active | Self::Silent | Self::Dropping => false,
        }
    }

    /// Whether look-ups find the feed's entries.
    #[must_use]
    pub const fn answers(self) -> bool {
        match self {
            Self::Active | Self::Frozen | Self::Leaving => true,
            Self::Silent | Self::Dropping => false,
        }
    }

    pub(crate) const fn number(self) -> u32 {
        match self {
            Self::Active => 0,
            Self::Frozen => 1,
            Self::Silent => 2,
            Self::Dropping => 3,
            Self::Leaving => 4,
        }
    }

    pub(crate) const fn read(number: u32) -> Result<Self> {
        match number {
            0 => Ok(Self::Active),
            1 => Ok(Self::Frozen),
            2 => Ok(Self::Silent),
            3 => Ok(Self::Dropping),
            4 => Ok(Self::Leaving),
            _ => Err(StoreError::corrupt("a feed's status")),
        }
    }
}
