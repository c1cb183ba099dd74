//! The configuration as operators meet it: the shipped samples, and bad files.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use hashpact_net::settings::Settings;

use super::*;

const MINIMAL: &str = include_str!("../../deploy/hashpact.minimal.toml");
const FULL: &str = include_str!("../../deploy/hashpact.full.toml");

fn parse(text: &str) -> Result<Config, Vec<ConfigProblem>> {
    Config::parse(text, Path::new("/etc/hashpact"), Files::Ignore)
}

fn problems(text: &str) -> Vec<String> {
    let problems = parse(text).unwrap_err();
    problems.iter().map(ToString::to_string).collect()
}

/// Every key there is, as a path without list positions.
fn known_keys() -> BTreeSet<String> {
    let reading = Reading::new(FULL, Path::new("/"));
    let table = DeTable::parse(FULL).unwrap();
    sections::read(Section::root(&reading, table.get_ref()), Files::Ignore).unwrap();
    let keys = reading.known_keys();
    keys.iter().map(|key| key.replace("[0]", "")).collect()
}

/// Every key that a TOML text sets, as a path, with its value.
fn set_keys(value: &toml::Value, path: &str, into: &mut Vec<(String, toml::Value)>) {
    let items = value
        .as_array()
        .filter(|items| items.iter().any(toml::Value::is_table));
    if !path.is_empty() && !value.is_table() {
        into.push((path.to_owned(), value.clone()));
    }
    for item in items.into_iter().flatten() {
        set_keys(item, path, into);
    }
    for (key, value) in value.as_table().into_iter().flatten() {
        let path = format!("{path}.{key}");
        set_keys(value, path.trim_start_matches('.'), into);
    }
}

fn keys_of(text: &str) -> Vec<(String, toml::Value)> {
    let mut keys = Vec::new();
    set_keys(&toml::from_str(text).unwrap(), "", &mut keys);
    keys
}

#[test]
fn the_minimal_sample_loads() {
    let config = parse(MINIMAL).unwrap();
    assert_eq!(config.member.slug.as_str(), "northstar");
    assert_eq!(config.node.data_dir, Path::new("/etc/hashpact/data"));
}

#[test]
fn the_full_sample_sets_every_key_there_is() {
    parse(FULL).unwrap();
    let set: BTreeSet<String> = keys_of(FULL).into_iter().map(|(key, _)| key).collect();
    assert_eq!(set, known_keys());
}

#[test]
fn the_full_sample_explains_every_key() {
    let lines: Vec<&str> = FULL.lines().collect();
    for (index, line) in lines.iter().enumerate() {
        let sets_a_key = line.contains(" = ") && !line.starts_with('#');
        if sets_a_key {
            let above = index.checked_sub(1).and_then(|above| lines.get(above));
            assert!(above.is_some_and(|line| line.starts_with("# ")), "{line}");
        }
    }
}

/// Wherever a key has a default other than "none", the full sample shows it.
#[test]
fn the_full_sample_shows_the_defaults() {
    let defaults = toml::to_string(&parse(MINIMAL).unwrap()).unwrap();
    let defaults = keys_of(&defaults.replace("/etc/hashpact/", ""));
    let minimal: BTreeSet<String> = keys_of(MINIMAL).into_iter().map(|(key, _)| key).collect();
    let full = keys_of(FULL);
    for (key, default) in defaults {
        // The default of one key is as another one is: nothing is advertised.
        let follows = key == "federation.outbound_only";
        if follows || default.as_array().is_some_and(Vec::is_empty) {
            continue;
        }
        let shown = full.iter().find(|(shown, _)| *shown == key);
        let differs = shown.is_some_and(|(_, value)| *value != default);
        assert!(
            !differs || minimal.contains(&key),
            "{key} is {default} by default"
        );
    }
}

#[test]
fn every_problem_is_reported_at_once_with_key_and_line() {
    let text = r#"
nodes = 1
[node]
data_dri = "data"
name = "Main Node"
[coalition]
name = "csa-coalition.example"
genesis = "abc"
bootstrap = [{ member = "tidepool", endpoint = "tidepool.example" }, 7]
[federation]
allow_loopback_endpoints = "yes"
[federation.limits]
connections_per_member = 0
[log]
format = "xml"
level = "info"
[shutdown]
grace_s = 2.5
"#;
    let found = problems(text);
    let expected = [
        ("line 2", "nodes"),
        ("line 4", "node.data_dri"),
        ("line 5", "node.name"),
        ("line 8", "coalition.genesis"),
        ("line 9", "coalition.bootstrap[0].endpoint"),
        ("line 9", "coalition.bootstrap"),
        ("line 11", "federation.allow_loopback_endpoints"),
        ("line 13", "federation.limits.connections_per_member"),
        ("line 15", "log.format"),
        ("line 18", "shutdown.grace_s"),
    ];
    for (line, key) in expected {
        let start = format!("{line}: {key}: ");
        assert!(
            found.iter().any(|p| p.starts_with(&start)),
            "{start} in {found:#?}"
        );
    }
    assert!(
        found
            .iter()
            .any(|p| p.starts_with("member.slug: this key is missing"))
    );
    assert!(
        found.iter().any(|p| p.contains("is data_dir meant?")),
        "{found:#?}"
    );
    assert_eq!(found.len(), expected.len() + 1, "{found:#?}");
}

#[test]
fn a_word_that_is_no_level_is_refused_though_it_could_name_a_module() {
    let with = |level: &str| {
        let text = FULL.replace("level = \"info\"", &format!("level = \"{level}\""));
        parse(&text).map_or_else(|_| problems(&text), |_| Vec::new())
    };
    assert!(with("loud").iter().any(|p| p.contains("log.level")));
    assert!(with("info,loud").iter().any(|p| p.contains("log.level")));
    for level in ["off", "WARN", "debug", "info,hashpact_net=debug"] {
        assert_eq!(with(level), Vec::<String>::new(), "{level}");
    }
}

#[test]
fn broken_toml_is_reported_with_its_line() {
    let found = problems("[node]\nname = \"main\n[member]\nslug = \n");
    assert!(
        found.iter().any(|p| p.starts_with("line 2: ")),
        "{found:#?}"
    );
    assert!(
        found.iter().any(|p| p.starts_with("line 4: ")),
        "{found:#?}"
    );
}

#[test]
fn the_sign_state_may_not_lie_in_the_store() {
    let text = format!("[node]\ndata_dir = \"d\"\nsign_state_dir = \"d/state\"\n{MINIMAL}");
    let found = problems(&text);
    assert!(
        found.iter().any(|p| p.contains("node.sign_state_dir")),
        "{found:#?}"
    );
}

#[test]
fn an_endpoint_on_this_machine_needs_to_be_allowed() {
    for host in [
        "127.0.0.1",
        "localhost",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "0.0.0.0",
        "a.localhost",
    ] {
        let text = format!("{MINIMAL}\n[federation]\nadvertise = [\"{host}:7443\"]\n");
        let found = problems(&text);
        assert!(
            found.iter().any(|p| p.contains("federation.advertise")),
            "{host}: {found:#?}"
        );
        let text = text.replace(
            "[federation]\n",
            "[federation]\nallow_loopback_endpoints = true\n",
        );
        assert!(parse(&text).is_ok(), "{host}");
    }
}

#[test]
fn a_node_that_says_nowhere_that_it_can_be_dialled_only_dials() {
    let federation = |keys: &str| {
        let text = format!("{MINIMAL}\n[federation]\n{keys}");
        parse(&text).unwrap().federation
    };
    assert!(federation("listen = \"off\"\n").outbound_only);
    assert!(federation("").outbound_only);
    let reachable = "advertise = [\"node1.example.org:7443\"]\n";
    assert!(!federation(reachable).outbound_only);
    let both = format!("{MINIMAL}\n[federation]\noutbound_only = true\n{reachable}");
    let found = problems(&both);
    assert!(found[0].contains("federation.outbound_only"), "{found:#?}");
    let proxied = federation("proxy = \"Proxy.example.org:3128\"\n");
    let proxy = proxied.proxy.map(|proxy| proxy.to_string());
    assert_eq!(proxy.as_deref(), Some("proxy.example.org:3128"));
}

#[test]
fn limits_of_the_configuration_are_those_that_connections_keep() {
    let limits = parse(MINIMAL).unwrap().federation.limits;
    assert_eq!(limits.settings(), Settings::default());
    let text = format!("{MINIMAL}\n[federation.limits]\nhandshake_timeout_s = 7\n");
    let limits = parse(&text).unwrap().federation.limits;
    assert_eq!(limits.settings().handshake_timeout, Duration::from_secs(7));
}

#[test]
fn endpoints_read_back_as_written() {
    for good in [
        "node1.example.org:7443",
        "192.0.2.1:1",
        "[2001:db8::1]:7443",
        "db:65535",
    ] {
        assert_eq!(
            Endpoint::parse(good).map(|e| e.to_string()),
            Ok(good.to_owned())
        );
    }
    for bad in [
        "",
        "a",
        "a:",
        ":1",
        "a:0",
        "a:65536",
        "a b:1",
        "2001:db8::1:7443",
        "http://a:1",
        "-a:1",
        "[a]:1",
    ] {
        assert!(Endpoint::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_socket_path_that_no_system_takes_is_refused() {
    let text = format!("{MINIMAL}\n[api]\nsocket = \"/{}\"\n", "x".repeat(120));
    assert!(problems(&text).iter().any(|p| p.contains("api.socket")));
}

#[test]
fn unsafe_and_missing_secrets_are_reported_together_with_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys");
    std::fs::create_dir(&keys).unwrap();
    for (name, mode) in [("feed.key", 0o644), ("receipt.key", 0o600)] {
        std::fs::write(keys.join(name), "x").unwrap();
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(keys.join(name), mode).unwrap();
    }
    let path = folder.path().join("hashpact.toml");
    std::fs::write(&path, format!("{MINIMAL}\n[shutdown]\ngrace = 1\n")).unwrap();
    let error = Config::load(&path, Files::Check).unwrap_err();
    let keys: Vec<&str> = error.problems.iter().map(|p| p.key.as_str()).collect();
    assert_eq!(keys, ["shutdown.grace", "keys.feed", "keys.tls_key"]);
    assert!(error.to_string().contains("3 problems"), "{error}");
}

#[test]
fn a_missing_file_says_how_to_make_one() {
    let error = Config::load(Path::new("/nonexistent/hashpact.toml"), Files::Ignore).unwrap_err();
    assert!(error.to_string().contains("hashpact init"), "{error}");
}

#[test]
fn nobody_comes_in_over_a_network_unless_named_and_each_once() {
    let with = |more: &str| format!("{MINIMAL}\n{more}");
    let key = "11".repeat(32);
    let client = |name: &str, key: &str| {
        format!("[[api.clients]]\nname = {name:?}\nkey = {key:?}\nrole = \"read\"\n")
    };
    let closed = parse(MINIMAL).unwrap().api;
    assert_eq!((closed.grpc_listen, closed.json_listen), (None, None));
    let open = "[api]\ngrpc_listen = \"0.0.0.0:7000\"\n";
    let told = problems(&with(open));
    assert!(told[0].contains("nobody may come in"), "{told:?}");
    assert!(parse(&with(&format!("{open}{}", client("a", &key)))).is_ok());
    // On this machine JSON asks for no client, elsewhere it does.
    assert!(parse(&with("[api]\njson_listen = \"127.0.0.1:7001\"\n")).is_ok());
    let told = problems(&with("[api]\njson_listen = \"0.0.0.0:7001\"\n"));
    assert!(told[0].contains("api.json_listen"), "{told:?}");
    let twice = format!("{}{}", client("a", &key), client("b", &key));
    let told = problems(&with(&twice));
    assert!(told[0].contains("another client has this key"), "{told:?}");
    let twice = format!("{}{}", client("a", &key), client("a", &"22".repeat(32)));
    assert!(problems(&with(&twice))[0].contains("named twice"));
    let root = client("a", &key).replace("\"read\"", "\"root\"");
    assert!(problems(&with(&root))[0].contains("no such role"));
}
