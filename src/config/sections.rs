//! The keys of each section: defaults, bounds, and what must fit together.
//!
//! `deploy/hashpact.full.toml` explains every one of them; a test compares.

use std::net::SocketAddr;

use hashpact_core::id::{CoalitionName, Digest, Slug};
use hashpact_core::limits;
use hashpact_net::exchange::PUBLISHER_MAX_BYTES;
use hashpact_net::settings::Settings;
use hashpact_store::PUBLISHER_FRAMES_MAX;

use super::api::api;
use super::reader::Section;
use super::{
    Audit, Bootstrap, Coalition, Config, Endpoint, Federation, FederationLimits, Files, Keys, Log,
    LogFormat, MatchJournal, Member, Node, PolicyFile, Publish, Pull, Receipts, RemovedMembers,
    Shutdown, Store, files, hygiene,
};

const ENDPOINT_FIX: &str = "write it as \"host:port\", such as \"node1.example.org:7443\"";
const PROXY_FIX: &str = "write it as \"host:port\", such as \"proxy.example.org:3128\"";
pub(super) const ADDRESS_FIX: &str =
    "write \"address:port\", such as \"127.0.0.1:9464\", or \"off\"";

/// Reads every section, so that every problem is noted; `None` if one stands in the way.
pub(super) fn read(root: Section<'_, '_>, files: Files) -> Option<Config> {
    let node = node(root.section("node"));
    let member = member(root.section("member"));
    let federation = federation(root.section("federation"));
    let loopback = federation
        .as_ref()
        .is_some_and(|section| section.allow_loopback_endpoints);
    let coalition = coalition(root.section("coalition"), loopback, files);
    let keys = keys(root.section("keys"), files);
    let api = api(root.section("api"), files);
    let store = store(root.section("store"));
    let pull = pull(root.section("pull"));
    let publish = publish(root.section("publish"));
    let log = log(root.section("log"));
    let quarantine = hygiene::quarantine(root.section("quarantine"), files);
    let hygiene = hygiene::read(root.section("hygiene"));
    let policy = policy(root.section("policy"));
    let audit = audit(root.section("audit"));
    let receipts = receipts(root.section("receipts"));
    let match_journal = match_journal(root.section("match_journal"));
    let retention = super::retention::read(root.section("retention"));
    let shutdown = shutdown(root.section("shutdown"));
    root.finish();
    Some(Config {
        node: node?,
        member: member?,
        coalition: coalition?,
        keys: keys?,
        federation: federation?,
        api: api?,
        store,
        pull,
        publish,
        log: log?,
        quarantine: quarantine?,
        hygiene: hygiene?,
        policy: policy?,
        audit,
        receipts,
        match_journal,
        retention,
        shutdown,
    })
}

fn node(section: Section<'_, '_>) -> Option<Node> {
    let name = section.parsed_or(
        "name",
        Slug::parse("main").ok()?,
        Slug::parse,
        "name the node as on the node card",
    );
    let data_dir = section.path_or("data_dir", "data");
    let sign_state_dir = section.path_or("sign_state_dir", "sign-state");
    if let (Some(data), Some(state)) = (&data_dir, &sign_state_dir)
        && (state.starts_with(data) || data.starts_with(state))
    {
        section.problem(
            "sign_state_dir",
            "the sign-state file must not lie with the store: a backup would restore both",
            "give it a folder of its own, beside data_dir",
        );
    }
    section.finish();
    Some(Node {
        name: name?,
        data_dir: data_dir?,
        sign_state_dir: sign_state_dir?,
    })
}

fn member(section: Section<'_, '_>) -> Option<Member> {
    let slug = section.required("slug", Slug::parse, "give the member's slug in the roster");
    section.finish();
    Some(Member { slug: slug? })
}

fn coalition(section: Section<'_, '_>, loopback: bool, files: Files) -> Option<Coalition> {
    let name = section.required(
        "name",
        CoalitionName::parse,
        "give the coalition's name as the administrators gave it",
    );
    let genesis = section.required(
        "genesis",
        Digest::from_hex,
        "give the genesis digest as the administrators read it out",
    );
    let roster_file = section.path("roster_file");
    if let (Files::Check, Some(path)) = (files, &roster_file) {
        note_file(&section, "roster_file", files::check_public(path));
    }
    let removed_members = section.parsed_or(
        "removed_members",
        RemovedMembers::Count,
        RemovedMembers::parse,
        "write \"count\", \"review\" or \"ignore\"",
    );
    let mut bootstrap = Vec::new();
    for peer in section.sections("bootstrap") {
        let member = peer.parsed("member", Slug::parse, "give the slug of the member meant");
        let endpoint = peer.required("endpoint", |text| dialled(text, loopback), ENDPOINT_FIX);
        peer.finish();
        bootstrap.extend(endpoint.map(|endpoint| Bootstrap { member, endpoint }));
    }
    section.finish();
    Some(Coalition {
        name: name?,
        genesis: genesis?,
        roster_file,
        removed_members: removed_members?,
        bootstrap,
    })
}

fn keys(section: Section<'_, '_>, files: Files) -> Option<Keys> {
    let identity = section.path("identity");
    let feed = section.path_or("feed", "keys/feed.key");
    let receipt = section.path_or("receipt", "keys/receipt.key");
    let witness = section.path("witness");
    let tls_key = section.path_or("tls_key", "keys/tls.key");
    let tls_certificate = section.path("tls_certificate");
    if files == Files::Check {
        let secrets = [
            ("identity", &identity),
            ("feed", &feed),
            ("receipt", &receipt),
            ("witness", &witness),
            ("tls_key", &tls_key),
        ];
        for (name, path) in secrets {
            if let Some(path) = path {
                note_file(&section, name, files::check_secret(path, files::KEY_FIX));
            }
        }
        if let Some(path) = &tls_certificate {
            note_file(&section, "tls_certificate", files::check_public(path));
        }
    }
    section.finish();
    Some(Keys {
        identity,
        feed: feed?,
        receipt: receipt?,
        witness,
        tls_key: tls_key?,
        tls_certificate,
    })
}

fn federation(section: Section<'_, '_>) -> Option<Federation> {
    let listen = section.parsed_or(
        "listen",
        Some(SocketAddr::from(([0, 0, 0, 0], 7443))),
        address,
        ADDRESS_FIX,
    );
    // A proxy on this machine itself is as good as any other.
    let proxy = section.parsed("proxy", Endpoint::parse, PROXY_FIX);
    let loopback = section.flag("allow_loopback_endpoints", false);
    let advertise = section.list("advertise", |text| dialled(text, loopback), ENDPOINT_FIX);
    if matches!(listen, Some(None)) && !advertise.is_empty() {
        section.problem(
            "advertise",
            "the node does not listen, so nobody can reach these endpoints",
            "remove them, or set federation.listen",
        );
    }
    let outbound_only = section.flag("outbound_only", advertise.is_empty());
    if matches!(listen, Some(Some(_))) && outbound_only && !advertise.is_empty() {
        section.problem(
            "outbound_only",
            "the node says on its card where it can be dialled, and that it cannot be",
            "remove federation.advertise, or federation.outbound_only",
        );
    }
    let limits = federation_limits(section.section("limits"));
    section.finish();
    Some(Federation {
        listen: listen?,
        outbound_only,
        proxy,
        advertise,
        allow_loopback_endpoints: loopback,
        limits,
    })
}

fn federation_limits(section: Section<'_, '_>) -> FederationLimits {
    let defaults = Settings::default();
    let limits = FederationLimits {
        connections_per_member: section.whole(
            "connections_per_member",
            defaults.connections_per_member as u64,
            1..=64,
        ),
        calls_per_second: section.whole(
            "calls_per_second",
            defaults.calls_per_second.into(),
            1..=100_000,
        ),
        calls_burst: section.whole("calls_burst", defaults.calls_burst.into(), 1..=100_000),
        connection_age_s: section.whole(
            "connection_age_s",
            defaults.connection_age.as_secs(),
            60..=86_400,
        ),
        connection_age_grace_s: section.whole(
            "connection_age_grace_s",
            defaults.connection_age_grace.as_secs(),
            1..=3_600,
        ),
        handshakes_at_once: section.whole(
            "handshakes_at_once",
            defaults.handshakes_max as u64,
            1..=1_024,
        ),
        handshakes_per_address: section.whole(
            "handshakes_per_address",
            defaults.handshakes_per_address_max as u64,
            1..=1_024,
        ),
        handshake_timeout_s: section.whole(
            "handshake_timeout_s",
            defaults.handshake_timeout.as_secs(),
            1..=60,
        ),
        progress_timeout_s: section.whole(
            "progress_timeout_s",
            defaults.progress_timeout.as_secs(),
            5..=600,
        ),
        unary_deadline_s: section.whole(
            "unary_deadline_s",
            defaults.unary_deadline.as_secs(),
            1..=120,
        ),
        feed_growth_per_hour: section.whole(
            "feed_growth_per_hour",
            limits::FEED_GROWTH_PER_HOUR,
            1_000..=1_000_000_000,
        ),
        publisher_max_mib: section.whole(
            "publisher_max_mib",
            PUBLISHER_MAX_BYTES >> 20,
            1..=1 << 40,
        ),
        publisher_max_frames: section.whole(
            "publisher_max_frames",
            PUBLISHER_FRAMES_MAX,
            0..=1 << 40,
        ),
    };
    section.finish();
    limits
}

fn store(section: Section<'_, '_>) -> Store {
    let store = Store {
        block_cache_mib: section.whole("block_cache_mib", 64, 8..=1_048_576),
        background_threads: section.whole("background_threads", 2, 1..=64),
        sync_every_mib: section.whole("sync_every_mib", 32, 1..=1_024),
        free_min_bytes: section.whole("free_min_bytes", 1 << 30, 0..=1 << 50),
    };
    section.finish();
    store
}

fn pull(section: Section<'_, '_>) -> Pull {
    let pull = Pull {
        feeds_at_once: section.whole("feeds_at_once", 4, 1..=64),
        chunks_at_once: section.whole("chunks_at_once", 4, 1..=16),
        poll_interval_s: section.whole("poll_interval_s", 60, 1..=3_600),
        retry_first_ms: section.whole("retry_first_ms", 500, 10..=60_000),
        retry_longest_s: section.whole("retry_longest_s", 60, 1..=3_600),
    };
    section.finish();
    pull
}

fn publish(section: Section<'_, '_>) -> Publish {
    let publish = Publish {
        confirm_wait_s: section.whole("confirm_wait_s", 60, 1..=3_600),
    };
    section.finish();
    publish
}

fn log(section: Section<'_, '_>) -> Option<Log> {
    let format = section.parsed_or(
        "format",
        LogFormat::Text,
        |text| match text {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err("there is no such format"),
        },
        "write \"text\" or \"json\"",
    );
    let level = section.parsed_or(
        "level",
        "info".to_owned(),
        |text| {
            // A word alone would be taken for a module, of which everything is logged.
            let words = text.split(',').map(str::trim);
            let mut alone = words.filter(|word| !word.contains(['=', '[']));
            if alone.any(|word| word.parse::<tracing::level_filters::LevelFilter>().is_err()) {
                return Err("this is no level");
            }
            tracing_subscriber::EnvFilter::try_new(text)
                .map(|_| text.to_owned())
                .map_err(|_| "this is no level")
        },
        "write error, warn, info, debug or trace, or directives such as \"info,hashpact_net=debug\"",
    );
    section.finish();
    Some(Log {
        format: format?,
        level: level?,
    })
}

fn policy(section: Section<'_, '_>) -> Option<PolicyFile> {
    // It need not be there, and is read by itself, whenever it changes.
    let file = section.path_or("file", "policy.toml");
    section.finish();
    Some(PolicyFile { file: file? })
}

fn audit(section: Section<'_, '_>) -> Audit {
    let audit = Audit {
        segment_leaves: section.whole("segment_leaves", 16_384, 16..=1_000_000),
        segment_days: section.whole("segment_days", 30, 1..=400),
        retain_days: section.whole("retain_days", 730, 0..=36_500),
        segments_max: section.whole("segments_max", 1_024, 2..=1_000_000),
    };
    section.finish();
    audit
}

fn receipts(section: Section<'_, '_>) -> Receipts {
    let receipts = Receipts {
        overdue_after_s: section.whole("overdue_after_s", 600, 1..=2_592_000),
    };
    section.finish();
    receipts
}

fn match_journal(section: Section<'_, '_>) -> MatchJournal {
    let journal = MatchJournal {
        max_entries: section.whole("max_entries", 0, 0..=10_000_000),
        keep_days: section.whole("keep_days", 90, 1..=3_650),
    };
    section.finish();
    journal
}

fn shutdown(section: Section<'_, '_>) -> Shutdown {
    let grace_s = section.whole("grace_s", 20, 1..=600);
    section.finish();
    Shutdown { grace_s }
}

pub(super) fn address(text: &str) -> Result<Option<SocketAddr>, &'static str> {
    if text == "off" {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| "this is no address")
}

fn dialled(text: &str, loopback: bool) -> Result<Endpoint, String> {
    let endpoint = Endpoint::parse(text)?;
    if endpoint.is_loopback() && !loopback {
        return Err(format!(
            "{endpoint} is this machine itself, and federation.allow_loopback_endpoints is false"
        ));
    }
    Ok(endpoint)
}

pub(super) fn note_file(
    section: &Section<'_, '_>,
    name: &str,
    checked: Result<(), (String, String)>,
) {
    if let Err((what, fix)) = checked {
        section.problem(name, what, fix);
    }
}
