//! The sweeps of a cross interpolation.

use faer::Mat;

use super::function::{Function, Halt};
use super::maxvol::maxvol;
use super::{BLOCK_BYTES, Cross, CrossTrain};
use crate::algebra::rank_of;
use crate::core::Core;
use crate::error::Error;
use crate::indices::Indices;
use crate::linalg::{self, ThinSvd, norm};
use crate::random::{Purpose, Stream};
use crate::train::TensorTrain;

/// Start points that climb, and rounds of climbing.
const CLIMBERS: usize = 2;
const ROUNDS: usize = 2;
/// Start points, with those that do not climb.
const STARTS: usize = 4;

/// Heads or tails of index tuples.
type Tuples = Vec<Vec<usize>>;

/// A cross interpolation on its way.
pub(crate) struct Crossing<'c, 'f> {
    settings: &'c Cross,
    f: &'c mut Function<'f>,
    /// For each bond k, heads of k modes.
    heads: Vec<Tuples>,
    /// For each bond k, tails of the modes from k.
    tails: Vec<Tuples>,
    check: Indices,
    /// Values at the check points as the function gives them.
    check_raw: Vec<f64>,
    /// The truncation of one bond.
    share: f64,
}

/// Cores and whether the largest rank cut something off.
struct Swept {
    cores: Vec<Core>,
    truncated: bool,
}

/// Where a sweep looks at the function.
#[derive(Clone, Copy)]
enum Block {
    /// Heads and a mode to the left of a bond, the next mode and tails to its right.
    TwoModes,
    /// Heads and a mode to the left of a bond, tails of all modes to its right.
    OneMode,
}

impl<'c, 'f> Crossing<'c, 'f> {
    /// Looks at start points and check points.
    pub fn begin(settings: &'c Cross, f: &'c mut Function<'f>) -> Result<Self, Halt> {
        let sizes = &settings.sizes;
        let d = sizes.len();
        let starts = match &settings.starts {
            Some(starts) => starts.iter().map(<[usize]>::to_vec).collect(),
            None => default_starts(settings, f)?,
        };
        let start_raw = f.raw(starts.len(), |at, tuple| tuple.extend_from_slice(&starts[at]))?;
        let check: Vec<usize> = (0..settings.check)
            .flat_map(|row| (0..d).map(move |k| (row, k)))
            .map(|(row, k)| {
                Stream::new(settings.seed, Purpose::CrossCheck, k as u64)
                    .below(sizes[k], row as u64)
            })
            .collect();
        let check = Indices::raw(d, check);
        let check_raw = f.raw(settings.check, |at, tuple| tuple.extend_from_slice(check.at(at)))?;
        let top = |values: &[f64]| values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        f.reference = top(&start_raw);
        if !f.reference.is_finite() {
            // Zero at all start points: perhaps not at the others.
            f.reference = top(&check_raw);
        }
        if !f.reference.is_finite() {
            return Err(Halt::Failed(Error::Numeric(format!(
                "the function is zero at all {} points looked at; give start points where it is not",
                f.evaluations
            ))));
        }
        let parts = |of: &dyn Fn(&[usize]) -> Vec<usize>| unique(starts.iter().map(|s| of(s)));
        let heads = (0..d).map(|k| parts(&|s| s[..k].to_vec())).collect();
        let tails = (0..=d).map(|k| parts(&|s| s[k..].to_vec())).collect();
        let share = settings.tol / ((d - 1) as f64).sqrt();
        Ok(Crossing { settings, f, heads, tails, check, check_raw, share })
    }

    /// All sweeps.
    pub fn run(mut self, notices: &mut Vec<String>) -> Result<CrossTrain, Halt> {
        let (mut errors, mut ranks) = (Vec::new(), Vec::new());
        let mut last = None;
        for sweep in 0..self.settings.max_sweeps {
            let swept = match self.sweep(sweep) {
                Err(Halt::Budget) if last.is_some() => {
                    notices.push(format!(
                        "the evaluations allowed ended the interpolation after {sweep} sweeps"
                    ));
                    break;
                }
                swept => swept?,
            };
            let (error, worst) = self.measure(&swept.cores);
            errors.push(error);
            ranks.push(swept.cores[1..].iter().map(Core::left).collect());
            let halved = |back: usize| sweep < back || error <= 0.5 * errors[sweep - back];
            // Where the largest rank cuts off, only the choice of tuples can still become better.
            let stands = !halved(2) || swept.truncated && !halved(1);
            last = Some(swept);
            if error <= self.settings.tol || stands {
                break;
            }
            self.enrich(&worst);
        }
        // At least one sweep was made, or the error of the first has been returned.
        let Some(Swept { cores, truncated }) = last else { return Err(Halt::Budget) };
        if truncated {
            notices
                .push(format!("the largest rank, {}, cut something off", self.settings.max_rank));
        }
        let converged = errors.last().is_some_and(|&e| e <= self.settings.tol);
        Ok(CrossTrain {
            train: TensorTrain { cores, log_scale: 0.0 },
            errors,
            ranks,
            evaluations: 0,
            truncated,
            converged,
            notices: Vec::new(),
        })
    }

    /// One sweep; half of it begins again where the reference was moved.
    fn sweep(&mut self, sweep: usize) -> Result<Swept, Halt> {
        let truncated = loop {
            match self.leftwards(sweep) {
                Err(Halt::Moved) => {}
                other => break other?,
            }
        };
        let cores = loop {
            match self.rightwards() {
                Err(Halt::Moved) => {}
                other => break other?,
            }
        };
        Ok(Swept { cores, truncated })
    }

    /// From right to left: chooses the tails, on blocks of two modes, as only these show that a rank has
    /// to grow. Says whether the largest rank cut something off.
    fn leftwards(&mut self, sweep: usize) -> Result<bool, Halt> {
        let mut truncated = false;
        for k in (0..self.settings.sizes.len() - 1).rev() {
            let svd = self.block(k, Block::TwoModes)?;
            let full = rank_of(&svd.s, self.share, usize::MAX);
            let r = full.min(self.settings.max_rank);
            truncated |= full > r;
            let kicked = self.kicked(&svd, r, sweep, k);
            let (rows, _) = maxvol(kicked.as_ref());
            let beyond = &self.tails[k + 2];
            self.tails[k + 1] = rows
                .iter()
                .map(|row| {
                    let mut tail = vec![row / beyond.len()];
                    tail.extend_from_slice(&beyond[row % beyond.len()]);
                    tail
                })
                .collect();
        }
        Ok(truncated)
    }

    /// From left to right: chooses the heads, and makes the cores. The tails that were chosen stand for
    /// all others, so one mode at a time is enough, at a fraction of the evaluations.
    fn rightwards(&mut self) -> Result<Vec<Core>, Halt> {
        let sizes = &self.settings.sizes;
        let d = sizes.len();
        let mut cores = Vec::with_capacity(d);
        for k in 0..d - 1 {
            let svd = self.block(k, Block::OneMode)?;
            let r = rank_of(&svd.s, self.share, self.settings.max_rank);
            let (rows, c) = maxvol(svd.u.as_ref().subcols(0, r));
            cores.push(Core::raw(self.heads[k].len(), sizes[k], r, linalg::row_major(c.as_ref())));
            let before = &self.heads[k];
            let heads = rows.iter().map(|row| {
                let mut head = before[row / sizes[k]].clone();
                head.push(row % sizes[k]);
                head
            });
            let heads = heads.collect();
            self.heads[k + 1] = heads;
        }
        let (heads, n) = (&self.heads[d - 1], sizes[d - 1]);
        let last = self.f.values(heads.len() * n, |at, tuple| {
            tuple.extend_from_slice(&heads[at / n]);
            tuple.push(at % n);
        })?;
        cores.push(Core::raw(heads.len(), n, 1, last));
        Ok(cores)
    }

    /// The values around the bond right of mode k, decomposed: `f(head, i, j, tail)`, or `f(head, i, tail)`.
    fn block(&mut self, k: usize, block: Block) -> Result<ThinSvd, Halt> {
        let sizes = &self.settings.sizes;
        let (heads, n) = (&self.heads[k], sizes[k]);
        let (m, tails) = match block {
            Block::TwoModes => (sizes[k + 1], &self.tails[k + 2]),
            Block::OneMode => (1, &self.tails[k + 1]),
        };
        let (rows, cols) = (heads.len() * n, m * tails.len());
        let needed = (rows as u64).saturating_mul(cols as u64).saturating_mul(8);
        let what = || format!("the values around modes {k} and {}", k + 1);
        if needed > BLOCK_BYTES {
            return Err(Halt::Failed(Error::Memory {
                what: what(),
                needed,
                available: BLOCK_BYTES,
                help: "a smaller largest rank, or smaller modes, need less".into(),
            }));
        }
        let values = self.f.values(rows * cols, |at, tuple| {
            let (row, col) = (at / cols, at % cols);
            tuple.extend_from_slice(&heads[row / n]);
            tuple.push(row % n);
            if let Block::TwoModes = block {
                tuple.push(col / tails.len());
            }
            tuple.extend_from_slice(&tails[col % tails.len()]);
        })?;
        Ok(linalg::svd(&values, rows, cols, &what())?)
    }

    /// The first right singular vectors with some random ones, orthonormal.
    fn kicked(&self, svd: &ThinSvd, r: usize, sweep: usize, k: usize) -> Mat<f64> {
        let rows = svd.v.nrows();
        // More tails than the largest rank: of what they show the heads' half-sweep keeps the best.
        let extra = self.settings.kick.min(rows - r.min(rows));
        if extra == 0 {
            return svd.v.as_ref().subcols(0, r).to_owned();
        }
        let part = (sweep * self.settings.sizes.len() + k) as u64;
        let stream = Stream::new(self.settings.seed, Purpose::CrossKick, part);
        let wide = Mat::from_fn(rows, r + extra, |i, j| {
            if j < r { svd.v[(i, j)] } else { stream.normal((i * extra + j - r) as u64) }
        });
        linalg::qr(wide.as_ref()).0
    }

    /// The relative error on the check points, and the points of the largest.
    fn measure(&self, cores: &[Core]) -> (f64, Vec<usize>) {
        let mut want = self.check_raw.clone();
        self.f.exponentiate(&mut want);
        let train = TensorTrain { cores: cores.to_vec(), log_scale: 0.0 };
        let got = train.values_at(&self.check);
        let residual: Vec<f64> = got.iter().zip(&want).map(|(g, w)| (g - w).abs()).collect();
        let (off, all) = (norm(&residual), norm(&want));
        let error = match (off > 0.0, all > 0.0) {
            (false, _) => 0.0,
            (true, true) => off / all,
            (true, false) => f64::INFINITY,
        };
        let mut worst: Vec<usize> = (0..residual.len()).collect();
        worst.sort_by(|&a, &b| residual[b].total_cmp(&residual[a]));
        worst.truncate(self.settings.enrich);
        (error, worst)
    }

    /// Heads of the worst check points join the index sets. Without them a long-range term is missed.
    fn enrich(&mut self, worst: &[usize]) {
        for k in 1..self.heads.len() {
            let added = worst.iter().map(|&row| self.check.at(row)[..k].to_vec());
            let all = std::mem::take(&mut self.heads[k]);
            self.heads[k] = unique(all.into_iter().chain(added));
        }
    }
}

/// Random tuples, the first of which climb: each coordinate in turn to its best value. Peaks are
/// where the mass is; the others see the tails.
fn default_starts(settings: &Cross, f: &mut Function<'_>) -> Result<Tuples, Halt> {
    let sizes = &settings.sizes;
    let mut starts: Tuples = (0..STARTS)
        .map(|row| {
            let stream = Stream::new(settings.seed, Purpose::CrossStart, row as u64);
            sizes.iter().enumerate().map(|(k, &n)| stream.below(n, k as u64)).collect()
        })
        .collect();
    for start in &mut starts[..CLIMBERS] {
        for _ in 0..ROUNDS {
            for k in 0..sizes.len() {
                let values = f.raw(sizes[k], |i, tuple| {
                    tuple.extend_from_slice(start);
                    let at = tuple.len() - sizes.len() + k;
                    tuple[at] = i;
                })?;
                let mut best = 0;
                for (i, &value) in values.iter().enumerate() {
                    if f.size(value) > f.size(values[best]) {
                        best = i;
                    }
                }
                start[k] = best;
            }
        }
    }
    Ok(starts)
}

/// Tuples without their repetitions, in the order of their first places.
fn unique(tuples: impl Iterator<Item = Vec<usize>>) -> Tuples {
    let mut seen = std::collections::HashSet::new();
    tuples.filter(|t| seen.insert(t.clone())).collect()
}
