//! The engine that runs on the CPU: all cores, SIMD chosen at run time.
//!
//! A pass over all entries is in `dense`, one over stored entries in `sparse`, and `roofline` measures what
//! the processor can do at best. Passes run in the precision that was asked for; factors, numerators and
//! denominators are kept in double precision, and so are all small contractions.

#![deny(missing_docs)]

mod dense;
mod exact;
mod masked;
mod roofline;
mod scale;
mod sparse;
mod tape;

use std::collections::HashMap;
use std::sync::Arc;

use ndarray::{ArrayD, IxDyn};
use nneinfact_core::parallel;

use self::dense::{DenseSums, Geometry, Schedule, Source, Wants};
use self::exact::Exact;
use self::masked::MaskedSums;
use self::scale::{largest, normalizers};
use self::sparse::{GroupSums, SparseState};
use nneinfact_core::algebra::update::Update;
use nneinfact_core::algebra::{balance, contract, quadratic, update};
use nneinfact_core::data::Dense;
use nneinfact_core::engine::{
    Constraint, Engine, EngineState, Extrapolation, Job, LossSlot, LossSums, Point, Precision,
    host_scales,
};
use nneinfact_core::error::{Error, Result};
use nneinfact_core::loss::{Differences, Tape};
use nneinfact_core::plan::{ImplicitForm, Pass, RoleTerm};
use nneinfact_simd::Elementwise;

pub use roofline::measure;

/// The instruction set that the passes use on this machine.
pub fn simd_name() -> &'static str {
    struct Name;
    impl pulp::WithSimd for Name {
        type Output = usize;
        #[inline(always)]
        fn with_simd<S: pulp::Simd>(self, _: S) -> usize {
            size_of::<S::f32s>() * 8
        }
    }
    match nneinfact_simd::arch().dispatch(Name) {
        512 => "512-bit SIMD",
        256 => "256-bit SIMD",
        128 => "128-bit SIMD",
        _ => "no SIMD",
    }
}

/// The engine of a job, with passes in this precision.
///
/// # Errors
/// Where the engine cannot take the factors that the job starts from.
pub fn engine(job: Job, precision: Precision) -> Result<Box<dyn Engine>> {
    // Not generic, so that the kernels are compiled with this crate and not with those that use it.
    Ok(match precision {
        Precision::F32 => Box::new(CpuEngine::<f32>::new(job)?),
        Precision::F64 => Box::new(CpuEngine::<f64>::new(job)?),
    })
}

/// A fit on the CPU with passes in precision `T`.
struct CpuEngine<T> {
    job: Job,
    geometries: Arc<[Geometry]>,
    /// The order of work of each dense pass, where data stay in a file.
    schedules: Vec<Schedule>,
    tapes: HashMap<Wants, Tape>,
    entry_parameters: Arc<[Dense]>,
    /// In the model's order, each in C order of its indices, multiplied with its scale.
    factors: Vec<Vec<f64>>,
    /// What each factor is multiplied with here: see [`EngineState`].
    scales: Vec<f64>,
    /// What holds for these factors, the objective being in the engine's unit.
    constraints: Vec<Constraint>,
    /// What differences between neighbouring entries cost, likewise.
    differences: Vec<Option<Differences>>,
    snapshot: Option<Vec<Vec<f64>>>,
    /// The plain result of the last sweep, which an extrapolation starts from ([`Point::Anchor`]).
    anchor: Option<Vec<Vec<f64>>>,
    /// Where the last sweep began.
    origin: Vec<Vec<f64>>,
    /// The factors of each group before its last update.
    before: Vec<Vec<f64>>,
    /// The stored entries that passes go over in place of all entries.
    sparse: Option<SparseState<T>>,
    /// Closed forms over the entries of each role, where entries differ in what they count and the
    /// plan, or an exact fit, needs such.
    masked: Option<Arc<MaskedSums>>,
    exact: Option<Exact>,
    /// The group of the last pass, with its numerator and denominator; in an exact fit, with Q in
    /// the place of the denominator.
    last: Option<(usize, GroupSums)>,
    losses: [LossSums; LossSlot::COUNT],
}

impl<T: Elementwise> CpuEngine<T> {
    /// The engine of a job, with the factors that it starts from.
    fn new(mut job: Job) -> Result<CpuEngine<T>> {
        let plan = &job.plan;
        let geometries: Arc<[Geometry]> =
            plan.passes().iter().map(|p| Geometry::new::<T>(plan, p)).collect();
        let schedules = match job.stored {
            Some(_) => Vec::new(),
            None => geometries.iter().filter_map(|g| Schedule::new::<T>(g, &job.data)).collect(),
        };
        let values = job.data.values();
        let entry_parameter = |p: &Arc<ArrayD<f64>>| match job.data.coo() {
            Some(_) => Dense::from_array(p.as_ref()).in_c_order(),
            None => dense::aligned(values, p),
        };
        let entry_parameters = job.loss.entry_parameters().iter().map(entry_parameter).collect();
        let sparse =
            job.stored.as_ref().map(|stored| SparseState::new(&job, stored)).transpose()?;
        let exact = if job.exact { Exact::new::<T>(&job) } else { None };
        let settings = plan.settings();
        let masked = match (&exact, settings.sparse) {
            (Some(exact), _) if exact.by_rows => MaskedSums::new::<T>(&job, RoleTerm::Pairs),
            (None, Some(sparse)) if sparse.implicit == ImplicitForm::ByRole => {
                MaskedSums::new::<T>(&job, RoleTerm::Linear)
            }
            (None, None) if settings.closed_denominator && job.data.roles().is_some() => {
                MaskedSums::new::<T>(&job, RoleTerm::Linear)
            }
            _ => None,
        };
        let exact = exact.filter(|exact| !exact.by_rows || masked.is_some());
        let objective = job.objective_unit();
        let count = plan.shapes().model().factors().len();
        let scales = host_scales(&job.start, count, job.unit, job.scales.as_deref());
        let constraints = job.constraints.iter().zip(&scales);
        let constraints =
            constraints.map(|(constraint, scale)| constraint.rescaled(1.0 / scale, objective));
        let differences =
            job.differences.iter().cloned().zip(&scales).map(|(differences, scale)| {
                differences.map(|differences| differences.rescaled(1.0 / scale, objective))
            });
        let differences = differences.collect();
        let start = std::mem::take(&mut job.start);
        if sparse.is_some() {
            // Every pass has the entries in an order of its own now. Of a list that others have too nothing
            // would be gained.
            job.stored = None;
            if let Some(own) = Arc::get_mut(&mut job.data) {
                own.drop_entries();
            }
        }
        let mut engine = CpuEngine {
            geometries,
            schedules,
            tapes: HashMap::new(),
            entry_parameters,
            factors: Vec::new(),
            constraints: constraints.collect(),
            scales,
            differences,
            snapshot: None,
            anchor: None,
            origin: Vec::new(),
            before: Vec::new(),
            sparse,
            masked: masked.map(Arc::new),
            exact,
            last: None,
            losses: [LossSums::default(); LossSlot::COUNT],
            job,
        };
        engine.load(&start)?;
        Ok(engine)
    }

    /// The least floor of a factor: smaller entries are lost in the passes.
    const LEAST: f64 = if T::BYTES == 4 { 1e-37 } else { 0.0 };

    /// What entries of a factor are clamped to: a share of the largest of their factor, and a number that
    /// they are at least. An exact fit has no floors. Its coordinate descent leaves zero by itself and may
    /// make a component of one factor as large as that of another is small: a floor relative to that would
    /// lift all other entries to numbers that matter.
    fn floors(&self) -> [f64; 2] {
        match self.exact {
            Some(_) => [0.0; 2],
            None => [self.job.guards.factor_floor, Self::LEAST],
        }
    }

    /// Clamps the entries of a factor from below.
    fn apply_floor(&mut self, l: usize) {
        if !self.constraints[l].fixed {
            let [floor, least] = self.floors();
            update::apply_floor(&mut self.factors[l], floor, least, &self.constraints[l]);
        }
    }

    /// The penalties at the factors as they are, in the user's units.
    fn penalty(&self) -> f64 {
        balance::penalty(&self.factors, &self.constraints) * self.job.objective_unit()
    }

    fn update_of<'a>(&'a self, group: usize, sums: &'a GroupSums) -> Update<'a> {
        let plan = &self.job.plan;
        let members = &plan.groups()[group];
        Update {
            shapes: plan.shapes(),
            group: members,
            loss: &self.job.loss,
            constraints: &self.constraints,
            numerator: &sums.numerator,
            denominator: sums.denominator(members, plan.sparse_passes().get(group)),
            cycles: self.job.guards.inner_cycles,
        }
    }

    /// A dense pass over the data.
    fn run(&mut self, group: usize, wants: Wants) -> Result<DenseSums> {
        let plan = &self.job.plan;
        let pass = plan
            .passes()
            .get(group)
            .ok_or_else(|| Error::Setting(format!("the plan has no group {group}")))?;
        let loss = &self.job.loss;
        let (tensors, scale) = self.operands(pass);
        let tape = self.tapes.entry(wants).or_insert_with(|| {
            let mut outputs = Vec::new();
            if wants.numerator {
                outputs.push(loss.a());
            }
            if wants.denominator {
                outputs.push(loss.b());
            }
            if wants.losses {
                outputs.push(loss.divergence());
            }
            Tape::compile(&outputs)
        });
        let tape = &*tape;
        let views: Vec<&[T]> = tensors.iter().map(Vec::as_slice).collect();
        let source = Source {
            data: &self.job.data,
            roles: self.job.data.roles(),
            zeros: false,
            entry_parameters: &self.entry_parameters,
            scale: T::from_f64(self.job.value_scale),
            floor: T::from_f64(self.job.guards.prediction_floor / self.job.unit),
            tape,
            wants,
        };
        self.job.data.check()?;
        let schedule = self.schedules.get(group);
        let mut sums = dense::run(&self.geometries[group], &source, schedule, &views);
        // Checked again, as a file that was changed meanwhile may have been read.
        self.job.data.check()?;

        sums.divide(scale);
        let unit = self.job.objective_unit();
        sums.losses.train *= unit;
        sums.losses.validation *= unit;
        sums.losses.held_out *= unit;
        Ok(sums)
    }

    /// A pass over all entries, with numerator and denominator.
    fn dense(&mut self, group: usize, losses: bool) -> Result<GroupSums> {
        let closed = self.job.plan.settings().closed_denominator;
        let wants = Wants { numerator: true, denominator: !closed, losses };
        let DenseSums { numerator, mut denominator, losses } = self.run(group, wants)?;
        if let (true, Some(masked)) = (closed, &self.masked) {
            let (plan, data) = (&self.job.plan, &self.job.data);
            let train = masked.run::<T>(plan, data, group, &self.factors, false).train;
            let onto = &plan.passes()[group].output.indices;
            denominator =
                contract::rearrange(plan.shapes(), masked.pass(group).indices(), &train, onto);
            let constant = self.job.loss.denominator_constant().unwrap_or(1.0);
            denominator.iter_mut().for_each(|x| *x *= constant);
        } else if closed {
            let plan = &self.job.plan;
            let pass = &plan.passes()[group];
            let inputs: Vec<&[f64]> =
                pass.others.iter().map(|&l| self.factors[l].as_slice()).collect();
            let constant = self.job.loss.denominator_constant().unwrap_or(1.0);
            denominator = contract(plan.shapes(), &pass.closed_denominator, &inputs);
            parallel::chunks(&mut denominator, parallel::ENTRIES, &|_, entries| {
                entries.iter_mut().for_each(|x| *x *= constant);
            });
        }
        Ok(GroupSums { numerator, denominator, reduced: false, losses })
    }

    /// The losses at the factors as they are, entry by entry.
    fn losses_at(&mut self, group: usize) -> Result<LossSums> {
        let wants = Wants { losses: true, ..Wants::default() };
        Ok(match self.sparse {
            Some(_) => self.sparse_pass(group, wants).losses,
            None => self.run(group, wants)?.losses,
        })
    }

    /// The tensors of a dense pass, the output first, and the scale that the sums carry, which is that of
    /// the other tensors.
    fn operands(&self, pass: &Pass) -> (Vec<Vec<T>>, f64) {
        let products: Vec<Vec<f64>> = std::iter::once(&pass.output)
            .chain(&pass.operands)
            .map(|operand| {
                let inputs: Vec<&[f64]> =
                    operand.factors.iter().map(|&l| self.factors[l].as_slice()).collect();
                contract(self.job.plan.shapes(), &operand.contraction, &inputs)
            })
            .collect();
        let largest: Vec<f64> = products.iter().map(|t| largest(t)).collect();
        let scales = normalizers(&largest);
        // What an entry of 1 in place of the largest could at most add to ŷ.
        let most =
            largest.iter().product::<f64>() * pass.contracted_size(self.job.plan.shapes()) as f64;
        let floor = self.job.guards.prediction_floor / self.job.unit;
        let negligible = match T::BYTES {
            4 => (NEGLIGIBLE * floor / most).min(TINY),
            _ => 0.0,
        };
        let cast = |((data, scale), largest): ((&Vec<f64>, &f64), f64)| -> Vec<T> {
            let least = negligible * largest;
            let one = |x: f64| T::from_f64(if x < least { 0.0 } else { x * scale });
            parallel::entries(data.len(), |n| one(data[n]))
        };
        let tensors: Vec<Vec<T>> = products.iter().zip(&scales).zip(largest).map(cast).collect();
        (tensors, scales[1..].iter().product())
    }
}

/// Entries so small beside the largest of their tensor that a product of two might be subnormal count
/// as 0 in single precision: processors take a hundred times as long for such numbers.
const TINY: f64 = 1.0 / (1u64 << 56) as f64;
/// But only where all that an entry could add to ŷ is a smaller share of ŷ's floor than this.
const NEGLIGIBLE: f64 = 1e-3;

impl<T: Elementwise> Engine for CpuEngine<T> {
    fn pass(&mut self, group: usize) -> Result<()> {
        if let (Some(sparse), Some((_, sums))) = (&mut self.sparse, self.last.take()) {
            sparse.keep_sums(sums);
        }
        let losses = self.job.losses.get(group).copied().flatten();
        let exact = self.exact.take();
        let sums = match (&exact, &self.sparse) {
            (Some(exact), _) => self.exact(exact, group, losses.is_some()),
            (None, Some(_)) => Ok(self.sparse_pass(group, Wants::sums(losses.is_some()))),
            (None, None) => self.dense(group, losses.is_some()),
        };
        self.exact = exact;
        let sums = sums?;
        if let Some(slot) = losses {
            self.losses[slot as usize] = LossSums { penalty: self.penalty(), ..sums.losses };
        }
        self.last = Some((group, sums));
        Ok(())
    }

    fn update(&mut self, group: usize) -> Result<()> {
        let sums = match self.last.take() {
            Some((passed, sums)) if passed == group => sums,
            _ => {
                return Err(Error::Setting(format!("group {group} is updated without a pass")));
            }
        };
        let members = self.job.plan.groups()[group].factors.clone();
        let mut factors = std::mem::take(&mut self.factors);
        self.before.resize_with(factors.len(), Vec::new);
        members.iter().for_each(|&l| self.before[l].clone_from(&factors[l]));
        let updated = match &self.exact {
            Some(exact) => {
                let (numerator, gram) = (&sums.numerator, &sums.denominator);
                self.objective_of(exact, group, numerator, gram).lower(&mut factors)
            }
            None => self.update_of(group, &sums).apply(&mut factors),
        };
        self.factors = factors;
        if updated.is_err() {
            // The factors before a failed update are still good.
            members.iter().for_each(|&l| self.factors[l].clone_from(&self.before[l]));
            return updated;
        }
        if let Some(sparse) = &mut self.sparse {
            sparse.keep_sums(sums);
        }
        members.into_iter().for_each(|l| self.apply_floor(l));
        Ok(())
    }

    fn balance(&mut self) -> Result<()> {
        let Some(balancing) = self.job.balancing.clone() else { return Ok(()) };
        let (floors, idle) = (self.floors(), balance::Idle::of(self.exact.is_some()));
        let shapes = self.job.plan.shapes();
        balance::rescale(shapes, &balancing, &self.constraints, &mut self.factors, floors, idle);
        Ok(())
    }

    fn scale_terms(&mut self) -> Result<[f64; 2]> {
        let Some((group, sums)) = &self.last else {
            return Err(Error::Setting("no pass has told about the scale of the data".into()));
        };
        let terms = match &self.exact {
            Some(exact) => self
                .objective_of(exact, *group, &sums.numerator, &sums.denominator)
                .terms(&self.factors),
            None => {
                let members = &self.job.plan.groups()[*group].factors;
                let lambda: Vec<Vec<f64>> =
                    members.iter().map(|&l| vec![1.0; self.factors[l].len()]).collect();
                let (a, b) = self.update_of(*group, sums).parts(0, &self.factors, &lambda);
                let dot = |sums: Vec<f64>| -> f64 {
                    self.factors[members[0]].iter().zip(sums).map(|(x, s)| x * s).sum()
                };
                [dot(a), dot(b)]
            }
        };
        Ok(terms.map(|x| x * self.job.objective_unit()))
    }

    fn parts(&mut self, at: usize, lambda: &[Vec<f64>]) -> Result<(Vec<f64>, Vec<f64>)> {
        let Some((group, sums)) = self.last.as_ref() else {
            return Err(Error::Setting("no pass has left numerators and denominators".into()));
        };
        let l = self.job.plan.groups()[*group].factors[at];
        let scale = self.job.objective_unit() * self.scales[l];
        let (a, b) = match &self.exact {
            Some(exact) => {
                let mut factors = self.factors.clone();
                for (&l, lambda) in self.job.plan.groups()[*group].factors.iter().zip(lambda) {
                    factors[l].iter_mut().zip(lambda).for_each(|(x, by)| *x *= by);
                }
                let (numerator, gram) = (&sums.numerator, &sums.denominator);
                let [a, b] = self.objective_of(exact, *group, numerator, gram).parts(at, &factors);
                (a, b)
            }
            None => self.update_of(*group, sums).parts(at, &self.factors, lambda),
        };
        let scaled = |sums: Vec<f64>| sums.into_iter().map(|x| x * scale).collect();
        Ok((scaled(a), scaled(b)))
    }

    fn row_grams(&mut self) -> Result<Vec<f64>> {
        self.grams_of_rows()
    }

    fn load(&mut self, factors: &[ArrayD<f64>]) -> Result<()> {
        self.factors = factors.iter().map(|f| f.iter().copied().collect()).collect();
        for (factor, scale) in self.factors.iter_mut().zip(&self.scales) {
            factor.iter_mut().for_each(|x| *x *= scale);
        }
        self.last = None;
        // They may hold exact zeros, which no multiplicative update could leave.
        (0..self.factors.len()).for_each(|l| self.apply_floor(l));
        Ok(())
    }

    fn evaluate(&mut self) -> Result<()> {
        let sums = self.losses_at(0)?;
        self.losses[LossSlot::Start as usize] = LossSums { penalty: self.penalty(), ..sums };
        Ok(())
    }

    fn sums(&mut self) -> Result<[LossSums; LossSlot::COUNT]> {
        Ok(self.losses)
    }

    fn factors(&self) -> Result<Vec<ArrayD<f64>>> {
        let shapes = self.job.plan.shapes();
        let one = |(l, data): (usize, &Vec<f64>)| {
            let data: Vec<f64> = data.iter().map(|x| x / self.scales[l]).collect();
            ArrayD::from_shape_vec(IxDyn(&shapes.factor(l)), data)
                .map_err(|e| Error::Setting(format!("factor {}: {e}", l + 1)))
        };
        self.factors.iter().enumerate().map(one).collect()
    }

    fn copy(&mut self, from: Point, to: Point) -> Result<()> {
        match (from, to) {
            (Point::Current, Point::Anchor) => {
                self.anchor.get_or_insert_default().clone_from(&self.factors);
                self.origin.clone_from(&self.factors);
            }
            (Point::Anchor, Point::Current) => {
                match &self.anchor {
                    Some(anchor) => self.factors.clone_from(anchor),
                    None => return Err(Error::Internal("there is no anchor to go back to".into())),
                }
                self.origin.clone_from(&self.factors);
            }
            (Point::Current, Point::Snapshot) => {
                self.snapshot.get_or_insert_default().clone_from(&self.factors);
            }
            (Point::Snapshot, Point::Current) => {
                if let Some(snapshot) = &self.snapshot {
                    self.factors.clone_from(snapshot);
                }
            }
            (from, to) => return Err(Point::refuse(from, to)),
        }
        Ok(())
    }

    fn extrapolate(&mut self, by: Extrapolation) -> Result<()> {
        let Some(mut before) = self.anchor.take() else {
            return Err(Error::Internal("extrapolated without an anchor".into()));
        };
        let parts =
            self.factors.iter_mut().zip(&mut before).zip(&self.origin).zip(&self.constraints);
        for (((factor, before), origin), _) in parts.filter(|(_, constraint)| !constraint.fixed) {
            match self.exact {
                Some(_) => quadratic::extrapolate(factor, before, origin, by),
                None => update::extrapolate(factor, before, origin, by),
            }
        }
        self.anchor = Some(before);
        for l in 0..self.factors.len() {
            self.apply_floor(l);
        }
        self.origin.clone_from(&self.factors);
        Ok(())
    }

    fn is_exact(&self) -> bool {
        self.exact.is_some()
    }

    fn another(&self) -> Result<Option<Box<dyn Engine>>> {
        Ok(Some(Box::new(CpuEngine {
            job: self.job.clone(),
            geometries: Arc::clone(&self.geometries),
            schedules: self.schedules.clone(),
            tapes: HashMap::new(),
            entry_parameters: Arc::clone(&self.entry_parameters),
            factors: self.factors.clone(),
            constraints: self.constraints.clone(),
            scales: self.scales.clone(),
            differences: self.differences.clone(),
            snapshot: None,
            anchor: None,
            origin: Vec::new(),
            before: Vec::new(),
            sparse: self.sparse.as_ref().map(SparseState::another),
            masked: self.masked.clone(),
            exact: self.exact.clone(),
            last: None,
            losses: [LossSums::default(); LossSlot::COUNT],
        })))
    }

    fn state(&self) -> Result<EngineState> {
        Ok(EngineState {
            scales: self.scales.clone(),
            factors: self.factors.clone(),
            anchor: self.anchor.clone(),
            origin: self.anchor.as_ref().map(|_| self.origin.clone()),
            snapshot: self.snapshot.clone(),
        })
    }

    fn restore(&mut self, state: &EngineState) -> Result<()> {
        let sizes: Vec<usize> = self.factors.iter().map(Vec::len).collect();
        state.check(&self.scales, &sizes)?;
        self.factors.clone_from(&state.factors);
        self.anchor.clone_from(&state.anchor);
        self.origin.clone_from(state.origin.as_ref().unwrap_or(&state.factors));
        self.snapshot.clone_from(&state.snapshot);
        self.last = None;
        Ok(())
    }
}
