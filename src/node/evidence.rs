//! Evidence that this node holds, and as files that anybody checks.

use bytes::Bytes;
use hashpact_core::checkpoint;
use hashpact_core::equivocation::{DocumentEvidence, Equivocation};
use hashpact_core::evidence::ForkEvidence;
use hashpact_core::evidence_file::{Evidence, EvidenceFile, Guilt};
use hashpact_core::id::{Digest, FeedId, MemberNumber};
use hashpact_core::keys::{Feed, PublicKey};
use hashpact_core::note::Note;
use hashpact_core::reject::Rejection;
use hashpact_core::roster::RosterChain;
use hashpact_core::verified::Verified;

use crate::error::NodeError;
use crate::membership::State;
use crate::node::Node;
use crate::proving::{card_with, envelopes};
use crate::words::name_of;

/// Pieces of evidence read at a time, some kilobytes each.
const PAGE: usize = 64;

/// A piece of evidence as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvidenceView {
    /// The digest of its bytes, which names it.
    pub digest: Digest,
    /// What it shows.
    pub about: EvidenceAbout,
    /// Whether the roster has closed what it is about: the epoch of the heads, or it
    /// replaced the identity key that signed the cards.
    pub closed: bool,
}

/// What a piece of evidence shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EvidenceAbout {
    /// Two heads of one feed.
    Fork {
        /// The feed.
        feed: FeedId,
        /// The set's name, or the beginning of the feed's id.
        name: String,
        /// Whose feed it is, where it is held here.
        publisher: Option<MemberNumber>,
        /// The epoch of the heads.
        epoch: u32,
        /// The sizes of the two heads.
        sizes: (u64, u64),
    },
    /// Two node cards of a member.
    NodeCards {
        /// The member.
        member: MemberNumber,
        /// The version of both.
        version: u64,
    },
    /// Two rosters.
    Rosters {
        /// The version of both.
        version: u64,
    },
}

impl Node {
    /// All evidence that is kept. Blocking.
    ///
    /// # Errors
    /// What the store answers.
    pub fn evidence(&self) -> Result<Vec<EvidenceView>, NodeError> {
        let mut views = Vec::new();
        self.each_fork(&mut |bytes| {
            let (about, closed) = self.about_fork(bytes)?;
            let digest = Digest::of(bytes);
            views.push(EvidenceView {
                digest,
                about,
                closed,
            });
            Ok(())
        })?;
        let chain = self.membership().state().chain.clone();
        for bytes in self.store().equivocations()? {
            let Some(chain) = &chain else {
                continue;
            };
            let proven = DocumentEvidence::decode(&bytes)?
                .verify(chain)?
                .into_inner();
            let closed = proven.is_closed();
            let about = match proven {
                Equivocation::Roster { version } => EvidenceAbout::Rosters { version },
                Equivocation::NodeCard {
                    member, version, ..
                } => EvidenceAbout::NodeCards { member, version },
            };
            views.push(EvidenceView {
                digest: Digest::of(&bytes),
                about,
                closed,
            });
        }
        Ok(views)
    }

    /// Shows the evidence of every fork, some pieces at a time.
    fn each_fork(
        &self,
        visit: &mut dyn FnMut(&Bytes) -> Result<(), NodeError>,
    ) -> Result<(), NodeError> {
        let mut after = None;
        loop {
            let page = self.store().evidence_after(after.as_ref(), PAGE)?;
            let Some((last, _)) = page.last() else {
                return Ok(());
            };
            after = Some(*last);
            for (_, bytes) in &page {
                visit(bytes)?;
            }
        }
    }

    fn about_fork(&self, bytes: &Bytes) -> Result<(EvidenceAbout, bool), NodeError> {
        let evidence = ForkEvidence::decode(bytes)?;
        let said = |bytes: &[u8]| -> Result<_, Rejection> {
            checkpoint::Checkpoint::parse_body(&Note::parse(bytes)?.text)
        };
        let (smaller, larger) = (said(&evidence.smaller)?, said(&evidence.larger)?);
        let feed = evidence.feed;
        let held = self.store().feed_no(&feed);
        let held = held.and_then(|no| self.store().feed(no).ok());
        let epoch = larger.origin.epoch;
        let about = EvidenceAbout::Fork {
            feed,
            name: held.as_ref().map_or_else(|| feed.0.short(), name_of),
            publisher: held.map(|held| held.publisher),
            epoch,
            sizes: (smaller.size, larger.size),
        };
        Ok((about, self.membership().epoch(feed) > epoch))
    }

    /// One piece as a file; `digest` is the beginning of its name in hexadecimal digits.
    /// With `describe`, leaf 0 of the feed is shown, which binds it to its publisher and
    /// tells the set's name and whom it was granted to. Blocking.
    ///
    /// # Errors
    /// [`NodeError::NotFound`]; [`NodeError::Misuse`] where the beginning fits several, or
    /// leaf 0 is not held; [`NodeError::Rejected`] where it does not verify with what is
    /// held here.
    pub fn evidence_file(
        &self,
        digest: &str,
        describe: bool,
    ) -> Result<(Bytes, Verified<Guilt>), NodeError> {
        let chain = self.membership().roster()?;
        let mut found = Vec::new();
        self.each_fork(&mut |bytes| {
            if named(bytes, digest) {
                found.push(self.fork_of(bytes, &chain, describe)?);
            }
            Ok(())
        })?;
        for bytes in self.store().equivocations()? {
            if named(&bytes, digest) {
                found.push(Evidence::Documents(DocumentEvidence::decode(&bytes)?));
            }
        }
        let missing = || NodeError::NotFound {
            what: "evidence",
            name: digest.to_owned(),
        };
        if found.len() > 1 {
            return Err(NodeError::Misuse(format!(
                "{digest} begins the names of several pieces of evidence; say more of it"
            )));
        }
        let file = EvidenceFile {
            roster_version: chain.version(),
            rosters: envelopes(&chain),
            evidence: found.pop().ok_or_else(missing)?,
        };
        let guilt = file.verify(&self.membership().genesis())?;
        Ok((file.encode().into(), guilt))
    }

    /// A fork with the cards that name its keys, instead of those that it came with.
    fn fork_of(
        &self,
        bytes: &Bytes,
        chain: &RosterChain,
        describe: bool,
    ) -> Result<Evidence, NodeError> {
        let mut fork = ForkEvidence::decode(bytes)?;
        let state = self.membership().state();
        let publisher = self.publisher_by_keys(&fork, (&state, chain))?;
        let mut cards: Vec<Bytes> = Vec::new();
        for bytes in [&fork.smaller, &fork.larger] {
            let key = signer(bytes, publisher, fork.feed, (&state, chain))?;
            let card = card_with(&state, publisher, |card| {
                let mut nodes = card.card().nodes.iter();
                nodes.any(|node| node.feed_keys.iter().any(|named| named.key == key))
            })?;
            if !cards.contains(&card) {
                cards.push(card);
            }
        }
        fork.node_cards = cards;
        let first_payload = if describe {
            let held = self.store().feed_no(&fork.feed);
            let first = held.map(|no| self.store().read_leaf(no, 0)).transpose()?;
            let payload = first.and_then(|first| first.payload().cloned());
            let missing =
                || NodeError::Misuse("this node does not hold the feed's first leaf".to_owned());
            Some(payload.ok_or_else(missing)?)
        } else {
            None
        };
        Ok(Evidence::Fork {
            fork,
            first_payload,
        })
    }

    /// Whose feed it is: by the store, or where it is not held, by who signed.
    fn publisher_by_keys(
        &self,
        fork: &ForkEvidence,
        by: (&State, &RosterChain),
    ) -> Result<MemberNumber, NodeError> {
        let held = self.store().feed_no(&fork.feed);
        if let Some(no) = held {
            return Ok(self.store().feed(no)?.publisher);
        }
        let mut members = by.1.roster().members.iter().map(|member| member.number);
        let signed = |member: &MemberNumber| signer(&fork.larger, *member, fork.feed, by).is_ok();
        members.find(signed).ok_or_else(|| {
            NodeError::Internal("no card held here names the key of a head".to_owned())
        })
    }
}

fn named(bytes: &Bytes, digest: &str) -> bool {
    Digest::of(bytes).to_string().starts_with(digest)
}

/// The key of a member that signed a note, of all that it ever had.
fn signer(
    bytes: &Bytes,
    member: MemberNumber,
    feed: FeedId,
    (state, chain): (&State, &RosterChain),
) -> Result<PublicKey<Feed>, Rejection> {
    let roster = chain.roster();
    let keys = |epoch| {
        let of_member = state.cards.all().filter(|card| card.member() == member);
        let nodes = of_member.flat_map(|card| card.card().nodes.iter());
        let keys = nodes.flat_map(|node| node.feed_keys.iter().map(|named| named.key));
        let mut keys: Vec<_> = keys
            .filter(|key| !roster.is_revoked(feed, key, epoch))
            .collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    };
    Ok(checkpoint::verify(bytes, &roster.coalition, &feed, keys)?.key)
}
