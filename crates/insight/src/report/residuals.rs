//! What a fit leaves over, summed along every mode.

use std::ops::Range;

use rayon::prelude::*;

use super::cells::CellValues;
use nneinfact_core::data::{Dense, Implicit, Observations, Prepared, Role};
use nneinfact_core::engine::Precision;
use nneinfact_core::error::{Error, Result};
use nneinfact_core::loss::{Loss, Scratch, Tape};
use nneinfact_core::model::Index;
use nneinfact_fit::{Saved, prediction_floor};

/// Observed and predicted totals and losses, for every index of every mode: training, validation and
/// held-out cells apart.
///
/// Dense data are walked over a slab at a time, from memory or from their file. Lists of cells are not
/// expanded: what the cells between them add comes from contractions of the factors, where the loss
/// has a closed form there; where it has none, the losses are left out and [`notes`](Self::notes) say
/// so.
///
/// ```
/// use ndarray::array;
/// use nneinfact::fit::Saved;
/// use nneinfact::report::Residuals;
/// use nneinfact::{Loss, NNEinFact, Observations};
///
/// let y = array![[4.0, 2.0, 8.0], [2.0, 1.0, 5.0]];
/// let observations = Observations::new(&y);
/// let fit = NNEinFact::new("ir,jr->ij")?.ranks([('r', 1)]).fit(&observations)?;
/// let residuals = Residuals::new(&Saved::new(&fit), &observations, Some(&Loss::kl()))?;
/// let training = &residuals.portions()[0];
/// assert_eq!(training.modes[1][2].observed, 13.0);
/// # Ok::<(), nneinfact::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Residuals {
    portions: Vec<Portion>,
    has_loss: bool,
    has_predictions: bool,
    notes: Vec<String>,
}

/// The cells of one role.
#[derive(Clone, Debug, PartialEq)]
pub struct Portion {
    /// The role.
    pub role: Role,
    /// Over all cells of the role.
    pub all: Sums,
    /// For every mode, over the cells at each of its indices.
    pub modes: Vec<Vec<Sums>>,
}

/// Sums over some cells. Weights count in all but the number of cells.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sums {
    /// The number of cells, a float: lists can leave more cells out than integers count.
    pub cells: f64,
    /// The sum of their weights.
    pub weight: f64,
    /// The sum of the data.
    pub observed: f64,
    /// The sum of what the model expects: of ŷ, or of the means that belong to odds.
    pub predicted: f64,
    /// The sum of the losses.
    pub loss: f64,
}

impl Sums {
    /// The weighted mean of the loss; NaN where there is no cell.
    #[must_use]
    pub fn mean_loss(&self) -> f64 {
        self.loss / self.weight
    }

    fn add(&mut self, other: &Sums) {
        self.cells += other.cells;
        self.weight += other.weight;
        self.observed += other.observed;
        self.predicted += other.predicted;
        self.loss += other.loss;
    }
}

/// The roles that have residuals, by their place here.
const ROLES: [Role; 3] = [Role::Train, Role::Validation, Role::HeldOut];

fn place(role: Role) -> Option<usize> {
    ROLES.iter().position(|&r| r == role)
}

/// Sums by role, over all cells and along every mode.
type Table = Vec<(Sums, Vec<Vec<Sums>>)>;

/// Tables of zeros; along the modes only for roles that some cell has.
fn table(prepared: &Prepared, sizes: &[usize]) -> Table {
    let modes = |role: Role| -> Vec<Vec<Sums>> {
        match prepared.cells(role) {
            0 => vec![Vec::new(); sizes.len()],
            _ => sizes.iter().map(|&n| vec![Sums::default(); n]).collect(),
        }
    };
    ROLES.iter().map(|&role| (Sums::default(), modes(role))).collect()
}

impl Residuals {
    /// Sums up the residuals of a fit. Without a loss (one of one's own that nobody knows any more)
    /// there are totals only.
    ///
    /// # Errors
    /// [`Error::Shape`] where the data do not have the shape of the fit; whatever is wrong with the
    /// observations.
    pub fn new(
        saved: &Saved,
        observations: &Observations,
        loss: Option<&Loss>,
    ) -> Result<Residuals> {
        let expected = saved.shapes().data();
        if observations.shape() != expected {
            return Err(Error::Shape {
                what: "the data".into(),
                found: format!("{:?}", observations.shape()),
                expected: format!(
                    "{expected:?}, the shape of what {} was fitted to",
                    saved.model()
                ),
            });
        }
        if let Some(loss) = loss
            && let Some(side) = loss.sides().iter().find(|side| side.shape() != expected)
        {
            return Err(Error::Shape {
                what: format!("the side tensor of the {} loss", loss.name()),
                found: format!("{:?}", side.shape()),
                expected: format!("{expected:?}, the shape of the data"),
            });
        }
        let prepared = observations.prepare()?;
        let precision = match saved.record().history.as_ref().map(|h| h.precision.as_str()) {
            Some("f64") => Precision::F64,
            _ => Precision::F32,
        };
        let mut residuals = Residuals {
            portions: Vec::new(),
            has_loss: loss.is_some(),
            has_predictions: true,
            notes: Vec::new(),
        };
        if loss.is_none() {
            residuals.notes.push(
                "The loss is not known here, so that there are totals only, without losses.".into(),
            );
        }
        let asked = saved.record().history.as_ref().and_then(|h| h.prediction_floor);
        let floor = loss.map_or(0.0, |loss| {
            asked.unwrap_or_else(|| prediction_floor(loss, &prepared, precision))
        });
        let table = match prepared.coordinates() {
            None => dense(saved, &prepared, loss, floor)?,
            Some(_) => residuals.listed(saved, &prepared, loss, floor)?,
        };
        residuals.portions = ROLES
            .into_iter()
            .zip(table)
            .filter(|(_, (all, _))| all.cells > 0.0)
            .map(|(role, (all, modes))| Portion { role, all, modes })
            .collect();
        Ok(residuals)
    }

    /// One for each role that some cell has: training, validation, held out, in this order.
    #[must_use]
    pub fn portions(&self) -> &[Portion] {
        &self.portions
    }

    /// Whether the losses could be summed up; they are 0 where not.
    #[must_use]
    pub fn has_loss(&self) -> bool {
        self.has_loss
    }

    /// Whether the predictions could be summed up; they are 0 where not.
    #[must_use]
    pub fn has_predictions(&self) -> bool {
        self.has_predictions
    }

    /// What was left out and why, a sentence each.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// From a list of cells.
    fn listed(
        &mut self,
        saved: &Saved,
        prepared: &Prepared,
        loss: Option<&Loss>,
        floor: f64,
    ) -> Result<Table> {
        let shape = prepared.shape().to_vec();
        let mut sums = table(prepared, &shape);
        // Rows of a list that say for each cell what it is are enough; zeros by role are not.
        let rests: Vec<Implicit> = prepared.listings().iter().map(|l| l.rest).collect();
        let Some(&rest) = rests.iter().find(|&&rest| rest != Implicit::ByRole) else {
            self.leave_out("these weights need the dense form of the data");
            return Ok(sums);
        };
        if loss.is_some_and(|loss| loss.is_odds() || !loss.sides().is_empty()) {
            self.leave_out("under this loss they need the dense form of the data");
            return Ok(sums);
        }
        let cells = CellValues::new(saved);
        let list = prepared.list(rest);
        let work = cells.work() * list.list().len() as f64;
        if work > MOST_WORK {
            self.leave_out("the list has too many cells for a model of these ranks");
            return Ok(sums);
        }
        let zero = loss.map(|loss| loss.at_zero().loss);
        // Σ over all cells of the loss at 0, along a mode: a multiple of a power of ŷ.
        let monomial = zero.as_ref().and_then(|zero| zero.monomial());
        let power = monomial.map(|m| m.power).filter(|p| [0.0, 1.0, 2.0].contains(p));
        let squares = power == Some(2.0) && saved.predictions().totals_of_squares(&[]).is_none();
        if loss.is_some() && rest == Implicit::Zeros && (power.is_none() || squares) {
            self.has_loss = false;
            self.notes.push(
                "Losses are left out: under this loss the zeros between the listed entries have no \
                 closed form, and the data were not expanded."
                    .into(),
            );
        }
        let loss = loss.filter(|_| self.has_loss);

        let (indices, entries) = (list.list().indices(), list.list().values());
        for start in (0..entries.len()).step_by(BATCH) {
            let batch = start..(start + BATCH).min(entries.len());
            // ŷ, the loss, and what the loss would be at 0.
            let formed: Vec<[f64; 3]> = batch
                .clone()
                .into_par_iter()
                .map_init(
                    || (cells.cursor(), vec![0usize; shape.len()]),
                    |(values, index), i| {
                        for (to, from) in index.iter_mut().zip(indices) {
                            *to = from.get(i).unwrap_or(0) as usize;
                        }
                        let (x, y) = (entries.get(i).unwrap_or(0.0), values.at(index));
                        let at = |x: f64| loss.map_or(0.0, |l| l.eval_loss(x, y.max(floor), &[]));
                        [y, at(x), at(0.0)]
                    },
                )
                .collect();
            for (i, &[y, own, zero]) in batch.zip(&formed) {
                let mut put = |at: usize, cell: &Sums| {
                    let (all, modes) = &mut sums[at];
                    all.add(cell);
                    for (mode, from) in modes.iter_mut().zip(indices) {
                        mode[from.get(i).unwrap_or(0) as usize].add(cell);
                    }
                };
                if rest == Implicit::Zeros {
                    // The sums over all cells count it as a zero that is trained on.
                    let (cells, weight) = (-1.0, -1.0);
                    put(0, &Sums { cells, weight, observed: 0.0, predicted: -y, loss: -zero });
                }
                if let Some(at) = place(list.role(i)) {
                    let observed = entries.get(i).unwrap_or(0.0);
                    put(at, &Sums { cells: 1.0, weight: 1.0, observed, predicted: y, loss: own });
                }
            }
        }
        if rest == Implicit::Zeros {
            let cells: f64 = shape.iter().map(|&n| n as f64).product();
            let coefficient = monomial.map_or(0.0, |m| m.coefficient);
            let over = |letters: &[Index]| -> Vec<Sums> {
                let totals = saved.totals(letters);
                let each = cells / totals.len() as f64;
                let squares = match power {
                    Some(2.0) => saved.predictions().totals_of_squares(letters),
                    _ => None,
                };
                let loss = |i: usize, total: f64| match (loss, power) {
                    (None, _) | (_, None) => 0.0,
                    (_, Some(0.0)) => coefficient * each,
                    (_, Some(1.0)) => coefficient * total,
                    _ => coefficient * squares.as_ref().map_or(0.0, |s| s[i]),
                };
                totals
                    .iter()
                    .enumerate()
                    .map(|(i, &total)| Sums {
                        cells: each,
                        weight: each,
                        observed: 0.0,
                        predicted: total,
                        loss: loss(i, total),
                    })
                    .collect()
            };
            let (all, modes) = &mut sums[0];
            over(&[]).iter().for_each(|s| all.add(s));
            for (mode, &letter) in modes.iter_mut().zip(saved.model().output()) {
                mode.iter_mut().zip(over(&[letter])).for_each(|(to, s)| to.add(&s));
            }
        }
        Ok(sums)
    }

    fn leave_out(&mut self, why: &str) {
        (self.has_loss, self.has_predictions) = (false, false);
        self.notes.push(format!("Residuals are left out: {why}."));
    }
}

/// Multiplications from which on ŷ is not formed cell by cell: about half a minute.
const MOST_WORK: f64 = 4e10;
/// Listed cells whose ŷ are kept at a time.
const BATCH: usize = 1 << 20;
/// Cells of a slab.
const SLAB: usize = 1 << 19;
/// Cells whose losses are computed at a time.
const BLOCK: usize = 2048;

/// Adds sums over a part, whose indices begin at `starts`.
fn merge(to: &mut Table, part: &Table, starts: &[usize]) {
    for ((all, modes), (part_all, part_modes)) in to.iter_mut().zip(part) {
        all.add(part_all);
        for ((mode, part), &start) in modes.iter_mut().zip(part_modes).zip(starts) {
            mode.iter_mut().skip(start).zip(part).for_each(|(to, s)| to.add(s));
        }
    }
}

/// From a value for every cell.
fn dense(saved: &Saved, prepared: &Prepared, loss: Option<&Loss>, floor: f64) -> Result<Table> {
    let values = prepared.values();
    let mut sums = table(prepared, values.shape());
    let (axes, slabs) = slabs(values);
    let walk = Walk { saved, prepared, loss, floor, axes };
    // A few at a time, so that sums are added in their order without keeping all of them.
    for batch in slabs.chunks(16) {
        let parts: Vec<Result<Table>> = batch.par_iter().map(|slab| walk.slab(slab)).collect();
        for (slab, part) in batch.iter().zip(parts) {
            let starts: Vec<usize> = slab.iter().map(|r| r.start).collect();
            merge(&mut sums, &part?, &starts);
        }
    }
    // Data that stay in their file may have changed meanwhile.
    prepared.check()?;
    Ok(sums)
}

/// The axes from the slowest to the fastest, and blocks of indices that lie in memory without gaps.
fn slabs(values: &Dense) -> (Vec<usize>, Vec<Vec<Range<usize>>>) {
    let (shape, strides) = (values.shape(), values.strides());
    let mut axes: Vec<usize> = (0..shape.len()).collect();
    axes.sort_by_key(|&axis| (std::cmp::Reverse(strides[axis]), shape[axis] > 1, axis));
    let volume = |p: usize| axes[p..].iter().map(|&a| shape[a]).product::<usize>();
    // The first axis that is cut, so that what is inside of one of its indices is small enough.
    let cut = (0..axes.len()).find(|&p| volume(p + 1) <= SLAB).unwrap_or(axes.len() - 1);
    let step = (SLAB / volume(cut + 1).max(1)).max(1);
    let mut slabs = vec![shape.iter().map(|&n| 0..n).collect::<Vec<_>>()];
    for (p, &axis) in axes.iter().enumerate().take(cut + 1) {
        let step = if p == cut { step } else { 1 };
        slabs = slabs
            .into_iter()
            .flat_map(|slab| {
                (0..shape[axis]).step_by(step).map(move |start| {
                    let mut slab = slab.clone();
                    slab[axis] = start..(start + step).min(slab[axis].end);
                    slab
                })
            })
            .collect();
    }
    (axes, slabs)
}

struct Walk<'a> {
    saved: &'a Saved,
    prepared: &'a Prepared,
    loss: Option<&'a Loss>,
    floor: f64,
    /// From the slowest to the fastest.
    axes: Vec<usize>,
}

impl Walk<'_> {
    fn slab(&self, slab: &[Range<usize>]) -> Result<Table> {
        let values = self.prepared.values();
        let starts: Vec<usize> = slab.iter().map(|r| r.start).collect();
        let sizes: Vec<usize> = slab.iter().map(Range::len).collect();
        let offset = values.offset(&starts).unwrap_or(0);
        let output = self.saved.model().output();
        let order: Vec<Index> = self.axes.iter().map(|&axis| output[axis]).collect();
        let predicted = self.saved.predictions().block(slab, &order)?;
        let sides: Vec<Vec<f64>> = self
            .loss
            .map_or(&[][..], |loss| loss.sides())
            .iter()
            .map(|side| {
                let mut view = side.view().permuted_axes(self.axes.clone());
                for (p, &axis) in self.axes.iter().enumerate() {
                    view.slice_axis_inplace(ndarray::Axis(p), slab[axis].clone().into());
                }
                view.iter().copied().collect()
            })
            .collect();
        let tape = self.loss.map(|loss| Tape::compile(&[loss.loss()]));
        let mut scratch = Scratch::new();
        let (mut x, mut y) = (vec![0.0f64; BLOCK], vec![0.0f64; BLOCK]);
        let (mut losses, mut weights) = (vec![0.0f64; BLOCK], vec![1.0f64; BLOCK]);
        let mut sums = table(self.prepared, &sizes);
        let mut index = vec![0usize; sizes.len()];
        for start in (0..predicted.len()).step_by(BLOCK) {
            let n = BLOCK.min(predicted.len() - start);
            let (x, y) = (&mut x[..n], &mut y[..n]);
            values.load(offset + start, 1, x);
            if let Some(tensor) = self.prepared.weights() {
                tensor.load(offset + start, 1, &mut weights[..n]);
            }
            for (to, &from) in y.iter_mut().zip(&predicted[start..]) {
                *to = from.max(self.floor);
            }
            let parts: Vec<&[f64]> = sides.iter().map(|side| &side[start..start + n]).collect();
            if let Some(tape) = &tape {
                tape.run(x, y, &parts, &mut scratch, &mut [&mut losses[..n]]);
            }
            for i in 0..n {
                let role = match self.prepared.roles() {
                    Some(roles) => roles.get(offset + start + i),
                    None => Role::Train,
                };
                if let Some(at) = place(role) {
                    let weight = weights[i];
                    let cell = Sums {
                        cells: 1.0,
                        weight,
                        observed: weight * x[i],
                        predicted: weight * self.expected(predicted[start + i], &parts, i),
                        loss: weight * losses[i],
                    };
                    let (all, modes) = &mut sums[at];
                    all.add(&cell);
                    for (mode, &i) in modes.iter_mut().zip(&index) {
                        mode[i].add(&cell);
                    }
                }
                for &axis in self.axes.iter().rev() {
                    index[axis] += 1;
                    if index[axis] < sizes[axis] {
                        break;
                    }
                    index[axis] = 0;
                }
            }
        }
        Ok(sums)
    }

    /// What the model expects of a cell, in the unit of the data.
    fn expected(&self, y: f64, sides: &[&[f64]], i: usize) -> f64 {
        match self.loss.filter(|loss| loss.is_odds()) {
            None => y,
            Some(loss) => {
                let sides: Vec<f64> = sides.iter().map(|side| side[i]).collect();
                loss.domain().trials(&sides).unwrap_or(1.0) * y / (1.0 + y)
            }
        }
    }
}
