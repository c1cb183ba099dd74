//! What witnesses cosign of the roster chain, when, and what their words say together.
//!
//! The chain is a tree as a feed is: leaf i is version i + 1, its record `0x00 ‖
//! payload digest`. Whoever has the chain computes the same checkpoint of a version; no
//! publisher signs it, for the administrators have signed the rosters themselves.
//!
//! Owns: the checkpoint, what is cosigned next ([`RosterWitness`]), who counts
//! ([`judge`]). Does not own: the record on disk, keys, who is told.
//!
//! Trust: the chain was verified. ⚠ It and the record may be older than what was
//! signed (a restored disk): nothing is signed before the peers within reach were
//! heard, and an own cosignature that one of them shows counts as recorded.

use std::collections::BTreeSet;

use data_encoding::BASE64;

use super::RENEW_MS;
use super::judge::{self, FRESH_MS, Judged, PREVENTION_MIN, Said};
use crate::id::{Digest, FeedId, MemberNumber, UnixMillis};
use crate::merkle::{CompactRange, leaf_hash};
use crate::roster::{Role, Roster, RosterChain};

/// A newer word on the same version counts if it is so much newer: a witness that signs
/// without end makes no work for everybody.
pub const AGAIN_MS: u64 = 60 * 1_000;
/// The first byte of a version's record: no leaf of a feed has that kind.
const RECORD_KIND: u8 = 0;

/// A state of the chain: its origin, so many versions, their root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RosterHead {
    origin: String,
    /// How many versions, which is the newest one's number.
    pub version: u64,
    /// The root of the tree over them.
    pub root: Digest,
}

impl RosterHead {
    /// Writes the three lines that are cosigned, as of a C2SP checkpoint.
    #[must_use]
    pub fn body(&self) -> String {
        let root = BASE64.encode(&self.root.0);
        format!("{}\n{}\n{root}\n", self.origin, self.version)
    }
}

/// The tree over a roster chain.
#[derive(Debug, Clone)]
pub struct RosterTree {
    origin: String,
    genesis: Digest,
    digests: Vec<Digest>,
    roots: Vec<Digest>,
}

impl RosterTree {
    /// Of a chain. Costs a few hashes a version.
    #[must_use]
    pub fn of(chain: &RosterChain) -> Self {
        let (coalition, genesis) = (&chain.roster().coalition, chain.genesis());
        let digests: Vec<Digest> = chain.from_version(1).map(|v| v.digest()).collect();
        let mut range = CompactRange::empty(0);
        let roots = digests.iter().map(|digest| {
            range.push(leaf(digest));
            range.root().unwrap_or_else(crate::merkle::empty_root)
        });
        Self {
            origin: format!("{coalition}/roster/{genesis}"),
            genesis,
            roots: roots.collect(),
            digests,
        }
    }

    /// The newest version.
    #[must_use]
    pub fn version(&self) -> u64 {
        u64::try_from(self.digests.len()).unwrap_or(u64::MAX)
    }

    /// The payload digest of a version.
    #[must_use]
    pub fn digest(&self, version: u64) -> Option<Digest> {
        self.digests.get(place(version)?).copied()
    }

    /// The state up to a version.
    #[must_use]
    pub fn head(&self, version: u64) -> Option<RosterHead> {
        let root = self.roots.get(place(version)?).copied()?;
        Some(self.of_root(version, root))
    }

    /// The state with a roster of that digest in the place of a version, on the versions
    /// before it as they are held; `None` where one of those is not.
    #[must_use]
    pub fn head_with(&self, version: u64, digest: Digest) -> Option<RosterHead> {
        if self.digest(version) == Some(digest) {
            return self.head(version);
        }
        let before = self.digests.get(..place(version)?)?;
        let mut range = CompactRange::empty(0);
        range.extend(before.iter().chain([&digest]).map(leaf));
        Some(self.of_root(version, range.root()?))
    }

    /// The name under which the record of what was cosigned lies among those of feeds:
    /// a digest, as theirs are, of what no feed id is made of.
    #[must_use]
    pub fn record_id(&self) -> FeedId {
        record_id(&self.genesis)
    }

    fn of_root(&self, version: u64, root: Digest) -> RosterHead {
        RosterHead {
            origin: self.origin.clone(),
            version,
            root,
        }
    }
}

/// As [`RosterTree::record_id`].
#[must_use]
pub fn record_id(genesis: &Digest) -> FeedId {
    FeedId(Digest::of(
        format!("hashpact roster chain {genesis}").as_bytes(),
    ))
}

fn leaf(digest: &Digest) -> Digest {
    let mut record = [RECORD_KIND; 33];
    for (to, from) in record.iter_mut().skip(1).zip(digest.0) {
        *to = from;
    }
    leaf_hash(&record)
}

fn place(version: u64) -> Option<usize> {
    usize::try_from(version.checked_sub(1)?).ok()
}

/// What a witness of the chain is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Record this durably, then say [`RosterWitness::hold`].
    Record(RosterHead),
    /// Cosign this, which is recorded, then say [`RosterWitness::signed`].
    Sign(RosterHead),
    /// The chain that is held has not come to what was cosigned before.
    Behind {
        /// The version that was cosigned.
        version: u64,
    },
    /// ⚠ Another roster was cosigned in the place of the one that is held: nothing of
    /// the chain is cosigned any more.
    Differs {
        /// The version.
        version: u64,
    },
    /// Nothing before then, or before something happens.
    Wait(Option<UnixMillis>),
}

/// What one witness has said of the chain, and so what it may say next.
#[derive(Debug, Default)]
pub struct RosterWitness {
    recorded: Option<(u64, Digest)>,
    own: Option<(u64, Digest)>,
    signed: Option<(UnixMillis, u64)>,
    rekeyed: bool,
    settled: bool,
}

impl RosterWitness {
    /// What the record says: at start, and after each attempt to change it.
    pub const fn hold(&mut self, recorded: Option<(u64, Digest)>) {
        self.recorded = recorded;
    }

    /// A peer showed this witness's own cosignature, which was verified.
    pub fn own_word(&mut self, version: u64, root: Digest) {
        if self.own.is_none_or(|(held, _)| held < version) {
            self.own = Some((version, root));
        }
    }

    /// The peers within reach have said what they hold.
    pub const fn settle(&mut self) {
        self.settled = true;
    }

    /// A version was cosigned.
    pub const fn signed(&mut self, now: UnixMillis, version: u64) {
        self.signed = Some((now, version));
        self.rekeyed = false;
    }

    /// Another key than before signs: the newest version is signed again, as soon as
    /// others take a second word on it.
    pub const fn rekeyed(&mut self) {
        self.rekeyed = true;
    }

    /// What is next, for the chain as it is held.
    #[must_use]
    pub fn next(&self, now: UnixMillis, tree: &RosterTree) -> Next {
        if !self.settled {
            return Next::Wait(None);
        }
        // PROTOCOL 11.17: what was cosigned before, by the record or by what others
        // show, is part of the chain that is cosigned next.
        for (version, root) in [self.recorded, self.own].into_iter().flatten() {
            match tree.head(version) {
                None => return Next::Behind { version },
                Some(head) if head.root != root => return Next::Differs { version },
                Some(_) => {}
            }
        }
        let Some(newest) = tree.head(tree.version()) else {
            return Next::Wait(None);
        };
        if self.recorded != Some((newest.version, newest.root)) {
            return Next::Record(newest);
        }
        let renew = if self.rekeyed { AGAIN_MS } else { RENEW_MS };
        match self.signed {
            Some((at, version)) if version == newest.version && now.since(at) < renew => {
                Next::Wait(Some(at.plus(renew)))
            }
            Some(_) | None => Next::Sign(newest),
        }
    }
}

/// Where the chain stands with its witnesses: [`Judged`] with versions as sizes; the
/// quorum is for all versions up to it.
///
/// ⚠ Who counts for a version stands in the version before it: two rosters of one
/// version have that in common, so that neither chooses its own judges; and no later
/// version counts before the earlier ones do. Of those, only who has kept its identity
/// key counts. With fewer than [`PREVENTION_MIN`] there, who stands in the version
/// itself counts: nothing is prevented yet, and two witnesses can be replaced.
///
/// `said` was verified against the chain; up to `reached` it was judged before; `since`
/// is when the newest version came. Where nobody `can_speak`, nothing is stale.
#[must_use]
pub fn judge(
    chain: &RosterChain,
    said: &[Said],
    reached: u64,
    can_speak: bool,
    (since, now): (UnixMillis, UnixMillis),
) -> Judged {
    let newest = chain.roster();
    let words = || said.iter().copied();
    let bench = |version: u64| -> Option<Judged> {
        let named = named(chain, version)?;
        let all = witnesses(named);
        let threshold = judge::threshold(all.len(), named.witness_threshold);
        let key = |roster: &Roster, of| roster.member(of).map(|member| member.identity);
        let counts = |of: &MemberNumber| key(named, *of) == key(newest, *of);
        let counted = words().filter(|said| counts(&said.witness));
        Some(judge::judge(all, threshold, counted, since, now))
    };
    let (mut quorum, mut quorum_at) = (reached, UnixMillis::default());
    for version in reached.max(1)..=newest.version {
        match bench(version).filter(|judged| judged.threshold.is_some()) {
            Some(judged) if judged.reached(version) => {
                (quorum, quorum_at) = (version, judged.quorum_at);
            }
            // Up to `reached` it was, by words that are not kept.
            Some(judged) if version > reached && judged.witnesses.len() >= PREVENTION_MIN => break,
            // Nobody to ask, or too few to prevent anything.
            Some(_) | None => {}
        }
    }
    let threshold = bench(newest.version).and_then(|judged| judged.threshold);
    let all = judge::judge(witnesses(newest), threshold, words(), since, now);
    // Who speaks of an older version says nothing of the newest one.
    let of_newest = all.witnesses.values().flatten();
    let of_newest = of_newest.filter(|stand| stand.size >= newest.version);
    let last = of_newest.map(|stand| stand.at).max();
    let spoke = last.unwrap_or(since).max(since);
    Judged {
        stale: can_speak && threshold.is_some() && now.since(spoke) > FRESH_MS,
        threshold,
        quorum: (quorum > 0).then_some(quorum),
        quorum_at,
        last,
        witnesses: all.witnesses,
    }
}

/// The roster whose witnesses judge a version.
fn named(chain: &RosterChain, version: u64) -> Option<&Roster> {
    let of = |version: u64| chain.at(version).map(|version| version.roster());
    let before = of(version.checked_sub(1)?);
    let enough = |before: &&Roster| witnesses(before).len() >= PREVENTION_MIN;
    before.filter(enough).or_else(|| of(version))
}

fn witnesses(roster: &Roster) -> BTreeSet<MemberNumber> {
    let active = roster.active_with(Role::Witness);
    active.map(|member| member.number).collect()
}

#[cfg(test)]
#[path = "roster_tests.rs"]
mod tests;
