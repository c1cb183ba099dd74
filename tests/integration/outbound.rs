//! Members that nobody can dial take part fully: behind a firewall that drops all
//! that comes in, and behind one that lets nothing out but to an HTTP proxy.
//!
//! Network namespaces on one bridge, so root, `ip` and `nft` are needed; without
//! them the test says so and is left out.

use std::process::{Child, Command, Stdio};

use crate::world::signals::entries;
use crate::world::{Place, World, until_true};

/// Ports within namespaces, which nobody else uses.
const PORT: u16 = 7443;
const PROXY_PORT: u16 = 3128;

/// Drops whatever begins outside.
const NOTHING_IN: &str = "\
table inet wall {
  chain in {
    type filter hook input priority 0; policy drop;
    iif lo accept
    ct state established,related accept
  }
}
";

/// Lets nothing out but to the proxy.
fn only_to(proxy: &str) -> String {
    format!(
        "table inet fence {{\n  chain out {{\n    \
         type filter hook output priority 0; policy drop;\n    \
         oif lo accept\n    ct state established,related accept\n    \
         ip daddr {proxy} tcp dport {PROXY_PORT} accept\n  }}\n}}\n"
    )
}

/// A proxy that knows CONNECT; says every target on standard output.
const PROXY: &str = r#"
import asyncio, sys
async def pump(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()
async def serve(reader, writer):
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    method, target, _ = head.split(" ", 2)
    assert method == "CONNECT", head
    host, port = target.rsplit(":", 1)
    try:
        there, out = await asyncio.open_connection(host, int(port))
    except OSError:
        writer.write(b"HTTP/1.1 502 Bad gateway\r\n\r\n")
        return writer.close()
    print(target, flush=True)
    writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
    await asyncio.gather(pump(reader, out), pump(there, writer))
async def main():
    server = await asyncio.start_server(serve, "0.0.0.0", int(sys.argv[1]))
    async with server:
        await server.serve_forever()
asyncio.run(main())
"#;

/// Answers "refused" or "silence" for a connection to an address.
const KNOCK: &str = "\
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), 1)
    print('open')
except TimeoutError:
    print('silence')
except ConnectionRefusedError:
    print('refused')
";

/// Namespaces on one bridge; gone when dropped.
struct Network {
    names: Vec<String>,
    /// The namespace of the bridge, and what runs there.
    hub: String,
    running: Vec<Child>,
}

impl Network {
    fn new() -> Self {
        let hub = format!("hp{}-hub", std::process::id());
        let network = Self {
            names: vec![hub.clone()],
            hub,
            running: Vec::new(),
        };
        ip(&["netns", "add", &network.hub]);
        ip(&["-n", &network.hub, "link", "set", "lo", "up"]);
        ip(&["-n", &network.hub, "link", "add", "br0", "type", "bridge"]);
        ip(&[
            "-n",
            &network.hub,
            "address",
            "add",
            "10.77.0.1/24",
            "dev",
            "br0",
        ]);
        ip(&["-n", &network.hub, "link", "set", "br0", "up"]);
        network
    }

    /// Adds a namespace with the address 10.77.0.`host`; its name.
    fn add(&mut self, host: u8) -> String {
        let name = format!("hp{}-{host}", std::process::id());
        let outer = format!("v{host}");
        let address = format!("10.77.0.{host}/24");
        ip(&["netns", "add", &name]);
        self.names.push(name.clone());
        let veth = ["link", "add", &outer, "netns", &self.hub, "type", "veth"];
        ip(&[&veth[..], &["peer", "name", "eth0", "netns", &name]].concat());
        ip(&[
            "-n", &self.hub, "link", "set", &outer, "master", "br0", "up",
        ]);
        ip(&["-n", &name, "link", "set", "lo", "up"]);
        ip(&["-n", &name, "address", "add", &address, "dev", "eth0"]);
        ip(&["-n", &name, "link", "set", "eth0", "up"]);
        name
    }

    /// Sets a firewall up.
    fn wall(name: &str, rules: &str) {
        let mut nft = Command::new("ip")
            .args(["netns", "exec", name, "nft", "-f", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut nft.stdin.take().unwrap(), rules.as_bytes()).unwrap();
        assert!(nft.wait().unwrap().success(), "nft refuses:\n{rules}");
    }

    /// Runs a Python program in a namespace.
    fn python(name: &str, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", name, "python3", "-c", program]);
        command.args(arguments);
        command
    }

    fn knock(from: &str, address: &str) -> String {
        let port = PORT.to_string();
        let output = Self::python(from, KNOCK, &[address, &port]).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for child in &mut self.running {
            let _ = child.kill();
            let _ = child.wait();
        }
        for name in &self.names {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

fn ip(arguments: &[&str]) {
    let status = Command::new("ip").args(arguments).status().unwrap();
    assert!(status.success(), "ip {}", arguments.join(" "));
}

/// Why the test cannot run here.
fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("not root".to_owned());
    }
    for program in ["ip", "nft", "python3"] {
        let found = Command::new(program)
            .arg(if program == "nft" { "-v" } else { "-V" })
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if !found.is_ok_and(|status| status.success()) {
            return Some(format!("no {program}"));
        }
    }
    let name = format!("hp{}-try", std::process::id());
    let tried = Command::new("ip").args(["netns", "add", &name]).output();
    if !tried.is_ok_and(|output| output.status.success()) {
        return Some("network namespaces are not allowed here".to_owned());
    }
    ip(&["netns", "del", &name]);
    None
}

fn listening(namespace: &str, host: u8) -> Place {
    Place {
        endpoint: Some(format!("10.77.0.{host}:{PORT}")),
        namespace: Some(namespace.to_owned()),
        more: Vec::new(),
    }
}

fn only_dialling(namespace: &str, more: &[&str]) -> Place {
    Place {
        endpoint: None,
        namespace: Some(namespace.to_owned()),
        more: more.iter().map(|part| (*part).to_owned()).collect(),
    }
}

#[test]
fn members_behind_firewalls_publish_and_take_back_like_all_others() {
    if let Some(why) = missing() {
        crate::skipped::skipped(&format!("members behind firewalls: {why}"));
        return;
    }
    let mut network = Network::new();
    let (north, tide) = (network.add(2), network.add(3));
    let (studio, booth) = (network.add(4), network.add(5));
    Network::wall(&studio, NOTHING_IN);
    Network::wall(&booth, NOTHING_IN);
    Network::wall(&booth, &only_to("10.77.0.1"));
    let proxy_port = PROXY_PORT.to_string();
    let said_file = tempfile::NamedTempFile::new().unwrap();
    let proxy = Network::python(&network.hub, PROXY, &[&proxy_port])
        .stdout(said_file.reopen().unwrap())
        .spawn()
        .unwrap();
    network.running.push(proxy);
    let through = format!("10.77.0.1:{PROXY_PORT}");
    let world = World::founded_at(&[
        ("northstar", listening(&north, 2)),
        ("tidepool", listening(&tide, 3)),
        ("studio", only_dialling(&studio, &[])),
        ("booth", only_dialling(&booth, &["--proxy", &through])),
    ]);
    for member in world.members() {
        member.import_roster(&world.roster_file());
    }
    world.start_all();
    // The firewall is real: where it is not, nobody listening is said at once.
    assert_eq!(Network::knock(&north, "10.77.0.1"), "refused\n");
    assert_eq!(Network::knock(&north, "10.77.0.4"), "silence\n");
    assert_eq!(Network::knock(&booth, "10.77.0.2"), "silence\n");
    for owner in ["studio", "booth"] {
        let owner = world.member(owner);
        owner.create_set("own", &["all:relay"]);
        let said = entries(owner.slug(), 0..200);
        owner.import("own", &said);
        for reader in world.members() {
            reader.wait_hits(&said, 200);
        }
        let reference = &said[9].reference;
        let line = ["retract", "--set", "own", "--reference", reference];
        owner.json(&[&line[..], &["--reason", "wrong", "--yes"]].concat());
        for reader in world.members() {
            reader.wait_hits(&said, 199);
        }
    }
    // What the others publish arrives behind the firewalls.
    let north = world.member("northstar");
    north.create_set("confirmed", &["all"]);
    let said = entries("north", 0..50);
    north.import("confirmed", &said);
    for reader in ["studio", "booth"] {
        world.member(reader).wait_hits(&said, 50);
    }
    let peers = north.json(&["peers"]);
    assert!(peers.to_string().contains("connected"), "{peers}");
    // Everything of the booth went through the proxy: two connections a peer.
    let targets = std::fs::read_to_string(said_file.path()).unwrap();
    for peer in ["10.77.0.2:7443", "10.77.0.3:7443"] {
        let count = targets.lines().filter(|line| *line == peer).count();
        assert!(count >= 2, "{peer}: {targets}");
    }
    // A node that starts anew comes back by itself.
    north.stop();
    north.start();
    let more = entries("more", 300..310);
    world.member("studio").import("own", &more);
    until_true("northstar to hear the studio again", || {
        north.hits(&more) == 10
    });
    for member in world.members() {
        member.stop();
        member.assert_sound();
    }
}
