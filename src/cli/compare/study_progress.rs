//! Progress of a study on standard error, and Ctrl-C.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::fit_progress::Show;
use crate::cli::interrupt::{Phase, Progress, Words, interruptible};
use crate::cli::shown;
use crate::cli::summary::{duration, number};
use nneinfact_fit::{Cancel, Sweep};
use nneinfact_insight::compare::{Event, RunOutcome, Standing, Study, StudyObserver};

/// The progress line of a running study. Dropping it takes the line off the screen.
pub struct StudyProgress {
    bar: Option<ProgressBar>,
}

impl StudyProgress {
    /// Shows the progress of the study to be, and lets Ctrl-C stop it: before the first run the process,
    /// then the study, and the second time the process at once.
    pub fn attach(study: Study, show: Show) -> (Study, StudyProgress) {
        let terminal = std::io::stderr().is_terminal();
        let bar = (terminal && show != Show::Never).then(|| {
            let bar = ProgressBar::new(0);
            // The template is a constant, so it cannot be wrong at run time only.
            if let Ok(style) = ProgressStyle::with_template("{bar:16} {wide_msg}") {
                bar.set_style(style);
            }
            bar
        });
        let cancel = Cancel::new();
        let phase = Progress::default();
        let words = Words {
            beginning: "no run was made yet",
            working: "the run under way is given up, those that are done are kept",
            writing: "the runs are made, and the tables are being written",
        };
        interruptible(&cancel, &phase, bar.clone(), words);
        let study = study.cancel(&cancel).observe(move |event: &Event<'_>| match event {
            Event::Begins(_) | Event::Sweep(..) => phase.enter(Phase::Working),
            Event::Ends { standing, .. } if standing.run == standing.runs => {
                phase.enter(Phase::Writing);
            }
            Event::Ends { .. } => phase.enter(Phase::Working),
        });
        let study = match (&bar, show) {
            (Some(_), _) | (None, Show::Always) => {
                study.observe(StudyProgressReporter { bar: bar.clone(), kept: 0, shown: None })
            }
            (None, _) => study,
        };
        (study, StudyProgress { bar })
    }
}

impl Drop for StudyProgress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Shows the events of a study: a line for every run, and in between the sweep on a line that does not stay.
struct StudyProgressReporter {
    bar: Option<ProgressBar>,
    /// The number of runs taken from the folder that were not shown yet.
    kept: usize,
    /// When a sweep was shown last, where there is no bar.
    shown: Option<Instant>,
}

impl StudyProgressReporter {
    fn say(&self, line: &str) {
        let line = &shown(line);
        match &self.bar {
            Some(bar) => bar.println(line),
            None => {
                let _ = writeln!(std::io::stderr().lock(), "{line}");
            }
        }
    }

    fn say_kept(&mut self) {
        let line = match std::mem::take(&mut self.kept) {
            0 => return,
            1 => "1 run was finished before".to_string(),
            n => format!("{n} runs were finished before"),
        };
        self.say(&line);
    }
}

impl StudyObserver for StudyProgressReporter {
    fn event(&mut self, event: &Event<'_>) {
        match event {
            Event::Begins(standing) => {
                self.say_kept();
                if let Some(bar) = &self.bar {
                    bar.set_length(standing.runs as u64);
                    bar.set_position(standing.run as u64 - 1);
                    bar.set_message(shown(&format!("{}{}", left(standing), head(standing))));
                }
            }
            Event::Sweep(standing, sweep) => {
                let line = sweep_line(standing, sweep);
                match &self.bar {
                    Some(bar) => bar.set_message(shown(&line)),
                    None if self.shown.is_none_or(|at| at.elapsed() >= Duration::from_secs(5)) => {
                        self.shown = Some(Instant::now());
                        self.say(&line);
                    }
                    None => {}
                }
            }
            Event::Ends { kept: true, .. } => self.kept += 1,
            Event::Ends { standing, outcome, .. } => self.say(&end_line(standing, outcome)),
        }
    }
}

fn head(standing: &Standing) -> String {
    format!("run {}/{}  {}", standing.run, standing.runs, standing.label)
}

/// The estimate of the time left, which stands first in a line, so that it is on a narrow terminal too;
/// nothing is known before a run is done.
fn left(standing: &Standing) -> String {
    match standing.left {
        Some(left) => format!("about {} left  ", duration(left)),
        None if standing.run == 1 => "first run  ".into(),
        None => String::new(),
    }
}

fn sweep_line(standing: &Standing, sweep: &Sweep) -> String {
    let mut line = format!(
        "{}{}  sweep {}  loss {}",
        left(standing),
        head(standing),
        sweep.iteration,
        number(sweep.loss)
    );
    for (what, loss) in [("validation", sweep.validation_loss), ("held-out", sweep.heldout_loss)] {
        if let Some(loss) = loss {
            line += &format!("  {what} {}", number(loss));
        }
    }
    line
}

fn end_line(standing: &Standing, outcome: &RunOutcome) -> String {
    let head = head(standing);
    let what = match outcome {
        RunOutcome::Finished(result) => {
            let mut what = format!("training {}", number(result.training_loss));
            if let Some(loss) = result.heldout_loss {
                what = format!("held-out {}, {what}", number(loss));
            }
            format!(
                "{what}, {} sweeps ({}), {}",
                result.sweeps,
                result.stopped_by,
                duration(result.seconds)
            )
        }
        RunOutcome::Failed(message) => {
            format!("failed: {}", message.lines().next().unwrap_or_default())
        }
        RunOutcome::Pending => "not done".into(),
    };
    match standing.run == standing.runs {
        true => format!("{head}: {what}"),
        false => format!("{}{head}: {what}", left(standing)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(left: Option<f64>) -> Standing {
        Standing { run: 3, runs: 40, label: "cubic low-rank Tucker ".repeat(3), left }
    }

    #[test]
    fn the_estimate_is_on_narrow_terminals_too() {
        let outcome = RunOutcome::Failed("no".into());
        let line = end_line(&standing(Some(7260.0)), &outcome);
        assert!(line.starts_with("about 2 h 1 min left  run 3/40"), "{line}");
        // Nothing is known before the first run is done.
        let line = end_line(&standing(None), &outcome);
        assert!(line.starts_with("run 3/40") && !line.contains("left"), "{line}");
        let first = Standing { run: 1, ..standing(None) };
        assert!(left(&first).starts_with("first run"));
    }
}
