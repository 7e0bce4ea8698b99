//! A fit on a GPU.

use std::time::{Duration, Instant};

use ndarray::{ArrayD, IxDyn};

use crate::course::{Course, MOST_SWEEPS, ROW, ROWS_AT};
use crate::device::handle::Gpu;
use crate::device::runtime::LoadedProgram;
use crate::program::buffers::SLOT_SUMS;
use crate::program::compile::Compiled;
use crate::program::products::sums_indices;
use crate::program::recording::{BufferId, DispatchKind, RecordingId};
use crate::program::tuning::Tuning;
use crate::streamed_pass::{Upload, compile_within};
use nneinfact_core::algebra::quadratic::{self, Objective};
use nneinfact_core::algebra::update::{Denominator, Update};
use nneinfact_core::engine::{
    Constraint, Engine, EngineState, Extrapolation, Job, LossSlot, LossSums, PassTime, Point,
    SweepEnd,
};
use nneinfact_core::error::{Error, Result};
use nneinfact_core::plan::Quadratic;
use nneinfact_shaders::LOSS_SUMS;

/// A fit whose factors, data and sums stay on a device.
pub(crate) struct GpuEngine {
    job: Job,
    compiled: Compiled,
    loaded: LoadedProgram,
    upload: Upload,
    /// The values of fixed factors, as they were given: single precision rounds them.
    fixed: Vec<Option<ArrayD<f64>>>,
    has_anchor: bool,
    has_snapshot: bool,
    /// The group whose sums are on the device.
    last: Option<usize>,
    /// Of all buffers.
    bytes: u64,
    /// Of a sweep.
    dispatches: usize,
    /// How the last sweeps ended that were made without the host, and how many are made at a time.
    ends: Vec<SweepEnd>,
    pace: usize,
}

/// About how long the device works without the host.
const UNSEEN: Duration = Duration::from_millis(20);
/// Sweeps at a time before it is known how long they take.
const FIRST_SWEEPS: usize = 4;

impl GpuEngine {
    /// Uploads a job: all of it, or where that is too much for the device all but the data.
    pub fn new(gpu: &Gpu, job: Job, tuning: &Tuning) -> Result<GpuEngine> {
        let compiled = compile_within(gpu, &job, tuning)?;
        match GpuEngine::placed(gpu, job.clone(), compiled) {
            Err(Error::DeviceMemory { needed, device, largest, largest_is, memory, help }) => {
                // Less is free than there is, or the driver does not tell how much that is.
                let half = Tuning { memory: Some(needed / 2), ..*tuning };
                match compile_within(gpu, &job, &half) {
                    Ok(compiled) => GpuEngine::placed(gpu, job, compiled),
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
    pub(crate) fn placed(gpu: &Gpu, job: Job, mut compiled: Compiled) -> Result<GpuEngine> {
        let bytes = compiled.program.buffers.iter().map(|buffer| buffer.bytes).sum();
        let dispatches = compiled.dispatches();
        let loaded = gpu.load(std::mem::take(&mut compiled.program))?;
        let mut engine = GpuEngine::begun(job, compiled, loaded, (bytes, dispatches));
        if engine.compiled.streamed_passes.is_empty() {
            engine.upload.send(&engine.job, &engine.compiled.slabs, &engine.loaded, |_| Ok(()))?;
        }
        engine.start()?;
        Ok(engine)
    }

    /// An engine of a program on the device, whose data and factors are to come, with the bytes of its
    /// buffers and the dispatches of a sweep.
    fn begun(
        job: Job,
        compiled: Compiled,
        loaded: LoadedProgram,
        (bytes, dispatches): (u64, usize),
    ) -> GpuEngine {
        GpuEngine {
            upload: Upload::new(&job),
            job,
            compiled,
            loaded,
            fixed: Vec::new(),
            has_anchor: false,
            has_snapshot: false,
            last: None,
            bytes,
            dispatches,
            ends: Vec::new(),
            pace: FIRST_SWEEPS,
        }
    }

    /// Loads the factors that the job starts from.
    fn start(&mut self) -> Result<()> {
        let start = std::mem::take(&mut self.job.start);
        self.load(&start)
    }

    fn upload_factors(&self, factors: &[ArrayD<f64>]) -> Result<()> {
        let places = &self.compiled.places;
        let mut bytes = Vec::with_capacity(4 * places[places.len() - 1]);
        for (factor, scale) in factors.iter().zip(&self.compiled.scales) {
            bytes.extend(factor.iter().flat_map(|&x| ((x * scale) as f32).to_le_bytes()));
        }
        self.loaded.write(self.compiled.buffers.factors, 0, &bytes)
    }

    /// Runs the pass of a group, with the data on their way meanwhile where they are streamed.
    fn run_pass(&self, group: usize) -> Result<()> {
        let recording = self
            .compiled
            .passes
            .get(group)
            .ok_or_else(|| Error::Setting(format!("the plan has no group {group}")))?;
        self.run(*recording)?;
        let Some(streamed) = self.compiled.streamed_passes.get(group) else { return Ok(()) };
        self.upload.send(&self.job, &self.compiled.slabs, &self.loaded, |slab| {
            self.run(streamed.slabs[slab])
        })?;
        self.run(streamed.end)
    }

    fn run(&self, recording: RecordingId) -> Result<()> {
        self.loaded.run(recording)
    }

    /// The factors as they are on the device.
    fn on_host(&self) -> Result<Vec<Vec<f64>>> {
        self.kept(self.compiled.buffers.factors)
    }

    /// The factors in a buffer, in the device's units.
    fn kept(&self, buffer: BufferId) -> Result<Vec<Vec<f64>>> {
        let places = &self.compiled.places;
        let all = self.singles(buffer, places[places.len() - 1])?;
        let of = |pair: &[usize]| all[pair[0]..pair[1]].iter().map(|&x| f64::from(x)).collect();
        Ok(places.windows(2).map(of).collect())
    }

    /// Steps of 1 for the factors of a group.
    fn unchanged(&self, group: usize, factors: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let members = &self.job.plan.groups()[group].factors;
        members.iter().map(|&l| vec![1.0; factors[l].len()]).collect()
    }

    /// Numerator and denominator of a group's factor `at`, brought to the host with the sums of the
    /// last pass, in the device's units.
    fn parts_on_host(
        &self,
        group: usize,
        at: usize,
        factors: &[Vec<f64>],
        steps: &[Vec<f64>],
    ) -> Result<(Vec<f64>, Vec<f64>)> {
        let plan = &self.job.plan;
        let volume: usize = plan.shapes().sizes(sums_indices(plan, group)).iter().product();
        let sums = self.singles(self.compiled.buffers.sums, 2 * volume)?;
        let sums: Vec<f64> = sums.into_iter().map(f64::from).collect();
        let (numerator, denominator) = sums.split_at(volume);
        let members = &plan.groups()[group];
        let update = Update {
            shapes: plan.shapes(),
            group: members,
            loss: &self.job.loss,
            constraints: &self.job.constraints,
            numerator,
            denominator: Denominator { data: denominator, updates: &members.updates },
            cycles: 1,
        };
        Ok(update.parts(at, factors, steps))
    }

    fn quadratic(&self, group: usize) -> Result<&Quadratic> {
        let own = self.compiled.exact.as_ref().map(|exact| &exact.of[group]);
        own.ok_or_else(|| Error::Internal("exact steps without their objectives".into()))
    }

    /// The numerator of the last pass, and the Q of its group, which go into an exact step.
    fn exact_sums(&self, group: usize, factors: &[Vec<f64>]) -> Result<(Vec<f64>, Vec<f64>)> {
        let plan = &self.job.plan;
        let volume: usize = plan.shapes().sizes(sums_indices(plan, group)).iter().product();
        let numerator = self.singles(self.compiled.buffers.sums, volume)?;
        let quadratic = self.quadratic(group)?;
        let gram = match self.compiled.forms_of_rows {
            None => quadratic::gram(quadratic, factors),
            Some(buffer) => {
                let volume = quadratic.shapes.sizes(quadratic.gram.output()).iter().product();
                self.singles(buffer, volume)?.into_iter().map(f64::from).collect()
            }
        };
        Ok((numerator.into_iter().map(f64::from).collect(), gram))
    }

    /// The exact objective of a group, in the device's units.
    fn objective<'a>(
        &'a self,
        group: usize,
        numerator: &'a [f64],
        gram: &'a [f64],
    ) -> Result<Objective<'a>> {
        Ok(Objective {
            shapes: self.job.plan.shapes(),
            group: &self.job.plan.groups()[group],
            quadratic: self.quadratic(group)?,
            constraints: &self.job.constraints,
            numerator,
            gram,
            differences: &[],
        })
    }

    /// As [`parts_on_host`](Self::parts_on_host), of an exact objective.
    fn exact_parts(
        &self,
        group: usize,
        at: usize,
        steps: &[Vec<f64>],
    ) -> Result<(Vec<f64>, Vec<f64>)> {
        let mut factors = self.on_host()?;
        let (numerator, gram) = self.exact_sums(group, &factors)?;
        for (&l, steps) in self.job.plan.groups()[group].factors.iter().zip(steps) {
            factors[l].iter_mut().zip(steps).for_each(|(x, by)| *x *= by);
        }
        let [a, b] = self.objective(group, &numerator, &gram)?.parts(at, &factors);
        Ok((a, b))
    }

    /// The losses of the slots, from all results.
    fn loss_sums(&self, found: &[f32]) -> [LossSums; LossSlot::COUNT] {
        let unit = self.job.objective_unit();
        let sum = |slot: usize, role: usize| {
            let at = slot * SLOT_SUMS + role * LOSS_SUMS;
            found[at..at + LOSS_SUMS].iter().map(|&x| f64::from(x)).sum::<f64>() * unit
        };
        std::array::from_fn(|slot| LossSums {
            train: sum(slot, 0),
            validation: sum(slot, 1),
            held_out: sum(slot, 2),
            penalty: self.compiled.penalty(found, slot) * unit,
        })
    }

    /// The course of sweeps, and how many of these a device makes by itself.
    fn course(&self, ends: &[SweepEnd]) -> Option<(Course, usize)> {
        let course = self.compiled.course.as_ref().filter(|_| self.last == Some(0))?;
        let possible = |end: &&SweepEnd| match end {
            SweepEnd::Plain => true,
            SweepEnd::Anchor => self.has_anchor,
            SweepEnd::Extrapolate(_) => self.has_anchor && course.extrapolated.is_some(),
        };
        let count = ends.iter().take(self.pace.min(MOST_SWEEPS)).take_while(possible).count();
        (count > 0).then(|| (course.clone(), count))
    }

    /// Sends sweeps off, the first pass of the first being done.
    fn send_sweeps(&self, course: &Course, ends: &[SweepEnd]) -> Result<()> {
        self.run(course.begin)?;
        let mut words = vec![0u32; 4];
        for end in ends {
            words.extend(match *end {
                SweepEnd::Plain | SweepEnd::Anchor => [0; 4],
                SweepEnd::Extrapolate(by) => {
                    let [momentum, relaxation, least] = single(by).map(f32::to_bits);
                    [momentum, relaxation, least, 1]
                }
            });
        }
        self.loaded.write(self.compiled.buffers.course, 0, bytemuck::cast_slice(&words))?;
        self.loaded.write(self.compiled.buffers.sizes, 0, bytemuck::cast_slice(&course.sizes))?;
        for end in ends {
            self.run(match end {
                SweepEnd::Plain => course.plain,
                SweepEnd::Anchor => course.anchored,
                SweepEnd::Extrapolate(_) => course.extrapolated.unwrap_or(course.plain),
            })?;
        }
        Ok(())
    }

    /// The losses that so many sweeps left, as far as all is finite, and how many were made.
    fn swept(&self, count: usize) -> Result<(Vec<[LossSums; LossSlot::COUNT]>, usize)> {
        let found = self.singles(self.compiled.buffers.course, ROWS_AT + count * ROW)?;
        let made = (found[0].to_bits() as usize).min(count);
        let mut losses = Vec::new();
        for row in found[ROWS_AT..].chunks_exact(ROW).take(made) {
            let sums = self.loss_sums(row);
            if row[ROW - 1].to_bits() != 0 || !sums[0].objective().is_finite() {
                break;
            }
            losses.push(sums);
        }
        Ok((losses, made))
    }

    /// What is on the device.
    #[cfg(test)]
    pub(crate) fn loaded(&self) -> &LoadedProgram {
        &self.loaded
    }

    fn singles(&self, buffer: BufferId, count: usize) -> Result<Vec<f32>> {
        let bytes = self.loaded.read(buffer, 0, 4 * count as u64)?;
        Ok(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    }
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

    fn sums(&mut self) -> Result<[LossSums; LossSlot::COUNT]> {
        self.run(self.compiled.report)?;
        let found = self.singles(self.compiled.buffers.results, self.compiled.result_words)?;
        let broken = found[LossSlot::COUNT * SLOT_SUMS].to_bits() as usize;
        let shapes = self.job.plan.shapes();
        if let Some(l) = broken.checked_sub(1).filter(|&l| l < self.compiled.scales.len()) {
            return Err(Error::Numeric(format!(
                "the update of factor {} ({}) overflowed single precision: the data or the start span too many orders of magnitude for this loss; the CPU has double precision",
                l + 1,
                shapes.model().factor_name(l)
            )));
        }
        Ok(self.loss_sums(&found))
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
            let started = Instant::now();
            self.run_pass(group)?;
            self.sums()?;
            walls.push(started.elapsed().as_secs_f64());
            if !self.compiled.streamed_passes.is_empty() {
                // By itself a part of such a pass would read what is there by chance.
                continue;
            }
            let Some(seconds) = self.loaded.profile(recording)? else { continue };
            all.push(seconds.iter().sum());
            let of_data = seconds.iter().zip(&self.compiled.dispatch_kinds[group]);
            kernels.push(
                of_data.filter(|&(_, &kind)| kind == DispatchKind::Data).map(|(s, _)| s).sum(),
            );
        }
        self.last = None;
        Ok(match all.is_empty() {
            true => PassTime::new(walls, None),
            false => PassTime::new(all, Some(kernels)),
        })
    }

    fn balance(&mut self) -> Result<()> {
        let Some(recording) = self.compiled.balance else { return Ok(()) };
        self.last = None;
        self.run(recording)
    }

    fn scale_terms(&mut self) -> Result<[f64; 2]> {
        let Some(group) = self.last else {
            return Err(Error::Setting("no pass has told about the scale of the data".into()));
        };
        if self.compiled.exact.is_some() {
            let factors = self.on_host()?;
            let (numerator, gram) = self.exact_sums(group, &factors)?;
            let terms = self.objective(group, &numerator, &gram)?.terms(&factors);
            return Ok(terms.map(|x| x * self.job.objective_unit()));
        }
        // Asked a few times before the first sweep: on the host, in double precision.
        let l = self.job.plan.groups()[group].factors[0];
        let factors = self.on_host()?;
        let steps = self.unchanged(group, &factors);
        let (a, b) = self.parts_on_host(group, 0, &factors, &steps)?;
        let unit = self.job.objective_unit();
        let term = |sums: Vec<f64>| {
            factors[l].iter().zip(sums).map(|(x, sum)| x * sum).sum::<f64>() * unit
        };
        Ok([term(a), term(b)])
    }

    fn parts(&mut self, at: usize, steps: &[Vec<f64>]) -> Result<(Vec<f64>, Vec<f64>)> {
        let Some(group) = self.last else {
            return Err(Error::Setting("no pass has left numerators and denominators".into()));
        };
        let l = self.job.plan.groups()[group].factors[at];
        let scale = self.job.objective_unit() * self.compiled.scales[l];
        let (a, b) = match self.compiled.exact.is_some() {
            true => self.exact_parts(group, at, steps)?,
            false => self.parts_on_host(group, at, &self.on_host()?, steps)?,
        };
        let scaled = |sums: Vec<f64>| sums.into_iter().map(|x| x * scale).collect();
        Ok((scaled(a), scaled(b)))
    }

    fn load(&mut self, factors: &[ArrayD<f64>]) -> Result<()> {
        self.last = None;
        let rules = factors.iter().zip(&self.job.constraints);
        self.fixed = rules.map(|(values, rule)| rule.fixed.then(|| values.clone())).collect();
        self.upload_factors(factors)?;
        self.run(self.compiled.begin)
    }

    fn factors(&self) -> Result<Vec<ArrayD<f64>>> {
        let shapes = self.job.plan.shapes();
        let places = &self.compiled.places;
        let all = self.singles(self.compiled.buffers.factors, places[places.len() - 1])?;
        let one = |(l, scale): (usize, &f64)| {
            if let Some(Some(given)) = self.fixed.get(l) {
                return Ok(given.clone());
            }
            // Single precision rounds bounds too.
            let Constraint { lower, upper, .. } = self.job.constraints[l];
            let entry = |&x: &f32| (f64::from(x) / scale).max(lower).min(upper);
            let data = all[places[l]..places[l + 1]].iter().map(entry).collect();
            ArrayD::from_shape_vec(IxDyn(&shapes.factor(l)), data)
                .map_err(|e| Error::Setting(format!("factor {}: {e}", l + 1)))
        };
        self.compiled.scales.iter().enumerate().map(one).collect()
    }

    fn copy(&mut self, from: Point, to: Point) -> Result<()> {
        match (from, to) {
            (Point::Current, Point::Anchor) => {
                self.run(self.compiled.set_anchor)?;
                self.has_anchor = true;
                Ok(())
            }
            (Point::Anchor, Point::Current) if !self.has_anchor => {
                Err(Error::Internal("there is no anchor to go back to".into()))
            }
            (Point::Anchor, Point::Current) => self.run(self.compiled.return_to_anchor),
            (Point::Current, Point::Snapshot) => {
                self.run(self.compiled.save_snapshot)?;
                self.has_snapshot = true;
                Ok(())
            }
            (Point::Snapshot, Point::Current) if !self.has_snapshot => Ok(()),
            (Point::Snapshot, Point::Current) => self.run(self.compiled.restore_snapshot),
            (from, to) => Err(Point::refuse(from, to)),
        }
    }

    fn extrapolate(&mut self, by: Extrapolation) -> Result<()> {
        if !self.has_anchor {
            return Err(Error::Internal("extrapolated without an anchor".into()));
        }
        let [momentum, relaxation, least] = single(by);
        let weights = [momentum, relaxation, least, 0.0];
        self.loaded.write(self.compiled.buffers.weights, 0, bytemuck::cast_slice(&weights))?;
        self.run(self.compiled.extrapolate)
    }

    fn state(&self) -> Result<EngineState> {
        let kept = |there: bool, buffer: BufferId| match there {
            true => self.kept(buffer).map(Some),
            false => Ok(None),
        };
        Ok(EngineState {
            scales: self.compiled.scales.clone(),
            factors: self.kept(self.compiled.buffers.factors)?,
            anchor: kept(self.has_anchor, self.compiled.buffers.anchor)?,
            origin: kept(self.has_anchor, self.compiled.buffers.origin)?,
            snapshot: kept(self.has_snapshot, self.compiled.buffers.snapshot)?,
        })
    }

    fn restore(&mut self, state: &EngineState) -> Result<()> {
        let places = &self.compiled.places;
        let sizes: Vec<usize> = places.windows(2).map(|pair| pair[1] - pair[0]).collect();
        state.check(&self.compiled.scales, &sizes)?;
        let origin = state.anchor.as_ref().map(|_| state.origin.as_ref().unwrap_or(&state.factors));
        for (buffer, factors) in [
            (self.compiled.buffers.factors, Some(&state.factors)),
            (self.compiled.buffers.anchor, state.anchor.as_ref()),
            (self.compiled.buffers.origin, origin),
            (self.compiled.buffers.snapshot, state.snapshot.as_ref()),
        ] {
            let Some(factors) = factors else { continue };
            let bytes: Vec<u8> =
                factors.iter().flatten().flat_map(|&x| (x as f32).to_le_bytes()).collect();
            self.loaded.write(buffer, 0, &bytes)?;
        }
        self.has_anchor = state.anchor.is_some();
        self.has_snapshot = state.snapshot.is_some();
        self.last = None;
        Ok(())
    }

    fn sweeps(&mut self, ends: &[SweepEnd]) -> Result<Vec<[LossSums; LossSlot::COUNT]>> {
        let Some((course, count)) = self.course(ends) else { return Ok(Vec::new()) };
        let started = Instant::now();
        self.ends = ends[..count].to_vec();
        self.run(course.keep)?;
        self.send_sweeps(&course, &ends[..count])?;
        let (losses, made) = self.swept(count)?;
        let each = started.elapsed() / count as u32;
        let most = (UNSEEN.as_nanos() / each.as_nanos().max(1)) as usize;
        // What was sent off in vain is a fraction of what was not.
        let next = if made < count { made } else { 2 * count };
        self.pace = next.min(most).clamp(1, MOST_SWEEPS);
        if losses.len() < made {
            self.repeat_sweeps(losses.len())?;
        }
        Ok(losses)
    }

    fn repeat_sweeps(&mut self, count: usize) -> Result<()> {
        let Some(course) = self.compiled.course.clone().filter(|_| count <= self.ends.len()) else {
            return Err(Error::Internal(format!("there are no {count} sweeps to repeat")));
        };
        // A factor that is not finite is one of those that are left behind.
        self.run(self.compiled.report)?;
        self.run(course.go_back)?;
        self.run_pass(0)?;
        self.send_sweeps(&course, &self.ends[..count])?;
        self.last = Some(0);
        Ok(())
    }

    fn is_exact(&self) -> bool {
        self.compiled.exact.is_some()
    }

    fn another(&self) -> Result<Option<Box<dyn Engine>>> {
        if !self.compiled.streamed_passes.is_empty() {
            // Slabs of one fit would be where those of the other are to come.
            return Ok(None);
        }
        let b = &self.compiled.buffers;
        let by_host = [b.factors, b.anchor, b.origin, b.snapshot, b.weights, b.course, b.sizes];
        let Some(loaded) = self.loaded.another(&by_host)? else { return Ok(None) };
        let job = Job { start: self.factors()?, ..self.job.clone() };
        let mut engine =
            GpuEngine::begun(job, self.compiled.clone(), loaded, (self.bytes, self.dispatches));
        engine.start()?;
        Ok(Some(Box::new(engine)))
    }

    fn device_memory(&self) -> Option<u64> {
        Some(self.bytes)
    }

    fn dispatches(&self) -> Option<usize> {
        Some(self.dispatches)
    }
}

/// Puts a job on a GPU.
///
/// # Errors
/// Where a tensor or the whole is too large for the device, or the device fails.
pub fn open(gpu: &Gpu, job: Job, tuning: &Tuning) -> Result<Box<dyn Engine>> {
    Ok(Box::new(GpuEngine::new(gpu, job, tuning)?))
}

/// An extrapolation's weights, and the least that it multiplies with, as shaders take them.
fn single(by: Extrapolation) -> [f32; 3] {
    [by.momentum as f32, by.relaxation as f32, by.least as f32]
}
