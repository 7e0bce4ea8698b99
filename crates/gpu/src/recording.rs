//! What a GPU is to do, as plain data: made and tested without a device, carried out by the
//! runtime.

/// A buffer of a [`Program`], by its place in [`Program::buffers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BufferId(pub usize);

/// A shader of a [`Program`], by its place in [`Program::shaders`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ShaderId(pub usize);

/// A list of commands of a [`Program`], by its place in [`Program::recordings`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RecordingId(pub usize);

/// Everything that a fit needs of a device: what to allocate, what to compile, what to run.
#[derive(Clone, Debug, Default)]
pub struct Program {
    pub buffers: Vec<Buffer>,
    pub shaders: Vec<Shader>,
    pub recordings: Vec<Recording>,
}

/// A buffer to allocate. It starts as zeros where it has no content.
#[derive(Clone, Debug)]
pub struct Buffer {
    /// For messages and debuggers.
    pub label: String,
    /// Its size, a multiple of 4.
    pub bytes: u64,
    pub kind: BufferKind,
    /// What it holds at first, from its beginning on; it may be shorter than the buffer.
    pub content: Vec<u8>,
}

/// What a buffer is used as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BufferKind {
    /// Sizes and offsets for shaders.
    Uniform,
    /// Data, factors, sums.
    Storage,
}

/// A compute shader with the entry point `main`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Shader {
    /// For messages and debuggers.
    pub label: String,
    /// The whole WGSL text.
    pub source: String,
    /// How each binding of group 0 is accessed, by its number.
    pub bindings: Vec<Access>,
    /// The invocations of a workgroup: the product of the sizes in `source`.
    pub invocations: u32,
    /// The bytes of workgroup memory that it declares.
    pub workgroup_bytes: u32,
}

/// How a shader accesses a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    Uniform,
    Read,
    ReadWrite,
}

/// Commands in order: each sees what those before it wrote.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    /// For messages and debuggers.
    pub label: String,
    pub commands: Vec<Command>,
}

#[derive(Clone, Debug)]
pub enum Command {
    Dispatch(Dispatch),
    /// Copies bytes (a multiple of 4, at multiples of 4) from one buffer to another.
    Copy {
        from: BufferId,
        from_offset: u64,
        to: BufferId,
        to_offset: u64,
        bytes: u64,
    },
    /// Fills bytes (a multiple of 4, at a multiple of 4) with zeros.
    Clear {
        buffer: BufferId,
        offset: u64,
        bytes: u64,
    },
}

#[derive(Clone, Debug)]
pub struct Dispatch {
    pub shader: ShaderId,
    /// One for each binding of the shader.
    pub bindings: Vec<Window>,
    /// Workgroups in each dimension, within the device's limit.
    pub workgroups: [u32; 3],
    /// Floating-point operations, roughly: what decides how many dispatches make a submission.
    pub work: f64,
}

/// The part of a buffer that a shader sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    pub buffer: BufferId,
    /// A multiple of the alignment that the device asks for.
    pub offset: u64,
    /// Its size, a multiple of 4 (of 16 for uniforms).
    pub bytes: u64,
}

/// What a program has to stay within.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GpuLimits {
    /// Bytes of a storage buffer that a shader may see.
    pub binding_bytes: u64,
    /// Bytes of a uniform buffer that a shader may see.
    pub uniform_bytes: u64,
    /// Bytes of a buffer.
    pub buffer_bytes: u64,
    /// Storage buffers of a shader.
    pub storage_buffers: u32,
    /// Uniform buffers of a shader.
    pub uniform_buffers: u32,
    /// Workgroups of a dispatch in each dimension.
    pub workgroups: u32,
    /// Invocations of a workgroup, in one dimension too.
    pub invocations: u32,
    /// Bytes of workgroup memory.
    pub workgroup_bytes: u32,
    /// Alignment of the offset of a storage window.
    pub storage_align: u32,
    /// Alignment of the offset of a uniform window.
    pub uniform_align: u32,
}

impl GpuLimits {
    /// The largest power of two of threads that a workgroup may have, up to `most`.
    pub fn most_threads(&self, most: u32) -> u32 {
        1 << self.invocations.clamp(1, most.max(1)).ilog2()
    }
}

impl Default for GpuLimits {
    /// What WebGPU guarantees.
    fn default() -> GpuLimits {
        GpuLimits {
            binding_bytes: 128 << 20,
            uniform_bytes: 64 << 10,
            buffer_bytes: 256 << 20,
            storage_buffers: 8,
            uniform_buffers: 12,
            workgroups: 65_535,
            invocations: 256,
            workgroup_bytes: 16 << 10,
            storage_align: 256,
            uniform_align: 256,
        }
    }
}
