//! Fits to several tensors that share factors.

use crate::common::{Random, array_deviation, cpu_configurations, data, largest_rise, losses};
use ndarray::{Array2, ArrayD, Axis, concatenate};
use nneinfact::fit::{Balance, Checkpoint, Coupled, Every, Part, Smooth, Start};
use nneinfact::loss::Penalty;
use nneinfact::model::{Model, Shapes};
use nneinfact::reference::predict;
use nneinfact::{Algorithm, Device, Error, Loss, NNEinFact, Observations, Precision};

fn shapes(model: &str, sizes: &[usize], ranks: &[(char, usize)]) -> Shapes {
    Shapes::new(&Model::parse(model).unwrap(), sizes, ranks).unwrap()
}

#[test]
fn two_halves_of_a_matrix_are_the_whole() -> Result<(), Error> {
    let mut random = Random::new(61);
    for loss in losses() {
        if !loss.entry_parameters().is_empty() {
            continue;
        }
        let whole = shapes("ir,jr->ij", &[9, 11], &[('r', 3)]);
        let y = data(&mut random, &whole, &loss);
        let (left, right) = y.view().split_at(Axis(1), 6);
        let start = random.factors(&whole);
        let (top, bottom) = start[1].view().split_at(Axis(0), 6);
        let settings = |all: NNEinFact| {
            all.ranks([('r', 3)])
                .algorithm(Algorithm::Block)
                .device(Device::cpu())
                .precision(Precision::F64)
                .prediction_floor(1e-10)
                .tolerance(0.0)
                .max_iter(6)
        };
        let single = settings(NNEinFact::new("ir,jr->ij")?)
            .loss(loss.clone())
            .start(Start::Factors(start.clone()))
            .fit(&y)?;
        let parts = vec![start[0].clone(), top.to_owned(), bottom.to_owned()];
        let coupled = Coupled::new([
            Part::new("ir,jr->ij", &left)?.loss(loss.clone()),
            Part::new("ir,kr->ik", &right)?.loss(loss.clone()),
        ])
        .settings(move |all| settings(all).start(Start::Factors(parts)))
        .fit()?;
        let shared = array_deviation(coupled.factor("ir")?, &single.factors()[0]);
        let halves =
            concatenate![Axis(0), coupled.factor("jr")?.view(), coupled.factor("kr")?.view()];
        let other = array_deviation(&halves, &single.factors()[1]);
        assert!(shared < 1e-9 && other < 1e-9, "{}: {shared} {other}", loss.name());
        let found = coupled.history().last_loss();
        let expected = single.history().last_loss();
        assert!((found - expected).abs() < 1e-10 * expected.abs().max(1e-3), "{found} {expected}");
        // What the parts say of themselves adds up to it.
        let own: Vec<f64> = coupled.parts().iter().map(|part| part.history().last_loss()).collect();
        let mean = (54.0 * own[0] + 45.0 * own[1]) / 99.0;
        assert!((mean - found).abs() < 1e-9 * found.abs().max(1e-3), "{own:?} {found}");
    }
    Ok(())
}

#[test]
fn the_objective_of_different_losses_never_rises() -> Result<(), Error> {
    let mut random = Random::new(62);
    let all = losses();
    let plain: Vec<&Loss> = all.iter().filter(|loss| loss.entry_parameters().is_empty()).collect();
    for configuration in cpu_configurations() {
        for turn in 0..18 {
            let pick = |k: usize| plain[(5 * turn + k) % plain.len()].clone();
            let (first, second, third) = (pick(0), pick(7), pick(3));
            let a = data(&mut random, &shapes("ir,jr,kr->ijk", &[5, 4, 6], &[('r', 2)]), &first);
            let b = data(&mut random, &shapes("ir,qr->iq", &[5, 7], &[('r', 2)]), &second);
            let c =
                data(&mut random, &shapes("jr,ps,rs->jp", &[4, 3], &[('r', 2), ('s', 2)]), &third);
            let seen = random.mask(b.shape(), 0.7);
            let algorithm =
                [Algorithm::Block, Algorithm::Grouped, Algorithm::Accelerated][turn % 3];
            let precision = configuration.precision;
            let penalty = [None, Some(Penalty::l1(0.2)), Some(Penalty::l2(0.1))][turn / 3 % 3];
            let fit = Coupled::new([
                Part::new("ir,jr,kr->ijk", &a)?.loss(first.clone()),
                Part::new("ir,qr->iq", Observations::new(&b).mask(&seen)?)?
                    .loss(second.clone())
                    .weight(2.5),
                Part::new("jr,ps,rs->jp", &c)?.loss(third.clone()).weight(0.3),
            ])
            .settings(move |all| {
                let all = all
                    .ranks([('r', 2), ('s', 2)])
                    .algorithm(algorithm)
                    .device(Device::cpu())
                    .precision(precision)
                    .seed(turn as u64)
                    .tolerance(0.0)
                    .inner_cycles(1 + turn % 2)
                    .max_iter(15);
                match penalty {
                    Some(penalty) => all.penalty_on_all(penalty).balance(Balance::EverySweep),
                    None => all,
                }
            })
            .fit()?;
            let objective = fit.history().objective();
            let rise = largest_rise(&objective, 1.0);
            assert!(
                rise <= configuration.rise,
                "{}, {}, {}, {}: {rise} {objective:?}",
                configuration.name,
                first.name(),
                second.name(),
                third.name()
            );
            assert!(objective.last() < objective.first());
        }
    }
    Ok(())
}

#[test]
fn what_is_mostly_missing_is_found_with_the_help_of_another_tensor() -> Result<(), Error> {
    let (mut together, mut alone) = (0.0, 0.0);
    for seed in 0..4 {
        let mut random = Random::new(70 + seed);
        let truth = shapes("ir,jr->ij", &[40, 30], &[('r', 3)]);
        let factors = random.factors(&truth).into_iter().map(|f| f.mapv(|x| x * x * x));
        let factors: Vec<ArrayD<f64>> = factors.collect();
        let y = predict(&truth, &factors);
        let other = random.tensor(&[25, 3], 0.0, 1.0).mapv(|x| x * x);
        let traits =
            predict(&shapes("ir,kr->ik", &[40, 25], &[('r', 3)]), &[factors[0].clone(), other]);
        // About two cells of a row are known, fewer than there are numbers to find in it.
        let seen = random.mask(&[40, 30], 0.07);
        let known = Observations::new(&y).mask(&seen)?;
        let error = |found: &ArrayD<f64>| {
            let unseen = found.iter().zip(&y).zip(&seen).filter(|(_, seen)| !**seen);
            unseen.map(|((f, y), _)| (f - y).abs()).sum::<f64>() / y.sum()
        };
        let settings = move |all: NNEinFact| {
            all.ranks([('r', 3)]).seed(seed).device(Device::cpu()).max_iter(300)
        };
        let single = settings(NNEinFact::new("ir,jr->ij")?).fit(&known)?;
        let coupled =
            Coupled::new([Part::new("ir,jr->ij", &known)?, Part::new("ir,kr->ik", &traits)?])
                .settings(settings)
                .fit()?;
        alone += error(&single.reconstruct()?);
        together += error(&coupled.parts()[0].reconstruct()?);
    }
    assert!(together < 0.5 * alone, "{together} with the other tensor, {alone} without");
    Ok(())
}

#[test]
fn a_gpu_and_the_cpu_agree() -> Result<(), Error> {
    let Some(gpu) = crate::common::gpu() else { return Ok(()) };
    let mut random = Random::new(63);
    for (first, second, penalty) in [
        (Loss::kl(), Loss::kl(), 0.0),
        (Loss::euclidean(), Loss::kl(), 0.0),
        (Loss::reverse_kl(), Loss::neyman(), 0.0),
        (Loss::kl(), Loss::kl(), 0.1),
        (Loss::euclidean(), Loss::kl(), 0.1),
    ] {
        let a = data(&mut random, &shapes("ir,jr,kr->ijk", &[6, 5, 4], &[('r', 2)]), &first);
        let b = data(&mut random, &shapes("ir,qr->iq", &[6, 7], &[('r', 2)]), &second);
        // Far from the usual size, so that both have units of their own.
        let (a, b) = match penalty {
            0.0 => (a * 1e6, b * 1e-6),
            _ => (a * 1e5, b * 1e5),
        };
        let run = |device: Device, precision| {
            Coupled::new([
                Part::new("ir,jr,kr->ijk", &a)?.loss(first.clone()),
                Part::new("ir,qr->iq", &b)?.loss(second.clone()).weight(3.0),
            ])
            .settings(move |all| {
                let all = all
                    .ranks([('r', 2)])
                    .algorithm(Algorithm::Block)
                    .device(device)
                    .precision(precision)
                    .seed(5)
                    .tolerance(0.0)
                    .max_iter(5);
                if penalty == 0.0 { all } else { all.penalty_on_all(Penalty::l2(penalty)) }
            })
            .fit()
        };
        let expected = run(Device::cpu(), Precision::F64)?;
        let found = run(gpu.clone(), Precision::F32)?;
        let what = format!("{}, {}, {penalty}", first.name(), second.name());
        for (found, expected) in found.factors().iter().zip(expected.factors()) {
            let apart = array_deviation(found, expected);
            assert!(apart < 2e-4, "{what}: {apart}");
        }
        let (found, expected) = (found.history().objective(), expected.history().objective());
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found - expected).abs() < 2e-4 * expected.abs(), "{what}: {found} {expected}");
        }
    }
    Ok(())
}

/// Two tensors that share their first factor, `ir,jr->ij` and `ir,kr->ik`.
fn pair(random: &mut Random) -> (ArrayD<f64>, ArrayD<f64>) {
    let first = data(random, &shapes("ir,jr->ij", &[8, 9], &[('r', 2)]), &Loss::kl());
    let second = data(random, &shapes("ir,kr->ik", &[8, 7], &[('r', 2)]), &Loss::euclidean());
    (first, second)
}

#[test]
fn balancing_goes_over_all_tensors_and_changes_none() -> Result<(), Error> {
    let mut random = Random::new(65);
    let (first, second) = pair(&mut random);
    let mut start = random.factors(&shapes("ir,jr,kr->ijk", &[8, 9, 7], &[('r', 2)]));
    start[0] *= 30.0;
    start[2] *= 0.2;
    let ridge = Penalty::l2(0.2);
    let run = |balance, max_iter| {
        let start = start.clone();
        Coupled::new([
            Part::new("ir,jr->ij", &first)?,
            Part::new("ir,kr->ik", &second)?.loss(Loss::euclidean()),
        ])
        .settings(move |all| {
            all.ranks([('r', 2)])
                .algorithm(Algorithm::Block)
                .device(Device::cpu())
                .precision(Precision::F64)
                .start(Start::Factors(start))
                .penalty_on_all(ridge)
                .balance(balance)
                .tolerance(0.0)
                .max_iter(max_iter)
        })
        .fit()
    };
    // p μ g of the shared factor is as much as that of the others together.
    let fit = run(Balance::EverySweep, 10)?;
    let norms = |name: &str| -> Result<ndarray::Array1<f64>, Error> {
        let squares = fit.factor(name)?.mapv(|x| x * x).sum_axis(Axis(0));
        Ok(squares.into_dimensionality().unwrap())
    };
    let (shared, others) = (norms("ir")?, norms("jr")? + norms("kr")?);
    for (x, y) in shared.iter().zip(&others) {
        assert!((x - y).abs() < 1e-9 * x, "{shared} {others}");
    }
    let last = |fit: &nneinfact::fit::CoupledFit| *fit.history().objective().last().unwrap();

    // At the start it leaves every ŷ as it was, but for the one scale of all factors.
    let (given, balanced) = (run(Balance::Never, 0)?, run(Balance::AtStart, 0)?);
    assert!(last(&balanced) < 0.5 * last(&given));
    let ratio = |t: usize| -> Result<ArrayD<f64>, Error> {
        Ok(balanced.parts()[t].reconstruct()? / given.parts()[t].reconstruct()?)
    };
    let one = ratio(0)?[[0, 0]];
    for t in 0..2 {
        assert!(ratio(t)?.iter().all(|r| (r - one).abs() < 1e-12 * one), "{}", ratio(t)?);
    }
    Ok(())
}

#[test]
fn a_coupled_start_is_at_its_best_scale() -> Result<(), Error> {
    let mut random = Random::new(66);
    let (first, second) = pair(&mut random);
    let start = random.factors(&shapes("ir,jr,kr->ijk", &[8, 9, 7], &[('r', 2)]));
    // Losses of which the scale follows from one pass, and one that needs several.
    for other in [Loss::euclidean(), Loss::jensen_shannon(), Loss::negative_binomial(2.0)?] {
        let run = |base: Loss, start: Vec<ArrayD<f64>>, balance, weight| {
            Coupled::new([
                Part::new("ir,jr->ij", &first)?.loss(base),
                Part::new("ir,kr->ik", &second)?.loss(other.clone()).weight(2.0),
            ])
            .settings(move |all| {
                all.ranks([('r', 2)])
                    .device(Device::cpu())
                    .precision(Precision::F64)
                    .start(Start::Factors(start))
                    .penalty_on_all(Penalty::l2(weight))
                    .balance(balance)
                    .max_iter(0)
            })
            .fit()
        };
        let objective = |fit: &nneinfact::fit::CoupledFit| fit.history().objective()[0];
        for by in [1.0, 100.0] {
            let given: Vec<ArrayD<f64>> = start.iter().map(|f| f * by).collect();
            let best = run(Loss::kl(), given, Balance::AtStart, 0.3)?;
            assert!(best.warnings().is_empty(), "{:?}", best.warnings());
            for scale in [0.5, 0.9, 0.97, 1.03, 1.1, 2.0] {
                let moved = best.factors().iter().map(|f| f * scale).collect();
                let moved = objective(&run(Loss::kl(), moved, Balance::Never, 0.3)?);
                let least = objective(&best);
                assert!(moved > least, "{} {by}: {scale}: {moved} {least}", other.name());
            }
        }
        // Where a datum above zero has an infinite loss at zero, as under KL, zero is never best.
        if other.name().starts_with("negative-binomial") {
            continue;
        }
        let told = run(Loss::euclidean(), start.clone(), Balance::AtStart, 1e6)?;
        let zero = |warning: &String| warning.contains("zero everywhere");
        assert!(told.warnings().iter().any(zero), "{}: {:?}", other.name(), told.warnings());
    }
    Ok(())
}

#[test]
fn penalties_that_are_void_together_are_told() -> Result<(), Error> {
    let mut random = Random::new(67);
    let (first, second) = pair(&mut random);
    let warnings = |penalised: &'static [&'static str]| -> Result<Vec<String>, Error> {
        let fit = Coupled::new([
            Part::new("ir,jr->ij", &first)?,
            Part::new("ir,kr->ik", &second)?.loss(Loss::euclidean()),
        ])
        .settings(move |all| {
            let all = all.ranks([('r', 2)]).device(Device::cpu()).max_iter(1);
            penalised.iter().fold(all, |all, name| all.penalty(name, Penalty::l1(0.1)))
        })
        .fit()?;
        Ok(fit.warnings().to_vec())
    };
    // What the shared factor loses both others get.
    let [told] = &warnings(&["ir"])?[..] else { panic!("one warning") };
    assert!(told.contains("factor 1 (ir) is void") && told.contains("2 (jr), 3 (kr)"), "{told}");
    let [told] = &warnings(&["jr"])?[..] else { panic!("one warning") };
    assert!(told.contains("factor 2 (jr) is void") && told.contains("1 (ir)"), "{told}");
    let [told] = &warnings(&["jr", "kr"])?[..] else { panic!("one warning") };
    assert!(told.contains("2 (jr), 3 (kr) is void"), "{told}");
    // The third factor has no penalty, but cannot take scale from both of the others.
    assert_eq!(warnings(&["ir", "jr"])?, Vec::<String>::new());
    assert_eq!(warnings(&["ir", "jr", "kr"])?, Vec::<String>::new());
    Ok(())
}

#[test]
fn a_fixed_factor_is_shared_too() -> Result<(), Error> {
    let mut random = Random::new(64);
    let factors = random.factors(&shapes("ir,jr->ij", &[6, 5], &[('r', 2)]));
    let y = predict(&shapes("ir,jr->ij", &[6, 5], &[('r', 2)]), &factors);
    let known = factors[0].clone();
    let fit = Coupled::new([Part::new("ir,jr->ij", &y)?, Part::new("ir,kr->ik", &y)?])
        .settings(move |all| {
            all.ranks([('r', 2)]).device(Device::cpu()).fix("ir", known).max_iter(200)
        })
        .fit()?;
    assert_eq!(fit.factor("ir")?, &factors[0]);
    assert!(array_deviation(fit.factor("kr")?, &factors[1]) < 0.05);
    Ok(())
}

#[test]
fn coupled_fits_have_several_starts_and_go_on_to_the_same_bits() -> Result<(), Error> {
    let mut random = Random::new(77);
    let (a, b) = pair(&mut random);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("both.npz");
    let (width, other) = (a.shape()[1], b.shape()[1]);
    let coupled =
        |sweeps: usize, more: &dyn Fn(NNEinFact) -> NNEinFact| -> Result<Coupled, Error> {
            let settings = NNEinFact::new("ir,jr->ij")?
                .ranks([('r', 2)])
                .device(Device::cpu())
                .precision(Precision::F64)
                .penalty_on_all(Penalty::l2(0.01))
                .starts(3)
                .kkt_residual(true)
                .tolerance(0.0)
                .max_iter(sweeps);
            Ok(Coupled::new([
                Part::new("ir,jr->ij", &a)?,
                Part::new("ir,kr->ik", &b)?.loss(Loss::euclidean()).weight(0.5),
            ])
            .with_settings(more(settings)))
        };
    let whole = coupled(40, &|all| all)?.fit()?;
    assert!(width > 0 && other > 0);
    // The best of three is no worse than the first.
    let first = coupled(40, &|all| all.starts(1))?.fit()?;
    let trial = |fit: &nneinfact::fit::CoupledFit| fit.history().objective()[10];
    assert!(trial(&whole) <= trial(&first) * (1.0 + 1e-9));
    assert!(whole.history().kkt_residual.is_some_and(|x| x.is_finite() && x < 0.5));
    let long = coupled(4000, &|all| all)?.fit()?;
    assert!(long.history().kkt_residual < whole.history().kkt_residual);
    coupled(13, &|all| all.checkpoint(&path, Every::sweeps(1)))?.fit()?;
    let checkpoint = Checkpoint::read(&path)?;
    let on = coupled(40, &|all| all.resume(checkpoint.clone()))?.fit()?;
    assert_eq!(on.factors(), whole.factors());
    assert_eq!(on.history().loss, whole.history().loss);
    assert_eq!(on.history().seed, whole.history().seed);
    let other =
        coupled(40, &|all| all.penalty_on_all(Penalty::l2(0.02)).resume(checkpoint.clone()))?;
    assert!(other.fit().expect_err("another fit").to_string().contains("l2=0.02"));
    Ok(())
}

#[test]
fn a_factor_of_several_tensors_may_be_tied_and_smooth() -> Result<(), Error> {
    let mut random = Random::new(78);
    let all = losses();
    for turn in 0..6 {
        let loss = all[turn].clone();
        let y = data(&mut random, &shapes("ir,jr->ij", &[6, 6], &[('r', 2)]), &loss);
        let z = data(&mut random, &shapes("ir,kr->ik", &[6, 5], &[('r', 2)]), &Loss::kl());
        let fit = Coupled::new([
            Part::new("ir,jr->ij", &y)?.loss(loss.clone()),
            Part::new("ir,kr->ik", &z)?.weight(0.7),
        ])
        .settings(|all| {
            all.ranks([('r', 2)])
                .device(Device::cpu())
                .precision(Precision::F64)
                .tie(["ir", "jr"])
                .smooth("ir", Smooth::line(0.2))
                .simplex("kr", Some("k"))
                .prediction_floor(1e-6)
                .tolerance(0.0)
                .max_iter(15)
        })
        .fit()?;
        assert_eq!(fit.factor("ir")?, fit.factor("jr")?, "{}", loss.name());
        let objective = fit.history().objective();
        assert!(largest_rise(&objective, 1e-3) <= 1e-9, "{}: {objective:?}", loss.name());
        assert!(objective[15] < objective[0]);
        assert_eq!(fit.structure().len(), 3);
    }
    Ok(())
}

#[test]
fn what_cannot_be_is_refused() {
    let y = Array2::from_elem((4, 5), 1.0);
    let z = Array2::from_elem((6, 5), 1.0);
    let part = |model: &str, y: &Array2<f64>| Part::new(model, y).unwrap();
    let two = |a: Part, b: Part| {
        Coupled::new([a, b])
            .settings(|all| all.ranks([('r', 2)]).device(Device::cpu()))
            .fit()
            .unwrap_err()
            .to_string()
    };
    let given = vec![ArrayD::ones(vec![4, 2]), ArrayD::ones(vec![5, 2]), ArrayD::ones(vec![5, 2])];
    let starts = Coupled::new([part("ir,jr->ij", &y), part("ir,kr->ik", &y)]).settings(|all| {
        let all = all.ranks([('r', 2)]).device(Device::cpu()).starts(3);
        all.start(Start::Factors(given))
    });
    let cases = [
        (starts.fit().unwrap_err().to_string(), "3 starts were asked for"),
        (two(part("ir,jr->ij", &y), part("ir,kr->ik", &z)), "the index i has size 4"),
        (two(part("ir,jr->ij", &y), part("ir,kr->ik", &y).weight(0.0)), "weight of tensor 2"),
        (two(part("ir,jr->ij", &y), part("is,ks->ik", &y)), "latent index s"),
        (Coupled::new([]).fit().unwrap_err().to_string(), "at least one tensor"),
        (
            Coupled::new([part("ir,jr->ij", &y)])
                .settings(|all| all.ranks([('r', 2), ('q', 3)]).device(Device::cpu()))
                .fit()
                .unwrap_err()
                .to_string(),
            "the index q",
        ),
        (
            Coupled::new([part("ir,jr->ij", &(-1.0 * &y))])
                .settings(|all| all.ranks([('r', 2)]).device(Device::cpu()))
                .fit()
                .unwrap_err()
                .to_string(),
            "outside the domain",
        ),
    ];
    for (found, expected) in cases {
        assert!(found.contains(expected), "{found} does not say {expected}");
    }
}
