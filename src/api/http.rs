//! `/live`, `/ready` and `/metrics` over HTTP: states and counts, nothing else.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use hashpact_node::expiry::Stage;
use hashpact_node::journal::RecheckOf;
use hashpact_node::model::{Reason, Room};
use hashpact_node::{Node, NodeError};
use metrics::{describe_gauge, gauge};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::about::About;
use crate::error::ApiError;
use crate::status::{days_left, resident_bytes};
use crate::web;

/// What the pages are made from.
#[derive(Clone)]
pub struct Pages {
    node: Arc<Node>,
    about: Arc<About>,
    metrics: PrometheusHandle,
}

/// What `/ready` says.
#[derive(Debug, Serialize)]
#[expect(
    clippy::struct_field_names,
    reason = "the names are those of the JSON object"
)]
struct Ready {
    ready: bool,
    /// Whether PDQ is answered within a distance; exact look-ups answer before it.
    near_ready: bool,
    /// What there is room for on the store's volume: ample, `records_only` (retractions
    /// and erasures) or nothing.
    store_room: &'static str,
    /// Why not; empty when it is.
    reasons: Vec<String>,
}

impl Pages {
    /// Pages about `node`; `metrics` renders what the process' recorder holds.
    #[must_use]
    pub fn new(node: Arc<Node>, about: About, metrics: PrometheusHandle) -> Self {
        Self {
            node,
            about: Arc::new(about),
            metrics,
        }
    }

    /// Serves the pages until `shutdown`, with the limits of [`web`].
    ///
    /// # Errors
    /// None at present.
    pub async fn serve(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), ApiError> {
        let router = self.router();
        let stop = CancellationToken::new();
        let incoming = web::from_loopback(listener);
        let told = stop.clone();
        tokio::join!(web::serve(incoming, router, stop), async move {
            shutdown.await;
            told.cancel();
        });
        Ok(())
    }

    /// Listens for the pages.
    ///
    /// # Errors
    /// What the system says.
    pub async fn listen(address: SocketAddr) -> Result<TcpListener, ApiError> {
        let bound = TcpListener::bind(address).await;
        bound.map_err(|source| ApiError::Io {
            path: address.to_string(),
            source,
        })
    }

    fn router(self) -> Router {
        Router::new()
            .route("/live", get(async || "live\n"))
            .route("/ready", get(ready))
            .route("/metrics", get(metrics))
            .with_state(self)
    }
}

async fn ready(State(pages): State<Pages>) -> Response {
    let Ok(ready) = tokio::task::spawn_blocking(move || readiness(&pages.node)).await else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let code = if ready.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (code, Json(ready)).into_response()
}

fn readiness(node: &Node) -> Ready {
    let mut reasons = Vec::new();
    if node.membership().state().chain.is_none() {
        reasons.push("no roster of the coalition yet".to_owned());
    }
    reasons.extend(node.why_not_ready().into_iter().map(ToOwned::to_owned));
    Ready {
        ready: reasons.is_empty(),
        near_ready: node.near_loading().0,
        store_room: node
            .store()
            .room()
            .map_or("unknown", |(room, _)| room.name()),
        reasons,
    }
}

async fn metrics(State(pages): State<Pages>) -> Response {
    let refreshed = tokio::task::spawn_blocking(move || {
        gathered(&pages.node, &pages.about).map(|read| read + &pages.metrics.render())
    });
    match refreshed.await {
        Ok(Ok(text)) => {
            let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
            (kind, text).into_response()
        }
        Ok(Err(error)) => {
            tracing::error!(%error, "metrics could not be gathered");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// The gauges that are read off the node, made anew each time: a consumer, a feed or a
/// peer that is gone is gone from here as well. Blocking.
fn gathered(node: &Node, about: &About) -> Result<String, NodeError> {
    let recorder = PrometheusBuilder::new().build_recorder();
    ::metrics::with_local_recorder(&recorder, || {
        describe();
        refresh(node, about)
    })?;
    Ok(recorder.handle().render())
}

/// Sets these gauges. Blocking.
#[expect(
    clippy::cast_precision_loss,
    reason = "gauges are floating-point numbers"
)]
fn refresh(node: &Node, about: &About) -> Result<(), NodeError> {
    let status = node.status()?;
    let now = node.clock().now();
    gauge!("hashpact_ready").set(if status.ready { 1.0 } else { 0.0 });
    gauge!("hashpact_feeds").set(status.feeds as f64);
    gauge!("hashpact_leaves").set(status.leaves as f64);
    gauge!("hashpact_live_entries").set(status.live_entries as f64);
    gauge!("hashpact_store_bytes").set(status.store_bytes as f64);
    let (room, space) = node.store().room()?;
    gauge!("hashpact_store_free_bytes").set(space.free_bytes as f64);
    for state in [Room::Ample, Room::RecordsOnly, Room::Nothing] {
        let here = if room == state { 1.0 } else { 0.0 };
        gauge!("hashpact_store_room", "state" => state.name()).set(here);
    }
    gauge!("hashpact_resident_bytes").set(resident_bytes() as f64);
    gauge!("hashpact_peers").set(status.peers as f64);
    gauge!("hashpact_peers_connected").set(status.peers_connected as f64);
    gauge!("hashpact_roster_version").set(status.roster_version as f64);
    gauge!("hashpact_roster_days_left").set(days_left(now, status.roster_expires));
    gauge!("hashpact_card_days_left").set(days_left(now, status.card_expires));
    if let Some(expires) = node.certificate_expires().or(about.certificate_expires) {
        gauge!("hashpact_certificate_days_left").set(days_left(now, expires));
    }
    gauge!("hashpact_quarantined_entries").set(status.quarantined as f64);
    let refused = if node.policy_is_refused() { 1.0 } else { 0.0 };
    gauge!("hashpact_policy_refused").set(refused);
    gauge!("hashpact_policy_rules").set(status.policy_rules as f64);
    gauge!("hashpact_mutes").set(status.mutes as f64);
    let asked = node.recheck_requests(&RecheckOf::default())?.len();
    gauge!("hashpact_rechecks_asked").set(asked as f64);
    let kept = node.store().journal_numbers()?;
    let kept = kept.end.saturating_sub(kept.start);
    gauge!("hashpact_match_journal_entries").set(kept as f64);
    let mut reasons = Reason::ALL.map(|reason| (reason, 0_u64));
    for lot in node.quarantine(None, None)? {
        let of = reasons
            .iter_mut()
            .filter(|(reason, _)| *reason == lot.reason);
        of.for_each(|(_, held)| *held = held.saturating_add(lot.held));
    }
    for (reason, held) in reasons {
        gauge!("hashpact_quarantine_held", "reason" => reason.code()).set(held as f64);
    }
    let reported = node.reported_by_reason();
    for reason in Reason::ALL {
        let held = reported.get(reason.code()).copied().unwrap_or_default();
        gauge!("hashpact_reported_quarantined", "reason" => reason.code()).set(held as f64);
    }
    for state in ["fresh", "grace", "stale"] {
        let here = if status.roster_state == state {
            1.0
        } else {
            0.0
        };
        gauge!("hashpact_roster_state", "state" => state).set(here);
    }
    if let Some(near) = node.near().map(|near| near.status()) {
        gauge!("hashpact_near_ready").set(if near.ready { 1.0 } else { 0.0 });
        gauge!("hashpact_near_pending_values").set(near.pending as f64);
        gauge!("hashpact_near_values").set(near.stats.values as f64);
        gauge!("hashpact_near_bytes").set(near.stats.memory_bytes as f64);
        if let Some(age) = near.age {
            gauge!("hashpact_near_age_seconds").set(age.as_secs_f64());
        }
    }
    for consumer in node.consumers()? {
        let labels = [("consumer", consumer.name.to_string())];
        gauge!("hashpact_change_consumer_behind", &labels).set(consumer.behind as f64);
        let lost = if consumer.lost { 1.0 } else { 0.0 };
        gauge!("hashpact_change_consumer_lost", &labels).set(lost);
    }
    let ends = [
        ("roster", Some(status.roster_expires)),
        ("card", Some(status.card_expires)),
        ("certificate", node.certificate_expires()),
    ];
    for (what, end) in ends {
        if let Some(end) = end.filter(|end| end.0 > 0) {
            let level = Stage::of(end, now).level();
            gauge!("hashpact_expiry_alarm", "of" => what).set(f64::from(level));
        }
    }
    refresh_exchange(node);
    Ok(())
}

/// What is held of each feed, and how each peer stands.
#[expect(
    clippy::cast_precision_loss,
    reason = "gauges are floating-point numbers"
)]
fn refresh_exchange(node: &Node) {
    let now = node.clock().now();
    let feeds = node.feeds();
    for feed in &feeds {
        let labels = [("feed", feed.name.clone())];
        gauge!("hashpact_feed_stored_leaves", &labels).set(feed.stored as f64);
        gauge!("hashpact_feed_indexed_leaves", &labels).set(feed.indexed as f64);
        gauge!("hashpact_missing_leaves", &labels).set(feed.missing as f64);
        let lag = feed.head.saturating_sub(feed.indexed);
        gauge!("hashpact_feed_lag_leaves", &labels).set(lag as f64);
        if let Some(judged) = &feed.judged {
            let stale = if judged.stale { 1.0 } else { 0.0 };
            gauge!("hashpact_feed_stale", &labels).set(stale);
            gauge!("hashpact_feed_witnesses_fresh", &labels).set(judged.fresh() as f64);
        }
    }
    let names: HashMap<_, _> = feeds.iter().map(|feed| (feed.id, &feed.name)).collect();
    for lag in node.exchange().map(|view| view.lags()).unwrap_or_default() {
        let Some(name) = names.get(&lag.feed) else {
            continue;
        };
        let labels = [("peer", lag.peer), ("feed", (*name).clone())];
        gauge!("hashpact_feed_lag_leaves", &labels).set(lag.leaves as f64);
    }
    for peer in node.exchange().map(|view| view.peers()).unwrap_or_default() {
        let labels = [
            ("member", peer.slug.to_string()),
            ("node", peer.node.to_string()),
        ];
        let connected = peer.state == "connected";
        gauge!("hashpact_peer_connected", &labels).set(if connected { 1.0 } else { 0.0 });
        if peer.last_seen.0 > 0 {
            let silent_s = now.since(peer.last_seen) as f64 / 1_000.0;
            gauge!("hashpact_peer_silent_seconds", &labels).set(silent_s);
        }
    }
}

/// Every gauge and what it says.
const GAUGES: &[(&str, &str)] = &[
    ("hashpact_ready", "1 when the node answers and exchanges"),
    ("hashpact_feeds", "Feeds held"),
    ("hashpact_leaves", "Leaves that look-ups answer from"),
    (
        "hashpact_live_entries",
        "Entries neither retracted, replaced nor erased",
    ),
    ("hashpact_store_bytes", "Bytes of the store on disk"),
    (
        "hashpact_store_free_bytes",
        "Bytes free on the store's volume, less what bulk loads are about to need",
    ),
    (
        "hashpact_store_room",
        "1 for what there is room for: ample, records_only or nothing",
    ),
    ("hashpact_resident_bytes", "Memory of the process"),
    (
        "hashpact_near_ready",
        "1 when PDQ is answered within a distance",
    ),
    (
        "hashpact_near_pending_values",
        "PDQ values known of which near ones are not found yet",
    ),
    ("hashpact_near_values", "PDQ values in the near index"),
    ("hashpact_near_bytes", "Memory of the near index"),
    (
        "hashpact_near_age_seconds",
        "Since the near index was last made from the store; it follows changes in between",
    ),
    (
        "hashpact_change_consumer_behind",
        "Notes of changes that the consumer has not acknowledged",
    ),
    (
        "hashpact_change_consumer_lost",
        "1 when the consumer has to start over",
    ),
    ("hashpact_peers", "Other nodes on the members' cards"),
    ("hashpact_peers_connected", "Of these, connected"),
    ("hashpact_roster_version", "Version of the roster in force"),
    ("hashpact_roster_days_left", "Days until the roster expires"),
    (
        "hashpact_card_days_left",
        "Days until this member's node card expires",
    ),
    (
        "hashpact_certificate_days_left",
        "Days until the TLS certificate expires",
    ),
    (
        "hashpact_expiry_alarm",
        "Thresholds passed of 30, 14, 7 and 1 days before the end; 5 when it is over",
    ),
    (
        "hashpact_feed_stored_leaves",
        "Leaves of the feed, verified and durable",
    ),
    (
        "hashpact_feed_indexed_leaves",
        "Leaves of the feed that look-ups answer from",
    ),
    (
        "hashpact_feed_lag_leaves",
        "Leaves under the newest head heard of that look-ups do not answer from",
    ),
    (
        "hashpact_feed_stale",
        "1 while no witness has cosigned the feed for 30 minutes",
    ),
    (
        "hashpact_feed_witnesses_fresh",
        "Witnesses that have cosigned the feed in the last 30 minutes",
    ),
    (
        "hashpact_policy_refused",
        "1 while the newest policy that was read is wrong, and the old one in force",
    ),
    ("hashpact_policy_rules", "Rules of the policy in force"),
    ("hashpact_mutes", "Mutes that have not run out"),
    (
        "hashpact_rechecks_asked",
        "Retractions whose publishers ask to recheck, not acknowledged",
    ),
    (
        "hashpact_match_journal_entries",
        "Answers kept in the match journal",
    ),
    (
        "hashpact_missing_leaves",
        "Leaves that somebody left out without reason, asked for elsewhere",
    ),
    (
        "hashpact_quarantined_entries",
        "Entries that wait in quarantine and do not match",
    ),
    (
        "hashpact_quarantine_held",
        "Entries that wait in quarantine, by reason; one may have several",
    ),
    (
        "hashpact_reported_quarantined",
        "Own entries that a peer says it holds back, by reason; the most that one node says",
    ),
    (
        "hashpact_roster_state",
        "1 for the state of the roster: fresh, grace or stale",
    ),
    ("hashpact_peer_connected", "1 while the node is connected"),
    (
        "hashpact_peer_silent_seconds",
        "Seconds since the node said something",
    ),
];

fn describe() {
    for (name, text) in GAUGES {
        describe_gauge!(*name, *text);
    }
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use hashpact_core::id::Slug;
    use hashpact_node::model::{NewSet, SetSource};
    use tempfile::TempDir;
    use tower::ServiceExt as _;

    use super::*;

    async fn page(router: &Router, path: &str) -> (StatusCode, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_node_that_is_not_ready_says_why_and_lives_all_the_same() {
        let folder = TempDir::new().unwrap();
        let node = crate::tests::node(&folder);
        let handle = PrometheusBuilder::new().build_recorder().handle();
        let router = Pages::new(Arc::clone(&node), About::default(), handle).router();
        assert_eq!(page(&router, "/ready").await.0, StatusCode::OK);
        assert_eq!(page(&router, "/metrics").await.0, StatusCode::OK);
        node.set_ready(false);
        let (status, body) = page(&router, "/ready").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(body.contains("starting"), "{body}");
        assert_eq!(page(&router, "/live").await.0, StatusCode::OK);
        assert_eq!(page(&router, "/entries").await.0, StatusCode::NOT_FOUND);
    }

    fn pages(node: &Arc<Node>) -> Router {
        let handle = PrometheusBuilder::new().build_recorder().handle();
        Pages::new(Arc::clone(node), About::default(), handle).router()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_there_is_room_for_is_the_same_on_every_page_and_does_not_flicker() {
        let folder = TempDir::new().unwrap();
        let node = crate::tests::node(&folder);
        let router = pages(&node);
        let free = node.store().room().unwrap().1.free_bytes;
        // Short, then a sixteenth over the minimum, then an eighth and more.
        for (min, room) in [
            (free / 4, "ample"),
            (free.saturating_mul(2), "records_only"),
            (free / 17 * 16, "records_only"),
            (free / 4, "ample"),
        ] {
            node.store().set_free_min_bytes(min);
            let (_, ready) = page(&router, "/ready").await;
            assert!(
                ready.contains(&format!("\"store_room\":\"{room}\"")),
                "{ready}"
            );
            let (_, metrics) = page(&router, "/metrics").await;
            let says = format!("hashpact_store_room{{state=\"{room}\"}} 1");
            assert!(metrics.contains(&says), "{says}: {metrics}");
            let notices = node.status().unwrap().notices.join(" ");
            assert_eq!(notices.contains("disk_low"), room != "ample", "{notices}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_consumer_that_was_removed_is_gone_from_the_metrics() {
        let folder = TempDir::new().unwrap();
        let node = crate::tests::node(&folder);
        let router = pages(&node);
        let name = Slug::parse("gone").unwrap();
        node.begin_snapshot(&name, "a test").unwrap();
        let shown = || async {
            let (_, metrics) = page(&router, "/metrics").await;
            metrics.contains("consumer=\"gone\"")
        };
        assert!(shown().await);
        node.remove_consumer(&name).unwrap();
        assert!(!shown().await);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn every_metric_of_a_set_goes_by_its_name_and_goes_with_it() {
        let folder = TempDir::new().unwrap();
        let node = crate::tests::node(&folder);
        let router = pages(&node);
        let made = node.create_set(&NewSet {
            set: Slug::parse("confirmed").unwrap(),
            title: "A set".to_owned(),
            source: SetSource::OwnWork,
            classification_scheme: "tc".to_owned(),
            grants: Vec::new(),
        });
        let feed = made.unwrap().feed;
        let of_feeds = || async {
            let (_, metrics) = page(&router, "/metrics").await;
            let lines = metrics.lines().filter(|line| line.contains("feed=\""));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        node.look_for_stale().unwrap();
        let shown = of_feeds().await;
        for name in ["hashpact_feed_stale", "hashpact_feed_witnesses_fresh"] {
            let line = format!("{name}{{feed=\"north/confirmed\"}} 0");
            assert!(shown.contains(&line), "{shown:?}");
        }
        assert!(
            shown.iter().all(|line| line.contains("north/confirmed")),
            "{shown:?}"
        );
        let no = node.store().feed_no(&feed).unwrap();
        node.store().drop_feed(no).unwrap();
        assert_eq!(of_feeds().await, Vec::<String>::new());
    }
}
