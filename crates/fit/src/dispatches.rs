//! How many dispatches a sweep of a plan is on a GPU.

use std::sync::Arc;

use ndarray::ArrayD;

use crate::builder::NNEinFact;
use crate::constraints::Constraints;
use crate::prepare::loss_slots;
use crate::settings::{Algorithm, Balance};
use nneinfact_core::data::{CooTensor, Observations, Prepared, StoredEntries};
use nneinfact_core::engine::{Guards, Job};
use nneinfact_core::error::Result;
use nneinfact_core::loss::Loss;
use nneinfact_core::plan::Plan;

impl NNEinFact {
    /// How many dispatches a sweep of a plan ([`plan`](Self::plan), [`sparse_plan`](Self::sparse_plan)) is on a
    /// GPU that can do what WebGPU guarantees: each takes some microseconds, however little there is to
    /// do. Over a list it is so many at least, as the sums of long rows are added up in steps. `None` where
    /// steps are made on the host: by Adam or with a barrier, or with structure within or among factors. Where a GPU
    /// takes exact steps, those of multiplicative ones are counted all the same.
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
        let settings = &self.settings;
        let constraints = Constraints::new(settings, plan.shapes())?;
        let by_host = matches!(settings.algorithm, Algorithm::Adam | Algorithm::Barrier);
        if by_host || constraints.structure.is_any() {
            return Ok(None);
        }
        let (data, stored) = stand_in(plan, &settings.loss)?;
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
            exact: false,
            steps_elsewhere: false,
            unit: 1.0,
            value_scale: 1.0,
            sums_unit: 1.0,
        };
        nneinfact_gpu::dispatches(&job).map(Some)
    }
}

/// Data in place of those that a plan is for: a program depends on them by their kind.
fn stand_in(plan: &Plan, loss: &Loss) -> Result<(Prepared, Option<StoredEntries>)> {
    let shape = plan.shapes().data();
    if plan.sparse_passes().is_empty() {
        let one = ArrayD::<f32>::ones(vec![1; shape.len()]);
        return Ok((Observations::new(&one).prepare()?, None));
    }
    let list = CooTensor::new(&shape, &vec![vec![0]; shape.len()], &[1.0])?;
    let data = Observations::new(list).prepare()?;
    let counts = data.stored_counts(loss.domain().contains(0.0, &[]));
    let stored = counts.first().map(|counts| data.stored(counts.implicit));
    Ok((data, stored))
}
