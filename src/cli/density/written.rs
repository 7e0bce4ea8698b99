//! Where the commands write, checked before there is anything to write.

use std::path::{Path, PathBuf};

use super::super::output::{check_writable, is_ordinary, same_file};
use nneinfact_core::error::{Error, Result};

/// An option with the file that it writes.
pub type WrittenTrain<'a> = (&'a str, Option<&'a PathBuf>);

/// Checks that files can be written, that none is an input, and that no two are the same.
pub fn check(outputs: &[WrittenTrain<'_>], inputs: &[&Path]) -> Result<()> {
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

/// The error if a train is to be written under a name that no command would read.
pub fn check_npz(option: &str, path: &Path) -> Result<()> {
    check_extension(option, path, "npz")
}

/// The error if a file has another extension than `wanted`, unless it is a terminal or a pipe.
pub fn check_extension(option: &str, path: &Path, wanted: &str) -> Result<()> {
    let named = path.extension().is_some_and(|e| e.eq_ignore_ascii_case(wanted));
    if named || !is_ordinary(path) {
        return Ok(());
    }
    Err(Error::Setting(format!(
        "{option} {} has to have the extension .{wanted}, as that is what is written",
        path.display()
    )))
}
