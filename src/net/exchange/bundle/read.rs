//! Reading a bundle: where its records lie, and what each says.
//!
//! The file is walked through once by its prefixes, so that what is missing or damaged
//! in it is known and every chunk can be found again, in any order and as often as the
//! puller asks. Bodies are read when they are needed, each against its own check.
//!
//! What can be read before a damage counts. Nothing read here is verified: that is done
//! by whoever takes it in.

use std::sync::Arc;

use bytes::Bytes;
use hashpact_core::bundle::{
    CHECK_BYTES, DOCUMENTS_MAX, FEEDS_MAX, Header, MAGIC, PREFIX_BYTES, Prefix, RecordKind, Tally,
};
use hashpact_core::limits::FEED_MAX_LEAVES;
use hashpact_core::reject::Rejection;
use hashpact_node::NodeError;
use hashpact_node::bundle::{BundleFile, BundleRefusal};

use crate::types::{Announcement, BundleFeed, PullPart, RosterItem};
use crate::{codec, convert, wire};

/// What problems of the file itself are called.
pub(crate) const FILE: &str = "file";
/// Refusals listed beside the sets; a file of nothing else is not quoted in full.
pub(crate) const REFUSED_MAX: usize = 256;
/// Before a chunk's message: its first index, and one past its last.
const CHUNK_BOUNDS_BYTES: usize = 16;

/// Where a record lies.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record {
    pub(crate) offset: u64,
    prefix: Prefix,
    check: [u8; CHECK_BYTES],
}

/// A chunk as its record names it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ChunkAt {
    pub(crate) from: u64,
    pub(crate) to: u64,
    record: Record,
}

/// A feed, and the chunks that follow it.
#[derive(Debug, Clone)]
pub(crate) struct FeedAt {
    pub(crate) record: Record,
    /// Each begins where the one before it ends.
    pub(crate) chunks: Vec<ChunkAt>,
    /// Why the chunks after these were left.
    pub(crate) broken: Option<Rejection>,
}

/// All that a file is seen to hold.
#[derive(Debug)]
pub(crate) struct Contents {
    pub(crate) header: Header,
    pub(crate) documents: Vec<Record>,
    pub(crate) evidence: Vec<Record>,
    pub(crate) feeds: Vec<FeedAt>,
    /// What is wrong with the file itself.
    pub(crate) refused: Vec<BundleRefusal>,
}

/// Walks through a file.
///
/// # Errors
/// [`NodeError::Rejected`] for a file that is no bundle, or one whose header cannot be
/// read; what reading it answers.
pub(crate) async fn contents(file: &Arc<dyn BundleFile>) -> Result<Contents, NodeError> {
    let magic = u64::try_from(MAGIC.len()).unwrap_or_default();
    if file.size() < magic || file.read(0, MAGIC.len()).await? != MAGIC.as_slice() {
        return Err(Rejection::malformed("bundle", "the file is no bundle").into());
    }
    let mut walk = Walk {
        file,
        at: magic,
        tally: Tally::default(),
    };
    let Step::Record(first) = walk.step().await? else {
        return Err(Rejection::malformed("bundle", "it ends before its header").into());
    };
    if first.prefix.kind != RecordKind::Header {
        return Err(Rejection::malformed("bundle", "it does not begin with a header").into());
    }
    let header = Header::read(&body(file, &first).await?)?;
    let mut contents = Contents {
        header,
        documents: Vec::new(),
        evidence: Vec::new(),
        feeds: Vec::new(),
        refused: Vec::new(),
    };
    if let Err(refused) = walk.all(&mut contents).await? {
        contents.refused.push(refused);
    }
    Ok(contents)
}

/// The way through a file.
struct Walk<'a> {
    file: &'a Arc<dyn BundleFile>,
    at: u64,
    tally: Tally,
}

enum Step {
    Record(Record),
    /// The file ends within a record, or where one should begin.
    Cut,
}

impl Walk<'_> {
    /// Walks to the end; answers what is wrong with what was met.
    async fn all(
        &mut self,
        contents: &mut Contents,
    ) -> Result<Result<(), BundleRefusal>, NodeError> {
        loop {
            let at = self.at;
            let refuse = |rejection: &Rejection| BundleRefusal::of(format!("byte {at}"), rejection);
            let record = match self.step().await {
                Ok(Step::Record(record)) => record,
                Ok(Step::Cut) => {
                    let why = format!("it ends at byte {}, before its end", self.file.size());
                    return Ok(Err(BundleRefusal::new(FILE, "truncated", why)));
                }
                Err(NodeError::Rejected(rejection)) => return Ok(Err(refuse(&rejection))),
                Err(error) => return Err(error),
            };
            match record.prefix.kind {
                RecordKind::Document if contents.documents.len() < DOCUMENTS_MAX => {
                    contents.documents.push(record);
                }
                RecordKind::Evidence if contents.evidence.len() < DOCUMENTS_MAX => {
                    contents.evidence.push(record);
                }
                RecordKind::Feed if contents.feeds.len() < FEEDS_MAX => {
                    contents.feeds.push(FeedAt {
                        record,
                        chunks: Vec::new(),
                        broken: None,
                    });
                }
                RecordKind::Document | RecordKind::Evidence | RecordKind::Feed => {
                    let (what, limit) = ("feeds or documents of a bundle", DOCUMENTS_MAX);
                    let size = limit.saturating_add(1);
                    return Ok(Err(refuse(&Rejection::TooLarge { what, size, limit })));
                }
                RecordKind::Chunk => {
                    let bounds = self.chunk(record).await;
                    if let Err(rejection) = note_chunk(contents, bounds) {
                        note_refused(contents, refuse(&rejection));
                    }
                }
                RecordKind::Header => {
                    let again = Rejection::malformed("bundle", "a second header");
                    note_refused(contents, refuse(&again));
                }
                RecordKind::End => return self.end(&record).await,
            }
        }
    }

    /// Takes the next record, but for its body.
    async fn step(&mut self) -> Result<Step, NodeError> {
        let size = self.file.size();
        let beyond = |length: usize| {
            let length = u64::try_from(length).unwrap_or(u64::MAX);
            size.saturating_sub(self.at) < length
        };
        if beyond(PREFIX_BYTES) {
            return Ok(Step::Cut);
        }
        let prefix = self.file.read(self.at, PREFIX_BYTES).await?;
        let prefix = prefix.first_chunk().copied().unwrap_or_default();
        let prefix = Prefix::read(prefix)?;
        let whole = PREFIX_BYTES + prefix.length + CHECK_BYTES;
        if beyond(whole) {
            return Ok(Step::Cut);
        }
        let after = PREFIX_BYTES + prefix.length;
        let check_at = self.at + u64::try_from(after).unwrap_or_default();
        let check = self.file.read(check_at, CHECK_BYTES).await?;
        let record = Record {
            offset: self.at,
            prefix,
            check: check.first_chunk().copied().unwrap_or_default(),
        };
        if prefix.kind != RecordKind::End {
            self.tally.count(record.check)?;
        }
        self.at += u64::try_from(whole).unwrap_or_default();
        Ok(Step::Record(record))
    }

    async fn chunk(&self, record: Record) -> Result<ChunkAt, Rejection> {
        let short = || Rejection::malformed("bundle", "a chunk without its bounds");
        if record.prefix.length < CHUNK_BOUNDS_BYTES {
            return Err(short());
        }
        let first = u64::try_from(PREFIX_BYTES).unwrap_or_default();
        let read = self.file.read(record.offset + first, CHUNK_BOUNDS_BYTES);
        let bounds = read.await.map_err(|_| short())?;
        let (from, to) = bounds_of(&bounds).ok_or_else(short)?;
        Ok(ChunkAt { from, to, record })
    }

    async fn end(&self, record: &Record) -> Result<Result<(), BundleRefusal>, NodeError> {
        let ends = match body(self.file, record).await {
            Ok(end) => self.tally.check_end(&end),
            Err(NodeError::Rejected(rejection)) => Err(rejection),
            Err(error) => return Err(error),
        };
        let after = self.file.size() - self.at;
        let ends = ends.and_then(|()| match after {
            0 => Ok(()),
            after => Err(Rejection::malformed(
                "bundle",
                format!("{after} bytes follow its end"),
            )),
        });
        Ok(ends.map_err(|rejection| BundleRefusal::of(FILE, &rejection)))
    }
}

/// Notes what is wrong with the file, as long as that is a list for people.
fn note_refused(contents: &mut Contents, refused: BundleRefusal) {
    if contents.refused.len() < REFUSED_MAX {
        contents.refused.push(refused);
    }
}

/// Puts a chunk to the feed before it, as long as one follows another.
fn note_chunk(contents: &mut Contents, chunk: Result<ChunkAt, Rejection>) -> Result<(), Rejection> {
    let feed = contents.feeds.last_mut();
    let feed = feed.ok_or_else(|| Rejection::malformed("bundle", "a chunk of no feed"))?;
    if feed.broken.is_some() {
        return Ok(());
    }
    let chunk = match chunk {
        Ok(chunk) => chunk,
        Err(rejection) => {
            feed.broken = Some(rejection.clone());
            return Err(rejection);
        }
    };
    // Whoever wrote the file chose them: what is summed up of them stays small.
    if chunk.to > FEED_MAX_LEAVES {
        let why = format!("a chunk up to leaf {}: no feed is so long", chunk.to);
        let wrong = Rejection::invalid("bundle", why);
        feed.broken = Some(wrong.clone());
        return Err(wrong);
    }
    let expected = feed.chunks.last().map_or(chunk.from, |last| last.to);
    if chunk.from != expected || chunk.to <= chunk.from {
        let wrong = Rejection::WrongRange {
            expected,
            got: chunk.from,
        };
        feed.broken = Some(wrong.clone());
        return Err(wrong);
    }
    feed.chunks.push(chunk);
    Ok(())
}

fn bounds_of(body: &[u8]) -> Option<(u64, u64)> {
    let (from, rest) = body.split_first_chunk::<8>()?;
    let to = rest.first_chunk::<8>()?;
    Some((u64::from_be_bytes(*from), u64::from_be_bytes(*to)))
}

/// Reads the body of a record and checks it.
async fn body(file: &Arc<dyn BundleFile>, record: &Record) -> Result<Bytes, NodeError> {
    let begin = record.offset + u64::try_from(PREFIX_BYTES).unwrap_or_default();
    let read = file.read(begin, record.prefix.length).await?;
    record.prefix.check(&read, record.check)?;
    Ok(read)
}

/// Reads a document; `None` for a kind that a later version added.
pub(crate) async fn document(
    file: &Arc<dyn BundleFile>,
    record: &Record,
) -> Result<Option<RosterItem>, NodeError> {
    let message = codec::decoded::<wire::RosterItem>(body(file, record).await?)?;
    Ok(convert::roster_item(message)?)
}

/// Reads evidence; `None` for what is none.
pub(crate) async fn evidence(
    file: &Arc<dyn BundleFile>,
    record: &Record,
) -> Result<Option<Announcement>, NodeError> {
    let message = codec::decoded::<wire::Announcement>(body(file, record).await?)?;
    let said = convert::announcement(message)?;
    Ok(said.filter(|said| {
        matches!(
            said,
            Announcement::Evidence(_) | Announcement::DocumentEvidence(_)
        )
    }))
}

/// Reads what a bundle says of a feed.
pub(crate) async fn feed(
    file: &Arc<dyn BundleFile>,
    record: &Record,
) -> Result<BundleFeed, NodeError> {
    let message = codec::decoded::<wire::BundleFeed>(body(file, record).await?)?;
    Ok(convert::bundle_feed(message)?)
}

/// Reads a chunk, which is the one that its record names.
pub(crate) async fn chunk(
    file: &Arc<dyn BundleFile>,
    at: &ChunkAt,
) -> Result<hashpact_core::chunk::ChunkParts, NodeError> {
    let body = body(file, &at.record).await?;
    let message = body.slice(CHUNK_BOUNDS_BYTES..);
    let part = convert::pull_part(codec::decoded::<wire::PullItem>(message)?, false)?;
    match part {
        Some(PullPart::Chunk(chunk)) if (chunk.from, chunk.to) == (at.from, at.to) => Ok(chunk),
        Some(PullPart::Chunk(chunk)) => Err(Rejection::WrongRange {
            expected: at.from,
            got: chunk.from,
        }
        .into()),
        Some(PullPart::Proof(_)) | None => {
            Err(Rejection::malformed("bundle", "a chunk without leaves").into())
        }
    }
}
