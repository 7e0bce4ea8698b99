//! The command line, through the binary.

#![cfg(feature = "cli")]

mod commands;
#[path = "../common/mod.rs"]
mod common;
mod compare;
mod corpus;
mod density;
mod files;
mod models;
mod processes;
mod query;
mod shared;
mod splits;
mod tables;
