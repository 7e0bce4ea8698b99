//! Random numbers for the splits: a function of seed and entry, not a sequence.

/// A random number for one entry, uniform over all 2³² values: a function of the seed, of a stream
/// (each purpose has its own) and of the index of the entry in C order.
///
/// So a split does not depend on the order of memory, on threads, or on the device. Only 32-bit
/// additions, multiplications, shifts and exclusive ors are used, which WGSL has: two rounds of
/// Wellons' `lowbias32` mixer over the index, with a key from seed and stream before each.
///
/// ```
/// use nneinfact::data::uniform_u32;
///
/// assert_eq!(uniform_u32(1, 0, 7), uniform_u32(1, 0, 7));
/// assert_ne!(uniform_u32(1, 0, 7), uniform_u32(1, 1, 7));
/// ```
#[must_use]
pub fn uniform_u32(seed: u64, stream: u32, index: u64) -> u32 {
    Key::new(seed, stream).at(index)
}

/// Seed and stream, mixed once for many entries.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    low: u32,
    high: u32,
}

impl Key {
    pub fn new(seed: u64, stream: u32) -> Key {
        let a = mix(seed as u32 ^ 0x9e37_79b9);
        let b = mix(a ^ (seed >> 32) as u32);
        let low = mix(b.wrapping_add(stream.wrapping_mul(0x85eb_ca6b)));
        let high = mix(low.wrapping_add(a) ^ 0xc2b2_ae35);
        Key { low, high }
    }

    /// Another stream of the same seed, for each number.
    pub fn derived(self, stream: u32) -> Key {
        Key::new(u64::from(self.high) << 32 | u64::from(self.low), stream)
    }

    #[inline(always)]
    pub fn at(self, index: u64) -> u32 {
        mix(mix(index as u32 ^ self.low) ^ mix((index >> 32) as u32 ^ self.high))
    }

    /// The numbers of many entries.
    #[inline(always)]
    pub fn fill(self, indices: &[u64], out: &mut [u32]) {
        // The high word is nearly always the same for all, which saves a third of the work.
        let high = indices.first().map_or(0, |&i| i >> 32);
        if indices.iter().fold(0, |or, &i| or | (i >> 32 ^ high)) == 0 {
            let high = mix(high as u32 ^ self.high);
            for (to, &i) in out.iter_mut().zip(indices) {
                *to = mix(mix(i as u32 ^ self.low) ^ high);
            }
        } else {
            for (to, &i) in out.iter_mut().zip(indices) {
                *to = self.at(i);
            }
        }
    }
}

/// A bijection of 32-bit words in which every input bit flips every output bit with probability
/// close to ½.
#[inline(always)]
fn mix(mut x: u32) -> u32 {
    x ^= x >> 16;
    x = x.wrapping_mul(0x7feb_352d);
    x ^= x >> 15;
    x = x.wrapping_mul(0x846c_a68b);
    x ^= x >> 16;
    x
}

/// The event of a given probability: a number from [`uniform_u32`] below the threshold. The
/// probability is rounded to a multiple of 2⁻³², at most 1 − 2⁻³².
pub(super) fn threshold(probability: f64) -> u32 {
    // The cast saturates.
    (probability * 4_294_967_296.0).round() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_are_as_one() {
        let key = Key::new(77, 3);
        for start in [0, (1u64 << 32) - 50, 1 << 45] {
            let indices: Vec<u64> = (0..100).map(|i| start + i).collect();
            let mut out = vec![0; 100];
            key.fill(&indices, &mut out);
            assert!(indices.iter().zip(&out).all(|(&i, &x)| x == key.at(i)), "{start}");
        }
    }

    #[test]
    fn thresholds() {
        assert_eq!(threshold(0.0), 0);
        assert_eq!(threshold(0.5), 1 << 31);
        assert_eq!(threshold(1.0 - 1e-17), u32::MAX);
        assert_eq!(threshold(1e-12), 0);
    }
}
