//! Callers as the audit feed names them.

use std::os::unix::fs::MetadataExt as _;

use hashpact_core::leaf::audit::{Actor, ActorRole};

use crate::caller::{Caller, Role, Who};

impl Caller {
    /// The caller, with the command that it says it is; empty for a program.
    #[must_use]
    pub fn actor(&self, command: &str) -> Actor {
        let (via, name, uid) = match &self.who {
            Who::Process => ("process", String::new(), own_uid()),
            Who::Socket { uid } => ("socket", String::new(), *uid),
            Who::Certificate { name, .. } => ("tcp", name.clone(), None),
            Who::Loopback => ("loopback", String::new(), None),
        };
        Actor {
            role: match self.role {
                Role::Read => ActorRole::Reader,
                Role::Publish => ActorRole::Publisher,
                Role::Administer => ActorRole::Administrator,
            },
            via: via.to_owned(),
            name,
            uid,
            command: command.to_owned(),
        }
    }
}

/// The user of this process.
fn own_uid() -> Option<u32> {
    std::fs::metadata("/proc/self").ok().map(|own| own.uid())
}
