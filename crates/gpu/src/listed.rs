//! The shaders of a pass over a list of cells: `listed.wgsl`, `gather.wgsl` and `drop.wgsl`.

use std::fmt::Write as _;

use super::cells::reduce_losses;
use super::recording::{Access, GpuLimits, Shader};
use super::text::fill;
use nneinfact_core::error::Result;
use nneinfact_core::loss::{Expr, wgsl_function};

/// Threads of a workgroup, and so cells of a block, where the device allows as many.
const THREADS: usize = 128;
/// The fewest cells of a piece: its sums are written and read again.
const PIECE: usize = 16;

/// What a pass over a list sums, as expressions of `x`, `y` and side values.
#[derive(Clone, Debug, Default)]
pub(super) struct ListTerms {
    pub numerator: Option<Expr>,
    pub denominator: Option<Expr>,
    pub loss: ListLoss,
}

/// Which losses a pass over a list sums.
#[derive(Clone, Debug, Default)]
pub(super) enum ListLoss {
    #[default]
    None,
    /// All cells are for training.
    Train(Expr),
    /// Validation and held-out cells have a loss; and the training loss is less by what each of the
    /// cells, whatever its role, adds to a sum over all cells.
    ByRole { loss: Expr, less: Option<Expr> },
}

impl ListTerms {
    /// Which of numerator and denominator.
    pub fn halves(&self) -> usize {
        usize::from(self.numerator.is_some()) + usize::from(self.denominator.is_some())
    }

    /// Whether losses are summed.
    pub fn losses(&self) -> bool {
        !matches!(self.loss, ListLoss::None)
    }
}

/// A shader that goes over a list, with what a dispatch of it depends on.
#[derive(Clone, Debug)]
pub(super) struct ListShader {
    pub shader: Shader,
    /// Cells of a block.
    pub threads: usize,
    /// The most cells of a piece.
    pub piece: usize,
    /// Vectors of four that hold its numbers.
    pub numbers: usize,
}

/// Goes over a list whose cells look up rows of `inner` in `tables` tables, the target's among
/// them.
pub(super) fn listed(
    inner: usize,
    tables: usize,
    sides: usize,
    terms: &ListTerms,
    limits: &GpuLimits,
) -> Result<ListShader> {
    let threads = THREADS.min(1 << limits.invocations.max(1).ilog2());
    let lanes = inner.next_power_of_two().min(threads);
    let numbers = 2 + tables.div_ceil(4);
    let base = |t: usize| format!("numbers[{}].{}", 2 + t / 4, ["x", "y", "z", "w"][t % 4]);
    // Row `t` of a cell, by the place of the cell in its column.
    let row = |t: usize, cell: &str| match t {
        1 => format!("cells[{cell}]"),
        _ => format!("cells[{cell} + {}u * numbers[0].x]", t - 1),
    };
    let product: Vec<String> = (1..tables).map(|t| format!("tables[t{t} + k]")).collect();
    let product = product.join(" * ");
    let mut places = String::new();
    for t in 1..tables {
        let _ = writeln!(places, "let t{t} = {} + {} * K;", base(t), row(t, "cell"));
    }
    let value = tables - 1;
    let side =
        |i: usize| format!(", bitcast<f32>(cells[cell + {}u * numbers[0].x])", value + 1 + i);

    let mut outputs: Vec<&Expr> = Vec::new();
    let mut keep: Vec<(&str, usize)> = Vec::new();
    let mut output = |expr, what| {
        outputs.push(expr);
        keep.push((what, outputs.len() - 1));
    };
    if let Some(a) = &terms.numerator {
        output(a, "a");
    }
    if let Some(b) = &terms.denominator {
        output(b, "b");
    }
    match &terms.loss {
        ListLoss::None => {}
        ListLoss::Train(loss) => output(loss, "train"),
        ListLoss::ByRole { loss, less } => {
            output(loss, "withheld");
            if let Some(less) = less {
                output(less, "less");
            }
        }
    }
    let count = outputs.len();
    let component = |which: usize| match count {
        1 => "found".to_string(),
        _ => format!("found.{}", ["x", "y", "z", "w"][which]),
    };
    let (mut workgroup, mut kept) = (String::new(), String::new());
    let (mut start, mut add, mut finish) = (String::new(), String::new(), String::new());
    for (what, which) in keep {
        let found = component(which);
        let _ = match what {
            "a" | "b" => {
                let (sum, half) = if what == "a" { ("n", "") } else { ("d", "numbers[1].z + ") };
                // The only sums are the first, whichever they are.
                let half = if terms.halves() == 1 { "" } else { half };
                let _ = writeln!(workgroup, "var<workgroup> {what}_of: array<f32, THREADS>;");
                let _ = writeln!(start, "        var {sum} = 0.0;");
                let _ = writeln!(
                    add,
                    "            {sum} = fma({what}_of[cell - first], product, {sum});"
                );
                let _ = writeln!(finish, "        partials[{half}piece * K + k] = {sum};");
                writeln!(kept, "{what}_of[thread] = {found};")
            }
            "train" => writeln!(kept, "loss.x = {found};"),
            "less" => writeln!(kept, "loss.x = -{found};"),
            _ => {
                let role = format!("cells[cell + {}u * numbers[0].x]", value + 1 + sides);
                let _ = writeln!(kept, "let role = {role};");
                let _ = writeln!(kept, "loss.y = select(0.0, {found}, role == 2u);");
                writeln!(kept, "loss.z = select(0.0, {found}, role == 3u);")
            }
        };
    }
    let mut sums = String::new();
    if terms.halves() > 0 {
        sums += "workgroupBarrier();\n";
        sums += "for (var piece = first_piece + thread / LANES; piece < end_piece; piece += THREADS / LANES) {\n";
        sums += "    let start = index[piece];\n    let end = index[piece + 1u];\n";
        sums += "    for (var k = thread % LANES; k < K; k += LANES) {\n";
        sums += &start;
        sums += "        for (var cell = start; cell < end; cell++) {\n";
        for t in 1..tables {
            let _ = writeln!(sums, "            let t{t} = {} + {} * K;", base(t), row(t, "cell"));
        }
        let _ = writeln!(sums, "            let product = {product};");
        sums += &add;
        sums += "        }\n";
        sums += &finish;
        sums += "    }\n}\n";
    }
    let mut bindings = String::new();
    let mut access = vec![Access::Uniform, Access::Read, Access::Read, Access::Read];
    let mut declare = |name: &str| {
        let at = access.len();
        let _ = writeln!(
            bindings,
            "@group(0) @binding({at}) var<storage, read_write> {name}: array<f32>;"
        );
        access.push(Access::ReadWrite);
    };
    if terms.halves() > 0 {
        declare("partials");
    }
    let (mut losses, mut reduction) = (String::new(), String::new());
    if terms.losses() {
        declare("losses");
        workgroup += "var<workgroup> loss_sums: array<vec3<f32>, THREADS>;\n";
        losses += "var loss = vec3<f32>();\n";
        reduction += &reduce_losses(threads, "loss", "numbers[0].w + block");
    }
    let side_values: String = (0..sides).map(side).collect();
    let words = [
        ("k", format!("{inner}u")),
        ("threads", format!("{threads}u")),
        ("lanes", format!("{lanes}u")),
        ("numbers", format!("{numbers}u")),
        ("bindings", bindings),
        ("workgroup", workgroup),
        ("entry", wgsl_function("entry", &outputs, sides)?),
        ("losses", losses),
        ("places", places),
        ("product", product),
        ("value", format!("{value}u")),
        ("sides", side_values),
        ("keep", kept),
        ("sums", sums),
        ("reduce_losses", reduction),
    ];
    let bytes = threads * (4 + 4 * terms.halves() + if terms.losses() { 16 } else { 0 });
    Ok(ListShader {
        shader: Shader {
            label: format!("pass over a list{}", if terms.losses() { " with losses" } else { "" }),
            source: fill(nneinfact_shaders::LISTED, &words)?,
            bindings: access,
            invocations: threads as u32,
            workgroup_bytes: bytes as u32,
        },
        threads,
        piece: lanes.max(PIECE).min(threads),
        numbers,
    })
}

/// What `gather.wgsl` adds up.
#[derive(Clone, Copy, Debug)]
pub(super) enum Gather {
    /// Pieces of long rows, to fewer.
    Pieces,
    /// The pieces of each row, to numerator and denominator. `folds` says how many inner indices of
    /// the pass belong to the same one of a row; `clamp` which of the halves cannot be negative.
    Rows { folds: usize, clamp: Option<usize> },
}

/// Adds up what pieces summed.
pub(super) fn gather(inner: usize, halves: usize, gather: Gather) -> Result<Shader> {
    let mut access = vec![Access::Uniform, Access::Read, Access::ReadWrite];
    let add = "for (var piece = index[task + 1u]; piece < end; piece++) {\n    total += partials[half * numbers[0].w + piece * K + k];\n}\n";
    let (width, result, sum, store) = match gather {
        Gather::Pieces => (
            inner,
            "",
            format!("let k = inner;\n{add}"),
            "partials[half * numbers[0].w + index[task] * K + k] = total;".to_string(),
        ),
        Gather::Rows { folds, clamp } => {
            access.push(Access::ReadWrite);
            let sum = match folds {
                1 => format!("let k = inner;\n{add}"),
                _ => {
                    let mut text = format!("for (var fold = 0u; fold < {folds}u; fold++) {{\n");
                    let _ = writeln!(
                        text,
                        "    let k = index[numbers[1].w + inner * {folds}u + fold];"
                    );
                    for line in add.lines() {
                        let _ = writeln!(text, "    {line}");
                    }
                    text + "}\n"
                }
            };
            let mut store =
                "let at = numbers[1].x + half * numbers[1].y + index[task] * numbers[1].z + inner;\n"
                    .to_string();
            store += match clamp {
                None => "sums[at] += total;\n",
                Some(0) if halves == 1 => "sums[at] = max(sums[at] + total, 0.0);\n",
                // A numerator may be negative, where it is a logarithm's.
                Some(_) => {
                    "let sum = sums[at] + total;\nsums[at] = select(sum, max(sum, 0.0), half == 1u);\n"
                }
            };
            (
                inner / folds,
                "@group(0) @binding(3) var<storage, read_write> sums: array<f32>;\n",
                sum,
                store,
            )
        }
    };
    let words = [
        ("k", format!("{inner}u")),
        ("width", format!("{width}u")),
        ("halves", format!("{halves}u")),
        ("result", result.to_string()),
        ("sum", sum),
        ("store", store),
    ];
    Ok(Shader {
        label: "sums of a list".into(),
        source: fill(nneinfact_shaders::GATHER, &words)?,
        bindings: access,
        invocations: 64,
        workgroup_bytes: 0,
    })
}

/// Sets rows of numerator and denominator to 0.
pub(super) fn drop_rows() -> Shader {
    Shader {
        label: "drop rows".into(),
        source: nneinfact_shaders::DROP.into(),
        bindings: vec![Access::Uniform, Access::Read, Access::ReadWrite],
        invocations: 64,
        workgroup_bytes: 0,
    }
}
