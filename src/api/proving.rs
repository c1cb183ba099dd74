//! Proofs and evidence as files: their bytes, in pieces.

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use hashpact_core::id::{EntryName, UnixMillis};
use hashpact_core::leaf::audit::Act;
use hashpact_core::reject::Rejection;
use hashpact_node::evidence::{EvidenceAbout, EvidenceView};
use hashpact_node::proving::{AsOf, ProofOrder};
use hashpact_node::{Node, NodeError};
use tonic::Status;

use crate::wire;

/// Of one message.
const PIECE_BYTES: usize = 1024 * 1024;
/// The digits of a SHA-256.
const DIGEST_DIGITS: usize = 64;

pub(crate) type Pieces = BoxStream<'static, Result<wire::FileResponse, Status>>;

/// A file in pieces; slices of one buffer.
pub(crate) fn pieces(file: Bytes) -> Pieces {
    let mut rest = file;
    let next = std::iter::from_fn(move || {
        let data = rest.split_to(rest.len().min(PIECE_BYTES));
        (!data.is_empty()).then_some(Ok(wire::FileResponse { data }))
    });
    stream::iter(next).boxed()
}

/// Makes a proof. Blocking.
pub(crate) fn prove(
    node: &Node,
    request: &wire::ProveRequest,
    act: &mut Act,
) -> Result<Bytes, NodeError> {
    let entry = EntryName::parse(&request.entry).map_err(Rejection::from)?;
    act.detail("entry", &entry);
    let as_of = match (request.as_of_ms, request.as_of_size) {
        (0, 0) => AsOf::Now,
        (time, 0) => AsOf::Time(UnixMillis(time)),
        (0, size) => AsOf::Size(size),
        (_, _) => {
            let why = "a head is named by a time or by a size";
            return Err(NodeError::Misuse(why.to_owned()));
        }
    };
    let made = node.prove(&ProofOrder {
        entry,
        as_of,
        exact: request.exact,
        record_only: request.record_only,
    })?;
    act.count("size", made.proven.head.size());
    Ok(made.file)
}

/// What evidence there is. Blocking.
pub(crate) fn list(node: &Node) -> Result<wire::ListEvidenceResponse, NodeError> {
    let pieces = node.evidence()?.into_iter();
    Ok(wire::ListEvidenceResponse {
        pieces: pieces.map(|view| piece(node, view)).collect(),
    })
}

fn piece(node: &Node, view: EvidenceView) -> wire::EvidencePiece {
    let slug = |number| {
        let member = node.member(number);
        member.map_or_else(String::new, |member| member.slug.to_string())
    };
    let named = wire::EvidencePiece {
        digest: Bytes::copy_from_slice(view.digest.as_bytes()),
        closed: view.closed,
        ..wire::EvidencePiece::default()
    };
    match view.about {
        EvidenceAbout::Fork {
            feed,
            name,
            publisher,
            epoch,
            sizes,
        } => wire::EvidencePiece {
            kind: "fork".to_owned(),
            feed: name,
            feed_id: Bytes::copy_from_slice(feed.as_bytes()),
            epoch,
            smaller_size: sizes.0,
            larger_size: sizes.1,
            member: publisher.map(slug).unwrap_or_default(),
            ..named
        },
        EvidenceAbout::NodeCards { member, version } => wire::EvidencePiece {
            kind: "node-cards".to_owned(),
            member: slug(member),
            version,
            ..named
        },
        EvidenceAbout::Rosters { version } => wire::EvidencePiece {
            kind: "rosters".to_owned(),
            version,
            ..named
        },
    }
}

/// Makes a file of one piece. Blocking.
pub(crate) fn export(
    node: &Node,
    request: &wire::ExportEvidenceRequest,
    act: &mut Act,
) -> Result<Bytes, NodeError> {
    let digest = &request.digest;
    let digits = digest.bytes().all(|digit| digit.is_ascii_hexdigit());
    if digest.is_empty() || digest.len() > DIGEST_DIGITS || !digits {
        let why = "evidence is named by the beginning of its digest, in hexadecimal digits";
        return Err(NodeError::Misuse(why.to_owned()));
    }
    act.detail("evidence", digest);
    let (file, _) = node.evidence_file(&digest.to_ascii_lowercase(), request.describe)?;
    Ok(file)
}
