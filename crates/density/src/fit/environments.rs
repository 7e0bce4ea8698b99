//! All contractions of a model with itself and with a target. NTT.md, sections 4.2 and 6.

use crate::algebra::{contract_left, contract_right};
use crate::core::Core;
use crate::linalg::{self, product_nn, product_nt, scale2, scale2_all};

/// Contractions with fewer multiplications than this are not worth a second thread.
const PARALLEL_FROM: usize = 1 << 14;

/// A matrix with a power of two of its own: products over hundreds of cores neither overflow nor
/// underflow, and as powers of two are exact, no result changes.
#[derive(Clone, Debug)]
struct Scaled {
    data: Vec<f64>,
    exponent: i64,
}

impl Scaled {
    fn one() -> Scaled {
        Scaled { data: vec![1.0], exponent: 0 }
    }

    /// The next matrix, whose own power of two is taken out.
    fn next(&self, mut data: Vec<f64>) -> Scaled {
        let exponent = self.exponent + i64::from(linalg::take_exponent(&mut data));
        Scaled { data, exponent }
    }
}

/// What the objective is at one core, all others held: for every slice i the gradient of ½‖·‖² is
/// `A H_i B − N_i` and the Hessian `A ⊗ B`.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// Left rank of the core.
    pub left: usize,
    /// Right rank of the core.
    pub right: usize,
    /// The Gram matrix of the left side.
    pub a: Vec<f64>,
    /// The Gram matrix of the right side.
    pub b: Vec<f64>,
    /// The target contracted with both sides, in the order of the core.
    pub n: Vec<f64>,
}

impl Node {
    /// `A H_i B` for all slices, in the order of the core.
    pub fn gram_times(&self, h: &Core) -> Vec<f64> {
        let [a, n, b] = h.shape();
        let t = product_nn(&self.a, h.data(), [a, a, n * b]);
        product_nn(&t, &self.b, [a * n, b, b])
    }
}

/// Contractions of cores left of a bond (`l`, `x`) and right of it (`r`, `y`), of the model with
/// itself (`l`, `r`) and with the target (`x`, `y`). Entry k is for the bond left of core k.
pub(crate) struct Environments<'a> {
    target: &'a [Core],
    l: Vec<Scaled>,
    x: Vec<Scaled>,
    r: Vec<Scaled>,
    y: Vec<Scaled>,
}

impl<'a> Environments<'a> {
    pub fn new(target: &'a [Core], model: &[Core]) -> Environments<'a> {
        let d = target.len();
        let ones = || vec![Scaled::one(); d + 1];
        let mut out = Environments { target, l: ones(), x: ones(), r: ones(), y: ones() };
        out.rebuild(model);
        out
    }

    /// The cores of the target.
    pub fn target(&self) -> &'a [Core] {
        self.target
    }

    /// Contracts everything right of the first core anew.
    pub fn rebuild(&mut self, model: &[Core]) {
        (1..model.len()).rev().for_each(|k| self.pull(k, &model[k]));
    }

    /// After core k changed, on the way right.
    pub fn push(&mut self, k: usize, h: &Core) {
        let (l, x) = both(
            self.work(k, h),
            || self.l[k].next(contract_left(&self.l[k].data, h, h)),
            || self.x[k].next(contract_left(&self.x[k].data, h, &self.target[k])),
        );
        (self.l[k + 1], self.x[k + 1]) = (l, x);
    }

    /// After core k changed, on the way left.
    pub fn pull(&mut self, k: usize, h: &Core) {
        let (r, y) = both(
            self.work(k, h),
            || self.r[k + 1].next(contract_right(&self.r[k + 1].data, h, h)),
            || self.y[k + 1].next(contract_right(&self.y[k + 1].data, h, &self.target[k])),
        );
        (self.r[k], self.y[k]) = (r, y);
    }

    /// About how many multiplications the smaller of the two contractions at core k takes.
    fn work(&self, k: usize, h: &Core) -> usize {
        h.data().len().min(self.target[k].data().len()) * h.left().min(h.right())
    }

    /// The objective at core k. Powers of two go into A and N.
    pub fn node(&self, k: usize, h: &Core) -> Node {
        let (left, right) = (h.left(), h.right());
        let a =
            symmetric(&self.l[k].data, left, clamp(self.l[k].exponent + self.r[k + 1].exponent));
        let b = symmetric(&self.r[k + 1].data, right, 0);
        let g = &self.target[k];
        let [c, n, e] = g.shape();
        let t = product_nn(&self.x[k].data, g.data(), [left, c, n * e]);
        let mut numerator = product_nt(&t, &self.y[k + 1].data, [left * n, e, right]);
        scale2_all(&mut numerator, clamp(self.x[k].exponent + self.y[k + 1].exponent));
        Node { left, right, a, b, n: numerator }
    }

    /// `‖model − target‖²` at core k, given `‖target‖²`. Below about 1e-15 of that it is rounding.
    pub fn squared_distance(&self, k: usize, h: &Core, target: f64) -> f64 {
        let node = self.node(k, h);
        let d = node.gram_times(h);
        let dot = |x: &[f64]| h.data().iter().zip(x).map(|(h, x)| h * x).sum::<f64>();
        dot(&d) - 2.0 * dot(&node.n) + target
    }
}

/// Two results, on two threads if that is worth it.
fn both<A: Send, B: Send>(
    work: usize,
    a: impl FnOnce() -> A + Send,
    b: impl FnOnce() -> B + Send,
) -> (A, B) {
    if work < PARALLEL_FROM { (a(), b()) } else { rayon::join(a, b) }
}

/// Exponents beyond what double precision has are all alike.
fn clamp(e: i64) -> i32 {
    e.clamp(-5000, 5000) as i32
}

/// (m + mᵀ)/2 times 2^e.
fn symmetric(m: &[f64], size: usize, e: i32) -> Vec<f64> {
    let mut out = Vec::with_capacity(m.len());
    for i in 0..size {
        out.extend((0..size).map(|j| scale2((m[i * size + j] + m[j * size + i]) / 2.0, e)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nonnegative::NonnegativeTrain;

    /// ½‖model − target‖² by forming both.
    fn loss(model: &[Core], target: &[Core]) -> f64 {
        let dense = |cores: &[Core]| {
            crate::train::TensorTrain { cores: cores.to_vec(), log_scale: 0.0 }.to_dense().unwrap()
        };
        let (h, g) = (dense(model), dense(target));
        0.5 * h.iter().zip(&g).map(|(h, g)| (h - g).powi(2)).sum::<f64>()
    }

    /// Two trains of the same sizes; the target gets negative entries.
    fn pair() -> (Vec<Core>, Vec<Core>) {
        let sizes = [3, 2, 4, 3];
        let model = NonnegativeTrain::random(&sizes, &[2, 4, 3], 1).unwrap();
        let mut target = NonnegativeTrain::random(&sizes, &[3, 2, 2], 2).unwrap().into_train();
        target.cores[1].data_mut().iter_mut().for_each(|x| *x -= 0.6);
        (model.into_train().cores, target.cores)
    }

    /// Environments with all cores left of k contracted too.
    fn at<'a>(k: usize, model: &[Core], target: &'a [Core]) -> Environments<'a> {
        let mut env = Environments::new(target, model);
        (0..k).for_each(|j| env.push(j, &model[j]));
        env
    }

    #[test]
    fn gradients_are_those_of_central_differences() {
        let (model, target) = pair();
        for k in 0..model.len() {
            let node = at(k, &model, &target).node(k, &model[k]);
            let d = node.gram_times(&model[k]);
            for (e, d) in d.iter().enumerate() {
                let step = 1e-5;
                let moved = |by: f64| {
                    let mut model = model.clone();
                    model[k].data_mut()[e] += by;
                    loss(&model, &target)
                };
                // The loss is quadratic in one core, so the difference is exact but for rounding.
                let want = (moved(step) - moved(-step)) / (2.0 * step);
                let got = d - node.n[e];
                assert!((got - want).abs() < 1e-7 * (1.0 + want.abs()), "{k} {e}: {got} {want}");
            }
        }
    }

    #[test]
    fn hessians_are_those_of_second_differences() {
        let (model, target) = pair();
        for k in 0..model.len() {
            let node = at(k, &model, &target).node(k, &model[k]);
            let (r, n) = (model[k].right(), model[k].data().len());
            for e in 0..n {
                for f in 0..n {
                    let moved = |x: f64, y: f64| {
                        let mut model = model.clone();
                        model[k].data_mut()[e] += x;
                        model[k].data_mut()[f] += y;
                        loss(&model, &target)
                    };
                    let got = (moved(1.0, 1.0) - moved(1.0, -1.0) - moved(-1.0, 1.0)
                        + moved(-1.0, -1.0))
                        / 4.0;
                    let ([a, i, b], [c, j, g]) = (model[k].index_of(e), model[k].index_of(f));
                    let left = node.left;
                    let block = node.a[a * left + c] * node.b[b * r + g];
                    let want = if i == j { block } else { 0.0 };
                    assert!((got - want).abs() < 1e-10 * loss(&model, &target), "{k} {e} {f}");
                }
            }
        }
    }

    #[test]
    fn the_distance_is_the_same_at_every_core() {
        let (model, target) = pair();
        let gg = 2.0 * loss(&zero(&model), &target);
        let want = 2.0 * loss(&model, &target);
        for k in 0..model.len() {
            let got = at(k, &model, &target).squared_distance(k, &model[k], gg);
            assert!((got / want - 1.0).abs() < 1e-12, "{k}");
        }
    }

    fn zero(model: &[Core]) -> Vec<Core> {
        let mut out = model.to_vec();
        out[0].data_mut().iter_mut().for_each(|x| *x = 0.0);
        out
    }
}
