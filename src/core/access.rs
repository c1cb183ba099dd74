//! Who may ask what: pure functions of one immutable [`Snapshot`].
//!
//! A snapshot is computed when the roster, a suspension or the deny list changes,
//! and when a suspension ends. It is asked when a call starts and before each
//! chunk, before any read of the store.
//!
//! ⚠ No grant means no existence: what is ungranted, unknown, suspended or denied
//! is one and the same [`Rejection::NotFound`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::card::{CardState, KeyOwner};
use crate::id::{MemberNumber, UnixMillis};
use crate::leaf::{Describe, Grant, Grantee, Terms};
use crate::limits::{GRANT_ENDS_FREE_PER_DAY, GRANT_ENDS_FREE_SHARE};
use crate::reject::Rejection;
use crate::roster::{Member, MemberStatus, Role, RosterChain, RosterState, RosterVersion};
use crate::suspension::SuspensionBook;

/// Who may read a feed, as its last describe leaf says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Grants(Vec<Grant>);

impl Grants {
    /// Takes grants, none where the terms give no right to share the set on.
    ///
    /// # Errors
    /// [`Rejection::Invalid`], which quotes the terms.
    pub fn new(terms: &Terms, grants: Vec<Grant>) -> Result<Self, Rejection> {
        if !terms.may_share && !grants.is_empty() {
            return Err(Rejection::invalid(
                "grant",
                format!("the set may not be shared on: {}", terms.text),
            ));
        }
        Ok(Self(grants))
    }

    /// The grants of a describe leaf; none count without the right to share.
    #[must_use]
    pub fn of(describe: &Describe) -> Self {
        Self::new(&describe.terms, describe.grants.clone()).unwrap_or_default()
    }

    /// Whether nobody but the publisher may read.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Whether a member takes part now, by all that this node knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MemberAccess {
    /// Takes part.
    Active,
    /// Suspended by the roster or by an administrator.
    Suspended,
    /// Removed by the roster.
    Removed,
    /// On this node's own deny list.
    Denied,
    /// Not in the roster.
    Unknown,
}

/// What a connection may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Admission {
    /// `Hello`, `GetRoster`, and what each further call allows.
    Full,
    /// `Hello` and `GetRoster` only.
    RosterOnly,
}

/// How much of the roster, cards and suspensions a caller is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RosterReach {
    /// All of it.
    All,
    /// Versions up to the one that removed it, and of cards and suspensions what
    /// was issued before that one was.
    UpTo {
        /// The last version.
        version: u64,
        /// When that was issued.
        issued: UnixMillis,
    },
    /// Nothing.
    None,
}

/// One state of roster, suspensions and deny list.
#[derive(Debug, Clone)]
pub struct Snapshot {
    own: MemberNumber,
    roster: Arc<RosterVersion>,
    members: BTreeMap<MemberNumber, MemberAccess>,
    removals: BTreeMap<MemberNumber, (u64, UnixMillis)>,
    state: RosterState,
    until: Option<UnixMillis>,
}

impl Snapshot {
    /// Computes who takes part at `now`, as seen by a node of member `own`.
    #[must_use]
    pub fn new(
        own: MemberNumber,
        chain: &RosterChain,
        suspensions: &SuspensionBook,
        denied: &BTreeSet<MemberNumber>,
        now: UnixMillis,
    ) -> Self {
        let suspended = suspensions.members(chain, now);
        let access = |member: &Member| match member.status {
            MemberStatus::Removed => MemberAccess::Removed,
            MemberStatus::Suspended => MemberAccess::Suspended,
            MemberStatus::Active if suspended.contains(&member.number) => MemberAccess::Suspended,
            MemberStatus::Active if denied.contains(&member.number) => MemberAccess::Denied,
            MemberStatus::Active => MemberAccess::Active,
        };
        let roster = Arc::clone(chain.current());
        let members = &roster.roster().members;
        let removal = |member: &Member| {
            let version = chain.at(chain.removed_in(member.number)?)?.roster();
            Some((member.number, (version.version, version.issued)))
        };
        let expiry = roster.roster().expires;
        let next_states = [expiry, expiry.plus(crate::limits::ROSTER_GRACE_MS)];
        let ends = next_states
            .into_iter()
            .filter(|end| *end >= now)
            .map(|end| end.plus(1))
            .chain(suspensions.next_end(chain, now));
        Self {
            own,
            members: members.iter().map(|m| (m.number, access(m))).collect(),
            removals: members.iter().filter_map(removal).collect(),
            state: chain.state(now),
            until: ends.min(),
            roster,
        }
    }

    /// The roster that it is computed from.
    #[must_use]
    pub const fn roster(&self) -> &Arc<RosterVersion> {
        &self.roster
    }

    /// How that roster stands.
    #[must_use]
    pub const fn roster_state(&self) -> RosterState {
        self.state
    }

    /// When time alone changes the answers, so that a new snapshot is due.
    #[must_use]
    pub const fn valid_until(&self) -> Option<UnixMillis> {
        self.until
    }

    /// Whether a member takes part.
    #[must_use]
    pub fn member(&self, member: MemberNumber) -> MemberAccess {
        let access = self.members.get(&member).copied();
        access.unwrap_or(MemberAccess::Unknown)
    }

    /// What a connection may be used for whose other end has a key on a known
    /// card. ⚠ Whatever its member's status and its card's age, it may say `Hello`
    /// and fetch the roster, so that nobody is locked out of learning why.
    #[must_use]
    pub fn admission(&self, caller: &KeyOwner) -> Admission {
        match (caller.card, self.may_connect(caller.member)) {
            (CardState::Current, true) => Admission::Full,
            (CardState::Current, false) | (CardState::Expired | CardState::FormerIdentity, _) => {
                Admission::RosterOnly
            }
        }
    }

    /// How much of the roster a key on a known card may fetch: all, or for a removed
    /// member what was up to its removal.
    #[must_use]
    pub fn may_get_roster(&self, caller: &KeyOwner) -> RosterReach {
        match (
            self.member(caller.member),
            self.removals.get(&caller.member),
        ) {
            (MemberAccess::Unknown, _) | (MemberAccess::Removed, None) => RosterReach::None,
            (MemberAccess::Removed, Some((version, issued))) => RosterReach::UpTo {
                version: *version,
                issued: *issued,
            },
            (MemberAccess::Active | MemberAccess::Suspended | MemberAccess::Denied, _) => {
                RosterReach::All
            }
        }
    }

    /// Whether a member may do more than fetch the roster; also whether this node
    /// dials it. A change of this closes live connections.
    #[must_use]
    pub fn may_connect(&self, member: MemberNumber) -> bool {
        self.member(member) == MemberAccess::Active
    }

    /// Whether a member's feeds are pulled, from whomever.
    #[must_use]
    pub fn may_publish(&self, member: MemberNumber) -> bool {
        self.is_active_with(member, Role::Publish)
    }

    /// Whether a member sees heads and proofs of all feeds.
    #[must_use]
    pub fn is_witness(&self, member: MemberNumber) -> bool {
        self.is_active_with(member, Role::Witness)
    }

    /// Whether a member reads feeds at all, and so can serve what it holds of others.
    #[must_use]
    pub fn may_subscribe(&self, member: MemberNumber) -> bool {
        self.is_active_with(member, Role::Subscribe)
    }

    /// Whether `caller` may read the leaves of a feed of `publisher`; `grants` is
    /// `None` where the feed does not exist.
    ///
    /// # Errors
    /// [`Rejection::NotFound`], the same for every reason.
    pub fn may_read(
        &self,
        caller: MemberNumber,
        publisher: MemberNumber,
        grants: Option<&Grants>,
    ) -> Result<(), Rejection> {
        let grants = grants.ok_or(Rejection::NotFound)?;
        let open = self.may_connect(caller) && self.may_publish(publisher);
        // A publisher may always read its own feed from any holder.
        let reads = caller == publisher
            || (self.is_active_with(caller, Role::Subscribe)
                && self.granted(caller, grants, false));
        found(open && reads)
    }

    /// Whether `caller` may see heads and proofs of a feed, and hear its name: a
    /// reader, or a witness. ⚠ Nobody else hears of the feed.
    ///
    /// # Errors
    /// [`Rejection::NotFound`], the same for every reason.
    pub fn may_prove(
        &self,
        caller: MemberNumber,
        publisher: MemberNumber,
        grants: Option<&Grants>,
    ) -> Result<(), Rejection> {
        if grants.is_some() && self.is_witness(caller) && self.may_publish(publisher) {
            return Ok(());
        }
        self.may_read(caller, publisher, grants)
    }

    /// Whether so many members lose a feed of `publisher` between two describe leaves
    /// that it takes the publisher's identity key: more than one, and more than a tenth
    /// of its readers. What roster or suspensions take is no part of it.
    ///
    /// PROTOCOL 15.10: ⚠ a stolen feed key must not disarm everybody.
    #[must_use]
    pub fn ends_for_many(&self, publisher: MemberNumber, before: &Grants, after: &Grants) -> bool {
        let reads = |member: MemberNumber, grants: &Grants| {
            member != publisher && self.may_read(member, publisher, Some(grants)).is_ok()
        };
        let members = self.members.keys().copied();
        let readers: Vec<_> = members.filter(|member| reads(*member, before)).collect();
        let lost = readers.iter().filter(|member| !reads(**member, after));
        let free = readers.len().checked_div(GRANT_ENDS_FREE_SHARE);
        lost.count() > free.unwrap_or(0).max(GRANT_ENDS_FREE_PER_DAY)
    }

    /// Whether `relay` may serve the leaves of a feed of `publisher` onward.
    ///
    /// # Errors
    /// [`Rejection::NotFound`], the same for every reason.
    pub fn may_relay(
        &self,
        relay: MemberNumber,
        publisher: MemberNumber,
        grants: Option<&Grants>,
    ) -> Result<(), Rejection> {
        self.may_read(relay, publisher, grants)?;
        let onward = grants.is_some_and(|grants| self.granted(relay, grants, true));
        found(relay == publisher || onward)
    }

    /// Whether a member sees members, reachability and versions.
    #[must_use]
    pub fn may_observe(&self, member: MemberNumber) -> bool {
        self.is_active_with(member, Role::Observe)
    }

    /// Whether this node serves leaves of a feed of `publisher` to `caller`: the
    /// caller may read them, and this node is their publisher, or may relay, or
    /// gives the publisher back its own.
    ///
    /// # Errors
    /// [`Rejection::NotFound`], the same for every reason.
    pub fn may_serve(
        &self,
        caller: MemberNumber,
        publisher: MemberNumber,
        grants: Option<&Grants>,
    ) -> Result<(), Rejection> {
        self.may_read(caller, publisher, grants)?;
        if caller == publisher {
            return Ok(());
        }
        self.may_relay(self.own, publisher, grants)
    }

    fn granted(&self, member: MemberNumber, grants: &Grants, relay: bool) -> bool {
        let names = |grantee: &Grantee| match grantee {
            Grantee::Member(number) => *number == member,
            Grantee::Group(name) => {
                let group = self.roster.roster().group(name);
                group.is_some_and(|group| group.members.contains(&member))
            }
            Grantee::All => self.is_active_with(member, Role::Subscribe),
        };
        let mut grants = grants.0.iter();
        grants.any(|grant| (grant.relay || !relay) && names(&grant.grantee))
    }

    fn is_active_with(&self, member: MemberNumber, role: Role) -> bool {
        let has_role = self
            .roster
            .roster()
            .member(member)
            .is_some_and(|m| m.has(role));
        has_role && self.may_connect(member)
    }
}

fn found(yes: bool) -> Result<(), Rejection> {
    if yes {
        Ok(())
    } else {
        Err(Rejection::NotFound)
    }
}

#[cfg(test)]
#[path = "access_tests.rs"]
mod tests;
