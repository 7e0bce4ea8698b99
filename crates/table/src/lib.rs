//! Tables of events as tensors with names, and the sparse formats of the field.
//!
//! A [`Table`] is one event or observation per row; [`Modes`] says how its columns become the modes
//! of a tensor. What comes out is a [`TableTensor`]: coordinates, values, and a name for every
//! index.
//!
//! [`read_matrix_market`], [`read_10x`] and [`ScipyArrays`] give a [`SparseMatrix`] with the names
//! of its rows and columns. [`describe_foreign`] says how to convert what is not read.

mod ahead;
mod batch;
mod bins;
mod calendar;
mod coo;
mod dictionary;
mod encoder;
mod entry_store;
mod filter;
mod finish;
mod foreign;
mod labels;
mod matrix_market;
mod number;
mod observations;
#[cfg(feature = "parquet")]
mod parquet;
mod plan;
mod reading;
mod records;
mod rows;
mod settings;
mod shared;
mod source;
mod spec;
mod table;
mod tensor;
mod text;
mod time;
mod wire;

use nneinfact_core::error;

pub use coo::{Axis, ScipyArrays, SparseMatrix, SparsePart};
pub use filter::Filter;
pub use foreign::describe_foreign;
pub use labels::LabelKind;
pub use matrix_market::{
    Keep, is_10x, read_10x, read_10x_part, read_matrix_market, read_matrix_market_from,
    read_matrix_market_part, read_names, read_names_part,
};
pub use nneinfact_core::error::{Error, Result};
pub use settings::Values;
pub use source::{files_matching, open as open_unpacked};
pub use spec::{Function, ModeSpec, Modes};
pub use table::Table;
pub use tensor::{Counts, Implicit, Mode, TableTensor};
