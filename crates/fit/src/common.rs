//! What fits have in common that differ in the seeds of their starts only.

use std::sync::Arc;

use ndarray::ArrayD;

use crate::concurrent;
use crate::constraints::Constraints;
use crate::device::Device;
use crate::monitor::Portions;
use crate::observe::Cancel;
use crate::prepare::{Checked, DataFacts, Given, Opened, job, plan};
use crate::settings::{Balance, Settings, Start};
use crate::structured;
use crate::trial::{Chosen, Starts, Trial, idle_cycles, try_out, wanted_start};
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
    /// The factors of each group that has a pass and an update.
    groups: Vec<Vec<usize>>,
    data: Arc<Prepared>,
    /// The stored entries, where starts are made from them after the first.
    sparse: Option<StoredEntries>,
    balance: bool,
    exact: bool,
    /// Why steps are not exact, where they might be.
    not_exact: Option<String>,
}

/// With an engine, and the first start, which the engine has.
type OpenedWithFirst = (Common, Box<dyn Engine>, Vec<ArrayD<f64>>);

impl Common {
    /// Takes the start out of the settings, and opens an engine with the first one, which is given too;
    /// `more` are to be made later.
    pub fn open(
        settings: &mut Settings,
        cancel: &Cancel,
        checked: Checked,
        more: bool,
        device: &Device,
    ) -> Result<OpenedWithFirst> {
        let Checked { shapes, constraints, planned, .. } = checked;
        let wanted = wanted_start(settings)?;
        let rescales =
            settings.balance.unwrap_or_default() != Balance::Never && constraints.is_penalized();
        let (loss, precision) = (settings.loss.clone(), settings.precision);
        let starts = Starts {
            shapes: &shapes,
            loss: &loss,
            constraints: &constraints,
            wanted: &wanted,
            rescales,
            precision,
        };
        let first = starts.make(settings.seed, &planned.data, planned.sparse.as_ref(), cancel)?;
        // Other starts may need the stored entries that the engine takes.
        let sparse = planned.sparse.clone().filter(|_| more);
        let not_exact = planned.exact(settings).warning();
        let level = planned.data.level();
        let (job, data) = job(settings, planned, constraints.clone(), first.clone(), level)?;
        let (plan, balance) = (Arc::clone(&job.plan), job.balancing.is_some());
        let exact = job.exact;
        let groups = structured::groups(&job.plan, &constraints);
        let engine = structured::open(device, settings, job, &constraints)?;
        let common = Common {
            shapes,
            loss,
            constraints,
            wanted,
            rescales,
            precision,
            plan,
            groups,
            data,
            sparse,
            balance,
            exact,
            not_exact,
        };
        Ok((common, engine, first))
    }

    /// A fit of which others with other starts may follow, and an engine that they have in common.
    pub fn of(
        settings: &mut Settings,
        cancel: &Cancel,
        data: &Prepared,
        device: &Device,
    ) -> Result<(Common, Box<dyn Engine>)> {
        let checked = plan(settings, Given::Prepared(data), device)?;
        let (common, engine, _) = Common::open(settings, cancel, checked, true, device)?;
        Ok((common, engine))
    }

    /// The plan of the passes.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    fn starts(&self) -> Starts<'_> {
        Starts {
            shapes: &self.shapes,
            loss: &self.loss,
            constraints: &self.constraints,
            wanted: &self.wanted,
            rescales: self.rescales,
            precision: self.precision,
        }
    }

    /// The start of a seed.
    pub fn make(&self, seed: u64, cancel: &Cancel) -> Result<Vec<ArrayD<f64>>> {
        self.starts().make(seed, &self.data, self.sparse.as_ref(), cancel)
    }

    /// Brings the start of a seed, which the engine has, to its scale.
    pub fn begin(
        &self,
        seed: u64,
        engine: &mut dyn Engine,
        mut factors: Vec<ArrayD<f64>>,
    ) -> Result<Chosen> {
        let warning = self.starts().rescale(engine, self.groups.len(), &mut factors)?;
        Ok(Chosen { seed, warning })
    }

    /// Leaves the engine at the best of the starts that the settings ask for, after a few sweeps from each;
    /// the `first` one has been made, and the engine is at it.
    pub fn choose(
        &self,
        settings: &Settings,
        cancel: &Cancel,
        device: &Device,
        engine: &mut dyn Engine,
        first: Vec<ArrayD<f64>>,
    ) -> Result<Chosen> {
        let portions = Portions::of(&self.data);
        let trial = Trial { groups: self.groups.len(), portions, balance: self.balance };
        let engines = match settings.starts {
            0 | 1 => Vec::new(),
            starts => {
                let workers = concurrent::workers(settings, device, &self.plan, starts);
                concurrent::engines(&*engine, workers)?
            }
        };
        if engines.is_empty() {
            let make = |seed| self.make(seed, cancel);
            return self.starts().choose(settings, cancel, engine, trial, first, make);
        }
        // After the last seed comes 0.
        let seed = |n: usize| settings.seed.wrapping_add(n as u64);
        let begin = |n: usize, engine: &mut dyn Engine| -> Result<Chosen> {
            let next = self.make(seed(n), cancel)?;
            engine.load(&next)?;
            self.begin(seed(n), engine, next)
        };
        let found = concurrent::run(engines, settings.starts, |engine, n| -> Result<f64> {
            if cancel.is_cancelled() {
                return Ok(f64::INFINITY);
            }
            begin(n, engine.as_mut())?;
            try_out(settings, cancel, engine.as_mut(), trial)
        })?;
        let found: Vec<f64> = found.into_iter().collect::<Result<_>>()?;
        let mut best = 0;
        for n in 1..found.len() {
            if found[n] < found[best] {
                best = n;
            }
        }
        // Starts are kept by nobody: there may be many, and large ones.
        begin(best, engine)
    }

    /// The fit that begins there, without a checkpoint.
    pub fn opened(&self, settings: &Settings, engine: Box<dyn Engine>, chosen: Chosen) -> Opened {
        let constraints = &self.constraints;
        let mut warnings = constraints.warnings(&self.shapes);
        warnings.extend(constraints.dead(&self.shapes, &self.data));
        warnings.extend(idle_cycles(settings, &self.plan, self.exact));
        warnings.extend(self.not_exact.clone());
        warnings.extend(chosen.warning);
        Opened {
            engine,
            plan: Arc::clone(&self.plan),
            groups: self.groups.clone(),
            facts: DataFacts::of(Arc::clone(&self.data)),
            balance: self.balance,
            penalized: constraints.has_penalties(),
            constraints: constraints.each.clone(),
            seed: chosen.seed,
            warnings,
            writer: None,
            resumed: None,
            slabs: None,
        }
    }
}
