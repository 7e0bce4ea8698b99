//! A number that tells data apart.

use super::mapped::in_order;
use super::observations::Split;
use super::roles::Bits;
use super::{CooTensor, Dense, Indices, Observations};
use crate::parallel;

/// A hash of 64 bits that is the same on every machine and in every version: FNV-1a over words of
/// eight bytes, each mixed first. It tells data apart that are different by accident, not by
/// intent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest(u64);

/// Entries that are hashed on their own. Fixed, as the result depends on it.
const BLOCK: usize = 1 << 15;

/// The bits of a number as all element types have them.
fn value_bits(x: f64) -> u64 {
    match x.is_nan() {
        true => u64::MAX,
        // Minus zero is zero.
        false => (x + 0.0).to_bits(),
    }
}

impl Default for Digest {
    fn default() -> Digest {
        Digest::new()
    }
}

impl Digest {
    /// The hash of nothing.
    pub fn new() -> Digest {
        Digest(0xcbf2_9ce4_8422_2325)
    }

    /// Adds a word.
    pub fn word(&mut self, word: u64) {
        // The last step of SplitMix64, so that all bits of the word count.
        let mut z = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        self.0 = (self.0 ^ z ^ (z >> 31)).wrapping_mul(0x0000_0100_0000_01b3);
        self.0 ^= self.0 >> 32;
    }

    /// Adds words, in order.
    pub fn words(&mut self, words: impl IntoIterator<Item = u64>) {
        words.into_iter().for_each(|word| self.word(word));
    }

    /// Adds a text with its length.
    pub fn text(&mut self, text: &str) {
        self.word(text.len() as u64);
        for bytes in text.as_bytes().chunks(8) {
            let mut word = [0; 8];
            word[..bytes.len()].copy_from_slice(bytes);
            self.word(u64::from_le_bytes(word));
        }
    }

    fn sizes(&mut self, sizes: &[usize]) {
        self.word(sizes.len() as u64);
        self.words(sizes.iter().map(|&n| n as u64));
    }

    /// Adds values in their order of memory, whatever type they are kept in.
    pub fn dense(&mut self, tensor: &Dense) {
        self.sizes(tensor.shape());
        // An axis of length 1 may stand anywhere.
        let axes = tensor.shape().iter().zip(tensor.strides()).filter(|&(&n, _)| n > 1);
        self.words(axes.map(|(_, &stride)| stride as u64));
        let n = tensor.len();
        in_order(&[tensor], n, BLOCK, |entries| {
            let blocks = entries.start / BLOCK..entries.end.div_ceil(BLOCK);
            self.words(parallel::map(blocks.len(), &|block| {
                let start = (blocks.start + block) * BLOCK;
                let mut values = vec![0.0f64; BLOCK.min(n - start)];
                tensor.load(start, 1, &mut values);
                let mut part = Digest::new();
                part.words(values.into_iter().map(value_bits));
                part.0
            }));
        });
    }

    /// Adds the shape, the indices and the values of a COO tensor.
    pub fn coo(&mut self, list: &CooTensor) {
        self.sizes(list.shape());
        self.word(list.len() as u64);
        for mode in list.indices() {
            match mode {
                Indices::U32(v) => self.words(v.iter().map(|&i| i.into())),
                Indices::U64(v) => self.words(v.iter().copied()),
            }
        }
        self.words((0..list.len()).map(|i| value_bits(list.values().get(i).unwrap_or(0.0))));
    }

    fn bits(&mut self, bits: &Bits) {
        self.word(bits.ones());
        self.words(bits.words().iter().copied());
    }

    fn split(&mut self, split: Split) {
        self.word(split.threshold.into());
        // The first numbers that it draws stand for its key.
        self.words((0..4).map(|i| split.key.at(i).into()));
    }

    /// The hash as a number.
    pub fn number(self) -> u64 {
        self.0
    }

    /// Sixteen hexadecimal digits.
    pub fn hex(self) -> String {
        format!("{:016x}", self.0)
    }
}

impl Observations {
    /// Sixteen hexadecimal digits that are the same for the same observations: values, shape and
    /// order of memory, mask, weights, what is missing, splits. The type that values are kept in
    /// does not matter, nor whether they stay in a file.
    ///
    /// ```
    /// use ndarray::array;
    /// use nneinfact::Observations;
    ///
    /// let y = Observations::new(array![[1.0, 2.0], [3.0, 4.0]]);
    /// assert_eq!(y.fingerprint(), Observations::new(array![[1, 2], [3, 4]]).fingerprint());
    /// assert_ne!(y.fingerprint(), Observations::new(array![[1, 2], [3, 5]]).fingerprint());
    /// ```
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let mut all = Digest::new();
        match &self.coordinates {
            Some(list) => all.coo(list),
            None => all.dense(&self.values),
        }
        all.word(u64::from(self.unlisted_missing) | u64::from(self.nan_missing) << 1);
        // A number before each, so that none can be taken for another.
        let lists = [&self.missing_at, &self.held_out_at, &self.validation_at];
        for (n, list) in lists.into_iter().enumerate() {
            if let Some(list) = list {
                all.word(1 + n as u64);
                all.coo(list);
            }
        }
        for (n, bits) in [&self.mask, &self.held_out_mask].into_iter().enumerate() {
            if let Some(bits) = bits {
                all.word(11 + n as u64);
                all.bits(bits);
            }
        }
        if let Some(weights) = &self.weights {
            all.word(21);
            all.dense(weights);
        }
        for (n, split) in [self.held_out, self.validation].into_iter().enumerate() {
            if let Some(split) = split {
                all.word(31 + n as u64);
                all.split(split);
            }
        }
        if let Some(ratio) = self.strata_ratio() {
            all.word(41);
            all.word(ratio.to_bits());
        }
        all.hex()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::SplitKind;
    use crate::error::Result;

    #[test]
    fn every_part_of_the_observations_counts() -> Result<()> {
        let y = ndarray::Array2::from_shape_fn((30, 20), |(i, j)| (i * 7 + j * 3) as f64 % 11.0);
        let plain = || Observations::new(&y);
        let mask = y.mapv(|x| x != 3.0);
        let list = || CooTensor::new(&[30, 20], &[vec![1], vec![2]], &[1.0]);
        let all = [
            plain(),
            Observations::new(y.t()),
            Observations::new(list()?),
            Observations::new(list()?).unlisted_missing(),
            plain().nan_missing(),
            plain().mask(&mask)?,
            plain().held_out_mask(&mask)?,
            plain().weights(y.mapv(|x| 1.0 + x))?,
            plain().missing_at(list()?)?,
            plain().held_out_at(list()?)?,
            plain().validation_at(list()?)?,
            plain().held_out(0.1, 0)?,
            plain().held_out(0.1, 1)?,
            plain().held_out(0.2, 0)?,
            plain().validation(0.1, 0)?,
            Observations::new(list()?).held_out(0.1, 0)?,
            Observations::new(list()?).held_out(0.1, 0)?.split_as(SplitKind::Strata),
            Observations::new(list()?)
                .held_out(0.1, 0)?
                .split_as(SplitKind::Strata)
                .zeros_per_nonzero(2.0)?,
        ];
        let prints: Vec<String> = all.iter().map(Observations::fingerprint).collect();
        for (i, print) in prints.iter().enumerate() {
            assert_eq!(print.len(), 16);
            assert!(!prints[..i].contains(print), "{i}");
        }
        assert_eq!(prints, all.each_ref().map(Observations::fingerprint));
        Ok(())
    }

    #[test]
    fn texts() {
        let print = |texts: &[&str]| {
            let mut print = Digest::new();
            texts.iter().for_each(|text| print.text(text));
            print
        };
        assert_eq!(print(&["kl", "ir,jr->ij"]), print(&["kl", "ir,jr->ij"]));
        assert_ne!(print(&["kl", "x"]), print(&["klx"]));
        assert_ne!(print(&["ab"]), print(&["ba"]));
        assert_ne!(print(&[""]), print(&[]));
    }
}
