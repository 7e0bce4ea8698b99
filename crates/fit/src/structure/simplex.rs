//! Factors whose rows add up to 1.

use ndarray::ArrayD;

use nneinfact_core::error::{Error, Result};
use nneinfact_core::model::Shapes;
use nneinfact_core::parallel;

/// The rows of a factor that add up to 1.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Simplex {
    /// The letters that sums go over.
    letters: String,
    /// The entries of each row.
    rows: Vec<Vec<usize>>,
}

/// How often the interval that holds a row's multiplier is halved or doubled, at most.
const HALVINGS: usize = 200;
/// Rows that are worth a call.
const ROWS_AT_ONCE: usize = 64;

impl Simplex {
    /// Rows of factor `l` over these letters, or over those that are latent.
    pub fn new(shapes: &Shapes, l: usize, letters: Option<&str>) -> Result<Simplex> {
        let model = shapes.model();
        let name = model.factor_name(l);
        let refuse = |message: String| {
            Err(Error::Setting(format!("the simplex of factor {} ({name}): {message}", l + 1)))
        };
        let latent: String = model.factors()[l]
            .iter()
            .filter(|x| !model.output().contains(x))
            .map(|&x| char::from(x))
            .collect();
        let letters = letters.map_or(latent, Into::into);
        if letters.is_empty() {
            return refuse("it has no latent letter: say over which letters rows add up".into());
        }
        if let Some(other) = letters.chars().find(|&x| !name.contains(x)) {
            return refuse(format!("{other} is not one of its letters {name}"));
        }
        let sizes = shapes.factor(l);
        let summed: Vec<bool> = name.chars().map(|x| letters.contains(x)).collect();
        let mut rows: Vec<Vec<usize>> = Vec::new();
        let count = sizes.iter().zip(&summed).filter(|(_, s)| !**s).map(|(n, _)| n).product();
        rows.resize(count, Vec::new());
        for entry in 0..sizes.iter().product::<usize>() {
            let (mut rest, mut row, mut stride) = (entry, 0, 1);
            for (&size, &summed) in sizes.iter().zip(&summed).rev() {
                if !summed {
                    row += rest % size * stride;
                    stride *= size;
                }
                rest /= size;
            }
            rows[row].push(entry);
        }
        Ok(Simplex { letters, rows })
    }

    /// In words, for a record.
    pub fn describe(&self) -> String {
        format!(", rows over {} add up to 1", self.letters)
    }

    /// Divides every row by its sum; a row of zeros becomes one of equal entries.
    pub fn normalize(&self, theta: &mut [f64]) {
        for row in &self.rows {
            let sum: f64 = row.iter().map(|&i| theta[i]).sum();
            for &i in row {
                theta[i] = if sum > 0.0 { theta[i] / sum } else { 1.0 / row.len() as f64 };
            }
        }
    }

    /// As [`normalize`](Self::normalize), of an array.
    pub fn normalize_array(&self, factor: &mut ArrayD<f64>) {
        let mut entries: Vec<f64> = factor.iter().copied().collect();
        self.normalize(&mut entries);
        factor.iter_mut().zip(entries).for_each(|(to, from)| *to = from);
    }

    /// The multiplier of every entry's row that makes derivatives those along the simplex.
    pub fn multipliers(&self, theta: &[f64], derivatives: &[f64]) -> Vec<f64> {
        let mut multipliers = vec![0.0; theta.len()];
        for row in &self.rows {
            let mean: f64 = row.iter().map(|&i| theta[i] * derivatives[i]).sum();
            row.iter().for_each(|&i| multipliers[i] = -mean);
        }
        multipliers
    }

    /// The factors of change that are best among those after which rows add up to 1: `change(entry,
    /// ν)` is an entry's best one where ν is added to the derivative of what is lowered, and falls with
    /// ν. A row's ν is the one at which it adds up to 1.
    pub fn changes(&self, theta: &[f64], change: impl Fn(usize, f64) -> f64 + Sync) -> Vec<f64> {
        let of_row = |row: &Vec<usize>| -> Vec<f64> {
            let at = |nu: f64| -> Vec<f64> { row.iter().map(|&i| change(i, nu)).collect() };
            let sum = |changes: &[f64]| -> f64 {
                row.iter()
                    .zip(changes)
                    .map(|(&i, c)| if theta[i] > 0.0 { theta[i] * c } else { 0.0 })
                    .sum()
            };
            meet(at, sum)
        };
        // A row may be short, so that a call takes some.
        let shares: Vec<&[Vec<usize>]> = self.rows.chunks(ROWS_AT_ONCE).collect();
        let of_share = |n: usize| -> Vec<Vec<f64>> { shares[n].iter().map(of_row).collect() };
        let found = parallel::map(shares.len(), &of_share);
        let mut changes = vec![1.0; theta.len()];
        for (row, found) in self.rows.iter().zip(found.into_iter().flatten()) {
            row.iter().zip(found).for_each(|(&i, c)| changes[i] = c);
        }
        changes
    }
}

/// The point between two multipliers ever closer to each other at which the sum is 1.
fn meet(at: impl Fn(f64) -> Vec<f64>, sum: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    let free = at(0.0);
    let first = sum(&free);
    if (first - 1.0).abs() <= 1e-15 {
        return free;
    }
    // ν of either sign: the sum falls with it.
    let sign = if first > 1.0 { 1.0 } else { -1.0 };
    let passed = |sum: f64| if sign > 0.0 { sum <= 1.0 } else { sum >= 1.0 };
    let (mut near, mut far) = (0.0, 1.0);
    let (mut near_at, mut far_at) = (free.clone(), at(sign * far));
    let mut tries = 0;
    while passed(sum(&far_at)) && tries < HALVINGS {
        // Down to the order of magnitude of the derivatives.
        let next = at(sign * far * 0.5);
        if !passed(sum(&next)) {
            (near, near_at) = (far * 0.5, next);
            break;
        }
        (far, far_at) = (far * 0.5, next);
        tries += 1;
    }
    while !passed(sum(&far_at)) && tries < HALVINGS {
        (near, near_at) = (far, far_at);
        far *= 2.0;
        far_at = at(sign * far);
        tries += 1;
    }
    let [mut near_sum, mut far_sum] = [sum(&near_at), sum(&far_at)];
    let mut halve = false;
    for _ in 0..HALVINGS {
        let middle = 0.5 * (near + far);
        if middle <= near || middle >= far {
            break;
        }
        // Where the line between both comes to 1; but half the way where the last such step was short.
        let line = near + (1.0 - near_sum) / (far_sum - near_sum) * (far - near);
        let next = if halve || !(line > near && line < far) { middle } else { line };
        let (next_at, length) = (at(sign * next), far - near);
        let next_sum = sum(&next_at);
        if (next_sum - 1.0).abs() <= 1e-15 {
            return next_at;
        }
        if passed(next_sum) {
            (far, far_at, far_sum) = (next, next_at, next_sum);
        } else {
            (near, near_at, near_sum) = (next, next_at, next_sum);
        }
        halve = far - near > 0.5 * length;
    }
    // Both are best for nearly the same multiplier, and so is what is between them.
    let share = (1.0 - near_sum) / (far_sum - near_sum);
    if share.is_finite() {
        let between = |(x, y): (&f64, &f64)| x + share.clamp(0.0, 1.0) * (y - x);
        return near_at.iter().zip(&far_at).map(between).collect();
    }
    // Their sums are the same to the last digit; or no change of this row adds up to 1, and it stays.
    if (near_sum - 1.0).abs() < 1e-9 { near_at } else { vec![1.0; free.len()] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nneinfact_core::model::Model;

    fn simplex(letters: Option<&str>) -> Result<Simplex> {
        let model = Model::parse("ikr,jkr->ij")?;
        let shapes = Shapes::new(&model, &[2, 4], &[('k', 3), ('r', 2)])?;
        Simplex::new(&shapes, 0, letters)
    }

    #[test]
    fn rows_are_those_of_the_letters() -> Result<()> {
        assert_eq!(simplex(None)?.rows, [(0..6).collect::<Vec<_>>(), (6..12).collect()]);
        let over_i = simplex(Some("i"))?.rows;
        assert_eq!((over_i.len(), over_i[1].as_slice()), (6, [1, 7].as_slice()));
        assert_eq!(simplex(Some("k"))?.rows[2], [6, 8, 10]);
        assert!(simplex(Some("j")).is_err());
        Ok(())
    }

    #[test]
    fn the_best_row_that_adds_up() -> Result<()> {
        let simplex = simplex(Some("r"))?;
        let mut theta: Vec<f64> = (0..12).map(|n| 1.0 + (n % 5) as f64).collect();
        simplex.normalize(&mut theta);
        // KL: a/(b + ν); the best row is proportional to θa where all b are the same.
        let a = |i: usize| 0.2 + (i % 3) as f64;
        for b in [1e-9, 1.0, 1e9] {
            let change = |i: usize, nu: f64| match b + nu > 0.0 {
                true => a(i) / (b + nu),
                false => f64::INFINITY,
            };
            let changes = simplex.changes(&theta, change);
            for row in &simplex.rows {
                let whole: f64 = row.iter().map(|&i| theta[i] * a(i)).sum();
                for &i in row {
                    let (found, expected) = (theta[i] * changes[i], theta[i] * a(i) / whole);
                    assert!((found - expected).abs() < 1e-9, "{found} {expected} {b}");
                }
            }
        }
        // Whatever the derivatives' unit is.
        for unit in [1e-12, 1e-3, 1.0, 1e6, 1e12] {
            let change = |i: usize, nu: f64| match 2.0 * unit + nu > 0.0 {
                true => unit * a(i) / (2.0 * unit + nu),
                false => f64::INFINITY,
            };
            let changes = simplex.changes(&theta, change);
            for row in &simplex.rows {
                let sum: f64 = row.iter().map(|&i| theta[i] * changes[i]).sum();
                let moved = row.iter().any(|&i| (changes[i] - 1.0).abs() > 0.01);
                assert!((sum - 1.0).abs() < 1e-12 && moved, "{sum} {changes:?} {unit}");
            }
        }
        // Where nothing depends on the entries, they stay.
        assert!(simplex.changes(&theta, |_, _| 1.0).iter().all(|&c| (c - 1.0).abs() < 1e-12));
        Ok(())
    }
}
