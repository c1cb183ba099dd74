//! The cards that this node accepted, and whose key is whose.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::read::KeyUse;
use super::{CardVersion, EndpointPolicy, Node, keys_of, verify};
use crate::envelope::Envelope;
use crate::id::{Digest, FeedId, MemberNumber, Slug, UnixMillis};
use crate::keys::{Feed, PublicKey, Witness};
use crate::limits::{CARDS_KEPT_MAX, CLOCK_SKEW_MS};
use crate::reject::Rejection;
use crate::roster::{MemberStatus, Roster, RosterChain};

/// Pieces of evidence that a book keeps: one per identity key shows what happened.
const EVIDENCE_MAX: usize = 64;

/// What became of an offered card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CardAccepted {
    /// It is the member's newest; store it and announce it.
    New(Arc<CardVersion>),
    /// It was held already.
    Known,
}

/// Two cards of one member with one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CardEvidence {
    /// Who signed both.
    pub member: MemberNumber,
    /// The version.
    pub version: u64,
    /// The one that was first here, and stays.
    pub held: Envelope,
    /// The other one.
    pub other: Envelope,
}

/// How a member's newest card stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CardState {
    /// In force.
    Current,
    /// Past its expiry: its keys may fetch the roster, no more.
    Expired,
    /// Signed by an identity key that the member has no longer: the same.
    FormerIdentity,
}

/// Whose a TLS key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyOwner {
    /// The member.
    pub member: MemberNumber,
    /// The name of its node.
    pub node: Slug,
    /// How the card that says so stands.
    pub card: CardState,
}

/// All accepted cards of all members, old ones too: proofs need them.
#[derive(Debug, Clone, Default)]
pub struct CardBook {
    policy: EndpointPolicy,
    /// Per member, oldest first; the last one is the newest.
    cards: BTreeMap<MemberNumber, Vec<Arc<CardVersion>>>,
    /// Every key that ever stood on a card, and whose it is for ever.
    claims: BTreeMap<Digest, (MemberNumber, KeyUse)>,
    evidence: Vec<CardEvidence>,
}

impl CardBook {
    /// Begins without cards.
    #[must_use]
    pub fn new(policy: EndpointPolicy) -> Self {
        Self {
            policy,
            ..Self::default()
        }
    }

    /// Takes an offered card in, or says why not. After an error everything stands
    /// as before, but for evidence.
    ///
    /// # Errors
    /// Those of [`verify`]; [`Rejection::Expired`], [`Rejection::FromTheFuture`],
    /// [`Rejection::VersionGap`] for a card that goes back, and
    /// [`Rejection::Equivocation`] for another card of one version: the first stays,
    /// and both are in [`evidence`](Self::evidence).
    pub fn accept(
        &mut self,
        envelope: Envelope,
        chain: &RosterChain,
        now: UnixMillis,
    ) -> Result<CardAccepted, Rejection> {
        let digest = envelope.payload_digest();
        if self.holds(&digest) {
            return Ok(CardAccepted::Known);
        }
        let version = verify(envelope, chain)?;
        check_signer(&version, chain.roster())?;
        self.check_version(&version)?;
        check_time(&version, now)?;
        let endpoints = version.card.nodes.iter().flat_map(|node| &node.endpoints);
        endpoints
            .into_iter()
            .try_for_each(|endpoint| self.policy.check(endpoint))?;
        self.check_claims(&version, chain)?;
        Ok(CardAccepted::New(self.push(version)))
    }

    /// Whether a card of this digest was accepted.
    #[must_use]
    pub fn holds(&self, digest: &Digest) -> bool {
        self.cards.values().flatten().any(|c| c.digest == *digest)
    }

    /// Takes back a card that this node stored, in the order of acceptance: its
    /// signatures again, but neither clock nor policy.
    ///
    /// # Errors
    /// Those of [`verify`].
    pub fn restore(&mut self, envelope: Envelope, chain: &RosterChain) -> Result<(), Rejection> {
        let version = verify(envelope, chain)?;
        self.check_claims(&version, chain)?;
        self.push(version);
        Ok(())
    }

    fn push(&mut self, version: CardVersion) -> Arc<CardVersion> {
        let member = version.member;
        let claims = keys_of(&version.card).map(|(key, purpose)| (key, (member, purpose)));
        self.claims.extend(claims);
        let version = Arc::new(version);
        self.cards
            .entry(member)
            .or_default()
            .push(Arc::clone(&version));
        version
    }

    /// Versions increase per identity key: after the loss of one, the highest
    /// version that its thief signed binds nobody.
    fn check_version(&mut self, new: &CardVersion) -> Result<(), Rejection> {
        let held = self.cards.get(&new.member).map_or(&[][..], Vec::as_slice);
        let of_key = || held.iter().filter(|card| card.signer == new.signer);
        if let Some(twin) = of_key().find(|c| c.card.version == new.card.version) {
            let evidence = CardEvidence {
                member: new.member,
                version: new.card.version,
                held: twin.envelope.clone(),
                other: new.envelope.clone(),
            };
            // What a key that was replaced signed takes no place of the present one's.
            let seen = |e: &CardEvidence| {
                e.member == new.member && e.held.require_signature(new.signer).is_ok()
            };
            let seen = self.evidence.iter().any(seen);
            if self.evidence.len() < EVIDENCE_MAX && !seen {
                self.evidence.push(evidence);
            }
            return Err(Rejection::Equivocation {
                what: "node card",
                version: new.card.version,
            });
        }
        let newest = of_key().map(|card| card.card.version).max().unwrap_or(0);
        if new.card.version < newest {
            return Err(Rejection::VersionGap {
                what: "node card",
                held: newest,
                got: new.card.version,
            });
        }
        Rejection::cap(
            "node cards",
            of_key().count(),
            CARDS_KEPT_MAX.saturating_sub(1),
        )
    }

    /// No key stands in two places: not with two members, for two purposes, or on
    /// a card and in a roster.
    fn check_claims(&self, new: &CardVersion, chain: &RosterChain) -> Result<(), Rejection> {
        self.check_keys(&new.card, Some(new.member), chain)
    }

    /// Refuses a card with a key that is somebody else's or has another purpose.
    pub(crate) fn check_keys(
        &self,
        card: &super::NodeCard,
        member: Option<MemberNumber>,
        chain: &RosterChain,
    ) -> Result<(), Rejection> {
        for (key, purpose) in keys_of(card) {
            let claimed = self.claims.get(&key);
            if claimed.is_some_and(|(owner, before)| Some(*owner) != member || *before != purpose) {
                return Err(claimed_already(key));
            }
        }
        // Roster keys are few; compare them in the form that TLS keys have too.
        let in_roster = chain.key_digests();
        match keys_of(card).find(|(key, _)| in_roster.contains(key)) {
            None => Ok(()),
            Some((key, _)) => Err(claimed_already(key)),
        }
    }

    /// The member's newest card, in force or not.
    #[must_use]
    pub fn newest(&self, member: MemberNumber) -> Option<&Arc<CardVersion>> {
        self.cards.get(&member)?.last()
    }

    /// The member's newest card, if it is in force.
    #[must_use]
    pub fn current(
        &self,
        member: MemberNumber,
        roster: &Roster,
        now: UnixMillis,
    ) -> Option<&Arc<CardVersion>> {
        self.newest(member)
            .filter(|card| card.state(roster, now) == CardState::Current)
    }

    /// The newest card of every member, which is what a newcomer needs.
    pub fn newest_of_all(&self) -> impl Iterator<Item = &Arc<CardVersion>> {
        self.cards.values().filter_map(|cards| cards.last())
    }

    /// Every card, old ones too, oldest first per member.
    pub fn all(&self) -> impl Iterator<Item = &Arc<CardVersion>> {
        self.cards.values().flatten()
    }

    /// The one member and node that has a TLS key, by the SHA-256 of its
    /// `SubjectPublicKeyInfo`. A key that the newest card no longer has is
    /// nobody's.
    #[must_use]
    pub fn by_tls_key(&self, key: &Digest, roster: &Roster, now: UnixMillis) -> Option<KeyOwner> {
        let (member, _) = self.claims.get(key).filter(|(_, u)| *u == KeyUse::Tls)?;
        let newest = self.newest(*member)?;
        let has_key = |node: &&Node| node.tls_keys.contains(key);
        Some(KeyOwner {
            member: *member,
            node: newest.card.nodes.iter().find(has_key)?.name.clone(),
            card: newest.state(roster, now),
        })
    }

    /// The keys that may sign new heads of a member's set: those of its newest card,
    /// without the revoked ones. A card that expired or whose identity key was
    /// replaced has none.
    #[must_use]
    pub fn current_feed_keys(
        &self,
        member: MemberNumber,
        set: &Slug,
        feed: FeedId,
        epoch: u32,
        (roster, now): (&Roster, UnixMillis),
    ) -> Vec<PublicKey<Feed>> {
        let cards = self.current(member, roster, now);
        feed_keys(cards.into_iter(), set, |key| {
            !roster.is_revoked(feed, key, epoch)
        })
    }

    /// The keys that may ever have signed heads of a member's set in `epoch`, from
    /// all cards, without those revoked by then: for what is held and for proofs.
    #[must_use]
    pub fn feed_keys(
        &self,
        member: MemberNumber,
        set: &Slug,
        feed: FeedId,
        epoch: u32,
        roster: &Roster,
    ) -> Vec<PublicKey<Feed>> {
        let cards = self.cards.get(&member).into_iter().flatten();
        feed_keys(cards, set, |key| !roster.is_revoked(feed, key, epoch))
    }

    /// Every key that a member ever cosigned with, or could have: those of all its nodes on
    /// all its cards.
    pub fn witness_keys_ever(
        &self,
        member: MemberNumber,
    ) -> impl Iterator<Item = &PublicKey<Witness>> {
        let cards = self.cards.get(&member).into_iter().flatten();
        let nodes = cards.flat_map(|card| &card.card.nodes);
        nodes.flat_map(|node| &node.witness_keys)
    }

    /// Pairs of cards of one version that were met.
    #[must_use]
    pub fn evidence(&self) -> &[CardEvidence] {
        &self.evidence
    }
}

impl CardVersion {
    /// How the card stands by the roster and the time.
    #[must_use]
    pub fn state(&self, roster: &Roster, now: UnixMillis) -> CardState {
        let identity = roster.member(self.member).map(|m| m.identity);
        if identity != Some(self.signer) {
            CardState::FormerIdentity
        } else if now > self.card.expires.plus(CLOCK_SKEW_MS) {
            CardState::Expired
        } else {
            CardState::Current
        }
    }
}

fn feed_keys<'a>(
    cards: impl Iterator<Item = &'a Arc<CardVersion>>,
    set: &Slug,
    allowed: impl Fn(&PublicKey<Feed>) -> bool,
) -> Vec<PublicKey<Feed>> {
    let keys = cards
        .flat_map(|card| &card.card.nodes)
        .flat_map(|node| &node.feed_keys)
        .filter(|key| key.sets.covers(set))
        .map(|key| key.key)
        .filter(allowed);
    let mut keys: Vec<_> = keys.collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// A new card is signed with the member's present identity key, and not by one
/// who is out.
fn check_signer(card: &CardVersion, roster: &Roster) -> Result<(), Rejection> {
    let member = roster.member(card.member);
    if member.is_none_or(|m| m.status == MemberStatus::Removed) {
        return Err(Rejection::Unknown {
            what: "member",
            why: format!("{} was removed", card.card.slug),
        });
    }
    if member.is_some_and(|m| m.identity == card.signer) {
        return Ok(());
    }
    Err(Rejection::BadSignature {
        what: "node card",
        why: "signed with a former identity key".to_owned(),
    })
}

fn check_time(version: &CardVersion, now: UnixMillis) -> Result<(), Rejection> {
    if version.card.issued > now.plus(CLOCK_SKEW_MS) {
        return Err(Rejection::FromTheFuture { what: "node card" });
    }
    if now > version.card.expires.plus(CLOCK_SKEW_MS) {
        return Err(Rejection::Expired { what: "node card" });
    }
    Ok(())
}

fn claimed_already(key: Digest) -> Rejection {
    Rejection::invalid("node card", format!("key {key} is another's already"))
}
