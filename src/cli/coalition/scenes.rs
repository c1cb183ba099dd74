//! The ceremony as several administrators go through it, each with an own folder.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use super::tests::{coalition, folder, newcomer};
use super::*;

/// Ann, Bea and Cleo, two of whom decide; each has a folder and a key.
struct Board {
    root: TempDir,
    genesis: String,
}

const PEOPLE: [&str; 3] = ["ann", "bea", "cleo"];
const PASSPHRASE: &str = "four words at random";

impl Board {
    /// Everybody makes a key, Ann drafts the founding, Ann and Bea sign.
    fn found() -> Self {
        Self::found_with(false)
    }

    /// Under a passphrase, which takes its time, or not.
    fn found_with(sealed: bool) -> Self {
        let root = folder();
        let secret = root.path().join("passphrase");
        fs::write(&secret, PASSPHRASE).unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
        let mut board = Self {
            root,
            genesis: String::new(),
        };
        let mut line = vec![
            "init".to_owned(),
            "--name".to_owned(),
            "csa.example".to_owned(),
        ];
        for who in PEOPLE {
            fs::create_dir(board.dir(who)).unwrap();
            let key = board.key(who);
            let secret = board.secret();
            let made = if sealed {
                coalition(&["key", &key, "--passphrase-file", &secret])
            } else {
                coalition(&["key", &key, "--no-passphrase"])
            };
            let public = made.unwrap()["key"].as_str().unwrap().to_owned();
            line.push("--admin".to_owned());
            line.push(format!("{who}={public}"));
        }
        line.extend(["--dir".to_owned(), board.dir("ann").display().to_string()]);
        let line: Vec<&str> = line.iter().map(String::as_str).collect();
        let drafted = coalition(&line).unwrap();
        assert_eq!(drafted["approved"], false);
        let draft = board.draft("ann", 1);
        board.sign("ann", &draft).unwrap();
        let signed = board.sign("bea", &draft).unwrap();
        assert_eq!(signed["approved"], true);
        let founded = board.publish("ann", &[&draft]).unwrap();
        board.genesis = founded["genesis"].as_str().unwrap().to_owned();
        board.share("ann");
        board
    }

    /// As [`found`](Self::found), with north and south admitted.
    fn with_members() -> Self {
        let board = Self::found();
        let requests = [board.newcomer("north"), board.newcomer("south")];
        let [north, south] = &requests;
        board
            .draft_as("ann", &["admit", north, south, "--yes"])
            .unwrap();
        board.agree(2).unwrap();
        board
    }

    fn dir(&self, who: &str) -> PathBuf {
        self.root.path().join(who)
    }

    fn key(&self, who: &str) -> String {
        let key = self.root.path().join(format!("{who}.key"));
        key.display().to_string()
    }

    fn secret(&self) -> String {
        self.root.path().join("passphrase").display().to_string()
    }

    fn roster(&self, who: &str) -> PathBuf {
        self.dir(who).join(ROSTER_FILE)
    }

    fn draft(&self, who: &str, version: u64) -> String {
        let draft = self.dir(who).join(format!("roster-v{version}.draft"));
        draft.display().to_string()
    }

    fn newcomer(&self, member: &str) -> String {
        newcomer(self.root.path(), member, &self.genesis)
    }

    fn draft_as(&self, who: &str, line: &[&str]) -> Result<Value, CliError> {
        let dir = self.dir(who).display().to_string();
        let mut line = line.to_vec();
        line.extend(["--dir", &dir]);
        coalition(&line)
    }

    fn sign(&self, who: &str, draft: &str) -> Result<Value, CliError> {
        let (key, secret) = (self.key(who), self.secret());
        let line = [
            "sign",
            draft,
            "--key",
            &key,
            "--passphrase-file",
            &secret,
            "--yes",
        ];
        self.draft_as(who, &line)
    }

    fn publish(&self, who: &str, drafts: &[&str]) -> Result<Value, CliError> {
        let mut line = vec!["publish"];
        line.extend(drafts);
        self.draft_as(who, &line)
    }

    /// Ann and Bea each sign a copy of Ann's draft; Ann publishes; all take it.
    fn agree(&self, version: u64) -> Result<Value, CliError> {
        let (mine, hers) = (self.draft("ann", version), self.draft("bea", version));
        fs::copy(&mine, &hers).unwrap();
        self.sign("ann", &mine)?;
        self.sign("bea", &hers)?;
        let published = self.publish("ann", &[&mine, &hers])?;
        self.share("ann");
        Ok(published)
    }

    /// Everybody takes the roster of one.
    fn share(&self, from: &str) {
        let file = self.roster(from).display().to_string();
        for who in PEOPLE.into_iter().filter(|who| *who != from) {
            self.draft_as(who, &["update", &file]).unwrap();
        }
    }

    fn shown(&self, who: &str) -> Value {
        let file = self.roster(who).display().to_string();
        coalition(&["show", &file]).unwrap()
    }
}

fn texts(value: &Value) -> Vec<&str> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|line| line.as_str().unwrap())
        .collect()
}

fn says(value: &Value, words: &str) -> bool {
    texts(value).iter().any(|line| line.contains(words))
}

#[test]
fn three_administrators_found_a_coalition_and_no_key_leaves_its_person() {
    let board = Board::found_with(true);
    let shown = board.shown("cleo");
    assert_eq!(shown["threshold"], 2);
    assert_eq!(shown["admins"].as_array().unwrap().len(), 3);
    assert_eq!(shown["genesis"], board.genesis);
    for who in PEOPLE {
        let text = fs::read_to_string(board.key(who)).unwrap();
        assert!(text.contains("BEGIN ENCRYPTED PRIVATE KEY"), "{who}");
        let inside = fs::read_dir(board.dir(who)).unwrap();
        let mut names = inside.map(|entry| entry.unwrap().path());
        assert!(!names.any(|path| path.extension().is_some_and(|end| end == "key")));
    }
}

#[test]
fn copies_that_two_administrators_signed_are_merged_into_one_roster() {
    let board = Board::with_members();
    let shown = board.shown("bea");
    assert_eq!(shown["version"], 2);
    assert_eq!(shown["members"][1]["slug"], "south");
    assert_eq!(shown["members"][1]["card_version"], 1);
    let signed = shown["admins"].as_array().unwrap().iter();
    assert_eq!(signed.filter(|admin| admin["signed"] == true).count(), 2);
    let file = board.roster("cleo").display().to_string();
    let history = coalition(&["history", &file]).unwrap();
    assert_eq!(
        history["versions"][1]["signed"],
        serde_json::json!(["ann", "bea"])
    );
    assert!(says(&history["versions"][1]["changes"], "new member north"));
}

#[test]
fn one_signature_is_not_enough_and_is_kept_for_the_next() {
    let board = Board::with_members();
    board
        .draft_as("ann", &["rename", "north", "--display-name", "North Star"])
        .unwrap();
    let draft = board.draft("ann", 3);
    board.sign("ann", &draft).unwrap();
    // Signing twice is one signature.
    board.sign("ann", &draft).unwrap();
    let refused = board.publish("ann", &[]).unwrap_err().to_string();
    assert!(refused.contains("1 of the 2"), "{refused}");
    assert!(refused.contains("bea or cleo"), "{refused}");
    assert_eq!(board.shown("ann")["version"], 2);
    board.sign("cleo", &draft).unwrap();
    board.publish("ann", &[]).unwrap();
    assert_eq!(
        board.shown("ann")["members"][0]["display_name"],
        "North Star"
    );
}

#[test]
fn a_strangers_key_signs_nothing() {
    let board = Board::with_members();
    let stranger = board.root.path().join("eve.key").display().to_string();
    coalition(&["key", &stranger, "--no-passphrase"]).unwrap();
    board.draft_as("ann", &["remove", "south"]).unwrap();
    let draft = board.draft("ann", 3);
    let line = ["sign", &draft, "--key", &stranger, "--yes"];
    let refused = board.draft_as("ann", &line).unwrap_err().to_string();
    assert!(refused.contains("no administrator"), "{refused}");
}

#[test]
fn a_wrong_passphrase_signs_nothing() {
    let board = Board::found_with(true);
    board
        .draft_as("ann", &["set-limits", "--feed-growth-per-hour", "9"])
        .unwrap();
    let draft = board.draft("ann", 2);
    let wrong = board.root.path().join("wrong");
    fs::write(&wrong, "four other words, really").unwrap();
    fs::set_permissions(&wrong, fs::Permissions::from_mode(0o600)).unwrap();
    let (key, wrong) = (board.key("ann"), wrong.display().to_string());
    let line = [
        "sign",
        &draft,
        "--key",
        &key,
        "--passphrase-file",
        &wrong,
        "--yes",
    ];
    let refused = board.draft_as("ann", &line).unwrap_err().to_string();
    assert!(refused.contains("passphrase does not open"), "{refused}");
}

#[test]
fn several_changes_go_into_one_draft_until_somebody_has_signed_it() {
    let board = Board::with_members();
    board
        .draft_as("ann", &["set-role", "north", "publish", "witness"])
        .unwrap();
    board
        .draft_as("ann", &["set-threshold", "--witnesses", "1"])
        .unwrap();
    board
        .draft_as("ann", &["set-limits", "--feed-growth-per-hour", "5000"])
        .unwrap();
    let drafted = board
        .draft_as("ann", &["group", "add", "games", "south", "north"])
        .unwrap();
    let changes = &drafted["changes"];
    for words in [
        "north may publish, witness; before, publish, subscribe",
        "1 witness is a quorum",
        "grow by 5000 leaves",
        "new group games: north, south",
    ] {
        assert!(says(changes, words), "{words} in {changes}");
    }
    assert!(says(&drafted["warnings"], "north reads no more"));
    assert!(says(&drafted["warnings"], "none may fail"));
    board.sign("ann", &board.draft("ann", 3)).unwrap();
    let refused = board
        .draft_as("ann", &["remove", "south"])
        .unwrap_err()
        .to_string();
    assert!(refused.contains("signed already"), "{refused}");
}

#[test]
fn a_draft_of_a_version_that_was_replaced_is_refused() {
    let board = Board::with_members();
    board.draft_as("bea", &["remove", "south"]).unwrap();
    board
        .draft_as("ann", &["rename", "north", "--display-name", "North Star"])
        .unwrap();
    let late = board.draft("bea", 3);
    let kept = board.root.path().join("late.draft");
    fs::copy(&late, &kept).unwrap();
    fs::remove_file(&late).unwrap();
    board.agree(3).unwrap();
    let kept = kept.display().to_string();
    for refused in [board.sign("bea", &kept), board.publish("bea", &[&kept])] {
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains("roster in force"), "{refused}");
    }
}

#[test]
fn different_drafts_are_not_merged() {
    let board = Board::with_members();
    board.draft_as("ann", &["remove", "south"]).unwrap();
    board.draft_as("bea", &["remove", "north"]).unwrap();
    let (one, other) = (board.draft("ann", 3), board.draft("bea", 3));
    board.sign("ann", &one).unwrap();
    board.sign("bea", &other).unwrap();
    let refused = board
        .publish("ann", &[&one, &other])
        .unwrap_err()
        .to_string();
    assert!(refused.contains("different drafts"), "{refused}");
}

#[test]
fn a_key_signs_a_second_draft_of_a_version_only_when_told() {
    let board = Board::with_members();
    board.draft_as("ann", &["remove", "south"]).unwrap();
    board.draft_as("bea", &["remove", "north"]).unwrap();
    board.sign("ann", &board.draft("ann", 3)).unwrap();
    let other = board.draft("bea", 3);
    let refused = board.sign("ann", &other).unwrap_err().to_string();
    assert!(refused.contains("another draft of version 3"), "{refused}");
    let (key, secret) = (board.key("ann"), board.secret());
    let line = [
        "sign",
        &other,
        "--key",
        &key,
        "--passphrase-file",
        &secret,
        "--yes",
        "--instead",
    ];
    board.draft_as("ann", &line).unwrap();
}

#[test]
fn a_changed_byte_of_a_draft_is_never_published() {
    let board = Board::with_members();
    board.draft_as("ann", &["remove", "south"]).unwrap();
    let draft = board.draft("ann", 3);
    board.sign("ann", &draft).unwrap();
    board.sign("bea", &draft).unwrap();
    let whole = fs::read(&draft).unwrap();
    for at in (0..whole.len()).step_by(31) {
        let mut changed = whole.clone();
        changed[at] ^= 4;
        fs::write(&draft, &changed).unwrap();
        // A signature is all that a byte can spoil; the roster stays what it was.
        assert!(
            board.publish("ann", &[&draft]).is_err(),
            "byte {at} of {} made no difference",
            whole.len()
        );
    }
    assert_eq!(board.shown("ann")["version"], 2);
}

#[test]
fn administrators_come_and_go_and_the_threshold_follows_the_rules() {
    let board = Board::with_members();
    let key = board.root.path().join("dora.key").display().to_string();
    let made = coalition(&["key", &key, "--no-passphrase"]).unwrap();
    let dora = format!("dora={}", made["key"].as_str().unwrap());
    let drafted = board
        .draft_as("ann", &["add-admin", &dora, "--threshold", "3"])
        .unwrap();
    assert!(says(
        &drafted["changes"],
        "3 of 4 administrators decide; before, 2 of 3"
    ));
    assert_eq!(drafted["approvals"].as_array().unwrap().len(), 2);
    let draft = board.draft("ann", 3);
    board.sign("ann", &draft).unwrap();
    board.sign("bea", &draft).unwrap();
    let refused = board.publish("ann", &[]).unwrap_err().to_string();
    assert!(
        refused.contains("2 of the 3 administrators that version 3"),
        "{refused}"
    );
    let line = ["sign", &draft, "--key", &key, "--yes"];
    board.draft_as("ann", &line).unwrap();
    board.publish("ann", &[]).unwrap();
    // Two go at once; of four, two still sign.
    board.draft_as("ann", &["remove-admin", "bea"]).unwrap();
    let drafted = board
        .draft_as("ann", &["remove-admin", "cleo", "--threshold", "2"])
        .unwrap();
    assert!(says(
        &drafted["warnings"],
        "2 of 4 administrators still sign"
    ));
    assert!(says(&drafted["warnings"], "all 2 administrators must sign"));
    let refused = board
        .draft_as("ann", &["set-threshold", "1"])
        .unwrap_err()
        .to_string();
    assert!(refused.contains("threshold 1 of 2"), "{refused}");
}

#[test]
fn a_member_is_suspended_by_one_and_reinstated_by_enough() {
    let board = Board::with_members();
    let (key, secret) = (board.key("cleo"), board.secret());
    let line = |member| {
        let line = ["suspend", member, "--reason", "a leak", "--key", &key];
        [&line[..], &["--passphrase-file", &secret]].concat()
    };
    let suspended = board.draft_as("cleo", &line("south")).unwrap();
    assert!(Path::new(suspended["file"].as_str().unwrap()).exists());
    for again in ["south", "north"] {
        let refused = board
            .draft_as("cleo", &line(again))
            .unwrap_err()
            .to_string();
        assert!(refused.contains("refused"), "{refused}");
    }
    let refused = board
        .draft_as("ann", &["reinstate", "south"])
        .unwrap_err()
        .to_string();
    assert!(refused.contains("not cut off"), "{refused}");
    let file = suspended["file"].as_str().unwrap().to_owned();
    board.draft_as("ann", &["update", &file]).unwrap();
    let drafted = board.draft_as("ann", &["reinstate", "south"]).unwrap();
    assert!(says(&drafted["changes"], "the suspension of south"));
    board.agree(3).unwrap();
}

#[test]
fn members_are_suspended_for_long_removed_and_come_back() {
    let board = Board::with_members();
    board
        .draft_as("ann", &["suspend", "south", "--lasting"])
        .unwrap();
    let drafted = board.draft_as("ann", &["remove", "north"]).unwrap();
    assert!(says(
        &drafted["changes"],
        "south is suspended until further notice"
    ));
    assert!(says(&drafted["warnings"], "north is cut off at once"));
    board.agree(3).unwrap();
    assert_eq!(board.shown("bea")["members"][0]["status"], "removed");
    let drafted = board
        .draft_as("ann", &["reinstate", "north", "south"])
        .unwrap();
    assert!(says(
        &drafted["changes"],
        "north takes part again; it was removed"
    ));
    board.agree(4).unwrap();
    assert_eq!(board.shown("cleo")["members"][1]["status"], "active");
}

#[test]
fn a_roster_is_renewed_within_its_window_or_post_dated_to_it() {
    let board = Board::with_members();
    let expires = board.shown("ann")["expires_ms"].as_u64().unwrap();
    let day = 24 * 60 * 60 * 1_000;
    let drafted = board.draft_as("ann", &["renew"]).unwrap();
    assert_eq!(drafted["issued_ms"].as_u64().unwrap(), expires - 45 * day);
    assert!(says(&drafted["warnings"], "post-dated"));
    let refused = board.agree(3).unwrap_err().to_string();
    assert!(refused.contains("nodes take it from then on"), "{refused}");
    let early = ["renew", "--issue-on", "2000-01-01", "--draft", "x.draft"];
    let refused = board.draft_as("ann", &early).unwrap_err().to_string();
    assert!(refused.contains("last 45 days"), "{refused}");
}

#[test]
fn a_change_keeps_the_day_of_expiry_until_the_window_opens() {
    let board = Board::with_members();
    let expires = board.shown("ann")["expires_ms"].as_u64().unwrap();
    let drafted = board.draft_as("ann", &["remove", "south"]).unwrap();
    assert_eq!(drafted["expires_ms"].as_u64().unwrap(), expires);
    let drafted = board
        .draft_as("ann", &["remove", "north", "--days", "40"])
        .unwrap();
    assert!(says(&drafted["warnings"], "sooner than the one in force"));
    board.agree(3).unwrap();
    let drafted = board.draft_as("ann", &["reinstate", "north"]).unwrap();
    assert!(drafted["expires_ms"].as_u64().unwrap() > expires - 86_400_000);
}

#[test]
fn a_leaked_feed_key_ends_its_epoch_at_the_last_good_size() {
    let board = Board::with_members();
    let (feed, root) = ("ab".repeat(32), "cd".repeat(32));
    let key = board.shown("ann")["members"][0]["identity"]
        .as_str()
        .unwrap()
        .to_owned();
    let line = |size| {
        [
            "revoke-feed-key",
            "--feed",
            &feed,
            "--key",
            &key,
            "--root",
            &root,
            "--size",
            size,
        ]
        .map(str::to_owned)
    };
    let call = |size| {
        let line = line(size);
        let line: Vec<&str> = line.iter().map(String::as_str).collect();
        board.draft_as("ann", &line)
    };
    let drafted = call("100").unwrap();
    assert!(says(&drafted["changes"], "epoch 1 goes on from there"));
    assert!(says(
        &drafted["warnings"],
        "no card here names the feed key"
    ));
    board.agree(3).unwrap();
    let refused = call("99").unwrap_err().to_string();
    assert!(refused.contains("do not follow one another"), "{refused}");
    assert!(says(&call("120").unwrap()["changes"], "epoch 2"));
}

#[test]
fn members_without_a_card_are_named() {
    let board = Board::with_members();
    // A draft of somebody who forgot the cards: the roster's rows alone.
    let file = crate::roster_file::read(&board.roster("ann")).unwrap();
    let bare = hashpact_core::roster::RosterFile {
        rosters: file.rosters,
        ..Default::default()
    };
    crate::roster_file::write(&board.roster("ann"), &bare).unwrap();
    let drafted = board.draft_as("ann", &["remove", "south"]).unwrap();
    assert!(says(&drafted["warnings"], "without an active node"));
    assert!(says(&drafted["warnings"], "north"));
}

#[test]
fn words_that_differ_admit_nobody() {
    let board = Board::found();
    let north = board.newcomer("north");
    let wrong = ["abandon"; 12].join(" ");
    let line = ["admit", &north, "--fingerprint", &wrong];
    let refused = board.draft_as("ann", &line).unwrap_err().to_string();
    // The first, unless chance made that one the same.
    assert!(refused.contains(" of the fingerprint is not"), "{refused}");
    assert!(!Path::new(&board.draft("ann", 2)).exists());
    // The request itself says which words are right.
    let drafted = board.draft_as("ann", &["admit", &north, "--yes"]).unwrap();
    let words = drafted["newcomers"][0]["words"]
        .as_str()
        .unwrap()
        .to_owned();
    fs::remove_file(board.draft("ann", 2)).unwrap();
    board
        .draft_as("ann", &["admit", &north, "--fingerprint", &words])
        .unwrap();
}
