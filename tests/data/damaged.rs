//! Texts and archives that were damaged on the way: an answer or an error, never a panic. A long search is that of
//! the fuzz targets, or these with NNEINFACT_MUTATIONS.

use std::fs;
use std::io::Cursor;

use ndarray::array;
use nneinfact::fit::{Checkpoint, Every, History, Saved};
use nneinfact::io::{Table, read_matrix_market_from, write_npz_with};
use nneinfact::report::Report;
use nneinfact::{Device, Error, NNEinFact};

use crate::io::{Mutator, mutations};

/// How many were read, and how many refused.
#[derive(Default)]
struct Tally {
    good: usize,
    bad: usize,
}

impl Tally {
    /// Notes what came of a reading; an error has to say something.
    fn note<T>(&mut self, read: Result<T, Error>) -> Option<T> {
        match read {
            Ok(found) => {
                self.good += 1;
                Some(found)
            }
            Err(error) => {
                assert!(!error.to_string().is_empty());
                assert!(!matches!(error, Error::Internal(_)), "{error}");
                self.bad += 1;
                None
            }
        }
    }

    /// Mutations that are all refused, or all harmless, would test nothing.
    fn tells(&self) {
        assert!(self.good > 1 && self.bad > 10, "{} good, {} bad", self.good, self.bad);
    }
}

fn settings() -> NNEinFact {
    let fit = NNEinFact::new("ir,jr->ij").unwrap().ranks([('r', 2)]).device(Device::cpu());
    fit.max_iter(6).tolerance(0.0)
}

#[test]
fn damaged_tables_never_panic() {
    let text = "time,lat,who,n\n2014-04-01 00:11:00,40.76,b,1\n2014-04-02T23:59:59Z,-73.5,\"a, c\",2\n\
                1396310400,1e3,\"line\nbreak\",-0.5\n2014-12-31T23:00+02:00,NaN,é,12\n2016-02-29,0.25,b,3\n";
    let modes = [
        "date(time),who",
        "hour(time),bin(lat,3),top(who,2,other)",
        "week(time),round(n,1)",
        "prefix(who,1),yearmonth(time),bin(lat,-80:80:20)",
    ];
    let (mut mutator, mut tally) = (Mutator(20), Tally::default());
    for _ in 0..mutations() {
        let bytes = mutator.mutate(text.as_bytes());
        let modes = modes[mutator.next(modes.len())];
        let table = Table::from_reader(&bytes[..], "t.csv").memory_limit(64 << 20);
        let table = table.skip_bad(mutator.next(3) > 0).sum("n").modes(modes).unwrap();
        if let Some(tensor) = tally.note(table.read()) {
            let shape = tensor.shape();
            for (indices, n) in tensor.coords.iter().zip(shape) {
                assert!(indices.iter().all(|&i| (i as usize) < n));
                assert_eq!(indices.len(), tensor.values.len());
            }
            let _ = tensor.observations();
        }
    }
    tally.tells();
}

#[test]
fn damaged_matrix_market_never_panics() {
    let seeds = [
        "%%MatrixMarket matrix coordinate real general\n% a comment\n3 4 3\n1 1 0.5\n3 4 2\n2 2 1e3\n",
        "%%MatrixMarket matrix array integer symmetric\n2 2\n1\n2\n3\n",
        "%%MatrixMarket matrix coordinate pattern skew-symmetric\n3 3 1\n3 1\n",
    ];
    let (mut mutator, mut tally) = (Mutator(21), Tally::default());
    for _ in 0..mutations() {
        let seed = seeds[mutator.next(seeds.len())];
        let bytes = mutator.mutate(seed.as_bytes());
        if let Some(matrix) = tally.note(read_matrix_market_from(&bytes[..], "m.mtx")) {
            assert_eq!(matrix.coords[0].len(), matrix.values.len());
            let _ = matrix.observations();
        }
    }
    tally.tells();
}

#[test]
fn damaged_files_of_fits_never_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f.npz");
    let y = array![[1.0, 2.0, 4.0], [3.0, 4.0, 1.0], [5.0, 7.0, 2.0]];
    let fit = settings().fit(&y).unwrap();
    fit.save(&path).unwrap();
    let whole = fs::read(&path).unwrap();
    let record = nneinfact::io::read_npz_text(&path, "fit.json").unwrap().unwrap();
    let factors = [("theta_1", fit.factors()[0].clone()), ("theta_2", fit.factors()[1].clone())];
    let (mut mutator, mut archives, mut records) =
        (Mutator(22), Tally::default(), Tally::default());
    for _ in 0..mutations() {
        let bytes = mutator.mutate(&whole);
        archives.note(Saved::read_from(Cursor::new(bytes), "f.npz"));
        // The record alone: archives have checksums, which hide it from mutations.
        let text = String::from_utf8_lossy(&mutator.mutate(record.as_bytes())).into_owned();
        write_npz_with(&path, &factors, &[("fit.json", &text)]).unwrap();
        if let Some(saved) = records.note(Saved::load(&path)) {
            let _ = saved.factored().predict(&[0, 0]);
            assert!(Report::new(&saved).html().starts_with("<!DOCTYPE html>"));
        }
    }
    assert!(archives.bad > 10, "{}", archives.bad);
    records.tells();
}

#[test]
fn damaged_histories_never_panic() {
    let fit = settings().fit(&array![[1.0, 2.0], [3.0, 4.0], [5.0, 7.0]]).unwrap();
    let text = serde_json::to_string(fit.history()).unwrap();
    let saved = Saved::from_factors("ir,jr->ij", fit.factors().to_vec()).unwrap();
    let (mut mutator, mut tally) = (Mutator(23), Tally::default());
    for _ in 0..mutations() {
        let Ok(history) = serde_json::from_slice::<History>(&mutator.mutate(text.as_bytes()))
        else {
            tally.bad += 1;
            continue;
        };
        let saved = saved.clone().with_history(history);
        tally.good += 1;
        let report = Report::new(&saved);
        assert!(!report.html().contains("NaN"));
        let _ = report.svg();
    }
    tally.tells();
}

#[test]
fn damaged_checkpoints_never_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c");
    let y = array![[1.0, 2.0], [3.0, 4.0], [5.0, 7.0]];
    settings().max_iter(3).checkpoint(&path, Every::sweeps(1)).fit(&y).unwrap();
    let whole = fs::read(&path).unwrap();
    assert!(settings().resume(Checkpoint::read(&path).unwrap()).fit(&y).is_ok());
    let (mut mutator, mut tally) = (Mutator(24), Tally::default());
    for _ in 0..mutations() {
        fs::write(&path, mutator.mutate(&whole)).unwrap();
        if let Some(checkpoint) = tally.note(Checkpoint::read(&path)) {
            let _ = settings().resume(checkpoint).fit(&y);
        }
    }
    assert!(tally.bad > 10, "{}", tally.bad);
}
