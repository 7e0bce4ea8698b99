//! The variants of a fit, side by side from one start, as a table.

use nneinfact::density::{
    FittedTrain, LineSearch, Method, SavedTrain, Schedule, Solver, TensorTrain, TrainFit,
};

use crate::{Failure, Options, plot};

type Change = fn(TrainFit<'static>) -> TrainFit<'static>;

/// The variants of NTT.md, section 11, and the two baselines.
const VARIANTS: [(&str, Change); 10] = [
    ("fixed + direct", |f| {
        f.schedule(Schedule::Fixed).solver(Solver::Direct).line_search(LineSearch::Core)
    }),
    ("adaptive + direct", |f| {
        f.schedule(Schedule::Adaptive).solver(Solver::Direct).line_search(LineSearch::Core)
    }),
    ("adaptive + CG", |f| {
        f.schedule(Schedule::Adaptive).solver(Solver::Cg).line_search(LineSearch::Core)
    }),
    ("adaptive + PCG", |f| {
        let f = f.schedule(Schedule::Adaptive).solver(Solver::Pcg);
        f.line_search(LineSearch::Core).preconditioner_min(1e-12)
    }),
    ("balanced + direct, step per slice", |f| {
        f.schedule(Schedule::Balanced).solver(Solver::Direct)
    }),
    ("adaptive + direct, step per slice", |f| {
        f.schedule(Schedule::Adaptive).solver(Solver::Direct)
    }),
    ("adaptive + Jacobi, step per slice", |f| {
        f.schedule(Schedule::Adaptive).solver(Solver::Jacobi)
    }),
    ("hybrid + direct, step per slice", |f| f.solver(Solver::Direct)),
    ("multiplicative", |f| f.method(Method::Multiplicative)),
    ("coordinate descent", |f| f.method(Method::Descent)),
];

/// How one variant went.
pub struct Course {
    pub name: &'static str,
    pub errors: Vec<f64>,
    pub seconds: Vec<f64>,
}

/// What is compared.
pub struct Comparison<'a> {
    /// What stands above the plot.
    pub title: &'a str,
    /// The name of the plot's file, without extension.
    pub file: &'a str,
    pub target: &'a TensorTrain,
    pub rank: usize,
    pub sweeps: usize,
}

impl Comparison<'_> {
    /// Fits all variants from one start and prints their errors. Returns the one with the least error.
    pub fn run(&self, options: &Options) -> Result<FittedTrain, Failure> {
        let target = self.target;
        println!(
            "\nsquared relative distance to the train of ranks up to {}, model of rank {}",
            target.ranks().iter().max().unwrap_or(&1),
            self.rank
        );
        println!(
            "{:34} {:>8} {:>8} {:>8} {:>8} {:>8} {:>9} {:>9}",
            "after sweeps", 5, 10, 20, 40, "end", "seconds", "per sweep"
        );
        let (mut best, mut courses): (Option<FittedTrain>, Vec<Course>) = (None, Vec::new());
        for (name, change) in VARIANTS {
            let fit = TrainFit::new().rank(self.rank).seed(2).sweeps(self.sweeps).target_error(0.0);
            let fit = change(fit).run(target)?;
            println!("{}", row(name, &fit));
            let (errors, seconds) = (fit.history.error.clone(), fit.history.seconds.clone());
            courses.push(Course { name, errors, seconds });
            let error = fit.relative_squared_distance;
            if best.as_ref().is_none_or(|b| error < b.relative_squared_distance) {
                best = Some(fit);
            }
        }
        if let Some(folder) = &options.targets {
            SavedTrain::new(target.clone()).save(folder.join(format!("{}.npz", self.file)))?;
        }
        if let Some(folder) = &options.plots {
            let path = folder.join(format!("{}.svg", self.file));
            plot::draw(&path, self.title, &courses)?;
            println!("drawn: {}", path.display());
        }
        best.ok_or_else(|| "there are no variants".into())
    }
}

/// A line of the table.
fn row(name: &str, fit: &FittedTrain) -> String {
    let history = &fit.history;
    let after = |n: usize| history.error.get(n).map_or("–".to_string(), |e| format!("{e:.1e}"));
    let seconds = history.seconds.last().copied().unwrap_or(0.0);
    format!(
        "{name:34} {:>8} {:>8} {:>8} {:>8} {:>8.1e} {seconds:>9.3} {:>9.4}",
        after(5),
        after(10),
        after(20),
        after(40),
        fit.relative_squared_distance,
        seconds / history.sweeps.max(1) as f64
    )
}
