//! Values that several commands take as arguments.

use std::fmt;
use std::str::FromStr;

use clap::ValueEnum;
use hashpact_core::id::{IdError, SetName, Slug};
use hashpact_core::roster::Role;

use super::error::CliError;
use crate::config::Endpoint;

/// Reads a slug.
///
/// # Errors
/// As [`Slug::parse`].
pub fn slug(text: &str) -> Result<Slug, IdError> {
    Slug::parse(text)
}

/// One of this member's sets, or another member's where it is written in full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetReference {
    /// `confirmed`: this member's own.
    Own(Slug),
    /// `northstar/confirmed`.
    Full(SetName),
}

impl SetReference {
    /// The name among this member's own sets, for what only their writer does.
    ///
    /// # Errors
    /// When it is another member's set.
    pub fn own(&self, own: &Slug) -> Result<Slug, CliError> {
        let name = self.resolve(own);
        if name.member == *own {
            return Ok(name.set);
        }
        Err(CliError::usage(format!(
            "{name} is not a set of {own}, the member of this node"
        ))
        .next("a member writes its own sets only; hashpact set list shows them"))
    }

    /// The full name, given this member's slug.
    #[must_use]
    pub fn resolve(&self, own: &Slug) -> SetName {
        match self {
            Self::Own(set) => SetName {
                member: own.clone(),
                set: set.clone(),
            },
            Self::Full(name) => name.clone(),
        }
    }
}

impl FromStr for SetReference {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        if text.contains('/') {
            SetName::parse(text).map(Self::Full)
        } else {
            Slug::parse(text).map(Self::Own)
        }
    }
}

impl fmt::Display for SetReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own(set) => set.fmt(f),
            Self::Full(name) => name.fmt(f),
        }
    }
}

/// Whom a grant is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grantee {
    /// One member: its slug.
    Member(Slug),
    /// A group of the roster: `group:NAME`.
    Group(Slug),
    /// Every member that may subscribe: `all`.
    All,
}

impl FromStr for Grantee {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        if text == "all" {
            return Ok(Self::All);
        }
        match text.strip_prefix("group:") {
            Some(group) => Slug::parse(group).map(Self::Group),
            None => Slug::parse(text.strip_prefix("member:").unwrap_or(text)).map(Self::Member),
        }
    }
}

impl fmt::Display for Grantee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Member(slug) => slug.fmt(f),
            Self::Group(group) => write!(f, "group:{group}"),
            Self::All => f.write_str("all"),
        }
    }
}

/// A node to ask for the roster first: `MEMBER=HOST:PORT`, or `HOST:PORT` of whomever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootstrapPeer {
    /// The member that is meant, if one is.
    pub member: Option<Slug>,
    /// Where its node listens.
    pub endpoint: Endpoint,
}

impl FromStr for BootstrapPeer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (member, endpoint) = match text.split_once('=') {
            Some((member, endpoint)) => (Some(member), endpoint),
            None => (None, text),
        };
        let member = member.map(Slug::parse).transpose();
        Ok(Self {
            member: member.map_err(|error| error.to_string())?,
            endpoint: Endpoint::parse(endpoint)?,
        })
    }
}

impl fmt::Display for BootstrapPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.member {
            Some(member) => write!(f, "{member}={}", self.endpoint),
            None => self.endpoint.fmt(f),
        }
    }
}

/// What a member may do, as in the roster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RoleArg {
    /// Publish hash sets
    Publish,
    /// Read the sets that it is granted
    Subscribe,
    /// See all heads and proofs, and cosign them
    Witness,
    /// See members and their state, and no feed
    Observe,
}

impl RoleArg {
    /// The role of the roster.
    #[must_use]
    pub const fn role(self) -> Role {
        match self {
            Self::Publish => Role::Publish,
            Self::Subscribe => Role::Subscribe,
            Self::Witness => Role::Witness,
            Self::Observe => Role::Observe,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grantees_read_back_as_written() {
        for text in ["all", "group:games", "tidepool"] {
            assert_eq!(
                text.parse::<Grantee>().map(|g| g.to_string()),
                Ok(text.to_owned())
            );
        }
        assert_eq!(
            "member:all".parse(),
            Ok(Grantee::Member(Slug::parse("all").unwrap()))
        );
        assert!("group:".parse::<Grantee>().is_err());
        assert!("Tidepool".parse::<Grantee>().is_err());
    }

    #[test]
    fn a_short_set_name_means_this_members_own() {
        let own = Slug::parse("northstar").unwrap();
        let resolve = |text: &str| {
            let reference: SetReference = text.parse().unwrap();
            reference.resolve(&own).to_string()
        };
        assert_eq!(resolve("confirmed"), "northstar/confirmed");
        assert_eq!(resolve("tidepool/links"), "tidepool/links");
        let written = |text: &str| text.parse::<SetReference>().unwrap().own(&own);
        for text in ["confirmed", "northstar/confirmed"] {
            assert_eq!(written(text), Ok(Slug::parse("confirmed").unwrap()));
        }
        assert!(written("tidepool/links").is_err());
    }

    #[test]
    fn a_bootstrap_peer_names_an_endpoint_and_the_member_that_is_meant() {
        for text in [
            "tidepool=h.example:7443",
            "h.example:7443",
            "[2001:db8::1]:7443",
        ] {
            let peer: BootstrapPeer = text.parse().unwrap();
            assert_eq!(peer.to_string(), text);
        }
        assert!("Tidepool=h.example:7443".parse::<BootstrapPeer>().is_err());
        assert!("h.example".parse::<BootstrapPeer>().is_err());
    }
}
