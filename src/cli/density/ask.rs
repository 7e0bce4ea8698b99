//! `nneinfact density ask`.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;
use ndarray::{Array2, ArrayD, IxDyn, arr0};

use super::super::output::check_outputs;
use super::super::print;
use super::{RunArgs, input, written};
use nneinfact_core::error::{Error, Result};
use nneinfact_density::{Conditional, Density, Indices};
use nneinfact_fit::io;

/// The arguments of `density ask`. Variables count from 1, their values from 0.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("question").required(true).multiple(true))]
pub struct AskTrainArgs {
    /// The distribution: a train without negative entries, as `density fit` and `density learn` write it
    #[arg(value_name = "NTT.npz")]
    train: PathBuf,

    /// The logarithm of the sum of all entries
    #[arg(long, group = "question")]
    log_partition: bool,

    /// Logarithms of the train's entries at rows of values, a matrix with a column for each variable
    #[arg(long, value_name = "I.npy", group = "question")]
    entries: Option<PathBuf>,

    /// The joint distribution of some variables, counted from 1, as a table with an axis for each
    #[arg(long, value_name = "K,K,…", value_delimiter = ',', group = "question")]
    marginal: Option<Vec<usize>>,

    /// Everything but --log-partition and --entries is asked given these values: 2=0 is variable 2, counted
    /// from 1, with its first value
    #[arg(long, value_name = "K=V,K=V,…", value_delimiter = ',', value_parser = given, group = "question")]
    given: Option<Vec<(usize, usize)>>,

    /// The mean of each variable's value, or of the functions f_1, f_2, … of a file: a number for each value
    #[arg(long, value_name = "F.npz", num_args = 0..=1, group = "question")]
    mean: Option<Option<PathBuf>>,

    /// The covariance of every two variables' values, or of the functions f_1, f_2, … of a file (or of --mean)
    #[arg(long, value_name = "F.npz", num_args = 0..=1, group = "question")]
    covariance: Option<Option<PathBuf>>,

    /// Draw so many samples
    #[arg(long, value_name = "N", group = "question", conflicts_with = "uniforms")]
    sample: Option<usize>,

    /// The seed of --sample
    #[arg(long, value_name = "S", requires = "sample", default_value_t = 0)]
    seed: u64,

    /// Draw samples from these numbers in [0, 1), a row for each sample and a column for each variable
    #[arg(long, value_name = "U.npy", group = "question")]
    uniforms: Option<PathBuf>,

    /// The mean negative log-likelihood of samples; --out gets that of each of them
    #[arg(long, value_name = "SAMPLES.npy", group = "question")]
    nll: Option<PathBuf>,

    /// Where to write the answer as an array, in place of printing it; for one question (a covariance is
    /// written where --mean is asked too)
    #[arg(long, value_name = "FILE.npy")]
    out: Option<PathBuf>,

    #[command(flatten)]
    run: RunArgs,
}

/// A variable and its value, counted as on the command line.
fn given(text: &str) -> Result<(usize, usize), String> {
    let expected = "a variable and its value are expected, as in 2=0";
    let (variable, value) = text.split_once('=').ok_or(expected)?;
    let number = |text: &str| text.trim().parse::<usize>().map_err(|_| expected.to_string());
    Ok((number(variable)?, number(value)?))
}

/// The numbers of an answer.
enum Numbers {
    Real(ArrayD<f64>),
    Whole(Array2<i64>),
}

/// An answer: a line, and numbers where the line does not hold them.
struct Answer {
    line: String,
    numbers: Numbers,
    /// Whether the line says all that is to be printed.
    in_line: bool,
}

/// A distribution, and the same given some values.
struct Asked {
    whole: Density,
    given: Vec<(usize, usize)>,
    conditional: Option<Conditional>,
}

/// Asks a train.
pub fn run(args: &AskTrainArgs) -> Result<()> {
    check_outputs(&[("--out", args.out.as_ref())], &args.inputs())?;
    if let Some(path) = &args.out {
        written::check_extension("--out", path, "npy")?;
        args.check_one_question()?;
    }
    let train = input::nonnegative(&args.train)?;
    let whole = Density::new(&train).map_err(|e| Error::format(&args.train, e.to_string()))?;
    let asked = Asked::new(whole, args.given.as_deref().unwrap_or_default())?;
    let answers = args.run.on_threads(|| args.answers(&asked))?;
    let mut text = String::new();
    for answer in &answers {
        text += &answer.text(args.out.is_none());
    }
    if let Some(path) = &args.out {
        let Some(last) = answers.last() else {
            return Err(Error::Internal("a question has no answer".into()));
        };
        match &last.numbers {
            Numbers::Real(array) => io::write_npy(path, array)?,
            Numbers::Whole(array) => io::write_npy_integers(path, array)?,
        }
        let shape = match &last.numbers {
            Numbers::Real(array) => array.shape().to_vec(),
            Numbers::Whole(array) => array.shape().to_vec(),
        };
        let _ = writeln!(text, "{}: shape {shape:?}", path.display());
    }
    if args.run.quiet && args.out.is_some() { Ok(()) } else { print(&text) }
}

impl AskTrainArgs {
    fn inputs(&self) -> Vec<&std::path::Path> {
        let functions = [&self.mean, &self.covariance].map(|f| f.as_ref().and_then(Option::as_ref));
        let mut all = vec![self.train.as_path()];
        let files = [&self.entries, &self.uniforms, &self.nll].map(Option::as_ref);
        all.extend(files.into_iter().chain(functions).flatten().map(PathBuf::as_path));
        all
    }

    /// One array is written, so that one question may be asked.
    fn check_one_question(&self) -> Result<()> {
        let asked = [
            ("--log-partition", self.log_partition),
            ("--entries", self.entries.is_some()),
            ("--marginal", self.marginal.is_some()),
            ("--mean", self.mean.is_some() && self.covariance.is_none()),
            ("--covariance", self.covariance.is_some()),
            ("--sample", self.sample.is_some()),
            ("--uniforms", self.uniforms.is_some()),
            ("--nll", self.nll.is_some()),
        ];
        let asked: Vec<&str> = asked.iter().filter(|a| a.1).map(|a| a.0).collect();
        if asked.len() > 1 {
            return Err(Error::Setting(format!(
                "--out holds the answer to one question, but {} are asked: ask them one by one",
                asked.join(", ")
            )));
        }
        Ok(())
    }

    fn answers(&self, asked: &Asked) -> Result<Vec<Answer>> {
        let mut out = Vec::new();
        if let Some(conditional) = &asked.conditional {
            out.push(Answer::number(
                "log-probability of the given values",
                conditional.log_probability,
            ));
        }
        if self.log_partition {
            out.push(Answer::number("log-partition", asked.whole.log_partition()));
        }
        if let Some(path) = &self.entries {
            let rows = input::index_rows(path, &asked.whole.sizes())?;
            let logs = asked.whole.log_entries(&rows)?;
            out.push(Answer::vector("logarithms of the entries", logs));
        }
        if let Some(variables) = &self.marginal {
            out.push(asked.marginal(variables)?);
        }
        out.extend(self.moments(asked)?);
        if let Some(count) = self.sample {
            out.push(asked.samples(asked.density().sample(count, self.seed)?)?);
        }
        if let Some(path) = &self.uniforms {
            out.push(asked.samples_from(&io::read_array_f64(path, None)?, path)?);
        }
        if let Some(path) = &self.nll {
            out.push(asked.nll(&input::index_rows(path, &asked.whole.sizes())?)?);
        }
        Ok(out)
    }

    /// Means and covariances.
    fn moments(&self, asked: &Asked) -> Result<Vec<Answer>> {
        let mut out = Vec::new();
        if let Some(path) = &self.mean {
            let f = asked.functions(path.as_ref())?;
            out.push(Answer::vector("mean", asked.density().mean(&f)?));
        }
        if let Some(path) = &self.covariance {
            let shared = self.mean.as_ref().and_then(Option::as_ref);
            let f = asked.functions(path.as_ref().or(shared))?;
            let moments = asked.density().covariance(&f)?;
            let d = asked.whole.order();
            out.push(Answer::array("covariance", vec![d, d], moments.covariance)?);
        }
        Ok(out)
    }
}

impl Asked {
    /// `given` counts variables from 1.
    fn new(whole: Density, given: &[(usize, usize)]) -> Result<Asked> {
        let sizes = whole.sizes();
        for (at, &(variable, value)) in given.iter().enumerate() {
            check_variable("--given", variable, sizes.len())?;
            let size = sizes[variable - 1];
            if value >= size {
                return Err(Error::Setting(format!(
                    "--given: variable {variable} has no value {value}: its values are 0 to {}",
                    size - 1
                )));
            }
            if given[..at].iter().any(|&(other, _)| other == variable) {
                return Err(Error::Setting(format!(
                    "--given: variable {variable} is there twice; give it once"
                )));
            }
        }
        let given: Vec<(usize, usize)> = given.iter().map(|&(k, v)| (k - 1, v)).collect();
        let conditional = match given.as_slice() {
            [] => None,
            given => Some(whole.conditional(given).map_err(|_| {
                Error::Setting(
                    "--given: these values have probability 0, so nothing can be asked given them"
                        .into(),
                )
            })?),
        };
        Ok(Asked { whole, given, conditional })
    }

    /// The distribution that is asked.
    fn density(&self) -> &Density {
        self.conditional.as_ref().map_or(&self.whole, |c| &c.density)
    }

    fn marginal(&self, variables: &[usize]) -> Result<Answer> {
        let d = self.whole.order();
        for (at, &variable) in variables.iter().enumerate() {
            check_variable("--marginal", variable, d)?;
            if variables[..at].contains(&variable) {
                return Err(Error::Setting(format!(
                    "--marginal: variable {variable} is there twice; name it once"
                )));
            }
            if self.given.iter().any(|&(mode, _)| mode + 1 == variable) {
                return Err(Error::Setting(format!(
                    "--marginal: variable {variable} is given; ask for others"
                )));
            }
        }
        let mut modes: Vec<usize> = variables.iter().map(|k| k - 1).collect();
        modes.sort_unstable();
        let table = self.density().marginal(&modes)?;
        let shape = table.shape().to_vec();
        let array = ArrayD::from_shape_vec(IxDyn(&shape), table.into_values())
            .map_err(|e| Error::Internal(format!("a table has another shape: {e}")))?;
        // Axes in the order that was asked for.
        let axes: Vec<usize> =
            variables.iter().filter_map(|k| modes.iter().position(|m| m + 1 == *k)).collect();
        let array = array.permuted_axes(IxDyn(&axes)).as_standard_layout().to_owned();
        let names: Vec<String> = variables.iter().map(ToString::to_string).collect();
        Ok(Answer {
            line: format!("marginal of {}", names.join(",")),
            numbers: Numbers::Real(array),
            in_line: false,
        })
    }

    /// The functions of a file, or the values themselves; of a given variable only that value.
    fn functions(&self, path: Option<&PathBuf>) -> Result<Vec<Vec<f64>>> {
        let sizes = self.whole.sizes();
        let mut f = match path {
            Some(path) => input::functions(path, &sizes)?,
            None => sizes.iter().map(|&n| (0..n).map(|i| i as f64).collect()).collect(),
        };
        for &(mode, value) in &self.given {
            f[mode] = vec![f[mode][value]];
        }
        Ok(f)
    }

    fn samples_from(&self, uniforms: &ArrayD<f64>, path: &std::path::Path) -> Result<Answer> {
        let d = self.whole.order();
        if uniforms.ndim() != 2 || uniforms.shape()[1] != d {
            return Err(Error::format(
                path,
                format!(
                    "a matrix with a column for each of {d} variables is expected; the array has shape \
                     {:?}",
                    uniforms.shape()
                ),
            ));
        }
        let numbers: Vec<f64> = uniforms.iter().copied().collect();
        if let Some(at) = numbers.iter().position(|u| !(0.0..1.0).contains(u)) {
            return Err(Error::format(
                path,
                format!(
                    "the number of row {}, variable {}, is {}; it has to be at least 0 and less than 1",
                    at / d,
                    at % d + 1,
                    numbers[at]
                ),
            ));
        }
        self.samples(self.density().sample_from(&numbers)?)
    }

    /// Samples, with the given values in their places.
    fn samples(&self, drawn: Indices) -> Result<Answer> {
        let mut data: Vec<i64> = drawn.data().iter().map(|&i| i as i64).collect();
        for row in data.chunks_exact_mut(drawn.order()) {
            for &(mode, value) in &self.given {
                row[mode] = value as i64;
            }
        }
        let array = Array2::from_shape_vec((drawn.rows(), drawn.order()), data)
            .map_err(|e| Error::Internal(format!("samples have another shape: {e}")))?;
        Ok(Answer { line: "samples".into(), numbers: Numbers::Whole(array), in_line: false })
    }

    fn nll(&self, samples: &Indices) -> Result<Answer> {
        let mut each: Vec<f64> =
            self.whole.log_probabilities(samples)?.iter().map(|log| -log).collect();
        if let Some(conditional) = &self.conditional {
            for (x, row) in each.iter_mut().zip(samples.iter()) {
                let as_given = self.given.iter().all(|&(mode, value)| row[mode] == value);
                *x = if as_given { *x + conditional.log_probability } else { f64::INFINITY };
            }
        }
        let possible: Vec<f64> = each.iter().copied().filter(|x| x.is_finite()).collect();
        let impossible = each.len() - possible.len();
        let mean = |of: &[f64]| of.iter().sum::<f64>() / of.len() as f64;
        let mut line = format!("NLL: {:?} (mean of {} samples)", mean(&each), each.len());
        if impossible > 0 {
            line += &format!("; {impossible} of them have probability 0");
            if !possible.is_empty() {
                line += &format!(", the mean of the others is {:?}", mean(&possible));
            }
        }
        let numbers = Numbers::Real(ndarray::Array1::from(each).into_dyn());
        Ok(Answer { line, numbers, in_line: true })
    }
}

/// The error if there is no variable of this number, counted from 1.
fn check_variable(option: &str, variable: usize, count: usize) -> Result<()> {
    if (1..=count).contains(&variable) {
        return Ok(());
    }
    Err(Error::Setting(format!(
        "{option}: there is no variable {variable}: the train has {count}, counted from 1"
    )))
}

impl Answer {
    fn number(what: &str, x: f64) -> Answer {
        let numbers = Numbers::Real(arr0(x).into_dyn());
        Answer { line: format!("{what}: {x:?}"), numbers, in_line: true }
    }

    fn vector(what: &str, values: Vec<f64>) -> Answer {
        let numbers = Numbers::Real(ndarray::Array1::from(values).into_dyn());
        Answer { line: what.into(), numbers, in_line: false }
    }

    fn array(what: &str, shape: Vec<usize>, values: Vec<f64>) -> Result<Answer> {
        let array = ArrayD::from_shape_vec(IxDyn(&shape), values)
            .map_err(|e| Error::Internal(format!("an answer has another shape: {e}")))?;
        Ok(Answer { line: what.into(), numbers: Numbers::Real(array), in_line: false })
    }

    /// As it is printed: the numbers of the last axis on a line.
    fn text(&self, with_numbers: bool) -> String {
        if self.in_line || !with_numbers {
            return if self.in_line { format!("{}\n", self.line) } else { String::new() };
        }
        let shape: Vec<String> = match &self.numbers {
            Numbers::Real(array) => array.shape().iter().map(ToString::to_string).collect(),
            Numbers::Whole(array) => array.shape().iter().map(ToString::to_string).collect(),
        };
        let mut text = format!("{} ({}):\n", self.line, shape.join(" × "));
        let mut rows = |numbers: Vec<String>, columns: usize| {
            for row in numbers.chunks(columns.max(1)) {
                text += &row.join(" ");
                text.push('\n');
            }
        };
        match &self.numbers {
            Numbers::Real(array) => {
                let columns = if array.ndim() > 1 { array.shape()[array.ndim() - 1] } else { 1 };
                rows(array.iter().map(|x| format!("{x:?}")).collect(), columns);
            }
            Numbers::Whole(array) => {
                rows(array.iter().map(ToString::to_string).collect(), array.ncols());
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::given;

    #[test]
    fn given_values() {
        assert_eq!(given("2=0"), Ok((2, 0)));
        assert_eq!(given(" 12 = 3 "), Ok((12, 3)));
        for bad in ["", "2", "2=", "=1", "a=1", "1=-1", "1=1.5"] {
            assert!(given(bad).is_err(), "{bad}");
        }
    }
}
