//! The peaks of the roofline of a CPU: what it can do at best, measured and not read off a data sheet.
//!
//! All threads of the pool run at once, each on data of its own. What is measured is what the passes use:
//! the same instruction set, and for powers and logarithms the same code.

use std::hint::black_box;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use pulp::{Simd, WithSimd};

use crate::tape::run_tape;
use nneinfact_core::engine::RooflinePeaks;
use nneinfact_core::loss::{Expr, Scratch, Tape};
use nneinfact_simd::{Aligned, Real};

/// Elements that all threads together read, more than most caches hold, and the least for one thread.
const ELEMENTS: usize = 64 << 20;
const LEAST: usize = 4 << 20;
/// Multiply-adds that each chain does one after another.
const STEPS: usize = 5_000_000;
/// Elements of a block of powers or logarithms: input and output stay in the first cache.
const BLOCK: usize = 512;
/// Blocks that a thread computes.
const BLOCKS: usize = 20_000;

/// Elements of a line of the cache, and lines of the tables that are gathered from: as much as the blocks of
/// a tile may take in a sparse pass, and more than a second-level cache holds.
const LINE: usize = 16;
const TABLE_LINES: usize = 1 << 12;
const DISTANT_LINES: usize = 1 << 17;
/// How many lines a thread looks up.
const GATHERED: usize = 1 << 23;

/// Measures the roofline of the threads of the pool that this is called in; roughly where it is to be quick.
pub fn measure(quick: bool) -> RooflinePeaks {
    // Each is the best of so many: what else runs on the machine only makes it slower.
    let (shrink, repeats) = if quick { (64, 2) } else { (1, 7) };

    let elements = (ELEMENTS / rayon::current_num_threads()).max(LEAST) / shrink;
    // Each made by the thread that uses it, which is where its memory is near.
    let arrays: Vec<Mutex<Vec<f32>>> =
        rayon::broadcast(|_| Mutex::new(vec![black_box(1.0); elements]));
    let read = best(repeats, &|thread| {
        let array = arrays[thread].lock().unwrap_or_else(PoisonError::into_inner);
        black_box(nneinfact_simd::arch().dispatch(Read(&array)));
        (elements * size_of::<f32>()) as f64
    });
    let copy = best(repeats, &|thread| {
        let mut array = arrays[thread].lock().unwrap_or_else(PoisonError::into_inner);
        let (from, to) = array.split_at_mut(elements / 2);
        let n = from.len().min(to.len());
        to[..n].copy_from_slice(&from[..n]);
        black_box(&mut array);
        (2 * n * size_of::<f32>()) as f64
    });
    drop(arrays);

    let steps = STEPS / shrink;
    let multiply_adds = best(repeats, &|_| nneinfact_simd::arch().dispatch(MultiplyAdds { steps }));
    let elementwise = |of: &Expr| {
        let tape = Tape::compile(&[of]);
        let blocks = BLOCKS / shrink;
        best(repeats, &|_| {
            let mut y = Aligned::zeros(BLOCK);
            y.iter_mut().enumerate().for_each(|(i, y)| *y = 0.1 + i as f32 / 100.0);
            let mut result = Aligned::zeros(BLOCK);
            nneinfact_simd::arch().dispatch(RunBlocks {
                tape: &tape,
                y: &y,
                blocks,
                result: &mut result,
            });
            (blocks * BLOCK) as f64
        })
    };
    RooflinePeaks {
        read_bytes_per_second: read,
        copy_bytes_per_second: copy,
        multiply_adds_per_second: multiply_adds,
        powers_per_second: elementwise(&Expr::y().pow(0.7)),
        logarithms_per_second: elementwise(&Expr::y().ln()),
        gathered_lines_per_second: Some(gathered_lines(repeats, TABLE_LINES, GATHERED / shrink)),
        distant_lines_per_second: Some(gathered_lines(repeats, DISTANT_LINES, GATHERED / shrink)),
    }
}

/// Lines that all threads look up in a second, each thread about `gathered` of them, in a table of its own of
/// so many lines.
fn gathered_lines(repeats: usize, lines: usize, gathered: usize) -> f64 {
    // By a multiplicative hash: rows that no prefetcher foresees.
    let row = |i: u32| (i.wrapping_mul(1_664_525) >> 7) % lines as u32;
    let rows: Vec<u32> = (0..lines as u32).map(row).collect();
    let gathers = (gathered / lines).max(1);
    let tables: Vec<Mutex<Aligned<f32>>> = rayon::broadcast(|_| {
        let mut table = Aligned::zeros(lines * LINE);
        table.fill(black_box(1.0));
        Mutex::new(table)
    });
    best(repeats, &|thread| {
        let table = tables[thread].lock().unwrap_or_else(PoisonError::into_inner);
        let gather = GatherLines { table: &table, rows: black_box(&rows), gathers };
        black_box(nneinfact_simd::arch().dispatch(gather));
        (gathers * rows.len()) as f64
    })
}

/// What all threads do in a second, of what `work` says that it did on one.
fn best(repeats: usize, work: &(dyn Fn(usize) -> f64 + Sync)) -> f64 {
    let mut best = 0.0;
    for _ in 0..repeats {
        let started = Instant::now();
        let done: f64 = rayon::broadcast(|thread| work(thread.index())).into_iter().sum();
        best = f64::max(best, done / started.elapsed().as_secs_f64());
    }
    best
}

/// The sum of an array, which is no more work than reading it.
struct Read<'a>(&'a [f32]);

impl WithSimd for Read<'_> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f32 {
        const CHAINS: usize = 8;
        let (array, _) = f32::as_vectors::<S>(self.0);
        let mut sums = [f32::splat(simd, 0.0); CHAINS];
        for vectors in array.chunks_exact(CHAINS) {
            for (sum, &vector) in sums.iter_mut().zip(vectors) {
                *sum = <f32 as Real>::add(simd, *sum, vector);
            }
        }
        total(simd, sums)
    }
}

/// The sum of lines of a table, here and there, again and again.
struct GatherLines<'a> {
    table: &'a [f32],
    rows: &'a [u32],
    gathers: usize,
}

impl WithSimd for GatherLines<'_> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f32 {
        const CHAINS: usize = 4;
        let (table, _) = f32::as_vectors::<S>(self.table);
        let vectors = LINE * table.len() / self.table.len().max(1);
        let mut sums = [f32::splat(simd, 0.0); CHAINS];
        for _ in 0..self.gathers {
            for rows in self.rows.chunks_exact(CHAINS) {
                for (sum, &row) in sums.iter_mut().zip(rows) {
                    for &vector in &table[row as usize * vectors..][..vectors] {
                        *sum = <f32 as Real>::add(simd, *sum, vector);
                    }
                }
            }
        }
        total(simd, sums)
    }
}

/// Multiply-adds that wait for nothing but the units that carry them out. Returns their number.
struct MultiplyAdds {
    steps: usize,
}

impl WithSimd for MultiplyAdds {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f64 {
        // As many chains as there are registers for, with the two operands that they share.
        let chains = if S::REGISTER_COUNT >= 32 {
            chains::<S, 24>(simd, self.steps);
            24
        } else {
            chains::<S, 12>(simd, self.steps);
            12
        };
        let lanes = size_of::<<f32 as Real>::Vector<S>>() / size_of::<f32>();
        (self.steps * chains * lanes) as f64
    }
}

#[inline(always)]
fn chains<S: Simd, const N: usize>(simd: S, steps: usize) {
    let factor = f32::splat(simd, black_box(0.5));
    let constant = f32::splat(simd, black_box(1.0));
    let mut values = [f32::splat(simd, 0.0); N];
    // Chains that begin alike would be computed once.
    for (i, value) in values.iter_mut().enumerate() {
        *value = f32::splat(simd, black_box(i as f32));
    }
    for _ in 0..steps {
        for value in &mut values {
            *value = <f32 as Real>::mul_add(simd, *value, factor, constant);
        }
    }
    black_box(total(simd, values));
}

#[inline(always)]
fn total<S: Simd, const N: usize>(simd: S, values: [<f32 as Real>::Vector<S>; N]) -> f32 {
    let mut sum = f32::splat(simd, 0.0);
    for &value in &values {
        sum = <f32 as Real>::add(simd, sum, value);
    }
    <f32 as Real>::reduce_sum(simd, sum)
}

/// A tape over the same block again and again.
struct RunBlocks<'a> {
    tape: &'a Tape,
    y: &'a [f32],
    blocks: usize,
    result: &'a mut [f32],
}

impl WithSimd for RunBlocks<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let mut scratch = Scratch::new();
        for _ in 0..self.blocks {
            let y = black_box(self.y);
            run_tape(simd, self.tape, y, y, &[], &mut scratch, &mut [&mut *self.result]);
            black_box(&mut *self.result);
        }
    }
}
