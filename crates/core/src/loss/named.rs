//! The table of losses that have a name, with the parameters that each takes.
//!
//! The command line, studies and files of fits find a loss here by its name. A loss that joins the
//! table is found by all of them; one that needs a new parameter adds it to [`LossParameter`], and
//! the compiler names the places that have to know it.

use crate::error::{Error, Result};

use super::text::PREFIX;
use super::{EntryParameter, Loss};

/// A loss that has a name.
#[derive(Clone, Copy, Debug)]
pub struct LossSpec {
    /// The name.
    pub name: &'static str,
    /// The parameters that it takes, all of which have to be given, in the order in which
    /// [`Loss::name`] writes them.
    pub parameters: &'static [LossParameter],
    make: fn(&Given<'_>) -> Result<Loss>,
}

/// A parameter of a named loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossParameter {
    /// α of alpha and alpha-beta.
    Alpha,
    /// β of alpha-beta, or b of beta.
    Beta,
    /// φ of negative-binomial.
    Dispersion,
    /// n of binomial.
    Trials,
    /// p of tweedie.
    Power,
}

impl LossParameter {
    /// All parameters.
    pub const ALL: [LossParameter; 5] = [
        LossParameter::Alpha,
        LossParameter::Beta,
        LossParameter::Dispersion,
        LossParameter::Trials,
        LossParameter::Power,
    ];

    /// The name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            LossParameter::Alpha => "alpha",
            LossParameter::Beta => "beta",
            LossParameter::Dispersion => "dispersion",
            LossParameter::Trials => "trials",
            LossParameter::Power => "power",
        }
    }
}

/// The parameters that [`Loss::named`] may need, each given or not.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct LossParameters {
    /// α of alpha and alpha-beta.
    pub alpha: Option<f64>,
    /// β of alpha-beta, or b of beta.
    pub beta: Option<f64>,
    /// φ of negative-binomial.
    pub dispersion: Option<EntryParameter>,
    /// n of binomial.
    pub trials: Option<EntryParameter>,
    /// p of tweedie, the variance being proportional to the mean to this power.
    pub power: Option<f64>,
}

impl LossParameters {
    /// Whether a parameter is given.
    #[must_use]
    pub fn has(&self, parameter: LossParameter) -> bool {
        match parameter {
            LossParameter::Alpha => self.alpha.is_some(),
            LossParameter::Beta => self.beta.is_some(),
            LossParameter::Dispersion => self.dispersion.is_some(),
            LossParameter::Trials => self.trials.is_some(),
            LossParameter::Power => self.power.is_some(),
        }
    }
}

/// The parameters given for a loss of the table.
struct Given<'a> {
    spec: &'a LossSpec,
    parameters: &'a LossParameters,
}

impl Given<'_> {
    fn need<A: Clone>(&self, value: &Option<A>, parameter: LossParameter) -> Result<A> {
        value.clone().ok_or_else(|| {
            Error::Loss(format!(
                "the {} loss needs {}: {} is missing",
                self.spec.name,
                self.spec.parameter_names().join(" and "),
                parameter.name()
            ))
        })
    }

    fn alpha(&self) -> Result<f64> {
        self.need(&self.parameters.alpha, LossParameter::Alpha)
    }

    fn beta(&self) -> Result<f64> {
        self.need(&self.parameters.beta, LossParameter::Beta)
    }

    fn dispersion(&self) -> Result<EntryParameter> {
        self.need(&self.parameters.dispersion, LossParameter::Dispersion)
    }

    fn trials(&self) -> Result<EntryParameter> {
        self.need(&self.parameters.trials, LossParameter::Trials)
    }

    fn power(&self) -> Result<f64> {
        self.need(&self.parameters.power, LossParameter::Power)
    }
}

/// A loss without parameters.
const fn plain(name: &'static str, make: fn(&Given<'_>) -> Result<Loss>) -> LossSpec {
    LossSpec { name, parameters: &[], make }
}

/// The losses that [`Loss::named`] knows.
pub static LOSSES: [LossSpec; 21] = {
    use LossParameter::{Alpha, Beta, Dispersion, Power, Trials};
    [
        plain("kl", |_| Ok(Loss::kl())),
        plain("euclidean", |_| Ok(Loss::euclidean())),
        plain("itakura-saito", |_| Ok(Loss::itakura_saito())),
        plain("hellinger", |_| Ok(Loss::hellinger())),
        plain("reverse-kl", |_| Ok(Loss::reverse_kl())),
        plain("neyman", |_| Ok(Loss::neyman())),
        plain("pearson", |_| Ok(Loss::pearson())),
        LossSpec { name: "alpha", parameters: &[Alpha], make: |given| Loss::alpha(given.alpha()?) },
        LossSpec { name: "beta", parameters: &[Beta], make: |given| Loss::beta(given.beta()?) },
        LossSpec {
            name: "alpha-beta",
            parameters: &[Alpha, Beta],
            make: |given| Loss::alpha_beta(given.alpha()?, given.beta()?),
        },
        LossSpec {
            name: "negative-binomial",
            parameters: &[Dispersion],
            make: |given| Loss::negative_binomial(given.dispersion()?),
        },
        plain("geometric", |_| Ok(Loss::geometric())),
        plain("bernoulli", |_| Ok(Loss::bernoulli())),
        LossSpec {
            name: "binomial",
            parameters: &[Trials],
            make: |given| Loss::binomial(given.trials()?),
        },
        plain("jensen-shannon", |_| Ok(Loss::jensen_shannon())),
        plain("poisson", |_| Ok(Loss::kl().called("poisson"))),
        plain("gaussian", |_| Ok(Loss::euclidean().called("gaussian"))),
        plain("gamma", |_| Ok(Loss::itakura_saito().called("gamma"))),
        plain("exponential", |_| Ok(Loss::itakura_saito().called("exponential"))),
        plain("rayleigh", |_| Ok(Loss::alpha_beta(2.0, -2.0)?.called("rayleigh"))),
        LossSpec {
            name: "tweedie",
            parameters: &[Power],
            make: |given| Loss::tweedie(given.power()?),
        },
    ]
};

/// The names that [`Loss::named`] knows, in the order of [`LOSSES`].
pub static NAMES: [&str; LOSSES.len()] = {
    let mut names = [""; LOSSES.len()];
    let mut i = 0;
    while i < names.len() {
        names[i] = LOSSES[i].name;
        i += 1;
    }
    names
};

impl LossSpec {
    /// The loss of this name, where there is one.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static LossSpec> {
        LOSSES.iter().find(|spec| spec.name == name)
    }

    /// The names of the parameters.
    #[must_use]
    pub fn parameter_names(&self) -> Vec<&'static str> {
        self.parameters.iter().map(|parameter| parameter.name()).collect()
    }
}

/// The name that was meant by one that is none: it differs in how words are joined or in few letters, or is the
/// rest of what was begun.
fn nearest(text: &str) -> Option<&'static str> {
    let text: String = text.trim().to_lowercase().replace(['_', ' '], "-");
    let length = text.chars().count();
    let begun = || NAMES.into_iter().find(|name| length >= 3 && name.starts_with(&text));
    let close = NAMES.into_iter().map(|name| (edits(&text, name), name)).min();
    // A third of the letters, for which a name of two or three has to be nearly right.
    close.filter(|(edits, _)| *edits <= length / 3).map(|(_, name)| name).or_else(begun)
}

/// The least number of letters to insert, delete, replace or swap with the next that makes one text of another.
fn edits(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=to.len()).collect()];
    for i in 1..=from.len() {
        let mut row = vec![i];
        for j in 1..=to.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(from[i - 1] != to[j - 1]);
            let mut least = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[from.len()][to.len()]
}

impl Loss {
    /// The loss of a name of [`NAMES`], or of a text as [`Loss::parse`] reads it, for command lines and
    /// configuration files.
    ///
    /// # Errors
    /// As [`Loss::parse`] for a text; [`Error::Loss`] where the name is unknown, a parameter that the loss needs is missing, one
    /// is given that it does not take, or one is outside its range.
    ///
    /// ```
    /// use nneinfact::loss::{Loss, LossParameters};
    ///
    /// let parameters = LossParameters { dispersion: Some(2.0.into()), ..Default::default() };
    /// let loss = Loss::named("negative-binomial", &parameters)?;
    /// assert_eq!(loss.name(), "negative-binomial(2)");
    /// # Ok::<(), nneinfact::Error>(())
    /// ```
    pub fn named(name: &str, parameters: &LossParameters) -> Result<Loss> {
        if name.trim_start().starts_with(PREFIX) {
            return match LossParameter::ALL.into_iter().find(|p| parameters.has(*p)) {
                None => Loss::parse(name),
                Some(parameter) => Err(Error::Loss(format!(
                    "a custom loss does not take {}: its expressions have its numbers",
                    parameter.name()
                ))),
            };
        }
        let Some(spec) = LossSpec::find(name) else {
            let names = match nearest(name) {
                Some(meant) => format!("; did you mean {meant}? The names"),
                None => ": the names".into(),
            };
            return Err(Error::Loss(format!(
                "there is no loss named {name:?}{names} are {}; one of your own begins with custom:",
                NAMES.join(", ")
            )));
        };
        let unwanted = LossParameter::ALL
            .into_iter()
            .find(|parameter| parameters.has(*parameter) && !spec.parameters.contains(parameter));
        if let Some(parameter) = unwanted {
            let takes = match spec.parameters {
                [] => "takes no parameters".to_string(),
                _ => format!("takes {} only", spec.parameter_names().join(" and ")),
            };
            return Err(Error::Loss(format!(
                "the {name} loss does not take {}: it {takes}",
                parameter.name()
            )));
        }
        (spec.make)(&Given { spec, parameters })
    }
}

impl Loss {
    /// The Tweedie deviance of power p, by which the variance grows with the mean: the β-divergence of
    /// β = 2 − p. 0 is Gaussian, 1 Poisson, 2 gamma, 3 inverse Gaussian; between 1 and 2 data are sums of
    /// a Poisson number of gamma variables, with zeros.
    ///
    /// # Errors
    /// [`Error::Loss`] where no distribution has this power, between 0 and 1, and where it is not finite.
    pub fn tweedie(power: f64) -> Result<Loss> {
        if !power.is_finite() || (power > 0.0 && power < 1.0) {
            return Err(Error::Loss(format!(
                "the power of tweedie is {power}, but has to be at most 0 or at least 1: no distribution has \
                 a variance in between"
            )));
        }
        Ok(Loss::beta(2.0 - power)?.called(format!("tweedie({power})")))
    }

    /// The same loss by the name of a distribution.
    fn called(self, name: impl Into<String>) -> Loss {
        let name = name.into();
        let is = match self.name.starts_with("alpha-beta") {
            true => self.name,
            false => self.description.replacen(", that is ", " or ", 1),
        };
        Loss { description: format!("{name}, that is {is}"), name, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_distributions_are_other_names_of_losses() {
        let same = |name: &str, expected: Loss| {
            let loss = Loss::named(name, &LossParameters::default()).unwrap();
            assert_eq!((loss.a(), loss.b()), (expected.a(), expected.b()), "{name}");
            assert_eq!(loss.loss(), expected.loss(), "{name}");
            assert_eq!(loss.domain(), expected.domain(), "{name}");
        };
        same("poisson", Loss::kl());
        same("gaussian", Loss::euclidean());
        same("gamma", Loss::itakura_saito());
        same("exponential", Loss::itakura_saito());
        same("rayleigh", Loss::alpha_beta(2.0, -2.0).unwrap());
        for (power, beta) in [(0.0, 2.0), (1.0, 1.0), (1.5, 0.5), (2.0, 0.0), (3.0, -1.0)] {
            let (found, expected) = (Loss::tweedie(power).unwrap(), Loss::beta(beta).unwrap());
            assert_eq!((found.a(), found.loss()), (expected.a(), expected.loss()), "{power}");
        }
        for power in [0.5, f64::NAN, f64::INFINITY] {
            assert!(Loss::tweedie(power).is_err(), "{power}");
        }
    }

    #[test]
    fn rayleigh_is_a_quarter_of_twice_the_negative_log_likelihood() {
        // −ln p = 2 ln s + x²/(2s²) − ln x with ŷ² = 2s², the mean square.
        let loss = Loss::named("rayleigh", &LossParameters::default()).unwrap();
        let nll = |x: f64, y: f64| {
            let s = y / 2f64.sqrt();
            2.0 * s.ln() + x * x / (2.0 * s * s)
        };
        for (x, y) in [(0.5, 1.0), (2.0, 0.7), (3.0, 4.0)] {
            let found = loss.eval_loss(x, y, &[]) - loss.eval_loss(x, 1.0, &[]);
            let expected = 0.25 * (nll(x, y) - nll(x, 1.0));
            assert!((found - expected).abs() < 1e-12, "{x} {y}: {found} {expected}");
        }
    }

    #[test]
    fn the_name_that_was_meant_is_said() {
        let said =
            |name: &str| Loss::named(name, &LossParameters::default()).unwrap_err().to_string();
        for (name, meant) in [
            ("poison", "poisson"),
            ("Poisson", "poisson"),
            ("guassian", "gaussian"),
            ("itakura_saito", "itakura-saito"),
            ("KL", "kl"),
            ("euclid", "euclidean"),
            ("jensen", "jensen-shannon"),
            ("bernouli", "bernoulli"),
        ] {
            let error = said(name);
            assert!(
                error.contains(&format!("; did you mean {meant}? The names are kl, ")),
                "{error}"
            );
        }
        for name in ["", "l2", "mse", "laplace", "ml"] {
            let error = said(name);
            assert!(
                !error.contains("did you mean") && error.contains(": the names are"),
                "{error}"
            );
        }
    }

    #[test]
    fn every_loss_of_the_table_is_made_from_its_own_parameters() {
        for spec in &LOSSES {
            let wants = |parameter| spec.parameters.contains(&parameter);
            let given = LossParameters {
                alpha: wants(LossParameter::Alpha).then_some(0.7),
                beta: wants(LossParameter::Beta).then_some(0.25),
                dispersion: wants(LossParameter::Dispersion).then_some(2.0.into()),
                trials: wants(LossParameter::Trials).then_some(10.0.into()),
                power: wants(LossParameter::Power).then_some(1.5),
            };
            let loss = Loss::named(spec.name, &given).expect(spec.name);
            let base = loss.name().split('(').next();
            assert_eq!(base, Some(spec.name), "{}", loss.name());
            let missing = Loss::named(spec.name, &LossParameters::default());
            assert_eq!(missing.is_err(), !spec.parameters.is_empty(), "{}", spec.name);
        }
        assert_eq!(NAMES[0], "kl");
        assert!(LossSpec::find("laplace").is_none());
    }
}
