//! Where results are written, checked before there are any.

use std::fs;
use std::path::{Path, PathBuf};

use ndarray::{ArrayBase, ArrayD, Data, IxDyn};

use crate::error::{Error, Result};
use crate::fit::Fit;
use crate::io;

/// The files that a fit is to write.
#[derive(Clone, Debug, Default)]
pub struct Outputs {
    /// For the factors.
    pub factors: Option<PathBuf>,
    /// For the history.
    pub history: Option<PathBuf>,
}

impl Outputs {
    /// Checks, before a long fit, that its result can be written, and that it would not replace one
    /// of the `inputs`.
    pub fn check(&self, inputs: &[&Path]) -> Result<()> {
        let outputs = [("--out", &self.factors), ("--history", &self.history)];
        for (option, path) in outputs {
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
        if let (Some(factors), Some(history)) = (&self.factors, &self.history)
            && (factors == history || same_file(factors, history))
            && is_ordinary(factors)
        {
            return Err(Error::Setting(format!(
                "--out and --history are the same file, {}",
                factors.display()
            )));
        }
        Ok(())
    }

    /// Writes what was asked for, each file as a whole or not at all.
    pub fn write(&self, fit: &Fit) -> Result<()> {
        if let Some(path) = &self.factors {
            io::write_npz(path, &named(fit.factors()))?;
        }
        if let Some(path) = &self.history {
            io::write_json(path, fit.history())?;
        }
        Ok(())
    }
}

/// The name of factor `l`, counted from 0, in files.
pub fn factor_name(l: usize) -> String {
    format!("theta_{}", l + 1)
}

/// Factors with their names in files.
pub fn named<S: Data<Elem = f64>>(
    factors: &[ArrayBase<S, IxDyn>],
) -> Vec<(String, ndarray::ArrayViewD<'_, f64>)> {
    factors.iter().enumerate().map(|(l, f)| (factor_name(l), f.view())).collect()
}

/// Reads factors that [`Outputs::write`] wrote: `theta_1`, …, `theta_L` and nothing else.
pub fn read_factors(path: &Path, count: usize) -> Result<Vec<ArrayD<f64>>> {
    if io::FileKind::of(path)? != io::FileKind::Npz {
        return Err(Error::format(path, "a start is read from a .npz file"));
    }
    let expected: Vec<String> = (0..count).map(factor_name).collect();
    let found: Vec<String> = io::npz_names(path)?.into_iter().map(|info| info.name).collect();
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
    let mut sorted = found.clone();
    sorted.sort_unstable();
    let mut wanted = expected.clone();
    wanted.sort_unstable();
    if sorted != wanted {
        return Err(wrong());
    }
    let mut arrays = io::read_npz_arrays(path)?;
    expected
        .iter()
        .map(|name| {
            // Arrays that are not of numbers are passed over by the reader.
            let at = arrays.iter().position(|(n, _)| n == name).ok_or_else(wrong)?;
            Ok(arrays.swap_remove(at).1)
        })
        .collect()
}

/// Whether a file can be made at `path`, tried out with one that is gone again at once.
fn check_writable(option: &str, path: &Path) -> Result<()> {
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
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let folder = match target.parent() {
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
fn is_ordinary(path: &Path) -> bool {
    fs::metadata(path).map_or(true, |m| m.is_file())
}

fn same_file(a: &Path, b: &Path) -> bool {
    match (fs::canonicalize(a), fs::canonicalize(b)) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    }
}
