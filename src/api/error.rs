//! What goes wrong in the local interfaces, and the one table from errors to gRPC
//! statuses.

use std::path::PathBuf;
use std::time::Duration;

use hashpact_core::reject::Rejection;
use hashpact_node::NodeError;
use hashpact_node::caller::Role;
use tonic::metadata::AsciiMetadataValue;
use tonic::{Code, Status};

/// The metadata key of a status under which the stable code stands.
pub const CODE: &str = "hashpact-code";
/// The metadata key under which a refused caller finds how long to wait.
pub const RETRY_AFTER_MS: &str = "retry-after-ms";

/// Why an interface cannot be offered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApiError {
    /// Another node has the socket.
    #[error("a node answers at {path} already; stop it first, or set another api.socket")]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something else lies where the socket should.
    #[error("{path} is no socket and is left alone; move it away, or set another api.socket")]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// Others could put a socket of their own in its place.
    #[error(
        "{folder} belongs to another user or may be written by others; the socket needs a folder \
         of its own: chmod 0700 {folder}"
    )]
    Folder {
        /// The socket's folder.
        folder: PathBuf,
    },
    /// A file operation failed.
    #[error("{path}: {source}")]
    Io {
        /// The path or address.
        path: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The server ended with an error.
    #[error("the local API ended: {0}")]
    Server(String),
}

/// The one table from the node's errors to gRPC statuses.
pub(crate) fn status(error: &NodeError) -> Status {
    let code = match error {
        NodeError::Misuse(_) | NodeError::Rejected(_) => Code::InvalidArgument,
        NodeError::NotFound { .. } => Code::NotFound,
        NodeError::Terms { .. }
        | NodeError::NotGranted { .. }
        | NodeError::PublishingClosed { .. }
        | NodeError::DiskLow { .. } => Code::FailedPrecondition,
        NodeError::StartOver(error) if hashpact_node::changes::is_mistake(*error) => {
            Code::InvalidArgument
        }
        NodeError::StartOver(_) => Code::OutOfRange,
        NodeError::Busy(_) => Code::Unavailable,
        // The enum grows; what is not known here is ours.
        NodeError::Store(_) | NodeError::Internal(_) | _ => Code::Internal,
    };
    if code == Code::Internal {
        tracing::error!(code = error.code(), %error, "a call failed");
    }
    coded(code, error.code(), error.to_string())
}

/// A status for what a caller said wrongly.
pub(crate) fn refused(rejection: &Rejection) -> Status {
    coded(
        Code::InvalidArgument,
        rejection.code(),
        rejection.to_string(),
    )
}

/// A status for a wrong call, which says what to do instead.
pub(crate) fn misuse(why: impl Into<String>) -> Status {
    coded(Code::InvalidArgument, "misuse", why.into())
}

/// A status for a call that there is no room for at present.
pub(crate) fn overloaded(wait: Duration) -> Status {
    let text = format!("too many calls wait; try again in {} ms", wait.as_millis());
    let mut status = coded(Code::ResourceExhausted, "overloaded", text);
    let wait = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    status.metadata_mut().insert(RETRY_AFTER_MS, wait.into());
    status
}

/// A status for a call that needs another role.
pub(crate) fn not_allowed(role: Role, needed: Role) -> Status {
    let text = format!(
        "the role {} may not make this call, which takes {}; whoever runs the node gives roles \
         (api.clients in its configuration)",
        role.name(),
        needed.name()
    );
    coded(Code::PermissionDenied, "not_allowed", text)
}

/// A status for what a node does not do that only witnesses.
pub(crate) fn only_witnesses() -> Status {
    coded(
        Code::Unimplemented,
        "only_witnesses",
        "this node only witnesses (hashpact witness): it holds no hashes and publishes nothing"
            .to_owned(),
    )
}

/// A status for a call of which no door says who makes it: none of ours.
pub(crate) fn nobody() -> Status {
    Status::unauthenticated("nobody knows who calls")
}

/// A status for whoever speaks for another's consumer.
pub(crate) fn not_yours() -> Status {
    coded(
        Code::PermissionDenied,
        "not_allowed",
        "this consumer is another client's; give yours another name".to_owned(),
    )
}

/// A status for a stream that ends because the node does.
pub(crate) fn stopping() -> Status {
    coded(
        Code::Unavailable,
        "busy",
        "the node stops; go on from your cursor once it runs again".to_owned(),
    )
}

/// A status for a task of ours that ended before it answered.
pub(crate) fn lost(what: &str) -> Status {
    tracing::error!(what, "a task ended before it answered");
    coded(Code::Internal, "internal", format!("{what} ended early"))
}

fn coded(code: Code, stable: &'static str, text: String) -> Status {
    let mut status = Status::new(code, text);
    status
        .metadata_mut()
        .insert(CODE, AsciiMetadataValue::from_static(stable));
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_carries_the_stable_code_and_the_facts() {
        let error = NodeError::Terms {
            set: "a/b".to_owned(),
            terms: "a list of X that may not be shared on".to_owned(),
        };
        let status = status(&error);
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert_eq!(status.metadata().get(CODE).unwrap(), "terms");
        assert!(status.message().contains("may not be shared on"));
    }
}
