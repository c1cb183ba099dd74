//! Files of every kind, looked into.

use clap::Parser;

use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    media: MediaArgs,
}

fn hasher(line: &[&str]) -> Hasher {
    Hasher::new(&Line::parse_from([&["x"], line].concat()).media)
}

fn picture(name: &str) -> PathBuf {
    let here = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    here.unwrap().join("tests/data/images").join(name)
}

fn code(look: &Look) -> &'static str {
    match look {
        Look::Failed(error) => error.code,
        Look::Nothing => "nothing",
        Look::Picture(_) => "picture",
        Look::Video { .. } => "video",
    }
}

#[test]
fn a_picture_is_asked_for_by_its_digests_and_its_pdq() {
    let hashed = hasher(&[]).named(&picture("shapes.png"), |_| ()).unwrap();
    let kinds: Vec<SignalKind> = hashed.signals().unwrap().iter().map(Signal::kind).collect();
    assert_eq!(
        kinds,
        [
            SignalKind::Md5,
            SignalKind::Sha1,
            SignalKind::Sha256,
            SignalKind::Pdq
        ]
    );
    let turned = hasher(&["--dihedral"])
        .named(&picture("shapes.png"), |_| ())
        .unwrap();
    assert_eq!(turned.signals().unwrap().len(), 3 + 8);
}

#[test]
fn a_picture_over_a_limit_has_its_digests_and_the_reason() {
    for (line, expected) in [
        (&["--picture-max-megapixels", "1"][..], "picture"),
        (&["--picture-memory-mib", "1"], "picture"),
    ] {
        let hashed = hasher(line).named(&picture("shapes.png"), |_| ()).unwrap();
        assert_eq!(code(&hashed.look), expected);
    }
    let folder = tempfile::tempdir().unwrap();
    let long = folder.path().join("long.png");
    let mut file = std::fs::read(picture("shapes.png")).unwrap();
    file.resize((1 << 20) + 1, 0);
    std::fs::write(&long, file).unwrap();
    let hashed = hasher(&["--picture-max-mib", "1"])
        .named(&long, |_| ())
        .unwrap();
    assert_eq!(code(&hashed.look), "image_file_too_large");
    assert_eq!(hashed.exact.bytes, (1 << 20) + 1);
    assert_eq!(hashed.signals().unwrap().len(), 3);
}

#[test]
fn a_video_without_ffmpeg_has_its_digests_and_says_what_to_install() {
    let folder = tempfile::tempdir().unwrap();
    let video = folder.path().join("-i.mp4");
    std::fs::write(&video, b"\0\0\0\x18ftypmp42").unwrap();
    let hashed = hasher(&["--ffmpeg", "no-such-program-here"])
        .named(&video, |_| ())
        .unwrap();
    let Look::Failed(error) = &hashed.look else {
        panic!("{:?}", hashed.look);
    };
    assert!(error.wants_ffmpeg());
    assert_eq!(hashed.signals().unwrap().len(), 3);
    let left = hasher(&["--no-video"]).named(&video, |_| ()).unwrap();
    assert_eq!(code(&left.look), "nothing");
}

#[test]
fn an_empty_file_is_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty.jpg");
    std::fs::write(&empty, "").unwrap();
    let hashed = hasher(&[]).found(&empty, false, |_| ()).unwrap();
    assert_eq!(hashed.exact.bytes, 0);
    assert_eq!(code(&hashed.look), "image_empty", "by its name a picture");
}

#[test]
fn a_file_that_changes_while_it_is_read_is_read_again_and_then_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("growing");
    std::fs::write(&path, "abc").unwrap();
    let grow = |times: usize| {
        let mut left = times;
        hasher(&[]).found(&path, false, |_| {
            if left > 0 {
                left -= 1;
                let mut file = File::options().append(true).open(&path).unwrap();
                io::Write::write_all(&mut file, b"d").unwrap();
            }
        })
    };
    assert_eq!(grow(1_000).unwrap_err().code(), "changed");
    let whole = std::fs::metadata(&path).unwrap().len();
    assert_eq!(grow(0).unwrap().exact.bytes, whole);
}

/// With a real ffmpeg; says so where there is none.
#[test]
fn a_real_video_is_taken_apart() {
    let program = std::env::var("HASHPACT_TEST_FFMPEG").unwrap_or_else(|_| "ffmpeg".to_owned());
    let folder = tempfile::tempdir().unwrap();
    let video = folder.path().join("-i http:;x.mp4");
    let made = std::process::Command::new(&program)
        .args(["-nostdin", "-loglevel", "error", "-f", "lavfi", "-i"])
        .args(["testsrc2=duration=4:size=320x240:rate=5", "-pix_fmt"])
        .args(["yuv420p", "-c:v", "mpeg4", "-f", "mp4"])
        .arg(format!("file:{}", video.display()))
        .status();
    if !made.is_ok_and(|made| made.success()) {
        crate::skipped::skipped("a real video: no ffmpeg at hand");
        return;
    }
    let hasher = hasher(&["--ffmpeg", &program]);
    let hashed = hasher.named(&video, |_| ()).unwrap();
    let Look::Video { signal, frames } = &hashed.look else {
        panic!("{:?}", hashed.look);
    };
    assert_eq!(*frames, 4);
    assert!(signal.frames().count() >= 2);
    // Half of it is still no reason to hang or to crash.
    let file = std::fs::read(&video).unwrap();
    std::fs::write(&video, &file[..file.len() / 2]).unwrap();
    let cut = hasher.named(&video, |_| ()).unwrap();
    assert!(["video_no_frames", "video"].contains(&code(&cut.look)));
}
