//! The audit feed in messages, and acts that a command does by itself.

use std::sync::Arc;

use hashpact_core::id::UnixMillis;
use hashpact_core::leaf::audit::{Act, OK, Segment, careful};
use hashpact_node::Node;
use hashpact_node::audit::{At, AuditFilter, AuditLeaf, AuditReport, Said};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::error::{lost, misuse, status};
use crate::recorded::{Asked, begin, finish};
use crate::wire;

/// Leaves in one message.
const LEAVES_AT_ONCE: usize = 256;
/// Messages that wait for a slow reader.
const WAITING: usize = 4;
/// What acts that commands say they did begin with: nobody else saw them.
const BY_COMMAND: &str = "command.";

type Answers<T> = ReceiverStream<Result<T, Status>>;

/// Hands the leaves that are wanted out, and those to come where it is asked for.
pub(crate) fn read(node: Arc<Node>, request: wire::AuditRequest) -> Answers<wire::AuditResponse> {
    let (tell, told) = mpsc::channel(WAITING);
    let follow = request.follow;
    let filter = Arc::new(filter(request));
    tokio::spawn(async move {
        // Before the first look, so that nothing falls between.
        let mut changed = node.audit().follow();
        let mut next = At::default();
        let mut first = true;
        loop {
            changed.mark_unchanged();
            let (node, filter, pages) = (Arc::clone(&node), Arc::clone(&filter), tell.clone());
            let read = tokio::task::spawn_blocking(move || page(&node, next, &filter, &pages));
            match read.await {
                Ok(Ok(at)) => next = at,
                Ok(Err(status)) => return drop(tell.send(Err(status)).await),
                Err(_) => return drop(tell.send(Err(lost("reading the audit feed"))).await),
            }
            if first {
                // Whoever follows knows from here on that all there was has come.
                let caught_up = wire::AuditResponse {
                    caught_up: true,
                    ..Default::default()
                };
                if tell.send(Ok(caught_up)).await.is_err() {
                    return;
                }
                first = false;
            }
            if !follow {
                return;
            }
            tokio::select! {
                changed = changed.changed() => if changed.is_err() { return },
                () = tell.closed() => return,
            }
        }
    });
    ReceiverStream::new(told)
}

fn filter(request: wire::AuditRequest) -> AuditFilter {
    let time = |ms: u64| (ms > 0).then_some(UnixMillis(ms));
    let text = |text: String| (!text.is_empty()).then_some(text);
    AuditFilter {
        since: time(request.since_ms),
        until: time(request.until_ms),
        member: text(request.member),
        act: text(request.act),
    }
}

fn page(
    node: &Node,
    from: At,
    filter: &AuditFilter,
    tell: &mpsc::Sender<Result<wire::AuditResponse, Status>>,
) -> Result<At, Status> {
    let mut leaves = Vec::new();
    let send = |leaves: &mut Vec<wire::AuditLeaf>| {
        let leaves = std::mem::take(leaves);
        let page = wire::AuditResponse {
            leaves,
            caught_up: false,
        };
        crate::places::hand(tell, Ok(page))
    };
    let read = node.audit().read(from, filter, &mut |leaf| {
        leaves.push(message(leaf));
        leaves.len() < LEAVES_AT_ONCE || send(&mut leaves)
    });
    let next = read.map_err(|error| status(&error))?;
    if !leaves.is_empty() {
        send(&mut leaves);
    }
    Ok(next)
}

fn message(leaf: AuditLeaf) -> wire::AuditLeaf {
    let said = match leaf.said {
        Said::Act(act) => Some(wire::audit_leaf::Said::Act(act_message(*act))),
        Said::Segment(segment) => Some(wire::audit_leaf::Said::SegmentBegan(segment_message(
            &segment,
        ))),
        Said::Unread => None,
    };
    wire::AuditLeaf {
        segment: leaf.at.segment,
        index: leaf.at.index,
        said,
    }
}

fn act_message(act: Act) -> wire::AuditAct {
    let pairs = |of: Vec<(String, String)>| {
        let pairs = of.into_iter();
        pairs
            .map(|(name, text)| wire::AuditDetail { name, text })
            .collect()
    };
    let counts = act.counts.into_iter();
    wire::AuditAct {
        began_ms: act.began.0,
        ended_ms: act.ended.0,
        act: act.act,
        outcome: act.outcome,
        set: act.set,
        member: act.member,
        role: act.actor.role.name().to_owned(),
        via: act.actor.via,
        name: act.actor.name,
        uid: act.actor.uid,
        command: act.actor.command,
        counts: counts
            .map(|(name, count)| wire::AuditCount { name, count })
            .collect(),
        details: pairs(act.details),
    }
}

fn segment_message(segment: &Segment) -> wire::AuditSegment {
    let before = segment.predecessor.as_ref();
    wire::AuditSegment {
        created_ms: segment.created.0,
        node: segment.node.to_string(),
        predecessor_id: before.map_or_else(String::new, |before| before.feed.to_string()),
        predecessor_size: before.map_or(0, |before| before.size),
        predecessor_root: before.map_or_else(String::new, |before| before.root.to_string()),
        broken: before
            .and_then(|before| before.broken)
            .map_or_else(String::new, |broken| broken.code().to_owned()),
    }
}

/// What a check found, as a message.
pub(crate) fn report(report: AuditReport) -> wire::VerifyAuditResponse {
    wire::VerifyAuditResponse {
        problems: report.problems,
        notices: report.notices,
        segments: report.segments,
        leaves: report.leaves,
        heads: report.heads,
        unsigned: report.unsigned,
        under_way: report.under_way,
        head: report.head,
    }
}

/// Records what a command does by itself: its first message says what begins, its
/// second how it ended. One that is gone before is recorded as interrupted.
pub(crate) async fn record(
    node: Arc<Node>,
    asked: Asked,
    mut requests: Streaming<wire::RecordRequest>,
) -> Result<Answers<wire::RecordResponse>, Status> {
    let first = requests
        .message()
        .await?
        .ok_or_else(|| misuse("the first message says what begins"))?;
    let word = |text: &str| {
        text.bytes()
            .all(|b| b.is_ascii_lowercase() || b"-.".contains(&b))
    };
    if first.act.is_empty() || first.act.len() > 64 || !word(&first.act) {
        return Err(misuse("an act is words of a to z, joined by . or -"));
    }
    let mut act = asked.act(&format!("{BY_COMMAND}{}", first.act));
    if let Ok(member) = hashpact_core::id::Slug::parse(&first.member) {
        act = act.of_member(member);
    }
    details(&mut act, first);
    let mut ticket = begin(&node, act).await?;
    let (tell, told) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        let begun = wire::RecordResponse {};
        if tell.send(Ok(begun)).await.is_err() {
            return;
        }
        // Dropped, the ticket says that nobody knows how it ended.
        let Ok(Some(last)) = requests.message().await else {
            return;
        };
        let outcome = if last.failed { "failed" } else { OK };
        details(ticket.act(), last);
        finish(ticket, outcome.to_owned()).await;
        let _ = tell.send(Ok(wire::RecordResponse {})).await;
    });
    Ok(ReceiverStream::new(told))
}

fn details(act: &mut Act, request: wire::RecordRequest) {
    for count in request.counts.into_iter().take(8) {
        act.count(&careful(&count.name), count.count);
    }
    for detail in request.details.into_iter().take(8) {
        act.said(&careful(&detail.name), &detail.text);
    }
}
