//! The node's configuration: one TOML file, checked whole before anything starts.
//!
//! Owns: the file's keys, their defaults, bounds and meaning. Units stand in the
//! keys' names (`_s`, `_ms`, `_mib`). An unknown key is refused. Secrets are
//! never in the file: it names files, which nobody but their owner may open.
//! Relative paths start at the file's own folder.
//!
//! Every problem is reported at once, each with its key, line and remedy.

mod api;
pub(crate) mod files;
mod hygiene;
mod keeping;
pub mod policy;
mod reader;
mod retention;
mod sections;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hashpact_api::json::is_loopback;
use hashpact_core::id::{CoalitionName, Digest, Slug};
use hashpact_net::settings::Settings;
use hashpact_node::caller::Role;
use serde::{Serialize, Serializer};
use toml::de::DeTable;

pub use hygiene::{ClassConflicts, Hygiene, Quarantine};
pub use keeping::{Audit, MatchJournal, Receipts};
pub use reader::ConfigProblem;
use reader::{Reading, Section};
pub use retention::Retention;

/// A whole, valid configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Config {
    /// This node.
    pub node: Node,
    /// The member that runs it.
    pub member: Member,
    /// The coalition it belongs to, and how to reach it first.
    pub coalition: Coalition,
    /// Where its keys are.
    pub keys: Keys,
    /// What other members' nodes meet.
    pub federation: Federation,
    /// What the member's own systems and people call.
    pub api: Api,
    /// The store's resources.
    pub store: Store,
    /// How it pulls.
    pub pull: Pull,
    /// When own sets may be signed.
    pub publish: Publish,
    /// How it logs.
    pub log: Log,
    /// What it makes of what members say.
    pub policy: PolicyFile,
    /// What it keeps of who did what.
    pub audit: Audit,
    /// What it holds back.
    pub quarantine: Quarantine,
    /// What it makes of doubts of its own.
    pub hygiene: Hygiene,
    /// What it makes of receipts.
    pub receipts: Receipts,
    /// What it keeps of its answers.
    pub match_journal: MatchJournal,
    /// How long it keeps what is dead.
    pub retention: Retention,
    /// `[shutdown]`.
    pub shutdown: Shutdown,
}

/// `[node]`: this process and its folders.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Node {
    /// The node's name on its member's card.
    #[serde(serialize_with = "as_text")]
    pub name: Slug,
    /// The folder of the store. Hash lists are sensitive: an encrypted volume.
    pub data_dir: PathBuf,
    /// The folder of the sign-state file. Never inside `data_dir`, nor restored
    /// with it: it is what keeps a restored store from forking a feed.
    pub sign_state_dir: PathBuf,
}

/// `[member]`: who runs the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Member {
    /// The member's slug in the roster.
    #[serde(serialize_with = "as_text")]
    pub slug: Slug,
}

/// `[coalition]`: what the node belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Coalition {
    /// The coalition's name.
    #[serde(serialize_with = "as_text")]
    pub name: CoalitionName,
    /// The digest of version 1 of the roster: what everything else hangs on.
    #[serde(serialize_with = "as_text")]
    pub genesis: Digest,
    /// A roster chain to begin with, where no peer can be asked for it.
    pub roster_file: Option<PathBuf>,
    /// What becomes of the entries of members that were removed.
    pub removed_members: RemovedMembers,
    /// Whom to ask for the roster first.
    pub bootstrap: Vec<Bootstrap>,
}

/// What becomes of the entries of members that were removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RemovedMembers {
    /// They count as before.
    Count,
    /// They answer, to be looked at.
    Review,
    /// They do not answer.
    Ignore,
}

impl RemovedMembers {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "count" => Ok(Self::Count),
            "review" => Ok(Self::Review),
            "ignore" => Ok(Self::Ignore),
            _ => Err(format!("{:?} is none of them", clip(text))),
        }
    }
}

/// `[[coalition.bootstrap]]`: a node to ask for the roster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Bootstrap {
    /// The member that is meant: a node of any other is refused. Without one whoever
    /// answers is asked; the answer is verified from the genesis digest all the same.
    #[serde(serialize_with = "as_optional_text")]
    pub member: Option<Slug>,
    /// Where its node listens.
    #[serde(serialize_with = "as_text")]
    pub endpoint: Endpoint,
}

/// `[keys]`: paths of key files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Keys {
    /// The member's identity key; absent where it is kept offline.
    pub identity: Option<PathBuf>,
    /// Signs the heads of this member's feeds.
    pub feed: PathBuf,
    /// Signs receipts.
    pub receipt: PathBuf,
    /// Cosigns heads; `None` for a node that is no witness.
    pub witness: Option<PathBuf>,
    /// The TLS key, P-256 or Ed25519.
    pub tls_key: PathBuf,
    /// A certificate around the TLS key; without one the node makes its own.
    pub tls_certificate: Option<PathBuf>,
}

/// `[federation]`: the side that other members' nodes meet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Federation {
    /// Where to listen; `None` (`"off"`) for a node that only dials.
    #[serde(serialize_with = "address_or_off")]
    pub listen: Option<SocketAddr>,
    /// Whether peers cannot dial the node: it dials each of them once more, to be
    /// watched and pulled from on that connection.
    pub outbound_only: bool,
    /// The HTTP proxy (CONNECT) that peers are dialled through.
    #[serde(serialize_with = "as_text_if_any")]
    pub proxy: Option<Endpoint>,
    /// The endpoints that go on the node card.
    #[serde(serialize_with = "as_texts")]
    pub advertise: Vec<Endpoint>,
    /// Whether endpoints on this machine itself may be named and dialled. Only
    /// for trials: elsewhere such an endpoint would reach a stranger's service.
    pub allow_loopback_endpoints: bool,
    /// `[federation.limits]`.
    pub limits: FederationLimits,
}

/// `[federation.limits]`: what peers may take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FederationLimits {
    /// Open connections of one member.
    pub connections_per_member: u64,
    /// Calls of one member in a second, over all its connections.
    pub calls_per_second: u64,
    /// Calls of one member at once, after a quiet time.
    pub calls_burst: u64,
    /// A connection takes no new streams after this; the peer connects again.
    pub connection_age_s: u64,
    /// What streams may take to end on a connection that came of age.
    pub connection_age_grace_s: u64,
    /// TLS handshakes under way at one time.
    pub handshakes_at_once: u64,
    /// Of these, with one address, or one /64 of IPv6.
    pub handshakes_per_address: u64,
    /// A TLS handshake, from the accepted connection to its end.
    pub handshake_timeout_s: u64,
    /// A stream, or a connection with bytes to write, that moves none.
    pub progress_timeout_s: u64,
    /// A call that is answered by one message.
    pub unary_deadline_s: u64,
    /// Publish leaves that a feed may grow by in an hour after its first pull.
    pub feed_growth_per_hour: u64,
    /// What the pulled sets of one publisher may take of the disk.
    pub publisher_max_mib: u64,
    /// Frames of videos that those may have in memory.
    pub publisher_max_frames: u64,
}

impl FederationLimits {
    /// The same as what connections are made with.
    #[must_use]
    pub fn settings(&self) -> Settings {
        // Every value was read within bounds that fit.
        let narrow = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        let size = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
        Settings {
            handshake_timeout: Duration::from_secs(self.handshake_timeout_s),
            handshakes_max: size(self.handshakes_at_once),
            handshakes_per_address_max: size(self.handshakes_per_address),
            connections_per_member: size(self.connections_per_member),
            progress_timeout: Duration::from_secs(self.progress_timeout_s),
            unary_deadline: Duration::from_secs(self.unary_deadline_s),
            connection_age: Duration::from_secs(self.connection_age_s),
            connection_age_grace: Duration::from_secs(self.connection_age_grace_s),
            calls_per_second: narrow(self.calls_per_second),
            calls_burst: narrow(self.calls_burst),
            ..Settings::default()
        }
    }
}

/// `[api]`: the side of the member's own systems and people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Api {
    /// The Unix socket of the local gRPC API and of the commands.
    pub socket: PathBuf,
    /// Where health and metrics are served over HTTP; `None` (`"off"`) for nowhere.
    #[serde(serialize_with = "address_or_off")]
    pub http_listen: Option<SocketAddr>,
    /// Where gRPC is served over TCP, to `clients` alone; `None` (`"off"`) for nowhere.
    #[serde(serialize_with = "address_or_off")]
    pub grpc_listen: Option<SocketAddr>,
    /// Where JSON is served: plain on a loopback address, else to `clients` alone; `None`
    /// (`"off"`) for nowhere.
    #[serde(serialize_with = "address_or_off")]
    pub json_listen: Option<SocketAddr>,
    /// The TLS key of both.
    pub tls_key: PathBuf,
    /// A certificate around it; without one the node makes its own.
    pub tls_certificate: Option<PathBuf>,
    /// Who may call over a network.
    pub clients: Vec<ApiClient>,
}

impl Api {
    /// Whether JSON is served with TLS.
    #[must_use]
    pub fn json_needs_clients(&self) -> bool {
        self.json_listen
            .is_some_and(|address| !is_loopback(address))
    }

    /// Whether anything is served with TLS.
    #[must_use]
    pub fn needs_clients(&self) -> bool {
        self.grpc_listen.is_some() || self.json_needs_clients()
    }
}

/// `[[api.clients]]`: a system of the member's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ApiClient {
    /// What it is called in logs.
    #[serde(serialize_with = "as_text")]
    pub name: Slug,
    /// SHA-256 of its TLS key's `SubjectPublicKeyInfo`.
    #[serde(serialize_with = "as_text")]
    pub key: Digest,
    /// What it may do.
    #[serde(serialize_with = "role_name")]
    pub role: Role,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn role_name<S: Serializer>(role: &Role, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(role.name())
}

/// `[store]`: the store's resources.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Store {
    /// Memory for blocks read from disk.
    pub block_cache_mib: u64,
    /// Threads for flushing and compaction.
    pub background_threads: u64,
    /// Pages that wait before a pull or an import makes them durable.
    pub sync_every_mib: u64,
    /// What is to stay free of the store's volume.
    pub free_min_bytes: u64,
}

/// `[pull]`: how feeds are pulled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pull {
    /// Feeds pulled at one time.
    pub feeds_at_once: u64,
    /// Chunk requests under way at one time for one feed.
    pub chunks_at_once: u64,
    /// How often a peer is asked where no watch stream stands.
    pub poll_interval_s: u64,
    /// The first wait after a failure; it doubles, with jitter.
    pub retry_first_ms: u64,
    /// The longest wait after failures.
    pub retry_longest_s: u64,
}

/// `[publish]`: when this member's own sets may be signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Publish {
    /// How long after a start, once a peer has said what it holds of an own set, the
    /// other peers are waited for.
    pub confirm_wait_s: u64,
}

/// `[log]`: what is logged, and how. Logs go to standard error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Log {
    /// Lines for people or for machines.
    pub format: LogFormat,
    /// A level, or directives such as `info,hashpact_net=debug`.
    pub level: String,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `[policy]`: what the node makes of what members say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PolicyFile {
    /// The file of the rules; while there is none, people look at everything.
    pub file: PathBuf,
}

/// `[shutdown]`: how the node stops.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shutdown {
    /// How long work under way may take to end after SIGTERM.
    pub grace_s: u64,
}

/// A host name or address and a port, `host:port`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    host: String,
    port: u16,
}

impl Endpoint {
    /// Reads `host:port`; an IPv6 address stands in brackets.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("{:?} is no host:port: {why}", clip(text));
        let (host, port) = text.rsplit_once(':').ok_or_else(|| wrong("no port"))?;
        let port: u16 = port.parse().map_err(|_| wrong("the port is no number"))?;
        let bracketed = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let good = match bracketed {
            Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
            None => is_host_name(host),
        };
        if !good {
            return Err(wrong("the host is neither a name nor an address"));
        }
        if port == 0 {
            return Err(wrong("port 0 cannot be dialled"));
        }
        Ok(Self {
            host: bracketed.unwrap_or(host).to_ascii_lowercase(),
            port,
        })
    }

    /// The host, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Whether it can only mean this machine itself.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        match self.host.parse::<std::net::IpAddr>() {
            Ok(address) => {
                let address = address.to_canonical();
                address.is_loopback() || address.is_unspecified()
            }
            Err(_) => self.host == "localhost" || self.host.ends_with(".localhost"),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Whether the files that the configuration names are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Files {
    /// Secrets must be there, and safe: before a node starts.
    Check,
    /// Only the text counts: before the keys are made, and in tests.
    Ignore,
}

/// All that is wrong with a file of the operator's: the configuration, the policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// The file.
    pub path: PathBuf,
    /// Every problem, in the order of the file.
    pub problems: Vec<ConfigProblem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.problems.len();
        let noun = if count == 1 { "problem" } else { "problems" };
        write!(f, "{}: {count} {noun}", self.path.display())?;
        for problem in &self.problems {
            write!(f, "\n  {}\n    {}", problem.fact(), problem.fix)?;
        }
        Ok(())
    }
}

impl Config {
    /// Loads the configuration at `path`.
    ///
    /// # Errors
    /// [`ConfigError`] with every problem there is.
    pub fn load(path: &Path, files: Files) -> Result<Self, ConfigError> {
        let fail = |problems| ConfigError {
            path: path.to_owned(),
            problems,
        };
        let text = std::fs::read_to_string(path).map_err(|error| {
            fail(vec![ConfigProblem {
                key: String::new(),
                line: None,
                what: format!("the file cannot be read: {error}"),
                fix: "give its path with --config, or make one with hashpact init".to_owned(),
            }])
        })?;
        let base = match path.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        Self::parse(&text, base, files).map_err(fail)
    }

    /// Reads a configuration from its text; relative paths start at `base`.
    ///
    /// # Errors
    /// Every problem there is; with broken TOML, those of the TOML alone.
    pub fn parse(text: &str, base: &Path, files: Files) -> Result<Self, Vec<ConfigProblem>> {
        let reading = Reading::new(text, base);
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            let at = error.span().map(|span| span.start);
            reading.problem("", at, error.message(), "correct the TOML");
        }
        let config = errors.is_empty().then(|| {
            let root = Section::root(&reading, table.get_ref());
            sections::read(root, files)
        });
        match (config.flatten(), reading.into_problems()) {
            (Some(config), problems) if problems.is_empty() => Ok(config),
            (_, problems) => Err(problems),
        }
    }
}

fn is_host_name(host: &str) -> bool {
    let label = |label: &str| {
        let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        (1..=63).contains(&label.len())
            && label.bytes().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    (1..=253).contains(&host.len()) && host.split('.').all(label)
}

fn clip(text: &str) -> String {
    text.chars().take(80).collect()
}

fn as_text<T: fmt::Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

#[expect(clippy::ref_option, reason = "the signature that serde asks for")]
fn as_text_if_any<T: fmt::Display, S: Serializer>(
    value: &Option<T>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.collect_str(value),
        None => serializer.serialize_none(),
    }
}

#[expect(clippy::ref_option, reason = "the signature that serde asks for")]
fn as_optional_text<T: fmt::Display, S: Serializer>(
    value: &Option<T>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.collect_str(value),
        None => serializer.serialize_none(),
    }
}

fn as_texts<T: fmt::Display, S: Serializer>(
    values: &[T],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(values.iter().map(ToString::to_string))
}

#[expect(clippy::ref_option, reason = "the signature that serde asks for")]
fn address_or_off<S: Serializer>(
    value: &Option<SocketAddr>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(address) => serializer.collect_str(address),
        None => serializer.serialize_str("off"),
    }
}

#[cfg(test)]
mod tests;
