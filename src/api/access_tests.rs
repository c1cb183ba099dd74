//! Doors and roles over a real node: who may call what, health, reflection.

use hashpact_node::caller::{Caller, Role};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use super::*;
use crate::{DoorLimits, serve_incoming};

/// A door that lets everybody in as a reader, and one connection to it.
async fn read_only(node: Arc<Node>) -> Channel {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let incoming = tokio_stream::StreamExt::chain(
        tokio_stream::once(Ok::<_, std::io::Error>(ours)),
        tokio_stream::pending(),
    );
    let service = NodeService::new(node, About::default());
    let reader = |(): &()| Caller {
        role: Role::Read,
        ..Caller::loopback()
    };
    tokio::spawn(async move {
        let never = std::future::pending();
        serve_incoming(incoming, service, reader, DoorLimits::REMOTE, never).await
    });
    channel_over(theirs).await
}

async fn channel_over(stream: tokio::io::DuplexStream) -> Channel {
    let stream = Mutex::new(Some(stream));
    let endpoint = Endpoint::from_static("http://node.invalid");
    endpoint
        .connect_with_connector(service_fn(move |_| {
            let stream = stream.lock().unwrap().take().map(TokioIo::new);
            std::future::ready(stream.ok_or_else(|| std::io::Error::other("gone")))
        }))
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_asks_and_changes_nothing() {
    let folder = TempDir::new().unwrap();
    let mut client = NodeClient::new(read_only(node(&folder)).await);
    let ask = wire::LookupRequest {
        signals: vec![md5(1)],
        ..wire::LookupRequest::default()
    };
    assert!(client.lookup(ask).await.is_ok());
    let refused = client.create_set(own_set("confirmed")).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert_eq!(code(&refused), "not_allowed");
    let import = client.import(tokio_stream::iter(Vec::new())).await;
    assert_eq!(import.unwrap_err().code(), Code::PermissionDenied);
    let sets = client.list_sets(wire::ListSetsRequest {}).await.unwrap();
    assert!(sets.into_inner().sets.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn health_follows_readiness_and_reflection_names_the_service() {
    let folder = TempDir::new().unwrap();
    let node = node(&folder);
    let channel = read_only(Arc::clone(&node)).await;
    let mut health = HealthClient::new(channel.clone());
    let ask = HealthCheckRequest {
        service: "hashpact.node.v1.Node".to_owned(),
    };
    let mut told = health.watch(ask).await.unwrap().into_inner();
    let mut wait_for = async |status: ServingStatus| {
        while told.message().await.unwrap().unwrap().status() != status {}
    };
    wait_for(ServingStatus::Serving).await;
    node.set_ready(false);
    wait_for(ServingStatus::NotServing).await;

    let list = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut reflection = ServerReflectionClient::new(channel);
    let answers = reflection.server_reflection_info(tokio_stream::once(list));
    let answer = answers.await.unwrap().into_inner().message().await;
    let Some(MessageResponse::ListServicesResponse(list)) =
        answer.unwrap().unwrap().message_response
    else {
        panic!("another answer");
    };
    let names: Vec<&str> = list.service.iter().map(|s| s.name.as_str()).collect();
    assert!(names.contains(&"hashpact.node.v1.Node"), "{names:?}");
    assert!(names.contains(&"grpc.health.v1.Health"), "{names:?}");
}
