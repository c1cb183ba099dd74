//! `hashpact consumers`: who follows the node's changes, and how far each is.

use clap::{Args, Subcommand};
use hashpact_api::wire;
use serde::Serialize;

use super::Context;
use super::client::connect_or_embed;
use super::error::CliError;
use super::output::{count, stamp, table, time};

/// List who follows this node's changes, or forget one
///
/// A consumer is registered by the first hashpact export --follow, or call of the
/// local API, that gives its name. Until it is removed, what it has not acknowledged is kept
/// for it, within bounds.
#[derive(Debug, Args)]
pub struct ConsumersArgs {
    /// What to do
    #[command(subcommand)]
    pub command: ConsumersCommand,
}

/// What to do with consumers.
#[derive(Debug, Subcommand)]
pub enum ConsumersCommand {
    /// List them, and how far each is
    List(ListArgs),
    /// Forget one: nothing is kept for it any more
    Remove(RemoveArgs),
}

/// Nothing to choose.
#[derive(Debug, Args)]
pub struct ListArgs {}

/// Which one.
#[derive(Debug, Args)]
pub struct RemoveArgs {
    /// The consumer's name
    #[arg(value_name = "NAME")]
    pub name: String,
}

#[derive(Serialize)]
struct Listed {
    consumers: Vec<ConsumerObject>,
}

#[derive(Serialize)]
struct ConsumerObject {
    name: String,
    owner: String,
    since: Option<String>,
    acknowledged: Option<String>,
    behind: u64,
    in_snapshot: bool,
    lost: bool,
}

#[derive(Serialize)]
struct Removed {
    removed: String,
}

/// Runs the command.
///
/// # Errors
/// When neither a node nor its store can be reached, or there is no such consumer.
pub fn run(args: &ConsumersArgs, context: &Context) -> Result<(), CliError> {
    match &args.command {
        ConsumersCommand::List(ListArgs {}) => list(context),
        ConsumersCommand::Remove(args) => remove(args, context),
    }
}

fn list(context: &Context) -> Result<(), CliError> {
    let client = connect_or_embed(context)?;
    client.note_at_rest();
    let answer = client.call(client.node().list_consumers(wire::ListConsumersRequest {}))?;
    let consumers = answer.consumers;
    if consumers.is_empty() {
        context.output.line("nobody follows")?;
    } else {
        let mut shown = table(
            &["CONSUMER", "OWNER", "BEHIND", "ACKNOWLEDGED", "STATE"],
            &[2],
        );
        for one in &consumers {
            shown.add_row([
                one.name.clone(),
                one.owner.clone(),
                count(one.behind),
                time(one.acknowledged_ms),
                state(one).to_owned(),
            ]);
        }
        context.output.table(&shown)?;
    }
    let consumers = consumers.into_iter().map(|one| ConsumerObject {
        since: stamp(one.since_ms),
        acknowledged: stamp(one.acknowledged_ms),
        behind: one.behind,
        in_snapshot: one.in_snapshot,
        lost: one.lost,
        name: one.name,
        owner: one.owner,
    });
    context.output.json(&Listed {
        consumers: consumers.collect(),
    })
}

const fn state(one: &wire::Consumer) -> &'static str {
    if one.lost {
        "must start over"
    } else if one.in_snapshot {
        "in its snapshot"
    } else if one.behind > 0 {
        "behind"
    } else {
        "caught up"
    }
}

fn remove(args: &RemoveArgs, context: &Context) -> Result<(), CliError> {
    let client = connect_or_embed(context)?;
    let consumer = args.name.clone();
    client.call(
        client
            .node()
            .remove_consumer(wire::RemoveConsumerRequest { consumer }),
    )?;
    context
        .output
        .line(format_args!("{} is forgotten", args.name))?;
    context.output.json(&Removed {
        removed: args.name.clone(),
    })
}
