//! What the programs of this folder share: the tensor, the paper's way to split, start and stop, its loss
//! conventions, and what it published.
//!
//! The paper is NNEinFact (Hood & Schein 2026, arXiv 2602.02759); its tables are in Appendix C, the
//! experiments in section 6.

#![allow(dead_code, reason = "every program uses its own part of it")]

use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use ndarray::{ArrayD, IxDyn};
use nneinfact::data::{Dense, uniform_u32};
use nneinfact::fit::{Flow, Sweep};
use nneinfact::model::{Model, Shapes};
use nneinfact::{Device, Loss, Observations, io};

/// What goes wrong in a program.
pub type Failure = Box<dyn Error>;

/// The shape of the tensor: weeks, hours, weekdays, latitudes, longitudes.
pub const SHAPE: [usize; 5] = [27, 24, 7, 100, 100];

/// The weekdays of the third mode, as the file has them in `days_of_week`.
pub const DAYS: [&str; 7] =
    ["Friday", "Saturday", "Sunday", "Thursday", "Tuesday", "Wednesday", "Monday"];

/// Runs a program, and says in words what went wrong.
pub fn main(program: fn() -> Result<(), Failure>) -> ExitCode {
    match program() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// The arguments of a program: a file, `--quick`, and options with a value.
pub struct Options {
    file: Option<PathBuf>,
    pub quick: bool,
    values: BTreeMap<String, String>,
}

impl Options {
    /// Those of this process; `known` are the options with a value, with what they are for.
    pub fn read(program: &str, known: &[(&str, &str)]) -> Result<Options, Failure> {
        let usage = || {
            let mut text = format!(
                "usage: cargo run --release --example {program} -- [uber.npz] [--quick]\n\n\
                 uber.npz     the paper's tensor: array Y of 27 × 24 × 7 × 100 × 100 counts, which\n             \
                 its authors publish (github.com/jhood3/einfact, data/Y.npz)\n\
                 --quick      a few sweeps of small models, on the tensor with a map of 20 × 20\n             \
                 or, without a file, on made-up counts: to see that the program runs\n\
                 --device     what to run on [auto]\n\
                 --threads    how many of them [all]\n"
            );
            known.iter().for_each(|(name, what)| text += &format!("{name:<12} {what}\n"));
            text
        };
        let mut options = Options { file: None, quick: false, values: BTreeMap::new() };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--quick" => options.quick = true,
                "--help" | "-h" => {
                    println!("{}", usage());
                    std::process::exit(0);
                }
                name if ["--device", "--threads"].contains(&name)
                    || known.iter().any(|(known, _)| *known == name) =>
                {
                    let value = arguments
                        .next()
                        .ok_or_else(|| format!("{name} needs a value\n\n{}", usage()))?;
                    options.values.insert(argument, value);
                }
                name if name.starts_with('-') => {
                    return Err(format!("{name} is no option\n\n{}", usage()).into());
                }
                path if options.file.is_none() => options.file = Some(path.into()),
                other => return Err(format!("{other}: one file is enough\n\n{}", usage()).into()),
            }
        }
        if options.file.is_none() && !options.quick {
            return Err(format!(
                "the paper's tensor is missing: say where uber.npz is, or give --quick for made-up \
                 counts\n\n{}",
                usage()
            )
            .into());
        }
        Ok(options)
    }

    pub fn text<'a>(&'a self, name: &str, default: &'a str) -> &'a str {
        self.values.get(name).map_or(default, String::as_str)
    }

    /// The value of an option without a default.
    pub fn given(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    pub fn number<T: std::str::FromStr>(&self, name: &str, default: T) -> Result<T, Failure> {
        match self.values.get(name) {
            None => Ok(default),
            Some(text) => text.parse().map_err(|_| format!("{name} {text}: not a number").into()),
        }
    }

    /// Numbers with commas between them.
    pub fn list<T: std::str::FromStr>(&self, name: &str, default: &str) -> Result<Vec<T>, Failure> {
        let one = |text: &str| {
            text.trim().parse().map_err(|_| format!("{name}: {text} is not a number").into())
        };
        self.text(name, default).split(',').map(one).collect()
    }

    pub fn device(&self) -> Result<Device, Failure> {
        let device = Device::named(self.text("--device", "auto"))?;
        Ok(match self.values.get("--threads") {
            Some(_) => device.threads(self.number("--threads", 1)?)?,
            None => device,
        })
    }

    /// The tensor; in a quick run a small one.
    pub fn tensor(&self) -> Result<Arc<Dense>, Failure> {
        let Some(path) = &self.file else {
            println!("Made-up counts of {MADE_UP:?}: what follows says nothing about the paper.\n");
            return Ok(Arc::new(made_up()?));
        };
        let tensor = io::read_npz(path, Some("Y"))?;
        if tensor.shape() != SHAPE {
            return Err(format!(
                "{}: Y has the shape {:?}, the paper's tensor {SHAPE:?}",
                path.display(),
                tensor.shape()
            )
            .into());
        }
        if !self.quick {
            return Ok(Arc::new(tensor));
        }
        println!("Counts on a map of 20 × 20: figures are not those of the paper's tensor.\n");
        Ok(Arc::new(binned(&tensor, 5)?))
    }
}

/// The tensor with `side` × `side` cells of the map as one.
fn binned(tensor: &Dense, side: usize) -> Result<Dense, Failure> {
    let [weeks, hours, days, rows, columns] = SHAPE;
    let (down, across) = (rows / side, columns / side);
    let mut sums = vec![0.0; weeks * hours * days * down * across];
    for (n, count) in tensor.iter().enumerate() {
        let (moment, cell) = (n / (rows * columns), n % (rows * columns));
        let (i, j) = (cell / columns / side, cell % columns / side);
        sums[(moment * down + i) * across + j] += count;
    }
    Ok(Dense::from_vec(&[weeks, hours, days, down, across], sums)?)
}

/// The shape of the made-up counts.
const MADE_UP: [usize; 5] = [6, 24, 7, 10, 10];

/// Counts of three patterns in time and space, for machines without the file.
fn made_up() -> Result<Dense, Failure> {
    let [weeks, hours, days, rows, columns] = MADE_UP;
    let bump = |x: usize, centre: f64, width: f64| (-((x as f64 - centre) / width).powi(2)).exp();
    // Friday, Saturday and Sunday come first.
    let weekend = |day: usize| if day < 3 { 1.0 } else { 0.15 };
    let mut counts = Vec::with_capacity(MADE_UP.iter().product());
    for n in 0..weeks * hours * days * rows * columns {
        let (j, i) = (n % columns, n / columns % rows);
        let (day, hour) = (n / (columns * rows) % days, n / (columns * rows * days) % hours);
        let morning = bump(hour, 8.0, 1.5) * (1.15 - weekend(day)) * bump(i, 2.0, 1.5);
        let evening = bump(hour, 18.0, 2.0) * (1.15 - weekend(day)) * bump(j, 5.0, 1.0);
        let night = bump(hour, 23.0, 2.5) * weekend(day) * bump(i, 7.0, 1.0) * bump(j, 2.0, 1.0);
        let rate = 0.002 + 0.8 * morning + 0.8 * evening + 3.0 * night;
        counts.push(poisson(rate, n as u64));
    }
    Ok(Dense::from_vec(&MADE_UP, counts)?)
}

/// A Poisson variable by inversion of a uniform number.
fn poisson(rate: f64, index: u64) -> u16 {
    let uniform = (f64::from(uniform_u32(1, 0, index)) + 0.5) / 4_294_967_296.0;
    let mut probability = (-rate).exp();
    let (mut below, mut count) = (probability, 0);
    while uniform > below && count < 200 {
        count += 1;
        probability *= rate / f64::from(count);
        below += probability;
    }
    count
}

/// A split of the paper: a tenth of the entries is held out, and a twentieth of the others decides when to
/// stop. (Its own splits are not published.)
pub fn split(tensor: &Arc<Dense>, seed: u64) -> nneinfact::Result<Observations> {
    Observations::shared(Arc::clone(tensor)).held_out(0.1, seed)?.validation(0.05, seed)
}

/// The paper's start: uniform in (0, 1), not scaled to the data.
pub fn start(shapes: &Shapes, seed: u64) -> Vec<ArrayD<f64>> {
    let factor = |l: usize| {
        let mut index = 0;
        ArrayD::from_shape_simple_fn(IxDyn(&shapes.factor(l)), || {
            index += 1;
            (f64::from(uniform_u32(seed, 100 + l as u32, index)) + 0.5) / 4_294_967_296.0
        })
    };
    (0..shapes.model().factors().len()).map(factor).collect()
}

/// The sizes of a model on data of a shape.
pub fn shapes(model: &str, shape: &[usize], ranks: &[(char, usize)]) -> Result<Shapes, Failure> {
    Ok(Shapes::new(&Model::parse(model)?, shape, ranks)?)
}

/// A loss of the paper, with what turns its value into the one that the paper's code reports: that has
/// (x − y)² for Euclid, which is twice the divergence, and leaves 1/α² out where β = 0.
pub struct Convention {
    pub loss: Loss,
    pub alpha: f64,
    pub beta: f64,
    pub factor: f64,
}

impl Convention {
    pub fn new(alpha: f64, beta: f64) -> Result<Convention, Failure> {
        let factor = match (alpha, beta) {
            (1.0, 1.0) => 2.0,
            (alpha, 0.0) => alpha * alpha,
            _ => 1.0,
        };
        Ok(Convention { loss: Loss::alpha_beta(alpha, beta)?, alpha, beta, factor })
    }

    /// What a reader of the table should know.
    pub fn describe(&self) -> String {
        let (alpha, beta, factor) = (self.alpha, self.beta, self.factor);
        match factor {
            1.0 => format!("(α, β) = ({alpha}, {beta}): losses as the paper reports them"),
            _ => format!(
                "(α, β) = ({alpha}, {beta}): losses are shown as the paper's code reports them, {factor:.4} \
                 times the divergence that its text defines and that this library minimises"
            ),
        }
    }

    /// Stops as the paper does, apart from its early stopping: when the training loss changes by less
    /// than 1e-6 in a sweep, which its code asks for after 100 sweeps only. Once is enough there; an
    /// extrapolation that was rejected may move little and the next one far, so that accelerated sweeps
    /// need `patience`.
    pub fn stop(&self, patience: usize) -> impl FnMut(&Sweep) -> Flow + Send + 'static {
        let factor = self.factor;
        let (mut before, mut slow) = (f64::INFINITY, 0);
        move |sweep: &Sweep| {
            let loss = factor * sweep.loss;
            let settled = sweep.iteration > 100 && (before - loss).abs() < 1e-6;
            slow = if settled { slow + 1 } else { 0 };
            before = loss;
            if slow >= patience { Flow::Stop } else { Flow::Continue }
        }
    }
}

pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The standard error of a mean; NaN where there is one value only.
pub fn standard_error(values: &[f64]) -> f64 {
    let (n, mean) = (values.len() as f64, mean(values));
    (values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0) / n).sqrt()
}

/// Seconds as people read them.
pub fn seconds(time: f64) -> String {
    match time {
        time if time < 100.0 => format!("{time:.1} s"),
        time if time < 6000.0 => format!("{:.1} min", time / 60.0),
        time => format!("{:.1} h", time / 3600.0),
    }
}
