//! A neutral body's node: it cosigns what others publish and holds no hashes.

use crate::world::signals::entries;
use crate::world::{Member, Place, World, list, number, text, until, until_true};

#[test]
fn a_neutral_witness_cosigns_what_others_publish_and_holds_no_hashes() {
    let neutral = Place {
        more: vec!["--role".to_owned(), "witness".to_owned()],
        ..Place::here()
    };
    let places = [
        ("north", Place::here()),
        ("south", Place::here()),
        ("neutral", neutral),
    ];
    let world = World::founded_at(&places);
    for member in world.members() {
        member.import_roster(&world.roster_file());
    }
    world.start_all();
    let (north, south) = (world.member("north"), world.member("south"));
    let neutral = world.member("neutral");
    north.create_set("confirmed", &["south"]);
    let said = entries("witnessed", 0..40);
    north.import("confirmed", &said);
    south.wait_hits(&said, 40);

    let feed = until("south to see the cosignature", || {
        let feed = south.feed("north/confirmed")?;
        (number(&feed, "witness_quorum") == number(&feed, "head")).then_some(feed)
    });
    let stand = &list(&feed, "witnesses")[0];
    assert_eq!(stand["member"], "neutral");
    assert_eq!(number(stand, "size"), number(&feed, "head"));
    assert_eq!(stand["fresh"], true);
    assert!(stand["cosigned_at"].is_string(), "{stand}");
    assert_eq!(number(&feed, "witness_threshold"), 1);
    assert_eq!(feed["stale"], false);
    assert_eq!(feed["detection_only"], true);
    // A proof of the same head says the same as the nodes do, and so does the policy.
    let entry = text(&south.lookup(&said[..1])[0][0], "entry");
    let proof = south.json(&["prove", &entry, "--out", "witnessed.proof"]);
    let told = &proof["witnesses"];
    assert_eq!(
        (number(told, "threshold"), number(told, "cosigned")),
        (1, 1)
    );
    assert_eq!(
        (&told["reached"], &told["detection_only"]),
        (&true.into(), &true.into())
    );
    let line = ["proof", "verify", "witnessed.proof"];
    let shown = south.run(&line).expect(&[0]).stdout;
    assert!(shown.contains("reached, detection only"), "{shown}");
    let shown = south
        .run(&["policy", "explain", &entry])
        .expect(&[0])
        .stdout;
    assert!(shown.contains("witnessed (detection only)"), "{shown}");
    let shown = south.run(&["feeds", "north/confirmed"]).expect(&[0]).stdout;
    assert!(shown.contains("detection only: 1 witness;"), "{shown}");
    assert!(
        shown.lines().all(|line| line.chars().count() <= 80),
        "{shown}"
    );

    // Of the feed it knows id and size: no name, no leaf, no answer.
    let of_neutral = neutral.feeds();
    assert_eq!(of_neutral.len(), 1);
    assert_eq!(of_neutral[0]["state"], "cosigned");
    assert_eq!(number(&of_neutral[0], "stored"), 0);
    assert_eq!(of_neutral[0]["feed"], feed["feed"]);
    assert!(!text(&of_neutral[0], "name").contains("confirmed"));
    let refused = neutral.run(&["lookup", &said[0].spec()]).expect(&[1]);
    assert!(
        refused.stderr.contains("only witnesses"),
        "{}",
        refused.stderr
    );
    assert!(!refused.stderr.contains("broke off"), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("next: ask another node"),
        "{}",
        refused.stderr
    );
    // What it says of itself is about a witness.
    let shown = neutral.run(&["status"]).expect(&[0]).stdout;
    assert!(shown.contains("witness heads, and nothing else"), "{shown}");
    for word in ["policy", "hash lists", "entries", "reading"] {
        assert!(!shown.contains(word), "{word} in {shown}");
    }
    let listed = neutral.run(&["feeds"]).expect(&[0]).stdout;
    assert!(listed.contains("COSIGNED"), "{listed}");
    assert!(!listed.contains("LAG"), "{listed}");
    assert_eq!(number(&of_neutral[0], "lag"), 0);

    // It goes on where it was, also after it was killed.
    neutral.kill();
    north.import("confirmed", &entries("witnessed", 40..60));
    neutral.start();
    until_true("the newer head to be cosigned", || {
        let feed = south.feed("north/confirmed").unwrap();
        number(&feed, "head") > 60 && number(&feed, "witness_quorum") == number(&feed, "head")
    });
    rotated(north, south, neutral);
    assert!(neutral.stop().success());
    // Without a key there is nothing to witness with.
    let refused = south.run(&["witness"]).expect(&[2]);
    assert!(
        refused.stderr.contains("keys.witness"),
        "{}",
        refused.stderr
    );
    assert_eq!(text(&south.json(&["status"]), "member"), "south");
}

/// Another witness key, while the node runs: the quorum stays, and so does what was proved.
fn rotated(north: &Member, south: &Member, neutral: &Member) {
    let keys = || {
        let card = neutral.json(&["card", "show"]);
        list(&list(&card, "nodes")[0], "witness_keys").to_vec()
    };
    let before = keys();
    let stands = |said: usize| {
        let feed = south.feed("north/confirmed").unwrap();
        let head = number(&feed, "head");
        head > said as u64 && number(&feed, "witness_quorum") == head
    };
    let rotating = neutral
        .call()
        .begin(&["keys", "rotate", "witness", "--json"]);
    for said in [65, 70, 75, 80] {
        north.import("confirmed", &entries("witnessed", said - 5..said));
        until_true("each head to be cosigned meanwhile", || stands(said));
    }
    let outcome = rotating.wait().expect(&[0]);
    assert_eq!(outcome.object()["done"], true, "{outcome}");
    let after = keys();
    assert_eq!((before.len(), after.len()), (1, 1));
    assert_ne!(before, after);
    let shown = neutral.json(&["keys", "show"]);
    assert_eq!(shown["witness"], after[0]);
    assert!(neutral.folder().join("keys/witness.key.old").exists());
    assert!(!neutral.folder().join("keys/witness.key.next").exists());
    let used = ["audit", "--act", "keys.use", "--json"];
    assert_eq!(neutral.run(&used).expect(&[0]).objects().len(), 1);
    assert!(stands(80), "the quorum of before");
    north.import("confirmed", &entries("witnessed", 80..85));
    until_true("a newer head to be cosigned with the next key", || {
        stands(85)
    });
    let line = ["proof", "verify", "witnessed.proof"];
    let shown = south.run(&line).expect(&[0]).stdout;
    assert!(shown.contains("reached, detection only"), "{shown}");
    // The key in the file is the one in use after a restart, too.
    assert!(neutral.stop().success());
    neutral.start();
    north.import("confirmed", &entries("witnessed", 85..90));
    until_true("the newest head to be cosigned", || stands(90));
    let refused = south.run(&["keys", "rotate", "witness"]).expect(&[2]);
    assert!(
        refused.stderr.contains("keys.witness"),
        "{}",
        refused.stderr
    );
}
