//! The two shaders of a dense pass whose contracted dimension does not fit the registers of a thread:
//! `tile_entries.wgsl` and `tile_sums.wgsl`.

use std::fmt::Write as _;

use super::entries::entry_terms;
use super::geometry::{Geometry, TileOperand};
use super::pass_text::PassText;
use crate::program::declarations::Declarations;
use crate::program::recording::{Access, GpuLimits, Shader};
use crate::program::template::fill;
use crate::program::uniforms::{Uniform, Uniforms, offsets, product_function};
use nneinfact_core::error::Result;
use nneinfact_core::model::{Index, Shapes};
use nneinfact_shaders::TILE_DEPTH;

/// A shader of the pair, with what a dispatch of it depends on.
#[derive(Clone, Debug)]
pub(crate) struct TileShader {
    pub shader: Shader,
    pub uniforms: Uniforms,
    /// Rows, and columns or contracted indices, of a workgroup.
    pub tile: usize,
}

/// Threads along an edge of a workgroup.
fn edge(limits: &GpuLimits) -> usize {
    if limits.invocations >= 256 { 16 } else { 8 }
}

/// The function of the product of R's tensors, or of some of them.
fn row_product(
    name: &str,
    tensors: &[usize],
    shapes: &Shapes,
    geometry: &Geometry,
    uniforms: &mut Uniforms,
) -> String {
    product_function(name, tensors, &["batch", "reduced", "row"], shapes, geometry, uniforms)
}

/// The function of the product of C's tensors.
fn column_product(shapes: &Shapes, geometry: &Geometry, uniforms: &mut Uniforms) -> String {
    let tensors = geometry.tensors_of(TileOperand::Columns);
    let offsets = &["batch", "reduced", "column"];
    product_function("column_product", &tensors, offsets, shapes, geometry, uniforms)
}

/// The shader that computes `a`, `b` and the losses.
pub(crate) fn tile_entries(text: PassText<'_>) -> Result<TileShader> {
    let PassText { plan, geometry, format, terms, wants, limits } = text;
    let shapes = plan.shapes();
    let edge = edge(limits);
    let threads = edge * edge;
    let mut uniforms = Uniforms::default();
    // Uniforms are numbered in the order in which they are asked for.
    let u = &mut uniforms;
    let offsets = offsets(plan, geometry, u);
    let rows = geometry.tensors_of(TileOperand::Rows);
    let products = row_product("row_product", &rows, shapes, geometry, u)
        + &column_product(shapes, geometry, u);
    let row_count = u.word(Uniform::RowCount);
    let mut declarations = Declarations::after(&[Access::Uniform, Access::Read, Access::Read]);
    format.declare(&mut declarations);
    let store = store_entries(text, &row_count, &mut declarations, u);
    let loss_place = match wants.losses {
        true => {
            declarations.array(Access::ReadWrite, "losses", "f32");
            format!("{} + block", u.word(Uniform::Losses))
        }
        false => String::new(),
    };
    let (row_of_thread, column_of_thread) = along_memory(text);
    let scale = u.word(Uniform::Scale);
    let slab_entries = u.word(Uniform::SlabEntries);
    let floor = u.word(Uniform::Floor);
    let words = [
        ("edge", format!("{edge}u")),
        ("threads", format!("{threads}")),
        ("k", format!("{}u", geometry.k)),
        ("bindings", declarations.text),
        ("offsets", offsets),
        ("products", products),
        ("entry", format.functions(&scale, &slab_entries)),
        ("entry_terms", entry_terms(terms, wants)?),
        ("fold", u.word(Uniform::Fold)),
        ("block_count", u.word(Uniform::BlockCount)),
        ("row_blocks", u.word(Uniform::RowBlocks)),
        ("column_blocks", u.word(Uniform::ColumnBlocks)),
        ("reduced_count", u.word(Uniform::ReducedCount)),
        ("row_count", row_count),
        ("column_count", u.word(Uniform::ColumnCount)),
        ("row_of_thread", row_of_thread),
        ("column_of_thread", column_of_thread),
        ("each_entry", each_entry(&(read(text) + &format.evaluate(wants, &floor) + &store), u)),
        ("own_loss", "loss".into()),
        ("loss_place", loss_place),
        ("uniforms", format!("{}u", u.vectors())),
    ];
    let offset_bytes = 2 * 4 * edge * 4 * (1 + geometry.tensors.len());
    let loss_bytes = if wants.losses { threads * 16 } else { 0 };
    let memory = 2 * TILE_DEPTH * edge * 16 + offset_bytes + loss_bytes;
    Ok(TileShader {
        shader: Shader {
            label: "entries of a pass".into(),
            source: fill(nneinfact_shaders::TILE_ENTRIES, &[("losses", wants.losses)], &words)?,
            bindings: declarations.access,
            invocations: threads as u32,
            workgroup_bytes: memory as u32,
        },
        uniforms,
        tile: 4 * edge,
    })
}

/// Writes `a` and `b` of an entry to memory.
fn store_entries(
    text: PassText<'_>,
    row_count: &str,
    declarations: &mut Declarations,
    uniforms: &mut Uniforms,
) -> String {
    let wants = text.wants;
    let mut store = String::new();
    if wants.halves() > 0 {
        let column_count = uniforms.word(Uniform::ColumnCount);
        let _ = writeln!(
            store,
            "let to = (outer * {column_count} + first_column + column + j) * {row_count} + first_row + row + i;",
        );
    }
    for (wanted, value) in [(wants.numerator, "a"), (wants.denominator, "b")] {
        if wanted {
            let name = format!("entries_{value}");
            declarations.array(Access::ReadWrite, &name, "f32");
            let _ = writeln!(store, "{name}[to] = {value};");
        }
    }
    store
}

/// The row and the column of a thread in a tile: neighbouring threads lie along the memory.
fn along_memory(text: PassText<'_>) -> (String, String) {
    let PassText { plan, geometry, .. } = text;
    let fastest = |indices: &[Index]| {
        let strides = indices.iter().map(|&x| plan.data().stride(plan.shapes(), x));
        strides.min().unwrap_or(usize::MAX)
    };
    let (near, far) = ("(thread % EDGE)".to_string(), "(thread / EDGE)".to_string());
    match fastest(&geometry.columns) < fastest(&geometry.rows) {
        true => (far, near),
        false => (near, far),
    }
}

/// Reads an entry, by the names that its evaluation uses.
fn read(text: PassText<'_>) -> String {
    let read = |(field, _): (String, &str)| match field.as_str() {
        // Only this one is changed, where the entry is missing.
        "value" if text.format.missing => "var x = value(at);\n".to_string(),
        "value" => "let x = value(at);\n".to_string(),
        _ => format!("let entry_{field} = {field}(at);\n"),
    };
    text.format.fields().into_iter().map(read).collect()
}

/// What is done at each of a thread's entries. Its rows are written out, and its columns chosen by
/// comparisons: drivers keep an array of predictions in memory where an index of it is computed and the
/// loop too long to be unrolled.
fn each_entry(body: &str, uniforms: &mut Uniforms) -> String {
    let rows = uniforms.word(Uniform::RowCount);
    let columns = uniforms.word(Uniform::ColumnCount);
    let mut text = String::new();
    for i in 0..4 {
        let _ = writeln!(text, "{{\n    let i = {i}u;\n    let along = predictions[{i}];");
        text += "    for (var j = 0u; j < 4u; j++) {\n";
        let _ = writeln!(
            text,
            "        if first_row + row + i < {rows} && first_column + column + j < {columns} {{"
        );
        text += "            var y = select(select(along.x, along.y, j == 1u), select(along.z, along.w, j == 3u), j > 1u);\n";
        text += "            let at = batch.data + reduced.data + row_offsets[row + i].data + column_offsets[column + j].data;\n";
        for line in body.lines() {
            let _ = writeln!(text, "            {line}");
        }
        text += "        }\n    }\n}\n";
    }
    text
}

/// A sum of the second shader: what its terms are multiplied with, and its name.
type TileSum = (&'static str, &'static str);

/// The shader that sums numerator and denominator.
pub(crate) fn tile_sums(text: PassText<'_>) -> Result<TileShader> {
    let PassText { plan, geometry, wants, limits, .. } = text;
    let shapes = plan.shapes();
    let edge = edge(limits);
    let mut uniforms = Uniforms::default();
    // Uniforms are numbered in the order in which they are asked for.
    let u = &mut uniforms;
    let offsets = offsets(plan, geometry, u);
    let co_operands = geometry.co_operands();
    let mut products = column_product(shapes, geometry, u) + COLUMN_VECTOR;
    if !co_operands.is_empty() {
        products += &row_product("co_operand_product", &co_operands, shapes, geometry, u);
    }
    let sums: Vec<TileSum> = [(wants.numerator, ("a", "n")), (wants.denominator, ("b", "d"))]
        .into_iter()
        .filter_map(|(wanted, sum)| wanted.then_some(sum))
        .collect();
    let mut declarations = Declarations::after(&[Access::Uniform, Access::Read]);
    for (entry, _) in &sums {
        declarations.array(Access::Read, &format!("entries_{entry}"), "f32");
    }
    declarations.array(Access::ReadWrite, "partials", "f32");
    let moving = geometry.co_operands_move();
    let row_count = u.word(Uniform::RowCount);
    let mut store = |reduced: &str, add: bool| {
        store_tile(&sums, !co_operands.is_empty(), reduced, &row_count, add, u)
    };
    let (store_zeros, store_sums) = match moving {
        true => (store("reduced_at(0u)", false)?, store("before", true)?),
        false => (String::new(), store("Offsets()", false)?),
    };
    let column_blocks = moving.then(|| u.word(Uniform::ColumnBlocks));
    let flags =
        [("moving", moving), ("numerator", wants.numerator), ("denominator", wants.denominator)];
    let words = [
        ("edge", format!("{edge}u")),
        ("threads", format!("{}", edge * edge)),
        ("k", format!("{}u", geometry.k)),
        ("bindings", declarations.text),
        ("offsets", offsets),
        ("products", products),
        ("fold", u.word(Uniform::Fold)),
        ("block_count", u.word(Uniform::BlockCount)),
        ("row_blocks", u.word(Uniform::RowBlocks)),
        ("column_blocks", column_blocks.unwrap_or_else(|| u.word(Uniform::ColumnBlocks))),
        ("reduced_count", u.word(Uniform::ReducedCount)),
        ("batch_count", u.word(Uniform::BatchCount)),
        ("row_count", row_count),
        ("column_count", u.word(Uniform::ColumnCount)),
        ("split_units", u.word(Uniform::SplitUnits)),
        ("store_zeros", store_zeros),
        ("store_sums", store_sums),
        ("load_entries", sums.iter().map(load).collect()),
        ("accumulate", sums.iter().map(accumulate).collect()),
        ("uniforms", format!("{}u", u.vectors())),
    ];
    Ok(TileShader {
        shader: Shader {
            label: "sums of a pass".into(),
            source: fill(nneinfact_shaders::TILE_SUMS, &flags, &words)?,
            bindings: declarations.access,
            invocations: (edge * edge) as u32,
            workgroup_bytes: ((1 + sums.len()) * TILE_DEPTH * edge * 16) as u32,
        },
        uniforms,
        tile: 4 * edge,
    })
}

/// The products of C's tensors at four contracted indices.
const COLUMN_VECTOR: &str = "\
fn column_vector(batch: Offsets, reduced: Offsets, column: Offsets, k: u32) -> vec4<f32> {
    return vec4<f32>(
        column_product(batch, reduced, column, min(k + 0u, K - 1u)),
        column_product(batch, reduced, column, min(k + 1u, K - 1u)),
        column_product(batch, reduced, column, min(k + 2u, K - 1u)),
        column_product(batch, reduced, column, min(k + 3u, K - 1u)),
    );
}
";

/// Loads four neighbouring a or b into the tile.
fn load((entry, _): &TileSum) -> String {
    let mut text = format!("var near_{entry} = vec4<f32>();\n");
    for (c, x) in ["x", "y", "z", "w"].iter().enumerate() {
        let _ = writeln!(
            text,
            "if left > {c}u {{\n    near_{entry}.{x} = entries_{entry}[at + {c}u];\n}}"
        );
    }
    let _ = writeln!(text, "tile_{entry}[i] = near_{entry};");
    text
}

/// Adds the products of four rows and four contracted indices.
fn accumulate((entry, sum): &TileSum) -> String {
    let mut text = format!("let {entry} = tile_{entry}[depth * EDGE + row / 4u];\n");
    for (c, x) in ["x", "y", "z", "w"].iter().enumerate() {
        let _ = writeln!(text, "{sum}[{c}] = fma(vec4<f32>({entry}.{x}), c, {sum}[{c}]);");
    }
    text
}

/// Writes a thread's sums to the partial sums, multiplied with the co-operands at the offsets of a
/// reduced batch index.
fn store_tile(
    sums: &[TileSum],
    co_operands: bool,
    reduced: &str,
    row_count: &str,
    add: bool,
    uniforms: &mut Uniforms,
) -> Result<String> {
    let op = if add { "+=" } else { "=" };
    let times = if co_operands { " * co_operand" } else { "" };
    let mut store = String::new();
    for (i, (_, sum)) in sums.iter().enumerate() {
        let half = match i {
            0 => String::new(),
            _ => format!("{} + ", uniforms.word(Uniform::Half)),
        };
        let _ = writeln!(store, "partials[{half}to] {op} {sum}[i][j]{times};");
    }
    let words =
        [("row_count", row_count.to_string()), ("reduced", reduced.to_string()), ("store", store)];
    fill("{{include store_tile}}", &[("co_operands", co_operands)], &words)
}
