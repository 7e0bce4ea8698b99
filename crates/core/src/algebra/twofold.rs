//! Contractions in twice the double precision, for sums that nearly cancel.
//!
//! A number is the sum of two doubles, the second far smaller than the first. Products and sums keep
//! both parts by the error-free transformations of Dekker (1971) and Knuth (TAOCP 2, 4.2.2).

use super::contract::{Walk, check_memory};
use crate::error::Result;
use crate::model::{Index, IndexSet, Shapes};
use crate::parallel;
use crate::plan::{Contraction, ContractionInput};

/// A number as a sum of two doubles: about 32 digits.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Twofold {
    high: f64,
    low: f64,
}

impl From<f64> for Twofold {
    fn from(x: f64) -> Twofold {
        Twofold { high: x, low: 0.0 }
    }
}

impl Twofold {
    /// The nearest double.
    #[must_use]
    pub fn value(self) -> f64 {
        self.high + self.low
    }

    /// The sum.
    #[must_use]
    pub fn plus(self, other: Twofold) -> Twofold {
        let high = self.high + other.high;
        let back = high - self.high;
        let error = (self.high - (high - back)) + (other.high - back);
        Twofold::normal(high, error + (self.low + other.low))
    }

    /// The product.
    #[must_use]
    pub fn times(self, other: Twofold) -> Twofold {
        let high = self.high * other.high;
        let error = self.high.mul_add(other.high, -high);
        Twofold::normal(high, error + (self.high * other.low + self.low * other.high))
    }

    /// The product with a power of two, which is exact.
    #[must_use]
    pub fn scaled(self, by: f64) -> Twofold {
        Twofold { high: self.high * by, low: self.low * by }
    }

    /// `high` is the larger part.
    fn normal(high: f64, low: f64) -> Twofold {
        let sum = high + low;
        Twofold { high: sum, low: low - (sum - high) }
    }
}

/// As [`contract_within`](super::contract_within), in twice the precision, down to a single number: the
/// plan's output has no index.
///
/// # Errors
/// As [`contract_within`](super::contract_within).
pub fn contract_twofold(shapes: &Shapes, plan: &Contraction, inputs: &[&[f64]]) -> Result<Twofold> {
    check_memory(shapes, plan, 16.0)?;
    let mut results: Vec<Vec<Twofold>> = Vec::with_capacity(plan.steps().len());
    let all: Vec<Vec<Twofold>> =
        inputs.iter().map(|input| input.iter().map(|&x| x.into()).collect()).collect();
    for step in plan.steps() {
        let of = |slot: ContractionInput| -> (&[Index], &[Twofold]) {
            match slot {
                ContractionInput::Input(i) => (&plan.inputs()[i], &all[i]),
                ContractionInput::Step(i) => (&plan.steps()[i].indices, &results[i]),
            }
        };
        let result = pair(shapes, of(step.left), of(step.right), &step.indices);
        results.push(result);
    }
    let last = results.pop().or_else(|| all.into_iter().next()).unwrap_or(vec![1.0.into()]);
    Ok(last.into_iter().fold(Twofold::default(), Twofold::plus))
}

/// `Σ left · right` over the indices not in `output`.
fn pair(
    shapes: &Shapes,
    left: (&[Index], &[Twofold]),
    right: (&[Index], &[Twofold]),
    output: &[Index],
) -> Vec<Twofold> {
    let kept: IndexSet = output.iter().collect();
    let both: IndexSet = left.0.iter().chain(right.0).collect();
    let summed: Vec<Index> = (both - kept).iter().collect();
    let strides = |of: &[Index], along: &[Index]| -> Vec<usize> {
        let one = |x: &Index| match of.iter().position(|y| y == x) {
            Some(axis) => shapes.sizes(&of[axis + 1..]).iter().product(),
            None => 0,
        };
        along.iter().map(one).collect()
    };
    let offsets = |of: &[Index], along: &[Index]| -> Vec<usize> {
        let (sizes, strides) = (shapes.sizes(along), strides(of, along));
        let mut walk = Walk::new(&sizes, &strides);
        let next = |_| {
            let offset = walk.offset();
            walk.skip(1);
            offset
        };
        (0..sizes.iter().product::<usize>()).map(next).collect()
    };
    let terms: Vec<(usize, usize)> =
        offsets(left.0, &summed).into_iter().zip(offsets(right.0, &summed)).collect();
    let starts: Vec<(usize, usize)> =
        offsets(left.0, output).into_iter().zip(offsets(right.0, output)).collect();
    let entry = |&(l, r): &(usize, usize)| {
        let term =
            |sum: Twofold, &(i, j): &(usize, usize)| sum.plus(left.1[l + i].times(right.1[r + j]));
        terms.iter().fold(Twofold::default(), term)
    };
    parallel::map(starts.len(), &|at| entry(&starts[at]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Model;

    #[test]
    fn what_doubles_lose_is_kept() {
        let one = Twofold::from(1.0);
        let small = Twofold::from(1e-25);
        let sum = one.plus(small).plus(Twofold::from(-1.0));
        assert!((sum.value() / 1e-25 - 1.0).abs() < 1e-6, "{sum:?}");
        // (1 + e)(1 − e) = 1 − e², which doubles round to 1.
        let e = 2f64.powi(-40);
        let product = Twofold::from(1.0 + e).times(Twofold::from(1.0 - e));
        assert_eq!(product.plus(Twofold::from(-1.0)).value(), -e * e);
    }

    #[test]
    fn contractions_are_those_of_doubles() {
        let model = Model::parse("ir,jr,kr->ijk").unwrap();
        let shapes = Shapes::new(&model, &[3, 4, 2], &[('r', 3)]).unwrap();
        let data: Vec<Vec<f64>> = (0..3)
            .map(|l| {
                (0..shapes.factor(l).iter().product()).map(|n: usize| 0.1 + n as f64).collect()
            })
            .collect();
        let views: Vec<&[f64]> = data.iter().map(Vec::as_slice).collect();
        let indices: Vec<&[Index]> = model.factors().iter().map(Vec::as_slice).collect();
        let plan = Contraction::new(&shapes, &indices, &[]);
        let expected = super::super::contract(&shapes, &plan, &views)[0];
        let found = contract_twofold(&shapes, &plan, &views).unwrap().value();
        assert!((found / expected - 1.0).abs() < 1e-14, "{found} {expected}");
    }
}
