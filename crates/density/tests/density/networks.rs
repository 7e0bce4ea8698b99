//! The golden case of a Tucker model that is fitted to a train.

use nneinfact_density::{Dense, Network, NetworkFit, Schedule};

use crate::npz::Case;

#[test]
fn a_tucker_model_from_a_train() {
    let case = Case::read("12_network_tucker_from_train");
    let tolerance = case.number("tolerance");
    let network = |text: &str, name: &str, count: usize| {
        let tensors = (1..=count).map(|k| {
            let a = case.array(&format!("{name}_{k}"));
            Dense::new(a.shape.clone(), a.data.clone()).unwrap()
        });
        Network::new(text, tensors.collect()).unwrap()
    };
    let text = |key: &str| case.json[key].as_str().unwrap();
    let target = network(text("target"), "target", 3);
    let start = network(text("model"), "init", 4);
    let sweeps = case.number("sweeps") as usize;
    let found = NetworkFit::new()
        .schedule(Schedule::Fixed)
        .barrier(case.number("mu"))
        .decay(1.0)
        .sweeps(sweeps)
        .run(start, &target)
        .unwrap();
    let close = |got: &[f64], want: &[f64], what: &str| {
        assert_eq!(got.len(), want.len(), "{what}");
        for (got, want) in got.iter().zip(want) {
            // Half squared distances come from a difference of numbers near 400.
            assert!((got - want).abs() <= tolerance * want.abs() + 1e-11, "{what}: {got} {want}");
        }
    };
    close(&found.half_squared_distance, &case.numbers("half_squared_distance"), "distance");
    close(&found.objective, &case.numbers("barrier_objective_after_every_step"), "objective");
    let expected = network(text("model"), "expected", 4);
    for (got, want) in found.model.tensors().iter().zip(expected.tensors()) {
        let top = want.data().iter().fold(0.0, |m: f64, x| m.max(x.abs()));
        for (got, want) in got.data().iter().zip(want.data()) {
            assert!((got - want).abs() <= tolerance * top, "{got} {want}");
        }
    }
}
