//! What happens to factors between passes, as commands: updates, extrapolation, floors.

use std::ops::Range;

use crate::joint::operation::Operation;
use crate::program::compiler::Compiler;
use crate::program::products::sums_indices;
use crate::program::recording::{
    Access, Binding, Command, Dispatch, DispatchKind, Recording, RecordingId, Shader,
};
use crate::program::template::fill;
use crate::program::views::TensorView;
use crate::step::{constraint_words, is_constrained, step, step_text};
use nneinfact_core::error::{Error, Result};
use nneinfact_core::loss::Majorizer;
use nneinfact_shaders::{CHUNK, CHUNK_FOLD};

/// The largest number of entries, per thread of its workgroup, of a factor that one workgroup changes:
/// more workgroups, and a dispatch more, are faster above.
const ALONE: usize = 8;
/// The same where it does so among other operations of a joint dispatch.
const JOINTLY: usize = 32;
/// Factors that one dispatch changes: with what they share, 256 bytes of uniforms.
const SMALL: usize = 15;

/// What happens to a factor.
#[derive(Clone, Copy, PartialEq, Eq)]
enum FactorChange {
    /// It is multiplied with its steps.
    Multiply,
    /// It is extrapolated from the anchor.
    Extrapolate,
    /// The same, with the weights that the course of sweeps has for it.
    Follow,
    /// It stays, and its largest entry is found.
    Keep,
}

/// What happens to the entries of a factor that are not above its floor.
#[derive(Clone, Copy, PartialEq, Eq)]
enum BelowFloor {
    /// They are clamped to it.
    Clamp,
    /// They become 0.
    Flush,
}

/// Which of the powers of a factor a contraction takes.
#[derive(Clone, Copy)]
enum Power {
    /// Those of numerator and denominator, as a pair.
    Both,
    /// That of the numerator.
    First,
    /// x ln(λ) of a factor x after its step λ.
    Log,
}

impl Compiler<'_> {
    /// The update of a group from the sums of its pass: docs/method.md.
    pub(crate) fn update(&mut self, group: usize) -> Result<RecordingId> {
        let plan = self.plan;
        let members = plan.groups()[group].factors.clone();
        let grouped = members.len() > 1;
        let mut recording = Recording { label: format!("update {group}"), commands: Vec::new() };
        let commands = &mut recording.commands;
        if grouped {
            for run in neighbours(&members) {
                self.begin_update(commands, run)?;
            }
        }
        let cycles = if grouped { self.job.guards.inner_cycles } else { 1 };
        for _ in 0..cycles {
            for (at, &member) in members.iter().enumerate() {
                self.contract_sums(commands, group, at)?;
                self.step(commands, member, grouped)?;
            }
        }
        self.apply_all(commands, &members, FactorChange::Multiply)?;
        Ok(self.record(recording))
    }

    /// The powers of a factor that an update contracts with.
    fn powers(&self, l: usize, power: Power) -> TensorView {
        let parameters = self.places[self.places.len() - 1];
        let (base, half) = match power {
            Power::Both => (0, Some(parameters)),
            Power::First => (0, None),
            Power::Log => (2 * parameters, None),
        };
        TensorView {
            buffer: self.buffers.powers,
            base: self.places[l] + base,
            half,
            ..self.factor(l)
        }
    }

    /// Contracts numerator and denominator of a group with its other factors, for the factor `at`.
    fn contract_sums(
        &mut self,
        commands: &mut Vec<Command>,
        group: usize,
        at: usize,
    ) -> Result<()> {
        let members = &self.plan.groups()[group].factors;
        let contraction = &self.plan.groups()[group].updates[at];
        let l = members[at];
        let others: Vec<usize> = members.iter().copied().filter(|&m| m != l).collect();
        let indices = sums_indices(self.plan, group);
        let volume: usize = self.shapes.sizes(indices).iter().product();
        let buffer = self.buffers.sums;
        let both = TensorView { buffer, base: 0, indices: indices.to_vec(), half: Some(volume) };
        let denominator = TensorView { base: volume, half: None, ..both.clone() };
        let mut inputs = vec![both];
        inputs.extend(others.iter().map(|&m| self.powers(m, Power::Both)));
        let out = TensorView {
            buffer: self.buffers.quotients,
            base: 0,
            half: Some(self.factor_size(l)),
            ..self.factor(l)
        };
        self.contract(commands, contraction, &inputs, &out, 1.0, false)?;
        if self.job.loss.majorizer() == Majorizer::Log {
            let numerator = TensorView { half: None, ..out };
            for i in 0..others.len() {
                let mut inputs = vec![denominator.clone()];
                inputs.extend(
                    others.iter().enumerate().map(|(j, &m)| {
                        self.powers(m, if i == j { Power::Log } else { Power::First })
                    }),
                );
                self.contract(commands, contraction, &inputs, &numerator, -1.0, true)?;
            }
        }
        Ok(())
    }

    /// The multiplicative steps of a factor from its numerator and denominator.
    fn step(&mut self, commands: &mut Vec<Command>, l: usize, grouped: bool) -> Result<()> {
        let constraint = self.constraints[l];
        let shader = self.shader(step(&self.job.loss, &constraint, grouped)?);
        let (fold, uniforms) = self.each_entry(l..l + 1);
        let buffers = &self.buffers;
        let mut bindings = vec![uniforms];
        bindings.extend([buffers.quotients, buffers.factors, buffers.steps].map(Binding::Whole));
        if grouped {
            bindings.push(Binding::Whole(buffers.powers));
        }
        if is_constrained(&constraint) {
            bindings.push(self.constraint_binding(l));
        }
        let dispatch = Command::Dispatch(Dispatch {
            shader,
            kind: DispatchKind::Small,
            bindings,
            workgroups: fold,
            work: 20.0 * self.factor_size(l) as f64,
        });
        let text = step_text(&self.job.loss, &constraint, grouped)?;
        let curvature = self.job.loss.curvature_constant();
        let words = is_constrained(&constraint).then(|| constraint_words(&constraint, curvature));
        let operation = self.step_operation(l, &text, grouped, words);
        commands.push(self.or_jointly(dispatch, vec![operation]));
        Ok(())
    }

    /// What a shader reads of the constraint of a factor.
    fn constraint_binding(&mut self, l: usize) -> Binding {
        let words = constraint_words(&self.constraints[l], self.job.loss.curvature_constant());
        self.uniform(bytemuck::cast_slice(&words))
    }

    /// A thread for each entry of neighbouring factors: workgroups, and the uniforms of
    /// begin_update.wgsl and step.wgsl.
    fn each_entry(&mut self, factors: Range<usize>) -> ([u32; 3], Binding) {
        let size = self.places[factors.end] - self.places[factors.start];
        let parameters = self.places[self.places.len() - 1];
        let fold = self.fold(size.div_ceil(64));
        let first = self.places[factors.start];
        let words = [first, size, fold[0] as usize, parameters].map(|n| n as u32);
        (fold, self.words(&words))
    }

    /// Sets the steps of neighbouring factors to 1.
    fn begin_update(&mut self, commands: &mut Vec<Command>, factors: Range<usize>) -> Result<()> {
        let first = self.places[factors.start];
        let size = self.places[factors.end] - first;
        let (fold, uniforms) = self.each_entry(factors);
        let shader = self.shader(Shader {
            label: "begin update".into(),
            source: fill(nneinfact_shaders::BEGIN_UPDATE, &[], &[])?,
            bindings: vec![Access::Uniform, Access::Read, Access::ReadWrite, Access::ReadWrite],
            invocations: 64,
            workgroup_bytes: 0,
        });
        let buffers = &self.buffers;
        let mut bindings = vec![uniforms];
        bindings.extend([buffers.factors, buffers.steps, buffers.powers].map(Binding::Whole));
        let dispatch = Command::Dispatch(Dispatch {
            shader,
            kind: DispatchKind::Small,
            bindings,
            workgroups: fold,
            work: size as f64,
        });
        commands.push(self.or_jointly(dispatch, vec![self.begin_operation(first, size)?]));
        Ok(())
    }

    /// Changes factors, and brings them above their floors and between their bounds. Those that are
    /// small, and have no bounds, in one dispatch: a workgroup each.
    fn apply_all(
        &mut self,
        commands: &mut Vec<Command>,
        factors: &[usize],
        change: FactorChange,
    ) -> Result<()> {
        let threads = self.limits.most_threads(1024);
        let (small, others): (Vec<usize>, Vec<usize>) = factors.iter().partition(|&&l| {
            self.constraints[l].is_unbounded() && self.factor_size(l) <= ALONE * threads as usize
        });
        let most = self.limits.workgroups as usize;
        for small in small.chunks(SMALL.min(most)) {
            let (floor, least) = self.least_entries();
            let mut words = vec![floor.to_bits(), least.to_bits(), 0, 0];
            for &l in small {
                words.extend([self.places[l] as u32, self.factor_size(l) as u32, l as u32, 0]);
            }
            words.resize(4 * (SMALL + 1), 0);
            let shader = self.shader(change.small_shader(threads, self.exact.is_some())?);
            let uniforms = self.words(&words);
            let bindings = self.changed(change, uniforms, false);
            let dispatch = Command::Dispatch(Dispatch {
                shader,
                kind: DispatchKind::Small,
                bindings,
                workgroups: [small.len() as u32, 1, 1],
                work: 5.0 * small.iter().map(|&l| self.factor_size(l)).sum::<usize>() as f64,
            });
            let operations =
                small.iter().map(|&l| self.applied(l, change)).collect::<Result<_>>()?;
            commands.push(self.or_jointly(dispatch, operations));
        }
        others.iter().try_for_each(|&l| self.apply(commands, l, change))
    }

    /// The least entries of factors: as a fraction of their largest, and in any case.
    fn least_entries(&self) -> (f32, f32) {
        let floor = self.factor_floor();
        (floor as f32, if floor > 0.0 { 1e-37 } else { 0.0 })
    }

    /// The least entry of a factor beside its largest. Exact steps leave zero by themselves.
    fn factor_floor(&self) -> f64 {
        match self.exact {
            Some(_) => 0.0,
            None => self.job.guards.factor_floor,
        }
    }

    /// What the shader of a change binds: `largest` where it leaves the largest entries there.
    fn changed(&self, change: FactorChange, uniforms: Binding, largest: bool) -> Vec<Binding> {
        let buffers = &self.buffers;
        let other = match change {
            FactorChange::Multiply => buffers.steps,
            FactorChange::Extrapolate | FactorChange::Follow | FactorChange::Keep => buffers.anchor,
        };
        let mut bindings = vec![uniforms];
        bindings.extend([buffers.factors, other].map(Binding::Whole));
        bindings.extend(largest.then_some(Binding::Whole(buffers.largest)));
        bindings.push(Binding::Whole(buffers.broken));
        if change.extrapolates() {
            bindings.extend([buffers.weights, buffers.origin].map(Binding::Whole));
        }
        bindings
    }

    /// Changes a factor, and brings it above its floor and between its bounds.
    fn apply(&mut self, commands: &mut Vec<Command>, l: usize, change: FactorChange) -> Result<()> {
        if !self.joins() || !self.is_applied_jointly(l) {
            self.change(commands, l, change)?;
            return self.at_floor(commands, l, BelowFloor::Clamp);
        }
        let mut own = Vec::new();
        self.change(&mut own, l, change)?;
        self.at_floor(&mut own, l, BelowFloor::Clamp)?;
        let operation = self.applied(l, change)?;
        for (n, command) in own.into_iter().enumerate() {
            // The first does all of it.
            let operations = if n == 0 { vec![operation.clone()] } else { Vec::new() };
            commands.push(self.or_jointly(command, operations));
        }
        Ok(())
    }

    /// Whether a workgroup changes a factor, in place of dispatches of its own.
    fn is_applied_jointly(&self, l: usize) -> bool {
        self.factor_size(l) <= JOINTLY * self.joint_threads()
    }

    /// A change of a factor, its floor and its bounds as an operation.
    fn applied(&self, l: usize, change: FactorChange) -> Result<Operation> {
        let constraint = self.constraints[l];
        let bounded = !constraint.is_unbounded();
        let flags = [
            ("multiply", change == FactorChange::Multiply),
            ("keep", change == FactorChange::Keep),
            ("extrapolate", change.extrapolates()),
            ("along_line", self.exact.is_some()),
            ("from_course", change == FactorChange::Follow),
            ("bounded", bounded),
        ];
        let words = [("factor_number", "uniforms[0].z".to_string())];
        let text = fill(nneinfact_shaders::JOINT_APPLY, &flags, &words)?;
        let b = &self.buffers;
        let (read, written) = (Access::Read, Access::ReadWrite);
        let others = match change {
            FactorChange::Multiply => vec![(b.steps, read)],
            FactorChange::Keep => Vec::new(),
            FactorChange::Extrapolate => {
                vec![(b.anchor, written), (b.origin, written), (b.weights, Access::Uniform)]
            }
            FactorChange::Follow => {
                vec![(b.anchor, written), (b.origin, written), (b.course, read)]
            }
        };
        let (fraction, least) = self.least_entries();
        let [_, lower, upper, _] =
            constraint_words(&constraint, self.job.loss.curvature_constant());
        let words = [
            self.places[l] as u32,
            self.factor_size(l) as u32,
            l as u32,
            0,
            fraction.to_bits(),
            least.to_bits(),
            lower.to_bits(),
            upper.to_bits(),
        ];
        Ok(self.apply_operation(l, change.label(), &text, &others, words))
    }

    /// Sets the entries of a factor that stand at its floor to 0.
    pub(crate) fn flush_to_zero(&mut self, commands: &mut Vec<Command>, l: usize) -> Result<()> {
        if self.factor_floor() > 0.0 {
            self.change(commands, l, FactorChange::Keep)?;
            self.at_floor(commands, l, BelowFloor::Flush)?;
        }
        Ok(())
    }

    /// Clamps a factor to its floor.
    pub(crate) fn apply_floor(&mut self, commands: &mut Vec<Command>, l: usize) -> Result<()> {
        self.apply(commands, l, FactorChange::Keep)
    }

    /// Finds the largest entries of the chunks of a factor.
    pub(crate) fn largest_entries(&mut self, commands: &mut Vec<Command>, l: usize) -> Result<()> {
        let mut own = Vec::new();
        self.change(&mut own, l, FactorChange::Keep)?;
        let operation = self.largest_operation(l)?;
        commands.extend(own.into_iter().map(|command| match self.is_applied_jointly(l) {
            true => self.or_jointly(command, vec![operation.clone()]),
            false => command,
        }));
        Ok(())
    }

    /// Changes a factor and finds its largest entry.
    fn change(
        &mut self,
        commands: &mut Vec<Command>,
        l: usize,
        change: FactorChange,
    ) -> Result<()> {
        let size = self.factor_size(l);
        let chunks = size.div_ceil(CHUNK);
        let words = [self.places[l], size, self.largest_places[l], l].map(|n| n as u32);
        let uniforms = self.words(&words);
        let shader = self.shader(change.shader(self.exact.is_some())?);
        let bindings = self.changed(change, uniforms, true);
        let x = chunks.min(CHUNK_FOLD).min(self.limits.workgroups as usize);
        if x < CHUNK_FOLD && chunks > x {
            return Err(Error::Device(
                "the device allows fewer than 32,768 workgroups in a dimension".into(),
            ));
        }
        commands.push(Command::Dispatch(Dispatch {
            shader,
            kind: DispatchKind::Small,
            bindings,
            workgroups: [x as u32, chunks.div_ceil(x) as u32, 1],
            work: 4.0 * size as f64,
        }));
        Ok(())
    }

    /// What entries below the floor of a factor become, its largest being known; in any case they
    /// are brought between the bounds, if not flushed.
    fn at_floor(&mut self, commands: &mut Vec<Command>, l: usize, below: BelowFloor) -> Result<()> {
        let floor = self.factor_floor();
        let has_bounds = !self.constraints[l].is_unbounded();
        if floor <= 0.0 && !has_bounds {
            return Ok(());
        }
        let size = self.factor_size(l);
        let fold = self.fold(size.div_ceil(64));
        let (fraction, least) = self.least_entries();
        let uniforms = self.words(&[
            self.places[l] as u32,
            size as u32,
            self.largest_places[l] as u32,
            size.div_ceil(CHUNK) as u32,
            fold[0],
            fraction.to_bits(),
            least.to_bits(),
            0,
        ]);
        let clamp = below == BelowFloor::Clamp;
        let bounded = clamp && has_bounds;
        let mut access = vec![Access::Uniform, Access::ReadWrite, Access::Read];
        let mut bindings = vec![uniforms];
        bindings.extend([self.buffers.factors, self.buffers.largest].map(Binding::Whole));
        if bounded {
            access.push(Access::Uniform);
            bindings.push(self.constraint_binding(l));
        }
        let flags = [("flush", !clamp), ("clamp", clamp && !bounded), ("bounded", bounded)];
        let shader = self.shader(Shader {
            label: if clamp { "apply floor" } else { "flush to zero" }.into(),
            source: fill(nneinfact_shaders::APPLY_FLOOR, &flags, &[])?,
            bindings: access,
            invocations: 64,
            workgroup_bytes: 256,
        });
        commands.push(Command::Dispatch(Dispatch {
            shader,
            kind: DispatchKind::Small,
            bindings,
            workgroups: fold,
            work: size as f64,
        }));
        Ok(())
    }

    /// The factors that are not fixed.
    fn free(&self) -> Vec<usize> {
        (0..self.constraints.len()).filter(|&l| !self.constraints[l].fixed).collect()
    }

    /// Clamps the start to the floor.
    pub(crate) fn begin(&mut self) -> Result<RecordingId> {
        let mut recording = Recording { label: "begin".into(), commands: Vec::new() };
        let free = self.free();
        self.apply_all(&mut recording.commands, &free, FactorChange::Keep)?;
        Ok(self.record(recording))
    }

    /// Extrapolates all free factors.
    pub(crate) fn extrapolate(&mut self) -> Result<RecordingId> {
        let mut recording = Recording { label: "extrapolate".into(), commands: Vec::new() };
        let free = self.free();
        self.apply_all(&mut recording.commands, &free, FactorChange::Extrapolate)?;
        let copied = self.copied(self.buffers.factors, self.buffers.origin)?;
        recording.commands.push(match copied {
            // Operations leave the origin, too.
            Command::Small { otherwise, .. }
                if free.iter().all(|&l| self.is_applied_jointly(l)) =>
            {
                Command::Small { otherwise, operations: Vec::new() }
            }
            other => other,
        });
        Ok(self.record(recording))
    }

    /// As [`extrapolate`](Self::extrapolate), with the weights of the course; `None` where a factor is too
    /// large for a workgroup.
    pub(crate) fn follow(&mut self) -> Result<Option<Vec<Command>>> {
        let free = self.free();
        if !self.joins() || !free.iter().all(|&l| self.is_applied_jointly(l)) {
            return Ok(None);
        }
        let mut commands = Vec::new();
        for l in free {
            // What it is in place of is never run.
            let nothing = Command::Clear { buffer: self.buffers.anchor, offset: 0, bytes: 0 };
            let operation = self.applied(l, FactorChange::Follow)?;
            commands.push(self.or_jointly(nothing, vec![operation]));
        }
        Ok(Some(commands))
    }
}

/// Runs of neighbouring factors among some in order.
fn neighbours(factors: &[usize]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for &l in factors {
        match runs.last_mut() {
            Some(run) if run.end == l => run.end += 1,
            _ => runs.push(l..l + 1),
        }
    }
    runs
}

impl FactorChange {
    fn extrapolates(self) -> bool {
        matches!(self, FactorChange::Extrapolate | FactorChange::Follow)
    }

    fn label(self) -> &'static str {
        match self {
            FactorChange::Multiply => "apply",
            FactorChange::Extrapolate | FactorChange::Follow => "extrapolate",
            FactorChange::Keep => "largest",
        }
    }

    /// A shader from a template whose own bindings are these. Extrapolations go along a line, or in log space.
    fn fill(
        self,
        (template, along_line): (&str, bool),
        mut bindings: Vec<Access>,
        threads: u32,
        factor_number: &str,
        words: &[(&'static str, String)],
    ) -> Result<Shader> {
        let next = bindings.len();
        if self.extrapolates() {
            bindings[2] = Access::ReadWrite;
            bindings.extend([Access::Uniform, Access::Read]);
        }
        let flags = [
            ("multiply", self == FactorChange::Multiply),
            ("keep", self == FactorChange::Keep),
            ("extrapolate", self.extrapolates()),
            ("along_line", along_line),
        ];
        let mut words = words.to_vec();
        words.push(("weights_binding", next.to_string()));
        words.push(("origin_binding", (next + 1).to_string()));
        words.push(("factor_number", factor_number.into()));
        Ok(Shader {
            label: self.label().into(),
            source: fill(template, &flags, &words)?,
            bindings,
            invocations: threads,
            workgroup_bytes: 4 * threads,
        })
    }

    /// A workgroup for every 1024 entries of a factor; what is largest remains to be found.
    fn shader(self, along_line: bool) -> Result<Shader> {
        let access = [
            Access::Uniform,
            Access::ReadWrite,
            Access::Read,
            Access::ReadWrite,
            Access::ReadWrite,
        ];
        self.fill((nneinfact_shaders::APPLY, along_line), access.to_vec(), 64, "uniforms.w", &[])
    }

    /// A workgroup for every factor.
    fn small_shader(self, threads: u32, along_line: bool) -> Result<Shader> {
        let access = [Access::Uniform, Access::ReadWrite, Access::Read, Access::ReadWrite];
        let words = [("threads", format!("{threads}u")), ("vectors", format!("{}u", SMALL + 1))];
        let template = (nneinfact_shaders::APPLY_SMALL, along_line);
        let shader = self.fill(template, access.to_vec(), threads, "factor.z", &words)?;
        Ok(Shader { label: format!("{} with floor", shader.label), ..shader })
    }
}
