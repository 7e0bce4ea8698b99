//! A train as a network.

use super::{Dense, Network};
use crate::error::{Error, Result};
use crate::train::TensorTrain;

impl Network {
    /// A train as a network with a factor for each core. `output` has a letter for each mode, in order;
    /// the bonds between them get letters that it leaves free. The scale of the train is spread evenly over
    /// the factors.
    ///
    /// # Errors
    ///
    /// If `output` has not as many different letters a–z, A–Z as the train has modes, fewer than one letter is
    /// left for each bond (more than 26 modes), or an entry of a scaled core is beyond double precision.
    ///
    /// ```
    /// use nneinfact_density::{Core, Network, TensorTrain};
    ///
    /// let cores = vec![
    ///     Core::new([1, 2, 2], vec![1.0, 0.0, 0.0, 1.0])?,
    ///     Core::new([2, 3, 1], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0])?,
    /// ];
    /// let network = Network::from_train(&TensorTrain::new(cores, 0.0)?, "ij")?;
    /// assert_eq!(network.tensors()[1].shape(), [2, 3]);
    /// assert!((network.inner(&network)? - 91.0).abs() < 1e-9);
    /// # Ok::<(), nneinfact_density::Error>(())
    /// ```
    pub fn from_train(train: &TensorTrain, output: &str) -> Result<Network> {
        let modes: Vec<char> = output.chars().filter(|c| !c.is_whitespace()).collect();
        let d = train.order();
        if modes.len() != d {
            return Err(Error::Shape {
                what: format!("the output `{output}`"),
                found: format!("{} letters", modes.len()),
                expected: format!("{d}, one for each mode of the train"),
            });
        }
        let free = ('a'..='z').chain('A'..='Z').filter(|c| !modes.contains(c));
        let bonds: Vec<char> = free.take(d - 1).collect();
        if bonds.len() + 1 < d {
            return Err(Error::Unsupported(format!(
                "a train of {d} modes is no network: there are 52 letters, for modes and the bonds between \
                 them, so that 26 modes are the most"
            )));
        }
        let scale = (train.log_scale() / d as f64).exp();
        let (mut text, mut tensors) = (String::new(), Vec::with_capacity(d));
        for (k, core) in train.cores().iter().enumerate() {
            let [left, n, right] = core.shape();
            let mut shape = Vec::with_capacity(3);
            if k > 0 {
                text.extend([',', bonds[k - 1]]);
                shape.push(left);
            }
            text.push(modes[k]);
            shape.push(n);
            if k + 1 < d {
                text.push(bonds[k]);
                shape.push(right);
            }
            tensors.push(Dense::new(shape, core.data().iter().map(|x| scale * x).collect())?);
        }
        text.push_str("->");
        text.extend(&modes);
        Network::new(&text, tensors)
    }
}

#[cfg(test)]
mod tests {
    use super::super::contract::contract;
    use super::*;
    use crate::core::Core;
    use crate::nonnegative::NonnegativeTrain;

    #[test]
    fn a_network_has_the_entries_of_its_train() {
        for sizes in [vec![3], vec![2, 3], vec![2, 3, 4, 2]] {
            let ranks = vec![2; sizes.len() - 1];
            let train = NonnegativeTrain::random(&sizes, &ranks, 1).unwrap().into_train();
            let train = TensorTrain { log_scale: train.log_scale + 3.0, ..train };
            // Letters that bonds would take first.
            let letters: String = "abcd"[..sizes.len()].chars().rev().collect();
            let network = Network::from_train(&train, &letters).unwrap();
            let order: Vec<char> = letters.chars().collect();
            let formed = contract(network.labelled(0..sizes.len(), false), &order).unwrap();
            let want = train.to_dense().unwrap();
            assert_eq!(formed.data.len(), want.len());
            for (got, want) in formed.data.iter().zip(&want) {
                assert!((got / want - 1.0).abs() < 1e-12, "{sizes:?}: {got} {want}");
            }
        }
    }

    #[test]
    fn letters_have_to_suffice() {
        let ones = |d: usize| {
            let cores = (0..d).map(|_| Core::new([1, 2, 1], vec![1.0; 2]).unwrap()).collect();
            TensorTrain::new(cores, 0.0).unwrap()
        };
        let says = |d: usize, output: &str, word: &str| {
            let error = Network::from_train(&ones(d), output).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        };
        says(3, "ij", "one for each mode");
        says(2, "ii", "`i` is twice");
        says(2, "i+", "is not a letter");
        let all: String = ('a'..='z').chain('A'..='Z').collect();
        says(27, &all[..27], "26 modes are the most");
        assert!(Network::from_train(&ones(26), &all[..26]).is_ok());
        let huge = TensorTrain { log_scale: 1e6, ..ones(2) };
        assert!(Network::from_train(&huge, "ij").is_err());
    }
}
