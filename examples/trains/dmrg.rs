//! A small two-site DMRG for the open Heisenberg chain, Σ σ·σ over neighbours. White 1992;
//! Schollwöck 2011.
//!
//! The two-site problem is solved by Lanczos on dense blocks: left and right blocks carry their
//! Hamiltonian and the three spin operators of the site at the cut, which is all that a chain of
//! neighbours needs.

use faer::{Mat, Side};

use crate::Failure;

/// A matrix product state of orthonormal right parts, and its energy.
pub struct State {
    pub energy: f64,
    /// For each site two matrices (left × right), one for each spin.
    sites: Vec<[Mat<f64>; 2]>,
}

/// A block of sites: its Hamiltonian, and raising, lowering and z operators of the site at the cut.
#[derive(Clone)]
struct Block {
    h: Mat<f64>,
    raise: Mat<f64>,
    z: Mat<f64>,
}

impl Block {
    fn empty() -> Block {
        let zero = || Mat::zeros(1, 1);
        Block { h: zero(), raise: zero(), z: zero() }
    }

    /// The block with one more site, in the basis (block state, spin); `first` if it had none.
    fn with_site(&self, first: bool) -> Block {
        let n = self.h.nrows();
        let on_site = |f: fn(usize, usize) -> f64| {
            Mat::from_fn(2 * n, 2 * n, |p, q| if p / 2 == q / 2 { f(p % 2, q % 2) } else { 0.0 })
        };
        let h = Mat::from_fn(2 * n, 2 * n, |p, q| {
            let (a, i, b, j) = (p / 2, p % 2, q / 2, q % 2);
            let own = if i == j { self.h[(a, b)] } else { 0.0 };
            own + if first { 0.0 } else { bond(self, a, b, i, j) }
        });
        Block { h, raise: on_site(raise), z: on_site(z) }
    }

    /// In the basis of the columns of u.
    fn rotated(&self, u: &Mat<f64>) -> Block {
        let turn = |m: &Mat<f64>| u.transpose() * m * u;
        Block { h: turn(&self.h), raise: turn(&self.raise), z: turn(&self.z) }
    }
}

fn raise(i: usize, j: usize) -> f64 {
    f64::from(i == 0 && j == 1)
}

fn z(i: usize, j: usize) -> f64 {
    if i != j { 0.0 } else { 1.0 - 2.0 * i as f64 }
}

/// σ·σ = 2(σ⁺σ⁻ + σ⁻σ⁺) + σᶻσᶻ between the block's last site and a spin.
fn bond(block: &Block, a: usize, b: usize, i: usize, j: usize) -> f64 {
    2.0 * (block.raise[(a, b)] * raise(j, i) + block.raise[(b, a)] * raise(i, j))
        + block.z[(a, b)] * z(i, j)
}

/// The two-site Hamiltonian: both blocks, each with one site, and the bond between these sites.
fn apply(left: &Block, right: &Block, x: &Mat<f64>) -> Mat<f64> {
    let mut y = &left.h * x + x * right.h.transpose();
    let flip =
        &left.raise * x * &right.raise + left.raise.transpose() * x * right.raise.transpose();
    y += 2.0 * flip;
    y += &left.z * x * right.z.transpose();
    y
}

/// The lowest eigenpair by Lanczos with full orthogonalisation.
fn lowest(left: &Block, right: &Block, start: Mat<f64>) -> Result<(f64, Mat<f64>), Failure> {
    let dot = |a: &Mat<f64>, b: &Mat<f64>| -> f64 {
        (0..a.ncols()).map(|j| (0..a.nrows()).map(|i| a[(i, j)] * b[(i, j)]).sum::<f64>()).sum()
    };
    let mut basis = vec![&start * (1.0 / start.norm_l2())];
    let (mut diagonal, mut off): (Vec<f64>, Vec<f64>) = (Vec::new(), Vec::new());
    for _ in 0..40 {
        let last = &basis[basis.len() - 1];
        let mut y = apply(left, right, last);
        diagonal.push(dot(last, &y));
        for _ in 0..2 {
            for q in &basis {
                let share = dot(q, &y);
                y -= share * q;
            }
        }
        let norm = y.norm_l2();
        if norm < 1e-10 {
            break;
        }
        off.push(norm);
        basis.push(y * (1.0 / norm));
    }
    let m = diagonal.len();
    let t = Mat::from_fn(m, m, |i, j| match i.abs_diff(j) {
        0 => diagonal[i],
        1 => off[i.min(j)],
        _ => 0.0,
    });
    let eigen = t.self_adjoint_eigen(Side::Lower);
    let eigen = eigen.map_err(|e| format!("no eigenvalues: {e:?}"))?;
    let mut x = Mat::zeros(start.nrows(), start.ncols());
    for (k, q) in basis.iter().take(m).enumerate() {
        x += eigen.U()[(k, 0)] * q;
    }
    Ok((eigen.S()[0], x))
}

/// The ground state of a chain of `d` sites with at most `rank` states at a bond.
pub fn ground_state(d: usize, rank: usize, sweeps: usize) -> Result<State, Failure> {
    // Blocks of the first k sites and of the last k sites; those on the right begin as sites alone.
    let mut left: Vec<Block> = vec![Block::empty(); d];
    let mut right: Vec<Block> = vec![Block::empty(); d];
    for k in 1..d - 1 {
        let grown = right[k - 1].with_site(k == 1);
        let n = grown.h.nrows().min(4);
        // Any states will do to begin with.
        right[k] = grown.rotated(&Mat::identity(grown.h.nrows(), n));
    }
    let mut sites: Vec<[Mat<f64>; 2]> = vec![[Mat::zeros(1, 1), Mat::zeros(1, 1)]; d];
    let mut energy = 0.0;
    let path: Vec<(usize, bool)> =
        (0..d - 1).map(|k| (k, true)).chain((0..d - 1).rev().map(|k| (k, false))).collect();
    for _ in 0..sweeps {
        for &(k, rightwards) in &path {
            let l = left[k].with_site(k == 0);
            let r = right[d - k - 2].with_site(k == d - 2);
            let start = Mat::from_fn(l.h.nrows(), r.h.nrows(), |i, j| {
                // Neither symmetric nor orthogonal to anything.
                1.0 + ((i * 13 + j * 7) as f64).sin()
            });
            let (now, x) = lowest(&l, &r, start)?;
            energy = now;
            let svd = x.thin_svd().map_err(|e| format!("no singular values: {e:?}"))?;
            let s: Vec<f64> = svd.S().column_vector().iter().copied().collect();
            let kept = s.iter().filter(|&&v| v > 1e-12 * s[0]).count().min(rank);
            let u = svd.U().subcols(0, kept).to_owned();
            let v = svd.V().subcols(0, kept).to_owned();
            if rightwards {
                left[k + 1] = l.rotated(&u);
            } else {
                right[d - k - 1] = r.rotated(&v);
                // Rows are (right state, spin) of site k + 1.
                let states = v.nrows() / 2;
                sites[k + 1] = [0, 1].map(|i| Mat::from_fn(kept, states, |a, b| v[(2 * b + i, a)]));
                if k == 0 {
                    let norm = s[..kept].iter().map(|v| v * v).sum::<f64>().sqrt();
                    sites[0] =
                        [0, 1].map(|i| Mat::from_fn(1, kept, |_, b| u[(i, b)] * s[b] / norm));
                }
            }
        }
    }
    Ok(State { energy, sites })
}

impl State {
    /// A tuple drawn from the squared amplitudes.
    pub fn sample(&self, uniform: impl Fn(usize) -> f64) -> Vec<usize> {
        let mut state = Mat::from_fn(1, 1, |_, _| 1.0);
        let mut out = Vec::with_capacity(self.sites.len());
        for (mode, site) in self.sites.iter().enumerate() {
            let next = [&state * &site[0], &state * &site[1]];
            let p = [0, 1].map(|i: usize| next[i].norm_l2().powi(2));
            let i = usize::from(uniform(mode) * (p[0] + p[1]) >= p[0]);
            out.push(i);
            state = &next[i] * (1.0 / next[i].norm_l2());
        }
        out
    }

    /// The logarithm of a tuple's squared amplitude.
    pub fn log_probability(&self, tuple: &[usize]) -> f64 {
        let (mut state, mut log) = (Mat::from_fn(1, 1, |_, _| 1.0), 0.0);
        for (&i, site) in tuple.iter().zip(&self.sites) {
            state = &state * &site[i];
            let norm = state.norm_l2();
            log += 2.0 * norm.ln();
            state *= faer::Scale(1.0 / norm);
        }
        log
    }
}
