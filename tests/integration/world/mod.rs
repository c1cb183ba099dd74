//! A coalition on this machine: members made and joined by the command line, their
//! nodes run as processes.
//!
//! A world keeps everything that its processes write. When it ends, its nodes are
//! stopped and the evidence is searched for what must never be written.

mod cable;
mod call;
mod evidence;
mod member;
mod reader;
pub(crate) mod signals;
pub(crate) mod thief;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

pub(crate) use cable::Cable;
pub(crate) use call::{Call, Outcome, binary};
pub(crate) use evidence::Evidence;
pub(crate) use member::{Member, Place};
pub(crate) use reader::{Reader, checkpoint};

/// The coalition of every world.
pub(crate) const COALITION: &str = "csa-coalition.example";
/// What anything may take that is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
/// Between two looks at what is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// Copies a folder with all that is in it.
pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A coalition, its members and all that was written.
pub(crate) struct World {
    /// In order of their numbers in the roster.
    members: Vec<Member>,
    folder: TempDir,
    evidence: Arc<Evidence>,
}

impl World {
    /// Founds a coalition of these members; every node has the roster, none runs.
    pub(crate) fn new(slugs: &[&str]) -> Self {
        let world = Self::founded(slugs);
        for member in &world.members {
            member.import_roster(&world.roster_file());
        }
        world
    }

    /// As [`new`](Self::new), but no node has seen the roster yet.
    pub(crate) fn founded(slugs: &[&str]) -> Self {
        let here: Vec<_> = slugs.iter().map(|slug| (*slug, Place::here())).collect();
        Self::founded_at(&here)
    }

    /// As [`founded`](Self::founded), each node in its place.
    pub(crate) fn founded_at(places: &[(&str, Place)]) -> Self {
        let mut world = Self::empty();
        let admins = world.admins().display().to_string();
        let mut founding = vec!["coalition", "init", "--name", COALITION, "--dir", &admins];
        founding.push("--no-passphrase");
        world.call().json(&founding);
        for (slug, place) in places {
            world.newcomer_at(slug, place.clone());
        }
        let slugs: Vec<&str> = places.iter().map(|(slug, _)| *slug).collect();
        world.admit(&slugs);
        world.evidence.keep_keys_of(world.path());
        world
    }

    /// A coalition without members, founded by these administrators, of whom two must
    /// sign: each has a key of its own, elsewhere.
    pub(crate) fn founded_by(administrators: &[&str]) -> Self {
        let world = Self::empty();
        let admins = world.admins().display().to_string();
        let mut founding = vec!["coalition", "init", "--name", COALITION, "--dir", &admins];
        founding.extend(["--threshold", "2"]);
        let public: Vec<String> = administrators
            .iter()
            .map(|name| format!("{name}={}", world.admin_key(name)))
            .collect();
        for administrator in &public {
            founding.extend(["--admin", administrator]);
        }
        std::fs::create_dir_all(&admins).unwrap();
        world.call().json(&founding);
        world.sign_and_publish(&administrators[..2]);
        world
    }

    fn empty() -> Self {
        Self {
            members: Vec::new(),
            folder: tempfile::tempdir().unwrap(),
            evidence: Arc::new(Evidence::default()),
        }
    }

    /// Makes an administrator's key, in that person's own folder; its public half.
    pub(crate) fn admin_key(&self, name: &str) -> String {
        let path = self.admin_key_file(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let path = path.display().to_string();
        let made = self
            .call()
            .json(&["coalition", "key", &path, "--no-passphrase"]);
        self.evidence.keep_keys_of(self.path());
        text(&made, "key")
    }

    /// The key of an administrator of [`founded_by`](Self::founded_by).
    pub(crate) fn admin_key_file(&self, name: &str) -> PathBuf {
        self.path().join(format!("desk-of-{name}/{name}.key"))
    }

    /// Lets these administrators sign the draft there is, and publishes it.
    pub(crate) fn sign_and_publish(&self, administrators: &[&str]) -> Value {
        for name in administrators {
            let key = self.admin_key_file(name).display().to_string();
            self.coalition(&["sign", "--key", &key, "--yes"]);
        }
        self.coalition(&["publish"])
    }

    /// Makes the node of a newcomer, whom nobody has admitted yet, as it does itself.
    pub(crate) fn newcomer(&mut self, slug: &str) {
        self.newcomer_at(slug, Place::here());
    }

    /// As [`newcomer`](Self::newcomer), its node in its place.
    pub(crate) fn newcomer_at(&mut self, slug: &str, place: Place) {
        let genesis = self.genesis();
        let member = Member::init(slug, place, self.path(), &genesis, &self.evidence);
        self.members.push(member);
        self.evidence.keep_keys_of(self.path());
    }

    /// The digest that every node is given.
    pub(crate) fn genesis(&self) -> String {
        let file = self.roster_file().display().to_string();
        text(&self.call().json(&["coalition", "show", &file]), "genesis")
    }

    /// Calls `hashpact coalition` in the administrators' folder.
    pub(crate) fn coalition(&self, line: &[&str]) -> Value {
        let admins = self.admins().display().to_string();
        let line = [&["coalition"], line, &["--dir", &admins]].concat();
        self.call().json(&line)
    }

    /// Signs and publishes the draft there is, through the node of `member`.
    pub(crate) fn approve(&self, member: &str) -> Value {
        let key = self.admins().join("admin.key").display().to_string();
        self.coalition(&["sign", "--key", &key, "--yes"]);
        let admins = self.admins().display().to_string();
        let line = ["coalition", "publish", "--to-node", "--dir", &admins];
        self.member(member).json(&line)
    }

    /// Adds members to the roster from their requests.
    fn admit(&self, slugs: &[&str]) {
        let admins = self.admins().display().to_string();
        let mut line = vec!["coalition", "add", "--dir", &admins, "--yes"];
        let requests: Vec<String> = slugs
            .iter()
            .map(|slug| self.member(slug).request().display().to_string())
            .collect();
        line.extend(requests.iter().map(String::as_str));
        self.call().json(&line);
    }

    /// The member of this slug.
    pub(crate) fn member(&self, slug: &str) -> &Member {
        let found = self.members.iter().find(|member| member.slug() == slug);
        found.unwrap_or_else(|| panic!("no member {slug} in this world"))
    }

    /// All members.
    pub(crate) fn members(&self) -> &[Member] {
        &self.members
    }

    /// Starts the nodes of all members; each is ready.
    pub(crate) fn start_all(&self) {
        self.members.iter().for_each(Member::spawn);
        self.members.iter().for_each(Member::wait_ready);
    }

    /// The folder that all of it lies in.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The roster as the administrators hand it out.
    pub(crate) fn roster_file(&self) -> PathBuf {
        self.admins().join("roster.hashpact")
    }

    /// What was written so far.
    pub(crate) fn evidence(&self) -> &Evidence {
        &self.evidence
    }

    /// A call that belongs to no member.
    pub(crate) fn call(&self) -> Call<'_> {
        Call::new(&self.evidence, self.path())
    }

    /// Writes a file into the world's folder.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    fn admins(&self) -> PathBuf {
        self.path().join("admins")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for member in &self.members {
            member.end();
            self.evidence.keep_logs(member);
        }
        if thread::panicking() {
            self.evidence.show_end();
            if std::env::var_os("HASHPACT_KEEP").is_some() {
                self.folder.disable_cleanup(true);
                eprintln!("kept: {}", self.path().display());
            }
            return;
        }
        crate::secrets::assert_silent(&self.evidence);
    }
}

/// Looks until there is something to see.
///
/// # Panics
/// When nothing is there within [`PATIENCE`].
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(started.elapsed() < PATIENCE, "waited for {what} in vain");
        thread::sleep(LOOK_EVERY);
    }
}

/// As [`until`], for something that is true or not.
pub(crate) fn until_true(what: &str, mut look: impl FnMut() -> bool) {
    until(what, || look().then_some(()));
}

/// Whether a process has a file open.
pub(crate) fn has_open(pid: u32, path: &Path) -> bool {
    let Ok(descriptors) = std::fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    let mut targets = descriptors.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    targets.any(|target| target == path)
}

/// A port that nobody listens at. Below the range that the system hands out, so
/// that no outgoing connection takes it meanwhile; a process hands out each once.
pub(crate) fn free_port() -> u16 {
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 12_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % u32::from(COUNT)).unwrap();
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + (start.wrapping_add(step)) % COUNT;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A field of a JSON object that is text.
pub(crate) fn text(object: &Value, field: &str) -> String {
    let value = object[field].as_str();
    value
        .unwrap_or_else(|| panic!("no text {field} in {object}"))
        .to_owned()
}

/// A field of a JSON object that is a number.
pub(crate) fn number(object: &Value, field: &str) -> u64 {
    let value = object[field].as_u64();
    value.unwrap_or_else(|| panic!("no number {field} in {object}"))
}

/// A field of a JSON object that is a list.
pub(crate) fn list<'a>(object: &'a Value, field: &str) -> &'a [Value] {
    let value = object[field].as_array();
    value.unwrap_or_else(|| panic!("no list {field} in {object}"))
}
