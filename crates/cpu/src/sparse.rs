//! Passes over a list of cells, put together: the sums over the list, and what all other cells add.

use std::sync::Arc;

use super::sampled::{ByRole, Cells, Listed, Outputs, Rows, Sampler, StoredPart};
use super::{CpuEngine, Source, Wants, largest, normalizers, pass};
use nneinfact_core::algebra::contract::{Walk, contract, rearrange};
use nneinfact_core::algebra::update::Denominator;
use nneinfact_core::data::{Dense, Implicit, StoredEntries};
use nneinfact_core::engine::{Job, LossSums, needs};
use nneinfact_core::loss::{AtZero, Expr, Loss, Tape, ZeroTerm};
use nneinfact_core::model::Shapes;
use nneinfact_core::plan::{Group, KhatriRaoTable, SparsePass};
use nneinfact_simd::Elementwise;

/// The cells of a fit as its passes read them.
pub(super) struct Lists<T> {
    rest: Implicit,
    zero: AtZero,
    /// For each group.
    train: Vec<Cells<T>>,
    /// For each group, or for the first only where they add to losses alone. In double precision:
    /// what they add is taken off sums over all cells, of which little may be left.
    exceptions: Vec<Cells<f64>>,
    train_expressions: Expressions,
    exception_expressions: Expressions,
    tapes: Vec<((bool, Outputs), Tape)>,
    grid_tapes: Vec<(Wants, Tape)>,
    /// Off the list, numerators, denominators and losses take a dense pass over the cells.
    grid: Wants,
}

/// What a pass over a list adds to each sum; `None` where nothing.
struct Expressions {
    numerator: Option<Expr>,
    denominator: Option<Expr>,
    loss: Expr,
    /// The loss at a datum of 0, which the sum over all cells holds.
    zero_loss: Option<Expr>,
}

impl Expressions {
    /// Of the cells that the factors are fitted to: beyond what they would add as zeros.
    fn train(loss: &Loss, zero: &AtZero, rest: Implicit) -> Expressions {
        let off_list = rest != Implicit::Missing;
        let beyond = |at: &Expr, zero: &ZeroTerm| match off_list {
            true if zero.is_zero() => at.clone(),
            true => at - zero.expr(),
            false => at.clone(),
        };
        let needed = !off_list || loss.denominator_depends_on_x();
        Expressions {
            numerator: Some(beyond(loss.a(), &zero.a)),
            denominator: needed.then(|| beyond(loss.b(), &zero.b)),
            loss: loss.loss().clone(),
            zero_loss: off_list.then(|| zero.loss.expr().clone()),
        }
    }

    /// Of the others: what they do not add although the sum over all cells has it.
    fn exceptions(loss: &Loss, zero: &AtZero, rest: Implicit) -> Expressions {
        let less = |zero: &ZeroTerm| {
            (rest == Implicit::Zeros && !zero.is_zero()).then(|| -zero.expr().clone())
        };
        Expressions {
            numerator: less(&zero.a),
            denominator: less(&zero.b),
            loss: loss.loss().clone(),
            zero_loss: (rest != Implicit::Missing).then(|| zero.loss.expr().clone()),
        }
    }

    fn outputs(&self, sums: bool, losses: bool) -> Outputs {
        Outputs {
            numerator: sums && self.numerator.is_some(),
            denominator: sums && self.denominator.is_some(),
            losses,
            zero_losses: losses && self.zero_loss.is_some(),
        }
    }

    fn tape(&self, outputs: Outputs) -> Tape {
        let list = [
            self.numerator.as_ref().filter(|_| outputs.numerator),
            self.denominator.as_ref().filter(|_| outputs.denominator),
            Some(&self.loss).filter(|_| outputs.losses),
            self.zero_loss.as_ref().filter(|_| outputs.zero_losses),
        ];
        Tape::compile(&list.into_iter().flatten().collect::<Vec<_>>())
    }
}

impl<T: Elementwise> Lists<T> {
    pub fn new(job: &Job, list: &StoredEntries) -> Lists<T> {
        let (plan, loss) = (&job.plan, &job.loss);
        let zero = loss.at_zero();
        let rest = list.implicit();
        let (_, [numerator, denominator, losses]) = needs(&zero, rest);
        let sides: Vec<Dense> =
            loss.entry_parameters().iter().map(|s| Dense::from_array(s).in_c_order()).collect();
        let scale = 1.0 / job.unit;
        let passes = plan.sparse_passes();
        let exceptions = match (list.counts().masked, rest) {
            (0, _) => &[],
            (_, Implicit::Zeros) => passes,
            // They only have a loss.
            _ => &passes[..1.min(passes.len())],
        };
        let shapes = plan.shapes();
        let train = |p| Cells::new(shapes, p, list, StoredPart::Train, &sides, scale);
        let exception = |p| Cells::new(shapes, p, list, StoredPart::Masked, &sides, scale);
        Lists {
            rest,
            train: passes.iter().map(train).collect(),
            exceptions: exceptions.iter().map(exception).collect(),
            train_expressions: Expressions::train(loss, &zero, rest),
            exception_expressions: Expressions::exceptions(loss, &zero, rest),
            tapes: Vec::new(),
            grid_tapes: Vec::new(),
            grid: Wants { numerator, denominator, losses },
            zero,
        }
    }

    fn prepare_tape(&mut self, train: bool, outputs: Outputs) -> usize {
        let key = (train, outputs);
        if let Some(at) = self.tapes.iter().position(|(k, _)| *k == key) {
            return at;
        }
        let expressions = if train { &self.train_expressions } else { &self.exception_expressions };
        let tape = expressions.tape(outputs);
        self.tapes.push((key, tape));
        self.tapes.len() - 1
    }

    fn prepare_grid(&mut self, wants: Wants) -> usize {
        if let Some(at) = self.grid_tapes.iter().position(|(k, _)| *k == wants) {
            return at;
        }
        let list = [
            Some(self.zero.a.expr()).filter(|_| wants.numerator),
            Some(self.zero.b.expr()).filter(|_| wants.denominator),
            Some(self.zero.loss.expr()).filter(|_| wants.losses),
        ];
        let tape = Tape::compile(&list.into_iter().flatten().collect::<Vec<_>>());
        self.grid_tapes.push((wants, tape));
        self.grid_tapes.len() - 1
    }
}

/// What of a pass is computed.
#[derive(Clone, Copy, Default)]
pub(super) struct Parts {
    pub numerator: bool,
    pub denominator: bool,
    pub losses: bool,
}

impl Parts {
    pub fn all(losses: bool) -> Parts {
        Parts { numerator: true, denominator: true, losses }
    }
}

/// What a pass over a list leaves.
#[derive(Default)]
pub(super) struct Outcome {
    pub numerator: Vec<f64>,
    pub denominator: Vec<f64>,
    /// Whether the denominator has the letters of the plan's closed form only.
    pub reduced: bool,
    pub sums: LossSums,
}

impl Outcome {
    /// The denominator with its contractions, for a group and its pass over the list.
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

impl<T: Elementwise> CpuEngine<T> {
    /// Sums over all cells for a group, `sums` being numerator and denominator.
    pub(super) fn sampled(&mut self, group: usize, parts: Parts) -> Outcome {
        let Parts { numerator: sums, denominator: below, losses } = parts;
        let plan = Arc::clone(&self.job.plan);
        let shapes = plan.shapes();
        let pass = &plan.sparse_passes()[group];
        let Some(mut lists) = self.lists.take() else {
            return Outcome::default();
        };
        let table = |table: &KhatriRaoTable| -> Vec<f64> {
            let inputs: Vec<&[f64]> =
                table.factors.iter().map(|&l| self.factors[l].as_slice()).collect();
            contract(shapes, &table.contraction, &inputs)
        };
        let products: Vec<Vec<f64>> =
            std::iter::once(&pass.output).chain(&pass.operands).map(table).collect();
        let inner = pass.contracted_size(shapes);
        let floor = self.job.guards.prediction_floor / self.job.unit;
        let (onto, width) = onto(shapes, pass);
        let size: usize = shapes.sizes(&pass.indices).iter().product();
        let mut numerator = vec![0.0; if sums { size } else { 0 }];
        let mut train = lists.train_expressions.outputs(sums, losses);
        train.denominator &= below;
        let at = lists.prepare_tape(true, train);
        let mut denominator = vec![0.0; if train.denominator { size } else { 0 }];

        let largest: Vec<f64> = products.iter().map(|t| largest(t)).collect();
        let scales = normalizers(&largest);
        let rows: Vec<Rows<T>> =
            products.iter().zip(&scales).map(|(p, &s)| Rows::new(p, inner, s)).collect();
        let sampler = Sampler {
            cells: &lists.train[group],
            tables: &rows,
            inner,
            onto: &onto,
            width,
            floor: T::from_f64(floor),
            tape: &lists.tapes[at].1,
            outputs: train,
        };
        let listed = sampler.run(&mut numerator, &mut denominator);
        // Sums over the other tables carry their scales.
        let others: f64 = scales[1..].iter().product();
        if others != 1.0 {
            numerator.iter_mut().chain(&mut denominator).for_each(|x| *x /= others);
        }
        let mut found =
            LossSums { train: listed.losses.train - listed.zeros.train, ..LossSums::default() };

        let mut corrections = Vec::new();
        let lossy = losses && !lists.exceptions.is_empty();
        let outputs =
            lists.exception_expressions.outputs(sums && lists.rest == Implicit::Zeros, lossy);
        if let Some(cells) = lists.exceptions.get(group).or(lists.exceptions.first())
            && outputs != Outputs::default()
            && !cells.is_empty()
        {
            // The list of the first group goes with its tables.
            let own = lists.exceptions.get(group).is_some();
            let at = if own { group } else { 0 };
            let tape = lists.prepare_tape(false, outputs);
            let first = &plan.sparse_passes()[at];
            let again: Vec<Vec<f64>> = match own {
                true => Vec::new(),
                false => std::iter::once(&first.output).chain(&first.operands).map(table).collect(),
            };
            let exact = if own { &products } else { &again };
            let inner = first.contracted_size(shapes);
            let rows: Vec<Rows<f64>> = exact.iter().map(|p| Rows::new(p, inner, 1.0)).collect();
            if outputs.denominator {
                corrections = vec![0.0; size];
            }
            let (onto, width) = if own { (onto, width) } else { self::onto(shapes, first) };
            let sampler = Sampler {
                cells: &lists.exceptions[at],
                tables: &rows,
                inner,
                onto: &onto,
                width,
                floor,
                tape: &lists.tapes[tape].1,
                outputs,
            };
            let listed = sampler.run(&mut numerator, &mut corrections);
            add_exceptions(&mut found, &listed, lists.rest);
        }

        let wants = Wants {
            numerator: sums && lists.grid.numerator,
            denominator: below && lists.grid.denominator,
            losses: losses && lists.grid.losses,
        };
        let mut reduced = false;
        if wants != (Wants { numerator: false, denominator: false, losses: false }) {
            let at = lists.prepare_grid(wants);
            let tape = lists.grid_tapes[at].1.clone();
            let grid = self.grid(group, wants, &tape, lists.rest);
            found.train += grid.sums.train;
            found.validation += grid.sums.validation;
            found.held_out += grid.sums.held_out;
            let letters = &plan.passes()[group].output.indices;
            for (to, from) in
                [(&mut numerator, grid.numerator), (&mut denominator, grid.denominator)]
            {
                if !from.is_empty() {
                    add(to, rearrange(shapes, letters, &from, &pass.indices));
                }
            }
        }
        if lists.rest == Implicit::Zeros {
            let all: Vec<&[f64]> = self.factors.iter().map(Vec::as_slice).collect();
            let inputs: Vec<&[f64]> = pass.others.iter().map(|&l| all[l]).collect();
            let sum = || contract(shapes, &pass.closed, &inputs);
            let spread = |sum: &[f64], by: f64| -> Vec<f64> {
                let full = rearrange(shapes, pass.closed.output(), sum, &pass.indices);
                full.into_iter().map(|x| x * by).collect()
            };
            if sums && !lists.grid.numerator && !lists.zero.a.is_zero() {
                let by = lists.zero.a.coefficient(0.0).unwrap_or(0.0);
                add(&mut numerator, spread(&sum(), by));
            }
            if below && !lists.grid.denominator {
                let by = lists.zero.b.monomial().map_or(0.0, |m| m.coefficient);
                if let (Some(_), Some(gram)) = (lists.zero.b.coefficient(1.0), &pass.gram) {
                    let with: Vec<&[f64]> = all.iter().chain(&inputs).copied().collect();
                    let mut gram = contract(&gram.shapes, &gram.contraction, &with);
                    gram.iter_mut().for_each(|x| *x *= by);
                    add(&mut denominator, gram);
                } else if denominator.is_empty() && corrections.is_empty() {
                    denominator = sum();
                    denominator.iter_mut().for_each(|x| *x *= by);
                    reduced = true;
                } else {
                    add(&mut denominator, spread(&sum(), by));
                }
            }
            if losses && !lists.grid.losses {
                found.train += self.total_loss(&lists.zero.loss);
            }
            if !corrections.is_empty() {
                add(&mut denominator, corrections);
                denominator.iter_mut().for_each(|x| *x = x.max(0.0));
            }
            // Rows without a single training cell have sums of rounding errors.
            let width = width_of(shapes, pass);
            let rows: f64 = shapes.sizes(&pass.output.rows).iter().map(|&n| n as f64).product();
            let entries = shapes.volume(shapes.model().observed());
            if sums && let Some(cells) = lists.exceptions.get(group) {
                for row in cells.rows_of((entries / rows) as u64) {
                    for to in [&mut numerator, &mut denominator] {
                        if to.len() == size {
                            to[row * width..][..width].fill(0.0);
                        }
                    }
                }
            }
        }
        let unit = self.job.objective_unit();
        found.train *= unit;
        found.validation *= unit;
        found.held_out *= unit;
        self.lists = Some(lists);
        Outcome { numerator, denominator, reduced, sums: found }
    }

    /// The sum over all cells of the loss at a datum of 0, where it has a closed form.
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

    /// A dense pass over all cells as zeros.
    fn grid(&self, group: usize, wants: Wants, tape: &Tape, rest: Implicit) -> pass::Outcome {
        let plan = &self.job.plan;
        let (tensors, others) = self.operands(&plan.passes()[group]);
        let views: Vec<&[T]> = tensors.iter().map(Vec::as_slice).collect();
        let source = Source {
            data: &self.job.data,
            roles: self.job.data.roles().filter(|_| rest == Implicit::ByRole),
            zeros: true,
            sides: &self.sides,
            scale: T::ONE,
            floor: T::from_f64(self.job.guards.prediction_floor / self.job.unit),
            tape,
            wants,
            schedule: None,
        };
        let mut outcome = pass::run(&self.geometries[group], &source, &views);
        outcome.divide(others);
        outcome
    }
}

/// The losses that exceptions add: withheld ones their own, and in sums over all cells each takes
/// off what it would be as a zero.
fn add_exceptions(sums: &mut LossSums, listed: &Listed, rest: Implicit) {
    let Listed { losses, zeros } = *listed;
    let less = if rest == Implicit::ByRole { zeros } else { ByRole::default() };
    sums.validation += losses.validation - less.validation;
    sums.held_out += losses.held_out - less.held_out;
    if rest == Implicit::Zeros {
        sums.train -= zeros.all();
    }
}

/// Where each inner letter's index stands in a row of numerator and denominator, and the length of
/// such a row.
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
