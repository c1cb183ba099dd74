//! Entries over the local API, page by page, to so many clients at one time. One that
//! takes nothing is given up.

use std::collections::BTreeSet;
use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use hashpact_core::leaf::audit::OK;
use hashpact_core::policy::Verdict;
use hashpact_node::audit::Ticket;
use hashpact_node::caller::{Role, Who};
use hashpact_node::model::ExportedEntry;
use hashpact_node::{Node, NodeError};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status};
use tracing::info;

use crate::error::{overloaded, refused, status};
use crate::places::{self, Place, Places};
use crate::recorded::{self, Asked};
use crate::{convert, wire};

/// Pages of an export, or of what a check says, that wait for a slow reader.
pub(crate) const EXPORT_WAITING: usize = 4;

/// Exports at one time, each of which holds a thread, and of them those of one client.
const EXPORTS_MAX: usize = 16;
const CLIENT_MAX: usize = 4;
/// Exports an hour that a client below the role administer may begin, each of which is
/// a leaf of the audit feed; as many at once.
const AN_HOUR: NonZero<u32> = NonZero::new(120).unwrap();
/// What one that found no room waits.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Who exports at present, and how often.
#[derive(Clone)]
pub(crate) struct Exports {
    places: Places,
    often: Arc<DefaultKeyedRateLimiter<Who>>,
}

impl Default for Exports {
    fn default() -> Self {
        Self {
            places: Places::new(EXPORTS_MAX, CLIENT_MAX),
            often: Arc::new(RateLimiter::keyed(Quota::per_hour(AN_HOUR))),
        }
    }
}

impl Exports {
    /// Records that somebody follows the changes: where everything that there is comes
    /// first, which is an export, and where an administrator does.
    pub(crate) async fn begin_follow(
        &self,
        node: &Arc<Node>,
        asked: &Asked,
        request: &wire::WatchChangesRequest,
    ) -> Result<Option<Ticket>, Status> {
        if !request.snapshot && !asked.is_person() {
            return Ok(None);
        }
        self.check_often(asked)?;
        let mut act = asked.act("changes.follow");
        act.said("consumer", &request.consumer);
        act.count("snapshot", request.snapshot.into());
        recorded::begin(node, act).await.map(Some)
    }

    /// Each is a leaf of the audit feed, which nobody below the role administer may fill.
    fn check_often(&self, asked: &Asked) -> Result<(), Status> {
        let often = asked.role() < Role::Administer && self.often.check_key(asked.who()).is_err();
        if often {
            return Err(overloaded(RETRY_AFTER));
        }
        Ok(())
    }

    fn place(&self, asked: &Asked) -> Result<Place, Status> {
        let who = asked.who();
        let place = self
            .places
            .take(who)
            .ok_or_else(|| overloaded(RETRY_AFTER))?;
        self.check_often(asked)?;
        Ok(place)
    }
}

pub(crate) type Exported = ReceiverStream<Result<wire::ExportResponse, Status>>;

/// Writes one set, or all that may be shared on; recorded before the first entry goes
/// out.
pub(crate) async fn export(
    node: &Arc<Node>,
    exports: &Exports,
    request: Request<wire::ExportRequest>,
) -> Result<Exported, Status> {
    let asked = Asked::of(&request);
    let place = exports.place(&asked)?;
    let act = asked.act("export");
    let request = request.into_inner();
    let set = match request.set.as_str() {
        "" => None,
        text => {
            let name = convert::set_name(node, text);
            Some(name.map_err(|error| refused(&error))?)
        }
    };
    let only = verdicts(&request).map_err(|error| status(&error))?;
    let act = match &set {
        Some(set) => act.of_set(set),
        None => act,
    };
    // Before the first entry goes out.
    let mut ticket = recorded::begin(node, act).await?;
    let (pages, stream) = mpsc::channel(EXPORT_WAITING);
    let node = Arc::clone(node);
    tokio::task::spawn_blocking(move || {
        let mut exported = 0;
        let mut heard = true;
        let mut sink = |mut page: Vec<ExportedEntry>| {
            if !only.is_empty() {
                page.retain(|entry| entry.verdict.is_some_and(|verdict| only.contains(&verdict)));
            }
            if page.is_empty() {
                return true;
            }
            exported += page.len();
            let entries = page.into_iter().map(convert::exported).collect();
            heard = places::hand(&pages, Ok(wire::ExportResponse { entries }));
            heard
        };
        let (set, dead) = (set.as_ref(), request.include_dead);
        let done = node.export(set, (dead, request.verdicts), &mut sink);
        let act = ticket.act();
        act.count("exported", u64::try_from(exported).unwrap_or(u64::MAX));
        act.count("include_dead", request.include_dead.into());
        match &done {
            Ok(()) if heard => ticket.finish(OK),
            Ok(()) => ticket.finish("cancelled"),
            Err(error) => ticket.finish(error.code()),
        }
        info!(
            set = set.map(ToString::to_string),
            exported, "entries exported"
        );
        if let Err(error) = done {
            // Nobody is left to tell when the receiver is gone.
            places::hand(&pages, Err(status(&error)));
        }
        drop(place);
    });
    Ok(ReceiverStream::new(stream))
}

fn verdicts(request: &wire::ExportRequest) -> Result<BTreeSet<Verdict>, NodeError> {
    let misuse = |why: String| NodeError::Misuse(why);
    if !request.verdicts && !request.only_verdicts.is_empty() {
        return Err(misuse("only_verdicts takes verdicts".to_owned()));
    }
    let words = request.only_verdicts.iter();
    let read = words.map(|word| Verdict::parse(word).map_err(|error| misuse(error.to_string())));
    read.collect()
}
