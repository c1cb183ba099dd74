//! `hashpact init`: makes a node's folder, keys, configuration and enrolment request.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use hashpact_core::id::{CoalitionName, Digest, Slug};

use super::error::CliError;
use super::values::{BootstrapPeer, RoleArg, slug};
use super::{Context, not_available};
use crate::config::Endpoint;

/// Make a node's keys, its configuration and its enrolment request
///
/// Everything is made on this machine and no key leaves it. Nothing that exists
/// is overwritten. Send the request file to the administrators and read its
/// fingerprint out to them over another channel.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// Folder to make the node in
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub dir: PathBuf,
    /// The coalition's name, such as csa-coalition.example
    #[arg(long, value_name = "NAME", value_parser = CoalitionName::parse)]
    pub coalition: CoalitionName,
    /// The genesis digest that the administrators read out, 64 hexadecimal digits
    #[arg(long, value_name = "DIGEST", value_parser = Digest::from_hex)]
    pub genesis: Digest,
    /// The member's slug: 1 to 32 of a-z, 0-9 and -; unique for ever
    #[arg(long, value_name = "SLUG", value_parser = slug)]
    pub member: Slug,
    /// The node's name, unique at the member
    #[arg(long, value_name = "SLUG", default_value = "main", value_parser = slug)]
    pub node: Slug,
    /// The member's name for people [default: the slug]
    #[arg(long, value_name = "TEXT")]
    pub display_name: Option<String>,
    /// The kind of organisation, such as platform, hotline or vendor
    #[arg(long, value_name = "TEXT", default_value = "platform")]
    pub organisation: String,
    /// A role to ask for; may be repeated
    #[arg(long = "role", value_name = "ROLE", default_values = ["publish", "subscribe"])]
    pub roles: Vec<RoleArg>,
    /// Address to listen at for other members, or "off" to only dial
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:7443", value_parser = address_or_off)]
    pub listen: ListenArg,
    /// Where other members reach this node; may be repeated
    #[arg(long = "advertise", value_name = "HOST:PORT", value_parser = Endpoint::parse)]
    pub advertise: Vec<Endpoint>,
    /// A node to ask for the roster first; may be repeated
    #[arg(long = "bootstrap", value_name = "MEMBER=HOST:PORT")]
    pub bootstrap: Vec<BootstrapPeer>,
    /// Address of /live, /ready and /metrics, or "off"
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:9464", value_parser = address_or_off)]
    pub http_listen: ListenArg,
    /// Allow endpoints on this machine itself; for trials only
    #[arg(long)]
    pub allow_loopback_endpoints: bool,
    /// Name of the 24/7 contact
    #[arg(long, value_name = "TEXT")]
    pub contact_name: String,
    /// E-mail address of the 24/7 contact
    #[arg(long, value_name = "ADDRESS")]
    pub contact_email: String,
    /// Telephone number of the 24/7 contact
    #[arg(long, value_name = "NUMBER", default_value = "")]
    pub contact_phone: String,
    /// An identity key that exists already, such as that of the member's first node
    #[arg(long, value_name = "FILE")]
    pub identity_key: Option<PathBuf>,
    /// Algorithm of the TLS key
    #[arg(long, value_name = "KIND", default_value = "p256")]
    pub tls_key_kind: TlsKeyKind,
}

/// Algorithms of TLS keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TlsKeyKind {
    /// ECDSA on P-256
    P256,
    /// Ed25519
    Ed25519,
}

/// An address to listen at, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenArg(pub Option<SocketAddr>);

fn address_or_off(text: &str) -> Result<ListenArg, String> {
    if text == "off" {
        return Ok(ListenArg(None));
    }
    let parsed = text.parse().map(|address| ListenArg(Some(address)));
    parsed.map_err(|_| "write ADDRESS:PORT, such as 0.0.0.0:7443, or off".to_owned())
}

/// Runs the command.
///
/// # Errors
/// When a file exists already or cannot be written.
pub fn run(_args: InitArgs, _context: &Context) -> Result<(), CliError> {
    Err(not_available("init"))
}
