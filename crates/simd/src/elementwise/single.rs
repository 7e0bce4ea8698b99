//! Elementary functions in single precision.

use pulp::Simd;

use super::Elementwise;

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
    /// The leading 12 bits of the exponent, whose product with a binary exponent is exact, and the
    /// rest.
    high: f32,
    low: f32,
    /// [`LOG2_32`] times the exponent.
    log2: [f32; 8],
    at_zero: f32,
    at_infinity: f32,
}

/// q(f) in log2(1 + f) = f · q(f) for 1 + f in [√½, √2), from the constant upwards: a minimax fit, to 5e-8.
const LOG2_32: [f64; 8] = [
    1.442_694_77,
    -0.721_357_15,
    0.480_939_45,
    -0.360_087_21,
    0.286_707_45,
    -0.250_069_08,
    0.236_890_46,
    -0.145_744_44,
];

/// 2^r for r in [−½, ½], from the constant upwards: a minimax fit, to 8e-8.
const EXP2_32: [f32; 6] =
    [1.000_000_07, 0.693_146_97, 0.240_221_2, 0.055_507_13, 0.009_675_54, 0.001_327_65];

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

/// Adding 1.5 · 2²³ rounds a small number to an integer and leaves it in the low bits.
const ROUND_32: f32 = 12_582_912.0;
/// `x · 2^(n−1)` for the integer n that is in the low bits of `rounded`, from −126 to 128.
#[inline(always)]
fn scale32(x: f32, rounded: f32) -> f32 {
    let n = rounded.to_bits().wrapping_sub(ROUND_32.to_bits());
    x * f32::from_bits(n.wrapping_add(126) << 23)
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

    #[inline(always)]
    fn ln_near(self, excess: f32, fused: bool) -> f32 {
        let near = excess.abs() < 0.25;
        let subnormal = self < f32::MIN_POSITIVE;
        let (x, offset) = if subnormal { (self * 33_554_432.0, -25.0) } else { (self, 0.0) }; // 2²⁵
        let (k, f) = split32(x);
        let (k, f) = if near { (0.0, excess) } else { (k + offset, f) };
        let ln = ln_of_parts32(k, f, fused);
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
        // No instruction set converts integers in the way of all others: it becomes the low bits of
        // 2²³.
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
        (p.abs() < 0.98).then(|| Fraction32 {
            high,
            low: (p - f64::from(high)) as f32,
            log2: LOG2_32.map(|q| (q * p) as f32),
            at_zero: if p > 0.0 { 0.0 } else { f32::INFINITY },
            at_infinity: if p > 0.0 { f32::INFINITY } else { 0.0 },
        })
    }

    #[inline(always)]
    fn pow_fraction(self, e: Fraction32, fused: bool) -> f32 {
        // As in `split32`.
        let bits = self.to_bits().wrapping_add(0x3f80_0000 - 0x3f35_04f3);
        let k = f32::from_bits((bits >> 23) | 0x4b00_0000) - (8_388_608.0 + 127.0);
        let f = f32::from_bits((bits & 0x007f_ffff) + 0x3f35_04f3) - 1.0;
        // Two coefficients at a time, by Horner's rule in f², here and below: no shorter chain of steps
        // that wait for each other takes as few of them.
        let q = e.log2;
        let f2 = f * f;
        let q67 = mul_add!(fused, f, q[7], q[6]);
        let q47 = mul_add!(fused, f2, q67, mul_add!(fused, f, q[5], q[4]));
        let q27 = mul_add!(fused, f2, q47, mul_add!(fused, f, q[3], q[2]));
        let log = mul_add!(fused, f2, q27, mul_add!(fused, f, q[1], q[0]));
        // p · log2 x as an exact part and a small rest.
        let exact = e.high * k;
        let rest = mul_add!(fused, f, log, e.low * k);
        let rounded = (exact + rest) + ROUND_32;
        let r = (exact - (rounded - ROUND_32)) + rest;
        // No r⁴, which may be subnormal, where processors take a hundred cycles for it: of a base
        // of 1, the most frequent one in counts, r is 1e-10.
        let c = EXP2_32;
        let r2 = r * r;
        let c25 =
            mul_add!(fused, r2, mul_add!(fused, r, c[5], c[4]), mul_add!(fused, r, c[3], c[2]));
        let exp2 = mul_add!(fused, r2, c25, mul_add!(fused, r, c[1], c[0]));
        // The low bits of `rounded` are the binary exponent; those above leave the word.
        let power = f32::from_bits(exp2.to_bits().wrapping_add(rounded.to_bits() << 23));
        let power = if self < f32::MIN_POSITIVE { e.at_zero } else { power };
        let power = if self == f32::INFINITY { e.at_infinity } else { power };
        if self >= 0.0 { power } else { f32::NAN }
    }

    #[inline(always)]
    fn pow_fraction_vectors<S: Simd, const N: usize>(
        simd: S,
        x: [S::f32s; N],
        e: Fraction32,
    ) -> [S::f32s; N] {
        let mut powers = Self::pow_normal_vectors::<S, 1, N>(simd, &[x], e)[0];
        let c = |x: f32| simd.splat_f32s(x);
        for i in 0..N {
            let tiny = simd.less_than_f32s(x[i], c(f32::MIN_POSITIVE));
            powers[i] = simd.select_f32s(tiny, c(e.at_zero), powers[i]);
        }
        for i in 0..N {
            let infinite = simd.equal_f32s(x[i], c(f32::INFINITY));
            powers[i] = simd.select_f32s(infinite, c(e.at_infinity), powers[i]);
        }
        for i in 0..N {
            let some = simd.greater_than_or_equal_f32s(x[i], c(0.0));
            powers[i] = simd.select_f32s(some, powers[i], c(f32::NAN));
        }
        powers
    }

    #[inline(always)]
    fn pow_normal_vectors<S: Simd, const M: usize, const N: usize>(
        simd: S,
        x: &[[S::f32s; N]; M],
        e: Fraction32,
    ) -> [[S::f32s; N]; M] {
        // Step by step for all of them, as a step waits for the one before: processors look some sixty
        // operations ahead for one that does not wait, which is less than two powers.
        macro_rules! all {
            ($m:ident, $n:ident => $value:expr) => {{
                let mut values = *x;
                for $m in 0..M {
                    for $n in 0..N {
                        values[$m][$n] = $value;
                    }
                }
                values
            }};
        }
        let c = |x: f32| simd.splat_f32s(x);
        let u = |x: u32| simd.splat_u32s(x);
        // As in `pow_fraction`.
        let shifted = all!(m, n => {
            let bits = simd.transmute_u32s_f32s(x[m][n]);
            simd.transmute_f32s_u32s(simd.add_u32s(bits, u(0x3f80_0000 - 0x3f35_04f3)))
        });
        let k = all!(m, n => {
            let bits = simd.transmute_u32s_f32s(shifted[m][n]);
            let k = simd.or_u32s(simd.wrapping_dyn_shr_u32s(bits, u(23)), u(0x4b00_0000));
            simd.sub_f32s(simd.transmute_f32s_u32s(k), c(8_388_608.0 + 127.0))
        });
        let f = all!(m, n => {
            let bits = simd.and_u32s(simd.transmute_u32s_f32s(shifted[m][n]), u(0x007f_ffff));
            simd.sub_f32s(simd.transmute_f32s_u32s(simd.add_u32s(bits, u(0x3f35_04f3))), c(1.0))
        });
        let q = |i: usize| c(e.log2[i]);
        let f2 = all!(m, n => simd.mul_f32s(f[m][n], f[m][n]));
        let mut log = all!(m, n => simd.mul_add_e_f32s(f[m][n], q(7), q(6)));
        for i in [4, 2, 0] {
            let pair = all!(m, n => simd.mul_add_e_f32s(f[m][n], q(i + 1), q(i)));
            log = all!(m, n => simd.mul_add_e_f32s(f2[m][n], log[m][n], pair[m][n]));
        }
        let exact = all!(m, n => simd.mul_f32s(c(e.high), k[m][n]));
        let low = all!(m, n => simd.mul_f32s(c(e.low), k[m][n]));
        let rest = all!(m, n => simd.mul_add_e_f32s(f[m][n], log[m][n], low[m][n]));
        let rounded = all!(m, n => {
            simd.add_f32s(simd.add_f32s(exact[m][n], rest[m][n]), c(ROUND_32))
        });
        let r = all!(m, n => {
            let whole = simd.sub_f32s(rounded[m][n], c(ROUND_32));
            simd.add_f32s(simd.sub_f32s(exact[m][n], whole), rest[m][n])
        });
        let c6 = |i: usize| c(EXP2_32[i]);
        let r2 = all!(m, n => simd.mul_f32s(r[m][n], r[m][n]));
        let mut exp2 = all!(m, n => simd.mul_add_e_f32s(r[m][n], c6(5), c6(4)));
        for i in [2, 0] {
            let pair = all!(m, n => simd.mul_add_e_f32s(r[m][n], c6(i + 1), c6(i)));
            exp2 = all!(m, n => simd.mul_add_e_f32s(r2[m][n], exp2[m][n], pair[m][n]));
        }
        all!(m, n => {
            let exponent = simd.transmute_u32s_f32s(rounded[m][n]);
            let exponent = simd.wrapping_dyn_shl_u32s(exponent, u(23));
            let bits = simd.add_u32s(simd.transmute_u32s_f32s(exp2[m][n]), exponent);
            simd.transmute_f32s_u32s(bits)
        })
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

/// q(f) in ln(1 + f) = f − f²/2 + f³·q(f) for 1 + f in [√½, √2), from the constant upwards: a
/// minimax fit, to 6e-9 of the logarithm.
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
