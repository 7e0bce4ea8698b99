//! Progress of a fit on standard error, and Ctrl-C.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use terminal_size::{Height, Width, terminal_size_of};

use super::complain;
use super::summary::{duration, number, peak_memory};
use nneinfact_core::error::bytes;
use nneinfact_fit::Device;
use nneinfact_fit::{Cancel, Flow, NNEinFact, Observer, Sweep};

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
pub struct FitProgress {
    bar: Option<ProgressBar>,
}

impl FitProgress {
    /// Shows the progress of the fit to be, and lets Ctrl-C stop it: the first time after the
    /// sweep, the second time the process at once.
    pub fn attach(settings: NNEinFact, show: Show, device: &Device) -> (NNEinFact, FitProgress) {
        let terminal = std::io::stderr().is_terminal();
        let bar = (terminal && show != Show::Never).then(|| {
            let bar = ProgressBar::new(0);
            // The template is a constant, so it cannot be wrong at run time only.
            if let Ok(style) = ProgressStyle::with_template("{wide_msg}") {
                bar.set_style(style);
            }
            bar.set_message("preparing the data");
            bar
        });
        let output = match (&bar, show) {
            (Some(bar), _) => Some(ProgressOutput::Bar(bar.clone())),
            (None, Show::Always) => Some(ProgressOutput::Lines),
            (None, _) => None,
        };
        let cancel = Cancel::new();
        interruptible(&cancel, bar.clone());
        let mut settings = settings.cancel(&cancel);
        if let Some(output) = output {
            settings = settings.observe(ProgressReporter::new(output, &device.to_string()));
        }
        (settings, FitProgress { bar })
    }
}

impl Drop for FitProgress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Connects Ctrl-C (and a polite request of the system to end) with the switch.
pub fn interruptible(cancel: &Cancel, bar: Option<ProgressBar>) {
    let switch = cancel.clone();
    let handler = move || {
        if switch.is_cancelled() {
            // What was shown last stays on the screen, and what follows begins on a line of its own.
            if let Some(bar) = &bar {
                bar.abandon();
            }
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

/// Where progress is shown.
enum ProgressOutput {
    /// On one line of a terminal.
    Bar(ProgressBar),
    /// As lines.
    Lines,
}

impl ProgressOutput {
    /// How long a line stands before it is replaced.
    fn interval(&self) -> Duration {
        match self {
            ProgressOutput::Bar(_) => Duration::from_millis(50),
            ProgressOutput::Lines => Duration::from_secs(1),
        }
    }

    /// The columns that there are; `None` for as many as it takes.
    fn columns(&self) -> Option<usize> {
        let ProgressOutput::Bar(_) = self else { return None };
        let (Width(columns), _) =
            terminal_size_of(std::io::stderr()).unwrap_or((Width(80), Height(24)));
        // Some terminals go on to the next line once the last column is full.
        Some(usize::from(columns).saturating_sub(1))
    }
}

/// Shows the progress of a fit after its sweeps.
struct ProgressReporter {
    output: ProgressOutput,
    /// The name of the device, in full and in short.
    device: [String; 2],
    /// When a line was shown last.
    shown: Option<Instant>,
    /// The loss of the sweep before.
    before: Option<f64>,
    /// The first sweep that was seen, and when it ended, in seconds of the fit.
    began: Option<(usize, f64)>,
}

impl Observer for ProgressReporter {
    fn sweep(&mut self, sweep: &Sweep) -> Flow {
        self.began.get_or_insert((sweep.iteration, sweep.seconds));
        if self.shown.is_none_or(|at| at.elapsed() >= self.output.interval()) {
            self.shown = Some(Instant::now());
            let memory = sweep.device_memory.or_else(peak_memory);
            let line = self.line(sweep, memory, self.output.columns());
            match &self.output {
                ProgressOutput::Bar(bar) => bar.set_message(line),
                ProgressOutput::Lines => {
                    let _ = writeln!(std::io::stderr().lock(), "{line}");
                }
            }
        }
        self.before = Some(sweep.loss);
        Flow::Continue
    }
}

/// A part of the line, in full and in short.
struct LinePart {
    full: String,
    short: String,
    /// Which parts are left out first where there is no room: those of high rank.
    rank: usize,
}

/// A loss, with four digits that count.
fn brief(x: f64) -> String {
    match x.abs() {
        size if (1e-3..1e4).contains(&size) => {
            format!("{x:.*}", (3.0 - size.log10().floor()) as usize)
        }
        _ => format!("{x:.2e}"),
    }
}

/// Between parts.
const GAP: &str = "  ";
/// Columns of the bar inside its brackets.
const BAR: usize = 10;

impl ProgressReporter {
    fn new(output: ProgressOutput, device: &str) -> ProgressReporter {
        // As in "gpu (NVIDIA H100, Vulkan, driver …)" and "cpu (2 threads, 256-bit SIMD)".
        let (kind, about) = device.split_once(" (").unwrap_or((device, ""));
        let first = about.split(',').next().unwrap_or("").trim_end_matches(')');
        let full = match kind {
            "gpu" => first.to_string(),
            _ => format!("{kind}, {first}"),
        };
        ProgressReporter {
            output,
            device: [full, kind.into()],
            shown: None,
            before: None,
            began: None,
        }
    }

    /// What is known after a sweep, in as many columns.
    fn line(&self, sweep: &Sweep, memory: Option<u64>, columns: Option<usize>) -> String {
        let parts = self.parts(sweep, memory);
        let Some(columns) = columns else {
            let full: Vec<&str> = parts.iter().map(|part| part.full.as_str()).collect();
            return full.join(GAP);
        };
        let width = |text: &str| text.chars().count();
        let mut ranked: Vec<usize> = (0..parts.len()).collect();
        ranked.sort_by_key(|&i| parts[i].rank);
        let mut left = columns + GAP.len();
        // First in short as many as there is room for, then in full as many of these.
        let mut shown: Vec<Option<&str>> = vec![None; parts.len()];
        for &i in &ranked {
            let needed = width(&parts[i].short) + GAP.len();
            if needed <= left {
                left -= needed;
                shown[i] = Some(&parts[i].short);
            }
        }
        for &i in &ranked {
            let more = width(&parts[i].full) - width(&parts[i].short).min(width(&parts[i].full));
            if shown[i].is_some() && more <= left {
                left -= more;
                shown[i] = Some(&parts[i].full);
            }
        }
        let shown: Vec<&str> = shown.into_iter().flatten().collect();
        let line = shown.join(GAP);
        match left >= BAR + 2 + GAP.len() && sweep.max_iter > 0 {
            true => {
                let done = (BAR * sweep.iteration.min(sweep.max_iter)) / sweep.max_iter;
                format!("[{}{}]{GAP}{line}", "#".repeat(done), "-".repeat(BAR - done))
            }
            false => line,
        }
    }

    fn parts(&self, sweep: &Sweep, memory: Option<u64>) -> Vec<LinePart> {
        let mut parts = Vec::new();
        let mut add = |rank: usize, full: String, short: String| {
            parts.push(LinePart { full, short, rank });
        };
        let count = format!("{}/{}", sweep.iteration, sweep.max_iter);
        add(0, format!("sweep {count}"), count);
        add(1, format!("loss {}", number(sweep.loss)), format!("loss {}", brief(sweep.loss)));
        if sweep.failed_checkpoints > 0 {
            add(2, "checkpoint not written".into(), "NOT SAVED".into());
        }
        // Of the loss, as the tolerance is.
        let change = self.before.map(|before| (sweep.loss - before) / sweep.loss.abs());
        if let Some(change) = change.filter(|change| change.is_finite()) {
            add(4, format!("change {change:+.1e}"), format!("{change:+.1e}"));
        }
        if let Some(loss) = sweep.validation_loss {
            add(6, format!("validation {}", number(loss)), format!("val {}", brief(loss)));
        }
        if let Some(loss) = sweep.heldout_loss {
            add(5, format!("held-out {}", number(loss)), format!("out {}", brief(loss)));
        }
        let (first, start) = self.began.unwrap_or((sweep.iteration, sweep.seconds));
        let each = (sweep.seconds - start) / sweep.iteration.saturating_sub(first) as f64;
        if each.is_finite() && each > 0.0 {
            match each < 1.0 {
                true => {
                    let rate = 1.0 / each;
                    let rate =
                        if rate < 100.0 { format!("{rate:.1}") } else { format!("{rate:.0}") };
                    add(7, format!("{rate} sweeps/s"), format!("{rate}/s"));
                }
                false => add(7, format!("{each:.1} s/sweep"), format!("{each:.0} s each")),
            }
            // It may stop before that.
            let left = each * sweep.max_iter.saturating_sub(sweep.iteration) as f64;
            let left = duration(left);
            add(3, format!("at most {left} left"), format!("<{left}"));
        }
        let with = |name: &str, between: &str| match memory {
            Some(memory) => format!("{name}{between}{}", bytes(memory)),
            None => name.to_string(),
        };
        add(8, with(&self.device[0], ", "), with(&self.device[1], " "));
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sweep() -> Sweep {
        Sweep {
            iteration: 10,
            max_iter: 100,
            loss: 0.5,
            validation_loss: None,
            heldout_loss: Some(0.625),
            seconds: 3.0,
            device_memory: None,
            failed_checkpoints: 0,
        }
    }

    fn reporter() -> ProgressReporter {
        let reporter =
            ProgressReporter::new(ProgressOutput::Lines, "cpu (2 threads, 256-bit SIMD)");
        ProgressReporter { before: Some(0.75), began: Some((0, 1.0)), ..reporter }
    }

    #[test]
    fn a_line_says_what_is_known() {
        let (reporter, sweep) = (reporter(), sweep());
        assert_eq!(
            reporter.line(&sweep, Some(96 << 20), None),
            "sweep 10/100  loss 0.500000  change -5.0e-1  held-out 0.625000  5.0 sweeps/s  at most 18 s left  cpu, 2 threads, 96 MiB"
        );
        let start = Sweep { iteration: 0, heldout_loss: None, seconds: 1.0, ..sweep };
        let reporter = ProgressReporter { before: None, ..reporter };
        assert_eq!(reporter.line(&start, None, None), "sweep 0/100  loss 0.500000  cpu, 2 threads");
        // Resumed, it counts what it saw, and slow sweeps by their seconds.
        let reporter = ProgressReporter { began: Some((8, 1.0)), before: None, ..reporter };
        let slow = Sweep { seconds: 9.0, heldout_loss: None, ..sweep };
        assert!(
            reporter.line(&slow, None, None).contains("4.0 s/sweep  at most 6 min left"),
            "{}",
            reporter.line(&slow, None, None)
        );
    }

    #[test]
    fn a_line_never_wraps() {
        let reporter = reporter();
        let long = Sweep {
            iteration: 123_456,
            max_iter: 1_000_000,
            loss: -123.456,
            validation_loss: Some(1.5e-9),
            failed_checkpoints: 1,
            ..sweep()
        };
        for sweep in [sweep(), long] {
            for columns in 0..200 {
                let line = reporter.line(&sweep, Some(96 << 20), Some(columns));
                assert!(line.len() <= columns, "{columns}: {line}");
            }
        }
        assert_eq!(
            reporter.line(&sweep(), None, Some(39)),
            "10/100  loss 0.500000  -5.0e-1  <18 s"
        );
        assert_eq!(
            [brief(0.0518784), brief(-123.456), brief(9999.9)],
            ["0.05188", "-123.5", "10000"]
        );
        assert_eq!([brief(1.5e-9), brief(0.0)], ["1.50e-9", "0.00e0"]);
        assert!(reporter.line(&long, None, Some(60)).contains("NOT SAVED"));
        let wide = reporter.line(&sweep(), None, Some(150));
        assert!(wide.starts_with("[#---------]  sweep 10/100  loss"), "{wide}");
    }
}
