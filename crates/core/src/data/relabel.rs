//! Data brought to the labels of other data.

use std::sync::Arc;

use ndarray::{ArrayD, Axis};

use super::labels::printable;
use super::{CooTensor, Dense, Labels, Observations};
use crate::error::{Error, Result};

impl Observations {
    /// The same data with these labels along a mode, which its own are among: every index goes to where its
    /// label is. At indices that are new, entries of a list are implicit ones (zeros, or missing where those
    /// are), and those of an array are missing.
    ///
    /// ```
    /// use nneinfact::Observations;
    /// use nneinfact::data::{Labels, Role};
    ///
    /// let y = ndarray::array![[4.0, 2.0], [2.0, 1.0]];
    /// let days = Labels::new(["Tue", "Mon"]);
    /// let data = Observations::new(&y).with_labels(vec![days, Labels::default()])?;
    /// let week = Labels::new(["Mon", "Tue", "Wed"]);
    /// let whole = data.relabeled(0, &week)?;
    /// assert_eq!((whole.shape(), whole.value(&[1, 1])), (&[3, 2][..], Some(2.0)));
    /// assert_eq!(whole.prepare()?.count(Role::Missing), 2);
    /// # Ok::<(), nneinfact::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Setting`] where the mode has no labels, one of them stands twice or is not among the others,
    /// or where the data have a mask, weights or a held-out mask of their own shape already.
    /// [`Error::Memory`] where an array of the new shape does not fit in memory.
    pub fn relabeled(self, mode: usize, labels: &Labels) -> Result<Observations> {
        let own = self.labels.get(mode).cloned().unwrap_or_default();
        let (Some(from), Some(to)) = (own.indices(), labels.indices()) else {
            return Err(Error::Setting(format!(
                "mode {} has no labels by which its indices could be found among others",
                mode + 1
            )));
        };
        if from == to {
            return Ok(self);
        }
        let mut places = Vec::with_capacity(from.len());
        for label in from {
            let place = labels.index_of(label).ok_or_else(|| {
                Error::Setting(format!(
                    "the label '{}' of mode {} is not among those that it is to have",
                    printable(label),
                    mode + 1
                ))
            })?;
            places.push(place);
        }
        let mut taken = vec![false; to.len()];
        for (&place, label) in places.iter().zip(from) {
            if std::mem::replace(&mut taken[place], true) {
                return Err(Error::Setting(format!(
                    "the label '{}' stands twice in mode {}: it is not clear which index is meant",
                    printable(label),
                    mode + 1
                )));
            }
        }
        let mut all: Vec<Labels> = self.labels.to_vec();
        let named = Labels::new(to.iter().cloned()).with_kind(labels.kind().clone());
        all[mode] = match own.name() {
            Some(name) => named.with_name(name),
            None => named,
        };
        self.moved(mode, &places, to.len())?.with_labels(all)
    }

    /// With every index of a mode at its place among so many.
    fn moved(self, mode: usize, places: &[usize], size: usize) -> Result<Observations> {
        let whole = [
            ("a mask", self.mask.is_some()),
            ("weights", self.weights.is_some()),
            ("a held-out mask", self.held_out_mask.is_some()),
        ];
        if let Some((what, _)) = whole.into_iter().find(|(_, given)| *given) {
            return Err(Error::Setting(format!(
                "data with {what} are not brought to other labels: give it after they have the labels"
            )));
        }
        let list = |list: Option<Arc<CooTensor>>| -> Result<Option<Arc<CooTensor>>> {
            list.map(|list| Ok(Arc::new(moved_list(&list, mode, places, size)?))).transpose()
        };
        let all = places.len() == size;
        let (values, mask) = match &self.coordinates {
            Some(_) => (Arc::clone(&self.values), None),
            None => {
                let (values, mask) = moved_array(&self.values, mode, places, size)?;
                (Arc::new(values), (!all).then_some(mask))
            }
        };
        let moved = Observations {
            values,
            coordinates: list(self.coordinates)?,
            missing_at: list(self.missing_at)?,
            held_out_at: list(self.held_out_at)?,
            validation_at: list(self.validation_at)?,
            labels: Arc::new([]),
            ..self
        };
        match mask {
            Some(mask) => moved.mask(&mask),
            None => Ok(moved),
        }
    }
}

fn moved_list(list: &CooTensor, mode: usize, places: &[usize], size: usize) -> Result<CooTensor> {
    let mut shape = list.shape().to_vec();
    shape[mode] = size;
    let along = |(m, indices): (usize, &super::Indices)| -> Vec<u64> {
        let all = (0..indices.len()).map(|i| indices.get(i).unwrap_or(0));
        match m == mode {
            true => all.map(|i| places[i as usize] as u64).collect(),
            false => all.collect(),
        }
    };
    let indices: Vec<Vec<u64>> = list.indices().iter().enumerate().map(along).collect();
    let values: Vec<f64> = (0..list.len()).filter_map(|i| list.values().get(i)).collect();
    CooTensor::new(&shape, &indices, &values)
}

/// The array, and a mask that is true where it has values.
fn moved_array(
    values: &Dense,
    mode: usize,
    places: &[usize],
    size: usize,
) -> Result<(Dense, ArrayD<bool>)> {
    let mut shape = values.shape().to_vec();
    shape[mode] = size;
    let needed = shape.iter().map(|&n| n as f64).product::<f64>() * 9.0;
    if let Some(available) = crate::memory::available_memory()
        && needed > available as f64
    {
        return Err(Error::Memory {
            what: format!("the data of shape {shape:?} that all labels take together"),
            needed: needed as u64,
            available,
            help: "give them as coordinates".into(),
        });
    }
    let own = values.to_array();
    let mut array = ArrayD::<f64>::zeros(shape.clone());
    let mut mask = ArrayD::from_elem(shape, false);
    for (from, &to) in own.axis_iter(Axis(mode)).zip(places) {
        array.index_axis_mut(Axis(mode), to).assign(&from);
        mask.index_axis_mut(Axis(mode), to).fill(true);
    }
    Ok((Dense::from_array(&array), mask))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Role;

    fn labels(all: &[&str]) -> Labels {
        Labels::new(all.iter().copied())
    }

    #[test]
    fn lists_and_their_roles_move_together() -> Result<()> {
        let entries =
            |values: &[f64]| CooTensor::new(&[2, 3], &[vec![0, 1, 1], vec![0, 0, 2]], values);
        let data = || -> Result<Observations> {
            Observations::new(entries(&[4.0, 5.0, 6.0])?)
                .held_out_at(CooTensor::new(&[2, 3], &[vec![1], vec![2]], &[1.0])?)?
                .with_labels(vec![labels(&["b", "a"]).with_name("who"), labels(&["x", "y", "z"])])
        };
        let to = labels(&["a", "b", "c"]);
        let moved = data()?.relabeled(0, &to)?;
        assert_eq!(moved.shape(), [3, 3]);
        let found = [[1, 0], [0, 0], [0, 2], [2, 1]].map(|at| moved.value(&at));
        assert_eq!(found, [Some(4.0), Some(5.0), Some(6.0), Some(0.0)]);
        assert_eq!((moved.labels()[0].name(), moved.labels()[0].get(2)), (Some("who"), Some("c")));
        let prepared = moved.prepare()?;
        assert_eq!((prepared.count(Role::HeldOut), prepared.count(Role::Train)), (1, 8));
        let missing = data()?.unlisted_missing().relabeled(0, &to)?.prepare()?;
        assert_eq!((missing.count(Role::HeldOut), missing.count(Role::Train)), (1, 2));
        Ok(())
    }

    #[test]
    fn what_is_not_clear_is_refused() -> Result<()> {
        let y = ndarray::array![[4.0, 2.0], [2.0, 1.0]];
        let data =
            || Observations::new(&y).with_labels(vec![labels(&["a", "b"]), labels(&["x", "x"])]);
        let said = |found: Result<Observations>| match found {
            Err(error) => error.to_string(),
            Ok(_) => String::new(),
        };
        assert!(said(data()?.relabeled(0, &labels(&["a", "c"]))).contains("'b' of mode 1"));
        assert!(said(data()?.relabeled(1, &labels(&["x", "y"]))).contains("stands twice"));
        assert!(said(data()?.relabeled(0, &Labels::named("who"))).contains("no labels"));
        let masked = data()?.mask(&y.mapv(|x| x > 1.5))?;
        assert!(said(masked.clone().relabeled(0, &labels(&["b", "a"]))).contains("a mask"));
        // What has these labels already stays as it is.
        assert_eq!(masked.relabeled(0, &labels(&["a", "b"]))?.shape(), [2, 2]);
        Ok(())
    }
}
