//! A GPU as its driver describes it.

use std::fmt;

/// A GPU as its driver describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// Whether it is a program that runs on the CPU: correct, but slower than `Device::cpu`.
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
