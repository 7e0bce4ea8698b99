//! `nneinfact report`, and `--report` of `fit`.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;

use super::output::{check_writable, same_file};
use super::read_data::{self, ReadOptions};
use super::read_table::{self, DataKind};
use super::table_args::TableArgs;
use super::{complain, print};
use nneinfact_core::data::{Labels, Observations};
use nneinfact_core::error::{Error, Result, bytes};
use nneinfact_core::loss::Loss;
use nneinfact_core::model::Model;
use nneinfact_fit::io::{self, FileKind};
use nneinfact_fit::{DataRecord, History, LossRecord, Saved};
use nneinfact_insight::report::{Report, Residuals, unknown_mode};

/// The arguments of `report`.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// A fit as `nneinfact fit --out` writes it, or an .npz of arrays theta_1 to theta_L of another
    /// program, with --model
    #[arg(value_name = "FIT.npz")]
    fit: PathBuf,

    /// The data that were fitted [default: the file that the fit names, if it is still there]
    #[arg(long, value_name = "DATA", conflicts_with = "no_data")]
    data: Option<PathBuf>,

    /// The array to read from an .npz with --data
    #[arg(long, value_name = "NAME", requires = "data")]
    key: Option<String>,

    #[command(flatten)]
    table: TableArgs,

    /// Do not read the data: no residuals
    #[arg(long)]
    no_data: bool,

    #[command(flatten)]
    appearance: AppearanceArgs,

    /// Where to write the page [default: beside the fit, with the extension .html, unless --plot is
    /// given]
    #[arg(long, value_name = "REPORT.html")]
    out: Option<PathBuf>,

    /// Where to write a figure of the losses and the components
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,

    /// The model of a file that does not say it
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,

    /// The losses sweep by sweep of a file that does not hold them, as `fit --history` writes them
    #[arg(long, value_name = "HISTORY.json")]
    history: Option<PathBuf>,
}

/// How a report looks.
#[derive(Clone, Debug, Default, Args)]
#[group(skip)]
pub struct AppearanceArgs {
    /// Names for the indices of a mode, one on each line, as in h=hours.txt; a first line `# Hour`
    /// names the mode, and so does h:Hour=hours.txt, or h:Hour without a file. Once for each mode
    #[arg(long, value_name = "MODE[:NAME]=FILE", value_parser = labelled)]
    labels: Vec<Labelled>,

    /// Draw a mode with its first index at the bottom in heat maps, as latitudes
    #[arg(long, value_name = "MODE", value_delimiter = ',')]
    upwards: Vec<char>,

    /// What stands above the page [default: the model]
    #[arg(long, value_name = "TEXT")]
    title: Option<String>,
}

/// A value of `--labels`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Labelled {
    mode: char,
    name: Option<String>,
    file: Option<PathBuf>,
}

fn labelled(text: &str) -> Result<Labelled, String> {
    let expected = "a mode and a file are expected, as in h=hours.txt or h:Hour=hours.txt";
    let (what, file) = match text.split_once('=') {
        Some((_, "")) => return Err(expected.into()),
        Some((what, file)) => (what, Some(file.into())),
        None => (text, None),
    };
    let (mode, name) = match what.split_once(':') {
        Some((mode, name)) => (mode, Some(name.trim().to_string()).filter(|n| !n.is_empty())),
        None => (what, None),
    };
    let mut letters = mode.trim().chars();
    match (letters.next(), letters.next()) {
        (Some(mode), None) if file.is_some() || name.is_some() => Ok(Labelled { mode, name, file }),
        (Some(_), Some(_)) => Err(format!("`{}` is not one letter: {expected}", mode.trim())),
        _ => Err(expected.into()),
    }
}

impl AppearanceArgs {
    /// Whether anything was said.
    pub fn any(&self) -> bool {
        !self.labels.is_empty() || !self.upwards.is_empty() || self.title.is_some()
    }

    /// The files that are read.
    pub fn inputs(&self) -> impl Iterator<Item = &Path> {
        self.labels.iter().filter_map(|l| l.file.as_deref())
    }

    /// Refuses two `--labels` for one mode, of which one would be lost.
    fn once(&self) -> Result<()> {
        for (i, labelled) in self.labels.iter().enumerate() {
            if self.labels[..i].iter().any(|other| other.mode == labelled.mode) {
                let mode = labelled.mode;
                return Err(Error::Setting(format!(
                    "--labels is given twice for the mode {mode}: once is expected, with a name and \
                     a file in one as in {mode}:Name=FILE"
                )));
            }
        }
        Ok(())
    }

    /// Refuses, before a long fit, what [`AppearanceArgs::apply`] would refuse.
    pub fn check(&self, model: &Model, shape: &[usize]) -> Result<()> {
        self.once()?;
        let modes = || model.output().iter().map(|&x| char::from(x)).zip(shape);
        for labelled in &self.labels {
            let labels = labelled.read()?;
            if let Some((_, &size)) = modes().find(|(mode, _)| *mode == labelled.mode) {
                labels.check(labelled.mode, size).map_err(|e| labelled.in_file(e))?;
            }
        }
        let named = self.labels.iter().map(|l| l.mode).chain(self.upwards.iter().copied());
        for mode in named {
            if !modes().any(|(x, _)| x == mode) {
                return Err(unknown_mode(model, mode));
            }
        }
        Ok(())
    }

    /// Puts them into a report; reads the files of labels.
    pub fn apply<'a>(&self, mut report: Report<'a>) -> Result<Report<'a>> {
        self.once()?;
        for labelled in &self.labels {
            report =
                report.labels(labelled.mode, labelled.read()?).map_err(|e| labelled.in_file(e))?;
        }
        for &mode in &self.upwards {
            report = report.upwards(mode)?;
        }
        if let Some(title) = &self.title {
            report = report.title(title);
        }
        Ok(report)
    }
}

impl Labelled {
    fn read(&self) -> Result<Labels> {
        let mut labels = match &self.file {
            None => Labels::default(),
            Some(path) => {
                let text = fs::read(path).map_err(|e| Error::file(path, e))?;
                let text = String::from_utf8(text).map_err(|_| {
                    Error::format(path, "labels are read as UTF-8, which this is not")
                })?;
                Labels::parse(&text)
            }
        };
        if let Some(name) = &self.name {
            labels = labels.with_name(name);
        }
        Ok(labels)
    }

    fn in_file(&self, error: Error) -> Error {
        match &self.file {
            Some(path) => Error::format(path, error.to_string()),
            None => error,
        }
    }
}

/// Reads a fit, and makes a page or a figure of it.
pub fn run(args: &ReportArgs) -> Result<()> {
    let page = match (&args.out, &args.plot) {
        (Some(path), _) => Some(path.clone()),
        (None, Some(_)) => None,
        (None, None) => Some(args.fit.with_extension("html")),
    };
    let mut inputs = vec![args.fit.as_path()];
    inputs.extend(args.data.as_deref().into_iter().chain(args.history.as_deref()));
    inputs.extend(args.appearance.inputs());
    for (option, path) in [("--out", &page), ("--plot", &args.plot)] {
        let Some(path) = path else { continue };
        check_writable(option, path)?;
        if let Some(input) = inputs.iter().find(|input| same_file(input, path)) {
            return Err(Error::Setting(format!(
                "{option} {} would replace {}, which is read: choose another name",
                path.display(),
                input.display()
            )));
        }
    }
    if let (Some(page), Some(plot)) = (&page, &args.plot)
        && page == plot
    {
        return Err(Error::Setting(format!(
            "--out and --plot are the same file, {}",
            page.display()
        )));
    }

    let mut saved = match &args.model {
        Some(model) => Saved::load_as(&args.fit, model)?,
        None => Saved::load(&args.fit).map_err(|e| match e {
            Error::Format { path, reason } if reason.contains("name the model") => {
                Error::Format { path, reason: format!("{reason}, with --model") }
            }
            e => e,
        })?,
    };
    if let Some(path) = &args.history {
        let history = history(path)?;
        if saved.record().loss.is_none() && !history.loss_name.is_empty() {
            saved = saved.with_loss(LossRecord::of(&history.loss_name));
        }
        saved = saved.with_history(history);
    }
    let report = args.appearance.apply(Report::new(&saved))?;
    let report = match page {
        None => report,
        Some(_) => with_residuals(args, &saved, report)?,
    };
    let mut said = String::new();
    for (path, plot) in [(&page, false), (&args.plot, true)] {
        let Some(path) = path else { continue };
        let text = if plot { report.svg() } else { report.html() };
        io::write_text(path, &text)?;
        said += &format!("{}: {}\n", path.display(), bytes(text.len() as u64));
    }
    print(&said)
}

/// Reads a history as `fit --history` writes it.
fn history(path: &Path) -> Result<History> {
    let text = fs::read_to_string(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::InvalidData => {
            Error::format(path, "a history is read as JSON in UTF-8, which this is not")
        }
        _ => Error::file(path, e),
    })?;
    serde_json::from_str(&text)
        .map_err(|e| Error::format(path, format!("this is no history of a fit: {e}")))
}

/// The report with residuals, where the data are at hand; else with a word on why there are none.
fn with_residuals<'a>(args: &ReportArgs, saved: &Saved, report: Report<'a>) -> Result<Report<'a>> {
    if args.no_data {
        return Ok(report);
    }
    let known = saved.record().data.clone();
    let record = match (&args.data, known) {
        (Some(path), known) => elsewhere(args, path, known.unwrap_or_default(), saved)?,
        (None, Some(known)) if read_table::is_standard_input(&known.path) => {
            return Ok(report.note(
                "There are no residuals, because the data came on standard input. Give --data to see \
                 them.",
            ));
        }
        // A study in a program knows its splits, and no file.
        (None, known) if known.as_ref().is_none_or(|k| k.path.as_os_str().is_empty()) => {
            return Ok(report.note(
                "There are no residuals, because the fit does not say where its data are. Give \
                 --data to see them.",
            ));
        }
        (None, known) => {
            let known = known.unwrap_or_default();
            let missing = located(&known, &args.fit);
            match missing {
                Ok(record) => record,
                Err(path) => {
                    let name = path.display();
                    complain(
                        "notice",
                        &format!(
                            "{name} is not there any more: no residuals (--data says where it is)"
                        ),
                    );
                    return Ok(report.note(format!(
                        "There are no residuals, because {name} was not there when this page was made."
                    )));
                }
            }
        }
    };
    let loss = loss(saved)?;
    let letters: Vec<char> = saved.model().output().iter().map(|&index| index.into()).collect();
    let options = ReadOptions { letters: Some(&letters), ..ReadOptions::default() };
    let observations = read_data::observations(&record, options)?;
    same_labels(saved, &observations)?;
    Ok(report.residuals(Residuals::new(saved, &observations, loss.as_ref())?))
}

/// The record of the data in another file than the fit names.
fn elsewhere(
    args: &ReportArgs,
    path: &Path,
    known: DataRecord,
    saved: &Saved,
) -> Result<DataRecord> {
    let mut record = DataRecord { path: path.into(), key: None, shape: None, ..known.clone() };
    if args.table.any().is_some() {
        record = args.table.apply(record)?;
    }
    match DataKind::of(&record)? {
        // That of another file has to be said again.
        DataKind::File(FileKind::Npz) => record.key = args.key.clone().or(known.key),
        DataKind::File(FileKind::Tns) | DataKind::PackedTns => {
            record.shape = Some(saved.record().shape.clone());
        }
        DataKind::Table => return Ok(record),
        DataKind::File(FileKind::Npy) | DataKind::MatrixMarket | DataKind::TenX => {}
    }
    // An array takes the place of a table.
    if args.table.any().is_none() {
        (record.table, record.unlisted_zero) = (None, false);
    }
    Ok(record)
}

/// Refuses data whose labels are not those of the fit: a table that has changed since, say, whose
/// entries would be compared with predictions of others.
fn same_labels(saved: &Saved, observations: &Observations) -> Result<()> {
    let modes = saved.model().output().iter().zip(saved.all_labels().iter());
    for ((&letter, fitted), found) in modes.zip(observations.labels()) {
        let (Some(a), Some(b)) = (fitted.indices(), found.indices()) else { continue };
        if a == b {
            continue;
        }
        let at = a.iter().zip(b).position(|(a, b)| a != b).unwrap_or(a.len().min(b.len()));
        let shown = |labels: &Labels| match at < labels.indices().map_or(0, <[String]>::len) {
            true => format!("'{}'", labels.describe(at)),
            false => "nothing".into(),
        };
        return Err(Error::Setting(format!(
            "these are not the data that were fitted: along {letter} the fit has {} labels and the \
             data {}, and where the fit has {} they have {}",
            a.len(),
            b.len(),
            shown(fitted),
            shown(found)
        )));
    }
    Ok(())
}

/// The loss, where it can be made again; that of factors from elsewhere is not known.
fn loss(saved: &Saved) -> Result<Option<Loss>> {
    match &saved.record().loss {
        None => Ok(None),
        Some(record) => match record.loss() {
            Ok(loss) => Ok(Some(loss)),
            Err(Error::Loss(_)) => Ok(None),
            Err(e) => Err(e),
        },
    }
}

/// The record with files as they are found now: where they were, or beside the fit. Gives the first
/// that is nowhere.
fn located(record: &DataRecord, fit: &Path) -> Result<DataRecord, PathBuf> {
    let find = |path: &PathBuf| -> Result<PathBuf, PathBuf> {
        let beside = path.file_name().map(|name| fit.with_file_name(name));
        std::iter::once(path.clone())
            .chain(beside)
            .find(read_table::is_there)
            .ok_or_else(|| path.clone())
    };
    let optional = |path: &Option<PathBuf>| path.as_ref().map(find).transpose();
    let table = record.table.clone().map(|mut table| -> Result<_, PathBuf> {
        for (_, path) in &mut table.orders {
            *path = find(path)?;
        }
        Ok(table)
    });
    Ok(DataRecord {
        table: table.transpose()?,
        row_names: optional(&record.row_names)?,
        column_names: optional(&record.column_names)?,
        path: find(&record.path)?,
        mask: optional(&record.mask)?,
        weights: optional(&record.weights)?,
        missing: optional(&record.missing)?,
        heldout_mask: optional(&record.heldout_mask)?,
        heldout_coordinates: optional(&record.heldout_coordinates)?,
        validation_coordinates: optional(&record.validation_coordinates)?,
        ..record.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_modes() {
        let of = |mode, name: Option<&str>, file: Option<&str>| {
            Ok(Labelled { mode, name: name.map(Into::into), file: file.map(Into::into) })
        };
        assert_eq!(labelled("h=hours.txt"), of('h', None, Some("hours.txt")));
        assert_eq!(labelled("h:Hour=a=b.txt"), of('h', Some("Hour"), Some("a=b.txt")));
        assert_eq!(labelled("h:Hour of day"), of('h', Some("Hour of day"), None));
        for bad in ["", "h", "h=", "hh=x", "=x", "h:", ":Hour=x"] {
            assert!(labelled(bad).is_err(), "{bad}");
        }
    }
}
