//! Random numbers as a function of seed, stream and index, not as a sequence: so they do not depend
//! on the order of the work or on the number of threads.

use std::f64::consts::TAU;

/// What the numbers are for. Every purpose has a stream of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    /// Entries of a random start.
    Start = 1,
    /// Start points of a cross interpolation.
    CrossStart = 2,
    /// Points at which a cross interpolation is checked.
    CrossCheck = 3,
    /// Random directions in a cross interpolation.
    CrossKick = 4,
    /// Cores of a random sketch, from the left.
    SketchLeft = 5,
    /// Cores of a random sketch, from the right.
    SketchRight = 6,
    /// Samples of a distribution.
    Sample = 7,
}

/// Random numbers that are a function of their index.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stream {
    key: u64,
}

impl Stream {
    pub fn new(seed: u64, purpose: Purpose, part: u64) -> Stream {
        let key = mix(seed ^ mix(purpose as u64));
        Stream { key: mix(key ^ mix(part.wrapping_add(0x9e37_79b9_7f4a_7c15))) }
    }

    fn bits(self, index: u64) -> u64 {
        // SplitMix64: the index counts steps of the golden ratio from the key.
        mix(self.key.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    /// Uniform in [0, 1), with 53 bits.
    pub fn uniform(self, index: u64) -> f64 {
        (self.bits(index) >> 11) as f64 / 9_007_199_254_740_992.0
    }

    /// Uniform over 0..n.
    pub fn below(self, n: usize, index: u64) -> usize {
        ((u128::from(self.bits(index)) * n as u128) >> 64) as usize
    }

    /// Normal with mean 0 and variance 1, by the transformation of Box and Muller.
    pub fn normal(self, index: u64) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform(2 * index)).ln()).sqrt();
        radius * (TAU * self.uniform(2 * index + 1)).cos()
    }
}

/// The finalizer of SplitMix64.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_the_distributions() {
        let s = Stream::new(3, Purpose::Sample, 0);
        let n = 100_000;
        let mean: f64 = (0..n).map(|i| s.uniform(i)).sum::<f64>() / n as f64;
        assert!((mean - 0.5).abs() < 0.005, "{mean}");
        let (mut m1, mut m2) = (0.0, 0.0);
        for i in 0..n {
            let z = s.normal(i);
            m1 += z / n as f64;
            m2 += z * z / n as f64;
        }
        assert!(m1.abs() < 0.02 && (m2 - 1.0).abs() < 0.02, "{m1} {m2}");
        let mut counts = [0; 5];
        (0..n).for_each(|i| counts[s.below(5, i)] += 1);
        assert!(counts.iter().all(|&c| (19_000..21_000).contains(&c)), "{counts:?}");
    }

    #[test]
    fn streams_differ() {
        let a = Stream::new(1, Purpose::Start, 0);
        for other in [
            Stream::new(2, Purpose::Start, 0),
            Stream::new(1, Purpose::Sample, 0),
            Stream::new(1, Purpose::Start, 1),
        ] {
            assert!((0..100).all(|i| a.uniform(i) != other.uniform(i)));
        }
    }
}
