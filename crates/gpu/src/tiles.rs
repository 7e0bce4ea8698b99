//! The two shaders of a pass whose inner dimension does not fit the registers of a thread:
//! `entries.wgsl` and `sums.wgsl`.

use std::fmt::Write as _;

use super::cells::{Cells, Terms, Wants, entry, reduce_losses};
use super::geometry::Geometry;
use super::numbers::{Number, Uniforms, places, product_function};
use super::recording::{Access, GpuLimits, Shader};
use super::text::fill;
use nneinfact_core::error::Result;
use nneinfact_core::plan::Plan;

const ENTRIES: &str = nneinfact_shaders::ENTRIES;
const SUMS: &str = nneinfact_shaders::SUMS;

/// Columns that the second shader loads at a time, and inner indices of the first.
pub(super) const DEPTH: usize = 16;

/// A shader of the pair, with what a dispatch of it depends on.
#[derive(Clone, Debug)]
pub(super) struct TileShader {
    pub shader: Shader,
    pub numbers: Uniforms,
    /// Rows, and columns or inner indices, of a workgroup.
    pub tile: usize,
}

/// Threads along an edge of a workgroup.
fn edge(limits: &GpuLimits) -> usize {
    if limits.invocations >= 256 { 16 } else { 8 }
}

/// The tensors on the target's side, and on the other one.
fn sides(geometry: &Geometry) -> (Vec<usize>, Vec<usize>) {
    (0..geometry.tensors.len()).partition(|&t| geometry.tensors[t].with_target)
}

/// The shader that computes `a`, `b` and the losses.
pub(super) fn entries(
    plan: &Plan,
    geometry: &Geometry,
    cells: &Cells,
    terms: &Terms,
    wants: Wants,
    limits: &GpuLimits,
) -> Result<TileShader> {
    let shapes = plan.shapes();
    let edge = edge(limits);
    let mut numbers = Uniforms::default();
    let n = &mut numbers;
    let at = places(plan, geometry, n);
    let (with, against) = sides(geometry);
    let mut products =
        product_function("row_product", &with, &["own", "summed", "side"], shapes, geometry, n);
    products += &product_function(
        "other_product",
        &against,
        &["own", "summed", "other"],
        shapes,
        geometry,
        n,
    );

    let mut bindings = cells.bindings(3);
    let mut access = vec![Access::Uniform];
    access.extend(vec![Access::Read; 1 + cells.buffers() as usize]);
    let mut outputs = Vec::new();
    if wants.numerator {
        outputs.push(("entries_a", "a"));
    }
    if wants.denominator {
        outputs.push(("entries_b", "b"));
    }
    let side_count = n.word(Number::SideCount);
    let mut store = String::new();
    if !outputs.is_empty() {
        let _ = writeln!(
            store,
            "let slab = (outer * {} + first_column + column + j) * {side_count} + first_row + row + i;",
            n.word(Number::OtherCount)
        );
    }
    for (name, value) in outputs {
        let _ = writeln!(
            bindings,
            "@group(0) @binding({}) var<storage, read_write> {name}: array<f32>;",
            access.len()
        );
        access.push(Access::ReadWrite);
        let _ = writeln!(store, "{name}[slab] = {value};");
    }
    let mut workgroup = String::new();
    let mut losses = String::new();
    let mut reduce = String::new();
    let threads = edge * edge;
    if wants.losses {
        let _ = writeln!(
            bindings,
            "@group(0) @binding({}) var<storage, read_write> losses: array<f32>;",
            access.len()
        );
        access.push(Access::ReadWrite);
        workgroup += "var<workgroup> loss_sums: array<vec3<f32>, THREADS>;\n";
        losses += "var loss = vec3<f32>();\n";
        let place = format!("{} + block", n.word(Number::Losses));
        reduce += &reduce_losses(threads, "loss", &place);
    }
    let mut read = String::new();
    for (field, _) in cells.fields() {
        let _ = match field.as_str() {
            "value" if cells.missing => writeln!(read, "var x = value(at);"),
            "value" => writeln!(read, "let x = value(at);"),
            _ => writeln!(read, "let cell_{field} = {field}(at);"),
        };
    }
    let fastest = |letters: &[_]| {
        letters.iter().map(|&x| plan.data().stride(shapes, x)).min().unwrap_or(usize::MAX)
    };
    let along_other = fastest(&geometry.other) < fastest(&geometry.side);
    let (near, far) = ("(thread % EDGE)".to_string(), "(thread / EDGE)".to_string());
    let (row, column) = if along_other { (far, near) } else { (near, far) };
    let scale = n.word(Number::Scale);
    let slab_cells = n.word(Number::SlabCells);
    let floor = n.word(Number::Floor);
    let words = [
        ("edge", format!("{edge}u")),
        ("threads", format!("{threads}")),
        ("k", format!("{}u", geometry.k)),
        ("bindings", bindings),
        ("at", at),
        ("workgroup", workgroup),
        ("products", products),
        ("cell", cells.functions(&scale, &slab_cells)),
        ("entry", entry(terms, wants)?),
        ("fold", n.word(Number::Fold)),
        ("block_count", n.word(Number::BlockCount)),
        ("side_blocks", n.word(Number::SideBlocks)),
        ("other_blocks", n.word(Number::OtherBlocks)),
        ("summed_count", n.word(Number::SummedCount)),
        ("side_count", side_count),
        ("other_count", n.word(Number::OtherCount)),
        ("row_of_thread", row),
        ("column_of_thread", column),
        ("losses", losses),
        ("cells", each_cell(&(read + &cells.evaluate(wants, &floor) + &store), n)),
        ("reduce_losses", reduce),
        ("numbers", format!("{}u", n.vectors())),
    ];
    let place_bytes = 2 * 4 * edge * 4 * (1 + geometry.tensors.len());
    let memory = 2 * DEPTH * edge * 16 + place_bytes + if wants.losses { threads * 16 } else { 0 };
    Ok(TileShader {
        shader: Shader {
            label: "entries of a pass".into(),
            source: fill(ENTRIES, &words)?,
            bindings: access,
            invocations: threads as u32,
            workgroup_bytes: memory as u32,
        },
        numbers,
        tile: 4 * edge,
    })
}

/// What is done at each of a thread's cells. Its rows are written out, and its columns chosen by
/// comparisons: drivers keep an array of predictions in memory where an index of it is computed and the
/// loop too long to be unrolled.
fn each_cell(body: &str, n: &mut Uniforms) -> String {
    let (side, other) = (n.word(Number::SideCount), n.word(Number::OtherCount));
    let mut text = String::new();
    for i in 0..4 {
        let _ = writeln!(text, "{{\n    let i = {i}u;\n    let along = predictions[{i}];");
        text += "    for (var j = 0u; j < 4u; j++) {\n";
        let _ = writeln!(
            text,
            "        if first_row + row + i < {side} && first_column + column + j < {other} {{"
        );
        text += "            var y = select(select(along.x, along.y, j == 1u), select(along.z, along.w, j == 3u), j > 1u);\n";
        text += "            let at = own.data + summed.data + row_places[row + i].data + column_places[column + j].data;\n";
        for line in body.lines() {
            let _ = writeln!(text, "            {line}");
        }
        text += "        }\n    }\n}\n";
    }
    text
}

/// The shader that sums numerator and denominator.
pub(super) fn sums(
    plan: &Plan,
    geometry: &Geometry,
    wants: Wants,
    limits: &GpuLimits,
) -> Result<TileShader> {
    let shapes = plan.shapes();
    let edge = edge(limits);
    let mut numbers = Uniforms::default();
    let n = &mut numbers;
    let at = places(plan, geometry, n);
    let (_, against) = sides(geometry);
    let partners: Vec<usize> = geometry.partners().collect();
    let mut products = product_function(
        "other_product",
        &against,
        &["own", "summed", "other"],
        shapes,
        geometry,
        n,
    );
    products += "fn other_vector(own: At, summed: At, other: At, k: u32) -> vec4<f32> {\n";
    products += "    return vec4<f32>(\n";
    for c in 0..4 {
        let _ =
            writeln!(products, "        other_product(own, summed, other, min(k + {c}u, K - 1u)),");
    }
    products += "    );\n}\n";
    if !partners.is_empty() {
        products += &product_function(
            "partner_product",
            &partners,
            &["own", "summed", "side"],
            shapes,
            geometry,
            n,
        );
    }
    let outputs: Vec<(&str, &str)> = [(wants.numerator, "a", "n"), (wants.denominator, "b", "d")]
        .iter()
        .filter(|(wanted, ..)| *wanted)
        .map(|&(_, entry, sum)| (entry, sum))
        .collect();
    let mut access = vec![Access::Uniform, Access::Read];
    let (mut bindings, mut workgroup, mut load, mut accumulate, mut registers) =
        (String::new(), String::new(), String::new(), String::new(), String::new());
    for (entry, sum) in &outputs {
        let _ = writeln!(
            bindings,
            "@group(0) @binding({}) var<storage, read> entries_{entry}: array<f32>;",
            access.len()
        );
        access.push(Access::Read);
        let _ = writeln!(workgroup, "var<workgroup> tile_{entry}: array<vec4<f32>, DEPTH * EDGE>;");
        let _ = writeln!(load, "var near_{entry} = vec4<f32>();");
        for (c, x) in ["x", "y", "z", "w"].iter().enumerate() {
            let _ = writeln!(
                load,
                "if left > {c}u {{\n    near_{entry}.{x} = entries_{entry}[at + {c}u];\n}}"
            );
        }
        let _ = writeln!(load, "tile_{entry}[i] = near_{entry};");
        let _ = writeln!(accumulate, "let {entry} = tile_{entry}[depth * EDGE + row / 4u];");
        for (c, x) in ["x", "y", "z", "w"].iter().enumerate() {
            let _ =
                writeln!(accumulate, "{sum}[{c}] = fma(vec4<f32>({entry}.{x}), c, {sum}[{c}]);");
        }
        let _ = writeln!(registers, "var {sum}: array<vec4<f32>, 4>;");
    }
    let _ = writeln!(
        bindings,
        "@group(0) @binding({}) var<storage, read_write> partials: array<f32>;",
        access.len()
    );
    access.push(Access::ReadWrite);

    let moving = geometry.partners_move();
    let side_count = n.word(Number::SideCount);
    let flush = |summed: &str, add: bool, n: &mut Uniforms| {
        let mut text = String::new();
        text += "for (var i = 0u; i < 4u; i++) {\n    for (var j = 0u; j < 4u; j++) {\n";
        let _ = writeln!(
            text,
            "        if first_row + row + i < {side_count} && first_k + k + j < K {{"
        );
        let _ = writeln!(text, "            let to = place + j * {side_count} + i;");
        let mut times = String::new();
        if !partners.is_empty() {
            let _ = writeln!(
                text,
                "            let partner = partner_product(own, {summed}, side_at(first_row + row + i), first_k + k + j);"
            );
            times += " * partner";
        }
        for (i, (_, sum)) in outputs.iter().enumerate() {
            let half = match i {
                0 => String::new(),
                _ => format!("{} + ", n.word(Number::Half)),
            };
            let op = if add { "+=" } else { "=" };
            let _ = writeln!(text, "            partials[{half}to] {op} {sum}[i][j]{times};");
        }
        text += "        }\n    }\n}\n";
        text
    };
    let indent = |text: &str| -> String { text.lines().map(|l| format!("    {l}\n")).collect() };
    let (mut moves, mut finish) = (String::new(), String::new());
    if moving {
        let zero = flush("summed_at(0u)", false, n);
        // Every sum is still zero here: this writes zeros.
        registers += &zero;
        let other_blocks = n.word(Number::OtherBlocks);
        let _ = writeln!(moves, "if unit != first && unit % {other_blocks} == 0u {{");
        let mut body = "let before = summed_at(summed_index - 1u);\n".to_string();
        body += &flush("before", true, n);
        for (_, sum) in &outputs {
            let _ = writeln!(body, "{sum} = array<vec4<f32>, 4>();");
        }
        moves += &indent(&body);
        moves += "}\n";
        finish += "if first < end {\n";
        let _ = writeln!(finish, "    let before = summed_at((end - 1u) / {other_blocks});");
        finish += &indent(&flush("before", true, n));
        finish += "}\n";
    } else {
        finish += &flush("At()", false, n);
    }
    let memory = (1 + outputs.len()) * DEPTH * edge * 16;
    let words = [
        ("edge", format!("{edge}u")),
        ("threads", format!("{}", edge * edge)),
        ("k", format!("{}u", geometry.k)),
        ("bindings", bindings),
        ("at", at),
        ("workgroup", workgroup),
        ("products", products),
        ("fold", n.word(Number::Fold)),
        ("block_count", n.word(Number::BlockCount)),
        ("side_blocks", n.word(Number::SideBlocks)),
        ("other_blocks", n.word(Number::OtherBlocks)),
        ("summed_count", n.word(Number::SummedCount)),
        ("own_count", n.word(Number::OwnCount)),
        ("side_count", side_count),
        ("other_count", n.word(Number::OtherCount)),
        ("stretch", n.word(Number::Stretch)),
        ("registers", registers),
        ("moving", moves),
        ("load_entries", load),
        ("accumulate", accumulate),
        ("finish", finish),
        ("numbers", format!("{}u", n.vectors())),
    ];
    Ok(TileShader {
        shader: Shader {
            label: "sums of a pass".into(),
            source: fill(SUMS, &words)?,
            bindings: access,
            invocations: (edge * edge) as u32,
            workgroup_bytes: memory as u32,
        },
        numbers,
        tile: 4 * edge,
    })
}
