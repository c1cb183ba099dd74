//! URLs as Safe Browsing sees them: one spelling, up to 30 expressions, and their SHA-256.
//!
//! A list holds the digest of an expression, a host suffix with a path prefix; a URL is on the list if one of *its*
//! expressions is. So one entry covers a page, a folder, a host or a domain, and no link travels. Rules and test cases:
//! "URLs and Hashing" of the Safe Browsing documentation (v4, and v5 for IPv6 addresses).
//!
//! A digest hides a URL from nobody who can guess it.
//!
//! Where the rules leave something open: escapes are undone in the whole URL before it is taken apart, as Google's own
//! client does; a host of non-ASCII characters becomes Punycode if it can; what names another scheme without `//`
//! (`mailto:`, `data:`) is no URL of a web page and refused; of a bare `host:port/path` the port goes.

mod canonical;
mod expression;
#[cfg(test)]
mod tests;

pub use canonical::{CanonicalUrl, UrlError, canonicalize};
pub use expression::{Expression, HostScope, PathScope};

/// Longest URL that is read.
pub const MAX_URL_BYTES: usize = 8_192;
