//! Comparing models: many fits to the same data, a table of how well they predict what was held out,
//! and which of their components are found again.
//!
//! A [`Study`] names models with grids of ranks, losses, penalties and algorithms, and how often the
//! data are split and fits started. [`Study::run`] carries it out, from where it was interrupted where
//! it has a folder, and gives a [`StudyTable`]. [`stability`] compares the components of fits by itself.
//! On the command line this is `nneinfact compare`.
//!
//! A study runs like this. `setups` expands models and rank grids (`ranks`, which also finds ranks for
//! numbers of parameters) into setups, a row of the table each, and setups × splits × starts into runs,
//! split by split, so that every split is prepared once. `runner` checks all setups against the data
//! before the first run is made; small ones go on at once, a thread each (`concurrent`). A run is known by its settings and the data's fingerprint
//! (`run_result`); finished ones lie in the folder as factors, which can be reported like any fit, and a
//! `.json`, which comes last and is what makes the run finished (`store`). `score` compares predictions
//! with held-out entries, `rows` sorts what came out into rows of the table, and `stability` compares
//! components by contracting one copy of the model with another (`network`).

mod concurrent;
mod courses;
mod estimate;
mod events;
mod nonfinite;
mod path;
mod ranks;
mod rows;
mod run_result;
mod runner;
mod score;
mod setups;
mod stability;
mod store;
mod study;
mod study_check;
mod study_model;
mod study_table;
mod study_table_text;

pub use courses::RunCourse;
pub use events::{Event, Standing, StudyObserver};
pub use path::StudyPath;
pub use run_result::{RunOutcome, RunResult, RunSettings};
pub use score::{Score, Scores};
pub use stability::{ComponentStability, IndexStability, Stability, Verdict, stability};
pub use study::Study;
pub use study_model::{Penalties, StudyModel};
pub use study_table::{Best, Mean, Row, RunRecord, StudyTable};
