//! Jobs, data and a GPU for the tests.

use std::sync::{Arc, OnceLock};

use ndarray::ArrayD;

use crate::device::adapter::Wanted;
use crate::device::handle::Gpu;
use nneinfact_core::data::{CooTensor, Implicit, Observations};
use nneinfact_core::engine::{Constraint, Guards, Job, LossSlot, ZeroSums};
use nneinfact_core::loss::{Loss, Penalty};
use nneinfact_core::model::{Model, Shapes};
use nneinfact_core::plan::{Balancing, DataInfo, Grouping, Plan, PlanSettings, SparseInfo};

/// A GPU, a software one if need be, opened once for all tests. Without any a test fails, unless the
/// environment says that there is none: a test that passes because nothing was there to test says
/// nothing.
pub(crate) fn gpu() -> Option<Gpu> {
    static SHARED: OnceLock<Option<Gpu>> = OnceLock::new();
    SHARED.get_or_init(own).clone()
}

/// As [`gpu`], for tests that break it or look at what it keeps.
pub(crate) fn own() -> Option<Gpu> {
    if std::env::var_os("NNEINFACT_NO_GPU").is_some_and(|v| v == "1") {
        eprintln!("skipped: NNEINFACT_NO_GPU=1");
        return None;
    }
    Some(Gpu::open(Wanted::Best, None).expect(
        "a GPU or a software one: .ci/drivers installs the latter, NNEINFACT_NO_GPU=1 skips",
    ))
}

/// The job of a model on ones of this shape, without a device.
pub(crate) fn job(
    model: &str,
    shape: &[usize],
    ranks: &[(char, usize)],
    loss: Loss,
    grouping: Grouping,
    observe: impl Fn(Observations) -> Observations,
) -> Job {
    let values = ndarray::ArrayD::from_elem(shape, 1.0);
    job_on(&values, model, ranks, loss, grouping, u64::MAX, observe)
}

/// The job of a model on these values, without a device and without a start.
pub(crate) fn job_on(
    values: &ndarray::ArrayD<f64>,
    model: &str,
    ranks: &[(char, usize)],
    loss: Loss,
    grouping: Grouping,
    memory: u64,
    observe: impl Fn(Observations) -> Observations,
) -> Job {
    let model = Model::parse(model).unwrap();
    let shapes = Shapes::new(&model, values.shape(), ranks).unwrap();
    let data = observe(Observations::new(values)).prepare().unwrap();
    let info = DataInfo {
        masked: data.roles().is_some(),
        weight_bytes: if data.weights().is_some() { 8 } else { 0 },
        ..DataInfo::c_order(&shapes, 1)
    };
    let plain = !info.masked && info.weight_bytes == 0;
    let settings = PlanSettings {
        grouping,
        memory,
        closed_denominator: plain && loss.denominator_constant().is_some(),
        ..PlanSettings::default()
    };
    let plan = Plan::new(&shapes, &info, &settings).unwrap();
    job_of(plan, data, None, loss)
}

/// The job of a model on the stored entries that go with `implicit`, without a device and without a
/// start.
pub(crate) fn job_stored(
    values: &ndarray::ArrayD<f64>,
    model: &str,
    ranks: &[(char, usize)],
    loss: Loss,
    grouping: Grouping,
    implicit: Implicit,
    observe: impl Fn(Observations) -> Observations,
) -> Job {
    stored_job(observe(Observations::new(values)), model, ranks, loss, grouping, implicit)
}

/// The job of a model on a list, whose other entries are zeros.
pub(crate) fn job_of_list(
    list: CooTensor,
    model: &str,
    ranks: &[(char, usize)],
    loss: &Loss,
) -> Job {
    let observations = Observations::new(list);
    stored_job(observations, model, ranks, loss.clone(), Grouping::Grouped, Implicit::Zeros)
}

fn stored_job(
    observations: Observations,
    model: &str,
    ranks: &[(char, usize)],
    loss: Loss,
    grouping: Grouping,
    implicit: Implicit,
) -> Job {
    let model = Model::parse(model).unwrap();
    let shapes = Shapes::new(&model, observations.shape(), ranks).unwrap();
    let data = observations.prepare().unwrap();
    let listing = data
        .stored_counts(true)
        .into_iter()
        .find(|l| l.implicit == implicit)
        .expect("such entries");
    let form = ZeroSums::new(&loss.at_zero(), implicit).form();
    let sampling = SparseInfo { stored: listing.train, masked: listing.masked, implicit: form };
    let info = DataInfo { masked: implicit == Implicit::ByRole, ..DataInfo::c_order(&shapes, 0) };
    let settings = PlanSettings { grouping, sparse: Some(sampling), ..PlanSettings::default() };
    let plan = Plan::new(&shapes, &info, &settings).unwrap();
    let stored = data.stored(implicit);
    job_of(plan, data, Some(stored), loss)
}

fn job_of(
    plan: Plan,
    data: nneinfact_core::data::Prepared,
    stored: Option<nneinfact_core::data::StoredEntries>,
    loss: Loss,
) -> Job {
    let mut losses = vec![None; plan.groups().len()];
    *losses.last_mut().unwrap() = Some(LossSlot::Middle);
    losses[0] = Some(LossSlot::Start);
    let constraints = vec![Constraint::default(); plan.shapes().model().factors().len()];
    Job {
        constraints,
        differences: Vec::new(),
        balancing: None,
        plan: Arc::new(plan),
        data: Arc::new(data),
        stored: stored.map(Arc::new),
        loss,
        losses,
        exact: false,
        guards: Guards { prediction_floor: 1e-10, factor_floor: 1e-16, inner_cycles: 1 },
        start: Vec::new(),
        scales: None,
        unit: 1.0,
        value_scale: 1.0,
        sums_unit: 1.0,
        steps_elsewhere: false,
    }
}

/// The job with a penalty on every factor, of several kinds, and the rescaling steps among them; the last of
/// three factors or more has bounds instead.
pub(crate) fn penalized_job(mut job: Job, kind: usize) -> Job {
    let count = job.constraints.len();
    for (l, constraint) in job.constraints.iter_mut().enumerate() {
        match count > 2 && l == count - 1 && kind.is_multiple_of(2) {
            true => (constraint.lower, constraint.upper) = (0.01, 3.0),
            false => {
                let power = [1.0, 2.0, 1.5, 3.0][(l + kind) % 4];
                constraint.penalty = Some(Penalty::new(0.1 + 0.2 * l as f64, power));
            }
        }
    }
    let rescaled: Vec<usize> =
        (0..count).filter(|&l| job.constraints[l].penalty.is_some()).collect();
    let balancing = Balancing::new(job.plan.shapes().model(), &rescaled);
    job.balancing = Some(balancing).filter(|b| !b.rescalings().is_empty()).map(Arc::new);
    job
}

/// A model, the shape of its data and its ranks.
pub(crate) type CorpusModel = (&'static str, &'static [usize], &'static [(char, usize)]);

pub(crate) const CORPUS: &[CorpusModel] = &[
    ("ir,jr->ij", &[5, 7], &[('r', 3)]),
    ("ir,jr->ji", &[5, 7], &[('r', 3)]),
    ("ic,ce,je->ij", &[5, 7], &[('c', 2), ('e', 3)]),
    ("ir,jr,ar->ija", &[5, 7, 4], &[('r', 3)]),
    ("ir,jr,ar,tr->ijat", &[5, 3, 4, 2], &[('r', 5)]),
    ("ir,jr,ar,tr,ur,vr->ijatuv", &[2, 3, 2, 3, 2, 3], &[('r', 2)]),
    ("ir,jr,ar,r->ija", &[5, 7, 4], &[('r', 3)]),
    ("ir,jr,ak,kr,tr->ijat", &[3, 4, 5, 2], &[('k', 2), ('r', 3)]),
    ("ic,je,af,cef->ija", &[3, 4, 5], &[('c', 2), ('e', 3), ('f', 2)]),
    ("ic,je,ak,cq,eq,kq->ija", &[3, 4, 5], &[('c', 2), ('e', 3), ('k', 2), ('q', 3)]),
    ("ic,jce,ae->ija", &[3, 4, 5], &[('c', 2), ('e', 3)]),
    ("ia,ajb,bkc,cl->ijkl", &[3, 4, 5, 2], &[('a', 2), ('b', 3), ('c', 2)]),
    ("aib,bjc,cka->ijk", &[3, 4, 5], &[('a', 2), ('b', 3), ('c', 2)]),
    ("ij,ja,ia->ija", &[3, 4, 5], &[]),
    ("ijr,jkr,ikr->ijk", &[3, 4, 5], &[('r', 2)]),
    ("wr,dr,hr,irk,jrk->wdhij", &[3, 2, 4, 3, 5], &[('r', 3), ('k', 2)]),
    ("ik,jqk,aiq,q->ija", &[3, 4, 5], &[('k', 2), ('q', 3)]),
    ("ij,jr,kr->ijk", &[3, 4, 5], &[('r', 2)]),
    ("irz,jr->ij", &[5, 7], &[('r', 2), ('z', 3)]),
    ("ijr->ij", &[5, 7], &[('r', 2)]),
    ("i,j,k->ijk", &[3, 4, 5], &[]),
    // Few outputs and long sums: contractions by `contract_shared.wgsl`, with many lanes.
    ("ir,jr,ar->ija", &[3, 1500, 2], &[('r', 2)]),
    ("ir,jr->ij", &[3, 1500], &[('r', 2)]),
];

/// A model whose passes walk over an index that co-operands of the output have and the output has not,
/// so that what the sums are multiplied with changes on the way: with little memory, since the
/// co-operands' product would be stored otherwise.
pub(crate) fn moving(
    loss: Loss,
    observe: impl Fn(Observations) -> Observations,
    values: &ndarray::ArrayD<f64>,
) -> Job {
    const MEMORY: u64 = 24_000;
    job_on(values, "ijr,jkr,ikr->ijk", &[('r', 2)], loss, Grouping::Block, MEMORY, observe)
}

/// The shape that [`moving`] takes.
pub(crate) const MOVING: &[usize] = &[13, 11, 31];

/// Few entries that are not 0, the first of them the first entry.
pub(crate) fn few(shape: &[usize]) -> ndarray::ArrayD<f64> {
    let mut n = 0u32;
    ndarray::ArrayD::from_shape_simple_fn(shape, || {
        n += 1;
        let random = n.wrapping_mul(2_654_435_761) >> 24;
        if n == 1 || random < 64 { f64::from(random % 4 + 1) } else { 0.0 }
    })
}

/// Data that differ from entry to entry, and nothing special about them.
pub(crate) fn values(shape: &[usize]) -> ArrayD<f64> {
    let mut n = 0u32;
    ArrayD::from_shape_simple_fn(shape, || {
        n += 1;
        f64::from(n.wrapping_mul(2_654_435_761) >> 28) + 1.0
    })
}

pub(crate) fn started(mut job: Job) -> Job {
    let shapes = job.plan.shapes();
    let factors = shapes.model().factors().len();
    let start: Vec<ArrayD<f64>> =
        (0..factors).map(|l| values(&shapes.factor(l)) / 16.0 + 0.1).collect();
    job.start = start;
    job
}
