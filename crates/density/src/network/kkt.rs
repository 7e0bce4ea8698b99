//! How far a model is from a point where no small change brings it nearer to a target.

use super::Network;
use super::environments::FactorEnvironments;
use super::node::Goal;
use crate::error::Result;

impl Network {
    /// The KKT residual of this nonnegative model at half the squared distance to another network: the largest
    /// |θ − max(θ − s·q, 0)| / s over all entries, where s is the largest entry of the factor and q the derivative over
    /// its positive part, 1 − N/D. It is 0 where the derivative vanishes, or would only push an entry of 0 below it.
    ///
    /// # Errors
    /// As [`inner`](Self::inner).
    pub fn kkt_residual(&self, target: &Network) -> Result<f64> {
        let goal = Goal::Network { target, weights: None };
        let mut environments = FactorEnvironments::new(self, goal)?;
        let mut most = 0.0f64;
        for l in 0..self.tensors.len() {
            let node = environments.node(self)?;
            environments.advance(self)?;
            let order: Vec<char> = node.letters.concat();
            let rank = node.counts[2].max(1);
            let factor = self.labelled(std::iter::once(l), false).remove(0).permuted(&order);
            let scale = factor.data.iter().copied().fold(0.0, f64::max);
            if scale <= 0.0 {
                continue;
            }
            for (block, row) in factor.data.chunks(rank).enumerate() {
                let denominators = node.times(block, row);
                let numerators = &node.numerator[block * rank..];
                for ((&theta, d), &n) in row.iter().zip(denominators).zip(numerators) {
                    let share = if d > 0.0 { (d - n) / d } else { 0.0 };
                    let apart = (theta - (theta - scale * share).max(0.0)).abs() / scale;
                    if apart.is_finite() {
                        most = most.max(apart);
                    }
                }
            }
        }
        Ok(most)
    }
}
