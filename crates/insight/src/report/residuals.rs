//! What a fit leaves over, summed along every mode.

use std::ops::Range;

use rayon::prelude::*;

use super::entry_values::EntryValues;
use nneinfact_core::data::{Implicit, Observations, Prepared, Role, StoredEntries};
use nneinfact_core::engine::Precision;
use nneinfact_core::error::{Error, Result};
use nneinfact_core::loss::{Loss, Scratch, Tape};
use nneinfact_core::model::Index;
use nneinfact_fit::{Blocks, Saved, prediction_floor};

/// Observed and predicted totals and losses, for every index of every mode: training, validation and
/// held-out entries apart.
///
/// Dense data are walked over a slab at a time, from memory or from their file. Sparse data are not
/// expanded: what the implicit entries add comes from contractions of the factors, where the loss
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
/// let training = &residuals.by_role()[0];
/// assert_eq!(training.modes[1][2].observed, 13.0);
/// # Ok::<(), nneinfact::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Residuals {
    by_role: Vec<RoleResiduals>,
    has_loss: bool,
    has_predictions: bool,
    notes: Vec<String>,
}

/// The residuals of the entries of one role.
#[derive(Clone, Debug, PartialEq)]
pub struct RoleResiduals {
    /// The role.
    pub role: Role,
    /// Over all entries of the role.
    pub all: ResidualSums,
    /// For every mode, over the entries at each of its indices.
    pub modes: Vec<Vec<ResidualSums>>,
}

/// Sums over some entries. Weights count in all but the number of entries.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ResidualSums {
    /// The number of entries, a float: sparse data can have more implicit entries than integers count.
    pub entries: f64,
    /// The sum of their weights.
    pub weight: f64,
    /// The sum of the data.
    pub observed: f64,
    /// The sum of what the model expects: of ŷ, or of the means that belong to odds.
    pub predicted: f64,
    /// The sum of the losses.
    pub loss: f64,
}

impl ResidualSums {
    /// The weighted mean of the loss; NaN where there is no entry.
    #[must_use]
    pub fn mean_loss(&self) -> f64 {
        self.loss / self.weight
    }

    fn add(&mut self, other: &ResidualSums) {
        self.entries += other.entries;
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

/// Sums by role, over all entries and along every mode.
type RoleTable = Vec<(ResidualSums, Vec<Vec<ResidualSums>>)>;

/// Tables of zeros; along the modes only for roles that some entry has.
fn table(prepared: &Prepared, sizes: &[usize]) -> RoleTable {
    let modes = |role: Role| -> Vec<Vec<ResidualSums>> {
        match prepared.count(role) {
            0 => vec![Vec::new(); sizes.len()],
            _ => sizes.iter().map(|&n| vec![ResidualSums::default(); n]).collect(),
        }
    };
    ROLES.iter().map(|&role| (ResidualSums::default(), modes(role))).collect()
}

/// Adds up the stored entries by their roles, ŷ being formed at each; where implicit entries are zeros, what
/// the sums over all entries count for a stored one is taken off the trained ones.
fn add_stored(
    sums: &mut RoleTable,
    list: &StoredEntries,
    predictions: &EntryValues<'_>,
    loss: Option<&Loss>,
    floor: f64,
) {
    let (indices, entries) = (list.entries().indices(), list.entries().values());
    for start in (0..entries.len()).step_by(BATCH) {
        let batch = start..(start + BATCH).min(entries.len());
        // ŷ, the loss, and what the loss would be at 0.
        let formed: Vec<[f64; 3]> = batch
            .clone()
            .into_par_iter()
            .map_init(
                || (predictions.cursor(), vec![0usize; indices.len()]),
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
            let mut put = |at: usize, entry: &ResidualSums| {
                let (all, modes) = &mut sums[at];
                all.add(entry);
                for (mode, from) in modes.iter_mut().zip(indices) {
                    mode[from.get(i).unwrap_or(0) as usize].add(entry);
                }
            };
            if list.implicit() == Implicit::Zeros {
                // The sums over all entries count it as a zero that is trained on.
                let (entries, weight) = (-1.0, -1.0);
                put(
                    0,
                    &ResidualSums { entries, weight, observed: 0.0, predicted: -y, loss: -zero },
                );
            }
            if let Some(at) = place(list.role(i)) {
                let (weight, x) = (list.weight(i), entries.get(i).unwrap_or(0.0));
                let (observed, predicted, loss) = (weight * x, weight * y, weight * own);
                put(at, &ResidualSums { entries: 1.0, weight, observed, predicted, loss });
            }
        }
    }
}

/// Adds to the trained entries the sums over all entries as if each were zero, from closed forms. `power` is
/// that of ŷ in the loss at zero, `None` without losses.
fn add_implicit_zeros(
    trained: &mut (ResidualSums, Vec<Vec<ResidualSums>>),
    saved: &Saved,
    power: Option<f64>,
    coefficient: f64,
) {
    let all_entries: f64 = saved.shapes().data().iter().map(|&n| n as f64).product();
    let over = |kept: &[Index]| -> Vec<ResidualSums> {
        let totals = saved.totals(kept);
        let each = all_entries / totals.len() as f64;
        let squares = match power {
            Some(2.0) => saved.factored().totals_of_squares(kept),
            _ => None,
        };
        let loss = |i: usize, total: f64| match power {
            None => 0.0,
            Some(0.0) => coefficient * each,
            Some(1.0) => coefficient * total,
            _ => coefficient * squares.as_ref().map_or(0.0, |s| s[i]),
        };
        totals
            .iter()
            .enumerate()
            .map(|(i, &total)| ResidualSums {
                entries: each,
                weight: each,
                observed: 0.0,
                predicted: total,
                loss: loss(i, total),
            })
            .collect()
    };
    let (all, modes) = trained;
    over(&[]).iter().for_each(|s| all.add(s));
    for (mode, &index) in modes.iter_mut().zip(saved.model().output()) {
        mode.iter_mut().zip(over(&[index])).for_each(|(to, s)| to.add(&s));
    }
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
            && let Some(parameter) = loss.entry_parameters().iter().find(|p| p.shape() != expected)
        {
            return Err(Error::Shape {
                what: format!("the entry parameter of the {} loss", loss.name()),
                found: format!("{:?}", parameter.shape()),
                expected: format!("{expected:?}, the shape of the data"),
            });
        }
        let prepared = observations.prepare()?;
        let precision = match saved.record().history.as_ref().map(|h| h.precision.as_str()) {
            Some("f64") => Precision::F64,
            _ => Precision::F32,
        };
        let mut residuals = Residuals {
            by_role: Vec::new(),
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
        let table = match prepared.coo() {
            None => dense(saved, &prepared, loss, floor)?,
            Some(_) => residuals.stored(saved, &prepared, loss, floor)?,
        };
        residuals.by_role = ROLES
            .into_iter()
            .zip(table)
            .filter(|(_, (all, _))| all.entries > 0.0)
            .map(|(role, (all, modes))| RoleResiduals { role, all, modes })
            .collect();
        Ok(residuals)
    }

    /// One for each role that some entry has: training, validation, held out, in this order.
    #[must_use]
    pub fn by_role(&self) -> &[RoleResiduals] {
        &self.by_role
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

    /// From stored entries.
    fn stored(
        &mut self,
        saved: &Saved,
        prepared: &Prepared,
        loss: Option<&Loss>,
        floor: f64,
    ) -> Result<RoleTable> {
        let shape = prepared.shape().to_vec();
        let mut sums = table(prepared, &shape);
        // What every stored entry is, is enough; implicit zeros whose role is written elsewhere are not.
        let zeros = loss.is_none_or(Loss::accepts_zeros);
        let counts = prepared.stored_counts(zeros);
        let kinds: Vec<Implicit> = counts.iter().map(|l| l.implicit).collect();
        let Some(&implicit) = kinds.iter().find(|&&kind| kind != Implicit::ByRole) else {
            self.leave_out("these weights need the dense form of the data");
            return Ok(sums);
        };
        if loss.is_some_and(|loss| loss.is_odds() || !loss.entry_parameters().is_empty()) {
            self.leave_out("under this loss they need the dense form of the data");
            return Ok(sums);
        }
        let predictions = EntryValues::new(saved);
        let list = prepared.stored(implicit);
        let work = predictions.work() * list.entries().len() as f64;
        if work > MOST_WORK {
            self.leave_out("there are too many stored entries for a model of these ranks");
            return Ok(sums);
        }
        let zero = loss.map(|loss| loss.at_zero().loss);
        // Σ over all entries of the loss at 0, along a mode: a multiple of a power of ŷ.
        let monomial = zero.as_ref().and_then(|zero| zero.monomial());
        let power = monomial.map(|m| m.power).filter(|p| [0.0, 1.0, 2.0].contains(p));
        let squares = power == Some(2.0) && saved.factored().totals_of_squares(&[]).is_none();
        if loss.is_some() && implicit == Implicit::Zeros && (power.is_none() || squares) {
            self.has_loss = false;
            self.notes.push(
                "Losses are left out: under this loss the implicit zeros have no \
                 closed form, and the data were not expanded."
                    .into(),
            );
        }
        let loss = loss.filter(|_| self.has_loss);

        add_stored(&mut sums, &list, &predictions, loss, floor);
        if implicit == Implicit::Zeros {
            let coefficient = monomial.map_or(0.0, |m| m.coefficient);
            add_implicit_zeros(&mut sums[0], saved, loss.and(power), coefficient);
        }
        Ok(sums)
    }

    fn leave_out(&mut self, why: &str) {
        (self.has_loss, self.has_predictions) = (false, false);
        self.notes.push(format!("Residuals are left out: {why}."));
    }
}

/// Multiplications from which on ŷ is not formed entry by entry: about half a minute.
const MOST_WORK: f64 = 4e10;
/// Stored entries whose ŷ are kept at a time.
const BATCH: usize = 1 << 20;
/// Entries whose losses are computed at a time.
const BLOCK: usize = 2048;

/// Adds sums over a part, whose indices begin at `starts`.
fn merge(to: &mut RoleTable, part: &RoleTable, starts: &[usize]) {
    for ((all, modes), (part_all, part_modes)) in to.iter_mut().zip(part) {
        all.add(part_all);
        for ((mode, part), &start) in modes.iter_mut().zip(part_modes).zip(starts) {
            mode.iter_mut().skip(start).zip(part).for_each(|(to, s)| to.add(s));
        }
    }
}

/// From a value for every entry.
fn dense(saved: &Saved, prepared: &Prepared, loss: Option<&Loss>, floor: f64) -> Result<RoleTable> {
    let values = prepared.values();
    let mut sums = table(prepared, values.shape());
    let blocks = Blocks::in_memory_order(values.shape(), values.strides());
    let walk = BlockWalk { prepared, loss, floor, blocks: &blocks };
    saved.factored().fold_blocks(
        &blocks,
        |block, predicted| Ok(walk.block(block, predicted)),
        |block, part| {
            let starts: Vec<usize> = block.iter().map(|r| r.start).collect();
            merge(&mut sums, &part, &starts);
        },
    )?;
    // Data that stay in their file may have changed meanwhile.
    prepared.check()?;
    Ok(sums)
}

struct BlockWalk<'a> {
    prepared: &'a Prepared,
    loss: Option<&'a Loss>,
    floor: f64,
    blocks: &'a Blocks,
}

impl BlockWalk<'_> {
    /// The sums over a block, whose entries lie in memory without gaps.
    fn block(&self, block: &[Range<usize>], predicted: &[f64]) -> RoleTable {
        let values = self.prepared.values();
        let axes = self.blocks.axes();
        let starts: Vec<usize> = block.iter().map(|r| r.start).collect();
        let sizes: Vec<usize> = block.iter().map(Range::len).collect();
        let offset = values.offset(&starts).unwrap_or(0);
        let parameters: Vec<Vec<f64>> = self
            .loss
            .map_or(&[][..], |loss| loss.entry_parameters())
            .iter()
            .map(|parameter| {
                let mut view = parameter.view().permuted_axes(axes);
                for (p, &axis) in axes.iter().enumerate() {
                    view.slice_axis_inplace(ndarray::Axis(p), block[axis].clone().into());
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
            let parts: Vec<&[f64]> = parameters.iter().map(|p| &p[start..start + n]).collect();
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
                    let entry = ResidualSums {
                        entries: 1.0,
                        weight,
                        observed: weight * x[i],
                        predicted: weight * self.expected(predicted[start + i], &parts, i),
                        loss: weight * losses[i],
                    };
                    let (all, modes) = &mut sums[at];
                    all.add(&entry);
                    for (mode, &i) in modes.iter_mut().zip(&index) {
                        mode[i].add(&entry);
                    }
                }
                self.blocks.advance(&mut index, &sizes);
            }
        }
        sums
    }

    /// What the model expects of an entry, in the unit of the data.
    fn expected(&self, y: f64, parameters: &[&[f64]], i: usize) -> f64 {
        match self.loss.filter(|loss| loss.is_odds()) {
            None => y,
            Some(loss) => {
                let parameters: Vec<f64> = parameters.iter().map(|p| p[i]).collect();
                loss.domain().trials(&parameters).unwrap_or(1.0) * y / (1.0 + y)
            }
        }
    }
}
