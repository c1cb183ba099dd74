//! The codec of the local API: a message's fields are counted before anything of it is
//! built, since two empty bytes on the wire become a signal of a hundred in memory.
//!
//! What a message may hold is the same for all calls: ten thousand repeated things, and
//! so many fields within them. Whatever a method allows less of, it says itself.

use std::marker::PhantomData;

use bytes::Buf;
use hashpact_core::fields::Field;
use prost::Message;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder};
use tonic_prost::ProstEncoder;

use crate::asking::LOOKUP_MAX;
use crate::error::misuse;

/// Fields of a message: as many signals as one look-up may have, a reference with each,
/// and some beside them.
const FIELDS_MAX: usize = 2 * LOOKUP_MAX + 64;
/// Fields within those: of 10,000 entries, 40 each.
const WITHIN_MAX: usize = 400_000;

/// Encodes `T` and decodes `U`, which its own node has sent or a client.
#[derive(Debug)]
pub(crate) struct CountedCodec<T, U>(PhantomData<fn() -> (T, U)>);

impl<T, U> Default for CountedCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T: Message + 'static, U: Message + Default + 'static> Codec for CountedCodec<T, U> {
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = Counted<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::default()
    }

    fn decoder(&mut self) -> Self::Decoder {
        Counted(PhantomData)
    }
}

/// Decodes what passes [`check`].
#[derive(Debug)]
pub(crate) struct Counted<U>(PhantomData<fn() -> U>);

impl<U: Message + Default> Decoder for Counted<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        // The buffer of a whole message is contiguous in tonic; were it not, only
        // part would be counted, so that is refused.
        if buffer.chunk().len() != buffer.remaining() {
            return Err(Status::internal("internal error"));
        }
        check(buffer.chunk()).map_err(misuse)?;
        let decoded = U::decode(buffer);
        decoded
            .map(Some)
            .map_err(|_| misuse("the message is not of this call"))
    }
}

/// Counts a message's fields and those within them. Bytes that are no message count as
/// what they are, one field.
fn check(mut message: &[u8]) -> Result<(), String> {
    let (mut fields, mut within) = (0_usize, 0_usize);
    while !message.is_empty() {
        let field = Field::read(&mut message).ok_or("a field of the message is cut")?;
        fields = fields.saturating_add(1);
        if fields > FIELDS_MAX {
            return Err(format!(
                "more than {LOOKUP_MAX} items in one message; send several"
            ));
        }
        let mut content = field.content;
        while !content.is_empty() && Field::read(&mut content).is_some() {
            within = within.saturating_add(1);
            if within > WITHIN_MAX {
                return Err(format!(
                    "the items of one message have more than {WITHIN_MAX} fields; send several"
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire;

    #[test]
    fn empty_items_are_counted_before_they_are_built() {
        let look_up = |signals| wire::LookupRequest {
            signals: vec![wire::Signal::default(); signals],
            ..wire::LookupRequest::default()
        };
        assert_eq!(check(&look_up(LOOKUP_MAX).encode_to_vec()), Ok(()));
        let named = wire::LookupRequest {
            references: vec![String::new(); LOOKUP_MAX],
            ..look_up(LOOKUP_MAX)
        };
        assert_eq!(check(&named.encode_to_vec()), Ok(()));
        assert!(check(&look_up(3 * LOOKUP_MAX).encode_to_vec()).is_err());
        // Two bytes each, and a message of 16 MiB would hold eight million.
        assert!(check(&[0x0a, 0].repeat(1 << 20)).is_err());
    }

    #[test]
    fn what_lies_within_items_is_counted_too() {
        let import = |signals| wire::ImportRequest {
            entries: vec![wire::Entry {
                signals: vec![wire::Signal::default(); signals],
                ..wire::Entry::default()
            }],
            ..wire::ImportRequest::default()
        };
        assert_eq!(check(&import(32).encode_to_vec()), Ok(()));
        assert!(check(&import(WITHIN_MAX + 1).encode_to_vec()).is_err());
        assert!(check(b"\x0a\x05ab").is_err(), "a cut field");
    }
}
