//! What a proof shows, for people and for programs.

use std::fmt::Write as _;

use hashpact_core::id::Digest;
use hashpact_core::leaf::{Basis, MediaKind, Publish, RetractReason};
use hashpact_core::proof::{Doubt, How, Naming, Proven, Shown};
use serde::Serialize;

use super::file::{field, plain, seconds};
use crate::cli::error::CliError;
use crate::cli::output::{Output, counted, stamp, time};

#[derive(Serialize)]
pub(super) struct Summary {
    verified: bool,
    genesis: String,
    /// The SHA-256 of the file.
    file_sha256: String,
    coalition: String,
    entry: String,
    /// The leaf that is proved.
    index: u64,
    /// published, replaced, retracted or erased: as far as the proof shows it.
    state: &'static str,
    publisher: PublisherObject,
    title: String,
    feed: String,
    payload_digest: String,
    /// None where only the record is shown.
    said: Option<SaidObject>,
    head: HeadObject,
    named_by: Vec<NamingObject>,
    cosigned_by: Vec<WitnessObject>,
    witnesses: QuorumObject,
    roster: RosterObject,
    /// What no proof shows.
    not_shown: Vec<String>,
    #[serde(skip)]
    lines: Vec<(&'static str, String)>,
}

#[derive(Serialize)]
struct PublisherObject {
    number: u32,
    slug: String,
    display_name: String,
    status: String,
    node: String,
    card_version: u64,
    /// The roster that replaced the identity key of that card.
    identity_replaced_in: Option<u64>,
}

#[derive(Serialize)]
struct SaidObject {
    /// By the publisher's clock.
    published: Option<String>,
    media_kind: &'static str,
    classification: String,
    labels: Vec<String>,
    basis: &'static str,
    source_reference: String,
    first_seen: Option<String>,
    expires: Option<String>,
    kinds: Vec<String>,
    /// Only with --show-values.
    signals: Option<Vec<String>>,
}

#[derive(Serialize)]
struct HeadObject {
    epoch: u32,
    size: u64,
    root: String,
    /// The roster that closed its epoch, unless with this very head.
    epoch_closed_in: Option<u64>,
    /// The roster that revoked the key which signed it, unless it is that head.
    key_revoked_in: Option<u64>,
}

#[derive(Serialize)]
struct NamingObject {
    index: u64,
    at: Option<String>,
    does: &'static str,
    reason: Option<&'static str>,
    note: Option<String>,
    legal_basis: Option<String>,
    recheck: bool,
    identity_signed: bool,
}

#[derive(Serialize)]
struct WitnessObject {
    slug: String,
    /// By its own clock.
    at: Option<String>,
    /// The roster that replaced the identity key of its card.
    identity_replaced_in: Option<u64>,
    counts: bool,
}

#[derive(Serialize)]
struct QuorumObject {
    roster_version: u64,
    witnesses: usize,
    cosigned: usize,
    threshold: usize,
    reached: bool,
    /// So many find a fork and do not prevent one, though it is reached.
    detection_only: bool,
}

#[derive(Serialize)]
struct RosterObject {
    version: u64,
    issued: Option<String>,
    expires: Option<String>,
}

impl Summary {
    /// Says what a proof shows.
    pub(super) fn of(proven: &Proven, (file, genesis): (&[u8], &Digest), values: bool) -> Self {
        let publisher = &proven.publisher;
        let scheme = proven.scheme.as_ref().map(ToString::to_string);
        let quorum = &proven.quorum;
        Self {
            verified: true,
            genesis: genesis.to_string(),
            file_sha256: Digest::of(file).to_string(),
            coalition: proven.coalition.to_string(),
            entry: proven.entry.to_string(),
            index: proven.index,
            state: proven.state.as_str(),
            publisher: PublisherObject {
                number: publisher.number.value(),
                slug: publisher.slug.to_string(),
                display_name: plain(&publisher.display_name),
                status: publisher.status.to_string(),
                node: publisher.node.to_string(),
                card_version: publisher.card_version,
                identity_replaced_in: publisher.replaced_in,
            },
            title: plain(&proven.title),
            feed: proven.feed.to_string(),
            payload_digest: proven.payload.to_string(),
            said: proven
                .said
                .as_ref()
                .map(|said| SaidObject::of(said, scheme.as_deref(), values)),
            head: HeadObject {
                epoch: proven.head.checkpoint.origin.epoch,
                size: proven.head.size(),
                root: proven.head.root().to_string(),
                epoch_closed_in: proven.doubt.epoch_closed_in,
                key_revoked_in: proven.doubt.key_revoked_in,
            },
            named_by: proven.named_by.iter().map(NamingObject::of).collect(),
            cosigned_by: proven
                .cosigned
                .iter()
                .map(|by| WitnessObject {
                    slug: by.slug.to_string(),
                    at: stamp(by.time_s.saturating_mul(1_000)),
                    identity_replaced_in: by.replaced_in,
                    counts: by.counts,
                })
                .collect(),
            witnesses: QuorumObject {
                roster_version: quorum.roster_version,
                witnesses: quorum.witnesses,
                cosigned: quorum.cosigned,
                threshold: quorum.threshold,
                reached: quorum.is_reached(),
                detection_only: !quorum.prevents(),
            },
            roster: RosterObject {
                version: proven.roster.version,
                issued: stamp(proven.roster.issued.0),
                expires: stamp(proven.roster.expires.0),
            },
            not_shown: not_shown(proven),
            lines: lines(proven, scheme.as_deref(), values),
        }
    }

    /// Prints it for people.
    pub(super) fn print(&self, name: &str, output: &Output) -> Result<(), CliError> {
        let genesis = self.genesis.get(..16).unwrap_or_default();
        output.line(format_args!("{name}: verified from genesis {genesis}… on"))?;
        for (name, text) in &self.lines {
            field(output, name, text)?;
        }
        for (at, text) in self.not_shown.iter().enumerate() {
            field(output, if at == 0 { "not shown" } else { "" }, text)?;
        }
        Ok(())
    }
}

impl SaidObject {
    fn of(said: &Publish, scheme: Option<&str>, values: bool) -> Self {
        Self {
            published: stamp(said.published.0),
            media_kind: media_kind(said.media_kind),
            classification: classification(said, scheme),
            labels: said.labels.iter().map(|label| plain(label)).collect(),
            basis: basis(said.basis),
            source_reference: plain(&said.source_reference),
            first_seen: said.first_seen.and_then(|time| stamp(time.0)),
            expires: said.expires.and_then(|time| stamp(time.0)),
            kinds: said.signals.iter().map(|s| s.kind().to_string()).collect(),
            signals: values.then(|| signals(said)),
        }
    }
}

impl NamingObject {
    fn of(naming: &Naming) -> Self {
        let mut object = Self {
            index: naming.index,
            at: stamp(naming.at.0),
            does: "replaces",
            reason: None,
            note: None,
            legal_basis: None,
            recheck: false,
            identity_signed: false,
        };
        match &naming.how {
            How::Replaces => {}
            How::Retracts {
                reason: why,
                note,
                recheck,
                identity_signed,
            } => {
                object.does = "retracts";
                object.reason = Some(reason(*why));
                object.note = Some(plain(note));
                object.recheck = *recheck;
                object.identity_signed = *identity_signed;
            }
            How::Erases { legal_basis } => {
                object.does = "erases";
                object.legal_basis = Some(plain(legal_basis));
            }
        }
        object
    }
}

fn lines(proven: &Proven, scheme: Option<&str>, values: bool) -> Vec<(&'static str, String)> {
    let publisher = &proven.publisher;
    let head = &proven.head;
    let (size, index) = (head.size(), proven.index);
    let mut lines = vec![
        (
            "entry",
            format!("{}, as leaf {index} says it", proven.entry),
        ),
        (
            "publisher",
            format!(
                "{} ({}), member {} of {}, {}",
                publisher.slug,
                plain(&publisher.display_name),
                publisher.number.value(),
                proven.coalition,
                publisher.status,
            ),
        ),
    ];
    if let Some(said) = &proven.said {
        let published = time(said.published.0);
        lines.push(("published", format!("{published}, by the publisher's word")));
        lines.push(("says", says(said, scheme)));
        if values {
            lines.extend(signals(said).into_iter().map(|signal| ("", signal)));
        }
    } else {
        let digest = proven.payload;
        lines.push((
            "says",
            format!("not in this file; payload of SHA-256 {digest}"),
        ));
    }
    let leaves = counted(size, "leaf", "leaves");
    lines.push((
        "head",
        format!(
            "{leaves}, epoch {}, signed by its node {} (card version {})",
            head.checkpoint.origin.epoch, publisher.node, publisher.card_version,
        ),
    ));
    lines.extend(publisher.replaced_in.map(|roster| ("", replaced(roster))));
    lines.extend(doubted(&proven.doubt).into_iter().map(|said| ("", said)));
    lines.push(("cosigned", cosigned(proven)));
    let state = match proven.state {
        Shown::Published => "published; nothing in this file withdraws or replaces it".to_owned(),
        Shown::Replaced | Shown::Retracted | Shown::Erased => proven.state.as_str().to_owned(),
    };
    lines.push(("state", state));
    lines.extend(proven.named_by.iter().map(|naming| ("", named(naming))));
    let roster = &proven.roster;
    let (issued, expires) = (time(roster.issued.0), time(roster.expires.0));
    lines.push((
        "roster",
        format!(
            "version {}, issued {issued}, expires {expires}",
            roster.version
        ),
    ));
    lines
}

/// That a card is of an identity key that is not its member's any more.
pub(crate) fn replaced(roster: u64) -> String {
    format!(
        "⚠ the identity key that signed the node card was replaced in roster {roster}: whoever \
         found the old one could have made this"
    )
}

/// That the key which signed a head was revoked, or its epoch closed.
fn doubted(doubt: &Doubt) -> Vec<String> {
    let revoked = doubt.key_revoked_in.map(|roster| {
        format!(
            "⚠ the feed key that signed it was revoked in roster {roster}: whoever found it could \
             have made all of this but the cosignatures"
        )
    });
    let closed = doubt.epoch_closed_in.map(|roster| {
        format!(
            "⚠ roster {roster} closed this epoch: nothing here shows that the head is of the \
             history that went on"
        )
    });
    revoked.into_iter().chain(closed).collect()
}

fn says(said: &Publish, scheme: Option<&str>) -> String {
    let mut kinds: Vec<String> = said.signals.iter().map(|s| s.kind().to_string()).collect();
    kinds.dedup();
    let mut text = format!("{}, ", media_kind(said.media_kind));
    let class = classification(said, scheme);
    let class = if class.is_empty() {
        "not classified"
    } else {
        &class
    };
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "{class}, basis {}; signals {}",
        basis(said.basis),
        kinds.join(", ")
    );
    text
}

fn cosigned(proven: &Proven) -> String {
    let quorum = &proven.quorum;
    if quorum.witnesses == 0 && proven.cosigned.is_empty() {
        return "by nobody: the roster has no witnesses".to_owned();
    }
    let reached = match (quorum.threshold, quorum.is_reached()) {
        (0, _) => "nobody could".to_owned(),
        (need, true) if quorum.prevents() => format!("{need} needed: reached"),
        (need, true) => format!("{need} needed: reached, detection only"),
        (need, false) => format!("{need} needed: NOT reached"),
    };
    let mut text = format!(
        "by {} of {} by roster {}; {reached}",
        quorum.cosigned,
        counted(
            u64::try_from(quorum.witnesses).unwrap_or(u64::MAX),
            "witness",
            "witnesses"
        ),
        quorum.roster_version,
    );
    for by in &proven.cosigned {
        let at = seconds(by.time_s);
        let counts = if by.counts {
            ""
        } else if by.member == proven.publisher.number {
            " (its own: does not count)"
        } else if by.replaced_in.is_some() {
            " (by a replaced identity key: does not count)"
        } else {
            " (no witness by this roster: does not count)"
        };
        let _ = write!(text, "; {} {at}{counts}", by.slug);
    }
    text
}

fn named(naming: &Naming) -> String {
    let (index, at) = (naming.index, time(naming.at.0));
    match &naming.how {
        How::Replaces => format!("leaf {index} of {at} replaces it"),
        How::Retracts {
            reason: why,
            note,
            identity_signed,
            ..
        } => {
            let mut text = format!("leaf {index} of {at} retracts it: {}", reason(*why));
            if !note.is_empty() {
                let _ = write!(text, ", \"{}\"", plain(note));
            }
            if *identity_signed {
                text.push_str("; the identity key signed it as well");
            }
            text
        }
        How::Erases { legal_basis } => {
            format!("leaf {index} of {at} erases it: \"{}\"", plain(legal_basis))
        }
    }
}

/// What nobody can show by a file, said each time so that nobody reads it into one.
fn not_shown(proven: &Proven) -> Vec<String> {
    let mut all = Vec::new();
    match proven.state {
        Shown::Published => all.push(
            "whether another leaf below this head withdrew or replaced it: whoever made the \
             file could leave that out"
                .to_owned(),
        ),
        Shown::Replaced => all
            .push("whether the later version was withdrawn itself, or this one as well".to_owned()),
        Shown::Retracted | Shown::Erased => all.push(
            "whether members took it for part of a mass retraction, which they hold for review"
                .to_owned(),
        ),
    }
    all.push(format!(
        "what came after this head, and what rosters after version {} say: whoever made the file \
         chose the newest in it, by which witnesses are judged",
        proven.roster.version
    ));
    if !proven.quorum.is_reached() {
        all.push(
            "that everybody was shown the same feed: too few witnesses cosigned this head"
                .to_owned(),
        );
    } else if !proven.quorum.prevents() {
        all.push(
            "that everybody was shown the same feed: so few witnesses find a second history, \
             and do not prevent one"
                .to_owned(),
        );
    }
    if proven.cosigned.is_empty() {
        all.push("when the head was signed: no witness dates it".to_owned());
    } else {
        all.push("when it was cosigned, but by each witness's own word".to_owned());
    }
    all
}

fn signals(said: &Publish) -> Vec<String> {
    let each = said.signals.iter();
    each.map(|signal| format!("{}:{}", signal.kind(), signal.to_text()))
        .collect()
}

fn classification(said: &Publish, scheme: Option<&str>) -> String {
    match (&said.classification, scheme) {
        (None, _) => String::new(),
        (Some(class), Some(scheme)) if class.scheme.is_none() => format!("{scheme}:{class}"),
        (Some(class), _) => class.to_string(),
    }
}

const fn media_kind(kind: MediaKind) -> &'static str {
    match kind {
        MediaKind::Image => "image",
        MediaKind::Video => "video",
        MediaKind::Url => "url",
        MediaKind::Other => "other",
    }
}

const fn basis(basis: Basis) -> &'static str {
    match basis {
        Basis::Human => "human",
        Basis::Automated => "automated",
        Basis::Inherited => "inherited",
    }
}

const fn reason(reason: RetractReason) -> &'static str {
    match reason {
        RetractReason::Wrong => "wrong",
        RetractReason::Duplicate => "duplicate",
        RetractReason::SourceWithdrew => "source-withdrew",
        RetractReason::Legal => "legal",
        RetractReason::Other => "other",
    }
}
