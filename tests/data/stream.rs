//! Data that stay in a file against the same data in memory: the same bits.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::common::{CORPUS, Entry, Random, entry};
use ndarray::{ArrayD, IxDyn};
use nneinfact::data::Dense;
use nneinfact::fit::Format;
use nneinfact::{Algorithm, Device, Error, Fit, Loss, NNEinFact, Observations, Precision, io};

/// A folder with `.npy` files of any type and order.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes values as numpy's type `descr`, in C or Fortran order.
    fn write(&self, name: &str, values: &ArrayD<f64>, descr: &str, fortran: bool) -> PathBuf {
        let order = if fortran { "True" } else { "False" };
        let shape: Vec<String> = values.shape().iter().map(|n| format!("{n},")).collect();
        let mut header = format!(
            "{{'descr': '{descr}', 'fortran_order': {order}, 'shape': ({}), }}",
            shape.concat()
        );
        while !(10 + header.len() + 1).is_multiple_of(64) {
            header.push(' ');
        }
        header.push('\n');
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        let view = values.view();
        let view = if fortran { view.reversed_axes() } else { view };
        for &x in view {
            bytes.extend(encoded(x, descr));
        }
        let path = self.path(name);
        File::create(&path).unwrap().write_all(&bytes).unwrap();
        path
    }
}

/// A number as an element of numpy's type.
fn encoded(x: f64, descr: &str) -> Vec<u8> {
    let (order, name) = descr.split_at(1);
    let mut bytes = match name {
        "b1" => vec![u8::from(x != 0.0)],
        "u1" => vec![x as u8],
        "i1" => vec![x as i8 as u8],
        "u2" => (x as u16).to_le_bytes().to_vec(),
        "i2" => (x as i16).to_le_bytes().to_vec(),
        "u4" => (x as u32).to_le_bytes().to_vec(),
        "i4" => (x as i32).to_le_bytes().to_vec(),
        "u8" => (x as u64).to_le_bytes().to_vec(),
        "i8" => (x as i64).to_le_bytes().to_vec(),
        "f2" => {
            // 0 and the powers of two from 1 on.
            let bits = if x == 0.0 { 0 } else { (x.log2() as u16 + 15) << 10 };
            bits.to_le_bytes().to_vec()
        }
        "f4" => (x as f32).to_le_bytes().to_vec(),
        "f8" => x.to_le_bytes().to_vec(),
        _ => panic!("no such type: {name}"),
    };
    if order == ">" {
        bytes.reverse();
    }
    bytes
}

/// Values that a file of this type holds exactly.
fn values(random: &mut Random, shape: &[usize], descr: &str) -> ArrayD<f64> {
    let uniform = random.tensor(shape, 0.0, 1.0);
    match &descr[1..] {
        "b1" => uniform.mapv(|u| f64::from(u8::from(u < 0.6))),
        "u1" | "i1" => uniform.mapv(|u| (u * 12.0).floor()),
        "u2" | "i2" => uniform.mapv(|u| (u * 3000.0).floor()),
        "f2" => uniform.mapv(|u| 2f64.powi((u * 5.0) as i32)),
        "f4" => uniform.mapv(|u| f64::from((0.1 + u * 3.0) as f32)),
        "f8" => uniform.mapv(|u| 0.1 + u * 3.0),
        _ => uniform.mapv(|u| (u * 100_000.0).floor()),
    }
}

fn settings(entry: &Entry, loss: &Loss) -> NNEinFact {
    NNEinFact::new(entry.model)
        .unwrap()
        .ranks(entry.ranks.iter().copied())
        .loss(loss.clone())
        .device(Device::cpu())
        .data_as(Format::Dense)
        .max_iter(4)
        .tolerance(0.0)
}

/// Both fits have the same factors and the same history, to the bit.
fn assert_same(what: &str, streamed: &Fit, in_memory: &Fit) {
    let bits = |fit: &Fit| -> Vec<Vec<u64>> {
        fit.factors().iter().map(|f| f.iter().map(|x| x.to_bits()).collect()).collect()
    };
    assert_eq!(bits(streamed), bits(in_memory), "{what}: factors");
    let (s, m) = (streamed.history(), in_memory.history());
    let all = |h: &nneinfact::fit::History| -> Vec<u64> {
        [&h.loss, &h.validation_loss, &h.heldout_loss]
            .iter()
            .flat_map(|list| list.iter().map(|x| x.to_bits()))
            .collect()
    };
    assert_eq!(all(s), all(m), "{what}: history");
    assert!(s.loss.len() > 1 && s.loss.iter().all(|l| l.is_finite()), "{what}: {:?}", s.loss);
    // A plan that read the data in another way would show it.
    let plan = |fit: &Fit| fit.plan().to_string().replace(", streamed from the file", "");
    assert_eq!(plan(streamed), plan(in_memory), "{what}: plan");
    assert!(streamed.plan().to_string().contains("streamed"), "{what}");
}

fn mapped(path: &Path, slab_bytes: u64) -> Dense {
    let dense = io::map_npy_in(path, slab_bytes).unwrap();
    assert!(dense.is_mapped() && dense.bytes() == 0);
    dense
}

const TYPES: [&str; 17] = [
    "|b1", "|u1", "|i1", "<u2", "<i2", "<u4", "<i4", "<u8", "<i8", "<f2", "<f4", "<f8", ">u2",
    ">i8", ">f4", ">f8", ">f2",
];

#[test]
fn cells_are_those_that_a_reader_finds() {
    let folder = Folder::new();
    let mut random = Random::new(1);
    for descr in TYPES {
        for fortran in [false, true] {
            let y = values(&mut random, &[6, 5, 7], descr);
            let path = folder.write("y.npy", &y, descr, fortran);
            let (read, mapped) = (io::read_npy(&path).unwrap(), mapped(&path, 64));
            assert_eq!(mapped.shape(), read.shape(), "{descr}");
            assert_eq!(mapped.strides(), read.strides(), "{descr}");
            assert_eq!(mapped.to_array(), y, "{descr}");
            assert_eq!(mapped.to_array(), read.to_array(), "{descr}");
            for at in [0, 1, 100, 209] {
                assert_eq!(mapped.get_linear_c(at), read.get_linear_c(at), "{descr} {at}");
            }
            assert_eq!(mapped.get_linear_c(210), None);
            let (mut a, mut b) = ([0f32; 20], [0f32; 20]);
            read.load(3, 9, &mut a);
            mapped.load(3, 9, &mut b);
            assert_eq!(a, b, "{descr}");
            let (found, expected) = (
                Observations::new(mapped).held_out(0.2, 3).unwrap().prepare().unwrap(),
                Observations::new(read).held_out(0.2, 3).unwrap().prepare().unwrap(),
            );
            assert_eq!(found.mean().to_bits(), expected.mean().to_bits(), "{descr}");
            assert_eq!(found.max().to_bits(), expected.max().to_bits(), "{descr}");
            assert_eq!(found.roles(), expected.roles(), "{descr}");
            assert_eq!(found.stored_counts(true), expected.stored_counts(true), "{descr}");
            assert_eq!(
                found.stored(found.stored_counts(true)[0].implicit),
                expected.stored(expected.stored_counts(true)[0].implicit),
                "{descr}"
            );
        }
    }
}

#[test]
fn every_type_and_order_gives_the_same_bits() {
    let folder = Folder::new();
    let mut random = Random::new(2);
    let model = entry("CP, 3 modes");
    for descr in TYPES {
        for fortran in [false, true] {
            let y = values(&mut random, &[23, 37, 41], descr);
            let path = folder.write("y.npy", &y, descr, fortran);
            for precision in [Precision::F32, Precision::F64] {
                let fit = |data: Dense| {
                    let settings = settings(model, &Loss::kl()).precision(precision);
                    settings.fit(Observations::new(data)).unwrap()
                };
                let what = format!("{descr} {fortran} {precision:?}");
                let in_memory = fit(io::read_npy(&path).unwrap());
                assert_same(&what, &fit(mapped(&path, 3000)), &in_memory);
            }
        }
    }
}

#[test]
fn every_model_and_algorithm_gives_the_same_bits() {
    let folder = Folder::new();
    let mut random = Random::new(3);
    let losses = [Loss::kl(), Loss::euclidean(), Loss::alpha_beta(0.7, 0.0).unwrap()];
    for (n, model) in CORPUS.iter().enumerate() {
        let modes = model.modes();
        let sizes: &[usize] = match modes {
            2 => &[130, 1100],
            3 => &[19, 70, 45],
            4 => &[9, 17, 13, 20],
            5 => &[6, 7, 9, 10, 8],
            _ => &[4, 5, 6, 7, 5, 6],
        };
        let descr = ["<f8", "<u2", ">f4", "|u1"][n % 4];
        let loss = &losses[n % 3];
        let y = values(&mut random, sizes, descr).mapv(|x| x + 1.0);
        let path = folder.write("y.npy", &y, descr, n % 2 == 1);
        for algorithm in [Algorithm::Block, Algorithm::Grouped, Algorithm::Accelerated] {
            let fit = |data: Dense| {
                let settings = settings(model, loss).algorithm(algorithm);
                settings.fit(Observations::new(data)).unwrap()
            };
            let in_memory = fit(io::read_npy(&path).unwrap());
            // From a slab that is less than a tile to one that is all.
            let tiny = if n % 6 == 0 { Some(1) } else { None };
            for slab in [1000, 20_000, 1 << 30].into_iter().chain(tiny) {
                let what = format!("{} {algorithm:?} in slabs of {slab}", model.name);
                assert_same(&what, &fit(mapped(&path, slab)), &in_memory);
            }
        }
    }
}

#[test]
fn masks_weights_splits_and_missing_values_give_the_same_bits() {
    let folder = Folder::new();
    let mut random = Random::new(4);
    let shape = [31, 24, 50];
    let model = entry("the paper's third");
    let mask = random.mask(&shape, 0.8);
    let held_out = random.mask(&shape, 0.1);
    let weights = random.tensor(&shape, 0.0, 2.0).mapv(|w| if w < 0.2 { 0.0 } else { w });
    let as_numbers = |mask: &ArrayD<bool>| mask.mapv(|b| f64::from(u8::from(b)));
    for (n, fortran) in [false, true].into_iter().enumerate() {
        // The other files may have the order of the data or not.
        for other in [false, true] {
            let mut y = values(&mut random, &shape, ["<f4", "<f8"][n]);
            y.iter_mut().step_by(13).for_each(|x| *x = f64::NAN);
            let path = folder.write("y.npy", &y, ["<f4", ">f8"][n], fortran);
            let mask_path = folder.write("mask.npy", &as_numbers(&mask), "|b1", other);
            let held_out_path = folder.write("held.npy", &as_numbers(&held_out), "|b1", other);
            let weights_path = folder.write("weights.npy", &weights, ["<f8", "<f4"][n], other);
            for case in 0..5 {
                let observe = |data: Dense, streamed: bool| -> Observations {
                    let o = Observations::new(data).nan_missing();
                    let o = match case % 2 {
                        0 if streamed => o.mask_from(&io::map_bool(&mask_path).unwrap()).unwrap(),
                        0 => o.mask(&mask).unwrap(),
                        _ => o,
                    };
                    let o = match case {
                        1 | 2 => {
                            let weights = match streamed {
                                true => mapped(&weights_path, 5000),
                                false => io::read_npy(&weights_path).unwrap(),
                            };
                            o.weights(weights).unwrap()
                        }
                        _ => o,
                    };
                    match case {
                        0 | 2 => o.held_out(0.1, 7).unwrap().validation(0.1, 7).unwrap(),
                        3 if streamed => {
                            let held_out = io::map_bool(&held_out_path).unwrap();
                            o.held_out_mask_from(&held_out).unwrap()
                        }
                        3 => o.held_out_mask(&held_out).unwrap(),
                        _ => o,
                    }
                };
                let fit = |o: Observations| {
                    let early = case == 0 || case == 2;
                    settings(model, &Loss::kl()).early_stopping(early).fit(o).unwrap()
                };
                let in_memory = fit(observe(io::read_npy(&path).unwrap(), false));
                let streamed = fit(observe(mapped(&path, 4000), true));
                assert_same(&format!("case {case} {fortran} {other}"), &streamed, &in_memory);
                let found = streamed.history();
                assert_eq!(found.heldout_loss.is_empty(), !matches!(case, 0 | 2 | 3));
            }
        }
    }
}

#[test]
fn side_tensors_and_threads_change_nothing() {
    let folder = Folder::new();
    let mut random = Random::new(5);
    let shape = [40, 60, 33];
    let y = values(&mut random, &shape, "<u2");
    let trials = y.mapv(|x| x + 3.0);
    let loss = Loss::binomial(trials).unwrap();
    let model = entry("Tucker");
    let path = folder.write("y.npy", &y, "<u2", true);
    let fit = |data: Dense, threads: usize| {
        let device = Device::cpu().threads(threads).unwrap();
        settings(model, &loss).device(device).fit(Observations::new(data)).unwrap()
    };
    let in_memory = fit(io::read_npy(&path).unwrap(), 2);
    for threads in [1, 3] {
        assert_same("binomial", &fit(mapped(&path, 10_000), threads), &in_memory);
    }
}

#[test]
fn data_that_are_mostly_zeros_are_listed_from_the_file() {
    let folder = Folder::new();
    let mut random = Random::new(6);
    let y = random.tensor(&[60, 50, 40], 0.0, 1.0).mapv(|u| if u < 0.01 { 3.0 } else { 0.0 });
    let path = folder.write("y.npy", &y, "<f4", false);
    let fit = |data: Dense| {
        let settings = settings(entry("CP, 3 modes"), &Loss::kl()).data_as(Format::Auto);
        settings.fit(Observations::new(data)).unwrap()
    };
    let (streamed, in_memory) = (fit(mapped(&path, 9000)), fit(io::read_npy(&path).unwrap()));
    assert!(!streamed.plan().sparse_passes().is_empty());
    assert_eq!(streamed.factors(), in_memory.factors());
    assert_eq!(streamed.history().loss, in_memory.history().loss);
}

#[test]
fn entries_outside_the_domain_are_found_in_the_file() {
    let folder = Folder::new();
    let mut y = ArrayD::from_elem(IxDyn(&[30, 40]), 1.5);
    y[[17, 3]] = -1.0;
    y[[20, 1]] = f64::NAN;
    for fortran in [false, true] {
        let path = folder.write("y.npy", &y, "<f8", fortran);
        let message = |data: Dense| {
            let fit = settings(entry("NMF"), &Loss::kl()).fit(Observations::new(data));
            fit.unwrap_err().to_string()
        };
        let found = message(mapped(&path, 700));
        assert!(found.contains("2 observed entries") && found.contains("[17, 3]"), "{found}");
        assert_eq!(found, message(io::read_npy(&path).unwrap()));
    }
}

#[test]
fn bad_weights_and_masks_in_files_are_refused() {
    let folder = Folder::new();
    let y = ArrayD::from_elem(IxDyn(&[5, 6]), 1.0);
    let data = || Observations::new(Dense::from_array(&y));
    let mut weights = y.clone();
    weights[[2, 4]] = -2.0;
    let path = folder.write("w.npy", &weights, "<f4", false);
    let found = data().weights(mapped(&path, 8)).unwrap_err().to_string();
    assert!(found.contains("[2, 4]") && found.contains("-2"), "{found}");
    let zeros = folder.write("z.npy", &(&y * 0.0), "|b1", false);
    assert!(data().weights(mapped(&zeros, 8)).unwrap_err().to_string().contains("all weights"));
    let found = data().mask_from(&mapped(&zeros, 8)).unwrap_err().to_string();
    assert!(found.contains("hides every entry"), "{found}");
    assert!(matches!(
        data().mask_from(&Dense::from_vec(&[6, 5], vec![1u8; 30]).unwrap()),
        Err(Error::Shape { .. })
    ));
    assert!(io::map_bool(&path).unwrap_err().to_string().contains("bool"));
}

#[test]
fn files_that_cannot_be_mapped_are_refused_as_a_reader_refuses_them() {
    let folder = Folder::new();
    let y = ArrayD::from_elem(IxDyn(&[5, 6]), 1.0);
    let whole = std::fs::read(folder.write("y.npy", &y, "<f8", false)).unwrap();
    let bad: [Vec<u8>; 5] = [
        Vec::new(),
        b"not a file of numbers".to_vec(),
        whole[..whole.len() - 1].to_vec(),
        [&whole[..], &[0]].concat(),
        whole[..40].to_vec(),
    ];
    for bytes in bad {
        let path = folder.path("bad.npy");
        std::fs::write(&path, bytes).unwrap();
        let found = io::map_npy(&path).unwrap_err();
        assert_eq!(found.to_string(), io::read_npy(&path).unwrap_err().to_string());
        assert!(found.is_input());
    }
    assert!(matches!(io::map_npy(folder.path("none.npy")), Err(Error::File { .. })));
    assert!(matches!(io::map_npy(folder.0.path()), Err(Error::File { .. })));
}

#[test]
fn a_file_that_changes_during_a_fit_ends_it() {
    let folder = Folder::new();
    let y = values(&mut Random::new(7), &[50, 60], "<f8");
    for (longer, says) in [(true, "bytes"), (false, "wrote")] {
        let path = folder.write("y.npy", &y, "<f8", false);
        let data = mapped(&path, 1000);
        let observer = move |sweep: &nneinfact::fit::Sweep| {
            if sweep.iteration == 2 {
                let mut file = OpenOptions::new().append(longer).write(true).open(&path).unwrap();
                let now = std::time::SystemTime::now() + std::time::Duration::from_secs(5);
                match longer {
                    true => file.write_all(b"more").unwrap(),
                    false => file.set_modified(now).unwrap(),
                }
            }
            nneinfact::fit::Flow::Continue
        };
        let fit = settings(entry("NMF"), &Loss::kl()).max_iter(50).observe(observer);
        let Err(Error::Broken { cause, last }) = fit.fit(Observations::new(data)) else {
            panic!("the change was not noticed");
        };
        assert!(cause.to_string().contains("was changed"), "{cause}");
        assert!(cause.to_string().contains(says), "{cause}");
        assert_eq!(last.history.iterations, 2);
    }
}

/// What of a file is in memory, and how often it is fetched.
mod slabs {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use std::ops::Range;
    use std::sync::Mutex;

    use nneinfact::fit::Format;
    use nneinfact::{Device, Loss, NNEinFact, Observations, Result};
    use nneinfact_core::data::{Dense, Order as Memory, Slabs, Slice};

    /// Cells of which it is known how many are in memory, and whether one was read that was not.
    #[derive(Debug)]
    struct Watched {
        cells: Vec<f64>,
        slab_bytes: u64,
        /// Which are there, and how many.
        resident: Mutex<(Vec<bool>, usize)>,
        most: AtomicUsize,
        fetched: AtomicUsize,
        missed: AtomicUsize,
    }

    impl Slabs for Watched {
        fn len(&self) -> usize {
            self.cells.len()
        }

        fn cell_bytes(&self) -> usize {
            8
        }

        fn type_name(&self) -> &'static str {
            "f64"
        }

        fn slice(&self) -> Option<Slice<'_>> {
            None
        }

        fn read(&self, offset: usize, stride: usize, out: &mut [f64]) {
            let resident = self.resident.lock().unwrap();
            for (i, to) in out.iter_mut().enumerate() {
                let cell = offset + i * stride;
                self.missed.fetch_add(usize::from(!resident.0[cell]), Ordering::Relaxed);
                *to = self.cells[cell];
            }
        }

        fn fetch(&self, cells: Range<usize>) {
            let mut resident = self.resident.lock().unwrap();
            let there = resident.0[cells.clone()].iter().filter(|&&there| there).count();
            let new = cells.len() - there;
            resident.0[cells].fill(true);
            resident.1 += new;
            self.fetched.fetch_add(new, Ordering::Relaxed);
            self.most.fetch_max(resident.1, Ordering::Relaxed);
        }

        fn release(&self, cells: Range<usize>) {
            let mut resident = self.resident.lock().unwrap();
            resident.1 -= resident.0[cells.clone()].iter().filter(|&&there| there).count();
            resident.0[cells].fill(false);
        }

        fn slab_bytes(&self) -> u64 {
            self.slab_bytes
        }

        fn check(&self) -> Result<()> {
            Ok(())
        }
    }

    /// Nothing is read that was not fetched before, little is in memory at a time, and little is
    /// fetched more than once in a pass, wherever the target's letters stand in memory.
    #[test]
    fn slabs_hold_what_is_read_and_little_else() {
        let slab = 1 << 17;
        for (model, shape) in [
            ("ir,jr->ij", vec![1000, 1600]),
            ("ir,jr->ij", vec![1600, 1000]),
            ("ir,jr->ij", vec![12, 130_000]),
            ("ir,jr->ij", vec![160_000, 10]),
            ("ir,jr,kr->ijk", vec![100, 100, 160]),
            ("ir,jr,kr->kij", vec![8, 500, 400]),
            ("ia,ajb,bk->ijk", vec![150, 100, 107]),
        ] {
            for memory in [Memory::C, Memory::Fortran] {
                let n: usize = shape.iter().product();
                let cells: Vec<f64> = (0..n).map(|i| 0.1 + (i * 7919 % 101) as f64).collect();
                let source = Arc::new(Watched {
                    cells: cells.clone(),
                    slab_bytes: 8 * slab as u64,
                    resident: Mutex::new((vec![false; n], 0)),
                    most: AtomicUsize::new(0),
                    fetched: AtomicUsize::new(0),
                    missed: AtomicUsize::new(0),
                });
                let fit = |data: Dense| {
                    NNEinFact::new(model)
                        .unwrap()
                        .ranks(
                            ['a', 'b', 'r']
                                .into_iter()
                                .filter(|&r| model.contains(r))
                                .map(|r| (r, 3)),
                        )
                        .loss(Loss::kl())
                        .device(Device::cpu().threads(2).unwrap())
                        .data_as(Format::Dense)
                        .algorithm(nneinfact::Algorithm::Grouped)
                        .tolerance(0.0)
                        .max_iter(3)
                        .fit(Observations::new(data))
                        .unwrap()
                };
                let what = format!("{model} {shape:?} {memory:?}");
                let streamed =
                    fit(Dense::from_slabs(&shape, memory, Arc::clone(&source) as _).unwrap());
                let mut builder = nneinfact_core::data::DenseBuilder::new(n);
                builder.push(&cells);
                let in_memory = fit(builder.finish(&shape, memory).unwrap());
                assert_eq!(streamed.factors(), in_memory.factors(), "{what}");
                assert_eq!(streamed.history().loss, in_memory.history().loss, "{what}");

                assert_eq!(source.missed.load(Ordering::Relaxed), 0, "{what}");
                assert_eq!(source.resident.lock().unwrap().1, 0, "{what}");
                let most = source.most.load(Ordering::Relaxed);
                // The one being worked on, the next, and what their edges share with others.
                assert!(most <= 5 * slab, "{what}: {most} of {n} cells in memory");
                // Preparation, the check of the domain, the passes of three sweeps, and the loss at
                // their end.
                let passes = 2 + 3 * streamed.plan().groups().len() + 1;
                let read = source.fetched.load(Ordering::Relaxed) as f64 / (n * passes) as f64;
                assert!((0.99..1.3).contains(&read), "{what}: read {read} times in a pass");
            }
        }
    }
}
