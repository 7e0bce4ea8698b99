//! Comparing models: many fits to the same data, a table of how well they predict what was held out,
//! and which of their components are found again.
//!
//! A [`Study`] names models with grids of ranks, losses, penalties and algorithms, and how often the
//! data are split and fits started. [`Study::run`] carries it out, from where it was interrupted where
//! it has a folder, and gives a [`Table`]. [`stability`] compares the components of fits by itself.
//! On the command line this is `nneinfact compare`.

mod candidate;
mod estimate;
mod events;
mod nonfinite;
mod ranks;
mod rows;
mod run_result;
mod runner;
mod score;
mod setups;
mod stability;
mod store;
mod study;
mod table;

pub use candidate::{Penalties, StudyModel};
pub use events::{Event, Standing, StudyObserver};
pub use run_result::{RunOutcome, RunResult, RunSettings};
pub use score::{Score, Scores};
pub use stability::{ComponentStability, IndexStability, Stability, Verdict, stability};
pub use study::Study;
pub use table::{Best, Mean, Row, RunRecord, Table};
