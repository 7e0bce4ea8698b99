//! Logarithm, exponential and powers that vectorise.
//!
//! The functions of the standard library are calls, which a loop over a block of entries cannot be
//! vectorised around. These are straight lines of arithmetic without branches, calls or table
//! look-ups, so the compiler turns a loop of them into whole vectors of whatever instruction set
//! the loop is compiled for. They hold no closures: one that is not inlined would be compiled for
//! the oldest processor, and its fused multiply-adds become calls.
//!
//! `fused` says whether to use fused multiply-adds, which are a slow call where the instruction
//! set has none: [`has_fused`] tells. The results differ in their last bits only.
//!
//! The logarithm and the exponential follow FreeBSD's msun (Sun Microsystems, 1993).

#![allow(clippy::excessive_precision, reason = "the constants stand as their sources print them")]

use pulp::Simd;

use super::Real;

/// Whether the instruction set multiplies and adds in one operation.
#[must_use]
#[inline(always)]
pub fn has_fused<S: Simd>() -> bool {
    let wide = size_of::<S::f32s>() >= 32;
    cfg!(target_arch = "aarch64") || (cfg!(target_arch = "x86_64") && wide)
}

/// An element type with elementary functions that vectorise.
///
/// On concrete types, `x.ln()` is the standard library's: call these as `Elementwise::ln(x)`.
pub trait Elementwise: Real {
    /// A constant exponent, prepared for [`pow`](Self::pow).
    type Exponent: Copy;

    /// Prepares a constant exponent.
    fn exponent(p: f64) -> Self::Exponent;

    /// The natural logarithm, to 1 ulp (`f32`: 2 ulp), subnormal numbers included. −∞ at 0, NaN
    /// below, ∞ at ∞.
    fn ln(self, fused: bool) -> Self;

    /// As [`ln`](Self::ln), of a positive finite number, subnormal ones included. Of others it is
    /// some number.
    fn ln_positive(self, fused: bool) -> Self;

    /// As [`ln`](Self::ln), of a number that is 1 + `excess`: where the excess is below ¼ in size the
    /// logarithm is that of 1 + `excess`, whatever digits of it the number has lost.
    fn ln_near(self, excess: Self, fused: bool) -> Self;

    /// The least number of full precision.
    const LEAST_NORMAL: Self;

    /// As [`ln`](Self::ln), of a finite number of at least [`LEAST_NORMAL`](Self::LEAST_NORMAL). Of
    /// 0 and of what lies between it is some finite number, at no cost.
    fn ln_normal(self, fused: bool) -> Self;

    /// [`ln_normal`](Self::ln_normal) of each number of a vector, and the very same.
    fn ln_normal_vector<S: Simd>(simd: S, x: Self::Vector<S>) -> Self::Vector<S>;

    /// The exponential, to 1 ulp (`f32`: 2 ulp). 0 at −∞ and, in `f32`, where the result would be
    /// below 1.7e-38; ∞ at ∞.
    fn exp(self, fused: bool) -> Self;

    /// A power of a base that is not negative (NaN for one that is), for p ≠ 0: 0 or ∞ at 0
    /// and ∞, depending on the sign of `p`.
    ///
    /// The relative error is below 1e-6 in `f32` while |p log₂ x| ≤ 126, and below
    /// 1e-15 + 4e-16·|p ln x| in `f64`. In `f32` a subnormal base counts as 0, and a result below
    /// 1.7e-38 is 0.
    fn pow(self, p: Self::Exponent, fused: bool) -> Self;

    /// A constant exponent that [`pow_fraction`](Self::pow_fraction) takes.
    type Fraction: Copy + std::fmt::Debug + Send + Sync;

    /// Prepares an exponent for [`pow_fraction`](Self::pow_fraction), where that is worth it: its
    /// absolute value is below 0.98, and the type has a faster way for such.
    fn fraction(p: f64) -> Option<Self::Fraction>;

    /// As [`pow`](Self::pow) for a small exponent, in half the time: a rounding error of the
    /// logarithm is not enlarged by one, and no power of a normal number leaves the range.
    fn pow_fraction(self, p: Self::Fraction, fused: bool) -> Self;

    /// [`pow_fraction`](Self::pow_fraction) of each number of some vectors, and the very same: side by
    /// side, in two thirds of the time of one vector after another.
    fn pow_fraction_vectors<S: Simd, const N: usize>(
        simd: S,
        x: [Self::Vector<S>; N],
        p: Self::Fraction,
    ) -> [Self::Vector<S>; N];

    /// The same for numbers of at least [`LEAST_NORMAL`](Self::LEAST_NORMAL), faster. In `f32` ∞ counts
    /// as 2¹²⁸, which is the end of the range; of others it is some number.
    fn pow_normal_vectors<S: Simd, const M: usize, const N: usize>(
        simd: S,
        x: &[[Self::Vector<S>; N]; M],
        p: Self::Fraction,
    ) -> [[Self::Vector<S>; N]; M];

    /// The square root.
    fn sqrt(self) -> Self;

    /// `self · b + c`, rounded once if `fused`.
    fn multiply_add(self, b: Self, c: Self, fused: bool) -> Self;
}

/// `x` where it is at least `low` and at most `high`, else the bound; NaN stays NaN.
macro_rules! clamp {
    ($x:expr, $low:expr, $high:expr) => {{
        let x = $x;
        let x = if x < $low { $low } else { x };
        if x > $high { $high } else { x }
    }};
}

/// a · b + c.
macro_rules! mul_add {
    ($fused:expr, $a:expr, $b:expr, $c:expr) => {{
        let (a, b, c) = ($a, $b, $c);
        if $fused { a.mul_add(b, c) } else { a * b + c }
    }};
}

/// A polynomial with the coefficients given from the constant upwards, by Horner's rule.
macro_rules! polynomial {
    ($fused:expr, $x:expr, $c:expr) => { $c };
    ($fused:expr, $x:expr, $c:expr, $($rest:expr),+) => {
        mul_add!($fused, $x, polynomial!($fused, $x, $($rest),+), $c)
    };
}

mod double;
mod single;

#[cfg(test)]
mod tests {
    use super::*;

    const EXPONENTS: [f64; 14] =
        [0.3, 0.7, -0.3, 1.3, -1.7, 2.2, -2.7, 5.1, -7.7, 0.01, -0.001, 1e-4, 33.3, 121.7];

    /// Positive numbers over the whole range, and many around 1, where logarithms are small.
    fn singles() -> impl Iterator<Item = f32> {
        let around_one = 0x3f00_0000..0x4000_0000;
        let all = (1..0x7f80_0000).step_by(60_013).chain(around_one.step_by(1_009));
        all.map(f32::from_bits)
    }

    fn doubles() -> impl Iterator<Item = f64> {
        let around_one = 0x3fe0_0000_0000_0000u64..0x4000_0000_0000_0000;
        let step = 0x7ff0_0000_0000_0000usize / 100_003;
        let all = (1..0x7ff0_0000_0000_0000u64).step_by(step);
        all.chain(around_one.step_by(0x0020_0000_0000_0000 / 20_011)).map(f64::from_bits)
    }

    /// The distance in units of the last place of `want` in single precision.
    fn ulps(got: f32, want: f64) -> f64 {
        let ulp = 2f64.powi(want.abs().log2().floor() as i32 - 23);
        (f64::from(got) - want).abs() / ulp
    }

    #[test]
    fn single_logarithms_and_exponentials_are_within_two_ulps() {
        for fused in [false, true] {
            for x in singles() {
                let want = f64::from(x).ln();
                assert!(want == 0.0 || ulps(Elementwise::ln(x, fused), want) < 2.0, "ln {x}");
                if x.is_normal() {
                    assert_eq!(x.ln_normal(fused), Elementwise::ln(x, fused), "ln {x}");
                }
                for x in [x, -x] {
                    let (got, want) = (Elementwise::exp(x, fused), f64::from(x).exp());
                    if want < 1.7e-38 {
                        assert!(got < 2e-38, "exp {x}: {got}");
                    } else if want > f64::from(f32::MAX) {
                        assert_eq!(got, f32::INFINITY, "exp {x}");
                    } else {
                        assert!(ulps(got, want) < 2.0, "exp {x}: {got}");
                    }
                }
            }
        }
    }

    /// Logarithms in vectors beside those one by one.
    struct Logarithms<'a, T>(&'a [T]);

    impl<T: Elementwise> pulp::WithSimd for Logarithms<'_, T> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            for &x in self.0 {
                let mut vector = [T::splat(simd, x)];
                vector = [T::ln_normal_vector(simd, vector[0])];
                for &ln in bytemuck::cast_slice::<_, T>(&vector) {
                    assert_eq!(ln, x.ln_normal(has_fused::<S>()), "ln {x}");
                }
            }
        }
    }

    #[test]
    fn logarithms_in_vectors_are_the_same() {
        let singles: Vec<f32> = singles().filter(|x| x.is_normal()).step_by(7).collect();
        let doubles: Vec<f64> = doubles().filter(|x| x.is_normal()).step_by(7).collect();
        for arch in crate::instruction_sets() {
            arch.dispatch(Logarithms(&singles));
            arch.dispatch(Logarithms(&doubles));
            // What is not normal has some finite logarithm.
            arch.dispatch(Logarithms(&[0.0f32, 1e-40]));
            arch.dispatch(Logarithms(&[0.0f64]));
        }
    }

    /// Powers in vectors, three side by side, beside those one by one.
    struct Powers<'a>(&'a [f32], f64);

    impl pulp::WithSimd for Powers<'_> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            let p = f32::fraction(self.1).expect("a small exponent");
            for x in self.0.chunks_exact(3) {
                let x = [x[0], x[1], x[2]];
                let vectors = x.map(|x| <f32 as Real>::splat(simd, x));
                let guarded = f32::pow_fraction_vectors(simd, vectors, p);
                let plain = f32::pow_normal_vectors::<S, 1, 3>(simd, &[vectors], p)[0];
                let first =
                    |v: &[S::f32s; 3], i: usize| bytemuck::cast_slice::<_, f32>(&v[i..=i])[0];
                for (i, x) in x.into_iter().enumerate() {
                    let (got, want) = (first(&guarded, i), x.pow_fraction(p, has_fused::<S>()));
                    assert!(got == want || (got.is_nan() && want.is_nan()), "{x}: {got}, {want}");
                    if x.is_normal() && x > 0.0 {
                        assert_eq!(first(&plain, i), want, "{x}");
                    }
                }
                for last in bytemuck::cast_slice::<_, f32>(&guarded[2..]).windows(2) {
                    assert!(last[0] == last[1] || last[0].is_nan());
                }
            }
        }
    }

    #[test]
    fn powers_in_vectors_are_the_same() {
        let special =
            [0.0, -0.0, f32::INFINITY, -1.0, f32::NAN, 1e-40, f32::NEG_INFINITY, 1.0, 2.0];
        let all: Vec<f32> = special.into_iter().chain(singles().step_by(7)).collect();
        for arch in crate::instruction_sets() {
            for p in [0.7, -0.3, 0.01, -0.979] {
                arch.dispatch(Powers(&all, p));
                // The end of the range, and no number of another size.
                let end = f64::from(f32::MAX).powf(p);
                arch.dispatch(End(p, end));
            }
        }
    }

    /// The power of an infinite number where none is expected.
    struct End(f64, f64);

    impl pulp::WithSimd for End {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            let x = [[<f32 as Real>::splat(simd, f32::INFINITY)]];
            let p = f32::fraction(self.0).expect("a small exponent");
            let power = f32::pow_normal_vectors(simd, &x, p)[0];
            let power = f64::from(bytemuck::cast_slice::<_, f32>(&power)[0]);
            assert!((power / self.1 - 1.0).abs() < 1e-6, "{power}");
        }
    }

    #[test]
    fn logarithms_near_one_have_the_digits_of_the_excess() {
        for fused in [false, true] {
            for e in (1..7500).map(|i| 1e-30 * 10f64.powf(f64::from(i) / 250.0)) {
                for excess in [e, -e].into_iter().filter(|e| *e > -0.999) {
                    let single = excess as f32;
                    let want = f64::from(single).ln_1p();
                    let got = (1.0 + single).ln_near(single, fused);
                    // Beyond a quarter it is the logarithm of the rounded sum 1 + e: half a unit in the
                    // last place of 1.25 is 3.2 of those of its logarithm.
                    assert!(ulps(got, want) < 4.2, "ln(1 + {single}): {got}");
                    let got = (1.0 + excess).ln_near(excess, fused);
                    let error = (got - excess.ln_1p()).abs();
                    assert!(error <= 6e-16 * excess.ln_1p().abs(), "ln(1 + {excess}): {got}");
                }
            }
            assert_eq!(0f32.ln_near(-1.0, fused), f32::NEG_INFINITY);
            assert_eq!(0f64.ln_near(-1.0, fused), f64::NEG_INFINITY);
            assert_eq!(f32::INFINITY.ln_near(f32::INFINITY, fused), f32::INFINITY);
            assert!(f32::NAN.ln_near(f32::NAN, fused).is_nan());
            assert!(f64::NAN.ln_near(f64::NAN, fused).is_nan());
        }
    }

    #[test]
    fn single_powers_are_good_to_a_millionth() {
        for fused in [false, true] {
            for p in EXPONENTS {
                let e = f32::exponent(p);
                for x in singles().filter(|x| x.is_normal()) {
                    let (got, want) = (Elementwise::pow(x, e, fused), f64::from(x).powf(p));
                    if want < 1.7e-38 {
                        assert!(got < 2e-38, "{x}^{p}: {got}");
                    } else if want > 3.5e38 {
                        assert_eq!(got, f32::INFINITY, "{x}^{p}");
                    } else if want < 3.3e38 {
                        let error = (f64::from(got) - want).abs() / want;
                        assert!(error < 1e-6, "{x}^{p}: {got}, off by {error:e}");
                    }
                }
            }
        }
    }

    #[test]
    fn small_powers_are_good_to_four_ten_millionths() {
        for fused in [false, true] {
            for p in [0.3, 0.7, -0.3, 0.01, -0.001, 1e-4, 0.979, -0.979, 0.5] {
                let e = f32::fraction(p).unwrap();
                for x in singles().filter(|x| x.is_normal()) {
                    let (got, want) = (x.pow_fraction(e, fused), f64::from(x).powf(p));
                    let error = (f64::from(got) - want).abs() / want;
                    assert!(error < 4e-7, "{x}^{p}: {got}, off by {error:e}");
                }
                let at = |x: f32| x.pow_fraction(e, fused);
                let (zero, infinity) =
                    if p > 0.0 { (0.0, f32::INFINITY) } else { (f32::INFINITY, 0.0) };
                assert_eq!([at(0.0), at(-0.0), at(f32::INFINITY)], [zero, zero, infinity]);
                assert!(
                    at(-1.0).is_nan() && at(f32::NAN).is_nan() && at(f32::NEG_INFINITY).is_nan()
                );
            }
        }
        assert!(f32::fraction(0.99).is_none() && f64::fraction(0.3).is_none());
    }

    #[test]
    fn double_functions_are_within_their_bounds() {
        for fused in [false, true] {
            for x in doubles() {
                let want = x.ln();
                let got = Elementwise::ln(x, fused);
                assert!((got - want).abs() <= 2.3e-16 * want.abs(), "ln {x}: {got}");
                for x in [x, -x] {
                    let (got, want) = (Elementwise::exp(x, fused), x.exp());
                    let same = got == want || (got - want).abs() <= 2.3e-16 * want + 1e-323;
                    assert!(same, "exp {x}: {got}");
                }
                for p in EXPONENTS {
                    let got = Elementwise::pow(x, f64::exponent(p), fused);
                    let want = x.powf(p);
                    let bound = want * (1e-15 + 4e-16 * (p * x.ln()).abs()) + 1e-323;
                    assert!(got == want || (got - want).abs() <= bound, "{x}^{p}: {got}");
                }
            }
        }
    }

    #[test]
    fn zeros_infinities_and_what_is_not_a_number() {
        fn check<T: Elementwise>() {
            let infinity = T::from_f64(f64::INFINITY);
            let nan = T::from_f64(f64::NAN);
            let minus = -T::ONE;
            for fused in [false, true] {
                for zero in [T::ZERO, -T::ZERO] {
                    assert_eq!(zero.ln(fused), -infinity);
                    assert_eq!(zero.exp(fused), T::ONE);
                    assert_eq!(zero.pow(T::exponent(0.7), fused), T::ZERO);
                    assert_eq!(zero.pow(T::exponent(-0.7), fused), infinity);
                }
                assert_eq!(T::ONE.ln(fused), T::ZERO);
                assert_eq!(T::ONE.pow(T::exponent(1.7), fused), T::ONE);
                assert_eq!(infinity.ln(fused), infinity);
                assert_eq!(infinity.exp(fused), infinity);
                assert_eq!((-infinity).exp(fused), T::ZERO);
                assert_eq!(infinity.pow(T::exponent(0.7), fused), infinity);
                assert_eq!(infinity.pow(T::exponent(-0.7), fused), T::ZERO);
                for x in [
                    nan.ln(fused),
                    nan.exp(fused),
                    nan.pow(T::exponent(0.7), fused),
                    minus.ln(fused),
                    minus.pow(T::exponent(0.7), fused),
                    (-infinity).ln(fused),
                ] {
                    assert!(x.to_f64().is_nan());
                }
            }
        }
        check::<f32>();
        check::<f64>();
    }
}
