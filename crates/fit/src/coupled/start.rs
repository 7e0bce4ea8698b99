//! Where a coupled fit starts.

use std::time::Instant;

use ndarray::ArrayD;

use super::engine::CoupledEngine;
use super::plan::Ready;
use crate::constraints::Constraints;
use crate::factored::mean;
use crate::monitor::{Monitor, Portions};
use crate::observe::Hooks;
use crate::settings::{Balance, Settings, Start};
use crate::start::scale::Term;
use crate::start::{self, scale};
use crate::sweeps::sweeps;
use nneinfact_core::engine::{Engine, Precision};
use nneinfact_core::error::{Error, Result};
use nneinfact_core::model::Shapes;

/// What the ŷ of a tensor should have for a mean.
struct Goal {
    shapes: Shapes,
    mean: f64,
}

impl Goal {
    pub fn of(part: &Ready) -> Goal {
        let mean = start::mean_wanted(&part.settings.loss, &part.data);
        Goal { shapes: part.shapes.clone(), mean }
    }
}

/// The starts of a fit, one for each seed.
pub(super) struct CoupledStarts<'a> {
    shapes: &'a Shapes,
    constraints: &'a Constraints,
    places: &'a [Vec<usize>],
    goals: Vec<Goal>,
    wanted: Start,
    /// Whether penalised factors are balanced, and brought to the best scale.
    balances: bool,
    precision: Precision,
}

/// How starts are told apart.
pub(super) struct CoupledTrial<'a> {
    pub settings: &'a Settings,
    pub hooks: &'a Hooks,
    pub portions: Portions,
    /// Whether factors are rescaled among each other after every sweep.
    pub balanced: bool,
}

impl<'a> CoupledStarts<'a> {
    /// The start is taken out of the settings.
    pub fn new(
        settings: &mut Settings,
        shapes: &'a Shapes,
        constraints: &'a Constraints,
        places: &'a [Vec<usize>],
        ready: &[Ready],
    ) -> CoupledStarts<'a> {
        CoupledStarts {
            shapes,
            constraints,
            places,
            goals: ready.iter().map(Goal::of).collect(),
            wanted: std::mem::take(&mut settings.start),
            balances: settings.balance.unwrap_or_default() != Balance::Never,
            precision: settings.precision,
        }
    }

    /// The factors to start from. Random ones are scaled so that the mean of every ŷ suits its tensor, as
    /// far as that goes together.
    pub fn make(&self, seed: u64) -> Result<Vec<ArrayD<f64>>> {
        let CoupledStarts { shapes, constraints, .. } = *self;
        let (mut factors, made) = match &self.wanted {
            Start::Factors(factors) => (start::given(shapes, factors)?, false),
            Start::Random => (start::uniform(shapes, seed)?, true),
            Start::Gamma { .. } | Start::Svd | Start::Grown(_) => {
                return Err(Error::Unsupported(
                    "several tensors start from random or from given factors".into(),
                ));
            }
        };
        if made {
            constraints.tie(&mut factors);
        }
        constraints.apply(shapes, &mut factors, false)?;
        if made {
            // The scale of one tensor disturbs that of another one: after some rounds they agree.
            for _ in 0..ROUNDS {
                for (goal, own) in self.goals.iter().zip(self.places) {
                    let free: Vec<usize> =
                        own.iter().copied().filter(|&l| constraints.scales(l)).collect();
                    let parts: Vec<ArrayD<f64>> = own.iter().map(|&l| factors[l].clone()).collect();
                    let scale = (goal.mean / mean(&goal.shapes, &parts)?)
                        .powf(1.0 / free.len().max(1) as f64);
                    if scale > 0.0 && scale.is_finite() {
                        free.into_iter().for_each(|l| factors[l].mapv_inplace(|x| x * scale));
                        constraints.tie(&mut factors);
                    }
                }
            }
        }
        if self.balances && constraints.is_penalized() {
            scale::balance_start(shapes, constraints, &mut factors);
        }
        Ok(factors)
    }

    /// Brings a start, which the engine has, to the scale of least penalised objective of all tensors
    /// together; gives a warning where that would be zero.
    fn rescale(
        &self,
        engine: &mut CoupledEngine,
        start: &mut [ArrayD<f64>],
    ) -> Result<Option<String>> {
        if !(self.balances && self.constraints.is_penalized()) {
            return Ok(None);
        }
        let constraints = self.constraints;
        let scaled =
            |own: &Vec<usize>| own.iter().filter(|&&l| constraints.scales(l)).count() as f64;
        let scaled: Vec<f64> = self.places.iter().map(scaled).collect();
        scale::rescale(constraints, start, self.precision, |start| {
            engine.load(start)?;
            let told = engine.scale_parts()?.into_iter().zip(&scaled);
            let term = |((loss, weight, sums), &factors)| Term { loss, weight, sums, factors };
            Ok(told.map(term).collect())
        })
    }

    /// Leaves the engine at the best of the starts, of which `first` is the one of the first seed; gives its
    /// seed, and a warning.
    pub fn best(
        &self,
        engine: &mut CoupledEngine,
        first: &mut Vec<ArrayD<f64>>,
        groups: usize,
        trial: &CoupledTrial<'_>,
    ) -> Result<(u64, Option<String>)> {
        let settings = trial.settings;
        let mut warning = self.rescale(engine, first)?;
        let mut best = settings.seed;
        if settings.starts < 2 {
            return Ok((best, warning));
        }
        if matches!(self.wanted, Start::Factors(_)) {
            return Err(Error::Setting(format!(
                "{} starts were asked for, but the factors to start from are given: several starts are random ones",
                settings.starts
            )));
        }
        let mut least = trial.objective(engine, groups)?;
        for n in 1..settings.starts as u64 {
            if trial.hooks.cancel.is_cancelled() {
                break;
            }
            // After the last seed comes 0.
            let seed = settings.seed.wrapping_add(n);
            let mut next = self.make(seed)?;
            engine.load(&next)?;
            let told = self.rescale(engine, &mut next)?;
            let objective = trial.objective(engine, groups)?;
            if objective < least {
                (least, best, warning) = (objective, seed, told);
                *first = next;
            }
        }
        engine.load(first)?;
        Ok((best, warning))
    }
}

impl CoupledTrial<'_> {
    /// The objective after as many sweeps as it takes to tell starts apart.
    fn objective(&self, engine: &mut CoupledEngine, groups: usize) -> Result<f64> {
        let trial = Settings {
            max_iter: Settings::TRIAL_SWEEPS.min(self.settings.max_iter),
            tolerance: 0.0,
            eval_every: Settings::TRIAL_SWEEPS,
            ..self.settings.alike(self.settings.model.clone())
        };
        let mut hooks = Hooks { cancel: self.hooks.cancel.clone(), ..Hooks::default() };
        let mut history = trial.empty_history();
        let mut monitor =
            Monitor::new(&trial, &mut hooks, self.portions, Instant::now(), self.balanced, true);
        match sweeps(engine, groups, &mut monitor, &mut history, &mut None, None) {
            Ok(()) => Ok(history.objective().last().copied().unwrap_or(f64::INFINITY)),
            // Another start may go well.
            Err(Error::Numeric(_)) => Ok(f64::INFINITY),
            Err(error) => Err(error),
        }
    }
}

/// How often every tensor scales a start, one tensor after the other.
const ROUNDS: usize = 50;
