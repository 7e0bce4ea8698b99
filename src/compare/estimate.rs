//! How long the rest of a study will take.

/// A run, as far as its time is concerned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Load {
    /// Runs of the same setup differ in split and start only.
    pub setup: usize,
    /// Runs with the same number are alike in loss, penalties and algorithm.
    pub kind: usize,
    pub parameters: f64,
}

/// Times of the runs that are done.
#[derive(Clone, Debug)]
pub(super) struct Times {
    loads: Vec<Load>,
    seconds: Vec<Option<f64>>,
}

impl Times {
    pub fn new(loads: Vec<Load>) -> Times {
        let seconds = vec![None; loads.len()];
        Times { loads, seconds }
    }

    pub fn done(&mut self, run: usize, seconds: f64) {
        if let Some(to) = self.seconds.get_mut(run) {
            *to = Some(seconds);
        }
    }

    /// The seconds that a run will take: the mean of runs of the same setup; else, as time grows
    /// with the parameters, those of runs of the same kind for as many parameters; else of all runs.
    /// `None` before any run is done.
    pub fn expected(&self, run: usize) -> Option<f64> {
        let load = self.loads.get(run)?;
        let known = || self.loads.iter().zip(&self.seconds).filter_map(|(l, s)| Some((l, (*s)?)));
        let mean = |values: Vec<f64>| match values.len() {
            0 => None,
            n => Some(values.iter().sum::<f64>() / n as f64),
        };
        let rate = |(l, s): (&Load, f64)| s / l.parameters.max(1.0);
        mean(known().filter(|(l, _)| l.setup == load.setup).map(|(_, s)| s).collect())
            .or_else(|| {
                let alike = known().filter(|(l, _)| l.kind == load.kind).map(rate).collect();
                Some(mean(alike)? * load.parameters)
            })
            .or_else(|| Some(mean(known().map(rate).collect())? * load.parameters))
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
