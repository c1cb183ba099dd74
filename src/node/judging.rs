//! What the witnesses say of the feeds that this node holds: who stands at which size
//! since when, whether enough do, whether it is fresh.
//!
//! Of the heads that were kept, those of the epoch in force up to the applied one
//! count: the tree that is held has their roots. Their cosignatures were verified
//! before they were kept. What was read is remembered until a head changes.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use hashpact_core::checkpoint;
use hashpact_core::id::{FeedId, MemberNumber, UnixMillis};
use hashpact_core::note::SignatureLine;
use hashpact_core::witness::judge::{self, Judged, Said};
use hashpact_store::{FeedInfo, HeadRef};

use crate::error::NodeError;
use crate::membership::State;
use crate::node::Node;
use crate::roster_words::RosterDesk;
use crate::witnessing::Witnessing;

/// Heads read for what each witness said last: mostly the first few have it.
const HEADS_FEW: usize = 64;
/// Heads read where a witness is not among those, which was away while many were signed:
/// more than are kept, of which one of each stretch of time is vouched for if any was.
const HEADS_MAX: usize = 1_024;

/// What was read of one feed.
#[derive(Debug, Clone)]
struct Read {
    state: Arc<State>,
    applied: Option<HeadRef>,
    said: Arc<[Said]>,
    since: UnixMillis,
    quorum: Option<u64>,
}

/// What was read of the feeds' cosignatures.
#[derive(Debug, Default)]
pub(crate) struct Judging {
    read: RwLock<HashMap<FeedId, Read>>,
    /// Feeds that were STALE when it was last looked.
    stale: Mutex<BTreeSet<FeedId>>,
    /// The same of the roster chain.
    pub(crate) roster: RosterDesk,
}

impl Judging {
    /// Something stands beside a head of the feed that did not before.
    pub(crate) fn forget(&self, feed: &FeedId) {
        let mut read = self.read.write().unwrap_or_else(PoisonError::into_inner);
        read.remove(feed);
    }
}

/// Who may judge a feed, by the roster in force.
struct Bench {
    witnesses: Vec<MemberNumber>,
    threshold: Option<usize>,
    /// Since when one of them has had a witness key on its card.
    since: Option<UnixMillis>,
}

impl Node {
    /// This node as a witness; `None` for one that has no witness key.
    #[must_use]
    pub const fn witnessing(&self) -> Option<&Arc<Witnessing>> {
        self.witnessing.0.as_ref()
    }

    pub(crate) const fn judging(&self) -> &Judging {
        &self.witnessing.1
    }

    /// Where a feed stands with its witnesses, at this moment. Blocking where the feed's
    /// heads have changed.
    ///
    /// # Errors
    /// What the store answers.
    pub fn judged(&self, feed: &FeedInfo) -> Result<Judged, NodeError> {
        let state = self.membership().state();
        let bench = bench(&state, feed.publisher, self.clock().now());
        let read = self.read_cosignatures(feed, &state, &bench)?;
        Ok(self.weigh(&bench, &read))
    }

    /// Whether a quorum of the witnesses has cosigned a head of the feed with so many
    /// leaves or more: what policy may ask for before it enforces an entry, whose index
    /// is below that size. Cheap where nothing has changed; else it reads heads.
    ///
    /// # Errors
    /// What the store answers.
    pub fn witness_quorum(&self, feed: &FeedInfo, size: u64) -> Result<bool, NodeError> {
        let state = self.membership().state();
        let quorum = match self.remembered(feed, &state) {
            Some(read) => read.quorum,
            None => {
                let bench = bench(&state, feed.publisher, self.clock().now());
                self.read_cosignatures(feed, &state, &bench)?.quorum
            }
        };
        Ok(quorum.is_some_and(|quorum| quorum >= size))
    }

    /// Whether there are witnesses of the feed and none has spoken for half an hour.
    ///
    /// # Errors
    /// What the store answers.
    pub fn is_stale(&self, feed: &FeedInfo) -> Result<bool, NodeError> {
        Ok(self.judged(feed)?.stale)
    }

    /// What stands beside a feed's heads has changed.
    pub fn cosignatures_changed(&self, feed: &FeedId) {
        self.judging().forget(feed);
    }

    /// Shows in the log which feeds have become STALE, or are so no more, and how many are.
    ///
    /// # Errors
    /// What the store answers.
    pub fn look_for_stale(&self) -> Result<(), NodeError> {
        self.look_for_stale_roster();
        let mut now_stale = BTreeSet::new();
        for feed in self.store().feeds() {
            let judged = self.judged(&feed)?;
            if judged.stale {
                now_stale.insert(feed.id);
            }
        }
        let count = u32::try_from(now_stale.len()).unwrap_or(u32::MAX);
        metrics::gauge!("hashpact_feeds_stale").set(f64::from(count));
        let stale = self.judging().stale.lock();
        let mut stale = stale.unwrap_or_else(PoisonError::into_inner);
        for feed in now_stale.difference(&stale) {
            tracing::error!(feed = %feed.0.short(), "STALE: no witness has cosigned the feed for 30 minutes");
        }
        for feed in stale.difference(&now_stale) {
            tracing::info!(feed = %feed.0.short(), "a witness has cosigned the feed again");
        }
        *stale = now_stale;
        Ok(())
    }

    fn weigh(&self, bench: &Bench, read: &Read) -> Judged {
        // Without a key on any card nobody can speak: silence is no sign of anything.
        let can_speak = bench.since.is_some();
        judge::judge(
            bench.witnesses.iter().copied(),
            bench.threshold.filter(|_| can_speak),
            read.said.iter().copied(),
            read.since.max(bench.since.unwrap_or_default()),
            self.clock().now(),
        )
    }

    fn remembered(&self, feed: &FeedInfo, state: &Arc<State>) -> Option<Read> {
        let held = self.judging().read.read();
        let held = held.unwrap_or_else(PoisonError::into_inner);
        let read = held.get(&feed.id)?;
        let current = Arc::ptr_eq(&read.state, state) && read.applied == feed.applied;
        current.then(|| read.clone())
    }

    fn read_cosignatures(
        &self,
        feed: &FeedInfo,
        state: &Arc<State>,
        bench: &Bench,
    ) -> Result<Read, NodeError> {
        if let Some(read) = self.remembered(feed, state) {
            return Ok(read);
        }
        let said = self.said_of(feed, state, bench)?;
        let since = self.store().oldest_head(feed.no)?;
        let mut read = Read {
            state: Arc::clone(state),
            applied: feed.applied,
            said: said.into(),
            since: since.map_or_else(UnixMillis::default, |head| head.received),
            quorum: None,
        };
        read.quorum = self.weigh(bench, &read).quorum;
        let all = self.judging().read.write();
        let mut all = all.unwrap_or_else(PoisonError::into_inner);
        all.insert(feed.id, read.clone());
        Ok(read)
    }

    /// The newest word of each witness, from the newest heads on.
    fn said_of(
        &self,
        feed: &FeedInfo,
        state: &State,
        bench: &Bench,
    ) -> Result<Vec<Said>, NodeError> {
        let (Some(applied), Some(chain)) = (feed.applied, state.chain.as_ref()) else {
            return Ok(Vec::new());
        };
        let roster = chain.roster();
        let names: HashMap<String, MemberNumber> = bench
            .witnesses
            .iter()
            .filter_map(|number| roster.member(*number))
            .map(|member| {
                let name = checkpoint::witness_name(&roster.coalition, &member.slug);
                (name, member.number)
            })
            .collect();
        if bench.witnesses.is_empty() {
            return Ok(Vec::new());
        }
        let mut said = Vec::new();
        for limit in [HEADS_FEW, HEADS_MAX] {
            let mut missing: BTreeSet<MemberNumber> = bench.witnesses.iter().copied().collect();
            said.clear();
            let heads = self.store().heads(feed.no, limit)?;
            let all = heads.len() < limit;
            for head in heads {
                let at = head.at();
                if at.epoch != applied.epoch || at.size > applied.size {
                    continue;
                }
                for line in &head.cosignatures {
                    let Ok(line) = SignatureLine::parse(line) else {
                        continue;
                    };
                    let witness = names.get(&line.name).copied();
                    let time_s = line.signature.first_chunk::<8>().copied();
                    if let (Some(witness), Some(time_s)) = (witness, time_s) {
                        missing.remove(&witness);
                        said.push(Said {
                            witness,
                            size: at.size,
                            at: UnixMillis(u64::from_be_bytes(time_s).saturating_mul(1_000)),
                            since: head.received,
                        });
                    }
                }
                if missing.is_empty() {
                    break;
                }
            }
            if missing.is_empty() || all {
                break;
            }
        }
        Ok(said)
    }
}

/// The witnesses of a publisher's feeds by the roster in force, and since when they speak.
fn bench(state: &State, publisher: MemberNumber, now: UnixMillis) -> Bench {
    let Some(chain) = state.chain.as_ref() else {
        return Bench {
            witnesses: Vec::new(),
            threshold: None,
            since: None,
        };
    };
    let roster = chain.roster();
    let witnesses: Vec<MemberNumber> = judge::bench(roster, publisher).collect();
    let has_key = |number: &MemberNumber| {
        let card = state.cards.current(*number, roster, now)?.card();
        (!card.witness_keys().is_empty()).then_some(card.issued)
    };
    Bench {
        threshold: judge::threshold(witnesses.len(), roster.witness_threshold),
        since: witnesses.iter().filter_map(has_key).min(),
        witnesses,
    }
}
