//! The losses as a user sees them: derivatives, majorizers, limits, and every way to evaluate them.

use ndarray::{ArrayD, IxDyn};
use nneinfact::loss::{
    Domain, EntryParameter, Expr, Loss, LossParameters, Majorizer, NAMES, Scratch, Tape, Trials,
    wgsl_function,
};
use proptest::prelude::*;

/// A loss with side values to evaluate it at.
struct Case {
    loss: Loss,
    sides: Vec<f64>,
}

fn grid_of_families() -> Vec<Loss> {
    let alphas = [-2.0, -1.0, -0.5, 0.3, 0.5, 0.7, 1.0, 1.3, 2.0, 3.0];
    let mut losses = Vec::new();
    for alpha in alphas {
        let mut betas = vec![-3.0, -2.0, -1.0, -0.5, -0.2, 0.0, 0.2, 0.5, 1.0, 1.5, 2.0, 3.0];
        betas.extend([alpha, -alpha, 1.0 - alpha, 2.0 - alpha]);
        for beta in betas {
            losses.push(Loss::alpha_beta(alpha, beta).unwrap());
        }
        losses.push(Loss::alpha(alpha).unwrap());
    }
    losses.extend([-1.0, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0].map(|b| Loss::beta(b).unwrap()));
    losses
}

fn named_divergences() -> Vec<Loss> {
    vec![
        Loss::kl(),
        Loss::euclidean(),
        Loss::itakura_saito(),
        Loss::hellinger(),
        Loss::reverse_kl(),
        Loss::neyman(),
        Loss::pearson(),
        Loss::jensen_shannon(),
    ]
}

fn tensor(values: &[f64]) -> ArrayD<f64> {
    ArrayD::from_shape_vec(IxDyn(&[values.len()]), values.to_vec()).unwrap()
}

/// Every loss, those with parameters also with a tensor of them.
fn all() -> Vec<Case> {
    let mut cases: Vec<Case> = grid_of_families()
        .into_iter()
        .chain(named_divergences())
        .chain([
            Loss::geometric(),
            Loss::negative_binomial(2.5).unwrap(),
            Loss::bernoulli(),
            Loss::binomial(7.0).unwrap(),
        ])
        .map(|loss| Case { loss, sides: Vec::new() })
        .collect();
    for value in [0.3, 4.0] {
        let loss = Loss::negative_binomial(tensor(&[0.3, 4.0])).unwrap();
        cases.push(Case { loss, sides: vec![value] });
        let loss = Loss::binomial(tensor(&[0.3, 4.0])).unwrap();
        cases.push(Case { loss, sides: vec![value] });
    }
    cases
}

/// Data in the domain, from small to large.
fn data(case: &Case) -> Vec<f64> {
    let domain = case.loss.domain();
    match domain.trials(&case.sides) {
        Some(n) => [0.0, 0.1, 0.5, 0.9, 1.0].iter().map(|share| share * n).collect(),
        None => [0.0, 1e-3, 0.2, 1.0, 3.7, 40.0, 2e3]
            .into_iter()
            .filter(|&x| domain.contains(x, &case.sides))
            .collect(),
    }
}

const VALUES: [f64; 7] = [2e-3, 0.05, 0.6, 1.0, 2.5, 30.0, 1e3];

/// The size of the terms of the loss that cancel, near enough for a tolerance.
fn terms(case: &Case, x: f64, y: f64) -> f64 {
    let Case { loss, sides } = case;
    let at = |y: f64| loss.eval_loss(x, y, sides).abs();
    let ab = loss.eval_a(x, y, sides).abs() + loss.eval_b(x, y, sides).abs();
    // ln(φ + y) and its kin are no more exact than φ + y is.
    let shift = 1.0 + x + sides.iter().sum::<f64>() + loss.domain().trials(sides).unwrap_or(0.0);
    let exact = loss.homogeneity().map_or(shift, |d| x.powf(d) + y.powf(d));
    let exact = if exact.is_finite() { exact } else { 0.0 };
    at(y) + at(0.5 * y) + at(2.0 * y) + y * ab * loss.curvature_constant().abs() + exact
}

/// The derivative in y that `a`, `b` and the curvature constant claim.
fn claimed(case: &Case, x: f64, y: f64) -> f64 {
    let Case { loss, sides } = case;
    let (a, b) = (loss.eval_a(x, y, sides), loss.eval_b(x, y, sides));
    match loss.majorizer() {
        Majorizer::Power { .. } => loss.curvature_constant() * (b - a),
        Majorizer::Log => -loss.curvature_constant() * a,
    }
}

#[test]
fn the_derivative_is_what_a_and_b_say() {
    for case in all() {
        for x in data(&case) {
            for y in VALUES {
                let h = 1e-4 * y;
                let at = |y: f64| case.loss.eval_loss(x, y, &case.sides);
                let coarse = (at(y + h) - at(y - h)) / (2.0 * h);
                let fine = (at(y + 0.5 * h) - at(y - 0.5 * h)) / h;
                let numeric = fine + (fine - coarse) / 3.0;
                let want = claimed(&case, x, y);
                let tolerance = 1e-10 * terms(&case, x, y) / y;
                assert!(
                    (numeric - want).abs() <= tolerance,
                    "{}: x {x}, y {y}: {numeric} and {want}, {tolerance}",
                    case.loss.name()
                );
            }
        }
    }
}

#[test]
fn the_minimum_is_at_the_target() {
    for case in all() {
        for x in data(&case) {
            let y = case.loss.minimizer(x, &case.sides);
            if !(y > 0.0 && y.is_finite()) {
                continue;
            }
            let lowest = case.loss.eval_loss(x, y, &case.sides);
            for factor in [0.1, 0.7, 0.97, 1.03, 1.5, 8.0] {
                let there = case.loss.eval_loss(x, factor * y, &case.sides);
                assert!(there > lowest, "{}: x {x}, factor {factor}", case.loss.name());
            }
        }
    }
    assert_eq!(Loss::binomial(8.0).unwrap().minimizer(2.0, &[]), 2.0 / 6.0);
    assert_eq!(Loss::bernoulli().minimizer(1.0, &[]), f64::INFINITY);
    assert!(Loss::bernoulli().is_odds() && !Loss::kl().is_odds());
}

#[test]
fn divergences_vanish_at_equality_and_are_positive_elsewhere() {
    for loss in grid_of_families().into_iter().chain(named_divergences()) {
        let case = Case { loss, sides: Vec::new() };
        for x in data(&case) {
            if x > 0.0 {
                let zero = case.loss.eval_loss(x, x, &[]);
                let size = terms(&case, x, x);
                assert!(zero.abs() <= 1e-14 * size, "{}: {zero} at {x}", case.loss.name());
            }
            for y in VALUES {
                let loss = case.loss.eval_loss(x, y, &[]);
                let least = if x == y { -1e-14 * terms(&case, x, y) } else { 0.0 };
                assert!(loss >= least, "{}: {loss} at {x}, {y}", case.loss.name());
            }
        }
    }
}

#[test]
fn the_general_formula_goes_over_into_the_limit_cases() {
    let value =
        |alpha: f64, beta: f64| Loss::alpha_beta(alpha, beta).unwrap().eval_loss(1.7, 0.6, &[]);
    for alpha in [-1.5, 0.4, 1.0, 2.0] {
        for (beta, side) in [(0.0, 2e-3), (0.0, -2e-3), (-alpha, 2e-3), (-alpha, -2e-3)] {
            let (limit, near) = (value(alpha, beta), value(alpha, beta + side));
            assert!((limit - near).abs() < 5e-3 * limit, "{alpha}, {beta}: {limit} {near}");
        }
    }
    // Within 1e-3 the loss, but not the update, is that of the limit.
    let near = Loss::alpha_beta(1.0, 5e-4).unwrap();
    assert_eq!(near.eval_loss(1.7, 0.6, &[]), Loss::kl().eval_loss(1.7, 0.6, &[]));
    assert_eq!(near.a().to_string(), "x * y^(-0.9995)");
    assert_eq!(near.notes().len(), 1);
    assert!(near.notes()[0].contains("beta = 0"), "{:?}", near.notes());
    assert!(Loss::kl().notes().is_empty());
}

#[test]
fn the_surrogate_touches_the_loss_and_lies_above_it() {
    let mixtures: [&[(f64, f64)]; 12] = [
        &[(1.0, 1e-3)],
        &[(1.0, 0.3)],
        &[(1.0, 0.9)],
        &[(1.0, 1.2)],
        &[(1.0, 4.0)],
        &[(1.0, 1e3)],
        &[(0.5, 0.5), (0.5, 2.0)],
        &[(0.1, 20.0), (0.9, 0.05)],
        &[(0.9, 20.0), (0.1, 0.05)],
        &[(0.3, 1.0), (0.3, 0.2), (0.4, 6.0)],
        &[(0.25, 0.9), (0.25, 1.0), (0.25, 1.1), (0.25, 1.2)],
        &[(0.01, 300.0), (0.5, 1.0), (0.49, 0.01)],
    ];
    for case in all() {
        let Case { loss, sides } = &case;
        for x in data(&case) {
            for y in VALUES {
                let (a, b) = (loss.eval_a(x, y, sides), loss.eval_b(x, y, sides));
                let here = loss.eval_loss(x, y, sides);
                let surrogate = |lambda: f64| {
                    here + loss.curvature_constant() * y * loss.majorizer().rise(a, b, lambda)
                };
                assert_eq!(surrogate(1.0), here);
                for mixture in mixtures {
                    let lambda: f64 = mixture.iter().map(|(w, l)| w * l).sum();
                    let bound: f64 = mixture.iter().map(|&(w, l)| w * surrogate(l)).sum();
                    let reached = loss.eval_loss(x, lambda * y, sides);
                    let size = terms(&case, x, y) + terms(&case, x, lambda * y) + bound.abs();
                    assert!(
                        reached <= bound + 1e-13 * size,
                        "{}: x {x}, y {y}, {mixture:?}: {reached} above {bound}",
                        loss.name()
                    );
                }
                // What makes the update: the surrogate's minimum is at g⁻¹(a / b).
                let best = loss.majorizer().g_inverse(a / b);
                if (1e-6..1e6).contains(&best) {
                    let low = surrogate(best);
                    for off in [0.9, 1.1] {
                        let size = terms(&case, x, y) + terms(&case, x, best * y);
                        assert!(surrogate(best * off) >= low - 1e-13 * size, "{}", loss.name());
                    }
                    assert!(
                        (loss.majorizer().g(best) - a / b).abs() <= 1e-9 * (1.0 + (a / b).abs())
                    );
                }
            }
        }
    }
}

#[test]
fn a_datum_of_zero_has_its_limit() {
    for case in all() {
        let Case { loss, sides } = &case;
        if !loss.domain().contains(0.0, sides) {
            continue;
        }
        for y in VALUES {
            let (zero, tiny) = (loss.eval_loss(0.0, y, sides), loss.eval_loss(1e-300, y, sides));
            assert!(zero.is_finite(), "{}", loss.name());
            assert!(
                (zero - tiny).abs() <= 1e-7 * (zero.abs() + y),
                "{}: {zero} and {tiny} at y {y}",
                loss.name()
            );
            let a = loss.eval_a(0.0, y, sides);
            assert!(a.is_finite() && loss.eval_b(0.0, y, sides).is_finite());
            let said = loss.numerator_at_zero().unwrap();
            assert!((a - said).abs() < 1e-15, "{}: {a} and {said}", loss.name());
        }
    }
    assert_eq!(Loss::kl().eval_loss(0.0, 2.0, &[]), 2.0);
    assert_eq!(Loss::hellinger().eval_loss(0.0, 2.0, &[]), 2.0 * 2f64.sqrt().powi(2));
    assert_eq!(Loss::jensen_shannon().numerator_at_zero(), Some(0.5f64.ln()));
}

#[test]
fn what_the_sparse_path_needs_is_read_off() {
    let kl = Loss::kl();
    assert!(kl.numerator_zero_at_zero());
    assert_eq!(kl.denominator_constant(), Some(1.0));
    for (alpha, beta) in [(0.7, 0.3), (0.1, 0.9), (1.3, -0.3), (2.0, -1.0), (0.5, 0.5)] {
        let loss = Loss::alpha_beta(alpha, beta).unwrap();
        assert_eq!(loss.denominator_constant(), Some(1.0), "{alpha} {beta}");
        assert!(loss.numerator_zero_at_zero());
        assert_eq!(loss.homogeneity(), Some(1.0));
    }
    for alpha in [0.1, 0.2, 0.35, 0.6, 1.1, -0.7] {
        assert_eq!(Loss::alpha(alpha).unwrap().denominator_constant(), Some(1.0));
    }
    let euclidean = Loss::euclidean();
    assert_eq!(euclidean.b(), &Expr::y());
    assert!(euclidean.denominator_depends_on_y() && !euclidean.denominator_depends_on_x());
    let negative_binomial = Loss::negative_binomial(2.0).unwrap();
    assert!(negative_binomial.denominator_depends_on_x());
    assert!(negative_binomial.numerator_zero_at_zero());
    assert_eq!(negative_binomial.homogeneity(), None);
    assert!(Loss::bernoulli().numerator_zero_at_zero());
    assert!(!Loss::jensen_shannon().numerator_zero_at_zero());
    assert_eq!(Loss::neyman().numerator_at_zero(), None);
    assert_eq!(Loss::reverse_kl().numerator_at_zero(), None);
    assert_eq!(Loss::alpha_beta(0.7, -1.5).unwrap().largest_exponent(), 2.5);
}

#[test]
fn homogeneous_losses_scale() {
    for case in all() {
        let Some(degree) = case.loss.homogeneity() else { continue };
        for (x, y) in [(1.3, 0.4), (0.2, 5.0)] {
            let scaled = case.loss.eval_loss(8.0 * x, 8.0 * y, &[]);
            let want = 8f64.powf(degree) * case.loss.eval_loss(x, y, &[]);
            assert!((scaled - want).abs() <= 1e-12 * want.abs(), "{}", case.loss.name());
        }
    }
}

#[test]
fn majorizers_are_those_of_the_table() {
    let gamma = |loss: Loss| loss.majorizer().gamma().unwrap();
    assert_eq!(gamma(Loss::kl()), 1.0);
    assert_eq!(gamma(Loss::euclidean()), 1.0);
    assert_eq!(gamma(Loss::itakura_saito()), 0.5);
    assert_eq!(gamma(Loss::hellinger()), 2.0);
    assert_eq!(gamma(Loss::pearson()), 0.5);
    assert_eq!(gamma(Loss::neyman()), -1.0);
    // 1/α inside, 1/(1−β) above, 1/(α+β−1) below.
    assert_eq!(gamma(Loss::alpha_beta(0.5, -1.0).unwrap()), 0.5);
    assert_eq!(gamma(Loss::alpha_beta(2.0, 3.0).unwrap()), 0.25);
    assert_eq!(Loss::reverse_kl().majorizer(), Majorizer::Log);
    assert_eq!(Loss::jensen_shannon().curvature_constant(), 0.5);
}

#[test]
fn parameters_out_of_range_are_refused_in_a_sentence() {
    let says = |result: nneinfact::Result<Loss>, what: &str| {
        let text = result.unwrap_err().to_string();
        assert!(text.contains(what), "{text}");
    };
    says(Loss::alpha_beta(0.0, 0.0), "only beta = 1");
    says(Loss::alpha_beta(0.0, 0.5), "only beta = 1");
    says(Loss::alpha_beta(f64::NAN, 0.5), "finite");
    says(Loss::alpha_beta(1e-9, 0.5), "too close to 0");
    says(Loss::alpha_beta(1e30, 1e30), "single precision");
    says(Loss::beta(f64::INFINITY), "finite");
    says(Loss::negative_binomial(0.0), "positive");
    says(Loss::negative_binomial(tensor(&[1.0, f64::NAN])), "[1]");
    says(Loss::binomial(-3.0), "positive");
    assert_eq!(Loss::alpha_beta(0.0, 1.0).unwrap().a(), Loss::reverse_kl().a());
    assert_eq!(Loss::alpha(0.0).unwrap().name(), "alpha(0)");
    for parameter in [f64::MAX, f64::MIN, f64::MIN_POSITIVE, 1e-300, 1e300, 1e-3, 700.0] {
        // Whatever comes of these, it must not be a panic.
        let _ = (Loss::alpha(parameter), Loss::beta(parameter), Loss::binomial(parameter));
        let _ = Loss::alpha_beta(parameter, -parameter);
    }
}

#[test]
fn names_lead_to_losses_and_back() {
    let full = LossParameters {
        alpha: Some(0.7),
        beta: Some(0.25),
        dispersion: Some(2.0.into()),
        trials: Some(EntryParameter::Scalar(10.0)),
        power: Some(1.5),
    };
    let only = |name: &str| LossParameters {
        alpha: full.alpha.filter(|_| name.starts_with("alpha")),
        beta: full.beta.filter(|_| name.ends_with("beta")),
        dispersion: full.dispersion.clone().filter(|_| name == "negative-binomial"),
        trials: full.trials.clone().filter(|_| name == "binomial"),
        power: full.power.filter(|_| name == "tweedie"),
    };
    let mut listing = String::new();
    for name in NAMES {
        let loss = Loss::named(name, &only(name)).unwrap();
        assert!(loss.name().starts_with(name), "{name} gives {}", loss.name());
        listing += &format!(
            "{}: {}; {}; a = {}; b = {}; loss = {}\n",
            loss.name(),
            loss.describe(),
            loss.domain().describe(),
            loss.a(),
            loss.b(),
            loss.loss()
        );
        if matches!(
            name,
            "alpha" | "beta" | "alpha-beta" | "negative-binomial" | "binomial" | "tweedie"
        ) {
            let error = Loss::named(name, &LossParameters::default()).unwrap_err().to_string();
            assert!(error.contains("needs"), "{error}");
        }
        let error = Loss::named(name, &full).unwrap_err().to_string();
        assert!(error.contains("does not take"), "{error}");
    }
    insta::assert_snapshot!(listing);
    let error = Loss::named("laplace", &LossParameters::default()).unwrap_err().to_string();
    assert!(NAMES.iter().all(|name| error.contains(name)), "{error}");
}

#[test]
fn domains_accept_what_they_say() {
    let up_to = Domain::UpTo(Trials::EntryParameter(0));
    assert!(up_to.contains(3.0, &[3.0]) && !up_to.contains(3.1, &[3.0]));
    assert!(!up_to.contains(1.0, &[]), "no number of trials, nothing accepted");
    assert!(!Domain::Positive.contains(0.0, &[]) && Domain::NonNegative.contains(0.0, &[]));
    assert!(Domain::Any.contains(-3.0, &[]) && !Domain::Any.contains(f64::INFINITY, &[]));
    assert!(Domain::Binary.contains(1.0, &[]) && !Domain::Binary.contains(0.5, &[]));
    for domain in [Domain::NonNegative, Domain::Positive, Domain::Binary, up_to] {
        for x in [f64::NAN, f64::INFINITY, -1.0] {
            assert!(!domain.contains(x, &[2.0]), "{domain} {x}");
        }
        assert!(domain.help().contains("mask"));
    }
}

/// Validates a whole shader and gives back the function in it.
fn valid_wgsl(outputs: &[&Expr], sides: usize) -> String {
    let text = wgsl_function("f", outputs, sides).unwrap();
    let arguments: String = (0..sides).map(|i| format!(", data[{}]", i + 2)).collect();
    let (store, count) = match outputs.len() {
        1 => ("data[0] = r;".to_string(), 1),
        n => ((0..n).map(|i| format!("data[{i}] = r[{i}];")).collect(), n),
    };
    let module = format!(
        "@group(0) @binding(0) var<storage, read_write> data: array<f32>;\n{text}\
         @compute @workgroup_size(1)\nfn main() {{ let r = f(data[0], data[1]{arguments}); {store} }}"
    );
    let parsed = naga::front::wgsl::parse_str(&module)
        .unwrap_or_else(|e| panic!("{count}: {}\n{module}", e.emit_to_string(&module)));
    naga::valid::Validator::new(
        naga::valid::ValidationFlags::all(),
        naga::valid::Capabilities::empty(),
    )
    .validate(&parsed)
    .unwrap_or_else(|e| panic!("{e:?}\n{module}"));
    text
}

#[test]
fn every_loss_is_valid_wgsl() {
    for case in all() {
        let Case { loss, sides } = &case;
        for outputs in [
            vec![loss.a()],
            vec![loss.b()],
            vec![loss.loss()],
            vec![loss.a(), loss.b()],
            vec![loss.a(), loss.b(), loss.loss()],
        ] {
            valid_wgsl(&outputs, sides.len());
        }
    }
}

#[test]
fn wgsl_is_what_one_would_write() {
    let text = |loss: Loss| {
        format!(
            "// {}\n{}",
            loss.name(),
            valid_wgsl(&[loss.a(), loss.b(), loss.loss()], loss.entry_parameters().len())
        )
    };
    insta::assert_snapshot!(
        [
            text(Loss::kl()),
            text(Loss::hellinger()),
            text(Loss::itakura_saito()),
            text(Loss::alpha_beta(0.7, 0.0).unwrap()),
            text(Loss::beta(1.3).unwrap()),
            text(Loss::negative_binomial(tensor(&[1.0, 2.0])).unwrap()),
            text(Loss::jensen_shannon()),
        ]
        .join("\n")
    );
}

#[test]
fn wgsl_refuses_what_a_shader_would() {
    let says = |outputs: &[&Expr], what: &str| {
        let text = wgsl_function("f", outputs, 0).unwrap_err().to_string();
        assert!(text.contains(what), "{text}");
    };
    says(&[&(Expr::x() * 1e300)], "single precision");
    says(&[&(Expr::x() * 1e-300)], "single precision");
    says(&[&(Expr::x() + Expr::constant(0.0).ln())], "single precision");
    says(&[&Expr::entry_parameter(0)], "s0");
    says(&[], "one to four");
}

/// Runs a tape over blocks in `f64` and in `f32`, and compares with the expressions.
fn compare(outputs: &[&Expr], x: &[f64], y: &[f64], sides: &[f64]) {
    let tape = Tape::compile(outputs);
    let blocks: Vec<Vec<f64>> = sides.iter().map(|&s| vec![s; x.len()]).collect();
    let views: Vec<&[f64]> = blocks.iter().map(Vec::as_slice).collect();
    let mut results = vec![vec![f64::NAN; x.len()]; outputs.len()];
    let mut places: Vec<&mut [f64]> = results.iter_mut().map(Vec::as_mut_slice).collect();
    let mut scratch = Scratch::new();
    tape.run(x, y, &views, &mut scratch, &mut places);

    let narrow = |v: &[f64]| v.iter().map(|&v| v as f32).collect::<Vec<f32>>();
    let (x32, y32) = (narrow(x), narrow(y));
    let blocks: Vec<Vec<f32>> = blocks.iter().map(|b| narrow(b)).collect();
    let views: Vec<&[f32]> = blocks.iter().map(Vec::as_slice).collect();
    let mut singles = vec![vec![f32::NAN; x.len()]; outputs.len()];
    let mut places: Vec<&mut [f32]> = singles.iter_mut().map(Vec::as_mut_slice).collect();
    tape.run(&x32, &y32, &views, &mut Scratch::new(), &mut places);

    for (k, e) in outputs.iter().enumerate() {
        for i in 0..x.len() {
            let want = e.eval(x[i], y[i], sides);
            // The terms of a loss cancel near x = y.
            let size = want.abs() + size_of_terms(e, x[i], y[i], sides);
            let (got, single) = (results[k][i], f64::from(singles[k][i]));
            let at = format!("{e} at x {}, y {}, {sides:?}", x[i], y[i]);
            assert!((got - want).abs() <= 1e-12 * size, "{at}: {got}, not {want}");
            if size < 1e30 {
                assert!((single - want).abs() <= 1e-4 * size, "{at}: {single}, not {want}");
            }
        }
    }
}

/// The largest values that a loss takes around a point, for a tolerance.
fn size_of_terms(e: &Expr, x: f64, y: f64, sides: &[f64]) -> f64 {
    [(x, 2.0 * y), (x, 0.5 * y), (2.0 * x, y)]
        .iter()
        .map(|&(x, y)| e.eval(x, y, sides).abs())
        .filter(|v| v.is_finite())
        .sum()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..crate::common::repeatable() })]

    #[test]
    fn tapes_agree_with_the_expressions(
        exponents in prop::collection::vec((-2.0f64..3.0, -2.5f64..2.5), 1..70),
        zero in any::<bool>(),
    ) {
        let mut x: Vec<f64> = exponents.iter().map(|e| 10f64.powf(e.0)).collect();
        let y: Vec<f64> = exponents.iter().map(|e| 10f64.powf(e.1)).collect();
        for case in all() {
            let Case { loss, sides } = &case;
            if zero && loss.domain().contains(0.0, sides) {
                x[0] = 0.0;
            } else if x[0] == 0.0 {
                x[0] = 1.5;
            }
            compare(&[loss.a(), loss.b(), loss.loss()], &x, &y, sides);
            compare(&[loss.loss(), loss.a()], &x, &y, sides);
        }
    }

    #[test]
    fn small_alphabets_of_expressions_agree(
        program in prop::collection::vec((0u8..12, 0usize..8, 0usize..8), 1..24),
        x in prop::collection::vec(0.1f64..4.0, 5),
        y in prop::collection::vec(0.1f64..4.0, 5),
    ) {
        // Values are kept between fixed bounds, so that nothing cancels or overflows.
        let tame = |e: Expr| 0.5 + 1.0 / (1.0 + &e * &e);
        let mut pool = vec![Expr::x(), Expr::y(), Expr::entry_parameter(0), Expr::constant(1.5)];
        for (operation, i, j) in program {
            let (a, b) = (pool[i % pool.len()].clone(), pool[j % pool.len()].clone());
            pool.push(tame(match operation {
                0 => a + b,
                1 => a - b,
                2 => a * b,
                3 => a / b,
                4 => -a,
                5 => a.sqrt(),
                6 => a.pow(-0.5) * b,
                7 => a.pow(1.3) + a.pow(0.3) * b,
                8 => a.ln(),
                9 => (0.1 * a).exp(),
                10 => a.pow(-2.5),
                _ => Expr::select_positive(&(&a - &b), &a, &(b - 0.25)),
            }));
        }
        let outputs: Vec<&Expr> = pool.iter().rev().take(4).collect();
        let tape = Tape::compile(&outputs);
        prop_assert!(tape.registers() <= tape.len());
        compare_smooth(&tape, &outputs, &x, &y);
        valid_wgsl(&outputs, 1);
    }
}

/// As [`compare`] in `f64`, without the terms of a loss.
fn compare_smooth(tape: &Tape, outputs: &[&Expr], x: &[f64], y: &[f64]) {
    let side = vec![0.7; x.len()];
    let mut results = vec![vec![f64::NAN; x.len()]; outputs.len()];
    let mut places: Vec<&mut [f64]> = results.iter_mut().map(Vec::as_mut_slice).collect();
    tape.run(x, y, &[&side], &mut Scratch::new(), &mut places);
    for (e, result) in outputs.iter().zip(&results) {
        for i in 0..x.len() {
            let want = e.eval(x[i], y[i], &[0.7]);
            assert!((result[i] - want).abs() <= 1e-9 * want.abs(), "{e}: {} {want}", result[i]);
        }
    }
}

#[test]
fn tapes_are_short() {
    let tape = |outputs: &[&Expr]| Tape::compile(outputs);
    assert_eq!(tape(&[Loss::kl().a()]).len(), 1);
    // y^(−0.7), y^0.3 and y^1.3 share one power.
    let beta = Loss::beta(1.3).unwrap();
    let all = tape(&[beta.a(), beta.b(), beta.loss()]);
    assert_eq!(all.transcendentals(), 2, "{all:?}");
    assert_eq!((all.powers(), all.logarithms()), (2, 0), "{all:?}");
    // The loss of KL takes a logarithm, what its updates need neither that nor a power.
    let kl = Loss::kl();
    let (update, loss) = (tape(&[kl.a(), kl.b()]), tape(&[kl.a(), kl.loss()]));
    assert_eq!((update.powers(), update.logarithms()), (0, 0), "{update:?}");
    assert_eq!((loss.powers(), loss.logarithms()), (0, 1), "{loss:?}");
    // Leaves and constants as outputs, one twice.
    let (x, y, one) = (Expr::x(), Expr::y(), Expr::constant(1.0));
    let e = &x + &y;
    let leaves = tape(&[&x, &one, &e, &e, &y]);
    let mut results = [[0.0f32; 3]; 5];
    let mut places: Vec<&mut [f32]> = results.iter_mut().map(|r| &mut r[..]).collect();
    leaves.run(&[1.0, 2.0, 3.0], &[4.0; 3], &[], &mut Scratch::new(), &mut places);
    assert_eq!(results, [[1.0, 2.0, 3.0], [1.0; 3], [5.0, 6.0, 7.0], [5.0, 6.0, 7.0], [4.0; 3]]);
    assert!(Tape::compile(&[]).is_empty());
}

#[test]
fn the_divergence_of_kl_is_one_instruction() {
    fn check<T: nneinfact_simd::Elementwise>(outputs: &[&Expr], tolerance: f64) {
        let of = |v: f64| T::from_f64(v);
        let xs = [0.0, 1e-37, 1e-30, 0.3, 1.0, 2.0, 255.0, 1e9, 1e25];
        let ys = [1e-10, 1e-3, 0.7, 1.0, 2.0, 300.0, 1e12, 1e28];
        let x: Vec<T> = xs.iter().flat_map(|&x| ys.map(|_| of(x))).collect();
        let y: Vec<T> = xs.iter().flat_map(|_| ys.map(of)).collect();
        let mut results = vec![vec![of(f64::NAN); x.len()]; outputs.len()];
        let mut places: Vec<&mut [T]> = results.iter_mut().map(Vec::as_mut_slice).collect();
        Tape::compile(outputs).run(&x, &y, &[], &mut Scratch::new(), &mut places);
        for (e, result) in outputs.iter().zip(&results) {
            for ((x, y), &found) in x.iter().zip(&y).zip(result) {
                let (x, y, found) = (x.to_f64(), y.to_f64(), found.to_f64());
                let want = e.eval(x, y, &[]);
                // The size of the terms that the loss is a sum of; a quotient is one itself. Beside 1,
                // one that is subnormal is nothing.
                let log = if x > 0.0 { (x / y).ln().abs() } else { 0.0 };
                let terms = if *e == Loss::kl().loss() { x * log + x + y } else { want };
                let error = (found - want).abs();
                assert!(error <= tolerance * terms + 1e-38, "{e} at {x}, {y}: {found} {want}");
            }
        }
    }
    let kl = Loss::kl();
    let (a, b, loss) = (kl.a(), kl.b(), kl.loss());
    // What else needs the quotient keeps it an instruction of its own.
    let other = a + 1.0;
    let cases: [(&[&Expr], usize); 6] = [
        (&[a, loss], 1),
        (&[loss, a], 1),
        (&[loss], 1),
        (&[a, b, loss], 2),
        (&[a, loss, a, loss], 3),
        (&[&other, loss], 5),
    ];
    for (outputs, instructions) in cases {
        assert_eq!(Tape::compile(outputs).len(), instructions, "{outputs:?}");
        check::<f32>(outputs, 4e-7);
        check::<f64>(outputs, 1e-15);
    }
}

#[test]
fn a_guarded_logarithm_of_the_quotient_is_one_instruction() {
    let (x, y) = (Expr::x(), Expr::y());
    let quotient = &x / &y;
    let guarded = |value: Expr| Expr::select_positive(&quotient, &value, &Expr::constant(0.0));
    let plain = guarded(&y * quotient.ln());
    let scaled = guarded(0.7 * (x.pow(0.7) * quotient.ln()));
    // Two that share it leave it as it is; so does one that needs it without the guard, or that of
    // something else.
    let shared = quotient.ln() + 1.0;
    let other = guarded(&x * y.ln());
    let loss = Loss::alpha_beta(0.7, 0.0).unwrap();
    let cases: [(&[&Expr], usize); 6] = [
        (&[&plain], 2),
        (&[&scaled], 3),
        (&[&scaled, &plain], 8),
        (&[&plain, &shared], 5),
        (&[&other], 4),
        (&[loss.a(), loss.b(), loss.loss()], 8),
    ];
    let xs = [0.0, 1e-30, 0.3, 1.0, 2.0, 255.0, 1e9];
    let ys = [1e-3, 0.7, 1.0, 2.0, 300.0, 1e9];
    let all_x: Vec<f64> = xs.iter().flat_map(|&x| ys.map(|_| x)).collect();
    let all_y: Vec<f64> = xs.iter().flat_map(|_| ys).collect();
    for (outputs, instructions) in cases {
        let tape = Tape::compile(outputs);
        assert_eq!(tape.len(), instructions, "{outputs:?}: {tape:?}");
        // Without a guard the logarithm of 0 is infinite.
        let first = if outputs.len() == 2 && *outputs[1] == shared { ys.len() } else { 0 };
        compare(outputs, &all_x[first..], &all_y[first..], &[]);
    }
}

#[test]
fn a_scratch_serves_blocks_of_any_length() {
    let loss = Loss::alpha_beta(1.3, 0.4).unwrap();
    let tape = Tape::compile(&[loss.loss()]);
    let mut scratch = Scratch::new();
    for n in [5, 1000, 1, 0, 257] {
        let (x, y) = (vec![2.0f64; n], vec![3.0; n]);
        let mut result = vec![0.0; n];
        tape.run(&x, &y, &[], &mut scratch, &mut [&mut result]);
        let want = loss.eval_loss(2.0, 3.0, &[]);
        assert!(result.iter().all(|r| (r - want).abs() < 1e-13));
    }
}

mod custom {
    use super::*;

    fn x() -> Expr {
        Expr::x()
    }

    fn y() -> Expr {
        Expr::y()
    }

    const KL: Majorizer = Majorizer::Power { p_a: -1.0, p_b: 0.0 };

    #[test]
    fn built_in_losses_pass_as_custom_ones() {
        for loss in named_divergences() {
            let custom = Loss::custom("mine")
                .a(loss.a().clone())
                .b(loss.b().clone())
                .loss(loss.loss().clone())
                .majorizer(loss.majorizer())
                .domain(*loss.domain())
                .build()
                .unwrap_or_else(|e| panic!("{}: {e}", loss.name()));
            assert_eq!(custom.curvature_constant(), loss.curvature_constant(), "{}", loss.name());
            assert_eq!(custom.numerator_at_zero(), loss.numerator_at_zero());
        }
        for loss in [Loss::alpha_beta(0.7, -1.2), Loss::alpha_beta(-0.5, 1.0), Loss::beta(2.6)] {
            let loss = loss.unwrap();
            Loss::custom("mine")
                .a(loss.a().clone())
                .b(loss.b().clone())
                .loss(loss.loss().clone())
                .majorizer(loss.majorizer())
                .curvature_constant(loss.curvature_constant())
                .domain(*loss.domain())
                .build()
                .unwrap_or_else(|e| panic!("{}: {e}", loss.name()));
        }
    }

    #[test]
    fn side_tensors_and_domains_are_used() {
        let n = tensor(&[3.0, 8.0, 1.0]);
        let loss = Loss::custom("binomial")
            .a(x() / y())
            .b(Expr::entry_parameter(0) / (1.0 + y()))
            .loss(Expr::entry_parameter(0) * (1.0 + y()).ln() - x() * y().ln())
            .majorizer(KL)
            .domain(Domain::UpTo(Trials::EntryParameter(0)))
            .entry_parameters([n.clone()])
            .build()
            .unwrap();
        assert_eq!(loss.curvature_constant(), 1.0);
        assert_eq!(loss.entry_parameters()[0].as_ref(), &n);
        let bernoulli = Loss::bernoulli();
        let custom = Loss::custom("bernoulli")
            .a(bernoulli.a().clone())
            .b(bernoulli.b().clone())
            .loss(bernoulli.loss().clone())
            .majorizer(KL)
            .domain(Domain::Binary);
        assert!(custom.build().is_ok());
    }

    fn refused(builder: nneinfact::loss::LossBuilder, what: &str) {
        let text = builder.build().unwrap_err().to_string();
        assert!(text.contains(what), "{text}");
    }

    #[test]
    fn losses_that_do_not_hold_together_are_refused() {
        let kl = || Loss::custom("k").a(x() / y()).b(1.0.into()).loss(y() - x() * y().ln());
        refused(kl(), "majorizer is missing");
        refused(Loss::custom("k").b(1.0.into()), "a, the numerator");
        // The derivative is of another loss.
        refused(kl().majorizer(KL).a(x()), "derivative");
        refused(kl().majorizer(KL).curvature_constant(2.0), "derivative");
        refused(kl().majorizer(KL).curvature_constant(0.0), "curvature constant");
        // Itakura–Saito with the majorizer of KL: the concave part is not replaced.
        let saito = || {
            Loss::custom("s")
                .a(x() / y().pow(2.0))
                .b(1.0 / y())
                .loss(x() / y() + y().ln())
                .domain(Domain::Positive)
        };
        assert!(saito().majorizer(Majorizer::Power { p_a: -2.0, p_b: 0.0 }).build().is_ok());
        refused(saito().majorizer(KL), "does not lie above");
        // Along one ray this would pass: only the mixtures show it.
        refused(saito().majorizer(Majorizer::Power { p_a: -2.0, p_b: -1.0 }), "does not lie above");
        refused(kl().majorizer(Majorizer::Power { p_a: 1.0, p_b: 1.0 }), "two different");
        refused(kl().majorizer(Majorizer::Power { p_a: f64::NAN, p_b: 1.0 }), "two different");
        refused(kl().majorizer(Majorizer::Power { p_a: 0.0, p_b: -1.0 }), "maximise");
        refused(kl().majorizer(KL).a(Expr::entry_parameter(0)), "s0");
        refused(kl().majorizer(KL).domain(Domain::UpTo(Trials::EntryParameter(1))), "s1");
        refused(kl().majorizer(KL).domain(Domain::UpTo(Trials::Scalar(-1.0))), "trials");
        refused(kl().majorizer(KL).entry_parameters([tensor(&[])]), "need entries");
        refused(
            kl().majorizer(KL).entry_parameters([tensor(&[1.0]), tensor(&[1.0, 2.0])]),
            "shapes",
        );
        refused(kl().majorizer(KL).homogeneity(f64::NAN), "homogeneity");
        refused(kl().majorizer(KL).b(1e300.into()), "single precision");
        refused(kl().majorizer(KL).loss(x() * x().ln() + y() - x() * y().ln()), "finite");
        let mut large = y();
        for _ in 0..60 {
            large = &large * &large;
        }
        refused(kl().majorizer(KL).loss(large), "operations");
    }

    #[test]
    fn expressions_of_any_depth_are_taken_or_refused() {
        let kl = || Loss::custom("k").a(x() / y()).b(1.0.into()).majorizer(KL);
        // What depends on x alone changes nothing but the value.
        let long = |terms: usize| (0..terms).fold(y() - x() * y().ln(), |sum, _| sum + x() * 1e-3);
        let loss = kl().loss(long(400)).build().unwrap();
        assert!((loss.eval_loss(2.0, 1.0, &[]) - 1.8).abs() < 1e-12);
        assert!(kl().loss(long(497)).build().is_ok());
        refused(kl().loss(long(498)), "500 operations deep");
        // As many as would not fit any stack, also where they are dropped, compared or printed.
        let million = long(1_000_000);
        assert!(million.eval(1.0, 1.0, &[]).is_nan());
        assert_eq!(million.to_string(), "…");
        assert!(million == million.clone() && million != x());
        assert_eq!(million.entry_parameter_count(), 0);
        let tape = Tape::compile(&[&million]);
        let mut out = [0.0f64];
        tape.run(&[1.0], &[1.0], &[], &mut Scratch::new(), &mut [&mut out]);
        assert!(out[0].is_nan());
        let wgsl = wgsl_function("f", &[&million], 0).unwrap_err().to_string();
        assert!(wgsl.contains("500 operations deep"), "{wgsl}");
        // Whatever it becomes a part of.
        refused(kl().loss(million.exp() * 0.0 + y()), "500 operations deep");
        let chain = (0..1_000_000).fold(y(), |e, n| match n % 3 {
            0 => e.exp(),
            1 => -Expr::select_positive(&e, &x(), &y()),
            _ => 1.0 / e,
        });
        refused(kl().loss(y()).a(chain), "500 operations deep");
    }
}
