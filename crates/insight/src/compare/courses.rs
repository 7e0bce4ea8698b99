//! The losses of a study's best runs, sweep by sweep, from its folder.

use std::fs;

use serde::Deserialize;

use super::study_table::StudyTable;
use nneinfact_core::error::{Error, Result};
use nneinfact_fit::History;

/// The losses of the best run of a row.
#[derive(Clone, Debug)]
pub struct RunCourse {
    /// The loss of the row, by name.
    pub loss: String,
    /// What tells the row from others of its loss.
    pub label: String,
    /// The losses sweep by sweep.
    pub history: History,
}

#[derive(Deserialize)]
struct Kept {
    history: History,
}

impl StudyTable {
    /// The losses of the best run of every model under every loss, from the folder of the study; none
    /// where it has no folder.
    ///
    /// # Errors
    /// [`Error::File`] and [`Error::Format`] where the file of a run cannot be read.
    pub fn courses(&self) -> Result<Vec<RunCourse>> {
        let Some(folder) = &self.folder else { return Ok(Vec::new()) };
        let mut courses = Vec::new();
        for row in self.rows.iter().filter(|row| row.best_of_model) {
            let best = row.best.as_ref();
            let run = row.runs.iter().find(|run| {
                best.is_some_and(|best| (run.split, run.start) == (best.split, best.start))
            });
            let Some(file) = run.and_then(|run| run.file.as_ref()) else { continue };
            let path = folder.join(file);
            let bytes = fs::read(&path).map_err(|e| Error::file(&path, e))?;
            let kept: Kept =
                serde_json::from_slice(&bytes).map_err(|e| Error::format(&path, e.to_string()))?;
            courses.push(RunCourse {
                loss: row.loss.clone(),
                label: row.label_under_loss(),
                history: kept.history,
            });
        }
        Ok(courses)
    }
}
