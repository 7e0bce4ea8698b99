//! A strip of a pass under the Kullback–Leibler divergence, the default loss.
//!
//! Product, quotient and divergence of a tile are one stretch of code, in registers: ŷ is not written
//! to memory and read again. Where K is small, a tile's share of the sums is added right there, too, to
//! the numerator and the denominator at once; and the memory of the next rows is asked for tile by tile,
//! as processors wait where they have a dozen lines on their way. It takes up to a tenth less time than one
//! loop after another over a strip at K up to thirty or so, and the same time beyond.

use pulp::{Simd, WithSimd};

use super::evaluate::Band;
use super::kernel::{BOTH, PANEL, abreast, outer_products};
use super::pass::Wants;
use nneinfact_core::plan::OperandSide;
use nneinfact_simd::{Elementwise, Real};

/// Quotients and divergences of some rows, those of a [`Band`].
pub(crate) struct Divergences<'a, T> {
    pub band: Band<'a, T>,
    /// `R` row-major (`[m][inner]`), a multiple of [`PANEL`] rows.
    pub r: &'a [T],
    /// `C`, with `band.ld` elements from one of its rows to the next.
    pub c: &'a [T],
    pub inner: usize,
    pub to: To<'a, T>,
}

/// What becomes of `a` and `b`, those of them that are wanted.
pub(crate) enum To<'a, T> {
    /// They are kept, row by row.
    Entries([&'a mut [T]; 2]),
    /// They are summed up, as [`reduce_rows`](super::kernel::reduce_rows) or
    /// [`reduce_lanes`](super::kernel::reduce_lanes) does. The first of the rows is the one of this number
    /// among those that have sums.
    LossSums(OperandSide, usize, [&'a mut [T]; 2]),
}

/// Rows of a tile whose sums are added at once. Fewer than of others: `C` is in the first-level cache,
/// and what is read of the rows is to stay there beside it.
const FEW: usize = PANEL;
/// Most vectors of a row of a tile.
const MOST: usize = 4;

impl<T: Elementwise> WithSimd for Divergences<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Divergences { mut band, r, c, inner, to } = self;
        let lanes = size_of::<T::Vector<S>>() / T::BYTES;
        let many = S::REGISTER_COUNT >= 32;
        let step = match to {
            To::Entries(_) if many => BOTH,
            _ => FEW,
        };
        let (c, _) = T::as_vectors::<S>(c);
        let ld = band.ld / lanes;
        let mut to = match to {
            To::Entries([a, b]) => Vectors::Entries([vectors::<S, T>(a), vectors::<S, T>(b)]),
            To::LossSums(side, start, [a, b]) => {
                Vectors::LossSums(side, start, [vectors::<S, T>(a), vectors::<S, T>(b)])
            }
        };
        let mut first = 0;
        while first < band.rows.len() {
            let rows = band.read(simd, first, step);
            // Tiles that are of cells altogether, and have no weights, need none.
            let plain = if band.source.weighs() { 0 } else { band.lanes / lanes };
            if !band.source.weighs() && band.lanes < band.ld {
                band.mark(rows, plain.saturating_sub(MOST) * lanes);
            }
            let entries = &*band.entries;
            let [train, validation, held_out] = entries.weights();
            let mut tile = Tile {
                simd,
                r: &r[first * inner..],
                c,
                inner,
                ld,
                floor: T::splat(simd, band.source.floor),
                x: T::as_vectors::<S>(&entries.x).0,
                weights: [
                    T::as_vectors::<S>(train).0,
                    T::as_vectors::<S>(validation).0,
                    T::as_vectors::<S>(held_out).0,
                ],
                withheld: band.source.withheld(),
                wants: band.source.wants,
                first,
                rows,
                losses: [T::splat(simd, T::ZERO); 3],
            };
            let mut j = 0;
            while j < ld {
                macro_rules! tile {
                    ($rows:expr, $vectors:expr) => {{
                        let end = j + $vectors;
                        band.look_ahead(first + step..first + 2 * step, j * lanes..end * lanes);
                        if end <= plain {
                            tile.run::<{ $rows }, { $vectors }, false>(j, &mut to);
                        } else {
                            tile.run::<{ $rows }, { $vectors }, true>(j, &mut to);
                        }
                        $vectors
                    }};
                }
                j += match (&to, ld - j) {
                    (Vectors::Entries(_), left) if many => match abreast::<S>(left) {
                        3 => tile!(BOTH, 3),
                        2 => tile!(BOTH, 2),
                        _ => tile!(BOTH, 1),
                    },
                    (_, MOST..) if many => tile!(FEW, MOST),
                    (_, 2..) => tile!(FEW, 2),
                    _ => tile!(FEW, 1),
                };
            }
            let losses = tile.losses;
            let roles = if band.source.weighs() { 3 } else { 1 };
            band.losses.collect(bytemuck::cast_slice::<_, T>(&losses[..roles]), lanes);
            first += step;
        }
    }
}

#[inline(always)]
fn vectors<S: Simd, T: Real>(values: &mut [T]) -> &mut [T::Vector<S>] {
    T::as_vectors_mut::<S>(values).0
}

/// [`To`], in vectors.
enum Vectors<'a, V> {
    Entries([&'a mut [V]; 2]),
    LossSums(OperandSide, usize, [&'a mut [V]; 2]),
}

/// Some rows, of which tiles are taken from left to right.
struct Tile<'a, S: Simd, T: Elementwise> {
    simd: S,
    /// `R` from the first of the rows on.
    r: &'a [T],
    c: &'a [T::Vector<S>],
    inner: usize,
    /// Vectors from one row of `c`, `x` and the weights to the next.
    ld: usize,
    floor: T::Vector<S>,
    x: &'a [T::Vector<S>],
    /// Weights for training, validation and cells held out.
    weights: [&'a [T::Vector<S>]; 3],
    withheld: [bool; 2],
    wants: Wants,
    /// The number of the first row, and how many there are: the others of a tile are nobody's.
    first: usize,
    rows: usize,
    /// Sums of losses, for each of the weights.
    losses: [T::Vector<S>; 3],
}

impl<S: Simd, T: Elementwise> Tile<'_, S, T> {
    /// The `M` rows by `V` vectors from vector `j` on, with weights or without any.
    #[inline(always)]
    fn run<const M: usize, const V: usize, const WEIGHTED: bool>(
        &mut self,
        j: usize,
        to: &mut Vectors<'_, T::Vector<S>>,
    ) {
        let Tile { simd, r, c, inner, ld, floor, x, weights, rows, .. } = *self;
        let zero = T::splat(simd, T::ZERO);
        // Rows that are nobody's are another one once more here, and have a quotient of 0.
        let panel = &r[..(M * inner).min(r.len())];
        let products = outer_products::<S, T, M, V>(simd, panel, rows, inner, inner, c, ld, j);
        // In an array of its own: the one that the sums are formed in is to stay in registers.
        let mut a = [[floor; V]; M];
        for m in 0..M {
            for v in 0..V {
                a[m][v] = T::at_least(simd, products[m][v], floor);
            }
        }
        if WEIGHTED {
            let mut losses = [[zero; V]; M];
            for m in 0..M {
                if m >= rows {
                    a[m] = [zero; V];
                    continue;
                }
                let (x, w) = (&x[m * ld + j..][..V], &weights[0][m * ld + j..][..V]);
                for v in 0..V {
                    let quotient;
                    (quotient, losses[m][v]) = divergence::<S, T>(simd, x[v], a[m][v]);
                    a[m][v] = weighted::<S, T>(simd, quotient, w[v]);
                }
            }
            let asked = [true, self.withheld[0], self.withheld[1]];
            let lists = weights.iter().zip(&mut self.losses).zip(asked);
            for ((weights, sum), _) in lists.filter(|(_, asked)| *asked) {
                for m in 0..M.min(rows) {
                    let weights = &weights[m * ld + j..][..V];
                    for v in 0..V {
                        let loss = weighted::<S, T>(simd, losses[m][v], weights[v]);
                        *sum = <T as Real>::add(simd, *sum, loss);
                    }
                }
            }
        } else {
            let mut sum = self.losses[0];
            for m in 0..M {
                if m >= rows {
                    a[m] = [zero; V];
                    continue;
                }
                let x = &x[m * ld + j..][..V];
                for v in 0..V {
                    let loss;
                    (a[m][v], loss) = divergence::<S, T>(simd, x[v], a[m][v]);
                    sum = <T as Real>::add(simd, sum, loss);
                }
            }
            self.losses[0] = sum;
        }

        if self.wants.numerator {
            self.put::<M, V>(j, panel, &a, 0, to);
        }
        if self.wants.denominator {
            let mut b = [[T::splat(simd, T::ONE); V]; M];
            if WEIGHTED {
                for m in 0..M.min(rows) {
                    b[m].copy_from_slice(&weights[0][m * ld + j..][..V]);
                }
            }
            self.put::<M, V>(j, panel, &b, 1, to);
        }
    }

    /// Keeps values of a tile, or adds them up.
    #[inline(always)]
    fn put<const M: usize, const V: usize>(
        &self,
        j: usize,
        panel: &[T],
        values: &[[T::Vector<S>; V]; M],
        which: usize,
        to: &mut Vectors<'_, T::Vector<S>>,
    ) {
        let Tile { simd, c, inner, ld, .. } = *self;
        match to {
            Vectors::Entries(to) => {
                let rows = to[which][self.first * ld..].chunks_exact_mut(ld);
                for (values, to) in values.iter().zip(rows) {
                    to[j..j + V].copy_from_slice(values);
                }
            }
            // Tiles whose sums are added at once are never taller: this is not to be compiled.
            Vectors::LossSums(..) if M != FEW => {}
            Vectors::LossSums(OperandSide::Lhs, start, to) => {
                let sums = &mut to[which][(*start + self.first) * inner..][..M * inner];
                add_rows::<S, T, M, V>(simd, values, c, ld, j, inner, sums);
            }
            Vectors::LossSums(OperandSide::Rhs, _, to) => {
                add_lanes::<S, T, M, V>(simd, values, panel, ld, j, inner, to[which]);
            }
        }
    }
}

/// The quotient of x and ŷ, and the Kullback–Leibler divergence of ŷ from x.
#[inline(always)]
fn divergence<S: Simd, T: Elementwise>(
    simd: S,
    x: T::Vector<S>,
    y: T::Vector<S>,
) -> (T::Vector<S>, T::Vector<S>) {
    let quotient = <T as Real>::div(simd, x, y);
    // Of a quotient that is 0 or subnormal the logarithm is some number, which does not matter: beside
    // y, so many times x is nothing.
    let log = T::ln_normal_vector(simd, quotient);
    (quotient, T::mul_add(simd, x, log, <T as Real>::sub(simd, y, x)))
}

/// `x · w`, and 0 where the weight is, whatever `x` is.
#[inline(always)]
fn weighted<S: Simd, T: Real>(simd: S, x: T::Vector<S>, w: T::Vector<S>) -> T::Vector<S> {
    T::choose(simd, w, <T as Real>::mul(simd, x, w), T::splat(simd, T::ZERO))
}

/// `sums[m, k] += Σ_n a[m, n] · c[k, n]` over the vectors n from `j` on.
#[inline(always)]
fn add_rows<S: Simd, T: Real, const M: usize, const V: usize>(
    simd: S,
    a: &[[T::Vector<S>; V]; M],
    c: &[T::Vector<S>],
    ld: usize,
    j: usize,
    inner: usize,
    sums: &mut [T::Vector<S>],
) {
    let (left, right) = sums.split_at_mut(2 * inner);
    let ((s0, s1), (s2, s3)) = (left.split_at_mut(inner), right.split_at_mut(inner));
    let sums = s0.iter_mut().zip(s1).zip(s2.iter_mut().zip(s3));
    for (c, ((s0, s1), (s2, s3))) in c.chunks_exact(ld).zip(sums) {
        let c = &c[j..j + V];
        let mut sums = [*s0, *s1, *s2, *s3];
        for v in 0..V {
            for m in 0..FEW {
                sums[m] = T::mul_add(simd, a[m][v], c[v], sums[m]);
            }
        }
        [*s0, *s1, *s2, *s3] = sums;
    }
}

/// `sums[k, n] += Σ_m r[m, k] · a[m, n]` for the vectors n from `j` on.
#[inline(always)]
fn add_lanes<S: Simd, T: Real, const M: usize, const V: usize>(
    simd: S,
    a: &[[T::Vector<S>; V]; M],
    r: &[T],
    ld: usize,
    j: usize,
    inner: usize,
    sums: &mut [T::Vector<S>],
) {
    let (left, right) = r.split_at(2 * inner);
    let ((r0, r1), (r2, r3)) = (left.split_at(inner), right.split_at(inner));
    let r = r0.iter().zip(r1).zip(r2.iter().zip(r3));
    for (sums, ((&r0, &r1), (&r2, &r3))) in sums.chunks_exact_mut(ld).zip(r) {
        let sums = &mut sums[j..j + V];
        let [r0, r1] = [T::splat(simd, r0), T::splat(simd, r1)];
        let [r2, r3] = [T::splat(simd, r2), T::splat(simd, r3)];
        let r = [r0, r1, r2, r3];
        for v in 0..V {
            let mut sum = sums[v];
            for m in 0..FEW {
                sum = T::mul_add(simd, r[m], a[m][v], sum);
            }
            sums[v] = sum;
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;
    use pulp::Arch;

    use super::super::evaluate::{Entries, Losses};
    use super::super::geometry::Run;
    use super::super::kernel;
    use super::super::pass::Source;
    use super::*;
    use nneinfact_core::data::{Dense, Observations, Prepared, Role};
    use nneinfact_core::loss::{Loss, Tape};
    use nneinfact_simd::instruction_sets;

    /// Numbers in (0, 1] that look like nothing in particular.
    fn noise(n: usize, seed: u32) -> Vec<f64> {
        let mix = |i: usize| (i as u32).wrapping_mul(2_654_435_761).wrapping_add(seed) >> 16;
        (0..n).map(|i| f64::from(1 + mix(i)) / 65_536.0).collect()
    }

    fn counts(rows: usize, lanes: usize, weighted: bool) -> Prepared {
        let pick = |m: usize, n: usize, of: usize| (m * 7 + n * 3) % of;
        let mut x = Array2::from_shape_fn((rows, lanes), |(m, n)| pick(m, n, 5) as f64);
        if !weighted {
            return Observations::new(Dense::from_array(&x)).prepare().unwrap();
        }
        let cells = |of: usize| Array2::from_shape_fn((rows, lanes), |(m, n)| pick(m, n, of) == 1);
        let weights = Array2::from_shape_fn((rows, lanes), |(m, n)| 0.5 + pick(m, n, 4) as f64);
        // What is missing may be anything.
        x.zip_mut_with(&cells(11), |x, &missing| *x = if missing { f64::NAN } else { *x });
        let observations = Observations::new(Dense::from_array(&x));
        let observations = observations.mask(&cells(11).mapv(|missing| !missing)).unwrap();
        let observations = observations.held_out_mask(&cells(6)).unwrap();
        let observations = observations.weights(Dense::from_array(&weights)).unwrap();
        observations.validation(0.1, 3).unwrap().prepare().unwrap()
    }

    /// What becomes of `a` and `b`, and of the losses, beside the same number by number.
    fn check<T: Elementwise>(
        arch: Arch,
        (rows, lanes, inner): (usize, usize, usize),
        side: Option<OperandSide>,
        data: &Prepared,
        [numerator, denominator]: [bool; 2],
    ) {
        let loss = Loss::kl();
        let mut outputs = vec![loss.loss()];
        if denominator {
            outputs.insert(0, loss.b());
        }
        if numerator {
            outputs.insert(0, loss.a());
        }
        let tape = Tape::compile(&outputs);
        assert!(tape.is_divergence());
        let floor = 0.02;
        let source = Source {
            data,
            roles: data.roles(),
            zeros: false,
            sides: &[],
            scale: T::ONE,
            floor: T::from_f64(floor),
            tape: &tape,
            wants: Wants { numerator, denominator, losses: true },
            schedule: None,
        };
        let padded = rows.next_multiple_of(PANEL);
        let ld = lanes.next_multiple_of(T::MAX_LANES);
        let typed = |x: &[f64]| x.iter().map(|&x| T::from_f64(x)).collect::<Vec<T>>();
        let (mut r, mut c) = (noise(padded * inner, 1), noise(inner * ld, 2));
        r[rows * inner..].fill(0.0);
        c.chunks_exact_mut(ld).for_each(|row| row[lanes..].fill(0.0));
        // As little as there can be, so that some predictions are below the floor.
        c.chunks_exact_mut(ld).for_each(|row| row[0] = 1e-6);

        let mut losses = Losses::default();
        let mut entries = Entries::new(&source, BOTH, ld);
        let offsets: Vec<usize> = (0..rows).map(|m| m * lanes).collect();
        let band = Band {
            source: &source,
            rows: &offsets,
            ahead: &offsets,
            runs: &[Run { start: 0, len: lanes, offset: 0, stride: 1 }],
            data_outer: 0,
            lanes,
            ld,
            entries: &mut entries,
            losses: &mut losses,
        };
        let start = PANEL;
        let size = match side {
            None => padded * ld,
            Some(OperandSide::Lhs) => (start + padded) * inner * T::MAX_LANES,
            Some(OperandSide::Rhs) => inner * ld,
        };
        let mut results = [vec![T::ZERO; size], vec![T::ZERO; size]];
        let [a, b] = &mut results;
        let to = match side {
            None => To::Entries([a, b]),
            Some(side) => To::LossSums(side, start, [a, b]),
        };
        arch.dispatch(Divergences { band, r: &typed(&r), c: &typed(&c), inner, to });

        let near = |got: f64, want: f64, what: &str| {
            let tolerance = if T::BYTES == 4 { 2e-5 } else { 1e-12 };
            let off = (got - want).abs();
            assert!(off <= tolerance * (1.0 + want.abs()), "{what}: {got} {want}");
        };
        let (mut want_a, mut want_b) = (Array2::zeros((rows, lanes)), Array2::zeros((rows, lanes)));
        let mut sums = [0.0; 3];
        for m in 0..rows {
            for n in 0..lanes {
                let at = m * lanes + n;
                let role = data.roles().map_or(Role::Train, |roles| roles.get(at));
                let mut weight = [T::ONE];
                if let Some(weights) = data.weights() {
                    weights.load(at, 1, &mut weight);
                }
                let w = weight[0].to_f64();
                let mut x = [T::ZERO];
                data.values().load(at, 1, &mut x);
                let x = x[0].to_f64();
                let y: f64 = (0..inner).map(|k| r[m * inner + k] * c[k * ld + n]).sum();
                let y = y.max(floor);
                let loss = w * (if x > 0.0 { x * (x / y).ln() - x + y } else { y });
                match role {
                    Role::Train => {
                        (want_a[[m, n]], want_b[[m, n]]) = (w * x / y, w);
                        sums[0] += loss;
                    }
                    Role::Validation => sums[1] += loss,
                    Role::HeldOut => sums[2] += loss,
                    Role::Missing => {}
                }
            }
        }
        let got = losses.take();
        near(got.train, sums[0], "train");
        near(got.validation, sums[1], "validation");
        near(got.held_out, sums[2], "held out");

        let wanted = [(want_a, numerator), (want_b, denominator)];
        for ((want, wanted), result) in wanted.iter().zip(&mut results) {
            match side {
                _ if !wanted => assert!(result.iter().all(|&x| x == T::ZERO)),
                None => {
                    for ((m, n), &want) in want.indexed_iter() {
                        near(result[m * ld + n].to_f64(), want, "entry");
                    }
                }
                Some(OperandSide::Lhs) => {
                    let mut collected = vec![T::ZERO; (start + padded) * inner];
                    kernel::collect_rows(arch, result, &mut collected);
                    for m in 0..rows {
                        for k in 0..inner {
                            let want = (0..lanes).map(|n| want[[m, n]] * c[k * ld + n]).sum();
                            near(collected[(start + m) * inner + k].to_f64(), want, "row");
                        }
                    }
                }
                Some(OperandSide::Rhs) => {
                    for k in 0..inner {
                        for n in 0..lanes {
                            let want = (0..rows).map(|m| want[[m, n]] * r[m * inner + k]).sum();
                            near(result[k * ld + n].to_f64(), want, "lane");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn strips_are_those_of_the_numbers_one_by_one() {
        for (rows, lanes) in [(1, 1), (3, 15), (4, 16), (5, 17), (8, 64), (9, 100), (13, 200)] {
            for weighted in [false, true] {
                // Too few cells for all roles.
                if weighted && rows * lanes < 100 {
                    continue;
                }
                let data = counts(rows, lanes, weighted);
                for arch in instruction_sets() {
                    for inner in [1, 2, 5, 33] {
                        let size = (rows, lanes, inner);
                        for side in [None, Some(OperandSide::Lhs), Some(OperandSide::Rhs)] {
                            for wanted in [[false, false], [true, false], [true, true]] {
                                check::<f32>(arch, size, side, &data, wanted);
                                check::<f64>(arch, size, side, &data, wanted);
                            }
                        }
                    }
                }
            }
        }
    }
}
