//! `hashpact policy`: the rules for what becomes of what members say.

mod diff;
mod explain;
pub(super) mod keep;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use hashpact_core::id::Digest;
use hashpact_core::policy::{Action, Policy};
use serde::Serialize;

use super::Context;
use super::error::{CliError, Exit};
use super::output::{counted, table};
use crate::config::ConfigProblem;
use crate::config::policy;

/// Check the policy, explain a verdict, or see what another policy would change
///
/// The policy says what the node makes of what members say: enforce, review,
/// observe or ignore. It is the file of policy.file in the configuration, and is
/// read again when it changes. docs/POLICY.md explains it.
#[derive(Debug, Args)]
pub struct PolicyArgs {
    #[command(subcommand)]
    command: PolicyCommand,
}

#[derive(Debug, Subcommand)]
enum PolicyCommand {
    /// Report every problem of a policy at once
    ///
    /// Asks no node. Exit code 2 when there are problems.
    Check {
        /// The policy; without it that of the configuration
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
    },
    Explain(explain::ExplainArgs),
    Diff(diff::DiffArgs),
}

#[derive(Serialize)]
struct Checked<'a> {
    file: String,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    default: Option<&'static str>,
    rules: Vec<RuleObject>,
    problems: &'a [ConfigProblem],
}

#[derive(Serialize)]
struct RuleObject {
    name: String,
    does: String,
    needs: String,
}

/// Runs the command.
///
/// # Errors
/// A policy that is wrong; a node that cannot be asked.
pub fn run(args: &PolicyArgs, context: &Context) -> Result<(), CliError> {
    match &args.command {
        PolicyCommand::Check { file } => check(file.clone(), context),
        PolicyCommand::Explain(args) => explain::run(args, context),
        PolicyCommand::Diff(args) => diff::run(args, context),
    }
}

fn check(file: Option<PathBuf>, context: &Context) -> Result<(), CliError> {
    let path = match file {
        Some(path) => path,
        None => context.config_text()?.policy.file,
    };
    let file = path.display().to_string();
    let (policy, text) = match policy::load(&path) {
        Ok(good) => good,
        Err(error) if context.output.is_json() => {
            context.output.json(&Checked {
                file,
                ok: false,
                digest: None,
                default: None,
                rules: Vec::new(),
                problems: &error.problems,
            })?;
            return Err(CliError::Quiet(Exit::Usage));
        }
        Err(error) => return Err(error.into()),
    };
    let rules = rules(&policy);
    let digest = Digest::of(&text).to_string();
    let default = policy.default_verdict().name();
    let number = u64::try_from(rules.len()).unwrap_or(u64::MAX);
    let output = &context.output;
    output.line(format_args!(
        "{file}: good, {}, else {default}",
        counted(number, "rule", "rules")
    ))?;
    if !rules.is_empty() {
        let mut shown = table(&["RULE", "DOES", "NEEDS"], &[]);
        for rule in &rules {
            shown.add_row([&rule.name, &rule.does, &rule.needs]);
        }
        output.table(&shown)?;
    }
    output.json(&Checked {
        file,
        ok: true,
        digest: Some(digest),
        default: Some(default),
        rules,
        problems: &[],
    })
}

fn rules(policy: &Policy) -> Vec<RuleObject> {
    let rules = policy.rules().iter().map(|rule| {
        let (does, needs) = match &rule.action {
            Action::AtLeast(verdict, needs) => {
                let mut words = Vec::new();
                if let Some(members) = needs.members {
                    words.push(counted(members, "member", "members"));
                }
                if !needs.alone.is_empty() {
                    let alone = needs.alone.iter().map(ToString::to_string);
                    words.push(alone.collect::<Vec<_>>().join(" or "));
                }
                let mut said = vec![words.join(", or ")];
                if needs.witnesses {
                    said.push("witnesses".to_owned());
                }
                if needs.min_age_ms > 0 {
                    said.push(format!("{} h of age", needs.min_age_ms / 3_600_000));
                }
                if needs.rollout < hashpact_core::policy::SHARES {
                    said.push(format!("{} % of signals", needs.rollout / 100));
                }
                (verdict.to_string(), said.join("; "))
            }
            Action::AtMost {
                verdict,
                negative_members,
            } => {
                let needs = match negative_members {
                    0 => String::new(),
                    members => format!("{members} who say no"),
                };
                (format!("at most {verdict}"), needs)
            }
        };
        RuleObject {
            name: rule.name.clone(),
            does,
            needs,
        }
    });
    rules.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(text: &str, json: bool) -> (Result<(), CliError>, String) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("policy.toml");
        std::fs::write(&path, text).unwrap();
        let (context, printed) = Context::for_test(json);
        let ended = check(Some(path), &context);
        (ended, printed.text())
    }

    #[test]
    fn the_samples_are_good() {
        for sample in [
            include_str!("../../../deploy/policy.cautious.toml"),
            include_str!("../../../deploy/policy.rollout.toml"),
        ] {
            let (ended, shown) = checked(sample, false);
            assert_eq!(ended, Ok(()));
            assert!(
                shown
                    .lines()
                    .all(|line| line.chars().count() <= 80 || line.contains(": good"))
            );
            assert!(shown.lines().count() > 3, "{shown}");
        }
    }

    #[test]
    fn a_wrong_policy_ends_with_exit_code_2_and_every_problem() {
        let text = "what = 1\n[[rules]]\nname = \"x\"\n";
        let (ended, shown) = checked(text, true);
        assert_eq!(ended.map_err(|error| error.exit()), Err(Exit::Usage));
        let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(shown["problems"].as_array().unwrap().len(), 2);
        assert_eq!(shown["problems"][0]["line"], 1);
        let (ended, _) = checked(text, false);
        assert!(ended.unwrap_err().to_string().contains("line 1: what"));
    }
}
