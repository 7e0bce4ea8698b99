//! `nneinfact bench`: what a device makes of fixed problems.

use clap::Args;
use serde_json::{Value, json};

use super::fit::device;
use super::{bench_lists, print};
use nneinfact_core::data::{DenseBuilder, Observations, Order, uniform_u32};
use nneinfact_core::engine::{PassTime, RooflinePeaks};
use nneinfact_core::error::{Error, Result};
use nneinfact_core::loss::{Loss, Tape};
use nneinfact_core::plan::Plan;
use nneinfact_fit::{Device, Fit, Format, NNEinFact};

/// The arguments of `bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// What to run on: auto, cpu, gpu or part of a name; see `nneinfact devices`
    #[arg(long, value_name = "NAME", default_value = "auto")]
    device: String,

    /// How many threads to use [default: all]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,

    /// Small data, few repetitions: shows that it works, says nothing about speed
    #[arg(long)]
    quick: bool,

    /// Only problems whose name contains this
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
}

/// A fixed problem.
struct BenchProblem {
    name: &'static str,
    data: BenchData,
    model: &'static str,
    ranks: &'static [(char, usize)],
    loss: fn() -> Result<Loss>,
    /// This share of the entries is withheld from the fit.
    held_out: f64,
    /// How passes read the data.
    data_as: Format,
}

/// Counts like those of the NNEinFact paper: pickups over time and space, events between countries
/// over time, trade. (Of these the first has the paper's own shape and density.)
#[derive(Clone, Copy, PartialEq, Eq)]
enum BenchData {
    Pickups,
    Events,
    Trade,
    /// The paper's largest: pickups on a grid four times as fine along both axes.
    FinePickups,
}

impl BenchData {
    fn shape(self, quick: bool) -> Vec<usize> {
        match (self, quick) {
            (BenchData::Pickups, false) => vec![27, 24, 7, 100, 100],
            (BenchData::Pickups, true) => vec![5, 6, 7, 12, 12],
            (BenchData::FinePickups, false) => vec![27, 24, 7, 400, 400],
            (BenchData::FinePickups, true) => vec![5, 6, 7, 24, 24],
            (BenchData::Events, false) => vec![249, 249, 20, 228],
            (BenchData::Events, true) => vec![15, 15, 5, 12],
            (BenchData::Trade, false) => vec![250, 250, 1200],
            (BenchData::Trade, true) => vec![15, 15, 40],
        }
    }

    /// The mean count.
    fn mean(self) -> f64 {
        match self {
            BenchData::Pickups => 0.0126,
            BenchData::FinePickups => 0.0126 / 16.0,
            BenchData::Events => 0.01,
            BenchData::Trade => 0.4,
        }
    }

    /// Counts whose rates are a product of one uneven weight for each index of each mode.
    fn counts(self, quick: bool) -> Result<Observations> {
        let shape = self.shape(quick);
        let uniform =
            |stream: u32, i: u64| (f64::from(uniform_u32(7, stream, i)) + 0.5) / 2f64.powi(32);
        let weights: Vec<Vec<f64>> = shape
            .iter()
            .enumerate()
            .map(|(mode, &n)| {
                let raw: Vec<f64> =
                    (0..n).map(|i| uniform(mode as u32, i as u64).powi(2) + 0.02).collect();
                let mean = raw.iter().sum::<f64>() / n as f64;
                raw.iter().map(|w| w / mean).collect()
            })
            .collect();
        let total: usize = shape.iter().product();
        let last = weights[shape.len() - 1].clone();
        let mut builder = DenseBuilder::new(total);
        let mut row: Vec<u32> = vec![0; last.len()];
        for first in (0..total).step_by(last.len()) {
            let mut remaining = first / last.len();
            let mut rate = self.mean();
            for mode in (0..shape.len() - 1).rev() {
                rate *= weights[mode][remaining % shape[mode]];
                remaining /= shape[mode];
            }
            for (i, (to, weight)) in row.iter_mut().zip(&last).enumerate() {
                // A Poisson count by inversion; rates are small.
                let u = uniform(100, (first + i) as u64);
                let mut term = (-rate * weight).exp();
                let (mut sum, mut count) = (term, 0);
                while u > sum && count < 200 {
                    count += 1;
                    term *= rate * weight / f64::from(count);
                    sum += term;
                }
                *to = count;
            }
            builder.push(&row);
        }
        Ok(Observations::new(builder.finish(&shape, Order::C)?))
    }
}

const SPATIAL: &str = "wr,hr,dr,ikr,jkr->whdij";
const CP: &str = "wr,hr,dr,ir,jr->whdij";

const PROBLEMS: &[BenchProblem] = &[
    BenchProblem {
        name: "pickups, spatial, K=4, kl",
        data: BenchData::Pickups,
        model: SPATIAL,
        ranks: &[('r', 4), ('k', 6)],
        loss: || Ok(Loss::kl()),
        held_out: 0.0,
        data_as: Format::Dense,
    },
    BenchProblem {
        name: "pickups, spatial, K=10, kl",
        data: BenchData::Pickups,
        model: SPATIAL,
        ranks: &[('r', 10), ('k', 6)],
        loss: || Ok(Loss::kl()),
        held_out: 0.0,
        data_as: Format::Dense,
    },
    BenchProblem {
        name: "pickups, spatial, K=10, kl, a tenth held out",
        data: BenchData::Pickups,
        model: SPATIAL,
        ranks: &[('r', 10), ('k', 6)],
        loss: || Ok(Loss::kl()),
        held_out: 0.1,
        data_as: Format::Dense,
    },
    BenchProblem {
        name: "pickups, spatial, K=10, alpha-beta(0.7, 0)",
        data: BenchData::Pickups,
        model: SPATIAL,
        ranks: &[('r', 10), ('k', 6)],
        loss: || Loss::alpha_beta(0.7, 0.0),
        held_out: 0.0,
        data_as: Format::Dense,
    },
    BenchProblem {
        name: "pickups, spatial, K=40, kl",
        data: BenchData::Pickups,
        model: SPATIAL,
        ranks: &[('r', 40), ('k', 6)],
        loss: || Ok(Loss::kl()),
        held_out: 0.0,
        data_as: Format::Dense,
    },
    BenchProblem {
        name: "pickups, spatial, K=40, alpha-beta(1.3, 1)",
        data: BenchData::Pickups,
        model: SPATIAL,
        ranks: &[('r', 40), ('k', 6)],
        loss: || Loss::alpha_beta(1.3, 1.0),
        held_out: 0.0,
        data_as: Format::Dense,
    },
    BenchProblem {
        name: "pickups, cp, K=195, kl",
        data: BenchData::Pickups,
        model: CP,
        ranks: &[('r', 195)],
        loss: || Ok(Loss::kl()),
        held_out: 0.0,
        data_as: Format::Dense,
    },
    BenchProblem {
        name: "pickups, cp, K=195, negative-binomial(2)",
        data: BenchData::Pickups,
        model: CP,
        ranks: &[('r', 195)],
        loss: || Loss::negative_binomial(2.0),
        held_out: 0.0,
        data_as: Format::Dense,
    },
    BenchProblem {
        name: "events, cp with a factored mode, K=20, kl",
        data: BenchData::Events,
        model: "ir,jr,ak,kr,tr->ijat",
        ranks: &[('r', 20), ('k', 6)],
        loss: || Ok(Loss::kl()),
        held_out: 0.0,
        data_as: Format::Dense,
    },
    BenchProblem {
        name: "trade, custom, alpha-beta(0.1, 1.1)",
        data: BenchData::Trade,
        model: "ik,jqk,aiq,q->ija",
        ranks: &[('k', 8), ('q', 5)],
        loss: || Loss::alpha_beta(0.1, 1.1),
        held_out: 0.0,
        data_as: Format::Dense,
    },
];

/// Problems so large that they run only where `--only` is part of their name.
const LARGE: &[BenchProblem] = &[
    BenchProblem {
        name: "725 million entries, spatial, K=10, kl, dense",
        data: BenchData::FinePickups,
        model: SPATIAL,
        ranks: &[('r', 10), ('k', 6)],
        loss: || Ok(Loss::kl()),
        held_out: 0.0,
        data_as: Format::Dense,
    },
    BenchProblem {
        name: "725 million entries, spatial, K=10, kl, list",
        data: BenchData::FinePickups,
        model: SPATIAL,
        ranks: &[('r', 10), ('k', 6)],
        loss: || Ok(Loss::kl()),
        held_out: 0.0,
        data_as: Format::Sparse,
    },
];

/// Runs the problems and prints a JSON object.
pub fn run(args: &BenchArgs) -> Result<()> {
    let device = device(&args.device, args.threads)?;
    let peaks = device.measure(args.quick)?;
    let mut data: Option<(BenchData, Observations)> = None;
    let mut results = Vec::new();
    let large = LARGE.iter().filter(|_| args.quick || !args.only.is_empty());
    let all = PROBLEMS.iter().chain(large);
    for problem in all.filter(|problem| problem.name.contains(&args.only)) {
        // Neighbours in the list share their data.
        if data.as_ref().is_none_or(|(shape, _)| *shape != problem.data) {
            drop(data.take());
            data = Some((problem.data, device.install(|| problem.data.counts(args.quick))?));
        }
        let Some((_, observations)) = &data else { continue };
        // A problem that a device cannot hold is a result too.
        results.push(match problem.measure(&device, observations, peaks, args.quick) {
            Ok(result) => result,
            Err(error) if !matches!(error, Error::DeviceFailed(_)) => {
                json!({ "problem": problem.name, "error": error.to_string() })
            }
            Err(error) => return Err(error),
        });
    }
    drop(data);
    results.extend(bench_lists::measure(&device, peaks, args.quick, &args.only)?);
    let measured_rates = peaks.map(|r| {
        json!({
            "read_bytes_per_second": r.read_bytes_per_second,
            "copy_bytes_per_second": r.copy_bytes_per_second,
            "multiply_adds_per_second": r.multiply_adds_per_second,
            "powers_per_second": r.powers_per_second,
            "logarithms_per_second": r.logarithms_per_second,
            "gathered_lines_per_second": r.gathered_lines_per_second,
            "distant_lines_per_second": r.distant_lines_per_second,
        })
    });
    let report = json!({
        "program": concat!("nneinfact ", env!("CARGO_PKG_VERSION")),
        "device": device.to_string(),
        "quick": args.quick,
        "measured_rates": measured_rates,
        "problems": results,
    });
    let text = serde_json::to_string_pretty(&report)
        .map_err(|e| Error::Unsupported(format!("the report cannot be written: {e}")))?;
    print(&format!("{text}\n"))
}

impl BenchProblem {
    fn settings(&self, device: &Device) -> Result<NNEinFact> {
        Ok(NNEinFact::new(self.model)?
            .ranks(self.ranks.iter().copied())
            .loss((self.loss)()?)
            .device(device.clone())
            .data_as(self.data_as))
    }

    fn measure(
        &self,
        device: &Device,
        observations: &Observations,
        peaks: Option<RooflinePeaks>,
        quick: bool,
    ) -> Result<Value> {
        let withheld = match self.held_out > 0.0 {
            true => Some(observations.clone().held_out(self.held_out, 7)?),
            false => None,
        };
        let observations = withheld.as_ref().unwrap_or(observations);
        let (plan, times, dispatches) =
            self.settings(device)?.profile(observations, if quick { 1 } else { 7 })?;
        let loss = (self.loss)()?;
        let passes: Vec<Value> = times
            .iter()
            .enumerate()
            .map(|(group, time)| match plan.sparse_passes().is_empty() {
                true => pass(&plan, group, &loss, time, peaks),
                false => bench_lists::pass(&plan, group, &loss, time, peaks),
            })
            .collect();
        let fit = self.settings(device)?.max_iter(if quick { 5 } else { 300 }).fit(observations)?;
        let mut result = json!({
            "problem": self.name,
            "model": self.model,
            "ranks": self.ranks.iter().map(|(x, n)| (x.to_string(), *n)).collect::<std::collections::BTreeMap<_, _>>(),
            "shape": plan.shapes().data(),
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

/// How a fit went.
pub fn progress_of(fit: &Fit) -> Value {
    let history = fit.history();
    let seconds = history.seconds.last().copied().unwrap_or(f64::NAN);
    let sweeping = seconds - history.seconds.first().copied().unwrap_or(f64::NAN);
    json!({
        "sweeps": history.iterations,
        "stopped_by": history.stopped_by.to_string(),
        "sweeps_per_second": history.iterations as f64 / sweeping,
        "seconds_to_stop": seconds,
        "first_loss": history.loss.first(),
        "last_loss": history.last_loss(),
    })
}

/// A pass beside the least time that it could take (its roofline): that of options the data, or that of all
/// multiply-adds, powers and logarithms one after another, whichever is longer.
fn pass(
    plan: &Plan,
    group: usize,
    loss: &Loss,
    time: &PassTime,
    peaks: Option<RooflinePeaks>,
) -> Value {
    let pass = &plan.passes()[group];
    let model = plan.shapes().model();
    let entries = plan.shapes().volume(model.observed());
    let closed = plan.settings().closed_denominator;
    let last = group + 1 == plan.groups().len();
    let mut wanted = vec![loss.a()];
    if !closed {
        wanted.push(loss.b());
    }
    if group == 0 || last {
        wanted.push(loss.divergence());
    }
    let tape = Tape::compile(&wanted);
    let powers = entries * tape.powers() as f64;
    let logarithms = entries * tape.logarithms() as f64;
    let bounds = peaks.map(|r| {
        let memory = pass.bytes / r.read_bytes_per_second;
        let arithmetic = pass.flops / r.multiply_adds_per_second
            + powers / r.powers_per_second
            + logarithms / r.logarithms_per_second;
        (memory, arithmetic)
    });
    let bound = bounds.map(|(memory, arithmetic)| memory.max(arithmetic));
    let PassTime { seconds, least_seconds, kernel_seconds } = *time;
    let measured = kernel_seconds.unwrap_or(seconds);
    json!({
        "factors": plan.groups()[group].factors.iter().map(|&l| model.factor_name(l)).collect::<Vec<_>>(),
        "inner": pass.contracted_size(plan.shapes()),
        "seconds": seconds,
        "least_seconds": least_seconds,
        "kernel_seconds": kernel_seconds,
        "bytes": pass.bytes,
        "multiply_adds": pass.flops,
        "powers": powers,
        "logarithms": logarithms,
        "bytes_per_second": pass.bytes / measured,
        "multiply_adds_per_second": pass.flops / measured,
        "fraction_of_read_bandwidth": peaks.map(|r| pass.bytes / measured / r.read_bytes_per_second),
        "fraction_of_multiply_add_rate": peaks.map(|r| pass.flops / measured / r.multiply_adds_per_second),
        "memory_seconds": bounds.map(|(memory, _)| memory),
        "arithmetic_seconds": bounds.map(|(_, arithmetic)| arithmetic),
        "bound_seconds": bound,
        "fraction_of_bound": bound.map(|b| b / measured),
        "fraction_of_bound_at_best": bound.map(|b| b / least_seconds),
    })
}
