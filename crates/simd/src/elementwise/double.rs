//! Elementary functions in double precision.

use pulp::Simd;

use super::{Elementwise, has_fused};

/// A constant exponent of an `f64` power.
#[derive(Clone, Copy, Debug)]
pub struct Exponent64 {
    p: f64,
    at_zero: f64,
    at_infinity: f64,
}

/// A positive number, which may be subnormal, as 2^k · (1 + f) with 1 + f in [√½, √2).
#[inline(always)]
fn split64(x: f64) -> (f64, f64) {
    let subnormal = x < f64::MIN_POSITIVE;
    let scaled = x * 18_014_398_509_481_984.0; // 2⁵⁴
    let bits = if subnormal { scaled } else { x }.to_bits();
    let offset = if subnormal { 1023.0 + 54.0 } else { 1023.0 };
    let bits = bits.wrapping_add((0x3ff0_0000 - 0x3fe6_a09e) << 32);
    // The integer becomes a float as the low bits of 2⁵²: few instruction sets can convert it.
    let k = f64::from_bits((bits >> 52) | 0x4330_0000_0000_0000) - (TWO_52 + offset);
    let mantissa = f64::from_bits((bits & 0x000f_ffff_ffff_ffff) + (0x3fe6_a09e << 32));
    (k, mantissa - 1.0)
}

const TWO_52: f64 = 4_503_599_627_370_496.0;

/// Adding 1.5 · 2⁵² rounds a small number to an integer and leaves it in the low bits.
const ROUND_64: f64 = 6_755_399_441_055_744.0;

/// 2^n for a whole `n` in the range of the exponent.
#[inline(always)]
fn power_of_two64(n: f64) -> f64 {
    f64::from_bits((n + (ROUND_64 + 1023.0)).to_bits() << 52)
}

/// `x · 2^n` for a whole `n` of at most twice the range of the exponent.
#[inline(always)]
fn scale64(x: f64, n: f64) -> f64 {
    let half = (0.5 * n + ROUND_64) - ROUND_64;
    x * power_of_two64(half) * power_of_two64(n - half)
}

impl Elementwise for f64 {
    type Exponent = Exponent64;

    #[inline(always)]
    fn exponent(p: f64) -> Exponent64 {
        Exponent64 {
            p,
            at_zero: if p > 0.0 { 0.0 } else { f64::INFINITY },
            at_infinity: if p > 0.0 { f64::INFINITY } else { 0.0 },
        }
    }

    #[inline(always)]
    fn ln_positive(self, fused: bool) -> f64 {
        finite_ln64(self, fused)
    }

    #[inline(always)]
    fn ln(self, fused: bool) -> f64 {
        let ln = self.ln_positive(fused);
        let ln = if self == 0.0 { f64::NEG_INFINITY } else { ln };
        let ln = if self == f64::INFINITY { f64::INFINITY } else { ln };
        if self >= 0.0 { ln } else { f64::NAN }
    }

    #[inline(always)]
    fn ln_near(self, excess: f64, fused: bool) -> f64 {
        let near = excess.abs() < 0.25;
        let (k, f) = split64(self);
        let (k, f) = if near { (0.0, excess) } else { (k, f) };
        let ln = ln_of_parts64(k, f, fused);
        let ln = if self == 0.0 { f64::NEG_INFINITY } else { ln };
        let ln = if self == f64::INFINITY { f64::INFINITY } else { ln };
        if self >= 0.0 { ln } else { f64::NAN }
    }

    const LEAST_NORMAL: f64 = f64::MIN_POSITIVE;

    #[inline(always)]
    fn ln_normal(self, fused: bool) -> f64 {
        finite_ln64(self, fused)
    }

    #[inline(always)]
    fn ln_normal_vector<S: Simd>(_simd: S, x: S::f64s) -> S::f64s {
        // What this becomes is vectors again. Not every instruction set has what is asked of
        // integers here as an operation of its own.
        let mut ln = [x];
        for x in bytemuck::cast_slice_mut::<_, f64>(&mut ln) {
            *x = finite_ln64(*x, has_fused::<S>());
        }
        let [ln] = ln;
        ln
    }

    #[inline(always)]
    fn exp(self, fused: bool) -> f64 {
        const LN2_HIGH: f64 = 6.931_471_803_691_238_164_90e-1;
        const LN2_LOW: f64 = 1.908_214_929_270_587_700_02e-10;
        let x = clamp!(self, -746.0, 710.0);
        let n = mul_add!(fused, x, std::f64::consts::LOG2_E, ROUND_64) - ROUND_64;
        let high = x - n * LN2_HIGH;
        let low = n * LN2_LOW;
        let r = high - low;
        let z = r * r;
        let c = r - z * polynomial!(
            fused,
            z,
            1.666_666_666_666_660_190_37e-1,
            -2.777_777_777_701_559_338_42e-3,
            6.613_756_321_437_934_361_17e-5,
            -1.653_390_220_546_525_153_90e-6,
            4.138_136_797_057_238_460_39e-8
        );
        scale64(1.0 + (r * c / (2.0 - c) - low + high), n)
    }

    #[inline(always)]
    fn pow(self, e: Exponent64, fused: bool) -> f64 {
        let power = Elementwise::exp(e.p * finite_ln64(self, fused), fused);
        let power = if self == 0.0 { e.at_zero } else { power };
        let power = if self == f64::INFINITY { e.at_infinity } else { power };
        if self >= 0.0 { power } else { f64::NAN }
    }

    type Fraction = Exponent64;

    #[inline(always)]
    fn fraction(_: f64) -> Option<Exponent64> {
        None
    }

    #[inline(always)]
    fn pow_fraction(self, e: Exponent64, fused: bool) -> f64 {
        self.pow(e, fused)
    }

    #[inline(always)]
    fn pow_fraction_vectors<S: Simd, const N: usize>(
        simd: S,
        x: [S::f64s; N],
        e: Exponent64,
    ) -> [S::f64s; N] {
        Self::pow_normal_vectors::<S, 1, N>(simd, &[x], e)[0]
    }

    #[inline(always)]
    fn pow_normal_vectors<S: Simd, const M: usize, const N: usize>(
        _simd: S,
        x: &[[S::f64s; N]; M],
        e: Exponent64,
    ) -> [[S::f64s; N]; M] {
        let mut powers = *x;
        for x in bytemuck::cast_slice_mut::<_, f64>(powers.as_flattened_mut()) {
            *x = x.pow(e, has_fused::<S>());
        }
        powers
    }

    #[inline(always)]
    fn sqrt(self) -> f64 {
        f64::sqrt(self)
    }

    #[inline(always)]
    fn multiply_add(self, b: f64, c: f64, fused: bool) -> f64 {
        mul_add!(fused, self, b, c)
    }
}

/// The logarithm of a positive finite number.
#[inline(always)]
fn finite_ln64(x: f64, fused: bool) -> f64 {
    let (k, f) = split64(x);
    ln_of_parts64(k, f, fused)
}

/// The logarithm of 2^k · (1 + f) with 1 + f in [√½, √2).
#[inline(always)]
fn ln_of_parts64(k: f64, f: f64, fused: bool) -> f64 {
    const LN2_HIGH: f64 = 6.931_471_803_691_238_164_90e-1;
    const LN2_LOW: f64 = 1.908_214_929_270_587_700_02e-10;
    let s = f / (2.0 + f);
    let z = s * s;
    let r = z * polynomial!(
        fused,
        z,
        6.666_666_666_666_735_130e-1,
        3.999_999_999_940_941_908e-1,
        2.857_142_874_366_239_149e-1,
        2.222_219_843_214_978_396e-1,
        1.818_357_216_161_805_012e-1,
        1.531_383_769_920_937_332e-1,
        1.479_819_860_511_658_591e-1
    );
    let h = 0.5 * f * f;
    s * (h + r) + k * LN2_LOW - h + f + k * LN2_HIGH
}
