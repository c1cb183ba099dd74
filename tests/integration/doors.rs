//! The doors of a member's own systems over TCP: closed unless named, pinned clients,
//! a role each.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::Arc;

use hashpact_api::wire;
use hashpact_api::wire::node_client::NodeClient;
use hashpact_core::id::UnixMillis;
use hashpact_net::Credentials;
use hashpact_net::tls::{PemPair, client_config_unpinned};
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tower::service_fn;

use crate::world::signals::entries;
use crate::world::{Member, World, free_port};

fn credentials(name: &str) -> Credentials {
    let pair = PemPair::generate(name, UnixMillis(1_790_000_000_000)).unwrap();
    Credentials::from_pem(pair.certificate.as_bytes(), pair.key.as_bytes()).unwrap()
}

/// Opens doors in a member's configuration for these clients.
fn open(member: &Member, listen: &[(&str, &str)], clients: &[(&str, &str, &Credentials)]) {
    let pair = PemPair::generate("api", UnixMillis(1_790_000_000_000)).unwrap();
    let key = member.folder().join("keys/api-tls.key");
    let mut file = fs::File::options();
    let file = file.create(true).write(true).truncate(true).mode(0o600);
    file.open(key)
        .unwrap()
        .write_all(pair.key.as_bytes())
        .unwrap();
    for (key, address) in listen {
        member.set(key, &format!("{address:?}"));
    }
    member.edit_config(|mut text| {
        for (name, role, credentials) in clients {
            let key = credentials.key_digest().unwrap();
            let table =
                format!("\n[[api.clients]]\nname = {name:?}\nkey = \"{key}\"\nrole = {role:?}\n");
            text.push_str(&table);
        }
        text
    });
}

async fn connect(address: String, credentials: Credentials) -> Result<NodeClient<Channel>, String> {
    let tls = Arc::new(client_config_unpinned(&credentials).unwrap());
    let channel = Endpoint::from_static("http://node.invalid")
        .connect_with_connector(service_fn(move |_| {
            let (address, tls) = (address.clone(), tls.clone());
            async move {
                let socket = tokio::net::TcpStream::connect(address).await?;
                let name = ServerName::try_from("node.invalid").unwrap();
                let stream = TlsConnector::from(tls).connect(name, socket).await?;
                Ok::<_, std::io::Error>(TokioIo::new(stream))
            }
        }))
        .await;
    channel
        .map(NodeClient::new)
        .map_err(|error| error.to_string())
}

fn code(status: &Status) -> String {
    let code = status.metadata().get(hashpact_api::CODE);
    code.map_or_else(String::new, |code| code.to_str().unwrap().to_owned())
}

fn watch(consumer: &str) -> wire::WatchChangesRequest {
    wire::WatchChangesRequest {
        consumer: consumer.to_owned(),
        snapshot: true,
        until_caught_up: true,
        ..wire::WatchChangesRequest::default()
    }
}

fn new_set(name: &str) -> wire::CreateSetRequest {
    wire::CreateSetRequest {
        set: name.to_owned(),
        title: "A set".to_owned(),
        ..wire::CreateSetRequest::default()
    }
}

#[test]
fn over_tcp_named_clients_do_what_their_role_allows_and_strangers_nothing() {
    let world = World::new(&["northstar"]);
    let member = world.member("northstar");
    let (reader, other, admin) = (
        credentials("reader"),
        credentials("other"),
        credentials("admin"),
    );
    let address = format!("127.0.0.1:{}", free_port());
    let clients = [
        ("reader", "read", &reader),
        ("other", "read", &other),
        ("desk", "administer", &admin),
    ];
    open(member, &[("grpc_listen", &address)], &clients);
    world.start_all();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let mut admin = connect(address.clone(), admin).await.unwrap();
        admin.create_set(new_set("confirmed")).await.unwrap();
        let mut reader = connect(address.clone(), reader).await.unwrap();
        let sets = reader.list_sets(wire::ListSetsRequest {}).await.unwrap();
        assert_eq!(sets.into_inner().sets[0].name, "northstar/confirmed");
        let refused = reader.create_set(new_set("another")).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
        assert_eq!(code(&refused), "not_allowed");

        // A consumer is its owner's, and the administrator's.
        reader.watch_changes(watch("matcher")).await.unwrap();
        let mut other = connect(address.clone(), other).await.unwrap();
        let refused = other.watch_changes(watch("matcher")).await.unwrap_err();
        assert_eq!(code(&refused), "not_allowed");
        let listed = admin.list_consumers(wire::ListConsumersRequest {}).await;
        let listed = listed.unwrap().into_inner().consumers;
        assert_eq!(listed[0].owner, "client reader");
        let remove = wire::RemoveConsumerRequest {
            consumer: "matcher".to_owned(),
        };
        let refused = reader.remove_consumer(remove.clone()).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
        admin.remove_consumer(remove).await.unwrap();

        let stranger = connect(address, credentials("stranger")).await;
        let asked = match stranger {
            // TLS 1.3 tells a client of its refusal only when it reads.
            Ok(mut stranger) => stranger.list_sets(wire::ListSetsRequest {}).await.is_ok(),
            Err(_) => false,
        };
        assert!(!asked, "a stranger was answered");
    });
    drop(runtime);
    assert!(member.stop().success());
}

/// A client as `BoringSSL` makes one, which most gRPC libraries stand on: of what it offers
/// to verify the node's signature by, only P-256 is of use. Whose key it is it does not ask.
#[derive(Debug)]
struct Boring;

impl ServerCertVerifier for Boring {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.3 alone".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![
            SignatureScheme::ECDSA_NISTP256_SHA256,
            SignatureScheme::RSA_PSS_SHA256,
            SignatureScheme::ECDSA_NISTP384_SHA384,
            SignatureScheme::RSA_PSS_SHA512,
        ]
    }
}

#[test]
fn a_client_that_offers_no_ed25519_is_served_by_a_key_as_the_documents_make_it() {
    let documented = include_str!("../../docs/API.md");
    let made =
        "openssl genpkey -algorithm ec -pkeyopt ec_paramgen_curve:P-256 -out keys/api-tls.key";
    assert!(documented.contains(made), "another key than this test has");
    let world = World::new(&["northstar"]);
    let member = world.member("northstar");
    let port = free_port();
    let known = credentials("known");
    open(
        member,
        &[("json_listen", &format!("0.0.0.0:{port}"))],
        &[("known", "read", &known)],
    );
    let key = member.folder().join("keys/api-tls.key");
    let p256 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    fs::write(&key, p256.serialize_pem()).unwrap();
    world.start_all();
    let handshake = || {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Boring))
            .with_no_client_auth();
        let name = ServerName::try_from("node.invalid").unwrap();
        let mut session = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
        // Up to the node's signature: that it then refuses who has no key is its right.
        while session.is_handshaking() {
            session.complete_io(&mut socket)?;
        }
        Ok::<_, std::io::Error>(())
    };
    handshake().unwrap();
    // The other kind of key is read, and does not serve it: why the documents say so.
    assert!(member.stop().success());
    let ed25519 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    fs::write(&key, ed25519.serialize_pem()).unwrap();
    member.start();
    assert!(handshake().is_err(), "documents say that this fails");
}

fn ask(stream: &mut (impl std::io::Read + std::io::Write), value: &str) -> String {
    let body = format!("{{\"signals\": [{{\"kind\": \"SHA256\", \"value\": \"{value}\"}}]}}");
    let request = format!(
        "POST /v1/match HTTP/1.1\r\nHost: node\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    // A peer that refuses may be gone before it was all said: then there is no answer.
    let _ = stream.write_all(request.as_bytes());
    let mut answer = String::new();
    // A peer that does not say goodbye in TLS has said all it wanted.
    let _ = stream.read_to_string(&mut answer);
    answer
}

#[test]
fn json_is_answered_to_this_machine_plainly_and_to_others_by_their_keys() {
    let world = World::new(&["northstar"]);
    let member = world.member("northstar");
    let known = credentials("known");
    let local = format!("127.0.0.1:{}", free_port());
    open(
        member,
        &[("json_listen", &local)],
        &[("known", "read", &known)],
    );
    world.start_all();
    member.create_set("confirmed", &["all"]);
    let said = entries("json", 0..2);
    member.import("confirmed", &said);
    let answer = ask(&mut TcpStream::connect(&local).unwrap(), &said[1].sha256());
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(
        answer.contains("\"entry\":\"northstar/confirmed#"),
        "{answer}"
    );

    // Where others reach it, it takes TLS and a named key.
    assert!(member.stop().success());
    let port = free_port();
    member.set("json_listen", &format!("\"0.0.0.0:{port}\""));
    member.start();
    let at = format!("127.0.0.1:{port}");
    let plain = ask(&mut TcpStream::connect(&at).unwrap(), &said[1].sha256());
    assert!(!plain.contains("HTTP/1.1 200"), "{plain}");
    let over_tls = |credentials: &Credentials| {
        let mut config = client_config_unpinned(credentials).unwrap();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let name = ServerName::try_from("node.invalid").unwrap();
        let mut session = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let mut socket = TcpStream::connect(&at).unwrap();
        let mut stream = rustls::Stream::new(&mut session, &mut socket);
        // The handshake is done by the first write.
        let mut answer = Vec::new();
        let body = "{\"signals\": []}";
        let request = format!(
            "POST /v1/match HTTP/1.1\r\nHost: n\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        let _ = stream.write_all(request.as_bytes());
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    };
    assert!(over_tls(&known).starts_with("HTTP/1.1 200"));
    assert_eq!(over_tls(&credentials("stranger")), "");
}
