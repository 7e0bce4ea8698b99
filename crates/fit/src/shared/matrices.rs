//! Data that are cut into slabs as matrices, for a start from singular vectors.
//!
//! Where the mode that the data are cut along is among the columns of a matrix M, `M Mᵀ` and `M X` add up
//! over the slabs as everything else does. Where it is among the rows, they do not: then the columns are
//! cut, into as many lanes as there are slabs, a lane belongs to the process with the slab of its number,
//! and every process sends to each what it has in that one's columns, some at a time. So `M Mᵀ` is a sum
//! over lanes, in an order that does not depend on the number of processes.

use std::borrow::Cow;
use std::cell::RefCell;
use std::ops::Range;

use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayView2, Axis};

use super::link::Link;
use super::rows::Rows;
use super::slabs::Split;
use super::tree::Numbers;
use super::whole::{SlabData, Whole};
use crate::start::entry_matrix::{self, Base, Entry};
use crate::start::matrices::{DataMatrices, Unfolded};
use crate::start::refine::with_data;
use crate::start::unfold::{DataSource, Unfolding};
use nneinfact_core::data::{Implicit, StoredEntries};
use nneinfact_core::error::{Error, Result};
use nneinfact_core::model::{Index, Shapes};
use nneinfact_core::parallel;

/// The slabs of this process, and the way to the others.
pub(super) struct SlabMatrices<'a> {
    link: RefCell<&'a mut Link>,
    split: &'a Split,
    /// In the order of the slabs' numbers.
    slabs: Vec<DataSource<'a>>,
    /// What entries that are in no list are, where all slabs are lists.
    base: Option<f64>,
}

/// Entries of a matrix that a process sends for a lane at a time, of all processes together.
const CHUNK: usize = 1 << 18;
/// Rows of a result that are computed at a time.
const PANEL: usize = 64;
/// Bytes of an entry of a list on its way.
const ENTRY: usize = 32;

impl<'a> SlabMatrices<'a> {
    /// Those of the slabs that this process has.
    ///
    /// # Errors
    /// As [`DataSource::new`], of any process.
    pub fn new(
        link: &'a mut Link,
        split: &'a Split,
        slabs: &'a [SlabData],
        whole: &Whole,
    ) -> Result<SlabMatrices<'a>> {
        // As lists where all slabs are, and leave out the same.
        let code = |slab: &SlabData| -> f64 {
            let counts = slab.data.stored_counts(slab.loss.accepts_zeros()).into_iter().next();
            match counts.filter(|_| slab.data.coo().is_some()).map(|counts| counts.implicit) {
                Some(Implicit::Missing) => 0.0,
                Some(Implicit::Zeros) => 1.0,
                Some(Implicit::ByRole) | None => 2.0,
            }
        };
        let codes = slabs.iter().map(|slab| Some(vec![code(slab)])).collect();
        let codes = link.join(&vec![1; split.ranges.len()], codes)?;
        let implicit = match codes.first() {
            Some(&first) if codes.iter().any(|&code| code != first) => None,
            Some(0.0) => Some(Implicit::Missing),
            Some(1.0) => Some(Implicit::Zeros),
            _ => None,
        };
        let source = |slab: &'a SlabData| {
            let list = implicit.map(|implicit| slab.data.stored(implicit));
            let list: Option<Cow<'a, StoredEntries>> = list.map(Cow::Owned);
            DataSource::of_slab(&slab.data, list, whole.largest, whole.plain_mean)
        };
        let sources: Result<Vec<DataSource<'a>>> = slabs.iter().map(source).collect();
        let slabs = link.together(sources)?;
        let scale =
            if whole.largest > 0.0 && whole.largest.is_finite() { whole.largest } else { 1.0 };
        let base = implicit.map(|implicit| match implicit {
            Implicit::Missing => whole.plain_mean / scale,
            Implicit::Zeros | Implicit::ByRole => 0.0,
        });
        Ok(SlabMatrices { link: RefCell::new(link), split, slabs, base })
    }

    /// A number of every slab and entry, added up.
    fn sum(&self, count: usize, own: Vec<Numbers>) -> Result<Numbers> {
        self.link.borrow_mut().sum(count, own.into_iter().map(Some).collect())
    }

    /// What the slabs have of their rows along an axis, as one array of this shape.
    fn join(&self, shape: &[usize], axis: usize, own: Vec<Numbers>) -> Result<Numbers> {
        let (rows, ranges) = (Rows::new(shape, axis), &self.split.ranges);
        let counts: Vec<usize> = ranges.iter().map(|range| rows.entries(range.len())).collect();
        let all = self.link.borrow_mut().join(&counts, own.into_iter().map(Some).collect())?;
        Ok(rows.joined(&all, ranges))
    }

    /// The indices of the slabs that this process has.
    fn own_ranges(&self) -> &[Range<usize>] {
        &self.split.ranges[self.split.own()]
    }
}

impl<'a> DataMatrices for SlabMatrices<'a> {
    type Matrix<'b>
        = SlabUnfolding<'b, 'a>
    where
        Self: 'b;

    fn modes(&self) -> usize {
        self.split.shape.len()
    }

    fn unfold(&self, rows: &[usize]) -> Result<SlabUnfolding<'_, 'a>> {
        let (rows, columns): (Vec<usize>, Vec<usize>) =
            (0..self.modes()).partition(|mode| rows.contains(mode));
        let place = |modes: &[usize]| modes.iter().position(|&mode| mode == self.split.mode);
        let cut = match (place(&rows), place(&columns)) {
            (Some(axis), _) => Cut::Rows(axis),
            (None, axis) => Cut::Columns(axis.unwrap_or(0)),
        };
        let sizes = |modes: &[usize]| -> Vec<usize> {
            modes.iter().map(|&mode| self.split.shape[mode]).collect()
        };
        Ok(SlabUnfolding {
            slabs: self.slabs.iter().map(|slab| slab.matrix(&rows)).collect(),
            row_sizes: sizes(&rows),
            column_sizes: sizes(&columns),
            cut,
            lanes: RefCell::new(None),
            all: self,
        })
    }

    fn with_components(
        &self,
        shapes: &Shapes,
        factors: &[Vec<f64>],
        onto: &[Index],
    ) -> Result<Option<Vec<f64>>> {
        let model = shapes.model();
        let cut = model.output()[self.split.mode];
        let count = shapes.sizes(onto).iter().product();
        let ranks: Vec<(char, usize)> =
            model.latent().iter().map(|x| (char::from(x), shapes.size(x))).collect();
        let mut found = Vec::new();
        for (slab, (number, range)) in
            self.slabs.iter().zip(self.split.own().zip(self.own_ranges()))
        {
            let own = Shapes::new(model, &self.split.slab_shape(number), &ranks)?;
            let of = |(l, factor): (usize, &Vec<f64>)| {
                let axis = model.factors()[l].iter().position(|&index| index == cut);
                match axis {
                    Some(axis) => Rows::new(&shapes.factor(l), axis).cut(factor, range),
                    None => factor.clone(),
                }
            };
            let factors: Vec<Vec<f64>> = factors.iter().enumerate().map(of).collect();
            // Behind the numbers stands whether there are none.
            found.push(match with_data(&own, slab, &factors, onto) {
                Some(mut numbers) => {
                    numbers.push(0.0);
                    numbers
                }
                None => {
                    let mut none = vec![0.0; count];
                    none.push(1.0);
                    none
                }
            });
        }
        let mut all = self.sum(count + 1, found)?;
        Ok((all.pop() == Some(0.0)).then_some(all))
    }
}

/// The mode that the data are cut along, counted in its side of a matrix.
#[derive(Clone, Copy)]
enum Cut {
    Rows(usize),
    Columns(usize),
}

/// Data that are cut into slabs as a matrix.
pub(super) struct SlabUnfolding<'b, 'a> {
    all: &'b SlabMatrices<'a>,
    slabs: Vec<Unfolding<'b>>,
    row_sizes: Vec<usize>,
    column_sizes: Vec<usize>,
    cut: Cut,
    /// Of lists, the entries of the lanes that this process has, once they are there.
    lanes: RefCell<Option<Vec<Vec<Entry>>>>,
}

impl Unfolded for SlabUnfolding<'_, '_> {
    fn rows(&self) -> usize {
        self.row_sizes.iter().product()
    }

    fn columns(&self) -> usize {
        // Of a list there may be more than can be counted.
        self.column_sizes.iter().fold(1, |all: usize, &n| all.saturating_mul(n))
    }

    fn gram(&self) -> Result<Array2<f64>> {
        let rows = self.rows();
        let Cut::Rows(axis) = self.cut else {
            return self.added((rows, rows), |slab, _| slab.gram());
        };
        if self.all.base.is_none() {
            return self.of_blocks((rows, rows), |block, sum| add_product(block, block, sum));
        }
        let mut gram = self.of_lanes((rows, rows), |entries| entry_matrix::gram(entries, rows))?;
        if let Some(sums) = self.row_sums(axis)? {
            self.base(&sums).add_to_gram(&mut gram);
        }
        Ok(gram)
    }

    fn gram_times(&self, x: &Array2<f64>) -> Result<Array2<f64>> {
        let Cut::Rows(axis) = self.cut else {
            return self.added(x.dim(), |slab, _| slab.gram_times(x));
        };
        if self.all.base.is_none() {
            return self
                .of_blocks(x.dim(), |block, sum| add_product(block, block.dot(x).view(), sum));
        }
        let mut product = self.of_lanes(x.dim(), |entries| entry_matrix::gram_times(entries, x))?;
        if let Some(sums) = self.row_sums(axis)? {
            self.base(&sums).add_to_product(x, &mut product);
        }
        Ok(product)
    }

    fn times(&self, x: &Array2<f64>) -> Result<Array2<f64>> {
        let width = x.ncols();
        match self.cut {
            Cut::Rows(axis) => {
                let own = self.slabs.iter().map(|slab| flat(slab.times(x))).collect();
                let shape = [&self.row_sizes[..], &[width]].concat();
                matrix((self.rows(), width), self.all.join(&shape, axis, own)?)
            }
            Cut::Columns(axis) => {
                let shape = [&self.column_sizes[..], &[width]].concat();
                let (rows, entries) = (Rows::new(&shape, axis), flat(x.clone()));
                self.added((self.rows(), width), |slab, range| {
                    let own = rows.cut(&entries, range);
                    // The cut has the shape of the slab's own columns.
                    match Array2::from_shape_vec((slab.columns(), width), own) {
                        Ok(own) => slab.times(&own),
                        Err(_) => Array2::zeros((self.rows(), width)),
                    }
                })
            }
        }
    }
}

impl SlabUnfolding<'_, '_> {
    /// What is made of every slab, added up.
    fn added(
        &self,
        shape: (usize, usize),
        of: impl Fn(&Unfolding<'_>, &Range<usize>) -> Array2<f64>,
    ) -> Result<Array2<f64>> {
        let slabs = self.slabs.iter().zip(self.all.own_ranges());
        let own = slabs.map(|(slab, range)| flat(of(slab, range))).collect();
        matrix(shape, self.all.sum(shape.0 * shape.1, own)?)
    }

    fn base<'c>(&self, sums: &'c [f64]) -> Base<'c> {
        let columns = self.column_sizes.iter().map(|&n| n as f64).product();
        Base { value: self.all.base.unwrap_or(0.0), columns, sums }
    }

    /// The sums of the rows of lists, where the base makes them matter.
    fn row_sums(&self, axis: usize) -> Result<Option<Vec<f64>>> {
        if self.all.base.is_none_or(|base| base == 0.0) {
            return Ok(None);
        }
        let of = |slab: &Unfolding<'_>| {
            entry_matrix::row_sums(slab.entries().unwrap_or_default(), slab.rows())
        };
        let own = self.slabs.iter().map(of).collect();
        self.all.join(&self.row_sizes, axis, own).map(Some)
    }

    /// What `each` adds to a matrix for every block of whole columns, as rows of the block, lane by lane.
    fn of_blocks(
        &self,
        shape: (usize, usize),
        each: impl Fn(ArrayView2<'_, f64>, &mut Array2<f64>) + Sync,
    ) -> Result<Array2<f64>> {
        let split = self.all.split;
        let (rows, columns, count) = (self.rows(), self.columns(), split.ranges.len());
        let length = (CHUNK / rows.max(1)).max(1);
        let chunks = columns.div_ceil(length);
        let first = |lane: usize| lane * chunks / count;
        let rounds = (0..count).map(|lane| first(lane + 1) - first(lane)).max().unwrap_or(0);
        // The columns of a lane in a round; none where it has had all.
        let columns_of = |lane: usize, round: usize| -> Range<usize> {
            let chunk = first(lane) + round;
            match chunk < first(lane + 1) {
                true => chunk * length..columns.min((chunk + 1) * length),
                false => 0..0,
            }
        };
        let mut sums: Vec<Array2<f64>> = split.own().map(|_| Array2::zeros(shape)).collect();
        for round in 0..rounds {
            let part = |lanes: &Range<usize>| -> Vec<u8> {
                let blocks: Vec<(Range<usize>, &Unfolding<'_>)> = lanes
                    .clone()
                    .flat_map(|lane| {
                        self.slabs.iter().map(move |slab| (columns_of(lane, round), slab))
                    })
                    .collect();
                let block = |n: usize| blocks[n].1.columns_at(blocks[n].0.clone());
                let blocks = parallel::map(blocks.len(), &block);
                blocks.iter().flat_map(|block| to_bytes(block)).collect()
            };
            let parts = split.owned.iter().map(part).collect();
            let got = self.all.link.borrow_mut().all_to_all(parts)?;
            let mut got: Vec<_> = got.iter().map(|bytes| bytes.chunks_exact(8)).collect();
            let mut blocks = Vec::with_capacity(sums.len());
            for lane in split.own() {
                let columns = columns_of(lane, round).len();
                blocks.push(self.block(columns, &mut got));
            }
            parallel::for_each_of(&mut sums, &|n, sum| {
                if blocks[n].nrows() > 0 {
                    each(blocks[n].view(), sum);
                }
            });
        }
        matrix(shape, self.all.sum(shape.0 * shape.1, sums.into_iter().map(flat).collect())?)
    }

    /// The columns that all processes have sent for a lane, as rows.
    fn block(&self, columns: usize, got: &mut [std::slice::ChunksExact<'_, u8>]) -> Array2<f64> {
        let (split, Cut::Rows(axis)) = (self.all.split, self.cut) else {
            return Array2::zeros((0, self.rows()));
        };
        let rows = Rows::new(&self.row_sizes, axis);
        // For every slab what it has of all columns, one behind the other.
        let mut slabs: Vec<Vec<f64>> = Vec::with_capacity(split.ranges.len());
        for (owned, got) in split.owned.iter().zip(got) {
            for range in &split.ranges[owned.clone()] {
                let count = columns * rows.entries(range.len());
                slabs.push(got.by_ref().take(count).map(from_bytes).collect());
            }
        }
        let mut block = Vec::with_capacity(columns * self.rows());
        for column in 0..columns {
            let own = slabs.iter().zip(&split.ranges).flat_map(|(slab, range)| {
                let length = rows.entries(range.len());
                slab[column * length..].iter().take(length).copied()
            });
            block.extend(rows.joined(&own.collect::<Vec<f64>>(), &split.ranges));
        }
        Array2::from_shape_vec((columns, self.rows()), block)
            .unwrap_or_else(|_| Array2::zeros((0, self.rows())))
    }

    /// The same of entries, lane by lane.
    fn of_lanes(
        &self,
        shape: (usize, usize),
        each: impl Fn(&[Entry]) -> Array2<f64> + Sync,
    ) -> Result<Array2<f64>> {
        if self.lanes.borrow().is_none() {
            let found = self.exchanged()?;
            *self.lanes.borrow_mut() = Some(found);
        }
        let lanes = self.lanes.borrow();
        let lanes = lanes.as_deref().unwrap_or_default();
        let own = parallel::map(lanes.len(), &|lane| flat(each(&lanes[lane])));
        matrix(shape, self.all.sum(shape.0 * shape.1, own)?)
    }

    /// Sends every entry to the process that has the lane of its column, and gives those of the lanes that
    /// this one has, by column.
    fn exchanged(&self) -> Result<Vec<Vec<Entry>>> {
        let (split, Cut::Rows(axis)) = (self.all.split, self.cut) else {
            return Err(Error::Internal(
                "columns of a matrix that is not cut along its rows".into(),
            ));
        };
        let rows = Rows::new(&self.row_sizes, axis);
        let mut parts: Vec<Vec<u8>> = vec![Vec::new(); split.owned.len()];
        let owner =
            |lane: usize| split.owned.iter().position(|own| own.contains(&lane)).unwrap_or(0);
        let owners: Vec<usize> = (0..split.ranges.len()).map(owner).collect();
        for (slab, range) in self.slabs.iter().zip(self.all.own_ranges()) {
            for entry in slab.entries().unwrap_or_default() {
                let part = &mut parts[owners[lane_of(entry.column, owners.len())]];
                part.extend(entry.column.to_le_bytes());
                part.extend(rows.whole(entry.row as usize, range).to_le_bytes());
                part.extend(entry.value.to_bits().to_le_bytes());
            }
        }
        let got = self.all.link.borrow_mut().all_to_all(parts)?;
        let mut lanes: Vec<Vec<Entry>> = split.own().map(|_| Vec::new()).collect();
        for entry in got.iter().flat_map(|bytes| bytes.chunks_exact(ENTRY)) {
            let mut column = [0; 16];
            column.copy_from_slice(&entry[..16]);
            let entry = Entry {
                column: u128::from_le_bytes(column),
                row: from_bytes(&entry[16..24]).to_bits(),
                value: from_bytes(&entry[24..]),
            };
            let lane = lane_of(entry.column, owners.len());
            if let Some(lane) = lane.checked_sub(split.own().start).and_then(|n| lanes.get_mut(n)) {
                lane.push(entry);
            }
        }
        parallel::for_each_of(&mut lanes, &|_, lane| {
            lane.sort_unstable_by_key(|e| (e.column, e.row));
        });
        Ok(lanes)
    }
}

/// The lane of a column: neighbours are in different ones.
fn lane_of(column: u128, lanes: usize) -> usize {
    let folded = (column as u64 ^ (column >> 64) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((u128::from(folded) * lanes as u128) >> 64) as usize
}

/// Adds `Aᵀ B`.
fn add_product(a: ArrayView2<'_, f64>, b: ArrayView2<'_, f64>, sum: &mut Array2<f64>) {
    let mut panels: Vec<_> = sum.axis_chunks_iter_mut(Axis(0), PANEL).collect();
    parallel::for_each_of(&mut panels, &|n, panel| {
        let own = a.slice(ndarray::s![.., n * PANEL..n * PANEL + panel.nrows()]);
        general_mat_mul(1.0, &own.t(), &b, 1.0, panel);
    });
}

fn to_bytes(numbers: &[f64]) -> Vec<u8> {
    numbers.iter().flat_map(|x| x.to_bits().to_le_bytes()).collect()
}

/// Of eight bytes.
fn from_bytes(bytes: &[u8]) -> f64 {
    let mut eight = [0; 8];
    eight.copy_from_slice(bytes);
    f64::from_bits(u64::from_le_bytes(eight))
}

/// In C order.
fn flat(array: Array2<f64>) -> Numbers {
    match array.is_standard_layout() {
        true => array.into_raw_vec_and_offset().0,
        false => array.iter().copied().collect(),
    }
}

fn matrix(shape: (usize, usize), entries: Numbers) -> Result<Array2<f64>> {
    Array2::from_shape_vec(shape, entries)
        .map_err(|e| Error::Internal(format!("a matrix of {shape:?}: {e}")))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ndarray::Array3;

    use super::super::slabs::Split;
    use super::super::whole::whole;
    use super::*;
    use crate::observe::Cancel;
    use crate::settings::Settings;
    use crate::start::Basis;
    use crate::transport::Threads;
    use nneinfact_core::data::{CooTensor, Observations, Part};
    use nneinfact_core::engine::Reducer;
    use nneinfact_core::loss::Loss;
    use nneinfact_core::model::Model;

    const SHAPE: [usize; 3] = [7, 4, 5];
    const SLABS: usize = 5;

    /// Data with missing and held-out entries, as an array, as a list with zeros, and as a list of which the
    /// rest is missing.
    fn cases() -> Vec<(&'static str, Observations)> {
        let y = Array3::from_shape_fn(SHAPE, |(i, j, k)| ((i * 7 + j * 3 + k * k) % 6) as f64);
        let stored: Vec<_> = y.indexed_iter().filter(|(_, x)| **x > 0.0).collect();
        let column = |of: fn((usize, usize, usize)) -> usize| -> Vec<u64> {
            stored.iter().map(|(at, _)| of(*at) as u64).collect()
        };
        let indices = [column(|at| at.0), column(|at| at.1), column(|at| at.2)];
        let values: Vec<f64> = stored.iter().map(|(_, x)| **x).collect();
        let list = || CooTensor::new(&SHAPE, &indices, &values).unwrap();
        let one = Arc::new(CooTensor::new(&SHAPE, &[vec![2], vec![1], vec![0]], &[1.0]).unwrap());
        let dense = Observations::new(&y).held_out(0.2, 3).unwrap();
        let zeros = Observations::new(list()).held_out_at(Arc::clone(&one)).unwrap();
        let missing = Observations::new(list()).unlisted_missing().held_out_at(one).unwrap();
        vec![("array", dense), ("list", zeros), ("ratings", missing)]
    }

    fn x(rows: usize) -> Array2<f64> {
        Array2::from_shape_fn((rows, 2), |(i, j)| (i as f64 * 0.7 - 1.3) * (j as f64 + 0.7))
    }

    /// All that a start asks of a matrix, one behind the other.
    fn answers(data: &impl DataMatrices, rows: &[usize]) -> Result<Vec<f64>> {
        let matrix = data.unfold(rows)?;
        let mut all = flat(matrix.gram()?);
        all.extend(flat(matrix.gram_times(&x(matrix.rows()))?));
        all.extend(flat(matrix.times(&x(matrix.columns()))?));
        Ok(all)
    }

    fn of_processes(
        data: &Observations,
        mode: usize,
        rows: &[usize],
        size: usize,
    ) -> Vec<Vec<f64>> {
        let mut settings = Settings::new(Model::parse("ir,jr,kr->ijk").unwrap());
        (settings.loss, settings.slabs, settings.split_along) =
            (Loss::kl(), Some(SLABS), Some(mode));
        Threads::run(size, |own| {
            let split = Split::new(&settings, &SHAPE, None::<&Part>, own.rank(), size)?;
            let mut link = Link::new(Box::new(own), &split);
            let slab = |number: usize| -> Result<SlabData> {
                let range = split.ranges[number].clone();
                let slab = data.slab(mode, range.clone(), range.start, SHAPE[mode])?;
                Ok(SlabData { data: slab.prepare()?, loss: Loss::kl(), number })
            };
            let slabs: Vec<SlabData> = split.own().map(slab).collect::<Result<_>>()?;
            let whole = whole(&mut link, &split, &settings, &slabs, &[])?;
            answers(&SlabMatrices::new(&mut link, &split, &slabs, &whole)?, rows)
        })
        .unwrap()
    }

    #[test]
    fn slabs_are_the_matrices_of_all_data_on_any_number_of_processes() {
        let model = Model::parse("ir,jr,kr->ijk").unwrap();
        let (shapes, loss) = (Shapes::new(&model, &SHAPE, &[('r', 2)]).unwrap(), Loss::kl());
        for (name, data) in cases() {
            let prepared = data.prepare().unwrap();
            let counts = prepared.stored_counts(true).into_iter().next();
            let list = counts.filter(|_| name != "array").map(|c| prepared.stored(c.implicit));
            let basis = Basis {
                shapes: &shapes,
                loss: &loss,
                data: &prepared,
                sparse: list.as_ref(),
                seed: 0,
                cancel: &Cancel::new(),
            };
            let source = DataSource::new(&basis).unwrap();
            for rows in [&[0][..], &[1], &[2], &[0, 2], &[1, 2], &[0, 1]] {
                let expected = ndarray::Array1::from(answers(&source, rows).unwrap());
                for mode in [0, 2] {
                    let at = format!("{name} by {rows:?}, cut along {mode}");
                    let alone = of_processes(&data, mode, rows, 1).remove(0);
                    let apart = &ndarray::Array1::from(alone.clone()) - &expected;
                    let apart = apart.iter().fold(0.0f64, |most, x| most.max(x.abs()));
                    assert!(apart < 1e-11, "{at}: {apart:e}");
                    for size in [2, 3, 8] {
                        for found in of_processes(&data, mode, rows, size) {
                            assert_eq!(found, alone, "{at}, on {size}");
                        }
                    }
                }
            }
        }
    }
}
