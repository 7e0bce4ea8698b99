//! A dense pass laid out for a GPU: which indices a thread owns, which it walks over, and where.

use nneinfact_core::model::{Index, IndexSet, Shapes};
use nneinfact_core::plan::{Operand, OperandSide, Pass, Plan};

use crate::program::views::stride;

/// A tensor that a pass reads.
#[derive(Clone, Debug)]
pub(crate) struct PassTensor {
    /// Its indices, in its order in memory.
    pub indices: Vec<Index>,
    /// Which operand of the tile's product it belongs to.
    pub operand: TileOperand,
    /// Where it begins among the products, in elements.
    pub base: usize,
}

/// The operands of a tile's product: predictions are R Cᵀ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TileOperand {
    /// R, with the output tensor and its co-operands.
    Rows,
    /// C.
    Columns,
}

/// The indices of a pass by what a thread does with them.
///
/// A thread owns a batch index and a row of the tile, and keeps numerator and denominator of all
/// contracted indices for them, while it walks over reduced batch indices and columns. Tensors of R do
/// not depend on columns, those of C not on rows.
#[derive(Clone, Debug)]
pub(crate) struct Geometry {
    /// The output first.
    pub tensors: Vec<PassTensor>,
    /// Batch indices: those of the output that tensors of C have too, the same for a workgroup.
    pub batch: Vec<Index>,
    /// Rows of the tile, the fastest in memory last.
    pub rows: Vec<Index>,
    /// Reduced batch indices, which both operands have but not the output.
    pub reduced: Vec<Index>,
    /// Columns of the tile, the fastest in memory last.
    pub columns: Vec<Index>,
    /// Contracted indices: summed over in ŷ.
    pub contracted: Vec<Index>,
    /// The contracted indices that the output has.
    pub output_contracted: Vec<Index>,
    /// The size of the contracted dimension K.
    pub k: usize,
}

impl Geometry {
    /// `bases` says where each tensor begins, the output first.
    pub fn new(plan: &Plan, pass: &Pass, bases: &[usize]) -> Geometry {
        let shapes = plan.shapes();
        let operands: Vec<&Operand> = std::iter::once(&pass.output).chain(&pass.operands).collect();
        let operand = |o: &Operand| match o.side == pass.output.side {
            true => TileOperand::Rows,
            false => TileOperand::Columns,
        };
        let tensors: Vec<PassTensor> = operands
            .iter()
            .zip(bases)
            .map(|(o, &base)| PassTensor { indices: o.indices.clone(), operand: operand(o), base })
            .collect();
        let layout = &pass.layout;
        let (mut rows, mut columns) = match pass.output.side {
            OperandSide::Lhs => (layout.rows.clone(), layout.columns.clone()),
            OperandSide::Rhs => (layout.columns.clone(), layout.rows.clone()),
        };
        let output: IndexSet = pass.output.indices.iter().collect();
        let has = |x: Index, operand: TileOperand| {
            tensors.iter().any(|t| t.operand == operand && t.indices.contains(&x))
        };
        let (mut batch, mut reduced) = (Vec::new(), Vec::new());
        for &x in &layout.batch {
            // The plan loops over some indices outside of tiles for the sake of caches. Here they
            // join the operand that they belong to: more threads side by side, longer sums.
            if output.contains(x) {
                if has(x, TileOperand::Columns) { batch.push(x) } else { rows.push(x) }
            } else if has(x, TileOperand::Rows) {
                reduced.push(x);
            } else {
                columns.push(x);
            }
        }
        for indices in [&mut batch, &mut rows, &mut reduced, &mut columns] {
            indices.sort_by_key(|&x| std::cmp::Reverse(plan.data().stride(shapes, x)));
        }
        let contracted = layout.contracted.clone();
        Geometry {
            output_contracted: contracted.iter().copied().filter(|&x| output.contains(x)).collect(),
            k: pass.contracted_size(shapes),
            contracted,
            tensors,
            batch,
            rows,
            reduced,
            columns,
        }
    }

    /// The tensors of an operand.
    pub fn tensors_of(&self, operand: TileOperand) -> Vec<usize> {
        (0..self.tensors.len()).filter(|&t| self.tensors[t].operand == operand).collect()
    }

    /// The output's co-operands: the other tensors of R.
    pub fn co_operands(&self) -> Vec<usize> {
        self.tensors_of(TileOperand::Rows).into_iter().filter(|&t| t > 0).collect()
    }

    /// Whether a co-operand depends on an index that is summed over outside of tiles: sums over the
    /// tile have to be multiplied with the co-operands' product before the index changes.
    pub fn co_operands_move(&self) -> bool {
        let moves = |t: usize| self.reduced.iter().any(|x| self.tensors[t].indices.contains(x));
        self.co_operands().into_iter().any(moves)
    }

    /// The stride of an index in a tensor; 0 where it does not have it.
    pub fn stride(&self, shapes: &Shapes, tensor: usize, index: Index) -> usize {
        stride(shapes, &self.tensors[tensor].indices, index)
    }

    /// The flat contracted index of the output at one of all tensors.
    pub fn output_index(&self, shapes: &Shapes, mut k: usize) -> usize {
        let mut values = vec![0; self.contracted.len()];
        for (at, &x) in self.contracted.iter().enumerate().rev() {
            values[at] = k % shapes.size(x);
            k /= shapes.size(x);
        }
        self.contracted
            .iter()
            .zip(values)
            .filter(|(x, _)| self.output_contracted.contains(x))
            .fold(0, |acc, (&x, i)| acc * shapes.size(x) + i)
    }

    /// The size of the output's own contracted indices.
    pub fn output_k(&self, shapes: &Shapes) -> usize {
        shapes.sizes(&self.output_contracted).iter().product()
    }
}

/// Parts of a long mode begin at multiples of this, so that the words of the data hold whole entries.
const CUT_AT: usize = 16;

/// A part of the data: for each observed index, in the model's order, where it begins and how long
/// it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DataPart {
    pub ranges: Vec<(usize, usize)>,
}

impl DataPart {
    /// All data.
    pub fn whole(shapes: &Shapes) -> DataPart {
        DataPart { ranges: shapes.data().iter().map(|&n| (0, n)).collect() }
    }

    /// The number of entries.
    pub fn entries(&self) -> usize {
        self.ranges.iter().map(|r| r.1).product()
    }

    /// The range of an index.
    pub fn range(&self, shapes: &Shapes, index: Index) -> (usize, usize) {
        let mode = shapes.model().output().iter().position(|&x| x == index);
        mode.map_or((0, 1), |mode| self.ranges[mode])
    }

    /// The size of several indices together.
    pub fn size(&self, shapes: &Shapes, indices: &[Index]) -> usize {
        indices.iter().map(|&x| self.range(shapes, x).1).product()
    }

    /// Where the part begins in a tensor with these strides, one per mode.
    pub fn offset(&self, strides: &[usize]) -> usize {
        self.ranges.iter().zip(strides).map(|(r, s)| r.0 * s).sum()
    }

    /// Two parts of about the same size, cut along a mode, at a multiple of [`CUT_AT`] where that is
    /// long; `None` where it has only one index.
    pub fn cut(&self, mode: usize) -> Option<(DataPart, DataPart)> {
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
    pub fn slabs(shapes: &Shapes, strides: &[usize], most: usize) -> Vec<DataPart> {
        let mut order: Vec<usize> = (0..strides.len()).collect();
        order.sort_by_key(|&m| (std::cmp::Reverse(strides[m]), shapes.data()[m] == 1));
        let mut slabs = Vec::new();
        DataPart::whole(shapes).contiguous(&order, most.max(1), &mut slabs);
        slabs
    }

    fn contiguous(self, order: &[usize], most: usize, slabs: &mut Vec<DataPart>) {
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
                for slab in DataPart::slabs(&shapes, &strides, most) {
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
