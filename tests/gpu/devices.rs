//! GPUs through the library and the program, where they are and where there are none.

use std::process::{Command, Output};

use ndarray::Array2;
use nneinfact::engine::{AdapterKind, DriverLock};
use nneinfact::{Device, Error, NNEinFact, Precision, wgpu};

/// Whether this is a child of [`the_tests_fail_where_there_is_no_gpu`].
const CHILD: &str = "NNEINFACT_TEST_CHILD";

#[test]
fn devices_are_described() {
    let Some(device) = crate::common::gpu() else { return };
    let devices = Device::list();
    assert_eq!(devices.iter().filter(|d| d.auto).count(), 1);
    assert!(devices[0].auto);
    let auto = Device::auto().unwrap();
    let best = devices.iter().find_map(|d| d.adapter.clone()).unwrap();
    // A software rasteriser is nothing that auto takes.
    assert_eq!(auto.to_string().starts_with("cpu"), best.is_software(), "{auto}");
    let said = device.to_string();
    assert!(said.starts_with("gpu (") && said.contains(&best.name), "{said}");
    assert_eq!(said.contains("software"), best.kind == AdapterKind::Software, "{said}");
    // By a part of the name, in any case.
    let part: String = best.name.chars().take(6).collect();
    let named = Device::named(&part.to_uppercase()).unwrap();
    assert!(named.to_string().starts_with("gpu ("), "{named}");
    let unknown = Device::named("abacus").unwrap_err();
    assert!(unknown.to_string().contains(&best.name), "{unknown}");
    assert!(device.threads(0).is_err());
    assert!(Device::gpu().unwrap().threads(2).unwrap().to_string().starts_with("gpu ("));
}

#[test]
fn double_precision_is_refused() {
    let Some(device) = crate::common::gpu() else { return };
    let y = Array2::from_elem((4, 3), 1.0);
    let fit = NNEinFact::new("ir,jr->ij").unwrap().ranks([('r', 2)]).device(device);
    let refused = fit.precision(Precision::F64).fit(&y).unwrap_err();
    assert!(matches!(refused, Error::Setting(_)));
    for said in ["f64", "f32", "--device cpu"] {
        assert!(refused.to_string().contains(said), "{refused}");
    }
}

#[test]
fn devices_without_compute_shaders_are_refused() {
    if crate::common::gpu().is_none() {
        return;
    }
    // Other tests may be using a software driver meanwhile.
    let _lock = DriverLock::take();
    let instance =
        wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env());
    let backends = wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12;
    let adapter = pollster::block_on(instance.enumerate_adapters(backends)).remove(0);
    let none = wgpu::Limits::downlevel_webgl2_defaults();
    let request = wgpu::DeviceDescriptor {
        required_limits: none.or_worse_values_from(&adapter.limits()),
        ..Default::default()
    };
    let open = adapter.request_device(&request);
    let (device, queue) = pollster::block_on(open).unwrap();
    let refused = Device::from_wgpu(device, queue).unwrap_err().to_string();
    assert!(refused.contains("compute") && refused.contains("Limits"), "{refused}");
}

/// This test binary, or the program, where no driver is found.
#[cfg(target_os = "linux")]
fn without_drivers(program: &std::path::Path, arguments: &[&str], no_gpu: &str) -> Output {
    Command::new(program)
        .args(arguments)
        .env("VK_DRIVER_FILES", "/nonexistent")
        .env("VK_ICD_FILENAMES", "/nonexistent")
        .env("NNEINFACT_NO_GPU", no_gpu)
        .env(CHILD, "1")
        .output()
        .unwrap()
}

#[test]
#[cfg(target_os = "linux")]
fn the_tests_fail_where_there_is_no_gpu() {
    if std::env::var_os(CHILD).is_some() {
        return;
    }
    let this = std::env::current_exe().unwrap();
    let run = |no_gpu| {
        without_drivers(
            &this,
            &["--exact", "devices::devices_are_described", "--nocapture"],
            no_gpu,
        )
    };
    let output = run("");
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    for help in ["no GPU was found", ".ci/drivers", "NNEINFACT_NO_GPU=1"] {
        assert!(said.contains(help), "{help}: {said}");
    }
    let output = run("1");
    assert!(output.status.success());
    assert!(String::from_utf8(output.stderr).unwrap().contains("skipped"));
}

#[test]
#[cfg(all(target_os = "linux", feature = "cli"))]
fn the_program_says_that_there_is_no_gpu() {
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_nneinfact"));
    let run = |arguments: &[&str]| {
        let output = without_drivers(program, arguments, "");
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (status, told, errors) = run(&["devices"]);
    assert_eq!((status, errors.as_str()), (Some(0), ""));
    assert!(told.contains("auto takes cpu: no GPU was found"), "{told}");

    let data = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/01_kl/data.npy");
    let fit = ["fit", data, "--model", "ir,jr->ij", "--rank", "r=2", "--max-iter", "2"];
    let (status, told, errors) = run(&[&fit[..], &["--device", "auto"]].concat());
    assert_eq!(status, Some(0), "{errors}");
    assert!(told.contains("cpu"), "{told}");
    for name in ["gpu", "llvmpipe"] {
        let (status, told, errors) = run(&[&fit[..], &["--device", name]].concat());
        assert_eq!((status, told.as_str()), (Some(2), ""));
        assert!(errors.contains("no GPU was found") && !errors.contains("panicked"), "{errors}");
    }
}
