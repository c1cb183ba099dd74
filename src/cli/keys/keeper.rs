//! Keeps this node's card, keys and certificate in order while it runs.
//!
//! Looks once a second, at files and at the card: a step of a rotation is taken where
//! what stands on the card and what is in use allow it, so nothing of it need be
//! remembered. No key leaves the card while a connection or a head goes by it.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use hashpact_core::card::{Endpoint, Node as CardNode, NodeCard};
use hashpact_core::id::{Digest, UnixMillis};
use hashpact_core::keys::{Feed, PublicKey, Receipt, SecretKey, Witness};
use hashpact_core::leaf::audit::{Act, Actor, OK};
use hashpact_core::reject::Rejection;
use hashpact_net::{Connections, Credentials};
use hashpact_node::card::OwnNode;
use hashpact_node::expiry::{self, Stage};
use hashpact_node::{Node, NodeError};

use super::files::{self, NodeKeys, next};
use super::rests::Rests;
use crate::cli::error::CliError;
use crate::config::Config;

/// Between two looks.
pub(in crate::cli) const EVERY: Duration = Duration::from_secs(1);
/// For a card, or a head, to reach every peer that is connected.
const TO_REACH: Duration = Duration::from_secs(3);
/// After this a rotation goes on without peers that are away.
const AWAY_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Between two log lines about one end that is near.
const SAY_AGAIN: Duration = Duration::from_secs(24 * 60 * 60);

/// When files were changed, how long they are, and which files they are; `None` for
/// one that is not there.
type Stamps = Vec<Option<(SystemTime, u64, u64)>>;

/// What the keeper needs of the running node.
pub(in crate::cli) struct Keeper {
    node: Arc<Node>,
    credentials: Credentials,
    connections: Arc<Connections>,
    config: Config,
    /// Where drafts of cards are written.
    folder: PathBuf,
    /// Since when something has been so.
    since: BTreeMap<&'static str, (String, Instant)>,
    stamps: Stamps,
    /// The keys as they were read, and the files at that time.
    read: Option<(Stamps, Arc<NodeKeys>)>,
    alarms: BTreeMap<&'static str, (Stage, Instant)>,
    failed: String,
    rests: Rests,
}

impl Keeper {
    pub(in crate::cli) fn new(
        node: Arc<Node>,
        credentials: Credentials,
        connections: Arc<Connections>,
        config: Config,
        folder: PathBuf,
    ) -> Self {
        let mut keeper = Self {
            node,
            credentials,
            connections,
            config,
            folder,
            since: BTreeMap::new(),
            stamps: Stamps::new(),
            read: None,
            alarms: BTreeMap::new(),
            failed: String::new(),
            rests: Rests::default(),
        };
        keeper.stamps = keeper.file_stamps();
        keeper.show_certificate();
        keeper
    }

    /// Looks at everything once. Blocking.
    pub(in crate::cli) fn look(&mut self) {
        let stamps = self.file_stamps();
        if stamps != self.stamps {
            self.stamps = stamps;
            self.reload(Actor::node());
        }
        self.node.audit().upkeep();
        let looked = self.keep_card();
        let failed = looked.err().map(|error| error.in_a_line());
        self.node.set_notice("keys", failed.clone());
        let failed = failed.unwrap_or_default();
        if failed != self.failed && !failed.is_empty() {
            tracing::error!(error = failed, "keeping the node card");
        }
        self.failed = failed;
        self.alarm();
    }

    /// Takes the certificate and its key as they lie there; connections that stand
    /// stay.
    pub(in crate::cli) fn reload(&mut self, by: Actor) {
        let act = self.node.audit().begin(Act::new("config.reload", by));
        let reloaded = match &act {
            Ok(_) => self.reloaded(),
            Err(error) => Err(CliError::failed(error)),
        };
        if let Ok(act) = act {
            act.finish(if reloaded.is_ok() { OK } else { "failed" });
        }
        match reloaded {
            Ok(said) => {
                tracing::info!("{said}");
                self.node.set_notice("certificate", None);
            }
            Err(error) => {
                tracing::error!(%error, "the old TLS certificate stays");
                let error = error.in_a_line();
                let notice = format!("the TLS certificate's files are not used: {error}");
                self.node.set_notice("certificate", Some(notice));
            }
        }
        self.show_certificate();
    }

    fn reloaded(&self) -> Result<&'static str, CliError> {
        if self.config.keys.tls_certificate.is_none() {
            return Ok("keys.tls_certificate is not set: there is nothing to read again");
        }
        let keys = NodeKeys::load(&self.config)?;
        let (read, used) = (digest(&keys.tls.now)?, digest(&self.credentials)?);
        let listed = self.node.own_entry();
        let listed = listed.is_some_and(|entry| entry.tls_keys.contains(&read));
        if read != used && !listed {
            return Err(CliError::failed("the key in the file is not on the node card").next(
                "put the old files back, then: hashpact keys rotate tls --from KEY --certificate \
                 CERTIFICATE",
            ));
        }
        // In the middle of a rotation the next key is in use, and stays.
        let next = keys.tls.next.as_ref().map(digest).transpose()?;
        if next != Some(used) {
            self.credentials.take(&keys.tls.now);
            if read != used {
                self.connections.renew(|open| open.own_key != read);
            }
        }
        Ok("the TLS certificate was read again")
    }

    fn show_certificate(&self) {
        self.node
            .set_certificate_expires(self.credentials.not_after());
    }

    /// Says whether the TLS key in use is on the card: peers refuse any other.
    fn show_listed(&mut self, entry: &CardNode) -> Result<(), CliError> {
        let used = digest(&self.credentials)?;
        let unlisted = !entry.tls_keys.contains(&used);
        metrics::gauge!("hashpact_tls_key_not_on_card").set(f64::from(u8::from(unlisted)));
        let notice = unlisted.then(|| {
            let file = self.config.keys.tls_key.display();
            format!(
                "ALARM: the key in {file} is not on this member's node card, so peers refuse every \
                 connection: put the key back that is on it (docs/OPERATORS.md, Keys, cards, \
                 certificates)"
            )
        });
        if self.changed("tls listed", used.to_string() + &unlisted.to_string())
            && let Some(notice) = &notice
        {
            tracing::error!("{notice}");
        }
        self.node.set_notice("tls_key", notice);
        Ok(())
    }

    fn file_stamps(&self) -> Stamps {
        let keys = &self.config.keys;
        let files = keys.tls_certificate.iter().chain([&keys.tls_key]);
        files.map(|path| stamp(path)).collect()
    }

    /// The keys, read again only when a file of theirs changed.
    fn keys(&mut self) -> Result<Arc<NodeKeys>, CliError> {
        let keys = &self.config.keys;
        let files = [&keys.tls_key, &keys.feed, &keys.receipt];
        let files = files.into_iter().chain(&keys.tls_certificate);
        let files = files.chain(&keys.witness);
        let stamps: Stamps = files
            .flat_map(|path| [stamp(path), stamp(&next(path))])
            .collect();
        if let Some((_, keys)) = self.read.as_ref().filter(|(held, _)| *held == stamps) {
            return Ok(Arc::clone(keys));
        }
        let keys = Arc::new(NodeKeys::load(&self.config)?);
        // Receipts are signed with the last of them that stands on the card.
        let receipt = keys.receipt.all();
        let receipt = receipt.map(|key| SecretKey::from_seed(&key.seed()));
        self.node.use_receipt_keys(receipt.collect());
        self.read = Some((stamps, Arc::clone(&keys)));
        Ok(keys)
    }

    /// One step of every rotation, then the card as it follows.
    fn keep_card(&mut self) -> Result<(), CliError> {
        let Some(entry) = self.node.own_entry() else {
            // Not on a card yet: enrolment makes the first one.
            return Ok(());
        };
        self.show_listed(&entry)?;
        let keys = self.keys()?;
        let own = OwnNode {
            endpoints: self.endpoints()?,
            tls_keys: self.tls_step(&keys, &entry)?,
            feed_keys: self.feed_step(&keys, &entry)?,
            receipt_keys: self.receipt_step(&keys, &entry),
            witness_keys: self.witness_step(&keys, &entry)?,
        };
        let ended = self.end_rotations(&keys, &own, &entry);
        // A file that cannot be renamed holds no card up.
        let published = match self.node.next_card(&own) {
            Some(card) => self.publish(&card, &keys),
            None => {
                self.node.set_notice("card", None);
                Ok(())
            }
        };
        ended.and(published)
    }

    fn endpoints(&self) -> Result<Vec<Endpoint>, CliError> {
        let advertised = self.config.federation.advertise.iter();
        let parsed = advertised.map(|endpoint| Endpoint::parse(&endpoint.to_string()));
        parsed.collect::<Result<_, _>>().map_err(CliError::failed)
    }

    /// The TLS keys that belong on the card now.
    fn tls_step(&mut self, keys: &NodeKeys, entry: &CardNode) -> Result<Vec<Digest>, CliError> {
        let now = digest(&keys.tls.now)?;
        let Some(credentials) = &keys.tls.next else {
            // One that came without a rotation: peers refuse it, and with it the card
            // on which it stood. `show_listed` says so.
            let listed = entry.tls_keys.contains(&now);
            return Ok(if listed {
                vec![now]
            } else {
                entry.tls_keys.clone()
            });
        };
        let next = digest(credentials)?;
        let both = vec![now, next];
        if !entry.tls_keys.contains(&next) {
            return Ok(both);
        }
        let used = digest(&self.credentials)?;
        let old_is_off = !entry.tls_keys.contains(&now);
        if used != next {
            if !old_is_off && !self.reached("tls card", &next.to_string()) {
                return Ok(both);
            }
            self.credentials.take(credentials);
            self.show_certificate();
            tracing::info!("the new TLS key is in use");
        }
        if old_is_off {
            return Ok(vec![next]);
        }
        // PROTOCOL 19.7: a connection ends when its key leaves the card. So none goes
        // by the old one any more.
        let old = self.connections.renew(|open| open.own_key != next);
        let settled = old == 0 && self.lasted("tls in use", &next.to_string(), TO_REACH);
        Ok(if settled { vec![next] } else { both })
    }

    /// The feed keys that belong on the card now.
    fn feed_step(
        &mut self,
        keys: &NodeKeys,
        entry: &CardNode,
    ) -> Result<Vec<PublicKey<Feed>>, CliError> {
        let now = keys.feed.now.public();
        let Some(key) = &keys.feed.next else {
            return Ok(vec![now]);
        };
        let next = key.public();
        let listed = |key| entry.feed_keys.iter().any(|held| held.key == key);
        if !listed(next) {
            return Ok(vec![now, next]);
        }
        let publisher = self.node.publisher();
        if publisher.feed_key() != next {
            if listed(now) && !self.reached("feed card", &next.to_string()) {
                return Ok(vec![now, next]);
            }
            let key = SecretKey::from_seed(&key.seed());
            let mut act = Act::new("keys.use", Actor::node());
            act.detail("feed_key", next);
            let act = self.node.audit().begin(act).map_err(CliError::failed)?;
            self.node.publisher().use_feed_key(key);
            act.finish(OK);
            tracing::info!("the new feed key is in use");
        }
        self.node
            .publisher()
            .resign_heads()
            .map_err(CliError::failed)?;
        let heard = !listed(now) || self.reached("feed heads", &next.to_string());
        Ok(if heard { vec![next] } else { vec![now, next] })
    }

    fn receipt_step(&mut self, keys: &NodeKeys, entry: &CardNode) -> Vec<PublicKey<Receipt>> {
        let now = keys.receipt.now.public();
        let Some(next) = keys.receipt.next.as_ref().map(SecretKey::public) else {
            return vec![now];
        };
        let listed = entry.receipt_keys.contains(&next);
        let known = listed
            && (!entry.receipt_keys.contains(&now)
                || self.reached("receipt card", &next.to_string()));
        if known { vec![next] } else { vec![now, next] }
    }

    /// The witness keys that belong on the card now.
    ///
    /// The former key signs until peers know the next one; then all that is recorded is
    /// signed again with that, and heard, before the former leaves the card.
    fn witness_step(
        &mut self,
        keys: &NodeKeys,
        entry: &CardNode,
    ) -> Result<Vec<PublicKey<Witness>>, CliError> {
        let Some(pair) = &keys.witness else {
            return Ok(entry.witness_keys.clone());
        };
        let now = pair.now.public();
        let Some(key) = &pair.next else {
            return Ok(vec![now]);
        };
        let next = key.public();
        let listed = |key| entry.witness_keys.contains(&key);
        if !listed(next) {
            return Ok(vec![now, next]);
        }
        let witnessing = self.node.witnessing().cloned();
        if let Some(witnessing) = witnessing.filter(|witnessing| witnessing.key() != next) {
            if listed(now) && !self.reached("witness card", &next.to_string()) {
                return Ok(vec![now, next]);
            }
            let mut act = Act::new("keys.use", Actor::node());
            act.detail("witness_key", next);
            let act = self.node.audit().begin(act).map_err(CliError::failed)?;
            witnessing.use_key(SecretKey::from_seed(&key.seed()));
            act.finish(OK);
            tracing::info!("the new witness key is in use");
        }
        let heard = !listed(now) || self.reached("witness words", &next.to_string());
        Ok(if heard { vec![next] } else { vec![now, next] })
    }

    /// Renames the files of rotations whose old key has left the card.
    fn end_rotations(
        &mut self,
        keys: &NodeKeys,
        own: &OwnNode,
        entry: &CardNode,
    ) -> Result<(), CliError> {
        let paths = &self.config.keys;
        let feeds: Vec<_> = entry.feed_keys.iter().map(|held| held.key).collect();
        let mut ended: Vec<(&'static str, &Path)> = Vec::new();
        if keys.tls.next.is_some() && own.tls_keys == entry.tls_keys && own.tls_keys.len() == 1 {
            if let Some(certificate) = &paths.tls_certificate {
                ended.push(("TLS certificate", certificate));
            }
            ended.push(("TLS", &paths.tls_key));
        }
        if keys.feed.next.is_some() && own.feed_keys == feeds && feeds.len() == 1 {
            ended.push(("feed", &paths.feed));
        }
        let receipts = &entry.receipt_keys;
        if keys.receipt.next.is_some() && own.receipt_keys == *receipts && receipts.len() == 1 {
            ended.push(("receipt", &paths.receipt));
        }
        let witness = &entry.witness_keys;
        let witnessing = keys
            .witness
            .as_ref()
            .is_some_and(|pair| pair.next.is_some());
        if let Some(path) = (paths.witness.as_deref())
            .filter(|_| witnessing && own.witness_keys == *witness && witness.len() == 1)
        {
            ended.push(("witness", path));
        }
        for (name, path) in ended {
            let now = Instant::now();
            if let Some(said) = self.rests.said(name, "", now) {
                return Err(CliError::failed(said));
            }
            if let Err(error) = replace(&self.node, name, path) {
                self.rests.failed(name, "", error.in_a_line(), now);
                return Err(error);
            }
            self.rests.done(name);
        }
        // What is read from here on lies under other names.
        self.stamps = self.file_stamps();
        Ok(())
    }

    /// Signs a card with all that is at hand and publishes it; where that is not all,
    /// leaves a draft for `hashpact card sign`.
    fn publish(&mut self, card: &NodeCard, keys: &NodeKeys) -> Result<(), CliError> {
        let mut draft = card.to_envelope().map_err(CliError::failed)?;
        keys.sign(&mut draft)?;
        let online = self.node.sign_card(&mut draft);
        let wanted = format!("{:?}", card.nodes);
        let now = Instant::now();
        if let Some(said) = self.rests.said("card", &wanted, now) {
            return Err(CliError::failed(said));
        }
        // Somebody else's key is on it, such as a witness key.
        let lacks = self.rests.said("signatures", &wanted, now).is_some();
        let whole = online && card.nodes.len() == 1;
        if whole && !lacks {
            let mut act = Act::new("card.publish", Actor::node());
            act.count("version", card.version);
            let act = self.node.audit().begin(act).map_err(CliError::failed)?;
            let published = self.node.publish_card(&draft);
            act.finish(published.as_ref().map_or_else(NodeError::code, |_| OK));
            match published {
                Ok(_) => {
                    self.rests.done("card");
                    self.rests.done("signatures");
                    tracing::info!(version = card.version, "published the next node card");
                    self.node.set_notice("card", None);
                    return Ok(());
                }
                Err(NodeError::Rejected(Rejection::BadSignature { .. })) => {
                    self.rests.failed("signatures", &wanted, String::new(), now);
                }
                Err(error) => {
                    self.rests.failed("card", &wanted, error.to_string(), now);
                    return Err(CliError::failed(error));
                }
            }
        }
        let file = self
            .folder
            .join(format!("node-card-v{}.draft", card.version));
        if self.changed("draft", wanted) || !file.exists() {
            let envelope = draft.finish().map_err(CliError::failed)?;
            write_over(&file, envelope.as_bytes())?;
            tracing::warn!(file = %file.display(), "the next node card waits for signatures");
        }
        let notice = format!(
            "node card version {} waits for signatures: hashpact card sign {} where the keys are, \
             then hashpact card publish",
            card.version,
            file.display()
        );
        self.node.set_notice("card", Some(notice));
        Ok(())
    }

    /// Whether something has been so, with this value, for a while.
    fn lasted(&mut self, what: &'static str, value: &str, long: Duration) -> bool {
        self.changed(what, value.to_owned());
        let began = self.since.get(what).map(|(_, began)| began.elapsed());
        began.is_some_and(|passed| passed >= long)
    }

    /// Notes a value; whether it is another than before.
    fn changed(&mut self, what: &'static str, value: String) -> bool {
        let same = self.since.get(what).is_some_and(|(held, _)| *held == value);
        if !same {
            self.since.insert(what, (value, Instant::now()));
        }
        !same
    }

    /// Whether every peer that can be reached had time to hear of something since it
    /// was so; or a day has passed.
    fn reached(&mut self, what: &'static str, value: &str) -> bool {
        if !self.lasted(what, value, TO_REACH) {
            return false;
        }
        let since = self.since.get(what).map(|(_, began)| began.elapsed());
        let passed = since.unwrap_or_default().saturating_sub(TO_REACH);
        let passed = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
        let said = UnixMillis(self.node.clock().now().0.saturating_sub(passed));
        let peers = self.node.exchange().map(|view| view.peers());
        let peers = peers.unwrap_or_default();
        let away: Vec<String> = peers
            .iter()
            .filter(|peer| peer.may_have_missed(said))
            .map(|peer| format!("{}/{}", peer.slug, peer.node))
            .collect();
        if away.is_empty() {
            self.node.set_notice("rotation", None);
            return true;
        }
        let away = away.join(", ");
        let too_long = self.lasted(what, value, AWAY_MAX);
        if too_long {
            tracing::warn!(away, what, "a rotation goes on without peers that are away");
        }
        let notice = format!("a key rotation waits to hear from {away}, at most a day");
        self.node
            .set_notice("rotation", (!too_long).then_some(notice));
        too_long
    }

    /// Says in the log what nears its end: at each threshold, and daily.
    fn alarm(&mut self) {
        let now = self.node.clock().now();
        let state = self.node.membership().state();
        let roster = state.chain.as_ref().map(|chain| chain.roster().expires);
        let card = self.node.own_card().map(|card| card.card().expires);
        let ends = [
            ("the roster", roster),
            ("this member's node card", card),
            ("the TLS certificate", self.credentials.not_after()),
        ];
        for (what, end) in ends {
            if let Some(end) = end {
                self.say(what, end, now);
            }
        }
    }

    fn say(&mut self, what: &'static str, end: UnixMillis, now: UnixMillis) {
        let stage = Stage::of(end, now);
        let said = self.alarms.get(what);
        let quiet = said.is_some_and(|(s, at)| *s == stage && at.elapsed() < SAY_AGAIN);
        if quiet || (said.is_none() && stage == Stage::Far) {
            return;
        }
        self.alarms.insert(what, (stage, Instant::now()));
        match expiry::notice(what, end, now) {
            Some(notice) if stage >= Stage::Week => tracing::error!("{notice}"),
            Some(notice) => tracing::warn!("{notice}"),
            None => {}
        }
    }
}

/// Puts a rotated key's next file in the place of the one in use.
///
/// Crash before: the next look ends it. Crash within: the next start.
fn replace(node: &Node, name: &'static str, path: &Path) -> Result<(), CliError> {
    let failed = |error: std::io::Error| {
        CliError::failed(format!("{}: {error}", path.display())).next(
            "let the node's user rename files in that folder, then the rotation goes on by itself",
        )
    };
    // Where it cannot be done nothing begins, and nothing is recorded.
    files::may_rename_in(path).map_err(failed)?;
    let mut act = Act::new("keys.replace", Actor::node());
    act.detail("key", name);
    let act = node.audit().begin(act).map_err(CliError::failed)?;
    let promoted = files::promote(path);
    act.finish(if promoted.is_ok() { OK } else { "failed" });
    promoted.map_err(failed)?;
    tracing::info!(key = name, file = %path.display(), "the key was replaced");
    Ok(())
}

fn stamp(path: &Path) -> Option<(SystemTime, u64, u64)> {
    let found = std::fs::metadata(path).ok()?;
    Some((found.modified().ok()?, found.len(), found.ino()))
}

fn digest(credentials: &Credentials) -> Result<Digest, CliError> {
    credentials.key_digest().map_err(CliError::failed)
}

/// Writes a draft, over an older one.
pub(in crate::cli) fn write_over(path: &Path, bytes: &[u8]) -> Result<(), CliError> {
    let at = |error: std::io::Error| CliError::failed(format!("{}: {error}", path.display()));
    let beside = next(path);
    std::fs::write(&beside, bytes).map_err(at)?;
    std::fs::rename(&beside, path).map_err(at)
}
