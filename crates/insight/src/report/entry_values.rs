//! ŷ at single entries.

use nneinfact_core::model::{Index, IndexSet};
use nneinfact_fit::Saved;

/// Forms ŷ at single entries: a product of the factors' rows, summed over the latent indices in nested
/// loops. A factor is multiplied in as soon as all of its latent indices have a value.
pub(super) struct EntryValues<'a> {
    tensors: Vec<StridedFactor<'a>>,
    /// The sizes of the latent indices, from the outermost loop to the innermost.
    sizes: Vec<usize>,
    /// The tensors that are complete at each depth: before any loop, in the first, ….
    ready: Vec<Vec<usize>>,
    work: f64,
}

struct StridedFactor<'a> {
    data: std::borrow::Cow<'a, [f64]>,
    /// Strides along the modes of the data.
    observed: Vec<usize>,
    /// Strides along the latent indices, in the order of the loops.
    latent: Vec<usize>,
}

impl<'a> EntryValues<'a> {
    pub fn new(saved: &'a Saved) -> EntryValues<'a> {
        let (model, shapes) = (saved.model(), saved.shapes());
        // Indices of many factors are outside, since what is inside of all loops is done most often.
        let mut loops: Vec<Index> = model.latent().iter().collect();
        let uses = |x: &Index| model.factors().iter().filter(|f| f.contains(x)).count();
        loops.sort_by_key(|x| (std::cmp::Reverse(uses(x)), *x));
        let all: Vec<Index> = model.latent().iter().collect();
        let mut indices: Vec<&[Index]> = model.factors().iter().map(Vec::as_slice).collect();
        let mut arrays: Vec<_> = saved.factors().iter().collect();
        if let Some(weights) = saved.weights() {
            indices.push(&all);
            arrays.push(weights);
        }
        let stride = |names: &[Index], x: &Index| match names.iter().position(|y| y == x) {
            Some(axis) => shapes.sizes(&names[axis + 1..]).iter().product(),
            None => 0,
        };
        let tensors: Vec<StridedFactor<'a>> = indices
            .iter()
            .zip(&arrays)
            .map(|(names, array)| StridedFactor {
                data: match array.as_slice() {
                    Some(slice) => slice.into(),
                    None => array.iter().copied().collect::<Vec<f64>>().into(),
                },
                observed: model.output().iter().map(|x| stride(names, x)).collect(),
                latent: loops.iter().map(|x| stride(names, x)).collect(),
            })
            .collect();
        let latent = model.latent();
        let mut ready = vec![Vec::new(); loops.len() + 1];
        for (t, names) in indices.iter().enumerate() {
            let own: IndexSet = names.iter().copied().filter(|&x| latent.contains(x)).collect();
            let depth = (0..=loops.len())
                .find(|&d| loops[..d].iter().collect::<IndexSet>().contains_all(own));
            ready[depth.unwrap_or(loops.len())].push(t);
        }
        let sizes = shapes.sizes(&loops);
        let mut work = 0.0;
        let mut rounds = 1.0;
        for (depth, ready) in ready.iter().enumerate() {
            if depth > 0 {
                rounds *= sizes[depth - 1] as f64;
            }
            work += rounds * (1 + ready.len()) as f64;
        }
        EntryValues { tensors, sizes, ready, work }
    }

    /// About how many multiplications an entry takes.
    pub fn work(&self) -> f64 {
        self.work
    }

    pub fn cursor(&self) -> Cursor<'_, 'a> {
        Cursor { values: self, offsets: vec![0; self.tensors.len()] }
    }
}

/// What a thread needs of its own.
pub(super) struct Cursor<'b, 'a> {
    values: &'b EntryValues<'a>,
    offsets: Vec<usize>,
}

impl Cursor<'_, '_> {
    /// ŷ at an index inside the data.
    pub fn at(&mut self, index: &[usize]) -> f64 {
        for (offset, tensor) in self.offsets.iter_mut().zip(&self.values.tensors) {
            *offset = tensor.observed.iter().zip(index).map(|(s, i)| s * i).sum();
        }
        self.sum(0)
    }

    fn sum(&mut self, depth: usize) -> f64 {
        let values = self.values;
        let mut product = 1.0;
        for &t in &values.ready[depth] {
            product *= values.tensors[t].data[self.offsets[t]];
        }
        if product == 0.0 || depth == values.sizes.len() {
            return product;
        }
        let size = values.sizes[depth];
        let mut sum = 0.0;
        for _ in 0..size {
            sum += self.sum(depth + 1);
            for (offset, tensor) in self.offsets.iter_mut().zip(&values.tensors) {
                *offset += tensor.latent[depth];
            }
        }
        for (offset, tensor) in self.offsets.iter_mut().zip(&values.tensors) {
            *offset -= size * tensor.latent[depth];
        }
        product * sum
    }
}
