//! The operations of a fit, each by the dispatch, copy or clear that it is in place of.

use super::operation::{Element, Elementwise, Operation, OperationText, Reach, Reaches, Seen};
use crate::contract::LoopAxis;
use crate::program::compiler::Compiler;
use crate::program::recording::{Access, BufferId, Command};
use crate::program::template::fill;
use nneinfact_core::error::Result;
use nneinfact_shaders::{CHUNK, LOSS_SUMS};

/// Turns that adding up what threads found takes, which share an output.
const LANES_TURNS: usize = 1;

/// A contraction as its shader sees it.
pub(crate) struct ContractionParts<'a> {
    pub outputs: &'a [LoopAxis],
    pub terms: &'a [LoopAxis],
    pub lanes: usize,
    pub a: Option<(BufferId, usize)>,
    pub b: Option<(BufferId, usize)>,
    pub out: (BufferId, usize),
    pub add: bool,
    /// Vectors of uniforms, the axes among them.
    pub words: &'a [u32],
    /// Outputs, and terms of each.
    pub count: usize,
    pub length: usize,
    /// Whether the slowest axis of the outputs tells numerator from denominator.
    pub paired: bool,
}

impl ContractionParts<'_> {
    fn halves(&self) -> usize {
        if self.paired { 2 } else { 1 }
    }

    /// The words that one of the halves reaches in a tensor.
    fn reach(
        &self,
        half: usize,
        base: usize,
        stride: impl Fn(&LoopAxis) -> usize,
    ) -> (usize, usize) {
        let mut outputs = self.outputs;
        let mut first = base;
        if let ([pair, rest @ ..], true) = (outputs, self.paired) {
            first += half * stride(pair);
            outputs = rest;
        }
        let far = outputs.iter().chain(self.terms).map(|axis| (axis.size - 1) * stride(axis));
        (first, far.sum::<usize>() + 1)
    }

    /// Whether output i is written to word i, of one half and of the next behind it.
    fn in_order(&self) -> bool {
        let mut next = 1;
        self.out.1 == 0
            && self.outputs.iter().rev().all(|axis| {
                let fits = axis.out == next;
                next *= axis.size;
                fits
            })
    }
}

/// The body of an operation's function: what is a uniform of a dispatch is in its program.
fn body(text: &str) -> String {
    text.replace("uniforms[", "program[op + ").replace("uniforms.", "program[op].")
}

/// As many vectors of four words as these take.
fn vectors(words: &[u32]) -> Vec<u32> {
    let mut words = words.to_vec();
    words.resize(words.len().next_multiple_of(4), 0);
    words
}

impl Compiler<'_> {
    /// A command, with the operations that may be in its place.
    pub(crate) fn or_jointly(&self, otherwise: Command, operations: Vec<Operation>) -> Command {
        match self.joins() {
            true => Command::Small { otherwise: Box::new(otherwise), operations },
            false => otherwise,
        }
    }

    /// Threads of the workgroups of joint dispatches.
    pub(crate) fn joint_threads(&self) -> usize {
        self.limits.most_threads(1024) as usize
    }

    /// The name of a buffer in the texts of operations, and what its words are.
    fn seen(&self, buffer: BufferId, access: Access) -> Seen {
        let b = &self.buffers;
        let named = [
            (b.factors, "factors"),
            (b.steps, "steps"),
            (b.powers, "powers"),
            (b.anchor, "anchor"),
            (b.origin, "origin"),
            (b.products, "products"),
            (b.sums, "sums"),
            (b.quotients, "quotients"),
            (b.partial, "partials"),
            (b.losses, "losses"),
            (b.results, "results"),
            (b.largest, "largest"),
        ];
        let name = match named.iter().find(|(id, _)| *id == buffer) {
            Some((_, name)) => (*name).to_string(),
            None => format!("buffer_{}", buffer.0),
        };
        Seen { name, buffer, element: Element::Float, access }
    }

    /// Turns of a workgroup that does so many elements, of so many turns each.
    fn turns(&self, elements: usize, each: usize) -> usize {
        elements.div_ceil(self.joint_threads()).saturating_mul(each)
    }

    /// `out[..] = scale * sum a[..] * b[..]`, or that added to what is there.
    pub(crate) fn contraction_operation(&self, parts: &ContractionParts<'_>) -> Result<Operation> {
        let (read, written) = (Access::Read, Access::ReadWrite);
        let mut seen: Vec<Seen> =
            [parts.a, parts.b].into_iter().flatten().map(|(id, _)| self.seen(id, read)).collect();
        let name = |place: Option<(BufferId, usize)>| match place {
            Some((id, _)) => self.seen(id, read).name,
            None => "nothing".into(),
        };
        let words = [
            ("a", name(parts.a)),
            ("b", name(parts.b)),
            ("out", self.seen(parts.out.0, read).name),
        ];
        seen.push(self.seen(parts.out.0, written));
        let inputs = usize::from(parts.a.is_some()) + usize::from(parts.b.is_some());
        let flags = [
            ("two_inputs", inputs == 2),
            ("one_input", inputs == 1),
            ("no_input", inputs == 0),
            ("add", parts.add),
        ];
        let template = match parts.lanes {
            1 => nneinfact_shaders::JOINT_CONTRACT,
            _ => nneinfact_shaders::JOINT_CONTRACT_SHARED,
        };
        let mut reaches = Reaches::default();
        for half in 0..parts.halves() {
            let to = parts.reach(half, parts.out.1, |axis| axis.out);
            reaches.writes.push(Reach::new(parts.out.0, to.0, to.1));
            if let Some((buffer, base)) = parts.a {
                let from = parts.reach(half, base, |axis| axis.a);
                reaches.reads.push(Reach::new(buffer, from.0, from.1));
            }
            if let Some((buffer, base)) = parts.b {
                let from = parts.reach(half, base, |axis| axis.b);
                reaches.reads.push(Reach::new(buffer, from.0, from.1));
            }
        }
        let elements = parts.count / parts.halves();
        let each = match parts.lanes {
            1 => parts.length,
            lanes => parts.length.div_ceil(lanes) + LANES_TURNS,
        };
        let itself = [parts.a, parts.b].into_iter().flatten().any(|(id, _)| id == parts.out.0);
        Ok(Operation {
            text: OperationText {
                label: if parts.lanes > 1 { "contraction of shared sums" } else { "contraction" },
                body: body(&fill(template, &flags, &words)?),
                seen,
            },
            head: [parts.lanes as u32, parts.halves() as u32],
            words: vectors(parts.words),
            elements: Some(elements),
            turns: self.turns(elements * parts.lanes, each * parts.halves()),
            reaches,
            elementwise: match (parts.in_order(), parts.add) {
                _ if itself => Elementwise::No,
                (true, false) => Elementwise::Leaves(parts.out.0),
                (true, true) => Elementwise::Takes(parts.out.0),
                (false, _) => Elementwise::No,
            },
            repeatable: !parts.add && !itself,
        })
    }

    /// Steps of 1 for neighbouring factors, which take so many words from one on.
    pub(crate) fn begin_operation(&self, first: usize, size: usize) -> Result<Operation> {
        let parameters = self.places[self.places.len() - 1];
        let b = &self.buffers;
        let mut writes = vec![Reach::new(b.steps, first, size)];
        writes.extend((0..3).map(|power| Reach::new(b.powers, first + power * parameters, size)));
        Ok(Operation {
            text: OperationText {
                label: "begin update",
                body: body(&fill(nneinfact_shaders::JOINT_BEGIN_UPDATE, &[], &[])?),
                seen: vec![
                    self.seen(b.factors, Access::Read),
                    self.seen(b.steps, Access::ReadWrite),
                    self.seen(b.powers, Access::ReadWrite),
                ],
            },
            head: [1, 1],
            words: [first, size, 0, parameters].map(|n| n as u32).to_vec(),
            elements: Some(size),
            turns: self.turns(size, 1),
            reaches: Reaches::new(vec![Reach::new(b.factors, first, size)], writes),
            elementwise: Elementwise::No,
            repeatable: false,
        })
    }

    /// The steps of a factor, by the body of its shader; `constraint` is what that reads of it.
    pub(crate) fn step_operation(
        &self,
        l: usize,
        text: &str,
        grouped: bool,
        constraint: Option<[f32; 4]>,
    ) -> Operation {
        let parameters = self.places[self.places.len() - 1];
        let (first, size) = (self.places[l], self.factor_size(l));
        let b = &self.buffers;
        let mut words = [first, size, 0, parameters].map(|n| n as u32).to_vec();
        words.extend(constraint.unwrap_or_default().map(f32::to_bits));
        let mut seen = vec![
            self.seen(b.quotients, Access::Read),
            self.seen(b.factors, Access::Read),
            self.seen(b.steps, Access::ReadWrite),
        ];
        let mut writes = vec![Reach::new(b.steps, first, size)];
        if grouped {
            seen.push(self.seen(b.powers, Access::ReadWrite));
            writes.extend((0..3).map(|p| Reach::new(b.powers, first + p * parameters, size)));
        }
        let reads = vec![Reach::new(b.quotients, 0, 2 * size), Reach::new(b.factors, first, size)];
        Operation {
            text: OperationText { label: "step", body: body(text), seen },
            head: [1, 1],
            words,
            elements: Some(size),
            turns: self.turns(size, 2),
            reaches: Reaches::new(reads, writes),
            elementwise: Elementwise::Takes(b.quotients),
            repeatable: false,
        }
    }

    /// What `joint/apply.wgsl` does to a factor; the other tensors that it sees are read or written at
    /// the factor's place.
    pub(crate) fn apply_operation(
        &self,
        l: usize,
        label: &'static str,
        text: &str,
        others: &[(BufferId, Access)],
        words: [u32; 8],
    ) -> Operation {
        let (first, size) = (self.places[l], self.factor_size(l));
        let b = &self.buffers;
        let mut seen = vec![self.seen(b.factors, Access::ReadWrite)];
        let mut reaches = Reaches::default();
        reaches.writes.push(Reach::new(b.factors, first, size));
        for &(buffer, access) in others {
            let element = match buffer {
                buffer if buffer == b.weights => Element::Uniform,
                buffer if buffer == b.course => Element::Word,
                _ => Element::Float,
            };
            let own = match element {
                Element::Float => Reach::new(buffer, first, size),
                _ => Reach::whole(buffer),
            };
            match access {
                Access::ReadWrite => reaches.writes.push(own),
                Access::Uniform | Access::Read => reaches.reads.push(own),
            }
            let mut other = Seen { element, ..self.seen(buffer, access) };
            match element {
                Element::Uniform => other.name = "weights".into(),
                Element::Word => other.name = "course".into(),
                _ => {}
            }
            seen.push(other);
        }
        // That several write this word does not make one of them wait.
        let broken = Seen { element: Element::Atomic, ..self.seen(b.broken, Access::ReadWrite) };
        seen.push(Seen { name: "broken".into(), ..broken });
        Operation {
            text: OperationText { label, body: body(text), seen },
            head: [1, 1],
            words: words.to_vec(),
            elements: None,
            turns: self.turns(size, 2),
            reaches,
            elementwise: Elementwise::No,
            repeatable: false,
        }
    }

    /// The largest entry of a factor.
    pub(crate) fn largest_operation(&self, l: usize) -> Result<Operation> {
        let (first, size) = (self.places[l], self.factor_size(l));
        let (place, chunks) = (self.largest_places[l], size.div_ceil(CHUNK));
        let b = &self.buffers;
        Ok(Operation {
            text: OperationText {
                label: "largest",
                body: body(&fill(nneinfact_shaders::JOINT_LARGEST, &[], &[])?),
                seen: vec![
                    self.seen(b.factors, Access::Read),
                    self.seen(b.largest, Access::ReadWrite),
                ],
            },
            head: [1, 1],
            words: [first, size, place, chunks].map(|n| n as u32).to_vec(),
            elements: None,
            turns: self.turns(size, 1) + LANES_TURNS,
            reaches: Reaches::new(
                vec![Reach::new(b.factors, first, size)],
                vec![Reach::new(b.largest, place, chunks)],
            ),
            elementwise: Elementwise::No,
            repeatable: true,
        })
    }

    /// Adds the losses of so many workgroups to those of a slot: an operation for each role.
    pub(crate) fn losses_operations(&self, losses: usize, to: usize) -> Vec<Operation> {
        let lanes = self.limits.most_threads(256) as usize / LOSS_SUMS;
        let b = &self.buffers;
        let role = |role: usize| Operation {
            text: OperationText {
                label: "losses",
                body: body(nneinfact_shaders::JOINT_SUM_LOSSES),
                seen: vec![
                    self.seen(b.losses, Access::Read),
                    self.seen(b.results, Access::ReadWrite),
                ],
            },
            head: [1, 1],
            words: [losses, to, role, lanes].map(|n| n as u32).to_vec(),
            elements: None,
            turns: losses.div_ceil(lanes * LOSS_SUMS) + LANES_TURNS,
            reaches: Reaches::new(
                vec![Reach::new(b.losses, 0, 3 * losses)],
                vec![Reach::new(b.results, to + role * LOSS_SUMS, LOSS_SUMS)],
            ),
            elementwise: Elementwise::No,
            repeatable: false,
        };
        (0..3).map(role).collect()
    }

    /// Sets words to 0.
    pub(crate) fn clear_operation(
        &self,
        buffer: BufferId,
        first: usize,
        count: usize,
    ) -> Result<Operation> {
        let out = self.seen(buffer, Access::ReadWrite);
        Ok(Operation {
            text: OperationText {
                label: "clear",
                body: body(&fill(
                    nneinfact_shaders::JOINT_CLEAR,
                    &[],
                    &[("out", out.name.clone())],
                )?),
                seen: vec![out],
            },
            head: [1, 1],
            words: [first, count, 0, 0].map(|n| n as u32).to_vec(),
            elements: Some(count),
            turns: self.turns(count, 1),
            reaches: Reaches::new(Vec::new(), vec![Reach::new(buffer, first, count)]),
            elementwise: Elementwise::No,
            repeatable: true,
        })
    }

    /// Copies so many words from the beginning of one buffer to that of another.
    pub(crate) fn copy_operation(
        &self,
        from: BufferId,
        to: BufferId,
        count: usize,
    ) -> Result<Operation> {
        let (a, out) = (self.seen(from, Access::Read), self.seen(to, Access::ReadWrite));
        let words = [("a", a.name.clone()), ("out", out.name.clone())];
        Ok(Operation {
            text: OperationText {
                label: "copy",
                body: body(&fill(nneinfact_shaders::JOINT_COPY, &[], &words)?),
                seen: vec![a, out],
            },
            head: [1, 1],
            words: [0, count, 0, 0].map(|n| n as u32).to_vec(),
            elements: Some(count),
            turns: self.turns(count, 1),
            reaches: Reaches::new(vec![Reach::new(from, 0, count)], vec![Reach::new(to, 0, count)]),
            elementwise: Elementwise::No,
            repeatable: false,
        })
    }

    /// What `gather.wgsl` does, in so many threads; `text` is its body, whose index is that buffer, and
    /// `words` are its uniforms.
    pub(crate) fn gather_operation(
        &self,
        text: &str,
        (index, name): (BufferId, String),
        words: [u32; 8],
        threads: usize,
        to_rows: bool,
    ) -> Operation {
        let b = &self.buffers;
        let index = Seen { name, element: Element::Word, ..self.seen(index, Access::Read) };
        let partial = match to_rows {
            true => Access::Read,
            false => Access::ReadWrite,
        };
        let mut seen = vec![self.seen(b.partial, partial), index];
        let mut reaches = Reaches::new(vec![Reach::whole(b.partial)], Vec::new());
        if to_rows {
            seen.push(self.seen(b.sums, Access::ReadWrite));
            reaches.writes.push(Reach::whole(b.sums));
        } else {
            reaches.writes.push(Reach::whole(b.partial));
        }
        Operation {
            text: OperationText { label: "gather", body: body(text), seen },
            head: [1, 1],
            words: words.to_vec(),
            elements: Some(threads),
            turns: self.turns(threads, 8),
            reaches,
            elementwise: Elementwise::No,
            repeatable: false,
        }
    }

    /// The name that the text of an operation has for a buffer.
    pub(crate) fn name_in_operations(&self, buffer: BufferId) -> String {
        self.seen(buffer, Access::Read).name
    }
}
