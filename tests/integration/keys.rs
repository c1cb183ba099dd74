//! Keys, certificates and node cards of nodes that run: replaced without an
//! interruption, renewed where the identity key is, read again when files change.

use std::fs;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;

use crate::world::signals::entries;
use crate::world::{Member, World, list, number, text, until_true};

/// The one entry on the member's card.
fn card(member: &Member) -> (u64, Value) {
    let card = member.json(&["card", "show"]);
    let nodes = list(&card, "nodes");
    assert_eq!(nodes.len(), 1, "{card}");
    (number(&card, "version"), nodes[0].clone())
}

fn assert_no_pull_failed(reader: &Member) {
    let (_, metrics) = reader.http("/metrics").unwrap();
    let failed: Vec<&str> = metrics
        .lines()
        .filter(|line| line.starts_with("hashpact_pull_failures_total"))
        .collect();
    assert!(failed.is_empty(), "{failed:?}");
}

#[test]
fn keys_are_rotated_while_others_pull_and_no_pull_fails() {
    let world = World::new(&["northstar", "tidepool"]);
    let (north, tide) = (world.member("northstar"), world.member("tidepool"));
    world.start_all();
    north.create_set("confirmed", &["all"]);
    let mut said = 0;
    for (key, field) in [
        ("tls", "tls_keys"),
        ("feed", "feed_keys"),
        ("receipt", "receipt_keys"),
    ] {
        let before = card(north);
        let rotating = north.call().begin(&["keys", "rotate", key, "--json"]);
        for _ in 0..4 {
            let more = entries("rotated", said..said + 50);
            said += 50;
            north.import("confirmed", &more);
            tide.wait_hits(&more, 50);
        }
        let outcome = rotating.wait().expect(&[0]);
        assert_eq!(outcome.object()["done"], true, "{outcome}");
        let after = card(north);
        assert_eq!(
            after.0,
            before.0 + 2,
            "one card with both keys, one without the old"
        );
        let (old, new) = (list(&before.1, field), list(&after.1, field));
        assert_eq!(new.len(), 1, "{key}");
        assert_ne!(old, new, "{key}");
        assert!(north.folder().join(format!("keys/{key}.key.old")).exists());
        assert!(!north.folder().join(format!("keys/{key}.key.next")).exists());
    }
    assert_no_pull_failed(tide);
    world.evidence().keep_keys_of(world.path());
    // Both start anew with what lies in the files now.
    for member in [north, tide] {
        member.stop();
        member.start();
    }
    north.wait_open("confirmed");
    let more = entries("after", 0..10);
    north.import("confirmed", &more);
    tide.wait_hits(&more, 10);
    for member in world.members() {
        member.stop();
        member.assert_sound();
    }
}

/// A connection stands for a while after the way to a peer is gone.
#[test]
fn a_key_is_not_used_before_a_silent_peer_was_heard_again() {
    let world = World::new(&["northstar", "tidepool"]);
    let (north, tide) = (world.member("northstar"), world.member("tidepool"));
    world.start_all();
    north.create_set("confirmed", &["all"]);
    let (before, after) = (entries("before", 0..5), entries("after", 0..5));
    north.import("confirmed", &before);
    tide.wait_hits(&before, 5);
    tide.tell(Signal::STOP);
    let rotating = north.call().begin(&["keys", "rotate", "tls", "--json"]);
    let said = || north.json(&["status"])["notices"].to_string();
    until_true("the node says whom it waits for", || {
        said().contains("waits to hear from tidepool/")
    });
    assert_eq!(list(&card(north).1, "tls_keys").len(), 2);
    tide.tell(Signal::CONT);
    rotating.wait().expect(&[0]);
    assert_eq!(list(&card(north).1, "tls_keys").len(), 1);
    north.import("confirmed", &after);
    tide.wait_hits(&after, 5);
    world.evidence().keep_keys_of(world.path());
}

#[test]
fn a_rotation_that_cannot_end_says_so_and_fills_no_record() {
    let world = World::new(&["northstar"]);
    let north = world.member("northstar");
    world.start_all();
    // A folder stands where the old key is to lie.
    let in_the_way = north.folder().join("keys/receipt.key.old");
    fs::create_dir_all(in_the_way.join("not-empty")).unwrap();
    north.json(&["keys", "rotate", "receipt", "--no-wait"]);
    let said = || north.json(&["status"])["notices"].to_string();
    until_true("the node says what is in the way", || {
        let said = said();
        assert!(!said.contains("error:"), "{said}");
        said.contains("receipt.key") && said.contains("next:")
    });
    // It looks every second, and tries less and less often.
    std::thread::sleep(std::time::Duration::from_secs(5));
    assert!(said().contains("receipt.key"), "{}", said());
    let line = ["audit", "--act", "keys.replace", "--json"];
    let tried = north.run(&line).expect(&[0]).objects();
    assert!((1..=3).contains(&tried.len()), "{tried:?}");
    assert!(
        tried.iter().all(|act| act["outcome"] == "failed"),
        "{tried:?}"
    );
    fs::remove_dir_all(&in_the_way).unwrap();
    let next = north.folder().join("keys/receipt.key.next");
    until_true("the rotation ends", || !next.exists());
    world.evidence().keep_keys_of(world.path());
}

/// Takes the identity key away from a node, as one that is kept offline.
fn take_identity(member: &Member, to: &Path) {
    fs::rename(member.folder().join("keys/identity.key"), to).unwrap();
    member.edit_config(|text| text.replace("\nidentity = ", "\n# identity = "));
}

#[test]
fn where_the_identity_key_is_offline_cards_are_signed_as_files() {
    let world = World::new(&["northstar", "tidepool"]);
    let (north, tide) = (world.member("northstar"), world.member("tidepool"));
    let offline = world.path().join("offline-identity.key");
    take_identity(north, &offline);
    world.evidence().keep_keys_of(world.path());
    world.start_all();
    north.create_set("confirmed", &["all"]);
    north.json(&["keys", "rotate", "feed", "--no-wait"]);
    for version in [2, 3] {
        let draft = north.folder().join(format!("node-card-v{version}.draft"));
        until_true("the node leaves a draft", || draft.exists());
        let status = north.json(&["status"]).to_string();
        assert!(status.contains("waits for signatures"), "{status}");
        let file = draft.display().to_string();
        let refused = north.run(&["card", "publish", &file]);
        assert_eq!(refused.code, Some(1), "{refused}");
        let key = offline.display().to_string();
        world
            .call()
            .json(&["card", "sign", &file, "--identity-key", &key]);
        let published = north.json(&["card", "publish", &file]);
        assert_eq!(number(&published, "version"), version);
    }
    let next = north.folder().join("keys/feed.key.next");
    until_true("the rotation ends", || !next.exists());
    let said = entries("offline", 0..20);
    north.import("confirmed", &said);
    tide.wait_hits(&said, 20);
    assert_eq!(list(&card(north).1, "feed_keys").len(), 1);
}

#[test]
fn a_second_node_is_put_on_the_card_by_the_signatures_of_both() {
    let world = World::new(&["northstar"]);
    let north = world.member("northstar");
    let genesis = text(&north.json(&["status"]), "genesis");
    let second = world.path().join("second");
    let identity = north
        .folder()
        .join("keys/identity.key")
        .display()
        .to_string();
    let dir = second.display().to_string();
    let line = [
        "init",
        "--dir",
        &dir,
        "--genesis",
        &genesis,
        "--member",
        "northstar",
    ];
    let more = [
        "--coalition",
        crate::world::COALITION,
        "--node",
        "second",
        "--listen",
        "off",
    ];
    let desk = [
        "--contact-name",
        "Desk",
        "--contact-email",
        "desk@north.example",
    ];
    let key = ["--identity-key", &identity];
    world.call().json(&[&line[..], &more, &desk, &key].concat());
    let request = second
        .join("enrolment-northstar.request")
        .display()
        .to_string();
    let draft = world.path().join("both.card").display().to_string();
    north.json(&["card", "draft", &draft, "--add", &request]);
    let refused = north.run(&["card", "publish", &draft]);
    assert_eq!(
        refused.code,
        Some(1),
        "the second node's keys did not sign: {refused}"
    );
    world
        .call()
        .config(&second.join("hashpact.toml"))
        .json(&["card", "sign", &draft]);
    let card = north.json(&["card", "publish", &draft]);
    assert_eq!(list(&card, "nodes").len(), 2);
    assert_eq!(number(&north.json(&["card", "show"]), "version"), 2);
}

/// A certificate around the node's TLS key that holds for so many days.
fn certify(member: &Member, days: u32) {
    let keys = member.folder().join("keys");
    let (key, made) = (keys.join("tls.key"), keys.join("made.crt"));
    let openssl = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-subj",
            "/CN=node.northstar.example",
            "-days",
        ])
        .arg(days.to_string())
        .arg("-key")
        .arg(&key)
        .arg("-out")
        .arg(&made)
        .output()
        .unwrap();
    assert!(openssl.status.success(), "{openssl:?}");
    fs::rename(made, keys.join("tls.crt")).unwrap();
}

#[test]
fn a_companys_certificate_is_read_again_when_its_file_changes_and_its_end_is_an_alarm() {
    let world = World::new(&["northstar"]);
    let north = world.member("northstar");
    certify(north, 200);
    north.edit_config(|text| text.replace("\n# tls_certificate = ", "\ntls_certificate = "));
    world.start_all();
    let ends = || text(&north.json(&["status"]), "certificate_expires");
    let notices = || north.json(&["status"])["notices"].to_string();
    let first = ends();
    assert!(!notices().contains("certificate"), "{}", notices());
    certify(north, 5);
    until_true("the new one is read", || ends() != first);
    assert!(
        notices().contains("ALARM: the TLS certificate"),
        "{}",
        notices()
    );
    let (_, metrics) = north.http("/metrics").unwrap();
    assert!(
        metrics.contains("hashpact_expiry_alarm{of=\"certificate\"} 3"),
        "{metrics}"
    );
    // A file that is none is not taken, and is said.
    fs::write(north.folder().join("keys/tls.crt"), "no certificate").unwrap();
    until_true("it is refused", || notices().contains("files are not used"));
    let log = fs::read_to_string(north.log_file()).unwrap();
    assert!(
        log.contains("ALARM: the TLS certificate expires in"),
        "the log says it"
    );
}

#[test]
fn sighup_reads_the_certificate_again_and_is_recorded() {
    let world = World::new(&["northstar"]);
    let north = world.member("northstar");
    certify(north, 200);
    north.edit_config(|text| text.replace("\n# tls_certificate = ", "\ntls_certificate = "));
    world.start_all();
    let reloads = || {
        let line = ["audit", "--act", "config.reload", "--json"];
        north.run(&line).expect(&[0]).objects()
    };
    assert!(reloads().is_empty());
    north.tell(rustix::process::Signal::HUP);
    until_true("it is recorded", || {
        reloads().iter().any(|act| act["via"] == "signal")
    });
    assert_eq!(reloads()[0]["outcome"], "ok");
    until_true("the log says it", || {
        let log = fs::read_to_string(north.log_file()).unwrap();
        log.contains("the TLS certificate was read again")
    });
    assert!(north.runs());
}

/// A member whose card names two feed keys: the rotation waits for a peer that is away.
fn mid_rotation(member: &Member) {
    member.start();
    member.json(&["keys", "rotate", "feed", "--no-wait"]);
    until_true("both keys are on the card", || {
        list(&card(member).1, "feed_keys").len() == 2
    });
}

#[test]
fn an_identity_key_is_rotated_amid_the_rotation_of_a_feed_key() {
    let world = World::new(&["northstar", "tidepool"]);
    let north = world.member("northstar");
    mid_rotation(north);
    let made = north.json(&["enrol", "rotate-identity", "keys/identity-2.key"]);
    assert_eq!(made["signed_by_old_key"], true, "{made}");
    assert!(north.folder().join("keys/feed.key.next").exists());
    world.evidence().keep_keys_of(world.path());
}

#[test]
fn a_tls_key_that_is_not_on_the_card_is_an_alarm_and_gets_onto_none() {
    let world = World::new(&["northstar", "tidepool"]);
    let (north, tide) = (world.member("northstar"), world.member("tidepool"));
    north.start();
    let before = card(north);
    let alarm = || north.json(&["status"])["notices"].to_string();
    let metric = |value: &str| {
        let (_, metrics) = north.http("/metrics").unwrap();
        metrics.contains(&format!("hashpact_tls_key_not_on_card {value}"))
    };
    until_true("it is looked at", || metric("0"));
    assert!(!alarm().contains("ALARM"), "{}", alarm());
    north.stop();
    let (key, kept) = (
        north.folder().join("keys/tls.key"),
        north.folder().join("keys/tls.kept"),
    );
    fs::rename(&key, &kept).unwrap();
    fs::copy(tide.folder().join("keys/tls.key"), &key).unwrap();
    north.start();
    until_true("it is an alarm", || {
        alarm().contains("is not on this member's node card")
    });
    until_true("the metric says it", || metric("1"));
    let log = fs::read_to_string(north.log_file()).unwrap();
    assert!(log.contains("is not on this member's node card"));
    assert_eq!(card(north), before, "no card that no peer would be given");
    north.stop();
    fs::rename(&kept, &key).unwrap();
    north.start();
    until_true("it is over", || metric("0"));
    assert!(!alarm().contains("ALARM"), "{}", alarm());
}
