//! The roster: who is a member, with which keys and roles.
//!
//! A [`Roster`] is one version; [`Roster::read`] takes it from a payload and
//! refuses one that breaks a rule which it can break by itself. A [`RosterChain`]
//! is the versions that this node has verified, one upon the other. Only the
//! chain makes a [`RosterVersion`], so whoever holds one holds an approved roster.
//!
//! Trust: a threshold of administrators is trusted for who is a member, and for
//! nothing else. Whoever serves a chain is trusted for nothing.

mod chain;
mod draft;
mod draft_file;
mod epoch;
mod file;
mod read;
mod succeed;

use std::fmt;

use bytes::Bytes;

use crate::envelope::Envelope;
use crate::id::{CoalitionName, Digest, FeedId, MemberNumber, Slug, UnixMillis};
use crate::keys::{Admin, Feed, Identity, PublicKey};
use crate::limits::ROSTER_GRACE_MS;

pub use chain::{Accepted, RosterChain, RosterEvidence};
pub use draft::NewMember;
pub use draft_file::RosterDraft;
pub use epoch::Opening;
pub use file::RosterFile;
pub(crate) use read::{bytes_of, read_roles, write_roles};

/// One version of the roster, with every rule checked that concerns it alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roster {
    /// The digest of version 1; `None` in version 1 itself.
    pub genesis: Option<Digest>,
    /// The coalition's name, the same in every version.
    pub coalition: CoalitionName,
    /// From 1, without gaps.
    pub version: u64,
    /// The digest of the version before; `None` in version 1.
    pub previous: Option<Digest>,
    /// When it was made.
    pub issued: UnixMillis,
    /// When it ends, 30 to 400 days later.
    pub expires: UnixMillis,
    /// Who approves rosters.
    pub admins: Vec<RosterAdmin>,
    /// How many of them it takes.
    pub threshold: usize,
    /// Everybody who ever was a member.
    pub members: Vec<Member>,
    /// Named groups of members, for grants.
    pub groups: Vec<Group>,
    /// Feed keys that ended an epoch, oldest first; none ever goes away.
    pub revocations: Vec<Revocation>,
    /// Cosignatures that count as a quorum; 0 while there are no witnesses.
    pub witness_threshold: u32,
    /// Publish leaves that a feed may grow by in an hour, where the roster says.
    pub feed_growth_per_hour: Option<u64>,
    /// Payload digests of suspensions that this version ends.
    pub lifted_suspensions: Vec<Digest>,
    /// Genesis digests of the chains that this one takes the place of, newest first.
    pub former_geneses: Vec<Digest>,
}

/// An administrator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RosterAdmin {
    /// For people.
    pub name: String,
    /// What signs rosters and suspensions.
    pub key: PublicKey<Admin>,
}

/// A member, present or past.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Permanent, never used again.
    pub number: MemberNumber,
    /// Permanent, never used again.
    pub slug: Slug,
    /// For people.
    pub display_name: String,
    /// For people, such as "platform" or "hotline".
    pub organisation_kind: String,
    /// Whether it takes part.
    pub status: MemberStatus,
    /// What signs its node cards and mass retractions.
    pub identity: PublicKey<Identity>,
    /// What it may do, in ascending order.
    pub roles: Vec<Role>,
    /// Identity keys that it had before, oldest first.
    pub former_identities: Vec<PublicKey<Identity>>,
}

/// Whether a member takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MemberStatus {
    /// Takes part.
    Active,
    /// Cut off until the administrators decide.
    Suspended,
    /// Out; what it said stays attributed to it.
    Removed,
}

/// What a member may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Have feeds.
    Publish,
    /// Read what is granted.
    Subscribe,
    /// See heads and proofs of all feeds, and cosign.
    Witness,
    /// See members, reachability and versions; no feed.
    Observe,
}

/// A named group of members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Unique in the roster.
    pub name: Slug,
    /// Its members' numbers, ascending.
    pub members: Vec<MemberNumber>,
}

/// The end of a feed's epoch: what the key signed beyond `last_good_size` is void.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// The feed.
    pub feed: FeedId,
    /// The key that signs no more for it.
    pub key: PublicKey<Feed>,
    /// The size up to which the feed stands.
    pub last_good_size: u64,
    /// The root at that size.
    pub last_good_root: Digest,
    /// The epoch that goes on from there.
    pub next_epoch: u32,
}

impl Roster {
    /// Finds a member by its number.
    #[must_use]
    pub fn member(&self, number: MemberNumber) -> Option<&Member> {
        self.members.iter().find(|m| m.number == number)
    }

    /// Finds a member by its slug.
    #[must_use]
    pub fn member_by_slug(&self, slug: &Slug) -> Option<&Member> {
        self.members.iter().find(|m| m.slug == *slug)
    }

    /// Finds a group by its name.
    #[must_use]
    pub fn group(&self, name: &Slug) -> Option<&Group> {
        self.groups.iter().find(|g| g.name == *name)
    }

    /// The members that hold `role` and are active.
    pub fn active_with(&self, role: Role) -> impl Iterator<Item = &Member> {
        self.members
            .iter()
            .filter(move |m| m.status == MemberStatus::Active && m.roles.contains(&role))
    }

    /// The administrators' keys.
    pub fn admin_keys(&self) -> impl Iterator<Item = PublicKey<Admin>> {
        self.admins.iter().map(|admin| admin.key)
    }

    /// What revokes a key of `feed`, in the order of the epochs.
    pub fn revocations_of(&self, feed: FeedId) -> impl Iterator<Item = &Revocation> {
        self.revocations.iter().filter(move |r| r.feed == feed)
    }

    /// The epoch of `feed` that the roster has opened: 0 until a revocation opens
    /// another. New heads are of this one and no other.
    #[must_use]
    pub fn epoch(&self, feed: FeedId) -> u32 {
        self.revocations_of(feed)
            .map(|revocation| revocation.next_epoch)
            .max()
            .unwrap_or(0)
    }

    /// What closed `epoch` of `feed`, if the roster has closed it.
    #[must_use]
    pub fn closing(&self, feed: FeedId, epoch: u32) -> Option<&Revocation> {
        let next = |r: &&Revocation| r.next_epoch.checked_sub(1) == Some(epoch);
        self.revocations_of(feed).find(next)
    }

    /// Says whether `key` must not sign for `feed` in `epoch`: a key is revoked
    /// from the epoch on that its revocation opens.
    #[must_use]
    pub fn is_revoked(&self, feed: FeedId, key: &PublicKey<Feed>, epoch: u32) -> bool {
        self.revocations_of(feed)
            .any(|r| r.key == *key && r.next_epoch <= epoch)
    }

    /// How this roster stands at `now`.
    #[must_use]
    pub fn state(&self, now: UnixMillis) -> RosterState {
        if now <= self.expires {
            RosterState::Fresh
        } else if now <= self.expires.plus(ROSTER_GRACE_MS) {
            RosterState::Grace
        } else {
            RosterState::Stale
        }
    }
}

impl Member {
    /// Whether it holds `role`, whatever its status.
    #[must_use]
    pub fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    /// Its identity keys, the present one first.
    pub fn identities(&self) -> impl Iterator<Item = PublicKey<Identity>> {
        std::iter::once(self.identity).chain(self.former_identities.iter().rev().copied())
    }
}

impl fmt::Display for MemberStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Active => "active",
            Self::Suspended => "suspended",
            Self::Removed => "removed",
        })
    }
}

impl Role {
    /// Every role, in the order of the documents.
    pub const ALL: [Self; 4] = [Self::Publish, Self::Subscribe, Self::Witness, Self::Observe];

    /// Reads a role's name as shown.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == name)
    }

    /// The role's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Subscribe => "subscribe",
            Self::Witness => "witness",
            Self::Observe => "observe",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What a roster's age permits. Matching and retractions never end with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RosterState {
    /// In force.
    Fresh,
    /// Expired for at most 14 days: everything goes on, with an alarm.
    Grace,
    /// Expired for longer: no new publish leaf counts.
    Stale,
}

impl RosterState {
    /// Whether new publish leaves are taken.
    #[must_use]
    pub const fn takes_publish_leaves(self) -> bool {
        match self {
            Self::Fresh | Self::Grace => true,
            Self::Stale => false,
        }
    }

    /// Whether people must be told.
    #[must_use]
    pub const fn alarms(self) -> bool {
        match self {
            Self::Fresh => false,
            Self::Grace | Self::Stale => true,
        }
    }
}

/// A roster that a chain accepted, with the envelope it came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RosterVersion {
    roster: Roster,
    envelope: Envelope,
    digest: Digest,
    signatures: usize,
}

impl RosterVersion {
    /// The roster.
    #[must_use]
    pub const fn roster(&self) -> &Roster {
        &self.roster
    }

    /// The envelope as received.
    #[must_use]
    pub const fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    /// The envelope's bytes as received, which are stored and relayed.
    #[must_use]
    pub const fn as_bytes(&self) -> &Bytes {
        self.envelope.as_bytes()
    }

    /// The SHA-256 of the payload.
    #[must_use]
    pub const fn digest(&self) -> Digest {
        self.digest
    }
}

#[cfg(test)]
pub(crate) mod tests;
