//! Indices and sets of indices.

use std::fmt;

/// One index of a model: a letter `A`–`Z` or `a`–`z`. Case matters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Index(u8);

impl Index {
    /// The index written `c`, or `None` where `c` is not one of `A`–`Z`, `a`–`z`.
    ///
    /// ```
    /// use nneinfact::model::Index;
    /// assert_eq!(Index::new('r').map(char::from), Some('r'));
    /// assert_eq!(Index::new('é'), None);
    /// ```
    #[must_use]
    pub fn new(c: char) -> Option<Self> {
        match c {
            'A'..='Z' => Some(Index(c as u8 - b'A')),
            'a'..='z' => Some(Index(c as u8 - b'a' + 26)),
            _ => None,
        }
    }

    /// A number under 52, in the order `A`–`Z`, `a`–`z`.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl From<Index> for char {
    fn from(index: Index) -> char {
        if index.0 < 26 { char::from(b'A' + index.0) } else { char::from(b'a' + index.0 - 26) }
    }
}

impl fmt::Display for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", char::from(*self))
    }
}

impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", char::from(*self))
    }
}

/// A set of indices.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct IndexSet(u64);

impl IndexSet {
    /// The empty set.
    pub const EMPTY: IndexSet = IndexSet(0);

    /// Whether the set holds `index`.
    #[must_use]
    pub fn contains(self, index: Index) -> bool {
        self.0 >> index.0 & 1 == 1
    }
    /// Whether every index of `other` is in this set.
    #[must_use]
    pub fn contains_all(self, other: IndexSet) -> bool {
        other.0 & !self.0 == 0
    }
    /// Whether the two sets share an index.
    #[must_use]
    pub fn intersects(self, other: IndexSet) -> bool {
        self.0 & other.0 != 0
    }
    /// Adds an index.
    pub fn insert(&mut self, index: Index) {
        self.0 |= 1 << index.0;
    }
    /// How many indices there are.
    #[must_use]
    pub fn len(self) -> usize {
        self.0.count_ones() as usize
    }
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
    /// The indices in the order `A`–`Z`, `a`–`z`.
    pub fn iter(self) -> impl Iterator<Item = Index> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let next = (rest != 0).then(|| Index(rest.trailing_zeros() as u8))?;
            rest &= rest - 1;
            Some(next)
        })
    }
}

impl std::ops::BitOr for IndexSet {
    type Output = IndexSet;
    fn bitor(self, other: IndexSet) -> IndexSet {
        IndexSet(self.0 | other.0)
    }
}

impl std::ops::BitAnd for IndexSet {
    type Output = IndexSet;
    fn bitand(self, other: IndexSet) -> IndexSet {
        IndexSet(self.0 & other.0)
    }
}

impl std::ops::Sub for IndexSet {
    type Output = IndexSet;
    fn sub(self, other: IndexSet) -> IndexSet {
        IndexSet(self.0 & !other.0)
    }
}

impl FromIterator<Index> for IndexSet {
    fn from_iter<I: IntoIterator<Item = Index>>(indices: I) -> IndexSet {
        let mut set = IndexSet::EMPTY;
        for index in indices {
            set.insert(index);
        }
        set
    }
}

impl<'a> FromIterator<&'a Index> for IndexSet {
    fn from_iter<I: IntoIterator<Item = &'a Index>>(indices: I) -> IndexSet {
        indices.into_iter().copied().collect()
    }
}

impl fmt::Debug for IndexSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{")?;
        for index in self.iter() {
            write!(f, "{index}")?;
        }
        write!(f, "}}")
    }
}
