//! How far the factors of a fit are from a point where no small change lowers what it lowers.

use nneinfact_core::engine::{Constraint, Engine};
use nneinfact_core::error::Result;
use nneinfact_core::loss::{Loss, Majorizer};

use crate::observe::{Cancel, cancelled};

/// The KKT residual at the factors that the engine has: the largest |θ − P(θ − s·q)| / s over all entries that
/// are fitted, where s is the largest entry of the factor, P brings an entry between its bounds (0 from
/// below), and q is the derivative ∂F/∂θ over its positive part, 1 − N/D for powers. For entries without
/// bounds that is |min(θ/s, q)|: 0 where the derivative vanishes, and at entries of 0 that should not grow. A
/// pass over the data for every group; `None` where the fit was cancelled.
pub(crate) fn residual(
    engine: &mut dyn Engine,
    groups: &[Vec<usize>],
    constraints: &[Constraint],
    loss: &Loss,
    cancel: &Cancel,
) -> Result<Option<f64>> {
    let factors = engine.factors()?;
    let curvature = loss.curvature_constant();
    let mut most = 0.0f64;
    for (group, members) in groups.iter().enumerate() {
        if cancelled(cancel, engine)? {
            return Ok(None);
        }
        engine.pass(group)?;
        let unchanged: Vec<Vec<f64>> =
            members.iter().map(|&l| vec![1.0; factors[l].len()]).collect();
        for (at, &l) in members.iter().enumerate() {
            let constraint = constraints[l];
            let scale = factors[l].iter().copied().fold(0.0, f64::max);
            if constraint.fixed || scale <= 0.0 {
                continue;
            }
            let (a, b) = engine.parts(at, &unchanged)?;
            for (&theta, (a, b)) in factors[l].iter().zip(a.into_iter().zip(b)) {
                let penalty = constraint.penalty.map_or(0.0, |penalty| penalty.derivative(theta));
                let (derivative, positive) = match loss.majorizer() {
                    Majorizer::Power { .. } => {
                        // The constant's sign says which of the two is the positive part.
                        let part = curvature * if curvature > 0.0 { b } else { -a };
                        (curvature * (b - a), part)
                    }
                    Majorizer::Log => (-curvature * a, (curvature * b).abs()),
                };
                let positive = positive + penalty;
                let share = match positive > 0.0 {
                    true => (derivative + penalty) / positive,
                    false => 0.0,
                };
                let lower = constraint.lower.max(0.0);
                let moved = (theta - scale * share).clamp(lower, constraint.upper.max(lower));
                let apart = (theta - moved).abs() / scale;
                if apart.is_finite() {
                    most = most.max(apart);
                }
            }
        }
    }
    Ok(Some(most))
}
