//! The command line, through the binary.

#![cfg(feature = "cli")]

mod commands;
mod compare;
mod density;
mod files;
mod models;
mod processes;
mod query;
mod shared;
mod splits;
mod tables;
