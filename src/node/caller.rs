//! Who asks this node for something from inside the member: decided once, at the door.
//!
//! Doors make a [`Caller`]; what it may do follows from its role, in one table of the
//! local API; whoever records what was done takes the caller from the call.

use std::fmt;

use hashpact_core::id::Digest;

/// What a caller may do; each role includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Asks and follows: look-ups, matches, states, the stream of changes.
    Read,
    /// Says something in the member's name: imports, retractions, erasures.
    Publish,
    /// Decides who may read what, what counts here, and how the node stands.
    Administer,
}

impl Role {
    /// All of them, the least first.
    pub const ALL: [Self; 3] = [Self::Read, Self::Publish, Self::Administer];

    /// The word in the configuration, in logs and in answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Publish => "publish",
            Self::Administer => "administer",
        }
    }

    /// The role of a word.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }
}

/// Through which door, and who by that door's proof.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Who {
    /// A command in the node's own process, which holds the store's lock.
    Process,
    /// A process of this user, who could open the socket; `None` where the system does
    /// not say.
    Socket {
        /// The user's number.
        uid: Option<u32>,
    },
    /// Whoever holds the key that the configuration names.
    Certificate {
        /// The name that the configuration gives it.
        name: String,
        /// SHA-256 of the key's `SubjectPublicKeyInfo`.
        key: Digest,
    },
    /// Some process of this machine, by a door that asks for no proof.
    Loopback,
}

/// Who calls, and in which role.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Caller {
    /// Who.
    pub who: Who,
    /// What it may do.
    pub role: Role,
}

impl Caller {
    /// A command in the node's own process: whoever runs it has store and keys.
    #[must_use]
    pub const fn process() -> Self {
        Self {
            who: Who::Process,
            role: Role::Administer,
        }
    }

    /// Whoever opened the socket: the socket is the permission.
    #[must_use]
    pub const fn socket(uid: Option<u32>) -> Self {
        Self {
            who: Who::Socket { uid },
            role: Role::Administer,
        }
    }

    /// Some process of this machine.
    #[must_use]
    pub const fn loopback() -> Self {
        Self {
            who: Who::Loopback,
            role: Role::Read,
        }
    }

    /// A client whose key the configuration names.
    #[must_use]
    pub const fn certificate(name: String, key: Digest, role: Role) -> Self {
        Self {
            who: Who::Certificate { name, key },
            role,
        }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.who {
            Who::Process => f.write_str("this process"),
            Who::Socket { uid: Some(uid) } => write!(f, "uid {uid}"),
            Who::Socket { uid: None } => f.write_str("the socket"),
            Who::Certificate { name, .. } => write!(f, "client {name}"),
            Who::Loopback => f.write_str("loopback"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_includes_those_before_it_and_reads_back_by_its_word() {
        assert!(Role::Read < Role::Publish && Role::Publish < Role::Administer);
        for role in Role::ALL {
            assert_eq!(Role::from_name(role.name()), Some(role));
        }
        assert_eq!(Role::from_name("root"), None);
    }
}
