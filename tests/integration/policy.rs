//! A policy that changes while nodes run, and the brake.

use std::fs;
use std::time::Instant;

use serde_json::Value;

use crate::world::signals::{Entry, entries};
use crate::world::{Member, World, text, until_true};

const TWO: &str = "[[rules]]\nname = \"two-members\"\nverdict = \"enforce\"\nmembers = 2\n";

fn put(member: &Member, policy: &str) {
    let file = member.folder().join("policy.toml");
    let next = member.folder().join("policy.next");
    fs::write(&next, policy).unwrap();
    fs::rename(next, file).unwrap();
}

fn verdict(member: &Member, entry: &Entry) -> String {
    let line = ["lookup", &entry.spec(), "--distance", "0"];
    let told = member.run(&[&line[..], &["--json"]].concat());
    text(&told.expect(&[0]).object(), "verdict")
}

fn until_verdict(member: &Member, entry: &Entry, wanted: &str) {
    until_true(&format!("the verdict {wanted}"), || {
        verdict(member, entry) == wanted
    });
}

#[test]
fn a_policy_is_reloaded_a_wrong_one_refused_and_a_mute_is_in_force_at_once() {
    let world = World::new(&["northstar", "tidepool"]);
    let (north, tide) = (world.member("northstar"), world.member("tidepool"));
    world.start_all();
    let said = entries("policy", 0..4);
    north.create_set("confirmed", &["all"]);
    north.import("confirmed", &said);
    // Of two the other member says the same by itself.
    tide.create_set("own", &[]);
    tide.import("own", &said[..2]);
    tide.wait_hits(&said[2..], 2);
    for entry in &said {
        assert_eq!(verdict(tide, entry), "review");
    }
    assert_eq!(tide.json(&["status"])["policy"], "shipped");

    let shipped = now();
    put(tide, TWO);
    until_verdict(tide, &said[0], "enforce");
    let counted = now();
    assert_eq!(verdict(tide, &said[2]), "review");
    let good = text(&tide.json(&["status"]), "policy");
    explains(tide, &said[0]);

    names(tide);
    // A wrong one changes nothing, and is an alarm.
    put(
        tide,
        "[[rules]]\nname = \"x\"\nverdict = \"enforce\"\nmemberz = 1\n",
    );
    until_true("the refusal", || {
        tide.json(&["status"])["policy_refused"] == true
    });
    let status = tide.json(&["status"]);
    assert_eq!(text(&status, "policy"), good);
    let notices = status["notices"].to_string();
    assert!(notices.contains("line 4"), "{notices}");
    let metrics = tide.http("/metrics").unwrap().1;
    assert!(metrics.contains("hashpact_policy_refused 1"), "{metrics}");
    assert_eq!(verdict(tide, &said[0]), "enforce");
    let checked = tide.run(&["policy", "check", "--json"]).expect(&[2]);
    assert_eq!(checked.object()["problems"][0]["line"], 4);
    // A start beside it changes nothing either.
    assert!(tide.stop().success());
    let off = now();
    tide.start();
    let status = tide.json(&["status"]);
    assert_eq!(text(&status, "policy"), good);
    assert_eq!(status["policy_refused"], true);
    assert_eq!(verdict(tide, &said[0]), "enforce");
    for (moment, policy, verdict, unknown) in [
        (shipped, "shipped", "review", ""),
        (counted, good.as_str(), "enforce", ""),
        (off, "", "", "not_running"),
    ] {
        past(tide, &said[0], (&moment, policy), (verdict, unknown));
    }
    exports(tide, &said);

    differs(tide, &said);
    put(tide, TWO);
    until_true("the alarm to end", || {
        tide.json(&["status"])["policy_refused"] == false
    });
    brakes(tide, &said);
    follows(north, tide, &said);
    for member in [north, tide] {
        member.assert_sound();
    }
}

/// What was made of an entry at a moment, by which policy, or why that is not known.
fn past(
    member: &Member,
    entry: &Entry,
    (moment, policy): (&str, &str),
    (verdict, unknown): (&str, &str),
) {
    let line = ["lookup", "--as-of", moment, &entry.spec(), "--json"];
    let told = member
        .run(&line)
        .expect(&[if unknown.is_empty() { 0 } else { 3 }]);
    let told = told.objects();
    let or_none = |word: &str| match word {
        "" => Value::Null,
        word => Value::from(word),
    };
    assert_eq!(told[0]["verdict"], or_none(verdict), "{told:?}");
    assert_eq!(told[1]["policy"], or_none(policy), "{told:?}");
    assert_eq!(told[1]["policy_unknown"], or_none(unknown), "{told:?}");
    let why = told[0]["verdict_unknown"].as_str();
    assert_eq!(why, (!unknown.is_empty()).then_some("policy"));
    assert_eq!(told[0]["unknown"][0]["code"], or_none(unknown));
}

/// Files say what the policy makes of each entry.
fn exports(member: &Member, said: &[Entry]) {
    let export = |more: &[&str]| {
        let line = ["export", "--set", "northstar/confirmed"];
        let file = member.run(&[&line[..], more].concat());
        let file = file.expect(&[0]).stdout;
        file.lines().map(str::to_owned).collect::<Vec<String>>()
    };
    let verdicts = |lines: &[String], wanted: &str| {
        let of = lines.iter().filter(|line| line.ends_with(wanted));
        of.count()
    };
    let all = export(&["--verdicts"]);
    assert!(all[0].ends_with(",verdict"), "{all:?}");
    assert_eq!(verdicts(&all, ",enforce"), 2);
    assert_eq!(verdicts(&all, ",review"), said.len() - 2);
    let only = export(&["--verdict", "enforce"]);
    assert_eq!((only.len(), verdicts(&only, ",enforce")), (3, 2));
    assert!(!export(&[])[0].contains("verdict"));
}

/// A slip in a name is told, with exit code 0.
fn names(member: &Member) {
    let slip = member.folder().join("slip.toml");
    let rule = "[[rules]]\nname = \"cap\"\nat_most = \"ignore\"\nsets = [\"northstr/x\"]\n";
    fs::write(&slip, rule).unwrap();
    let slip = slip.display().to_string();
    let told = "rule cap: the roster has no member northstr";
    for command in ["check", "diff"] {
        let line = ["policy", command, &slip, "--json"];
        let said = member.run(&line).expect(&[0]);
        assert_eq!(said.object()["warnings"][0], told);
        assert!(said.stderr.contains(told), "{}", said.stderr);
    }
}

fn explains(member: &Member, entry: &Entry) {
    let explained = member.json(&["policy", "explain", &entry.spec()]);
    assert_eq!(explained["verdict"], "enforce");
    let signal = &explained["signals"][0];
    let entries: Vec<&Value> = signal["leaves"].as_array().unwrap().iter().collect();
    assert_eq!(entries.len(), 2, "{explained}");
    assert_eq!(signal["rules"][0]["fired"], true);
    assert_eq!(signal["rules"][0]["members"], 2);
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    let printed = member.run(&["policy", "explain", "northstar/confirmed#1"]);
    let printed = printed.expect(&[0]).stdout;
    let printed: String = printed.lines().map(|line| plain(line) + "\n").collect();
    settings.bind(|| insta::assert_snapshot!("policy-explain", printed));
}

/// A line without what is another every time.
fn plain(line: &str) -> String {
    let cut = ["by the policy ", "      leaf ", "      published "];
    let at = cut
        .iter()
        .find_map(|word| Some(line.find(word)? + word.len()));
    at.map_or_else(|| line.to_owned(), |at| format!("{}…", &line[..at]))
}

fn differs(member: &Member, said: &[Entry]) {
    let other = member.folder().join("other.toml");
    let rule = "[[rules]]\nname = \"one\"\nverdict = \"enforce\"\nsets = [\"northstar/*\"]\n";
    fs::write(&other, rule).unwrap();
    let other = other.display().to_string();
    let compared = member.json(&["policy", "diff", &other]);
    assert_eq!(compared["entries"], 6);
    // Of the two that both say, this member's own entry is no longer enforced.
    assert_eq!(compared["changed"], said.len());
    let shifts = compared["shifts"].as_array().unwrap();
    let of = |set: &str| shifts.iter().find(|shift| shift["set"] == set).unwrap();
    assert_eq!(of("northstar/confirmed")["to"], "enforce");
    assert_eq!(of("tidepool/own")["from"], "enforce");
    assert!(text(&of("tidepool/own")["examples"][0], "entry").starts_with("tidepool/own#"));
    let same = member.json(&["policy", "diff", &other, &other]);
    assert_eq!(same["changed"], 0);
}

fn brakes(member: &Member, said: &[Entry]) {
    let signal = said[0].spec();
    let mute = ["mute", &signal, "--case", "ticket 4711", "--expires", "1h"];
    let muted = member.json(&mute);
    assert!(text(&muted, "name").starts_with("signal:"));
    // At once: the next look-up is the first after it.
    assert_eq!(verdict(member, &said[0]), "observe");
    assert_eq!(verdict(member, &said[1]), "enforce");
    assert!(member.stop().success());
    member.start();
    assert_eq!(verdict(member, &said[0]), "observe");
    let listed = member.json(&["mutes"]);
    assert_eq!(listed["mutes"][0]["case"], "ticket 4711");
    member.json(&["unmute", &text(&muted, "name")]);
    assert_eq!(verdict(member, &said[0]), "enforce");
    // One that runs out is over by itself.
    let soon = jiff_in(3);
    let began = Instant::now();
    member.json(&["mute", "tidepool/own", "--case", "x", "--expires", &soon]);
    if began.elapsed().as_secs() < 2 {
        assert_eq!(verdict(member, &said[0]), "review");
    }
    until_verdict(member, &said[0], "enforce");
    until_true("the mute to be cleared away", || {
        let acts = member.run(&["audit", "--json"]).expect(&[0]).stdout;
        ["mute.over", "\"mute\"", "\"unmute\"", "policy.load"]
            .iter()
            .all(|act| acts.contains(act))
    });
    assert_eq!(
        member.json(&["mutes"])["mutes"].as_array().unwrap().len(),
        0
    );
}

/// A consumer is told that an entry lost the second voice when another member takes it back.
fn follows(north: &Member, tide: &Member, said: &[Entry]) {
    let follow = || {
        let line = ["export", "--follow", "--consumer", "matcher"];
        let line = [&line[..], &["--format", "jsonl", "--until-caught-up"]].concat();
        let told = tide.run(&line).expect(&[0]).objects();
        let told = told.into_iter().filter(|line| line["verdict"].is_string());
        told.map(|line| (text(&line["entry"], "entry"), text(&line, "verdict")))
            .collect::<std::collections::BTreeMap<_, _>>()
    };
    let all = follow();
    assert_eq!(all.len(), 6, "{all:?}");
    assert_eq!(all["tidepool/own#1"], "enforce");
    assert_eq!(all["northstar/confirmed#3"], "review");
    let retract = [
        "retract",
        "northstar/confirmed#1",
        "--reason",
        "wrong",
        "--yes",
    ];
    north.json(&retract);
    until_verdict(tide, &said[0], "review");
    let mut told = follow();
    until_true("the lost voice to be told", || {
        told.append(&mut follow());
        told.get("tidepool/own#1")
            .is_some_and(|verdict| verdict == "review")
    });
}

/// This instant.
fn now() -> String {
    jiff::Timestamp::now().to_string()
}

/// So many seconds from now, as an instant.
fn jiff_in(seconds: i64) -> String {
    let then = jiff::Timestamp::now().as_second() + seconds;
    jiff::Timestamp::from_second(then).unwrap().to_string()
}
