//! The doors of the member's own systems over TCP: bound before the store is opened,
//! served once the node runs. Where the configuration names none, there is none.

use std::collections::HashMap;

use hashpact_api::json::JsonApi;
use hashpact_api::{DoorLimits, NodeService, serve_incoming};
use hashpact_core::id::Digest;
use hashpact_net::{Door, DoorSettings, Protocol};
use hashpact_node::caller::Caller;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_stream::StreamExt as _;
use tokio_util::sync::CancellationToken;

use super::error::CliError;
use super::open::api_credentials;
use super::run::bind;
use crate::config::Config;

/// What was bound.
pub(super) struct Doors {
    grpc: Option<(TcpListener, Door<Caller>)>,
    json: Option<(TcpListener, Option<Door<Caller>>)>,
}

impl Doors {
    /// Binds what the configuration names.
    ///
    /// # Errors
    /// An address that is taken, a key that cannot be read.
    pub(super) async fn bind(config: &Config) -> Result<Self, CliError> {
        let api = &config.api;
        let door = |protocol| {
            let credentials = api_credentials(config)?;
            let door = Door::new(
                &credentials,
                clients(config),
                protocol,
                DoorSettings::default(),
            );
            door.map_err(|error| CliError::failed(format!("api: {error}")))
        };
        let grpc = match api.grpc_listen {
            Some(address) => {
                let listener = bind("api.grpc_listen", address).await?;
                Some((listener, door(Protocol::Http2)?))
            }
            None => None,
        };
        let json = match api.json_listen {
            Some(address) => {
                let listener = bind("api.json_listen", address).await?;
                let with_tls = api.json_needs_clients();
                let door = with_tls.then(|| door(Protocol::Http1)).transpose()?;
                Some((listener, door))
            }
            None => None,
        };
        Ok(Self { grpc, json })
    }

    /// Serves until `stop`.
    pub(super) fn serve(
        self,
        servers: &mut JoinSet<Result<(), CliError>>,
        service: &NodeService,
        stop: &CancellationToken,
    ) {
        if let Some((listener, door)) = self.grpc {
            let (service, told) = (service.clone(), stop.clone().cancelled_owned());
            let incoming = door.open(listener, stop.clone());
            servers.spawn(async move {
                let limits = DoorLimits::REMOTE;
                let served = serve_incoming(incoming, service, Caller::clone, limits, told).await;
                served.map_err(CliError::failed)
            });
        }
        if let Some((listener, door)) = self.json {
            let (api, stop) = (JsonApi::new(service), stop.clone());
            servers.spawn(async move {
                match door {
                    None => api.serve_loopback(listener, stop).await,
                    Some(door) => {
                        let incoming = door.open(listener, stop.clone());
                        // It cannot fail: what was refused never comes here.
                        let incoming = incoming.filter_map(Result::ok);
                        let incoming = incoming.map(|stream| {
                            let caller = stream.client();
                            (stream, caller)
                        });
                        api.serve(incoming, stop).await;
                    }
                }
                Ok(())
            });
        }
    }
}

/// The clients that the configuration names, by their keys.
fn clients(config: &Config) -> HashMap<Digest, Caller> {
    let clients = config.api.clients.iter();
    let clients = clients.map(|client| {
        let name = client.name.to_string();
        let caller = Caller::certificate(name, client.key, client.role);
        (client.key, caller)
    });
    clients.collect()
}
