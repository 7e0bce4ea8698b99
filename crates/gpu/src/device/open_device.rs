//! Opening a GPU.

use std::path::PathBuf;

use super::adapter::{Wanted, adapters, choose, label};
use super::driver_lock::DriverLock;
use super::handle::Gpu;
use super::shader_cache::{ShaderCache, folder_of_environment};
use nneinfact_core::engine::AdapterInfo;
use nneinfact_core::error::{Error, Result};

impl Gpu {
    /// Opens an adapter. With `within`, the device is asked for no more than these limits.
    ///
    /// # Errors
    /// [`Error::Device`] where there is no such adapter, its driver does not open it, or the limits
    /// are too small.
    pub fn open(wanted: Wanted<'_>, within: Option<&wgpu::Limits>) -> Result<Gpu> {
        Gpu::open_with(wanted, within, &folder_of_environment)
    }

    /// As [`open`](Self::open); `folder` says where compiled shaders are kept for an adapter, which may
    /// be a software one.
    pub(crate) fn open_with(
        wanted: Wanted<'_>,
        within: Option<&wgpu::Limits>,
        folder: &dyn Fn(bool) -> Option<PathBuf>,
    ) -> Result<Gpu> {
        let _lock = DriverLock::take();
        let mut adapters = adapters();
        let infos: Vec<AdapterInfo> = adapters.iter().map(|(_, info)| info.clone()).collect();
        let (adapter, info) = adapters.swap_remove(choose(&infos, wanted)?);
        let all = adapter.limits();
        let wish = |limits: wgpu::Limits| match within {
            Some(within) => compute_limits(&limits).or_worse_values_from(within),
            None => compute_limits(&limits),
        };
        let optional = wgpu::Features::TIMESTAMP_QUERY
            | wgpu::Features::SUBGROUP
            | wgpu::Features::SUBGROUP_BARRIER
            | wgpu::Features::SHADER_F16
            | wgpu::Features::PIPELINE_CACHE;
        // A driver that does not give all that it advertises may still give what WebGPU asks for.
        let tries = [
            (adapter.features() & optional, wish(all.clone())),
            (wgpu::Features::empty(), wish(wgpu::Limits::default().or_worse_values_from(&all))),
        ];
        let mut refusal = String::new();
        for (required_features, required_limits) in tries {
            let request = adapter.request_device(&wgpu::DeviceDescriptor {
                label: Some("nneinfact"),
                required_features,
                required_limits,
                // Few buffers are made, once, and the large ones get memory of their own.
                memory_hints: wgpu::MemoryHints::MemoryUsage,
                ..Default::default()
            });
            match pollster::block_on(request) {
                Ok((device, queue)) => {
                    let kept = device.features().contains(wgpu::Features::PIPELINE_CACHE);
                    let cache = folder(info.is_software())
                        .filter(|_| kept)
                        .map(|folder| ShaderCache::new(folder, &adapter.get_info()));
                    return Gpu::own(device, queue, info, cache);
                }
                Err(error) => refusal = error.to_string(),
            }
        }
        Err(Error::Device(format!(
            "{} cannot be opened: {refusal}; use another device, or --device cpu",
            label(&info)
        )))
    }
}

/// The limits that a compute program can use, as good as the adapter has them; WebGPU's defaults for
/// everything about pictures, and where more costs memory.
fn compute_limits(all: &wgpu::Limits) -> wgpu::Limits {
    wgpu::Limits {
        max_bindings_per_bind_group: all.max_bindings_per_bind_group,
        max_storage_buffers_per_shader_stage: all.max_storage_buffers_per_shader_stage,
        max_uniform_buffers_per_shader_stage: all.max_uniform_buffers_per_shader_stage,
        max_uniform_buffer_binding_size: all.max_uniform_buffer_binding_size,
        max_storage_buffer_binding_size: all.max_storage_buffer_binding_size,
        max_buffer_size: all.max_buffer_size,
        min_uniform_buffer_offset_alignment: all.min_uniform_buffer_offset_alignment,
        min_storage_buffer_offset_alignment: all.min_storage_buffer_offset_alignment,
        max_compute_workgroup_storage_size: all.max_compute_workgroup_storage_size,
        max_compute_invocations_per_workgroup: all.max_compute_invocations_per_workgroup,
        max_compute_workgroup_size_x: all.max_compute_workgroup_size_x,
        max_compute_workgroup_size_y: all.max_compute_workgroup_size_y,
        max_compute_workgroup_size_z: all.max_compute_workgroup_size_z,
        max_compute_workgroups_per_dimension: all.max_compute_workgroups_per_dimension,
        max_buffers_and_acceleration_structures_per_shader_stage: all
            .max_buffers_and_acceleration_structures_per_shader_stage,
        ..wgpu::Limits::default()
    }
    .or_worse_values_from(all)
}
