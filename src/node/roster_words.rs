//! What witnesses have said of the roster chain: the newest word of each, verified, kept
//! beside the chain; and what their words say together.
//!
//! Words come from peers and from this node's own witness. Each is verified before it is
//! kept, and again when the store is opened. Blocking where it first reads the store.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use hashpact_core::checkpoint;
use hashpact_core::id::{Digest, MemberNumber, UnixMillis};
use hashpact_core::limits::COSIGNATURES_MAX;
use hashpact_core::reject::Rejection;
use hashpact_core::roster::{Role, RosterChain};
use hashpact_core::witness::judge::{Judged, Said};
use hashpact_core::witness::roster::{self, RosterTree};
use hashpact_store::{RosterWord, RosterWords};

use crate::cosignatures::{OwnWords, WitnessKeys, cosigned};
use crate::hub::Change;
use crate::membership::State;
use crate::node::Node;

/// Refusals of one announcement after which the rest is not looked at.
const REFUSED_MAX: usize = 16;

/// The newest word of one witness.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Word {
    version: u64,
    since: UnixMillis,
    time_s: u64,
    line: Bytes,
}

/// What is known of the chain in force.
#[derive(Debug, Clone)]
struct Known {
    newest: Digest,
    tree: Arc<RosterTree>,
    came: UnixMillis,
    reached: u64,
    words: BTreeMap<MemberNumber, Word>,
}

/// The words, once they were read.
#[derive(Debug, Default)]
pub(crate) struct RosterDesk {
    known: Mutex<Option<Known>>,
    /// Whether the chain was STALE when it was last looked.
    stale: Mutex<bool>,
}

/// What is told on: the words of one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToldWords {
    /// The version.
    pub version: u64,
    /// Its payload's digest.
    pub digest: Digest,
    /// Each witness, when it spoke in seconds, and its line.
    pub words: Vec<(MemberNumber, u64, Bytes)>,
}

/// What became of words that were heard.
#[derive(Debug, Default)]
pub struct Heard {
    /// This node's own member cosigned that state, which is not one that is held.
    pub own: Option<(u64, Digest)>,
    /// Why the others do not count.
    pub refused: Vec<Rejection>,
    /// A roster or a card that is not here yet may make more of them count.
    pub later: bool,
    /// Witnesses that cosigned another roster in the place of one that is held.
    pub elsewhere: Vec<String>,
}

/// Where the roster stands with its witnesses.
#[derive(Debug, Clone)]
pub struct RosterStanding {
    /// The newest version.
    pub version: u64,
    /// What the words say together, of versions as sizes.
    pub judged: Judged,
}

impl Node {
    /// The tree over the roster chain; `None` before the first roster.
    #[must_use]
    pub fn roster_tree(&self) -> Option<Arc<RosterTree>> {
        self.with_roster_words(|known, _| Arc::clone(&known.tree))
    }

    /// Where the roster stands with its witnesses.
    #[must_use]
    pub fn roster_standing(&self) -> Option<RosterStanding> {
        let state = self.membership().state();
        let now = self.clock().now();
        self.with_roster_words(|known, chain| RosterStanding {
            version: chain.version(),
            judged: judged(known, chain, &state, now),
        })
    }

    /// The words that are told on, those of the oldest version first.
    #[must_use]
    pub fn told_roster_words(&self) -> Vec<ToldWords> {
        let told = self.with_roster_words(|known, _| {
            let mut by_version: BTreeMap<u64, Vec<_>> = BTreeMap::new();
            for (witness, word) in &known.words {
                let said = (*witness, word.time_s, word.line.clone());
                by_version.entry(word.version).or_default().push(said);
            }
            let told = by_version.into_iter().filter_map(|(version, words)| {
                let digest = known.tree.digest(version)?;
                Some(ToldWords {
                    version,
                    digest,
                    words,
                })
            });
            told.collect()
        });
        told.unwrap_or_default()
    }

    /// Takes in what a peer says that witnesses have said of a version. Each line is
    /// verified against the chain as it is held, with a roster of that digest in the
    /// version's place; what is of the chain itself is kept and told on.
    #[must_use]
    pub fn hear_roster_words(&self, version: u64, digest: Digest, lines: &[Bytes]) -> Heard {
        let mut heard = Heard::default();
        let Some(known) = self.with_roster_words(|known, _| known.clone()) else {
            heard.later = true;
            return heard;
        };
        let (claimed, refused) = claimed(lines);
        heard.refused = refused;
        let Some(head) = known.tree.head_with(version, digest) else {
            heard.later = version > known.tree.version();
            return heard;
        };
        let held = known.tree.digest(version) == Some(digest);
        let state = self.membership().state();
        let Some(chain) = state.chain.as_ref() else {
            return heard;
        };
        let (names, own) = (names(chain), OwnWords::of(self));
        let keys = WitnessKeys::of(self);
        let body = head.body();
        let mut new = BTreeMap::new();
        for (name, (time_s, line)) in claimed {
            if heard.refused.len() >= REFUSED_MAX {
                break;
            }
            // PROTOCOL 11.13a: by a former key too, which counts for nobody else.
            let is_own = |own: &OwnWords| own.name() == name && own.has(&body, &line);
            if !held && own.as_ref().is_some_and(is_own) {
                heard.own = Some((version, head.root));
            }
            let of = names.get(&name).copied();
            let before = of.and_then(|of| known.words.get(&of));
            if held && before.is_some_and(|before| !is_newer(before, version, time_s)) {
                continue;
            }
            match keys.verify(&body, &line) {
                Ok(_) => {}
                Err(rejection) => {
                    heard.later |= matches!(rejection, Rejection::Unknown { .. });
                    heard.refused.push(rejection);
                    continue;
                }
            }
            let Some(of) = of else { continue };
            if held {
                new.insert(of, (time_s, line));
            } else if version <= known.tree.version() {
                heard.elsewhere.push(name);
            } else {
                heard.later = true;
            }
        }
        self.keep_roster_words(version, new);
        heard
    }

    /// Keeps a word of this node's own witness.
    pub fn keep_own_roster_word(&self, version: u64, line: Bytes) {
        let (Ok(own), Some((_, time_s))) = (self.membership().own(), cosigned(&line)) else {
            return;
        };
        self.keep_roster_words(version, BTreeMap::from([(own, (time_s, line))]));
    }

    /// Keeps verified words of a version that is held, and tells that there are newer ones.
    fn keep_roster_words(&self, version: u64, new: BTreeMap<MemberNumber, (u64, Bytes)>) {
        if new.is_empty() {
            return;
        }
        let (state, now) = (self.membership().state(), self.clock().now());
        let changed = self.with_roster_words(|known, chain| {
            let mut changed = false;
            for (witness, (time_s, line)) in new {
                let before = known.words.get(&witness);
                if before.is_some_and(|before| !is_newer(before, version, time_s)) {
                    continue;
                }
                let before = before.filter(|before| before.version == version);
                let since = UnixMillis(time_s.saturating_mul(1_000));
                let word = Word {
                    version,
                    since: before.map_or(since, |before| before.since),
                    time_s,
                    line,
                };
                known.words.insert(witness, word);
                changed = true;
            }
            if changed {
                let witnesses = names(chain);
                let counts = |of: &MemberNumber| witnesses.values().any(|witness| witness == of);
                known.words.retain(|witness, _| counts(witness));
                let quorum = judged(known, chain, &state, now).quorum;
                known.reached = known.reached.max(quorum.unwrap_or(0));
                self.put_words(known, chain);
            }
            changed
        });
        if changed == Some(true) {
            self.hub().tell(Change::RosterWord);
        }
    }

    /// Shows in log and metrics whether the chain has become STALE, or is so no more.
    pub(crate) fn look_for_stale_roster(&self) {
        let Some(standing) = self.roster_standing() else {
            return;
        };
        let judged = &standing.judged;
        let gauge = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
        metrics::gauge!("hashpact_roster_stale").set(f64::from(u8::from(judged.stale)));
        metrics::gauge!("hashpact_roster_witnesses_fresh").set(gauge(judged.fresh()));
        let stale = self.judging().roster.stale.lock();
        let mut stale = stale.unwrap_or_else(PoisonError::into_inner);
        if judged.stale && !*stale {
            tracing::error!(
                version = standing.version,
                "the roster is STALE: no witness has cosigned its newest version for 30 minutes"
            );
        } else if *stale && !judged.stale {
            tracing::info!(
                version = standing.version,
                "a witness has cosigned the roster again"
            );
        }
        *stale = judged.stale;
    }

    /// Works with what is known, brought to the chain in force; `None` without one.
    fn with_roster_words<T>(&self, work: impl FnOnce(&mut Known, &RosterChain) -> T) -> Option<T> {
        let state = self.membership().state();
        let chain = state.chain.as_ref()?;
        let mut desk = self.roster_desk();
        let newest = chain.current().digest();
        match desk.as_mut().filter(|known| known.newest == newest) {
            Some(known) => Some(work(known, chain)),
            None => {
                let mut known = self.follow(desk.take(), chain);
                let answer = work(&mut known, chain);
                *desk = Some(known);
                Some(answer)
            }
        }
    }

    /// The chain has grown, or nothing was read yet.
    fn follow(&self, before: Option<Known>, chain: &RosterChain) -> Known {
        let tree = Arc::new(RosterTree::of(chain));
        let now = self.clock().now();
        let known = match before.filter(|before| before.tree.record_id() == tree.record_id()) {
            Some(before) => Known {
                newest: chain.current().digest(),
                came: now,
                tree,
                ..before
            },
            None => self.read_words(chain, tree, now),
        };
        self.put_words(&known, chain);
        known
    }

    /// What the store has, each line verified: it is trusted for none of them.
    fn read_words(&self, chain: &RosterChain, tree: Arc<RosterTree>, now: UnixMillis) -> Known {
        let kept = self.store().roster_words(&chain.genesis());
        let kept = kept.unwrap_or_else(|error| {
            // They are told again.
            tracing::error!(%error, code = error.code(), "reading what witnesses say of the roster");
            RosterWords::default()
        });
        let (keys, names) = (WitnessKeys::of(self), names(chain));
        let words = kept.words.into_iter().filter_map(|kept| {
            let body = tree.head(kept.version)?.body();
            let (name, time_s) = keys.verify(&body, &kept.line).ok()?;
            let word = Word {
                version: kept.version,
                since: kept.since,
                time_s,
                line: kept.line,
            };
            (names.get(&name) == Some(&kept.witness)).then_some((kept.witness, word))
        });
        let (version, came) = kept.newest;
        Known {
            newest: chain.current().digest(),
            came: if version == chain.version() {
                came
            } else {
                now
            },
            reached: kept.reached.min(chain.version()),
            words: words.collect(),
            tree,
        }
    }

    fn put_words(&self, known: &Known, chain: &RosterChain) {
        let words = known.words.iter().map(|(witness, word)| RosterWord {
            witness: *witness,
            version: word.version,
            since: word.since,
            line: word.line.clone(),
        });
        let kept = RosterWords {
            reached: known.reached,
            newest: (chain.version(), known.came),
            words: words.collect(),
        };
        if let Err(error) = self.store().put_roster_words(&chain.genesis(), &kept) {
            tracing::error!(%error, code = error.code(), "keeping what witnesses say of the roster");
        }
    }

    fn roster_desk(&self) -> MutexGuard<'_, Option<Known>> {
        let known = self.judging().roster.known.lock();
        known.unwrap_or_else(PoisonError::into_inner)
    }
}

fn judged(known: &Known, chain: &RosterChain, state: &State, now: UnixMillis) -> Judged {
    let said: Vec<Said> = known
        .words
        .iter()
        .map(|(witness, word)| Said {
            witness: *witness,
            size: word.version,
            at: UnixMillis(word.time_s.saturating_mul(1_000)),
            since: word.since,
        })
        .collect();
    let mut witnesses = chain.roster().active_with(Role::Witness);
    let can_speak = witnesses.any(|witness| {
        let card = state.cards.current(witness.number, chain.roster(), now);
        card.is_some_and(|card| !card.card().witness_keys().is_empty())
    });
    let times = (known.came, now);
    roster::judge(chain, &said, known.reached, can_speak, times)
}

/// Members that are witnesses, by the name that they cosign under.
fn names(chain: &RosterChain) -> BTreeMap<String, MemberNumber> {
    let roster = chain.roster();
    let witnesses = roster.active_with(Role::Witness);
    let names = witnesses.map(|member| {
        let name = checkpoint::witness_name(&roster.coalition, &member.slug);
        (name, member.number)
    });
    names.collect()
}

fn is_newer(before: &Word, version: u64, time_s: u64) -> bool {
    version > before.version
        || (version == before.version
            && time_s >= before.time_s.saturating_add(roster::AGAIN_MS / 1_000))
}

/// The newest line of each name, not verified.
fn claimed(lines: &[Bytes]) -> (BTreeMap<String, (u64, Bytes)>, Vec<Rejection>) {
    let mut claimed: BTreeMap<String, (u64, Bytes)> = BTreeMap::new();
    let mut refused = Vec::new();
    for line in lines.iter().take(COSIGNATURES_MAX) {
        match cosigned(line) {
            Some((name, time_s)) => {
                let newer = claimed.get(&name).is_none_or(|held| held.0 < time_s);
                if newer {
                    claimed.insert(name, (time_s, line.clone()));
                }
            }
            None if refused.len() >= REFUSED_MAX => break,
            None => refused.push(Rejection::malformed("cosignature", "no signature line")),
        }
    }
    (claimed, refused)
}
