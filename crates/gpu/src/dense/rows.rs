//! The shader of a dense pass whose contracted dimension fits the registers of a thread:
//! `dense_pass.wgsl`.

use std::fmt::Write as _;

use super::entries::entry_terms;
use super::geometry::{Geometry, TileOperand};
use super::pass_text::PassText;
use crate::program::declarations::Declarations;
use crate::program::recording::{Access, Shader};
use crate::program::template::{fill, indented};
use crate::program::uniforms::{Uniform, Uniforms, offsets, product_function};
use nneinfact_core::error::Result;
use nneinfact_core::model::{Index, Shapes};
use nneinfact_core::plan::Plan;

/// Threads of a workgroup, where the device allows as many.
const THREADS: usize = 128;
/// Columns in a tile, and in one whose values are fetched by words.
const TILE: usize = 32;
const WORDS_TILE: usize = 64;
/// Entries that a thread works on side by side, and the most registers of sums that it has then.
const UNROLL: usize = 4;
const UNROLL_REGISTERS: usize = 96;
/// Reads that a thread has under way at once where a workgroup fetches entries.
const READS: usize = 4;

/// A shader with what a dispatch of it depends on.
#[derive(Clone, Debug)]
pub(crate) struct RowsShader {
    pub shader: Shader,
    pub uniforms: Uniforms,
    /// Rows of a workgroup.
    pub rows: usize,
    /// Threads that share a row.
    pub slices: usize,
    /// Columns in a tile.
    pub tile: usize,
    /// Parts of the data have to begin at multiples of this many entries.
    pub aligned: usize,
}

impl RowsShader {
    /// Where not told that parts of the data begin with `whole_words`, it does not count on it.
    pub fn new(text: PassText<'_>, whole_words: bool) -> Result<RowsShader> {
        let layout = RowsLayout::new(text, whole_words);
        let mut filler = Filler::new(text, &layout);
        let source = filler.source()?;
        let losses = if text.wants.losses { " with losses" } else { "" };
        Ok(RowsShader {
            shader: Shader {
                label: format!("pass{losses}"),
                source,
                bindings: filler.declarations().access,
                invocations: layout.threads as u32,
                workgroup_bytes: layout.bytes as u32,
            },
            uniforms: filler.uniforms,
            rows: layout.rows,
            slices: layout.slices,
            tile: layout.tile,
            aligned: layout.in_word.unwrap_or(1),
        })
    }
}

/// How a workgroup is laid out.
struct RowsLayout {
    threads: usize,
    rows: usize,
    slices: usize,
    tile: usize,
    /// Whether the workgroup fetches entries along the memory into a stage, since neighbouring threads
    /// would read entries that follow one another along the columns a row apart.
    staged: bool,
    /// Where values are staged by whole words, how many a word has.
    in_word: Option<usize>,
    /// Bytes of workgroup memory.
    bytes: usize,
}

impl RowsLayout {
    fn new(text: PassText<'_>, whole_words: bool) -> RowsLayout {
        let PassText { plan, geometry, format, wants, limits, .. } = text;
        let shapes = plan.shapes();
        let count = |indices: &[Index]| shapes.sizes(indices).iter().product::<usize>();
        let threads = THREADS.min(1 << limits.invocations.max(1).ilog2());
        let rows = count(&geometry.rows).next_power_of_two().min(threads);
        let slices = threads / rows;
        let stride = |indices: &[Index]| {
            indices.iter().map(|&x| plan.data().stride(shapes, x)).min().unwrap_or(usize::MAX)
        };
        let fields = format.fields();
        let staged =
            !fields.is_empty() && rows > 1 && stride(&geometry.columns) < stride(&geometry.rows);
        // Values of which several fit a word are fetched so, where words do not straddle rows.
        let in_word = format.values.in_word();
        let by_words =
            staged && whole_words && in_word > 1 && rows_of_words(plan, geometry, in_word);
        let mut layout = RowsLayout {
            threads,
            rows,
            slices,
            tile: 0,
            staged,
            in_word: by_words.then_some(in_word),
            bytes: 0,
        };
        let tile_bytes = geometry.k.div_ceil(4) * 16 + 4;
        let loss_bytes = if wants.losses { threads * 16 } else { 0 };
        let bytes = |layout: &RowsLayout| {
            let stage: usize =
                fields.iter().map(|(field, _)| 4 * rows * (layout.stage_columns(field) + 1)).sum();
            let stage = if staged { stage + 4 * rows } else { 0 };
            layout.tile * tile_bytes + stage + loss_bytes
        };
        let most = if by_words { WORDS_TILE } else { TILE };
        layout.tile =
            most.max(slices).min(count(&geometry.columns).next_power_of_two()).min(threads);
        while layout.tile > 1 && bytes(&layout) > limits.workgroup_bytes as usize {
            layout.tile /= 2;
        }
        layout.bytes = bytes(&layout);
        layout
    }

    /// Where a field is staged by whole words, how many values a word has.
    fn words_of(&self, field: &str) -> Option<usize> {
        self.in_word.filter(|_| field == "value")
    }

    /// Columns of the stage of a field: words, or entries.
    fn stage_columns(&self, field: &str) -> usize {
        self.words_of(field).map_or(self.tile, |in_word| self.tile.div_ceil(in_word))
    }
}

/// Whether the data's rows along the columns are whole words.
fn rows_of_words(plan: &Plan, geometry: &Geometry, in_word: usize) -> bool {
    let shapes = plan.shapes();
    let stride = |x| plan.data().stride(shapes, x);
    let observed = shapes.model().output().iter().copied().filter(|&x| shapes.size(x) > 1);
    geometry.columns.last().is_some_and(|&x| stride(x) == 1 && shapes.size(x) > 1)
        && observed.map(stride).all(|n| n == 1 || n.is_multiple_of(in_word))
}

/// A sum that a thread keeps in registers: its name, and what its terms are multiplied with.
#[derive(Clone, Copy, PartialEq, Eq)]
struct RegisterSum {
    name: &'static str,
    by: &'static str,
}

const NUMERATOR: RegisterSum = RegisterSum { name: "n", by: "a" };
const DENOMINATOR: RegisterSum = RegisterSum { name: "d", by: "b" };

/// The type of a vector of this many components.
fn vector(width: usize) -> String {
    match width {
        1 => "f32".to_string(),
        w => format!("vec{w}<f32>"),
    }
}

/// What fills in the template.
struct Filler<'a> {
    text: PassText<'a>,
    layout: &'a RowsLayout,
    shapes: &'a Shapes,
    /// Vectors that hold a contracted dimension: the number and width of each.
    blocks: Vec<(usize, usize)>,
    sums: Vec<RegisterSum>,
    co_operands: Vec<usize>,
    uniforms: Uniforms,
}

impl<'a> Filler<'a> {
    fn new(text: PassText<'a>, layout: &'a RowsLayout) -> Filler<'a> {
        let k = text.geometry.k;
        let sums = [(text.wants.numerator, NUMERATOR), (text.wants.denominator, DENOMINATOR)];
        Filler {
            text,
            layout,
            shapes: text.plan.shapes(),
            blocks: (0..k.div_ceil(4)).map(|b| (b, (k - 4 * b).min(4))).collect(),
            sums: sums.into_iter().filter(|(wanted, _)| *wanted).map(|(_, sum)| sum).collect(),
            co_operands: text.geometry.co_operands(),
            uniforms: Uniforms::default(),
        }
    }

    fn word(&mut self, uniform: Uniform) -> String {
        self.uniforms.word(uniform)
    }

    fn source(&mut self) -> Result<String> {
        let PassText { plan, geometry, format, terms, wants, .. } = self.text;
        let layout = self.layout;
        // Uniforms are numbered in the order in which they are asked for.
        let offsets = offsets(plan, geometry, &mut self.uniforms);
        let column_product = self.column_product();
        let row_products = self.row_products();
        let row_count = self.word(Uniform::RowCount);
        let moving = geometry.co_operands_move();
        let sums = !self.sums.is_empty();
        let clear_partials = if moving && sums { self.clear_partials() } else { String::new() };
        let column_blocks = moving.then(|| self.word(Uniform::ColumnBlocks));
        let store_sums = if sums { self.store_sums(moving) } else { String::new() };
        let (scale, floor) = (self.word(Uniform::Scale), self.word(Uniform::Floor));
        let unroll = self.unroll();
        let one_entry = self.entries(1, &scale, &floor);
        let unrolled_entries = match unroll {
            1 => String::new(),
            _ => self.entries(unroll, &scale, &floor),
        };
        let loss_place = match wants.losses {
            true => {
                let (losses, blocks) = (self.word(Uniform::Losses), self.word(Uniform::BlockCount));
                format!("{losses} + group.z * {blocks} + block")
            }
            false => String::new(),
        };
        let slab_entries = self.word(Uniform::SlabEntries);
        let fold = self.word(Uniform::Fold);
        let block_count = self.word(Uniform::BlockCount);
        let row_blocks = self.word(Uniform::RowBlocks);
        let batch_count = self.word(Uniform::BatchCount);
        let split_units = self.word(Uniform::SplitUnits);
        let reduced_count = self.word(Uniform::ReducedCount);
        let column_blocks = column_blocks.unwrap_or_else(|| self.word(Uniform::ColumnBlocks));
        let column_count = self.word(Uniform::ColumnCount);
        let blocks_k = self.blocks.len();
        let words = [
            ("rows", format!("{}u", layout.rows)),
            ("slices", format!("{}u", layout.slices)),
            ("threads", format!("{}u", layout.threads)),
            ("tile", format!("{}u", layout.tile)),
            ("k", format!("{}u", geometry.k)),
            ("blocks_k", format!("{blocks_k}u")),
            ("tile_vectors", format!("{}u", layout.tile * blocks_k)),
            ("bindings", self.declarations().text),
            ("stages", self.stages()),
            ("offsets", offsets),
            ("column_product", column_product),
            ("row_products", row_products),
            ("entry", format.functions(&scale, &slab_entries)),
            ("entry_terms", entry_terms(terms, wants)?),
            ("fold", fold),
            ("block_count", block_count),
            ("row_blocks", row_blocks),
            ("row_count", row_count),
            ("batch_count", batch_count),
            ("output_k", format!("{}u", geometry.output_k(self.shapes))),
            ("split_units", split_units),
            ("reduced_count", reduced_count),
            ("column_blocks", column_blocks),
            ("column_count", column_count),
            ("registers", self.registers()),
            ("clear_partials", clear_partials),
            ("reset_sums", self.reset_sums()),
            ("load_rows", self.load_rows(if moving { "reduced" } else { "Offsets()" })),
            ("store_sums", store_sums),
            ("stage_entries", self.stage_entries()),
            ("unroll", format!("{unroll}u")),
            ("unroll_step", format!("{}u", unroll * layout.slices)),
            ("unrolled_entries", unrolled_entries),
            ("one_entry", one_entry),
            ("own_loss", "select(vec3<f32>(), loss, live)".into()),
            ("loss_place", loss_place),
            ("uniforms", format!("{}u", self.uniforms.vectors())),
        ];
        fill(nneinfact_shaders::DENSE_PASS, &self.flags(), &words)
    }

    /// Which lines of the template are kept.
    fn flags(&self) -> [(&'static str, bool); 8] {
        let moving = self.text.geometry.co_operands_move();
        let sums = !self.sums.is_empty();
        [
            ("staged", self.layout.staged),
            ("losses", self.text.wants.losses),
            ("sums", sums),
            ("moving", moving),
            ("moving_sums", moving && sums),
            ("fixed", !moving),
            ("fixed_sums", !moving && sums),
            ("unrolled", self.unroll() > 1),
        ]
    }

    /// The bindings besides uniforms, tensors and values.
    fn declarations(&self) -> Declarations {
        let mut declarations = Declarations::after(&[Access::Uniform, Access::Read, Access::Read]);
        self.text.format.declare(&mut declarations);
        if !self.sums.is_empty() {
            declarations.array(Access::ReadWrite, "partials", "f32");
        }
        if self.text.wants.losses {
            declarations.array(Access::ReadWrite, "losses", "f32");
        }
        declarations
    }

    /// How many entries a thread works on side by side.
    fn unroll(&self) -> usize {
        let registers = self.text.geometry.k * (1 + self.sums.len());
        if registers <= UNROLL_REGISTERS { UNROLL } else { 1 }
    }

    /// The functions of the products of C's tensors, at one contracted index and at four.
    fn column_product(&mut self) -> String {
        let geometry = self.text.geometry;
        let k = geometry.k;
        let mut text = product_function(
            "column_product",
            &geometry.tensors_of(TileOperand::Columns),
            &["batch", "reduced", "column"],
            self.shapes,
            geometry,
            &mut self.uniforms,
        );
        // The last vector of a row of the tile may be longer than what is left of K.
        let component = |c: usize| {
            let value = format!("column_product(batch, reduced, column, k + {c}u)");
            if k % 4 > c || k.is_multiple_of(4) {
                value
            } else {
                format!("column_product(batch, reduced, column, min(k + {c}u, {}u))", k - 1)
            }
        };
        let components: Vec<String> = (0..4).map(component).collect();
        let _ = write!(
            text,
            "fn column_vector(batch: Offsets, reduced: Offsets, column: Offsets, k: u32) -> vec4<f32> {{\n    return vec4<f32>(\n        {},\n    );\n}}\n",
            components.join(",\n        ")
        );
        text
    }

    /// The functions of the products of R's tensors, and of the co-operands alone.
    fn row_products(&mut self) -> String {
        let geometry = self.text.geometry;
        let rows = geometry.tensors_of(TileOperand::Rows);
        let all = [("row_product", &rows), ("co_operand_product", &self.co_operands)];
        let count = if self.sums.is_empty() || self.co_operands.is_empty() { 1 } else { 2 };
        all[..count]
            .iter()
            .map(|&(name, tensors)| {
                let offsets = &["batch", "reduced", "row"];
                let uniforms = &mut self.uniforms;
                product_function(name, tensors, offsets, self.shapes, geometry, uniforms)
            })
            .collect()
    }

    /// The thread's row of R and its sums, as variables.
    fn registers(&self) -> String {
        let mut text = String::new();
        for &(b, width) in &self.blocks {
            let kind = vector(width);
            let _ = writeln!(text, "var r{b} = {kind}();");
            for sum in &self.sums {
                let _ = writeln!(text, "var {}{b} = {kind}();", sum.name);
            }
        }
        text
    }

    /// Sets the sums to 0 again.
    fn reset_sums(&self) -> String {
        let mut text = String::new();
        for &(b, width) in &self.blocks {
            for sum in &self.sums {
                let _ = writeln!(text, "{}{b} = {}();", sum.name, vector(width));
            }
        }
        text
    }

    /// Loads the thread's row of R at the offsets of a reduced batch index.
    fn load_rows(&self, reduced: &str) -> String {
        let mut text = String::new();
        for &(b, width) in &self.blocks {
            let products: Vec<String> = (0..width)
                .map(|c| format!("row_product(batch, {reduced}, row, {}u)", 4 * b + c))
                .collect();
            let _ = writeln!(text, "r{b} = {}({});", vector(width), products.join(", "));
        }
        text
    }

    /// The partial sum of the output's contracted index `k`, of the numerator or, if there are both,
    /// the second of the two.
    fn partial(&mut self, k: usize, second: bool) -> String {
        let half = match second {
            true => format!("{} + ", self.word(Uniform::Half)),
            false => String::new(),
        };
        let row_count = self.word(Uniform::RowCount);
        format!("partials[{half}place + {k}u * {row_count}]")
    }

    /// Sets the partial sums of a row to 0.
    fn clear_partials(&mut self) -> String {
        let mut text = String::new();
        for k in 0..self.text.geometry.output_k(self.shapes) {
            for i in 0..self.sums.len() {
                let _ = writeln!(text, "{} = 0.0;", self.partial(k, i == 1));
            }
        }
        text
    }

    /// Writes the sums to the partial sums; where co-operands move, multiplied with them at the reduced
    /// batch index `before` and added to what is there.
    fn store_sums(&mut self, moving: bool) -> String {
        let geometry = self.text.geometry;
        let reduced = if moving { "before" } else { "Offsets()" };
        let output_k = geometry.output_k(self.shapes);
        let mut terms: Vec<[String; 2]> = vec![[String::new(), String::new()]; output_k];
        for k in 0..geometry.k {
            let (b, width) = self.blocks[k / 4];
            for (i, sum) in self.sums.iter().enumerate() {
                let mut term = format!("{}{b}", sum.name);
                if width > 1 {
                    term += [".x", ".y", ".z", ".w"][k % 4];
                }
                if !self.co_operands.is_empty() {
                    let _ = write!(term, " * co_operand_product(batch, {reduced}, row, {k}u)");
                }
                let all = &mut terms[geometry.output_index(self.shapes, k)][i];
                if !all.is_empty() {
                    *all += " + ";
                }
                *all += &term;
            }
        }
        let op = if moving { "+=" } else { "=" };
        let mut text = String::new();
        for (k, sums) in terms.iter().enumerate() {
            for (i, sum) in sums.iter().enumerate().take(self.sums.len()) {
                let _ = writeln!(text, "{} {op} {sum};", self.partial(k, i == 1));
            }
        }
        text
    }

    /// The stages that the workgroup fetches entries into.
    fn stages(&self) -> String {
        let layout = self.layout;
        let mut text = String::new();
        for (field, kind) in self.text.format.fields() {
            let kind = if layout.words_of(&field).is_some() { "u32" } else { kind };
            let words = layout.rows * (layout.stage_columns(&field) + 1);
            let _ = writeln!(text, "var<workgroup> stage_{field}: array<{kind}, {words}u>;");
        }
        text
    }

    /// Fetches the entries of a tile.
    fn stage_entries(&self) -> String {
        let fetch = |(field, _): (String, &str)| match self.layout.words_of(&field) {
            Some(in_word) => self.fetch(&field, &format!("values[from / {in_word}u]")),
            None => self.fetch(&field, &format!("{field}(from)")),
        };
        self.text.format.fields().into_iter().map(fetch).collect()
    }

    /// A workgroup's reads of a field: all before the first is waited for. Those past the end repeat
    /// the last.
    fn fetch(&self, field: &str, fetched: &str) -> String {
        let (threads, columns) = (self.layout.threads, self.layout.stage_columns(field));
        let count = self.layout.rows * columns;
        let each = self.layout.tile / columns;
        let reads = READS.min(count.div_ceil(threads));
        let mut text = String::new();
        let step = reads * threads;
        let _ = writeln!(text, "for (var i = thread; i < {count}u; i += {step}u) {{");
        for r in 0..reads {
            let _ = writeln!(text, "    let i{r} = min(i + {}u, {}u);", r * threads, count - 1);
            let _ = writeln!(
                text,
                "    let from{r} = batch.data + reduced.data + row_offsets[i{r} / {columns}u] + column_offsets[i{r} % {columns}u * {each}u];",
            );
            let fetched = fetched.replace("from", &format!("from{r}"));
            let _ = writeln!(text, "    let read{r} = {fetched};");
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

    /// What a thread does with some entries of the tile, the first being `n`: it reads all of them
    /// before it works on the first.
    fn entries(&self, count: usize, scale: &str, floor: &str) -> String {
        let all = |text: &str| -> String {
            (0..count).map(|j| text.replace("{j}", &j.to_string())).collect()
        };
        let work = self.known() + &self.text.format.evaluate(self.text.wants, floor);
        let body = self.prediction() + &work + &self.accumulate();
        all(&self.read(scale, count)) + &all(&format!("{{\n{}}}\n", indented(&body)))
    }

    /// Reads the fields of entry `n + {j}` of the tile, for `count` of them from one multiple of it on.
    fn read(&self, scale: &str, count: usize) -> String {
        let (layout, format) = (self.layout, self.text.format);
        let fields = format.fields();
        let mut text = String::new();
        if !layout.staged && !fields.is_empty() {
            text +=
                "let at{j} = batch.data + reduced.data + row.data + column_offsets[n + {j}u];\n";
        }
        for (field, _) in &fields {
            text += &match (layout.staged, layout.words_of(field)) {
                // Entries of a word share a read of it.
                (true, Some(in_word)) if count.is_multiple_of(in_word) => {
                    let words = layout.stage_columns(field) + 1;
                    let word = format!(
                        "stage_value[local_row * {words}u + n / {in_word}u + {{j}}u / {in_word}u]"
                    );
                    let load = format.values.unpack(&word, &format!("{{j}}u % {in_word}u"));
                    format!("let {field}{{j}} = {load} * bitcast<f32>({scale});\n")
                }
                (true, Some(in_word)) => {
                    let words = (layout.stage_columns(field) + 1) * in_word;
                    let load = format.values.load("stage_value").replace("at ", "at{j} ");
                    format!(
                        "let at{{j}} = local_row * {words}u + n + {{j}}u;\nlet {field}{{j}} = {load} * bitcast<f32>({scale});\n"
                    )
                }
                (true, None) => format!(
                    "let {field}{{j}} = stage_{field}[local_row * {}u + n + {{j}}u];\n",
                    layout.tile + 1
                ),
                (false, _) => format!("let {field}{{j}} = {field}(at{{j}});\n"),
            };
        }
        text
    }

    /// What is known of the entry, by the names that its evaluation uses.
    fn known(&self) -> String {
        let known = |(field, _): (String, &str)| match field.as_str() {
            // Only this one is changed, where the entry is missing.
            "value" if self.text.format.missing => "var x = value{j};\n".to_string(),
            "value" => "let x = value{j};\n".to_string(),
            _ => format!("let entry_{field} = {field}{{j}};\n"),
        };
        self.text.format.fields().into_iter().map(known).collect()
    }

    /// The prediction `y`.
    fn prediction(&self) -> String {
        let mut text = String::new();
        for &(b, width) in &self.blocks {
            let swizzle = ["", ".x", ".xy", ".xyz", ""][width];
            let _ = writeln!(text, "let c{b} = tile[(n + {{j}}u) * BLOCKS_K + {b}u]{swizzle};");
        }
        let full = self.text.geometry.k / 4;
        if full > 0 {
            text += "var four = r0 * c0;\n";
            for b in 1..full {
                let _ = writeln!(text, "four = fma(r{b}, c{b}, four);");
            }
            text += "var y = (four.x + four.y) + (four.z + four.w);\n";
        } else {
            text += "var y = 0.0;\n";
        }
        let _ = match self.text.geometry.k % 4 {
            0 => Ok(()),
            1 => writeln!(text, "y = fma(r{full}, c{full}, y);"),
            _ => writeln!(text, "y += dot(r{full}, c{full});"),
        };
        text
    }

    /// Adds an entry's terms to the sums.
    fn accumulate(&self) -> String {
        let mut text = String::new();
        for &(b, width) in &self.blocks {
            for RegisterSum { name, by } in &self.sums {
                let by = match width {
                    1 => by.to_string(),
                    _ => format!("{}({by})", vector(width)),
                };
                let _ = writeln!(text, "{name}{b} = fma({by}, c{b}, {name}{b});");
            }
        }
        text
    }
}
