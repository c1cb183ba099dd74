//! What this node would lose with a member: before it is suspended or removed.
//!
//! An entry loses its only voice where no other active member's live entry carries
//! one of its signals; where one other does, that one decides alone from then on.

use std::collections::{BTreeSet, HashMap};

use hashpact_core::id::{MemberNumber, SetName, Slug};
use hashpact_core::leaf::{self, Leaf, Publish};
use hashpact_core::limits::PAGE_LEAVES;
use hashpact_core::roster::MemberStatus;
use hashpact_core::signal::Signal;
use hashpact_store::{FeedInfo, FeedNo};

use crate::error::NodeError;
use crate::node::Node;
use crate::views;

/// Entries that are named, to look at.
const EXAMPLES_MAX: usize = 20;

/// What hangs on one member at this node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlastRadius {
    /// Its sets that are held here, and the live entries of each.
    pub sets: Vec<(SetName, u64)>,
    /// Its live entries.
    pub entries: u64,
    /// Of these, those that no other member says anything of.
    pub without_other: u64,
    /// Those that one other member says something of.
    pub with_one_other: u64,
    /// Some of those without another voice.
    pub examples: Vec<String>,
    /// Some of those with one other.
    pub examples_with_one_other: Vec<String>,
}

impl Node {
    /// Works out what hangs on a member. Blocking: reads all its leaves.
    ///
    /// # Errors
    /// [`NodeError::NotFound`] for a slug that is not in the roster; what the store
    /// answers.
    pub fn blast_radius(&self, member: &Slug) -> Result<BlastRadius, NodeError> {
        let roster = self.membership().roster()?;
        let found = roster.roster().member_by_slug(member);
        let number = found.map(|member| member.number);
        let number = number.ok_or_else(|| NodeError::NotFound {
            what: "member",
            name: member.to_string(),
        })?;
        let feeds = self.store().feeds();
        let owners: HashMap<FeedNo, MemberNumber> =
            feeds.iter().map(|feed| (feed.no, feed.publisher)).collect();
        let active = |other: &MemberNumber| {
            let other = roster.roster().member(*other);
            other.is_some_and(|other| other.status == MemberStatus::Active)
        };
        let voices = |feed: FeedNo| {
            let owner = owners.get(&feed).copied();
            owner.filter(|owner| *owner != number && active(owner))
        };
        let mut radius = BlastRadius::default();
        for feed in feeds.iter().filter(|feed| feed.publisher == number) {
            self.add_feed(feed, &voices, &mut radius)?;
        }
        Ok(radius)
    }

    fn add_feed(
        &self,
        feed: &FeedInfo,
        voices: &impl Fn(FeedNo) -> Option<MemberNumber>,
        radius: &mut BlastRadius,
    ) -> Result<(), NodeError> {
        let Some(describe) = views::describe_of(feed) else {
            return Ok(());
        };
        let before = radius.entries;
        let mut from = 0;
        while from < feed.indexed {
            let to = from.saturating_add(PAGE_LEAVES).min(feed.indexed);
            let leaves = self.store().read_leaves(feed.no, from, to)?;
            let mut live = Vec::new();
            for (index, raw) in (from..to).zip(leaves) {
                if let Leaf::Publish(body) = leaf::read(&raw, index)
                    && !self.store().is_dead(feed.no, index)?
                {
                    live.push((body.first_index(index), body));
                }
            }
            for (first, body) in live {
                let name = format!("{}#{first}", describe.name);
                self.add_entry(&body, name, voices, radius)?;
            }
            from = to;
        }
        let entries = radius.entries.saturating_sub(before);
        radius.sets.push((describe.name, entries));
        Ok(())
    }

    fn add_entry(
        &self,
        body: &Publish,
        name: String,
        voices: &impl Fn(FeedNo) -> Option<MemberNumber>,
        radius: &mut BlastRadius,
    ) -> Result<(), NodeError> {
        let keys: Vec<_> = body.signals.iter().map(Signal::index_key).collect();
        let postings = self.store().lookup(&keys)?;
        let said = postings.iter().flatten();
        let others: BTreeSet<_> = said.filter_map(|posting| voices(posting.feed)).collect();
        radius.entries = radius.entries.saturating_add(1);
        match others.len() {
            0 => {
                radius.without_other = radius.without_other.saturating_add(1);
                if radius.examples.len() < EXAMPLES_MAX {
                    radius.examples.push(name);
                }
            }
            1 => {
                radius.with_one_other = radius.with_one_other.saturating_add(1);
                if radius.examples_with_one_other.len() < EXAMPLES_MAX {
                    radius.examples_with_one_other.push(name);
                }
            }
            _ => {}
        }
        Ok(())
    }
}
