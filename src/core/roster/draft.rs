//! Rosters in the making.

use super::{Member, MemberStatus, Role, Roster, RosterAdmin, RosterVersion};
use crate::envelope::{EnvelopeDraft, PayloadType};
use crate::id::{CoalitionName, Digest, MemberNumber, Slug, UnixMillis};
use crate::keys::{Identity, PublicKey};
use crate::reject::Rejection;

/// What administrators say of a newcomer; the number comes from the roster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMember {
    /// Unique for ever.
    pub slug: Slug,
    /// For people.
    pub display_name: String,
    /// For people, such as "platform" or "hotline".
    pub organisation_kind: String,
    /// Its identity key.
    pub identity: PublicKey<Identity>,
    /// What it may do, in any order.
    pub roles: Vec<Role>,
}

impl Roster {
    /// Drafts version 1: `admins` and no member yet, for `life_ms` from `now` on.
    /// The smallest threshold that the rules allow.
    #[must_use]
    pub fn found(
        coalition: CoalitionName,
        admins: Vec<RosterAdmin>,
        now: UnixMillis,
        life_ms: u64,
    ) -> Self {
        Self {
            genesis: None,
            coalition,
            version: 1,
            previous: None,
            issued: now,
            expires: now.plus(life_ms),
            threshold: admins.len().min(2),
            admins,
            members: Vec::new(),
            groups: Vec::new(),
            revocations: Vec::new(),
            witness_threshold: 0,
            feed_growth_per_hour: None,
            lifted_suspensions: Vec::new(),
        }
    }

    /// Drafts the version after `before`, for `life_ms` from `now` on: the same but
    /// for what the caller then changes.
    #[must_use]
    pub fn after(before: &RosterVersion, genesis: Digest, now: UnixMillis, life_ms: u64) -> Self {
        let roster = before.roster();
        Self {
            genesis: Some(genesis),
            version: roster.version.saturating_add(1),
            previous: Some(before.digest()),
            issued: now,
            expires: now.plus(life_ms),
            lifted_suspensions: Vec::new(),
            ..roster.clone()
        }
    }

    /// Adds a member with the next number and says which.
    ///
    /// # Errors
    /// [`Rejection::Invalid`] where the slug or the key is taken.
    pub fn admit(&mut self, new: NewMember) -> Result<MemberNumber, Rejection> {
        if self.member_by_slug(&new.slug).is_some() {
            return Err(Rejection::invalid(
                "roster",
                format!("slug {} was used before", new.slug),
            ));
        }
        if self.keys().any(|(key, _)| key == *new.identity.as_bytes()) {
            return Err(Rejection::invalid(
                "roster",
                format!("the identity key of {} is somebody's already", new.slug),
            ));
        }
        let last = self.members.iter().map(|m| m.number.value()).max();
        let number = MemberNumber::new(last.unwrap_or(0).saturating_add(1))?;
        let mut roles = new.roles;
        roles.sort_unstable();
        roles.dedup();
        self.members.push(Member {
            number,
            slug: new.slug,
            display_name: new.display_name,
            organisation_kind: new.organisation_kind,
            status: MemberStatus::Active,
            identity: new.identity,
            roles,
            former_identities: Vec::new(),
        });
        Ok(number)
    }

    /// Changes a member's status.
    ///
    /// # Errors
    /// [`Rejection::Unknown`] where there is no such member.
    pub fn set_status(
        &mut self,
        number: MemberNumber,
        status: MemberStatus,
    ) -> Result<(), Rejection> {
        self.member_mut(number)?.status = status;
        Ok(())
    }

    /// Gives a member another identity key; the one before is kept as former.
    ///
    /// # Errors
    /// [`Rejection::Unknown`] where there is no such member.
    pub fn rotate_identity(
        &mut self,
        number: MemberNumber,
        identity: PublicKey<Identity>,
    ) -> Result<(), Rejection> {
        let member = self.member_mut(number)?;
        let before = std::mem::replace(&mut member.identity, identity);
        member.former_identities.push(before);
        Ok(())
    }

    fn member_mut(&mut self, number: MemberNumber) -> Result<&mut Member, Rejection> {
        self.members
            .iter_mut()
            .find(|m| m.number == number)
            .ok_or_else(|| Rejection::Unknown {
                what: "member",
                why: format!("number {number} is not in the roster"),
            })
    }

    /// Encodes the draft, once, for administrators to sign in turn.
    ///
    /// # Errors
    /// What breaks a rule, as [`Roster::read`].
    pub fn to_envelope(&self) -> Result<EnvelopeDraft, Rejection> {
        Ok(EnvelopeDraft::new(PayloadType::Roster, self.encode()?))
    }
}
