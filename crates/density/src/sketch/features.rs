//! Functions of the modes on one side of a cut, evaluated at samples. NTT.md, section 3.

use crate::core::Core;
use crate::error::{Error, Result};
use crate::indices::Indices;
use crate::linalg;

/// A side of a cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Left,
    Right,
}

/// The functions of one side.
pub(crate) enum Features {
    Monomials(Monomials),
    /// At each cut, a matrix (samples × functions).
    Stored(Vec<Vec<f64>>, Vec<usize>),
}

impl Features {
    /// How many functions there are at a cut.
    pub fn count(&self, cut: usize) -> usize {
        match self {
            Features::Monomials(m) => m.count(cut),
            Features::Stored(_, counts) => counts[cut],
        }
    }

    /// The values at samples `rows`, as a matrix (samples × functions).
    pub fn fill(
        &self,
        samples: &Indices,
        cut: usize,
        rows: std::ops::Range<usize>,
        out: &mut Vec<f64>,
    ) {
        out.clear();
        match self {
            Features::Monomials(m) => {
                rows.for_each(|row| m.push(samples.at(row), cut, out));
            }
            Features::Stored(all, counts) => {
                let count = counts[cut];
                out.extend_from_slice(&all[cut][rows.start * count..rows.end * count]);
            }
        }
    }
}

/// Orthogonal polynomials of single modes, and products of two of which one is near the cut.
pub(crate) struct Monomials {
    side: Side,
    near: usize,
    /// For each mode, a matrix (size × degrees) without the constant.
    polynomials: Vec<Vec<f64>>,
    degrees: Vec<usize>,
}

impl Monomials {
    pub fn new(sizes: &[usize], side: Side, near: usize, degree: usize) -> Monomials {
        let degrees: Vec<usize> = sizes.iter().map(|&n| degree.min(n - 1)).collect();
        let polynomials =
            sizes.iter().zip(&degrees).map(|(&n, &degree)| polynomials(n, degree)).collect();
        Monomials { side, near, polynomials, degrees }
    }

    /// The modes of the side, from the cut outwards.
    fn modes(&self, cut: usize) -> Vec<usize> {
        match self.side {
            Side::Left => (0..cut).rev().collect(),
            Side::Right => (cut..self.degrees.len()).collect(),
        }
    }

    fn count(&self, cut: usize) -> usize {
        let modes = self.modes(cut);
        let degrees: Vec<usize> = modes.iter().map(|&l| self.degrees[l]).collect();
        let singles: usize = degrees.iter().sum();
        let mut count = 1usize.saturating_add(singles);
        let mut beyond = singles;
        for degree in degrees.iter().take(self.near) {
            beyond -= degree;
            count = count.saturating_add(degree.saturating_mul(beyond));
        }
        count
    }

    fn of(&self, mode: usize, index: usize) -> &[f64] {
        let degree = self.degrees[mode];
        &self.polynomials[mode][index * degree..(index + 1) * degree]
    }

    fn push(&self, tuple: &[usize], cut: usize, out: &mut Vec<f64>) {
        let modes = self.modes(cut);
        out.push(1.0);
        for &l in &modes {
            out.extend_from_slice(self.of(l, tuple[l]));
        }
        for (p, &l) in modes.iter().enumerate().take(self.near) {
            for &m in &modes[p + 1..] {
                for x in self.of(l, tuple[l]) {
                    out.extend(self.of(m, tuple[m]).iter().map(|y| x * y));
                }
            }
        }
    }
}

/// The discrete orthogonal polynomials of degrees 1 to `degree` on 0..n, of mean square 1 and with
/// positive leading coefficients: a matrix (n × degree).
fn polynomials(n: usize, degree: usize) -> Vec<f64> {
    let half = (n as f64 - 1.0) / 2.0;
    let scale = if half > 0.0 { half } else { 1.0 };
    let point = |i: usize| (i as f64 - half) / scale;
    let powers: Vec<f64> = (0..n)
        .flat_map(|i| (0..=degree).map(move |j| (i, j)))
        .map(|(i, j)| point(i).powi(j as i32))
        .collect();
    let (q, r) = linalg::qr(linalg::view(&powers, n, degree + 1));
    let norm = (n as f64).sqrt();
    (0..n)
        .flat_map(|i| (1..=degree).map(move |j| (i, j)))
        .map(|(i, j)| q[(i, j)] * r[(j, j)].signum() * norm)
        .collect()
}

/// Functions by a recursion from the end of the side: the ones before, times a core.
pub(crate) fn by_cores(samples: &Indices, cores: &[Core], side: Side) -> Features {
    let (d, rows) = (samples.order(), samples.rows());
    let mut all = vec![Vec::new(); d + 1];
    let mut counts = vec![1; d + 1];
    let mut next = Vec::new();
    // Cut k has modes before k on its left. `cores` has one for each mode but the last on the side's
    // way.
    for step in 0..d - 1 {
        let (mode, from, to) = match side {
            Side::Left => (step, step, step + 1),
            Side::Right => (d - 1 - step, d - step, d - 1 - step),
        };
        let core = &cores[if side == Side::Left { mode } else { mode - 1 }];
        let before = if step == 0 { vec![1.0; rows] } else { std::mem::take(&mut all[from]) };
        let width = before.len() / rows;
        let mut out = Vec::with_capacity(rows * width);
        for (row, before) in before.chunks_exact(width).enumerate() {
            let i = samples.at(row)[mode];
            match side {
                Side::Left => core.step(before, i, &mut next),
                Side::Right => core.step_back(before, i, &mut next),
            }
            out.extend_from_slice(&next);
        }
        if step > 0 {
            all[from] = before;
        }
        counts[to] = out.len() / rows;
        all[to] = out;
    }
    Features::Stored(all, counts)
}

/// The error if sketch cores do not chain.
pub(crate) fn check_cores(cores: &[Core], sizes: &[usize], side: Side) -> Result<()> {
    let d = sizes.len();
    let name = if side == Side::Left { "left" } else { "right" };
    let error = |at: usize, found: String, expected: String| {
        Err(Error::Shape { what: format!("core {at} of the {name} sketch"), found, expected })
    };
    if cores.len() + 1 != d {
        return Err(Error::Shape {
            what: format!("the {name} sketch"),
            found: format!("{} cores", cores.len()),
            expected: format!(
                "{}, one for each mode but the {}",
                d - 1,
                if side == Side::Left { "last" } else { "first" }
            ),
        });
    }
    for (at, core) in cores.iter().enumerate() {
        let size = sizes[if side == Side::Left { at } else { at + 1 }];
        if core.size() != size {
            return error(at, format!("size {}", core.size()), format!("{size}, that of its mode"));
        }
        core.check_finite(&format!("core {at} of the {name} sketch"))?;
    }
    let outer = match side {
        Side::Left => cores.first().map(|c| (0, c.left())),
        Side::Right => cores.last().map(|c| (d - 2, c.right())),
    };
    if let Some((at, rank)) = outer.filter(|&(_, rank)| rank != 1) {
        return error(at, format!("outer rank {rank}"), "1".into());
    }
    for (at, pair) in cores.windows(2).enumerate() {
        if pair[0].right() != pair[1].left() {
            return error(
                at + 1,
                format!("rank {} to the left", pair[1].left()),
                format!("{}, that of the core before", pair[0].right()),
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polynomials_are_orthogonal() {
        for n in [1, 2, 3, 8] {
            let degree = n - 1;
            let p = polynomials(n, degree);
            let value = |i: usize, j: usize| if j == 0 { 1.0 } else { p[i * degree + j - 1] };
            for j in 0..n {
                for l in 0..n {
                    let mean: f64 =
                        (0..n).map(|i| value(i, j) * value(i, l)).sum::<f64>() / n as f64;
                    assert!((mean - f64::from(j == l)).abs() < 1e-12, "{n} {j} {l}: {mean}");
                }
                assert!(value(n - 1, j) > 0.0);
            }
        }
    }

    #[test]
    fn counts_are_those_of_the_values() {
        let samples = Indices::new(4, vec![0, 1, 2, 1]).unwrap();
        for (near, degree) in [(0, 1), (1, 2), (2, 1), (9, 3)] {
            for side in [Side::Left, Side::Right] {
                let f = Features::Monomials(Monomials::new(&[2, 3, 4, 2], side, near, degree));
                for cut in 1..4 {
                    let mut out = Vec::new();
                    f.fill(&samples, cut, 0..1, &mut out);
                    assert_eq!(out.len(), f.count(cut), "{near} {degree} {side:?} {cut}");
                }
            }
        }
    }
}
