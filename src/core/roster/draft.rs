//! Rosters in the making. Nothing here is trusted or checked: what is signed in the end
//! passes the chain's own rules.

use super::{Group, Member, MemberStatus, Revocation, Role, Roster, RosterAdmin, RosterVersion};
use crate::envelope::{EnvelopeDraft, PayloadType};
use crate::id::{CoalitionName, Digest, FeedId, MemberNumber, Slug, UnixMillis};
use crate::keys::{Admin, Feed, Identity, PublicKey};
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
            former_geneses: Vec::new(),
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

    /// Opens the next epoch of a feed: what `key` signed beyond `last_good_size` is
    /// void. Says which epoch.
    pub fn revoke_feed_key(
        &mut self,
        feed: FeedId,
        key: PublicKey<Feed>,
        last_good_size: u64,
        last_good_root: Digest,
    ) -> u32 {
        let next_epoch = self.epoch(feed).saturating_add(1);
        self.revocations.push(Revocation {
            feed,
            key,
            last_good_size,
            last_good_root,
            next_epoch,
        });
        next_epoch
    }

    /// Puts members into a group, which is made where there is none of that name.
    pub fn group_add(&mut self, name: &Slug, members: &[MemberNumber]) {
        if self.group(name).is_none() {
            self.groups.push(Group {
                name: name.clone(),
                members: Vec::new(),
            });
        }
        if let Some(group) = self.groups.iter_mut().find(|group| group.name == *name) {
            group.members.extend(members);
            group.members.sort_unstable();
            group.members.dedup();
        }
    }

    /// Takes members out of a group; without members, takes the group away.
    ///
    /// # Errors
    /// [`Rejection::Unknown`] for no such group, or a member that is not in it.
    pub fn group_remove(&mut self, name: &Slug, members: &[MemberNumber]) -> Result<(), Rejection> {
        let unknown = |why: String| Rejection::Unknown { what: "group", why };
        let group = self.groups.iter_mut().find(|group| group.name == *name);
        let group = group.ok_or_else(|| unknown(format!("there is no group {name}")))?;
        if members.is_empty() {
            self.groups.retain(|group| group.name != *name);
            return Ok(());
        }
        if let Some(stranger) = members.iter().find(|m| !group.members.contains(m)) {
            return Err(unknown(format!("member {stranger} is not in group {name}")));
        }
        group.members.retain(|member| !members.contains(member));
        Ok(())
    }

    /// Adds an administrator. The threshold is raised to 2 where the rules ask that.
    pub fn add_admin(&mut self, admin: RosterAdmin) {
        self.admins.push(admin);
        self.threshold = self.threshold.max(self.admins.len().min(2));
    }

    /// Takes an administrator away. The threshold is lowered where fewer are left.
    ///
    /// # Errors
    /// [`Rejection::Unknown`] for no such key.
    pub fn remove_admin(&mut self, key: &PublicKey<Admin>) -> Result<(), Rejection> {
        let before = self.admins.len();
        self.admins.retain(|admin| admin.key != *key);
        if self.admins.len() == before {
            return Err(Rejection::Unknown {
                what: "administrator",
                why: format!("{key} is no administrator's key"),
            });
        }
        self.threshold = self.threshold.min(self.admins.len());
        Ok(())
    }

    /// What a member is called and what it may do, to be changed.
    ///
    /// # Errors
    /// [`Rejection::Unknown`] where there is no such member.
    pub fn change_member(
        &mut self,
        number: MemberNumber,
        change: impl FnOnce(&mut Member),
    ) -> Result<(), Rejection> {
        let member = self.member_mut(number)?;
        change(member);
        member.roles.sort_unstable();
        member.roles.dedup();
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
