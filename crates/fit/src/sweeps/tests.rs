//! Fits whose engine makes sweeps by itself are to the bit those whose engine asks the host every time.

use std::time::Instant;

use ndarray::{Array2, ArrayD};

use super::sweeps;
use crate::device::Device;
use crate::monitor::Monitor;
use crate::observe::{Cancel, Flow, Hooks, Sweep};
use crate::prepare::{self, Opened};
use crate::settings::{Algorithm, Settings};
use nneinfact_core::data::Observations;
use nneinfact_core::engine::{
    Engine, EngineState, Extrapolation, LossSlot, LossSums, PassTime, Point, SweepEnd,
};
use nneinfact_core::error::Result;
use nneinfact_core::history::{History, StoppedBy};
use nneinfact_core::model::Model;

/// An engine that makes up to `most` sweeps by itself, as a host would. Where an extrapolation is not
/// better by more than a share of the objective, it stops.
struct ByItself {
    inner: Box<dyn Engine>,
    groups: usize,
    most: usize,
    unsure: f64,
    begun: Option<EngineState>,
    ends: Vec<SweepEnd>,
    /// Sweeps that were made by itself, and how often it went back.
    made: usize,
    repeats: usize,
}

impl ByItself {
    fn make(&mut self, end: SweepEnd) -> Result<[LossSums; LossSlot::COUNT]> {
        self.inner.update(0)?;
        for group in 1..self.groups {
            self.inner.pass(group)?;
            self.inner.update(group)?;
        }
        match end {
            SweepEnd::Plain => {}
            SweepEnd::Anchor => self.inner.copy(Point::Current, Point::Anchor)?,
            SweepEnd::Extrapolate(by) => self.inner.extrapolate(by)?,
        }
        self.inner.pass(0)?;
        self.inner.sums()
    }
}

impl Engine for ByItself {
    fn pass(&mut self, group: usize) -> Result<()> {
        self.inner.pass(group)
    }

    fn update(&mut self, group: usize) -> Result<()> {
        self.inner.update(group)
    }

    fn evaluate(&mut self) -> Result<()> {
        self.inner.evaluate()
    }

    fn sums(&mut self) -> Result<[LossSums; LossSlot::COUNT]> {
        self.inner.sums()
    }

    fn time(&mut self, group: usize, repeats: usize) -> Result<PassTime> {
        self.inner.time(group, repeats)
    }

    fn balance(&mut self) -> Result<()> {
        self.inner.balance()
    }

    fn scale_terms(&mut self) -> Result<[f64; 2]> {
        self.inner.scale_terms()
    }

    fn parts(&mut self, at: usize, lambda: &[Vec<f64>]) -> Result<(Vec<f64>, Vec<f64>)> {
        self.inner.parts(at, lambda)
    }

    fn load(&mut self, factors: &[ArrayD<f64>]) -> Result<()> {
        self.inner.load(factors)
    }

    fn factors(&self) -> Result<Vec<ArrayD<f64>>> {
        self.inner.factors()
    }

    fn extrapolate(&mut self, by: Extrapolation) -> Result<()> {
        self.inner.extrapolate(by)
    }

    fn copy(&mut self, from: Point, to: Point) -> Result<()> {
        self.inner.copy(from, to)
    }

    fn state(&self) -> Result<EngineState> {
        self.inner.state()
    }

    fn restore(&mut self, state: &EngineState) -> Result<()> {
        self.inner.restore(state)
    }

    fn sweeps(&mut self, ends: &[SweepEnd]) -> Result<Vec<[LossSums; LossSlot::COUNT]>> {
        self.begun = Some(self.inner.state()?);
        self.ends = ends[..ends.len().min(self.most)].to_vec();
        let mut found = Vec::new();
        for end in self.ends.clone() {
            let losses = self.make(end)?;
            self.made += 1;
            found.push(losses);
            let [sums, middle] = losses.map(LossSums::objective);
            let clear = sums < middle - self.unsure * middle.abs();
            if matches!(end, SweepEnd::Extrapolate(_)) && !clear {
                break;
            }
        }
        Ok(found)
    }

    fn repeat_sweeps(&mut self, count: usize) -> Result<()> {
        self.repeats += 1;
        // The snapshot is not among what is gone back to.
        let state = self.begun.clone().unwrap();
        let snapshot = self.inner.state()?.snapshot;
        self.inner.restore(&EngineState { snapshot, ..state })?;
        self.inner.pass(0)?;
        for end in self.ends.clone().into_iter().take(count) {
            self.make(end)?;
        }
        Ok(())
    }
}

fn data() -> Array2<f64> {
    let f = |i: usize, s: f64| 1.2 + (i as f64 * s).sin();
    Array2::from_shape_fn((23, 19), |(i, j)| {
        let noise = ((i * 31 + j * 17) as f64 * 1.7).sin().abs();
        (4.0 * (f(i, 0.7) * f(j, 1.1) + f(i, 2.1) * f(j, 0.3)) + 3.0 * noise).floor()
    })
}

/// A fit whose engine makes so many sweeps by itself, if any: history, factors, and what the engine did.
fn run(
    settings: &Settings,
    data: &Observations,
    by_itself: Option<(usize, f64)>,
    stop_at: Option<usize>,
) -> (History, Vec<ArrayD<f64>>, [usize; 2]) {
    let early_stopping = settings.early_stopping;
    let ranks = vec![('r', 4)];
    let model = settings.model.clone();
    let mut settings = Settings { ranks, early_stopping, ..settings.alike(model) };
    let device = Device::cpu();
    let opened = prepare::open(&mut settings, &Cancel::new(), None, data.into(), &device).unwrap();
    let Opened { mut engine, groups, facts, balance, penalized, seed, .. } = opened;
    let groups = groups.len();
    let mut history = History { seed, ..settings.empty_history() };
    let mut hooks = Hooks::default();
    hooks.observers.push(Box::new(move |sweep: &Sweep| {
        if Some(sweep.iteration) == stop_at { Flow::Stop } else { Flow::Continue }
    }));
    let started = Instant::now();
    let mut monitor =
        Monitor::new(&settings, &mut hooks, facts.portions, started, balance, penalized);
    let Some((most, unsure)) = by_itself else {
        sweeps(engine.as_mut(), groups, &mut monitor, &mut history, &mut None, None).unwrap();
        return (history, engine.factors().unwrap(), [0; 2]);
    };
    let mut engine = ByItself {
        inner: engine,
        groups,
        most,
        unsure,
        begun: None,
        ends: Vec::new(),
        made: 0,
        repeats: 0,
    };
    sweeps(&mut engine, groups, &mut monitor, &mut history, &mut None, None).unwrap();
    (history, engine.factors().unwrap(), [engine.made, engine.repeats])
}

/// Compares fits for engines that go far and not so far, and that stop always, often and hardly;
/// returns how the fit ended, and how often the engines went back.
fn check(settings: &Settings, data: &Observations, stop_at: Option<usize>) -> (StoppedBy, usize) {
    let (expected, factors, _) = run(settings, data, None, stop_at);
    let mut repeats = 0;
    for (most, unsure) in [(1, 0.0), (7, 0.0), (1000, 0.0), (7, 1e-3), (50, 10.0)] {
        let (found, own, [made, back]) = run(settings, data, Some((most, unsure)), stop_at);
        let what = format!("{most} sweeps, unsure below {unsure}");
        assert!(made > 0, "{what}");
        assert_eq!(found.loss, expected.loss, "{what}");
        assert_eq!(found.validation_loss, expected.validation_loss, "{what}");
        assert_eq!(found.sweeps, expected.sweeps, "{what}");
        assert_eq!(found.iterations, expected.iterations, "{what}");
        assert_eq!(found.stopped_by, expected.stopped_by, "{what}");
        assert_eq!(found.returned, expected.returned, "{what}");
        assert_eq!(own, factors, "{what}");
        repeats += back;
    }
    (expected.stopped_by, repeats)
}

fn settings(algorithm: Algorithm) -> Settings {
    let mut settings = Settings::new(Model::parse("ir,jr->ij").unwrap());
    settings.algorithm = algorithm;
    settings.max_iter = 150;
    settings
}

#[test]
fn every_ending_is_that_of_the_host() {
    let y = data();
    let plain = Observations::new(&y);
    for algorithm in [Algorithm::Accelerated, Algorithm::Grouped, Algorithm::Block] {
        let all = Settings { tolerance: 0.0, ..settings(algorithm) };
        assert_eq!(check(&all, &plain, None).0, StoppedBy::MaxIter);
        let loose = Settings { tolerance: 3e-4, ..settings(algorithm) };
        let (stopped, repeats) = check(&loose, &plain, None);
        assert_eq!(stopped, StoppedBy::Tolerance);
        // In the middle of the sweeps of an engine that went on.
        assert!(repeats > 0);
        let (stopped, repeats) = check(&all, &plain, Some(33));
        assert_eq!(stopped, StoppedBy::Observer);
        assert!(repeats > 0);
    }
}

#[test]
fn the_best_validation_loss_is_returned() {
    let y = data();
    let split = Observations::new(&y).validation(0.3, 7).unwrap();
    let mut early =
        Settings { tolerance: 0.0, early_stopping: true, ..settings(Algorithm::Accelerated) };
    let (stopped, repeats) = check(&early, &split, None);
    assert_eq!(stopped, StoppedBy::Validation);
    assert!(repeats > 0);
    early.max_iter = 9;
    check(&early, &split, None);
}
