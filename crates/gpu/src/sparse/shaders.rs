//! The shaders of a pass over stored entries: `sparse_pass.wgsl`, `gather.wgsl` and `zero_rows.wgsl`.

use std::fmt::Write as _;

use crate::program::declarations::Declarations;
use crate::program::recording::{Access, GpuLimits, Shader};
use crate::program::template::fill;
use nneinfact_core::error::Result;
use nneinfact_core::loss::{Expr, wgsl_function};

/// Threads of a workgroup, and so entries of a block, where the device allows as many.
const THREADS: usize = 128;
/// The fewest entries of a piece: its sums are written and read again.
const PIECE: usize = 16;

/// What a pass over stored entries sums, as expressions of `x`, `y` and entry parameters.
#[derive(Clone, Debug, Default)]
pub(crate) struct StoredTerms {
    pub numerator: Option<Expr>,
    pub denominator: Option<Expr>,
    pub loss: StoredLoss,
}

/// Which losses a pass over stored entries sums.
#[derive(Clone, Debug, Default)]
pub(crate) enum StoredLoss {
    #[default]
    None,
    /// All entries are for training.
    Train(Expr),
    /// Validation and held-out entries have a loss; and the training loss is less by what each of the
    /// entries, whatever its role, adds to a sum over all entries.
    ByRole { loss: Expr, less: Option<Expr> },
}

impl StoredTerms {
    /// How many of numerator and denominator.
    pub fn halves(&self) -> usize {
        usize::from(self.numerator.is_some()) + usize::from(self.denominator.is_some())
    }

    /// Whether losses are summed.
    pub fn losses(&self) -> bool {
        !matches!(self.loss, StoredLoss::None)
    }

    /// The expressions, in the order of the components of what is found at an entry.
    fn outputs(&self) -> Vec<&Expr> {
        let mut outputs: Vec<&Expr> = Vec::new();
        outputs.extend(&self.numerator);
        outputs.extend(&self.denominator);
        match &self.loss {
            StoredLoss::None => {}
            StoredLoss::Train(loss) => outputs.push(loss),
            StoredLoss::ByRole { loss, less } => {
                outputs.push(loss);
                outputs.extend(less);
            }
        }
        outputs
    }
}

/// A shader that goes over stored entries, with what a dispatch of it depends on.
#[derive(Clone, Debug)]
pub(crate) struct SparseShader {
    pub shader: Shader,
    /// Entries of a block.
    pub threads: usize,
    /// The most entries of a piece.
    pub piece: usize,
    /// Vectors of four that hold its uniforms.
    pub vectors: usize,
}

/// What the entries look up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TableLookup {
    /// The size of the contracted dimension.
    pub k: usize,
    /// Khatri–Rao tables, the output's among them.
    pub tables: usize,
    /// Entry parameters of the loss.
    pub parameters: usize,
}

impl TableLookup {
    /// The column of the entries that has the value.
    fn value(&self) -> usize {
        self.tables - 1
    }

    /// Where the row of every table but the output's begins.
    fn table_rows(&self) -> String {
        let mut text = String::new();
        for t in 1..self.tables {
            let base = format!("uniforms[{}].{}", 2 + t / 4, ["x", "y", "z", "w"][t % 4]);
            let row = match t {
                1 => "entries[entry]".to_string(),
                _ => format!("entries[entry + {}u * uniforms[0].x]", t - 1),
            };
            let _ = writeln!(text, "let t{t} = {base} + {row} * K;");
        }
        text
    }

    /// The product of these rows at a contracted index.
    fn product(&self) -> String {
        let rows: Vec<String> = (1..self.tables).map(|t| format!("tables[t{t} + k]")).collect();
        rows.join(" * ")
    }

    /// The entry's parameters, as arguments.
    fn arguments(&self) -> String {
        let column = |i: usize| self.value() + 1 + i;
        (0..self.parameters)
            .map(|i| format!(", bitcast<f32>(entries[entry + {}u * uniforms[0].x])", column(i)))
            .collect()
    }
}

/// Goes over entries that look up rows of tables.
pub(crate) fn sparse_shader(
    lookup: TableLookup,
    terms: &StoredTerms,
    limits: &GpuLimits,
) -> Result<SparseShader> {
    let threads = THREADS.min(1 << limits.invocations.max(1).ilog2());
    let lanes = lookup.k.next_power_of_two().min(threads);
    let vectors = 2 + lookup.tables.div_ceil(4);
    let outputs = terms.outputs();
    let component = |which: usize| match outputs.len() {
        1 => "found".to_string(),
        _ => format!("found.{}", ["x", "y", "z", "w"][which.min(3)]),
    };
    let (halves, losses) = (terms.halves(), terms.losses());
    let first = Access::Read;
    let mut declarations = Declarations::after(&[Access::Uniform, first, first, first]);
    if halves > 0 {
        declarations.array(Access::ReadWrite, "partials", "f32");
    }
    if losses {
        declarations.array(Access::ReadWrite, "losses", "f32");
    }
    let by_role = matches!(terms.loss, StoredLoss::ByRole { .. });
    let flags = [
        ("numerator", terms.numerator.is_some()),
        ("denominator", terms.denominator.is_some()),
        ("sums", halves > 0),
        ("losses", losses),
        ("train_losses", matches!(terms.loss, StoredLoss::Train(_))),
        ("withheld_losses", by_role),
        ("less_train_losses", matches!(terms.loss, StoredLoss::ByRole { less: Some(_), .. })),
    ];
    // The only sums are the first, whichever they are.
    let half = if halves == 2 { "uniforms[1].z + " } else { "" };
    let words = [
        ("k", format!("{}u", lookup.k)),
        ("threads", format!("{threads}u")),
        ("lanes", format!("{lanes}u")),
        ("uniforms", format!("{vectors}u")),
        ("bindings", declarations.text),
        ("entry_terms", wgsl_function("entry_terms", &outputs, lookup.parameters)?),
        ("table_rows", lookup.table_rows()),
        ("product", lookup.product()),
        ("value", format!("{}u", lookup.value())),
        ("parameters", lookup.arguments()),
        ("role", format!("{}u", lookup.value() + 1 + lookup.parameters)),
        ("found_a", component(0)),
        ("found_b", component(halves.max(1) - 1)),
        ("found_loss", component(halves)),
        ("found_less", component(halves + 1)),
        ("denominator_place", format!("{half}piece * K + k")),
        ("own_loss", "loss".into()),
        ("loss_place", "uniforms[0].w + block".into()),
    ];
    let bytes = threads * (4 + 4 * halves + if losses { 16 } else { 0 });
    let label =
        if losses { "pass over stored entries with losses" } else { "pass over stored entries" };
    Ok(SparseShader {
        shader: Shader {
            label: label.into(),
            source: fill(nneinfact_shaders::SPARSE_PASS, &flags, &words)?,
            bindings: declarations.access,
            invocations: threads as u32,
            workgroup_bytes: bytes as u32,
        },
        threads,
        piece: lanes.max(PIECE).min(threads),
        vectors,
    })
}

/// What `gather.wgsl` adds up.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Gather {
    /// Pieces of long rows, to fewer.
    Pieces,
    /// The pieces of each row, to numerator and denominator. `folds` says how many contracted indices
    /// of the pass belong to the same one of a row; `clamp` which of the halves cannot be negative.
    Rows { folds: usize, clamp: Option<usize> },
}

/// The template of what adds up what pieces summed, filled in.
fn gather_filled(
    template: &str,
    (k, halves): (usize, usize),
    gather: Gather,
    index: &str,
) -> Result<String> {
    let (rows, folds, clamp) = match gather {
        Gather::Pieces => (false, 1, None),
        Gather::Rows { folds, clamp } => (true, folds, clamp),
    };
    let clamp_all = clamp == Some(0) && halves == 1;
    let flags = [
        ("rows", rows),
        ("folded", folds > 1),
        ("clamp_none", clamp.is_none()),
        ("clamp_all", clamp_all),
        ("clamp_second", clamp.is_some() && !clamp_all),
    ];
    let words = [
        ("k", format!("{k}u")),
        ("width", format!("{}u", k / folds)),
        ("halves", format!("{halves}u")),
        ("folds", format!("{folds}u")),
        ("index", index.to_string()),
    ];
    fill(template, &flags, &words)
}

/// Adds up what pieces summed.
pub(crate) fn gather(k: usize, halves: usize, gather: Gather) -> Result<Shader> {
    let mut access = vec![Access::Uniform, Access::Read, Access::ReadWrite];
    if matches!(gather, Gather::Rows { .. }) {
        access.push(Access::ReadWrite);
    }
    Ok(Shader {
        label: "gather".into(),
        source: gather_filled(nneinfact_shaders::GATHER, (k, halves), gather, "index")?,
        bindings: access,
        invocations: 64,
        workgroup_bytes: 0,
    })
}

/// The same as an operation, whose index has this name.
pub(crate) fn gather_text(k: usize, halves: usize, gather: Gather, index: &str) -> Result<String> {
    gather_filled(nneinfact_shaders::JOINT_GATHER, (k, halves), gather, index)
}

/// Sets rows of numerator and denominator to 0.
pub(crate) fn zero_rows() -> Shader {
    Shader {
        label: "zero rows".into(),
        source: nneinfact_shaders::ZERO_ROWS.into(),
        bindings: vec![Access::Uniform, Access::Read, Access::ReadWrite],
        invocations: 64,
        workgroup_bytes: 0,
    }
}
