//! Golden cases of what a distribution is asked, the one with 400 modes among them.

use nneinfact_density::{Density, NonnegativeTrain};

use crate::fits::assert_cores;
use crate::npz::Case;

/// Agree to a tolerance, relative where the number is large.
fn close(got: f64, want: f64, tolerance: f64, what: &str) {
    assert!((got - want).abs() <= tolerance * want.abs().max(1.0), "{what}: {got} for {want}");
}

fn all_close(got: &[f64], want: &[f64], tolerance: f64, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    got.iter().zip(want).for_each(|(&got, &want)| close(got, want, tolerance, what));
}

fn check(name: &str) {
    let case = Case::read(name);
    let tolerance = case.number("tolerance");
    let train = NonnegativeTrain::new(case.cores("model"), 0.0).unwrap();
    let density = Density::new(&train).unwrap();
    let d = density.order();
    close(density.log_partition(), case.number("log_z"), tolerance, "log partition");
    close(train.train().log_norm(), case.number("log_norm"), tolerance, "log norm");
    if case.arrays.contains_key("markov_1") {
        assert_cores(density.markov_cores(), &case.cores("markov"), tolerance, "Markov form");
    }
    // Modes, and given values, are counted from 1 in the case.
    let modes: Vec<usize> = case.numbers("keep").iter().map(|&k| k as usize - 1).collect();
    let table = density.marginal(&modes).unwrap();
    assert_eq!(table.shape(), case.array("marginal").shape);
    all_close(table.values(), &case.array("marginal").data, tolerance, "marginal");
    let singles = density.single_marginals();
    for (k, single) in singles.iter().enumerate() {
        if let Some(want) = case.arrays.get(&format!("single_{}", k + 1)) {
            all_close(single, &want.data, tolerance, "single marginal");
        }
    }
    let given: Vec<(usize, usize)> = case.json["given"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(mode, value)| {
            (mode.parse::<usize>().unwrap() - 1, value.as_u64().unwrap() as usize - 1)
        })
        .collect();
    check_conditional(&case, &density, &given, tolerance);
    let f: Vec<Vec<f64>> = (1..=d).map(|k| case.array(&format!("f_{k}")).data.clone()).collect();
    if let Some(want) = case.json["expectation_of_all"].as_f64() {
        let all: Vec<Option<&[f64]>> = f.iter().map(|f| Some(&f[..])).collect();
        close(density.expectation(&all).unwrap(), want, tolerance, "expectation of all");
    }
    let moments = density.covariance(&f).unwrap();
    all_close(&moments.mean, &case.numbers("mean_f"), tolerance, "mean");
    close(moments.covariance[1], case.number("covariance_1_2"), tolerance, "covariance 1, 2");
    close(moments.covariance[d - 1], case.number("covariance_1_d"), tolerance, "covariance 1, d");
    assert_eq!(moments.covariance[d], moments.covariance[1]);
    let samples = density.sample_from(&case.array("uniforms").data).unwrap();
    assert_eq!(samples, case.indices("samples"));
    let log_p = density.log_probabilities(&samples).unwrap();
    all_close(&log_p, &case.array("log_prob").data, tolerance, "log probability");
    let nll = density.nll(&samples, None).unwrap();
    close(nll.mean, case.number("nll"), tolerance, "NLL");
    let entries = density.log_entries(&samples).unwrap();
    all_close(&entries, &train.log_entries(&samples).unwrap(), tolerance, "log entries");
}

fn check_conditional(case: &Case, density: &Density, given: &[(usize, usize)], tolerance: f64) {
    let conditional = density.conditional(given).unwrap();
    close(conditional.log_probability, case.number("log_prob_given"), tolerance, "log P(given)");
    let modes: Vec<usize> =
        case.numbers("conditional_modes").iter().map(|&k| k as usize - 1).collect();
    let table = conditional.density.marginal(&modes).unwrap();
    assert_eq!(table.shape(), case.array("conditional").shape);
    all_close(table.values(), &case.array("conditional").data, tolerance, "conditional");
}

#[test]
fn six_modes() {
    check("09_use");
}

#[test]
fn four_hundred_modes() {
    check("10_use_long");
}
