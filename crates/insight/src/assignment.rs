//! The assignment problem: one column for every row so that the sum of the weights is largest.
//!
//! This is the Hungarian method (Kuhn 1955, Munkres 1957) with shortest augmenting paths, as Jonker and
//! Volgenant (1987) describe it: O(rows² · columns) operations. Rows and columns carry prices whose sum
//! is nowhere below the weight; only pairs at equality are matched. One row after another is matched
//! by a path that alternates between pairs outside and inside the matching, and prices change by the
//! least amount that lengthens the path.

/// Pairs rows with columns, each at most once and as many as there can be, so that the sum of the
/// similarities is largest: a row and its column, in the order of the rows. Similarities are from 0 to 1.
pub(crate) fn best_pairs(similarities: &[Vec<f64>]) -> Vec<(usize, usize)> {
    let (rows, columns) = (similarities.len(), similarities.first().map_or(0, Vec::len));
    if rows == 0 || columns == 0 {
        return Vec::new();
    }
    // Whole numbers, as the assignment compares for equality.
    let weight = |x: f64| (x * 1e12).round() as i64;
    if rows <= columns {
        let weights: Vec<i64> = similarities.iter().flatten().map(|&x| weight(x)).collect();
        return best_assignment(&weights, rows, columns).into_iter().enumerate().collect();
    }
    let weights: Vec<i64> =
        (0..columns).flat_map(|j| similarities.iter().map(move |row| weight(row[j]))).collect();
    let mut pairs: Vec<(usize, usize)> = best_assignment(&weights, columns, rows)
        .into_iter()
        .enumerate()
        .map(|(column, row)| (row, column))
        .collect();
    pairs.sort_unstable();
    pairs
}

/// Assigns a column to every row, no column twice, with the largest sum of weights. `weights` has
/// `rows × columns` entries row by row, and there are at least as many columns as rows. Among
/// assignments of the same sum the choice depends on the weights alone, and the lowest column is
/// tried first.
///
/// Weights are whole numbers, as pairs are matched where prices are equal exactly. Sums of prices
/// must not overflow: weights below 2⁶² / (rows + columns) in magnitude are safe.
fn best_assignment(weights: &[i64], rows: usize, columns: usize) -> Vec<usize> {
    debug_assert!(rows <= columns && weights.len() == rows * columns);
    let weight = |row: usize, column: usize| weights[row * columns + column];
    let mut row_prices: Vec<i64> =
        (0..rows).map(|row| (0..columns).map(|c| weight(row, c)).max().unwrap_or(0)).collect();
    let mut column_prices = vec![0i64; columns];
    let mut column_of: Vec<Option<usize>> = vec![None; rows];
    let mut row_of: Vec<Option<usize>> = vec![None; columns];
    for root in 0..rows {
        let mut search = Search::new(root, columns, |column| {
            row_prices[root] + column_prices[column] - weight(root, column)
        });
        // Lengthens the path until it reaches a column that no row has.
        let mut reached = loop {
            let (delta, column) = search.nearest();
            for &row in &search.visited {
                row_prices[row] -= delta;
            }
            for (price, reached_from) in column_prices.iter_mut().zip(&search.reached_from) {
                if reached_from.is_some() {
                    *price += delta;
                }
            }
            search.reach(delta, column);
            let Some(row) = row_of[column] else { break Some(column) };
            let (price, column_prices) = (row_prices[row], &column_prices);
            search.visit(row, |column| price + column_prices[column] - weight(row, column));
        };
        // Along the path, back to the root, every row moves to the column after it.
        while let Some(column) = reached {
            let row = search.reached_from[column].unwrap_or(root);
            row_of[column] = Some(row);
            reached = column_of[row].replace(column);
        }
    }
    column_of.into_iter().flatten().collect()
}

/// The search for a path from an unmatched row to an unmatched column.
struct Search {
    /// Rows that the path can pass through.
    visited: Vec<usize>,
    /// For every column on the path the row before it.
    reached_from: Vec<Option<usize>>,
    /// By how much prices of the visited rows have to fall until one of them equals its weight here.
    slack: Vec<i64>,
    /// The visited row that this slack is that of.
    slack_row: Vec<usize>,
}

impl Search {
    fn new(root: usize, columns: usize, slack: impl Fn(usize) -> i64) -> Search {
        Search {
            visited: vec![root],
            reached_from: vec![None; columns],
            slack: (0..columns).map(slack).collect(),
            slack_row: vec![root; columns],
        }
    }

    /// The least slack of the columns that are not on the path, and the first of them that has it.
    fn nearest(&self) -> (i64, usize) {
        let free = (0..self.slack.len()).filter(|&column| self.reached_from[column].is_none());
        // There is one: there are not fewer columns than rows.
        free.map(|column| (self.slack[column], column)).min().unwrap_or((0, 0))
    }

    /// Puts a column on the path, after prices changed by `delta`.
    fn reach(&mut self, delta: i64, column: usize) {
        for (slack, reached_from) in self.slack.iter_mut().zip(&self.reached_from) {
            if reached_from.is_none() {
                *slack -= delta;
            }
        }
        self.reached_from[column] = Some(self.slack_row[column]);
    }

    /// Adds a row to those that the path can pass through.
    fn visit(&mut self, row: usize, slack: impl Fn(usize) -> i64) {
        self.visited.push(row);
        for column in 0..self.slack.len() {
            let from_row = slack(column);
            if self.reached_from[column].is_none() && from_row < self.slack[column] {
                (self.slack[column], self.slack_row[column]) = (from_row, row);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The largest sum over all ways to give every row a column of its own.
    fn brute_force(weights: &[i64], rows: usize, columns: usize, taken: &mut Vec<usize>) -> i64 {
        let row = taken.len();
        if row == rows {
            return 0;
        }
        let mut best = i64::MIN;
        for column in 0..columns {
            if !taken.contains(&column) {
                taken.push(column);
                let rest = brute_force(weights, rows, columns, taken);
                best = best.max(weights[row * columns + column] + rest);
                taken.pop();
            }
        }
        best
    }

    /// Pseudo-random numbers below a bound (a linear congruential generator).
    fn numbers(state: &mut u64, bound: u64) -> u64 {
        *state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*state >> 33) % bound
    }

    #[test]
    fn no_other_assignment_has_a_larger_sum() {
        let mut state = 7;
        for rows in 0..=7usize {
            for columns in rows.max(1)..=7 {
                // Few distinct weights make many ties.
                for bound in [2, 5, 1_000_000_000_000] {
                    for _ in 0..3 {
                        let weights: Vec<i64> = (0..rows * columns)
                            .map(|_| numbers(&mut state, bound) as i64 - bound as i64 / 3)
                            .collect();
                        let found = best_assignment(&weights, rows, columns);
                        assert_eq!(found.len(), rows);
                        let mut distinct = found.clone();
                        distinct.sort_unstable();
                        distinct.dedup();
                        assert_eq!(distinct.len(), rows, "{found:?}");
                        let sum: i64 =
                            found.iter().enumerate().map(|(r, &c)| weights[r * columns + c]).sum();
                        let best = brute_force(&weights, rows, columns, &mut Vec::new());
                        assert_eq!(sum, best, "{rows} × {columns}: {weights:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn ties_go_to_the_lowest_column() {
        assert_eq!(best_assignment(&[3; 12], 3, 4), [0, 1, 2]);
        assert_eq!(best_assignment(&[0, 1, 1, 0, 1, 1], 2, 3), [1, 2]);
        let weights = [5, 5, 0, 5, 5, 0, 0, 0, 5];
        assert_eq!(best_assignment(&weights, 3, 3), best_assignment(&weights, 3, 3));
        assert_eq!(best_assignment(&weights, 3, 3), [0, 1, 2]);
    }

    #[test]
    fn large_problems_are_solved() {
        // The largest product of positions is on the diagonal.
        let n = 300;
        let weights: Vec<i64> = (0..n * n).map(|at| ((at / n) * (at % n)) as i64).collect();
        assert_eq!(best_assignment(&weights, n, n), (0..n).collect::<Vec<_>>());
    }
}
