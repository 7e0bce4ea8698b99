//! What a fit can run on.

use std::fmt;
use std::sync::Arc;

use nneinfact_core::engine::{AdapterInfo, Engine, Job, Precision};
use nneinfact_core::error::{Error, Result};
use nneinfact_simd::arch_problem;

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
    tuning: nneinfact_gpu::Tuning,
}

#[derive(Clone)]
enum Kind {
    Cpu,
    #[cfg(feature = "gpu")]
    Gpu(nneinfact_gpu::Gpu),
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

impl Device {
    fn new(kind: Kind) -> Device {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Device {
            kind,
            threads,
            pool: None,
            #[cfg(feature = "gpu")]
            tuning: nneinfact_gpu::Tuning::default(),
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
        if nneinfact_gpu::any_real() {
            return Ok(Device::new(Kind::Gpu(nneinfact_gpu::Gpu::open(
                nneinfact_gpu::Wanted::Real,
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
        return Ok(Device::new(Kind::Gpu(nneinfact_gpu::Gpu::open(
            nneinfact_gpu::Wanted::Best,
            None,
        )?)));
        #[cfg(not(feature = "gpu"))]
        Err(Error::Device(NO_FEATURE.into()))
    }

    /// As [`Device::gpu`], asked for no more than these limits: to leave memory to others, or to see
    /// what a smaller GPU would do.
    ///
    /// # Errors
    /// [`Error::Device`] where there is none, or where no fit could run within the limits.
    #[cfg(feature = "gpu")]
    pub fn gpu_within(limits: &nneinfact_gpu::wgpu::Limits) -> Result<Device> {
        let gpu = nneinfact_gpu::Gpu::open(nneinfact_gpu::Wanted::Best, Some(limits))?;
        Ok(Device::new(Kind::Gpu(gpu)))
    }

    /// A GPU that the program has opened already, with the version of wgpu that this crate
    /// re-exports as `nneinfact::wgpu`. It has to be requested with the limits that the fit may
    /// use: [`nneinfact_gpu::wgpu::Limits::default`] at least, `adapter.limits()` at best.
    ///
    /// The handlers of the device stay as they are. Where two threads use the device at once, each
    /// sees the errors of its own calls only.
    ///
    /// # Errors
    /// [`Error::Device`] where the device cannot run compute shaders or its limits are too small for
    /// any fit, [`Error::DeviceFailed`] where it is lost.
    #[cfg(feature = "gpu")]
    pub fn from_wgpu(
        device: nneinfact_gpu::wgpu::Device,
        queue: nneinfact_gpu::wgpu::Queue,
    ) -> Result<Device> {
        Ok(Device::new(Kind::Gpu(nneinfact_gpu::Gpu::from_wgpu(device, queue)?)))
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
                let wanted = nneinfact_gpu::Wanted::Named(name);
                Ok(Device::new(Kind::Gpu(nneinfact_gpu::Gpu::open(wanted, None)?)))
            }
            #[cfg(not(feature = "gpu"))]
            _ => Err(Error::Device(format!("no device is called {name:?}: {NO_FEATURE}"))),
        }
    }

    /// The most threads that are started: 1024, or as many as this process may run at once.
    #[must_use]
    pub fn most_threads() -> usize {
        std::thread::available_parallelism().map_or(1, usize::from).max(1024)
    }

    /// Uses this many threads of this machine. Results do not depend on their number.
    ///
    /// # Errors
    /// [`Error::Setting`] for 0 threads or more than [`most_threads`](Device::most_threads),
    /// [`Error::Device`] where the threads cannot be started.
    pub fn threads(self, threads: usize) -> Result<Device> {
        if threads == 0 {
            return Err(Error::Setting("the number of threads must be at least 1".into()));
        }
        let most = Device::most_threads();
        if threads > most {
            return Err(Error::Setting(format!(
                "{threads} threads are more than the {most} that are started at most: as many as there are cores are fastest"
            )));
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
        let adapters = nneinfact_gpu::list();
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
    pub fn measure(&self, quick: bool) -> Result<Option<nneinfact_core::engine::RooflinePeaks>> {
        #[cfg(feature = "gpu")]
        if let Kind::Gpu(gpu) = &self.kind {
            return nneinfact_gpu::measure(gpu, quick);
        }
        Ok(Some(self.install(|| nneinfact_cpu::measure(quick))))
    }

    /// "cpu" or "gpu".
    pub fn kind_name(&self) -> &'static str {
        match &self.kind {
            Kind::Cpu => "cpu",
            #[cfg(feature = "gpu")]
            Kind::Gpu(_) => "gpu",
        }
    }

    /// The largest buffer that a pass may read products of factors from, where there is a limit.
    pub fn largest_buffer(&self) -> Option<u64> {
        match &self.kind {
            Kind::Cpu => None,
            #[cfg(feature = "gpu")]
            Kind::Gpu(gpu) => Some(gpu.limits().binding_bytes),
        }
    }

    /// How many threads of this machine it uses.
    #[must_use]
    pub fn thread_count(&self) -> usize {
        self.threads
    }

    /// A pool whose parallel code runs on one thread: for a fit beside others. Results do not depend on it.
    ///
    /// # Errors
    /// [`Error::Device`] where the thread cannot be started.
    pub fn one_thread() -> Result<rayon::ThreadPool> {
        rayon::ThreadPoolBuilder::new()
            .num_threads(1)
            .thread_name(|_| "nneinfact-fit".into())
            .build()
            .map_err(|e| Error::Device(format!("cannot start a thread: {e}")))
    }

    /// Runs `work` where this device's threads are used by parallel code.
    pub fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        match &self.pool {
            Some(pool) => pool.install(work),
            None => work(),
        }
    }

    /// Refuses a precision that the device does not have.
    pub fn check_precision(&self, precision: Precision) -> Result<()> {
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
    pub fn open(&self, job: Job, precision: Precision) -> Result<Box<dyn Engine>> {
        check_arch()?;
        self.check_precision(precision)?;
        match (&self.kind, precision) {
            (Kind::Cpu, _) => nneinfact_cpu::engine(job, precision),
            #[cfg(feature = "gpu")]
            (Kind::Gpu(gpu), _) => nneinfact_gpu::open(gpu, job, &self.tuning),
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
                let simd = nneinfact_cpu::simd_name();
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
