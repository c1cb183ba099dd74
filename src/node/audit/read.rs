//! Reading: leaves in their order, by time, member and act.

use hashpact_core::id::UnixMillis;
use hashpact_core::leaf::RawLeaf;
use hashpact_core::leaf::audit::{AUDIT_ACT, AUDIT_SEGMENT, Act, Segment};
use hashpact_core::reject::Rejection;

use super::Audit;
use crate::error::NodeError;

/// A place in the feed: segment, and index in it. Ordered as the leaves are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct At {
    /// The segment's number.
    pub segment: u64,
    /// The leaf's index in it.
    pub index: u64,
}

/// One leaf, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditLeaf {
    /// Where.
    pub at: At,
    /// What it says.
    pub said: Said,
}

/// What a leaf says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// A segment begins.
    Segment(Box<Segment>),
    /// An act.
    Act(Box<Act>),
    /// Nothing that this program can read.
    Unread,
}

impl Said {
    pub(super) fn of(leaf: &RawLeaf) -> Self {
        Self::read(leaf).unwrap_or(Self::Unread)
    }

    fn read(leaf: &RawLeaf) -> Result<Self, Rejection> {
        Ok(match (leaf.kind, leaf.payload()) {
            (AUDIT_SEGMENT, Some(payload)) => Self::Segment(Segment::read(payload)?.into()),
            (AUDIT_ACT, Some(payload)) => Self::Act(Act::read(payload)?.into()),
            (_, _) => Self::Unread,
        })
    }
}

/// Which leaves are wanted: all that every field lets through.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AuditFilter {
    /// Acts that began at this time or later.
    pub since: Option<UnixMillis>,
    /// Acts that began before this time.
    pub until: Option<UnixMillis>,
    /// Acts about this member, one of its sets, or by one of its nodes.
    pub member: Option<String>,
    /// Acts of this code, or that begin with it and a dot.
    pub act: Option<String>,
}

impl AuditFilter {
    /// Whether a leaf is wanted. The beginnings of segments are, where nothing but time
    /// is asked for.
    #[must_use]
    pub fn wants(&self, said: &Said) -> bool {
        match said {
            Said::Act(act) => self.wants_act(act),
            Said::Segment(segment) => {
                self.member.is_none() && self.act.is_none() && self.in_time(segment.created)
            }
            Said::Unread => self.member.is_none() && self.act.is_none(),
        }
    }

    fn wants_act(&self, act: &Act) -> bool {
        let of = |name: &str, member: &str| {
            name.strip_prefix(member)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let member = self.member.as_deref().is_none_or(|member| {
            let mut details = act.details.iter();
            act.member == member
                || of(&act.set, member)
                || of(&act.actor.name, member)
                || details.any(|(name, text)| is_grantee(name, text, member))
        });
        let code = self.act.as_deref().is_none_or(|code| {
            act.act
                .strip_prefix(code)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        });
        member && code && self.in_time(act.began)
    }

    fn in_time(&self, at: UnixMillis) -> bool {
        self.since.is_none_or(|since| at >= since) && self.until.is_none_or(|until| at < until)
    }
}

/// Whether a detail names this member as one that was granted a set or lost it.
fn is_grantee(name: &str, text: &str, member: &str) -> bool {
    matches!(name, "grant" | "revoke") && text.split(':').next() == Some(member)
}

impl Audit {
    /// Hands the leaves from `from` on that are wanted to `sink`, in order, until it
    /// answers false; answers where to go on. Blocking.
    ///
    /// # Errors
    /// What the store answers.
    pub fn read(
        &self,
        from: At,
        filter: &AuditFilter,
        sink: &mut dyn FnMut(AuditLeaf) -> bool,
    ) -> Result<At, NodeError> {
        let mut next = from;
        let segments = self.store.audit_segments()?;
        for (segment, _) in segments {
            if segment < next.segment {
                continue;
            }
            let first = if segment == next.segment {
                next.index
            } else {
                0
            };
            next = At {
                segment,
                index: first,
            };
            let mut wanted = true;
            self.store.audit_leaves(segment, first, |index, leaf| {
                let said = Said::of(&leaf);
                let at = At { segment, index };
                next.index = index.saturating_add(1);
                if filter.wants(&said) {
                    wanted = sink(AuditLeaf { at, said });
                }
                Ok(wanted)
            })?;
            if !wanted {
                break;
            }
        }
        Ok(next)
    }
}
