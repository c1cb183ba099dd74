//! Which signals opinions dispute, as it was logged last.
//!
//! An opinion on a signal counts where its writer publishes the signal itself, so it
//! comes and goes with what anybody publishes. The signals that have opinions are few:
//! all of them, up to a bound, are looked at whenever feeds are compared, and where one
//! stands otherwise than it was logged, the leaves that carry it are logged as changed.

use std::collections::BTreeSet;

use hashpact_core::id::UnixMillis;
use hashpact_core::leaf::Stance;
use rocksdb::WriteBatch;

use super::rows::{self, DISPUTED_SIGNAL};
use super::{Noted, WholeStanding, again};
use crate::error::Result;
use crate::families::Family;
use crate::keys::IndexKey;
use crate::opinions::{on_key, signal_subjects};
use crate::record::version;
use crate::store::Store;

/// Signals that are looked at; opinions on more are told in look-ups alone.
const SIGNALS_MAX: usize = 1_024;
/// Leaves of one feed that are told again of one signal.
const AGAIN_PER_FEED: usize = 1_024;

/// Compares how the signals stand that have opinions with what was logged, and logs what
/// differs.
pub(super) fn note(store: &Store, noted: &mut Noted, now: UnixMillis) -> Result<()> {
    let inner = &*store.inner;
    let mut signals: BTreeSet<IndexKey> = signal_subjects(inner, SIGNALS_MAX)?;
    // What was disputed and has no opinion any more.
    let (from, to) = ([DISPUTED_SIGNAL], [DISPUTED_SIGNAL + 1]);
    inner.scan(Family::Changes, &from, &to, |key, _| {
        signals.extend(rows::read_disputed_signal(key));
        Ok(true)
    })?;
    if signals.is_empty() {
        return Ok(());
    }
    let signals: Vec<IndexKey> = signals.into_iter().collect();
    let found = store.lookup_bounded(&signals, AGAIN_PER_FEED)?;
    let family = inner.cf(Family::Changes)?;
    let (mut batch, mut leaves, mut changed) = (WriteBatch::default(), Vec::new(), false);
    for (signal, found) in signals.iter().zip(found) {
        let publishers: BTreeSet<_> = {
            let feeds = inner.feeds();
            let of = |no| feeds.by_no.get(no).map(|state| state.publisher);
            let postings = found.postings.iter();
            postings.filter_map(|posting| of(&posting.feed)).collect()
        };
        let mut said = on_key(inner, signal)?;
        said.retain(|said| {
            let feed = noted.feeds.get(&said.feed_no);
            publishers.contains(&said.member)
                && feed.is_some_and(|feed| feed.whole.standing != WholeStanding::Nothing)
        });
        let against = said
            .iter()
            .filter(|said| said.opinion.stance == Stance::Negative)
            .map(|said| said.member);
        let against: BTreeSet<_> = against.collect();
        let disputes = match u8::try_from(against.len()).unwrap_or(u8::MAX) {
            0 => Vec::new(),
            against => vec![version(), against],
        };
        let key = rows::disputed_signal_key(signal);
        let logged = inner.get(Family::Changes, &key)?;
        if logged.as_deref().unwrap_or_default() == disputes {
            continue;
        }
        if disputes.is_empty() {
            batch.delete_cf(family, key);
        } else {
            batch.put_cf(family, key, disputes);
        }
        changed = true;
        let postings = found.postings.iter();
        leaves.extend(postings.map(|posting| (posting.feed, posting.index)));
    }
    if !changed {
        return Ok(());
    }
    let log = again(inner, noted, &mut batch, &leaves, now)?;
    // Crash: before, the difference is found again; after, it is logged and known.
    inner.write_synced(batch, "logging disputed signals")?;
    noted.log = log;
    Ok(())
}
