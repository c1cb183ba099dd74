//! Puts the policy's file in force: at the start, and whenever it changes.
//!
//! A file that is wrong is refused as a whole: what was in force stays, over a start too,
//! with an alarm in the log, in `status` and as a metric until the file is right.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use hashpact_core::id::Digest;
use hashpact_core::leaf::audit::{Act, Actor, OK};
use hashpact_node::Node;

use crate::cli::error::CliError;
use crate::config::policy;

/// What the audit feed has of a policy that was refused.
const REFUSED: &str = "refused";

/// When a file was changed, how long it is, and which file it is; `None` where there is
/// none.
type Stamp = Option<(SystemTime, u64, u64)>;

/// Follows the file of a node that runs.
pub(in crate::cli) struct PolicyKeeper {
    node: Arc<Node>,
    path: PathBuf,
    /// The file that was read last.
    read: Stamp,
    /// The file as it was at the last look.
    seen: Stamp,
}

impl PolicyKeeper {
    /// Goes on after [`begin`]; the file is read once more, lest a change in between is missed.
    pub(in crate::cli) fn new(node: Arc<Node>, path: PathBuf) -> Self {
        let stamp = stamp(&path);
        Self {
            node,
            path,
            read: None,
            seen: stamp,
        }
    }

    /// Looks whether the file changed, says that the policy is in force still, clears away
    /// mutes that have run out, and drops what need not be kept any longer. A file is read
    /// once it has stood still for a look: while it is being written, what stands there
    /// may be a policy, and not the one that is meant. Blocking.
    pub(in crate::cli) fn look(&mut self) {
        match self.node.follow_mutes() {
            Ok(over) => {
                for mute in over {
                    let mut act = Act::new("mute.over", Actor::node());
                    act.detail(mute.what, &mute.name);
                    self.node.audit().note(act, OK);
                }
            }
            Err(error) => tracing::error!(%error, "mutes that have run out stay in the list"),
        }
        if let Err(error) = self.node.stand_by_policy() {
            tracing::error!(%error, "noting that the policy is in force");
        }
        match self.node.follow_retention() {
            Ok(None) => {}
            Ok(Some(gone)) => {
                let mut act = Act::new("retention.drop", Actor::node()).of_set(gone.set);
                act.count("payloads", gone.payloads);
                self.node.audit().note(act, OK);
            }
            Err(error) => {
                tracing::error!(%error, code = error.code(), "dropping payloads of what is dead");
            }
        }
        let stamp = stamp(&self.path);
        let still = stamp == self.seen;
        self.seen = stamp;
        if still && stamp != self.read {
            self.read(Actor::node());
        }
    }

    /// Says until when the policy was in force: the node stops. Blocking.
    pub(in crate::cli) fn leave(&self) {
        if let Err(error) = self.node.leave_policy() {
            tracing::error!(%error, "noting until when the policy was in force");
        }
    }

    /// Reads the file, changed or not. Blocking.
    pub(in crate::cli) fn read(&mut self, by: Actor) {
        self.read = stamp(&self.path);
        self.seen = self.read;
        if let Err(error) = take(&self.node, &self.path, by) {
            tracing::error!(%error, "reading the policy");
        }
    }
}

fn stamp(path: &Path) -> Stamp {
    let found = std::fs::metadata(path).ok()?;
    Some((found.modified().ok()?, found.len(), found.ino()))
}

/// Puts the policy in force that the node starts with: that of its file, and where that
/// is wrong or gone the one that it went by before. Blocking.
///
/// # Errors
/// What the store answers.
pub(in crate::cli) fn begin(node: &Node, path: &Path) -> Result<(), CliError> {
    let kept = node.kept_policy().map_err(CliError::failed)?;
    if kept.is_none() && !path.exists() {
        // As shipped: it is noted since when.
        return node.set_policy(None).map(drop).map_err(CliError::failed);
    }
    // First what was in force: if the file is wrong, it stays.
    if let Some(kept) = kept {
        let text = String::from_utf8_lossy(&kept);
        match policy::parse(&text) {
            Ok(policy) => {
                let set = node.set_policy(Some((policy, &kept)));
                set.map_err(CliError::failed)?;
            }
            Err(_) => tracing::warn!("the policy that was in force cannot be read any more"),
        }
    }
    take(node, path, Actor::node())
}

/// Puts the file's policy in force, or refuses it.
fn take(node: &Node, path: &Path, by: Actor) -> Result<(), CliError> {
    let mut act = Act::new("policy.load", by);
    match policy::load(path) {
        Ok((policy, text)) => {
            let rules = u64::try_from(policy.rules().len()).unwrap_or(u64::MAX);
            let is_new = node.kept_policy().map_err(CliError::failed)?.as_ref() != Some(&text);
            if is_new {
                // Which policy is in force is recorded before it is.
                act.detail("digest", Digest::of(&text));
                act.count("rules", rules);
                let ticket = node.audit().begin(act).map_err(CliError::failed)?;
                let set = node.set_policy(Some((policy, &text)));
                ticket.finish(if set.is_ok() { OK } else { "failed" });
                set.map_err(CliError::failed)?;
            } else {
                let set = node.set_policy(Some((policy, &text)));
                set.map_err(CliError::failed)?;
            }
            metrics::counter!("hashpact_policy_loads_total", "outcome" => "ok").increment(1);
        }
        Err(error) => {
            metrics::counter!("hashpact_policy_loads_total", "outcome" => REFUSED).increment(1);
            let problems = error.problems.len();
            act.count("problems", u64::try_from(problems).unwrap_or(u64::MAX));
            node.audit().note(act, REFUSED);
            let first = error.problems.first();
            let first = first.map(ToString::to_string).unwrap_or_default();
            node.refuse_policy(&format!("{}: {first}", path.display()));
        }
    }
    Ok(())
}
