//! The codec of all four calls: counts fields before prost builds anything of them.
//!
//! Two empty bytes on the wire become a 32-byte value in a list, so that a message
//! within its limit could make 64 MiB. Here the fields are counted first, per kind
//! of message, without allocating.

use std::cell::Cell;
use std::marker::PhantomData;

use bytes::Buf;
use hashpact_core::fields::Field;
use hashpact_core::limits::{COSIGNATURES_MAX, RECEIPTS_MAX};
use hashpact_core::reject::Rejection;
use prost::Message;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

use crate::convert::{PAGES_MAX, PROOF_MAX_HASHES};
use crate::reported::REPORT_MAX_BYTES;
use crate::{status, wire};

/// A hello: a few numbers and digests and 100 bytes of text.
const HELLO_MAX_BYTES: usize = 1024;
/// Requests of fixed fields.
const REQUEST_MAX_BYTES: usize = 256;
/// Fields beside those that repeat, with room for ones that later versions add.
const PLAIN_FIELDS_MAX: usize = 16;

/// Encodes `T` and decodes `U`.
#[derive(Debug)]
pub(crate) struct CappedCodec<T, U>(PhantomData<fn() -> (T, U)>);

impl<T, U> Default for CappedCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for CappedCodec<T, U>
where
    T: Message + 'static,
    U: Message + Default + Capped + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ExactEncoder<T>;
    type Decoder = CappedDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ExactEncoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        CappedDecoder(PhantomData)
    }
}

/// Encodes into a buffer of the exact size, so that a chunk is copied once.
#[derive(Debug)]
pub(crate) struct ExactEncoder<T>(PhantomData<fn() -> T>);

impl<T: Message> Encoder for ExactEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, item: T, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(item.encoded_len());
        item.encode(buffer)
            .map_err(|_| Status::internal("internal error"))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}

/// Decodes what passes [`Capped::check`].
#[derive(Debug)]
pub(crate) struct CappedDecoder<U>(PhantomData<fn() -> U>);

impl<U: Message + Default + Capped> Decoder for CappedDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        // The buffer of a whole message is contiguous in tonic; were it not, only
        // part would be counted, so that is refused.
        if buffer.chunk().len() != buffer.remaining() {
            return Err(Status::internal("internal error"));
        }
        decoded(buffer).map(Some).map_err(rejected)
    }
}

/// Counts the fields of a whole, contiguous message, and decodes it.
pub(crate) fn decoded<U: Message + Default + Capped>(message: impl Buf) -> Result<U, Rejection> {
    U::check(message.chunk())?;
    U::decode(message).map_err(|error| Rejection::malformed("message", error.to_string()))
}

/// A status that carries the code for a peer, and the rejection for our own client.
fn rejected(rejection: Rejection) -> Status {
    let mut status = status::of_rejection(&rejection);
    status.set_source(std::sync::Arc::new(rejection));
    status
}

/// A message whose fields are counted before it is decoded.
pub(crate) trait Capped {
    /// Refuses a message with more fields, or bytes, than it can need.
    fn check(message: &[u8]) -> Result<(), Rejection>;
}

macro_rules! capped_by_size {
    ($($message:ty, $what:literal, $limit:expr;)*) => {$(
        impl Capped for $message {
            fn check(message: &[u8]) -> Result<(), Rejection> {
                Rejection::cap($what, message.len(), $limit)
            }
        }
    )*};
}

capped_by_size! {
    wire::HelloRequest, "hello", HELLO_MAX_BYTES;
    wire::HelloResponse, "hello", HELLO_MAX_BYTES;
    wire::GetRosterRequest, "roster request", REQUEST_MAX_BYTES;
    wire::PullRequest, "pull request", REQUEST_MAX_BYTES;
}

impl Capped for wire::RosterItem {
    fn check(message: &[u8]) -> Result<(), Rejection> {
        Budget::new("roster item", PLAIN_FIELDS_MAX).walk(message, |_, _| Ok(()))
    }
}

impl Capped for wire::PullItem {
    fn check(message: &[u8]) -> Result<(), Rejection> {
        const CHUNK: u64 = 1;
        const LIMIT: usize = PAGES_MAX + 3 * PROOF_MAX_HASHES + PLAIN_FIELDS_MAX;
        let budget = Budget::new("chunk", LIMIT);
        budget.walk(message, |number, content| match number {
            CHUNK => budget.walk(content, |_, _| Ok(())),
            _ => Ok(()),
        })
    }
}

impl Capped for wire::Announcement {
    fn check(message: &[u8]) -> Result<(), Rejection> {
        const HEAD: u64 = 4;
        const GRANT_ENDED: u64 = 8;
        const GRANT_ENDED_HEAD: u64 = 1;
        const OVERDUE: u64 = 10;
        const QUARANTINED: u64 = 12;
        const QUARANTINED_LOT: u64 = 3;
        const LIMIT: usize = COSIGNATURES_MAX + RECEIPTS_MAX + PROOF_MAX_HASHES + PLAIN_FIELDS_MAX;
        let budget = Budget::new("announcement", LIMIT);
        let reports = Cell::new(0_usize);
        budget.walk(message, |number, content| match number {
            HEAD => budget.walk(content, |_, _| Ok(())),
            GRANT_ENDED => budget.walk(content, |number, content| match number {
                GRANT_ENDED_HEAD => budget.walk(content, |_, _| Ok(())),
                _ => Ok(()),
            }),
            OVERDUE => budget.walk(content, |_, member| budget.walk(member, |_, _| Ok(()))),
            QUARANTINED => {
                // A byte of a packed list becomes eight, and pieces are put together.
                reports.set(reports.get().saturating_add(content.len()));
                Rejection::cap("report", reports.get(), REPORT_MAX_BYTES)?;
                budget.walk(content, |number, content| match number {
                    QUARANTINED_LOT => budget.walk(content, |_, _| Ok(())),
                    _ => Ok(()),
                })
            }
            _ => Ok(()),
        })
    }
}

impl Capped for wire::BundleFeed {
    fn check(message: &[u8]) -> Result<(), Rejection> {
        const HEAD: u64 = 1;
        const LIMIT: usize = COSIGNATURES_MAX + RECEIPTS_MAX + PROOF_MAX_HASHES + PLAIN_FIELDS_MAX;
        let budget = Budget::new("feed of a bundle", LIMIT);
        budget.walk(message, |number, content| match number {
            HEAD => budget.walk(content, |_, _| Ok(())),
            _ => Ok(()),
        })
    }
}

/// How many fields a message may have, those of messages inside included: protobuf
/// merges what comes twice, so only the sum says what would be built.
struct Budget {
    what: &'static str,
    limit: usize,
    used: Cell<usize>,
}

impl Budget {
    const fn new(what: &'static str, limit: usize) -> Self {
        Self {
            what,
            limit,
            used: Cell::new(0),
        }
    }

    /// Counts the fields of a message and shows each to `check`.
    fn walk(
        &self,
        message: &[u8],
        check: impl Fn(u64, &[u8]) -> Result<(), Rejection>,
    ) -> Result<(), Rejection> {
        let mut rest = message;
        while !rest.is_empty() {
            let field = Field::read(&mut rest)
                .ok_or_else(|| Rejection::malformed(self.what, "a field is cut"))?;
            self.used.set(self.used.get() + 1);
            Rejection::cap(self.what, self.used.get(), self.limit)?;
            check(field.number, field.content)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_of_empty_pages_is_refused_before_it_is_built() {
        let pages = vec![bytes::Bytes::new(); 100_000];
        let chunk = wire::Chunk {
            pages,
            ..wire::Chunk::default()
        };
        let item = wire::pull_item::Item::Chunk(chunk);
        let item = wire::PullItem { item: Some(item) };
        let refused = wire::PullItem::check(&item.encode_to_vec());
        assert!(matches!(
            refused,
            Err(Rejection::TooLarge { what: "chunk", .. })
        ));
    }

    #[test]
    fn a_message_given_many_times_over_is_refused() {
        let item = wire::pull_item::Item::Chunk(wire::Chunk::default());
        let item = wire::PullItem { item: Some(item) }.encode_to_vec();
        assert!(wire::PullItem::check(&item).is_ok());
        assert!(wire::PullItem::check(&item.repeat(1_000)).is_err());
    }

    #[test]
    fn a_head_with_more_receipts_than_members_is_refused() {
        let head = |count| {
            let head = wire::Head {
                receipts: vec![bytes::Bytes::new(); count],
                ..wire::Head::default()
            };
            let item = wire::announcement::Item::Head(head);
            wire::Announcement { item: Some(item) }.encode_to_vec()
        };
        assert!(wire::Announcement::check(&head(RECEIPTS_MAX)).is_ok());
        assert!(wire::Announcement::check(&head(3_000)).is_err());
    }

    #[test]
    fn a_report_that_does_not_end_is_refused_before_it_is_built() {
        let report = |lots: usize, ranges: usize| {
            let lot = wire::QuarantinedLot {
                reason: "low_quality".to_owned(),
                ranges: vec![1; ranges],
                ..wire::QuarantinedLot::default()
            };
            let report = wire::Quarantined {
                feed_id: vec![7; 32].into(),
                size: 99,
                epoch: 1,
                lots: vec![lot; lots],
            };
            let item = wire::announcement::Item::Quarantined(report);
            wire::Announcement { item: Some(item) }.encode_to_vec()
        };
        assert!(wire::Announcement::check(&report(64, 32)).is_ok());
        for (lots, ranges) in [(1, 4_000_000), (100_000, 0), (2_000, 2_000)] {
            let refused = wire::Announcement::check(&report(lots, ranges));
            assert!(matches!(refused, Err(Rejection::TooLarge { .. })));
        }
        // Nor in pieces, which protobuf puts together.
        assert!(wire::Announcement::check(&report(64, 32).repeat(100)).is_err());
    }

    #[test]
    fn cut_fields_and_groups_are_refused() {
        for bytes in [
            &b"\x0a"[..],
            b"\x0a\x05abc",
            b"\x0b\x0c",
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        ] {
            let refused = wire::PullItem::check(bytes);
            assert!(
                matches!(refused, Err(Rejection::Malformed { .. })),
                "{bytes:?}"
            );
        }
    }
}
