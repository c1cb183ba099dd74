//! The coalition's keys and documents, made from the seed: what administrators and
//! members would sign on machines of their own.

use bytes::Bytes;
use hashpact_core::card::{Contact, Endpoint, FeedKey, Node as CardNode, NodeCard, SetScope};
use hashpact_core::envelope::{Envelope, PayloadType, TlsKey};
use hashpact_core::id::{CoalitionName, Digest, MemberNumber, Slug, UnixMillis};
use hashpact_core::keys::{Admin, Feed, Identity, Purpose, Receipt, SecretKey, Witness};
use hashpact_core::limits::DAY_MS;
use hashpact_core::roster::{NewMember, Role, Roster, RosterAdmin, RosterChain};
use hashpact_core::suspension::Suspension;

use hashpact_node::witnessing::WitnessOptions;

use super::SimError;

/// When a simulation begins.
pub(crate) const BEGIN: UnixMillis = UnixMillis(1_790_000_000_000);
const LIFE_MS: u64 = 300 * DAY_MS;
/// DER before the 32 bytes of an Ed25519 key (RFC 8410).
const ED25519_SPKI: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];
/// Administrators, and how many of them approve a roster.
const ADMINS: u32 = 3;
const THRESHOLD: usize = 2;

/// Which members are witnesses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bench {
    /// The number of the first; the others follow it.
    pub(crate) first: u32,
    pub(crate) count: u32,
    /// Whether they do nothing else.
    pub(crate) only: bool,
}

impl Bench {
    /// Members from the second on that are witnesses as well.
    pub(crate) const fn among_members(count: u32) -> Self {
        Self {
            first: 2,
            count,
            only: false,
        }
    }

    const fn has(self, number: u32) -> bool {
        number >= self.first && number - self.first < self.count
    }
}

/// Keys, and every document that was published.
pub(crate) struct Coalition {
    seed: u64,
    bench: Bench,
    pub(crate) genesis: Digest,
    chain: RosterChain,
    pub(crate) rosters: Vec<Bytes>,
}

/// What a card says that the simulation changes.
#[derive(Debug, Clone)]
pub(crate) struct CardPlan {
    pub(crate) version: u64,
    pub(crate) listens: bool,
    /// Which of the member's TLS keys stand on it.
    pub(crate) tls: Vec<u8>,
    /// Which of its feed keys, the newest last.
    pub(crate) feed: Vec<u8>,
}

impl Coalition {
    /// Founds a coalition of so many members, numbered from 1.
    pub(crate) fn found(seed: u64, members: u32, bench: Bench) -> Result<Self, SimError> {
        let admins = (0..ADMINS).map(|n| RosterAdmin {
            name: format!("admin-{n}"),
            key: admin(seed, n).public(),
        });
        let name = CoalitionName::parse("sim.example").map_err(SimError::new)?;
        let mut first = Roster::found(name, admins.collect(), BEGIN, LIFE_MS);
        first.threshold = THRESHOLD;
        let bytes = sign(seed, &first)?;
        let envelope = Envelope::decode(bytes.clone(), PayloadType::Roster)?;
        let genesis = envelope.payload_digest();
        let mut coalition = Self {
            seed,
            bench,
            genesis,
            chain: RosterChain::begin(envelope, &genesis, BEGIN)?,
            rosters: vec![bytes],
        };
        coalition.next_roster(BEGIN, |roster| {
            (1..=members).try_for_each(|number| admit(roster, seed, (number, bench)))
        })?;
        Ok(coalition)
    }

    /// The next version, changed and approved.
    pub(crate) fn next_roster(
        &mut self,
        now: UnixMillis,
        change: impl FnOnce(&mut Roster) -> Result<(), SimError>,
    ) -> Result<Bytes, SimError> {
        let mut next = Roster::after(self.chain.current(), self.genesis, now, LIFE_MS);
        change(&mut next)?;
        let bytes = sign(self.seed, &next)?;
        let envelope = Envelope::decode(bytes.clone(), PayloadType::Roster)?;
        self.chain.accept(envelope, now)?;
        self.rosters.push(bytes.clone());
        Ok(bytes)
    }

    /// Admits another member.
    pub(crate) fn admit(&mut self, now: UnixMillis, number: u32) -> Result<Bytes, SimError> {
        let (seed, bench) = (self.seed, self.bench);
        self.next_roster(now, |roster| admit(roster, seed, (number, bench)))
    }

    /// The digest that every member is to end with.
    pub(crate) fn digest(&self) -> Digest {
        self.chain.current().digest()
    }

    /// A member's card.
    pub(crate) fn card(
        &self,
        number: u32,
        plan: &CardPlan,
        now: UnixMillis,
    ) -> Result<Bytes, SimError> {
        self.card_by(number, number, plan, now)
    }

    /// A member's card with the signatures of another.
    pub(crate) fn card_by(
        &self,
        signer: u32,
        number: u32,
        plan: &CardPlan,
        now: UnixMillis,
    ) -> Result<Bytes, SimError> {
        let seed = self.seed;
        let tls = plan
            .tls
            .iter()
            .map(|which| tls_digest(seed, number, *which));
        let feed = plan.feed.iter().map(|which| FeedKey {
            key: feed_key(seed, number, *which).public(),
            sets: SetScope::All,
        });
        let endpoint = Endpoint::parse(&format!("127.0.0.1:{}", 20_000 + number));
        let card = NodeCard {
            genesis: self.genesis,
            member: Some(member(number)?),
            slug: slug(number)?,
            version: plan.version,
            issued: now,
            expires: now.plus(LIFE_MS),
            nodes: vec![CardNode {
                name: node_name()?,
                endpoints: if plan.listens {
                    vec![endpoint?]
                } else {
                    Vec::new()
                },
                tls_keys: tls.collect::<Result<_, _>>()?,
                feed_keys: feed.collect(),
                witness_keys: self
                    .witness_key(number)
                    .iter()
                    .map(SecretKey::public)
                    .collect(),
                receipt_keys: vec![receipt_key(seed, number).public()],
            }],
            contact: Contact {
                name: "duty".to_owned(),
                email: "duty@sim.example".to_owned(),
                phone: String::new(),
            },
        };
        let mut draft = card.to_envelope()?;
        draft.sign(&identity(seed, signer));
        draft.sign(&receipt_key(seed, signer));
        for which in &plan.feed {
            draft.sign(&feed_key(seed, signer, *which));
        }
        if let Some(key) = self.witness_key(signer) {
            draft.sign(&key);
        }
        for which in &plan.tls {
            let key = tls_key(seed, signer, *which);
            let proof = key.sign(&draft.to_sign());
            draft.add_tls(&spki(&key), &proof)?;
        }
        Ok(draft.finish()?.as_bytes().clone())
    }

    /// The witness key of a member that has one.
    pub(crate) fn witness_key(&self, number: u32) -> Option<SecretKey<Witness>> {
        let is_one = self.bench.has(number);
        is_one.then(|| witness_key(self.seed, number))
    }

    /// How a member's node witnesses.
    pub(crate) fn witnessing(&self, number: u32) -> Option<WitnessOptions> {
        let only = self.bench.only;
        let key = self.witness_key(number)?;
        Some(WitnessOptions { key, only })
    }

    /// Whether there are witnesses.
    pub(crate) const fn has_witnesses(&self) -> bool {
        self.bench.count > 0
    }

    /// A suspension of a member by the first administrator.
    pub(crate) fn suspension(&self, number: u32, now: UnixMillis) -> Result<Bytes, SimError> {
        let admin = admin(self.seed, 0);
        let suspension = Suspension {
            genesis: self.genesis,
            roster_version: self.chain.version(),
            member: member(number)?,
            issued: now,
            expires: now.plus(DAY_MS),
            reason: "a leaked key".to_owned(),
            admin: admin.public(),
        };
        let mut draft = suspension.to_envelope()?;
        draft.sign(&admin);
        Ok(draft.finish()?.as_bytes().clone())
    }
}

fn admit(roster: &mut Roster, seed: u64, (number, bench): (u32, Bench)) -> Result<(), SimError> {
    let mut roles = vec![Role::Publish, Role::Subscribe];
    if bench.has(number) {
        roles.retain(|_| !bench.only);
        roles.push(Role::Witness);
    }
    roster.admit(NewMember {
        slug: slug(number)?,
        display_name: format!("Member {number}"),
        organisation_kind: "platform".to_owned(),
        identity: identity(seed, number).public(),
        roles,
    })?;
    Ok(())
}

fn sign(seed: u64, roster: &Roster) -> Result<Bytes, SimError> {
    let mut draft = roster.to_envelope()?;
    for n in (0..ADMINS).take(THRESHOLD) {
        draft.sign(&admin(seed, n));
    }
    Ok(draft.finish()?.as_bytes().clone())
}

fn key<P: Purpose>(seed: u64, what: &str, number: u32, which: u8) -> SecretKey<P> {
    SecretKey::from_seed(&Digest::of(format!("{seed}/{what}/{number}/{which}").as_bytes()).0)
}

fn admin(seed: u64, number: u32) -> SecretKey<Admin> {
    key(seed, "admin", number, 0)
}

pub(crate) fn identity(seed: u64, number: u32) -> SecretKey<Identity> {
    key(seed, "identity", number, 0)
}

pub(crate) fn feed_key(seed: u64, number: u32, which: u8) -> SecretKey<Feed> {
    key(seed, "feed", number, which)
}

pub(crate) fn witness_key(seed: u64, number: u32) -> SecretKey<Witness> {
    key(seed, "witness", number, 0)
}

pub(crate) fn receipt_key(seed: u64, number: u32) -> SecretKey<Receipt> {
    key(seed, "receipt", number, 0)
}

/// A TLS key: any Ed25519 key will do, and no certificate is needed.
fn tls_key(seed: u64, number: u32, which: u8) -> SecretKey<Feed> {
    key(seed, "tls", number, which)
}

fn spki(key: &SecretKey<Feed>) -> Vec<u8> {
    [&ED25519_SPKI[..], key.public().as_bytes()].concat()
}

/// What stands for a TLS key on a card and in a handshake.
pub(crate) fn tls_digest(seed: u64, number: u32, which: u8) -> Result<Digest, SimError> {
    let key = TlsKey::from_spki(&spki(&tls_key(seed, number, which)))?;
    Ok(key.digest())
}

pub(crate) fn member(number: u32) -> Result<MemberNumber, SimError> {
    MemberNumber::new(number).map_err(SimError::new)
}

pub(crate) fn slug(number: u32) -> Result<Slug, SimError> {
    Slug::parse(&format!("m{number:03}")).map_err(SimError::new)
}

pub(crate) fn node_name() -> Result<Slug, SimError> {
    Slug::parse("n1").map_err(SimError::new)
}
