//! The byte vectors that matmuls with few rows are written against.

use std::mem::MaybeUninit;

use crate::Isa;
use crate::simd::Simd;

/// f32 vectors as long as the byte vectors.
pub(super) type Floats<B> = <<B as Bytes>::Simd as Simd>::Vector;

/// Byte vectors of one instruction set, each as long as [`RUNS`](Self::RUNS) groups of 32.
///
/// Lane `l` of a vector of 32-bit values belongs to the bytes `4 l..4 l + 4`, so that a group has 8 lanes. A value of such
/// a type proves that the machine has the instructions.
///
/// # Safety
/// Functions that read memory take the address of the first group and the distance to the next; both must be readable for
/// as many bytes as the function says.
pub(super) trait Bytes: Copy {
    /// The f32 vectors.
    type Simd: Simd;
    /// 32 bytes for each group.
    type Bytes: Copy;
    /// 8 integers of 32 bits for each group.
    type Ints: Copy;
    /// Sixteen f32.
    type Table: Copy;
    /// Groups of 32 in a vector.
    const RUNS: usize;
    /// Whether [`multiply_add`](Self::multiply_add) takes two signed operands.
    const SIGNED: bool;

    fn simd(self) -> Self::Simd;
    fn splat(self, byte: u8) -> Self::Bytes;
    fn zeros(self) -> Self::Ints;

    /// 32 bytes for each group.
    unsafe fn load(self, from: *const u8, step: usize) -> Self::Bytes;
    /// 16 bytes for each group, twice.
    unsafe fn load_twice(self, from: *const u8, step: usize) -> Self::Bytes;
    /// 16 where a bit is set, else 0; reads 32 bits for each group.
    unsafe fn sixteens(self, from: *const u8, step: usize) -> Self::Bytes;
    /// One f16.
    fn half(self, bits: u16) -> f32;
    /// As many f16 as there are lanes.
    unsafe fn load_f16(self, from: *const u8) -> Floats<Self>;
    /// As many bf16 as there are lanes.
    unsafe fn load_bf16(self, from: *const u8) -> Floats<Self>;

    fn and(self, x: Self::Bytes, y: Self::Bytes) -> Self::Bytes;
    fn or(self, x: Self::Bytes, y: Self::Bytes) -> Self::Bytes;
    fn xor(self, x: Self::Bytes, y: Self::Bytes) -> Self::Bytes;
    fn sub(self, x: Self::Bytes, y: Self::Bytes) -> Self::Bytes;
    /// Shifts 32 bits at a time to the right, or to the left where a count is negative; `count` is asked for each 16
    /// bytes, and its signs agree within a run. Bits may arrive in the next byte or at the other end, or nowhere.
    fn shift_right(self, x: Self::Bytes, count: impl Fn(usize) -> i32) -> Self::Bytes;

    /// Adds a dot product of four neighbours to each lane: `x` unsigned unless [`SIGNED`](Self::SIGNED), `y` signed and above
    /// -128.
    fn multiply_add(self, x: Self::Bytes, y: Self::Bytes, sum: Self::Ints) -> Self::Ints;
    fn sub_ints(self, x: Self::Ints, y: Self::Ints) -> Self::Ints;
    fn to_floats(self, x: Self::Ints) -> Floats<Self>;
    /// Byte `place < 4` of each lane, as a signed integer.
    fn signed(self, x: Self::Bytes, place: u32) -> Floats<Self>;

    /// Sixteen signed bytes, the first eight times one factor and the others times another.
    fn table(self, bytes: [u8; 16], factors: [f32; 2]) -> Self::Table;
    /// Sixteen f16, two in each word.
    fn table_of_halves(self, words: [u32; 8]) -> Self::Table;
    /// Element `index(l)` of a table in each lane `l`; all of them in the same half of the table, and the same one in the four
    /// lanes of 16 bytes.
    fn spread(self, table: &Self::Table, index: impl Fn(usize) -> usize) -> Floats<Self>;
}

/// `[f(0), f(1), …]`. What `array::from_fn` calls need not be inlined, and outside a function compiled for vectors each
/// instruction is a call.
#[inline(always)]
pub(super) fn each<T: Copy, const N: usize>(f: impl Fn(usize) -> T) -> [T; N] {
    let mut all = [const { MaybeUninit::uninit() }; N];
    for (n, to) in all.iter_mut().enumerate() {
        to.write(f(n));
    }
    // SAFETY: every element is written, and an array of them is laid out as one of what they hold.
    unsafe { all.as_ptr().cast::<[T; N]>().read() }
}

/// A function that is generic over [`Bytes`].
pub(super) trait Kernel {
    /// What [`with_bytes`] runs; marked `#[inline(always)]`.
    fn run<B: Bytes>(self, b: B);
}

/// Runs a kernel with the best allowed vectors of bytes.
///
/// # Panics
/// If the set has none: for plain Rust.
pub(super) fn with_bytes(isa: Isa, kernel: impl Kernel) {
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    fn avx2(b: crate::simd::Avx2, kernel: impl Kernel) {
        kernel.run(b);
    }
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512vnni,avx512vl,avx512bw,avx512f,avx2,fma")]
    fn vnni(b: super::vnni::Vnni, kernel: impl Kernel) {
        kernel.run(b);
    }
    #[cfg(target_arch = "aarch64")]
    #[target_feature(enable = "neon")]
    fn neon<const DOT: bool>(b: super::neon::NeonBytes<DOT>, kernel: impl Kernel) {
        kernel.run(b);
    }
    match isa.available() {
        // AVX-512F alone has no byte instructions.
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `available` never names a set that this machine lacks.
        Isa::Avx2 | Isa::Avx512 => unsafe { avx2(crate::simd::Avx2::new(), kernel) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `available` never names a set that this machine lacks.
        Isa::Avx512Bf16 | Isa::Amx => unsafe { vnni(super::vnni::Vnni::new(), kernel) },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: `available` never names a set that this machine lacks.
        Isa::Neon => unsafe { neon(super::neon::NeonBytes::<false>::new(), kernel) },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: `available` never names a set that this machine lacks.
        Isa::NeonDot => unsafe { neon(super::neon::NeonBytes::<true>::new(), kernel) },
        isa => unreachable!("{isa} has no vectors of bytes"),
    }
}
