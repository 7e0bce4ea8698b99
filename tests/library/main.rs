//! What the library promises: known answers, golden cases, properties, and everything around a fit.

mod adam;
#[path = "../common/mod.rs"]
mod common;
mod compare;
mod components;
mod concurrent;
mod coupled;
mod fit;
mod golden;
mod labels;
mod loss;
mod numbers;
mod one_group;
mod penalties;
mod plan;
mod properties;
mod query;
mod report;
mod starts;
mod strata;
