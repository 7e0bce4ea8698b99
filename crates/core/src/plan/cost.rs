//! What a pass costs, in seconds of a nominal core.
//!
//! The constants are rough (one core of a server with 256- or 512-bit vectors); only their ratios
//! matter, since they rank plans and predict nothing.

use super::input::{DataInfo, PlanSettings};
use super::layout::{Layout, OperandSide};
use crate::model::{Index, IndexSet, Shapes};

/// Multiply-adds a second in tiles of the pass, in f32.
const FMA_RATE: f64 = 30e9;
/// Elementwise operations a second (loads, conversions, comparisons, the loss).
const ELEMENT_RATE: f64 = 8e9;
/// Bytes of data a second.
const BANDWIDTH: f64 = 5e9;
/// Multiply-adds a second in small contractions, in f64.
const CONTRACTION_RATE: f64 = 2e9;
/// Seconds for one element read at a stride, and for one contiguous run.
const STRIDED: f64 = 1e-9;
const RUN: f64 = 15e-9;
/// Nominal tile, in rows and columns.
const TILE_ROWS: f64 = 32.0;
const TILE_COLUMNS: f64 = 512.0;
const VECTOR: f64 = 16.0;

/// What a layout costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct LayoutCost {
    /// Seconds of a nominal core.
    pub seconds: f64,
    /// Multiply-adds.
    pub flops: f64,
    /// Bytes of data read.
    pub bytes: f64,
}

/// Seconds for `flops` multiply-adds in small contractions.
pub(super) fn contraction(flops: f64) -> f64 {
    flops / CONTRACTION_RATE
}

/// The least that a pass with this contracted size can cost, whatever its layout.
pub(super) fn least(shapes: &Shapes, settings: &PlanSettings, contracted: IndexSet) -> f64 {
    let entries = shapes.volume(shapes.model().observed());
    entries * shapes.volume(contracted) * products(settings) / rate(settings)
}

/// Matrix products per tile: ŷ, the numerator, and the denominator unless it is in closed form.
/// Beside a sparse pass, a dense pass only has to form the denominator.
fn products(settings: &PlanSettings) -> f64 {
    if settings.closed_denominator || settings.sparse.is_some() { 2.0 } else { 3.0 }
}

/// Seconds for forming tables of so many bytes for a sparse pass.
pub(super) fn tables(bytes: f64) -> f64 {
    bytes / BANDWIDTH
}

/// Seconds for one stored entry: a row of each table is looked up twice, once for ŷ and once for
/// the numerator; `tables` are their sizes in bytes.
pub(super) fn sparse(settings: &PlanSettings, contracted: f64, tables: &[f64]) -> f64 {
    let vectors = (contracted * settings.element_bytes as f64 / 64.0).ceil();
    let read = |&bytes: &f64| match bytes {
        b if b < 1e6 => 0.5e-9,
        b if b < 3e7 => 2e-9,
        _ => 10e-9,
    };
    let looked_up: f64 = tables.iter().map(read).sum::<f64>() * vectors;
    let products = 1e-9 * vectors * (2.0 * tables.len() as f64 + 1.0);
    PER_STORED_ENTRY + looked_up + products + settings.entry_cost / ELEMENT_RATE
}

/// Seconds that go with a stored entry, whatever is computed there.
const PER_STORED_ENTRY: f64 = 6e-9;

/// Seconds for sums over so many columns that rows list, in so many pairs of a row and a block of
/// columns, each of so many 64-byte units.
pub(super) fn role_sums(listed: f64, blocks: f64, units: f64) -> f64 {
    (listed * 0.6e-9 + blocks * 6e-9) * units
}

fn rate(settings: &PlanSettings) -> f64 {
    FMA_RATE * 4.0 / settings.element_bytes as f64
}

/// What a layout costs; `order` is that of the observed indices by decreasing stride.
pub(super) fn layout(
    (shapes, data, settings): (&Shapes, &DataInfo, &PlanSettings),
    order: &[Index],
    tensors: &[IndexSet],
    layout: &Layout,
    sides: &[OperandSide],
) -> LayoutCost {
    let size = |indices: &[_]| -> f64 { indices.iter().map(|&x| shapes.size(x) as f64).product() };
    let entries = shapes.volume(shapes.model().observed());
    let (rows, columns, contracted) =
        (size(&layout.rows), size(&layout.columns), size(&layout.contracted));

    // Columns are padded to whole vectors; few rows leave the product without reuse of `C`.
    let padded = (columns / VECTOR).ceil() * VECTOR;
    let flops = entries * contracted * products(settings);
    let product = flops * (padded / columns) * (1.0 + 2.0 / rows) / rate(settings);

    let element = entries * settings.entry_cost * (padded / columns) / ELEMENT_RATE;

    // Reading the data.
    let bytes = entries * data.bytes_per_entry();
    let (run, stride) = data.run(shapes, &layout.columns);
    let mut read = entries / run * RUN + bytes / BANDWIDTH;
    if stride > 1 {
        read += entries * STRIDED;
        // Cache lines are shared with neighbouring rows or not at all.
        if order.last().is_some_and(|x| layout.batch.contains(x)) {
            let line = (stride as f64 * data.bytes_per_entry()).min(64.0);
            read += entries * line / BANDWIDTH;
        }
    }

    // Forming R and C tile by tile. Contiguous copies are cheap, products of several tensors and
    // gathers cost an element at a time.
    let column_set: IndexSet = layout.columns.iter().collect();
    let row_set: IndexSet = layout.rows.iter().collect();
    let on = |side: OperandSide| {
        tensors.iter().zip(sides).filter(move |&(_, &s)| s == side).map(|(&t, _)| t)
    };
    let column_tensors = on(OperandSide::Rhs).count() as f64;
    let gathers = on(OperandSide::Rhs).filter(|t| !t.contains_all(column_set)).count() as f64;
    let row_tensors = on(OperandSide::Lhs).filter(|t| t.intersects(row_set)).count() as f64;
    let reuse = if sides.first() == Some(&OperandSide::Rhs) { rows } else { rows.min(TILE_ROWS) };
    let form_columns =
        entries / reuse * contracted * (column_tensors / rate(settings) * 4.0 + gathers * STRIDED);
    let form_rows =
        entries / columns.min(TILE_COLUMNS) * contracted * row_tensors.max(1.0) * STRIDED;

    LayoutCost { seconds: product + element + read + form_columns + form_rows, flops, bytes }
}
