//! Compiling a kernel for the vectors of the machine that it finds itself on.
//!
//! A kernel is written once, generic in an instruction set. [`dispatch`] runs the copy of it that was compiled for the
//! best one that the processor has, so no flag for the compiler is needed.

use std::sync::OnceLock;

/// An instruction set, as far as kernels differ by it.
pub trait InstructionSet: Copy + Send + Sync + 'static {
    type F32: Vector<f32>;
    type F64: Vector<f64>;
    /// Whether a product and a sum are one instruction with one rounding.
    const FUSED: bool;
    /// Whether there are 32 vector registers, and not 16.
    const WIDE: bool;
    /// Whether products of bf16 pairs are instructions.
    const BF16: bool;

    /// Asks for a value to be in the first cache soon.
    #[inline(always)]
    fn prefetch<V>(_value: &V) {}
}

/// A vector register of numbers.
///
/// # Safety
///
/// All methods may only be called by code that is compiled for the instruction set that the type belongs to, which is
/// the case below [`dispatch`]. `load` and `store` need [`Vector::LANES`] numbers at the address.
pub unsafe trait Vector<T>: Copy {
    const LANES: usize;
    unsafe fn splat(value: T) -> Self;
    unsafe fn load(from: *const T) -> Self;
    unsafe fn store(self, to: *mut T);
    /// `self + a·b`.
    unsafe fn plus_product(self, a: Self, b: Self) -> Self;
    /// The larger of each number and zero.
    unsafe fn at_least_zero(self) -> Self;
    /// Each number where the gate's is positive, and zero elsewhere.
    unsafe fn where_positive(self, gate: Self) -> Self;
    /// The sum of the numbers, from the halves inwards.
    unsafe fn sum(self) -> T;
}

/// A kernel: `run` is compiled once for each instruction set, and must be `#[inline(always)]`, as must be all that it
/// calls and that is to be vectorised.
pub trait Kernel {
    type Output;
    fn run<I: InstructionSet>(self) -> Self::Output;
}

#[derive(Clone, Copy)]
pub struct Portable;

/// Vectors as the compiler makes them of arrays, for any processor.
#[derive(Clone, Copy)]
pub struct Lanes<T>([T; 4]);

macro_rules! portable {
    ($t:ty) => {
        // SAFETY: needs no instruction set; `load` and `store` touch the four numbers that the contract promises.
        unsafe impl Vector<$t> for Lanes<$t> {
            const LANES: usize = 4;
            #[inline(always)]
            unsafe fn splat(value: $t) -> Self {
                Self([value; 4])
            }
            #[inline(always)]
            unsafe fn load(from: *const $t) -> Self {
                // SAFETY: the caller has four numbers there.
                Self(unsafe { from.cast::<[$t; 4]>().read_unaligned() })
            }
            #[inline(always)]
            unsafe fn store(self, to: *mut $t) {
                // SAFETY: the caller has room for four numbers there.
                unsafe { to.cast::<[$t; 4]>().write_unaligned(self.0) }
            }
            #[inline(always)]
            unsafe fn plus_product(mut self, a: Self, b: Self) -> Self {
                for l in 0..4 {
                    self.0[l] += a.0[l] * b.0[l];
                }
                self
            }
            #[inline(always)]
            unsafe fn at_least_zero(self) -> Self {
                // As the vector instructions have it: NaN stays NaN.
                Self(self.0.map(|x| if x < 0.0 { 0.0 } else { x }))
            }
            #[inline(always)]
            unsafe fn where_positive(self, gate: Self) -> Self {
                Self(std::array::from_fn(|l| if gate.0[l] > 0.0 { self.0[l] } else { 0.0 }))
            }
            #[inline(always)]
            unsafe fn sum(self) -> $t {
                (self.0[0] + self.0[2]) + (self.0[1] + self.0[3])
            }
        }
    };
}
portable!(f32);
portable!(f64);

impl InstructionSet for Portable {
    type F32 = Lanes<f32>;
    type F64 = Lanes<f64>;
    const FUSED: bool = false;
    const WIDE: bool = false;
    const BF16: bool = false;
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{InstructionSet, Kernel, Vector};
    use std::arch::x86_64::*;

    /// AVX2 with fused multiply-add.
    #[derive(Clone, Copy)]
    pub struct Avx2;

    /// AVX-512 with the extensions that all its servers have.
    #[derive(Clone, Copy)]
    pub struct Avx512;

    /// AVX-512 with products of bf16 pairs.
    #[derive(Clone, Copy)]
    pub struct Avx512Bf16;

    #[inline(always)]
    fn fetch_lines<V>(value: &V) {
        let from = std::ptr::from_ref(value).cast::<i8>();
        for line in (0..size_of::<V>()).step_by(64) {
            // SAFETY: part of SSE, as every x86-64 has; it reads nothing, whatever the address.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(line)) }
        }
    }

    #[target_feature(enable = "avx")]
    fn sum_256(v: __m256) -> f32 {
        let half = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
        let pair = _mm_add_ps(half, _mm_movehl_ps(half, half));
        _mm_cvtss_f32(_mm_add_ss(pair, _mm_shuffle_ps::<1>(pair, pair)))
    }

    #[target_feature(enable = "avx")]
    fn sum_256d(v: __m256d) -> f64 {
        let half = _mm_add_pd(_mm256_castpd256_pd128(v), _mm256_extractf128_pd::<1>(v));
        _mm_cvtsd_f64(_mm_add_sd(half, _mm_unpackhi_pd(half, half)))
    }

    #[target_feature(enable = "avx")]
    fn gated_256(v: __m256, gate: __m256) -> __m256 {
        _mm256_and_ps(v, _mm256_cmp_ps::<_CMP_GT_OQ>(gate, _mm256_setzero_ps()))
    }

    #[target_feature(enable = "avx")]
    fn gated_256d(v: __m256d, gate: __m256d) -> __m256d {
        _mm256_and_pd(v, _mm256_cmp_pd::<_CMP_GT_OQ>(gate, _mm256_setzero_pd()))
    }

    #[target_feature(enable = "avx512f")]
    fn gated_512(v: __m512, gate: __m512) -> __m512 {
        _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(gate, _mm512_setzero_ps()), v)
    }

    #[target_feature(enable = "avx512f")]
    fn gated_512d(v: __m512d, gate: __m512d) -> __m512d {
        _mm512_maskz_mov_pd(_mm512_cmp_pd_mask::<_CMP_GT_OQ>(gate, _mm512_setzero_pd()), v)
    }

    macro_rules! vector {
        ($v:ty, $t:ty, $lanes:literal, $splat:ident, $load:ident, $store:ident, $fma:ident, $max:ident, $zero:ident, $gated:ident, $sum:ident) => {
            // SAFETY: the intrinsics belong to the instruction set that the contract of `Vector` asks for; loads and
            // stores are the unaligned ones.
            unsafe impl Vector<$t> for $v {
                const LANES: usize = $lanes;
                #[inline(always)]
                unsafe fn splat(value: $t) -> Self {
                    unsafe { $splat(value) }
                }
                #[inline(always)]
                unsafe fn load(from: *const $t) -> Self {
                    unsafe { $load(from) }
                }
                #[inline(always)]
                unsafe fn store(self, to: *mut $t) {
                    unsafe { $store(to, self) }
                }
                #[inline(always)]
                unsafe fn plus_product(self, a: Self, b: Self) -> Self {
                    unsafe { $fma(a, b, self) }
                }
                #[inline(always)]
                unsafe fn at_least_zero(self) -> Self {
                    // Of (0, NaN) the instruction gives its second argument.
                    unsafe { $max($zero(), self) }
                }
                #[inline(always)]
                unsafe fn where_positive(self, gate: Self) -> Self {
                    unsafe { $gated(self, gate) }
                }
                #[inline(always)]
                unsafe fn sum(self) -> $t {
                    unsafe { $sum(self) }
                }
            }
        };
    }
    vector!(
        __m256,
        f32,
        8,
        _mm256_set1_ps,
        _mm256_loadu_ps,
        _mm256_storeu_ps,
        _mm256_fmadd_ps,
        _mm256_max_ps,
        _mm256_setzero_ps,
        gated_256,
        sum_256
    );
    vector!(
        __m256d,
        f64,
        4,
        _mm256_set1_pd,
        _mm256_loadu_pd,
        _mm256_storeu_pd,
        _mm256_fmadd_pd,
        _mm256_max_pd,
        _mm256_setzero_pd,
        gated_256d,
        sum_256d
    );
    vector!(
        __m512,
        f32,
        16,
        _mm512_set1_ps,
        _mm512_loadu_ps,
        _mm512_storeu_ps,
        _mm512_fmadd_ps,
        _mm512_max_ps,
        _mm512_setzero_ps,
        gated_512,
        _mm512_reduce_add_ps
    );
    vector!(
        __m512d,
        f64,
        8,
        _mm512_set1_pd,
        _mm512_loadu_pd,
        _mm512_storeu_pd,
        _mm512_fmadd_pd,
        _mm512_max_pd,
        _mm512_setzero_pd,
        gated_512d,
        _mm512_reduce_add_pd
    );

    impl InstructionSet for Avx2 {
        type F32 = __m256;
        type F64 = __m256d;
        const FUSED: bool = true;
        const WIDE: bool = false;
        const BF16: bool = false;
        #[inline(always)]
        fn prefetch<V>(value: &V) {
            fetch_lines(value);
        }
    }

    impl InstructionSet for Avx512 {
        type F32 = __m512;
        type F64 = __m512d;
        const FUSED: bool = true;
        const WIDE: bool = true;
        const BF16: bool = false;
        #[inline(always)]
        fn prefetch<V>(value: &V) {
            fetch_lines(value);
        }
    }

    impl InstructionSet for Avx512Bf16 {
        type F32 = __m512;
        type F64 = __m512d;
        const FUSED: bool = true;
        const WIDE: bool = true;
        const BF16: bool = true;
        #[inline(always)]
        fn prefetch<V>(value: &V) {
            fetch_lines(value);
        }
    }

    #[target_feature(enable = "avx2,fma,bmi1,bmi2")]
    pub fn avx2<K: Kernel>(kernel: K) -> K::Output {
        kernel.run::<Avx2>()
    }

    #[target_feature(enable = "avx2,fma,bmi1,bmi2,avx512f,avx512dq,avx512bw,avx512vl,avx512cd")]
    pub fn avx512<K: Kernel>(kernel: K) -> K::Output {
        kernel.run::<Avx512>()
    }

    #[target_feature(enable = "avx2,fma,bmi1,bmi2,avx512f,avx512dq,avx512bw,avx512vl,avx512cd,avx512bf16")]
    pub fn avx512_bf16<K: Kernel>(kernel: K) -> K::Output {
        kernel.run::<Avx512Bf16>()
    }
}

/// What the processor was found to have, each with all that comes before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Found {
    Portable,
    Avx2,
    Avx512,
    Avx512Bf16,
}

static FOUND: OnceLock<Found> = OnceLock::new();

impl Found {
    /// The instruction set that kernels are run with: the best of this machine, unless it was limited.
    pub fn here() -> Self {
        *FOUND.get_or_init(Self::look)
    }

    /// Has kernels run with these instructions and no better ones. False if the machine does not have them, or if kernels
    /// have run already.
    pub fn limit(self) -> bool {
        self <= Self::look() && FOUND.set(self).is_ok()
    }

    #[cfg(target_arch = "x86_64")]
    fn look() -> Self {
        use std::arch::is_x86_feature_detected as has;
        let avx2 = has!("avx2") && has!("fma") && has!("bmi1") && has!("bmi2");
        let avx512 = has!("avx512f") && has!("avx512dq") && has!("avx512bw") && has!("avx512vl") && has!("avx512cd");
        match (avx2, avx512, has!("avx512bf16")) {
            (true, true, true) => Self::Avx512Bf16,
            (true, true, false) => Self::Avx512,
            (true, false, _) => Self::Avx2,
            (false, _, _) => Self::Portable,
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn look() -> Self {
        Self::Portable
    }

    /// Its name, for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "AVX2",
            Self::Avx512 => "AVX-512",
            Self::Avx512Bf16 => "AVX-512 with bf16",
        }
    }
}

/// Runs a kernel with the best instructions of this machine.
#[inline]
pub fn dispatch<K: Kernel>(kernel: K) -> K::Output {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the processor has been found to have the instructions that each copy is compiled for.
    unsafe {
        match Found::here() {
            Found::Avx512Bf16 => return x86::avx512_bf16(kernel),
            Found::Avx512 => return x86::avx512(kernel),
            Found::Avx2 => return x86::avx2(kernel),
            Found::Portable => {}
        }
    }
    kernel.run::<Portable>()
}
