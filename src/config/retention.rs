//! `[retention]`: how long a node keeps what is dead of others.

use serde::Serialize;

use super::reader::Section;

/// The longest that can be set: a hundred years.
const DAYS_MAX: u64 = 36_500;

/// How long it keeps what is dead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Retention {
    /// After how many days the payloads of others' dead entries and opinions go; 0 for
    /// never.
    pub dead_payload_days: u64,
}

pub(super) fn read(section: Section<'_, '_>) -> Retention {
    let retention = Retention {
        dead_payload_days: section.whole("dead_payload_days", 0, 0..=DAYS_MAX),
    };
    section.finish();
    retention
}
