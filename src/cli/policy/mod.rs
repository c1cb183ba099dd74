//! `hashpact policy`: the rules for what becomes of what members say.

mod diff;
mod explain;
pub(super) mod keep;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use hashpact_api::wire;
use hashpact_core::id::Digest;
use hashpact_core::policy::{Action, Policy};
use hashpact_node::policy::SHIPPED;
use serde::Serialize;

use super::Context;
use super::client::{answers, connect_or_embed};
use super::error::{CliError, Exit};
use super::output::{counted, note, table};
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
    /// Warns as well of members and sets in its rules that the node, where one runs,
    /// does not know: such a rule never fires. Exit code 2 when there are problems.
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
    /// Names in it that the node does not know; absent where none was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    warnings: Option<Vec<String>>,
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
        None => {
            let path = context.config_text()?.policy.file;
            // Only a link or a folder without permission is something there.
            if std::fs::symlink_metadata(&path).is_err_and(|e| e.kind() == ErrorKind::NotFound) {
                return shipped(&path, context);
            }
            path
        }
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
                warnings: None,
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
    let warnings = unknown_names(&policy, context);
    warn(warnings.as_deref().unwrap_or_default());
    output.json(&Checked {
        file,
        ok: true,
        digest: Some(digest),
        default: Some(default),
        rules,
        problems: &[],
        warnings,
    })
}

/// There is no file, which is all right, unless the node that runs had one.
fn shipped(path: &Path, context: &Context) -> Result<(), CliError> {
    let default = Policy::default().default_verdict().name();
    let file = path.display().to_string();
    if let Some(digest) = kept(context) {
        return Err(CliError::failed(format!(
            "{file}: not there, and the node keeps to the policy that it read before, SHA-256 {digest}"
        ))
        .next(format!(
            "put the file back; an empty one makes all {default}"
        )));
    }
    context.output.line(format_args!(
        "{file}: no policy file: as shipped, all is {default}"
    ))?;
    context.output.json(&Checked {
        file,
        ok: true,
        digest: None,
        default: Some(default),
        rules: Vec::new(),
        problems: &[],
        warnings: None,
    })
}

/// The policy that the node which runs has in force from a file, if it has.
fn kept(context: &Context) -> Option<String> {
    let config = context.config_text().ok()?;
    if !answers(&config.api.socket).ok()? {
        return None;
    }
    let client = connect_or_embed(context).ok()?;
    let status = client.call(client.node().status(wire::StatusRequest::default()));
    status
        .ok()
        .map(|status| status.policy)
        .filter(|name| name != SHIPPED)
}

/// Names in the rules that the node does not know; `None` where no node can be asked:
/// policies are checked on other machines too.
fn unknown_names(policy: &Policy, context: &Context) -> Option<Vec<String>> {
    let config = context.config_text().ok()?;
    if !answers(&config.api.socket).ok()? {
        return None;
    }
    let client = connect_or_embed(context).ok()?;
    let request = wire::ComparePoliciesRequest {
        new: Some(hashpact_api::policy_to_wire(policy)),
        names_only: true,
        ..wire::ComparePoliciesRequest::default()
    };
    let compared = client.wait(diff::follow(&client, request)).ok()?;
    Some(compared.unknown_names)
}

/// Says on standard error which names of rules nobody knows.
fn warn(unknown: &[String]) {
    for name in unknown {
        note(format_args!(
            "warning: {name}: is it written right? the rule does nothing by it until it is known"
        ));
    }
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
    fn a_node_without_a_policy_file_goes_by_the_shipped_one() {
        let folder = tempfile::tempdir().unwrap();
        let (mut context, printed) = Context::for_test(false);
        context.config_path = folder.path().join("hashpact.toml");
        let text = include_str!("../../../deploy/hashpact.minimal.toml");
        std::fs::write(&context.config_path, text).unwrap();
        assert_eq!(check(None, &context), Ok(()));
        let shown = printed.text();
        assert!(
            shown.ends_with("no policy file: as shipped, all is review\n"),
            "{shown}"
        );
        // A file that is named must be there.
        assert!(check(Some(folder.path().join("none.toml")), &context).is_err());
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
