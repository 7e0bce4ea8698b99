//! Data on their way to a GPU: once, or streamed a slab at a time in every pass where they are too large.

use std::ops::Range;

use crate::dense::entries::ElementType;
use crate::device::handle::Gpu;
use crate::device::runtime::LoadedProgram;
use crate::program::buffers::Slab;
use crate::program::compile::{Compiled, compile};
use crate::program::tuning::Tuning;
use nneinfact_core::data::{Dense, Storage, in_slabs, slab_entries};
use nneinfact_core::engine::Job;
use nneinfact_core::error::{Error, Result};
use nneinfact_simd::Real;

/// Entries that are converted and written at a time.
const PIECE: usize = 4 << 20;
/// Entries that share a word of roles: pieces begin at multiples of it, so at whole words everywhere.
const TOGETHER: usize = 32;
/// Pieces that may be on their way before the next waits: they lie in staging memory.
const IN_FLIGHT: usize = 4;
/// Slabs smaller than this are not worth their submissions.
const LEAST_ENTRIES: usize = 1 << 10;

/// Compiles a job for the memory of its device: with all data on it, and if they are too large, with
/// slabs that are streamed through two sets of buffers.
///
/// # Errors
/// As [`compile`]; [`Error::DeviceMemory`] where even that is too much.
pub(crate) fn compile_within(gpu: &Gpu, job: &Job, tuning: &Tuning) -> Result<Compiled> {
    let compiled = compile_for(gpu, job, tuning)?;
    let most = [tuning.memory, gpu.info().memory].into_iter().flatten().min();
    let Some(most) = most.filter(|&most| needed(&compiled) > most) else { return Ok(compiled) };
    // The slabs that there are anyway give the same bits as if all were there. If two of them are
    // too much as well, smaller ones differ from that by rounding. Stored entries stay on the device.
    let whole = compiled.slabs.iter().map(|slab| slab.part.entries()).max();
    let slabs = std::iter::successors(whole.filter(|_| job.stored.is_none()), |&entries| {
        (entries > LEAST_ENTRIES).then(|| (entries / 2).max(LEAST_ENTRIES))
    });
    // Shared dispatches need memory for what there is to do in them, and sweeps without the host for where
    // they began; what is computed is the same. So these are given up before slabs get smaller.
    let tries = std::iter::once(None)
        .chain(slabs.map(Some))
        .flat_map(|stream| [tuning.joint, false].map(|joint| Tuning { stream, joint, ..*tuning }));
    let mut least = compiled;
    for tuning in tries.skip(1) {
        least = compile_for(gpu, job, &tuning)?;
        if needed(&least) <= most {
            return Ok(least);
        }
    }
    Err(match gpu.out_of_memory(&least.program) {
        Error::DeviceMemory { device, needed, largest, largest_is, help, .. } => {
            Error::DeviceMemory { device, needed, largest, largest_is, memory: Some(most), help }
        }
        other => other,
    })
}

/// Compiles without shared dispatches where a shader may not see all of a list of what there is to do in them.
fn compile_for(gpu: &Gpu, job: &Job, tuning: &Tuning) -> Result<Compiled> {
    match compile(job, gpu.limits(), tuning) {
        Err(Error::Memory { .. }) if tuning.joint => {
            compile(job, gpu.limits(), &Tuning { joint: false, ..*tuning })
        }
        compiled => compiled,
    }
}

/// Bytes of all buffers.
fn needed(compiled: &Compiled) -> u64 {
    compiled.program.buffers.iter().map(|buffer| buffer.bytes).sum()
}

/// What data need on their way beside themselves.
pub(crate) struct Upload {
    /// The entry parameters of the loss, in the data's order of memory.
    parameters: Vec<Dense>,
}

impl Upload {
    pub fn new(job: &Job) -> Upload {
        // Passes over stored entries have their data in the program, and may need none beside them.
        if job.plan.passes().is_empty() {
            return Upload { parameters: Vec::new() };
        }
        let values = job.data.values();
        let parameter = |given: &std::sync::Arc<ndarray::ArrayD<f64>>| match job.data.coo() {
            Some(_) => Dense::from_array(&**given).in_c_order(),
            None => Dense::from_array(&**given).in_layout_of(values),
        };
        Upload { parameters: job.loss.entry_parameters().iter().map(parameter).collect() }
    }

    /// Writes all data into the buffers of their slabs, piece by piece: never a second copy of all of
    /// them on the host, nor one of a slab. `arrived` is called when a slab is written; what it runs
    /// sees that slab, although the next may be written into the same buffers.
    pub fn send(
        &self,
        job: &Job,
        slabs: &[Slab],
        loaded: &LoadedProgram,
        mut arrived: impl FnMut(usize) -> Result<()>,
    ) -> Result<()> {
        let data = &job.data;
        data.check()?;
        let tensors = data.tensors();
        let most = slab_entries(&tensors).unwrap_or(PIECE).min(PIECE) / TOGETHER * TOGETHER;
        let most = most.max(TOGETHER);
        let strides = &job.plan.data().strides;
        let starts: Vec<usize> = slabs.iter().map(|slab| slab.part.offset(strides)).collect();
        let pieces: Vec<(usize, Range<usize>)> = slabs
            .iter()
            .enumerate()
            .flat_map(|(n, slab)| {
                let entries = slab.part.entries();
                (0..entries).step_by(most).map(move |at| (n, at..entries.min(at + most)))
            })
            .collect();
        let entries = |&(n, ref piece): &(usize, Range<usize>)| {
            starts[n] + piece.start..starts[n] + piece.end
        };
        let ranges = pieces.iter().map(|piece| vec![entries(piece)]);
        let mut in_flight = std::collections::VecDeque::new();
        let mut outcome = Ok(());
        in_slabs(&tensors, ranges, |number| {
            if outcome.is_err() {
                return;
            }
            let (n, piece) = &pieces[number];
            outcome = (|| {
                self.write(job, &slabs[*n], loaded, starts[*n], piece)?;
                if pieces.get(number + 1).is_none_or(|(next, _)| next != n) {
                    arrived(*n)?;
                }
                in_flight.push_back(loaded.milestone()?);
                match in_flight.len() > IN_FLIGHT {
                    true => in_flight.pop_front().map_or(Ok(()), |m| loaded.wait_for(m)),
                    false => Ok(()),
                }
            })();
        });
        outcome?;
        // What was changed meanwhile may have been read.
        data.check()
    }

    /// Writes a piece of a slab that begins at entry `start` of the data.
    fn write(
        &self,
        job: &Job,
        slab: &Slab,
        loaded: &LoadedProgram,
        start: usize,
        piece: &Range<usize>,
    ) -> Result<()> {
        let data = &job.data;
        let (from, len) = (start + piece.start, piece.len());
        // An implicit-zero pass beside stored entries reads no values.
        let values = Some(data.values()).filter(|_| job.stored.is_none()).map(AsRef::as_ref);
        let tensors =
            [(Some(slab.values), values), (slab.weights, data.weights().map(AsRef::as_ref))];
        for (buffer, dense) in tensors {
            let (Some(buffer), Some(dense)) = (buffer, dense) else { continue };
            let bytes = slab_bytes(dense, from, len);
            // All pieces but the last are whole words.
            let each = ElementType::of(dense).bytes();
            loaded.write(buffer, piece.start as u64 * each, &bytes)?;
        }
        if let (Some(buffer), Some(roles)) = (slab.roles, data.roles()) {
            let at = (piece.start / TOGETHER * 8) as u64;
            loaded.write(buffer, at, &slab_roles(roles.words(), from, len))?;
        }
        if let Some(buffer) = slab.parameters {
            let entries = slab.part.entries();
            for (i, parameter) in self.parameters.iter().enumerate() {
                let mut values = vec![0f32; len];
                parameter.load(from, 1, &mut values);
                let at = 4 * (i * entries + piece.start) as u64;
                loaded.write(buffer, at, bytemuck::cast_slice(&values))?;
            }
        }
        Ok(())
    }
}

/// Entries that follow one another in memory as the bytes of a buffer, padded to whole words.
fn slab_bytes(dense: &Dense, start: usize, len: usize) -> Vec<u8> {
    fn raw<T: bytemuck::Pod>(entries: &[T], start: usize, len: usize) -> Vec<u8> {
        bytemuck::cast_slice(&entries[start..start + len]).to_vec()
    }
    let mut bytes = match dense.storage() {
        Storage::U8(v) => raw(v, start, len),
        Storage::U16(v) => raw(v, start, len),
        Storage::U32(v) => raw(v, start, len),
        Storage::F32(v) => raw(v, start, len),
        Storage::F64(v) => {
            let singles: Vec<f32> =
                v[start..start + len].iter().map(|&x| f32::from_f64(x)).collect();
            raw(&singles, 0, len)
        }
        // In the type that it would have in memory, which is exact.
        Storage::Mapped(_) => match ElementType::of(dense) {
            ElementType::F32 => {
                let mut singles = vec![0f32; len];
                dense.load(start, 1, &mut singles);
                raw(&singles, 0, len)
            }
            kind => {
                let mut bytes = Vec::with_capacity(len * kind.bytes() as usize);
                let mut values = [0f64; 1024];
                for at in (start..start + len).step_by(values.len()) {
                    let values = &mut values[..(start + len - at).min(1024)];
                    dense.load(at, 1, values);
                    for &x in &*values {
                        let word = (x as u32).to_le_bytes();
                        bytes.extend_from_slice(&word[..kind.bytes() as usize]);
                    }
                }
                bytes
            }
        },
    };
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// The roles of a slab, sixteen to a word from its first entry on.
fn slab_roles(words: &[u64], start: usize, len: usize) -> Vec<u8> {
    const PER_WORD: usize = 32;
    let mut bytes = Vec::with_capacity(len.div_ceil(PER_WORD) * 8);
    for at in (start..start + len).step_by(PER_WORD) {
        let (word, shift) = (at / PER_WORD, 2 * (at % PER_WORD));
        let next = words.get(word + 1).copied().unwrap_or(0);
        let both = words[word] >> shift | (next << 1) << (63 - shift);
        bytes.extend(both.to_le_bytes());
    }
    bytes
}
