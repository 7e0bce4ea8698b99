//! Updates that need no Hessian, on the same contractions. NTT.md, section 5.

use super::environments::Node;
use crate::core::Core;
use crate::linalg;

/// The least an entry is after a multiplicative update, as a share of the largest of its core: an
/// entry that was 0 would stay so.
const FLOOR: f64 = 1e-12;

/// The multiplicative update. The target may have negative entries, and so may the numerator.
pub(crate) fn multiplicative(node: &Node, h: &mut Core) {
    let d = node.gram_times(h);
    let sides = d.iter().zip(&node.n);
    for (h, (&d, &n)) in h.data_mut().iter_mut().zip(sides) {
        // Without a branch, so that several are divided at a time.
        *h *= if d > 0.0 { n.max(0.0) / d } else { 1.0 };
    }
    let least = FLOOR * linalg::largest(h.data());
    h.data_mut().iter_mut().for_each(|h| *h = h.max(least));
}

/// One cycle of exact coordinate descent: each pair of states in turn, for all indices at once.
pub(crate) fn descent(node: &Node, h: &mut Core) {
    let [left, n, right] = h.shape();
    let mut g = node.gram_times(h);
    g.iter_mut().zip(&node.n).for_each(|(g, n)| *g -= n);
    let mut change = vec![0.0; n];
    for a in 0..left {
        for b in 0..right {
            let curvature = node.a[a * left + a] * node.b[b * right + b];
            if curvature.is_nan() || curvature <= 0.0 {
                continue;
            }
            for (i, change) in change.iter_mut().enumerate() {
                let at = (a * n + i) * right + b;
                let old = h.data()[at];
                let new = (old - g[at] / curvature).max(0.0);
                *change = new - old;
                h.data_mut()[at] = new;
            }
            for (c, g) in g.chunks_exact_mut(n * right).enumerate() {
                let weight = node.a[c * left + a];
                for (g, change) in g.chunks_exact_mut(right).zip(&change) {
                    let row = &node.b[b * right..(b + 1) * right];
                    g.iter_mut().zip(row).for_each(|(g, b)| *g += weight * b * change);
                }
            }
        }
    }
}
