//! `nneinfact density learn`.

use std::iter;
use std::path::{Path, PathBuf};

use clap::Args;

use super::super::output::check_outputs;
use super::super::summary::{FitSummary, number};
use super::super::{complain, print};
use super::fit::{add_fit, sweep_line, tell_notices};
use super::progress::TrainProgress;
use super::sketch::{HowArgs, check_sizes};
use super::{RunArgs, input, written};
use nneinfact_core::error::{Error, Result};
use nneinfact_density::{Density, Em, FittedTrain, Indices, TrainFit};
use nneinfact_fit::SavedTrain;

/// The arguments of `density learn`.
#[derive(Debug, Args)]
pub struct LearnArgs {
    /// The samples: a matrix of whole numbers, a row for each sample and a column for each variable;
    /// values count from 0
    #[arg(value_name = "SAMPLES.npy")]
    samples: PathBuf,

    /// How many values each variable has
    #[arg(long, value_name = "N,N,…", value_delimiter = ',', required = true)]
    sizes: Vec<usize>,

    /// The rank of the distribution's train
    #[arg(long, value_name = "R", required_unless_present = "init")]
    rank: Option<usize>,

    /// Improve this train by expectation maximisation alone, instead of one that is sketched and
    /// fitted
    #[arg(long, value_name = "START.npz")]
    init: Option<PathBuf>,

    /// The rank of the sketch, which the train is fitted to [default: half of --rank]
    #[arg(long, value_name = "R")]
    sketch_rank: Option<usize>,

    #[command(flatten)]
    how: HowArgs,

    /// The share of the samples that is withheld, to see how well they are predicted
    #[arg(long, value_name = "SHARE", default_value_t = 0.1, allow_negative_numbers = true)]
    validation: f64,

    /// Sweeps of the barrier Newton method
    #[arg(long, value_name = "N", default_value_t = 40)]
    sweeps: usize,

    /// Sweeps of expectation maximisation
    #[arg(long, value_name = "N", default_value_t = 10)]
    em_sweeps: usize,

    /// The seed of the start, and of which samples are withheld
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,

    /// Where to write the train of probabilities
    #[arg(long, value_name = "NTT.npz")]
    out: PathBuf,

    #[command(flatten)]
    run: RunArgs,
}

/// Negative log-likelihoods of the samples that are trained on, and of those that are not.
struct Scores {
    what: &'static str,
    training: f64,
    validation: Option<f64>,
}

/// What was learnt.
struct Learnt {
    /// What was fitted to a sketch, where the start was not given.
    fitted: Option<FittedTrain>,
    density: Density,
    scores: Vec<Scores>,
    em_sweeps: usize,
    notices: Vec<String>,
}

/// Learns a distribution.
pub fn run(args: &LearnArgs) -> Result<()> {
    let inputs: Vec<&Path> =
        iter::once(&args.samples).chain(&args.init).map(PathBuf::as_path).collect();
    check_outputs(&[("--out", Some(&args.out))], &inputs)?;
    written::check_npz("--out", &args.out)?;
    check_sizes(&args.sizes)?;
    if !(0.0..1.0).contains(&args.validation) {
        return Err(Error::Setting(format!(
            "--validation is {}; it has to be at least 0 and less than 1",
            args.validation
        )));
    }
    if args.rank == Some(0) || args.sketch_rank == Some(0) {
        return Err(Error::Setting("a rank is 0; it has to be at least 1".into()));
    }
    let samples = input::index_rows(&args.samples, &args.sizes)?;
    let (training, validation) = split(&samples, args.validation, args.seed)?;
    let learnt = args.run.on_threads(|| args.learn(&training, validation.as_ref()))?;
    for notice in &learnt.notices {
        complain("notice", notice);
    }
    let mut saved = SavedTrain::new(learnt.density.to_train().into_train());
    let mut method = "expectation maximisation";
    if let Some(fitted) = &learnt.fitted {
        tell_notices(fitted);
        if let Some(history) = SavedTrain::from(fitted).record().history.clone() {
            saved = saved.with_history(history);
        }
        method = "sketch, barrier Newton, expectation maximisation";
    }
    saved.with_method(method).save(&args.out)?;
    // What was asked for, so without --quiet too.
    print(&args.summary(&learnt, &training, validation.as_ref()))
}

impl LearnArgs {
    fn learn(&self, training: &Indices, validation: Option<&Indices>) -> Result<Learnt> {
        let mut progress = TrainProgress::begin(self.run.show());
        let (what, mut learnt) = match &self.init {
            Some(path) => ("the start", self.given(path)?),
            None => ("sketch and Newton", self.fitted(training, &mut progress)?),
        };
        let mut scores = vec![score(what, &learnt.density, training, validation)?];
        if self.em_sweeps > 0 && !progress.interrupted() {
            let em = Em::new().sweeps(self.em_sweeps).observer(|sweep, nll| {
                progress.say(|| format!("EM sweep {sweep}  NLL {}", number(nll)))
            });
            let better = em.run(&learnt.density, training, None)?;
            learnt.em_sweeps = better.nll.len() - 1;
            learnt.density = better.density;
            scores.push(score("and EM", &learnt.density, training, validation)?);
        }
        learnt.scores = scores;
        Ok(learnt)
    }

    /// A start that is given.
    fn given(&self, path: &Path) -> Result<Learnt> {
        let train = input::nonnegative(path)?;
        let sizes = train.train().sizes();
        if sizes != self.sizes {
            return Err(Error::format(
                path,
                format!("its sizes are {sizes:?}, but --sizes says {:?}", self.sizes),
            ));
        }
        let unused =
            [("--rank", self.rank.is_some()), ("--sketch-rank", self.sketch_rank.is_some())];
        let notices = unused.iter().filter(|(_, given)| *given);
        let notices = notices
            .map(|(name, _)| format!("{name} has no effect with --init: the train has its ranks"));
        Ok(Learnt {
            fitted: None,
            density: Density::new(&train)?,
            scores: Vec::new(),
            em_sweeps: 0,
            notices: notices.collect(),
        })
    }

    /// A start from the samples: sketched, and fitted to the sketch.
    fn fitted(&self, training: &Indices, progress: &mut TrainProgress) -> Result<Learnt> {
        // Given where no start is.
        let rank = self.rank.unwrap_or(1);
        let sketch_rank = self.sketch_rank.unwrap_or(rank.div_ceil(2));
        let sketch = self.how.sketch(self.sizes.clone()).rank(sketch_rank);
        let found = sketch.run(training, None)?;
        let fitted = TrainFit::new()
            .rank(rank)
            .sweeps(self.sweeps)
            .seed(self.seed)
            .observer(|report| progress.say(|| sweep_line(report)))
            .run(&found.train)?;
        let density = Density::new(&fitted.train)?;
        let notices = found.notices;
        Ok(Learnt { fitted: Some(fitted), density, scores: Vec::new(), em_sweeps: 0, notices })
    }

    fn summary(&self, learnt: &Learnt, training: &Indices, validation: Option<&Indices>) -> String {
        let mut summary = FitSummary::default();
        if !self.run.quiet {
            let withheld = validation.map_or(0, Indices::rows);
            summary.add(
                "samples",
                format!(
                    "{}: {} to train on, {withheld} withheld",
                    self.samples.display(),
                    training.rows()
                ),
            );
            if let Some(fitted) = &learnt.fitted {
                add_fit(&mut summary, fitted);
            }
            summary.add("EM", format!("{} sweeps", learnt.em_sweeps));
        }
        for scores in &learnt.scores {
            let mut text = format!("training {}", number(scores.training));
            if let Some(validation) = scores.validation {
                text += &format!(", withheld {}", number(validation));
            }
            summary.add("NLL", format!("{text} ({})", scores.what));
        }
        if !self.run.quiet {
            summary.add("written", self.out.display().to_string());
        }
        summary.into_text()
    }
}

fn score(
    what: &'static str,
    density: &Density,
    training: &Indices,
    validation: Option<&Indices>,
) -> Result<Scores> {
    let nll = |samples: &Indices| density.nll(samples, None).map(|nll| nll.mean);
    Ok(Scores { what, training: nll(training)?, validation: validation.map(nll).transpose()? })
}

/// Samples to train on, and those that are withheld: a share of them, by their number and the seed.
fn split(samples: &Indices, share: f64, seed: u64) -> Result<(Indices, Option<Indices>)> {
    let count = (share * samples.rows() as f64).round() as usize;
    if count == 0 {
        return Ok((samples.clone(), None));
    }
    if count >= samples.rows() {
        return Err(Error::Observations(format!(
            "--validation {share} would withhold all {} samples",
            samples.rows()
        )));
    }
    // Those with the smallest random numbers: exactly so many.
    let draw = |row: usize| {
        let high = nneinfact_core::data::uniform_u32(seed, 0, row as u64);
        (high, row)
    };
    let mut order: Vec<usize> = (0..samples.rows()).collect();
    order.sort_by_key(|&row| draw(row));
    let mut withheld = vec![false; samples.rows()];
    order[..count].iter().for_each(|&row| withheld[row] = true);
    let part = |wanted: bool| {
        let rows = samples.iter().zip(&withheld).filter(|(_, w)| **w == wanted);
        Indices::new(samples.order(), rows.flat_map(|(row, _)| row.iter().copied()).collect())
    };
    Ok((part(false)?, Some(part(true)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_split_exactly() {
        let samples = Indices::new(1, (0..100).collect()).unwrap();
        let (training, validation) = split(&samples, 0.1, 1).unwrap();
        let validation = validation.unwrap();
        assert_eq!((training.rows(), validation.rows()), (90, 10));
        let mut all: Vec<usize> = training.data().to_vec();
        all.extend(validation.data());
        all.sort_unstable();
        assert_eq!(all, samples.data());
        assert!(split(&samples, 0.0, 1).unwrap().1.is_none());
        assert!(split(&Indices::new(1, vec![0]).unwrap(), 0.9, 1).is_err());
        assert_ne!(split(&samples, 0.1, 2).unwrap().0, training);
    }
}
