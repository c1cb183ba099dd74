//! Classifications of which only one can be true of a file.
//!
//! A table of schemes, kept narrow: people who look at one picture often differ by one
//! step (A1 and A2, A1 and B1), and such differences say nothing of either. What no
//! table names, and what stands in two schemes, excludes nothing.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::MemberNumber;

/// Whether two classifications, written `scheme:value`, cannot both be true.
///
/// * `tc` (Tech Coalition): A1 and B2, A2 and B1, which differ in the age group and in
///   the act.
/// * `iwf`: A and C, the gravest and the least grave.
/// * `vics`, `vics-COUNTRY`: 0, which is nothing pertinent, and any other.
#[must_use]
pub fn exclude_each_other(a: &str, b: &str) -> bool {
    let (Some((scheme, a)), Some((other, b))) = (a.split_once(':'), b.split_once(':')) else {
        return false;
    };
    if scheme != other {
        return false;
    }
    let either = |x: &str, y: &str| (a == x && b == y) || (a == y && b == x);
    match scheme {
        "tc" => either("A1", "B2") || either("A2", "B1"),
        "iwf" => either("A", "C"),
        scheme if scheme == "vics" || scheme.starts_with("vics-") => (a == "0") != (b == "0"),
        _ => false,
    }
}

/// Who classifies a signal, and how.
#[derive(Debug, Clone, Copy)]
pub struct Classed<'c> {
    /// The publisher.
    pub member: MemberNumber,
    /// With its scheme; empty for none.
    pub classification: &'c str,
}

/// What stands against one classification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conflict {
    /// Other members who say what excludes it.
    pub members: u64,
    /// Whether its own publisher says so as well.
    pub by_itself: bool,
}

/// What stands against each of the entries that carry one signal: what at least as many
/// members say as say the same as it. ⚠ So one member cannot make doubtful what two say,
/// and of two neither is right; what that does is for a policy to say.
#[must_use]
pub fn in_conflict(said: &[Classed<'_>]) -> Vec<Option<Conflict>> {
    let mut members: BTreeMap<&str, BTreeSet<MemberNumber>> = BTreeMap::new();
    for one in said {
        let of = members.entry(one.classification).or_default();
        of.insert(one.member);
    }
    let one = |one: &Classed<'_>| {
        let own = members.get(one.classification).map_or(0, BTreeSet::len);
        let against = members
            .iter()
            .filter(|(class, of)| exclude_each_other(one.classification, class) && of.len() >= own);
        let against: BTreeSet<MemberNumber> =
            against.flat_map(|(_, of)| of.iter().copied()).collect();
        let by_itself = against.contains(&one.member);
        let others = against.len().saturating_sub(usize::from(by_itself));
        (!against.is_empty()).then(|| Conflict {
            members: u64::try_from(others).unwrap_or(u64::MAX),
            by_itself,
        })
    };
    said.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_what_cannot_both_be_true_excludes_each_other() {
        let both = |a, b| {
            assert_eq!(exclude_each_other(a, b), exclude_each_other(b, a));
            exclude_each_other(a, b)
        };
        assert!(both("tc:A1", "tc:B2") && both("tc:A2", "tc:B1"));
        assert!(both("vics-us:0", "vics-us:1") && both("vics:2", "vics:0"));
        assert!(both("iwf:A", "iwf:C"));
        for (a, b) in [
            ("tc:A1", "tc:A2"),
            ("tc:A1", "tc:B1"),
            ("tc:A1", "tc:A1"),
            ("tc:A1", "own:B2"),
            ("own:A1", "own:B2"),
            ("A1", "B2"),
            ("vics-us:1", "vics-us:2"),
            ("vics-us:0", "vics-gb:1"),
            ("iwf:A", "iwf:B"),
            ("", ""),
        ] {
            assert!(!both(a, b), "{a} {b}");
        }
    }

    fn classed(said: &[(u32, &'static str)]) -> Vec<bool> {
        conflicts(said).iter().map(Option::is_some).collect()
    }

    fn conflicts(said: &[(u32, &'static str)]) -> Vec<Option<Conflict>> {
        let one = |(member, classification): &(u32, &'static str)| Classed {
            member: MemberNumber::new(*member).unwrap(),
            classification,
        };
        in_conflict(&said.iter().map(one).collect::<Vec<_>>())
    }

    #[test]
    fn one_member_makes_no_two_doubtful_and_of_two_neither_is_right() {
        let (a1, b2) = ("tc:A1", "tc:B2");
        assert_eq!(classed(&[(1, a1), (2, b2)]), [true, true]);
        assert_eq!(classed(&[(1, a1), (2, a1), (3, b2)]), [false, false, true]);
        let twice = [(1, a1), (2, b2), (2, b2)];
        assert_eq!(classed(&twice), [true, true, true], "nobody counts twice");
        assert_eq!(classed(&[(1, a1), (2, "tc:A2")]), [false, false]);
        let both = [(1, a1), (1, b2), (2, b2)];
        let against = |members, by_itself| Some(Conflict { members, by_itself });
        assert_eq!(conflicts(&both), [against(1, true), None, None]);
    }

    proptest! {
        #[test]
        fn no_order_counts_and_the_larger_side_is_never_doubtful(
            said in prop::collection::vec((1..6_u32, prop::sample::select(vec![
                "tc:A1", "tc:A2", "tc:B1", "tc:B2", "", "vics:0", "vics:1",
            ])), 0..8),
        ) {
            let forth = classed(&said);
            let mut turned = said.clone();
            turned.reverse();
            let mut back = classed(&turned);
            back.reverse();
            prop_assert_eq!(&forth, &back);
            // Where a class is doubtful somebody excludes it.
            for (doubtful, (_, class)) in forth.iter().zip(&said) {
                let excluded = said.iter().any(|(_, other)| exclude_each_other(class, other));
                prop_assert!(!doubtful || excluded);
            }
        }
    }
}
