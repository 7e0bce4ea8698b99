//! Products of two tensors that sum over nothing, such as the rows of a Khatri–Rao product.

use super::{PARALLEL, Walk, strides};
use crate::model::{Index, Shapes};
use crate::parallel;

/// `left · right` along all indices of `output`, which has those of both: written once, in its own order,
/// where a product by matrices would need copies of both and of the result in other orders.
pub(super) fn product(
    shapes: &Shapes,
    left: (&[Index], &[f64]),
    right: (&[Index], &[f64]),
    output: &[Index],
) -> Vec<f64> {
    let sizes = shapes.sizes(output);
    let (left_strides, right_strides) =
        (strides(shapes, left.0, output), strides(shapes, right.0, output));
    let inner = Inner::new(&sizes, [&left_strides, &right_strides]);
    let block = inner.rows * inner.run;
    let mut result = vec![0.0; sizes.iter().product()];
    // What the axes before the last two number.
    let outer = sizes.len().saturating_sub(2);
    let blocks = PARALLEL.div_ceil(4 * block);
    parallel::chunks(&mut result, blocks * block, &|first, to| {
        let at = |strides| Walk::at(&sizes[..outer], strides, first / block);
        let (mut from, mut with) = (at(&left_strides[..outer]), at(&right_strides[..outer]));
        for to in to.chunks_exact_mut(block) {
            inner.fill(to, &left.1[from.offset()..], &right.1[with.offset()..]);
            from.skip(1);
            with.skip(1);
        }
    });
    result
}

/// The last two axes of a result, with what a step along each moves in the two tensors.
struct Inner {
    rows: usize,
    run: usize,
    /// Along the rows, and along a run, for the left and the right tensor.
    left: [usize; 2],
    right: [usize; 2],
}

impl Inner {
    fn new(sizes: &[usize], [left, right]: [&[usize]; 2]) -> Inner {
        // A result of one axis is one row.
        let last = |of: &[usize], none: usize| match *of {
            [.., rows, run] => [rows, run],
            [run] => [none, run],
            [] => [none, 1],
        };
        let [rows, run] = last(sizes, 1);
        Inner { rows, run, left: last(left, 0), right: last(right, 0) }
    }

    fn fill(&self, to: &mut [f64], left: &[f64], right: &[f64]) {
        let ([left_row, left_step], [right_row, right_step]) = (self.left, self.right);
        for (i, to) in to.chunks_exact_mut(self.run).enumerate() {
            let (left, right) = (&left[i * left_row..], &right[i * right_row..]);
            match (left_step, right_step) {
                (1, 1) => {
                    let terms = left.iter().zip(right);
                    to.iter_mut().zip(terms).for_each(|(to, (x, y))| *to = x * y);
                }
                (1, 0) => to.iter_mut().zip(left).for_each(|(to, x)| *to = x * right[0]),
                (0, 1) => to.iter_mut().zip(right).for_each(|(to, y)| *to = left[0] * y),
                _ => {
                    for (i, to) in to.iter_mut().enumerate() {
                        *to = left[i * left_step] * right[i * right_step];
                    }
                }
            }
        }
    }
}
