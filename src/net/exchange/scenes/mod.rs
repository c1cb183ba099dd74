//! Real nodes of one coalition, over real stores: what they tell and serve whom.

mod asking;
mod beside;
mod bounds;
mod bundles;
mod bundles_hostile;
mod elision;
mod epochs;
mod equivocations;
pub(super) mod forged;
mod forked_epochs;
mod gossip;
mod hostile;
mod hostile_chunks;
mod hostile_documents;
mod hostile_feeds;
mod hostile_heads;
mod hostile_peers;
mod interrupted;
mod leaving;
mod live;
mod membership;
mod mutated;
mod mutated_chunks;
#[path = "../../../core/hostile/mutations.rs"]
mod mutations;
mod opinions;
mod receipts;
mod receipts_cut;
mod rechecking;
mod rekeyed;
mod renewal;
mod reports;
mod reverse;
mod room;
mod roster_witnesses;
mod serving;
mod telling;
mod wire;
mod witnesses;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use hashpact_core::card::{
    Contact, Endpoint, EndpointPolicy, FeedKey, Node as CardNode, NodeCard, SetScope,
};
use hashpact_core::checkpoint;
use hashpact_core::chunk::{self, PinnedHead, VerifiedChunk};
use hashpact_core::envelope::{Envelope, EnvelopeDraft, PayloadType};
use hashpact_core::id::{CoalitionName, Digest, FeedId, MemberNumber, Slug, UnixMillis};
use hashpact_core::keys::{
    Admin, Feed as FeedSigning, Receipt as ReceiptSigning, SecretKey, Witness,
};
use hashpact_core::leaf::{Basis, Classification, MediaKind, Publish, RetractReason};
use hashpact_core::limits::DAY_MS;
use hashpact_core::roster::{MemberStatus, NewMember, Role, Roster, RosterAdmin, RosterChain};
use hashpact_core::signal::{Signal, SignalKind};
use hashpact_core::suspension::Suspension;
use hashpact_node::clock::Clock;
use hashpact_node::hygiene::HygieneOptions;
use hashpact_node::model::{
    Grantee, MatchStanding, NewEntry, NewSet, Retraction, Selector, SetSource,
};
use hashpact_node::witnessing::WitnessOptions;
use hashpact_node::{Node, NodeOptions};
use hashpact_store::{FeedInfo, FeedKind, Head, NewFeed, StoreOptions};
use tempfile::TempDir;
use tokio::time::timeout;

use super::directory::Snapshots;
use super::served::Pulls;
use crate::service::ServiceError;
use crate::types::{Announcement, Answers, PullPart, PullRequest};
use crate::{Credentials, PemPair};

pub(crate) const NOW: UnixMillis = UnixMillis(1_790_000_000_000);
const COALITION: &str = "test.example";

pub(crate) const NORTH: u32 = 1;
pub(crate) const SOUTH: u32 = 2;
pub(crate) const WITNESS: u32 = 3;
pub(crate) const WEST: u32 = 4;
/// Those of a coalition without more witnesses are the first four.
const SLUGS: [&str; 7] = [
    "north", "south", "witness", "west", "second", "third", "fourth",
];
const FEW: usize = 4;

pub(crate) fn number(number: u32) -> MemberNumber {
    MemberNumber::new(number).unwrap()
}

fn slug(text: &str) -> Slug {
    Slug::parse(text).unwrap()
}

fn admin() -> SecretKey<Admin> {
    SecretKey::from_seed(&[1; 32])
}

pub(crate) const fn is_witness(member: u32) -> bool {
    member == WITNESS || member > 4
}

pub(crate) fn witness_key(member: u32) -> SecretKey<Witness> {
    SecretKey::from_seed(&key_seed(member, 9))
}

fn key_seed(member: u32, purpose: u8) -> [u8; 32] {
    let mut seed = [purpose; 32];
    seed[0] = u8::try_from(member).unwrap();
    seed
}

fn receipt_key(member: u32) -> SecretKey<ReceiptSigning> {
    SecretKey::from_seed(&key_seed(member, 4))
}

fn signed(roster: &Roster) -> Bytes {
    let mut draft = roster.to_envelope().unwrap();
    draft.sign(&admin());
    draft.finish().unwrap().as_bytes().clone()
}

/// A coalition of one administrator: two publishers, a witness, one more reader.
pub(crate) struct Coalition {
    dir: TempDir,
    pub(crate) clock: Clock,
    pub(crate) genesis: Digest,
    pub(crate) credentials: Vec<Credentials>,
    rosters: Vec<Bytes>,
    cards: Vec<Bytes>,
    /// Witnesses have keys on their cards, and their nodes do nothing else.
    witnessed: bool,
    /// What all nodes do about doubts.
    hygiene: HygieneOptions,
}

impl Coalition {
    pub(crate) fn new() -> Self {
        Self::of(FEW, false)
    }

    /// The same with four witnesses that have keys: 3, 5, 6, 7.
    pub(crate) fn witnessed() -> Self {
        Self::of(SLUGS.len(), true)
    }

    fn of(members: usize, witnessed: bool) -> Self {
        let coalition = CoalitionName::parse(COALITION).unwrap();
        let admins = vec![RosterAdmin {
            name: "ada".to_owned(),
            key: admin().public(),
        }];
        let first = signed(&Roster::found(coalition, admins, NOW, 365 * DAY_MS));
        let envelope = Envelope::decode(first.clone(), PayloadType::Roster).unwrap();
        let genesis = envelope.payload_digest();
        let chain = RosterChain::begin(envelope, &genesis, NOW).unwrap();
        let mut second = Roster::after(chain.current(), genesis, NOW, 365 * DAY_MS);
        for (member, name) in (1..).zip(SLUGS).take(members) {
            let roles = if is_witness(member) {
                vec![Role::Witness]
            } else {
                vec![Role::Publish, Role::Subscribe]
            };
            let new = NewMember {
                slug: slug(name),
                display_name: name.to_owned(),
                organisation_kind: "platform".to_owned(),
                identity: SecretKey::from_seed(&key_seed(member, 2)).public(),
                roles,
            };
            second.admit(new).unwrap();
        }
        let mut made = Self {
            dir: TempDir::new().unwrap(),
            clock: Clock::manual(NOW),
            genesis,
            credentials: Vec::new(),
            rosters: vec![first, signed(&second)],
            cards: Vec::new(),
            witnessed,
            hygiene: HygieneOptions::default(),
        };
        for (member, _) in (1..).zip(SLUGS).take(members) {
            made.add_card(member);
        }
        made
    }

    fn add_card(&mut self, member: u32) {
        let pair = PemPair::generate("node.example", NOW).unwrap();
        let credentials =
            Credentials::from_pem(pair.certificate.as_bytes(), pair.key.as_bytes()).unwrap();
        self.credentials.push(credentials);
        let card = self.card(member, 1, Vec::new());
        self.cards.push(card);
    }

    /// A version of a member's card, with where its node listens.
    pub(crate) fn card(&self, member: u32, version: u64, endpoints: Vec<Endpoint>) -> Bytes {
        self.card_with(member, version, |card| card.nodes[0].endpoints = endpoints)
    }

    /// A version of a member's card, changed before it is signed.
    pub(crate) fn card_with(
        &self,
        member: u32,
        version: u64,
        change: impl FnOnce(&mut NodeCard),
    ) -> Bytes {
        self.card_keyed(member, version, &[], change)
    }

    /// The same, signed by further feed keys that are on it.
    pub(crate) fn card_keyed(
        &self,
        member: u32,
        version: u64,
        feed_keys: &[SecretKey<FeedSigning>],
        change: impl FnOnce(&mut NodeCard),
    ) -> Bytes {
        let sign = |draft: &mut EnvelopeDraft| {
            for key in feed_keys {
                draft.sign(key);
            }
        };
        self.card_signed(member, version, sign, change)
    }

    /// The same, signed by whatever further keys are on it.
    pub(crate) fn card_signed(
        &self,
        member: u32,
        version: u64,
        sign: impl FnOnce(&mut EnvelopeDraft),
        change: impl FnOnce(&mut NodeCard),
    ) -> Bytes {
        let at = usize::try_from(member).unwrap() - 1;
        let (name, credentials) = (SLUGS[at], &self.credentials[at]);
        let feed_key = SecretKey::from_seed(&key_seed(member, 3));
        let mut card = NodeCard {
            genesis: self.genesis,
            member: Some(number(member)),
            slug: slug(name),
            version,
            issued: NOW,
            expires: NOW.plus(300 * DAY_MS),
            nodes: vec![CardNode {
                name: slug("n1"),
                endpoints: Vec::new(),
                tls_keys: vec![credentials.key_digest().unwrap()],
                feed_keys: vec![FeedKey {
                    key: feed_key.public(),
                    sets: SetScope::All,
                }],
                witness_keys: Vec::new(),
                receipt_keys: vec![receipt_key(member).public()],
            }],
            contact: Contact {
                name: "duty".to_owned(),
                email: "duty@node.example".to_owned(),
                phone: String::new(),
            },
        };
        let cosigns = self.witnessed && is_witness(member);
        if cosigns {
            card.nodes[0].witness_keys = vec![witness_key(member).public()];
        }
        change(&mut card);
        let mut draft = card.to_envelope().unwrap();
        let identity = SecretKey::<hashpact_core::keys::Identity>::from_seed(&key_seed(member, 2));
        draft.sign(&identity).sign(&feed_key);
        draft.sign(&receipt_key(member));
        if cosigns {
            draft.sign(&witness_key(member));
        }
        sign(&mut draft);
        let possession = credentials.sign(&draft.to_sign()).unwrap();
        draft
            .add_tls(&credentials.spki_der().unwrap(), &possession)
            .unwrap();
        draft.finish().unwrap().as_bytes().clone()
    }

    /// Opens a member's node, with everybody's cards.
    pub(crate) fn open(&self, member: u32) -> Arc<Node> {
        self.open_with(member, &[])
    }

    pub(crate) fn open_with(&self, member: u32, denied: &[u32]) -> Arc<Node> {
        let folder = SLUGS[usize::try_from(member).unwrap() - 1];
        self.open_in(folder, member, denied)
    }

    /// The same, in a folder of another name: a second node of the member's.
    pub(crate) fn open_in(&self, folder: &str, member: u32, denied: &[u32]) -> Arc<Node> {
        let feed_key = SecretKey::from_seed(&key_seed(member, 3));
        let node = self.open_keyed(folder, member, denied, feed_key);
        for roster in &self.rosters {
            node.membership().accept_roster(roster.clone()).unwrap();
        }
        for card in &self.cards {
            node.membership().accept_card(card.clone()).unwrap();
        }
        node
    }

    /// Opens a member's node that has nothing but the genesis digest.
    pub(crate) fn open_unknowing(&self, member: u32, denied: &[u32]) -> Arc<Node> {
        let folder = SLUGS[usize::try_from(member).unwrap() - 1];
        let feed_key = SecretKey::from_seed(&key_seed(member, 3));
        self.open_keyed(folder, member, denied, feed_key)
    }

    /// Opens a member's node with a feed key, and with nothing but the genesis digest.
    pub(crate) fn open_keyed(
        &self,
        folder: &str,
        member: u32,
        denied: &[u32],
        feed_key: SecretKey<FeedSigning>,
    ) -> Arc<Node> {
        let name = SLUGS[usize::try_from(member).unwrap() - 1];
        let dir = self.dir.path().join(folder);
        let node = Node::open(NodeOptions {
            store_dir: dir.join("store"),
            store: StoreOptions::default(),
            sign_state_dir: dir.join("sign-state"),
            member: slug(name),
            node: slug("n1"),
            genesis: self.genesis,
            endpoint_policy: EndpointPolicy::AllowLocal,
            denied: denied.iter().map(|m| number(*m)).collect::<BTreeSet<_>>(),
            feed_key,
            identity_key: Some(SecretKey::from_seed(&key_seed(member, 2))),
            clock: self.clock.clone(),
            connects: false,
            witness: (self.witnessed && is_witness(member)).then(|| WitnessOptions {
                key: witness_key(member),
                only: true,
            }),
            near_index: false,
            audit: hashpact_node::audit::AuditSettings::default(),
            hygiene: self.hygiene,
        })
        .unwrap();
        node.use_receipt_keys(vec![receipt_key(member)]);
        node
    }
}

/// Has a node accept a next roster in which a member has another status.
pub(crate) fn set_status(node: &Node, member: u32, status: MemberStatus) {
    let chain = node.membership().roster().unwrap();
    let now = node.clock().now();
    let mut roster = Roster::after(chain.current(), chain.genesis(), now, 365 * DAY_MS);
    roster.set_status(number(member), status).unwrap();
    node.membership().accept_roster(signed(&roster)).unwrap();
}

pub(crate) fn suspend(node: &Node, member: u32) {
    let bytes = suspension_of(node, member);
    assert!(node.membership().accept_suspension(bytes).unwrap());
}

/// A suspension as the administrator signs it.
pub(crate) fn suspension_of(node: &Node, member: u32) -> Bytes {
    let chain = node.membership().roster().unwrap();
    let suspension = Suspension {
        genesis: chain.genesis(),
        roster_version: chain.version(),
        member: number(member),
        issued: node.clock().now(),
        expires: node.clock().now().plus(DAY_MS),
        reason: "a leaked key".to_owned(),
        admin: admin().public(),
    };
    let mut draft = suspension.to_envelope().unwrap();
    draft.sign(&admin());
    draft.finish().unwrap().as_bytes().clone()
}

/// Who, and whether it may relay.
pub(crate) fn grants(grants: &[(&str, bool)]) -> Vec<Grantee> {
    let grantee = |(who, relay): &(&str, bool)| Grantee {
        who: (*who).to_owned(),
        relay: *relay,
    };
    grants.iter().map(grantee).collect()
}

pub(crate) fn create_set(node: &Node, set: &str, to: &[(&str, bool)]) -> FeedId {
    let new = NewSet {
        set: slug(set),
        title: "A set".to_owned(),
        source: SetSource::OwnWork,
        classification_scheme: "tc".to_owned(),
        grants: grants(to),
    };
    node.create_set(&new).unwrap().feed
}

pub(crate) fn change_grants(node: &Node, set: &str, grant: &[(&str, bool)], revoke: &[&str]) {
    let revoke: Vec<String> = revoke.iter().map(|who| (*who).to_owned()).collect();
    node.change_grants(&slug(set), &grants(grant), &revoke)
        .unwrap();
}

/// Publishes entries `from` to `to`.
pub(crate) fn publish(node: &Node, set: &str, from: u64, to: u64) {
    let mut import = node.import(&slug(set)).unwrap();
    let entries = (from..to).map(entry).collect();
    import.push(entries).unwrap();
    import.finish().unwrap();
}

fn entry(n: u64) -> NewEntry {
    let digest = Digest::of(&n.to_be_bytes());
    let value = Bytes::copy_from_slice(digest.as_bytes());
    NewEntry {
        body: Publish {
            media_kind: MediaKind::Image,
            signals: vec![Signal::new(SignalKind::Sha256, value, None).unwrap()],
            classification: Some(Classification::parse("A1").unwrap()),
            labels: vec!["seen".to_owned()],
            basis: Basis::Human,
            source_reference: format!("ref-{n}"),
            first_seen: None,
            expires: None,
            replaces: Vec::new(),
            published: UnixMillis(0),
        },
        line: n,
    }
}

pub(crate) fn retract(node: &Node, set: &str, entries: std::ops::Range<u64>) {
    let selectors = entries
        .map(|n| (n, Selector::SourceReference(format!("ref-{n}"))))
        .collect();
    let retraction = Retraction {
        reason: RetractReason::Wrong,
        note: String::new(),
        recheck: false,
        selectors,
    };
    node.retract(&slug(set), &retraction).unwrap();
}

pub(crate) fn feed_of(node: &Node, feed: &FeedId) -> FeedInfo {
    let no = node.store().feed_no(feed).unwrap();
    node.store().feed(no).unwrap()
}

/// A request for all of a feed up to the head that `node` has applied.
pub(crate) fn all_of(node: &Node, feed: &FeedId) -> PullRequest {
    let head = feed_of(node, feed).applied.unwrap();
    PullRequest {
        feed: *feed,
        from: 0,
        to: head.size,
        head_size: head.size,
        head_root: head.root,
        proof_only: false,
        elide_dead: false,
    }
}

pub(crate) fn pulls(node: &Arc<Node>) -> Pulls {
    Pulls::new(
        Arc::clone(node),
        Arc::new(Snapshots::of(node)),
        crate::exchange::bulk::Bulk::start().unwrap(),
    )
}

pub(crate) async fn pull(
    node: &Arc<Node>,
    caller: u32,
    request: PullRequest,
) -> Result<Vec<PullPart>, ServiceError> {
    let mut parts = pulls(node).serve(number(caller), request).await?;
    let mut got = Vec::new();
    while let Some(part) = parts.next().await {
        got.push(part?);
    }
    Ok(got)
}

pub(crate) fn pinned(request: &PullRequest) -> PinnedHead {
    PinnedHead {
        size: request.head_size,
        root: request.head_root,
    }
}

pub(crate) fn verified(parts: &[PullPart], request: &PullRequest) -> Vec<VerifiedChunk> {
    let verify = |part: &PullPart| match part {
        PullPart::Chunk(parts) => chunk::verify(parts, &pinned(request)).unwrap(),
        PullPart::Proof(_) => panic!("a proof where leaves were asked"),
    };
    parts.iter().map(verify).collect()
}

/// Brings all of a feed from its publisher to another member's node, as a puller does.
pub(crate) async fn bring(from: &Arc<Node>, to: &Arc<Node>, feed: &FeedId, elide_dead: bool) {
    let member = to.membership().own().unwrap();
    let known = to.store().feed_no(feed);
    let request = PullRequest {
        from: known.map_or(0, |no| to.store().feed(no).unwrap().stored),
        elide_dead,
        ..all_of(from, feed)
    };
    let parts = pull(from, member.value(), request).await.unwrap();
    let theirs = feed_of(from, feed);
    let no = known.unwrap_or_else(|| {
        let new = NewFeed {
            id: *feed,
            publisher: theirs.publisher,
            own: false,
            kind: FeedKind::HashSet,
        };
        to.store().create_feed(&new).unwrap()
    });
    let mut writer = to.store().writer(no).unwrap();
    for chunk in verified(&parts, &request) {
        writer.append_verified(&chunk).unwrap();
    }
    let head = from.store().applied_head(theirs.no).unwrap().unwrap();
    let keys = |epoch| {
        let membership = to.membership();
        membership.feed_keys(theirs.publisher, None, *feed, epoch)
    };
    let coalition = CoalitionName::parse(COALITION).unwrap();
    let head = checkpoint::verify(head.note(), &coalition, feed, keys).unwrap();
    writer.commit(Some(&Head::new(&head, NOW))).unwrap();
    to.settle(&mut writer, 0).unwrap();
    drop(writer);
    to.purge_erased().unwrap();
    to.hub().tell(hashpact_node::hub::Change::Head(*feed));
}

/// What a watch says up to the end of its snapshot, without that.
pub(crate) async fn snapshot_of(watch: &mut Answers<Announcement>) -> Vec<Announcement> {
    let mut said = Vec::new();
    loop {
        let item = next(watch).await;
        if item == Announcement::SnapshotEnd {
            return said;
        }
        said.push(item);
    }
}

pub(crate) async fn next(watch: &mut Answers<Announcement>) -> Announcement {
    let item = timeout(hostile::PATIENCE, watch.next()).await;
    item.expect("something to be said").unwrap().unwrap()
}

/// Sees that watches have nothing to say of what happened so far: a card that is new
/// comes next in each.
pub(crate) async fn are_quiet(
    coalition: &Coalition,
    node: &Node,
    watches: &mut [&mut Answers<Announcement>],
) {
    let state = node.membership().state();
    let newest = state.cards.newest(number(WITNESS)).unwrap();
    let marker = coalition.card(WITNESS, newest.card().version + 1, Vec::new());
    assert!(node.membership().accept_card(marker.clone()).unwrap());
    for watch in watches {
        assert_eq!(next(watch).await, Announcement::NodeCard(marker.clone()));
    }
}
