//! Receipts of this node: its signed word that everything which acts on a feed here does
//! so up to a size.
//!
//! A receipt is about a head, and is made when nothing stands in its way any more: look-ups
//! answer from the leaves, the near index has nothing of them to put in, and every consumer of
//! the change stream has acknowledged them. It is never made of what this node holds and
//! does not act on, nor while its store is behind what it said before (a restored
//! backup); then the node is not ready either. Newest word first: many heads in a second
//! have one receipt.
//!
//! Owns when one is made and what keeps one open; [`former`] is what this node said
//! before and its store is behind; [`judge`] is the other side, what a
//! publisher makes of those that it hears. Whoever tells them to others is the exchange.

mod former;
pub mod judge;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use hashpact_core::access::{Grants, Snapshot};
use hashpact_core::id::{FeedId, MemberNumber, Slug, UnixMillis};
use hashpact_core::keys::{PublicKey, Receipt as ReceiptKey, SecretKey};
use hashpact_core::receipt::Receipt;
use hashpact_store::{
    ChangeCursor, Consumer, FeedInfo, FeedStatus, HeadRef, KeptReceipt, NotActedOn,
};

use crate::error::NodeError;
use crate::hub::Change;
use crate::node::Node;
use crate::views;
use crate::words::name_of;

/// Between two receipts of one feed: what comes faster has one together.
const GAP_MS: u64 = 1_000;
/// The same of own feeds, whose receipts only date the head.
const OWN_GAP_MS: u64 = 60_000;
/// After this the word on an own head is given anew: as often as witnesses cosign.
pub const RENEW_MS: u64 = 600_000;
/// What keeps a receipt open for so long is shown.
const SHOWN_AFTER_MS: u64 = 5_000;
/// Feeds named in one notice.
const NAMED_MAX: usize = 8;
/// How long a receipt may take before it is overdue, where nothing else is set.
pub const OVERDUE_AFTER_MS: u64 = 600_000;

/// What this node said and may say.
#[derive(Default)]
pub(crate) struct Receipts(Mutex<State>);

#[derive(Default)]
struct State {
    keys: Vec<SecretKey<ReceiptKey>>,
    own: HashMap<FeedId, Own>,
    former: former::Words,
    /// What keeps receipts open, and since when.
    open: BTreeMap<FeedId, (Hold, UnixMillis)>,
    /// The log's newest record when this process first looked: earlier ones may say
    /// what is not seen in sizes.
    started_after: Option<u64>,
    overdue_after_ms: Option<u64>,
    overdue: judge::Overdue,
}

/// What was said of one feed, and what is known of it.
#[derive(Default, Clone)]
struct Own {
    said: Option<Said>,
    /// What everything acts on, since when it was seen to.
    covered: Option<(HeadRef, UnixMillis)>,
    /// Records of the log that consumers must have beside the size.
    log_after: u64,
    /// From which leaf on something else than consumers and indexes was in the way.
    limit: Option<u64>,
}

#[derive(Clone, Copy)]
struct Said {
    at: HeadRef,
    since: UnixMillis,
    signed: UnixMillis,
    /// `None` where it is not known any more.
    key: Option<PublicKey<ReceiptKey>>,
}

/// What keeps a receipt open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hold {
    /// A consumer of the change stream, and up to where it acts on the feed.
    Consumer {
        /// Its name.
        name: Slug,
        /// Leaves that it acknowledged.
        size: u64,
    },
    /// The index of near values takes new ones in.
    NearIndex,
    /// A leaf that is held and not acted on.
    Leaf {
        /// Its index.
        index: u64,
        /// Why.
        why: NotActedOn,
    },
}

impl Hold {
    fn words(&self, set: &str) -> String {
        match self {
            Self::Consumer { name, size } => {
                format!("consumer {name} acknowledged {size} leaves of {set}")
            }
            Self::NearIndex => format!("the near index is not through with {set}"),
            Self::Leaf { index, why } => {
                let why = match why {
                    NotActedOn::Missing => "is missing",
                    NotActedOn::HeldRetraction => "is a mass retraction that is held",
                    NotActedOn::Waiting(reason) => reason.code(),
                };
                format!("leaf {index} of {set}: {why}")
            }
        }
    }
}

/// What stands in the way of every feed's receipts, read once.
struct Ways {
    snapshot: Snapshot,
    member: MemberNumber,
    consumers: Vec<Consumer>,
    now: UnixMillis,
}

impl Receipts {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether of a feed more, or another history, was said before.
    pub(crate) fn is_behind_on(&self, feed: &FeedId) -> bool {
        self.state().former.waits_for(feed)
    }

    /// Whether the store is behind what this node said before.
    pub(crate) fn is_behind(&self) -> bool {
        self.state().former.is_behind()
    }
}

impl Node {
    /// Signs receipts with these keys: the last of them that stands on this node's entry
    /// of the member's card. Without one none is made.
    pub fn use_receipt_keys(&self, keys: Vec<SecretKey<ReceiptKey>>) {
        self.receipts().state().keys = keys;
        metrics::gauge!("hashpact_receipts_open").set(0.0);
    }

    /// Sets after how long a receipt is overdue.
    pub fn set_overdue_after(&self, millis: u64) {
        self.receipts().state().overdue_after_ms = Some(millis);
    }

    /// After how long a receipt is overdue.
    #[must_use]
    pub fn overdue_after_ms(&self) -> u64 {
        let set = self.receipts().state().overdue_after_ms;
        set.unwrap_or(OVERDUE_AFTER_MS)
    }

    /// Makes the receipts that are due, of one feed or of all. To be called when a feed
    /// has a new head and from time to time, by one thread. Blocking.
    ///
    /// # Errors
    /// What the store answers; then they are made another time.
    pub fn make_receipts(&self, only: Option<&FeedId>) -> Result<(), NodeError> {
        // ⚠ Before it is looked at who has them: what consumers acknowledged of leaves that
        // a roster cuts off in between does not count for those that take their place.
        let feeds = match only {
            Some(feed) => {
                let no = self.store().feed_no(feed);
                no.and_then(|no| self.store().feed(no).ok())
                    .into_iter()
                    .collect()
            }
            None => self.store().feeds(),
        };
        let Some(ways) = self.ways()? else {
            return Ok(());
        };
        for feed in feeds {
            self.make_receipt(&feed, &ways)?;
        }
        if only.is_none() {
            self.show_open(ways.now);
        }
        Ok(())
    }

    fn ways(&self) -> Result<Option<Ways>, NodeError> {
        let (Some(snapshot), Ok(member)) = (self.membership().snapshot(), self.membership().own())
        else {
            return Ok(None);
        };
        if self.receipts().state().keys.is_empty() || !self.is_ready() {
            return Ok(None);
        }
        // Logged before it is looked at who has it.
        if self.receipts().state().started_after.is_none() {
            let newest = self.log_newest()?;
            self.receipts().state().started_after = Some(newest);
        }
        Ok(Some(Ways {
            snapshot,
            member,
            consumers: self.store().consumers()?,
            now: self.clock().now(),
        }))
    }

    /// The number of the newest change, with all that changed so far logged.
    fn log_newest(&self) -> Result<u64, NodeError> {
        let whole = |feed: &FeedInfo| self.whole(feed);
        let newest = self.store().note_changes(&whole, self.clock().now())?;
        Ok(newest.unwrap_or_default())
    }

    fn make_receipt(&self, feed: &FeedInfo, ways: &Ways) -> Result<(), NodeError> {
        let mut own = self.own_of(feed, ways)?;
        let Some(applied) = feed.applied.filter(|_| may_speak(feed, ways)) else {
            own.limit = Some(0);
            own.covered = None;
            self.remember(feed, own, None);
            return Ok(());
        };
        if own.said.is_some_and(|said| said.at == applied) {
            self.remember(feed, own.clone(), None);
        } else {
            let (covered, hold) = self.covered(feed, applied, &mut own, ways)?;
            if let Some(head) = covered
                && own.covered.is_none_or(|(at, _)| at != head)
            {
                own.covered = Some((head, ways.now));
            }
            self.remember(feed, own.clone(), hold.map(|hold| (hold, ways.now)));
        }
        self.say(feed, own, ways.now)
    }

    /// Up to where everything acts on a feed, and what keeps it from more.
    fn covered(
        &self,
        feed: &FeedInfo,
        applied: HeadRef,
        own: &mut Own,
        ways: &Ways,
    ) -> Result<(Option<HeadRef>, Option<Hold>), NodeError> {
        let mut hold = None;
        let mut size = applied.size;
        if let Some((index, why)) = self.store().not_acted_on(feed.no)?
            && index < size
        {
            size = index;
            hold = Some(Hold::Leaf { index, why });
        }
        // More is acted on than before though nothing was added: sizes do not show who
        // has been told, numbers of the log do.
        let lifted = own.limit.is_some_and(|limit| limit < size);
        if lifted && !ways.consumers.is_empty() {
            own.log_after = self.log_newest()?;
        }
        own.limit = (size < applied.size).then_some(size);
        for consumer in &ways.consumers {
            let has = has_of(consumer, feed, own.log_after);
            if has < size {
                size = has;
                let name = consumer.name.clone();
                hold = Some(Hold::Consumer { name, size });
            }
        }
        // ⚠ Of this very feed: what others load keeps no receipt of it open.
        if self.near_waits(feed.no, size) {
            return Ok((None, Some(Hold::NearIndex)));
        }
        let head = match size {
            0 => None,
            size if size == applied.size => Some(applied),
            size => self.store().head_at_most(feed.no, applied.epoch, size)?,
        };
        Ok((head, hold))
    }

    /// Says what is covered, if that is more than was said, or is to be said anew.
    fn say(&self, feed: &FeedInfo, own: Own, now: UnixMillis) -> Result<(), NodeError> {
        let key = self.receipt_key();
        let Some((key, public)) = key.as_ref().map(|key| (key, key.public())) else {
            return Ok(());
        };
        // What a roster cut off since is not what is acted on.
        let stands = |at: HeadRef| {
            let applied = feed.applied.as_ref();
            applied.is_some_and(|now| now.epoch == at.epoch && at.size <= now.size)
        };
        let covered = own.covered.filter(|(at, _)| stands(*at));
        let next = match (own.said, covered) {
            (None, None) => return Ok(()),
            (None, Some(covered)) => covered,
            (Some(said), covered) => {
                let more = covered.filter(|(at, _)| is_more(*at, said.at));
                let gap = if feed.own { OWN_GAP_MS } else { GAP_MS };
                let waited = now.since(said.signed);
                let renewed = feed.own && waited >= RENEW_MS && feed.applied == Some(said.at);
                let other_key = said.key.is_some_and(|key| key != public);
                match more {
                    Some(covered) if waited >= gap => covered,
                    _ if renewed || other_key => (said.at, said.since),
                    _ => return Ok(()),
                }
            }
        };
        let after = own.said.map_or(UnixMillis(0), |said| said.signed.plus(1));
        let (at, since) = next;
        let signed = now.max(after).max(since);
        let kept = self.signed(feed, key, (at, since, signed))?;
        self.store().put_receipt(feed.no, &kept, false)?;
        let said = Said {
            at,
            since,
            signed,
            key: Some(public),
        };
        if let Some(held) = self.receipts().state().own.get_mut(&feed.id) {
            held.said = Some(said);
        }
        metrics::counter!("hashpact_receipts_made_total").increment(1);
        self.hub().tell(Change::Receipt(feed.id));
        Ok(())
    }

    fn signed(
        &self,
        feed: &FeedInfo,
        key: &SecretKey<ReceiptKey>,
        (at, since, signed): (HeadRef, UnixMillis, UnixMillis),
    ) -> Result<KeptReceipt, NodeError> {
        let member = self.membership().own()?;
        let receipt = Receipt {
            genesis: self.membership().genesis(),
            member,
            node: self.name().clone(),
            feed: feed.id,
            epoch: at.epoch,
            size: at.size,
            root: at.root,
            since,
            signed,
        };
        let mut draft = receipt.to_envelope()?;
        draft.sign(key);
        let envelope: Bytes = draft.finish()?.as_bytes().clone();
        Ok(KeptReceipt {
            member,
            node: self.name().clone(),
            at,
            since,
            signed,
            heard: signed,
            compared: true,
            envelope,
        })
    }

    /// The key in use: the last that is on the card in force.
    fn receipt_key(&self) -> Option<SecretKey<ReceiptKey>> {
        let entry = self.own_entry()?;
        let state = self.receipts().state();
        let mut keys = state.keys.iter().rev();
        let key = keys.find(|key| entry.receipt_keys.contains(&key.public()))?;
        Some(SecretKey::from_seed(&key.seed()))
    }

    /// What is known of a feed; the first time, what was said of it before.
    fn own_of(&self, feed: &FeedInfo, ways: &Ways) -> Result<Own, NodeError> {
        if let Some(own) = self.receipts().state().own.get(&feed.id) {
            return Ok(own.clone());
        }
        let kept = self.store().receipt(feed.no, ways.member, self.name())?;
        let said = kept.map(|kept| Said {
            at: kept.at,
            since: kept.since,
            signed: kept.signed,
            key: None,
        });
        if let Some(said) = said {
            self.note_former_receipt(feed.id, feed.publisher, (said.at, said.signed));
        }
        let log_after = self.receipts().state().started_after.unwrap_or_default();
        Ok(Own {
            said,
            log_after,
            ..Own::default()
        })
    }

    fn remember(&self, feed: &FeedInfo, own: Own, hold: Option<(Hold, UnixMillis)>) {
        let mut state = self.receipts().state();
        state.own.insert(feed.id, own);
        match hold {
            Some((hold, now)) => {
                let since = state.open.get(&feed.id).map_or(now, |(_, since)| *since);
                state.open.insert(feed.id, (hold, since));
            }
            None => {
                state.open.remove(&feed.id);
            }
        }
    }

    /// Shows what keeps receipts open.
    fn show_open(&self, now: UnixMillis) {
        let holds: Vec<(FeedId, Hold)> = {
            let mut state = self.receipts().state();
            let store = self.store();
            state.open.retain(|feed, _| store.feed_no(feed).is_some());
            let long = state
                .open
                .iter()
                .filter(|(_, (_, since))| now.since(*since) >= SHOWN_AFTER_MS);
            long.map(|(feed, (hold, _))| (*feed, hold.clone()))
                .collect()
        };
        #[expect(clippy::cast_precision_loss, reason = "a gauge of some feeds")]
        metrics::gauge!("hashpact_receipts_open").set(holds.len() as f64);
        let words = holds.iter().take(NAMED_MAX).filter_map(|(feed, hold)| {
            let feed = self.store().feed(self.store().feed_no(feed)?).ok()?;
            Some(hold.words(&name_of(&feed)))
        });
        let words: Vec<String> = words.collect();
        let more = holds.len().saturating_sub(words.len());
        let notice = (!words.is_empty()).then(|| {
            let more = match more {
                0 => String::new(),
                more => format!("; and {more} more"),
            };
            format!("receipts are kept open: {}{more}", words.join("; "))
        });
        self.set_notice("open_receipts", notice);
    }

    /// What keeps the receipt of a feed open at present.
    #[must_use]
    pub fn receipt_hold(&self, feed: &FeedId) -> Option<Hold> {
        let state = self.receipts().state();
        state.open.get(feed).map(|(hold, _)| hold.clone())
    }
}

/// PROTOCOL 5.22a: nothing is said of a feed that is in doubt, or that this member may
/// not read.
fn may_speak(feed: &FeedInfo, ways: &Ways) -> bool {
    let active = match feed.status {
        FeedStatus::Active => true,
        FeedStatus::Frozen | FeedStatus::Leaving | FeedStatus::Silent | FeedStatus::Dropping => {
            false
        }
    };
    let grants = views::describe_of(feed).map(|describe| Grants::of(&describe));
    let reads = ways
        .snapshot
        .may_read(ways.member, feed.publisher, grants.as_ref());
    active && !feed.unconfirmed && (feed.own || reads.is_ok())
}

/// Leaves of a feed that a consumer acts on.
fn has_of(consumer: &Consumer, feed: &FeedInfo, log_after: u64) -> u64 {
    let acked: &ChangeCursor = &consumer.acked;
    if consumer.lost || acked.number() < log_after {
        return 0;
    }
    consumer.sizes.get(&feed.no).copied().unwrap_or(0)
}

fn is_more(at: HeadRef, than: HeadRef) -> bool {
    (at.epoch, at.size) > (than.epoch, than.size)
}
