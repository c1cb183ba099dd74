//! Bundles between real nodes: what goes into one, and what becomes of it elsewhere.

use std::collections::BTreeMap;

use hashpact_core::bundle::{
    CHECK_BYTES, Header, MAGIC, PREFIX_BYTES, Prefix, Recipient, RecordKind, Writer,
};
use hashpact_core::id::SetName;
use hashpact_core::puller::Settings;
use hashpact_node::NodeError;
use hashpact_node::bundle::{
    BundleFile, BundleMade, BundleOrder, BundleTaken, Doing, SetOutcome, SetTaken,
};
use hashpact_node::model::Reason;
use prost::Message as _;
use tokio::sync::mpsc;

use super::hostile::Forged;
use super::live::verify;
use super::*;
use crate::exchange::PUBLISHER_MAX_BYTES;
use crate::exchange::bundle::{alone, show};
use crate::types::{BundleFeed, ChunkParts, RosterItem};

/// A bundle in memory.
pub(super) struct InMemory(pub(super) Bytes);

impl BundleFile for InMemory {
    fn size(&self) -> u64 {
        u64::try_from(self.0.len()).unwrap()
    }

    fn read(&self, offset: u64, length: usize) -> Doing<Bytes> {
        let offset = usize::try_from(offset).unwrap();
        let piece = self.0.slice(offset..offset + length);
        Box::pin(std::future::ready(Ok(piece)))
    }
}

fn name(set: &str) -> SetName {
    SetName::parse(set).unwrap()
}

/// An order for a member, or for an authority where the name has a space in it.
pub(super) fn order(to: &str, sets: &[&str], held: &[(&str, u64)]) -> BundleOrder {
    BundleOrder {
        sets: sets.iter().map(|set| name(set)).collect(),
        held: held
            .iter()
            .map(|(set, size)| ((*set).to_owned(), *size))
            .collect::<BTreeMap<_, _>>(),
        to: if to.contains(' ') {
            Recipient::Authority(to.to_owned())
        } else {
            Recipient::Member(slug(to))
        },
        history: false,
    }
}

pub(super) async fn exported(
    node: &Arc<Node>,
    order: BundleOrder,
) -> Result<(Vec<u8>, BundleMade), NodeError> {
    let bundles = alone(Arc::clone(node), Settings::default(), PUBLISHER_MAX_BYTES).unwrap();
    let (out, mut pieces) = mpsc::channel(4);
    let making = tokio::spawn(bundles.export(order, out));
    let mut file = Vec::new();
    while let Some(piece) = pieces.recv().await {
        file.extend_from_slice(&piece);
    }
    making.await.unwrap().map(|made| (file, made))
}

/// North's set as a bundle for south, without what south holds.
pub(super) async fn for_south(north: &Arc<Node>, held: u64) -> Vec<u8> {
    let order = order("south", &["north/set"], &[("north/set", held)]);
    exported(north, order).await.unwrap().0
}

pub(super) async fn try_import(node: &Arc<Node>, file: &[u8]) -> Result<BundleTaken, NodeError> {
    import_with(node, file, Settings::default()).await
}

async fn import_with(
    node: &Arc<Node>,
    file: &[u8],
    settings: Settings,
) -> Result<BundleTaken, NodeError> {
    let file = Arc::new(InMemory(Bytes::copy_from_slice(file)));
    import_from(node, file, settings).await
}

pub(super) async fn import_from(
    node: &Arc<Node>,
    file: Arc<dyn BundleFile>,
    settings: Settings,
) -> Result<BundleTaken, NodeError> {
    let bundles = alone(Arc::clone(node), settings, PUBLISHER_MAX_BYTES).unwrap();
    let (progress, _) = mpsc::channel(4);
    bundles.import(file, progress).await
}

pub(super) async fn import(node: &Arc<Node>, file: &[u8]) -> BundleTaken {
    try_import(node, file).await.unwrap()
}

/// What came of the one set in a bundle.
pub(super) fn only(taken: &BundleTaken) -> &SetTaken {
    assert_eq!(taken.sets.len(), 1, "{taken:?}");
    &taken.sets[0]
}

pub(super) fn codes(taken: &BundleTaken) -> Vec<&'static str> {
    let of_sets = taken.sets.iter().flat_map(|set| &set.refused);
    let all = taken.refused.iter().chain(of_sets);
    all.map(|refused| refused.code).collect()
}

/// How many of entries `0..to` a node answers, all of them by north.
pub(super) fn answers(node: &Node, to: u64) -> usize {
    let signals: Vec<Signal> = (0..to).map(|n| entry(n).body.signals[0].clone()).collect();
    let found = node.lookup(&signals).unwrap();
    for one in found.iter().flatten() {
        assert_eq!(one.publisher, number(NORTH));
    }
    found.iter().filter(|matches| !matches.is_empty()).count()
}

/// A coalition whose first member has published so many entries for all to read.
pub(super) fn published(entries: u64) -> (Coalition, Arc<Node>, FeedId) {
    let coalition = Coalition::new();
    let north = coalition.open(NORTH);
    let feed = create_set(&north, "set", &[("south", false)]);
    publish(&north, "set", 0, entries);
    (coalition, north, feed)
}

/// The records of a bundle, without its end.
pub(super) fn records(file: &[u8]) -> Vec<(RecordKind, Vec<u8>)> {
    let mut rest = &file[MAGIC.len()..];
    let mut all = Vec::new();
    while !rest.is_empty() {
        let prefix = Prefix::read(*rest.first_chunk::<PREFIX_BYTES>().unwrap()).unwrap();
        let end = PREFIX_BYTES + prefix.length;
        all.push((prefix.kind, rest[PREFIX_BYTES..end].to_vec()));
        rest = &rest[end + CHECK_BYTES..];
    }
    assert_eq!(all.pop().map(|(kind, _)| kind), Some(RecordKind::End));
    all
}

/// A bundle of these records, with right checks: what a forger makes.
pub(super) fn framed(records: &[(RecordKind, Vec<u8>)]) -> Vec<u8> {
    let header = Header::read(&records[0].1).unwrap();
    let (mut writer, first) = Writer::begin(&header).unwrap();
    let mut file = first.to_vec();
    for (kind, body) in &records[1..] {
        file.extend_from_slice(&writer.record(*kind, body).unwrap());
    }
    file.extend_from_slice(&writer.end().unwrap());
    file
}

/// A file whose owner goes away when something beyond so many bytes is asked for, once
/// its records were looked through.
pub(super) struct GoesAway {
    pub(super) file: Bytes,
    pub(super) after: u64,
}

impl BundleFile for GoesAway {
    fn size(&self) -> u64 {
        u64::try_from(self.file.len()).unwrap()
    }

    fn read(&self, offset: u64, length: usize) -> Doing<Bytes> {
        // Prefixes, checks and bounds are short.
        let is_body = length > 64;
        if is_body && offset > self.after {
            let gone = Err(NodeError::Busy("whoever has the bundle has gone"));
            return Box::pin(std::future::ready(gone));
        }
        InMemory(self.file.clone()).read(offset, length)
    }
}

/// A bundle with the documents of another and a feed that was made by hand.
pub(super) fn hand_made(documents_of: &[u8], forged: &Forged, chunks: &[ChunkParts]) -> Vec<u8> {
    let mut all = records(documents_of);
    all.retain(|(kind, _)| matches!(kind, RecordKind::Header | RecordKind::Document));
    let Announcement::Head(head) = forged.head(forged.size()) else {
        panic!("a head is told");
    };
    let feed = BundleFeed {
        head: *head,
        from: chunks.first().map_or(forged.size(), |chunk| chunk.from),
        describe_index: 0,
        describe: hashpact_core::page::encode_plain(&forged.leaves[..1]).unwrap(),
        inclusion: forged.inclusion(0, forged.size()),
    };
    let message = crate::wire::BundleFeed::from(feed).encode_to_vec();
    all.push((RecordKind::Feed, message));
    for chunk in chunks {
        let mut body = chunk.from.to_be_bytes().to_vec();
        body.extend_from_slice(&chunk.to.to_be_bytes());
        let item = crate::wire::PullItem::from(PullPart::Chunk(chunk.clone()));
        body.extend_from_slice(&item.encode_to_vec());
        all.push((RecordKind::Chunk, body));
    }
    framed(&all)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bundle_brings_a_set_to_who_has_nothing_but_the_genesis_digest() {
    let (coalition, north, feed) = published(700);
    let file = for_south(&north, 0).await;
    let south = coalition.open_unknowing(SOUTH, &[]);
    let taken = import(&south, &file).await;
    assert!(codes(&taken).is_empty(), "{taken:?}");
    assert_eq!(taken.documents_new, 6, "two rosters and four cards");
    let set = only(&taken);
    assert_eq!(
        (set.set.as_str(), set.outcome),
        ("north/set", SetOutcome::Taken)
    );
    assert_eq!((set.stored, set.held, set.size), (701, 701, 701));
    assert_eq!(answers(&south, 700), 700);
    let (held, theirs) = (feed_of(&south, &feed), feed_of(&north, &feed));
    assert_eq!(held.applied, theirs.applied);
    verify(&south);
    // Again: all of it is held, and nothing is new.
    let again = import(&south, &file).await;
    assert_eq!((again.documents_new, again.documents_known), (0, 6));
    assert_eq!(
        (only(&again).outcome, only(&again).stored),
        (SetOutcome::Held, 0)
    );
    assert!(codes(&again).is_empty(), "{again:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delta_brings_what_is_new_and_takes_back_what_was_retracted() {
    let (coalition, north, feed) = published(300);
    let south = coalition.open(SOUTH);
    let first = for_south(&north, 0).await;
    import(&south, &first).await;
    retract(&north, "set", 10..13);
    publish(&north, "set", 300, 400);
    let delta = for_south(&north, 301).await;
    assert!(delta.len() < first.len(), "a delta is smaller");
    let taken = import(&south, &delta).await;
    assert_eq!(only(&taken).outcome, SetOutcome::Taken, "{taken:?}");
    assert_eq!(only(&taken).stored, 101);
    assert_eq!(answers(&south, 400), 397);
    // A delta that begins below what is held is cut where that ends.
    publish(&north, "set", 400, 410);
    let wide = for_south(&north, 123).await;
    let taken = import(&south, &wide).await;
    assert_eq!(
        (only(&taken).outcome, only(&taken).stored),
        (SetOutcome::Taken, 10)
    );
    assert_eq!(answers(&south, 410), 407);
    // The first again: older, and harmless.
    let old = import(&south, &first).await;
    assert_eq!(only(&old).outcome, SetOutcome::Held, "{old:?}");
    assert!(codes(&old).is_empty());
    assert_eq!(answers(&south, 410), 407);
    assert_eq!(
        feed_of(&south, &feed).applied,
        feed_of(&north, &feed).applied
    );
    verify(&south);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delta_that_begins_beyond_what_is_held_is_refused_and_says_what_to_ask_for() {
    let (coalition, north, feed) = published(50);
    let south = coalition.open(SOUTH);
    let taken = import(&south, &for_south(&north, 30).await).await;
    assert_eq!(only(&taken).outcome, SetOutcome::Refused);
    assert_eq!(codes(&taken), ["wrong_range"]);
    assert!(
        only(&taken).refused[0].why.contains("--since 0"),
        "{taken:?}"
    );
    assert!(south.store().feed_no(&feed).is_none(), "nothing is stored");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_without_the_grant_gets_no_bundle_and_takes_none() {
    let (coalition, north, feed) = published(40);
    let to_west = order("west", &["north/set"], &[]);
    let refused = exported(&north, to_west).await.unwrap_err();
    assert_eq!(refused.code(), "not_granted");
    assert!(
        refused.to_string().contains("not granted the set"),
        "{refused}"
    );
    // Nor is one taken that was made for somebody else.
    let west = coalition.open(WEST);
    let taken = import(&west, &for_south(&north, 0).await).await;
    assert_eq!(
        (only(&taken).outcome, only(&taken).stored),
        (SetOutcome::Refused, 0)
    );
    assert_eq!(codes(&taken), ["not_granted"]);
    assert!(west.store().feed_no(&feed).is_none(), "nothing is stored");
    assert_eq!(answers(&west, 40), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_describe_leaf_in_a_bundle_opens_nothing_to_who_lost_the_grant() {
    let coalition = Coalition::new();
    let north = coalition.open(NORTH);
    let feed = create_set(&north, "set", &[("south", false), ("west", false)]);
    publish(&north, "set", 0, 20);
    change_grants(&north, "set", &[], &["west"]);
    let file = for_south(&north, 0).await;
    // The forger shows leaf 0, which granted west, with a right proof.
    let mut all = records(&file);
    let at = all
        .iter()
        .position(|(kind, _)| *kind == RecordKind::Feed)
        .unwrap();
    let mut said = crate::wire::BundleFeed::decode(&all[at].1[..]).unwrap();
    let no = feed_of(&north, &feed).no;
    let size = feed_of(&north, &feed).applied.unwrap().size;
    let leaf = north.store().read_leaves(no, 0, 1).unwrap();
    said.describe_index = 0;
    said.describe = hashpact_core::page::encode_plain(&leaf).unwrap();
    let proof = north.store().inclusion_proof(no, 0, size).unwrap();
    said.inclusion = proof
        .iter()
        .map(|d| Bytes::copy_from_slice(d.as_bytes()))
        .collect();
    all[at].1 = said.encode_to_vec();
    let west = coalition.open(WEST);
    let taken = import(&west, &framed(&all)).await;
    assert_eq!(
        (only(&taken).outcome, only(&taken).held),
        (SetOutcome::Refused, 0)
    );
    assert_eq!(codes(&taken), ["not_granted"]);
    assert!(
        west.store().feed_no(&feed).is_none(),
        "what came is dropped"
    );
    assert_eq!(answers(&west, 20), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_relay_makes_no_bundle_of_it_and_who_may_does() {
    let (coalition, north, _) = published(30);
    let south = coalition.open(SOUTH);
    import(&south, &for_south(&north, 0).await).await;
    change_grants(&north, "set", &[("west", false)], &[]);
    import(&south, &for_south(&north, 0).await).await;
    let onward = || order("west", &["north/set"], &[]);
    let refused = exported(&south, onward()).await.unwrap_err();
    assert_eq!(refused.code(), "not_granted");
    assert!(refused.to_string().contains("not relay"), "{refused}");
    change_grants(&north, "set", &[("south", true)], &[]);
    import(&south, &for_south(&north, 0).await).await;
    let (file, made) = exported(&south, onward()).await.unwrap();
    assert_eq!(made.sets[0].set, "north/set");
    let west = coalition.open(WEST);
    let taken = import(&west, &file).await;
    assert_eq!(only(&taken).outcome, SetOutcome::Taken, "{taken:?}");
    assert_eq!(answers(&west, 30), 30);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_set_that_stays_local_goes_into_no_bundle_and_its_terms_are_quoted() {
    let coalition = Coalition::new();
    let north = coalition.open(NORTH);
    let new = NewSet {
        set: slug("bought"),
        title: "Bought".to_owned(),
        source: SetSource::ThirdParty {
            list_owner: "Hotline Nord".to_owned(),
            may_share: false,
            terms: "for own checks only".to_owned(),
        },
        classification_scheme: "tc".to_owned(),
        grants: Vec::new(),
    };
    north.create_set(&new).unwrap();
    for to in ["south", "north", "The Police"] {
        let refused = exported(&north, order(to, &["north/bought"], &[])).await;
        let refused = refused.unwrap_err();
        assert_eq!(refused.code(), "terms", "{to}");
        assert!(
            refused.to_string().contains("for own checks only"),
            "{refused}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_authority_gets_named_own_sets_and_no_more_of_the_members_than_proves_them() {
    let (coalition, north, _) = published(20);
    let all = exported(&north, order("The Police", &[], &[])).await;
    assert_eq!(all.unwrap_err().code(), "misuse", "each set is named");
    let (file, _) = exported(&north, order("The Police", &["north/set"], &[]))
        .await
        .unwrap();
    let documents = records(&file).into_iter();
    let documents = documents.filter(|(kind, _)| *kind == RecordKind::Document);
    assert_eq!(documents.count(), 3, "two rosters and the publisher's card");
    let shown = show(
        Arc::new(InMemory(file.into())),
        Some(coalition.genesis),
        |_, _| {},
    );
    let shown = shown.await.unwrap();
    assert_eq!(shown.coalition.as_deref(), Some(COALITION));
    assert!(
        shown.refused.is_empty() && shown.feeds[0].refused.is_empty(),
        "{shown:?}"
    );
    assert_eq!(
        (shown.feeds[0].set.as_str(), shown.feeds[0].entries),
        ("north/set", 20)
    );
    // What others publish is not for this member to hand on, even where it may relay.
    change_grants(&north, "set", &[("south", true)], &[]);
    let south = coalition.open(SOUTH);
    import(&south, &for_south(&north, 0).await).await;
    let refused = exported(&south, order("The Police", &["north/set"], &[])).await;
    assert_eq!(refused.unwrap_err().code(), "not_granted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_over_the_growth_limit_waits_in_quarantine_as_after_a_pull() {
    let (coalition, north, feed) = published(20);
    let south = coalition.open(SOUTH);
    let slow = || Settings {
        growth_per_hour: 30,
        ..Settings::default()
    };
    import_with(&south, &for_south(&north, 0).await, slow())
        .await
        .unwrap();
    publish(&north, "set", 20, 70);
    let taken = import_with(&south, &for_south(&north, 21).await, slow())
        .await
        .unwrap();
    assert_eq!(only(&taken).outcome, SetOutcome::Taken, "{taken:?}");
    assert_eq!(answers(&south, 70), 50, "20, and 30 more");
    let lots = south.quarantine(None, Some(Reason::OverGrowth)).unwrap();
    assert_eq!(lots.iter().map(|lot| lot.held).sum::<u64>(), 20);
    assert_eq!(feed_of(&south, &feed).stored, 71);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_bundle_leaves_out_what_is_dead_and_history_brings_it() {
    let (coalition, north, _) = published(100);
    retract(&north, "set", 0..40);
    let south = coalition.open(SOUTH);
    let lean = for_south(&north, 0).await;
    let mut wanted = order("south", &["north/set"], &[]);
    wanted.history = true;
    let (full, _) = exported(&north, wanted).await.unwrap();
    assert!(lean.len() < full.len());
    assert_eq!(
        only(&import(&south, &lean).await).outcome,
        SetOutcome::Taken
    );
    let other = coalition.open_in("south-2", SOUTH, &[]);
    assert_eq!(
        only(&import(&other, &full).await).outcome,
        SetOutcome::Taken
    );
    assert_eq!((answers(&south, 100), answers(&other, 100)), (60, 60));
    verify(&south);
}

/// A bundle of which no byte is left to chance: two rosters, a feed of three leaves.
fn vector(coalition: &Coalition) -> Vec<u8> {
    let header = Header {
        genesis: coalition.genesis,
        made: NOW,
        by: slug("north"),
        to: Recipient::Member(slug("south")),
    };
    let (mut writer, first) = Writer::begin(&header).unwrap();
    let mut file = first.to_vec();
    for roster in &coalition.rosters {
        let item = RosterItem::Roster(roster.clone());
        let message = crate::wire::RosterItem::from(item).encode_to_vec();
        file.extend_from_slice(&writer.record(RecordKind::Document, &message).unwrap());
    }
    file.extend_from_slice(&writer.end().unwrap());
    let forged = Forged::new(coalition, NORTH, "vector", 3);
    hand_made(
        &file,
        &forged,
        &[forged.chunk(0, 2, 3), forged.chunk(2, 3, 3)],
    )
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// `tests/vectors/bundle.json`, which `tests/verify_proofs.py --bundle` reads as well.
/// Compared with the file, or written when `HASHPACT_WRITE_VECTORS` is set.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_vector_of_a_bundle_is_what_this_version_writes_and_reads() {
    let coalition = Coalition::new();
    let file = vector(&coalition);
    let mut at = MAGIC.len();
    let mut lines = Vec::new();
    let mut all = records(&file);
    all.push((RecordKind::End, vec![0; 40]));
    for (kind, body) in &all {
        let check = at + PREFIX_BYTES + body.len();
        lines.push(format!(
            "    {{\"offset\": {at}, \"kind\": {}, \"length\": {}, \"check\": \"{}\"}}",
            kind.number(),
            body.len(),
            hex(&file[check..check + CHECK_BYTES]),
        ));
        at = check + CHECK_BYTES;
    }
    assert_eq!(at, file.len());
    let text = format!(
        "{{\n  \"genesis\": \"{}\",\n  \"records\": [\n{}\n  ],\n  \"file\": \"{}\"\n}}\n",
        hex(coalition.genesis.as_bytes()),
        lines.join(",\n"),
        hex(&file),
    );
    let here = std::env::var_os("CARGO_MANIFEST_DIR").unwrap();
    let path = std::path::Path::new(&here).join("../../tests/vectors/bundle.json");
    if std::env::var_os("HASHPACT_WRITE_VECTORS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    // Who has the publisher's card takes it.
    let south = coalition.open(SOUTH);
    let taken = import(&south, &file).await;
    assert_eq!(only(&taken).outcome, SetOutcome::Taken, "{taken:?}");
    assert_eq!(
        (only(&taken).set.as_str(), only(&taken).held),
        ("north/vector", 3)
    );
}
