//! From the configuration to an open node: keys, store, and what the exchange needs.

use std::collections::BTreeSet;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashpact_core::card::EndpointPolicy;
use hashpact_core::keys::{Receipt, SecretKey};
use hashpact_core::leaf::audit::{Act, Actor, OK};
use hashpact_core::limits::DAY_MS;
use hashpact_core::puller::Waits;
use hashpact_net::exchange::{Bootstrap, ExchangeOptions};
use hashpact_net::tls::Credentials;
use hashpact_node::audit::AuditSettings;
use hashpact_node::clock::Clock;
use hashpact_node::hygiene::HygieneOptions;
use hashpact_node::journal::JournalSettings;
use hashpact_node::removed::RemovedMembers;
use hashpact_node::witnessing::WitnessOptions;
use hashpact_node::{Node, NodeError, NodeOptions, RosterDocuments};
use hashpact_store::{AllowList, StoreError, StoreOptions};

use super::allow_list;
use super::error::CliError;
use super::policy;
use crate::config::{self, ClassConflicts, Config};
use crate::keyfile::{self, KeyFileError};
use crate::roster_file;

/// How long a node that is to run waits for the store while another command has it, and
/// between looks.
const LOCK_WAIT: Duration = Duration::from_secs(10);
const LOCK_LOOK: Duration = Duration::from_millis(100);

/// Opens the node that the configuration describes. `connects` says whether peers
/// will be asked for its own heads before it publishes: true for `run`, false for a
/// command that works alone. `run` waits for the store while a command has it: one that
/// asks every few seconds how the node is must not keep it from starting. Blocking.
///
/// # Errors
/// A key that cannot be read, named by its key in the configuration; a store that
/// is in use or damaged; a roster file that is refused.
pub fn open_node(config: &Config, connects: bool) -> Result<Arc<Node>, CliError> {
    open_as(config, connects, false)
}

/// The same for a node that only witnesses: nothing of others is pulled, and nothing is
/// kept ready for look-ups.
///
/// # Errors
/// As [`open_node`].
pub fn open_witness(config: &Config) -> Result<Arc<Node>, CliError> {
    open_as(config, true, true)
}

fn open_as(config: &Config, connects: bool, only: bool) -> Result<Arc<Node>, CliError> {
    let began = Instant::now();
    let mut waits = false;
    let node = loop {
        match Node::open(options(config, connects, only)?) {
            Err(error) if connects && is_locked(&error) && began.elapsed() < LOCK_WAIT => {
                if !std::mem::replace(&mut waits, true) {
                    tracing::warn!(
                        data_dir = %config.node.data_dir.display(),
                        "another process has the store: waiting for it, at most {} s",
                        LOCK_WAIT.as_secs()
                    );
                }
                std::thread::sleep(LOCK_LOOK);
            }
            opened => break opened.map_err(|error| open_error(config, &error))?,
        }
    };
    node.set_removed_members(match config.coalition.removed_members {
        config::RemovedMembers::Count => RemovedMembers::Count,
        config::RemovedMembers::Review => RemovedMembers::Review,
        config::RemovedMembers::Ignore => RemovedMembers::Ignore,
    });
    node.set_overdue_after(config.receipts.overdue_after_s.saturating_mul(1_000));
    node.set_retention(config.retention.dead_payload_days);
    if connects {
        let receipt_keys = receipt_keys(config).map_err(|error| key_error("receipt", &error))?;
        node.use_receipt_keys(receipt_keys);
        let journal = &config.match_journal;
        let kept = JournalSettings {
            max_entries: journal.max_entries,
            keep_ms: journal.keep_days.saturating_mul(DAY_MS),
        };
        node.keep_journal(kept)
            .map_err(|error| open_error(config, &error))?;
    }
    take_roster_file(config, &node)?;
    policy::keep::begin(&node, &config.policy.file)?;
    Ok(node)
}

/// Whether another process has the store.
const fn is_locked(error: &NodeError) -> bool {
    matches!(error, NodeError::Store(StoreError::Locked { .. }))
}

/// What the node is opened with.
fn options(config: &Config, connects: bool, only: bool) -> Result<NodeOptions, CliError> {
    let clock = Clock::system();
    let keys = &config.keys;
    let feed_key = keyfile::load(&keys.feed).map_err(|error| key_error("feed", &error))?;
    let identity_key = keys.identity.as_deref().map(keyfile::load);
    let identity_key = identity_key
        .transpose()
        .map_err(|error| key_error("identity", &error))?;
    let witness_key = super::keys::witness_key(config)?;
    private_folder(&config.node.data_dir, "node.data_dir")?;
    private_folder(&config.node.sign_state_dir, "node.sign_state_dir")?;
    Ok(NodeOptions {
        store_dir: config.node.data_dir.clone(),
        store: store_options(config)?,
        sign_state_dir: config.node.sign_state_dir.clone(),
        member: config.member.slug.clone(),
        node: config.node.name.clone(),
        genesis: config.coalition.genesis,
        endpoint_policy: endpoint_policy(config),
        denied: BTreeSet::new(),
        feed_key,
        identity_key,
        clock,
        connects,
        witness: witness_key.map(|key| WitnessOptions { key, only }),
        near_index: connects && !only,
        audit: audit_settings(config),
        hygiene: hygiene(config),
    })
}

/// What becomes of doubts that the node has by itself.
fn hygiene(config: &Config) -> HygieneOptions {
    let hygiene = &config.hygiene;
    HygieneOptions {
        flood_share_percent: u8::try_from(hygiene.flood_share_percent).unwrap_or(u8::MAX),
        flood_min_values: hygiene.flood_min_values,
        flood_hold_ms: hygiene.flood_hold_h.saturating_mul(3_600_000),
        class_conflicts_review: hygiene.class_conflicts == ClassConflicts::Review,
        tell_publishers: hygiene.tell_publishers,
    }
}

/// The receipt key, and the one that is to take its place.
fn receipt_keys(config: &Config) -> Result<Vec<SecretKey<Receipt>>, KeyFileError> {
    let path = &config.keys.receipt;
    let next = super::keys::next(path);
    let mut keys = vec![keyfile::load(path)?];
    if next.exists() {
        keys.push(keyfile::load(&next)?);
    }
    Ok(keys)
}

/// Reads the TLS key and its certificate; makes a certificate where none is
/// configured.
///
/// # Errors
/// A key or certificate that cannot be used.
pub fn credentials(config: &Config) -> Result<Credentials, CliError> {
    let keys = &config.keys;
    let name = certificate_name(config.node.name.as_str(), config.member.slug.as_str());
    let certificate = keys.tls_certificate.as_deref();
    keyfile::load_tls(&keys.tls_key, certificate, &name, Clock::system().now())
        .map_err(|error| key_error("tls_key", &error))
}

/// The TLS key and certificate of the member's own doors.
///
/// # Errors
/// A key that cannot be read, named by its key in the configuration.
pub fn api_credentials(config: &Config) -> Result<Credentials, CliError> {
    let api = &config.api;
    let name = certificate_name(config.node.name.as_str(), config.member.slug.as_str());
    let certificate = api.tls_certificate.as_deref();
    keyfile::load_tls(&api.tls_key, certificate, &name, Clock::system().now()).map_err(|error| {
        let path = api.tls_key.display();
        CliError::failed(format!("api.tls_key: {error}")).next(format!(
            "openssl genpkey -algorithm ed25519 -out {path} makes one; then chmod 600 {path}"
        ))
    })
}

/// What the node's exchange with others is started with.
#[must_use]
pub fn exchange_options(config: &Config, credentials: Credentials) -> ExchangeOptions {
    let mut options = ExchangeOptions::new(credentials);
    options.settings = config.federation.limits.settings();
    options.pull = pull_settings(config);
    options.publisher_max_bytes = publisher_max_bytes(config);
    options.confirm_wait = Duration::from_secs(config.publish.confirm_wait_s);
    options.listen = config.federation.listen;
    options.outbound_only = Some(config.federation.outbound_only);
    let proxy = config.federation.proxy.as_ref();
    options.proxy = proxy.map(ToString::to_string);
    options.endpoint_policy = endpoint_policy(config);
    options.grace = Duration::from_secs(config.shutdown.grace_s);
    let peers = config.coalition.bootstrap.iter();
    options.bootstrap = peers
        .map(|peer| Bootstrap {
            member: peer.member.clone(),
            endpoint: peer.endpoint.to_string(),
        })
        .collect();
    options
}

/// When segments of the audit feed are sealed, and when they go.
fn audit_settings(config: &Config) -> AuditSettings {
    let audit = &config.audit;
    AuditSettings {
        segment_leaves: audit.segment_leaves,
        segment_ms: audit.segment_days.saturating_mul(DAY_MS),
        retain_ms: (audit.retain_days > 0).then(|| audit.retain_days.saturating_mul(DAY_MS)),
        segments_max: usize::try_from(audit.segments_max).unwrap_or(usize::MAX),
    }
}

/// How the node pulls, from peers and from bundles.
#[must_use]
pub fn pull_settings(config: &Config) -> hashpact_core::puller::Settings {
    let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let pull = &config.pull;
    hashpact_core::puller::Settings {
        poll_ms: pull.poll_interval_s.saturating_mul(1_000),
        jobs_per_feed: size(pull.chunks_at_once),
        jobs_total: size(pull.feeds_at_once.saturating_mul(pull.chunks_at_once)),
        growth_per_hour: config.federation.limits.feed_growth_per_hour,
        waits: Waits {
            first_ms: pull.retry_first_ms,
            longest_ms: pull.retry_longest_s.saturating_mul(1_000),
        },
        ..hashpact_core::puller::Settings::default()
    }
}

/// What the pulled feeds of one publisher may take of the disk.
#[must_use]
pub const fn publisher_max_bytes(config: &Config) -> u64 {
    let publisher_max = config.federation.limits.publisher_max_mib;
    publisher_max.saturating_mul(1 << 20)
}

/// The name on a certificate that a node makes for itself. Nobody decides by it.
#[must_use]
pub fn certificate_name(node: &str, member: &str) -> String {
    format!("{node}.{member}.hashpact.invalid")
}

/// Which endpoints the node takes from cards.
#[must_use]
pub const fn endpoint_policy(config: &Config) -> EndpointPolicy {
    if config.federation.allow_loopback_endpoints {
        EndpointPolicy::AllowLocal
    } else {
        EndpointPolicy::Public
    }
}

/// What never matches.
fn allow_lists(config: &Config) -> Result<AllowList, CliError> {
    let quarantine = &config.quarantine;
    allow_list::read(&quarantine.allow_lists, &quarantine.allow_list_dir)
}

/// The store's share of the machine.
pub(super) fn store_options(config: &Config) -> Result<StoreOptions, CliError> {
    let defaults = StoreOptions::default();
    let cache = config.store.block_cache_mib.saturating_mul(1 << 20);
    let unsynced = config.store.sync_every_mib.saturating_mul(1 << 20);
    let threads = config.store.background_threads;
    Ok(StoreOptions {
        allow_list: allow_lists(config)?,
        allow_sets: config.quarantine.allow_sets.clone(),
        block_cache_bytes: usize::try_from(cache).unwrap_or(usize::MAX),
        bulk_threads: usize::try_from(threads).unwrap_or(1),
        background_jobs: i32::try_from(threads).unwrap_or(2),
        free_min_bytes: config.store.free_min_bytes,
        publisher_frames_max: config.federation.limits.publisher_max_frames,
        unsynced_max_bytes: usize::try_from(unsynced).unwrap_or(usize::MAX),
        ..defaults
    })
}

/// Takes what is new in the roster file, as if a peer had sent it.
fn take_roster_file(config: &Config, node: &Node) -> Result<(), CliError> {
    let Some(path) = &config.coalition.roster_file else {
        return Ok(());
    };
    let fail = |why: String| {
        CliError::failed(format!("coalition.roster_file: {}: {why}", path.display()))
            .next("ask the administrators for the coalition's roster file")
    };
    let file = roster_file::read(path).map_err(|error| fail(error.to_string()))?;
    let outcome = node
        .import_roster(RosterDocuments {
            rosters: file.rosters,
            node_cards: file.node_cards,
            suspensions: file.suspensions,
        })
        .map_err(|error| fail(error.to_string()))?;
    if outcome.accepted > 0 {
        let mut act = Act::new("roster.file", Actor::node());
        act.count("accepted", outcome.accepted.into());
        act.count("roster_version", outcome.version);
        node.audit().note(act, OK);
    }
    for refused in &outcome.refused {
        tracing::warn!(file = %path.display(), refused, "a document of the roster file is refused");
    }
    if outcome.version == 0 {
        let why = outcome.refused.first().cloned();
        return Err(fail(why.unwrap_or_else(|| "it has no roster".to_owned())));
    }
    Ok(())
}

/// Makes a folder that only its owner can open; one that is there stays as it is.
///
/// # Errors
/// What the file system says, with the key of the configuration that names it.
pub fn private_folder(path: &Path, key: &str) -> Result<(), CliError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| CliError::failed(format!("{key}: {}: {error}", path.display())))
}

fn key_error(key: &str, error: &KeyFileError) -> CliError {
    CliError::failed(format!("keys.{key}: {error}"))
        .next("hashpact init makes keys; hashpact config check looks at all of them")
}

fn open_error(config: &Config, error: &NodeError) -> CliError {
    let folder = config.node.data_dir.display();
    CliError::failed(format!("node.data_dir: {folder}: {error}"))
        .next("only one process can have the store open; is a node running?")
}
