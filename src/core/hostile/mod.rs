//! What a hostile peer could send to whatever reads bytes from outside.

mod bytes;
mod documents;
mod feeds;
mod mutations;

use self::mutations::{Mutation, Value, key, varint};
use self::mutations::{Record, records};
pub(crate) use self::mutations::{absent, message, mutations};
