//! Processes of this same program: nodes that run, and commands that end.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::cli::error::CliError;

/// How long a node may take to stop; its own grace is shorter.
const STOP_WITHIN: Duration = Duration::from_secs(30);
/// How often a process is asked whether it ended.
const ASK_EVERY: Duration = Duration::from_millis(5);

/// A running node. Ended when dropped.
pub(super) struct Process {
    child: Child,
    /// While it is open, the node goes on; the kernel closes it whatever becomes of
    /// this process.
    _stays: Option<ChildStdin>,
}

impl Process {
    /// Starts `run` with a configuration; what it logs is added to `log`.
    pub(super) fn start(
        program: &Path,
        config: &Path,
        log: &Path,
        outlives_this: bool,
    ) -> Result<Self, CliError> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(log);
        let file = file.map_err(|error| CliError::failed(format!("{}: {error}", log.display())))?;
        let mut command = Command::new(program);
        command.arg("--config").arg(config).arg("run");
        if outlives_this {
            command.stdin(Stdio::null());
        } else {
            command.arg("--until-stdin-closes").stdin(Stdio::piped());
        }
        // A group of its own: Ctrl-C reaches this process, which ends the nodes.
        let child = command
            .stdout(Stdio::null())
            .stderr(file)
            .env_remove("HASHPACT_CONFIG")
            .process_group(0)
            .spawn();
        let mut child = child.map_err(|error| {
            CliError::failed(format!("{} cannot be started: {error}", program.display()))
        })?;
        let stays = child.stdin.take();
        Ok(Self {
            child,
            _stays: stays,
        })
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it did.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Kills it, as a power cut would.
    pub(super) fn kill(mut self) {
        self.end();
    }

    /// Asks it to stop, and says how long that took. A node that does not end in
    /// time, or not well, is an error.
    pub(super) async fn stop(mut self) -> Result<Duration, CliError> {
        let began = Instant::now();
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).map_err(CliError::failed)?;
        while began.elapsed() < STOP_WITHIN {
            if let Some(status) = self.ended() {
                if status.success() {
                    return Ok(began.elapsed());
                }
                return Err(CliError::failed(format!("the node ended with {status}")));
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
        Err(CliError::failed("the node does not stop when asked to"))
    }

    fn end(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Lets it run on without this process.
    pub(super) fn leave(self) {
        std::mem::forget(self);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// What a command printed, and how long it took.
pub(super) struct Called {
    pub(super) printed: String,
    pub(super) took: Duration,
}

impl Called {
    /// The JSON object that it printed.
    pub(super) fn json(&self) -> Result<Value, CliError> {
        let last = self.printed.lines().next_back().unwrap_or_default();
        serde_json::from_str(last)
            .map_err(|error| CliError::failed(format!("a command printed no JSON: {error}")))
    }
}

/// Runs a command of this program to its end.
///
/// # Errors
/// What it said on standard error, if it failed.
pub(super) async fn call<A: AsRef<OsStr>>(
    program: &Path,
    arguments: impl IntoIterator<Item = A>,
) -> Result<Called, CliError> {
    let began = Instant::now();
    let mut command = tokio::process::Command::new(program);
    let arguments: Vec<PathBuf> = arguments
        .into_iter()
        .map(|argument| PathBuf::from(argument.as_ref()))
        .collect();
    command
        .args(&arguments)
        .env_remove("HASHPACT_CONFIG")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let ended = command.output().await.map_err(|error| {
        CliError::failed(format!("{} cannot be started: {error}", program.display()))
    })?;
    if !ended.status.success() {
        let said = String::from_utf8_lossy(&ended.stderr);
        let shown: Vec<_> = arguments.iter().map(|a| a.to_string_lossy()).collect();
        return Err(CliError::failed(format!(
            "hashpact {}: {}\n{}",
            shown.join(" "),
            ended.status,
            said.trim_end()
        )));
    }
    Ok(Called {
        printed: String::from_utf8_lossy(&ended.stdout).into_owned(),
        took: began.elapsed(),
    })
}
