//! Who may call what: one table, asked in one place, before a method sees its call.
//!
//! A call that the table does not name is answered as one that does not exist. So a
//! new method is closed until its role is said here, and a test wants it said.

use std::marker::PhantomData;
use std::task::{Context, Poll};

use futures_util::future::{Either, Ready, ready};
use hashpact_node::caller::{Caller, Role};
use metrics::counter;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tower::{Layer, Service};

use crate::error::{nobody, not_allowed, only_witnesses};

use Role::{Administer, Publish, Read};

/// Every call that there is, by its path in gRPC, and the least role that may make it.
pub(crate) const CALLS: &[(&str, Role)] = &[
    ("/hashpact.node.v1.Node/Lookup", Read),
    ("/hashpact.node.v1.Node/LookupStream", Read),
    ("/hashpact.node.v1.Node/Match", Read),
    ("/hashpact.node.v1.Node/MatchStream", Read),
    ("/hashpact.node.v1.Node/CreateSet", Administer),
    ("/hashpact.node.v1.Node/ListSets", Read),
    ("/hashpact.node.v1.Node/ShowSet", Read),
    ("/hashpact.node.v1.Node/ChangeGrants", Administer),
    ("/hashpact.node.v1.Node/ConfirmHead", Administer),
    ("/hashpact.node.v1.Node/Import", Publish),
    ("/hashpact.node.v1.Node/Retract", Publish),
    ("/hashpact.node.v1.Node/Erase", Publish),
    ("/hashpact.node.v1.Node/Export", Read),
    ("/hashpact.node.v1.Node/Opine", Publish),
    ("/hashpact.node.v1.Node/ListOpinions", Read),
    ("/hashpact.node.v1.Node/WatchChanges", Read),
    ("/hashpact.node.v1.Node/AcknowledgeChanges", Read),
    ("/hashpact.node.v1.Node/ListConsumers", Read),
    ("/hashpact.node.v1.Node/RemoveConsumer", Administer),
    // What goes to others, and what comes from elsewhere, is decided like a grant.
    ("/hashpact.node.v1.Node/ExportBundle", Administer),
    ("/hashpact.node.v1.Node/ImportBundle", Administer),
    ("/hashpact.node.v1.Node/Prove", Administer),
    ("/hashpact.node.v1.Node/ListEvidence", Read),
    ("/hashpact.node.v1.Node/ExportEvidence", Administer),
    // Each costs as much as many look-ups.
    ("/hashpact.node.v1.Node/LookupPast", Administer),
    ("/hashpact.node.v1.Node/Status", Read),
    ("/hashpact.node.v1.Node/Peers", Read),
    ("/hashpact.node.v1.Node/Feeds", Read),
    ("/hashpact.node.v1.Node/Quarantine", Read),
    ("/hashpact.node.v1.Node/DecideQuarantine", Administer),
    ("/hashpact.node.v1.Node/ExplainPolicy", Administer),
    ("/hashpact.node.v1.Node/ComparePolicies", Administer),
    ("/hashpact.node.v1.Node/Mute", Administer),
    ("/hashpact.node.v1.Node/Unmute", Administer),
    ("/hashpact.node.v1.Node/ListMutes", Read),
    ("/hashpact.node.v1.Node/Receipts", Read),
    // What was matched, with names that callers gave to what people sent.
    ("/hashpact.node.v1.Node/Recheck", Administer),
    ("/hashpact.node.v1.Node/AcknowledgeRechecks", Administer),
    ("/hashpact.node.v1.Node/Verify", Administer),
    ("/hashpact.node.v1.Node/ImportRoster", Administer),
    ("/hashpact.node.v1.Node/ShowRoster", Read),
    // Reads every entry of a member, for minutes where there are millions.
    ("/hashpact.node.v1.Node/Preview", Administer),
    ("/hashpact.node.v1.Node/Audit", Administer),
    ("/hashpact.node.v1.Node/VerifyAudit", Administer),
    ("/hashpact.node.v1.Node/Record", Administer),
    ("/grpc.health.v1.Health/Check", Read),
    ("/grpc.health.v1.Health/Watch", Read),
    (
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        Read,
    ),
];

/// The least role that may make a call; `None` for one that there is not.
pub(crate) fn needed(path: &str) -> Option<Role> {
    let call = CALLS.iter().find(|(known, _)| *known == path);
    call.map(|(_, role)| *role)
}

/// What a node answers that only witnesses: it holds no hashes, and publishes none.
pub(crate) const WITNESS_CALLS: &[&str] = &[
    "/hashpact.node.v1.Node/Status",
    "/hashpact.node.v1.Node/Peers",
    "/hashpact.node.v1.Node/Feeds",
    "/hashpact.node.v1.Node/Verify",
    "/hashpact.node.v1.Node/ImportRoster",
    "/hashpact.node.v1.Node/ShowRoster",
    "/hashpact.node.v1.Node/Audit",
    "/hashpact.node.v1.Node/VerifyAudit",
    "/hashpact.node.v1.Node/Record",
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
];

/// Refuses what a node does not do that only witnesses.
pub(crate) fn witness_does(path: &str) -> Result<(), Status> {
    if WITNESS_CALLS.contains(&path) {
        return Ok(());
    }
    counter!("hashpact_api_refused_total", "code" => "only_witnesses").increment(1);
    Err(only_witnesses())
}

/// Lets a caller in, or says why not.
pub(crate) fn admit(caller: &Caller, path: &str) -> Result<(), Status> {
    let refused = |code: &'static str| {
        counter!("hashpact_api_refused_total", "code" => code).increment(1);
    };
    let Some(needed) = needed(path) else {
        refused("unknown_call");
        return Err(Status::unimplemented(
            "this node knows no such call; the program that calls may be newer",
        ));
    };
    if caller.role < needed {
        refused("not_allowed");
        tracing::warn!(%caller, role = caller.role.name(), call = path, "a call was refused");
        return Err(not_allowed(caller.role, needed));
    }
    Ok(())
}

/// Stands before the services of one door. `C` is what the door's connections tell of
/// whoever is at the other end.
pub(crate) struct Doorkeeper<C> {
    caller_of: fn(&C) -> Caller,
    /// The node behind it does nothing but witness.
    only_witnesses: bool,
}

impl<C> Doorkeeper<C> {
    pub(crate) const fn new(caller_of: fn(&C) -> Caller, only_witnesses: bool) -> Self {
        Self {
            caller_of,
            only_witnesses,
        }
    }
}

impl<C> Clone for Doorkeeper<C> {
    fn clone(&self) -> Self {
        Self::new(self.caller_of, self.only_witnesses)
    }
}

impl<S, C> Layer<S> for Doorkeeper<C> {
    type Service = Kept<S, C>;

    fn layer(&self, inner: S) -> Self::Service {
        Kept {
            inner,
            caller_of: self.caller_of,
            only_witnesses: self.only_witnesses,
            connection: PhantomData,
        }
    }
}

/// Services behind a doorkeeper; what comes in carries its [`Caller`].
pub(crate) struct Kept<S, C> {
    inner: S,
    caller_of: fn(&C) -> Caller,
    only_witnesses: bool,
    connection: PhantomData<fn(&C)>,
}

impl<S: Clone, C> Clone for Kept<S, C> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            caller_of: self.caller_of,
            only_witnesses: self.only_witnesses,
            connection: PhantomData,
        }
    }
}

impl<S, C> Service<Request<Body>> for Kept<S, C>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    C: Clone + Send + Sync + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<Response<Body>, S::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let caller = request.extensions().get::<C>().map(self.caller_of);
        let admitted = match &caller {
            Some(caller) if self.only_witnesses => {
                let path = request.uri().path();
                witness_does(path).and_then(|()| admit(caller, path))
            }
            Some(caller) => admit(caller, request.uri().path()),
            // No door of ours makes such a connection.
            None => Err(nobody()),
        };
        if let Err(status) = admitted {
            return Either::Right(ready(Ok(status.into_http())));
        }
        request
            .extensions_mut()
            .extend(caller.map(extension).unwrap_or_default());
        Either::Left(self.inner.call(request))
    }
}

fn extension(caller: Caller) -> tonic::codegen::http::Extensions {
    let mut extensions = tonic::codegen::http::Extensions::new();
    extensions.insert(caller);
    extensions
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message;
    use tonic::Code;

    use super::*;

    /// As much of a `FileDescriptorSet` as names the methods.
    #[derive(Clone, PartialEq, Message)]
    struct Files {
        #[prost(message, repeated, tag = "1")]
        file: Vec<File>,
    }

    #[derive(Clone, PartialEq, Message)]
    struct File {
        #[prost(string, tag = "2")]
        package: String,
        #[prost(message, repeated, tag = "6")]
        service: Vec<Described>,
    }

    #[derive(Clone, PartialEq, Message)]
    struct Described {
        #[prost(string, tag = "1")]
        name: String,
        #[prost(message, repeated, tag = "2")]
        method: Vec<Named>,
    }

    #[derive(Clone, PartialEq, Message)]
    struct Named {
        #[prost(string, tag = "1")]
        name: String,
    }

    fn methods(descriptors: &[u8]) -> Vec<String> {
        let files = Files::decode(descriptors).unwrap();
        let mut all = Vec::new();
        for file in files.file {
            for service in file.service {
                let (package, name) = (&file.package, &service.name);
                let of = service.method.iter();
                all.extend(of.map(|method| format!("/{package}.{name}/{}", method.name)));
            }
        }
        all
    }

    #[test]
    fn every_call_of_every_service_has_its_role_and_no_other_is_named() {
        let served: BTreeSet<String> = [
            crate::DESCRIPTORS,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        ]
        .into_iter()
        .flat_map(methods)
        .collect();
        // `List` of the health service is told by `Check` of its names.
        let served: BTreeSet<&str> = served
            .iter()
            .map(String::as_str)
            .filter(|path| *path != "/grpc.health.v1.Health/List")
            .collect();
        let named: BTreeSet<&str> = CALLS.iter().map(|(path, _)| *path).collect();
        assert_eq!(served, named);
        assert_eq!(named.len(), CALLS.len(), "a call is named twice");
    }

    #[test]
    fn what_the_table_does_not_name_is_closed_to_everybody() {
        let administrator = Caller::socket(Some(0));
        let status = admit(&administrator, "/hashpact.node.v1.Node/Future").unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented);
    }

    #[test]
    fn a_role_makes_its_calls_and_none_above_it() {
        for role in Role::ALL {
            let caller = Caller {
                role,
                ..Caller::loopback()
            };
            for (path, needed) in CALLS {
                let admitted = admit(&caller, path);
                assert_eq!(admitted.is_ok(), role >= *needed, "{role:?} {path}");
                if let Err(status) = admitted {
                    assert_eq!(status.code(), Code::PermissionDenied);
                }
            }
        }
    }

    #[test]
    fn a_node_that_only_witnesses_answers_nothing_about_hashes() {
        for path in WITNESS_CALLS {
            assert!(needed(path).is_some(), "{path}");
        }
        for (path, _) in CALLS {
            let does = witness_does(path);
            assert_eq!(does.is_ok(), WITNESS_CALLS.contains(path), "{path}");
        }
        for name in [
            "Lookup",
            "Match",
            "Import",
            "Export",
            "WatchChanges",
            "CreateSet",
        ] {
            let path = format!("/hashpact.node.v1.Node/{name}");
            assert_eq!(witness_does(&path).unwrap_err().code(), Code::Unimplemented);
        }
    }

    #[test]
    fn the_documented_roles_are_those_of_the_table() {
        let documented = include_str!("../../docs/API.md");
        for role in Role::ALL {
            let row = format!("| `{}` | ", role.name());
            let row = documented.lines().find_map(|line| line.strip_prefix(&row));
            let words = row.unwrap_or_else(|| panic!("no row of {}", role.name()));
            let said: BTreeSet<&str> = words
                .split(',')
                .filter_map(|word| word.trim().strip_prefix('`'))
                .filter_map(|word| word.split_once('`').map(|(name, _)| name))
                .collect();
            let calls = CALLS.iter().filter(|(_, needed)| *needed == role);
            let named: BTreeSet<&str> = calls
                .filter_map(|(path, _)| path.strip_prefix("/hashpact.node.v1.Node/"))
                .collect();
            assert_eq!(said, named, "{}", role.name());
        }
    }

    #[test]
    fn who_only_reads_changes_nothing() {
        for name in [
            "Import",
            "Retract",
            "Erase",
            "Opine",
            "CreateSet",
            "ChangeGrants",
        ] {
            let path = format!("/hashpact.node.v1.Node/{name}");
            assert!(needed(&path).unwrap() > Role::Read, "{name}");
        }
    }
}
