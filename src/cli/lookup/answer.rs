//! What the node answers, as it is printed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use clap::Args;
use hashpact_api::wire;
use hashpact_core::policy::Verdict;
use hashpact_matching::pdq::{DEFAULT_DISTANCE, MAX_DISTANCE};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::item::{Asked, Item};
use super::opinions::OpinionsObject;
use crate::cli::client::{Client, failed};
use crate::cli::error::CliError;
use crate::cli::output::{Output, fitted, plain, stamp};

/// Columns of an item's name in the lines for people, at least.
const ITEM_WIDTH: usize = 19;
/// Columns that verdict and answer take beside it, with the blanks between.
const ANSWER_WIDTH: usize = 61;

/// How near a match may be.
#[derive(Debug, Clone, Args)]
pub(crate) struct NearArgs {
    /// PDQ and frames of videos: bits that may differ, 0 to 64; 0 asks for the very
    /// value
    #[arg(long, value_name = "BITS", default_value_t = DEFAULT_DISTANCE,
        value_parser = clap::value_parser!(u32).range(..=i64::from(MAX_DISTANCE)))]
    pub(crate) distance: u32,
    /// Videos: how many of its frames a known video must have at least
    #[arg(long, value_name = "PERCENT", default_value_t = 80,
        value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) video_query_percent: u32,
    /// Videos: how many of the known video's frames it must have at least
    #[arg(long, value_name = "PERCENT", default_value_t = 0,
        value_parser = clap::value_parser!(u32).range(0..=100))]
    pub(crate) video_compared_percent: u32,
    /// Where it turned up, such as "upload": rules of the policy may be for some only
    #[arg(long, value_name = "NAME", default_value = "")]
    pub(crate) surface: String,
    /// In which region it turned up, likewise
    #[arg(long, value_name = "NAME", default_value = "")]
    pub(crate) region: String,
}

/// What is known of an item.
#[derive(Serialize)]
pub(in crate::cli) struct ItemObject {
    pub(in crate::cli) item: String,
    /// The bytes of a name that is no text, in hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    item_bytes: Option<String>,
    pub(in crate::cli) known: bool,
    /// What the node's policy makes of it: the highest verdict of its signals.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) verdict: Option<&'static str>,
    /// Whether there are more matches than these.
    more: bool,
    pub(in crate::cli) matches: Vec<MatchObject>,
    /// Why a picture or video was asked for by its digests only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) not_seen: Option<NotSeen>,
}

#[derive(Serialize)]
pub(in crate::cli) struct NotSeen {
    pub(in crate::cli) code: &'static str,
    error: String,
    #[serde(skip)]
    pub(in crate::cli) is_passing: bool,
}

#[derive(Serialize)]
pub(in crate::cli) struct MatchObject {
    signal: String,
    /// How a picture was turned, or what of a link the entry covers.
    #[serde(skip_serializing_if = "Option::is_none")]
    aspect: Option<String>,
    distance: u32,
    /// Videos: of its frames, those that the known video has, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    query_percent: Option<u32>,
    /// Videos: of the known video's frames, those that it has, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    compared_percent: Option<u32>,
    pub(in crate::cli) entry: String,
    set: String,
    index: u64,
    publisher: String,
    publisher_number: u32,
    publisher_name: String,
    contact_name: String,
    contact_email: String,
    contact_phone: String,
    pub(in crate::cli) classification: String,
    basis: String,
    media_kind: String,
    published: Option<String>,
    quality: Option<u32>,
    standing: String,
    /// What members think of it; absent where nobody said anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    opinions: Option<OpinionsObject>,
    /// What the node itself doubts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    doubts: Vec<String>,
}

/// What answers say beside matches.
#[derive(Default)]
pub(in crate::cli) struct Told {
    /// Whether the node said that near matches are not all to be had.
    pub(in crate::cli) incomplete: bool,
    pub(in crate::cli) publishers: BTreeMap<String, wire::Publisher>,
    /// What was wrong with single signals, without their values.
    pub(in crate::cli) wrong: Vec<String>,
    /// The one call that a command asks everything in.
    call: Option<Call>,
}

/// A stream of questions and answers.
struct Call {
    ask: mpsc::Sender<wire::MatchRequest>,
    answers: Streaming<wire::MatchResponse>,
}

/// Asks for all signals of items, and puts the answers together.
pub(in crate::cli) fn ask(
    client: &Client,
    near: &NearArgs,
    items: Vec<Item>,
    told: &mut Told,
) -> Result<Vec<ItemObject>, CliError> {
    let signals = items.iter().flat_map(|item| &item.signals);
    let request = wire::MatchRequest {
        max_distance: Some(near.distance),
        video_query_percent: Some(near.video_query_percent),
        video_compared_percent: Some(near.video_compared_percent),
        surface: near.surface.clone(),
        region: near.region.clone(),
        references: Vec::new(),
        signals: signals
            .map(|asked| wire::Signal {
                kind: asked.signal.kind().number(),
                value: asked.signal.value().clone(),
                quality: None,
            })
            .collect(),
    };
    let response = told.send(client, request)?;
    told.incomplete |= !response.near_ready || response.near_pending > 0;
    let mut answers = response.answers.into_iter();
    let objects = items.into_iter().map(|item| {
        let answers: Vec<wire::Answer> = answers.by_ref().take(item.signals.len()).collect();
        together(item, answers, told)
    });
    Ok(objects.collect())
}

impl Told {
    /// Sends one question and waits for its answer, all in one call: so the audit feed
    /// has one act of a command. A node that has much to do reads it later.
    fn send(
        &mut self,
        client: &Client,
        request: wire::MatchRequest,
    ) -> Result<wire::MatchResponse, CliError> {
        let mut call = match self.call.take() {
            Some(call) => call,
            None => Call::begin(client)?,
        };
        let answered = client.wait(async {
            // A node that is gone says so in place of its answer.
            let _ = call.ask.send(request).await;
            call.answers.message().await
        });
        let response = answered.map_err(|status| failed(&status))?;
        self.call = Some(call);
        response.ok_or_else(|| {
            CliError::failed("the node ended the look-up early").next("the node's log says more")
        })
    }

    /// Says that nothing more is asked; the node has recorded what was by then.
    pub(in crate::cli) fn hang_up(&mut self, client: &Client) -> Result<(), CliError> {
        let Some(Call { ask, mut answers }) = self.call.take() else {
            return Ok(());
        };
        drop(ask);
        let ended = client.wait(answers.message());
        ended.map(drop).map_err(|status| failed(&status))
    }
}

impl Call {
    fn begin(client: &Client) -> Result<Self, CliError> {
        let (ask, asked) = mpsc::channel(1);
        let mut node = client.node();
        let answers = client.call(node.match_stream(ReceiverStream::new(asked)))?;
        Ok(Self { ask, answers })
    }
}

fn together(item: Item, answers: Vec<wire::Answer>, told: &mut Told) -> ItemObject {
    let (mut matches, mut more, mut verdict) = (Vec::new(), false, None);
    for (asked, answer) in item.signals.iter().zip(answers) {
        if !answer.error_code.is_empty() {
            let kind = asked.signal.kind();
            told.wrong
                .push(format!("a signal of kind {kind}: {}", answer.error));
        }
        more |= answer.more;
        verdict = verdict.max(Verdict::parse(&answer.verdict).ok());
        for found in answer.matches {
            matches.push(object(asked, found, &mut told.publishers));
        }
    }
    ItemObject {
        item: item.name,
        item_bytes: item.bytes,
        known: !matches.is_empty(),
        verdict: verdict.map(Verdict::name),
        more,
        matches,
        not_seen: item.not_seen.map(|error| NotSeen {
            code: error.code,
            is_passing: error.is_passing(),
            error: error.reason,
        }),
    }
}

fn object(
    asked: &Asked,
    found: wire::Match,
    publishers: &mut BTreeMap<String, wire::Publisher>,
) -> MatchObject {
    let publisher = found.publisher.unwrap_or_default();
    publishers
        .entry(publisher.slug.clone())
        .or_insert_with(|| publisher.clone());
    MatchObject {
        signal: format!("{}:{}", asked.signal.kind(), asked.signal.to_text()),
        aspect: asked.aspect.clone(),
        distance: found.distance,
        query_percent: found.query_percent,
        compared_percent: found.compared_percent,
        entry: found.entry,
        set: found.set,
        index: found.index,
        publisher: publisher.slug,
        publisher_number: publisher.number,
        publisher_name: publisher.display_name,
        contact_name: publisher.contact_name,
        contact_email: publisher.contact_email,
        contact_phone: publisher.contact_phone,
        classification: found.classification,
        basis: found.basis,
        media_kind: found.media_kind,
        published: stamp(found.published_ms),
        quality: found.quality,
        standing: found.standing,
        opinions: found.opinions.map(OpinionsObject::of),
        doubts: found.doubts,
    }
}

impl ItemObject {
    /// Prints it for people: a line for each entry, the nearest match of it.
    pub(in crate::cli) fn lines(&self, output: &Output) -> Result<(), CliError> {
        // Whole where a program or a file takes it, else as wide as the terminal lets it.
        let (name, width) = match output.columns() {
            Some(columns) => {
                let width = columns.saturating_sub(ANSWER_WIDTH).max(ITEM_WIDTH);
                (fitted(&self.item, width), width)
            }
            None => (plain(&self.item), ITEM_WIDTH),
        };
        if !self.known {
            return output.line(format_args!("{name:<width$}  not known"));
        }
        let mut shown = BTreeSet::new();
        for found in &self.matches {
            if shown.insert(&found.entry) {
                let verdict = self.verdict.unwrap_or("-");
                // A terminal that is narrower gets the rest below it.
                let mark = format!("{name:<width$}  {verdict:<7}  ");
                output.item(&mark, &found.line())?;
                if let Some(opinions) = &found.opinions {
                    output.line(format_args!("{:<ITEM_WIDTH$}    {}", "", opinions.line()))?;
                }
            }
        }
        if self.more {
            output.line(format_args!("{:<width$}  and more", ""))?;
        }
        Ok(())
    }
}

impl MatchObject {
    fn line(&self) -> String {
        let class = match self.classification.as_str() {
            "" => "-",
            class => class,
        };
        let published = self.published.as_deref();
        let day = published.and_then(|time| time.get(..10)).unwrap_or("-");
        let mut line = format!("{class:<8}  {day}  {}", self.entry);
        // Writing to a String cannot fail.
        if self.distance > 0 {
            let _ = write!(line, "  {} bits off", self.distance);
        }
        if let Some(percent) = self.query_percent.filter(|percent| *percent < 100) {
            let _ = write!(line, "  {percent} % of its frames");
        }
        if let Some(aspect) = self
            .aspect
            .as_deref()
            .filter(|aspect| *aspect != "original")
        {
            let _ = write!(line, "  ({aspect})");
        }
        if self.standing != "active" {
            let _ = write!(line, "  {}", self.standing);
        }
        for doubt in &self.doubts {
            let _ = write!(line, "  {}", doubt_in_words(doubt));
        }
        line
    }
}

/// What the node doubts, for people; a code that is not known stays one.
pub(in crate::cli) fn doubt_in_words(code: &str) -> &str {
    match code {
        "class_conflict" => "classified otherwise, too",
        "flood" => "matches too much",
        other => other,
    }
}

/// Says on standard error what answers lack.
#[must_use]
pub(in crate::cli) const fn still_loading() -> &'static str {
    "the node is still loading PDQ signals: near matches may be missing; ask again when /ready \
     says near_ready"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Context;

    fn printed(columns: Option<usize>, name: &str) -> String {
        let (context, printed) = Context::for_test(false);
        let output = match columns {
            Some(columns) => context.output.with_columns(columns),
            None => context.output,
        };
        let item = ItemObject {
            item: name.to_owned(),
            item_bytes: None,
            known: false,
            verdict: None,
            more: false,
            matches: Vec::new(),
            not_seen: None,
        };
        item.lines(&output).unwrap();
        printed.text()
    }

    #[test]
    fn a_long_row_is_broken_for_a_terminal_and_whole_in_a_file() {
        let mut publishers = BTreeMap::new();
        let asked = Asked::from(
            hashpact_core::signal::Signal::parse_spec(&format!("MD5:{}", "0a".repeat(16))).unwrap(),
        );
        let found = wire::Match {
            entry: "northstar/confirmed#20000".to_owned(),
            classification: "tc:A1".to_owned(),
            published_ms: 1_790_000_000_000,
            distance: 16,
            standing: "disputed".to_owned(),
            ..wire::Match::default()
        };
        let item = ItemObject {
            item: "PDQ:".to_owned() + &"5a".repeat(32),
            item_bytes: None,
            known: true,
            verdict: Some("review"),
            more: false,
            matches: vec![object(&asked, found, &mut publishers)],
            not_seen: None,
        };
        for (columns, lines) in [(Some(80), 2), (None, 1)] {
            let (context, printed) = Context::for_test(false);
            let output = match columns {
                Some(columns) => context.output.with_columns(columns),
                None => context.output,
            };
            item.lines(&output).unwrap();
            let text = printed.text();
            assert_eq!(text.lines().count(), lines, "{text}");
            let fits = |line: &str| columns.is_none_or(|most| line.chars().count() <= most);
            assert!(text.lines().all(fits), "{text}");
            assert!(text.ends_with("disputed\n"), "{text}");
        }
    }

    #[test]
    fn a_file_gets_whole_names_and_a_terminal_what_fits_it() {
        let name = format!("/a/{}/photo-17.jpg", "folder/".repeat(20));
        assert_eq!(printed(None, &name), format!("{name}  not known\n"));
        for (columns, kept) in [(80, 19), (200, 139), (10, 19)] {
            let line = printed(Some(columns), &name);
            let shown = line.trim_end().strip_suffix("  not known").unwrap();
            assert_eq!(shown.chars().count(), kept, "{columns}");
            assert!(shown.ends_with("photo-17.jpg"), "{line}");
        }
    }
}
