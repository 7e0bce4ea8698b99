//! What fits have in common that differ in the seeds of their starts only.

use std::sync::Arc;

use ndarray::ArrayD;

use crate::concurrent;
use crate::constraints::Constraints;
use crate::device::Device;
use crate::monitor::Portions;
use crate::observe::Cancel;
use crate::prepare::{Checked, Given, Opened, Starts, idle_cycles, job, plan, try_out};
use crate::settings::{Balance, Settings, Start};
use nneinfact_core::data::{Prepared, StoredEntries};
use nneinfact_core::engine::{Engine, Precision};
use nneinfact_core::error::Result;
use nneinfact_core::loss::Loss;
use nneinfact_core::model::Shapes;
use nneinfact_core::plan::Plan;

/// What fits have in common that differ in the seeds of their starts only.
pub(crate) struct Common {
    pub shapes: Shapes,
    loss: Loss,
    constraints: Constraints,
    wanted: Start,
    /// Whether a start is brought to the scale of least penalised objective.
    rescales: bool,
    precision: Precision,
    plan: Arc<Plan>,
    data: Arc<Prepared>,
    /// The stored entries, where starts are made from them after the first.
    sparse: Option<StoredEntries>,
    balance: bool,
    exact: bool,
}

/// A start that the engine has.
pub(crate) struct Begun {
    seed: u64,
    factors: Vec<ArrayD<f64>>,
    warning: Option<String>,
}

impl Common {
    /// Takes the start out of the settings, and opens an engine with the first one, which is given too;
    /// `more` are to be made later.
    pub fn open(
        settings: &mut Settings,
        checked: Checked,
        more: bool,
        device: &Device,
    ) -> Result<(Common, Box<dyn Engine>, Vec<ArrayD<f64>>)> {
        let Checked { shapes, constraints, planned, .. } = checked;
        let wanted = std::mem::take(&mut settings.start);
        let rescales =
            settings.balance.unwrap_or_default() != Balance::Never && constraints.is_penalized();
        let loss = settings.loss.clone();
        let starts = Starts {
            shapes: &shapes,
            loss: &loss,
            constraints: &constraints,
            wanted: &wanted,
            rescales,
        };
        let first = starts.make(settings.seed, &planned.data, planned.sparse.as_ref())?;
        // Other starts may need the stored entries that the engine takes.
        let sparse = planned.sparse.clone().filter(|_| more);
        let (job, data) = job(settings, planned, constraints.clone(), first.clone())?;
        let (plan, balance) = (Arc::clone(&job.plan), job.balancing.is_some());
        let exact = job.exact && device.kind_name() == "cpu";
        let engine = device.open(job, settings.precision)?;
        let precision = settings.precision;
        let common = Common {
            shapes,
            loss,
            constraints,
            wanted,
            rescales,
            precision,
            plan,
            data,
            sparse,
            balance,
            exact,
        };
        Ok((common, engine, first))
    }

    /// A fit of which others with other starts may follow, and an engine that they have in common.
    pub fn of(
        settings: &mut Settings,
        data: &Prepared,
        device: &Device,
    ) -> Result<(Common, Box<dyn Engine>)> {
        let checked = plan(settings, Given::Prepared(data), device)?;
        let (common, engine, _) = Common::open(settings, checked, true, device)?;
        Ok((common, engine))
    }

    /// The plan of the passes.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    fn starts(&self) -> Starts<'_> {
        let Common { shapes, loss, constraints, wanted, rescales, .. } = self;
        Starts { shapes, loss, constraints, wanted, rescales: *rescales }
    }

    /// The start of a seed.
    pub fn make(&self, seed: u64) -> Result<Vec<ArrayD<f64>>> {
        self.starts().make(seed, &self.data, self.sparse.as_ref())
    }

    /// Brings the start of a seed, which the engine has, to its scale.
    pub fn begin(
        &self,
        seed: u64,
        engine: &mut dyn Engine,
        mut factors: Vec<ArrayD<f64>>,
    ) -> Result<Begun> {
        let groups = self.plan.groups().len();
        let warning = self.starts().rescale(engine, groups, &mut factors, self.precision)?;
        Ok(Begun { seed, factors, warning })
    }

    /// Of several starts the one that is best after a few sweeps, the first being the one that has begun.
    /// The engine is left at it.
    pub fn best(
        &self,
        settings: &Settings,
        cancel: &Cancel,
        device: &Device,
        engine: &mut dyn Engine,
        begun: Begun,
    ) -> Result<Begun> {
        // After the last seed comes 0.
        let seed = |n: usize| settings.seed.wrapping_add(n as u64);
        let groups = self.plan.groups().len();
        let portions = Portions::of(&self.data);
        let objective = |engine: &mut dyn Engine| {
            try_out(settings, cancel, engine, groups, portions, self.balance)
        };
        let again = |n: usize, engine: &mut dyn Engine| -> Result<Begun> {
            let next = self.make(seed(n))?;
            engine.load(&next)?;
            self.begin(seed(n), engine, next)
        };
        let workers = concurrent::workers(settings, device, &self.plan, settings.starts);
        let engines = concurrent::engines(&*engine, workers)?;
        if engines.is_empty() {
            let mut best = begun;
            let mut least = objective(&mut *engine)?;
            for n in 1..settings.starts {
                if cancel.is_cancelled() {
                    break;
                }
                let next = again(n, &mut *engine)?;
                let found = objective(&mut *engine)?;
                if found < least {
                    (least, best) = (found, next);
                }
            }
            engine.load(&best.factors)?;
            return Ok(best);
        }
        let found = concurrent::run(engines, settings.starts, |engine, n| -> Result<f64> {
            if cancel.is_cancelled() {
                return Ok(f64::INFINITY);
            }
            again(n, engine.as_mut())?;
            objective(engine.as_mut())
        })?;
        let found: Vec<f64> = found.into_iter().collect::<Result<_>>()?;
        let mut best = 0;
        for n in 1..found.len() {
            if found[n] < found[best] {
                best = n;
            }
        }
        // Starts are kept by nobody: there may be many, and large ones.
        let best = again(best, &mut *engine)?;
        engine.load(&best.factors)?;
        Ok(best)
    }

    /// The fit that begins there, without a checkpoint.
    pub fn opened(&self, settings: &Settings, engine: Box<dyn Engine>, begun: Begun) -> Opened {
        let constraints = &self.constraints;
        let mut warnings = constraints.warnings(&self.shapes);
        warnings.extend(constraints.dead(&self.shapes, &self.data));
        warnings.extend(idle_cycles(settings, &self.plan, self.exact));
        warnings.extend(begun.warning);
        Opened {
            engine,
            plan: Arc::clone(&self.plan),
            data: Arc::clone(&self.data),
            balance: self.balance,
            penalized: constraints.is_penalized(),
            constraints: constraints.each.clone(),
            seed: begun.seed,
            warnings,
            writer: None,
            resumed: None,
        }
    }
}
