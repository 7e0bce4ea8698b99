//! A fit on a GPU.

use ndarray::{ArrayD, IxDyn};

use super::Gpu;
use super::program::{Compiled, LOSS_SUMS, SLOT_SUMS, Tuning};
use super::recording::{BufferId, RecordingId};
use super::runtime::Loaded;
use super::stream::{self, Upload};
use crate::engine::{Engine, Job, PassTime, Slot, Sums, median};
use crate::error::{Error, Result};

/// A fit whose factors, data and sums stay on a device.
pub(super) struct GpuEngine {
    job: Job,
    compiled: Compiled,
    loaded: Loaded,
    upload: Upload,
    /// What each factor is multiplied with on the device: a power of two.
    scales: Vec<f64>,
    marked: bool,
    remembered: bool,
    /// The group whose sums are on the device.
    last: Option<usize>,
}

impl GpuEngine {
    /// Uploads a job: all of it, or where that is too much for the device all but the data.
    pub fn new(gpu: &Gpu, job: Job, tuning: &Tuning) -> Result<GpuEngine> {
        let compiled = stream::compile_within(gpu, &job, tuning)?;
        match GpuEngine::load(gpu, job.clone(), compiled) {
            Err(Error::DeviceMemory { needed, device, largest, largest_is, memory, help }) => {
                // Less is free than there is, or the driver does not tell how much that is.
                let half = Tuning { memory: Some(needed / 2), ..*tuning };
                match stream::compile_within(gpu, &job, &half) {
                    Ok(compiled) => GpuEngine::load(gpu, job, compiled),
                    Err(_) => Err(Error::DeviceMemory {
                        needed,
                        device,
                        largest,
                        largest_is,
                        memory,
                        help,
                    }),
                }
            }
            loaded => loaded,
        }
    }

    /// Uploads a job that has been compiled.
    pub(super) fn load(gpu: &Gpu, mut job: Job, mut compiled: Compiled) -> Result<GpuEngine> {
        let loaded = gpu.load(std::mem::take(&mut compiled.program))?;
        let scales = scales(&job.start, job.unit);
        let mut start = Vec::with_capacity(4 * compiled.places[compiled.places.len() - 1]);
        for (factor, scale) in job.start.iter().zip(&scales) {
            start.extend(factor.iter().flat_map(|&x| ((x * scale) as f32).to_le_bytes()));
        }
        job.start = Vec::new();
        loaded.write(compiled.factors, 0, &start)?;
        let engine = GpuEngine {
            upload: Upload::new(&job),
            job,
            compiled,
            loaded,
            scales,
            marked: false,
            remembered: false,
            last: None,
        };
        if engine.compiled.turns.is_empty() {
            engine.upload.send(&engine.job, &engine.compiled.slabs, &engine.loaded, |_| Ok(()))?;
        }
        engine.loaded.run(engine.compiled.begin)?;
        Ok(engine)
    }

    /// Runs the pass of a group, with the data on their way meanwhile where they take turns.
    fn run_pass(&self, group: usize) -> Result<()> {
        let recording = self
            .compiled
            .passes
            .get(group)
            .ok_or_else(|| Error::Setting(format!("the plan has no group {group}")))?;
        self.run(*recording)?;
        let Some(turns) = self.compiled.turns.get(group) else { return Ok(()) };
        self.upload.send(&self.job, &self.compiled.slabs, &self.loaded, |slab| {
            self.run(turns.slabs[slab])
        })?;
        self.run(turns.end)
    }

    fn run(&self, recording: RecordingId) -> Result<()> {
        self.loaded.run(recording)
    }

    /// What is on the device.
    #[cfg(test)]
    pub(super) fn loaded(&self) -> &Loaded {
        &self.loaded
    }

    fn singles(&self, buffer: BufferId, count: usize) -> Result<Vec<f32>> {
        let bytes = self.loaded.read(buffer, 0, 4 * count as u64)?;
        Ok(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    }
}

/// Powers of two, one for each factor, that bring their largest entries to the same size and their
/// product to 1 / `unit`: single precision holds neither very large nor very small factors, and ŷ
/// depends on their product alone.
fn scales(start: &[ArrayD<f64>], unit: f64) -> Vec<f64> {
    let exponents: Vec<i32> = start
        .iter()
        .map(|factor| {
            let largest = factor.iter().copied().fold(0.0, f64::max);
            if largest > 0.0 && largest.is_finite() { largest.log2().floor() as i32 } else { 0 }
        })
        .collect();
    let goal = exponents.iter().sum::<i32>() - unit.log2().round() as i32;
    let count = exponents.len().max(1) as i32;
    exponents
        .iter()
        .enumerate()
        .map(|(l, e)| {
            // The remainder goes to the first factors.
            let share = goal.div_euclid(count) + i32::from((l as i32) < goal.rem_euclid(count));
            2f64.powi(share - e)
        })
        .collect()
}

impl Engine for GpuEngine {
    fn pass(&mut self, group: usize) -> Result<()> {
        self.run_pass(group)?;
        self.last = Some(group);
        Ok(())
    }

    fn update(&mut self, group: usize) -> Result<()> {
        if self.last.take() != Some(group) {
            return Err(Error::Setting(format!("group {group} is updated without a pass")));
        }
        self.run(self.compiled.updates[group])
    }

    fn evaluate(&mut self) -> Result<()> {
        // The pass computes more than is wanted; a shader of its own would take longer to compile
        // than it saves.
        self.run_pass(0)
    }

    fn sums(&mut self) -> Result<[Sums; Slot::COUNT]> {
        self.run(self.compiled.report)?;
        let found = self.singles(self.compiled.results, Slot::COUNT * SLOT_SUMS + 1)?;
        let broken = found[Slot::COUNT * SLOT_SUMS].to_bits() as usize;
        let shapes = self.job.plan.shapes();
        if let Some(l) = broken.checked_sub(1).filter(|&l| l < self.scales.len()) {
            return Err(Error::Numeric(format!(
                "the update of factor {} ({}) overflowed single precision: the data or the start span too many orders of magnitude for this loss; the CPU has double precision",
                l + 1,
                shapes.model().factor_name(l)
            )));
        }
        let unit = self.job.unit.powf(self.job.loss.homogeneity().unwrap_or(0.0));
        let sum = |slot: usize, role: usize| {
            let at = slot * SLOT_SUMS + role * LOSS_SUMS;
            found[at..at + LOSS_SUMS].iter().map(|&x| f64::from(x)).sum::<f64>() * unit
        };
        Ok(std::array::from_fn(|slot| Sums {
            train: sum(slot, 0),
            validation: sum(slot, 1),
            held_out: sum(slot, 2),
        }))
    }

    fn time(&mut self, group: usize, repeats: usize) -> Result<PassTime> {
        let recording = *self
            .compiled
            .passes
            .get(group)
            .ok_or_else(|| Error::Setting(format!("the plan has no group {group}")))?;
        let (mut all, mut kernels) = (Vec::new(), Vec::new());
        let mut walls = Vec::new();
        for _ in 0..repeats.max(1) {
            let started = std::time::Instant::now();
            self.run_pass(group)?;
            self.sums()?;
            walls.push(started.elapsed().as_secs_f64());
            if !self.compiled.turns.is_empty() {
                // By itself a part of such a pass would read what is there by chance.
                continue;
            }
            let Some(seconds) = self.loaded.profile(recording)? else { continue };
            all.push(seconds.iter().sum());
            let of_data = seconds.iter().zip(&self.compiled.reads_data[group]);
            kernels.push(of_data.filter(|&(_, &reads)| reads).map(|(s, _)| s).sum());
        }
        self.last = None;
        Ok(match all.is_empty() {
            true => PassTime { seconds: median(walls), kernel_seconds: None },
            false => PassTime { seconds: median(all), kernel_seconds: Some(median(kernels)) },
        })
    }

    fn factors(&self) -> Result<Vec<ArrayD<f64>>> {
        let shapes = self.job.plan.shapes();
        let places = &self.compiled.places;
        let all = self.singles(self.compiled.factors, places[places.len() - 1])?;
        let one = |(l, scale): (usize, &f64)| {
            let data =
                all[places[l]..places[l + 1]].iter().map(|&x| f64::from(x) / scale).collect();
            ArrayD::from_shape_vec(IxDyn(&shapes.factor(l)), data)
                .map_err(|e| Error::Setting(format!("factor {}: {e}", l + 1)))
        };
        self.scales.iter().enumerate().map(one).collect()
    }

    fn mark(&mut self) -> Result<()> {
        self.run(self.compiled.mark)?;
        self.marked = true;
        Ok(())
    }

    fn extrapolate(&mut self, momentum: f64, relaxation: f64) -> Result<()> {
        if !self.marked {
            return Err(Error::Setting("extrapolated without a plain result before".into()));
        }
        let weights = [momentum as f32, relaxation as f32, 0.0, 0.0];
        self.loaded.write(self.compiled.weights, 0, bytemuck::cast_slice(&weights))?;
        self.run(self.compiled.extrapolate)
    }

    fn retreat(&mut self) -> Result<()> {
        if !self.marked {
            return Err(Error::Setting("retreated without a plain result".into()));
        }
        self.run(self.compiled.retreat)
    }

    fn remember(&mut self) -> Result<()> {
        self.run(self.compiled.remember)?;
        self.remembered = true;
        Ok(())
    }

    fn recall(&mut self) -> Result<()> {
        if self.remembered {
            self.run(self.compiled.recall)?;
        }
        Ok(())
    }
}

/// Puts a job on a GPU.
pub(crate) fn open(gpu: &Gpu, job: Job, tuning: &Tuning) -> Result<Box<dyn Engine>> {
    Ok(Box::new(GpuEngine::new(gpu, job, tuning)?))
}
