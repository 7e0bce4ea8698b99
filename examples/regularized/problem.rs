//! Random problems as in the literature on regularised scale-invariant models: nonnegative factors,
//! noise of a given level, data brought to ‖Y‖ = 1.

use ndarray::{ArrayD, IxDyn};
use nneinfact::model::{Model, Shapes};
use nneinfact::reference::predict;

/// Random numbers that are the same on every run and machine (SplitMix64, Steele et al. 2014).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x2545_f491_4f6c_dd1d)
    }

    /// Uniform in (0, 1).
    pub fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (((z ^ (z >> 31)) >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    /// Normal with mean 0 and variance 1 (Box & Muller 1958).
    pub fn normal(&mut self) -> f64 {
        let (u, v) = (self.uniform(), self.uniform());
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }

    /// A tensor of uniform entries, a share of which is 0.
    pub fn tensor(&mut self, shape: &[usize], zeros: f64) -> ArrayD<f64> {
        ArrayD::from_shape_simple_fn(IxDyn(shape), || {
            let x = self.uniform();
            if self.uniform() < zeros { 0.0 } else { x }
        })
    }

    /// Uniform factors for a model, to start from.
    pub fn factors(&mut self, shapes: &Shapes) -> Vec<ArrayD<f64>> {
        let count = shapes.model().factors().len();
        (0..count).map(|l| self.tensor(&shapes.factor(l), 0.0)).collect()
    }
}

/// The sizes of a model for data of this shape.
pub fn shapes(model: &str, data: &[usize], ranks: &[(char, usize)]) -> Shapes {
    let model = Model::parse(model).expect("the model is written here");
    Shapes::new(&model, data, ranks).expect("so are its sizes")
}

/// Data of a model: what the factors predict, with noise of this signal-to-noise ratio in decibels,
/// no entry below 0, and ‖Y‖ = 1.
pub fn data(
    shapes: &Shapes,
    factors: &[ArrayD<f64>],
    decibels: f64,
    random: &mut Random,
) -> ArrayD<f64> {
    let clean = predict(shapes, factors);
    let noise = ArrayD::from_shape_simple_fn(clean.raw_dim(), || random.normal());
    let norm = |y: &ArrayD<f64>| y.iter().map(|x| x * x).sum::<f64>().sqrt();
    let level = norm(&clean) / norm(&noise) * 10f64.powf(-decibels / 20.0);
    let y = (clean + noise * level).mapv(|x| x.max(0.0));
    let size = norm(&y);
    y / size
}
