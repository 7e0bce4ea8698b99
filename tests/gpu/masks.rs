//! Masks and hold-outs on a GPU: closed forms by roles, and exact steps.

use crate::common::{Case, Random, deviation};
use nneinfact::fit::{Cancel, Format};
use nneinfact::loss::Penalty;
use nneinfact::plan::ImplicitForm;
use nneinfact::{Algorithm, Device, Fit, Loss, NNEinFact, Observations, wgpu};

fn bits(fit: &Fit) -> Vec<u64> {
    let factors = fit.factors().iter().flatten();
    factors.chain(&fit.history().loss).map(|x| x.to_bits()).collect()
}

/// The largest deviation of two histories, relative to the largest number of one.
fn apart(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let most = expected.iter().fold(0.0, |m: f64, x| m.max(x.abs()));
    found.iter().zip(expected).fold(0.0, |m, (f, e)| m.max((f - e).abs() / most))
}

/// Counts of which few are not 0, as the paper's are.
fn counts(shape: &[usize], seed: u64) -> ndarray::ArrayD<f64> {
    let mut random = Random::new(seed);
    random.tensor(shape, 0.0, 1.0).mapv(|u| if u < 0.9 { 0.0 } else { (40.0 * (u - 0.9)).ceil() })
}

fn split(y: &ndarray::ArrayD<f64>) -> Observations {
    Observations::new(y).held_out(0.1, 1).unwrap().validation(0.05, 1).unwrap()
}

/// A device as a browser would give it: under strict compliance with WebGPU, with its least limits.
fn strict() -> Option<Device> {
    crate::common::gpu()?;
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends: wgpu::Backends::PRIMARY,
        flags: wgpu::InstanceFlags::VALIDATION | wgpu::InstanceFlags::STRICT_WEBGPU_COMPLIANCE,
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    let options = wgpu::RequestAdapterOptions::default();
    // Some software drivers do not comply.
    let adapter = pollster::block_on(instance.request_adapter(&options)).ok()?;
    let request = wgpu::DeviceDescriptor::default();
    let (device, queue) = pollster::block_on(adapter.request_device(&request)).unwrap();
    Some(Device::from_wgpu(device, queue).unwrap())
}

#[test]
fn closed_forms_under_splits_agree_with_the_cpu() {
    let Some(device) = crate::common::gpu() else { return };
    let devices = [("gpu", Some(device)), ("strict gpu", strict())];
    let shape = [9, 5, 11, 13, 17];
    let case = Case::new("Uber, first", &shape, Loss::kl(), 5);
    let observations = split(&counts(&shape, 3));
    for format in [Format::Dense, Format::Sparse] {
        let run = |device: &Device| {
            let settings = case.settings(device).algorithm(Algorithm::Grouped).max_iter(8);
            settings.data_as(format).fit(&observations).unwrap()
        };
        let cpu = run(&Device::cpu());
        for (name, device) in &devices {
            let Some(device) = device else { continue };
            let gpu = run(device);
            let settings = gpu.plan().settings();
            match format {
                Format::Dense => assert!(settings.closed_denominator, "{name}"),
                _ => {
                    let implicit = settings.sparse.map(|sparse| sparse.implicit);
                    assert_eq!(implicit, Some(ImplicitForm::ByRole), "{name}");
                }
            }
            let (g, c) = (gpu.history(), cpu.history());
            for (found, expected) in [
                (&g.loss, &c.loss),
                (&g.validation_loss, &c.validation_loss),
                (&g.heldout_loss, &c.heldout_loss),
            ] {
                let off = apart(found, expected);
                assert!(off <= 1e-4, "{name}, {format:?}: losses {off:.1e} apart");
            }
            let off = deviation(gpu.factors(), cpu.factors());
            assert!(off <= 5e-4, "{name}, {format:?}: factors {off:.1e} apart");
        }
    }
}

/// Sweep by sweep, and by the least that a browser guarantees.
#[test]
fn exact_steps_under_splits_agree_with_the_cpu() {
    let Some(device) = crate::common::gpu() else { return };
    let shape = [9, 5, 11, 13, 17];
    let case = Case::new("Uber, first", &shape, Loss::euclidean(), 5);
    let observations = split(&counts(&shape, 3));
    for format in [Format::Dense, Format::Sparse] {
        let run = |device: &Device| {
            let settings = case.settings(device).algorithm(Algorithm::Accelerated).max_iter(6);
            settings.data_as(format).fit(&observations).unwrap()
        };
        let cpu = run(&Device::cpu());
        for (name, device) in [("gpu", Some(device.clone())), ("strict gpu", strict())] {
            let Some(device) = device else { continue };
            let gpu = run(&device);
            let (g, c) = (gpu.history(), cpu.history());
            for (found, expected) in [
                (&g.loss, &c.loss),
                (&g.validation_loss, &c.validation_loss),
                (&g.heldout_loss, &c.heldout_loss),
            ] {
                let off = apart(found, expected);
                assert!(off <= 1e-3, "{name}, {format:?}: losses {off:.1e} apart");
            }
        }
    }
}

/// Exact steps take as many sweeps as on the CPU, to the same loss.
#[test]
fn euclid_takes_the_sweeps_of_the_cpu() {
    let Some(device) = crate::common::gpu() else { return };
    let y = counts(&[60, 45], 7);
    for format in [Format::Dense, Format::Sparse] {
        let run = |device: &Device, algorithm| {
            let settings = NNEinFact::new("ir,jr->ij").unwrap().ranks([('r', 5)]);
            let settings = settings.loss(Loss::euclidean()).device(device.clone());
            settings.algorithm(algorithm).data_as(format).max_iter(300).fit(&y).unwrap()
        };
        let cpu = run(&Device::cpu(), Algorithm::Accelerated);
        let gpu = run(&device, Algorithm::Accelerated);
        let (found, expected) = (gpu.history().iterations, cpu.history().iterations);
        assert!(found.abs_diff(expected) <= 2 + expected / 4, "{found} sweeps for {expected}");
        let (found, expected) = (gpu.history().last_loss(), cpu.history().last_loss());
        assert!((found - expected).abs() <= 1e-3 * expected, "{format:?}: {found} for {expected}");
        // The steps are others than those of majorization.
        let majorized = run(&device, Algorithm::Block);
        assert!(gpu.history().loss[1] < majorized.history().loss[1]);
    }
}

/// So they do where entries are held out, and beside penalties.
#[test]
fn euclid_takes_the_sweeps_of_the_cpu_under_hold_outs_and_penalties() {
    let Some(device) = crate::common::gpu() else { return };
    let y = counts(&[60, 45], 7);
    let all = || Observations::new(&y);
    let held = || all().held_out(0.1, 1).unwrap();
    let weighted = || all().weights(y.mapv(|x| 1.0 + 0.5 * f64::from(x > 1.0))).unwrap();
    let cases = [
        (Format::Dense, held(), None),
        (Format::Sparse, held(), None),
        (Format::Dense, weighted(), None),
        (Format::Dense, all(), Some(Penalty::l1(0.05))),
        (Format::Sparse, held(), Some(Penalty::l2(0.05))),
    ];
    for (n, (format, data, penalty)) in cases.into_iter().enumerate() {
        let run = |device: &Device, algorithm| {
            let settings = NNEinFact::new("ir,jr->ij").unwrap().ranks([('r', 5)]);
            let settings = settings.loss(Loss::euclidean()).device(device.clone());
            let settings = settings.algorithm(algorithm).data_as(format).max_iter(300);
            match penalty {
                Some(penalty) => settings.penalty_on_all(penalty).fit(&data).unwrap(),
                None => settings.fit(&data).unwrap(),
            }
        };
        let cpu = run(&Device::cpu(), Algorithm::Accelerated);
        let gpu = run(&device, Algorithm::Accelerated);
        let (found, expected) = (gpu.history().iterations, cpu.history().iterations);
        assert!(found.abs_diff(expected) <= 2 + expected / 4, "{n}: {found} sweeps for {expected}");
        let (found, expected) = (gpu.history().last_loss(), cpu.history().last_loss());
        assert!((found - expected).abs() <= 1e-3 * expected, "{n}: {found} for {expected}");
        for (found, expected) in gpu.history().heldout_loss.iter().zip(&cpu.history().heldout_loss)
        {
            assert!((found - expected).abs() <= 0.02 * expected, "{n}: {found} for {expected}");
        }
        let majorized = run(&device, Algorithm::Block);
        assert!(gpu.history().loss[1] < majorized.history().loss[1], "{n}");
    }
}

/// Fits that share data and lists on the device are those that are made one by one.
#[test]
fn fits_of_several_seeds_share_a_device() {
    let Some(device) = crate::common::gpu() else { return };
    let data = split(&counts(&[9, 8, 7], 2)).prepare().unwrap();
    let settings = || {
        let settings = NNEinFact::new("ir,jr,ar->ija").unwrap().ranks([('r', 3)]);
        settings.loss(Loss::kl()).device(device.clone()).max_iter(6)
    };
    let fits = settings().ready(&data).unwrap();
    for seed in [3, 1] {
        let shared = fits.fit(seed, &Cancel::new(), Vec::new()).unwrap();
        let alone = settings().seed(seed).fit_prepared(&data).unwrap();
        assert!(bits(&shared) == bits(&alone), "seed {seed}");
    }
}
