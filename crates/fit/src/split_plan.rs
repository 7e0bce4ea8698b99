//! What a fit will do where some of the entries are withheld.

use std::fmt;

use crate::builder::NNEinFact;
use crate::closed_forms::{RoleCosts, Steps};
use crate::constraints::Constraints;
use crate::format;
use crate::settings::Settings;
use nneinfact_core::data::{SplitKind, check_zeros_per_nonzero};
use nneinfact_core::error::{Error, Result, bytes};
use nneinfact_core::model::Shapes;
use nneinfact_core::plan::{ImplicitForm, Plan};

/// The plan of a fit of which a share of the entries is withheld at random: what
/// [`NNEinFact::split_plan`](crate::NNEinFact::split_plan) makes.
#[derive(Clone, Debug)]
pub struct SplitPlan {
    plan: Plan,
    withheld: f64,
    /// How many entries the rows of a pass list, about.
    #[cfg_attr(not(feature = "gpu"), allow(dead_code, reason = "a GPU's programs depend on it"))]
    listed: u64,
    costs: Option<RoleCosts>,
    exact: bool,
    /// How many of the withheld entries are zeros that were drawn, by strata.
    drawn: Option<f64>,
}

/// How entries are withheld, as far as a program of a GPU depends on it.
#[cfg(feature = "gpu")]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Withholding {
    /// How many entries the rows of a pass list.
    pub listed: u64,
    /// Whether steps are exact.
    pub exact: bool,
    /// Whether the withheld entries are stored like all others.
    pub by_strata: bool,
}

impl NNEinFact {
    /// The plan for data of this shape of which a share of the entries is withheld at random, without
    /// fitting: dense data with so many bytes a value or, where `nonzeros` are given, so many stored
    /// entries, all others being zeros.
    ///
    /// ```
    /// use nneinfact::NNEinFact;
    ///
    /// let settings = NNEinFact::new("ir,jr->ij")?.ranks([('r', 10)]);
    /// let plan = settings.split_plan(&[4000, 3000], 4, Some(100_000), 0.1)?;
    /// // Each of two passes adds up ten numbers for every withheld entry, and forms no ŷ there.
    /// assert_eq!(plan.additions(), Some(2.0 * 10.0 * 1_200_000.0));
    /// # Ok::<(), nneinfact::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`sparse_plan`](Self::sparse_plan), and [`Error::Setting`] where the share is not between 0
    /// and 1, or entries of a list are too many to be withheld one by one.
    pub fn split_plan(
        &self,
        shape: &[usize],
        value_bytes: usize,
        nonzeros: Option<u64>,
        withheld: f64,
    ) -> Result<SplitPlan> {
        let shapes = Shapes::new(&self.settings.model, shape, &self.settings.ranks)?;
        SplitPlan::new(&self.settings, &shapes, value_bytes, nonzeros, withheld)
    }

    /// The plan for a list of so many stored entries, all others being zeros, of which a share is withheld
    /// by strata: this share of the stored entries, and so many zeros beside each of them
    /// ([`SplitKind::Strata`](nneinfact_core::data::SplitKind::Strata)). What it costs does not depend on
    /// the size of the tensor.
    ///
    /// ```
    /// use nneinfact::NNEinFact;
    ///
    /// let settings = NNEinFact::new("ir,jr->ij")?.ranks([('r', 10)]);
    /// let plan = settings.strata_plan(&[4_000_000, 3_000_000], 100_000, 0.1, 1.0)?;
    /// assert_eq!(plan.withheld(), 20_000.0);
    /// # Ok::<(), nneinfact::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`split_plan`](Self::split_plan), and [`Error::Observations`] where the number of zeros is not
    /// above 0 and at most 10⁶.
    pub fn strata_plan(
        &self,
        shape: &[usize],
        nonzeros: u64,
        withheld: f64,
        zeros_per_nonzero: f64,
    ) -> Result<SplitPlan> {
        check_share(withheld)?;
        check_zeros_per_nonzero(zeros_per_nonzero)?;
        let settings = &self.settings;
        let shapes = Shapes::new(&settings.model, shape, &settings.ranks)?;
        let plan =
            format::plan_of_strata(settings, &shapes, nonzeros, withheld, zeros_per_nonzero)?;
        let stored = withheld * nonzeros as f64;
        let drawn = zeros_per_nonzero * stored;
        let withheld = stored + drawn;
        let constraints = Constraints::new(settings, &shapes)?;
        let steps = Steps::new(settings, &constraints, on_cpu(settings));
        let listed = withheld as u64;
        let costs = RoleCosts::new(&plan, steps.term(), listed, settings.precision.bytes());
        let exact = steps.exact && costs.is_some_and(|costs| costs.fit(settings, &plan));
        Ok(SplitPlan { plan, withheld, listed, costs: None, exact, drawn: Some(drawn) })
    }
}

fn on_cpu(settings: &Settings) -> bool {
    settings.device.as_ref().is_none_or(|device| device.kind_name() == "cpu")
}

fn check_share(share: f64) -> Result<()> {
    if share > 0.0 && share < 1.0 {
        return Ok(());
    }
    Err(Error::Setting(format!(
        "the share of entries that is withheld is a number between 0 and 1, not {share}"
    )))
}

impl SplitPlan {
    fn new(
        settings: &Settings,
        shapes: &Shapes,
        value_bytes: usize,
        nonzeros: Option<u64>,
        share: f64,
    ) -> Result<SplitPlan> {
        check_share(share)?;
        let volume = shapes.volume(shapes.model().observed());
        if nonzeros.is_some() && SplitKind::Auto.of_list(volume as u128) == SplitKind::Strata {
            return Err(Error::Setting(format!(
                "of the {volume:.1e} entries of a list none can be withheld one by one: withhold by strata (strata_plan, --heldout-as strata)"
            )));
        }
        let constraints = Constraints::new(settings, shapes)?;
        let steps = Steps::new(settings, &constraints, on_cpu(settings));
        let plan = match nonzeros {
            Some(nonzeros) => {
                format::plan_of_split_nonzeros(settings, shapes, nonzeros, share, steps)?
            }
            None => format::plan_of_split(settings, shapes, value_bytes)?,
        };
        let withheld = share * volume;
        let listed = withheld.min(withheld / share - withheld) as u64;
        let by_role = match plan.settings().sparse {
            Some(sparse) => sparse.implicit == ImplicitForm::ByRole,
            None => plan.settings().closed_denominator || steps.exact,
        };
        let costs = by_role
            .then(|| RoleCosts::new(&plan, steps.term(), listed, settings.precision.bytes()));
        let costs = costs.flatten().filter(|costs| costs.fit(settings, &plan));
        // A plan of sums by roles is one for exact steps, whatever memory holds.
        let lists = plan.settings().sparse;
        let by_role = lists.is_some_and(|sparse| sparse.implicit == ImplicitForm::ByRole);
        let exact = steps.exact && (costs.is_some() || by_role);
        Ok(SplitPlan { plan, withheld, listed, costs, exact, drawn: None })
    }

    /// The plan of the passes.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What a program of a GPU depends on.
    #[cfg(feature = "gpu")]
    pub(crate) fn withholding(&self) -> Withholding {
        Withholding { listed: self.listed, exact: self.exact, by_strata: self.drawn.is_some() }
    }

    /// How many entries are withheld, about.
    #[must_use]
    pub fn withheld(&self) -> f64 {
        self.withheld
    }

    /// Additions of a sweep over withheld entries; `None` where they have no closed form, so that
    /// passes take them entry by entry.
    #[must_use]
    pub fn additions(&self) -> Option<f64> {
        self.costs.map(|costs| costs.additions)
    }
}

impl fmt::Display for SplitPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.plan)?;
        if let Some(drawn) = self.drawn {
            return write!(
                f,
                "withheld by strata {:.3e} stored entries and {drawn:.3e} zeros that stand for the others, stored like them",
                self.withheld - drawn
            );
        }
        write!(f, "withheld {:.3e} entries: ", self.withheld)?;
        match self.costs {
            Some(costs) if self.exact => write!(
                f,
                "exact steps by the quadratic form of every row, {:.3e} additions a sweep over lists of them; {} for lists and forms",
                costs.additions,
                bytes(costs.bytes)
            ),
            Some(costs) => write!(
                f,
                "taken off the denominator's closed form, {:.3e} additions a sweep over lists of them; {} for lists and sums",
                costs.additions,
                bytes(costs.bytes)
            ),
            None => f.write_str("no closed form; passes read the role of every entry"),
        }
    }
}
