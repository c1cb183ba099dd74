//! The chain of rosters: version N+1 stands on version N, as a TUF root does.
//!
//! Source: The Update Framework specification 1.0.33, section 5.3.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use super::read::Place;
use super::{Member, MemberStatus, Roster, RosterState, RosterVersion};
use crate::envelope::{Envelope, PayloadType, ed25519_digest};
use crate::id::{Digest, MemberNumber, UnixMillis};
use crate::keys::{Identity, PublicKey};
use crate::limits::CLOCK_SKEW_MS;
use crate::reject::Rejection;

/// Pieces of evidence that a chain keeps: one shows what happened.
const EVIDENCE_MAX: usize = 16;

/// What became of an offered roster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// The next version; it is current.
    New,
    /// A version held, whose payload more administrators have signed: its envelope
    /// replaced the one held. Store it.
    MoreSignatures {
        /// The version.
        version: u64,
    },
    /// A version held, with nothing new.
    Known,
}

/// Two approved rosters of one version: what administrators must never make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RosterEvidence {
    /// The version.
    pub version: u64,
    /// The one that was first here, and stays.
    pub held: Envelope,
    /// The other one.
    pub other: Envelope,
}

/// The rosters that were accepted, from version 1 on without a gap.
#[derive(Debug, Clone)]
pub struct RosterChain {
    genesis: Digest,
    versions: Vec<Arc<RosterVersion>>,
    current: Arc<RosterVersion>,
    /// Every key that ever stood in a roster, and whose identity it was; `None`
    /// for an administrator's.
    keys: BTreeMap<[u8; 32], Option<MemberNumber>>,
    evidence: Vec<RosterEvidence>,
}

impl RosterChain {
    /// Begins with version 1, which is known by its digest alone.
    ///
    /// # Errors
    /// [`Rejection::WrongGenesis`] for another payload, and whatever is wrong with it.
    pub fn begin(envelope: Envelope, genesis: &Digest, now: UnixMillis) -> Result<Self, Rejection> {
        let chain = Self::first(envelope, genesis)?;
        check_issued(chain.roster(), now)?;
        Ok(chain)
    }

    /// Rebuilds a chain from the envelopes that this node stored, oldest first:
    /// every signature and rule again, but not whether a version came too early,
    /// so that a clock set back does not lose the chain.
    ///
    /// # Errors
    /// What is wrong with the first that is.
    pub fn restore(
        envelopes: impl IntoIterator<Item = Envelope>,
        genesis: &Digest,
    ) -> Result<Self, Rejection> {
        let mut envelopes = envelopes.into_iter();
        let first = envelopes.next().ok_or_else(|| Rejection::Unknown {
            what: "roster",
            why: "there is no version 1".to_owned(),
        })?;
        let mut chain = Self::first(first, genesis)?;
        for envelope in envelopes {
            let next = chain.successor(chain.versions.len(), envelope)?;
            chain.push(next);
        }
        Ok(chain)
    }

    fn first(envelope: Envelope, genesis: &Digest) -> Result<Self, Rejection> {
        check_kind(&envelope)?;
        let digest = envelope.payload_digest();
        if digest != *genesis {
            return Err(Rejection::WrongGenesis { what: "roster" });
        }
        let roster = Roster::read(envelope.payload())?;
        if roster.version != 1 {
            return Err(gap(0, roster.version));
        }
        let signatures = envelope.require_threshold(roster.admin_keys(), roster.threshold)?;
        let first = Arc::new(RosterVersion {
            roster,
            envelope,
            digest,
            signatures,
        });
        Ok(Self {
            genesis: digest,
            keys: first.roster.keys().collect(),
            versions: vec![Arc::clone(&first)],
            current: first,
            evidence: Vec::new(),
        })
    }

    /// Takes an offered roster in, or says why not. After an error everything
    /// stands as before, but for evidence.
    ///
    /// An expired roster is taken: it may be a step to a later one, and
    /// [`state`](Self::state) says how the last one stands.
    ///
    /// # Errors
    /// [`Rejection::VersionGap`], [`Rejection::WrongPredecessor`],
    /// [`Rejection::ThresholdNotMet`], [`Rejection::FromTheFuture`],
    /// [`Rejection::Invalid`] and others. [`Rejection::Equivocation`] for another
    /// approved roster of a version held: the first stays, and both are in
    /// [`evidence`](Self::evidence).
    pub fn accept(&mut self, envelope: Envelope, now: UnixMillis) -> Result<Accepted, Rejection> {
        check_kind(&envelope)?;
        let place = Place::read(envelope.payload())?;
        let held = self.version();
        if place.version > held {
            let next = self.successor(self.versions.len(), envelope)?;
            check_issued(&next.roster, now)?;
            self.push(next);
            return Ok(Accepted::New);
        }
        let Some(same) = self.at(place.version) else {
            return Err(gap(held, place.version));
        };
        if same.digest == envelope.payload_digest() {
            return Ok(self.more_signatures(place.version, envelope));
        }
        Err(self.equivocation(place.version, envelope))
    }

    /// Checks a draft as the next version in everything but its signatures and its
    /// time, so that administrators are not asked to sign what nobody would take.
    ///
    /// # Errors
    /// As [`accept`](Self::accept).
    pub fn check_draft(&self, draft: &Envelope) -> Result<Roster, Rejection> {
        check_kind(draft)?;
        self.check_place(&self.current, draft.payload())?;
        let roster = Roster::read(draft.payload())?;
        self.check_content(self.roster(), &roster)?;
        Ok(roster)
    }

    /// PROTOCOL 5.2: exactly N+1, of this coalition, and it names the digest of N.
    fn check_place(&self, before: &RosterVersion, payload: &Bytes) -> Result<(), Rejection> {
        let place = Place::read(payload)?;
        if place.genesis_digest != self.genesis.as_bytes().as_slice() {
            return Err(Rejection::WrongGenesis { what: "roster" });
        }
        if Some(place.version) != before.roster.version.checked_add(1) {
            return Err(gap(before.roster.version, place.version));
        }
        if place.previous_digest != before.digest.as_bytes().as_slice() {
            return Err(Rejection::WrongPredecessor {
                version: place.version,
            });
        }
        Ok(())
    }

    /// What a new version may hold after the one before.
    fn check_content(&self, before: &Roster, roster: &Roster) -> Result<(), Rejection> {
        check_succession(before, roster)?;
        self.check_key_history(roster)
    }

    /// Checks a roster as the successor of the first `length` versions.
    fn successor(&self, length: usize, envelope: Envelope) -> Result<RosterVersion, Rejection> {
        let before = length
            .checked_sub(1)
            .and_then(|index| self.versions.get(index))
            .ok_or(Rejection::WrongGenesis { what: "roster" })?;
        let held = &before.roster;
        self.check_place(before, envelope.payload())?;
        // Threshold(N) of N's administrators, before the payload is decoded whole.
        envelope.require_threshold(held.admin_keys(), held.threshold)?;
        let roster = Roster::read(envelope.payload())?;
        // And threshold(N+1) of N+1's: those who take over have agreed.
        envelope.require_threshold(roster.admin_keys(), roster.threshold)?;
        self.check_content(held, &roster)?;
        Ok(RosterVersion {
            signatures: count_signatures(held, &roster, &envelope),
            digest: envelope.payload_digest(),
            roster,
            envelope,
        })
    }

    /// A key that once was an administrator's, or one member's, stays that.
    fn check_key_history(&self, roster: &Roster) -> Result<(), Rejection> {
        let other = roster
            .keys()
            .find(|(key, owner)| self.keys.get(key).is_some_and(|before| before != owner));
        match other {
            None => Ok(()),
            Some((key, _)) => Err(invalid(format!(
                "key {} was somebody else's before",
                Digest(key)
            ))),
        }
    }

    fn push(&mut self, version: RosterVersion) {
        let version = Arc::new(version);
        self.keys.extend(version.roster.keys());
        self.versions.push(Arc::clone(&version));
        self.current = version;
    }

    /// ⚠ More valid signatures make it the same roster, not another.
    fn more_signatures(&mut self, version: u64, envelope: Envelope) -> Accepted {
        let before = version.checked_sub(1).and_then(|v| self.at(v)).cloned();
        let Some(held) = index_of(version).and_then(|index| self.versions.get_mut(index)) else {
            return Accepted::Known;
        };
        let previous = before.as_ref().map_or(&held.roster, |b| &b.roster);
        let signatures = count_signatures(previous, &held.roster, &envelope);
        if signatures <= held.signatures {
            return Accepted::Known;
        }
        *held = Arc::new(RosterVersion {
            roster: held.roster.clone(),
            digest: held.digest,
            envelope,
            signatures,
        });
        if held.roster.version == self.current.roster.version {
            self.current = Arc::clone(held);
        }
        Accepted::MoreSignatures { version }
    }

    /// Another payload of a version held is evidence if it would have been accepted
    /// in its place; anything less blames nobody.
    fn equivocation(&mut self, version: u64, other: Envelope) -> Rejection {
        let Some(index) = index_of(version) else {
            return gap(self.version(), version);
        };
        if let Err(rejection) = self.successor(index, other.clone()) {
            return rejection;
        }
        let Some(held) = self.versions.get(index) else {
            return gap(self.version(), version);
        };
        let evidence = RosterEvidence {
            version,
            held: held.envelope.clone(),
            other,
        };
        if self.evidence.len() < EVIDENCE_MAX && !self.evidence.contains(&evidence) {
            self.evidence.push(evidence);
        }
        Rejection::Equivocation {
            what: "roster",
            version,
        }
    }

    /// Checks a roster in the place of its version, whether that is held or not: it
    /// stands on the version before, which is. Answers its version.
    ///
    /// # Errors
    /// As [`accept`](Self::accept).
    pub fn check_in_place(&self, envelope: Envelope) -> Result<u64, Rejection> {
        check_kind(&envelope)?;
        let place = Place::read(envelope.payload())?;
        let index = index_of(place.version)
            .filter(|index| (1..=self.versions.len()).contains(index))
            .ok_or_else(|| gap(self.version(), place.version))?;
        Ok(self.successor(index, envelope)?.roster.version)
    }

    /// The digest of version 1.
    #[must_use]
    pub const fn genesis(&self) -> Digest {
        self.genesis
    }

    /// The newest version.
    #[must_use]
    pub const fn current(&self) -> &Arc<RosterVersion> {
        &self.current
    }

    /// The newest version's roster.
    #[must_use]
    pub fn roster(&self) -> &Roster {
        &self.current.roster
    }

    /// The newest version's number.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.current.roster.version
    }

    /// One version.
    #[must_use]
    pub fn at(&self, version: u64) -> Option<&Arc<RosterVersion>> {
        self.versions.get(index_of(version)?)
    }

    /// The versions from `version` on, oldest first.
    pub fn from_version(&self, version: u64) -> impl Iterator<Item = &Arc<RosterVersion>> {
        let from = index_of(version.max(1)).unwrap_or(usize::MAX);
        self.versions.iter().skip(from)
    }

    /// The version that replaced an identity key of a member; `None` for its present
    /// one. Of a chain that succeeds another, 1 is said for what was replaced before it.
    #[must_use]
    pub fn replaced_in(&self, member: MemberNumber, key: &PublicKey<Identity>) -> Option<u64> {
        let is_former = |roster: &Roster| {
            let member = roster.member(member);
            member.is_some_and(|member| member.former_identities.contains(key))
        };
        let replaced = self.versions.iter().find(|one| is_former(&one.roster));
        replaced.map(|one| one.roster.version)
    }

    /// How the newest version stands at `now`.
    #[must_use]
    pub fn state(&self, now: UnixMillis) -> RosterState {
        self.roster().state(now)
    }

    /// Refuses an expired roster, where one acts on it for the first time: founding,
    /// admitting, joining.
    ///
    /// # Errors
    /// [`Rejection::Expired`].
    pub fn require_fresh(&self, now: UnixMillis) -> Result<(), Rejection> {
        match self.state(now) {
            RosterState::Fresh => Ok(()),
            RosterState::Grace | RosterState::Stale => Err(Rejection::Expired { what: "roster" }),
        }
    }

    /// Pairs of approved rosters of one version that were met.
    #[must_use]
    pub fn evidence(&self) -> &[RosterEvidence] {
        &self.evidence
    }

    /// The version by which `member` was removed, while it is.
    #[must_use]
    pub fn removed_in(&self, member: MemberNumber) -> Option<u64> {
        let is_out = |version: &&Arc<RosterVersion>| {
            let member = version.roster.member(member);
            member.is_some_and(|m| m.status == MemberStatus::Removed)
        };
        let out = self.versions.iter().rev().take_while(is_out);
        out.last().map(|version| version.roster.version)
    }

    /// Whether a version from `version` on ends the suspension of that payload digest.
    #[must_use]
    pub fn lifts_suspension(&self, version: u64, suspension: &Digest) -> bool {
        self.from_version(version)
            .any(|v| v.roster.lifted_suspensions.contains(suspension))
    }

    /// Whether an Ed25519 key, by its 32 bytes, ever stood in a roster.
    #[must_use]
    pub fn knows_key(&self, key: &[u8; 32]) -> bool {
        self.keys.contains_key(key)
    }

    /// Every key that ever stood in a roster, by the digest that cards know keys by.
    pub(crate) fn key_digests(&self) -> BTreeSet<Digest> {
        self.keys.keys().map(ed25519_digest).collect()
    }
}

/// What no new version may change.
fn check_succession(before: &Roster, after: &Roster) -> Result<(), Rejection> {
    if before.coalition != after.coalition {
        return Err(invalid("the coalition's name changed"));
    }
    if before.former_geneses != after.former_geneses {
        return Err(invalid("the chains that it takes the place of changed"));
    }
    if !after.revocations.starts_with(&before.revocations) {
        return Err(invalid("a revocation went away"));
    }
    // Slugs and numbers are never used again: whoever was a member stays listed.
    before
        .members
        .iter()
        .try_for_each(|member| check_member_stays(member, after))
}

fn check_member_stays(before: &Member, after: &Roster) -> Result<(), Rejection> {
    let Some(member) = after.member(before.number) else {
        return Err(invalid(format!("member {} vanished", before.slug)));
    };
    if member.slug != before.slug {
        return Err(invalid(format!(
            "the number of {} is given to {}",
            before.slug, member.slug
        )));
    }
    let mut former = before.former_identities.clone();
    if member.identity != before.identity {
        former.push(before.identity);
    }
    if member.former_identities != former {
        return Err(invalid(format!(
            "the former identity keys of {} are not those that it had",
            before.slug
        )));
    }
    Ok(())
}

fn count_signatures(before: &Roster, roster: &Roster, envelope: &Envelope) -> usize {
    let keys = before.admin_keys().chain(roster.admin_keys());
    envelope.signers(keys).len()
}

fn check_issued(roster: &Roster, now: UnixMillis) -> Result<(), Rejection> {
    if roster.issued > now.plus(CLOCK_SKEW_MS) {
        return Err(Rejection::FromTheFuture { what: "roster" });
    }
    Ok(())
}

fn check_kind(envelope: &Envelope) -> Result<(), Rejection> {
    if envelope.kind() == PayloadType::Roster {
        Ok(())
    } else {
        Err(invalid("this is no roster"))
    }
}

fn index_of(version: u64) -> Option<usize> {
    usize::try_from(version.checked_sub(1)?).ok()
}

fn gap(held: u64, got: u64) -> Rejection {
    Rejection::VersionGap {
        what: "roster",
        held,
        got,
    }
}

fn invalid(why: impl Into<String>) -> Rejection {
    Rejection::invalid("roster", why)
}
