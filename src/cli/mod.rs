//! The command line: one file per command, dispatched here.
//!
//! A command takes its arguments and a [`Context`], prints through
//! [`output`], and ends with a [`CliError`] that says what to do next.

pub mod allow_list;
pub mod audit;
pub mod bench;
pub mod bundle;
pub mod card;
pub mod client;
pub mod coalition;
pub mod config;
pub mod consumers;
mod counters;
pub mod demo;
mod doors;
pub mod enrol;
pub mod erase;
pub mod error;
pub mod evidence;
pub mod export;
pub mod feeds;
pub mod fingerprint;
mod follow;
pub mod hash;
pub mod import;
pub mod init;
pub mod keys;
pub mod logging;
pub mod lookup;
pub mod media;
pub mod mute;
mod new_files;
pub mod open;
pub mod opine;
pub mod opinions;
pub mod output;
pub mod passphrase;
pub mod peers;
pub mod policy;
pub mod preview;
pub mod proof;
pub mod quarantine;
mod re_anchor;
pub mod receipts;
mod recheck;
mod recorded;
pub mod retract;
pub mod roster;
mod roster_witnesses;
pub mod run;
pub mod scan;
pub mod selectors;
pub mod set;
pub mod status;
pub(crate) mod trial;
pub mod values;
pub mod verify;
pub mod witness;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::config::{Config, Files, LogFormat};
use error::{CliError, Exit};
use output::Output;

/// Exchange signed hash sets with the members of a child-safety coalition
///
/// Moves hashes and what members say about them: never content, never links in
/// the clear.
///
/// Exit codes: 0 done; 1 failed; 2 wrong call or configuration; 3 done, but not
/// for all that was given; 10 a scan found something known.
#[derive(Debug, Parser)]
#[command(
    name = "hashpact",
    version,
    max_term_width = 80,
    propagate_version = true
)]
pub struct Cli {
    /// The node's configuration file
    #[arg(
        short,
        long,
        global = true,
        help_heading = "For every command",
        value_name = "FILE",
        env = "HASHPACT_CONFIG",
        default_value = "hashpact.toml"
    )]
    config: PathBuf,

    /// Print one JSON object on standard output instead of lines for people
    #[arg(long, global = true, help_heading = "For every command")]
    json: bool,

    /// Log more on standard error: -v what happens, -vv details
    #[arg(short, long, global = true, help_heading = "For every command", action = clap::ArgAction::Count)]
    verbose: u8,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(Box<init::InitArgs>),
    #[command(alias = "enroll")]
    Enrol(enrol::EnrolArgs),
    Run(run::RunArgs),
    Witness(witness::WitnessArgs),
    Status(status::StatusArgs),
    Peers(peers::PeersArgs),
    Preview(preview::PreviewArgs),
    Feeds(feeds::FeedsArgs),
    Feed(feeds::FeedArgs),
    Verify(verify::VerifyArgs),
    Audit(audit::AuditArgs),
    Set(set::SetArgs),
    Import(import::ImportArgs),
    Retract(retract::RetractArgs),
    Erase(erase::EraseArgs),
    Opine(opine::OpineArgs),
    Opinions(opinions::OpinionsArgs),
    Receipts(receipts::ReceiptsArgs),
    Export(export::ExportArgs),
    Bundle(bundle::BundleArgs),
    Prove(proof::make::ProveArgs),
    Proof(proof::ProofArgs),
    Evidence(evidence::EvidenceArgs),
    Lookup(lookup::LookupArgs),
    Scan(scan::ScanArgs),
    Hash(hash::HashArgs),
    Consumers(consumers::ConsumersArgs),
    Quarantine(quarantine::QuarantineArgs),
    AllowList(allow_list::AllowListArgs),
    Policy(policy::PolicyArgs),
    Mute(mute::MuteArgs),
    Unmute(mute::UnmuteArgs),
    Mutes(mute::MutesArgs),
    Card(card::CardArgs),
    Keys(keys::KeysArgs),
    Coalition(coalition::CoalitionArgs),
    Roster(roster::RosterArgs),
    Config(config::ConfigArgs),
    Demo(demo::DemoArgs),
    Bench(bench::BenchArgs),
}

/// What every command is given beside its arguments.
pub struct Context {
    /// The configuration's path as given; not read yet.
    pub config_path: PathBuf,
    /// Where results go.
    pub output: Output,
    /// How often `-v` was given.
    pub verbose: u8,
    /// The command's words, such as `set` and `create`.
    pub command: Vec<String>,
}

impl Context {
    /// Loads the configuration and checks the files that it names.
    ///
    /// # Errors
    /// Every problem of the configuration, as a usage error.
    pub fn config(&self) -> Result<Config, CliError> {
        Ok(Config::load(&self.config_path, Files::Check)?)
    }

    /// Loads the configuration without looking at key files: for commands that
    /// only ask a running node.
    ///
    /// # Errors
    /// As [`config`](Self::config).
    pub fn config_text(&self) -> Result<Config, CliError> {
        Ok(Config::load(&self.config_path, Files::Ignore)?)
    }

    /// Starts logging as a command that is not `run` logs: warnings, more with `-v`.
    ///
    /// # Errors
    /// When logging was started before.
    pub fn start_logging(&self) -> Result<(), CliError> {
        let level = match self.verbose {
            0 => "warn",
            1 => "info",
            _ => "debug",
        };
        logging::start(LogFormat::Text, level)
    }

    /// A context that prints into memory.
    #[cfg(test)]
    pub(crate) fn for_test(json: bool) -> (Self, Printed) {
        let printed = Printed::default();
        let context = Self {
            config_path: PathBuf::from("hashpact.toml"),
            output: Output::to(json, Box::new(printed.clone())),
            verbose: 0,
            command: vec!["test".to_owned()],
        };
        (context, printed)
    }
}

/// What a command printed in a test.
#[cfg(test)]
#[derive(Clone, Default)]
pub(crate) struct Printed(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

#[cfg(test)]
impl Printed {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

#[cfg(test)]
impl std::io::Write for Printed {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Runs the command that the process was called with.
#[must_use]
pub fn main() -> ExitCode {
    let matches = Cli::command().get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let context = Context {
        config_path: cli.config,
        output: Output::stdout(cli.json),
        verbose: cli.verbose,
        command: words(&matches),
    };
    match dispatch(cli.command, &context) {
        Ok(()) => Exit::Done.into(),
        Err(error) => {
            if matches!(error, CliError::Failed { .. }) {
                output::note(&error);
            }
            error.exit().into()
        }
    }
}

/// The words of the command that was called.
fn words(matches: &ArgMatches) -> Vec<String> {
    let mut words = Vec::new();
    let mut at = matches;
    while let Some((word, below)) = at.subcommand() {
        words.push(word.to_owned());
        at = below;
    }
    words
}

fn dispatch(command: Command, context: &Context) -> Result<(), CliError> {
    // `run` logs as its configuration says.
    if !matches!(command, Command::Run(_) | Command::Witness(_)) {
        context.start_logging()?;
    }
    match command {
        Command::Init(args) => init::run(*args, context),
        Command::Enrol(args) => enrol::run(args, context),
        Command::Run(args) => run::run(args, context),
        Command::Witness(args) => witness::run(&args, context),
        Command::Status(args) => status::run(args, context),
        Command::Peers(args) => peers::run(&args, context),
        Command::Feeds(args) => feeds::run(&args, context),
        Command::Feed(args) => feeds::run_one(args, context),
        Command::Verify(args) => verify::run(args, context),
        Command::Audit(args) => audit::run(&args, context),
        Command::Set(args) => set::run(args, context),
        Command::Import(args) => import::run(&args, context),
        Command::Retract(args) => retract::run(&args, context),
        Command::Erase(args) => erase::run(&args, context),
        Command::Opine(args) => opine::run(&args, context),
        Command::Opinions(args) => opinions::run(&args, context),
        Command::Receipts(args) => receipts::run(&args, context),
        Command::Export(args) => export::run(&args, context),
        Command::Bundle(args) => bundle::run(args, context),
        Command::Prove(args) => proof::make::run(&args, context),
        Command::Proof(args) => proof::run(&args, context),
        Command::Evidence(args) => evidence::run(&args, context),
        Command::Lookup(args) => lookup::run(&args, context),
        Command::Scan(args) => scan::run(&args, context),
        Command::Hash(args) => hash::run(args, context),
        Command::Consumers(args) => consumers::run(&args, context),
        Command::Quarantine(args) => quarantine::run(&args, context),
        Command::AllowList(args) => allow_list::run(args, context),
        Command::Policy(args) => policy::run(&args, context),
        Command::Mute(args) => mute::mute(&args, context),
        Command::Unmute(args) => mute::unmute(&args, context),
        Command::Mutes(args) => mute::mutes(args, context),
        Command::Coalition(args) => coalition::run(args, context),
        Command::Roster(args) => roster::run(args, context),
        Command::Card(args) => card::run(args, context),
        Command::Keys(args) => keys::run(args, context),
        Command::Preview(args) => preview::run(&args, context),
        Command::Config(args) => config::run(&args, context),
        Command::Demo(args) => demo::run(args, context),
        Command::Bench(args) => bench::run(args, context),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_words_are_those_of_the_help() {
        let line = ["hashpact", "--json", "enroll", "accept", "--genesis"];
        let genesis = "0".repeat(64);
        let line = line
            .into_iter()
            .chain([genesis.as_str(), "--address", "a:1"]);
        let matches = Cli::command().get_matches_from(line);
        assert_eq!(words(&matches), ["enrol", "accept"]);
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_argument_has_a_help_text() {
        fn check(command: &clap::Command) {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for argument in command.get_arguments() {
                assert!(
                    argument.get_help().is_some(),
                    "{} {}",
                    command.get_name(),
                    argument.get_id()
                );
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }
}
