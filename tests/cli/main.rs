//! The command line, through the binary.

#![cfg(feature = "cli")]

mod commands;
mod compare;
mod density;
mod files;
mod processes;
mod query;
mod splits;
mod tables;
