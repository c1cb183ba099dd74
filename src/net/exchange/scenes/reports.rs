//! What readers hold back is told to its publisher, to nobody else, and until it is over.

use hashpact_core::id::SetName;
use hashpact_core::leaf::IndexRange;
use hashpact_node::reported::{Report, ReportedLot};
use hashpact_store::quarantine::Decision;

use super::hostile::{Hostile, Script, Victim, ticking};
use super::live::{Live, until, verify};
use super::*;
use crate::exchange::announce::told_to;
use crate::exchange::reach::Reach;
use crate::exchange::reports::ToldReports;

fn import(node: &Node, set: &str, entries: Vec<NewEntry>) {
    let mut import = node.import(&slug(set)).unwrap();
    import.push(entries).unwrap();
    import.finish().unwrap();
}

/// An entry with a PDQ of low quality beside its SHA-256.
fn weak(n: u64) -> NewEntry {
    let mut new = entry(n);
    let mut value = vec![0x0f; 32];
    value[0] = if n.is_multiple_of(2) { 0x3c } else { 0xc3 };
    let pdq = Signal::new(SignalKind::Pdq, value.into(), Some(10)).unwrap();
    new.body.signals.push(pdq);
    new
}

/// An entry with an MD5 that others of these have as well, beside another SHA-256.
fn doubtful(n: u64) -> NewEntry {
    let mut new = entry(n);
    let md5 = Signal::new(SignalKind::Md5, vec![0x5a; 16].into(), None).unwrap();
    new.body.signals.insert(0, md5);
    new
}

/// Who says that it holds how many back, and why.
fn heard(node: &Node) -> Vec<(u32, String, u64)> {
    let views = node.reports(None).unwrap();
    let lots = views.into_iter().flat_map(|view| {
        let member = view.member.value();
        let lots = view.report.lots.into_iter();
        lots.map(move |lot| (member, lot.reason, lot.leaves))
    });
    lots.collect()
}

fn reports_of(said: &[Announcement]) -> Vec<(FeedId, Report)> {
    let of = said.iter().filter_map(|item| {
        if let Announcement::Quarantined(feed, report) = item {
            Some((*feed, report.clone()))
        } else {
            None
        }
    });
    of.collect()
}

fn report(size: u64, leaves: u64, ranges: &[(u64, u64)]) -> Report {
    let range = |(first, count): &(u64, u64)| IndexRange {
        first: *first,
        count: *count,
    };
    Report {
        epoch: 0,
        size,
        lots: vec![ReportedLot {
            reason: "low_quality".to_owned(),
            kind: SignalKind::Pdq.number_byte().into(),
            leaves,
            ranges: ranges.iter().map(range).collect(),
        }],
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_hears_which_entries_a_reader_holds_back_and_why_until_it_is_over() {
    let mut live = Live::new();
    let (north, south) = (live.run(NORTH).await, live.run(SOUTH).await);
    create_set(&north.node, "confirmed", &[("all", true)]);
    publish(&north.node, "confirmed", 0, 3);
    import(&north.node, "confirmed", (10..14).map(weak).collect());
    live.introduce(&[(NORTH, &north), (SOUTH, &south)]);
    let held = |leaves| vec![(SOUTH, "low_quality".to_owned(), leaves)];
    until("north hears of four", || heard(&north.node) == held(4)).await;
    let entries = || {
        let entries = north.node.reported_entries(None, None, 10).unwrap();
        let named = entries.iter().map(|one| one.entry.as_ref().unwrap());
        named.map(ToString::to_string).collect::<Vec<_>>()
    };
    let of = |range: std::ops::RangeInclusive<u64>| -> Vec<String> {
        range.map(|n| format!("north/confirmed#{n}")).collect()
    };
    assert_eq!(entries(), of(4..=7));
    let notices = north.node.status().unwrap().notices;
    assert!(notices.iter().any(|n| n.contains("quarantine reported")));
    assert!(heard(&south.node).is_empty());
    // What its reviewers released and dropped waits no more; of the latter it says nothing.
    let set = SetName::parse("north/confirmed").unwrap();
    for (entry, decision) in [(4, Decision::Release), (5, Decision::Drop)] {
        let named = [entry];
        let decided = south
            .node
            .decide_quarantine(&set, None, Some(&named), decision);
        assert_eq!(decided.unwrap(), (1, Vec::new()));
    }
    until("north hears of two", || heard(&north.node) == held(2)).await;
    assert_eq!(entries(), of(6..=7));
    // What is taken back is held back by nobody.
    retract(&north.node, "confirmed", 12..14);
    until("it is over", || heard(&north.node).is_empty()).await;
    let notices = north.node.status().unwrap().notices;
    assert!(!notices.iter().any(|n| n.contains("quarantine reported")));
    for running in [north, south] {
        verify(&running.node);
        running.stop().await;
    }
}

#[tokio::test]
async fn only_the_publisher_is_told_and_nothing_of_what_others_publish() {
    let coalition = Coalition::new();
    let (north, south) = (coalition.open(NORTH), coalition.open(SOUTH));
    let west = coalition.open(WEST);
    let feed = create_set(&north, "set", &[("all", true)]);
    import(&north, "set", vec![weak(1), doubtful(2)]);
    // ⚠ West's entry makes north's MD5 wait at south: north is to learn nothing of it.
    let other = create_set(&west, "other", &[("south", false)]);
    import(&west, "other", vec![doubtful(3)]);
    bring(&west, &south, &other, false).await;
    bring(&north, &south, &feed, false).await;
    let lots = south.quarantine(None, None).unwrap();
    let reasons: Vec<_> = lots.iter().map(|lot| lot.reason.code()).collect();
    assert_eq!(reasons, ["low_quality", "digest_conflict"]);
    let said = snapshot_of(&mut told_to(Arc::clone(&south), number(NORTH))).await;
    let told = report(3, 1, &[(1, 1)]);
    assert_eq!(reports_of(&said), [(feed, told)]);
    for member in [WEST, WITNESS] {
        let said = snapshot_of(&mut told_to(Arc::clone(&south), number(member))).await;
        assert!(reports_of(&said).is_empty(), "{member}");
    }
    // Nor is what the publisher's own node holds back.
    let said = snapshot_of(&mut told_to(Arc::clone(&north), number(SOUTH))).await;
    assert!(reports_of(&said).is_empty());
}

// A publisher lets a word on an epoch fall that is not open there: the roster may reach
// the reader first, or the publisher.
#[tokio::test]
async fn what_is_held_back_is_said_again_when_an_epoch_opens_and_when_the_publisher_has_it() {
    let coalition = Coalition::new();
    let (north, south) = (coalition.open(NORTH), coalition.open(SOUTH));
    let feed = create_set(&north, "set", &[("all", true)]);
    import(&north, "set", vec![weak(1)]);
    bring(&north, &south, &feed, false).await;
    let snapshot = Arc::new(south.membership().snapshot().unwrap());
    let mut reach = Reach::of(south.store(), snapshot, &feed).unwrap();
    let mut told = ToldReports::default();
    let mut said = |epoch, applied: u32| {
        reach.feed.epoch = epoch;
        reach.feed.applied.as_mut().unwrap().epoch = applied;
        let clock = &coalition.clock;
        clock.set(clock.now().plus(5_000));
        let said = told.new_of(&south, &reach, number(NORTH)).unwrap();
        let reports = reports_of(&Vec::from_iter(said));
        reports.first().map(|(_, report)| report.epoch)
    };
    for (epoch, applied) in [(0, 0), (1, 0), (1, 1)] {
        let case = format!("epoch {epoch}, a head of {applied}");
        assert_eq!(said(epoch, applied), Some(epoch), "{case}");
        assert_eq!(said(epoch, applied), None, "{case}: once");
    }
}

#[tokio::test]
async fn an_operator_may_tell_nobody_what_is_held_back() {
    let coalition = Coalition {
        hygiene: HygieneOptions {
            tell_publishers: false,
            ..HygieneOptions::default()
        },
        ..Coalition::new()
    };
    let (north, south) = (coalition.open(NORTH), coalition.open(SOUTH));
    let feed = create_set(&north, "set", &[("all", true)]);
    import(&north, "set", vec![weak(1)]);
    bring(&north, &south, &feed, false).await;
    assert_eq!(south.quarantine(None, None).unwrap().len(), 1);
    let said = snapshot_of(&mut told_to(Arc::clone(&south), number(NORTH))).await;
    assert!(reports_of(&said).is_empty());
}

#[tokio::test]
async fn a_word_on_what_was_not_published_or_is_not_ones_own_is_kept_by_nobody() {
    let coalition = Coalition::new();
    let (north, south) = (coalition.open(NORTH), coalition.open(SOUTH));
    let feed = create_set(&north, "set", &[("all", true)]);
    publish(&north, "set", 0, 4);
    retract(&north, "set", 3..4);
    let theirs = create_set(&south, "theirs", &[("all", true)]);
    publish(&south, "theirs", 0, 4);
    bring(&south, &north, &theirs, false).await;
    let takes = |feed, report| {
        let taken = north.take_report((number(WEST), slug("n1")), feed, report);
        taken.map_err(|error| error.code().to_owned())
    };
    let invalid = || Err("invalid".to_owned());
    // Six leaves: a describe leaf, four entries, a retraction.
    assert_eq!(takes(feed, report(7, 1, &[(1, 1)])), invalid());
    assert_eq!(takes(feed, report(6, 1, &[(6, 1)])), invalid());
    assert_eq!(takes(feed, report(6, 5, &[])), invalid());
    assert_eq!(
        takes(theirs, report(5, 1, &[(1, 1)])),
        Err("wrong_origin".to_owned())
    );
    // Known to another node of this member, or of another epoch: no fault, and nothing.
    let unknown = FeedId(Digest::of(b"unknown"));
    assert_eq!(takes(unknown, report(6, 1, &[(1, 1)])), Ok(()));
    let later = Report {
        epoch: 1,
        ..report(6, 1, &[(1, 1)])
    };
    assert_eq!(takes(feed, later), Ok(()));
    assert!(heard(&north).is_empty());
    // The describe leaf, a retracted entry and the retraction are no entries.
    assert_eq!(takes(feed, report(6, 4, &[(0, 1), (3, 3)])), Ok(()));
    let named: Vec<u64> = {
        let entries = north.reported_entries(None, None, 10).unwrap();
        entries.iter().map(|entry| entry.index).collect()
    };
    assert_eq!(named, [3]);
    assert!(
        north
            .reports(Some(&SetName::parse("south/theirs").unwrap()))
            .is_err()
    );
    // Who may not read it any more has said nothing.
    north.forget_reports(&|_, _, _| false);
    assert!(heard(&north).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hostile_reader_gets_no_false_word_nor_a_flood_of_words_kept() {
    let coalition = ticking();
    let node = coalition.open(SOUTH);
    let feed = create_set(&node, "own", &[("west", false)]);
    publish(&node, "own", 0, 3);
    let secret = create_set(&node, "secret", &[("north", false)]);
    publish(&node, "secret", 10, 13);
    let hostile = Hostile::start(&coalition, WEST, Script::default()).await;
    let victim = Victim::start_of(&coalition, SOUTH, node, |_| ()).await;
    victim.meet(&coalition, &hostile);
    until("the watch runs", || {
        let peers = victim.node.exchange().unwrap().peers();
        peers.iter().any(|peer| peer.state == "connected")
    })
    .await;
    hostile.says(Announcement::Quarantined(feed, report(900, 1, &[(1, 1)])));
    victim
        .refuses("leaves that are not there", &hostile, &["invalid"])
        .await;
    // Of a set that it may not read.
    hostile.says(Announcement::Quarantined(secret, report(4, 1, &[(1, 1)])));
    until("it is refused", || victim.refused(&hostile).len() == 2).await;
    assert!(victim.refused(&hostile).contains("unknown"));
    assert!(heard(&victim.node).is_empty());
    for n in 0..400 {
        let ranges = [(1 + n % 3, 1)];
        hostile.says(Announcement::Quarantined(feed, report(4, 1, &ranges)));
    }
    hostile.says(Announcement::Quarantined(feed, report(4, 3, &[(1, 3)])));
    until("the last word is kept", || {
        heard(&victim.node) == [(WEST, "low_quality".to_owned(), 3)]
    })
    .await;
    assert_eq!(victim.answers(2), 1, "nothing is done for it");
    victim.stop(&coalition).await;
}
