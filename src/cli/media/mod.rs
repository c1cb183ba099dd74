//! What files are asked for by: digests of all, PDQ of pictures, vPDQ of videos.
//!
//! Any number of threads may hash at one time: what they hold in memory together has
//! the bounds of one file of the largest kind. A picture or video that cannot be
//! looked into still has its digests, and says why.

mod content;
mod frames;
mod kinds;
mod links;
mod room;

use std::fs::File;
use std::io::{self, Seek as _};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use clap::{Args, FromArgMatches as _};
use hashpact_core::reject::Rejection;
use hashpact_core::signal::{Signal, SignalKind};
use hashpact_matching::pdq::hash::{self as pdq, ImageError, Limits, Turn};

use self::content::{Content, Seen};
use self::frames::{Ffmpeg, VideoError, signal_of};
use self::kinds::{Kind, kind_of};
use self::room::Room;

pub use self::content::{FileError, FileHashes};
pub use self::links::{Link, links_of, scope};

/// What to install where a video cannot be looked into.
pub const INSTALL_FFMPEG: &str = "install ffmpeg (Debian, Ubuntu: apt install ffmpeg) or name it with \
     --ffmpeg; --no-video leaves videos at their digests";

/// How files are looked into.
#[derive(Debug, Clone, Args)]
pub struct MediaArgs {
    /// PDQ of pictures also rotated and mirrored: eight values each
    #[arg(long)]
    pub dihedral: bool,
    /// Take MD5, SHA-1 and SHA-256 of videos only, not their frames
    #[arg(long)]
    pub no_video: bool,
    /// The program that takes videos apart
    #[arg(
        long,
        value_name = "PROGRAM",
        default_value = "ffmpeg",
        help_heading = "Limits"
    )]
    pub ffmpeg: PathBuf,
    /// Longest picture file that is decoded
    #[arg(long, value_name = "MIB", default_value_t = 64, help_heading = "Limits",
        value_parser = clap::value_parser!(u64).range(1..=4_096))]
    pub picture_max_mib: u64,
    /// Most pixels of a picture, in millions
    #[arg(long, value_name = "N", default_value_t = 50, help_heading = "Limits",
        value_parser = clap::value_parser!(u64).range(1..=1_000))]
    pub picture_max_megapixels: u64,
    /// Memory that decoding a picture may take
    #[arg(long, value_name = "MIB", default_value_t = 400, help_heading = "Limits",
        value_parser = clap::value_parser!(u64).range(1..=16_384))]
    pub picture_memory_mib: u64,
    /// Seconds that the frames of one video may take
    #[arg(long, value_name = "S", default_value_t = 600, help_heading = "Limits",
        value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub video_max_s: u64,
    /// Memory that ffmpeg may take
    #[arg(long, value_name = "MIB", default_value_t = 2_048, help_heading = "Limits",
        value_parser = clap::value_parser!(u64).range(64..=65_536))]
    pub video_memory_mib: u64,
}

impl MediaArgs {
    /// What stands where a command says nothing.
    ///
    /// # Errors
    /// None that is known: the defaults are good.
    pub(crate) fn usual() -> Result<Self, clap::Error> {
        let command = Self::augment_args(clap::Command::new("usual"));
        Self::from_arg_matches(&command.try_get_matches_from(["usual"])?)
    }

    fn limits(&self) -> Limits {
        let bytes = |mib: u64| mib.saturating_mul(1 << 20);
        Limits {
            file_max_bytes: usize::try_from(bytes(self.picture_max_mib)).unwrap_or(usize::MAX),
            max_pixels: self.picture_max_megapixels.saturating_mul(1_000_000),
            decoder_max_bytes: bytes(self.picture_memory_mib),
            ..Limits::default()
        }
    }
}

/// What a file hashes to.
#[derive(Debug)]
pub struct Hashed {
    /// Of its bytes.
    pub exact: FileHashes,
    /// Of what is to be seen.
    pub look: Look,
}

/// What was seen in a file.
#[derive(Debug)]
pub enum Look {
    /// It is neither a picture nor a video that can be looked into.
    Nothing,
    /// A picture, as it is or in all eight turns.
    Picture(Vec<(Turn, pdq::Hashed)>),
    /// A video, and how many frames were taken of it.
    Video {
        /// The vPDQ.
        signal: Signal,
        /// How many frames were hashed; the signal may hold fewer.
        frames: usize,
    },
    /// A picture or a video, and why there is no more of it.
    Failed(LookError),
}

/// Why a picture or video was not looked into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LookError {
    /// The stable reason code.
    pub code: &'static str,
    /// In words, without anything of the file.
    pub reason: String,
}

impl std::fmt::Display for LookError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code, self.reason)
    }
}

impl From<ImageError> for LookError {
    fn from(error: ImageError) -> Self {
        Self {
            code: error.code(),
            reason: error.to_string(),
        }
    }
}

impl From<VideoError> for LookError {
    fn from(error: VideoError) -> Self {
        Self {
            code: error.code(),
            reason: error.to_string(),
        }
    }
}

impl LookError {
    /// Whether the same file may be looked into another time.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        ["video_no_ffmpeg", "video_ffmpeg_failed", "video_too_slow"].contains(&self.code)
    }

    /// Whether it is for want of a program, and not the file's fault.
    #[must_use]
    pub fn wants_ffmpeg(&self) -> bool {
        self.code == VideoError::NoFfmpeg.code()
    }
}

impl Hashed {
    /// What is asked for: digests, then PDQ, then vPDQ.
    ///
    /// # Errors
    /// None; what makes a signal is of the right length here.
    pub fn signals(&self) -> Result<Vec<Signal>, Rejection> {
        let mut signals = vec![
            Signal::parse(SignalKind::Md5, &self.exact.md5)?,
            Signal::parse(SignalKind::Sha1, &self.exact.sha1)?,
            Signal::parse(SignalKind::Sha256, &self.exact.sha256)?,
        ];
        match &self.look {
            Look::Picture(turns) => {
                for (_, hashed) in turns {
                    let value = hashed.value.to_vec().into();
                    let signal = Signal::new(SignalKind::Pdq, value, Some(hashed.quality))?;
                    // A picture that is its own mirror image.
                    if !signals.contains(&signal) {
                        signals.push(signal);
                    }
                }
            }
            Look::Video { signal, .. } => signals.push(signal.clone()),
            Look::Nothing | Look::Failed(_) => {}
        }
        Ok(signals)
    }
}

/// The digests of a file that a person named, without a look into it.
///
/// # Errors
/// What the file system says; a folder is refused.
pub fn digests_of(path: &Path) -> Result<FileHashes, FileError> {
    let file = content::open_named(path)?;
    Ok(content::read(file, |_| 0, |_| ())?.exact)
}

/// Hashes files.
pub struct Hasher {
    args: MediaArgs,
    limits: Limits,
    /// Bytes of picture files.
    files: Room,
    /// Pixels of pictures that are decoded.
    pixels: Room,
    /// Videos that are taken apart.
    videos: Room,
    ffmpeg: OnceLock<Option<Ffmpeg>>,
}

impl Hasher {
    /// Hashes as `args` say.
    #[must_use]
    pub fn new(args: &MediaArgs) -> Self {
        let limits = args.limits();
        Self {
            args: args.clone(),
            files: Room::new((limits.file_max_bytes as u64).saturating_mul(2)),
            pixels: Room::new(limits.max_pixels),
            videos: Room::new(1),
            limits,
            ffmpeg: OnceLock::new(),
        }
    }

    /// Hashes what a person named: a file, a pipe, or standard input for "-".
    ///
    /// # Errors
    /// What the file system says; a folder is refused.
    pub fn named(&self, path: &Path, read: impl FnMut(u64)) -> Result<Hashed, FileError> {
        if path == Path::new("-") {
            let mut input = io::stdin().lock();
            return Ok(self.look_at(&mut input, None, read)?.0);
        }
        let hashed = self.file(content::open_named(path)?, read)?;
        Ok(self.told_if_empty(path, hashed))
    }

    /// Hashes a plain file that was found in a folder.
    ///
    /// # Errors
    /// What the file system says; anything but a plain file is refused.
    pub fn found(
        &self,
        path: &Path,
        follow: bool,
        read: impl FnMut(u64),
    ) -> Result<Hashed, FileError> {
        let hashed = self.file(content::open_found(path, follow)?, read)?;
        Ok(self.told_if_empty(path, hashed))
    }

    /// A file that is named as a picture or video and has no bytes is no other file.
    fn told_if_empty(&self, path: &Path, mut hashed: Hashed) -> Hashed {
        if hashed.exact.bytes > 0 {
            return hashed;
        }
        let ends = path.extension().and_then(|ends| ends.to_str());
        let ends = ends.unwrap_or_default().to_ascii_lowercase();
        if kinds::PICTURES.contains(&ends.as_str()) {
            hashed.look = Look::Failed(ImageError::Empty.into());
        } else if kinds::VIDEOS.contains(&ends.as_str()) && !self.args.no_video {
            hashed.look = Look::Failed(LookError {
                code: VideoError::NoFrames.code(),
                reason: "the file is empty".to_owned(),
            });
        }
        hashed
    }

    /// Hashes a file; one that changes meanwhile once more.
    fn file(&self, mut file: File, mut read: impl FnMut(u64)) -> Result<Hashed, FileError> {
        for _ in 0..2 {
            let metadata = file.metadata()?;
            let before = metadata.is_file().then(|| Seen::of(&metadata));
            let again = file.try_clone()?;
            // One byte more than there was tells that it grows; it need not end.
            let length = before.as_ref().map_or(0, Seen::length);
            let most = if length == 0 {
                u64::MAX
            } else {
                length.saturating_add(1)
            };
            let mut input = io::Read::take(&mut file, most);
            let again = before.as_ref().map(|_| again);
            let (hashed, bytes) = self.look_at(&mut input, again, &mut read)?;
            let Some(before) = before else {
                return Ok(hashed);
            };
            let after = file.metadata()?;
            // Files such as those of /proc have no length, and end when they end.
            let whole = after.len() == bytes || after.len() == 0;
            if whole && before == Seen::of(&after) {
                return Ok(hashed);
            }
            file.rewind()?;
        }
        Err(FileError::Changed)
    }

    /// Reads all of it and looks into it; `again` is the same file, to be read anew.
    fn look_at(
        &self,
        input: &mut impl io::Read,
        again: Option<File>,
        read: impl FnMut(u64),
    ) -> io::Result<(Hashed, u64)> {
        let mut taken = None;
        let keep = |start: &[u8]| match kind_of(start) {
            Kind::Picture => {
                let most = self.limits.file_max_bytes;
                let length = again.as_ref().and_then(|file| file.metadata().ok());
                let length = length.map_or(most as u64, |found| found.len().min(most as u64));
                taken = Some(self.files.take(length));
                most
            }
            Kind::Video(_) | Kind::Other => 0,
        };
        let Content { exact, start, kept } = content::read(input, keep, read)?;
        let bytes = exact.bytes;
        let look = match kind_of(&start) {
            Kind::Other => Look::Nothing,
            Kind::Video(_) if self.args.no_video => Look::Nothing,
            Kind::Video(demuxer) => self
                .video(again, demuxer)
                .unwrap_or_else(|error| Look::Failed(error.into())),
            Kind::Picture => self
                .picture(kept.as_deref(), bytes)
                .unwrap_or_else(|error| Look::Failed(error.into())),
        };
        drop(taken);
        Ok((Hashed { exact, look }, bytes))
    }

    fn picture(&self, file: Option<&[u8]>, bytes: u64) -> Result<Look, ImageError> {
        let file = file.ok_or(ImageError::FileTooLarge {
            bytes: usize::try_from(bytes).unwrap_or(usize::MAX),
            max: self.limits.file_max_bytes,
        })?;
        let claimed = pdq::claimed_pixels(file, &self.limits)?;
        let _room = self.pixels.take(claimed);
        let turns = if self.args.dihedral {
            pdq::dihedral(file, &self.limits)?.to_vec()
        } else {
            vec![(Turn::Original, pdq::hash(file, &self.limits)?)]
        };
        Ok(Look::Picture(turns))
    }

    fn video(&self, file: Option<File>, demuxer: &str) -> Result<Look, VideoError> {
        let mut file = file.ok_or(VideoError::NoFile)?;
        let ffmpeg = self.ffmpeg.get_or_init(|| {
            let longest = Duration::from_secs(self.args.video_max_s);
            let memory = self.args.video_memory_mib.saturating_mul(1 << 20);
            Ffmpeg::find(&self.args.ffmpeg, longest, memory)
        });
        let ffmpeg = ffmpeg.as_ref().ok_or(VideoError::NoFfmpeg)?;
        let _room = self.videos.take(1);
        file.rewind().map_err(VideoError::Run)?;
        let frames = ffmpeg.frames(file, demuxer)?;
        let signal = signal_of(&frames).ok_or(VideoError::NoFrames)?;
        Ok(Look::Video {
            signal,
            frames: frames.len(),
        })
    }
}

#[cfg(test)]
mod tests;
