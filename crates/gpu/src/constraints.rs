//! What holds for factors besides the data, as commands: the values of penalties, and the rescaling
//! steps that balance them.

use crate::penalty_sums::{PenaltySums, PowerChunks};
use crate::program::compiler::Compiler;
use crate::program::recording::{
    Access, Binding, BufferId, Command, Dispatch, DispatchKind, Recording, RecordingId, Shader,
    ShaderId,
};
use crate::program::template::fill;
use crate::program::views::stride;
use crate::step::power;
use nneinfact_core::algebra::balance::Idle;
use nneinfact_core::engine::LossSlot;
use nneinfact_core::error::Result;
use nneinfact_core::loss::Penalty;
use nneinfact_core::model::{Index, Shapes};
use nneinfact_core::plan::Rescaling;

impl Compiler<'_> {
    /// Sums up the penalties of the factors as they are, for a slot.
    pub(crate) fn penalties(
        &mut self,
        commands: &mut Vec<Command>,
        slot: Option<LossSlot>,
    ) -> Result<()> {
        let Some(slot) = slot else { return Ok(()) };
        let first = self.penalties_at + slot as usize * self.penalty_words;
        let all = 0..self.constraints.len();
        let penalized = all.filter(|&l| self.constraints[l].penalty.is_some());
        let sums: Vec<(usize, PenaltySums)> = penalized.zip(self.penalty_sums.clone()).collect();
        for (l, sums) in sums {
            let place = (self.buffers.results, first + sums.at);
            self.powers_of(commands, l, sums.penalty.power(), &[], place)?;
        }
        Ok(())
    }

    /// The sums of powers of a factor's slices, one slice for each value of these indices.
    fn powers_of(
        &mut self,
        commands: &mut Vec<Command>,
        l: usize,
        exponent: f64,
        indices: &[Index],
        place: (BufferId, usize),
    ) -> Result<()> {
        let own = &self.shapes.model().factors()[l];
        let others: Vec<Index> = own.iter().copied().filter(|x| !indices.contains(x)).collect();
        let of = |indices: &[Index]| axes(self.shapes, indices, own);
        let (index, slice) = (of(indices), of(&others));
        let count = |indices: &[Index]| self.shapes.sizes(indices).iter().product::<usize>();
        let (slices, entries) = (count(indices), count(&others));
        let chunks = PowerChunks::of(entries);
        let lanes = match entries {
            0..=4 => 1,
            5..=256 => 8,
            _ => 64,
        };
        let fold = self.fold((slices * chunks.count * lanes).div_ceil(64));
        let mut words: Vec<u32> = [
            slices,
            chunks.count,
            entries,
            chunks.size,
            self.places[l],
            place.1,
            fold[0] as usize,
            index.len(),
            slice.len(),
            0,
            0,
            0,
        ]
        .map(|n| n as u32)
        .to_vec();
        let axes = pad(&mut words, index.into_iter().chain(slice));
        let shader = self.shader(Shader {
            label: "sums of powers".into(),
            source: fill(
                nneinfact_shaders::SUM_POWERS,
                &[],
                &[
                    ("lanes", format!("{lanes}u")),
                    ("axes", format!("{axes}u")),
                    ("power", power("x", exponent)),
                ],
            )?,
            bindings: vec![Access::Uniform, Access::Read, Access::ReadWrite],
            invocations: 64,
            workgroup_bytes: 256,
        });
        let bindings = self.bindings(&words, self.buffers.factors, place.0);
        let work = 8.0 * (slices * entries) as f64;
        commands.push(small(shader, bindings, fold, work));
        Ok(())
    }

    /// One cycle over the rescaling steps.
    pub(crate) fn balance(&mut self) -> Result<Option<RecordingId>> {
        let Some(balancing) = self.job.balancing.clone() else { return Ok(None) };
        let rescaled = balancing.factors();
        let mut recording = Recording { label: "balance".into(), commands: Vec::new() };
        let commands = &mut recording.commands;
        // What stands at the floor is zero, which would be worth more on another scale.
        for &l in &rescaled {
            self.flush_to_zero(commands, l)?;
        }
        let sums = self.program.add_scratch("sums of powers", 1);
        let scales = self.program.add_scratch("scales of slices", 1);
        for rescaling in balancing.rescalings() {
            self.rescale(commands, rescaling, sums, scales)?;
        }
        for &l in &rescaled {
            self.apply_floor(commands, l)?;
        }
        Ok(Some(self.record(recording)))
    }

    /// Makes one rescaling step.
    fn rescale(
        &mut self,
        commands: &mut Vec<Command>,
        rescaling: &Rescaling,
        sums: BufferId,
        scales: BufferId,
    ) -> Result<()> {
        let penalty = |&l: &usize| Some((l, self.constraints.get(l)?.penalty?));
        let parts: Vec<(usize, Penalty)> = rescaling.factors.iter().filter_map(penalty).collect();
        let count: usize = self.shapes.sizes(&rescaling.indices).iter().product();
        let fold = self.fold(count.div_ceil(64));
        let mut words = vec![count as u32, fold[0], 0, 0];
        let mut end = 0;
        for &(l, penalty) in &parts {
            let entries = self.factor_size(l) / count.max(1);
            let chunks = PowerChunks::of(entries).count;
            self.powers_of(commands, l, penalty.power(), &rescaling.indices, (sums, end))?;
            let weight = (penalty.power() * penalty.weight()).ln() as f32;
            let power = penalty.power() as f32;
            words.extend([end as u32, chunks as u32, power.to_bits(), weight.to_bits()]);
            end += 2 * count * chunks;
        }
        self.grow(sums, end);
        self.grow(scales, parts.len() * count);
        let of_empty = match Idle::of(self.exact.is_some()) {
            Idle::Vanish => "0.0",
            Idle::Stay => "1.0",
        };
        let shader = self.shader(Shader {
            label: "scales of slices".into(),
            source: fill(
                nneinfact_shaders::RESCALE,
                &[],
                &[("factors", format!("{}u", parts.len())), ("of_empty", of_empty.into())],
            )?,
            bindings: vec![Access::Uniform, Access::Read, Access::ReadWrite],
            invocations: 64,
            workgroup_bytes: 0,
        });
        let bindings = self.bindings(&words, sums, scales);
        let work = (20 * count * parts.len() + end) as f64;
        commands.push(small(shader, bindings, fold, work));
        for (n, &(l, _)) in parts.iter().enumerate() {
            self.scale_slices(commands, l, &rescaling.indices, (scales, n * count))?;
        }
        Ok(())
    }

    /// Multiplies the slices of a factor with their scales.
    fn scale_slices(
        &mut self,
        commands: &mut Vec<Command>,
        l: usize,
        indices: &[Index],
        scales: (BufferId, usize),
    ) -> Result<()> {
        let own = &self.shapes.model().factors()[l];
        let size = self.factor_size(l);
        let fold = self.fold(size.div_ceil(64));
        let axes = axes(self.shapes, own, indices);
        let mut words: Vec<u32> =
            [self.places[l], size, fold[0] as usize, scales.1, axes.len(), 0, 0, 0]
                .map(|n| n as u32)
                .to_vec();
        let axes = pad(&mut words, axes);
        let shader = self.shader(Shader {
            label: "scale slices".into(),
            source: fill(nneinfact_shaders::SCALE_SLICES, &[], &[("axes", format!("{axes}u"))])?,
            bindings: vec![Access::Uniform, Access::ReadWrite, Access::Read],
            invocations: 64,
            workgroup_bytes: 0,
        });
        let bindings = self.bindings(&words, self.buffers.factors, scales.0);
        let work = 2.0 * size as f64;
        commands.push(small(shader, bindings, fold, work));
        Ok(())
    }

    /// Uniforms, and two buffers.
    fn bindings(&mut self, words: &[u32], first: BufferId, second: BufferId) -> Vec<Binding> {
        vec![self.words(words), Binding::Whole(first), Binding::Whole(second)]
    }
}

/// A dispatch on small tensors.
fn small(shader: ShaderId, bindings: Vec<Binding>, workgroups: [u32; 3], work: f64) -> Command {
    let kind = DispatchKind::Small;
    Command::Dispatch(Dispatch { shader, kind, bindings, workgroups, work })
}

/// Axes of a tensor with the indices `loops`, slowest first: sizes, and strides in the tensor `of`
/// (0 along indices that it does not have). Neighbours that are one loop in both are joined.
fn axes(shapes: &Shapes, loops: &[Index], of: &[Index]) -> Vec<[usize; 2]> {
    let mut axes: Vec<[usize; 2]> = Vec::new();
    for &x in loops {
        let (size, stride) = (shapes.size(x), stride(shapes, of, x));
        match axes.last_mut() {
            _ if size == 1 => {}
            Some(slow) if slow[1] == stride * size => *slow = [slow[0] * size, stride],
            _ => axes.push([size, stride]),
        }
    }
    axes
}

/// Adds axes to the uniforms of a shader; returns how many it has room for: few different numbers, so
/// that few shaders are compiled.
fn pad(uniforms: &mut Vec<u32>, axes: impl IntoIterator<Item = [usize; 2]>) -> usize {
    let first = uniforms.len();
    for [size, stride] in axes {
        uniforms.extend([size as u32, stride as u32, 0, 0]);
    }
    let room = ((uniforms.len() - first) / 4).next_multiple_of(8).max(8);
    uniforms.resize(first + 4 * room, 0);
    room
}

#[cfg(test)]
mod tests;
