//! What a hostile peer could send to whatever reads bytes from outside.

mod bytes;
mod documents;
mod feeds;
mod mutations;

use self::mutations::{Mutation, Value, absent, key, message, mutations, varint};
use self::mutations::{Record, records};
