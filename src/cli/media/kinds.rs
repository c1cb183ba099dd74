//! What a file is, by its first bytes. Its name is not asked, since anybody can choose it,
//! unless there are no bytes.

use hashpact_matching::pdq::hash::is_picture;

/// What can be looked into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One of the kinds of pictures that are decoded.
    Picture,
    /// A video, with the name of ffmpeg's demuxer for it.
    Video(&'static str),
    /// Only its digests count.
    Other,
}

/// What the names of pictures end with, for files without a byte.
pub(crate) const PICTURES: [&str; 8] = ["jpg", "jpeg", "png", "gif", "webp", "bmp", "tif", "tiff"];
/// The same for videos.
pub(crate) const VIDEOS: [&str; 10] = [
    "mp4", "m4v", "mov", "mkv", "webm", "avi", "mpg", "mpeg", "flv", "wmv",
];

/// Brands of ISO media files that are pictures, which nothing here decodes.
const STILL_BRANDS: [&[u8]; 8] = [
    b"heic", b"heix", b"heim", b"heis", b"mif1", b"avif", b"avis", b"jxl ",
];

/// Tells what a file is.
///
/// ⚠ The demuxer is named, never left to ffmpeg: a playlist would have it open other
/// files and addresses.
pub(crate) fn kind_of(start: &[u8]) -> Kind {
    if is_picture(start) {
        return Kind::Picture;
    }
    demuxer(start).map_or(Kind::Other, Kind::Video)
}

fn demuxer(start: &[u8]) -> Option<&'static str> {
    let at = |from: usize, magic: &[u8]| {
        start
            .get(from..)
            .is_some_and(|rest| rest.starts_with(magic))
    };
    let boxed: [&[u8]; 5] = [b"ftyp", b"moov", b"mdat", b"wide", b"free"];
    if boxed.iter().any(|name| at(4, name)) {
        let still = at(4, b"ftyp") && STILL_BRANDS.iter().any(|brand| at(8, brand));
        return (!still).then_some("mov");
    }
    let known: [(usize, &[u8], &str); 8] = [
        (0, b"\x1a\x45\xdf\xa3", "matroska"),
        (8, b"AVI ", "avi"),
        (0, b"\x00\x00\x01\xba", "mpeg"),
        (0, b"FLV\x01", "flv"),
        (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "asf"),
        (0, b"OggS", "ogg"),
        (0, b"\x47", "mpegts"),
        (4, b"\x47", "mpegts"),
    ];
    let (_, _, name) = known.into_iter().find(|(from, magic, name)| {
        at(*from, magic)
            && match *name {
                "avi" => at(0, b"RIFF"),
                // A packet begins every 188 bytes, or every 192 with a time before each.
                "mpegts" => {
                    let apart = 188 + from;
                    (0..4).all(|n| at(from + n * apart, b"\x47"))
                }
                _ => true,
            }
    })?;
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_by_their_first_bytes() {
        let mut stream = vec![0; 4 * 188];
        for packet in stream.chunks_mut(188) {
            packet[0] = 0x47;
        }
        for (start, kind) in [
            (&b"\xff\xd8\xff\xe0"[..], Kind::Picture),
            (b"\x89PNG\r\n\x1a\n", Kind::Picture),
            (b"\0\0\0\x18ftypmp42", Kind::Video("mov")),
            (b"\0\0\0\x14ftypqt  ", Kind::Video("mov")),
            (b"\0\0\0\x18ftypheic", Kind::Other),
            (b"\0\0\0\x18ftypavif", Kind::Other),
            (b"\x1a\x45\xdf\xa3\x9f", Kind::Video("matroska")),
            (b"RIFF\0\0\0\0AVI LIST", Kind::Video("avi")),
            (b"RIFF\0\0\0\0WAVEfmt ", Kind::Other),
            (&stream, Kind::Video("mpegts")),
            (&stream[..200], Kind::Other),
            (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", Kind::Other),
            (b"ffconcat version 1.0\nfile /etc/passwd\n", Kind::Other),
            (b"", Kind::Other),
            (b"G", Kind::Other),
        ] {
            assert_eq!(kind_of(start), kind, "{start:?}");
        }
    }
}
