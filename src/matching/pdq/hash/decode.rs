//! Image files to brightness, within limits.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::error::LimitErrorKind;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader};

use super::MIN_SIDE;
use super::transform::Luma;

/// What a decoder takes for a pixel while it works, at most.
const DECODING_BYTES_A_PIXEL: u64 = 16;
/// Beside the pixels and the file: tables, a row, a colour profile.
const BESIDE_PIXELS_BYTES: u64 = 8 << 20;

/// What a file may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest file, in bytes.
    pub file_max_bytes: usize,
    /// Most pixels. Each costs 4 bytes, and up to 16 while it is decoded.
    pub max_pixels: u64,
    /// Longest side.
    pub max_side: u32,
    /// Most that a decoder may take for itself and the pixels.
    pub decoder_max_bytes: u64,
}

impl Default for Limits {
    /// Up to 64 MiB of file and 50 million pixels: beyond any camera's pictures; at most some 600 MB for a moment.
    fn default() -> Self {
        Self {
            file_max_bytes: 64 << 20,
            max_pixels: 50_000_000,
            max_side: 32_768,
            decoder_max_bytes: 400 << 20,
        }
    }
}

/// Why a file has no PDQ value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// No bytes.
    #[error("the file is empty")]
    Empty,
    /// The file is longer than is read.
    #[error("the file has {bytes} bytes, more than the {max} that are read")]
    FileTooLarge {
        /// Length of the file.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// Not one of the kinds that are decoded, by its first bytes.
    #[error("not a JPEG, PNG, GIF, WebP, BMP or TIFF file")]
    Unsupported,
    /// More pixels than are decoded.
    #[error("the picture claims {width} × {height} pixels, more than are decoded")]
    TooLarge {
        /// Claimed width.
        width: u32,
        /// Claimed height.
        height: u32,
    },
    /// The decoder would need more memory than it may have.
    #[error("decoding the picture takes more memory than allowed")]
    TooMuchMemory,
    /// Fewer pixels than PDQ is defined for.
    #[error("the picture has {width} × {height} pixels: PDQ needs at least 5 × 5")]
    TooSmall {
        /// Width.
        width: u32,
        /// Height.
        height: u32,
    },
    /// The file ends before the picture does.
    #[error("the file ends before the picture does")]
    Truncated,
    /// The file is not what its first bytes say, or uses what no decoder here knows.
    #[error("the file is damaged, or of a variant that is not supported")]
    Malformed,
}

impl ImageError {
    /// The stable reason code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Empty => "image_empty",
            Self::FileTooLarge { .. } => "image_file_too_large",
            Self::Unsupported => "image_unsupported",
            Self::TooLarge { .. } => "image_too_large",
            Self::TooMuchMemory => "image_too_much_memory",
            Self::TooSmall { .. } => "image_too_small",
            Self::Truncated => "image_truncated",
            Self::Malformed => "image_malformed",
        }
    }
}

impl From<image::ImageError> for ImageError {
    fn from(error: image::ImageError) -> Self {
        match error {
            image::ImageError::IoError(error)
                if error.kind() == std::io::ErrorKind::UnexpectedEof =>
            {
                Self::Truncated
            }
            image::ImageError::Limits(error) => match error.kind() {
                LimitErrorKind::DimensionError => Self::TooLarge {
                    width: 0,
                    height: 0,
                },
                LimitErrorKind::InsufficientMemory | LimitErrorKind::Unsupported { .. } | _ => {
                    Self::TooMuchMemory
                }
            },
            image::ImageError::IoError(_)
            | image::ImageError::Decoding(_)
            | image::ImageError::Encoding(_)
            | image::ImageError::Parameter(_)
            | image::ImageError::Unsupported(_) => Self::Malformed,
        }
    }
}

/// Decodes a file to brightness.
pub(super) fn luma(file: &[u8], limits: &Limits) -> Result<Luma, ImageError> {
    if file.is_empty() {
        return Err(ImageError::Empty);
    }
    if file.len() > limits.file_max_bytes {
        return Err(ImageError::FileTooLarge {
            bytes: file.len(),
            max: limits.file_max_bytes,
        });
    }
    let format = format_of(file).ok_or(ImageError::Unsupported)?;
    // Decoders are other people's code on anybody's bytes: a bug there is a file without a hash, not the end of a scan.
    let image = catch_unwind(AssertUnwindSafe(|| decode(file, format, limits)))
        .map_err(|_| ImageError::Malformed)??;
    let pixels = image.into_rgb8();
    luma_of_rgb(pixels.width(), pixels.height(), pixels.as_raw())
}

/// Says whether a file begins as one of the kinds that are decoded.
#[must_use]
pub fn is_picture(start: &[u8]) -> bool {
    format_of(start).is_some()
}

/// The pixels that a file claims to have, for whoever shares out memory before decoding. Nothing is decoded.
///
/// # Errors
///
/// [`ImageError`] where the header cannot be read, or claims more than the limits.
pub fn claimed_pixels(file: &[u8], limits: &Limits) -> Result<u64, ImageError> {
    let format = format_of(file).ok_or(ImageError::Unsupported)?;
    let claimed = catch_unwind(AssertUnwindSafe(|| {
        let (width, height) = opened(file, format, limits)?.dimensions();
        Ok(u64::from(width) * u64::from(height))
    }));
    claimed.map_err(|_| ImageError::Malformed)?
}

/// Tells the kind of a file by its first bytes, if it is on the list.
fn format_of(file: &[u8]) -> Option<ImageFormat> {
    let format = image::guess_format(file).ok()?;
    let allowed = [
        ImageFormat::Jpeg,
        ImageFormat::Png,
        ImageFormat::Gif,
        ImageFormat::WebP,
        ImageFormat::Bmp,
        ImageFormat::Tiff,
    ];
    allowed.contains(&format).then_some(format)
}

fn decode(file: &[u8], format: ImageFormat, limits: &Limits) -> Result<DynamicImage, ImageError> {
    if format == ImageFormat::Jpeg && !jpeg_ends(file) {
        return Err(ImageError::Truncated);
    }
    let mut decoder = opened(file, format, limits)?;
    let mut left = limits.for_decoder();
    left.reserve(decoder.total_bytes())?;
    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    let needed = pixels.saturating_mul(DECODING_BYTES_A_PIXEL) + beside(file);
    left.max_alloc = left.max_alloc.map(|left| left.min(needed));
    decoder.set_limits(left)?;
    Ok(DynamicImage::from_decoder(decoder)?)
}

/// Reads the header, and holds what it claims against the limits.
fn opened<'f>(
    file: &'f [u8],
    format: ImageFormat,
    limits: &Limits,
) -> Result<impl ImageDecoder + 'f, ImageError> {
    let mut reader = ImageReader::with_format(Cursor::new(file), format);
    // ⚠ What lies beside the pixels, such as a colour profile, may be compressed a
    // thousandfold: before the picture's size is known, little is allowed.
    let mut header = limits.for_decoder();
    header.max_alloc = Some(limits.decoder_max_bytes.min(beside(file)));
    reader.limits(header);
    let decoder = reader.into_decoder()?;
    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    if width > limits.max_side || height > limits.max_side || pixels > limits.max_pixels {
        return Err(ImageError::TooLarge { width, height });
    }
    if width < MIN_SIDE || height < MIN_SIDE {
        return Err(ImageError::TooSmall { width, height });
    }
    if decoder.total_bytes() > limits.decoder_max_bytes {
        return Err(ImageError::TooMuchMemory);
    }
    Ok(decoder)
}

/// What a decoder may take for what lies beside the pixels.
fn beside(file: &[u8]) -> u64 {
    BESIDE_PIXELS_BYTES.saturating_add(u64::try_from(file.len()).unwrap_or(u64::MAX))
}

impl Limits {
    /// The decoder's own limits. Sides are checked here, where the error can say them.
    fn for_decoder(&self) -> image::Limits {
        let mut limits = image::Limits::no_limits();
        limits.max_alloc = Some(self.decoder_max_bytes);
        limits
    }
}

/// Says whether a JPEG has an end: the decoder fills up what is missing with grey.
fn jpeg_ends(file: &[u8]) -> bool {
    file.windows(2).rev().any(|pair| pair == [0xff, 0xd9])
}

/// Brightness of pixels of three bytes, weighed as upstream does.
pub(super) fn luma_of_rgb(width: u32, height: u32, pixels: &[u8]) -> Result<Luma, ImageError> {
    if width < MIN_SIDE || height < MIN_SIDE {
        return Err(ImageError::TooSmall { width, height });
    }
    let (Ok(width), Ok(height)) = (usize::try_from(width), usize::try_from(height)) else {
        return Err(ImageError::TooLarge { width, height });
    };
    let (pixels, rest) = pixels.as_chunks::<3>();
    if !rest.is_empty() || width.checked_mul(height) != Some(pixels.len()) {
        return Err(ImageError::Malformed);
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "upstream rounds to single precision here"
    )]
    let luma = |[red, green, blue]: &[u8; 3]| {
        (f64::from(*red) * 0.299 + f64::from(*green) * 0.587 + f64::from(*blue) * 0.114) as f32
    };
    Ok(Luma {
        width,
        height,
        rows: pixels.iter().map(luma).collect(),
    })
}
