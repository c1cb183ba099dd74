//! The folder, the administrator, the three members and the one that joins.

use std::fs::{self, DirBuilder};
use std::net::TcpListener;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::ask::{self, Node};
use super::process::{Called, Process, call};
use crate::cli::error::CliError;

/// How the coalition is called.
pub(super) const COALITION: &str = "csa-coalition.example";
/// Its members: slug, name, kind of organisation.
const MEMBERS: [(&str, &str, &str); 4] = [
    ("northstar", "Northstar Cloud", "platform"),
    ("harbor", "Harbor Hotline", "hotline"),
    ("lumen", "Lumen Games", "platform"),
    ("tidepool", "Tidepool Video", "platform"),
];

/// Which of the four.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    Northstar,
    Harbor,
    Lumen,
    Tidepool,
}

impl Who {
    /// Those who are there from the beginning.
    pub(super) const FOUNDERS: [Self; 3] = [Self::Northstar, Self::Harbor, Self::Lumen];
    /// With the one that joins.
    pub(super) const ALL: [Self; 4] = [Self::Northstar, Self::Harbor, Self::Lumen, Self::Tidepool];

    /// Its slug.
    pub(super) const fn slug(self) -> &'static str {
        let (slug, _, _) = MEMBERS[self as usize];
        slug
    }

    /// Its name.
    pub(super) const fn display_name(self) -> &'static str {
        let (_, name, _) = MEMBERS[self as usize];
        name
    }

    /// What kind of organisation it is.
    pub(super) const fn organisation(self) -> &'static str {
        let (_, _, kind) = MEMBERS[self as usize];
        kind
    }
}

/// A member's node.
pub(super) struct Member {
    pub(super) who: Who,
    pub(super) dir: PathBuf,
    pub(super) port: u16,
    pub(super) http: u16,
    process: Option<Process>,
}

impl Member {
    /// Its configuration.
    pub(super) fn config(&self) -> PathBuf {
        self.dir.join("hashpact.toml")
    }

    /// What it logs.
    pub(super) fn log(&self) -> PathBuf {
        self.dir.join("node.log")
    }

    /// The request that `init` made.
    pub(super) fn request(&self) -> PathBuf {
        self.dir
            .join(format!("enrolment-{}.request", self.who.slug()))
    }

    /// The process' number.
    pub(super) fn id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }
}

/// Everything that the demo runs in. Nodes end when it is dropped.
pub(super) struct World {
    pub(super) dir: PathBuf,
    pub(super) program: PathBuf,
    keep: bool,
    /// Whether the folder is ours to remove.
    temporary: bool,
    members: [Member; 4],
}

impl World {
    /// Makes the folder and finds ports that are free.
    pub(super) fn new(dir: Option<&Path>, keep: bool) -> Result<Self, CliError> {
        let program = std::env::current_exe().map_err(CliError::failed)?;
        let temporary = dir.is_none();
        let dir = match dir {
            Some(dir) => empty_folder(dir)?,
            None => temporary_folder()?,
        };
        let ports = free_ports().map_err(CliError::failed)?;
        let mut ports = ports.into_iter();
        let members = Who::ALL.map(|who| Member {
            who,
            dir: dir.join(who.slug()),
            port: ports.next().unwrap_or_default(),
            http: ports.next().unwrap_or_default(),
            process: None,
        });
        Ok(Self {
            dir,
            program,
            keep,
            temporary,
            members,
        })
    }

    /// The administrator's folder.
    pub(super) fn admin(&self) -> PathBuf {
        self.dir.join("administrator")
    }

    /// A file that somebody brings.
    pub(super) fn input(&self, name: &str) -> PathBuf {
        self.dir.join("input").join(name)
    }

    pub(super) const fn member(&self, who: Who) -> &Member {
        &self.members[who as usize]
    }

    const fn member_mut(&mut self, who: Who) -> &mut Member {
        &mut self.members[who as usize]
    }

    pub(super) fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.iter()
    }

    /// Runs a command of this program, with JSON.
    pub(super) async fn call(&self, arguments: &[&str]) -> Result<Called, CliError> {
        let json = std::iter::once(&"--json").chain(arguments);
        call(&self.program, json).await
    }

    /// Runs a command at a member's node, with JSON.
    pub(super) async fn at(&self, who: Who, arguments: &[&str]) -> Result<Called, CliError> {
        let config = self.member(who).config().display().to_string();
        let mut line = vec!["--config", &config, "--json"];
        line.extend(arguments);
        call(&self.program, line).await
    }

    /// The same beside what happens meanwhile.
    pub(super) fn at_meanwhile(
        &self,
        who: Who,
        arguments: &[&str],
    ) -> JoinHandle<Result<Called, CliError>> {
        let program = self.program.clone();
        let config = self.member(who).config().display().to_string();
        let mut line = vec!["--config".to_owned(), config, "--json".to_owned()];
        line.extend(arguments.iter().map(|&argument| argument.to_owned()));
        tokio::spawn(async move { call(&program, line).await })
    }

    /// The same for people.
    pub(super) async fn shown_at(&self, who: Who, arguments: &[&str]) -> Result<Called, CliError> {
        let config = self.member(who).config().display().to_string();
        let mut line = vec!["--config", &config];
        line.extend(arguments);
        call(&self.program, line).await
    }

    /// Starts a member's node.
    pub(super) fn start(&mut self, who: Who) -> Result<(), CliError> {
        let (program, keep) = (self.program.clone(), self.keep);
        let member = self.member_mut(who);
        let process = Process::start(&program, &member.config(), &member.log(), keep)?;
        member.process = Some(process);
        Ok(())
    }

    /// Waits until a member's node answers and says that it is ready.
    pub(super) async fn ready(&mut self, who: Who) -> Result<Node, CliError> {
        let mut node = self.answering(who).await?;
        for _ in 0..6_000_u32 {
            if node.status().await?.ready {
                return Ok(node);
            }
            self.check_alive(who)?;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Err(CliError::failed(format!(
            "the node of {} does not become ready",
            who.slug()
        )))
    }

    /// Waits until a member's node answers.
    async fn answering(&mut self, who: Who) -> Result<Node, CliError> {
        let socket = self.member(who).dir.join("hashpact.sock");
        let this = std::cell::RefCell::new(self);
        ask::until("a node to answer", || async {
            this.borrow_mut().check_alive(who)?;
            if !socket.exists() {
                return Ok(None);
            }
            Ok(Node::connect(&socket).await.ok())
        })
        .await
    }

    /// A connection to a node that runs.
    pub(super) async fn node(&self, who: Who) -> Result<Node, CliError> {
        Node::connect(&self.member(who).dir.join("hashpact.sock")).await
    }

    /// Kills a member's node, as a power cut would.
    pub(super) fn kill(&mut self, who: Who) {
        if let Some(process) = self.member_mut(who).process.take() {
            process.kill();
        }
    }

    /// Asks a member's node to stop, and says how long it took.
    pub(super) async fn stop(&mut self, who: Who) -> Result<Duration, CliError> {
        match self.member_mut(who).process.take() {
            Some(process) => process.stop().await,
            None => Ok(Duration::ZERO),
        }
    }

    /// Lets all nodes run on.
    pub(super) fn leave(&mut self) {
        for member in &mut self.members {
            if let Some(process) = member.process.take() {
                process.leave();
            }
        }
    }

    /// Removes a temporary folder, with everything in it.
    pub(super) fn remove(&self) {
        if self.temporary {
            // What cannot be removed is in the system's temporary folder.
            let _ = fs::remove_dir_all(&self.dir);
        }
    }

    /// Whether the folder goes away by itself.
    pub(super) const fn is_temporary(&self) -> bool {
        self.temporary
    }

    fn check_alive(&mut self, who: Who) -> Result<(), CliError> {
        let member = self.member_mut(who);
        let Some(status) = member.process.as_mut().and_then(Process::ended) else {
            return Ok(());
        };
        let log = member.log();
        let text = fs::read_to_string(&log).unwrap_or_default();
        let last = text.lines().next_back().unwrap_or_default().to_owned();
        Err(CliError::failed(format!(
            "the node of {} ended with {status}: {last}",
            who.slug()
        )))
    }
}

fn temporary_folder() -> Result<PathBuf, CliError> {
    let mut random = [0_u8; 5];
    getrandom::fill(&mut random).map_err(CliError::failed)?;
    let name = data_encoding::BASE32_DNSCURVE.encode(&random);
    let dir = std::env::temp_dir().join(format!("hashpact-demo-{name}"));
    make(&dir)?;
    Ok(dir)
}

fn empty_folder(dir: &Path) -> Result<PathBuf, CliError> {
    let dir = std::path::absolute(dir).map_err(CliError::failed)?;
    match fs::read_dir(&dir).map(|mut entries| entries.next().is_none()) {
        Ok(true) => {}
        Ok(false) => {
            return Err(CliError::usage(format!("{} is not empty", dir.display()))
                .next("give a folder with nothing in it, or none"));
        }
        Err(_) => make(&dir)?,
    }
    Ok(dir)
}

/// A folder that only its owner can open.
pub(super) fn make(dir: &Path) -> Result<(), CliError> {
    let made = DirBuilder::new().mode(0o700).create(dir);
    made.map_err(|error| CliError::failed(format!("{}: {error}", dir.display())))
}

/// Eight ports of this machine that nobody listens at. They are let go of again; who
/// takes one before the node does makes the demo fail, and say so.
fn free_ports() -> std::io::Result<Vec<u16>> {
    let listeners = (0..8).map(|_| TcpListener::bind(("127.0.0.1", 0)));
    let listeners = listeners.collect::<Result<Vec<_>, _>>()?;
    let ports = listeners.iter().map(std::net::TcpListener::local_addr);
    ports.map(|address| address.map(|a| a.port())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_members_stand_in_the_order_of_their_places() {
        for (place, who) in Who::ALL.into_iter().enumerate() {
            assert_eq!(who as usize, place);
        }
        assert_eq!(Who::Lumen.slug(), "lumen");
    }

    #[test]
    fn a_folder_with_something_in_it_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(empty_folder(folder.path()).is_ok());
        std::fs::write(folder.path().join("x"), "").unwrap();
        assert!(empty_folder(folder.path()).is_err());
    }
}
