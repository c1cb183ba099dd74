//! `hashpact evidence`: who signed two things that cannot both be true.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use data_encoding::HEXLOWER;
use hashpact_api::wire;
use hashpact_core::evidence_file::{EvidenceFile, Guilt, ProvenEvidence};
use hashpact_core::id::Digest;
use hashpact_core::reject::Rejection;
use serde::Serialize;

use super::Context;
use super::client::connect_or_embed;
use super::error::{CliError, Exit};
use super::output::{note, table};
use super::proof::file::{self, field};
use super::proof::summary::replaced;

/// List, export and verify evidence of forks and of documents of one version
///
/// A publisher that shows two histories of a set, a member that signs two node cards
/// of one version, administrators who sign two rosters: each leaves two signed things
/// that cannot both be true.
#[derive(Debug, Args)]
pub struct EvidenceArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the evidence that this node keeps
    List,
    /// Write one piece as a file that anybody verifies without a node
    Export {
        /// The beginning of its name, as the list shows it
        #[arg(value_name = "NAME")]
        name: String,
        /// Show the feed's first leaf too: it binds the feed to its publisher, names
        /// the set, and tells whom it was granted to
        #[arg(long)]
        describe: bool,
        /// Where to write it; standard output without it
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Verify a file of evidence and say whom it is against
    ///
    /// Needs no node, no member and no network. Exit code 1: it shows nothing, and
    /// says nothing about whom it names.
    Verify {
        /// The file; - reads standard input
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// The coalition's genesis digest, which somebody trusted gave you; without
        /// it, that of the configuration
        #[arg(long, value_name = "DIGEST", value_parser = Digest::from_hex)]
        genesis: Option<Digest>,
    },
}

#[derive(Serialize)]
struct Piece {
    name: String,
    kind: String,
    feed: Option<String>,
    feed_id: Option<String>,
    epoch: u32,
    sizes: Option<[u64; 2]>,
    member: Option<String>,
    version: u64,
    closed: bool,
}

#[derive(Serialize)]
struct Listed {
    evidence: Vec<Piece>,
}

#[derive(Serialize)]
struct Exported {
    file: String,
    #[serde(flatten)]
    shown: ShownObject,
}

#[derive(Serialize)]
struct ShownObject {
    verified: bool,
    genesis: String,
    coalition: String,
    roster_version: u64,
    /// fork, node-cards or rosters.
    kind: &'static str,
    /// Whom it is against; none for administrators.
    member: Option<String>,
    feed: Option<String>,
    /// Where the file shows it.
    set: Option<String>,
    epoch: Option<u32>,
    sizes: Option<[u64; 2]>,
    roots: Option<[String; 2]>,
    version: Option<u64>,
    /// The roster that replaced the identity key which signed the cards.
    identity_replaced_in: Option<u64>,
    /// The roster that closed the epoch of the heads.
    epoch_closed_in: Option<u64>,
    /// The roster that revoked a feed key which signed one of them.
    key_revoked_in: Option<u64>,
}

#[derive(Serialize)]
struct Refused {
    verified: bool,
    code: &'static str,
    why: String,
}

/// Runs the command.
///
/// # Errors
/// What the subcommand fails with.
pub fn run(args: &EvidenceArgs, context: &Context) -> Result<(), CliError> {
    match &args.command {
        Command::List => list(context),
        Command::Export {
            name,
            describe,
            out,
        } => export(name, *describe, out.as_ref(), context),
        Command::Verify { file, genesis } => verify(file, *genesis, context),
    }
}

fn list(context: &Context) -> Result<(), CliError> {
    let client = connect_or_embed(context)?;
    let listed = client.call(client.node().list_evidence(wire::ListEvidenceRequest {}))?;
    let evidence: Vec<Piece> = listed.pieces.into_iter().map(Piece::of).collect();
    if evidence.is_empty() {
        context.output.line("no evidence is known here")?;
        return context.output.json(&Listed { evidence });
    }
    let mut shown = table(&["NAME", "KIND", "AGAINST", "ABOUT", "STATE"], &[]);
    for piece in &evidence {
        let name = piece.name.get(..12).unwrap_or_default().to_owned();
        let against = piece.member.clone();
        shown.add_row([
            name,
            piece.kind.clone(),
            against.unwrap_or_else(|| "-".to_owned()),
            piece.about(),
            if piece.closed { "closed" } else { "open" }.to_owned(),
        ]);
    }
    context.output.table(&shown)?;
    context.output.json(&Listed { evidence })
}

impl Piece {
    fn of(piece: wire::EvidencePiece) -> Self {
        let text = |text: String| (!text.is_empty()).then_some(text);
        let is_fork = !piece.feed_id.is_empty();
        Self {
            name: HEXLOWER.encode(&piece.digest),
            kind: piece.kind,
            feed: text(piece.feed),
            feed_id: is_fork.then(|| HEXLOWER.encode(&piece.feed_id)),
            epoch: piece.epoch,
            sizes: is_fork.then_some([piece.smaller_size, piece.larger_size]),
            member: text(piece.member),
            version: piece.version,
            closed: piece.closed,
        }
    }

    fn about(&self) -> String {
        match (&self.feed, self.sizes) {
            (Some(feed), Some([smaller, larger])) => {
                format!("{feed} at {smaller} and {larger} leaves")
            }
            _ => format!("two of version {}", self.version),
        }
    }
}

fn export(
    name: &str,
    describe: bool,
    out: Option<&PathBuf>,
    context: &Context,
) -> Result<(), CliError> {
    let out = out.map(PathBuf::as_path);
    file::check_target(out, &context.output)?;
    let client = connect_or_embed(context)?;
    let request = wire::ExportEvidenceRequest {
        digest: name.to_owned(),
        describe,
    };
    let mut node = client.node();
    let bytes = file::fetch(&client, node.export_evidence(request))?;
    let genesis = client.config().coalition.genesis;
    let guilt = EvidenceFile::decode(&bytes)
        .and_then(|evidence| evidence.verify(&genesis))
        .map_err(CliError::failed)?;
    file::write(out, &bytes, &context.output)?;
    let Some(out) = out else {
        note(sentence(&guilt));
        return Ok(());
    };
    let file = out.display().to_string();
    context.output.line(format_args!("{file}: written"))?;
    field(&context.output, "shows", &sentence(&guilt))?;
    let shown = ShownObject::of(&guilt, &genesis);
    for said in shown.doubts() {
        field(&context.output, "", &said)?;
    }
    context.output.json(&Exported { file, shown })
}

fn verify(
    path: &std::path::Path,
    genesis: Option<Digest>,
    context: &Context,
) -> Result<(), CliError> {
    let Some(genesis) = file::genesis(genesis, context) else {
        return Err(
            CliError::usage("by which genesis is not said: anybody can found a coalition")
                .next("--genesis DIGEST, with what somebody you trust tells you"),
        );
    };
    let bytes = file::read(path)?;
    let guilt = EvidenceFile::decode(&bytes).and_then(|file| file.verify(&genesis));
    let guilt = match guilt {
        Ok(guilt) => guilt,
        Err(rejection) => return refused(path, &rejection, context),
    };
    let shown = ShownObject::of(&guilt, &genesis);
    let out = &context.output;
    let short = shown.genesis.get(..16).unwrap_or_default();
    out.line(format_args!(
        "{}: verified from genesis {short}… on",
        file::called(path)
    ))?;
    field(out, "shows", &sentence(&guilt))?;
    for said in shown.doubts() {
        field(out, "", &said)?;
    }
    if let (Some([one, other]), Some([m, n])) = (&shown.roots, shown.sizes) {
        field(out, "heads", &format!("{m} leaves with root {one}"))?;
        field(out, "", &format!("{n} leaves with root {other}"))?;
    }
    if let Some(feed) = &shown.feed {
        field(out, "feed", feed)?;
    }
    field(
        out,
        "roster",
        &format!("version {} of {}", shown.roster_version, shown.coalition),
    )?;
    field(
        out,
        "not shown",
        "why: a stolen key signs as well as its owner; and what rosters after this one say",
    )?;
    out.json(&shown)
}

fn refused(
    path: &std::path::Path,
    rejection: &Rejection,
    context: &Context,
) -> Result<(), CliError> {
    let code = rejection.code();
    context.output.json(&Refused {
        verified: false,
        code,
        why: rejection.to_string(),
    })?;
    if context.output.is_json() {
        return Err(CliError::Quiet(Exit::Failed));
    }
    let what = format!("{} shows nothing: {rejection} ({code})", file::called(path));
    Err(CliError::failed(what).next("it blames nobody but whoever made it"))
}

fn sentence(guilt: &Guilt) -> String {
    match &guilt.proven {
        ProvenEvidence::Fork {
            slug, set, fork, ..
        } => {
            let what = set
                .as_ref()
                .map_or_else(|| "one feed".to_owned(), |set| format!("the set {set}"));
            let (m, n) = (fork.smaller.size(), fork.larger.size());
            format!(
                "keys of {slug} signed two histories of {what}: its head of {m} leaves is not \
                 contained in its head of {n}"
            )
        }
        ProvenEvidence::NodeCards { slug, version, .. } => {
            format!("{slug} signed two node cards of version {version}")
        }
        ProvenEvidence::Rosters { version } => {
            format!("administrators signed two rosters of version {version}")
        }
    }
}

impl ShownObject {
    fn of(guilt: &Guilt, genesis: &Digest) -> Self {
        let mut shown = Self {
            verified: true,
            genesis: genesis.to_string(),
            coalition: guilt.coalition.to_string(),
            roster_version: guilt.roster_version,
            kind: "rosters",
            member: None,
            feed: None,
            set: None,
            epoch: None,
            sizes: None,
            roots: None,
            version: None,
            identity_replaced_in: None,
            epoch_closed_in: None,
            key_revoked_in: None,
        };
        match &guilt.proven {
            ProvenEvidence::Fork {
                slug,
                feed,
                set,
                fork,
                replaced_in,
                doubt,
                ..
            } => {
                shown.identity_replaced_in = *replaced_in;
                shown.epoch_closed_in = doubt.epoch_closed_in;
                shown.key_revoked_in = doubt.key_revoked_in;
                let both = [&fork.smaller, &fork.larger];
                shown.kind = "fork";
                shown.member = Some(slug.to_string());
                shown.feed = Some(feed.to_string());
                shown.set = set.as_ref().map(ToString::to_string);
                shown.epoch = Some(fork.larger.checkpoint.origin.epoch);
                shown.sizes = Some(both.map(hashpact_core::checkpoint::SignedCheckpoint::size));
                shown.roots = Some(both.map(|head| head.root().to_string()));
            }
            ProvenEvidence::NodeCards {
                slug,
                version,
                replaced_in,
                ..
            } => {
                shown.identity_replaced_in = *replaced_in;
                shown.kind = "node-cards";
                shown.member = Some(slug.to_string());
                shown.version = Some(*version);
            }
            ProvenEvidence::Rosters { version } => shown.version = Some(*version),
        }
        shown
    }

    /// What rosters in the file say that makes it weigh less.
    fn doubts(&self) -> Vec<String> {
        let revoked = |roster| {
            format!(
                "⚠ a feed key that signed here was revoked in roster {roster}: whoever found it \
                 could have made this"
            )
        };
        let closed = |roster| {
            format!("⚠ roster {roster} closed the epoch: no node acts on this, or tells it on")
        };
        let said = [
            self.identity_replaced_in.map(replaced),
            self.key_revoked_in.map(revoked),
            self.epoch_closed_in.map(closed),
        ];
        said.into_iter().flatten().collect()
    }
}
