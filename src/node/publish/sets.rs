//! Own sets: made by their first describe leaf, changed by later ones.

use hashpact_core::id::{FeedId, SetName, Slug};
use hashpact_core::leaf::{
    self, DESCRIBE, Describe, FeedKind, Grant, Grantee as CoreGrantee, RawLeaf, Source, Terms,
};
use hashpact_store::{FeedInfo, NewFeed};

use super::Publisher;
use crate::audit::AUDIT_SET;
use crate::error::NodeError;
use crate::hub::Change;
use crate::model::{Grantee, NewSet, SetSource};
use crate::views;

/// Terms in words where the operator gave none for own work.
const OWN_WORK: &str = "own work of the publisher";

impl Publisher {
    /// Makes a set: a feed whose first leaf describes it, signed.
    ///
    /// # Errors
    /// [`NodeError::Misuse`] for a name that is taken or a grant that the terms
    /// forbid; what the store answers.
    pub fn create_set(&self, new: &NewSet) -> Result<FeedInfo, NodeError> {
        self.create(new, FeedKind::HashSet)
    }

    /// Makes a set of opinions of this member: the same, for what it thinks of entries.
    ///
    /// # Errors
    /// As [`Publisher::create_set`].
    pub fn create_opinions_set(&self, new: &NewSet) -> Result<FeedInfo, NodeError> {
        self.create(new, FeedKind::Opinions)
    }

    pub(super) fn create(&self, new: &NewSet, kind: FeedKind) -> Result<FeedInfo, NodeError> {
        let member = self.membership.own()?;
        let describe = self.first_describe(new, kind)?;
        if self.feed_named(&describe.name).is_some() {
            let name = &describe.name;
            return Err(NodeError::Misuse(format!("there is a set {name} already")));
        }
        let payload = describe.encode(self.salt())?;
        let id = FeedId::derive(&self.membership.genesis(), &self.slug, &payload);
        let no = self.store.create_feed(&NewFeed {
            id,
            publisher: member,
            own: true,
            kind: match kind {
                FeedKind::HashSet => hashpact_store::FeedKind::HashSet,
                FeedKind::Opinions => hashpact_store::FeedKind::Opinions,
            },
        })?;
        // Crash here: an empty feed without a name, which nothing refers to.
        self.open_new(id);
        let mut session = self.session(&self.store.feed(no)?)?;
        session.append(&[RawLeaf::new(DESCRIBE, payload)])?;
        session.sign()?;
        Ok(self.store.feed(no)?)
    }

    fn first_describe(&self, new: &NewSet, kind: FeedKind) -> Result<Describe, NodeError> {
        if new.set.as_str() == AUDIT_SET {
            let why = "no set is called audit: cards name the audit feed so; take another name";
            return Err(NodeError::Misuse(why.to_owned()));
        }
        let terms = terms_of(&new.source);
        if !terms.may_share && !new.grants.is_empty() {
            return Err(NodeError::Terms {
                set: format!("{}/{}", self.slug, new.set),
                terms: views::terms_text(&terms),
            });
        }
        Ok(Describe {
            genesis: self.membership.genesis(),
            feed_kind: kind,
            name: SetName {
                member: self.slug.clone(),
                set: new.set.clone(),
            },
            title: new.title.clone(),
            grants: self.grants_of(&new.grants)?,
            terms,
            classification_scheme: scheme(&new.classification_scheme)?,
            created: self.clock.now(),
            // Nobody had a grant before that could end.
            identity_signature: None,
        })
    }

    /// Changes who may read an own set: a new describe leaf, signed.
    ///
    /// # Errors
    /// [`NodeError::Terms`] where the terms give no right to share;
    /// [`NodeError::Misuse`] for a grantee that is nobody.
    pub fn change_grants(
        &self,
        feed: &FeedInfo,
        grant: &[Grantee],
        revoke: &[String],
    ) -> Result<FeedInfo, NodeError> {
        let mut session = self.session(feed)?;
        let mut describe = views::describe_of(session.info())
            .ok_or_else(|| NodeError::Internal("an own set has no describe leaf".to_owned()))?;
        if !describe.terms.may_share && !grant.is_empty() {
            return Err(NodeError::Terms {
                set: describe.name.to_string(),
                terms: views::terms_text(&describe.terms),
            });
        }
        for who in revoke {
            let gone = self.grantee(who)?;
            describe.grants.retain(|held| held.grantee != gone);
        }
        for new in self.grants_of(grant)? {
            describe.grants.retain(|held| held.grantee != new.grantee);
            describe.grants.push(new);
        }
        describe.created = self.clock.now();
        // Without it, grants that end for many take effect a day later (PROTOCOL 15.10).
        let bytes = describe.grants_signing_bytes(&feed.id, session.info().stored);
        describe.identity_signature = self.identity_key.as_ref().map(|key| key.sign(&bytes));
        let payload = describe.encode(self.salt())?;
        session.append(&[RawLeaf::new(DESCRIBE, payload)])?;
        session.sign()?;
        self.hub.tell(Change::Access);
        Ok(self.store.feed(feed.no)?)
    }

    /// Finds an own set by its slug.
    ///
    /// # Errors
    /// [`NodeError::NotFound`].
    pub fn own_set(&self, set: &Slug) -> Result<FeedInfo, NodeError> {
        let name = SetName {
            member: self.slug.clone(),
            set: set.clone(),
        };
        self.feed_named(&name).ok_or(NodeError::NotFound {
            what: "set",
            name: name.to_string(),
        })
    }

    fn feed_named(&self, name: &SetName) -> Option<FeedInfo> {
        self.feeds()
            .into_iter()
            .find(|feed| views::describe_of(feed).is_some_and(|d| d.name == *name))
    }

    fn grants_of(&self, grantees: &[Grantee]) -> Result<Vec<Grant>, NodeError> {
        grantees
            .iter()
            .map(|grantee| {
                Ok(Grant {
                    grantee: self.grantee(&grantee.who)?,
                    relay: grantee.relay,
                })
            })
            .collect()
    }

    fn grantee(&self, who: &str) -> Result<CoreGrantee, NodeError> {
        if who == "all" {
            return Ok(CoreGrantee::All);
        }
        let roster = self.membership.roster()?;
        if let Some(group) = who.strip_prefix("group:") {
            let slug = Slug::parse(group).map_err(|error| NodeError::Misuse(error.to_string()))?;
            return match roster.roster().group(&slug) {
                Some(_) => Ok(CoreGrantee::Group(slug)),
                None => Err(NodeError::NotFound {
                    what: "group",
                    name: group.to_owned(),
                }),
            };
        }
        let slug = Slug::parse(who).map_err(|error| NodeError::Misuse(error.to_string()))?;
        let member = roster.roster().member_by_slug(&slug);
        member
            .map(|member| CoreGrantee::Member(member.number))
            .ok_or(NodeError::NotFound {
                what: "member",
                name: who.to_owned(),
            })
    }
}

fn terms_of(source: &SetSource) -> Terms {
    match source {
        SetSource::OwnWork => Terms {
            source: Source::OwnWork,
            may_share: true,
            text: OWN_WORK.to_owned(),
        },
        SetSource::ThirdParty {
            list_owner,
            may_share,
            terms,
        } => Terms {
            source: Source::ThirdParty {
                list_owner: list_owner.clone(),
            },
            may_share: *may_share,
            text: terms.clone(),
        },
    }
}

fn scheme(text: &str) -> Result<Option<Slug>, NodeError> {
    if text.is_empty() {
        return Ok(None);
    }
    Slug::parse(text)
        .map(Some)
        .map_err(|error| NodeError::Misuse(format!("classification scheme: {error}")))
}

/// Reads a describe payload of this store; it was checked before it was stored.
pub(crate) fn read_describe(index: u64, payload: bytes::Bytes) -> Option<Describe> {
    match leaf::read(&RawLeaf::new(DESCRIBE, payload), index) {
        leaf::Leaf::Describe(describe) => Some(*describe),
        leaf::Leaf::Publish(_)
        | leaf::Leaf::Retract(_)
        | leaf::Leaf::Opinion(_)
        | leaf::Leaf::Erase(_)
        | leaf::Leaf::Unknown(_)
        | leaf::Leaf::Void(_)
        | leaf::Leaf::Elided => None,
    }
}
