//! What the node shows of its feeds: sets, terms, grants in words.

use hashpact_core::id::Digest;
use hashpact_core::leaf::{Describe, Grantee as CoreGrantee, Source, Terms};
use hashpact_core::roster::Roster;
use hashpact_store::{FeedInfo, FeedKind};

use crate::model::{Grantee, SetInfo, SetSource};
use crate::publish::read_describe;

/// The describe leaf in force, where the feed has one.
pub(crate) fn describe_of(feed: &FeedInfo) -> Option<Describe> {
    let (index, payload) = feed.describe.clone()?;
    read_describe(index, payload)
}

/// The terms as they are quoted when something is refused because of them.
pub(crate) fn terms_text(terms: &Terms) -> String {
    match &terms.source {
        Source::OwnWork => terms.text.clone(),
        Source::ThirdParty { list_owner } if terms.text.is_empty() => {
            format!("a list of {list_owner} that may not be shared on")
        }
        Source::ThirdParty { list_owner } => format!("a list of {list_owner}: {}", terms.text),
    }
}

/// A set and where it stands; `None` for a feed that is not described yet.
pub(crate) fn set_info(
    feed: &FeedInfo,
    roster: Option<&Roster>,
    closed: Option<String>,
) -> Option<SetInfo> {
    let describe = describe_of(feed)?;
    let head = feed.applied;
    Some(SetInfo {
        name: describe.name,
        feed: feed.id,
        title: describe.title,
        source: source(&describe.terms),
        classification_scheme: describe
            .classification_scheme
            .map(|scheme| scheme.to_string())
            .unwrap_or_default(),
        grants: describe
            .grants
            .iter()
            .map(|grant| Grantee {
                who: grantee(&grant.grantee, roster),
                relay: grant.relay,
            })
            .collect(),
        own: feed.own,
        epoch: feed.epoch,
        size: head.map_or(0, |head| head.size),
        root: head.map_or_else(|| Digest::of(b""), |head| head.root),
        live_entries: live_entries(feed),
        created: describe.created,
        closed,
        opinions: feed.kind == FeedKind::Opinions,
    })
}

/// Publish leaves that are held and not dead.
pub(crate) const fn live_entries(feed: &FeedInfo) -> u64 {
    feed.counts
        .publish
        .saturating_add(feed.counts.elided)
        .saturating_sub(feed.dead)
        .saturating_sub(feed.missing)
}

fn source(terms: &Terms) -> SetSource {
    match &terms.source {
        Source::OwnWork => SetSource::OwnWork,
        Source::ThirdParty { list_owner } => SetSource::ThirdParty {
            list_owner: list_owner.clone(),
            may_share: terms.may_share,
            terms: terms.text.clone(),
        },
    }
}

fn grantee(grantee: &CoreGrantee, roster: Option<&Roster>) -> String {
    match grantee {
        CoreGrantee::All => "all".to_owned(),
        CoreGrantee::Group(group) => format!("group:{group}"),
        CoreGrantee::Member(number) => roster
            .and_then(|roster| roster.member(*number))
            .map_or_else(
                || format!("member {number}"),
                |member| member.slug.to_string(),
            ),
    }
}
