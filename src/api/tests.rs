//! The service over a real node and store, spoken to as the command line does.

#[path = "access_tests.rs"]
mod access;
#[path = "asking_tests.rs"]
mod asked;
#[path = "audit_tests.rs"]
pub(crate) mod audited;
#[path = "changes_tests.rs"]
mod followed;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use hashpact_core::card::EndpointPolicy;
use hashpact_core::envelope::{Envelope, PayloadType};
use hashpact_core::id::{CoalitionName, Slug, UnixMillis};
use hashpact_core::keys::{Admin, SecretKey};
use hashpact_core::limits::DAY_MS;
use hashpact_core::roster::{NewMember, Role, Roster, RosterAdmin, RosterChain};
use hashpact_node::clock::Clock;
use hashpact_node::{Node, NodeOptions};
use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tower::service_fn;

use crate::wire::node_client::NodeClient;
use crate::wire::selector::By;
use crate::{About, CODE, MESSAGE_MAX_BYTES, NodeService, embedded, wire};

const NOW: UnixMillis = UnixMillis(1_790_000_000_000);

/// The default of a type that this crate does not name: the store's options.
fn default<T: Default>() -> T {
    T::default()
}

fn signed(roster: &Roster, admin: &SecretKey<Admin>) -> Bytes {
    let mut draft = roster.to_envelope().unwrap();
    draft.sign(admin);
    draft.finish().unwrap().as_bytes().clone()
}

/// A node of the member `north`, in a coalition with `harbor`.
pub(crate) fn node(folder: &TempDir) -> Arc<Node> {
    let admin = SecretKey::<Admin>::from_seed(&[1; 32]);
    let admins = vec![RosterAdmin {
        name: "ada".to_owned(),
        key: admin.public(),
    }];
    let coalition = CoalitionName::parse("test.example").unwrap();
    let first = signed(&Roster::found(coalition, admins, NOW, 365 * DAY_MS), &admin);
    let envelope = Envelope::decode(first.clone(), PayloadType::Roster).unwrap();
    let genesis = envelope.payload_digest();
    let chain = RosterChain::begin(envelope, &genesis, NOW).unwrap();
    let mut second = Roster::after(chain.current(), genesis, NOW, 365 * DAY_MS);
    for (n, slug) in [(2_u8, "north"), (3, "harbor")] {
        let member = NewMember {
            slug: Slug::parse(slug).unwrap(),
            display_name: slug.to_owned(),
            organisation_kind: "platform".to_owned(),
            identity: SecretKey::from_seed(&[n; 32]).public(),
            roles: vec![Role::Publish, Role::Subscribe],
        };
        second.admit(member).unwrap();
    }
    let node = Node::open(NodeOptions {
        store_dir: folder.path().join("store"),
        store: default(),
        sign_state_dir: folder.path().join("sign-state"),
        member: Slug::parse("north").unwrap(),
        node: Slug::parse("n1").unwrap(),
        genesis,
        endpoint_policy: EndpointPolicy::default(),
        denied: BTreeSet::new(),
        feed_key: SecretKey::from_seed(&[77; 32]),
        identity_key: Some(SecretKey::from_seed(&[2; 32])),
        clock: Clock::manual(NOW),
        connects: false,
        witness: None,
        near_index: true,
        audit: hashpact_node::audit::AuditSettings::default(),
        hygiene: hashpact_node::hygiene::HygieneOptions::default(),
    })
    .unwrap();
    for roster in [first, signed(&second, &admin)] {
        node.membership().accept_roster(roster).unwrap();
    }
    node
}

struct Scene {
    _folder: TempDir,
    client: NodeClient<Channel>,
}

impl Scene {
    async fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let service = NodeService::new(node(&folder), About::default());
        let stream = Mutex::new(Some(embedded(service).stream));
        let channel = Endpoint::from_static("http://node.invalid")
            .connect_with_connector(service_fn(move |_| {
                let stream = stream.lock().unwrap().take().map(TokioIo::new);
                std::future::ready(stream.ok_or_else(|| std::io::Error::other("gone")))
            }))
            .await
            .unwrap();
        Self {
            _folder: folder,
            client: NodeClient::new(channel)
                .max_decoding_message_size(MESSAGE_MAX_BYTES)
                .max_encoding_message_size(MESSAGE_MAX_BYTES),
        }
    }

    /// With an own set that may be shared.
    async fn with_set() -> Self {
        let scene = Self::new().await;
        scene.create(own_set("confirmed")).await.unwrap();
        scene
    }

    async fn create(&self, request: wire::CreateSetRequest) -> Result<wire::SetInfo, Status> {
        let mut client = self.client.clone();
        client
            .create_set(request)
            .await
            .map(tonic::Response::into_inner)
    }

    /// Imports messages; the last answer, or the status that the stream ended with.
    async fn import(
        &self,
        messages: Vec<wire::ImportRequest>,
    ) -> Result<(Vec<wire::ImportResponse>, wire::ImportResponse), Status> {
        let mut client = self.client.clone();
        let mut answers = client
            .import(tokio_stream::iter(messages))
            .await?
            .into_inner();
        let mut progress = Vec::new();
        while let Some(answer) = answers.message().await? {
            if answer.done {
                return Ok((progress, answer));
            }
            progress.push(answer);
        }
        panic!("the import ended without its last answer");
    }

    async fn import_entries(&self, entries: Vec<wire::Entry>) -> wire::ImportResponse {
        let messages = vec![begin("confirmed"), said(entries), last()];
        self.import(messages).await.unwrap().1
    }

    async fn known(&self, values: &[u8]) -> Vec<usize> {
        let signals = values.iter().map(|value| md5(*value)).collect();
        let mut client = self.client.clone();
        let answer = client
            .lookup(wire::LookupRequest {
                signals,
                ..wire::LookupRequest::default()
            })
            .await
            .unwrap();
        let answers = answer.into_inner().answers;
        answers.iter().map(|answer| answer.matches.len()).collect()
    }

    async fn exported(&self, set: &str) -> Result<Vec<wire::ExportedEntry>, Status> {
        let request = wire::ExportRequest {
            set: set.to_owned(),
            ..wire::ExportRequest::default()
        };
        self.export(request).await
    }

    async fn export(
        &self,
        request: wire::ExportRequest,
    ) -> Result<Vec<wire::ExportedEntry>, Status> {
        let mut client = self.client.clone();
        let mut pages = client.export(request).await?.into_inner();
        let mut entries = Vec::new();
        while let Some(page) = pages.message().await? {
            entries.extend(page.entries);
        }
        Ok(entries)
    }
}

fn own_set(name: &str) -> wire::CreateSetRequest {
    wire::CreateSetRequest {
        set: name.to_owned(),
        title: "A set".to_owned(),
        may_share: true,
        classification_scheme: "tc".to_owned(),
        ..wire::CreateSetRequest::default()
    }
}

fn md5(value: u8) -> wire::Signal {
    wire::Signal {
        kind: 1,
        value: vec![value; 16].into(),
        quality: None,
    }
}

fn entry(value: u8, classification: &str) -> wire::Entry {
    wire::Entry {
        signals: vec![md5(value)],
        classification: classification.to_owned(),
        source_reference: format!("ref-{value}"),
        line: u64::from(value),
        ..wire::Entry::default()
    }
}

fn begin(set: &str) -> wire::ImportRequest {
    wire::ImportRequest {
        set: set.to_owned(),
        ..wire::ImportRequest::default()
    }
}

fn said(entries: Vec<wire::Entry>) -> wire::ImportRequest {
    wire::ImportRequest {
        entries,
        ..wire::ImportRequest::default()
    }
}

fn last() -> wire::ImportRequest {
    wire::ImportRequest {
        last: true,
        ..wire::ImportRequest::default()
    }
}

fn code(status: &Status) -> &str {
    status.metadata().get(CODE).unwrap().to_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_imported_is_answered_and_the_same_again_adds_nothing() {
    let scene = Scene::with_set().await;
    let first = scene
        .import_entries(vec![entry(1, "A1"), entry(2, "A2")])
        .await;
    assert_eq!((first.received, first.added), (2, 2));
    assert_eq!(first.head_size, 3);
    assert_eq!(scene.known(&[1, 2, 3]).await, [1, 1, 0]);
    let again = scene
        .import_entries(vec![entry(1, "A1"), entry(2, "B2")])
        .await;
    assert_eq!((again.added, again.replaced, again.unchanged), (0, 1, 1));
    assert_eq!(scene.known(&[1, 2]).await, [1, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_names_publisher_set_and_classification() {
    let scene = Scene::with_set().await;
    scene.import_entries(vec![entry(1, "A1")]).await;
    let mut client = scene.client.clone();
    let signals = vec![md5(1)];
    let answer = client
        .lookup(wire::LookupRequest {
            signals,
            ..wire::LookupRequest::default()
        })
        .await
        .unwrap();
    let found = answer.into_inner().answers.remove(0).matches.remove(0);
    assert_eq!(found.set, "north/confirmed");
    assert_eq!(found.entry, "north/confirmed#1");
    assert_eq!(found.classification, "tc:A1");
    assert_eq!(found.publisher.unwrap().slug, "north");
    assert_eq!(found.standing, "active");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_cannot_be_read_does_not_spoil_the_others() {
    let scene = Scene::with_set().await;
    let mut bad = entry(9, "A1");
    bad.signals[0].value = vec![9; 3].into();
    let mut empty = entry(8, "A1");
    empty.signals.clear();
    let messages = vec![
        begin("confirmed"),
        said(vec![bad, entry(1, "A1"), empty]),
        last(),
    ];
    let (progress, done) = scene.import(messages).await.unwrap();
    let mut lines: Vec<u64> = progress[0].rejected.iter().map(|r| r.line).collect();
    lines.sort_unstable();
    assert_eq!(lines, [8, 9]);
    assert_eq!((done.received, done.added), (3, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_is_cut_off_signs_nothing() {
    let scene = Scene::with_set().await;
    let messages = vec![begin("confirmed"), said(vec![entry(1, "A1")])];
    let status = scene.import(messages).await.unwrap_err();
    assert_eq!(code(&status), "misuse");
    // Who is told that it was cut off can write the set at once.
    let done = scene.import_entries(vec![entry(2, "A1")]).await;
    assert_eq!(done.head_size, 2);
    assert_eq!(scene.known(&[1, 2]).await, [0, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_into_a_set_that_is_not_there_names_it() {
    let scene = Scene::with_set().await;
    let status = scene
        .import(vec![begin("nothing"), last()])
        .await
        .unwrap_err();
    assert_eq!(
        (status.code(), code(&status)),
        (Code::NotFound, "not_found")
    );
    let status = scene
        .import(vec![begin("harbor/confirmed"), last()])
        .await
        .unwrap_err();
    assert!(status.message().contains("another member"), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_retracted_is_not_answered() {
    let scene = Scene::with_set().await;
    scene
        .import_entries(vec![entry(1, "A1"), entry(2, "A1"), entry(3, "A1")])
        .await;
    let selectors = [
        By::Entry("#1".to_owned()),
        By::Signal(md5(2)),
        By::SourceReference("ref-77".to_owned()),
        By::Entry("harbor/x#1".to_owned()),
    ];
    let selectors = (1..).zip(selectors);
    let request = wire::RetractRequest {
        set: "confirmed".to_owned(),
        reason: "wrong".to_owned(),
        selectors: selectors
            .map(|(line, by)| wire::Selector { by: Some(by), line })
            .collect(),
        last: true,
        ..wire::RetractRequest::default()
    };
    let mut client = scene.client.clone();
    let answer = client
        .retract(tokio_stream::iter([request.clone()]))
        .await
        .unwrap();
    let answer = answer.into_inner();
    let mut missing: Vec<u64> = answer.not_found.iter().map(|r| r.line).collect();
    missing.sort_unstable();
    assert_eq!((answer.retracted, missing), (2, vec![3, 4]));
    assert_eq!(scene.known(&[1, 2, 3]).await, [0, 0, 1]);
    let cut_off = wire::RetractRequest {
        last: false,
        ..request
    };
    let status = client
        .retract(tokio_stream::iter([cut_off]))
        .await
        .unwrap_err();
    assert_eq!(code(&status), "misuse");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_has_the_live_entries_as_they_were_said() {
    let scene = Scene::with_set().await;
    scene
        .import_entries(vec![entry(1, "A1"), entry(2, "A2")])
        .await;
    scene.import_entries(vec![entry(2, "B2")]).await;
    let exported = scene.exported("confirmed").await.unwrap();
    let said: Vec<(String, String)> = exported
        .into_iter()
        .map(|entry| (entry.entry, entry.body.unwrap().classification))
        .collect();
    let expected = [("north/confirmed#1", "A1"), ("north/confirmed#2", "B2")];
    assert_eq!(said, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_tells_verdicts_and_chooses_by_them_where_that_is_asked_for() {
    let scene = Scene::with_set().await;
    scene
        .import_entries(vec![entry(1, "A1"), entry(2, "A2")])
        .await;
    let asked = |verdicts, only: &[&str]| wire::ExportRequest {
        set: "confirmed".to_owned(),
        verdicts,
        only_verdicts: only.iter().map(ToString::to_string).collect(),
        ..wire::ExportRequest::default()
    };
    let plain = scene.export(asked(false, &[])).await.unwrap();
    assert!(plain.iter().all(|entry| entry.verdict.is_empty()));
    let told = scene.export(asked(true, &[])).await.unwrap();
    let review = |entry: &wire::ExportedEntry| entry.verdict == "review";
    assert_eq!(told.iter().filter(|entry| review(entry)).count(), 2);
    let chosen = scene.export(asked(true, &["enforce", "review"])).await;
    assert_eq!(chosen.unwrap().len(), 2);
    let none = scene.export(asked(true, &["enforce"])).await;
    assert_eq!(none.unwrap().len(), 0);
    for refused in [
        asked(false, &["enforce"]),
        asked(true, &["enforce", "review", "observe", "ignore", "perhaps"]),
    ] {
        let refused = scene.export(refused).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mute_is_told_for_a_reason_of_the_table_or_not_made() {
    let scene = Scene::with_set().await;
    scene.import_entries(vec![entry(1, "A1")]).await;
    let mut client = scene.client.clone();
    let mute = wire::MuteRequest {
        subject: Some(wire::MuteSubject {
            of: Some(wire::mute_subject::Of::Signal(md5(1))),
        }),
        case: "ticket 7".to_owned(),
        expires_ms: u64::MAX,
        tell: "whatever".to_owned(),
    };
    let refused = client.mute(mute).await.unwrap_err();
    assert!(refused.message().contains("no such reason"), "{refused}");
    let listed = client.list_mutes(wire::ListMutesRequest {}).await;
    assert!(listed.unwrap().into_inner().mutes.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_may_not_be_shared_leaves_by_no_way() {
    let scene = Scene::new().await;
    let list = wire::CreateSetRequest {
        set: "licensed".to_owned(),
        list_owner: "A hotline".to_owned(),
        terms_text: "for matching only".to_owned(),
        may_share: false,
        ..own_set("licensed")
    };
    let granted = wire::CreateSetRequest {
        grants: vec![wire::Grantee {
            who: "harbor".to_owned(),
            relay: false,
        }],
        ..list.clone()
    };
    let refused = |status: Status| {
        assert_eq!(code(&status), "terms");
        assert!(status.message().contains("for matching only"), "{status}");
    };
    refused(scene.create(granted.clone()).await.unwrap_err());
    scene.create(list).await.unwrap();
    let mut client = scene.client.clone();
    let grant = wire::ChangeGrantsRequest {
        set: "licensed".to_owned(),
        grant: granted.grants,
        revoke: Vec::new(),
    };
    refused(client.change_grants(grant).await.unwrap_err());
    refused(scene.exported("licensed").await.unwrap_err());
    assert_eq!(scene.exported("").await.unwrap().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn grants_come_and_go() {
    let scene = Scene::with_set().await;
    let mut client = scene.client.clone();
    let change = |grant: &[&str], revoke: &[&str]| wire::ChangeGrantsRequest {
        set: "confirmed".to_owned(),
        grant: grant
            .iter()
            .map(|who| wire::Grantee {
                who: (*who).to_owned(),
                relay: true,
            })
            .collect(),
        revoke: revoke.iter().map(|who| (*who).to_owned()).collect(),
    };
    let set = client
        .change_grants(change(&["harbor"], &[]))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(set.grants.len(), 1);
    assert!(set.grants[0].relay);
    let status = client
        .change_grants(change(&["nobody"], &[]))
        .await
        .unwrap_err();
    assert_eq!(code(&status), "not_found");
    let set = client
        .change_grants(change(&[], &["harbor"]))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(set.grants, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn status_feeds_roster_and_sets_show_what_there_is() {
    let scene = Scene::with_set().await;
    scene.import_entries(vec![entry(1, "A1")]).await;
    let mut client = scene.client.clone();
    let status = client
        .status(wire::StatusRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (status.member.as_str(), status.coalition.as_str()),
        ("north", "test.example")
    );
    assert_eq!(
        (status.roster_version, status.feeds, status.live_entries),
        (2, 1, 1)
    );
    let feeds = client
        .feeds(wire::FeedsRequest {})
        .await
        .unwrap()
        .into_inner()
        .feeds;
    assert_eq!(feeds[0].name, "north/confirmed");
    assert_eq!(
        (feeds[0].head, feeds[0].indexed, feeds[0].state.as_str()),
        (2, 2, "open")
    );
    let roster = client
        .show_roster(wire::ShowRosterRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(roster.rosters.len(), 2);
    let again = wire::ImportRosterRequest {
        rosters: vec![roster.rosters[1].clone(), Bytes::from_static(b"junk")],
        ..wire::ImportRosterRequest::default()
    };
    let outcome = client.import_roster(again).await.unwrap().into_inner();
    assert_eq!((outcome.known, outcome.refused.len()), (1, 1));
    let sets = client
        .list_sets(wire::ListSetsRequest {})
        .await
        .unwrap()
        .into_inner()
        .sets;
    assert_eq!(sets[0].name, "north/confirmed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_of_the_store_ends_with_its_outcome() {
    let scene = Scene::with_set().await;
    scene
        .import_entries(vec![entry(1, "A1"), entry(2, "A1")])
        .await;
    let mut client = scene.client.clone();
    let mut answers = client
        .verify(wire::VerifyRequest {})
        .await
        .unwrap()
        .into_inner();
    let mut end = wire::VerifyResponse::default();
    while let Some(answer) = answers.message().await.unwrap() {
        end = answer;
    }
    assert!(end.done);
    assert_eq!(
        (end.feeds_checked, end.leaves_done, end.postings_checked),
        (1, 3, 2)
    );
    // No node card is known here, so no key that the heads could be checked with.
    assert!(
        end.problems
            .iter()
            .all(|problem| problem.contains("signature")),
        "{:?}",
        end.problems
    );
}
