//! Ctrl-C, and a polite request of the system to end.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use indicatif::ProgressBar;

use super::{complain, is_mute};
use nneinfact_fit::Cancel;

/// The exit status of a process that Ctrl-C ended, as shells have it: 128 + SIGINT.
pub const INTERRUPTED: i32 = 130;

/// What a command is doing, which decides what an interruption does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It reads, plans or makes a start. Nothing is lost: the process ends.
    Beginning,
    /// What it has by now is worth keeping: the work stops at the next boundary.
    Working,
    /// It writes what it has: that is not to be broken off.
    Writing,
}

/// The phase of a command, which its thread sets and the handler of signals reads.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<AtomicU8>);

impl Progress {
    /// Enters a phase.
    pub fn enter(&self, phase: Phase) {
        self.0.store(phase as u8, Ordering::Relaxed);
    }

    fn phase(&self) -> Phase {
        match self.0.load(Ordering::Relaxed) {
            0 => Phase::Beginning,
            1 => Phase::Working,
            _ => Phase::Writing,
        }
    }
}

/// What is said of an interruption: of the work, and of the writing.
pub struct Words {
    /// At the beginning.
    pub beginning: &'static str,
    /// What becomes of the work under way.
    pub working: &'static str,
    /// While the result is written.
    pub writing: &'static str,
}

/// Connects Ctrl-C with a switch: at the beginning it ends the process, later it throws the switch, and
/// the second time it ends the process.
pub fn interruptible(cancel: &Cancel, progress: &Progress, bar: Option<ProgressBar>, words: Words) {
    let (switch, progress) = (cancel.clone(), progress.clone());
    let say = move |message: &str| match &bar {
        _ if is_mute() => {}
        Some(bar) => bar.println(message),
        None => {
            let _ = writeln!(std::io::stderr().lock(), "{message}");
        }
    };
    let handler = move || {
        if switch.is_cancelled() {
            // What was shown last stays on the screen, and what follows begins on a line of its own.
            say("interrupted again: ending at once");
            std::process::exit(INTERRUPTED);
        }
        switch.cancel();
        match progress.phase() {
            Phase::Beginning => {
                say(&format!("interrupted: {}", words.beginning));
                std::process::exit(INTERRUPTED);
            }
            Phase::Working => {
                say(&format!("interrupted: {}; once more ends at once", words.working));
            }
            Phase::Writing => {
                say(&format!("interrupted: {}; once more ends at once", words.writing));
            }
        }
    };
    if let Err(e) = ctrlc::set_handler(handler) {
        complain("warning", &format!("Ctrl-C will end the program without a result: {e}"));
    }
}
