//! What the program says of a fit of every model of the corpus, with labels, weights, odds and modes of one
//! index, against the tensor itself.

use std::collections::BTreeMap;

use ndarray::{ArrayD, Axis, Dimension, IxDyn};
use nneinfact::data::Labels;
use nneinfact::fit::{LossRecord, Saved};
use nneinfact::model::Index;
use nneinfact::{FactoredTensor, io};

use crate::commands::Bench;
use crate::common::{CORPUS, Random};

const SHAPE: [usize; 6] = [3, 2, 4, 2, 3, 2];
const ONES: [usize; 6] = [1, 4, 1, 3, 1, 2];

/// A fit on disk, and all its entries.
struct Case {
    what: String,
    letters: Vec<char>,
    whole: ArrayD<f64>,
    /// What the indices of each mode are called.
    names: Vec<Vec<String>>,
    odds: bool,
}

/// ŷ, summed term by term.
fn brute(tensor: &FactoredTensor) -> ArrayD<f64> {
    let (model, shapes) = (tensor.model(), tensor.shapes());
    let latent: Vec<Index> = model.latent().iter().collect();
    ArrayD::from_shape_fn(IxDyn(&shapes.data()), |at| {
        let mut sum = 0.0;
        for l in ndarray::indices(IxDyn(&shapes.sizes(&latent))) {
            let value = |x: &Index| match model.output().iter().position(|y| y == x) {
                Some(mode) => at[mode],
                None => l[latent.iter().position(|y| y == x).expect("latent")],
            };
            let mut term = tensor.weights().map_or(1.0, |w| w[&l]);
            for (factor, names) in tensor.factors().iter().zip(model.factors()) {
                let index: Vec<usize> = names.iter().map(value).collect();
                term *= factor[index.as_slice()];
            }
            sum += term;
        }
        sum
    })
}

/// The n-th case, as `fit.npz`.
fn case(bench: &Bench, n: usize) -> Case {
    let entry = &CORPUS[n % CORPUS.len()];
    let turn = n / CORPUS.len();
    let mut random = Random::new(300 + n as u64);
    let shape = if turn.is_multiple_of(2) { &SHAPE } else { &ONES };
    let shapes = entry.shapes(&shape[..entry.modes()]);
    let mut factors = random.factors(&shapes);
    // A zero, as fits have them.
    if let Some(x) = factors[0].iter_mut().nth(3) {
        *x = 0.0;
    }
    let latent: Vec<usize> = shapes.model().latent().iter().map(|x| shapes.size(x)).collect();
    let weights = (n % 2 == 1).then(|| random.tensor(&latent, 0.2, 2.0));
    let tensor = FactoredTensor::from_parts(entry.model, factors, weights).expect("factors");
    let odds = n.is_multiple_of(3);
    let letters: Vec<char> = tensor.model().output().iter().map(|&x| x.into()).collect();
    // Every other mode has labels, some of which a file or an option has to quote.
    let mut names = Vec::new();
    let mut labels = Vec::new();
    for (mode, (&letter, size)) in letters.iter().zip(shapes.data()).enumerate() {
        let labelled = (mode + n).is_multiple_of(2);
        let name = |i: usize| match (labelled, i % 3) {
            (false, _) => i.to_string(),
            (true, 0) => format!("{letter} \"{i}\", é"),
            (true, 1) => format!("{}", 10 * i),
            (true, _) => format!("{letter}_{i}"),
        };
        let own: Vec<String> = (0..size).map(name).collect();
        labels.push(match labelled {
            true => Labels::new(own.clone()).with_name(format!("mode {letter}")),
            false => Labels::default(),
        });
        names.push(own);
    }
    Saved::from(tensor.clone())
        .with_loss(LossRecord::of(if odds { "bernoulli" } else { "kl" }))
        .with_labels(labels)
        .expect("labels")
        .save(bench.path("fit.npz"))
        .expect("written");
    let what = format!("{} ({n})", entry.name);
    Case { what, letters, whole: brute(&tensor), names, odds }
}

fn same(found: &ArrayD<f64>, expected: &ArrayD<f64>, what: &str) {
    assert_eq!(found.shape(), expected.shape(), "{what}");
    for (f, e) in found.iter().zip(expected) {
        assert!((f - e).abs() <= 1e-11 * e.abs().max(1e-300), "{what}: {found} {expected}");
    }
}

fn array(bench: &Bench, name: &str) -> ArrayD<f64> {
    io::read_array_f64(bench.path(name), None).expect("an array")
}

/// The fields of a line of a `.csv` with quotes.
fn fields(line: &str) -> Vec<String> {
    let (mut all, mut quoted) = (vec![String::new()], false);
    let mut rest = line.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '"' if quoted && rest.peek() == Some(&'"') => {
                rest.next();
                all.last_mut().expect("a field").push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => all.push(String::new()),
            c => all.last_mut().expect("a field").push(c),
        }
    }
    all
}

impl Case {
    /// The sums over all axes but these, in this order.
    fn sums(of: &ArrayD<f64>, kept: &[usize]) -> ArrayD<f64> {
        let mut sums: BTreeMap<Vec<usize>, f64> = BTreeMap::new();
        for (at, &y) in of.indexed_iter() {
            let index: Vec<usize> = kept.iter().map(|&axis| at[axis]).collect();
            *sums.entry(index).or_default() += y;
        }
        let shape: Vec<usize> = kept.iter().map(|&axis| of.shape()[axis]).collect();
        ArrayD::from_shape_fn(IxDyn(&shape), |at| sums[at.slice()])
    }

    fn predictions(&self, bench: &Bench) {
        bench.good(&["predict", "fit.npz", "--out", "whole.npy"]);
        same(&array(bench, "whole.npy"), &self.whole, &self.what);
        if self.odds {
            bench.good(&["predict", "fit.npz", "--probabilities", "--out", "p.npy"]);
            same(&array(bench, "p.npy"), &self.whole.mapv(|y| y / (1.0 + y)), &self.what);
        }
        // A list of entries by their names, in and out.
        let last = self.whole.shape().iter().map(|n| n - 1).collect::<Vec<usize>>();
        let wanted = [vec![0; last.len()], last.clone()];
        let quote = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
        let mut list = self.letters.iter().map(char::to_string).collect::<Vec<_>>().join(",");
        for at in &wanted {
            let row: Vec<String> =
                at.iter().zip(&self.names).map(|(&i, names)| quote(&names[i])).collect();
            list += &format!("\n{}", row.join(","));
        }
        bench.text("list.csv", &list);
        bench.good(&["predict", "fit.npz", "--at", "list.csv", "--out", "at.csv"]);
        let text = std::fs::read_to_string(bench.path("at.csv")).expect("a file");
        for (line, at) in text.lines().skip(1).zip(&wanted) {
            let found = fields(line);
            let value: f64 = found[last.len()].parse().expect("a number");
            let expected = self.whole[at.as_slice()];
            assert!((value - expected).abs() <= 1e-11 * expected, "{}: {line}", self.what);
            for ((name, &i), names) in found.iter().zip(at).zip(&self.names) {
                assert_eq!(name, &names[i], "{}: {line}", self.what);
            }
        }
        assert_eq!(text.lines().count(), 3, "{}", self.what);
        // A slice by the name of its last index.
        let mode = last.len() - 1;
        let slice = format!("{}={}", self.letters[mode], self.names[mode][last[mode]]);
        bench.good(&["predict", "fit.npz", "--slice", &slice, "--out", "slice.npy"]);
        let expected = self.whole.index_axis(Axis(mode), last[mode]).to_owned();
        same(&array(bench, "slice.npy"), &expected, &self.what);
    }

    fn answers(&self, bench: &Bench) {
        let modes = self.letters.len();
        let backwards: String = self.letters.iter().rev().collect();
        let ask = ["ask", "fit.npz", "--total", "--components", "--marginal", &backwards];
        bench.good(&[&ask[..], &["--top", "4", "--out", "all.json"]].concat());
        let text = std::fs::read_to_string(bench.path("all.json")).expect("a file");
        let all: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let near = |found: &serde_json::Value, expected: f64| {
            let found = found.as_f64().expect("a number");
            assert!(
                (found - expected).abs() <= 1e-11 * expected.abs(),
                "{} {found} {expected}",
                self.what
            );
        };
        near(&all["total"], self.whole.sum());
        let mut largest: Vec<f64> = self.whole.iter().copied().collect();
        largest.sort_by(|a, b| b.total_cmp(a));
        for (row, &expected) in all["top"].as_array().expect("rows").iter().zip(&largest) {
            near(&row["prediction"], expected);
            let at: Vec<usize> = self
                .letters
                .iter()
                .map(|x| row[x.to_string()].as_u64().expect("an index") as usize)
                .collect();
            near(&row["prediction"], self.whole[at.as_slice()]);
            for ((letter, &i), names) in self.letters.iter().zip(&at).zip(&self.names) {
                let label = &row[format!("{letter}_label")];
                assert!(label.is_null() || label == names[i].as_str(), "{}", self.what);
            }
        }
        let order: Vec<usize> = (0..modes).rev().collect();
        let turned = Self::sums(&self.whole, &order);
        for (row, &expected) in all["marginal"].as_array().expect("rows").iter().zip(&turned) {
            near(&row["sum"], expected);
        }
        // Given the first index of the last mode: probabilities over the first.
        if modes > 1 {
            let given = format!("{}={}", self.letters[modes - 1], self.names[modes - 1][0]);
            let first = self.letters[0].to_string();
            let part = self.whole.index_axis(Axis(modes - 1), 0).to_owned();
            let ask = ["ask", "fit.npz", "--given", &given, "--marginal", &first];
            bench.good(&[&ask[..], &["--out", "p.npy"]].concat());
            same(&array(bench, "p.npy"), &(Self::sums(&part, &[0]) / part.sum()), &self.what);
        }
    }
}

#[test]
fn every_model_answers_as_its_tensor_does() {
    let bench = Bench::new();
    for n in 0..2 * CORPUS.len() {
        let case = case(&bench, n);
        case.predictions(&bench);
        case.answers(&bench);
    }
}
