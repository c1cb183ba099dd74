//! What `hashpact init` makes, and what it refuses to write over.

use super::*;
use crate::cli::fingerprint::Fingerprint;
use clap::Parser;
use hashpact_core::enrol::VerifiedRequest;
use hashpact_core::envelope::{Envelope, PayloadType};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: InitArgs,
}

const GENESIS: &str = "0707070707070707070707070707070707070707070707070707070707070707";

fn arguments(dir: &Path, more: &[&str]) -> InitArgs {
    let dir = dir.display().to_string();
    let mut line = vec!["init", "--dir", &dir, "--genesis", GENESIS];
    line.extend(["--coalition", "csa-coalition.example", "--member", "north"]);
    line.extend([
        "--contact-name",
        "Desk",
        "--contact-email",
        "desk@north.example",
    ]);
    line.extend(more);
    Line::try_parse_from(line).unwrap().args
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn a_node_is_made_that_an_administrator_can_admit() {
    let folder = folder();
    let (context, printed) = Context::for_test(true);
    let more = [
        "--advertise",
        "node.north.example:7443",
        "--role",
        "publish",
    ];
    run(arguments(folder.path(), &more), &context).unwrap();
    let config = Config::load(&folder.path().join(CONFIG), Files::Check).unwrap();
    assert_eq!(config.member.slug.as_str(), "north");
    assert_eq!(config.coalition.genesis.to_string(), GENESIS);
    assert!(config.coalition.bootstrap.is_empty());
    let bytes = fs::read(folder.path().join("enrolment-north.request")).unwrap();
    let envelope = Envelope::decode(bytes.into(), PayloadType::EnrolmentRequest).unwrap();
    let verified = VerifiedRequest::verify(envelope, Clock::system().now()).unwrap();
    let said: serde_json::Value = serde_json::from_str(&printed.text()).unwrap();
    assert_eq!(said["fingerprint"], verified.fingerprint());
    let words = Fingerprint::of(&verified.digest());
    assert_eq!(said["words"], words.to_string());
    assert_eq!(verified.card().nodes.len(), 1);
    // The keys on the card are those in the files.
    let feed = keyfile::load::<Feed>(&config.keys.feed).unwrap();
    assert_eq!(verified.card().nodes[0].feed_keys[0].key, feed.public());
}

#[test]
fn folders_and_keys_are_for_their_owner_alone() {
    let folder = folder();
    let (context, _) = Context::for_test(false);
    let dir = folder.path().join("node");
    run(arguments(&dir, &[]), &context).unwrap();
    for (name, mode) in [
        ("", 0o700),
        (KEYS, 0o700),
        (DATA, 0o700),
        (SIGN_STATE, 0o700),
        (IDENTITY_KEY, 0o600),
        (FEED_KEY, 0o600),
        (RECEIPT_KEY, 0o600),
        (TLS_KEY, 0o600),
    ] {
        let found = fs::metadata(dir.join(name)).unwrap().permissions().mode();
        assert_eq!(found & 0o7777, mode, "{name}");
    }
}

#[test]
fn nothing_that_exists_is_written_over() {
    let folder = folder();
    let (context, _) = Context::for_test(false);
    run(arguments(folder.path(), &[]), &context).unwrap();
    let before = fs::read(folder.path().join(FEED_KEY)).unwrap();
    assert!(run(arguments(folder.path(), &[]), &context).is_err());
    fs::remove_file(folder.path().join(CONFIG)).unwrap();
    fs::remove_file(folder.path().join("enrolment-north.request")).unwrap();
    assert!(run(arguments(folder.path(), &[]), &context).is_err());
    assert_eq!(fs::read(folder.path().join(FEED_KEY)).unwrap(), before);
    assert!(!folder.path().join(CONFIG).exists());
}

#[test]
fn the_keys_of_a_run_that_failed_go_away_again() {
    let folder = folder();
    let (context, _) = Context::for_test(false);
    fs::create_dir(folder.path().join(KEYS)).unwrap();
    fs::write(folder.path().join(TLS_KEY), "mine").unwrap();
    assert!(run(arguments(folder.path(), &[]), &context).is_err());
    assert!(!folder.path().join(IDENTITY_KEY).exists());
    assert!(!folder.path().join(FEED_KEY).exists());
    assert_eq!(fs::read(folder.path().join(TLS_KEY)).unwrap(), b"mine");
}

#[test]
fn every_argument_reaches_the_configuration() {
    let folder = folder();
    let more = [
        "--node",
        "second",
        "--listen",
        "off",
        "--http-listen",
        "off",
        "--api-socket",
        "a\"b.sock",
        "--roster-file",
        "r.hashpact",
        "--bootstrap",
        "south=h.south.example:1",
        "--bootstrap",
        "east=[2001:db8::1]:2",
    ];
    let text = template::config(&arguments(folder.path(), &more));
    let config = Config::parse(&text, folder.path(), Files::Ignore).unwrap();
    assert_eq!(config.node.name.as_str(), "second");
    assert_eq!(
        (config.federation.listen, config.api.http_listen),
        (None, None)
    );
    assert_eq!(config.api.socket, folder.path().join("a\"b.sock"));
    assert_eq!(
        config.coalition.roster_file,
        Some(folder.path().join("r.hashpact"))
    );
    let peers: Vec<String> = config
        .coalition
        .bootstrap
        .iter()
        .map(|peer| format!("{}={}", peer.member.as_ref().unwrap(), peer.endpoint))
        .collect();
    assert_eq!(peers, ["south=h.south.example:1", "east=[2001:db8::1]:2"]);
}

#[test]
fn the_configuration_has_every_key_of_the_sample() {
    let folder = folder();
    let text = template::config(&arguments(folder.path(), &[]));
    let keys = |text: &str| {
        let lines = text.lines().filter_map(|line| line.split_once(" = "));
        lines
            .map(|(key, _)| key.trim_start_matches("# ").to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        keys(&text),
        keys(include_str!("../../../deploy/hashpact.full.toml"))
    );
}

#[test]
fn a_loopback_endpoint_needs_its_flag() {
    let folder = folder();
    let (context, _) = Context::for_test(false);
    let local = ["--advertise", "127.0.0.1:7443"];
    let refused = run(arguments(folder.path(), &local), &context).unwrap_err();
    assert!(
        refused.to_string().contains("--allow-loopback-endpoints"),
        "{refused}"
    );
    assert!(!folder.path().join(KEYS).exists());
    let allowed = [
        "--advertise",
        "127.0.0.1:7443",
        "--allow-loopback-endpoints",
    ];
    run(arguments(folder.path(), &allowed), &context).unwrap();
}
