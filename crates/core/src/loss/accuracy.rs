//! How exact losses are in single precision: a scan of all of them from 1e-30 to 1e30.

use crate::error::Result;

use super::{Expr, Loss, Majorizer, Scratch, Tape};

/// A loss with what it is looked at with.
struct Case {
    loss: Loss,
    /// Entry parameters.
    parameters: Vec<f64>,
    /// Its parameter, whether it is an entry parameter or not.
    parameter: Option<f64>,
    /// Of a negative-binomial loss.
    is_count: bool,
    /// Of a member of the αβ-family.
    exponents: Option<[f64; 2]>,
}

fn case(loss: Loss) -> Case {
    let is_count = loss.name().contains("negative") || loss.name() == "geometric";
    Case { loss, parameters: Vec::new(), parameter: None, is_count, exponents: None }
}

fn member(alpha: f64, beta: f64) -> Case {
    let loss = Loss::alpha_beta(alpha, beta).expect("a member of the family");
    Case { exponents: Some([alpha, beta]), ..case(loss) }
}

fn cases() -> Vec<Case> {
    let of = |loss: Result<Loss>, value: f64| Case {
        parameter: Some(value),
        ..case(loss.expect("positive"))
    };
    let per_entry = |make: fn(ndarray::ArrayD<f64>) -> Result<Loss>, value: f64| Case {
        parameters: vec![value],
        ..of(make(ndarray::arr1(&[value]).into_dyn()), value)
    };
    let mut all = vec![
        case(Loss::kl()),
        case(Loss::euclidean()),
        case(Loss::hellinger()),
        case(Loss::neyman()),
        case(Loss::pearson()),
        case(Loss::reverse_kl()),
        case(Loss::jensen_shannon()),
        Case { parameter: Some(1.0), ..case(Loss::geometric()) },
        case(Loss::bernoulli()),
        member(1.0, -1.0),
    ];
    for (alpha, beta) in [
        (0.7, 0.0),
        (0.5, 0.0),
        (1.3, 1.0),
        (0.1, 1.1),
        (1.0, -0.5),
        (1.0, 0.5),
        (-0.5, 1.5),
        (0.5, -0.5),
        (2.0, 0.0),
        (-1.5, 0.3),
        (0.3, 0.7),
    ] {
        all.push(member(alpha, beta));
    }
    for decade in (-30..=30).step_by(6) {
        let value = 10f64.powi(decade);
        all.push(of(Loss::negative_binomial(value), value));
        all.push(per_entry(Loss::negative_binomial, value));
        all.push(per_entry(Loss::binomial, value));
    }
    all.extend([1.0, 10.0, 3e5].map(|n| of(Loss::binomial(n), n)));
    all
}

/// Data and values of the model: far from each other, near each other, and very near.
fn points(loss: &Loss, parameters: &[f64]) -> Vec<(f32, f32)> {
    let decades = (-30..=30).step_by(3).map(|e| 10f32.powi(e));
    let near = [0.0, 1e-6, -1e-5, 3e-4, -0.01, 0.04, -0.12, 0.19, 0.21, -0.35, 0.8, 1.7];
    let mut points = Vec::new();
    for x in decades.clone().chain([0.0, 1.0, 3.0, 12345.0]) {
        // Odds have their range of trials, and everything else that of all numbers.
        let x = match loss.domain().trials(parameters) {
            Some(n) if f64::from(x) > n => n as f32 * (x.log10() + 1.0).recip().min(1.0),
            _ => x,
        };
        points.extend(decades.clone().map(|y| (x, y * 1.37)));
        let best = loss.minimizer(f64::from(x), parameters);
        points.extend(near.map(|d| (x, (best * (1.0 + d)) as f32)));
    }
    let usable = |&(x, y): &(f32, f32)| {
        y.is_normal() && y > 0.0 && loss.domain().contains(f64::from(x), parameters)
    };
    points.into_iter().filter(usable).collect()
}

/// The loss in single precision, as the CPU engine evaluates it.
fn single(expr: &Expr, x: f32, y: f32, parameters: &[f64]) -> f64 {
    let blocks: Vec<[f32; 1]> = parameters.iter().map(|&p| [p as f32]).collect();
    let blocks: Vec<&[f32]> = blocks.iter().map(|block| block.as_slice()).collect();
    let mut out = [0.0f32];
    Tape::compile(&[expr]).run(&[x], &[y], &blocks, &mut Scratch::new(), &mut [&mut out]);
    f64::from(out[0])
}

/// The error that a loss may have in single precision, and whether it can be told: whether all that
/// it is made of is in the range of single precision.
fn allowed(case: &Case, x: f64, y: f64, parameters: &[f64], value: f64) -> Option<f64> {
    let Case { loss, parameter, is_count, exponents, .. } = case;
    let (a, b) = (loss.eval_a(x, y, parameters), loss.eval_b(x, y, parameters));
    let in_range = |v: f64| v == 0.0 || (1e-36..1e36).contains(&v.abs());
    let mut parts = vec![a, b, value, x / y, a * y, b * y];
    parts.extend(
        parameter.iter().flat_map(|p| [x / p, y / p, p / (p + x), p / (p + x) * (x - y) / y]),
    );
    parts.extend(exponents.iter().flat_map(|[alpha, beta]| {
        [x.powf(*alpha), y.powf(*alpha), y.powf(*beta), x.powf(alpha + beta), y.powf(alpha + beta)]
    }));
    if !parts.into_iter().all(in_range) {
        return None;
    }
    let (single, double) = (f64::from(f32::EPSILON), f64::EPSILON);
    let c = loss.curvature_constant().abs();
    // What a rounding error of ŷ makes of the loss anyway: ŷ ∂ℓ/∂ŷ.
    let by_model = match (loss.majorizer(), parameter) {
        (_, Some(phi)) if *is_count => phi * (x - y).abs() / (phi + y),
        (Majorizer::Power { .. }, _) => c * y * (b - a).abs(),
        (Majorizer::Log, _) => c * y * a.abs(),
    };
    // What the general formula of the αβ-family is a difference of.
    let terms = exponents.map_or(0.0, |[alpha, beta]| {
        let sum = alpha + beta;
        let size = |x: f64| if x.abs() < 1e-3 { 0.0 } else { 1.0 / x.abs() };
        let of = size(alpha * beta) + size(alpha * sum) + size(beta * sum) + size(alpha * alpha);
        of * (y * (a + b) + x.powf(sum) + 1.0)
    });
    let far = if (x / y - 1.0).abs() > 0.1 { 4.0 * single * terms } else { 0.0 };
    let cancels = if loss.cancels() { single * c * y * (a + b) } else { 0.0 };
    Some(16.0 * single * (value.abs() + by_model) + far + cancels + 8.0 * double * terms + 1e-37)
}

#[test]
fn losses_are_as_exact_as_single_precision_allows() {
    let mut wrong = Vec::new();
    for case in cases() {
        let loss = &case.loss;
        // What single precision makes of a parameter is what both see.
        let parameters: Vec<f64> = case.parameters.iter().map(|&p| f64::from(p as f32)).collect();
        let (mut looked_at, mut worst, mut at) = (0, 0.0f64, String::new());
        for (x, y) in points(loss, &parameters) {
            let want = loss.divergence().eval(f64::from(x), f64::from(y), &parameters);
            let allowed = allowed(&case, f64::from(x), f64::from(y), &parameters, want);
            let Some(allowed) = allowed else { continue };
            let got = single(loss.divergence(), x, y, &parameters);
            let error = (got - want).abs();
            looked_at += 1;
            let share = error / allowed;
            if share.is_nan() || share > worst {
                worst = share;
                at = format!(
                    "{} at x = {x:e}, y = {y:e}, {parameters:?}: {got:e} in single precision, \
                     {want:e} in double, {error:e} apart where {allowed:e} is allowed",
                    loss.name()
                );
            }
        }
        assert!(looked_at > 50, "{}: only {looked_at} points", loss.name());
        assert!(worst != 0.0, "{}: nothing was compared", loss.name());
        if worst.is_nan() || worst > 1.0 {
            wrong.push(at);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_loss_is_its_divergence_and_its_offset() {
    for case in cases() {
        let Case { loss, parameters, .. } = &case;
        for (x, y) in [(0.0, 0.3), (1.0, 0.2), (1.0, 7.0), (3.0, 3.0), (9.0, 1e3)] {
            if !loss.domain().contains(x, parameters) || loss.eval_loss(x, y, parameters).is_nan() {
                continue;
            }
            let offset = loss.offset().map_or(0.0, |offset| offset.eval(x, y, parameters));
            let divergence = loss.divergence().eval(x, y, parameters);
            let (want, terms) = (loss.eval_loss(x, y, parameters), offset.abs() + divergence);
            let error = (divergence + offset - want).abs();
            let phi = case.parameter.unwrap_or(0.0);
            let terms = terms + if case.is_count { (phi + x) * (phi + y).ln().abs() } else { 0.0 };
            assert!(error <= 1e-13 * (terms + 1.0), "{} at {x}, {y}: {error:e}", loss.name());
            assert!(
                divergence >= -1e-12 * (terms + 1.0),
                "{} at {x}, {y}: {divergence:e}",
                loss.name()
            );
            // At its best ŷ nothing is left.
            let best = loss.minimizer(x, parameters);
            if best > 0.0 && best.is_finite() {
                let least = loss.divergence().eval(x, best, parameters);
                assert!(least.abs() < 1e-12 * (1.0 + terms), "{} at {x}: {least:e}", loss.name());
            }
        }
    }
}
