//! Numbers that tell prepared data apart.

use super::{Digest, Prepared};

/// Numbers that are the same for the same observations, and differ for others but by chance (about
/// one in 2⁶⁴). They do not depend on the element type that values are kept in, nor on the number
/// of threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// Of the values, in the order of memory: another order is another order of all sums.
    pub values: u64,
    /// Of the role of every entry.
    pub roles: u64,
    /// Of the weights.
    pub weights: u64,
}

impl Prepared {
    /// Reads all data once.
    pub fn fingerprint(&self) -> Fingerprint {
        let [mut values, mut roles, mut weights] = [Digest::new(); 3];
        match self.coo() {
            Some(list) => values.coo(list),
            None => values.dense(self.values()),
        }
        if let Some(stored) = self.only_stored() {
            roles.words((0..stored.entries().len()).map(|i| stored.role(i) as u64));
            roles.word(stored.implicit() as u64);
            if let Some(drawn) = stored.drawn() {
                roles.words(drawn.words());
            }
        }
        if let Some(all) = self.roles() {
            roles.words(all.words().iter().copied());
        }
        if let Some(tensor) = self.weights() {
            weights.dense(tensor);
        }
        Fingerprint { values: values.number(), roles: roles.number(), weights: weights.number() }
    }
}

/// A number for a list of numbers.
pub fn digest(words: impl Iterator<Item = u64>) -> u64 {
    let mut all = Digest::new();
    all.words(words);
    all.number()
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;
    use crate::data::{CooTensor, Observations};

    fn of(observations: &Observations) -> Fingerprint {
        observations.prepare().unwrap().fingerprint()
    }

    #[test]
    fn the_same_data_are_the_same_and_others_are_not() {
        let y = Array2::from_shape_fn((211, 173), |(i, j)| ((i * j) % 300) as f64);
        let plain = of(&Observations::new(&y));
        assert_eq!(of(&Observations::new(y.mapv(|x| x as u16))), plain);
        // Any one entry, also the last.
        for at in [[0, 0], [94, 120], [210, 172]] {
            let mut other = y.clone();
            other[at] += 1.0;
            assert_ne!(of(&Observations::new(&other)).values, plain.values, "{at:?}");
        }
        let turned = Observations::new(y.t().as_standard_layout().to_owned().reversed_axes());
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
            of(&Observations::new(CooTensor::new(&[50, 60], &indices, values).unwrap()))
        };
        let one = list([vec![1, 2, 40], vec![3, 50, 6]], &[1.0, 2.0, 3.0]);
        assert_eq!(one, list([vec![40, 1, 2], vec![6, 3, 50]], &[3.0, 1.0, 2.0]));
        assert_ne!(one, list([vec![1, 2, 40], vec![3, 50, 7]], &[1.0, 2.0, 3.0]));
        assert_ne!(one, list([vec![1, 2, 40], vec![3, 50, 6]], &[1.0, 2.0, 4.0]));
    }
}
