//! Fork evidence: two checkpoints of one feed that cannot both be true.
//!
//! Evidence is two notes that the publisher signed, (m, A) and (n, B) with m ≤ n,
//! and B's compact ranges `[0, m)` and `[m, n)`. Exactly counted, they merge to B,
//! and the first alone does not lead to A. So the larger tree does not contain the
//! smaller one, whoever says so: it is checked offline.
//!
//! Trust: evidence accuses, so it is checked as strictly as a chunk. Ranges that do
//! not merge to B, or that have another number of hashes than m and n dictate, say
//! something about who sent them and nothing about the publisher.

use bytes::Bytes;
use prost::Message as _;

use crate::checkpoint::{self, Checkpoint, SignedCheckpoint};
use crate::id::{CoalitionName, Digest, FeedId};
use crate::keys::{Feed, PublicKey};
use crate::limits::{CARD_MAX_BYTES, EVIDENCE_CARDS_MAX, EVIDENCE_MAX_BYTES, NOTE_MAX_BYTES};
use crate::merkle::CompactRange;
use crate::note::Note;
use crate::reject::Rejection;
use crate::verified::Verified;
use crate::wire;

const WHAT: &str = "fork evidence";
/// Hashes of one compact range within the largest feed, 2^40 leaves: at most 40 at
/// either side.
const RANGE_MAX_HASHES: usize = 80;

/// Evidence as it came, within its bounds, nothing verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForkEvidence {
    /// The feed.
    pub feed: FeedId,
    /// The note of the smaller size m, or of the same size.
    pub smaller: Bytes,
    /// The note of the larger size n.
    pub larger: Bytes,
    /// The compact range `[0, m)` of the larger tree.
    pub before: Vec<Digest>,
    /// The compact range `[m, n)` of the larger tree.
    pub between: Vec<Digest>,
    /// Envelopes of the publisher's node cards that name the keys.
    pub node_cards: Vec<Bytes>,
}

/// A proven fork.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fork {
    /// The checkpoint of the smaller size.
    pub smaller: SignedCheckpoint,
    /// The checkpoint that does not contain it.
    pub larger: SignedCheckpoint,
}

impl ForkEvidence {
    /// Encodes the evidence, to be sent to anybody.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let hashes = |hashes: &[Digest]| {
            let bytes = |hash: &Digest| Bytes::copy_from_slice(&hash.0);
            hashes.iter().map(bytes).collect()
        };
        let message = wire::ForkEvidence {
            feed_id: Bytes::copy_from_slice(self.feed.as_bytes()),
            smaller_note: self.smaller.clone(),
            larger_note: self.larger.clone(),
            before: hashes(&self.before),
            between: hashes(&self.between),
            node_cards: self.node_cards.clone(),
        };
        message.encode_to_vec()
    }

    /// Reads evidence, and checks that every part is within its bound.
    ///
    /// # Errors
    /// [`Rejection::TooLarge`] before anything is decoded, or for a part;
    /// [`Rejection::Malformed`].
    pub fn decode(bytes: &Bytes) -> Result<Self, Rejection> {
        Rejection::cap(WHAT, bytes.len(), EVIDENCE_MAX_BYTES)?;
        let message = wire::ForkEvidence::decode(bytes.clone())
            .map_err(|_| Rejection::malformed(WHAT, "no protobuf message"))?;
        Rejection::cap("note", message.smaller_note.len(), NOTE_MAX_BYTES)?;
        Rejection::cap("note", message.larger_note.len(), NOTE_MAX_BYTES)?;
        let cards = &message.node_cards;
        Rejection::cap("node cards in evidence", cards.len(), EVIDENCE_CARDS_MAX)?;
        for card in cards {
            Rejection::cap("node card", card.len(), CARD_MAX_BYTES)?;
        }
        Ok(Self {
            feed: FeedId(digest(&message.feed_id)?),
            smaller: message.smaller_note,
            larger: message.larger_note,
            before: digests(&message.before)?,
            between: digests(&message.between)?,
            node_cards: message.node_cards,
        })
    }

    /// The newest epoch that the notes say they are of; nothing is verified. Evidence
    /// about an epoch that the roster has closed is closed with it.
    ///
    /// # Errors
    /// What is wrong with a note's text.
    pub fn epoch(&self) -> Result<u32, Rejection> {
        Ok(epoch_of(&self.smaller)?.max(epoch_of(&self.larger)?))
    }

    /// Checks the evidence. `keys` gives the publisher's feed keys in an epoch, from
    /// current and old node cards; `closed_at` the last good size of an epoch that
    /// the roster has closed: what was signed beyond it is void and proves nothing.
    ///
    /// # Errors
    /// As [`checkpoint::verify`] for the notes; [`Rejection::ProofLength`] and
    /// [`Rejection::WrongRoot`] for ranges that do not lead to the larger root,
    /// which blame only the sender; [`Rejection::Invalid`] when the smaller size is
    /// the larger one, a note is void, or the two notes agree.
    pub fn verify(
        &self,
        coalition: &CoalitionName,
        keys: impl Fn(u32) -> Vec<PublicKey<Feed>>,
        closed_at: impl Fn(u32) -> Option<u64>,
    ) -> Result<Verified<Fork>, Rejection> {
        let smaller = checkpoint::verify(&self.smaller, coalition, &self.feed, &keys)?;
        let larger = checkpoint::verify(&self.larger, coalition, &self.feed, &keys)?;
        for note in [&smaller, &larger] {
            check_not_void(note, &closed_at)?;
        }
        // The roster names what an epoch extends, so a note of an earlier epoch says
        // nothing against a later one: a leaked key could sign such notes for ever.
        if smaller.checkpoint.origin.epoch != larger.checkpoint.origin.epoch {
            return Err(Rejection::invalid(WHAT, "the notes are of two epochs"));
        }
        let (m, n) = (smaller.size(), larger.size());
        if m > n {
            let why = format!("sizes {m} and {n} are in the wrong order");
            return Err(Rejection::invalid(WHAT, why));
        }
        let mut whole = CompactRange::from_hashes(0, m, self.before.clone())?;
        let contained = whole.root();
        whole.merge(&CompactRange::from_hashes(m, n, self.between.clone())?)?;
        if whole.root() != Some(larger.root()) {
            return Err(Rejection::WrongRoot { from: m, to: n });
        }
        if contained == Some(smaller.root()) {
            return Err(Rejection::invalid(WHAT, "the two checkpoints agree"));
        }
        Ok(Verified::new(Fork {
            smaller: smaller.into_inner(),
            larger: larger.into_inner(),
        }))
    }
}

/// The epoch that a note says it is of; nothing is verified.
fn epoch_of(note: &[u8]) -> Result<u32, Rejection> {
    let text = Note::parse(note)?.text;
    Ok(Checkpoint::parse_body(&text)?.origin.epoch)
}

/// Refuses a note beyond the last good size of a closed epoch.
fn check_not_void(
    note: &SignedCheckpoint,
    closed_at: &impl Fn(u32) -> Option<u64>,
) -> Result<(), Rejection> {
    let epoch = note.checkpoint.origin.epoch;
    match closed_at(epoch) {
        Some(last_good) if note.size() > last_good => {
            let why = format!("epoch {epoch} was closed at size {last_good}");
            Err(Rejection::invalid(WHAT, why))
        }
        Some(_) | None => Ok(()),
    }
}

fn digests(hashes: &[Bytes]) -> Result<Vec<Digest>, Rejection> {
    Rejection::cap("compact range", hashes.len(), RANGE_MAX_HASHES)?;
    hashes.iter().map(digest).collect()
}

fn digest(bytes: &Bytes) -> Result<Digest, Rejection> {
    Digest::from_slice(bytes).map_err(|error| Rejection::malformed(WHAT, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Origin;
    use crate::keys::SecretKey;
    use crate::merkle::leaf_hash;

    fn coalition() -> CoalitionName {
        CoalitionName::parse("csa-coalition.example").unwrap()
    }

    fn key() -> SecretKey<Feed> {
        SecretKey::from_seed(&[1; 32])
    }

    /// Leaves of history `fork`, which differ from leaf 40 on.
    fn range(fork: u8, begin: u64, end: u64) -> CompactRange {
        let leaf = |i: u64| {
            let mut record = [if i < 40 { 0 } else { fork }; 33];
            record[..8].copy_from_slice(&i.to_be_bytes());
            leaf_hash(&record)
        };
        let mut range = CompactRange::empty(begin);
        range.extend((begin..end).map(leaf));
        range
    }

    fn note(fork: u8, size: u64, epoch: u32) -> Bytes {
        let checkpoint = Checkpoint {
            origin: Origin {
                coalition: coalition(),
                feed: FeedId(Digest([7; 32])),
                epoch,
            },
            size,
            root: range(fork, 0, size).root().unwrap(),
        };
        checkpoint::sign(&checkpoint, &key()).into()
    }

    /// History 1 at size m against history 2 at size n.
    fn evidence(m: u64, n: u64) -> ForkEvidence {
        ForkEvidence {
            feed: FeedId(Digest([7; 32])),
            smaller: note(1, m, 1),
            larger: note(2, n, 1),
            before: range(2, 0, m).hashes().to_vec(),
            between: range(2, m, n).hashes().to_vec(),
            node_cards: vec![Bytes::from_static(b"card")],
        }
    }

    fn check(evidence: &ForkEvidence) -> Result<Verified<Fork>, Rejection> {
        evidence.verify(&coalition(), |_| vec![key().public()], |_| None)
    }

    fn code<T>(result: Result<T, Rejection>) -> Option<&'static str> {
        result.err().map(|rejection| rejection.code())
    }

    #[test]
    fn two_notes_of_two_histories_are_a_fork() {
        for (m, n) in [(41, 41), (41, 100), (64, 128), (99, 100)] {
            let evidence = evidence(m, n);
            let fork = check(&evidence).unwrap();
            assert_eq!((fork.smaller.size(), fork.larger.size()), (m, n));
            let decoded = ForkEvidence::decode(&evidence.encode().into());
            assert_eq!(decoded.as_ref(), Ok(&evidence));
        }
    }

    #[test]
    fn two_notes_of_one_history_are_no_fork() {
        for (m, n) in [(0, 100), (40, 100), (40, 40)] {
            assert_eq!(code(check(&evidence(m, n))), Some("invalid"));
        }
        let mut same = evidence(64, 100);
        same.larger = note(1, 100, 1);
        same.before = range(1, 0, 64).hashes().to_vec();
        same.between = range(1, 64, 100).hashes().to_vec();
        assert_eq!(code(check(&same)), Some("invalid"));
    }

    // A verifier that does not count the hashes frames the innocent.
    #[test]
    fn hashes_that_are_not_exactly_counted_frame_nobody() {
        // An honest publisher: history 1 at 64 and at 128. The hashes of [0, 128)
        // split elsewhere merge to the larger root, and their first part is not the
        // smaller one: only the count tells.
        let root_of = |begin, end| range(1, begin, end).hashes().to_vec();
        let mut framed = evidence(64, 128);
        framed.larger = note(1, 128, 1);
        framed.before = root_of(0, 32);
        framed.between = [root_of(32, 64), root_of(64, 128)].concat();
        assert_eq!(code(check(&framed)), Some("proof_length"));
        framed.before = root_of(0, 128);
        framed.between = vec![];
        assert_eq!(code(check(&framed)), Some("proof_length"));
        framed.before = [root_of(0, 32), root_of(32, 64)].concat();
        framed.between = root_of(64, 128);
        assert_eq!(code(check(&framed)), Some("proof_length"));
    }

    #[test]
    fn ranges_that_do_not_lead_to_the_larger_root_blame_only_the_sender() {
        let good = evidence(77, 100);
        for at in 0..good.before.len() {
            let mut bad = good.clone();
            bad.before[at].0[3] ^= 1;
            assert_eq!(code(check(&bad)), Some("wrong_root"));
            bad.before.remove(at);
            assert_eq!(code(check(&bad)), Some("proof_length"));
        }
        for at in 0..good.between.len() {
            let mut bad = good.clone();
            bad.between[at].0[3] ^= 1;
            assert_eq!(code(check(&bad)), Some("wrong_root"));
            bad.between.remove(at);
            assert_eq!(code(check(&bad)), Some("proof_length"));
        }
    }

    #[test]
    fn notes_in_the_wrong_order_or_of_another_key_or_feed_are_refused() {
        let mut swapped = evidence(64, 100);
        std::mem::swap(&mut swapped.smaller, &mut swapped.larger);
        assert_eq!(code(check(&swapped)), Some("invalid"));
        let other = SecretKey::<Feed>::from_seed(&[2; 32]).public();
        let verdict = evidence(64, 100).verify(&coalition(), |_| vec![other], |_| None);
        assert_eq!(code(verdict), Some("bad_signature"));
        let mut foreign = evidence(64, 100);
        foreign.feed = FeedId(Digest([8; 32]));
        assert_eq!(code(check(&foreign)), Some("wrong_origin"));
    }

    #[test]
    fn what_a_leaked_key_signed_beyond_a_closed_epoch_proves_nothing() {
        let later = evidence(64, 100);
        assert_eq!(code(check(&later)), None);
        let closed = |epoch| (epoch == 1).then_some(40);
        let verdict = later.verify(&coalition(), |_| vec![key().public()], closed);
        assert_eq!(code(verdict), Some("invalid"));
        let closed = |epoch| (epoch == 1).then_some(100);
        assert!(
            later
                .verify(&coalition(), |_| vec![key().public()], closed)
                .is_ok()
        );
    }

    // Else who has a leaked key could accuse every later epoch for ever.
    #[test]
    fn a_note_of_a_closed_epoch_accuses_no_later_one() {
        let mut later = evidence(64, 100);
        later.larger = note(2, 100, 2);
        assert_eq!(code(check(&later)), Some("invalid"));
        assert_eq!(later.epoch(), Ok(2));
    }

    #[test]
    fn every_part_is_bounded() {
        let large = Bytes::from(vec![0; EVIDENCE_MAX_BYTES + 1]);
        assert_eq!(code(ForkEvidence::decode(&large)), Some("too_large"));
        let mut cards = evidence(64, 100);
        cards.node_cards = vec![Bytes::new(); EVIDENCE_CARDS_MAX + 1];
        assert_eq!(
            code(ForkEvidence::decode(&cards.encode().into())),
            Some("too_large")
        );
        let mut hashes = evidence(64, 100);
        hashes.before = vec![Digest([0; 32]); RANGE_MAX_HASHES + 1];
        assert_eq!(
            code(ForkEvidence::decode(&hashes.encode().into())),
            Some("too_large")
        );
        let mut note = evidence(64, 100);
        note.larger = vec![b'a'; NOTE_MAX_BYTES + 1].into();
        assert_eq!(
            code(ForkEvidence::decode(&note.encode().into())),
            Some("too_large")
        );
        assert_eq!(
            code(ForkEvidence::decode(&Bytes::from_static(b"\xff"))),
            Some("malformed")
        );
    }
}
