//! The PDQ algorithm on brightness, as its authors published it ("PDQ & TMK + PDQF", 2019).
//!
//! Blur with a tent (two passes of a box each way), sample 64 × 64, take the 16 × 16 lowest frequencies of the cosine
//! transform without the constant ones, and set a bit for each above the median. Sums run in the order of the
//! published implementation and in single precision: another order flips bits of pictures near the median.

use std::collections::VecDeque;
use std::sync::LazyLock;

/// Side of the sampled picture.
const SIDE: usize = 64;
/// Frequencies kept each way.
const KEPT: usize = 16;

pub(super) type Sampled = [[f32; SIDE]; SIDE];
pub(super) type Frequencies = [[f32; KEPT]; KEPT];

/// Brightness of a picture, row by row.
#[derive(Clone, Debug)]
pub(super) struct Luma {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) rows: Vec<f32>,
}

impl Luma {
    /// Blurs and samples 64 × 64; a picture of that size is taken as it is.
    pub(super) fn sample(mut self) -> Sampled {
        if (self.width, self.height) != (SIDE, SIDE) {
            for _ in 0..2 {
                self.blur_rows();
                self.blur_columns();
            }
        }
        let mut sampled = [[0.0; SIDE]; SIDE];
        for (i, out) in sampled.iter_mut().enumerate() {
            let from = centre(i, self.height).saturating_mul(self.width);
            let row = self.rows.get(from..).unwrap_or_default();
            for (j, out) in out.iter_mut().enumerate() {
                *out = row.get(centre(j, self.width)).copied().unwrap_or(0.0);
            }
        }
        sampled
    }

    fn blur_rows(&mut self) {
        let window = Window::new(self.width);
        let mut line = vec![0.0; self.width];
        for row in self.rows.chunks_exact_mut(self.width) {
            line.copy_from_slice(row);
            let (mut sum, mut held) = (0.0_f32, 0.0_f32);
            let (mut add, mut drop) = (line.iter(), line.iter());
            for _ in 0..window.lead {
                sum += add.next().copied().unwrap_or(0.0);
                held += 1.0;
            }
            for (at, out) in row.iter_mut().enumerate() {
                if let Some(value) = add.next() {
                    sum += value;
                    held += 1.0;
                }
                if at >= window.lag {
                    sum -= drop.next().copied().unwrap_or(0.0);
                    held -= 1.0;
                }
                *out = sum / held;
            }
        }
    }

    /// All columns at a time, row after row; the rows that are still to be subtracted are kept aside.
    fn blur_columns(&mut self) {
        let window = Window::new(self.height);
        let mut sums = vec![0.0_f32; self.width];
        let mut held = 0.0_f32;
        let mut kept: VecDeque<Vec<f32>> = VecDeque::new();
        for row in self.rows.chunks_exact(self.width).take(window.lead) {
            sums.iter_mut()
                .zip(row)
                .for_each(|(sum, value)| *sum += value);
            held += 1.0;
        }
        for at in 0..self.height {
            let start = at.saturating_mul(self.width);
            if let Some(next) = self.row(at.saturating_add(window.lead)) {
                sums.iter_mut()
                    .zip(next)
                    .for_each(|(sum, value)| *sum += value);
                held += 1.0;
            }
            let mut spare = None;
            if at >= window.lag
                && let Some(old) = kept.pop_front()
            {
                sums.iter_mut()
                    .zip(&old)
                    .for_each(|(sum, value)| *sum -= value);
                held -= 1.0;
                spare = Some(old);
            }
            let Some(row) = self.rows.get_mut(start..start.saturating_add(self.width)) else {
                return;
            };
            let mut keep = spare.unwrap_or_else(|| vec![0.0; row.len()]);
            keep.copy_from_slice(row);
            kept.push_back(keep);
            row.iter_mut()
                .zip(&sums)
                .for_each(|(out, sum)| *out = sum / held);
        }
    }

    fn row(&self, at: usize) -> Option<&[f32]> {
        let start = at.checked_mul(self.width)?;
        self.rows.get(start..start.checked_add(self.width)?)
    }
}

/// A box of a 128th of the picture, rounded up: two passes of it cover a sampled point.
struct Window {
    /// How many values before the first output are added.
    lead: usize,
    /// From which output on values are subtracted.
    lag: usize,
}

impl Window {
    fn new(dimension: usize) -> Self {
        let full = dimension.div_ceil(2 * SIDE);
        let half = full / 2 + 1;
        Self {
            lead: half - 1,
            lag: full + 1 - half,
        }
    }
}

/// The source coordinate of a sampled one: the middle of its share.
fn centre(at: usize, dimension: usize) -> usize {
    (2 * at + 1).saturating_mul(dimension) / (2 * SIDE)
}

/// How much there is to see, 0 to 100: the sum of differences of neighbours, each truncated to whole percents.
pub(super) fn quality(sampled: &Sampled) -> u8 {
    #[expect(clippy::cast_possible_truncation, reason = "truncated by definition")]
    let gradient = |a: f32, b: f32| (((a - b) * 100.0 / 255.0) as i32).unsigned_abs();
    let mut sum = 0_u32;
    for (row, next) in sampled.iter().zip(sampled.iter().skip(1)) {
        sum += row
            .iter()
            .zip(next)
            .map(|(a, b)| gradient(*a, *b))
            .sum::<u32>();
    }
    for row in sampled {
        sum += row
            .iter()
            .zip(row.iter().skip(1))
            .map(|(a, b)| gradient(*a, *b))
            .sum::<u32>();
    }
    u8::try_from(sum / 90).unwrap_or(100).min(100)
}

/// Rows 1 to 16 of the cosine transform of 64 values.
static COSINES: LazyLock<[[f32; SIDE]; KEPT]> = LazyLock::new(|| {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "small whole numbers; single precision"
    )]
    let cosine = |i: usize, j: usize| {
        let scale = (2.0_f64 / SIDE as f64).sqrt() as f32;
        let angle = std::f64::consts::PI / 2.0 / SIDE as f64 * (i + 1) as f64 * (2 * j + 1) as f64;
        (f64::from(scale) * angle.cos()) as f32
    };
    std::array::from_fn(|i| std::array::from_fn(|j| cosine(i, j)))
});

/// Takes the lowest frequencies, both ways.
pub(super) fn frequencies(sampled: &Sampled) -> Frequencies {
    let mut half = [[0.0_f32; SIDE]; KEPT];
    for (out, cosines) in half.iter_mut().zip(COSINES.iter()) {
        // Each column's sum runs from the first row to the last.
        for (cosine, row) in cosines.iter().zip(sampled) {
            out.iter_mut()
                .zip(row)
                .for_each(|(sum, value)| *sum += cosine * value);
        }
    }
    let dot =
        |a: &[f32; SIDE], b: &[f32; SIDE]| a.iter().zip(b).fold(0.0_f32, |sum, (a, b)| sum + a * b);
    let mut out = [[0.0; KEPT]; KEPT];
    for (out, row) in out.iter_mut().zip(&half) {
        for (out, cosines) in out.iter_mut().zip(COSINES.iter()) {
            *out = dot(row, cosines);
        }
    }
    out
}

/// Sets a bit for each frequency above the (lower) median; the lowest frequency is the last bit.
pub(super) fn bits(frequencies: &Frequencies) -> [u8; 32] {
    let mut sorted = [0.0_f32; KEPT * KEPT];
    sorted
        .iter_mut()
        .zip(frequencies.as_flattened())
        .for_each(|(to, from)| *to = *from);
    let (_, median, _) = sorted.select_nth_unstable_by(KEPT * KEPT / 2 - 1, f32::total_cmp);
    let mut value = [0_u8; 32];
    let (eights, _) = frequencies.as_flattened().as_chunks::<8>();
    for (byte, eight) in value.iter_mut().rev().zip(eights) {
        for (bit, frequency) in eight.iter().enumerate() {
            *byte |= u8::from(frequency > median) << bit;
        }
    }
    value
}
