//! The roster chain witnessed, with real nodes: who stands at which version, no two
//! rosters of one version with a quorum each, and what is refused.

use hashpact_core::witness::judge::FRESH_MS;

use super::hostile::{Hostile, Script, Victim, tick, until};
use super::live::{Live, Running};
use super::*;
use crate::exchange::ExchangeOptions;
use crate::exchange::announce::told_to;

const WITNESSES: [u32; 4] = [WITNESS, 5, 6, 7];

/// Nobody is waited for longer: half of the members do not run.
fn hasty(options: &mut ExchangeOptions) {
    options.confirm_wait = Duration::from_millis(300);
}

fn next_roster(node: &Node, name: &str) -> Bytes {
    let chain = node.membership().roster().unwrap();
    let now = node.clock().now();
    let mut roster = Roster::after(chain.current(), chain.genesis(), now, 365 * DAY_MS);
    name.clone_into(&mut roster.members[0].display_name);
    signed(&roster)
}

/// The version that a quorum has cosigned.
fn quorum(node: &Node) -> Option<u64> {
    node.roster_standing()?.judged.quorum
}

/// What a witness says of a version, signed at a time.
pub(super) fn word(node: &Node, member: u32, version: u64, at: UnixMillis) -> Bytes {
    let tree = node.roster_tree().unwrap();
    let body = tree.head(version).unwrap().body();
    line(&body, member, &witness_key(member), at)
}

fn line(body: &str, member: u32, key: &SecretKey<Witness>, at: UnixMillis) -> Bytes {
    let coalition = CoalitionName::parse(COALITION).unwrap();
    let slug = slug(SLUGS[usize::try_from(member).unwrap() - 1]);
    let name = checkpoint::witness_name(&coalition, &slug);
    checkpoint::cosign(body, &name, key, at.0 / 1_000).into()
}

fn digest_of(node: &Node, version: u64) -> Digest {
    node.roster_tree().unwrap().digest(version).unwrap()
}

fn hear(node: &Node, version: u64, lines: &[Bytes]) -> hashpact_node::roster_words::Heard {
    node.hear_roster_words(version, digest_of(node, version), lines)
}

fn stands(node: &Node, member: u32) -> Option<u64> {
    let standing = node.roster_standing().unwrap();
    let stand = standing.judged.witnesses[&number(member)];
    stand.map(|stand| stand.size)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_witnesses_cosign_every_version_of_the_roster_and_everybody_knows() {
    let mut live = Live::of(Coalition::witnessed());
    let south = live.run_with(SOUTH, hasty).await;
    let mut witnesses: Vec<(u32, Running)> = Vec::new();
    for member in WITNESSES {
        witnesses.push((member, live.run_with(member, hasty).await));
    }
    let mut all: Vec<(u32, &Running)> = vec![(SOUTH, &south)];
    all.extend(witnesses.iter().map(|(member, one)| (*member, one)));
    live.introduce(&all);
    until("a quorum for version 2", || quorum(&south.node) == Some(2)).await;
    let third = next_roster(&south.node, "a new name");
    assert!(south.node.membership().accept_roster(third).unwrap());
    until("a quorum for version 3", || quorum(&south.node) == Some(3)).await;
    for (_, witness) in &witnesses {
        until("at the witnesses as well", || {
            quorum(&witness.node) == Some(3)
        })
        .await;
    }
    until("all four stand there", || {
        WITNESSES
            .iter()
            .all(|member| stands(&south.node, *member) == Some(3))
    })
    .await;
    let standing = south.node.roster_standing().unwrap();
    assert_eq!(standing.judged.threshold, Some(3));
    assert!(!standing.judged.stale);
    let mut stands = standing.judged.witnesses.values();
    assert!(stands.all(|stand| stand.is_some_and(|stand| stand.since > UnixMillis(0))));
    for (_, one) in witnesses {
        one.stop().await;
    }
    south.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_rosters_of_one_version_never_both_have_a_quorum_and_no_witness_signs_both() {
    let mut live = Live::of(Coalition::witnessed());
    let mut witnesses: Vec<(u32, Running)> = Vec::new();
    for member in WITNESSES {
        witnesses.push((member, live.run_with(member, hasty).await));
    }
    let south = live.run_with(SOUTH, hasty).await;
    let west = live.run_with(WEST, hasty).await;
    let (one, other) = (
        next_roster(&south.node, "one"),
        next_roster(&south.node, "other"),
    );
    // Administrators show each half of the coalition another roster.
    let halves = [(&one, &south, 0..2), (&other, &west, 2..4)];
    for (roster, reader, of) in halves {
        let nodes = witnesses[of].iter().map(|(_, witness)| witness);
        for node in nodes.chain([reader]) {
            let membership = node.node.membership();
            assert!(membership.accept_roster(roster.clone()).unwrap());
        }
    }
    let mut all: Vec<(u32, &Running)> = vec![(SOUTH, &south), (WEST, &west)];
    all.extend(witnesses.iter().map(|(member, one)| (*member, one)));
    live.introduce(&all);
    let heard = |reader: &Node, half: [u32; 2]| {
        half.iter().all(|member| stands(reader, *member) == Some(3))
    };
    until("each reader hears its half", || {
        heard(&south.node, [WITNESSES[0], WITNESSES[1]])
            && heard(&west.node, [WITNESSES[2], WITNESSES[3]])
    })
    .await;
    for node in [&south, &west] {
        until("evidence at everybody", || {
            !node.node.store().equivocations().unwrap().is_empty()
        })
        .await;
        assert!(quorum(&node.node) < Some(3), "neither has one");
    }
    for (index, (_, witness)) in witnesses.iter().enumerate() {
        let chain = witness.node.membership().roster().unwrap();
        let held = if index < 2 { &one } else { &other };
        assert_eq!(chain.current().as_bytes(), held);
        let witnessing = witness.node.witnessing().unwrap();
        assert!(witnessing.recorded().is_empty(), "the chain is no feed");
        let record = witness.node.roster_tree().unwrap().record_id();
        let state = witnessing.recorded_roster(&record);
        let root = witness.node.roster_tree().unwrap().head(3).unwrap().root;
        assert_eq!(state, Some((3, root)), "never the other");
    }
    for (_, one) in witnesses {
        one.stop().await;
    }
    south.stop().await;
    west.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_witness_that_is_shown_its_own_word_cosigns_no_other_roster_of_that_version() {
    let coalition = tick(Coalition::witnessed(), Arc::default());
    let hostile = Hostile::start(&coalition, NORTH, Script::default()).await;
    let (one, other) = (
        next_roster(&hostile.node, "one"),
        next_roster(&hostile.node, "other"),
    );
    // What it had cosigned before its disk was restored, as a reader kept it.
    let south = coalition.open(SOUTH);
    assert!(south.membership().accept_roster(one).unwrap());
    let said = word(&south, WITNESS, 3, NOW);
    let digest = digest_of(&south, 3);
    drop(south);
    hostile.plays(Script {
        first: vec![Announcement::Roster {
            version: 3,
            digest,
            cosignatures: vec![said],
        }],
        ..Script::default()
    });
    let witness = Victim::start_as(&coalition, WITNESS, |options| {
        // Long enough for the reader to be heard on a busy machine.
        options.confirm_wait = Duration::from_secs(10);
    })
    .await;
    assert!(witness.node.membership().accept_roster(other).unwrap());
    witness.meet(&coalition, &hostile);
    until("it says that the two do not go together", || {
        let notices = witness.node.status().unwrap().notices;
        notices
            .iter()
            .any(|notice| notice.contains("another roster of version 3"))
    })
    .await;
    assert_eq!(stands(&witness.node, WITNESS), None, "nothing was cosigned");
    witness.rest().await;
}

#[tokio::test]
async fn words_of_strangers_of_other_keys_and_of_the_future_are_refused_and_of_others_kept() {
    let coalition = Coalition::witnessed();
    let south = coalition.open(SOUTH);
    let body = south.roster_tree().unwrap().head(2).unwrap().body();
    let code = |line: Bytes| {
        let heard = hear(&south, 2, &[line]);
        heard
            .refused
            .first()
            .map_or("taken", |refused| refused.code())
    };
    // No witness, a witness with another key, another version's words, the future.
    assert_eq!(code(line(&body, WEST, &witness_key(WEST), NOW)), "unknown");
    assert_eq!(code(line(&body, 5, &witness_key(6), NOW)), "bad_signature");
    assert_eq!(code(word(&south, 5, 1, NOW)), "bad_signature");
    let late = NOW.plus(3_600_000);
    assert_eq!(code(word(&south, 5, 2, late)), "from_the_future");
    assert_eq!(code(Bytes::from_static(b"no line")), "malformed");
    assert_eq!(stands(&south, 5), None);
    assert_eq!(code(word(&south, 5, 2, NOW)), "taken");
    assert_eq!(stands(&south, 5), Some(2));
    // An older word takes nothing back.
    let older = word(&south, 5, 1, NOW.plus(120_000));
    assert_eq!(code(older), "bad_signature");
    assert!(
        hear(&south, 1, &[word(&south, 5, 1, NOW)])
            .refused
            .is_empty()
    );
    assert_eq!(stands(&south, 5), Some(2));
}

#[tokio::test]
async fn words_outlive_a_start_and_the_roster_becomes_stale_and_fresh_again() {
    let coalition = Coalition::witnessed();
    let south = coalition.open(SOUTH);
    let lines: Vec<Bytes> = WITNESSES[..3]
        .iter()
        .map(|member| word(&south, *member, 2, NOW))
        .collect();
    assert!(hear(&south, 2, &lines).refused.is_empty());
    assert_eq!(quorum(&south), Some(2));
    drop(south);
    let south = coalition.open(SOUTH);
    assert_eq!(quorum(&south), Some(2), "verified again from the disk");
    let alarm = || {
        let notices = south.status().unwrap().notices;
        notices
            .iter()
            .any(|notice| notice.contains("roster is STALE"))
    };
    coalition.clock.set(NOW.plus(FRESH_MS));
    assert!(!alarm());
    coalition.clock.set(NOW.plus(FRESH_MS + 1));
    assert!(alarm());
    let again = word(&south, 5, 2, NOW.plus(FRESH_MS));
    assert!(hear(&south, 2, &[again]).refused.is_empty());
    assert!(!alarm());
    // Of a newer version nobody has spoken: it has half an hour from when it came.
    let third = next_roster(&south, "a new name");
    assert!(south.membership().accept_roster(third).unwrap());
    assert!(!alarm());
    coalition.clock.set(NOW.plus(3 * FRESH_MS));
    assert!(alarm());
    let of_older = word(&south, 5, 2, NOW.plus(3 * FRESH_MS));
    assert!(hear(&south, 2, &[of_older]).refused.is_empty());
    assert!(
        alarm(),
        "a word of an older version says nothing of this one"
    );
}

#[tokio::test]
async fn words_are_told_once_and_again_when_they_change_what_is_known() {
    let coalition = Coalition::witnessed();
    let south = coalition.open(SOUTH);
    let mut watch = told_to(Arc::clone(&south), number(WEST));
    snapshot_of(&mut watch).await;
    let told = async |watch: &mut crate::types::Answers<Announcement>| {
        let said = tokio::time::timeout(Duration::from_millis(150), watch.next()).await;
        let Ok(Some(Ok(Announcement::Roster { cosignatures, .. }))) = said else {
            return 0;
        };
        cosignatures.len()
    };
    let say = |member, at| {
        let heard = hear(&south, 2, &[word(&south, member, 2, at)]);
        assert!(heard.refused.is_empty());
    };
    say(5, NOW);
    assert_eq!(told(&mut watch).await, 1);
    say(6, NOW);
    assert_eq!(told(&mut watch).await, 2);
    // The same word, and one a minute later, are no news.
    say(5, NOW);
    coalition.clock.set(NOW.plus(61_000));
    say(5, NOW.plus(61_000));
    assert_eq!(told(&mut watch).await, 0);
    coalition.clock.set(NOW.plus(11 * 60_000));
    say(5, NOW.plus(11 * 60_000));
    assert_eq!(told(&mut watch).await, 2);
    // Who watches anew is told at once.
    let mut other = told_to(Arc::clone(&south), number(NORTH));
    let said = snapshot_of(&mut other).await;
    let words = said.iter().find_map(|said| {
        if let Announcement::Roster { cosignatures, .. } = said {
            Some(cosignatures.len())
        } else {
            None
        }
    });
    assert_eq!(words, Some(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn words_that_come_before_their_roster_wait_for_it() {
    let coalition = tick(Coalition::witnessed(), Arc::default());
    let hostile = Hostile::start(&coalition, NORTH, Script::default()).await;
    let next = next_roster(&hostile.node, "a new name");
    let other = coalition.open(WEST);
    assert!(other.membership().accept_roster(next.clone()).unwrap());
    let lines = vec![word(&other, 5, 3, NOW), word(&other, 6, 3, NOW)];
    let digest = digest_of(&other, 3);
    drop(other);
    let victim = Victim::start(&coalition).await;
    victim.meet(&coalition, &hostile);
    hostile.says(Announcement::Roster {
        version: 3,
        digest,
        cosignatures: lines,
    });
    // Its end of the watch is heard in order: what came before it was dealt with.
    hostile.says(Announcement::Suspension(Bytes::from_static(b"none")));
    victim.refuses("a mark", &hostile, &["malformed"]).await;
    assert!(victim.node.membership().accept_roster(next).unwrap());
    until("they count once it is here", || {
        stands(&victim.node, 5) == Some(3) && stands(&victim.node, 6) == Some(3)
    })
    .await;
    victim.stop(&coalition).await;
}
