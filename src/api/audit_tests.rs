//! What the audit feed has of calls: acts, look-ups of administrators and not those of
//! programs, what was refused.

use hashpact_core::leaf::audit::Act;
use hashpact_node::audit::{At, AuditFilter, Said};
use hashpact_node::caller::{Caller, Role};

use super::*;
use crate::{COMMAND_AGENT, DoorLimits, serve_incoming};

/// A door, one connection to it, and what its caller says it is.
async fn door(
    node: &Arc<Node>,
    caller_of: fn(&()) -> Caller,
    agent: Option<&str>,
) -> NodeClient<Channel> {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let incoming = tokio_stream::StreamExt::chain(
        tokio_stream::once(Ok::<_, std::io::Error>(ours)),
        tokio_stream::pending(),
    );
    let service = NodeService::new(Arc::clone(node), About::default());
    tokio::spawn(async move {
        let never = std::future::pending();
        serve_incoming(incoming, service, caller_of, DoorLimits::LOCAL, never).await
    });
    let stream = Mutex::new(Some(theirs));
    let mut endpoint = Endpoint::from_static("http://node.invalid");
    if let Some(agent) = agent {
        endpoint = endpoint.user_agent(agent.to_owned()).unwrap();
    }
    let channel = endpoint
        .connect_with_connector(service_fn(move |_| {
            let stream = stream.lock().unwrap().take().map(TokioIo::new);
            std::future::ready(stream.ok_or_else(|| std::io::Error::other("gone")))
        }))
        .await;
    NodeClient::new(channel.unwrap())
}

const SOCKET: fn(&()) -> Caller = |()| Caller::socket(Some(7));
const READER: fn(&()) -> Caller = |()| Caller {
    role: Role::Read,
    ..Caller::loopback()
};

pub(crate) fn acts(node: &Arc<Node>) -> Vec<Act> {
    let mut acts = Vec::new();
    let sink = &mut |leaf: hashpact_node::audit::AuditLeaf| {
        if let Said::Act(act) = leaf.said {
            acts.push(*act);
        }
        true
    };
    let audit = node.audit();
    audit
        .read(At::default(), &AuditFilter::default(), sink)
        .unwrap();
    acts
}

fn lookup() -> wire::LookupRequest {
    wire::LookupRequest {
        signals: vec![md5(1), md5(2)],
        ..wire::LookupRequest::default()
    }
}

fn matching() -> wire::MatchRequest {
    wire::MatchRequest {
        signals: vec![md5(3)],
        ..wire::MatchRequest::default()
    }
}

/// Asks in every way that there is.
async fn ask_all(client: &mut NodeClient<Channel>) {
    client.lookup(lookup()).await.unwrap();
    client.r#match(matching()).await.unwrap();
    let twice = || tokio_stream::iter([matching(), matching()]);
    let mut answers = client.match_stream(twice()).await.unwrap().into_inner();
    while answers.message().await.unwrap().is_some() {}
    let twice = tokio_stream::iter([lookup(), lookup()]);
    let mut answers = client.lookup_stream(twice).await.unwrap().into_inner();
    while answers.message().await.unwrap().is_some() {}
}

#[tokio::test(flavor = "multi_thread")]
async fn what_programs_look_up_writes_no_leaf() {
    let folder = TempDir::new().unwrap();
    let node = node(&folder);
    ask_all(&mut door(&node, SOCKET, None).await).await;
    let agent = format!("{COMMAND_AGENT}lookup");
    ask_all(&mut door(&node, READER, Some(&agent)).await).await;
    assert_eq!(acts(&node), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_person_looks_up_is_one_leaf_a_call_or_stream() {
    let folder = TempDir::new().unwrap();
    let node = node(&folder);
    let agent = format!("{COMMAND_AGENT}lookup");
    ask_all(&mut door(&node, SOCKET, Some(&agent)).await).await;
    let acts = acts(&node);
    let asked: Vec<_> = acts
        .iter()
        .map(|act| {
            let counts = act.counts.iter();
            let asked = counts.filter(|(name, _)| name == "asked").map(|(_, n)| *n);
            (act.act.as_str(), act.outcome.as_str(), asked.sum::<u64>())
        })
        .collect();
    let expected = [2, 1, 2, 4].map(|asked| ("lookup", "ok", asked));
    assert_eq!(asked, expected);
    assert_eq!(acts[0].actor.uid, Some(7));
    assert_eq!(acts[0].actor.command, "lookup");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_given_up_is_recorded_with_what_was_asked() {
    let folder = TempDir::new().unwrap();
    let node = node(&folder);
    let agent = format!("{COMMAND_AGENT}lookup");
    let mut client = door(&node, SOCKET, Some(&agent)).await;
    let (ask, asked) = tokio::sync::mpsc::channel(1);
    let asked = tokio_stream::wrappers::ReceiverStream::new(asked);
    let mut answers = client.lookup_stream(asked).await.unwrap().into_inner();
    ask.send(lookup()).await.unwrap();
    answers.message().await.unwrap();
    drop((answers, ask, client));
    let mut followed = node.audit().follow();
    while acts(&node).is_empty() {
        followed.changed().await.unwrap();
    }
    let acts = acts(&node);
    // A stream that was cancelled may look like one that ended: both are in the record.
    assert_eq!(acts.len(), 1);
    assert!(["ok", "interrupted"].contains(&acts[0].outcome.as_str()));
    assert!(acts[0].counts.contains(&("asked".to_owned(), 2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_act_that_is_refused_is_recorded_with_its_code() {
    let folder = TempDir::new().unwrap();
    let node = node(&folder);
    let mut client = door(&node, SOCKET, None).await;
    client.create_set(own_set("confirmed")).await.unwrap();
    let grant = wire::ChangeGrantsRequest {
        set: "confirmed".to_owned(),
        grant: vec![wire::Grantee {
            who: "nobody".to_owned(),
            relay: false,
        }],
        revoke: Vec::new(),
    };
    client.change_grants(grant).await.unwrap_err();
    let acts = acts(&node);
    let said: Vec<_> = acts
        .iter()
        .map(|a| (a.act.as_str(), a.outcome.as_str()))
        .collect();
    assert_eq!(said, [("set.create", "ok"), ("set.grant", "not_found")]);
    assert_eq!(acts[1].set, "north/confirmed");
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_calls_are_counted_by_caller_and_code() {
    let folder = TempDir::new().unwrap();
    let node = node(&folder);
    let mut client = door(&node, READER, None).await;
    for _ in 0..3 {
        client.create_set(own_set("confirmed")).await.unwrap_err();
    }
    let show = wire::ShowSetRequest {
        set: "nothing".to_owned(),
    };
    client.show_set(show).await.unwrap_err();
    node.audit().close();
    let acts = acts(&node);
    assert_eq!(acts.len(), 1);
    let count = |name: &str, count| (name.to_owned(), count);
    let expected = [
        count("CreateSet not_allowed", 3),
        count("ShowSet not_found", 1),
    ];
    assert_eq!(
        (acts[0].act.as_str(), &acts[0].counts[..]),
        ("refused", &expected[..])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_record_is_an_administrators_to_read_and_to_check() {
    let folder = TempDir::new().unwrap();
    let node = node(&folder);
    let mut client = door(&node, READER, None).await;
    let refused = client
        .audit(wire::AuditRequest::default())
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let refused = client
        .verify_audit(wire::VerifyAuditRequest {})
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let mut client = door(&node, SOCKET, None).await;
    client.create_set(own_set("confirmed")).await.unwrap();
    let answers = client.audit(wire::AuditRequest::default()).await.unwrap();
    let first = answers.into_inner().message().await.unwrap().unwrap();
    assert_eq!(first.leaves.len(), 2);
    let report = client
        .verify_audit(wire::VerifyAuditRequest {})
        .await
        .unwrap();
    assert!(report.into_inner().problems.is_empty());
}
