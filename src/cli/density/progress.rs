//! Progress on standard error, and Ctrl-C.

use std::io::{IsTerminal, Write};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::super::fit_progress::Show;
use super::super::interrupt::{self, Phase, Words, interruptible};
use nneinfact_fit::Cancel;

/// The progress line of a running command. Dropping it takes the line off the screen.
pub struct TrainProgress {
    bar: Option<ProgressBar>,
    lines: bool,
    shown: Option<Instant>,
    cancel: Cancel,
    phase: interrupt::Progress,
}

impl TrainProgress {
    /// Shows progress from now on, and lets Ctrl-C stop what asks [`TrainProgress::say`]: the first time
    /// after the sweep, the second time the process at once.
    pub fn begin(show: Show) -> TrainProgress {
        let terminal = std::io::stderr().is_terminal();
        let bar = (terminal && show != Show::Never).then(|| {
            let bar = ProgressBar::new(0);
            // The template is a constant, so it cannot be wrong at run time only.
            if let Ok(style) = ProgressStyle::with_template("{wide_msg}") {
                bar.set_style(style);
            }
            bar
        });
        let cancel = Cancel::new();
        let phase = interrupt::Progress::default();
        let words = Words {
            beginning: "nothing was made yet",
            working: "what is under way ends after this step",
            writing: "the work has ended, and its result is being written",
        };
        interruptible(&cancel, &phase, bar.clone(), words);
        let lines = bar.is_none() && show == Show::Always;
        TrainProgress { bar, lines, shown: None, cancel, phase }
    }

    /// Shows a line, if the last one has stood long enough; says whether to go on.
    pub fn say(&mut self, line: impl FnOnce() -> String) -> ControlFlow<()> {
        self.phase.enter(Phase::Working);
        let interval = Duration::from_millis(if self.lines { 1000 } else { 50 });
        let due = self.shown.is_none_or(|at| at.elapsed() >= interval);
        if due && (self.lines || self.bar.is_some()) {
            self.shown = Some(Instant::now());
            match &self.bar {
                Some(bar) => bar.set_message(line()),
                None => {
                    let _ = writeln!(std::io::stderr().lock(), "{}", line());
                }
            }
        }
        if self.interrupted() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Whether Ctrl-C was pressed.
    pub fn interrupted(&self) -> bool {
        self.cancel.is_cancelled()
    }
}

impl Drop for TrainProgress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
