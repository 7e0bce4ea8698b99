//! What a GPU is to do, as plain data: made and tested without a device, carried out by the
//! runtime.

use std::collections::HashMap;

use crate::joint::operation::Operation;

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
    /// What to allocate.
    pub buffers: Vec<Buffer>,
    /// What to compile.
    pub shaders: Vec<Shader>,
    /// What can be run.
    pub recordings: Vec<Recording>,
    /// What joint dispatches do, by the window of their uniforms: for people.
    pub notes: HashMap<Window, String>,
}

/// A buffer to allocate. It starts as zeros where it has no content.
#[derive(Clone, Debug)]
pub struct Buffer {
    /// For messages and debuggers.
    pub label: String,
    /// Its size, a multiple of 4.
    pub bytes: u64,
    /// What it is used as.
    pub kind: BufferKind,
    /// What it holds at first, from its beginning on; it may be shorter than the buffer.
    pub content: Vec<u8>,
    /// Who reads it first.
    pub first_use: FirstUse,
}

/// What happens first to a buffer whose content is not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstUse {
    /// A shader or the host may read it: the zeros, or the content, that it starts with count.
    Read,
    /// Every part is written before it is read.
    Written,
}

/// What a buffer is used as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BufferKind {
    /// Sizes and offsets for shaders.
    Uniform,
    /// Data, factors, sums.
    Storage,
    /// As `Storage`, and how many workgroups dispatches have.
    Sizes,
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
    /// `var<uniform>`.
    Uniform,
    /// `var<storage, read>`.
    Read,
    /// `var<storage, read_write>`.
    ReadWrite,
}

/// Commands in order: each sees what those before it wrote.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    /// For messages and debuggers.
    pub label: String,
    /// What is done, in order.
    pub commands: Vec<Command>,
}

/// A step of a [`Recording`].
#[derive(Clone, Debug)]
pub enum Command {
    /// Runs a shader.
    Dispatch(Dispatch),
    /// Runs a shader with as many workgroups as three words of a buffer say by then.
    Indirect {
        /// What is run; its workgroups are the most that there may be.
        dispatch: Dispatch,
        /// Which buffer.
        sizes: BufferId,
        /// Where the words begin there, in bytes.
        offset: u64,
    },
    /// A command that operations of a joint dispatch may be in place of. A program that is complete has
    /// none.
    Small {
        /// The command itself.
        otherwise: Box<Command>,
        /// What does the same; nothing where those of another command do it too.
        operations: Vec<Operation>,
    },
    /// Copies bytes (a multiple of 4, at multiples of 4) from one buffer to another.
    Copy {
        /// What is read.
        from: BufferId,
        /// Where the bytes begin there.
        from_offset: u64,
        /// What is written.
        to: BufferId,
        /// Where the bytes go there.
        to_offset: u64,
        /// How many.
        bytes: u64,
    },
    /// Fills bytes (a multiple of 4, at a multiple of 4) with zeros.
    Clear {
        /// What is written.
        buffer: BufferId,
        /// Where the zeros begin.
        offset: u64,
        /// How many bytes.
        bytes: u64,
    },
}

/// A run of a shader.
#[derive(Clone, Debug)]
pub struct Dispatch {
    /// Which one.
    pub shader: ShaderId,
    /// What it works on.
    pub kind: DispatchKind,
    /// One for each binding of the shader.
    pub bindings: Vec<Binding>,
    /// Workgroups in each dimension, within the device's limit.
    pub workgroups: [u32; 3],
    /// Floating-point operations, roughly: what decides how many dispatches make a submission.
    pub work: f64,
}

/// What a dispatch works on: a benchmark compares the time of the first kind with the roofline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DispatchKind {
    /// The entries of the data, or a and b of them.
    Data,
    /// Tensors that are small beside the data: factors, products, sums.
    Small,
}

/// What a shader sees of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Binding {
    /// All of it, however long it is in the end: buffers grow until a program is complete.
    Whole(BufferId),
    /// A part of it.
    Part(Window),
}

impl Binding {
    /// The buffer that is bound.
    pub fn buffer(&self) -> BufferId {
        match self {
            Binding::Whole(buffer) => *buffer,
            Binding::Part(window) => window.buffer,
        }
    }

    /// The part of the buffer, which has so many bytes.
    pub fn window(&self, bytes: u64) -> Window {
        match *self {
            Binding::Whole(buffer) => Window { buffer, offset: 0, bytes },
            Binding::Part(window) => window,
        }
    }
}

/// A part of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    /// Which one.
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
