//! Which sums over all cells a list needs.

use crate::data::Rest;
use crate::loss::{AtZero, ZeroTerm};
use crate::plan::Unlisted;

/// Which sums over all cells take a dense pass, and so which kind of plan a list needs.
pub fn needs(zero: &AtZero, rest: Rest) -> (Unlisted, [bool; 3]) {
    let [a, b, loss] = match rest {
        Rest::Missing => return (Unlisted::Missing, [false; 3]),
        Rest::ByRole => [!zero.a.is_zero(), true, true],
        Rest::Zeros => {
            let closed = |term: &ZeroTerm, most: f64| {
                let power = term.monomial().map(|m| m.power);
                power.is_some_and(|p| p == p.trunc() && (0.0..=most).contains(&p))
            };
            [!closed(&zero.a, 0.0), !closed(&zero.b, 1.0), !closed(&zero.loss, 2.0)]
        }
    };
    let kind = match zero.b.monomial() {
        _ if a || b || loss => Unlisted::Grid,
        Some(m) if m.power == 1.0 => Unlisted::Gram,
        _ => Unlisted::Closed,
    };
    (kind, [a, b, loss])
}
