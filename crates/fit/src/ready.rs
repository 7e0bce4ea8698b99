//! Fits that differ in the seed of their start only.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::builder::NNEinFact;
use crate::common::Common;
use crate::concurrent;
use crate::device::Device;
use crate::observe::{Cancel, Hooks, Observer};
use crate::prepare::check;
use crate::result::Fit;
use crate::run::carry_out;
use crate::settings::{Algorithm, Settings, Start};
use nneinfact_core::data::Prepared;
use nneinfact_core::engine::{Engine, Precision};
use nneinfact_core::error::{Error, Result};

/// Fits of one model to one set of data that differ in the seed of their start only: they are checked and
/// planned once, and what their passes read (sorted lists, tables of parameters) is there once.
///
/// Each fit has the same bits as one by [`NNEinFact::fit_prepared`] with the same seed. Several may run at
/// once, from several threads; the parallel code of each runs where it is called from.
///
/// ```
/// use nneinfact::fit::Cancel;
/// use nneinfact::{NNEinFact, Observations};
///
/// let y = ndarray::Array2::from_shape_fn((30, 20), |(i, j)| ((i * j) % 7) as f64);
/// let data = Observations::new(&y).prepare()?;
/// let settings = || NNEinFact::new("ir,jr->ij").map(|fit| fit.ranks([('r', 2)]).max_iter(20));
/// let fits = settings()?.ready(&data)?;
/// let third = fits.fit(3, &Cancel::new(), Vec::new())?;
/// assert_eq!(third.factors(), settings()?.seed(3).fit_prepared(&data)?.factors());
/// # Ok::<(), nneinfact::Error>(())
/// ```
pub struct ReadyFits {
    /// Without the start.
    settings: Settings,
    device: Device,
    common: Common,
    /// Which the engines of fits are made from.
    engine: Mutex<Box<dyn Engine>>,
    /// Where the device has one engine at a time.
    alone: Option<(Start, Arc<Prepared>)>,
}

impl NNEinFact {
    /// As [`check_prepared`](Self::check_prepared); gives how many of so many fits like this one go on at once
    /// to the best effect, each on one thread: more than one where a fit is so small that it leaves most threads
    /// of a CPU idle, as far as memory and the [limit](Self::memory_limit) allow. See [`ready`](Self::ready).
    pub fn concurrent_fits(&self, data: &Prepared, fits: usize) -> Result<usize> {
        let plan = check(&self.settings, data)?;
        Ok(match &self.settings.device {
            Some(device) => concurrent::workers(&self.settings, device, &plan, fits),
            None => 1,
        })
    }

    /// Prepares fits that differ in the seed of their start only. Observers and a switch are given to each.
    ///
    /// # Errors
    /// As [`fit_prepared`](NNEinFact::fit_prepared), before the first sweep; [`Error::Setting`] where several
    /// [`starts`](NNEinFact::starts) of a fit, given factors to start from, or checkpoints are asked for.
    pub fn ready(self, data: &Prepared) -> Result<ReadyFits> {
        let NNEinFact { mut settings, hooks, .. } = self;
        let refuse = |what: &str| {
            Err(Error::Setting(format!("fits that differ in their seed only have no {what}")))
        };
        if settings.starts > 1 {
            return refuse("several starts each");
        }
        if matches!(settings.start, Start::Factors(_)) {
            return refuse("factors to start from, which would be those of all");
        }
        if settings.is_saved() {
            return refuse("checkpoint");
        }
        if !settings.bases.is_empty() {
            return refuse("basis");
        }
        if settings.is_cut() {
            return refuse("slabs");
        }
        if settings.algorithm == Algorithm::Barrier {
            settings.precision = Precision::F64;
        }
        let device = settings.choose_device()?;
        let wanted = settings.start.clone();
        let (common, engine) = {
            let (settings, device) = (&mut settings, device.clone());
            device.clone().install(move || Common::of(settings, &hooks.cancel, data, &device))?
        };
        let alone = match engine.another()? {
            Some(_) => None,
            None => Some((wanted, Arc::new(data.clone()))),
        };
        Ok(ReadyFits { settings, device, common, engine: Mutex::new(engine), alone })
    }
}

impl ReadyFits {
    /// How many of so many fits go on at once to the best effect: as many as there are threads where a fit is so
    /// small that it leaves most of them idle, and memory allows; else 1.
    #[must_use]
    pub fn concurrent_fits(&self, fits: usize) -> usize {
        match self.alone {
            Some(_) => 1,
            None => concurrent::workers(&self.settings, &self.device, self.common.plan(), fits),
        }
    }

    /// The fit from the start of a seed.
    ///
    /// # Errors
    /// As [`NNEinFact::fit_prepared`].
    pub fn fit(
        &self,
        seed: u64,
        cancel: &Cancel,
        observers: Vec<Box<dyn Observer>>,
    ) -> Result<Fit> {
        let started = Instant::now();
        let hooks = Hooks { observers, cancel: cancel.clone(), ..Hooks::default() };
        let settings = Settings { seed, ..self.settings.clone() };
        if let Some((start, data)) = &self.alone {
            let settings = Settings { start: start.clone(), ..settings };
            return crate::run::fit(settings, hooks, None, &**data);
        }
        let first = self.common.make(seed, cancel)?;
        let engine = self.engine.lock().unwrap_or_else(PoisonError::into_inner).another()?;
        let Some(mut engine) = engine else {
            return Err(Error::Internal("an engine had another one, and has none now".into()));
        };
        engine.load(&first)?;
        let begun = self.common.begin(seed, engine.as_mut(), first)?;
        let opened = self.common.opened(&settings, engine, begun);
        carry_out(&settings, hooks, opened, started)
    }
}
