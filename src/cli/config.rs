//! `hashpact config`: checks the configuration, and names the key of a client.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use hashpact_net::tls;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::Serialize;

use super::Context;
use super::allow_list;
use super::error::{CliError, Exit};
use crate::config::{Config, ConfigError, ConfigProblem, Files, policy};

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
    /// by their owner alone; allow lists and the policy are read as the node reads
    /// them. With --json, also prints the configuration with all defaults. Exit code
    /// 2 when there are problems.
    Check {
        /// Leave out the files that it names, such as keys not made yet
        #[arg(long)]
        text_only: bool,
    },
    /// Print what [[api.clients]] names a client's key by
    ///
    /// The SHA-256 of the public key (`SubjectPublicKeyInfo`) in a certificate.
    ClientKey {
        /// The client's certificate in PEM
        #[arg(value_name = "FILE")]
        certificate: PathBuf,
    },
}

#[derive(Serialize)]
struct ClientKey {
    key: String,
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
    let text_only = match &args.command {
        ConfigCommand::Check { text_only } => text_only,
        ConfigCommand::ClientKey { certificate } => return client_key(certificate, context),
    };
    let files = if *text_only {
        Files::Ignore
    } else {
        Files::Check
    };
    let file = context.config_path.display().to_string();
    let loaded = Config::load(&context.config_path, files).and_then(|config| {
        let problems = if *text_only {
            Vec::new()
        } else {
            in_files(&config)
        };
        if problems.is_empty() {
            return Ok(config);
        }
        Err(ConfigError {
            path: context.config_path.clone(),
            problems,
        })
    });
    match loaded {
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

/// What is wrong within the files that a start reads: allow lists, and the policy where
/// there is one.
fn in_files(config: &Config) -> Vec<ConfigProblem> {
    let mut problems = Vec::new();
    let quarantine = &config.quarantine;
    if let Err(error) = allow_list::read(&quarantine.allow_lists, &quarantine.allow_list_dir) {
        let (what, fix) = error.into_words();
        // Its first words are the key.
        let (key, why) = what.split_once(": ").unwrap_or(("quarantine", &what));
        problems.push(ConfigProblem {
            key: key.to_owned(),
            line: None,
            what: why.to_owned(),
            fix,
        });
    }
    let file = &config.policy.file;
    let wrong = file
        .symlink_metadata()
        .is_ok()
        .then(|| policy::load(file).err())
        .flatten();
    for problem in wrong.into_iter().flat_map(|error| error.problems) {
        let line = problem.line.map(|line| format!("line {line}: "));
        let within = match problem.key.as_str() {
            "" => String::new(),
            key => format!("{key}: "),
        };
        problems.push(ConfigProblem {
            key: "policy.file".to_owned(),
            line: None,
            what: format!(
                "{}: {}{within}{}",
                file.display(),
                line.unwrap_or_default(),
                problem.what
            ),
            fix: problem.fix,
        });
    }
    problems
}

fn client_key(path: &Path, context: &Context) -> Result<(), CliError> {
    let fail = |why: String| {
        CliError::failed(format!("{}: {why}", path.display()))
            .next("give the client's certificate, as PEM")
    };
    let text = std::fs::read(path).map_err(|error| fail(error.to_string()))?;
    let certificate = CertificateDer::from_pem_slice(&text).map_err(|e| fail(e.to_string()))?;
    let key = tls::spki_digest(&certificate).map_err(|error| fail(error.to_string()))?;
    let key = key.to_string();
    context.output.line(&key)?;
    context.output.json(&ClientKey { key })
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
    fn files_that_a_start_refuses_are_problems_unless_only_the_text_is_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let list = put("allow.txt", "nonsense\n");
        let rules = put("policy.toml", "what = 1\n[[rules]]\nname = \"x\"\n");
        let text = include_str!("../../deploy/hashpact.minimal.toml");
        let whole = format!("{text}\n[quarantine]\nallow_lists = [\"allow.txt\"]\n");
        let config = Config::parse(&whole, folder.path(), Files::Ignore).unwrap();
        let problems = in_files(&config);
        let keys: Vec<&str> = problems.iter().map(|p| p.key.as_str()).collect();
        assert_eq!(
            keys,
            ["quarantine.allow_lists", "policy.file", "policy.file"]
        );
        let said = |at: usize| problems[at].what.as_str();
        assert!(said(0).contains("allow.txt: line 1"), "{}", said(0));
        assert!(!said(0).contains("nonsense"));
        assert!(said(1).contains("policy.toml: line 1: what"), "{}", said(1));
        let context = |text_only| {
            let (mut context, _) = Context::for_test(false);
            context.config_path = put("hashpact.toml", &whole);
            let command = ConfigCommand::Check { text_only };
            run(&ConfigArgs { command }, &context).is_ok()
        };
        assert!(context(true));
        assert!(!context(false));
        std::fs::remove_file(rules).unwrap();
        std::fs::write(list, format!("{}\n", "0a".repeat(16))).unwrap();
        assert_eq!(in_files(&config), [], "no policy is the shipped one");
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
