//! PDQ of pictures: bytes of a file, or pixels, to 256 bits and a quality.
//!
//! The same bits and quality as Python's `pdqhash` on the same pixels. Pixels of lossless files are the same
//! everywhere; JPEG and lossy WebP decoders differ in rounding, which moves a few bits (upstream's tolerance is 10 at
//! quality 80 and more). Like upstream: transparency is dropped, not blended; the orientation of EXIF is not applied
//! (hash [all eight turns](dihedral) for that); of an animation the first picture counts; there is no enlarging, small
//! pictures are sampled more than once. Unlike upstream, which says "all zero, quality 0" of pictures below 5 × 5,
//! these are refused: an all-zero value is no signal.
//!
//! Files come from anybody. What they claim is checked before it is believed: the kind by the first bytes and against
//! a list, dimensions and the decoder's memory against [`Limits`]. A decoder that panics is an error like another.

mod decode;
#[cfg(test)]
mod tests;
mod transform;

pub use decode::{ImageError, Limits, claimed_pixels, is_picture};
use transform::{Frequencies, Luma};

/// Smallest side that is hashed, upstream's.
pub const MIN_SIDE: u32 = 5;

/// What a picture hashes to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hashed {
    /// The 256 bits.
    pub value: [u8; 32],
    /// 0 to 100; below 50 there is too little to see for a match to mean much.
    pub quality: u8,
}

impl std::fmt::Debug for Hashed {
    /// Shows the quality only: the value is a signal.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hashed")
            .field("quality", &self.quality)
            .finish_non_exhaustive()
    }
}

/// How a picture is turned or mirrored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// As it is.
    Original,
    /// A quarter turn counter-clockwise.
    Rotate90,
    /// Upside down.
    Rotate180,
    /// A quarter turn clockwise.
    Rotate270,
    /// Top and bottom swapped.
    FlipX,
    /// Left and right swapped.
    FlipY,
    /// Mirrored at the diagonal from the upper left.
    FlipPlus1,
    /// Mirrored at the other diagonal.
    FlipMinus1,
}

impl Turn {
    /// All eight, in upstream's order.
    pub const ALL: [Self; 8] = [
        Self::Original,
        Self::Rotate90,
        Self::Rotate180,
        Self::Rotate270,
        Self::FlipX,
        Self::FlipY,
        Self::FlipPlus1,
        Self::FlipMinus1,
    ];

    /// The name used in output.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Original => "original",
            Self::Rotate90 => "rotate90",
            Self::Rotate180 => "rotate180",
            Self::Rotate270 => "rotate270",
            Self::FlipX => "flip-x",
            Self::FlipY => "flip-y",
            Self::FlipPlus1 => "flip-plus1",
            Self::FlipMinus1 => "flip-minus1",
        }
    }

    /// Turns the picture by its frequencies: they are transposed, or change sign where they are odd one way.
    fn of(self, frequencies: &Frequencies) -> Frequencies {
        let (transposed, negated): (bool, fn(usize, usize) -> bool) = match self {
            Self::Original => (false, |_, _| false),
            Self::Rotate90 => (true, |_, j| j % 2 == 0),
            Self::Rotate180 => (false, |i, j| (i + j) % 2 == 1),
            Self::Rotate270 => (true, |i, _| i % 2 == 0),
            Self::FlipX => (false, |i, _| i % 2 == 0),
            Self::FlipY => (false, |_, j| j % 2 == 0),
            Self::FlipPlus1 => (true, |_, _| false),
            Self::FlipMinus1 => (true, |i, j| (i + j) % 2 == 1),
        };
        let mut turned = *frequencies;
        for (i, row) in frequencies.iter().enumerate() {
            for (j, value) in row.iter().enumerate() {
                let (i_to, j_to) = if transposed { (j, i) } else { (i, j) };
                if let Some(to) = turned.get_mut(i_to).and_then(|row| row.get_mut(j_to)) {
                    *to = if negated(i, j) { -value } else { *value };
                }
            }
        }
        turned
    }
}

/// Hashes an image file.
///
/// # Errors
///
/// [`ImageError`] says why a file has no hash.
pub fn hash(file: &[u8], limits: &Limits) -> Result<Hashed, ImageError> {
    let (frequencies, quality) = analyse(decode::luma(file, limits)?);
    Ok(Hashed {
        value: transform::bits(&frequencies),
        quality,
    })
}

/// Hashes an image file as it is, rotated and mirrored, in the order of [`Turn::ALL`].
///
/// # Errors
///
/// [`ImageError`] says why a file has no hash.
pub fn dihedral(file: &[u8], limits: &Limits) -> Result<[(Turn, Hashed); 8], ImageError> {
    let (frequencies, quality) = analyse(decode::luma(file, limits)?);
    Ok(Turn::ALL.map(|turn| {
        (
            turn,
            Hashed {
                value: transform::bits(&turn.of(&frequencies)),
                quality,
            },
        )
    }))
}

/// Hashes pixels, three bytes each, row by row: a frame of a video.
///
/// # Errors
///
/// [`ImageError::TooSmall`], or [`ImageError::Malformed`] if there are not as many bytes as the dimensions say.
pub fn hash_rgb(width: u32, height: u32, pixels: &[u8]) -> Result<Hashed, ImageError> {
    let (frequencies, quality) = analyse(decode::luma_of_rgb(width, height, pixels)?);
    Ok(Hashed {
        value: transform::bits(&frequencies),
        quality,
    })
}

fn analyse(luma: Luma) -> (Frequencies, u8) {
    let sampled = luma.sample();
    (
        transform::frequencies(&sampled),
        transform::quality(&sampled),
    )
}
