//! Barrier Newton steps on data.

use super::contract::Labelled;
use super::entries::Entries;
use super::environments::FactorEnvironments;
use super::fit::{NetworkFit, check_positive};
use super::node::{FactorNode, Goal, Update, step};
use super::{Dense, Network};
use crate::error::{Error, Result};
use crate::fit::schedule::Barriers;
use crate::fit::settings::Method;

/// Newton steps with a barrier on the factors of a model of data, sweep by sweep: minimises
/// `½ Σ w (ŷ − y)²`. The tensors of values and weights are there as a whole, or as a list of entries; ŷ is
/// not formed.
///
/// ```
/// use nneinfact_density::{DataNewton, Dense, Network};
///
/// let y = Dense::new(vec![2, 2], vec![1.0, 2.0, 2.0, 4.0])?;
/// let start = |x| Dense::new(vec![2, 1], vec![1.0, x]);
/// let model = Network::new("ia,ja->ij", vec![start(0.5)?, start(1.5)?])?;
/// let mut newton = DataNewton::new(model, y, None)?;
/// for _ in 0..30 {
///     newton.sweep()?;
/// }
/// let entry = newton.model().tensors()[0].data()[1] * newton.model().tensors()[1].data()[1];
/// assert!((entry - 4.0).abs() < 1e-6);
/// # Ok::<(), nneinfact_density::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct DataNewton {
    model: Network,
    data: Data,
    squared_norm: f64,
    barriers: Barriers,
    sweeps: usize,
}

/// What is fitted to.
#[derive(Clone, Debug)]
enum Data {
    Tensor {
        /// Weights times values.
        weighted: Network,
        weights: Option<Labelled>,
    },
    Entries(Entries),
    /// Whoever has the data tells of them factor by factor.
    Elsewhere,
}

impl DataNewton {
    /// A fit from a start to values, with weights where not all are 1; both in the order of the model's
    /// output.
    ///
    /// # Errors
    ///
    /// If shapes differ, a weight is negative, an entry of the start is not positive, or all values are 0
    /// or without weight.
    pub fn new(model: Network, values: Dense, weights: Option<Dense>) -> Result<DataNewton> {
        check_positive(&model, Method::Newton)?;
        let letters = model.output.clone();
        let mut data = values.data;
        let mut squared_norm: f64 = data.iter().map(|y| y * y).sum();
        if let Some(weights) = &weights {
            if weights.shape != values.shape {
                return Err(Error::Shape {
                    what: "the weights".into(),
                    found: format!("{:?}", weights.shape),
                    expected: format!("that of the values, {:?}", values.shape),
                });
            }
            if let Some(at) = weights.data.iter().position(|&w| w < 0.0) {
                return Err(Error::Observations(format!(
                    "a weight is {}; weights have to be 0 or positive",
                    weights.data[at]
                )));
            }
            let sides = data.iter().zip(&weights.data);
            squared_norm = sides.map(|(y, w)| w * y * y).sum();
            data.iter_mut().zip(&weights.data).for_each(|(y, w)| *y *= w);
        }
        let weighted = Network {
            factors: vec![letters.clone()],
            output: letters.clone(),
            tensors: vec![Dense { shape: values.shape.clone(), data }],
        };
        model.check_same_output(&weighted)?;
        let weights = weights.map(|w| Labelled { letters, shape: w.shape, data: w.data });
        DataNewton::started(model, Data::Tensor { weighted, weights }, squared_norm)
    }

    /// A fit from a start to a list of entries. Takes the memory of the list, and that of a matrix of
    /// latent values for each row of a factor, or only for each value of an index that several factors
    /// share where all entries of the tensor count 1.
    ///
    /// # Errors
    ///
    /// If shapes differ, an entry of the start is not positive, or all values are 0 or without weight.
    pub fn of_entries(model: Network, entries: Entries) -> Result<DataNewton> {
        check_positive(&model, Method::Newton)?;
        let found: Vec<usize> = model.output.iter().filter_map(|&c| model.size_of(c)).collect();
        if found != entries.shape() {
            return Err(Error::Shape {
                what: "the entries".into(),
                found: format!("{:?}", entries.shape()),
                expected: format!("that of the model's output, {found:?}"),
            });
        }
        let squared_norm = entries.squared_norm();
        DataNewton::started(model, Data::Entries(entries), squared_norm)
    }

    /// A fit from a start to data that are elsewhere, `Σ w y²` of which is given: each [`step`](Self::step)
    /// is told what they say of its factor.
    ///
    /// ```
    /// use nneinfact_density::{DataNewton, Dense, Network};
    ///
    /// // The matrix [[1, 2], [2, 4]] and ŷ = x z.
    /// let (rows, start) = ([[1.0, 2.0], [2.0, 4.0]], |x| Dense::new(vec![2, 1], vec![1.0, x]));
    /// let model = Network::new("ia,ja->ij", vec![start(0.5)?, start(1.5)?])?;
    /// let mut newton = DataNewton::of_sums(model, 25.0)?;
    /// for _ in 0..30 {
    ///     for l in 0..2 {
    ///         let other = newton.model().tensors()[1 - l].data();
    ///         let numerator = rows.map(|row| row[0] * other[0] + row[1] * other[1]);
    ///         let gram = other[0] * other[0] + other[1] * other[1];
    ///         newton.step(l, numerator.to_vec(), vec![gram; 2])?;
    ///     }
    ///     newton.lower_barrier();
    /// }
    /// let [x, z] = [0, 1].map(|l| newton.model().tensors()[l].data()[1]);
    /// assert!((x * z - 4.0).abs() < 1e-6);
    /// # Ok::<(), nneinfact_density::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn of_sums(model: Network, squared_norm: f64) -> Result<DataNewton> {
        check_positive(&model, Method::Newton)?;
        DataNewton::started(model, Data::Elsewhere, squared_norm)
    }

    /// One step on factor `l`, given `Σ w y E` for each of its entries, E being the product of the other
    /// factors, in the factor's order; and `Σ w E Eᵀ` for each of its rows: over its observed letters, its
    /// latent ones and its latent ones again, each in the factor's order. Gives `½ Σ w (ŷ − y)²`.
    ///
    /// # Errors
    ///
    /// If there are not as many numbers as that, or values stop being finite.
    pub fn step(&mut self, l: usize, numerator: Vec<f64>, gram: Vec<f64>) -> Result<f64> {
        if l >= self.model.tensors.len() {
            return Err(Error::Setting(format!(
                "there is no factor {l}: the model has {}, counted from 0",
                self.model.tensors.len()
            )));
        }
        let node = FactorNode::of_sums(&self.model, l, numerator, gram)?;
        let update = Update::Newton(self.barriers.mu[l]);
        Ok(step(&mut self.model, &node, l, update)? + 0.5 * self.squared_norm)
    }

    /// What follows a step on each factor: the barrier is lowered.
    pub fn lower_barrier(&mut self) {
        self.barriers.after(self.sweeps, 0.0);
        self.sweeps += 1;
    }

    fn started(model: Network, data: Data, squared_norm: f64) -> Result<DataNewton> {
        if !(squared_norm > 0.0 && squared_norm.is_finite()) {
            return Err(Error::Numeric(
                "the squares of the data add up to 0, or beyond double precision".into(),
            ));
        }
        let sizes: Vec<usize> = model.tensors.iter().map(|t| t.data.len()).collect();
        let NetworkFit { schedule, barrier, barrier_min, decay, .. } = NetworkFit::new();
        let barriers =
            Barriers::steady(schedule, barrier, barrier_min, decay, &sizes, squared_norm);
        Ok(DataNewton { model, data, squared_norm, barriers, sweeps: 0 })
    }

    /// One step on each factor, and a lower barrier after them. Gives `½ Σ w (ŷ − y)²`.
    ///
    /// # Errors
    ///
    /// If values stop being finite, or a contraction would take too much memory; if the data are
    /// [elsewhere](Self::of_sums).
    pub fn sweep(&mut self) -> Result<f64> {
        let goal = match &self.data {
            Data::Tensor { weighted, weights } => {
                Goal::Network { target: weighted, weights: weights.as_ref() }
            }
            Data::Entries(entries) => Goal::Entries(entries),
            Data::Elsewhere => {
                return Err(Error::Unsupported(
                    "the data are elsewhere: steps are made one by one, with what is said of them"
                        .into(),
                ));
            }
        };
        let mut now = 0.0;
        let mut environments = FactorEnvironments::new(&self.model, goal)?;
        for l in 0..self.model.tensors.len() {
            let update = Update::Newton(self.barriers.mu[l]);
            let node = environments.node(&self.model)?;
            now = step(&mut self.model, &node, l, update)? + 0.5 * self.squared_norm;
            environments.advance(&self.model)?;
        }
        self.lower_barrier();
        Ok(now)
    }

    /// The model as it is.
    #[must_use]
    pub fn model(&self) -> &Network {
        &self.model
    }

    /// `Σ_l μ_l N_l` over the squares of the data: what the barrier costs at most, about.
    #[must_use]
    pub fn barrier_share(&self) -> f64 {
        self.barriers.largest_share() * self.model.tensors.len() as f64 / self.squared_norm
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dense(shape: &[usize], s: f64) -> Dense {
        let n: usize = shape.iter().product();
        let data = (0..n).map(|i| 0.2 + (i as f64 * s).sin().powi(2)).collect();
        Dense::new(shape.to_vec(), data).unwrap()
    }

    fn model(text: &str, shapes: &[&[usize]]) -> Network {
        let tensors =
            shapes.iter().enumerate().map(|(l, shape)| dense(shape, 0.3 + 0.37 * l as f64));
        Network::new(text, tensors.collect()).unwrap()
    }

    /// Models with own, shared, latent and lone letters, a core, and an output in another order.
    fn models() -> Vec<Network> {
        vec![
            model("ia,ja,ka->ijk", &[&[3, 2], &[4, 2], &[2, 2]]),
            model("ia,jb,kc,abc->ijk", &[&[3, 2], &[4, 3], &[2, 2], &[2, 3, 2]]),
            model("ija,jka->ijk", &[&[3, 4, 2], &[4, 2, 2]]),
            model("ia,jab,k->ijk", &[&[3, 2], &[4, 2, 3], &[2]]),
            model("ka,ija->ijk", &[&[2, 3], &[3, 4, 3]]),
            model("ijka->ijk", &[&[3, 4, 2, 2]]),
        ]
    }

    /// Every third entry of the tensor, with values.
    fn list() -> (Vec<Vec<usize>>, Vec<f64>) {
        let (mut indices, mut values) = (vec![Vec::new(); 3], Vec::new());
        for e in (0..24).step_by(3) {
            let tuple = [e / 8, e / 2 % 4, e % 2];
            indices.iter_mut().zip(tuple).for_each(|(list, i)| list.push(i));
            values.push(1.0 + (e as f64).cos());
        }
        (indices, values)
    }

    /// A list with zeros, with masked entries, and one without zeros, against the same as tensors.
    #[test]
    fn lists_are_fitted_as_tensors_are() {
        let (indices, values) = list();
        let at = |e: usize| (indices[0][e] * 4 + indices[1][e]) * 2 + indices[2][e];
        let mut y = vec![0.0; 24];
        values.iter().enumerate().for_each(|(e, &x)| y[at(e)] = x);
        let weights: Vec<f64> = (0..values.len()).map(|e| [1.0, 0.0, 2.5][e % 3]).collect();
        for zeros in [true, false] {
            for weighted in [false, true] {
                let mut w = vec![if zeros { 1.0 } else { 0.0 }; 24];
                for (e, &weight) in weights.iter().enumerate() {
                    w[at(e)] = if weighted { weight } else { 1.0 };
                }
                let mut entries =
                    Entries::new(&[3, 4, 2], indices.clone(), values.clone()).unwrap();
                if zeros {
                    entries = entries.rest_of_zeros();
                }
                if weighted {
                    entries = entries.weights(weights.clone()).unwrap();
                }
                let whole = |data: &[f64]| Dense::new(vec![3, 4, 2], data.to_vec()).unwrap();
                for model in models() {
                    let mut one = DataNewton::of_entries(model.clone(), entries.clone()).unwrap();
                    let mut other = DataNewton::new(model, whole(&y), Some(whole(&w))).unwrap();
                    for sweep in 0..6 {
                        let (a, b) = (one.sweep().unwrap(), other.sweep().unwrap());
                        assert!(
                            (a - b).abs() < 1e-9 * (1.0 + b),
                            "{zeros} {weighted} {sweep}: {a} {b}"
                        );
                    }
                    for (a, b) in one.model().tensors().iter().zip(other.model().tensors()) {
                        let top = b.data.iter().fold(0.0, |m: f64, x| m.max(*x));
                        assert!(
                            a.data.iter().zip(&b.data).all(|(a, b)| (a - b).abs() < 1e-6 * top)
                        );
                    }
                }
            }
        }
    }

    /// A tensor that nobody could hold: 10^12 cells.
    #[test]
    fn vast_tensors_take_the_memory_of_their_list() {
        let n = 10_000;
        let model = model("ia,ja,ka->ijk", &[&[n, 2], &[n, 2], &[n, 2]]);
        let list: Vec<usize> = (0..3000).map(|e| e * 7 % n).collect();
        let values = vec![1.0; 3000];
        let entries =
            Entries::new(&[n; 3], vec![list.clone(), list.clone(), list], values).unwrap();
        let mut newton = DataNewton::of_entries(model, entries.rest_of_zeros()).unwrap();
        let first = newton.sweep().unwrap();
        let mut last = first;
        for _ in 0..5 {
            last = newton.sweep().unwrap();
        }
        // All zeros cost 1500, and the barrier keeps them from being zeros.
        assert!(last < first && last < 1501.5, "{first} {last}");
    }

    #[test]
    fn bad_lists_are_refused() {
        let (indices, values) = list();
        let new = |shape: &[usize], values: Vec<f64>| Entries::new(shape, indices.clone(), values);
        let says = |result: Result<Entries>, word: &str| {
            let text = result.unwrap_err().to_string();
            assert!(text.contains(word), "{text}");
        };
        says(new(&[3, 4, 1], values.clone()), "index 1 along mode 3, which has size 1");
        says(new(&[3, 4], values.clone()), "3 lists");
        says(new(&[3, 4, 2], vec![1.0; 2]), "2 indices");
        says(new(&[3, 4, 2], vec![f64::NAN; values.len()]), "NaN");
        let entries = new(&[3, 4, 2], values.clone()).unwrap();
        says(entries.clone().weights(vec![-1.0; values.len()]), "-1");
        says(entries.clone().weights(vec![1.0]), "expected 8");
        let other = model("ia,ja->ij", &[&[3, 2], &[4, 2]]);
        let error = DataNewton::of_entries(other, entries.clone()).unwrap_err().to_string();
        assert!(error.contains("[3, 4]"), "{error}");
        let zeros = Entries::new(&[3, 4, 2], indices.clone(), vec![0.0; values.len()]).unwrap();
        let error = DataNewton::of_entries(models().remove(0), zeros).unwrap_err().to_string();
        assert!(error.contains("add up to 0"), "{error}");
    }
}
