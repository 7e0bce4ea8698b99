//! What a report is made of: the fit, its labels, its residuals.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::labels::{ModeAxis, Names};
use super::residuals::Residuals;
use nneinfact_core::data::{LabelKind, Labels};
use nneinfact_core::error::{Error, Result};
use nneinfact_core::model::{Index, Model};
use nneinfact_fit::Saved;

/// A fit to be looked at.
///
/// ```
/// use ndarray::array;
/// use nneinfact::fit::Saved;
/// use nneinfact::report::{Labels, Report, Residuals};
/// use nneinfact::{Loss, NNEinFact, Observations};
///
/// let y = array![[4.0, 2.0, 8.0], [2.0, 1.0, 4.0]];
/// let observations = Observations::new(&y);
/// let fit = NNEinFact::new("ir,jr->ij")?.ranks([('r', 1)]).fit(&observations)?;
/// let saved = Saved::new(&fit);
///
/// let report = Report::new(&saved)
///     .title("Two rows")
///     .labels('j', Labels::parse("# Fruit\napple\nbanana\ncherry\n"))?
///     .residuals(Residuals::new(&saved, &observations, Some(&Loss::kl()))?);
/// let page = report.html();
/// assert!(page.contains("banana") && page.contains("Two rows"));
/// assert!(report.svg().starts_with("<svg"));
/// # Ok::<(), nneinfact::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Report<'a> {
    pub(super) saved: &'a Saved,
    pub(super) title: Option<String>,
    pub(super) labels: BTreeMap<Index, Labels>,
    pub(super) upwards: Vec<Index>,
    pub(super) residuals: Option<Residuals>,
    pub(super) notes: Vec<String>,
}

impl<'a> Report<'a> {
    /// A report of what the file of a fit holds.
    #[must_use]
    pub fn new(saved: &'a Saved) -> Report<'a> {
        Report {
            saved,
            title: None,
            labels: BTreeMap::new(),
            upwards: Vec::new(),
            residuals: None,
            notes: Vec::new(),
        }
    }

    /// What stands above it; the model string where nothing does.
    #[must_use]
    pub fn title(mut self, title: impl Into<String>) -> Self {
        self.title = Some(title.into());
        self
    }

    /// Names for a mode of the data and for its indices, in place of those that were given before.
    /// What these do not say is as the fit knows it.
    ///
    /// # Errors
    /// [`Error::Setting`] where the model has no such mode, or the number of labels is not that of its
    /// indices.
    pub fn labels(mut self, mode: char, labels: Labels) -> Result<Self> {
        let (index, size) = self.mode(mode)?;
        labels.check(mode, size)?;
        self.labels.insert(index, labels);
        Ok(self)
    }

    /// Draws a mode with its first index at the bottom where it runs along a vertical axis, as
    /// latitudes do.
    ///
    /// # Errors
    /// [`Error::Setting`] where the model has no such mode.
    pub fn upwards(mut self, mode: char) -> Result<Self> {
        let (index, _) = self.mode(mode)?;
        self.upwards.push(index);
        Ok(self)
    }

    /// With what the fit leaves over.
    #[must_use]
    pub fn residuals(mut self, residuals: Residuals) -> Self {
        self.residuals = Some(residuals);
        self
    }

    /// With a sentence where residuals would stand, such as why there are none.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    fn mode(&self, mode: char) -> Result<(Index, usize)> {
        let model = self.saved.model();
        let index = Index::new(mode).filter(|x| model.output().contains(x));
        match index {
            Some(index) => Ok((index, self.saved.shapes().size(index))),
            None => Err(unknown_mode(model, mode)),
        }
    }

    /// The modes of the data with their names.
    pub(super) fn axes(&self) -> Vec<ModeAxis> {
        let model = self.saved.model();
        model
            .output()
            .iter()
            .map(|&index| {
                let labels = self.names(index);
                let edges = match labels.kind() {
                    LabelKind::Bins { edges } => Some(Arc::from(edges.as_slice())),
                    _ => None,
                };
                ModeAxis {
                    letter: index.into(),
                    name: labels.name().map_or_else(|| index.to_string(), Into::into),
                    size: self.saved.shapes().size(index),
                    labels: labels.indices().map(|all| Names::new(all.to_vec())),
                    // Coordinates rise from the bottom, as everywhere.
                    upwards: edges.is_some() || self.upwards.contains(&index),
                    mode: true,
                    first: 0,
                    edges,
                    dates: *labels.kind() == LabelKind::Date,
                }
            })
            .collect()
    }

    /// What a mode is called: as was said, or else as the fit knows it.
    fn names(&self, index: Index) -> Labels {
        let nothing = Labels::default();
        let known = self.saved.labels(index.into()).unwrap_or(&nothing);
        self.labels.get(&index).unwrap_or(&nothing).or(known)
    }

    pub(super) fn heading(&self) -> &str {
        self.title.as_deref().unwrap_or_else(|| self.saved.model().text())
    }
}

/// The error for a letter that is none of the data's modes.
pub fn unknown_mode(model: &Model, mode: char) -> Error {
    Error::Setting(format!(
        "the model {model} has no mode {mode}: its modes are {}",
        model.output().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    ))
}
