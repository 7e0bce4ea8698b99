//! Where a fit begins: the target at norm 1, and the model's first cores. NTT.md, section 4.5.

use super::environments::Environments;
use super::first_order;
use super::settings::{Method, TrainFit};
use crate::algebra::contract_left;
use crate::core::Core;
use crate::error::{Error, Result};
use crate::linalg;
use crate::nonnegative::{NonnegativeTrain, check_ranks};
use crate::train::TensorTrain;

/// What the entries of a start that are 0 become, as a share of the largest of their core.
const RAISED: f64 = 1e-12;
/// Sweeps of the multiplicative update that a random start gets.
const WARM_SWEEPS: usize = 5;
/// The bytes that the contractions at all bonds may take.
const BONDS_BYTES: u64 = 16 << 30;
/// A target whose norm is this close to 1 is taken as it is.
const UNIT: f64 = 1e-12;

/// A target of norm 1.
pub(crate) struct Target {
    pub cores: Vec<Core>,
    /// The logarithm of what its norm was.
    pub log_norm: f64,
    /// Its squared norm as the contractions see it: 1 but for rounding.
    pub squared_norm: f64,
}

impl Target {
    /// Scales a train to norm 1: so a barrier has a meaning of its own.
    pub fn new(train: &TensorTrain) -> Result<Target> {
        let log_norm = train.log_norm();
        if !log_norm.is_finite() {
            return Err(Error::Numeric(
                "the target has norm 0 or one that is not finite; a fit needs a target that is \
                 neither"
                    .into(),
            ));
        }
        let (cores, log_norm) = if log_norm.abs() <= UNIT && train.log_scale() == 0.0 {
            (train.cores().to_vec(), 0.0)
        } else {
            // The norm is not 0, so no core is.
            let (mut cores, log) = train.unit_cores().unwrap_or_default();
            TensorTrain::spread(&mut cores, log - log_norm);
            (cores, log_norm)
        };
        let squared_norm = squared_norm(&cores);
        Ok(Target { cores, log_norm, squared_norm })
    }
}

/// `‖train‖²` by the contractions that the fit uses.
fn squared_norm(cores: &[Core]) -> f64 {
    let (mut m, mut e) = (vec![1.0], 0i64);
    for core in cores {
        m = contract_left(&m, core, core);
        e += i64::from(linalg::take_exponent(&mut m));
    }
    linalg::scale2(m[0], e.clamp(-5000, 5000) as i32)
}

/// The first cores of the model, at the scale where the target has norm 1.
pub(crate) fn start(
    fit: &TrainFit<'_>,
    target: &Target,
    sizes: &[usize],
    notices: &mut Vec<String>,
) -> Result<Vec<Core>> {
    if let Some(start) = &fit.start {
        return given(fit, start, target, sizes, notices);
    }
    let ranks = match (&fit.ranks, fit.rank) {
        (Some(_), Some(_)) => {
            return Err(Error::Setting(
                "one rank for all bonds and a list of ranks are both given; give one of them"
                    .into(),
            ));
        }
        (Some(ranks), None) => ranks.clone(),
        (None, Some(rank)) => vec![rank; sizes.len() - 1],
        (None, None) => {
            return Err(Error::Setting(
                "neither a rank nor a start is given; a fit needs one of them".into(),
            ));
        }
    };
    check_ranks(sizes.len(), &ranks)?;
    check_bonds(&ranks, target)?;
    random(target, sizes, &ranks, fit.seed)
}

/// A notice about ranks above what a bond can have: of the first such bond, and how many there are.
pub(crate) fn rank_notice(cores: &[Core]) -> Option<String> {
    let sizes: Vec<usize> = cores.iter().map(Core::size).collect();
    let most = |sizes: &[usize]| sizes.iter().fold(1usize, |n, &s| n.saturating_mul(s));
    let needed = |k: usize| most(&sizes[..k]).min(most(&sizes[k..]));
    let beyond: Vec<usize> = (1..cores.len()).filter(|&k| cores[k].left() > needed(k)).collect();
    let &first = beyond.first()?;
    let more = match beyond.len() - 1 {
        0 => String::new(),
        1 => format!("; so is the rank at another of the {} bonds", cores.len() - 1),
        n => format!("; so are the ranks at {n} others of the {} bonds", cores.len() - 1),
    };
    Some(format!(
        "the rank {} between {} and the others is more than the {} that any tensor of these sizes needs \
         there{more}",
        cores[first].left(),
        first_modes(first),
        needed(first)
    ))
}

/// The modes left of a cut, in words that do not depend on where counting begins.
pub(crate) fn first_modes(count: usize) -> String {
    if count == 1 { "the first mode".into() } else { format!("the first {count} modes") }
}

/// The error if contractions at all bonds would take too much memory.
fn check_bonds(ranks: &[usize], target: &Target) -> Result<()> {
    let bond = |(&r, g): (&usize, &Core)| {
        let (r, s) = (r as u64, g.right() as u64);
        r.saturating_mul(r.saturating_add(s)).saturating_mul(16)
    };
    let needed = ranks.iter().zip(&target.cores).map(bond).fold(0, u64::saturating_add);
    if needed <= BONDS_BYTES {
        return Ok(());
    }
    Err(Error::Memory {
        what: "the contractions at all bonds".into(),
        needed,
        available: BONDS_BYTES,
        help: "use smaller ranks".into(),
    })
}

/// A start from outside.
fn given(
    fit: &TrainFit<'_>,
    start: &NonnegativeTrain,
    target: &Target,
    sizes: &[usize],
    notices: &mut Vec<String>,
) -> Result<Vec<Core>> {
    let train = start.train();
    if train.sizes() != sizes {
        return Err(Error::Shape {
            what: "the start".into(),
            found: format!("sizes {:?}", train.sizes()),
            expected: format!("those of the target, {sizes:?}"),
        });
    }
    let wanted = fit.ranks.clone().or(fit.rank.map(|r| vec![r; sizes.len() - 1]));
    if let Some(wanted) = wanted.filter(|w| *w != train.ranks()) {
        return Err(Error::Setting(format!(
            "the start has ranks {:?}, but {wanted:?} are asked for; leave the ranks out, or give \
             those of the start",
            train.ranks()
        )));
    }
    check_bonds(&train.ranks(), target)?;
    let mut start = start.clone();
    let zeros = start.zeros();
    if zeros > 0 && fit.method != Method::Descent {
        if !fit.raise_zeros {
            return Err(Error::Init(format!(
                "{zeros} entries of the start are 0; a barrier, and a multiplicative update, need \
                 positive ones (they can be raised to {RAISED:e} of the largest of their core)"
            )));
        }
        start.raise_zeros(RAISED);
        if start.zeros() > 0 {
            return Err(Error::Init("a core of the start is zero everywhere".into()));
        }
        notices.push(format!(
            "{zeros} entries of the start were 0 and are raised to {RAISED:e} of the largest of \
             their core"
        ));
    }
    let scale = start.train.log_scale - target.log_norm;
    let mut cores = start.train.cores;
    if scale != 0.0 {
        // Balanced first where the scale is so large that a core could overflow.
        if (scale / cores.len() as f64).abs() > 300.0 {
            return Err(Error::Init(format!(
                "the start is larger than the target by a factor of e^{scale:.0}; start nearer"
            )));
        }
        TensorTrain::spread(&mut cores, scale);
    }
    Ok(cores)
}

/// Random cores at the target's scale, after some multiplicative updates.
fn random(target: &Target, sizes: &[usize], ranks: &[usize], seed: u64) -> Result<Vec<Core>> {
    let train = NonnegativeTrain::random(sizes, ranks, seed)?.into_train();
    let goal = TensorTrain { cores: target.cores.clone(), log_scale: 0.0 };
    let (sign, inner) = train.log_inner(&goal)?;
    let (_, own) = train.log_inner(&train)?;
    // The best multiple of the start; one of the target's norm where the best is not positive.
    let log = if sign > 0.0 { inner - own } else { -own / 2.0 };
    let scaled = TensorTrain { log_scale: log, ..train };
    let mut cores = scaled.balanced()?.cores;
    let mut env = Environments::new(&target.cores, &cores);
    for _ in 0..WARM_SWEEPS {
        for (k, forwards) in visits(cores.len()) {
            first_order::multiplicative(&env.node(k, &cores[k]), &mut cores[k]);
            if forwards { env.push(k, &cores[k]) } else { env.pull(k, &cores[k]) }
        }
    }
    Ok(TensorTrain { cores, log_scale: 0.0 }.balanced()?.cores)
}

/// The visits of a sweep: all cores forwards, then backwards.
pub(crate) fn visits(order: usize) -> impl Iterator<Item = (usize, bool)> {
    (0..order).map(|k| (k, true)).chain((0..order).rev().map(|k| (k, false)))
}

/// Powers of two between the cores, so that their norms are between 1 and 2 but for one factor of
/// all of them. Exact: the iteration does not see it.
pub(crate) fn rescale(cores: &mut [Core]) -> bool {
    let exponents: Vec<i64> = cores.iter().map(|c| exponent_of(c.norm())).collect();
    if exponents.iter().all(|e| e.abs() <= 64) {
        return false;
    }
    let (d, sum) = (cores.len() as i64, exponents.iter().sum::<i64>());
    for (k, (core, e)) in cores.iter_mut().zip(exponents).enumerate() {
        // Shares that add up to the sum exactly.
        let share = sum.div_euclid(d) + i64::from((k as i64) < sum.rem_euclid(d));
        linalg::scale2_all(core.data_mut(), (share - e) as i32);
    }
    true
}

fn exponent_of(norm: f64) -> i64 {
    if norm > 0.0 && norm.is_finite() { i64::from(linalg::exponent(norm)) } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rescaling_keeps_the_product() {
        let core = |x: f64| Core::raw(1, 1, 1, vec![x]);
        let mut cores = vec![core(3e40), core(5e-30), core(0.7)];
        assert!(rescale(&mut cores));
        let product: f64 = cores.iter().map(|c| c.data()[0]).product();
        assert_eq!(product, 3e40 * 5e-30 * 0.7);
        assert!(cores.iter().all(|c| c.data()[0] > 1e-3 && c.data()[0] < 1e6), "{cores:?}");
        assert!(!rescale(&mut cores));
    }
}
