//! Cosignatures and receipts that a peer shows beside heads.

use hashpact_core::checkpoint::{cosign, witness_name};
use hashpact_core::keys::{Receipt as ReceiptKey, Witness};
use hashpact_core::note::Note;
use hashpact_core::receipt::Receipt;

use super::hostile::{Forged, Hostile, Script, Victim, coalition_name, ticking, until};
use super::*;
use crate::types::Announcement;

fn witness_key() -> SecretKey<Witness> {
    SecretKey::from_seed(&[71; 32])
}

fn receipt_key() -> SecretKey<ReceiptKey> {
    SecretKey::from_seed(&[72; 32])
}

struct Shown {
    coalition: Coalition,
    forged: Forged,
    hostile: Hostile,
    victim: Victim,
}

impl Shown {
    /// A victim that has a feed, with a witness and a reader that have keys.
    async fn new() -> Self {
        let coalition = ticking();
        let forged = Forged::new(&coalition, NORTH, "set", 40);
        let hostile = Hostile::start(&coalition, NORTH, forged.script()).await;
        let victim = Victim::start(&coalition).await;
        let cards = [
            coalition.card_signed(
                WITNESS,
                5,
                |draft| {
                    draft.sign(&witness_key());
                },
                |card| {
                    card.nodes[0].witness_keys = vec![witness_key().public()];
                },
            ),
            coalition.card_signed(
                WEST,
                5,
                |draft| {
                    draft.sign(&receipt_key());
                },
                |card| {
                    card.nodes[0].receipt_keys = vec![receipt_key().public()];
                },
            ),
        ];
        for card in cards {
            assert!(victim.node.membership().accept_card(card).unwrap());
        }
        victim.meet(&coalition, &hostile);
        until("all is there", || victim.applied(&forged.feed) == 40).await;
        Self {
            coalition,
            forged,
            hostile,
            victim,
        }
    }

    fn head(&self) -> crate::types::Head {
        let Announcement::Head(head) = self.forged.head(40) else {
            panic!("a head")
        };
        *head
    }

    fn cosignature(&self, key: &SecretKey<Witness>, member: &str, at: UnixMillis) -> Bytes {
        let body = Note::parse(&self.head().note).unwrap().text;
        let name = witness_name(&coalition_name(), &slug(member));
        cosign(&body, &name, key, at.0 / 1_000).into()
    }

    fn receipt(&self, change: impl FnOnce(&mut Receipt)) -> Bytes {
        self.receipt_by(&receipt_key(), change)
    }

    fn receipt_by(&self, key: &SecretKey<ReceiptKey>, change: impl FnOnce(&mut Receipt)) -> Bytes {
        let mut receipt = Receipt {
            genesis: self.coalition.genesis,
            member: number(WEST),
            node: slug("n1"),
            feed: self.forged.feed,
            epoch: 0,
            size: 40,
            root: self.forged.root(40),
            since: NOW,
            signed: NOW,
        };
        change(&mut receipt);
        let mut draft = receipt.to_envelope().unwrap();
        draft.sign(key);
        draft.finish().unwrap().as_bytes().clone()
    }

    fn says(&self, cosignatures: Vec<Bytes>, receipts: Vec<Bytes>) {
        let mut head = self.head();
        head.cosignatures = cosignatures;
        head.receipts = receipts;
        self.hostile.says(Announcement::Head(Box::new(head)));
    }

    /// What the victim said of the feed itself.
    fn own_word(&self) -> Option<Bytes> {
        let no = self.victim.held(&self.forged.feed).unwrap().no;
        let store = self.victim.node.store();
        let own = store.receipt(no, number(SOUTH), &slug("n1")).unwrap();
        own.map(|own| own.envelope)
    }

    fn kept(&self) -> (Vec<Bytes>, Vec<Bytes>) {
        let no = self.victim.held(&self.forged.feed).unwrap().no;
        let store = self.victim.node.store();
        let head = store.head(no, 0, 40).unwrap().unwrap();
        let receipts = store.receipts(no, Some(number(WEST))).unwrap();
        let receipts = receipts.into_iter().map(|kept| kept.envelope);
        (head.cosignatures, receipts.collect())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cosignatures_and_receipts_that_verify_are_kept_the_newest_of_each_and_told_on() {
    let scene = Shown::new().await;
    let early = scene.cosignature(&witness_key(), "witness", NOW);
    let later = scene.cosignature(&witness_key(), "witness", NOW.plus(60_000));
    let first = scene.receipt(|_| ());
    let second = scene.receipt(|receipt| receipt.signed = NOW.plus(1));
    scene.says(
        vec![later.clone(), early.clone()],
        vec![second.clone(), first],
    );
    let expected = (vec![later], vec![second]);
    until("they are kept", || scene.kept() == expected).await;
    scene.says(vec![early], vec![]);
    assert_eq!(scene.kept(), expected);
    assert!(scene.victim.refused(&scene.hostile).is_empty());
    // What was signed before is no news, whoever says it.
    scene.says(vec![], vec![scene.receipt(|_| ())]);
    let told = |to| {
        let node = Arc::clone(&scene.victim.node);
        async move {
            let mut watch = crate::exchange::announce::told_to(node, number(to));
            let said = snapshot_of(&mut watch).await;
            let mut beside = said.into_iter().filter_map(|item| {
                let Announcement::Head(head) = item else {
                    return None;
                };
                Some((head.cosignatures, head.receipts))
            });
            beside.next().unwrap()
        }
    };
    until("the victim has said so itself", || {
        scene.own_word().is_some()
    })
    .await;
    let own = scene.own_word().unwrap();
    let both = vec![own.clone(), expected.1[0].clone()];
    assert_eq!(told(NORTH).await, (expected.0.clone(), both.clone()));
    // Whoever lost its store learns from others what it said.
    assert_eq!(told(WEST).await, (expected.0.clone(), both));
    // Who acts on what is nothing to a witness that reads nothing.
    assert_eq!(told(WITNESS).await, (expected.0.clone(), vec![]));
    assert_eq!(scene.kept(), expected);
    scene.victim.stop(&scene.coalition).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_verify_beside_a_head_is_refused_and_the_head_counts() {
    type Lie = (
        &'static str,
        fn(&Shown) -> (Vec<Bytes>, Vec<Bytes>),
        &'static str,
    );
    let stranger = |scene: &Shown| {
        let key = SecretKey::from_seed(&[73; 32]);
        (vec![scene.cosignature(&key, "witness", NOW)], vec![])
    };
    let lies: [Lie; 12] = [
        ("a stranger's cosignature", stranger, "bad_signature"),
        (
            "one by a member without the role",
            |s| (vec![s.cosignature(&witness_key(), "west", NOW)], vec![]),
            "unknown",
        ),
        (
            "one of the future",
            |s| {
                let at = NOW.plus(3_600_000);
                (vec![s.cosignature(&witness_key(), "witness", at)], vec![])
            },
            "from_the_future",
        ),
        (
            "no line",
            |_| (vec![Bytes::from_static(b"nothing")], vec![]),
            "malformed",
        ),
        (
            "a receipt of another root",
            |s| (vec![], vec![s.receipt(|receipt| receipt.size = 39)]),
            "two_roots",
        ),
        (
            "a receipt of another feed",
            |s| {
                let other = |receipt: &mut Receipt| receipt.feed = FeedId(Digest([9; 32]));
                (vec![], vec![s.receipt(other)])
            },
            "invalid",
        ),
        (
            "a receipt of an epoch that is not open",
            |s| (vec![], vec![s.receipt(|receipt| receipt.epoch = 1)]),
            "wrong_epoch",
        ),
        (
            "a receipt of the future",
            |s| {
                let later = |receipt: &mut Receipt| receipt.signed = NOW.plus(3_600_000);
                (vec![], vec![s.receipt(later)])
            },
            "from_the_future",
        ),
        (
            "a receipt in the name of another member's node",
            |s| {
                let other = |receipt: &mut Receipt| receipt.member = number(NORTH);
                (vec![], vec![s.receipt(other)])
            },
            "bad_signature",
        ),
        (
            "a receipt of a member that may not read",
            |s| {
                let other = |receipt: &mut Receipt| {
                    receipt.member = number(WITNESS);
                };
                (
                    vec![],
                    vec![s.receipt_by(&super::receipt_key(WITNESS), other)],
                )
            },
            "unknown",
        ),
        (
            "a receipt of a node that is on no card",
            |s| (vec![], vec![s.receipt(|receipt| receipt.node = slug("n9"))]),
            "unknown",
        ),
        (
            "no receipt",
            |_| (vec![], vec![Bytes::from_static(b"\xff")]),
            "malformed",
        ),
    ];
    let scene = Shown::new().await;
    let mut expected = BTreeSet::new();
    for (what, lie, code) in lies {
        let (cosignatures, receipts) = lie(&scene);
        scene.says(cosignatures, receipts);
        expected.insert(code);
        until(what, || scene.victim.refused(&scene.hostile) == expected).await;
        assert_eq!(scene.kept(), (vec![], vec![]), "{what}");
    }
    scene.victim.stop(&scene.coalition).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_before_its_head_took_effect_is_kept_beside_it_then() {
    let scene = Shown::new().await;
    // The same again at a head that is pulled only now.
    let mut longer = Forged::new(&scene.coalition, NORTH, "set", 60);
    longer.leaves[50] = super::hostile::publish_leaf(777);
    let Announcement::Head(mut head) = longer.head(60) else {
        panic!("a head")
    };
    let body = Note::parse(&head.note).unwrap().text;
    let name = witness_name(&coalition_name(), &slug("witness"));
    let line: Bytes = cosign(&body, &name, &witness_key(), NOW.0 / 1_000).into();
    head.cosignatures = vec![line.clone()];
    scene.hostile.plays(Script {
        give: Some(longer.clone().give()),
        ..Script::default()
    });
    scene.hostile.says(Announcement::Head(head));
    until("the head is there", || {
        scene.victim.applied(&longer.feed) == 60
    })
    .await;
    until("with its cosignature", || {
        let no = scene.victim.held(&longer.feed).unwrap().no;
        let head = scene.victim.node.store().head(no, 0, 60).unwrap().unwrap();
        head.cosignatures == [line.clone()]
    })
    .await;
    scene.victim.stop(&scene.coalition).await;
}
