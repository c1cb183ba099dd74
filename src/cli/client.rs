//! How commands reach the node: over its socket, else in this process.
//!
//! There is one path only: the gRPC service. Where no node answers, the command
//! takes the store's lock and serves the same service to itself.

use std::future::Future;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use hashpact_api::wire::node_client::NodeClient;
use hashpact_api::{About, CODE, COMMAND_AGENT, Embedded, MESSAGE_MAX_BYTES, NodeService};
use hashpact_node::Node;
use hyper_util::rt::TokioIo;
use tokio::io::DuplexStream;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use super::error::CliError;
use super::open::{open_node, publisher_max_bytes, pull_settings};
use super::{Context, output};
use crate::config::Config;

/// Name and version of this program, as nodes tell each other.
pub const SOFTWARE: &str = concat!("hashpact ", env!("CARGO_PKG_VERSION"));

/// A connection to the node, with the runtime that it runs on.
pub struct Client {
    runtime: Runtime,
    node: NodeClient<Channel>,
    server: Option<JoinHandle<()>>,
    config: Config,
}

/// Reaches the node of the configuration: the one that answers on the socket, else
/// this process, which opens the store itself.
///
/// # Errors
/// A configuration that is wrong; a socket that may not be opened; a store that is
/// in use though nobody answers.
pub fn connect_or_embed(context: &Context) -> Result<Client, CliError> {
    reach(context, |service, _, _| Ok(service))
}

/// The same, for the commands about bundles: a node that this process serves itself
/// takes them in with a driver of its own.
///
/// # Errors
/// As [`connect_or_embed`].
pub fn connect_or_embed_for_bundles(context: &Context) -> Result<Client, CliError> {
    reach(context, |service, node, config| {
        let (settings, most) = (pull_settings(config), publisher_max_bytes(config));
        let bundles = hashpact_net::exchange::alone(node, settings, most);
        let bundles = bundles.map_err(CliError::failed)?;
        Ok(service.with_bundles(bundles))
    })
}

fn reach(
    context: &Context,
    equip: impl FnOnce(NodeService, Arc<Node>, &Config) -> Result<NodeService, CliError>,
) -> Result<Client, CliError> {
    let config = context.config_text()?;
    let runtime = Runtime::new().map_err(CliError::failed)?;
    let socket = config.api.socket.clone();
    let (node, server, config) = if answers(&socket)? {
        let reached = over_socket(socket, Some(&context.command));
        (runtime.block_on(reached)?, None, config)
    } else {
        // The keys are needed now.
        let config = context.config()?;
        let node = open_node(&config, false)?;
        let service = NodeService::new(Arc::clone(&node), about());
        let service = equip(service, node, &config)?;
        let (node, server) = runtime.block_on(in_process(service, &context.command))?;
        (node, Some(server), config)
    };
    Ok(Client {
        runtime,
        node,
        server,
        config,
    })
}

/// What the service says of a command's own process.
fn about() -> About {
    About {
        software: SOFTWARE.to_owned(),
        certificate_expires: None,
    }
}

/// Whether a node answers at the socket.
pub(super) fn answers(socket: &Path) -> Result<bool, CliError> {
    let Err(error) = std::os::unix::net::UnixStream::connect(socket) else {
        return Ok(true);
    };
    let kind = error.kind();
    if matches!(kind, ErrorKind::NotFound | ErrorKind::ConnectionRefused) {
        return Ok(false);
    }
    let failed = CliError::failed(format!("api.socket: {}: {error}", socket.display()));
    Err(failed.next("call it as the user that runs the node"))
}

/// Connects to the node at the socket, as this command; as a program, without one.
pub(super) async fn over_socket(
    socket: PathBuf,
    command: Option<&[String]>,
) -> Result<NodeClient<Channel>, CliError> {
    let channel = endpoint(command)?
        .connect_with_connector(service_fn(move |_| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        }))
        .await;
    Ok(client(channel.map_err(|error| unreachable_node(&error))?))
}

/// Serves in this process and connects to it.
async fn in_process(
    service: NodeService,
    command: &[String],
) -> Result<(NodeClient<Channel>, JoinHandle<()>), CliError> {
    let Embedded { stream, server } = hashpact_api::embedded(service);
    // There is one stream, and the channel connects once.
    let stream: Mutex<Option<DuplexStream>> = Mutex::new(Some(stream));
    let channel = endpoint(Some(command))?
        .connect_with_connector(service_fn(move |_| {
            let once = stream.lock().ok().and_then(|mut stream| stream.take());
            let gone = || std::io::Error::from(ErrorKind::NotConnected);
            std::future::ready(once.map(TokioIo::new).ok_or_else(gone))
        }))
        .await;
    Ok((
        client(channel.map_err(|error| unreachable_node(&error))?),
        server,
    ))
}

/// The address is not looked at: the connector knows where to go.
fn endpoint(command: Option<&[String]>) -> Result<Endpoint, CliError> {
    let endpoint = Endpoint::from_static("http://node.invalid")
        .initial_stream_window_size(1024 * 1024)
        .initial_connection_window_size(4 * 1024 * 1024);
    match command {
        // The audit feed tells a person's look-up from a program's by it.
        Some(words) => endpoint
            .user_agent(format!("{COMMAND_AGENT}{}", words.join("-")))
            .map_err(CliError::failed),
        None => Ok(endpoint),
    }
}

fn client(channel: Channel) -> NodeClient<Channel> {
    NodeClient::new(channel)
        .max_decoding_message_size(MESSAGE_MAX_BYTES)
        .max_encoding_message_size(MESSAGE_MAX_BYTES)
}

fn unreachable_node(error: &tonic::transport::Error) -> CliError {
    CliError::failed(format!("the node does not answer: {error}"))
        .next("hashpact status, or the node's log, says more")
}

impl Client {
    /// The service's stub; clones share the connection.
    #[must_use]
    pub fn node(&self) -> NodeClient<Channel> {
        self.node.clone()
    }

    /// The configuration that the node was found by.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Whether this process serves itself, since no node runs.
    #[must_use]
    pub const fn is_embedded(&self) -> bool {
        self.server.is_some()
    }

    /// Waits for a call.
    pub fn wait<T>(&self, call: impl Future<Output = T>) -> T {
        self.runtime.block_on(call)
    }

    /// Waits for a call and turns a status into an error that says what to do.
    ///
    /// # Errors
    /// What the node answered.
    pub fn call<T>(
        &self,
        call: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, CliError> {
        let answered = self.runtime.block_on(call);
        answered
            .map(tonic::Response::into_inner)
            .map_err(|status| failed(&status))
    }

    /// Says on standard error that what is shown is the store of a node at rest.
    pub fn note_at_rest(&self) {
        if self.is_embedded() {
            output::note("no node runs: this is its store at rest; hashpact run starts it");
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            // The service holds the node, and the node the store's lock.
            server.abort();
            let _ = self.runtime.block_on(server);
        }
    }
}

/// What the node answered, with the next step where the code tells one.
#[must_use]
pub fn failed(status: &Status) -> CliError {
    let code = status
        .metadata()
        .get(CODE)
        .and_then(|code| code.to_str().ok());
    let message = status.message();
    let next = match code {
        Some("not_found") if message.starts_with("member ") || message.starts_with("group ") => {
            "hashpact roster show names the members and groups"
        }
        Some("not_found") if message.starts_with("consumer ") => {
            "hashpact consumers list shows who follows"
        }
        Some("not_found") if message.starts_with("mute ") => {
            "hashpact mutes lists what is muted, by the names to give here"
        }
        Some("not_found") if message.starts_with("entry ") => {
            "hashpact lookup KIND:VALUE names the entries of a signal"
        }
        Some("not_found") if message.starts_with("evidence ") => "hashpact evidence list names it",
        Some("cursor_too_old" | "cursor_other_history") => "start over: --restart",
        Some("not_found") => "hashpact set list shows the sets that this node holds",
        Some("publishing_closed") => "hashpact status shows what the node waits for",
        Some("disk_low") => "make room on the volume of node.data_dir",
        Some("terms") => "without the list owner's permission a set stays on this node",
        Some("not_granted") => {
            "hashpact set grant SET MEMBER grants an own set; of another's its publisher decides"
        }
        Some("busy") => "try again",
        Some("only_witnesses") => "ask another node of this member, which runs hashpact run",
        Some("store") => "hashpact verify checks the store; the node's log says more",
        Some("internal") => "the node's log says more",
        Some("misuse") if message.contains("no roster") => {
            "hashpact roster import FILE, with what the administrators sent"
        }
        Some("misuse") if message.contains("no opinion") => {
            "hashpact opinions lists what this member said"
        }
        Some(_) => "hashpact help COMMAND says what it takes",
        None => {
            return CliError::failed(format!("the node broke off: {message}"))
                .next("the node's log says more; what was acknowledged stands");
        }
    };
    CliError::failed(message).next(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_at_which_nobody_answers_means_no_node() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("api.sock");
        assert_eq!(answers(&socket), Ok(false));
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        assert_eq!(answers(&socket), Ok(true));
        drop(listener);
        assert_eq!(answers(&socket), Ok(false));
    }

    #[test]
    fn the_next_step_after_an_unknown_member_is_the_roster_not_the_sets() {
        let answer = |message: &str| {
            let mut status = Status::not_found(message);
            status
                .metadata_mut()
                .insert(CODE, "not_found".parse().unwrap());
            failed(&status).to_string()
        };
        assert!(answer("member \"cedar\" does not exist here").contains("hashpact roster show"));
        assert!(answer("group \"x\" does not exist here").contains("hashpact roster show"));
        let entry = answer("entry \"a/b#9\" does not exist here");
        assert!(entry.contains("hashpact lookup"), "{entry}");
        assert!(!entry.contains("--as-of"), "{entry}");
        assert!(answer("set \"a/b\" does not exist here").contains("hashpact set list"));
        assert!(answer("mute \"north\" does not exist here").contains("hashpact mutes"));
    }

    #[test]
    fn a_wrong_call_is_not_sent_to_the_list_of_sets() {
        let mut status = Status::invalid_argument("a mute names its case");
        let code = "misuse".parse().unwrap();
        status.metadata_mut().insert(CODE, code);
        let said = failed(&status).to_string();
        assert!(said.contains("hashpact help COMMAND"), "{said}");
        assert!(!said.contains("set list"), "{said}");
    }

    #[test]
    fn an_answer_without_a_code_is_a_broken_connection() {
        let error = failed(&Status::unavailable("transport error"));
        assert!(error.to_string().contains("broke off"));
    }
}
