//! Entries drawn at random with probability ŷ/Σŷ, by the chain of totals.

use std::collections::BTreeMap;

use super::FactoredTensor;
use super::entries::Slicing;
use super::sums::nothing;
use nneinfact_core::data::uniform_u32;
use nneinfact_core::error::{Error, Result};
use nneinfact_core::memory::available_memory;
use nneinfact_core::model::Index;
use nneinfact_core::parallel;

/// The stream of random numbers that samples draw from.
const STREAM: u32 = 0x5a3d_0001;

impl FactoredTensor {
    /// `count` entries drawn at random, independently, an entry with probability ŷ/Σŷ: the index of each. One
    /// mode after another is drawn from its sums given those before it. The same seed gives the same
    /// entries; more of them begin with those of fewer.
    ///
    /// ```
    /// use ndarray::array;
    /// use nneinfact::FactoredTensor;
    ///
    /// let factors = vec![array![0.0, 1.0, 3.0].into_dyn(), array![2.0, 2.0].into_dyn()];
    /// let y = FactoredTensor::from_parts("i,j->ij", factors, None)?;
    /// let drawn = y.sample(1000, 1)?;
    /// assert!(drawn.iter().all(|index| index[0] > 0));
    /// let third = drawn.iter().filter(|index| index[0] == 2).count();
    /// assert!((700..800).contains(&third));
    /// # Ok::<(), nneinfact::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Numeric`] where ŷ is 0 everywhere or its sum is not finite; [`Error::Memory`] where the
    /// indices, or the products on the way, do not fit in memory.
    pub fn sample(&self, count: usize, seed: u64) -> Result<Vec<Vec<usize>>> {
        let output = self.model().output();
        let needed = count as f64 * (24 + 16 * output.len()) as f64;
        if let Some(available) = available_memory()
            && needed > available as f64
        {
            return Err(Error::Memory {
                what: format!("{count} drawn entries"),
                needed: needed as u64,
                available,
                help: "draw fewer at a time, with other seeds".into(),
            });
        }
        let mut drawn: Vec<Vec<usize>> = vec![Vec::with_capacity(output.len()); count];
        for mode in 0..output.len() {
            let marginal = self.onto(&output[..=mode])?;
            let draw = |n: usize| uniform(seed, n, mode);
            marginal.draw_last(&mut drawn, draw)?;
        }
        Ok(drawn)
    }

    /// Draws the last mode for entries that have an index of all others.
    fn draw_last(
        &self,
        drawn: &mut [Vec<usize>],
        draw: impl Fn(usize) -> f64 + Sync,
    ) -> Result<()> {
        let modes: &[Index] = self.model().output();
        let mut same: BTreeMap<&[usize], Vec<usize>> = BTreeMap::new();
        for (n, index) in drawn.iter().enumerate() {
            same.entry(index).or_default().push(n);
        }
        let mut pattern = vec![Some(0); modes.len()];
        pattern[modes.len() - 1] = None;
        let slicing = Slicing::new(self, &pattern);
        let groups: Vec<(&[usize], Vec<usize>)> = same.into_iter().collect();
        let draw_group = |(known, members): &(&[usize], Vec<usize>)| -> Result<Vec<usize>> {
            let fixed: Vec<Option<usize>> = known.iter().map(|&i| Some(i)).chain([None]).collect();
            let sums = cumulated(slicing.at(self, &fixed)?);
            let total = sums.last().copied().unwrap_or(0.0);
            if total <= 0.0 || !total.is_finite() {
                return Err(nothing());
            }
            Ok(members.iter().map(|&n| place(&sums, draw(n) * total)).collect())
        };
        let found: Vec<Vec<usize>> = parallel::map(groups.len(), &|n| draw_group(&groups[n]))
            .into_iter()
            .collect::<Result<_>>()?;
        let members: Vec<Vec<usize>> = groups.into_iter().map(|(_, members)| members).collect();
        for (members, found) in members.into_iter().zip(found) {
            for (n, index) in members.into_iter().zip(found) {
                drawn[n].push(index);
            }
        }
        Ok(())
    }
}

/// Each with all before it added.
fn cumulated(mut values: Vec<f64>) -> Vec<f64> {
    let mut sum = 0.0;
    for value in &mut values {
        sum += value.max(0.0);
        *value = sum;
    }
    values
}

/// The first whose sum is above `at`; the last that adds something where rounding leaves none.
fn place(sums: &[f64], at: f64) -> usize {
    let found = sums.partition_point(|&sum| sum <= at);
    let most = sums.last().copied().unwrap_or(0.0);
    if found < sums.len() { found } else { sums.partition_point(|&sum| sum < most) }
}

/// Uniform in [0, 1), with 53 bits, a function of seed, entry and mode.
fn uniform(seed: u64, n: usize, mode: usize) -> f64 {
    let stream = STREAM.wrapping_add(2 * mode as u32);
    let high = u64::from(uniform_u32(seed, stream, n as u64));
    let low = u64::from(uniform_u32(seed, stream.wrapping_add(1), n as u64));
    ((high << 21) | (low >> 11)) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_have_their_share() {
        let sums = cumulated(vec![0.0, 1.0, 0.0, 3.0, 0.0]);
        assert_eq!(sums, [0.0, 1.0, 1.0, 4.0, 4.0]);
        for (at, expected) in [(0.0, 1), (0.999, 1), (1.0, 3), (3.999, 3), (4.0, 3)] {
            assert_eq!(place(&sums, at), expected, "{at}");
        }
        assert!((0..1000).all(|n| (0.0..1.0).contains(&uniform(7, n, 2))));
    }
}
