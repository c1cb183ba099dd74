//! `hashpact retract`: takes this member's entries back.

use clap::{Args, ValueEnum};
use data_encoding::HEXLOWER;
use hashpact_api::wire;
use hashpact_core::limits::RETRACT_FREE_PER_DAY;
use serde::Serialize;

use super::Context;
use super::client::connect_or_embed;
use super::error::{CliError, Exit};
use super::output::{count, counted};
use super::selectors::{BATCH, NotFound, SelectorArgs, missing};

/// Take entries of this member back; look-ups of them stop at every member
///
/// Permanent. More entries in 24 hours than the larger of 100 and 1 % of the set
/// need the identity key's signature as well, which the node adds where its
/// configuration names the key. What names nothing in the set is listed, and the
/// exit code is then 3.
#[derive(Debug, Args)]
pub struct RetractArgs {
    /// Which.
    #[command(flatten)]
    pub named: SelectorArgs,
    /// Why
    #[arg(long, value_name = "REASON")]
    pub reason: ReasonArg,
    /// A note for the other members; at most 500 bytes
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub note: String,
    /// Ask the others to recheck what they did because of these entries
    #[arg(long)]
    pub recheck: bool,
    /// Do not ask; needed where there is no terminal to ask at
    #[arg(long)]
    pub yes: bool,
}

/// Why an entry is taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReasonArg {
    /// It is not what it was said to be
    Wrong,
    /// Another entry says the same
    Duplicate,
    /// The source took it back
    SourceWithdrew,
    /// The law asks for it
    Legal,
    /// Anything else; say it in --note
    Other,
}

impl ReasonArg {
    const fn name(self) -> &'static str {
        match self {
            Self::Wrong => "wrong",
            Self::Duplicate => "duplicate",
            Self::SourceWithdrew => "source-withdrew",
            Self::Legal => "legal",
            Self::Other => "other",
        }
    }
}

#[derive(Serialize)]
struct Outcome {
    set: String,
    asked: usize,
    retracted: u64,
    already_dead: u64,
    not_found: Vec<NotFound>,
    head_size: u64,
    head_root: String,
    identity_signed: bool,
}

/// Runs the command.
///
/// # Errors
/// When an entry is not known or not this member's.
pub fn run(args: &RetractArgs, context: &Context) -> Result<(), CliError> {
    let set = args.named.set()?;
    let selectors = args.named.selectors()?;
    let asked = selectors.len();
    let client = connect_or_embed(context)?;
    let requests = messages(args, &set, selectors);
    let set = SelectorArgs::whole_name(set, &client.config().member.slug);
    if !args.yes {
        let mut dry = requests.clone();
        dry.iter_mut()
            .take(1)
            .for_each(|first| first.dry_run = true);
        let would = client.call(client.node().retract(tokio_stream::iter(dry)))?;
        if would.retracted == 0 {
            return report((set, &args.named), asked, would, context);
        }
        let entries = counted(would.retracted, "entry", "entries");
        let missing = missing(would.not_found.len());
        let question = format!("Take {entries} of {set} back, permanently{missing}?");
        args.named.confirm("a retraction", &question)?;
    }
    let requests = tokio_stream::iter(requests);
    let answer = client.call(client.node().retract(requests))?;
    report((set, &args.named), asked, answer, context)
}

/// The first message says why; the last one says that it is the last.
fn messages(
    args: &RetractArgs,
    set: &str,
    selectors: Vec<wire::Selector>,
) -> Vec<wire::RetractRequest> {
    let mut messages = vec![wire::RetractRequest {
        set: set.to_owned(),
        reason: args.reason.name().to_owned(),
        note: args.note.clone(),
        recheck: args.recheck,
        ..wire::RetractRequest::default()
    }];
    let mut selectors = selectors.into_iter();
    loop {
        let batch: Vec<wire::Selector> = selectors.by_ref().take(BATCH).collect();
        let last = batch.len() < BATCH;
        messages.push(wire::RetractRequest {
            selectors: batch,
            last,
            ..wire::RetractRequest::default()
        });
        if last {
            return messages;
        }
    }
}

fn report(
    (set, named): (String, &SelectorArgs),
    asked: usize,
    answer: wire::RetractResponse,
    context: &Context,
) -> Result<(), CliError> {
    NotFound::print(&answer.not_found, named);
    let output = &context.output;
    let retracted = counted(answer.retracted, "entry", "entries");
    let dead = count(answer.already_dead);
    let missing = answer.not_found.len();
    output.line(format_args!(
        "{set}: {retracted} retracted, {dead} no longer stood, {missing} not found"
    ))?;
    if answer.retracted > 0 {
        // Fewer count everywhere without it.
        let is_mass = answer.retracted > RETRACT_FREE_PER_DAY;
        let identity = if answer.identity_signed && is_mass {
            ", with the identity key as well: so many would wait for review without it"
        } else {
            ""
        };
        let size = counted(answer.head_size, "leaf", "leaves");
        output.line(format_args!("  signed: {size}{identity}"))?;
    }
    output.json(&Outcome {
        set,
        asked,
        retracted: answer.retracted,
        already_dead: answer.already_dead,
        not_found: NotFound::list(answer.not_found),
        head_size: answer.head_size,
        head_root: HEXLOWER.encode(&answer.head_root),
        identity_signed: answer.identity_signed,
    })?;
    if missing > 0 {
        return Err(CliError::Quiet(Exit::Partial));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_message_says_so_even_where_batches_are_full() {
        let args = RetractArgs {
            named: SelectorArgs::default(),
            reason: ReasonArg::Wrong,
            note: String::new(),
            recheck: false,
            yes: true,
        };
        let selectors = vec![wire::Selector::default(); BATCH];
        let messages = messages(&args, "s", selectors);
        assert_eq!(messages.iter().filter(|message| message.last).count(), 1);
        assert!(messages.last().unwrap().last);
        let sum: usize = messages.iter().map(|message| message.selectors.len()).sum();
        assert_eq!(sum, BATCH);
    }
}
