//! The fields of a protobuf message, read without building anything: two empty bytes on
//! the wire can become a hundred in memory, so what comes from outside is counted first
//! (protobuf's encoding: <https://protobuf.dev/programming-guides/encoding/>).

/// One field. Trusted for nothing: it is what its writer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// Its number.
    pub number: u64,
    /// What it holds; empty for numbers.
    pub content: &'a [u8],
}

impl<'a> Field<'a> {
    /// Takes the first field off `rest`; `None` where none is whole, or where it is a
    /// group, which proto3 has not.
    pub fn read(rest: &mut &'a [u8]) -> Option<Self> {
        let key = varint(rest)?;
        let length = match key & 7 {
            0 => {
                varint(rest)?;
                0
            }
            1 => 8,
            2 => usize::try_from(varint(rest)?).ok()?,
            5 => 4,
            _ => return None,
        };
        let (content, after) = rest.split_at_checked(length)?;
        *rest = after;
        Some(Self {
            number: key >> 3,
            content,
        })
    }
}

/// Reads an unsigned LEB128 number of at most ten bytes.
fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..70).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
