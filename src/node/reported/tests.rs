//! What a hostile peer may say of quarantines, and how little of it is kept.

use super::*;

fn report(size: u64, lots: Vec<ReportedLot>) -> Report {
    let epoch = 0;
    Report { epoch, size, lots }
}

fn lot(leaves: u64, ranges: &[(u64, u64)]) -> ReportedLot {
    let ranges = ranges.iter();
    ReportedLot {
        reason: "low_quality".to_owned(),
        kind: 5,
        leaves,
        ranges: ranges
            .map(|(first, count)| IndexRange {
                first: *first,
                count: *count,
            })
            .collect(),
    }
}

/// So many lots, each of another kind, with so many ranges.
fn lots(count: usize, ranges: usize) -> Vec<ReportedLot> {
    let ranges: Vec<(u64, u64)> = (0..ranges).map(|n| (2 * n as u64, 1)).collect();
    let kinds = 1..=u32::try_from(count).unwrap();
    let lot = |kind| ReportedLot {
        kind,
        ..lot(9_999, &ranges)
    };
    kinds.map(lot).collect()
}

fn member(n: u32) -> MemberNumber {
    MemberNumber::new(n).unwrap()
}

fn node(name: &str) -> Slug {
    Slug::parse(name).unwrap()
}

fn feed(n: u32) -> FeedId {
    FeedId(hashpact_core::id::Digest::of(&n.to_be_bytes()))
}

impl Reported {
    fn says(&self, by: (u32, &str), of: u32, said: Vec<ReportedLot>) -> Result<(), Rejection> {
        let said = report(9_999, said);
        let by = (member(by.0), node(by.1));
        self.take(by, feed(of), said, UnixMillis(1))
    }

    fn words(&self, by: u32) -> usize {
        self.all().get(&member(by)).map_or(0, |of| of.words.len())
    }
}

#[test]
fn a_report_names_leaves_of_the_feed_in_order_and_no_more_than_it_counts() {
    let good = [(0, 2), (3, 1), (9, 1)];
    let other = ReportedLot {
        kind: 0,
        ..lot(7, &[])
    };
    report(10, vec![lot(4, &good), other]).check().unwrap();
    assert!(
        report(10, vec![lot(4, &good), lot(7, &[])])
            .check()
            .is_err()
    );
    for bad in [
        lot(3, &good),
        lot(11, &good),
        lot(0, &[]),
        lot(4, &[(9, 2)]),
        lot(4, &[(3, 1), (0, 2)]),
        lot(4, &[(0, 2), (2, 1)]),
        lot(4, &[(0, 0)]),
        lot(4, &[(u64::MAX, 2)]),
        ReportedLot {
            reason: "LOUD\n".to_owned(),
            ..lot(4, &good)
        },
        ReportedLot {
            reason: "a".repeat(REASON_MAX_BYTES + 1),
            ..lot(4, &good)
        },
        ReportedLot {
            reason: String::new(),
            ..lot(4, &good)
        },
    ] {
        assert!(report(10, vec![bad.clone()]).check().is_err(), "{bad:?}");
    }
    assert!(report(9_999, lots(LOTS_MAX, 16)).check().is_ok());
    assert!(report(9_999, lots(LOTS_MAX + 1, 0)).check().is_err());
    assert!(report(9_999, lots(1, RANGES_MAX + 1)).check().is_err());
}

// ⚠ Else whoever publishes guesses learns what is in sets that it may not read.
#[test]
fn nothing_is_told_of_what_is_in_sets_on_the_allow_list() {
    for reason in [Reason::AllowList, Reason::NearAllowed] {
        assert!(is_told(reason, false), "{reason:?} by files alone");
        assert!(!is_told(reason, true), "{reason:?}");
    }
    assert!(is_told(Reason::LowQuality, true));
    assert!(!is_told(Reason::DigestConflict, false));
}

// ⚠ A member has as many nodes and reads as many sets as it likes.
#[test]
fn what_one_member_says_is_bounded_over_all_its_nodes_and_takes_no_room_of_others() {
    let reported = Reported::default();
    let mut refused = 0;
    for n in 0..1_000 {
        let by = (1, if n % 2 == 0 { "one" } else { "two" });
        if let Err(rejection) = reported.says(by, n, lots(LOTS_MAX, 16)) {
            assert_eq!(rejection.code(), "rate_limited");
            refused += 1;
        }
    }
    assert_eq!(refused, 1_000 - MEMBER_LOTS_MAX / LOTS_MAX);
    {
        let all = reported.all();
        let of = &all[&member(1)];
        assert_eq!(of.lots, MEMBER_LOTS_MAX);
        let kept: usize = of.words.values().map(|kept| kept.report.ranges()).sum();
        assert_eq!((of.ranges, kept), (MEMBER_RANGES_MAX, MEMBER_RANGES_MAX));
    }
    reported.says((2, "one"), 1, lots(1, 1)).unwrap();
    // The same again, ten thousand times: the newest word in the place of the one before.
    for _ in 0..10_000 {
        reported.says((2, "one"), 1, lots(2, 3)).unwrap();
    }
    let all = reported.all();
    let of = &all[&member(2)];
    assert_eq!((of.words.len(), of.lots, of.ranges), (1, 2, 6));
}

#[test]
fn beyond_its_ranges_a_member_says_numbers_alone() {
    let reported = Reported::default();
    let each = MEMBER_RANGES_MAX / RANGES_MAX;
    for n in 0..=u32::try_from(each).unwrap() {
        reported.says((1, "one"), n, lots(1, RANGES_MAX)).unwrap();
    }
    let all = reported.all();
    let of = &all[&member(1)];
    assert_eq!(of.ranges, MEMBER_RANGES_MAX);
    let last = &of.words[&(feed(u32::try_from(each).unwrap()), node("one"))];
    assert_eq!(last.report.lots[0].leaves, 9_999);
    assert!(last.report.lots[0].ranges.is_empty());
}

#[test]
fn an_empty_word_ends_what_was_said_and_gives_its_room_back() {
    let reported = Reported::default();
    reported.says((1, "one"), 1, lots(2, 2)).unwrap();
    reported.says((1, "one"), 1, Vec::new()).unwrap();
    assert_eq!(reported.words(1), 0);
    let all = reported.all();
    assert_eq!((all[&member(1)].lots, all[&member(1)].ranges), (0, 0));
}

#[test]
fn what_a_node_does_not_say_again_when_it_begins_anew_is_over() {
    let reported = Reported::default();
    for (by, of) in [("one", 1), ("one", 2), ("two", 1)] {
        reported.says((1, by), of, lots(1, 1)).unwrap();
    }
    let one = node("one");
    reported.begin((member(1), &one));
    assert_eq!(reported.words(1), 3, "until it has said all");
    reported.says((1, "one"), 2, lots(1, 1)).unwrap();
    reported.said_all((member(1), &one));
    let all = reported.all();
    let kept: Vec<_> = all[&member(1)].words.keys().cloned().collect();
    let mut expected = vec![(feed(2), one), (feed(1), node("two"))];
    expected.sort();
    assert_eq!(kept, expected);
}

#[test]
fn who_may_not_read_a_set_any_more_has_said_nothing_of_it() {
    let reported = Reported::default();
    for (by, of) in [(1, 1), (1, 2), (2, 1)] {
        reported.says((by, "one"), of, lots(1, 1)).unwrap();
    }
    reported.forget(&|about, of, _| *about != feed(1) || of == member(2));
    assert_eq!((reported.words(1), reported.words(2)), (1, 1));
    reported.forget(&|about, _, name| *about != feed(2) || *name == node("two"));
    assert_eq!(reported.words(1), 0);
}

// ⚠ PROTOCOL 16.13b.
#[test]
fn a_publisher_is_not_told_what_others_say_nor_what_is_asked() {
    let silent = Reason::ALL
        .into_iter()
        .filter(|reason| !is_told(*reason, false));
    let silent: Vec<_> = silent.map(Reason::code).collect();
    assert_eq!(silent, ["stale_roster", "digest_conflict", "flood"]);
}
