//! The golden suite: every case of `tests/golden` in every configuration.
//!
//! Another engine is one more element of [`crate::common::configurations`].

use std::fmt::Write as _;

use crate::common::golden::{Case, PREDICTION_FLOOR, cases};
use crate::common::{
    Configuration, configurations, deviation, history_deviation, largest_rise, mean_term,
    partitions,
};
use nneinfact::fit::Start;
use nneinfact::reference::{self, Problem};
use nneinfact::{Algorithm, Fit, NNEinFact};

/// Rows of a table, of which some may be failures.
#[derive(Default)]
struct Table {
    text: String,
    failures: usize,
    rows: usize,
}

impl Table {
    /// Adds a row: what was run, and what it measured against what is allowed.
    fn row(&mut self, what: &str, measured: &[(&str, f64)], allowed: f64) {
        // The comparison is this way round so that a NaN fails.
        let good = measured.iter().all(|&(_, value)| value <= allowed);
        self.rows += 1;
        self.failures += usize::from(!good);
        let _ = write!(self.text, "{} {what:<44}", if good { "    ok" } else { "FAILED" });
        for (name, value) in measured {
            let _ = write!(self.text, "  {name} {value:8.1e}");
        }
        let _ = writeln!(self.text, "  allowed {allowed:.0e}");
    }

    /// A row for what could not be measured.
    fn error(&mut self, what: &str, error: &dyn std::fmt::Display) {
        self.rows += 1;
        self.failures += 1;
        let _ = writeln!(self.text, "FAILED {what:<44}  {error}");
    }

    /// Prints the table and fails where a row did, or where there are none.
    fn check(self) {
        println!("{}", self.text);
        assert!(self.rows > 0, "nothing was run");
        assert!(self.failures == 0, "{} of {} failed:\n{}", self.failures, self.rows, self.text);
    }
}

fn settings(case: &Case, configuration: &Configuration) -> NNEinFact {
    NNEinFact::new(case.shapes.model().text())
        .expect("golden models are models")
        .ranks(case.ranks.clone())
        .loss(case.loss.clone())
        .device(configuration.device.clone())
        .precision(configuration.precision)
        .start(Start::Factors(case.start.clone()))
        .max_iter(case.iterations)
        .tolerance(0.0)
}

fn compare(table: &mut Table, what: &str, case: &Case, fit: nneinfact::Result<Fit>, allowed: f64) {
    match fit {
        Ok(fit) => {
            let factors = deviation(fit.factors(), &case.expected);
            let losses = history_deviation(&fit.history().loss, &case.history);
            table.row(what, &[("factors", factors), ("losses", losses)], allowed);
        }
        Err(error) => table.error(what, &error),
    }
}

#[test]
fn the_reference_agrees() {
    let mut table = Table::default();
    for case in cases() {
        let problem = Problem {
            shapes: &case.shapes,
            loss: &case.loss,
            y: &case.y,
            weights: case.weights.as_ref(),
            floor: PREDICTION_FLOOR,
        };
        let mut factors = case.start.clone();
        let mut history = vec![problem.loss(&factors)];
        for _ in 0..case.iterations {
            problem.sweep(&mut factors);
            history.push(problem.loss(&factors));
        }
        let factors = deviation(&factors, &case.expected);
        let losses = history_deviation(&history, &case.history);
        table.row(&case.name, &[("factors", factors), ("losses", losses)], 1e-9);
    }
    table.check();
}

#[test]
fn block_agrees_with_the_floors_of_the_files() {
    let mut table = Table::default();
    for configuration in configurations() {
        for case in cases_for(&configuration) {
            let fit = settings(&case, &configuration)
                .algorithm(Algorithm::Block)
                .prediction_floor(PREDICTION_FLOOR)
                .factor_floor(0.0)
                .fit(case.observations());
            let what = format!("{} {}", configuration.name, case.name);
            compare(&mut table, &what, &case, fit, configuration.tolerance);
        }
    }
    table.check();
}

#[test]
fn block_agrees_with_the_default_floors() {
    let mut table = Table::default();
    for configuration in configurations() {
        for case in cases_for(&configuration) {
            let fit = settings(&case, &configuration)
                .algorithm(Algorithm::Block)
                .fit(case.observations());
            let what = format!("{} {}", configuration.name, case.name);
            compare(&mut table, &what, &case, fit, configuration.tolerance);
        }
    }
    table.check();
}

#[test]
fn groups_of_one_factor_are_block_bit_for_bit() {
    for configuration in configurations() {
        for case in cases_for(&configuration) {
            let singles = (0..case.start.len()).map(|l| vec![l]).collect();
            let block = settings(&case, &configuration)
                .algorithm(Algorithm::Block)
                .fit(case.observations())
                .expect("block fits");
            let grouped = settings(&case, &configuration)
                .algorithm(Algorithm::Grouped)
                .groups(singles)
                .inner_cycles(3)
                .fit(case.observations())
                .expect("grouped fits");
            let what = format!("{} {}", configuration.name, case.name);
            assert_eq!(block.factors(), grouped.factors(), "{what}");
            assert_eq!(block.history().loss, grouped.history().loss, "{what}");
        }
    }
}

/// The cases for a configuration: on a GPU, those that it has time for.
fn cases_for(configuration: &Configuration) -> Vec<Case> {
    let mut all: Vec<Option<Case>> = cases().into_iter().map(Some).collect();
    match configuration.name {
        "gpu" => crate::common::gpu_cases(all.len()).filter_map(|n| all[n].take()).collect(),
        _ => all.into_iter().flatten().collect(),
    }
}

/// All partitions of a few factors; of more, some of every number of groups. On a GPU only the two
/// ends, one group and a group for each factor: every other one is more shaders, which a software
/// driver takes seconds to compile, and no more kinds of them.
fn some_partitions(count: usize, configuration: &Configuration) -> Vec<Vec<Vec<usize>>> {
    const FEW: usize = 4;
    const SAMPLE: usize = 12;
    let mut all = partitions(count);
    if configuration.name == "gpu" {
        let apart = all.pop();
        all.truncate(1);
        all.extend(apart);
        return all;
    }
    if count <= FEW {
        return all;
    }
    let step = all.len() / SAMPLE;
    all.into_iter().step_by(step).collect()
}

#[test]
fn grouped_sweeps_never_raise_the_loss() {
    let mut table = Table::default();
    for configuration in configurations() {
        for case in cases_for(&configuration) {
            let start = reference::predict(&case.shapes, &case.start);
            let term =
                mean_term(&case.loss, &case.y, case.weights.as_ref(), &start, PREDICTION_FLOOR);
            let mut worst: (f64, String) = (0.0, "any groups".into());
            let partitions = some_partitions(case.start.len(), &configuration);
            // And the plan's own.
            for groups in partitions.into_iter().map(Some).chain([None]) {
                for (algorithm, cycles) in
                    [(Algorithm::Grouped, 1), (Algorithm::Grouped, 3), (Algorithm::Accelerated, 1)]
                {
                    let name = format!("{} {groups:?}, {cycles} cycles", algorithm.name());
                    let what = format!("{} {} {name}", configuration.name, case.name);
                    let mut settings = settings(&case, &configuration)
                        .algorithm(algorithm)
                        .max_iter(30)
                        .inner_cycles(cycles);
                    if let Some(groups) = &groups {
                        settings = settings.groups(groups.clone());
                    }
                    let fit = settings.fit(case.observations());
                    match fit {
                        Ok(fit) => {
                            let rise = largest_rise(&fit.history().loss, term);
                            // A fit that does not move would pass the other check.
                            let (first, last) = (fit.history().loss[0], fit.history().last_loss());
                            if last >= first {
                                table.error(&what, &format!("stays at {first}"));
                            }
                            if rise > worst.0 || rise.is_nan() {
                                worst = (rise, name);
                            }
                        }
                        Err(error) => table.error(&what, &error),
                    }
                }
            }
            let what = format!("{} {}", configuration.name, case.name);
            table.row(
                &what,
                &[(&format!("worst rise, {}:", worst.1), worst.0)],
                configuration.rise,
            );
        }
    }
    table.check();
}

/// The first element of a history that is at most `target`.
fn sweeps_to(history: &[f64], target: f64) -> usize {
    history.iter().position(|&loss| loss <= target).unwrap_or(history.len())
}

#[test]
fn extrapolation_halves_the_sweeps_to_the_same_loss() {
    let configurations = configurations();
    let mut table = Vec::new();
    for case in cases() {
        let losses = |algorithm: Algorithm| {
            settings(&case, &configurations[0])
                .algorithm(algorithm)
                .max_iter(100)
                .fit(case.observations())
                .map(|fit| fit.history().loss.clone())
                .unwrap_or_else(|error| panic!("{}: {error}", case.name))
        };
        let grouped = losses(Algorithm::Grouped);
        let accelerated = losses(Algorithm::Accelerated);
        let target = grouped[100] + 1e-12 * grouped[100].abs();
        table.push((sweeps_to(&accelerated, target), case.name.clone()));
        // The last point is evaluated, and no worse than any on the way.
        let least = accelerated.iter().copied().fold(f64::INFINITY, f64::min);
        let last = accelerated[accelerated.len() - 1];
        assert!(last <= least + 1e-9 * least.abs(), "{}: {last} above {least}", case.name);
    }
    table.sort();
    let median = table[table.len() / 2].0;
    assert!(median <= 50, "{median} sweeps in the median: {table:?}");
}
