//! What a workgroup does among others, as plain data.

use std::ops::Range;

use crate::program::recording::{Access, BufferId};

/// Words of a buffer that an operation reads or writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reach {
    pub buffer: BufferId,
    pub words: Range<usize>,
}

impl Reach {
    /// So many words from one on.
    pub fn new(buffer: BufferId, first: usize, count: usize) -> Reach {
        Reach { buffer, words: first..first + count }
    }

    /// All of a buffer, however long it becomes.
    pub fn whole(buffer: BufferId) -> Reach {
        Reach { buffer, words: 0..usize::MAX }
    }

    fn meets(&self, other: &Reach) -> bool {
        self.buffer == other.buffer
            && self.words.start < other.words.end
            && other.words.start < self.words.end
    }
}

/// What is read and what is written.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Reaches {
    pub reads: Vec<Reach>,
    pub writes: Vec<Reach>,
}

impl Reaches {
    pub fn new(reads: Vec<Reach>, writes: Vec<Reach>) -> Reaches {
        Reaches { reads, writes }
    }

    /// Whether one has to come after the other: one writes what the other reads or writes.
    pub fn meets(&self, other: &Reaches) -> bool {
        let any = |a: &[Reach], b: &[Reach]| a.iter().any(|x| b.iter().any(|y| x.meets(y)));
        any(&self.writes, &other.writes)
            || any(&self.writes, &other.reads)
            || any(&self.reads, &other.writes)
    }

    /// As [`meets`](Self::meets), this buffer left out.
    pub fn meets_outside(&self, other: &Reaches, buffer: BufferId) -> bool {
        let rest = |all: &Reaches| {
            let of = |reaches: &[Reach]| {
                reaches.iter().filter(|r| r.buffer != buffer).cloned().collect::<Vec<_>>()
            };
            Reaches { reads: of(&all.reads), writes: of(&all.writes) }
        };
        rest(self).meets(&rest(other))
    }

    pub fn extend(&mut self, other: &Reaches) {
        self.reads.extend(other.reads.iter().cloned());
        self.writes.extend(other.writes.iter().cloned());
    }
}

/// What the words of a buffer are to a shader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Element {
    Float,
    Word,
    /// Words that several workgroups write at once.
    Atomic,
    /// One vector of uniforms.
    Uniform,
}

/// A buffer that an operation sees.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Seen {
    /// Its name in the text.
    pub name: String,
    pub buffer: BufferId,
    pub element: Element,
    pub access: Access,
}

/// The text of an operation: the body of a function, the same for operations that differ in sizes alone.
/// It reads the vectors of the operation as `uniforms[…]`, its lanes and halves as `head.z` and
/// `head.w`, and does the elements from `first` to `end`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct OperationText {
    /// For people.
    pub label: &'static str,
    pub body: String,
    pub seen: Vec<Seen>,
}

/// How elements of one operation belong to those of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Elementwise {
    /// Every element is by itself, or reads what is not written.
    No,
    /// Element i writes the element i of this buffer, of each of its halves.
    Leaves(BufferId),
    /// Element i reads, and may write, the element i of this buffer, of each of its halves.
    Takes(BufferId),
}

/// An operation on small tensors.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Operation {
    pub text: OperationText,
    /// Threads that share an output, and tensors of the same sizes that are done.
    pub head: [u32; 2],
    /// Its vectors of uniforms.
    pub words: Vec<u32>,
    /// What may be shared out among workgroups; `None` where one does all of it.
    pub elements: Option<usize>,
    /// The most that a thread does one after another, in reads of memory, where one workgroup does all.
    pub turns: usize,
    pub reaches: Reaches,
    pub elementwise: Elementwise,
    /// Whether doing it again, nothing having changed, changes nothing.
    pub repeatable: bool,
}

impl Operation {
    /// Vectors of four words that it takes in a program, with its head.
    pub fn vectors(&self) -> usize {
        1 + self.words.len() / 4
    }

    /// Whether it does the same as another one.
    pub fn repeats(&self, other: &Operation) -> bool {
        self.repeatable
            && self.text == other.text
            && self.head == other.head
            && self.words == other.words
    }
}
