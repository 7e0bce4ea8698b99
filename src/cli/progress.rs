//! Progress of a fit on standard error, and Ctrl-C.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::complain;
use super::summary::{duration, number};
use crate::fit::{Cancel, Flow, NNEinFact, Observer, Sweep};

/// The exit status of a process that Ctrl-C ended, as shells have it: 128 + SIGINT.
const INTERRUPTED: i32 = 130;

/// When progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Show {
    /// Where standard error is a terminal.
    OnTerminal,
    /// Always: as lines, at most one a second, where it is not a terminal.
    Always,
    /// Never.
    Never,
}

/// The progress line of a running fit. Dropping it takes the line off the screen.
pub struct Progress {
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Shows the progress of the fit to be, and lets Ctrl-C stop it: the first time after the
    /// sweep, the second time the process at once.
    pub fn attach(settings: NNEinFact, show: Show) -> (NNEinFact, Progress) {
        let terminal = std::io::stderr().is_terminal();
        let bar = (terminal && show != Show::Never).then(|| {
            let bar = ProgressBar::new(0);
            // The template is a constant, so it cannot be wrong at run time only.
            if let Ok(style) = ProgressStyle::with_template("{bar:16} {wide_msg}") {
                bar.set_style(style);
            }
            bar
        });
        let target = match (&bar, show) {
            (Some(bar), _) => Some(Target::Bar(bar.clone())),
            (None, Show::Always) => Some(Target::Lines { last: None }),
            (None, _) => None,
        };
        let cancel = Cancel::new();
        interruptible(&cancel, bar.clone());
        let mut settings = settings.cancel(&cancel);
        if let Some(target) = target {
            settings = settings.observe(Teller { target, before: None, began: 0.0 });
        }
        (settings, Progress { bar })
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Connects Ctrl-C (and a polite request of the system to end) with the switch.
fn interruptible(cancel: &Cancel, bar: Option<ProgressBar>) {
    let switch = cancel.clone();
    let handler = move || {
        if switch.is_cancelled() {
            std::process::exit(INTERRUPTED);
        }
        switch.cancel();
        let message = "interrupted: stopping after this sweep; once more ends at once";
        match &bar {
            Some(bar) => bar.println(message),
            None => {
                let _ = writeln!(std::io::stderr().lock(), "{message}");
            }
        }
    };
    if let Err(e) = ctrlc::set_handler(handler) {
        complain("warning", &format!("Ctrl-C will end the program without a result: {e}"));
    }
}

enum Target {
    Bar(ProgressBar),
    Lines { last: Option<Instant> },
}

/// Tells every sweep.
struct Teller {
    target: Target,
    /// The loss of the sweep before.
    before: Option<f64>,
    /// When the start had been evaluated, in seconds of the fit.
    began: f64,
}

impl Observer for Teller {
    fn sweep(&mut self, sweep: &Sweep) -> Flow {
        if sweep.iteration == 0 {
            self.began = sweep.seconds;
        }
        let line = self.line(sweep);
        self.before = Some(sweep.loss);
        match &mut self.target {
            Target::Bar(bar) => {
                bar.set_length(sweep.max_iter as u64);
                bar.set_position(sweep.iteration as u64);
                bar.set_message(line);
            }
            Target::Lines { last } => {
                if last.is_none_or(|at| at.elapsed() >= Duration::from_secs(1)) {
                    *last = Some(Instant::now());
                    let _ = writeln!(std::io::stderr().lock(), "{line}");
                }
            }
        }
        Flow::Continue
    }
}

impl Teller {
    fn line(&self, sweep: &Sweep) -> String {
        let mut line =
            format!("sweep {}/{}  loss {}", sweep.iteration, sweep.max_iter, number(sweep.loss));
        if let Some(before) = self.before {
            line += &format!(" ({:+.1e})", sweep.loss - before);
        }
        if let Some(loss) = sweep.validation_loss {
            line += &format!("  validation {}", number(loss));
        }
        if let Some(loss) = sweep.heldout_loss {
            line += &format!("  held-out {}", number(loss));
        }
        let rate = sweep.iteration as f64 / (sweep.seconds - self.began);
        if rate.is_finite() && rate > 0.0 {
            let left = sweep.max_iter.saturating_sub(sweep.iteration) as f64 / rate;
            line += &format!("  {rate:.1} sweeps/s  at most {} left", duration(left));
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_is_known() {
        let teller =
            Teller { target: Target::Lines { last: None }, before: Some(0.75), began: 1.0 };
        let sweep = Sweep {
            iteration: 10,
            max_iter: 100,
            loss: 0.5,
            validation_loss: None,
            heldout_loss: Some(0.625),
            seconds: 3.0,
        };
        assert_eq!(
            teller.line(&sweep),
            "sweep 10/100  loss 0.500000 (-2.5e-1)  held-out 0.625000  5.0 sweeps/s  at most 18 s left"
        );
        let start = Sweep { iteration: 0, heldout_loss: None, seconds: 1.0, ..sweep };
        let teller = Teller { before: None, ..teller };
        assert_eq!(teller.line(&start), "sweep 0/100  loss 0.500000");
    }
}
