//! Opinions in messages: what this member says, what all said, and what of it stands
//! beside a match.

use hashpact_core::id::{Digest, EntryName, FeedId, Slug};
use hashpact_core::leaf::audit::Act;
use hashpact_core::leaf::{Reason, Stance, Subject};
use hashpact_core::signal::SignalKind;
use hashpact_node::model::{Opine, OpineAbout, Saying};
use hashpact_node::opinions::{
    About, LISTED_MAX, ListedOpinion, OpinionList, OpinionView, Opinions, Which,
};
use hashpact_node::{Node, NodeError};
use tonic::{Request, Response, Status};
use tracing::info;

use crate::convert::{self, own_set, set_name, signal_to_wire};
use crate::error::status;
use crate::recorded::Asked;
use crate::service::NodeService;
use crate::wire;

/// Opinions that are told of one match.
const TOLD_MAX: usize = 16;

/// Says, changes or withdraws an opinion, recorded in the audit feed.
pub(crate) async fn opine(
    service: &NodeService,
    request: Request<wire::OpineRequest>,
) -> Result<Response<wire::OpineResponse>, Status> {
    let mut act = Asked::of(&request).act("opine");
    let opine = read(&service.node(), request.into_inner()).map_err(|error| status(&error))?;
    if let OpineAbout::Entry { entry, .. } = &opine.about {
        act = act.of_set(entry.set.to_string());
    }
    let said = service
        .act("opine", act, move |node, act| note(node, &opine, act))
        .await?;
    info!(set = %said.set, replaced = said.replaced, "an opinion was said");
    Ok(Response::new(said))
}

/// Carries it out. No value of a signal stands in the record.
fn note(node: &Node, opine: &Opine, act: &mut Act) -> Result<wire::OpineResponse, NodeError> {
    match &opine.about {
        OpineAbout::Entry { entry, kind } => {
            act.detail("entry", entry);
            if let Some(kind) = kind {
                act.detail("kind", kind.name());
            }
        }
        OpineAbout::Gone { feed, .. } => act.detail("feed", feed),
        OpineAbout::Signal(signal) => act.detail("signal_kind", signal.kind().name()),
    }
    match &opine.says {
        Some(says) => {
            act.detail("stance", says.stance.name());
            act.detail("reason", says.reason.name);
            act.count("confidence", says.confidence.into());
        }
        None => act.detail("stance", "withdrawn"),
    }
    let said = node.opine(opine)?;
    act.detail("opinions", &said.set);
    let replaced = u64::try_from(said.replaced).unwrap_or(u64::MAX);
    act.count("replaced", replaced);
    if let Some(index) = said.index {
        act.count("leaf_index", index);
    }
    Ok(wire::OpineResponse {
        set: said.set,
        set_is_new: said.is_new,
        granted: said.granted,
        index: said.index,
        replaced,
        head_size: said.size,
    })
}

fn read(node: &Node, message: wire::OpineRequest) -> Result<Opine, NodeError> {
    let misuse = |why: &str| NodeError::Misuse(why.to_owned());
    let about = match message.about {
        Some(wire::opine_request::About::Entry(text)) => {
            let kind = kind(message.kind)?;
            match of_feed(&text) {
                Some((feed, first)) => OpineAbout::Gone { feed, first, kind },
                None => OpineAbout::Entry {
                    entry: entry(node, &text)?,
                    kind,
                },
            }
        }
        Some(wire::opine_request::About::Signal(_)) if message.kind > 0 => {
            return Err(misuse("a kind is of an entry; a signal has its own"));
        }
        Some(wire::opine_request::About::Signal(message)) => {
            OpineAbout::Signal(convert::signal(message)?)
        }
        None => return Err(misuse("an opinion names an entry, or an own signal")),
    };
    let says = if message.withdraw {
        if !(message.stance.is_empty() && message.reason.is_empty()) {
            return Err(misuse("what is withdrawn has no stance and no reason"));
        }
        None
    } else {
        let stance = Stance::parse(&message.stance);
        let reason = Reason::parse(&message.reason);
        let confidence = u8::try_from(message.confidence.unwrap_or(100)).unwrap_or(u8::MAX);
        Some(Saying {
            stance: stance.ok_or_else(|| misuse("a stance is positive, seed or negative"))?,
            reason: reason.ok_or_else(|| {
                misuse("there is no such reason; hashpact opine --reasons lists them")
            })?,
            confidence,
        })
    };
    let set = match message.set.as_str() {
        "" => None,
        set => Some(own_set(node, set)?),
    };
    Ok(Opine {
        about,
        says,
        note: message.note,
        set,
    })
}

fn kind(number: u32) -> Result<Option<SignalKind>, NodeError> {
    if number == 0 {
        return Ok(None);
    }
    let kind = SignalKind::from_number(number);
    kind.map(Some)
        .ok_or_else(|| NodeError::Misuse(format!("no kind of signal has the number {number}")))
}

/// `feed id#index`, as opinions on entries of sets that are not held are listed.
fn of_feed(text: &str) -> Option<(FeedId, u64)> {
    let (feed, index) = text.split_once('#')?;
    let digest = Digest::from_hex(feed).ok()?;
    Some((FeedId(digest), index.parse().ok()?))
}

/// `member/set#index`, or `set#index` of this member.
fn entry(node: &Node, text: &str) -> Result<EntryName, NodeError> {
    let full = match text.split_once('#') {
        Some((set, index)) if !set.contains('/') => {
            let set = Slug::parse(set).map_err(|error| NodeError::Misuse(error.to_string()))?;
            format!("{}/{set}#{index}", node.member_slug())
        }
        Some(_) | None => text.to_owned(),
    };
    EntryName::parse(&full).map_err(|error| NodeError::Misuse(error.to_string()))
}

/// Lists opinions.
pub(crate) async fn list(
    service: &NodeService,
    request: Request<wire::ListOpinionsRequest>,
) -> Result<Response<wire::ListOpinionsResponse>, Status> {
    let request = request.into_inner();
    let which = which(&service.node(), &request).map_err(|error| status(&error))?;
    let limit = match usize::try_from(request.limit) {
        Ok(0) | Err(_) => LISTED_MAX,
        Ok(limit) => limit,
    };
    let after = request.after;
    let listed = service
        .call("opinions", move |node| {
            let after = (!after.is_empty()).then_some(after.as_ref());
            node.list_opinions(&which, after, limit)
        })
        .await?;
    Ok(Response::new(listed_to_wire(listed)))
}

fn which(node: &Node, request: &wire::ListOpinionsRequest) -> Result<Which, NodeError> {
    match (request.entry.as_str(), request.set.as_str(), request.own) {
        ("", "", false) => Ok(Which::All),
        ("", "", true) => Ok(Which::Own),
        ("", set, false) => Ok(Which::Set(set_name(node, set)?)),
        (text, "", false) => Ok(Which::Entry(entry(node, text)?)),
        _ => Err(NodeError::Misuse(
            "opinions are listed of an entry, of a set, or of this member".to_owned(),
        )),
    }
}

fn listed_to_wire(listed: OpinionList) -> wire::ListOpinionsResponse {
    wire::ListOpinionsResponse {
        opinions: listed.opinions.into_iter().map(listed_one).collect(),
        next: listed.next.unwrap_or_default().into(),
    }
}

fn listed_one(listed: ListedOpinion) -> wire::Opinion {
    let opinion = listed.opinion;
    let (kind, signal) = match &opinion.subject {
        Subject::Entry { kind, .. } => (kind.unwrap_or_default(), None),
        Subject::OwnSignal(signal) => (0, Some(signal_to_wire(signal))),
    };
    let entry = listed.entry;
    wire::Opinion {
        entry_held: entry.as_ref().is_some_and(|entry| entry.held),
        entry: entry.map(|entry| entry.name).unwrap_or_default(),
        kind,
        signal,
        member: listed.member.to_string(),
        set: listed.set,
        index: listed.index,
        stance: opinion.stance.name().to_owned(),
        confidence: opinion.confidence.into(),
        reason_id: opinion.reason_id,
        reason: reason_name(opinion.reason_id),
        note: opinion.note,
        said_ms: opinion.created.0,
        in_doubt: listed.in_doubt,
        counts: listed.counts,
    }
}

fn reason_name(id: u32) -> String {
    Reason::of(id).map_or_else(String::new, |reason| reason.name.to_owned())
}

/// What members think of a match; `None` where nobody said anything.
pub(crate) fn of_match(
    opinions: Opinions,
    mut slug: impl FnMut(hashpact_core::id::MemberNumber) -> String,
) -> Option<wire::Opinions> {
    if opinions.told.is_empty() {
        return None;
    }
    let more = opinions.more || opinions.told.len() > TOLD_MAX;
    let told = opinions.told.into_iter().take(TOLD_MAX);
    Some(wire::Opinions {
        positive: opinions.stances.positive,
        seed: opinions.stances.seed,
        negative: opinions.stances.negative,
        told: told
            .map(|view| told_one(&view, slug(view.member)))
            .collect(),
        more,
    })
}

fn told_one(view: &OpinionView, member: String) -> wire::MatchOpinion {
    let about = match view.about {
        About::Entry => "entry",
        About::Kind => "kind",
        About::Signal => "signal",
    };
    wire::MatchOpinion {
        member,
        stance: view.stance.name().to_owned(),
        confidence: view.confidence.into(),
        reason_id: view.reason_id,
        reason: reason_name(view.reason_id),
        said_ms: view.created.0,
        about: about.to_owned(),
        feed_id: view.feed.as_bytes().to_vec().into(),
        index: view.index,
        in_doubt: view.in_doubt,
    }
}
