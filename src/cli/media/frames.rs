//! The frames of a video, by an installed ffmpeg.
//!
//! ⚠ ffmpeg is other people's code on anybody's bytes. It is given an open file, never
//! a path, so that no name is read as an option or an address; the demuxer by name, so
//! that no playlist opens other files; no environment; and bounds on its memory, its
//! processor time and the time that it may take. No shell is involved.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::Duration;

use hashpact_core::signal::{Signal, SignalKind, VPDQ_FRAMES_MAX};
use hashpact_matching::pdq::hash::hash_rgb;
use hashpact_matching::vpdq::{self, Frame, MAX_FRAMES};
use rustix::process::{Pid, Resource, Rlimit, prlimit};

/// Longest side of a frame as it is handed over; PDQ samples 64 × 64 of it.
const SIDE_MAX: usize = 512;
/// Frames of less quality say nothing, and are left out where there are others.
const QUALITY_MIN: u8 = 50;
/// A frame each second, as vPDQ's authors do.
const FRAME_MS: u64 = 1_000;

/// How ffmpeg is run.
#[derive(Debug, Clone)]
pub(crate) struct Ffmpeg {
    program: PathBuf,
    longest: Duration,
    memory_max_bytes: u64,
}

/// Why a video has no frames.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VideoError {
    #[error("no ffmpeg at hand, so its frames were not compared")]
    NoFfmpeg,
    #[error("frames are taken of files only, not of what comes through a pipe")]
    NoFile,
    #[error("ffmpeg could not be run: {0}")]
    Run(#[source] io::Error),
    #[error("ffmpeg took longer than {} s", .0.as_secs())]
    TooSlow(Duration),
    #[error("ffmpeg found no picture in it: damaged, not supported, or it needs more memory")]
    NoFrames,
    #[error("ffmpeg wrote something else than frames")]
    Malformed,
}

impl VideoError {
    /// The stable reason code.
    pub(crate) const fn code(&self) -> &'static str {
        match self {
            Self::NoFfmpeg => "video_no_ffmpeg",
            Self::NoFile => "video_no_file",
            Self::Run(_) => "video_ffmpeg_failed",
            Self::TooSlow(_) => "video_too_slow",
            Self::NoFrames => "video_no_frames",
            Self::Malformed => "video_malformed",
        }
    }
}

impl Ffmpeg {
    /// Finds the program: a path, or a name to be looked for on the search path.
    pub(crate) fn find(program: &Path, longest: Duration, memory_max_bytes: u64) -> Option<Self> {
        let found = if program.components().count() > 1 {
            std::path::absolute(program).ok().filter(runs)
        } else {
            let path = std::env::var_os("PATH").unwrap_or_default();
            // What stands in a folder named relatively could be anybody's.
            let folders = std::env::split_paths(&path).filter(|folder| folder.is_absolute());
            folders.map(|folder| folder.join(program)).find(runs)
        };
        found.map(|program| Self {
            program,
            longest,
            memory_max_bytes,
        })
    }

    /// The frames of a video, one a second; at most ten hours.
    pub(crate) fn frames(&self, file: File, demuxer: &str) -> Result<Vec<Frame>, VideoError> {
        let mut child = self.start(file, demuxer).map_err(VideoError::Run)?;
        let output = child.stdout.take();
        let child = Mutex::new(child);
        let longest = self.longest;
        let lock = || child.lock().unwrap_or_else(PoisonError::into_inner);
        let (done, told) = mpsc::channel::<()>();
        let (read, too_slow) = std::thread::scope(|scope| {
            let watching = scope.spawn(move || {
                let late = matches!(
                    told.recv_timeout(longest),
                    Err(mpsc::RecvTimeoutError::Timeout)
                );
                // Nothing is left to be read, or nobody reads it: it has nothing to do.
                let _ = lock().kill();
                late
            });
            let read = output.map_or(Ok(Vec::new()), |output| frames_of(BufReader::new(output)));
            drop(done);
            (read, watching.join().unwrap_or(false))
        });
        let _ = lock().wait();
        if too_slow {
            return Err(VideoError::TooSlow(self.longest));
        }
        let frames = read?;
        if frames.is_empty() {
            Err(VideoError::NoFrames)
        } else {
            Ok(frames)
        }
    }

    fn start(&self, file: File, demuxer: &str) -> io::Result<Child> {
        let scale = format!(
            "fps=1,scale=w=min({SIDE_MAX}\\,iw):h=min({SIDE_MAX}\\,ih):force_original_aspect_ratio=decrease"
        );
        let frames_max = MAX_FRAMES.to_string();
        let mut command = Command::new(&self.program);
        command
            .args(["-nostdin", "-hide_banner", "-loglevel", "quiet"])
            .args(["-threads", "1", "-protocol_whitelist", "file"])
            // What is opened is the file that stands open here, whatever its name is.
            .args(["-f", demuxer, "-i", "file:/proc/self/fd/0"])
            // No sound, subtitles, data; no cover picture either.
            .args(["-map", "0:V:0", "-an", "-sn", "-dn", "-vf", &scale])
            .args(["-frames:v", &frames_max, "-threads", "1"])
            .args(["-f", "image2pipe", "-c:v", "ppm", "pipe:1"])
            .env_clear()
            .current_dir("/")
            .stdin(file)
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = command.spawn()?;
        if let Err(error) = self.bound(&child) {
            let _ = child.kill();
            let _ = child.wait();
            return Err(error);
        }
        Ok(child)
    }

    fn bound(&self, child: &Child) -> io::Result<()> {
        let most = |amount| Rlimit {
            current: Some(amount),
            maximum: Some(amount),
        };
        let pid = Pid::from_child(child);
        // It takes one thread, and is ended after that long in any case.
        let seconds = self.longest.as_secs().saturating_add(10);
        for (resource, amount) in [
            (Resource::As, self.memory_max_bytes),
            (Resource::Cpu, seconds),
            (Resource::Core, 0),
            // It writes into a pipe, and no files.
            (Resource::Fsize, 0),
        ] {
            match prlimit(Some(pid), resource, most(amount)) {
                // It has ended already.
                Ok(_) | Err(rustix::io::Errno::SRCH) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

fn runs(path: &PathBuf) -> bool {
    let found = std::fs::metadata(path);
    found.is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// Hashes pictures in the form `P6`, one after the other.
fn frames_of(mut input: impl Read) -> Result<Vec<Frame>, VideoError> {
    let mut frames = Vec::new();
    let mut pixels = Vec::new();
    while frames.len() < MAX_FRAMES {
        let Some((width, height)) = header(&mut input)? else {
            break;
        };
        let length = width.saturating_mul(height).saturating_mul(3);
        pixels.resize(length, 0);
        match input.read_exact(&mut pixels) {
            // Killed in the middle, by a bound: what came before stands.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(VideoError::Run(error)),
            Ok(()) => {}
        }
        let side = |side: usize| u32::try_from(side).unwrap_or(u32::MAX);
        let number = frames.len() as u64;
        // A video of less than 5 × 5 pixels says nothing.
        let hashed = hash_rgb(side(width), side(height), &pixels);
        let hashed = hashed.map_err(|_| VideoError::NoFrames)?;
        frames.push(Frame {
            value: hashed.value,
            quality: hashed.quality,
            number: Some(number),
            time_ms: Some(number.saturating_mul(FRAME_MS)),
        });
    }
    Ok(frames)
}

/// Reads `P6`, width, height and 255, each behind one blank; none at the end.
fn header(input: &mut impl Read) -> Result<Option<(usize, usize)>, VideoError> {
    let mut words: Vec<String> = Vec::new();
    let mut word = String::new();
    for length in 0..64 {
        let mut byte = [0];
        match input.read_exact(&mut byte) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && length == 0 => {
                return Ok(None);
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(VideoError::Malformed);
            }
            Err(error) => return Err(VideoError::Run(error)),
            Ok(()) => {}
        }
        let [byte] = byte;
        if !byte.is_ascii_whitespace() {
            word.push(char::from(byte));
            continue;
        }
        words.push(std::mem::take(&mut word));
        if let [magic, width, height, most] = words.as_slice() {
            let sides = width.parse().ok().zip(height.parse().ok());
            let fits = |side: usize| (1..=SIDE_MAX).contains(&side);
            let known = magic == "P6" && most == "255";
            return sides
                .filter(|(width, height)| known && fits(*width) && fits(*height))
                .map(Some)
                .ok_or(VideoError::Malformed);
        }
    }
    Err(VideoError::Malformed)
}

/// The signal of a video: its frames of some quality, evenly thinned to as many as a
/// signal holds.
pub(crate) fn signal_of(frames: &[Frame]) -> Option<Signal> {
    let good: Vec<Frame> = frames
        .iter()
        .copied()
        .filter(|frame| frame.quality >= QUALITY_MIN)
        .collect();
    let frames = if good.is_empty() { frames } else { &good };
    let kept: Vec<Frame> = if frames.len() <= VPDQ_FRAMES_MAX {
        frames.to_vec()
    } else {
        let places = 0..VPDQ_FRAMES_MAX;
        let places = places.map(|place| place.saturating_mul(frames.len()) / VPDQ_FRAMES_MAX);
        places
            .filter_map(|place| frames.get(place))
            .copied()
            .collect()
    };
    Signal::parse(SignalKind::Vpdq, &vpdq::to_list(&kept)).ok()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// A program in ffmpeg's place.
    fn fake(script: &str) -> (tempfile::TempDir, Ffmpeg) {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("ffmpeg");
        // Another process writes it: a child that some other test forks at this moment
        // would hold a file that is open for writing here, and nobody could run it.
        let mut writer = Command::new("/bin/sh")
            .args(["-c", "cat > \"$0\" && chmod 755 \"$0\""])
            .arg(&program)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = writer.stdin.take().unwrap();
        write!(stdin, "#!/bin/sh\n{script}\n").unwrap();
        drop(stdin);
        assert!(writer.wait().unwrap().success());
        let found = Ffmpeg::find(&program, Duration::from_secs(20), 1 << 30);
        (folder, found.unwrap())
    }

    fn run(script: &str) -> Result<Vec<Frame>, VideoError> {
        let (folder, ffmpeg) = fake(script);
        let video = folder.path().join("video");
        std::fs::write(&video, "content").unwrap();
        ffmpeg.frames(File::open(video).unwrap(), "mov")
    }

    fn code(script: &str) -> &'static str {
        run(script).unwrap_err().code()
    }

    #[test]
    fn frames_are_hashed_as_they_come() {
        // 5 × 5 pixels of three bytes.
        let frame = "printf 'P6\\n5 5\\n255\\n%075d' 1";
        let frames = run(&format!("{frame}; {frame}; {frame}")).unwrap();
        assert_eq!(frames.len(), 3);
        assert_eq!(frames[2].time_ms, Some(2_000));
        // The file stands open at its beginning, and its name is nowhere.
        let frames = run(&format!(
            "[ \"$(cat)\" = content ] || exit 1; case \"$*\" in *video*) exit 1;; esac; {frame}"
        ));
        assert_eq!(frames.unwrap().len(), 1);
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        assert_eq!(code("exit 1"), "video_no_frames");
        assert_eq!(code("echo nothing at all of the kind"), "video_malformed");
        assert_eq!(
            code("printf 'P6\\n90000 90000\\n255\\n'"),
            "video_malformed"
        );
        assert_eq!(code("printf 'P6\\n5 5\\n255\\nabc'"), "video_no_frames");
        assert_eq!(code("printf 'P6\\n5 5'"), "video_malformed");
        assert_eq!(code("yes"), "video_malformed");
    }

    #[test]
    fn one_that_does_not_end_is_ended() {
        let (folder, mut ffmpeg) = fake("exec sleep 1000");
        ffmpeg.longest = Duration::from_millis(50);
        let file = File::open(folder.path().join("ffmpeg")).unwrap();
        let error = ffmpeg.frames(file, "mov").unwrap_err();
        assert_eq!(error.code(), "video_too_slow");
    }

    #[test]
    fn memory_and_files_are_bounded_and_the_environment_is_empty() {
        // It waits until the bounds are set.
        let bounds = "while [ \"$(ulimit -f)\" != 0 ]; do :; done; [ \"$(ulimit -v)\" = 1048576 ] \
            && [ \"$(ulimit -t)\" = 30 ] && [ -z \"$HOME$CARGO_MANIFEST_DIR\" ] || exit 1";
        let frame = "printf 'P6\\n5 5\\n255\\n%075d' 1";
        assert_eq!(run(&format!("{bounds}; {frame}")).unwrap().len(), 1);
    }

    #[test]
    fn a_program_that_is_not_there_or_does_not_run_is_not_found() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        for program in [Path::new("no-such-program-here"), &file, folder.path()] {
            assert!(Ffmpeg::find(program, Duration::from_secs(1), 1).is_none());
        }
        assert!(Ffmpeg::find(Path::new("sh"), Duration::from_secs(1), 1).is_some());
    }

    fn frame(number: u64, quality: u8) -> Frame {
        let mut value = [0x0f; 32];
        value[..8].copy_from_slice(&number.to_be_bytes());
        Frame {
            value,
            quality,
            number: Some(number),
            time_ms: Some(number * 1_000),
        }
    }

    #[test]
    fn a_long_video_is_thinned_evenly_and_blank_frames_are_left_out() {
        let frames: Vec<Frame> = (0..1_000)
            .map(|n| frame(n, if n % 2 == 0 { 90 } else { 3 }))
            .collect();
        let signal = signal_of(&frames).unwrap();
        let times: Vec<u32> = signal.frames().map(|frame| frame.at_ms).collect();
        assert_eq!(times.len(), VPDQ_FRAMES_MAX);
        assert!(times.is_sorted() && times.iter().all(|time| time % 2_000 == 0));
        assert!(times[199] > 980_000);
        let short = signal_of(&frames[..9]).unwrap();
        assert_eq!(short.frames().count(), 5);
        let blank = signal_of(&[frame(1, 3)]).unwrap();
        assert_eq!(blank.frames().count(), 1);
    }
}
