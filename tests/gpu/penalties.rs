//! Penalties, bounds, fixed factors and balancing on a GPU against the CPU in double precision.

use crate::common::{CORPUS, Case, Random, deviation, largest_rise};
use nneinfact::fit::{Balance, Format};
use nneinfact::loss::Penalty;
use nneinfact::{Algorithm, Device, Fit, Loss, NNEinFact, Observations, Precision};

/// On a GPU in single precision, on the CPU in double precision where there is none.
fn on(case: &Case, device: Option<&Device>) -> NNEinFact {
    match device {
        Some(device) => case.settings(device),
        None => case.settings(&Device::cpu()).precision(Precision::F64),
    }
}

fn losses() -> Vec<Loss> {
    let alpha_beta = |alpha, beta| Loss::alpha_beta(alpha, beta).unwrap();
    vec![
        Loss::kl(),
        Loss::euclidean(),
        alpha_beta(-1.0, 0.4),
        Loss::itakura_saito(),
        Loss::reverse_kl(),
        Loss::negative_binomial(2.0).unwrap(),
        Loss::bernoulli(),
        Loss::jensen_shannon(),
        alpha_beta(0.7, 0.0),
    ]
}

const POWERS: [f64; 4] = [1.0, 2.0, 1.5, 3.0];
const BALANCES: [Balance; 3] = [Balance::Never, Balance::AtStart, Balance::EverySweep];

/// The penalised objective, element by element.
fn objective(fit: &Fit) -> Vec<f64> {
    let history = fit.history();
    assert_eq!(history.loss.len(), history.penalty.len());
    history.loss.iter().zip(&history.penalty).map(|(loss, penalty)| loss + penalty).collect()
}

/// The largest deviation of an objective, and of the penalty in it, relative to its largest element.
fn apart(found: &Fit, expected: &Fit) -> f64 {
    let of = |f: &[f64], e: &[f64]| {
        assert_eq!(f.len(), e.len());
        let scale = e.iter().fold(0.0, |m: f64, x| m.max(x.abs()));
        f.iter().zip(e).fold(0.0, |m: f64, (f, e)| m.max((f - e).abs() / scale))
    };
    let penalties = of(&found.history().penalty, &expected.history().penalty);
    of(&objective(found), &objective(expected)).max(penalties)
}

/// The shape of a case of the corpus.
fn shape(model: usize) -> Vec<usize> {
    let modes = CORPUS[model].modes();
    (0..modes)
        .map(|m| if modes > 4 { 2 + (model + m) % 3 } else { 3 + (3 * model + 5 * m) % 7 })
        .collect()
}

/// One way of penalising, of many: losses, powers, balances, models, masks each have their turn.
fn case(n: usize) -> (Case, Penalty, Balance, bool, String) {
    let every = losses();
    let loss = every[n % every.len()].clone();
    let model = (5 * n + n / 23) % CORPUS.len();
    let penalty = Penalty::new([0.2, 0.02, 1.5][n / 4 % 3], POWERS[(n + n / 9) % 4]);
    let balance = BALANCES[(n + n / 4) % 3];
    let masked = n / 2 % 2 == 1;
    let case = Case::new(CORPUS[model].name, &shape(model), loss, 11 * n as u64 + 5);
    let what = format!(
        "{} ({:?}) under {}, {penalty:?}, {balance:?}, masked: {masked}",
        CORPUS[model].name,
        case.y.shape(),
        case.loss.name()
    );
    (case, penalty, balance, masked, what)
}

fn observe(case: &Case, masked: bool) -> Observations {
    let observations = Observations::new(&case.y);
    if masked { observations.held_out(0.2, 3).unwrap() } else { observations }
}

#[test]
fn penalised_sweeps_agree_with_the_cpu() {
    let Some(device) = crate::common::gpu() else { return };
    let mut wrong = Vec::new();
    for n in crate::common::gpu_cases(72) {
        let (case, penalty, balance, masked, what) = case(n);
        let algorithm = if n % 5 < 2 { Algorithm::Block } else { Algorithm::Grouped };
        let run = |device: Option<&Device>, groups: Option<Vec<Vec<usize>>>| {
            let mut settings = on(&case, device).algorithm(algorithm);
            if let Some(groups) = groups {
                settings = settings.groups(groups);
            }
            let settings = settings.penalty_on_all(penalty).balance(balance);
            settings.max_iter(6).fit(observe(&case, masked)).unwrap()
        };
        let gpu = run(Some(&device), None);
        // In double precision others may be planned.
        let groups = gpu.plan().groups().iter().map(|group| group.factors.clone()).collect();
        let cpu = run(None, (algorithm == Algorithm::Grouped).then_some(groups));
        let (factors, history) = (deviation(gpu.factors(), cpu.factors()), apart(&gpu, &cpu));
        if !(factors <= 2e-4 && history <= 1e-4) {
            wrong.push(format!(
                "{what}, {algorithm:?}: factors {factors:.1e}, objective {history:.1e} apart"
            ));
        }
        let rise = largest_rise(&objective(&gpu), case.term(&gpu));
        if rise > 1e-4 {
            wrong.push(format!("{what}, {algorithm:?}: it rises by {rise:.1e}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn accelerated_penalised_fits_fall_and_end_near_those_of_the_cpu() {
    let Some(device) = crate::common::gpu() else { return };
    let mut wrong = Vec::new();
    for n in crate::common::gpu_cases(36) {
        let (case, penalty, balance, masked, what) = case(n);
        let run = |device: Option<&Device>| {
            let settings = on(&case, device).algorithm(Algorithm::Accelerated);
            let settings = settings.penalty_on_all(penalty).balance(balance);
            settings.max_iter(60).fit(observe(&case, masked)).unwrap()
        };
        let (gpu, cpu) = (run(Some(&device)), run(None));
        let term = case.term(&gpu);
        let (g, c) = (objective(&gpu), objective(&cpu));
        let rise = largest_rise(&g, term);
        // Less than the CPU's is no fault: the ways part, and there are many minima.
        let left =
            (g[g.len() - 1] - c[c.len() - 1]) / (g[0] - c[c.len() - 1]).abs().max(1e-6 * term);
        if !(rise <= 1e-4 && left <= 0.05) {
            wrong.push(format!(
                "{what}: it rises by {rise:.1e}, and ends {left:.1e} of the way above"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Penalties on some factors, of different powers and weights.
#[test]
fn every_factor_has_a_rule_of_its_own() {
    let Some(device) = crate::common::gpu() else { return };
    for algorithm in [Algorithm::Block, Algorithm::Grouped] {
        let case = Case::new("Uber, second", &[5, 4, 6, 3, 5], Loss::kl(), 4);
        let run = |device: Option<&Device>| {
            let settings = on(&case, device).algorithm(algorithm);
            let settings = settings
                .penalty("wr", Penalty::l1(0.7))
                .penalty("hr", Penalty::l2(0.2))
                .penalty("ikr", Penalty::new(0.1, 1.5))
                .penalty("jkr", Penalty::new(0.05, 4.0))
                .bounds("dr", 0.05, 0.6);
            settings.max_iter(6).fit(&case.y).unwrap()
        };
        let (gpu, cpu) = (run(Some(&device)), run(None));
        let factors = deviation(gpu.factors(), cpu.factors());
        assert!(factors < 2e-4, "{algorithm:?}: {factors:.1e}");
        assert!(apart(&gpu, &cpu) < 1e-4, "{algorithm:?}");
    }
}

/// Fixed factors hold zeros, and numbers that single precision rounds.
#[test]
fn fixed_factors_stay_and_bounds_hold() {
    let Some(device) = crate::common::gpu() else { return };
    for n in crate::common::gpu_cases(6) {
        let algorithm = [Algorithm::Block, Algorithm::Grouped, Algorithm::Accelerated][n % 3];
        let loss = if n % 2 == 0 { Loss::kl() } else { Loss::alpha_beta(-1.0, 0.4).unwrap() };
        let case = Case::new("Uber, first", &[5, 4, 3, 6, 5], loss, n as u64);
        let mut given = case.start[3].clone();
        let mut random = Random::new(9);
        given.mapv_inplace(|x| if random.uniform() < 0.3 { 0.0 } else { x });
        let (lower, upper) = (0.3, 0.5);
        let run = |device: Option<&Device>| {
            let settings = on(&case, device).algorithm(algorithm);
            let settings = settings.fix("irk", given.clone()).bounds("dr", lower, upper);
            let settings = settings.bounds("hr", 0.0, 0.45).penalty("jrk", Penalty::l2(0.1));
            settings.max_iter(8).fit(&case.y).unwrap()
        };
        let (gpu, cpu) = (run(Some(&device)), run(None));
        let what = format!("{} {algorithm:?}", case.loss.name());
        assert_eq!(gpu.factors()[3], given, "{what}");
        assert!(gpu.factors()[1].iter().all(|x| (lower..=upper).contains(x)), "{what}");
        assert!(gpu.factors()[2].iter().all(|&x| x <= 0.45), "{what}");
        // The bounds are in the way.
        let near = |x: f64, bound: f64| (x - bound).abs() < 1e-9;
        let bounded = &cpu.factors()[1];
        assert!(bounded.iter().any(|&x| near(x, lower) || near(x, upper)), "{what}");
        if algorithm != Algorithm::Accelerated {
            let factors = deviation(gpu.factors(), cpu.factors());
            assert!(factors < 2e-4, "{what}: {factors:.1e}");
        }
        let rise = largest_rise(&objective(&gpu), case.term(&gpu));
        assert!(rise <= 1e-4, "{what}: {rise:.1e}");
    }
}

/// Data on another scale are divided by a unit on the device, and penalties with them.
#[test]
fn penalties_follow_the_unit_of_the_data() {
    let Some(device) = crate::common::gpu() else { return };
    let scales = [1e-8, 1e9];
    for scale in crate::common::gpu_cases(scales.len()).map(|n| scales[n]) {
        for (loss, p) in [(Loss::kl(), 1.0), (Loss::euclidean(), 2.0), (Loss::kl(), 3.0)] {
            let mut case = Case::new("CP, 3 modes", &[6, 7, 5], loss, 3);
            case.y.mapv_inplace(|x| x * scale);
            let share = scale.powf(1.0 / 3.0);
            case.start.iter_mut().for_each(|f| f.mapv_inplace(|x| x * share));
            let size = scale.powf(case.loss.homogeneity().unwrap());
            let penalty = Penalty::new(0.3 * size / share.powf(p), p);
            let run = |device: Option<&Device>| {
                let settings = on(&case, device).algorithm(Algorithm::Grouped);
                let settings =
                    settings.penalty_on_all(penalty).prediction_floor(Case::FLOOR * scale);
                settings.max_iter(6).fit(&case.y).unwrap()
            };
            let (gpu, cpu) = (run(Some(&device)), run(None));
            let factors = deviation(gpu.factors(), cpu.factors());
            assert!(factors < 2e-4, "{} times {scale:e}: {factors:.1e}", case.loss.name());
            assert!(apart(&gpu, &cpu) < 1e-4, "{} times {scale:e}", case.loss.name());
        }
    }
}

#[test]
fn penalised_fits_to_lists_agree_with_the_cpu() {
    let Some(device) = crate::common::gpu() else { return };
    let all = [Loss::kl(), Loss::negative_binomial(2.0).unwrap(), Loss::euclidean()];
    for n in crate::common::gpu_cases(6) {
        let mut case = Case::new("CP, 3 modes", &[9, 15, 11], all[n % 3].clone(), 3);
        let mut random = Random::new(8);
        case.y.mapv_inplace(|x| if random.uniform() < 0.7 { 0.0 } else { x });
        let balance = BALANCES[n / 2];
        let run = |device: Option<&Device>| {
            let settings = on(&case, device).algorithm(Algorithm::Grouped);
            let settings = settings.penalty_on_all(Penalty::new(0.2, POWERS[n % 4]));
            let settings = settings.balance(balance).data_as(Format::Sparse);
            settings.max_iter(5).fit(observe(&case, n >= 3)).unwrap()
        };
        let (gpu, cpu) = (run(Some(&device)), run(None));
        assert!(!gpu.plan().sparse_passes().is_empty());
        let what = format!("{}, {balance:?}", case.loss.name());
        let factors = deviation(gpu.factors(), cpu.factors());
        assert!(factors < 2e-4, "{what}: {factors:.1e}");
        assert!(apart(&gpu, &cpu) < 1e-4, "{what}");
    }
}

/// Penalties are summed once, however many slabs of data there are.
#[test]
fn penalised_fits_whose_data_take_turns_agree() {
    let Some(device) = crate::common::gpu() else { return };
    let mut case = Case::new("CP, 3 modes", &[40, 50, 60], Loss::kl(), 3);
    case.y.mapv_inplace(|x| f64::from(x as f32 + 0.1));
    let run = |device: Option<&Device>| {
        let settings = on(&case, device).algorithm(Algorithm::Grouped);
        let settings = settings.penalty_on_all(Penalty::l1(0.5));
        settings.max_iter(3).fit(&case.y).unwrap()
    };
    let less = device.within_memory(4 * case.y.len() as u64 * 9 / 10);
    let (gpu, cpu) = (run(Some(&less)), run(None));
    let factors = deviation(gpu.factors(), cpu.factors());
    assert!(factors < 2e-4, "{factors:.1e}");
    assert!(apart(&gpu, &cpu) < 1e-4);
}

#[test]
fn a_penalised_fit_has_the_same_bits_each_time() {
    let Some(device) = crate::common::gpu() else { return };
    let case = Case::new("Tucker", &[9, 8, 7], Loss::kl(), 5);
    let run = || {
        let settings = on(&case, Some(&device)).penalty_on_all(Penalty::new(0.1, 1.5));
        let fit = settings.max_iter(15).fit(&case.y).unwrap();
        let all = fit.factors().iter().flatten().chain(&fit.history().loss);
        let bits = |all: Vec<f64>| all.into_iter().map(f64::to_bits).collect::<Vec<u64>>();
        bits(all.chain(&fit.history().penalty).copied().collect())
    };
    assert_eq!(run(), run());
}
