//! Logarithm, exponential and powers that vectorise.
//!
//! The functions of the standard library are calls, which a loop over a block of entries cannot be
//! vectorised around. These are straight lines of arithmetic without branches, calls or table
//! look-ups, so the compiler turns a loop of them into whole vectors of whatever instruction set
//! the loop is compiled for. They use no fused multiply-add, which is a slow call where the
//! instruction set has none, so their results are the same bits at every SIMD level.
//!
//! The logarithm and the exponential follow FreeBSD's msun (Sun Microsystems, 1993).

use super::Real;

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
    fn ln(self) -> Self;

    /// The exponential, to 1 ulp (`f32`: 2 ulp) where the result is normal. 0 at −∞, ∞ at ∞.
    fn exp(self) -> Self;

    /// A power of a base that is not negative (NaN for one that is), for p ≠ 0: 0 or ∞ at 0
    /// and ∞, depending on the sign of `p`.
    ///
    /// Where the result is normal, the relative error is below 5e-7 in `f32`, and below
    /// 1e-15 + 4e-16·|p ln x| in `f64`.
    fn pow(self, p: Self::Exponent) -> Self;

    /// The square root.
    fn sqrt(self) -> Self;
}

/// `x` where it is at least `low` and at most `high`, else the bound; NaN stays NaN.
macro_rules! clamp {
    ($x:expr, $low:expr, $high:expr) => {{
        let x = $x;
        let x = if x < $low { $low } else { x };
        if x > $high { $high } else { x }
    }};
}

/// A polynomial with the coefficients given from the constant upwards, by Horner's rule.
macro_rules! polynomial {
    ($x:expr, $c:expr) => { $c };
    ($x:expr, $c:expr, $($rest:expr),+) => { $c + $x * polynomial!($x, $($rest),+) };
}

/// A constant exponent of an `f32` power.
#[derive(Clone, Copy, Debug)]
pub struct Exponent32 {
    p: f32,
    /// The leading 12 bits of the exponent, and the rest: products of two such leading parts are
    /// exact.
    high: f32,
    low: f32,
    at_zero: f32,
    at_infinity: f32,
}

/// A constant exponent of an `f64` power.
#[derive(Clone, Copy, Debug)]
pub struct Exponent64 {
    p: f64,
    at_zero: f64,
    at_infinity: f64,
}

/// The leading 12 bits of a number.
#[inline(always)]
fn leading(x: f32) -> f32 {
    f32::from_bits(x.to_bits() & 0xffff_f000)
}

/// A positive number as 2^k · (1 + f) with 1 + f in [√½, √2).
#[inline(always)]
fn split32(x: f32) -> (f32, f32) {
    let subnormal = x < f32::MIN_POSITIVE;
    let scaled = x * 33_554_432.0; // 2²⁵
    let bits = if subnormal { scaled } else { x }.to_bits();
    let offset = if subnormal { -127 - 25 } else { -127 };
    let bits = bits.wrapping_add(0x3f80_0000 - 0x3f35_04f3);
    let k = ((bits >> 23) as i32).wrapping_add(offset) as f32;
    let mantissa = f32::from_bits((bits & 0x007f_ffff) + 0x3f35_04f3);
    (k, mantissa - 1.0)
}

/// As [`split32`].
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

/// Adding 1.5 · 2²³ rounds a small number to an integer and leaves it in the low bits.
const ROUND_32: f32 = 12_582_912.0;
/// As [`ROUND_32`], 1.5 · 2⁵².
const ROUND_64: f64 = 6_755_399_441_055_744.0;

/// `x · 2^n` for the integer n that is in the low bits of `rounded`, up to twice the range of the
/// exponent.
#[inline(always)]
fn scale32(x: f32, rounded: f32) -> f32 {
    let n = (rounded.to_bits() as i32).wrapping_sub(ROUND_32.to_bits() as i32);
    let half = n >> 1;
    let power = |n: i32| f32::from_bits((n.wrapping_add(127) as u32) << 23);
    x * power(half) * power(n.wrapping_sub(half))
}

/// `x · 2^n` for a whole `n` of at most twice the range of the exponent.
#[inline(always)]
fn scale64(x: f64, n: f64) -> f64 {
    let half = (0.5 * n + ROUND_64) - ROUND_64;
    let power = |n: f64| f64::from_bits((n + (ROUND_64 + 1023.0)).to_bits() << 52);
    x * power(half) * power(n - half)
}

impl Elementwise for f32 {
    type Exponent = Exponent32;

    #[inline(always)]
    fn exponent(p: f64) -> Exponent32 {
        let single = p as f32;
        let high = leading(single);
        Exponent32 {
            p: single,
            high,
            low: (p - f64::from(high)) as f32,
            at_zero: if p > 0.0 { 0.0 } else { f32::INFINITY },
            at_infinity: if p > 0.0 { f32::INFINITY } else { 0.0 },
        }
    }

    #[inline(always)]
    fn ln(self) -> f32 {
        const LN2_HIGH: f32 = 6.931_381_2e-1;
        const LN2_LOW: f32 = 9.058_001e-6;
        let (k, f) = split32(self);
        let s = f / (2.0 + f);
        let z = s * s;
        let r = z * polynomial!(z, 0.666_666_6, 0.400_009_72, 0.284_987_87, 0.242_790_79);
        let h = 0.5 * f * f;
        let ln = s * (h + r) + k * LN2_LOW - h + f + k * LN2_HIGH;
        let ln = if self == 0.0 { f32::NEG_INFINITY } else { ln };
        let ln = if self == f32::INFINITY { f32::INFINITY } else { ln };
        if self >= 0.0 { ln } else { f32::NAN }
    }

    #[inline(always)]
    fn exp(self) -> f32 {
        const LN2_HIGH: f32 = 6.931_457_5e-1;
        const LN2_LOW: f32 = 1.428_606_8e-6;
        let x = clamp!(self, -104.0, 89.0);
        let rounded = x * std::f32::consts::LOG2_E + ROUND_32;
        let n = rounded - ROUND_32;
        let r = (x - n * LN2_HIGH) - n * LN2_LOW;
        let p = polynomial!(
            r,
            0.5,
            0.166_666_67,
            0.041_666_67,
            8.333_334e-3,
            1.388_889e-3,
            1.984_127e-4
        );
        scale32(1.0 + (r + r * r * p), rounded)
    }

    #[inline(always)]
    fn pow(self, e: Exponent32) -> f32 {
        // log2(e) as 12 leading bits and the rest.
        const LOG2_E_HIGH: f32 = 1.442_382_8;
        const LOG2_E_LOW: f32 = 3.122_284e-4;
        let (k, f) = split32(self);
        // ln(1 + f) = f − f²/2 + f³·q(f) as a leading part, exact to 24 bits, and the rest: p
        // times the rounding error of a plain logarithm would show in the result.
        let f_high = leading(f);
        let h = 0.5 * f_high * f_high;
        let h_low = 0.5 * (f + f_high) * (f - f_high);
        let u = f - h;
        let rest = ((f - u) - h) - h_low + f * f * f * cubic_tail32(f);
        let u_high = leading(u);
        let log_high = u_high * LOG2_E_HIGH;
        let log_low = u_high * LOG2_E_LOW + ((u - u_high) + rest) * std::f32::consts::LOG2_E;
        // log2 x = k + log_high + log_low, again as 12 bits and the rest.
        let high = leading(k + (log_high + log_low));
        let low = ((k - high) + log_high) + log_low;
        let t_high = e.high * high;
        let t_low = e.low * high + e.p * low;
        let t = clamp!(t_high + t_low, -152.0, 130.0);
        let rounded = t + ROUND_32;
        let n = rounded - ROUND_32;
        // Where t was clamped the rest is anything; the factor 2^n has decided by then.
        let r = clamp!((t_high - n) + t_low, -1.0, 1.0);
        let r = r * std::f32::consts::LN_2;
        let p = polynomial!(
            r,
            0.5,
            0.166_666_67,
            0.041_666_67,
            8.333_334e-3,
            1.388_889e-3,
            1.984_127e-4
        );
        let power = scale32(1.0 + (r + r * r * p), rounded);
        let power = if self == 0.0 { e.at_zero } else { power };
        let power = if self == f32::INFINITY { e.at_infinity } else { power };
        if self >= 0.0 { power } else { f32::NAN }
    }

    #[inline(always)]
    fn sqrt(self) -> f32 {
        f32::sqrt(self)
    }
}

/// q(f) in ln(1 + f) = f − f²/2 + f³·q(f), for 1 + f in [√½, √2).
#[inline(always)]
fn cubic_tail32(f: f32) -> f32 {
    // Cephes logf (Moshier 1992).
    polynomial!(
        f,
        3.333_333_1e-1,
        -2.499_999_4e-1,
        2.000_071_5e-1,
        -1.666_805_8e-1,
        1.424_932_3e-1,
        -1.242_014_1e-1,
        1.167_699_9e-1,
        -1.151_461e-1,
        7.037_683_6e-2
    )
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
    fn ln(self) -> f64 {
        let ln = finite_ln64(self);
        let ln = if self == 0.0 { f64::NEG_INFINITY } else { ln };
        let ln = if self == f64::INFINITY { f64::INFINITY } else { ln };
        if self >= 0.0 { ln } else { f64::NAN }
    }

    #[inline(always)]
    fn exp(self) -> f64 {
        const LN2_HIGH: f64 = 6.931_471_803_691_238_164_90e-1;
        const LN2_LOW: f64 = 1.908_214_929_270_587_700_02e-10;
        let x = clamp!(self, -746.0, 710.0);
        let n = (x * std::f64::consts::LOG2_E + ROUND_64) - ROUND_64;
        let high = x - n * LN2_HIGH;
        let low = n * LN2_LOW;
        let r = high - low;
        let z = r * r;
        let c = r - z * polynomial!(
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
    fn pow(self, e: Exponent64) -> f64 {
        let power = Elementwise::exp(e.p * finite_ln64(self));
        let power = if self == 0.0 { e.at_zero } else { power };
        let power = if self == f64::INFINITY { e.at_infinity } else { power };
        if self >= 0.0 { power } else { f64::NAN }
    }

    #[inline(always)]
    fn sqrt(self) -> f64 {
        f64::sqrt(self)
    }
}

/// The logarithm of a positive finite number.
#[inline(always)]
fn finite_ln64(x: f64) -> f64 {
    const LN2_HIGH: f64 = 6.931_471_803_691_238_164_90e-1;
    const LN2_LOW: f64 = 1.908_214_929_270_587_700_02e-10;
    let (k, f) = split64(x);
    let s = f / (2.0 + f);
    let z = s * s;
    let r = z * polynomial!(
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
