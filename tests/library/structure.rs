//! Factors that are the same, smooth modes, rows that add up to 1.

use crate::common::{
    Configuration, Random, array_deviation, cpu_configurations, data, largest_rise, losses,
    mean_term,
};
use ndarray::{Array2, ArrayD, Axis, Ix2, array};
use nneinfact::fit::{Balance, Checkpoint, Every, Smooth, Splines, Start};
use nneinfact::loss::Penalty;
use nneinfact::model::{Model, Shapes};
use nneinfact::reference::predict;
use nneinfact::{Algorithm, Device, Error, Fit, Loss, NNEinFact, Observations, Precision};

/// A model, the sizes of its modes, its ranks, and the factors that are tied.
pub struct Tied {
    pub model: &'static str,
    pub shape: &'static [usize],
    pub ranks: &'static [(char, usize)],
    pub tie: &'static [&'static str],
    /// A factor that is smooth, and one whose rows add up to 1 over a letter.
    pub smooth: &'static str,
    pub simplex: (&'static str, &'static str),
}

pub const TIED: &[Tied] = &[
    Tied {
        model: "ir,jr->ij",
        shape: &[7, 7],
        ranks: &[('r', 3)],
        tie: &["ir", "jr"],
        smooth: "jr",
        simplex: ("ir", "r"),
    },
    Tied {
        model: "ir,jr,kr->ijk",
        shape: &[5, 5, 5],
        ranks: &[('r', 2)],
        tie: &["ir", "jr", "kr"],
        smooth: "ir",
        simplex: ("kr", "k"),
    },
    Tied {
        model: "ir,kr,jr->ikj",
        shape: &[5, 6, 5],
        ranks: &[('r', 2)],
        tie: &["ir", "jr"],
        smooth: "kr",
        simplex: ("ir", "i"),
    },
    Tied {
        model: "ab,ia,jb->ij",
        shape: &[6, 6],
        ranks: &[('a', 2), ('b', 2)],
        tie: &["ia", "jb"],
        smooth: "ia",
        simplex: ("ab", "ab"),
    },
];

/// What fits of the property suite have besides a tie.
fn with(settings: NNEinFact, tied: &Tied, turn: usize) -> NNEinFact {
    let settings = settings.tie(tied.tie.iter().copied());
    let settings = match turn % 4 {
        0 => settings,
        1 => settings.penalty_on_all(Penalty::new(0.1, [1.0, 2.0, 1.5][turn % 3])),
        2 => settings.smooth(tied.smooth, Smooth::circle(0.3)),
        _ => {
            settings.smooth(tied.smooth, Smooth::line(0.2)).penalty(tied.tie[0], Penalty::l2(0.05))
        }
    };
    match turn % 5 {
        4 => settings.simplex(tied.simplex.0, Some(tied.simplex.1)),
        _ => settings,
    }
}

/// Fits a tied model of a loss, and checks that what it lowers never rises.
pub fn never_rises(
    configuration: &Configuration,
    tied: &Tied,
    loss: &Loss,
    turn: usize,
) -> Result<(), Error> {
    let mut random = Random::new(900 + turn as u64);
    let shapes = Shapes::new(&Model::parse(tied.model)?, tied.shape, tied.ranks)?;
    let y = data(&mut random, &shapes, loss);
    let observations = match turn % 3 {
        0 => Observations::new(&y),
        _ => Observations::new(&y).mask(&random.mask(y.shape(), 0.8))?,
    };
    let algorithm = [Algorithm::Block, Algorithm::Grouped, Algorithm::Accelerated][turn % 3];
    let settings = NNEinFact::new(tied.model)?
        .ranks(tied.ranks.iter().copied())
        .loss(loss.clone())
        .algorithm(algorithm)
        .device(configuration.device.clone())
        .precision(configuration.precision)
        .balance([Balance::EverySweep, Balance::Never][turn % 2])
        .prediction_floor(1e-6)
        .seed(turn as u64)
        .tolerance(0.0)
        .max_iter(12);
    let fit = with(settings, tied, turn).fit(&observations)?;
    let objective = fit.history().objective();
    let term = mean_term(loss, &y, None, &predict(&shapes, fit.factors()), 1e-6);
    let what = format!("{} {} {turn} {algorithm:?}: {objective:?}", tied.model, loss.name());
    // An extrapolated point is only kept where it is not above the point before.
    let rise = largest_rise(&objective, term);
    assert!(rise <= configuration.rise, "{rise} {what}");
    assert!(objective[objective.len() - 1] < objective[0], "{what}");
    let model = shapes.model();
    let first = model.factor_named(tied.tie[0])?;
    for name in tied.tie {
        assert_eq!(fit.factors()[model.factor_named(name)?], fit.factors()[first], "{what}");
    }
    Ok(())
}

#[test]
fn tied_smooth_and_simplex_fits_never_rise() -> Result<(), Error> {
    for configuration in cpu_configurations() {
        let mut turn = 0;
        for tied in TIED {
            for loss in losses() {
                // Every combination of a kind and an algorithm comes by.
                turn += 1;
                never_rises(&configuration, tied, &loss, turn)?;
            }
        }
    }
    Ok(())
}

fn exact(model: &str, ranks: &[(char, usize)]) -> Result<NNEinFact, Error> {
    Ok(NNEinFact::new(model)?
        .ranks(ranks.iter().copied())
        .device(Device::cpu())
        .precision(Precision::F64)
        .tolerance(0.0))
}

fn matrix(fit: &Fit, l: usize) -> Array2<f64> {
    fit.factors()[l].clone().into_dimensionality::<Ix2>().expect("a matrix")
}

/// A symmetric table of three groups.
fn symmetric(n: usize) -> Array2<f64> {
    Array2::from_shape_fn((n, n), |(i, j)| {
        let near = if i % 3 == j % 3 { 4.0 } else { 0.5 };
        near + ((i * j) % 5) as f64 * 0.1
    })
}

#[test]
fn a_sweep_of_a_symmetric_matrix_is_the_known_update() -> Result<(), Error> {
    let y = symmetric(9);
    let mut random = Random::new(3);
    let theta = random.tensor(&[9, 3], 0.2, 1.2).into_dimensionality::<Ix2>().expect("a matrix");
    let run = |loss: Loss| {
        let start = vec![theta.clone().into_dyn(), theta.clone().into_dyn()];
        exact("ir,jr->ij", &[('r', 3)])?
            .tie(["ir", "jr"])
            .loss(loss)
            .algorithm(Algorithm::Block)
            .start(Start::Factors(start))
            .max_iter(1)
            .fit(&y)
    };
    let predicted = theta.dot(&theta.t());
    // The fourth root for half the squared distance, the square root for KL.
    let euclid = &theta * &(y.dot(&theta) / predicted.dot(&theta)).mapv(|x| x.powf(0.25));
    let found = matrix(&run(Loss::euclidean())?, 0);
    assert!((&found - &euclid).iter().all(|x| x.abs() < 1e-12), "{found} {euclid}");
    let ones = Array2::<f64>::ones((9, 9));
    let kl = &theta * &((&y / &predicted).dot(&theta) / ones.dot(&theta)).mapv(f64::sqrt);
    let found = matrix(&run(Loss::kl())?, 0);
    assert!((&found - &kl).iter().all(|x| x.abs() < 1e-12), "{found} {kl}");
    Ok(())
}

#[test]
fn a_symmetric_table_is_fitted_symmetrically_and_well() -> Result<(), Error> {
    let y = symmetric(12);
    for loss in [Loss::kl(), Loss::euclidean(), Loss::reverse_kl(), Loss::itakura_saito()] {
        let name = loss.name().to_string();
        let tied =
            exact("ir,jr->ij", &[('r', 3)])?.loss(loss).tie(["ir", "jr"]).max_iter(400).fit(&y)?;
        let whole = tied.reconstruct()?;
        for (i, j) in (0..12).flat_map(|i| (0..12).map(move |j| (i, j))) {
            assert_eq!(whole[[i, j]].to_bits(), whole[[j, i]].to_bits(), "{name} {i} {j}");
            assert!((whole[[i, j]] - y[[i, j]]).abs() < 0.6, "{name} {i} {j}: {}", whole[[i, j]]);
        }
    }
    Ok(())
}

/// What is lowered, from the definition: the Euclidean loss, squared differences along the first axis of
/// the first factor, and squares of the second one.
fn objective(y: &Array2<f64>, factors: &[ArrayD<f64>], smooth: f64, ridge: f64) -> f64 {
    let two = |l: usize| factors[l].clone().into_dimensionality::<Ix2>().expect("a matrix");
    let (first, second) = (two(0), two(1));
    let loss = 0.5 * (y - &first.dot(&second.t())).mapv(|x| x * x).sum();
    let n = first.nrows();
    let rough: f64 =
        (0..n).map(|i| (&first.row(i) - &first.row((i + 1) % n)).mapv(|x| x * x).sum()).sum();
    loss + smooth * rough + ridge * second.mapv(|x| x * x).sum()
}

#[test]
fn a_smooth_fit_ends_where_nothing_lowers_what_it_says_it_lowers() -> Result<(), Error> {
    let mut random = Random::new(11);
    let y = random.tensor(&[8, 6], 0.5, 3.0).into_dimensionality::<Ix2>().expect("a matrix");
    let fit = exact("hr,ir->hi", &[('r', 2)])?
        .loss(Loss::euclidean())
        .smooth("hr", Smooth::circle(0.4))
        .penalty("ir", Penalty::l2(0.3))
        .kkt_residual(true)
        .max_iter(6000)
        .fit(&y)?;
    let history = fit.history();
    let cells = y.len() as f64;
    let least = objective(&y, fit.factors(), 0.4, 0.3);
    let last = history.objective()[history.loss.len() - 1] * cells;
    assert!((last - least).abs() < 1e-10 * least, "{last} {least}");
    assert!(history.kkt_residual.is_some_and(|residual| residual < 1e-4), "{history:?}");
    for l in 0..2 {
        for entry in 0..fit.factors()[l].len() {
            for step in [1e-3, -1e-3] {
                let mut moved = fit.factors().to_vec();
                let x = moved[l].iter_mut().nth(entry).expect("an entry");
                *x = (*x + step).max(0.0);
                let other = objective(&y, &moved, 0.4, 0.3);
                assert!(other >= least - 1e-7 * least, "{l} {entry} {step}: {other} {least}");
            }
        }
    }
    Ok(())
}

#[test]
fn smooth_factors_are_smoother_and_weights_count() -> Result<(), Error> {
    let mut random = Random::new(12);
    let y = random.tensor(&[16, 9], 0.5, 3.0);
    let rough = |weight: f64| -> Result<f64, Error> {
        let fit = exact("hr,ir->hi", &[('r', 2)])?
            .smooth("hr", Smooth::line(weight))
            .simplex("ir", Some("i"))
            .max_iter(300)
            .fit(&y)?;
        let hours = matrix(&fit, 0);
        let steps = hours.rows().into_iter().zip(hours.rows().into_iter().skip(1));
        Ok(steps.map(|(a, b)| (&a - &b).mapv(|x| x * x).sum()).sum())
    };
    let found = [rough(0.0)?, rough(0.01)?, rough(0.1)?, rough(1.0)?];
    assert!(found.windows(2).all(|pair| pair[1] < 0.8 * pair[0]), "{found:?}");
    Ok(())
}

#[test]
fn smoothness_follows_the_unit_of_the_data() -> Result<(), Error> {
    let mut random = Random::new(13);
    let y = random.tensor(&[7, 6], 0.5, 3.0);
    let run = |scale: f64| {
        exact("hr,ir->hi", &[('r', 2)])?
            .smooth("hr", Smooth::circle(0.3 / scale))
            .simplex("ir", Some("i"))
            .prediction_floor(1e-9 * scale)
            .algorithm(Algorithm::Grouped)
            .max_iter(20)
            .fit(&(&y * scale))
    };
    let [one, large] = [run(1.0)?, run(1048576.0)?];
    let deviation = array_deviation(&(&large.factors()[0] / 1048576.0), &one.factors()[0]);
    assert!(deviation < 1e-9, "{deviation}");
    Ok(())
}

#[test]
fn rows_add_up_to_one_and_the_rest_takes_the_scale() -> Result<(), Error> {
    let y = symmetric(10);
    for loss in losses().into_iter().take(12) {
        let y = y.mapv(|x| x + 0.1);
        let name = loss.name().to_string();
        let fit = exact("ir,jr->ij", &[('r', 3)])?
            .loss(loss)
            .simplex("ir", None)
            .kkt_residual(true)
            .max_iter(60)
            .fit(&y)?;
        let sums = matrix(&fit, 0).sum_axis(Axis(1));
        assert!(sums.iter().all(|x| (x - 1.0).abs() < 1e-9), "{name} {sums}");
        let objective = fit.history().objective();
        assert!(largest_rise(&objective, 1e-6) < 1e-9, "{name} {objective:?}");
        assert!(fit.history().kkt_residual.is_some_and(|x| x < 0.3), "{name}");
    }
    Ok(())
}

#[test]
fn a_tied_fit_goes_on_to_the_same_bits() -> Result<(), Error> {
    let y = symmetric(9);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("fit.npz");
    let settings = |sweeps: usize| -> Result<NNEinFact, Error> {
        Ok(exact("ir,jr->ij", &[('r', 3)])?
            .tie(["ir", "jr"])
            .smooth("ir", Smooth::line(0.1))
            .max_iter(sweeps))
    };
    let whole = settings(30)?.fit(&y)?;
    settings(11)?.checkpoint(&path, Every::sweeps(1)).fit(&y)?;
    let on = settings(30)?.resume(Checkpoint::read(&path)?).fit(&y)?;
    assert_eq!(on.factors(), whole.factors());
    assert_eq!(on.history().loss, whole.history().loss);
    // Another tie is another fit.
    let other = exact("ir,jr->ij", &[('r', 3)])?.smooth("ir", Smooth::line(0.1)).max_iter(30);
    let error = other.resume(Checkpoint::read(&path)?).fit(&y).expect_err("another fit");
    assert!(error.to_string().contains("the same as factor 1"), "{error}");
    Ok(())
}

#[test]
fn a_fixed_factor_is_fixed_in_all_its_places() -> Result<(), Error> {
    let known = array![[1.0, 0.0], [1.0, 1.0], [0.0, 2.0]];
    let core = array![[2.0, 0.5], [0.5, 3.0]];
    let y = known.dot(&core).dot(&known.t());
    let fit = exact("ia,ab,jb->ij", &[('a', 2), ('b', 2)])?
        .tie(["ia", "jb"])
        .fix("jb", known.clone())
        .max_iter(2000)
        .fit(&y)?;
    assert_eq!(fit.factors()[0], known.clone().into_dyn());
    assert_eq!(fit.factors()[2], known.into_dyn());
    assert!(array_deviation(&fit.factors()[1], &core.into_dyn()) < 1e-3);
    Ok(())
}

#[test]
fn a_basis_is_multiplied_out_and_spans_what_is_fitted() -> Result<(), Error> {
    let mut random = Random::new(17);
    let y = random.tensor(&[5, 24, 6], 0.5, 3.0);
    let fit = exact("ir,hkr,jk->ihj", &[('r', 2), ('k', 2)])?
        .basis('h', Splines::new(6).cyclic())
        .penalty("hkr", Penalty::l2(0.01))
        .max_iter(40)
        .fit(&y)?;
    assert_eq!(fit.model().to_string(), "ir,hkr,jk->ihj");
    assert_eq!(fit.factors()[1].shape(), [24, 2, 2]);
    assert_eq!(fit.structure(), ["basis h=spline:6,cyclic"]);
    let shapes = fit.shapes();
    assert!(array_deviation(&predict(shapes, fit.factors()), &fit.reconstruct()?) < 1e-12);
    // Every profile is a sum of the functions: what is left of it beside them is nothing.
    let functions = Splines::new(6).cyclic().values(24)?;
    for (k, r) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
        let profile: Vec<f64> = (0..24).map(|h| fit.factors()[1][[h, k, r]]).collect();
        let mut rest = ndarray::Array1::from(profile.clone());
        // Gram and Schmidt, twice.
        let mut made: Vec<ndarray::Array1<f64>> = Vec::new();
        for column in functions.columns() {
            let mut column = column.to_owned();
            for _ in 0..2 {
                for one in &made {
                    let share = one.dot(&column);
                    column.scaled_add(-share, one);
                }
            }
            let norm = column.dot(&column).sqrt();
            made.push(column / norm);
        }
        for _ in 0..2 {
            for one in &made {
                let share = one.dot(&rest);
                rest.scaled_add(-share, one);
            }
        }
        let size: f64 = profile.iter().map(|x| x * x).sum();
        assert!(rest.dot(&rest) < 1e-20 * size, "{rest}");
    }
    // Of as many functions as indices nothing is lost.
    let free = exact("hr,jr->hj", &[('r', 2)])?.max_iter(500).fit(&y.sum_axis(Axis(0)))?;
    let all = exact("hr,jr->hj", &[('r', 2)])?.basis('h', Splines::new(24)).max_iter(2000);
    let all = all.fit(&y.sum_axis(Axis(0)))?;
    assert!(all.history().last_loss() >= free.history().last_loss() * 0.999);
    let refused = |settings: NNEinFact, expected: &str| {
        let error = settings.fit(&y).expect_err(expected).to_string();
        assert!(error.contains(expected), "{error} for {expected}");
    };
    let new = || exact("ir,hr,jr->ihj", &[('r', 2)]);
    refused(new()?.basis('x', Splines::new(3)), "x is not a mode");
    refused(new()?.basis('h', Splines::new(25)), "from 2 functions to one for each");
    refused(new()?.basis('h', Splines::new(3)).basis('h', Splines::new(4)), "given twice");
    refused(new()?.basis('h', Splines::new(3)).smooth("hr", Smooth::line(1.0)), "only a penalty");
    let many = exact("ihr,hr,jr->ihj", &[('r', 2)])?.basis('h', Splines::new(3));
    refused(many, "one factor only");
    Ok(())
}

/// A number of events of this mean (Knuth's product of uniform numbers).
fn poisson(random: &mut Random, mean: f64) -> f64 {
    let (least, mut product, mut count) = ((-mean).exp(), random.uniform(), 0.0);
    while product > least {
        product *= random.uniform();
        count += 1.0;
    }
    count
}

/// The mean cosine of planted columns with those that were found, paired as is best.
fn recovered(planted: &Array2<f64>, found: &Array2<f64>) -> f64 {
    let cosine = |a: usize, b: usize| {
        let (x, y) = (planted.column(a), found.column(b));
        x.dot(&y) / (x.dot(&x) * y.dot(&y)).sqrt()
    };
    let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    let mean = |order: &[usize; 3]| (0..3).map(|a| cosine(a, order[a])).sum::<f64>() / 3.0;
    orders.iter().map(mean).fold(0.0, f64::max)
}

#[test]
fn smooth_profiles_are_found_better_where_events_are_few() -> Result<(), Error> {
    // Three bumps around the clock, and what 40 places have of each.
    let hours = Array2::from_shape_fn((24, 3), |(h, r)| {
        let angle = (h as f64 - [3.0, 9.0, 18.0][r]) * std::f64::consts::TAU / 24.0;
        (2.0 * angle.cos()).exp()
    });
    let mut found = [[0.0; 4]; 3];
    let counts = [0.05, 0.2, 1.0];
    const DRAWS: u64 = 4;
    for (row, &count) in found.iter_mut().zip(&counts) {
        for draw in 0..DRAWS {
            let mut random = Random::new(500 + draw);
            let places = Array2::from_shape_fn((40, 3), |_| random.uniform().powi(3));
            let mut y = hours.dot(&places.t());
            let scale = count / y.mean().unwrap_or(1.0);
            y.mapv_inplace(|x| poisson(&mut random, scale * x));
            let events = y.sum();
            let fit = |more: &dyn Fn(NNEinFact) -> NNEinFact| -> Result<f64, Error> {
                let settings = exact("hr,ir->hi", &[('r', 3)])?.simplex("ir", Some("i"));
                let fit = more(settings.starts(4).max_iter(400).tolerance(1e-7)).fit(&y)?;
                Ok(recovered(&hours, &matrix(&fit, 0)))
            };
            let cosines = [
                fit(&|free| free)?,
                // An entry has about a 72nd of the events.
                fit(&|all| all.smooth("hr", Smooth::circle(10.0 / events)))?,
                fit(&|all| all.smooth("hr", Smooth::circle(100.0 / events)))?,
                fit(&|all| all.basis('h', Splines::new(8).cyclic()))?,
            ];
            row.iter_mut().zip(cosines).for_each(|(sum, x)| *sum += x / DRAWS as f64);
        }
    }
    println!("mean cosines, free, smooth twice, basis: {found:.3?} at {counts:?} events an entry");
    for row in &found {
        assert!(row[1].max(row[2]) > row[0] && row[3] > row[0], "{found:?}");
    }
    // The fewer events there are, the more it helps.
    let gain = |row: &[f64; 4]| row[1].max(row[2]) - row[0];
    assert!(gain(&found[0]) > 0.03 && gain(&found[0]) > gain(&found[2]), "{found:?}");
    Ok(())
}

#[test]
fn what_cannot_be_is_refused() -> Result<(), Error> {
    let y = Array2::<f64>::ones((4, 5));
    let square = Array2::<f64>::ones((4, 4));
    let refused = |settings: NNEinFact, y: &Array2<f64>, expected: &str| {
        let error = settings.fit(y).expect_err(expected).to_string();
        assert!(error.contains(expected), "{error} for {expected}");
    };
    let new = || exact("ir,jr->ij", &[('r', 2)]);
    refused(new()?.tie(["ir", "jr"]), &y, "their sizes are [4, 2] and [5, 2]");
    refused(new()?.tie(["ir"]), &square, "two or more");
    refused(new()?.tie(["ir", "ir"]), &square, "twice");
    refused(new()?.tie(["ir", "kr"]), &square, "has no factor kr");
    refused(new()?.tie(["ir", "jr"]).algorithm(Algorithm::Adam), &square, "not for adam");
    refused(new()?.tie(["ir", "jr"]).groups(vec![vec![0, 1]]), &square, "groups cannot be given");
    refused(new()?.smooth("ir", Smooth::line(f64::NAN)), &y, "not NaN");
    refused(new()?.smooth("ir", Smooth::line(1.0)).fix("ir", array![[1.0, 1.0]]), &y, "[1, 2]");
    let values = Array2::<f64>::ones((4, 2));
    refused(new()?.smooth("ir", Smooth::line(1.0)).fix("ir", values.clone()), &y, "smooth mode");
    refused(new()?.simplex("ir", None).fix("ir", values.clone()), &y, "add up to 1");
    refused(new()?.simplex("ir", None).bounds("ir", 0.0, 2.0), &y, "has bounds");
    refused(new()?.simplex("ir", Some("j")), &y, "j is not one of its letters ir");
    let start = vec![values.clone().into_dyn(), (values * 2.0).into_dyn()];
    let differ = new()?.tie(["ir", "jr"]).start(Start::Factors(start));
    refused(differ, &square, "are not the same");
    Ok(())
}
