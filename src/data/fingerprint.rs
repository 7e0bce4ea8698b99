//! Numbers that tell data apart.

use rayon::prelude::*;

use super::mapped::in_order;
use super::{Coordinates, Dense, Prepared, Storage};

/// Numbers that are the same for the same observations, and differ for others but by chance (about
/// one in 2⁶⁴). They do not depend on the element type that values are kept in, nor on the number of
/// threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    /// Of the values, in the order of memory: another order is another order of all sums.
    pub values: u64,
    /// Of the role of every cell.
    pub roles: u64,
    /// Of the weights.
    pub weights: u64,
}

impl Prepared {
    /// Reads all data once.
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        let shape = digest(self.shape().iter().map(|&n| n as u64));
        let values = match self.coordinates() {
            Some(list) => of_list(list),
            None => of_dense(self.values()),
        };
        let listed = self.listed().map(|listed| {
            let roles = (0..listed.list().len()).map(|i| listed.role(i) as u64);
            mix(digest(roles), listed.rest() as u64)
        });
        let words = self.roles().map(|roles| of_words(roles.words()));
        Fingerprint {
            values: mix(shape, values),
            roles: mix(listed.unwrap_or(0), words.unwrap_or(0)),
            weights: self.weights().map_or(0, |weights| of_dense(weights)),
        }
    }
}

/// A number for a list of numbers.
pub(crate) fn digest(words: impl Iterator<Item = u64>) -> u64 {
    words.fold(SEED, mix)
}

/// What a list begins with.
const SEED: u64 = 0x243f_6a88_85a3_08d3;
/// Cells of a unit of parallel work. Fixed, as the result depends on it.
const BLOCK: usize = 1 << 14;

/// Takes a word in: the two halves of a product of 128 bits, which all bits of both have a part in.
#[inline(always)]
fn mix(state: u64, word: u64) -> u64 {
    const ODD: [u64; 2] = [0x9e37_79b9_7f4a_7c15, 0xe703_7ed1_a0b4_28db];
    let product = u128::from(state ^ ODD[0]) * u128::from(word ^ ODD[1]);
    // Plus the state, so that no word makes all that came before it disappear.
    ((product as u64) ^ ((product >> 64) as u64)).wrapping_add(state.rotate_left(23))
}

/// The bits of a number as all element types have them.
#[inline(always)]
fn bits(x: f64) -> u64 {
    match x.is_nan() {
        true => u64::MAX,
        // Minus zero is zero.
        false => (x + 0.0).to_bits(),
    }
}

fn of_words(words: &[u64]) -> u64 {
    let parts: Vec<u64> =
        words.par_chunks(BLOCK).map(|part| digest(part.iter().copied())).collect();
    digest(parts.into_iter())
}

fn of_storage(storage: &Storage, start: usize, len: usize) -> u64 {
    let mut values = vec![0.0f64; len];
    storage.load(start, 1, &mut values);
    digest(values.into_iter().map(bits))
}

fn of_dense(dense: &Dense) -> u64 {
    let mut parts = Vec::new();
    in_order(&[dense], dense.len(), BLOCK, |cells| {
        let starts: Vec<usize> = cells.clone().step_by(BLOCK).collect();
        parts.par_extend(
            starts
                .par_iter()
                .map(|&start| of_storage(dense.storage(), start, BLOCK.min(cells.end - start))),
        );
    });
    // An axis of length 1 may stand anywhere.
    let axes = dense.shape().iter().zip(dense.strides()).filter(|&(&n, _)| n > 1);
    mix(digest(axes.map(|(_, &stride)| stride as u64)), digest(parts.into_iter()))
}

fn of_list(list: &Coordinates) -> u64 {
    let keys = of_words(&list.keys());
    let starts: Vec<usize> = (0..list.len()).step_by(BLOCK).collect();
    let of = |&start: &usize| of_storage(list.values(), start, BLOCK.min(list.len() - start));
    let values: Vec<u64> = starts.par_iter().map(of).collect();
    mix(keys, digest(values.into_iter()))
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;
    use crate::data::Observations;

    fn of(observations: &Observations) -> Fingerprint {
        observations.prepare().unwrap().fingerprint()
    }

    #[test]
    fn the_same_data_are_the_same_and_others_are_not() {
        let y = Array2::from_shape_fn((211, 173), |(i, j)| ((i * j) % 300) as f64);
        let plain = of(&Observations::new(&y));
        assert_eq!(of(&Observations::new(&y.mapv(|x| x as u16))), plain);
        // Any one cell, also the last.
        for at in [[0, 0], [94, 120], [210, 172]] {
            let mut other = y.clone();
            other[at] += 1.0;
            assert_ne!(of(&Observations::new(&other)).values, plain.values, "{at:?}");
        }
        let turned = Observations::new(&y.t().as_standard_layout().to_owned().reversed_axes());
        assert_ne!(of(&turned).values, plain.values);
    }

    #[test]
    fn roles_and_weights_count() {
        let y = Array2::from_shape_fn((40, 30), |(i, j)| (i + j) as f64);
        let plain = of(&Observations::new(&y));
        let split = |seed| of(&Observations::new(&y).held_out(0.1, seed).unwrap());
        assert_eq!(split(1), split(1));
        assert_ne!(split(1).roles, split(2).roles);
        assert_eq!(split(1).values, plain.values);
        let weights = Array2::from_shape_fn((40, 30), |(i, _)| 1.0 + i as f64);
        let weighed = of(&Observations::new(&y).weights(&weights).unwrap());
        assert_ne!(weighed.weights, plain.weights);
        assert_eq!(weighed.values, plain.values);
    }

    #[test]
    fn lists_of_cells() {
        let list = |indices: [Vec<u64>; 2], values: &[f64]| {
            of(&Observations::new(Coordinates::new(&[50, 60], &indices, values).unwrap()))
        };
        let one = list([vec![1, 2, 40], vec![3, 50, 6]], &[1.0, 2.0, 3.0]);
        assert_eq!(one, list([vec![40, 1, 2], vec![6, 3, 50]], &[3.0, 1.0, 2.0]));
        assert_ne!(one, list([vec![1, 2, 40], vec![3, 50, 7]], &[1.0, 2.0, 3.0]));
        assert_ne!(one, list([vec![1, 2, 40], vec![3, 50, 6]], &[1.0, 2.0, 4.0]));
    }
}
