//! Sums over all observed entries, by their roles, in double precision.

use super::mapped::in_order;
use super::scan::{BLOCK, Buffers, Places, TASK, blocks};
use super::{CooTensor, Prepared, Role};
use crate::parallel;

/// A sum for each role; that of [`Role::Missing`] is 0.
pub type RoleSums = [f64; 4];

fn add(mut sums: RoleSums, part: &RoleSums) -> RoleSums {
    sums.iter_mut().zip(part).for_each(|(to, from)| *to += from);
    sums
}

impl Prepared {
    /// Σ W f(x, i) over the observed entries of each role, i being an entry's linear index in C
    /// order. `at_zero` is f at a datum of 0, given where f does not look at i. The order of the
    /// sums does not depend on the number of threads.
    pub fn sums_by_role(
        &self,
        of: impl Fn(f64, usize) -> f64 + Sync,
        at_zero: Option<f64>,
    ) -> RoleSums {
        if let Some(coo) = &self.coo {
            return self.sums_of_coo(coo, &of, at_zero);
        }
        let n = self.values.len();
        let places = Places::new(&self.values);
        let mut parts: Vec<RoleSums> = Vec::new();
        in_order(&self.tensors(), n, TASK, |range| {
            let tasks = range.start / TASK..range.end.div_ceil(TASK);
            parts.extend(parallel::map(tasks.len(), &|task| {
                let task = tasks.start + task;
                let mut buffers = Buffers::new();
                let mut sums = [0.0; 4];
                for start in blocks(task, n) {
                    let len = BLOCK.min(n - start);
                    let values = &mut buffers.values[..len];
                    self.values.load(start, 1, values);
                    places.fill(start, &mut buffers.place[..len]);
                    let weights = &mut buffers.weights[..len];
                    match &self.weights {
                        Some(all) => all.load(start, 1, weights),
                        None => weights.fill(1.0),
                    }
                    for (i, (&x, &w)) in values.iter().zip(&*weights).enumerate() {
                        let role = self.roles.as_ref().map_or(Role::Train, |r| r.get(start + i));
                        if role != Role::Missing {
                            sums[role as usize] += w * of(x, buffers.place[i] as usize);
                        }
                    }
                }
                sums
            }));
        });
        parts.iter().fold([0.0; 4], add)
    }

    /// [`Prepared::sums_by_role`] for a COO tensor, whose weights are 0 and 1 but for drawn zeros.
    fn sums_of_coo(
        &self,
        coo: &CooTensor,
        of: &(impl Fn(f64, usize) -> f64 + Sync),
        at_zero: Option<f64>,
    ) -> RoleSums {
        let entries = self.only_stored.as_ref().map_or(coo, |stored| stored.entries());
        let keys = entries.keys();
        let role_of = |i: usize, key: u64| match (&self.only_stored, &self.roles) {
            (Some(stored), _) => stored.role(i),
            (None, Some(roles)) => roles.get(key as usize),
            (None, None) => Role::Train,
        };
        let (mut sums, mut stored) = ([0.0; 4], [0u64; 4]);
        for (i, &key) in keys.iter().enumerate() {
            let role = role_of(i, key);
            stored[role as usize] += 1;
            if role != Role::Missing {
                let weight = self.only_stored.as_ref().map_or(1.0, |stored| stored.weight(i));
                let x = entries.values().get(i).unwrap_or(0.0);
                sums[role as usize] += weight * of(x, key as usize);
            }
        }
        let implicit = |role: Role| self.count(role) - stored[role as usize];
        let observed = [Role::Train, Role::Validation, Role::HeldOut];
        if let Some(zero) = at_zero {
            for role in observed {
                sums[role as usize] += implicit(role) as f64 * zero;
            }
            return sums;
        }
        if observed.into_iter().all(|role| implicit(role) == 0) {
            return sums;
        }
        // An entry parameter has the data's shape, so that going over all entries is no surprise.
        let volume = self.shape.iter().product::<usize>();
        let mut next = keys.iter().peekable();
        for key in 0..volume {
            if next.next_if(|&&stored| stored == key as u64).is_some() {
                continue;
            }
            let role = self.roles.as_ref().map_or(Role::Train, |roles| roles.get(key));
            if role != Role::Missing {
                sums[role as usize] += of(0.0, key);
            }
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;
    use crate::data::Observations;

    #[test]
    fn dense_and_sparse_data_have_the_same_sums() {
        let y = Array2::from_shape_fn((13, 11), |(i, j)| ((i * j) % 4) as f64);
        let list = |y: &Array2<f64>| {
            let at: Vec<(usize, usize)> =
                y.indexed_iter().filter(|(_, x)| **x != 0.0).map(|(at, _)| at).collect();
            let rows = at.iter().map(|a| a.0 as u64).collect();
            let columns = at.iter().map(|a| a.1 as u64).collect();
            let values: Vec<f64> = at.iter().map(|a| y[*a]).collect();
            CooTensor::new(&[13, 11], &[rows, columns], &values).unwrap()
        };
        let parameter = |i: usize| 1.0 + (i % 7) as f64;
        let by_index = |x: f64, i: usize| (x + 0.5) * parameter(i);
        let by_value = |x: f64, _: usize| x * x + 2.0;
        let split = |o: Observations| o.held_out(0.2, 3).unwrap().validation(0.2, 4).unwrap();
        for whole in [true, false] {
            let prepared = |o: Observations| if whole { o } else { split(o) }.prepare().unwrap();
            let dense = prepared(Observations::new(&y));
            let turned =
                prepared(Observations::new(y.t().as_standard_layout().to_owned().reversed_axes()));
            let sparse = prepared(Observations::new(list(&y)));
            let want = dense.sums_by_role(by_index, None);
            assert!(want[Role::Train as usize] > 100.0);
            for data in [&turned, &sparse] {
                let found = data.sums_by_role(by_index, None);
                for (a, b) in found.iter().zip(&want) {
                    assert!((a - b).abs() < 1e-9, "{found:?} {want:?}");
                }
                let all = data.sums_by_role(by_value, Some(2.0));
                let same = dense.sums_by_role(by_value, Some(2.0));
                assert!(all.iter().zip(&same).all(|(a, b)| (a - b).abs() < 1e-9));
            }
        }
    }

    #[test]
    fn weights_count() {
        let y = Array2::from_elem((3, 4), 2.0);
        let weights = Array2::from_shape_fn((3, 4), |(i, _)| i as f64);
        let data = Observations::new(&y).weights(&weights).unwrap().prepare().unwrap();
        assert_eq!(data.sums_by_role(|x, _| x, Some(0.0))[Role::Train as usize], 24.0);
    }
}
