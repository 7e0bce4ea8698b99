//! Holds a program against the limits of a device, before the device is asked.
//!
//! A device would refuse most of this too, but in words about its own interface, and some drivers
//! in no words at all.

use super::recording::{
    Access, Binding, Buffer, BufferId, BufferKind, Command, Dispatch, GpuLimits, Program, Shader,
    Window,
};
use nneinfact_core::error::{Error, Result, bytes};

/// Sizes and offsets of copies are multiples of this.
pub(crate) const WORD: u64 = 4;

impl Program {
    /// Whether a device with these limits can run it.
    ///
    /// # Errors
    /// [`Error::Device`] that says what is too large and what the device allows,
    /// [`Error::DeviceFailed`] where the program does not hold together (a fault of this crate).
    pub fn check(&self, limits: &GpuLimits) -> Result<()> {
        for buffer in &self.buffers {
            check_buffer(buffer, limits)?;
        }
        for shader in &self.shaders {
            check_shader(shader, limits)?;
        }
        for recording in &self.recordings {
            for (n, command) in recording.commands.iter().enumerate() {
                let at = || format!("command {n} of `{}`", recording.label);
                match command {
                    Command::Dispatch(dispatch) => self.check_dispatch(dispatch, limits, &at)?,
                    Command::Indirect { dispatch, sizes, offset } => {
                        self.check_dispatch(dispatch, limits, &at)?;
                        self.check_sizes(dispatch, *sizes, *offset, &at)?;
                    }
                    Command::Small { .. } => return fault(at(), "it was left in the making"),
                    Command::Copy { from, from_offset, to, to_offset, bytes } => {
                        check_range(self.buffer(*from, &at)?, *from_offset, *bytes, &at)?;
                        check_range(self.buffer(*to, &at)?, *to_offset, *bytes, &at)?;
                        if from == to {
                            return fault(at(), "it copies from a buffer to the same buffer");
                        }
                    }
                    Command::Clear { buffer, offset, bytes } => {
                        check_range(self.buffer(*buffer, &at)?, *offset, *bytes, &at)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn buffer(&self, id: BufferId, at: &dyn Fn() -> String) -> Result<&Buffer> {
        match self.buffers.get(id.0) {
            Some(buffer) => Ok(buffer),
            None => fault(at(), &format!("there is no buffer {}", id.0)),
        }
    }

    fn check_dispatch(
        &self,
        dispatch: &Dispatch,
        limits: &GpuLimits,
        at: &dyn Fn() -> String,
    ) -> Result<()> {
        let Some(shader) = self.shaders.get(dispatch.shader.0) else {
            return fault(at(), &format!("there is no shader {}", dispatch.shader.0));
        };
        let at = || format!("{} (`{}`)", at(), shader.label);
        if dispatch.bindings.len() != shader.bindings.len() {
            let (given, taken) = (dispatch.bindings.len(), shader.bindings.len());
            return fault(at(), &format!("{given} windows are given, the shader takes {taken}"));
        }
        for (binding, access) in dispatch.bindings.iter().zip(&shader.bindings) {
            self.check_binding(binding, *access, limits, &at)?;
        }
        self.check_aliases(dispatch, shader, &at)?;
        let most = dispatch.workgroups.iter().copied().max().unwrap_or(0);
        if most > limits.workgroups {
            let allowed = limits.workgroups;
            return fault(
                at(),
                &format!("{most} workgroups in one dimension, of {allowed} at most"),
            );
        }
        Ok(())
    }

    /// A dispatch may not write what says how large it is.
    fn check_sizes(
        &self,
        dispatch: &Dispatch,
        sizes: BufferId,
        offset: u64,
        at: &dyn Fn() -> String,
    ) -> Result<()> {
        let buffer = self.buffer(sizes, at)?;
        check_range(buffer, offset, 3 * WORD, at)?;
        if buffer.kind != BufferKind::Sizes {
            return fault(at(), &format!("`{}` has no sizes of dispatches", buffer.label));
        }
        match dispatch.bindings.iter().any(|binding| binding.buffer() == sizes) {
            true => fault(at(), &format!("`{}` says how large it is, and is bound", buffer.label)),
            false => Ok(()),
        }
    }

    fn check_binding(
        &self,
        binding: &Binding,
        access: Access,
        limits: &GpuLimits,
        at: &dyn Fn() -> String,
    ) -> Result<()> {
        let buffer = self.buffer(binding.buffer(), at)?;
        let window = binding.window(buffer.bytes);
        let (kind, most, align) = match access {
            Access::Uniform => {
                (BufferKind::Uniform, limits.uniform_bytes, u64::from(limits.uniform_align))
            }
            Access::Read | Access::ReadWrite => {
                (BufferKind::Storage, limits.binding_bytes, u64::from(limits.storage_align))
            }
        };
        check_range(buffer, window.offset, window.bytes, at)?;
        let kind_of = match buffer.kind {
            BufferKind::Sizes => BufferKind::Storage,
            other => other,
        };
        if kind_of != kind {
            return fault(at(), &format!("`{}` is not a {kind:?} buffer", buffer.label));
        }
        if window.bytes == 0 || (access == Access::Uniform && !window.bytes.is_multiple_of(16)) {
            let size = window.bytes;
            return fault(at(), &format!("a window of {size} bytes on `{}`", buffer.label));
        }
        if !window.offset.is_multiple_of(align.max(1)) {
            return fault(
                at(),
                &format!(
                    "a window on `{}` at {}, which is no multiple of {align}",
                    buffer.label, window.offset
                ),
            );
        }
        if window.bytes > most {
            return Err(Error::Device(format!(
                "{}: a shader would have to see {} of `{}` at once, but the device allows {}; {HELP}",
                at(),
                bytes(window.bytes),
                buffer.label,
                bytes(most),
            )));
        }
        Ok(())
    }

    /// A buffer that is written may not be seen through another binding of the same dispatch: wgpu
    /// tracks reading and writing by the buffer, not by the window, and overlapping windows that
    /// are both written are a race.
    fn check_aliases(
        &self,
        dispatch: &Dispatch,
        shader: &Shader,
        at: &dyn Fn() -> String,
    ) -> Result<()> {
        let window = |b: &Binding| b.window(self.buffers[b.buffer().0].bytes);
        let seen: Vec<(Window, Access)> =
            dispatch.bindings.iter().map(window).zip(shader.bindings.iter().copied()).collect();
        for (i, (a, access_a)) in seen.iter().enumerate() {
            for (b, access_b) in &seen[i + 1..] {
                if a.buffer != b.buffer {
                    continue;
                }
                let overlap = a.offset < b.offset + b.bytes && b.offset < a.offset + a.bytes;
                let clash = match (access_a, access_b) {
                    (Access::ReadWrite, Access::ReadWrite) => overlap,
                    (a, b) => a != b,
                };
                if clash {
                    let label = &self.buffers[a.buffer.0].label;
                    return fault(at(), &format!("`{label}` is bound twice and written"));
                }
            }
        }
        Ok(())
    }
}

const HELP: &str = "use --device cpu, or lower ranks";

fn check_buffer(buffer: &Buffer, limits: &GpuLimits) -> Result<()> {
    let at = || format!("the buffer `{}`", buffer.label);
    if buffer.bytes == 0 || !buffer.bytes.is_multiple_of(WORD) {
        return fault(at(), &format!("{} bytes is no size", buffer.bytes));
    }
    if buffer.content.len() as u64 > buffer.bytes {
        return fault(at(), "its content is longer than the buffer");
    }
    if buffer.bytes > limits.buffer_bytes {
        return Err(Error::Device(format!(
            "`{}` takes {}, but the largest buffer of this device is {}; {HELP}",
            buffer.label,
            bytes(buffer.bytes),
            bytes(limits.buffer_bytes),
        )));
    }
    Ok(())
}

fn check_shader(shader: &Shader, limits: &GpuLimits) -> Result<()> {
    let uniforms = shader.bindings.iter().filter(|&&b| b == Access::Uniform).count();
    let storage = shader.bindings.len() - uniforms;
    let needs = [
        ("storage buffers", storage as u64, u64::from(limits.storage_buffers)),
        ("uniform buffers", uniforms as u64, u64::from(limits.uniform_buffers)),
        (
            "invocations in a workgroup",
            u64::from(shader.invocations),
            u64::from(limits.invocations),
        ),
        (
            "bytes of workgroup memory",
            u64::from(shader.workgroup_bytes),
            u64::from(limits.workgroup_bytes),
        ),
    ];
    for (what, needed, allowed) in needs {
        if needed > allowed {
            return Err(Error::Device(format!(
                "the shader `{}` needs {needed} {what}, but this device allows {allowed}; {HELP}",
                shader.label
            )));
        }
    }
    Ok(())
}

/// Whether a range lies in a buffer, in whole words.
pub(crate) fn check_range(
    buffer: &Buffer,
    offset: u64,
    length: u64,
    at: &dyn Fn() -> String,
) -> Result<()> {
    range(&buffer.label, buffer.bytes, offset, length, at)
}

/// As [`check_range`], by the label and size of the buffer.
pub(crate) fn range(
    label: &str,
    size: u64,
    offset: u64,
    length: u64,
    at: &dyn Fn() -> String,
) -> Result<()> {
    let inside = offset.checked_add(length).is_some_and(|end| end <= size);
    if !inside || !offset.is_multiple_of(WORD) || !length.is_multiple_of(WORD) {
        return fault(
            at(),
            &format!("{length} bytes at {offset} of `{label}`, which has {size}, in words of 4"),
        );
    }
    Ok(())
}

/// A program that does not hold together is a fault of whoever made it, which is this crate.
fn fault<T>(at: String, what: &str) -> Result<T> {
    Err(Error::DeviceFailed(format!(
        "{at}: {what} (a fault in nneinfact: please report it; --device cpu is not affected)"
    )))
}
