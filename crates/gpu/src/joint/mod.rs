//! Small operations of a program in few dispatches.
//!
//! A dispatch costs a device some microseconds, whatever it does: most of a sweep of a small model is
//! such costs. So commands on small tensors tell what they do as an [`operation`]; [`schedule`] puts
//! those of a recording into joint dispatches, whose workgroups each do a chain of operations, one
//! after another; and [`emit`] makes shaders of them, which read what there is to do from a buffer. What
//! is computed, and in which order sums are added up, is the same as in dispatches of their own.
//!
//! Large tensors keep those. [`operations`] has the operations, by what they are in place of; [`join`] does
//! all of this to the recordings of a program.

pub(crate) mod emit;
mod join;
pub(crate) mod operation;
pub(crate) mod operations;
pub(crate) mod schedule;
