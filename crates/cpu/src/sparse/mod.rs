//! Sparse passes put together: the sums over the stored entries, and what the implicit entries add.
//!
//! The sums at stored entries come from `pass.rs` (SDDMM and sparse MTTKRP). Where entries that are not
//! stored count as zeros, these *implicit entries* add the sums of all entries as if each were a zero, which
//! mostly have a closed form and else take an *implicit-zero pass*, a dense pass that reads no values. Then
//! every stored entry adds only what it has beyond a zero, and *masked entries*, which are stored but do
//! not train, take off what they would add as zeros.

mod pass;

use std::sync::Arc;

use self::pass::{ByRole, EntryLosses, EntryPass, KhatriRaoRows, PassEntries, SparseOutputs};
use crate::CpuEngine;
use crate::dense::{self, DenseSums, Source, Wants};
use crate::scale::{largest, normalizers};
use nneinfact_core::algebra::contract::{Walk, contract, rearrange};
use nneinfact_core::algebra::update::Denominator;
use nneinfact_core::data::{Dense, Implicit, StoredEntries};
use nneinfact_core::engine::stored_order::StoredPart;
use nneinfact_core::engine::{Job, LossSums, needs};
use nneinfact_core::loss::{AtZero, Expr, Loss, Tape, ZeroTerm};
use nneinfact_core::model::Shapes;
use nneinfact_core::plan::{Group, KhatriRaoTable, SparsePass};
use nneinfact_simd::Elementwise;

/// The stored entries of a fit as its passes read them.
pub(crate) struct SparseState<T> {
    implicit: Implicit,
    zero: AtZero,
    /// Training entries, for each group.
    train: Vec<PassEntries<T>>,
    /// Masked entries, for each group, or for the first only where they add to losses alone. In double
    /// precision: what they add is taken off sums over all entries, of which little may be left.
    masked: Vec<PassEntries<f64>>,
    train_expressions: Expressions,
    masked_expressions: Expressions,
    tapes: Vec<((bool, SparseOutputs), Tape)>,
    zero_tapes: Vec<(Wants, Tape)>,
    /// Which sums over implicit entries take an implicit-zero pass.
    zero_pass: Wants,
}

/// What a stored entry adds to each sum; `None` where nothing.
struct Expressions {
    numerator: Option<Expr>,
    denominator: Option<Expr>,
    loss: Expr,
    /// The loss at a datum of 0, which the sum over all entries holds.
    zero_loss: Option<Expr>,
}

impl Expressions {
    /// Of the training entries: what they add beyond what they would add as zeros.
    fn train(loss: &Loss, zero: &AtZero, implicit: Implicit) -> Expressions {
        let has_zeros = implicit != Implicit::Missing;
        let beyond = |at: &Expr, zero: &ZeroTerm| match has_zeros {
            true if zero.is_zero() => at.clone(),
            true => at - zero.expr(),
            false => at.clone(),
        };
        let needed = !has_zeros || loss.denominator_depends_on_x();
        Expressions {
            numerator: Some(beyond(loss.a(), &zero.a)),
            denominator: needed.then(|| beyond(loss.b(), &zero.b)),
            loss: loss.divergence().clone(),
            zero_loss: has_zeros.then(|| zero.loss.expr().clone()),
        }
    }

    /// Of the masked entries: the negative of what the sum over all entries has for them although they do
    /// not train.
    fn masked(loss: &Loss, zero: &AtZero, implicit: Implicit) -> Expressions {
        let less = |zero: &ZeroTerm| {
            (implicit == Implicit::Zeros && !zero.is_zero()).then(|| -zero.expr().clone())
        };
        Expressions {
            numerator: less(&zero.a),
            denominator: less(&zero.b),
            loss: loss.divergence().clone(),
            zero_loss: (implicit != Implicit::Missing).then(|| zero.loss.expr().clone()),
        }
    }

    fn outputs(&self, sums: bool, losses: bool) -> SparseOutputs {
        SparseOutputs {
            numerator: sums && self.numerator.is_some(),
            denominator: sums && self.denominator.is_some(),
            losses,
            zero_losses: losses && self.zero_loss.is_some(),
        }
    }

    fn tape(&self, outputs: SparseOutputs) -> Tape {
        let expressions = [
            self.numerator.as_ref().filter(|_| outputs.numerator),
            self.denominator.as_ref().filter(|_| outputs.denominator),
            Some(&self.loss).filter(|_| outputs.losses),
            self.zero_loss.as_ref().filter(|_| outputs.zero_losses),
        ];
        Tape::compile(&expressions.into_iter().flatten().collect::<Vec<_>>())
    }
}

impl<T: Elementwise> SparseState<T> {
    /// Sorts the stored entries of a job for each of its passes.
    pub fn new(job: &Job, stored: &StoredEntries) -> SparseState<T> {
        let (plan, loss) = (&job.plan, &job.loss);
        let zero = loss.at_zero();
        let implicit = stored.implicit();
        let (_, [numerator, denominator, losses]) = needs(&zero, implicit);
        let parameters: Vec<Dense> =
            loss.entry_parameters().iter().map(|p| Dense::from_array(p).in_c_order()).collect();
        let scale = job.value_scale;
        let passes = plan.sparse_passes();
        let masked_passes = match (stored.counts().masked, implicit) {
            (0, _) => &[],
            (_, Implicit::Zeros) => passes,
            // They only have a loss.
            _ => &passes[..1.min(passes.len())],
        };
        let shapes = plan.shapes();
        let train = |p| PassEntries::new(shapes, p, stored, StoredPart::Train, &parameters, scale);
        let masked =
            |p| PassEntries::new(shapes, p, stored, StoredPart::Masked, &parameters, scale);
        SparseState {
            implicit,
            train: passes.iter().map(train).collect(),
            masked: masked_passes.iter().map(masked).collect(),
            train_expressions: Expressions::train(loss, &zero, implicit),
            masked_expressions: Expressions::masked(loss, &zero, implicit),
            tapes: Vec::new(),
            zero_tapes: Vec::new(),
            zero_pass: Wants { numerator, denominator, losses },
            zero,
        }
    }

    /// The tape for training or masked entries, by its place among the tapes.
    fn prepare_tape(&mut self, train: bool, outputs: SparseOutputs) -> usize {
        let key = (train, outputs);
        if let Some(at) = self.tapes.iter().position(|(k, _)| *k == key) {
            return at;
        }
        let expressions = if train { &self.train_expressions } else { &self.masked_expressions };
        let tape = expressions.tape(outputs);
        self.tapes.push((key, tape));
        self.tapes.len() - 1
    }

    /// The tape of an implicit-zero pass, by its place among these.
    fn prepare_zero_tape(&mut self, wants: Wants) -> usize {
        if let Some(at) = self.zero_tapes.iter().position(|(k, _)| *k == wants) {
            return at;
        }
        let expressions = [
            Some(self.zero.a.expr()).filter(|_| wants.numerator),
            Some(self.zero.b.expr()).filter(|_| wants.denominator),
            Some(self.zero.loss.expr()).filter(|_| wants.losses),
        ];
        let tape = Tape::compile(&expressions.into_iter().flatten().collect::<Vec<_>>());
        self.zero_tapes.push((wants, tape));
        self.zero_tapes.len() - 1
    }
}

/// What a pass leaves for a group: sums over the data, from which the update is computed.
#[derive(Default)]
pub(crate) struct GroupSums {
    pub numerator: Vec<f64>,
    pub denominator: Vec<f64>,
    /// Whether the denominator has the modes of the plan's closed form only.
    pub reduced: bool,
    pub losses: LossSums,
}

impl GroupSums {
    /// The denominator with its contractions, for a group and its sparse pass.
    pub fn denominator<'a>(
        &'a self,
        group: &'a Group,
        pass: Option<&'a SparsePass>,
    ) -> Denominator<'a> {
        let updates = match pass.filter(|_| self.reduced) {
            Some(pass) => &pass.closed_updates,
            None => &group.updates,
        };
        Denominator { data: &self.denominator, updates }
    }
}

/// The pass of a group as its steps see it.
struct SparseStep<'a, T> {
    engine: &'a CpuEngine<T>,
    group: usize,
    pass: &'a SparsePass,
    wants: Wants,
    /// ŷ is clamped to at least this.
    floor: f64,
    /// The Khatri–Rao tables, the output's first.
    tables: &'a [Vec<f64>],
}

impl<T: Elementwise> CpuEngine<T> {
    /// The sums over all entries for a group, by a sparse pass.
    pub(crate) fn sparse_pass(&mut self, group: usize, wants: Wants) -> GroupSums {
        let Some(mut state) = self.sparse.take() else {
            return GroupSums::default();
        };
        let plan = Arc::clone(&self.job.plan);
        let pass = &plan.sparse_passes()[group];
        let tables = self.tables(pass);
        let floor = self.job.guards.prediction_floor / self.job.unit;
        let step = SparseStep { engine: self, group, pass, wants, floor, tables: &tables };
        let mut sums = step.training_entries(&mut state);
        let corrections = step.masked_entries(&mut state, &mut sums);
        step.implicit_zero_pass(&mut state, &mut sums);
        if state.implicit == Implicit::Zeros {
            step.closed_forms(&state, corrections, &mut sums);
            step.clear_masked_rows(&state, &mut sums);
        }
        let unit = self.job.objective_unit();
        sums.losses.train *= unit;
        sums.losses.validation *= unit;
        sums.losses.held_out *= unit;
        self.sparse = Some(state);
        sums
    }

    /// The Khatri–Rao tables of a pass at the factors as they are, the output's first.
    fn tables(&self, pass: &SparsePass) -> Vec<Vec<f64>> {
        let table = |table: &KhatriRaoTable| -> Vec<f64> {
            let inputs: Vec<&[f64]> =
                table.factors.iter().map(|&l| self.factors[l].as_slice()).collect();
            contract(self.job.plan.shapes(), &table.contraction, &inputs)
        };
        std::iter::once(&pass.output).chain(&pass.operands).map(table).collect()
    }

    /// The sum over all entries of the loss at a datum of 0, where it has a closed form.
    fn total_loss(&self, term: &ZeroTerm) -> f64 {
        let plan = &self.job.plan;
        let (Some(m), Some(totals)) = (term.monomial(), plan.implicit_totals()) else { return 0.0 };
        let all: Vec<&[f64]> = self.factors.iter().map(Vec::as_slice).collect();
        let shapes = plan.shapes();
        let sum = match (m.power, &totals.square) {
            (0.0, _) => vec![shapes.volume(shapes.model().observed())],
            (2.0, Some(square)) => {
                let twice: Vec<&[f64]> = all.iter().chain(&all).copied().collect();
                contract(&square.shapes, &square.contraction, &twice)
            }
            _ => contract(shapes, &totals.linear, &all),
        };
        m.coefficient * sum.first().copied().unwrap_or(0.0)
    }

    /// An implicit-zero pass.
    fn zero_pass(&self, group: usize, wants: Wants, tape: &Tape, implicit: Implicit) -> DenseSums {
        let (tensors, scale) = self.operands(&self.job.plan.passes()[group]);
        let views: Vec<&[T]> = tensors.iter().map(Vec::as_slice).collect();
        let source = Source {
            data: &self.job.data,
            roles: self.job.data.roles().filter(|_| implicit == Implicit::ByRole),
            zeros: true,
            entry_parameters: &self.entry_parameters,
            scale: T::ONE,
            floor: T::from_f64(self.job.guards.prediction_floor / self.job.unit),
            tape,
            wants,
        };
        let mut sums = dense::run(&self.geometries[group], &source, None, &views);
        sums.divide(scale);
        sums
    }
}

impl<T: Elementwise> SparseStep<'_, T> {
    fn shapes(&self) -> &Shapes {
        self.engine.job.plan.shapes()
    }

    /// Entries of the numerator.
    fn size(&self) -> usize {
        self.shapes().sizes(&self.pass.indices).iter().product()
    }

    /// The sums over the stored training entries.
    fn training_entries(&self, state: &mut SparseState<T>) -> GroupSums {
        let &SparseStep { group, pass, wants, floor, tables, .. } = self;
        let (shapes, size) = (self.shapes(), self.size());
        let depth = pass.contracted_size(shapes);
        let (onto, width) = onto(shapes, pass);
        let mut outputs = state.train_expressions.outputs(wants.numerator, wants.losses);
        outputs.denominator &= wants.denominator;
        let at = state.prepare_tape(true, outputs);
        let mut numerator = vec![0.0; if wants.numerator { size } else { 0 }];
        let mut denominator = vec![0.0; if outputs.denominator { size } else { 0 }];

        let largest: Vec<f64> = tables.iter().map(|t| largest(t)).collect();
        let scales = normalizers(&largest);
        let rows: Vec<KhatriRaoRows<T>> =
            tables.iter().zip(&scales).map(|(t, &s)| KhatriRaoRows::new(t, depth, s)).collect();
        let entry_pass = EntryPass {
            entries: &state.train[group],
            tables: &rows,
            depth,
            onto: &onto,
            width,
            floor: T::from_f64(floor),
            tape: &state.tapes[at].1,
            outputs,
        };
        let found = entry_pass.run(&mut numerator, &mut denominator);
        // The sums carry the scales of the other tables.
        let others: f64 = scales[1..].iter().product();
        if others != 1.0 {
            numerator.iter_mut().chain(&mut denominator).for_each(|x| *x /= others);
        }
        let train = found.at_datum.train - found.at_zero.train;
        let losses = LossSums { train, ..LossSums::default() };
        GroupSums { numerator, denominator, reduced: false, losses }
    }

    /// Adds the masked entries to numerator and losses, and returns what they add to the denominator;
    /// empty where nothing.
    fn masked_entries(&self, state: &mut SparseState<T>, sums: &mut GroupSums) -> Vec<f64> {
        let &SparseStep { engine, group, wants, floor, .. } = self;
        let shapes = self.shapes();
        let with_losses = wants.losses && !state.masked.is_empty();
        let with_sums = wants.numerator && state.implicit == Implicit::Zeros;
        let outputs = state.masked_expressions.outputs(with_sums, with_losses);
        // The entries of the first group, where there are no others, go with its tables.
        let own = group < state.masked.len();
        let at = if own { group } else { 0 };
        let present = state.masked.get(at).is_some_and(|entries| !entries.is_empty());
        if !present || outputs == SparseOutputs::default() {
            return Vec::new();
        }
        let tape = state.prepare_tape(false, outputs);
        let pass = &engine.job.plan.sparse_passes()[at];
        let first_tables = if own { Vec::new() } else { engine.tables(pass) };
        let tables = if own { self.tables } else { &first_tables };
        let depth = pass.contracted_size(shapes);
        let rows: Vec<KhatriRaoRows<f64>> =
            tables.iter().map(|t| KhatriRaoRows::new(t, depth, 1.0)).collect();
        let mut corrections = vec![0.0; if outputs.denominator { self.size() } else { 0 }];
        let (onto, width) = onto(shapes, pass);
        let entry_pass = EntryPass {
            entries: &state.masked[at],
            tables: &rows,
            depth,
            onto: &onto,
            width,
            floor,
            tape: &state.tapes[tape].1,
            outputs,
        };
        let found = entry_pass.run(&mut sums.numerator, &mut corrections);
        add_masked(&mut sums.losses, &found, state.implicit);
        corrections
    }

    /// Adds the implicit-zero pass, where one is needed.
    fn implicit_zero_pass(&self, state: &mut SparseState<T>, sums: &mut GroupSums) {
        let wants = Wants {
            numerator: self.wants.numerator && state.zero_pass.numerator,
            denominator: self.wants.denominator && state.zero_pass.denominator,
            losses: self.wants.losses && state.zero_pass.losses,
        };
        if wants == Wants::default() {
            return;
        }
        let at = state.prepare_zero_tape(wants);
        let tape = &state.zero_tapes[at].1;
        let zeros = self.engine.zero_pass(self.group, wants, tape, state.implicit);
        sums.losses.train += zeros.losses.train;
        sums.losses.validation += zeros.losses.validation;
        sums.losses.held_out += zeros.losses.held_out;
        let modes = &self.engine.job.plan.passes()[self.group].output.indices;
        let both =
            [(&mut sums.numerator, zeros.numerator), (&mut sums.denominator, zeros.denominator)];
        for (to, from) in both {
            if !from.is_empty() {
                add(to, rearrange(self.shapes(), modes, &from, &self.pass.indices));
            }
        }
    }

    /// Adds the sums over all entries as zeros that have closed forms, and the corrections of masked
    /// entries to the denominator.
    fn closed_forms(&self, state: &SparseState<T>, corrections: Vec<f64>, sums: &mut GroupSums) {
        let &SparseStep { engine, pass, wants, .. } = self;
        let shapes = self.shapes();
        let all: Vec<&[f64]> = engine.factors.iter().map(Vec::as_slice).collect();
        let inputs: Vec<&[f64]> = pass.others.iter().map(|&l| all[l]).collect();
        let closed = || contract(shapes, &pass.closed, &inputs);
        let spread = |sum: &[f64], by: f64| -> Vec<f64> {
            let full = rearrange(shapes, pass.closed.output(), sum, &pass.indices);
            full.into_iter().map(|x| x * by).collect()
        };
        let denominator = &mut sums.denominator;
        if wants.numerator && !state.zero_pass.numerator && !state.zero.a.is_zero() {
            let by = state.zero.a.coefficient(0.0).unwrap_or(0.0);
            add(&mut sums.numerator, spread(&closed(), by));
        }
        if wants.denominator && !state.zero_pass.denominator {
            let by = state.zero.b.monomial().map_or(0.0, |m| m.coefficient);
            if let (Some(_), Some(gram)) = (state.zero.b.coefficient(1.0), &pass.gram) {
                let with: Vec<&[f64]> = all.iter().chain(&inputs).copied().collect();
                let mut gram = contract(&gram.shapes, &gram.contraction, &with);
                gram.iter_mut().for_each(|x| *x *= by);
                add(denominator, gram);
            } else if denominator.is_empty() && corrections.is_empty() {
                *denominator = closed();
                denominator.iter_mut().for_each(|x| *x *= by);
                sums.reduced = true;
            } else {
                add(denominator, spread(&closed(), by));
            }
        }
        if wants.losses && !state.zero_pass.losses {
            sums.losses.train += engine.total_loss(&state.zero.loss);
        }
        if !corrections.is_empty() {
            add(denominator, corrections);
            denominator.iter_mut().for_each(|x| *x = x.max(0.0));
        }
    }

    /// Clears the sums of rows without a single training entry, which are rounding errors.
    fn clear_masked_rows(&self, state: &SparseState<T>, sums: &mut GroupSums) {
        let &SparseStep { group, pass, wants, .. } = self;
        let (shapes, size) = (self.shapes(), self.size());
        let width = width_of(shapes, pass);
        let rows: f64 = shapes.sizes(&pass.output.rows).iter().map(|&n| n as f64).product();
        let entries = shapes.volume(shapes.model().observed());
        if wants.numerator
            && let Some(masked) = state.masked.get(group)
        {
            for row in masked.rows_of((entries / rows) as u64) {
                for to in [&mut sums.numerator, &mut sums.denominator] {
                    if to.len() == size {
                        to[row * width..][..width].fill(0.0);
                    }
                }
            }
        }
    }
}

/// Adds the losses of masked entries: withheld ones add their own, and from sums over all entries each
/// takes off what it would be as a zero.
fn add_masked(sums: &mut LossSums, found: &EntryLosses, implicit: Implicit) {
    let EntryLosses { at_datum, at_zero } = *found;
    let less = if implicit == Implicit::ByRole { at_zero } else { ByRole::default() };
    sums.validation += at_datum.validation - less.validation;
    sums.held_out += at_datum.held_out - less.held_out;
    if implicit == Implicit::Zeros {
        sums.train -= at_zero.all();
    }
}

/// Where each contracted index stands in a row of numerator and denominator, and the length of such a
/// row.
fn onto(shapes: &Shapes, pass: &SparsePass) -> (Vec<usize>, usize) {
    let own = &pass.indices[pass.output.rows.len()..];
    let sizes = shapes.sizes(&pass.contracted);
    let strides: Vec<usize> = pass
        .contracted
        .iter()
        .map(|x| match own.iter().position(|y| y == x) {
            Some(at) => shapes.sizes(&own[at + 1..]).iter().product(),
            None => 0,
        })
        .collect();
    let count: usize = sizes.iter().product();
    let place = |linear: usize| Walk::at(&sizes, &strides, linear).offset();
    ((0..count).map(place).collect(), width_of(shapes, pass))
}

fn width_of(shapes: &Shapes, pass: &SparsePass) -> usize {
    shapes.sizes(&pass.indices[pass.output.rows.len()..]).iter().product()
}

/// Adds to sums that may not be there yet.
fn add(to: &mut Vec<f64>, from: Vec<f64>) {
    if to.is_empty() {
        *to = from;
    } else {
        to.iter_mut().zip(from).for_each(|(to, x)| *to += x);
    }
}
