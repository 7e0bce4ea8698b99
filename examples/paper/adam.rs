//! Tables 2 and 3 of the NNEinFact paper, rows of the Uber tensor: held-out loss and time of
//! multiplicative updates and of Adam on log-parameters at six learning rates, from the same start.
//!
//! ```text
//! cargo run --release --example paper_adam -- uber.npz --pairs 1:0,0.7:0 --splits 2
//! ```

mod common;

use std::process::ExitCode;

use common::{Convention, Failure, Options, mean, seconds, shapes, split, start};
use nneinfact::fit::{Start, StoppedBy};
use nneinfact::{Algorithm, Error, NNEinFact};

const MODEL: &str = "wr,hr,dr,ikr,jkr->whdij";

/// The learning rates of the paper.
const RATES: [f64; 6] = [0.01, 0.05, 0.1, 0.3, 0.5, 1.0];

/// A row of both tables: held-out losses of multiplicative updates and of Adam at each rate, then seconds
/// to convergence on the authors' GPU (of the last rate they give none).
struct Published {
    pair: (f64, f64),
    updates: f64,
    adam: [f64; 6],
    updates_seconds: f64,
    adam_seconds: [f64; 5],
}

const PUBLISHED: [Published; 6] = [
    Published {
        pair: (0.7, 0.0),
        updates: 0.00759,
        adam: [0.0161, 0.0131, 0.0115, 0.0100, 0.00973, 0.0127],
        updates_seconds: 9.98,
        adam_seconds: [213.84, 89.54, 78.25, 26.02, 19.79],
    },
    Published {
        pair: (0.7, 1.0),
        updates: 0.0444,
        adam: [0.1855, 0.1695, 0.1903, 1.9391, 1.9391, 1.9412],
        updates_seconds: 71.42,
        adam_seconds: [262.43, 69.29, 51.40, 2.34, 1.29],
    },
    Published {
        pair: (1.0, 0.0),
        updates: 0.0108,
        adam: [0.0229, 0.0190, 0.0164, 0.0149, 0.0151, 0.0195],
        updates_seconds: 21.60,
        adam_seconds: [256.78, 101.52, 72.28, 27.42, 15.64],
    },
    Published {
        pair: (1.0, 1.0),
        updates: 0.367,
        adam: [0.542, 0.478, 0.458, 9.673, 18.739, 17.378],
        updates_seconds: 136.94,
        adam_seconds: [256.59, 103.21, 79.78, 151.50, 73.97],
    },
    Published {
        pair: (1.3, 0.0),
        updates: 0.0225,
        adam: [0.0538, 0.0418, 0.0349, 0.0323, 0.0295, 0.0366],
        updates_seconds: 52.39,
        adam_seconds: [264.45, 133.72, 66.96, 22.65, 18.84],
    },
    Published {
        pair: (1.3, 1.0),
        updates: 1.032,
        adam: [0.939, 0.917, 0.896, 34.099, 40.061, 42.121],
        updates_seconds: 73.26,
        adam_seconds: [256.46, 104.08, 72.61, 180.02, 109.31],
    },
];

/// A way to fit.
#[derive(Clone, Copy)]
enum Method {
    /// Multiplicative updates, extrapolated (this library's default) or one factor at a time (the paper's).
    Updates(Algorithm),
    Adam(usize),
}

impl Method {
    fn name(self) -> String {
        match self {
            Method::Updates(Algorithm::Block) => "updates, block".into(),
            Method::Updates(_) => "updates, accelerated".into(),
            Method::Adam(n) => format!("Adam, {}", RATES[n]),
        }
    }

    /// The published held-out loss and seconds.
    fn published(self, row: Option<&Published>) -> (Option<f64>, Option<f64>) {
        match (self, row) {
            (_, None) => (None, None),
            (Method::Updates(_), Some(row)) => (Some(row.updates), Some(row.updates_seconds)),
            (Method::Adam(n), Some(row)) => (Some(row.adam[n]), row.adam_seconds.get(n).copied()),
        }
    }
}

/// What fits by one method came to, split by split.
#[derive(Default)]
struct Outcome {
    training: Vec<f64>,
    heldout: Vec<f64>,
    sweeps: Vec<f64>,
    seconds: Vec<f64>,
    ends: Vec<String>,
}

/// The pairs as in 1:0,0.7:0.
fn pairs(text: &str) -> Result<Vec<(f64, f64)>, Failure> {
    let one = |text: &str| -> Result<(f64, f64), Failure> {
        let (alpha, beta) =
            text.split_once(':').ok_or_else(|| format!("{text} is no pair as 1:0 is"))?;
        Ok((alpha.trim().parse()?, beta.trim().parse()?))
    };
    text.split(',').map(one).collect()
}

fn main() -> ExitCode {
    common::main(run)
}

fn run() -> Result<(), Failure> {
    let options = Options::read(
        "paper_adam",
        &[
            ("--pairs", "alpha:beta of each loss [1:0]; the paper has 0.7, 1 and 1.3 with 0 and 1"),
            ("--splits", "how many of them [1]; the paper has 10"),
            ("--rank", "r [40]"),
            ("--maps", "k [6]"),
            (
                "--sweeps",
                "at most so many a fit, a step of Adam being one [500]; the paper has 5000",
            ),
        ],
    )?;
    let quick = options.quick;
    let pairs = pairs(options.text("--pairs", "1:0"))?;
    let splits: u64 = options.number("--splits", 1)?;
    let ranks = [
        ('r', options.number("--rank", if quick { 4 } else { 40 })?),
        ('k', options.number("--maps", if quick { 2 } else { 6 })?),
    ];
    let sweeps: usize = options.number("--sweeps", if quick { 20 } else { 500 })?;
    let device = options.device()?;
    if splits == 0 {
        return Err("there is at least one split".into());
    }
    let tensor = options.tensor()?;
    let sizes = shapes(MODEL, tensor.shape(), &ranks)?;
    println!(
        "{MODEL} with r={}, k={}: {} parameters (the paper does not state its ranks). {splits} splits of \
         90/10 with 5 % of the training entries for validation; uniform starts, the same for all; stopped \
         as in the paper, or after {sweeps} sweeps. On {device}; the paper's seconds are those of a GPU.\n",
        ranks[0].1,
        ranks[1].1,
        sizes.parameters()
    );
    let methods = [Method::Updates(Algorithm::Accelerated), Method::Updates(Algorithm::Block)]
        .into_iter()
        .chain((0..RATES.len()).map(Method::Adam));
    let methods: Vec<Method> = methods.collect();
    for (alpha, beta) in pairs {
        let convention = Convention::new(alpha, beta)?;
        // Beside other data it would say nothing.
        let row = PUBLISHED.iter().find(|row| row.pair == (alpha, beta) && !quick);
        println!("{}", convention.describe());
        println!(
            "{:<22} {:>10} {:>10} {:>9} {:>7} {:>9} {:>9}  stopped by",
            "method", "training", "held out", "paper", "sweeps", "time", "paper"
        );
        for &method in &methods {
            let mut outcome = Outcome::default();
            for seed in 0..splits {
                let settings = NNEinFact::new(MODEL)?
                    .ranks(ranks)
                    .loss(convention.loss.clone())
                    .device(device.clone())
                    .start(Start::Factors(start(&sizes, seed)))
                    .early_stopping(true)
                    .tolerance(0.0)
                    .max_iter(sweeps);
                let settings = match method {
                    Method::Updates(algorithm) => {
                        let patience = if algorithm == Algorithm::Block { 1 } else { 3 };
                        settings.algorithm(algorithm).observe(convention.stop(patience))
                    }
                    Method::Adam(n) => settings
                        .algorithm(Algorithm::Adam)
                        .learning_rate(RATES[n])
                        .observe(convention.stop(1)),
                };
                let (fit, broken) = match settings.fit(&split(&tensor, seed)?) {
                    Ok(fit) => (fit, false),
                    // Long steps may leave the range of numbers: what was best until then is kept.
                    Err(Error::Broken { last, .. }) => (nneinfact::Fit::from(*last), true),
                    Err(error) => return Err(error.into()),
                };
                let history = fit.history();
                let heldout =
                    history.heldout_loss.get(history.returned).copied().unwrap_or(f64::NAN);
                outcome.training.push(convention.factor * history.returned_loss());
                outcome.heldout.push(convention.factor * heldout);
                outcome.sweeps.push(history.iterations as f64);
                outcome.seconds.push(history.seconds.last().copied().unwrap_or(f64::NAN));
                let end = match history.stopped_by {
                    _ if broken => "not finite".into(),
                    StoppedBy::Observer => "convergence".into(),
                    other => other.to_string(),
                };
                eprintln!("{}, split {seed}: {} sweeps, {end}", method.name(), history.iterations);
                if !outcome.ends.contains(&end) {
                    outcome.ends.push(end);
                }
            }
            let (loss, time) = method.published(row);
            let or_none = |value: Option<f64>| value.map_or("-".into(), |value| value.to_string());
            println!(
                "{:<22} {:>10.5} {:>10.5} {:>9} {:>7.0} {:>9} {:>9}  {}",
                method.name(),
                mean(&outcome.training),
                mean(&outcome.heldout),
                or_none(loss),
                mean(&outcome.sweeps),
                seconds(mean(&outcome.seconds)),
                time.map_or("-".into(), |time| format!("{time} s")),
                outcome.ends.join(", ")
            );
        }
        println!();
    }
    println!(
        "Losses are those of the point that is returned: lowest validation loss. The paper's multiplicative \
         updates are \"updates, block\"; it gives no time of Adam at 1.0. Its ranks and splits, and whether its \
         Adam followed the mean or the sum of the losses, are not published: here it is the mean, as in its code."
    );
    Ok(())
}
