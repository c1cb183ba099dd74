//! Whether there is room for what peers send: on the disk, and within what one
//! publisher may take of it.
//!
//! Without room a feed that is held goes on as records, and what it retracts takes
//! effect; one of which no head took effect yet is not pulled. What was left out is
//! asked for again once there is room. Looked at twice a second by the driver; desks
//! read what it found.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashpact_core::id::{FeedId, MemberNumber};
use hashpact_core::puller::Event;
use hashpact_core::reject::Rejection;
use hashpact_store::quarantine::Reason;
use hashpact_store::{Room, Space};

use super::driver::Driver;
use super::standing::spans;

/// How much over its bound a publisher's feeds may go as records: a quarter. Then they
/// are not pulled at all.
const OVER_PART: u64 = 4;
/// How much below it they must be again before they are taken whole: an eighth.
const BACK_PART: u64 = 8;

/// What there is room for.
#[derive(Debug)]
pub(crate) struct Rooms {
    publisher_max_bytes: u64,
    found: Mutex<Found>,
}

#[derive(Debug)]
struct Found {
    disk: Room,
    space: Option<Space>,
    /// Publishers for whom there is not room for everything, with what they take.
    full: BTreeMap<MemberNumber, (Room, u64)>,
}

impl Rooms {
    pub(crate) fn new(publisher_max_bytes: u64) -> Arc<Self> {
        let found = Found {
            disk: Room::Ample,
            space: None,
            full: BTreeMap::new(),
        };
        Arc::new(Self {
            publisher_max_bytes,
            found: Mutex::new(found),
        })
    }

    /// What there is room for of a publisher.
    pub(crate) fn of(&self, publisher: MemberNumber) -> Room {
        let found = self.found();
        let own = found
            .full
            .get(&publisher)
            .map_or(Room::Ample, |full| full.0);
        own.max(found.disk)
    }

    /// Why there is not room for everything of a publisher.
    pub(super) fn why(&self, publisher: MemberNumber) -> Option<Rejection> {
        let found = self.found();
        if let (true, Some(space)) = (found.disk > Room::Ample, found.space) {
            return Some(Rejection::DiskLow {
                free: space.free_bytes,
                min: space.min_bytes,
            });
        }
        let (_, bytes) = found.full.get(&publisher)?;
        Some(Rejection::PublisherCap {
            bytes: *bytes,
            limit: self.publisher_max_bytes,
        })
    }

    /// Takes in what was measured; answers whether there is room for other things
    /// than before.
    fn measured(&self, (disk, space): (Room, Space), bytes: &BTreeMap<MemberNumber, u64>) -> bool {
        let mut found = self.found();
        let full: BTreeMap<_, _> = bytes
            .iter()
            .map(|(publisher, bytes)| {
                let before = found.full.get(publisher).map_or(Room::Ample, |full| full.0);
                (*publisher, (self.within(*bytes, before), *bytes))
            })
            .filter(|(_, (room, _))| *room > Room::Ample)
            .collect();
        let rooms = |full: &BTreeMap<MemberNumber, (Room, u64)>| {
            let rooms = full
                .iter()
                .map(|(publisher, (room, _))| (*publisher, *room));
            rooms.collect::<Vec<_>>()
        };
        let changed = disk != found.disk || rooms(&full) != rooms(&found.full);
        *found = Found {
            disk,
            space: Some(space),
            full,
        };
        changed
    }

    const fn within(&self, bytes: u64, before: Room) -> Room {
        let max = self.publisher_max_bytes;
        let back = match before {
            Room::Ample => 0,
            Room::RecordsOnly | Room::Nothing => max / BACK_PART,
        };
        if bytes >= max.saturating_add(max / OVER_PART) {
            Room::Nothing
        } else if bytes >= max.saturating_sub(back) {
            Room::RecordsOnly
        } else {
            Room::Ample
        }
    }

    fn disk(&self) -> (Room, Option<Space>) {
        let found = self.found();
        (found.disk, found.space)
    }

    fn full(&self) -> BTreeMap<MemberNumber, (Room, u64)> {
        self.found().full.clone()
    }

    fn found(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Driver {
    /// Measures, and does what follows: feeds that there is no room for are not
    /// pulled, what was left out for want of it is asked for again.
    pub(super) fn look_at_room(&mut self) {
        let store = self.node.store();
        let (disk, space) = match store.room() {
            Ok(measured) => measured,
            Err(error) => {
                tracing::error!(%error, code = error.code(), "measuring the store's volume");
                return;
            }
        };
        let before = self.rooms.disk().0;
        if !self
            .rooms
            .measured((disk, space), &store.bytes_by_publisher())
        {
            return;
        }
        self.say_room(before);
        self.access_changed();
        let feeds: Vec<(FeedId, MemberNumber)> = {
            let feeds = self.publishers.iter();
            feeds.map(|(feed, publisher)| (*feed, *publisher)).collect()
        };
        for (feed, publisher) in feeds {
            self.show_room(feed, publisher);
        }
        self.ask_for_left_out();
    }

    /// Whether a publisher's feed may be pulled, for all that there is room for.
    pub(super) fn has_room(&self, feed: FeedId, publisher: MemberNumber) -> bool {
        match self.rooms.of(publisher) {
            Room::Ample => true,
            // PROTOCOL 18.2: nothing is held of it that a retraction could be of.
            Room::RecordsOnly => self
                .held_feed(&feed)
                .is_some_and(|held| held.own || held.applied.is_some()),
            Room::Nothing => false,
        }
    }

    /// Shows on the board why a feed is not pulled, or not whole.
    pub(super) fn show_room(&self, feed: FeedId, publisher: MemberNumber) {
        let own = self.held_feed(&feed).is_some_and(|held| held.own);
        match self.rooms.why(publisher) {
            Some(rejection) if !own => {
                let name = self.node.member(publisher);
                let name = name.map_or_else(String::new, |member| member.slug.to_string());
                self.rejections.note(&name, Some(feed), &rejection);
                self.board
                    .feed(feed, |row| rejection.code().clone_into(&mut row.last_error));
            }
            Some(_) | None => self.board.feed(feed, |row| {
                if matches!(row.last_error.as_str(), "disk_low" | "publisher_cap") {
                    row.last_error.clear();
                }
            }),
        }
    }

    /// Asks for what was left out of feeds that there is room for.
    fn ask_for_left_out(&mut self) {
        for no in self.node.store().feeds_waiting(Reason::NoRoom) {
            let Ok(feed) = self.node.store().feed(no) else {
                continue;
            };
            if self.rooms.of(feed.publisher) > Room::Ample {
                continue;
            }
            match self.node.store().elisions(no) {
                Ok(elisions) => self.tell(Event::LeftOut {
                    feed: feed.id,
                    missing: spans(&elisions.no_room),
                }),
                Err(error) => {
                    tracing::error!(%error, code = error.code(), "looking for leaves left out");
                }
            }
        }
    }

    fn say_room(&self, before: Room) {
        let (room, space) = self.rooms.disk();
        let free = space.map_or(0, |space| space.free_bytes);
        match room {
            same if same == before => {}
            Room::Ample => tracing::info!(free, "the store's volume has room"),
            Room::RecordsOnly => tracing::warn!(
                free,
                code = "disk_low",
                "the store's volume is short of room: no new entries are taken, retractions are"
            ),
            Room::Nothing => tracing::error!(
                free,
                code = "disk_low",
                "the store's volume is nearly full: nothing is pulled any more"
            ),
        }
        let full = self.rooms.full();
        let names: Vec<String> = full
            .keys()
            .filter_map(|publisher| Some(self.node.member(*publisher)?.slug.to_string()))
            .collect();
        let notice = (!names.is_empty()).then(|| {
            format!(
                "publishers at federation.limits.publisher_max_mib, of whom no new entries are \
                 taken (publisher_cap): {}",
                names.join(", ")
            )
        });
        if let Some(notice) = &notice {
            tracing::warn!(code = "publisher_cap", "{notice}");
        }
        self.node.set_notice("publisher room", notice);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn publisher(number: u32) -> MemberNumber {
        MemberNumber::new(number).unwrap()
    }

    #[test]
    fn a_publisher_over_its_bound_is_taken_as_records_and_far_over_it_not_at_all() {
        let rooms = Rooms::new(1_000);
        let ample = Space {
            free_bytes: GIB,
            min_bytes: 0,
        };
        let disk = (Room::Ample, ample);
        let take = |bytes| rooms.measured(disk, &BTreeMap::from([(publisher(1), bytes)]));
        assert!(!take(999));
        assert_eq!(rooms.of(publisher(1)), Room::Ample);
        assert!(take(1_000));
        assert_eq!(rooms.of(publisher(1)), Room::RecordsOnly);
        assert_eq!(rooms.of(publisher(2)), Room::Ample, "of others everything");
        assert!(take(1_250));
        assert_eq!(rooms.of(publisher(1)), Room::Nothing);
        assert_eq!(rooms.why(publisher(1)).unwrap().code(), "publisher_cap");
        assert!(take(900));
        assert_eq!(rooms.of(publisher(1)), Room::RecordsOnly, "not yet");
        assert!(take(874));
        assert_eq!(rooms.of(publisher(1)), Room::Ample);
    }

    #[test]
    fn a_disk_without_room_has_none_for_anybody() {
        let rooms = Rooms::new(u64::MAX);
        let low = Space {
            free_bytes: 1,
            min_bytes: 2,
        };
        assert!(rooms.measured((Room::RecordsOnly, low), &BTreeMap::new()));
        assert_eq!(rooms.of(publisher(1)), Room::RecordsOnly);
        assert_eq!(rooms.why(publisher(1)).unwrap().code(), "disk_low");
    }
}
