//! Fits over slabs and several processes: the same bits whatever their number.

mod failures;
mod processes;

use std::ops::Range;

use self::processes::{bits, on};
use crate::common::{Random, cpu_configurations, data, deviation, gpu, history_deviation};
use ndarray::{ArrayD, Axis, Slice};
use nneinfact::data::{CooTensor, Labels, Part, SplitKind};
use nneinfact::fit::{Balance, Smooth, Splines, Start, StoppedBy, slab_ranges, slabs_of_processes};
use nneinfact::loss::Penalty;
use nneinfact::model::{Model, Shapes};
use nneinfact::{Algorithm, Device, Error, Fit, Loss, NNEinFact, Observations, Precision};

const SHAPE: [usize; 3] = [13, 6, 7];
const SLABS: usize = 5;
const SIZES: [usize; 5] = [1, 2, 3, 4, 8];

/// Data that can be had in part, along mode 0, with a loss and settings of its fit.
struct Shared {
    name: &'static str,
    model: &'static str,
    observe: Box<dyn Fn(Range<usize>) -> Observations + Sync>,
    loss: Box<dyn Fn(Range<usize>) -> Loss + Sync>,
    set: fn(NNEinFact) -> NNEinFact,
    /// The sweeps that are compared with an ordinary fit; 0 for none.
    ordinary: usize,
}

fn rows<T: Clone>(array: &ArrayD<T>, range: &Range<usize>) -> ArrayD<T> {
    array.slice_axis(Axis(0), Slice::from(range.clone())).to_owned()
}

fn tensor(seed: u64, loss: &Loss) -> ArrayD<f64> {
    let model = Model::parse("ir,jr,kr->ijk").unwrap();
    data(&mut Random::new(seed), &Shapes::new(&model, &SHAPE, &[('r', 3)]).unwrap(), loss)
}

fn list(y: &ArrayD<f64>) -> CooTensor {
    let stored: Vec<_> = y.indexed_iter().filter(|(_, x)| **x > 0.0).collect();
    let column = |mode: usize| stored.iter().map(|(at, _)| at[mode] as u64).collect();
    let values: Vec<f64> = stored.iter().map(|(_, x)| **x).collect();
    CooTensor::new(y.shape(), &[column(0), column(1), column(2)], &values).unwrap()
}

fn dense(name: &'static str, loss: Loss, set: fn(NNEinFact) -> NNEinFact) -> Shared {
    let y = tensor(5, &loss);
    Shared {
        name,
        model: "ir,jr,kr->ijk",
        observe: Box::new(move |range| Observations::new(rows(&y, &range))),
        loss: Box::new(move |_| loss.clone()),
        set,
        ordinary: 12,
    }
}

fn masked(set: fn(NNEinFact) -> NNEinFact, loss: Loss, name: &'static str) -> Shared {
    let (y, mask) = (tensor(6, &loss), Random::new(7).mask(&SHAPE, 0.8));
    // The first slab has nothing, the last only what is held out.
    let mut mask = mask;
    mask.slice_axis_mut(Axis(0), Slice::from(0..2)).fill(false);
    let strata = ArrayD::from_shape_fn(mask.shape(), |at| at[0] >= 10 || at[1] == 2 && at[0] > 8);
    Shared {
        observe: Box::new(move |range| {
            let own = Observations::new(rows(&y, &range)).held_out(0.1, 3).unwrap();
            let own = own.validation(0.15, 3).unwrap();
            let own = own.held_out_mask(&rows(&strata, &range)).unwrap();
            // A mask that hides all is refused; so is a part's.
            match rows(&mask, &range) {
                all if all.iter().any(|&x| x) => own.mask(&all).unwrap(),
                none => {
                    let keys: Vec<Vec<u64>> = (0..3)
                        .map(|mode| none.indexed_iter().map(|(at, _)| at[mode] as u64).collect())
                        .collect();
                    let values = vec![1.0; none.len()];
                    own.missing_at(CooTensor::new(none.shape(), &keys, &values).unwrap()).unwrap()
                }
            }
        }),
        ..dense(name, loss, set)
    }
}

fn listed(name: &'static str, missing: bool, set: fn(NNEinFact) -> NNEinFact) -> Shared {
    let mut y = tensor(8, &Loss::kl());
    // A slab without a stored entry.
    y.slice_axis_mut(Axis(0), Slice::from(5..7)).fill(0.0);
    y.iter_mut().for_each(|x| *x = (*x - 2.0).max(0.0));
    Shared {
        observe: Box::new(move |range| {
            let own = Observations::new(list(&rows(&y, &range)));
            let own = if missing { own.unlisted_missing() } else { own };
            own.held_out(0.1, 1).unwrap()
        }),
        ..dense(name, Loss::kl(), set)
    }
}

/// Splits of a list by strata: what is drawn among its zeros depends on the slabs.
fn by_strata(set: fn(NNEinFact) -> NNEinFact) -> Shared {
    let y = tensor(8, &Loss::kl()).mapv(|x| (x - 2.0).max(0.0));
    Shared {
        observe: Box::new(move |range| {
            let own = Observations::new(list(&rows(&y, &range))).held_out(0.1, 1).unwrap();
            own.validation(0.2, 2).unwrap().split_as(SplitKind::Strata)
        }),
        ordinary: 0,
        ..dense("by strata", Loss::kl(), set)
    }
}

fn cases() -> Vec<Shared> {
    let negative_binomial = |range: &Range<usize>| {
        let dispersion = ArrayD::from_shape_fn(&SHAPE[..], |at| 0.5 + ((at[0] + at[1]) % 3) as f64);
        Loss::negative_binomial(rows(&dispersion, range)).unwrap()
    };
    let weights = Random::new(9).tensor(&SHAPE, 1e-18, 3e-15);
    let near = Random::new(9).tensor(&SHAPE, 0.0, 3.0);
    let (y, z) = (tensor(5, &Loss::kl()), tensor(5, &Loss::euclidean()));
    vec![
        dense("kl", Loss::kl(), |fit| fit),
        dense("block", Loss::kl(), |fit| fit.algorithm(Algorithm::Block)),
        dense("alpha-beta", Loss::alpha_beta(0.7, 0.0).unwrap(), |fit| fit.kkt_residual(true)),
        dense("euclidean", Loss::euclidean(), |fit| fit),
        Shared { model: "ir,jkr->ijk", ..dense("one cut factor", Loss::euclidean(), |fit| fit) },
        dense("adam", Loss::kl(), |fit| fit.algorithm(Algorithm::Adam)),
        dense("starts", Loss::kl(), |fit| fit.starts(3).seed(4)),
        dense("penalties", Loss::kl(), |fit| fit.penalty_on_all(Penalty::l2(0.05))),
        dense("ridge", Loss::euclidean(), |fit| fit.penalty_on_all(Penalty::l2(0.05))),
        dense("lasso", Loss::geometric(), |fit| {
            let lasso = fit.penalty("jr", Penalty::l1(0.1)).penalty("ir", Penalty::l1(0.2));
            lasso.bounds("kr", 0.1, 2.0).balance(Balance::AtStart)
        }),
        Shared {
            loss: Box::new(move |range| negative_binomial(&range)),
            ..dense("negative binomial", Loss::kl(), |fit| fit)
        },
        masked(|fit| fit.early_stopping(true).max_iter(60), Loss::kl(), "masked"),
        masked(|fit| fit, Loss::euclidean(), "masked euclidean"),
        masked(|fit| fit.penalty_on_all(Penalty::l1(0.02)), Loss::euclidean(), "masked lasso"),
        listed("list", false, |fit| fit),
        listed("ratings", true, |fit| fit.inner_cycles(2)),
        by_strata(|fit| fit.early_stopping(true)),
        squared(listed("euclidean list", false, |fit| fit)),
        squared(listed("euclidean ratings", true, |fit| fit)),
        Shared {
            observe: Box::new(move |range| {
                Observations::new(rows(&y, &range)).weights(rows(&weights, &range)).unwrap()
            }),
            ..dense("weights", Loss::kl(), |fit| fit)
        },
        Shared {
            observe: Box::new(move |range| {
                Observations::new(rows(&z, &range)).weights(rows(&near, &range)).unwrap()
            }),
            ..dense("weights under euclid", Loss::euclidean(), |fit| fit)
        },
    ]
}

/// The same under half the squared distance.
fn squared(case: Shared) -> Shared {
    Shared { loss: Box::new(|_| Loss::euclidean()), ..case }
}

/// With a pass for each of three factors.
fn single(fit: NNEinFact) -> NNEinFact {
    fit.groups(vec![vec![0], vec![1], vec![2]])
}

/// Fits with starts, structures and algorithms that look at all data at once.
fn more_cases() -> Vec<Shared> {
    let svd = |fit: NNEinFact| fit.start(Start::Svd);
    let symmetric = ArrayD::from_shape_fn(&[SHAPE[0]; 2][..], |at| {
        1.0 + ((at[0] * at[1]) % 5) as f64 + ((at[0] + at[1]) % 3) as f64
    });
    vec![
        dense("svd", Loss::kl(), svd),
        Shared { model: "ir,jkr->ijk", ..dense("svd of two factors", Loss::euclidean(), svd) },
        Shared { model: "ijr,kr->ijk", ..dense("svd of a cut pair", Loss::kl(), svd) },
        Shared { model: "ir,jr,kr,r->ijk", ..dense("svd with weights", Loss::kl(), svd) },
        dense("several from svd", Loss::kl(), |fit| fit.start(Start::Svd).starts(2).seed(4)),
        masked(svd, Loss::kl(), "masked svd"),
        listed("svd of a list", false, svd),
        listed("svd of ratings", true, svd),
        dense("smooth", Loss::kl(), |fit| {
            let smooth = fit.smooth("jr", Smooth::line(0.5)).smooth("ir", Smooth::circle(0.2));
            smooth.penalty("kr", Penalty::l2(0.1)).kkt_residual(true)
        }),
        dense("simplex", Loss::kl(), |fit| fit.simplex("kr", Some("k")).simplex("ir", Some("i"))),
        // Over slabs a group has one factor where steps are exact, and in an ordinary fit it may have several: these
        // are compared with one of the same groups.
        dense("simplex, euclidean", Loss::euclidean(), |fit| single(fit).simplex("kr", Some("k"))),
        dense("smooth, euclidean", Loss::euclidean(), |fit| {
            let smooth = fit.smooth("jr", Smooth::line(0.5)).smooth("ir", Smooth::circle(0.2));
            single(smooth).kkt_residual(true)
        }),
        masked(
            |fit| single(fit).smooth("ir", Smooth::line(0.3)),
            Loss::euclidean(),
            "masked smooth",
        ),
        masked(|fit| single(fit).simplex("ir", Some("i")), Loss::euclidean(), "masked simplex"),
        squared(listed("smooth euclidean ratings", true, |fit| {
            single(fit).smooth("jr", Smooth::line(0.3))
        })),
        Shared {
            ordinary: 0,
            ..dense("basis, euclidean", Loss::euclidean(), |fit| fit.basis('j', Splines::new(4)))
        },
        dense("basis", Loss::kl(), |fit| fit.basis('j', Splines::new(4))),
        dense("cut basis", Loss::kl(), |fit| fit.basis('i', Splines::new(5).cyclic())),
        Shared {
            model: "ir,jr->ij",
            observe: Box::new(move |range| Observations::new(rows(&symmetric, &range))),
            ..dense("ties", Loss::kl(), |fit| fit.tie(["ir", "jr"]))
        },
        dense("barrier", Loss::euclidean(), |fit| fit.algorithm(Algorithm::Barrier)),
        Shared {
            model: "ir,jkr->ijk",
            ..dense("barrier on a pair", Loss::euclidean(), |fit| fit.algorithm(Algorithm::Barrier))
        },
        masked(|fit| fit.algorithm(Algorithm::Barrier), Loss::euclidean(), "masked barrier"),
        squared(listed("barrier on a list", false, |fit| fit.algorithm(Algorithm::Barrier))),
        squared(listed("barrier on ratings", true, |fit| fit.algorithm(Algorithm::Barrier))),
    ]
}

impl Shared {
    fn settings(&self, range: Range<usize>, precision: Precision) -> NNEinFact {
        let fit = NNEinFact::new(self.model).unwrap().ranks([('r', 3)]).loss((self.loss)(range));
        let fit = fit.device(Device::cpu()).precision(precision).seed(2).tolerance(0.0);
        (self.set)(fit.max_iter(12))
    }

    /// The fit of one process with slabs.
    fn alone(&self, precision: Precision) -> Result<Fit, Error> {
        let all = 0..SHAPE[0];
        self.settings(all.clone(), precision).slabs(SLABS).fit((self.observe)(all))
    }
}

/// The indices of a process: those of its slabs.
fn part(whole: usize, rank: usize, size: usize) -> Range<usize> {
    let ranges = slab_ranges(whole, SLABS);
    let own = &slabs_of_processes(ranges.len(), size)[rank];
    if own.is_empty() { 0..0 } else { ranges[own.start].start..ranges[own.end - 1].end }
}

#[test]
fn any_number_of_processes_gives_the_same_bits() {
    same_bits(cases());
}

#[test]
fn any_number_of_processes_gives_the_same_bits_of_starts_and_structures() {
    same_bits(more_cases());
}

fn same_bits(cases: Vec<Shared>) {
    for case in cases {
        for precision in [Precision::F64, Precision::F32] {
            let alone = case.alone(precision).unwrap_or_else(|e| panic!("{}: {e}", case.name));
            let expected = bits(&alone);
            for size in SIZES {
                let whole = on(size, |own| {
                    let all = 0..SHAPE[0];
                    let fit = case.settings(all.clone(), precision).slabs(SLABS).shared_by(own);
                    fit.fit((case.observe)(all))
                });
                let parts = on(size, |own| {
                    use nneinfact::engine::Reducer;
                    let range = part(SHAPE[0], own.rank(), size);
                    // What a process without slabs has is not looked at.
                    let there = if range.is_empty() { 0..1 } else { range.clone() };
                    let fit = case.settings(there.clone(), precision).slabs(SLABS).shared_by(own);
                    fit.fit_part((case.observe)(there), Part { mode: 0, range, whole: SHAPE[0] })
                });
                for (kind, fits) in [("whole", whole), ("part", parts)] {
                    for (rank, fit) in fits.into_iter().enumerate() {
                        let at = format!("{} {precision:?} {kind} {rank} of {size}", case.name);
                        let fit = fit.unwrap_or_else(|e| panic!("{at}: {e}"));
                        assert_eq!(bits(&fit), expected, "{at}");
                    }
                }
            }
        }
    }
}

#[test]
fn other_slabs_give_other_bits() {
    // Else the test above would show nothing.
    let case = dense("kl", Loss::kl(), |fit| fit);
    let fit = |slabs: usize| {
        let fit = case.settings(0..SHAPE[0], Precision::F64).slabs(slabs);
        fit.fit((case.observe)(0..SHAPE[0])).unwrap()
    };
    let [five, four] = [5, 4].map(fit);
    assert_ne!(five.factors(), four.factors());
    assert!(deviation(five.factors(), four.factors()) < 1e-9);
}

#[test]
fn warnings_are_those_of_all_data() {
    let y = tensor(5, &Loss::kl());
    let mut fixed = ArrayD::from_elem(vec![SHAPE[0], 3], 0.5);
    fixed.slice_axis_mut(Axis(0), Slice::from(7..12)).fill(0.0);
    let fit = || NNEinFact::new("ir,jr,kr->ijk").unwrap().ranks([('r', 3)]).max_iter(2);
    let fit = || fit().fix("ir", fixed.clone()).device(Device::cpu());
    let expected = fit().fit(&y).unwrap().warnings().to_vec();
    assert!(expected.iter().any(|w| w.contains("cannot reach")), "{expected:?}");
    for size in [1, 3] {
        for found in on(size, |own| fit().shared_by(own).fit(&y)) {
            assert_eq!(found.unwrap().warnings(), expected);
        }
    }
}

#[test]
fn slabs_change_no_more_than_rounding() {
    let all = cases().into_iter().chain(more_cases());
    for case in all.filter(|case| case.ordinary > 0) {
        for configuration in cpu_configurations() {
            let precision = configuration.precision;
            let sweeps = |fit: NNEinFact| fit.max_iter(case.ordinary);
            let all = 0..SHAPE[0];
            let data = (case.observe)(all.clone());
            let shared =
                sweeps(case.settings(all.clone(), precision)).slabs(SLABS).fit(&data).unwrap();
            let groups = shared.plan().groups().iter().map(|g| g.factors.clone()).collect();
            let ordinary = sweeps(case.settings(all, precision));
            let ordinary = match shared.structure().is_empty() {
                true => ordinary.groups(groups),
                // Their groups are the model's own.
                false => ordinary,
            };
            let ordinary = ordinary.fit(&data).unwrap();
            let (found, expected) = (&shared.history().loss, &ordinary.history().loss);
            // Sweep by sweep rounding errors grow.
            let tolerance = 100.0 * configuration.tolerance;
            let apart = history_deviation(found, expected);
            assert!(apart < tolerance, "{} {}: {apart}", case.name, configuration.name);
            let apart = deviation(shared.factors(), ordinary.factors());
            assert!(apart < 10.0 * tolerance, "{} {}: {apart}", case.name, configuration.name);
            let (found, expected) = (shared.history(), ordinary.history());
            assert_eq!(found.heldout_loss.len(), expected.heldout_loss.len(), "{}", case.name);
            assert_eq!(found.returned, expected.returned, "{}", case.name);
        }
    }
}

#[test]
fn the_same_entries_are_withheld_along_any_mode() {
    let y = tensor(6, &Loss::kl());
    let data = Observations::new(&y).held_out(0.2, 5).unwrap().validation(0.2, 6).unwrap();
    let settings = || {
        let fit = NNEinFact::new("ir,jr,kr->ijk").unwrap().ranks([('r', 2)]).max_iter(3);
        fit.precision(Precision::F64).device(Device::cpu()).algorithm(Algorithm::Block)
    };
    let whole = settings().fit(&data).unwrap();
    for mode in 0..3 {
        let cut = settings().split_along(mode).slabs(4).fit(&data).unwrap();
        assert_eq!(cut.history().slabs.unwrap().mode, mode);
        for of in [
            |fit: &Fit| fit.history().heldout_loss.clone(),
            |fit: &Fit| fit.history().validation_loss.clone(),
        ] {
            assert!(history_deviation(&of(&cut), &of(&whole)) < 1e-9, "{mode}");
        }
    }
}

#[test]
fn labels_of_parts_are_put_together() {
    let y = tensor(5, &Loss::kl());
    let names: Vec<String> = (0..SHAPE[0]).map(|i| format!("row {i}\n\u{e9}")).collect();
    let fits = on(3, |own| {
        use nneinfact::engine::Reducer;
        let range = part(SHAPE[0], own.rank(), 3);
        let rows_of = Labels::new(names[range.clone()].to_vec()).with_name("row");
        let labels = vec![rows_of, Labels::named("column"), Labels::default()];
        let data = Observations::new(rows(&y, &range)).with_labels(labels)?;
        let fit = NNEinFact::new("ir,jr,kr->ijk")?.ranks([('r', 2)]).max_iter(1).slabs(SLABS);
        fit.shared_by(own).fit_part(data, Part { mode: 0, range, whole: SHAPE[0] })
    });
    for fit in fits {
        let fit = fit.unwrap();
        let labels = fit.labels('i').unwrap();
        assert_eq!(labels.indices(), Some(names.as_slice()));
        assert_eq!(labels.name(), Some("row"));
        assert_eq!(fit.labels('j').unwrap().name(), Some("column"));
    }
}

#[test]
fn gpus_share_a_fit() {
    let Some(device) = gpu() else { return };
    for (case, tolerance) in [
        (dense("kl", Loss::kl(), |fit| fit), 1e-3),
        (dense("ridge", Loss::kl(), |fit| fit.penalty_on_all(Penalty::l2(0.05))), 1e-3),
        (listed("list", false, |fit| fit), 1e-3),
    ] {
        let all = 0..SHAPE[0];
        let data = (case.observe)(all.clone());
        let settings = || {
            let fit = case.settings(all.clone(), Precision::F32).max_iter(4);
            fit.device(device.clone()).algorithm(Algorithm::Grouped)
        };
        let alone = settings().slabs(2).fit(&data).unwrap();
        for fit in on(2, |own| settings().slabs(2).shared_by(own).fit(&data)) {
            assert_eq!(bits(&fit.unwrap()), bits(&alone), "{}", case.name);
        }
        let groups = alone.plan().groups().iter().map(|g| g.factors.clone()).collect();
        let one = settings().groups(groups).fit(&data).unwrap();
        let apart = history_deviation(&alone.history().loss, &one.history().loss);
        assert!(apart < tolerance, "{}: {apart}", case.name);
    }
}

#[test]
fn stops_are_those_of_all() {
    // By tolerance, where every process comes to the same verdict.
    let case = dense("kl", Loss::kl(), |fit| fit.tolerance(1e-3).max_iter(200));
    let alone = case.alone(Precision::F64).unwrap();
    assert_eq!(alone.history().stopped_by, StoppedBy::Tolerance);
    for fit in on(3, |own| {
        let fit = case.settings(0..SHAPE[0], Precision::F64).slabs(SLABS).shared_by(own);
        fit.fit((case.observe)(0..SHAPE[0]))
    }) {
        assert_eq!(bits(&fit.unwrap()), bits(&alone));
    }
}
