//! What is let in of what others announce, and when: the real inbox' rates, by virtual
//! time. Whoever says more waits in its stream, and so does what it says after.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use governor::clock::FakeRelativeClock;

use super::calls::Message;
use super::sessions::SessionId;
use super::world::{Due, World};
use crate::exchange::inbox::{Rates, Said};
use crate::types::Announcement;
use crate::{codec, convert, wire};

/// What a stream takes beyond what is let in: then its sender waits.
const WINDOW_BYTES: usize = 64 * 1024;

/// One end of a session.
type Place = (SessionId, usize);

/// The rates of every member's inbox, and what waits before them.
pub(crate) struct Pacing {
    clock: FakeRelativeClock,
    /// The time that the clock tells, in milliseconds.
    told: u64,
    heads: (u32, u32),
    documents: (u32, u32),
    inboxes: BTreeMap<usize, Rates<FakeRelativeClock>>,
    waiting: BTreeMap<Place, Waiting>,
    /// How much each member let in of each other.
    let_in: BTreeMap<(usize, usize), u64>,
}

#[derive(Default)]
struct Waiting {
    said: VecDeque<Bytes>,
    bytes: usize,
}

impl Pacing {
    /// So many heads, and documents, of each member in a second and at once.
    pub(crate) fn new(heads: (u32, u32), documents: (u32, u32)) -> Self {
        Self {
            clock: FakeRelativeClock::default(),
            told: 0,
            heads,
            documents,
            inboxes: BTreeMap::new(),
            waiting: BTreeMap::new(),
            let_in: BTreeMap::new(),
        }
    }

    /// Announcements that one member let in of another, since the beginning.
    #[cfg(test)]
    pub(crate) const fn let_in(&self) -> &BTreeMap<(usize, usize), u64> {
        &self.let_in
    }

    fn follow(&mut self, now: u64) {
        let passed = now.saturating_sub(self.told);
        self.clock.advance(Duration::from_millis(passed));
        self.told = self.told.saturating_add(passed);
    }

    fn inbox(&mut self, at: usize) -> &Rates<FakeRelativeClock> {
        let (clock, heads, documents) = (&self.clock, self.heads, self.documents);
        let new = || Rates::new(heads, documents, clock.clone());
        self.inboxes.entry(at).or_insert_with(new)
    }

    /// Whether a sender has to wait before it says more to an end.
    pub(super) fn is_full(&self, place: Place) -> bool {
        let waiting = self.waiting.get(&place);
        waiting.is_some_and(|waiting| waiting.bytes >= WINDOW_BYTES)
    }

    /// A session is over, and with it what waited.
    pub(super) fn forget(&mut self, place: Place) {
        self.waiting.remove(&place);
    }

    fn put(&mut self, place: Place, bytes: Bytes, first: bool) {
        let waiting = self.waiting.entry(place).or_default();
        waiting.bytes = waiting.bytes.saturating_add(bytes.len());
        if first {
            waiting.said.push_front(bytes);
        } else {
            waiting.said.push_back(bytes);
        }
    }

    fn take(&mut self, place: Place) -> Option<Bytes> {
        let waiting = self.waiting.get_mut(&place)?;
        let bytes = waiting.said.pop_front();
        match &bytes {
            Some(bytes) => waiting.bytes = waiting.bytes.saturating_sub(bytes.len()),
            None => drop(self.waiting.remove(&place)),
        }
        bytes
    }
}

impl World {
    /// Something that was announced arrives at an end.
    pub(super) fn said(&mut self, session: SessionId, end: usize, bytes: Bytes) {
        let place = (session, end);
        if self.pacing.waiting.contains_key(&place) {
            self.pacing.put(place, bytes, false);
        } else {
            self.let_in(place, bytes);
        }
    }

    /// What waited is let in again.
    pub(super) fn resume(&mut self, session: SessionId, end: usize) -> Option<usize> {
        let place = (session, end);
        let (who, _) = self.end_of(session, end)?;
        self.set_clock(who.at);
        while let Some(bytes) = self.pacing.take(place) {
            if !self.let_in(place, bytes) {
                break;
            }
        }
        Some(who.at)
    }

    /// Lets one announcement in, or has it wait; answers whether it is in.
    fn let_in(&mut self, (session, end): Place, bytes: Bytes) -> bool {
        let read = codec::decoded::<wire::Announcement>(bytes.clone());
        let announcement = match read.and_then(convert::announcement) {
            Ok(Some(announcement)) => announcement,
            Ok(None) => return true,
            Err(rejection) => {
                self.hear(session, end, Said::Refused(rejection));
                return true;
            }
        };
        let Some((who, met)) = self.end_of(session, end) else {
            return true;
        };
        self.pacing.follow(self.now);
        let taken = self.pacing.inbox(who.at).take(met.member, &announcement);
        if let Err((wait, rejection)) = taken {
            self.hear(session, end, Said::Slowed(rejection));
            self.pacing.put((session, end), bytes, true);
            let ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            self.later(ms.saturating_add(1), Due::Resume(session, end));
            return false;
        }
        let way = self.way(session, end);
        if let Some(way) = way {
            let count = self.pacing.let_in.entry((way.at, way.other)).or_default();
            *count = count.saturating_add(1);
        }
        if self.meddle(way, true, |m, way, _| m.hears(way, &announcement)) {
            self.hear(session, end, Said::Announced(announcement));
        }
        true
    }

    /// An end announces this very thing, if its stream is not full.
    pub(crate) fn say_plainly(&mut self, session: SessionId, end: usize, said: Announcement) {
        use super::sessions::{CALLEE, CALLER};
        if !self.pacing.is_full((session, CALLER + CALLEE - end)) {
            let said = super::calls::encoded(&wire::Announcement::from(said));
            self.send(session, end, Message::Said(said));
        }
    }
}
