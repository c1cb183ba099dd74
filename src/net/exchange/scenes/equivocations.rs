//! Two documents of one version: kept, shown to everybody, and checked by each.

use hashpact_core::equivocation::DocumentEvidence;
use hashpact_core::evidence_file::{EvidenceFile, ProvenEvidence};
use hashpact_core::keys::Identity;

use super::hostile::{Hostile, Script, Victim, ticking, until};
use super::*;
use crate::exchange::announce::told_to;

/// Two cards of west, of one version, with two contacts.
fn two_cards(coalition: &Coalition) -> [Bytes; 2] {
    ["one", "other"]
        .map(|name| coalition.card_with(WEST, 7, |card| name.clone_into(&mut card.contact.name)))
}

fn next_roster(node: &Node, threshold_name: &str) -> Bytes {
    let chain = node.membership().roster().unwrap();
    let now = node.clock().now();
    let mut roster = Roster::after(chain.current(), chain.genesis(), now, 365 * DAY_MS);
    threshold_name.clone_into(&mut roster.members[0].display_name);
    signed(&roster)
}

fn evidence_of(said: &[Announcement]) -> Vec<Bytes> {
    let of = said.iter().filter_map(|item| {
        if let Announcement::DocumentEvidence(bytes) = item {
            Some(bytes.clone())
        } else {
            None
        }
    });
    of.collect()
}

#[tokio::test]
async fn who_meets_two_cards_or_two_rosters_of_one_version_tells_everybody_with_proof() {
    let coalition = Coalition::new();
    let (north, south) = (coalition.open(NORTH), coalition.open(SOUTH));
    let [one, other] = two_cards(&coalition);
    assert!(north.membership().accept_card(one).unwrap());
    assert!(north.membership().accept_card(other).is_err());
    let rosters = [next_roster(&north, "first"), next_roster(&north, "second")];
    assert!(
        north
            .membership()
            .accept_roster(rosters[0].clone())
            .unwrap()
    );
    assert!(
        north
            .membership()
            .accept_roster(rosters[1].clone())
            .is_err()
    );
    let said = snapshot_of(&mut told_to(Arc::clone(&north), number(WITNESS))).await;
    let told = evidence_of(&said);
    assert_eq!(told.len(), 2);
    for evidence in &told {
        // South has neither of the two, and needs neither.
        assert!(south.membership().accept_equivocation(evidence).unwrap());
        assert!(!south.membership().accept_equivocation(evidence).unwrap());
    }
    assert_eq!(south.store().equivocations().unwrap().len(), 2);
    // Who held the first keeps it in force.
    let current = north.membership().roster().unwrap();
    assert_eq!(current.current().as_bytes(), &rosters[0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn evidence_of_two_cards_is_taken_from_a_peer_and_forged_evidence_is_refused() {
    let coalition = ticking();
    let [one, other] = two_cards(&coalition);
    let envelope = |bytes: &Bytes| Envelope::decode(bytes.clone(), PayloadType::NodeCard).unwrap();
    let proof = DocumentEvidence::new(envelope(&one), envelope(&other));
    let same = DocumentEvidence::new(envelope(&one), envelope(&one));
    let hostile = Hostile::start(&coalition, NORTH, Script::default()).await;
    let victim = Victim::start(&coalition).await;
    victim.meet(&coalition, &hostile);
    until("the watch runs", || {
        let peers = victim.node.exchange().unwrap().peers();
        peers.iter().any(|peer| peer.state == "connected")
    })
    .await;
    hostile.says(Announcement::DocumentEvidence(same.encode().into()));
    victim
        .refuses("one card twice", &hostile, &["invalid"])
        .await;
    assert!(victim.node.store().equivocations().unwrap().is_empty());
    hostile.says(Announcement::DocumentEvidence(proof.encode().into()));
    until("it is kept", || {
        !victim.node.store().equivocations().unwrap().is_empty()
    })
    .await;
    victim.stop(&coalition).await;
}

/// Another identity key for west, and the roster that brings it.
fn rotated(node: &Node) -> (SecretKey<Identity>, Bytes) {
    let key = SecretKey::<Identity>::from_seed(&key_seed(WEST, 77));
    let chain = node.membership().roster().unwrap();
    let now = node.clock().now();
    let mut roster = Roster::after(chain.current(), chain.genesis(), now, 365 * DAY_MS);
    roster.rotate_identity(number(WEST), key.public()).unwrap();
    (key, signed(&roster))
}

fn pair(cards: [Bytes; 2]) -> Bytes {
    let [one, other] = cards.map(|card| Envelope::decode(card, PayloadType::NodeCard).unwrap());
    DocumentEvidence::new(one, other).encode().into()
}

// ⚠ Whoever finds a key that was replaced signs what it likes with it.
#[tokio::test]
async fn two_cards_of_a_replaced_identity_key_are_closed_told_to_nobody_and_in_nobodys_way() {
    let coalition = Coalition::new();
    for found_before in [true, false] {
        let folder = if found_before { "before" } else { "after" };
        let north = coalition.open_in(folder, NORTH, &[]);
        let membership = north.membership();
        let framed = pair(two_cards(&coalition));
        let (key, roster) = rotated(&north);
        if found_before {
            assert!(membership.accept_equivocation(&framed).unwrap());
            assert!(!north.evidence().unwrap()[0].closed);
        }
        assert!(membership.accept_roster(roster).unwrap());
        if !found_before {
            assert!(membership.accept_equivocation(&framed).unwrap());
        }
        let said = snapshot_of(&mut told_to(Arc::clone(&north), number(SOUTH))).await;
        assert!(evidence_of(&said).is_empty());
        assert!(north.evidence().unwrap()[0].closed);
        // What its present key signed is kept all the same, and told.
        let present = pair(["one", "other"].map(|name| {
            coalition.card_signed(
                WEST,
                7,
                |draft| {
                    draft.sign(&key);
                },
                |card| name.clone_into(&mut card.contact.name),
            )
        }));
        assert!(membership.accept_equivocation(&present).unwrap());
        let views = north.evidence().unwrap();
        assert_eq!(views.iter().filter(|view| view.closed).count(), 1);
        assert_eq!(views.len(), 2);
        let said = snapshot_of(&mut told_to(Arc::clone(&north), number(SOUTH))).await;
        assert_eq!(evidence_of(&said), [present]);
    }
}

// ⚠ A hostile member found west's old identity key, and says all that it makes with it to a
// node that runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_holds_a_replaced_identity_key_moves_and_frames_nobody_at_a_live_node() {
    let coalition = ticking();
    let hostile = Hostile::start(&coalition, NORTH, Script::default()).await;
    let victim = Victim::start(&coalition).await;
    let membership = victim.node.membership();
    let (_, roster) = rotated(&victim.node);
    assert!(membership.accept_roster(roster).unwrap());
    let newest = || {
        let state = membership.state();
        let card = state.cards.newest(number(WEST)).map(|card| card.digest());
        card.unwrap()
    };
    let before = newest();
    victim.meet(&coalition, &hostile);
    until("the watch runs", || {
        let peers = victim.node.exchange().unwrap().peers();
        peers.iter().any(|peer| peer.state == "connected")
    })
    .await;
    let card = coalition.card_with(WEST, 900, |card| "found".clone_into(&mut card.contact.name));
    hostile.says(Announcement::NodeCard(card));
    victim
        .refuses("a card by the old key", &hostile, &["bad_signature"])
        .await;
    assert_eq!(newest(), before);
    let framed = pair(two_cards(&coalition));
    hostile.says(Announcement::DocumentEvidence(framed.clone()));
    let kept = || victim.node.evidence().unwrap();
    until("it is kept", || !kept().is_empty()).await;
    assert!(kept()[0].closed);
    let said = snapshot_of(&mut told_to(Arc::clone(&victim.node), number(NORTH))).await;
    assert!(evidence_of(&said).is_empty());
    // As a file it says by which roster the key was replaced.
    let digest = Digest::of(&framed).to_string();
    let (file, _) = victim.node.evidence_file(&digest, false).unwrap();
    let file = EvidenceFile::decode(&file).unwrap();
    let shown = file.verify(&coalition.genesis).unwrap().into_inner().proven;
    let ProvenEvidence::NodeCards { replaced_in, .. } = shown else {
        panic!("two cards")
    };
    assert_eq!(replaced_in, Some(membership.roster().unwrap().version()));
    victim.stop(&coalition).await;
}
