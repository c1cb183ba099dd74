//! Making a bundle: what this node would serve the recipient, written down.
//!
//! Every set is decided before the first byte is written, so that a bundle has all that
//! was asked for or does not come to be; and again for each chunk, as for a pull.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use hashpact_core::access::{RosterReach, Snapshot};
use hashpact_core::bundle::{FEEDS_MAX, Header, Recipient, RecordKind, Writer, authority};
use hashpact_core::card::{CardState, KeyOwner};
use hashpact_core::id::Slug;
use hashpact_core::leaf::{DESCRIBE, RawLeaf};
use hashpact_core::page;
use hashpact_core::reject::Rejection;
use hashpact_node::bundle::{BundleMade, BundleOrder, BundleSet, check_may_leave};
use hashpact_node::{Node, NodeError};
use hashpact_store::{FeedInfo, HeadRef};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use crate::exchange::announce::stored_head;
use crate::exchange::directory::Snapshots;
use crate::exchange::documents::{card_in_force, roster_items};
use crate::exchange::pipeline::describe_of;
use crate::exchange::reach::Reach;
use crate::exchange::served::{Pulls, Reader};
use crate::service::ServiceError;
use crate::types::{Announcement, BundleFeed, PullPart, PullRequest, RosterItem};
use crate::wire;

/// Makes bundles of what a node holds.
pub(crate) struct Exporting {
    pub(crate) node: Arc<Node>,
    pub(crate) snapshots: Arc<Snapshots>,
    pub(crate) pulls: Pulls,
}

/// A set that goes into a bundle.
struct Chosen {
    name: String,
    feed: FeedInfo,
    at: HeadRef,
    since: u64,
}

/// What is decided before anything is written.
struct Plan {
    reader: Reader,
    sets: Vec<Chosen>,
    documents: Vec<RosterItem>,
    evidence: Vec<Announcement>,
    left_out: u64,
}

/// The file in the making.
struct Out {
    writer: Writer,
    to: mpsc::Sender<Bytes>,
}

impl Out {
    async fn send(&self, bytes: Bytes) -> Result<(), NodeError> {
        let sent = self.to.send(bytes).await;
        sent.map_err(|_| NodeError::Busy("nobody takes the bundle any more"))
    }

    async fn record(&mut self, kind: RecordKind, body: &[u8]) -> Result<(), NodeError> {
        let record = self.writer.record(kind, body)?;
        self.send(record).await
    }
}

impl Exporting {
    /// Writes a bundle into `to`.
    ///
    /// # Errors
    /// A recipient or set that there is not; [`NodeError::Terms`],
    /// [`NodeError::NotGranted`]; what the store answers.
    pub(crate) async fn run(
        self: Arc<Self>,
        order: BundleOrder,
        to: mpsc::Sender<Bytes>,
    ) -> Result<BundleMade, NodeError> {
        let (planner, asked) = (Arc::clone(&self), order.clone());
        let plan = blocking(move || planner.plan(&asked)).await?;
        let header = Header {
            genesis: self.node.membership().genesis(),
            made: self.node.clock().now(),
            by: self.node.member_slug().clone(),
            to: order.to.clone(),
        };
        let (writer, first) = Writer::begin(&header)?;
        let mut out = Out { writer, to };
        out.send(first).await?;
        let mut made = BundleMade {
            documents: count(plan.documents.len()),
            evidence: count(plan.evidence.len()),
            sets: Vec::new(),
            left_out: plan.left_out,
        };
        for item in plan.documents {
            let message = wire::RosterItem::from(item).encode_to_vec();
            out.record(RecordKind::Document, &message).await?;
        }
        for said in plan.evidence {
            let message = wire::Announcement::from(said).encode_to_vec();
            out.record(RecordKind::Evidence, &message).await?;
        }
        for chosen in plan.sets {
            self.set(&chosen, plan.reader, order.history, &mut out)
                .await?;
            made.sets.push(BundleSet {
                set: chosen.name,
                feed: chosen.feed.id,
                from: chosen.since,
                size: chosen.at.size,
            });
        }
        let Out { writer, to } = out;
        let sent = to.send(writer.end()?).await;
        sent.map_err(|_| NodeError::Busy("nobody takes the bundle any more"))?;
        audit(&order.to, &made);
        Ok(made)
    }

    /// Decides what goes in. Blocking.
    fn plan(&self, order: &BundleOrder) -> Result<Plan, NodeError> {
        let no_roster = || NodeError::Misuse(no_place(self.node.member_slug()));
        let snapshot = self.snapshots.newest().ok_or_else(no_roster)?;
        let (reader, who) = match &order.to {
            Recipient::Member(slug) => {
                let member = snapshot.roster().roster().member_by_slug(slug);
                let number = member.map(|member| member.number);
                let number = number.ok_or_else(|| NodeError::NotFound {
                    what: "member",
                    name: slug.to_string(),
                })?;
                if !snapshot.may_connect(number) {
                    let why = format!("{slug} is not an active member: nothing goes to it");
                    return Err(NodeError::Misuse(why));
                }
                (Reader::Member(number), slug.to_string())
            }
            Recipient::Authority(name) => {
                authority(name)?;
                if order.sets.is_empty() {
                    let why = "name each set that an authority is to have, with --set SET";
                    return Err(NodeError::Misuse(why.to_owned()));
                }
                (Reader::Authority, name.clone())
            }
        };
        let (sets, left_out) = self.choose(order, reader, &who, &snapshot)?;
        if sets.len() > FEEDS_MAX {
            let why = format!("a bundle takes {FEEDS_MAX} sets: name some with --set SET");
            return Err(NodeError::Misuse(why));
        }
        if sets.is_empty() {
            let why = format!("no set that is held here may go to {who}");
            return Err(NodeError::Misuse(why));
        }
        let evidence = self.evidence(reader, &sets)?;
        Ok(Plan {
            documents: self.documents(reader, &sets, &snapshot),
            reader,
            sets,
            evidence,
            left_out,
        })
    }

    fn choose(
        &self,
        order: &BundleOrder,
        reader: Reader,
        who: &str,
        snapshot: &Arc<Snapshot>,
    ) -> Result<(Vec<Chosen>, u64), NodeError> {
        if order.sets.is_empty() {
            let all = self.node.store().feeds();
            let may = |feed: &FeedInfo| self.allow(feed, reader, who, snapshot).is_ok();
            let (mut chosen, mut left_out) = (Vec::new(), 0);
            for feed in all {
                match Self::chosen(&feed, &order.held) {
                    Ok(set) if may(&feed) => chosen.push(set),
                    Ok(_) | Err(_) => left_out += 1,
                }
            }
            chosen.sort_by(|a, b| a.name.cmp(&b.name));
            return Ok((chosen, left_out));
        }
        let mut chosen: Vec<Chosen> = Vec::new();
        for name in &order.sets {
            let feed = self.node.feed_of(name)?;
            self.allow(&feed, reader, who, snapshot)?;
            let set = Self::chosen(&feed, &order.held)?;
            if chosen.iter().any(|other| other.name == set.name) {
                return Err(NodeError::Misuse(format!("{name} is named twice")));
            }
            chosen.push(set);
        }
        Ok((chosen, 0))
    }

    /// PROTOCOL 15.4, 15.6 and 15.9, in words that say which of them is in the way: this
    /// node's operator may know.
    fn allow(
        &self,
        feed: &FeedInfo,
        reader: Reader,
        who: &str,
        snapshot: &Arc<Snapshot>,
    ) -> Result<(), NodeError> {
        check_may_leave(feed)?;
        let refuse = |why: &str| NodeError::NotGranted {
            set: name_of(feed),
            who: who.to_owned(),
            why: why.to_owned(),
        };
        let gone = "it does not answer here; hashpact feeds says why";
        let reach = Reach::of(self.node.store(), Arc::clone(snapshot), &feed.id);
        let reach = reach.map_err(|_| refuse(gone))?;
        match reader {
            Reader::Authority => reach.may_hand_over().map_err(|_| {
                refuse("only what this member publishes itself goes to who is no member")
            }),
            Reader::Member(number) if reach.may_read(number).is_err() => Err(refuse(
                "that member is not granted the set; its publisher can grant it",
            )),
            Reader::Member(number) => reach.may_serve(number).map_err(|_| {
                refuse("this member may read the set and not relay it; ask its publisher")
            }),
        }
    }

    fn chosen(feed: &FeedInfo, held: &BTreeMap<String, u64>) -> Result<Chosen, NodeError> {
        let name = name_of(feed);
        let at = feed.applied.ok_or_else(|| {
            NodeError::Misuse(format!(
                "{name} has no head yet: nothing of it can be proved"
            ))
        })?;
        Ok(Chosen {
            // Who holds more than is here gets the head alone.
            since: held.get(&name).copied().unwrap_or(0).min(at.size),
            name,
            feed: feed.clone(),
            at,
        })
    }

    /// A member gets what it would get by `GetRoster`; an authority what it needs to
    /// verify the sets: the chain, and the publisher's card.
    fn documents(&self, reader: Reader, sets: &[Chosen], snapshot: &Snapshot) -> Vec<RosterItem> {
        let state = self.node.membership().state();
        let now = self.node.clock().now();
        match reader {
            Reader::Member(member) => {
                let reach = snapshot.may_get_roster(&KeyOwner {
                    member,
                    node: self.node.name().clone(),
                    card: CardState::Current,
                });
                roster_items(&state, reach, 1, now)
            }
            Reader::Authority => {
                let all = roster_items(&state, RosterReach::All, 1, now);
                let rosters = all
                    .into_iter()
                    .filter(|item| matches!(item, RosterItem::Roster(_)));
                let mut publishers: Vec<_> = sets.iter().map(|set| set.feed.publisher).collect();
                publishers.dedup();
                let cards = publishers
                    .into_iter()
                    .filter_map(|member| card_in_force(&state, member, now))
                    .map(|card| RosterItem::NodeCard(card.as_bytes().clone()));
                rosters.chain(cards).collect()
            }
        }
    }

    fn evidence(&self, reader: Reader, sets: &[Chosen]) -> Result<Vec<Announcement>, NodeError> {
        let mut all = Vec::new();
        for set in sets {
            let about = self.node.store().evidence_about(&set.feed.id)?;
            all.extend(
                about
                    .into_iter()
                    .map(|(_, piece)| Announcement::Evidence(piece)),
            );
        }
        // Whose cards contradict themselves is no business of who is out.
        if reader == Reader::Authority {
            return Ok(all);
        }
        let equivocations = self.node.store().open_equivocations()?;
        all.extend(
            equivocations
                .into_iter()
                .map(Announcement::DocumentEvidence),
        );
        Ok(all)
    }

    async fn set(
        &self,
        chosen: &Chosen,
        reader: Reader,
        history: bool,
        out: &mut Out,
    ) -> Result<(), NodeError> {
        let (node, snapshots) = (Arc::clone(&self.node), Arc::clone(&self.snapshots));
        let (id, since) = (chosen.feed.id, chosen.since);
        let (feed, at, name) = (chosen.feed.clone(), chosen.at, chosen.name.clone());
        let said = blocking(move || {
            let snapshot = snapshots.newest().ok_or_else(|| gone(&name))?;
            let reach = Reach::of(node.store(), snapshot, &id).map_err(|_| gone(&name))?;
            // Without receipts: they go to those who may hear of the feed, by Watch.
            let mut said = described(&node, &reach, &feed, at)?;
            said.from = since;
            Ok(said)
        });
        let message = wire::BundleFeed::from(said.await?).encode_to_vec();
        out.record(RecordKind::Feed, &message).await?;
        if since == at.size {
            return Ok(());
        }
        let request = PullRequest {
            feed: id,
            from: since,
            to: at.size,
            head_size: at.size,
            head_root: at.root,
            proof_only: false,
            // As in a first pull: whoever follows a feed keeps its history.
            elide_dead: since == 0 && !history,
        };
        let parts = self.pulls.serve_to(reader, request).await;
        let mut parts = parts.map_err(|error| of_service(&chosen.name, &error))?;
        while let Some(part) = parts.next().await {
            let part = part.map_err(|error| of_service(&chosen.name, &error))?;
            let PullPart::Chunk(chunk) = &part else {
                return Err(NodeError::Internal(
                    "a proof where leaves are due".to_owned(),
                ));
            };
            let mut body = chunk.from.to_be_bytes().to_vec();
            body.extend_from_slice(&chunk.to.to_be_bytes());
            wire::PullItem::from(part)
                .encode(&mut body)
                .map_err(|error| NodeError::Internal(error.to_string()))?;
            out.record(RecordKind::Chunk, &body).await?;
        }
        Ok(())
    }
}

/// A head, and the describe leaf in force below it with its proof. Blocking.
fn described(
    node: &Node,
    reach: &Reach,
    feed: &FeedInfo,
    at: HeadRef,
) -> Result<BundleFeed, NodeError> {
    let store = node.store();
    let head = stored_head(store, reach, at)?.ok_or_else(|| gone(&name_of(feed)))?;
    // As it was when the head was taken: the feed may have grown since.
    let (index, payload) = feed.describe.clone().ok_or_else(|| gone(&name_of(feed)))?;
    Ok(BundleFeed {
        head,
        from: 0,
        describe_index: index,
        describe: page::encode_plain(&[RawLeaf::new(DESCRIBE, payload)])?,
        inclusion: store.inclusion_proof(feed.no, index, at.size)?,
    })
}

fn name_of(feed: &FeedInfo) -> String {
    let describe = describe_of(feed);
    describe.map_or_else(|| feed.id.to_string(), |describe| describe.name.to_string())
}

fn no_place(member: &Slug) -> String {
    format!(
        "{member} is not in a roster here yet: hashpact roster import FILE takes what the \
         administrators sent"
    )
}

fn gone(name: &str) -> NodeError {
    NodeError::NotFound {
        what: "set",
        name: name.to_owned(),
    }
}

/// What ends a set while it is written: nothing else than what ends a pull.
fn of_service(name: &str, error: &ServiceError) -> NodeError {
    if let ServiceError::Rejected(Rejection::NotFound) = error {
        return NodeError::NotGranted {
            set: name.to_owned(),
            who: "the recipient".to_owned(),
            why: "access to it ended while the bundle was made; it is not whole".to_owned(),
        };
    }
    NodeError::Internal(format!("{name}: {error}"))
}

/// What left this node, for whom.
fn audit(to: &Recipient, made: &BundleMade) {
    let (kind, name) = match to {
        Recipient::Member(slug) => ("member", slug.to_string()),
        Recipient::Authority(name) => ("authority", name.clone()),
    };
    let sets: Vec<String> = made
        .sets
        .iter()
        .map(|set| format!("{} {}..{}", set.set, set.from, set.size))
        .collect();
    tracing::info!(
        call = "bundle_export",
        kind,
        to = name,
        sets = sets.join(", "),
    );
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, NodeError> + Send + 'static,
) -> Result<T, NodeError> {
    let done = spawn_blocking(work).await;
    done.unwrap_or(Err(NodeError::Busy("the node is stopping")))
}
