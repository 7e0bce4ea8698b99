//! Small contractions in double precision.

mod matrices;
mod outer;

use std::borrow::Cow;

use self::matrices::{Matrices, product};
use crate::error::{Error, Result};
use crate::memory::available_memory;
use crate::model::{Index, IndexSet, Shapes};
use crate::parallel;
use crate::plan::{Contraction, ContractionInput};

/// Contractions that take less than this are not held against the memory there is: asking takes
/// longer than many of them.
const LITTLE: f64 = 67_108_864.0;

/// As [`contract`], for sizes that nothing has planned for: refused where its tensors would not fit
/// in memory.
///
/// # Errors
/// [`Error::Memory`].
pub fn contract_within(shapes: &Shapes, plan: &Contraction, inputs: &[&[f64]]) -> Result<Vec<f64>> {
    check_memory(shapes, plan, 8.0)?;
    Ok(contract(shapes, plan, inputs))
}

/// Refuses a contraction whose tensors, of so many bytes an entry, would not fit in memory.
///
/// # Errors
/// [`Error::Memory`].
pub(super) fn check_memory(shapes: &Shapes, plan: &Contraction, bytes: f64) -> Result<()> {
    let needed = bytes * entries(shapes, plan);
    if needed > LITTLE {
        let available = available_memory().unwrap_or(u64::MAX / 2);
        if needed > available as f64 {
            return Err(Error::Memory {
                what: format!("multiplying the factors of {}", shapes.model()),
                needed: needed as u64,
                available,
                help: "lower the ranks".into(),
            });
        }
    }
    Ok(())
}

/// The most entries that a contraction has in memory at once, beside its inputs.
fn entries(shapes: &Shapes, plan: &Contraction) -> f64 {
    let volume = |indices: &[Index]| shapes.volume(indices.iter().collect());
    let of = |slot: ContractionInput| match slot {
        ContractionInput::Input(i) => (volume(&plan.inputs()[i]), 0.0),
        ContractionInput::Step(i) => {
            (volume(&plan.steps()[i].indices), volume(&plan.steps()[i].indices))
        }
    };
    // `held` is results that wait for their step.
    let (mut held, mut most) = (0.0, 0.0f64);
    for step in plan.steps() {
        let ((left, left_held), (right, right_held)) = (of(step.left), of(step.right));
        let result = volume(&step.indices);
        // Both tensors once more, in the order that their product needs.
        most = most.max(held + left + right + result);
        held += result - left_held - right_held;
    }
    match plan.steps().last() {
        Some(step) if step.indices == plan.output() => most,
        _ => most.max(held + volume(plan.output())),
    }
}

/// Evaluates a contraction. Each input has the indices, in the order, that the contraction was
/// planned for.
pub fn contract(shapes: &Shapes, plan: &Contraction, inputs: &[&[f64]]) -> Vec<f64> {
    let mut results: Vec<Vec<f64>> = Vec::with_capacity(plan.steps().len());
    let indices_of = |slot: ContractionInput| -> &[Index] {
        match slot {
            ContractionInput::Input(i) => &plan.inputs()[i],
            ContractionInput::Step(i) => &plan.steps()[i].indices,
        }
    };
    for step in plan.steps() {
        let get = |slot: ContractionInput| -> &[f64] {
            match slot {
                ContractionInput::Input(i) => inputs[i],
                ContractionInput::Step(i) => &results[i],
            }
        };
        let left = (indices_of(step.left), get(step.left));
        let right = (indices_of(step.right), get(step.right));
        let result = pair(shapes, left, right, &step.indices);
        // A result is used once.
        for slot in [step.left, step.right] {
            if let ContractionInput::Step(i) = slot {
                results[i] = Vec::new();
            }
        }
        results.push(result);
    }
    if let (Some(data), Some(step)) = (results.pop(), plan.steps().last()) {
        return rearrange_owned(shapes, step.indices.clone(), data, plan.output());
    }
    let (indices, data): (&[Index], &[f64]) = match plan.inputs().first() {
        Some(indices) => (indices, inputs[0]),
        // The empty product is 1.
        None => (&[], &[1.0]),
    };
    rearrange(shapes, indices, data, plan.output())
}

/// As [`contract`]; a tensor that is the result as it is, is not copied.
pub fn contract_borrowed<'a>(
    shapes: &Shapes,
    plan: &Contraction,
    inputs: &[&'a [f64]],
) -> Cow<'a, [f64]> {
    match (plan.inputs(), inputs) {
        ([indices], &[input]) if indices == plan.output() => Cow::Borrowed(input),
        _ => Cow::Owned(contract(shapes, plan, inputs)),
    }
}

/// `Σ left · right` over the indices not in `output`.
fn pair(
    shapes: &Shapes,
    left: (&[Index], &[f64]),
    right: (&[Index], &[f64]),
    output: &[Index],
) -> Vec<f64> {
    let set = |indices: &[Index]| -> IndexSet { indices.iter().collect() };
    let (l, r, out) = (set(left.0), set(right.0), set(output));
    let pick = |from: &[Index], keep: &dyn Fn(Index) -> bool| -> Vec<Index> {
        from.iter().copied().filter(|&x| keep(x)).collect()
    };
    let batch = pick(output, &|x| l.contains(x) && r.contains(x));
    let rows = pick(output, &|x| l.contains(x) && !r.contains(x));
    let columns = pick(output, &|x| !l.contains(x) && r.contains(x));
    let inner = pick(left.0, &|x| r.contains(x) && !out.contains(x));

    let size = |indices: &[Index]| -> usize { shapes.sizes(indices).iter().product() };
    let (b, m, n, k) = (size(&batch), size(&rows), size(&columns), size(&inner));
    let within = |small: &[Index], large: &IndexSet| small.iter().all(|&x| large.contains(x));
    if within(right.0, &l) && k >= STREAMED && b * m * k >= PARALLEL {
        return stream(shapes, left, right, output);
    }
    if within(left.0, &r) && k >= STREAMED && b * n * k >= PARALLEL {
        return stream(shapes, right, left, output);
    }
    if k == 1 && within(left.0, &out) && within(right.0, &out) && !output.is_empty() {
        return outer::product(shapes, left, right, output);
    }
    let order = |parts: [&[Index]; 3]| -> Vec<Index> { parts.concat() };
    let a = Matrices::new(shapes, left, [&batch, &rows, &inner]);
    let c = Matrices::new(shapes, right, [&batch, &inner, &columns]);
    let mut result = vec![0.0; b * m * n];
    if k > 1 && b > 1 && b * m * k * n >= PARALLEL {
        // Each product is computed by one thread, whichever it is.
        parallel::chunks(&mut result, m * n, &|first, result| {
            let i = first / (m * n);
            product([m, k, n], a.at(i, m * k), c.at(i, k * n), result);
        });
    } else if k == 1 {
        parallel::chunks(&mut result, (PARALLEL / 4).div_ceil(n) * n, &|first, rows| {
            for (i, to) in (first / n..).zip(rows.chunks_exact_mut(n)) {
                // One row or column, which has the same order of memory either way.
                let from = &c.data[i / m * n..][..n];
                to.iter_mut().zip(from).for_each(|(to, &y)| *to = a.data[i] * y);
            }
        });
    } else {
        for i in 0..b {
            let result = &mut result[i * m * n..][..m * n];
            product([m, k, n], a.at(i, m * k), c.at(i, k * n), result);
        }
    }
    rearrange_owned(shapes, order([&batch, &rows, &columns]), result, output)
}

/// Multiply-adds, and entries moved, from which on work is shared among threads.
const PARALLEL: usize = 1 << 16;

/// Terms of a sum from which on the larger tensor is read as it lies, see [`stream`].
const STREAMED: usize = 8;
/// At most so many parts of the larger tensor are summed up on their own.
const PARTS: usize = 16;

/// `Σ left · right` where `right` has no index of its own: one walk over `left` in its order of
/// memory, without the copy in another order that a matrix product would need.
fn stream(
    shapes: &Shapes,
    left: (&[Index], &[f64]),
    right: (&[Index], &[f64]),
    output: &[Index],
) -> Vec<f64> {
    let sizes = shapes.sizes(left.0);
    let (from, to) = (strides(shapes, right.0, left.0), strides(shapes, output, left.0));
    let total: usize = shapes.sizes(output).iter().product();
    let (Some(&run), Some(&step), Some(&out)) = (sizes.last(), from.last(), to.last()) else {
        return vec![left.1[0] * right.1[0]];
    };
    let runs = left.1.len() / run;
    // A function of the sizes alone, as it decides the order of sums.
    let parts = PARTS.min(left.1.len() / total.max(1)).min(runs).max(1);
    let part = |i: usize| -> Vec<f64> {
        let mut result = vec![0.0; total];
        let (first, end) = (runs * i / parts, runs * (i + 1) / parts);
        let mut at = Walk::at(&sizes, &from, first * run);
        let mut place = Walk::at(&sizes, &to, first * run);
        for left in left.1[first * run..end * run].chunks_exact(run) {
            let right = &right.1[at.offset()..];
            let to = &mut result[place.offset()..];
            match (out, step) {
                (0, 1) => to[0] += left.iter().zip(right).map(|(x, y)| x * y).sum::<f64>(),
                (0, _) => {
                    to[0] += left.iter().enumerate().map(|(i, x)| x * right[i * step]).sum::<f64>();
                }
                (1, 1) => {
                    let terms = to.iter_mut().zip(left).zip(right);
                    terms.for_each(|((to, x), y)| *to += x * y);
                }
                (1, 0) => {
                    let y = right[0];
                    to.iter_mut().zip(left).for_each(|(to, x)| *to += x * y);
                }
                _ => {
                    for (i, x) in left.iter().enumerate() {
                        to[i * out] += x * right[i * step];
                    }
                }
            }
            at.skip(run);
            place.skip(run);
        }
        result
    };
    let mut results = parallel::map(parts, &part).into_iter();
    let mut sum = results.next().unwrap_or_default();
    for result in results {
        sum.iter_mut().zip(result).for_each(|(sum, x)| *sum += x);
    }
    sum
}

/// What a step along each of the indices `along` moves in a tensor with the indices `of`; 0 where it lacks it.
fn strides(shapes: &Shapes, of: &[Index], along: &[Index]) -> Vec<usize> {
    let one = |x: &Index| match of.iter().position(|y| y == x) {
        Some(axis) => shapes.sizes(&of[axis + 1..]).iter().product(),
        None => 0,
    };
    along.iter().map(one).collect()
}

pub(super) fn rearrange_owned(
    shapes: &Shapes,
    indices: Vec<Index>,
    data: Vec<f64>,
    output: &[Index],
) -> Vec<f64> {
    if indices == output { data } else { rearrange(shapes, &indices, &data, output) }
}

/// Sums over the indices that `output` lacks, repeats along those that only it has, and brings the
/// rest into its order.
pub fn rearrange(shapes: &Shapes, indices: &[Index], data: &[f64], output: &[Index]) -> Vec<f64> {
    if indices == output {
        return data.to_vec();
    }
    let out: IndexSet = output.iter().collect();
    let summed: Vec<Index> = indices.iter().copied().filter(|&x| !out.contains(x)).collect();
    let kept: Vec<Index> = output.iter().copied().filter(|x| indices.contains(x)).collect();
    if !summed.is_empty() && kept.len() < output.len() {
        // A sum is formed once, and not for every place where it is repeated.
        let sums = rearrange(shapes, indices, data, &kept);
        return rearrange(shapes, &kept, &sums, output);
    }
    let mut loops = output.to_vec();
    loops.extend(&summed);
    let strides = strides(shapes, indices, &loops);
    let sizes = shapes.sizes(&loops);
    let terms: usize = shapes.sizes(&summed).iter().product();
    let total: usize = shapes.sizes(output).iter().product();
    if terms == 1 && total >= PARALLEL && output.len() > 1 {
        // Whole runs of the last axis, shared out.
        let (run, step) = match (sizes.last(), strides.last()) {
            (Some(&run), Some(&step)) => (run, step),
            _ => (1, 0),
        };
        let share = PARALLEL.div_ceil(4 * run) * run;
        let mut result = vec![0.0; total];
        parallel::chunks(&mut result, share, &|first, to| {
            let mut walk = Walk::at(&sizes, &strides, first);
            for to in to.chunks_exact_mut(run) {
                let from = &data[walk.offset()..];
                match step {
                    1 => to.copy_from_slice(&from[..run]),
                    _ => to.iter_mut().enumerate().for_each(|(i, to)| *to = from[i * step]),
                }
                walk.skip(run);
            }
        });
        return result;
    }
    let mut result = Vec::with_capacity(total);
    let mut walk = Walk::new(&sizes, &strides);
    if terms == 1 {
        // The innermost loop runs over a whole axis at a time.
        let (run, step) = match (sizes.last(), strides.last()) {
            (Some(&run), Some(&step)) => (run, step),
            _ => (1, 0),
        };
        while result.len() < total {
            let offset = walk.offset();
            result.extend((0..run).map(|i| data[offset + i * step]));
            walk.skip(run);
        }
    } else if strides[..output.len()].last() == Some(&1) {
        result.resize(total, 0.0);
        sum_runs((&sizes, &strides), output.len(), data, &mut result);
    } else {
        while result.len() < total {
            let mut sum = 0.0;
            for _ in 0..terms {
                sum += data[walk.offset()];
                walk.skip(1);
            }
            result.push(sum);
        }
    }
    result
}

/// Sums over all axes of the source but the first `axes`, which are those of the result; the last of these
/// is contiguous. A run of the result at a time, each entry of it summed in the order of its terms.
fn sum_runs((sizes, strides): (&[usize], &[usize]), axes: usize, data: &[f64], result: &mut [f64]) {
    let (sizes, strides) = (sizes.split_at(axes), strides.split_at(axes));
    let terms: usize = sizes.1.iter().product();
    let run = sizes.0.last().copied().unwrap_or(1);
    let mut place = Walk::new(sizes.0, strides.0);
    for sums in result.chunks_exact_mut(run) {
        let mut term = Walk::new(sizes.1, strides.1);
        for _ in 0..terms {
            let from = &data[place.offset() + term.offset()..][..run];
            sums.iter_mut().zip(from).for_each(|(sum, x)| *sum += x);
            term.skip(1);
        }
        place.skip(run);
    }
}

/// An odometer over several axes that knows the offset of where it is.
pub struct Walk<'a> {
    sizes: &'a [usize],
    strides: &'a [usize],
    index: Vec<usize>,
    offset: usize,
}

impl<'a> Walk<'a> {
    /// Starts at the first entry of an array with these sizes; a step along an axis moves the
    /// offset by its stride.
    pub fn new(sizes: &'a [usize], strides: &'a [usize]) -> Walk<'a> {
        Walk { sizes, strides, index: vec![0; sizes.len()], offset: 0 }
    }

    /// Starts at a linear index.
    pub fn at(sizes: &'a [usize], strides: &'a [usize], mut linear: usize) -> Walk<'a> {
        let mut walk = Walk::new(sizes, strides);
        for axis in (0..sizes.len()).rev() {
            walk.index[axis] = linear % sizes[axis];
            linear /= sizes[axis];
            walk.offset += walk.index[axis] * strides[axis];
        }
        walk
    }

    /// The offset of where it is.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// Steps forward; `steps` may not cross more than one end of the last axis.
    pub fn skip(&mut self, steps: usize) {
        let Some(last) = self.sizes.len().checked_sub(1) else { return };
        self.index[last] += steps;
        self.offset += steps * self.strides[last];
        let mut axis = last;
        while self.index[axis] >= self.sizes[axis] {
            self.index[axis] -= self.sizes[axis];
            self.offset -= self.sizes[axis] * self.strides[axis];
            if axis == 0 {
                return;
            }
            axis -= 1;
            self.index[axis] += 1;
            self.offset += self.strides[axis];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Model;

    fn indices(text: &str) -> Vec<Index> {
        text.chars().filter_map(Index::new).collect()
    }

    /// Sums over every combination of indices, one term at a time.
    fn naive(shapes: &Shapes, inputs: &[(&str, &[f64])], output: &str) -> Vec<f64> {
        let mut all = indices(output);
        for (names, _) in inputs {
            for x in indices(names) {
                if !all.contains(&x) {
                    all.push(x);
                }
            }
        }
        let sizes = shapes.sizes(&all);
        let volume = |l: &[Index]| shapes.sizes(l).iter().product::<usize>();
        let mut result = vec![0.0; volume(&indices(output))];
        for linear in 0..sizes.iter().product() {
            let mut rest = linear;
            let mut index = vec![0; all.len()];
            for axis in (0..all.len()).rev() {
                index[axis] = rest % sizes[axis];
                rest /= sizes[axis];
            }
            let at = |names: &[Index]| {
                names.iter().fold(0, |acc, x| {
                    acc * shapes.size(*x) + index[all.iter().position(|y| y == x).unwrap()]
                })
            };
            let term: f64 = inputs.iter().map(|(names, data)| data[at(&indices(names))]).product();
            result[at(&indices(output))] += term;
        }
        result
    }

    #[test]
    fn sums_are_repeated_along_letters_of_the_output_alone() {
        let model = Model::parse("ir,jr,ar->ija").unwrap();
        let shapes = Shapes::new(&model, &[5, 4, 3], &[('r', 2)]).unwrap();
        for (from, to) in [("ir", "raj"), ("ir", "jr"), ("ir", "j"), ("ija", "rj"), ("i", "ra")] {
            let volume: usize = shapes.sizes(&indices(from)).iter().product();
            let data: Vec<f64> = (0..volume).map(|i| (i * i % 17) as f64 - 3.0).collect();
            let found = rearrange(&shapes, &indices(from), &data, &indices(to));
            assert_eq!(found, naive(&shapes, &[(from, &data)], to), "{from} to {to}");
        }
    }

    #[test]
    fn large_tensors_are_summed_as_they_lie() {
        let model = Model::parse("ir,jr,kr->ijk").unwrap();
        let shapes = Shapes::new(&model, &[24, 30, 26], &[('r', 9)]).unwrap();
        let fill = |names: &str, seed: f64| -> Vec<f64> {
            let n: usize = shapes.sizes(&indices(names)).iter().product();
            (0..n).map(|i| ((i as f64 + seed) * 0.7391).sin() + 1.5).collect()
        };
        // The index that is last in memory is summed over, kept, and kept with another step; the
        // smaller tensor has it or has not.
        let cases = [
            (["jkir", "ir"], "jk"),
            (["jkir", "kr"], "jir"),
            (["jkir", "kj"], "ri"),
            (["jkir", "kj"], "ir"),
            (["kj", "jkir"], "ir"),
            (["jkri", "ir"], "kj"),
            (["jkri", "jk"], ""),
            // An index of the smaller tensor alone is summed over as well.
            (["jki", "kr"], "ji"),
        ];
        for (inputs, output) in cases {
            let data = [fill(inputs[0], 0.0), fill(inputs[1], 1.0)];
            let [left, right] = inputs.map(indices);
            let found = pair(&shapes, (&left, &data[0]), (&right, &data[1]), &indices(output));
            let named = [(inputs[0], data[0].as_slice()), (inputs[1], data[1].as_slice())];
            let expected = naive(&shapes, &named, output);
            assert_eq!(found.len(), expected.len(), "{inputs:?} -> {output}");
            for (f, e) in found.iter().zip(&expected) {
                assert!((f - e).abs() <= 1e-12 * e.abs(), "{inputs:?} -> {output}: {f} {e}");
            }
        }
    }

    #[test]
    fn products_that_sum_over_nothing_are_in_the_order_of_their_result() {
        let model = Model::parse("ir,jr,kr->ijk").unwrap();
        // More entries than one thread fills, and blocks that do not divide them.
        let shapes = Shapes::new(&model, &[3, 101, 97], &[('r', 11)]).unwrap();
        let fill = |names: &str| -> Vec<f64> {
            let n: usize = shapes.sizes(&indices(names)).iter().product();
            (0..n).map(|i| ((i * i) as f64 * 0.7391).sin() + 1.5).collect()
        };
        let cases = [
            (["jr", "kr"], "jkr"),
            (["jr", "kr"], "krj"),
            (["jr", "kr"], "rjk"),
            (["jr", "k"], "kjr"),
            (["jk", "ir"], "rkij"),
            (["r", "jr"], "rj"),
            (["k", "k"], "k"),
        ];
        for (names, output) in cases {
            let data = names.map(fill);
            let [left, right] = names.map(indices);
            let found = pair(&shapes, (&left, &data[0]), (&right, &data[1]), &indices(output));
            let named = [(names[0], data[0].as_slice()), (names[1], data[1].as_slice())];
            assert!(found == naive(&shapes, &named, output), "{names:?} -> {output}");
        }
    }

    #[test]
    fn what_does_not_fit_in_memory_is_refused() {
        // Whichever index is summed over first, three others are left: 1e15 entries.
        let model = Model::parse("ia,ab,ac,ad,bc,bd,cd->i").unwrap();
        let ranks = ['a', 'b', 'c', 'd'].map(|x| (x, 100_000));
        let shapes = Shapes::new(&model, &[2], &ranks).unwrap();
        let views: Vec<&[Index]> = model.factors().iter().map(Vec::as_slice).collect();
        let plan = Contraction::new(&shapes, &views, model.output());
        // The tensors are not looked at.
        let error = contract_within(&shapes, &plan, &[[].as_slice(); 7]).unwrap_err();
        assert!(matches!(error, Error::Memory { .. }), "{error}");
        assert!(error.to_string().contains("lower the ranks"), "{error}");
    }

    #[test]
    fn contractions_equal_the_sum_over_all_indices() {
        let model = Model::parse("irk,jrk,wr,k->wij").unwrap();
        let shapes = Shapes::new(&model, &[3, 4, 2], &[('r', 5), ('k', 2)]).unwrap();
        let fill = |names: &str, seed: f64| -> Vec<f64> {
            let n: usize = shapes.sizes(&indices(names)).iter().product();
            (0..n).map(|i| ((i as f64 + seed) * 0.7391).sin() + 1.5).collect()
        };
        let cases: [(&[&str], &str); 8] = [
            (&["irk", "jrk"], "ijr"),
            (&["irk", "jrk", "wr", "k"], "wij"),
            (&["wijr", "irk", "wr"], "jrk"),
            (&["irk"], "ri"),
            (&["irk"], ""),
            (&["wr"], "rkw"),
            (&["irk", "k"], "jri"),
            (&["wr", "k"], "kwr"),
        ];
        for (inputs, output) in cases {
            let data: Vec<Vec<f64>> =
                inputs.iter().enumerate().map(|(i, names)| fill(names, i as f64)).collect();
            let named: Vec<Vec<Index>> = inputs.iter().map(|names| indices(names)).collect();
            let views: Vec<&[Index]> = named.iter().map(Vec::as_slice).collect();
            let plan = Contraction::new(&shapes, &views, &indices(output));
            let slices: Vec<&[f64]> = data.iter().map(Vec::as_slice).collect();
            let found = contract(&shapes, &plan, &slices);
            let pairs: Vec<(&str, &[f64])> = inputs.iter().copied().zip(slices).collect();
            let expected = naive(&shapes, &pairs, output);
            assert_eq!(found.len(), expected.len(), "{inputs:?} -> {output}");
            for (f, e) in found.iter().zip(&expected) {
                assert!((f - e).abs() <= 1e-12 * e.abs(), "{inputs:?} -> {output}: {f} {e}");
            }
        }
    }
}
