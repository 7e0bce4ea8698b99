//! Where the commands write, checked before there is anything to write.

use std::path::Path;

use super::super::output::is_ordinary;
use nneinfact_core::error::{Error, Result};

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
