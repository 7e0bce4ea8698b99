//! How entries are withheld at random.

use clap::{Args, ValueEnum};

use nneinfact_core::data::SplitKind;
use nneinfact_core::error::{Error, Result};

/// The values of `--heldout-as`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum HeldoutAsArg {
    /// By strata where a list's tensor has more than 10⁹ entries, and those that it does not list are
    /// zeros; else as cells
    Auto,
    /// Every observed entry by itself
    Cells,
    /// For lists: stored entries by themselves, and a few zeros of all that are not stored, each of
    /// which counts for many in the reported losses
    Strata,
}

impl From<HeldoutAsArg> for SplitKind {
    fn from(kind: HeldoutAsArg) -> SplitKind {
        match kind {
            HeldoutAsArg::Auto => SplitKind::Auto,
            HeldoutAsArg::Cells => SplitKind::Cells,
            HeldoutAsArg::Strata => SplitKind::Strata,
        }
    }
}

/// What goes with `--heldout` and `--validation`.
#[derive(Clone, Debug, Default, Args)]
#[group(skip)]
pub struct SplitArgs {
    /// How --heldout and --validation withhold entries [default: auto]
    #[arg(long, value_enum)]
    pub heldout_as: Option<HeldoutAsArg>,

    /// By strata, how many zeros to draw beside each stored entry that is withheld [default: 1]
    #[arg(long, value_name = "R", allow_negative_numbers = true)]
    pub zeros_per_nonzero: Option<f64>,
}

impl SplitArgs {
    /// Refuses what would have no effect; `splits` says whether anything is withheld at random.
    pub fn check(&self, splits: bool) -> Result<()> {
        let refuse = |text: &str| Err(Error::Setting(text.into()));
        match (self.heldout_as, self.zeros_per_nonzero) {
            (Some(_), _) if !splits => refuse(
                "--heldout-as says how --heldout and --validation withhold entries, and neither is given",
            ),
            (_, Some(_)) if !splits => refuse(
                "--zeros-per-nonzero is for the splits of --heldout and --validation, and neither is given",
            ),
            (Some(HeldoutAsArg::Cells), Some(_)) => refuse(
                "--zeros-per-nonzero is for splits by strata, and --heldout-as cells asks for others",
            ),
            _ => Ok(()),
        }
    }

    /// The kind of split, where one was asked for.
    pub fn kind(&self) -> Option<SplitKind> {
        self.heldout_as.map(Into::into)
    }

    /// The first option that was given.
    pub fn any(&self) -> Option<&'static str> {
        let given = [
            ("--heldout-as", self.heldout_as.is_some()),
            ("--zeros-per-nonzero", self.zeros_per_nonzero.is_some()),
        ];
        given.into_iter().find(|(_, given)| *given).map(|(option, _)| option)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_effect_is_refused() {
        let args = |kind, zeros| SplitArgs { heldout_as: kind, zeros_per_nonzero: zeros };
        assert!(args(None, None).check(false).is_ok());
        assert!(args(Some(HeldoutAsArg::Strata), Some(2.0)).check(true).is_ok());
        assert!(args(None, Some(2.0)).check(true).is_ok());
        for (kind, zeros, splits) in [
            (Some(HeldoutAsArg::Strata), None, false),
            (None, Some(2.0), false),
            (Some(HeldoutAsArg::Cells), Some(2.0), true),
        ] {
            assert!(args(kind, zeros).check(splits).is_err(), "{kind:?} {zeros:?}");
        }
    }
}
