//! A start from the factors of a fit with lower ranks.

use ndarray::ArrayD;

use super::random::uniform_at;
use crate::factored::total;
use crate::factors::{array, check_entries};
use nneinfact_core::error::{Error, Result};
use nneinfact_core::model::{Index, Shapes};

/// The stream of random numbers of the first factor; factor l has stream `STREAM + l`.
const STREAM: u32 = 0x4752_4f57;
/// New entries are at most this share of the mean of the factor's old ones.
const SHARE: f64 = 0.1;
/// And they add at most this share to the sum of ŷ: factors whose columns differ in scale have
/// means that say little of single components.
const ADDED: f64 = 0.01;

/// The factors of a fit with smaller or equal ranks, with new entries where they are too small.
pub fn start(shapes: &Shapes, factors: &[ArrayD<f64>], seed: u64) -> Result<Vec<ArrayD<f64>>> {
    check(shapes, factors)?;
    let grow = |share: f64| -> Vec<Vec<f64>> {
        let one = |(l, factor): (usize, &ArrayD<f64>)| {
            let most = share * factor.mean().unwrap_or(0.0);
            let sizes = shapes.factor(l);
            let mut index = vec![0; sizes.len()];
            let n: usize = sizes.iter().product();
            let entries = (0..n as u64).map(|i| {
                let old = factor.get(index.as_slice()).copied();
                for (at, &size) in index.iter_mut().zip(&sizes).rev() {
                    *at += 1;
                    if *at < size {
                        break;
                    }
                    *at = 0;
                }
                old.unwrap_or_else(|| most * uniform_at(seed, STREAM + l as u32, i))
            });
            entries.collect()
        };
        factors.iter().enumerate().map(one).collect()
    };
    let before = total(shapes, &grow(0.0))?;
    let mut share = SHARE;
    let mut grown = grow(share);
    // The sum is continuous in the share and `before` at 0.
    while before > 0.0 && total(shapes, &grown)? > (1.0 + ADDED) * before && share > 1e-12 {
        share /= 2.0;
        grown = grow(share);
    }
    grown.into_iter().enumerate().map(|(l, entries)| array(shapes, l, entries)).collect()
}

/// Refuses factors that are not those of this model with ranks that are at most these.
fn check(shapes: &Shapes, factors: &[ArrayD<f64>]) -> Result<()> {
    let model = shapes.model();
    let count = model.factors().len();
    if factors.len() != count {
        return Err(Error::Init(format!(
            "the fit to grow has {} factor{}, but the model {model} has {count}",
            factors.len(),
            if factors.len() == 1 { "" } else { "s" }
        )));
    }
    let observed = model.observed();
    let mut ranks: Vec<(Index, usize, usize)> = Vec::new();
    for (l, (factor, own)) in factors.iter().zip(model.factors()).enumerate() {
        let what = format!("theta_{} of the fit to grow", l + 1);
        let name = model.factor_name(l);
        if factor.ndim() != own.len() {
            return Err(Error::Shape {
                what,
                found: format!("{:?}", factor.shape()),
                expected: format!("{} axes, one for each letter of {name}", own.len()),
            });
        }
        for (&letter, &size) in own.iter().zip(factor.shape()) {
            let wanted = shapes.size(letter);
            if observed.contains(letter) {
                if size != wanted {
                    return Err(Error::Shape {
                        what,
                        found: format!("{:?}", factor.shape()),
                        expected: format!("{wanted} along {letter} of {name}, as the data have"),
                    });
                }
                continue;
            }
            if size > wanted || size == 0 {
                return Err(Error::Init(format!(
                    "{what} has {size} indices of the latent letter {letter}, whose rank is {wanted}: a fit grows to ranks that are the same or larger"
                )));
            }
            match ranks.iter().find(|known| known.0 == letter) {
                Some(&(_, other, at)) if other != size => {
                    return Err(Error::Init(format!(
                        "{what} has {size} indices of the latent letter {letter}, but theta_{} has {other}: they are not factors of one fit",
                        at + 1
                    )));
                }
                Some(_) => {}
                None => ranks.push((letter, size, l)),
            }
        }
        check_entries(factor, &format!("theta_{} of the start", l + 1))?;
    }
    Ok(())
}
