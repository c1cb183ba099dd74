//! `hashpact hash`: digests of files, PDQ of pictures, vPDQ of videos, digests of
//! links.

use std::path::PathBuf;

use clap::Args;
use data_encoding::HEXLOWER;
use serde::Serialize;

use super::Context;
use super::error::{CliError, Exit};
use super::media::{
    FileHashes, Hashed, Hasher, INSTALL_FFMPEG, Link, Look, LookError, MediaArgs, links_of, scope,
};
use super::output::{Progress, bytes, counted, note, plain};

/// Print the hashes of files, pictures, videos and links
///
/// MD5, SHA-1 and SHA-256 of every file, in one pass; PDQ with its quality of
/// pictures (JPEG, PNG, GIF, WebP, BMP, TIFF); vPDQ of videos, a frame a second,
/// where ffmpeg is installed. With --url the SHA-256 of each expression of a link
/// (host and path, and what contains them), as entries of links carry it.
///
/// A file that cannot be read, or a picture or video that cannot be looked into, is
/// reported with the reason and the others go on; the exit code is then 3, or 1
/// when nothing could be hashed.
#[derive(Debug, Args)]
pub struct HashArgs {
    /// Files to read; "-" is standard input
    #[arg(required_unless_present = "url", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// A link; may be repeated. "-" reads links from standard input, one a line, so
    /// that they stand in no process list
    #[arg(long, value_name = "URL")]
    url: Vec<String>,
    /// Print the expressions of links beside their digests
    #[arg(long, requires = "url")]
    show_links: bool,
    #[command(flatten)]
    media: MediaArgs,
}

#[derive(Serialize)]
struct HashedFile {
    file: String,
    #[serde(flatten)]
    exact: FileHashes,
    /// image, video or other.
    media: &'static str,
    pdq: Option<String>,
    pdq_quality: Option<u8>,
    /// All eight, with --dihedral.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    turns: Vec<Turned>,
    vpdq: Option<String>,
    /// Frames that were taken; the vPDQ holds those that say something, at most 200.
    video_frames: Option<usize>,
    /// Why a picture or video has no PDQ or vPDQ.
    not_seen: Option<Failed>,
}

#[derive(Serialize)]
struct Turned {
    turn: &'static str,
    pdq: String,
}

#[derive(Serialize)]
struct Failed {
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    code: &'static str,
    error: String,
}

#[derive(Serialize)]
struct HashedLink {
    link: String,
    expressions: Vec<HashedExpression>,
}

#[derive(Serialize)]
struct HashedExpression {
    url: String,
    host: &'static str,
    path: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    expression: Option<String>,
}

#[derive(Default, Serialize)]
struct Summary {
    files: Vec<HashedFile>,
    links: Vec<HashedLink>,
    failed: Vec<Failed>,
    #[serde(skip)]
    hashed: u64,
    /// Pictures and videos that only have digests.
    #[serde(skip)]
    not_seen: u64,
    #[serde(skip)]
    wants_ffmpeg: bool,
}

/// Runs the command.
///
/// # Errors
/// When something could not be hashed, after all others were; or when printing fails.
pub fn run(args: HashArgs, context: &Context) -> Result<(), CliError> {
    let mut summary = Summary::default();
    for link in links_of(&args.url)? {
        summary.link(link, args.show_links, context)?;
    }
    let hasher = Hasher::new(&args.media);
    let mut progress = Progress::bytes(total_bytes(&args.files));
    for path in args.files {
        let file = path.display().to_string();
        progress.name(file.clone());
        match hasher.named(&path, |read| progress.add(read)) {
            Ok(hashed) => progress.around(|| summary.file(file, &hashed, context))?,
            Err(error) => {
                progress.around(|| note(format!("error: {}: {error}", plain(&file))));
                summary.failed.push(Failed {
                    file: Some(file),
                    code: error.code(),
                    error: error.to_string(),
                });
            }
        }
    }
    drop(progress);
    if !summary.failed.is_empty() {
        note("next: name files that are there and may be read, and whole links; the rest is done");
    }
    if summary.wants_ffmpeg {
        note(format_args!("next: {INSTALL_FFMPEG}"));
    }
    context.output.json(&summary)?;
    match (
        summary.failed.is_empty() && summary.not_seen == 0,
        summary.hashed,
    ) {
        (true, _) => Ok(()),
        (false, 1..) => Err(CliError::Quiet(Exit::Partial)),
        (false, 0) => Err(CliError::Quiet(Exit::Failed)),
    }
}

impl Summary {
    fn file(&mut self, file: String, hashed: &Hashed, context: &Context) -> Result<(), CliError> {
        self.hashed = self.hashed.saturating_add(1);
        let output = &context.output;
        let exact = &hashed.exact;
        output.line(format_args!("{} ({})", plain(&file), bytes(exact.bytes)))?;
        output.line(format_args!("  MD5     {}", exact.md5))?;
        output.line(format_args!("  SHA1    {}", exact.sha1))?;
        output.line(format_args!("  SHA256  {}", exact.sha256))?;
        let mut object = HashedFile {
            file,
            exact: exact.clone(),
            media: "other",
            pdq: None,
            pdq_quality: None,
            turns: Vec::new(),
            vpdq: None,
            video_frames: None,
            not_seen: None,
        };
        match &hashed.look {
            Look::Nothing => {}
            Look::Picture(turns) => {
                object.media = "image";
                for (turn, picture) in turns {
                    let pdq = HEXLOWER.encode(&picture.value);
                    let (label, aside) = if object.pdq.is_none() {
                        ("PDQ", format!("quality {}", picture.quality))
                    } else {
                        ("", turn.name().to_owned())
                    };
                    output.line(format_args!("  {label:<6}  {pdq}"))?;
                    output.line(format_args!("          {aside}"))?;
                    object.pdq.get_or_insert_with(|| pdq.clone());
                    object.pdq_quality = Some(picture.quality);
                    if turns.len() > 1 {
                        let turn = turn.name();
                        object.turns.push(Turned { turn, pdq });
                    }
                }
            }
            Look::Video { signal, frames } => {
                object.media = "video";
                let kept = counted(signal.frames().count() as u64, "frame", "frames");
                let taken = counted(*frames as u64, "second", "seconds");
                output.line(format_args!(
                    "  VPDQ    {kept} of {taken}; --json prints them"
                ))?;
                object.vpdq = Some(signal.to_text());
                object.video_frames = Some(*frames);
            }
            Look::Failed(error) => {
                self.not_seen = self.not_seen.saturating_add(1);
                self.wants_ffmpeg |= error.wants_ffmpeg();
                note(format_args!("error: {}: {error}", plain(&object.file)));
                object.media = media_of(error);
                object.not_seen = Some(Failed {
                    file: None,
                    code: error.code,
                    error: error.reason.clone(),
                });
            }
        }
        if output.is_json() {
            self.files.push(object);
        }
        Ok(())
    }

    fn link(&mut self, link: Link, show: bool, context: &Context) -> Result<(), CliError> {
        let Link { name, expressions } = link;
        let expressions = match expressions {
            Ok(expressions) => expressions,
            Err(error) => {
                note(format_args!("error: {name}: {error}"));
                self.failed.push(Failed {
                    file: Some(name),
                    code: error.code(),
                    error: error.to_string(),
                });
                return Ok(());
            }
        };
        self.hashed = self.hashed.saturating_add(1);
        let output = &context.output;
        output.line(format_args!("{name}"))?;
        let mut object = HashedLink {
            link: name,
            expressions: Vec::new(),
        };
        for expression in &expressions {
            let (host, path) = scope(expression);
            let url = HEXLOWER.encode(&expression.digest());
            output.line(format_args!("  URL     {url}"))?;
            output.line(format_args!("          {host}, {path}"))?;
            let text = show.then(|| expression.text().to_owned());
            if let Some(text) = &text {
                output.line(format_args!("          {text}"))?;
            }
            object.expressions.push(HashedExpression {
                url,
                host,
                path,
                expression: text,
            });
        }
        if output.is_json() {
            self.links.push(object);
        }
        Ok(())
    }
}

fn media_of(error: &LookError) -> &'static str {
    if error.code.starts_with("video_") {
        "video"
    } else {
        "image"
    }
}

/// Bytes of all files together, where all are plain files.
fn total_bytes(files: &[PathBuf]) -> Option<u64> {
    files.iter().try_fold(0_u64, |total, path| {
        let found = std::fs::metadata(path).ok()?;
        found.is_file().then(|| total.saturating_add(found.len()))
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: HashArgs,
    }

    fn call(line: &[&str]) -> (Result<(), CliError>, String) {
        let (context, printed) = Context::for_test(true);
        let line = Line::parse_from([&["hash"], line].concat());
        let done = run(line.args, &context);
        (done, printed.text())
    }

    #[test]
    fn a_file_that_cannot_be_read_does_not_stop_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        std::fs::write(path("good"), "abc").unwrap();
        let missing = path("missing");
        let (done, printed) = call(&[&missing, &path(""), &path("good")]);
        assert_eq!(done, Err(CliError::Quiet(Exit::Partial)));
        let summary: serde_json::Value = serde_json::from_str(&printed).unwrap();
        assert_eq!(
            summary["files"][0]["md5"],
            "900150983cd24fb0d6963f7d28e17f72"
        );
        assert_eq!(summary["files"][0]["media"], "other");
        assert_eq!(summary["failed"].as_array().map(Vec::len), Some(2));
        assert_eq!(summary["failed"][0]["code"], "not_found");
        assert_eq!(summary["failed"][1]["code"], "is_a_folder");
        let (done, _) = call(&[&missing]);
        assert_eq!(done, Err(CliError::Quiet(Exit::Failed)));
    }

    #[test]
    fn a_damaged_picture_has_its_digests_and_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cut.png").display().to_string();
        std::fs::write(&path, b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR").unwrap();
        let (done, printed) = call(&[&path]);
        assert_eq!(done, Err(CliError::Quiet(Exit::Partial)));
        let summary: serde_json::Value = serde_json::from_str(&printed).unwrap();
        let file = &summary["files"][0];
        assert_eq!(file["md5"].as_str().map(str::len), Some(32));
        assert_eq!(file["media"], "image");
        assert_eq!(file["not_seen"]["code"], "image_truncated");
    }

    #[test]
    fn an_empty_file_that_is_named_as_a_picture_is_told_with_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        for name in ["zero.PNG", "zero.mp4", "zero.txt"] {
            std::fs::write(path(name), b"").unwrap();
        }
        let (done, printed) = call(&[&path("zero.PNG"), &path("zero.mp4"), &path("zero.txt")]);
        assert_eq!(done, Err(CliError::Quiet(Exit::Partial)));
        let summary: serde_json::Value = serde_json::from_str(&printed).unwrap();
        let code = |at: usize| summary["files"][at]["not_seen"]["code"].clone();
        assert_eq!(code(0), "image_empty");
        assert_eq!(code(1), "video_no_frames");
        assert!(code(2).is_null());
    }

    #[test]
    fn links_are_shown_only_where_that_is_asked_for() {
        let link = "https://a.example/secret/page?x=1";
        let (done, printed) = call(&["--url", link]);
        assert_eq!(done, Ok(()));
        assert!(!printed.contains("secret"), "{printed}");
        let summary: serde_json::Value = serde_json::from_str(&printed).unwrap();
        let expressions = summary["links"][0]["expressions"].as_array().unwrap();
        assert_eq!(expressions.len(), 4);
        assert_eq!(expressions[0]["path"], "page with query");
        assert_eq!(expressions[2]["path"], "all of it");
        assert_eq!(expressions[3]["path"], "folder");
        let (_, printed) = call(&["--url", link, "--show-links"]);
        assert!(printed.contains("a.example/secret/page?x=1"), "{printed}");
        let (done, printed) = call(&["--url", "mailto:somebody@secret.example"]);
        assert_eq!(done, Err(CliError::Quiet(Exit::Failed)));
        assert!(!printed.contains("secret"), "{printed}");
    }
}
