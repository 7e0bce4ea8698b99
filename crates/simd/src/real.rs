//! The element types of a pass, `f32` and `f64`, with the few vector operations that the kernels
//! need.

use std::fmt::{Debug, Display};
use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub};

use pulp::Simd;

/// A floating-point element type of a pass.
pub trait Real:
    Copy
    + Default
    + PartialOrd
    + Debug
    + Display
    + Send
    + Sync
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + bytemuck::Pod
    + 'static
{
    /// A vector of this type under the instruction set `S`.
    type Vector<S: Simd>: Copy + bytemuck::Pod;

    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;
    /// Size of an element, in bytes.
    const BYTES: usize;
    /// The widest vector of any instruction set, in elements: buffers padded to a multiple of
    /// this can be read in whole vectors by all of them.
    const MAX_LANES: usize = 64 / Self::BYTES;
    /// "f32" or "f64".
    const NAME: &'static str;

    /// The nearest value of this type.
    fn from_f64(x: f64) -> Self;
    /// The value in double precision.
    fn to_f64(self) -> f64;

    /// All elements equal to `x`.
    fn splat<S: Simd>(simd: S, x: Self) -> Self::Vector<S>;
    /// `a + b`.
    fn add<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;
    /// `a − b`.
    fn sub<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;
    /// `a / b`.
    fn div<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;
    /// `a · b`.
    fn mul<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;
    /// `a · b + c`, fused where the instruction set can.
    fn mul_add<S: Simd>(
        simd: S,
        a: Self::Vector<S>,
        b: Self::Vector<S>,
        c: Self::Vector<S>,
    ) -> Self::Vector<S>;
    /// `x` where it is above `floor`, else `floor`; NaN becomes `floor`.
    fn at_least<S: Simd>(simd: S, x: Self::Vector<S>, floor: Self::Vector<S>) -> Self::Vector<S>;
    /// `a` where `condition` is above 0, else `b`.
    fn choose<S: Simd>(
        simd: S,
        condition: Self::Vector<S>,
        a: Self::Vector<S>,
        b: Self::Vector<S>,
    ) -> Self::Vector<S>;
    /// `a` where a pair of bits of `pairs` is that of `wanted`, else `b`: for as many pairs as there are
    /// lanes, from the pair `first` on, a multiple of their number; the lowest bits are pair 0.
    fn choose_pairs<S: Simd>(
        simd: S,
        pairs: u32,
        wanted: u32,
        first: usize,
        a: Self::Vector<S>,
        b: Self::Vector<S>,
    ) -> Self::Vector<S>;
    /// Writes 1 where a pair of bits of `a` is that of `b`, and 0 elsewhere: for the 16 pairs of
    /// bits from the lowest on.
    fn equal_pairs<S: Simd>(simd: S, a: u32, b: u32, out: &mut [Self; 16]);
    /// The sum of the elements, in an order that depends on `S` only.
    fn reduce_sum<S: Simd>(simd: S, a: Self::Vector<S>) -> Self;
    /// The slice as whole vectors, and what is left.
    fn as_vectors<S: Simd>(x: &[Self]) -> (&[Self::Vector<S>], &[Self]);
    /// The slice as whole vectors, and what is left.
    fn as_vectors_mut<S: Simd>(x: &mut [Self]) -> (&mut [Self::Vector<S>], &mut [Self]);
}

/// The bits of each of 16 pairs, for lanes of 32 bits: pairs are compared where they stand, as not every
/// instruction set shifts each lane by a number of bits of its own.
static PAIRS_32: [u32; 16] = {
    let mut pairs = [3; 16];
    let mut i = 0;
    while i < 16 {
        pairs[i] <<= 2 * i;
        i += 1;
    }
    pairs
};

/// The same for lanes of 64 bits.
static PAIRS_64: [u64; 16] = {
    let mut pairs = [3; 16];
    let mut i = 0;
    while i < 16 {
        pairs[i] <<= 2 * i;
        i += 1;
    }
    pairs
};

macro_rules! real {
    ($t:ty, $name:literal, $v:ident, $splat:ident, $add:ident, $sub:ident, $div:ident, $mul:ident, $fma:ident, $above:ident, $max:ident, $select:ident, $sum:ident, $as:ident, $as_mut:ident,
     $bits:ty, $splat_bits:ident, $and:ident, $equal:ident, $as_bits:ident, $pairs:ident) => {
        impl Real for $t {
            type Vector<S: Simd> = S::$v;
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            const BYTES: usize = size_of::<$t>();
            const NAME: &'static str = $name;

            #[inline(always)]
            fn from_f64(x: f64) -> Self {
                x as $t
            }
            #[inline(always)]
            fn to_f64(self) -> f64 {
                f64::from(self)
            }
            #[inline(always)]
            fn splat<S: Simd>(simd: S, x: Self) -> S::$v {
                simd.$splat(x)
            }
            #[inline(always)]
            fn add<S: Simd>(simd: S, a: S::$v, b: S::$v) -> S::$v {
                simd.$add(a, b)
            }
            #[inline(always)]
            fn sub<S: Simd>(simd: S, a: S::$v, b: S::$v) -> S::$v {
                simd.$sub(a, b)
            }
            #[inline(always)]
            fn div<S: Simd>(simd: S, a: S::$v, b: S::$v) -> S::$v {
                simd.$div(a, b)
            }
            #[inline(always)]
            fn mul<S: Simd>(simd: S, a: S::$v, b: S::$v) -> S::$v {
                simd.$mul(a, b)
            }
            #[inline(always)]
            fn mul_add<S: Simd>(simd: S, a: S::$v, b: S::$v, c: S::$v) -> S::$v {
                simd.$fma(a, b, c)
            }
            #[inline(always)]
            fn at_least<S: Simd>(simd: S, x: S::$v, floor: S::$v) -> S::$v {
                // There it is one instruction, with this very meaning.
                if cfg!(target_arch = "x86_64") {
                    simd.$max(x, floor)
                } else {
                    simd.$select(simd.$above(x, floor), x, floor)
                }
            }
            #[inline(always)]
            fn choose<S: Simd>(simd: S, condition: S::$v, a: S::$v, b: S::$v) -> S::$v {
                simd.$select(simd.$above(condition, simd.$splat(0.0)), a, b)
            }
            #[inline(always)]
            fn choose_pairs<S: Simd>(
                simd: S,
                pairs: u32,
                wanted: u32,
                first: usize,
                a: S::$v,
                b: S::$v,
            ) -> S::$v {
                let (places, _) = S::$as_bits(&$pairs);
                let place = places[first / (size_of::<S::$v>() / size_of::<$t>())];
                // Both sides are cut down to the pair, as what is wanted is a constant then.
                let pairs = simd.$and(simd.$splat_bits(<$bits>::from(pairs)), place);
                let wanted = simd.$and(simd.$splat_bits(<$bits>::from(wanted)), place);
                simd.$select(simd.$equal(pairs, wanted), a, b)
            }
            #[inline(always)]
            fn equal_pairs<S: Simd>(simd: S, a: u32, b: u32, out: &mut [Self; 16]) {
                let differing = simd.$splat_bits(<$bits>::from(a ^ b));
                let (pairs, _) = S::$as_bits(&$pairs);
                let (out, _) = S::$as_mut(out);
                for (to, &pair) in out.iter_mut().zip(pairs) {
                    let equal = simd.$equal(simd.$and(differing, pair), simd.$splat_bits(0));
                    *to = simd.$select(equal, simd.$splat(1.0), simd.$splat(0.0));
                }
            }
            #[inline(always)]
            fn reduce_sum<S: Simd>(simd: S, a: S::$v) -> Self {
                simd.$sum(a)
            }
            #[inline(always)]
            fn as_vectors<S: Simd>(x: &[Self]) -> (&[S::$v], &[Self]) {
                S::$as(x)
            }
            #[inline(always)]
            fn as_vectors_mut<S: Simd>(x: &mut [Self]) -> (&mut [S::$v], &mut [Self]) {
                S::$as_mut(x)
            }
        }
    };
}

real!(
    f32,
    "f32",
    f32s,
    splat_f32s,
    add_f32s,
    sub_f32s,
    div_f32s,
    mul_f32s,
    mul_add_e_f32s,
    greater_than_f32s,
    max_f32s,
    select_f32s,
    reduce_sum_f32s,
    as_simd_f32s,
    as_mut_simd_f32s,
    u32,
    splat_u32s,
    and_u32s,
    equal_u32s,
    as_simd_u32s,
    PAIRS_32
);
real!(
    f64,
    "f64",
    f64s,
    splat_f64s,
    add_f64s,
    sub_f64s,
    div_f64s,
    mul_f64s,
    mul_add_e_f64s,
    greater_than_f64s,
    max_f64s,
    select_f64s,
    reduce_sum_f64s,
    as_simd_f64s,
    as_mut_simd_f64s,
    u64,
    splat_u64s,
    and_u64s,
    equal_u64s,
    as_simd_u64s,
    PAIRS_64
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instruction_sets;

    /// Chooses by some pairs of bits and asserts what is chosen in every lane.
    struct Choose<T>(u32, std::marker::PhantomData<T>);

    impl<T: Real> pulp::WithSimd for Choose<T> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            let lanes = size_of::<T::Vector<S>>() / T::BYTES;
            let (one, zero) = (T::splat(simd, T::ONE), T::splat(simd, T::ZERO));
            for wanted in (0..4).map(|role| 0x5555_5555 * role) {
                for first in (0..T::MAX_LANES).step_by(lanes) {
                    let chosen = [T::choose_pairs(simd, self.0, wanted, first, one, zero)];
                    for (i, &x) in bytemuck::cast_slice::<_, T>(&chosen).iter().enumerate() {
                        let at = 2 * (first + i);
                        let equal = self.0 >> at & 3 == wanted & 3;
                        assert_eq!(x, if equal { T::ONE } else { T::ZERO }, "{wanted:x} {at}");
                    }
                }
            }
        }
    }

    #[test]
    fn pairs_of_bits_choose_their_lanes() {
        for (arch, i) in instruction_sets().into_iter().flat_map(|a| (0..40).map(move |i| (a, i))) {
            let pairs = 0x9e37_79b9u32.wrapping_mul(i * i + 1).rotate_left(i);
            arch.dispatch(Choose::<f32>(pairs, std::marker::PhantomData));
            arch.dispatch(Choose::<f64>(pairs, std::marker::PhantomData));
        }
    }
}
