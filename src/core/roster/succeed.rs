//! A chain that takes the place of another: when so many administrators' keys are
//! lost that none can approve a roster any longer.
//!
//! Nothing in the old chain says that the new one is right: people do, at every node,
//! with the new genesis digest. What is checked here is that nothing else changes
//! with it: the same coalition, members, numbers and revocations, so that feeds and
//! what is held of them stay what they are.

use super::{Roster, RosterAdmin, RosterChain};
use crate::id::{Digest, UnixMillis};
use crate::reject::Rejection;

impl Roster {
    /// Drafts version 1 of a chain that takes the place of `before`: the same but for
    /// its administrators.
    #[must_use]
    pub fn succeed(
        before: &RosterChain,
        admins: Vec<RosterAdmin>,
        now: UnixMillis,
        life_ms: u64,
    ) -> Self {
        let roster = before.roster();
        Self {
            former_geneses: before.geneses().collect(),
            members: roster.members.clone(),
            groups: roster.groups.clone(),
            revocations: roster.revocations.clone(),
            witness_threshold: roster.witness_threshold,
            feed_growth_per_hour: roster.feed_growth_per_hour,
            ..Self::found(roster.coalition.clone(), admins, now, life_ms)
        }
    }
}

impl RosterChain {
    /// The genesis digests that feeds of this coalition may have been begun under: this
    /// chain's own, then those of the chains that it takes the place of.
    pub fn geneses(&self) -> impl Iterator<Item = Digest> {
        let former = self.roster().former_geneses.iter().copied();
        std::iter::once(self.genesis()).chain(former)
    }

    /// Checks that this chain takes the place of `before` and changes nothing that
    /// feeds hang on.
    ///
    /// # Errors
    /// [`Rejection::WrongGenesis`] where it does not name the other one,
    /// [`Rejection::Invalid`] for another coalition, a member that is missing or has
    /// another number, or a revocation that went away.
    pub fn check_takes_place_of(&self, before: &Self) -> Result<(), Rejection> {
        let invalid = |why: String| Rejection::invalid("roster", why);
        if !self
            .geneses()
            .skip(1)
            .any(|former| former == before.genesis())
        {
            return Err(Rejection::WrongGenesis { what: "roster" });
        }
        let (held, roster) = (before.roster(), self.roster());
        if roster.coalition != held.coalition {
            return Err(invalid("it is of another coalition".to_owned()));
        }
        if !roster.revocations.starts_with(&held.revocations) {
            return Err(invalid("a revocation went away".to_owned()));
        }
        let stays = |slug, number| roster.member(number).is_some_and(|m| m.slug == slug);
        let gone = held
            .members
            .iter()
            .find(|m| !stays(m.slug.clone(), m.number));
        match gone {
            None => Ok(()),
            Some(member) => Err(invalid(format!(
                "member {} is not there under number {}",
                member.slug, member.number
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::roster::tests::{NOW, admin, change, code, newcomer, signed, with_members};

    const LIFE: u64 = 365 * crate::limits::DAY_MS;

    /// A chain of administrator 9 alone that takes the place of `before`.
    fn succeeding(before: &RosterChain, how: impl FnOnce(&mut Roster)) -> RosterChain {
        let alone = vec![RosterAdmin {
            name: "new".to_owned(),
            key: admin(9).public(),
        }];
        let mut roster = Roster::succeed(before, alone, NOW, LIFE);
        how(&mut roster);
        let envelope = signed(&roster, &[9]);
        let genesis = envelope.payload_digest();
        RosterChain::begin(envelope, &genesis, NOW).unwrap()
    }

    #[test]
    fn a_chain_takes_the_place_of_another_and_keeps_its_members() {
        let before = with_members();
        let mut after = succeeding(&before, |_| ());
        assert_eq!(after.check_takes_place_of(&before), Ok(()));
        assert_eq!(after.roster().members, before.roster().members);
        assert_eq!(after.geneses().nth(1), Some(before.genesis()));
        // And a third one knows both.
        let third = succeeding(&after, |_| ());
        assert_eq!(third.check_takes_place_of(&before), Ok(()));
        assert_eq!(third.geneses().count(), 2 + before.geneses().count());
        // From then on it is named in every version.
        let mut next = Roster::after(after.current(), after.genesis(), NOW, LIFE);
        next.former_geneses.clear();
        assert_eq!(code(after.accept(signed(&next, &[9]), NOW)), "invalid");
    }

    #[test]
    fn a_chain_that_changes_what_feeds_hang_on_takes_nobodys_place() {
        let before = with_members();
        let refused =
            |how: fn(&mut Roster)| code(succeeding(&before, how).check_takes_place_of(&before));
        assert_eq!(refused(|r| r.former_geneses.clear()), "wrong_genesis");
        assert_eq!(refused(|r| drop(r.members.remove(0))), "invalid");
        assert_eq!(
            refused(|r| r.members[0].slug = crate::roster::tests::slug("x")),
            "invalid"
        );
        let mut grown = before.clone();
        change(&mut grown, |r| {
            r.admit(newcomer("late", 120)).unwrap();
        })
        .unwrap();
        assert_eq!(
            code(succeeding(&before, |_| ()).check_takes_place_of(&grown)),
            "invalid"
        );
    }
}
