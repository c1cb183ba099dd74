//! Whether what members said counts once they are removed: the receiver's setting.
//!
//! Removal takes nothing away: entries stay, attributed, under the publisher's name.
//! A suspension changes access alone, so it is not asked here.

use std::sync::atomic::{AtomicU8, Ordering};

use hashpact_core::id::MemberNumber;
use hashpact_core::roster::MemberStatus;

use crate::membership::State;
use crate::model::{Match, MatchStanding};
use crate::node::Node;

/// What becomes of the entries of members that were removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum RemovedMembers {
    /// They count as before.
    #[default]
    Count,
    /// They answer, to be looked at.
    Review,
    /// They do not answer.
    Ignore,
}

/// The setting of a node that runs.
#[derive(Debug, Default)]
pub(crate) struct Setting(AtomicU8);

impl Setting {
    pub(crate) fn get(&self) -> RemovedMembers {
        match self.0.load(Ordering::SeqCst) {
            1 => RemovedMembers::Review,
            2 => RemovedMembers::Ignore,
            _ => RemovedMembers::Count,
        }
    }

    fn set(&self, what: RemovedMembers) {
        let number = match what {
            RemovedMembers::Count => 0,
            RemovedMembers::Review => 1,
            RemovedMembers::Ignore => 2,
        };
        self.0.store(number, Ordering::SeqCst);
    }
}

impl Node {
    /// Sets what becomes of the entries of members that were removed.
    pub fn set_removed_members(&self, what: RemovedMembers) {
        self.removed_members.set(what);
        self.following().wake();
    }

    /// Whether what a member publishes counts here, by its place in the roster.
    #[must_use]
    pub fn counts(&self, publisher: MemberNumber) -> RemovedMembers {
        if is_removed(&self.membership().state(), publisher) {
            self.removed_members.get()
        } else {
            RemovedMembers::Count
        }
    }

    /// Decides for one match whether it stays, and how it stands.
    pub(crate) fn removed_filter(&self) -> impl Fn(&mut Match) -> bool + use<> {
        let setting = self.removed_members.get();
        let state = self.membership().state();
        move |found| {
            let counts = setting == RemovedMembers::Count;
            if counts || !is_removed(&state, found.publisher) {
                return true;
            }
            found.standing = MatchStanding::Review;
            setting == RemovedMembers::Review
        }
    }
}

pub(crate) fn is_removed(state: &State, member: MemberNumber) -> bool {
    let chain = state.chain.as_ref();
    let member = chain.and_then(|chain| chain.roster().member(member));
    member.is_some_and(|member| member.status == MemberStatus::Removed)
}
