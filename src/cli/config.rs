//! `hashpact config`: checks the configuration.

use clap::{Args, Subcommand};
use serde::Serialize;

use super::Context;
use super::error::{CliError, Exit};
use crate::config::{Config, ConfigProblem, Files};

/// Check the configuration
#[derive(Debug, Args)]
pub struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Report every problem of the configuration file at once
    ///
    /// Looks at the files it names as well: secrets must be there, and readable
    /// by their owner alone. With --json, also prints the configuration with
    /// all defaults. Exit code 2 when there are problems.
    Check {
        /// Leave out the files that it names, such as keys not made yet
        #[arg(long)]
        text_only: bool,
    },
}

#[derive(Serialize)]
struct Checked<'a> {
    file: String,
    ok: bool,
    problems: &'a [ConfigProblem],
    config: Option<&'a Config>,
}

/// Runs the command.
///
/// # Errors
/// The configuration's problems.
pub fn run(args: &ConfigArgs, context: &Context) -> Result<(), CliError> {
    let ConfigCommand::Check { text_only } = &args.command;
    let files = if *text_only {
        Files::Ignore
    } else {
        Files::Check
    };
    let file = context.config_path.display().to_string();
    match Config::load(&context.config_path, files) {
        Ok(config) => {
            context.output.line(format_args!("{file}: good"))?;
            context.output.json(&Checked {
                file,
                ok: true,
                problems: &[],
                config: Some(&config),
            })
        }
        Err(error) if context.output.is_json() => {
            context.output.json(&Checked {
                file,
                ok: false,
                problems: &error.problems,
                config: None,
            })?;
            Err(CliError::Quiet(Exit::Usage))
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> (Result<(), CliError>, serde_json::Value) {
        let folder = tempfile::tempdir().unwrap();
        let (mut context, printed) = Context::for_test(true);
        context.config_path = folder.path().join("hashpact.toml");
        std::fs::write(&context.config_path, text).unwrap();
        let command = ConfigCommand::Check { text_only: true };
        let ended = run(&ConfigArgs { command }, &context);
        (ended, serde_json::from_str(&printed.text()).unwrap())
    }

    #[test]
    fn a_good_configuration_is_printed_with_its_defaults() {
        let (ended, shown) = check(include_str!("../../deploy/hashpact.minimal.toml"));
        assert_eq!(ended, Ok(()));
        assert_eq!(shown["config"]["api"]["http_listen"], "127.0.0.1:9464");
    }

    #[test]
    fn a_bad_configuration_ends_with_exit_code_2_and_every_problem() {
        let (ended, shown) = check("[node]\nname = 1\nwhat = 2\n");
        assert_eq!(ended.map_err(|error| error.exit()), Err(Exit::Usage));
        let keys: Vec<_> = shown["problems"]
            .as_array()
            .unwrap()
            .iter()
            .map(|p| p["key"].clone())
            .collect();
        assert_eq!(
            keys,
            [
                "node.name",
                "node.what",
                "member.slug",
                "coalition.name",
                "coalition.genesis"
            ]
        );
    }
}
