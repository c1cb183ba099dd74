//! `hashpact preview`: what this node would lose with a member.

use clap::Args;
use hashpact_api::wire;
use hashpact_core::id::Slug;
use serde::Serialize;

use super::Context;
use super::client::connect_or_embed;
use super::error::CliError;
use super::output::count;
use super::values::slug;

/// Show what hangs on a member at this node, before it is suspended or removed
///
/// Counts its live entries, those that no other active member says anything of, and
/// those that one other does. Reads all that the member published here.
#[derive(Debug, Args)]
pub struct PreviewArgs {
    /// The member
    #[arg(value_name = "MEMBER", value_parser = slug)]
    pub member: Slug,
}

#[derive(Serialize)]
struct Previewed {
    member: String,
    sets: Vec<SetObject>,
    entries: u64,
    without_other: u64,
    with_one_other: u64,
    examples: Vec<String>,
}

#[derive(Serialize)]
struct SetObject {
    name: String,
    live_entries: u64,
}

/// Runs the command.
///
/// # Errors
/// A member that is not in the roster.
pub fn run(args: &PreviewArgs, context: &Context) -> Result<(), CliError> {
    let client = connect_or_embed(context)?;
    client.note_at_rest();
    let member = args.member.to_string();
    let request = wire::PreviewRequest {
        member: member.clone(),
    };
    let answer = client.call(client.node().preview(request))?;
    let output = &context.output;
    for set in &answer.sets {
        let entries = count(set.live_entries);
        output.line(format_args!("{}: {entries} live entries", set.name))?;
    }
    let (all, alone, one) = (answer.entries, answer.without_other, answer.with_one_other);
    output.line(format_args!("{} live entries of {member} here", count(all)))?;
    output.line(format_args!("  {} have no other voice", count(alone)))?;
    output.line(format_args!("  {} have one other", count(one)))?;
    for example in &answer.examples {
        output.line(format_args!("    {example}"))?;
    }
    let sets = answer.sets.into_iter().map(|set| SetObject {
        name: set.name,
        live_entries: set.live_entries,
    });
    output.json(&Previewed {
        member,
        sets: sets.collect(),
        entries: all,
        without_other: alone,
        with_one_other: one,
        examples: answer.examples,
    })
}
