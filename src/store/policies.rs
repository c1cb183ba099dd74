//! Which policy this node went by, from when until when: in `meta`.
//!
//! | family, key | value |
//! |---|---|
//! | `meta`: `policies/`, since in ms | a period: name, until |
//! | `meta`: `policy-texts/`, name | the text of that policy's file |
//!
//! A period begins when a policy comes into force and at each start, and lasts as long as
//! somebody says that the node goes by it still. So what lies between two periods, when the
//! node did not run, or ran on a store that a backup took the place of since, is not known,
//! and never guessed. Nothing here follows from leaves.

use std::collections::BTreeMap;

use hashpact_core::id::UnixMillis;
use prost::Message;
use rocksdb::WriteBatch;

use crate::error::{Result, StoreError};
use crate::families::Family;
use crate::record::{seal, unseal};
use crate::store::{Inner, Store, hold};

const PERIODS: &[u8] = b"policies/";
const TEXTS: &[u8] = b"policy-texts/";
/// Periods that are kept, some 100 bytes each: more than ten starts a day for a year.
const PERIODS_MAX: usize = 4_096;
/// Texts that are kept: at their longest, some 64 MiB.
const TEXTS_MAX: usize = 256;

/// A policy that was in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PastPolicy {
    /// Since when.
    pub since: UnixMillis,
    /// Until when at least.
    pub until: UnixMillis,
    /// As answers name it.
    pub name: String,
    /// The text of its file; `None` for the shipped one, and where it is kept no longer.
    pub text: Option<Vec<u8>>,
}

/// What is known of the policy of a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PolicyAt {
    /// It was this one.
    Known(PastPolicy),
    /// Nothing is noted of a time so long ago.
    Before,
    /// The node did not run, as far as this store knows.
    Between,
}

#[derive(Clone, PartialEq, Message)]
struct PeriodRecord {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(uint64, tag = "2")]
    until_ms: u64,
}

#[derive(Clone, PartialEq, Message)]
struct TextRecord {
    #[prost(bytes = "vec", tag = "1")]
    text: Vec<u8>,
}

impl Store {
    /// Begins a period in which a policy is in force; the one before, if it is of this
    /// process, lasted until then. `None` is the text of the shipped one.
    ///
    /// # Errors
    /// What RocksDB answers; a damaged record.
    pub fn begin_policy(
        &self,
        name: &str,
        text: Option<&[u8]>,
        now: UnixMillis,
        goes_on: bool,
    ) -> Result<()> {
        let inner = &*self.inner;
        let _turn = hold(&inner.catalogue);
        let meta = inner.cf(Family::Meta)?;
        let mut periods = periods(inner)?;
        let mut batch = WriteBatch::default();
        let mut since = now;
        if let Some((last, mut period)) = periods.pop_last() {
            // A clock that was set back puts nothing before what came before; of the time
            // that came twice nobody says which was meant.
            since = UnixMillis(now.0.max(last.0.saturating_add(1)));
            if goes_on {
                period.until_ms = period.until_ms.max(now.0);
            }
            period.until_ms = period.until_ms.min(now.0).max(last.0);
            batch.put_cf(meta, period_key(last), seal(&period));
            periods.insert(last, period);
        }
        let record = PeriodRecord {
            name: name.to_owned(),
            until_ms: since.0,
        };
        batch.put_cf(meta, period_key(since), seal(&record));
        periods.insert(since, record);
        while periods.len() > PERIODS_MAX
            && let Some((oldest, _)) = periods.pop_first()
        {
            batch.delete_cf(meta, period_key(oldest));
        }
        if let Some(text) = text {
            let record = TextRecord {
                text: text.to_vec(),
            };
            batch.put_cf(meta, text_key(name), seal(&record));
        }
        for gone in texts_that_go(inner, &periods)? {
            batch.delete_cf(meta, text_key(&gone));
        }
        // Crash: before, the policy is not in force either; after, it is noted from now
        // on, with its text.
        inner.write_synced(batch, "noting which policy is in force")
    }

    /// Says that the policy of the last period is in force still.
    ///
    /// # Errors
    /// What RocksDB answers; a damaged record.
    pub fn extend_policy(&self, now: UnixMillis) -> Result<()> {
        let inner = &*self.inner;
        let _turn = hold(&inner.catalogue);
        let Some((since, mut period)) = periods(inner)?.pop_last() else {
            return Ok(());
        };
        if now.0 <= period.until_ms {
            return Ok(());
        }
        period.until_ms = now.0;
        let mut batch = WriteBatch::default();
        let meta = inner.cf(Family::Meta)?;
        batch.put_cf(meta, period_key(since), seal(&period));
        // Crash: of the time since the last word nothing is known.
        inner.write_unsynced(batch, "noting that a policy is in force")
    }

    /// The policy that was in force at a time.
    ///
    /// # Errors
    /// What RocksDB answers; a damaged record.
    pub fn policy_at(&self, time: UnixMillis) -> Result<PolicyAt> {
        let inner = &*self.inner;
        let periods = periods(inner)?;
        let Some((since, period)) = periods.range(..=time).next_back() else {
            return Ok(PolicyAt::Before);
        };
        if time.0 > period.until_ms {
            return Ok(PolicyAt::Between);
        }
        let text = inner.get(Family::Meta, text_key(&period.name))?;
        let text = text
            .map(|text| unseal::<TextRecord>(&text, "the text of a policy"))
            .transpose()?;
        Ok(PolicyAt::Known(PastPolicy {
            since: *since,
            until: UnixMillis(period.until_ms),
            name: period.name.clone(),
            text: text.map(|record| record.text),
        }))
    }
}

fn period_key(since: UnixMillis) -> Vec<u8> {
    [PERIODS, &since.0.to_be_bytes()].concat()
}

fn text_key(name: &str) -> Vec<u8> {
    [TEXTS, name.as_bytes()].concat()
}

fn periods(inner: &Inner) -> Result<BTreeMap<UnixMillis, PeriodRecord>> {
    let end = [PERIODS, &[0xff; 9]].concat();
    let mut all = BTreeMap::new();
    inner.scan(Family::Meta, PERIODS, &end, |key, value| {
        let since = key.strip_prefix(PERIODS).unwrap_or_default();
        let since = <[u8; 8]>::try_from(since)
            .map_err(|_| StoreError::corrupt("the key of a policy's period"))?;
        let since = UnixMillis(u64::from_be_bytes(since));
        all.insert(since, unseal(value, "a policy's period")?);
        Ok(true)
    })?;
    Ok(all)
}

/// The names of the texts that are kept no longer: of no period that is kept, or not among
/// the last so many that were in force.
fn texts_that_go(
    inner: &Inner,
    periods: &BTreeMap<UnixMillis, PeriodRecord>,
) -> Result<Vec<String>> {
    let mut stay: Vec<&str> = Vec::new();
    for period in periods.values().rev() {
        if stay.len() < TEXTS_MAX && !stay.contains(&period.name.as_str()) {
            stay.push(&period.name);
        }
    }
    let end = [TEXTS, &[0xff]].concat();
    let mut go = Vec::new();
    inner.scan(Family::Meta, TEXTS, &end, |key, _| {
        let name = String::from_utf8_lossy(key.strip_prefix(TEXTS).unwrap_or_default());
        if !stay.contains(&&*name) {
            go.push(name.into_owned());
        }
        Ok(true)
    })?;
    Ok(go)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StoreOptions;

    fn open(dir: &tempfile::TempDir) -> Store {
        Store::open(dir.path(), &StoreOptions::default()).unwrap()
    }

    fn begin(store: &Store, now: u64, name: &str, goes_on: bool) {
        let text = (name != "shipped").then_some(name.as_bytes());
        let now = UnixMillis(now);
        store.begin_policy(name, text, now, goes_on).unwrap();
    }

    /// The name of the policy of a time, or why there is none.
    fn at(store: &Store, time: u64) -> String {
        match store.policy_at(UnixMillis(time)).unwrap() {
            PolicyAt::Known(policy) => {
                let text = (policy.name != "shipped").then(|| policy.name.as_bytes().to_vec());
                assert_eq!(policy.text, text);
                policy.name
            }
            PolicyAt::Before => "before".to_owned(),
            PolicyAt::Between => "between".to_owned(),
        }
    }

    #[test]
    fn what_was_in_force_is_known_while_somebody_said_so_and_at_no_other_time() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        assert_eq!(at(&store, u64::MAX), "before");
        begin(&store, 10, "shipped", false);
        begin(&store, 20, "one", true);
        store.extend_policy(UnixMillis(25)).unwrap();
        drop(store);
        // Off until 40, and the same policy after that.
        let store = open(&dir);
        begin(&store, 40, "one", false);
        store.extend_policy(UnixMillis(50)).unwrap();
        for (time, expected) in [
            (9, "before"),
            (10, "shipped"),
            (20, "one"),
            (25, "one"),
            (26, "between"),
            (39, "between"),
            (50, "one"),
            (51, "between"),
        ] {
            assert_eq!(at(&store, time), expected, "{time}");
        }
    }

    #[test]
    fn a_clock_that_was_set_back_changes_nothing_of_what_was() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        begin(&store, 10, "one", false);
        store.extend_policy(UnixMillis(30)).unwrap();
        begin(&store, 20, "two", true);
        assert_eq!(at(&store, 10), "one");
        assert_eq!(
            at(&store, 25),
            "between",
            "that time was here under the other alone"
        );
        store.extend_policy(UnixMillis(28)).unwrap();
        assert_eq!(at(&store, 25), "two");
        assert_eq!(at(&store, 9), "before");
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many_texts_before_periods() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        for n in 0..=TEXTS_MAX as u64 {
            begin(&store, 10 * (n + 1), &format!("p{n}"), true);
        }
        let PolicyAt::Known(first) = store.policy_at(UnixMillis(15)).unwrap() else {
            panic!("it was in force");
        };
        assert_eq!((first.name.as_str(), first.text), ("p0", None));
        assert_eq!(at(&store, 25), "p1");
        // What came back into force is kept again.
        begin(&store, 100_000, "p0", true);
        assert_eq!(at(&store, 15), "p0");
        let mut batch = WriteBatch::default();
        for n in 0..PERIODS_MAX as u64 {
            let since = UnixMillis(200_000 + n);
            let record = PeriodRecord {
                name: "p9".to_owned(),
                until_ms: since.0,
            };
            let meta = store.inner.cf(Family::Meta).unwrap();
            batch.put_cf(meta, period_key(since), seal(&record));
        }
        store.inner.write_synced(batch, "a test").unwrap();
        assert_eq!(at(&store, 100_000), "p0");
        begin(&store, 300_000, "last", true);
        assert_eq!(at(&store, 150_000), "before");
    }
}
