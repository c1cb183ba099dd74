//! Receipts: a node's signed word that all its consumers act on a feed up to a size.
//!
//! A receipt is about one state of one feed: epoch, size and root. It is signed by a
//! receipt key that the member's node card names for that node. It says nothing
//! about the feed that the publisher has not said; it dates what a reader acts on.

use bytes::Bytes;
use prost::Message as _;

use crate::envelope::{Envelope, EnvelopeDraft, PayloadType};
use crate::id::{Digest, FeedId, MemberNumber, Slug, UnixMillis};
use crate::keys::{PublicKey, Receipt as ReceiptKey};
use crate::limits::{CLOCK_SKEW_MS, FEED_MAX_LEAVES};
use crate::reject::Rejection;
use crate::roster::bytes_of;
use crate::verified::Verified;
use crate::wire;

const WHAT: &str = "receipt";

/// What a node says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The digest of the coalition's genesis.
    pub genesis: Digest,
    /// Whose node it is.
    pub member: MemberNumber,
    /// The node's name on the member's card.
    pub node: Slug,
    /// The feed.
    pub feed: FeedId,
    /// The epoch of the head.
    pub epoch: u32,
    /// The size of the head.
    pub size: u64,
    /// The root of the head.
    pub root: Digest,
    /// Since when every consumer has acted on it.
    pub since: UnixMillis,
    /// When it was signed, no earlier.
    pub signed: UnixMillis,
}

/// A receipt with its envelope and the key that signed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedReceipt {
    /// What it says.
    pub receipt: Receipt,
    /// The receipt key.
    pub key: PublicKey<ReceiptKey>,
    /// The envelope's bytes as received, which are stored and relayed.
    pub envelope: Bytes,
}

impl Receipt {
    /// Reads a receipt's payload.
    ///
    /// # Errors
    /// [`Rejection::Malformed`], or [`Rejection::Invalid`] for a field.
    pub fn read(payload: &Bytes) -> Result<Self, Rejection> {
        let message = wire::Receipt::decode(payload.clone())
            .map_err(|_| Rejection::malformed(WHAT, "no protobuf message"))?;
        let digest = |bytes: &Bytes| {
            Digest::from_slice(bytes).map_err(|_| invalid("a digest has not 32 bytes"))
        };
        let receipt = Self {
            genesis: digest(&message.genesis_digest)?,
            member: MemberNumber::new(message.member_number)?,
            node: Slug::parse(&message.node_name)?,
            feed: FeedId(digest(&message.feed_id)?),
            epoch: message.epoch,
            size: message.size,
            root: digest(&message.root)?,
            since: UnixMillis(message.since_ms),
            signed: UnixMillis(message.signed_ms),
        };
        if receipt.size == 0 || receipt.size > FEED_MAX_LEAVES {
            return Err(invalid("no feed has that size"));
        }
        if receipt.since > receipt.signed {
            return Err(invalid("it was signed before what it says began"));
        }
        Ok(receipt)
    }

    /// Encodes the receipt, once, to be signed by the node's receipt key.
    ///
    /// # Errors
    /// What breaks a rule, as [`Receipt::read`].
    pub fn to_envelope(&self) -> Result<EnvelopeDraft, Rejection> {
        let message = wire::Receipt {
            genesis_digest: bytes_of(self.genesis),
            member_number: self.member.value(),
            node_name: self.node.to_string(),
            feed_id: bytes_of(self.feed.0),
            epoch: self.epoch,
            size: self.size,
            root: bytes_of(self.root),
            since_ms: self.since.0,
            signed_ms: self.signed.0,
        };
        let payload = Bytes::from(message.encode_to_vec());
        Self::read(&payload)?;
        Ok(EnvelopeDraft::new(PayloadType::Receipt, payload))
    }

    /// Whether it is about this state of a feed.
    #[must_use]
    pub fn is_of(&self, feed: FeedId, (epoch, size, root): (u32, u64, Digest)) -> bool {
        (self.feed, self.epoch, self.size, self.root) == (feed, epoch, size, root)
    }
}

/// Checks a receipt as received. `keys` gives the receipt keys that a member's card
/// in force has for one of its nodes.
///
/// # Errors
/// [`Rejection::TooLarge`], [`Rejection::Malformed`], [`Rejection::Invalid`];
/// [`Rejection::WrongGenesis`]; [`Rejection::FromTheFuture`];
/// [`Rejection::Unknown`] for a node without a receipt key;
/// [`Rejection::BadSignature`].
pub fn verify(
    received: Bytes,
    genesis: &Digest,
    now: UnixMillis,
    keys: impl FnOnce(MemberNumber, &Slug) -> Vec<PublicKey<ReceiptKey>>,
) -> Result<Verified<SignedReceipt>, Rejection> {
    let envelope = Envelope::decode(received, PayloadType::Receipt)?;
    // PROTOCOL 5.22: a node has up to 16 receipt keys; one of them speaks.
    if envelope.signature_count() > 1 {
        return Err(Rejection::malformed(WHAT, "more than one signature"));
    }
    let receipt = Receipt::read(envelope.payload())?;
    if receipt.genesis != *genesis {
        return Err(Rejection::WrongGenesis { what: WHAT });
    }
    if receipt.signed > now.plus(CLOCK_SKEW_MS) {
        return Err(Rejection::FromTheFuture { what: WHAT });
    }
    let keys = keys(receipt.member, &receipt.node);
    if keys.is_empty() {
        return Err(Rejection::Unknown {
            what: "receipt key",
            why: format!("member {} node {}", receipt.member.value(), receipt.node),
        });
    }
    let signers = envelope.signers(keys);
    let key = signers.into_iter().next();
    let key = key.ok_or_else(|| Rejection::BadSignature {
        what: WHAT,
        why: "no receipt key of that node signed it".to_owned(),
    })?;
    Ok(Verified::new(SignedReceipt {
        receipt,
        key,
        envelope: envelope.as_bytes().clone(),
    }))
}

fn invalid(why: &str) -> Rejection {
    Rejection::invalid(WHAT, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::SecretKey;

    const NOW: UnixMillis = UnixMillis(1_790_000_000_000);

    fn key() -> SecretKey<ReceiptKey> {
        SecretKey::from_seed(&[5; 32])
    }

    fn receipt() -> Receipt {
        Receipt {
            genesis: Digest([1; 32]),
            member: MemberNumber::new(7).unwrap(),
            node: Slug::parse("n1").unwrap(),
            feed: FeedId(Digest([2; 32])),
            epoch: 1,
            size: 300,
            root: Digest([3; 32]),
            since: UnixMillis(NOW.0 - 5),
            signed: NOW,
        }
    }

    fn signed(receipt: &Receipt) -> Bytes {
        let mut draft = receipt.to_envelope().unwrap();
        draft.sign(&key());
        draft.finish().unwrap().as_bytes().clone()
    }

    fn check(bytes: Bytes) -> Result<Verified<SignedReceipt>, Rejection> {
        verify(bytes, &Digest([1; 32]), NOW, |member, node| {
            let known = member == receipt().member && *node == receipt().node;
            if known {
                vec![key().public()]
            } else {
                Vec::new()
            }
        })
    }

    fn code<T>(result: Result<T, Rejection>) -> Option<&'static str> {
        result.err().map(|rejection| rejection.code())
    }

    #[test]
    fn a_receipt_comes_back_as_it_was_signed() {
        let bytes = signed(&receipt());
        let read = check(bytes.clone()).unwrap();
        assert_eq!((&read.receipt, &read.envelope), (&receipt(), &bytes));
        let at = (1, 300, Digest([3; 32]));
        assert!(read.receipt.is_of(FeedId(Digest([2; 32])), at));
        assert!(!read.receipt.is_of(FeedId(Digest([2; 32])), (0, 300, at.2)));
    }

    // The signature is over the payload, so every field changed is another payload.
    #[test]
    fn every_field_of_a_receipt_is_signed() {
        let honest = signed(&receipt());
        let envelope = wire::Envelope::decode(honest).unwrap();
        let change: [fn(&mut Receipt); 8] = [
            |r| r.genesis.0[0] ^= 1,
            |r| r.feed.0.0[0] ^= 1,
            |r| r.epoch = 2,
            |r| r.size = 301,
            |r| r.root.0[0] ^= 1,
            |r| r.since.0 -= 1,
            |r| r.signed.0 += 1,
            |r| r.node = Slug::parse("n2").unwrap(),
        ];
        for change in change {
            let mut other = receipt();
            change(&mut other);
            let payload = other.to_envelope().unwrap().finish().unwrap();
            let forged = wire::Envelope {
                payload: payload.payload().clone(),
                ..envelope.clone()
            };
            let refused = code(check(forged.encode_to_vec().into()));
            let expected = ["bad_signature", "wrong_genesis", "unknown"];
            assert!(
                refused.is_some_and(|code| expected.contains(&code)),
                "{other:?}"
            );
        }
    }

    #[test]
    fn what_breaks_a_rule_is_refused_with_its_reason() {
        let refused = |change: fn(&mut wire::Receipt)| {
            let payload = receipt().to_envelope().unwrap().finish().unwrap();
            let mut message = wire::Receipt::decode(payload.payload().clone()).unwrap();
            change(&mut message);
            let payload = Bytes::from(message.encode_to_vec());
            let mut draft = EnvelopeDraft::new(PayloadType::Receipt, payload);
            draft.sign(&key());
            code(check(draft.finish().unwrap().as_bytes().clone()))
        };
        assert_eq!(refused(|m| m.member_number = 0), Some("invalid"));
        assert_eq!(refused(|m| m.member_number = 8), Some("unknown"));
        assert_eq!(refused(|m| m.node_name = "N 1".into()), Some("invalid"));
        assert_eq!(refused(|m| m.node_name.clear()), Some("invalid"));
        assert_eq!(refused(|m| m.size = 0), Some("invalid"));
        assert_eq!(refused(|m| m.size = FEED_MAX_LEAVES + 1), Some("invalid"));
        assert_eq!(
            refused(|m| m.root = Bytes::from_static(b"short")),
            Some("invalid")
        );
        assert_eq!(refused(|m| m.feed_id = Bytes::new()), Some("invalid"));
        assert_eq!(refused(|m| m.since_ms = m.signed_ms + 1), Some("invalid"));
        assert_eq!(
            refused(|m| m.signed_ms = NOW.0 + CLOCK_SKEW_MS + 1),
            Some("from_the_future")
        );
        assert_eq!(refused(|_| ()), None);
        assert_eq!(code(check(Bytes::from_static(b"\xff"))), Some("malformed"));
        assert_eq!(code(check(vec![0; 5_000].into())), Some("too_large"));
    }

    #[test]
    fn a_receipt_with_more_than_one_signature_is_refused_before_any_is_checked() {
        let mut draft = receipt().to_envelope().unwrap();
        draft.sign(&key());
        draft.sign(&SecretKey::<ReceiptKey>::from_seed(&[6; 32]));
        let both = draft.finish().unwrap().as_bytes().clone();
        assert_eq!(code(check(both)), Some("malformed"));
    }

    #[test]
    fn another_key_or_none_is_no_receipt() {
        let mut draft = receipt().to_envelope().unwrap();
        draft.sign(&SecretKey::<ReceiptKey>::from_seed(&[6; 32]));
        let other = draft.finish().unwrap().as_bytes().clone();
        assert_eq!(code(check(other)), Some("bad_signature"));
        let none = receipt().to_envelope().unwrap().finish().unwrap();
        assert_eq!(code(check(none.as_bytes().clone())), Some("bad_signature"));
    }
}
