//! Suspensions: what one administrator may do alone, and how little that is.
//!
//! One administrator, one member at a time, at most 7 days, once per member and
//! roster version. A suspension changes access, never standing. It ends when it
//! expires, when a roster lifts it by name, or when its administrator is one no
//! longer; a new roster alone does not end it.
//!
//! ⚠ What one administrator signs takes nothing away from what another did: of those of
//! several, any that is in force suffices. Nor does a second word of one administrator
//! about one member end the first before its time, whatever times it says of itself.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use bytes::Bytes;
use prost::Message as _;

use crate::envelope::{Envelope, EnvelopeDraft, PayloadType};
use crate::id::{Digest, MemberNumber, UnixMillis};
use crate::keys::{Admin, PublicKey};
use crate::limits::{CLOCK_SKEW_MS, REASON_MAX_BYTES, SUSPENSION_MAX_MS};
use crate::reject::Rejection;
use crate::roster::{MemberStatus, Roster, RosterChain, bytes_of};
use crate::{text, wire};

/// What an administrator says of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspension {
    /// The coalition, by the digest of its first roster.
    pub genesis: Digest,
    /// The roster in force when it was made.
    pub roster_version: u64,
    /// Who is cut off.
    pub member: MemberNumber,
    /// From when.
    pub issued: UnixMillis,
    /// Until when, at most 7 days later.
    pub expires: UnixMillis,
    /// For people.
    pub reason: String,
    /// Whose suspension it is; signs it.
    pub admin: PublicKey<Admin>,
}

impl Suspension {
    /// Reads a payload and checks every rule that a suspension obeys by itself.
    ///
    /// # Errors
    /// [`Rejection::Malformed`] or [`Rejection::Invalid`].
    pub fn read(payload: &Bytes) -> Result<Self, Rejection> {
        let message = wire::Suspension::decode(payload.clone())
            .map_err(|error| Rejection::malformed("suspension", error.to_string()))?;
        let suspension = Self {
            genesis: Digest::from_slice(&message.genesis_digest)?,
            roster_version: message.roster_version,
            member: MemberNumber::new(message.member_number)?,
            issued: UnixMillis(message.issued_ms),
            expires: UnixMillis(message.expires_ms),
            reason: text::required("reason", message.reason, REASON_MAX_BYTES)?,
            admin: PublicKey::from_slice(&message.admin_key)?,
        };
        let life = suspension.expires.since(suspension.issued);
        if (1..=SUSPENSION_MAX_MS).contains(&life) {
            Ok(suspension)
        } else {
            Err(invalid("it lasts longer than 7 days, or not at all"))
        }
    }

    /// Encodes the suspension, once, to be signed by its administrator.
    ///
    /// # Errors
    /// What breaks a rule, as [`Suspension::read`].
    pub fn to_envelope(&self) -> Result<EnvelopeDraft, Rejection> {
        let message = wire::Suspension {
            genesis_digest: bytes_of(self.genesis),
            roster_version: self.roster_version,
            member_number: self.member.value(),
            issued_ms: self.issued.0,
            expires_ms: self.expires.0,
            reason: self.reason.clone(),
            admin_key: Bytes::copy_from_slice(self.admin.as_bytes()),
        };
        let payload = Bytes::from(message.encode_to_vec());
        Self::read(&payload)?;
        Ok(EnvelopeDraft::new(PayloadType::Suspension, payload))
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.issued < other.expires && other.issued < self.expires
    }

    /// Whether one administrator says both of one member under one roster.
    fn repeats(&self, other: &Self) -> bool {
        let of = |s: &Self| (s.admin, s.member, s.roster_version);
        of(self) == of(other)
    }

    /// Whether one runs on where the other does, give or take two clocks.
    fn touches(&self, other: &Self) -> bool {
        let slack = 2 * CLOCK_SKEW_MS;
        self.issued <= other.expires.plus(slack) && other.issued <= self.expires.plus(slack)
    }

    fn covers(&self, other: &Self) -> bool {
        self.issued <= other.issued && other.expires <= self.expires
    }

    /// Whether one administrator has two members suspended at once.
    fn is_of_two_members(&self, other: &Self) -> bool {
        self.admin == other.admin && self.member != other.member && self.overlaps(other)
    }

    const fn life(&self) -> u64 {
        self.expires.since(self.issued)
    }
}

/// A suspension that was accepted, with the envelope it came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcceptedSuspension {
    suspension: Suspension,
    envelope: Envelope,
    digest: Digest,
}

impl AcceptedSuspension {
    /// The suspension.
    #[must_use]
    pub const fn suspension(&self) -> &Suspension {
        &self.suspension
    }

    /// The envelope's bytes as received, which are stored and relayed.
    #[must_use]
    pub const fn as_bytes(&self) -> &Bytes {
        self.envelope.as_bytes()
    }

    /// The SHA-256 of the payload, by which a roster lifts it.
    #[must_use]
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    fn made(&self) -> (UnixMillis, Digest) {
        (self.suspension.issued, self.digest)
    }

    fn ends(&self) -> (UnixMillis, Digest) {
        (self.suspension.expires, self.digest)
    }

    /// Of two members' the longer one holds, then the one made first, at every node the
    /// same.
    fn rank(&self) -> (Reverse<u64>, UnixMillis, Digest) {
        let said = &self.suspension;
        (Reverse(said.life()), said.issued, self.digest)
    }
}

/// The suspensions that this node accepted.
#[derive(Debug, Clone, Default)]
pub struct SuspensionBook {
    held: Vec<AcceptedSuspension>,
}

impl SuspensionBook {
    /// Takes an offered suspension in, or says why not; `false` for one held.
    ///
    /// # Errors
    /// [`Rejection::WrongGenesis`], [`Rejection::Unknown`], [`Rejection::BadSignature`],
    /// [`Rejection::Expired`], [`Rejection::FromTheFuture`], or
    /// [`Rejection::Invalid`] for a second one of its kind.
    pub fn accept(
        &mut self,
        envelope: Envelope,
        chain: &RosterChain,
        now: UnixMillis,
    ) -> Result<bool, Rejection> {
        let new = verify(envelope, chain)?;
        if new.suspension.issued > now.plus(CLOCK_SKEW_MS) {
            return Err(Rejection::FromTheFuture { what: "suspension" });
        }
        if now >= new.suspension.expires {
            return Err(Rejection::Expired { what: "suspension" });
        }
        if self.holds(&new.digest) {
            return Ok(false);
        }
        self.admit(new)?;
        Ok(true)
    }

    fn holds(&self, digest: &Digest) -> bool {
        self.held.iter().any(|held| held.digest == *digest)
    }

    /// PROTOCOL 5.20: the same for every order in which they come.
    fn admit(&mut self, new: AcceptedSuspension) -> Result<(), Rejection> {
        self.check_others(&new)?;
        let repeated = self.repeated(&new)?;
        let said = &new.suspension;
        self.held.retain(|held| {
            let other = &held.suspension;
            !other.is_of_two_members(said)
                && (!other.repeats(said) || repeated.contains(&held.digest))
        });
        self.held.push(new);
        Ok(())
    }

    fn check_others(&self, new: &AcceptedSuspension) -> Result<(), Rejection> {
        let conflicts =
            |held: &&AcceptedSuspension| held.suspension.is_of_two_members(&new.suspension);
        let mut others = self.held.iter().filter(conflicts);
        if others.any(|held| held.rank() < new.rank()) {
            return Err(invalid("its administrator has another member suspended"));
        }
        Ok(())
    }

    /// Of those by one administrator of one member under one roster: the first one made,
    /// and of those that it runs into the one that ends last. Answers which stay beside
    /// the new one.
    ///
    /// ⚠ The first alone would be whichever says the earliest time of itself: an
    /// administrator's key would end, with a word made later, what it had said before.
    fn repeated(&self, new: &AcceptedSuspension) -> Result<Vec<Digest>, Rejection> {
        let again = || invalid("its administrator suspended the member under this roster before");
        let repeats = |held: &&AcceptedSuspension| held.suspension.repeats(&new.suspension);
        let mut all: Vec<_> = self.held.iter().filter(repeats).collect();
        if all.iter().any(|h| h.suspension.covers(&new.suspension)) {
            return Err(again());
        }
        all.push(new);
        let first = all.iter().map(|one| one.made()).min();
        let first = all.iter().find(|one| Some(one.made()) == first);
        let first = first.copied().unwrap_or(new);
        let runs_into = |one: &&&AcceptedSuspension| one.suspension.touches(&first.suspension);
        let last = all.iter().filter(runs_into).max_by_key(|one| one.ends());
        let last = last.copied().unwrap_or(new);
        let kept = [first.digest, last.digest];
        if kept.contains(&new.digest) {
            Ok(kept.into())
        } else {
            Err(again())
        }
    }

    /// Takes back a suspension that this node stored: its signature again, but not
    /// the clock. One that another took the place of meanwhile is left out.
    ///
    /// # Errors
    /// As [`accept`](Self::accept), but for time.
    pub fn restore(&mut self, envelope: Envelope, chain: &RosterChain) -> Result<(), Rejection> {
        // A refusal here says that it stands back behind one that is held.
        let _outranked = self.admit(verify(envelope, chain)?);
        Ok(())
    }

    /// Those in force at `now`.
    pub fn in_force<'a>(
        &'a self,
        chain: &'a RosterChain,
        now: UnixMillis,
    ) -> impl Iterator<Item = &'a AcceptedSuspension> {
        self.held.iter().filter(move |held| {
            let said = &held.suspension;
            now < said.expires
                && is_admin(chain.roster(), &said.admin)
                && !chain.lifts_suspension(said.roster_version, &held.digest)
        })
    }

    /// The members that are suspended at `now`.
    #[must_use]
    pub fn members(&self, chain: &RosterChain, now: UnixMillis) -> BTreeSet<MemberNumber> {
        let members = self.in_force(chain, now);
        members.map(|held| held.suspension.member).collect()
    }

    /// When the next of those in force ends, so that access is computed again.
    #[must_use]
    pub fn next_end(&self, chain: &RosterChain, now: UnixMillis) -> Option<UnixMillis> {
        let ends = self.in_force(chain, now);
        ends.map(|held| held.suspension.expires).min()
    }

    /// All that are held, ended ones too.
    #[must_use]
    pub fn all(&self) -> &[AcceptedSuspension] {
        &self.held
    }
}

fn verify(envelope: Envelope, chain: &RosterChain) -> Result<AcceptedSuspension, Rejection> {
    if envelope.kind() != PayloadType::Suspension {
        return Err(invalid("this is no suspension"));
    }
    let suspension = Suspension::read(envelope.payload())?;
    if suspension.genesis != chain.genesis() {
        return Err(Rejection::WrongGenesis { what: "suspension" });
    }
    let version = suspension.roster_version;
    let Some(roster) = chain.at(version) else {
        return Err(unknown(format!("roster version {version} is not held")));
    };
    // Made while that roster was in force: old versions give no new suspensions, and none
    // is older than what it names.
    if suspension.issued.plus(CLOCK_SKEW_MS) < roster.roster().issued {
        return Err(invalid("it was issued before the roster that it names"));
    }
    let next = version.checked_add(1).and_then(|next| chain.at(next));
    let latest = next.map(|next| next.roster().issued.plus(CLOCK_SKEW_MS));
    if latest.is_some_and(|latest| suspension.issued > latest) {
        return Err(invalid("it names a roster that was replaced before"));
    }
    let member = roster.roster().member(suspension.member);
    if member.is_none_or(|m| m.status == MemberStatus::Removed) {
        return Err(unknown(format!(
            "no member {} to suspend",
            suspension.member
        )));
    }
    if !is_admin(roster.roster(), &suspension.admin) {
        return Err(unknown("its key is no administrator's".to_owned()));
    }
    envelope.require_signature(suspension.admin)?;
    Ok(AcceptedSuspension {
        digest: envelope.payload_digest(),
        suspension,
        envelope,
    })
}

fn is_admin(roster: &Roster, key: &PublicKey<Admin>) -> bool {
    roster.admin_keys().any(|admin| admin == *key)
}

fn unknown(why: String) -> Rejection {
    Rejection::Unknown {
        what: "suspension",
        why,
    }
}

fn invalid(why: impl Into<String>) -> Rejection {
    Rejection::invalid("suspension", why)
}
