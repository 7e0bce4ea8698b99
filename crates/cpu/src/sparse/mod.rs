//! Sparse passes put together: the sums over the stored entries, and what the implicit entries add.
//!
//! The sums at stored entries come from `pass.rs` (SDDMM and sparse MTTKRP). Where entries that are not
//! stored count as zeros, these *implicit entries* add the sums of all entries as if each were a zero, which
//! mostly have a closed form and else take an *implicit-zero pass*, a dense pass that reads no values. Then
//! every stored entry adds only what it has beyond a zero, and *masked entries*, which are stored but do
//! not train, take off what they would add as zeros.

mod blocked;
mod by_role;
mod khatri_rao;
mod pass;
mod spare;

use std::borrow::Cow;
use std::sync::Arc;

use nneinfact_core::parallel;

use self::blocked::{BlockedEntries, BlockedPass, TrainingEntries};
use self::khatri_rao::KhatriRaoRows;
use self::pass::{ByRole, EntryLosses, EntryPass, PassEntries, SparseOutputs};
use self::spare::SpareMemory;
use crate::CpuEngine;
use crate::dense::{self, DenseSums, Source, Wants};
use crate::scale::{largest, normalizers};
use nneinfact_core::algebra::contract::{Walk, contract, rearrange};
use nneinfact_core::algebra::update::Denominator;
use nneinfact_core::data::{Dense, Implicit, StoredEntries};
use nneinfact_core::engine::stored_order::StoredPart;
use nneinfact_core::engine::{
    Job, LossSums, MaskedTerms, MaskedZeroLoss, SparseProgram, SparseStep, StoredTerms,
    ZeroContraction,
};
use nneinfact_core::error::{Error, Result};
use nneinfact_core::loss::{Expr, Tape};
use nneinfact_core::model::Shapes;
use nneinfact_core::plan::{Group, ImplicitForm, KhatriRaoTable, SparsePass};
use nneinfact_simd::Elementwise;

/// The stored entries of a fit as its passes read them, and the program that the passes follow.
pub(crate) struct SparseState<T> {
    program: SparseProgram,
    /// Training entries, for each group.
    train: Arc<[BlockedEntries<T>]>,
    /// Masked entries, for each group, or for the first only where they add to losses alone. In double
    /// precision: what they add is taken off sums over all entries, of which little may be left.
    masked: Arc<[PassEntries<f64>]>,
    train_terms: Terms,
    masked_terms: Terms,
    tapes: Vec<((StoredPart, SparseOutputs), Tape)>,
    zero_tapes: Vec<(Wants, Tape)>,
    spare: SpareMemory<T>,
}

/// Lists of up to so many entries are sorted for all passes at once: each has a few numbers an entry aside
/// meanwhile.
const MOST_AT_ONCE: usize = 1 << 24;

/// What a stored entry adds to each sum, as a tape computes it; `None` where nothing.
#[derive(Clone)]
struct Terms {
    numerator: Option<Expr>,
    denominator: Option<Expr>,
    loss: Expr,
    /// The loss at a datum of 0, which a sum over all entries has of it.
    zero_loss: Option<Expr>,
}

impl Terms {
    fn train(stored: &StoredTerms) -> Terms {
        Terms {
            numerator: Some(stored.numerator.clone()),
            denominator: stored.denominator.clone(),
            loss: stored.loss.clone(),
            zero_loss: stored.zero_loss.clone(),
        }
    }

    /// Those of the masked entries: what they take off is added with the other sign.
    fn masked(masked: &MaskedTerms) -> Terms {
        let less = |expr: &Option<Expr>| expr.clone().map(|expr| -expr);
        Terms {
            numerator: less(&masked.numerator),
            denominator: less(&masked.denominator),
            loss: masked.loss.clone(),
            zero_loss: match &masked.zero_loss {
                MaskedZeroLoss::Nothing => None,
                MaskedZeroLoss::OwnRole(expr) | MaskedZeroLoss::Training(expr) => {
                    Some(expr.clone())
                }
            },
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
    ///
    /// # Errors
    /// [`Error::Unsupported`](nneinfact_core::error::Error::Unsupported) where the plan has no contraction
    /// for a closed form.
    pub fn new(job: &Job, stored: &StoredEntries) -> Result<SparseState<T>> {
        let (plan, loss) = (&job.plan, &job.loss);
        let implicit = stored.implicit();
        let by_role = plan.settings().sparse.is_some_and(|s| s.implicit == ImplicitForm::ByRole);
        let program = match by_role {
            true => SparseProgram::by_role(loss, job.exact).ok_or_else(|| {
                Error::Internal(format!("the {} loss has no closed form by roles", loss.name()))
            })?,
            false => SparseProgram::of(loss, stored),
        };
        let parameters: Vec<Dense> =
            loss.entry_parameters().iter().map(|p| Dense::from_array(p).in_c_order()).collect();
        let scale = job.value_scale;
        let (passes, shapes) = (plan.sparse_passes(), plan.shapes());
        if let Some(totals) = plan.implicit_totals().filter(|_| !by_role) {
            passes.iter().try_for_each(|pass| program.check(shapes, pass, totals))?;
        }
        let masked_passes = match stored.counts().masked {
            0 => &[],
            _ if implicit == Implicit::Zeros => passes,
            // They only have a loss.
            _ => &passes[..1.min(passes.len())],
        };
        let entries = TrainingEntries::new(shapes, stored);
        let train = |p| BlockedEntries::new(&entries, p, &parameters, scale);
        let masked =
            |p| PassEntries::new(shapes, p, stored, StoredPart::Masked, &parameters, scale);
        Ok(SparseState {
            train: match entries.len() <= MOST_AT_ONCE {
                true => parallel::map(passes.len(), &|n| train(&passes[n])).into(),
                false => passes.iter().map(train).collect(),
            },
            masked: masked_passes.iter().map(masked).collect(),
            train_terms: Terms::train(&program.stored),
            masked_terms: Terms::masked(&program.masked),
            tapes: Vec::new(),
            zero_tapes: Vec::new(),
            spare: SpareMemory::default(),
            program,
        })
    }

    /// The same entries, which both share, for the passes of another fit.
    pub fn another(&self) -> SparseState<T> {
        SparseState {
            program: self.program.clone(),
            train: Arc::clone(&self.train),
            masked: Arc::clone(&self.masked),
            train_terms: self.train_terms.clone(),
            masked_terms: self.masked_terms.clone(),
            tapes: Vec::new(),
            zero_tapes: Vec::new(),
            spare: SpareMemory::default(),
        }
    }

    /// Takes the sums of a pass whose update is made: the next ones are in their memory.
    pub fn keep_sums(&mut self, sums: GroupSums) {
        self.spare.keep_sums([sums.numerator, sums.denominator]);
    }

    /// The tape for training or masked entries, by its place among the tapes.
    fn prepare_tape(&mut self, part: StoredPart, outputs: SparseOutputs) -> usize {
        let key = (part, outputs);
        if let Some(at) = self.tapes.iter().position(|(k, _)| *k == key) {
            return at;
        }
        let terms = match part {
            StoredPart::Train => &self.train_terms,
            StoredPart::Masked => &self.masked_terms,
        };
        let tape = terms.tape(outputs);
        self.tapes.push((key, tape));
        self.tapes.len() - 1
    }

    /// Which of these sums take the implicit-zero pass, and its tape, by its place among these.
    fn prepare_zero_tape(&mut self, wants: Wants) -> (Wants, usize) {
        let all = &self.program.all;
        let expressions = [
            all.numerator.pass().filter(|_| wants.numerator),
            all.denominator.pass().filter(|_| wants.denominator),
            all.loss.pass().filter(|_| wants.losses),
        ];
        let [numerator, denominator, losses] = expressions.map(|expr| expr.is_some());
        let wants = Wants { numerator, denominator, losses };
        if let Some(at) = self.zero_tapes.iter().position(|(k, _)| *k == wants) {
            return (wants, at);
        }
        let tape = Tape::compile(&expressions.into_iter().flatten().collect::<Vec<_>>());
        self.zero_tapes.push((wants, tape));
        (wants, self.zero_tapes.len() - 1)
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
struct GroupPass<'a, T> {
    engine: &'a CpuEngine<T>,
    group: usize,
    pass: &'a SparsePass,
    wants: Wants,
    /// ŷ is clamped to at least this.
    floor: f64,
    /// The Khatri–Rao tables, the output's first.
    tables: &'a [Cow<'a, [f64]>],
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
        let own = GroupPass { engine: self, group, pass, wants, floor, tables: &tables };
        let mut sums = GroupSums::default();
        let mut corrections = Vec::new();
        for step in state.program.steps(!state.masked.is_empty(), wants.losses) {
            match step {
                SparseStep::StoredEntries => sums = own.training_entries(&mut state),
                SparseStep::MaskedEntries => {
                    corrections = own.masked_entries(&mut state, &mut sums);
                }
                SparseStep::ImplicitZeroPass => own.implicit_zero_pass(&mut state, &mut sums),
                SparseStep::NumeratorContraction => own.closed_numerator(&state, &mut sums),
                SparseStep::DenominatorContraction => {
                    // Where corrections follow, the sum has to have all modes.
                    own.closed_denominator(&state, corrections.is_empty(), &mut sums);
                }
                SparseStep::LossContraction => sums.losses.train += self.total_loss(&state.program),
                SparseStep::CorrectDenominator => {
                    correct(&mut sums.denominator, std::mem::take(&mut corrections));
                }
                SparseStep::RoleSums => {
                    if let Some(masked) = &self.masked {
                        own.role_sums(&state.program, masked, &mut sums);
                    }
                }
                SparseStep::ClearEmptyRows => own.clear_empty_rows(&state, &mut sums),
            }
        }
        drop(tables);
        let unit = self.job.objective_unit();
        sums.losses.train *= unit;
        sums.losses.validation *= unit;
        sums.losses.held_out *= unit;
        self.sparse = Some(state);
        sums
    }

    /// The Khatri–Rao tables of a pass at the factors as they are, the output's first.
    fn tables(&self, pass: &SparsePass) -> Vec<Cow<'_, [f64]>> {
        let table = |table: &KhatriRaoTable| -> Cow<'_, [f64]> {
            let form = &table.contraction;
            // Most tables are a factor as it is.
            if let ([l], [indices]) = (&table.factors[..], form.inputs())
                && indices == form.output()
            {
                return Cow::Borrowed(self.factors[*l].as_slice());
            }
            let inputs: Vec<&[f64]> =
                table.factors.iter().map(|&l| self.factors[l].as_slice()).collect();
            Cow::Owned(contract(self.job.plan.shapes(), form, &inputs))
        };
        std::iter::once(&pass.output).chain(&pass.operands).map(table).collect()
    }

    /// The sum over all entries of the loss at a datum of 0, where it has a closed form.
    fn total_loss(&self, program: &SparseProgram) -> f64 {
        let plan = &self.job.plan;
        let (Some((by, of)), Some(totals)) =
            (program.all.loss.contraction(), plan.implicit_totals())
        else {
            return 0.0;
        };
        let all: Vec<&[f64]> = self.factors.iter().map(Vec::as_slice).collect();
        let shapes = plan.shapes();
        let sum = match (of, &totals.square) {
            (ZeroContraction::EntryCount, _) => vec![shapes.volume(shapes.model().observed())],
            (ZeroContraction::SquareTotal, Some(square)) => {
                let twice: Vec<&[f64]> = all.iter().chain(&all).copied().collect();
                contract(&square.shapes, &square.contraction, &twice)
            }
            _ => contract(shapes, &totals.linear, &all),
        };
        by * sum.first().copied().unwrap_or(0.0)
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

impl<T: Elementwise> GroupPass<'_, T> {
    fn shapes(&self) -> &Shapes {
        self.engine.job.plan.shapes()
    }

    /// Entries of the numerator.
    fn size(&self) -> usize {
        self.shapes().sizes(&self.pass.indices).iter().product()
    }

    /// The sums over the stored training entries.
    fn training_entries(&self, state: &mut SparseState<T>) -> GroupSums {
        let &GroupPass { group, pass, wants, floor, tables, .. } = self;
        let (shapes, size) = (self.shapes(), self.size());
        let depth = pass.contracted_size(shapes);
        let (onto, width) = onto(shapes, pass);
        let mut outputs = state.train_terms.outputs(wants.numerator, wants.losses);
        outputs.denominator &= wants.denominator;
        let at = state.prepare_tape(StoredPart::Train, outputs);
        let mut numerator = state.spare.zeros(if wants.numerator { size } else { 0 });
        let mut denominator = state.spare.zeros(if outputs.denominator { size } else { 0 });

        let largest: Vec<f64> = tables.iter().map(|t| largest(t)).collect();
        let scales = normalizers(&largest);
        let spare = &mut state.spare;
        let rows: Vec<KhatriRaoRows<T>> = tables
            .iter()
            .zip(&scales)
            .map(|(t, &s)| KhatriRaoRows::within(spare, t, depth, s))
            .collect();
        let entry_pass = BlockedPass {
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
        state.spare.keep_tables(rows.into_iter().map(KhatriRaoRows::into_memory));
        // The sums carry the scales of the other tables.
        let others: f64 = scales[1..].iter().product();
        if others != 1.0 {
            for sums in [&mut numerator, &mut denominator] {
                parallel::chunks(sums, parallel::ENTRIES, &|_, sums| {
                    sums.iter_mut().for_each(|x| *x /= others);
                });
            }
        }
        let losses = LossSums { train: found.at_datum - found.at_zero, ..LossSums::default() };
        GroupSums { numerator, denominator, reduced: false, losses }
    }

    /// Adds the masked entries to numerator and losses, and returns what they add to the denominator;
    /// empty where nothing.
    fn masked_entries(&self, state: &mut SparseState<T>, sums: &mut GroupSums) -> Vec<f64> {
        let &GroupPass { engine, group, wants, floor, .. } = self;
        let shapes = self.shapes();
        let with_losses = wants.losses && !state.masked.is_empty();
        let mut outputs = state.masked_terms.outputs(wants.numerator, with_losses);
        outputs.denominator &= wants.denominator;
        // The entries of the first group, where there are no others, go with its tables.
        let own = group < state.masked.len();
        let at = if own { group } else { 0 };
        let present = state.masked.get(at).is_some_and(|entries| !entries.is_empty());
        if !present || outputs == SparseOutputs::default() {
            return Vec::new();
        }
        let tape = state.prepare_tape(StoredPart::Masked, outputs);
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
        add_masked(&mut sums.losses, &found, &state.program.masked.zero_loss);
        corrections
    }

    /// Adds the implicit-zero pass, where one is needed.
    fn implicit_zero_pass(&self, state: &mut SparseState<T>, sums: &mut GroupSums) {
        let (wants, at) = state.prepare_zero_tape(self.wants);
        if wants == Wants::default() {
            return;
        }
        let tape = &state.zero_tapes[at].1;
        let zeros = self.engine.zero_pass(self.group, wants, tape, state.program.implicit);
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

    /// `Σ V`, the factors outside the group contracted.
    fn other_factors(&self) -> Vec<f64> {
        let factors = &self.engine.factors;
        let inputs: Vec<&[f64]> = self.pass.others.iter().map(|&l| factors[l].as_slice()).collect();
        contract(self.shapes(), &self.pass.closed, &inputs)
    }

    /// That sum times a coefficient, along all indices of the group.
    fn spread(&self, sum: &[f64], by: f64) -> Vec<f64> {
        let full = rearrange(self.shapes(), self.pass.closed.output(), sum, &self.pass.indices);
        full.into_iter().map(|x| x * by).collect()
    }

    /// Adds the closed form of the numerator.
    fn closed_numerator(&self, state: &SparseState<T>, sums: &mut GroupSums) {
        if let (true, Some((by, _))) =
            (self.wants.numerator, state.program.all.numerator.contraction())
        {
            add(&mut sums.numerator, self.spread(&self.other_factors(), by));
        }
    }

    /// Adds the closed form of the denominator; with its own indices only, where it `may_be_reduced` and
    /// nothing else is in it.
    fn closed_denominator(
        &self,
        state: &SparseState<T>,
        may_be_reduced: bool,
        sums: &mut GroupSums,
    ) {
        let (true, Some((by, of))) =
            (self.wants.denominator, state.program.all.denominator.contraction())
        else {
            return;
        };
        let denominator = &mut sums.denominator;
        if let (ZeroContraction::Gram, Some(gram)) = (of, &self.pass.gram) {
            let factors = &self.engine.factors;
            let all = factors.iter().map(Vec::as_slice);
            let others = self.pass.others.iter().map(|&l| factors[l].as_slice());
            let with: Vec<&[f64]> = all.chain(others).collect();
            let mut gram = contract(&gram.shapes, &gram.contraction, &with);
            gram.iter_mut().for_each(|x| *x *= by);
            add(denominator, gram);
        } else if denominator.is_empty() && may_be_reduced {
            *denominator = self.other_factors();
            denominator.iter_mut().for_each(|x| *x *= by);
            sums.reduced = true;
        } else {
            add(denominator, self.spread(&self.other_factors(), by));
        }
    }

    /// Clears the sums of rows without a single training entry, which are rounding errors.
    fn clear_empty_rows(&self, state: &SparseState<T>, sums: &mut GroupSums) {
        let &GroupPass { group, pass, wants, .. } = self;
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

/// Takes the masked entries off a denominator: their part comes with its sign. What is left of a sum of
/// positive terms cannot be negative, but for rounding.
fn correct(denominator: &mut Vec<f64>, corrections: Vec<f64>) {
    if !corrections.is_empty() {
        add(denominator, corrections);
        denominator.iter_mut().for_each(|x| *x = x.max(0.0));
    }
}

/// Adds the losses of masked entries: withheld ones add their own, and from sums over all entries each
/// takes off what it would be as a zero.
fn add_masked(sums: &mut LossSums, found: &EntryLosses, zero_loss: &MaskedZeroLoss) {
    let EntryLosses { at_datum, at_zero } = *found;
    let less = match zero_loss {
        MaskedZeroLoss::OwnRole(_) => at_zero,
        MaskedZeroLoss::Nothing | MaskedZeroLoss::Training(_) => ByRole::default(),
    };
    sums.validation += at_datum.validation - less.validation;
    sums.held_out += at_datum.held_out - less.held_out;
    if let MaskedZeroLoss::Training(_) = zero_loss {
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
