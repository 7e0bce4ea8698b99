//! Where results are written, checked before there are any.

use std::fs;
use std::path::{Path, PathBuf};

use ndarray::{ArrayBase, ArrayD, Data, IxDyn};

use super::complain;
use nneinfact_core::error::{Error, Result};
use nneinfact_core::model::{Index, Model};
use nneinfact_fit::io;
use nneinfact_fit::{DataRecord, Fit, LossRecord, Record, Saved};
pub(super) use nneinfact_fit::{WEIGHTS, factor_name};

/// The files that a fit is to write.
#[derive(Clone, Debug, Default)]
pub struct OutputFiles {
    /// For the factors.
    pub factors: Option<PathBuf>,
    /// For the history.
    pub history: Option<PathBuf>,
    /// For the page.
    pub report: Option<PathBuf>,
    /// What the factors' file says of the loss and the data, besides what the fit says.
    pub loss: Option<LossRecord>,
    /// As `loss`.
    pub data: Option<DataRecord>,
}

/// An option with the file that it writes.
pub type OutputOption<'a> = (&'a str, Option<&'a PathBuf>);

/// Checks that files can be written, that none is an input, and that no two are the same.
pub fn check_outputs(outputs: &[OutputOption<'_>], inputs: &[&Path]) -> Result<()> {
    for &(option, path) in outputs {
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
    for (i, (option, path)) in outputs.iter().enumerate() {
        for (other, other_path) in &outputs[i + 1..] {
            if let (Some(a), Some(b)) = (path, other_path)
                && (a == b || same_file(a, b))
                && is_ordinary(a)
            {
                return Err(Error::Setting(format!(
                    "{option} and {other} are the same file, {}",
                    a.display()
                )));
            }
        }
    }
    Ok(())
}

impl OutputFiles {
    /// Checks, before a long fit, that its result can be written, and that it would not replace one
    /// of the `inputs`.
    pub fn check(&self, inputs: &[&Path]) -> Result<()> {
        check_outputs(
            &[
                ("--out", self.factors.as_ref()),
                ("--history", self.history.as_ref()),
                ("--report", self.report.as_ref()),
            ],
            inputs,
        )
    }

    /// A fit with what is known of its loss and data.
    pub fn saved(&self, fit: &Fit) -> Saved {
        let mut saved = Saved::new(fit);
        if let Some(loss) = &self.loss {
            saved = saved.with_loss(loss.clone());
        }
        if let Some(data) = &self.data {
            saved = saved.with_data(data.clone());
        }
        saved
    }

    /// Writes what a fit that broke had reached; the error and its exit status stay.
    pub fn rescue(&self, last: &Fit) {
        let written = self.write(last);
        if let Some(path) = &written.factors {
            let path = path.display();
            complain("notice", &format!("the factors before it were written to {path}"));
        }
        written.problems.iter().for_each(|problem| complain("warning", problem));
    }

    /// Writes factors and history where that was asked for, each file as a whole or not at all, and each
    /// whatever becomes of the other. Factors that cannot be written where they should be are written
    /// elsewhere.
    pub fn write(&self, fit: &Fit) -> Written {
        let mut written = Written::default();
        if let Some(path) = &self.factors {
            let saved = self.saved(fit);
            match saved.save(path) {
                Ok(()) => written.factors = Some(path.clone()),
                Err(error) => {
                    written.factors = save_elsewhere(&saved, path);
                    written.problems.push(match &written.factors {
                        Some(place) => format!(
                            "{error}; the factors were written to {} instead",
                            place.display()
                        ),
                        None => {
                            format!("{error}; the factors could not be written elsewhere either")
                        }
                    });
                }
            }
        }
        if let Some(path) = &self.history {
            written.history = written.keep(path, io::write_json(path, fit.history()));
        }
        written
    }
}

/// What was written of a fit.
#[derive(Debug, Default)]
pub struct Written {
    /// Where the factors are.
    pub factors: Option<PathBuf>,
    /// Where the history is.
    pub history: Option<PathBuf>,
    /// Where the page is.
    pub report: Option<PathBuf>,
    /// What went wrong, a phrase each.
    pub problems: Vec<String>,
}

impl Written {
    /// The file, if it was written; else its error is kept.
    pub fn keep(&mut self, path: &Path, done: Result<()>) -> Option<PathBuf> {
        match done {
            Ok(()) => Some(path.to_path_buf()),
            Err(error) => {
                self.problems.push(error.to_string());
                None
            }
        }
    }

    /// An error where something went wrong, although the fit itself did not.
    pub fn check(self) -> Result<()> {
        match self.problems.is_empty() {
            true => Ok(()),
            false => Err(Error::Unwritten(format!(
                "the fit has ended, but not all is as it was asked for: {}",
                self.problems.join("; ")
            ))),
        }
    }
}

/// Saves factors where they were not meant to be, but can be: beside, in the working folder, or in that
/// for temporary files.
fn save_elsewhere(saved: &Saved, path: &Path) -> Option<PathBuf> {
    let beside = io::resolved(path).parent().filter(|_| is_ordinary(path)).map(Path::to_path_buf);
    let folders = [beside, std::env::current_dir().ok(), Some(std::env::temp_dir())];
    let name = |n: usize| format!("nneinfact-factors-{}-{n}.npz", std::process::id());
    for folder in folders.into_iter().flatten().filter(|folder| folder.is_dir()) {
        let place = (0..1000).map(|n| folder.join(name(n))).find(|place| !place.exists())?;
        if saved.save(&place).is_ok() {
            return Some(place);
        }
    }
    None
}

/// Factors with their names in files.
pub fn named<S: Data<Elem = f64>>(
    factors: &[ArrayBase<S, IxDyn>],
) -> Vec<(String, ndarray::ArrayViewD<'_, f64>)> {
    factors.iter().enumerate().map(|(l, f)| (factor_name(l), f.view())).collect()
}

/// Reads factors that [`OutputFiles::write`] wrote: `theta_1`, …, `theta_L`, and nothing else but the
/// weights of normalised ones, which are multiplied into the first factor that has their indices.
pub fn read_factors(path: &Path, model: &Model) -> Result<Vec<ArrayD<f64>>> {
    if io::FileKind::of(path)? != io::FileKind::Npz {
        return Err(Error::format(path, "a start is read from a .npz file"));
    }
    let count = model.factors().len();
    let expected: Vec<String> = (0..count).map(factor_name).collect();
    let found: Vec<String> = io::npz_names(path)?
        .into_iter()
        .map(|info| info.name)
        .filter(|name| name != Record::NAME && !name.starts_with("labels_"))
        .collect();
    let wrong = || {
        let quoted: Vec<String> = found.iter().map(|name| format!("\"{name}\"")).collect();
        let found = if quoted.is_empty() { "none".into() } else { quoted.join(", ") };
        let expected = expected.join(", ");
        let one = if count == 1 { "one array of numbers" } else { "arrays of numbers" };
        Error::format(
            path,
            format!(
                "the start has to hold {one}, one for each factor of the model: expected exactly \
                 {expected}; found {found}"
            ),
        )
    };
    let mut sorted: Vec<String> = found.iter().filter(|n| *n != WEIGHTS).cloned().collect();
    sorted.sort_unstable();
    let mut wanted = expected.clone();
    wanted.sort_unstable();
    if sorted != wanted {
        return Err(wrong());
    }
    let mut arrays = io::read_npz_arrays(path)?;
    let mut take = |name: &str| {
        // Arrays that are not of numbers are passed over by the reader.
        let at = arrays.iter().position(|(n, _)| n == name).ok_or_else(wrong)?;
        Ok(arrays.swap_remove(at).1)
    };
    let mut factors: Vec<ArrayD<f64>> =
        expected.iter().map(|name| take(name)).collect::<Result<_>>()?;
    if found.iter().any(|name| name == WEIGHTS) {
        absorb(path, model, &mut factors, take(WEIGHTS)?)?;
    }
    Ok(factors)
}

/// Multiplies weights over all latent indices into a factor.
fn absorb(
    path: &Path,
    model: &Model,
    factors: &mut [ArrayD<f64>],
    weights: ArrayD<f64>,
) -> Result<()> {
    let latent: Vec<Index> = model.latent().iter().collect();
    let able = model.factors().iter().position(|f| latent.iter().all(|x| f.contains(x)));
    let Some(holder) = able else {
        return Err(Error::format(
            path,
            format!(
                "no factor of {model} has all latent letters, so its weights cannot be multiplied \
                 into one: a start has to be written without --normalize"
            ),
        ));
    };
    let indices = &model.factors()[holder];
    let factor = &mut factors[holder];
    let name = factor_name(holder);
    let refuse = |shape: &[usize]| {
        Err(Error::format(
            path,
            format!(
                "the weights (shape {:?}) do not go with {name} (shape {shape:?}): their axes are \
                 the latent letters of {model}, in the order A–Z, a–z",
                weights.shape()
            ),
        ))
    };
    if factor.ndim() != indices.len() || weights.ndim() != latent.len().max(1) {
        return refuse(factor.shape());
    }
    let axis = |x: &Index| indices.iter().position(|y| y == x).unwrap_or(0);
    let sizes: Vec<usize> = match latent.as_slice() {
        [] => vec![1],
        latent => latent.iter().map(|x| factor.shape()[axis(x)]).collect(),
    };
    if weights.shape() != sizes {
        return refuse(factor.shape());
    }
    for (index, x) in factor.indexed_iter_mut() {
        let at: Vec<usize> = match latent.as_slice() {
            [] => vec![0],
            latent => latent.iter().map(|y| index[axis(y)]).collect(),
        };
        *x *= weights[at.as_slice()];
    }
    Ok(())
}

/// Whether a file can be made at `path`, tried out with one that is gone again at once.
pub fn check_writable(option: &str, path: &Path) -> Result<()> {
    let refuse = |why: String| {
        Err(Error::Setting(format!("{option} {} cannot be written: {why}", path.display())))
    };
    if path.is_dir() {
        return refuse("it is a folder".into());
    }
    if !is_ordinary(path) {
        return Ok(());
    }
    // A link is written through, so it is the folder of what it leads to that counts.
    let file = io::resolved(path);
    if fs::metadata(&file).is_ok_and(|file| file.permissions().readonly()) {
        return refuse("it is read-only, and is not replaced".into());
    }
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    if !folder.is_dir() {
        return refuse(format!("there is no folder {}", folder.display()));
    }
    match tempfile::tempfile_in(folder) {
        Ok(_) => Ok(()),
        Err(e) => refuse(e.to_string()),
    }
}

/// Whether a path is that of a file, there or not yet, and not of a terminal or a pipe.
pub fn is_ordinary(path: &Path) -> bool {
    fs::metadata(path).map_or(true, |m| m.is_file())
}

/// Whether both are there, and the same file.
pub fn same_file(a: &Path, b: &Path) -> bool {
    match (fs::canonicalize(a), fs::canonicalize(b)) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    }
}
