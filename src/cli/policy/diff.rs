//! `hashpact policy diff`: what another policy would change on the present data.

use std::path::PathBuf;

use clap::Args;
use hashpact_api::wire;
use serde::Serialize;

use crate::cli::Context;
use crate::cli::client::{Client, connect_or_embed, failed};
use crate::cli::error::CliError;
use crate::cli::output::{Progress, count, counted, table};
use crate::config::policy;

/// Say what another policy would change on what the node holds
///
/// Looks at every live entry, by each of its signals: how many would get another
/// verdict, by set, with some of them named. Nothing is changed.
#[derive(Debug, Args)]
pub(super) struct DiffArgs {
    /// The policy before and the one after; with one alone it is compared with the
    /// policy in force
    #[arg(value_name = "FILE", required = true, num_args = 1..=2)]
    files: Vec<PathBuf>,
    /// As for something that turned up there
    #[arg(long, value_name = "NAME", default_value = "")]
    surface: String,
    /// As for something that turned up in this region
    #[arg(long, value_name = "NAME", default_value = "")]
    region: String,
}

#[derive(Serialize)]
struct Compared {
    entries: u64,
    changed: u64,
    same: Vec<Same>,
    shifts: Vec<Shift>,
    /// Names in the new policy that the node does not know.
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct Same {
    verdict: String,
    entries: u64,
}

#[derive(Serialize)]
struct Shift {
    set: String,
    from: String,
    to: String,
    entries: u64,
    examples: Vec<Example>,
}

#[derive(Serialize)]
struct Example {
    entry: String,
    kind: String,
}

/// Runs the command.
///
/// # Errors
/// A policy that is wrong; a node that cannot be asked.
pub(super) fn run(args: &DiffArgs, context: &Context) -> Result<(), CliError> {
    let mut policies = Vec::new();
    for file in &args.files {
        let (policy, _) = policy::load(file)?;
        policies.push(hashpact_api::policy_to_wire(&policy));
    }
    let new = policies.pop();
    let request = wire::ComparePoliciesRequest {
        old: policies.pop(),
        new,
        surface: args.surface.clone(),
        region: args.region.clone(),
        names_only: false,
    };
    let client = connect_or_embed(context)?;
    client.note_at_rest();
    let compared = client.wait(follow(&client, request))?;
    print(&compared, context)?;
    super::warn(&compared.unknown_names);
    context.output.json(&object(compared))
}

/// Follows the comparison to its last message.
pub(super) async fn follow(
    client: &Client,
    request: wire::ComparePoliciesRequest,
) -> Result<wire::ComparedPolicies, CliError> {
    let mut node = client.node();
    let answers = node.compare_policies(request).await;
    let mut answers = answers.map_err(|status| failed(&status))?.into_inner();
    let mut progress = Progress::count(None);
    progress.name("compare");
    while let Some(answer) = answers.message().await.map_err(|status| failed(&status))? {
        if let Some(compared) = answer.compared {
            return Ok(compared);
        }
        progress.set_total(answer.leaves_total);
        progress.set(answer.leaves_done);
    }
    Err(
        CliError::failed("the node ended the comparison without its last word")
            .next("the node's log says more"),
    )
}

fn print(compared: &wire::ComparedPolicies, context: &Context) -> Result<(), CliError> {
    let output = &context.output;
    let entries = counted(compared.entries, "entry", "entries");
    let changed = count(compared.changed);
    output.line(format_args!(
        "{changed} of {entries} would get another verdict"
    ))?;
    for same in &compared.same {
        let number = count(same.entries);
        output.line(format_args!("{number:>12}  stay {}", same.verdict))?;
    }
    if compared.shifts.is_empty() {
        return Ok(());
    }
    let mut shown = table(&["SET", "FROM", "TO", "ENTRIES", "SUCH AS"], &[3]);
    for shift in &compared.shifts {
        let example = shift.examples.first();
        shown.add_row([
            shift.set.clone(),
            shift.from.clone(),
            shift.to.clone(),
            count(shift.entries),
            example.map_or_else(String::new, |example| example.entry.clone()),
        ]);
    }
    output.table(&shown)
}

fn object(compared: wire::ComparedPolicies) -> Compared {
    Compared {
        entries: compared.entries,
        changed: compared.changed,
        warnings: compared.unknown_names,
        same: compared
            .same
            .into_iter()
            .map(|same| Same {
                verdict: same.verdict,
                entries: same.entries,
            })
            .collect(),
        shifts: compared
            .shifts
            .into_iter()
            .map(|shift| Shift {
                set: shift.set,
                from: shift.from,
                to: shift.to,
                entries: shift.entries,
                examples: shift
                    .examples
                    .into_iter()
                    .map(|example| Example {
                        entry: example.entry,
                        kind: example.kind,
                    })
                    .collect(),
            })
            .collect(),
    }
}
