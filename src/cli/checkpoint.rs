//! The arguments about checkpoints.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::complain;
use super::output::{check_writable, is_ordinary, same_file};
use super::summary::FitSummary;
use nneinfact_core::error::{Error, Result};
use nneinfact_fit::{Checkpoint, Every, Fit, NNEinFact, StoppedBy};

/// Saving a fit that is under way, and going on from there.
#[derive(Debug, Args)]
#[group(skip)]
pub struct CheckpointArgs {
    /// Save the fit in this file now and then, and where it ends or is interrupted, for --resume. Killed
    /// at any moment, it leaves the newest one that is complete
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,

    /// How often: every so many sweeps (20), every so often (30s, 5min, 1h), or both (20,5min)
    #[arg(
        long,
        value_name = "SWEEPS|TIME",
        requires = "checkpoint",
        value_delimiter = ',',
        default_value = "60s",
        value_parser = every
    )]
    checkpoint_every: Vec<Every>,

    /// Go on from the file of --checkpoint, with the same result as if there had been no interruption;
    /// --max-iter and --tol may differ. Where there is no such file yet the fit starts anew, so that
    /// one command line serves for both
    #[arg(long, requires = "checkpoint")]
    resume: bool,
}

impl CheckpointArgs {
    /// Checks that the file can be written, and that it is none of the others.
    pub fn check(&self, inputs: &[&Path], outputs: &[&Path]) -> Result<()> {
        let Some(path) = &self.checkpoint else { return Ok(()) };
        let refuse =
            |why: String| Err(Error::Setting(format!("--checkpoint {} {why}", path.display())));
        check_writable("--checkpoint", path)?;
        if let Some(input) = inputs.iter().find(|input| same_file(input, path)) {
            return refuse(format!("would replace {}, which is read", input.display()));
        }
        if outputs
            .iter()
            .any(|output| is_ordinary(path) && (*output == path || same_file(output, path)))
        {
            return refuse("is where a result is to be written: choose another name".into());
        }
        if !self.resume && is_there(path) {
            return refuse(
                "is there already: --resume goes on from it; to start anew, remove it or choose another name"
                    .into(),
            );
        }
        Ok(())
    }

    /// Whether a fit is saved.
    pub fn is_asked_for(&self) -> bool {
        self.checkpoint.is_some()
    }

    /// Puts them into the settings of a fit; says where it goes on from.
    pub fn apply(&self, mut settings: NNEinFact, quiet: bool) -> Result<NNEinFact> {
        let Some(path) = &self.checkpoint else { return Ok(settings) };
        let every = self.checkpoint_every.iter().copied().reduce(Every::or).unwrap_or_default();
        settings = settings.checkpoint(path, every);
        if !self.resume {
            return Ok(settings);
        }
        let notice = |text: String| {
            if !quiet {
                complain("notice", &text);
            }
        };
        if !is_there(path) {
            notice(format!(
                "there is no {} to go on from yet: the fit starts anew",
                path.display()
            ));
            return Ok(settings);
        }
        let checkpoint = Checkpoint::read(path)?;
        notice(format!("going on from {}, after sweep {}", path.display(), checkpoint.sweeps()));
        Ok(settings.resume(checkpoint))
    }

    /// Says what became of the file.
    pub fn describe(&self, fit: &Fit, summary: &mut FitSummary) {
        let Some(path) = self.checkpoint.as_ref().filter(|path| is_ordinary(path)) else { return };
        let how = match fit.history().stopped_by {
            StoppedBy::MaxIter => "--resume with a larger --max-iter goes on from it",
            StoppedBy::Precision => "--resume with --tol 0 goes on from it",
            StoppedBy::Tolerance => "--resume with a smaller --tol goes on from it",
            StoppedBy::Validation | StoppedBy::Interrupted | StoppedBy::Observer => {
                "--resume goes on from it"
            }
        };
        summary.add("checkpoint", format!("{}: {how}", path.display()));
    }
}

/// Whether there is something in a file; a terminal or a pipe has nothing to go on from.
fn is_there(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|file| file.is_file() && file.len() > 0)
}

/// How often, as in `20`, `30s`, `5min`, `1h`.
fn every(text: &str) -> Result<Every, String> {
    let expected = "a number of sweeps as in 20, or a time as in 30s, 5min or 1h, is expected";
    let text = text.trim();
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let seconds = match unit.trim() {
        "" => {
            let sweeps: usize = number.parse().map_err(|_| expected)?;
            return match sweeps {
                0 => Err(format!("every 0 sweeps is not possible: {expected}")),
                n => Ok(Every::sweeps(n)),
            };
        }
        "s" | "sec" => 1.0,
        "min" | "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(expected.into()),
    };
    let number: f64 = number.parse().map_err(|_| expected)?;
    let time = Duration::try_from_secs_f64(number * seconds).map_err(|_| expected)?;
    Ok(Every::time(time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_often() {
        let time = |seconds: f64| Ok(Every::time(Duration::from_secs_f64(seconds)));
        assert_eq!(every("20"), Ok(Every::sweeps(20)));
        assert_eq!(every("30s"), time(30.0));
        assert_eq!(every(" 1.5 min "), time(90.0));
        assert_eq!(every("5min"), time(300.0));
        assert_eq!(every("0.5h"), time(1800.0));
        for bad in ["", "0", "-1", "1.5", "min", "5 weeks", "s5", "1e3s", "5.5.5s", "9e99h"] {
            assert!(every(bad).is_err(), "{bad}");
        }
    }
}
