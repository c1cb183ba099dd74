//! Runs code with the widest instructions of this processor.
//!
//! What runs must be inlined into the call, all the way down, or it is compiled for the oldest processor.

use pulp::{Arch, NullaryFnOnce};

#[cfg(target_arch = "x86_64")]
pulp::simd_type! {
    /// AVX-512 with the instruction that counts bits.
    struct Counting {
        popcnt: "popcnt",
        avx: "avx",
        avx2: "avx2",
        bmi1: "bmi1",
        bmi2: "bmi2",
        lzcnt: "lzcnt",
        avx512f: "avx512f",
        avx512vl: "avx512vl",
        avx512vpopcntdq: "avx512vpopcntdq",
    }
}

/// Runs `work` with AVX2, popcnt and the like where there are.
#[inline]
pub(super) fn run<F: NullaryFnOnce>(work: F) -> F::Output {
    Arch::new().dispatch(Plain(work))
}

/// Runs `work`, which counts the bits of many words in a row.
#[inline]
pub(super) fn run_counting<F: NullaryFnOnce>(work: F) -> F::Output {
    #[cfg(target_arch = "x86_64")]
    if let Some(counting) = Counting::try_new() {
        return counting.vectorize(work);
    }
    run(work)
}

struct Plain<F>(F);

impl<F: NullaryFnOnce> pulp::WithSimd for Plain<F> {
    type Output = F::Output;

    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "inherits the caller's instruction set"
    )]
    fn with_simd<S: pulp::Simd>(self, _simd: S) -> F::Output {
        self.0.call()
    }
}
