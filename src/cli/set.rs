//! `hashpact set`: this member's hash sets and who may read them.

use clap::{Args, Subcommand, ValueEnum};
use hashpact_core::id::Slug;

use super::error::CliError;
use super::values::{Grantee, SetReference, slug};
use super::{Context, not_available};

/// Create hash sets, list them, and say who may read them
#[derive(Debug, Args)]
pub struct SetArgs {
    /// What to do
    #[command(subcommand)]
    pub command: SetCommand,
}

/// What to do with sets.
#[derive(Debug, Subcommand)]
pub enum SetCommand {
    /// Create a set of this member; nobody may read it until it is granted
    Create(CreateArgs),
    /// List the sets that this node holds, own and others'
    List,
    /// Show one set: description, terms, grants, size, head
    Show {
        /// SET of this member, or MEMBER/SET
        set: SetReference,
    },
    /// Let a member, a group or everybody read a set
    Grant {
        /// A set of this member
        #[arg(value_parser = slug)]
        set: Slug,
        /// Who: MEMBER, group:NAME or all; may be repeated
        #[arg(long = "to", value_name = "GRANTEE", required = true)]
        to: Vec<Grantee>,
        /// They may also serve it onward, to others that are granted it
        #[arg(long)]
        relay: bool,
    },
    /// End a grant: those members stop matching and drop what they hold
    Revoke {
        /// A set of this member
        #[arg(value_parser = slug)]
        set: Slug,
        /// Who: MEMBER, group:NAME or all; may be repeated
        #[arg(long = "from", value_name = "GRANTEE", required = true)]
        from: Vec<Grantee>,
    },
}

/// What a new set is.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// The set's name: 1 to 32 of a-z, 0-9 and -; cannot be changed
    #[arg(value_name = "SET", value_parser = slug)]
    pub name: Slug,
    /// What it holds, for people; at most 200 bytes [default: the name]
    #[arg(long, value_name = "TEXT")]
    pub title: Option<String>,
    /// Whose work the entries are
    #[arg(long, value_name = "SOURCE")]
    pub source: SourceArg,
    /// Whose list it is; needed with --source third-party
    #[arg(long, value_name = "NAME", required_if_eq("source", "third-party"))]
    pub list_owner: Option<String>,
    /// The terms allow sharing it on; without it a third party's list stays local
    #[arg(long)]
    pub may_share: bool,
    /// The terms in words; at most 1,000 bytes
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub terms: String,
    /// The scheme that unqualified classifications such as A1 belong to
    #[arg(long, value_name = "SCHEME", default_value = "tc")]
    pub scheme: String,
    /// Who may read it: MEMBER, group:NAME or all; may be repeated
    #[arg(long = "grant", value_name = "GRANTEE")]
    pub grants: Vec<Grantee>,
    /// Those granted may also serve it onward
    #[arg(long)]
    pub relay: bool,
}

/// Whose work a set is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SourceArg {
    /// This member's own work
    Own,
    /// Somebody else's list
    ThirdParty,
}

/// Runs the command.
///
/// # Errors
/// When the set does not fit, or no store can be reached.
pub fn run(_args: SetArgs, _context: &Context) -> Result<(), CliError> {
    Err(not_available("set"))
}
