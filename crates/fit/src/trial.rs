//! The starts of a fit, of which a few sweeps tell the best.

use ndarray::ArrayD;

use crate::constraints::Constraints;
use crate::monitor::{Monitor, Portions};
use crate::observe::{Cancel, Hooks, cancelled};
use crate::settings::{Settings, Start};
use crate::start::matrices::DataMatrices;
use crate::start::{self, Basis, Goal, SvdStart, scale};
use crate::sweeps::sweeps;
use nneinfact_core::data::{Prepared, StoredEntries};
use nneinfact_core::engine::{Engine, Precision};
use nneinfact_core::error::{Error, Result};
use nneinfact_core::loss::Loss;
use nneinfact_core::model::Shapes;
use nneinfact_core::plan::Plan;

/// That more than one cycle over the factors of a group was asked for, and does nothing.
pub(crate) fn idle_cycles(settings: &Settings, plan: &Plan, exact: bool) -> Option<String> {
    let why = match exact {
        true => "half the squared distance is lowered by exact steps here",
        false if plan.groups().iter().all(|group| group.factors.len() == 1) => {
            "every group has one factor here"
        }
        false => return None,
    };
    let cycles = settings.inner_cycles;
    (cycles > 1).then(|| format!("{cycles} inner cycles are as good as one: {why}"))
}

/// The starts of a fit, one for each seed.
pub(crate) struct Starts<'a> {
    pub shapes: &'a Shapes,
    pub loss: &'a Loss,
    pub constraints: &'a Constraints,
    pub wanted: &'a Start,
    /// Whether a start is brought to the scale of least penalised objective.
    pub rescales: bool,
    pub precision: Precision,
}

impl Starts<'_> {
    /// The start of a seed. It keeps to the constraints, and its penalised factors are balanced.
    pub fn make(
        &self,
        seed: u64,
        data: &Prepared,
        sparse: Option<&StoredEntries>,
        cancel: &Cancel,
    ) -> Result<Vec<ArrayD<f64>>> {
        let &Starts { shapes, loss, .. } = self;
        let basis = Basis { shapes, loss, data, sparse, seed, cancel };
        self.finished(start::make(self.wanted.clone(), &basis)?)
    }

    /// The same for data of which only this is known.
    pub fn make_without_data(&self, seed: u64, goal: Goal) -> Result<Vec<ArrayD<f64>>> {
        self.finished(start::make_without_data(self.wanted.clone(), self.shapes, goal, seed)?)
    }

    /// The same from singular vectors of data that are on several processes.
    pub fn make_of(
        &self,
        seed: u64,
        source: &impl DataMatrices,
        goal: Goal,
    ) -> Result<Vec<ArrayD<f64>>> {
        // No process makes less of it than the others.
        let wanted = SvdStart { shapes: self.shapes, seed, cancel: &Cancel::new() };
        self.finished(start::of_singular_vectors(source, goal, &wanted)?)
    }

    fn finished(&self, mut start: Vec<ArrayD<f64>>) -> Result<Vec<ArrayD<f64>>> {
        let &Starts { shapes, constraints, .. } = self;
        let made = !matches!(self.wanted, Start::Factors(_));
        constraints.apply(shapes, &mut start, made)?;
        if self.rescales {
            scale::balance_start(shapes, constraints, &mut start);
        }
        Ok(start)
    }

    /// Leaves the engine at the best of the starts that were asked for, which `make` makes for a seed: the
    /// `first` one has been made, and the engine is at it.
    pub fn choose(
        &self,
        settings: &Settings,
        cancel: &Cancel,
        engine: &mut dyn Engine,
        trial: Trial,
        mut first: Vec<ArrayD<f64>>,
        make: impl Fn(u64) -> Result<Vec<ArrayD<f64>>>,
    ) -> Result<Chosen> {
        let mut warning = self.rescale(engine, trial.groups, &mut first)?;
        let mut best = (settings.seed, first);
        if settings.starts > 1 {
            let mut least = try_out(settings, cancel, engine, trial)?;
            for n in 1..settings.starts as u64 {
                if cancelled(cancel, engine)? {
                    break;
                }
                // After the last seed comes 0.
                let seed = settings.seed.wrapping_add(n);
                let mut next = make(seed)?;
                engine.load(&next)?;
                let told = self.rescale(engine, trial.groups, &mut next)?;
                let objective = try_out(settings, cancel, engine, trial)?;
                if objective < least {
                    (least, best, warning) = (objective, (seed, next), told);
                }
            }
            engine.load(&best.1)?;
        }
        Ok(Chosen { seed: best.0, warning })
    }

    /// Brings a start that the engine has to the scale of least penalised objective; gives a warning
    /// where that would be zero.
    pub fn rescale(
        &self,
        engine: &mut dyn Engine,
        groups: usize,
        start: &mut [ArrayD<f64>],
    ) -> Result<Option<String>> {
        if !self.rescales || groups == 0 {
            return Ok(None);
        }
        let (loss, constraints) = (self.loss, self.constraints);
        scale::rescale(constraints, start, self.precision, |start| {
            scale::term(engine, loss, constraints, start)
        })
    }
}

/// What starts are tried out with.
#[derive(Clone, Copy)]
pub(crate) struct Trial {
    pub groups: usize,
    pub portions: Portions,
    /// Whether factors are rescaled among each other after every sweep.
    pub balance: bool,
}

/// The best of several starts.
pub(crate) struct Chosen {
    pub seed: u64,
    /// What the user should know of it.
    pub warning: Option<String>,
}

/// The start that the settings ask for, which is taken out of them.
pub(crate) fn wanted_start(settings: &mut Settings) -> Result<Start> {
    let wanted = std::mem::take(&mut settings.start);
    if settings.starts > 1 && matches!(wanted, Start::Factors(_)) {
        return Err(Error::Setting(format!(
            "{} starts were asked for, but the factors to start from are given: several starts are random ones",
            settings.starts
        )));
    }
    Ok(wanted)
}

/// Sweeps from the start that the engine has, as often as it takes to tell starts apart; returns the
/// objective then.
pub(crate) fn try_out(
    settings: &Settings,
    cancel: &Cancel,
    engine: &mut dyn Engine,
    with: Trial,
) -> Result<f64> {
    let Trial { groups, portions, balance } = with;
    let trial = Settings {
        max_iter: Settings::TRIAL_SWEEPS.min(settings.max_iter),
        tolerance: 0.0,
        eval_every: Settings::TRIAL_SWEEPS,
        ..settings.alike(settings.model.clone())
    };
    let mut hooks = Hooks { cancel: cancel.clone(), ..Hooks::default() };
    let mut history = trial.empty_history();
    let started = std::time::Instant::now();
    let mut monitor = Monitor::new(&trial, &mut hooks, portions, started, balance, true);
    match sweeps(engine, groups, &mut monitor, &mut history, &mut None, None) {
        Ok(()) => Ok(history.objective().last().copied().unwrap_or(f64::INFINITY)),
        // Another start may go well.
        Err(Error::Numeric(_)) => Ok(f64::INFINITY),
        Err(error) => Err(error),
    }
}
