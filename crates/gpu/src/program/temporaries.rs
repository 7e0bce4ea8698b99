//! Where contractions leave what they compute on the way.
//!
//! What writes to a place has to wait for what reads there. So each small intermediate result has a
//! place of its own, and what is independent of each other does not wait; only the same contraction of the
//! same tensors comes back to it, whose result may still stand. Large ones share the buffers of
//! [`Compiler::temporary`].

use std::collections::HashMap;

use super::compiler::Compiler;
use super::recording::BufferId;
use super::views::TensorView;
use nneinfact_core::model::{Index, Shapes};

/// The most words of a small one.
const SMALL: usize = 1 << 14;

/// What is computed: from which tensors, with their sizes, and along which indices.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct TemporaryKey {
    at: usize,
    inputs: Vec<(TensorView, Vec<usize>)>,
    indices: Vec<Index>,
    paired: bool,
}

/// The places of small intermediate results.
#[derive(Default)]
pub(crate) struct Temporaries {
    /// Buffers with the words that are taken of each.
    buffers: Vec<(BufferId, usize)>,
    places: HashMap<TemporaryKey, TensorView>,
}

impl Compiler<'_> {
    /// Where a step of a contraction leaves what it makes of these tensors, or two results, as `paired` says;
    /// `number` is its own among those of one contraction.
    pub fn step_view(
        &mut self,
        shapes: &Shapes,
        number: usize,
        inputs: &[&TensorView],
        indices: Vec<Index>,
        paired: bool,
    ) -> TensorView {
        // A shader does not write to a buffer that it reads from.
        let read = |buffer: BufferId| inputs.iter().any(|view| view.buffer == buffer);
        let buffers = self.small_temporaries.buffers.iter().skip(1);
        let at = 1 + buffers.take_while(|&&(buffer, _)| read(buffer)).count();
        self.temporary_view(shapes, (at, number), inputs, indices, paired)
    }

    /// Where a contraction of all these tensors goes, whose steps leave what they make in other buffers.
    pub fn result_view(
        &mut self,
        shapes: &Shapes,
        number: usize,
        inputs: &[TensorView],
        indices: Vec<Index>,
    ) -> TensorView {
        let inputs: Vec<&TensorView> = inputs.iter().collect();
        self.temporary_view(shapes, (0, number), &inputs, indices, false)
    }

    /// A place in the small buffer `at`, or all of the large one of this number.
    fn temporary_view(
        &mut self,
        shapes: &Shapes,
        (at, number): (usize, usize),
        inputs: &[&TensorView],
        indices: Vec<Index>,
        paired: bool,
    ) -> TensorView {
        let volume: usize = shapes.sizes(&indices).iter().product();
        let words = if paired { 2 * volume } else { volume };
        let half = paired.then_some(volume);
        if words > SMALL {
            let buffer = self.temporary(number, words);
            return TensorView { buffer, base: 0, indices, half };
        }
        let sized = |view: &&TensorView| ((*view).clone(), shapes.sizes(&view.indices));
        let key = TemporaryKey {
            at,
            inputs: inputs.iter().map(sized).collect(),
            indices: indices.clone(),
            paired,
        };
        if let Some(view) = self.small_temporaries.places.get(&key) {
            return view.clone();
        }
        while self.small_temporaries.buffers.len() <= at {
            let number = self.small_temporaries.buffers.len() + 1;
            let buffer = self.program.add_scratch(&format!("small temporaries {number}"), 1);
            self.small_temporaries.buffers.push((buffer, 0));
        }
        let (buffer, base) = self.small_temporaries.buffers[at];
        self.small_temporaries.buffers[at].1 += words;
        self.grow(buffer, base + words);
        let view = TensorView { buffer, base, indices, half };
        self.small_temporaries.places.insert(key, view.clone());
        view
    }
}
