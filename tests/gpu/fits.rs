//! Fits on a GPU against fits on the CPU and the reference.

use crate::common::{CORPUS, Case, Random, deviation, losses};
use ndarray::ArrayD;
use nneinfact::engine::DriverLock;
use nneinfact::fit::{Cancel, Flow, Format, Start, Sweep};
use nneinfact::reference::Problem;
use nneinfact::{Algorithm, Device, Error, Fit, Loss, NNEinFact, Observations, wgpu};
use proptest::prelude::*;

/// The largest deviation of losses, relative to the largest of them.
fn losses_apart(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let scale = expected.iter().fold(0.0, |m: f64, x| m.max(x.abs()));
    found.iter().zip(expected).fold(0.0, |m, (f, e)| m.max((f - e).abs() / scale))
}

fn bits(fit: &Fit) -> Vec<u64> {
    let factors = fit.factors().iter().flatten();
    factors.chain(&fit.history().loss).map(|x| x.to_bits()).collect()
}

/// The GPU with sums in registers, and with passes in two halves.
fn both() -> Option<[(&'static str, Device); 2]> {
    let device = crate::common::gpu()?;
    Some([("rows", device.clone()), ("tiles", device.register_inner(0))])
}

#[test]
fn grouped_sweeps_agree_with_the_cpu_over_the_corpus() {
    let Some(devices) = both() else { return };
    let every = losses();
    let mut wrong = Vec::new();
    for i in crate::common::gpu_cases(CORPUS.len()) {
        let entry = &CORPUS[i];
        let modes = entry.modes();
        let shape: Vec<usize> = (0..modes)
            .map(|m| if modes > 4 { 2 + (i + m) % 3 } else { 3 + (3 * i + 5 * m) % 7 })
            .collect();
        for (j, (kernel, device)) in devices.iter().enumerate() {
            // Every loss has its turn.
            let loss = every[(2 * i + j) % every.len()].clone();
            let case = Case::new(entry.name, &shape, loss, 7 * i as u64 + 1);
            let run = |device: &Device, groups: Option<Vec<Vec<usize>>>| {
                let observations = case.observations().held_out(0.2, 3).unwrap();
                let observations = observations.validation(0.1, 3).unwrap();
                let settings = case.settings(device).algorithm(Algorithm::Grouped);
                let settings = match groups {
                    Some(groups) => settings.groups(groups),
                    None => settings,
                };
                settings.max_iter(10).fit(&observations)
            };
            let what = format!("{} ({shape:?}) under {} by {kernel}", entry.name, case.loss.name());
            let gpu = run(device, None);
            // Small data may be fitted as a list on the CPU, by groups of its own.
            let groups = gpu
                .as_ref()
                .ok()
                .map(|fit| fit.plan().groups().iter().map(|group| group.factors.clone()).collect());
            match (gpu, run(&Device::cpu(), groups)) {
                (Ok(gpu), Ok(cpu)) => {
                    let apart = deviation(gpu.factors(), cpu.factors());
                    let (g, c) = (gpu.history(), cpu.history());
                    let lost = losses_apart(&g.loss, &c.loss)
                        .max(losses_apart(&g.validation_loss, &c.validation_loss))
                        .max(losses_apart(&g.heldout_loss, &c.heldout_loss));
                    if !(apart <= 2e-4 && lost <= 1e-4) {
                        wrong.push(format!("{what}: factors {apart:.1e}, losses {lost:.1e} apart"));
                    }
                }
                (gpu, cpu) => wrong.push(format!(
                    "{what}: {:?} on the GPU, {:?} on the CPU",
                    gpu.err().map(|e| e.to_string()),
                    cpu.err().map(|e| e.to_string())
                )),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A plan with little memory walks over letters that partners of the target have and the target has
/// not: what its sums are multiplied with changes on the way.
#[test]
fn partners_that_move_agree_with_the_cpu() {
    let Some(devices) = both() else { return };
    let shape = [13, 11, 31];
    for (kernel, device) in devices {
        for loss in [Loss::kl(), Loss::alpha_beta(0.7, 0.0).unwrap()] {
            let case = Case::new("many-body of rank r", &shape, loss, 23);
            let run = |device: &Device| {
                let observations = case.observations().held_out(0.2, 3).unwrap();
                let settings = case.settings(device).algorithm(Algorithm::Block);
                settings.memory_limit(24_000).max_iter(5).fit(&observations).unwrap()
            };
            let apart = deviation(run(&device).factors(), run(&Device::cpu()).factors());
            assert!(apart < 2e-4, "{kernel}, {}: {apart:.1e}", case.loss.name());
        }
    }
}

/// Letters that one tensor of a contraction has alone are summed over first, where there is much to
/// save.
#[test]
fn letters_that_one_factor_has_alone_agree_with_the_cpu() {
    let Some(device) = crate::common::gpu() else { return };
    let mut random = Random::new(6);
    let y = random.tensor(&[100, 90], 0.0, 9.0).mapv(f64::round);
    let run = |device: &Device| {
        let settings = NNEinFact::new("irz,jr->ij").unwrap().ranks([('r', 2), ('z', 7)]);
        let settings = settings.device(device.clone()).groups(vec![vec![0, 1]]);
        settings.algorithm(Algorithm::Grouped).max_iter(5).tolerance(0.0).fit(&y).unwrap()
    };
    let apart = deviation(run(&device).factors(), run(&Device::cpu()).factors());
    assert!(apart < 2e-4, "{apart:.1e}");
}

#[test]
fn repetition_does_not_change_a_bit() {
    let Some(devices) = both() else { return };
    for (kernel, device) in devices {
        let case = Case::new("Uber, first", &[9, 5, 11, 13, 17], Loss::kl(), 5);
        let run = || {
            let observations = case.observations().held_out(0.1, 1).unwrap();
            case.settings(&device).max_iter(12).fit(&observations).unwrap()
        };
        assert_eq!(bits(&run()), bits(&run()), "{kernel}");
    }
}

#[test]
fn every_type_of_data_and_loss_is_read() {
    let Some(devices) = both() else { return };
    let shape = [13, 37];
    let mut random = Random::new(11);
    for (kernel, device) in devices {
        for largest in [200.0, 60_000.0, 3e6, 0.7] {
            let y = random.tensor(&shape, 0.0, largest);
            let y =
                if largest > 1.0 { y.mapv(f64::round) } else { y.mapv(|x| f64::from(x as f32)) };
            let weights = random.tensor(&shape, 0.0, 3.0).mapv(|w| f64::from(w as f32));
            let trials = y.mapv(|x| x.ceil() + 3.0);
            for loss in [Loss::kl(), Loss::binomial(trials).unwrap()] {
                let whole = y.mapv(f64::round);
                let y = if loss.is_odds() { &whole } else { &y };
                let run = |device: &Device| {
                    // Not in C order, and a slice of a mask and of weights with it.
                    let observations = Observations::new(y.t()).weights(weights.t()).unwrap();
                    let loss = match loss.is_odds() {
                        true => {
                            let sides = loss.entry_parameters()[0].t().to_owned();
                            Loss::binomial(sides).unwrap()
                        }
                        false => loss.clone(),
                    };
                    let settings = NNEinFact::new("jr,ir->ji").unwrap().ranks([('r', 5)]);
                    settings
                        .loss(loss)
                        .device(device.clone())
                        .algorithm(Algorithm::Grouped)
                        .max_iter(10)
                        .tolerance(0.0)
                        .fit(&observations)
                        .unwrap()
                };
                let (gpu, cpu) = (run(&device), run(&Device::cpu()));
                let apart = deviation(gpu.factors(), cpu.factors());
                assert!(apart < 2e-4, "{kernel}, {} to {largest}: {apart:.1e}", loss.name());
            }
        }
    }
}

#[test]
fn inner_dimensions_of_every_size_agree() {
    let Some(device) = crate::common::gpu() else { return };
    let ranks = [1, 2, 4, 5, 12, 31, 48, 49, 70, 131];
    for rank in crate::common::gpu_cases(ranks.len()).map(|n| ranks[n]) {
        let mut random = Random::new(rank as u64);
        let y = random.tensor(&[70, 83], 0.0, 9.0).mapv(f64::round);
        let run = |device: &Device| {
            let settings = NNEinFact::new("ir,jr->ij").unwrap().ranks([('r', rank)]);
            settings
                .loss(Loss::alpha_beta(0.7, 0.0).unwrap())
                .device(device.clone())
                .algorithm(Algorithm::Block)
                .max_iter(5)
                .tolerance(0.0)
                .fit(&y)
                .unwrap()
        };
        let (gpu, cpu) = (run(&device), run(&Device::cpu()));
        let apart = deviation(gpu.factors(), cpu.factors());
        assert!(apart < 2e-4, "rank {rank}: {apart:.1e}");
    }
}

/// A GPU that allows what the smallest would, and less.
fn absurdly_small() -> Device {
    let limits = wgpu::Limits {
        max_storage_buffer_binding_size: 16 << 10,
        max_buffer_size: 64 << 10,
        max_uniform_buffer_binding_size: 4 << 10,
        max_compute_workgroup_storage_size: 16 << 10,
        max_compute_invocations_per_workgroup: 64,
        max_compute_workgroup_size_x: 64,
        ..wgpu::Limits::default()
    };
    Device::gpu_within(&limits).unwrap()
}

/// Data, roles and sums in many slabs, dispatches cut and folded.
#[test]
fn absurdly_small_limits_change_nothing() {
    let Some(_) = crate::common::gpu() else { return };
    let small = absurdly_small();
    for (kernel, device) in [("rows", small.clone()), ("tiles", small.register_inner(0))] {
        for (name, shape) in [
            ("Uber, first", vec![9, 5, 11, 13, 17]),
            ("CP, 3 modes", vec![40, 50, 31]),
            ("many-body", vec![13, 11, 31]),
        ] {
            let case = Case::new(name, &shape, Loss::kl(), 3);
            let run = |device: &Device| {
                let observations = case.observations().held_out(0.2, 3).unwrap();
                // One factor at a time: less memory may mean other groups.
                let settings = case.settings(device).algorithm(Algorithm::Block);
                settings.max_iter(5).fit(&observations).unwrap()
            };
            let (gpu, cpu) = (run(&device), run(&Device::cpu()));
            let apart = deviation(gpu.factors(), cpu.factors());
            assert!(apart < 2e-4, "{name} by {kernel}: {apart:.1e}");
            let lost = losses_apart(&gpu.history().heldout_loss, &cpu.history().heldout_loss);
            assert!(lost < 1e-4, "{name} by {kernel}: {lost:.1e}");
        }
    }
}

/// Lists in many parts, rows in many of these, sums of pieces that are added between them.
#[test]
fn lists_are_cut_for_absurdly_small_limits() {
    let Some(_) = crate::common::gpu() else { return };
    let small = absurdly_small();
    for loss in [Loss::kl(), Loss::negative_binomial(2.0).unwrap()] {
        let mut case = Case::new("CP, 3 modes", &[4, 45, 41], loss, 3);
        let mut random = Random::new(8);
        case.y.mapv_inplace(|x| if random.uniform() < 0.6 { 0.0 } else { x });
        let mask = random.mask(case.y.shape(), 0.9);
        let run = |device: &Device| {
            let observations = case.observations().mask(&mask).unwrap();
            let observations = observations.held_out(0.1, 3).unwrap();
            let settings = case.settings(device).algorithm(Algorithm::Block);
            settings.data_as(Format::Sparse).max_iter(5).fit(&observations).unwrap()
        };
        let (gpu, cpu) = (run(&small), run(&Device::cpu()));
        assert!(!gpu.plan().sparse_passes().is_empty());
        let apart = deviation(gpu.factors(), cpu.factors());
        assert!(apart < 2e-4, "{}: {apart:.1e}", case.loss.name());
        let lost = losses_apart(&gpu.history().heldout_loss, &cpu.history().heldout_loss);
        assert!(lost < 1e-4, "{}: {lost:.1e}", case.loss.name());
        let lost = losses_apart(&gpu.history().loss, &cpu.history().loss);
        assert!(lost < 1e-4, "{}: {lost:.1e}", case.loss.name());
    }
}

/// Data that are larger than the memory that a fit may take on the device: slabs take turns on it,
/// with the bits of a fit that has all data there where the slabs are the same.
#[test]
fn slabs_that_take_turns_change_nothing() {
    let Some(_) = crate::common::gpu() else { return };
    let limits = wgpu::Limits {
        max_storage_buffer_binding_size: 64 << 10,
        max_buffer_size: 64 << 10,
        ..wgpu::Limits::default()
    };
    let small = Device::gpu_within(&limits).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for (kernel, device) in [("rows", small.clone()), ("tiles", small.register_inner(0))] {
        for (name, shape, loss, same) in [
            ("CP, 3 modes", vec![23, 41, 67], Loss::kl(), true),
            // With its sums and products, too much for two slabs as large as a shader can see: smaller
            // ones differ by rounding.
            ("NMF, transposed output", vec![150, 401], Loss::alpha_beta(0.7, 0.0).unwrap(), false),
        ] {
            let mut case = Case::new(name, &shape, loss, 3);
            // Quarters would be kept as singles anyway; these cannot be anything smaller.
            case.y.mapv_inplace(|x| f64::from(x as f32 + 0.1));
            let path = folder.path().join("y.npy");
            nneinfact::io::write_npy(&path, &case.y).unwrap();
            let mapped = nneinfact::io::map_npy_in(&path, 50_000).unwrap();
            let weights = case.y.mapv(|x| 1.0 + (x * 10.0).round() % 3.0);
            for masked in [false, true] {
                let observe = |o: Observations| match masked {
                    true => o.held_out(0.2, 3).unwrap().weights(&weights).unwrap(),
                    false => o,
                };
                let run = |device: &Device, o: Observations| {
                    let settings = case.settings(device).algorithm(Algorithm::Block);
                    settings.max_iter(2).fit(observe(o)).unwrap()
                };
                let what = format!("{name} by {kernel}, masked: {masked}");
                let resident = run(&device, case.observations());
                // What is known of a cell, with a byte of weight and two bits of role, is more than
                // this.
                let bytes = case.y.len() as u64 * if masked { 21 } else { 16 } / 4;
                let less = device.clone().within_memory(bytes * 9 / 10);
                let turns = run(&less, case.observations());
                let apart = deviation(turns.factors(), resident.factors());
                // The other kernel keeps entries of a slab beside it.
                let same = same && kernel == "rows";
                assert!(if same { apart == 0.0 } else { apart < 1e-5 }, "{what}: {apart:.1e}");
                for (device, expected) in [(&device, &resident), (&less, &turns)] {
                    let streamed = run(device, Observations::new(mapped.clone()));
                    assert_eq!(bits(&streamed), bits(expected), "{what}, from a file");
                }
                let cpu = run(&Device::cpu(), case.observations());
                let apart = deviation(turns.factors(), cpu.factors());
                assert!(apart < 2e-4, "{what}: {apart:.1e}");
            }
        }
    }
}

/// Slabs smaller than those that a shader could see differ by rounding.
#[test]
fn smaller_slabs_agree_and_what_does_not_fit_is_said() {
    let Some(device) = crate::common::gpu() else { return };
    let mut case = Case::new("CP, 3 modes", &[120, 100, 250], Loss::kl(), 3);
    case.y.mapv_inplace(|x| f64::from(x as f32 + 0.1));
    let bytes = 4 * case.y.len() as u64;
    let settings = |device: &Device| case.settings(device).max_iter(2).algorithm(Algorithm::Block);
    let turns = settings(&device.clone().within_memory(bytes * 9 / 10));
    let (turns, cpu) = (
        turns.fit(case.observations()).unwrap(),
        settings(&Device::cpu()).fit(case.observations()).unwrap(),
    );
    let apart = deviation(turns.factors(), cpu.factors());
    assert!(apart < 2e-4, "{apart:.1e}");

    let refused = settings(&device.within_memory(10_000)).fit(case.observations()).unwrap_err();
    let said = refused.to_string();
    assert!(matches!(refused, Error::DeviceMemory { .. }), "{said}");
    assert!(said.contains("9.8 KiB"), "{said}");
}

#[test]
fn factors_that_do_not_fit_a_shader_are_refused() {
    let Some(_) = crate::common::gpu() else { return };
    let limits = wgpu::Limits {
        max_storage_buffer_binding_size: 16 << 10,
        max_buffer_size: 64 << 10,
        ..wgpu::Limits::default()
    };
    let device = Device::gpu_within(&limits).unwrap();
    let y = ndarray::Array2::<f64>::ones((100, 100));
    let settings = NNEinFact::new("ir,jr->ij").unwrap().ranks([('r', 60)]).device(device);
    let refused = settings.fit(&y).unwrap_err();
    let said = refused.to_string();
    assert!(matches!(refused, Error::Memory { .. }), "{said}");
    assert!(said.contains("lower the ranks"), "{said}");
}

/// A device of our own, as a program that draws or computes with it has one.
fn own() -> Option<(wgpu::Device, wgpu::Queue)> {
    crate::common::gpu()?;
    // Other tests may be using a software driver meanwhile.
    let _lock = DriverLock::take();
    let instance =
        wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env());
    let backends = wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12;
    let adapter = pollster::block_on(instance.enumerate_adapters(backends)).remove(0);
    let request = wgpu::DeviceDescriptor::default();
    Some(pollster::block_on(adapter.request_device(&request)).unwrap())
}

#[test]
fn a_device_of_ones_own_goes_on_working() {
    let Some((device, queue)) = own() else { return };
    let case = Case::new("CP, 3 modes", &[7, 9, 8], Loss::kl(), 2);
    let ours = Device::from_wgpu(device.clone(), queue.clone()).unwrap();
    let gpu = case.settings(&ours).max_iter(5).fit(case.observations()).unwrap();
    let cpu = case.settings(&Device::cpu()).max_iter(5).fit(case.observations()).unwrap();
    assert!(deviation(gpu.factors(), cpu.factors()) < 2e-4);
    drop((gpu, ours));
    // The device still copies what it is told to.
    let _lock = DriverLock::take();
    let usage = wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ;
    let buffer = device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: 4,
        usage,
        mapped_at_creation: false,
    });
    queue.write_buffer(&buffer, 0, &[1, 2, 3, 4]);
    queue.submit([]);
    buffer.map_async(wgpu::MapMode::Read, .., |done| done.unwrap());
    device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
    assert_eq!(&*buffer.get_mapped_range(..).unwrap(), &[1, 2, 3, 4]);
    drop((buffer, device, queue));
}

#[test]
fn a_device_that_is_lost_in_the_middle_of_a_fit_is_an_error() {
    let Some((device, queue)) = own() else { return };
    let case = Case::new("CP, 3 modes", &[7, 9, 8], Loss::kl(), 2);
    let ours = Device::from_wgpu(device.clone(), queue.clone()).unwrap();
    let lost = device.clone();
    let settings = case.settings(&ours).max_iter(20).observe(move |sweep: &Sweep| {
        if sweep.iteration == 3 {
            let _lock = DriverLock::take();
            lost.destroy();
        }
        Flow::Continue
    });
    let error = settings.fit(case.observations()).unwrap_err();
    assert!(error.to_string().contains("lost"), "{error}");
    assert!(!error.is_input());
    // The process goes on, and so do other devices.
    let other = crate::common::gpu().unwrap();
    case.settings(&other).max_iter(2).fit(case.observations()).unwrap();
    let _lock = DriverLock::take();
    drop((ours, device, queue));
}

/// Entries at the end of what single precision holds, whose products are moderate: the first update
/// leaves its range.
#[test]
fn what_overflows_is_an_error_that_keeps_the_point_before() {
    let Some(device) = crate::common::gpu() else { return };
    let y = ndarray::Array2::<f64>::from_elem((6, 5), 9000.0);
    let large = |rows: usize, at: usize| {
        ArrayD::from_shape_fn(vec![rows, 2], |i| if i[1] == at { 1e35 } else { 1e-35 })
    };
    let start = vec![large(6, 0), large(5, 1)];
    let settings = NNEinFact::new("ir,jr->ij")
        .unwrap()
        .ranks([('r', 2)])
        .device(device)
        .algorithm(Algorithm::Block)
        .start(Start::Factors(start.clone()))
        .factor_floor(0.0)
        .max_iter(50)
        .tolerance(0.0);
    let error = settings.fit(&y).unwrap_err();
    assert!(!error.is_input());
    let Error::Broken { cause, last } = error else { panic!("{error}") };
    assert!(matches!(*cause, Error::Numeric(_)), "{cause}");
    assert!(cause.to_string().contains("factor 1"), "{cause}");
    assert_eq!(last.history.sweeps, [0]);
    assert!(deviation(&last.factors, &start) < 1e-6);
}

#[test]
fn early_stopping_and_cancelling_return_whole_sweeps() {
    let Some(device) = crate::common::gpu() else { return };
    let case = Case::new("NMF", &[20, 30], Loss::kl(), 2);
    let observations = case.observations().validation(0.3, 1).unwrap();
    let run = |device: &Device| {
        let settings = case.settings(device).algorithm(Algorithm::Grouped);
        settings.early_stopping(true).max_iter(60).fit(&observations).unwrap()
    };
    let (gpu, cpu) = (run(&device), run(&Device::cpu()));
    assert_eq!(gpu.history().returned, cpu.history().returned);
    assert!(deviation(gpu.factors(), cpu.factors()) < 1e-3);

    let cancel = Cancel::new();
    let stop = cancel.clone();
    let settings =
        case.settings(&device).max_iter(50).cancel(&cancel).observe(move |sweep: &Sweep| {
            if sweep.iteration == 4 {
                stop.cancel();
            }
            Flow::Continue
        });
    let cancelled = settings.fit(case.observations()).unwrap();
    assert_eq!(cancelled.history().iterations, 4);
    let plain = case.settings(&device).max_iter(50).fit(case.observations()).unwrap();
    assert_eq!(cancelled.history().loss[..], plain.history().loss[..5]);
}

fn config() -> ProptestConfig {
    let cases = crate::common::gpu_cases(24).count() as u32;
    ProptestConfig { cases, ..crate::common::repeatable() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_block_sweep_is_that_of_the_reference(
        model in 0..CORPUS.len(),
        loss in 0..losses().len(),
        seed in any::<u64>(),
        tiles in any::<bool>(),
        masked in any::<bool>(),
    ) {
        let Some(devices) = both() else { return Ok(()) };
        let device = &devices[usize::from(tiles)].1;
        let mut random = Random::new(seed);
        let entry = CORPUS[model];
        let modes = entry.modes();
        let mut shape: Vec<usize> = (0..modes).map(|_| 1 + random.below(4)).collect();
        if random.uniform() < 0.5 {
            shape[random.below(modes)] = 15 + random.below(25);
        }
        let case = Case::new(entry.name, &shape, losses().swap_remove(loss), seed);
        let mut mask = random.mask(&shape, 0.7);
        *mask.first_mut().expect("a cell") = true;
        let weights = mask.mapv(|m| f64::from(u8::from(m)));
        let observations = match masked {
            true => case.observations().mask(&mask).unwrap(),
            false => case.observations(),
        };
        let fit = case
            .settings(device)
            .algorithm(Algorithm::Block)
            .factor_floor(0.0)
            .max_iter(1)
            .fit(&observations)
            .unwrap();
        let problem = Problem {
            shapes: &case.shapes,
            loss: &case.loss,
            y: &case.y,
            weights: masked.then_some(&weights),
            floor: Case::FLOOR,
        };
        let mut expected = case.start.clone();
        problem.sweep(&mut expected);
        let apart = deviation(fit.factors(), &expected);
        prop_assert!(apart <= 2e-4, "{} {shape:?} {}: {apart:.1e}", entry.name, case.loss.name());
    }
}
