//! Tables of events as tensors with names, and the sparse formats of the field.
//!
//! A [`Table`] is one event or observation per row; [`Modes`] says how its columns become the modes
//! of a tensor. What comes out is a [`TableTensor`]: coordinates, values, and a name for every
//! index.

mod bins;
mod calendar;
mod cells;
mod dictionary;
mod encoder;
mod error;
mod filter;
mod finish;
mod foreign;
mod labels;
mod number;
mod plan;
mod reading;
mod records;
mod source;
mod spec;
mod table;
mod tensor;
mod text;
mod time;

pub use error::{Error, Result};
pub use filter::Filter;
pub use foreign::describe_foreign;
pub use labels::LabelKind;
pub use spec::{Function, ModeSpec, Modes};
pub use table::{Table, Values};
pub use tensor::{Counts, Mode, TableTensor, Unlisted};
