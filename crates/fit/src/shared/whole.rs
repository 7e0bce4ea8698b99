//! What is known of all data, from numbers of every slab that every process has: unit and mean, entries by
//! role, what lies outside the loss's domain.

use super::link::Link;
use super::slabs::Split;
use super::tree::Numbers;
use crate::constraints::Constraints;
use crate::monitor::Portions;
use crate::prepare::{domain_error, outside_domain};
use crate::settings::{Algorithm, Settings};
use crate::start::trials_of;
use nneinfact_core::data::{
    Fingerprint, Implicit, Labels, Outside, Prepared, Role, SplitKind, StoredCounts, check_counts,
    digest,
};
use nneinfact_core::error::Result;
use nneinfact_core::loss::Loss;
use nneinfact_core::model::Model;

/// A slab's data, in the loss with its parameters.
pub(super) struct SlabData {
    pub data: Prepared,
    pub loss: Loss,
    /// Which of all slabs it is.
    pub number: usize,
}

/// What is known of all data.
pub(super) struct Whole {
    /// With what engines leave out of losses.
    pub portions: Portions,
    /// The mean of the training entries.
    pub mean: f64,
    /// The trials of all entries, where a loss has some for each: their number and sum.
    pub trials: Option<[f64; 2]>,
    /// Whether all entries are trained on, and have no weights.
    pub plain: bool,
    /// Whether an entry is missing or withheld.
    pub masked: bool,
    /// What weights are kept in.
    pub weight_unit: f64,
    /// Bytes of a value and of a weight, of the slab that has most.
    pub value_bytes: usize,
    pub weight_bytes: usize,
    /// How many entries are stored, where the data are lists.
    pub stored: Option<StoredCounts>,
    /// How many entries lists of those that differ in what they count have.
    pub listed: u64,
    /// Whether weights stay in a file.
    pub weights_mapped: bool,
    /// The largest training entry, and the mean of these whatever their signs.
    pub largest: f64,
    pub plain_mean: f64,
    /// `Σ W y²` over the training entries, where the fit asks for it.
    pub squares: f64,
}

/// The numbers of a slab, apart from an index.
const NUMBERS: usize = 31;

/// Finds out what holds for all data.
///
/// # Errors
/// Where nothing is left to train on, or an observed entry is outside the loss's domain: the same error
/// on every process.
pub(super) fn whole(
    link: &mut Link,
    split: &Split,
    settings: &Settings,
    slabs: &[SlabData],
    labels: &[Labels],
) -> Result<Whole> {
    let (modes, loss) = (split.shape.len(), &settings.loss);
    let squared = settings.algorithm == Algorithm::Barrier;
    let own = slabs.iter().map(|slab| Some(numbers(split, slab, squared))).collect();
    let counts = vec![NUMBERS + modes; split.ranges.len()];
    let all = link.join(&counts, own)?;
    let all: Vec<&[f64]> = all.chunks_exact(NUMBERS + modes).collect();
    let add = |at: usize| all.iter().map(|slab| slab[at]).sum::<f64>();
    let most = |at: usize| all.iter().map(|slab| slab[at]).fold(0.0, f64::max);
    let portions = all.iter().map(|slab| &slab[..12]).fold([0.0; 12], |mut sums, slab| {
        sums.iter_mut().zip(slab).for_each(|(sum, x)| *sum += x);
        sums
    });
    let counts: [f64; 4] = std::array::from_fn(|role| portions[role]);
    check_counts(counts.map(|count| count as u64))?;
    let lists = most(16) > 0.0;
    if let Some(outside) = first_outside(&all) {
        return Err(domain_error(loss, outside, labels, lists));
    }
    let split_kind = match most(25) as u64 {
        0 => None,
        1 => Some(SplitKind::Cells),
        _ => Some(SplitKind::Strata),
    };
    let portions = Portions::of_numbers(&portions, split_kind);
    let masked = counts[0] + counts[2] + counts[3] > 0.0;
    let all_entries: f64 = counts.iter().sum();
    let stored = lists.then(|| StoredCounts {
        implicit: match most(17) as u64 {
            0 => Implicit::Missing,
            1 => Implicit::Zeros,
            _ => Implicit::ByRole,
        },
        train: add(18) as u64,
        masked: add(19) as u64,
    });
    Ok(Whole {
        listed: match stored {
            Some(StoredCounts { implicit: Implicit::Missing, train, .. }) => train,
            Some(StoredCounts { implicit: Implicit::Zeros, masked, .. }) => masked,
            _ if most(14) > 0.0 => all_entries as u64,
            _ => (all_entries - counts.iter().copied().fold(0.0, f64::max)) as u64,
        },
        weights_mapped: most(28) > 0.0,
        squares: add(29),
        largest: all.iter().map(|slab| slab[30]).fold(f64::NEG_INFINITY, f64::max),
        plain_mean: portions.mean(add(12), Role::Train).unwrap_or(0.0),
        // Of negative data, as they are not the mean but the mean of max(x, 0).
        mean: portions
            .mean(if most(26) > 0.0 { add(27) } else { add(12) }, Role::Train)
            .unwrap_or(f64::NAN),
        portions,
        trials: (most(20) > 0.0).then(|| [add(20), add(21)]),
        plain: !masked && most(14) == 0.0,
        masked,
        // Slabs keep weights in the same unit, and those without weights in none.
        weight_unit: all.iter().map(|slab| slab[22]).find(|&unit| unit != 1.0).unwrap_or(1.0),
        value_bytes: most(13) as usize,
        weight_bytes: most(14) as usize,
        stored,
    })
}

/// What a slab tells of itself.
fn numbers(split: &Split, slab: &SlabData, squared: bool) -> Numbers {
    let SlabData { data, loss, number } = slab;
    let mut portions = Portions::of(data);
    portions.add_offsets(loss, data, 1.0);
    let mut all: Numbers = portions.numbers().to_vec();
    let stored = data.stored_counts(loss.accepts_zeros()).into_iter().next();
    let implicit = stored.map_or(0.0, |counts| match counts.implicit {
        Implicit::Missing => 0.0,
        Implicit::Zeros => 1.0,
        Implicit::ByRole => 2.0,
    });
    let [given, sum] = trials_of(loss).unwrap_or([0.0; 2]);
    let bytes = data.coo().map_or(data.values().storage(), |list| list.values()).kind().bytes();
    all.extend([
        data.sum(),
        bytes as f64,
        data.weights().map_or(0.0, |weights| weights.storage().kind().bytes() as f64),
        f64::from(u8::from(data.roles().is_some())),
        f64::from(u8::from(data.coo().is_some())),
        implicit,
        stored.map_or(0.0, |counts| counts.train as f64),
        stored.map_or(0.0, |counts| counts.masked as f64),
        given,
        sum,
        data.weight_unit(),
    ]);
    let outside = outside_domain(loss, data);
    all.extend(outside.as_ref().map_or([0.0; 2], |outside| [outside.count as f64, outside.value]));
    all.push(match data.split_kind() {
        None => 0.0,
        Some(SplitKind::Strata) => 2.0,
        Some(SplitKind::Cells | SplitKind::Auto) => 1.0,
    });
    all.push(f64::from(u8::from(data.has_negative())));
    all.push(match data.has_negative() {
        true => data.level() * data.portion(Role::Train).weight,
        false => data.sum(),
    });
    let squares = squared.then(|| data.sums_by_role(|x, _| x * x, Some(0.0)));
    all.extend([
        f64::from(u8::from(data.weights().is_some_and(|weights| weights.is_mapped()))),
        squares.map_or(0.0, |sums| sums[Role::Train as usize]),
        data.max(),
    ]);
    let mut index = outside.map_or_else(|| vec![0; data.shape().len()], |outside| outside.index);
    index[split.mode] += split.ranges[*number].start;
    all.extend(index.into_iter().map(|i| i as f64));
    all
}

/// Of what the slabs have found outside, the first in C order of the whole data.
fn first_outside(all: &[&[f64]]) -> Option<Outside> {
    let found = all.iter().filter(|slab| slab[23] > 0.0).map(|slab| Outside {
        count: slab[23] as u64,
        value: slab[24],
        index: slab[NUMBERS..].iter().map(|&i| i as usize).collect(),
    });
    found.reduce(|one, other| {
        let count = one.count.saturating_add(other.count);
        let first = if other.index < one.index { other } else { one };
        Outside { count, ..first }
    })
}

/// What the user should know of fixed factors that are zero where the data are not.
pub(super) fn dead(
    link: &mut Link,
    split: &Split,
    slabs: &[SlabData],
    constraints: &Constraints,
    model: &Model,
) -> Result<Vec<String>> {
    let zeros = constraints.zero_slices(model);
    let each = 1 + split.shape.len();
    let of_slab = |slab: &SlabData| -> Option<Numbers> {
        let first = split.ranges[slab.number].start;
        let numbers = zeros.iter().flat_map(|zeros| {
            let outside = zeros.out_of_reach(&slab.data, Some((split.mode, first)));
            let Some(Outside { count, mut index, .. }) = outside else { return vec![0.0; each] };
            index[split.mode] += first;
            std::iter::once(count as f64).chain(index.into_iter().map(|i| i as f64)).collect()
        });
        Some(numbers.collect())
    };
    let counts = vec![each * zeros.len(); split.ranges.len()];
    let all = link.join(&counts, slabs.iter().map(of_slab).collect())?;
    let mut warnings = Vec::new();
    for (n, zeros) in zeros.iter().enumerate() {
        let of = all.chunks_exact(each).skip(n).step_by(counts[0] / each);
        let found: Vec<&[f64]> = of.filter(|slab| slab[0] > 0.0).collect();
        let index = |slab: &&[f64]| slab[1..].iter().map(|&i| i as usize).collect::<Vec<usize>>();
        if let Some(first) = found.iter().map(index).min() {
            let count = found.iter().map(|slab| slab[0]).sum::<f64>() as u64;
            warnings.push(zeros.warning(model, count, &first));
        }
    }
    Ok(warnings)
}

/// What tells these data from others, whoever has which of them.
pub(super) fn fingerprint(
    link: &mut Link,
    split: &Split,
    slabs: &[SlabData],
) -> Result<Fingerprint> {
    let own = slabs.iter().map(|slab| {
        let Fingerprint { values, roles, weights } = slab.data.fingerprint();
        let parameters = slab.loss.entry_parameters();
        let bits = parameters.iter().flat_map(|parameter| parameter.iter().map(|x| x.to_bits()));
        let words = [digest([values].into_iter().chain(bits)), roles, weights];
        let halves = words.iter().flat_map(|word| [word >> 32, word & 0xffff_ffff]);
        Some(halves.map(|half| half as f64).collect())
    });
    let own = own.collect();
    let all = link.join(&vec![6; split.ranges.len()], own)?;
    let of = |which: usize| {
        let word = |slab: &[f64]| (slab[2 * which] as u64) << 32 | slab[2 * which + 1] as u64;
        digest(all.chunks_exact(6).map(word))
    };
    Ok(Fingerprint { values: of(0), roles: of(1), weights: of(2) })
}
