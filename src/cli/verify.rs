//! `hashpact verify`: recomputes everything from leaves.

use std::time::Instant;

use clap::Args;
use hashpact_api::wire;
use serde::Serialize;

use super::Context;
use super::client::{Client, connect_or_embed, failed};
use super::error::{CliError, Exit};
use super::output::{Progress, counted, duration};

/// Recompute every feed from its leaves, and compare with its signed heads
///
/// Reads the whole store: leaves, tree, heads with their signatures, and the index
/// that look-ups answer from. The store is never trusted for this. Best while
/// nothing is imported or pulled. Exit code 1 when anything differs.
#[derive(Debug, Args)]
pub struct VerifyArgs {}

#[derive(Serialize)]
struct Outcome {
    sound: bool,
    feeds: u64,
    leaves: u64,
    heads: u64,
    postings: u64,
    seconds: f64,
    problems: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// When anything differs, or the store cannot be read.
pub fn run(_args: VerifyArgs, context: &Context) -> Result<(), CliError> {
    let client = connect_or_embed(context)?;
    let started = Instant::now();
    let last = client.wait(follow(&client))?;
    let elapsed = started.elapsed();
    let output = &context.output;
    for problem in &last.problems {
        output.line(format_args!("! {problem}"))?;
    }
    let verdict = match u64::try_from(last.problems.len()).unwrap_or(u64::MAX) {
        0 => "sound".to_owned(),
        problems => counted(problems, "problem", "problems"),
    };
    output.line(format_args!(
        "{verdict}: {}, {}, {}, {} in {}",
        counted(last.feeds_checked, "feed", "feeds"),
        counted(last.leaves_done, "leaf", "leaves"),
        counted(last.heads_checked, "head", "heads"),
        counted(last.postings_checked, "posting", "postings"),
        duration(elapsed)
    ))?;
    let sound = last.problems.is_empty();
    output.json(&Outcome {
        sound,
        feeds: last.feeds_checked,
        leaves: last.leaves_done,
        heads: last.heads_checked,
        postings: last.postings_checked,
        seconds: elapsed.as_secs_f64(),
        problems: last.problems,
    })?;
    if sound {
        return Ok(());
    }
    Err(CliError::failed("what is stored differs from what its leaves and signatures say").next(
        "keep the store as it is for inquiry; a new one can be pulled from peers, own feeds as well",
    ))
    .map_err(|error: CliError| quiet_under_json(error, context))
}

/// Under `--json` the object says it all.
fn quiet_under_json(error: CliError, context: &Context) -> CliError {
    if context.output.is_json() {
        CliError::Quiet(Exit::Failed)
    } else {
        error
    }
}

/// Follows the check to its last message.
async fn follow(client: &Client) -> Result<wire::VerifyResponse, CliError> {
    let mut node = client.node();
    let answers = node.verify(wire::VerifyRequest {}).await;
    let mut answers = answers.map_err(|status| failed(&status))?.into_inner();
    let mut progress = Progress::count(None);
    progress.name("verify");
    while let Some(answer) = answers.message().await.map_err(|status| failed(&status))? {
        if answer.done {
            return Ok(answer);
        }
        progress.set_total(answer.leaves_total);
        progress.set(answer.leaves_done);
    }
    Err(
        CliError::failed("the node ended the check without its last word")
            .next("the node's log says more"),
    )
}
