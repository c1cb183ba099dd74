//! What a revocation makes of a feed: where it is cut off, and what goes on.
//!
//! A revocation names the last good size and root of a feed and opens its next
//! epoch, which must extend exactly that. What the revoked key signed beyond it is
//! void, also where it was stored in good faith.

use super::{Revocation, Roster};
use crate::id::{Digest, FeedId};
use crate::reject::Rejection;

/// What becomes of the leaves that are held of a feed when the roster has opened
/// epochs that they are not of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// No more is held than stands: it stays.
    Keep,
    /// The leaves below this size are the ones that the roster names; the others
    /// are void.
    CutTo(u64),
    /// What is held is another history than the roster names: none of it is known
    /// to stand.
    Other,
}

impl Opening {
    /// Decides for `stored` leaves whose root at a size `root_at` gives, against the
    /// revocations that opened later epochs, oldest first.
    ///
    /// The newest size that is held with the root that the roster names is where the
    /// feed is cut off: what is below it stands, whoever signed for it.
    ///
    /// # Errors
    /// What `root_at` answers.
    pub fn decide<E>(
        revocations: &[Revocation],
        stored: u64,
        mut root_at: impl FnMut(u64) -> Result<Digest, E>,
    ) -> Result<Self, E> {
        let mut reached = revocations
            .iter()
            .rev()
            .filter(|revocation| revocation.last_good_size <= stored)
            .peekable();
        if reached.peek().is_none() {
            return Ok(Self::Keep);
        }
        for revocation in reached {
            let size = revocation.last_good_size;
            if root_at(size)? == revocation.last_good_root {
                return Ok(Self::CutTo(size));
            }
        }
        Ok(Self::Other)
    }
}

impl Roster {
    /// The revocations that opened epochs of a feed after `epoch`, oldest first.
    #[must_use]
    pub fn opened_after(&self, feed: FeedId, epoch: u32) -> Vec<Revocation> {
        self.revocations_of(feed)
            .filter(|revocation| revocation.next_epoch > epoch)
            .cloned()
            .collect()
    }

    /// Checks that a head of an epoch can extend what the roster names: it has as
    /// many leaves at least, and of as many the very root. Whether a larger one
    /// does, its proofs say.
    ///
    /// # Errors
    /// [`Rejection::NotAnExtension`].
    pub fn check_epoch_head(
        &self,
        feed: FeedId,
        epoch: u32,
        (size, root): (u64, Digest),
    ) -> Result<(), Rejection> {
        let mut opened = self.revocations_of(feed).filter(|r| r.next_epoch <= epoch);
        let broken = opened.find(|revocation| {
            let good = revocation.last_good_size;
            size < good || (size == good && root != revocation.last_good_root)
        });
        match broken {
            None => Ok(()),
            Some(revocation) => Err(Rejection::NotAnExtension {
                held: revocation.last_good_size,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::SecretKey;

    const FEED: FeedId = FeedId(Digest([7; 32]));

    fn root(history: u8, size: u64) -> Digest {
        let mut root = [history; 32];
        root[..8].copy_from_slice(&size.to_be_bytes());
        Digest(root)
    }

    fn opening(next_epoch: u32, size: u64) -> Revocation {
        Revocation {
            feed: FEED,
            key: SecretKey::from_seed(&[3; 32]).public(),
            last_good_size: size,
            last_good_root: root(1, size),
            next_epoch,
        }
    }

    fn decide(openings: &[Revocation], history: u8, stored: u64) -> Opening {
        let held = |size| Ok::<_, ()>(root(if size <= 50 { 1 } else { history }, size));
        Opening::decide(openings, stored, held).unwrap()
    }

    #[test]
    fn a_feed_is_cut_off_exactly_where_the_roster_says() {
        let one = [opening(1, 100)];
        assert_eq!(decide(&one, 1, 99), Opening::Keep);
        assert_eq!(decide(&one, 1, 100), Opening::CutTo(100));
        assert_eq!(decide(&one, 1, 150), Opening::CutTo(100));
        assert_eq!(decide(&[], 1, 150), Opening::Keep);
    }

    #[test]
    fn another_history_than_the_named_one_is_not_taken_for_it() {
        assert_eq!(decide(&[opening(1, 100)], 2, 150), Opening::Other);
        // Too little is held to tell; the first pull of the epoch will.
        assert_eq!(decide(&[opening(1, 100)], 2, 99), Opening::Keep);
    }

    #[test]
    fn of_several_epochs_the_newest_size_held_with_its_root_counts() {
        let two = [opening(1, 50), opening(2, 100)];
        assert_eq!(decide(&two, 1, 150), Opening::CutTo(100));
        assert_eq!(decide(&two, 2, 150), Opening::CutTo(50));
        assert_eq!(decide(&two, 1, 80), Opening::CutTo(50));
        assert_eq!(decide(&two, 1, 30), Opening::Keep);
    }
}
