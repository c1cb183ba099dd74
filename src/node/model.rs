//! What callers on this machine hand to the node and get from it.

use hashpact_core::id::{Digest, EntryName, FeedId, MemberNumber, SetName, Slug, UnixMillis};
use hashpact_core::leaf::{
    Basis, MediaKind, Publish, Reason as OpinionReason, RetractReason, Stance,
};
use hashpact_core::signal::{Signal, SignalKind};
use hashpact_core::{policy::Verdict, witness::judge::Judged};
pub use hashpact_store::quarantine::{Decision, Reason};
pub use hashpact_store::{IndexKey, JournalEntry, Room, Space};

use crate::opinions::Opinions;
pub use crate::peer_view::PeerView;

/// What a new set is.
#[derive(Debug, Clone)]
pub struct NewSet {
    /// The set's slug; the member's is put before it.
    pub set: Slug,
    /// For people, at most 200 bytes.
    pub title: String,
    /// Where it comes from.
    pub source: SetSource,
    /// The scheme of unqualified classifications, such as `tc`.
    pub classification_scheme: String,
    /// Who may read it: nobody but the publisher when empty.
    pub grants: Vec<Grantee>,
}

/// Own work, or somebody else's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetSource {
    /// The publisher's own work, which it may share.
    OwnWork,
    /// Somebody else's list.
    ThirdParty {
        /// Whose.
        list_owner: String,
        /// Whether it may be shared on. Without that the set is local only.
        may_share: bool,
        /// The terms in words.
        terms: String,
    },
}

/// Who may read a set, as people write it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grantee {
    /// `all`, `group:NAME` or a member's slug.
    pub who: String,
    /// Whether it may serve the leaves onward.
    pub relay: bool,
}

/// A set and where it stands.
#[derive(Debug, Clone)]
pub struct SetInfo {
    /// The full name.
    pub name: SetName,
    /// Its feed.
    pub feed: FeedId,
    /// For people.
    pub title: String,
    /// Where it comes from.
    pub source: SetSource,
    /// The scheme of unqualified classifications.
    pub classification_scheme: String,
    /// Who may read it.
    pub grants: Vec<Grantee>,
    /// Whether this node's member publishes it.
    pub own: bool,
    /// The epoch of the head.
    pub epoch: u32,
    /// Leaves under the head.
    pub size: u64,
    /// The head's root.
    pub root: Digest,
    /// Entries that are neither retracted, replaced nor erased.
    pub live_entries: u64,
    /// When it was first described.
    pub created: UnixMillis,
    /// Why nothing is signed at present, if so.
    pub closed: Option<String>,
    /// Whether it holds opinions, not entries.
    pub opinions: bool,
}

/// An entry to publish.
#[derive(Debug, Clone)]
pub struct NewEntry {
    /// What it says. `replaces` and `published` are the node's to fill in.
    pub body: Publish,
    /// The line it comes from, given back with a rejection.
    pub line: u64,
}

/// An entry or selector that the node refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineRejection {
    /// The line it came from.
    pub line: u64,
    /// A stable code.
    pub code: &'static str,
    /// The reason, without the value.
    pub reason: String,
}

/// How far an import has come.
#[derive(Debug, Clone, Default)]
pub struct ImportProgress {
    /// Entries handed in.
    pub received: u64,
    /// Entries that are new.
    pub added: u64,
    /// Entries that were known and have changed.
    pub replaced: u64,
    /// Entries that were known and are the same.
    pub unchanged: u64,
    /// Entries refused since the last progress.
    pub rejected: Vec<LineRejection>,
    /// The head that covers all that is acknowledged.
    pub head: Option<(u64, Digest)>,
}

/// Which entries to take back.
#[derive(Debug, Clone)]
pub enum Selector {
    /// The entry of this first index.
    Entry(u64),
    /// Every live entry of the set that carries this signal.
    Signal(Signal),
    /// The entry with this source reference.
    SourceReference(String),
}

/// Entries to take back, and why.
#[derive(Debug, Clone)]
pub struct Retraction {
    /// Why.
    pub reason: RetractReason,
    /// In words; at most 500 bytes.
    pub note: String,
    /// Whether receivers should recheck what they did because of them.
    pub recheck: bool,
    /// Which, with the line each comes from.
    pub selectors: Vec<(u64, Selector)>,
}

/// What became of a retraction.
#[derive(Debug, Clone)]
pub struct Retracted {
    /// Entries taken back.
    pub retracted: u64,
    /// Entries that no longer stood.
    pub already_dead: u64,
    /// Selectors that name nothing in the set.
    pub not_found: Vec<LineRejection>,
    /// The first retract leaf, if one was written.
    pub leaf_index: Option<u64>,
    /// The head that covers it.
    pub head: (u64, Digest),
    /// Whether the identity key signed it as well.
    pub identity_signed: bool,
}

/// Entries to erase, and by what right.
#[derive(Debug, Clone)]
pub struct Erasure {
    /// The law it rests on, 1 to 500 bytes.
    pub legal_basis: String,
    /// Which, with the line each comes from.
    pub selectors: Vec<(u64, Selector)>,
}

/// What became of an erasure.
#[derive(Debug, Clone)]
pub struct Erased {
    /// Entries of which content was there.
    pub erased: u64,
    /// Versions of entries whose content went.
    pub payloads: u64,
    /// Entries without content before.
    pub already_erased: u64,
    /// Selectors that name nothing in the set.
    pub not_found: Vec<LineRejection>,
    /// The first erase leaf, if one was written.
    pub leaf_index: Option<u64>,
    /// The head that covers it.
    pub head: (u64, Digest),
    /// Whether the identity key signed for it as well.
    pub identity_signed: bool,
}

/// Where an entry that matches stands, as the core says.
pub use hashpact_core::standing::Standing as MatchStanding;

/// An opinion to say, or to withdraw.
#[derive(Debug, Clone)]
pub struct Opine {
    /// What it is about.
    pub about: OpineAbout,
    /// What is said; `None` takes back what was said before.
    pub says: Option<Saying>,
    /// For the other members, at most 500 bytes.
    pub note: String,
    /// The own set of opinions to write to; `None` for the only one, or `opinions`.
    pub set: Option<Slug>,
}

/// What an opinion is about.
#[derive(Debug, Clone)]
pub enum OpineAbout {
    /// An entry, by any of its versions.
    Entry {
        /// The entry.
        entry: EntryName,
        /// One kind of its signals; `None` for the whole entry.
        kind: Option<SignalKind>,
    },
    /// An entry of a set that is not held any more: to take back what was said of it.
    Gone {
        /// The feed that it was of.
        feed: FeedId,
        /// Its first index.
        first: u64,
        /// One kind of its signals.
        kind: Option<SignalKind>,
    },
    /// A signal that this member publishes itself.
    Signal(Signal),
}

/// What is thought of it.
#[derive(Debug, Clone, Copy)]
pub struct Saying {
    /// Which way.
    pub stance: Stance,
    /// How sure, 0 to 100.
    pub confidence: u8,
    /// Why.
    pub reason: &'static OpinionReason,
}

/// What came of an opinion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opined {
    /// The set that it stands in, `member/set`.
    pub set: String,
    /// Whether the set was made for it.
    pub is_new: bool,
    /// Whether anybody may read the set.
    pub granted: bool,
    /// The index of the leaf that says it, or takes it back; `None` where it was said
    /// already.
    pub index: Option<u64>,
    /// Earlier versions that no longer count.
    pub replaced: usize,
    /// Leaves under the set's head.
    pub size: u64,
}

/// One entry that carries a signal that was asked for.
#[derive(Debug, Clone)]
pub struct Match {
    /// The entry.
    pub entry: EntryName,
    /// The index of the version that matched.
    pub index: u64,
    /// The feed.
    pub feed: FeedId,
    /// Who publishes it.
    pub publisher: MemberNumber,
    /// Such as `tc:A1`.
    pub classification: String,
    /// Who or what judged it.
    pub basis: Basis,
    /// What the media is.
    pub media_kind: MediaKind,
    /// When it was published.
    pub published: UnixMillis,
    /// PDQ quality, where known.
    pub quality: Option<u8>,
    /// Where the entry stands, for the kind of signal that matched.
    pub standing: MatchStanding,
    /// What members think of it.
    pub opinions: Opinions,
}

/// How near a match may be.
#[derive(Debug, Clone, Copy, Default)]
pub struct MatchOptions {
    /// PDQ: differing bits at most; `None` for the 31 that the field agrees on, 0 for
    /// the very value. Of vPDQ it is that of frames.
    pub max_distance: Option<u32>,
    /// vPDQ: how many percent of its frames an entry's video has at least; `None` for 80.
    pub video_query_percent: Option<u8>,
    /// vPDQ: how many percent of the frames of the entry's video it has at least; `None`
    /// for 0.
    pub video_compared_percent: Option<u8>,
}

impl MatchOptions {
    /// The very value.
    #[must_use]
    pub fn exact() -> Self {
        Self {
            max_distance: Some(0),
            ..Self::default()
        }
    }
}

/// An entry that matches, and how nearly.
#[derive(Debug, Clone)]
pub struct Found {
    /// The entry.
    pub entry: Match,
    /// Differing bits of PDQ; 0 for the very value, and for every other kind.
    pub distance: u32,
    /// How much of two videos is the same; of vPDQ alone.
    pub video: Option<VideoShare>,
    /// What the published signal is found by: that which was asked for, or one near it.
    pub key: IndexKey,
}

/// How much of two videos is the same, in whole percent, rounded down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct VideoShare {
    /// Of the frames asked for, those that the entry's video has.
    pub query_percent: u8,
    /// Of the frames of the entry's video, those that were asked for.
    pub compared_percent: u8,
}

/// What is known of one signal.
#[derive(Debug, Clone, Default)]
pub struct Matched {
    /// Nearest first.
    pub found: Vec<Found>,
    /// Whether there are more than are told.
    pub more: bool,
    /// Whether so many values are near that not all were looked up: who else says
    /// something of it is not known.
    pub crowded: bool,
    /// Whether it was not answered, or not whole, since the signals before it in the
    /// same call had so many matches: it is to be asked again, with fewer.
    pub over: bool,
}

/// An entry as exported.
#[derive(Debug, Clone)]
pub struct ExportedEntry {
    /// The entry.
    pub entry: EntryName,
    /// The index of this version.
    pub index: u64,
    /// Who publishes it.
    pub publisher: Slug,
    /// `active`, `disputed`, `review`, `withdrawn`.
    pub state: &'static str,
    /// What the policy makes of it, where that was asked for.
    pub verdict: Option<Verdict>,
    /// The kinds of its signals that opinions dispute.
    pub disputed_kinds: Vec<SignalKind>,
    /// What it says.
    pub body: Publish,
}

/// What became of documents that were handed in.
#[derive(Debug, Clone, Default)]
pub struct RosterImport {
    /// The roster's version after it.
    pub version: u64,
    /// Documents that are new and in force.
    pub accepted: u32,
    /// Documents that were held already.
    pub known: u32,
    /// Why the others were refused.
    pub refused: Vec<String>,
    /// Of the new ones: what it is and the digest of its payload.
    pub taken_in: Vec<(&'static str, Digest)>,
    /// Who is suspended by the new ones.
    pub suspended: Vec<Slug>,
}

/// How pulling a feed stands.
#[derive(Debug, Clone, Default)]
pub struct FeedPull {
    /// The size of the newest verified head heard of.
    pub newest: u64,
    /// `caught up`, `pulling`, `waiting` for a peer that may serve it, `behind` where
    /// nobody connected may, `frozen`.
    pub state: &'static str,
    /// Whom leaves are being pulled from.
    pub from: Option<String>,
    /// When it last changed.
    pub updated: UnixMillis,
    /// The code of what was refused last; empty when nothing was.
    pub last_error: String,
}

/// A feed that the node holds.
#[derive(Debug, Clone)]
pub struct FeedView {
    /// The feed.
    pub id: FeedId,
    /// The set's name; before it is known the beginning of the feed's id.
    pub name: String,
    /// The publisher's slug.
    pub publisher: String,
    /// Whether this node writes it.
    pub own: bool,
    /// The epoch.
    pub epoch: u32,
    /// Leaves that are durable and verified.
    pub stored: u64,
    /// Leaves that look-ups answer from.
    pub indexed: u64,
    /// The size of the newest verified head heard of.
    pub head: u64,
    /// The root of the head that is held.
    pub root: Option<Digest>,
    /// Entries that are neither retracted, replaced nor erased.
    pub live_entries: u64,
    /// Entries that wait in quarantine.
    pub quarantined: u64,
    /// Of an own feed `open` or `closed`; else as [`FeedPull::state`], `held` where
    /// nothing pulls, `frozen`, `silent` or `dropping`.
    pub state: &'static str,
    /// Whom leaves are being pulled from; empty when nobody.
    pub from_peer: String,
    /// When that last changed.
    pub updated: UnixMillis,
    /// Where it stands with its witnesses.
    pub judged: Option<Judged>,
    /// The size that this node itself has cosigned last, as a witness.
    pub cosigned: Option<u64>,
    /// The store was restored, and it is not known yet whether this is all of the feed.
    pub unconfirmed: bool,
    /// The code of what was refused last; empty when nothing was.
    pub last_error: String,
    /// Leaves that somebody left out without reason.
    pub missing: u64,
}

/// Entries of one set that are held back for one reason.
#[derive(Debug, Clone)]
pub struct QuarantineLot {
    /// The set's name.
    pub set: String,
    /// Why.
    pub reason: Reason,
    /// The kind of signal that is held back; `None` for whole entries.
    pub kind: Option<SignalKind>,
    /// Entries that wait.
    pub held: u64,
    /// Entries that the operator released.
    pub released: u64,
    /// Entries that the operator dropped.
    pub dropped: u64,
    /// Of a conflict of digests, the first few of the entries that it is with.
    pub conflicts_with: Vec<EntryName>,
}

/// An entry that is held back.
#[derive(Debug, Clone)]
pub struct QuarantinedEntry {
    /// The set's name.
    pub set: String,
    /// The entry; `None` while its feed is not described.
    pub entry: Option<EntryName>,
    /// The index of the version that is held back.
    pub index: u64,
    /// Why.
    pub reasons: Vec<Reason>,
    /// The kinds of signal that are held back; none for the whole entry.
    pub kinds: Vec<SignalKind>,
    /// When it was published, by the publisher's clock.
    pub published: UnixMillis,
    /// Of a conflict of digests, a counted entry that says another SHA-256.
    pub conflicts_with: Option<EntryName>,
}

/// What recomputing everything came to.
#[derive(Debug, Clone, Default)]
pub struct VerifyOutcome {
    /// What is wrong, a sentence each; empty when all is sound.
    pub problems: Vec<String>,
    /// Feeds checked.
    pub feeds: u64,
    /// Leaves hashed.
    pub leaves: u64,
    /// Heads checked.
    pub heads: u64,
    /// Postings compared.
    pub postings: u64,
    /// Leaves of the audit feed hashed.
    pub audit_leaves: u64,
}

/// What the exchange with other nodes can tell of itself.
pub trait ExchangeView: Send + Sync {
    /// Every other node of the coalition.
    fn peers(&self) -> Vec<PeerView>;
    /// How pulling a feed stands.
    fn feed(&self, feed: &hashpact_core::id::FeedId) -> Option<FeedPull>;
    /// How far each connected peer is ahead, feed by feed.
    fn lags(&self) -> Vec<PeerLag>;
}

/// How far a peer is ahead of this node in a feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerLag {
    /// The peer, `member/node`.
    pub peer: String,
    /// The feed.
    pub feed: FeedId,
    /// Leaves under the newest head that the peer announced and look-ups do not answer
    /// from.
    pub leaves: u64,
}

/// The node at a glance.
#[derive(Debug, Clone)]
pub struct Status {
    /// This node's member.
    pub member: Slug,
    /// Its name on the member's card.
    pub node: Slug,
    /// The coalition; `None` before the first roster came.
    pub coalition: Option<String>,
    /// The genesis that the node was given.
    pub genesis: Digest,
    /// The roster's version; 0 before the first.
    pub roster_version: u64,
    /// `fresh`, `grace`, `stale` or `none`.
    pub roster_state: &'static str,
    /// When the roster expires.
    pub roster_expires: UnixMillis,
    /// The version of this member's newest card; 0 without one.
    pub card_version: u64,
    /// When that card expires.
    pub card_expires: UnixMillis,
    /// Whether the node answers and exchanges.
    pub ready: bool,
    /// What wants attention, a sentence each.
    pub notices: Vec<String>,
    /// Feeds held.
    pub feeds: u64,
    /// Leaves indexed, of all feeds.
    pub leaves: u64,
    /// Live entries of all sets.
    pub live_entries: u64,
    /// Entries that wait in quarantine, of all feeds.
    pub quarantined: u64,
    /// The policy in force, as answers name it.
    pub policy: String,
    /// Its rules.
    pub policy_rules: u64,
    /// Since when it is in force.
    pub policy_since: UnixMillis,
    /// Mutes that have not run out.
    pub mutes: u64,
    /// Bytes of the store on disk.
    pub store_bytes: u64,
    /// Other nodes on the cards.
    pub peers: u64,
    /// Of these, connected.
    pub peers_connected: u64,
    /// When the node was opened.
    pub started: UnixMillis,
}
