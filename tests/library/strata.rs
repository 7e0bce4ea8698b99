//! Splits by strata: what is withheld, that the factors are fitted to all other entries and no others, and
//! that what is reported estimates the mean over all of them.

use std::collections::BTreeSet;

use ndarray::{Array2, ArrayD, IxDyn};
use nneinfact::compare::{Study, StudyModel};
use nneinfact::data::{CooTensor, Implicit, Prepared, Role, SplitKind, uniform_u32};
use nneinfact::fit::{Format, Saved, Start};
use nneinfact::reference::{Problem, predict};
use nneinfact::report::Residuals;
use nneinfact::{Algorithm, Loss, NNEinFact, Observations};

use crate::common::{Case, Random, configurations, data, deviation, entry, losses, settings};

/// The entries that are not 0.
fn list(y: &ArrayD<f64>) -> CooTensor {
    let stored: Vec<_> = y.indexed_iter().filter(|&(_, &x)| x != 0.0).collect();
    let mode = |m: usize| stored.iter().map(|(at, _)| at[m] as u64).collect();
    let indices: Vec<Vec<u64>> = (0..y.ndim()).map(mode).collect();
    let values: Vec<f64> = stored.iter().map(|(_, x)| **x).collect();
    CooTensor::new(y.shape(), &indices, &values).expect("a list")
}

/// Data of which about so large a part is not 0.
fn mostly_zeros(shape: &[usize], loss: &Loss, part: f64, seed: u64) -> ArrayD<f64> {
    let mut random = Random::new(seed);
    let shapes = entry("CP, 3 modes").shapes(shape);
    let mut y = data(&mut random, &shapes, loss);
    y.mapv_inplace(|x| if random.uniform() < part { f64::from(x as f32) } else { 0.0 });
    y
}

/// The weight of every entry in the loss of a role.
fn weights(prepared: &Prepared, role: Role) -> ArrayD<f64> {
    let stored = prepared.stored(Implicit::Zeros);
    let other = if role == Role::Train { 1.0 } else { 0.0 };
    let mut weights = ArrayD::from_elem(IxDyn(prepared.shape()), other);
    for (i, at) in indices(stored.entries()).enumerate() {
        weights[IxDyn(&at)] = if stored.role(i) == role { stored.weight(i) } else { 0.0 };
    }
    weights
}

fn indices(list: &CooTensor) -> impl Iterator<Item = Vec<usize>> {
    let index =
        |i: usize| move |mode: &_| nneinfact::data::Indices::get(mode, i).unwrap_or(0) as usize;
    (0..list.len()).map(move |i| list.indices().iter().map(index(i)).collect())
}

fn by_strata(y: &ArrayD<f64>, seed: u64) -> Observations {
    let data = Observations::new(list(y)).split_as(SplitKind::Strata);
    data.held_out(0.25, seed).unwrap().validation(0.2, seed).unwrap()
}

#[test]
fn fits_are_those_to_dense_data_with_these_entries_masked() {
    let mut wrong = Vec::new();
    for configuration in configurations() {
        let on_gpu = configuration.name == "gpu";
        // Where zeros are summed in closed form, ŷ is not clamped there.
        let floor = if configuration.tolerance < 1e-6 { 1e-12 } else { Case::FLOOR };
        for (n, loss) in losses().into_iter().filter(Loss::accepts_zeros).enumerate() {
            // Software drivers take long to compile for each.
            if on_gpu && n % 3 != 0 {
                continue;
            }
            let shape = [7, 6 + n % 3, 5];
            let shapes = entry(["CP, 3 modes", "Tucker", "tensor train"][n % 3]).shapes(&shape);
            let y = mostly_zeros(&shape, &loss, 0.4, 11 + n as u64);
            let start = Random::new(n as u64).factors(&shapes);
            let ratio = [1.0, 0.4, 2.0][n % 3];
            let data = by_strata(&y, n as u64).zeros_per_nonzero(ratio).unwrap();
            let prepared = data.prepare().unwrap();
            let [train, validation, held_out] =
                [Role::Train, Role::Validation, Role::HeldOut].map(|role| weights(&prepared, role));
            assert!(held_out.iter().any(|&w| w != 0.0 && w != 1.0), "no zero is drawn");

            let problem = |weights| Problem {
                shapes: &shapes,
                loss: &loss,
                y: &y,
                weights: Some(weights),
                floor,
            };
            let mut expected = start.clone();
            let mut told = [&train, &validation, &held_out].map(|w| vec![problem(w).loss(&start)]);
            for _ in 0..4 {
                problem(&train).sweep(&mut expected);
                for (to, w) in told.iter_mut().zip([&train, &validation, &held_out]) {
                    to.push(problem(w).loss(&expected));
                }
            }
            for data_as in
                [Format::Sparse, Format::Dense].into_iter().take(if on_gpu { 1 } else { 2 })
            {
                let fit = settings(&shapes)
                    .loss(loss.clone())
                    .device(configuration.device.clone())
                    .precision(configuration.precision)
                    .start(Start::Factors(start.clone()))
                    .prediction_floor(floor)
                    .algorithm(Algorithm::Block)
                    .data_as(data_as)
                    .tolerance(0.0)
                    .max_iter(4)
                    .fit(&data)
                    .unwrap();
                let history = fit.history();
                assert_eq!(history.heldout_as, Some(SplitKind::Strata));
                let apart = deviation(fit.factors(), &expected);
                let found = [&history.loss, &history.validation_loss, &history.heldout_loss];
                let lost = found.into_iter().zip(&told).map(|(found, told)| {
                    let scale = told.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
                    let apart = found.iter().zip(told).map(|(f, t)| (f - t).abs() / scale);
                    assert_eq!(found.len(), told.len());
                    apart.fold(0.0, f64::max)
                });
                let lost = lost.fold(0.0, f64::max);
                if !(apart <= configuration.tolerance && lost <= configuration.tolerance) {
                    let (name, loss) = (configuration.name, loss.name());
                    wrong.push(format!(
                        "{name}, {loss}, {data_as:?}: factors {apart:.1e}, losses {lost:.1e} apart"
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Σ ℓ and Σ (ℓ − mean)² / (n − 1), and n.
fn moments(losses: &[f64]) -> (f64, f64, f64) {
    let (n, sum) = (losses.len() as f64, losses.iter().sum::<f64>());
    let spread = losses.iter().map(|x| (x - sum / n).powi(2)).sum::<f64>();
    (sum, spread / (n - 1.0), n)
}

#[test]
fn reported_losses_estimate_the_mean_over_all_entries() {
    let loss = Loss::kl();
    let shape = [9, 8, 7];
    // Few stored entries: zeros are drawn; and many: they are chosen from all.
    for (part, ratio) in [(0.08, 1.0), (0.08, 3.0), (0.35, 1.0)] {
        let y = mostly_zeros(&shape, &loss, part, 5);
        let shapes = entry("CP, 3 modes").shapes(&shape);
        let factors = Random::new(3).factors(&shapes);
        let ell = ndarray::Zip::from(&y)
            .and(&predict(&shapes, &factors))
            .map_collect(|&x, &yhat| loss.eval_loss(x, yhat, &[]));
        let of = |stored: bool| -> Vec<f64> {
            y.iter().zip(&ell).filter(|(x, _)| (**x != 0.0) == stored).map(|(_, l)| *l).collect()
        };
        let (stored_sum, stored_spread, stored) = moments(&of(true));
        let (zero_sum, zero_spread, zeros) = moments(&of(false));
        let truth = (stored_sum + zero_sum) / (stored + zeros);

        let seeds = 3000;
        for role in [Role::HeldOut, Role::Validation] {
            let (mut error, mut squares, mut variance) = (0.0, 0.0, 0.0);
            for seed in 0..seeds {
                let data = by_strata(&y, seed).zeros_per_nonzero(ratio).unwrap();
                let prepared = data.prepare().unwrap();
                let drawn = prepared.strata().unwrap().of(role).unwrap();
                if drawn.stored == 0 {
                    continue;
                }
                let weights = weights(&prepared, role);
                let estimate = (&weights * &ell).sum() / weights.sum();
                assert!((weights.sum() - prepared.portion(role).weight).abs() < 1e-9);
                // Drawing without replacement, so many of each stratum.
                let part = |spread: f64, all: f64, n: u64| {
                    let n = n as f64;
                    (all / (stored + zeros)).powi(2) * (1.0 - n / all) * spread / n
                };
                let expected = part(stored_spread, stored, drawn.stored)
                    + part(zero_spread, zeros, drawn.zeros);
                error += estimate - truth;
                squares += (estimate - truth).powi(2) / expected;
                variance += expected;
            }
            let z = error / variance.sqrt();
            assert!(z.abs() < 4.0, "{role:?}, {part}, {ratio}: biased, z = {z}");
            // The mean of as many squares of unit variance, whose fourth moments are below 4.
            let mean = squares / seeds as f64;
            let z = (mean - 1.0) / (3.0 / seeds as f64).sqrt();
            assert!(z.abs() < 4.0, "{role:?}, {part}, {ratio}: variance {mean} of the predicted");
        }
    }
}

#[test]
fn a_fit_reports_this_estimate() {
    let loss = Loss::kl();
    let y = mostly_zeros(&[9, 8, 7], &loss, 0.1, 5);
    let shapes = entry("CP, 3 modes").shapes(&[9, 8, 7]);
    let factors = Random::new(3).factors(&shapes);
    let data = by_strata(&y, 1);
    let prepared = data.prepare().unwrap();
    let fit = settings(&shapes)
        .data_as(Format::Sparse)
        .start(Start::Factors(factors.clone()))
        .max_iter(0)
        .fit(&data)
        .unwrap();
    let yhat = predict(&shapes, &factors);
    for (role, told) in [
        (Role::HeldOut, fit.history().heldout_loss[0]),
        (Role::Validation, fit.history().validation_loss[0]),
    ] {
        let (mut sum, mut weight) = (0.0, 0.0);
        for (at, &w) in weights(&prepared, role).indexed_iter() {
            sum += w * loss.eval_loss(y[&at], yhat[&at], &[]);
            weight += w;
        }
        assert!((told - sum / weight).abs() < 1e-9 * told.abs(), "{role:?}: {told}");
    }
    // What a page sums up along the modes is the same.
    let saved = Saved::new(&fit).with_loss(nneinfact::fit::LossRecord::of("kl"));
    let residuals = Residuals::new(&saved, &data, Some(&loss)).unwrap();
    let page = residuals.by_role().iter().find(|part| part.role == Role::HeldOut).unwrap();
    let told = fit.history().heldout_loss[0];
    assert!((page.all.mean_loss() - told).abs() < 1e-9 * told.abs());
}

/// A list of entries all over a tensor of 10¹² entries.
fn vast(entries: usize) -> (Vec<Vec<u64>>, Vec<f64>) {
    let index = |mode: u32| (0..entries).map(move |i| uniform_u32(5, mode, i as u64 / 2 * 2));
    let place = |mode: u32| index(mode).map(|x| u64::from(x % 10_000)).collect();
    // Every index twice: duplicates are added up.
    ((0..3).map(place).collect(), (0..entries).map(|i| 1.0 + (i % 4) as f64).collect())
}

#[test]
fn what_is_withheld_depends_on_seed_and_entries_only() {
    let shape = [10_000; 3];
    let (indices, values) = vast(4000);
    let prepare = |indices: &[Vec<u64>], values: &[f64], seed: u64| {
        let list = CooTensor::new(&shape, indices, values).unwrap();
        let data = Observations::new(list).held_out(0.1, seed).unwrap().validation(0.1, seed);
        data.unwrap().prepare().unwrap()
    };
    let first = prepare(&indices, &values, 3);
    assert_eq!(first.split_kind(), Some(SplitKind::Strata));
    // The other way round, and by one thread.
    let turned: Vec<Vec<u64>> =
        indices.iter().map(|mode| mode.iter().rev().copied().collect()).collect();
    let back: Vec<f64> = values.iter().rev().copied().collect();
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let second = one.install(|| prepare(&turned, &back, 3));
    assert_eq!(first.fingerprint(), second.fingerprint());
    assert_eq!(first.stored(Implicit::Zeros), second.stored(Implicit::Zeros));
    assert_ne!(first.fingerprint(), prepare(&indices, &values, 4).fingerprint());

    let strata = first.strata().unwrap();
    assert_eq!((strata.stored, strata.zeros), (2000, 1e12 - 2000.0));
    let stored = first.stored(Implicit::Zeros);
    let given = CooTensor::new(&shape, &indices, &values).unwrap();
    let given: BTreeSet<Vec<usize>> = self::indices(&given).collect();
    let mut zeros = 0;
    for (i, at) in self::indices(stored.entries()).enumerate() {
        let drawn = stored.weight(i) != 1.0;
        assert_eq!(drawn, !given.contains(&at), "{at:?}");
        if drawn {
            assert!(stored.entries().values().get(i) == Some(0.0) && stored.role(i) != Role::Train);
            zeros += 1;
        }
    }
    assert_eq!(zeros, strata.held_out.zeros + strata.validation.zeros);
    assert_eq!(stored.entries().len() as u64, 2000 + zeros);
    // About a tenth, and a tenth of the rest.
    let near =
        |n: u64, p: f64| (n as f64 - 2000.0 * p).abs() < 4.0 * (2000.0 * p * (1.0 - p)).sqrt();
    assert!(near(strata.held_out.stored, 0.1) && near(strata.validation.stored, 0.09));
    assert_eq!(strata.held_out.zeros, strata.held_out.stored);
}

#[test]
fn stored_entries_are_withheld_as_cells_are() {
    let y = mostly_zeros(&[9, 8, 7], &Loss::kl(), 0.3, 5);
    let split = |kind| {
        let data = Observations::new(list(&y)).split_as(kind);
        data.held_out(0.25, 3).unwrap().validation(0.2, 3).unwrap().prepare().unwrap()
    };
    let (cells, strata) = (split(SplitKind::Cells), split(SplitKind::Strata));
    assert!(cells.strata().is_none() && cells.split_kind() == Some(SplitKind::Cells));
    let (all, stored) = (cells.stored(Implicit::Zeros), strata.stored(Implicit::Zeros));
    let roles = |stored: &nneinfact::data::StoredEntries| -> Vec<(Vec<usize>, Role)> {
        let nonzero = |&(i, _): &(usize, Vec<usize>)| stored.entries().values().get(i) != Some(0.0);
        let found = self::indices(stored.entries()).enumerate().filter(nonzero);
        found.map(|(i, at)| (at, stored.role(i))).collect()
    };
    assert_eq!(roles(&all), roles(&stored));
}

#[test]
fn vast_lists_are_fitted_with_some_of_them_held_out() {
    let (indices, values) = vast(4000);
    let list = CooTensor::new(&[10_000; 3], &indices, &values).unwrap();
    let data = Observations::new(list).held_out(0.1, 1).unwrap().validation(0.1, 1).unwrap();
    let fit = NNEinFact::new("ir,jr,kr->ijk")
        .unwrap()
        .ranks([('r', 2)])
        .max_iter(3)
        .early_stopping(true)
        .fit(&data)
        .unwrap();
    let history = fit.history();
    assert_eq!(history.heldout_as, Some(SplitKind::Strata));
    assert!(history.heldout_loss.len() == 4 && history.validation_loss.len() == 4);
    assert!(history.heldout_loss.iter().all(|loss| loss.is_finite() && *loss > 0.0));
    // Another algorithm for the same data, from the same prepared observations.
    let prepared = data.prepare().unwrap();
    let euclidean = NNEinFact::new("ir,jr,kr->ijk").unwrap().ranks([('r', 2)]);
    let euclidean = euclidean.loss(Loss::euclidean()).max_iter(2).fit_prepared(&prepared).unwrap();
    assert!(euclidean.history().heldout_loss.iter().all(|loss| loss.is_finite()));
}

#[test]
fn other_ways_to_withhold_go_along() {
    let y = mostly_zeros(&[9, 8, 7], &Loss::kl(), 0.3, 5);
    let at = |entries: &[[u64; 3]]| {
        let mode = |m: usize| entries.iter().map(|at| at[m]).collect();
        let indices: Vec<Vec<u64>> = (0..3).map(mode).collect();
        CooTensor::new(&[9, 8, 7], &indices, &vec![1.0; entries.len()]).unwrap()
    };
    let gone: Vec<[u64; 3]> = (0..7).map(|k| [2, 3, k]).collect();
    let out: Vec<[u64; 3]> = (0..7).map(|k| [4, 1, k]).collect();
    let observed = y.clone().mapv(|_| true);
    let mask = {
        let mut mask = observed.clone();
        gone.iter().for_each(|at| mask[at.map(|i| i as usize)] = false);
        mask
    };
    let lists = by_strata(&y, 2).missing_at(at(&gone)).unwrap().held_out_at(at(&out)).unwrap();
    let lists = lists.prepare().unwrap();
    let held_out = {
        let mut held_out = observed.mapv(|_| false);
        out.iter().for_each(|at| held_out[at.map(|i| i as usize)] = true);
        held_out
    };
    let masks = by_strata(&y, 2).mask(&mask).unwrap().held_out_mask(&held_out).unwrap();
    let weighted = by_strata(&y, 2).weights(mask.mapv(u8::from)).unwrap();
    let weighted = weighted.held_out_mask(&held_out).unwrap();
    for other in [masks, weighted] {
        assert_eq!(other.prepare().unwrap().fingerprint(), lists.fingerprint());
    }
    let [train, missing] = [Role::Train, Role::Missing].map(|role| lists.count(role));
    assert_eq!(missing, 7);
    let strata = lists.strata().unwrap();
    // What a list withholds has weight 1, and is not what the strata draw from.
    let listed = gone.len() + out.len();
    assert_eq!(strata.stored as f64 + strata.zeros, (504 - listed) as f64);
    let drawn = strata.held_out.stored + strata.held_out.zeros;
    assert_eq!(lists.count(Role::HeldOut), 7 + drawn);
    assert_eq!(train + missing + lists.count(Role::HeldOut) + lists.count(Role::Validation), 504);
    for role in [Role::HeldOut, Role::Validation] {
        assert!((weights(&lists, role).sum() - lists.portion(role).weight).abs() < 1e-9);
    }

    // Where implicit entries are missing, there are no zeros to draw.
    let missing = by_strata(&y, 2).unlisted_missing().prepare().unwrap();
    let cells = by_strata(&y, 2).unlisted_missing().split_as(SplitKind::Cells).prepare().unwrap();
    assert!(missing.strata().is_none() && missing.split_kind() == Some(SplitKind::Strata));
    assert_eq!(missing.fingerprint(), cells.fingerprint());
}

#[test]
fn extreme_fractions() {
    let y = mostly_zeros(&[6, 5, 4], &Loss::kl(), 0.4, 5);
    let settings = || {
        NNEinFact::new("ir,jr,kr->ijk")
            .unwrap()
            .ranks([('r', 2)])
            .data_as(Format::Sparse)
            .max_iter(3)
    };
    let data = |fraction: f64| {
        let data = Observations::new(list(&y)).split_as(SplitKind::Strata);
        data.held_out(fraction, 1).unwrap()
    };
    // Nearly nothing is held out; nearly all stored entries are, with all zeros that there are.
    for fraction in [1e-9, 0.02, 0.9] {
        let data = data(fraction).zeros_per_nonzero(1e6).unwrap();
        let prepared = data.prepare().unwrap();
        let strata = *prepared.strata().unwrap();
        let share = strata.held_out.zeros as f64 / strata.zeros;
        assert!(share <= fraction + 1.0 / strata.zeros, "{fraction}: {strata:?}");
        let fit = settings().fit(&data).unwrap();
        assert_eq!(fit.history().heldout_loss.is_empty(), strata.held_out.stored == 0);
        assert!(fit.factors().iter().flatten().all(|x| x.is_finite()));
    }
    // A list of everything has no zeros.
    let full = Observations::new(list(&y.mapv(|x| x + 1.0))).split_as(SplitKind::Strata);
    let full = full.held_out(0.5, 1).unwrap();
    assert_eq!(full.prepare().unwrap().strata().unwrap().held_out.zeros, 0);
    assert!(settings().fit(&full).unwrap().history().heldout_loss.len() > 1);
    // A loss whose implicit entries are no zeros: all entries are stored.
    let positive = settings().loss(Loss::itakura_saito()).fit(&full).unwrap();
    assert!(positive.history().heldout_loss.iter().all(|loss| loss.is_finite()));
}

#[test]
fn what_is_no_split_by_strata_is_refused() {
    let y = mostly_zeros(&[6, 5, 4], &Loss::kl(), 0.4, 5);
    let dense = Observations::new(&y).split_as(SplitKind::Strata).held_out(0.1, 0).unwrap();
    let error = dense.prepare().unwrap_err();
    assert!(error.is_input() && error.to_string().contains("lists"), "{error}");
    // Without a random split it says nothing.
    assert!(Observations::new(&y).split_as(SplitKind::Strata).prepare().is_ok());
    for ratio in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e7] {
        let error = Observations::new(&y).zeros_per_nonzero(ratio).unwrap_err();
        assert!(error.is_input() && error.to_string().contains("zeros per nonzero"), "{error}");
    }
    let (indices, values) = vast(10);
    let list = CooTensor::new(&[10_000; 3], &indices, &values).unwrap();
    let cells = Observations::new(list).held_out(0.1, 0).unwrap().split_as(SplitKind::Cells);
    let error = cells.prepare().unwrap_err();
    assert!(error.is_input() && error.to_string().contains("strata"), "{error}");
}

#[test]
fn studies_split_by_strata() {
    let y = mostly_zeros(&[12, 10, 8], &Loss::kl(), 0.3, 9).mapv(f64::round);
    let data = Observations::new(list(&y));
    let study = |kind: Option<SplitKind>| {
        let cp = StudyModel::new("cp", "ir,jr,kr->ijk").unwrap().rank('r', [2]);
        let study = Study::new().model(cp).splits(2).held_out(0.2).max_iter(5);
        match kind {
            Some(kind) => study.split_as(kind),
            None => study,
        }
    };
    let strata = study(Some(SplitKind::Strata)).zeros_per_nonzero(2.0).run(&data).unwrap();
    assert_eq!(strata.split_kind(), Some(SplitKind::Strata));
    let text = strata.to_string();
    assert!(text.contains("20 % held out, by strata"), "{text}");
    assert!(text.contains("note: entries are withheld by strata"), "{text}");
    // The run's loss is that of a fit to the same split, and its score that of the weighted entries.
    let run = &strata.rows()[0].runs[1];
    let result = run.outcome.result().unwrap();
    let split = data.clone().held_out(0.2, run.split_seed).unwrap().split_as(SplitKind::Strata);
    let split = split.zeros_per_nonzero(2.0).unwrap().prepare().unwrap();
    let fit = NNEinFact::new("ir,jr,kr->ijk").unwrap().ranks([('r', 2)]).max_iter(5).seed(run.seed);
    let fit = fit.fit_prepared(&split).unwrap();
    assert_eq!(result.heldout_loss, fit.history().heldout_loss.last().copied());
    let weights = weights(&split, Role::HeldOut);
    let yhat = predict(fit.shapes(), fit.factors());
    let squares: f64 = ndarray::Zip::from(&weights)
        .and(&y)
        .and(&yhat)
        .fold(0.0, |sum, w, x, yhat| sum + w * (x - yhat).powi(2));
    let rmse = (squares / weights.sum()).sqrt();
    let found = result.scores.rmse.unwrap();
    assert!((found - rmse).abs() < 1e-6 * rmse, "{found} {rmse}");

    // Cells are the default of a small tensor, and runs of them are known by what they were known by.
    let cells = study(None).run(&data).unwrap();
    assert_eq!(cells.split_kind(), Some(SplitKind::Cells));
    let same = study(Some(SplitKind::Cells)).run(&data).unwrap();
    let loss = |table: &nneinfact::compare::StudyTable| table.rows()[0].heldout_loss;
    assert_eq!(loss(&cells), loss(&same));
    assert_ne!(loss(&cells), loss(&strata));
}

#[test]
fn labels_and_scale_stay() {
    // Values far from 1 are rescaled inside.
    let y = Array2::from_shape_fn((20, 15), |(i, j)| match (i * 7 + j * 3) % 5 {
        0 => 3e-40 * (1 + i % 3 + j % 2) as f64,
        _ => 0.0,
    });
    let data = by_strata(&y.into_dyn(), 4);
    let fit = NNEinFact::new("ir,jr->ij").unwrap().ranks([('r', 2)]).data_as(Format::Sparse);
    let fit = fit.max_iter(5).fit(&data).unwrap();
    let losses = &fit.history().heldout_loss;
    assert!(losses.iter().all(|loss| loss.is_finite() && *loss < 1e-35), "{losses:?}");
}
