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

/// The most indices of a mode that are tried in the first start point.
const AROUND: usize = 32;
/// How many times what the largest rank cut off an error may be to be due to it.
const EXPLAINED: f64 = 4.0;
/// How many times the size of the check points' values, for each value around a bond, counts as all of it: less
/// than that is cut off where peaks make these values larger.
const PEAKED: f64 = 10.0;
/// The least share of the values around a bond that those at the check points count as.
const LEAST_TYPICAL: f64 = 1e-4;
/// To what share of its last value the error has to fall for the sweep to have found all that there is around its
/// tuples: else check points join them.
const FAST: f64 = 0.1;
/// The least that is cut off at a bond, as a share of the values around it: below that are rounding errors.
const LEAST_SHARE: f64 = 1e-13;
/// By how much less is cut off after a sweep, at most.
const CLOSER: f64 = 1e-3;

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
    /// Whether blocks of two modes are looked at on the way left: they show at once how far a rank has to
    /// grow, for as many times the evaluations as a mode has indices.
    thorough: bool,
    check: Indices,
    /// Values at the check points as the function gives them.
    check_raw: Vec<f64>,
    /// The root of the mean square of the values at the check points, relative to the reference at the time.
    spread: f64,
    /// The truncation of one bond.
    share: f64,
    /// Whether all truncations of this sweep were at the least.
    at_least: bool,
}

/// Cores, and what the largest rank cut off, as a share of as many values as those at the check points.
struct Swept {
    cores: Vec<Core>,
    lost: f64,
}

/// The values around a bond, decomposed.
struct Around {
    svd: ThinSvd,
    /// How many values there are.
    count: usize,
}

/// The modes next to a bond whose indices a block goes through, beside heads and tails.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Block {
    Left,
    Right,
    Both,
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
        // Around the first start point pairs of neighbouring indices are looked at.
        let around = |k: usize| {
            let n = if k > 0 { sizes[k - 1] } else { 0 };
            let some = (0..n).step_by(n.div_ceil(AROUND).max(1)).map(move |i| (k - 1, i));
            some.map(|(at, i)| [&starts[0][..at], &[i]].concat())
        };
        let heads =
            (0..d).map(|k| unique(parts(&|s| s[..k].to_vec()).into_iter().chain(around(k))));
        let heads = heads.collect();
        let tails = (0..=d).map(|k| parts(&|s| s[k..].to_vec())).collect();
        let share = settings.tol / ((d - 1) as f64).sqrt();
        let thorough = false;
        let (spread, at_least) = (0.0, false);
        Ok(Crossing {
            settings,
            f,
            heads,
            tails,
            thorough,
            check,
            check_raw,
            spread,
            share,
            at_least,
        })
    }

    /// All sweeps.
    pub fn run(mut self, notices: &mut Vec<String>) -> Result<CrossTrain, Halt> {
        let (mut errors, mut ranks) = (Vec::new(), Vec::new());
        let mut last = None;
        // The sweep since which nothing was changed about them.
        let mut still_from = 0;
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
            let lost = swept.lost;
            last = Some(swept);
            let halved =
                |back: usize| sweep < still_from + back || error <= 0.5 * errors[sweep - back];
            // Where the largest rank cuts off, only the choice of tuples can still become better.
            let stands = sweep > 0 && error > 0.5 * errors[sweep - 1];
            let at_limit = lost > 0.0 && (error <= EXPLAINED * lost || stands);
            if error <= self.settings.tol || at_limit {
                break;
            }
            if self.cut_less(error) {
                still_from = sweep + 1;
            } else if !halved(2) {
                if self.thorough {
                    break;
                }
                self.thorough = true;
                still_from = sweep + 1;
            }
            let fast = sweep > 0 && error <= FAST * errors[sweep - 1];
            if !fast {
                self.enrich(&worst);
            }
        }
        // At least one sweep was made, or the error of the first has been returned.
        let Some(Swept { cores, lost }) = last else { return Err(Halt::Budget) };
        let truncated = lost > 0.0;
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

    /// Cuts less off at every bond where the error is above the tolerance; whether that makes a difference.
    fn cut_less(&mut self, error: f64) -> bool {
        self.share *= (0.25 * self.settings.tol / error).max(CLOSER);
        !self.at_least
    }

    /// One sweep; half of it begins again where the reference was moved.
    fn sweep(&mut self, sweep: usize) -> Result<Swept, Halt> {
        self.at_least = true;
        let lost = loop {
            match self.leftwards(sweep) {
                Err(Halt::Moved) => {}
                other => break other?,
            }
        };
        let (cores, lost_too) = loop {
            match self.rightwards(sweep) {
                Err(Halt::Moved) => {}
                other => break other?,
            }
        };
        Ok(Swept { cores, lost: lost.max(lost_too) })
    }

    /// From right to left: chooses the tails. Gives the share of the norm that the largest rank cut off.
    fn leftwards(&mut self, sweep: usize) -> Result<f64, Halt> {
        let mut lost = 0.0;
        self.spread = self.check_spread();
        let modes = if self.thorough { Block::Both } else { Block::Right };
        for bond in (1..self.settings.sizes.len()).rev() {
            let around = self.block(bond, modes)?;
            let (r, svd) = (self.rank(&around, &mut lost), around.svd);
            let kicked = self.kicked(&svd.v, r, 2 * sweep, bond);
            let (rows, _) = maxvol(kicked.as_ref());
            let beyond = &self.tails[bond + 1];
            let tails = rows.iter().map(|row| {
                let mut tail = vec![row / beyond.len()];
                tail.extend_from_slice(&beyond[row % beyond.len()]);
                tail
            });
            self.tails[bond] = tails.collect();
        }
        Ok(lost.sqrt())
    }

    /// From left to right: chooses the heads, and makes the cores.
    fn rightwards(&mut self, sweep: usize) -> Result<(Vec<Core>, f64), Halt> {
        let sizes = &self.settings.sizes;
        let d = sizes.len();
        let (mut cores, mut lost) = (Vec::with_capacity(d), 0.0);
        self.spread = self.check_spread();
        let mut additional: Vec<Tuples> = vec![Vec::new(); d];
        for bond in 1..d {
            let around = self.block(bond, Block::Left)?;
            let (r, svd) = (self.rank(&around, &mut lost), around.svd);
            let (rows, c) = maxvol(svd.u.as_ref().subcols(0, r));
            let (before, n) = (&self.heads[bond - 1], sizes[bond - 1]);
            cores.push(Core::raw(before.len(), n, r, linalg::row_major(c.as_ref())));
            let head = |&row: &usize| {
                let mut head = before[row / n].clone();
                head.push(row % n);
                head
            };
            let heads: Tuples = rows.iter().map(head).collect();
            // The train is made of these. On the way left some more let ranks grow.
            let kicked = self.kicked(&svd.u, r, 2 * sweep + 1, bond);
            let more = maxvol(kicked.as_ref()).0;
            let more = more.iter().filter(|row| !rows.contains(row)).take(self.settings.kick);
            additional[bond] = more.map(head).collect();
            self.heads[bond] = heads;
        }
        let (heads, n) = (&self.heads[d - 1], sizes[d - 1]);
        let last = self.f.values(heads.len() * n, |at, tuple| {
            tuple.extend_from_slice(&heads[at / n]);
            tuple.push(at % n);
        })?;
        cores.push(Core::raw(heads.len(), n, 1, last));
        for (heads, more) in self.heads.iter_mut().zip(additional) {
            heads.extend(more);
        }
        Ok((cores, lost.sqrt()))
    }

    /// The rank by singular values. Adds to the squared share that the largest rank cuts off.
    ///
    /// What is cut off is a share of the values around the bond; but these can have peaks among them, and a small
    /// share of a peak can be more than all that the error is measured on. So it is at most a share of as many
    /// values as those at the check points too.
    fn rank(&mut self, around: &Around, lost: &mut f64) -> usize {
        let s = &around.svd.s;
        let whole = norm(s);
        let typical = self.spread * (around.count as f64).sqrt();
        // Check points can miss all that there is.
        let typical = typical.max(LEAST_TYPICAL * whole).min(whole);
        let relative = if whole > 0.0 { (PEAKED * typical / whole).min(1.0) } else { 1.0 };
        let share = (self.share * relative).max(LEAST_SHARE);
        self.at_least &= share == LEAST_SHARE;
        let full = rank_of(s, share, usize::MAX);
        let r = full.min(self.settings.max_rank);
        if full > r {
            *lost += (norm(&s[r..]) / typical).powi(2);
        }
        r
    }

    /// The root of the mean square of the values at the check points.
    fn check_spread(&self) -> f64 {
        let mut values = self.check_raw.clone();
        self.f.exponentiate(&mut values);
        norm(&values) / (values.len() as f64).sqrt()
    }

    /// The values around a bond, decomposed: `f(head, i, j, tail)`, without i or j where their mode is not
    /// gone through.
    fn block(&mut self, bond: usize, modes: Block) -> Result<Around, Halt> {
        let sizes = &self.settings.sizes;
        let (n, heads) = match modes {
            Block::Right => (1, &self.heads[bond]),
            Block::Left | Block::Both => (sizes[bond - 1], &self.heads[bond - 1]),
        };
        let (m, tails) = match modes {
            Block::Left => (1, &self.tails[bond]),
            Block::Right | Block::Both => (sizes[bond], &self.tails[bond + 1]),
        };
        let (rows, cols) = (heads.len() * n, m * tails.len());
        let needed = (rows as u64).saturating_mul(cols as u64).saturating_mul(8);
        let what = || format!("the values around modes {} and {bond}", bond - 1);
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
            if modes != Block::Right {
                tuple.push(row % n);
            }
            if modes != Block::Left {
                tuple.push(col / tails.len());
            }
            tuple.extend_from_slice(&tails[col % tails.len()]);
        })?;
        let svd = linalg::svd(&values, rows, cols, &what())?;
        Ok(Around { svd, count: rows * cols })
    }

    /// The first singular vectors of one side with some random ones, orthonormal. They may be more than the
    /// largest rank: of what they show, the next half-sweep keeps the best.
    fn kicked(&self, vectors: &Mat<f64>, r: usize, half_sweep: usize, bond: usize) -> Mat<f64> {
        let rows = vectors.nrows();
        let extra = self.settings.kick.min(rows - r.min(rows));
        if extra == 0 {
            return vectors.as_ref().subcols(0, r).to_owned();
        }
        let part = (half_sweep * self.settings.sizes.len() + bond) as u64;
        let stream = Stream::new(self.settings.seed, Purpose::CrossKick, part);
        let wide = Mat::from_fn(rows, r + extra, |i, j| {
            if j < r { vectors[(i, j)] } else { stream.normal((i * extra + j - r) as u64) }
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
