//! What ends a shared fit early: one process that fails, is cancelled, or says stop; and how it goes on.

use std::fs;
use std::time::SystemTime;

use super::processes::{bits, on};
use super::{SHAPE, SLABS, part, rows, tensor};
use nneinfact::data::Part;
use nneinfact::engine::Reducer;
use nneinfact::fit::{
    Cancel, Checkpoint, Coupled, Every, Flow, Part as Tensor, Smooth, Start, StoppedBy, Sweep,
};
use nneinfact::{Algorithm, Device, Error, Fit, Loss, NNEinFact, Observations, Precision, io};

fn settings() -> NNEinFact {
    let fit = NNEinFact::new("ir,jr,kr->ijk").unwrap().ranks([('r', 3)]).slabs(SLABS);
    fit.device(Device::cpu()).precision(Precision::F64).tolerance(0.0).max_iter(20)
}

fn data() -> Observations {
    Observations::new(tensor(5, &Loss::kl()))
}

/// The errors of all processes.
fn errors(fits: Vec<Result<Fit, Error>>) -> Vec<Error> {
    fits.into_iter().map(|fit| fit.expect_err("a fit that has to fail")).collect()
}

#[test]
fn a_process_that_fails_ends_all_with_its_message() {
    let all = |rank: usize, errors: &[Error], said: &str| {
        for (own, error) in errors.iter().enumerate() {
            let text = error.to_string();
            assert!(text.contains(said), "{own}: {text}");
            let told = match error {
                Error::Process { rank, .. } => Some(*rank),
                Error::Broken { cause, .. } => match **cause {
                    Error::Process { rank, .. } => Some(rank),
                    _ => None,
                },
                _ => None,
            };
            assert_eq!(told, (own != rank).then_some(rank), "{own}: {text}");
        }
    };
    // A part that is not its own.
    let found = on(4, |own| {
        let range = if own.rank() == 2 { 0..4 } else { part(SHAPE[0], own.rank(), 4) };
        let y = Observations::new(rows(&tensor(5, &Loss::kl()), &range));
        settings().shared_by(own).fit_part(y, Part { mode: 0, range, whole: SHAPE[0] })
    });
    all(2, &errors(found), "process 2 has the indices 0..4");
    // Other settings.
    let found = on(3, |own| {
        let tolerance = if own.rank() == 1 { 1e-3 } else { 0.0 };
        settings().tolerance(tolerance).shared_by(own).fit(data())
    });
    all(1, &errors(found), "tolerance 0.001, and process 0 has at most 20 sweeps, tolerance 0");
    // Other neighbours.
    let found = on(3, |own| {
        let weight = if own.rank() == 2 { 2.0 } else { 1.0 };
        let smooth = Smooth::graph(0.5, [(0, 1, weight)]);
        settings().smooth("jr", smooth).shared_by(own).fit(data())
    });
    all(2, &errors(found), "process 2 has the factors jr=0.5,graph of 1 edges");
    // Singular vectors of data that one process has in a file.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("y.npy");
    io::write_npy(&path, &tensor(5, &Loss::kl())).unwrap();
    let found = on(3, |own| {
        let fit = settings().start(Start::Svd);
        match own.rank() {
            1 => fit.shared_by(own).fit(Observations::new(io::map_npy(&path)?)),
            _ => fit.shared_by(own).fit(data()),
        }
    });
    all(1, &errors(found), "needs them in memory");
    // A checkpoint that only process 0 would write.
    let nowhere = folder.path().join("none/fit.checkpoint");
    let found =
        on(3, |own| settings().checkpoint(&nowhere, Every::sweeps(3)).shared_by(own).fit(data()));
    all(0, &errors(found), "fit.checkpoint");
}

#[test]
fn a_file_that_changes_in_the_middle_ends_all_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let y = tensor(5, &Loss::kl());
    let found = on(3, |own| {
        let (rank, range) = (own.rank(), part(SHAPE[0], own.rank(), 3));
        let path = folder.path().join(format!("part-{rank}.npy"));
        io::write_npy(&path, &rows(&y, &range))?;
        let mapped = Observations::new(io::map_npy(&path)?);
        let damage = move |sweep: &Sweep| {
            if rank == 1 && sweep.iteration == 3 {
                let file = fs::File::options().write(true).open(&path).unwrap();
                file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
            }
            Flow::Continue
        };
        let part = Part { mode: 0, range, whole: SHAPE[0] };
        settings().observe(damage).shared_by(own).fit_part(mapped, part)
    });
    let whole = settings().max_iter(3).fit(data()).unwrap();
    for (rank, error) in errors(found).into_iter().enumerate() {
        let Error::Broken { cause, last } = error else { panic!("{rank}: {error}") };
        assert!(cause.to_string().contains("part-1.npy"), "{rank}: {cause}");
        assert_eq!(matches!(*cause, Error::Process { rank: 1, .. }), rank != 1, "{cause}");
        // The last sweep that all have completed.
        assert_eq!(last.history.iterations, 3);
        assert_eq!(Fit::from(*last).factors(), whole.factors());
    }
}

#[test]
fn whoever_says_stop_stops_all_at_the_same_sweep() {
    let longer = settings().fit(data()).unwrap();
    let stopped = |by_observer: bool| {
        on(3, |own| {
            let (rank, cancel) = (own.rank(), Cancel::new());
            let inner = cancel.clone();
            let observer = move |sweep: &Sweep| match (rank, sweep.iteration) {
                (1, 4) if by_observer => Flow::Stop,
                (1, 4) => {
                    inner.cancel();
                    Flow::Continue
                }
                _ => Flow::Continue,
            };
            settings().cancel(&cancel).observe(observer).shared_by(own).fit(data())
        })
    };
    for (by_observer, reason) in [(false, StoppedBy::Interrupted), (true, StoppedBy::Observer)] {
        for fit in stopped(by_observer) {
            let fit = fit.unwrap();
            assert_eq!(fit.history().stopped_by, reason);
            assert_eq!(fit.history().iterations, 4);
            assert_eq!(fit.history().loss, longer.history().loss[..=4]);
        }
    }
}

#[test]
fn a_cancel_in_the_middle_of_a_sweep_stops_all() {
    // Thrown by the next process while this one is at work: all go back to the same point.
    let cancels: Vec<Cancel> = (0..3).map(|_| Cancel::new()).collect();
    let fits = on(3, |own| {
        let rank = own.rank();
        let all = cancels.clone();
        let observer = move |sweep: &Sweep| {
            if rank == 0 && sweep.iteration == 2 {
                let late = all[2].clone();
                std::thread::spawn(move || late.cancel());
            }
            Flow::Continue
        };
        settings()
            .max_iter(5000)
            .cancel(&cancels[rank])
            .observe(observer)
            .shared_by(own)
            .fit(data())
    });
    let first = bits(fits[0].as_ref().unwrap());
    for fit in &fits {
        let fit = fit.as_ref().unwrap();
        assert_eq!(fit.history().stopped_by, StoppedBy::Interrupted);
        assert_eq!(bits(fit), first);
    }
}

#[test]
fn a_checkpoint_goes_on_with_another_number_of_processes() {
    let folder = tempfile::tempdir().unwrap();
    for (early, loss) in [(false, Loss::kl()), (true, Loss::kl()), (false, Loss::euclidean())] {
        let path = folder.path().join(format!("{early}-{}.checkpoint", loss.name()));
        let data = || data().validation(if early { 0.2 } else { 0.0 }, 1).unwrap();
        let fit = |sweeps: usize| {
            let fit = settings().loss(loss.clone()).early_stopping(early).max_iter(sweeps);
            fit.data_as(nneinfact::fit::Format::Dense)
        };
        let whole = fit(17).fit(data()).unwrap();
        for first in
            on(3, |own| fit(9).checkpoint(&path, Every::sweeps(4)).shared_by(own).fit(data()))
        {
            assert_eq!(first.unwrap().history().iterations, 9);
        }
        let checkpoint = Checkpoint::read(&path).unwrap();
        assert_eq!(checkpoint.sweeps(), 9);
        for size in [1, 2, 4] {
            for resumed in
                on(size, |own| fit(17).resume(checkpoint.clone()).shared_by(own).fit(data()))
            {
                assert_eq!(bits(&resumed.unwrap()), bits(&whole), "{size}");
            }
        }
        // Neither with other slabs nor without.
        let other = fit(17).slabs(4).resume(checkpoint.clone()).fit(data());
        let text = other.unwrap_err().to_string();
        assert!(text.contains("5 slabs along mode 1 in the file, 4 slabs along mode 1"), "{text}");
        let ordinary = NNEinFact::new("ir,jr,kr->ijk").unwrap().ranks([('r', 3)]);
        let ordinary = ordinary.device(Device::cpu()).precision(Precision::F64);
        let text = ordinary.resume(checkpoint).fit(data()).unwrap_err().to_string();
        assert!(text.contains("another fit"), "{text}");
    }
}

#[test]
fn what_slabs_cannot_do_is_refused() {
    let refused = |fit: Result<Fit, Error>, said: &str| {
        let text = fit.expect_err(said).to_string();
        assert!(text.contains(said), "{text}");
    };
    refused(settings().slabs(0).fit(data()), "at least 1 slab");
    refused(settings().split_along(3).fit(data()), "along mode 4: they have 3 modes");
    refused(settings().algorithm(Algorithm::Barrier).fit(data()), "the loss is kl");
    let part = Part { mode: 1, range: 0..6, whole: 6 };
    refused(settings().split_along(0).fit_part(data(), part), "a part along mode 2");
    refused(settings().fit_prepared(&data().prepare().unwrap()), "without slabs");
    let y = tensor(5, &Loss::kl());
    let two = Coupled::new([Tensor::new("ir,jr,kr->ijk", &y).unwrap()]);
    let text = two.settings(|all| all.ranks([('r', 2)]).slabs(2)).fit().unwrap_err().to_string();
    assert!(text.contains("several tensors"), "{text}");
    let mut negative = y.clone();
    negative[[11, 3, 2]] = -1.0;
    negative[[7, 5, 6]] = -2.0;
    for error in errors(on(4, |own| settings().shared_by(own).fit(&negative))) {
        let expected = settings().fit(&negative).unwrap_err().to_string();
        assert_eq!(error.to_string(), expected);
        assert!(expected.contains("[7, 5, 6]"), "{expected}");
    }
    let ordinary = NNEinFact::new("ir,jr,kr->ijk").unwrap().ranks([('r', 3)]);
    let expected = ordinary.fit(&negative).unwrap_err().to_string();
    assert_eq!(settings().fit(&negative).unwrap_err().to_string(), expected);
    let nothing = Observations::new(y.mapv(|_| f64::NAN)).nan_missing();
    refused(settings().fit(nothing), "nothing is observed");
}
