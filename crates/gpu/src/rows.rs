//! The shader of a pass whose inner dimension fits the registers of a thread: `pass.wgsl`.

use std::fmt::Write as _;

use super::cells::{Cells, Terms, Wants, entry, reduce_losses};
use super::geometry::Geometry;
use super::numbers::{Number, Uniforms, places, product_function};
use super::recording::{Access, GpuLimits, Shader};
use super::text::fill;
use nneinfact_core::error::Result;
use nneinfact_core::plan::Plan;

const TEMPLATE: &str = nneinfact_shaders::PASS;

/// Threads of a workgroup, where the device allows as many.
const THREADS: usize = 128;
/// Indices of the other side in a tile, and in one whose values are fetched by words.
const TILE: usize = 32;
const WORDS_TILE: usize = 64;
/// Cells that a thread works on side by side, and the most registers of sums that it has then.
const ABREAST: usize = 4;
const ABREAST_REGISTERS: usize = 96;
/// Reads that a thread has under way at once where a workgroup fetches cells.
const READS: usize = 4;

/// A shader with what a dispatch of it depends on.
#[derive(Clone, Debug)]
pub(super) struct RowsShader {
    pub shader: Shader,
    pub numbers: Uniforms,
    /// Rows of a workgroup.
    pub lanes: usize,
    /// Threads that share a row.
    pub slices: usize,
    /// Indices of the other side in a tile.
    pub tile: usize,
    /// Parts of the data have to begin at multiples of this many cells.
    pub aligned: usize,
}

impl RowsShader {
    /// Where not told that parts of the data begin with `whole_words`, it does not count on it.
    pub fn new(
        plan: &Plan,
        geometry: &Geometry,
        cells: &Cells,
        terms: &Terms,
        wants: Wants,
        whole_words: bool,
        limits: &GpuLimits,
    ) -> Result<RowsShader> {
        let shapes = plan.shapes();
        let side: usize = shapes.sizes(&geometry.side).iter().product();
        let other: usize = shapes.sizes(&geometry.other).iter().product();
        let k = geometry.k;
        let blocks_k = k.div_ceil(4);
        let target_k = geometry.target_k(shapes);

        let threads = THREADS.min(1 << limits.invocations.max(1).ilog2());
        let lanes = side.next_power_of_two().min(threads);
        let slices = threads / lanes;
        // Cells that follow one another along the other side would be read a row apart by
        // neighbouring threads: the workgroup fetches them along the memory instead.
        let stride = |letters: &[_]| {
            letters.iter().map(|&x| plan.data().stride(shapes, x)).min().unwrap_or(usize::MAX)
        };
        let fields = cells.fields();
        let staged =
            !fields.is_empty() && lanes > 1 && stride(&geometry.other) < stride(&geometry.side);
        // Values of which several fit a word are fetched so, where words do not straddle rows.
        let in_word = cells.values.in_word();
        let by_words =
            staged && whole_words && in_word > 1 && rows_of_words(plan, geometry, in_word);
        let columns = |field: &str, tile: usize| match by_words && field == "value" {
            true => tile.div_ceil(in_word),
            false => tile,
        };
        let bytes = |tile: usize| {
            let stage: usize =
                fields.iter().map(|(field, _)| 4 * lanes * (columns(field, tile) + 1)).sum();
            let stage = if staged { stage + 4 * lanes } else { 0 };
            tile * blocks_k * 16 + tile * 4 + stage + if wants.losses { threads * 16 } else { 0 }
        };
        let most = if by_words { WORDS_TILE } else { TILE };
        let mut tile = most.max(slices).min(other.next_power_of_two()).min(threads);
        while tile > 1 && bytes(tile) > limits.workgroup_bytes as usize {
            tile /= 2;
        }

        let mut numbers = Uniforms::default();
        let n = &mut numbers;
        let at = places(plan, geometry, n);

        let with: Vec<usize> =
            (0..geometry.tensors.len()).filter(|&t| geometry.tensors[t].with_target).collect();
        let against: Vec<usize> =
            (0..geometry.tensors.len()).filter(|&t| !geometry.tensors[t].with_target).collect();
        let partners: Vec<usize> = geometry.partners().collect();
        let mut other_product = product_function(
            "other_product",
            &against,
            &["own", "summed", "other"],
            shapes,
            geometry,
            n,
        );
        // The last vector of a row of the tile may be longer than what is left of K.
        let component = |c: usize| {
            let value = format!("other_product(own, summed, other, k + {c}u)");
            if k % 4 > c || k.is_multiple_of(4) {
                value
            } else {
                format!("other_product(own, summed, other, min(k + {c}u, {}u))", k - 1)
            }
        };
        let components: Vec<String> = (0..4).map(component).collect();
        let _ = write!(
            other_product,
            "fn other_vector(own: At, summed: At, other: At, k: u32) -> vec4<f32> {{\n    return vec4<f32>(\n        {},\n    );\n}}\n",
            components.join(",\n        ")
        );
        let mut partner_product =
            product_function("row_product", &with, &["own", "summed", "side"], shapes, geometry, n);
        let sums = wants.numerator || wants.denominator;
        if sums && !partners.is_empty() {
            partner_product += &product_function(
                "partner_product",
                &partners,
                &["own", "summed", "side"],
                shapes,
                geometry,
                n,
            );
        }

        let moving = geometry.partners_move();
        let blocks: Vec<(usize, usize)> = (0..blocks_k).map(|b| (b, (k - 4 * b).min(4))).collect();
        let of_width = |width: usize| match width {
            1 => "f32".to_string(),
            w => format!("vec{w}<f32>"),
        };
        let swizzle = |width: usize| ["", ".x", ".xy", ".xyz", ""][width];
        let letter = |c: usize| ["x", "y", "z", "w"][c];

        let mut registers = String::new();
        let accumulators: Vec<&str> = [(wants.numerator, "n"), (wants.denominator, "d")]
            .iter()
            .filter(|(wanted, _)| *wanted)
            .map(|&(_, name)| name)
            .collect();
        for &(b, width) in &blocks {
            let kind = of_width(width);
            let _ = writeln!(registers, "var r{b} = {kind}();");
            for name in &accumulators {
                let _ = writeln!(registers, "var {name}{b} = {kind}();");
            }
        }
        if wants.losses {
            registers += "var loss = vec3<f32>();\n";
        }
        let side_count = n.word(Number::SideCount);
        let target_place = |tk: usize, half: bool, n: &mut Uniforms| {
            let half = if half { format!("{} + ", n.word(Number::Half)) } else { String::new() };
            format!("partials[{half}place + {tk}u * {side_count}]")
        };
        let two = accumulators.len() == 2;
        if moving && sums {
            registers += "if live {\n";
            for tk in 0..target_k {
                for (i, _) in accumulators.iter().enumerate() {
                    let place = target_place(tk, two && i == 1, n);
                    let _ = writeln!(registers, "    {place} = 0.0;");
                }
            }
            registers += "}\n";
        }

        let load = |summed: &str| {
            let mut text = String::new();
            for &(b, width) in &blocks {
                let products: Vec<String> = (0..width)
                    .map(|c| format!("row_product(own, {summed}, side, {}u)", 4 * b + c))
                    .collect();
                let _ = writeln!(text, "r{b} = {}({});", of_width(width), products.join(", "));
            }
            text
        };
        let flush = |summed: &str, add: bool, n: &mut Uniforms| {
            let mut terms: Vec<[String; 2]> = vec![[String::new(), String::new()]; target_k];
            for inner in 0..k {
                let tk = geometry.target_index(shapes, inner);
                let (b, width) = blocks[inner / 4];
                for (i, name) in accumulators.iter().enumerate() {
                    let value = if width == 1 {
                        format!("{name}{b}")
                    } else {
                        format!("{name}{b}.{}", letter(inner % 4))
                    };
                    let term = match partners.is_empty() {
                        true => value,
                        false => {
                            format!("{value} * partner_product(own, {summed}, side, {inner}u)")
                        }
                    };
                    let sum = &mut terms[tk][i];
                    if !sum.is_empty() {
                        *sum += " + ";
                    }
                    *sum += &term;
                }
            }
            let mut text = "if live {\n".to_string();
            for (tk, sums) in terms.iter().enumerate() {
                for (i, sum) in sums.iter().enumerate().take(accumulators.len()) {
                    let place = target_place(tk, two && i == 1, n);
                    let op = if add { "+=" } else { "=" };
                    let _ = writeln!(text, "    {place} {op} {sum};");
                }
            }
            text + "}\n"
        };

        let fixed_rows = if moving { String::new() } else { load("At()") };
        let mut moving_rows = String::new();
        if moving {
            let other_blocks = n.word(Number::OtherBlocks);
            let _ = writeln!(moving_rows, "if unit == first || unit % {other_blocks} == 0u {{");
            if sums {
                moving_rows += "    if unit != first {\n";
                let _ = writeln!(
                    moving_rows,
                    "        let before = summed_at(unit / {other_blocks} - 1u);"
                );
                for line in flush("before", true, n).lines() {
                    let _ = writeln!(moving_rows, "        {line}");
                }
                for &(b, width) in &blocks {
                    for name in &accumulators {
                        let _ = writeln!(moving_rows, "        {name}{b} = {}();", of_width(width));
                    }
                }
                moving_rows += "    }\n";
            }
            for line in load("summed").lines() {
                let _ = writeln!(moving_rows, "    {line}");
            }
            moving_rows += "}\n";
        }
        let mut finish = String::new();
        if sums {
            if moving {
                let other_blocks = n.word(Number::OtherBlocks);
                finish += "if first < end {\n";
                let _ =
                    writeln!(finish, "    let before = summed_at((end - 1u) / {other_blocks});");
                for line in flush("before", true, n).lines() {
                    let _ = writeln!(finish, "    {line}");
                }
                finish += "}\n";
            } else {
                finish += &flush("At()", false, n);
            }
        }

        let mut columns_text = String::new();
        for &(b, width) in &blocks {
            let _ = writeln!(
                columns_text,
                "let c{b} = tile[(n + {{j}}u) * BLOCKS_K + {b}u]{};",
                swizzle(width)
            );
        }
        let mut prediction = String::new();
        let full = k / 4;
        if full > 0 {
            prediction += "var four = r0 * c0;\n";
            for b in 1..full {
                let _ = writeln!(prediction, "four = fma(r{b}, c{b}, four);");
            }
            prediction += "var y = (four.x + four.y) + (four.z + four.w);\n";
        } else {
            prediction += "var y = 0.0;\n";
        }
        match k % 4 {
            0 => {}
            1 => {
                let _ = writeln!(prediction, "y = fma(r{full}, c{full}, y);");
            }
            _ => {
                let _ = writeln!(prediction, "y += dot(r{full}, c{full});");
            }
        }
        let mut accumulate = String::new();
        for &(b, width) in &blocks {
            for name in &accumulators {
                let value = if *name == "n" { "a" } else { "b" };
                let value = if width == 1 {
                    value.to_string()
                } else {
                    format!("{}({value})", of_width(width))
                };
                let _ = writeln!(accumulate, "{name}{b} = fma({value}, c{b}, {name}{b});");
            }
        }

        let mut workgroup = String::new();
        let (scale, floor) = (n.word(Number::Scale), n.word(Number::Floor));
        let (mut stage_rows, mut stage_cells) = (String::new(), String::new());
        if staged {
            workgroup += "var<workgroup> row_places: array<u32, LANES>;\n";
            stage_rows += "if thread < LANES {\n    row_places[thread] = side.data;\n}\n";
            for (field, kind) in &fields {
                let columns = columns(field, tile);
                let by_words = by_words && field == "value";
                let kind = if by_words { "u32" } else { kind };
                let _ = writeln!(
                    workgroup,
                    "var<workgroup> stage_{field}: array<{kind}, {}u>;",
                    lanes * (columns + 1)
                );
                let fetched = match by_words {
                    true => format!("values[at / {in_word}u]"),
                    false => format!("{field}(at)"),
                };
                let cells = lanes * columns;
                stage_cells += &fetch(field, &fetched, cells, columns, tile / columns, threads);
            }
            stage_cells += "workgroupBarrier();\n";
        }
        // The fields of cell `n` of the tile.
        let mut read_cells = String::new();
        let mut known = String::new();
        if !staged && !fields.is_empty() {
            read_cells +=
                "let at{j} = own.data + summed.data + side.data + other_places[n + {j}u];\n";
        }
        for (field, _) in &fields {
            read_cells += &match (staged, by_words && field == "value") {
                (true, true) => {
                    let row = (columns(field, tile) + 1) * in_word;
                    let load = cells.values.load("stage_value").replace("at ", "at{j} ");
                    format!(
                        "let at{{j}} = lane * {row}u + n + {{j}}u;\nlet {field}{{j}} = {load} * bitcast<f32>({scale});\n"
                    )
                }
                (true, false) => format!(
                    "let {field}{{j}} = stage_{field}[lane * {}u + n + {{j}}u];\n",
                    tile + 1
                ),
                _ => format!("let {field}{{j}} = {field}(at{{j}});\n"),
            };
            known += match field.as_str() {
                // Only this one is changed, where the cell is missing.
                "value" if cells.missing => "var x = value{j};\n".into(),
                "value" => "let x = value{j};\n".into(),
                _ => format!("let cell_{field} = {field}{{j}};\n"),
            }
            .as_str();
        }
        let registers_of_sums = k * (1 + accumulators.len());
        let abreast = if registers_of_sums <= ABREAST_REGISTERS { ABREAST } else { 1 };
        let body = format!(
            "{columns_text}{prediction}{known}{}{accumulate}",
            cells.evaluate(wants, &floor)
        );
        let work_on = |count: usize| {
            let all = |text: &str| -> String {
                (0..count).map(|j| text.replace("{j}", &j.to_string())).collect()
            };
            all(&read_cells) + &all(&format!("{{\n{}}}\n", indented(&body)))
        };
        let mut walk = String::new();
        if abreast > 1 {
            let _ = writeln!(
                walk,
                "for (var n = {abreast}u * slice; n + {}u <= count; n += {}u) {{",
                abreast,
                abreast * slices
            );
            walk += &indented(&work_on(abreast));
            let _ = writeln!(
                walk,
                "}}\nfor (var n = count / {abreast}u * {abreast}u + slice; n < count; n += SLICES) {{"
            );
        } else {
            walk += "for (var n = slice; n < count; n += SLICES) {\n";
        }
        walk += &indented(&work_on(1));
        walk += "}\n";
        let (mut tile_losses, mut add_losses, mut reduction) =
            (String::new(), String::new(), String::new());
        if wants.losses {
            workgroup += "var<workgroup> loss_sums: array<vec3<f32>, THREADS>;\n";
            // A tile's sum of its own: rounding does not grow with the length of the stretch.
            tile_losses += "var total = loss;\nloss = vec3<f32>();\n";
            add_losses += "loss += total;\n";
            let (losses, blocks) = (n.word(Number::Losses), n.word(Number::BlockCount));
            let place = format!("{losses} + group.z * {blocks} + block");
            reduction += &reduce_losses(threads, "select(vec3<f32>(), loss, live)", &place);
        }

        let mut bindings = cells.bindings(3);
        let mut access = vec![Access::Uniform];
        access.extend(vec![Access::Read; 1 + cells.buffers() as usize]);
        if sums {
            let _ = writeln!(
                bindings,
                "@group(0) @binding({}) var<storage, read_write> partials: array<f32>;",
                access.len()
            );
            access.push(Access::ReadWrite);
        }
        if wants.losses {
            let _ = writeln!(
                bindings,
                "@group(0) @binding({}) var<storage, read_write> losses: array<f32>;",
                access.len()
            );
            access.push(Access::ReadWrite);
        }
        let slab_cells = n.word(Number::SlabCells);
        let words = [
            ("lanes", format!("{lanes}u")),
            ("slices", format!("{slices}u")),
            ("threads", format!("{threads}u")),
            ("tile", format!("{tile}u")),
            ("k", format!("{k}u")),
            ("blocks_k", format!("{blocks_k}u")),
            ("tile_vectors", format!("{}u", tile * blocks_k)),
            ("bindings", bindings),
            ("workgroup", workgroup),
            ("at", at),
            ("other_product", other_product),
            ("partner_product", partner_product),
            ("cell", cells.functions(&scale, &slab_cells)),
            ("entry", entry(terms, wants)?),
            ("fold", n.word(Number::Fold)),
            ("block_count", n.word(Number::BlockCount)),
            ("side_blocks", n.word(Number::SideBlocks)),
            ("side_count", side_count.clone()),
            ("own_count", n.word(Number::OwnCount)),
            ("target_k", format!("{target_k}u")),
            ("stretch", n.word(Number::Stretch)),
            ("summed_count", n.word(Number::SummedCount)),
            ("other_blocks", n.word(Number::OtherBlocks)),
            ("other_count", n.word(Number::OtherCount)),
            ("stage_rows", stage_rows),
            ("registers", registers),
            ("fixed_rows", fixed_rows),
            ("moving_rows", moving_rows),
            ("stage_cells", stage_cells),
            ("tile_losses", tile_losses),
            ("walk", walk),
            ("add_losses", add_losses),
            ("finish", finish),
            ("reduce_losses", reduction),
            ("numbers", format!("{}u", n.vectors())),
        ];
        let source = fill(TEMPLATE, &words)?;
        Ok(RowsShader {
            shader: Shader {
                label: format!("pass{}", if wants.losses { " with losses" } else { "" }),
                source,
                bindings: access,
                invocations: threads as u32,
                workgroup_bytes: bytes(tile) as u32,
            },
            numbers,
            lanes,
            slices,
            tile,
            aligned: if by_words { in_word } else { 1 },
        })
    }
}

/// Whether the data's rows along the other side are whole words.
fn rows_of_words(plan: &Plan, geometry: &Geometry, in_word: usize) -> bool {
    let shapes = plan.shapes();
    let stride = |x| plan.data().stride(shapes, x);
    let observed = shapes.model().output().iter().copied().filter(|&x| shapes.size(x) > 1);
    geometry.other.last().is_some_and(|&x| stride(x) == 1 && shapes.size(x) > 1)
        && observed.map(stride).all(|n| n == 1 || n.is_multiple_of(in_word))
}

/// A workgroup's reads of `cells` cells, or words of them, in rows of `columns`, each of `each` cells.
fn fetch(
    field: &str,
    fetched: &str,
    cells: usize,
    columns: usize,
    each: usize,
    threads: usize,
) -> String {
    let reads = READS.min(cells.div_ceil(threads));
    let mut text = String::new();
    let _ = writeln!(text, "for (var i = thread; i < {cells}u; i += {}u) {{", reads * threads);
    // All reads before the first is waited for. Those past the end repeat the last.
    for r in 0..reads {
        let _ = writeln!(text, "    let i{r} = min(i + {}u, {}u);", r * threads, cells - 1);
        let _ = writeln!(
            text,
            "    let from{r} = own.data + summed.data + row_places[i{r} / {columns}u] + other_places[i{r} % {columns}u * {each}u];",
        );
        let _ = writeln!(text, "    let read{r} = {};", fetched.replace("at", &format!("from{r}")));
    }
    for r in 0..reads {
        let _ = writeln!(
            text,
            "    stage_{field}[i{r} / {columns}u * {}u + i{r} % {columns}u] = read{r};",
            columns + 1
        );
    }
    text + "}\n"
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}
