//! Why a signal or an entry gets its verdict: every rule, with the leaves behind it.

use hashpact_core::id::{Digest, EntryName};
use hashpact_core::leaf::{self, Leaf};
use hashpact_core::policy::{Evaluation, Verdict, Witnessed};
use hashpact_core::signal::{Signal, SignalKind};

use super::{Doubts, Judge};
use crate::error::NodeError;
use crate::model::{Found, MatchOptions, Matched};
use crate::node::Node;

/// What became of one signal, and why.
#[derive(Debug, Clone)]
pub struct Explained {
    /// The kind.
    pub kind: SignalKind,
    /// The verdict; `None` where nothing matches.
    pub verdict: Option<Verdict>,
    /// The entries that match, in the order of [`Evaluation`]'s places.
    pub leaves: Vec<ExplainedLeaf>,
    /// Whether there are more than these.
    pub more: bool,
    /// What became of each rule.
    pub evaluation: Evaluation,
}

/// A leaf behind a verdict.
#[derive(Debug, Clone)]
pub struct ExplainedLeaf {
    /// What it says, and how near it is.
    pub found: Found,
    /// The digest of its record: what proofs are made of.
    pub leaf_hash: Option<Digest>,
    /// Whether it is muted.
    pub muted: bool,
    /// Whether witnesses stand behind it.
    pub witnessed: Witnessed,
    /// Whether so few of them are asked for that a fork is found and not prevented.
    pub detection_only: bool,
    /// What the node itself doubts of it.
    pub doubts: Doubts,
}

impl Node {
    /// Explains a signal as it would be answered. Blocking.
    ///
    /// # Errors
    /// As [`Node::matches`].
    pub fn explain(
        &self,
        judge: &Judge<'_>,
        signal: &Signal,
        options: MatchOptions,
    ) -> Result<Explained, NodeError> {
        let signals = std::slice::from_ref(signal);
        let matched = self.matches(signals, options)?.pop().unwrap_or_default();
        Ok(self.explained(judge, signal, matched))
    }

    /// The signals of an entry's newest version, each of which can be explained. Blocking.
    ///
    /// # Errors
    /// [`NodeError::NotFound`] where there is no such entry, or nothing of it left.
    pub fn signals_of(&self, entry: &EntryName) -> Result<Vec<Signal>, NodeError> {
        let missing = || NodeError::NotFound {
            what: "entry",
            name: entry.to_string(),
        };
        let feed = self.feed_of(&entry.set)?;
        if entry.first >= feed.indexed {
            return Err(missing());
        }
        let index = self.store().latest_version(feed.no, entry.first)?;
        let raw = self.store().read_leaf(feed.no, index)?;
        match leaf::read(&raw, index) {
            Leaf::Publish(publish) => Ok(publish.signals),
            Leaf::Describe(_)
            | Leaf::Retract(_)
            | Leaf::Opinion(_)
            | Leaf::Erase(_)
            | Leaf::Unknown(_)
            | Leaf::Void(_)
            | Leaf::Elided => Err(missing()),
        }
    }

    fn explained(&self, judge: &Judge<'_>, signal: &Signal, matched: Matched) -> Explained {
        let evaluation = judge.evaluate(&judge.in_force().policy, signal, &matched);
        let mut doubts = judge.doubts(&matched).into_iter();
        let mut leaves = Vec::with_capacity(matched.found.len());
        for found in matched.found {
            leaves.push(ExplainedLeaf {
                leaf_hash: self.leaf_hash(&found),
                muted: judge.is_muted(signal, &found),
                witnessed: judge.witnessed(&found),
                detection_only: judge.detection_only(&found),
                doubts: doubts.next().unwrap_or_default(),
                found,
            });
        }
        Explained {
            kind: signal.kind(),
            verdict: evaluation.verdict,
            leaves,
            more: matched.more,
            evaluation,
        }
    }

    /// The hash of a leaf in its feed's tree; none where it went meanwhile.
    fn leaf_hash(&self, found: &Found) -> Option<Digest> {
        let no = self.store().feed_no(&found.entry.feed)?;
        let raw = self.store().read_leaf(no, found.entry.index).ok()?;
        Some(raw.hash())
    }
}
