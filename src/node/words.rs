//! What the node's feeds look like, and what is wrong with them in words.

use hashpact_core::id::{FeedId, UnixMillis};
use hashpact_core::witness::Cosigned;
use hashpact_store::{FeedInfo, FeedStatus, FindingKind};

use crate::error::NodeError;
use crate::model::{FeedView, VerifyOutcome};
use crate::node::Node;
use crate::views;

impl Node {
    /// Does what [`Node::verify`] does, and says in words what is wrong. Blocking, for
    /// as long as reading the whole store takes.
    ///
    /// # Errors
    /// As [`Node::verify`].
    pub fn verify_in_words(
        &self,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<VerifyOutcome, NodeError> {
        let report = self.verify(progress)?;
        let problems = report.findings.iter().map(|finding| {
            let feed = self.store().feed(finding.feed);
            let name =
                feed.map_or_else(|_| format!("feed {}", finding.feed), |feed| name_of(&feed));
            format!("{name}: {}: {}", words(finding.kind), finding.text)
        });
        let mut problems: Vec<String> = problems.collect();
        let audit = self.audit().verify()?;
        let of_audit = audit.problems.iter();
        problems.extend(of_audit.map(|problem| format!("the audit feed: {problem}")));
        Ok(VerifyOutcome {
            problems,
            feeds: report.feeds,
            leaves: report.leaves,
            heads: report.heads,
            postings: report.postings,
            audit_leaves: audit.leaves,
        })
    }

    /// Every feed that this node holds, own ones first. Blocking.
    #[must_use]
    pub fn feeds(&self) -> Vec<FeedView> {
        let mut feeds: Vec<FeedView> = self
            .store()
            .feeds()
            .iter()
            .map(|feed| self.feed_view(feed))
            .collect();
        feeds.extend(self.witnessed_views());
        feeds.sort_by(|a, b| b.own.cmp(&a.own).then_with(|| a.name.cmp(&b.name)));
        feeds
    }

    fn feed_view(&self, feed: &FeedInfo) -> FeedView {
        let pull = self.exchange().and_then(|view| view.feed(&feed.id));
        let pull = pull.unwrap_or_default();
        let applied = feed.applied.map_or(0, |head| head.size);
        let publisher = self.membership().member(feed.publisher);
        FeedView {
            id: feed.id,
            name: name_of(feed),
            publisher: publisher.map_or_else(
                || format!("member {}", feed.publisher),
                |m| m.slug.to_string(),
            ),
            own: feed.own,
            epoch: feed.epoch,
            stored: feed.stored,
            indexed: feed.indexed,
            head: pull.newest.max(applied),
            root: feed.applied.map(|head| head.root),
            live_entries: views::live_entries(feed),
            quarantined: self.store().waiting(feed.no).unwrap_or(0),
            state: self.feed_state(feed, pull.state),
            from_peer: pull.from.unwrap_or_default(),
            updated: pull.updated,
            judged: self.judged(feed).ok(),
            cosigned: self.cosigned(&feed.id),
            unconfirmed: feed.unconfirmed,
            last_error: pull.last_error,
            missing: feed.missing,
        }
    }

    fn cosigned(&self, feed: &FeedId) -> Option<u64> {
        let said = self.witnessing()?.said(feed)?;
        Some(said.cosigned.size)
    }

    /// Feeds that this node cosigns and does not hold: it knows their sizes, no more.
    fn witnessed_views(&self) -> Vec<FeedView> {
        let Some(witnessing) = self.witnessing() else {
            return Vec::new();
        };
        let mut recorded = witnessing.recorded();
        recorded.retain(|(feed, _)| self.store().feed_no(feed).is_none());
        let view = |(feed, cosigned): (FeedId, Cosigned)| {
            let said = witnessing.said(&feed);
            let publisher = self.membership().member(cosigned.publisher);
            FeedView {
                id: feed,
                name: feed.0.short(),
                publisher: publisher.map_or_else(
                    || format!("member {}", cosigned.publisher),
                    |m| m.slug.to_string(),
                ),
                own: false,
                epoch: cosigned.epoch,
                stored: 0,
                indexed: 0,
                head: cosigned.size,
                root: Some(cosigned.root),
                live_entries: 0,
                quarantined: 0,
                // What is recorded is signed once its peers have been heard.
                state: if said.is_some() {
                    "cosigned"
                } else {
                    "recorded"
                },
                from_peer: String::new(),
                updated: said
                    .as_ref()
                    .map_or_else(UnixMillis::default, |said| said.at),
                judged: None,
                cosigned: said.map(|said| said.cosigned.size),
                unconfirmed: false,
                last_error: String::new(),
                missing: 0,
            }
        };
        recorded.into_iter().map(view).collect()
    }

    fn feed_state(&self, feed: &FeedInfo, pull: &'static str) -> &'static str {
        if feed.own {
            return match self.publisher().closed(&feed.id) {
                None => "open",
                Some(_) => "closed",
            };
        }
        match feed.status {
            FeedStatus::Active if pull.is_empty() => "held",
            FeedStatus::Active => pull,
            FeedStatus::Frozen => "frozen",
            FeedStatus::Leaving => "leaving",
            FeedStatus::Silent => "silent",
            FeedStatus::Dropping => "dropping",
        }
    }
}

/// The set's name; of a feed that is not described yet, the beginning of its id.
pub(crate) fn name_of(feed: &FeedInfo) -> String {
    views::describe_of(feed).map_or_else(|| feed.id.0.short(), |describe| describe.name.to_string())
}

const fn words(kind: FindingKind) -> &'static str {
    match kind {
        FindingKind::Leaves => "leaves cannot be read",
        FindingKind::Tree => "the tree is not that of the leaves",
        FindingKind::HeadRoot => "a head's root is not that of the leaves",
        FindingKind::HeadSignature => "a head's signature",
        FindingKind::Signals => "the index of signals is not that of the leaves",
        FindingKind::Killers => "what kills entries is not that of the leaves",
        FindingKind::Opinions => "the index of opinions is not that of the leaves",
        FindingKind::Entries => "an entry's latest version is not that of the leaves",
        FindingKind::References => "a reference is not that of the leaves",
        FindingKind::Quarantine => "the quarantine is not what leaves and gate say",
        FindingKind::Elided => "the set of leaves held as their record is another",
        FindingKind::Counts => "counts are not those of the leaves",
    }
}
