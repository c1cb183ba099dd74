//! `hashpact prove`: one entry as a file that anybody verifies.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use hashpact_api::wire;
use hashpact_core::id::EntryName;
use hashpact_core::proof::Proof;

use super::file;
use super::summary::Summary;
use crate::cli::Context;
use crate::cli::client::connect_or_embed;
use crate::cli::error::CliError;
use crate::cli::output::note;

/// Prove that an entry was published, as a small file
///
/// The file holds the entry's leaf, the signed head that covers it with what
/// witnesses added, the node cards and the roster chain from the genesis on: all that
/// "hashpact proof verify" needs, which asks no node. It holds the entry's signals,
/// and whom the set is granted to: keep it as safe as the store. Where the entry was
/// withdrawn or replaced by then, the leaf that did so is in it as well.
#[derive(Debug, Args)]
pub struct ProveArgs {
    /// The entry, such as northstar/confirmed#12; #12 of a later version of it proves
    /// that version
    #[arg(value_name = "ENTRY")]
    entry: String,
    /// At the head that was here by then: a time such as 2026-11-22T06:40:00Z, or a
    /// size in leaves; the newest head without it
    #[arg(long, value_name = "TIME|SIZE")]
    as_of: Option<AsOf>,
    /// This very version, though a later one had replaced it
    #[arg(long)]
    exact: bool,
    /// Leave out what the entry says: its record alone
    #[arg(long)]
    record_only: bool,
    /// Where to write it; standard output without it
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// A moment, or a size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum AsOf {
    /// Milliseconds since 1970-01-01T00:00:00Z.
    Time(u64),
    /// Leaves.
    Size(u64),
}

impl FromStr for AsOf {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(size) = text.parse::<u64>() {
            return match size {
                0 => Err("a head has at least one leaf".to_owned()),
                size => Ok(Self::Size(size)),
            };
        }
        let time: jiff::Timestamp = text
            .parse()
            .map_err(|_| "a time such as 2026-11-22T06:40:00Z, or a number of leaves".to_owned())?;
        let millis = u64::try_from(time.as_millisecond());
        match millis {
            Ok(millis) if millis > 0 => Ok(Self::Time(millis)),
            Ok(_) | Err(_) => Err("nothing was published before 1970".to_owned()),
        }
    }
}

/// Runs the command.
///
/// # Errors
/// When the entry is not held, or the file cannot be written.
pub fn run(args: &ProveArgs, context: &Context) -> Result<(), CliError> {
    file::check_target(args.out.as_deref(), &context.output)?;
    let client = connect_or_embed(context)?;
    let own = &client.config().member.slug;
    let full = if args.entry.contains('/') {
        args.entry.clone()
    } else {
        format!("{own}/{}", args.entry)
    };
    let entry = EntryName::parse(&full).map_err(|error| {
        CliError::usage(error).next("write MEMBER/SET#INDEX, such as northstar/confirmed#12")
    })?;
    let (as_of_ms, as_of_size) = match args.as_of {
        None => (0, 0),
        Some(AsOf::Time(time)) => (time, 0),
        Some(AsOf::Size(size)) => (0, size),
    };
    let request = wire::ProveRequest {
        entry: entry.to_string(),
        as_of_ms,
        as_of_size,
        exact: args.exact,
        record_only: args.record_only,
    };
    let mut node = client.node();
    let bytes = file::fetch(&client, node.prove(request))?;
    // What the node made is verified as whoever gets it will.
    let genesis = client.config().coalition.genesis;
    let proof = Proof::decode(&bytes).map_err(CliError::failed)?;
    let proven = proof.verify(&genesis).map_err(CliError::failed)?;
    file::write(args.out.as_deref(), &bytes, &context.output)?;
    let Some(out) = &args.out else {
        let (entry, size) = (&proven.entry, proven.head.size());
        note(format_args!(
            "{entry} at the head of {size} leaves: {}",
            proven.state.as_str()
        ));
        return Ok(());
    };
    let summary = Summary::of(&proven, (&bytes, &genesis), false);
    summary.print(&out.display().to_string(), &context.output)?;
    context.output.json(&summary)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_named_by_a_time_or_by_a_size() {
        assert_eq!("12".parse(), Ok(AsOf::Size(12)));
        let time = "2026-11-22T06:40:00Z".parse();
        assert_eq!(time, Ok(AsOf::Time(1_795_329_600_000)));
        for bad in ["", "0", "-1", "yesterday", "1969-01-01T00:00:00Z"] {
            assert!(bad.parse::<AsOf>().is_err(), "{bad}");
        }
    }
}
