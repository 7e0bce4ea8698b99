//! The pass against sums formed entry by entry, and what its order promises.

use nneinfact_core::algebra::contract::contract;
use nneinfact_core::data::{CooTensor, Dense, Implicit, Observations, StoredEntries, uniform_u32};
use nneinfact_core::engine::SparseProgram;
use nneinfact_core::loss::Loss;
use nneinfact_core::model::{Model, Shapes};
use nneinfact_core::plan::{
    DataInfo, Grouping, ImplicitForm, KhatriRaoTable, Plan, PlanSettings, SparseInfo, SparsePass,
};

use super::compact::{LocalRows, Values};
use super::order::{Order, OrderSizes};
use super::{BlockedEntries, BlockedPass, TrainingEntries};
use crate::sparse::khatri_rao::KhatriRaoRows;
use crate::sparse::{Terms, onto};
use nneinfact_simd::Elementwise;

fn uniform(stream: u32, i: u64) -> f64 {
    (f64::from(uniform_u32(3, stream, i)) + 0.5) / 2f64.powi(32)
}

/// A model with its sizes, its data, and factors.
struct Case {
    sizes: OrderSizes,
    shapes: Shapes,
    stored: StoredEntries,
    factors: Vec<Vec<f64>>,
}

impl Case {
    /// So many entries are drawn, uneven rows with a `power` above 1. A tenth of them is withheld.
    fn new(model: &str, shape: &[usize], rank: usize, entries: usize, power: i32) -> Case {
        let model = Model::parse(model).unwrap();
        let ranks: Vec<(char, usize)> =
            model.latent().iter().map(|x| (char::from(x), rank)).collect();
        let shapes = Shapes::new(&model, shape, &ranks).unwrap();
        let index = |mode: usize, i: usize| {
            (uniform(mode as u32, i as u64).powi(power) * shape[mode] as f64) as u64
        };
        let indices: Vec<Vec<u64>> =
            (0..shape.len()).map(|mode| (0..entries).map(|i| index(mode, i)).collect()).collect();
        let values: Vec<f64> = (0..entries).map(|i| (1 + i % 3) as f64).collect();
        let list = CooTensor::new(shape, &indices, &values).unwrap();
        let tenth = |of: &Vec<u64>| of.iter().copied().step_by(10).skip(1).collect();
        let withheld: Vec<Vec<u64>> = indices.iter().map(tenth).collect();
        let ones = vec![1.0; withheld[0].len()];
        let withheld = CooTensor::new(shape, &withheld, &ones).unwrap();
        let observations = Observations::new(list).held_out_at(withheld).unwrap();
        let stored = observations.prepare().unwrap().stored(Implicit::Zeros);
        let factors = (0..shapes.model().factors().len())
            .map(|l| {
                let size: usize = shapes.factor(l).iter().product();
                (0..size).map(|i| 0.1 + uniform(50 + l as u32, i as u64)).collect()
            })
            .collect();
        Case { sizes: OrderSizes::USUAL, shapes, stored, factors }
    }

    /// The passes of an update of one factor after another.
    fn passes(&self) -> Vec<SparsePass> {
        let counts = self.stored.counts();
        let settings = PlanSettings {
            grouping: Grouping::Block,
            sparse: Some(SparseInfo {
                stored: counts.train,
                masked: counts.masked,
                implicit: ImplicitForm::Closed,
            }),
            ..PlanSettings::default()
        };
        let data = DataInfo::c_order(&self.shapes, 4);
        Plan::new(&self.shapes, &data, &settings).unwrap().sparse_passes().to_vec()
    }

    fn tables(&self, pass: &SparsePass) -> Vec<Vec<f64>> {
        let table = |table: &KhatriRaoTable| {
            let inputs: Vec<&[f64]> =
                table.factors.iter().map(|&l| self.factors[l].as_slice()).collect();
            contract(&self.shapes, &table.contraction, &inputs)
        };
        std::iter::once(&pass.output).chain(&pass.operands).map(table).collect()
    }

    /// Numerator, denominator and losses of a pass in blocked order.
    fn sums<T: Elementwise>(&self, pass: &SparsePass, loss: &Loss) -> Sums {
        let parameters: Vec<Dense> =
            loss.entry_parameters().iter().map(|p| Dense::from_array(p).in_c_order()).collect();
        let training = TrainingEntries::new(&self.shapes, &self.stored);
        let entries =
            BlockedEntries::<T>::with_sizes(&training, pass, &parameters, 1.0, self.sizes);
        let depth = pass.contracted_size(&self.shapes);
        let tables: Vec<KhatriRaoRows<T>> =
            self.tables(pass).iter().map(|t| KhatriRaoRows::new(t, depth, 1.0)).collect();
        let terms = Terms::train(&SparseProgram::new(loss, Implicit::Zeros).stored);
        let outputs = terms.outputs(true, true);
        let (onto, width) = onto(&self.shapes, pass);
        let size: usize = self.shapes.sizes(&pass.indices).iter().product();
        let mut numerator = vec![0.0; size];
        let mut denominator = vec![0.0; if outputs.denominator { size } else { 0 }];
        let losses = BlockedPass {
            entries: &entries,
            tables: &tables,
            depth,
            onto: &onto,
            width,
            floor: T::from_f64(1e-12),
            tape: &terms.tape(outputs),
            outputs,
        }
        .run(&mut numerator, &mut denominator);
        Sums { numerator, denominator, losses: [losses.at_datum, losses.at_zero] }
    }

    /// The same in double precision, entry by entry, in C order.
    fn expected(&self, pass: &SparsePass, loss: &Loss) -> Sums {
        let terms = SparseProgram::new(loss, Implicit::Zeros).stored;
        let tables = self.tables(pass);
        let depth = pass.contracted_size(&self.shapes);
        let (onto, width) = onto(&self.shapes, pass);
        let size: usize = self.shapes.sizes(&pass.indices).iter().product();
        let mut numerator = vec![0.0; size];
        let mut denominator = vec![0.0; if terms.denominator.is_some() { size } else { 0 }];
        let mut losses = [0.0; 2];
        let list = self.stored.entries();
        let output = self.shapes.model().output();
        for i in 0..list.len() {
            if self.stored.role(i) != nneinfact_core::data::Role::Train {
                continue;
            }
            let row = |table: &KhatriRaoTable| {
                table.rows.iter().fold(0, |row, x| {
                    let mode = output.iter().position(|y| y == x).unwrap();
                    row * self.shapes.size(*x) + list.indices()[mode].get(i).unwrap() as usize
                })
            };
            let rows: Vec<&[f64]> = std::iter::once(&pass.output)
                .chain(&pass.operands)
                .zip(&tables)
                .map(|(form, data)| &data[row(form) * depth..][..depth])
                .collect();
            let others: Vec<f64> =
                (0..depth).map(|k| rows[1..].iter().map(|row| row[k]).product()).collect();
            let y: f64 = rows[0].iter().zip(&others).map(|(u, v)| u * v).sum();
            let x = list.values().get(i).unwrap();
            let to = row(&pass.output) * width;
            for (k, v) in others.iter().enumerate() {
                numerator[to + onto[k]] += terms.numerator.eval(x, y, &[]) * v;
                if let Some(b) = &terms.denominator {
                    denominator[to + onto[k]] += b.eval(x, y, &[]) * v;
                }
            }
            losses[0] += terms.loss.eval(x, y, &[]);
            losses[1] += terms.zero_loss.as_ref().map_or(0.0, |zero| zero.eval(x, y, &[]));
        }
        Sums { numerator, denominator, losses }
    }
}

#[derive(Debug, PartialEq)]
struct Sums {
    numerator: Vec<f64>,
    denominator: Vec<f64>,
    losses: [f64; 2],
}

/// Compares numbers, those that are small beside the largest to its precision.
fn close(what: &str, found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(0.0, |m: f64, x| m.max(x.abs()));
    for (i, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let error = (found - expected).abs();
        let bound = tolerance * expected.abs().max(1e-2 * largest);
        assert!(error <= bound, "{what} at {i}: {found} in place of {expected}");
    }
}

fn check(name: &str, case: &Case, loss: &Loss) {
    for (at, pass) in case.passes().iter().enumerate() {
        let expected = case.expected(pass, loss);
        let single = case.sums::<f32>(pass, loss);
        let double = case.sums::<f64>(pass, loss);
        for (found, tolerance, bits) in [(single, 3e-5, 32), (double, 1e-11, 64)] {
            let what = |sum: &str| format!("{name}, {}, pass {at}, f{bits}, {sum}", loss.name());
            close(&what("numerator"), &found.numerator, &expected.numerator, tolerance);
            close(&what("denominator"), &found.denominator, &expected.denominator, tolerance);
            close(&what("losses"), &found.losses, &expected.losses, tolerance);
        }
    }
}

#[test]
fn sums_are_those_of_every_entry() {
    let losses = [Loss::kl(), Loss::euclidean(), Loss::jensen_shannon()];
    let cases = [
        ("one entry", "ir,jr->ij", &[1, 1][..], 1, 1, 1),
        ("one row", "ir,jr->ij", &[1, 300], 3, 400, 1),
        ("one column", "ir,jr->ij", &[300, 1], 17, 400, 1),
        ("most rows are empty", "ir,jr->ij", &[5000, 4000], 7, 60, 1),
        ("uneven", "ir,jr->ij", &[90, 70], 16, 3000, 4),
        ("wide", "ir,jr->ij", &[40, 30], 200, 900, 2),
        ("three modes", "ir,jr,kr->ijk", &[30, 1, 50], 5, 2000, 2),
        ("three wide modes", "ir,jr,kr->ijk", &[30, 20, 50], 50, 2000, 3),
        ("four modes", "ir,jr,kr,lr->ijkl", &[9, 300, 5, 7], 33, 2000, 2),
        ("five modes", "wr,hr,dr,ikr,jkr->whdij", &[3, 4, 2, 30, 20], 4, 3000, 2),
        ("rows repeated along latent indices", "ia,jb,ab->ij", &[50, 40], 6, 900, 1),
    ];
    for (name, model, shape, rank, entries, power) in cases {
        let case = Case::new(model, shape, rank, entries, power);
        for loss in &losses {
            check(name, &case, loss);
        }
    }
}

#[test]
fn tables_that_outgrow_the_cache_are_cut_into_blocks() {
    // A row is cut into pieces where it has more entries than two tasks, and a table where its blocks are
    // looked up often enough: not both, in a matrix.
    let sizes = |task: usize, tile_bytes| OrderSizes { task: [task, 2 * task], tile_bytes };
    let two = Case::new("ir,jr->ij", &[30, 700], 50, 20_000, 1);
    let three = Case::new("ir,jr,kr->ijk", &[20, 300, 300], 50, 20_000, 1);
    let long = Case::new("ir,jr->ij", &[2, 9000], 10, 20_000, 1);
    let cases = [
        ("two modes", two, sizes(2000, 8 << 10), [true, false]),
        ("three modes", three, sizes(20_000, 300 << 8), [true, false]),
        ("long rows", long, sizes(1000, 8 << 10), [false, true]),
    ];
    for (name, case, sizes, expected) in cases {
        let case = Case { sizes, ..case };
        let entries = TrainingEntries::new(&case.shapes, &case.stored);
        let (mut pieces, mut cut) = (0, 0);
        for pass in case.passes() {
            let order = Order::new(&entries, &pass, sizes);
            cut += order.tiles.len() - order.tasks.len();
            pieces += order.tasks.iter().filter(|task| task.piece).count();
            let mut seen = vec![false; entries.len()];
            order.places.iter().for_each(|&place| seen[place as usize] = true);
            assert!(seen.into_iter().all(|seen| seen), "{name}: an entry is missing");
            let mut reached = 0;
            for task in &order.tasks {
                // Tasks that are not pieces share no row with any other.
                assert!(task.piece || task.rows.start >= reached, "{name}: rows overlap");
                reached = task.rows.end;
                let mut start = task.entries.start;
                for tile in &order.tiles[task.tiles.clone()] {
                    let rows = &order.output_rows[start..tile.end];
                    assert!(rows.is_sorted(), "{name}: rows of a tile are out of order");
                    start = tile.end;
                }
                assert_eq!(start, task.entries.end, "{name}: tiles and tasks end together");
            }
        }
        assert_eq!([cut > 0, pieces > 0], expected, "{name}: {cut} more tiles, {pieces} pieces");
        check(name, &case, &Loss::kl());
    }
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let case = Case {
        sizes: OrderSizes { task: [2000, 4000], tile_bytes: 8 << 10 },
        ..Case::new("ir,jr,kr->ijk", &[4000, 300, 7000], 20, 30_000, 5)
    };
    for pass in &case.passes() {
        let with = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| case.sums::<f32>(pass, &Loss::kl()))
        };
        let one = with(1);
        assert!(one.numerator.iter().any(|&x| x > 0.0));
        for threads in [2, 5] {
            assert_eq!(with(threads), one, "{threads} threads");
        }
    }
}

#[test]
fn rows_and_values_take_as_few_bits_as_they_need() {
    let case = Case::new("ir,jr->ij", &[300, 200], 2, 2000, 1);
    let training = TrainingEntries::new(&case.shapes, &case.stored);
    let passes = case.passes();
    let entries = BlockedEntries::<f32>::new(&training, &passes[0], &[], 2.0);
    assert!(matches!(entries.rows[0], LocalRows::U16(_)), "300 rows of the output");
    assert!(matches!(entries.rows[1], LocalRows::U8(_)), "200 rows of the operand");
    assert!(matches!(entries.values, Values::Coded(..)), "a few counts");

    let list = |value: fn(usize) -> f64| {
        let indices: Vec<Vec<u64>> = vec![(0..600).collect()];
        let values: Vec<f64> = (0..600).map(value).collect();
        let list = CooTensor::new(&[600], &indices, &values).unwrap();
        Observations::new(list).prepare().unwrap().stored(Implicit::Zeros)
    };
    let shapes = Shapes::new(&Model::parse("ir->i").unwrap(), &[600], &[('r', 1)]).unwrap();
    let backwards: Vec<u32> = (0..600).rev().collect();
    let values: [fn(usize) -> f64; 3] = [|_| 4.0, |i| (i % 256) as f64 + 1.0, |i| i as f64 + 0.5];
    for (kind, value) in values.into_iter().enumerate() {
        let stored = list(value);
        let found = TrainingEntries::new(&shapes, &stored).values::<f64>(&backwards, 3.0);
        let expected_kind = match found {
            Values::Same(_) => 0,
            Values::Coded(..) => 1,
            Values::Each(_) => 2,
        };
        assert_eq!(kind, expected_kind);
        let mut decoded = [0.0; 5];
        found.decode(7..12, &mut decoded);
        let expected: Vec<f64> = (7..12).map(|at| 3.0 * value(599 - at)).collect();
        assert_eq!(decoded[..], expected);
    }
}
