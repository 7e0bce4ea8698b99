//! Plans over the corpus: as snapshots, to be read by people, and as assertions.
//!
//! After a change of the planner, `INSTA_UPDATE=always cargo test --test plan` rewrites the
//! snapshots; read the difference before committing it.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::common::{CORPUS, Entry, entry, many, partitions};
use nneinfact::model::{Index, IndexSet, Model, Shapes};
use nneinfact::plan::{
    DataInfo, Grouping, ImplicitForm, OperandSide, Plan, PlanSettings, SparseInfo,
};
use nneinfact::{Error, NNEinFact};

/// The bound on stored intermediates that the snapshots are taken with.
const BOUND: u64 = 64 << 20;

/// A shape and ranks such as people have, where they differ from those of the corpus.
struct Real {
    name: &'static str,
    shape: &'static [usize],
    ranks: &'static [(char, usize)],
}

const REAL: &[Real] = &[
    Real { name: "NMF", shape: &[20_000, 10_000], ranks: &[('r', 50)] },
    Real { name: "NMF, transposed output", shape: &[10_000, 20_000], ranks: &[('r', 50)] },
    Real { name: "tri-NMF", shape: &[20_000, 10_000], ranks: &[('c', 20), ('e', 30)] },
    Real { name: "CP, 3 modes", shape: &[300, 300, 300], ranks: &[('r', 20)] },
    Real { name: "CP, 4 modes", shape: &[200, 100, 80, 50], ranks: &[('r', 20)] },
    Real { name: "CP, 5 modes", shape: &[60, 50, 40, 30, 20], ranks: &[('r', 20)] },
    Real { name: "CP, 6 modes", shape: &[24, 24, 24, 20, 20, 12], ranks: &[('r', 10)] },
    Real { name: "CP with weights", shape: &[300, 300, 300], ranks: &[('r', 20)] },
    Real {
        name: "CP with a factored mode",
        shape: &[200, 100, 80, 50],
        ranks: &[('k', 8), ('r', 20)],
    },
    Real { name: "Tucker", shape: &[300, 300, 300], ranks: &[('c', 10), ('e', 10), ('f', 10)] },
    Real {
        name: "low-rank Tucker",
        shape: &[300, 300, 300],
        ranks: &[('c', 10), ('e', 10), ('k', 10), ('q', 20)],
    },
    Real { name: "tensor train", shape: &[300, 300, 300], ranks: &[('c', 10), ('e', 10)] },
    Real {
        name: "tensor train, 4 modes",
        shape: &[100, 100, 80, 60],
        ranks: &[('a', 8), ('b', 8), ('c', 8)],
    },
    Real { name: "tensor ring", shape: &[300, 300, 300], ranks: &[('a', 5), ('b', 5), ('c', 5)] },
    Real { name: "many-body", shape: &[500, 400, 300], ranks: &[] },
    Real { name: "many-body of rank r", shape: &[300, 300, 300], ranks: &[('r', 4)] },
    Real { name: "Uber, first", shape: &[27, 7, 24, 100, 100], ranks: &[('r', 10), ('k', 6)] },
    Real { name: "Uber, second", shape: &[27, 24, 7, 100, 100], ranks: &[('r', 10), ('k', 6)] },
    Real { name: "the paper's third", shape: &[300, 300, 300], ranks: &[('k', 8), ('q', 5)] },
    Real { name: "observed letters twice", shape: &[300, 300, 300], ranks: &[('r', 20)] },
    Real { name: "a latent letter alone", shape: &[2_000, 1_000], ranks: &[('r', 20), ('z', 4)] },
    Real { name: "a single factor", shape: &[2_000, 1_000], ranks: &[('r', 20)] },
    Real { name: "an outer product", shape: &[300, 300, 300], ranks: &[] },
];

/// Sizes that differ from each other and are no multiples of a vector.
const SMALL: [usize; 6] = [5, 7, 6, 9, 4, 3];

fn small(entry: &Entry) -> Shapes {
    entry.shapes(&SMALL[..entry.modes()])
}

fn real(name: &str) -> Shapes {
    let real = REAL.iter().find(|r| r.name == name).expect("every model has a real size");
    let model = Model::parse(entry(name).model).expect("a model of the corpus is a model");
    Shapes::new(&model, real.shape, real.ranks).expect("the real sizes fit")
}

fn settings(grouping: Grouping, memory: u64) -> PlanSettings {
    PlanSettings { grouping, memory, ..PlanSettings::default() }
}

fn plan(shapes: &Shapes, grouping: Grouping, memory: u64) -> nneinfact::Result<Plan> {
    Ok(Plan::new(shapes, &DataInfo::c_order(shapes, 4), &settings(grouping, memory))?)
}

/// The letters named in a text.
fn letters(text: &str) -> IndexSet {
    text.chars().filter_map(Index::new).collect()
}

#[test]
fn plans_are_as_they_were() {
    for entry in CORPUS {
        let mut text = String::new();
        for (size, shapes) in [("small", small(entry)), ("real", real(entry.name))] {
            for (name, grouping) in [("grouped", Grouping::Grouped), ("block", Grouping::Block)] {
                let plan = plan(&shapes, grouping, BOUND).expect("64 MiB are enough");
                let _ = writeln!(text, "--- {size}, {name}\n{plan}\n");
            }
        }
        let name = entry.name.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
        insta::assert_snapshot!(name, text, entry.name);
    }
}

/// Checks that a plan does what a sweep has to do, from its parts alone.
fn check_structure(plan: &Plan, what: &str) {
    let shapes = plan.shapes();
    let model = shapes.model();
    let count = model.factors().len();
    let updated: Vec<usize> = plan.groups().iter().flat_map(|g| g.factors.clone()).collect();
    assert_eq!(updated.iter().copied().collect::<BTreeSet<_>>().len(), count, "{what}");
    assert_eq!(updated.len(), count, "{what}: every factor is updated once");
    assert_eq!(plan.groups().len(), plan.passes().len(), "{what}");
    for (group, pass) in plan.groups().iter().zip(plan.passes()) {
        assert_eq!(group.factors, pass.output.factors, "{what}");
        let mut read: Vec<usize> = pass.output.factors.clone();
        read.extend(pass.operands.iter().flat_map(|o| o.factors.clone()));
        read.sort_unstable();
        assert_eq!(read, (0..count).collect::<Vec<_>>(), "{what}: every factor is read once");

        let layout = &pass.layout;
        let (outer, rows, lanes): (IndexSet, IndexSet, IndexSet) = (
            layout.batch.iter().collect(),
            layout.rows.iter().collect(),
            layout.columns.iter().collect(),
        );
        assert_eq!(outer | rows | lanes, model.observed(), "{what}");
        assert_eq!(outer.len() + rows.len() + lanes.len(), model.output().len(), "{what}");
        for operand in std::iter::once(&pass.output).chain(&pass.operands) {
            let set: IndexSet = operand.indices.iter().collect();
            let (on_rows, on_lanes) = (set.intersects(rows), set.intersects(lanes));
            assert!(!(on_rows && on_lanes), "{what}: an operand depends on rows and lanes");
            match operand.side {
                OperandSide::Lhs => assert!(!on_lanes, "{what}"),
                OperandSide::Rhs => assert!(!on_rows, "{what}"),
            }
            assert_eq!(operand.contraction.output(), operand.indices, "{what}");
        }
    }
}

/// Bytes that a pass keeps at once: what it reads in f32, numerator and denominator in f64.
fn pass_bytes(plan: &Plan, pass: usize) -> f64 {
    let pass = &plan.passes()[pass];
    let entries = |letters: &[Index]| plan.shapes().volume(letters.iter().collect());
    let read: f64 = pass.operands.iter().map(|o| entries(&o.indices)).sum();
    4.0 * (read + entries(&pass.output.indices)) + 16.0 * entries(&pass.output.indices)
}

#[test]
fn every_plan_is_whole_and_within_its_bound() {
    let mut refused = 0;
    for entry in CORPUS {
        for (size, shapes) in [("small", small(entry)), ("real", real(entry.name))] {
            let all = partitions(entry.shapes(&SMALL[..entry.modes()]).model().factors().len());
            let groupings = [Grouping::Grouped, Grouping::Block]
                .into_iter()
                .chain(all.into_iter().step_by(7).map(Grouping::Given));
            for grouping in groupings {
                for bound in [u64::MAX, 64 << 20, 1 << 20, 16 << 10] {
                    let what = format!("{}, {size}, {grouping:?}, {bound} bytes", entry.name);
                    match plan(&shapes, grouping.clone(), bound) {
                        Ok(plan) => {
                            check_structure(&plan, &what);
                            for pass in 0..plan.passes().len() {
                                let kept = pass_bytes(&plan, pass);
                                assert!(kept <= bound as f64, "{what}: pass {pass} keeps {kept}");
                            }
                        }
                        Err(Error::Memory { needed, available, .. }) => {
                            refused += 1;
                            assert_eq!(available, bound, "{what}");
                            assert!(
                                needed > bound,
                                "{what}: {needed} bytes would have been enough"
                            );
                        }
                        Err(error) => panic!("{what}: {error}"),
                    }
                }
            }
        }
    }
    assert!(refused > 0, "no bound was tight enough to test a refusal");
}

/// Two ways to read the data: all of them, or a million stored entries.
fn forms() -> [Option<SparseInfo>; 2] {
    [None, Some(SparseInfo { stored: 1_000_000, masked: 0, implicit: ImplicitForm::Gram })]
}

/// Predicted seconds of a sweep.
fn seconds(plan: &Plan) -> f64 {
    let dense: f64 = plan.passes().iter().map(|pass| pass.cost).sum();
    dense + plan.sparse_passes().iter().map(|pass| pass.cost).sum::<f64>()
}

#[test]
fn the_search_for_many_factors_comes_close_to_the_exact_one() {
    for entry in CORPUS {
        for (size, shapes) in [("small", small(entry)), ("real", real(entry.name))] {
            for (sparse, memory) in forms().into_iter().flat_map(|f| [(f, BOUND), (f, u64::MAX)]) {
                let of = |exact: usize| {
                    let data = DataInfo::c_order(&shapes, 4);
                    let grouped = settings(Grouping::Grouped, memory);
                    Plan::new(&shapes, &data, &PlanSettings { exact, sparse, ..grouped })
                };
                let (exact, quick) = match (of(PlanSettings::EXACT), of(0)) {
                    (Ok(exact), Ok(quick)) => (exact, quick),
                    // The tables of a core over long modes.
                    (Err(_), Err(_)) => continue,
                    (exact, quick) => panic!("{}: {exact:?}, {quick:?}", entry.name),
                };
                let [least, found] = [seconds(&exact), seconds(&quick)];
                assert!(
                    found <= 1.05 * least,
                    "{}, {size}, {sparse:?}, {memory}: {found:e} s for {}, {least:e} s for {}",
                    entry.name,
                    quick.cut(),
                    exact.cut()
                );
            }
        }
    }
}

#[test]
fn models_of_up_to_64_factors_are_planned() {
    for kind in many::KINDS {
        for factors in [9, 14, 20, 33, 51, 64] {
            let shapes = many::model(kind, factors);
            assert_eq!(shapes.model().factors().len(), factors, "{kind}");
            for sparse in forms() {
                for grouping in [Grouping::Grouped, Grouping::Block] {
                    let what = format!("{kind} of {factors}, {grouping:?}, {sparse:?}");
                    let settings = PlanSettings { grouping, sparse, ..PlanSettings::default() };
                    let data = DataInfo::c_order(&shapes, 4);
                    let plan = Plan::new(&shapes, &data, &settings).expect("a plan");
                    if sparse.is_none() {
                        check_structure(&plan, &what);
                    }
                    let mut updated: Vec<usize> =
                        plan.groups().iter().flat_map(|g| g.factors.clone()).collect();
                    updated.sort_unstable();
                    assert_eq!(updated, (0..factors).collect::<Vec<_>>(), "{what}");
                    assert!(seconds(&plan).is_finite(), "{what}");
                    let passes = plan.groups().len();
                    assert!(
                        passes >= 2 && (passes < factors) == (settings.grouping != Grouping::Block),
                        "{what}: {passes}"
                    );
                }
            }
        }
    }
}

#[test]
fn the_prescribed_groups_are_kept() {
    let entry = entry("Uber, second");
    for groups in partitions(5) {
        let plan = plan(&small(entry), Grouping::Given(groups.clone()), BOUND).expect("a plan");
        let found: Vec<Vec<usize>> = plan.groups().iter().map(|g| g.factors.clone()).collect();
        assert_eq!(found, groups);
    }
}

#[test]
fn block_is_one_pass_per_factor_in_order() {
    for entry in CORPUS {
        let plan = plan(&real(entry.name), Grouping::Block, BOUND).expect("a plan");
        let order: Vec<Vec<usize>> = plan.groups().iter().map(|g| g.factors.clone()).collect();
        let expected: Vec<Vec<usize>> = (0..order.len()).map(|l| vec![l]).collect();
        assert_eq!(order, expected, "{}", entry.name);
    }
}

#[test]
fn uber_is_cut_between_time_and_space() {
    for (name, time) in [("Uber, first", "wdh"), ("Uber, second", "whd")] {
        let shapes = real(name);
        let plan = plan(&shapes, Grouping::Grouped, BOUND).expect("a plan");
        let cut: BTreeSet<BTreeSet<usize>> =
            plan.groups().iter().map(|g| g.factors.iter().copied().collect()).collect();
        let expected = BTreeSet::from([BTreeSet::from([0, 1, 2]), BTreeSet::from([3, 4])]);
        assert_eq!(cut, expected, "{name}");
        assert_eq!(plan.passes().len(), 2, "{name}");
        for pass in plan.passes() {
            let lanes: IndexSet = pass.layout.columns.iter().collect();
            assert!(lanes == letters("ij") || lanes == letters("j"), "{name}: lanes {lanes:?}");
            let rest: IndexSet = pass.layout.rows.iter().chain(&pass.layout.batch).collect();
            assert!(rest.contains_all(letters(time)), "{name}");
            assert_eq!(contiguous(&plan, &pass.layout.columns), 1, "{name}: the lanes' stride");
            assert_eq!(pass.contracted_size(&shapes), 10, "{name}: inner is r, k is summed before");
        }
    }
}

/// The stride of the last lane in the data.
fn contiguous(plan: &Plan, lanes: &[Index]) -> usize {
    let output = plan.shapes().model().output();
    let last = lanes.last().expect("there are lanes");
    let mode = output.iter().position(|x| x == last).expect("lanes are observed");
    plan.data().strides[mode]
}

#[test]
fn lanes_follow_the_order_of_the_data_in_memory() {
    for name in ["NMF", "CP, 3 modes", "Tucker", "Uber, first", "tensor train"] {
        let shapes = real(name);
        let mut fortran = DataInfo::c_order(&shapes, 4);
        let mut stride = 1;
        for (mode, size) in shapes.data().into_iter().enumerate() {
            fortran.strides[mode] = stride;
            stride *= size;
        }
        for data in [DataInfo::c_order(&shapes, 4), fortran] {
            for grouping in [Grouping::Grouped, Grouping::Block] {
                let plan = Plan::new(&shapes, &data, &settings(grouping, BOUND)).expect("a plan");
                for pass in plan.passes() {
                    assert_eq!(contiguous(&plan, &pass.layout.columns), 1, "{name}:\n{plan}");
                }
            }
        }
    }
}

#[test]
fn intermediates_of_contractions_are_no_larger_than_what_they_are_made_from() {
    // Forming an operand or updating a factor must not blow up in between: nothing bounds it.
    for entry in CORPUS {
        let shapes = real(entry.name);
        for grouping in [Grouping::Grouped, Grouping::Block] {
            let plan = plan(&shapes, grouping, BOUND).expect("a plan");
            let updates = plan.groups().iter().flat_map(|g| &g.updates);
            let forms = plan
                .passes()
                .iter()
                .flat_map(|p| std::iter::once(&p.output).chain(&p.operands))
                .map(|operand| &operand.contraction);
            for contraction in updates.chain(forms) {
                let volume = |l: &Vec<Index>| shapes.volume(l.iter().collect());
                let largest = (contraction.inputs().iter().map(volume))
                    .fold(volume(&contraction.output().to_vec()), f64::max);
                let peak = 8.0 * contraction.peak();
                assert!(
                    contraction.peak() <= largest || peak <= BOUND as f64,
                    "{}: {peak} bytes between {:?} and {:?}",
                    entry.name,
                    contraction.inputs(),
                    contraction.output()
                );
            }
        }
    }
}

#[test]
fn a_bound_that_is_too_tight_is_an_error_that_says_what_is_needed() {
    let shapes = real("Uber, second");
    for grouping in [Grouping::Grouped, Grouping::Block] {
        match plan(&shapes, grouping, 1000) {
            Err(Error::Memory { needed, available, .. }) => {
                assert_eq!(available, 1000);
                assert!(needed > 1000);
            }
            other => panic!("expected Error::Memory, found {other:?}"),
        }
    }
    let refused = NNEinFact::new("ir,jr->ij")
        .and_then(|fit| fit.ranks([('r', 4)]).memory_limit(100).plan(&[1000, 1000], 4));
    let message = refused.expect_err("100 bytes are not enough").to_string();
    assert!(message.contains("100 B") && message.contains("memory limit"), "{message}");
}

#[test]
fn a_tight_bound_leaves_operands_virtual() {
    // ja,ia for the update of ij would be as large as the data.
    let shapes = real("many-body");
    for grouping in [Grouping::Grouped, Grouping::Block] {
        let plan = plan(&shapes, grouping, 8 << 20).expect("virtual operands need little");
        assert!(plan.passes().iter().any(|p| p.operands.len() > 1), "{plan}");
    }
}

#[test]
fn groups_that_are_no_partition_are_refused() {
    let shapes = small(entry("CP, 3 modes"));
    let bad: [(&[&[usize]], &str); 6] = [
        (&[&[0, 1]], "missing"),
        (&[], "missing"),
        (&[&[0, 1], &[1, 2]], "factor 1 is in it twice"),
        (&[&[0, 0], &[1, 2]], "factor 0 is in it twice"),
        (&[&[0, 1], &[2, 3]], "factor 3 does not exist"),
        (&[&[0, 1, 2], &[]], "empty group"),
    ];
    for (groups, says) in bad {
        let groups: Vec<Vec<usize>> = groups.iter().map(|g| g.to_vec()).collect();
        match plan(&shapes, Grouping::Given(groups.clone()), BOUND) {
            Err(Error::Setting(message)) => assert!(message.contains(says), "{message}"),
            other => panic!("{groups:?}: expected Error::Setting, found {other:?}"),
        }
    }
    let far = Grouping::Given(vec![vec![0, 1], vec![2, 64 + 1]]);
    assert!(matches!(plan(&shapes, far, BOUND), Err(Error::Setting(_))));
}
