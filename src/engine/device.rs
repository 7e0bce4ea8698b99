//! What a fit can run on.

use std::fmt;
use std::sync::Arc;

use super::{Engine, Job, cpu::CpuEngine};
use crate::error::{Error, Result};
use crate::math::arch_problem;

/// The element type of passes over the data.
///
/// Factors are kept and updated in double precision on the CPU either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Precision {
    /// Single precision: half the memory traffic, twice the SIMD width.
    #[default]
    F32,
    /// Double precision.
    F64,
}

impl Precision {
    /// "f32" or "f64".
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::F64 => "f64",
        }
    }

    /// Bytes of an element.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Precision::F32 => 4,
            Precision::F64 => 8,
        }
    }
}

/// A device that a fit can run on. Cheap to clone; clones share the device.
///
/// Whatever it is, the CPU uses the best instruction set that it has. The environment variable
/// `NNEINFACT_SIMD` holds a process to another one, `scalar`, `avx2` or `avx512`, to find out whether
/// something depends on it; no fit starts where the processor does not have it.
///
/// ```
/// use nneinfact::Device;
///
/// let device = Device::cpu().threads(1)?;
/// assert!(device.to_string().starts_with("cpu"));
/// # Ok::<(), nneinfact::Error>(())
/// ```
#[derive(Clone)]
pub struct Device {
    kind: Kind,
    /// Threads of this machine, which prepare the data for a GPU too.
    threads: usize,
    pool: Option<Arc<rayon::ThreadPool>>,
    #[cfg(feature = "gpu")]
    tuning: super::gpu::Tuning,
}

#[derive(Clone)]
enum Kind {
    Cpu,
    #[cfg(feature = "gpu")]
    Gpu(super::gpu::Gpu),
}

/// A device as `nneinfact devices` lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeviceInfo {
    /// The name that `--device` takes.
    pub name: String,
    /// What it is, in words.
    pub description: String,
    /// Whether [`Device::auto`] takes it.
    pub auto: bool,
    /// Why [`Device::auto`] takes it or not.
    pub reason: String,
    /// What its driver says about it, where it is a GPU.
    pub adapter: Option<AdapterInfo>,
}

/// A GPU as its driver describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AdapterInfo {
    /// Its name.
    pub name: String,
    /// What kind of GPU it is.
    pub kind: AdapterKind,
    /// The interface that it is reached through: Vulkan, Metal, DirectX 12.
    pub backend: String,
    /// The driver and its version.
    pub driver: String,
    /// Its place on the bus, as in `0000:01:00.0`; empty where the driver does not tell.
    pub bus: String,
    /// Bytes of its memory, where the driver tells.
    pub memory: Option<u64>,
    /// The largest buffer, in bytes.
    pub buffer_bytes: u64,
    /// The largest part of a buffer that a shader may see, in bytes.
    pub binding_bytes: u64,
    /// Memory that a workgroup shares, in bytes.
    pub workgroup_bytes: u32,
    /// The most invocations of a workgroup.
    pub invocations: u32,
    /// The smallest and the largest size of a subgroup, where shaders may use them.
    pub subgroups: Option<(u32, u32)>,
    /// Whether shaders may use half precision.
    pub f16: bool,
    /// Whether it can time its own work.
    pub timestamps: bool,
}

impl AdapterInfo {
    /// Whether it is a program that runs on the CPU: correct, but slower than [`Device::cpu`].
    #[must_use]
    pub fn is_software(&self) -> bool {
        self.kind == AdapterKind::Software
    }
}

impl fmt::Display for AdapterInfo {
    /// Name, interface and driver.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.name, self.backend)?;
        if !self.driver.is_empty() {
            write!(f, ", driver {}", self.driver)?;
        }
        if self.is_software() {
            write!(f, ", a software rasteriser")?;
        }
        Ok(())
    }
}

/// The kinds of GPUs, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum AdapterKind {
    /// With memory of its own.
    Discrete,
    /// With the memory of the CPU.
    Integrated,
    /// Of a virtual machine.
    Virtual,
    /// Not known.
    Other,
    /// No GPU at all, but a program on the CPU that behaves as one.
    Software,
}

impl AdapterKind {
    /// In words.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            AdapterKind::Discrete => "discrete GPU",
            AdapterKind::Integrated => "integrated GPU",
            AdapterKind::Virtual => "virtual GPU",
            AdapterKind::Other => "GPU",
            AdapterKind::Software => "software rasteriser",
        }
    }
}

impl Device {
    fn new(kind: Kind) -> Device {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Device {
            kind,
            threads,
            pool: None,
            #[cfg(feature = "gpu")]
            tuning: super::gpu::Tuning::default(),
        }
    }

    /// The largest inner dimension for which a pass on a GPU keeps sums in registers; beyond it
    /// runs in two halves over tiles. For tests and for tuning: results differ by rounding only.
    #[doc(hidden)]
    #[cfg(feature = "gpu")]
    #[must_use]
    pub fn register_inner(mut self, most: usize) -> Device {
        self.tuning.register_k = most;
        self
    }

    /// Takes at most so many bytes of a GPU's memory. Data that are too large for that, or for all the
    /// memory that the GPU has, take turns on it: they are sent a slab at a time in every pass, from
    /// the memory of this machine or from their file. On a CPU this changes nothing.
    #[must_use]
    pub fn within_memory(mut self, bytes: u64) -> Device {
        #[cfg(feature = "gpu")]
        {
            self.tuning.memory = Some(bytes);
        }
        #[cfg(not(feature = "gpu"))]
        let _ = (&mut self, bytes);
        self
    }

    /// The best device there is: a real GPU if there is one, else the CPU. A software rasteriser is
    /// no real GPU, and slower than the CPU.
    ///
    /// # Errors
    /// [`Error::Device`] where there is a GPU but its driver does not open it.
    pub fn auto() -> Result<Device> {
        #[cfg(feature = "gpu")]
        if super::gpu::any_real() {
            return Ok(Device::new(Kind::Gpu(super::gpu::Gpu::open(
                super::gpu::Wanted::Real,
                None,
            )?)));
        }
        Ok(Device::cpu())
    }

    /// The CPU, with as many threads as the process may use.
    #[must_use]
    pub fn cpu() -> Device {
        Device::new(Kind::Cpu)
    }

    /// The best GPU there is; a software rasteriser where there is no other, which is correct but
    /// slower than the CPU. What it is says its `to_string`.
    ///
    /// # Errors
    /// [`Error::Device`] where there is none, or this build has no engine for GPUs.
    pub fn gpu() -> Result<Device> {
        #[cfg(feature = "gpu")]
        return Ok(Device::new(Kind::Gpu(super::gpu::Gpu::open(super::gpu::Wanted::Best, None)?)));
        #[cfg(not(feature = "gpu"))]
        Err(Error::Device(NO_FEATURE.into()))
    }

    /// As [`Device::gpu`], asked for no more than these limits: to leave memory to others, or to see
    /// what a smaller GPU would do.
    ///
    /// # Errors
    /// [`Error::Device`] where there is none, or where no fit could run within the limits.
    #[cfg(feature = "gpu")]
    pub fn gpu_within(limits: &wgpu::Limits) -> Result<Device> {
        let gpu = super::gpu::Gpu::open(super::gpu::Wanted::Best, Some(limits))?;
        Ok(Device::new(Kind::Gpu(gpu)))
    }

    /// A GPU that the program has opened already, with the version of wgpu that this crate
    /// re-exports as `nneinfact::wgpu`. It has to be requested with the limits that the fit may
    /// use: [`wgpu::Limits::default`] at least, `adapter.limits()` at best.
    ///
    /// The handlers of the device stay as they are. Where two threads use the device at once, each
    /// sees the errors of its own calls only.
    ///
    /// # Errors
    /// [`Error::Device`] where the device cannot run compute shaders or its limits are too small for
    /// any fit, [`Error::DeviceFailed`] where it is lost.
    #[cfg(feature = "gpu")]
    pub fn from_wgpu(device: wgpu::Device, queue: wgpu::Queue) -> Result<Device> {
        Ok(Device::new(Kind::Gpu(super::gpu::Gpu::from_wgpu(device, queue)?)))
    }

    /// A device by name: `auto`, `cpu`, `gpu`, or part of an adapter's name, interface or place on
    /// the bus.
    ///
    /// # Errors
    /// [`Error::Device`] where there is no such device, or several, or `NNEINFACT_SIMD` names no
    /// instruction set of this processor.
    pub fn named(name: &str) -> Result<Device> {
        check_arch()?;
        match name.trim().to_ascii_lowercase().as_str() {
            "auto" => Device::auto(),
            "cpu" => Ok(Device::cpu()),
            "gpu" => Device::gpu(),
            #[cfg(feature = "gpu")]
            _ => {
                let wanted = super::gpu::Wanted::Named(name);
                Ok(Device::new(Kind::Gpu(super::gpu::Gpu::open(wanted, None)?)))
            }
            #[cfg(not(feature = "gpu"))]
            _ => Err(Error::Device(format!("no device is called {name:?}: {NO_FEATURE}"))),
        }
    }

    /// Uses this many threads of this machine. Results do not depend on their number.
    ///
    /// # Errors
    /// [`Error::Setting`] for 0 threads, [`Error::Device`] where the threads cannot be started.
    pub fn threads(self, threads: usize) -> Result<Device> {
        if threads == 0 {
            return Err(Error::Setting("the number of threads must be at least 1".into()));
        }
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|i| format!("nneinfact-{i}"))
            .build()
            .map_err(|e| Error::Device(format!("cannot start {threads} threads: {e}")))?;
        Ok(Device { threads, pool: Some(Arc::new(pool)), ..self })
    }

    /// All devices of this machine that this build can use, the one that [`Device::auto`] takes
    /// first.
    #[must_use]
    pub fn list() -> Vec<DeviceInfo> {
        let cpu = Device::cpu();
        #[cfg(feature = "gpu")]
        let adapters = super::gpu::list();
        #[cfg(not(feature = "gpu"))]
        let adapters: Vec<AdapterInfo> = Vec::new();
        let real = adapters.iter().any(|a| !a.is_software());
        let mut devices = vec![DeviceInfo {
            name: "cpu".into(),
            description: cpu.to_string(),
            auto: !real,
            reason: match () {
                () if real => "there is a GPU",
                () if !cfg!(feature = "gpu") => NO_FEATURE,
                () if adapters.is_empty() => "no GPU was found",
                () => "there is no GPU other than software rasterisers, which are slower",
            }
            .into(),
            adapter: None,
        }];
        for (n, adapter) in adapters.into_iter().enumerate() {
            let auto = real && n == 0;
            let reason = match () {
                () if auto => "the best GPU here",
                () if adapter.is_software() => "a software rasteriser, slower than the CPU",
                () => "there is a better way to a GPU",
            };
            let info = DeviceInfo {
                name: adapter.name.clone(),
                description: format!("gpu ({adapter})"),
                auto,
                reason: reason.into(),
                adapter: Some(adapter),
            };
            devices.insert(if auto { 0 } else { devices.len() }, info);
        }
        devices
    }

    /// What it can do at best, measured now; `None` for a GPU without a clock.
    ///
    /// # Errors
    /// Where the device fails.
    #[doc(hidden)]
    pub fn measure(&self, quick: bool) -> Result<Option<super::Rates>> {
        #[cfg(feature = "gpu")]
        if let Kind::Gpu(gpu) = &self.kind {
            return super::gpu::measure(gpu, quick);
        }
        Ok(Some(self.install(|| super::cpu::measure(quick))))
    }

    /// "cpu" or "gpu".
    pub(crate) fn kind_name(&self) -> &'static str {
        match &self.kind {
            Kind::Cpu => "cpu",
            #[cfg(feature = "gpu")]
            Kind::Gpu(_) => "gpu",
        }
    }

    /// The largest buffer that a pass may read products of factors from, where there is a limit.
    pub(crate) fn largest_buffer(&self) -> Option<u64> {
        match &self.kind {
            Kind::Cpu => None,
            #[cfg(feature = "gpu")]
            Kind::Gpu(gpu) => Some(gpu.limits().binding_bytes),
        }
    }

    /// Runs `work` where this device's threads are used by parallel code.
    pub(crate) fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        match &self.pool {
            Some(pool) => pool.install(work),
            None => work(),
        }
    }

    /// Refuses a precision that the device does not have.
    pub(crate) fn check_precision(&self, precision: Precision) -> Result<()> {
        match (&self.kind, precision) {
            (Kind::Cpu, _) => Ok(()),
            #[cfg(feature = "gpu")]
            (Kind::Gpu(_), Precision::F32) => Ok(()),
            #[cfg(feature = "gpu")]
            (Kind::Gpu(_), Precision::F64) => Err(Error::Setting(
                "f64 is not available on a GPU, whose shaders have single precision: use f32 there, \
                 or --device cpu with --precision f64"
                    .into(),
            )),
        }
    }

    /// Puts a job on the device.
    pub(crate) fn open(&self, job: Job, precision: Precision) -> Result<Box<dyn Engine>> {
        check_arch()?;
        self.check_precision(precision)?;
        match (&self.kind, precision) {
            (Kind::Cpu, Precision::F32) => Ok(Box::new(CpuEngine::<f32>::new(job)?)),
            (Kind::Cpu, Precision::F64) => Ok(Box::new(CpuEngine::<f64>::new(job)?)),
            #[cfg(feature = "gpu")]
            (Kind::Gpu(gpu), _) => super::gpu::open(gpu, job, &self.tuning),
        }
    }
}

/// Refuses an instruction set that this processor does not have.
fn check_arch() -> Result<()> {
    arch_problem().map_or(Ok(()), |problem| Err(Error::Device(problem.into())))
}

/// Why a build without the feature `gpu` has none.
#[cfg(not(feature = "gpu"))]
const NO_FEATURE: &str =
    "this program was built without its GPU engine (the feature `gpu`), and has cpu only";
#[cfg(feature = "gpu")]
const NO_FEATURE: &str = "";

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Cpu => {
                let simd = super::cpu::simd_name();
                let plural = if self.threads == 1 { "" } else { "s" };
                write!(f, "cpu ({} thread{plural}, {simd})", self.threads)
            }
            #[cfg(feature = "gpu")]
            Kind::Gpu(gpu) => write!(f, "gpu ({})", gpu.info()),
        }
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Device({self})")
    }
}

/// The memory that this process may still take, in bytes, where the system tells.
#[must_use]
pub fn available_memory() -> Option<u64> {
    memory(sysinfo::System::available_memory, |group| group.free_memory)
}

/// The memory that this process may take where nothing else does, in bytes, where the system tells.
/// Choices that decide about results are made by this and not by what is free at the moment: the same
/// fit on the same machine comes out the same.
#[must_use]
pub(crate) fn total_memory() -> Option<u64> {
    memory(sysinfo::System::total_memory, |group| group.total_memory)
}

/// Memory of the host, or of the control group where that has less.
fn memory(
    host: impl Fn(&sysinfo::System) -> u64,
    group: impl Fn(&sysinfo::CGroupLimits) -> u64,
) -> Option<u64> {
    let mut system = sysinfo::System::new().ok()?;
    system.refresh_memory();
    let limit = system.cgroup_limits().map(|limits| group(&limits)).filter(|&bytes| bytes > 0);
    let bytes = limit.map_or(host(&system), |limit| host(&system).min(limit));
    (bytes > 0).then_some(bytes)
}
