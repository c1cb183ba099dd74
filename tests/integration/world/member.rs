//! One member: its folder, its node's process, and calls to it.

use std::fs::{self, OpenOptions};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::call::binary;
use super::signals::Entry;
use super::{COALITION, Call, Evidence, Outcome, free_port, list, number, text, until, until_true};

/// What a node may take to end after SIGTERM; its own grace is shorter, and a busy
/// machine is slow.
const END_MAX: Duration = Duration::from_secs(90);
/// Settings that make nodes of tests meet again sooner, and say more.
const SETTINGS: [(&str, &str); 6] = [
    ("retry_first_ms", "50"),
    ("retry_longest_s", "1"),
    ("poll_interval_s", "1"),
    ("confirm_wait_s", "10"),
    ("grace_s", "10"),
    ("level", "\"debug\""),
];

/// Where a node runs.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// Where it listens and is dialled; none for a node that only dials.
    pub(crate) endpoint: Option<String>,
    /// The network namespace that its process runs in; none for that of the test.
    pub(crate) namespace: Option<String>,
    /// More arguments for `hashpact init`.
    pub(crate) more: Vec<String>,
}

impl Place {
    /// On this machine's loopback.
    pub(crate) fn here() -> Self {
        Self {
            endpoint: Some(format!("127.0.0.1:{}", free_port())),
            namespace: None,
            more: Vec::new(),
        }
    }

    /// What the node is run with: one that asked for the role alone only witnesses.
    fn runs(&self) -> &'static str {
        if self.more.iter().any(|argument| argument == "witness") {
            "witness"
        } else {
            "run"
        }
    }
}

/// A member with one node.
pub(crate) struct Member {
    slug: String,
    folder: PathBuf,
    place: Place,
    http: String,
    evidence: Arc<Evidence>,
    node: Mutex<Option<Child>>,
}

impl Member {
    /// Makes the member's node with `hashpact enrol request`, as `hashpact init` does.
    pub(crate) fn init(
        slug: &str,
        place: Place,
        world: &Path,
        genesis: &str,
        evidence: &Arc<Evidence>,
    ) -> Self {
        let member = Self {
            slug: slug.to_owned(),
            folder: world.join(slug),
            place,
            http: format!("127.0.0.1:{}", free_port()),
            evidence: evidence.clone(),
            node: Mutex::new(None),
        };
        let dir = member.folder.display().to_string();
        let email = format!("desk@{slug}.example");
        let name = display_name(slug);
        let mut line = vec![
            "enrol",
            "request",
            "--dir",
            &dir,
            "--coalition",
            COALITION,
            "--genesis",
            genesis,
            "--member",
            slug,
            "--display-name",
            &name,
            "--http-listen",
            &member.http,
            "--allow-loopback-endpoints",
            "--contact-name",
            "Night desk",
            "--contact-email",
            &email,
            "--contact-phone",
            "+31 20 555 0100",
        ];
        match &member.place.endpoint {
            Some(endpoint) => line.extend(["--listen", endpoint, "--advertise", endpoint]),
            None => line.extend(["--listen", "off"]),
        }
        line.extend(member.place.more.iter().map(String::as_str));
        Call::new(evidence, world).json(&line);
        for (key, value) in SETTINGS {
            member.set(key, value);
        }
        member
    }

    /// Sets a key of the configuration that stands in it already.
    pub(crate) fn set(&self, key: &str, value: &str) {
        let whole = fs::read_to_string(self.config()).unwrap();
        let begin = format!("{key} = ");
        let line = |line: &str| {
            if line.starts_with(&begin) {
                format!("{begin}{value}\n")
            } else {
                format!("{line}\n")
            }
        };
        let changed: String = whole.lines().map(line).collect();
        assert!(
            whole.contains(&format!("\n{begin}")),
            "no key {key} in the configuration"
        );
        fs::write(self.config(), changed).unwrap();
    }

    /// Changes the text of the configuration.
    pub(crate) fn edit_config(&self, change: impl FnOnce(String) -> String) {
        let whole = fs::read_to_string(self.config()).unwrap();
        fs::write(self.config(), change(whole)).unwrap();
    }

    pub(crate) fn slug(&self) -> &str {
        &self.slug
    }

    /// The node's folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The configuration file.
    pub(crate) fn config(&self) -> PathBuf {
        self.folder.join("hashpact.toml")
    }

    /// The enrolment request.
    pub(crate) fn request(&self) -> PathBuf {
        self.folder.join(format!("enrolment-{}.request", self.slug))
    }

    /// What the node logs.
    pub(crate) fn log_file(&self) -> PathBuf {
        self.folder.join("node.log")
    }

    /// Where other members reach the node.
    pub(crate) fn endpoint(&self) -> &str {
        self.place.endpoint.as_deref().expect("a node that listens")
    }

    /// A call to this member's node, or to its store where none runs.
    pub(crate) fn call(&self) -> Call<'_> {
        Call::new(&self.evidence, &self.folder).config(&self.config())
    }

    /// [`Call::run`] without more.
    pub(crate) fn run(&self, line: &[&str]) -> Outcome {
        self.call().run(line)
    }

    /// [`Call::json`] without more.
    pub(crate) fn json(&self, line: &[&str]) -> Value {
        self.call().json(line)
    }

    /// Hands the roster over as a file.
    pub(crate) fn import_roster(&self, file: &Path) {
        self.json(&["roster", "import", &file.display().to_string()]);
    }

    /// Lets the node ask another one for the roster first.
    pub(crate) fn bootstrap_from(&self, other: &Member) {
        let whole = fs::read_to_string(self.config()).unwrap();
        let (slug, endpoint) = (other.slug(), other.endpoint());
        let table =
            format!("[[coalition.bootstrap]]\nmember = \"{slug}\"\nendpoint = \"{endpoint}\"\n");
        fs::write(self.config(), format!("{whole}\n{table}")).unwrap();
    }

    // The node's process.

    /// Starts the node and waits until it is ready.
    pub(crate) fn start(&self) {
        self.spawn();
        self.wait_ready();
    }

    /// Starts the node.
    pub(crate) fn spawn(&self) {
        let mut node = self.node();
        assert!(node.is_none(), "the node of {} runs already", self.slug);
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_file());
        let log = log.unwrap();
        let mut command = match &self.place.namespace {
            Some(namespace) => {
                let mut command = Command::new("ip");
                // It sets the namespace and becomes the node: the process is the same.
                command.args(["netns", "exec", namespace]).arg(binary());
                command
            }
            None => Command::new(binary()),
        };
        let child = command
            .arg("--config")
            .arg(self.config())
            .arg(self.place.runs())
            .current_dir(&self.folder)
            .env_remove("HASHPACT_CONFIG")
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        *node = Some(child.unwrap());
    }

    /// Waits until `/ready` says so.
    pub(crate) fn wait_ready(&self) {
        until_true(&format!("{} to be ready", self.slug), || {
            self.assert_runs();
            if self.place.namespace.is_some() {
                // Its loopback is another than that of the test. A command that finds
                // no socket yet would take the store itself.
                return UnixStream::connect(self.folder.join("hashpact.sock")).is_ok()
                    && self.json(&["status"])["ready"] == true;
            }
            self.is_ready()
        });
    }

    /// Whether `/ready` says so; of a node whose HTTP page the test can reach.
    pub(crate) fn is_ready(&self) -> bool {
        self.http("/ready").is_some_and(|(code, _)| code == 200)
    }

    /// Whether commands and the HTTP page are answered, ready or not.
    pub(crate) fn is_up(&self) -> bool {
        self.assert_runs();
        let socket = UnixStream::connect(self.folder.join("hashpact.sock"));
        socket.is_ok() && self.http("/live").is_some()
    }

    /// SIGKILL.
    pub(crate) fn kill(&self) {
        if let Some(mut child) = self.node().take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// SIGTERM, and how the node ended.
    pub(crate) fn stop(&self) -> ExitStatus {
        let mut child = self.node().take().expect("a node that runs");
        let pid = Pid::from_child(&child);
        kill_process(pid, Signal::TERM).unwrap();
        let started = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            if started.elapsed() > END_MAX {
                let _ = child.kill();
                let _ = child.wait();
                panic!("the node of {} did not end within {END_MAX:?}", self.slug);
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Tells the node's process something, by a signal.
    pub(crate) fn tell(&self, signal: Signal) {
        let node = self.node();
        let child = node.as_ref().expect("a node that runs");
        kill_process(Pid::from_child(child), signal).unwrap();
    }

    /// Stops the node if it runs, whatever it says.
    pub(crate) fn end(&self) {
        self.kill();
    }

    /// Whether the node's process is there.
    pub(crate) fn runs(&self) -> bool {
        let mut node = self.node();
        node.as_mut()
            .is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    fn assert_runs(&self) {
        assert!(self.runs(), "the node of {} has ended by itself", self.slug);
    }

    fn node(&self) -> MutexGuard<'_, Option<Child>> {
        self.node.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads a page over HTTP: code and body; nothing where nobody answers.
    pub(crate) fn http(&self, path: &str) -> Option<(u16, String)> {
        let address = self.http.parse().unwrap();
        let limit = Duration::from_secs(5);
        let mut stream = TcpStream::connect_timeout(&address, limit).ok()?;
        stream.set_read_timeout(Some(limit)).unwrap();
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            self.http
        );
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let code = head.split(' ').nth(1)?.parse().ok()?;
        self.evidence.keep(format!("{path} of {}", self.slug), body);
        Some((code, body.to_owned()))
    }

    // What is asked for often.

    /// Imports these entries as CSV; the object that `import --json` prints.
    pub(crate) fn import(&self, set: &str, entries: &[Entry]) -> Value {
        let file = self.csv(set, entries);
        self.json(&["import", "--set", set, &file])
    }

    /// Writes entries as CSV and guards their values.
    pub(crate) fn csv(&self, name: &str, entries: &[Entry]) -> String {
        self.evidence.guard(entries);
        let path = self.folder.join(format!("{name}.csv"));
        fs::write(&path, super::signals::csv(entries)).unwrap();
        path.display().to_string()
    }

    /// Asks for the SHA-256 of these entries: the matches of each.
    pub(crate) fn lookup(&self, entries: &[Entry]) -> Vec<Vec<Value>> {
        let lines: String = entries.iter().map(|entry| entry.spec() + "\n").collect();
        let outcome = self
            .call()
            .stdin(lines)
            .run(&["lookup", "--file", "-", "--json"]);
        let answers = outcome.expect(&[0, 3]).objects();
        assert_eq!(answers.len(), entries.len(), "one answer an item");
        let matches = answers
            .iter()
            .map(|answer| list(answer, "matches").to_vec());
        matches.collect()
    }

    /// How many of these entries a look-up finds.
    pub(crate) fn hits(&self, entries: &[Entry]) -> usize {
        let answers = self.lookup(entries);
        answers.iter().filter(|matches| !matches.is_empty()).count()
    }

    /// Waits until so many of these entries are found.
    pub(crate) fn wait_hits(&self, entries: &[Entry], count: usize) {
        let what = format!("{} to find {count} of {} entries", self.slug, entries.len());
        until_true(&what, || self.hits(entries) == count);
    }

    /// The feeds that the node says it holds.
    pub(crate) fn feeds(&self) -> Vec<Value> {
        list(&self.json(&["feeds"]), "feeds").to_vec()
    }

    /// The feed of the set `name` (member/set), if the node holds it.
    pub(crate) fn feed(&self, name: &str) -> Option<Value> {
        self.feeds().into_iter().find(|feed| feed["name"] == name)
    }

    /// Waits until look-ups answer from so many leaves of the set.
    pub(crate) fn wait_indexed(&self, name: &str, size: u64) -> Value {
        until(
            &format!("{} to hold {size} leaves of {name}", self.slug),
            || {
                self.feed(name)
                    .filter(|feed| number(feed, "indexed") >= size)
            },
        )
    }

    /// Waits until the own set `name` is open for publishing.
    pub(crate) fn wait_open(&self, name: &str) -> Value {
        until(&format!("{name} of {} to be open", self.slug), || {
            let set = self.json(&["set", "show", name]);
            (set["open"] == true).then_some(set)
        })
    }

    /// Recomputes everything that the node holds, and finds nothing wrong.
    pub(crate) fn assert_sound(&self) {
        let verified = self.json(&["verify"]);
        assert_eq!(verified["sound"], true, "at {}: {verified}", self.slug);
    }

    /// Creates a set of the member's own work that these may read.
    pub(crate) fn create_set(&self, set: &str, grants: &[&str]) -> Value {
        let mut line = vec!["set", "create", set, "--source", "own"];
        for grant in grants {
            line.extend(["--grant", grant]);
        }
        self.json(&line)
    }

    /// Size and root of an own set's head.
    pub(crate) fn head(&self, name: &str) -> (u64, String) {
        let set = self.json(&["set", "show", name]);
        (number(&set, "size"), text(&set, "root"))
    }
}

/// The name for people of the member `slug`.
pub(crate) fn display_name(slug: &str) -> String {
    format!("The {slug} organisation")
}
