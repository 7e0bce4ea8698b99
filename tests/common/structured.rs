//! Fits whose factors are tied, smooth, bounded, penalised, or have rows that add up to 1, of every model and
//! loss; and what they lower, from the definition.

use crate::common::{Configuration, Entry, Random, data, largest_rise, mean_parts, mean_term};
use ndarray::{ArrayD, Axis, IxDyn};
use nneinfact::data::CooTensor;
use nneinfact::fit::{Balance, Smooth};
use nneinfact::loss::{Domain, Penalty};
use nneinfact::model::{Index, Shapes};
use nneinfact::reference::{Problem, predict};
use nneinfact::{Algorithm, Error, Fit, Loss, NNEinFact, Observations, Precision};

/// How neighbours of a smooth mode are given.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Line,
    Circle,
    /// Every index with the one after the next, weighted by where it is.
    Graph,
}

/// A fit that was drawn.
#[derive(Debug)]
pub struct Structured {
    shapes: Shapes,
    loss: Loss,
    turn: usize,
    algorithm: Algorithm,
    y: ArrayD<f64>,
    /// 0 where an entry is missing.
    weights: Option<ArrayD<f64>>,
    stored: bool,
    tie: Option<[usize; 2]>,
    /// The factor, the axis of the smooth mode, the weight.
    smooth: Option<(usize, usize, f64, Kind)>,
    /// The factor, and the letters that its rows go over.
    simplex: Option<(usize, String)>,
    penalty: Option<Penalty>,
    bounded: Option<usize>,
}

/// Two factors that are the same letter by letter, as far as letters are latent.
fn alike(shapes: &Shapes) -> Option<[usize; 2]> {
    let model = shapes.model();
    let factors = model.factors();
    let same = |l: usize, m: usize| {
        factors[l].len() == factors[m].len()
            && factors[l]
                .iter()
                .zip(&factors[m])
                .all(|(x, y)| x == y || (model.output().contains(x) && model.output().contains(y)))
    };
    let pairs = (0..factors.len()).flat_map(|m| (0..m).map(move |l| [l, m]));
    pairs.into_iter().find(|&[l, m]| same(l, m))
}

impl Structured {
    /// Every combination of kinds comes by as turns go on.
    pub fn drawn(turn: usize, entry: &Entry, loss: Loss) -> Structured {
        let mut random = Random::new(7000 + turn as u64);
        let modes = entry.modes();
        let most = if modes > 4 { 2 } else { 4 };
        let square = turn.is_multiple_of(2);
        let side = 2 + random.below(most);
        let shape: Vec<usize> =
            (0..modes).map(|_| if square { side } else { 2 + random.below(most) }).collect();
        let shapes = entry.shapes(&shape);
        let model = shapes.model().clone();
        let y = data(&mut random, &shapes, &loss);
        let weights = match turn % 3 {
            0 => None,
            1 => Some(random.mask(&shape, 0.75).mapv(|m| f64::from(u8::from(m)))),
            _ => Some(random.tensor(&shape, -0.4, 2.0).mapv(|w| w.max(0.0))),
        };
        let weights = weights.map(|mut weights| {
            *weights.first_mut().expect("an entry") = 1.0;
            weights
        });
        let count = model.factors().len();
        let observed = |l: usize| -> Vec<usize> {
            let own = &model.factors()[l];
            (0..own.len()).filter(|&axis| model.output().contains(&own[axis])).collect()
        };
        let smoothed = (0..count).map(|l| (l + turn) % count).find(|&l| !observed(l).is_empty());
        let kind = [Kind::Line, Kind::Circle, Kind::Graph][turn / 4 % 3];
        let smooth = smoothed.filter(|_| turn % 5 != 4).map(|l| {
            let axes = observed(l);
            (l, axes[turn % axes.len()], [0.02, 0.3, 2.0][turn % 3], kind)
        });
        let letters = |l: usize| -> String {
            let own: Vec<Index> = model.factors()[l].clone();
            let latent = own.iter().filter(|&x| !model.output().contains(x));
            let latent: String = latent.map(|&x| char::from(x)).collect();
            let first = model.factor_name(l)[..1].to_string();
            if latent.is_empty() || turn % 8 < 4 { first } else { latent }
        };
        let summed = turn / 3 % count;
        let simplex = (turn % 4 == 1 && count > 1).then(|| (summed, letters(summed)));
        let tie = alike(&shapes).filter(|_| square && turn % 6 != 4);
        let first = |l: usize| tie.filter(|tie| tie[1] == l).map_or(l, |tie| tie[0]);
        let bounded = Some(turn / 5 % count).filter(|l| {
            turn % 7 == 3 && simplex.as_ref().is_none_or(|(s, _)| first(*s) != first(*l))
        });
        let penalty = match turn % 5 {
            1 => Some(Penalty::l1(0.05)),
            2 => Some(Penalty::l2(0.1)),
            3 => Some(Penalty::new(0.05, 1.5)),
            _ => None,
        };
        let stored =
            weights.is_none() && turn % 2 == 1 && !matches!(loss.domain(), Domain::Positive);
        let algorithm =
            [Algorithm::Accelerated, Algorithm::Block, Algorithm::Grouped][turn / 2 % 3];
        Structured {
            shapes,
            loss,
            turn,
            algorithm,
            y,
            weights,
            stored,
            tie,
            smooth,
            simplex,
            penalty,
            bounded,
        }
    }

    fn name(l: usize) -> String {
        format!("theta_{}", l + 1)
    }

    /// Steps on the exact objective of half the squared distance know no floor of ŷ.
    fn floor(&self) -> f64 {
        if self.loss.is_half_squared_distance() { 1e-200 } else { 1e-6 }
    }

    fn observations(&self) -> Result<Observations, Error> {
        if self.stored {
            let mut indices = vec![Vec::new(); self.y.ndim()];
            let mut values = Vec::new();
            for (at, &y) in self.y.indexed_iter().filter(|(_, y)| **y != 0.0) {
                let at = ndarray::Dimension::slice(&at);
                indices.iter_mut().zip(at).for_each(|(to, &i)| to.push(i as u64));
                values.push(y);
            }
            return Ok(Observations::new(CooTensor::new(self.y.shape(), &indices, &values)?));
        }
        match &self.weights {
            None => Ok(Observations::new(&self.y)),
            Some(weights) if self.turn % 3 == 1 => {
                Observations::new(&self.y).mask(&weights.mapv(|w| w > 0.0))
            }
            Some(weights) => Observations::new(&self.y).weights(weights),
        }
    }

    fn settings(&self, configuration: &Configuration) -> Result<NNEinFact, Error> {
        let model = self.shapes.model();
        let ranks: Vec<(char, usize)> =
            model.latent().iter().map(|x| (char::from(x), self.shapes.size(x))).collect();
        let mut settings = NNEinFact::new(model.text())?
            .ranks(ranks)
            .loss(self.loss.clone())
            .algorithm(self.algorithm)
            .device(configuration.device.clone())
            .precision(configuration.precision)
            .balance([Balance::EverySweep, Balance::Never][self.turn % 2])
            .prediction_floor(self.floor())
            .seed(self.turn as u64)
            .inner_cycles(1 + self.turn % 3)
            .kkt_residual(true)
            .tolerance(0.0)
            .max_iter(9);
        if let Some([l, m]) = self.tie {
            settings = settings.tie([Self::name(l).as_str(), Self::name(m).as_str()]);
        }
        if let Some((l, axis, weight, kind)) = self.smooth {
            let letter = &model.factor_name(l)[axis..=axis];
            let size = self.shapes.factor(l)[axis];
            let smooth = match kind {
                Kind::Line => Smooth::line(weight),
                Kind::Circle => Smooth::circle(weight),
                Kind::Graph => Smooth::graph(weight, edges(size)),
            };
            settings = settings.smooth(&Self::name(l), smooth.along(letter));
        }
        if let Some((l, letters)) = &self.simplex {
            settings = settings.simplex(&Self::name(*l), Some(letters));
        }
        if let Some(penalty) = self.penalty {
            settings = settings.penalty_on_all(penalty);
        }
        if let Some(l) = self.bounded {
            settings = settings.bounds(&Self::name(l), 0.05, 2.5);
        }
        Ok(settings)
    }

    /// The penalties, from the definition, divided by what the loss is divided by.
    fn penalties(&self, factors: &[ArrayD<f64>]) -> f64 {
        let mut sum = 0.0;
        for (l, factor) in factors.iter().enumerate() {
            // What is tied counts once.
            if self.tie.is_none_or(|tie| tie[1] != l)
                && let Some(penalty) = self.penalty
            {
                sum += factor.iter().map(|&x| penalty.value(x)).sum::<f64>();
            }
        }
        if let Some((l, axis, weight, kind)) = self.smooth {
            let size = factors[l].shape()[axis];
            let apart = |i: usize, j: usize| -> f64 {
                let at = |i: usize| factors[l].index_axis(Axis(axis), i);
                (&at(i) - &at(j)).mapv(|x| x * x).sum()
            };
            let line: f64 = (1..size).map(|i| apart(i - 1, i)).sum();
            sum += weight
                * match kind {
                    Kind::Line => line,
                    Kind::Circle if size > 2 => line + apart(size - 1, 0),
                    Kind::Circle => line,
                    Kind::Graph => edges(size).into_iter().map(|(i, j, w)| w * apart(i, j)).sum(),
                };
        }
        sum / self.weights.as_ref().map_or(self.y.len() as f64, |w| w.sum())
    }

    fn problem(&self) -> Problem<'_> {
        Problem {
            shapes: &self.shapes,
            loss: &self.loss,
            y: &self.y,
            weights: self.weights.as_ref(),
            floor: self.floor(),
        }
    }

    /// Fits, and checks that what is lowered never rises, that it is what it is said to be, and that all that
    /// was asked for holds.
    pub fn check(&self, configuration: &Configuration) -> Result<(), Error> {
        let fit = self.settings(configuration)?.fit(self.observations()?)?;
        let history = fit.history();
        let objective = history.objective();
        let what = format!(
            "{}: {} {} turn {} {:?} {:?} {:?} {:?} {:?}: {objective:?}",
            configuration.name,
            self.shapes.model(),
            self.loss.name(),
            self.turn,
            self.algorithm,
            self.tie,
            self.smooth,
            self.simplex,
            self.bounded,
        );
        let rise = largest_rise(&objective, self.term(&fit, configuration.precision));
        assert!(rise <= configuration.rise, "{rise} {what}");
        assert!(objective[objective.len() - 1] < objective[0], "{what}");
        // Sums in closed form, over the zeros of lists and under masks, are not clamped at so high a floor as
        // the reference's.
        let masked = self.weights.is_some() && self.turn % 3 == 1;
        let closed = self.stored || masked && self.loss.denominator_constant().is_some();
        if !closed || self.loss.is_half_squared_distance() {
            let expected = self.problem().loss(fit.factors());
            let scale = self.term(&fit, configuration.precision).max(1e-3);
            let apart = (history.last_loss() - expected).abs() / scale;
            assert!(apart <= 2.0 * configuration.tolerance, "{apart} {expected} {what}");
        }
        if self.penalty.is_some() || self.smooth.is_some() {
            let expected = self.penalties(fit.factors());
            // A graph without edges adds nothing.
            let found = history.penalty.get(history.returned).copied().unwrap_or(0.0);
            let apart = (found - expected).abs() / expected.max(1e-3);
            assert!(apart <= 1e-6, "{found} {expected} {what}");
        }
        assert!(history.kkt_residual.is_some_and(f64::is_finite), "{what}");
        self.holds(&fit, &what);
        Ok(())
    }

    fn holds(&self, fit: &Fit, what: &str) {
        let factors = fit.factors();
        if let Some([l, m]) = self.tie {
            assert_eq!(factors[l], factors[m], "{what}");
        }
        if let Some((l, letters)) = &self.simplex {
            let mut sums = factors[*l].clone();
            let name = self.shapes.model().factor_name(*l);
            let axes = (0..name.len()).rev().filter(|&axis| letters.contains(&name[axis..=axis]));
            axes.for_each(|axis| sums = sums.sum_axis(Axis(axis)));
            assert!(sums.iter().all(|x| (x - 1.0).abs() < 1e-9), "{sums} {what}");
        }
        if let Some(l) = self.bounded {
            let within = |x: &f64| (0.05 - 1e-12..=2.5 + 1e-12).contains(x);
            assert!(factors[l].iter().all(within), "{what}");
        }
        assert!(factors.iter().flatten().all(|x| x.is_finite() && *x >= 0.0), "{what}");
    }

    /// The mean |term| of the loss, but not less than what the precision makes out.
    fn term(&self, fit: &Fit, precision: Precision) -> f64 {
        let predicted: ArrayD<f64> = predict(&self.shapes, fit.factors());
        debug_assert_eq!(predicted.raw_dim(), IxDyn(self.y.shape()));
        let weights = self.weights.as_ref();
        let term = mean_term(&self.loss, &self.y, weights, &predicted, self.floor());
        let parts = mean_parts(&self.loss, &self.y, weights, &predicted, self.floor());
        match precision {
            // Where a model holds the data, the loss is what rounding leaves of parts that cancel.
            Precision::F64 => term.max(16.0 * f64::EPSILON / 1e-9 * parts),
            Precision::F32 => term.max(16.0 * f64::from(f32::EPSILON) / 2e-4 * parts),
        }
    }
}

fn edges(size: usize) -> Vec<(usize, usize, f64)> {
    (0..size).map(|i| (i, (i + 2) % size, 0.5 + i as f64)).filter(|(i, j, _)| i != j).collect()
}
