//! `hashpact coalition`: what administrators do, offline.
//!
//! The roster in force is a file ([`state`]). A change makes a draft of the next
//! version ([`draft`], [`change`]), which administrators look at ([`review`], from
//! [`diff`] and [`warn`]) and sign in turn ([`sign`]); [`publish`] checks the whole
//! chain and writes the roster. Nothing here trusts a file: all of it is verified
//! each time it is read.

mod add;
mod args;
mod change;
mod diff;
mod draft;
mod found;
mod history;
mod newcomer;
mod publish;
mod review;
mod show;
mod sign;
mod signed;
mod state;
mod status;
mod suspend;
mod warn;

pub use args::{CoalitionArgs, CoalitionCommand};
pub(super) use state::State;
pub(super) use status::verified;

use super::error::CliError;
use super::recorded::recorded;
use super::{Context, preview};

/// The roster's file in the administrators' folder.
pub const ROSTER_FILE: &str = "roster.hashpact";

/// Runs the command.
///
/// # Errors
/// When a document breaks a rule or a file cannot be written.
pub fn run(args: CoalitionArgs, context: &Context) -> Result<(), CliError> {
    if records_itself(&args.command) {
        return act(args, context);
    }
    recorded(context, &[], || act(args, context))
}

/// Whether a command changes nothing, or asks the node for it or hands it what it made:
/// then the node records it.
const fn records_itself(command: &CoalitionCommand) -> bool {
    match command {
        CoalitionCommand::Review(_)
        | CoalitionCommand::Show { .. }
        | CoalitionCommand::Status(_)
        | CoalitionCommand::History { .. } => true,
        CoalitionCommand::Publish(args) => args.to_node,
        CoalitionCommand::Suspend(args) => args.preview || (args.to_node && !args.lasting),
        CoalitionCommand::Remove(args) => args.preview,
        CoalitionCommand::Init(_)
        | CoalitionCommand::Key(_)
        | CoalitionCommand::Add(_)
        | CoalitionCommand::Sign(_)
        | CoalitionCommand::Update(_)
        | CoalitionCommand::Admit(_)
        | CoalitionCommand::Reinstate(_)
        | CoalitionCommand::Rename(_)
        | CoalitionCommand::SetRole(_)
        | CoalitionCommand::SetLimits(_)
        | CoalitionCommand::SetThreshold(_)
        | CoalitionCommand::AddAdmin(_)
        | CoalitionCommand::RemoveAdmin(_)
        | CoalitionCommand::RotateIdentity(_)
        | CoalitionCommand::Group(_)
        | CoalitionCommand::Renew(_)
        | CoalitionCommand::RevokeFeedKey(_) => false,
    }
}

fn act(args: CoalitionArgs, context: &Context) -> Result<(), CliError> {
    match args.command {
        CoalitionCommand::Init(args) => found::run(&args, context),
        CoalitionCommand::Key(args) => found::key(&args, context),
        CoalitionCommand::Add(args) => add::run(&args, context),
        CoalitionCommand::Suspend(args) if args.preview => {
            preview::of_all(std::slice::from_ref(&args.member), context)
        }
        CoalitionCommand::Remove(args) if args.preview => preview::of_all(&args.members, context),
        CoalitionCommand::Suspend(args) if !args.lasting => suspend::run(&args, context),
        CoalitionCommand::Review(args) => review::run(&args, context),
        CoalitionCommand::Sign(args) => sign::run(&args, context),
        CoalitionCommand::Publish(args) => publish::run(&args, context),
        CoalitionCommand::Update(args) => publish::update(&args, context),
        CoalitionCommand::Show { roster } => show::run(&roster, context),
        CoalitionCommand::History { roster } => history::run(&roster, context),
        CoalitionCommand::Admit(args) => change::admit(&args, context),
        CoalitionCommand::Suspend(args) => change::suspend(&args, context),
        CoalitionCommand::Reinstate(args) => change::reinstate(&args, context),
        CoalitionCommand::Remove(args) => change::remove(&args, context),
        CoalitionCommand::Status(args) => status::run(&args, context),
        CoalitionCommand::Rename(args) => change::rename(args, context),
        CoalitionCommand::SetRole(args) => change::set_role(&args, context),
        CoalitionCommand::SetLimits(args) => change::set_limits(&args, context),
        CoalitionCommand::SetThreshold(args) => change::set_threshold(&args, context),
        CoalitionCommand::AddAdmin(args) => change::add_admin(&args, context),
        CoalitionCommand::RemoveAdmin(args) => change::remove_admin(&args, context),
        CoalitionCommand::RotateIdentity(args) => change::rotate_identity(&args, context),
        CoalitionCommand::Group(args) => change::group(&args, context),
        CoalitionCommand::Renew(args) => change::renew(&args, context),
        CoalitionCommand::RevokeFeedKey(args) => change::revoke_feed_key(&args, context),
    }
}

#[cfg(test)]
mod scenes;
#[cfg(test)]
mod tests;
