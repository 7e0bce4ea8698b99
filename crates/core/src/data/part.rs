//! Parts of a tensor along one mode: what each of several processes has of it, and the slabs that it is
//! cut into whatever their number.

use std::ops::Range;
use std::sync::Arc;

use super::coo::LinearIndex;
use super::observations::USUAL_WEIGHTS;
use super::random::Key;
use super::rescale::{normalizing_exponent, scaled};
use super::roles::Bits;
use super::{CooTensor, Dense, Observations};
use crate::error::{Error, Result};

/// What one of several processes has of a tensor: all entries with an index in `range` along `mode`,
/// which is `whole` long.
///
/// ```
/// use nneinfact::data::Part;
///
/// let part = Part { mode: 0, range: 5..10, whole: 20 };
/// assert_eq!(part.shape(&[5, 7]), [20, 7]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The mode of the data, counted from 0.
    pub mode: usize,
    /// The indices along it that are there.
    pub range: Range<usize>,
    /// How many there are in the whole tensor.
    pub whole: usize,
}

impl Part {
    /// The shape of the whole tensor, from that of the part.
    #[must_use]
    pub fn shape(&self, part: &[usize]) -> Vec<usize> {
        let mut shape = part.to_vec();
        if let Some(n) = shape.get_mut(self.mode) {
            *n = self.whole;
        }
        shape
    }
}

/// Where the entries of a slab are in the whole tensor: random splits are drawn by that.
#[derive(Clone, Copy, Debug)]
pub(super) struct Within {
    /// Entries that follow one another inside an index of the mode.
    inner: u128,
    /// The length of the mode in the slab and in the whole tensor.
    length: [u128; 2],
    /// Where the slab begins.
    start: u128,
}

impl Within {
    fn new(slab: &[usize], mode: usize, start: usize, whole: usize) -> Within {
        let inner = slab[mode + 1..].iter().fold(1u128, |all, &n| all.saturating_mul(n as u128));
        Within { inner, length: [slab[mode] as u128, whole as u128], start: start as u128 }
    }

    /// How many entries the whole tensor has, from how many the slab has.
    pub fn whole(&self, slab: u128) -> u128 {
        (slab / self.length[0].max(1)).saturating_mul(self.length[1])
    }

    /// The stream that a slab draws from where it draws by itself.
    pub fn stream(&self, key: Key) -> Key {
        key.derived(self.start as u32)
    }

    /// What random numbers of an entry are drawn by, from its linear C index in the slab: the same as
    /// of the whole tensor.
    pub fn folded(&self, local: u128) -> u64 {
        let outer = local / (self.length[0] * self.inner).max(1);
        let before = outer * (self.length[1] - self.length[0]) + self.start;
        let place = local + before * self.inner;
        match u64::try_from(place) {
            Ok(place) => place,
            Err(_) => place.folded(),
        }
    }
}

impl Observations {
    /// The entries with these indices along a mode, as a slab of a tensor in which it begins at `start`
    /// and which is `whole` long: random splits withhold the same entries as in all of it. Nothing of a
    /// slab needs to be observed. Values get the smallest exact type of the slab; where they lie in one
    /// piece, along the mode that is slowest in memory, they are not copied. Labels are left out.
    ///
    /// # Errors
    /// [`Error::Shape`] where the range leaves the mode.
    pub fn slab(
        &self,
        mode: usize,
        range: Range<usize>,
        start: usize,
        whole: usize,
    ) -> Result<Self> {
        let n = self.shape().get(mode).copied().unwrap_or(0);
        if range.is_empty() || range.end > n || start.saturating_add(range.len()) > whole {
            return Err(Error::Shape {
                what: format!("mode {} of a slab", mode + 1),
                found: format!("indices {range:?} of {n}, at {start} of {whole}"),
                expected: "at least one index, inside the mode".into(),
            });
        }
        let mut shape = self.shape().to_vec();
        shape[mode] = range.len();
        let within = Some(Within::new(&shape, mode, start, whole));
        let labels = Arc::new([]);
        if range.len() == n {
            return Ok(Observations { within, labels, ..self.clone() });
        }
        let dense = |tensor: &Arc<Dense>| Arc::new(tensor.slab(mode, range.clone()));
        let list = |list: &Arc<CooTensor>| Arc::new(list.slab(mode, range.clone()));
        let bits = |bits: &Arc<Bits>| Arc::new(self.slab_of_bits(bits, mode, &range));
        Ok(Observations {
            values: match self.coordinates {
                Some(_) => Arc::clone(&self.values),
                None => dense(&self.values),
            },
            coordinates: self.coordinates.as_ref().map(list),
            missing_at: self.missing_at.as_ref().map(list),
            held_out_at: self.held_out_at.as_ref().map(list),
            validation_at: self.validation_at.as_ref().map(list),
            mask: self.mask.as_ref().map(bits),
            held_out_mask: self.held_out_mask.as_ref().map(bits),
            weights: self.weights.as_ref().map(dense),
            within,
            labels,
            ..self.clone()
        })
    }

    /// A mask of a slab, both in the order of memory of their values.
    fn slab_of_bits(&self, bits: &Bits, mode: usize, range: &Range<usize>) -> Bits {
        let shape = self.shape();
        // The strides of the values; C order for stored entries.
        let stride: usize = match self.coordinates {
            Some(_) => shape[mode + 1..].iter().product(),
            None => self.values.strides()[mode],
        };
        let all: usize = shape.iter().product();
        let (step, length) = (shape[mode] * stride, range.len() * stride);
        let entries = (0..all).step_by(step.max(1)).flat_map(|outer| {
            let first = outer + range.start * stride;
            (first..first + length).map(|entry| bits.get(entry))
        });
        Bits::pack(entries, all / shape[mode] * range.len())
    }

    /// The largest weight as it was given; `None` without weights.
    #[must_use]
    pub fn largest_weight(&self) -> Option<f64> {
        self.weights.as_ref().map(|weights| scaled(weights.largest(), self.weight_exponent))
    }

    /// The same observations with the weights kept times the power of two that brings a weight of this
    /// size near 1, where it is far from it: parts of one tensor keep theirs alike.
    #[must_use]
    pub fn weights_near(mut self, largest: f64) -> Self {
        let Some(weights) = &self.weights else { return self };
        let exponent = normalizing_exponent(largest, USUAL_WEIGHTS);
        let moved = exponent + self.weight_exponent;
        if moved != 0 {
            self.weights = Some(Arc::new(weights.scaled(moved)));
        }
        self.weight_exponent = -exponent;
        self
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array3, Axis, Slice};

    use super::*;
    use crate::data::{Order, Role, Storage};

    fn list(y: &Array3<f64>) -> CooTensor {
        let stored: Vec<_> = y.indexed_iter().filter(|(_, x)| **x > 0.0).collect();
        let of = |f: &dyn Fn((usize, usize, usize)) -> usize| -> Vec<u64> {
            stored.iter().map(|(at, _)| f(*at) as u64).collect()
        };
        let values: Vec<f64> = stored.iter().map(|(_, x)| **x).collect();
        let shape = [y.shape()[0], y.shape()[1], y.shape()[2]];
        CooTensor::new(&shape, &[of(&|a| a.0), of(&|a| a.1), of(&|a| a.2)], &values).unwrap()
    }

    #[test]
    fn slabs_hold_what_the_whole_has_there() {
        let y =
            Array3::from_shape_fn((5, 6, 7), |(i, j, k)| ((i * 31 + j * 7 + k * 3) % 11) as f64);
        let turned = y.view().permuted_axes([2, 0, 1]).as_standard_layout().to_owned();
        let turned = turned.permuted_axes([1, 2, 0]);
        assert_eq!(turned.shape(), y.shape());
        for mode in 0..3 {
            let part = y.slice_axis(Axis(mode), Slice::from(1..4)).to_owned();
            for whole in [Dense::from_array(&y), Dense::from_array(&turned)].map(Arc::new) {
                let slab = whole.slab(mode, 1..4);
                assert_eq!(slab.to_array(), part.clone().into_dyn());
                // Where it lies in one piece there is no copy of it, and nothing of a file.
                let slowest = whole.strides().iter().max() == Some(&whole.strides()[mode]);
                assert_eq!(slab.storage().mapped().is_some(), slowest, "{mode}");
                assert!(!slab.is_mapped());
                assert_eq!(slab.bytes() == 0, slowest);
                assert_eq!(slab.storage().kind(), Dense::from_array(&part).storage().kind());
            }
            let slab = Arc::new(Dense::from_array(&y)).slab(mode, 1..4);
            assert_eq!(slab.in_memory(), Dense::from_array(&part));
            assert_eq!(list(&y).slab(mode, 1..4), list(&part));
        }
        // The smallest type that is exact, whatever the rest needs.
        let wide = Arc::new(Dense::from_vec(&[2, 2], vec![1.5, 2.0, 3.0, 4.0]).unwrap());
        for (mode, expected) in [(0, vec![3, 4]), (1, vec![2, 4])] {
            let slab = wide.slab(mode, 1..2);
            assert_eq!(slab.storage().kind(), crate::data::ElementKind::U8);
            assert_eq!(slab.in_memory().storage(), &Storage::U8(expected));
        }
        assert_eq!(Order::default(), Order::C);
    }

    #[test]
    fn slabs_withhold_the_entries_of_the_whole() {
        let y = Array3::from_shape_fn((9, 8, 7), |(i, j, k)| ((i + 2 * j + k) % 4) as f64);
        let mask = y.mapv(|x| x != 3.0);
        let set = |o: Observations, mask: &Array3<bool>| {
            let o = o.mask(mask).unwrap().held_out_mask(&y.mapv(|x| x == 1.0)).unwrap();
            o.held_out(0.2, 5).unwrap().validation(0.1, 6).unwrap()
        };
        for given in [Observations::new(&y), Observations::new(list(&y))] {
            let whole = set(given, &mask);
            let all = whole.prepare().unwrap();
            for mode in 0..3 {
                let mut counts = [0; 4];
                for start in 0..y.shape()[mode] {
                    let slab = whole.slab(mode, start..start + 1, start, y.shape()[mode]).unwrap();
                    let slab = slab.prepare().unwrap();
                    for role in Role::ALL {
                        counts[role as usize] += slab.count(role);
                    }
                    let roles = slab.roles().unwrap();
                    let one = y.index_axis(Axis(mode), start);
                    for (i, (at, _)) in one.indexed_iter().enumerate() {
                        let mut index = vec![at.0, at.1];
                        index.insert(mode, start);
                        let c = (index[0] * 8 + index[1]) * 7 + index[2];
                        assert_eq!(roles.get(i), all.roles().unwrap().get(c), "{mode} {index:?}");
                    }
                }
                assert_eq!(counts, Role::ALL.map(|role| all.count(role)), "{mode}");
            }
        }
    }

    #[test]
    fn places_beyond_64_bits() {
        let shape = [3, 1 << 30, 1 << 30];
        let within = Within::new(&shape, 0, 20, 50);
        let place = (21u128 << 60) + 17;
        assert_eq!(within.folded((1u128 << 60) + 17), place.folded());
        let within = Within::new(&[4, 2, 5], 1, 3, 9);
        // Index [2, 1, 4] of the slab is [2, 4, 4] of the whole.
        assert_eq!(within.folded(2 * 10 + 5 + 4), (2 * 9 + 4) * 5 + 4);
    }

    #[test]
    fn parts_keep_their_weights_alike() {
        let weights = ndarray::array![[1e20, 1.0], [1e-20, 3.0]];
        let y = ndarray::Array2::from_elem((2, 2), 1.0);
        let whole = Observations::new(&y).weights(&weights).unwrap();
        let largest = whole.largest_weight().unwrap();
        assert_eq!(largest, 1e20);
        let row = |r: usize| {
            let one =
                |a: &ndarray::Array2<f64>| a.slice_axis(Axis(0), Slice::from(r..r + 1)).to_owned();
            Observations::new(one(&y)).weights(one(&weights)).unwrap().weights_near(largest)
        };
        for r in 0..2 {
            let slab = whole.slab(0, r..r + 1, r, 2).unwrap().weights_near(largest);
            // One is a view, the other a copy.
            let numbers = |o: &Observations| o.weights.as_ref().map(|w| w.to_array());
            assert_eq!(numbers(&slab), numbers(&row(r)));
            assert_eq!(slab.weight_exponent, whole.weight_exponent);
        }
    }
}
