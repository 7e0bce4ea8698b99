//! The engine that runs on the CPU: all cores, SIMD chosen at run time.
//!
//! Passes run in the precision that was asked for; factors, numerators and denominators are kept
//! in double precision, and so are all small contractions.

mod divergence;
mod evaluate;
mod geometry;
mod kernel;
mod pass;
mod rates;
mod sampled;
mod sparse;
mod stream;
mod tile;

use std::collections::HashMap;
use std::sync::Arc;

use ndarray::{ArrayD, IxDyn};
use rayon::prelude::*;

use self::geometry::Geometry;
use self::pass::{Source, Wants};
use self::sparse::{Lists, Outcome, Parts};
use self::stream::Schedule;
use nneinfact_core::algebra::quadratic::Objective;
use nneinfact_core::algebra::update::Update;
use nneinfact_core::algebra::{balance, contract, quadratic, update};
use nneinfact_core::data::Dense;
use nneinfact_core::engine::{
    Constraint, Engine, EngineState, FactorSlot, Job, LossSlot, LossSums,
};
use nneinfact_core::error::{Error, Result};
use nneinfact_core::loss::Tape;
use nneinfact_core::plan::{Pass, Quadratic};
use nneinfact_simd::Elementwise;

pub use rates::measure;

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
    match pulp::Arch::new().dispatch(Name) {
        512 => "512-bit SIMD",
        256 => "256-bit SIMD",
        128 => "128-bit SIMD",
        _ => "no SIMD",
    }
}

/// A fit on the CPU with passes in precision `T`.
pub struct CpuEngine<T> {
    job: Job,
    geometries: Vec<Geometry>,
    /// The order of work of each dense pass, where data stay in a file.
    schedules: Vec<Schedule>,
    tapes: HashMap<Wants, Tape>,
    sides: Vec<Dense>,
    /// In the model's order, each in C order of its letters; the first is divided by the unit.
    factors: Vec<Vec<f64>>,
    /// For these factors, the objective being in the engine's unit.
    rules: Vec<Constraint>,
    remembered: Option<Vec<Vec<f64>>>,
    /// The plain result of the last sweep, where an extrapolation starts from.
    plain: Option<Vec<Vec<f64>>>,
    /// Where the last sweep began.
    origin: Vec<Vec<f64>>,
    /// The list of cells that passes go over in place of all cells.
    lists: Option<Lists<T>>,
    exact: Option<Exact>,
    /// The group of the last pass, with its numerator and denominator; in an exact fit, with Q in
    /// the place of the denominator.
    last: Option<(usize, Outcome)>,
    losses: [LossSums; LossSlot::COUNT],
}

/// What an exact fit of half the squared distance needs.
struct Exact {
    /// For every group.
    objectives: Vec<Quadratic>,
    /// Half the sum of squares of the data, in the engine's unit.
    squares: f64,
    /// A loss that is a smaller share of that has lost its digits in the sum of larger ones.
    least: f64,
}

impl Exact {
    /// `None` where the objective of a group is too large to write down.
    fn new<T: Elementwise>(job: &Job) -> Option<Exact> {
        let groups = job.plan.groups().iter();
        let objectives: Option<Vec<Quadratic>> =
            groups.map(|group| Quadratic::new(job.plan.shapes(), group)).collect();
        let sum = match &job.stored {
            Some(list) => list.entries().sum_of_squares(),
            None => job.data.values().sum_of_squares(),
        };
        let squares = 0.5 * sum / (job.unit * job.unit);
        let least = if T::BYTES == 4 { 1e-3 } else { 1e-11 };
        Some(Exact { objectives: objectives?, squares, least })
    }
}

impl<T: Elementwise> CpuEngine<T> {
    pub fn new(mut job: Job) -> Result<CpuEngine<T>> {
        let plan = &job.plan;
        let geometries: Vec<Geometry> =
            plan.passes().iter().map(|p| Geometry::new::<T>(plan, p)).collect();
        let schedules = match job.stored {
            Some(_) => Vec::new(),
            None => geometries.iter().filter_map(|g| Schedule::new::<T>(g, &job.data)).collect(),
        };
        let values = job.data.values();
        let side = |s: &Arc<ArrayD<f64>>| match job.data.coo() {
            Some(_) => Dense::from_array(s.as_ref()).in_c_order(),
            None => geometry::aligned(values, s),
        };
        let sides = job.loss.entry_parameters().iter().map(side).collect();
        let lists = job.stored.as_ref().map(|list| Lists::new(&job, list));
        let objective = job.objective_unit();
        let rules = job.constraints.iter().enumerate().map(|(l, rule)| {
            let unit = if l == 0 { job.unit } else { 1.0 };
            rule.rescaled(unit, objective)
        });
        let start = std::mem::take(&mut job.start);
        let mut engine = CpuEngine {
            geometries,
            schedules,
            tapes: HashMap::new(),
            sides,
            factors: Vec::new(),
            rules: rules.collect(),
            remembered: None,
            plain: None,
            origin: Vec::new(),
            lists,
            exact: if job.exact { Exact::new::<T>(&job) } else { None },
            last: None,
            losses: [LossSums::default(); LossSlot::COUNT],
            job,
        };
        engine.load(&start)?;
        Ok(engine)
    }

    /// The least floor of a factor: what is smaller is lost in the passes.
    const LEAST: f64 = if T::BYTES == 4 { 1e-37 } else { 0.0 };

    /// What each factor is multiplied with here: see [`EngineState`].
    fn scales(&self) -> Vec<f64> {
        let of = |l: usize| if l == 0 { 1.0 / self.job.unit } else { 1.0 };
        (0..self.factors.len()).map(of).collect()
    }

    /// What entries are raised to: relative to the largest of their factor, and at least. Coordinate
    /// descent leaves zero by itself and may make a component of one factor as large as its partner is
    /// small: a floor relative to that would raise all its other entries to numbers that matter.
    fn floors(&self) -> [f64; 2] {
        match self.exact {
            Some(_) => [0.0; 2],
            None => [self.job.guards.factor_floor, Self::LEAST],
        }
    }

    fn raise(&mut self, l: usize) {
        if !self.rules[l].fixed {
            let [floor, least] = self.floors();
            update::apply_floor(&mut self.factors[l], floor, least, &self.rules[l]);
        }
    }

    /// The penalties at the factors as they are, in the user's units.
    fn penalty(&self) -> f64 {
        balance::penalty(&self.factors, &self.rules) * self.job.objective_unit()
    }

    fn update_of<'a>(&'a self, group: usize, outcome: &'a Outcome) -> Update<'a> {
        let plan = &self.job.plan;
        let members = &plan.groups()[group];
        Update {
            shapes: plan.shapes(),
            group: members,
            loss: &self.job.loss,
            constraints: &self.rules,
            numerator: &outcome.numerator,
            denominator: outcome.denominator(members, plan.sparse_passes().get(group)),
            cycles: self.job.guards.inner_cycles,
        }
    }

    fn objective_of<'a>(
        &'a self,
        exact: &'a Exact,
        group: usize,
        numerator: &'a [f64],
        gram: &'a [f64],
    ) -> Objective<'a> {
        Objective {
            shapes: self.job.plan.shapes(),
            group: &self.job.plan.groups()[group],
            quadratic: &exact.objectives[group],
            constraints: &self.rules,
            numerator,
            gram,
        }
    }

    fn run(&mut self, group: usize, wants: Wants) -> Result<pass::Outcome> {
        let plan = &self.job.plan;
        let pass = plan
            .passes()
            .get(group)
            .ok_or_else(|| Error::Setting(format!("the plan has no group {group}")))?;
        let loss = &self.job.loss;
        let (tensors, others) = self.operands(pass);
        let tape = self.tapes.entry(wants).or_insert_with(|| {
            let mut outputs = Vec::new();
            if wants.numerator {
                outputs.push(loss.a());
            }
            if wants.denominator {
                outputs.push(loss.b());
            }
            if wants.losses {
                outputs.push(loss.loss());
            }
            Tape::compile(&outputs)
        });
        let tape = &*tape;
        let views: Vec<&[T]> = tensors.iter().map(Vec::as_slice).collect();
        let source = Source {
            data: &self.job.data,
            roles: self.job.data.roles(),
            zeros: false,
            sides: &self.sides,
            scale: T::from_f64(1.0 / self.job.unit),
            floor: T::from_f64(self.job.guards.prediction_floor / self.job.unit),
            tape,
            wants,
            schedule: self.schedules.get(group),
        };
        self.job.data.check()?;
        let mut outcome = pass::run(&self.geometries[group], &source, &views);
        // What was changed meanwhile may have been read.
        self.job.data.check()?;

        outcome.divide(others);
        let unit = self.job.objective_unit();
        outcome.sums.train *= unit;
        outcome.sums.validation *= unit;
        outcome.sums.held_out *= unit;
        Ok(outcome)
    }

    /// A pass over all cells.
    fn dense(&mut self, group: usize, losses: bool) -> Result<Outcome> {
        let closed = self.job.plan.settings().closed_denominator;
        let wants = Wants { numerator: true, denominator: !closed, losses };
        let mut outcome = self.run(group, wants)?;
        if closed {
            let plan = &self.job.plan;
            let pass = &plan.passes()[group];
            let inputs: Vec<&[f64]> =
                pass.others.iter().map(|&l| self.factors[l].as_slice()).collect();
            let constant = self.job.loss.denominator_constant().unwrap_or(1.0);
            outcome.denominator = contract(plan.shapes(), &pass.closed_denominator, &inputs);
            outcome.denominator.par_iter_mut().with_min_len(SHARE).for_each(|x| *x *= constant);
        }
        let pass::Outcome { numerator, denominator, sums } = outcome;
        Ok(Outcome { numerator, denominator, reduced: false, sums })
    }

    /// A pass of an exact fit: the data enter the numerator alone.
    fn exact(&mut self, exact: &Exact, group: usize, losses: bool) -> Result<Outcome> {
        let numerator = match self.lists {
            Some(_) => self.sampled(group, Parts { numerator: true, ..Parts::default() }).numerator,
            None => {
                let wants = Wants { numerator: true, denominator: false, losses: false };
                self.run(group, wants)?.numerator
            }
        };
        let gram = quadratic::gram(&exact.objectives[group], &self.factors);
        let mut sums = LossSums::default();
        if losses {
            let objective = self.objective_of(exact, group, &numerator, &gram);
            let train = exact.squares + objective.value(&self.factors);
            sums = match train < exact.least * exact.squares {
                true => self.losses_at(group)?,
                false => LossSums { train: train * self.job.unit * self.job.unit, ..sums },
            };
        }
        Ok(Outcome { numerator, denominator: gram, reduced: false, sums })
    }

    /// The losses at the factors as they are, cell by cell.
    fn losses_at(&mut self, group: usize) -> Result<LossSums> {
        let wants = Wants { numerator: false, denominator: false, losses: true };
        Ok(match self.lists {
            Some(_) => self.sampled(group, Parts { losses: true, ..Parts::default() }).sums,
            None => self.run(group, wants)?.sums,
        })
    }

    /// The tensors of a dense pass, the target first, and the scale that sums over the others
    /// carry.
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
            let one = |&x: &f64| T::from_f64(if x < least { 0.0 } else { x * scale });
            data.par_iter().with_min_len(SHARE).map(one).collect()
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

/// Entries of a tensor that are worth another thread.
const SHARE: usize = 1 << 14;

fn largest(tensor: &[f64]) -> f64 {
    // OperandSide by side, as a comparison waits for the one before. What is no number is not the largest.
    let larger = |a: f64, b: f64| if b > a { b } else { a };
    let of = |share: &[f64]| {
        let mut most = [0.0; 16];
        let chunks = share.chunks_exact(most.len());
        let rest = chunks.remainder().iter().copied().fold(0.0, larger);
        for chunk in chunks {
            most.iter_mut().zip(chunk).for_each(|(most, &x)| *most = larger(*most, x));
        }
        most.into_iter().fold(rest, larger)
    };
    tensor.par_chunks(SHARE).map(of).reduce(|| 0.0, larger)
}

/// Powers of two, one for each tensor with the largest entry given, that bring these near 1 but leave
/// the product of all as it is: products of factors may be far out of the range of single precision
/// although ŷ is not.
fn normalizers(largest: &[f64]) -> Vec<f64> {
    let exponents: Vec<i32> = largest
        .iter()
        .map(|&x| if x > 0.0 && x.is_finite() { x.log2().floor() as i32 } else { 0 })
        .collect();
    let total: i32 = exponents.iter().sum();
    let mut shifts: Vec<i32> = exponents.iter().map(|e| -e).collect();
    if let Some(last) = shifts.last_mut() {
        *last += total;
    }
    shifts.iter().map(|&s| 2f64.powi(s)).collect()
}

impl<T: Elementwise> Engine for CpuEngine<T> {
    fn pass(&mut self, group: usize) -> Result<()> {
        let losses = self.job.losses.get(group).copied().flatten();
        let exact = self.exact.take();
        let outcome = match (&exact, &self.lists) {
            (Some(exact), _) => self.exact(exact, group, losses.is_some()),
            (None, Some(_)) => Ok(self.sampled(group, Parts::all(losses.is_some()))),
            (None, None) => self.dense(group, losses.is_some()),
        };
        self.exact = exact;
        let outcome = outcome?;
        if let Some(slot) = losses {
            self.losses[slot as usize] = LossSums { penalty: self.penalty(), ..outcome.sums };
        }
        self.last = Some((group, outcome));
        Ok(())
    }

    fn update(&mut self, group: usize) -> Result<()> {
        let outcome = match self.last.take() {
            Some((passed, outcome)) if passed == group => outcome,
            _ => {
                return Err(Error::Setting(format!("group {group} is updated without a pass")));
            }
        };
        let members = self.job.plan.groups()[group].factors.clone();
        let mut factors = std::mem::take(&mut self.factors);
        let before: Vec<Vec<f64>> = members.iter().map(|&l| factors[l].clone()).collect();
        let updated = match &self.exact {
            Some(exact) => {
                let (numerator, gram) = (&outcome.numerator, &outcome.denominator);
                self.objective_of(exact, group, numerator, gram).lower(&mut factors)
            }
            None => self.update_of(group, &outcome).apply(&mut factors),
        };
        self.factors = factors;
        if updated.is_err() {
            // The factors before a failed update are still good.
            members.iter().zip(before).for_each(|(&l, before)| self.factors[l] = before);
            return updated;
        }
        members.into_iter().for_each(|l| self.raise(l));
        Ok(())
    }

    fn balance(&mut self) -> Result<()> {
        let Some(balancing) = self.job.balancing.clone() else { return Ok(()) };
        let floors = self.floors();
        let shapes = self.job.plan.shapes();
        balance::rescale(shapes, &balancing, &self.rules, &mut self.factors, floors);
        Ok(())
    }

    fn scale_terms(&mut self) -> Result<[f64; 2]> {
        let Some((group, outcome)) = &self.last else {
            return Err(Error::Setting("no pass has told about the scale of the data".into()));
        };
        let terms = match &self.exact {
            Some(exact) => self
                .objective_of(exact, *group, &outcome.numerator, &outcome.denominator)
                .terms(&self.factors),
            None => {
                let members = &self.job.plan.groups()[*group].factors;
                let lambda: Vec<Vec<f64>> =
                    members.iter().map(|&l| vec![1.0; self.factors[l].len()]).collect();
                let (a, b) = self.update_of(*group, outcome).parts(0, &self.factors, &lambda);
                let dot = |sums: Vec<f64>| -> f64 {
                    self.factors[members[0]].iter().zip(sums).map(|(x, s)| x * s).sum()
                };
                [dot(a), dot(b)]
            }
        };
        Ok(terms.map(|x| x * self.job.objective_unit()))
    }

    fn parts(&mut self, at: usize, lambda: &[Vec<f64>]) -> Result<(Vec<f64>, Vec<f64>)> {
        let Some((group, outcome)) = self.last.as_ref().filter(|_| self.exact.is_none()) else {
            return Err(Error::Setting("no pass has left numerators and denominators".into()));
        };
        let l = self.job.plan.groups()[*group].factors[at];
        let unit = if l == 0 { self.job.unit } else { 1.0 };
        let scale = self.job.objective_unit() / unit;
        let (a, b) = self.update_of(*group, outcome).parts(at, &self.factors, lambda);
        let scaled = |sums: Vec<f64>| sums.into_iter().map(|x| x * scale).collect();
        Ok((scaled(a), scaled(b)))
    }

    fn load(&mut self, factors: &[ArrayD<f64>]) -> Result<()> {
        self.factors = factors.iter().map(|f| f.iter().copied().collect()).collect();
        if let Some(first) = self.factors.first_mut() {
            first.iter_mut().for_each(|x| *x /= self.job.unit);
        }
        self.last = None;
        // They may hold exact zeros, which no multiplicative update could leave.
        (0..self.factors.len()).for_each(|l| self.raise(l));
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
            let unit = if l == 0 { self.job.unit } else { 1.0 };
            let data: Vec<f64> = data.iter().map(|x| x * unit).collect();
            ArrayD::from_shape_vec(IxDyn(&shapes.factor(l)), data)
                .map_err(|e| Error::Setting(format!("factor {}: {e}", l + 1)))
        };
        self.factors.iter().enumerate().map(one).collect()
    }

    fn extrapolate(&mut self, momentum: f64, relaxation: f64) -> Result<()> {
        let Some(mut before) = self.plain.take() else {
            return Err(Error::Setting("extrapolated without a plain result before".into()));
        };
        let parts = self.factors.iter_mut().zip(&mut before).zip(&self.origin).zip(&self.rules);
        for (((factor, before), origin), _) in parts.filter(|(_, rule)| !rule.fixed) {
            let weights = [momentum, relaxation];
            match self.exact {
                Some(_) => quadratic::extrapolate(factor, before, origin, weights),
                None => update::extrapolate(factor, before, origin, weights),
            }
        }
        self.plain = Some(before);
        for l in 0..self.factors.len() {
            self.raise(l);
        }
        self.origin.clone_from(&self.factors);
        Ok(())
    }

    fn copy(&mut self, from: FactorSlot, to: FactorSlot) -> Result<()> {
        match (from, to) {
            (FactorSlot::Current, FactorSlot::Anchor) => {
                self.plain = Some(self.factors.clone());
                self.origin.clone_from(&self.factors);
            }
            (FactorSlot::Anchor, FactorSlot::Current) => {
                let Some(plain) = &self.plain else {
                    return Err(Error::Internal("the extrapolation anchor was never set".into()));
                };
                self.factors.clone_from(plain);
                self.origin.clone_from(&self.factors);
            }
            (FactorSlot::Current, FactorSlot::Snapshot) => {
                self.remembered = Some(self.factors.clone());
            }
            (FactorSlot::Snapshot, FactorSlot::Current) => {
                if let Some(factors) = &self.remembered {
                    self.factors.clone_from(factors);
                }
            }
            _ => return Err(Error::Internal(format!("no factors go from {from:?} to {to:?}"))),
        }
        Ok(())
    }

    fn state(&self) -> Result<EngineState> {
        Ok(EngineState {
            scales: self.scales(),
            factors: self.factors.clone(),
            plain: self.plain.clone(),
            origin: self.plain.as_ref().map(|_| self.origin.clone()),
            snapshot: self.remembered.clone(),
        })
    }

    fn restore(&mut self, state: &EngineState) -> Result<()> {
        let sizes: Vec<usize> = self.factors.iter().map(Vec::len).collect();
        state.check(&self.scales(), &sizes)?;
        self.factors.clone_from(&state.factors);
        self.plain.clone_from(&state.plain);
        self.origin.clone_from(state.origin.as_ref().unwrap_or(&state.factors));
        self.remembered.clone_from(&state.snapshot);
        self.last = None;
        Ok(())
    }
}
