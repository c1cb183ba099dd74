//! What others are told of a mute: a negative opinion on the entries that it is about.
//!
//! Only of entries of others, only of so many that a person has meant them all, and only
//! where this member has said nothing of them itself. It is taken back when the mute
//! ends, unless it was changed since.
//!
//! What is told is noted with the mute before it is said, and struck out after it was taken
//! back: a crash in between leaves more noted than stands. What a store that was restored
//! knows no mute of is found by how it is said, and taken back after the start.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use hashpact_core::id::FeedId;
use hashpact_core::leaf::{self, Leaf, Opinion, Reason, Stance, Subject};
use hashpact_store::{FeedInfo, FeedKind, FeedNo, Mute, MuteSubject, MuteTold};

use super::mutes::MuteOf;
use crate::error::NodeError;
use crate::model::Saying;
use crate::node::Node;
use crate::views;

/// Entries that one mute tells of.
pub const TELL_MAX: usize = 64;
/// Leaves of a set that are looked through for them.
const LOOKED_MAX: u64 = 65_536;
/// How sure such an opinion is: somebody is looking into it.
const CONFIDENCE: u8 = 50;
/// What is said with it. The case stays here.
const NOTE: &str = "muted at this member while it is looked into";

/// Of what: feed, first index, and of which kind of signal.
type Told = (FeedId, u64, Option<u32>);

impl Node {
    /// What is to be told of a mute, for a reason. Blocking.
    ///
    /// # Errors
    /// [`NodeError::Misuse`] for a reason that is none for a negative opinion; as
    /// [`concerned`](Self::concerned).
    pub(super) fn to_tell(
        &self,
        reason: &Reason,
        of: &MuteOf,
        leaves: &[(FeedNo, u64)],
        subject: &MuteSubject,
    ) -> Result<MuteTold, NodeError> {
        if !reason.stances.contains(&Stance::Negative) {
            return Err(NodeError::Misuse(format!(
                "{} is no reason for a negative opinion; hashpact opine --reasons lists those",
                reason.name
            )));
        }
        Ok(MuteTold {
            reason_id: reason.id,
            entries: self.concerned(of, leaves, subject)?,
        })
    }

    /// Says it, in the place of what was told with the mute before; answers whether
    /// anybody else may read it. Blocking.
    ///
    /// # Errors
    /// What the store answers; a set that is closed for publishing.
    pub(super) fn tell(&self, mute: &mut Mute, mut tells: MuteTold) -> Result<bool, NodeError> {
        if let Some(before) = &mute.told {
            let mut old = before.entries.clone();
            if before.reason_id == tells.reason_id {
                old.retain(|entry| !tells.entries.contains(entry));
            }
            self.take_back(&mute.subject, &old)?;
        }
        self.note_told(mute, Some(tells.clone()))?;
        let (subjects, says) = (subjects(&tells.entries), saying(&tells)?);
        let said = self.publisher().opine_on_all(&subjects, &says, NOTE)?;
        if said.stands.len() < subjects.len() {
            let stands: BTreeSet<Told> = said.stands.iter().filter_map(told_of).collect();
            tells.entries = stands.into_iter().collect();
            let any = !tells.entries.is_empty();
            self.note_told(mute, any.then_some(tells))?;
        }
        Ok(said.granted)
    }

    /// Takes back what was told with a mute, where it is as it was said. Blocking.
    ///
    /// # Errors
    /// As [`tell`](Self::tell).
    pub(super) fn untell(&self, mute: &mut Mute) -> Result<(), NodeError> {
        let Some(told) = &mute.told else {
            return Ok(());
        };
        self.take_back(&mute.subject, &told.entries)?;
        self.note_told(mute, None)
    }

    /// Takes back what stands as told with a mute and is told with none, once after each
    /// start, as soon as it can be: the store may be a restored one. Blocking.
    ///
    /// # Errors
    /// As [`tell`](Self::tell).
    pub(super) fn untell_forgotten(&self) -> Result<(), NodeError> {
        let done = &self.desk().untold;
        if done.load(Ordering::Acquire) {
            return Ok(());
        }
        let Some(stands) = self.publisher().said_so(&is_told)? else {
            return Ok(());
        };
        let mutes = self.store().mutes()?.into_iter();
        let told = mutes.filter_map(|mute| mute.told);
        let told: BTreeSet<Told> = told.flat_map(|told| told.entries).collect();
        let mut forgotten: Vec<Told> = stands.iter().filter_map(told_of).collect();
        forgotten.retain(|entry| !told.contains(entry));
        let subjects = subjects(&forgotten);
        self.publisher().take_back_all(&subjects, &is_told)?;
        done.store(true, Ordering::Release);
        Ok(())
    }

    /// Takes back what was said of entries, where no other mute tells it still.
    fn take_back(&self, subject: &MuteSubject, entries: &[Told]) -> Result<(), NodeError> {
        let now = self.clock().now();
        let mutes = self.store().mutes()?.into_iter();
        let others = mutes.filter(|mute| mute.subject != *subject && now < mute.expires);
        let others = others.filter_map(|mute| mute.told);
        let others: BTreeSet<Told> = others.flat_map(|told| told.entries).collect();
        let entries = entries.iter().filter(|entry| !others.contains(entry));
        let entries: Vec<Told> = entries.copied().collect();
        let subjects = subjects(&entries);
        self.publisher().take_back_all(&subjects, &is_told)
    }

    fn note_told(&self, mute: &mut Mute, told: Option<MuteTold>) -> Result<(), NodeError> {
        mute.told = told;
        Ok(self.store().put_mute(mute, &[], self.clock().now())?)
    }

    /// The entries of others that a mute is about, as what is said of them. Blocking.
    ///
    /// # Errors
    /// [`NodeError::Misuse`] for none, or more than [`TELL_MAX`].
    fn concerned(
        &self,
        of: &MuteOf,
        leaves: &[(FeedNo, u64)],
        subject: &MuteSubject,
    ) -> Result<Vec<Told>, NodeError> {
        let feeds = self.store().feeds();
        let mut told = Vec::new();
        match of {
            MuteOf::Signal(_) | MuteOf::Named(_) => {
                let kind = match subject {
                    MuteSubject::Signal { kind, .. } => Some(u32::from(*kind)),
                    MuteSubject::Member(_) | MuteSubject::Set(_) => None,
                };
                for (no, index) in leaves {
                    let feed = feeds.iter().find(|feed| feed.no == *no && !feed.own);
                    let Some(feed) = feed else { continue };
                    let raw = self.store().read_leaf(*no, *index)?;
                    if let Leaf::Publish(publish) = leaf::read(&raw, *index) {
                        told.push((feed.id, publish.first_index(*index), kind));
                    }
                    check_count(told.len())?;
                }
            }
            MuteOf::Set(_) | MuteOf::Member(_) => {
                let named = |feed: &&FeedInfo| {
                    let Some(describe) = views::describe_of(feed) else {
                        return false;
                    };
                    match of {
                        MuteOf::Set(set) => describe.name == *set,
                        MuteOf::Member(slug) => describe.name.member == *slug,
                        MuteOf::Signal(_) | MuteOf::Named(_) => false,
                    }
                };
                let others = |feed: &&FeedInfo| !feed.own && feed.kind == FeedKind::HashSet;
                for feed in feeds.iter().filter(named).filter(others) {
                    let live = usize::try_from(views::live_entries(feed)).unwrap_or(usize::MAX);
                    check_count(told.len().saturating_add(live))?;
                    self.live_entries_of(feed, &mut told)?;
                }
            }
        }
        told.sort_unstable();
        told.dedup();
        if told.is_empty() {
            let why = "no other member's entry is concerned: there is nothing to tell; mute \
                       without --tell, and retract what is your own";
            return Err(NodeError::Misuse(why.to_owned()));
        }
        Ok(told)
    }

    fn live_entries_of(&self, feed: &FeedInfo, told: &mut Vec<Told>) -> Result<(), NodeError> {
        if feed.indexed > LOOKED_MAX {
            return Err(too_many());
        }
        for index in 0..feed.indexed {
            if self.store().is_dead(feed.no, index)? {
                continue;
            }
            let raw = self.store().read_leaf(feed.no, index)?;
            if let Leaf::Publish(publish) = leaf::read(&raw, index) {
                told.push((feed.id, publish.first_index(index), None));
            }
        }
        Ok(())
    }
}

fn check_count(entries: usize) -> Result<(), NodeError> {
    if entries > TELL_MAX {
        return Err(too_many());
    }
    Ok(())
}

fn too_many() -> NodeError {
    NodeError::Misuse(format!(
        "that is about more than {TELL_MAX} entries, of which nobody can have looked at each: mute \
         without --tell, and say with `hashpact opine` what is wrong with which"
    ))
}

fn saying(told: &MuteTold) -> Result<Saying, NodeError> {
    let reason = Reason::of(told.reason_id).ok_or_else(|| {
        NodeError::Misuse("the reason stands in no table: hashpact opine --reasons".to_owned())
    })?;
    Ok(Saying {
        stance: Stance::Negative,
        confidence: CONFIDENCE,
        reason,
    })
}

fn subjects(entries: &[Told]) -> Vec<Subject> {
    let subjects = entries.iter().map(|(feed, first, kind)| Subject::Entry {
        feed: *feed,
        first: *first,
        kind: *kind,
    });
    subjects.collect()
}

fn told_of(subject: &Subject) -> Option<Told> {
    match subject {
        Subject::Entry { feed, first, kind } => Some((*feed, *first, *kind)),
        Subject::OwnSignal(_) => None,
    }
}

/// Whether an opinion is as those are that are said with a mute, for whatever reason.
fn is_told(opinion: &Opinion) -> bool {
    opinion.stance == Stance::Negative && opinion.confidence == CONFIDENCE && opinion.note == NOTE
}
