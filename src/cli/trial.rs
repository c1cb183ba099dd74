//! A coalition for trials on one machine: an administrator who signs everything,
//! members with one node each, documents as in a real one, keys in memory only.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use hashpact_core::card::{Contact, Endpoint, EndpointPolicy, FeedKey, NodeCard, SetScope};
use hashpact_core::envelope::{Envelope, PayloadType};
use hashpact_core::id::{CoalitionName, Digest, MemberNumber, Slug, UnixMillis};
use hashpact_core::keys::{Admin, Feed, Identity, SecretKey};
use hashpact_core::limits::DAY_MS;
use hashpact_core::roster::{NewMember, Role, Roster, RosterAdmin, RosterChain};
use hashpact_net::{Credentials, PeerIdentity, PeerStatus, PeerTable, PemPair};
use hashpact_node::clock::Clock;
use hashpact_node::{Node, NodeOptions, RosterDocuments};
use hashpact_store::StoreOptions;
use serde::{Deserialize, Serialize};

use super::error::CliError;
use crate::keyfile;

/// The coalition's name.
const COALITION: &str = "trial.example";
/// The name of each member's one node.
const NODE: &str = "main";
/// How long documents are good for.
const LIFE_MS: u64 = 90 * DAY_MS;

/// A coalition whose documents are in force.
pub(crate) struct Trial {
    genesis: Digest,
    rosters: Vec<Bytes>,
    cards: Vec<Bytes>,
    seats: Vec<Seat>,
}

/// A [`Trial`] as text, secret keys and all: for a pipe to a process of one's own,
/// never for a file.
#[derive(Serialize, Deserialize)]
pub(crate) struct TrialText {
    genesis: String,
    rosters: Vec<String>,
    cards: Vec<String>,
    seats: Vec<SeatText>,
}

#[derive(Serialize, Deserialize)]
struct SeatText {
    slug: String,
    number: u32,
    identity: String,
    feed: String,
    certificate: String,
    key: String,
    listen: Option<SocketAddr>,
}

/// What one member of a trial runs its node with.
pub(crate) struct Seat {
    number: MemberNumber,
    slug: Slug,
    identity: SecretKey<Identity>,
    feed: SecretKey<Feed>,
    tls: PemPair,
    listen: Option<SocketAddr>,
}

impl Trial {
    /// Founds a coalition of these members; those with `true` listen on a free
    /// port of this machine, the others only dial.
    ///
    /// # Errors
    /// Without random bytes or free ports.
    pub(crate) fn found(members: &[(&str, bool)]) -> Result<Self, CliError> {
        let now = Clock::system().now();
        let seats = (1..)
            .zip(members)
            .map(|(number, (slug, listens))| Seat::new(number, slug, *listens, now))
            .collect::<Result<Vec<_>, _>>()?;
        let (genesis, rosters) = rosters(&seats, now)?;
        let cards = seats
            .iter()
            .map(|seat| seat.card(genesis, now))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            genesis,
            rosters,
            cards,
            seats,
        })
    }

    /// The seat of a member, from 0 in the order of founding.
    ///
    /// # Errors
    /// When there is no such seat.
    pub(crate) fn seat(&self, at: usize) -> Result<&Seat, CliError> {
        let missing = || CliError::failed("the trial has no such member");
        self.seats.get(at).ok_or_else(missing)
    }

    /// The same trial for another process.
    pub(crate) fn to_text(&self) -> TrialText {
        let hex = |documents: &[Bytes]| documents.iter().map(|d| HEXLOWER.encode(d)).collect();
        TrialText {
            genesis: self.genesis.to_string(),
            rosters: hex(&self.rosters),
            cards: hex(&self.cards),
            seats: self.seats.iter().map(Seat::to_text).collect(),
        }
    }

    /// Takes over a trial of another process.
    ///
    /// # Errors
    /// For a text that [`Trial::to_text`] did not make.
    pub(crate) fn from_text(text: TrialText) -> Result<Self, CliError> {
        let bytes = |documents: Vec<String>| {
            let read = |text: String| HEXLOWER.decode(text.as_bytes()).map(Bytes::from);
            let documents: Result<Vec<_>, _> = documents.into_iter().map(read).collect();
            documents.map_err(CliError::failed)
        };
        let seats = text.seats.into_iter().map(Seat::from_text);
        Ok(Self {
            genesis: Digest::from_hex(&text.genesis).map_err(CliError::failed)?,
            rosters: bytes(text.rosters)?,
            cards: bytes(text.cards)?,
            seats: seats.collect::<Result<_, _>>()?,
        })
    }

    /// Whose TLS key is whose.
    ///
    /// # Errors
    /// As [`Seat::credentials`].
    pub(crate) fn peers(&self) -> Result<Arc<PeerTable>, CliError> {
        let peers = self.seats.iter().map(|seat| {
            let credentials = seat.credentials()?;
            Ok(PeerIdentity {
                member: seat.number,
                slug: seat.slug.clone(),
                node: slug(NODE)?,
                status: PeerStatus::Active,
                tls_key: credentials.key_digest().map_err(CliError::failed)?,
            })
        });
        let peers: Vec<_> = peers.collect::<Result<_, CliError>>()?;
        Ok(Arc::new(PeerTable::new(peers)))
    }

    /// Opens the node of a seat in `dir`, with all documents of the coalition.
    ///
    /// # Errors
    /// What the node answers.
    pub(crate) fn open(
        &self,
        seat: &Seat,
        dir: &Path,
        store: StoreOptions,
    ) -> Result<Arc<Node>, CliError> {
        let node = Node::open(NodeOptions {
            store_dir: dir.join("store"),
            store,
            sign_state_dir: dir.join("sign-state"),
            member: seat.slug.clone(),
            node: slug(NODE)?,
            genesis: self.genesis,
            endpoint_policy: EndpointPolicy::AllowLocal,
            denied: BTreeSet::new(),
            feed_key: SecretKey::from_seed(&seat.feed.seed()),
            identity_key: Some(SecretKey::from_seed(&seat.identity.seed())),
            clock: Clock::system(),
            connects: false,
            witness: None,
            near_index: true,
            audit: hashpact_node::audit::AuditSettings::default(),
            hygiene: hashpact_node::hygiene::HygieneOptions::default(),
        })
        .map_err(CliError::failed)?;
        let documents = RosterDocuments {
            rosters: self.rosters.clone(),
            node_cards: self.cards.clone(),
            suspensions: Vec::new(),
        };
        let taken = node.import_roster(documents).map_err(CliError::failed)?;
        match taken.refused.first() {
            None => Ok(node),
            Some(why) => Err(CliError::failed(format!("the trial's documents: {why}"))),
        }
    }
}

impl Seat {
    fn new(number: u32, slug_text: &str, listens: bool, now: UnixMillis) -> Result<Self, CliError> {
        Ok(Self {
            number: MemberNumber::new(number).map_err(CliError::failed)?,
            slug: slug(slug_text)?,
            identity: keyfile::generate().map_err(CliError::failed)?,
            feed: keyfile::generate().map_err(CliError::failed)?,
            tls: PemPair::generate(&format!("{slug_text}.{COALITION}"), now)
                .map_err(CliError::failed)?,
            listen: if listens { Some(free_port()?) } else { None },
        })
    }

    fn to_text(&self) -> SeatText {
        SeatText {
            slug: self.slug.to_string(),
            number: self.number.value(),
            identity: HEXLOWER.encode(self.identity.seed().as_slice()),
            feed: HEXLOWER.encode(self.feed.seed().as_slice()),
            certificate: self.tls.certificate.clone(),
            key: self.tls.key.clone(),
            listen: self.listen,
        }
    }

    fn from_text(text: SeatText) -> Result<Self, CliError> {
        let seed = |hex: &str| Digest::from_hex(hex).map_err(CliError::failed);
        Ok(Self {
            number: MemberNumber::new(text.number).map_err(CliError::failed)?,
            slug: slug(&text.slug)?,
            identity: SecretKey::from_seed(seed(&text.identity)?.as_bytes()),
            feed: SecretKey::from_seed(seed(&text.feed)?.as_bytes()),
            tls: PemPair {
                certificate: text.certificate,
                key: text.key,
            },
            listen: text.listen,
        })
    }

    /// The member's number in the roster.
    pub(crate) const fn number(&self) -> MemberNumber {
        self.number
    }

    /// Where its node listens.
    pub(crate) const fn listen(&self) -> Option<SocketAddr> {
        self.listen
    }

    /// Its node's TLS key.
    ///
    /// # Errors
    /// Never for a pair that was made here.
    pub(crate) fn credentials(&self) -> Result<Credentials, CliError> {
        Credentials::from_pem(self.tls.certificate.as_bytes(), self.tls.key.as_bytes())
            .map_err(CliError::failed)
    }

    fn card(&self, genesis: Digest, now: UnixMillis) -> Result<Bytes, CliError> {
        let tls = self.credentials()?;
        let endpoints = self.listen.iter();
        let endpoints = endpoints
            .map(|address| Endpoint::parse(&address.to_string()))
            .collect::<Result<Vec<_>, _>>()
            .map_err(CliError::failed)?;
        let card = NodeCard {
            genesis,
            member: Some(self.number),
            slug: self.slug.clone(),
            version: 1,
            issued: now,
            expires: now.plus(LIFE_MS),
            nodes: vec![hashpact_core::card::Node {
                name: slug(NODE)?,
                endpoints,
                tls_keys: vec![tls.key_digest().map_err(CliError::failed)?],
                feed_keys: vec![FeedKey {
                    key: self.feed.public(),
                    sets: SetScope::All,
                }],
                witness_keys: Vec::new(),
                receipt_keys: Vec::new(),
            }],
            contact: Contact {
                name: "Desk".to_owned(),
                email: format!("desk@{}.{COALITION}", self.slug),
                phone: String::new(),
            },
        };
        let mut draft = card.to_envelope().map_err(CliError::failed)?;
        draft.sign(&self.identity).sign(&self.feed);
        let possession = tls.sign(&draft.to_sign()).map_err(CliError::failed)?;
        let spki = tls.spki_der().map_err(CliError::failed)?;
        draft
            .add_tls(&spki, &possession)
            .map_err(CliError::failed)?;
        let envelope = draft.finish().map_err(CliError::failed)?;
        Ok(envelope.as_bytes().clone())
    }
}

/// Genesis and the version that admits everybody.
fn rosters(seats: &[Seat], now: UnixMillis) -> Result<(Digest, Vec<Bytes>), CliError> {
    let admin: SecretKey<Admin> = keyfile::generate().map_err(CliError::failed)?;
    let coalition = CoalitionName::parse(COALITION).map_err(CliError::failed)?;
    let admins = vec![RosterAdmin {
        name: "trial".to_owned(),
        key: admin.public(),
    }];
    let first = signed(&Roster::found(coalition, admins, now, LIFE_MS), &admin)?;
    let genesis = first.payload_digest();
    let chain = RosterChain::begin(first.clone(), &genesis, now).map_err(CliError::failed)?;
    let mut second = Roster::after(chain.current(), genesis, now, LIFE_MS);
    for seat in seats {
        // They are numbered from 1 in this order.
        second
            .admit(NewMember {
                slug: seat.slug.clone(),
                display_name: seat.slug.to_string(),
                organisation_kind: "platform".to_owned(),
                identity: seat.identity.public(),
                roles: vec![Role::Publish, Role::Subscribe],
            })
            .map_err(CliError::failed)?;
    }
    let second = signed(&second, &admin)?;
    let rosters = vec![first.as_bytes().clone(), second.as_bytes().clone()];
    Ok((genesis, rosters))
}

fn signed(roster: &Roster, admin: &SecretKey<Admin>) -> Result<Envelope, CliError> {
    let mut draft = roster.to_envelope().map_err(CliError::failed)?;
    let envelope = draft.sign(admin).finish().map_err(CliError::failed)?;
    Envelope::decode(envelope.as_bytes().clone(), PayloadType::Roster).map_err(CliError::failed)
}

/// A port that is free at this moment; whoever takes it in between makes the trial
/// fail, and it can be run again.
fn free_port() -> Result<SocketAddr, CliError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(CliError::failed)?;
    listener.local_addr().map_err(CliError::failed)
}

fn slug(text: &str) -> Result<Slug, CliError> {
    Slug::parse(text).map_err(CliError::failed)
}
