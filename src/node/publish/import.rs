//! Import: entries in, one signed head out.
//!
//! An entry is known by the set and its source reference, else by its signals.
//! The same again adds nothing; a changed one replaces all its earlier versions. Where
//! it says less than they did, it counts at the readers as a retraction (PROTOCOL 12.7):
//! the identity key signs for it where it is at hand, else so many go as need no key.
//! What is pushed counts once [`Import::finish`] has signed it, or once so many
//! entries came that a head was signed in between; until then a crash drops it and
//! the same import again does no harm.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use hashpact_core::id::{Digest, Slug, UnixMillis};
use hashpact_core::leaf::{self, Leaf, PUBLISH, Publish, RawLeaf, RetractReason};
use hashpact_core::limits::RETRACT_FREE_PER_DAY;
use hashpact_core::reject::Rejection;
use hashpact_store::{FeedInfo, Reference, Room};

use super::append::Appender;
use super::{Publisher, Session};
use crate::error::NodeError;
use crate::model::{ImportProgress, LineRejection, NewEntry, Retraction};
use crate::views;

/// Leaves under one signature of a long import: what a crash can make it say
/// again, and what bounds the memory for finding repetitions (some 60 bytes each).
const LEAVES_PER_HEAD: u64 = 12_000_000;
/// Leaves from which on appending goes on beside the rest; fewer are done sooner
/// than a thread would help.
const BESIDE_FROM_LEAVES: u64 = 16_384;

/// A running import into one set; holds the set's writer.
pub struct Import<'a> {
    publisher: &'a Publisher,
    set: Slug,
    turn: Option<Turn<'a>>,
    feed: FeedInfo,
    /// The index of the next leaf.
    next: u64,
    /// What this session appended, which the store cannot answer for yet.
    appended: HashMap<[u8; 16], Appended>,
    /// All indexes of the entries that this session replaced.
    chains: HashMap<[u8; 16], Vec<u64>>,
    /// Entries that may say less than before without the identity key.
    unsigned_left: u64,
    /// Versions that the identity key speaks for when the batch is appended.
    to_sign: BTreeSet<u64>,
    progress: ImportProgress,
    now: UnixMillis,
}

/// The session, at hand or with its writer at work elsewhere.
#[expect(
    clippy::large_enum_variant,
    reason = "an import has one, which is moved once a batch"
)]
enum Turn<'a> {
    Here(Session<'a>),
    Beside(Appender, FeedInfo),
}

/// An entry that this session appended.
#[derive(Clone, Copy)]
struct Appended {
    index: u64,
    content: [u8; 16],
}

/// What an entry is to the set.
enum Known {
    /// Nothing.
    New,
    /// Said already.
    Same,
    /// Said differently, by the leaves of these indexes; the last version, where it is
    /// at hand.
    Changed(Vec<u64>, Option<Box<Publish>>),
}

/// What comes of an entry that is handed in.
enum Step {
    Same,
    Leaf(RawLeaf),
    /// It says less than before, and the identity key is not here to say so too.
    NeedsIdentity,
}

impl Publisher {
    /// Begins an import into an own set.
    ///
    /// # Errors
    /// [`NodeError::NotFound`], [`NodeError::Misuse`] for a set of opinions,
    /// [`NodeError::PublishingClosed`], [`NodeError::DiskLow`], or another writer at work.
    pub fn import(self: &Arc<Self>, set: &Slug) -> Result<Import<'_>, NodeError> {
        let feed = self.own_set(set)?;
        if feed.kind == hashpact_store::FeedKind::Opinions {
            return Err(NodeError::Misuse(format!(
                "{set} is a set of opinions and takes no entries; hashpact opine writes to it"
            )));
        }
        self.check_room()?;
        let session = self.session(&feed)?;
        Ok(Import {
            publisher: self,
            set: set.clone(),
            feed: session.info().clone(),
            next: session.size(),
            turn: Some(Turn::Here(session)),
            appended: HashMap::new(),
            chains: HashMap::new(),
            unsigned_left: RETRACT_FREE_PER_DAY.max(views::live_entries(&feed) / 100),
            to_sign: BTreeSet::new(),
            progress: ImportProgress {
                head: feed.applied.map(|head| (head.size, head.root)),
                ..ImportProgress::default()
            },
            now: self.clock.now(),
        })
    }

    /// Refuses what can wait while there is still room for what cannot: retractions,
    /// and what the store needs to go on.
    fn check_room(&self) -> Result<(), NodeError> {
        let (room, space) = self.store.room()?;
        match room {
            Room::Ample => Ok(()),
            Room::RecordsOnly | Room::Nothing => Err(NodeError::DiskLow {
                free_mib: space.free_bytes >> 20,
                min_mib: space.min_bytes >> 20,
            }),
        }
    }
}

impl Import<'_> {
    /// Takes entries; says how far the import has come. Entries that break a rule
    /// are named in the progress, the others go on.
    ///
    /// # Errors
    /// What the store answers, or [`NodeError::DiskLow`]; then nothing that was pushed
    /// since the last head counts.
    pub fn push(&mut self, entries: Vec<NewEntry>) -> Result<ImportProgress, NodeError> {
        self.publisher.check_room()?;
        self.now = self.publisher.clock.now();
        let identities: Vec<[u8; 16]> = entries
            .iter()
            .map(|entry| hashpact_store::reference_digest(&entry.body))
            .collect();
        let held = self.held(&identities)?;
        let mut leaves = Vec::with_capacity(entries.len());
        for ((entry, identity), held) in entries.into_iter().zip(identities).zip(held) {
            self.progress.received += 1;
            let line = entry.line;
            match self.leaf(entry.body, identity, held, leaves.len()) {
                Ok(Step::Leaf(leaf)) => leaves.push(leaf),
                Ok(Step::Same) => self.progress.unchanged += 1,
                Ok(Step::NeedsIdentity) => self.needs_identity(line),
                Err(NodeError::Rejected(rejection)) => self.reject(line, &rejection),
                Err(error) => return Err(error),
            }
        }
        leaves.extend(self.signed()?);
        self.append(leaves)?;
        if self.next.saturating_sub(self.feed.stored) >= LEAVES_PER_HEAD {
            self.sign()?;
        }
        let rejected = std::mem::take(&mut self.progress.rejected);
        Ok(ImportProgress {
            rejected,
            ..self.progress.clone()
        })
    }

    /// Signs what was pushed; from here on it counts.
    ///
    /// # Errors
    /// What the store or the sign-state file answer.
    pub fn finish(mut self) -> Result<ImportProgress, NodeError> {
        self.sign()?;
        Ok(self.progress)
    }

    /// What the set held of these entries when the session began.
    fn held(&self, identities: &[[u8; 16]]) -> Result<Vec<Option<Reference>>, NodeError> {
        if self.feed.counts.publish == 0 {
            return Ok(vec![None; identities.len()]);
        }
        let store = &self.publisher.store;
        Ok(store.lookup_refs(self.feed.no, identities)?)
    }

    fn append(&mut self, leaves: Vec<RawLeaf>) -> Result<(), NodeError> {
        self.next += u64::try_from(leaves.len()).unwrap_or(0);
        let many = self.next.saturating_sub(self.feed.stored) >= BESIDE_FROM_LEAVES;
        let turn = match self.turn.take() {
            Some(Turn::Here(session)) if many => {
                let (writer, info) = session.into_writer();
                Some(Turn::Beside(Appender::start(writer)?, info))
            }
            turn => turn,
        };
        match self.turn.insert(turn.ok_or_else(no_writer)?) {
            Turn::Here(session) => session.append(&leaves).map(|_| ()),
            Turn::Beside(appender, _) => appender.append(leaves),
        }
    }

    fn sign(&mut self) -> Result<(), NodeError> {
        let session = match self.turn.take().ok_or_else(no_writer)? {
            Turn::Here(session) => session,
            Turn::Beside(appender, info) => {
                Session::resume(self.publisher, appender.finish()?, info)
            }
        };
        let applied = session.info().applied;
        let head = if session.size() > applied.map_or(0, |head| head.size) {
            let head = session.sign()?;
            (head.size, head.root)
        } else {
            // The feed has one writer at a time.
            drop(session);
            applied.map_or((0, Digest::of(b"")), |head| (head.size, head.root))
        };
        self.progress.head = Some(head);
        self.appended.clear();
        self.chains.clear();
        self.feed = self.publisher.own_set(&self.set)?;
        let session = self.publisher.session(&self.feed)?;
        self.next = session.size();
        self.turn = Some(Turn::Here(session));
        Ok(())
    }

    fn leaf(
        &mut self,
        mut body: Publish,
        identity: [u8; 16],
        held: Option<Reference>,
        waiting: usize,
    ) -> Result<Step, NodeError> {
        let content = hashpact_store::content_digest(&body);
        let known = self.known(identity, content, held)?;
        let index = self.next + u64::try_from(waiting).unwrap_or(0);
        body.published = self.now;
        body.replaces = match known {
            Known::Same => return Ok(Step::Same),
            Known::New => Vec::new(),
            Known::Changed(earlier, last) => {
                // What this session appended is not at hand, and was live for nobody; what
                // it replaced was.
                let was_live = earlier
                    .first()
                    .is_some_and(|first| *first < self.feed.stored);
                let says_less = last.map_or(was_live, |last| body.takes_from(&last));
                if says_less && !self.may_say_less() {
                    return Ok(Step::NeedsIdentity);
                }
                body.replaces = earlier;
                let payload = body.encode(self.publisher.salt())?;
                if says_less {
                    self.says_less(&body.replaces);
                }
                self.chains.insert(identity, body.replaces);
                self.appended.insert(identity, Appended { index, content });
                self.progress.replaced += 1;
                return Ok(Step::Leaf(RawLeaf::new(PUBLISH, payload)));
            }
        };
        let payload = body.encode(self.publisher.salt())?;
        self.appended.insert(identity, Appended { index, content });
        self.progress.added += 1;
        Ok(Step::Leaf(RawLeaf::new(PUBLISH, payload)))
    }

    const fn may_say_less(&self) -> bool {
        self.publisher.identity_key.is_some() || self.unsigned_left > 0
    }

    fn says_less(&mut self, versions: &[u64]) {
        if self.publisher.identity_key.is_some() {
            self.to_sign.extend(versions);
        } else {
            self.unsigned_left = self.unsigned_left.saturating_sub(1);
        }
    }

    /// The identity key's word for the versions of this batch that are gone.
    fn signed(&mut self) -> Result<Vec<RawLeaf>, NodeError> {
        let versions = std::mem::take(&mut self.to_sign);
        if versions.is_empty() {
            return Ok(Vec::new());
        }
        let retraction = Retraction {
            reason: RetractReason::Other,
            note: "a new version took its place".to_owned(),
            recheck: false,
            selectors: Vec::new(),
        };
        self.publisher
            .retract_leaves(&self.feed, &retraction, &versions)
    }

    fn needs_identity(&mut self, line: u64) {
        self.progress.rejected.push(LineRejection {
            line,
            code: "identity_key_needed",
            reason: "it takes away what its entry said, as so many before it did: that needs the \
                     identity key on the node (keys.identity), or waits until tomorrow"
                .to_owned(),
        });
    }

    fn known(
        &mut self,
        identity: [u8; 16],
        content: [u8; 16],
        held: Option<Reference>,
    ) -> Result<Known, NodeError> {
        if let Entry::Occupied(appended) = self.appended.entry(identity) {
            let appended = *appended.get();
            if appended.content == content {
                return Ok(Known::Same);
            }
            // Said twice and differently in one session: the later one counts, and
            // names every earlier version.
            let mut versions = self.chains.get(&identity).cloned().unwrap_or_default();
            versions.push(appended.index);
            return Ok(Known::Changed(versions, None));
        }
        match held {
            Some(held) if held.live && held.content == content => Ok(Known::Same),
            Some(held) if held.live => {
                let (versions, last) = version(self.publisher, &self.feed, held.index)?;
                Ok(Known::Changed(versions, Some(Box::new(last))))
            }
            // Retracted before: publishing it again is a new entry.
            Some(_) | None => Ok(Known::New),
        }
    }

    fn reject(&mut self, line: u64, rejection: &Rejection) {
        self.progress.rejected.push(LineRejection {
            line,
            code: rejection.code(),
            reason: rejection.to_string(),
        });
    }
}

fn no_writer() -> NodeError {
    NodeError::Internal("the import has no writer".to_owned())
}

/// All indexes of the entry whose latest version is at `latest`, ascending.
pub(super) fn versions(
    publisher: &Publisher,
    feed: &FeedInfo,
    latest: u64,
) -> Result<Vec<u64>, NodeError> {
    version(publisher, feed, latest).map(|(versions, _)| versions)
}

/// The same, and what the latest version says.
fn version(
    publisher: &Publisher,
    feed: &FeedInfo,
    latest: u64,
) -> Result<(Vec<u64>, Publish), NodeError> {
    let raw = publisher.store.read_leaf(feed.no, latest)?;
    match leaf::read(&raw, latest) {
        Leaf::Publish(publish) => {
            let mut versions = publish.replaces.clone();
            versions.push(latest);
            Ok((versions, *publish))
        }
        Leaf::Describe(_)
        | Leaf::Retract(_)
        | Leaf::Opinion(_)
        | Leaf::Erase(_)
        | Leaf::Unknown(_)
        | Leaf::Void(_)
        | Leaf::Elided => Err(NodeError::Internal(format!(
            "leaf {latest} of {} is no entry",
            feed.id
        ))),
    }
}
