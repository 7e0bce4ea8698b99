//! Tests of the crate from outside: golden cases with exact answers, properties, bad input.

mod fits;
mod npz;
