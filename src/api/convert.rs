//! Messages of the local API to the node's types and back.
//!
//! One item that cannot be converted is an answer about that item; it never spoils
//! the others of its message. No error carries a value.

use hashpact_core::id::{EntryName, SetName, Slug, UnixMillis};
use hashpact_core::leaf::{Basis, Classification, MediaKind, Publish, RetractReason};
use hashpact_core::reject::Rejection;
use hashpact_core::signal::{Signal, SignalKind};
use hashpact_node::model::{
    ExportedEntry, Grantee, ImportProgress, LineRejection, MatchStanding, NewEntry, NewSet,
    Retracted, RosterImport, Selector, SetInfo, SetSource,
};
use hashpact_node::{Node, NodeError};

use crate::wire;

/// What is refused about a name, kind or word.
fn invalid(what: &'static str, why: impl Into<String>) -> Rejection {
    Rejection::invalid(what, why)
}

/// Reads a signal.
pub(crate) fn signal(message: wire::Signal) -> Result<Signal, Rejection> {
    let kind = SignalKind::from_number(message.kind)
        .ok_or_else(|| invalid("signal", format!("no kind has the number {}", message.kind)))?;
    let quality = message
        .quality
        .map(|quality| u8::try_from(quality).map_err(|_| invalid("signal", "quality above 100")))
        .transpose()?;
    Signal::new(kind, message.value, quality)
}

/// Writes a signal.
pub(crate) fn signal_to_wire(signal: &Signal) -> wire::Signal {
    wire::Signal {
        kind: signal.kind().number(),
        value: signal.value().clone(),
        quality: signal.quality().map(u32::from),
    }
}

/// Reads an entry to publish. What is left empty stands for the default: other
/// media, judged by people.
pub(crate) fn entry(message: wire::Entry) -> Result<NewEntry, Rejection> {
    let signals: Result<Vec<Signal>, Rejection> = message.signals.into_iter().map(signal).collect();
    let classification = (!message.classification.is_empty())
        .then(|| Classification::parse(&message.classification))
        .transpose()?;
    let time = |millis: u64| (millis > 0).then_some(UnixMillis(millis));
    Ok(NewEntry {
        body: Publish {
            media_kind: media_kind(&message.media_kind)?,
            signals: signals?,
            classification,
            labels: message.labels,
            basis: basis(&message.basis)?,
            source_reference: message.source_reference,
            first_seen: time(message.first_seen_ms),
            expires: time(message.expires_ms),
            replaces: Vec::new(),
            published: UnixMillis(0),
        },
        line: message.line,
    })
}

fn media_kind(name: &str) -> Result<MediaKind, Rejection> {
    Ok(match name {
        "image" => MediaKind::Image,
        "video" => MediaKind::Video,
        "url" => MediaKind::Url,
        "other" | "" => MediaKind::Other,
        _ => return Err(invalid("media kind", "is image, video, url or other")),
    })
}

fn basis(name: &str) -> Result<Basis, Rejection> {
    Ok(match name {
        "human" | "" => Basis::Human,
        "automated" => Basis::Automated,
        "inherited" => Basis::Inherited,
        _ => return Err(invalid("basis", "is human, automated or inherited")),
    })
}

/// The word for a kind of media.
#[must_use]
pub const fn media_name(kind: MediaKind) -> &'static str {
    match kind {
        MediaKind::Image => "image",
        MediaKind::Video => "video",
        MediaKind::Url => "url",
        MediaKind::Other => "other",
    }
}

/// The word for how a publisher came to what it says.
#[must_use]
pub const fn basis_name(basis: Basis) -> &'static str {
    match basis {
        Basis::Human => "human",
        Basis::Automated => "automated",
        Basis::Inherited => "inherited",
    }
}

/// Writes a rejection of one line.
pub(crate) fn line_rejection(rejection: LineRejection) -> wire::EntryRejection {
    wire::EntryRejection {
        line: rejection.line,
        code: rejection.code.to_owned(),
        reason: rejection.reason,
    }
}

/// Writes why the item of `line` could not be read.
pub(crate) fn refused_line(line: u64, rejection: &Rejection) -> wire::EntryRejection {
    wire::EntryRejection {
        line,
        code: rejection.code().to_owned(),
        reason: rejection.to_string(),
    }
}

/// Writes how far an import has come.
pub(crate) fn progress(
    progress: ImportProgress,
    refused: Vec<wire::EntryRejection>,
    done: bool,
) -> wire::ImportResponse {
    let mut rejected = refused;
    rejected.extend(progress.rejected.into_iter().map(line_rejection));
    let head = progress.head;
    wire::ImportResponse {
        received: progress.received,
        added: progress.added,
        replaced: progress.replaced,
        unchanged: progress.unchanged,
        rejected,
        head_size: head.map_or(0, |(size, _)| size),
        head_root: head
            .map_or_else(Vec::new, |(_, root)| root.0.to_vec())
            .into(),
        done,
    }
}

/// Reads what a new set is.
pub(crate) fn new_set(message: wire::CreateSetRequest) -> Result<NewSet, Rejection> {
    let source = if message.list_owner.is_empty() {
        SetSource::OwnWork
    } else {
        SetSource::ThirdParty {
            list_owner: message.list_owner,
            may_share: message.may_share,
            terms: message.terms_text,
        }
    };
    Ok(NewSet {
        set: Slug::parse(&message.set)?,
        title: message.title,
        source,
        classification_scheme: message.classification_scheme,
        grants: message.grants.into_iter().map(grantee).collect(),
    })
}

/// Reads a grantee; the node says whether there is one of that name.
pub(crate) fn grantee(message: wire::Grantee) -> Grantee {
    Grantee {
        who: message.who,
        relay: message.relay,
    }
}

/// Writes a set.
pub(crate) fn set_info(set: SetInfo) -> wire::SetInfo {
    let (source, terms, may_share) = match set.source {
        SetSource::OwnWork => (String::new(), String::new(), true),
        SetSource::ThirdParty {
            list_owner,
            may_share,
            terms,
        } => (list_owner, terms, may_share),
    };
    wire::SetInfo {
        name: set.name.to_string(),
        feed_id: set.feed.as_bytes().to_vec().into(),
        title: set.title,
        source,
        terms,
        may_share,
        classification_scheme: set.classification_scheme,
        grants: set
            .grants
            .into_iter()
            .map(|grantee| wire::Grantee {
                who: grantee.who,
                relay: grantee.relay,
            })
            .collect(),
        own: set.own,
        epoch: set.epoch,
        size: set.size,
        root: set.root.0.to_vec().into(),
        live_entries: set.live_entries,
        created_ms: set.created.0,
        publishing_closed: set.closed.unwrap_or_default(),
        opinions: set.opinions,
    }
}

/// Reads the name of a set: `member/set`, or a set of this node's member.
pub(crate) fn set_name(node: &Node, text: &str) -> Result<SetName, Rejection> {
    if text.contains('/') {
        return Ok(SetName::parse(text)?);
    }
    Ok(SetName {
        member: node.member_slug().clone(),
        set: Slug::parse(text)?,
    })
}

/// Reads the name of a set of this node's member, in full or without the member.
pub(crate) fn own_set(node: &Node, text: &str) -> Result<Slug, NodeError> {
    let name = set_name(node, text)?;
    if name.member != *node.member_slug() {
        return Err(NodeError::Misuse(format!(
            "{name} is a set of another member; this node publishes for {}",
            node.member_slug()
        )));
    }
    Ok(name.set)
}

/// Reads why entries are taken back.
pub(crate) fn retract_reason(name: &str) -> Result<RetractReason, Rejection> {
    Ok(match name {
        "wrong" => RetractReason::Wrong,
        "duplicate" => RetractReason::Duplicate,
        "source-withdrew" => RetractReason::SourceWithdrew,
        "legal" => RetractReason::Legal,
        "other" => RetractReason::Other,
        _ => {
            let why = "is wrong, duplicate, source-withdrew, legal or other";
            return Err(invalid("reason", why));
        }
    })
}

/// Reads which entries of `set` are meant.
pub(crate) fn selector(message: wire::Selector, set: &SetName) -> Result<Selector, Rejection> {
    use wire::selector::By;
    Ok(match message.by {
        Some(By::Entry(text)) => Selector::Entry(entry_of(&text, set)?),
        Some(By::Signal(message)) => Selector::Signal(signal(message)?),
        Some(By::SourceReference(reference)) if !reference.is_empty() => {
            Selector::SourceReference(reference)
        }
        Some(By::SourceReference(_)) | None => return Err(invalid("selector", "names nothing")),
    })
}

/// The first index of `member/set#index`, of `set#index` for a set of the same member,
/// or of `#index`.
pub(crate) fn entry_of(text: &str, set: &SetName) -> Result<u64, Rejection> {
    if let Some(index) = text.strip_prefix('#') {
        let index = index.parse();
        return index.map_err(|_| invalid("entry", "is not of the form #INDEX"));
    }
    let name = if text.contains('/') {
        EntryName::parse(text)?
    } else {
        EntryName::parse(&format!("{}/{text}", set.member))?
    };
    if name.set == *set {
        Ok(name.first)
    } else {
        Err(invalid(
            "entry",
            format!("it is in {}, not in {set}", name.set),
        ))
    }
}

/// Writes what became of a retraction.
pub(crate) fn retracted(
    outcome: Retracted,
    refused: Vec<wire::EntryRejection>,
) -> wire::RetractResponse {
    let mut not_found = refused;
    not_found.extend(outcome.not_found.into_iter().map(line_rejection));
    wire::RetractResponse {
        retracted: outcome.retracted,
        already_dead: outcome.already_dead,
        not_found,
        leaf_index: outcome.leaf_index.unwrap_or_default(),
        head_size: outcome.head.0,
        head_root: outcome.head.1.0.to_vec().into(),
        identity_signed: outcome.identity_signed,
    }
}

/// Writes a consumer.
pub(crate) fn consumer(consumer: hashpact_node::changes::Consumer) -> wire::Consumer {
    wire::Consumer {
        name: consumer.name.to_string(),
        owner: consumer.owner,
        since_ms: consumer.since.0,
        cursor: consumer.acked.to_bytes().into(),
        acknowledged_ms: consumer.acked_at.0,
        behind: consumer.behind,
        in_snapshot: consumer.acked.in_snapshot(),
        lost: consumer.lost,
    }
}

/// Writes an entry as exported.
pub(crate) fn exported(entry: ExportedEntry) -> wire::ExportedEntry {
    let published_ms = entry.body.published.0;
    wire::ExportedEntry {
        set: entry.entry.set.to_string(),
        entry: entry.entry.to_string(),
        index: entry.index,
        publisher: entry.publisher.to_string(),
        state: entry.state.to_owned(),
        verdict: entry
            .verdict
            .map_or_else(String::new, |verdict| verdict.name().to_owned()),
        disputed_kinds: entry
            .disputed_kinds
            .iter()
            .map(|kind| kind.number())
            .collect(),
        body: Some(entry_to_wire(entry.body)),
        published_ms,
    }
}

fn entry_to_wire(body: Publish) -> wire::Entry {
    wire::Entry {
        signals: body.signals.iter().map(signal_to_wire).collect(),
        media_kind: media_name(body.media_kind).to_owned(),
        classification: body
            .classification
            .as_ref()
            .map(Classification::to_string)
            .unwrap_or_default(),
        labels: body.labels,
        basis: basis_name(body.basis).to_owned(),
        source_reference: body.source_reference,
        first_seen_ms: body.first_seen.unwrap_or_default().0,
        expires_ms: body.expires.unwrap_or_default().0,
        line: 0,
    }
}

/// Writes what became of documents.
pub(crate) fn roster_import(outcome: RosterImport) -> wire::ImportRosterResponse {
    wire::ImportRosterResponse {
        roster_version: outcome.version,
        accepted: outcome.accepted,
        known: outcome.known,
        refused: outcome.refused,
    }
}

pub(crate) const fn standing_name(standing: MatchStanding) -> &'static str {
    match standing {
        MatchStanding::Active => "active",
        MatchStanding::Disputed => "disputed",
        MatchStanding::Review => "review",
        MatchStanding::Retracted => "retracted",
    }
}

/// Writes why one item of a look-up could not be read.
pub(crate) fn refused_answer(rejection: &Rejection) -> wire::Answer {
    wire::Answer {
        error_code: rejection.code().to_owned(),
        error: rejection.to_string(),
        ..wire::Answer::default()
    }
}

/// Writes that an answer does not fit in its message.
pub(crate) fn too_large_answer() -> wire::Answer {
    wire::Answer {
        error_code: "answer_too_large".to_owned(),
        error: "the answers of this message are too long together; ask for this item in a smaller \
                one"
        .to_owned(),
        ..wire::Answer::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn md5() -> wire::Signal {
        wire::Signal {
            kind: 1,
            value: vec![7; 16].into(),
            quality: None,
        }
    }

    #[test]
    fn a_signal_reads_back_as_written() {
        let read = signal(md5()).unwrap();
        assert_eq!(signal_to_wire(&read), md5());
    }

    #[test]
    fn a_signal_of_a_wrong_length_or_unknown_kind_is_refused_without_its_value() {
        let short = wire::Signal {
            value: vec![0xab; 15].into(),
            ..md5()
        };
        let unknown = wire::Signal { kind: 99, ..md5() };
        for bad in [short, unknown] {
            let error = signal(bad).unwrap_err();
            assert!(!error.to_string().contains("abab"), "{error}");
        }
        let quality = wire::Signal {
            quality: Some(300),
            ..md5()
        };
        assert!(signal(quality).is_err());
    }

    #[test]
    fn an_entry_keeps_all_that_it_says() {
        let message = wire::Entry {
            signals: vec![md5()],
            media_kind: "video".to_owned(),
            classification: "tc:A1".to_owned(),
            labels: vec!["x".to_owned()],
            basis: "inherited".to_owned(),
            source_reference: "r-1".to_owned(),
            first_seen_ms: 5,
            expires_ms: 0,
            line: 9,
        };
        let read = entry(message.clone()).unwrap();
        assert_eq!(read.line, 9);
        assert_eq!(read.body.expires, None);
        assert_eq!(entry_to_wire(read.body), wire::Entry { line: 0, ..message });
    }

    #[test]
    fn words_that_are_not_known_are_refused() {
        let entry_with = |change: fn(&mut wire::Entry)| {
            let mut message = wire::Entry {
                signals: vec![md5()],
                ..wire::Entry::default()
            };
            change(&mut message);
            entry(message)
        };
        assert!(entry_with(|_| {}).is_ok());
        assert!(entry_with(|e| e.media_kind = "picture".to_owned()).is_err());
        assert!(entry_with(|e| e.basis = "guess".to_owned()).is_err());
        assert!(entry_with(|e| e.classification = "a b".to_owned()).is_err());
        assert!(retract_reason("mood").is_err());
    }

    #[test]
    fn an_entry_of_another_set_is_no_selector_of_this_one() {
        let set = SetName::parse("a/b").unwrap();
        let by = |text: &str| {
            let by = Some(wire::selector::By::Entry(text.to_owned()));
            selector(wire::Selector { by, line: 1 }, &set)
        };
        assert!(matches!(by("#12"), Ok(Selector::Entry(12))));
        assert!(matches!(by("a/b#12"), Ok(Selector::Entry(12))));
        assert!(by("a/c#12").is_err());
        assert!(by("12").is_err());
    }
}
