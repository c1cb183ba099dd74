//! What stands beside heads: witnesses' cosignatures. Receipts, which may be of other
//! heads than the one that they come with, are [`receipts`](super::receipts)' own.
//!
//! Each is verified before it is kept or told on, with the witness keys on the card in
//! force of an active member with that role. What does not verify is counted and
//! dropped; the head counts all the same. Of one witness the newest word is kept.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use hashpact_core::checkpoint::SignedCheckpoint;
use hashpact_core::id::{FeedId, UnixMillis};
use hashpact_core::limits::COSIGNATURES_MAX;
use hashpact_core::note::{Note, SignatureLine};
use hashpact_core::puller::PeerId;
use hashpact_core::reject::Rejection;
use hashpact_core::verified::Verified;
use hashpact_node::cosignatures::{WitnessKeys, cosigned};
use hashpact_node::hub::Change;
use hashpact_node::{Node, NodeError};
use hashpact_store::{HeadRef, StoreError};

use super::driver::Driver;
use crate::types;

/// Refusals of one announcement after which the rest is not looked at: whoever says
/// so much that does not verify is not to keep this thread busy.
const REFUSED_MAX: usize = 16;
/// Bytes that wait for their heads to take effect, over all feeds.
const WAITING_MAX_BYTES: usize = 8 * 1024 * 1024;

/// Verified, for heads that have not taken effect here yet.
#[derive(Default)]
pub(super) struct Beside {
    waiting: HashMap<FeedId, Waiting>,
    bytes: usize,
}

struct Waiting {
    /// ⚠ With its root: what a witness said of one side of a fork is nothing that it said of
    /// the other, which may be the one that takes effect here.
    at: HeadRef,
    said: Said,
}

/// The newest word of each witness, by its name.
#[derive(Clone, Default)]
struct Said {
    cosignatures: BTreeMap<String, (u64, Bytes)>,
}

impl Said {
    /// Takes back what is kept beside a head: it was verified before.
    fn kept(head: &hashpact_store::Head) -> Self {
        let mut said = Self::default();
        for line in &head.cosignatures {
            if let Some((name, time_s)) = cosigned(line) {
                said.cosignatures.insert(name, (time_s, line.clone()));
            }
        }
        said
    }

    /// Takes what is newer; says whether anything is.
    fn merge(&mut self, other: Self) -> bool {
        newer(&mut self.cosignatures, other.cosignatures, COSIGNATURES_MAX)
    }

    /// Leaves what is newer than what is known.
    fn drop_known(&mut self, known: &Self) {
        self.cosignatures
            .retain(|name, (time_s, _)| known.cosignatures.get(name).is_none_or(|k| k.0 < *time_s));
    }

    fn is_empty(&self) -> bool {
        self.cosignatures.is_empty()
    }

    fn bytes(&self) -> usize {
        self.cosignatures.values().map(|(_, line)| line.len()).sum()
    }
}

fn newer<K: Ord, T: Ord>(
    held: &mut BTreeMap<K, (T, Bytes)>,
    other: BTreeMap<K, (T, Bytes)>,
    limit: usize,
) -> bool {
    let mut changed = false;
    for (key, said) in other {
        let full = held.len() >= limit;
        let known = held.get(&key);
        if known.map_or(!full, |known| known.0 < said.0) {
            held.insert(key, said);
            changed = true;
        }
    }
    changed
}

impl Driver {
    /// Takes in what a peer says beside a verified head.
    pub(super) fn beside(
        &mut self,
        peer: PeerId,
        announced: &types::Head,
        head: &Verified<SignedCheckpoint>,
    ) {
        self.receipts_heard(peer, announced);
        if announced.cosignatures.is_empty() {
            return;
        }
        // Who holds no leaves keeps nothing beside them.
        if self.only_witnesses() {
            return;
        }
        let at = HeadRef {
            epoch: head.checkpoint.origin.epoch,
            size: head.size(),
            root: head.checkpoint.root,
        };
        let Some(known) = self.known(announced.feed, at) else {
            return;
        };
        let (claimed, mut refused) = claimed(announced, &known);
        let (said, unverified) = verify(&self.node, &claimed, head);
        refused.extend(unverified);
        for rejection in refused.iter().take(REFUSED_MAX) {
            self.note_rejected(peer, Some(announced.feed), rejection);
        }
        if said.is_empty() {
            return;
        }
        match self.keep(announced.feed, at, said) {
            Ok(None) => {}
            Ok(Some(early)) => self.beside.wait(announced.feed, at, early),
            Err(error) => {
                tracing::error!(%error, code = error.code(), "keeping cosignatures");
            }
        }
    }

    /// The newest word of each on a head, kept or waiting for it; `None` where another root
    /// of that size is held, beside which nothing of it is kept.
    fn known(&self, feed: FeedId, at: HeadRef) -> Option<Said> {
        let store = self.node.store();
        let no = store.feed_no(&feed);
        let head = no.and_then(|no| store.head(no, at.epoch, at.size).ok().flatten());
        if head.as_ref().is_some_and(|head| head.at() != at) {
            return None;
        }
        let mut known = head.as_ref().map(Said::kept).unwrap_or_default();
        if let Some(waiting) = self.beside.waiting.get(&feed)
            && waiting.at == at
        {
            known.merge(waiting.said.clone());
        }
        Some(known)
    }

    /// This node's own cosignature goes beside the head, where that is held.
    pub(super) fn beside_own(&mut self, feed: FeedId, at: HeadRef, line: Bytes, now: UnixMillis) {
        let Ok(parsed) = SignatureLine::parse(&line) else {
            return;
        };
        if self.node.store().feed_no(&feed).is_none() {
            return;
        }
        let mut said = Said::default();
        let word = (now.0 / 1_000, line);
        said.cosignatures.insert(parsed.name, word);
        match self.keep(feed, at, said) {
            Ok(None) => {}
            Ok(Some(early)) => self.beside.wait(feed, at, early),
            Err(error) => {
                tracing::error!(%error, code = error.code(), "keeping an own cosignature");
            }
        }
    }

    /// A head took effect: what waited for it is kept beside it.
    pub(super) fn beside_applied(&mut self, feed: FeedId, rank: (u32, u64)) {
        if let Some((at, said)) = self.beside.take(feed, rank)
            && let Err(error) = self.keep(feed, at, said)
        {
            tracing::error!(%error, code = error.code(), "keeping cosignatures");
        }
    }

    /// Keeps what was said beside a head that the store has; gives it back where it
    /// has none of that size. ⚠ Beside that very head alone.
    fn keep(&self, feed: FeedId, at: HeadRef, new: Said) -> Result<Option<Said>, NodeError> {
        let store = self.node.store();
        let Some(no) = store.feed_no(&feed) else {
            return Ok(Some(new));
        };
        let Some(mut head) = store.head(no, at.epoch, at.size)? else {
            return Ok(Some(new));
        };
        if head.at() != at {
            // Another root of that size: the fork is told elsewhere.
            return Ok(None);
        }
        let mut said = Said::kept(&head);
        if !said.merge(new) {
            return Ok(None);
        }
        let lines = said.cosignatures.into_values().map(|(_, line)| line);
        head.cosignatures = lines.collect();
        match store.put_head(no, &head) {
            // The same, found out meanwhile.
            Err(StoreError::HeadMismatch { .. }) => Ok(None),
            Err(error) => Err(error.into()),
            Ok(()) => {
                self.node.cosignatures_changed(&feed);
                self.node.hub().tell(Change::Head(feed));
                Ok(None)
            }
        }
    }
}

impl Beside {
    fn wait(&mut self, feed: FeedId, at: HeadRef, said: Said) {
        let mut waiting = self.remove(feed).filter(|held| rank(held.at) >= rank(at));
        match &mut waiting {
            Some(held) if held.at == at => {
                held.said.merge(said);
            }
            Some(_) => {}
            None => waiting = Some(Waiting { at, said }),
        }
        let Some(waiting) = waiting else { return };
        let bytes = waiting.said.bytes();
        if self.bytes.saturating_add(bytes) <= WAITING_MAX_BYTES {
            self.bytes = self.bytes.saturating_add(bytes);
            self.waiting.insert(feed, waiting);
        }
    }

    /// What waits for a head that took effect. ⚠ An earlier one may do so meanwhile:
    /// what waits for a later one goes on waiting.
    fn take(&mut self, feed: FeedId, applied: (u32, u64)) -> Option<(HeadRef, Said)> {
        if rank(self.waiting.get(&feed)?.at) > applied {
            return None;
        }
        let waiting = self.remove(feed)?;
        (rank(waiting.at) == applied).then_some((waiting.at, waiting.said))
    }

    fn remove(&mut self, feed: FeedId) -> Option<Waiting> {
        let waiting = self.waiting.remove(&feed)?;
        self.bytes = self.bytes.saturating_sub(waiting.said.bytes());
        Some(waiting)
    }
}

const fn rank(at: HeadRef) -> (u32, u64) {
    (at.epoch, at.size)
}

/// What an announcement says beside a head, not verified: of each witness and each node
/// the newest word, where it is newer than what is known. ⚠ Whoever announces says the
/// same as often as it likes; it costs a signature check once.
fn claimed(announced: &types::Head, known: &Said) -> (Said, Vec<Rejection>) {
    let mut said = Said::default();
    let mut refused = Vec::new();
    for line in announced.cosignatures.iter().take(COSIGNATURES_MAX) {
        if refused.len() >= REFUSED_MAX {
            return (said, refused);
        }
        match cosigned(line) {
            Some((name, time_s)) => {
                let mut one = Said::default();
                one.cosignatures.insert(name, (time_s, line.clone()));
                said.merge(one);
            }
            None => refused.push(Rejection::malformed("cosignature", "no signature line")),
        }
    }
    said.drop_known(known);
    (said, refused)
}

/// Verifies what stands beside a head; answers what holds, and why the rest does not.
fn verify(
    node: &Node,
    claimed: &Said,
    head: &Verified<SignedCheckpoint>,
) -> (Said, Vec<Rejection>) {
    let mut said = Said::default();
    let mut refused = Vec::new();
    if claimed.is_empty() {
        return (said, refused);
    }
    let body = Note::parse(&head.note).map(|note| note.text);
    let witnesses = WitnessKeys::of(node);
    for (_, line) in claimed.cosignatures.values() {
        if refused.len() >= REFUSED_MAX {
            return (said, refused);
        }
        let body = body.as_deref().unwrap_or_default();
        match witnesses.verify(body, line) {
            Ok((name, time_s)) => {
                said.cosignatures.insert(name, (time_s, line.clone()));
            }
            Err(rejection) => refused.push(rejection),
        }
    }
    (said, refused)
}

#[cfg(test)]
mod tests {
    use hashpact_core::id::Digest;

    use super::*;

    fn announced(cosignatures: Vec<Bytes>) -> types::Head {
        types::Head {
            feed: FeedId(Digest([1; 32])),
            publisher: hashpact_core::id::MemberNumber::new(1).unwrap(),
            note: Bytes::new(),
            cosignatures,
            receipts: Vec::new(),
        }
    }

    #[test]
    fn one_word_of_each_witness_is_looked_at_however_often_it_is_said() {
        let signature = [7_u64.to_be_bytes().to_vec(), vec![0; 64]].concat();
        let line = SignatureLine {
            name: "witness".to_owned(),
            key_id: [1; 4],
            signature,
        };
        let line = Bytes::from(line.format());
        let said = announced(vec![line; 300]);
        let (claimed, refused) = claimed(&said, &Said::default());
        assert_eq!((claimed.cosignatures.len(), refused.len()), (1, 0));
        // Once it is known, none of it is.
        let (again, _) = super::claimed(&said, &claimed);
        assert!(again.is_empty());
    }

    #[test]
    fn what_is_no_signature_ends_what_is_looked_at() {
        let said = announced(vec![Bytes::from_static(b"\xff"); 100]);
        let (claimed, refused) = claimed(&said, &Said::default());
        assert_eq!((claimed.is_empty(), refused.len()), (true, REFUSED_MAX));
    }

    fn at(size: u64) -> HeadRef {
        HeadRef {
            epoch: 0,
            size,
            root: hashpact_core::id::Digest::of(b"root"),
        }
    }

    #[test]
    fn what_waits_for_a_head_outlives_an_earlier_one_and_no_later_one() {
        let (feed, mut beside) = (FeedId(Digest([1; 32])), Beside::default());
        let line = || {
            let mut said = Said::default();
            let word = (7, Bytes::from_static(b"a line"));
            said.cosignatures.insert("witness".to_owned(), word);
            said
        };
        beside.wait(feed, at(60), line());
        assert!(beside.take(feed, (0, 40)).is_none());
        assert!(beside.take(feed, (0, 60)).is_some());
        assert!(beside.take(feed, (0, 60)).is_none());
        beside.wait(feed, at(60), line());
        assert!(beside.take(feed, (0, 80)).is_none());
        assert_eq!((beside.waiting.len(), beside.bytes), (0, 0));
    }
}
