//! One feed as a witness sees it: what is recorded, what peers show, what is next.

use std::collections::BTreeMap;

use super::{Action, BELOW_MS, Base, Cosigned, Extension, PACE_MS, RENEW_MS};
use crate::chunk::PinnedHead;
use crate::id::{Digest, FeedId, MemberNumber, UnixMillis};
use crate::puller::{Head, JobId, PeerId};
use crate::reject::Rejection;

/// States below the recorded one that are known to be part of it.
const KNOWN_MAX: usize = 256;
/// Peers whose heads of one feed are remembered.
const OFFERS_MAX: usize = 4_096;
/// The first wait after a peer brought no proof; twice as long each time.
const RETRY_FIRST_MS: u64 = 1_000;
/// The longest.
const RETRY_LONGEST_MS: u64 = 5 * 60 * 1_000;

/// What a peer shows.
#[derive(Debug)]
pub(super) struct Offer {
    head: Head,
    base: Base,
    holds: bool,
    failures: u32,
    not_before: UnixMillis,
}

/// What a proof is asked for.
#[derive(Debug, Clone)]
enum Aim {
    /// The head contains what is recorded, or its epoch's base.
    Extend { head: Head, from: Base, by: PeerId },
    /// What is recorded contains the head.
    Below { head: Head },
}

/// What is to be done for a feed.
#[derive(Debug)]
pub(super) enum Next {
    /// This, and then look again.
    Say(Box<Action>),
    /// Ask for a proof.
    Prove {
        peer: PeerId,
        from: u64,
        head: PinnedHead,
    },
    /// Nothing before then, or before something happens.
    Wait(Option<UnixMillis>),
}

#[derive(Debug)]
pub(super) struct Feed {
    pub(super) publisher: MemberNumber,
    /// What the record says.
    pub(super) recorded: Option<Cosigned>,
    /// The newest head with this witness's own cosignature that the record does not
    /// cover: nothing but it may be recorded next.
    pub(super) own: Option<(PeerId, Head, Base)>,
    pub(super) offers: BTreeMap<PeerId, Offer>,
    pub(super) due: Option<UnixMillis>,
    /// A record that was ordered and not confirmed.
    recording: Option<Cosigned>,
    job: Option<(JobId, PeerId, Aim)>,
    /// What was asked of whom, until the job has its name.
    asking: Option<(PeerId, Aim)>,
    /// Sizes below the recorded one, with their roots.
    known: BTreeMap<u64, Digest>,
    /// The newest epoch in which a fork was proved.
    forked: Option<u32>,
    /// Said once the next time that the feed is looked at.
    say: Vec<Action>,
    /// A state to be recorded: proved, or with nothing to prove.
    proved: Option<Cosigned>,
    signed: Option<(UnixMillis, (u32, u64, Digest))>,
    /// What was signed last was signed with another key than the one in use.
    rekeyed: bool,
    looked_below: Option<UnixMillis>,
}

impl Feed {
    pub(super) const fn new(publisher: MemberNumber) -> Self {
        Self {
            publisher,
            recorded: None,
            own: None,
            offers: BTreeMap::new(),
            due: None,
            recording: None,
            job: None,
            asking: None,
            known: BTreeMap::new(),
            forked: None,
            say: Vec::new(),
            proved: None,
            signed: None,
            rekeyed: false,
            looked_below: None,
        }
    }

    /// The record as it was read: what was ordered and not confirmed is in it, or not.
    pub(super) fn hold(&mut self, cosigned: Option<Cosigned>) {
        self.recording = None;
        self.proved = None;
        // ⚠ What is being proved is proved against the record before.
        self.job = None;
        if let Some(cosigned) = cosigned {
            self.take(cosigned);
        }
    }

    pub(super) fn recorded(&mut self) {
        if let Some(cosigned) = self.recording.take() {
            self.take(cosigned);
        }
    }

    fn take(&mut self, cosigned: Cosigned) {
        if let Some(before) = &self.recorded {
            if before.rank() > cosigned.rank() {
                return; // a record never goes back
            }
            if before.epoch != cosigned.epoch {
                self.known.clear();
            }
        }
        self.remember(cosigned.size, cosigned.root);
        let covered = |own: &(PeerId, Head, Base)| own.1.rank() <= cosigned.rank();
        if self.own.as_ref().is_some_and(covered) {
            self.own = None;
        }
        self.recorded = Some(cosigned);
    }

    fn remember(&mut self, size: u64, root: Digest) {
        self.known.insert(size, root);
        if self.known.len() > KNOWN_MAX {
            self.known.pop_first();
        }
    }

    pub(super) fn shown(&mut self, peer: PeerId, head: Head, base: Base, own: bool, holds: bool) {
        let newer = |held: &(PeerId, Head, Base)| held.1.rank() < head.rank();
        // ⚠ Its own word counts whatever the record says. One that the record covers is
        // looked at as any other.
        if own && self.ahead(&head) && self.own.as_ref().is_none_or(newer) {
            self.own = Some((peer, head.clone(), base));
        }
        let full = self.offers.len() >= OFFERS_MAX;
        match self.offers.get_mut(&peer) {
            // PROTOCOL 16.11; what a peer said of its own cosignature came before.
            Some(offer) if offer.head.rank() > head.rank() => {}
            Some(offer) => {
                offer.head = head;
                offer.base = base;
                offer.holds = holds;
            }
            None if full => {}
            None => {
                let offer = Offer {
                    head,
                    base,
                    holds,
                    failures: 0,
                    not_before: UnixMillis(0),
                };
                self.offers.insert(peer, offer);
            }
        }
    }

    /// Whether a head is not what is recorded, nor below it.
    fn ahead(&self, head: &Head) -> bool {
        self.recorded.as_ref().is_none_or(|recorded| {
            let same = recorded.state() == (head.epoch(), head.size(), head.root());
            head.rank() >= recorded.rank() && !same
        })
    }

    pub(super) const fn rekeyed(&mut self) {
        self.rekeyed = true;
    }

    pub(super) fn fork(&mut self, epoch: u32) {
        self.forked = Some(self.forked.map_or(epoch, |known| known.max(epoch)));
    }

    /// Whether nothing more is cosigned in the epoch that is recorded.
    pub(super) fn is_forked(&self) -> bool {
        let epoch = self.recorded.as_ref().map_or(0, |recorded| recorded.epoch);
        self.forked.is_some_and(|forked| forked >= epoch)
    }

    pub(super) fn begin(&mut self, job: JobId) {
        if let Some((peer, aim)) = self.asking.take() {
            self.job = Some((job, peer, aim));
        }
    }

    /// The answer to a proof that was asked for.
    pub(super) fn answered(&mut self, now: UnixMillis, job: JobId, extension: Option<Extension>) {
        let Some((_, peer, aim)) = self.job.take_if(|(id, ..)| *id == job) else {
            return;
        };
        let Some(extension) = extension else {
            if let Some(offer) = self.offers.get_mut(&peer) {
                let wait = RETRY_FIRST_MS.saturating_mul(1 << offer.failures.min(16));
                offer.failures = offer.failures.saturating_add(1);
                offer.not_before = now.plus(wait.min(RETRY_LONGEST_MS));
            }
            return;
        };
        if let Some(offer) = self.offers.get_mut(&peer) {
            offer.failures = 0;
        }
        match aim {
            Aim::Extend { head, from, by } => self.extended(head, from, by, extension),
            Aim::Below { head } => self.looked_below(&head, extension),
        }
    }

    fn extended(&mut self, head: Head, from: Base, by: PeerId, extension: Extension) {
        if extension.root == from.root {
            self.proved = Some(Cosigned::of(self.publisher, &head));
            return;
        }
        let recorded = self.recorded.as_ref();
        match recorded.filter(|recorded| recorded.epoch == head.epoch()) {
            Some(recorded) => {
                let (smaller, larger) = (recorded.note.clone(), head.note().clone());
                self.forked_by(&head, smaller, larger, extension);
            }
            // PROTOCOL 11.10: what the roster names is not in it.
            None => {
                self.fork(head.epoch());
                let rejection = Rejection::NotAnExtension { held: from.size };
                self.say.push(Action::Refuse {
                    peer: by,
                    feed: head.feed(),
                    rejection,
                });
            }
        }
    }

    fn looked_below(&mut self, head: &Head, extension: Extension) {
        if extension.root == head.root() {
            self.remember(head.size(), head.root());
        } else if let Some(recorded) = &self.recorded {
            let (smaller, larger) = (head.note().clone(), recorded.note.clone());
            self.forked_by(head, smaller, larger, extension);
        }
    }

    fn forked_by(
        &mut self,
        head: &Head,
        smaller: bytes::Bytes,
        larger: bytes::Bytes,
        extension: Extension,
    ) {
        self.fork(head.epoch());
        self.say.push(Action::Fork {
            feed: head.feed(),
            publisher: self.publisher,
            smaller,
            larger,
            extension,
        });
    }

    /// What is next.
    pub(super) fn next(&mut self, id: FeedId, now: UnixMillis) -> Next {
        if let Some(action) = self.say.pop() {
            return Next::Say(Box::new(action));
        }
        if self.recording.is_some() || self.job.is_some() {
            return Next::Wait(None);
        }
        if let Some(record) = self.record(id) {
            return Next::Say(Box::new(record));
        }
        if let Some(sign) = self.sign(id, now) {
            return Next::Say(Box::new(sign));
        }
        let paced = self.signed.map(|(at, _)| at.plus(PACE_MS));
        if let Some(at) = paced.filter(|at| *at > now) {
            return Next::Wait(Some(at));
        }
        // What is not to be signed again needs no waking for it.
        let renews = !self.is_forked() && self.own.is_none();
        let signed = self.signed.filter(|_| renews);
        let mut until = signed.map(|(at, _)| at.plus(RENEW_MS));
        let mut soonest = |at: Option<UnixMillis>| {
            until = match (until, at) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
        };
        match self.upward(now) {
            Ok(Some(next)) => return next,
            Ok(None) => {}
            Err(wait) => soonest(Some(wait)),
        }
        match self.downward(now) {
            Ok(Some(next)) => return next,
            Ok(None) => {}
            Err(wait) => soonest(Some(wait)),
        }
        Next::Wait(until)
    }

    /// ⚠ First the record, then the signature: a crash between them leaves a state that
    /// is signed later, never one that was signed and is not known.
    fn record(&mut self, id: FeedId) -> Option<Action> {
        let new = self.proved.take()?;
        // Of a feed that was found forked meanwhile nothing more is recorded.
        if self.forked.is_some_and(|forked| forked >= new.epoch) {
            return None;
        }
        self.recording = Some(new.clone());
        Some(Action::Record {
            feed: id,
            expected: self.recorded.as_ref().map(Cosigned::state),
            new,
        })
    }

    /// What is recorded is signed: once it is, and again for its freshness.
    fn sign(&mut self, id: FeedId, now: UnixMillis) -> Option<Action> {
        let recorded = self.recorded.as_ref()?;
        if self.is_forked() {
            return None;
        }
        // Of two words on one state the later counts: not within the same second.
        let renew = if self.rekeyed { PACE_MS } else { RENEW_MS };
        let fresh = self
            .signed
            .is_some_and(|(at, state)| state == recorded.state() && now.since(at) < renew);
        // Its own later word is known: this one would be older than what it said.
        if fresh || self.own.is_some() {
            return None;
        }
        self.signed = Some((now, recorded.state()));
        self.rekeyed = false;
        Some(Action::Sign {
            feed: id,
            cosigned: recorded.clone(),
        })
    }

    /// The newest head that may be cosigned next and can be proved now.
    fn upward(&mut self, now: UnixMillis) -> Result<Option<Next>, UnixMillis> {
        let mut targets: Vec<(PeerId, Head, Base)> = match &self.own {
            Some(own) => vec![own.clone()],
            None => {
                let ahead = self.offers.iter().filter(|(_, o)| self.ahead(&o.head));
                ahead
                    .map(|(by, offer)| (*by, offer.head.clone(), offer.base))
                    .collect()
            }
        };
        let open = |head: &Head| self.forked.is_none_or(|forked| forked < head.epoch());
        targets.retain(|(_, head, _)| open(head));
        targets.sort_by_key(|(_, head, _)| std::cmp::Reverse(head.rank()));
        let mut soonest: Option<UnixMillis> = None;
        for (by, head, base) in targets {
            let from = self.from(&head, base);
            // Every tree contains the empty one, and each contains itself.
            if from.size == 0 || (from.size == head.size() && from.root == head.root()) {
                self.proved = Some(Cosigned::of(self.publisher, &head));
                let record = self.record(head.feed());
                return Ok(record.map(|record| Next::Say(Box::new(record))));
            }
            let pinned = pinned(head.size(), head.root());
            match self.whom(head.rank(), now) {
                Ok(None) => {}
                Err(at) => soonest = Some(soonest.map_or(at, |known| known.min(at))),
                Ok(Some(peer)) => {
                    self.asking = Some((peer, Aim::Extend { head, from, by }));
                    return Ok(Some(Next::Prove {
                        peer,
                        from: from.size,
                        head: pinned,
                    }));
                }
            }
        }
        soonest.map_or(Ok(None), Err)
    }

    /// What a head must contain: what is recorded of its epoch, else what that begins
    /// with.
    fn from(&self, head: &Head, base: Base) -> Base {
        let recorded = self.recorded.as_ref();
        let recorded = recorded.filter(|recorded| recorded.epoch == head.epoch());
        recorded.map_or(base, |recorded| Base {
            size: recorded.size,
            root: recorded.root,
        })
    }

    /// A head below the recorded one that is not known to be part of it: two histories
    /// are found so, too, where the other is the shorter one.
    fn downward(&mut self, now: UnixMillis) -> Result<Option<Next>, UnixMillis> {
        let Some(recorded) = self.recorded.as_ref().filter(|_| !self.is_forked()) else {
            return Ok(None);
        };
        let odd = |offer: &&Offer| {
            let head = &offer.head;
            head.epoch() == recorded.epoch
                && head.size() < recorded.size
                && head.size() > 0
                && self.known.get(&head.size()) != Some(&head.root())
        };
        let Some(head) = self.offers.values().find(odd).map(|o| o.head.clone()) else {
            return Ok(None);
        };
        let next = self.looked_below.map(|at| at.plus(BELOW_MS));
        if let Some(at) = next.filter(|at| *at > now) {
            return Err(at);
        }
        let (rank, pinned) = (recorded.rank(), pinned(recorded.size, recorded.root));
        let Some(peer) = self.whom(rank, now)? else {
            return Ok(None);
        };
        self.looked_below = Some(now);
        let from = head.size();
        self.asking = Some((peer, Aim::Below { head }));
        Ok(Some(Next::Prove {
            peer,
            from,
            head: pinned,
        }))
    }

    /// A peer that holds as much, the one that failed least first; the time to try
    /// again where all of them failed lately.
    fn whom(&self, rank: (u32, u64), now: UnixMillis) -> Result<Option<PeerId>, UnixMillis> {
        let able = |offer: &Offer| {
            let (epoch, size) = offer.head.rank();
            offer.holds && epoch == rank.0 && size >= rank.1
        };
        let able = self.offers.iter().filter(|(_, offer)| able(offer));
        let ready = able.clone().filter(|(_, offer)| offer.not_before <= now);
        if let Some((peer, _)) = ready.min_by_key(|(_, offer)| offer.failures) {
            return Ok(Some(*peer));
        }
        match able.map(|(_, offer)| offer.not_before).min() {
            Some(at) => Err(at),
            None => Ok(None),
        }
    }
}

const fn pinned(size: u64, root: Digest) -> PinnedHead {
    PinnedHead { size, root }
}
