//! A reader disputes an entry: its publisher and the others see it with every match,
//! whoever follows is told, and what is withdrawn is gone, also after a restart.

use serde_json::Value;

use crate::world::signals::{Entry, entries};
use crate::world::{Member, World, list, number, text, until_true};

#[test]
fn a_wrong_entry_is_disputed_everywhere_and_no_longer_once_that_is_withdrawn() {
    let world = World::new(&["northstar", "tidepool", "gamma"]);
    let [publisher, critic, third] = ["northstar", "tidepool", "gamma"].map(|m| world.member(m));
    world.start_all();
    publisher.create_set("confirmed", &["all"]);
    let said = entries("opinions", 0..50);
    publisher.import("confirmed", &said);
    for reader in [critic, third] {
        reader.wait_hits(&said, 50);
    }
    let wrong = &said[7];
    let name = text(&critic.lookup(std::slice::from_ref(wrong))[0][0], "entry");
    let line = [
        "opine",
        &name,
        "negative",
        "--reason",
        "false-positive",
        "--confidence",
        "90",
        "--note",
        "a stock photo",
    ];
    let outcome = critic.json(&line);
    assert_eq!(text(&outcome, "set"), "tidepool/opinions");
    assert_eq!(outcome["granted"], false);
    assert_eq!(standing(critic, wrong), "disputed");
    critic.json(&["set", "grant", "opinions", "all"]);
    for member in [publisher, third] {
        until_true("the dispute is heard", || {
            standing(member, wrong) == "disputed"
        });
        let opinions = &found(member, wrong)["opinions"];
        assert_eq!(number(opinions, "negative"), 1);
        let told = &list(opinions, "told")[0];
        assert_eq!(
            (text(told, "member"), text(told, "reason")),
            ("tidepool".to_owned(), "false-positive".to_owned())
        );
        assert_eq!(
            (number(told, "confidence"), number(told, "reason_id")),
            (90, 1)
        );
        assert_eq!(standing(member, &said[8]), "active");
        assert!(found(member, &said[8]).get("opinions").is_none());
    }
    // The publisher asks what members think of its set.
    let listed = publisher.json(&["opinions", "confirmed"]);
    let listed = list(&listed, "opinions");
    assert_eq!(listed.len(), 1);
    assert_eq!(
        (text(&listed[0], "entry"), text(&listed[0], "note")),
        (name.clone(), "a stock photo".to_owned())
    );
    // It outlives a restart, and store and index agree.
    assert!(third.stop().success());
    let verified = third.json(&["verify"]);
    assert_eq!(list(&verified, "problems").len(), 0);
    third.start();
    assert_eq!(standing(third, wrong), "disputed");
    critic.json(&["opine", &name, "--withdraw"]);
    for member in [publisher, critic, third] {
        until_true("it is withdrawn", || standing(member, wrong) == "active");
    }
    let mine = critic.json(&["opinions", "--mine"]);
    assert_eq!(list(&mine, "opinions").len(), 0);
}

#[test]
fn a_mute_that_is_told_is_heard_and_taken_back_when_it_ended_while_the_node_was_off() {
    let world = World::new(&["northstar", "tidepool"]);
    let [publisher, critic] = ["northstar", "tidepool"].map(|m| world.member(m));
    world.start_all();
    publisher.create_set("confirmed", &["all"]);
    let said = entries("told", 0..3);
    publisher.import("confirmed", &said);
    critic.wait_hits(&said, 3);
    let mute = |what: &str, expires: &str| {
        let line = ["mute", what, "--case", "ticket 1", "--expires", expires];
        let line = [&line[..], &["--tell", "false-positive"]].concat();
        critic.json(&line)
    };
    let told = mute(&said[1].spec(), "1h");
    assert_eq!(
        (number(&told, "told"), told["unheard"].as_bool()),
        (1, Some(true))
    );
    critic.json(&["set", "grant", "opinions", "all"]);
    until_true("the mute is heard", || {
        standing(publisher, &said[1]) == "disputed"
    });
    assert_eq!(standing(publisher, &said[0]), "active");
    critic.json(&["unmute", &said[1].spec()]);
    until_true("its end is heard", || {
        standing(publisher, &said[1]) == "active"
    });

    let ends = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(8);
    let told = mute("northstar/confirmed", &ends.to_string());
    assert_eq!(
        (number(&told, "told"), told["unheard"].as_bool()),
        (3, Some(false))
    );
    until_true("the mute is heard", || {
        standing(publisher, &said[2]) == "disputed"
    });
    assert!(critic.stop().success());
    until_true("its time is over", || jiff::Timestamp::now() > ends);
    assert_eq!(standing(publisher, &said[2]), "disputed");
    critic.start();
    until_true("its end is heard", || {
        said.iter()
            .all(|entry| standing(publisher, entry) == "active")
    });
    let mine = critic.json(&["opinions", "--mine"]);
    assert_eq!(list(&mine, "opinions").len(), 0);
    critic.assert_sound();
}

fn found(member: &Member, entry: &Entry) -> Value {
    member.lookup(std::slice::from_ref(entry))[0][0].clone()
}

fn standing(member: &Member, entry: &Entry) -> String {
    text(&found(member, entry), "standing")
}
