//! The problems of `bench` whose data are stored entries.

use serde_json::{Value, json};

use super::bench::progress_of;
use nneinfact_core::data::{CooTensor, Implicit, Observations, uniform_u32};
use nneinfact_core::engine::{PassTime, RooflinePeaks, SparseProgram};
use nneinfact_core::error::Result;
use nneinfact_core::loss::{Loss, Tape};
use nneinfact_core::plan::{KhatriRaoTable, Plan};
use nneinfact_fit::{Device, Format, NNEinFact};

/// A fixed problem over stored entries.
struct ListProblem {
    name: &'static str,
    shape: &'static [usize],
    /// Stored entries that are drawn; those that are drawn twice are one.
    nonzeros: usize,
    /// Indices are drawn as a uniform number to this power: rows of uneven length where it is not 1.
    power: i32,
    model: &'static str,
    ranks: &'static [(char, usize)],
    loss: fn() -> Loss,
}

const NMF: ListProblem = ListProblem {
    name: "list, nmf, K=50, uniform, kl",
    shape: &[20_000, 10_000],
    nonzeros: 2_000_000,
    power: 1,
    model: "ir,jr->ij",
    ranks: &[('r', 50)],
    loss: Loss::kl,
};
const CP3: ListProblem = ListProblem {
    name: "list, cp of 3 modes, K=50, uniform, kl",
    shape: &[8000, 6000, 2000],
    model: "ir,jr,kr->ijk",
    ..NMF
};
const CP4: ListProblem = ListProblem {
    name: "list, cp of 4 modes, K=50, skewed, kl",
    shape: &[6000, 4000, 1000, 200],
    power: 3,
    model: "ir,jr,kr,lr->ijkl",
    ..NMF
};
const SPATIAL: ListProblem = ListProblem {
    name: "list, spatial, K=10, skewed, kl",
    shape: &[27, 24, 7, 400, 400],
    nonzeros: 500_000,
    power: 3,
    model: "wr,hr,dr,ikr,jkr->whdij",
    ranks: &[('r', 10), ('k', 6)],
    ..NMF
};

const PROBLEMS: &[ListProblem] = &[
    ListProblem { name: "list, nmf, K=10, uniform, kl", ranks: &[('r', 10)], ..NMF },
    NMF,
    ListProblem { name: "list, nmf, K=200, uniform, kl", ranks: &[('r', 200)], ..NMF },
    ListProblem { name: "list, nmf, K=50, skewed, kl", power: 3, ..NMF },
    ListProblem {
        name: "list, nmf, K=20, skewed, euclidean",
        power: 3,
        ranks: &[('r', 20)],
        loss: Loss::euclidean,
        ..NMF
    },
    ListProblem { name: "list, cp of 3 modes, K=10, uniform, kl", ranks: &[('r', 10)], ..CP3 },
    CP3,
    ListProblem { name: "list, cp of 3 modes, K=50, skewed, kl", power: 3, ..CP3 },
    ListProblem { name: "list, cp of 4 modes, K=10, skewed, kl", ranks: &[('r', 10)], ..CP4 },
    CP4,
    SPATIAL,
];

/// Measures the problems whose name contains `only`.
pub fn measure(
    device: &Device,
    peaks: Option<RooflinePeaks>,
    quick: bool,
    only: &str,
) -> Result<Vec<Value>> {
    let chosen = PROBLEMS.iter().filter(|problem| problem.name.contains(only));
    chosen.map(|problem| problem.measure(device, peaks, quick)).collect()
}

impl ListProblem {
    /// Counts at random indices: mostly ones.
    fn observations(&self, quick: bool) -> Result<Observations> {
        let (shape, entries) = match quick {
            true => (self.shape.iter().map(|n| n.div_ceil(50)).collect(), self.nonzeros / 1000),
            false => (self.shape.to_vec(), self.nonzeros),
        };
        let uniform =
            |stream: u32, i: u64| (f64::from(uniform_u32(11, stream, i)) + 0.5) / 2f64.powi(32);
        let indices: Vec<Vec<u64>> = shape
            .iter()
            .enumerate()
            .map(|(mode, &n)| {
                let index = |i| (uniform(mode as u32, i).powi(self.power) * n as f64) as u64;
                (0..entries as u64).map(|i| index(i).min(n as u64 - 1)).collect()
            })
            .collect();
        let count = |i| 1.0 + (-uniform(100, i).ln()).floor();
        let values: Vec<f64> = (0..entries as u64).map(count).collect();
        Ok(Observations::new(CooTensor::new(&shape, &indices, &values)?))
    }

    fn settings(&self, device: &Device) -> Result<NNEinFact> {
        Ok(NNEinFact::new(self.model)?
            .ranks(self.ranks.iter().copied())
            .loss((self.loss)())
            .device(device.clone())
            .data_as(Format::Sparse))
    }

    fn measure(&self, device: &Device, peaks: Option<RooflinePeaks>, quick: bool) -> Result<Value> {
        let observations = device.install(|| self.observations(quick))?;
        let (plan, times, dispatches) =
            self.settings(device)?.profile(&observations, if quick { 1 } else { 7 })?;
        let loss = (self.loss)();
        let passes: Vec<Value> = times
            .iter()
            .enumerate()
            .map(|(group, time)| pass(&plan, group, &loss, time, peaks))
            .collect();
        let sweeps = if quick { 3 } else { 30 };
        let fit = self.settings(device)?.max_iter(sweeps).fit(&observations)?;
        let mut result = json!({
            "problem": self.name,
            "model": self.model,
            "shape": plan.shapes().data(),
            "stored": plan.settings().sparse.map(|info| info.stored),
            "loss": loss.name(),
            "passes": passes,
            "dispatches_per_sweep": dispatches,
        });
        if let (Value::Object(to), Value::Object(more)) = (&mut result, progress_of(&fit)) {
            to.extend(more);
        }
        Ok(result)
    }
}

/// What the blocks of a tile take at most in a sparse pass, and so what the near cache is taken to hold.
const NEAR_BYTES: f64 = 524_288.0;

/// A sparse pass beside the least time that it could take (its roofline): that of reading entries, tables and
/// sums, of looking up each operand's row once, or of all arithmetic, whichever is longest; after the products of
/// factors that it looks up, which have to be there before.
pub fn pass(
    plan: &Plan,
    group: usize,
    loss: &Loss,
    time: &PassTime,
    peaks: Option<RooflinePeaks>,
) -> Value {
    let pass = &plan.sparse_passes()[group];
    let shapes = plan.shapes();
    let stored = plan.settings().sparse.map_or(0.0, |info| info.stored as f64);
    let program = SparseProgram::new(loss, Implicit::Zeros);
    let excess = program.stored.excess_loss();
    let mut wanted = vec![&program.stored.numerator];
    wanted.extend(&program.stored.denominator);
    if group == 0 || group + 1 == plan.groups().len() {
        wanted.push(&excess);
    }
    let tape = Tape::compile(&wanted);
    // ŷ is formed only where something depends on it.
    let share = if tape.reads_y() { 1.0 } else { 0.5 };
    let multiply_adds = pass.flops * share;
    let row = pass.contracted_size(shapes) * plan.settings().element_bytes;
    let lines = stored * (pass.operands.len() * row.div_ceil(64)) as f64;
    let rows = |table: &KhatriRaoTable| shapes.volume(table.rows.iter().collect());
    // Rows of a table that the near cache does not hold come from farther away at least once.
    let distant_rows = |table: &KhatriRaoTable| match rows(table) * row as f64 {
        bytes if bytes <= NEAR_BYTES => 0.0,
        _ => rows(table).min(stored),
    };
    let distant = pass.operands.iter().map(distant_rows).sum::<f64>() * row.div_ceil(64) as f64;
    // Tables are formed in double precision, and so are the sums kept, which are read and written.
    let all_tables = || std::iter::once(&pass.output).chain(&pass.operands);
    let tables: f64 = all_tables().map(rows).sum();
    let bytes = pass.entry_bytes
        + tables * row as f64
        + 16.0 * shapes.volume(pass.indices.iter().collect());
    // A product of factors is written in double precision, and read to become a table.
    let products = || all_tables().filter(|table| table.factors.len() > 1);
    let product_bytes =
        products().map(rows).sum::<f64>() * 16.0 * pass.contracted_size(shapes) as f64;
    let product_flops: f64 = products().map(|table| table.contraction.flops()).sum();
    let bounds = peaks.map(|r| {
        let memory = bytes / r.read_bytes_per_second;
        let gather = r.gathered_lines_per_second.map_or(0.0, |rate| (lines - distant) / rate)
            + r.distant_lines_per_second.map_or(0.0, |rate| distant / rate);
        let arithmetic = multiply_adds / r.multiply_adds_per_second
            + stored * tape.powers() as f64 / r.powers_per_second
            + stored * tape.logarithms() as f64 / r.logarithms_per_second;
        // Half as many in double precision.
        let products = (2.0 * product_flops / r.multiply_adds_per_second)
            .max(product_bytes / r.copy_bytes_per_second);
        [memory, gather, arithmetic, products]
    });
    let bound = bounds.map(|[memory, gather, arithmetic, products]| {
        products + memory.max(gather).max(arithmetic)
    });
    let factors = plan.groups()[group].factors.iter();
    json!({
        "factors": factors.map(|&l| shapes.model().factor_name(l)).collect::<Vec<_>>(),
        "inner": pass.contracted_size(shapes),
        "seconds": time.seconds,
        "least_seconds": time.least_seconds,
        "kernel_seconds": time.kernel_seconds,
        "bytes": bytes,
        "gathered_lines": lines,
        "distant_lines": distant,
        "product_bytes": product_bytes,
        "multiply_adds": multiply_adds,
        "memory_seconds": bounds.map(|all| all[0]),
        "gather_seconds": bounds.map(|all| all[1]),
        "arithmetic_seconds": bounds.map(|all| all[2]),
        "product_seconds": bounds.map(|all| all[3]),
        "bound_seconds": bound,
        "times_the_bound": bound.map(|b| time.seconds / b),
        "times_the_bound_at_best": bound.map(|b| time.least_seconds / b),
    })
}
