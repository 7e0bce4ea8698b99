//! What penalties and balancing do (Cohen & Leplat, homogeneous regularised scale-invariant models):
//! tables on the terminal, and a plot of each in a folder where one is given.
//!
//! ```text
//! cargo run --release --example regularized [-- FOLDER [SEEDS]]
//! ```

mod cp;
mod nmf;
mod plot;
mod problem;
mod tucker;

use std::error::Error;
use std::path::{Path, PathBuf};

use nneinfact::Algorithm;
use nneinfact::fit::Balance;
use plot::{Line, SeriesLabelPosition};

const KINDS: [(&str, Balance); 3] = [
    ("never", Balance::Never),
    ("at start", Balance::AtStart),
    ("every sweep", Balance::EverySweep),
];

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    values.sum::<f64>() / count
}

fn last(values: &[f64]) -> f64 {
    values.last().copied().unwrap_or(f64::NAN)
}

/// An objective sweep by sweep. The start is left out: it would be all that there is to see.
fn course(name: &str, objective: &[f64]) -> Line {
    let points = objective.iter().enumerate().skip(1).map(|(n, &value)| (n as f64, value));
    (name.into(), points.collect())
}

fn sparse_nmf(seeds: u64, folder: Option<&Path>) -> Result<(), Box<dyn Error>> {
    println!("Sparse NMF, KL, ℓ1 with μ₁ = 1, the first factor's start 100 times too large");
    println!(
        "the objective after 500 sweeps by balancing, and what is not zero, mean of {seeds} seeds"
    );
    println!("{:>8} {:>10} {:>10} {:>12}   ‖X₁‖₀/‖X₂‖₀", "μ₂", "never", "at start", "every sweep");
    for exponent in -6..=0 {
        let weight = 10f64.powi(exponent);
        let mut row = Vec::new();
        let mut lines = Vec::new();
        let mut ratio = f64::NAN;
        for (name, balance) in KINDS {
            let runs: Result<Vec<_>, _> =
                (0..seeds).map(|seed| nmf::run(seed, weight, balance)).collect();
            let runs = runs?;
            row.push(mean(runs.iter().map(|run| last(&run.objective))));
            ratio = mean(runs.iter().map(|run| run.nonzeros[0] as f64 / run.nonzeros[1] as f64));
            lines.push(course(name, &runs[0].objective));
        }
        println!("{weight:>8.0e} {:>10.5} {:>10.5} {:>12.5}   {ratio:.2}", row[0], row[1], row[2]);
        if let Some(folder) = folder.filter(|_| exponent == -6) {
            let axes = ["sweep", "loss and penalties"];
            plot::draw(
                &folder.join("sparse_nmf.svg"),
                "Sparse NMF, μ₂ = 1e-6: balancing",
                axes,
                &lines,
                SeriesLabelPosition::LowerLeft,
            )?;
        }
    }
    Ok(())
}

fn ridge_cp(seeds: u64, folder: Option<&Path>) -> Result<(), Box<dyn Error>> {
    println!(
        "\nRidge CP of rank 6 on data of rank 4, ½ squared distance and μ Σ θ² on every factor"
    );
    println!("components alive for each seed (and the spread of their norms over the factors)");
    let mut lines: Vec<Line> = (1..=6).map(|r| (format!("component {r}"), Vec::new())).collect();
    for weight in [5e-6, 5e-5, 5e-4, 5e-3, 1e-2, 5e-2] {
        let mut text = String::new();
        for seed in 0..seeds {
            let run = cp::run(seed, weight, Balance::EverySweep)?;
            let alive = run.alive();
            let spread = alive.iter().map(|&r| {
                let norms = run.norms.iter().map(|n| n[r]);
                norms.clone().fold(0.0, f64::max) / norms.fold(f64::MAX, f64::min) - 1.0
            });
            text += &format!("  {} ({:.0e})", alive.len(), spread.fold(0.0, f64::max));
            if seed == 0 {
                let mut sizes = run.sizes;
                sizes.sort_by(|a, b| b.total_cmp(a));
                for (line, size) in lines.iter_mut().zip(sizes) {
                    line.1.push((weight, size.max(1e-12)));
                }
            }
        }
        println!("{weight:>8.0e}{text}");
    }
    if let Some(folder) = folder {
        let axes = ["μ", "size of a component, over the largest"];
        plot::draw(
            &folder.join("ridge_cp.svg"),
            "Ridge CP of rank 6 on data of rank 4",
            axes,
            &lines,
            SeriesLabelPosition::MiddleLeft,
        )?;
    }
    Ok(())
}

fn sparse_tucker(seeds: u64, folder: Option<&Path>) -> Result<(), Box<dyn Error>> {
    println!("\nSparse Tucker, KL, penalty μ (‖G‖₁ + Σ ‖X‖²), first rank 6 where the data have 4");
    println!(
        "the objective after 500 plain sweeps by balancing, then of accelerated sweeps with the"
    );
    println!("slices that are alive for each seed; means of {seeds} seeds");
    let titles = ["never", "at start", "every sweep", "accelerated"];
    println!("{:>8} {:>10} {:>10} {:>12} {:>12}", "μ", titles[0], titles[1], titles[2], titles[3]);
    for weight in [0.003, 0.01, 0.02, 0.05, 0.1, 0.2] {
        let runs = |balance, algorithm| -> Result<Vec<tucker::Outcome>, nneinfact::Error> {
            (0..seeds).map(|seed| tucker::run(seed, weight, balance, algorithm)).collect()
        };
        let mean_of = |runs: &[tucker::Outcome]| mean(runs.iter().map(|run| last(&run.objective)));
        let mut row = Vec::new();
        let mut lines = Vec::new();
        for (name, balance) in KINDS {
            let plain = runs(balance, Algorithm::Block)?;
            row.push(mean_of(&plain));
            lines.push(course(name, &plain[0].objective));
        }
        let fast = runs(Balance::EverySweep, Algorithm::Accelerated)?;
        let alive: Vec<usize> = fast.iter().map(tucker::Outcome::alive).collect();
        lines.push(course("every sweep, accelerated", &fast[0].objective));
        println!(
            "{weight:>8} {:>10.5} {:>10.5} {:>12.5} {:>12.5}   {alive:?}",
            row[0],
            row[1],
            row[2],
            mean_of(&fast)
        );
        if let Some(folder) = folder.filter(|_| weight == 0.01) {
            let axes = ["sweep", "loss and penalties"];
            let title = "Sparse Tucker, μ = 0.01: balancing";
            plot::draw(
                &folder.join("sparse_tucker.svg"),
                title,
                axes,
                &lines,
                SeriesLabelPosition::LowerLeft,
            )?;
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().map(PathBuf::from);
    let seeds = match arguments.next() {
        Some(text) => text.parse().map_err(|_| format!("`{text}` is not a number of seeds"))?,
        None => 4,
    };
    if let Some(folder) = &folder {
        std::fs::create_dir_all(folder)?;
    }
    sparse_nmf(seeds, folder.as_deref())?;
    ridge_cp(seeds, folder.as_deref())?;
    sparse_tucker(seeds, folder.as_deref())?;
    if let Some(folder) = folder {
        println!("\nplots: {}", folder.join("*.svg").display());
    }
    Ok(())
}
