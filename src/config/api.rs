//! The keys of `[api]`: the doors of the member's own systems, and who may come in.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;

use hashpact_core::id::{Digest, Slug};
use hashpact_node::caller::Role;

use super::reader::Section;
use super::sections::{ADDRESS_FIX, address, note_file};
use super::{Api, ApiClient, Files, files};

/// The longest path of a Unix socket: `sun_path` of 108 bytes with its final NUL.
const SOCKET_PATH_MAX_BYTES: usize = 107;

const API_KEY_FIX: &str = "make the key: openssl genpkey -algorithm ec -pkeyopt ec_paramgen_curve:P-256 -out FILE; \
                           chmod 600 FILE; or correct the path";

const KEY_FIX: &str = "give the 64 hexadecimal digits that hashpact config client-key FILE prints";

pub(super) fn api(section: Section<'_, '_>, files: Files) -> Option<Api> {
    let socket = section.path_or("socket", "hashpact.sock");
    let path = socket.as_deref().map(Path::as_os_str);
    let length = path.map_or(0, std::ffi::OsStr::len);
    if length > SOCKET_PATH_MAX_BYTES {
        section.problem(
            "socket",
            format!("the path has {length} bytes, a Unix socket allows {SOCKET_PATH_MAX_BYTES}"),
            "give a shorter path, such as /run/hashpact/hashpact.sock",
        );
    }
    let here = Some(SocketAddr::from(([127, 0, 0, 1], 9464)));
    let http_listen = section.parsed_or("http_listen", here, address, ADDRESS_FIX);
    let grpc_listen = section.parsed_or("grpc_listen", None, address, ADDRESS_FIX);
    let json_listen = section.parsed_or("json_listen", None, address, ADDRESS_FIX);
    let tls_key = section.path_or("tls_key", "keys/api-tls.key");
    let tls_certificate = section.path("tls_certificate");
    let (named, clients) = clients(&section);
    let api = Api {
        socket: socket?,
        http_listen: http_listen?,
        grpc_listen: grpc_listen?,
        json_listen: json_listen?,
        tls_key: tls_key?,
        tls_certificate,
        clients,
    };
    if api.needs_clients() {
        // One that is wrong is told by itself.
        if named == 0 {
            let key = if api.grpc_listen.is_some() {
                "grpc_listen"
            } else {
                "json_listen"
            };
            section.problem(
                key,
                "nobody may come in: there are no [[api.clients]]",
                "name the clients and their keys, or write \"off\"",
            );
        }
        if files == Files::Check {
            note_file(
                &section,
                "tls_key",
                files::check_secret(&api.tls_key, API_KEY_FIX),
            );
            if let Some(path) = &api.tls_certificate {
                note_file(&section, "tls_certificate", files::check_public(path));
            }
        }
    }
    section.finish();
    Some(api)
}

/// How many clients are named, and those of which all is right.
fn clients(section: &Section<'_, '_>) -> (usize, Vec<ApiClient>) {
    let mut clients: Vec<ApiClient> = Vec::new();
    let (mut names, mut keys) = (BTreeSet::new(), BTreeSet::new());
    let sections = section.sections("clients");
    let named = sections.len();
    for client in sections {
        let name = client.required("name", Slug::parse, "give it a name for the logs");
        let key = client.required("key", Digest::from_hex, KEY_FIX);
        let role = client.required(
            "role",
            role,
            "write \"read\", \"publish\" or \"administer\"",
        );
        if let (Some(name), Some(key), Some(role)) = (name, key, role) {
            if !names.insert(name.clone()) {
                client.problem("name", format!("{name} is named twice"), "name each once");
            }
            if !keys.insert(key) {
                let what = "another client has this key: nobody could tell them apart";
                client.problem("key", what, "give each client a key of its own");
            }
            clients.push(ApiClient { name, key, role });
        }
        client.finish();
    }
    (named, clients)
}

fn role(text: &str) -> Result<Role, &'static str> {
    Role::from_name(text).ok_or("there is no such role")
}
