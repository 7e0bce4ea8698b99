//! `nneinfact ask`: sums, conditionals, the largest entries, samples and components of a fit.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;
use ndarray::{ArrayD, Dimension};
use serde_json::{Value, json};

use super::answer::{AnswerFile, AnswerKind, Columns, check_output};
use super::mode_names::ModeNames;
use super::predict::FitFile;
use super::print;
use super::summary::{count, number, percent};
use nneinfact_core::error::{Error, Result};
use nneinfact_fit::io;
use nneinfact_fit::{FactoredTensor, LargestEntry, Saved};

/// The arguments of `ask`.
#[derive(Debug, Args)]
pub struct AskArgs {
    #[command(flatten)]
    fit: FitFile,

    /// The sum of ŷ over all entries
    #[arg(long)]
    total: bool,

    /// The sums of ŷ over all modes but these, with axes in the order of the letters
    #[arg(long, value_name = "MODES")]
    marginal: Option<String>,

    /// Where these are known, as in h=8 (of hours that of 08:00): marginals are then the probabilities of the other modes, and
    /// the largest entries and samples are those there
    #[arg(long, value_name = "MODE=VALUE,…")]
    given: Option<String>,

    /// The largest entries of ŷ
    #[arg(long, value_name = "N", value_parser = entries, allow_negative_numbers = true)]
    top: Option<usize>,

    /// Entries drawn at random, each with probability ŷ/Σŷ
    #[arg(long, value_name = "N", value_parser = entries, allow_negative_numbers = true)]
    sample: Option<usize>,

    /// The seed of --sample
    #[arg(long, value_name = "N", default_value_t = 0, requires = "sample")]
    seed: u64,

    /// What the components of each latent index add to the sum of ŷ
    #[arg(long)]
    components: bool,

    /// Where to write the answer: .npy, .tns or .csv for one question, .json for any number
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// A number of entries.
fn entries(text: &str) -> Result<usize, String> {
    match text.trim().parse() {
        Ok(count) if count > 0 => Ok(count),
        _ => Err("a whole number of at least 1 is expected".into()),
    }
}

/// Rows that are shown of a long answer.
const SHOWN: usize = 20;
/// Up to here answers are not long: hours, and days of a month.
const WHOLE: usize = 31;

/// An answer of rows: indices of some modes, and a value.
struct Rows {
    question: &'static str,
    modes: Vec<usize>,
    /// What the value is.
    value: Option<&'static str>,
    shape: Vec<usize>,
    rows: Answer,
}

/// What is answered.
enum Answer {
    /// A value for every index of some modes.
    Array(ArrayD<f64>),
    /// Some indices with their values.
    List(Vec<(Vec<usize>, f64)>),
}

impl Answer {
    fn len(&self) -> usize {
        match self {
            Answer::Array(array) => array.len(),
            Answer::List(list) => list.len(),
        }
    }

    fn iter(&self) -> Box<dyn Iterator<Item = (Vec<usize>, f64)> + '_> {
        match self {
            Answer::Array(array) => {
                Box::new(array.indexed_iter().map(|(at, &y)| (at.slice().to_vec(), y)))
            }
            Answer::List(list) => Box::new(list.iter().cloned()),
        }
    }
}

/// Asks, prints, and writes a file.
pub fn run(args: &AskArgs) -> Result<()> {
    let questions = [
        args.total,
        args.marginal.is_some(),
        args.top.is_some(),
        args.sample.is_some(),
        args.components,
    ];
    let asked = questions.iter().filter(|&&asked| asked).count()
        + usize::from(args.given.is_some() && !questions.contains(&true));
    if asked == 0 {
        return Err(Error::Setting(
            "nothing is asked: --total, --marginal, --given, --top, --sample or --components"
                .into(),
        ));
    }
    let out = match &args.out {
        Some(path) => Some(Output::new(path, args, asked)?),
        None => None,
    };
    let saved = args.fit.load()?;
    let names = ModeNames::of(&saved);
    let asked = Asked::new(args, &saved, &names)?;
    let mut text = String::new();
    let mut all = serde_json::Map::new();
    if args.total {
        let (total, said) = asked.total()?;
        text += &said;
        all.insert("total".into(), total);
    }
    if args.components {
        let (components, said) = asked.components()?;
        text += &said;
        all.insert("components".into(), components);
    }
    let rows = asked.rows(args)?;
    for answer in &rows {
        text += &answer.show(&names, args.out.is_some());
        all.insert(answer.question.into(), answer.json(&names));
    }
    match out {
        Some(Output::Json(path)) => {
            io::write_json(&path, &Value::Object(all))?;
            text += &format!("written to {}\n", path.display());
        }
        Some(Output::File(file)) => {
            for answer in &rows {
                answer.write(&file, &names)?;
            }
            text += &format!("written to {}\n", file.path().display());
        }
        None => {}
    }
    print(&text)
}

/// Where answers are written.
enum Output {
    Json(PathBuf),
    File(AnswerFile),
}

impl Output {
    fn new(path: &std::path::Path, args: &AskArgs, asked: usize) -> Result<Output> {
        let inputs = [args.fit.fit.as_path()];
        if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("json")) {
            check_output("--out", path, &inputs)?;
            return Ok(Output::Json(path.into()));
        }
        let file = AnswerFile::new("--out", path, &inputs)?;
        if asked > 1 || args.total || args.components {
            return Err(Error::Setting(format!(
                "--out {} takes one answer with indices (--marginal, --top, --sample, or --given alone); \
                 a .json takes everything",
                path.display()
            )));
        }
        Ok(Output::File(file))
    }
}

/// A fit that is asked.
struct Asked<'a> {
    saved: &'a Saved,
    names: &'a ModeNames,
    /// For each mode the index that is known.
    fixed: Vec<Option<usize>>,
    /// The distribution over the other modes, where some are known; else the fit's tensor.
    tensor: FactoredTensor,
    /// The modes of `tensor` among those of the data.
    free: Vec<usize>,
}

impl<'a> Asked<'a> {
    fn new(args: &AskArgs, saved: &'a Saved, names: &'a ModeNames) -> Result<Asked<'a>> {
        let fixed = match &args.given {
            Some(given) => names.fixed("--given", given)?,
            None => vec![None; names.shape().len()],
        };
        let known = known(names, &fixed);
        let tensor = match known.is_empty() {
            true => saved.factored().clone(),
            false => saved.factored().conditional(&known)?,
        };
        let free = (0..fixed.len()).filter(|&mode| fixed[mode].is_none()).collect();
        Ok(Asked { saved, names, fixed, tensor, free })
    }

    /// Whether values are probabilities.
    fn is_conditional(&self) -> bool {
        self.free.len() < self.fixed.len()
    }

    fn total(&self) -> Result<(Value, String)> {
        let total = self.saved.factored().total()?;
        if !self.is_conditional() {
            return Ok((json!(total), format!("total      {}\n", number(total))));
        }
        let part = self.saved.factored().given(&known(self.names, &self.fixed))?.total()?;
        let share = if total > 0.0 { part / total } else { 0.0 };
        let text = format!(
            "total      {} of {}, {}\n",
            number(part),
            number(total),
            percent(100.0 * share)
        );
        Ok((json!({ "given": part, "all": total, "share": share }), text))
    }

    fn components(&self) -> Result<(Value, String)> {
        let mut text = String::new();
        let mut all = serde_json::Map::new();
        for index in self.tensor.model().latent().iter() {
            let letter = char::from(index);
            let shares = self.tensor.component_shares(letter)?;
            let sums = self.tensor.marginal(&letter.to_string())?;
            let _ = writeln!(text, "components of {letter}: sum, share of the sum of ŷ");
            for (i, (share, sum)) in shares.iter().zip(&sums).enumerate() {
                let _ =
                    writeln!(text, "  {i:>4}  {:>12}  {}", number(*sum), percent(100.0 * share));
            }
            let rows: Vec<Value> = shares
                .iter()
                .zip(&sums)
                .map(|(share, sum)| json!({ "sum": sum, "share": share }))
                .collect();
            all.insert(letter.to_string(), Value::Array(rows));
        }
        if all.is_empty() {
            let _ = writeln!(text, "components: {} has no latent index", self.saved.model());
        }
        Ok((Value::Object(all), text))
    }

    /// The answers that have indices.
    fn rows(&self, args: &AskArgs) -> Result<Vec<Rows>> {
        let mut answers = Vec::new();
        let alone = args.given.is_some()
            && !(args.total || args.components)
            && args.marginal.is_none()
            && args.top.is_none()
            && args.sample.is_none();
        if args.marginal.is_some() || alone {
            answers.push(self.marginal(args.marginal.as_deref())?);
        }
        let value = if self.is_conditional() { "probability" } else { "prediction" };
        if let Some(n) = args.top {
            let found = self.tensor.top(n)?;
            let row = |LargestEntry { index, value }| (self.whole(&index), value);
            answers.push(Rows {
                question: "top",
                modes: (0..self.fixed.len()).collect(),
                value: Some(value),
                shape: vec![found.len()],
                rows: Answer::List(found.into_iter().map(row).collect()),
            });
        }
        if let Some(n) = args.sample {
            let drawn = self.tensor.sample(n, args.seed)?;
            answers.push(Rows {
                question: "sample",
                modes: (0..self.fixed.len()).collect(),
                value: None,
                shape: vec![n, self.fixed.len()],
                rows: Answer::List(drawn.iter().map(|index| (self.whole(index), 1.0)).collect()),
            });
        }
        Ok(answers)
    }

    /// The sums over all modes but these; but those that are known where nothing is said.
    fn marginal(&self, letters: Option<&str>) -> Result<Rows> {
        let letters: String = match letters {
            Some(letters) => letters.into(),
            None => self.free.iter().map(|&mode| self.names.letter(mode)).collect(),
        };
        let mut modes = Vec::new();
        for letter in letters.chars().filter(|c| !c.is_whitespace()) {
            let mode = self.names.mode(&letter.to_string()).ok_or_else(|| {
                Error::Setting(format!(
                    "--marginal {letters}: {letter} is no mode of {}",
                    self.saved.model()
                ))
            })?;
            if self.fixed[mode].is_some() {
                return Err(Error::Setting(format!(
                    "--marginal {letters}: {letter} is known by --given"
                )));
            }
            modes.push(mode);
        }
        let sums = self.tensor.marginal(&letters)?;
        Ok(Rows {
            question: "marginal",
            value: Some(if self.is_conditional() { "probability" } else { "sum" }),
            shape: sums.shape().to_vec(),
            rows: Answer::Array(sums),
            modes,
        })
    }

    /// An index of the tensor's modes with those that are known.
    fn whole(&self, index: &[usize]) -> Vec<usize> {
        let mut own = index.iter();
        self.fixed.iter().map(|i| i.unwrap_or_else(|| own.next().copied().unwrap_or(0))).collect()
    }
}

fn known(names: &ModeNames, fixed: &[Option<usize>]) -> Vec<(char, usize)> {
    let one = |(mode, i): (usize, &Option<usize>)| Some((names.letter(mode), (*i)?));
    fixed.iter().enumerate().filter_map(one).collect()
}

impl Rows {
    /// As a table for people.
    fn show(&self, names: &ModeNames, written: bool) -> String {
        let titles: Vec<String> = self.modes.iter().map(|&mode| names.title(mode)).collect();
        let label = |index: &[usize]| -> Vec<String> {
            self.modes.iter().zip(index).map(|(&mode, &i)| names.label(mode, i)).collect()
        };
        let most = if self.rows.len() > WHOLE { SHOWN } else { WHOLE };
        let shown: Vec<(Vec<String>, f64)> =
            self.rows.iter().take(most).map(|(index, y)| (label(&index), y)).collect();
        let widths: Vec<usize> = (0..titles.len())
            .map(|c| {
                let cells = shown.iter().map(|row| row.0[c].chars().count());
                cells.chain([titles[c].chars().count()]).max().unwrap_or(0)
            })
            .collect();
        let line = |cells: &[String], value: &str| -> String {
            let mut line = String::from(" ");
            for (cell, &width) in cells.iter().zip(&widths) {
                let _ = write!(line, " {cell:<width$}");
            }
            let line = format!("{line}  {value}");
            format!("{}\n", line.trim_end())
        };
        let mut text = format!("{}\n", self.question);
        text += &line(&titles, self.value.unwrap_or(""));
        for (cells, y) in &shown {
            text += &line(cells, &self.value.map_or_else(String::new, |_| number(*y)));
        }
        if self.rows.len() > shown.len() {
            let more = count((self.rows.len() - shown.len()) as u64);
            let hint = if written { "" } else { " (--out writes all)" };
            let _ = writeln!(text, "  … and {more} more{hint}");
        }
        text
    }

    fn json(&self, names: &ModeNames) -> Value {
        let row = |(index, y): (Vec<usize>, f64)| {
            let mut row = serde_json::Map::new();
            for (&mode, i) in self.modes.iter().zip(index) {
                row.insert(names.letter(mode).to_string(), json!(i));
                if names.has_labels(mode) {
                    row.insert(
                        format!("{}_label", names.letter(mode)),
                        json!(names.label(mode, i)),
                    );
                }
            }
            if let Some(value) = self.value {
                row.insert(value.into(), json!(y));
            }
            Value::Object(row)
        };
        Value::Array(self.rows.iter().map(row).collect())
    }

    fn write(&self, file: &AnswerFile, names: &ModeNames) -> Result<()> {
        let columns = Columns { modes: &self.modes, value: self.value, shape: &self.shape };
        // An array of drawn entries holds their indices.
        let indices = self.value.is_none() && file.kind == AnswerKind::Npy;
        file.write(names, &columns, |put| {
            self.rows.iter().try_for_each(|(index, y)| match indices {
                true => index.iter().try_for_each(|&i| put(&index, i as f64)),
                false => put(&index, y),
            })
        })
    }
}
