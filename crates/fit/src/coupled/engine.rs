//! Several tensors that share factors, each on an engine of its own; or one tensor whose factors are
//! tied, smooth, or have rows that add up to 1.
//!
//! Numerators, denominators and losses of a shared factor add up over the tensors, weighted, and over
//! the places that it has in the model of each: every engine says what its tensor has to say about a
//! factor ([`Engine::parts`]), the step is made here, and all engines get the factors that came of it.

use ndarray::ArrayD;

use nneinfact_core::algebra::balance::{Idle, penalty, rescale};
use nneinfact_core::algebra::quadratic;
use nneinfact_core::algebra::update::{apply_floor, extrapolate, overflowed};
use nneinfact_core::engine::{
    Constraint, Engine, EngineState, Extrapolation, LossSlot, LossSums, Point,
};
use nneinfact_core::error::{Error, Result};
use nneinfact_core::loss::{Loss, Majorizer};
use nneinfact_core::model::Shapes;
use nneinfact_core::plan::Balancing;

use super::member::Member;
use super::step::{LossTerm, Step, Terms};
use crate::structure::Structure;

/// What the places of a factor in the model of a tensor say of each entry together, and how many they
/// are.
struct Told {
    a: Vec<f64>,
    b: Vec<f64>,
    places: usize,
}

/// What the tensors of a fit have in common.
pub(crate) struct Joint {
    /// All factors with the sizes of all indices.
    pub shapes: Shapes,
    /// The groups of all factors: of those that are the same the first one, in a group of its own.
    pub groups: Vec<Vec<usize>>,
    pub constraints: Vec<Constraint>,
    pub structure: Structure,
    pub balancing: Option<Balancing>,
    /// Of factors, relative to their largest entry.
    pub floor: f64,
    /// How often the factors of a group are cycled over after a pass.
    pub cycles: usize,
    /// Whether the losses at the last pass of a sweep are wanted too.
    pub guarded: bool,
}

/// A fit to several tensors.
pub(crate) struct CoupledEngine {
    members: Vec<Member>,
    joint: Joint,
    /// What the last pass told of a factor with several places, for each tensor.
    told: Vec<Option<Told>>,
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

/// The least floor of a factor: passes may be in single precision.
const LEAST: f64 = 1e-37;
/// How often a step whose surrogate is no bound is halved, at most.
const HALVINGS: usize = 40;

impl CoupledEngine {
    pub fn new(members: Vec<Member>, joint: Joint, start: &[ArrayD<f64>]) -> Result<CoupledEngine> {
        let mut engine = CoupledEngine {
            told: members.iter().map(|_| None).collect(),
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

    /// Whether the tensor's engine lowers what it says of a group exactly, with all that holds for its factors.
    fn steps_exactly(&self, group: usize) -> bool {
        let structure = &self.joint.structure;
        self.is_exact() && self.joint.groups[group].iter().all(|&l| structure.steps_exactly(l))
    }

    /// Whether a factor is in a group whose steps are exact.
    fn is_stepped_exactly(&self, l: usize) -> bool {
        let groups = &self.joint.groups;
        (0..groups.len()).any(|group| groups[group].contains(&l) && self.steps_exactly(group))
    }

    /// Brings the entries of a factor between its bounds and above its floor. Entries that coordinate descent
    /// brings to 0 leave it by themselves: they have none.
    fn apply_floor(&mut self, l: usize) {
        let floors = match self.is_stepped_exactly(l) {
            true => [0.0; 2],
            false => [self.joint.floor, LEAST],
        };
        if !self.joint.constraints[l].fixed {
            let [floor, least] = floors;
            apply_floor(&mut self.factors[l], floor, least, &self.joint.constraints[l]);
        }
    }

    /// Whether factors are rescaled among each other after every sweep.
    pub fn balances(&self) -> bool {
        self.joint.balancing.is_some()
    }

    /// Brings rows that add up to 1 back to that.
    fn normalize(&mut self) {
        for (simplex, factor) in self.joint.structure.simplex.iter().zip(&mut self.factors) {
            if let Some(simplex) = simplex {
                simplex.normalize(factor);
            }
        }
    }

    /// Makes the factors the same that are tied, and gives the engines the factors as they are here.
    fn share(&mut self) -> Result<()> {
        for (l, &first) in self.joint.structure.ties.iter().enumerate() {
            if first != l {
                self.factors[l] = self.factors[first].clone();
            }
        }
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

    /// The penalties at the factors as they are.
    fn penalty(&self) -> f64 {
        let Joint { constraints, structure, .. } = &self.joint;
        penalty(&self.factors, constraints) + structure.penalty(&self.factors)
    }

    /// Adds up the losses of all tensors, `slot` being where those with a pass have theirs.
    fn add_up(&mut self, slot: LossSlot, passed: impl Fn(&Member) -> bool) -> Result<()> {
        let mut total = LossSums { penalty: self.penalty(), ..LossSums::default() };
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

    /// What the tensors, and the neighbours in `theta`, say about every entry of factor `l`, given the
    /// factors of change of the group.
    fn terms(
        &mut self,
        group: usize,
        l: usize,
        lambda: &[Vec<f64>],
        theta: &[f64],
    ) -> Result<Terms> {
        let members = &self.joint.groups[group];
        let ties = &self.joint.structure.ties;
        let mut losses = Vec::new();
        for (member, told) in self.members.iter_mut().zip(&self.told) {
            let Told { mut a, mut b, places } = match (told, &member.groups[group][..]) {
                (_, []) => continue,
                (Some(told), _) => Told { a: told.a.clone(), b: told.b.clone(), ..*told },
                (None, &[own, ..]) => {
                    let own = &member.own[own];
                    let first = |&m: &usize| ties[member.factors[m]];
                    let Some(at) = own.iter().position(|m| first(m) == l) else { continue };
                    let changes: Vec<Vec<f64>> = own
                        .iter()
                        .filter_map(|m| members.iter().position(|&x| x == first(m)))
                        .map(|i| lambda[i].clone())
                        .collect();
                    let (a, b) = member.engine.parts(at, &changes)?;
                    Told { a, b, places: 1 }
                }
            };
            let curvature = member.loss.curvature_constant();
            let falling = curvature < 0.0;
            let majorizer = member.loss.majorizer().tied(places, falling);
            let scale = curvature.abs() * member.weight;
            // The curvature of a logarithm in so many places.
            let below = if majorizer == Majorizer::Log { scale * places as f64 } else { scale };
            a.iter_mut().for_each(|a| *a *= scale);
            b.iter_mut().for_each(|b| *b *= below);
            losses.push(LossTerm { majorizer, falling, a, b });
        }
        let rough = match &self.joint.structure.roughness[l] {
            Some(roughness) => roughness.differences().parts(theta),
            None => Vec::new(),
        };
        Ok(Terms { losses, rough })
    }

    /// The update of a group by the tensor's own engine, which lowers it as far as it goes.
    fn lower(&mut self, group: usize) -> Result<()> {
        let members = self.joint.groups[group].clone();
        let member = self.only()?;
        let [own] = member.groups[group][..] else {
            return Err(Error::Internal("an exact step of a factor in several places".into()));
        };
        member.engine.update(own)?;
        let (found, places) = (member.engine.factors()?, member.factors.clone());
        for (&l, factor) in places.iter().zip(found).filter(|(l, _)| members.contains(l)) {
            self.factors[l] = factor.into_iter().collect();
        }
        Ok(())
    }

    /// Whether the surrogate of a group's step is no bound: of a logarithm in several places.
    fn is_unbounded(&self) -> bool {
        let mut told = self.members.iter().zip(&self.told);
        told.any(|(member, told)| told.is_some() && member.loss.majorizer() == Majorizer::Log)
    }

    /// What is lowered, at the factors as they are, which the engines have.
    fn objective(&mut self) -> Result<f64> {
        let mut objective = self.penalty();
        for member in &mut self.members {
            member.engine.evaluate()?;
            let sums = member.engine.sums()?[LossSlot::Start as usize];
            objective += member.weight * sums.train;
        }
        Ok(objective)
    }

    /// Goes back towards `before`, the entries of factor `l`, until what is lowered is not above what it
    /// was there: the way from there is one down, if not so far.
    fn shorten(&mut self, l: usize, before: &[f64]) -> Result<()> {
        let goal = std::mem::replace(&mut self.factors[l], before.to_vec());
        self.share()?;
        let bound = self.objective()?;
        let mut part = 1.0;
        for _ in 0..HALVINGS {
            let between = |(&from, &to): (&f64, &f64)| from + part * (to - from);
            self.factors[l] = before.iter().zip(&goal).map(between).collect();
            self.apply_floor(l);
            self.share()?;
            if self.objective()? <= bound {
                return Ok(());
            }
            part *= 0.5;
        }
        self.factors[l] = before.to_vec();
        self.share()
    }

    /// The tensor, where there is but one.
    fn only(&mut self) -> Result<&mut Member> {
        match &mut self.members[..] {
            [member] => Ok(member),
            _ => Err(Error::Internal("a fit to several tensors is no part of another".into())),
        }
    }
}

impl Engine for CoupledEngine {
    fn pass(&mut self, group: usize) -> Result<()> {
        let Some(joint) = self.joint.groups.get(group) else {
            return Err(Error::Internal(format!("there is no group {group}")));
        };
        let ones = vec![vec![1.0; joint.first().map_or(0, |&l| self.factors[l].len())]];
        for (member, told) in self.members.iter_mut().zip(&mut self.told) {
            *told = None;
            let own = member.groups[group].clone();
            for &place in &own {
                member.engine.pass(place)?;
                if own.len() > 1 {
                    let (a, b) = member.engine.parts(0, &ones)?;
                    match told {
                        Some(told) => {
                            told.a.iter_mut().zip(a).for_each(|(sum, x)| *sum += x);
                            told.b.iter_mut().zip(b).for_each(|(sum, x)| *sum += x);
                        }
                        None => *told = Some(Told { a, b, places: own.len() }),
                    }
                }
            }
        }
        // Tensors without a factor in the group have a loss too.
        let last = self.joint.groups.len() - 1;
        if group == 0 {
            self.add_up(LossSlot::Start, |member| member.groups[0].first() == Some(&0))?;
        } else if group == last && self.joint.guarded {
            self.add_up(LossSlot::Middle, |member| member.ends_with(last))?;
        }
        self.last = Some(group);
        Ok(())
    }

    fn update(&mut self, group: usize) -> Result<()> {
        if self.last.take() != Some(group) {
            return Err(Error::Internal(format!("group {group} is updated without a pass")));
        }
        if self.steps_exactly(group) {
            return self.lower(group);
        }
        let exact = self.is_exact();
        let members = self.joint.groups[group].clone();
        let mut lambda: Vec<Vec<f64>> =
            members.iter().map(|&l| vec![1.0; self.factors[l].len()]).collect();
        let cycles = if members.len() == 1 { 1 } else { self.joint.cycles };
        for _ in 0..cycles {
            for (at, &l) in members.iter().enumerate() {
                // What an exact engine says holds at the factors as they are by now.
                let mut from = self.factors[l].clone();
                if exact {
                    from.iter_mut().zip(&lambda[at]).for_each(|(x, change)| *x *= change);
                }
                let terms = self.terms(group, l, &lambda, &from)?;
                let step = Step {
                    constraint: self.joint.constraints[l],
                    single: members.len() == 1,
                    simplex: self.joint.structure.simplex[l].as_ref(),
                };
                let changes = step.changes(&from, &terms);
                match exact {
                    true => lambda[at].iter_mut().zip(changes).for_each(|(x, more)| *x *= more),
                    false => lambda[at] = changes,
                }
            }
        }
        let before = match members[..] {
            [l] if self.is_unbounded() => Some((l, self.factors[l].clone())),
            _ => None,
        };
        for (lambda, &l) in lambda.iter().zip(&members) {
            let changed: Vec<f64> =
                self.factors[l].iter().zip(lambda).map(|(x, change)| x * change).collect();
            if let Some(entry) = changed.iter().position(|x| !x.is_finite()) {
                return Err(overflowed(&self.joint.shapes, l, entry));
            }
            self.factors[l] = changed;
            self.apply_floor(l);
        }
        match before {
            Some((l, before)) => self.shorten(l, &before),
            None => self.share(),
        }
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

    fn extrapolate(&mut self, by: Extrapolation) -> Result<()> {
        if self.anchor.is_empty() {
            return Err(Error::Internal("extrapolated without an anchor".into()));
        }
        for l in (0..self.factors.len()).filter(|&l| !self.joint.constraints[l].fixed) {
            let exact = self.is_stepped_exactly(l);
            let (factor, before) = (&mut self.factors[l], &mut self.anchor[l]);
            match exact {
                true => quadratic::extrapolate(factor, before, &self.origin[l], by),
                false => extrapolate(factor, before, &self.origin[l], by),
            }
        }
        (0..self.factors.len()).for_each(|l| self.apply_floor(l));
        self.normalize();
        self.share()?;
        self.origin.clone_from(&self.factors);
        Ok(())
    }

    fn balance(&mut self) -> Result<()> {
        let Some(balancing) = self.joint.balancing.clone() else { return Ok(()) };
        let floors = if self.is_exact() { [0.0; 2] } else { [self.joint.floor, LEAST] };
        let idle = Idle::of(self.is_exact());
        let Joint { shapes, constraints, .. } = &self.joint;
        rescale(shapes, &balancing, constraints, &mut self.factors, floors, idle);
        self.share()
    }

    fn scale_terms(&mut self) -> Result<[f64; 2]> {
        self.only()?.engine.scale_terms()
    }

    /// With what smooth modes say, and along rows that add up to 1.
    fn parts(&mut self, at: usize, lambda: &[Vec<f64>]) -> Result<(Vec<f64>, Vec<f64>)> {
        let Some(group) = self.last else {
            return Err(Error::Internal("no pass has left numerators and denominators".into()));
        };
        // Of several tensors the sum, of which each has its own constant in it already.
        let (curvature, logarithmic) = match &self.members[..] {
            [member] => {
                let loss = &member.loss;
                (loss.curvature_constant(), loss.majorizer() == Majorizer::Log)
            }
            _ => (1.0, false),
        };
        let l = self.joint.groups[group][at];
        // What falls and what rises in the derivative, and the curvature of a logarithm.
        let count = self.factors[l].len();
        let [mut fall, mut rise, mut curved] = [(); 3].map(|()| vec![0.0; count]);
        let theta = self.factors[l].clone();
        let terms = self.terms(group, l, lambda, &theta)?;
        for i in 0..count {
            if let Some([falls, rises]) = terms.rough.get(i) {
                fall[i] += falls;
                rise[i] += rises;
            }
            for share in terms.shares(i) {
                let [a, b] = if share.falling { [share.b, share.a] } else { [share.a, share.b] };
                fall[i] += a;
                match share.majorizer {
                    Majorizer::Log => curved[i] += b,
                    Majorizer::Power { .. } => rise[i] += b,
                }
            }
        }
        if let Some(simplex) = &self.joint.structure.simplex[l] {
            let penalty = self.joint.constraints[l].penalty;
            let derivative = |i: usize| {
                rise[i] - fall[i] + penalty.map_or(0.0, |penalty| penalty.derivative(theta[i]))
            };
            let derivatives: Vec<f64> = (0..theta.len()).map(derivative).collect();
            for (i, nu) in simplex.multipliers(&theta, &derivatives).into_iter().enumerate() {
                if nu > 0.0 { rise[i] += nu } else { fall[i] -= nu }
            }
        }
        if logarithmic {
            // Its derivative is all in a.
            fall.iter_mut().zip(&rise).for_each(|(fall, rise)| *fall -= rise);
            rise.iter_mut().zip(&curved).for_each(|(rise, curved)| *rise += curved);
        } else {
            // What is in both is in neither, but tells of the scale.
            fall.iter_mut().zip(&curved).for_each(|(fall, curved)| *fall += curved);
            rise.iter_mut().zip(&curved).for_each(|(rise, curved)| *rise += curved);
        }
        let divided = |sums: Vec<f64>| -> Vec<f64> {
            sums.into_iter().map(|x| x / curvature.abs()).collect()
        };
        let (fall, rise) = (divided(fall), divided(rise));
        Ok(if curvature < 0.0 && !logarithmic { (rise, fall) } else { (fall, rise) })
    }

    fn load(&mut self, factors: &[ArrayD<f64>]) -> Result<()> {
        self.factors = factors.iter().map(|f| f.iter().copied().collect()).collect();
        self.last = None;
        (0..self.factors.len()).for_each(|l| self.apply_floor(l));
        self.share()
    }

    fn state(&self) -> Result<EngineState> {
        let anchored = !self.anchor.is_empty();
        Ok(EngineState {
            // The factors are in the user's units.
            scales: vec![1.0; self.factors.len()],
            factors: self.factors.clone(),
            anchor: anchored.then(|| self.anchor.clone()),
            origin: anchored.then(|| self.origin.clone()),
            snapshot: self.snapshot.clone(),
        })
    }

    fn restore(&mut self, state: &EngineState) -> Result<()> {
        let sizes: Vec<usize> = self.factors.iter().map(Vec::len).collect();
        state.check(&vec![1.0; sizes.len()], &sizes)?;
        self.factors.clone_from(&state.factors);
        self.anchor = state.anchor.clone().unwrap_or_default();
        self.origin = state.origin.clone().unwrap_or_else(|| state.factors.clone());
        self.snapshot.clone_from(&state.snapshot);
        self.last = None;
        self.share()
    }

    /// Of one tensor: what several say of a factor is no form of one engine.
    fn is_exact(&self) -> bool {
        matches!(&self.members[..], [member] if member.engine.is_exact())
    }

    fn agree(&mut self, own: Result<u64>) -> Result<u64> {
        match &mut self.members[..] {
            [member] => member.engine.agree(own),
            _ => own,
        }
    }

    fn device_memory(&self) -> Option<u64> {
        let all: Vec<u64> = self.members.iter().filter_map(|m| m.engine.device_memory()).collect();
        (!all.is_empty()).then(|| all.iter().sum())
    }
}
