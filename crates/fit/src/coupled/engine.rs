//! Several tensors that share factors, each on an engine of its own.
//!
//! Numerators, denominators and losses of a shared factor add up over the tensors, weighted: each
//! engine says what its tensor has to say about a factor ([`Engine::parts`]), the step is made here,
//! and all engines get the factors that came of it.

use ndarray::ArrayD;

use nneinfact_core::algebra::balance::{penalty, rescale};
use nneinfact_core::algebra::update::{Bounded, apply_floor, extrapolate, overflowed};
use nneinfact_core::engine::{Constraint, Engine, EngineState, LossSlot, LossSums, Point};
use nneinfact_core::error::{Error, Result};
use nneinfact_core::loss::{Loss, Share};
use nneinfact_core::model::Shapes;
use nneinfact_core::plan::Balancing;

/// One of the tensors.
pub(super) struct Member {
    pub engine: Box<dyn Engine>,
    pub loss: Loss,
    pub weight: f64,
    /// The factors of its model among all factors.
    pub factors: Vec<usize>,
    /// For each group of all factors its own group of those that it has; `None` where it has none.
    pub groups: Vec<Option<usize>>,
    /// For each of its own groups its factors, counted in its own model.
    pub own: Vec<Vec<usize>>,
}

/// What the tensors of a fit have in common.
pub(super) struct Joint {
    /// All factors with the sizes of all indices.
    pub shapes: Shapes,
    /// The groups of all factors.
    pub groups: Vec<Vec<usize>>,
    pub constraints: Vec<Constraint>,
    pub balancing: Option<Balancing>,
    /// Of factors, relative to their largest entry.
    pub floor: f64,
    /// How often the factors of a group are cycled over after a pass.
    pub cycles: usize,
    /// Whether the losses at the last pass of a sweep are wanted too.
    pub guarded: bool,
}

/// A fit to several tensors.
pub(super) struct CoupledEngine {
    members: Vec<Member>,
    joint: Joint,
    factors: Vec<Vec<f64>>,
    /// The plain result of the last sweep; empty before it is set.
    anchor: Vec<Vec<f64>>,
    /// Where the last sweep began.
    origin: Vec<Vec<f64>>,
    snapshot: Option<Vec<Vec<f64>>>,
    /// The group of the last pass.
    last: Option<usize>,
    losses: [LossSums; LossSlot::COUNT],
}

/// Checkpoints are of fits to one tensor.
pub(super) fn unsaved() -> Error {
    Error::Unsupported(
        "a fit to several tensors cannot be saved and resumed: checkpoints are for fits to one"
            .into(),
    )
}

/// The least floor of a factor: passes may be in single precision.
const LEAST: f64 = 1e-37;

impl CoupledEngine {
    pub fn new(members: Vec<Member>, joint: Joint, start: &[ArrayD<f64>]) -> Result<CoupledEngine> {
        let mut engine = CoupledEngine {
            members,
            joint,
            factors: Vec::new(),
            anchor: Vec::new(),
            origin: Vec::new(),
            snapshot: None,
            last: None,
            losses: [LossSums::default(); LossSlot::COUNT],
        };
        engine.load(start)?;
        Ok(engine)
    }

    fn apply_floor(&mut self, l: usize) {
        if !self.joint.constraints[l].fixed {
            apply_floor(&mut self.factors[l], self.joint.floor, LEAST, &self.joint.constraints[l]);
        }
    }

    /// Gives the engines the factors as they are here.
    fn share(&mut self) -> Result<()> {
        let all = self.arrays()?;
        for member in &mut self.members {
            let own: Vec<ArrayD<f64>> = member.factors.iter().map(|&l| all[l].clone()).collect();
            member.engine.load(&own)?;
        }
        Ok(())
    }

    fn arrays(&self) -> Result<Vec<ArrayD<f64>>> {
        let one = |(l, data): (usize, &Vec<f64>)| {
            ArrayD::from_shape_vec(self.joint.shapes.factor(l), data.clone())
                .map_err(|e| Error::Internal(format!("factor {}: {e}", l + 1)))
        };
        self.factors.iter().enumerate().map(one).collect()
    }

    /// Adds up the losses of all tensors, `slot` being where those with a pass have theirs.
    fn add_up(&mut self, slot: LossSlot, passed: impl Fn(&Member) -> bool) -> Result<()> {
        let mut total = LossSums {
            penalty: penalty(&self.factors, &self.joint.constraints),
            ..LossSums::default()
        };
        for member in &mut self.members {
            let from = match passed(member) {
                true => slot,
                false => {
                    member.engine.evaluate()?;
                    LossSlot::Start
                }
            };
            let sums = member.engine.sums()?[from as usize];
            total.train += member.weight * sums.train;
            total.validation += member.weight * sums.validation;
            total.held_out += member.weight * sums.held_out;
        }
        self.losses[slot as usize] = total;
        Ok(())
    }

    /// The losses of each tensor at the factors as they are.
    pub fn evaluate_each(&mut self) -> Result<Vec<LossSums>> {
        let of = |member: &mut Member| {
            member.engine.evaluate()?;
            Ok(member.engine.sums()?[LossSlot::Start as usize])
        };
        self.members.iter_mut().map(of).collect()
    }

    /// For every tensor its loss, its weight, and Σ W a ŷ and Σ W b ŷ at the factors as they are.
    pub fn scale_parts(&mut self) -> Result<Vec<(Loss, f64, [f64; 2])>> {
        self.last = None;
        let of = |member: &mut Member| {
            member.engine.pass(0)?;
            member.engine.sums()?;
            Ok((member.loss.clone(), member.weight, member.engine.scale_terms()?))
        };
        self.members.iter_mut().map(of).collect()
    }

    /// What the tensors say about every entry of factor `l`, given the factors of change of the group.
    fn shares(&mut self, group: usize, l: usize, lambda: &[Vec<f64>]) -> Result<Vec<Vec<Share>>> {
        let members = &self.joint.groups[group];
        let mut shares = vec![Vec::new(); self.factors[l].len()];
        for member in &mut self.members {
            let Some(own) = member.groups[group] else { continue };
            let own = &member.own[own];
            let Some(at) = own.iter().position(|&m| member.factors[m] == l) else { continue };
            let changes: Vec<Vec<f64>> = own
                .iter()
                .filter_map(|&m| members.iter().position(|&x| x == member.factors[m]))
                .map(|i| lambda[i].clone())
                .collect();
            let (a, b) = member.engine.parts(at, &changes)?;
            let (majorizer, curvature) =
                (member.loss.majorizer(), member.loss.curvature_constant());
            let scale = curvature.abs() * member.weight;
            for (shares, (a, b)) in shares.iter_mut().zip(a.into_iter().zip(b)) {
                let (a, b) = (scale * a, scale * b);
                shares.push(Share { majorizer, falling: curvature < 0.0, a, b });
            }
        }
        Ok(shares)
    }
}

impl Engine for CoupledEngine {
    fn pass(&mut self, group: usize) -> Result<()> {
        for member in &mut self.members {
            if let Some(own) = member.groups[group] {
                member.engine.pass(own)?;
            }
        }
        // Tensors without a factor in the group have a loss too.
        let last = self.joint.groups.len() - 1;
        if group == 0 {
            self.add_up(LossSlot::Start, |member| member.groups[0] == Some(0))?;
        } else if group == last && self.joint.guarded {
            self.add_up(LossSlot::Middle, |member| {
                member.groups[last].is_some_and(|own| own + 1 == member.own.len() && own > 0)
            })?;
        }
        self.last = Some(group);
        Ok(())
    }

    fn update(&mut self, group: usize) -> Result<()> {
        if self.last.take() != Some(group) {
            return Err(Error::Internal(format!("group {group} is updated without a pass")));
        }
        let members = self.joint.groups[group].clone();
        let mut lambda: Vec<Vec<f64>> =
            members.iter().map(|&l| vec![1.0; self.factors[l].len()]).collect();
        let cycles = if members.len() == 1 { 1 } else { self.joint.cycles };
        for _ in 0..cycles {
            for (at, &l) in members.iter().enumerate() {
                let shares = self.shares(group, l, &lambda)?;
                let constraint = self.joint.constraints[l];
                let bounded = Bounded { single: members.len() == 1, constraint };
                let entries = self.factors[l].iter().zip(&shares);
                for (to, (&theta, shares)) in lambda[at].iter_mut().zip(entries) {
                    let (penalty_gradient, power) = match constraint.penalty {
                        Some(penalty) => (penalty.derivative(theta), penalty.power()),
                        None => (0.0, 1.0),
                    };
                    *to = bounded.change(theta, Share::joint_step(shares, penalty_gradient, power));
                }
            }
        }
        for (lambda, &l) in lambda.iter().zip(&members) {
            let changed: Vec<f64> =
                self.factors[l].iter().zip(lambda).map(|(x, change)| x * change).collect();
            if let Some(entry) = changed.iter().position(|x| !x.is_finite()) {
                return Err(overflowed(&self.joint.shapes, l, entry));
            }
            self.factors[l] = changed;
            self.apply_floor(l);
        }
        self.share()
    }

    fn evaluate(&mut self) -> Result<()> {
        self.add_up(LossSlot::Start, |_| false)
    }

    fn sums(&mut self) -> Result<[LossSums; LossSlot::COUNT]> {
        Ok(self.losses)
    }

    fn factors(&self) -> Result<Vec<ArrayD<f64>>> {
        self.arrays()
    }

    fn copy(&mut self, from: Point, to: Point) -> Result<()> {
        match (from, to) {
            (Point::Current, Point::Anchor) => {
                self.anchor.clone_from(&self.factors);
                self.origin.clone_from(&self.factors);
                Ok(())
            }
            (Point::Anchor, Point::Current) => {
                if self.anchor.is_empty() {
                    return Err(Error::Internal("there is no anchor to go back to".into()));
                }
                self.factors.clone_from(&self.anchor);
                self.origin.clone_from(&self.factors);
                self.share()
            }
            (Point::Current, Point::Snapshot) => {
                self.snapshot = Some(self.factors.clone());
                Ok(())
            }
            (Point::Snapshot, Point::Current) => match &self.snapshot {
                Some(snapshot) => {
                    self.factors.clone_from(snapshot);
                    self.share()
                }
                None => Ok(()),
            },
            (
                Point::Current | Point::Anchor | Point::Snapshot,
                Point::Current | Point::Anchor | Point::Snapshot,
            ) => Err(Error::Internal(format!("no factors go from {from:?} to {to:?}"))),
        }
    }

    fn extrapolate(&mut self, momentum: f64, relaxation: f64) -> Result<()> {
        if self.anchor.is_empty() {
            return Err(Error::Internal("extrapolated without an anchor".into()));
        }
        for l in (0..self.factors.len()).filter(|&l| !self.joint.constraints[l].fixed) {
            let weights = [momentum, relaxation];
            extrapolate(&mut self.factors[l], &mut self.anchor[l], &self.origin[l], weights);
        }
        (0..self.factors.len()).for_each(|l| self.apply_floor(l));
        self.origin.clone_from(&self.factors);
        self.share()
    }

    fn balance(&mut self) -> Result<()> {
        let Some(balancing) = self.joint.balancing.clone() else { return Ok(()) };
        let Joint { shapes, constraints, floor, .. } = &self.joint;
        rescale(shapes, &balancing, constraints, &mut self.factors, [*floor, LEAST]);
        self.share()
    }

    fn scale_terms(&mut self) -> Result<[f64; 2]> {
        Err(Error::Internal(
            "what several losses say of a common scale is not one pair of numbers".into(),
        ))
    }

    fn parts(&mut self, _: usize, _: &[Vec<f64>]) -> Result<(Vec<f64>, Vec<f64>)> {
        Err(Error::Internal("a fit to several tensors is no part of another".into()))
    }

    fn load(&mut self, factors: &[ArrayD<f64>]) -> Result<()> {
        self.factors = factors.iter().map(|f| f.iter().copied().collect()).collect();
        self.last = None;
        (0..self.factors.len()).for_each(|l| self.apply_floor(l));
        self.share()
    }

    fn state(&self) -> Result<EngineState> {
        Err(unsaved())
    }

    fn restore(&mut self, _: &EngineState) -> Result<()> {
        Err(unsaved())
    }
}
