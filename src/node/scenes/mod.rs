//! A node over a real store, without a network: publishing and asking.

mod audit;
mod changes;
mod conflicts;
mod discipline;
mod doubts;
mod entries;
mod erase;
mod feeds;
mod mass;
mod near;
mod opinions;
mod past;
mod policy;
mod restored;
mod retention;
mod telling;
mod verdicts;
mod videos;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use hashpact_core::card::EndpointPolicy;
use hashpact_core::envelope::{Envelope, PayloadType};
use hashpact_core::id::{CoalitionName, Digest, Slug, UnixMillis};
use hashpact_core::keys::{Admin, Identity, SecretKey};
use hashpact_core::leaf::{Basis, Classification, MediaKind, Publish};
use hashpact_core::limits::DAY_MS;
use hashpact_core::roster::{MemberStatus, NewMember, Role, Roster, RosterAdmin, RosterChain};
use hashpact_core::signal::{Signal, SignalKind};
use hashpact_store::StoreOptions;
use tempfile::TempDir;

use crate::audit::AuditSettings;
use crate::clock::Clock;
use crate::hygiene::HygieneOptions;
use crate::model::{ImportProgress, NewEntry, NewSet, SetSource};
use crate::node::{Node, NodeOptions};

const NOW: UnixMillis = UnixMillis(1_790_000_000_000);

/// A coalition of one administrator and the members `north` and `harbor`.
pub(crate) struct Scene {
    dir: TempDir,
    pub(crate) clock: Clock,
    genesis: Digest,
    rosters: Vec<Bytes>,
    pub(crate) audit: AuditSettings,
    pub(crate) hygiene: HygieneOptions,
}

impl Scene {
    pub(crate) fn new() -> Self {
        Self::of(&["north"])
    }

    pub(crate) fn of(members: &[&str]) -> Self {
        let admin = SecretKey::<Admin>::from_seed(&[1; 32]);
        let coalition = CoalitionName::parse("test.example").unwrap();
        let admins = vec![RosterAdmin {
            name: "ada".to_owned(),
            key: admin.public(),
        }];
        let first = Roster::found(coalition, admins, NOW, 365 * DAY_MS);
        let first = signed(&first, &admin);
        let genesis = Envelope::decode(first.clone(), PayloadType::Roster)
            .unwrap()
            .payload_digest();
        let envelope = Envelope::decode(first.clone(), PayloadType::Roster).unwrap();
        let chain = RosterChain::begin(envelope, &genesis, NOW).unwrap();
        let mut second = Roster::after(chain.current(), genesis, NOW, 365 * DAY_MS);
        for (n, slug) in (2_u8..).zip(members) {
            let new = NewMember {
                slug: Slug::parse(slug).unwrap(),
                display_name: (*slug).to_owned(),
                organisation_kind: "platform".to_owned(),
                identity: SecretKey::from_seed(&[n; 32]).public(),
                roles: vec![Role::Publish, Role::Subscribe],
            };
            second.admit(new).unwrap();
        }
        let rosters = vec![first, signed(&second, &admin)];
        Self {
            dir: TempDir::new().unwrap(),
            clock: Clock::manual(NOW),
            genesis,
            rosters,
            audit: AuditSettings::default(),
            hygiene: HygieneOptions::default(),
        }
    }

    pub(crate) fn store_dir(&self) -> std::path::PathBuf {
        self.dir.path().join("store")
    }

    pub(crate) fn sign_state_dir(&self) -> std::path::PathBuf {
        self.dir.path().join("sign-state")
    }

    pub(crate) fn copy_store_to(&self, name: &str) {
        copy_dir(&self.store_dir(), &self.dir.path().join(name));
    }

    pub(crate) fn restore_store_from(&self, name: &str) {
        std::fs::remove_dir_all(self.store_dir()).unwrap();
        copy_dir(&self.dir.path().join(name), &self.store_dir());
    }

    pub(crate) fn open(&self) -> Arc<Node> {
        self.open_with(Some(SecretKey::from_seed(&[2; 32])))
    }

    pub(crate) fn open_with(&self, identity_key: Option<SecretKey<Identity>>) -> Arc<Node> {
        self.open_as(identity_key, false)
    }

    /// As a running node does.
    pub(crate) fn open_with_near_index(&self) -> Arc<Node> {
        self.open_as(Some(SecretKey::from_seed(&[2; 32])), true)
    }

    /// Hands the node a roster in which its own member is removed.
    pub(crate) fn remove_north(&self, node: &Node) {
        let state = node.membership().state();
        let chain = state.chain.as_ref().unwrap();
        let mut next = Roster::after(chain.current(), self.genesis, NOW, 365 * DAY_MS);
        let north = next
            .members
            .iter()
            .find(|member| member.slug == slug("north"));
        let north = north.unwrap().number;
        next.set_status(north, MemberStatus::Removed).unwrap();
        let admin = SecretKey::<Admin>::from_seed(&[1; 32]);
        let accepted = node.membership().accept_roster(signed(&next, &admin));
        accepted.unwrap();
    }

    fn open_as(&self, identity_key: Option<SecretKey<Identity>>, near_index: bool) -> Arc<Node> {
        let node = Node::open(NodeOptions {
            store_dir: self.store_dir(),
            store: StoreOptions::default(),
            sign_state_dir: self.sign_state_dir(),
            member: Slug::parse("north").unwrap(),
            node: Slug::parse("n1").unwrap(),
            genesis: self.genesis,
            endpoint_policy: EndpointPolicy::default(),
            denied: std::collections::BTreeSet::new(),
            feed_key: SecretKey::from_seed(&[77; 32]),
            identity_key,
            clock: self.clock.clone(),
            connects: false,
            witness: None,
            near_index,
            audit: self.audit,
            hygiene: self.hygiene,
        })
        .unwrap();
        for roster in &self.rosters {
            node.membership().accept_roster(roster.clone()).unwrap();
        }
        node
    }
}

fn signed(roster: &Roster, admin: &SecretKey<Admin>) -> Bytes {
    let mut draft = roster.to_envelope().unwrap();
    draft.sign(admin);
    draft.finish().unwrap().as_bytes().clone()
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

pub(crate) fn slug(text: &str) -> Slug {
    Slug::parse(text).unwrap()
}

pub(crate) fn own_work(set: &str) -> NewSet {
    NewSet {
        set: slug(set),
        title: "A set".to_owned(),
        source: SetSource::OwnWork,
        classification_scheme: "tc".to_owned(),
        grants: Vec::new(),
    }
}

pub(crate) fn sha256_of(n: u64) -> Signal {
    let digest = Digest::of(&n.to_be_bytes());
    let value = Bytes::copy_from_slice(digest.as_bytes());
    Signal::new(SignalKind::Sha256, value, None).unwrap()
}

/// Entry `n` with a reference, and a label that tells its versions apart.
pub(crate) fn entry(n: u64, label: &str) -> NewEntry {
    NewEntry {
        body: Publish {
            media_kind: MediaKind::Image,
            signals: vec![sha256_of(n)],
            classification: Some(Classification::parse("A1").unwrap()),
            labels: vec![label.to_owned()],
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

pub(crate) fn import(node: &Node, set: &str, entries: Vec<NewEntry>) -> ImportProgress {
    let mut import = node.import(&slug(set)).unwrap();
    import.push(entries).unwrap();
    import.finish().unwrap()
}

/// How many entries carry the signal of entry `n`.
pub(crate) fn hits(node: &Node, n: u64) -> usize {
    node.lookup(&[sha256_of(n)]).unwrap()[0].len()
}
