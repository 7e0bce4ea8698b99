//! Estimates how long the remaining runs of a study will take.

use std::collections::BTreeMap;

/// A run, as far as its time is concerned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Load {
    /// Runs of the same setup differ in split and start only.
    pub setup: usize,
    /// Runs with the same number are alike in loss, penalties and algorithm.
    pub kind: usize,
    pub parameters: f64,
}

/// A sum of so many.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    sum: f64,
    count: f64,
}

impl Sum {
    fn add(&mut self, x: f64) {
        self.sum += x;
        self.count += 1.0;
    }

    fn mean(self) -> Option<f64> {
        (self.count > 0.0).then(|| self.sum / self.count)
    }
}

/// Times of the runs that are done.
#[derive(Clone, Debug)]
pub(super) struct Times {
    loads: Vec<Load>,
    /// Seconds of the runs of a setup.
    setups: BTreeMap<usize, Sum>,
    /// Seconds a parameter of the runs of a kind.
    kinds: BTreeMap<usize, Sum>,
    /// Seconds a parameter of all.
    all: Sum,
}

impl Times {
    pub fn new(loads: Vec<Load>) -> Times {
        Times { loads, setups: BTreeMap::new(), kinds: BTreeMap::new(), all: Sum::default() }
    }

    pub fn done(&mut self, run: usize, seconds: f64) {
        let Some(load) = self.loads.get(run) else { return };
        let rate = seconds / load.parameters.max(1.0);
        self.setups.entry(load.setup).or_default().add(seconds);
        self.kinds.entry(load.kind).or_default().add(rate);
        self.all.add(rate);
    }

    /// The seconds that a run will take: the mean of runs of the same setup; else, as time grows
    /// with the parameters, those of runs of the same kind for as many parameters; else of all runs.
    /// `None` before any run is done.
    pub fn expected(&self, run: usize) -> Option<f64> {
        let load = self.loads.get(run)?;
        let mean =
            |sums: &BTreeMap<usize, Sum>, key: usize| sums.get(&key).copied().and_then(Sum::mean);
        mean(&self.setups, load.setup).or_else(|| {
            let rate = mean(&self.kinds, load.kind).or(self.all.mean())?;
            Some(rate * load.parameters)
        })
    }

    /// The seconds that these runs will take; `None` where nothing is known yet.
    pub fn left(&self, runs: impl IntoIterator<Item = usize>) -> Option<f64> {
        runs.into_iter().map(|run| self.expected(run)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alike_runs_tell_first() {
        let load = |setup, kind, parameters| Load { setup, kind, parameters };
        let loads = vec![
            load(0, 0, 100.0),
            load(1, 0, 200.0),
            load(2, 1, 200.0),
            load(0, 0, 100.0),
            load(1, 0, 200.0),
            load(2, 1, 200.0),
        ];
        let mut times = Times::new(loads);
        assert_eq!(times.left([0, 1]), None);
        times.done(0, 10.0);
        // By parameters: 0.1 s each.
        assert_eq!(times.expected(1), Some(20.0));
        assert_eq!(times.expected(2), Some(20.0));
        assert_eq!(times.expected(3), Some(10.0));
        times.done(1, 40.0);
        times.done(2, 7.0);
        assert_eq!(times.left([3, 4, 5]), Some(57.0));
        assert_eq!(times.left([]), Some(0.0));
    }
}
