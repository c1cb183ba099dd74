//! Checkpoints: the signed state of a feed at a size, and witnesses' cosignatures.
//!
//! ```text
//! csa-coalition.example/feed/‹feed id, 64 hex digits›/‹epoch›
//! ‹size, decimal›
//! ‹root, base64›
//!
//! — ‹the first line again› ‹base64(key id ‖ Ed25519 over the three lines)›
//! ```
//!
//! Owns: the body, signing, verifying. Does not own: which keys a feed has (the
//! caller asks the node cards), what is done with a head.
//!
//! Trust: a note is a stranger's bytes until [`verify`] has found the signature of
//! a key that the feed has in that epoch. Extension lines and further signatures
//! are refused: none is defined, and what nobody checks can be changed unseen.
//!
//! Source: C2SP `tlog-checkpoint`, `signed-note`, `tlog-cosignature`.

use std::fmt;

use bytes::Bytes;
use data_encoding::BASE64;

use crate::id::{CoalitionName, Digest, FeedId, Slug};
use crate::keys::{Feed, PublicKey, SecretKey, Witness};
use crate::limits::FEED_MAX_LEAVES;
use crate::merkle::empty_root;
use crate::note::{self, Note, NoteKey, SignatureLine};
use crate::reject::Rejection;
use crate::verified::Verified;

/// The latest time that a cosignature can name, as C2SP bounds it.
const TIME_MAX_S: u64 = i64::MAX as u64;

/// Which feed, in which epoch of its keys. The name of the key line, too.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    /// The coalition.
    pub coalition: CoalitionName,
    /// The feed.
    pub feed: FeedId,
    /// The feed's epoch: 0 until the roster opens another.
    pub epoch: u32,
}

impl Origin {
    /// Reads `‹coalition›/feed/‹feed id›/‹epoch›`.
    ///
    /// # Errors
    /// [`Rejection::Malformed`] for anything but what `Display` writes.
    pub fn parse(text: &str) -> Result<Self, Rejection> {
        let mut parts = text.split('/');
        let fields = (parts.next(), parts.next(), parts.next(), parts.next());
        let (Some(coalition), Some("feed"), Some(feed), Some(epoch)) = fields else {
            return Err(malformed("an origin that is no coalition/feed/id/epoch"));
        };
        let origin = Self {
            coalition: CoalitionName::parse(coalition)
                .map_err(|_| malformed("an origin without a coalition"))?,
            feed: Digest::from_hex(feed)
                .map(FeedId)
                .map_err(|_| malformed("an origin without a feed id"))?,
            epoch: epoch
                .parse()
                .map_err(|_| malformed("an origin without an epoch"))?,
        };
        // Only one spelling: no capitals, no leading zeros, nothing after it.
        if origin.to_string() == text {
            Ok(origin)
        } else {
            Err(malformed("an origin that is not canonical"))
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/feed/{}/{}", self.coalition, self.feed, self.epoch)
    }
}

/// A feed's state: this many leaves, with this root.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Checkpoint {
    /// The feed and epoch.
    pub origin: Origin,
    /// The number of leaves, at most [`FEED_MAX_LEAVES`].
    pub size: u64,
    /// The root of the tree of those leaves.
    pub root: Digest,
}

impl Checkpoint {
    /// Writes the three lines that are signed.
    #[must_use]
    pub fn body(&self) -> String {
        let root = BASE64.encode(&self.root.0);
        format!("{}\n{}\n{root}\n", self.origin, self.size)
    }

    /// Reads the three lines.
    ///
    /// # Errors
    /// [`Rejection::Malformed`] for anything but what [`Checkpoint::body`] writes,
    /// [`Rejection::TooLarge`] or [`Rejection::Invalid`] for an impossible size.
    pub fn parse_body(text: &str) -> Result<Self, Rejection> {
        let mut lines = text.lines();
        let fields = (lines.next(), lines.next(), lines.next());
        let (Some(origin), Some(size), Some(root)) = fields else {
            return Err(malformed("fewer than three lines"));
        };
        let root = BASE64
            .decode(root.as_bytes())
            .map_err(|_| malformed("a root that is not canonical base64"))?;
        let checkpoint = Self {
            origin: Origin::parse(origin)?,
            size: size
                .parse()
                .map_err(|_| malformed("a size that is no number"))?,
            root: Digest::from_slice(&root)
                .map_err(|_| malformed("a root that is not 32 bytes"))?,
        };
        if checkpoint.body() != text {
            return Err(malformed("lines that are not canonical, or too many"));
        }
        checkpoint.check_size()?;
        Ok(checkpoint)
    }

    fn check_size(&self) -> Result<(), Rejection> {
        if self.size > FEED_MAX_LEAVES {
            let why = format!("size {} is beyond the largest feed", self.size);
            return Err(Rejection::invalid("checkpoint", why));
        }
        if self.size == 0 && self.root != empty_root() {
            return Err(Rejection::invalid("checkpoint", "no leaves, but a root"));
        }
        Ok(())
    }
}

/// A checkpoint with the bytes that were signed and the key that did. What other
/// nodes get is [`SignedCheckpoint::note`], as received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedCheckpoint {
    /// What it says.
    pub checkpoint: Checkpoint,
    /// The feed key that signed it.
    pub key: PublicKey<Feed>,
    /// The note, byte for byte.
    pub note: Bytes,
}

impl SignedCheckpoint {
    /// The size and root that pulls are proved against.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.checkpoint.size
    }

    /// The root.
    #[must_use]
    pub const fn root(&self) -> Digest {
        self.checkpoint.root
    }
}

/// Signs a checkpoint; returns the note. The same checkpoint and key give the same
/// bytes.
#[must_use]
pub fn sign(checkpoint: &Checkpoint, key: &SecretKey<Feed>) -> Vec<u8> {
    let text = checkpoint.body();
    let name = checkpoint.origin.to_string();
    let line = SignatureLine {
        key_id: note::key_id(&name, &key.public()),
        signature: key.sign(text.as_bytes()).to_vec(),
        name,
    };
    let note = Note {
        text,
        signatures: vec![line],
    };
    note.format().into_bytes()
}

/// Checks a note of a feed. `keys` gives the feed keys that the feed's publisher
/// has in an epoch, from current and old node cards.
///
/// # Errors
/// [`Rejection::TooLarge`], [`Rejection::Malformed`], [`Rejection::Invalid`];
/// [`Rejection::WrongOrigin`] for another feed or coalition;
/// [`Rejection::BadSignature`] without the one signature of one of those keys.
pub fn verify(
    note: &[u8],
    coalition: &CoalitionName,
    feed: &FeedId,
    keys: impl Fn(u32) -> Vec<PublicKey<Feed>>,
) -> Result<Verified<SignedCheckpoint>, Rejection> {
    let parsed = Note::parse(note)?;
    let checkpoint = Checkpoint::parse_body(&parsed.text)?;
    let origin = &checkpoint.origin;
    if origin.coalition != *coalition || origin.feed != *feed {
        return Err(Rejection::WrongOrigin { feed: *feed });
    }
    let [line] = parsed.signatures.as_slice() else {
        return Err(malformed("more than one signature"));
    };
    if line.name != origin.to_string() {
        return Err(malformed("a signature by another name than the origin"));
    }
    let key = signer(&parsed.text, line, keys(origin.epoch))?;
    Ok(Verified::new(SignedCheckpoint {
        checkpoint,
        key,
        note: Bytes::copy_from_slice(note),
    }))
}

/// Finds the key, of those allowed, that signed the text. Key ids can collide, so
/// every key of that id is tried.
fn signer(
    text: &str,
    line: &SignatureLine,
    keys: Vec<PublicKey<Feed>>,
) -> Result<PublicKey<Feed>, Rejection> {
    let mut why = "not by a key that the feed has in this epoch";
    for key in keys {
        if note::key_id(&line.name, &key) == line.key_id {
            match key.verify(text.as_bytes(), &line.signature) {
                Ok(()) => return Ok(key),
                Err(_) => why = "the signature does not verify",
            }
        }
    }
    Err(Rejection::BadSignature {
        what: "checkpoint",
        why: why.to_owned(),
    })
}

/// Names a member's witness key in cosignature lines: `‹coalition›/witness/‹slug›`.
#[must_use]
pub fn witness_name(coalition: &CoalitionName, member: &Slug) -> String {
    format!("{coalition}/witness/{member}")
}

/// A witness's statement that, at a time, a checkpoint extended all it had
/// cosigned before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cosignature {
    /// The name of the witness.
    pub name: String,
    /// The key that cosigned.
    pub key: PublicKey<Witness>,
    /// Seconds since 1970-01-01T00:00:00Z by the witness's clock.
    pub time_s: u64,
}

/// Cosigns a checkpoint's body; returns the line, with its newline. Times beyond
/// 2^63 - 1 become that.
#[must_use]
pub fn cosign(body: &str, name: &str, key: &SecretKey<Witness>, time_s: u64) -> String {
    let time_s = time_s.min(TIME_MAX_S);
    let mut signature = time_s.to_be_bytes().to_vec();
    signature.extend(key.sign(cosigned_message(body, time_s).as_bytes()));
    let line = SignatureLine {
        name: name.to_owned(),
        key_id: note::key_id(name, &key.public()),
        signature,
    };
    line.format()
}

/// Checks a cosignature line, with its newline, over a checkpoint's body. The time
/// is the witness's word; whether it is fresh is the caller's to judge.
///
/// # Errors
/// [`Rejection::Malformed`]; [`Rejection::BadSignature`] for another name or key,
/// or a signature that does not verify.
pub fn verify_cosignature(
    body: &str,
    line: &[u8],
    name: &str,
    key: &PublicKey<Witness>,
) -> Result<Verified<Cosignature>, Rejection> {
    let wrong = |why: &str| Rejection::BadSignature {
        what: "cosignature",
        why: why.to_owned(),
    };
    let line = SignatureLine::parse(line)?;
    if line.name != name || line.key_id != note::key_id(name, key) {
        return Err(wrong("not by the witness that was meant"));
    }
    let (time, signature) = line
        .signature
        .split_first_chunk::<8>()
        .ok_or_else(|| wrong("no time"))?;
    let time_s = u64::from_be_bytes(*time);
    if time_s > TIME_MAX_S {
        return Err(wrong("a time beyond 2^63 - 1 s"));
    }
    key.verify(cosigned_message(body, time_s).as_bytes(), signature)
        .map_err(|_| wrong("the signature does not verify"))?;
    Ok(Verified::new(Cosignature {
        name: line.name,
        key: *key,
        time_s,
    }))
}

/// What a witness signs: C2SP `cosignature/v1`.
fn cosigned_message(body: &str, time_s: u64) -> String {
    format!("cosignature/v1\ntime {time_s}\n{body}")
}

/// Writes a key as other tools take it (C2SP verifier key).
#[must_use]
pub fn vkey<P: NoteKey>(name: &str, key: &PublicKey<P>) -> String {
    note::vkey(name, key)
}

fn malformed(why: &'static str) -> Rejection {
    Rejection::malformed("checkpoint", why)
}

#[cfg(test)]
#[path = "checkpoint_tests.rs"]
mod tests;
