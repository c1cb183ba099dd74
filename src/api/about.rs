//! What the node cannot know of the process it runs in.

use hashpact_core::id::UnixMillis;

/// What the node cannot know of the process it runs in.
#[derive(Debug, Clone, Default)]
pub struct About {
    /// Name and version of the program.
    pub software: String,
    /// When the TLS certificate expires; `None` where there is none.
    pub certificate_expires: Option<UnixMillis>,
}
