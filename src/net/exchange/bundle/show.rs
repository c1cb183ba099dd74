//! What a bundle holds, verified without a node: by the roster chain in it from the
//! genesis digest on, the cards in it, and its proofs.
//!
//! What an authority or an auditor runs who is no member. No clock decides: what was
//! proved when the bundle was made is proved for ever.

use std::sync::Arc;

use hashpact_core::bundle::Header;
use hashpact_core::card::{CardBook, EndpointPolicy};
use hashpact_core::checkpoint;
use hashpact_core::chunk::{self, PinnedHead};
use hashpact_core::envelope::{Envelope, PayloadType};
use hashpact_core::id::{Digest, FeedId};
use hashpact_core::leaf::{Describe, LeafBody, PUBLISH, RawLeaf};
use hashpact_core::merkle::proof::verify_inclusion;
use hashpact_core::page;
use hashpact_core::reject::Rejection;
use hashpact_core::roster::RosterChain;
use hashpact_node::NodeError;
use hashpact_node::bundle::{BundleFile, BundleRefusal};

use super::read::{self, Contents, FeedAt, Record};
use crate::exchange::pipeline::read_describe;
use crate::types::{BundleFeed, RosterItem};

/// What a bundle holds.
#[derive(Debug, Clone)]
pub struct BundleView {
    /// What it says of itself.
    pub header: Header,
    /// The coalition, by its roster; `None` without a chain that begins at the genesis.
    pub coalition: Option<String>,
    /// The newest roster in it that the chain leads to; 0 for none.
    pub roster_version: u64,
    /// Rosters, cards and suspensions.
    pub documents: u64,
    /// Pieces of evidence.
    pub evidence: u64,
    /// Its sets.
    pub feeds: Vec<FeedView>,
    /// What is wrong with the rest of it.
    pub refused: Vec<BundleRefusal>,
}

/// A set in a bundle.
#[derive(Debug, Clone)]
pub struct FeedView {
    /// Its name, as its describe leaf says it.
    pub set: String,
    /// Its title.
    pub title: String,
    /// Its publisher's slug.
    pub publisher: String,
    /// Its feed.
    pub feed: FeedId,
    /// The epoch of its head.
    pub epoch: u32,
    /// The first leaf in the bundle.
    pub from: u64,
    /// The size of its head.
    pub size: u64,
    /// Publish leaves in it with their payload.
    pub entries: u64,
    /// Leaves in it as their record alone.
    pub elided: u64,
    /// Cosignatures beside the head, which are not verified here.
    pub cosignatures: u64,
    /// What is wrong with it; nothing where all of it is verified.
    pub refused: Vec<BundleRefusal>,
}

/// Reads and verifies all of a bundle; `progress` is told leaves done and leaves in all.
///
/// # Errors
/// [`NodeError::Rejected`] for a file that is no bundle, or of another coalition than
/// `genesis`; what reading it answers.
pub async fn show(
    file: Arc<dyn BundleFile>,
    genesis: Option<Digest>,
    mut progress: impl FnMut(u64, u64),
) -> Result<BundleView, NodeError> {
    let Contents {
        header,
        documents,
        evidence,
        feeds,
        refused,
    } = read::contents(&file).await?;
    if genesis.is_some_and(|genesis| genesis != header.genesis) {
        return Err(Rejection::WrongGenesis { what: "bundle" }.into());
    }
    let mut view = BundleView {
        header,
        coalition: None,
        roster_version: 0,
        documents: 0,
        evidence: 0,
        feeds: Vec::new(),
        refused,
    };
    let known = known(&file, &documents, &mut view).await?;
    for (at, record) in evidence.iter().enumerate() {
        match read::evidence(&file, record).await {
            Ok(_) => view.evidence += 1,
            Err(error) => refuse(format!("evidence {}", at + 1), error, &mut view.refused)?,
        }
    }
    let of = feeds.iter().flat_map(|at| &at.chunks);
    let of = of.map(|chunk| chunk.to.saturating_sub(chunk.from));
    let of = of.fold(0, u64::saturating_add);
    let mut done = 0_u64;
    for at in &feeds {
        let mut count = |leaves| {
            done = done.saturating_add(leaves);
            progress(done, of);
        };
        let feed = feed(&file, at, known.as_ref(), &mut count).await?;
        view.feeds.push(feed);
    }
    Ok(view)
}

/// Who is who, by the documents of a bundle alone.
struct Known {
    chain: RosterChain,
    cards: CardBook,
}

async fn known(
    file: &Arc<dyn BundleFile>,
    records: &[Record],
    view: &mut BundleView,
) -> Result<Option<Known>, NodeError> {
    let mut rosters = Vec::new();
    let mut cards = Vec::new();
    for (at, record) in records.iter().enumerate() {
        let what = format!("document {}", at + 1);
        let read = read::document(file, record).await;
        let read = read.and_then(|item| {
            match item {
                Some(RosterItem::Roster(bytes)) => {
                    rosters.push(Envelope::decode(bytes, PayloadType::Roster)?);
                }
                Some(RosterItem::NodeCard(bytes)) => {
                    cards.push((
                        what.clone(),
                        Envelope::decode(bytes, PayloadType::NodeCard)?,
                    ));
                }
                Some(RosterItem::Suspension(_)) | None => {}
            }
            Ok(())
        });
        match read {
            Ok(()) => view.documents += 1,
            Err(error) => refuse(what, error, &mut view.refused)?,
        }
    }
    let chain = match RosterChain::restore(rosters, &view.header.genesis) {
        Ok(chain) => chain,
        Err(rejection) => {
            view.refused.push(BundleRefusal::of("roster", &rejection));
            return Ok(None);
        }
    };
    view.coalition = Some(chain.roster().coalition.to_string());
    view.roster_version = chain.version();
    let mut book = CardBook::new(EndpointPolicy::AllowLocal);
    for (what, card) in cards {
        if let Err(rejection) = book.restore(card, &chain) {
            view.refused.push(BundleRefusal::of(what, &rejection));
        }
    }
    Ok(Some(Known { chain, cards: book }))
}

async fn feed(
    file: &Arc<dyn BundleFile>,
    at: &FeedAt,
    known: Option<&Known>,
    done: &mut impl FnMut(u64),
) -> Result<FeedView, NodeError> {
    let said = match read::feed(file, &at.record).await {
        Ok(said) => said,
        Err(error) => {
            let what = format!("the feed at byte {}", at.record.offset);
            let mut view = FeedView::new(&what, FeedId(Digest([0; 32])));
            refuse(what, error, &mut view.refused)?;
            return Ok(view);
        }
    };
    let mut view = FeedView::new(&said.head.feed.to_string(), said.head.feed);
    view.from = said.from;
    view.cosignatures = u64::try_from(said.head.cosignatures.len()).unwrap_or(u64::MAX);
    let head = known
        .ok_or_else(no_roster)
        .and_then(|known| head(&said, known, &mut view));
    let head = match head {
        Ok(head) => head,
        Err(rejection) => {
            view.refused.push(BundleRefusal::of(&view.set, &rejection));
            return Ok(view);
        }
    };
    if let Err(error) = leaves(file, at, (&said, known), head, &mut view, done).await {
        let set = view.set.clone();
        refuse(set, error, &mut view.refused)?;
    }
    Ok(view)
}

impl FeedView {
    fn new(name: &str, feed: FeedId) -> Self {
        Self {
            set: name.to_owned(),
            title: String::new(),
            publisher: String::new(),
            feed,
            epoch: 0,
            from: 0,
            size: 0,
            entries: 0,
            elided: 0,
            cosignatures: 0,
            refused: Vec::new(),
        }
    }
}

/// Verifies a head, and that the describe leaf stands below it.
fn head(said: &BundleFeed, known: &Known, view: &mut FeedView) -> Result<PinnedHead, Rejection> {
    let roster = known.chain.roster();
    let publisher = said.head.publisher;
    let unknown = || Rejection::Unknown {
        what: "publisher",
        why: format!("no member has number {publisher}"),
    };
    let member = roster.member(publisher).ok_or_else(unknown)?;
    view.publisher = member.slug.to_string();
    let (leaf, describe) = describe(said)?;
    view.set = describe.name.to_string();
    view.title.clone_from(&describe.title);
    if describe.name.member != member.slug {
        return Err(Rejection::invalid(
            "describe leaf",
            "the name is of another member",
        ));
    }
    let (feed, set) = (said.head.feed, &describe.name.set);
    let keys = |epoch| known.cards.feed_keys(publisher, set, feed, epoch, roster);
    let head = checkpoint::verify(&said.head.note, &roster.coalition, &feed, keys)?;
    view.epoch = head.checkpoint.origin.epoch;
    view.size = head.size();
    let (size, root) = (head.size(), head.root());
    verify_inclusion(
        &leaf.hash(),
        said.describe_index,
        size,
        &said.inclusion,
        &root,
    )?;
    Ok(PinnedHead { size, root })
}

fn describe(said: &BundleFeed) -> Result<(RawLeaf, Describe), Rejection> {
    let mut leaves = page::decode_plain(&said.describe, 1)?;
    let none = || Rejection::invalid("feed of a bundle", "no describe leaf");
    let leaf = leaves.pop().ok_or_else(none)?;
    let describe = read_describe(&leaf, said.describe_index).ok_or_else(none)?;
    Ok((leaf, describe))
}

/// Verifies every chunk, and that they go from the first leaf to the head.
async fn leaves(
    file: &Arc<dyn BundleFile>,
    at: &FeedAt,
    (said, known): (&BundleFeed, Option<&Known>),
    head: PinnedHead,
    view: &mut FeedView,
    done: &mut impl FnMut(u64),
) -> Result<(), NodeError> {
    let mut next = said.from;
    for place in &at.chunks {
        if place.from != next {
            return Err(Rejection::WrongRange {
                expected: next,
                got: place.from,
            }
            .into());
        }
        let parts = read::chunk(file, place).await?;
        let chunk = chunk::verify(&parts, &head)?;
        if let Some((_, first)) = chunk.leaves().next().filter(|(index, _)| *index == 0) {
            check_first(first, said, known)?;
        }
        for (_, leaf) in chunk.leaves() {
            match leaf.body {
                LeafBody::Elided(_) => view.elided += 1,
                LeafBody::Payload(_) => view.entries += u64::from(leaf.kind == PUBLISH),
            }
        }
        next = place.to;
        done(place.to.saturating_sub(place.from));
    }
    if let Some(rejection) = &at.broken {
        return Err(rejection.clone().into());
    }
    if next != head.size {
        let (at, of) = (next, head.size);
        return Err(Rejection::Truncated { at, of }.into());
    }
    Ok(())
}

/// PROTOCOL 2.6: the feed id is a digest over publisher and first payload.
fn check_first(first: &RawLeaf, said: &BundleFeed, known: Option<&Known>) -> Result<(), Rejection> {
    let feed = said.head.feed;
    let wrong = || Rejection::WrongFirstLeaf { feed };
    let known = known.ok_or_else(wrong)?;
    let payload = first.payload().ok_or_else(wrong)?;
    let member = known.chain.roster().member(said.head.publisher);
    let slug = &member.ok_or_else(wrong)?.slug;
    let mut geneses = known.chain.geneses();
    if geneses.any(|genesis| FeedId::derive(&genesis, slug, payload) == feed) {
        Ok(())
    } else {
        Err(wrong())
    }
}

fn no_roster() -> Rejection {
    Rejection::Unknown {
        what: "roster",
        why: "the bundle has no chain that begins at its genesis".to_owned(),
    }
}

/// Notes what is the file's fault; answers what is not.
fn refuse(
    what: String,
    error: NodeError,
    refused: &mut Vec<BundleRefusal>,
) -> Result<(), NodeError> {
    let NodeError::Rejected(rejection) = &error else {
        return Err(error);
    };
    refused.push(BundleRefusal::of(what, rejection));
    Ok(())
}
