//! `nneinfact report`, and `--report` of `fit`.

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
use nneinfact_fit::{DataRecord, EntryParameterRecord, History, LossRecord, Saved, SavedTrain};
use nneinfact_insight::report::{Report, Residuals, TrainReport, unknown_mode};

/// The arguments of `report`.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// A fit as `nneinfact fit --out` writes it, an .npz of arrays theta_1 to theta_L of another program,
    /// with --model, or a distribution as `nneinfact density fit` and `density learn` write it
    #[arg(value_name = "FIT.npz")]
    fit: PathBuf,

    /// The data that were fitted [default: the file of the name that the fit knows, if it lies beside the
    /// fit, or beside the folder of a study]
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

    /// The losses, or of a distribution the errors, sweep by sweep of a file that does not hold them, as
    /// --history writes them
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
            let labels = labelled.read()?;
            if let (Some(path), None) = (&labelled.file, labels.indices()) {
                complain(
                    "notice",
                    &format!(
                        "{}: there are no labels in it, so indices are numbers",
                        path.display()
                    ),
                );
            }
            report = report.labels(labelled.mode, labels).map_err(|e| labelled.in_file(e))?;
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
                let text = io::read_text(path, "a file of labels", LONGEST_TEXT)?;
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

    let texts = if SavedTrain::is_in(&args.fit) {
        of_train(args, [page.is_some(), args.plot.is_some()])?
    } else {
        of_fit(args, [page.is_some(), args.plot.is_some()])?
    };
    let mut said = String::new();
    for (path, text) in [&page, &args.plot].into_iter().zip(texts) {
        let (Some(path), Some(text)) = (path, text) else { continue };
        io::write_text(path, &text)?;
        said += &format!("{}: {}\n", path.display(), bytes(text.len() as u64));
    }
    print(&said)
}

/// The page and the figure of a distribution, where they are wanted.
fn of_train(args: &ReportArgs, [page, plot]: [bool; 2]) -> Result<[Option<String>; 2]> {
    let unused = [
        ("--data", args.data.is_some()),
        ("--no-data", args.no_data),
        ("--model", args.model.is_some()),
        ("--labels", !args.appearance.labels.is_empty()),
        ("--upwards", !args.appearance.upwards.is_empty()),
    ];
    for (option, _) in unused.iter().filter(|(_, given)| *given) {
        complain("notice", &format!("{option} has no effect on the report of a distribution"));
    }
    let in_file = |e: Error| Error::format(&args.fit, e.to_string());
    let saved = SavedTrain::load(&args.fit)?;
    let mut report = TrainReport::new(&saved).map_err(in_file)?;
    if let Some(path) = &args.history {
        report = report.history(json_of(path, "the fit of a train")?);
    }
    if let Some(title) = &args.appearance.title {
        report = report.title(title);
    }
    Ok([page.then(|| report.html()), plot.then(|| report.svg())])
}

/// The page and the figure of a fit, where they are wanted.
fn of_fit(args: &ReportArgs, [page, plot]: [bool; 2]) -> Result<[Option<String>; 2]> {
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
        let history: History = json_of(path, "a fit")?;
        if saved.record().loss.is_none() && !history.loss_name.is_empty() {
            saved = saved.with_loss(LossRecord::of(&history.loss_name));
        }
        saved = saved.with_history(history);
    }
    let report = args.appearance.apply(Report::new(&saved))?;
    let report = if page { with_residuals(args, &saved, report)? } else { report };
    Ok([page.then(|| report.html()), plot.then(|| report.svg())])
}

/// No labels and no history are longer, in bytes.
const LONGEST_TEXT: u64 = 256 << 20;

/// Reads a history as `--history` writes it.
fn json_of<T: serde::de::DeserializeOwned>(path: &Path, what: &str) -> Result<T> {
    let text = io::read_text(path, "a history", LONGEST_TEXT)?;
    serde_json::from_str(&text)
        .map_err(|e| Error::format(path, format!("this is no history of {what}: {e}")))
}

/// The report with residuals, where the data are at hand; else with a word on why there are none.
fn with_residuals<'a>(args: &ReportArgs, saved: &Saved, report: Report<'a>) -> Result<Report<'a>> {
    if args.no_data {
        return Ok(report);
    }
    let known = saved.record().data.clone();
    let record = match (&args.data, known) {
        (Some(path), known) => match named(args, path, saved, known.unwrap_or_default())? {
            Ok(record) => record,
            Err(why) => return Ok(without_residuals(report, path, &why)),
        },
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
            let missing = located(&known, &places(args));
            match missing {
                Ok(record) => record,
                Err(path) => {
                    let name = path.display();
                    complain(
                        "notice",
                        &format!(
                            "{name} does not lie beside the fit: no residuals (--data says where it is)"
                        ),
                    );
                    return Ok(report.note(format!(
                        "There are no residuals, because {name} did not lie beside the fit when this page was made."
                    )));
                }
            }
        }
    };
    // Before anything is unpacked.
    if let DataKind::File(_) = DataKind::of(&record)?
        && let Some(found) = io::shape_of(&record.path, record.key.as_deref())?
        && found != saved.record().shape
    {
        let shape = &saved.record().shape;
        let why = format!("the data have the shape {found:?}, and those of the fit had {shape:?}");
        return Ok(without_residuals(report, &record.path, &why));
    }
    let letters: Vec<char> = saved.model().output().iter().map(|&index| index.into()).collect();
    let residuals = || -> Result<Residuals> {
        let loss = loss(saved, &places(args))?;
        let options = ReadOptions { letters: Some(&letters), ..ReadOptions::default() };
        let observations = read_data::observations(&record, options)?;
        // A part of a coupled fit has the labels of the others, too.
        let modes: String = letters.iter().collect();
        let observations = match saved.relabeled(observations.clone(), &modes) {
            Ok((found, told)) => {
                told.iter().for_each(|note| super::complain("notice", note));
                found
            }
            Err(_) => {
                same_labels(saved, &observations)?;
                observations
            }
        };
        Residuals::new(saved, &observations, loss.as_ref())
    };
    match residuals() {
        Ok(residuals) => Ok(report.residuals(residuals)),
        // What goes with the data has another shape.
        Err(error @ Error::Shape { .. }) => {
            Ok(without_residuals(report, &record.path, &error.to_string()))
        }
        Err(error) => Err(error),
    }
}

/// Where the data of `--data` are, with what goes with them; or why that is not all there.
fn named(
    args: &ReportArgs,
    path: &Path,
    saved: &Saved,
    known: DataRecord,
) -> Result<Result<DataRecord, String>> {
    let own = elsewhere(args, path, known, saved)?;
    // What is no ordinary file is read as it is, or is an error then.
    let found = match path.is_file() {
        true => located(&own, &places(args)),
        false => Ok(own),
    };
    let whole = |found| DataRecord { path: path.to_path_buf(), ..found };
    Ok(found.map(whole).map_err(|missing| {
        let missing = missing.display();
        format!("{missing} is needed too, and lies neither beside the data nor beside the fit")
    }))
}

/// The report without residuals, with a word on why.
fn without_residuals<'a>(report: Report<'a>, data: &Path, why: &str) -> Report<'a> {
    complain("notice", &format!("{}: {why}: no residuals", data.display()));
    let name = data.file_name().unwrap_or_default().to_string_lossy();
    report.note(format!("There are no residuals from {name}: {why}."))
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
fn loss(saved: &Saved, places: &[PathBuf]) -> Result<Option<Loss>> {
    match &saved.record().loss {
        None => Ok(None),
        Some(record) => match located_loss(record, places).loss() {
            Ok(loss) => Ok(Some(loss)),
            Err(Error::Loss(_)) => Ok(None),
            Err(e) => Err(e),
        },
    }
}

/// The folders in which files that a fit names are looked for: that of the data which the user names, and
/// that of the fit; of a run of a study also the one that the study's folder lies in. A fit may come from
/// anybody: no other place that it names is opened.
fn places(args: &ReportArgs) -> Vec<PathBuf> {
    let of = |path: &Path| path.parent().map(Path::to_path_buf);
    let mut places: Vec<PathBuf> = args.data.as_deref().and_then(of).into_iter().collect();
    let fit = std::path::absolute(&args.fit).unwrap_or_else(|_| args.fit.clone());
    places.extend(of(&args.fit));
    if let Some(study) = fit.parent().and_then(of)
        && study.join("study.json").is_file()
    {
        places.extend(of(&study));
    }
    places
}

/// The file of this name in one of the places.
fn found_in(path: &Path, places: &[PathBuf]) -> Option<PathBuf> {
    let name = path.file_name()?;
    places.iter().map(|place| place.join(name)).find(|path| read_table::is_there(path))
}

/// A loss with the files of its parameters where they are found; one that is not is not known.
fn located_loss(record: &LossRecord, places: &[PathBuf]) -> LossRecord {
    let found = |parameter: &Option<EntryParameterRecord>| {
        parameter.clone().map(|parameter| match parameter {
            EntryParameterRecord::File(path) => found_in(&path, places)
                .map_or(EntryParameterRecord::Unknown, EntryParameterRecord::File),
            other => other,
        })
    };
    LossRecord {
        dispersion: found(&record.dispersion),
        trials: found(&record.trials),
        ..record.clone()
    }
}

/// The record with its files where they are found. Gives the first that is not.
fn located(record: &DataRecord, places: &[PathBuf]) -> Result<DataRecord, PathBuf> {
    let find = |path: &PathBuf| found_in(path, places).ok_or_else(|| path.clone());
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
