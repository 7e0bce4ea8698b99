//! What a sparse pass adds to numerators, denominators and losses, derived once for every engine.
//!
//! A sparse pass forms ŷ at the stored entries only. Where the implicit entries are zeros, their
//! part is the sum over *all* entries as if all were zeros, and the stored entries add what they
//! have beyond that: `a(x, ŷ) − a(0, ŷ)`, and so on. [`SparseProgram`] is that decomposition as a
//! plain value: the CPU interprets it, and the GPU compiles it.

use crate::data::{Implicit, StoredEntries};
use crate::error::{Error, Result};
use crate::loss::{AtZero, Expr, Loss, ZeroTerm};
use crate::model::Shapes;
use crate::plan::{ImplicitForm, ImplicitTotals, SparsePass};

/// The terms of a fit's sparse passes.
///
/// ```
/// use nneinfact::data::Implicit;
/// use nneinfact::engine::{SparseProgram, ZeroContraction, ZeroSum};
/// use nneinfact::loss::Loss;
///
/// let program = SparseProgram::new(&Loss::kl(), Implicit::Zeros);
/// // KL's denominator is 1 at every entry, stored or not: a contraction of the other factors.
/// let of = ZeroContraction::OtherFactors;
/// assert_eq!(program.all.denominator, ZeroSum::Contraction { coefficient: 1.0, of });
/// assert_eq!(program.stored.denominator, None);
/// assert_eq!(program.stored.numerator.to_string(), "x / y");
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct SparseProgram {
    /// What the implicit entries are.
    pub implicit: Implicit,
    /// The sums over all entries as if all were zeros.
    pub all: ZeroSums,
    /// What each stored entry that the factors are fitted to adds.
    pub stored: StoredTerms,
    /// What each masked entry, a stored one that the factors are not fitted to, changes.
    pub masked: MaskedTerms,
}

/// The sums over all entries as if all were zeros, of `a V`, `b V` and ℓ, V being the product of
/// the factors outside the group.
#[derive(Clone, Debug, PartialEq)]
pub struct ZeroSums {
    /// Of the numerator.
    pub numerator: ZeroSum,
    /// Of the denominator.
    pub denominator: ZeroSum,
    /// Of the loss.
    pub loss: ZeroSum,
}

/// One sum over all entries as if all were zeros.
#[derive(Clone, Debug, PartialEq)]
pub enum ZeroSum {
    /// There is none: implicit entries are missing, or the term is 0 at a datum of 0.
    Nothing,
    /// A closed form: a coefficient times a contraction of factors.
    Contraction {
        /// The coefficient. It may be 0 in a denominator, which is there nevertheless.
        coefficient: f64,
        /// What is contracted.
        of: ZeroContraction,
    },
    /// No closed form: the implicit-zero pass, which goes over all entries and reads no values,
    /// sums this expression of `y` and entry parameters.
    ImplicitZeroPass(Expr),
}

/// What the closed form of a sum over all entries is a multiple of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZeroContraction {
    /// `Σ V`, the factors outside the group contracted: [`SparsePass::closed`].
    OtherFactors,
    /// `Σ ŷ V`, the model contracted with the factors outside the group: [`SparsePass::gram`].
    Gram,
    /// The number of entries.
    EntryCount,
    /// `Σ ŷ`: [`ImplicitTotals::linear`].
    LinearTotal,
    /// `Σ ŷ²`: [`ImplicitTotals::square`].
    SquareTotal,
}

/// What a stored entry that the factors are fitted to adds, beyond what the sums over all entries
/// have of it.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredTerms {
    /// To the numerator.
    pub numerator: Expr,
    /// To the denominator; `None` where `b` does not depend on the datum, so that nothing is left.
    pub denominator: Option<Expr>,
    /// Its loss.
    pub loss: Expr,
    /// What the training loss of all entries has of it, to be taken off; `None` where that is 0.
    pub zero_loss: Option<Expr>,
}

/// What a masked entry changes.
#[derive(Clone, Debug, PartialEq)]
pub struct MaskedTerms {
    /// What the numerator's sum over all entries has of it, to be taken off.
    pub numerator: Option<Expr>,
    /// What the denominator's sum over all entries has of it, to be taken off.
    pub denominator: Option<Expr>,
    /// Its loss, for the role that it has, times its weight; a missing entry has none.
    pub loss: Expr,
    /// Which entry parameter its weight is, behind those of the loss; `None` where all weights are 1.
    /// Zeros that a split by strata drew have others ([`StoredEntries::weight`]).
    pub weight: Option<usize>,
    /// What losses over all entries have of it.
    pub zero_loss: MaskedZeroLoss,
}

/// Which loss over all entries has a masked entry in it as a zero, and is to be corrected.
#[derive(Clone, Debug, PartialEq)]
pub enum MaskedZeroLoss {
    /// None.
    Nothing,
    /// The loss of the entry's own role: the implicit-zero pass knows the roles of all entries.
    OwnRole(Expr),
    /// The training loss, whatever role the entry has: the closed form knows no roles.
    Training(Expr),
}

/// A step of a sparse pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SparseStep {
    /// [`SparseProgram::stored`] over the stored entries that the factors are fitted to.
    StoredEntries,
    /// [`SparseProgram::masked`] over the masked entries. What it takes off the denominator is kept
    /// apart until [`CorrectDenominator`](Self::CorrectDenominator).
    MaskedEntries,
    /// The dense pass for every [`ZeroSum::ImplicitZeroPass`].
    ImplicitZeroPass,
    /// The closed form of [`ZeroSums::numerator`].
    NumeratorContraction,
    /// The closed form of [`ZeroSums::denominator`].
    DenominatorContraction,
    /// The closed form of [`ZeroSums::loss`].
    LossContraction,
    /// Every closed form at once, where implicit entries have roles: sums over the entries of each
    /// role, in place of the three contractions over all entries.
    RoleSums,
    /// Takes the masked entries off the denominator. What is left of a sum of positive terms cannot
    /// be negative, but for rounding: it is clamped at 0.
    CorrectDenominator,
    /// Sets the rows of numerator and denominator to 0 that have no entry to fit to: what is left
    /// there is rounding errors.
    ClearEmptyRows,
}

impl ZeroSum {
    /// The closed form where the term is a multiple of ŷ to one of these powers, in order.
    fn new(term: &ZeroTerm, powers: &[ZeroContraction]) -> ZeroSum {
        let closed = term.monomial().and_then(|m| {
            let at = (0..powers.len()).find(|&power| power as f64 == m.power)?;
            Some(ZeroSum::Contraction { coefficient: m.coefficient, of: powers[at] })
        });
        closed.unwrap_or_else(|| ZeroSum::ImplicitZeroPass(term.expr().clone()))
    }

    /// The same, and nothing where the term is 0.
    fn unless_zero(term: &ZeroTerm, powers: &[ZeroContraction]) -> ZeroSum {
        if term.is_zero() { ZeroSum::Nothing } else { ZeroSum::new(term, powers) }
    }

    /// The expression that the implicit-zero pass sums.
    #[must_use]
    pub fn pass(&self) -> Option<&Expr> {
        match self {
            ZeroSum::ImplicitZeroPass(expr) => Some(expr),
            ZeroSum::Nothing | ZeroSum::Contraction { .. } => None,
        }
    }

    /// The coefficient of a closed form, and what it multiplies.
    #[must_use]
    pub fn contraction(&self) -> Option<(f64, ZeroContraction)> {
        match self {
            ZeroSum::Contraction { coefficient, of } => Some((*coefficient, *of)),
            ZeroSum::Nothing | ZeroSum::ImplicitZeroPass(_) => None,
        }
    }
}

impl ZeroSums {
    /// The sums for implicit entries of this kind.
    #[must_use]
    pub fn new(zero: &AtZero, implicit: Implicit) -> ZeroSums {
        use ZeroContraction::{EntryCount, Gram, LinearTotal, OtherFactors, SquareTotal};
        match implicit {
            Implicit::Missing => ZeroSums {
                numerator: ZeroSum::Nothing,
                denominator: ZeroSum::Nothing,
                loss: ZeroSum::Nothing,
            },
            // Which entries are zeros differs from entry to entry: no sum is a contraction.
            Implicit::ByRole => ZeroSums {
                numerator: ZeroSum::unless_zero(&zero.a, &[]),
                denominator: ZeroSum::new(&zero.b, &[]),
                loss: ZeroSum::new(&zero.loss, &[]),
            },
            Implicit::Zeros => ZeroSums {
                numerator: ZeroSum::unless_zero(&zero.a, &[OtherFactors]),
                denominator: ZeroSum::new(&zero.b, &[OtherFactors, Gram]),
                loss: ZeroSum::unless_zero(&zero.loss, &[EntryCount, LinearTotal, SquareTotal]),
            },
        }
    }

    /// The sums for implicit entries with roles ([`Implicit::ByRole`]) where an engine sums over
    /// the entries of each role apart: `Σ W V`, W being 1 at the entries of a role and 0 elsewhere,
    /// in place of `Σ V`. `None` where a sum has no such closed form.
    #[must_use]
    pub fn by_role(zero: &AtZero) -> Option<ZeroSums> {
        use ZeroContraction::{EntryCount, LinearTotal, OtherFactors};
        let sums = ZeroSums {
            numerator: ZeroSum::unless_zero(&zero.a, &[OtherFactors]),
            denominator: ZeroSum::new(&zero.b, &[OtherFactors]),
            loss: ZeroSum::unless_zero(&zero.loss, &[EntryCount, LinearTotal]),
        };
        (!sums.passes().contains(&true)).then_some(sums)
    }

    /// The same where every group is updated by exact steps, whose quadratic form holds what
    /// numerator and denominator would have of the implicit entries: what is left is the loss.
    #[must_use]
    pub fn exact_by_role(zero: &AtZero) -> Option<ZeroSums> {
        let loss = ZeroSum::unless_zero(
            &zero.loss,
            &[
                ZeroContraction::EntryCount,
                ZeroContraction::LinearTotal,
                ZeroContraction::SquareTotal,
            ],
        );
        let square = matches!(loss, ZeroSum::Contraction { of: ZeroContraction::SquareTotal, .. });
        let (numerator, denominator) = (ZeroSum::Nothing, ZeroSum::Nothing);
        square.then_some(ZeroSums { numerator, denominator, loss })
    }

    /// Which of numerator, denominator and loss take the implicit-zero pass.
    #[must_use]
    pub fn passes(&self) -> [bool; 3] {
        [&self.numerator, &self.denominator, &self.loss].map(|sum| sum.pass().is_some())
    }

    /// How the implicit entries enter, as a plan names it.
    #[must_use]
    pub fn form(&self) -> ImplicitForm {
        let any_pass = self.passes().contains(&true);
        match &self.denominator {
            _ if any_pass => ImplicitForm::ImplicitZeroPass,
            ZeroSum::Nothing => ImplicitForm::Missing,
            ZeroSum::Contraction { of: ZeroContraction::Gram, .. } => ImplicitForm::Gram,
            ZeroSum::Contraction { .. } | ZeroSum::ImplicitZeroPass(_) => ImplicitForm::Closed,
        }
    }
}

impl StoredTerms {
    fn new(loss: &Loss, zero: &AtZero, implicit: Implicit) -> StoredTerms {
        let zeros = implicit != Implicit::Missing;
        let beyond = |at: &Expr, zero: &ZeroTerm| match zeros && !zero.is_zero() {
            true => at - zero.expr(),
            false => at.clone(),
        };
        let depends = !zeros || loss.denominator_depends_on_x();
        StoredTerms {
            numerator: beyond(loss.a(), &zero.a),
            denominator: depends.then(|| beyond(loss.b(), &zero.b)),
            loss: loss.divergence().clone(),
            zero_loss: (zeros && !zero.loss.is_zero()).then(|| zero.loss.expr().clone()),
        }
    }

    /// The loss beyond what the loss over all entries has: one expression for both.
    #[must_use]
    pub fn excess_loss(&self) -> Expr {
        match &self.zero_loss {
            Some(zero) => &self.loss - zero,
            None => self.loss.clone(),
        }
    }
}

impl MaskedTerms {
    fn new(loss: &Loss, zero: &AtZero, implicit: Implicit) -> MaskedTerms {
        let held = |term: &ZeroTerm| {
            (implicit == Implicit::Zeros && !term.is_zero()).then(|| term.expr().clone())
        };
        let zero_loss = match implicit {
            Implicit::Missing => MaskedZeroLoss::Nothing,
            Implicit::ByRole => MaskedZeroLoss::OwnRole(zero.loss.expr().clone()),
            Implicit::Zeros => {
                held(&zero.loss).map_or(MaskedZeroLoss::Nothing, MaskedZeroLoss::Training)
            }
        };
        MaskedTerms {
            numerator: held(&zero.a),
            denominator: held(&zero.b),
            loss: loss.divergence().clone(),
            weight: None,
            zero_loss,
        }
    }

    /// Whether masked entries change numerators or denominators, and not losses alone. If they do,
    /// every group's pass needs them in the order of its own rows.
    #[must_use]
    pub fn change_sums(&self) -> bool {
        self.numerator.is_some() || self.denominator.is_some()
    }
}

impl SparseProgram {
    /// The terms of a loss over stored entries beside which the others are `implicit`.
    #[must_use]
    pub fn new(loss: &Loss, implicit: Implicit) -> SparseProgram {
        let zero = loss.at_zero();
        SparseProgram {
            implicit,
            all: ZeroSums::new(&zero, implicit),
            stored: StoredTerms::new(loss, &zero, implicit),
            masked: MaskedTerms::new(loss, &zero, implicit),
        }
    }

    /// The terms of a loss over these stored entries.
    ///
    /// What masked entries change in sums over all entries has no weight: there each counts once, as any
    /// other. Their weights are those of what is reported.
    #[must_use]
    pub fn of(loss: &Loss, stored: &StoredEntries) -> SparseProgram {
        let mut program = SparseProgram::new(loss, stored.implicit());
        if stored.is_weighted() {
            let at = loss.entry_parameters().len();
            program.masked.loss = &Expr::entry_parameter(at) * &program.masked.loss;
            program.masked.weight = Some(at);
        }
        program
    }

    /// The terms where implicit entries have roles and the engine sums over the entries of each
    /// role: see [`ZeroSums::by_role`], and for `exact` steps [`ZeroSums::exact_by_role`]. `None`
    /// where these sums have no closed form.
    ///
    /// ```
    /// use nneinfact::Loss;
    /// use nneinfact::engine::SparseProgram;
    ///
    /// // KL's denominator is 1 at every entry that the factors are fitted to.
    /// assert!(SparseProgram::by_role(&Loss::kl(), false).is_some());
    /// assert!(SparseProgram::by_role(&Loss::geometric(), false).is_none());
    /// ```
    #[must_use]
    pub fn by_role(loss: &Loss, exact: bool) -> Option<SparseProgram> {
        let zero = loss.at_zero();
        let all = match exact {
            true => ZeroSums::exact_by_role(&zero),
            false => ZeroSums::by_role(&zero),
        };
        Some(SparseProgram { all: all?, ..SparseProgram::new(loss, Implicit::ByRole) })
    }

    /// Checks that a pass has the contractions that the closed forms multiply.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the alphabet had too few indices left to write one of them
    /// with.
    pub fn check(&self, shapes: &Shapes, pass: &SparsePass, totals: &ImplicitTotals) -> Result<()> {
        let sums = [&self.all.numerator, &self.all.denominator, &self.all.loss];
        let lacks = |(_, of): (f64, ZeroContraction)| match of {
            ZeroContraction::Gram => pass.gram.is_none(),
            ZeroContraction::SquareTotal => totals.square.is_none(),
            ZeroContraction::OtherFactors
            | ZeroContraction::EntryCount
            | ZeroContraction::LinearTotal => false,
        };
        if sums.into_iter().filter_map(ZeroSum::contraction).any(lacks) {
            return Err(Error::Unsupported(format!(
                "{}: too many indices to write the sum over all entries with",
                shapes.model()
            )));
        }
        Ok(())
    }

    /// The steps of a pass, in order, where there are `masked` entries or none, and where `losses`
    /// are wanted or not.
    ///
    /// The order is the mathematics': corrections come after the sums that they correct, and empty
    /// rows are cleared last. Steps that add to the same sum may change places among themselves,
    /// but then the last bits of the sum change with them.
    #[must_use]
    pub fn steps(&self, masked: bool, losses: bool) -> Vec<SparseStep> {
        let ZeroSums { numerator, denominator, loss } = &self.all;
        let closed = |sum: &ZeroSum| sum.contraction().is_some();
        let pass = numerator.pass().is_some()
            || denominator.pass().is_some()
            || losses && loss.pass().is_some();
        let by_role = self.implicit == Implicit::ByRole;
        let closed_by_role = closed(numerator) || closed(denominator) || losses && closed(loss);
        let closed = |sum: &ZeroSum| !by_role && closed(sum);
        let all = [
            (SparseStep::StoredEntries, true),
            (SparseStep::MaskedEntries, masked && (losses || self.masked.change_sums())),
            (SparseStep::ImplicitZeroPass, pass),
            (SparseStep::NumeratorContraction, closed(numerator)),
            (SparseStep::DenominatorContraction, closed(denominator)),
            (SparseStep::LossContraction, losses && closed(loss)),
            (SparseStep::RoleSums, by_role && closed_by_role),
            (SparseStep::CorrectDenominator, masked && self.masked.denominator.is_some()),
            (SparseStep::ClearEmptyRows, masked && self.implicit == Implicit::Zeros),
        ];
        all.into_iter().filter(|(_, taken)| *taken).map(|(step, _)| step).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sum in a few words.
    fn told(sum: &ZeroSum) -> String {
        match sum {
            ZeroSum::Nothing => "nothing".into(),
            ZeroSum::Contraction { coefficient, of } => format!("{coefficient} {of:?}"),
            ZeroSum::ImplicitZeroPass(expr) => format!("pass of {expr}"),
        }
    }

    fn sums(loss: &Loss, implicit: Implicit) -> [String; 3] {
        let SparseProgram { all, .. } = SparseProgram::new(loss, implicit);
        [told(&all.numerator), told(&all.denominator), told(&all.loss)]
    }

    #[test]
    fn closed_forms_of_zeros() {
        let zeros = |loss: &Loss| sums(loss, Implicit::Zeros);
        assert_eq!(zeros(&Loss::kl()), ["nothing", "1 OtherFactors", "1 LinearTotal"]);
        assert_eq!(zeros(&Loss::euclidean()), ["nothing", "1 Gram", "0.5 SquareTotal"]);
        let half = 0.5f64.ln();
        let [a, b, _] = zeros(&Loss::jensen_shannon());
        assert_eq!([a, b], [format!("{half} OtherFactors"), "1 OtherFactors".into()]);
        let geometric = zeros(&Loss::geometric());
        assert_eq!(geometric[0], "nothing");
        assert!(geometric[1..].iter().all(|sum| sum.starts_with("pass of ")), "{geometric:?}");
    }

    #[test]
    fn zeros_by_role_take_a_pass() {
        let found = sums(&Loss::kl(), Implicit::ByRole);
        assert_eq!(found, ["nothing", "pass of 1", "pass of y"]);
        assert_eq!(sums(&Loss::kl(), Implicit::Missing), ["nothing"; 3]);
    }

    #[test]
    fn zeros_by_role_have_closed_forms_of_their_own() {
        let by_role = |loss: &Loss, exact| {
            SparseProgram::by_role(loss, exact).map(|program| {
                let ZeroSums { numerator, denominator, loss } = &program.all;
                [told(numerator), told(denominator), told(loss)]
            })
        };
        let half = 0.5f64.ln();
        let kl = by_role(&Loss::kl(), false).expect("a closed form");
        assert_eq!(kl, ["nothing", "1 OtherFactors", "1 LinearTotal"]);
        let js = by_role(&Loss::jensen_shannon(), false).expect("a closed form");
        assert_eq!(js[0], format!("{half} OtherFactors"));
        assert_eq!(by_role(&Loss::euclidean(), false), None);
        assert_eq!(by_role(&Loss::bernoulli(), false), None);
        let exact = by_role(&Loss::euclidean(), true).expect("a closed form");
        assert_eq!(exact, ["nothing", "nothing", "0.5 SquareTotal"]);
        let program = SparseProgram::by_role(&Loss::kl(), false).expect("a closed form");
        let steps = program.steps(true, false);
        assert_eq!(steps, [SparseStep::StoredEntries, SparseStep::RoleSums]);
        let exact = SparseProgram::by_role(&Loss::euclidean(), true).expect("a closed form");
        assert_eq!(exact.steps(false, false), [SparseStep::StoredEntries]);
        assert_eq!(program.all.form(), ImplicitForm::Closed);
    }

    #[test]
    fn forms_are_what_the_plan_names() {
        let alpha_beta = Loss::alpha_beta(1.3, 1.0).expect("a member of the family");
        let cases = [
            (Loss::kl(), Implicit::Zeros, ImplicitForm::Closed),
            (Loss::euclidean(), Implicit::Zeros, ImplicitForm::Gram),
            // A power of ŷ that is not whole.
            (alpha_beta, Implicit::Zeros, ImplicitForm::ImplicitZeroPass),
            (Loss::bernoulli(), Implicit::Zeros, ImplicitForm::ImplicitZeroPass),
            (Loss::kl(), Implicit::ByRole, ImplicitForm::ImplicitZeroPass),
            (Loss::bernoulli(), Implicit::Missing, ImplicitForm::Missing),
        ];
        for (loss, implicit, form) in cases {
            let found = SparseProgram::new(&loss, implicit).all.form();
            assert_eq!(found, form, "{} {implicit:?}", loss.name());
            assert_eq!(ZeroSums::new(&loss.at_zero(), implicit).form(), form, "{}", loss.name());
        }
    }

    #[test]
    fn stored_entries_add_what_they_have_beyond_zeros() {
        let euclidean = SparseProgram::new(&Loss::euclidean(), Implicit::Zeros);
        assert_eq!(euclidean.stored.numerator.to_string(), "x");
        // b is ŷ, stored or not.
        assert_eq!(euclidean.stored.denominator, None);
        let missing = SparseProgram::new(&Loss::euclidean(), Implicit::Missing);
        assert_eq!(missing.stored.denominator, Some(Expr::y()));
        assert_eq!(missing.stored.zero_loss, None);
        assert_eq!(missing.masked.zero_loss, MaskedZeroLoss::Nothing);

        // At every entry, stored and zero parts are the whole.
        let losses = [Loss::kl(), Loss::euclidean(), Loss::jensen_shannon(), Loss::geometric()];
        for loss in losses {
            let SparseProgram { stored, .. } = SparseProgram::new(&loss, Implicit::Zeros);
            let zero = loss.at_zero();
            for (x, y) in [(1.0, 0.3), (7.0, 12.5)] {
                let at = |expr: &Expr| expr.eval(x, y, &[]);
                let whole = [loss.eval_a(x, y, &[]), loss.eval_b(x, y, &[]), at(loss.divergence())];
                let found = [
                    at(&stored.numerator) + at(zero.a.expr()),
                    stored.denominator.as_ref().map_or(0.0, at) + at(zero.b.expr()),
                    at(&stored.excess_loss()) + stored.zero_loss.as_ref().map_or(0.0, at),
                ];
                for (found, whole) in found.into_iter().zip(whole) {
                    assert!((found - whole).abs() <= 1e-12 * whole.abs(), "{}", loss.name());
                }
            }
        }
    }

    #[test]
    fn masked_entries_are_taken_off_where_they_were_counted() {
        let zeros = SparseProgram::new(&Loss::jensen_shannon(), Implicit::Zeros).masked;
        assert!(zeros.numerator.is_some() && zeros.denominator.is_some() && zeros.change_sums());
        assert!(matches!(zeros.zero_loss, MaskedZeroLoss::Training(_)));
        let by_role = SparseProgram::new(&Loss::jensen_shannon(), Implicit::ByRole).masked;
        assert!(!by_role.change_sums());
        assert!(matches!(by_role.zero_loss, MaskedZeroLoss::OwnRole(_)));
    }

    #[test]
    fn steps_follow_the_terms() {
        use SparseStep::{
            ClearEmptyRows, CorrectDenominator, DenominatorContraction, ImplicitZeroPass,
            LossContraction, MaskedEntries, NumeratorContraction, StoredEntries,
        };
        let steps = |loss: &Loss, implicit, masked, losses| {
            SparseProgram::new(loss, implicit).steps(masked, losses)
        };
        let kl = Loss::kl();
        assert_eq!(steps(&kl, Implicit::Missing, false, true), [StoredEntries]);
        assert_eq!(
            steps(&kl, Implicit::Zeros, false, false),
            [StoredEntries, DenominatorContraction]
        );
        assert_eq!(
            steps(&kl, Implicit::Zeros, true, true),
            [
                StoredEntries,
                MaskedEntries,
                DenominatorContraction,
                LossContraction,
                CorrectDenominator,
                ClearEmptyRows
            ]
        );
        assert_eq!(
            steps(&Loss::jensen_shannon(), Implicit::Zeros, false, false),
            [StoredEntries, NumeratorContraction, DenominatorContraction]
        );
        assert_eq!(steps(&kl, Implicit::ByRole, true, false), [StoredEntries, ImplicitZeroPass]);
        // Masked entries that change no sum have a loss only.
        assert_eq!(steps(&kl, Implicit::Missing, true, false), [StoredEntries]);
        assert_eq!(steps(&kl, Implicit::Missing, true, true), [StoredEntries, MaskedEntries]);
    }
}
