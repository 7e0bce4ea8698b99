use ndarray::{ArrayD, IxDyn};

use super::*;
use nneinfact_core::data::{Observations, StoredCounts};
use nneinfact_core::model::{Index, Model};
use nneinfact_core::plan::Group;

/// Numbers from 0 to 1, the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 40) as f64 / (1u64 << 24) as f64
    }
}

/// What an entry counts, and for which role.
type Counted = (Role, f64);

/// Sums of the group `members` over all entries and latent indices, entry by entry: over the training
/// entries `Σ W V` or `Σ W V Vᵀ` with these indices, and `Σ ŷ` or `Σ ŷ²` by role.
fn naive(
    shapes: &Shapes,
    members: &[usize],
    term: RoleTerm,
    indices: &[Index],
    factors: &[Vec<f64>],
    counted: &[Counted],
) -> (Vec<f64>, [f64; 4]) {
    let model = shapes.model();
    let observed = model.output();
    let latent: Vec<Index> = model.latent().iter().collect();
    let pairs = shapes.doubled().expect("indices are left").1;
    let kept: Vec<Index> = latent.iter().copied().filter(|x| indices.contains(x)).collect();
    let mut at = [0usize; 52];
    let number = |list: &[Index], at: &[usize; 52], of: &dyn Fn(Index) -> usize| -> usize {
        list.iter().fold(0, |n, &x| n * of(x) + at[x.index()])
    };
    let size = |x: Index| match pairs.iter().find(|p| p.1 == x) {
        Some(&(plain, _)) => shapes.size(plain),
        None => shapes.size(x),
    };
    let mut sums = vec![0.0; indices.iter().map(|&x| size(x)).product()];
    let mut predicted = [0.0; 4];
    let volume: usize = observed.iter().map(|&x| shapes.size(x)).product();
    let ranks: usize = latent.iter().map(|&x| shapes.size(x)).product();
    let kept_volume: usize = kept.iter().map(|&x| shapes.size(x)).product();
    let unpack = |list: &[Index], mut linear: usize, at: &mut [usize; 52]| {
        for &x in list.iter().rev() {
            at[x.index()] = linear % shapes.size(x);
            linear /= shapes.size(x);
        }
    };
    assert_eq!(counted.len(), volume);
    for (entry, &(role, weight)) in counted.iter().enumerate() {
        unpack(observed, entry, &mut at);
        let (mut v, mut y) = (vec![0.0; kept_volume], 0.0);
        // Latent indices that only the group has are no sum of V's: they are taken once.
        let only_own: Vec<Index> = latent
            .iter()
            .copied()
            .filter(|x| {
                let others = (0..factors.len()).filter(|l| !members.contains(l));
                !others.into_iter().any(|l| model.factors()[l].contains(x))
            })
            .collect();
        for r in 0..ranks {
            unpack(&latent, r, &mut at);
            let value =
                |l: usize| factors[l][number(&model.factors()[l], &at, &|x| shapes.size(x))];
            let others: f64 =
                (0..factors.len()).filter(|l| !members.contains(l)).map(value).product();
            y += others * members.iter().map(|&l| value(l)).product::<f64>();
            if only_own.iter().all(|x| at[x.index()] == 0) {
                v[number(&kept, &at, &|x| shapes.size(x))] += others;
            }
        }
        predicted[role as usize] += if term == RoleTerm::Linear { y } else { y * y };
        if role != Role::Train {
            continue;
        }
        for s in 0..kept_volume {
            unpack(&kept, s, &mut at);
            match term {
                RoleTerm::Linear => sums[number(indices, &at, &size)] += weight * v[s],
                RoleTerm::Pairs => {
                    for t in 0..kept_volume {
                        let mut second = [0usize; 52];
                        unpack(&kept, t, &mut second);
                        for &(plain, other) in &pairs {
                            at[other.index()] = second[plain.index()];
                        }
                        sums[number(indices, &at, &size)] += weight * v[s] * v[t];
                    }
                }
            }
        }
    }
    (sums, predicted)
}

/// A share of entries that train, and one that is for validation; the others are missing or held out.
fn roles(random: &mut Random, volume: usize, [train, validation]: [f64; 2]) -> Vec<Role> {
    let role = |x: f64| match x {
        x if x < train => Role::Train,
        x if x < train + validation => Role::Validation,
        x if x < 0.5 + 0.5 * (train + validation) => Role::Missing,
        _ => Role::HeldOut,
    };
    (0..volume).map(|_| role(random.next())).collect()
}

fn prepared(shape: &[usize], roles: &[Role], weights: Option<&[f64]>, fortran: bool) -> Prepared {
    let array = |of: &dyn Fn(usize) -> f64| {
        let data = (0..roles.len()).map(of).collect();
        ArrayD::from_shape_vec(IxDyn(shape), data).expect("the shape's volume")
    };
    let flags = |role: Role| {
        let data = roles.iter().map(|&r| r == role).collect();
        ArrayD::from_shape_vec(IxDyn(shape), data).expect("the shape's volume")
    };
    let y = array(&|i| (i % 5) as f64);
    let y = match fortran {
        true => {
            let axes: Vec<usize> = (0..shape.len()).rev().collect();
            let turned = y.permuted_axes(axes.as_slice()).as_standard_layout().into_owned();
            turned.permuted_axes(axes)
        }
        false => y,
    };
    let mut o = Observations::new(&y).mask(&flags(Role::Missing).mapv(|b| !b)).expect("a mask");
    if roles.contains(&Role::HeldOut) {
        o = o.held_out_mask(&flags(Role::HeldOut)).expect("a mask");
    }
    if roles.contains(&Role::Validation) {
        let flags = flags(Role::Validation);
        let mut list = nneinfact_core::data::CooBuilder::new(shape.len());
        for (at, _) in flags.indexed_iter().filter(|(_, v)| **v) {
            let at = ndarray::Dimension::slice(&at).to_vec();
            list.push(&at.iter().map(|&i| i as u64).collect::<Vec<_>>(), 1.0).expect("an entry");
        }
        o = o.validation_at(list.finish(Some(shape)).expect("a list")).expect("a list");
    }
    if let Some(weights) = weights {
        o = o.weights(array(&|i| weights[i])).expect("weights");
    }
    o.prepare().expect("observations")
}

struct Case {
    text: &'static str,
    shape: &'static [usize],
    ranks: &'static [(char, usize)],
    members: &'static [usize],
}

const CASES: [Case; 8] = [
    Case { text: "ir,jr->ij", shape: &[3, 700], ranks: &[('r', 5)], members: &[0] },
    Case { text: "ir,jr->ij", shape: &[600, 3], ranks: &[('r', 20)], members: &[0] },
    Case { text: "ir,jr->ij", shape: &[300, 300], ranks: &[('r', 3)], members: &[1] },
    Case {
        text: "wr,dr,hr,irk,jrk->wdhij",
        shape: &[3, 2, 4, 5, 6],
        ranks: &[('r', 3), ('k', 2)],
        members: &[3, 4],
    },
    Case {
        text: "wr,dr,hr,irk,jrk->wdhij",
        shape: &[3, 2, 4, 5, 6],
        ranks: &[('r', 3), ('k', 2)],
        members: &[1],
    },
    Case { text: "ijr,ikr->ijk", shape: &[4, 3, 40], ranks: &[('r', 2)], members: &[0] },
    Case { text: "ijr->ij", shape: &[4, 3], ranks: &[('r', 2)], members: &[0] },
    Case {
        text: "ar,br,cs,rs->abc",
        shape: &[4, 5, 3],
        ranks: &[('r', 2), ('s', 3)],
        members: &[3],
    },
];

fn check<T: Elementwise>(case: &Case, roles: &[Role], weights: Option<&[f64]>, fortran: bool) {
    let model = Model::parse(case.text).expect("a model");
    let shapes = Shapes::new(&model, case.shape, case.ranks).expect("sizes");
    let mut random = Random(7);
    let mut factor = |l: usize| -> Vec<f64> {
        let volume: usize = shapes.factor(l).iter().product();
        (0..volume).map(|_| 0.1 + random.next()).collect()
    };
    let mut factors: Vec<Vec<f64>> = (0..model.factors().len()).map(&mut factor).collect();
    // One column makes up nearly all of a component.
    if let Some(last) = factors.iter_mut().rev().find(|f| f.len() > 4) {
        last[0] *= 1e5;
    }
    let data = prepared(case.shape, roles, weights, fortran);
    let group = Group { factors: case.members.to_vec(), updates: Vec::new() };
    for term in [RoleTerm::Linear, RoleTerm::Pairs] {
        let pass = RolePass::new(&shapes, &group, term, data.minority(), T::BYTES).expect("a pass");
        let grid = Grid::new(&shapes, &pass, data.values().strides());
        let source = match (data.weights(), data.roles()) {
            (Some(_), _) => Source::Weights,
            (None, Some(roles)) => Source::Lists(Arc::new(by_roles(&grid, roles))),
            (None, None) => continue,
        };
        let masked = MaskedGroup::new(&shapes, pass, Arc::new(grid), source);
        let counted: Vec<Counted> = roles
            .iter()
            .enumerate()
            .map(|(i, &role)| (role, weights.map_or(1.0, |w| w[i])))
            .collect();
        let indices = masked.pass.indices();
        let (expected, by_role) = naive(&shapes, case.members, term, indices, &factors, &counted);
        for wanted in [false, true] {
            let found = masked.run::<T>(&shapes, &data, &factors, wanted);
            let tolerance = if T::BYTES == 4 { 2e-5 } else { 1e-10 };
            assert_eq!(found.train.len(), expected.len());
            for (i, (f, e)) in found.train.iter().zip(&expected).enumerate() {
                let near = (f - e).abs() <= tolerance * e.abs();
                assert!(near, "{} {term:?} {} at {i}: {f} {e}", case.text, T::NAME);
            }
            if wanted && weights.is_none() {
                for role in [Role::Train, Role::Validation, Role::HeldOut] {
                    let (f, e) = (found.predicted[role as usize], by_role[role as usize]);
                    let near = (f - e).abs() <= tolerance * e.abs();
                    assert!(near, "{} {term:?} {role:?}: {f} {e}", case.text);
                }
            }
        }
    }
}

#[test]
fn sums_are_those_entry_by_entry() {
    let mut random = Random(1);
    for (n, case) in CASES.iter().enumerate() {
        let volume = case.shape.iter().product();
        for (m, shares) in [[0.85, 0.05], [0.5, 0.2], [0.08, 0.01], [0.3, 0.6], [0.97, 0.0]]
            .into_iter()
            .enumerate()
        {
            let mut roles = roles(&mut random, volume, shares);
            roles[0] = Role::Train;
            check::<f64>(case, &roles, None, (n + m) % 2 == 1);
            check::<f32>(case, &roles, None, (n + m) % 2 == 0);
        }
    }
}

#[test]
fn rows_with_one_entry_and_with_all_but_one() {
    for case in &CASES[..3] {
        let [rows, columns] = *case.shape else { continue };
        for withheld in [Role::Missing, Role::HeldOut] {
            // Of row i one entry is left, all but one, all, or none.
            let role = |i: usize| {
                let (row, column) = (i / columns, i % columns);
                let one = column == (row * 7) % columns;
                let train = match row % 4 {
                    0 => one,
                    1 => !one,
                    2 => true,
                    _ => row == rows,
                };
                if train { Role::Train } else { withheld }
            };
            let roles: Vec<Role> = (0..rows * columns).map(role).collect();
            check::<f64>(case, &roles, None, false);
            check::<f32>(case, &roles, None, true);
        }
    }
}

#[test]
fn weighted_sums() {
    let mut random = Random(5);
    for (n, case) in CASES.iter().enumerate() {
        let volume: usize = case.shape.iter().product();
        let mut roles = roles(&mut random, volume, [0.7, 0.1]);
        roles[0] = Role::Train;
        let weights: Vec<f64> = (0..volume).map(|_| 0.25 + random.next()).collect();
        check::<f64>(case, &roles, Some(&weights), n % 2 == 0);
        check::<f32>(case, &roles, Some(&weights), n % 2 == 1);
    }
}

#[test]
fn stored_entries_are_listed_as_roles_are() {
    let case = &CASES[0];
    let mut random = Random(9);
    let volume = case.shape.iter().product();
    let roles = roles(&mut random, volume, [0.3, 0.2]);
    let data = prepared(case.shape, &roles, None, false);
    let model = Model::parse(case.text).expect("a model");
    let shapes = Shapes::new(&model, case.shape, case.ranks).expect("sizes");
    let group = Group { factors: vec![0], updates: Vec::new() };
    let pass = RolePass::new(&shapes, &group, RoleTerm::Linear, 1, 8).expect("a pass");
    let factors: Vec<Vec<f64>> = (0..2)
        .map(|l| (0..shapes.factor(l).iter().product()).map(|_| random.next()).collect())
        .collect();
    let run = |lists: Vec<ChunkLists>, grid: Grid| {
        let source = Source::Lists(Arc::new(lists));
        let masked = MaskedGroup::new(&shapes, pass.clone(), Arc::new(grid), source);
        masked.run::<f64>(&shapes, &data, &factors, false).train
    };
    let grid = || Grid::new(&shapes, &pass, data.values().strides());
    let expected = run(by_roles(&grid(), data.roles().expect("roles")), grid());
    let all: Vec<StoredCounts> = data.stored_counts(true);
    for (implicit, part, implied) in [
        (Implicit::Missing, StoredPart::Train, Role::Missing),
        (Implicit::Zeros, StoredPart::Masked, Role::Train),
    ] {
        assert!(all.iter().any(|counts| counts.implicit == implicit));
        let stored = data.stored(implicit);
        let lists = by_entries(&shapes, &pass, &grid(), &stored, (part, implied));
        for (f, e) in run(lists, grid()).iter().zip(&expected) {
            assert!((f - e).abs() <= 1e-12 * e.abs(), "{implicit:?}: {f} {e}");
        }
    }
}
