//! The sums over listed columns: for a row, the sum of the rows of a small matrix that its list names.

use pulp::{Simd, WithSimd};

use nneinfact_core::data::Role;
use nneinfact_core::engine::role_lists::{ChunkLists, total};
use nneinfact_core::plan::ROLE_BLOCK;
use nneinfact_simd::Elementwise;

/// Widest part of a row that is summed at once, in units of 64 bytes.
const WIDEST: usize = 4;

/// The parts that rows of so many 64-byte units are cut into, in units.
fn parts(units: usize) -> impl Iterator<Item = usize> {
    let mut left = units;
    std::iter::from_fn(move || {
        let part = match left {
            0 => return None,
            1 => 1,
            2 | 3 => 2,
            _ => WIDEST,
        };
        left -= part;
        Some(part)
    })
}

/// Where a number of a column's row stands in a block of panels.
pub(super) struct PanelLayout {
    /// Rows are padded to whole units of 64 bytes.
    pub units: usize,
    /// Elements of a unit.
    pub unit: usize,
}

impl PanelLayout {
    pub fn new<T: Elementwise>(width: usize) -> PanelLayout {
        PanelLayout { units: width.div_ceil(T::MAX_LANES).max(1), unit: T::MAX_LANES }
    }

    /// Elements of a padded row.
    pub fn padded(&self) -> usize {
        self.units * self.unit
    }

    /// Elements of a block.
    pub fn block(&self) -> usize {
        self.padded() * ROLE_BLOCK
    }

    /// Writes one column's row to its block.
    pub fn write<T: Elementwise>(&self, block: &mut [T], column: usize, row: &[T]) {
        let mut from = 0;
        for part in parts(self.units) {
            let wide = part * self.unit;
            let end = row.len().min(from + wide);
            let to = from * ROLE_BLOCK + column * wide;
            block[to..][..end - from].copy_from_slice(&row[from..end]);
            from = end;
            if end == row.len() {
                break;
            }
        }
    }
}

/// What is summed for the rows of a chunk.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Slots {
    /// One sum: over the training entries where they are listed, else over all listed ones.
    Train,
    /// A sum for each role that is listed.
    Roles,
}

impl Slots {
    pub fn count(self) -> usize {
        match self {
            Slots::Train => 1,
            Slots::Roles => 4,
        }
    }
}

/// Sums over the columns that the rows of a chunk list, in some blocks of columns.
pub(super) struct SumListed<'a, T> {
    pub lists: &'a ChunkLists,
    pub layout: &'a PanelLayout,
    /// The panels of the chunk's batch, block after block.
    pub panels: &'a [T],
    pub blocks: std::ops::Range<usize>,
    pub slots: Slots,
    /// By row, then by slot: padded rows.
    pub to: &'a mut [f64],
}

impl<T: Elementwise> WithSimd for SumListed<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let SumListed { lists, layout, panels, blocks, slots, to } = self;
        let padded = layout.padded();
        for block in blocks {
            let panel = &panels[block * layout.block()..][..layout.block()];
            let (mut places, counts) = lists.block(block);
            let rows = counts.iter().zip(&lists.implied);
            for ((counts, implied), to) in rows.zip(to.chunks_exact_mut(padded * slots.count())) {
                let (own, after) = places.split_at(total(counts));
                places = after;
                match slots {
                    Slots::Train => {
                        let wanted = match implied {
                            Role::Train => own,
                            _ => &own[usize::from(counts[0])..][..usize::from(counts[1])],
                        };
                        add_rows::<S, T>(simd, layout, panel, wanted, to);
                    }
                    Slots::Roles => {
                        let mut left = own;
                        for (&count, to) in counts.iter().zip(to.chunks_exact_mut(padded)) {
                            let (wanted, after) = left.split_at(usize::from(count));
                            add_rows::<S, T>(simd, layout, panel, wanted, to);
                            left = after;
                        }
                    }
                }
            }
        }
    }
}

/// Adds the rows of the columns `places` to a sum.
#[inline(always)]
fn add_rows<S: Simd, T: Elementwise>(
    simd: S,
    layout: &PanelLayout,
    panel: &[T],
    places: &[u8],
    to: &mut [f64],
) {
    if places.is_empty() {
        return;
    }
    let lanes = size_of::<T::Vector<S>>() / T::BYTES;
    let (mut panel, mut to) = (panel, to);
    for part in parts(layout.units) {
        let wide = part * layout.unit;
        let (own, after) = panel.split_at(wide * ROLE_BLOCK);
        let (sums, rest) = std::mem::take(&mut to).split_at_mut(wide);
        let (vectors, _) = T::as_vectors::<S>(own);
        match wide / lanes {
            1 => add_part::<S, T, 1, 4>(simd, vectors, places, sums),
            2 => add_part::<S, T, 2, 2>(simd, vectors, places, sums),
            4 => add_part::<S, T, 4, 1>(simd, vectors, places, sums),
            8 => add_part::<S, T, 8, 1>(simd, vectors, places, sums),
            n => add_any::<S, T>(simd, vectors, n, places, sums),
        }
        (panel, to) = (after, rest);
    }
}

/// The same for a part of `KV` vectors, in `CHAINS` sums side by side: each addition waits for the one
/// before it in its sum.
#[inline(always)]
fn add_part<S: Simd, T: Elementwise, const KV: usize, const CHAINS: usize>(
    simd: S,
    vectors: &[T::Vector<S>],
    places: &[u8],
    to: &mut [f64],
) {
    let Some(rows) = vectors.as_chunks::<KV>().0.first_chunk::<ROLE_BLOCK>() else { return };
    let mut sums = [[T::splat(simd, T::ZERO); KV]; CHAINS];
    let (together, left) = places.as_chunks::<CHAINS>();
    for places in together {
        for (sums, &place) in sums.iter_mut().zip(places) {
            let row = &rows[usize::from(place)];
            for k in 0..KV {
                sums[k] = <T as nneinfact_simd::Real>::add(simd, sums[k], row[k]);
            }
        }
    }
    for (sums, &place) in sums.iter_mut().zip(left) {
        let row = &rows[usize::from(place)];
        for k in 0..KV {
            sums[k] = <T as nneinfact_simd::Real>::add(simd, sums[k], row[k]);
        }
    }
    let [first, others @ ..] = sums.as_slice() else { return };
    let mut sum = *first;
    for other in others {
        for k in 0..KV {
            sum[k] = <T as nneinfact_simd::Real>::add(simd, sum[k], other[k]);
        }
    }
    let lanes = to.len() / KV;
    for (vector, to) in sum.iter().zip(to.chunks_exact_mut(lanes)) {
        let from: &[T] = bytemuck::cast_slice(std::slice::from_ref(vector));
        to.iter_mut().zip(from).for_each(|(to, &x)| *to += x.to_f64());
    }
}

/// The same for any number of vectors.
#[inline(always)]
fn add_any<S: Simd, T: Elementwise>(
    simd: S,
    vectors: &[T::Vector<S>],
    kv: usize,
    places: &[u8],
    to: &mut [f64],
) {
    let lanes = to.len() / kv;
    for (k, to) in to.chunks_exact_mut(lanes).enumerate() {
        let mut sum = T::splat(simd, T::ZERO);
        for &place in places {
            sum = <T as nneinfact_simd::Real>::add(simd, sum, vectors[usize::from(place) * kv + k]);
        }
        let from: &[T] = bytemuck::cast_slice(std::slice::from_ref(&sum));
        to.iter_mut().zip(from).for_each(|(to, &x)| *to += x.to_f64());
    }
}

/// Sums over all columns of some blocks, each times its weight for the row.
pub(super) struct SumWeighted<'a, T> {
    pub layout: &'a PanelLayout,
    /// The panel of one block.
    pub panel: &'a [T],
    /// By row: the weight of each column of the block, 0 where there is none.
    pub weights: &'a [T],
    /// By row: padded rows.
    pub to: &'a mut [f64],
}

impl<T: Elementwise> WithSimd for SumWeighted<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let SumWeighted { layout, panel, weights, to } = self;
        let lanes = size_of::<T::Vector<S>>() / T::BYTES;
        let rows = weights.chunks_exact(ROLE_BLOCK).zip(to.chunks_exact_mut(layout.padded()));
        for (weights, mut to) in rows {
            let mut panel = panel;
            for part in parts(layout.units) {
                let wide = part * layout.unit;
                let (own, after) = panel.split_at(wide * ROLE_BLOCK);
                let (sums, rest) = std::mem::take(&mut to).split_at_mut(wide);
                let (vectors, _) = T::as_vectors::<S>(own);
                let kv = wide / lanes;
                for (k, to) in sums.chunks_exact_mut(lanes).enumerate() {
                    let mut sum = T::splat(simd, T::ZERO);
                    let column = vectors[k..].iter().step_by(kv);
                    for (&w, &v) in weights.iter().zip(column) {
                        sum = T::mul_add(simd, T::splat(simd, w), v, sum);
                    }
                    let from: &[T] = bytemuck::cast_slice(std::slice::from_ref(&sum));
                    to.iter_mut().zip(from).for_each(|(to, &x)| *to += x.to_f64());
                }
                (panel, to) = (after, rest);
            }
        }
    }
}
