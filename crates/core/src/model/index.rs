//! Letters and sets of letters.

use std::fmt;

/// One index of a model: a letter `A`–`Z` or `a`–`z`. Case matters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Index(u8);

impl Index {
    /// The letter written `c`, or `None` where `c` is not one of `A`–`Z`, `a`–`z`.
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
    fn from(letter: Index) -> char {
        if letter.0 < 26 { char::from(b'A' + letter.0) } else { char::from(b'a' + letter.0 - 26) }
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

/// A set of letters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct IndexSet(u64);

impl IndexSet {
    /// The empty set.
    pub const EMPTY: IndexSet = IndexSet(0);

    /// Whether the set holds `letter`.
    #[must_use]
    pub fn contains(self, letter: Index) -> bool {
        self.0 >> letter.0 & 1 == 1
    }
    /// Whether every letter of `other` is in this set.
    #[must_use]
    pub fn contains_all(self, other: IndexSet) -> bool {
        other.0 & !self.0 == 0
    }
    /// Whether the two sets share a letter.
    #[must_use]
    pub fn intersects(self, other: IndexSet) -> bool {
        self.0 & other.0 != 0
    }
    /// Adds a letter.
    pub fn insert(&mut self, letter: Index) {
        self.0 |= 1 << letter.0;
    }
    /// How many letters there are.
    #[must_use]
    pub fn len(self) -> usize {
        self.0.count_ones() as usize
    }
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
    /// The letters in the order `A`–`Z`, `a`–`z`.
    pub fn iter(self) -> impl Iterator<Item = Index> {
        (0..52).filter(move |i| self.0 >> i & 1 == 1).map(Index)
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
    fn from_iter<I: IntoIterator<Item = Index>>(letters: I) -> IndexSet {
        let mut set = IndexSet::EMPTY;
        for letter in letters {
            set.insert(letter);
        }
        set
    }
}

impl<'a> FromIterator<&'a Index> for IndexSet {
    fn from_iter<I: IntoIterator<Item = &'a Index>>(letters: I) -> IndexSet {
        letters.into_iter().copied().collect()
    }
}

impl fmt::Debug for IndexSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{")?;
        for letter in self.iter() {
            write!(f, "{letter}")?;
        }
        write!(f, "}}")
    }
}
