//! An open GPU, shared by everything that runs on it.

use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::adapter::{describe, device_memory, label};
use super::recording::{Access, GpuLimits, Shader};
use super::turn::{Begin, End, Turn};
use nneinfact_core::engine::AdapterInfo;
use nneinfact_core::error::{Error, Result};

/// An open GPU. Cheap to clone; clones share the device and the shaders compiled for it.
#[derive(Clone)]
pub struct Gpu {
    shared: Arc<Shared>,
}

struct Shared {
    info: AdapterInfo,
    limits: GpuLimits,
    state: Arc<State>,
    // Fields are dropped in their order: a software driver takes these back in a turn.
    _begin: Begin,
    pipelines: Mutex<HashMap<Shader, Arc<Pipeline>>>,
    queue: wgpu::Queue,
    device: wgpu::Device,
    _end: End,
}

/// What the device tells from its own callbacks.
#[derive(Default)]
struct State {
    /// Why the device is lost.
    lost: Mutex<Option<String>>,
    /// The first error that came up outside of what this crate was doing.
    stray: Mutex<Option<String>>,
}

/// A compiled shader.
pub(super) struct Pipeline {
    pub layout: wgpu::BindGroupLayout,
    pub pipeline: wgpu::ComputePipeline,
}

/// What went wrong in a [`Gpu::guarded`] stretch of work.
#[derive(Debug)]
pub(super) enum Fault {
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

/// Compiled shaders that are kept for the next fit although no fit uses them now.
const KEPT: usize = 256;

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that is locked here is ever left half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Gpu {
    /// Takes over a device that this crate has opened.
    ///
    /// # Errors
    /// [`Error::Device`] where its limits are too small for any fit.
    pub(super) fn own(device: wgpu::Device, queue: wgpu::Queue, info: AdapterInfo) -> Result<Gpu> {
        let state = Arc::new(State::default());
        let lost = Arc::clone(&state);
        device.set_device_lost_callback(move |reason, message| {
            let reason = match (reason, message.trim()) {
                (wgpu::DeviceLostReason::Destroyed, _) => "it was destroyed",
                (_, "") => "its driver gives no reason",
                (_, message) => message,
            };
            lock(&lost.lost).get_or_insert_with(|| reason.to_string());
        });
        // The default handler panics.
        let stray = Arc::clone(&state);
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            lock(&stray.stray).get_or_insert_with(|| said(&error));
        }));
        Gpu::new(device, queue, info, state)
    }

    /// Works on a device that belongs to someone else, whose handlers stay as they are.
    ///
    /// # Errors
    /// [`Error::Device`] where the device cannot run compute shaders.
    pub fn from_wgpu(device: wgpu::Device, queue: wgpu::Queue) -> Result<Gpu> {
        let info = describe(
            device.adapter_info(),
            &device.limits(),
            device.features(),
            device_memory(&device),
        );
        let gpu = Gpu::new(device, queue, info, Arc::default())?;
        gpu.alive()?;
        Ok(gpu)
    }

    fn new(
        device: wgpu::Device,
        queue: wgpu::Queue,
        info: AdapterInfo,
        state: Arc<State>,
    ) -> Result<Gpu> {
        let limits = GpuLimits::of(&device.limits());
        usable(&info, &limits)?;
        let turns = info.is_software();
        let pipelines = Mutex::default();
        let (_begin, _end) = (Begin(turns), End(turns));
        let shared = Shared { info, limits, state, _begin, pipelines, queue, device, _end };
        Ok(Gpu { shared: Arc::new(shared) })
    }

    /// A turn with the device, where its driver is a software one; others take calls from many
    /// threads.
    pub(super) fn turn(&self) -> Option<Turn> {
        self.info().is_software().then(Turn::take)
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

    pub(super) fn device(&self) -> &wgpu::Device {
        &self.shared.device
    }

    pub(super) fn queue(&self) -> &wgpu::Queue {
        &self.shared.queue
    }

    /// Whether the device is still there, as far as it has told.
    ///
    /// # Errors
    /// [`Error::DeviceFailed`] where it is lost.
    pub fn check(&self) -> Result<()> {
        match &*lock(&self.shared.state.lost) {
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
        lock(&self.shared.state.lost)
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
    pub(super) fn failed(&self, doing: &str, fault: Fault) -> Error {
        if let (Fault::Said(_), Err(lost)) = (&fault, self.alive()) {
            return lost;
        }
        match fault {
            Fault::Lost(error) => error,
            Fault::Memory => Error::DeviceFailed(format!(
                "{} ran out of memory while {doing}; free memory there, lower the ranks, or use \
                 --device cpu",
                self.name()
            )),
            Fault::Said(message) => Error::DeviceFailed(format!(
                "{} refused what it was given while {doing} (a fault in nneinfact or the driver: \
                 please report it; --device cpu is not affected): {message}",
                self.name()
            )),
        }
    }

    /// Runs calls to the device such that what they raise comes back from here: outside of error
    /// scopes it would go to a handler, and the default one panics. A software device is idle when
    /// this returns. `work` may not call this, nor [`poll`](Self::poll).
    pub(super) fn guarded<T>(&self, work: impl FnOnce() -> T) -> Result<T, Fault> {
        let turn = self.turn();
        let device = self.device();
        let memory = device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let internal = device.push_error_scope(wgpu::ErrorFilter::Internal);
        let validation = device.push_error_scope(wgpu::ErrorFilter::Validation);
        let result = work();
        let validation = pollster::block_on(validation.pop());
        let internal = pollster::block_on(internal.pop());
        let memory = pollster::block_on(memory.pop());
        let idle = match turn {
            Some(_) => self.polled(wgpu::PollType::wait_indefinitely()),
            None => Ok(()),
        };
        drop(turn);
        idle.and_then(|()| self.check()).map_err(Fault::Lost)?;
        if memory.is_some() {
            return Err(Fault::Memory);
        }
        if let Some(error) = validation.or(internal) {
            return Err(Fault::Said(said(&error)));
        }
        Ok(result)
    }

    /// Lets the device catch up: fires its callbacks, and waits for it where `how` says so.
    ///
    /// # Errors
    /// [`Error::DeviceFailed`] where it is lost.
    pub(super) fn poll(&self, how: wgpu::PollType) -> Result<()> {
        let _turn = self.turn();
        self.polled(how)
    }

    /// As [`poll`](Self::poll), for who has a turn.
    fn polled(&self, how: wgpu::PollType) -> Result<()> {
        self.waited(|| self.device().poll(how))
    }

    /// Waits for the device in a given way. A device that cannot be waited for is lost.
    ///
    /// # Errors
    /// [`Error::DeviceFailed`] where it is lost.
    pub(super) fn waited(
        &self,
        wait: impl FnOnce() -> Result<wgpu::PollStatus, wgpu::PollError>,
    ) -> Result<()> {
        // wgpu panics where waiting fails, which is what happens when a driver gives up. Its locks
        // are released by then and its callback has told why, if there is one.
        let waited = catch_unwind(AssertUnwindSafe(wait));
        if waited.is_err() {
            lock(&self.shared.state.lost)
                .get_or_insert_with(|| "its driver failed while it was waited for".to_string());
        }
        self.check()?;
        match waited {
            Ok(Err(error)) => Err(self.lost(&error.to_string())),
            _ => Ok(()),
        }
    }

    /// The shader, compiled now or before.
    ///
    /// # Errors
    /// [`Error::DeviceFailed`] with what the compiler says; the source is saved to a file.
    pub(super) fn pipeline(&self, shader: &Shader) -> Result<Arc<Pipeline>> {
        if let Some(pipeline) = lock(&self.shared.pipelines).get(shader) {
            return Ok(Arc::clone(pipeline));
        }
        let pipeline = match self.guarded(|| self.compile(shader)) {
            Ok(pipeline) => {
                #[cfg(debug_assertions)]
                dump(shader);
                Arc::new(pipeline)
            }
            Err(Fault::Said(message)) => {
                self.alive()?;
                return Err(self.miscompiled(shader, &message));
            }
            Err(fault) => {
                return Err(self.failed(&format!("compiling `{}`", shader.label), fault));
            }
        };
        let mut pipelines = lock(&self.shared.pipelines);
        if pipelines.len() >= KEPT {
            let _turn = self.turn();
            pipelines.retain(|_, pipeline| Arc::strong_count(pipeline) > 1);
        }
        Ok(Arc::clone(pipelines.entry(shader.clone()).or_insert(pipeline)))
    }

    /// The number of shaders compiled for this device and kept.
    #[cfg(test)]
    pub(super) fn compiled(&self) -> usize {
        lock(&self.shared.pipelines).len()
    }

    /// What the device said on its own account, outside of any call from here.
    #[cfg(test)]
    pub(super) fn stray(&self) -> Option<String> {
        lock(&self.shared.state.stray).clone()
    }

    fn compile(&self, shader: &Shader) -> Pipeline {
        let device = self.device();
        let label = Some(shader.label.as_str());
        let source = wgpu::ShaderModuleDescriptor {
            label,
            source: wgpu::ShaderSource::Wgsl(shader.source.as_str().into()),
        };
        let checks = wgpu::ShaderRuntimeChecks {
            force_loop_bounding: false,
            int_div_checks: false,
            ..wgpu::ShaderRuntimeChecks::checked()
        };
        // SAFETY: the shaders are the templates of this crate: their loops count to numbers that do
        // not change meanwhile, by steps of at least 1, and they divide by sizes of letters, which
        // are at least 1, and by constants. What users give (losses) becomes expressions, which have
        // no loops and no integers. A counter in every loop would keep drivers from unrolling it.
        let module = unsafe { device.create_shader_module_trusted(source, checks) };
        let entries: Vec<wgpu::BindGroupLayoutEntry> = (0..)
            .zip(&shader.bindings)
            .map(|(binding, access)| wgpu::BindGroupLayoutEntry {
                binding,
                visibility: wgpu::ShaderStages::COMPUTE,
                ty: wgpu::BindingType::Buffer {
                    ty: match access {
                        Access::Uniform => wgpu::BufferBindingType::Uniform,
                        Access::Read => wgpu::BufferBindingType::Storage { read_only: true },
                        Access::ReadWrite => wgpu::BufferBindingType::Storage { read_only: false },
                    },
                    has_dynamic_offset: false,
                    min_binding_size: None,
                },
                count: None,
            })
            .collect();
        let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label,
            entries: &entries,
        });
        let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label,
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label,
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions {
                // Kernels write workgroup memory before they read it.
                zero_initialize_workgroup_memory: false,
                ..Default::default()
            },
            cache: None,
        });
        Pipeline { layout, pipeline }
    }

    fn miscompiled(&self, shader: &Shader, message: &str) -> Error {
        let saved = match save(shader) {
            Ok(path) => format!("its source is in {}", path.display()),
            Err(error) => format!("its source could not be saved ({error})"),
        };
        Error::DeviceFailed(format!(
            "the generated shader `{}` does not compile for {} (a fault in nneinfact or the driver: \
             please report it with the shader; --device cpu is not affected); {saved}:\n{message}",
            shader.label,
            self.name(),
        ))
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

/// Saves the source under a name that nobody can guess, so that it cannot overwrite anything.
fn save(shader: &Shader) -> std::io::Result<std::path::PathBuf> {
    let mut file = tempfile::Builder::new()
        .prefix(&format!("nneinfact-{}-", file_name(shader)))
        .suffix(".wgsl")
        .tempfile()?;
    std::io::Write::write_all(&mut file, shader.source.as_bytes())?;
    let (_, path) = file.keep().map_err(|e| e.error)?;
    Ok(path)
}

/// The label of a shader, as a part of the name of a file.
fn file_name(shader: &Shader) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    shader.label.chars().map(plain).take(40).collect()
}

/// Leaves the shaders of a run of the tests where `.ci/second-opinion` looks at them.
#[cfg(debug_assertions)]
fn dump(shader: &Shader) {
    use std::hash::{DefaultHasher, Hash, Hasher};

    if let Some(folder) = std::env::var_os("NNEINFACT_DUMP_SHADERS") {
        let mut hasher = DefaultHasher::new();
        shader.hash(&mut hasher);
        let name = format!("{}-{:016x}.wgsl", file_name(shader), hasher.finish());
        let path = std::path::Path::new(&folder).join(name);
        if let Err(error) = std::fs::write(&path, &shader.source) {
            eprintln!("NNEINFACT_DUMP_SHADERS: {}: {error}", path.display());
        }
    }
}

/// What an error says, with its causes, without the lines that every message begins with.
fn said(error: &wgpu::Error) -> String {
    let text = error.to_string();
    let text = text.trim();
    let text = text.strip_prefix("Validation Error").unwrap_or(text).trim_start();
    text.strip_prefix("Caused by:").unwrap_or(text).trim().to_string()
}
