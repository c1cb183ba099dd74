//! Witnesses with other keys than before, and with several nodes: what counts, and that no
//! key of a member cosigns another history than one before it did.

use hashpact_core::id::EntryName;
use hashpact_core::note::Note;
use hashpact_node::cosignatures::WitnessKeys;
use hashpact_node::proving::{AsOf, ProofOrder};

use super::hostile::{Forged, Hostile, Victim, until};
use super::live::{Live, Running};
use super::witnesses::{address, cosigned_at, hasty, quorum, relayed, restored, says, ticking};
use super::*;

/// The key that takes the place of the witness's.
fn next_key() -> SecretKey<Witness> {
    SecretKey::from_seed(&[97; 32])
}

/// The witness's card with these keys.
fn card_of(
    coalition: &Coalition,
    version: u64,
    keys: &[SecretKey<Witness>],
    endpoints: Vec<Endpoint>,
) -> Bytes {
    let sign = |draft: &mut EnvelopeDraft| {
        for key in keys {
            draft.sign(key);
        }
    };
    coalition.card_signed(WITNESS, version, sign, |card| {
        card.nodes[0].witness_keys = keys.iter().map(SecretKey::public).collect();
        card.nodes[0].endpoints = endpoints;
    })
}

fn name() -> String {
    let coalition = CoalitionName::parse(COALITION).unwrap();
    checkpoint::witness_name(&coalition, &slug("witness"))
}

/// Whether the newest head of a feed has a cosignature by a key beside it.
fn stands_beside(node: &Node, feed: &FeedId, key: &SecretKey<Witness>) -> bool {
    let no = node.store().feed_no(feed).unwrap();
    let head = node.store().applied_head(no).unwrap().unwrap();
    let body = Note::parse(head.note()).unwrap().text;
    let mut lines = head.cosignatures.iter();
    lines.any(|line| checkpoint::verify_cosignature(&body, line, &name(), &key.public()).is_ok())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_witness_says_all_again_with_its_next_key_and_no_quorum_is_lost_on_the_way() {
    let mut live = Live::of(Coalition::witnessed());
    let north = live.run_with(NORTH, hasty).await;
    let south = live.run_with(SOUTH, hasty).await;
    // Three of four decide: each of these is needed.
    let mut witnesses: Vec<(u32, Running)> = Vec::new();
    for member in [WITNESS, 5, 6] {
        witnesses.push((member, live.run_with(member, hasty).await));
    }
    let mut all: Vec<(u32, &Running)> = vec![(NORTH, &north), (SOUTH, &south)];
    all.extend(witnesses.iter().map(|(member, one)| (*member, one)));
    live.introduce(&all);
    let feed = create_set(&north.node, "set", &[("south", false)]);
    publish(&north.node, "set", 0, 10);
    until("a quorum", || quorum(&south.node, &feed) == Some(11)).await;
    let one = &witnesses[0].1;
    let listens = one.exchange.local_addr().unwrap().to_string();
    let publishes = |version, keys: &[SecretKey<Witness>]| {
        let endpoints = vec![Endpoint::parse(&listens).unwrap()];
        let card = card_of(&live.coalition, version, keys, endpoints);
        for (_, running) in &all {
            // Others may have told of it already.
            let _ = running.node.membership().accept_card(card.clone()).unwrap();
        }
    };
    publishes(50, &[witness_key(WITNESS), next_key()]);
    let witnessing = one.node.witnessing().unwrap();
    let recorded = witnessing.recorded();
    witnessing.use_key(next_key());
    until("the same head is cosigned again", || {
        stands_beside(&south.node, &feed, &next_key())
    })
    .await;
    assert_eq!(quorum(&south.node, &feed), Some(11));
    assert_eq!(witnessing.recorded(), recorded, "as it was");
    publishes(51, &[next_key()]);
    assert_eq!(quorum(&south.node, &feed), Some(11));
    publish(&north.node, "set", 10, 30);
    until("a quorum of the newer head", || {
        quorum(&south.node, &feed) == Some(31)
    })
    .await;
    assert!(stands_beside(&south.node, &feed, &next_key()));
    for (_, one) in witnesses {
        one.stop().await;
    }
    south.stop().await;
    north.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_witness_with_another_key_goes_by_what_the_former_one_cosigned() {
    restored(|coalition, node| {
        let card = card_of(coalition, 2, &[next_key()], Vec::new());
        assert!(node.membership().accept_card(card).unwrap());
        node.witnessing().unwrap().use_key(next_key());
    })
    .await;
}

#[tokio::test]
async fn what_a_former_key_said_stays_counted_and_proves_and_what_it_says_later_is_refused() {
    let coalition = Coalition::witnessed();
    let (south, feed) = relayed(&coalition).await;
    cosigned_at(&south, &feed, NOW);
    let card = card_of(&coalition, 2, &[next_key()], Vec::new());
    assert!(south.membership().accept_card(card).unwrap());
    let judged = south.judged(&feed_of(&south, &feed)).unwrap();
    let stand = judged.witnesses[&number(WITNESS)].unwrap();
    assert_eq!((stand.size, stand.fresh), (11, true));
    let order = ProofOrder {
        entry: EntryName::parse("north/set#1").unwrap(),
        as_of: AsOf::Now,
        exact: false,
        record_only: false,
    };
    let proven = south.prove(&order).unwrap().proven;
    assert_eq!(proven.cosigned.len(), 1);
    assert_eq!(proven.cosigned[0].key, witness_key(WITNESS).public());
    assert_eq!(proven.quorum.cosigned, 1);
    let keys = WitnessKeys::of(&south);
    let body = "of any state\n";
    let said = |key: &SecretKey<Witness>| {
        let line = checkpoint::cosign(body, &name(), key, NOW.0 / 1_000);
        keys.verify(body, &Bytes::from(line))
    };
    let refused = said(&witness_key(WITNESS)).unwrap_err();
    assert_eq!(refused.code(), "bad_signature");
    said(&next_key()).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_witness_nodes_of_a_member_one_cosigns_until_the_other_takes_its_place() {
    let coalition = ticking();
    let pair = crate::PemPair::generate("node.example", NOW).unwrap();
    let tls = Credentials::from_pem(pair.certificate.as_bytes(), pair.key.as_bytes()).unwrap();
    let card = |version, first: &[SecretKey<Witness>]| {
        let sign = |draft: &mut EnvelopeDraft| {
            draft.sign(&next_key());
            let possession = tls.sign(&draft.to_sign()).unwrap();
            draft
                .add_tls(&tls.spki_der().unwrap(), &possession)
                .unwrap();
        };
        coalition.card_signed(WITNESS, version, sign, |card| {
            let mut second = card.nodes[0].clone();
            second.name = slug("n2");
            second.tls_keys = vec![tls.key_digest().unwrap()];
            second.feed_keys.clear();
            second.receipt_keys.clear();
            second.witness_keys = vec![next_key().public()];
            card.nodes[0].witness_keys = first.iter().map(SecretKey::public).collect();
            card.nodes.push(second);
        })
    };
    let both = card(2, &[witness_key(WITNESS)]);
    let south = listening_to(&coalition, &both).await;
    let keys = WitnessKeys::of(&south.node);
    let counts = |keys: &WitnessKeys, key: &SecretKey<Witness>| {
        let line = checkpoint::cosign("a state\n", &name(), key, NOW.0 / 1_000);
        keys.verify("a state\n", &Bytes::from(line)).is_ok()
    };
    assert!(counts(&keys, &witness_key(WITNESS)) && !counts(&keys, &next_key()));
    let one = Forged::new(&coalition, NORTH, "set", 40);
    let honest = Hostile::start(&coalition, NORTH, one.script()).await;
    let node = coalition.open_in("second-witness", WITNESS, &[]);
    assert!(node.membership().accept_card(both).unwrap());
    node.witnessing().unwrap().use_key(next_key());
    let second = Victim::start_of(&coalition, WITNESS, node, hasty).await;
    second.meet(&coalition, &honest);
    second.meet_at(&coalition, SOUTH, &address(&south));
    let recorded = || {
        let recorded = second.node.witnessing().unwrap().recorded();
        recorded
            .iter()
            .any(|(feed, state)| *feed == one.feed && state.size == 40)
    };
    until("it follows the feed", recorded).await;
    until("it says that it stands back", || {
        let notices = second.node.status().unwrap().notices;
        notices
            .iter()
            .any(|notice| notice.contains("cosigns nothing") && notice.contains("n1"))
    })
    .await;
    assert_eq!(says(&second.node, &one.feed), None);
    assert!(second.node.membership().accept_card(card(3, &[])).unwrap());
    until("it takes the place of the first", || {
        says(&second.node, &one.feed) == Some((40, one.root(40)))
    })
    .await;
    until("and others know the card and count it", || {
        counts(&WitnessKeys::of(&south.node), &next_key())
    })
    .await;
    second.rest().await;
    south.rest().await;
}

/// A reader that has heard of a card.
async fn listening_to(coalition: &Coalition, card: &Bytes) -> Victim {
    let south = super::witnesses::listening(coalition, SOUTH).await;
    assert!(south.node.membership().accept_card(card.clone()).unwrap());
    south
}
