//! The builder's settings of fits over slabs and several processes, and the call that runs one on a part
//! of the data.

use crate::builder::NNEinFact;
use crate::result::Fit;
use crate::run;
use crate::settings::Settings;
use crate::shared::Held;
use crate::source::Source;
use nneinfact_core::data::Part;
use nneinfact_core::engine::Reducer;
use nneinfact_core::error::Result;

impl NNEinFact {
    /// The default of [`slabs`](Self::slabs).
    pub const SLABS: usize = Settings::SLABS;

    /// Fits with other processes, which all make the same calls with the same settings: each works on its
    /// slabs of the data, and all return the same fit. Only process 0 writes
    /// [checkpoints](Self::checkpoint). Where one is cancelled, or an observer of one stops, all stop
    /// after the same sweep; where one fails, all end with an error that names it.
    ///
    /// The fit has the same bits for any number of processes: those of one process with the same number of
    /// [`slabs`](Self::slabs).
    ///
    /// Every process may have all data ([`fit`](Self::fit) takes the slabs of its own) or its part of them
    /// ([`fit_part`](Self::fit_part)). Factors, and sums of their size, are on all processes.
    ///
    /// Not for fits to several tensors; the barrier algorithm needs the CPU then, and a start from singular
    /// vectors the data in memory.
    pub fn shared_by(mut self, reducer: impl Reducer + 'static) -> Self {
        self.hooks.reducer = Some(Box::new(reducer));
        self
    }

    /// Cuts the data into so many slabs at most (as many as the mode has indices, where these are fewer),
    /// whose sums are added up in a fixed order. A setting of the fit: it decides the last digits, and
    /// the number of processes does not. Default: [`Self::SLABS`] where the fit is
    /// [shared](Self::shared_by), else the data are not cut. There should be some times as many slabs as
    /// processes, or as many; more processes than slabs have nothing to do.
    ///
    /// ```
    /// use ndarray::Array2;
    /// use nneinfact::NNEinFact;
    ///
    /// let y = Array2::from_shape_fn((30, 20), |(i, j)| ((i + 1) * (j % 5 + 2)) as f64);
    /// let settings = || NNEinFact::new("ir,jr->ij").map(|fit| fit.ranks([('r', 2)]));
    /// let cut = settings()?.slabs(4).fit(&y)?;
    /// let whole = settings()?.fit(&y)?;
    /// assert_eq!(cut.history().slabs.map(|slabs| (slabs.mode, slabs.count)), Some((0, 4)));
    /// let [a, b] = [&cut, &whole].map(|fit| fit.history().last_loss());
    /// assert!((a - b).abs() < 1e-3);
    /// # Ok::<(), nneinfact::Error>(())
    /// ```
    pub fn slabs(mut self, slabs: usize) -> Self {
        self.settings.slabs = Some(slabs);
        self
    }

    /// The mode of the data, counted from 0, that they are cut along. Of factors with it every process
    /// sums its own rows only, so that a long mode is a good choice. Default:
    /// [`split_mode`](crate::split_mode), or that of the [part](Self::fit_part).
    pub fn split_along(mut self, mode: usize) -> Self {
        self.settings.split_along = Some(mode);
        self
    }

    /// As [`fit`](Self::fit), where this process has a part of the data and the
    /// [others](Self::shared_by) have the rest: observations of the part alone, with its masks, weights
    /// and entry parameters of the loss. Which part that has to be,
    /// [`slab_ranges`](crate::slab_ranges) and [`slabs_of_processes`](crate::slabs_of_processes) say.
    /// Random splits withhold the same entries as of the whole data. A process without slabs gives an
    /// empty range; its observations are not looked at but for their other modes.
    ///
    /// No process needs more memory than for its part, factors, and sums of their size. Slabs of an array
    /// that is cut along its slowest mode are views of it, in memory or in a file
    /// ([`map_npy`](crate::io::map_npy)); lists, and arrays that are cut along another mode, are copied
    /// where a process has several slabs, so that they are there twice until those that are given are
    /// dropped.
    ///
    /// ```
    /// use ndarray::Array2;
    /// use nneinfact::NNEinFact;
    /// use nneinfact::data::Part;
    ///
    /// let y = Array2::from_shape_fn((30, 20), |(i, j)| ((i + 1) * (j % 5 + 2)) as f64);
    /// // One process has all of it; with `shared_by` there would be more.
    /// let part = Part { mode: 0, range: 0..30, whole: 30 };
    /// let fit = NNEinFact::new("ir,jr->ij")?.ranks([('r', 2)]).fit_part(&y, part)?;
    /// assert_eq!(fit.factors()[0].shape(), [30, 2]);
    /// # Ok::<(), nneinfact::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`fit`](Self::fit), of any process; and where the part is not that of this process.
    pub fn fit_part(self, data: impl Source, part: Part) -> Result<Fit> {
        let observations = data.observations()?;
        let held = Held { observations: observations.as_ref(), part: Some(&part) };
        run::fit_part(self.settings, self.hooks, self.resume, held)
    }
}
