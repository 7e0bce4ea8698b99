//! The `nneinfact` program: see [`nneinfact::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    nneinfact::cli::main()
}
