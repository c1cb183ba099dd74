//! A roster from its payload and back, and the rules that one version obeys.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use prost::Message as _;

use super::{Group, Member, MemberStatus, Revocation, Role, Roster, RosterAdmin};
use crate::id::{CoalitionName, Digest, FeedId, IdError, MemberNumber, Slug, UnixMillis};
use crate::keys::PublicKey;
use crate::limits::{
    ADMINS_MAX, FEED_MAX_LEAVES, FORMER_GENESES_MAX, FORMER_KEYS_MAX, GROUPS_MAX, MEMBERS_MAX,
    NAME_MAX_BYTES, REVOCATIONS_MAX, ROSTER_LIFE_MAX_MS, ROSTER_LIFE_MIN_MS, ROSTER_MAX_BYTES,
};
use crate::reject::Rejection;
use crate::{text, wire};

/// The few fields that place a version in a chain, read without allocating for
/// the rest of a payload that nobody has approved yet.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Place {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) genesis_digest: Bytes,
    #[prost(uint64, tag = "3")]
    pub(super) version: u64,
    #[prost(bytes = "bytes", tag = "4")]
    pub(super) previous_digest: Bytes,
}

impl Place {
    pub(super) fn read(payload: &Bytes) -> Result<Self, Rejection> {
        Self::decode(payload.clone()).map_err(|e| malformed(&e))
    }
}

impl Roster {
    /// Reads a payload and checks every rule that one version obeys by itself.
    /// Says nothing about who approved it.
    ///
    /// # Errors
    /// [`Rejection::Malformed`], [`Rejection::TooLarge`] or [`Rejection::Invalid`].
    pub fn read(payload: &Bytes) -> Result<Self, Rejection> {
        Rejection::cap("roster", payload.len(), ROSTER_MAX_BYTES)?;
        let message = wire::Roster::decode(payload.clone()).map_err(|e| malformed(&e))?;
        let roster = Self::try_from(message)?;
        roster.check()?;
        Ok(roster)
    }

    /// Encodes the roster as the payload that is to be signed, and reads it back,
    /// so that what nobody would accept is not signed either.
    ///
    /// # Errors
    /// As [`Roster::read`].
    pub fn encode(&self) -> Result<Bytes, Rejection> {
        let payload = Bytes::from(wire::Roster::from(self).encode_to_vec());
        if Self::read(&payload)? != *self {
            return Err(invalid("it does not read back as it was written"));
        }
        Ok(payload)
    }

    fn check(&self) -> Result<(), Rejection> {
        let first = self.version == 1;
        if self.version == 0 || self.genesis.is_none() != first || self.previous.is_none() != first
        {
            return Err(invalid("version 1, and only it, names no predecessor"));
        }
        check_life(self.issued, self.expires)?;
        self.check_admins()?;
        self.check_members()?;
        self.check_keys()?;
        self.check_groups()?;
        self.check_revocations()?;
        let witnesses = self
            .members
            .iter()
            .filter(|m| m.has(Role::Witness) && m.status != MemberStatus::Removed);
        if usize::try_from(self.witness_threshold).is_ok_and(|need| need <= witnesses.count()) {
            Ok(())
        } else {
            Err(invalid("the witness threshold exceeds the witnesses"))
        }
    }

    /// PROTOCOL 5.4: 1 ≤ k ≤ n, and k ≥ 2 when n ≥ 2.
    fn check_admins(&self) -> Result<(), Rejection> {
        let (k, n) = (self.threshold, self.admins.len());
        Rejection::cap("administrators", n, ADMINS_MAX)?;
        if k < 1 || k > n || (n >= 2 && k < 2) {
            return Err(invalid(format!("threshold {k} of {n} administrators")));
        }
        Ok(())
    }

    fn check_members(&self) -> Result<(), Rejection> {
        let numbers: BTreeSet<_> = self.members.iter().map(|m| m.number).collect();
        let slugs: BTreeSet<_> = self.members.iter().map(|m| &m.slug).collect();
        if numbers.len() != self.members.len() {
            return Err(invalid("a member number is used twice"));
        }
        if slugs.len() != self.members.len() {
            return Err(invalid("a member slug is used twice"));
        }
        Ok(())
    }

    /// No key stands in two places: administrators, identities, former identities.
    fn check_keys(&self) -> Result<(), Rejection> {
        let mut seen = BTreeSet::new();
        let twice = self.keys().find(|(key, _)| !seen.insert(*key));
        match twice {
            None => Ok(()),
            Some((key, _)) => Err(invalid(format!("key {} stands in two places", Digest(key)))),
        }
    }

    fn check_groups(&self) -> Result<(), Rejection> {
        let mut names = BTreeSet::new();
        for group in &self.groups {
            if !names.insert(&group.name) {
                return Err(invalid(format!("group {} stands there twice", group.name)));
            }
            if let Some(stranger) = group.members.iter().find(|n| self.member(**n).is_none()) {
                return Err(invalid(format!(
                    "group {} names member {stranger}, who is not there",
                    group.name
                )));
            }
        }
        Ok(())
    }

    /// The epochs of a feed follow one another, and no later one takes back what
    /// an earlier one left standing.
    fn check_revocations(&self) -> Result<(), Rejection> {
        let mut latest: BTreeMap<FeedId, &Revocation> = BTreeMap::new();
        for revocation in &self.revocations {
            let before = latest.insert(revocation.feed, revocation);
            let follows = before.is_none_or(|b| {
                Some(revocation.next_epoch) == b.next_epoch.checked_add(1)
                    && revocation.last_good_size >= b.last_good_size
            });
            if !follows {
                return Err(invalid(format!(
                    "the revocations of feed {} do not follow one another",
                    revocation.feed
                )));
            }
        }
        Ok(())
    }

    /// Every key of the roster, with the member whose identity it is or was.
    pub(super) fn keys(&self) -> impl Iterator<Item = ([u8; 32], Option<MemberNumber>)> {
        let admins = self.admins.iter().map(|a| (*a.key.as_bytes(), None));
        let identities = self
            .members
            .iter()
            .flat_map(|m| m.identities().map(|key| (*key.as_bytes(), Some(m.number))));
        admins.chain(identities)
    }
}

fn check_life(issued: UnixMillis, expires: UnixMillis) -> Result<(), Rejection> {
    let life = expires.since(issued);
    if (ROSTER_LIFE_MIN_MS..=ROSTER_LIFE_MAX_MS).contains(&life) {
        Ok(())
    } else {
        Err(invalid("its life is not within 30 to 400 days"))
    }
}

impl TryFrom<wire::Roster> for Roster {
    type Error = Rejection;

    fn try_from(message: wire::Roster) -> Result<Self, Rejection> {
        Rejection::cap("members", message.members.len(), MEMBERS_MAX)?;
        Rejection::cap("groups", message.groups.len(), GROUPS_MAX)?;
        Rejection::cap("revocations", message.revocations.len(), REVOCATIONS_MAX)?;
        let former = &message.former_genesis_digests;
        Rejection::cap("former geneses", former.len(), FORMER_GENESES_MAX)?;
        let growth = message.limits.unwrap_or_default().feed_growth_per_hour;
        Ok(Self {
            genesis: optional_digest(&message.genesis_digest)?,
            coalition: CoalitionName::parse(&message.coalition)?,
            version: message.version,
            previous: optional_digest(&message.previous_digest)?,
            issued: UnixMillis(message.issued_ms),
            expires: UnixMillis(message.expires_ms),
            admins: each(message.admins)?,
            threshold: usize::try_from(message.threshold)
                .map_err(|_| invalid("threshold beyond all bounds"))?,
            members: each(message.members)?,
            groups: each(message.groups)?,
            revocations: each(message.revocations)?,
            witness_threshold: message.witness_threshold,
            feed_growth_per_hour: (growth > 0).then_some(growth),
            lifted_suspensions: digests(&message.lifted_suspensions)?,
            former_geneses: digests(&message.former_genesis_digests)?,
        })
    }
}

impl TryFrom<wire::Admin> for RosterAdmin {
    type Error = Rejection;

    fn try_from(message: wire::Admin) -> Result<Self, Rejection> {
        Ok(Self {
            name: text::required("administrator's name", message.name, NAME_MAX_BYTES)?,
            key: PublicKey::from_slice(&message.key)?,
        })
    }
}

impl TryFrom<wire::Member> for Member {
    type Error = Rejection;

    fn try_from(message: wire::Member) -> Result<Self, Rejection> {
        let former = &message.former_identity_keys;
        Rejection::cap("former identity keys", former.len(), FORMER_KEYS_MAX)?;
        Ok(Self {
            number: MemberNumber::new(message.number)?,
            slug: Slug::parse(&message.slug)?,
            display_name: text::required("display name", message.display_name, NAME_MAX_BYTES)?,
            organisation_kind: text::optional(
                "organisation kind",
                message.organisation_kind,
                NAME_MAX_BYTES,
            )?,
            status: read_status(message.status)?,
            identity: PublicKey::from_slice(&message.identity_key)?,
            roles: read_roles(&message.roles)?,
            former_identities: former
                .iter()
                .map(|bytes| PublicKey::from_slice(bytes).map_err(Rejection::from))
                .collect::<Result<_, _>>()?,
        })
    }
}

impl TryFrom<wire::Group> for Group {
    type Error = Rejection;

    fn try_from(message: wire::Group) -> Result<Self, Rejection> {
        let members: Vec<_> = message
            .member_numbers
            .iter()
            .map(|number| MemberNumber::new(*number))
            .collect::<Result<_, _>>()?;
        if !members.is_sorted_by(|a, b| a < b) {
            return Err(invalid("a group's members are not in ascending order"));
        }
        Ok(Self {
            name: Slug::parse(&message.name)?,
            members,
        })
    }
}

impl TryFrom<wire::Revocation> for Revocation {
    type Error = Rejection;

    fn try_from(message: wire::Revocation) -> Result<Self, Rejection> {
        if message.last_good_size > FEED_MAX_LEAVES {
            return Err(invalid("a revocation beyond the largest feed"));
        }
        if message.next_epoch == 0 {
            return Err(invalid("a revocation opens no epoch"));
        }
        Ok(Self {
            feed: FeedId::from_slice(&message.feed_id)?,
            key: PublicKey::from_slice(&message.feed_key)?,
            last_good_size: message.last_good_size,
            last_good_root: Digest::from_slice(&message.last_good_root)?,
            next_epoch: message.next_epoch,
        })
    }
}

fn read_status(value: i32) -> Result<MemberStatus, Rejection> {
    match wire::MemberStatus::try_from(value) {
        Ok(wire::MemberStatus::Active) => Ok(MemberStatus::Active),
        Ok(wire::MemberStatus::Suspended) => Ok(MemberStatus::Suspended),
        Ok(wire::MemberStatus::Removed) => Ok(MemberStatus::Removed),
        Ok(wire::MemberStatus::Unspecified) | Err(_) => {
            Err(invalid(format!("unknown member status {value}")))
        }
    }
}

/// Reads roles in ascending order, each once.
pub(crate) fn read_roles(values: &[i32]) -> Result<Vec<Role>, Rejection> {
    let roles = values
        .iter()
        .map(|value| match wire::Role::try_from(*value) {
            Ok(wire::Role::Publish) => Ok(Role::Publish),
            Ok(wire::Role::Subscribe) => Ok(Role::Subscribe),
            Ok(wire::Role::Witness) => Ok(Role::Witness),
            Ok(wire::Role::Observe) => Ok(Role::Observe),
            Ok(wire::Role::Unspecified) | Err(_) => Err(invalid(format!("unknown role {value}"))),
        })
        .collect::<Result<Vec<_>, _>>()?;
    if roles.is_sorted_by(|a, b| a < b) {
        Ok(roles)
    } else {
        Err(invalid("roles are not in ascending order"))
    }
}

/// The roles as on the wire.
pub(crate) fn write_roles(roles: &[Role]) -> Vec<i32> {
    let number = |role: &Role| match role {
        Role::Publish => wire::Role::Publish.into(),
        Role::Subscribe => wire::Role::Subscribe.into(),
        Role::Witness => wire::Role::Witness.into(),
        Role::Observe => wire::Role::Observe.into(),
    };
    roles.iter().map(number).collect()
}

impl From<&Roster> for wire::Roster {
    fn from(roster: &Roster) -> Self {
        Self {
            genesis_digest: roster.genesis.map_or_else(Bytes::new, bytes_of),
            coalition: roster.coalition.to_string(),
            version: roster.version,
            previous_digest: roster.previous.map_or_else(Bytes::new, bytes_of),
            issued_ms: roster.issued.0,
            expires_ms: roster.expires.0,
            admins: roster.admins.iter().map(Into::into).collect(),
            threshold: u32::try_from(roster.threshold).unwrap_or(u32::MAX),
            members: roster.members.iter().map(Into::into).collect(),
            groups: roster.groups.iter().map(Into::into).collect(),
            revocations: roster.revocations.iter().map(Into::into).collect(),
            witness_threshold: roster.witness_threshold,
            limits: roster.feed_growth_per_hour.map(|growth| wire::Limits {
                feed_growth_per_hour: growth,
            }),
            lifted_suspensions: roster
                .lifted_suspensions
                .iter()
                .copied()
                .map(bytes_of)
                .collect(),
            former_genesis_digests: roster
                .former_geneses
                .iter()
                .copied()
                .map(bytes_of)
                .collect(),
        }
    }
}

impl From<&RosterAdmin> for wire::Admin {
    fn from(admin: &RosterAdmin) -> Self {
        Self {
            name: admin.name.clone(),
            key: Bytes::copy_from_slice(admin.key.as_bytes()),
        }
    }
}

impl From<&Member> for wire::Member {
    fn from(member: &Member) -> Self {
        let status = match member.status {
            MemberStatus::Active => wire::MemberStatus::Active,
            MemberStatus::Suspended => wire::MemberStatus::Suspended,
            MemberStatus::Removed => wire::MemberStatus::Removed,
        };
        Self {
            number: member.number.value(),
            slug: member.slug.to_string(),
            display_name: member.display_name.clone(),
            organisation_kind: member.organisation_kind.clone(),
            status: status.into(),
            identity_key: Bytes::copy_from_slice(member.identity.as_bytes()),
            roles: write_roles(&member.roles),
            former_identity_keys: member
                .former_identities
                .iter()
                .map(|key| Bytes::copy_from_slice(key.as_bytes()))
                .collect(),
        }
    }
}

impl From<&Group> for wire::Group {
    fn from(group: &Group) -> Self {
        Self {
            name: group.name.to_string(),
            member_numbers: group.members.iter().map(|n| n.value()).collect(),
        }
    }
}

impl From<&Revocation> for wire::Revocation {
    fn from(revocation: &Revocation) -> Self {
        Self {
            feed_id: bytes_of(revocation.feed.0),
            feed_key: Bytes::copy_from_slice(revocation.key.as_bytes()),
            last_good_size: revocation.last_good_size,
            last_good_root: bytes_of(revocation.last_good_root),
            next_epoch: revocation.next_epoch,
        }
    }
}

fn each<M, T: TryFrom<M, Error = Rejection>>(messages: Vec<M>) -> Result<Vec<T>, Rejection> {
    messages.into_iter().map(T::try_from).collect()
}

fn digests(bytes: &[Bytes]) -> Result<Vec<Digest>, IdError> {
    bytes
        .iter()
        .map(|bytes| Digest::from_slice(bytes))
        .collect()
}

fn optional_digest(bytes: &Bytes) -> Result<Option<Digest>, Rejection> {
    if bytes.is_empty() {
        return Ok(None);
    }
    Ok(Some(Digest::from_slice(bytes)?))
}

pub(crate) fn bytes_of(digest: Digest) -> Bytes {
    Bytes::copy_from_slice(digest.as_bytes())
}

fn invalid(why: impl Into<String>) -> Rejection {
    Rejection::invalid("roster", why)
}

fn malformed(error: &prost::DecodeError) -> Rejection {
    Rejection::malformed("roster", error.to_string())
}
