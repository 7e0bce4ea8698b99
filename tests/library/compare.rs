//! Studies through the library: what the table says, scores against naive sums, components that are
//! found again, and runs that are kept.

use std::sync::{Arc, Mutex};

use ndarray::{Array2, Array3, ArrayD, IxDyn};
use nneinfact::compare::{
    Event, Penalties, RunOutcome, Score, Study, StudyModel, StudyTable, Verdict, stability,
};
use nneinfact::data::{CooTensor, Role};
use nneinfact::fit::{Cancel, DataRecord, Saved};
use nneinfact::loss::Penalty;
use nneinfact::report::Residuals;
use nneinfact::{Algorithm, Device, Fit, Loss, NNEinFact, Observations, Precision, io};

use crate::common::Random;

/// Poisson counts with the means of an array (Knuth's method; means are small).
fn counts(random: &mut Random, means: &ArrayD<f64>) -> ArrayD<f64> {
    means.mapv(|mean| {
        let (limit, mut product, mut n) = ((-mean).exp(), random.uniform(), 0.0);
        while product > limit {
            product *= random.uniform();
            n += 1.0;
        }
        n
    })
}

/// 20 × 15 × 8 counts of three components that hardly overlap.
fn planted() -> ArrayD<f64> {
    blobs(1.0, 3.0)
}

/// The same, so many times as large, and the third of this width along the last mode.
fn blobs(scale: f64, width: f64) -> ArrayD<f64> {
    let mut random = Random::new(7);
    let means = Array3::from_shape_fn((20, 15, 8), |(i, j, k)| {
        let bump = |at: f64, x: usize, width: f64| (-((x as f64 - at) / width).powi(2)).exp();
        let first = 9.0 * bump(3.0, i, 2.0) * bump(3.0, j, 2.0) * bump(1.0, k, 2.0);
        let second = 7.0 * bump(10.0, i, 2.0) * bump(11.0, j, 2.0) * bump(6.0, k, 2.0);
        let third = 8.0 * bump(16.0, i, 2.0) * bump(7.0, j, 2.0) * bump(3.5, k, width);
        0.05 + scale * (first + second + third)
    });
    counts(&mut random, &means.into_dyn())
}

fn cp(ranks: &[usize]) -> StudyModel {
    StudyModel::new("cp", "ir,jr,kr->ijk").unwrap().rank('r', ranks.iter().copied())
}

fn study() -> Study {
    Study::new()
        .model(cp(&[1, 3]))
        .model(
            StudyModel::new("tucker", "ia,jb,kc,abc->ijk")
                .unwrap()
                .rank('a', [2])
                .rank('b', [2])
                .rank('c', [1, 2]),
        )
        .device(Device::cpu())
        .held_out(0.15)
        .validation(0.1)
        .early_stopping(true)
        .max_iter(60)
        .splits(3)
        .starts(2)
}

/// A table as JSON without what differs from run to run: seconds.
fn timeless(table: &StudyTable) -> serde_json::Value {
    fn strip(value: &mut serde_json::Value) {
        match value {
            serde_json::Value::Object(map) => {
                map.remove("seconds");
                map.remove("wall_seconds");
                map.values_mut().for_each(strip);
            }
            serde_json::Value::Array(all) => all.iter_mut().for_each(strip),
            _ => {}
        }
    }
    let mut value = serde_json::to_value(table).unwrap();
    strip(&mut value);
    value
}

#[test]
fn a_table_is_sorted_and_its_numbers_are_those_of_the_fits() {
    let y = planted();
    let table = study().run(&y).unwrap();
    assert!(table.is_complete());
    assert_eq!(table.progress(), (4 * 3 * 2, 4 * 3 * 2));
    assert_eq!(table.score(), Some(Score::Poisson));
    let rows = table.rows();
    assert_eq!(rows.len(), 4);
    let losses: Vec<f64> = rows.iter().map(|row| row.heldout_loss.unwrap().mean).collect();
    assert!(losses.is_sorted(), "{losses:?}");
    let best = &rows[0];
    assert_eq!((best.name.as_str(), best.ranks[&'r']), ("cp", 3), "{table}");
    assert_eq!(best.parameters, 43 * 3);

    // One run by hand: the second split and its first start.
    let run = best.runs.iter().find(|run| (run.split, run.start) == (2, 1)).unwrap();
    assert_eq!((run.split_seed, run.seed), (1, 2));
    let observations = Observations::new(&y).held_out(0.15, 1).unwrap().validation(0.1, 1).unwrap();
    let fit = NNEinFact::new("ir,jr,kr->ijk")
        .unwrap()
        .ranks([('r', 3)])
        .device(Device::cpu())
        .early_stopping(true)
        .max_iter(60)
        .seed(2)
        .fit(&observations)
        .unwrap();
    let result = run.outcome.result().unwrap();
    let history = fit.history();
    assert_eq!(result.training_loss, history.returned_loss());
    assert_eq!(result.heldout_loss, Some(history.heldout_loss[history.returned]));
    assert_eq!(result.validation_loss, Some(history.validation_loss[history.returned]));
    assert_eq!(result.sweeps, history.iterations);
    assert_eq!(result.stopped_by, history.stopped_by.to_string());

    // Of every split the start with the lower validation loss; mean and standard error by hand.
    let mut chosen = Vec::new();
    for split in 1..=3 {
        let runs: Vec<_> = best.runs.iter().filter(|run| run.split == split).collect();
        let validation = |run: &&&nneinfact::compare::RunRecord| {
            run.outcome.result().unwrap().validation_loss.unwrap()
        };
        let least = runs.iter().min_by(|a, b| validation(a).total_cmp(&validation(b))).unwrap();
        assert!(least.chosen);
        assert_eq!(runs.iter().filter(|run| run.chosen).count(), 1);
        chosen.push(least.outcome.result().unwrap().heldout_loss.unwrap());
    }
    let mean = chosen.iter().sum::<f64>() / 3.0;
    let variance = chosen.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 2.0;
    let found = best.heldout_loss.unwrap();
    assert!((found.mean - mean).abs() < 1e-15 && found.count == 3);
    assert!((found.standard_error.unwrap() - (variance / 3.0).sqrt()).abs() < 1e-15);
}

#[test]
fn texts_have_every_row() {
    let y = planted();
    let table = study()
        .splits(2)
        .starts(1)
        .loss(Loss::kl())
        .loss(Loss::alpha_beta(0.7, 0.0).unwrap())
        .run(&y)
        .unwrap();
    let text = table.to_string();
    for part in
        ["loss kl", "loss alpha-beta(0.7, 0)", "a=2,b=2,c=1", "by poisson", "±", "agreement"]
    {
        assert!(text.contains(part), "`{part}` is not in\n{text}");
    }
    let csv = table.to_csv();
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines.len(), 1 + 8);
    assert!(lines[0].starts_with("loss,name,model,ranks"));
    assert!(
        lines[1].starts_with("kl,cp,\"ir,jr,kr->ijk\",r=3,none,accelerated,f32,129,2,0."),
        "{csv}"
    );
    // Losses are apart, scores together.
    let order: Vec<&str> = table.rows().iter().map(|row| row.loss.as_str()).collect();
    assert!(
        order[..4].iter().all(|l| *l == "kl") && order[4..].iter().all(|l| l.starts_with("alpha"))
    );
    let scores: Vec<f64> = table.by_score().iter().map(|row| row.score.unwrap().mean).collect();
    assert!(scores.len() == 8 && scores.is_sorted_by(|a, b| a >= b), "{scores:?}");
}

/// ln n!, summed up.
fn log_factorial(n: f64) -> f64 {
    (1..=n as u64).map(|k| (k as f64).ln()).sum()
}

/// The scores of a fit by naive loops: Poisson, rmse, mae.
fn naive(
    fit: &Fit,
    y: &ArrayD<f64>,
    roles: &ArrayD<bool>,
    weights: Option<&ArrayD<f64>>,
) -> [f64; 3] {
    let predicted = nneinfact::reference::predict(fit.shapes(), fit.factors());
    let (mut sums, mut total) = ([0.0; 3], 0.0);
    for (at, &x) in y.indexed_iter() {
        let w = weights.map_or(1.0, |w| w[&at]);
        if roles[&at] && w > 0.0 {
            let p = predicted[&at];
            sums[0] += w * (x * p.ln() - p - log_factorial(x));
            sums[1] += w * (x - p).powi(2);
            sums[2] += w * (x - p).abs();
            total += w;
        }
    }
    [sums[0] / total, (sums[1] / total).sqrt(), sums[2] / total]
}

/// Runs a study of one fit and checks its scores.
fn scores_agree(
    observations: &Observations,
    y: &ArrayD<f64>,
    held_out: &ArrayD<bool>,
    weights: Option<&ArrayD<f64>>,
    device: &Device,
) {
    let table =
        Study::new().model(cp(&[3])).device(device.clone()).max_iter(5).run(observations).unwrap();
    let result = table.rows()[0].runs[0].outcome.result().unwrap().scores;
    let fit = NNEinFact::new("ir,jr,kr->ijk")
        .unwrap()
        .ranks([('r', 3)])
        .device(device.clone())
        .max_iter(5)
        .fit(observations)
        .unwrap();
    let expected = naive(&fit, y, held_out, weights);
    for (score, expected) in Score::ALL.into_iter().zip(expected) {
        let found = result.get(score).unwrap();
        assert!((found - expected).abs() < 1e-9 * expected.abs(), "{score}: {found} {expected}");
    }
}

/// All entries that are not 0 as a list.
fn list(y: &ArrayD<f64>) -> CooTensor {
    let entries: Vec<(IxDyn, f64)> =
        y.indexed_iter().filter(|(_, x)| **x != 0.0).map(|(at, &x)| (at, x)).collect();
    let indices: Vec<Vec<u64>> =
        (0..y.ndim()).map(|mode| entries.iter().map(|(at, _)| at[mode] as u64).collect()).collect();
    let values: Vec<f64> = entries.iter().map(|(_, x)| *x).collect();
    CooTensor::new(y.shape(), &indices, &values).unwrap()
}

#[test]
fn scores_are_naive_sums_over_held_out_cells() {
    let y = planted();
    let held_out = Random::new(3).mask(y.shape(), 0.2);
    let mask = Random::new(4).mask(y.shape(), 0.9);
    let scored = ndarray::Zip::from(&held_out).and(&mask).map_collect(|&h, &m| h && m);
    let cpu = Device::cpu();
    let dense = Observations::new(&y).mask(&mask).unwrap().held_out_mask(&held_out).unwrap();
    scores_agree(&dense, &y, &scored, None, &cpu);
    // In another order of memory.
    let turned = y.view().reversed_axes().as_standard_layout().into_owned().reversed_axes();
    assert_eq!(turned, y);
    let other = Observations::new(&turned).mask(&mask).unwrap().held_out_mask(&held_out).unwrap();
    scores_agree(&other, &y, &scored, None, &cpu);
    // As coordinates, with a role for every cell.
    let sparse = Observations::new(list(&y)).mask(&mask).unwrap().held_out_mask(&held_out).unwrap();
    scores_agree(&sparse, &y, &scored, None, &cpu);
    // As coordinates, of which the others are missing.
    let listed = Observations::new(list(&y)).unlisted_missing().held_out_mask(&held_out).unwrap();
    let nonzero = ndarray::Zip::from(&held_out).and(&y).map_collect(|&h, &x| h && x > 0.0);
    scores_agree(&listed, &y, &nonzero, None, &cpu);
    // With weights, some of them 0.
    let weights = Random::new(5).tensor(y.shape(), -0.3, 2.0).mapv(|w| w.max(0.0));
    let weighted =
        Observations::new(&y).weights(&weights).unwrap().held_out_mask(&held_out).unwrap();
    scores_agree(&weighted, &y, &held_out, Some(&weights), &cpu);
}

#[test]
fn a_gpu_gives_the_same_table() {
    let Some(device) = crate::common::gpu() else { return };
    let y = planted();
    let run = |device: Device| {
        Study::new()
            .model(cp(&[2, 3]))
            .device(device)
            .held_out(0.15)
            .max_iter(10)
            .tolerance(0.0)
            .splits(2)
            .run(&y)
            .unwrap()
    };
    let (gpu, cpu) = (run(device.clone()), run(Device::cpu()));
    assert!(gpu.rows()[0].runs[0].outcome.result().unwrap().device.starts_with("gpu"));
    for (a, b) in gpu.rows().iter().zip(cpu.rows()) {
        assert_eq!((&a.ranks, a.parameters), (&b.ranks, b.parameters));
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-3 * b.abs(), "{a} {b}");
        near(a.heldout_loss.unwrap().mean, b.heldout_loss.unwrap().mean);
        near(a.score.unwrap().mean, b.score.unwrap().mean);
    }
    // Before the first run.
    let refused = Study::new().model(cp(&[2])).device(device).precision(Precision::F64).run(&y);
    assert!(refused.unwrap_err().to_string().contains("f64"));
}

#[test]
fn planted_components_are_stable_and_surplus_ones_are_not() {
    let y = blobs(2.0, 2.0);
    // Two splits, two starts of each; the best comes first.
    let fits = |rank| -> Vec<Fit> {
        let fit = |n: u64| {
            NNEinFact::new("ir,jr,kr->ijk")
                .unwrap()
                .ranks([('r', rank)])
                .device(Device::cpu())
                .seed(n)
                .fit(Observations::new(&y).held_out(0.1, n / 2).unwrap())
                .unwrap()
                .sorted()
        };
        let mut fits: Vec<Fit> = (0..4).map(fit).collect();
        fits.sort_by(|a, b| a.history().last_loss().total_cmp(&b.history().last_loss()));
        fits
    };
    let right = fits(3);
    let found = stability(&right.iter().collect::<Vec<_>>()).unwrap();
    assert_eq!((found.fits, found.indices.len()), (4, 1));
    assert_eq!(found.indices[0].stable(), 3, "{found:?}");
    assert!(found.indices[0].min() > 0.95, "{found:?}");

    // Two more than there are: they go wherever noise takes them.
    let fits = fits(5);
    let found = stability(&fits.iter().collect::<Vec<_>>()).unwrap();
    let components = &found.indices[0].components;
    // Sorted by weight: the planted ones come first.
    for component in &components[..3] {
        assert_eq!(component.verdict, Verdict::Stable, "{found:?}");
        assert!(component.share > 0.2, "{found:?}");
    }
    for component in &components[3..] {
        assert_eq!(component.verdict, Verdict::Unstable, "{found:?}");
    }
    let weights = fits[0].component_weights('r').unwrap();
    for (component, weight) in components.iter().zip(weights) {
        assert!((component.weight / weight - 1.0).abs() < 1e-9);
    }
}

#[test]
fn kept_runs_are_taken_and_a_study_can_grow() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("study");
    let y = planted();
    let whole = study().run(&y).unwrap();

    // Interrupted in the middle of the seventh run.
    let cancel = Cancel::new();
    let switch = cancel.clone();
    let table = study()
        .folder(&path)
        .cancel(&cancel)
        .observe(move |event: &Event<'_>| {
            if let Event::Sweep(standing, sweep) = event
                && standing.run == 7
                && sweep.iteration == 3
            {
                switch.cancel();
            }
        })
        .run(&y)
        .unwrap();
    assert!(!table.is_complete());
    // Others of the split may have been over before their turn.
    let (over, all) = table.progress();
    assert!((6..24).contains(&over) && all == 24, "{over} of {all}");
    assert!(table.to_string().contains(&format!("{over} of 24 runs are done")), "{table}");

    let told = Arc::new(Mutex::new((0, 0)));
    let count = Arc::clone(&told);
    let count_runs = move |event: &Event<'_>| {
        if let Event::Ends { kept, standing, .. } = event {
            let mut told = count.lock().unwrap();
            if *kept {
                told.0 += 1
            } else {
                told.1 += 1
            }
            // Something is known by now.
            assert!(standing.left.is_some());
        }
    };
    let table = study().folder(&path).observe(count_runs).run(&y).unwrap();
    assert_eq!(*told.lock().unwrap(), (over, 24 - over));
    // But for the names of files, and seconds, the same.
    let (mut resumed, mut uninterrupted) = (timeless(&table), timeless(&whole));
    for table in [&mut resumed, &mut uninterrupted] {
        for row in table["rows"].as_array_mut().unwrap() {
            for run in row["runs"].as_array_mut().unwrap() {
                run.as_object_mut().unwrap().remove("file");
            }
            row["best"].as_object_mut().unwrap().remove("file");
        }
    }
    assert_eq!(resumed, uninterrupted);
    for name in
        ["table.json", "table.csv", "table.txt", "stability.json", "stability.txt", "study.json"]
    {
        assert!(path.join(name).is_file(), "{name}");
    }
    let file = table.rows()[0].runs[0].file.as_ref().unwrap();
    let factors = io::read_npz_arrays(path.join(file).with_extension("npz")).unwrap();
    assert_eq!(factors.len(), 3);

    // One model more, one split more: only what is new is fitted.
    let kept = Arc::new(Mutex::new((0, 0)));
    let count = Arc::clone(&kept);
    let table = study()
        .model(StudyModel::new("nmf", "ijr,kr->ijk").unwrap().rank('r', [2]))
        .splits(4)
        .folder(&path)
        .observe(move |event: &Event<'_>| {
            if let Event::Ends { kept, .. } = event {
                let mut told = count.lock().unwrap();
                if *kept { told.0 += 1 } else { told.1 += 1 }
            }
        })
        .run(&y)
        .unwrap();
    assert_eq!(*kept.lock().unwrap(), (24, 16));
    assert_eq!(table.rows().len(), 5);

    // Other data are another study.
    let mut other = y.clone();
    other[[0, 0, 0]] += 1.0;
    let fresh = Arc::new(Mutex::new(0));
    let count = Arc::clone(&fresh);
    study()
        .splits(1)
        .folder(&path)
        .observe(move |event: &Event<'_>| {
            if let Event::Ends { kept: false, .. } = event {
                *count.lock().unwrap() += 1;
            }
        })
        .run(&other)
        .unwrap();
    assert_eq!(*fresh.lock().unwrap(), 8);
}

/// How many runs of a study are taken from its folder, and how many are fitted.
fn counted(study: Study, y: &ArrayD<f64>) -> (StudyTable, [usize; 2]) {
    let told = Arc::new(Mutex::new([0, 0]));
    let count = Arc::clone(&told);
    let study = study.observe(move |event: &Event<'_>| {
        if let Event::Ends { kept, .. } = event {
            count.lock().unwrap()[usize::from(!kept)] += 1;
        }
    });
    let table = study.run(y).unwrap();
    let told = *told.lock().unwrap();
    (table, told)
}

#[test]
fn damaged_runs_are_done_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("study");
    let y = planted();
    let study = || {
        let models = cp(&[1, 2, 3, 4, 5]);
        Study::new().model(models).device(Device::cpu()).max_iter(5).starts(2).folder(&path)
    };
    let first = study().run(&y).unwrap();
    let files: Vec<_> = first
        .rows()
        .iter()
        .map(|row| path.join(row.runs[0].file.as_ref().unwrap()).with_extension("npz"))
        .collect();
    std::fs::write(files[0].with_extension("json"), "{ half of").unwrap();
    std::fs::remove_file(&files[1]).unwrap();
    // Half a file, and one with the factors of another run.
    let whole = std::fs::read(&files[2]).unwrap();
    let factors = io::read_npz_arrays(&files[2]).unwrap();
    std::fs::write(&files[2], &whole[..whole.len() / 2]).unwrap();
    std::fs::copy(&files[4], &files[3]).unwrap();
    let (again, told) = counted(study(), &y);
    assert_eq!(told, [6, 4]);
    assert_eq!(timeless(&again), timeless(&first));
    assert_eq!(io::read_npz_arrays(&files[2]).unwrap(), factors);
    let (_, told) = counted(study(), &y);
    assert_eq!(told, [10, 0]);
}

/// The name of a temporary file of this target, as writers make them.
fn leftover(target: &str) -> String {
    let sum = target.bytes().fold(0xcbf2_9ce4_8422_2325u64, |sum, byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!(".nneinfact-{sum:016x}-Xy12.tmp")
}

#[test]
fn what_a_killed_study_left_is_ours() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("study");
    let y = planted();
    let study = || Study::new().model(cp(&[1])).device(Device::cpu()).max_iter(2).folder(&path);
    // Killed before its first file was whole.
    std::fs::create_dir(&path).unwrap();
    std::fs::write(path.join(leftover("study.json")), "{ \"form").unwrap();
    study().check().unwrap();
    study().run(&y).unwrap();
    assert!(!path.join(leftover("study.json")).exists());
    // And in the middle of a run's; what others keep there stays.
    for name in [leftover("0123.npz"), ".nneinfact-notes.tmp".into()] {
        std::fs::write(path.join("runs").join(name), "half").unwrap();
    }
    study().run(&y).unwrap();
    assert!(!path.join("runs").join(leftover("0123.npz")).exists());
    assert!(path.join("runs/.nneinfact-notes.tmp").exists());
    // Other files are still those of others.
    let other = folder.path().join("other");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join(leftover("thesis.json")), "").unwrap();
    let error = Study::new().model(cp(&[1])).folder(&other).check().unwrap_err().to_string();
    assert!(error.contains("other files"), "{error}");
}

#[test]
fn infinite_losses_come_last_before_and_after_an_interruption() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("study");
    let y = planted();
    let study = || {
        let study = Study::new().model(cp(&[1, 2, 3])).device(Device::cpu()).max_iter(20);
        study.held_out(0.1).splits(2).folder(&path)
    };
    let first = study().run(&y).unwrap();
    // The best row had a cell that the model cannot explain at all.
    let best = first.rows()[0].clone();
    let file = path.join(best.runs[0].file.as_ref().unwrap());
    let mut run: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    run["result"]["heldout_loss"] = "inf".into();
    run["result"]["scores"]["poisson"] = "-inf".into();
    std::fs::write(&file, run.to_string()).unwrap();
    let (table, told) = counted(study(), &y);
    assert_eq!(told, [6, 0]);
    let last = &table.rows()[2];
    assert_eq!(last.ranks, best.ranks);
    assert_eq!(last.heldout_loss.unwrap().mean, f64::INFINITY);
    assert_eq!(table.by_score()[2].ranks, best.ranks);
    assert!(table.to_string().contains(" inf "), "{table}");
    let json = timeless(&table);
    assert_eq!(json["rows"][2]["heldout_loss"]["mean"], "inf");
    assert_eq!(json["rows"][2]["score"]["mean"], "-inf");
    // As often as it is run.
    assert_eq!(timeless(&study().run(&y).unwrap()), json);
}

#[test]
fn runs_are_files_of_fits_that_know_their_split() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("study");
    let y = planted();
    let record = DataRecord { path: "/data/y.npy".into(), ..DataRecord::default() };
    let table = Study::new()
        .model(cp(&[2]))
        .device(Device::cpu())
        .precision(Precision::F64)
        .held_out(0.2)
        .validation(0.1)
        .splits(2)
        .split_seed(3)
        .max_iter(10)
        .data_record(record)
        .folder(&path)
        .run(&y)
        .unwrap();
    let row = &table.rows()[0];
    for run in &row.runs {
        let file = path.join(run.file.as_ref().unwrap()).with_extension("npz");
        let saved = Saved::load(file).unwrap();
        let data = saved.record().data.clone().unwrap();
        assert_eq!(data.path, std::path::Path::new("/data/y.npy"));
        assert_eq!((data.heldout, data.validation), (Some(0.2), Some(0.1)));
        assert_eq!(data.split_seed, run.split_seed);
        // What the file says is enough to find the losses of the run again.
        let observations = Observations::new(&y)
            .held_out(data.heldout.unwrap(), data.split_seed)
            .unwrap()
            .validation(data.validation.unwrap(), data.split_seed)
            .unwrap();
        let loss = saved.record().loss.as_ref().unwrap().loss().unwrap();
        let residuals = Residuals::new(&saved, &observations, Some(&loss)).unwrap();
        let result = run.outcome.result().unwrap();
        let expected = [
            (Role::Train, result.training_loss),
            (Role::Validation, result.validation_loss.unwrap()),
            (Role::HeldOut, result.heldout_loss.unwrap()),
        ];
        for (role, loss) in expected {
            let portion = residuals.by_role().iter().find(|p| p.role == role).unwrap();
            let found = portion.all.mean_loss();
            assert!((found - loss).abs() < 1e-9 * loss, "{role:?}: {found} {loss}");
        }
        assert!(result.wall_seconds >= result.seconds);
    }
    let best = row.best.as_ref().unwrap();
    let file = path.join(best.file.as_ref().unwrap());
    assert!(file.is_file());
    let command = format!("nneinfact report {}", file.display());
    assert!(table.to_string().contains(&command), "{command} is not in\n{table}");
}

#[test]
fn rows_are_told_apart_and_say_what_they_are_of() {
    let y = planted();
    let table = Study::new()
        .model(cp(&[1]))
        .model(StudyModel::new("nmf", "ir,jkr->ijk").unwrap().rank('r', [1]))
        .match_parameters(140)
        .match_parameters(172)
        .algorithm(Algorithm::Grouped)
        .algorithm(Algorithm::Adam)
        .learning_rate(0.2)
        .held_out(0.1)
        .max_iter(20)
        .device(Device::cpu())
        .run(&y)
        .unwrap();
    let text = table.to_string();
    let rows = table.rows();
    // 43 parameters a component of CP, 140 of the other.
    let ranks = |name: &str, n| {
        let of = |row: &&nneinfact::compare::Row| row.name == name && row.matched == Some(n);
        rows.iter().filter(of).map(|row| row.ranks[&'r']).collect::<Vec<_>>()
    };
    assert_eq!((ranks("cp", 140), ranks("cp", 172)), (vec![3; 2], vec![4; 2]));
    assert_eq!((ranks("nmf", 140), ranks("nmf", 172)), (vec![1; 2], vec![]));
    let marked: Vec<&str> =
        rows.iter().filter(|row| row.best_of_model).map(|row| row.name.as_str()).collect();
    assert!(marked.len() == 2 && marked.contains(&"cp") && marked.contains(&"nmf"), "{marked:?}");
    let labels: std::collections::BTreeSet<String> = rows.iter().map(|row| row.label()).collect();
    assert_eq!(labels.len(), rows.len());
    assert!(labels.contains("cp r=3, kl, adam(0.2)"), "{labels:?}");
    for part in ["asked for", "172", "cp *", "nmf *", "best row of its model", "more than once"] {
        assert!(text.contains(part), "`{part}` is not in\n{text}");
    }
    assert!(!text.contains("1 of 1"), "{text}");
}

#[test]
fn components_are_listed_with_where_they_were_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("study");
    let y = blobs(2.0, 2.0);
    let table = Study::new()
        .model(cp(&[2, 3]))
        .device(Device::cpu())
        .held_out(0.1)
        .splits(2)
        .starts(3)
        .folder(&path)
        .run(&y)
        .unwrap();
    let row = &table.rows()[0];
    let (best, stability) = (row.best.as_ref().unwrap(), row.stability.as_ref().unwrap());
    // Of three starts of each split two, the best of which is not among the others.
    assert_eq!((stability.fits, stability.better), (6, 3));
    let component = &stability.indices[0].components[0];
    assert!(component.starts.is_some() && component.splits.is_some(), "{component:?}");
    let text = std::fs::read_to_string(path.join("stability.txt")).unwrap();
    for part in ["cp r=3, kl", "r 0", "r 2", "verdict", "stable", best.file.as_ref().unwrap()] {
        assert!(text.contains(part), "`{part}` is not in\n{text}");
    }
    // Of every model its best row only.
    assert!(!text.contains("cp r=2"), "{text}");
    let json: serde_json::Value =
        serde_json::from_slice(&std::fs::read(path.join("stability.json")).unwrap()).unwrap();
    assert_eq!(json["rows"].as_array().unwrap().len(), 2);
    let reference = &json["rows"][0]["reference"];
    assert_eq!(reference["file"].as_str(), best.file.as_deref());
    assert_eq!(reference["split"].as_u64(), Some(best.split as u64));
}

#[test]
fn mistakes_are_found_before_the_first_run() {
    let y = planted();
    let began = Arc::new(Mutex::new(false));
    let refused = |study: Study, y: &ArrayD<f64>, parts: &[&str]| {
        let flag = Arc::clone(&began);
        let error = study
            .device(Device::cpu())
            .observe(move |_: &Event<'_>| *flag.lock().unwrap() = true)
            .run(y)
            .unwrap_err();
        assert!(error.is_input(), "{error}");
        for part in parts {
            assert!(error.to_string().contains(part), "`{part}` is not in: {error}");
        }
        assert!(!*began.lock().unwrap(), "a run began before: {error}");
    };
    let good = || Study::new().model(cp(&[2])).max_iter(2);
    let bad = |model| StudyModel::new("bad", model).unwrap();
    refused(good().model(bad("ir,jr->ij").rank('r', [2])), &y, &["bad", "3"]);
    refused(good().model(bad("ir,jq,kr->ijk").rank('r', [2])), &y, &["bad", "q"]);
    refused(good().loss(Loss::kl()).loss(Loss::itakura_saito()), &y, &["itakura-saito", "cp"]);
    refused(good().penalties(Penalties::none().and_on("zr", Penalty::l1(0.1))), &y, &["cp", "zr"]);
    refused(good().penalties(Penalties::on_all(Penalty::l1(-1.0))), &y, &["cp", "-1"]);
    refused(good().early_stopping(true), &y, &["early stopping", "validation"]);
    refused(good().tolerance(-1.0), &y, &["tolerance"]);
    refused(good().score(Some(Score::Mae)), &y, &["mae", "held out"]);
    let fractions = y.mapv(|x| x + 0.5);
    refused(good().held_out(0.1).score(Some(Score::Poisson)), &fractions, &["poisson", "0.5"]);
    refused(good().match_parameters(10), &y, &["cp", "10", "43"]);
    // Factors of 10¹² entries.
    refused(good().model(bad("ijkr,r->ijk").rank('r', [1_000_000_000])), &y, &["bad", "memory"]);
}

#[test]
fn a_score_that_suits_the_data_is_taken() {
    let fractions = planted().mapv(|x| x + 0.5);
    let study = || Study::new().model(cp(&[2])).device(Device::cpu()).max_iter(3);
    let table = study().held_out(0.1).run(&fractions).unwrap();
    assert_eq!(table.score(), Some(Score::Rmse));
    assert!(table.notes().iter().any(|note| note.contains("not counts")), "{:?}", table.notes());
    let result = table.rows()[0].runs[0].outcome.result().unwrap();
    assert!(result.scores.poisson.is_none() && result.scores.mae.is_some());
    // Nothing held out, nothing to score.
    let table = study().run(&fractions).unwrap();
    assert!(table.score().is_none() && table.rows()[0].heldout_loss.is_none());
    assert!(table.rows()[0].training_loss.is_some());
}

#[test]
fn a_run_that_fails_does_not_end_the_study() {
    // In single precision the ninth power of the largest entry is not finite.
    let y = Array2::from_shape_fn((40, 40), |(i, j)| if i + j == 0 { 1e6 } else { 1.0 }).into_dyn();
    let nmf = |rank| StudyModel::new(format!("r{rank}"), "ir,jr->ij").unwrap().rank('r', [rank]);
    let table = Study::new()
        .model(nmf(1))
        .model(nmf(2))
        .loss(Loss::beta(9.0).unwrap())
        .loss(Loss::kl())
        .device(Device::cpu())
        .max_iter(5)
        .run(&y)
        .unwrap();
    assert!(table.is_complete());
    let failed: Vec<_> = table
        .rows()
        .iter()
        .filter(|row| matches!(row.runs[0].outcome, RunOutcome::Failed(_)))
        .collect();
    assert!(!failed.is_empty(), "{table}");
    assert!(table.rows().iter().any(|row| row.training_loss.is_some()), "{table}");
    assert!(table.to_string().contains("0 of 1"), "{table}");
    for row in failed {
        assert!(row.training_loss.is_none() && row.failures.len() == 1);
        assert!(table.to_string().contains(&format!("{} failed: ", row.label())), "{table}");
    }
}

#[test]
fn splits_are_those_of_their_seeds() {
    let y = planted();
    let held_out = |seed| {
        let prepared = Observations::new(&y).held_out(0.15, seed).unwrap().prepare().unwrap();
        prepared.count(Role::HeldOut)
    };
    // Different cells, and so different means: not the same split again.
    assert_ne!(held_out(5), held_out(6));
    let table = Study::new()
        .model(cp(&[2]))
        .device(Device::cpu())
        .max_iter(3)
        .held_out(0.15)
        .splits(2)
        .split_seed(5)
        .run(&y)
        .unwrap();
    let losses: Vec<f64> = table.rows()[0]
        .runs
        .iter()
        .map(|run| run.outcome.result().unwrap().heldout_loss.unwrap())
        .collect();
    assert_ne!(losses[0], losses[1]);
    let seeds: Vec<u64> = table.rows()[0].runs.iter().map(|run| run.split_seed).collect();
    assert_eq!(seeds, [5, 6]);
}
