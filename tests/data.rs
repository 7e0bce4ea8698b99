//! Observations from the outside: storage, roles, splits, coordinates.

use ndarray::{Array1, Array2, Array3, ArrayD, IxDyn, ShapeBuilder, array};
use nneinfact::Error;
use nneinfact::data::{
    CooBuilder, CooTensor, Dense, DenseBuilder, Indices, Observations, Order, Prepared, Role,
    Storage, uniform_u32,
};

fn cube() -> Array3<f64> {
    Array3::from_shape_fn((5, 7, 9), |(i, j, k)| (i * 100 + j * 10 + k) as f64)
}

/// The same values in C order, in Fortran order, and in another order of the axes.
fn orders() -> Vec<ArrayD<f64>> {
    let c = cube();
    let mut f = Array3::zeros(c.raw_dim().f());
    f.assign(&c);
    let mut middle = Array3::<f64>::zeros((7, 5, 9)).permuted_axes([1, 0, 2]);
    middle.assign(&c);
    vec![c.into_dyn(), f.into_dyn(), middle.into_dyn()]
}

fn role_at(p: &Prepared, index: &[usize]) -> Role {
    let offset = p.values().offset(index).unwrap();
    p.roles().map_or(Role::Train, |r| r.get(offset))
}

#[test]
fn arrays_keep_their_order_of_memory() {
    for (array, strides) in orders().iter().zip([[63, 9, 1], [1, 5, 35], [9, 45, 1]]) {
        let dense = Dense::from_array(array);
        assert_eq!(dense.strides(), strides);
        assert_eq!(dense.is_c_order(), strides == [63, 9, 1]);
        assert_eq!(dense.to_array(), cube().into_dyn());
        for (linear, (index, &x)) in cube().indexed_iter().enumerate() {
            let index = [index.0, index.1, index.2];
            assert_eq!(dense.get(&index), Some(x));
            assert_eq!(dense.get_linear_c(linear), Some(x));
            assert_eq!(dense.index_of_c(linear).unwrap(), index);
        }
        assert_eq!(dense.get(&[5, 0, 0]), None);
        assert_eq!(dense.get(&[0, 0]), None);
        assert_eq!(dense.get_linear_c(315), None);
        assert!(matches!(dense.storage(), Storage::U16(_)));
        assert_eq!(dense.bytes(), 2 * 315);
    }
}

#[test]
fn views_with_gaps_or_backwards_become_c_order() {
    let all = cube();
    let gaps = all.slice(ndarray::s![.., ..;2, 1..]);
    let dense = Dense::from_array(&gaps);
    assert!(dense.is_c_order());
    assert_eq!(dense.to_array(), gaps.to_owned().into_dyn());
    let backwards = all.slice(ndarray::s![..;-1, .., ..]);
    let dense = Dense::from_array(&backwards);
    assert!(dense.is_c_order());
    assert_eq!(dense.to_array(), backwards.to_owned().into_dyn());
    let broadcast = Array1::from_vec(vec![1.0, 2.0]);
    let broadcast = broadcast.broadcast((3, 2)).unwrap();
    assert_eq!(Dense::from_array(&broadcast).to_array(), broadcast.to_owned().into_dyn());
}

#[test]
fn odd_shapes() {
    let scalar = Dense::from_array(&ndarray::arr0(3.5));
    assert_eq!((scalar.len(), scalar.get(&[])), (1, Some(3.5)));
    let empty = Dense::from_array(&Array2::<f64>::zeros((3, 0)));
    assert!(empty.is_empty());
    assert_eq!(empty.to_array().shape(), [3, 0]);
    assert!(matches!(Observations::new(empty).prepare(), Err(Error::Observations(_))));
    assert!(matches!(Dense::from_vec(&[2, 3], vec![1u8; 5]), Err(Error::Shape { .. })));
    assert!(Dense::from_vec(&[usize::MAX, 2], vec![1u8; 5]).is_err());
    let ones = Dense::from_array(&Array3::<u8>::ones((1, 4, 1)));
    assert!(ones.is_c_order());
}

#[test]
fn builders_narrow_what_streams_in() {
    let mut builder = DenseBuilder::new(0);
    builder.push(&[1i64; 5000]);
    builder.push(&[70_000i64]);
    builder.push(&[2u8; 4999]);
    let dense = builder.finish(&[100, 100], Order::Fortran).unwrap();
    assert!(matches!(dense.storage(), Storage::U32(_)));
    assert_eq!(dense.get(&[0, 50]), Some(70_000.0));
    assert_eq!(dense.get(&[99, 49]), Some(1.0));
    assert_eq!(dense.get(&[1, 50]), Some(2.0));
}

#[test]
fn everything_is_trained_on_by_default() {
    let p = Observations::new(cube()).prepare().unwrap();
    assert!(p.roles().is_none() && p.weights().is_none());
    assert_eq!(p.count(Role::Train), 315);
    assert_eq!(p.portion(Role::Train).weight, 315.0);
    assert_eq!(p.mean(), cube().mean().unwrap());
    assert_eq!(p.max(), 468.0);
}

#[test]
fn masks_and_weights_multiply_in_any_order_of_memory() {
    let mask = cube().mapv(|x| x % 3.0 != 0.0);
    let weight = |x: f64| if x % 5.0 == 0.0 { 0.0 } else { 1.0 + x / 8.0 };
    for values in orders() {
        for mask_order in [mask.clone(), {
            let mut f = Array3::from_elem(mask.raw_dim().f(), false);
            f.assign(&mask);
            f
        }] {
            for weights in orders() {
                let weights = weights.mapv(weight);
                let p = Observations::new(&values)
                    .mask(&mask_order)
                    .unwrap()
                    .weights(&weights)
                    .unwrap()
                    .prepare()
                    .unwrap();
                let w = p.weights().unwrap();
                assert_eq!(w.strides(), p.values().strides());
                let (mut cells, mut total, mut sum, mut max) = (0, 0.0, 0.0, 0f64);
                for (i, &x) in cube().indexed_iter() {
                    let index = [i.0, i.1, i.2];
                    assert_eq!(w.get(&index), Some(weight(x)));
                    let observed = mask[i] && weight(x) > 0.0;
                    assert_eq!(role_at(&p, &index) == Role::Train, observed);
                    if observed {
                        cells += 1;
                        total += weight(x);
                        sum += weight(x) * x;
                        max = max.max(x);
                    }
                }
                assert_eq!(p.count(Role::Train), cells);
                assert_eq!(p.count(Role::Missing), 315 - cells);
                assert_eq!(p.portion(Role::Missing).weight, 0.0);
                assert!((p.portion(Role::Train).weight - total).abs() < 1e-9 * total);
                assert!((p.mean() - sum / total).abs() < 1e-12 * p.mean());
                assert_eq!(p.max(), max);
            }
        }
    }
}

#[test]
fn weights_of_zero_and_one_are_a_mask() {
    let weights = cube().mapv(|x| f64::from(u8::from(x > 50.0)));
    let p = Observations::new(cube()).weights(&weights).unwrap().prepare().unwrap();
    assert!(p.weights().is_none());
    assert_eq!(p.count(Role::Train), weights.sum() as u64);
    assert_eq!(role_at(&p, &[0, 0, 0]), Role::Missing);
}

#[test]
fn cells_of_weight_zero_do_not_count_whatever_they_hold() {
    let y = array![[1.0, f64::NAN, 3.0], [f64::INFINITY, -5.0, 4.0]];
    let w = array![[1.0, 0.0, 2.0], [0.0, 0.0, 1.0]];
    let p = Observations::new(&y).weights(&w).unwrap().prepare().unwrap();
    assert_eq!((p.mean(), p.max()), ((1.0 + 6.0 + 4.0) / 4.0, 4.0));
    assert!(p.first_outside(|x, _| x.is_finite() && x >= 0.0).is_none());
    let p = Observations::new(&y).mask(&w.mapv(|w| w > 0.0)).unwrap().prepare().unwrap();
    assert_eq!((p.mean(), p.max()), (8.0 / 3.0, 4.0));
    assert!(p.first_outside(|x, _| x.is_finite() && x >= 0.0).is_none());
    // Without either, they are for the domain check to find.
    let p = Observations::new(&y).prepare().unwrap();
    let outside = p.first_outside(|x, _| x.is_finite() && x >= 0.0).unwrap();
    assert_eq!((outside.count, outside.index), (3, vec![0, 1]));
    assert!(outside.value.is_nan());
}

#[test]
fn nan_can_mean_missing() {
    let y = array![[1.0, f64::NAN], [f64::INFINITY, 4.0]];
    let p = Observations::new(&y).nan_missing().prepare().unwrap();
    assert_eq!(p.count(Role::Missing), 1);
    assert_eq!(role_at(&p, &[0, 1]), Role::Missing);
    let outside = p.first_outside(|x, _| x.is_finite()).unwrap();
    assert_eq!((outside.count, outside.index, outside.value), (1, vec![1, 0], f64::INFINITY));
    let all = Array2::from_elem((3, 3), f64::NAN);
    let none = Observations::new(&all).nan_missing().prepare();
    assert!(matches!(none, Err(Error::Observations(m)) if m.contains("nothing is observed")));
}

#[test]
fn the_first_outside_is_the_first_in_c_order() {
    // Large enough for several blocks and tasks, and with the cells far apart in memory.
    let mut y = Array3::<u16>::zeros((50, 60, 90).f());
    y[[3, 59, 89]] = 7;
    y[[4, 0, 0]] = 8;
    y[[49, 1, 1]] = 9;
    for order in [Order::C, Order::Fortran] {
        let cells: Vec<u16> = match order {
            Order::C => y.iter().copied().collect(),
            Order::Fortran => y.t().iter().copied().collect(),
        };
        let mut builder = DenseBuilder::new(0);
        builder.push(&cells);
        let dense = builder.finish(&[50, 60, 90], order).unwrap();
        let p = Observations::new(dense).held_out(0.5, 1).unwrap().prepare().unwrap();
        let outside = p.first_outside(|x, _| x == 0.0).unwrap();
        assert_eq!((outside.count, outside.value), (3, 7.0));
        assert_eq!(outside.index, [3, 59, 89]);
        // The predicate sees the C index of every cell.
        let linear = (4 * 60) * 90;
        let outside = p.first_outside(|x, i| x == 8.0 || i != linear).is_none();
        assert!(outside);
        let outside = p.first_outside(|_, i| i != 49 * 5400 + 91).unwrap();
        assert_eq!((outside.count, outside.index), (1, vec![49, 1, 1]));
    }
}

#[test]
fn bad_observations_are_refused_with_a_reason() {
    let o = || Observations::new(cube());
    let says = |r: Result<Observations, Error>, text: &str| {
        let message = r.unwrap_err().to_string();
        assert!(message.contains(text), "{message}");
    };
    says(o().mask(&Array2::from_elem((5, 7), true)), "wrong shape of the mask");
    says(o().mask(&Array3::from_elem((5, 7, 9), false)), "hides every entry");
    says(o().weights(Array2::<f64>::ones((5, 7))), "wrong shape of the weights");
    says(o().weights(Array3::<f32>::zeros((5, 7, 9))), "all weights are 0");
    for bad in [-1.0, f64::NAN, f64::INFINITY] {
        let mut w = Array3::<f64>::ones((5, 7, 9));
        w[[2, 3, 4]] = bad;
        says(o().weights(&w), "index [2, 3, 4]");
    }
    for fraction in [-0.1, 1.0, 2.0, f64::NAN] {
        says(o().held_out(fraction, 0), "held-out fraction");
        says(o().validation(fraction, 0), "validation fraction");
    }
    says(o().held_out_mask(&Array2::from_elem((5, 7), true)), "the held-out mask");
    let all = Array3::from_elem((5, 7, 9), true);
    let nothing = o().held_out_mask(&all).unwrap().prepare().unwrap_err().to_string();
    assert!(nothing.contains("nothing is left to train on"), "{nothing}");
    // A mask and weights that each leave something, but nothing together.
    let w = cube().mapv(|x| if x > 200.0 { 2.0 } else { 0.0 });
    let m = w.mapv(|w| w == 0.0);
    let nothing = o().mask(&m).unwrap().weights(&w).unwrap().prepare().unwrap_err().to_string();
    assert!(nothing.contains("nothing is observed"), "{nothing}");
}

#[test]
fn random_numbers_are_pinned() {
    // From an independent implementation. A change here changes every split ever made.
    for ((seed, stream, index), expected) in [
        ((0, 0, 0), 0xee2c465f),
        ((0, 0, 1), 0x60070395),
        ((1, 0, 0), 0x6c52bcae),
        ((42, 1, 0), 0x997a76bf),
        ((42, 1, 1), 0x02f4dbbd),
        ((42, 2, 1), 0xbfd3fd61),
        ((42, 1, (1 << 32) + 1), 0x19079ee7),
        ((9_223_372_036_854_775_813, 7, 725_000_000_000), 0xa0f4779b),
        ((u64::MAX, u32::MAX, u64::MAX), 0x98c3924a),
    ] {
        assert_eq!(uniform_u32(seed, stream, index), expected, "{seed} {stream} {index}");
    }
}

/// Of `n` events of probability `p` each, whether `count` is within five standard deviations.
fn plausible(count: u64, n: u64, p: f64) -> bool {
    let (n, count) = (n as f64, count as f64);
    (count - n * p).abs() <= 5.0 * (n * p * (1.0 - p)).sqrt() + 1.0
}

#[test]
fn random_numbers_look_independent() {
    let n = 1u64 << 18;
    for seed in [0, 1, 2, 12345, u64::MAX, 1 << 32] {
        for start in [0, (1 << 32) - 1000, 1 << 40] {
            for p in [0.02, 0.1, 0.5, 0.9] {
                let event = |stream, i| {
                    f64::from(uniform_u32(seed, stream, start + i)) < p * 4_294_967_296.0
                };
                let single: Vec<bool> = (0..n).map(|i| event(1, i)).collect();
                let count =
                    |f: &dyn Fn(usize) -> bool| (0..n as usize).filter(|&i| f(i)).count() as u64;
                assert!(plausible(count(&|i| single[i]), n, p), "{seed} {start} {p}");
                // With neighbours along the modes of several shapes.
                for lag in [1usize, 2, 3, 10, 64, 100, 256, 1000, 4096, 10_000, 65_536] {
                    let both = (0..n as usize - lag).filter(|&i| single[i] && single[i + lag]);
                    let pairs = n - lag as u64;
                    // Overlapping pairs vary a little more than independent ones.
                    let slack = 5.0 * (pairs as f64 * p * p * (1.0 - p * p) * 3.0).sqrt() + 1.0;
                    let expected = pairs as f64 * p * p;
                    assert!((both.count() as f64 - expected).abs() < slack, "{seed} {p} {lag}");
                }
                // With the other stream and with the next seed.
                let other = |i: usize| event(2, i as u64);
                assert!(plausible(count(&|i| single[i] && other(i)), n, p * p), "streams {seed}");
                let next = |i: usize| {
                    let x = uniform_u32(seed.wrapping_add(1), 1, start + i as u64);
                    f64::from(x) < p * 4_294_967_296.0
                };
                assert!(plausible(count(&|i| single[i] && next(i)), n, p * p), "seeds {seed}");
            }
        }
    }
}

#[test]
fn every_bit_is_a_fair_coin() {
    let n = 1u64 << 16;
    for seed in 0..8 {
        let mut ones = [0u64; 32];
        for i in 0..n {
            let x = uniform_u32(seed, 1, i);
            (0..32).for_each(|b| ones[b] += u64::from(x >> b & 1));
        }
        assert!(ones.iter().all(|&c| plausible(c, n, 0.5)), "{ones:?}");
    }
}

#[test]
fn splits_have_their_fractions_along_every_mode() {
    let shape = [40, 50, 60];
    let n: u64 = 120_000;
    let y = Array3::<u8>::ones((40, 50, 60));
    let p = Observations::new(&y).held_out(0.1, 7).unwrap();
    let p = p.validation(0.2, 7).unwrap().prepare().unwrap();
    let held_out = p.count(Role::HeldOut);
    assert!(plausible(held_out, n, 0.1), "{held_out}");
    // Of the remaining cells.
    assert!(plausible(p.count(Role::Validation), n - held_out, 0.2));
    assert_eq!(Role::ALL.map(|r| p.count(r)).iter().sum::<u64>(), n);
    assert_eq!(p.portion(Role::Validation).weight, p.count(Role::Validation) as f64);
    let mut slices = shape.map(|m| vec![0u64; m]);
    for (i, _) in y.indexed_iter() {
        let index = [i.0, i.1, i.2];
        if role_at(&p, &index) == Role::HeldOut {
            (0..3).for_each(|mode| slices[mode][index[mode]] += 1);
        }
    }
    for (mode, counts) in slices.iter().enumerate() {
        assert!(counts.iter().all(|&c| plausible(c, n / shape[mode] as u64, 0.1)), "mode {mode}");
    }
}

#[test]
fn splits_are_a_function_of_seed_and_index() {
    let mask = cube().mapv(|x| x % 4.0 != 0.0);
    let prepare = |y: &ArrayD<f64>, threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let o = Observations::new(y).mask(&mask).unwrap();
            o.held_out(0.3, 5).unwrap().validation(0.25, 6).unwrap().prepare().unwrap()
        })
    };
    for y in orders() {
        let p = prepare(&y, 1);
        assert_eq!(p.roles(), prepare(&y, 3).roles());
        for (linear, (i, _)) in cube().indexed_iter().enumerate() {
            let below = |seed, stream, h: f64| {
                f64::from(uniform_u32(seed, stream, linear as u64)) < h * 4_294_967_296.0
            };
            let expected = if !mask[i] {
                Role::Missing
            } else if below(5, 1, 0.3) {
                Role::HeldOut
            } else if below(6, 2, 0.25) {
                Role::Validation
            } else {
                Role::Train
            };
            assert_eq!(role_at(&p, &[i.0, i.1, i.2]), expected);
        }
    }
}

#[test]
fn sums_do_not_depend_on_threads() {
    let y = Array2::from_shape_fn((700, 800), |(i, j)| 1.0 / (1.0 + (i * 37 + j * 11) as f64));
    let w = y.mapv(|x| (x * 1e4) % 1.7);
    let one = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let o = Observations::new(&y).weights(&w).unwrap().held_out(0.2, 1).unwrap();
            let p = o.prepare().unwrap();
            let weights = Role::ALL.map(|r| p.portion(r).weight.to_bits());
            (p.mean().to_bits(), weights, p.max().to_bits())
        })
    };
    assert_eq!(one(1), one(2));
    assert_eq!(one(1), one(5));
}

#[test]
fn held_out_masks() {
    let held = cube().mapv(|x| x % 7.0 == 0.0);
    let mask = cube().mapv(|x| x % 2.0 == 0.0);
    for y in orders() {
        let o = Observations::new(&y).mask(&mask).unwrap().held_out_mask(&held).unwrap();
        let p = o.prepare().unwrap();
        for (i, _) in cube().indexed_iter() {
            let expected = match (mask[i], held[i]) {
                (false, _) => Role::Missing,
                (true, true) => Role::HeldOut,
                (true, false) => Role::Train,
            };
            assert_eq!(role_at(&p, &[i.0, i.1, i.2]), expected);
        }
    }
}

#[test]
fn coordinates_are_sorted_and_summed() {
    let mut builder = CooBuilder::new(3);
    let entries: [([u64; 3], f64); 6] = [
        ([4, 0, 2], 1.0),
        ([0, 3, 1], 2.0),
        ([4, 0, 2], 0.5),
        ([0, 0, 0], 0.0),
        ([4, 0, 1], 7.0),
        ([4, 0, 2], 0.25),
    ];
    for (index, value) in entries {
        builder.push(&index, value).unwrap();
    }
    assert!(builder.push(&[1, 2], 3.0).is_err());
    let c = builder.finish(None).unwrap();
    assert_eq!(c.shape(), [5, 4, 3]);
    assert_eq!((c.len(), c.duplicates()), (4, 2));
    assert_eq!(c.indices()[0], Indices::U32(vec![0, 0, 4, 4]));
    assert_eq!(c.indices()[2], Indices::U32(vec![0, 1, 1, 2]));
    assert_eq!(c.values(), &Storage::F32(vec![0.0, 2.0, 7.0, 1.75]));
    let dense = c.to_dense(240).unwrap();
    assert_eq!(dense.get(&[4, 0, 2]), Some(1.75));
    assert_eq!(dense.iter().sum::<f64>(), 10.75);
    let refused = c.to_dense(239).unwrap_err();
    assert!(matches!(refused, Error::Memory { needed: 240, available: 239, .. }), "{refused}");
}

#[test]
fn coordinates_of_enormous_shapes() {
    let huge = 1usize << 40;
    let index = vec![vec![huge as u64 - 1, 0], vec![5, 1 << 39]];
    let c = CooTensor::new(&[huge, huge], &index, &[1.0, 2.0]).unwrap();
    assert_eq!(c.indices()[0], Indices::U64(vec![0, huge as u64 - 1]));
    assert_eq!(c.indices()[1], Indices::U64(vec![1 << 39, 5]));
    assert_eq!(c.values(), &Storage::U8(vec![2, 1]));
    assert!(matches!(c.to_dense(u64::MAX), Err(Error::Memory { .. })));
    let shape = [usize::MAX; 3];
    assert!(matches!(CooTensor::new(&shape, &vec![vec![]; 3], &[]), Err(Error::Shape { .. })));
    let mut builder = CooBuilder::new(1);
    builder.push(&[u64::MAX], 1.0).unwrap();
    assert!(matches!(builder.finish(None), Err(Error::Shape { .. })));
}

#[test]
fn bad_coordinates_are_refused() {
    let says = |r: Result<CooTensor, Error>, text: &str| {
        let message = r.unwrap_err().to_string();
        assert!(message.contains(text), "{message}");
    };
    says(CooTensor::new(&[2, 2], &[vec![0]], &[1.0]), "2, one for each mode");
    says(CooTensor::new(&[2, 2], &[vec![0], vec![]], &[1.0]), "indices of mode 2");
    says(CooTensor::new(&[2, 2], &[vec![0], vec![2]], &[1.0]), "along mode 2");
    says(CooTensor::new(&[2, 0], &[vec![], vec![]], &[]), "mode 2 of length 0");
    let empty = CooTensor::new(&[2, 3], &[vec![], vec![]], &[]).unwrap();
    assert_eq!(empty.to_dense(6).unwrap().iter().sum::<f64>(), 0.0);
}

#[test]
fn coordinates_match_a_dense_tensor() {
    let y = ArrayD::from_shape_fn(IxDyn(&[6, 7, 8]), |i| {
        ((i[0] * 56 + i[1] * 8 + i[2]) * 7919 % 11) as f64
    });
    let mut entries: Vec<(Vec<u64>, f64)> = y
        .indexed_iter()
        .filter(|&(_, &x)| x > 3.0)
        .map(|(i, &x)| ((0..3).map(|m| i[m] as u64).collect(), x))
        .collect();
    // Any order, decided by the hash.
    entries.sort_by_key(|(i, _)| uniform_u32(3, 0, i[0] * 56 + i[1] * 8 + i[2]));
    let mut builder = CooBuilder::new(3);
    entries.iter().for_each(|(i, x)| builder.push(i, *x).unwrap());
    let c = builder.finish(Some(&[6, 7, 8])).unwrap();
    assert_eq!(c.to_dense(1 << 20).unwrap().to_array(), y.mapv(|x| if x > 3.0 { x } else { 0.0 }));
}
