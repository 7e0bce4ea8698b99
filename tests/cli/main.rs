//! The command line, through the binary.

#![cfg(feature = "cli")]

mod commands;
mod compare;
mod query;
mod tables;
