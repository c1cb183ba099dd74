//! The container of a bundle: what frames documents, heads and chunks in one file.
//!
//! Owns: the first bytes, the prefix, cap and check of every record, what the header
//! says, and the end that shows a file to be whole. Does not own: what the records
//! hold; that are messages of the federation, verified like a peer's.
//!
//! Trust: none. The checks find damage and not forgery, for whoever changes a file can
//! make them anew; what the records hold is signed and proved by itself, so the file
//! needs no signature of its own. docs/FORMATS.md has the layout byte by byte.

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::id::{Digest, Slug, UnixMillis};
use crate::limits::{
    CARD_MAX_BYTES, EVIDENCE_MAX_BYTES, MESSAGE_MAX_BYTES, NAME_MAX_BYTES, ROSTER_MAX_BYTES,
};
use crate::reject::Rejection;
use crate::text;

const WHAT: &str = "bundle";
/// What a bundle begins with.
pub const MAGIC: &[u8; 16] = b"hashpact bundle\n";
/// The version of the container that is written and read here.
pub const VERSION: u8 = 1;
/// Before a record's body: its kind and its length.
pub const PREFIX_BYTES: usize = 5;
/// After it: the first bytes of a SHA-256 over prefix and body.
pub const CHECK_BYTES: usize = 8;
/// Records in one bundle: with chunks of 1 MiB some 256 GiB, and what a reader keeps of
/// each is a few bytes.
pub const RECORDS_MAX: u64 = 262_144;
/// Feeds in one bundle: what came of each fits one answer.
pub const FEEDS_MAX: usize = 4_096;
/// Documents, and pieces of evidence, in one: every card of the largest coalition, its
/// chain and suspensions besides.
pub const DOCUMENTS_MAX: usize = 16_384;
/// Version, time, digest, and two short names.
const HEADER_MAX_BYTES: usize = 1_024;
/// The end: a count and a digest.
const END_BYTES: usize = 40;
/// A field of protobuf around what is capped by itself.
const FRAMING_BYTES: usize = 64;
/// Two rosters at most, which one piece of evidence may hold.
const EVIDENCE_RECORD_MAX_BYTES: usize = 2 * ROSTER_MAX_BYTES + FRAMING_BYTES;
const _: () = assert!(EVIDENCE_MAX_BYTES < EVIDENCE_RECORD_MAX_BYTES);
const _: () = assert!(CARD_MAX_BYTES < ROSTER_MAX_BYTES);

/// What a record holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RecordKind {
    /// Who made the bundle for whom; the first record and no other.
    Header,
    /// A roster, a node card or a suspension.
    Document,
    /// Evidence of a fork, or of two documents of one version.
    Evidence,
    /// A feed's head, what stands beside it, and the describe leaf in force.
    Feed,
    /// Leaves of the feed named last, with what proves them against its head.
    Chunk,
    /// What all the others come to; the last record.
    End,
}

impl RecordKind {
    /// The byte that stands for it.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Header => 1,
            Self::Document => 2,
            Self::Evidence => 3,
            Self::Feed => 4,
            Self::Chunk => 5,
            Self::End => 255,
        }
    }

    /// The kind that a byte stands for.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Header),
            2 => Some(Self::Document),
            3 => Some(Self::Evidence),
            4 => Some(Self::Feed),
            5 => Some(Self::Chunk),
            255 => Some(Self::End),
            _ => None,
        }
    }

    /// The longest body of such a record.
    #[must_use]
    pub const fn body_max_bytes(self) -> usize {
        match self {
            Self::Header => HEADER_MAX_BYTES,
            Self::Document => ROSTER_MAX_BYTES + FRAMING_BYTES,
            Self::Evidence => EVIDENCE_RECORD_MAX_BYTES,
            Self::Feed | Self::Chunk => MESSAGE_MAX_BYTES,
            Self::End => END_BYTES,
        }
    }
}

/// The bytes before a record's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    /// What the record holds.
    pub kind: RecordKind,
    /// How long its body is, within the cap of its kind.
    pub length: usize,
}

impl Prefix {
    /// Reads a prefix, and refuses a longer body than its kind may have.
    ///
    /// # Errors
    /// [`Rejection::Malformed`] for a kind that there is not, [`Rejection::TooLarge`].
    pub fn read(bytes: [u8; PREFIX_BYTES]) -> Result<Self, Rejection> {
        let [kind, length @ ..] = bytes;
        let kind = RecordKind::from_number(kind)
            .ok_or_else(|| Rejection::malformed(WHAT, format!("no record is of kind {kind}")))?;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        Rejection::cap("record of a bundle", length, kind.body_max_bytes())?;
        Ok(Self { kind, length })
    }

    /// The prefix as it stands in the file.
    #[must_use]
    pub fn bytes(self) -> [u8; PREFIX_BYTES] {
        let length = u32::try_from(self.length).unwrap_or(u32::MAX);
        let [a, b, c, d] = length.to_be_bytes();
        [self.kind.number(), a, b, c, d]
    }

    /// Checks a body against what stands after it.
    ///
    /// # Errors
    /// [`Rejection::Malformed`]: the record is damaged.
    pub fn check(self, body: &[u8], check: [u8; CHECK_BYTES]) -> Result<(), Rejection> {
        if body.len() == self.length && check_of(self.bytes(), body) == check {
            Ok(())
        } else {
            let why = "the check of a record does not fit: the file is damaged";
            Err(Rejection::malformed(WHAT, why))
        }
    }
}

fn check_of(prefix: [u8; PREFIX_BYTES], body: &[u8]) -> [u8; CHECK_BYTES] {
    let digest = Sha256::new().chain_update(prefix).chain_update(body);
    let digest: [u8; 32] = digest.finalize().into();
    let mut check = [0; CHECK_BYTES];
    for (to, from) in check.iter_mut().zip(digest) {
        *to = from;
    }
    check
}

/// For whom a bundle was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recipient {
    /// A member that is granted every set in it.
    Member(Slug),
    /// An authority that is no member.
    Authority(String),
}

/// What a bundle says of itself. Nobody signs it: it is for people, but for the genesis,
/// by which a bundle of another coalition is refused before anything is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The coalition, by the digest of its genesis.
    pub genesis: Digest,
    /// When it was made, by the maker's clock.
    pub made: UnixMillis,
    /// The member that made it.
    pub by: Slug,
    /// For whom.
    pub to: Recipient,
}

const TO_MEMBER: u8 = 1;
const TO_AUTHORITY: u8 = 2;

impl Header {
    /// Version ‖ genesis ‖ u64 time ‖ maker ‖ kind of recipient ‖ recipient; names with
    /// one byte of length before them.
    fn encode(&self) -> Vec<u8> {
        let mut body = vec![VERSION];
        body.extend_from_slice(self.genesis.as_bytes());
        body.extend_from_slice(&self.made.0.to_be_bytes());
        put_name(&mut body, self.by.as_str());
        let (kind, name) = match &self.to {
            Recipient::Member(slug) => (TO_MEMBER, slug.as_str()),
            Recipient::Authority(name) => (TO_AUTHORITY, name.as_str()),
        };
        body.push(kind);
        put_name(&mut body, name);
        body
    }

    /// Reads the body of the first record.
    ///
    /// # Errors
    /// [`Rejection::Invalid`] for another version, [`Rejection::Malformed`] for what is
    /// no header.
    pub fn read(body: &[u8]) -> Result<Self, Rejection> {
        let cut = || Rejection::malformed(WHAT, "its header is cut");
        let (version, rest) = body.split_first().ok_or_else(cut)?;
        if *version != VERSION {
            let why = format!("version {version} is not read here, only {VERSION}");
            return Err(Rejection::invalid(WHAT, why));
        }
        let (genesis, rest) = rest.split_first_chunk::<32>().ok_or_else(cut)?;
        let (made, rest) = rest.split_first_chunk::<8>().ok_or_else(cut)?;
        let (by, rest) = name(rest)?;
        let (to_kind, rest) = rest.split_first().ok_or_else(cut)?;
        let (to, rest) = name(rest)?;
        if !rest.is_empty() {
            return Err(Rejection::malformed(WHAT, "its header is too long"));
        }
        Ok(Self {
            genesis: Digest(*genesis),
            made: UnixMillis(u64::from_be_bytes(*made)),
            by: Slug::parse(by)?,
            to: match *to_kind {
                TO_MEMBER => Recipient::Member(Slug::parse(to)?),
                TO_AUTHORITY => Recipient::Authority(authority(to)?),
                other => {
                    let why = format!("no recipient is of kind {other}");
                    return Err(Rejection::malformed(WHAT, why));
                }
            },
        })
    }
}

/// An authority's name: 1 to 200 bytes of text that deceives nobody.
///
/// # Errors
/// [`Rejection::Invalid`], [`Rejection::TooLarge`].
pub fn authority(name: &str) -> Result<String, Rejection> {
    text::required("name of an authority", name.to_owned(), NAME_MAX_BYTES)
}

fn put_name(body: &mut Vec<u8>, name: &str) {
    // Names are of at most 200 bytes: `authority`, `Slug`.
    let length = u8::try_from(name.len()).unwrap_or(u8::MAX);
    body.push(length);
    body.extend(name.bytes().take(usize::from(length)));
}

fn name(rest: &[u8]) -> Result<(&str, &[u8]), Rejection> {
    let cut = || Rejection::malformed(WHAT, "a name in its header is cut");
    let (length, rest) = rest.split_first().ok_or_else(cut)?;
    let (name, rest) = rest
        .split_at_checked(usize::from(*length))
        .ok_or_else(cut)?;
    let name = std::str::from_utf8(name)
        .map_err(|_| Rejection::malformed(WHAT, "a name in its header is no text"))?;
    Ok((name, rest))
}

/// What all records before the end come to: how many they are, and a digest over their
/// checks, so that one that is missing, doubled or in another place is noticed.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    records: u64,
    checks: Sha256,
}

impl Tally {
    /// Counts one more record.
    ///
    /// # Errors
    /// [`Rejection::TooLarge`] beyond [`RECORDS_MAX`].
    pub fn count(&mut self, check: [u8; CHECK_BYTES]) -> Result<(), Rejection> {
        self.records = self.records.saturating_add(1);
        let size = usize::try_from(self.records).unwrap_or(usize::MAX);
        let limit = usize::try_from(RECORDS_MAX).unwrap_or(usize::MAX);
        Rejection::cap("records of a bundle", size, limit)?;
        self.checks.update(check);
        Ok(())
    }

    /// u64 count ‖ SHA-256 over the checks of all records, in order.
    fn encode(&self) -> Vec<u8> {
        let digest: [u8; 32] = self.checks.clone().finalize().into();
        let mut body = self.records.to_be_bytes().to_vec();
        body.extend_from_slice(&digest);
        body
    }

    /// Checks the body of the last record.
    ///
    /// # Errors
    /// [`Rejection::Malformed`]: records are missing or in another order.
    pub fn check_end(&self, body: &[u8]) -> Result<(), Rejection> {
        if self.encode() == body {
            return Ok(());
        }
        let why = "its end does not fit what is before it: records are missing or damaged";
        Err(Rejection::malformed(WHAT, why))
    }
}

/// Frames records, one after another.
#[derive(Debug, Default)]
pub struct Writer(Tally);

impl Writer {
    /// Begins a bundle: its first bytes and its header.
    ///
    /// # Errors
    /// As [`Writer::record`].
    pub fn begin(header: &Header) -> Result<(Self, Bytes), Rejection> {
        let mut writer = Self::default();
        let record = writer.record(RecordKind::Header, &header.encode())?;
        let mut first = MAGIC.to_vec();
        first.extend_from_slice(&record);
        Ok((writer, first.into()))
    }

    /// A record as it stands in the file.
    ///
    /// # Errors
    /// [`Rejection::TooLarge`] for more than may be in it.
    pub fn record(&mut self, kind: RecordKind, body: &[u8]) -> Result<Bytes, Rejection> {
        let (framed, check) = framed(kind, body)?;
        self.0.count(check)?;
        Ok(framed)
    }

    /// The last record.
    ///
    /// # Errors
    /// None that a tally leads to.
    pub fn end(self) -> Result<Bytes, Rejection> {
        framed(RecordKind::End, &self.0.encode()).map(|(framed, _)| framed)
    }
}

fn framed(kind: RecordKind, body: &[u8]) -> Result<(Bytes, [u8; CHECK_BYTES]), Rejection> {
    Rejection::cap("record of a bundle", body.len(), kind.body_max_bytes())?;
    let prefix = Prefix {
        kind,
        length: body.len(),
    };
    let check = check_of(prefix.bytes(), body);
    Ok((
        [&prefix.bytes()[..], body, &check[..]].concat().into(),
        check,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            genesis: Digest([7; 32]),
            made: UnixMillis(1_790_000_000_000),
            by: Slug::parse("north").unwrap(),
            to: Recipient::Member(Slug::parse("south").unwrap()),
        }
    }

    #[test]
    fn a_header_reads_back_as_it_was_written() {
        let authority = Recipient::Authority("Polizei Köln".to_owned());
        for to in [header().to, authority] {
            let header = Header { to, ..header() };
            assert_eq!(Header::read(&header.encode()).unwrap(), header);
        }
    }

    #[test]
    fn a_header_that_is_cut_longer_or_of_another_version_is_refused() {
        let body = header().encode();
        for cut in 0..body.len() {
            assert!(Header::read(&body[..cut]).is_err(), "{cut}");
        }
        assert!(Header::read(&[&body[..], b"x"].concat()).is_err());
        let mut other = body;
        other[0] = 2;
        let refused = Header::read(&other).unwrap_err();
        assert_eq!(refused.code(), "invalid");
    }

    #[test]
    fn every_kind_is_capped_by_its_prefix_before_anything_is_read() {
        for number in 0..=u8::MAX {
            let longest = [number, 0xff, 0xff, 0xff, 0xff];
            let code = Prefix::read(longest).unwrap_err().code();
            let known = RecordKind::from_number(number).is_some();
            assert_eq!(code, if known { "too_large" } else { "malformed" });
        }
    }

    #[test]
    fn one_bit_of_a_record_changed_anywhere_is_noticed() {
        let (_, framed) = {
            let mut writer = Writer::default();
            let framed = writer.record(RecordKind::Document, b"a card").unwrap();
            (writer, framed)
        };
        let read = |bytes: &[u8]| {
            let (prefix, rest) = bytes.split_first_chunk::<PREFIX_BYTES>().unwrap();
            let prefix = Prefix::read(*prefix)?;
            let (body, check) = rest.split_last_chunk::<CHECK_BYTES>().unwrap();
            prefix.check(body, *check)
        };
        assert!(read(&framed).is_ok());
        for at in 0..framed.len() {
            for bit in 0..8 {
                let mut changed = framed.to_vec();
                changed[at] ^= 1 << bit;
                assert!(read(&changed).is_err(), "byte {at}, bit {bit}");
            }
        }
    }

    #[test]
    fn an_end_does_not_fit_other_records_or_another_order() {
        let check = |bytes: u8| [bytes; CHECK_BYTES];
        let tally = |checks: &[u8]| {
            let mut tally = Tally::default();
            for one in checks {
                tally.count(check(*one)).unwrap();
            }
            tally
        };
        let end = tally(&[1, 2, 3]).encode();
        assert!(tally(&[1, 2, 3]).check_end(&end).is_ok());
        for other in [&[1, 2][..], &[2, 1, 3], &[1, 2, 3, 3], &[]] {
            assert!(tally(other).check_end(&end).is_err());
        }
    }
}
