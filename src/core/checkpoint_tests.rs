//! Tests of checkpoints: golden vector, and every byte of a note.

use proptest::prelude::*;

use super::*;

const VECTOR: &str = include_str!("../../tests/vectors/checkpoint.json");

fn key() -> SecretKey<Feed> {
    SecretKey::from_seed(&[1; 32])
}

fn witness() -> SecretKey<Witness> {
    SecretKey::from_seed(&[2; 32])
}

fn coalition() -> CoalitionName {
    CoalitionName::parse("csa-coalition.example").unwrap()
}

fn checkpoint() -> Checkpoint {
    Checkpoint {
        origin: Origin {
            coalition: coalition(),
            feed: FeedId(Digest([0xab; 32])),
            epoch: 1,
        },
        size: 1_234_567,
        root: Digest::of(b"root"),
    }
}

fn check(note: &[u8]) -> Result<Verified<SignedCheckpoint>, Rejection> {
    let keys = |epoch| {
        if epoch == 1 {
            vec![key().public()]
        } else {
            vec![]
        }
    };
    verify(note, &coalition(), &checkpoint().origin.feed, keys)
}

fn code<T>(result: Result<T, Rejection>) -> Option<&'static str> {
    result.err().map(|rejection| rejection.code())
}

/// Signs any text as a note would be, to test what the signature does not.
fn sign_text(text: &str, name: &str) -> Vec<u8> {
    let line = SignatureLine {
        name: name.to_owned(),
        key_id: note::key_id(name, &key().public()),
        signature: key().sign(text.as_bytes()).to_vec(),
    };
    let signatures = vec![line];
    let text = text.to_owned();
    Note { text, signatures }.format().into_bytes()
}

#[test]
fn the_golden_vector_is_what_is_signed() {
    let name = checkpoint().origin.to_string();
    let witness_name = witness_name(&coalition(), &Slug::parse("harbour").unwrap());
    let escape = |text: &str| text.replace('\n', "\\n");
    let note = String::from_utf8(sign(&checkpoint(), &key())).unwrap();
    let line = cosign(
        &checkpoint().body(),
        &witness_name,
        &witness(),
        1_790_000_000,
    );
    let fields = [
        ("feed_key_seed", "01".repeat(32)),
        ("feed_key", key().public().to_string()),
        ("feed_vkey", vkey(&name, &key().public())),
        ("origin", name),
        ("size", checkpoint().size.to_string()),
        ("root", checkpoint().root.to_string()),
        ("note", escape(&note)),
        ("witness_key_seed", "02".repeat(32)),
        ("witness_key", witness().public().to_string()),
        ("witness_vkey", vkey(&witness_name, &witness().public())),
        ("witness_name", witness_name),
        ("cosigned_time_s", "1790000000".to_owned()),
        ("cosignature", escape(&line)),
    ];
    let lines = fields.map(|(field, value)| format!("  \"{field}\": \"{value}\""));
    assert_eq!(format!("{{\n{}\n}}\n", lines.join(",\n")), VECTOR);
}

#[test]
fn a_signed_checkpoint_verifies_as_signed() {
    let note = sign(&checkpoint(), &key());
    let verified = check(&note).unwrap();
    assert_eq!(verified.checkpoint, checkpoint());
    assert_eq!(verified.key, key().public());
    assert_eq!(verified.note, note);
}

#[test]
fn a_note_with_any_byte_changed_is_refused() {
    let note = sign(&checkpoint(), &key());
    for at in 0..note.len() {
        for flip in (0..8).map(|bit| 1 << bit).chain([0xff]) {
            let mut bad = note.clone();
            bad[at] ^= flip;
            assert!(check(&bad).is_err(), "byte {at} with {flip:#x}");
        }
        let mut bad = note.clone();
        bad.remove(at);
        assert!(check(&bad).is_err(), "without byte {at}");
        bad.insert(at, note[at]);
        bad.insert(at, b'0');
        assert!(check(&bad).is_err(), "more at {at}");
        assert!(check(&note[..at]).is_err(), "cut at {at}");
    }
}

#[test]
fn a_note_of_another_feed_coalition_or_epoch_is_refused() {
    let note = sign(&checkpoint(), &key());
    let keys = |_| vec![key().public()];
    let feed = checkpoint().origin.feed;
    let other_feed = FeedId(Digest([0xac; 32]));
    let other_coalition = CoalitionName::parse("other.example").unwrap();
    assert_eq!(
        code(verify(&note, &coalition(), &other_feed, keys)),
        Some("wrong_origin")
    );
    assert_eq!(
        code(verify(&note, &other_coalition, &feed, keys)),
        Some("wrong_origin")
    );
    let mut next_epoch = checkpoint();
    next_epoch.origin.epoch = 2;
    assert_eq!(
        code(check(&sign(&next_epoch, &key()))),
        Some("bad_signature")
    );
}

#[test]
fn a_note_by_a_key_that_the_feed_does_not_have_is_refused() {
    let note = sign(&checkpoint(), &SecretKey::from_seed(&[3; 32]));
    assert_eq!(code(check(&note)), Some("bad_signature"));
}

#[test]
fn a_note_with_another_signature_beside_the_publishers_is_refused() {
    let mut note = sign(&checkpoint(), &key());
    let own = note
        .split_inclusive(|b| *b == b'\n')
        .next_back()
        .unwrap()
        .to_vec();
    note.extend(own);
    assert_eq!(code(check(&note)), Some("malformed"));
}

#[test]
fn a_body_that_is_not_canonical_is_refused_though_it_is_signed() {
    let body = checkpoint().body();
    let name = checkpoint().origin.to_string();
    assert!(check(&sign_text(&body, &name)).is_ok());
    for bad in [
        body.replace("1234567", "01234567"),
        body.replace("1234567", "+1234567"),
        body.replace("1234567", "1234567 "),
        body.replace("1234567", "-1"),
        body.replace("1234567", "18446744073709551616"),
        body.replace("1234567", "1099511627777"),
        body.replace("1234567", "0"),
        body.replace("abab", "ABAB"),
        body.replace("/1\n", "/01\n"),
        body.replace("/1\n", "/1/\n"),
        body.replace("/feed/", "/set/"),
        body.replace('=', ""),
        format!("{body}extension\n"),
        format!("{body}\n"),
        format!("\n{body}"),
        name.clone() + "\n1\n",
    ] {
        assert!(check(&sign_text(&bad, &name)).is_err(), "{bad:?}");
    }
    assert!(check(&sign_text(&body, "other.example")).is_err());
}

#[test]
fn the_checkpoint_of_an_empty_feed_has_the_empty_root() {
    let mut empty = checkpoint();
    empty.size = 0;
    assert_eq!(code(check(&sign(&empty, &key()))), Some("invalid"));
    empty.root = empty_root();
    assert!(check(&sign(&empty, &key())).is_ok());
}

#[test]
fn a_cosignature_holds_for_its_body_name_key_and_time_only() {
    let (body, name) = (checkpoint().body(), "csa-coalition.example/witness/harbour");
    let line = cosign(&body, name, &witness(), 1_790_000_000);
    let key = witness().public();
    let cosignature = verify_cosignature(&body, line.as_bytes(), name, &key).unwrap();
    assert_eq!(cosignature.time_s, 1_790_000_000);
    for at in 0..line.len() {
        for bit in 0..8 {
            let mut bad = line.clone().into_bytes();
            bad[at] ^= 1 << bit;
            assert!(
                verify_cosignature(&body, &bad, name, &key).is_err(),
                "byte {at}"
            );
        }
    }
    let mut other = checkpoint();
    other.size += 1;
    assert!(verify_cosignature(&other.body(), line.as_bytes(), name, &key).is_err());
    let other = SecretKey::<Witness>::from_seed(&[4; 32]).public();
    assert!(verify_cosignature(&body, line.as_bytes(), name, &other).is_err());
    assert!(verify_cosignature(&body, line.as_bytes(), "w.example", &key).is_err());
}

#[test]
fn a_feed_signature_is_no_cosignature_by_the_same_key() {
    let (body, name) = (checkpoint().body(), "w.example");
    let same = SecretKey::<Witness>::from_seed(&[1; 32]).public();
    let line = SignatureLine {
        name: name.to_owned(),
        key_id: note::key_id(name, &same),
        signature: key().sign(body.as_bytes()).to_vec(),
    };
    let verdict = verify_cosignature(&body, line.format().as_bytes(), name, &same);
    assert_eq!(code(verdict), Some("bad_signature"));
}

proptest! {
    #[test]
    fn any_checkpoint_reads_back_as_signed(size in 1_u64..=FEED_MAX_LEAVES, root: [u8; 32], feed: [u8; 32], epoch: u32) {
        let origin = Origin { coalition: coalition(), feed: FeedId(Digest(feed)), epoch };
        let checkpoint = Checkpoint { origin, size, root: Digest(root) };
        let note = sign(&checkpoint, &key());
        let keys = |_| vec![key().public()];
        let verified = verify(&note, &coalition(), &FeedId(Digest(feed)), keys).unwrap();
        prop_assert_eq!(&verified.checkpoint, &checkpoint);
    }
}
