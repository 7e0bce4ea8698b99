//! The arguments about constraints of factors: penalties, bounds, fixed values, and what holds within
//! and among them.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use ndarray::ArrayD;

use super::output::read_factors;
use super::structure::{self, Simplex, Smoothing, Tie};
use nneinfact_core::error::{Error, Result};
use nneinfact_core::loss::Penalty;
use nneinfact_core::model::Model;
use nneinfact_fit::io::{self, FileKind};
use nneinfact_fit::{Balance, NNEinFact, Splines, WEIGHTS, factor_name};

/// Penalties, bounds and fixed factors. A factor is called by its letters, or theta_N where several
/// have the same.
#[derive(Debug, Args)]
pub struct ConstraintArgs {
    /// Add MU times the sum of the entries of every factor to the sum of the losses: sparse factors
    #[arg(long, value_name = "MU", allow_negative_numbers = true, conflicts_with = "l2")]
    l1: Option<f64>,

    /// Add MU times the sum of the squared entries of every factor to the sum of the losses: it prunes
    /// components that the data do not need
    #[arg(long, value_name = "MU", allow_negative_numbers = true)]
    l2: Option<f64>,

    /// A penalty on one factor, as in ikr:l1=0.1, jr:l2=0.5 or dr:l1.5=0.2 (any power of at least 1);
    /// once for each factor
    #[arg(long = "penalty", value_name = "FACTOR:lP=MU", value_parser = penalty)]
    penalties: Vec<(String, Penalty)>,

    /// When penalised factors are rescaled, which leaves predictions as they are and lowers penalties
    /// [default: sweep, where there are penalties]
    #[arg(long, value_enum)]
    balance: Option<BalanceArg>,

    /// Keep a factor as it is in a file, as in ma=A.npy (of an .npz the array theta_N of the factor, or
    /// the only one); once for each factor
    #[arg(long = "fix", value_name = "FACTOR=FILE", value_parser = fixed)]
    fixed: Vec<(String, PathBuf)>,

    /// Keep the entries of a factor between two numbers, as in ikr=0:1 or jr=0.1:inf; once for each
    /// factor
    #[arg(long = "bounds", value_name = "FACTOR=FROM:TO", value_parser = bounds)]
    bounds: Vec<(String, [f64; 2])>,

    /// Make factors one and the same, letter by letter, for symmetric tables and moments: ir=jr of
    /// ir,jr->ij, or ir=jr=kr of ir,jr,kr->ijk; what holds for one of them holds for all, and a penalty
    /// counts once
    #[arg(long = "tie", value_name = "FACTOR=FACTOR", value_parser = structure::tie)]
    ties: Vec<Tie>,

    /// Add MU times the squared differences between neighbours along the modes of a factor to the sum of
    /// the losses: hr=0.1; hr=0.1,cyclic where the last index is followed by the first; ikr:i=0.1 along
    /// one letter; sr:s=0.1,graph=EDGES.npy where entry (i, j) is the weight of the edge between i and j.
    /// Other factors should have a penalty too, or rows that add up to 1, or else they take the scale
    #[arg(long = "smooth", value_name = "FACTOR[:LETTERS]=MU", value_parser = structure::smooth)]
    smooth: Vec<Smoothing>,

    /// Make the rows of a factor add up to 1: wr over its latent letters (shares of components at every
    /// w), or wr:w over those that are named (every component a distribution over w)
    #[arg(long = "simplex", value_name = "FACTOR[:LETTERS]", value_parser = structure::simplex)]
    simplex: Vec<Simplex>,

    /// Make the factor with a mode a sum of smooth functions of it: h=spline:12 takes 12 B-splines,
    /// h=spline:12,cyclic those around a circle. hr becomes hb,br and is multiplied out in what is written
    #[arg(long = "basis", value_name = "LETTER=spline:N", value_parser = structure::basis)]
    bases: Vec<(char, Splines)>,
}

/// The values of `--balance`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum BalanceArg {
    /// Not at all; the start keeps its scale
    Never,
    /// Before the first sweep, with the best scale for the start
    Start,
    /// Before the first sweep and after every one
    Sweep,
}

impl ConstraintArgs {
    /// Puts them into the settings of a fit; reads the files of fixed factors.
    ///
    /// # Errors
    /// [`Error::Setting`] where an option names a factor twice: which of them counts is not for the order
    /// of the arguments to say.
    pub fn apply(&self, model: &Model, mut settings: NNEinFact) -> Result<NNEinFact> {
        once("penalty", model, self.penalties.iter().map(|(factor, _)| factor.as_str()))?;
        once("fix", model, self.fixed.iter().map(|(factor, _)| factor.as_str()))?;
        once("bounds", model, self.bounds.iter().map(|(factor, _)| factor.as_str()))?;
        if let Some(penalty) = self.l1.map(Penalty::l1).or(self.l2.map(Penalty::l2)) {
            settings = settings.penalty_on_all(penalty);
        }
        for (factor, penalty) in &self.penalties {
            settings = settings.penalty(factor, *penalty);
        }
        for (factor, path) in &self.fixed {
            let values = values(path, model, model.factor_named(factor)?)?;
            settings = settings.fix(factor, values);
        }
        for (factor, [lower, upper]) in &self.bounds {
            settings = settings.bounds(factor, *lower, *upper);
        }
        for tie in &self.ties {
            settings = settings.tie(tie.factors());
        }
        for smoothing in &self.smooth {
            settings = settings.smooth(smoothing.factor(), smoothing.smooth()?);
        }
        for Simplex { factor, over } in &self.simplex {
            settings = settings.simplex(factor, over.as_deref());
        }
        for &(mode, basis) in &self.bases {
            settings = settings.basis(mode, basis);
        }
        Ok(match self.balance {
            None => settings,
            Some(BalanceArg::Never) => settings.balance(Balance::Never),
            Some(BalanceArg::Start) => settings.balance(Balance::AtStart),
            Some(BalanceArg::Sweep) => settings.balance(Balance::EverySweep),
        })
    }

    /// The option whose bounds normalised factors would not keep to, if there is one.
    pub fn bounding(&self) -> Option<&'static str> {
        match (self.bounds.is_empty(), self.simplex.is_empty()) {
            (false, _) => Some("--bounds"),
            (true, false) => Some("--simplex"),
            (true, true) => None,
        }
    }

    /// The files that are read.
    pub fn inputs(&self) -> impl Iterator<Item = &Path> {
        let graphs = self.smooth.iter().filter_map(Smoothing::input);
        self.fixed.iter().map(|(_, path)| path.as_path()).chain(graphs)
    }
}

/// Refuses an option that names a factor twice.
fn once<'a>(option: &str, model: &Model, factors: impl Iterator<Item = &'a str>) -> Result<()> {
    let mut seen = Vec::new();
    for factor in factors {
        let l = model.factor_named(factor)?;
        if seen.contains(&l) {
            return Err(Error::Setting(format!(
                "--{option} is given twice for the factor {factor}: one of them is enough"
            )));
        }
        seen.push(l);
    }
    Ok(())
}

/// The values of factor `l` from a file.
fn values(path: &Path, model: &Model, l: usize) -> Result<ArrayD<f64>> {
    let name = factor_name(l);
    let names = match FileKind::of(path)? {
        FileKind::Npz => io::npz_names(path)?,
        FileKind::Npy | FileKind::Tns => Vec::new(),
    };
    let has = |name: &str| names.iter().any(|info| info.name == name);
    if !has(&name) {
        return io::read_array_f64(path, None);
    }
    if !has(WEIGHTS) {
        return io::read_array_f64(path, Some(&name));
    }
    // Beside weights the factors are not the whole model: it is to be the one that --init would take.
    match read_factors(path, model) {
        Ok(mut factors) => Ok(factors.swap_remove(l)),
        Err(error) => Err(Error::format(
            path,
            format!(
                "beside the weights of normalised components, {name} alone is not what was fitted, and the weights cannot be multiplied into a factor ({error}): write the file without --normalize, or with --scales-into"
            ),
        )),
    }
}

pub(super) fn penalty(text: &str) -> Result<(String, Penalty), String> {
    let expected = "a factor, lP and a weight are expected, as in ikr:l1=0.1";
    let (factor, rest) = text.split_once(':').ok_or(expected)?;
    let (kind, weight) = rest.split_once('=').ok_or(expected)?;
    let power =
        kind.trim().strip_prefix('l').and_then(|p| p.parse::<f64>().ok()).ok_or_else(|| {
            format!(
                "`{}` is no penalty: l1, l2 or l and another power are; {expected}",
                kind.trim()
            )
        })?;
    let weight = weight.trim();
    let weight = weight
        .parse::<f64>()
        .map_err(|_| format!("the weight `{weight}` is not a number: {expected}"))?;
    let penalty = Penalty::new(weight, power);
    match penalty.problem() {
        Some(problem) => Err(problem),
        None => Ok((factor.trim().into(), penalty)),
    }
}

fn fixed(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((factor, file)) if !factor.trim().is_empty() && !file.is_empty() => {
            Ok((factor.trim().into(), file.into()))
        }
        _ => Err("a factor and a file are expected, as in ma=A.npy".into()),
    }
}

fn bounds(text: &str) -> Result<(String, [f64; 2]), String> {
    let expected = "a factor and two numbers are expected, as in ikr=0:1";
    let (factor, range) = text.split_once('=').ok_or(expected)?;
    let (lower, upper) = range.split_once(':').ok_or(expected)?;
    let number = |text: &str| {
        let text = text.trim();
        text.parse::<f64>().map_err(|_| format!("`{text}` is not a number: {expected}"))
    };
    Ok((factor.trim().into(), [number(lower)?, number(upper)?]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn penalties() {
        assert_eq!(penalty("ikr:l1=0.1"), Ok(("ikr".into(), Penalty::l1(0.1))));
        assert_eq!(penalty(" jr : l2 = 1e-3 "), Ok(("jr".into(), Penalty::l2(1e-3))));
        assert_eq!(penalty("theta_2:l1.5=2"), Ok(("theta_2".into(), Penalty::new(2.0, 1.5))));
        for bad in
            ["", "ikr", "ikr:l1", "ikr=0.1", "ikr:1=2", "ikr:l0.5=1", "ikr:l1=-1", "ikr:l1=x"]
        {
            assert!(penalty(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ranges_and_files() {
        assert_eq!(bounds("ikr=0:1"), Ok(("ikr".into(), [0.0, 1.0])));
        assert_eq!(bounds("jr=0.5:inf"), Ok(("jr".into(), [0.5, f64::INFINITY])));
        for bad in ["ikr", "ikr=1", "ikr=a:b", "0:1"] {
            assert!(bounds(bad).is_err(), "{bad}");
        }
        assert_eq!(fixed("ma=A.npy"), Ok(("ma".into(), "A.npy".into())));
        for bad in ["ma", "=A.npy", "ma="] {
            assert!(fixed(bad).is_err(), "{bad}");
        }
    }
}
