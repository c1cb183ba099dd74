//! Opinions of others: hostile ones, many, those of removed members; and lists of all.

use super::*;
use crate::removed::RemovedMembers;

#[test]
fn a_hostile_word_on_somebody_elses_signal_counts_for_nothing() {
    let scene = Scene::of(&["north", "harbor"]);
    let node = with_entries(&scene);
    let leaf = opinion(
        Subject::OwnSignal(sha256_of(3)),
        Stance::Negative,
        Vec::new(),
    );
    foreign(&node, b"harbor/opinions", &[leaf]);
    let met = found(&node, 3);
    assert_eq!(met.standing, MatchStanding::Active);
    assert!(met.opinions.told.is_empty());
    // It is listed, as one that does not count; and what it names matches nothing by it.
    let listed = node.list_opinions(&Which::All, None, 10).unwrap().opinions;
    assert_eq!((listed.len(), listed[0].counts), (1, false));
    let unknown = opinion(
        Subject::OwnSignal(sha256_of(77)),
        Stance::Positive,
        Vec::new(),
    );
    foreign(&node, b"harbor/opinions", &[unknown]);
    assert_eq!(hits(&node, 77), 0);
}

#[test]
fn a_flood_of_feeds_drowns_nobody() {
    let scene = Scene::of(&["north", "harbor"]);
    let node = with_entries(&scene);
    let subject = Subject::Entry {
        feed: set_feed(&node),
        first: 4,
        kind: None,
    };
    for n in 0..100_u8 {
        let leaf = opinion(subject.clone(), Stance::Positive, Vec::new());
        foreign(&node, &[b'x', n], &[leaf]);
    }
    node.opine(&no(on("north/confirmed#4", None))).unwrap();
    let opinions = found(&node, 3).opinions;
    // One member is one voice, however many feeds it writes.
    assert_eq!(
        (opinions.stances.positive, opinions.stances.negative),
        (1, 1)
    );
    assert_eq!(opinions.told[0].stance, Stance::Negative);
    assert!(opinions.told.len() <= 9);
}

#[test]
fn opinions_of_a_removed_member_count_as_the_setting_says() {
    let scene = Scene::new();
    let node = with_entries(&scene);
    node.opine(&no(on("north/confirmed#4", None))).unwrap();
    scene.remove_north(&node);
    node.set_removed_members(RemovedMembers::Count);
    assert_eq!(standing(&node, 3), MatchStanding::Disputed);
    node.set_removed_members(RemovedMembers::Ignore);
    assert!(node.opinions_on(&set_feed(&node), 4).unwrap().is_empty());
    let listed = node.list_opinions(&Which::Own, None, 10).unwrap().opinions;
    assert!(!listed[0].counts);
}

#[test]
fn lists_go_on_where_they_ended() {
    let scene = Scene::of(&["north", "harbor"]);
    let node = with_entries(&scene);
    for first in 1..8 {
        node.opine(&no(on(&format!("north/confirmed#{first}"), None)))
            .unwrap();
        harbor_says(&node, first, Stance::Seed);
    }
    node.opine(&withdraw(on("north/confirmed#1", None)))
        .unwrap();
    let set = SetName::parse("north/confirmed").unwrap();
    for (which, all) in [
        (Which::All, 13),
        (Which::Set(set), 13),
        (Which::Own, 6),
        (
            Which::Entry(EntryName::parse("north/confirmed#2").unwrap()),
            2,
        ),
    ] {
        let (mut after, mut seen) = (None, Vec::new());
        loop {
            let page = node.list_opinions(&which, after.as_deref(), 4).unwrap();
            for one in page.opinions {
                assert!(one.counts);
                seen.push((one.set, one.index));
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), all, "{which:?}");
    }
    assert!(node.list_opinions(&Which::All, Some(&[1; 65]), 4).is_err());
}
