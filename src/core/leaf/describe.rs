//! Describe: what a feed is, who may read it, and on whose terms.

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::rules::{self, Lines};
use crate::id::{Digest, FeedId, MemberNumber, SetName, Slug, UnixMillis};
use crate::keys::{Identity, PublicKey};
use crate::reject::Rejection;
use crate::wire;

const WHAT: &str = "describe leaf";
const TITLE_MAX_BYTES: usize = 200;
const OWNER_MAX_BYTES: usize = 200;
const TERMS_MAX_BYTES: usize = 1_000;
/// Grants in one leaf; more members than this are granted as a group.
const GRANTS_MAX: usize = 200;

/// Leaf 0 of every feed, and again when something in it changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Describe {
    /// The digest of the coalition's genesis.
    pub genesis: Digest,
    /// What the feed carries.
    pub feed_kind: FeedKind,
    /// The feed's name; its member is the publisher.
    pub name: SetName,
    /// For people, at most 200 bytes.
    pub title: String,
    /// Who may read beside the publisher. Empty when the terms give no right to
    /// share, whatever the leaf says.
    pub grants: Vec<Grant>,
    /// Whose work it is and whether it may be shared on.
    pub terms: Terms,
    /// The scheme of classifications that name none, such as `tc`.
    pub classification_scheme: Option<Slug>,
    /// When, by the publisher's clock.
    pub created: UnixMillis,
    /// The identity key's signature over
    /// [`grants_signing_bytes`](Describe::grants_signing_bytes).
    pub identity_signature: Option<[u8; 64]>,
}

/// What a feed carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeedKind {
    /// The entries of one hash set.
    HashSet,
    /// A member's opinions.
    Opinions,
}

/// A permission to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Who may read.
    pub grantee: Grantee,
    /// Whether the grantee may serve the leaves onward.
    pub relay: bool,
}

/// Whom a grant names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grantee {
    /// One member.
    Member(MemberNumber),
    /// A group of the roster.
    Group(Slug),
    /// Every active member that subscribes.
    All,
}

/// Whose work a set is, and what its owner allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// Own work, or whose list.
    pub source: Source,
    /// Whether the publisher may share it on. Always for own work.
    pub may_share: bool,
    /// The terms in words, at most 1,000 bytes.
    pub text: String,
}

/// Where a set comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The publisher's own work.
    OwnWork,
    /// Somebody else's list.
    ThirdParty {
        /// Whose, 1 to 200 bytes.
        list_owner: String,
    },
}

impl Describe {
    /// Encodes the payload, with fresh random bytes as `salt`.
    ///
    /// # Errors
    /// [`Rejection::Invalid`] for a broken rule, also for a grant on terms without
    /// the right to share; [`Rejection::TooLarge`].
    pub fn encode(&self, salt: [u8; 16]) -> Result<Bytes, Rejection> {
        self.check()?;
        if !self.terms.may_share && !self.grants.is_empty() {
            let why = "the set's terms give no right to share it";
            return Err(Rejection::invalid(WHAT, why));
        }
        let (source, list_owner) = match &self.terms.source {
            Source::OwnWork => (wire::Source::OwnWork, ""),
            Source::ThirdParty { list_owner } => (wire::Source::ThirdParty, list_owner.as_str()),
        };
        rules::encode(&wire::Describe {
            salt: Bytes::copy_from_slice(&salt),
            genesis_digest: Bytes::copy_from_slice(self.genesis.as_bytes()),
            feed_kind: match self.feed_kind {
                FeedKind::HashSet => wire::FeedKind::HashSet,
                FeedKind::Opinions => wire::FeedKind::Opinions,
            }
            .into(),
            name: self.name.to_string(),
            title: self.title.clone(),
            grants: self.grants.iter().map(Grant::to_wire).collect(),
            terms: Some(wire::Terms {
                source: source.into(),
                list_owner: list_owner.to_owned(),
                may_share: self.terms.may_share,
                text: self.terms.text.clone(),
            }),
            classification_scheme: self
                .classification_scheme
                .as_ref()
                .map(Slug::to_string)
                .unwrap_or_default(),
            created_ms: self.created.0,
            identity_signature: self
                .identity_signature
                .map(|signature| Bytes::copy_from_slice(&signature))
                .unwrap_or_default(),
        })
    }

    /// The bytes that the publisher's identity key signs for who may read, by this leaf
    /// at `index`: `hashpact grants v1\n`, then the SHA-256 over the feed id, the index,
    /// the time in milliseconds, the count of grants (eight bytes each, big-endian), and
    /// for each grant whether it may relay, its kind (1 member, 2 group, 3 all; one byte
    /// each) and the number (four bytes) or the length of the name (one byte) and the
    /// name. ⚠ The index: else what was once signed could be said again later.
    #[must_use]
    pub fn grants_signing_bytes(&self, feed: &FeedId, index: u64) -> Vec<u8> {
        let mut hasher = Sha256::new();
        hasher.update(feed.as_bytes());
        hasher.update(index.to_be_bytes());
        hasher.update(self.created.0.to_be_bytes());
        let count = u64::try_from(self.grants.len()).unwrap_or(u64::MAX);
        hasher.update(count.to_be_bytes());
        for grant in &self.grants {
            hasher.update([u8::from(grant.relay)]);
            match &grant.grantee {
                Grantee::Member(number) => {
                    hasher.update([1]);
                    hasher.update(number.value().to_be_bytes());
                }
                Grantee::Group(group) => {
                    let name = group.to_string();
                    hasher.update([2, u8::try_from(name.len()).unwrap_or(u8::MAX)]);
                    hasher.update(name.as_bytes());
                }
                Grantee::All => hasher.update([3]),
            }
        }
        let mut bytes = b"hashpact grants v1\n".to_vec();
        bytes.extend_from_slice(&hasher.finalize());
        bytes
    }

    /// Checks the identity key's signature of the grants of the leaf at `index`.
    ///
    /// # Errors
    /// [`Rejection::BadSignature`] when there is none or it does not verify.
    pub fn verify_grants(
        &self,
        feed: &FeedId,
        index: u64,
        identity: &PublicKey<Identity>,
    ) -> Result<(), Rejection> {
        let signature = self
            .identity_signature
            .ok_or_else(|| Rejection::BadSignature {
                what: "grants",
                why: "no signature of the identity key".to_owned(),
            })?;
        Ok(identity.verify(&self.grants_signing_bytes(feed, index), &signature)?)
    }

    /// Refuses a leaf that was made for another coalition or names another member
    /// than the feed's publisher.
    ///
    /// # Errors
    /// [`Rejection::WrongGenesis`] or [`Rejection::Invalid`].
    pub fn check_belongs(&self, genesis: &Digest, publisher: &Slug) -> Result<(), Rejection> {
        if self.genesis != *genesis {
            return Err(Rejection::WrongGenesis { what: WHAT });
        }
        if self.name.member != *publisher {
            return Err(Rejection::invalid(WHAT, "the name is of another member"));
        }
        Ok(())
    }

    pub(super) fn read(payload: &Bytes) -> Result<Self, Rejection> {
        let message: wire::Describe = rules::decode(WHAT, payload)?;
        rules::salt(WHAT, &message.salt)?;
        let feed_kind = match message.feed_kind() {
            wire::FeedKind::HashSet => Some(FeedKind::HashSet),
            wire::FeedKind::Opinions => Some(FeedKind::Opinions),
            wire::FeedKind::Unspecified => None,
        };
        let terms = message
            .terms
            .ok_or_else(|| Rejection::invalid(WHAT, "no terms"))?;
        let terms = Terms::from_wire(terms)?;
        let grants: Result<Vec<_>, _> = message.grants.iter().map(Grant::from_wire).collect();
        let scheme = message.classification_scheme.as_str();
        let mut describe = Self {
            genesis: Digest::from_slice(&message.genesis_digest)?,
            feed_kind: rules::enumerated(WHAT, feed_kind)?,
            name: SetName::parse(&message.name)?,
            title: message.title,
            grants: grants?,
            terms,
            classification_scheme: match scheme {
                "" => None,
                scheme => Some(Slug::parse(scheme)?),
            },
            created: UnixMillis(message.created_ms),
            identity_signature: match message.identity_signature.as_ref() {
                [] => None,
                signature => Some(signature.try_into().map_err(|_| {
                    Rejection::invalid(WHAT, "the identity signature has not 64 bytes")
                })?),
            },
        };
        describe.check()?;
        // Grants without the right to share are void, not the leaf: were it void,
        // the grants of the describe leaf before it would go on.
        if !describe.terms.may_share {
            describe.grants.clear();
        }
        Ok(describe)
    }

    fn check(&self) -> Result<(), Rejection> {
        rules::text("title", &self.title, TITLE_MAX_BYTES, Lines::One)?;
        rules::text("terms", &self.terms.text, TERMS_MAX_BYTES, Lines::Many)?;
        match &self.terms.source {
            Source::OwnWork if !self.terms.may_share => {
                return Err(Rejection::invalid(WHAT, "own work may always be shared"));
            }
            Source::OwnWork => {}
            Source::ThirdParty { list_owner } if list_owner.is_empty() => {
                return Err(Rejection::invalid(WHAT, "whose list it is, is missing"));
            }
            Source::ThirdParty { list_owner } => {
                rules::text("list owner", list_owner, OWNER_MAX_BYTES, Lines::One)?;
            }
        }
        if self.grants.len() > GRANTS_MAX {
            let why = format!("{} grants, at most {GRANTS_MAX}", self.grants.len());
            return Err(Rejection::invalid(WHAT, why));
        }
        let mut rest = self.grants.as_slice();
        while let [grant, others @ ..] = rest {
            if others.iter().any(|other| other.grantee == grant.grantee) {
                return Err(Rejection::invalid(WHAT, "two grants to one grantee"));
            }
            rest = others;
        }
        Ok(())
    }
}

impl Terms {
    fn from_wire(message: wire::Terms) -> Result<Self, Rejection> {
        let own_work = message.list_owner.is_empty();
        let source = match message.source() {
            wire::Source::OwnWork if own_work => Some(Source::OwnWork),
            wire::Source::ThirdParty => Some(Source::ThirdParty {
                list_owner: message.list_owner,
            }),
            wire::Source::OwnWork | wire::Source::Unspecified => None,
        };
        Ok(Self {
            source: rules::enumerated("source", source)?,
            may_share: message.may_share,
            text: message.text,
        })
    }
}

impl Grant {
    fn to_wire(&self) -> wire::Grant {
        use wire::grant::Grantee as Wire;
        let grantee = match &self.grantee {
            Grantee::Member(number) => Wire::MemberNumber(number.value()),
            Grantee::Group(group) => Wire::Group(group.to_string()),
            Grantee::All => Wire::All(true),
        };
        wire::Grant {
            relay: self.relay,
            grantee: Some(grantee),
        }
    }

    fn from_wire(message: &wire::Grant) -> Result<Self, Rejection> {
        use wire::grant::Grantee as Wire;
        let grantee = match &message.grantee {
            Some(Wire::MemberNumber(number)) => Grantee::Member(MemberNumber::new(*number)?),
            Some(Wire::Group(group)) => Grantee::Group(Slug::parse(group)?),
            Some(Wire::All(true)) => Grantee::All,
            Some(Wire::All(false)) | None => {
                return Err(Rejection::invalid(WHAT, "a grant to nobody"));
            }
        };
        Ok(Self {
            grantee,
            relay: message.relay,
        })
    }
}
