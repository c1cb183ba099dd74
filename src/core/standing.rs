//! Standing: what all feeds together say about an entry or a signal.
//!
//! Pure functions of live leaves: no order between feeds, no clocks of ours. Of
//! the opinions in one feed about one subject the last word counts; negative
//! together with positive is *disputed*; a retraction takes an entry out. What
//! this node makes of a standing is its policy's, not this module's.
//!
//! A mass retraction without the publisher's identity key takes nothing out: its
//! entries are held for review until the key speaks, so that a stolen feed key
//! does not disarm everybody.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use crate::id::FeedId;
use crate::keys::{Identity, PublicKey};
use crate::leaf::{IndexRange, Opinion, Retract, RetractReason, Stance, Subject};
use crate::limits::{DAY_MS, RETRACT_FREE_PER_DAY};
use crate::reject::Rejection;

/// What all feeds together say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Standing {
    /// Said by its publisher; nobody contradicts.
    Active,
    /// Some members say yes, some no.
    Disputed,
    /// In doubt for reasons that are not an opinion: to be reviewed, not enforced.
    Review,
    /// Withdrawn by its publisher.
    Retracted,
}

/// What its own feed says of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EntryState {
    /// Its last version is alive.
    Live,
    /// Withdrawn by a retraction that is part of a mass retraction, which the
    /// identity key has not signed.
    HeldForReview,
    /// Withdrawn.
    Retracted,
}

/// An opinion that is alive in its feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LiveOpinion<'a> {
    /// The opinions feed.
    pub feed: FeedId,
    /// The leaf's index in it.
    pub index: u64,
    /// What it says.
    pub opinion: &'a Opinion,
}

/// How many opinions feeds take each stance.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stances {
    /// It is what the publisher says.
    pub positive: u64,
    /// Worth investigating.
    pub seed: u64,
    /// It is not what the publisher says.
    pub negative: u64,
}

impl Stances {
    /// Counts, of opinions that are all about one subject, the last word of each feed.
    pub fn count<'a>(opinions: impl IntoIterator<Item = LiveOpinion<'a>>) -> Self {
        let mut stances = Self::default();
        for (_, opinion) in last_words(opinions).values() {
            let count = match opinion.stance {
                Stance::Positive => &mut stances.positive,
                Stance::Seed => &mut stances.seed,
                Stance::Negative => &mut stances.negative,
            };
            *count = count.saturating_add(1);
        }
        stances
    }
}

/// The last word of each opinions feed, with its index.
fn last_words<'a>(
    opinions: impl IntoIterator<Item = LiveOpinion<'a>>,
) -> BTreeMap<FeedId, (u64, &'a Opinion)> {
    let mut last: BTreeMap<FeedId, (u64, &Opinion)> = BTreeMap::new();
    for live in opinions {
        let said = (live.index, live.opinion);
        let word = last.entry(live.feed).or_insert(said);
        if word.0 < live.index {
            *word = said;
        }
    }
    last
}

/// The standing of one entry, named by its feed and first index, from what its
/// own feed says and all live opinions; those about other subjects are left out.
///
/// With `kind`, the standing of that kind of signal of it: opinions about the
/// kind count beside those about the whole entry, and of one feed the one about
/// the kind. Without it, opinions about one kind do not count.
pub fn of_entry<'a>(
    (feed, first): (FeedId, u64),
    kind: Option<u32>,
    state: EntryState,
    opinions: impl IntoIterator<Item = LiveOpinion<'a>>,
) -> Standing {
    match state {
        EntryState::Retracted => return Standing::Retracted,
        EntryState::HeldForReview => return Standing::Review,
        EntryState::Live => {}
    }
    // The publisher's entry itself is a positive.
    let words = words((feed, first), kind, opinions);
    if Stances::count(words).negative > 0 {
        Standing::Disputed
    } else {
        Standing::Active
    }
}

/// The opinions that count for an entry, one of each feed: for a `kind` of its signals,
/// or without one for the whole, by the rule of [`of_entry`]. In the order of feeds.
pub fn words<'a>(
    (feed, first): (FeedId, u64),
    kind: Option<u32>,
    opinions: impl IntoIterator<Item = LiveOpinion<'a>>,
) -> Vec<LiveOpinion<'a>> {
    let mut whole = Vec::new();
    let mut of_kind = Vec::new();
    for live in opinions {
        match live.opinion.subject {
            Subject::Entry {
                feed: f,
                first: i,
                kind: k,
            } if (f, i) == (feed, first) => match k {
                None => whole.push(live),
                Some(_) if k == kind => of_kind.push(live),
                Some(_) => {}
            },
            Subject::Entry { .. } | Subject::OwnSignal(_) => {}
        }
    }
    let mut words = last_words(whole);
    words.extend(last_words(of_kind));
    let words = words.into_iter();
    words
        .map(|(feed, (index, opinion))| LiveOpinion {
            feed,
            index,
            opinion,
        })
        .collect()
}

/// The standing of an entry for one of its signals, given the live opinions about that
/// very signal, each by a member that publishes the signal itself: a negative one
/// disputes it wherever it is met.
pub fn for_signal<'a>(
    entry: Standing,
    opinions: impl IntoIterator<Item = LiveOpinion<'a>>,
) -> Standing {
    match entry {
        Standing::Active if Stances::count(opinions).negative > 0 => Standing::Disputed,
        Standing::Active | Standing::Disputed | Standing::Review | Standing::Retracted => entry,
    }
}

/// The standing of a signal from those of the entries that carry it; none where
/// no entry does. An entry that was withdrawn counts only if all were.
pub fn of_signal(entries: impl IntoIterator<Item = Standing>) -> Option<Standing> {
    let mut seen = [false; 4];
    for standing in entries {
        let [active, disputed, review, retracted] = &mut seen;
        match standing {
            Standing::Active => *active = true,
            Standing::Disputed => *disputed = true,
            Standing::Review => *review = true,
            Standing::Retracted => *retracted = true,
        }
    }
    match seen {
        // Nobody's doubt about another entry is taken away by agreement on one.
        [_, true, _, _] => Some(Standing::Disputed),
        [true, false, _, _] => Some(Standing::Active),
        [false, false, true, _] => Some(Standing::Review),
        [false, false, false, true] => Some(Standing::Retracted),
        [false, false, false, false] => None,
    }
}

/// A retract or erase leaf, as the rule on mass retractions sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retraction {
    /// The leaf's index.
    pub index: u64,
    /// When, by the publisher's clock in the leaf.
    pub created_ms: u64,
    /// How many entries it takes out that were alive before it.
    pub entries: u64,
    /// Entries of the set that were alive before it.
    pub set_entries: u64,
    /// Whether the publisher's identity key signed it.
    pub signed: bool,
}

/// The retractions of one feed whose entries are held for review, by their index.
///
/// Those without the identity key's signature are taken together with all such
/// ones up to 24 hours before, and count as a mass retraction when they take out
/// more entries than the larger of 100 and one per cent of the set as it was
/// before the first of them. Then every one of them is held, the small ones
/// before the limit too. Times are those in the leaves, made to never go back, so
/// that a thief with a feed key cannot spread a mass over invented days backwards;
/// nodes that see such leaves arrive faster than their times say pass the time of
/// arrival where that is later.
#[must_use]
pub fn held_for_review(retractions: &[Retraction]) -> Vec<u64> {
    let mut unsigned: Vec<Retraction> = retractions.iter().copied().filter(|r| !r.signed).collect();
    unsigned.sort_unstable_by_key(|retraction| retraction.index);
    let mut latest = 0;
    for retraction in &mut unsigned {
        latest = latest.max(retraction.created_ms);
        retraction.created_ms = latest;
    }
    let mut held: Vec<u64> = Vec::new();
    // The window is unsigned[begin..=at]; what is before `marked` was decided. Each
    // retraction enters and leaves once, however many there are.
    let (mut begin, mut marked, mut entries) = (0_usize, 0_usize, 0_u128);
    for (at, last) in unsigned.iter().enumerate() {
        entries = entries.saturating_add(u128::from(last.entries));
        let is_before = |r: &&Retraction| last.created_ms.saturating_sub(r.created_ms) >= DAY_MS;
        while let Some(first) = unsigned.get(begin).filter(is_before) {
            entries = entries.saturating_sub(u128::from(first.entries));
            begin = begin.saturating_add(1);
        }
        let set = unsigned.get(begin).map_or(0, |first| first.set_entries);
        if entries > u128::from(RETRACT_FREE_PER_DAY.max(set / 100)) {
            let new = unsigned.get(begin.max(marked)..=at).unwrap_or_default();
            held.extend(new.iter().map(|retraction| retraction.index));
            marked = at.saturating_add(1);
        }
    }
    held
}

/// The bytes that the publisher's identity key signs for a mass retraction:
/// `hashpact mass retraction v1\n`, then the SHA-256 over the feed id, the
/// reason's number, whether to recheck (one byte each), the time in milliseconds,
/// the count of ranges, and each range's first index and count (eight bytes each,
/// big-endian). They name the feed, so that no other one can show the signature.
#[must_use]
pub fn retraction_signing_bytes(feed: &FeedId, retract: &Retract) -> Vec<u8> {
    let mut hasher = Sha256::new();
    hasher.update(feed.as_bytes());
    hasher.update([reason_number(retract.reason), u8::from(retract.recheck)]);
    hasher.update(retract.created.0.to_be_bytes());
    hasher.update(
        u64::try_from(retract.indexes.len())
            .unwrap_or(u64::MAX)
            .to_be_bytes(),
    );
    for IndexRange { first, count } in &retract.indexes {
        hasher.update(first.to_be_bytes());
        hasher.update(count.to_be_bytes());
    }
    let mut bytes = b"hashpact mass retraction v1\n".to_vec();
    bytes.extend_from_slice(&hasher.finalize());
    bytes
}

/// Checks the identity key's signature of a retraction.
///
/// # Errors
/// [`Rejection::BadSignature`] when there is none or it does not verify.
pub fn verify_retraction(
    feed: &FeedId,
    retract: &Retract,
    identity: &PublicKey<Identity>,
) -> Result<(), Rejection> {
    let missing = || Rejection::BadSignature {
        what: "retraction",
        why: "no signature of the identity key".to_owned(),
    };
    let signature = retract.identity_signature.ok_or_else(missing)?;
    let bytes = retraction_signing_bytes(feed, retract);
    Ok(identity.verify(&bytes, &signature)?)
}

/// The numbers of the protocol.
const fn reason_number(reason: RetractReason) -> u8 {
    match reason {
        RetractReason::Wrong => 1,
        RetractReason::Duplicate => 2,
        RetractReason::SourceWithdrew => 3,
        RetractReason::Legal => 4,
        RetractReason::Other => 5,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::{Digest, UnixMillis};
    use crate::keys::SecretKey;
    use crate::signal::{Signal, SignalKind};

    fn feed(number: u8) -> FeedId {
        FeedId(Digest([number; 32]))
    }

    const ENTRY: (u8, u64) = (1, 7);

    fn opinion(stance: Stance, kind: Option<u32>) -> Opinion {
        Opinion {
            subject: Subject::Entry {
                feed: feed(ENTRY.0),
                first: ENTRY.1,
                kind,
            },
            stance,
            confidence: 100,
            reason_id: 0,
            note: String::new(),
            replaces: Vec::new(),
            created: UnixMillis(1),
        }
    }

    fn standing(kind: Option<u32>, state: EntryState, said: &[(u8, u64, Opinion)]) -> Standing {
        let live = said.iter().map(|(number, index, opinion)| LiveOpinion {
            feed: feed(*number),
            index: *index,
            opinion,
        });
        of_entry((feed(ENTRY.0), ENTRY.1), kind, state, live)
    }

    #[test]
    fn a_negative_opinion_disputes_and_the_last_word_counts() {
        let no = (9, 3, opinion(Stance::Negative, None));
        let yes = (9, 4, opinion(Stance::Positive, None));
        let other = (8, 1, opinion(Stance::Positive, None));
        let live = EntryState::Live;
        assert_eq!(standing(None, live, &[]), Standing::Active);
        assert_eq!(
            standing(None, live, &[no.clone(), other]),
            Standing::Disputed
        );
        assert_eq!(standing(None, live, &[yes, no]), Standing::Active);
    }

    #[test]
    fn what_the_publisher_withdraws_is_out_whatever_others_say() {
        let yes = [(9, 4, opinion(Stance::Positive, None))];
        assert_eq!(
            standing(None, EntryState::Retracted, &yes),
            Standing::Retracted
        );
        assert_eq!(
            standing(None, EntryState::HeldForReview, &yes),
            Standing::Review
        );
    }

    #[test]
    fn an_opinion_about_one_kind_of_signal_is_about_no_other() {
        let no = [(9, 4, opinion(Stance::Negative, Some(5)))];
        let live = EntryState::Live;
        assert_eq!(standing(None, live, &no), Standing::Active);
        assert_eq!(standing(Some(1), live, &no), Standing::Active);
        assert_eq!(standing(Some(5), live, &no), Standing::Disputed);
        // The narrower word of one feed stands, though the wider one came later.
        let both = [
            (9, 4, opinion(Stance::Positive, Some(5))),
            (9, 5, opinion(Stance::Negative, None)),
        ];
        assert_eq!(standing(Some(5), live, &both), Standing::Active);
        assert_eq!(standing(None, live, &both), Standing::Disputed);
    }

    #[test]
    fn a_word_about_the_signal_disputes_what_is_met_by_it() {
        let said = |stance| Opinion {
            subject: Subject::OwnSignal(
                Signal::new(SignalKind::Md5, vec![7; 16].into(), None).unwrap(),
            ),
            ..opinion(stance, None)
        };
        let met = |standing, stance| {
            let opinion = said(stance);
            let live = LiveOpinion {
                feed: feed(9),
                index: 1,
                opinion: &opinion,
            };
            // By itself it is about no entry.
            assert!(words((feed(1), 7), None, [live]).is_empty());
            for_signal(standing, [live])
        };
        assert_eq!(met(Standing::Active, Stance::Negative), Standing::Disputed);
        assert_eq!(met(Standing::Active, Stance::Seed), Standing::Active);
        for standing in [Standing::Review, Standing::Retracted] {
            assert_eq!(met(standing, Stance::Negative), standing);
        }
    }

    #[test]
    fn a_signal_stands_as_its_live_entries_do() {
        use Standing::{Active, Disputed, Retracted, Review};
        assert_eq!(of_signal([]), None);
        assert_eq!(of_signal([Retracted, Active]), Some(Active));
        assert_eq!(of_signal([Retracted, Review]), Some(Review));
        assert_eq!(of_signal([Active, Disputed]), Some(Disputed));
        assert_eq!(of_signal([Retracted, Retracted]), Some(Retracted));
    }

    fn retraction(index: u64, hours: u64, entries: u64) -> Retraction {
        Retraction {
            index,
            created_ms: hours * 3_600_000,
            entries,
            set_entries: 50_000,
            signed: false,
        }
    }

    #[test]
    fn a_mass_retraction_is_held_until_the_identity_key_signs() {
        // One per cent of 50,000 is 500.
        assert!(held_for_review(&[retraction(1, 0, 500)]).is_empty());
        assert_eq!(held_for_review(&[retraction(1, 0, 501)]), [1]);
        let signed = Retraction {
            signed: true,
            ..retraction(1, 0, 501)
        };
        assert!(held_for_review(&[signed]).is_empty());
        let small_set = |entries| Retraction {
            set_entries: 200,
            ..retraction(1, 0, entries)
        };
        assert!(held_for_review(&[small_set(100)]).is_empty());
        assert_eq!(held_for_review(&[small_set(101)]), [1]);
    }

    #[test]
    fn many_small_retractions_within_a_day_are_one_mass() {
        let split = [retraction(1, 0, 300), retraction(2, 23, 201)];
        assert_eq!(held_for_review(&split), [1, 2]);
        let apart = [retraction(1, 0, 300), retraction(2, 24, 201)];
        assert!(held_for_review(&apart).is_empty());
        // Two windows that overlap hold what is in either.
        let three = [
            retraction(1, 0, 100),
            retraction(2, 20, 300),
            retraction(3, 40, 201),
        ];
        assert_eq!(held_for_review(&three), [2, 3]);
    }

    #[test]
    fn times_that_go_back_do_not_spread_a_mass() {
        let back = [retraction(1, 100, 300), retraction(2, 10, 201)];
        assert_eq!(held_for_review(&back), [1, 2]);
    }

    fn retract() -> Retract {
        Retract {
            indexes: vec![IndexRange { first: 1, count: 9 }],
            reason: RetractReason::Wrong,
            note: String::new(),
            recheck: true,
            created: UnixMillis(5),
            identity_signature: None,
        }
    }

    #[test]
    fn the_identity_signature_is_over_feed_ranges_reason_and_time() {
        let key = SecretKey::<Identity>::from_seed(&[3; 32]);
        let mut good = retract();
        let bytes = retraction_signing_bytes(&feed(1), &good);
        good.identity_signature = Some(key.sign(&bytes));
        let check = |feed_no, retract: &Retract| {
            verify_retraction(&feed(feed_no), retract, &key.public()).is_ok()
        };
        assert!(check(1, &good));
        assert!(!check(2, &good));
        assert!(!check(1, &retract()));
        let changes: [fn(&mut Retract); 5] = [
            |r| r.indexes[0].count = 10,
            |r| {
                r.indexes.push(IndexRange {
                    first: 90,
                    count: 1,
                });
            },
            |r| r.reason = RetractReason::Other,
            |r| r.recheck = false,
            |r| r.created = UnixMillis(6),
        ];
        for change in changes {
            let mut other = good.clone();
            change(&mut other);
            assert!(!check(1, &other));
        }
    }

    proptest! {
        #[test]
        fn no_order_of_arrival_changes_a_standing(
            said in prop::collection::btree_map((0..4_u8, 0..5_u64), (0..3_u8, prop::option::of(4..6_u32)), 0..10),
            shuffle in any::<u64>(),
        ) {
            let said: Vec<(u8, u64, Opinion)> = said
                .into_iter()
                .map(|((feed, index), (stance, kind))| {
                    let stances = [Stance::Positive, Stance::Seed, Stance::Negative];
                    (feed, index, opinion(stances[usize::from(stance)], kind))
                })
                .collect();
            let mut shuffled = said.clone();
            shuffled.sort_by_key(|(feed, index, _)| {
                Digest::of(&[&shuffle.to_be_bytes()[..], &[*feed], &index.to_be_bytes()].concat())
            });
            for kind in [None, Some(4), Some(5)] {
                prop_assert_eq!(
                    standing(kind, EntryState::Live, &said),
                    standing(kind, EntryState::Live, &shuffled)
                );
            }
        }

        #[test]
        fn nothing_is_held_below_the_limit_and_signing_lifts_it(
            sizes in prop::collection::vec((0..60_u64, 0..300_u64), 0..12),
        ) {
            let mut retractions: Vec<Retraction> = Vec::new();
            for (number, (hours, entries)) in (1..).zip(sizes) {
                retractions.push(retraction(number, hours, entries));
            }
            let held = held_for_review(&retractions);
            let total: u64 = retractions.iter().map(|r| r.entries).sum();
            prop_assert!(total > 500 || held.is_empty());
            for retraction in &mut retractions {
                retraction.signed |= held.contains(&retraction.index);
            }
            prop_assert!(held_for_review(&retractions).is_empty());
        }
    }
}
