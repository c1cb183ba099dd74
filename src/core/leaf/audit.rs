//! What stands in a node's audit feed: the first leaf of a segment, and acts.
//!
//! Each segment is a feed: records, tree and heads are those of every feed. Its kinds
//! of leaf are not those of a set's feed: met in one, such a leaf says nothing.
//!
//! No signal's value, key or passphrase may stand in an act. Names are slugs, words of
//! ours, counts and digests of documents; what a person wrote goes through [`careful`].

use bytes::Bytes;

use super::rules::{self, Lines};
use crate::id::{Digest, FeedId, Slug, UnixMillis};
use crate::limits::NOTE_MAX_BYTES;
use crate::reject::Rejection;
use crate::wire;

/// The kind byte of a segment's first leaf.
pub const AUDIT_SEGMENT: u8 = 64;
/// The kind byte of an act.
pub const AUDIT_ACT: u8 = 65;
/// The outcome of what was done.
pub const OK: &str = "ok";
/// The outcome of an act of which nobody knows how it ended: the process did first.
pub const INTERRUPTED: &str = "interrupted";
/// Counts in one act.
pub const COUNTS_MAX: usize = 32;
/// Details in one act.
pub const DETAILS_MAX: usize = 32;
/// A detail's text.
pub const TEXT_MAX_BYTES: usize = 500;

const SEGMENT: &str = "audit segment leaf";
const ACT: &str = "audit leaf";
/// Codes, and names of counts and details.
const WORD_MAX_BYTES: usize = 80;
/// "member/set", or a caller's name.
const NAME_MAX_BYTES: usize = 100;

/// The first leaf of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// The digest of the coalition's genesis that the node went by.
    pub genesis: Digest,
    /// The member.
    pub member: Slug,
    /// The node's name on the member's card.
    pub node: Slug,
    /// Counts the segments of a store, from 0.
    pub number: u64,
    /// When it began, by the node's clock.
    pub created: UnixMillis,
    /// The segment before; none for a node's first.
    pub predecessor: Option<Predecessor>,
}

/// A segment's last signed state, as the one after it names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Predecessor {
    /// The segment's id as a feed.
    pub feed: FeedId,
    /// Leaves.
    pub size: u64,
    /// The root over them.
    pub root: Digest,
    /// The head's note, where it is held.
    pub note: Bytes,
    /// Why it was not sealed as it should be; none where it was.
    pub broken: Option<Break>,
}

/// Why a segment began though the one before was not full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Break {
    /// The store holds fewer leaves than were signed: it was restored.
    StoreBehind,
    /// Nothing says what was signed last.
    StateLost,
    /// The leaves held lead to another root than was signed.
    OtherRoot,
}

impl Break {
    /// The stable code.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::StoreBehind => "store_behind",
            Self::StateLost => "state_lost",
            Self::OtherRoot => "other_root",
        }
    }

    const fn to_wire(this: Option<Self>) -> wire::AuditBreak {
        match this {
            None => wire::AuditBreak::Unspecified,
            Some(Self::StoreBehind) => wire::AuditBreak::StoreBehind,
            Some(Self::StateLost) => wire::AuditBreak::StateLost,
            Some(Self::OtherRoot) => wire::AuditBreak::OtherRoot,
        }
    }

    const fn from_wire(of: wire::AuditBreak) -> Option<Self> {
        match of {
            wire::AuditBreak::Unspecified => None,
            wire::AuditBreak::StoreBehind => Some(Self::StoreBehind),
            wire::AuditBreak::StateLost => Some(Self::StateLost),
            wire::AuditBreak::OtherRoot => Some(Self::OtherRoot),
        }
    }
}

impl Segment {
    /// Encodes the payload, with fresh random bytes as `salt`.
    ///
    /// # Errors
    /// [`Rejection::TooLarge`] for a note that is too long.
    pub fn encode(&self, salt: [u8; 16]) -> Result<Bytes, Rejection> {
        let before = self.predecessor.as_ref();
        rules::encode(&wire::AuditSegment {
            salt: Bytes::copy_from_slice(&salt),
            genesis_digest: Bytes::copy_from_slice(self.genesis.as_bytes()),
            member: self.member.to_string(),
            node: self.node.to_string(),
            number: self.number,
            created_ms: self.created.0,
            predecessor: before.map(|before| wire::AuditPredecessor {
                feed_id: Bytes::copy_from_slice(before.feed.0.as_bytes()),
                size: before.size,
                root: Bytes::copy_from_slice(before.root.as_bytes()),
                note: before.note.clone(),
                broken: Break::to_wire(before.broken).into(),
            }),
        })
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// [`Rejection::Malformed`], [`Rejection::Invalid`] or [`Rejection::TooLarge`].
    pub fn read(payload: &Bytes) -> Result<Self, Rejection> {
        let message: wire::AuditSegment = rules::decode(SEGMENT, payload)?;
        rules::salt(SEGMENT, &message.salt)?;
        let before = message.predecessor.map(Predecessor::read).transpose()?;
        Ok(Self {
            genesis: digest(&message.genesis_digest)?,
            member: slug(&message.member)?,
            node: slug(&message.node)?,
            number: message.number,
            created: UnixMillis(message.created_ms),
            predecessor: before,
        })
    }
}

impl Predecessor {
    fn read(message: wire::AuditPredecessor) -> Result<Self, Rejection> {
        let broken = rules::enumerated(SEGMENT, wire::AuditBreak::try_from(message.broken).ok())?;
        Rejection::cap("note", message.note.len(), NOTE_MAX_BYTES)?;
        Ok(Self {
            feed: FeedId(digest(&message.feed_id)?),
            size: message.size,
            root: digest(&message.root)?,
            note: message.note,
            broken: Break::from_wire(broken),
        })
    }
}

fn digest(bytes: &[u8]) -> Result<Digest, Rejection> {
    Digest::from_slice(bytes).map_err(|error| Rejection::invalid(SEGMENT, error.to_string()))
}

fn slug(text: &str) -> Result<Slug, Rejection> {
    Slug::parse(text).map_err(|error| Rejection::invalid(SEGMENT, error.to_string()))
}

/// One act, or what one caller was refused within a minute.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Act {
    /// When it was asked for, by the node's clock.
    pub began: UnixMillis,
    /// When it ended.
    pub ended: UnixMillis,
    /// Who.
    pub actor: Actor,
    /// What, such as `set.create`.
    pub act: String,
    /// "member/set", where it is about one.
    pub set: String,
    /// The member that it is about, where there is one.
    pub member: String,
    /// [`OK`], a reason code, or [`INTERRUPTED`].
    pub outcome: String,
    /// Numbers, by name.
    pub counts: Vec<(String, u64)>,
    /// Texts, by name.
    pub details: Vec<(String, String)>,
}

/// Who did it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Actor {
    /// What it was let in as.
    pub role: ActorRole,
    /// `socket`, `process`, `tcp`, `signal`, `node` or `federation`.
    pub via: String,
    /// A caller's name, or "member/node" of a peer.
    pub name: String,
    /// The user's number on this machine.
    pub uid: Option<u32>,
    /// The command that the caller says it is.
    pub command: String,
}

/// What a caller was let in as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ActorRole {
    /// It may look up.
    Reader,
    /// It may publish.
    Publisher,
    /// It may do everything.
    Administrator,
    /// The node by itself.
    #[default]
    Node,
    /// Another member's node.
    Peer,
}

impl ActorRole {
    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Publisher => "publisher",
            Self::Administrator => "administrator",
            Self::Node => "node",
            Self::Peer => "peer",
        }
    }
}

impl Actor {
    /// The node by itself.
    #[must_use]
    pub fn node() -> Self {
        Self {
            via: "node".to_owned(),
            ..Self::default()
        }
    }

    /// Another member's node.
    #[must_use]
    pub fn peer(member: &Slug, node: &Slug) -> Self {
        Self {
            role: ActorRole::Peer,
            via: "federation".to_owned(),
            name: format!("{member}/{node}"),
            ..Self::default()
        }
    }
}

impl Act {
    /// An act that begins.
    #[must_use]
    pub fn new(act: &str, actor: Actor) -> Self {
        Self {
            act: act.to_owned(),
            actor,
            ..Self::default()
        }
    }

    /// About this set.
    #[must_use]
    pub fn of_set(mut self, set: impl ToString) -> Self {
        self.set = named(&set.to_string());
        self
    }

    /// About this member.
    #[must_use]
    pub fn of_member(mut self, member: impl ToString) -> Self {
        self.member = named(&member.to_string());
        self
    }

    /// Sets a number; one beyond [`COUNTS_MAX`] is left out.
    pub fn count(&mut self, name: &str, count: u64) {
        let room = self.counts.len() < COUNTS_MAX;
        match self.counts.iter_mut().find(|(held, _)| held == name) {
            Some((_, held)) => *held = count,
            None if room => self.counts.push((name.to_owned(), count)),
            None => {}
        }
    }

    /// Adds to a number.
    pub fn add(&mut self, name: &str, more: u64) {
        let held = self.counts.iter().find(|(held, _)| held == name);
        let sum = held.map_or(0, |(_, held)| *held).saturating_add(more);
        self.count(name, sum);
    }

    /// Notes a word of ours: a slug, a code, a digest of a document.
    pub fn detail(&mut self, name: &str, text: impl ToString) {
        if self.details.len() < DETAILS_MAX {
            let text = clip(&text.to_string(), TEXT_MAX_BYTES);
            self.details.push((name.to_owned(), text));
        }
    }

    /// Notes what a person wrote, without what may be a value or a key.
    pub fn said(&mut self, name: &str, text: &str) {
        if !text.trim().is_empty() {
            self.detail(name, careful(text));
        }
    }

    /// Encodes the payload, with fresh random bytes as `salt`. Texts are cut to their
    /// bounds: an act is recorded whatever was said.
    ///
    /// # Errors
    /// [`Rejection::TooLarge`], which the bounds rule out.
    pub fn encode(&self, salt: [u8; 16]) -> Result<Bytes, Rejection> {
        let mut message = self.to_wire(salt);
        // Long details are worth less than the record of the act.
        while prost::Message::encoded_len(&message) > crate::limits::LEAF_PAYLOAD_MAX_BYTES
            && message.details.pop().is_some()
        {}
        rules::encode(&message)
    }

    fn to_wire(&self, salt: [u8; 16]) -> wire::AuditAct {
        let word = |text: &str| clip(text, WORD_MAX_BYTES);
        let actor = &self.actor;
        let role = match actor.role {
            ActorRole::Reader => wire::AuditRole::Reader,
            ActorRole::Publisher => wire::AuditRole::Publisher,
            ActorRole::Administrator => wire::AuditRole::Administrator,
            ActorRole::Node => wire::AuditRole::Node,
            ActorRole::Peer => wire::AuditRole::Peer,
        };
        let counts = self.counts.iter().take(COUNTS_MAX);
        let details = self.details.iter().take(DETAILS_MAX);
        wire::AuditAct {
            salt: Bytes::copy_from_slice(&salt),
            began_ms: self.began.0,
            ended_ms: self.ended.0,
            actor: Some(wire::AuditActor {
                role: role.into(),
                via: word(&actor.via),
                name: clip(&actor.name, NAME_MAX_BYTES),
                uid_plus_one: actor.uid.map_or(0, |uid| u64::from(uid).saturating_add(1)),
                command: word(&actor.command),
            }),
            act: word(&self.act),
            set: clip(&self.set, NAME_MAX_BYTES),
            member: clip(&self.member, NAME_MAX_BYTES),
            outcome: word(&self.outcome),
            counts: counts
                .map(|(name, count)| wire::AuditCount {
                    name: word(name),
                    count: *count,
                })
                .collect(),
            details: details
                .map(|(name, text)| wire::AuditDetail {
                    name: word(name),
                    text: clip(text, TEXT_MAX_BYTES),
                })
                .collect(),
        }
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// [`Rejection::Malformed`], [`Rejection::Invalid`] or [`Rejection::TooLarge`].
    pub fn read(payload: &Bytes) -> Result<Self, Rejection> {
        let message: wire::AuditAct = rules::decode(ACT, payload)?;
        rules::salt(ACT, &message.salt)?;
        let of = |text: String, max: usize| -> Result<String, Rejection> {
            rules::text(ACT, &text, max, Lines::One)?;
            Ok(text)
        };
        let word = |text: String| of(text, WORD_MAX_BYTES);
        Rejection::cap("counts of an act", message.counts.len(), COUNTS_MAX)?;
        Rejection::cap("details of an act", message.details.len(), DETAILS_MAX)?;
        let actor = message.actor.unwrap_or_default();
        let counts = message.counts.into_iter();
        let details = message.details.into_iter();
        Ok(Self {
            began: UnixMillis(message.began_ms),
            ended: UnixMillis(message.ended_ms),
            actor: Actor {
                role: role(actor.role)?,
                via: word(actor.via)?,
                name: of(actor.name, NAME_MAX_BYTES)?,
                uid: uid(actor.uid_plus_one)?,
                command: word(actor.command)?,
            },
            act: word(message.act)?,
            set: of(message.set, NAME_MAX_BYTES)?,
            member: of(message.member, NAME_MAX_BYTES)?,
            outcome: word(message.outcome)?,
            counts: counts
                .map(|count| Ok((word(count.name)?, count.count)))
                .collect::<Result<_, Rejection>>()?,
            details: details
                .map(|detail| Ok((word(detail.name)?, of(detail.text, TEXT_MAX_BYTES)?)))
                .collect::<Result<_, Rejection>>()?,
        })
    }
}

fn role(number: i32) -> Result<ActorRole, Rejection> {
    let role = match wire::AuditRole::try_from(number) {
        Ok(wire::AuditRole::Reader) => Some(ActorRole::Reader),
        Ok(wire::AuditRole::Publisher) => Some(ActorRole::Publisher),
        Ok(wire::AuditRole::Administrator) => Some(ActorRole::Administrator),
        Ok(wire::AuditRole::Node) => Some(ActorRole::Node),
        Ok(wire::AuditRole::Peer) => Some(ActorRole::Peer),
        Ok(wire::AuditRole::Unspecified) | Err(_) => None,
    };
    rules::enumerated(ACT, role)
}

fn uid(plus_one: u64) -> Result<Option<u32>, Rejection> {
    let uid = plus_one.checked_sub(1).map(u32::try_from).transpose();
    uid.map_err(|_| Rejection::invalid(ACT, "a user's number beyond all there are"))
}

/// A text within a bound, on one line, without what moves a terminal's text.
fn clip(text: &str, max_bytes: usize) -> String {
    let mut out = String::new();
    for c in text.chars() {
        let bad = rules::text(ACT, c.encode_utf8(&mut [0; 4]), 4, Lines::One).is_err();
        let c = if bad { ' ' } else { c };
        if out.len().saturating_add(c.len_utf8()) > max_bytes {
            break;
        }
        out.push(c);
    }
    out
}

/// What stands in place of what may be a value or a key.
const TAKEN_OUT: &str = "[taken out]";
/// Hexadecimal digits that may be the half of a value.
const HEX_MIN: usize = 16;
/// Characters of base64 that may be 16 bytes.
const BASE64_MIN: usize = 22;

/// A text that a person wrote, without runs of characters that may be a signal's value
/// or a key: 16 hexadecimal digits or more, also in groups, and 22 characters or more
/// without a space. A passphrase looks like any text; none is ever asked for here.
#[must_use]
pub fn careful(text: &str) -> String {
    let in_word = |c: char| c.is_alphanumeric() || matches!(c, '+' | '/' | '=' | '_' | '-');
    let mut pieces: Vec<&str> = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let word = in_word(first);
        let end = rest.find(|c| in_word(c) != word).unwrap_or(rest.len());
        let (piece, after) = rest.split_at(end);
        pieces.push(piece);
        rest = after;
    }
    let mut out = String::new();
    let mut at = pieces.as_slice();
    while let Some((piece, after)) = at.split_first() {
        let grouped = grouped_hex(at);
        if let Some((_, after)) = at.split_at_checked(grouped).filter(|_| grouped > 0) {
            out.push_str(TAKEN_OUT);
            at = after;
            continue;
        }
        let long = piece.starts_with(in_word) && piece.chars().count() >= BASE64_MIN;
        out.push_str(if long { TAKEN_OUT } else { piece });
        at = after;
    }
    out
}

/// Whether a text that everybody is to read holds what can hardly be anything but a
/// signal's value: 32 hexadecimal digits or more in one word, or 22 characters or more
/// that read as base64, with small and capital letters and a digit.
#[must_use]
pub fn holds_value(text: &str) -> bool {
    let of_value = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=');
    text.split(|c| !of_value(c)).any(|word| {
        let hex = word.len() >= 2 * HEX_MIN && word.chars().all(|c| c.is_ascii_hexdigit());
        let has = |of: fn(&char) -> bool| word.chars().any(|c| of(&c));
        let base64 = word.len() >= BASE64_MIN
            && has(char::is_ascii_digit)
            && has(char::is_ascii_uppercase)
            && has(char::is_ascii_lowercase);
        hex || base64
    })
}

/// A name of slugs, which somebody may have made of a value by mistake: a part that is
/// hexadecimal digits alone, 16 or more, is taken out.
fn named(name: &str) -> String {
    let part = |part: &str| {
        let digits = part.chars().filter(|c| *c != '-');
        let hex = digits.clone().all(|c| c.is_ascii_hexdigit());
        if hex && digits.count() >= HEX_MIN {
            TAKEN_OUT.to_owned()
        } else {
            part.to_owned()
        }
    };
    name.split('/').map(part).collect::<Vec<_>>().join("/")
}

/// How many pieces from the first on are hexadecimal digits in groups, if they are
/// enough together.
fn grouped_hex(pieces: &[&str]) -> usize {
    let hex = |piece: &str| piece.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
    let between = |piece: &str| piece.chars().count() <= 2 && piece.chars().all(is_between);
    if pieces.first().is_none_or(|first| !hex(first)) {
        return 0;
    }
    let (mut digits, mut end) = (0_usize, 0_usize);
    for (at, piece) in (1_usize..).zip(pieces) {
        if hex(piece) {
            digits = digits.saturating_add(piece.chars().filter(|c| *c != '-').count());
            end = at;
        } else if !between(piece) {
            break;
        }
    }
    if digits >= HEX_MIN { end } else { 0 }
}

fn is_between(c: char) -> bool {
    c.is_whitespace() || matches!(c, ':' | ',' | '.' | ';' | '"' | '\'')
}

#[cfg(test)]
#[path = "audit_tests.rs"]
mod tests;
