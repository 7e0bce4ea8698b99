//! How many dispatches a sweep of a plan is on a GPU.

use std::sync::Arc;

use ndarray::ArrayD;

use crate::builder::NNEinFact;
use crate::closed_forms::Steps;
use crate::constraints::Constraints;
use crate::prepare::loss_slots;
use crate::settings::{Algorithm, Balance};
use crate::split_plan::{SplitPlan, Withholding};
use nneinfact_core::data::{CooTensor, Implicit, Observations, Prepared, StoredEntries};
use nneinfact_core::engine::{Guards, Job};
use nneinfact_core::error::Result;
use nneinfact_core::loss::Loss;
use nneinfact_core::plan::Plan;

impl NNEinFact {
    /// How many dispatches a sweep of a plan ([`plan`](Self::plan), [`sparse_plan`](Self::sparse_plan)) is on a
    /// GPU that can do what WebGPU guarantees: each takes some microseconds, however little there is to
    /// do. Over a list it is so many at least, as the sums of long rows are added up in steps. `None` where
    /// steps are made on the host: by Adam or with a barrier, or with structure within or among factors.
    ///
    /// ```
    /// use nneinfact::NNEinFact;
    ///
    /// let settings = NNEinFact::new("ir,jr->ij")?.ranks([('r', 10)]);
    /// let plan = settings.plan(&[400, 300], 4)?;
    /// assert!(settings.gpu_dispatches(&plan)?.is_some_and(|count| count < 20));
    /// # Ok::<(), nneinfact::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Memory`](nneinfact_core::error::Error::Memory) where a tensor is larger than what a shader may see,
    /// [`Error::Loss`](nneinfact_core::error::Error::Loss) where a constant of the loss is out of the range of single
    /// precision.
    pub fn gpu_dispatches(&self, plan: &Plan) -> Result<Option<usize>> {
        self.dispatches_of(plan, None)
    }

    /// The same where entries are withheld ([`split_plan`](Self::split_plan), [`strata_plan`](Self::strata_plan)):
    /// their sums take some more.
    ///
    /// ```
    /// use nneinfact::NNEinFact;
    ///
    /// let settings = NNEinFact::new("ir,jr->ij")?.ranks([('r', 10)]);
    /// let all = settings.gpu_dispatches(&settings.plan(&[400, 300], 4)?)?;
    /// let split = settings.gpu_dispatches_of_split(&settings.split_plan(&[400, 300], 4, None, 0.1)?)?;
    /// assert!(split > all);
    /// # Ok::<(), nneinfact::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`gpu_dispatches`](Self::gpu_dispatches).
    pub fn gpu_dispatches_of_split(&self, split: &SplitPlan) -> Result<Option<usize>> {
        self.dispatches_of(split.plan(), Some(split.withholding()))
    }

    fn dispatches_of(&self, plan: &Plan, withheld: Option<Withholding>) -> Result<Option<usize>> {
        let settings = &self.settings;
        let constraints = Constraints::new(settings, plan.shapes())?;
        let by_host = matches!(settings.algorithm, Algorithm::Adam | Algorithm::Barrier);
        if by_host || constraints.structure.is_any() {
            return Ok(None);
        }
        let (data, stored) = stand_in(plan, &settings.loss, withheld)?;
        let exact = match withheld {
            Some(withheld) => withheld.exact,
            None => Steps::new(settings, &constraints, false).exact,
        };
        let mut losses = vec![None; plan.groups().len()];
        loss_slots(settings, &mut losses);
        let balance = settings.balance.unwrap_or_default() == Balance::EverySweep;
        let job = Job {
            plan: Arc::new(plan.clone()),
            data: Arc::new(data),
            stored: stored.map(Arc::new),
            loss: settings.loss.clone(),
            losses,
            guards: Guards {
                prediction_floor: settings.prediction_floor.unwrap_or(0.0),
                factor_floor: settings.factor_floor,
                inner_cycles: settings.inner_cycles,
            },
            start: Vec::new(),
            scales: None,
            constraints: constraints.each,
            differences: Vec::new(),
            balancing: constraints.balancing.filter(|_| balance).map(Arc::new),
            exact,
            steps_elsewhere: false,
            unit: 1.0,
            value_scale: 1.0,
            sums_unit: 1.0,
        };
        nneinfact_gpu::dispatches(&job, withheld.map(|withheld| withheld.listed)).map(Some)
    }
}

/// Data in place of those that a plan is for: a program depends on them by their kind.
fn stand_in(
    plan: &Plan,
    loss: &Loss,
    withheld: Option<Withholding>,
) -> Result<(Prepared, Option<StoredEntries>)> {
    let shape = plan.shapes().data();
    let Some(withheld) = withheld else { return all_observed(plan, &shape, loss) };
    // Of two entries the second is withheld.
    let mut mask = ArrayD::from_elem(vec![2; shape.len()], false);
    mask[vec![1; shape.len()].as_slice()] = true;
    if plan.sparse_passes().is_empty() {
        let ones = ArrayD::<f32>::ones(vec![2; shape.len()]);
        return Ok((Observations::new(&ones).held_out_mask(&mask)?.prepare()?, None));
    }
    let list = CooTensor::new(&vec![2; shape.len()], &vec![vec![0, 1]; shape.len()], &[1.0; 2])?;
    let data = Observations::new(list).held_out_mask(&mask)?.prepare()?;
    let implicit = if withheld.by_strata { Implicit::Zeros } else { Implicit::ByRole };
    let stored = data.stored(implicit);
    Ok((data, Some(stored)))
}

/// The same where nothing is withheld.
fn all_observed(
    plan: &Plan,
    shape: &[usize],
    loss: &Loss,
) -> Result<(Prepared, Option<StoredEntries>)> {
    if plan.sparse_passes().is_empty() {
        let one = ArrayD::<f32>::ones(vec![1; shape.len()]);
        return Ok((Observations::new(&one).prepare()?, None));
    }
    let list = CooTensor::new(shape, &vec![vec![0]; shape.len()], &[1.0])?;
    let data = Observations::new(list).prepare()?;
    let counts = data.stored_counts(loss.domain().contains(0.0, &[]));
    let stored = counts.first().map(|counts| data.stored(counts.implicit));
    Ok((data, stored))
}
