//! `hashpact erase`: takes this member's entries back, and their content everywhere.

use clap::Args;
use data_encoding::HEXLOWER;
use hashpact_api::wire;
use serde::Serialize;

use super::Context;
use super::client::connect_or_embed;
use super::error::{CliError, Exit};
use super::output::{count, counted};
use super::selectors::{BATCH, NotFound, SelectorArgs, missing};

/// Erase entries of this member: the content goes from every member's disk
///
/// Permanent. Every version of an entry goes, a retracted one too; its place in the
/// feed stays, with a digest that says nothing, so that all proofs still hold. Members
/// drop the content when they have the erasure; those that are away, when they are
/// back. More in 24 hours than the larger of 100 and 1 % of the set need the identity
/// key's signature, as with `retract`. What names nothing in the set is listed, and
/// the exit code is then 3.
#[derive(Debug, Args)]
pub struct EraseArgs {
    /// Which.
    #[command(flatten)]
    pub named: SelectorArgs,
    /// The law or order that it rests on, for all readers; at most 500 bytes
    #[arg(long, value_name = "TEXT")]
    pub basis: String,
    /// Do not ask; needed where there is no terminal to ask at
    #[arg(long)]
    pub yes: bool,
}

#[derive(Serialize)]
struct Outcome {
    set: String,
    asked: usize,
    erased: u64,
    payloads: u64,
    already_erased: u64,
    not_found: Vec<NotFound>,
    head_size: u64,
    head_root: String,
    identity_signed: bool,
}

/// Runs the command.
///
/// # Errors
/// When an entry is not known or not this member's.
pub fn run(args: &EraseArgs, context: &Context) -> Result<(), CliError> {
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
        let would = client.call(client.node().erase(tokio_stream::iter(dry)))?;
        if would.erased == 0 {
            return report((set, &args.named), asked, would, context);
        }
        let entries = counted(would.erased, "entry", "entries");
        let missing = missing(would.not_found.len());
        let question = format!("Erase {entries} of {set}, for ever{missing}?");
        args.named.confirm("an erasure", &question)?;
    }
    let requests = tokio_stream::iter(requests);
    let answer = client.call(client.node().erase(requests))?;
    report((set, &args.named), asked, answer, context)
}

/// The first message says why; the last one says that it is the last.
fn messages(
    args: &EraseArgs,
    set: &str,
    mut selectors: Vec<wire::Selector>,
) -> Vec<wire::EraseRequest> {
    let mut messages = vec![wire::EraseRequest {
        set: set.to_owned(),
        legal_basis: args.basis.clone(),
        ..wire::EraseRequest::default()
    }];
    while !selectors.is_empty() {
        let rest = selectors.split_off(selectors.len().min(BATCH));
        messages.push(wire::EraseRequest {
            selectors: std::mem::replace(&mut selectors, rest),
            ..wire::EraseRequest::default()
        });
    }
    if let Some(last) = messages.last_mut() {
        last.last = true;
    }
    messages
}

fn report(
    (set, named): (String, &SelectorArgs),
    asked: usize,
    answer: wire::EraseResponse,
    context: &Context,
) -> Result<(), CliError> {
    NotFound::print(&answer.not_found, named);
    let output = &context.output;
    let erased = counted(answer.erased, "entry", "entries");
    let before = count(answer.already_erased);
    let missing = answer.not_found.len();
    output.line(format_args!(
        "{set}: {erased} erased, {before} were before, {missing} not found"
    ))?;
    if answer.erased > 0 {
        let payloads = counted(answer.payloads, "version is", "versions are");
        let size = counted(answer.head_size, "leaf", "leaves");
        output.line(format_args!(
            "  {payloads} off this node's disk; signed: {size}"
        ))?;
    }
    output.json(&Outcome {
        set,
        asked,
        erased: answer.erased,
        payloads: answer.payloads,
        already_erased: answer.already_erased,
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
    fn every_selector_is_sent_and_only_the_last_message_says_so() {
        let args = EraseArgs {
            named: SelectorArgs::default(),
            basis: "an order".to_owned(),
            yes: true,
        };
        for sent in [1, BATCH, BATCH + 1] {
            let messages = messages(&args, "s", vec![wire::Selector::default(); sent]);
            let sum: usize = messages.iter().map(|message| message.selectors.len()).sum();
            assert_eq!(sum, sent);
            let last = messages.iter().position(|message| message.last);
            assert_eq!(last, Some(messages.len() - 1));
        }
    }
}
