//! Facts for the policy: who says what of a signal, as this node sees it, and the
//! verdict.
//!
//! A judge is made for one call: policy, mutes and time are those of its beginning.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use hashpact_core::id::{FeedId, UnixMillis};
use hashpact_core::policy::{
    Evaluation, Policy, Question, Verdict, Voice, Witnessed, Word, share_of,
};
use hashpact_core::signal::Signal;

use super::InForce;
use super::floods::Held;
use super::mutes::Mutes;
use crate::error::NodeError;
use crate::model::{ExportedEntry, Found, MatchStanding, Matched};
use crate::node::Node;

/// Judges the answers of one call.
pub struct Judge<'n> {
    node: &'n Node,
    force: Arc<InForce>,
    pub(super) mutes: Arc<Mutes>,
    pub(super) floods: Arc<Held>,
    pub(super) class_conflicts_count: bool,
    pub(super) now: UnixMillis,
    surface: Option<Word>,
    region: Option<Word>,
    /// Up to which size witnesses stand behind a feed, and whether so many prevent a
    /// fork; `None` where that is unknown.
    witnessed: RefCell<HashMap<FeedId, Option<(u64, bool)>>>,
}

impl Node {
    /// Makes a judge for signals that turned up at a surface, in a region; both may be
    /// empty.
    ///
    /// # Errors
    /// [`NodeError::Misuse`] for words that are none.
    pub fn judge(&self, surface: &str, region: &str) -> Result<Judge<'_>, NodeError> {
        let word = |what: &str, text: &str| match text {
            "" => Ok(None),
            text => Word::parse(text)
                .map(Some)
                .map_err(|error| NodeError::Misuse(format!("{what}: {error}"))),
        };
        Ok(Judge {
            node: self,
            force: self.policy(),
            mutes: self.desk().mutes(),
            floods: self.desk().floods().held(),
            class_conflicts_count: self.desk().floods().options().class_conflicts_review,
            now: self.clock().now(),
            surface: word("surface", surface)?,
            region: word("region", region)?,
            witnessed: RefCell::default(),
        })
    }
}

impl Judge<'_> {
    /// The policy that it judges by.
    #[must_use]
    pub fn in_force(&self) -> &InForce {
        &self.force
    }

    /// Whether what becomes of one entry can depend on others.
    pub(crate) fn counts_members(&self) -> bool {
        self.force.policy.counts_members()
    }

    /// What becomes of a signal; `None` where nothing matches.
    ///
    /// ⚠ Whoever publishes a crowd of values around one hides what others say of it: then
    /// people are asked, whatever the crowd says or was muted to.
    #[must_use]
    pub fn verdict(&self, signal: &Signal, matched: &Matched) -> Option<Verdict> {
        let verdict = self.of_what_is_known(signal, matched);
        if matched.crowded {
            return verdict.max(Some(Verdict::Review));
        }
        verdict
    }

    fn of_what_is_known(&self, signal: &Signal, matched: &Matched) -> Option<Verdict> {
        if matched.found.is_empty() {
            return None;
        }
        let policy = &self.force.policy;
        if policy.is_plain() && self.mutes.is_empty() {
            let most = matched.found.iter();
            let most = most
                .map(|found| standing_ceiling(found.entry.standing))
                .max();
            return most.map(|most| most.min(policy.default_verdict()));
        }
        let voices = self.voices(policy, signal, matched);
        policy.verdict(&self.question(signal), &voices)
    }

    /// The same by any policy, with what becomes of each match and why.
    #[must_use]
    pub fn evaluate(&self, policy: &Policy, signal: &Signal, matched: &Matched) -> Evaluation {
        let voices = self.voices(policy, signal, matched);
        policy.evaluate(&self.question(signal), &voices)
    }

    /// Puts to each entry what becomes of it: the highest verdict that it gets by any of
    /// its signals, asked for exactly. Blocking.
    ///
    /// # Errors
    /// What the store answers.
    pub(crate) fn put_verdicts(
        &self,
        entries: &mut [(FeedId, &mut ExportedEntry)],
    ) -> Result<(), NodeError> {
        let policy = &self.force.policy;
        for (_, entry) in entries.iter_mut() {
            let most = if entry.state == "review" {
                Verdict::Review
            } else {
                Verdict::Enforce
            };
            entry.verdict = Some(most.min(policy.default_verdict()));
        }
        if policy.is_plain() && self.mutes.is_empty() {
            return Ok(());
        }
        let signals = entries.iter().flat_map(|(_, entry)| &entry.body.signals);
        let signals: Vec<Signal> = signals.cloned().collect();
        let mut found = self
            .node
            .matches_in_turn(&signals)?
            .into_iter()
            .zip(&signals);
        for (feed, entry) in entries {
            let count = entry.body.signals.len();
            let name = (*feed, entry.index);
            let mut most = None;
            for (matched, signal) in found.by_ref().take(count) {
                let mut of = matched.found.iter();
                let at = of.position(|found| (found.entry.feed, found.entry.index) == name);
                let verdicts = self.evaluate(policy, signal, &matched).voices;
                most = most.max(at.and_then(|at| verdicts.get(at).copied()));
            }
            // One that no look-up tells any more is told anew soon, and acted on by nobody.
            entry.verdict = Some(most.unwrap_or(Verdict::Observe));
        }
        Ok(())
    }

    fn question(&self, signal: &Signal) -> Question<'_> {
        Question {
            kind: signal.kind(),
            surface: self.surface.as_ref(),
            region: self.region.as_ref(),
            now: self.now,
        }
    }

    fn voices<'m>(&self, policy: &Policy, signal: &Signal, matched: &'m Matched) -> Vec<Voice<'m>> {
        let salt = &self.node.desk().salt;
        let asked = &signal.index_key();
        let asked_is_muted = self.mutes.signal(salt, asked, self.now);
        let doubts = self.doubts(matched);
        let voice = |(place, found): (usize, &'m Found)| {
            let entry = &found.entry;
            let muted = asked_is_muted
                || self.mutes.set(&entry.entry.set, self.now)
                || (found.key != *asked && self.mutes.signal(salt, &found.key, self.now));
            let doubts = doubts.get(place).copied().unwrap_or_default();
            let ceiling = standing_ceiling(entry.standing).min(doubts.ceiling());
            Voice {
                member: entry.publisher,
                set: &entry.entry.set,
                classification: &entry.classification,
                basis: entry.basis,
                published: entry.published,
                negatives: negatives(found).max(doubts.against),
                witnessed: if policy.needs_witnesses() {
                    self.witnessed(found)
                } else {
                    Witnessed::Unknown
                },
                // A muted entry is seen and counted, and nobody acts on it.
                ceiling: if muted {
                    ceiling.min(Verdict::Observe)
                } else {
                    ceiling
                },
                share: if policy.needs_shares() {
                    share_of(salt, &found.key)
                } else {
                    0
                },
            }
        };
        matched.found.iter().enumerate().map(voice).collect()
    }

    /// Whether a match is muted, by itself or by what was asked.
    pub(super) fn is_muted(&self, signal: &Signal, found: &Found) -> bool {
        let salt = &self.node.desk().salt;
        self.mutes.signal(salt, &signal.index_key(), self.now)
            || self.mutes.signal(salt, &found.key, self.now)
            || self.mutes.set(&found.entry.entry.set, self.now)
    }

    /// Whether the threshold of witnesses stands behind an entry: a head over it was
    /// cosigned by as many active witnesses as the roster asks for. What lies beside
    /// heads was verified before it was kept.
    pub(super) fn witnessed(&self, found: &Found) -> Witnessed {
        match self.witnesses_of(found.entry.feed) {
            Some((size, _)) if found.entry.index < size => Witnessed::Yes,
            Some(_) => Witnessed::No,
            None => Witnessed::Unknown,
        }
    }

    /// Whether the witnesses of an entry's feed, as the roster has them, find a fork and
    /// prevent none: a rule that asks for witnesses is met by their quorum all the same.
    pub(super) fn detection_only(&self, found: &Found) -> bool {
        let said = self.witnesses_of(found.entry.feed);
        said.is_some_and(|(_, prevents)| !prevents)
    }

    fn witnesses_of(&self, feed: FeedId) -> Option<(u64, bool)> {
        let known = self.witnessed.borrow().get(&feed).copied();
        known.unwrap_or_else(|| {
            let said = self.witnessed_to(&feed);
            self.witnessed.borrow_mut().insert(feed, said);
            said
        })
    }

    /// Up to where a quorum of the witnesses has cosigned; `None` where the roster asks for
    /// none, or it cannot be known.
    fn witnessed_to(&self, feed: &FeedId) -> Option<(u64, bool)> {
        let store = self.node.store();
        let feed = store.feed(store.feed_no(feed)?).ok()?;
        let judged = self.node.judged(&feed).ok()?;
        judged.threshold?;
        Some((judged.quorum.unwrap_or(0), judged.prevents()))
    }
}

/// The most that an entry may become by how it stands.
pub(super) const fn standing_ceiling(standing: MatchStanding) -> Verdict {
    match standing {
        // What a negative opinion does is for the policy to say.
        MatchStanding::Active | MatchStanding::Disputed => Verdict::Enforce,
        MatchStanding::Review => Verdict::Review,
        MatchStanding::Retracted => Verdict::Ignore,
    }
}

/// How many members say that an entry is not what its publisher says.
fn negatives(found: &Found) -> u64 {
    found.entry.opinions.stances.negative
}
