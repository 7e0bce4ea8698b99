//! Stored training entries in an order that keeps what they look up in the caches, and the pass over them.
//!
//! A pass gathers a row of each operand's table at every entry. In the order of the output's rows
//! alone these rows are anywhere in their tables, and where a table outgrows the second-level cache each of
//! them is waited for. So work is cut twice. A *task* is some rows of the output with all of their entries,
//! or a part of one long row: no two tasks add to the same sums, and tasks are what threads share. Within
//! its task, entries are in *tiles*: each operand's table is cut into blocks of rows, few enough for the
//! cache, and a tile is a block of each, taken along a Z-order curve, so that neighbours share blocks.
//! Within a tile, entries are in the order of the output's rows, and in C order in a row.
//!
//! Cut and order are a function of the entries and the plan: sums have the same bits for any
//! number of threads. Rows are kept relative to their block, in 8 or 16 bits; values of which there are few
//! different ones in 8 bits, and not at all where all are the same.

mod compact;
mod entries;
mod kernel;
mod order;
mod pass;
mod task;
#[cfg(test)]
mod tests;
mod training;

pub(super) use self::entries::BlockedEntries;
pub(super) use self::pass::BlockedPass;
pub(super) use self::training::TrainingEntries;
