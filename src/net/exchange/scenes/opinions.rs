//! Opinions between real nodes: they travel, are changed and withdrawn, and end with
//! the grant.

use hashpact_core::id::EntryName;
use hashpact_core::leaf::{Reason, Stance};
use hashpact_node::model::{Match, Opine, OpineAbout, Saying};
use hashpact_node::opinions::{OpinionList, Which};

use super::live::{Live, Running, until, verify};
use super::*;

fn opine(node: &Node, entry: &str, stance: Option<Stance>) {
    let reason = match stance {
        Some(Stance::Positive) => "confirmed",
        Some(Stance::Seed | Stance::Negative) | None => "adult",
    };
    let says = stance.map(|stance| Saying {
        stance,
        confidence: 70,
        reason: Reason::parse(reason).unwrap(),
    });
    let opine = Opine {
        about: OpineAbout::Entry {
            entry: EntryName::parse(entry).unwrap(),
            kind: None,
        },
        says,
        note: "by two people".to_owned(),
        set: None,
    };
    node.opine(&opine).unwrap();
}

impl Running {
    /// What it answers for entry `n`, where it does.
    fn found(&self, n: u64) -> Option<Match> {
        let signal = entry(n).body.signals.remove(0);
        self.node.lookup(&[signal]).unwrap()[0].pop()
    }

    fn standing(&self, n: u64) -> Option<MatchStanding> {
        self.found(n).map(|found| found.standing)
    }

    fn listed(&self) -> OpinionList {
        self.node.list_opinions(&Which::All, None, 100).unwrap()
    }
}

async fn until_standing(who: &Running, n: u64, standing: MatchStanding, what: &str) {
    let is = || who.standing(n) == Some(standing);
    until(&format!("{what}: {standing:?}"), is).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_opinion_travels_is_changed_withdrawn_and_ends_with_its_grant() {
    use MatchStanding::{Active, Disputed};
    let mut live = Live::new();
    let (north, south) = (live.run(NORTH).await, live.run(SOUTH).await);
    let west = live.run(WEST).await;
    create_set(&north.node, "confirmed", &[("all", true)]);
    publish(&north.node, "confirmed", 0, 300);
    live.introduce(&[(NORTH, &north), (SOUTH, &south), (WEST, &west)]);
    until("both answer", || {
        south.answers(299) + west.answers(299) == 2
    })
    .await;
    // Entry 7 is leaf 8. Nobody reads what South thinks before it is granted.
    opine(&south.node, "north/confirmed#8", Some(Stance::Negative));
    assert_eq!(south.standing(7), Some(Disputed));
    assert_eq!(
        (north.standing(7), west.standing(7)),
        (Some(Active), Some(Active))
    );
    let to = [("north", false), ("west", true)];
    change_grants(&south.node, "opinions", &to, &[]);
    until_standing(&north, 7, Disputed, "granted to the publisher").await;
    until_standing(&west, 7, Disputed, "granted to another").await;
    let told = north.found(7).unwrap().opinions;
    assert_eq!((told.stances.negative, told.more), (1, false));
    let one = &told.told[0];
    assert_eq!((one.member.value(), one.stance), (SOUTH, Stance::Negative));
    assert_eq!((one.confidence, one.reason_id), (70, 4));
    assert_eq!(north.listed().opinions[0].opinion.note, "by two people");
    assert_eq!(north.standing(8), Some(Active));
    // Changed, and changed back.
    opine(&south.node, "north/confirmed#8", Some(Stance::Positive));
    until_standing(&north, 7, Active, "changed, at the publisher").await;
    until_standing(&west, 7, Active, "changed, at another").await;
    assert_eq!(west.found(7).unwrap().opinions.stances.positive, 1);
    opine(&south.node, "north/confirmed#8", Some(Stance::Negative));
    until_standing(&west, 7, Disputed, "changed back").await;
    // North's own word beside it.
    opine(&north.node, "north/confirmed#8", Some(Stance::Positive));
    change_grants(&north.node, "opinions", &[("all", true)], &[]);
    let both = || west.found(7).unwrap().opinions.told.len() == 2;
    until("two words", both).await;
    assert_eq!(west.standing(7), Some(Disputed));
    // Withdrawn.
    opine(&south.node, "north/confirmed#8", None);
    until_standing(&north, 7, Active, "withdrawn").await;
    assert_eq!(north.found(7).unwrap().opinions.told.len(), 1);
    // North loses the grant: what South thinks goes from there.
    opine(&south.node, "north/confirmed#9", Some(Stance::Negative));
    until_standing(&north, 8, Disputed, "said of another").await;
    until_standing(&west, 8, Disputed, "said of another, elsewhere").await;
    change_grants(&south.node, "opinions", &[], &["north"]);
    until_standing(&north, 8, Active, "the grant ended").await;
    // A suspension changes access, never standing.
    assert_eq!(west.standing(8), Some(Disputed));
    suspend(&west.node, SOUTH);
    assert_eq!(west.standing(8), Some(Disputed));
    // Its own set and its own opinions.
    until("it is dropped", || north.node.store().feeds().len() == 2).await;
    for one in [&north, &south, &west] {
        verify(&one.node);
    }
    west.stop().await;
    south.stop().await;
    north.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_opinion_on_an_entry_that_its_reader_does_not_hold_hands_out_nothing() {
    let mut live = Live::new();
    let (north, south) = (live.run(NORTH).await, live.run(SOUTH).await);
    let west = live.run(WEST).await;
    let feed = create_set(&north.node, "secret", &[("south", false)]);
    publish(&north.node, "secret", 0, 10);
    live.introduce(&[(NORTH, &north), (SOUTH, &south), (WEST, &west)]);
    until("south answers", || south.answers(9) == 1).await;
    opine(&south.node, "north/secret#3", Some(Stance::Negative));
    change_grants(&south.node, "opinions", &[("west", false)], &[]);
    until("west has it", || !west.listed().opinions.is_empty()).await;
    let listed = west.listed().opinions.remove(0);
    let entry = listed.entry.unwrap();
    assert_eq!((entry.name, entry.held), (format!("{feed}#3"), false));
    assert_eq!(west.answers(2), 0);
    assert!(west.node.store().feed_no(&feed).is_none());
    // Once it is granted, it is disputed from its first answer on.
    change_grants(&north.node, "secret", &[("west", false)], &[]);
    until("west answers", || west.answers(2) == 1).await;
    assert_eq!(west.standing(2), Some(MatchStanding::Disputed));
    assert_eq!(
        west.listed().opinions[0].entry.as_ref().unwrap().name,
        "north/secret#3"
    );
    west.stop().await;
    south.stop().await;
    north.stop().await;
}
