//! The real tensor of the NNEinFact paper: Uber pickups, 27 weeks × 24 hours × 7 weekdays × 100 × 100
//! cells of a map. It lies outside the repository; `NNEINFACT_UBER` names the file.

use std::path::PathBuf;
use std::sync::Arc;

use nneinfact::data::{Dense, Storage};
use nneinfact::fit::{Format, StoppedBy};
use nneinfact::{Fit, Loss, NNEinFact, Observations, io};

const MODEL: &str = "wr,hr,dr,ikr,jkr->whdij";

fn tensor() -> Option<Dense> {
    let Some(path) = std::env::var_os("NNEINFACT_UBER").map(PathBuf::from) else {
        eprintln!("skipped: NNEINFACT_UBER does not name the Uber tensor (uber.npz)");
        return None;
    };
    Some(io::read_npz(path, Some("Y")).expect("the Uber tensor reads"))
}

fn fit(loss: Loss, observations: &Observations, sweeps: usize) -> Fit {
    let fit = NNEinFact::new(MODEL)
        .and_then(|f| {
            f.ranks([('r', 10), ('k', 6)])
                .loss(loss)
                .max_iter(sweeps)
                .early_stopping(true)
                .fit(observations)
        })
        .expect("the fit runs to its end");
    falls(&fit);
    fit
}

fn falls(fit: &Fit) {
    let history = fit.history();
    for (n, pair) in history.loss.windows(2).enumerate() {
        assert!(pair[1] <= pair[0] * (1.0 + 1e-4), "the loss rose in sweep {}: {pair:?}", n + 1);
    }
    assert!(fit.factors().iter().flatten().all(|x| x.is_finite() && *x >= 0.0));
}

fn split(values: Dense) -> Observations {
    Observations::shared(Arc::new(values)).held_out(0.1, 0).unwrap().validation(0.05, 0).unwrap()
}

#[test]
fn kl_reaches_the_known_loss() {
    let Some(values) = tensor() else { return };
    assert_eq!(values.shape(), [27, 24, 7, 100, 100]);
    assert!(matches!(values.storage(), Storage::U16(_)), "counts are kept as u16");
    let fit = fit(Loss::kl(), &split(values), 150);
    let history = fit.history();
    assert!(history.returned_loss() < 0.0130, "{}", history.returned_loss());
    let held_out = history.heldout_loss[history.returned];
    assert!(held_out < 0.0140 && held_out > history.returned_loss(), "{held_out}");
}

#[test]
fn a_loss_without_a_closed_form_runs() {
    let Some(values) = tensor() else { return };
    let fit = fit(Loss::alpha_beta(0.7, 0.0).unwrap(), &split(values), 20);
    // The authors' code, from its own start, has 0.0198 after 10 block sweeps.
    assert!(fit.history().returned_loss() < 0.0200, "{}", fit.history().returned_loss());
    assert_eq!(fit.history().stopped_by, StoppedBy::MaxIter);
}

#[test]
fn euclid_falls_where_parts_of_the_map_are_empty() {
    let Some(values) = tensor() else { return };
    // All cells, so that each group's exact objective is lowered.
    let observations = Observations::shared(Arc::new(values));
    for data_as in [Format::Dense, Format::Sparse] {
        let fit = NNEinFact::new(MODEL)
            .and_then(|f| {
                f.ranks([('r', 10), ('k', 6)])
                    .loss(Loss::euclidean())
                    .data_as(data_as)
                    .max_iter(20)
                    .fit(&observations)
            })
            .expect("the fit runs to its end");
        falls(&fit);
        // Grouped majorization is above 0.6 after as many sweeps.
        assert!(fit.history().returned_loss() < 0.30, "{}", fit.history().returned_loss());
    }
}

#[test]
fn bernoulli_runs_on_whether_there_was_a_pickup() {
    let Some(values) = tensor() else { return };
    let any: Vec<bool> = values.iter().map(|count| count > 0.0).collect();
    let shape = values.shape().to_vec();
    drop(values);
    let values = Dense::from_vec(&shape, any).unwrap();
    assert!(matches!(values.storage(), Storage::U8(_)));
    // A constant probability, the density of 0.63 %, has a mean loss of 0.0383.
    let fit = fit(Loss::bernoulli(), &split(values), 20);
    assert!(fit.history().returned_loss() < 0.0100, "{}", fit.history().returned_loss());
}

#[test]
#[cfg(feature = "gpu")]
fn a_gpu_agrees() {
    use nneinfact::Device;

    let Some(gpu) = crate::common::gpu() else { return };
    let Some(values) = tensor() else { return };
    let observations = split(values);
    let run = |device: Device| {
        let fit = NNEinFact::new(MODEL).unwrap().ranks([('r', 10), ('k', 6)]).device(device);
        fit.data_as(Format::Dense).max_iter(2).fit(&observations).unwrap()
    };
    let (gpu, cpu) = (run(gpu), run(Device::cpu()));
    for (found, expected) in [
        (&gpu.history().loss, &cpu.history().loss),
        (&gpu.history().validation_loss, &cpu.history().validation_loss),
        (&gpu.history().heldout_loss, &cpu.history().heldout_loss),
    ] {
        assert_eq!(found.len(), expected.len());
        for (f, e) in found.iter().zip(expected) {
            assert!((f - e).abs() < 1e-5 * e, "{found:?} {expected:?}");
        }
    }
    let apart = crate::common::deviation(gpu.factors(), cpu.factors());
    assert!(apart < 2e-4, "{apart:.1e}");
}
