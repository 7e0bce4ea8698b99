//! Closed forms where the factors are fitted to some entries only: `Σ W V` and `Σ W V Vᵀ` over the
//! entries of each role, without forming ŷ (`nneinfact_core::plan::RolePass`).
//!
//! For every row the columns of all roles but the most frequent one are listed, a byte each
//! (`role_lists.rs`). A pass adds up the rows of the columns' product that a list names, in the precision
//! of the pass over a block of columns and in double precision from block to block (`pass.rs`); the
//! sum of the role that is not listed is that over all columns less the others. Where hardly anything
//! is left of that, it is summed anew.

mod pass;

use std::sync::Arc;

use nneinfact_core::parallel;

use self::pass::{PanelLayout, Slots, SumListed, SumWeighted};
use nneinfact_core::algebra::contract;
use nneinfact_core::data::{Implicit, Prepared, Role, StoredEntries};
use nneinfact_core::engine::Job;
use nneinfact_core::engine::role_lists::{self, ChunkLists, Grid, by_entries, by_roles};
use nneinfact_core::engine::stored_order::StoredPart;
use nneinfact_core::model::Shapes;
use nneinfact_core::plan::{Plan, ROLE_BLOCK, RolePass, RoleTerm};
use nneinfact_simd::{Aligned, Elementwise};

/// Units of parallel work that a pass is cut into at least, where it has as many blocks.
const UNITS: usize = 32;

/// The sums over the entries of each role, for every group of a plan.
pub(crate) struct MaskedSums {
    groups: Vec<MaskedGroup>,
}

/// The same for one group.
struct MaskedGroup {
    pass: RolePass,
    grid: Arc<Grid>,
    source: Source,
    /// What each number of a sum is: a latent index, or a pair of them.
    terms: Vec<(usize, Option<usize>)>,
}

/// Which entries count.
#[derive(Clone)]
enum Source {
    /// Each once, by its role.
    Lists(Arc<Vec<ChunkLists>>),
    /// Training entries by their weights.
    Weights,
}

/// What the sums of a group are.
#[derive(Debug)]
pub(crate) struct RoleTotals {
    /// `Σ W V` or `Σ W V Vᵀ` over the training entries: with [`RolePass::indices`].
    pub train: Vec<f64>,
    /// `Σ ŷ`, or for pairs `Σ ŷ²`, over the entries of each role; 0 where not asked for.
    pub predicted: [f64; 4],
}

impl MaskedSums {
    /// What a job needs of it: `None` where every entry counts once, or nothing has a closed form by
    /// roles.
    pub fn new<T: Elementwise>(job: &Job, term: RoleTerm) -> Option<MaskedSums> {
        let plan = &job.plan;
        let shapes = plan.shapes();
        let strides = match job.data.coo() {
            None => job.data.values().strides().to_vec(),
            Some(_) => plan.data().clone().in_c_order(shapes).strides,
        };
        let listed = listed(&job.data, job.stored.as_deref());
        let mut groups: Vec<MaskedGroup> = Vec::new();
        for group in plan.groups() {
            let pass = RolePass::new(shapes, group, term, listed, T::BYTES)?;
            let same = |other: &&MaskedGroup| {
                other.pass.batch == pass.batch
                    && other.pass.rows == pass.rows
                    && other.pass.columns == pass.columns
            };
            let (grid, source) = match groups.iter().find(same) {
                Some(other) => (Arc::clone(&other.grid), other.source.clone()),
                None => {
                    let grid = Grid::new(shapes, &pass, &strides);
                    let source = Source::new(job, &pass, &grid)?;
                    (Arc::new(grid), source)
                }
            };
            groups.push(MaskedGroup::new(shapes, pass, grid, source));
        }
        Some(MaskedSums { groups })
    }

    /// The pass of a group.
    pub fn pass(&self, group: usize) -> &RolePass {
        &self.groups[group].pass
    }

    /// The sums of a group at these factors, with those of ŷ for each role where `predicted` are
    /// wanted.
    pub fn run<T: Elementwise>(
        &self,
        plan: &Plan,
        data: &Prepared,
        group: usize,
        factors: &[Vec<f64>],
        predicted: bool,
    ) -> RoleTotals {
        self.groups[group].run::<T>(plan.shapes(), data, factors, predicted)
    }
}

/// How many entries lists of a job would hold.
fn listed(data: &Prepared, stored: Option<&StoredEntries>) -> u64 {
    match stored.map(|stored| (stored.implicit(), stored.counts())) {
        Some((Implicit::Missing, counts)) => counts.train,
        Some((Implicit::Zeros, counts)) => counts.masked,
        Some((Implicit::ByRole, _)) | None => data.minority(),
    }
}

impl Source {
    fn new(job: &Job, pass: &RolePass, grid: &Grid) -> Option<Source> {
        let shapes = job.plan.shapes();
        let lists = match (&job.stored, job.data.roles()) {
            (Some(stored), _) if stored.implicit() == Implicit::Missing => {
                by_entries(shapes, pass, grid, stored, (StoredPart::Train, Role::Missing))
            }
            (Some(stored), _) if stored.implicit() == Implicit::Zeros => {
                by_entries(shapes, pass, grid, stored, (StoredPart::Masked, Role::Train))
            }
            _ if job.data.weights().is_some() => return Some(Source::Weights),
            (_, Some(roles)) => by_roles(grid, roles),
            (_, None) => return None,
        };
        Some(Source::Lists(Arc::new(lists)))
    }
}

/// The columns' product of a pass, as it is summed.
struct Columns<T> {
    /// By batch and column, the latent indices.
    values: Vec<f64>,
    latent: usize,
    layout: PanelLayout,
    /// By batch and block.
    panels: Aligned<T>,
    /// What each number of a sum in the panels is multiplied with, a power of two.
    scales: Vec<f64>,
    /// The sums over all columns, by batch.
    all: Vec<f64>,
}

/// Terms less than this, where the largest are near 1, count as 0: single precision would hold them
/// with fewer digits.
fn tiny<T: Elementwise>() -> f64 {
    if T::BYTES == 4 { 1e-36 } else { 0.0 }
}

/// Where less than this is left of a sum over all columns, its digits are lost.
fn lost<T: Elementwise>() -> f64 {
    if T::BYTES == 4 { 1.0 / 64.0 } else { 1e-6 }
}

impl MaskedGroup {
    fn new(shapes: &Shapes, pass: RolePass, grid: Arc<Grid>, source: Source) -> MaskedGroup {
        let k: usize = shapes.sizes(&pass.latent).iter().product();
        let terms = match pass.term {
            RoleTerm::Linear => (0..k).map(|s| (s, None)).collect(),
            RoleTerm::Pairs => (0..k).flat_map(|s| (s..k).map(move |t| (s, Some(t)))).collect(),
        };
        MaskedGroup { pass, grid, source, terms }
    }

    fn run<T: Elementwise>(
        &self,
        shapes: &Shapes,
        data: &Prepared,
        factors: &[Vec<f64>],
        predicted: bool,
    ) -> RoleTotals {
        let pass = &self.pass;
        let of = |list: &[usize]| -> Vec<&[f64]> {
            list.iter().map(|&l| factors[l].as_slice()).collect()
        };
        let values = match pass.column_factors.is_empty() {
            // The product of no factors is 1.
            true => vec![1.0],
            false => contract(shapes, &pass.column_product, &of(&pass.column_factors)),
        };
        let columns: Columns<T> = self.columns(values);
        let rows = match predicted {
            true => contract(shapes, &pass.row_product, &of(&pass.row_factors)),
            false => Vec::new(),
        };
        let chunks = self.grid.chunks();
        let parts: Vec<(Vec<f64>, [f64; 4])> = match &self.source {
            Source::Lists(lists) => parallel::map(chunks.len(), &|at| {
                let rows = predicted.then_some(&rows);
                self.listed(&columns, &lists[at], chunks[at].clone(), rows)
            }),
            Source::Weights => parallel::map(chunks.len(), &|at| {
                (self.weighted(&columns, data, chunks[at].clone()), [0.0; 4])
            }),
        };
        let mut sums = Vec::with_capacity(parts.iter().map(|part| part.0.len()).sum());
        let mut total = [0.0; 4];
        for (part, predicted) in parts {
            sums.extend(part);
            total.iter_mut().zip(predicted).for_each(|(to, x)| *to += x);
        }
        RoleTotals { train: self.fold(sums, factors), predicted: total }
    }

    /// The panels of the columns' product, and its sums over all columns.
    fn columns<T: Elementwise>(&self, values: Vec<f64>) -> Columns<T> {
        let MaskedGroup { grid, terms, .. } = self;
        let latent = values.len() / (grid.batches * grid.columns).max(1);
        let layout = PanelLayout::new::<T>(terms.len());
        let scales = scales(&values, latent, terms);
        let (blocks, tiny) = (grid.blocks(), tiny::<T>());
        let mut panels: Aligned<T> = Aligned::zeros(grid.batches * blocks * layout.block());
        let mut blocks_of_panels: Vec<&mut [T]> = panels.chunks_mut(layout.block()).collect();
        let sums: Vec<Vec<f64>> = parallel::map_each(&mut blocks_of_panels, &|at, panel| {
            let columns = grid.block(at % blocks);
            let first = at / blocks * grid.columns + columns.start;
            let own = &values[first * latent..][..columns.len() * latent];
            let mut sum = vec![0.0; terms.len()];
            let mut row = vec![T::ZERO; terms.len()];
            for (column, v) in own.chunks_exact(latent).enumerate() {
                for (j, &(s, t)) in terms.iter().enumerate() {
                    let term = v[s] * t.map_or(1.0, |t| v[t]);
                    let scaled = term * scales[j];
                    sum[j] += term;
                    row[j] = T::from_f64(if scaled < tiny { 0.0 } else { scaled });
                }
                layout.write(panel, column, &row);
            }
            sum
        });
        let mut all = vec![0.0; grid.batches * terms.len()];
        for (at, sum) in sums.iter().enumerate() {
            let to = &mut all[at / blocks * terms.len()..][..terms.len()];
            to.iter_mut().zip(sum).for_each(|(to, x)| *to += x);
        }
        Columns { values, latent, layout, panels, scales, all }
    }

    /// The panels of a batch.
    fn panels<'a, T: Elementwise>(&self, columns: &'a Columns<T>, batch: usize) -> &'a [T] {
        let len = self.grid.blocks() * columns.layout.block();
        &columns.panels[batch * len..][..len]
    }

    /// The sums over the training entries of some rows, and those of ŷ for each role: `rows` has the
    /// row product, where they are wanted.
    fn listed<T: Elementwise>(
        &self,
        columns: &Columns<T>,
        lists: &ChunkLists,
        chunk: std::ops::Range<usize>,
        rows: Option<&Vec<f64>>,
    ) -> (Vec<f64>, [f64; 4]) {
        let MaskedGroup { grid, terms, .. } = self;
        let slots = if rows.is_some() { Slots::Roles } else { Slots::Train };
        let (width, padded) = (terms.len(), columns.layout.padded());
        let batch = chunk.start / grid.rows.max(1);
        let blocks = grid.blocks();
        // The cut is a function of the sizes alone.
        let ranges =
            UNITS.div_ceil(grid.batches * grid.rows.div_ceil(role_lists::ROWS)).min(blocks);
        let long = blocks.div_ceil(ranges.max(1)).max(1);
        let parts: Vec<Vec<f64>> = parallel::map(blocks.div_ceil(long), &|part| {
            let first = part * long;
            let mut to = vec![0.0; chunk.len() * slots.count() * padded];
            nneinfact_simd::arch().dispatch(SumListed {
                lists,
                layout: &columns.layout,
                panels: self.panels(columns, batch),
                blocks: first..blocks.min(first + long),
                slots,
                to: &mut to,
            });
            to
        });
        let all = &columns.all[batch * width..][..width];
        let mut train = vec![0.0; chunk.len() * width];
        let mut predicted = [0.0; 4];
        let mut sums = [vec![0.0; width], vec![0.0; width], vec![0.0; width], vec![0.0; width]];
        for (row, train) in train.chunks_exact_mut(width).enumerate() {
            for (slot, sum) in sums.iter_mut().take(slots.count()).enumerate() {
                let at = (row * slots.count() + slot) * padded;
                for (j, sum) in sum.iter_mut().enumerate() {
                    *sum = parts.iter().map(|part| part[at + j]).sum::<f64>() / columns.scales[j];
                }
            }
            let implied = lists.implied[row];
            match rows {
                None if implied == Role::Train => {
                    let left = Left { all, listed: &sums[..1] };
                    self.left(columns, lists, (batch, row), &left, train);
                }
                None => train.copy_from_slice(&sums[0]),
                Some(rows) => {
                    let mut left = vec![0.0; width];
                    let listed = Left { all, listed: &sums };
                    self.left(columns, lists, (batch, row), &listed, &mut left);
                    sums[implied as usize] = left;
                    train.copy_from_slice(&sums[Role::Train as usize]);
                    let own = &rows[(chunk.start + row) * columns.latent..][..columns.latent];
                    for (predicted, sum) in predicted.iter_mut().zip(&sums) {
                        *predicted += self.inner(own, sum);
                    }
                }
            }
            // The next row begins with zeros, whichever role is implied there.
            sums.iter_mut().for_each(|sum| sum.fill(0.0));
        }
        (train, predicted)
    }

    /// `Σ ŷ` or `Σ ŷ²` of a row from its part of the row product.
    fn inner(&self, row: &[f64], sum: &[f64]) -> f64 {
        let term = |(&(s, t), &x): (&(usize, Option<usize>), &f64)| match t {
            None => row[s] * x,
            Some(t) if s == t => row[s] * row[s] * x,
            Some(t) => 2.0 * row[s] * row[t] * x,
        };
        self.terms.iter().zip(sum).map(term).sum()
    }

    /// What the columns that a row lists leave of all.
    fn left<T: Elementwise>(
        &self,
        columns: &Columns<T>,
        lists: &ChunkLists,
        (batch, row): (usize, usize),
        sums: &Left<'_>,
        to: &mut [f64],
    ) {
        let mut doubtful = false;
        for (j, (to, &all)) in to.iter_mut().zip(sums.all).enumerate() {
            *to = all - sums.listed.iter().map(|listed| listed[j]).sum::<f64>();
            doubtful |= *to < lost::<T>() * all;
        }
        if doubtful {
            self.sum_anew(columns, lists, (batch, row), to);
        }
    }

    /// The sum over the entries of a row that are not listed, one by one.
    fn sum_anew<T: Elementwise>(
        &self,
        columns: &Columns<T>,
        lists: &ChunkLists,
        (batch, row): (usize, usize),
        to: &mut [f64],
    ) {
        let MaskedGroup { grid, terms, .. } = self;
        to.fill(0.0);
        for block in 0..grid.blocks() {
            let mut listed = [false; ROLE_BLOCK];
            lists.row(block, row).iter().for_each(|&place| listed[usize::from(place)] = true);
            for (column, _) in grid.block(block).zip(listed).filter(|(_, listed)| !listed) {
                let v = &columns.values[(batch * grid.columns + column) * columns.latent..];
                for (to, &(s, t)) in to.iter_mut().zip(terms) {
                    *to += v[s] * t.map_or(1.0, |t| v[t]);
                }
            }
        }
    }

    /// The weighted sums over the training entries of some rows.
    fn weighted<T: Elementwise>(
        &self,
        columns: &Columns<T>,
        data: &Prepared,
        chunk: std::ops::Range<usize>,
    ) -> Vec<f64> {
        let MaskedGroup { grid, terms, .. } = self;
        let (width, padded) = (terms.len(), columns.layout.padded());
        let panels = self.panels(columns, chunk.start / grid.rows.max(1));
        let mut sums = vec![0.0; chunk.len() * padded];
        let mut weights: Aligned<T> = Aligned::zeros(chunk.len() * ROLE_BLOCK);
        for (block, panel) in panels.chunks_exact(columns.layout.block()).enumerate() {
            grid.weights(data, &chunk, block, &mut weights);
            nneinfact_simd::arch().dispatch(SumWeighted {
                layout: &columns.layout,
                panel,
                weights: &weights,
                to: &mut sums,
            });
        }
        let mut train = Vec::with_capacity(chunk.len() * width);
        for sums in sums.chunks_exact(padded) {
            train.extend(sums.iter().zip(&columns.scales).map(|(x, scale)| x / scale));
        }
        train
    }

    /// From sums by row to those of the group.
    fn fold(&self, sums: Vec<f64>, factors: &[Vec<f64>]) -> Vec<f64> {
        let RolePass { fold, fold_factors, shapes, term, .. } = &self.pass;
        let others = fold_factors.iter().map(|&l| factors[l].as_slice());
        match term {
            RoleTerm::Linear => {
                let inputs: Vec<&[f64]> = std::iter::once(sums.as_slice()).chain(others).collect();
                contract(shapes, fold, &inputs)
            }
            RoleTerm::Pairs => {
                let full = self.squares(&sums);
                let inputs: Vec<&[f64]> =
                    std::iter::once(full.as_slice()).chain(others.clone()).chain(others).collect();
                contract(shapes, fold, &inputs)
            }
        }
    }

    /// Sums of pairs as a symmetric matrix for each row.
    fn squares(&self, sums: &[f64]) -> Vec<f64> {
        let width = self.terms.len();
        let k = self.terms.last().map_or(1, |&(s, _)| s + 1);
        let mut full = vec![0.0; sums.len() / width * k * k];
        let few = parallel::ENTRIES.div_ceil(k * k);
        parallel::chunks(&mut full, few * k * k, &|first, full| {
            let sums = sums[first / (k * k) * width..].chunks(width);
            for (full, sums) in full.chunks_mut(k * k).zip(sums) {
                for (&(s, t), &x) in self.terms.iter().zip(sums) {
                    let t = t.unwrap_or(s);
                    full[s * k + t] = x;
                    full[t * k + s] = x;
                }
            }
        });
        full
    }
}

/// A sum over all entries of a row, and those over listed ones.
struct Left<'a> {
    all: &'a [f64],
    listed: &'a [Vec<f64>],
}

/// Powers of two that bring the largest of each number of a sum near 1.
fn scales(values: &[f64], latent: usize, terms: &[(usize, Option<usize>)]) -> Vec<f64> {
    let mut largest = vec![0.0f64; latent];
    for row in values.chunks_exact(latent) {
        largest.iter_mut().zip(row).for_each(|(most, &x)| *most = most.max(x));
    }
    let exponent = |x: f64| if x > 0.0 && x.is_finite() { -x.log2().floor() as i32 } else { 0 };
    let exponents: Vec<i32> = largest.into_iter().map(exponent).collect();
    let of = |&(s, t): &(usize, Option<usize>)| {
        // As far as a factor of a double goes.
        2f64.powi((exponents[s] + t.map_or(0, |t| exponents[t])).clamp(-1000, 1000))
    };
    terms.iter().map(of).collect()
}

#[cfg(test)]
mod tests;
