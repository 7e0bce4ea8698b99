//! The `nneinfact` program: see [`nneinfact::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    // Mesa has a Vulkan layer that picks the GPU of the desktop. This program picks for itself, and
    // where there is no desktop the layer complains on standard error.
    #[cfg(target_os = "linux")]
    // SAFETY: no other thread runs yet.
    unsafe {
        std::env::set_var("NODEVICE_SELECT", "1");
    }
    nneinfact::cli::main()
}
