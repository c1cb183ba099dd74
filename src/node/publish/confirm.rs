//! Who has been asked, after a start, which heads of this node's own feeds it holds.
//!
//! The whole disk may have been restored, sign-state and all, and nothing here can
//! tell. So a feed waits at every start until each peer within reach has said all that
//! it holds; ⚠ one answer is not enough, for who gives it may lie, or have been
//! restored as well. Nobody can hold it up for longer than a set time after the first
//! answer. A head that is ahead, from whomever, always wins.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use hashpact_core::id::{FeedId, MemberNumber, Slug, UnixMillis};

/// Names a node of the coalition.
pub type PeerKey = (MemberNumber, Slug);

/// Names of peers in one sentence.
const NAMES_MAX: usize = 4;

/// How a peer can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contact {
    /// It was not dialled yet, or it is connected.
    Awaited,
    /// Dialling it failed, the last time at this moment.
    Failed(UnixMillis),
    /// It cannot be dialled: it comes by itself, or not.
    Dials,
}

/// A node that may hold a newer head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskedPeer {
    /// Which.
    pub key: PeerKey,
    /// For people.
    pub name: String,
    /// How it can be asked.
    pub contact: Contact,
}

/// How the peers stand at one moment.
#[derive(Debug, Clone, Default)]
pub struct Round {
    /// Every node that a card names but this one; `None` while that is not known.
    pub peers: Option<Vec<AskedPeer>>,
    /// Heads of own feeds that were said and wait for a roster or a card to be
    /// verified by.
    pub unheard: BTreeSet<(PeerKey, FeedId)>,
    /// How long after the first answer the others are waited for.
    pub wait_ms: u64,
}

/// What a feed waits for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Awaited {
    /// Whether a peer has answered, and holds no more than this node.
    pub is_answered: bool,
    /// Peers that have yet to say what they hold.
    pub missing: Vec<String>,
    /// How long after the first answer they are waited for.
    pub wait_ms: u64,
}

impl Awaited {
    /// In words, with what to do.
    pub(super) fn reason(&self) -> String {
        let missing = self.names();
        if !self.is_answered {
            let of = if missing.is_empty() {
                String::new()
            } else {
                format!(" (asked: {missing})")
            };
            return format!(
                "no peer has said yet which head of this set it holds{of}; connect to a peer, or \
                 `hashpact set confirm-head` if none can be reached"
            );
        }
        let wait_s = self.wait_ms / 1_000;
        format!(
            "after a start all peers are asked which head of this set they hold; waiting for {missing}, \
             at most {wait_s} s from the first answer (publish.confirm_wait_s)"
        )
    }

    fn names(&self) -> String {
        let mut names: Vec<&str> = self.missing.iter().map(String::as_str).collect();
        let more = names.len().saturating_sub(NAMES_MAX);
        names.truncate(NAMES_MAX);
        let named = names.join(", ");
        if more == 0 {
            named
        } else {
            format!("{named} and {more} more")
        }
    }
}

/// What peers have said of own feeds since the node was opened.
#[derive(Debug, Default)]
pub(crate) struct Said {
    /// Peers that have said all that they hold, and when first.
    all: BTreeMap<PeerKey, UnixMillis>,
    /// Of each feed, when a peer first showed a head that is not ahead.
    answers: HashMap<FeedId, UnixMillis>,
    /// Of each feed, epoch and size of the newest head that anybody showed.
    newest: HashMap<FeedId, (u32, u64)>,
}

/// One feed that waits.
pub(crate) struct Waiting<R: Fn(MemberNumber) -> bool> {
    pub(crate) feed: FeedId,
    /// Whether anybody may read it, by the describe leaf that is held.
    pub(crate) is_granted: bool,
    /// Whether a member may.
    pub(crate) reads: R,
}

impl Said {
    pub(crate) fn all_by(&mut self, peer: &PeerKey, now: UnixMillis) {
        self.all.entry(peer.clone()).or_insert(now);
    }

    /// A peer showed a head of a feed that is not ahead.
    pub(crate) fn no_more(&mut self, feed: FeedId, now: UnixMillis) {
        self.answers.entry(feed).or_insert(now);
    }

    /// Leaves of a feed came back up to the newest head that was shown: who is missing
    /// still is waited for from here on.
    pub(super) fn leaves_came(&mut self, feed: FeedId, now: UnixMillis) {
        self.answers.insert(feed, now);
    }

    /// Notes epoch and size of a verified head of a feed.
    pub(crate) fn head(&mut self, feed: FeedId, head: (u32, u64)) {
        let newest = self.newest.entry(feed).or_default();
        *newest = head.max(*newest);
    }

    /// Epoch and size of the newest head that anybody showed.
    pub(crate) fn newest(&self, feed: &FeedId) -> (u32, u64) {
        self.newest.get(feed).copied().unwrap_or_default()
    }

    /// What a feed waits for still; `None` once it need not.
    pub(crate) fn awaits<R: Fn(MemberNumber) -> bool>(
        &self,
        waiting: &Waiting<R>,
        round: &Round,
        now: UnixMillis,
    ) -> Option<Awaited> {
        // A feed that nobody may read is shown by nobody: who says all has answered.
        let said = self.all.values().min();
        let unread = said.filter(|_| !waiting.is_granted);
        let first = self.answers.get(&waiting.feed).or(unread).copied();
        let missing = round.peers.as_ref().map(|peers| {
            let missing = peers
                .iter()
                .filter(|peer| self.is_missing(peer, waiting, round, first));
            missing.map(|peer| peer.name.clone()).collect::<Vec<_>>()
        });
        let in_time = first.is_none_or(|first| now.since(first) < round.wait_ms);
        let all_said = first.is_some() && missing.as_ref().is_some_and(Vec::is_empty);
        (in_time && !all_said).then(|| Awaited {
            is_answered: first.is_some(),
            missing: missing.unwrap_or_default(),
            wait_ms: round.wait_ms,
        })
    }

    fn is_missing<R: Fn(MemberNumber) -> bool>(
        &self,
        peer: &AskedPeer,
        waiting: &Waiting<R>,
        round: &Round,
        first: Option<UnixMillis>,
    ) -> bool {
        let unheard = || {
            let pair = (peer.key.clone(), waiting.feed);
            round.unheard.contains(&pair)
        };
        if self.all.contains_key(&peer.key) && !unheard() {
            return false;
        }
        match peer.contact {
            // ⚠ Whom the held describe leaf grants says nothing: it may be the old one.
            Contact::Awaited => true,
            // ⚠ What failed before anybody answered may have been this node's own
            // network: then the first to be back must not be the only one asked.
            Contact::Failed(at) => first.is_none_or(|first| at < first),
            Contact::Dials => (waiting.reads)(peer.key.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use hashpact_core::id::Digest;

    use super::*;

    const WAIT_MS: u64 = 60_000;
    const FEED: FeedId = FeedId(Digest([7; 32]));

    fn key(member: u32) -> PeerKey {
        (
            MemberNumber::new(member).unwrap(),
            Slug::parse("main").unwrap(),
        )
    }

    fn round(peers: &[(u32, Contact)]) -> Round {
        let peer = |(member, contact): &(u32, Contact)| AskedPeer {
            key: key(*member),
            name: format!("member-{member}/main"),
            contact: *contact,
        };
        Round {
            peers: Some(peers.iter().map(peer).collect()),
            unheard: BTreeSet::new(),
            wait_ms: WAIT_MS,
        }
    }

    fn awaits(said: &Said, round: &Round, is_granted: bool, now: u64) -> Option<Awaited> {
        let waiting = Waiting {
            feed: FEED,
            is_granted,
            reads: |member: MemberNumber| member.value() < 10,
        };
        said.awaits(&waiting, round, UnixMillis(now))
    }

    fn answered(member: u32, at: u64) -> Said {
        let mut said = Said::default();
        said.no_more(FEED, UnixMillis(at));
        said.all_by(&key(member), UnixMillis(at));
        said
    }

    #[test]
    fn the_first_answer_waits_for_those_that_are_being_asked() {
        let mut said = answered(1, 100);
        let round = round(&[(1, Contact::Awaited), (2, Contact::Awaited)]);
        let awaited = awaits(&said, &round, true, 100).unwrap();
        assert_eq!(awaited.missing, ["member-2/main"]);
        assert!(awaited.reason().contains("member-2/main"), "{awaited:?}");
        // Who may not read it says all, and shows no head of it.
        said.all_by(&key(2), UnixMillis(150));
        assert_eq!(awaits(&said, &round, true, 150), None);
    }

    #[test]
    fn nobody_holds_it_up_for_longer_than_the_wait() {
        let said = answered(1, 100);
        let round = round(&[(1, Contact::Awaited), (2, Contact::Awaited)]);
        assert!(awaits(&said, &round, true, 99 + WAIT_MS).is_some());
        assert_eq!(awaits(&said, &round, true, 100 + WAIT_MS), None);
    }

    #[test]
    fn without_an_answer_no_time_opens_it() {
        let round = round(&[(1, Contact::Failed(UnixMillis(5)))]);
        let nothing = Said::default();
        assert!(awaits(&nothing, &round, true, 1 << 40).is_some());
        let mut said = Said::default();
        said.all_by(&key(1), UnixMillis(9));
        assert!(
            awaits(&said, &round, true, 1 << 40).is_some(),
            "no head of it"
        );
        assert_eq!(awaits(&said, &round, false, 9), None, "nobody may read it");
    }

    #[test]
    fn who_is_out_of_reach_is_tried_once_more_after_the_first_answer() {
        let said = answered(1, 100);
        let before = round(&[(2, Contact::Failed(UnixMillis(99)))]);
        assert!(awaits(&said, &before, true, 200).is_some());
        let after = round(&[(2, Contact::Failed(UnixMillis(150)))]);
        assert_eq!(awaits(&said, &after, true, 200), None);
    }

    #[test]
    fn who_cannot_be_dialled_is_waited_for_if_it_reads_the_feed() {
        let said = answered(1, 100);
        let reader = round(&[(2, Contact::Dials)]);
        assert!(awaits(&said, &reader, true, 200).is_some());
        let other = round(&[(12, Contact::Dials)]);
        assert_eq!(awaits(&said, &other, true, 200), None);
    }

    #[test]
    fn a_head_that_cannot_be_verified_yet_is_waited_for() {
        let said = answered(1, 100);
        let mut round = round(&[(1, Contact::Awaited)]);
        round.unheard.insert((key(1), FEED));
        assert!(awaits(&said, &round, true, 200).is_some());
    }

    #[test]
    fn before_the_peers_are_known_nobody_has_been_asked() {
        let said = answered(1, 100);
        let unknown = Round {
            peers: None,
            ..round(&[])
        };
        assert!(awaits(&said, &unknown, true, 200).is_some());
        assert!(awaits(&said, &unknown, false, 200).is_some());
    }
}
