//! A fit as a file holds it.

use std::fs::File;
use std::io::{BufReader, Read, Seek, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use ndarray::{ArrayD, Axis};

use crate::builder::NNEinFact;
use crate::factored::FactoredTensor;
use crate::factors::{WEIGHTS, factor_name};
use crate::io::{self, FileKind, NpzMember};
use crate::record::{DataRecord, LossRecord, ModeRecord, Record};
use crate::result::{Fit, labels_of, modes};
use nneinfact_core::data::{Labels, check_labels};
use nneinfact_core::error::{Error, Result};
use nneinfact_core::history::History;
use nneinfact_core::model::{Index, Model, Shapes};

/// A fit as a file holds it: the factors, and what is known of where they come from.
///
/// The file is an `.npz` of the arrays `theta_1`, `theta_2`, …, in the model's order, `weights`
/// beside [normalised](Fit::normalize) ones, all as `<f8` in C order; for modes whose labels are
/// known, arrays of texts `labels_w`, `labels_h`, … by their letters; and the member `fit.json`, a
/// [`Record`].
///
/// ```
/// use ndarray::array;
/// use nneinfact::NNEinFact;
/// use nneinfact::fit::Saved;
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("fit.npz");
/// let y = array![[4.0, 2.0, 8.0], [2.0, 1.0, 4.0]];
/// let fit = NNEinFact::new("ir,jr->ij")?.ranks([('r', 1)]).fit(&y)?;
/// fit.save(&path)?;
///
/// let saved = Saved::load(&path)?;
/// assert_eq!(saved.model().text(), "ir,jr->ij");
/// assert_eq!(saved.factors(), fit.factors());
/// assert_eq!(saved.record().loss.as_ref().map(|l| l.name.as_str()), Some("kl"));
/// assert_eq!(saved.record().history.as_ref().map(|h| h.iterations), Some(fit.history().iterations));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Saved {
    tensor: FactoredTensor,
    record: Record,
    /// Those of each mode of the data, or none.
    labels: Arc<[Labels]>,
}

/// With nothing known of a fit.
impl From<FactoredTensor> for Saved {
    fn from(tensor: FactoredTensor) -> Saved {
        let record = Record::of(tensor.shapes());
        Saved { tensor, record, labels: Arc::new([]) }
    }
}

impl AsRef<FactoredTensor> for Saved {
    fn as_ref(&self) -> &FactoredTensor {
        &self.tensor
    }
}

impl Fit {
    /// Writes the factors, with what is known of the fit, to an `.npz` that [`Saved::load`] reads.
    ///
    /// # Errors
    /// [`Error::File`] where the file cannot be written; what stood there before is then still there.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        Saved::new(self).save(path)
    }
}

/// Factors in the model's order, and weights where there are any.
type Arrays = (Vec<ArrayD<f64>>, Option<ArrayD<f64>>);

impl Saved {
    /// What [`Fit::save`] writes.
    #[must_use]
    pub fn new(fit: &Fit) -> Saved {
        let record = Record {
            program: concat!("nneinfact ", env!("CARGO_PKG_VERSION")).into(),
            date: Some(humantime::format_rfc3339_seconds(SystemTime::now()).to_string()),
            loss: Some(LossRecord::of(&fit.history().loss_name)),
            history: Some(fit.history().clone()),
            structure: fit.structure().to_vec(),
            modes: fit.all_labels().iter().map(ModeRecord::of).collect(),
            ..Record::of(fit.shapes())
        };
        Saved { tensor: fit.factored().clone(), record, labels: Arc::clone(fit.all_labels()) }
    }

    /// Factors of a model that come from elsewhere, with nothing known of their fit.
    ///
    /// # Errors
    /// [`Error::Model`] where the string is no model. [`Error::Init`] where the factors do not have the
    /// letters of the model, letters have different sizes, or an entry is negative or not finite.
    pub fn from_factors(model: &str, factors: Vec<ArrayD<f64>>) -> Result<Saved> {
        let model = Model::parse(model)?;
        Saved::assemble(model, factors, None)
    }

    /// Reads a file that [`Fit::save`] or `nneinfact fit --out` wrote.
    ///
    /// # Errors
    /// [`Error::File`] where it cannot be read; [`Error::Format`] where it does not hold what it should,
    /// also where it was written without `fit.json`: [`Saved::load_as`] reads such files.
    pub fn load(path: impl AsRef<Path>) -> Result<Saved> {
        let path = path.as_ref();
        Saved::read_from(opened(path)?, path)
    }

    /// [`load`](Self::load) from memory or any other source; `name` stands for the file in messages.
    ///
    /// ```
    /// use std::io::Cursor;
    /// use nneinfact::fit::Saved;
    ///
    /// let theta = ndarray::arr2(&[[1.0, 2.0], [3.0, 4.0]]).into_dyn();
    /// let saved = Saved::from_factors("ir,jr->ij", vec![theta.clone(), theta])?;
    /// let mut bytes = Cursor::new(Vec::new());
    /// saved.write_to(&mut bytes)?;
    /// assert_eq!(Saved::read_from(&mut bytes, "memory")?.factors(), saved.factors());
    /// # Ok::<(), nneinfact::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn read_from(mut from: impl Read + Seek, name: impl AsRef<Path>) -> Result<Saved> {
        let path = name.as_ref();
        match Saved::record_in(&mut from, path)? {
            Some(record) => Saved::with_record(from, path, record),
            None => Err(Error::format(
                path,
                format!(
                    "there is no {} that says of which model these are the factors: name the model",
                    Record::NAME
                ),
            )),
        }
    }

    /// Reads the factors of a model from a file, whoever wrote it: arrays `theta_1`, `theta_2`, … in
    /// the model's order.
    ///
    /// # Errors
    /// As [`Saved::load`], and [`Error::Model`] where the string is no model; [`Error::Format`] also
    /// where the file says that it holds factors of another model.
    pub fn load_as(path: impl AsRef<Path>, model: &str) -> Result<Saved> {
        let path = path.as_ref();
        let model = Model::parse(model)?;
        let mut from = opened(path)?;
        let Some(record) = Saved::record_in(&mut from, path)? else {
            let (factors, weights) = Saved::arrays(&mut from, path, &model)?;
            let saved = Saved::assemble(model, factors, weights).map_err(|e| in_file(path, &e))?;
            return saved.with_labels_of(from, path);
        };
        if Model::parse(&record.model)?.factors() != model.factors()
            || Model::parse(&record.model)?.output() != model.output()
        {
            return Err(Error::format(
                path,
                format!("these are the factors of {}, not of {model}", record.model),
            ));
        }
        Saved::with_record(from, path, record)
    }

    fn record_in(from: impl Read + Seek, path: &Path) -> Result<Option<Record>> {
        let Some(text) = io::read_npz_text_from(from, path, Record::NAME)? else {
            return Ok(None);
        };
        let wrong = |why: String| Error::format(path, format!("{}: {why}", Record::NAME));
        let value: serde_json::Value =
            serde_json::from_str(&text).map_err(|e| wrong(e.to_string()))?;
        let format = value.get("format").and_then(serde_json::Value::as_u64);
        if format != Some(Record::FORMAT.into()) {
            let found = format.map_or("no form".into(), |n| format!("form {n}"));
            return Err(wrong(format!(
                "it has {found}, but this version reads form {} only",
                Record::FORMAT
            )));
        }
        serde_json::from_value(value).map(Some).map_err(|e| wrong(e.to_string()))
    }

    fn with_record(mut from: impl Read + Seek, path: &Path, record: Record) -> Result<Saved> {
        let model = Model::parse(&record.model)
            .map_err(|e| Error::format(path, format!("{}: {e}", Record::NAME)))?;
        let (factors, weights) = Saved::arrays(&mut from, path, &model)?;
        let saved = Saved::assemble(model, factors, weights).map_err(|e| in_file(path, &e))?;
        if (&record.shape, &record.ranks) != (&saved.record.shape, &saved.record.ranks) {
            return Err(Error::format(
                path,
                format!(
                    "{} says shape {:?} and ranks {:?}, but the factors have shape {:?} and ranks {:?}",
                    Record::NAME,
                    record.shape,
                    record.ranks,
                    saved.record.shape,
                    saved.record.ranks
                ),
            ));
        }
        Saved { record, ..saved }.with_labels_of(from, path)
    }

    /// With the labels that the file holds beside the factors.
    fn with_labels_of(self, mut from: impl Read + Seek, path: &Path) -> Result<Saved> {
        let letters = self.model().output().iter().map(|&index| char::from(index));
        let known = &self.record.modes;
        if !known.is_empty() && known.len() != letters.len() {
            return Err(Error::format(
                path,
                format!(
                    "{} names {} modes, but the model {} has {}",
                    Record::NAME,
                    known.len(),
                    self.model(),
                    letters.len()
                ),
            ));
        }
        let nothing = ModeRecord::default();
        let labels: Vec<Labels> = letters
            .enumerate()
            .map(|(mode, letter)| {
                let indices = io::read_npz_strings_from(&mut from, path, &labels_name(letter))?;
                Ok(known.get(mode).unwrap_or(&nothing).labels(indices))
            })
            .collect::<Result<_>>()?;
        match labels.iter().all(Labels::is_empty) {
            true => Ok(self),
            false => self.with_labels(labels).map_err(|e| in_file(path, &e)),
        }
    }

    /// The arrays of a file: factors, weights.
    fn arrays(from: impl Read + Seek, path: &Path, model: &Model) -> Result<Arrays> {
        let mut arrays = io::read_npz_arrays_from(from, path)?;
        let found: Vec<String> = arrays.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        let mut take = |name: &str| {
            let at = arrays.iter().position(|(n, _)| n == name)?;
            Some(arrays.swap_remove(at).1)
        };
        let count = model.factors().len();
        let mut factors = Vec::with_capacity(count);
        for l in 0..count {
            factors.push(take(&factor_name(l)).ok_or_else(|| {
                Error::format(
                    path,
                    format!(
                        "the model {model} has {count} factors, but there is no array {}; found {}",
                        factor_name(l),
                        found.join(", ")
                    ),
                )
            })?);
        }
        if let Some((extra, _)) = arrays.iter().find(|(name, _)| name.starts_with("theta_")) {
            return Err(Error::format(
                path,
                format!("the model {model} has {count} factors, but there is an array {extra} too"),
            ));
        }
        let at = arrays.iter().position(|(name, _)| name == WEIGHTS);
        Ok((factors, at.map(|at| arrays.swap_remove(at).1)))
    }

    fn assemble(
        model: Model,
        factors: Vec<ArrayD<f64>>,
        weights: Option<ArrayD<f64>>,
    ) -> Result<Saved> {
        FactoredTensor::assemble(model, factors, weights).map(Saved::from)
    }

    /// Writes it to an `.npz`.
    ///
    /// # Errors
    /// [`Error::File`] where the file cannot be written; what stood there before is then still there.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let text = self.text(path)?;
        io::write_members(path, &self.members(&text))
    }

    /// What [`save`](Self::save) writes, into memory or anything else that is not a file by name.
    ///
    /// # Errors
    /// [`Error::File`] where it cannot be written.
    pub fn write_to(&self, to: impl Write + Seek) -> Result<()> {
        let name = Path::new("the fit that is written");
        let text = self.text(name)?;
        io::write_members_to(to, name, &self.members(&text))
    }

    /// What the file holds; the text is that of the record.
    fn members<'a>(&'a self, text: &'a str) -> Vec<(String, NpzMember<'a>)> {
        let mut members: Vec<(String, NpzMember<'a>)> = Vec::new();
        for (l, factor) in self.factors().iter().enumerate() {
            members.push((factor_name(l), NpzMember::Numbers(factor.view())));
        }
        if let Some(weights) = self.weights() {
            let view = weights.view();
            // Readers pass over single numbers.
            let view = if view.ndim() == 0 { view.insert_axis(Axis(0)) } else { view };
            members.push((WEIGHTS.into(), NpzMember::Numbers(view)));
        }
        for (&index, labels) in self.model().output().iter().zip(self.labels.iter()) {
            if let Some(indices) = labels.indices() {
                members.push((labels_name(index.into()), NpzMember::Texts(indices)));
            }
        }
        members.push((Record::NAME.into(), NpzMember::Text(text)));
        members
    }

    fn text(&self, path: &Path) -> Result<String> {
        let text = serde_json::to_string_pretty(&self.record);
        text.map(|text| text + "\n").map_err(|e| Error::file(path, std::io::Error::other(e)))
    }

    /// The fit again, with what only a [`Fit`] can do: [`Fit::normalize`] and the like, or
    /// [`NNEinFact::transform`] to other data. Its plan is made anew, for dense data, and its history
    /// has no elements where the file holds none.
    ///
    /// ```
    /// use ndarray::Array2;
    /// use nneinfact::NNEinFact;
    /// use nneinfact::fit::Saved;
    ///
    /// let folder = tempfile::tempdir()?;
    /// let path = folder.path().join("fit.npz");
    /// let y = Array2::from_shape_fn((6, 8), |(i, j)| ((i + 1) * (j % 4 + 1)) as f64);
    /// NNEinFact::new("ir,jr->ij")?.ranks([('r', 1)]).fit(&y)?.save(&path)?;
    ///
    /// // Another day, two more columns of the same kind.
    /// let more = Array2::from_shape_fn((6, 2), |(i, j)| ((i + 1) * (j + 7)) as f64);
    /// let fit = Saved::load(&path)?.to_fit()?;
    /// let more = NNEinFact::new("ir,jr->ij")?.transform(&fit, "j")?.fit(&more)?;
    /// assert_eq!(more.factors()[0], fit.factors()[0]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`NNEinFact::plan`].
    pub fn to_fit(&self) -> Result<Fit> {
        let ranks = self.record.ranks.iter().map(|(&letter, &rank)| (letter, rank));
        // Nothing of the plan is carried out, so that nothing is to be refused for its size.
        let planned = NNEinFact::of(self.model().clone()).ranks(ranks).memory_limit(u64::MAX / 2);
        let plan = planned.plan(&self.shapes().data(), 8)?;
        let history = self.record.history.clone().unwrap_or_else(|| {
            let name = self.record.loss.as_ref().map(LossRecord::describe).unwrap_or_default();
            History { loss_name: name, ..planned.settings.empty_history() }
        });
        let mut fit = Fit::new(Arc::new(plan), Vec::new(), history);
        fit.tensor = self.tensor.clone();
        fit.with_labels(Arc::clone(&self.labels))
    }

    /// The same fit with its components in another form, as [`Fit::normalize`] gives it: the rest of
    /// the record stays.
    ///
    /// # Errors
    /// Those of [`to_fit`](Self::to_fit) and of `change`.
    pub fn with_components(&self, change: impl FnOnce(Fit) -> Result<Fit>) -> Result<Saved> {
        let fit = change(self.to_fit()?)?;
        let Record { model, shape, ranks, .. } = Record::of(fit.shapes());
        let record = Record { model, shape, ranks, ..self.record.clone() };
        let labels = Arc::clone(&self.labels);
        Ok(Saved { tensor: fit.tensor, record, labels })
    }

    /// The same with a loss of which more is known.
    #[must_use]
    pub fn with_loss(mut self, loss: LossRecord) -> Saved {
        self.record.loss = Some(loss);
        self
    }

    /// The same with another history.
    #[must_use]
    pub fn with_history(mut self, history: History) -> Saved {
        self.record.history = Some(history);
        self
    }

    /// The same with the place of its data.
    #[must_use]
    pub fn with_data(mut self, data: DataRecord) -> Saved {
        self.record.data = Some(data);
        self
    }

    /// The same with [`Labels`] for each mode of the data, in their order.
    ///
    /// # Errors
    /// As [`Fit::with_labels`].
    pub fn with_labels(mut self, labels: impl Into<Arc<[Labels]>>) -> Result<Saved> {
        let labels = labels.into();
        check_labels(&labels, modes(self.tensor.shapes()))?;
        self.record.modes = labels.iter().map(ModeRecord::of).collect();
        self.labels = labels;
        Ok(self)
    }

    /// As [`Fit::labels`].
    #[must_use]
    pub fn labels(&self, letter: char) -> Option<&Labels> {
        labels_of(&self.labels, self.tensor.shapes(), letter)
    }

    /// As [`Fit::all_labels`].
    #[must_use]
    pub fn all_labels(&self) -> &Arc<[Labels]> {
        &self.labels
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &Model {
        self.tensor.model()
    }

    /// The model with its sizes.
    #[must_use]
    pub fn shapes(&self) -> &Shapes {
        self.tensor.shapes()
    }

    /// The factors, in the model's order; the axes of each are its indices.
    #[must_use]
    pub fn factors(&self) -> &[ArrayD<f64>] {
        self.tensor.factors()
    }

    /// As [`Fit::weights`].
    #[must_use]
    pub fn weights(&self) -> Option<&ArrayD<f64>> {
        self.tensor.weights()
    }

    /// What is known of the fit.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// As [`FactoredTensor::totals`].
    #[must_use]
    pub fn totals(&self, indices: &[Index]) -> Vec<f64> {
        self.tensor.totals(indices)
    }

    /// The model with its factors, which answers what can be asked of ŷ.
    #[must_use]
    pub fn factored(&self) -> &FactoredTensor {
        &self.tensor
    }
}

/// What the labels of a mode are called in an `.npz`.
fn labels_name(letter: char) -> String {
    format!("labels_{letter}")
}

/// Opens the file of a fit.
fn opened(path: &Path) -> Result<BufReader<File>> {
    if FileKind::of(path)? != FileKind::Npz {
        return Err(Error::format(path, "a fit is read from a .npz file"));
    }
    Ok(BufReader::with_capacity(1 << 16, io::open(path)?))
}

fn in_file(path: &Path, error: &Error) -> Error {
    Error::format(path, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_change_and_the_record_stays() {
        let y = ndarray::Array2::from_shape_fn((6, 5), |(i, j)| ((i + 1) * (j % 3 + 1)) as f64);
        let fit = NNEinFact::new("ir,jr->ij").unwrap().ranks([('r', 2)]).max_iter(5).fit(&y);
        let data = DataRecord { path: "y.npy".into(), ..DataRecord::default() };
        let saved = Saved::new(&fit.unwrap()).with_data(data);
        let into = crate::ScalesInto::Weights;
        let unit = saved.with_components(|f| f.normalize(crate::Norm::L1, into)).unwrap();
        assert_eq!(unit.record(), saved.record());
        assert!((unit.factors()[0].sum() - 2.0).abs() < 1e-12);
        let mean = |saved: &Saved| saved.totals(&[])[0];
        assert!((mean(&unit) / mean(&saved) - 1.0).abs() < 1e-12);
        // There and back through memory, and a second change of what has weights.
        let mut bytes = std::io::Cursor::new(Vec::new());
        unit.write_to(&mut bytes).unwrap();
        let again = Saved::read_from(&mut bytes, "memory").unwrap();
        assert_eq!(again.weights(), unit.weights());
        assert_eq!(again.record(), unit.record());
        let sorted = again.with_components(|f| Ok(f.sorted())).unwrap();
        assert!((mean(&sorted) / mean(&saved) - 1.0).abs() < 1e-12);
        // Of factors from elsewhere nothing is claimed.
        let bare = Saved::from_factors("ir,jr->ij", saved.factors().to_vec()).unwrap();
        assert!(bare.to_fit().unwrap().history().loss.is_empty());
        assert_eq!(bare.with_components(|f| Ok(f.sorted())).unwrap().record().loss, None);
        // Cut anywhere, bytes are an error and nothing worse.
        let whole = bytes.into_inner();
        for end in (0..whole.len()).step_by(7) {
            assert!(Saved::read_from(std::io::Cursor::new(&whole[..end]), "cut").is_err());
        }
    }

    #[test]
    fn files_of_earlier_versions_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("old.npz");
        std::fs::write(&path, include_bytes!("io/fixtures/texts_aside.npz")).unwrap();
        let saved = Saved::load(&path).unwrap();
        assert_eq!(saved.model().text(), "ir,jr->ij");
        assert_eq!(saved.shapes().data(), [3, 4]);
        assert_eq!(saved.record().loss.as_ref().map(|l| l.name.as_str()), Some("kl"));
        // Written anew, it is the same.
        let anew = folder.path().join("new.npz");
        saved.save(&anew).unwrap();
        let again = Saved::load(&anew).unwrap();
        assert_eq!(again.factors(), saved.factors());
        assert_eq!(again.record(), saved.record());
    }
}
