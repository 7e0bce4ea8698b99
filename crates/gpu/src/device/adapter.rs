//! Finding GPUs, describing them, choosing one.

use std::sync::OnceLock;

use super::driver_lock::DriverLock;
use super::memory;
use crate::program::recording::GpuLimits;
use nneinfact_core::engine::{AdapterInfo, AdapterKind};
use nneinfact_core::error::{Error, Result};

/// Which adapter is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted<'a> {
    /// The best that is no software rasteriser.
    Real,
    /// The best there is.
    Best,
    /// The one with this in its name.
    Named(&'a str),
}

/// What there is, best first.
pub fn list() -> Vec<AdapterInfo> {
    let _lock = DriverLock::take();
    adapters().into_iter().map(|(_, info)| info).collect()
}

/// Whether there is a GPU that is no software rasteriser. Looked up once: fits that name no device
/// ask every time, and loading the drivers takes tens of milliseconds.
pub fn any_real() -> bool {
    static REAL: OnceLock<bool> = OnceLock::new();
    if let Some(real) = REAL.get() {
        return *real;
    }
    // Before the other one: a thread that has it may ask too.
    let _lock = DriverLock::take();
    *REAL.get_or_init(|| list().iter().any(|info| !info.is_software()))
}

impl GpuLimits {
    /// What a device allows.
    pub fn of(limits: &wgpu::Limits) -> GpuLimits {
        // Beyond 2³¹ − 1 bytes, accesses have failed silently on some drivers, and wgpu allows no
        // more on Vulkan. Whole multiples of every alignment are easier to cut.
        let whole = |bytes: u64| bytes.min((1 << 31) - 1) & !255;
        GpuLimits {
            binding_bytes: match whole(limits.max_storage_buffer_binding_size) {
                0 => limits.max_storage_buffer_binding_size & !3,
                bytes => bytes,
            },
            uniform_bytes: limits.max_uniform_buffer_binding_size & !15,
            buffer_bytes: limits.max_buffer_size & !3,
            storage_buffers: limits.max_storage_buffers_per_shader_stage,
            uniform_buffers: limits.max_uniform_buffers_per_shader_stage,
            workgroups: limits.max_compute_workgroups_per_dimension,
            invocations: limits
                .max_compute_invocations_per_workgroup
                .min(limits.max_compute_workgroup_size_x)
                .min(limits.max_compute_workgroup_size_y),
            workgroup_bytes: limits.max_compute_workgroup_storage_size,
            storage_align: limits.min_storage_buffer_offset_alignment,
            uniform_align: limits.min_uniform_buffer_offset_alignment,
        }
    }
}

/// The way to all drivers. There is one for the whole process, which is never dropped: dropping the
/// last would unload drivers that may still have threads. So what the environment says about it
/// (`WGPU_BACKEND` and others of wgpu's) counts as it is when it is first asked.
fn instance() -> &'static (wgpu::Instance, wgpu::Backends) {
    static INSTANCE: OnceLock<(wgpu::Instance, wgpu::Backends)> = OnceLock::new();
    INSTANCE.get_or_init(make_instance)
}

fn make_instance() -> (wgpu::Instance, wgpu::Backends) {
    // OpenGL is left out: its drivers take minutes over shaders like ours and have lower limits.
    // WGPU_BACKEND=gl asks for it.
    let backends =
        (wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12).with_env();
    let mut flags = wgpu::InstanceFlags::from_build_config();
    // How large dispatches are that ask the device is written by this crate alone (decide.wgsl), and
    // checking that would cap buffers at 4 GiB.
    flags.remove(wgpu::InstanceFlags::VALIDATION_INDIRECT_CALL);
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends,
        flags: flags.with_env(),
        // Drivers that would rather swap than refuse make a fit slower than the CPU.
        memory_budget_thresholds: wgpu::MemoryBudgetThresholds {
            for_resource_creation: Some(97),
            for_device_loss: None,
        },
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    (instance, backends)
}

/// What there is, best first, for who has the driver lock.
pub(crate) fn adapters() -> Vec<(wgpu::Adapter, AdapterInfo)> {
    if wgpu::Instance::enabled_backend_features().is_empty() {
        return Vec::new();
    }
    let (instance, backends) = instance();
    let mut found: Vec<(wgpu::Adapter, AdapterInfo)> =
        pollster::block_on(instance.enumerate_adapters(*backends))
            .into_iter()
            .map(|adapter| {
                let info = describe(
                    adapter.get_info(),
                    &adapter.limits(),
                    adapter.features(),
                    memory::of_adapter(&adapter),
                );
                (adapter, info)
            })
            .collect();
    // Stable, so that the driver's own order decides among equals.
    found.sort_by_key(|(adapter, info)| (info.kind, preference(adapter.get_info().backend)));
    found
}

/// The same GPU can be there through several interfaces: Vulkan's drivers compile shaders best.
fn preference(backend: wgpu::Backend) -> u32 {
    match backend {
        wgpu::Backend::Vulkan | wgpu::Backend::Metal => 0,
        wgpu::Backend::Dx12 => 1,
        _ => 2,
    }
}

/// What wgpu knows about an adapter or a device, in our words.
pub(crate) fn describe(
    info: wgpu::AdapterInfo,
    limits: &wgpu::Limits,
    features: wgpu::Features,
    memory: Option<u64>,
) -> AdapterInfo {
    let driver = match (info.driver.trim(), info.driver_info.trim()) {
        ("", only) | (only, "") => only.to_string(),
        (name, version) => format!("{name} {version}"),
    };
    AdapterInfo {
        kind: match info.device_type {
            _ if is_software(&info.name) => AdapterKind::Software,
            wgpu::DeviceType::DiscreteGpu => AdapterKind::Discrete,
            wgpu::DeviceType::IntegratedGpu => AdapterKind::Integrated,
            wgpu::DeviceType::VirtualGpu => AdapterKind::Virtual,
            wgpu::DeviceType::Other => AdapterKind::Other,
            wgpu::DeviceType::Cpu => AdapterKind::Software,
        },
        name: info.name,
        backend: match info.backend {
            wgpu::Backend::Vulkan => "Vulkan",
            wgpu::Backend::Metal => "Metal",
            wgpu::Backend::Dx12 => "DirectX 12",
            wgpu::Backend::Gl => "OpenGL",
            wgpu::Backend::BrowserWebGpu => "WebGPU",
            wgpu::Backend::Noop => "none",
        }
        .into(),
        driver,
        bus: info.device_pci_bus_id,
        memory,
        buffer_bytes: limits.max_buffer_size,
        binding_bytes: GpuLimits::of(limits).binding_bytes,
        workgroup_bytes: limits.max_compute_workgroup_storage_size,
        invocations: limits.max_compute_invocations_per_workgroup,
        subgroups: features
            .contains(wgpu::Features::SUBGROUP)
            .then_some((info.subgroup_min_size, info.subgroup_max_size)),
        f16: features.contains(wgpu::Features::SHADER_F16),
        timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY),
    }
}

/// Rasterisers whose drivers have been seen to call themselves something better.
fn is_software(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["llvmpipe", "swiftshader", "softpipe", "basic render driver"].iter().any(|s| name.contains(s))
}

/// The place of the adapter that is asked for, in a list that is sorted best first.
pub(crate) fn choose(adapters: &[AdapterInfo], wanted: Wanted<'_>) -> Result<usize> {
    match wanted {
        Wanted::Best if !adapters.is_empty() => Ok(0),
        Wanted::Best => Err(Error::Device(format!("no GPU was found: {NO_ADAPTER}"))),
        Wanted::Real => adapters.iter().position(|a| !a.is_software()).ok_or_else(|| {
            Error::Device(match adapters {
                [] => format!("no GPU was found: {NO_ADAPTER}"),
                all => format!(
                    "no GPU was found other than software rasterisers: there is {}",
                    names(all)
                ),
            })
        }),
        Wanted::Named(name) => by_name(adapters, name),
    }
}

const NO_ADAPTER: &str = "no Vulkan, Metal or DirectX 12 driver offers one. On Linux, install the \
    driver of your GPU (or mesa-vulkan-drivers for a software one); or use --device cpu";

fn by_name(adapters: &[AdapterInfo], name: &str) -> Result<usize> {
    let wanted = name.trim().to_lowercase();
    let matches: Vec<usize> = (0..adapters.len())
        .filter(|&n| !wanted.is_empty() && label(&adapters[n]).to_lowercase().contains(&wanted))
        .collect();
    let Some(&first) = matches.first() else {
        return Err(Error::Device(match adapters {
            [] => format!("no device is called {name:?}: there is cpu, and no GPU was found"),
            adapters => format!(
                "no device is called {name:?}: there is cpu, gpu (the best GPU), auto, {}",
                names(adapters)
            ),
        }));
    };
    // One GPU through several interfaces is no ambiguity: the first is the best of them.
    let same = |a: &AdapterInfo, b: &AdapterInfo| {
        a.name == b.name && (a.bus == b.bus || a.backend != b.backend)
    };
    if matches.iter().all(|&n| same(&adapters[n], &adapters[first])) {
        return Ok(first);
    }
    let several: Vec<AdapterInfo> = matches.iter().map(|&n| adapters[n].clone()).collect();
    Err(Error::Device(format!(
        "several devices are called {name:?}: give more of the name, or the place on the bus, of one \
         of {}",
        names(&several)
    )))
}

/// What `--device` is matched against.
pub(crate) fn label(info: &AdapterInfo) -> String {
    match info.bus.as_str() {
        "" => format!("{} ({})", info.name, info.backend),
        bus => format!("{} ({}, {bus})", info.name, info.backend),
    }
}

fn names(adapters: &[AdapterInfo]) -> String {
    let names: Vec<String> = adapters.iter().map(|a| format!("{:?}", label(a))).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapter(name: &str, kind: AdapterKind, backend: &str, bus: &str) -> AdapterInfo {
        AdapterInfo {
            name: name.into(),
            kind,
            backend: backend.into(),
            driver: "driver".into(),
            bus: bus.into(),
            memory: None,
            buffer_bytes: 1 << 30,
            binding_bytes: 1 << 30,
            workgroup_bytes: 1 << 15,
            invocations: 256,
            subgroups: None,
            f16: false,
            timestamps: false,
        }
    }

    fn machine() -> Vec<AdapterInfo> {
        vec![
            adapter("NVIDIA H200", AdapterKind::Discrete, "Vulkan", "0000:01:00.0"),
            adapter("NVIDIA H200", AdapterKind::Discrete, "Vulkan", "0000:02:00.0"),
            adapter("AMD Radeon", AdapterKind::Integrated, "Vulkan", "0000:03:00.0"),
            adapter("AMD Radeon", AdapterKind::Integrated, "DirectX 12", ""),
            adapter("llvmpipe (LLVM 15)", AdapterKind::Software, "Vulkan", ""),
        ]
    }

    #[test]
    fn the_best_and_the_best_real_one() {
        assert_eq!(choose(&machine(), Wanted::Best).unwrap(), 0);
        assert_eq!(choose(&machine(), Wanted::Real).unwrap(), 0);
        let software = &machine()[4..];
        assert_eq!(choose(software, Wanted::Best).unwrap(), 0);
        let refused = choose(software, Wanted::Real).unwrap_err().to_string();
        assert!(refused.contains("llvmpipe"), "{refused}");
        let none = choose(&[], Wanted::Best).unwrap_err().to_string();
        assert!(none.contains("no GPU was found") && none.contains("--device cpu"), "{none}");
    }

    #[test]
    fn kinds_are_sorted_best_first() {
        use AdapterKind::{Discrete, Integrated, Other, Software, Virtual};
        let mut kinds = [Software, Other, Virtual, Discrete, Integrated];
        kinds.sort();
        assert_eq!(kinds, [Discrete, Integrated, Virtual, Other, Software]);
    }

    #[test]
    fn names_in_part_and_in_any_case() {
        let named = |name| choose(&machine(), Wanted::Named(name));
        assert_eq!(named("LLVM").unwrap(), 4);
        assert_eq!(named("02:00").unwrap(), 1);
        // One GPU twice: the better way to it.
        assert_eq!(named("radeon").unwrap(), 2);
        assert_eq!(named("radeon (directx").unwrap(), 3);
        let several = named("nvidia").unwrap_err().to_string();
        assert!(several.contains("0000:01:00.0") && several.contains("0000:02:00.0"), "{several}");
        let none = named("abacus").unwrap_err().to_string();
        for there in ["abacus", "cpu", "auto", "NVIDIA H200", "AMD Radeon", "llvmpipe"] {
            assert!(none.contains(there), "{there}: {none}");
        }
        assert!(named(" ").is_err());
    }

    #[test]
    fn windows_stay_below_two_gibibytes() {
        let limits = wgpu::Limits {
            max_storage_buffer_binding_size: u64::from(u32::MAX),
            max_buffer_size: 1 << 40,
            ..wgpu::Limits::default()
        };
        let limits = GpuLimits::of(&limits);
        assert_eq!(limits.binding_bytes, (1 << 31) - 256);
        assert_eq!(limits.buffer_bytes, 1 << 40);
        assert_eq!(GpuLimits::of(&wgpu::Limits::default()), GpuLimits::default());
    }
}
