//! The memory of a GPU, in bytes. wgpu does not tell; Vulkan does.

pub(crate) use found::{of_adapter, of_device};

#[cfg(any(windows, target_os = "linux"))]
mod found {
    use wgpu::hal::api::Vulkan;

    /// The sum of the heaps that are the device's own.
    macro_rules! heaps {
        ($owner:expr) => {{
            let instance = $owner.shared_instance().raw_instance();
            // SAFETY: the physical device belongs to the instance, and both live as long as `owner`.
            let memory = unsafe {
                instance.get_physical_device_memory_properties($owner.raw_physical_device())
            };
            let count = (memory.memory_heap_count as usize).min(memory.memory_heaps.len());
            // VK_MEMORY_HEAP_DEVICE_LOCAL_BIT is 1.
            let own = memory.memory_heaps[..count].iter().filter(|h| h.flags.as_raw() & 1 == 1);
            Some(own.map(|h| h.size).sum::<u64>()).filter(|&bytes| bytes > 0)
        }};
    }

    /// That of an adapter.
    pub fn of_adapter(adapter: &wgpu::Adapter) -> Option<u64> {
        // SAFETY: the handle is only looked at.
        let adapter = unsafe { adapter.as_hal::<Vulkan>() }?;
        heaps!(adapter)
    }

    /// That of an open device.
    pub fn of_device(device: &wgpu::Device) -> Option<u64> {
        // SAFETY: the handle is only looked at.
        let device = unsafe { device.as_hal::<Vulkan>() }?;
        heaps!(device)
    }
}

#[cfg(not(any(windows, target_os = "linux")))]
mod found {
    /// That of an adapter.
    pub fn of_adapter(_: &wgpu::Adapter) -> Option<u64> {
        None
    }

    /// That of an open device.
    pub fn of_device(_: &wgpu::Device) -> Option<u64> {
        None
    }
}
