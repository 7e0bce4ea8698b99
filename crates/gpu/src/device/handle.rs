//! An open GPU, shared by everything that runs on it.

use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::adapter::{describe, label};
use super::driver_lock::{DriverLock, LockOnDrop, UnlockOnDrop};
use super::memory;
use super::shader_cache::ShaderCache;
use crate::program::recording::{GpuLimits, Shader};
use nneinfact_core::engine::AdapterInfo;
use nneinfact_core::error::{Error, Result};

/// An open GPU. Cheap to clone; clones share the device and the shaders compiled for it.
#[derive(Clone)]
pub struct Gpu {
    shared: Arc<GpuShared>,
}

struct GpuShared {
    info: AdapterInfo,
    limits: GpuLimits,
    reports: Arc<DeviceReports>,
    /// Where compiled shaders are kept from one process to the next.
    cache: Option<ShaderCache>,
    // Fields are dropped in their order: a software driver takes these back under the lock.
    _lock: LockOnDrop,
    pipelines: Mutex<HashMap<Shader, Arc<Pipeline>>>,
    queue: wgpu::Queue,
    device: wgpu::Device,
    _unlock: UnlockOnDrop,
}

/// What the device tells from its own callbacks.
#[derive(Default)]
struct DeviceReports {
    /// Why the device is lost.
    lost: Mutex<Option<String>>,
    /// The first error that came up outside of what this crate was doing.
    stray: Mutex<Option<String>>,
}

/// A compiled shader.
pub(crate) struct Pipeline {
    pub layout: wgpu::BindGroupLayout,
    pub pipeline: wgpu::ComputePipeline,
}

/// What went wrong in [`Gpu::guarded`] work.
#[derive(Debug)]
pub(crate) enum DeviceFault {
    /// The device has no memory left.
    Memory,
    /// The device said this.
    Said(String),
    /// The device is lost.
    Lost(Error),
}

/// What the smallest fits need at least. Above this, what a program needs is held against the limits
/// when it is made.
const LEAST_INVOCATIONS: u64 = 64;
const LEAST_BYTES: u64 = 4096;
const LEAST_UNIFORM_BYTES: u64 = 256;

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that is locked here is ever left half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Gpu {
    /// Takes over a device that this crate has opened.
    ///
    /// # Errors
    /// [`Error::Device`] where its limits are too small for any fit.
    pub(crate) fn own(
        device: wgpu::Device,
        queue: wgpu::Queue,
        info: AdapterInfo,
        cache: Option<ShaderCache>,
    ) -> Result<Gpu> {
        let reports = Arc::new(DeviceReports::default());
        let lost = Arc::clone(&reports);
        device.set_device_lost_callback(move |reason, message| {
            let reason = match (reason, message.trim()) {
                (wgpu::DeviceLostReason::Destroyed, _) => "it was destroyed",
                (_, "") => "its driver gives no reason",
                (_, message) => message,
            };
            lock(&lost.lost).get_or_insert_with(|| reason.to_string());
        });
        // The default handler panics.
        let stray = Arc::clone(&reports);
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            lock(&stray.stray).get_or_insert_with(|| said(&error));
        }));
        Gpu::new(device, queue, info, reports, cache)
    }

    /// Works on a device that belongs to someone else, whose handlers stay as they are.
    ///
    /// # Errors
    /// [`Error::Device`] where the device cannot run compute shaders.
    pub fn from_wgpu(device: wgpu::Device, queue: wgpu::Queue) -> Result<Gpu> {
        let _lock = DriverLock::take();
        let info = describe(
            device.adapter_info(),
            &device.limits(),
            device.features(),
            memory::of_device(&device),
        );
        let gpu = Gpu::new(device, queue, info, Arc::default(), None)?;
        gpu.alive()?;
        Ok(gpu)
    }

    fn new(
        device: wgpu::Device,
        queue: wgpu::Queue,
        info: AdapterInfo,
        reports: Arc<DeviceReports>,
        cache: Option<ShaderCache>,
    ) -> Result<Gpu> {
        let limits = GpuLimits::of(&device.limits());
        usable(&info, &limits)?;
        let software = info.is_software();
        let pipelines = Mutex::default();
        let (_lock, _unlock) = (LockOnDrop(software), UnlockOnDrop(software));
        let shared =
            GpuShared { info, limits, reports, cache, _lock, pipelines, queue, device, _unlock };
        Ok(Gpu { shared: Arc::new(shared) })
    }

    /// The driver lock, where the driver is a software one; others take calls from many threads.
    pub(crate) fn driver_lock(&self) -> Option<DriverLock> {
        self.info().is_software().then(DriverLock::take)
    }

    /// What programs have to stay within.
    #[must_use]
    pub fn limits(&self) -> &GpuLimits {
        &self.shared.limits
    }

    /// What the driver says about it.
    #[must_use]
    pub fn info(&self) -> &AdapterInfo {
        &self.shared.info
    }

    /// Name and interface, for messages.
    #[must_use]
    pub fn name(&self) -> String {
        label(self.info())
    }

    /// Shaders that were compiled for it.
    pub(crate) fn compiled_shaders(&self) -> &Mutex<HashMap<Shader, Arc<Pipeline>>> {
        &self.shared.pipelines
    }

    /// Where compiled shaders are kept.
    pub(crate) fn shader_cache(&self) -> Option<&ShaderCache> {
        self.shared.cache.as_ref()
    }

    pub(crate) fn device(&self) -> &wgpu::Device {
        &self.shared.device
    }

    pub(crate) fn queue(&self) -> &wgpu::Queue {
        &self.shared.queue
    }

    /// Whether the device is still there, as far as it has told.
    ///
    /// # Errors
    /// [`Error::DeviceFailed`] where it is lost.
    pub fn check(&self) -> Result<()> {
        match &*lock(&self.shared.reports.lost) {
            None => Ok(()),
            Some(reason) => Err(self.lost(reason)),
        }
    }

    /// Whether the device is still there, by trying. A device of someone else does not tell us when
    /// it is lost (it has one callback for that, which is theirs), and one of ours only once it has
    /// nothing to do; but none can map a new buffer any more.
    ///
    /// # Errors
    /// [`Error::DeviceFailed`] where it is lost.
    pub fn alive(&self) -> Result<()> {
        self.check()?;
        let probe = self.guarded(|| {
            let buffer = self.device().create_buffer(&wgpu::BufferDescriptor {
                label: Some("nneinfact probe"),
                size: 4,
                usage: wgpu::BufferUsages::COPY_SRC,
                mapped_at_creation: true,
            });
            let mapped = buffer.get_mapped_range_mut(..).is_ok();
            buffer.destroy();
            mapped
        });
        if !matches!(probe, Ok(false)) {
            return self.check();
        }
        // So that it tells why, if it does.
        let told = self.poll(wgpu::PollType::wait_indefinitely());
        lock(&self.shared.reports.lost)
            .get_or_insert_with(|| "it does not take work any more".to_string());
        told.and(self.check())
    }

    fn lost(&self, reason: &str) -> Error {
        Error::DeviceFailed(format!(
            "{} was lost: {reason}; start again, with a smaller problem if the driver gave up on \
             this one, or use --device cpu",
            self.name()
        ))
    }

    /// The error of a fault. Much of what a lost device says is beside the point, so this looks.
    pub(crate) fn failed(&self, doing: &str, fault: DeviceFault) -> Error {
        if let (DeviceFault::Said(_), Err(lost)) = (&fault, self.alive()) {
            return lost;
        }
        match fault {
            DeviceFault::Lost(error) => error,
            DeviceFault::Memory => Error::DeviceFailed(format!(
                "{} ran out of memory while {doing}; free memory there, lower the ranks, or use \
                 --device cpu",
                self.name()
            )),
            DeviceFault::Said(message) => Error::DeviceFailed(format!(
                "{} refused what it was given while {doing} (a fault in nneinfact or the driver: \
                 please report it; --device cpu is not affected): {message}",
                self.name()
            )),
        }
    }

    /// Runs calls to the device such that what they raise comes back from here: outside of error
    /// scopes it would go to a handler, and the default one panics. A software device is idle when
    /// this returns.
    pub(crate) fn guarded<T>(&self, work: impl FnOnce() -> T) -> Result<T, DeviceFault> {
        let lock = self.driver_lock();
        let device = self.device();
        let memory = device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let internal = device.push_error_scope(wgpu::ErrorFilter::Internal);
        let validation = device.push_error_scope(wgpu::ErrorFilter::Validation);
        let result = work();
        let validation = pollster::block_on(validation.pop());
        let internal = pollster::block_on(internal.pop());
        let memory = pollster::block_on(memory.pop());
        let idle = match lock {
            Some(_) => self.polled(wgpu::PollType::wait_indefinitely()),
            None => Ok(()),
        };
        drop(lock);
        idle.and_then(|()| self.check()).map_err(DeviceFault::Lost)?;
        if memory.is_some() {
            return Err(DeviceFault::Memory);
        }
        if let Some(error) = validation.or(internal) {
            return Err(DeviceFault::Said(said(&error)));
        }
        Ok(result)
    }

    /// Lets the device catch up: fires its callbacks, and waits for it where `how` says so.
    ///
    /// # Errors
    /// [`Error::DeviceFailed`] where it is lost.
    pub(crate) fn poll(&self, how: wgpu::PollType) -> Result<()> {
        let _lock = self.driver_lock();
        self.polled(how)
    }

    /// As [`poll`](Self::poll), for who has the driver lock.
    fn polled(&self, how: wgpu::PollType) -> Result<()> {
        self.waited(|| self.device().poll(how))
    }

    /// Waits for the device in a given way. A device that cannot be waited for is lost.
    ///
    /// # Errors
    /// [`Error::DeviceFailed`] where it is lost.
    pub(crate) fn waited(
        &self,
        wait: impl FnOnce() -> Result<wgpu::PollStatus, wgpu::PollError>,
    ) -> Result<()> {
        // wgpu panics where waiting fails, which is what happens when a driver gives up. Its locks
        // are released by then and its callback has told why, if there is one.
        let waited = catch_unwind(AssertUnwindSafe(wait));
        if waited.is_err() {
            lock(&self.shared.reports.lost)
                .get_or_insert_with(|| "its driver failed while it was waited for".to_string());
        }
        self.check()?;
        match waited {
            Ok(Err(error)) => Err(self.lost(&error.to_string())),
            _ => Ok(()),
        }
    }

    /// The number of shaders compiled for this device and kept.
    #[cfg(test)]
    pub(crate) fn compiled(&self) -> usize {
        lock(&self.shared.pipelines).len()
    }

    /// What the device said on its own account, outside of any call from here.
    #[cfg(test)]
    pub(crate) fn stray(&self) -> Option<String> {
        lock(&self.shared.reports.stray).clone()
    }
}

impl fmt::Debug for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Gpu").field(&self.name()).finish()
    }
}

/// Refuses limits that are too small for any fit: whoever lays one out may count on these.
fn usable(info: &AdapterInfo, limits: &GpuLimits) -> Result<()> {
    let needs = [
        ("storage buffers", u64::from(limits.storage_buffers), 1),
        ("uniform buffers", u64::from(limits.uniform_buffers), 1),
        ("invocations in a workgroup", u64::from(limits.invocations), LEAST_INVOCATIONS),
        ("workgroups", u64::from(limits.workgroups), 1),
        ("bytes of a buffer", limits.buffer_bytes, LEAST_BYTES),
        ("bytes of a storage binding", limits.binding_bytes, LEAST_BYTES),
        ("bytes of a uniform binding", limits.uniform_bytes, LEAST_UNIFORM_BYTES),
    ];
    match needs.into_iter().find(|&(_, allowed, least)| allowed < least) {
        None => Ok(()),
        Some((what, allowed, least)) => Err(Error::Device(format!(
            "the limits of {} allow {allowed} {what}, and the compute shaders of a fit need at least \
             {least}: ask for wgpu::Limits::default() or the adapter's limits",
            label(info)
        ))),
    }
}

/// What an error says, with its causes, without the lines that every message begins with.
pub(crate) fn said(error: &wgpu::Error) -> String {
    let text = error.to_string();
    let text = text.trim();
    let text = text.strip_prefix("Validation Error").unwrap_or(text).trim_start();
    text.strip_prefix("Caused by:").unwrap_or(text).trim().to_string()
}
