//! Data on their way to a GPU: once, or a slab at a time in every pass where they are too large.

use std::ops::Range;

use super::Gpu;
use super::cells::{Kind, slab_bytes, slab_roles};
use super::program::{Compiled, Slab, Tuning, compile};
use super::runtime::Loaded;
use nneinfact_core::data::{Dense, in_slabs, slab_entries};
use nneinfact_core::engine::Job;
use nneinfact_core::error::{Error, Result};

/// Cells that are converted and written at a time.
const PIECE: usize = 4 << 20;
/// Cells that share a word of roles: pieces begin at multiples of it, so at whole words everywhere.
const TOGETHER: usize = 32;
/// Pieces that may be on their way before the next waits: they lie in staging memory.
const IN_FLIGHT: usize = 4;
/// Slabs smaller than this are not worth their submissions.
const LEAST_CELLS: usize = 1 << 10;

/// Compiles a job for the memory of its device: with all data on it, and if they are too large, with
/// slabs that take turns in two sets of buffers.
///
/// # Errors
/// As [`compile`]; [`Error::DeviceMemory`] where even that is too much.
pub(super) fn compile_within(gpu: &Gpu, job: &Job, tuning: &Tuning) -> Result<Compiled> {
    let compiled = compile(job, gpu.limits(), tuning)?;
    let most = [tuning.memory, gpu.info().memory].into_iter().flatten().min();
    let Some(most) = most.filter(|&most| needed(&compiled) > most) else { return Ok(compiled) };
    // The slabs that there are anyway give the same bits as if all were there. If two of them are
    // too much as well, smaller ones differ from that by rounding.
    let mut cells = compiled.slabs.iter().map(|slab| slab.part.entries()).max().unwrap_or(1);
    loop {
        let stream = Some(cells);
        let turns = compile(job, gpu.limits(), &Tuning { stream, ..*tuning })?;
        if needed(&turns) <= most {
            return Ok(turns);
        }
        if cells <= LEAST_CELLS {
            return Err(match gpu.out_of_memory(&turns.program) {
                Error::DeviceMemory { device, needed, largest, largest_is, help, .. } => {
                    let memory = Some(most);
                    Error::DeviceMemory { device, needed, largest, largest_is, memory, help }
                }
                other => other,
            });
        }
        cells = (cells / 2).max(LEAST_CELLS);
    }
}

/// Bytes of all buffers.
fn needed(compiled: &Compiled) -> u64 {
    compiled.program.buffers.iter().map(|buffer| buffer.bytes).sum()
}

/// What data need on their way beside themselves.
pub(super) struct Upload {
    /// The side tensors of the loss, in the data's order of memory.
    sides: Vec<Dense>,
}

impl Upload {
    pub fn new(job: &Job) -> Upload {
        // Passes over a list have their data in the program, and may need none beside them.
        if job.plan.passes().is_empty() {
            return Upload { sides: Vec::new() };
        }
        let values = job.data.values();
        let side = |side: &std::sync::Arc<ndarray::ArrayD<f64>>| match job.data.coo() {
            Some(_) => Dense::from_array(&**side).in_c_order(),
            None => Dense::from_array(&**side).in_layout_of(values),
        };
        Upload { sides: job.loss.entry_parameters().iter().map(side).collect() }
    }

    /// Writes all data into the buffers of their slabs, piece by piece: never a second copy of all of
    /// them on the host, nor one of a slab. `arrived` is called when a slab is written; what it runs
    /// sees that slab, although the next may be written into the same buffers.
    pub fn send(
        &self,
        job: &Job,
        slabs: &[Slab],
        loaded: &Loaded,
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
                let cells = slab.part.entries();
                (0..cells).step_by(most).map(move |at| (n, at..cells.min(at + most)))
            })
            .collect();
        let cells = |&(n, ref piece): &(usize, Range<usize>)| {
            starts[n] + piece.start..starts[n] + piece.end
        };
        let ranges = pieces.iter().map(|piece| vec![cells(piece)]);
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

    /// Writes a piece of a slab that begins at cell `start` of the data.
    fn write(
        &self,
        job: &Job,
        slab: &Slab,
        loaded: &Loaded,
        start: usize,
        piece: &Range<usize>,
    ) -> Result<()> {
        let data = &job.data;
        let (from, len) = (start + piece.start, piece.len());
        // Beside a list all cells are gone over without their values.
        let values = Some(data.values()).filter(|_| job.stored.is_none()).map(AsRef::as_ref);
        let tensors =
            [(Some(slab.values), values), (slab.weights, data.weights().map(AsRef::as_ref))];
        for (buffer, dense) in tensors {
            let (Some(buffer), Some(dense)) = (buffer, dense) else { continue };
            let bytes = slab_bytes(dense, from, len);
            // All pieces but the last are whole words.
            let each = Kind::of(dense).bytes();
            loaded.write(buffer, piece.start as u64 * each, &bytes)?;
        }
        if let (Some(buffer), Some(roles)) = (slab.roles, data.roles()) {
            let at = (piece.start / TOGETHER * 8) as u64;
            loaded.write(buffer, at, &slab_roles(roles.words(), from, len))?;
        }
        if let Some(buffer) = slab.sides {
            let cells = slab.part.entries();
            for (i, side) in self.sides.iter().enumerate() {
                let mut values = vec![0f32; len];
                side.load(from, 1, &mut values);
                let at = 4 * (i * cells + piece.start) as u64;
                loaded.write(buffer, at, bytemuck::cast_slice(&values))?;
            }
        }
        Ok(())
    }
}
