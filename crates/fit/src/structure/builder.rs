//! The settings about what holds within and among factors.

use super::{Smooth, Splines};
use crate::builder::NNEinFact;
use crate::settings::FactorSetting;

impl NNEinFact {
    /// Makes factors the same, called as in [`penalty`](Self::penalty): one factor that is in several
    /// places of the model, letter by letter. So symmetric tables and moments are fitted, as in
    /// `ir,jr->ij` and `ir,jr,kr->ijk`. What holds for one of them, a penalty, bounds or given values,
    /// holds for that one factor, and a penalty counts once.
    ///
    /// ```
    /// use ndarray::Array2;
    /// use nneinfact::NNEinFact;
    ///
    /// let y = Array2::from_shape_fn((12, 12), |(i, j)| if i % 3 == j % 3 { 4.0 } else { 1.0 });
    /// let fit = NNEinFact::new("ir,jr->ij")?.ranks([('r', 3)]).tie(["ir", "jr"]).fit(&y)?;
    /// assert_eq!(fit.factors()[0], fit.factors()[1]);
    /// # Ok::<(), nneinfact::Error>(())
    /// ```
    pub fn tie<'a>(mut self, factors: impl IntoIterator<Item = &'a str>) -> Self {
        self.settings.ties.push(factors.into_iter().map(Into::into).collect());
        self
    }

    /// A penalty on differences between neighbours along modes of a factor, called as in
    /// [`penalty`](Self::penalty): see [`Smooth`]. Calls for several letters add up.
    pub fn smooth(mut self, factor: &str, smooth: Smooth) -> Self {
        self.settings.factor_settings.push((factor.into(), FactorSetting::Smooth(smooth)));
        self
    }

    /// Makes rows of a factor, called as in [`penalty`](Self::penalty), add up to 1: over these letters
    /// of it, by default its latent ones. With `over` as in `Some("w")` every component of `wr` is a
    /// distribution over w; by default the shares of all components at every w are one.
    ///
    /// ```
    /// use ndarray::{Array2, Axis};
    /// use nneinfact::NNEinFact;
    ///
    /// let y = Array2::from_shape_fn((12, 9), |(i, j)| ((i + 1) * (j % 3 + 1)) as f64);
    /// let fit = NNEinFact::new("ir,jr->ij")?.ranks([('r', 2)]).simplex("jr", Some("j")).fit(&y)?;
    /// assert!(fit.factors()[1].sum_axis(Axis(0)).iter().all(|sum| (sum - 1.0).abs() < 1e-9));
    /// # Ok::<(), nneinfact::Error>(())
    /// ```
    pub fn simplex(mut self, factor: &str, over: Option<&str>) -> Self {
        let setting = FactorSetting::Simplex(over.map(Into::into));
        self.settings.factor_settings.push((factor.into(), setting));
        self
    }

    /// Makes the factor that has a mode of the data (a letter that is in one factor only) a sum of fixed
    /// smooth functions of its indices: `hr` becomes `hb,br` with the functions in `hb`. They are
    /// multiplied out in what is returned. A [penalty](Self::penalty) on that factor is one on the
    /// coefficients `br`; a checkpoint is one of the model with `hb,br`.
    ///
    /// ```
    /// use ndarray::Array2;
    /// use nneinfact::NNEinFact;
    /// use nneinfact::fit::Splines;
    ///
    /// let y = Array2::from_shape_fn((24, 9), |(h, i)| 1.0 + ((h * 7 + i * 3) % 5) as f64);
    /// let fit = NNEinFact::new("hr,ir->hi")?
    ///     .ranks([('r', 2)])
    ///     .basis('h', Splines::new(6).cyclic())
    ///     .fit(&y)?;
    /// assert_eq!(fit.factors()[0].shape(), [24, 2]);
    /// # Ok::<(), nneinfact::Error>(())
    /// ```
    pub fn basis(mut self, mode: char, basis: Splines) -> Self {
        self.settings.bases.push((mode, basis));
        self
    }
}
