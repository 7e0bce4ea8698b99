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

    /// As [`ln`](Self::ln), of a positive finite number, subnormal ones included. Of others it is some
    /// number.
    fn ln_positive(self, fused: bool) -> Self;

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
    type Fraction: Copy;

    /// Prepares an exponent for [`pow_fraction`](Self::pow_fraction), where that is worth it: its
    /// absolute value is below 0.98, and the type has a faster way for such.
    fn fraction(p: f64) -> Option<Self::Fraction>;

    /// As [`pow`](Self::pow) for a small exponent, in half the time: a rounding error of the
    /// logarithm is not enlarged by one, and no power of a normal number leaves the range.
    fn pow_fraction(self, p: Self::Fraction, fused: bool) -> Self;

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

/// A constant exponent of an `f32` power.
#[derive(Clone, Copy, Debug)]
pub struct Exponent32 {
    /// The exponent, and its rounding error.
    p: f32,
    error: f32,
    /// The leading 12 bits of the exponent, and the rest: a product of two numbers of 12 bits is
    /// exact.
    high: f32,
    low: f32,
    at_zero: f32,
    at_infinity: f32,
}

/// A small constant exponent of an `f32` power.
#[derive(Clone, Copy, Debug)]
pub struct Fraction32 {
    p: f32,
    /// The leading 12 bits of the exponent, whose product with a binary exponent is exact, and the
    /// rest; both also times −127, the bias of a binary exponent.
    high: f32,
    low: f32,
    high_bias: f32,
    low_bias: f32,
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

/// A positive normal number as 2^k · (1 + f) with 1 + f in [√½, √2).
#[inline(always)]
fn split32(x: f32) -> (f32, f32) {
    // How far it is above √½, whose exponent is −1: a whole binade more for every k.
    let above = x.to_bits().wrapping_sub(0x3f35_04f3);
    let k = (above as i32 >> 23) as f32;
    let mantissa = f32::from_bits(x.to_bits().wrapping_sub(above & 0xff80_0000));
    (k, mantissa - 1.0)
}

/// As [`split32`], of a positive number that may be subnormal.
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

/// `x · 2^(n−1)` for the integer n that is in the low bits of `rounded`, from −126 to 128.
#[inline(always)]
fn scale32(x: f32, rounded: f32) -> f32 {
    let n = rounded.to_bits().wrapping_sub(ROUND_32.to_bits());
    x * f32::from_bits(n.wrapping_add(126) << 23)
}

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

impl Elementwise for f32 {
    type Exponent = Exponent32;

    #[inline(always)]
    fn exponent(p: f64) -> Exponent32 {
        let single = p as f32;
        let high = leading(single);
        Exponent32 {
            p: single,
            error: (p - f64::from(single)) as f32,
            high,
            low: (p - f64::from(high)) as f32,
            at_zero: if p > 0.0 { 0.0 } else { f32::INFINITY },
            at_infinity: if p > 0.0 { f32::INFINITY } else { 0.0 },
        }
    }

    #[inline(always)]
    fn ln_positive(self, fused: bool) -> f32 {
        let subnormal = self < f32::MIN_POSITIVE;
        let (x, offset) = if subnormal { (self * 33_554_432.0, -25.0) } else { (self, 0.0) }; // 2²⁵
        let (k, f) = split32(x);
        ln_of_parts32(k + offset, f, fused)
    }

    #[inline(always)]
    fn ln(self, fused: bool) -> f32 {
        let ln = self.ln_positive(fused);
        let ln = if self == 0.0 { f32::NEG_INFINITY } else { ln };
        let ln = if self == f32::INFINITY { f32::INFINITY } else { ln };
        if self >= 0.0 { ln } else { f32::NAN }
    }

    const LEAST_NORMAL: f32 = f32::MIN_POSITIVE;

    #[inline(always)]
    fn ln_normal(self, fused: bool) -> f32 {
        let (k, f) = split32(self);
        ln_of_parts32(k, f, fused)
    }

    #[inline(always)]
    fn ln_normal_vector<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
        let c = |x: f32| simd.splat_f32s(x);
        let u = |x: u32| simd.splat_u32s(x);
        let above = simd.add_u32s(simd.transmute_u32s_f32s(x), u(0x3f80_0000 - 0x3f35_04f3));
        // No instruction set converts integers in the way of all others: it becomes the low bits of 2²³.
        let k = simd.or_u32s(simd.wrapping_dyn_shr_u32s(above, u(23)), u(0x4b00_0000));
        let k = simd.sub_f32s(simd.transmute_f32s_u32s(k), c(8_388_608.0 + 127.0));
        let mantissa = simd.add_u32s(simd.and_u32s(above, u(0x007f_ffff)), u(0x3f35_04f3));
        let f = simd.sub_f32s(simd.transmute_f32s_u32s(mantissa), c(1.0));

        // As in `ln_of_parts32`.
        let f2 = simd.mul_f32s(f, f);
        let f4 = simd.mul_f32s(f2, f2);
        let q = |i: usize| simd.splat_f32s(CUBIC_TAIL32[i]);
        let t01 = simd.mul_add_e_f32s(f, q(0), c(-0.5));
        let t23 = simd.mul_add_e_f32s(f, q(2), q(1));
        let t45 = simd.mul_add_e_f32s(f, q(4), q(3));
        let t67 = simd.mul_add_e_f32s(f, q(6), q(5));
        let t03 = simd.mul_add_e_f32s(f2, t23, t01);
        let t48 = simd.mul_add_e_f32s(f4, q(7), simd.mul_add_e_f32s(f2, t67, t45));
        let tail = simd.mul_add_e_f32s(f4, t48, t03);
        simd.mul_add_e_f32s(f2, tail, simd.mul_add_e_f32s(k, c(std::f32::consts::LN_2), f))
    }

    #[inline(always)]
    fn exp(self, fused: bool) -> f32 {
        const LN2_HIGH: f32 = 6.931_457_5e-1;
        const LN2_LOW: f32 = 1.428_606_8e-6;
        let x = clamp!(self, -87.6, 88.9);
        let rounded = mul_add!(fused, x, std::f32::consts::LOG2_E, ROUND_32);
        let n = rounded - ROUND_32;
        let r = mul_add!(fused, n, -LN2_LOW, mul_add!(fused, n, -LN2_HIGH, x));
        // Twice the exponential of r.
        let p = polynomial!(
            fused,
            r,
            1.0,
            0.333_333_34,
            0.083_333_34,
            1.666_666_8e-2,
            2.777_778e-3,
            3.968_254e-4
        );
        scale32(2.0 + mul_add!(fused, r * r, p, 2.0 * r), rounded)
    }

    #[inline(always)]
    fn pow(self, e: Exponent32, fused: bool) -> f32 {
        let (k, f) = split32(self);
        // p · log2 x as a rounded value and its error: for a power of 60 the rounding error of a
        // plain product would be 2e-6 of the result. So is every step whose error counts.
        let cube = f * f * f * cubic_tail32(f, fused);
        let (t_high, t_low) = if fused {
            const LOG2_E_ERROR: f32 = 1.925_963e-8;
            const LOG2_E: f32 = std::f32::consts::LOG2_E;
            // ln(1 + f) = u + rest
            let half = 0.5 * f;
            let h = f * half;
            let u = f - h;
            let rest = cube - f.mul_add(half, -h) + ((f - u) - h);
            // log2(1 + f) = log + log_low
            let log = u * LOG2_E;
            let log_low = u.mul_add(LOG2_E, -log) + u.mul_add(LOG2_E_ERROR, rest * LOG2_E);
            // log2 x = sum + low
            let sum = k + log;
            let low = (log - (sum - k)) + log_low;
            let t = e.p * sum;
            (t, e.p.mul_add(sum, -t) + e.error.mul_add(sum, e.p * low))
        } else {
            // log2(e) as 12 leading bits and the rest.
            const LOG2_E_HIGH: f32 = 1.442_382_8;
            const LOG2_E_LOW: f32 = 3.122_284e-4;
            let f_high = leading(f);
            let h = 0.5 * f_high * f_high;
            let u = f - h;
            let rest = ((f - u) - h) - 0.5 * (f + f_high) * (f - f_high) + cube;
            let u_high = leading(u);
            let log = u_high * LOG2_E_HIGH;
            let log_low = u_high * LOG2_E_LOW + ((u - u_high) + rest) * std::f32::consts::LOG2_E;
            let high = leading(k + (log + log_low));
            let low = ((k - high) + log) + log_low;
            (e.high * high, e.low * high + e.p * low)
        };
        let t = clamp!(t_high + t_low, -126.4, 128.4);
        let rounded = t + ROUND_32;
        let n = rounded - ROUND_32;
        // Where t was clamped the rest is anything; the factor 2^n has decided by then.
        let r = clamp!((t_high - n) + t_low, -0.51, 0.51);
        // Twice 2^r, to 9e-8: a minimax fit on [−½, ½].
        let exp2 = polynomial!(
            fused,
            r,
            2.0,
            1.386_294,
            0.480_444_85,
            0.111_014_67,
            1.934_302_6e-2,
            2.652_945_5e-3
        );
        let power = scale32(exp2, rounded);
        let power = if self < f32::MIN_POSITIVE { e.at_zero } else { power };
        let power = if self == f32::INFINITY { e.at_infinity } else { power };
        if self >= 0.0 { power } else { f32::NAN }
    }

    type Fraction = Fraction32;

    #[inline(always)]
    fn fraction(p: f64) -> Option<Fraction32> {
        let high = leading(p as f32);
        let low = p - f64::from(high);
        (p.abs() < 0.98).then(|| Fraction32 {
            p: p as f32,
            high,
            low: low as f32,
            high_bias: -127.0 * high,
            low_bias: (-127.0 * low) as f32,
            at_zero: if p > 0.0 { 0.0 } else { f32::INFINITY },
            at_infinity: if p > 0.0 { f32::INFINITY } else { 0.0 },
        })
    }

    #[inline(always)]
    fn pow_fraction(self, e: Fraction32, fused: bool) -> f32 {
        // As in `split32`, with the bias left in k.
        let bits = self.to_bits().wrapping_add(0x3f80_0000 - 0x3f35_04f3);
        let k = ((bits >> 23) as i32) as f32;
        let f = f32::from_bits((bits & 0x007f_ffff) + 0x3f35_04f3) - 1.0;
        // log2(1 + f) = f · q, to 5e-8: a minimax fit. By Estrin's scheme, here and below: steps
        // that wait for each other cost more than a few more of them.
        let f2 = f * f;
        let q01 = mul_add!(fused, f, -0.721_357_15, 1.442_694_77);
        let q23 = mul_add!(fused, f, -0.360_087_21, 0.480_939_45);
        let q45 = mul_add!(fused, f, -0.250_069_08, 0.286_707_45);
        let q67 = mul_add!(fused, f, -0.145_744_44, 0.236_890_46);
        let q03 = mul_add!(fused, f2, q23, q01);
        let q47 = mul_add!(fused, f2, q67, q45);
        let q = mul_add!(fused, f2 * f2, q47, q03);
        // p · log2 x as an exact part and a small rest.
        let exact = mul_add!(fused, e.high, k, e.high_bias);
        let rest = mul_add!(fused, e.p * f, q, mul_add!(fused, e.low, k, e.low_bias));
        let rounded = (exact + rest) + ROUND_32;
        let r = (exact - (rounded - ROUND_32)) + rest;
        // 2^r, to 8e-8: a minimax fit on [−½, ½].
        let r2 = r * r;
        let p01 = mul_add!(fused, r, 0.693_146_97, 1.000_000_07);
        let p23 = mul_add!(fused, r, 0.055_507_13, 0.240_221_2);
        let p45 = mul_add!(fused, r, 0.001_327_65, 0.009_675_54);
        // No r⁴, which may be subnormal, where processors take a hundred cycles for it: of a base of 1,
        // the most frequent one in counts, r is 1e-10.
        let exp2 = mul_add!(fused, r2, mul_add!(fused, r2, p45, p23), p01);
        // The low bits of `rounded` are the binary exponent; those above leave the word.
        let power = f32::from_bits(exp2.to_bits().wrapping_add(rounded.to_bits() << 23));
        let power = if self < f32::MIN_POSITIVE { e.at_zero } else { power };
        let power = if self == f32::INFINITY { e.at_infinity } else { power };
        if self >= 0.0 { power } else { f32::NAN }
    }

    #[inline(always)]
    fn sqrt(self) -> f32 {
        f32::sqrt(self)
    }

    #[inline(always)]
    fn multiply_add(self, b: f32, c: f32, fused: bool) -> f32 {
        mul_add!(fused, self, b, c)
    }
}

/// q(f) in ln(1 + f) = f − f²/2 + f³·q(f) for 1 + f in [√½, √2), from the constant upwards: a minimax
/// fit, to 6e-9 of the logarithm.
const CUBIC_TAIL32: [f32; 8] = [
    0.333_333_31,
    -0.250_008_2,
    0.200_012_27,
    -0.166_233_57,
    0.142_017_57,
    -0.131_601_83,
    0.127_615_78,
    -7.634_499e-2,
];

/// The logarithm of 2^k · (1 + f) with 1 + f in [√½, √2).
#[inline(always)]
fn ln_of_parts32(k: f32, f: f32, fused: bool) -> f32 {
    // ln(1 + f) = f + f²·(f·q(f) − ½). No quotient, which costs as much as all the
    // rest; and by Estrin's scheme, see `pow_fraction`.
    let f2 = f * f;
    let f4 = f2 * f2;
    let q = CUBIC_TAIL32;
    let t01 = mul_add!(fused, f, q[0], -0.5);
    let t23 = mul_add!(fused, f, q[2], q[1]);
    let t45 = mul_add!(fused, f, q[4], q[3]);
    let t67 = mul_add!(fused, f, q[6], q[5]);
    let t03 = mul_add!(fused, f2, t23, t01);
    let t48 = mul_add!(fused, f4, q[7], mul_add!(fused, f2, t67, t45));
    let tail = mul_add!(fused, f4, t48, t03);
    // The nearest number to ln 2 is off by 3e-9 of it. What is known first is added first.
    mul_add!(fused, f2, tail, mul_add!(fused, k, std::f32::consts::LN_2, f))
}

/// q(f) of [`CUBIC_TAIL32`].
#[inline(always)]
fn cubic_tail32(f: f32, fused: bool) -> f32 {
    let q = CUBIC_TAIL32;
    polynomial!(fused, f, q[0], q[1], q[2], q[3], q[4], q[5], q[6], q[7])
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

    const LEAST_NORMAL: f64 = f64::MIN_POSITIVE;

    #[inline(always)]
    fn ln_normal(self, fused: bool) -> f64 {
        finite_ln64(self, fused)
    }

    #[inline(always)]
    fn ln_normal_vector<S: Simd>(_simd: S, x: S::f64s) -> S::f64s {
        // What this becomes is vectors again. Not every instruction set has what is asked of integers
        // here as an operation of its own.
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
    const LN2_HIGH: f64 = 6.931_471_803_691_238_164_90e-1;
    const LN2_LOW: f64 = 1.908_214_929_270_587_700_02e-10;
    let (k, f) = split64(x);
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
