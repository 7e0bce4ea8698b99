//! Plans as text.

use std::fmt;

use super::layout::OperandSide;
use super::{Group, ImplicitForm, KhatriRaoTable, Operand, Pass, Plan, SparsePass};
use crate::error::bytes;
use crate::model::{Index, Shapes};

/// Indices with their sizes: `w27 h24`.
fn sized(shapes: &Shapes, indices: &[Index]) -> String {
    if indices.is_empty() {
        return "-".into();
    }
    let parts: Vec<String> = indices.iter().map(|&x| format!("{x}{}", shapes.size(x))).collect();
    parts.join(" ")
}

fn size(shapes: &Shapes, indices: &[Index]) -> f64 {
    indices.iter().map(|&x| shapes.size(x) as f64).product()
}

/// A count as people write it: 1234, 45.4 M.
pub fn count(n: f64) -> String {
    match n {
        n if n < 1e4 => format!("{n:.0}"),
        n if n < 1e6 => format!("{:.1} k", n / 1e3),
        n if n < 1e9 => format!("{:.1} M", n / 1e6),
        n if n < 1e12 => format!("{:.2} G", n / 1e9),
        n => format!("{:.2} T", n / 1e12),
    }
}

/// So many entries, as [`count`] writes the number.
fn entries(n: f64) -> String {
    format!("{} {}", count(n), if n == 1.0 { "entry" } else { "entries" })
}

impl Plan {
    /// The groups by their factors, in the order of a sweep, as in `wr,dr,hr | irk,jrk`.
    #[must_use]
    pub fn cut(&self) -> String {
        let model = self.shapes().model();
        let name = |group: &Group| {
            let names: Vec<String> = group.factors.iter().map(|&l| model.factor_name(l)).collect();
            names.join(",")
        };
        self.groups().iter().map(name).collect::<Vec<_>>().join(" | ")
    }

    fn product(&self, operand: &Operand) -> String {
        let model = self.shapes().model();
        let names: Vec<String> = operand.factors.iter().map(|&l| model.factor_name(l)).collect();
        let indices: String = operand.indices.iter().map(|&x| char::from(x)).collect();
        let shown = if indices.is_empty() { "1".to_string() } else { indices };
        let side = match operand.side {
            OperandSide::Lhs => "rows",
            OperandSide::Rhs => "columns",
        };
        format!(
            "{} -> {shown} ({}, {side})",
            names.join(","),
            entries(size(self.shapes(), &operand.indices))
        )
    }

    fn explain_pass(&self, f: &mut fmt::Formatter<'_>, number: usize, pass: &Pass) -> fmt::Result {
        let shapes = self.shapes();
        writeln!(f, "pass {number}")?;
        writeln!(f, "  updates   {}", self.product(&pass.output))?;
        for (i, operand) in pass.operands.iter().enumerate() {
            let title = if i == 0 { "  reads   " } else { "          " };
            writeln!(f, "{title}  {}", self.product(operand))?;
        }
        let layout = &pass.layout;
        writeln!(
            f,
            "  tiles     batch {}, rows {}, columns {}, contracted {} (K = {})",
            sized(shapes, &layout.batch),
            sized(shapes, &layout.rows),
            sized(shapes, &layout.columns),
            sized(shapes, &layout.contracted),
            pass.contracted_size(shapes)
        )?;
        let (run, stride) = self.data().run(shapes, &layout.columns);
        let reading = match stride {
            1 => format!("in runs of {run:.0}"),
            _ => format!("at stride {stride}"),
        };
        writeln!(
            f,
            "  costs     {} multiply-adds and {} of data, read {reading}; {} multiply-adds aside",
            count(pass.flops),
            bytes(pass.bytes as u64),
            count(pass.contraction_flops)
        )
    }
}

impl Plan {
    fn table(&self, table: &KhatriRaoTable) -> String {
        let model = self.shapes().model();
        let names: Vec<String> = table.factors.iter().map(|&l| model.factor_name(l)).collect();
        format!("{} -> {} rows", names.join(","), count(size(self.shapes(), &table.rows)))
    }

    fn explain_sparse(
        &self,
        f: &mut fmt::Formatter<'_>,
        number: usize,
        pass: &SparsePass,
    ) -> fmt::Result {
        let shapes = self.shapes();
        writeln!(f, "pass {number} over stored entries")?;
        writeln!(f, "  updates   {}", self.table(&pass.output))?;
        for (i, table) in pass.operands.iter().enumerate() {
            let title = if i == 0 { "  looks up" } else { "          " };
            writeln!(f, "{title}  {}", self.table(table))?;
        }
        writeln!(
            f,
            "  sums over {} (K = {})",
            sized(shapes, &pass.contracted),
            pass.contracted_size(shapes)
        )?;
        writeln!(
            f,
            "  costs     {} multiply-adds; {} multiply-adds aside",
            count(pass.flops),
            count(pass.contraction_flops)
        )
    }

    /// In a sentence, how the implicit entries enter; `None` where all entries are read.
    #[must_use]
    pub fn implicit_entries(&self) -> Option<&'static str> {
        Some(match self.settings().sparse?.implicit {
            ImplicitForm::Missing => "implicit entries are missing",
            ImplicitForm::Closed => "implicit zeros enter as contractions of the factors",
            ImplicitForm::Gram => "implicit zeros enter as contractions of the model with itself",
            ImplicitForm::ByRole => {
                "implicit zeros enter as contractions of the factors less sums over the withheld ones"
            }
            ImplicitForm::ImplicitZeroPass => {
                "implicit zeros enter by a pass over all entries that reads no values"
            }
        })
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shapes = self.shapes();
        let model = shapes.model();
        writeln!(
            f,
            "{model}: {}, {} parameters",
            entries(shapes.volume(model.observed())),
            count(shapes.parameters() as f64)
        )?;
        writeln!(f, "observed {}", sized(shapes, model.output()))?;
        writeln!(f, "latent   {}", sized(shapes, &model.latent().iter().collect::<Vec<_>>()))?;
        let passes = self.groups().len();
        writeln!(
            f,
            "cut      {}: {passes} pass{} a sweep",
            self.cut(),
            if passes == 1 { "" } else { "es" }
        )?;
        if let (Some(info), Some(implicit)) = (self.settings().sparse, self.implicit_entries()) {
            let stored = info.stored + info.masked;
            let are = if stored == 1 { "is" } else { "are" };
            writeln!(f, "sparse   {} {are} stored; {implicit}", entries(stored as f64))?;
        }
        for (number, pass) in self.sparse_passes().iter().enumerate() {
            self.explain_sparse(f, number + 1, pass)?;
        }
        for (number, pass) in self.passes().iter().enumerate() {
            self.explain_pass(f, number + 1, pass)?;
        }
        write!(
            f,
            "a sweep: {} multiply-adds, {} of data read{}; {} kept beside the data{}",
            count(self.flops()),
            bytes(self.bytes() as u64),
            if self.data().streamed { ", streamed from the file" } else { "" },
            bytes(self.memory()),
            if self.settings().closed_denominator {
                "; the denominator is in closed form"
            } else {
                ""
            }
        )
    }
}
