//! A fit as a page and as plots: what to look at after a fit.
//!
//! [`Report::html`] makes one self-contained page, without anything from a network: the model as a
//! diagram, the losses, every component in the order of its weight, and, where the data are at hand,
//! what the fit leaves over along every mode ([`Residuals`]). [`Report::svg`] makes a figure for a
//! paper. [`TrainReport`] does the same for a distribution. `nneinfact report` makes both.

mod axis_ticks;
mod builder;
mod curves;
mod diagram;
mod draw;
mod entry_values;
mod figure;
mod labels;
mod match_page;
mod page;
mod pairs;
mod panel;
mod raster;
mod residual_views;
mod residuals;
mod study_page;
mod study_path;
mod train_curves;
mod train_page;
mod views;

pub use builder::{Report, unknown_mode};
pub use match_page::match_page;
pub use nneinfact_core::data::Labels;
pub use residuals::{ResidualSums, Residuals, RoleResiduals};
pub use study_page::{study_page, study_svg};
pub use train_page::TrainReport;
