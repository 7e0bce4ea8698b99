//! What a fit can run on.

use std::fmt;
use std::sync::Arc;

use super::{Engine, Job, cpu::CpuEngine};
use crate::error::{Error, Result};

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
}

#[derive(Clone)]
enum Kind {
    Cpu { threads: usize, pool: Option<Arc<rayon::ThreadPool>> },
}

/// A device as `nneinfact devices` lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// The name that `--device` takes.
    pub name: String,
    /// What it is, in words.
    pub description: String,
    /// Whether [`Device::auto`] takes it.
    pub auto: bool,
}

impl Device {
    /// The best device there is: a GPU where this build has an engine for one, else the CPU.
    ///
    /// # Errors
    /// None today; a build with a GPU engine can fail to open its adapter.
    pub fn auto() -> Result<Device> {
        Ok(Device::cpu())
    }

    /// The CPU, with as many threads as the process may use.
    #[must_use]
    pub fn cpu() -> Device {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Device { kind: Kind::Cpu { threads, pool: None } }
    }

    /// A device by name: `auto`, `cpu`, `gpu`, or part of an adapter's name.
    ///
    /// # Errors
    /// [`Error::Device`] where there is no such device.
    pub fn named(name: &str) -> Result<Device> {
        match name.to_ascii_lowercase().as_str() {
            "auto" => Device::auto(),
            "cpu" => Ok(Device::cpu()),
            "gpu" => Err(Error::Device(
                "this version has no GPU engine yet: use --device cpu or auto".into(),
            )),
            _ => Err(Error::Device(format!(
                "no device is called {name:?}: this version has cpu (and auto, which takes it)"
            ))),
        }
    }

    /// Uses this many threads. Results do not depend on their number.
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
        Ok(Device { kind: Kind::Cpu { threads, pool: Some(Arc::new(pool)) } })
    }

    /// All devices of this machine that this version can use.
    #[must_use]
    pub fn list() -> Vec<DeviceInfo> {
        let cpu = Device::cpu();
        vec![DeviceInfo { name: "cpu".into(), description: cpu.to_string(), auto: true }]
    }

    /// Runs `work` where this device's threads are used by parallel code.
    pub(crate) fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        let Kind::Cpu { pool, .. } = &self.kind;
        match pool {
            Some(pool) => pool.install(work),
            None => work(),
        }
    }

    /// Puts a job on the device.
    pub(crate) fn open(&self, job: Job, precision: Precision) -> Result<Box<dyn Engine>> {
        Ok(match precision {
            Precision::F32 => Box::new(CpuEngine::<f32>::new(job)?),
            Precision::F64 => Box::new(CpuEngine::<f64>::new(job)?),
        })
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Kind::Cpu { threads, .. } = &self.kind;
        let simd = super::cpu::simd_name();
        write!(f, "cpu ({threads} thread{}, {simd})", if *threads == 1 { "" } else { "s" })
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
    let mut system = sysinfo::System::new().ok()?;
    system.refresh_memory();
    let host = system.available_memory();
    let limit = system.cgroup_limits().map(|c| c.free_memory).filter(|&free| free > 0);
    let available = limit.map_or(host, |free| host.min(free));
    (available > 0).then_some(available)
}
