//! Sweeps that a GPU makes without the host: histories, factors and ends are those of fits whose host
//! looks at every sweep, as it does where it keeps a checkpoint.

use crate::common::{Case, losses};
use nneinfact::fit::{Every, Flow, Format, StoppedBy, Sweep};
use nneinfact::{Device, Fit, Loss, NNEinFact, Observations};

/// All that a fit tells, but for its seconds.
fn told(fit: &Fit) -> (Vec<u64>, Vec<usize>, String) {
    let history = fit.history();
    let numbers = history.loss.iter().chain(&history.validation_loss).chain(&history.heldout_loss);
    let numbers = numbers.chain(fit.factors().iter().flatten());
    let end = format!("{} after {}", history.stopped_by, history.iterations);
    let sweeps = history.sweeps.iter().copied().chain([history.returned]);
    (numbers.map(|x| x.to_bits()).collect(), sweeps.collect(), end)
}

/// A fit whose host looks rarely, having been held against the one whose host looks at every sweep.
fn same(what: &str, data: &Observations, settings: &dyn Fn() -> NNEinFact) -> Fit {
    let folder = tempfile::tempdir().unwrap();
    let seen = settings().checkpoint(folder.path().join("fit"), Every::sweeps(1_000_000));
    let seen = seen.fit(data).unwrap();
    let unseen = settings().fit(data).unwrap();
    assert_eq!(told(&unseen), told(&seen), "{what}");
    unseen
}

#[test]
fn fits_end_as_if_the_host_had_looked_at_every_sweep() {
    let Some(device) = crate::common::gpu() else { return };
    for (name, shape) in [
        ("CP, 3 modes", &[9, 8, 7][..]),
        ("Uber, second", &[5, 4, 3, 6, 7]),
        ("Tucker", &[9, 8, 7]),
    ] {
        for (loss, format) in [
            (Loss::kl(), Format::Dense),
            (Loss::kl(), Format::Sparse),
            (Loss::alpha_beta(0.7, 0.0).unwrap(), Format::Dense),
        ] {
            let what = format!("{name} under {} {format:?}", loss.name());
            let case = Case::new(name, shape, loss, 11);
            let settings = || case.settings(&device).data_as(format);
            let all = case.observations();
            let fit = same(&what, &all, &|| settings().max_iter(40));
            assert_eq!(fit.history().stopped_by, StoppedBy::MaxIter, "{what}");
            assert_eq!(fit.history().loss.len(), 41, "{what}");
            // The host stops where the device is beyond.
            let fit = same(&what, &all, &|| settings().max_iter(500).tolerance(3e-3));
            assert_eq!(fit.history().stopped_by, StoppedBy::Tolerance, "{what}");
            let fit = same(&what, &all, &|| {
                settings().max_iter(40).observe(|sweep: &Sweep| match sweep.iteration {
                    17 => Flow::Stop,
                    _ => Flow::Continue,
                })
            });
            assert_eq!(fit.history().iterations, 17, "{what}");
        }
    }
}

/// The point with the lowest validation loss lies before the last sweep, among many that the device made.
#[test]
fn early_stopping_returns_the_point_that_the_host_would_have_kept() {
    let Some(device) = crate::common::gpu() else { return };
    let mut kinds = Vec::new();
    for (seed, loss) in losses().into_iter().take(2).enumerate() {
        let case = Case::new("Uber, second", &[5, 4, 3, 6, 7], loss, 3 + seed as u64);
        let data = case.observations().held_out(0.1, 5).unwrap().validation(0.3, 5).unwrap();
        let what = case.loss.name().to_string();
        let fit = same(&what, &data, &|| case.settings(&device).early_stopping(true).max_iter(300));
        kinds.push(fit.history().stopped_by);
    }
    assert!(kinds.contains(&StoppedBy::Validation), "{kinds:?}");
}

/// Penalties are summed up by the host, bounds and fixed factors are not its concern.
#[test]
fn bounded_and_fixed_factors_go_without_the_host() {
    let Some(device) = crate::common::gpu() else { return };
    let case = Case::new("CP, 3 modes", &[9, 8, 7], Loss::kl(), 7);
    let fixed = case.start[2].clone();
    let settings = || case.settings(&device).bounds("ir", 0.2, 1.5).fix("ar", fixed.clone());
    let fit = same("bounds", &case.observations(), &|| settings().max_iter(30));
    assert!(fit.factors()[0].iter().all(|&x| (0.2..=1.5).contains(&x)));
    assert_eq!(fit.factors()[2], fixed);
}

#[test]
fn a_profile_counts_the_dispatches_of_a_sweep() {
    let Some(device) = crate::common::gpu() else { return };
    let case = Case::new("CP, 3 modes", &[9, 8, 7], Loss::kl(), 7);
    let (plan, passes, on_gpu) = case.settings(&device).profile(case.observations(), 1).unwrap();
    assert_eq!(passes.len(), plan.groups().len());
    // Two passes over the data, something before and after each, and the decision.
    assert!(on_gpu.is_some_and(|count| (5..=15).contains(&count)), "{on_gpu:?}");
    let on_cpu = case.settings(&Device::cpu()).profile(case.observations(), 1).unwrap().2;
    assert_eq!(on_cpu, None);
}
