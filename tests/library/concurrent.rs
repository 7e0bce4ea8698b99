//! Small fits that go on at once are those that would be made in turn.

use std::sync::{Arc, Mutex};

use ndarray::Array3;
use nneinfact::compare::{Event, RunOutcome, Study, StudyModel, StudyTable};
use nneinfact::data::{CooTensor, Prepared};
use nneinfact::fit::{Cancel, Format, Observer, Start, Sweep};
use nneinfact::loss::Penalty;
use nneinfact::{Device, Fit, Loss, NNEinFact, Observations};

fn y() -> Array3<f64> {
    Array3::from_shape_fn((14, 11, 9), |(i, j, k)| match (i * 5 + j * 3 + k) % 4 {
        0 => ((1 + i % 3) * (1 + j % 2) + k % 5) as f64,
        _ => 0.0,
    })
}

fn list() -> CooTensor {
    let y = y();
    let stored: Vec<_> = y.indexed_iter().filter(|&(_, &x)| x != 0.0).collect();
    let place = |m: usize| stored.iter().map(|&((i, j, k), _)| [i, j, k][m] as u64).collect();
    let values: Vec<f64> = stored.iter().map(|&(_, &x)| x).collect();
    CooTensor::new(y.shape(), &(0..3).map(place).collect::<Vec<Vec<u64>>>(), &values).unwrap()
}

fn device(threads: usize) -> Device {
    Device::cpu().threads(threads).unwrap()
}

fn settings(loss: Loss) -> NNEinFact {
    let cp = NNEinFact::new("ir,jr,kr->ijk").unwrap();
    cp.ranks([('r', 3)]).loss(loss).max_iter(8).tolerance(0.0)
}

fn bits(fit: &Fit) -> Vec<u64> {
    let history = fit.history();
    let losses = history.loss.iter().chain(&history.heldout_loss).chain(&history.penalty);
    fit.factors().iter().flatten().chain(losses).map(|x| x.to_bits()).collect()
}

/// A name, data, and the settings of a fit to them.
type Problem = (&'static str, Prepared, Box<dyn Fn() -> NNEinFact>);

/// Problems of every kind of pass: over a list with masked entries, dense, exact, with an implicit-zero pass, and
/// with starts that are rescaled.
fn problems() -> Vec<Problem> {
    let of = |o: Observations| o.prepare().unwrap();
    let split = |o: Observations| of(o.held_out(0.2, 3).unwrap());
    let stored = |loss: Loss| settings(loss).data_as(Format::Sparse);
    let l1 = Penalty::l1(0.1);
    vec![
        ("list", split(Observations::new(list())), Box::new(move || stored(Loss::kl()))),
        ("dense", split(Observations::new(y())), Box::new(|| settings(Loss::kl()))),
        ("exact", of(Observations::new(list())), Box::new(move || stored(Loss::euclidean()))),
        ("zeros", of(Observations::new(list())), Box::new(move || stored(Loss::geometric()))),
        (
            "penalty",
            of(Observations::new(y())),
            Box::new(move || settings(Loss::kl()).penalty_on_all(l1)),
        ),
    ]
}

#[test]
fn starts_that_are_tried_at_once_are_those_tried_in_turn() {
    for (name, data, settings) in problems() {
        let fit = |threads: usize, seed: u64| {
            let fit = settings().device(device(threads)).seed(seed).starts(7);
            fit.fit_prepared(&data).unwrap()
        };
        for seed in [0, 40] {
            let (turn, at_once) = (fit(1, seed), fit(4, seed));
            assert_eq!(turn.history().seed, at_once.history().seed, "{name}");
            assert_eq!(turn.warnings(), at_once.warnings(), "{name}");
            assert_eq!(bits(&turn), bits(&at_once), "{name}");
        }
    }
}

#[test]
fn fits_that_were_made_ready_together_are_those_made_apart() {
    for (name, data, settings) in problems() {
        let ready = settings().device(device(2)).ready(&data).unwrap();
        let fit = |seed: u64| {
            let seen = Arc::new(Mutex::new(0));
            let count = Arc::clone(&seen);
            let observer = move |_: &Sweep| {
                *count.lock().unwrap() += 1;
                nneinfact::fit::Flow::Continue
            };
            let observers: Vec<Box<dyn Observer>> = vec![Box::new(observer)];
            let fit = ready.fit(seed, &Cancel::new(), observers).unwrap();
            assert_eq!(*seen.lock().unwrap(), fit.history().loss.len(), "{name}");
            fit
        };
        let together: Vec<Fit> = std::thread::scope(|scope| {
            let fits: Vec<_> = (0..5).map(|seed| scope.spawn(move || fit(seed))).collect();
            fits.into_iter().map(|fit| fit.join().unwrap()).collect()
        });
        for (seed, together) in together.iter().enumerate() {
            let apart = settings().device(device(2)).seed(seed as u64).fit_prepared(&data).unwrap();
            assert_eq!(bits(together), bits(&apart), "{name}");
            assert_eq!(together.history().seed, apart.history().seed);
            assert_eq!(together.history().device, apart.history().device);
        }
    }
}

#[test]
fn what_fits_have_no_part_in_is_refused() {
    let data = Observations::new(y()).prepare().unwrap();
    let refused = |fits: NNEinFact, what: &str| {
        let error = fits.ready(&data).err().expect("refused").to_string();
        assert!(error.contains(what), "{error}");
    };
    refused(settings(Loss::kl()).starts(3), "several starts");
    let start = settings(Loss::kl()).fit_prepared(&data).unwrap().factors().to_vec();
    refused(settings(Loss::kl()).start(Start::Factors(start)), "start from");
    let folder = tempfile::tempdir().unwrap();
    let every = nneinfact::fit::Every::sweeps(1);
    refused(settings(Loss::kl()).checkpoint(folder.path().join("c"), every), "checkpoint");
    refused(settings(Loss::itakura_saito()), "0");
    // A fit that was cancelled before it began has no sweep.
    let cancel = Cancel::new();
    cancel.cancel();
    let ready = settings(Loss::kl()).ready(&data).unwrap();
    assert_eq!(ready.fit(1, &cancel, Vec::new()).unwrap().history().iterations, 0);
}

fn study() -> Study {
    let model = |name: &str, model: &str| StudyModel::new(name, model).unwrap();
    Study::new()
        .model(model("cp", "ir,jr,kr->ijk").rank('r', [1, 3]))
        .model(model("tucker", "ia,jb,kc,abc->ijk").rank('a', [2]).rank('b', [2]).rank('c', [2]))
        .splits(2)
        .starts(3)
        .held_out(0.2)
        .max_iter(6)
}

/// What observers were told, but for times.
type Told = Arc<Mutex<Vec<String>>>;

fn told(study: Study) -> (Study, Told) {
    let told = Told::default();
    let to = Arc::clone(&told);
    let study = study.observe(move |event: &Event<'_>| {
        to.lock().unwrap().push(match event {
            Event::Begins(standing) => format!("{} {} begins", standing.run, standing.label),
            Event::Sweep(standing, sweep) => {
                format!("{} {} {}", standing.run, sweep.iteration, sweep.loss)
            }
            Event::Ends { standing, outcome, kept } => {
                let loss = outcome.result().map(|result| result.training_loss);
                format!("{} ends {loss:?} {kept}", standing.run)
            }
        });
    });
    (study, told)
}

/// All that came out, but for times and devices.
fn results(table: &StudyTable) -> Vec<String> {
    let mut found = Vec::new();
    for row in table.rows() {
        for run in &row.runs {
            let result = run.outcome.result().map(|result| {
                let losses = [Some(result.training_loss), result.heldout_loss, result.scores.rmse];
                (losses.map(|x| x.map(f64::to_bits)), result.sweeps)
            });
            found.push(format!(
                "{} {} {} {:?} {result:?}",
                row.name, run.split, run.start, run.seed
            ));
        }
    }
    found
}

#[test]
fn studies_tell_the_same_in_the_same_order() {
    let run = |threads: usize| {
        let (study, told) = told(study());
        let table = study.device(device(threads)).run(Observations::new(list())).unwrap();
        assert!(table.is_complete());
        let told = told.lock().unwrap().clone();
        (results(&table), told)
    };
    let (turn, at_once) = (run(1), run(4));
    assert_eq!(turn.0, at_once.0);
    assert_eq!(turn.1, at_once.1);
}

#[test]
fn studies_that_are_interrupted_lose_what_is_in_progress_only() {
    let folder = tempfile::tempdir().unwrap();
    let cancel = Cancel::new();
    let stop = cancel.clone();
    let interrupted = study()
        .cancel(&cancel)
        .folder(folder.path())
        .observe(move |event: &Event<'_>| {
            if let Event::Ends { standing, .. } = event
                && standing.run == 4
            {
                stop.cancel();
            }
        })
        .device(device(4))
        .run(Observations::new(list()))
        .unwrap();
    assert!(!interrupted.is_complete());
    let (over, all) = interrupted.progress();
    assert!((4..all).contains(&over), "{over} of {all}");
    let kept = std::fs::read_dir(folder.path().join("runs")).unwrap();
    let json = |entry: &std::io::Result<std::fs::DirEntry>| {
        entry.as_ref().unwrap().path().extension().is_some_and(|end| end == "json")
    };
    assert_eq!(kept.filter(json).count(), over);

    let (again, events) = told(study().folder(folder.path()));
    let again = again.device(device(4)).run(Observations::new(list())).unwrap();
    let whole = study().device(device(1)).run(Observations::new(list())).unwrap();
    assert_eq!(results(&again), results(&whole));
    let events = events.lock().unwrap();
    assert_eq!(events.iter().filter(|event| event.ends_with("true")).count(), over);
    let ends: Vec<usize> = events
        .iter()
        .filter(|event| event.contains("ends"))
        .map(|event| event.split(' ').next().unwrap().parse().unwrap())
        .collect();
    assert_eq!(ends, (1..=all).collect::<Vec<_>>());
}

#[test]
fn runs_that_fail_are_told_of_one_by_one() {
    // Powers of ŷ overflow in every run of one loss.
    let y = y();
    let run = |threads: usize| {
        let cp = StudyModel::new("cp", "ir,jr,kr->ijk").unwrap().rank('r', [2]);
        let study = Study::new().model(cp).loss(Loss::kl()).loss(Loss::beta(200.0).unwrap());
        let (study, told) = told(study.starts(3).max_iter(3).score(None));
        let table = study.device(device(threads)).run(&y).unwrap();
        let failed = |row: &nneinfact::compare::Row| -> Vec<bool> {
            row.runs.iter().map(|run| matches!(run.outcome, RunOutcome::Failed(_))).collect()
        };
        let failed: Vec<Vec<bool>> = table.rows().iter().map(failed).collect();
        (failed, told.lock().unwrap().clone())
    };
    let alone = run(1);
    assert_eq!(alone.0, [vec![false; 3], vec![true; 3]]);
    assert_eq!(alone, run(4));
}
