//! How well fitted factors show the patterns that the data were made from.

use ndarray::{ArrayD, ArrayView1, Axis, Ix2, Ix3, s};

use super::planted::Planted;

/// A planted pattern and the fitted one that was matched with it.
pub struct Match {
    /// The planted pattern's name.
    pub name: &'static str,
    /// The cosine similarities of weeks, weekdays, hours and map.
    pub cosines: [f64; 4],
}

impl Match {
    /// The cosine similarity of the whole patterns, as tensors: the product of the four.
    pub fn whole(&self) -> f64 {
        self.cosines.iter().product()
    }
}

/// Matches the fitted components with the planted ones such that the sum of the cosine similarities
/// of the whole patterns is largest. `factors` are those of `wr,dr,hr,irk,jrk->wdhij`.
///
/// Maps are compared, not the factors of the blobs: which blob is which, and how a map is a sum of
/// products, is not determined.
///
/// `None` where the factors are not those of such a model with as many components.
pub fn matches(planted: &Planted, factors: &[ArrayD<f64>]) -> Option<Vec<Match>> {
    let [week, weekday, hour, rows, columns] = factors else { return None };
    let profiles = [week, weekday, hour].map(|f| f.view().into_dimensionality::<Ix2>().ok());
    let [Some(week), Some(weekday), Some(hour)] = profiles else { return None };
    let rows = rows.view().into_dimensionality::<Ix3>().ok()?;
    let columns = columns.view().into_dimensionality::<Ix3>().ok()?;
    let n = planted.components().len();
    let counts = [week.ncols(), weekday.ncols(), hour.ncols(), rows.dim().1, columns.dim().1];
    if counts != [n; 5] {
        return None;
    }
    let maps: Vec<Vec<f64>> = (0..n)
        .map(|r| {
            let map = rows.slice(s![.., r, ..]).dot(&columns.slice(s![.., r, ..]).t());
            map.into_raw_vec_and_offset().0
        })
        .collect();
    let table: Vec<Vec<[f64; 4]>> = planted
        .components()
        .iter()
        .map(|c| {
            let map = c.map().into_raw_vec_and_offset().0;
            (0..n)
                .map(|r| {
                    let column =
                        |f: &ndarray::ArrayView2<'_, f64>| f.index_axis(Axis(1), r).to_vec();
                    [
                        cosine(&c.week, &column(&week)),
                        cosine(&c.weekday, &column(&weekday)),
                        cosine(&c.hour, &column(&hour)),
                        cosine(&map, &maps[r]),
                    ]
                })
                .collect()
        })
        .collect();
    let score: Vec<Vec<f64>> = table
        .iter()
        .map(|row| row.iter().map(|cosines| cosines.iter().product()).collect())
        .collect();
    let assignment = best_assignment(&score);
    Some(
        planted
            .components()
            .iter()
            .zip(&table)
            .zip(assignment)
            .map(|((c, row), r)| Match { name: c.name, cosines: row[r] })
            .collect(),
    )
}

/// The cosine of the angle between two vectors; 0 where one is 0.
fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let (a, b) = (ArrayView1::from(a), ArrayView1::from(b));
    let norms = a.dot(&a).sqrt() * b.dot(&b).sqrt();
    if norms > 0.0 { a.dot(&b) / norms } else { 0.0 }
}

/// Gives every row a column of its own such that the sum of the scores is largest. Tries all n!
/// ways, which is nothing for the few components there are.
fn best_assignment(score: &[Vec<f64>]) -> Vec<usize> {
    fn extend(score: &[Vec<f64>], taken: &mut Vec<usize>, sum: f64, best: &mut (f64, Vec<usize>)) {
        let row = taken.len();
        if row == score.len() {
            if sum > best.0 {
                *best = (sum, taken.clone());
            }
            return;
        }
        for column in 0..score.len() {
            if !taken.contains(&column) {
                taken.push(column);
                extend(score, taken, sum + score[row][column], best);
                taken.pop();
            }
        }
    }
    let mut best = (f64::NEG_INFINITY, (0..score.len()).collect());
    extend(score, &mut Vec::new(), 0.0, &mut best);
    best.1
}

#[cfg(test)]
mod tests {
    use ndarray::Axis;

    use super::super::planted::Size;
    use super::*;

    const SMALL: Size = Size { weeks: 9, side: 20, mean: 0.3 };

    #[test]
    fn the_truth_is_recovered_in_any_order_and_scale() {
        let planted = Planted::new(SMALL);
        let order = [3, 0, 4, 2, 1];
        let factors: Vec<_> = planted
            .factors()
            .iter()
            .enumerate()
            .map(|(l, f)| f.select(Axis(1), &order) * (l as f64 + 0.5))
            .collect();
        let found = matches(&planted, &factors).unwrap_or_default();
        assert_eq!(found.len(), 5);
        for (m, c) in found.iter().zip(planted.components()) {
            assert_eq!(m.name, c.name);
            assert!((m.whole() - 1.0).abs() < 1e-12, "{}", m.name);
        }
    }

    #[test]
    fn what_is_not_recovered_shows() {
        let planted = Planted::new(SMALL);
        let mut factors = planted.factors();
        // The first pattern gets the hours of the second.
        let hours = factors[2].index_axis(Axis(1), 1).to_owned();
        factors[2].index_axis_mut(Axis(1), 0).assign(&hours);
        let found = matches(&planted, &factors).unwrap_or_default();
        assert!(found[0].cosines[2] < 0.9 && (found[0].cosines[3] - 1.0).abs() < 1e-12);
        assert!((found[1].whole() - 1.0).abs() < 1e-12);
        assert!(matches(&planted, &factors[..4]).is_none());
    }

    #[test]
    fn the_best_assignment_is_not_the_greedy_one() {
        let score = vec![vec![1.0, 0.9, 0.0], vec![0.9, 0.1, 0.0], vec![0.3, 0.2, 0.1]];
        assert_eq!(best_assignment(&score), [1, 0, 2]);
    }
}
