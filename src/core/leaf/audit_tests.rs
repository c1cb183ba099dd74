//! Acts and segments: what is written is read, what breaks a rule is refused, and no
//! value gets in by way of a text.

use data_encoding::{BASE64, HEXLOWER};
use proptest::prelude::*;

use super::*;
use crate::leaf::{Leaf, RawLeaf, read};

fn act() -> Act {
    let mut act = Act::new(
        "set.create",
        Actor {
            role: ActorRole::Administrator,
            via: "socket".to_owned(),
            name: String::new(),
            uid: Some(0),
            command: "set-create".to_owned(),
        },
    )
    .of_set("north/confirmed")
    .of_member("harbor");
    act.began = UnixMillis(5);
    act.ended = UnixMillis(9);
    act.outcome = OK.to_owned();
    act.count("grants", 2);
    act.detail("grant", "all");
    act
}

fn segment() -> Segment {
    Segment {
        genesis: Digest([1; 32]),
        member: Slug::parse("north").unwrap(),
        node: Slug::parse("main").unwrap(),
        number: 3,
        created: UnixMillis(7),
        predecessor: Some(Predecessor {
            feed: FeedId(Digest([2; 32])),
            size: 9,
            root: Digest([3; 32]),
            note: Bytes::from_static(b"note"),
            broken: Some(Break::StoreBehind),
        }),
    }
}

#[test]
fn what_is_written_is_read() {
    assert_eq!(Act::read(&act().encode([4; 16]).unwrap()), Ok(act()));
    let first = Segment {
        predecessor: None,
        ..segment()
    };
    for segment in [segment(), first] {
        assert_eq!(
            Segment::read(&segment.encode([4; 16]).unwrap()),
            Ok(segment)
        );
    }
}

#[test]
fn in_a_sets_feed_such_a_leaf_says_nothing() {
    let leaf = RawLeaf::new(AUDIT_ACT, act().encode([4; 16]).unwrap());
    assert_eq!(read(&leaf, 1), Leaf::Unknown(AUDIT_ACT));
    let first = RawLeaf::new(AUDIT_SEGMENT, segment().encode([4; 16]).unwrap());
    assert_eq!(read(&first, 0), Leaf::Unknown(AUDIT_SEGMENT));
}

#[test]
fn an_act_is_recorded_whatever_was_said() {
    let mut act = act();
    for n in 0..100 {
        act.detail(&format!("d{n}"), "word ".repeat(1_000));
        act.count(&format!("c{n}"), n);
    }
    act.set = "x".repeat(1_000);
    act.detail("terminal", "\u{1b}[2J\u{202e}\n");
    let read = Act::read(&act.encode([4; 16]).unwrap()).unwrap();
    assert_eq!(read.act, "set.create");
    assert_eq!(read.counts.len(), COUNTS_MAX);
    assert!(read.set.len() <= 100 && !read.details.is_empty());
}

#[test]
fn texts_lose_what_may_be_a_value_and_keep_the_rest() {
    let value: Vec<u8> = (100..132).collect();
    let hex = HEXLOWER.encode(&value);
    let groups = hex
        .as_bytes()
        .chunks(4)
        .map(|group| std::str::from_utf8(group).unwrap())
        .collect::<Vec<_>>();
    for secret in [
        hex.clone(),
        hex.to_uppercase(),
        hex[..16].to_owned(),
        groups.join(" "),
        groups.join(":"),
        groups.join("-"),
        BASE64.encode(&value),
        BASE64.encode(&value[..16]),
        format!("sha256={hex}"),
    ] {
        let said = careful(&format!("wrong: ({secret}), sorry"));
        assert!(said.contains(TAKEN_OUT), "{said}");
        assert!(!said.contains(&secret[..8]), "{said}");
        assert!(
            said.starts_with("wrong") && said.ends_with("sorry"),
            "{said}"
        );
    }
    let plain = "Court order 2026/114 of 3 May; ask desk@northstar.example, +31 20 555 0100";
    assert_eq!(careful(plain), plain);
}

#[test]
fn a_value_is_no_name_even_where_it_could_be_a_slug() {
    let act = Act::new("set.grant", Actor::node())
        .of_set("north/d41d8cd98f00b204e9800998ecf8427e")
        .of_member("d41d8cd9-8f00-b204-e980-0998ecf8427e");
    assert_eq!(
        (act.set.as_str(), act.member.as_str()),
        ("north/[taken out]", TAKEN_OUT)
    );
}

#[test]
fn a_payload_that_breaks_a_rule_is_refused() {
    let good = act().encode([4; 16]).unwrap();
    for change in [
        (|m: &mut wire::AuditAct| m.salt = Bytes::new()) as fn(&mut wire::AuditAct),
        |m| m.act = "x".repeat(81),
        |m| m.set = "a\u{1b}b".to_owned(),
        |m| m.actor.as_mut().unwrap().role = 0,
        |m| m.actor.as_mut().unwrap().role = 99,
        |m| m.actor.as_mut().unwrap().uid_plus_one = u64::MAX,
        |m| m.counts = vec![wire::AuditCount::default(); COUNTS_MAX + 1],
        |m| m.details = vec![wire::AuditDetail::default(); DETAILS_MAX + 1],
    ] {
        let mut message: wire::AuditAct = prost::Message::decode(good.clone()).unwrap();
        change(&mut message);
        let bytes = prost::Message::encode_to_vec(&message).into();
        assert!(Act::read(&bytes).is_err());
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let bytes = Bytes::from(bytes);
        let _ = Act::read(&bytes);
        let _ = Segment::read(&bytes);
    }

    #[test]
    fn no_value_survives_in_a_text(value in prop::collection::vec(any::<u8>(), 16..64),
        before in "[a-z ,.]{0,12}", after in "[a-z ,.]{0,12}") {
        for secret in [HEXLOWER.encode(&value), BASE64.encode(&value)] {
            let said = careful(&format!("{before}{secret}{after}"));
            prop_assert!(!said.contains(&secret[..16]), "{}", said);
        }
    }
}

#[test]
fn a_text_for_everybody_is_looked_through_for_values_and_long_words_are_none() {
    let md5 = "9e107d9d372bb6826bd81d3542a419d6";
    let sha1 = "L9ThxnotKPzthJ7hu3bnORuT6xI=";
    for text in [
        md5.to_owned(),
        format!("see {md5}."),
        format!("({sha1})"),
        md5.to_uppercase(),
    ] {
        assert!(holds_value(&text), "{text}");
    }
    for text in [
        "",
        "case 2026-11-22/0815, court order 17 Cs 123/26",
        "Rindfleischetikettierungsueberwachungsaufgaben",
        "0123456789abcdef",
        "https://example.test/a/very/long/path/to/a/ticket/1234",
    ] {
        assert!(!holds_value(text), "{text}");
    }
}
