//! Which sums over all cells a list needs.

use crate::data::Implicit;
use crate::loss::{AtZero, ZeroTerm};
use crate::plan::ImplicitForm;

/// Which sums over all cells take a dense pass, and so which kind of plan a list needs.
pub fn needs(zero: &AtZero, rest: Implicit) -> (ImplicitForm, [bool; 3]) {
    let [a, b, loss] = match rest {
        Implicit::Missing => return (ImplicitForm::Missing, [false; 3]),
        Implicit::ByRole => [!zero.a.is_zero(), true, true],
        Implicit::Zeros => {
            let closed = |term: &ZeroTerm, most: f64| {
                let power = term.monomial().map(|m| m.power);
                power.is_some_and(|p| p == p.trunc() && (0.0..=most).contains(&p))
            };
            [!closed(&zero.a, 0.0), !closed(&zero.b, 1.0), !closed(&zero.loss, 2.0)]
        }
    };
    let kind = match zero.b.monomial() {
        _ if a || b || loss => ImplicitForm::ImplicitZeroPass,
        Some(m) if m.power == 1.0 => ImplicitForm::Gram,
        _ => ImplicitForm::Closed,
    };
    (kind, [a, b, loss])
}
