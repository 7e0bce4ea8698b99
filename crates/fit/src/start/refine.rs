//! A core, or the weights of components, fitted to the data by least squares.

use ndarray::{ArrayD, ArrayView1, ArrayView2, Axis, IxDyn};

use super::matrices::DataMatrices;
use super::unfold::DataSource;
use nneinfact_core::algebra::{contract, rearrange};
use nneinfact_core::error::Result;
use nneinfact_core::model::{Index, Model, Shapes};
use nneinfact_core::plan::Contraction;

/// Multiplicative updates of the weights, each of which lowers the sum of squares.
const UPDATES: usize = 100;
/// Entries that the products of all components with one another may have.
const MOST: f64 = 4_194_304.0;
/// Entries of the data that are contracted at a time.
const SLAB: usize = 1 << 17;
/// Stored entries that are contracted at a time, at most, and with how many components.
const BATCH: usize = 4096;
const TERMS: usize = 1 << 22;
/// The factors of the doubled model are a set in 64 bits, and the data go with them.
const FACTORS: usize = 31;

/// Multiplies factor `refined`, for each combination of its latent indices, by the weight with which
/// the model is closest to the data, all else being as it is. Leaves it as it is where that would
/// take too much.
pub fn refine(
    shapes: &Shapes,
    source: &impl DataMatrices,
    factors: &mut [Vec<f64>],
    refined: usize,
) -> Result<()> {
    let model = shapes.model();
    let observed = model.observed();
    let indices = &model.factors()[refined];
    let onto: Vec<Index> = indices.iter().copied().filter(|&x| !observed.contains(x)).collect();
    if onto.is_empty() || factors.len() > FACTORS {
        return Ok(());
    }
    let Some(numerator) = source.with_components(shapes, factors, &onto)? else { return Ok(()) };
    let n = numerator.len();
    let mut weights = vec![1.0; n];
    match products(shapes, factors, &onto) {
        Some(products) => {
            let Ok(products) = ArrayView2::from_shape((n, n), &products) else { return Ok(()) };
            for _ in 0..UPDATES {
                let denominator = products.dot(&ArrayView1::from(&weights));
                for ((w, n), d) in weights.iter_mut().zip(&numerator).zip(&denominator) {
                    *w = if *d > 0.0 { *w * n / d } else { 0.0 };
                }
            }
        }
        // As if components had nothing in common.
        None => weights.copy_from_slice(&numerator),
    }
    if weights.iter().all(|w| w.is_finite()) && weights.iter().any(|&w| w > 0.0) {
        let spread = rearrange(shapes, &onto, &weights, indices);
        factors[refined].iter_mut().zip(&spread).for_each(|(x, w)| *x *= w);
    }
    Ok(())
}

/// `⟨component, component'⟩` for any two combinations of the indices `onto`, as a matrix.
fn products(shapes: &Shapes, factors: &[Vec<f64>], onto: &[Index]) -> Option<Vec<f64>> {
    let (doubled, pairs) = shapes.doubled()?;
    let second = |x: &Index| pairs.iter().find(|p| p.0 == *x).map_or(*x, |p| p.1);
    let rename = |indices: &[Index]| -> Vec<Index> { indices.iter().map(second).collect() };
    let once = shapes.model().factors();
    let all: Vec<Vec<Index>> =
        once.iter().cloned().chain(once.iter().map(|indices| rename(indices))).collect();
    let both = [onto, &rename(onto)].concat();
    if doubled.volume(both.iter().collect()) > MOST {
        return None;
    }
    let indices: Vec<&[Index]> = all.iter().map(Vec::as_slice).collect();
    let plan = Contraction::new(&doubled, &indices, &both);
    if plan.peak() > 4.0 * MOST {
        return None;
    }
    let views: Vec<&[f64]> = factors.iter().chain(factors).map(Vec::as_slice).collect();
    Some(contract(&doubled, &plan, &views))
}

/// `⟨data, component⟩` for each combination of the indices `onto`.
pub fn with_data(
    shapes: &Shapes,
    source: &DataSource<'_>,
    factors: &[Vec<f64>],
    onto: &[Index],
) -> Option<Vec<f64>> {
    let components: usize = shapes.sizes(onto).iter().product();
    let batch = BATCH.min(TERMS / components).max(1);
    match source.batches(batch) {
        Some(batches) => with_list(shapes, (batches, batch), source.base(), factors, onto),
        None => with_dense(shapes, source, factors, onto),
    }
}

/// Slab by slab: the first modes of the data fixed, the last as a tensor.
fn with_dense(
    shapes: &Shapes,
    source: &DataSource<'_>,
    factors: &[Vec<f64>],
    onto: &[Index],
) -> Option<Vec<f64>> {
    let model = shapes.model();
    let output = model.output();
    let mut first = output.len() - 1;
    let cells = |from: usize| shapes.volume(output[from..].iter().collect());
    while first > 0 && cells(first - 1) <= SLAB as f64 {
        first -= 1;
    }
    let (fixed, free) = output.split_at(first);
    let kept = |indices: &[Index]| -> Vec<Index> {
        indices.iter().copied().filter(|x| !fixed.contains(x)).collect()
    };
    let mut indices = vec![free.to_vec()];
    indices.extend(model.factors().iter().map(|f| kept(f)));
    let views: Vec<&[Index]> = indices.iter().map(Vec::as_slice).collect();
    let plan = Contraction::new(shapes, &views, onto);
    let tensors = (0..factors.len())
        .map(|l| ArrayD::from_shape_vec(IxDyn(&shapes.factor(l)), factors[l].clone()).ok())
        .collect::<Option<Vec<_>>>()?;
    let sizes = shapes.sizes(fixed);
    let modes: Vec<usize> = (first..output.len()).collect();
    let length = shapes.sizes(onto).iter().product();
    source.matrix(&modes).columns_of_dense(length, |slab, column, sum| {
        let mut at = vec![0; sizes.len()];
        let mut rest = column;
        for (at, &n) in at.iter_mut().zip(&sizes).rev() {
            *at = rest % n;
            rest /= n;
        }
        let mut data = Vec::with_capacity(tensors.len());
        for (tensor, names) in tensors.iter().zip(model.factors()) {
            let mut view = tensor.view();
            // From the last axis to the first, so that the others keep their numbers.
            for axis in (0..names.len()).rev() {
                if let Some(mode) = fixed.iter().position(|x| *x == names[axis]) {
                    view = view.index_axis_move(Axis(axis), at[mode]);
                }
            }
            data.push(view.iter().copied().collect::<Vec<f64>>());
        }
        let inputs: Vec<&[f64]> =
            std::iter::once(slab).chain(data.iter().map(Vec::as_slice)).collect();
        let part = contract(shapes, &plan, &inputs);
        sum.iter_mut().zip(part).for_each(|(sum, x)| *sum += x);
    })
}

/// Batch by batch: one letter over the entries of a batch takes the place of all observed indices.
fn with_list(
    shapes: &Shapes,
    (batches, most): (impl Iterator<Item = Vec<(Vec<usize>, f64)>>, usize),
    base: f64,
    factors: &[Vec<f64>],
    onto: &[Index],
) -> Option<Vec<f64>> {
    let model = shapes.model();
    let output = model.output();
    let observed = model.observed();
    let cell = *output.first()?;
    let mut text = String::new();
    for factor in model.factors() {
        let has = factor.iter().any(|&x| observed.contains(x));
        text.extend(has.then_some(char::from(cell)));
        text.extend(factor.iter().filter(|&&x| !observed.contains(x)).map(|&x| char::from(x)));
        text.push(',');
    }
    text.push_str(&format!("{cell}->{cell}"));
    let ranks: Vec<(char, usize)> =
        model.latent().iter().map(|x| (char::from(x), shapes.size(x))).collect();
    let listed = Shapes::new(&Model::parse(&text).ok()?, &[most], &ranks).ok()?;
    let indices = listed.model().factors();
    let views: Vec<&[Index]> = indices.iter().map(Vec::as_slice).collect();
    let plan = Contraction::new(&listed, &views, onto);

    // Rows of each factor: its observed indices first.
    let mut rows: Vec<(Vec<usize>, usize, Vec<f64>)> = Vec::new();
    for (factor, names) in factors.iter().zip(model.factors()) {
        let modes: Vec<usize> = (0..output.len()).filter(|&m| names.contains(&output[m])).collect();
        let latent: Vec<Index> = names.iter().copied().filter(|&x| !observed.contains(x)).collect();
        let mut order: Vec<Index> = modes.iter().map(|&m| output[m]).collect();
        order.extend(&latent);
        let width = shapes.sizes(&latent).iter().product();
        rows.push((modes, width, rearrange(shapes, names, factor, &order)));
    }
    let sizes = shapes.data();
    let mut total = vec![0.0; shapes.sizes(onto).iter().product()];
    for batch in batches {
        let mut inputs: Vec<Vec<f64>> = Vec::with_capacity(indices.len());
        for (modes, width, rows) in &rows {
            if modes.is_empty() {
                inputs.push(rows.clone());
                continue;
            }
            // The last batch is filled up with zeros.
            let mut gathered = vec![0.0; most * width];
            for ((index, _), to) in batch.iter().zip(gathered.chunks_mut(*width)) {
                let row = modes.iter().fold(0, |row, &m| row * sizes[m] + index[m]);
                to.copy_from_slice(&rows[row * width..][..*width]);
            }
            inputs.push(gathered);
        }
        let mut values: Vec<f64> = batch.iter().map(|cell| cell.1).collect();
        values.resize(most, 0.0);
        inputs.push(values);
        let inputs: Vec<&[f64]> = inputs.iter().map(Vec::as_slice).collect();
        let part = contract(&listed, &plan, &inputs);
        total.iter_mut().zip(part).for_each(|(sum, x)| *sum += x);
    }
    if base != 0.0 {
        let indices: Vec<&[Index]> = model.factors().iter().map(Vec::as_slice).collect();
        let inputs: Vec<&[f64]> = factors.iter().map(Vec::as_slice).collect();
        let all = contract(shapes, &Contraction::new(shapes, &indices, onto), &inputs);
        total.iter_mut().zip(all).for_each(|(sum, x)| *sum += base * x);
    }
    Some(total)
}
