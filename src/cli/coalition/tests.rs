//! A coalition founded and grown by its commands, in folders of its own.

use super::*;
use crate::cli::init;
use clap::Parser;
use std::path::Path;

#[derive(Parser)]
struct Coalition {
    #[command(flatten)]
    args: CoalitionArgs,
}

#[derive(Parser)]
struct Init {
    #[command(flatten)]
    args: init::InitArgs,
}

pub(super) fn coalition(line: &[&str]) -> Result<serde_json::Value, CliError> {
    let (context, printed) = Context::for_test(true);
    let line = std::iter::once("coalition").chain(line.iter().copied());
    run(Coalition::try_parse_from(line).unwrap().args, &context)?;
    Ok(serde_json::from_str(&printed.text()).unwrap())
}

pub(super) fn found(dir: &Path, more: &[&str]) -> Result<serde_json::Value, CliError> {
    let dir = dir.display().to_string();
    let mut line = vec!["init", "--name", "csa.example", "--dir", &dir];
    line.push("--no-passphrase");
    line.extend(more);
    coalition(&line)
}

/// Makes a node of `member` and gives the path of its request.
pub(super) fn newcomer(dir: &Path, member: &str, genesis: &str) -> String {
    let dir = dir.join(member);
    let shown = dir.display().to_string();
    let line = [
        "init",
        "--dir",
        &shown,
        "--member",
        member,
        "--genesis",
        genesis,
        "--coalition",
        "csa.example",
        "--contact-name",
        "Desk",
        "--contact-email",
        "desk@north.example",
    ];
    let (context, _) = Context::for_test(false);
    init::run(Init::try_parse_from(line).unwrap().args, &context).unwrap();
    let request = dir.join(format!("enrolment-{member}.request"));
    request.display().to_string()
}

pub(super) fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn one_administrator_founds_a_coalition_and_adds_members() {
    let folder = folder();
    let founded = found(folder.path(), &[]).unwrap();
    assert_eq!(founded["threshold"], 1);
    let genesis = founded["genesis"].as_str().unwrap();
    let north = newcomer(folder.path(), "north", genesis);
    let south = newcomer(folder.path(), "south", genesis);
    let dir = folder.path().display().to_string();
    let added = coalition(&["add", "--dir", &dir, "--yes", &north, &south]).unwrap();
    assert_eq!(added["version"], 2);
    assert_eq!(added["members"][1]["slug"], "south");
    assert_eq!(added["members"][1]["number"], 2);
    let roster = folder.path().join(ROSTER_FILE).display().to_string();
    let shown = coalition(&["show", &roster]).unwrap();
    assert_eq!(shown["genesis"], genesis);
    assert_eq!(shown["members"][0]["card_version"], 1);
    assert_eq!(shown["admins"][0]["signed"], true);
}

#[test]
fn a_member_is_added_once() {
    let folder = folder();
    let founded = found(folder.path(), &[]).unwrap();
    let north = newcomer(folder.path(), "north", founded["genesis"].as_str().unwrap());
    let dir = folder.path().display().to_string();
    coalition(&["add", "--dir", &dir, "--yes", &north]).unwrap();
    let again = coalition(&["add", "--dir", &dir, "--yes", &north]).unwrap_err();
    assert!(again.to_string().contains("was used before"), "{again}");
}

#[test]
fn nobody_is_added_unless_the_fingerprints_were_compared() {
    let folder = folder();
    let founded = found(folder.path(), &[]).unwrap();
    let north = newcomer(folder.path(), "north", founded["genesis"].as_str().unwrap());
    let dir = folder.path().display().to_string();
    let before = std::fs::read(folder.path().join(ROSTER_FILE)).unwrap();
    // Tests have no terminal, or one where nobody answers.
    if std::io::IsTerminal::is_terminal(&std::io::stdin()) {
        return;
    }
    assert!(coalition(&["add", "--dir", &dir, &north]).is_err());
    assert_eq!(
        std::fs::read(folder.path().join(ROSTER_FILE)).unwrap(),
        before
    );
}

#[test]
fn two_administrators_must_both_sign() {
    let folder = folder();
    let two = ["--admin", "Ann", "--admin", "Bea"];
    let founded = found(folder.path(), &two).unwrap();
    assert_eq!(founded["threshold"], 2);
    let north = newcomer(folder.path(), "north", founded["genesis"].as_str().unwrap());
    let dir = folder.path().display().to_string();
    let ann = folder.path().join("ann.key").display().to_string();
    let alone = ["add", "--dir", &dir, "--yes", "--admin-key", &ann, &north];
    let refused = coalition(&alone).unwrap_err();
    assert!(
        refused.to_string().contains("2 administrators"),
        "{refused}"
    );
    let both = coalition(&["add", "--dir", &dir, "--yes", &north]).unwrap();
    assert_eq!(both["version"], 2);
}

#[test]
fn a_threshold_of_one_needs_a_single_administrator() {
    let folder = folder();
    let line = ["--admin", "Ann", "--admin", "Bea", "--threshold", "1"];
    assert!(found(folder.path(), &line).is_err());
    assert!(!folder.path().join(ROSTER_FILE).exists());
    assert!(
        !folder.path().join("ann.key").exists(),
        "keys go away again"
    );
}

#[test]
fn a_coalition_is_founded_once_in_a_folder() {
    let folder = folder();
    found(folder.path(), &[]).unwrap();
    assert!(found(folder.path(), &[]).is_err());
}

#[test]
fn a_request_for_another_coalition_is_refused() {
    let folder = folder();
    found(folder.path(), &[]).unwrap();
    let other = "01".repeat(32);
    let north = newcomer(folder.path(), "north", &other);
    let dir = folder.path().display().to_string();
    let refused = coalition(&["add", "--dir", &dir, "--yes", &north]).unwrap_err();
    assert!(refused.to_string().contains("refused"), "{refused}");
}

#[test]
fn a_request_with_a_changed_byte_is_refused() {
    let folder = folder();
    let founded = found(folder.path(), &[]).unwrap();
    let north = newcomer(folder.path(), "north", founded["genesis"].as_str().unwrap());
    let dir = folder.path().display().to_string();
    let whole = std::fs::read(&north).unwrap();
    for at in [60, whole.len() / 2, whole.len() - 1] {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        std::fs::write(&north, changed).unwrap();
        assert!(
            coalition(&["add", "--dir", &dir, "--yes", &north]).is_err(),
            "byte {at}"
        );
    }
}
