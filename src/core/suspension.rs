//! Suspensions: what one administrator may do alone, and how little that is.
//!
//! One administrator, one member at a time, at most 7 days, once per member and
//! roster version. A suspension changes access, never standing. It ends when it
//! expires, when a roster lifts it by name, or when its administrator is one no
//! longer; a new roster alone does not end it.

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

    /// Whether the two may not both be in force.
    fn conflicts(&self, other: &Self) -> bool {
        if self.member == other.member {
            self.roster_version == other.roster_version
        } else {
            self.admin == other.admin && self.overlaps(other)
        }
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

    /// Of two that conflict, the one made first holds, at every node the same.
    fn rank(&self) -> (UnixMillis, Digest) {
        (self.suspension.issued, self.digest)
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
        if self.held.iter().any(|held| held.digest == new.digest) {
            return Ok(false);
        }
        let conflicts = |held: &AcceptedSuspension| held.suspension.conflicts(&new.suspension);
        let earlier = |held: &&AcceptedSuspension| conflicts(held) && held.rank() < new.rank();
        if self.held.iter().any(|held| earlier(&held)) {
            return Err(invalid(
                "its member was suspended under this roster before, or its administrator \
                 has another member suspended",
            ));
        }
        self.held.retain(|held| !conflicts(held));
        self.held.push(new);
        Ok(true)
    }

    /// Takes back a suspension that this node stored: its signature again, but not
    /// the clock.
    ///
    /// # Errors
    /// As [`accept`](Self::accept), but for time.
    pub fn restore(&mut self, envelope: Envelope, chain: &RosterChain) -> Result<(), Rejection> {
        self.held.push(verify(envelope, chain)?);
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
    // Made while that roster was in force: old versions give no new suspensions.
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
