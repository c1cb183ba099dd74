//! Names and numbers that cannot be wrong: digests, feeds, members, indexes, times.
//!
//! Raw input becomes one of these types or an error that says what is wrong.

use std::fmt;

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

/// Says why a name or number was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// A digest that is not 32 bytes, or not 64 hexadecimal digits.
    #[error("a digest is 32 bytes (64 hexadecimal digits), this has {0}")]
    DigestLength(usize),
    /// A digest with a character that is no hexadecimal digit.
    #[error("a digest has hexadecimal digits only")]
    DigestCharacter,
    /// A slug outside `[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?`.
    #[error("{0:?} is no slug: 1 to 32 of a-z, 0-9 and -, with no - at either end")]
    Slug(String),
    /// A coalition name that is not a lower-case domain name.
    #[error("{0:?} is no coalition name: it looks like a domain, such as csa-coalition.example")]
    Coalition(String),
    /// A set name without exactly one slash between two slugs.
    #[error("{0:?} is no set name: it reads member/set")]
    SetName(String),
    /// A member number of 0.
    #[error("member numbers begin at 1")]
    MemberNumber,
    /// An entry name that is not `member/set#index`.
    #[error("{0:?} is no entry name: it reads member/set#index")]
    EntryName(String),
}

/// A SHA-256 digest of one of our own structures, 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Computes the SHA-256 of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Takes 32 bytes.
    ///
    /// # Errors
    /// [`IdError::DigestLength`] for any other length.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, IdError> {
        bytes
            .try_into()
            .map(Self)
            .map_err(|_| IdError::DigestLength(bytes.len()))
    }

    /// Reads 64 hexadecimal digits of either case.
    ///
    /// # Errors
    /// [`IdError::DigestLength`] or [`IdError::DigestCharacter`].
    pub fn from_hex(text: &str) -> Result<Self, IdError> {
        if text.len() != 64 {
            return Err(IdError::DigestLength(text.len()));
        }
        let bytes = data_encoding::HEXLOWER_PERMISSIVE
            .decode(text.as_bytes())
            .map_err(|_| IdError::DigestCharacter)?;
        Self::from_slice(&bytes)
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first 16 hexadecimal digits, for logs and tables.
    #[must_use]
    pub fn short(&self) -> String {
        let mut text = self.to_string();
        text.truncate(16);
        text
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({})", self.short())
    }
}

/// Names a feed: a digest over the coalition, the publisher and the feed's first
/// payload, so that nobody can make another feed of the same name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FeedId(pub Digest);

impl FeedId {
    /// Derives the id: SHA-256 of `hashpact feed id v1\n`, the genesis digest, the
    /// length of the publisher's slug (one byte), the slug, and the SHA-256 of
    /// the payload of leaf 0.
    #[must_use]
    pub fn derive(genesis: &Digest, publisher: &Slug, first_payload: &[u8]) -> Self {
        let slug = publisher.as_str().as_bytes();
        let length = u8::try_from(slug.len()).unwrap_or(u8::MAX); // a slug has at most 32 bytes
        let mut hasher = Sha256::new();
        hasher.update(b"hashpact feed id v1\n");
        hasher.update(genesis.0);
        hasher.update([length]);
        hasher.update(slug);
        hasher.update(Digest::of(first_payload).0);
        Self(Digest(hasher.finalize().into()))
    }

    /// Takes 32 bytes.
    ///
    /// # Errors
    /// [`IdError::DigestLength`] for any other length.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, IdError> {
        Digest::from_slice(bytes).map(Self)
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }
}

impl fmt::Display for FeedId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for FeedId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FeedId({})", self.0.short())
    }
}

/// A name that is safe in files, URLs and shells: 1 to 32 of `a-z`, `0-9` and `-`,
/// with no `-` at either end. Members, sets, nodes and groups have one.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slug(String);

impl Slug {
    /// Reads a slug.
    ///
    /// # Errors
    /// [`IdError::Slug`].
    pub fn parse(text: &str) -> Result<Self, IdError> {
        let inner = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-';
        let bytes = text.as_bytes();
        let ends_well = bytes.first() != Some(&b'-') && bytes.last() != Some(&b'-');
        if (1..=32).contains(&bytes.len()) && ends_well && bytes.iter().all(inner) {
            Ok(Self(text.to_owned()))
        } else {
            Err(IdError::Slug(text.chars().take(64).collect()))
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Slug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Slug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A coalition's name, a lower-case domain name of at most 100 bytes.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CoalitionName(String);

impl CoalitionName {
    /// Reads a coalition name.
    ///
    /// # Errors
    /// [`IdError::Coalition`].
    pub fn parse(text: &str) -> Result<Self, IdError> {
        let labels_good = text.split('.').all(|label| Slug::parse(label).is_ok());
        if text.len() <= 100 && text.contains('.') && labels_good {
            Ok(Self(text.to_owned()))
        } else {
            Err(IdError::Coalition(text.chars().take(120).collect()))
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CoalitionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for CoalitionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A member's permanent number, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MemberNumber(u32);

impl MemberNumber {
    /// Takes a number of at least 1.
    ///
    /// # Errors
    /// [`IdError::MemberNumber`].
    pub const fn new(number: u32) -> Result<Self, IdError> {
        if number == 0 {
            Err(IdError::MemberNumber)
        } else {
            Ok(Self(number))
        }
    }

    /// The number.
    #[must_use]
    pub const fn value(self) -> u32 {
        self.0
    }
}

impl fmt::Display for MemberNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A set's full name, `member/set`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SetName {
    /// The publisher's slug.
    pub member: Slug,
    /// The set's slug, unique at the publisher.
    pub set: Slug,
}

impl SetName {
    /// Reads `member/set`.
    ///
    /// # Errors
    /// [`IdError::SetName`].
    pub fn parse(text: &str) -> Result<Self, IdError> {
        let parts = text.split_once('/');
        let slugs = parts.map(|(member, set)| (Slug::parse(member), Slug::parse(set)));
        match slugs {
            Some((Ok(member), Ok(set))) => Ok(Self { member, set }),
            _ => Err(IdError::SetName(text.chars().take(80).collect())),
        }
    }
}

impl fmt::Display for SetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.member, self.set)
    }
}

impl fmt::Debug for SetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An entry's name, `member/set#index`, with the index of its first version.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryName {
    /// The set.
    pub set: SetName,
    /// The index of the entry's first version in the set's feed.
    pub first: u64,
}

impl EntryName {
    /// Reads `member/set#index`.
    ///
    /// # Errors
    /// [`IdError::EntryName`].
    pub fn parse(text: &str) -> Result<Self, IdError> {
        let wrong = || IdError::EntryName(text.chars().take(100).collect());
        let (set, index) = text.rsplit_once('#').ok_or_else(wrong)?;
        Ok(Self {
            set: SetName::parse(set).map_err(|_| wrong())?,
            first: index.parse().map_err(|_| wrong())?,
        })
    }
}

impl fmt::Display for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.set, self.first)
    }
}

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    /// This time plus `millis`, at most the last time there is.
    #[must_use]
    pub const fn plus(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// Milliseconds from `earlier` to this time; 0 when `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs_are_strict() {
        for good in ["a", "northstar", "a-1", "x".repeat(32).as_str()] {
            assert!(Slug::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "-a",
            "a-",
            "A",
            "a_b",
            "a/b",
            "ä",
            "x".repeat(33).as_str(),
        ] {
            assert!(Slug::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn entry_names_read_back_as_written() {
        let name = EntryName::parse("northstar/confirmed#12345");
        assert_eq!(
            name.map(|n| n.to_string()),
            Ok("northstar/confirmed#12345".to_owned())
        );
        assert!(EntryName::parse("northstar/confirmed").is_err());
        assert!(EntryName::parse("northstar#1").is_err());
    }

    #[test]
    fn feed_ids_depend_on_publisher_and_payload() {
        let genesis = Digest::of(b"g");
        let a = Slug::parse("a").map(|s| FeedId::derive(&genesis, &s, b"p"));
        let b = Slug::parse("b").map(|s| FeedId::derive(&genesis, &s, b"p"));
        let c = Slug::parse("a").map(|s| FeedId::derive(&genesis, &s, b"q"));
        assert_ne!(a, b);
        assert_ne!(a, c);
    }
}
