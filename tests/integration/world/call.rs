//! One call of the binary, and what came of it.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::Evidence;

/// The binary under test: the one just built, or what `HASHPACT_BINARY` names.
pub(crate) fn binary() -> OsString {
    let named = std::env::var_os("HASHPACT_BINARY");
    named.unwrap_or_else(|| env!("CARGO_BIN_EXE_hashpact").into())
}

/// No command takes longer than this.
const CALL_MAX: Duration = Duration::from_secs(120);

/// A call that is being put together.
pub(crate) struct Call<'a> {
    evidence: &'a Evidence,
    folder: PathBuf,
    config: Option<PathBuf>,
    stdin: Option<Vec<u8>>,
}

/// A call under way; ended when dropped.
pub(crate) struct Underway<'a> {
    evidence: &'a Evidence,
    line: Vec<String>,
    child: Child,
    stdout: File,
    stderr: File,
    ended: bool,
}

/// How a call ended.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    /// The arguments.
    pub(crate) line: Vec<String>,
    /// The exit code; none after a signal.
    pub(crate) code: Option<i32>,
    /// Standard output.
    pub(crate) stdout: String,
    /// Standard error.
    pub(crate) stderr: String,
}

impl<'a> Call<'a> {
    pub(crate) fn new(evidence: &'a Evidence, folder: &Path) -> Self {
        Self {
            evidence,
            folder: folder.to_owned(),
            config: None,
            stdin: None,
        }
    }

    /// For the node of this configuration.
    pub(crate) fn config(mut self, path: &Path) -> Self {
        self.config = Some(path.to_owned());
        self
    }

    /// With this on standard input.
    pub(crate) fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(bytes.into());
        self
    }

    /// Calls and waits for the end.
    pub(crate) fn run(self, line: &[&str]) -> Outcome {
        self.begin(line).wait()
    }

    /// Calls with `--json`, expects success, and reads the object.
    pub(crate) fn json(self, line: &[&str]) -> Value {
        self.json_ending(&[0], line)
    }

    /// Calls with `--json`, expects one of these exit codes, and reads the object.
    pub(crate) fn json_ending(self, codes: &[i32], line: &[&str]) -> Value {
        let mut line = line.to_vec();
        line.push("--json");
        let outcome = self.run(&line);
        outcome.expect(codes).object()
    }

    /// Begins the call.
    pub(crate) fn begin(mut self, line: &[&str]) -> Underway<'a> {
        let stdin = self.stdin.take();
        let (mut command, stdout, stderr) = self.command(line, &binary());
        command.stdin(if stdin.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        });
        let mut child = command.spawn().unwrap();
        if let (Some(bytes), Some(mut pipe)) = (stdin, child.stdin.take()) {
            // A command may end before it has read everything.
            thread::spawn(move || std::io::Write::write_all(&mut pipe, &bytes));
        }
        self.underway(line, child, stdout, stderr)
    }

    /// Begins the call through another program, such as a shell that sets limits:
    /// `program` with `arguments`, then the binary and its own arguments.
    pub(crate) fn begin_through(
        self,
        program: &str,
        arguments: &[&str],
        line: &[&str],
        stdin: Stdio,
    ) -> Underway<'a> {
        let (direct, stdout, stderr) = self.command(line, &binary());
        let child = Command::new(program)
            .args(arguments)
            .arg(direct.get_program())
            .args(direct.get_args())
            .current_dir(&self.folder)
            .stdin(stdin)
            .stdout(stdout.try_clone().unwrap())
            .stderr(stderr.try_clone().unwrap())
            .spawn()
            .unwrap();
        self.underway(line, child, stdout, stderr)
    }

    /// Begins the call with standard input as a pipe that the caller fills.
    pub(crate) fn begin_piped(self, line: &[&str]) -> Underway<'a> {
        let (mut command, stdout, stderr) = self.command(line, &binary());
        let child = command.stdin(Stdio::piped()).spawn().unwrap();
        self.underway(line, child, stdout, stderr)
    }

    /// The command with its output going to files without a name: nothing blocks,
    /// however much is written.
    fn command(&self, line: &[&str], program: &OsStr) -> (Command, File, File) {
        let stdout = tempfile::tempfile().unwrap();
        let stderr = tempfile::tempfile().unwrap();
        let mut command = Command::new(program);
        command
            .current_dir(&self.folder)
            .env_remove("HASHPACT_CONFIG")
            .env("RUST_BACKTRACE", "1")
            .stdout(stdout.try_clone().unwrap())
            .stderr(stderr.try_clone().unwrap());
        if let Some(config) = &self.config {
            command.arg("--config").arg(config);
        }
        command.args(line);
        (command, stdout, stderr)
    }

    fn underway(self, line: &[&str], child: Child, stdout: File, stderr: File) -> Underway<'a> {
        Underway {
            evidence: self.evidence,
            line: line.iter().map(|part| (*part).to_owned()).collect(),
            child,
            stdout,
            stderr,
            ended: false,
        }
    }
}

impl Underway<'_> {
    /// The process.
    pub(crate) const fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// What it wrote to standard output so far.
    pub(crate) fn so_far(&self) -> String {
        // The process writes at the offset that this file shares: it stays as it is.
        let length = self.stdout.metadata().unwrap().len();
        let mut bytes = vec![0; usize::try_from(length).unwrap()];
        let read = self.stdout.read_at(&mut bytes, 0).unwrap();
        bytes.truncate(read);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
    }

    /// Waits for the end.
    pub(crate) fn wait(mut self) -> Outcome {
        let started = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(
                started.elapsed() < CALL_MAX,
                "hashpact {} does not end",
                self.line.join(" ")
            );
            thread::sleep(Duration::from_millis(2));
        };
        self.ended = true;
        let outcome = Outcome {
            line: self.line.clone(),
            code: status.code(),
            stdout: whole(&mut self.stdout),
            stderr: whole(&mut self.stderr),
        };
        self.evidence.keep_call(&outcome);
        outcome
    }
}

impl Drop for Underway<'_> {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn whole(file: &mut File) -> String {
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

impl Outcome {
    /// Itself, if it ended with one of these exit codes.
    pub(crate) fn expect(self, codes: &[i32]) -> Self {
        let fits = self.code.is_some_and(|code| codes.contains(&code));
        assert!(fits, "expected exit code {codes:?}: {self}");
        self
    }

    /// The one JSON object on standard output.
    pub(crate) fn object(&self) -> Value {
        let parsed = serde_json::from_str(self.stdout.trim_end());
        parsed.unwrap_or_else(|error| panic!("no JSON object ({error}): {self}"))
    }

    /// The JSON objects on standard output, one a line.
    pub(crate) fn objects(&self) -> Vec<Value> {
        let lines = self.stdout.lines().map(serde_json::from_str);
        let parsed: Result<Vec<Value>, _> = lines.collect();
        parsed.unwrap_or_else(|error| panic!("no JSON lines ({error}): {self}"))
    }

    /// Whether the command ended well.
    pub(crate) fn is_done(&self) -> bool {
        self.code == Some(0)
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "hashpact {}\nexit code {:?}\n--- stdout\n{}\n--- stderr\n{}",
            self.line.join(" "),
            self.code,
            cut(&self.stdout),
            cut(&self.stderr)
        )
    }
}

/// Enough of a long text to see what it is.
fn cut(text: &str) -> String {
    const SHOWN: usize = 4_000;
    text.chars().take(SHOWN).collect()
}
