//! Exact steps under half the squared distance: coordinate descent on a group's quadratic objective
//! in place of majorization.

use crate::CpuEngine;
use crate::dense::{DenseSums, Wants};
use crate::sparse::GroupSums;
use nneinfact_core::algebra::quadratic::{self, Objective};
use nneinfact_core::algebra::rearrange;
use nneinfact_core::engine::{Job, LossSums};
use nneinfact_core::error::{Error, Result};
use nneinfact_core::plan::Quadratic;
use nneinfact_simd::Elementwise;

/// What an exact fit of half the squared distance needs.
#[derive(Clone)]
pub(crate) struct Exact {
    /// Whether every row of an output has a Q of its own.
    pub by_rows: bool,
    /// For every group.
    objectives: Vec<Quadratic>,
    /// Half the sum of squares of the data, in the engine's unit.
    squares: f64,
    /// A loss that is a smaller share of that has lost its digits in the sum of larger ones.
    least: f64,
}

impl Exact {
    /// `None` where the objective of a group is too large to write down.
    pub fn new<T: Elementwise>(job: &Job) -> Option<Exact> {
        let (groups, shapes) = (job.plan.groups().iter(), job.plan.shapes());
        let by_rows = counts_differ(job);
        let objective = |group| match by_rows {
            // How large it is was looked at before.
            true => Quadratic::by_rows(shapes, group, f64::INFINITY),
            false => Quadratic::new(shapes, group),
        };
        let objectives: Option<Vec<Quadratic>> = groups.map(objective).collect();
        let sum = match &job.stored {
            // Losses are summed entry by entry.
            _ if by_rows => 0.0,
            Some(stored) => stored.entries().sum_of_squares(),
            None => job.data.values().sum_of_squares(),
        };
        let squares = 0.5 * sum * job.value_scale * job.value_scale;
        let least = if T::BYTES == 4 { 1e-3 } else { 1e-11 };
        Some(Exact { by_rows, objectives: objectives?, squares, least })
    }
}

/// Whether entries differ in what they count: not all are fitted to, or they have weights.
fn counts_differ(job: &Job) -> bool {
    job.data.weights().is_some() || !job.data.is_all_train()
}

impl<T: Elementwise> CpuEngine<T> {
    pub(crate) fn objective_of<'a>(
        &'a self,
        exact: &'a Exact,
        group: usize,
        numerator: &'a [f64],
        gram: &'a [f64],
    ) -> Objective<'a> {
        Objective {
            shapes: self.job.plan.shapes(),
            group: &self.job.plan.groups()[group],
            quadratic: &exact.objectives[group],
            constraints: &self.constraints,
            numerator,
            gram,
            differences: &self.differences,
        }
    }

    /// A pass of an exact fit: the data enter the numerator alone.
    pub(crate) fn exact(&mut self, exact: &Exact, group: usize, losses: bool) -> Result<GroupSums> {
        if exact.by_rows {
            return self.exact_by_rows(exact, group, losses);
        }
        let wants = Wants { numerator: true, ..Wants::default() };
        let numerator = match self.sparse {
            Some(_) => self.sparse_pass(group, wants).numerator,
            None => self.run(group, wants)?.numerator,
        };
        let gram = quadratic::gram(&exact.objectives[group], &self.factors);
        let mut sums = LossSums::default();
        if losses {
            let objective = self.objective_of(exact, group, &numerator, &gram);
            let train = exact.squares + objective.value(&self.factors);
            sums = match train < exact.least * exact.squares {
                true => self.losses_at(group)?,
                false => LossSums { train: train * self.job.unit * self.job.unit, ..sums },
            };
        }
        Ok(GroupSums { numerator, denominator: gram, reduced: false, losses: sums })
    }

    /// The same where every row of the output has a Q of its own. Losses are those of the pass.
    fn exact_by_rows(&mut self, exact: &Exact, group: usize, losses: bool) -> Result<GroupSums> {
        let wants = Wants { numerator: true, denominator: false, losses };
        let mut sums = match self.sparse {
            Some(_) => self.sparse_pass(group, wants),
            None => {
                let DenseSums { numerator, losses, .. } = self.run(group, wants)?;
                GroupSums { numerator, losses, ..GroupSums::default() }
            }
        };
        let Some(masked) = &self.masked else {
            return Err(Error::Internal("exact steps by rows without their sums".into()));
        };
        if sums.denominator.is_empty() {
            let (plan, data) = (&self.job.plan, &self.job.data);
            sums.denominator = masked.run::<T>(plan, data, group, &self.factors, false).train;
        }
        let quadratic = &exact.objectives[group];
        let (from, onto) = (masked.pass(group).indices(), quadratic.gram.output());
        sums.denominator = rearrange(&quadratic.shapes, from, &sums.denominator, onto);
        Ok(sums)
    }

    /// As [`Engine::row_grams`](nneinfact_core::engine::Engine::row_grams).
    pub(crate) fn grams_of_rows(&self) -> Result<Vec<f64>> {
        let (Some(exact), Some((group, sums))) = (&self.exact, &self.last) else {
            return Err(Error::Internal("no exact pass has left quadratic forms".into()));
        };
        let (own, shapes) = (&exact.objectives[*group], self.job.plan.shapes());
        let group = &self.job.plan.groups()[*group];
        let &[l] = &group.factors[..] else {
            return Err(Error::Internal("forms of rows of several factors at once".into()));
        };
        let mut grams = match exact.by_rows {
            true => sums.denominator.clone(),
            // All rows that see the same other factors have the same.
            false => match Quadratic::by_rows(shapes, group, f64::INFINITY) {
                Some(rows) => {
                    rearrange(&own.shapes, own.gram.output(), &sums.denominator, rows.gram.output())
                }
                None => return Err(Error::Internal("quadratic forms without indices".into())),
            },
        };
        let scale = self.job.objective_unit() * self.scales[l] * self.scales[l];
        grams.iter_mut().for_each(|x| *x *= scale);
        Ok(grams)
    }
}
