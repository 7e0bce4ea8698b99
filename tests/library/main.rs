//! What the library promises: known answers, golden cases, properties, and everything around a fit.

mod adam;
#[path = "../common/mod.rs"]
mod common;
mod compare;
mod components;
mod concurrent;
mod coupled;
mod coupled_labels;
mod fit;
mod golden;
mod idle;
mod labels;
mod loss;
mod masks;
mod negative;
mod numbers;
mod one_group;
mod penalties;
mod plan;
mod properties;
mod query;
mod report;
mod scales;
mod shared;
mod starts;
mod strata;
mod structure;
#[path = "../common/structured.rs"]
mod structured_case;
mod structured_properties;
