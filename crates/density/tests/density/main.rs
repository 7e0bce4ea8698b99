//! Tests of the crate from outside: golden cases with exact answers, properties, bad input.

mod crosses;
mod fits;
mod npz;
mod samples;
mod uses;
