//! Every field of every message that travels, changed in every way that its
//! descriptor allows, through the codec and the conversion to where the message
//! takes effect. Each change is refused, or harmless:
//!
//! | what is accepted | why it is harmless |
//! |---|---|
//! | unknown fields; a number in another spelling; a singular field given again | the same message |
//! | what a node says of itself but its genesis | shown to people, or a hint that verified documents answer |
//! | `GetRosterRequest.from_version` | the caller gets a part of what it may see |
//! | another range, form or elision of a pull | the caller may have all of the feed, and each part is proved |
//! | `Head.cosignatures`, `Head.receipts` | carried beside the note; whoever counts them verifies each |
//! | `GrantEnded.head.publisher` | the publisher of the feed that is held is asked |
//! | another kind of announcement that any peer may make at any time | it says that the peer lives, what its roster is, or what it counts of its own sets |

use std::collections::BTreeSet;

use hashpact_core::chunk::verify_extension;
use hashpact_core::evidence::ForkEvidence;
use hashpact_core::leaf::RawLeaf;
use hashpact_core::merkle::CompactRange;
use hashpact_core::reject::Rejection;
use hashpact_node::NodeError;
use prost::Message;

use super::hostile::*;
use super::mutations::{Mutation, absent, message, mutations};
use super::roster_witnesses::word;
use super::*;
use crate::codec::{Capped, decoded};
use crate::exchange::pipeline::verify_head;
use crate::exchange::serve::{check_node_info, node_info};
use crate::exchange::{documents, documents_in, fork};
use crate::types::{GrantEnded, Head as ToldHead, NodeInfo, RosterItem};
use crate::{convert, wire};

/// Reads bytes as a call does: counted, decoded, converted.
pub(super) fn taken<W: Message + Default + Capped, T>(
    bytes: &[u8],
    convert: impl FnOnce(W) -> Result<T, Rejection>,
) -> Result<T, Rejection> {
    convert(decoded(bytes)?)
}

/// Runs all changes of a message that is whole; says the codes of those refused.
fn each(
    name: &str,
    bytes: &[u8],
    mut accept: impl FnMut(&Mutation) -> Result<(), Rejection>,
) -> BTreeSet<&'static str> {
    let descriptor = message(name);
    assert_eq!(absent(&descriptor, bytes), [""; 0], "the sample of {name}");
    let changes = mutations(&descriptor, bytes);
    assert!(!changes.is_empty());
    let refused = changes.iter().filter_map(|change| accept(change).err());
    refused.map(|rejection| rejection.code()).collect()
}

pub(super) fn has(codes: &BTreeSet<&str>, expected: &[&str]) {
    let missing: Vec<_> = expected.iter().filter(|c| !codes.contains(*c)).collect();
    assert!(missing.is_empty(), "{missing:?} are not among {codes:?}");
}

/// What of a greeting has an effect.
fn effect_of(node: &NodeInfo) -> Digest {
    node.genesis
}

#[tokio::test]
async fn every_field_of_a_greeting_is_refused_or_only_says_something_of_its_sender() {
    let coalition = Coalition::new();
    let node = coalition.open(NORTH);
    let said = node_info(&node);
    let check = |said: NodeInfo, what: &str| {
        check_node_info(&node, &said)?;
        assert_eq!(effect_of(&said), coalition.genesis, "{what}");
        assert!(said.software.len() <= 100 && !said.software.contains(char::is_control));
        Ok(())
    };
    let request = wire::HelloRequest {
        node: Some((&said).into()),
    };
    let requests = each(
        "federation.v1.HelloRequest",
        &request.encode_to_vec(),
        |m| {
            let said = taken(&m.bytes, |hello: wire::HelloRequest| {
                convert::node_info(hello.node)
            })?;
            check(said, &m.what)
        },
    );
    let response = wire::HelloResponse { node: request.node };
    let responses = each(
        "federation.v1.HelloResponse",
        &response.encode_to_vec(),
        |m| {
            let said = taken(&m.bytes, |hello: wire::HelloResponse| {
                convert::node_info(hello.node)
            })?;
            check(said, &m.what)
        },
    );
    assert_eq!(requests, responses);
    has(
        &requests,
        &["malformed", "invalid", "wrong_genesis", "too_large"],
    );
}

#[tokio::test]
async fn a_request_for_the_roster_gets_a_part_of_what_the_caller_may_see() {
    let coalition = Coalition::new();
    let node = coalition.open(NORTH);
    let state = node.membership().state();
    let reach = hashpact_core::access::RosterReach::All;
    let all = documents::roster_items(&state, reach, 1, NOW);
    let request = wire::GetRosterRequest { from_version: 1 };
    let codes = each(
        "federation.v1.GetRosterRequest",
        &request.encode_to_vec(),
        |m| {
            let from = taken(&m.bytes, |request: wire::GetRosterRequest| {
                Ok(request.from_version)
            })?;
            let some = documents::roster_items(&state, reach, from, NOW);
            assert!(some.iter().all(|item| all.contains(item)), "{}", m.what);
            Ok(())
        },
    );
    has(&codes, &["malformed"]);
}

/// A next roster, a next card and a suspension, none of which any node has.
fn new_documents(coalition: &Coalition, node: &Node) -> [RosterItem; 3] {
    let chain = node.membership().roster().unwrap();
    let mut roster = Roster::after(chain.current(), chain.genesis(), NOW, 365 * DAY_MS);
    roster
        .set_status(number(WEST), MemberStatus::Suspended)
        .unwrap();
    [
        RosterItem::Suspension(suspension_of(node, SOUTH)),
        RosterItem::NodeCard(coalition.card(SOUTH, 2, Vec::new())),
        RosterItem::Roster(signed(&roster)),
    ]
}

/// What a node holds of the coalition, by digests.
fn papers(node: &Node) -> Vec<Digest> {
    let state = node.membership().state();
    let reach = hashpact_core::access::RosterReach::All;
    let items = documents::roster_items(&state, reach, 1, NOW);
    let digest = |item: &RosterItem| {
        let (bytes, kind) = match item {
            RosterItem::Roster(bytes) => (bytes, PayloadType::Roster),
            RosterItem::NodeCard(bytes) => (bytes, PayloadType::NodeCard),
            RosterItem::Suspension(bytes) => (bytes, PayloadType::Suspension),
        };
        let envelope = Envelope::decode(bytes.clone(), kind).unwrap();
        envelope.payload_digest()
    };
    items.iter().map(digest).collect()
}

/// The envelope's own fields changed, and around each the message that brings it.
fn envelope_changes(item: &RosterItem, bring: fn(Bytes) -> wire::RosterItem) -> Vec<Mutation> {
    let (RosterItem::Roster(bytes) | RosterItem::NodeCard(bytes) | RosterItem::Suspension(bytes)) =
        item;
    let changes = mutations(&message("core.v1.Envelope"), bytes);
    let brought = changes.into_iter().map(|change| Mutation {
        what: change.what,
        bytes: bring(change.bytes.into()).encode_to_vec(),
    });
    brought.collect()
}

#[tokio::test]
async fn a_document_that_is_changed_on_its_way_changes_nothing() {
    use wire::roster_item::Item;
    let coalition = Coalition::new();
    let node = coalition.open(NORTH);
    for item in new_documents(&coalition, &node) {
        let before = papers(&node);
        let bring: fn(Bytes) -> wire::RosterItem = match item {
            RosterItem::Roster(_) => |b| wire::RosterItem {
                item: Some(Item::Roster(b)),
            },
            RosterItem::NodeCard(_) => |b| wire::RosterItem {
                item: Some(Item::NodeCard(b)),
            },
            RosterItem::Suspension(_) => |b| wire::RosterItem {
                item: Some(Item::Suspension(b)),
            },
        };
        let bytes = wire::RosterItem::from(item.clone()).encode_to_vec();
        let mut changes = mutations(&message("federation.v1.RosterItem"), &bytes);
        changes.extend(envelope_changes(&item, bring));
        // The very document, spelled otherwise: last, for then it is known.
        let harmless = ["twice", "not canonical", "bit 40", "unknown field"];
        let is_harmless = |what: &String| harmless.iter().any(|how| what.contains(how));
        changes.sort_by_key(|change| is_harmless(&change.what));
        let mut same = Vec::new();
        let mut codes = BTreeSet::new();
        for change in changes {
            let taken = taken(&change.bytes, convert::roster_item);
            match taken {
                Ok(None) => {} // of a kind that a later version may add
                Ok(Some(taken)) if taken == item => {}
                Ok(Some(taken)) => match documents_in::accept(&node, taken) {
                    Err(NodeError::Rejected(rejection)) => {
                        codes.insert(rejection.code());
                    }
                    Err(error) => panic!("{}: {error}", change.what),
                    Ok(true) => same.push(change.what),
                    // Older than what is held, or known: nothing changes.
                    Ok(false) => {}
                },
                Err(rejection) => {
                    codes.insert(rejection.code());
                }
            }
        }
        has(&codes, &["malformed", "invalid"]);
        assert!(same.iter().all(is_harmless), "{same:?}");
        let now = papers(&node);
        documents_in::accept(&node, item).unwrap();
        // Whatever was taken was the very document, in other words.
        let whole = papers(&node);
        assert!(now == before || now == whole);
        assert_ne!(before, whole);
    }
}

/// Where announcements of a feed of north's take effect.
struct Ear {
    node: Arc<Node>,
}

impl Ear {
    /// What an announcement comes to, without what is harmless.
    fn hear(&self, said: Option<Announcement>) -> Result<Option<Announcement>, Rejection> {
        let taken = match said {
            Some(Announcement::Roster {
                version,
                digest,
                cosignatures,
            }) => {
                let heard = self.node.hear_roster_words(version, digest, &cosignatures);
                // Whatever was taken was said of the chain itself.
                for said in self.node.told_roster_words() {
                    assert_eq!((said.version, said.words.len()), (2, 1));
                }
                return heard.refused.into_iter().next().map_or(Ok(None), Err);
            }
            // Any peer may say these at any time.
            None
            | Some(
                Announcement::Alive { .. }
                | Announcement::SnapshotEnd
                | Announcement::Overdue(_)
                | Announcement::Quarantined(..)
                // Its effect has a scene of its own, below.
                | Announcement::GrantEnded(_),
            ) => return Ok(None),
            Some(said) => said,
        };
        match &taken {
            Announcement::Head(head) => {
                let set = slug("set");
                verify_head(
                    &self.node,
                    head.publisher,
                    Some(&set),
                    head.feed,
                    &head.note,
                )?;
                return Ok(Some(Announcement::Head(Box::new(bare(head)))));
            }
            // The very document is known by now, whatever signatures come with it.
            Announcement::NodeCard(bytes) => {
                self.document(RosterItem::NodeCard(bytes.clone()))?;
                let payload = payload_of(bytes, PayloadType::NodeCard)?;
                return Ok(Some(Announcement::NodeCard(payload)));
            }
            Announcement::Suspension(bytes) => {
                self.document(RosterItem::Suspension(bytes.clone()))?;
                let payload = payload_of(bytes, PayloadType::Suspension)?;
                return Ok(Some(Announcement::Suspension(payload)));
            }
            Announcement::Evidence(bytes) => {
                fork::check(&self.node, number(NORTH), &ForkEvidence::decode(bytes)?)?;
            }
            Announcement::DocumentEvidence(bytes) => {
                let taken = self.node.membership().accept_equivocation(bytes);
                if let Err(NodeError::Rejected(rejection)) = taken {
                    return Err(rejection);
                }
            }
            Announcement::Roster { .. }
            | Announcement::Alive { .. }
            | Announcement::SnapshotEnd
            | Announcement::Overdue(_)
            | Announcement::Quarantined(..)
            | Announcement::GrantEnded(_) => {}
        }
        Ok(Some(taken))
    }

    fn document(&self, item: RosterItem) -> Result<(), Rejection> {
        match documents_in::accept(&self.node, item) {
            Err(NodeError::Rejected(rejection)) => Err(rejection),
            other => {
                other.unwrap();
                Ok(())
            }
        }
    }
}

fn payload_of(envelope: &Bytes, kind: PayloadType) -> Result<Bytes, Rejection> {
    Ok(Envelope::decode(envelope.clone(), kind)?.payload().clone())
}

fn bare(head: &ToldHead) -> ToldHead {
    ToldHead {
        cosignatures: Vec::new(),
        receipts: Vec::new(),
        ..head.clone()
    }
}

/// A head of a feed of north's, with something in every field.
fn full_head(forged: &Forged) -> ToldHead {
    let Announcement::Head(head) = forged.head(forged.size()) else {
        panic!("no head");
    };
    ToldHead {
        cosignatures: vec![Bytes::from_static(b"a line")],
        receipts: vec![Bytes::from_static(b"a receipt")],
        ..*head
    }
}

/// Two histories of one feed, both signed by north.
fn forked(coalition: &Coalition) -> ForkEvidence {
    let one = Forged::new(coalition, NORTH, "set", 60);
    let mut other = Forged::new(coalition, NORTH, "set", 100);
    other.leaves[50] = publish_leaf(9_000);
    let range = |from: usize, to: usize| {
        let mut range = CompactRange::empty(from as u64);
        range.extend(other.leaves[from..to].iter().map(RawLeaf::hash));
        range.hashes().to_vec()
    };
    ForkEvidence {
        feed: one.feed,
        smaller: note(one.feed, NORTH, 60, one.root(60)).into(),
        larger: note(one.feed, NORTH, 100, other.root(100)).into(),
        before: range(0, 60),
        between: range(60, 100),
        node_cards: vec![coalition.card(NORTH, 1, Vec::new())],
    }
}

fn announcements_of(coalition: &Coalition, node: &Node) -> Vec<Announcement> {
    let forged = Forged::new(coalition, NORTH, "set", 20);
    let mut said = vec![
        Announcement::Roster {
            version: 2,
            digest: node_info(node).roster_digest,
            cosignatures: vec![word(node, WITNESS, 2, NOW)],
        },
        Announcement::Head(Box::new(full_head(&forged))),
        Announcement::Alive { clock: NOW },
        Announcement::SnapshotEnd,
        Announcement::Evidence(forked(coalition).encode().into()),
    ];
    said.extend(
        new_documents(coalition, node)
            .into_iter()
            .filter_map(|item| match item {
                RosterItem::Roster(_) => None,
                RosterItem::NodeCard(bytes) => Some(Announcement::NodeCard(bytes)),
                RosterItem::Suspension(bytes) => Some(Announcement::Suspension(bytes)),
            }),
    );
    said
}

#[tokio::test]
async fn every_field_of_an_announcement_is_refused_or_leaves_it_what_it_was() {
    let coalition = Coalition::witnessed();
    let ear = Ear {
        node: coalition.open(WEST),
    };
    let mut codes = BTreeSet::new();
    for said in announcements_of(&coalition, &ear.node) {
        let good = ear.hear(Some(said.clone())).unwrap();
        let bytes = wire::Announcement::from(said).encode_to_vec();
        codes.extend(each("federation.v1.Announcement", &bytes, |m| {
            let heard = ear.hear(taken(&m.bytes, convert::announcement)?)?;
            // It is nothing that counts, or the same.
            let is_same =
                heard.is_none() || heard == good || same_evidence(heard.as_ref(), good.as_ref());
            assert!(is_same, "{}", m.what);
            Ok(())
        }));
    }
    has(
        &codes,
        &[
            "malformed",
            "invalid",
            "too_large",
            "bad_signature",
            "wrong_origin",
        ],
    );
}

/// Evidence that verifies is of the same fork: cards beside it are checked where
/// keys are taken from them, and unknown fields are no part of it.
fn same_evidence(a: Option<&Announcement>, b: Option<&Announcement>) -> bool {
    let (Some(Announcement::Evidence(a)), Some(Announcement::Evidence(b))) = (a, b) else {
        return false;
    };
    let of = |bytes| ForkEvidence::decode(bytes).unwrap();
    let (a, b) = (of(a), of(b));
    (a.smaller, a.larger, a.before, a.between) == (b.smaller, b.larger, b.before, b.between)
}

/// A publisher that keeps to itself that a grant has ended, and notes what it would
/// have said.
fn withholding() -> (Script, Arc<std::sync::Mutex<Option<GrantEnded>>>) {
    let kept = Arc::new(std::sync::Mutex::new(None));
    let notes = Arc::clone(&kept);
    let say: Say = Arc::new(move |said| {
        if let Announcement::GrantEnded(ended) = said {
            *notes.lock().unwrap() = Some(*ended);
            return Vec::new();
        }
        vec![said]
    });
    let script = Script {
        say: Some(say),
        ..Script::default()
    };
    (script, kept)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_set_is_dropped_for_no_ended_grant_that_was_changed() {
    let coalition = ticking();
    let (script, kept) = withholding();
    let north = Hostile::start(&coalition, NORTH, script).await;
    let feed = create_set(&north.node, "set", &[("south", false)]);
    publish(&north.node, "set", 0, 300);
    let victim = Victim::start(&coalition).await;
    victim.meet(&coalition, &north);
    until("south has it", || victim.applied(&feed) == 301).await;
    change_grants(&north.node, "set", &[], &["south"]);
    until("the end is known", || kept.lock().unwrap().is_some()).await;
    let ended = kept.lock().unwrap().clone().unwrap();
    let sample = GrantEnded {
        head: ToldHead {
            cosignatures: vec![Bytes::from_static(b"a line")],
            receipts: vec![Bytes::from_static(b"a receipt")],
            ..ended.head.clone()
        },
        ..ended.clone()
    };
    let counts = |said: &GrantEnded| GrantEnded {
        head: ToldHead {
            publisher: number(NORTH),
            ..bare(&said.head)
        },
        ..said.clone()
    };
    let said = Announcement::GrantEnded(Box::new(sample));
    let bytes = wire::Announcement::from(said).encode_to_vec();
    let mut lies = 0;
    each("federation.v1.Announcement", &bytes, |m| {
        let said = taken(&m.bytes, convert::announcement)?;
        if let Some(Announcement::GrantEnded(lie)) = said
            && counts(&lie) != counts(&ended)
        {
            north.says(Announcement::GrantEnded(lie));
            lies += 1;
        }
        Ok(())
    });
    assert!(lies > 20, "{lies}");
    // What is said is heard in its order: after this one, all were.
    let marker = FeedId(Digest::of(b"the end of the lies"));
    north.says(told(marker, NORTH, b"no note".to_vec()));
    let heard = || {
        let noted = victim.exchange.rejections().noted();
        noted.iter().any(|(_, of, _)| *of == Some(marker))
    };
    until("all lies are heard", heard).await;
    assert_eq!(victim.applied(&feed), 301);
    assert_eq!(victim.answers(5), 1);
    north.says(Announcement::GrantEnded(Box::new(ended)));
    until("the true one counts", || victim.held(&feed).is_none()).await;
    victim.stop(&coalition).await;
}

#[tokio::test]
async fn every_field_of_a_pull_is_refused_or_asks_for_a_proved_part_of_the_feed() {
    let coalition = Coalition::new();
    let north = coalition.open(NORTH);
    let feed = create_set(&north, "set", &[("south", false)]);
    create_set(&north, "private", &[]);
    publish(&north, "set", 0, 600);
    retract(&north, "set", 100..110);
    let no = feed_of(&north, &feed).no;
    let good = PullRequest {
        from: 3,
        to: 500,
        proof_only: true,
        elide_dead: true,
        ..all_of(&north, &feed)
    };
    let bytes = wire::PullRequest::from(&good).encode_to_vec();
    let descriptor = message("federation.v1.PullRequest");
    assert_eq!(absent(&descriptor, &bytes), [""; 0]);
    let mut codes = BTreeSet::new();
    for change in mutations(&descriptor, &bytes) {
        let asked = taken(&change.bytes, |request: wire::PullRequest| {
            convert::pull_request(&request)
        });
        let request = match asked {
            Ok(request) => request,
            Err(rejection) => {
                codes.insert(rejection.code());
                continue;
            }
        };
        match pull(&north, SOUTH, request).await {
            Err(ServiceError::Rejected(rejection)) => {
                codes.insert(rejection.code());
            }
            Err(error) => panic!("{}: {error:?}", change.what),
            Ok(parts) => {
                assert_eq!(request.feed, feed, "{}", change.what);
                let root = north.store().root_at(no, request.head_size).unwrap();
                assert_eq!(request.head_root, root, "{}", change.what);
                proved(&parts, &request);
            }
        }
    }
    has(&codes, &["malformed", "invalid", "not_found"]);
}

/// Every part of an answer leads to the head that was asked for.
fn proved(parts: &[PullPart], request: &PullRequest) {
    for part in parts {
        match part {
            PullPart::Chunk(parts) => drop(chunk::verify(parts, &pinned(request)).unwrap()),
            PullPart::Proof(parts) => {
                let held = CompactRange::from_hashes(0, parts.from, parts.before.clone());
                verify_extension(parts, &held.unwrap(), &pinned(request)).unwrap();
            }
        }
    }
}
