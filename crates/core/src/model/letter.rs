//! Letters and sets of letters.

use std::fmt;

/// One index of a model: a letter `A`–`Z` or `a`–`z`. Case matters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Letter(u8);

impl Letter {
    /// The letter written `c`, or `None` where `c` is not one of `A`–`Z`, `a`–`z`.
    ///
    /// ```
    /// use nneinfact::model::Letter;
    /// assert_eq!(Letter::new('r').map(char::from), Some('r'));
    /// assert_eq!(Letter::new('é'), None);
    /// ```
    #[must_use]
    pub fn new(c: char) -> Option<Self> {
        match c {
            'A'..='Z' => Some(Letter(c as u8 - b'A')),
            'a'..='z' => Some(Letter(c as u8 - b'a' + 26)),
            _ => None,
        }
    }

    /// A number under 52, in the order `A`–`Z`, `a`–`z`.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl From<Letter> for char {
    fn from(letter: Letter) -> char {
        if letter.0 < 26 { char::from(b'A' + letter.0) } else { char::from(b'a' + letter.0 - 26) }
    }
}

impl fmt::Display for Letter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", char::from(*self))
    }
}

impl fmt::Debug for Letter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", char::from(*self))
    }
}

/// A set of letters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Letters(u64);

impl Letters {
    /// The empty set.
    pub const EMPTY: Letters = Letters(0);

    /// Whether the set holds `letter`.
    #[must_use]
    pub fn contains(self, letter: Letter) -> bool {
        self.0 >> letter.0 & 1 == 1
    }
    /// Whether every letter of `other` is in this set.
    #[must_use]
    pub fn contains_all(self, other: Letters) -> bool {
        other.0 & !self.0 == 0
    }
    /// Whether the two sets share a letter.
    #[must_use]
    pub fn intersects(self, other: Letters) -> bool {
        self.0 & other.0 != 0
    }
    /// Adds a letter.
    pub fn insert(&mut self, letter: Letter) {
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
    pub fn iter(self) -> impl Iterator<Item = Letter> {
        (0..52).filter(move |i| self.0 >> i & 1 == 1).map(Letter)
    }
}

impl std::ops::BitOr for Letters {
    type Output = Letters;
    fn bitor(self, other: Letters) -> Letters {
        Letters(self.0 | other.0)
    }
}

impl std::ops::BitAnd for Letters {
    type Output = Letters;
    fn bitand(self, other: Letters) -> Letters {
        Letters(self.0 & other.0)
    }
}

impl std::ops::Sub for Letters {
    type Output = Letters;
    fn sub(self, other: Letters) -> Letters {
        Letters(self.0 & !other.0)
    }
}

impl FromIterator<Letter> for Letters {
    fn from_iter<I: IntoIterator<Item = Letter>>(letters: I) -> Letters {
        let mut set = Letters::EMPTY;
        for letter in letters {
            set.insert(letter);
        }
        set
    }
}

impl<'a> FromIterator<&'a Letter> for Letters {
    fn from_iter<I: IntoIterator<Item = &'a Letter>>(letters: I) -> Letters {
        letters.into_iter().copied().collect()
    }
}

impl fmt::Debug for Letters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{")?;
        for letter in self.iter() {
            write!(f, "{letter}")?;
        }
        write!(f, "}}")
    }
}
