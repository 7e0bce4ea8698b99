//! Two tensors that share a factor: ratings, most of which are missing, and what is known of the people
//! who rate.
//!
//! A person has about four known ratings, hardly more than the three numbers that describe them: from the
//! ratings alone the others cannot be told. The second tensor tells where people stand.

use ndarray::Array2;
use nneinfact::fit::{Coupled, Part};
use nneinfact::{Loss, NNEinFact, Observations};

const PEOPLE: usize = 60;
const ITEMS: usize = 40;
const TRAITS: usize = 25;
const KINDS: usize = 3;

/// Numbers that look random, the same on every run.
fn noise(i: usize, j: usize, stream: usize) -> f64 {
    let x = (i * 12_989 + j * 78_233 + stream * 37_719) as f64;
    (x.sin() * 43_758.545).fract().abs()
}

fn main() -> nneinfact::Result<()> {
    let person = Array2::from_shape_fn((PEOPLE, KINDS), |(i, r)| noise(i, r, 1).powi(3));
    let item = Array2::from_shape_fn((ITEMS, KINDS), |(j, r)| noise(j, r, 2).powi(2));
    let about = Array2::from_shape_fn((TRAITS, KINDS), |(k, r)| noise(k, r, 3).powi(2));
    let ratings = person.dot(&item.t());
    let traits = person.dot(&about.t());
    let known = Array2::from_shape_fn((PEOPLE, ITEMS), |(i, j)| noise(i, j, 4) < 0.1);
    let observations = Observations::new(&ratings).mask(&known)?;

    // The mean error at the ratings that are missing, as a share of their mean.
    let error = |found: &ndarray::ArrayD<f64>| {
        let unknown = found.iter().zip(&ratings).zip(&known).filter(|(_, known)| !**known);
        let (off, all) = unknown.fold((0.0, 0.0), |(off, all), ((found, rating), _)| {
            (off + (found - rating).abs(), all + rating)
        });
        off / all
    };
    let settings = |all: NNEinFact| all.ranks([('r', KINDS)]).seed(1).max_iter(1000);

    let alone = settings(NNEinFact::new("ir,jr->ij")?).loss(Loss::kl()).fit(&observations)?;
    let together = Coupled::new([
        Part::new("ir,jr->ij", &observations)?.loss(Loss::kl()),
        Part::new("ir,kr->ik", &traits)?.loss(Loss::euclidean()).weight(5.0),
    ])
    .settings(settings)
    .fit()?;

    let seen = known.iter().filter(|known| **known).count();
    println!("{seen} of {} ratings are known", PEOPLE * ITEMS);
    println!(
        "error at the others, of a fit to the ratings alone: {:.2}",
        error(&alone.reconstruct()?)
    );
    let found = together.parts()[0].reconstruct()?;
    println!("error with the traits coupled to them:              {:.2}", error(&found));
    println!("the factor that they share: {:?}", together.factor("ir")?.shape());
    Ok(())
}
