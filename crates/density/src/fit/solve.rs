//! The Newton direction of one slice. NTT.md, section 4.3.
//!
//! Everything is in the unknown `y = δ/x`, the relative change of the entries: the Hessian of the
//! barrier is then μ times the identity, where in δ it is μ/x², which overflows.

use faer::Mat;

use super::environments::Node;
use super::settings::Solver;
use crate::linalg::{product_into, solve_positive, view};

/// How to solve for the direction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Linear {
    pub solver: Solver,
    pub max_steps: usize,
    pub tol: f64,
    pub preconditioner_min: f64,
}

/// A direction and the steps of conjugate gradients it took.
pub(crate) struct Direction {
    pub y: Vec<f64>,
    pub steps: usize,
}

/// Solves `(x (A ⊗ B) x + μ) y = rhs` for one slice; `None` where rounding leaves nothing finite.
pub(crate) fn direction(
    node: &Node,
    x: &[f64],
    rhs: &[f64],
    mu: f64,
    how: Linear,
) -> Option<Direction> {
    match how.solver {
        Solver::Direct => direct(node, x, rhs, mu).map(|y| Direction { y, steps: 0 }),
        Solver::Cg => Some(conjugate(node, x, rhs, mu, how, Preconditioner::Plain)),
        Solver::Pcg if mu >= how.preconditioner_min => {
            Some(conjugate(node, x, rhs, mu, how, Preconditioner::Barrier))
        }
        Solver::Pcg => Some(conjugate(node, x, rhs, mu, how, Preconditioner::Plain)),
        Solver::Jacobi => Some(conjugate(node, x, rhs, mu, how, Preconditioner::Jacobi)),
    }
}

/// By a Cholesky factorization.
fn direct(node: &Node, x: &[f64], rhs: &[f64], mu: f64) -> Option<Vec<f64>> {
    let (left, right) = (node.left, node.right);
    let size = left * right;
    let mut m = Mat::zeros(size, size);
    for c in 0..left {
        for d in 0..right {
            let col = c * right + d;
            // Only the lower triangle is read.
            for a in c..left {
                let first = if a == c { d } else { 0 };
                for b in first..right {
                    let row = a * right + b;
                    let gram = node.a[a * left + c] * node.b[b * right + d];
                    m[(row, col)] = x[row] * gram * x[col];
                }
            }
            m[(col, col)] += mu;
        }
    }
    solve_positive(&mut m, rhs)
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

/// By conjugate gradients from zero; any number of steps gives a direction of descent.
fn conjugate(
    node: &Node,
    x: &[f64],
    rhs: &[f64],
    mu: f64,
    how: Linear,
    preconditioner: Preconditioner,
) -> Direction {
    let right = node.right;
    let m: Vec<f64> = match preconditioner {
        Preconditioner::Barrier => vec![1.0; x.len()],
        Preconditioner::Plain => x.iter().map(|x| x * x).collect(),
        Preconditioner::Jacobi => x
            .iter()
            .enumerate()
            .map(|(e, x)| {
                let (a, b) = (e / right, e % right);
                x * x * node.a[a * node.left + a] * node.b[b * right + b] + mu
            })
            .collect(),
    };
    let mut y = vec![0.0; x.len()];
    let mut r = rhs.to_vec();
    let mut z: Vec<f64> = r.iter().zip(&m).map(|(r, m)| r / m).collect();
    let mut p = z.clone();
    let mut rz = dot(&r, &z);
    let stop = how.tol * how.tol * rz;
    let mut work = Work::new(x.len());
    let mut steps = 0;
    while steps < how.max_steps && rz > 0.0 {
        work.times(node, x, &p, mu);
        let pq = dot(&p, &work.out);
        steps += 1;
        if pq.is_nan() || pq <= 0.0 {
            break;
        }
        let alpha = rz / pq;
        y.iter_mut().zip(&p).for_each(|(y, p)| *y += alpha * p);
        r.iter_mut().zip(&work.out).for_each(|(r, q)| *r -= alpha * q);
        z.iter_mut().zip(r.iter().zip(&m)).for_each(|(z, (r, m))| *z = r / m);
        let new = dot(&r, &z);
        let beta = new / rz;
        p.iter_mut().zip(&z).for_each(|(p, z)| *p = z + beta * *p);
        rz = new;
        if rz.is_nan() || rz <= stop {
            break;
        }
    }
    Direction { y, steps }
}

/// Room for the products of conjugate gradients.
struct Work {
    scaled: Vec<f64>,
    half: Vec<f64>,
    out: Vec<f64>,
}

impl Work {
    fn new(size: usize) -> Work {
        Work { scaled: vec![0.0; size], half: vec![0.0; size], out: vec![0.0; size] }
    }

    /// `x (A (x p) B) + μ p`, without the matrix.
    fn times(&mut self, node: &Node, x: &[f64], p: &[f64], mu: f64) {
        let (left, right) = (node.left, node.right);
        self.scaled.iter_mut().zip(x.iter().zip(p)).for_each(|(s, (x, p))| *s = x * p);
        let (a, b) = (view(&node.a, left, left), view(&node.b, right, right));
        product_into(a, view(&self.scaled, left, right), &mut self.half);
        product_into(view(&self.half, left, right), b, &mut self.out);
        let sides = x.iter().zip(p);
        self.out.iter_mut().zip(sides).for_each(|(out, (x, p))| *out = x * *out + mu * p);
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> Node {
        // Gram matrices of random-looking factors, so positive definite.
        let gram = |n: usize, s: f64| -> Vec<f64> {
            let f = |i: usize, k: usize| ((i * 7 + k * 3) as f64 * s).sin() + f64::from(i == k);
            (0..n * n).map(|e| (0..9).map(|k| f(e / n, k) * f(e % n, k)).sum()).collect()
        };
        Node { left: 3, right: 4, a: gram(3, 0.7), b: gram(4, 0.3), n: vec![0.0; 12] }
    }

    fn how(solver: Solver, max_steps: usize) -> Linear {
        Linear { solver, max_steps, tol: 1e-14, preconditioner_min: 0.0 }
    }

    #[test]
    fn all_solvers_find_the_same_direction() {
        let node = node();
        let x: Vec<f64> = (0..12).map(|e| 0.1 + (e as f64 * 0.37).fract()).collect();
        let rhs: Vec<f64> = (0..12).map(|e| (e as f64).cos()).collect();
        let want = direction(&node, &x, &rhs, 1e-2, how(Solver::Direct, 1)).unwrap().y;
        let mut work = Work::new(12);
        work.times(&node, &x, &want, 1e-2);
        for (got, want) in work.out.iter().zip(&rhs) {
            assert!((got - want).abs() < 1e-10);
        }
        for solver in [Solver::Cg, Solver::Pcg, Solver::Jacobi] {
            let got = direction(&node, &x, &rhs, 1e-2, how(solver, 60)).unwrap().y;
            for (got, want) in got.iter().zip(&want) {
                assert!((got - want).abs() < 1e-8 * want.abs().max(1.0), "{solver:?}");
            }
        }
    }
}
