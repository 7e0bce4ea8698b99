//! Coupled fits whose parts have labels of their own, or modes with a basis.

use crate::common::{Random, array_deviation};
use ndarray::{ArrayD, IxDyn};
use nneinfact::data::{CooTensor, Labels, Role};
use nneinfact::fit::{Coupled, CoupledFit, Part, Smooth, Splines};
use nneinfact::loss::Penalty;
use nneinfact::reference::predict;
use nneinfact::{Algorithm, Device, Error, Loss, NNEinFact, Observations, Precision};

fn settings(all: NNEinFact) -> NNEinFact {
    all.ranks([('r', 2)])
        .device(Device::cpu())
        .precision(Precision::F64)
        .seed(3)
        .tolerance(0.0)
        .max_iter(200)
}

fn people(names: &[&str]) -> Labels {
    Labels::new(names.iter().copied()).with_name("person")
}

/// A table of rank 2 over these people, each known by a number.
fn table(names: &[&str], columns: usize, by: usize) -> ArrayD<f64> {
    let of = |name: &str| (name.as_bytes()[0] - b'a') as usize;
    ArrayD::from_shape_fn(IxDyn(&[names.len(), columns]), |at| {
        let person = of(names[at[0]]);
        let (x, y) = ((person % 3 + 1) as f64, (person * person % 5 + 1) as f64);
        x * (at[1] + by) as f64 + y * (1 + at[1] * at[1] % 4) as f64
    })
}

fn observed(y: &ArrayD<f64>, names: &[&str]) -> Result<Observations, Error> {
    Observations::new(y).with_labels(vec![people(names), Labels::default()])
}

/// The rows of a factor by the names of its first index.
fn row(fit: &CoupledFit, part: usize, name: &str) -> Vec<f64> {
    let one = &fit.parts()[part];
    let at = one.labels('i').and_then(|labels| labels.index_of(name)).expect("a label");
    one.factors()[0].index_axis(ndarray::Axis(0), at).iter().copied().collect()
}

#[test]
fn parts_in_another_order_are_the_same_people() -> Result<(), Error> {
    let (names, mixed) = (["a", "b", "c", "d", "e", "f"], ["d", "a", "f", "b", "e", "c"]);
    let (first, second) = (table(&names, 7, 1), table(&names, 5, 3));
    let other = ArrayD::from_shape_fn(second.raw_dim(), |at| {
        let own = names.iter().position(|name| *name == mixed[at[0]]).expect("a name");
        second[[own, at[1]]]
    });
    let fit = |second: Observations| {
        Coupled::new([
            Part::new("ir,jr->ij", &observed(&first, &names)?)?,
            Part::new("ir,kr->ik", &second)?.loss(Loss::euclidean()),
        ])
        .settings(settings)
        .fit()
    };
    let expected = fit(observed(&second, &names)?)?;
    let found = fit(observed(&other, &mixed)?)?;
    assert!(found.warnings().is_empty(), "{:?}", found.warnings());
    assert_eq!(found.factors(), expected.factors());
    assert_eq!(found.parts()[1].labels('i'), found.parts()[0].labels('i'));
    Ok(())
}

#[test]
fn people_of_one_part_only_are_missing_in_arrays_and_implicit_in_lists() -> Result<(), Error> {
    let (some, others) = (["a", "b", "c", "d", "e"], ["c", "d", "e", "f", "g", "h"]);
    let (first, second) = (table(&some, 7, 1), table(&others, 6, 2));
    let run = |first: Observations, second: Observations| {
        Coupled::new([
            Part::new("ir,jr->ij", &first)?.loss(Loss::euclidean()),
            Part::new("ir,kr->ik", &second)?.loss(Loss::euclidean()),
        ])
        .settings(|all| settings(all).algorithm(Algorithm::Block))
        .fit()
    };
    let fit = run(observed(&first, &some)?, observed(&second, &others)?)?;
    assert_eq!(fit.factor("ir")?.shape(), [8, 2]);
    let labels = fit.parts()[0].labels('i').and_then(Labels::indices).expect("labels").to_vec();
    assert_eq!(labels, ["a", "b", "c", "d", "e", "f", "g", "h"]);
    let said = fit.warnings().join("; ");
    assert!(
        said.contains("tensor 1 has 5 of the 8 labels of i") && said.contains("missing"),
        "{said}"
    );
    assert!(said.contains("tensor 2 has 6 of the 8 labels of i"), "{said}");
    // What is known of f from the other table gives its part of the first one.
    assert!(row(&fit, 0, "f").iter().all(|x| x.is_finite()));
    assert_eq!(row(&fit, 0, "f"), row(&fit, 1, "f"));
    // The same with the union made by hand, and a mask.
    let all = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let by_hand = |y: &ArrayD<f64>, names: &[&str]| -> Result<Observations, Error> {
        let columns = y.shape()[1];
        let place = |at: usize| names.iter().position(|name| *name == all[at]);
        let whole = ArrayD::from_shape_fn(IxDyn(&[8, columns]), |at| {
            place(at[0]).map_or(0.0, |own| y[[own, at[1]]])
        });
        let mask = ArrayD::from_shape_fn(IxDyn(&[8, columns]), |at| place(at[0]).is_some());
        Observations::new(&whole).mask(&mask)
    };
    let expected = run(by_hand(&first, &some)?, by_hand(&second, &others)?)?;
    assert_eq!(fit.factors(), expected.factors());
    // A list says zeros, or nothing, of what it does not name.
    let list = |y: &ArrayD<f64>| -> Result<CooTensor, Error> {
        let (mut rows, mut columns, mut values) = (Vec::new(), Vec::new(), Vec::new());
        for (at, &y) in y.indexed_iter() {
            rows.push(at[0] as u64);
            columns.push(at[1] as u64);
            values.push(y);
        }
        CooTensor::new(y.shape(), &[rows, columns], &values)
    };
    let with = |missing: bool| -> Result<CoupledFit, Error> {
        let data = Observations::new(list(&second)?)
            .with_labels(vec![people(&others), Labels::default()])?;
        run(observed(&first, &some)?, if missing { data.unlisted_missing() } else { data })
    };
    let missing = with(true)?;
    for (found, expected) in missing.factors().iter().zip(fit.factors()) {
        assert!(array_deviation(found, expected) < 1e-9);
    }
    let zeros = with(false)?;
    assert!(zeros.warnings().join("; ").contains("are zeros"), "{:?}", zeros.warnings());
    let total = |fit: &CoupledFit| -> Result<f64, Error> {
        let predicted = fit.parts()[1].reconstruct()?;
        Ok(predicted.index_axis(ndarray::Axis(0), 0).sum())
    };
    assert!(total(&zeros)? < 0.95 * total(&missing)?, "{} {}", total(&zeros)?, total(&missing)?);
    Ok(())
}

#[test]
fn labels_that_do_not_go_together_are_refused() -> Result<(), Error> {
    let names = ["a", "b", "c"];
    let y = table(&names, 4, 1);
    let refused = |second: Observations, words: &[&str]| {
        let fit = || {
            Coupled::new([
                Part::new("ir,jr->ij", &observed(&y, &names)?)?,
                Part::new("ir,kr->ik", &second)?,
            ])
            .settings(settings)
            .fit()
        };
        let error = fit().expect_err("it does not go").to_string();
        for word in words {
            assert!(error.contains(word), "{word} is not in {error}");
        }
    };
    refused(observed(&y, &["x", "y", "z"])?, &["no label", "'a' and 'x'", "tensors 1 and 2"]);
    refused(observed(&y, &["a", "a", "b"])?, &["tensor 2", "'a'", "twice"]);
    let longer = table(&["a", "b", "c", "d"], 4, 1);
    refused(Observations::new(&longer), &["tensor 2 has no labels", "3 labels", "4 indices"]);
    let masked = observed(&longer, &["a", "b", "c", "d"])?;
    let mask = longer.mapv(|x| x > 5.0);
    let refused_mask = Coupled::new([
        Part::new("ir,jr->ij", &observed(&y, &names)?.mask(&y.mapv(|x| x > 3.0))?)?,
        Part::new("ir,kr->ik", &masked.mask(&mask)?)?,
    ])
    .settings(settings)
    .fit();
    let error = refused_mask.expect_err("masks do not move").to_string();
    assert!(error.contains("a mask") && error.contains("tensor 1"), "{error}");
    // As many indices without labels are taken in their order, and that is said.
    let fit = Coupled::new([
        Part::new("ir,jr->ij", &observed(&y, &names)?)?,
        Part::new("ir,kr->ik", &y)?,
    ])
    .settings(settings)
    .fit()?;
    assert!(fit.warnings()[0].contains("no labels in tensor 2"), "{:?}", fit.warnings());
    Ok(())
}

#[test]
fn a_basis_is_one_for_all_parts() -> Result<(), Error> {
    let mut random = Random::new(19);
    let (first, second) = (random.tensor(&[24, 6], 0.5, 3.0), random.tensor(&[24, 5], 0.5, 3.0));
    let parts = || -> Result<[Part; 2], Error> {
        Ok([
            Part::new("hr,ir->hi", &first)?,
            Part::new("kr,hr->hk", &second)?.loss(Loss::euclidean()).weight(2.0),
        ])
    };
    let with = |all: NNEinFact| {
        settings(all)
            .basis('h', Splines::new(6).cyclic())
            .penalty("theta_1", Penalty::l2(0.01))
            .smooth("ir", Smooth::line(0.01))
            .kkt_residual(true)
    };
    let fit = Coupled::new(parts()?).settings(with).fit()?;
    assert_eq!(fit.factor("hr")?.shape(), [24, 2]);
    assert_eq!(fit.factors().len(), 3);
    assert_eq!(fit.parts()[0].factors()[0], fit.parts()[1].factors()[1]);
    assert_eq!(fit.parts()[1].model().to_string(), "kr,hr->hk");
    assert!(fit.structure().iter().any(|text| text == "basis h=spline:6,cyclic"));
    for part in fit.parts() {
        let formed = predict(part.shapes(), part.factors());
        assert!(array_deviation(&formed, &part.reconstruct()?) < 1e-12);
        let next = part.history().last_loss();
        assert!(next.is_finite() && next > 0.0);
    }
    assert!(fit.history().kkt_residual.is_some_and(f64::is_finite));
    // The same fit with the functions given as a factor that is fixed.
    let functions = Splines::new(6).cyclic().values(24)?;
    let by_hand = Coupled::new([
        Part::new("hz,zr,ir->hi", &first)?,
        Part::new("kr,hz,zr->hk", &second)?.loss(Loss::euclidean()).weight(2.0),
    ])
    .settings(move |all| {
        settings(all)
            .ranks([('z', 6)])
            .fix("hz", functions)
            .penalty("zr", Penalty::l2(0.01))
            .smooth("ir", Smooth::line(0.01))
    })
    .fit()?;
    let apart = array_deviation(fit.factor("ir")?, by_hand.factor("ir")?);
    assert!(apart < 1e-9, "{apart}");
    // All observed modes of the union, whatever the functions are called.
    let refused = |set: fn(NNEinFact) -> NNEinFact, expected: &str| {
        let parts = parts().expect("parts");
        let error = Coupled::new(parts).settings(move |all| set(settings(all))).fit();
        let error = error.expect_err(expected).to_string();
        assert!(error.contains(expected), "{error} for {expected}");
    };
    refused(|all| all.basis('x', Splines::new(3)), "x is not a mode");
    refused(|all| all.basis('h', Splines::new(25)), "from 2 functions to one for each");
    refused(|all| all.basis('h', Splines::new(3)).basis('h', Splines::new(4)), "given twice");
    refused(|all| all.basis('h', Splines::new(3)).simplex("hr", None), "only a penalty");
    refused(|all| all.basis('h', Splines::new(3)).tie(["hr", "ir"]), "tied");
    Ok(())
}

#[test]
fn the_roles_of_entries_move_with_their_labels() -> Result<(), Error> {
    let names = ["b", "a"];
    let y = table(&names, 40, 1);
    let data = observed(&y, &names)?.held_out(0.25, 4)?;
    let all = people(&["a", "b", "c"]);
    let prepared = data.relabeled(0, &all)?.prepare()?;
    assert_eq!(prepared.count(Role::Missing), 40);
    let held = prepared.count(Role::HeldOut);
    assert!(held > 5 && held < 40, "{held}");
    assert_eq!(prepared.count(Role::Train) + held, 80);
    Ok(())
}
