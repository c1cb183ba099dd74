//! What cosignatures say together of a feed: who stands at which size since when,
//! whether enough do, and whether their word is fresh.
//!
//! A pure function of the witnesses that the roster names and of what each said last;
//! the caller verified the cosignatures, and that the feed's tree, as it is held, has
//! the roots that they are about.

use std::collections::BTreeMap;

use crate::id::{MemberNumber, UnixMillis};
use crate::roster::{Role, Roster};

/// Without a cosignature for so long a feed is STALE.
pub const FRESH_MS: u64 = 30 * 60 * 1_000;
/// Witnesses below which forks are found but not prevented.
pub const PREVENTION_MIN: usize = 4;

/// How many of `witnesses` make a quorum: 1 + ⌊2w/3⌋, or what the roster says. Two
/// heads that do not merge cannot both have so many unless a third of them cheat.
/// `None` where there are no witnesses.
#[must_use]
pub fn threshold(witnesses: usize, of_roster: u32) -> Option<usize> {
    if witnesses == 0 {
        return None;
    }
    let own = usize::try_from(of_roster).unwrap_or(usize::MAX);
    let two_thirds = witnesses.saturating_mul(2).checked_div(3).unwrap_or(0);
    Some(if own > 0 {
        own
    } else {
        two_thirds.saturating_add(1)
    })
}

/// The witnesses of a member's feeds by a roster: the active members with the role, but
/// for itself. ⚠ Who is suspended by one administrator still counts: else one could lower
/// the threshold.
pub fn bench(roster: &Roster, publisher: MemberNumber) -> impl Iterator<Item = MemberNumber> + '_ {
    let active = roster.active_with(Role::Witness).map(|m| m.number);
    active.filter(move |number| *number != publisher)
}

/// Whether so many of so many witnesses cannot stand behind two histories unless a third
/// of them lie. Else a fork is found by readers who compare heads, and not prevented:
/// with few witnesses, and where the roster names fewer than [`threshold`] would.
#[must_use]
pub fn prevents(witnesses: usize, needed: usize) -> bool {
    witnesses >= PREVENTION_MIN && threshold(witnesses, 0).is_some_and(|own| needed >= own)
}

/// What one cosignature says, of a head of the epoch that is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Said {
    /// The witness.
    pub witness: MemberNumber,
    /// The size that it cosigned.
    pub size: u64,
    /// When, by its clock.
    pub at: UnixMillis,
    /// Since when it may have stood there: when that state became known.
    pub since: UnixMillis,
}

/// Where one witness stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stand {
    /// The largest size that it cosigned.
    pub size: u64,
    /// When it said so last.
    pub at: UnixMillis,
    /// Since when it stands there, as far as is known.
    pub since: UnixMillis,
    /// Whether that is fresh.
    pub fresh: bool,
}

/// Where a feed stands with its witnesses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    /// Every active witness, with where it stands; `None` has said nothing.
    pub witnesses: BTreeMap<MemberNumber, Option<Stand>>,
    /// How many make a quorum; `None` where there are no witnesses.
    pub threshold: Option<usize>,
    /// The largest size that a quorum has cosigned, or more; `None` for none.
    pub quorum: Option<u64>,
    /// When the quorum for that size was complete, by what each of its members said
    /// last. 0 without one.
    pub quorum_at: UnixMillis,
    /// When any witness spoke last; `None` where none ever has.
    pub last: Option<UnixMillis>,
    /// No witness has spoken for [`FRESH_MS`]. Never where there are none.
    pub stale: bool,
}

impl Judged {
    /// Whether a quorum prevents forks, as [`prevents`] says.
    #[must_use]
    pub fn prevents(&self) -> bool {
        prevents(self.witnesses.len(), self.threshold.unwrap_or(0))
    }

    /// Whether a quorum has cosigned a head of this size, or a larger one.
    #[must_use]
    pub fn reached(&self, size: u64) -> bool {
        self.quorum.is_some_and(|quorum| quorum >= size)
    }

    /// How many witnesses have spoken lately.
    #[must_use]
    pub fn fresh(&self) -> usize {
        let stands = self.witnesses.values().flatten();
        stands.filter(|stand| stand.fresh).count()
    }
}

/// Judges a feed. `witnesses` are the members that the roster in force names for it,
/// `since` is the moment from which on they could have spoken: before, silence is no
/// sign. Times of the future count as `now`.
#[must_use]
pub fn judge(
    witnesses: impl IntoIterator<Item = MemberNumber>,
    threshold: Option<usize>,
    said: impl IntoIterator<Item = Said>,
    since: UnixMillis,
    now: UnixMillis,
) -> Judged {
    let mut stands: BTreeMap<MemberNumber, Option<Stand>> = witnesses
        .into_iter()
        .map(|witness| (witness, None))
        .collect();
    for said in said {
        let Some(stand) = stands.get_mut(&said.witness) else {
            continue;
        };
        let at = said.at.min(now);
        let later = stand.is_none_or(|held| (held.size, held.at) < (said.size, at));
        let fresh = now.since(at) <= FRESH_MS;
        if later {
            // What it said of a smaller head, later, is as fresh.
            let fresh = fresh || stand.is_some_and(|held| held.fresh);
            *stand = Some(Stand {
                size: said.size,
                at,
                since: said.since.min(at),
                fresh,
            });
        } else if let Some(held) = stand {
            held.fresh |= fresh;
        }
    }
    let last = stands.values().flatten().map(|stand| stand.at).max();
    let mut sizes: Vec<(u64, UnixMillis)> = stands
        .values()
        .flatten()
        .map(|stand| (stand.size, stand.at))
        .collect();
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    let place = threshold.and_then(|threshold| threshold.checked_sub(1));
    let quorum = place.and_then(|place| sizes.get(place)).map(|at| at.0);
    let mut of_quorum: Vec<UnixMillis> = sizes
        .iter()
        .filter(|(size, _)| quorum.is_some_and(|quorum| *size >= quorum))
        .map(|(_, at)| *at)
        .collect();
    of_quorum.sort_unstable_by(|a, b| b.cmp(a));
    let quorum_at = place.and_then(|place| of_quorum.get(place)).copied();
    let spoke = last.unwrap_or(since).max(since);
    Judged {
        stale: threshold.is_some() && now.since(spoke) > FRESH_MS,
        witnesses: stands,
        threshold,
        quorum,
        quorum_at: quorum_at.unwrap_or_default(),
        last,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_790_000_000_000);

    fn member(n: u32) -> MemberNumber {
        MemberNumber::new(n).unwrap()
    }

    fn said(witness: u32, size: u64, ago_ms: u64) -> Said {
        Said {
            witness: member(witness),
            size,
            at: UnixMillis(NOW.0 - ago_ms),
            since: UnixMillis(0),
        }
    }

    fn of(w: u32, said: &[Said]) -> Judged {
        let witnesses = (1..=w).map(member);
        let threshold = threshold(w.try_into().unwrap(), 0);
        judge(witnesses, threshold, said.to_vec(), UnixMillis(0), NOW)
    }

    #[test]
    fn a_quorum_is_more_than_two_thirds_or_what_the_roster_says() {
        let of = |w| threshold(w, 0).unwrap();
        let all: Vec<usize> = (1..=10).map(of).collect();
        assert_eq!(all, [1, 2, 3, 3, 4, 5, 5, 6, 7, 7]);
        assert_eq!(threshold(0, 3), None);
        assert_eq!(threshold(4, 2), Some(2));
    }

    #[test]
    fn few_witnesses_or_a_low_threshold_prevent_nothing() {
        for w in 0..4 {
            assert!(!prevents(w, w), "{w} witnesses");
        }
        assert!(prevents(4, 3) && prevents(4, 4) && prevents(7, 5));
        assert!(!prevents(4, 2) && !prevents(7, 4) && !prevents(4, 0));
    }

    #[test]
    fn two_quorums_share_more_than_a_third_of_the_witnesses() {
        for w in 1..200_usize {
            let shared = 2 * threshold(w, 0).unwrap() - w;
            assert!(3 * shared > w, "{w} witnesses");
        }
    }

    #[test]
    fn the_quorum_is_the_largest_size_that_enough_have_cosigned() {
        let few = [said(1, 100, 0), said(2, 90, 0)];
        assert_eq!(of(4, &few).quorum, None);
        let enough = [said(1, 100, 0), said(2, 90, 0), said(3, 80, 0)];
        let judged = of(4, &enough);
        assert_eq!(judged.quorum, Some(80));
        assert!(judged.reached(80) && judged.reached(10) && !judged.reached(81));
        assert_eq!(judged.witnesses[&member(4)], None);
    }

    #[test]
    fn a_witness_counts_once_by_the_largest_size_and_a_stranger_not_at_all() {
        let same = [
            said(1, 100, 0),
            said(1, 90, 0),
            said(1, 80, 0),
            said(9, 100, 0),
        ];
        let judged = of(4, &same);
        assert_eq!(judged.quorum, None);
        assert_eq!(judged.witnesses.len(), 4);
        assert_eq!(judged.witnesses[&member(1)].unwrap().size, 100);
    }

    #[test]
    fn a_feed_is_stale_when_no_witness_has_spoken_for_half_an_hour() {
        assert!(!of(4, &[said(1, 5, FRESH_MS)]).stale);
        assert!(of(4, &[said(1, 5, FRESH_MS + 1), said(2, 9, FRESH_MS + 7)]).stale);
        assert!(of(4, &[]).stale);
        let new = judge([member(1)], Some(1), [], NOW, NOW);
        assert!(!new.stale, "nobody could have spoken yet");
        assert!(!of(0, &[]).stale, "there is nobody to speak");
    }

    #[test]
    fn a_time_of_the_future_is_fresh_no_longer_than_one_of_now() {
        let judged = of(
            1,
            &[Said {
                at: NOW.plus(FRESH_MS),
                ..said(1, 5, 0)
            }],
        );
        assert_eq!(judged.last, Some(NOW));
    }

    #[test]
    fn the_quorum_is_as_old_as_the_word_that_completes_it() {
        let judged = of(4, &[said(1, 9, 50), said(2, 9, 30), said(3, 9, 10)]);
        assert_eq!((judged.quorum, judged.quorum_at.0), (Some(9), NOW.0 - 50));
        let more = of(
            4,
            &[
                said(1, 9, 50),
                said(2, 9, 30),
                said(3, 9, 10),
                said(4, 9, 1),
            ],
        );
        assert_eq!(more.quorum_at.0, NOW.0 - 30);
        assert_eq!(more.fresh(), 4);
    }
}
