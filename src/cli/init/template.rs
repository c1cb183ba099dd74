//! The configuration file that `init` writes: the full sample with this node's
//! values, so that every key stands in it with its explanation.

use std::fmt::Display;

use super::{FEED_KEY, IDENTITY_KEY, InitArgs, ListenArg, RECEIPT_KEY, TLS_KEY, WITNESS_KEY};
use crate::cli::values::BootstrapPeer;

/// Every key there is, explained.
const SAMPLE: &str = include_str!("../../../deploy/hashpact.full.toml");
/// The table that may stand more than once.
const BOOTSTRAP: &str = "[[coalition.bootstrap]]";
/// The table of those who may come in over a network: nobody yet.
const CLIENTS: &str = "[[api.clients]]";
const HEAD: &str = "\
# The configuration of this node. Keys that have a default may be left out.
#";

/// What becomes of a key of the sample.
enum Value {
    /// It stands with this value.
    Is(String),
    /// It stands as a comment: this node does without.
    Absent,
}

/// The text of the configuration.
pub(super) fn config(args: &InitArgs) -> String {
    let mut section = String::new();
    let blocks = SAMPLE.trim_end().split("\n\n").enumerate();
    let blocks = blocks.map(|(index, block)| match index {
        0 => head(block),
        _ if block.contains(BOOTSTRAP) => bootstrap(block, &args.bootstrap),
        _ if block.contains(CLIENTS) => commented(block),
        _ => settings(block, &mut section, args),
    });
    let mut text = blocks.collect::<Vec<_>>().join("\n\n");
    text.push('\n');
    text
}

/// The sample's first line speaks of the sample.
fn head(block: &str) -> String {
    let rest = block.split_once("\n#\n").map_or("", |(_, rest)| rest);
    format!("{HEAD}\n{rest}")
}

fn settings(block: &str, section: &mut String, args: &InitArgs) -> String {
    let lines = block.lines().map(|line| {
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            name.clone_into(section);
        }
        let key = line.split_once(" = ").map(|(key, _)| key);
        let key = key.filter(|key| !key.starts_with('#'));
        match key.and_then(|key| Some((key, value(section, key, args)?))) {
            Some((key, Value::Is(value))) => format!("{key} = {value}"),
            Some((_, Value::Absent)) => format!("# {line}"),
            None => line.to_owned(),
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// What this node has where the sample has something else; `None` for what stays.
fn value(section: &str, key: &str, args: &InitArgs) -> Option<Value> {
    let value = match (section, key) {
        ("node", "name") => quoted(&args.node),
        ("member", "slug") => quoted(&args.member),
        ("coalition", "name") => quoted(&args.coalition),
        ("coalition", "genesis") => quoted(args.genesis),
        ("coalition", "roster_file") => match &args.roster_file {
            Some(path) => quoted(path.display()),
            None => return Some(Value::Absent),
        },
        ("keys", "identity") => match &args.identity_key {
            Some(path) => {
                let whole = std::path::absolute(path).unwrap_or_else(|_| path.clone());
                quoted(whole.display())
            }
            None => quoted(IDENTITY_KEY),
        },
        ("keys", "feed") => quoted(FEED_KEY),
        ("keys", "receipt") => quoted(RECEIPT_KEY),
        ("keys", "witness") if args.is_witness() => quoted(WITNESS_KEY),
        ("keys", "tls_key") => quoted(TLS_KEY),
        ("keys", "witness") | ("keys" | "api", "tls_certificate") => return Some(Value::Absent),
        ("federation", "listen") => address(args.listen),
        ("federation", "outbound_only") => args.advertise.is_empty().to_string(),
        ("federation", "proxy") => match &args.proxy {
            Some(proxy) => quoted(proxy),
            None => return Some(Value::Absent),
        },
        ("federation", "advertise") => {
            let endpoints: Vec<String> = args.advertise.iter().map(quoted).collect();
            format!("[{}]", endpoints.join(", "))
        }
        ("federation", "allow_loopback_endpoints") => args.allow_loopback_endpoints.to_string(),
        ("api", "socket") => quoted(args.api_socket.display()),
        ("api", "http_listen") => address(args.http_listen),
        _ => return None,
    };
    Some(Value::Is(value))
}

/// The sample's peer is replaced by those that were given; without any it stays, as
/// a comment.
fn bootstrap(block: &str, peers: &[BootstrapPeer]) -> String {
    let (comment, table) = block.split_once(BOOTSTRAP).unwrap_or((block, ""));
    let tables: Vec<String> = if peers.is_empty() {
        let lines = table.lines().map(|line| {
            let bare = line.is_empty() || line.starts_with('#');
            if bare {
                line.to_owned()
            } else {
                format!("# {line}")
            }
        });
        vec![format!(
            "# {BOOTSTRAP}{}",
            lines.collect::<Vec<_>>().join("\n")
        )]
    } else {
        peers.iter().map(|peer| filled(table, peer)).collect()
    };
    format!("{comment}{}", tables.join("\n\n"))
}

/// The sample's table stays as a comment.
fn commented(block: &str) -> String {
    let lines = block.lines().map(|line| {
        if line.starts_with('#') {
            line.to_owned()
        } else {
            format!("# {line}")
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn filled(table: &str, peer: &BootstrapPeer) -> String {
    let lines = table.lines().map(|line| match line.split_once(" = ") {
        Some(("member", _)) => match &peer.member {
            Some(member) => format!("member = {}", quoted(member)),
            None => format!("# {line}"),
        },
        Some(("endpoint", _)) => format!("endpoint = {}", quoted(&peer.endpoint)),
        _ => line.to_owned(),
    });
    format!("{BOOTSTRAP}{}", lines.collect::<Vec<_>>().join("\n"))
}

fn address(listen: ListenArg) -> String {
    match listen.0 {
        Some(address) => quoted(address),
        None => quoted("off"),
    }
}

fn quoted(value: impl Display) -> String {
    toml::Value::String(value.to_string()).to_string()
}
