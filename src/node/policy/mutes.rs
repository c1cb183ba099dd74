//! The brake: a member, a set or a signal that this node does not act on until a time.
//!
//! A mute caps a verdict at `observe`: what it is about still matches, is counted and is
//! told, and nobody acts. It is in force before the call that makes it is answered, and
//! ends by the clock, whatever else is done. A signal is muted where it is asked for and
//! where it is found near another; it is kept as a keyed digest alone.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, PoisonError};

use hashpact_core::id::{MemberNumber, SetName, Slug, UnixMillis};
use hashpact_core::leaf::audit::careful;
use hashpact_core::leaf::{self, Leaf, Reason};
use hashpact_core::limits::DAY_MS;
use hashpact_core::policy::Salt;
use hashpact_core::roster::RosterChain;
use hashpact_core::signal::{Signal, SignalKind};
use hashpact_store::{FeedNo, IndexKey, MUTES_MAX, Mute, MuteSubject};
use tracing::info;

use crate::error::NodeError;
use crate::membership::State;
use crate::node::Node;

/// Characters of a case and of who said so.
pub const CASE_MAX_CHARS: usize = 128;
/// The longest mute: what is to last longer is for the policy to say.
pub const MUTE_MAX_MS: u64 = 366 * DAY_MS;
/// Entries of one set that consumers are told again when a signal of theirs is muted.
const AGAIN_PER_FEED: usize = 1_024;
/// Leaves by which a muted signal is found again.
const KEPT_LEAVES: usize = 16;
/// What a signal's name in a list begins with; 32 hexadecimal digits follow.
const SIGNAL_NAME: &str = "signal:";

/// What is to be muted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MuteOf {
    /// All that a member publishes.
    Member(Slug),
    /// A set.
    Set(SetName),
    /// A signal.
    Signal(Signal),
    /// A signal that is muted, by its name in the list.
    Named(String),
}

/// A mute, as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MuteView {
    /// `member`, `set` or `signal`.
    pub what: &'static str,
    /// Its name: slug, `member/set`, or `signal:` and a digest that only this node makes.
    pub name: String,
    /// The kind, of a signal.
    pub kind: Option<SignalKind>,
    /// The case.
    pub case: String,
    /// Who said so.
    pub by: String,
    /// Since when.
    pub since: UnixMillis,
    /// Until when.
    pub expires: UnixMillis,
    /// Of how many entries the others are told.
    pub told: usize,
    /// Why they were not told, or not that it is over: the mute is in force, or over, all
    /// the same.
    pub not_told: Option<String>,
    /// Whether the set that they are told in is granted to nobody.
    pub unheard: bool,
}

/// What is muted, and until when.
#[derive(Debug, Default)]
pub(super) struct Mutes {
    members: HashMap<Slug, UnixMillis>,
    sets: HashMap<SetName, UnixMillis>,
    signals: HashMap<[u8; 16], UnixMillis>,
}

impl Mutes {
    pub(super) fn of(mutes: &[Mute], now: UnixMillis) -> Self {
        let mut table = Self::default();
        for mute in mutes.iter().filter(|mute| now < mute.expires) {
            let expires = mute.expires;
            match &mute.subject {
                MuteSubject::Member(slug) => {
                    table.members.insert(slug.clone(), expires);
                }
                MuteSubject::Set(set) => {
                    table.sets.insert(set.clone(), expires);
                }
                MuteSubject::Signal { digest, .. } => {
                    table.signals.insert(*digest, expires);
                }
            }
        }
        table
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty() && self.sets.is_empty() && self.signals.is_empty()
    }

    /// Whether a set is muted, or its member.
    pub(super) fn set(&self, set: &SetName, now: UnixMillis) -> bool {
        let counts = |expires: Option<&UnixMillis>| expires.is_some_and(|expires| now < *expires);
        counts(self.sets.get(set)) || counts(self.members.get(&set.member))
    }

    /// Whether a signal is muted.
    pub(super) fn signal(&self, salt: &Salt, key: &IndexKey, now: UnixMillis) -> bool {
        if self.signals.is_empty() {
            return false;
        }
        let expires = self.signals.get(&digest(salt, key));
        expires.is_some_and(|expires| now < *expires)
    }
}

/// What a signal is muted by.
fn digest(salt: &Salt, key: &IndexKey) -> [u8; 16] {
    let digest = salt.digest("mute", key);
    digest.first_chunk().copied().unwrap_or_default()
}

/// What a signal is called in lists and logs.
pub(super) fn signal_name(salt: &Salt, key: &IndexKey) -> String {
    let digest = data_encoding::HEXLOWER.encode(&digest(salt, key));
    format!("{SIGNAL_NAME}{digest}")
}

impl Node {
    /// The members that are muted, by their numbers.
    pub(crate) fn muted_members(&self, state: &State) -> BTreeSet<MemberNumber> {
        let (mutes, now) = (self.desk().mutes(), self.clock().now());
        let Some(chain) = state.chain.as_ref().filter(|_| !mutes.members.is_empty()) else {
            return BTreeSet::new();
        };
        let members = chain.roster().members.iter();
        let muted = members.filter(|member| {
            let expires = mutes.members.get(&member.slug);
            expires.is_some_and(|expires| now < *expires)
        });
        muted.map(|member| member.number).collect()
    }

    /// Mutes something until `expires`, in the place of a mute of the same; in force once
    /// this returns. Blocking.
    ///
    /// # Errors
    /// [`NodeError::Misuse`] without a case, with an end that has passed or lies too far
    /// ahead, or for a set or member that nobody knows here; what the store answers.
    pub fn mute(
        &self,
        of: &MuteOf,
        case: &str,
        by: &str,
        expires: UnixMillis,
    ) -> Result<MuteView, NodeError> {
        self.mute_and_tell(of, case, by, expires, None)
    }

    /// The same, and tells the others: a negative opinion, for a reason, on the entries of
    /// others that it is about. A mute of the same that was told stays told. Blocking.
    ///
    /// # Errors
    /// As [`mute`](Self::mute); [`NodeError::Misuse`] where it is about no entry of
    /// others, or too many, before anything is muted. Where only the telling fails the
    /// answer says so.
    pub fn mute_and_tell(
        &self,
        of: &MuteOf,
        case: &str,
        by: &str,
        expires: UnixMillis,
        tell: Option<&Reason>,
    ) -> Result<MuteView, NodeError> {
        let view = self.put_mute(of, case, by, expires, tell)?;
        // What it disputed alone is not disputed any more.
        self.recheck_conflicts();
        Ok(view)
    }

    fn put_mute(
        &self,
        of: &MuteOf,
        case: &str,
        by: &str,
        expires: UnixMillis,
        tell: Option<&Reason>,
    ) -> Result<MuteView, NodeError> {
        let desk = self.desk();
        let _turn = desk.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock().now();
        let misuse = |why: &str| Err(NodeError::Misuse(why.to_owned()));
        if case.trim().is_empty() || case.chars().count() > CASE_MAX_CHARS {
            return misuse("a mute names its case, in at most 128 characters");
        }
        if careful(case) != case {
            return misuse(
                "the case has what may be a signal's value (16 hexadecimal digits or more, or 22 \
                 characters without a space), and it is kept as it stands: name the ticket alone, \
                 shorter",
            );
        }
        if expires <= now {
            return misuse("the mute ends before it begins");
        }
        if expires.since(now) > MUTE_MAX_MS {
            return misuse("a mute lasts a year at most; for longer write a rule of the policy");
        }
        self.check_known(of)?;
        let Some(subject) = self.subject(of) else {
            return misuse("no signal of this name is muted; give its value");
        };
        let mutes = self.store().mutes()?;
        let known = mutes.iter().find(|mute| mute.subject == subject);
        if mutes.len() >= MUTES_MAX && known.is_none() {
            return misuse("10,000 are muted already: a rule of the policy is for so many");
        }
        let leaves = self.leaves_of(of)?;
        let tells = tell.map(|reason| self.to_tell(reason, of, &leaves, &subject));
        let tells = tells.transpose()?;
        let mut mute = Mute {
            told: known.and_then(|mute| mute.told.clone()),
            subject,
            case: case.to_owned(),
            by: by.chars().take(CASE_MAX_CHARS).collect(),
            since: now,
            expires,
            leaves: leaves.iter().take(KEPT_LEAVES).copied().collect(),
        };
        // The brake first. What was told before stays noted until it is taken back.
        self.store().put_mute(&mute, &leaves, now)?;
        self.take_mutes()?;
        let was_over = known.is_some_and(|mute| mute.expires <= now);
        let told = match tells {
            Some(tells) => self.tell(&mut mute, tells),
            // What a mute that is over said is no word of this one.
            None if was_over => self.untell(&mut mute).map(|()| true),
            None => Ok(true),
        };
        let mut view = view(&mute);
        match told {
            Ok(heard) => view.unheard = !heard,
            Err(error) => {
                view.told = if tell.is_some() { 0 } else { view.told };
                view.not_told = Some(error.to_string());
            }
        }
        info!(what = view.what, name = view.name, "muted");
        Ok(view)
    }

    /// Ends a mute; in force once this returns. Blocking.
    ///
    /// # Errors
    /// [`NodeError::NotFound`]; what the store answers.
    pub fn unmute(&self, of: &MuteOf) -> Result<MuteView, NodeError> {
        let desk = self.desk();
        let _turn = desk.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let subject = self.subject(of);
        let mutes = self.store().mutes()?;
        let mute = mutes
            .iter()
            .find(|mute| Some(&mute.subject) == subject.as_ref());
        let mute = mute.ok_or_else(|| NodeError::NotFound {
            what: "mute",
            name: name_of(of),
        })?;
        let now = self.clock().now();
        let leaves = self.leaves_of(of)?;
        let mut view = view(mute);
        let subjects = [mute.subject.clone()];
        if mute.told.is_none() {
            self.store().remove_mutes(&subjects, &leaves, now)?;
            self.take_mutes()?;
        } else {
            // It ends at once; what was said with it may take another attempt.
            let mut ended = mute.clone();
            ended.expires = now;
            self.store().put_mute(&ended, &leaves, now)?;
            self.take_mutes()?;
            match self.untell(&mut ended) {
                Ok(()) => self.store().remove_mutes(&subjects, &[], now)?,
                Err(error) => view.not_told = Some(error.to_string()),
            }
        }
        info!(what = view.what, name = view.name, "no longer muted");
        Ok(view)
    }

    /// What is muted. Blocking.
    ///
    /// # Errors
    /// What the store answers.
    pub fn mutes(&self) -> Result<Vec<MuteView>, NodeError> {
        let now = self.clock().now();
        let mutes = self.store().mutes()?.into_iter();
        let stand = mutes.filter(|mute| now < mute.expires);
        Ok(stand.map(|mute| view(&mute)).collect())
    }

    /// Clears mutes away that have run out, which count for nothing since then; answers
    /// what ended. To be called from time to time. Blocking.
    ///
    /// # Errors
    /// What the store answers.
    pub fn follow_mutes(&self) -> Result<Vec<MuteView>, NodeError> {
        let desk = self.desk();
        let _turn = desk.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock().now();
        let mutes = self.store().mutes()?.into_iter();
        let mut over: Vec<Mute> = mutes.filter(|mute| mute.expires <= now).collect();
        let mut failed = None;
        over.retain_mut(|mute| match self.untell(mute) {
            Ok(()) => true,
            Err(error) => {
                failed = Some(error.to_string());
                false
            }
        });
        if let Err(error) = self.untell_forgotten() {
            failed = Some(error.to_string());
        }
        let notice = failed.map(|why| {
            format!("what was said to others with a mute that is over still stands: {why}")
        });
        self.set_notice("mutes told", notice);
        if over.is_empty() {
            return Ok(Vec::new());
        }
        let subjects: Vec<MuteSubject> = over.iter().map(|mute| mute.subject.clone()).collect();
        let mut again = Vec::new();
        for mute in &over {
            again.extend(self.leaves_again(mute)?);
        }
        self.store().remove_mutes(&subjects, &again, now)?;
        self.take_mutes()?;
        Ok(over.iter().map(view).collect())
    }

    /// Whether a set is muted, or its member.
    pub(crate) fn is_muted(&self, set: &SetName) -> bool {
        self.desk().mutes().set(set, self.clock().now())
    }

    /// Puts what the store holds in force.
    fn take_mutes(&self) -> Result<(), NodeError> {
        let table = Mutes::of(&self.store().mutes()?, self.clock().now());
        self.desk().mutes.store(Arc::new(table));
        self.following().wake();
        Ok(())
    }

    fn subject(&self, of: &MuteOf) -> Option<MuteSubject> {
        match of {
            MuteOf::Member(slug) => Some(MuteSubject::Member(slug.clone())),
            MuteOf::Set(set) => Some(MuteSubject::Set(set.clone())),
            MuteOf::Signal(signal) => Some(MuteSubject::Signal {
                kind: signal.kind().number_byte(),
                digest: digest(&self.desk().salt, &signal.index_key()),
            }),
            MuteOf::Named(name) => {
                let mutes = self.store().mutes().ok()?;
                let mut all = mutes.into_iter();
                all.find(|mute| view(mute).name == *name)
                    .map(|mute| mute.subject)
            }
        }
    }

    /// A slip in a name would mute nothing, and look as if it did.
    fn check_known(&self, of: &MuteOf) -> Result<(), NodeError> {
        match of {
            MuteOf::Set(set) => self.feed_of(set).map(drop),
            MuteOf::Member(slug) => {
                let state = self.membership().state();
                let roster = state.chain.as_ref().map(RosterChain::roster);
                let known = roster.and_then(|roster| roster.member_by_slug(slug));
                known.map(drop).ok_or_else(|| NodeError::NotFound {
                    what: "member",
                    name: slug.to_string(),
                })
            }
            MuteOf::Signal(_) | MuteOf::Named(_) => Ok(()),
        }
    }

    /// The leaves of which consumers are to be told again. Those of whole sets are, by
    /// what is said with each of their entries.
    fn leaves_of(&self, of: &MuteOf) -> Result<Vec<(FeedNo, u64)>, NodeError> {
        match of {
            MuteOf::Signal(signal) => self.leaves_with(&signal.index_key()),
            MuteOf::Member(_) | MuteOf::Set(_) => Ok(Vec::new()),
            MuteOf::Named(_) => {
                let subject = self.subject(of);
                let mut mutes = self.store().mutes()?.into_iter();
                let mute = mutes.find(|mute| Some(&mute.subject) == subject.as_ref());
                mute.map_or_else(|| Ok(Vec::new()), |mute| self.leaves_again(&mute))
            }
        }
    }

    /// The same of a mute that is kept: the signal is read from one of its leaves.
    fn leaves_again(&self, mute: &Mute) -> Result<Vec<(FeedNo, u64)>, NodeError> {
        let MuteSubject::Signal { digest: kept, .. } = &mute.subject else {
            return Ok(Vec::new());
        };
        for (no, index) in &mute.leaves {
            // It may be gone, and its feed with it.
            let Ok(raw) = self.store().read_leaf(*no, *index) else {
                continue;
            };
            let Leaf::Publish(publish) = leaf::read(&raw, *index) else {
                continue;
            };
            for signal in &publish.signals {
                let key = signal.index_key();
                if digest(&self.desk().salt, &key) == *kept {
                    return self.leaves_with(&key);
                }
            }
        }
        Ok(Vec::new())
    }

    fn leaves_with(&self, key: &IndexKey) -> Result<Vec<(FeedNo, u64)>, NodeError> {
        let found = self.store().lookup_bounded(&[*key], AGAIN_PER_FEED)?;
        let found = found.into_iter().flat_map(|found| found.postings);
        Ok(found.map(|posting| (posting.feed, posting.index)).collect())
    }
}

fn view(mute: &Mute) -> MuteView {
    let (what, name, kind) = match &mute.subject {
        MuteSubject::Member(slug) => ("member", slug.to_string(), None),
        MuteSubject::Set(set) => ("set", set.to_string(), None),
        MuteSubject::Signal { kind, digest } => (
            "signal",
            format!("{SIGNAL_NAME}{}", data_encoding::HEXLOWER.encode(digest)),
            SignalKind::from_number(u32::from(*kind)),
        ),
    };
    MuteView {
        what,
        name,
        kind,
        case: mute.case.clone(),
        by: mute.by.clone(),
        since: mute.since,
        expires: mute.expires,
        told: mute.told.as_ref().map_or(0, |told| told.entries.len()),
        not_told: None,
        unheard: false,
    }
}

/// What is said of something that is not muted; no value.
fn name_of(of: &MuteOf) -> String {
    match of {
        MuteOf::Member(slug) => slug.to_string(),
        MuteOf::Set(set) => set.to_string(),
        MuteOf::Signal(signal) => format!("of a signal of kind {}", signal.kind()),
        MuteOf::Named(name) => name.chars().take(CASE_MAX_CHARS).collect(),
    }
}
