//! The Newton direction of one slice. NTT.md, section 4.3.
//!
//! Everything is in the unknown `y = δ/x`, the relative change of the entries: the Hessian of the
//! barrier is then μ times the identity, where in δ it is μ/x², which overflows.

use std::sync::OnceLock;

use nneinfact_simd::{Aligned, Real, arch};
use pulp::{Simd, WithSimd};

use super::environments::Node;
use super::newton::Line;
use super::settings::Solver;
use crate::small::{
    Kronecker, Left, PackedKronecker, Scratch, lanes, padded, solve_positive, times,
};

/// How to solve for the direction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Linear {
    pub solver: Solver,
    pub max_steps: usize,
    pub tol: f64,
    pub preconditioner_min: f64,
}

/// The Gram matrices of the two sides of a core, as the steps of its slices read them. The rows of
/// slices, and of `b`, are padded with zeros to whole vectors.
pub(crate) struct Sides<'a> {
    left: usize,
    right: usize,
    node: &'a Node,
    a: &'a [f64],
    b: Aligned<f64>,
    /// `A ⊗ B`, where systems with it are factored one by one.
    product: OnceLock<Kronecker>,
    /// The same where several are at a time, unless that is no better.
    packed: OnceLock<Option<PackedKronecker>>,
    /// Its diagonal, where it is the preconditioner.
    diagonal: Option<Aligned<f64>>,
}

impl<'a> Sides<'a> {
    pub fn new(node: &'a Node, solver: Solver) -> Sides<'a> {
        let (left, right) = (node.left, node.right);
        let width = padded(right);
        let mut b = Aligned::zeros(right * width);
        for (row, from) in b.chunks_exact_mut(width).zip(node.b.chunks_exact(right)) {
            row[..right].copy_from_slice(from);
        }
        let diagonal = (solver == Solver::Jacobi).then(|| {
            let mut diagonal = Aligned::zeros(left * width);
            for (i, row) in diagonal.chunks_exact_mut(width).enumerate() {
                for (j, x) in row[..right].iter_mut().enumerate() {
                    *x = node.a[i * left + i] * node.b[j * right + j];
                }
            }
            diagonal
        });
        let (product, packed) = (OnceLock::new(), OnceLock::new());
        Sides { left, right, a: &node.a, node, b, product, packed, diagonal }
    }

    fn product(&self) -> &Kronecker {
        let Node { left, right, a, b, .. } = self.node;
        self.product.get_or_init(|| Kronecker::new(*left, a, *right, b))
    }

    fn packed(&self) -> Option<&PackedKronecker> {
        let Node { left, right, a, b, .. } = self.node;
        self.packed.get_or_init(|| PackedKronecker::new(*left, a, *right, b)).as_ref()
    }

    /// How many of so many slices for each thread are best factored together: 1 where each is alone.
    pub fn together(&self, share: usize) -> usize {
        let lanes = lanes();
        // Lanes without a slice cost as much as those with one.
        if 2 * share < lanes || self.packed().is_none() {
            return 1;
        }
        share.div_ceil(share.div_ceil(lanes))
    }

    /// Elements of a row, with its padding.
    fn width(&self) -> usize {
        padded(self.right)
    }

    /// `to = A x B` for a slice; `half` is overwritten.
    #[inline(always)]
    fn times<S: Simd>(&self, simd: S, x: &[S::f64s], half: &mut [f64], to: &mut [S::f64s]) {
        let (b, _) = f64::as_vectors::<S>(&self.b);
        let (width, vectors) = (self.width(), b.len() / self.right);
        {
            let (half, _) = f64::as_vectors_mut::<S>(half);
            let a = Left::Rows { a: self.a, stride: self.left };
            times(simd, a, self.left, self.left, x, vectors, half);
        }
        let half = Left::Rows { a: half, stride: width };
        times(simd, half, self.left, self.right, b, vectors, to);
    }

    /// `A x B − n`, the gradient of half the squared distance, for all slices.
    pub fn gradient(&self, x: &[f64], n: &[f64], to: &mut [f64]) {
        let mut half = Aligned::zeros(self.left * self.width());
        arch().dispatch(Gradient { sides: self, x, n, half: &mut half, to });
    }
}

struct Gradient<'a> {
    sides: &'a Sides<'a>,
    x: &'a [f64],
    n: &'a [f64],
    half: &'a mut [f64],
    to: &'a mut [f64],
}

impl WithSimd for Gradient<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Gradient { sides, x, n, half, to } = self;
        let len = half.len();
        let slices = x.chunks_exact(len).zip(n.chunks_exact(len)).zip(to.chunks_exact_mut(len));
        for ((x, n), to) in slices {
            let (x, _) = f64::as_vectors::<S>(x);
            let (n, _) = f64::as_vectors::<S>(n);
            let (to, _) = f64::as_vectors_mut::<S>(to);
            sides.times(simd, x, half, to);
            for (to, &n) in to.iter_mut().zip(n) {
                *to = simd.sub_f64s(*to, n);
            }
        }
    }
}

/// Finds the direction `y` of one slice, where `(x (A ⊗ B) x + μ) y = μ − x g`, and what the objective
/// is along it, with the steps of conjugate gradients that it took. `None` where rounding leaves nothing
/// finite.
pub(crate) fn direction(
    sides: &Sides<'_>,
    x: &[f64],
    g: &[f64],
    mu: f64,
    how: Linear,
    scratch: &mut Scratch,
    y: &mut [f64],
) -> Option<(Line, usize)> {
    right_side(sides, x, g, mu, scratch);
    let preconditioner = match how.solver {
        Solver::Cg => Preconditioner::Plain,
        Solver::Pcg if mu < how.preconditioner_min => Preconditioner::Plain,
        Solver::Jacobi => Preconditioner::Jacobi,
        Solver::Direct | Solver::Pcg => Preconditioner::Barrier,
    };
    let mut steps = 0;
    if how.solver == Solver::Direct {
        if !direct(sides, x, mu, scratch, y) {
            return None;
        }
    } else {
        let vectors = &mut scratch.vectors;
        steps =
            arch().dispatch(Conjugate { sides, x, mu, how, preconditioner, vectors, y: &mut *y });
    }
    let vectors = &mut scratch.vectors;
    Some((arch().dispatch(Along { sides, x, g, vectors, y }), steps))
}

/// As [`direction`], of some slices at a time by factorizations, and to the same bits.
pub(crate) fn directions_together(
    sides: &Sides<'_>,
    x: &[f64],
    g: &[f64],
    mu: f64,
    scratch: &mut Scratch,
    y: &mut [f64],
) -> Option<Vec<Line>> {
    let packed = sides.packed()?;
    let (width, right) = (sides.width(), sides.right);
    let len = sides.left * width;
    let slices = || x.chunks_exact(len).zip(g.chunks_exact(len));
    scratch.batch.begin(packed);
    for (lane, (x, g)) in slices().enumerate() {
        right_side(sides, x, g, mu, scratch);
        let Scratch { batch, vectors, .. } = &mut *scratch;
        let rows = x.chunks_exact(width).zip(vectors[0].chunks_exact(width));
        for (row, (x, rhs)) in rows.enumerate() {
            batch.set(lane, row * right, &x[..right], &rhs[..right]);
        }
    }
    scratch.batch.solve(packed, mu);
    let mut lines = Vec::with_capacity(x.len() / len);
    for (lane, ((x, g), y)) in slices().zip(y.chunks_exact_mut(len)).enumerate() {
        right_side(sides, x, g, mu, scratch);
        if scratch.batch.solved(lane) {
            for (row, to) in y.chunks_exact_mut(width).enumerate() {
                scratch.batch.get(lane, row * right, &mut to[..right]);
                to[right..].fill(0.0);
            }
        } else if !direct(sides, x, mu, scratch, y) {
            return None;
        }
        lines.push(arch().dispatch(Along { sides, x, g, vectors: &mut scratch.vectors, y }));
    }
    Some(lines)
}

/// Minus the gradient of the objective in y, as the first of the vectors.
fn right_side(sides: &Sides<'_>, x: &[f64], g: &[f64], mu: f64, scratch: &mut Scratch) {
    for vector in &mut scratch.vectors {
        vector.resize(x.len());
    }
    let rhs = &mut scratch.vectors[0];
    for (rhs, (x, g)) in rhs.iter_mut().zip(x.iter().zip(g)) {
        *rhs = mu - x * g;
    }
    clear_padding(rhs, sides.width(), sides.right);
}

/// Zeros behind the last column of every row.
#[inline(always)]
fn clear_padding(data: &mut [f64], width: usize, right: usize) {
    if right < width {
        for row in data.chunks_exact_mut(width) {
            row[right..].fill(0.0);
        }
    }
}

/// By a Cholesky factorization; whether there was one.
fn direct(sides: &Sides<'_>, x: &[f64], mu: f64, scratch: &mut Scratch, y: &mut [f64]) -> bool {
    let (width, right) = (sides.width(), sides.right);
    let Scratch { system, vectors, .. } = scratch;
    // Without the padding of rows, as the factorization costs the cube of the size.
    for (to, from) in [(&mut system.x, x), (&mut system.y, &vectors[0][..])] {
        to.resize(sides.left * right);
        for (to, from) in to.chunks_exact_mut(right).zip(from.chunks_exact(width)) {
            to.copy_from_slice(&from[..right]);
        }
    }
    if !solve_positive(sides.product(), mu, system) {
        return false;
    }
    for (to, from) in y.chunks_exact_mut(width).zip(system.y.chunks_exact(right)) {
        to[..right].copy_from_slice(from);
        to[right..].fill(0.0);
    }
    true
}

/// The objective along a direction.
struct Along<'a> {
    sides: &'a Sides<'a>,
    x: &'a [f64],
    g: &'a [f64],
    /// The first is the right side of the system; others are overwritten.
    vectors: &'a mut [Aligned<f64>; 8],
    y: &'a [f64],
}

impl WithSimd for Along<'_> {
    type Output = Line;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Line {
        let Along { sides, x, g, vectors, y } = self;
        let [rhs, delta, curved, half, ..] = vectors;
        let (rhs, _) = f64::as_vectors::<S>(rhs);
        let (delta, _) = f64::as_vectors_mut::<S>(delta);
        let (curved, _) = f64::as_vectors_mut::<S>(curved);
        let (x, _) = f64::as_vectors::<S>(x);
        let (g, _) = f64::as_vectors::<S>(g);
        let (y, _) = f64::as_vectors::<S>(y);
        let zero = simd.splat_f64s(0.0);
        let mut lowest = zero;
        for (delta, (&x, &y)) in delta.iter_mut().zip(x.iter().zip(y)) {
            *delta = simd.mul_f64s(x, y);
            lowest = simd.max_f64s(lowest, simd.sub_f64s(zero, y));
        }
        sides.times(simd, delta, half, curved);
        Line {
            slope: -dot(simd, rhs, y),
            linear: dot(simd, g, delta),
            quadratic: dot(simd, delta, curved),
            lowest: simd.reduce_max_f64s(lowest),
        }
    }
}

/// What the residual is divided by.
#[derive(Clone, Copy, Debug)]
enum Preconditioner {
    /// The identity in δ, which is x² in y. Depends on the gauge of the bonds.
    Plain,
    /// μ/x² in δ, which is the identity in y.
    Barrier,
    /// The diagonal of the matrix.
    Jacobi,
}

/// Conjugate gradients from zero; any number of steps gives a direction of descent.
struct Conjugate<'a> {
    sides: &'a Sides<'a>,
    x: &'a [f64],
    mu: f64,
    how: Linear,
    preconditioner: Preconditioner,
    /// The first is the right side of the system; others are overwritten.
    vectors: &'a mut [Aligned<f64>; 8],
    y: &'a mut [f64],
}

impl WithSimd for Conjugate<'_> {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> usize {
        let Conjugate { sides, x, mu, how, preconditioner, vectors, y } = self;
        let [rhs, inverse, r, z, p, q, half, scaled] = vectors;
        invert(simd, sides, x, mu, preconditioner, inverse);
        y.fill(0.0);
        r.copy_from_slice(rhs);
        let (inverse, _) = f64::as_vectors::<S>(inverse);
        let (x, _) = f64::as_vectors::<S>(x);
        let (r, _) = f64::as_vectors_mut::<S>(r);
        let (z, _) = f64::as_vectors_mut::<S>(z);
        let (p, _) = f64::as_vectors_mut::<S>(p);
        let (q, _) = f64::as_vectors_mut::<S>(q);
        let (scaled, _) = f64::as_vectors_mut::<S>(scaled);
        let (y, _) = f64::as_vectors_mut::<S>(y);
        multiply(simd, r, inverse, z);
        p.copy_from_slice(z);
        let mut rz = dot(simd, r, z);
        let stop = how.tol * how.tol * rz;
        let mut steps = 0;
        while steps < how.max_steps && rz > 0.0 {
            multiply(simd, x, p, scaled);
            sides.times(simd, scaled, half, q);
            let barrier = simd.splat_f64s(mu);
            for (q, (&x, &p)) in q.iter_mut().zip(x.iter().zip(&*p)) {
                *q = simd.mul_add_e_f64s(x, *q, simd.mul_f64s(barrier, p));
            }
            let pq = dot(simd, p, q);
            steps += 1;
            if pq.is_nan() || pq <= 0.0 {
                break;
            }
            let alpha = rz / pq;
            add_scaled(simd, alpha, p, y);
            add_scaled(simd, -alpha, q, r);
            multiply(simd, r, inverse, z);
            let new = dot(simd, r, z);
            let beta = simd.splat_f64s(new / rz);
            for (p, &z) in p.iter_mut().zip(&*z) {
                *p = simd.mul_add_e_f64s(beta, *p, z);
            }
            rz = new;
            if rz.is_nan() || rz <= stop {
                break;
            }
        }
        steps
    }
}

/// The reciprocals of a preconditioner.
#[inline(always)]
fn invert<S: Simd>(
    simd: S,
    sides: &Sides<'_>,
    x: &[f64],
    mu: f64,
    preconditioner: Preconditioner,
    to: &mut [f64],
) {
    let one = simd.splat_f64s(1.0);
    {
        let (x, _) = f64::as_vectors::<S>(x);
        let (to, _) = f64::as_vectors_mut::<S>(to);
        match (preconditioner, &sides.diagonal) {
            (Preconditioner::Jacobi, Some(diagonal)) => {
                let (diagonal, _) = f64::as_vectors::<S>(diagonal);
                let mu = simd.splat_f64s(mu);
                for (to, (&x, &d)) in to.iter_mut().zip(x.iter().zip(diagonal)) {
                    let whole = simd.mul_add_e_f64s(simd.mul_f64s(x, x), d, mu);
                    *to = simd.div_f64s(one, whole);
                }
            }
            (Preconditioner::Plain, _) => {
                for (to, &x) in to.iter_mut().zip(x) {
                    *to = simd.div_f64s(one, simd.mul_f64s(x, x));
                }
            }
            _ => to.fill(one),
        }
    }
    // 1/x² is not finite there.
    clear_padding(to, sides.width(), sides.right);
}

#[inline(always)]
fn dot<S: Simd>(simd: S, a: &[S::f64s], b: &[S::f64s]) -> f64 {
    let mut sum = simd.splat_f64s(0.0);
    for (&a, &b) in a.iter().zip(b) {
        sum = simd.mul_add_e_f64s(a, b, sum);
    }
    simd.reduce_sum_f64s(sum)
}

#[inline(always)]
fn multiply<S: Simd>(simd: S, a: &[S::f64s], b: &[S::f64s], to: &mut [S::f64s]) {
    for (to, (&a, &b)) in to.iter_mut().zip(a.iter().zip(b)) {
        *to = simd.mul_f64s(a, b);
    }
}

#[inline(always)]
fn add_scaled<S: Simd>(simd: S, by: f64, x: &[S::f64s], to: &mut [S::f64s]) {
    let by = simd.splat_f64s(by);
    for (to, &x) in to.iter_mut().zip(x) {
        *to = simd.mul_add_e_f64s(by, x, *to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::small::Slices;

    fn node(left: usize, right: usize) -> Node {
        // Gram matrices of random-looking factors, so positive definite.
        let gram = |n: usize, s: f64| -> Vec<f64> {
            let f = |i: usize, k: usize| ((i * 7 + k * 3) as f64 * s).sin() + f64::from(i == k);
            (0..n * n).map(|e| (0..n + 5).map(|k| f(e / n, k) * f(e % n, k)).sum()).collect()
        };
        let n = vec![0.0; left * right];
        Node { left, right, a: gram(left, 0.7), b: gram(right, 0.3), n }
    }

    /// The matrix of a slice times a vector, by loops.
    fn product(node: &Node, x: &[f64], y: &[f64], mu: f64) -> Vec<f64> {
        let (l, r) = (node.left, node.right);
        let entry = |i: usize, j: usize| {
            x[i] * node.a[i / r * l + j / r] * node.b[i % r * r + j % r] * x[j]
        };
        (0..l * r)
            .map(|i| (0..l * r).map(|j| entry(i, j) * y[j]).sum::<f64>() + mu * y[i])
            .collect()
    }

    #[test]
    fn all_solvers_find_the_direction() {
        let mu = 1e-2;
        for (left, right) in [(3, 4), (8, 8), (1, 9), (10, 3)] {
            let node = node(left, right);
            let size = left * right;
            let x: Vec<f64> = (0..size).map(|e| 0.1 + (e as f64 * 0.37).fract()).collect();
            let g: Vec<f64> = (0..size).map(|e| (e as f64).cos()).collect();
            let rhs: Vec<f64> = x.iter().zip(&g).map(|(x, g)| mu - x * g).collect();
            let shape = [left, 1, right];
            let (px, pg) = (Slices::new(shape, &x), Slices::new(shape, &g));
            for solver in [Solver::Direct, Solver::Cg, Solver::Pcg, Solver::Jacobi] {
                let how = Linear { solver, max_steps: 400, tol: 1e-14, preconditioner_min: 0.0 };
                let sides = Sides::new(&node, solver);
                let mut y = Slices::zeros(shape);
                let mut scratch = Scratch::default();
                let (line, steps) =
                    direction(&sides, px.data(), pg.data(), mu, how, &mut scratch, y.data_mut())
                        .unwrap();
                assert_eq!(steps == 0, solver == Solver::Direct);
                let mut found = vec![0.0; size];
                y.store(&mut found);
                for (got, want) in product(&node, &x, &found, mu).iter().zip(&rhs) {
                    assert!((got - want).abs() < 1e-8, "{solver:?} {left} {right}: {got} {want}");
                }
                // Padding stays out of everything.
                assert_eq!(y.data().iter().filter(|y| **y != 0.0).count(), size);
                let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
                let delta: Vec<f64> = x.iter().zip(&found).map(|(x, y)| x * y).collect();
                let curved = product(&node, &vec![1.0; size], &delta, 0.0);
                for (got, want) in [
                    (line.slope, -dot(&rhs, &found)),
                    (line.linear, dot(&g, &delta)),
                    (line.quadratic, dot(&delta, &curved)),
                    (line.lowest, found.iter().fold(0.0, |m: f64, y| m.max(-y))),
                ] {
                    assert!((got - want).abs() <= 1e-11 * (1.0 + want.abs()), "{got} {want}");
                }
            }
        }
    }
}
