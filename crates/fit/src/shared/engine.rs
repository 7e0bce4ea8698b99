//! A fit whose data are cut into slabs, each on an engine of its own, on one process or several.
//!
//! An engine says what its slab has to say about a factor ([`Engine::parts`]); that is added up over all
//! slabs in a fixed order, and every process makes the same step from the same sums. All factors are on
//! all processes. A factor with the mode that the data are cut along has rows of its own in every slab:
//! of those no sums are made, but each process steps its own and gets those of the others.

use std::ops::Range;
use std::sync::Arc;

use ndarray::{ArrayD, IxDyn};

use super::link::Link;
use super::rows::Rows;
use super::tree::Numbers;
use nneinfact_core::algebra::balance::{Idle, penalty, rescale};
use nneinfact_core::algebra::quadratic::{self, Objective, gram};
use nneinfact_core::algebra::rearrange;
use nneinfact_core::algebra::update::{self, Bounded, apply_floor, overflowed, step};
use nneinfact_core::engine::{
    Constraint, Engine, EngineState, Extrapolation, LossSlot, LossSums, Point, Precision,
};
use nneinfact_core::error::{Error, Result};
use nneinfact_core::loss::{Differences, Loss};
use nneinfact_core::plan::{Balancing, Plan, Quadratic};

/// What a slab says of the entries of a factor: parts of numerator and denominator.
type Parts = (Vec<f64>, Vec<f64>);

/// A slab of this process.
pub(super) struct Slab {
    /// `None` where nothing is observed.
    pub engine: Option<Box<dyn Engine>>,
    /// Its indices along the mode that the data are cut along.
    pub range: Range<usize>,
}

/// What the slabs have in common.
pub(super) struct SlabsInCommon {
    /// Of the whole data: its groups are those of the slabs' plans, and its sizes those of the factors.
    pub plan: Arc<Plan>,
    pub loss: Loss,
    /// The indices of every slab, also of other processes.
    pub ranges: Vec<Range<usize>>,
    /// The mode that the data are cut along.
    pub mode: usize,
    /// In the units of the factors here.
    pub constraints: Vec<Constraint>,
    pub balancing: Option<Balancing>,
    /// What each factor is multiplied with here and in the engines of slabs.
    pub scales: Vec<f64>,
    /// What the objective is divided by here.
    pub objective: f64,
    /// Of factors, relative to their largest entry.
    pub floor: f64,
    pub precision: Precision,
    /// How often the factors of a group are cycled over after a pass.
    pub cycles: usize,
    /// For each group, where the losses of its pass go.
    pub losses: Vec<Option<LossSlot>>,
    /// Where half the squared distance is lowered by exact steps, what they need; every group has one
    /// factor then.
    pub exact: Option<ExactSteps>,
    /// For each factor what differences between neighbouring entries cost, for exact steps: in the units of the
    /// factors here.
    pub differences: Vec<Option<Differences>>,
}

/// What exact steps under half the squared distance need.
#[derive(Clone)]
pub(super) struct ExactSteps {
    /// For each group.
    pub objectives: Vec<Quadratic>,
    /// Whether every row of a factor has a Q of its own, as entries differ in what they count: Q is then a
    /// sum over slabs, as the numerator is.
    pub by_rows: bool,
}

impl SlabsInCommon {
    /// The rows of factor `l`, where it has the mode that the data are cut along.
    fn rows(&self, l: usize) -> Option<Rows> {
        let shapes = self.plan.shapes();
        let cut = shapes.model().output()[self.mode];
        let axis = shapes.model().factors()[l].iter().position(|&index| index == cut)?;
        Some(Rows::new(&shapes.factor(l), axis))
    }

    fn members(&self, group: usize) -> &[usize] {
        &self.plan.groups()[group].factors
    }

    /// What entries of a factor are clamped to: as the engine of a CPU does.
    fn floors(&self) -> [f64; 2] {
        let least = match self.precision {
            Precision::F32 => 1e-37,
            Precision::F64 => 0.0,
        };
        if self.exact.is_some() { [0.0; 2] } else { [self.floor, least] }
    }
}

/// A fit on slabs.
pub(super) struct SharedEngine {
    link: Link,
    slabs: Vec<Slab>,
    common: SlabsInCommon,
    factors: Vec<Vec<f64>>,
    anchor: Option<Vec<Vec<f64>>>,
    origin: Vec<Vec<f64>>,
    snapshot: Option<Vec<Vec<f64>>>,
    /// Whether the slabs' engines have the factors as they are.
    loaded: bool,
    /// The group of the last pass.
    last: Option<usize>,
    losses: [LossSums; LossSlot::COUNT],
    /// The slots whose losses the engines of slabs have, and nobody added up.
    fresh: [bool; LossSlot::COUNT],
}

impl SharedEngine {
    pub fn new(
        link: Link,
        slabs: Vec<Slab>,
        common: SlabsInCommon,
        start: &[ArrayD<f64>],
    ) -> Result<SharedEngine> {
        let mut engine = SharedEngine {
            link,
            slabs,
            common,
            factors: Vec::new(),
            anchor: None,
            origin: Vec::new(),
            snapshot: None,
            loaded: false,
            last: None,
            losses: [LossSums::default(); LossSlot::COUNT],
            fresh: [false; LossSlot::COUNT],
        };
        engine.load(start)?;
        Ok(engine)
    }

    fn apply_floor(&mut self, l: usize) {
        let constraint = &self.common.constraints[l];
        if !constraint.fixed {
            let [floor, least] = self.common.floors();
            apply_floor(&mut self.factors[l], floor, least, constraint);
        }
    }

    /// Runs something on the engine of every slab of this process. What fails is told to all processes
    /// with the next numbers; the slab has none then.
    fn each<T>(
        &mut self,
        mut of: impl FnMut(&mut dyn Engine, &Range<usize>) -> Result<T>,
    ) -> Vec<Option<T>> {
        let Self { slabs, link, .. } = self;
        let one = |slab: &mut Slab| {
            let done = slab.engine.as_mut().map(|engine| of(engine.as_mut(), &slab.range));
            done.and_then(|done| link.hold(done))
        };
        slabs.iter_mut().map(one).collect()
    }

    /// Gives the engines of the slabs the factors as they are here, where they have others.
    fn share(&mut self) {
        if std::mem::replace(&mut self.loaded, true) {
            return;
        }
        let Self { slabs, link, common, factors, .. } = self;
        for Slab { engine, range } in slabs {
            let Some(engine) = engine else { continue };
            let done = slab_factors(common, factors, range).and_then(|own| engine.load(&own));
            link.hold(done);
        }
    }

    fn changed(&mut self) {
        self.loaded = false;
        self.last = None;
    }

    /// What all slabs say of every entry of the factor `at` of the last pass's group, in the units here;
    /// `lambda` has the factors of change of the group's factors.
    fn sums_of(&mut self, group: usize, at: usize, lambda: &[Vec<f64>]) -> Result<[Vec<f64>; 2]> {
        let l = self.common.members(group)[at];
        let rows = self.common.rows(l);
        let own = self.slab_parts(group, at, lambda);
        let own = own.into_iter().map(|own| own.map(|(a, b)| [a, b].concat())).collect();
        let size = self.factors[l].len();
        let (mut a, mut b) = match rows {
            None => {
                let mut a = self.link.sum(2 * size, own)?;
                let b = a.split_off(size);
                (a, b)
            }
            Some(rows) => {
                let ranges = &self.common.ranges;
                let entries: Vec<usize> = ranges.iter().map(|r| rows.entries(r.len())).collect();
                let counts: Vec<usize> = entries.iter().map(|n| 2 * n).collect();
                let all = self.link.join(&counts, own)?;
                let [mut a, mut b] = [Vec::with_capacity(size), Vec::with_capacity(size)];
                let mut rest = all.as_slice();
                for &n in &entries {
                    a.extend(&rest[..n]);
                    b.extend(&rest[n..2 * n]);
                    rest = &rest[2 * n..];
                }
                (rows.joined(&a, ranges), rows.joined(&b, ranges))
            }
        };
        let scale = self.common.objective * self.common.scales[l];
        a.iter_mut().chain(&mut b).for_each(|x| *x /= scale);
        Ok([a, b])
    }

    /// Q of every row of the factor that a group has, from all slabs, in the units here.
    fn grams_of(&mut self, group: usize) -> Result<Vec<f64>> {
        let l = self.common.members(group)[0];
        let SlabsInCommon { plan, mode, exact, .. } = &self.common;
        let Some(quadratic) = exact.as_ref().and_then(|exact| exact.objectives.get(group)) else {
            return Err(Error::Internal("quadratic forms without their plan".into()));
        };
        let (indices, cut) = (quadratic.gram.output(), plan.shapes().model().output()[*mode]);
        let sizes = quadratic.shapes.sizes(indices);
        let axis = indices.iter().position(|&index| index == cut);
        let own = self.each(|engine, _| engine.row_grams());
        let mut grams = match axis {
            None => self.link.sum(sizes.iter().product(), own)?,
            Some(axis) => {
                let (rows, ranges) = (Rows::new(&sizes, axis), &self.common.ranges);
                let counts: Vec<usize> = ranges.iter().map(|r| rows.entries(r.len())).collect();
                rows.joined(&self.link.join(&counts, own)?, ranges)
            }
        };
        let own = self.common.scales[l];
        let scale = 1.0 / (own * own * self.common.objective);
        grams.iter_mut().for_each(|x| *x *= scale);
        Ok(grams)
    }

    /// What each slab of this process says of a factor, in the user's units.
    fn slab_parts(&mut self, group: usize, at: usize, lambda: &[Vec<f64>]) -> Vec<Option<Parts>> {
        let members = self.common.members(group).to_vec();
        let rows: Vec<Option<Rows>> = members.iter().map(|&l| self.common.rows(l)).collect();
        self.each(|engine, range| {
            let own = |(lambda, rows): (&Vec<f64>, &Option<Rows>)| match rows {
                Some(rows) => rows.cut(lambda, range),
                None => lambda.clone(),
            };
            let own: Vec<Vec<f64>> = lambda.iter().zip(&rows).map(own).collect();
            engine.parts(at, &own)
        })
    }

    /// The factors of change of the factor `at` of a group, given those of the others.
    fn steps(&mut self, group: usize, at: usize, lambda: &[Vec<f64>]) -> Result<Vec<f64>> {
        let members = self.common.members(group);
        let (l, single) = (members[at], members.len() == 1);
        let constraint = self.common.constraints[l];
        let step = step(&self.common.loss, constraint);
        let bounded = Bounded { single, constraint };
        let change =
            |(&theta, (a, b)): (&f64, (f64, f64))| bounded.change(theta, step(theta, a, b));
        let Some(rows) = self.common.rows(l) else {
            let [a, b] = self.sums_of(group, at, lambda)?;
            return Ok(self.factors[l].iter().zip(a.into_iter().zip(b)).map(change).collect());
        };
        // Each process makes those of its own rows.
        let scale = self.common.objective * self.common.scales[l];
        let parts = self.slab_parts(group, at, lambda);
        let own = |(slab, parts): (&Slab, Option<Parts>)| -> Option<Numbers> {
            let theta = rows.cut(&self.factors[l], &slab.range);
            // Nothing is known of a slab that has no engine.
            let (a, b) = parts.unwrap_or_else(|| (vec![0.0; theta.len()], vec![0.0; theta.len()]));
            let parts = a.into_iter().zip(b).map(|(a, b)| (a / scale, b / scale));
            Some(theta.iter().zip(parts).map(change).collect())
        };
        let own: Vec<Option<Numbers>> = self.slabs.iter().zip(parts).map(own).collect();
        let ranges = &self.common.ranges;
        let counts: Vec<usize> = ranges.iter().map(|r| rows.entries(r.len())).collect();
        let all = self.link.join(&counts, own)?;
        Ok(rows.joined(&all, ranges))
    }

    /// The step of a group of one factor to the minimum of the exact objective.
    fn lower(&mut self, group: usize) -> Result<()> {
        let l = self.common.members(group)[0];
        let unchanged = vec![vec![1.0; self.factors[l].len()]];
        let [a, _] = self.sums_of(group, 0, &unchanged)?;
        let grams = match &self.common.exact {
            Some(ExactSteps { by_rows: true, .. }) => Some(self.grams_of(group)?),
            _ => None,
        };
        let Self { common, factors, .. } = self;
        let Some(quadratic) = common.exact.as_ref().and_then(|all| all.objectives.get(group))
        else {
            return Err(Error::Internal("an exact step without its objective".into()));
        };
        let grams = grams.unwrap_or_else(|| gram(quadratic, factors));
        let shapes = common.plan.shapes();
        // The sums of a group of one factor have its shape, in the order of the pass.
        let update = &common.plan.groups()[group];
        let order = update.updates[0].inputs()[0].clone();
        let numerator = rearrange(shapes, &shapes.model().factors()[l], &a, &order);
        let objective = Objective {
            shapes,
            group: update,
            quadratic,
            constraints: &common.constraints,
            numerator: &numerator,
            gram: &grams,
            differences: &common.differences,
        };
        let before = factors[l].clone();
        let lowered = objective.lower(factors);
        if lowered.is_err() {
            // The factor before a failed step is still good.
            factors[l] = before;
        }
        lowered
    }

    /// The step of a group by majorization.
    fn majorize(&mut self, group: usize) -> Result<()> {
        let members = self.common.members(group).to_vec();
        let mut lambda: Vec<Vec<f64>> =
            members.iter().map(|&l| vec![1.0; self.factors[l].len()]).collect();
        let cycles = if members.len() == 1 { 1 } else { self.common.cycles };
        for _ in 0..cycles {
            for at in 0..members.len() {
                lambda[at] = self.steps(group, at, &lambda)?;
            }
        }
        let change = |l: usize, lambda: &[f64]| -> Result<Vec<f64>> {
            let changed: Vec<f64> =
                self.factors[l].iter().zip(lambda).map(|(x, c)| x * c).collect();
            match changed.iter().position(|x| !x.is_finite()) {
                Some(entry) => Err(overflowed(self.common.plan.shapes(), l, entry)),
                None => Ok(changed),
            }
        };
        let changed: Result<Vec<Vec<f64>>> =
            members.iter().zip(&lambda).map(|(&l, lambda)| change(l, lambda)).collect();
        members.iter().zip(changed?).for_each(|(&l, changed)| self.factors[l] = changed);
        Ok(())
    }

    /// Notes that the engines have losses at the factors as they are.
    fn note(&mut self, slot: LossSlot) {
        let SlabsInCommon { constraints, objective, .. } = &self.common;
        let penalty = penalty(&self.factors, constraints) * objective;
        self.losses[slot as usize] = LossSums { penalty, ..LossSums::default() };
        self.fresh[slot as usize] = true;
    }
}

/// The factors of a slab, in the user's units.
fn slab_factors(
    common: &SlabsInCommon,
    factors: &[Vec<f64>],
    range: &Range<usize>,
) -> Result<Vec<ArrayD<f64>>> {
    let shapes = common.plan.shapes();
    let cut = shapes.model().output()[common.mode];
    let one = |(l, factor): (usize, &Vec<f64>)| {
        let mut own = match common.rows(l) {
            Some(rows) => rows.cut(factor, range),
            None => factor.clone(),
        };
        own.iter_mut().for_each(|x| *x /= common.scales[l]);
        let size = |&index| if index == cut { range.len() } else { shapes.size(index) };
        let shape: Vec<usize> = shapes.model().factors()[l].iter().map(size).collect();
        ArrayD::from_shape_vec(IxDyn(&shape), own)
            .map_err(|e| Error::Internal(format!("factor {}: {e}", l + 1)))
    };
    factors.iter().enumerate().map(one).collect()
}

/// That of arrays in the user's units, for a slab that is about to get its engine.
pub(super) fn start_of_slab(
    common: &SlabsInCommon,
    start: &[ArrayD<f64>],
    range: &Range<usize>,
) -> Result<Vec<ArrayD<f64>>> {
    let factors: Vec<Vec<f64>> = start
        .iter()
        .zip(&common.scales)
        .map(|(factor, scale)| factor.iter().map(|x| x * scale).collect())
        .collect();
    slab_factors(common, &factors, range)
}

impl Engine for SharedEngine {
    fn pass(&mut self, group: usize) -> Result<()> {
        self.share();
        self.each(|engine, _| engine.pass(group));
        if let Some(slot) = self.common.losses.get(group).copied().flatten() {
            self.note(slot);
        }
        self.last = Some(group);
        Ok(())
    }

    fn update(&mut self, group: usize) -> Result<()> {
        if self.last != Some(group) {
            return Err(Error::Internal(format!("group {group} is updated without a pass")));
        }
        match self.common.exact {
            Some(_) => self.lower(group)?,
            None => self.majorize(group)?,
        }
        for l in self.common.members(group).to_vec() {
            self.apply_floor(l);
        }
        self.changed();
        Ok(())
    }

    fn evaluate(&mut self) -> Result<()> {
        self.share();
        self.each(|engine, _| engine.evaluate());
        self.note(LossSlot::Start);
        Ok(())
    }

    fn sums(&mut self) -> Result<[LossSums; LossSlot::COUNT]> {
        if self.fresh.contains(&true) {
            let numbers = |sums: [LossSums; LossSlot::COUNT]| -> Numbers {
                sums.iter().flat_map(|sums| [sums.train, sums.validation, sums.held_out]).collect()
            };
            let own = self.each(|engine, _| engine.sums().map(numbers));
            let all = self.link.sum(3 * LossSlot::COUNT, own)?;
            for (slot, sums) in all.chunks_exact(3).enumerate() {
                if std::mem::take(&mut self.fresh[slot]) {
                    let penalty = self.losses[slot].penalty;
                    let [train, validation, held_out] = [sums[0], sums[1], sums[2]];
                    self.losses[slot] = LossSums { train, validation, held_out, penalty };
                }
            }
        }
        Ok(self.losses)
    }

    fn balance(&mut self) -> Result<()> {
        let Some(balancing) = &self.common.balancing else { return Ok(()) };
        let (shapes, floors) = (self.common.plan.shapes(), self.common.floors());
        let idle = Idle::of(self.common.exact.is_some());
        rescale(shapes, balancing, &self.common.constraints, &mut self.factors, floors, idle);
        self.changed();
        Ok(())
    }

    fn scale_terms(&mut self) -> Result<[f64; 2]> {
        if self.last.is_none() {
            return Err(Error::Internal("no pass has told about the scale of the data".into()));
        }
        let own = self.each(|engine, _| engine.scale_terms().map(Vec::from));
        let all = self.link.sum(2, own)?;
        Ok([all[0], all[1]])
    }

    fn parts(&mut self, at: usize, lambda: &[Vec<f64>]) -> Result<(Vec<f64>, Vec<f64>)> {
        let Some(group) = self.last else {
            return Err(Error::Internal("no pass has left numerators and denominators".into()));
        };
        let l = self.common.members(group)[at];
        let scale = self.common.objective * self.common.scales[l];
        let [a, b] = self.sums_of(group, at, lambda)?;
        let scaled = |sums: Vec<f64>| sums.into_iter().map(|x| x * scale).collect();
        Ok((scaled(a), scaled(b)))
    }

    fn row_grams(&mut self) -> Result<Vec<f64>> {
        let Some(group) = self.last else {
            return Err(Error::Internal("no pass has left quadratic forms".into()));
        };
        let own = self.common.scales[self.common.members(group)[0]];
        let scale = self.common.objective * (own * own);
        Ok(self.grams_of(group)?.into_iter().map(|x| x * scale).collect())
    }

    fn load(&mut self, factors: &[ArrayD<f64>]) -> Result<()> {
        let own =
            |(factor, scale): (&ArrayD<f64>, &f64)| factor.iter().map(|x| x * scale).collect();
        self.factors = factors.iter().zip(&self.common.scales).map(own).collect();
        self.changed();
        (0..self.factors.len()).for_each(|l| self.apply_floor(l));
        Ok(())
    }

    fn factors(&self) -> Result<Vec<ArrayD<f64>>> {
        let shapes = self.common.plan.shapes();
        let one = |(l, data): (usize, &Vec<f64>)| {
            let scale = self.common.scales[l];
            ArrayD::from_shape_vec(
                IxDyn(&shapes.factor(l)),
                data.iter().map(|x| x / scale).collect(),
            )
            .map_err(|e| Error::Internal(format!("factor {}: {e}", l + 1)))
        };
        self.factors.iter().enumerate().map(one).collect()
    }

    fn copy(&mut self, from: Point, to: Point) -> Result<()> {
        match (from, to) {
            (Point::Current, Point::Anchor) => {
                self.anchor = Some(self.factors.clone());
                self.origin.clone_from(&self.factors);
            }
            (Point::Anchor, Point::Current) => {
                match &self.anchor {
                    Some(anchor) => self.factors.clone_from(anchor),
                    None => return Err(Error::Internal("there is no anchor to go back to".into())),
                }
                self.origin.clone_from(&self.factors);
                self.changed();
            }
            (Point::Current, Point::Snapshot) => self.snapshot = Some(self.factors.clone()),
            (Point::Snapshot, Point::Current) => {
                if let Some(snapshot) = &self.snapshot {
                    self.factors.clone_from(snapshot);
                    self.changed();
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
        for l in (0..self.factors.len()).filter(|&l| !self.common.constraints[l].fixed) {
            let (factor, origin) = (&mut self.factors[l], &self.origin[l]);
            match self.common.exact {
                Some(_) => quadratic::extrapolate(factor, &mut before[l], origin, by),
                None => update::extrapolate(factor, &mut before[l], origin, by),
            }
        }
        self.anchor = Some(before);
        (0..self.factors.len()).for_each(|l| self.apply_floor(l));
        self.origin.clone_from(&self.factors);
        self.changed();
        Ok(())
    }

    fn state(&self) -> Result<EngineState> {
        Ok(EngineState {
            scales: self.common.scales.clone(),
            factors: self.factors.clone(),
            anchor: self.anchor.clone(),
            origin: self.anchor.as_ref().map(|_| self.origin.clone()),
            snapshot: self.snapshot.clone(),
        })
    }

    fn restore(&mut self, state: &EngineState) -> Result<()> {
        let sizes: Vec<usize> = self.factors.iter().map(Vec::len).collect();
        state.check(&self.common.scales, &sizes)?;
        self.factors.clone_from(&state.factors);
        self.anchor.clone_from(&state.anchor);
        self.origin.clone_from(state.origin.as_ref().unwrap_or(&state.factors));
        self.snapshot.clone_from(&state.snapshot);
        self.changed();
        Ok(())
    }

    fn is_exact(&self) -> bool {
        self.common.exact.is_some()
    }

    fn agree(&mut self, own: Result<u64>) -> Result<u64> {
        self.link.agree(own)
    }

    fn device_memory(&self) -> Option<u64> {
        let engines = self.slabs.iter().filter_map(|slab| slab.engine.as_ref());
        engines.filter_map(|engine| engine.device_memory()).reduce(|all, bytes| all + bytes)
    }
}
