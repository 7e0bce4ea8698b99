//! ŷ at single entries and with some modes fixed.

use ndarray::{ArrayD, Axis, IxDyn};

use super::FactoredTensor;
use nneinfact_core::algebra::contract_within;
use nneinfact_core::data::Observations;
use nneinfact_core::error::{Error, Result};
use nneinfact_core::memory::available_memory;
use nneinfact_core::model::{Index, Model, Shapes};
use nneinfact_core::parallel;
use nneinfact_core::plan::Contraction;

impl FactoredTensor {
    /// ŷ at one index.
    ///
    /// # Errors
    /// [`Error::Shape`] where the index is not one of the data.
    pub fn predict(&self, index: &[usize]) -> Result<f64> {
        Ok(self.predict_many(&[index])?.first().copied().unwrap_or(0.0))
    }

    /// ŷ at many indices, as [`slice`](Self::slice) gives it at each of them.
    ///
    /// # Errors
    /// [`Error::Shape`] where an index is not one of the data.
    pub fn predict_many<I: AsRef<[usize]> + Sync>(&self, indices: &[I]) -> Result<Vec<f64>> {
        let plan = Slicing::new(self, &vec![Some(0); self.model().output().len()]);
        let predict = |index: &I| -> Result<f64> {
            let fixed: Vec<Option<usize>> = index.as_ref().iter().map(|&i| Some(i)).collect();
            self.check_index(&fixed)?;
            Ok(plan.at(self, &fixed)?.first().copied().unwrap_or(0.0))
        };
        // Little work each: a thread takes some hundreds.
        let shares: Vec<&[I]> = indices.chunks(256).collect();
        let of_share = |n: usize| shares[n].iter().map(predict).collect::<Result<Vec<f64>>>();
        let found: Result<Vec<Vec<f64>>> =
            parallel::map(shares.len(), &of_share).into_iter().collect();
        Ok(found?.concat())
    }

    /// What the model leaves over at one index: the datum less ŷ, whatever the entry's role in a fit.
    /// NaN where the data have none there: NaN itself, or a missing entry of stored ones
    /// ([`Observations::unlisted_missing`]).
    ///
    /// # Errors
    /// [`Error::Shape`] where the index is not one of the data, or the data have another shape.
    pub fn residual(&self, data: &Observations, index: &[usize]) -> Result<f64> {
        let shape = self.shapes.data();
        if data.shape() != shape {
            return Err(Error::Shape {
                what: "the data".into(),
                found: format!("{:?}", data.shape()),
                expected: format!("{shape:?}, that of the model's"),
            });
        }
        let predicted = self.predict(index)?;
        Ok(data.value(index).unwrap_or(f64::NAN) - predicted)
    }

    /// ŷ at single entries, whose indices are given mode by mode.
    ///
    /// # Errors
    /// [`Error::Shape`] where a list is missing, lists differ in length, or an index is not one of the
    /// data; [`Error::Memory`] where the products on the way do not fit in memory.
    pub fn at(&self, indices: &[Vec<usize>]) -> Result<Vec<f64>> {
        let model = self.model();
        let count = indices.first().map_or(0, Vec::len);
        let shape = self.shapes.data();
        let inside =
            |(list, &n): (&Vec<usize>, &usize)| list.len() == count && list.iter().all(|&i| i < n);
        if indices.len() != shape.len() || !indices.iter().zip(&shape).all(inside) {
            let lengths: Vec<usize> = indices.iter().map(Vec::len).collect();
            return Err(Error::Shape {
                what: "the indices".into(),
                found: format!("lists of {lengths:?} indices, mode by mode"),
                expected: format!(
                    "{} lists of the same length inside the data's shape {shape:?}",
                    shape.len()
                ),
            });
        }
        if count == 0 {
            return Ok(Vec::new());
        }
        // A model of its own, whose only mode counts the entries.
        let used = model.latent();
        let free = ('A'..='Z')
            .chain('a'..='z')
            .find(|&c| Index::new(c).is_some_and(|x| !used.contains(x)));
        // Some letter is a mode of the data, and not latent.
        let Some(entry) = free else {
            return Err(Error::Unsupported("a model without modes".into()));
        };
        let mode = |x: &Index| model.output().iter().position(|y| y == x);
        let mut names = Vec::new();
        let mut data = Vec::new();
        for (factor, own) in self.factors.iter().zip(model.factors()) {
            let observed: Vec<(usize, usize)> =
                own.iter().enumerate().filter_map(|(a, x)| Some((a, mode(x)?))).collect();
            let mut name: String =
                own.iter().filter(|x| mode(x).is_none()).map(|&x| char::from(x)).collect();
            if observed.is_empty() {
                data.push(factor.iter().copied().collect::<Vec<f64>>());
                names.push(name);
                continue;
            }
            name.insert(0, entry);
            let mut rows = Vec::new();
            (0..count).for_each(|n| {
                let mut view = factor.view();
                // From the last axis to the first, so that the others keep their numbers.
                for &(axis, mode) in observed.iter().rev() {
                    view.index_axis_inplace(Axis(axis), indices[mode][n]);
                }
                rows.extend(view.iter().copied());
            });
            data.push(rows);
            names.push(name);
        }
        if let Some(weights) = &self.weights {
            // Over no latent index they are a number.
            match weights.ndim() {
                0 => data[0].iter_mut().for_each(|x| *x *= weights.first().copied().unwrap_or(1.0)),
                _ => {
                    names.push(used.iter().map(char::from).collect());
                    data.push(weights.iter().copied().collect());
                }
            }
        }
        let entries = Model::parse(&format!("{}->{entry}", names.join(",")))?;
        let local = Shapes::new(&entries, &[count], &self.ranks())?;
        let factors: Vec<&[Index]> = entries.factors().iter().map(Vec::as_slice).collect();
        let plan = Contraction::new(&local, &factors, entries.output());
        let slices: Vec<&[f64]> = data.iter().map(Vec::as_slice).collect();
        contract_within(&local, &plan, &slices)
    }

    /// ŷ with some modes fixed: `Some(i)` takes index `i` of a mode, `None` the whole of it. The
    /// result has the modes that are `None`, in the order of the data.
    ///
    /// # Errors
    /// [`Error::Shape`] where the index does not fit the data; [`Error::Memory`] where the result
    /// would not fit in memory.
    pub fn slice(&self, fixed: &[Option<usize>]) -> Result<ArrayD<f64>> {
        self.check_index(fixed)?;
        let slicing = Slicing::new(self, fixed);
        let sizes = self.shapes.sizes(slicing.plan.output());
        let needed = 8.0 * sizes.iter().map(|&n| n as f64).product::<f64>();
        if let Some(available) = available_memory()
            && needed > available as f64
        {
            return Err(Error::Memory {
                what: "the reconstruction".into(),
                needed: needed as u64,
                available,
                help: "reconstruct slices of it, or predict single entries".into(),
            });
        }
        let result = slicing.at(self, fixed)?;
        ArrayD::from_shape_vec(IxDyn(&sizes), result).map_err(|e| Error::Shape {
            what: "the reconstruction".into(),
            found: e.to_string(),
            expected: format!("{sizes:?}"),
        })
    }

    /// ŷ at every entry of the data.
    ///
    /// # Errors
    /// [`Error::Memory`] where it would not fit in memory.
    pub fn reconstruct(&self) -> Result<ArrayD<f64>> {
        self.slice(&vec![None; self.model().output().len()])
    }

    /// Refuses what is no index of the data.
    fn check_index(&self, fixed: &[Option<usize>]) -> Result<()> {
        let shape = self.shapes.data();
        let inside = |(i, &n): (&Option<usize>, &usize)| i.is_none_or(|i| i < n);
        if fixed.len() == shape.len() && fixed.iter().zip(&shape).all(inside) {
            return Ok(());
        }
        let found: Vec<String> =
            fixed.iter().map(|i| i.map_or("all".into(), |i| i.to_string())).collect();
        Err(Error::Shape {
            what: "the index".into(),
            found: format!("[{}]", found.join(", ")),
            expected: format!("{} indices inside the data's shape {shape:?}", shape.len()),
        })
    }
}

/// How ŷ is computed where the same modes are fixed, whatever they are fixed at.
pub(super) struct Slicing {
    plan: Contraction,
    /// For each axis of each factor, the mode that fixes it.
    axes: Vec<Vec<Option<usize>>>,
    weights: Option<Vec<f64>>,
}

impl Slicing {
    /// `fixed` has an entry for each mode of the data.
    pub fn new(of: &FactoredTensor, fixed: &[Option<usize>]) -> Slicing {
        let model = of.model();
        let modes = model.output().iter().zip(fixed).enumerate();
        let fixed: Vec<(Index, usize)> =
            modes.filter(|(_, (_, i))| i.is_some()).map(|(mode, (&x, _))| (x, mode)).collect();
        let mode = |x: Index| fixed.iter().find(|(y, _)| *y == x).map(|&(_, mode)| mode);
        let keep = |indices: &[Index]| -> Vec<Index> {
            indices.iter().copied().filter(|&x| mode(x).is_none()).collect()
        };
        let mut indices: Vec<Vec<Index>> = model.factors().iter().map(|x| keep(x)).collect();
        if of.weights.is_some() {
            indices.push(model.latent().iter().collect());
        }
        let views: Vec<&[Index]> = indices.iter().map(Vec::as_slice).collect();
        Slicing {
            plan: Contraction::new(&of.shapes, &views, &keep(model.output())),
            axes: model.factors().iter().map(|x| x.iter().map(|&x| mode(x)).collect()).collect(),
            weights: of.weights.as_ref().map(|w| w.iter().copied().collect()),
        }
    }

    /// ŷ at these indices of the fixed modes, which are inside the data.
    pub fn at(&self, of: &FactoredTensor, fixed: &[Option<usize>]) -> Result<Vec<f64>> {
        let slice = |(factor, axes): (&ArrayD<f64>, &Vec<Option<usize>>)| -> Vec<f64> {
            let mut view = factor.view();
            // From the last axis to the first, so that the others keep their numbers.
            for (axis, mode) in axes.iter().enumerate().rev() {
                if let Some(i) = mode.and_then(|mode| fixed[mode]) {
                    view.index_axis_inplace(Axis(axis), i);
                }
            }
            view.iter().copied().collect()
        };
        let data: Vec<Vec<f64>> = of.factors.iter().zip(&self.axes).map(slice).collect();
        let slices: Vec<&[f64]> = data.iter().chain(&self.weights).map(Vec::as_slice).collect();
        contract_within(&of.shapes, &self.plan, &slices)
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use ndarray::Dimension;
    use nneinfact_core::model::Shapes;

    use super::*;

    #[test]
    fn predictions_are_those_of_the_reference() -> Result<()> {
        let cases = [
            ("wr,hr,ikr,jkr->whij", vec![4, 3, 5, 6], vec![('r', 3), ('k', 2)]),
            ("ia,jb,kc,abc->ijk", vec![4, 3, 5], vec![('a', 2), ('b', 3), ('c', 2)]),
            ("ij,ja,ia->ija", vec![4, 3, 5], vec![]),
            ("ir,jr->ji", vec![4, 3], vec![('r', 2)]),
        ];
        for (text, shape, given) in cases {
            let model = Model::parse(text)?;
            let shapes = Shapes::new(&model, &shape, &given)?;
            let factors: Vec<ArrayD<f64>> = (0..model.factors().len())
                .map(|l| {
                    let mut n = l as f64;
                    ArrayD::from_shape_simple_fn(shapes.factor(l), || {
                        n += 1.0;
                        (n * 0.7391).sin() + 1.5
                    })
                })
                .collect();
            let all = nneinfact_core::reference::predict(&shapes, &factors);
            let near = |found: f64, expected: f64| (found - expected).abs() < 1e-12 * expected;
            let block: Vec<Range<usize>> = shape.iter().map(|&n| 1..n).collect();
            let predictions = FactoredTensor::new(shapes.clone(), factors.clone(), None)?;
            let found = predictions.block(&block, model.output())?;
            let inner = all.indexed_iter().filter(|(at, _)| at.slice().iter().all(|&i| i > 0));
            let expected: Vec<f64> = inner.map(|(_, &y)| y).collect();
            assert_eq!(found.len(), expected.len());
            assert!(found.iter().zip(&expected).all(|(&f, &e)| near(f, e)), "{text}");

            let indices: Vec<Vec<usize>> = shape
                .iter()
                .enumerate()
                .map(|(m, &n)| (0..7).map(|c| (c * (m + 2)) % n).collect())
                .collect();
            for (c, &found) in predictions.at(&indices)?.iter().enumerate() {
                let at: Vec<usize> = indices.iter().map(|mode| mode[c]).collect();
                assert!(near(found, all[at.as_slice()]), "{text} {at:?}");
            }
        }
        Ok(())
    }
}
