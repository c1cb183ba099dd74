//! A card from its payload and back, and the rules that it obeys by itself.

use std::collections::BTreeSet;

use bytes::Bytes;
use prost::Message as _;

use super::{CardVersion, Contact, Endpoint, FeedKey, Node, NodeCard, SetScope};
use crate::envelope::{Envelope, PayloadType, key_digest};
use crate::id::{Digest, IdError, MemberNumber, Slug, UnixMillis};
use crate::keys::{PublicKey, Purpose};
use crate::limits::{
    CARD_LIFE_MAX_MS, CARD_MAX_BYTES, CARD_NODES_MAX, FEED_KEY_SETS_MAX, NAME_MAX_BYTES,
    NODE_KEYS_MAX, NODE_TLS_KEYS_MAX,
};
use crate::reject::Rejection;
use crate::roster::{Member, RosterChain, bytes_of};
use crate::{text, wire};

/// What a key on a card is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyUse {
    Tls,
    Feed,
    Witness,
    Receipt,
}

/// Checks a card as far as that needs no clock and no other card: it is of this
/// coalition and of a member, which signed it with its present identity key or a
/// former one, and every key on it proves possession. Offline proofs need no more.
///
/// # Errors
/// [`Rejection::WrongGenesis`], [`Rejection::Unknown`], [`Rejection::BadSignature`],
/// [`Rejection::Invalid`] and others.
pub fn verify(envelope: Envelope, chain: &RosterChain) -> Result<CardVersion, Rejection> {
    if envelope.kind() != PayloadType::NodeCard {
        return Err(invalid("this is no node card"));
    }
    let card = NodeCard::read(envelope.payload())?;
    if card.genesis != chain.genesis() {
        return Err(Rejection::WrongGenesis { what: "node card" });
    }
    let member = member_of(&card, chain)?;
    let signer = member
        .identities()
        .find(|key| envelope.require_signature(*key).is_ok())
        .ok_or_else(|| Rejection::BadSignature {
            what: "node card",
            why: format!("no valid signature of the identity key of {}", card.slug),
        })?;
    check_possession(&card, &envelope)?;
    Ok(CardVersion {
        digest: envelope.payload_digest(),
        member: member.number,
        card,
        envelope,
        signer,
    })
}

fn member_of<'a>(card: &NodeCard, chain: &'a RosterChain) -> Result<&'a Member, Rejection> {
    let unknown = || Rejection::Unknown {
        what: "member",
        why: format!("no member {} in the roster", card.slug),
    };
    let member = chain.roster().member_by_slug(&card.slug);
    let member = member.ok_or_else(unknown)?;
    if card.member.is_some_and(|number| number != member.number) {
        return Err(invalid(
            "its member number and its slug do not belong together",
        ));
    }
    Ok(member)
}

/// ⚠ Every key on the card has signed the card: nobody can name another's key.
pub(crate) fn check_possession(card: &NodeCard, envelope: &Envelope) -> Result<(), Rejection> {
    let wanted: BTreeSet<_> = card
        .nodes
        .iter()
        .flat_map(|n| &n.tls_keys)
        .copied()
        .collect();
    let tls = envelope.tls_signers(&wanted);
    if let Some(missing) = wanted.iter().find(|digest| !tls.contains_key(*digest)) {
        return Err(no_possession("TLS", *missing));
    }
    for node in &card.nodes {
        all_signed(envelope, node.feed_keys.iter().map(|k| k.key))?;
        all_signed(envelope, node.witness_keys.iter().copied())?;
        all_signed(envelope, node.receipt_keys.iter().copied())?;
    }
    Ok(())
}

fn all_signed<P: Purpose>(
    envelope: &Envelope,
    keys: impl Iterator<Item = PublicKey<P>> + Clone,
) -> Result<(), Rejection> {
    let signed = envelope.signers(keys.clone());
    match keys.into_iter().find(|key| !signed.contains(key)) {
        None => Ok(()),
        Some(key) => Err(no_possession(P::NAME, Digest(*key.as_bytes()))),
    }
}

fn no_possession(purpose: &str, key: Digest) -> Rejection {
    Rejection::BadSignature {
        what: "node card",
        why: format!("no proof of possession of the {purpose} key {key}"),
    }
}

/// Every key on a card, by the digest that is the same whatever it is for.
pub(crate) fn keys_of(card: &NodeCard) -> impl Iterator<Item = (Digest, KeyUse)> {
    card.nodes.iter().flat_map(|node| {
        let tls = node.tls_keys.iter().map(|digest| (*digest, KeyUse::Tls));
        let feed = node
            .feed_keys
            .iter()
            .map(|k| (key_digest(&k.key), KeyUse::Feed));
        let witness = node
            .witness_keys
            .iter()
            .map(|k| (key_digest(k), KeyUse::Witness));
        let receipt = node
            .receipt_keys
            .iter()
            .map(|k| (key_digest(k), KeyUse::Receipt));
        tls.chain(feed).chain(witness).chain(receipt)
    })
}

impl NodeCard {
    /// Reads a payload and checks every rule that a card obeys by itself. Says
    /// nothing about who signed it.
    ///
    /// # Errors
    /// [`Rejection::Malformed`], [`Rejection::TooLarge`] or [`Rejection::Invalid`].
    pub fn read(payload: &Bytes) -> Result<Self, Rejection> {
        Rejection::cap("node card", payload.len(), CARD_MAX_BYTES)?;
        let message = wire::NodeCard::decode(payload.clone())
            .map_err(|error| Rejection::malformed("node card", error.to_string()))?;
        let card = Self::try_from(message)?;
        card.check()?;
        Ok(card)
    }

    /// Encodes the card and reads it back, so that what nobody would accept is not
    /// signed either.
    ///
    /// # Errors
    /// As [`NodeCard::read`].
    pub fn encode(&self) -> Result<Bytes, Rejection> {
        let payload = Bytes::from(wire::NodeCard::from(self).encode_to_vec());
        if Self::read(&payload)? != *self {
            return Err(invalid("it does not read back as it was written"));
        }
        Ok(payload)
    }

    fn check(&self) -> Result<(), Rejection> {
        if self.version == 0 {
            return Err(invalid("versions begin at 1"));
        }
        if !(1..=CARD_LIFE_MAX_MS).contains(&self.expires.since(self.issued)) {
            return Err(invalid("its life is not within 400 days"));
        }
        let names: BTreeSet<_> = self.nodes.iter().map(|node| &node.name).collect();
        if self.nodes.is_empty() || names.len() != self.nodes.len() {
            return Err(invalid("it needs a node, and each name once"));
        }
        let mut seen = BTreeSet::new();
        match keys_of(self).find(|(key, _)| !seen.insert(*key)) {
            None => Ok(()),
            Some((key, _)) => Err(invalid(format!("key {key} stands in two places"))),
        }
    }
}

impl TryFrom<wire::NodeCard> for NodeCard {
    type Error = Rejection;

    fn try_from(message: wire::NodeCard) -> Result<Self, Rejection> {
        Rejection::cap("nodes", message.nodes.len(), CARD_NODES_MAX)?;
        let contact = message.contact.unwrap_or_default();
        let nodes = message.nodes.into_iter().map(Node::try_from);
        Ok(Self {
            genesis: Digest::from_slice(&message.genesis_digest)?,
            member: MemberNumber::new(message.member_number).ok(),
            slug: Slug::parse(&message.member_slug)?,
            version: message.version,
            issued: UnixMillis(message.issued_ms),
            expires: UnixMillis(message.expires_ms),
            nodes: nodes.collect::<Result<_, _>>()?,
            contact: Contact::try_from(contact)?,
        })
    }
}

impl TryFrom<wire::Node> for Node {
    type Error = Rejection;

    fn try_from(message: wire::Node) -> Result<Self, Rejection> {
        let tls = &message.tls_key_digests;
        if tls.is_empty() {
            return Err(invalid("a node has at least one TLS key"));
        }
        Rejection::cap("TLS keys", tls.len(), NODE_TLS_KEYS_MAX)?;
        Rejection::cap("endpoints", message.endpoints.len(), NODE_KEYS_MAX)?;
        Rejection::cap("feed keys", message.feed_keys.len(), NODE_KEYS_MAX)?;
        let endpoints = message.endpoints.iter().map(|text| Endpoint::parse(text));
        let feed_keys = message.feed_keys.into_iter().map(FeedKey::try_from);
        Ok(Self {
            name: Slug::parse(&message.name)?,
            endpoints: endpoints.collect::<Result<_, _>>()?,
            tls_keys: tls
                .iter()
                .map(|bytes| Digest::from_slice(bytes))
                .collect::<Result<_, IdError>>()?,
            feed_keys: feed_keys.collect::<Result<_, _>>()?,
            witness_keys: read_keys("witness keys", &message.witness_keys)?,
            receipt_keys: read_keys("receipt keys", &message.receipt_keys)?,
        })
    }
}

impl TryFrom<wire::FeedKey> for FeedKey {
    type Error = Rejection;

    fn try_from(message: wire::FeedKey) -> Result<Self, Rejection> {
        Rejection::cap("sets of a feed key", message.sets.len(), FEED_KEY_SETS_MAX)?;
        let sets = match message.sets.as_slice() {
            [] => return Err(invalid("a feed key signs at least one set")),
            [all] if all == "*" => SetScope::All,
            some => {
                let slugs = some.iter().map(|text| Slug::parse(text));
                SetScope::Only(slugs.collect::<Result<_, _>>()?)
            }
        };
        Ok(Self {
            key: PublicKey::from_slice(&message.key)?,
            sets,
        })
    }
}

impl TryFrom<wire::Contact> for Contact {
    type Error = Rejection;

    fn try_from(message: wire::Contact) -> Result<Self, Rejection> {
        if message.email.is_empty() && message.phone.is_empty() {
            return Err(invalid("its contact has neither e-mail nor phone"));
        }
        Ok(Self {
            name: text::required("contact", message.name, NAME_MAX_BYTES)?,
            email: text::optional("contact", message.email, NAME_MAX_BYTES)?,
            phone: text::optional("contact", message.phone, NAME_MAX_BYTES)?,
        })
    }
}

fn read_keys<P: Purpose>(
    what: &'static str,
    keys: &[Bytes],
) -> Result<Vec<PublicKey<P>>, Rejection> {
    Rejection::cap(what, keys.len(), NODE_KEYS_MAX)?;
    keys.iter()
        .map(|bytes| PublicKey::from_slice(bytes).map_err(Rejection::from))
        .collect()
}

impl From<&NodeCard> for wire::NodeCard {
    fn from(card: &NodeCard) -> Self {
        Self {
            genesis_digest: bytes_of(card.genesis),
            member_number: card.member.map_or(0, MemberNumber::value),
            member_slug: card.slug.to_string(),
            version: card.version,
            issued_ms: card.issued.0,
            expires_ms: card.expires.0,
            nodes: card.nodes.iter().map(Into::into).collect(),
            contact: Some(wire::Contact {
                name: card.contact.name.clone(),
                email: card.contact.email.clone(),
                phone: card.contact.phone.clone(),
            }),
        }
    }
}

impl From<&Node> for wire::Node {
    fn from(node: &Node) -> Self {
        Self {
            name: node.name.to_string(),
            endpoints: node.endpoints.iter().map(ToString::to_string).collect(),
            tls_key_digests: node.tls_keys.iter().copied().map(bytes_of).collect(),
            feed_keys: node.feed_keys.iter().map(Into::into).collect(),
            witness_keys: write_keys(&node.witness_keys),
            receipt_keys: write_keys(&node.receipt_keys),
        }
    }
}

impl From<&FeedKey> for wire::FeedKey {
    fn from(key: &FeedKey) -> Self {
        Self {
            key: Bytes::copy_from_slice(key.key.as_bytes()),
            sets: match &key.sets {
                SetScope::All => vec!["*".to_owned()],
                SetScope::Only(sets) => sets.iter().map(ToString::to_string).collect(),
            },
        }
    }
}

fn write_keys<P: Purpose>(keys: &[PublicKey<P>]) -> Vec<Bytes> {
    let bytes = |key: &PublicKey<P>| Bytes::copy_from_slice(key.as_bytes());
    keys.iter().map(bytes).collect()
}

fn invalid(why: impl Into<String>) -> Rejection {
    Rejection::invalid("node card", why)
}
