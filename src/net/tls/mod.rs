//! TLS 1.3 with both keys pinned by node card.
//!
//! Owns the two rustls configurations and everything that decides them. Nothing
//! else in the workspace makes one. TLS is trusted for privacy on the wire and
//! for which member calls, never for where data comes from.
//!
//! Resumption, tickets and early data are off on both sides: rustls resumes a
//! session without asking the verifier again, so a key that was revoked in
//! between would still be let in.

mod certificate;
mod credentials;
mod verify;

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::NoServerSessionStorage;
use rustls::{ClientConfig, ServerConfig};

pub use certificate::{not_after, spki_digest};
pub use credentials::{Credentials, PemPair, self_signed};
pub use verify::{Pinned, Refusal, Unpinned};

use crate::peer::PeerDirectory;
pub(crate) use verify::KnownClients;
use verify::{OnCards, PinnedClients};

/// The protocol of a connection on which the dialler calls.
pub const ALPN: &[u8] = b"h2";
/// The protocol of a connection on which the one that was dialled calls.
pub const ALPN_REVERSE: &[u8] = b"hashpact-rev/1";

/// Which side of a connection makes the calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CallingSide {
    /// The side that dialled.
    Dialler,
    /// The side that was dialled: its peer cannot be.
    Dialled,
}

impl CallingSide {
    /// The protocol that says so in the handshake.
    #[must_use]
    pub const fn alpn(self) -> &'static [u8] {
        match self {
            Self::Dialler => ALPN,
            Self::Dialled => ALPN_REVERSE,
        }
    }

    /// Reads what was agreed in the handshake.
    pub(crate) fn agreed(alpn: Option<&[u8]>) -> Option<Self> {
        let all = [Self::Dialler, Self::Dialled];
        all.into_iter().find(|caller| Some(caller.alpn()) == alpn)
    }
}

/// Says why keys or certificates of our own cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate file cannot be used.
    #[error("the certificate cannot be used: {0}")]
    Certificate(String),
    /// The key file cannot be used.
    #[error("the TLS key cannot be used: {0}")]
    Key(String),
    /// Certificate and key do not belong together.
    #[error("the certificate is not for this TLS key")]
    Mismatch,
    /// The TLS library refuses the configuration.
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] rustls::Error),
}

/// The algorithms in use: TLS 1.3 suites, the post-quantum hybrid first, and
/// signatures by P-256 or Ed25519 only.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        kx_groups: vec![
            aws_lc_rs::kx_group::X25519MLKEM768,
            aws_lc_rs::kx_group::X25519,
            aws_lc_rs::kx_group::SECP256R1,
        ],
        signature_verification_algorithms: verify::ALGORITHMS,
        ..aws_lc_rs::default_provider()
    })
}

/// Makes the configuration of the accepting side, on whose connections the dialler
/// calls; add [`ALPN_REVERSE`] to its protocols to take others as well.
///
/// # Errors
/// [`TlsError::Setup`] when rustls refuses the combination.
pub fn server_config(
    credentials: &Credentials,
    directory: Arc<dyn PeerDirectory>,
) -> Result<ServerConfig, TlsError> {
    server_config_for(credentials, Arc::new(OnCards(directory)), ALPN)
}

/// As [`server_config`], for clients that are known otherwise, and another protocol.
pub(crate) fn server_config_for(
    credentials: &Credentials,
    known: Arc<dyn KnownClients>,
    protocol: &[u8],
) -> Result<ServerConfig, TlsError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(PinnedClients::new(known)))
        .with_cert_resolver(credentials.resolver());
    config.alpn_protocols = vec![protocol.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.send_half_rtt_data = false;
    Ok(config)
}

/// Makes the configuration of a dial to the member that `pinned` means.
///
/// # Errors
/// [`TlsError::Setup`] when rustls refuses the combination.
pub fn client_config(credentials: &Credentials, pinned: Pinned) -> Result<ClientConfig, TlsError> {
    client_config_for(credentials, pinned, CallingSide::Dialler)
}

/// As [`client_config`], with the side that will call.
///
/// # Errors
/// [`TlsError::Setup`] when rustls refuses the combination.
pub fn client_config_for(
    credentials: &Credentials,
    pinned: Pinned,
    caller: CallingSide,
) -> Result<ClientConfig, TlsError> {
    let mut config = client(credentials, Arc::new(pinned))?;
    config.alpn_protocols = vec![caller.alpn().to_vec()];
    Ok(config)
}

/// Makes the configuration of a dial that cannot pin yet: the peer proves that it
/// holds its key, and the caller decides later whose key that is.
///
/// # Errors
/// [`TlsError::Setup`] when rustls refuses the combination.
pub fn client_config_unpinned(credentials: &Credentials) -> Result<ClientConfig, TlsError> {
    client(credentials, Arc::new(Unpinned))
}

fn client(
    credentials: &Credentials,
    verifier: Arc<dyn rustls::client::danger::ServerCertVerifier>,
) -> Result<ClientConfig, TlsError> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(credentials.resolver());
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    config.enable_early_data = false;
    config.send_ticket_request = None;
    Ok(config)
}
