//! A pass laid out for a GPU: which letters a thread owns, which it walks over, and where.

use nneinfact_core::model::{Index, IndexSet, Shapes};
use nneinfact_core::plan::{Operand, Pass, Plan};

/// A tensor that a pass reads.
#[derive(Clone, Debug)]
pub(super) struct Tensor {
    /// Its letters, in its order in memory.
    pub letters: Vec<Index>,
    /// Whether it stands on the target's side.
    pub with_target: bool,
    /// Where it begins among the products, in elements.
    pub base: usize,
}

/// The letters of a pass by what a thread does with them.
///
/// A thread owns an index of `own` and `side` (the target's side of a tile) and keeps numerator and
/// denominator of all inner indices for it, while it walks over `summed` and `other`. Tensors on
/// the target's side do not depend on `other`, those on the other side not on `side`.
#[derive(Clone, Debug)]
pub(super) struct Geometry {
    /// The target first.
    pub tensors: Vec<Tensor>,
    /// Letters of the target that tensors of the other side have too: the same for a workgroup.
    pub own: Vec<Index>,
    /// The target's side, the fastest in memory last.
    pub side: Vec<Index>,
    /// Letters that both sides have but not the target.
    pub summed: Vec<Index>,
    /// The other side, the fastest in memory last.
    pub other: Vec<Index>,
    /// Summed over in ŷ.
    pub inner: Vec<Index>,
    /// The inner letters that the target has.
    pub target_inner: Vec<Index>,
    /// The size of the inner dimension K.
    pub k: usize,
}

impl Geometry {
    /// `bases` says where each tensor begins, the target first.
    pub fn new(plan: &Plan, pass: &Pass, bases: &[usize]) -> Geometry {
        let shapes = plan.shapes();
        let operands: Vec<&Operand> = std::iter::once(&pass.output).chain(&pass.operands).collect();
        let tensors: Vec<Tensor> = operands
            .iter()
            .zip(bases)
            .map(|(o, &base)| Tensor {
                letters: o.indices.clone(),
                with_target: o.side == pass.output.side,
                base,
            })
            .collect();
        let layout = &pass.layout;
        let (mut side, mut other) = match pass.output.side {
            nneinfact_core::plan::OperandSide::Lhs => (layout.rows.clone(), layout.columns.clone()),
            nneinfact_core::plan::OperandSide::Rhs => (layout.columns.clone(), layout.rows.clone()),
        };
        let target: IndexSet = pass.output.indices.iter().collect();
        let has = |x: Index, with_target: bool| {
            tensors.iter().any(|t| t.with_target == with_target && t.letters.contains(&x))
        };
        let (mut own, mut summed) = (Vec::new(), Vec::new());
        for &x in &layout.batch {
            // The plan loops over some letters outside of tiles for the sake of caches. Here they
            // join the side that they belong to: more threads side by side, longer sums.
            if target.contains(x) {
                if has(x, false) { own.push(x) } else { side.push(x) }
            } else if has(x, true) {
                summed.push(x);
            } else {
                other.push(x);
            }
        }
        for letters in [&mut own, &mut side, &mut summed, &mut other] {
            letters.sort_by_key(|&x| std::cmp::Reverse(plan.data().stride(shapes, x)));
        }
        Geometry {
            target_inner: layout
                .contracted
                .iter()
                .copied()
                .filter(|&x| target.contains(x))
                .collect(),
            k: pass.contracted_size(shapes),
            inner: layout.contracted.clone(),
            tensors,
            own,
            side,
            summed,
            other,
        }
    }

    /// Tensors on the target's side besides the target.
    pub fn partners(&self) -> impl Iterator<Item = usize> + '_ {
        (1..self.tensors.len()).filter(|&t| self.tensors[t].with_target)
    }

    /// Whether a partner depends on a letter that is summed over outside of tiles: sums over the
    /// tile have to be multiplied with the partners' product before the letter changes.
    pub fn partners_move(&self) -> bool {
        self.partners().any(|t| self.summed.iter().any(|x| self.tensors[t].letters.contains(x)))
    }

    /// The stride of a letter in a tensor; 0 where it does not have it.
    pub fn stride(&self, shapes: &Shapes, tensor: usize, letter: Index) -> usize {
        stride(shapes, &self.tensors[tensor].letters, letter)
    }

    /// The value of each inner letter at an inner index.
    pub fn inner_index(&self, shapes: &Shapes, mut k: usize) -> Vec<usize> {
        let mut index = vec![0; self.inner.len()];
        for (at, &x) in self.inner.iter().enumerate().rev() {
            index[at] = k % shapes.size(x);
            k /= shapes.size(x);
        }
        index
    }

    /// The target's own inner index at an inner index.
    pub fn target_index(&self, shapes: &Shapes, k: usize) -> usize {
        let index = self.inner_index(shapes, k);
        self.inner
            .iter()
            .zip(index)
            .filter(|(x, _)| self.target_inner.contains(x))
            .fold(0, |acc, (&x, i)| acc * shapes.size(x) + i)
    }

    /// The number of the target's own inner indices.
    pub fn target_k(&self, shapes: &Shapes) -> usize {
        shapes.sizes(&self.target_inner).iter().product()
    }
}

/// The stride of a letter in a tensor in C order; 0 where it does not have it.
pub(super) fn stride(shapes: &Shapes, letters: &[Index], letter: Index) -> usize {
    match letters.iter().position(|&x| x == letter) {
        Some(at) => letters[at + 1..].iter().map(|&x| shapes.size(x)).product(),
        None => 0,
    }
}

/// Parts of a long mode begin at multiples of this, so that the words of the data hold whole cells.
const CUT_AT: usize = 16;

/// A part of the data: for each observed letter, in the model's order, where it begins and how long
/// it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub ranges: Vec<(usize, usize)>,
}

impl Part {
    /// All data.
    pub fn whole(shapes: &Shapes) -> Part {
        Part { ranges: shapes.data().iter().map(|&n| (0, n)).collect() }
    }

    /// The number of entries.
    pub fn entries(&self) -> usize {
        self.ranges.iter().map(|r| r.1).product()
    }

    /// The range of a letter.
    pub fn range(&self, shapes: &Shapes, letter: Index) -> (usize, usize) {
        let mode = shapes.model().output().iter().position(|&x| x == letter);
        mode.map_or((0, 1), |mode| self.ranges[mode])
    }

    /// The size of several letters together.
    pub fn size(&self, shapes: &Shapes, letters: &[Index]) -> usize {
        letters.iter().map(|&x| self.range(shapes, x).1).product()
    }

    /// Where the part begins in a tensor with these strides, one per mode.
    pub fn offset(&self, strides: &[usize]) -> usize {
        self.ranges.iter().zip(strides).map(|(r, s)| r.0 * s).sum()
    }

    /// Two parts of about the same size, cut along a mode, at a multiple of [`CUT_AT`] where that is
    /// long; `None` where it has only one index.
    pub fn cut(&self, mode: usize) -> Option<(Part, Part)> {
        let (start, len) = self.ranges[mode];
        if len < 2 {
            return None;
        }
        let half = if len >= 2 * CUT_AT { len / 2 / CUT_AT * CUT_AT } else { len / 2 };
        let (mut first, mut second) = (self.clone(), self.clone());
        first.ranges[mode] = (start, half);
        second.ranges[mode] = (start + half, len - half);
        Some((first, second))
    }

    /// Cuts into slabs of at most `most` entries that are each contiguous in memory: along the
    /// slowest mode, and along faster ones where one of its indices is too large already.
    pub fn slabs(shapes: &Shapes, strides: &[usize], most: usize) -> Vec<Part> {
        let mut order: Vec<usize> = (0..strides.len()).collect();
        order.sort_by_key(|&m| (std::cmp::Reverse(strides[m]), shapes.data()[m] == 1));
        let mut slabs = Vec::new();
        Part::whole(shapes).contiguous(&order, most.max(1), &mut slabs);
        slabs
    }

    fn contiguous(self, order: &[usize], most: usize, slabs: &mut Vec<Part>) {
        if self.entries() <= most {
            slabs.push(self);
            return;
        }
        let Some((&mode, faster)) = order.split_first() else {
            slabs.push(self);
            return;
        };
        let (start, len) = self.ranges[mode];
        let each = self.entries() / len;
        let step = (most / each).max(1);
        let step = if step >= CUT_AT { step / CUT_AT * CUT_AT } else { step };
        for first in (0..len).step_by(step) {
            let mut slab = self.clone();
            slab.ranges[mode] = (start + first, step.min(len - first));
            slab.contiguous(faster, most, slabs);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nneinfact_core::model::Model;

    #[test]
    fn slabs_are_contiguous_and_cover_everything_once() {
        let model = Model::parse("i,j,k->ijk").unwrap();
        let shapes = Shapes::new(&model, &[5, 4, 7], &[]).unwrap();
        for strides in [[28, 7, 1], [1, 5, 20], [7, 35, 1]] {
            for most in [1, 3, 7, 10, 20, 28, 60, 200] {
                let mut seen = vec![0; 140];
                let mut end = 0;
                for slab in Part::slabs(&shapes, &strides, most) {
                    assert!(slab.entries() <= most);
                    let start = slab.offset(&strides);
                    assert_eq!(start, end, "slabs follow one another in memory");
                    end = start + slab.entries();
                    let [a, b, c] = [0, 1, 2].map(|m| slab.ranges[m]);
                    for i in a.0..a.0 + a.1 {
                        for j in b.0..b.0 + b.1 {
                            for k in c.0..c.0 + c.1 {
                                let at = i * strides[0] + j * strides[1] + k * strides[2];
                                assert!((start..end).contains(&at), "contiguous");
                                seen[at] += 1;
                            }
                        }
                    }
                }
                assert!(seen.iter().all(|&n| n == 1), "{strides:?} {most}");
            }
        }
    }
}
