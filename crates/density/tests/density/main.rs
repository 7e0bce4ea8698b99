//! Tests of the crate from outside: golden cases with exact answers, properties, bad input.

mod bad_input;
mod brute;
mod crosses;
mod fits;
mod networks;
mod npz;
mod properties;
mod samples;
mod uses;
