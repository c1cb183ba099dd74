//! The one table between reasons and gRPC status codes, both ways.

use std::time::Duration;

use hashpact_core::reject::Rejection;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use crate::error::{NetError, PeerRefusal};
use crate::service::ServiceError;

/// The metadata key of the reason code.
pub(crate) const CODE_KEY: &str = "hashpact-code";
/// The metadata key of the time to wait before the next try.
pub(crate) const RETRY_KEY: &str = "hashpact-retry-after-ms";

/// The longest wait that is believed: a peer cannot silence us for a day.
const RETRY_MAX: Duration = Duration::from_secs(600);
const CODE_MAX_CHARS: usize = 40;
const MESSAGE_MAX_CHARS: usize = 200;

/// Which gRPC code stands for a rejection.
const fn grpc_code(rejection: &Rejection) -> Code {
    match rejection {
        Rejection::NotFound => Code::NotFound,
        Rejection::RateLimited { .. } => Code::ResourceExhausted,
        Rejection::Truncated { .. } => Code::Aborted,
        Rejection::WrongGenesis { .. }
        | Rejection::VersionGap { .. }
        | Rejection::WrongPredecessor { .. }
        | Rejection::Equivocation { .. }
        | Rejection::Expired { .. }
        | Rejection::FromTheFuture { .. }
        | Rejection::WrongOrigin { .. }
        | Rejection::WrongEpoch { .. }
        | Rejection::HeadWentBack { .. }
        | Rejection::TwoRoots { .. }
        | Rejection::WrongRoot { .. }
        | Rejection::NotAnExtension { .. }
        | Rejection::ElidedWithoutReason { .. }
        | Rejection::WrongFirstLeaf { .. } => Code::FailedPrecondition,
        Rejection::TooLarge { .. }
        | Rejection::Malformed { .. }
        | Rejection::Invalid { .. }
        | Rejection::BadSignature { .. }
        | Rejection::ThresholdNotMet { .. }
        | Rejection::Unknown { .. }
        | Rejection::ProofLength { .. }
        | Rejection::WrongRange { .. }
        | _ => Code::InvalidArgument,
    }
}

/// The answer for a rejection. Two of the same rejection are the same bytes, so
/// that what is not granted looks like what does not exist.
pub(crate) fn of_rejection(rejection: &Rejection) -> Status {
    status(
        grpc_code(rejection),
        rejection.code(),
        rejection.to_string(),
        None,
    )
}

/// The answer for what a service could not do.
pub(crate) fn of_service(error: &ServiceError) -> Status {
    match error {
        ServiceError::Rejected(rejection) => of_rejection(rejection),
        ServiceError::NotActive => status(
            Code::PermissionDenied,
            error.code(),
            error.to_string(),
            None,
        ),
        ServiceError::Busy { retry_after } => status(
            Code::ResourceExhausted,
            error.code(),
            error.to_string(),
            Some(*retry_after),
        ),
        ServiceError::Unavailable => {
            status(Code::Unavailable, error.code(), error.to_string(), None)
        }
        ServiceError::Timeout => status(
            Code::DeadlineExceeded,
            error.code(),
            error.to_string(),
            None,
        ),
        ServiceError::Internal => status(Code::Internal, error.code(), error.to_string(), None),
    }
}

fn status(
    grpc: Code,
    code: &'static str,
    message: String,
    retry_after: Option<Duration>,
) -> Status {
    let mut metadata = MetadataMap::new();
    metadata.insert(CODE_KEY, tonic::metadata::MetadataValue::from_static(code));
    if let Some(wait) = retry_after {
        metadata.insert(
            RETRY_KEY,
            u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).into(),
        );
    }
    Status::with_metadata(grpc, message, metadata)
}

/// Reads a peer's status, or what our own side made of a broken connection or of a
/// message that our codec refused.
pub(crate) fn read(status: &Status) -> NetError {
    if let Some(rejection) = own_rejection(status) {
        return rejection.clone().into();
    }
    let metadata = |key| status.metadata().get(key)?.to_str().ok();
    let Some(code) = metadata(CODE_KEY) else {
        return without_code(status);
    };
    let wait = metadata(RETRY_KEY).and_then(|ms| ms.parse().ok());
    PeerRefusal {
        code: plain_code(code),
        message: printable(status.message()),
        retry_after: wait.map(|ms| Duration::from_millis(ms).min(RETRY_MAX)),
    }
    .into()
}

/// The rejection that our codec put into a status; none comes over the wire.
fn own_rejection(status: &Status) -> Option<&Rejection> {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if let Some(rejection) = error.downcast_ref() {
            return Some(rejection);
        }
        source = error.source();
    }
    None
}

/// A status that no node of ours makes: tonic's or hyper's own, of either side.
fn without_code(status: &Status) -> NetError {
    let message = printable(status.message());
    let code = status.code();
    if code == Code::OutOfRange {
        // A message above `MESSAGE_MAX_BYTES`, refused by its length prefix.
        return Rejection::invalid("message", message).into();
    }
    let broken = [
        Code::Unavailable,
        Code::Cancelled,
        Code::Unknown,
        Code::Internal,
    ];
    if broken.contains(&code) {
        return NetError::Closed(message);
    }
    PeerRefusal {
        code: "none".to_owned(),
        message,
        retry_after: None,
    }
    .into()
}

fn plain_code(code: &str) -> String {
    let plain = |c: &char| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '_';
    code.chars().filter(plain).take(CODE_MAX_CHARS).collect()
}

fn printable(text: &str) -> String {
    let printable = |c: &char| !c.is_control();
    text.chars()
        .filter(printable)
        .take(MESSAGE_MAX_CHARS)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rejection_crosses_with_its_code() {
        let read = read(&of_rejection(&Rejection::TwoRoots { size: 7 }));
        assert!(
            matches!(&read, NetError::Peer(refusal) if refusal.code == "two_roots"),
            "{read:?}"
        );
    }

    #[test]
    fn a_busy_answer_crosses_with_its_wait_which_is_capped() {
        let wait = |ms| {
            let retry_after = Duration::from_millis(ms);
            let read = read(&of_service(&ServiceError::Busy { retry_after }));
            let NetError::Peer(refusal) = read else {
                panic!("{read:?}")
            };
            refusal.retry_after
        };
        assert_eq!(wait(250), Some(Duration::from_millis(250)));
        assert_eq!(wait(u64::MAX), Some(RETRY_MAX));
    }

    #[test]
    fn a_peers_words_are_cut_and_cleaned() {
        let mut status = Status::new(Code::InvalidArgument, "a\x1b[31m".repeat(200));
        let code = "BAD code\u{7f}x".replace('\u{7f}', "");
        status
            .metadata_mut()
            .insert(CODE_KEY, code.parse().unwrap());
        let NetError::Peer(refusal) = read(&status) else {
            panic!()
        };
        assert_eq!(refusal.code, "codex");
        assert_eq!(refusal.message.chars().count(), MESSAGE_MAX_CHARS);
        assert!(!refusal.message.contains('\x1b'));
    }

    #[test]
    fn internal_faults_say_nothing_of_themselves() {
        let status = of_service(&ServiceError::Internal);
        assert_eq!(status.message(), "internal error");
    }
}
