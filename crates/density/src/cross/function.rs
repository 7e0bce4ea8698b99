//! The function that a cross interpolation looks at: evaluated in batches, in parallel, checked,
//! counted.

use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::indices::Indices;

/// Tuples of one batch.
const BATCH: usize = 1024;
/// How far a logarithm may lie above the reference before the reference is moved.
const HEADROOM: f64 = 50.0;

/// A function of batches of index tuples: fills one value for each.
pub(crate) type Batched<'f> = dyn Fn(&Indices, &mut [f64]) + Sync + 'f;

/// Why a block of values is not there.
pub(crate) enum Halt {
    /// A logarithm far above the reference was met, which has been moved: begin again.
    Moved,
    /// The evaluations that are allowed do not suffice.
    Budget,
    /// It cannot go on.
    Failed(Error),
}

impl From<Error> for Halt {
    fn from(error: Error) -> Halt {
        Halt::Failed(error)
    }
}

/// The function with what is known of it so far.
pub(crate) struct Function<'f> {
    f: &'f Batched<'f>,
    order: usize,
    /// Whether values are logarithms.
    log: bool,
    /// What is subtracted from logarithms.
    pub reference: f64,
    pub evaluations: u64,
    budget: Option<u64>,
    /// Whether any value was not zero.
    pub nonzero: bool,
}

impl<'f> Function<'f> {
    pub fn new(f: &'f Batched<'f>, order: usize, log: bool, budget: Option<u64>) -> Self {
        Function { f, order, log, reference: 0.0, evaluations: 0, budget, nonzero: false }
    }

    /// Values as the function gives them, at `count` tuples that `tuple` writes.
    pub fn raw(
        &mut self,
        count: usize,
        tuple: impl Fn(usize, &mut Vec<usize>) + Sync,
    ) -> Result<Vec<f64>, Halt> {
        if self.budget.is_some_and(|b| self.evaluations.saturating_add(count as u64) > b) {
            return Err(Halt::Budget);
        }
        self.evaluations += count as u64;
        let mut out = vec![0.0; count];
        let (f, order, log) = (self.f, self.order, self.log);
        let filled: Result<()> =
            out.par_chunks_mut(BATCH).enumerate().try_for_each(|(batch, out)| {
                let mut tuples = Vec::with_capacity(out.len() * order);
                (0..out.len()).for_each(|at| tuple(batch * BATCH + at, &mut tuples));
                let tuples = Indices::raw(order, tuples);
                f(&tuples, out);
                match out.iter().position(|&x| !(x.is_finite() || log && x == f64::NEG_INFINITY)) {
                    None => Ok(()),
                    Some(at) => Err(bad_value(out[at], tuples.at(at), log)),
                }
            });
        filled?;
        let zero = if log { f64::NEG_INFINITY } else { 0.0 };
        self.nonzero |= out.iter().any(|&x| x != zero);
        Ok(out)
    }

    /// Values that the train is to have: of logarithms, the exponentials relative to the reference.
    pub fn values(
        &mut self,
        count: usize,
        tuple: impl Fn(usize, &mut Vec<usize>) + Sync,
    ) -> Result<Vec<f64>, Halt> {
        let mut out = self.raw(count, tuple)?;
        if self.log {
            let top = out.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            if top > self.reference + HEADROOM {
                self.reference = top;
                return Err(Halt::Moved);
            }
            self.exponentiate(&mut out);
        }
        Ok(out)
    }

    /// From values as the function gives them to those that the train is to have.
    pub fn exponentiate(&self, values: &mut [f64]) {
        if self.log {
            values.iter_mut().for_each(|x| *x = (*x - self.reference).min(700.0).exp());
        }
    }

    /// The size of a value as the function gives it, for comparing.
    pub fn size(&self, raw: f64) -> f64 {
        if self.log { raw } else { raw.abs() }
    }
}

fn bad_value(value: f64, tuple: &[usize], log: bool) -> Error {
    let accepted = if log {
        "logarithms have to be finite, or −∞ for a zero"
    } else {
        "values have to be finite"
    };
    Error::Numeric(format!("the function is {value} at index {tuple:?}; {accepted}"))
}
