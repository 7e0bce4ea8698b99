//! What a user hands to a fit.

use std::sync::Arc;

use ndarray::{ArrayBase, Data, Dimension};

use super::drawn_zeros::ZEROS_PER_NONZERO;
use super::labels::check_all;
use super::mapped::in_order;
use super::part::Within;
use super::random::{Key, threshold};
use super::rescale::normalizing_exponent;
use super::roles::Bits;
use super::storage::{Convert, Summary};
use super::{CooTensor, Dense, Element, Labels, SplitKind, Storage};
use crate::error::{Error, Result};

/// Values with a mask, weights and splits: what a fit is given.
///
/// An entry is *observed* if the mask (where there is one) is true and the weight (where there are
/// weights) is above 0; with [`nan_missing`](Observations::nan_missing), NaN is not observed
/// either. Entries that are not observed take part in nothing, whatever their value. Of the
/// observed entries some can be withheld: *held-out* ones, whose loss is only reported, and
/// *validation* ones, which decide when to stop. The order of the calls does not matter; a second
/// call of the same method replaces the first.
///
/// ```
/// use nneinfact::data::{Observations, Role};
///
/// let y = ndarray::Array2::from_shape_fn((40, 50), |(i, j)| (i * j % 7) as f64);
/// let mask = y.mapv(|x| x != 3.0);
/// let prepared = Observations::new(&y).mask(&mask)?.held_out(0.1, 42)?.prepare()?;
/// assert_eq!(prepared.count(Role::Missing), y.iter().filter(|&&x| x == 3.0).count() as u64);
/// assert!(prepared.count(Role::HeldOut) > 0);
/// # Ok::<(), nneinfact::Error>(())
/// ```
///
/// Data can also be given as [`CooTensor`], which are never expanded unless that is cheaper. What
/// is not stored there is an observed zero, unless [`unlisted_missing`](Observations::unlisted_missing)
/// says that it is missing. Where a mask of the shape of the data would be too large, COO tensors
/// do: [`missing_at`](Observations::missing_at), [`held_out_at`](Observations::held_out_at),
/// [`validation_at`](Observations::validation_at).
#[derive(Clone, Debug)]
pub struct Observations {
    /// Without entries where there are coordinates.
    pub(super) values: Arc<Dense>,
    pub(super) coordinates: Option<Arc<CooTensor>>,
    pub(super) unlisted_missing: bool,
    pub(super) missing_at: Option<Arc<CooTensor>>,
    pub(super) held_out_at: Option<Arc<CooTensor>>,
    pub(super) validation_at: Option<Arc<CooTensor>>,
    pub(super) mask: Option<Arc<Bits>>,
    /// In the order of memory of the values.
    pub(super) weights: Option<Arc<Dense>>,
    /// The weights that were given are those kept times 2^this.
    pub(super) weight_exponent: i32,
    pub(super) nan_missing: bool,
    pub(super) held_out: Option<Split>,
    pub(super) held_out_mask: Option<Arc<Bits>>,
    pub(super) validation: Option<Split>,
    /// Where they are in a tensor that they are a slab of.
    pub(super) within: Option<Within>,
    pub(super) split_as: SplitKind,
    pub(super) zeros_per_nonzero: f64,
    pub(super) labels: Arc<[Labels]>,
}

/// What observations are made of: a value for every entry, or a COO tensor.
#[derive(Clone, Debug)]
pub enum Values {
    /// A value for every entry.
    Dense(Arc<Dense>),
    /// A COO tensor.
    CooTensor(Arc<CooTensor>),
}

impl From<Dense> for Values {
    fn from(values: Dense) -> Values {
        Values::Dense(Arc::new(values))
    }
}

impl From<Arc<Dense>> for Values {
    fn from(values: Arc<Dense>) -> Values {
        Values::Dense(values)
    }
}

impl From<CooTensor> for Values {
    fn from(list: CooTensor) -> Values {
        Values::CooTensor(Arc::new(list))
    }
}

impl From<Arc<CooTensor>> for Values {
    fn from(list: Arc<CooTensor>) -> Values {
        Values::CooTensor(list)
    }
}

impl<S, D> From<&ArrayBase<S, D>> for Values
where
    S: Data,
    S::Elem: Element,
    D: Dimension,
{
    fn from(array: &ArrayBase<S, D>) -> Values {
        Dense::from_array(array).into()
    }
}

impl<S, D> From<ArrayBase<S, D>> for Values
where
    S: Data,
    S::Elem: Element,
    D: Dimension,
{
    fn from(array: ArrayBase<S, D>) -> Values {
        Dense::from_array(&array).into()
    }
}

/// A random split: the entries whose random number is below the threshold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Split {
    pub key: Key,
    pub threshold: u32,
}

/// The streams of [`super::uniform_u32`] that the splits draw from.
const HELD_OUT_STREAM: u32 = 1;
const VALIDATION_STREAM: u32 = 2;

impl Observations {
    /// All entries of an array, a [`Dense`] tensor or [`CooTensor`] observed, with weight 1; what
    /// coordinates do not list is an observed zero.
    pub fn new(values: impl Into<Values>) -> Observations {
        let (values, coordinates) = match values.into() {
            Values::Dense(values) => (values, None),
            Values::CooTensor(list) => (Arc::new(Dense::empty()), Some(list)),
        };
        Observations {
            values,
            coordinates,
            unlisted_missing: false,
            missing_at: None,
            held_out_at: None,
            validation_at: None,
            mask: None,
            weights: None,
            weight_exponent: 0,
            nan_missing: false,
            held_out: None,
            held_out_mask: None,
            validation: None,
            within: None,
            split_as: SplitKind::Auto,
            zeros_per_nonzero: ZEROS_PER_NONZERO,
            labels: Arc::new([]),
        }
    }

    /// All entries observed, with weight 1, of values that are also used elsewhere.
    #[must_use]
    pub fn shared(values: Arc<Dense>) -> Observations {
        Observations::new(values)
    }

    /// The values of all entries; a tensor without entries where the data were given as
    /// [`coordinates`](Observations::coordinates).
    #[must_use]
    pub fn values(&self) -> &Arc<Dense> {
        &self.values
    }

    /// The entries, where the data were given as a list of them.
    #[must_use]
    pub fn coordinates(&self) -> Option<&Arc<CooTensor>> {
        self.coordinates.as_ref()
    }

    /// The datum of an entry, whatever its role: NaN where there is NaN, 0 where an entry is not stored
    /// and observed. `None` outside the data, and where an entry is not stored and so missing.
    #[must_use]
    pub fn value(&self, index: &[usize]) -> Option<f64> {
        let Some(list) = &self.coordinates else { return self.values.get(index) };
        let shape = list.shape();
        let inside = index.len() == shape.len() && index.iter().zip(shape).all(|(i, n)| i < n);
        let implicit = (!self.unlisted_missing).then_some(0.0);
        if inside { list.get(index).or(implicit) } else { None }
    }

    /// The length of each mode.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        self.coordinates.as_ref().map_or(self.values.shape(), |c| c.shape())
    }

    /// What the modes and their indices are called: those of each mode, or none where nothing is
    /// known.
    #[must_use]
    pub fn labels(&self) -> &[Labels] {
        &self.labels
    }

    /// The same data with [`Labels`] for each mode, which the fit and its file will hold too.
    ///
    /// ```
    /// use nneinfact::data::Labels;
    /// use nneinfact::{NNEinFact, Observations};
    ///
    /// let y = ndarray::array![[4.0, 2.0, 8.0], [2.0, 1.0, 4.0]];
    /// let labels = vec![Labels::named("row"), Labels::new(["a", "b", "c"]).with_name("fruit")];
    /// let data = Observations::new(&y).with_labels(labels)?;
    /// let fit = NNEinFact::new("ir,jr->ij")?.ranks([('r', 1)]).fit(&data)?;
    /// assert_eq!(fit.labels('j').and_then(|fruit| fruit.index_of("c")), Some(2));
    /// # Ok::<(), nneinfact::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Setting`] where there are not as many as modes, or not as many labels as indices.
    pub fn with_labels(mut self, labels: impl Into<Arc<[Labels]>>) -> Result<Self> {
        let labels = labels.into();
        let sizes = self.shape().iter().enumerate().map(|(mode, &size)| (mode + 1, size));
        check_all(&labels, sizes)?;
        self.labels = labels;
        Ok(self)
    }

    /// Entries that coordinates do not list are missing, not zeros, as in ratings. (Dense data have
    /// no such entries.)
    #[must_use]
    pub fn unlisted_missing(mut self) -> Self {
        self.unlisted_missing = true;
        self
    }

    /// Whether entries that coordinates do not list are missing.
    #[must_use]
    pub fn is_unlisted_missing(&self) -> bool {
        self.unlisted_missing
    }

    /// These entries are missing; the values of the list do not matter.
    ///
    /// # Errors
    /// [`Error::Shape`] where the list does not have the shape of the data.
    pub fn missing_at(mut self, entries: impl Into<Arc<CooTensor>>) -> Result<Self> {
        let entries = entries.into();
        self.check_shape("the list of missing entries", entries.shape())?;
        self.missing_at = Some(entries);
        Ok(self)
    }

    /// Withholds the observed entries among these; the values of the list do not matter. Together
    /// with other ways to hold entries out, all are withheld.
    ///
    /// # Errors
    /// [`Error::Shape`] where the list does not have the shape of the data.
    pub fn held_out_at(mut self, entries: impl Into<Arc<CooTensor>>) -> Result<Self> {
        let entries = entries.into();
        self.check_shape("the list of held-out entries", entries.shape())?;
        self.held_out_at = Some(entries);
        Ok(self)
    }

    /// Withholds the observed entries among these that are not held out as a validation set; the
    /// values of the list do not matter. Together with a random
    /// [`validation`](Observations::validation) fraction, both are withheld.
    ///
    /// # Errors
    /// [`Error::Shape`] where the list does not have the shape of the data.
    pub fn validation_at(mut self, entries: impl Into<Arc<CooTensor>>) -> Result<Self> {
        let entries = entries.into();
        self.check_shape("the list of validation entries", entries.shape())?;
        self.validation_at = Some(entries);
        Ok(self)
    }

    /// Which entries are observed: `true` is observed, `false` is missing.
    ///
    /// # Errors
    /// [`Error::Shape`] where the mask does not have the shape of the data.
    /// [`Error::Observations`] where no entry is true.
    pub fn mask<S, D>(mut self, mask: &ArrayBase<S, D>) -> Result<Self>
    where
        S: Data<Elem = bool>,
        D: Dimension,
    {
        let bits = self.bits(mask, "the mask")?;
        if bits.ones() == 0 {
            return Err(Error::Observations(
                "the mask hides every entry: true must mean observed".into(),
            ));
        }
        self.mask = Some(Arc::new(bits));
        Ok(self)
    }

    /// The weight of each entry's loss: finite, at least 0, not all 0. 0 means missing. With a
    /// mask as well, its false entries have weight 0.
    ///
    /// Only ratios of weights matter to a fit without penalties: weights whose largest is far from 1
    /// are kept times a power of two ([`Prepared::weight_unit`](super::Prepared::weight_unit)).
    ///
    /// # Errors
    /// [`Error::Shape`] where the weights do not have the shape of the data.
    /// [`Error::Observations`] where one is negative, NaN or infinite, or all are 0.
    pub fn weights(mut self, weights: impl Into<Dense>) -> Result<Self> {
        let mut weights = weights.into();
        self.check_shape("the weights", weights.shape())?;
        if weights.is_mapped() && (self.coordinates.is_some() || !self.in_order_of(&weights)) {
            // Reading it in another order again and again would cost far more than its memory.
            weights = weights.in_memory();
        }
        if let Some((linear, w)) = first_bad_weight(&weights) {
            let index = weights.index_of_c(linear).unwrap_or_default();
            return Err(Error::Observations(format!(
                "weights must be finite and at least 0, but the weight at index {index:?} is {w}"
            )));
        }
        let largest = largest_weight(&weights)?;
        if largest == 0.0 {
            return Err(Error::Observations("all weights are 0: nothing is observed".into()));
        }
        let exponent = normalizing_exponent(largest, USUAL_WEIGHTS);
        let weights = weights.scaled(exponent);
        self.weight_exponent = -exponent;
        let weights = match self.coordinates {
            Some(_) => weights.in_c_order(),
            None => weights.in_layout_of(&self.values),
        };
        self.weights = Some(Arc::new(weights));
        Ok(self)
    }

    /// As [`mask`](Observations::mask), from a tensor that may stay in a file: it is read once,
    /// from beginning to end, and a bit an entry is kept. What is not 0 is observed.
    ///
    /// # Errors
    /// As [`mask`](Observations::mask).
    pub fn mask_from(mut self, mask: &Dense) -> Result<Self> {
        let bits = self.bits_of(mask, "the mask")?;
        if bits.ones() == 0 {
            return Err(Error::Observations(
                "the mask hides every entry: true must mean observed".into(),
            ));
        }
        self.mask = Some(Arc::new(bits));
        Ok(self)
    }

    /// NaN in the data means missing. (Without this, NaN in an observed entry is an error of the
    /// fit.)
    #[must_use]
    pub fn nan_missing(mut self) -> Self {
        self.nan_missing = true;
        self
    }

    /// Withholds every observed entry with this probability, independently. Which entries depends
    /// on the seed and on the entries' indices only (see [`uniform_u32`](super::uniform_u32)); the
    /// probability is rounded to a multiple of 2⁻³². 0 withholds nothing. Of a list with more than 10⁹
    /// entries, stored or not, implicit zeros are withheld [by strata](Observations::split_as).
    ///
    /// # Errors
    /// [`Error::Observations`] where the fraction is not in [0, 1).
    pub fn held_out(mut self, fraction: f64, seed: u64) -> Result<Self> {
        self.held_out = split("held-out", fraction, seed, HELD_OUT_STREAM)?;
        Ok(self)
    }

    /// Withholds the observed entries where `held_out` is true. Together with a random
    /// [`held_out`](Observations::held_out) fraction, both are withheld.
    ///
    /// # Errors
    /// [`Error::Shape`] where it does not have the shape of the data.
    pub fn held_out_mask<S, D>(mut self, held_out: &ArrayBase<S, D>) -> Result<Self>
    where
        S: Data<Elem = bool>,
        D: Dimension,
    {
        self.held_out_mask = Some(Arc::new(self.bits(held_out, "the held-out mask")?));
        Ok(self)
    }

    /// As [`held_out_mask`](Observations::held_out_mask), from a tensor that may stay in a file: it
    /// is read once, from beginning to end, and a bit an entry is kept. What is not 0 is withheld.
    ///
    /// # Errors
    /// As [`held_out_mask`](Observations::held_out_mask).
    pub fn held_out_mask_from(mut self, held_out: &Dense) -> Result<Self> {
        self.held_out_mask = Some(Arc::new(self.bits_of(held_out, "the held-out mask")?));
        Ok(self)
    }

    /// Withholds every observed entry that is not held out with this probability, independently,
    /// as a validation set. The same seed as for [`held_out`](Observations::held_out) is fine:
    /// the two draw from different streams. 0 withholds nothing.
    ///
    /// # Errors
    /// [`Error::Observations`] where the fraction is not in [0, 1).
    pub fn validation(mut self, fraction: f64, seed: u64) -> Result<Self> {
        self.validation = split("validation", fraction, seed, VALIDATION_STREAM)?;
        Ok(self)
    }

    /// Whether all entries are trained on: no mask, no weights, no split, nothing missing.
    pub fn all_train(&self) -> bool {
        self.mask.is_none()
            && self.weights.is_none()
            && self.held_out.is_none()
            && self.held_out_mask.is_none()
            && self.validation.is_none()
            && self.missing_at.is_none()
            && self.held_out_at.is_none()
            && self.validation_at.is_none()
            && !self.nan_missing
    }

    fn check_shape(&self, what: &str, found: &[usize]) -> Result<()> {
        if found == self.shape() {
            return Ok(());
        }
        Err(Error::Shape {
            what: what.into(),
            found: format!("{found:?}"),
            expected: format!("{:?}, the shape of the data", self.shape()),
        })
    }

    /// Whether a tensor has the order of memory of the values.
    fn in_order_of(&self, tensor: &Dense) -> bool {
        tensor.layout().runs_in(self.values.strides()).same()
    }

    /// A mask in the order of memory of the values, read in its own.
    fn bits_of(&self, mask: &Dense, what: &str) -> Result<Bits> {
        self.check_shape(what, mask.shape())?;
        let runs = match self.coordinates {
            Some(_) => mask.layout().runs_in_c(),
            None => mask.layout().runs_in(self.values.strides()),
        };
        let mut bits = Bits::none(mask.len());
        let mut places = Vec::new();
        in_blocks(mask, |start, block| {
            places.resize(block.len(), 0);
            runs.fill(start, &mut places);
            for (&place, _) in places.iter().zip(block).filter(|&(_, &x)| x != 0.0) {
                bits.set(place as usize);
            }
        });
        mask.check()?;
        Ok(bits.counted())
    }

    /// The mask in the order of memory of the values.
    fn bits<S, D>(&self, mask: &ArrayBase<S, D>, what: &str) -> Result<Bits>
    where
        S: Data<Elem = bool>,
        D: Dimension,
    {
        self.check_shape(what, mask.shape())?;
        let axes = match self.coordinates {
            Some(_) => (0..mask.ndim()).collect(),
            None => self.values.layout().axes(),
        };
        let in_order = mask.view().into_dyn().permuted_axes(axes);
        Ok(match in_order.as_slice() {
            Some(entries) => Bits::pack(entries.iter().copied(), entries.len()),
            None => Bits::pack(in_order.iter().copied(), in_order.len()),
        })
    }
}

/// Calls `work` with all entries of a tensor in their order of memory, block by block, and where
/// each block begins.
fn in_blocks(tensor: &Dense, mut work: impl FnMut(usize, &[f64])) {
    const BLOCK: usize = 4096;
    let mut values = vec![0.0; BLOCK];
    in_order(&[tensor], tensor.len(), 1, |entries| {
        for start in entries.clone().step_by(BLOCK) {
            let values = &mut values[..BLOCK.min(entries.end - start)];
            tensor.load(start, 1, values);
            work(start, values);
        }
    });
}

fn split(what: &str, fraction: f64, seed: u64, stream: u32) -> Result<Option<Split>> {
    if !(0.0..1.0).contains(&fraction) {
        return Err(Error::Observations(format!(
            "the {what} fraction must be at least 0 and below 1, not {fraction}"
        )));
    }
    let threshold = threshold(fraction);
    Ok((threshold > 0).then(|| Split { key: Key::new(seed, stream), threshold }))
}

/// Largest weights up to 2^±this are left as they are.
pub(super) const USUAL_WEIGHTS: i32 = 40;

/// The largest weight; 1 for whole numbers of which one is not 0, which have a usual size.
fn largest_weight(weights: &Dense) -> Result<f64> {
    let whole = |any: bool| if any { 1.0 } else { 0.0 };
    Ok(match weights.storage() {
        Storage::U8(v) => whole(v.iter().any(|&w| w > 0)),
        Storage::U16(v) => whole(v.iter().any(|&w| w > 0)),
        Storage::U32(v) => whole(v.iter().any(|&w| w > 0)),
        Storage::F32(_) | Storage::F64(_) => weights.largest(),
        Storage::Mapped(mapped) => {
            let (mut summary, mut largest) = (Summary::EMPTY, 0.0f64);
            in_blocks(weights, |_, block| {
                summary = summary.and(Convert::summary(block));
                largest = block.iter().fold(largest, |most, &w| most.max(w));
            });
            mapped.check()?;
            mapped.set_summary(summary);
            largest
        }
    })
}

/// The first weight in C order that is not finite or is negative.
fn first_bad_weight(weights: &Dense) -> Option<(usize, f64)> {
    let bad = |w: f64| !(w.is_finite() && w >= 0.0);
    let any = match weights.storage() {
        Storage::U8(_) | Storage::U16(_) | Storage::U32(_) => false,
        Storage::F32(v) => v.iter().any(|&w| bad(w.into())),
        Storage::F64(v) => v.iter().any(|&w| bad(w)),
        Storage::Mapped(_) => {
            let mut any = false;
            in_blocks(weights, |_, block| any |= block.iter().any(|&w| bad(w)));
            any
        }
    };
    if any { weights.iter().enumerate().find(|&(_, w)| bad(w)) } else { None }
}
