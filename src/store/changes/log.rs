//! The log of changes: numbered records, chained so that a cursor of another history is
//! told from one of this, and bounded so that a consumer that never comes back costs no
//! more than a bounded piece of disk.

use hashpact_core::id::{Digest, UnixMillis};
use prost::Message as _;
use rocksdb::WriteBatch;

use super::FeedShown;
use super::rows::{self, LogRecord, StateRecord};
use super::shown::Difference;
use crate::error::{Result, StoreError};
use crate::families::Family;
use crate::keys::FeedNo;
use crate::record::{seal, unseal};
use crate::store::Inner;

/// Records kept for consumers that lag: half a day of 20 a second. One that lags more
/// starts over.
pub(crate) const RECORDS_MAX: u64 = 1 << 20;
/// Bytes of records kept.
pub(crate) const BYTES_MAX: u64 = 256 << 20;

/// How the log stands.
#[derive(Debug, Clone, Default)]
pub(crate) struct LogState {
    record: StateRecord,
}

impl LogState {
    /// Begins a log. When it began is in every tag, so that no cursor of an earlier log
    /// fits.
    pub(super) fn begin(now: UnixMillis) -> Self {
        let tag = tag_of(0, &now.0.to_be_bytes());
        Self {
            record: StateRecord {
                first: 1,
                next: 1,
                tag_before: tag,
                tag,
                bytes: 0,
                started_ms: now.0,
            },
        }
    }

    pub(super) fn load(inner: &Inner) -> Result<Option<Self>> {
        let found = inner.get(Family::Changes, rows::state_key())?;
        let read = |bytes: Vec<u8>| unseal(&bytes, "the log's state");
        let record: Option<StateRecord> = found.map(read).transpose()?;
        Ok(record.map(|record| Self { record }))
    }

    pub(super) fn put(&self, inner: &Inner, batch: &mut WriteBatch) -> Result<()> {
        batch.put_cf(
            inner.cf(Family::Changes)?,
            rows::state_key(),
            seal(&self.record),
        );
        Ok(())
    }

    /// The number of the newest record; 0 before the first.
    pub(super) const fn newest(&self) -> u64 {
        self.record.next.saturating_sub(1)
    }

    /// The number of the last record that is gone.
    pub(super) const fn gone(&self) -> u64 {
        self.record.first.saturating_sub(1)
    }

    /// The tag of a record, if the log still knows it.
    pub(super) fn tag(&self, inner: &Inner, number: u64) -> Result<Option<u64>> {
        if number == self.newest() {
            return Ok(Some(self.record.tag));
        }
        if number == self.gone() {
            return Ok(Some(self.record.tag_before));
        }
        if number < self.gone() || number > self.newest() {
            return Ok(None);
        }
        read_record(inner, number).map(|record| Some(record.tag))
    }

    /// Adds a record to a batch.
    pub(super) fn append(
        &mut self,
        inner: &Inner,
        batch: &mut WriteBatch,
        no: FeedNo,
        feed: &FeedShown,
        difference: &Difference,
        now: UnixMillis,
    ) -> Result<()> {
        let mut record = LogRecord {
            feed: no.0,
            id: feed.id.as_bytes().to_vec(),
            name: feed.whole.name.clone(),
            size: feed.shown.size,
            gone: difference.gone,
            added: rows::bytes_of(difference.added.clone()),
            others: rows::bytes_of(difference.others.clone()),
            at_ms: now.0,
            tag: 0,
        };
        record.tag = tag_of(self.record.tag, &record.encode_to_vec());
        let sealed = seal(&record);
        let bytes = u64::try_from(sealed.len()).unwrap_or(u64::MAX);
        let key = rows::log_key(self.record.next);
        batch.put_cf(inner.cf(Family::Changes)?, key, sealed);
        self.record.next = self.record.next.saturating_add(1);
        self.record.tag = record.tag;
        self.record.bytes = self.record.bytes.saturating_add(bytes);
        Ok(())
    }

    /// Lets the oldest records go, as far as there is no room for them. Those of this
    /// batch stay.
    pub(super) fn prune(&mut self, inner: &Inner, batch: &mut WriteBatch) -> Result<()> {
        let kept = self.record.next.saturating_sub(RECORDS_MAX);
        self.prune_below(inner, batch, kept, BYTES_MAX)
    }

    /// Lets records below `number` go, which everybody has.
    pub(super) fn acknowledged(
        &mut self,
        inner: &Inner,
        batch: &mut WriteBatch,
        number: u64,
    ) -> Result<()> {
        self.prune_below(inner, batch, number.saturating_add(1), u64::MAX)
    }

    fn prune_below(
        &mut self,
        inner: &Inner,
        batch: &mut WriteBatch,
        number: u64,
        bytes_max: u64,
    ) -> Result<()> {
        let family = inner.cf(Family::Changes)?;
        while self.record.first < number || self.record.bytes > bytes_max {
            let key = rows::log_key(self.record.first);
            let Some(sealed) = inner.get(Family::Changes, key)? else {
                // Not written yet: it is in this batch.
                return Ok(());
            };
            let record: LogRecord = unseal(&sealed, "a record of changes")?;
            let bytes = u64::try_from(sealed.len()).unwrap_or(u64::MAX);
            batch.delete_cf(family, key);
            self.record.tag_before = record.tag;
            self.record.first = self.record.first.saturating_add(1);
            self.record.bytes = self.record.bytes.saturating_sub(bytes);
        }
        Ok(())
    }
}

pub(super) fn read_record(inner: &Inner, number: u64) -> Result<LogRecord> {
    let sealed = inner
        .get(Family::Changes, rows::log_key(number))?
        .ok_or(StoreError::corrupt("a record of changes is missing"))?;
    unseal(&sealed, "a record of changes")
}

/// Eight bytes that follow from a record and the tag before it.
fn tag_of(before: u64, bytes: &[u8]) -> u64 {
    let digest = Digest::of(&[&before.to_be_bytes(), bytes].concat());
    let first = digest.as_bytes().first_chunk::<8>();
    first.map_or(0, |bytes| u64::from_be_bytes(*bytes))
}
