//! What each entry is for, in two bits.

use std::ops::Range;

use pulp::Simd;

use nneinfact_simd::{Real, prefetch};

/// What an entry is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Role {
    /// Not observed, or of weight 0: it takes part in nothing.
    Missing = 0,
    /// The factors are fitted to it.
    Train = 1,
    /// Withheld from the fit; decides when to stop.
    Validation = 2,
    /// Withheld from the fit; only reported.
    HeldOut = 3,
}

impl Role {
    /// All roles, in the order of their numbers.
    pub const ALL: [Role; 4] = [Role::Missing, Role::Train, Role::Validation, Role::HeldOut];

    /// Its two bits for each of 16 entries.
    #[must_use]
    #[inline(always)]
    pub const fn pairs(self) -> u32 {
        LOW as u32 * self as u32
    }
}

/// The role of every entry of a [`Dense`](super::Dense), in its order of memory, two bits each.
///
/// They are stored, not recomputed from the seed in every pass: hashing every index would cost
/// about a third of a pass, and two bits add an eighth to the bytes of a `u16` datum. Masks and
/// missing values, which no hash can give, come in the same two bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roles {
    /// Entry `i` in the bits 2 (i mod 32) of word i / 32. One word more than needed, so that a run
    /// that starts inside a word can always read the next.
    words: Vec<u64>,
    len: usize,
    counts: [u64; 4],
}

/// Entries in a word.
pub(super) const PER_WORD: usize = 32;
/// Entries whose roles are expanded at a time.
const LANES: usize = 16;

/// The roles of [`LANES`] entries from `entry` on, two bits each. Reads one word beyond that of the
/// entry.
#[inline(always)]
fn codes(words: &[u64], entry: usize) -> u32 {
    let (word, shift) = (entry / PER_WORD, 2 * (entry % PER_WORD));
    (words[word] >> shift | (words[word + 1] << 1) << (63 - shift)) as u32
}

/// The low bit of every entry in a word.
pub(super) const LOW: u64 = 0x5555_5555_5555_5555;

impl Roles {
    /// From packed words; `words` holds at least one more than `len` entries need, and the entries
    /// beyond `len` are `Missing`.
    pub(super) fn from_words(words: Vec<u64>, len: usize, counts: [u64; 4]) -> Roles {
        debug_assert!(words.len() > len.div_ceil(PER_WORD));
        Roles { words, len, counts }
    }

    /// The number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The memory that they take, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        size_of_val(self.words.as_slice()) as u64
    }

    /// The packed roles: entry `i` in the two bits from `2 (i mod 32)` of word `i / 32`, the number
    /// of the role as in [`Role`]. What follows the last entry is 0, and there is at least one word
    /// more than the entries need.
    #[must_use]
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// The role of the entry at an offset of the memory, in elements; `Missing` outside.
    #[must_use]
    pub fn get(&self, offset: usize) -> Role {
        let word = self.words.get(offset / PER_WORD).copied().unwrap_or(0);
        Role::ALL[(word >> (2 * (offset % PER_WORD)) & 3) as usize]
    }

    /// How many entries have a role.
    #[must_use]
    pub fn count(&self, role: Role) -> u64 {
        self.counts[role as usize]
    }

    /// Asks for the roles of the entries from `offset` on to be brought into the caches.
    #[inline(always)]
    pub fn prefetch(&self, start: usize, rows: &[usize], part: Range<usize>, last: bool) {
        let part = part.start / PER_WORD..part.end / PER_WORD;
        for row in rows {
            prefetch(&self.words, start.wrapping_add(*row) / PER_WORD, &[0], part.clone(), last);
        }
    }

    /// Writes 1 where the entry at `offset`, `offset + stride`, … of the memory (in elements) has
    /// the role, and 0 where it has another.
    ///
    /// # Panics
    /// Where the run leaves the tensor, as indexing a slice does.
    #[inline(always)]
    pub fn indicator<S: Simd, T: Real>(
        &self,
        simd: S,
        role: Role,
        offset: usize,
        stride: usize,
        out: &mut [T],
    ) {
        if stride != 1 {
            for (i, to) in out.iter_mut().enumerate() {
                let entry = offset + i * stride;
                let code = self.words[entry / PER_WORD] >> (2 * (entry % PER_WORD)) & 3;
                *to = if code == role as u64 { T::ONE } else { T::ZERO };
            }
            return;
        }
        let (words, wanted) = (&self.words[offset / PER_WORD..], role.pairs());
        for (i, out) in out.chunks_mut(LANES).enumerate() {
            let codes = codes(words, offset % PER_WORD + i * LANES);
            match out.first_chunk_mut() {
                Some(out) => T::equal_pairs(simd, codes, wanted, out),
                None => {
                    let mut last = [T::ZERO; LANES];
                    T::equal_pairs(simd, codes, wanted, &mut last);
                    out.copy_from_slice(&last[..out.len()]);
                }
            }
        }
    }

    /// Writes the roles of a run to words of `each` entries, at most 16, from the place `start` on: that of
    /// place `p` to the two bits from `2 (p mod each)` of word `p / each`, which are 0 before.
    ///
    /// # Panics
    /// Where the run leaves the tensor, or the words, as indexing a slice does.
    #[inline(always)]
    pub fn pack(
        &self,
        offset: usize,
        stride: usize,
        start: usize,
        len: usize,
        each: usize,
        to: &mut [u32],
    ) {
        if stride != 1 {
            for i in 0..len {
                let (entry, place) = (offset + i * stride, start + i);
                let code = self.words[entry / PER_WORD] >> (2 * (entry % PER_WORD)) & 3;
                to[place / each] |= (code as u32) << (2 * (place % each));
            }
            return;
        }
        let words = &self.words[offset / PER_WORD..];
        let mut done = 0;
        while done < len {
            let place = start + done;
            let n = (each - place % each).min(len - done);
            let own = codes(words, offset % PER_WORD + done) & (u32::MAX >> (32 - 2 * n));
            to[place / each] |= own << (2 * (place % each));
            done += n;
        }
    }

    /// Calls `found` with the place in a contiguous run, and the role, of each of its entries that has
    /// another role than this, in order.
    #[inline]
    pub fn others(
        &self,
        role: Role,
        offset: usize,
        len: usize,
        mut found: impl FnMut(usize, Role),
    ) {
        let wanted = LOW * role as u64;
        let mut at = 0;
        while at < len {
            let (word, shift) = ((offset + at) / PER_WORD, (offset + at) % PER_WORD);
            let n = (PER_WORD - shift).min(len - at);
            let codes = self.words.get(word).copied().unwrap_or(0) >> (2 * shift);
            let differing = (codes ^ wanted) & (u64::MAX >> (64 - 2 * n));
            let mut left = (differing | differing >> 1) & LOW;
            while left != 0 {
                let bit = left.trailing_zeros();
                found(at + bit as usize / 2, Role::ALL[(codes >> bit & 3) as usize]);
                left &= left - 1;
            }
            at += n;
        }
    }

    /// Whether all entries of the contiguous run have the role: lets a pass skip the indicators.
    #[must_use]
    pub fn all(&self, role: Role, offset: usize, len: usize) -> bool {
        let wanted = LOW * role as u64;
        let mut at = offset;
        let end = offset.saturating_add(len);
        while at < end {
            let n = (PER_WORD - at % PER_WORD).min(end - at);
            let keep = (u64::MAX >> (64 - 2 * n)) << (2 * (at % PER_WORD));
            let Some(word) = self.words.get(at / PER_WORD) else { return false };
            if (word ^ wanted) & keep != 0 {
                return false;
            }
            at += n;
        }
        true
    }
}

/// One bit an entry: a mask, in the order of memory of the values it belongs to.
#[derive(Clone, Debug)]
pub(super) struct Bits {
    words: Vec<u64>,
    ones: u64,
}

impl Bits {
    pub fn pack(entries: impl Iterator<Item = bool>, len: usize) -> Bits {
        let mut words = Vec::with_capacity(len.div_ceil(64));
        let (mut word, mut n) = (0u64, 0u32);
        for entry in entries {
            word |= u64::from(entry) << n;
            n += 1;
            if n == 64 {
                words.push(word);
                (word, n) = (0, 0);
            }
        }
        if n > 0 {
            words.push(word);
        }
        let ones = words.iter().map(|w| u64::from(w.count_ones())).sum();
        Bits { words, ones }
    }

    /// `len` entries, of which those given are 1.
    pub fn from_list(entries: impl Iterator<Item = usize>, len: usize) -> Bits {
        let mut bits = Bits::none(len);
        entries.for_each(|entry| bits.set(entry));
        bits.counted()
    }

    /// `len` entries, all 0.
    pub fn none(len: usize) -> Bits {
        Bits { words: vec![0u64; len.div_ceil(64)], ones: 0 }
    }

    /// Makes an entry 1; [`Bits::counted`] has to follow in the end.
    pub fn set(&mut self, entry: usize) {
        self.words[entry / 64] |= 1 << (entry % 64);
    }

    /// These bits, counted.
    pub fn counted(self) -> Bits {
        let ones = self.words.iter().map(|w| u64::from(w.count_ones())).sum();
        Bits { ones, ..self }
    }

    pub fn ones(&self) -> u64 {
        self.ones
    }

    pub fn words(&self) -> &[u64] {
        &self.words
    }

    pub fn get(&self, entry: usize) -> bool {
        self.words[entry / 64] >> (entry % 64) & 1 == 1
    }

    /// The bits of the entries from `offset`, a multiple of 64, as 0 and 1.
    #[inline(always)]
    pub fn expand(&self, offset: usize, out: &mut [u8]) {
        for (to, &word) in out.chunks_mut(64).zip(&self.words[offset / 64..]) {
            for (to, byte) in to.chunks_mut(8).zip(word.to_le_bytes()) {
                for (i, to) in to.iter_mut().enumerate() {
                    *to = byte >> i & 1;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use pulp::{Scalar, WithSimd};

    use super::*;
    use nneinfact_simd::instruction_sets;

    #[test]
    fn entries_of_other_roles_are_found() {
        let all: Vec<Role> = (0..133usize).map(|i| Role::ALL[(i * i + i / 7) % 4]).collect();
        let mut words = vec![0u64; 133usize.div_ceil(PER_WORD) + 1];
        for (i, &role) in all.iter().enumerate() {
            words[i / PER_WORD] |= (role as u64) << (2 * (i % PER_WORD));
        }
        let roles = Roles::from_words(words, all.len(), [0; 4]);
        for (offset, len) in [(0, 133), (1, 31), (31, 2), (32, 64), (5, 128), (7, 0)] {
            for common in Role::ALL {
                let mut found = Vec::new();
                roles.others(common, offset, len, |i, role| found.push((i, role)));
                let run = all[offset..offset + len].iter().copied().enumerate();
                assert_eq!(found, run.filter(|&(_, r)| r != common).collect::<Vec<_>>());
            }
        }
    }

    fn roles(n: usize) -> (Roles, Vec<Role>) {
        let list: Vec<Role> = (0..n).map(|i| Role::ALL[(i * i / 3 + i / 7) % 4]).collect();
        let mut words = vec![0u64; n.div_ceil(PER_WORD) + 1];
        let mut counts = [0; 4];
        for (i, &role) in list.iter().enumerate() {
            words[i / PER_WORD] |= (role as u64) << (2 * (i % PER_WORD));
            counts[role as usize] += 1;
        }
        (Roles::from_words(words, n, counts), list)
    }

    /// Checks many runs of some roles under one instruction set.
    struct Runs<'a, T>(&'a Roles, &'a [Role], std::marker::PhantomData<T>);

    impl<T: Real> WithSimd for Runs<'_, T> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            let Runs(packed, list, _) = self;
            for stride in [1, 2, 7, 33] {
                for offset in 0..100 {
                    for len in [0, 1, 5, 16, 31, 32, 33, 64, 65, 100] {
                        if len > 0 && offset + (len - 1) * stride >= list.len() {
                            continue;
                        }
                        for of in Role::ALL {
                            let mut found = vec![T::from_f64(9.0); len];
                            packed.indicator(simd, of, offset, stride, &mut found);
                            for (i, &found) in found.iter().enumerate() {
                                let role = list[offset + i * stride];
                                assert_eq!(packed.get(offset + i * stride), role);
                                assert_eq!(found, if role == of { T::ONE } else { T::ZERO });
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn indicates_any_run() {
        let (packed, list) = roles(300);
        for arch in instruction_sets() {
            arch.dispatch(Runs(&packed, &list, std::marker::PhantomData::<f32>));
            arch.dispatch(Runs(&packed, &list, std::marker::PhantomData::<f64>));
        }
        let mut whole = vec![0.0f64; 300];
        packed.indicator(Scalar::new(), Role::Train, 0, 1, &mut whole);
        assert_eq!(whole.iter().sum::<f64>(), packed.count(Role::Train) as f64);
    }

    #[test]
    fn packs_any_run_behind_another() {
        let (packed, list) = roles(300);
        for each in [8, 16] {
            for (stride, offset) in [(1, 0), (1, 31), (1, 77), (2, 5), (7, 40)] {
                for (start, len) in
                    [(0usize, 0usize), (0, 1), (0, 16), (3, 5), (8, 24), (15, 34), (17, 33)]
                {
                    let first = usize::from(start > 0);
                    let mut words = vec![0; (start + len + 1).div_ceil(each)];
                    packed.pack(200, 1, 0, first, each, &mut words);
                    packed.pack(offset, stride, start, len, each, &mut words);
                    for place in 0..words.len() * each {
                        let got = words[place / each] >> (2 * (place % each)) & 3;
                        let want = match place {
                            _ if place < first => list[200 + place],
                            _ if (start..start + len).contains(&place) => {
                                list[offset + (place - start) * stride]
                            }
                            _ => Role::Missing,
                        };
                        assert_eq!(got, want as u32, "{each} {stride} {start} {len} {place}");
                    }
                }
            }
        }
    }

    #[test]
    fn recognises_uniform_runs() {
        let n = 200;
        let mut words = vec![LOW; n / PER_WORD + 2];
        words[2] ^= 3 << 10;
        let packed = Roles::from_words(words, n, [0; 4]);
        let other = 64 + 5;
        for offset in 0..120 {
            for len in [0, 1, 3, 32, 64, 80] {
                let touches = (offset..offset + len).contains(&other);
                assert_eq!(packed.all(Role::Train, offset, len), !touches, "{offset} {len}");
            }
        }
    }

    #[test]
    fn packs_bits() {
        let entries: Vec<bool> = (0..1000).map(|i| i % 3 == 0 || i % 7 == 2).collect();
        let bits = Bits::pack(entries.iter().copied(), entries.len());
        assert_eq!(bits.ones(), entries.iter().filter(|&&c| c).count() as u64);
        let mut out = vec![0; 1000 - 128];
        bits.expand(128, &mut out);
        assert!(out.iter().zip(&entries[128..]).all(|(&o, &c)| o == u8::from(c)));
    }
}
