//! `hashpact preview`: what this node would lose with a member.

use clap::Args;
use hashpact_api::wire;
use hashpact_core::id::Slug;
use serde::Serialize;

use super::Context;
use super::client::{Client, connect_or_embed};
use super::error::CliError;
use super::output::{count, counted};
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
    examples_with_one_other: Vec<String>,
}

#[derive(Serialize)]
struct SetObject {
    name: String,
    live_entries: u64,
}

/// Of several members, before one command changes them all.
#[derive(Serialize)]
struct PreviewedAll {
    previews: Vec<Previewed>,
}

/// Runs the command.
///
/// # Errors
/// A member that is not in the roster.
pub fn run(args: &PreviewArgs, context: &Context) -> Result<(), CliError> {
    let client = connect_or_embed(context)?;
    client.note_at_rest();
    let previewed = ask(&client, &args.member)?;
    print(&previewed, context)?;
    context.output.json(&previewed)
}

/// What hangs on each of these members; changes nothing.
///
/// # Errors
/// A member that is not in the roster.
pub(super) fn of_all(members: &[Slug], context: &Context) -> Result<(), CliError> {
    if !context.config_path.exists() {
        let config = context.config_path.display();
        return Err(CliError::usage(format!(
            "--preview asks a node what it holds, and there is no configuration at {config}"
        ))
        .next("name that of your node: hashpact --config FILE coalition …"));
    }
    let client = connect_or_embed(context)?;
    client.note_at_rest();
    let mut previews = Vec::new();
    for member in members {
        let previewed = ask(&client, member)?;
        print(&previewed, context)?;
        previews.push(previewed);
    }
    let output = &context.output;
    output.line("")?;
    output.line("nothing is changed; without --preview it is done")?;
    output.json(&PreviewedAll { previews })
}

fn ask(client: &Client, member: &Slug) -> Result<Previewed, CliError> {
    let member = member.to_string();
    let request = wire::PreviewRequest {
        member: member.clone(),
    };
    let answer = client.call(client.node().preview(request))?;
    let sets = answer.sets.into_iter().map(|set| SetObject {
        name: set.name,
        live_entries: set.live_entries,
    });
    Ok(Previewed {
        member,
        sets: sets.collect(),
        entries: answer.entries,
        without_other: answer.without_other,
        with_one_other: answer.with_one_other,
        examples: answer.examples,
        examples_with_one_other: answer.examples_with_one_other,
    })
}

fn print(previewed: &Previewed, context: &Context) -> Result<(), CliError> {
    let output = &context.output;
    for set in &previewed.sets {
        let entries = counted(set.live_entries, "live entry", "live entries");
        output.line(format_args!("{}: {entries}", set.name))?;
    }
    let member = &previewed.member;
    let all = counted(previewed.entries, "live entry", "live entries");
    output.line(format_args!("{all} of {member} here"))?;
    let (alone, one) = (previewed.without_other, previewed.with_one_other);
    let groups = [
        (
            alone,
            if alone == 1 {
                "loses its only voice"
            } else {
                "lose their only voice"
            },
            &previewed.examples,
        ),
        (
            one,
            if one == 1 {
                "has one other voice, which then decides alone"
            } else {
                "have one other voice, which then decides alone"
            },
            &previewed.examples_with_one_other,
        ),
    ];
    for (number, what, examples) in groups {
        output.line(format_args!("  {} {what}", count(number)))?;
        for example in examples {
            output.line(format_args!("    {example}"))?;
        }
        let named = u64::try_from(examples.len()).unwrap_or(u64::MAX);
        if number > named {
            let more = count(number.saturating_sub(named));
            output.line(format_args!("    and {more} more"))?;
        }
    }
    Ok(())
}
