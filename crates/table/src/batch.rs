//! Some rows at a time, as they are handed from those who read them to those who use them.

/// Some rows, one after the other in one piece of memory.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// The cells' texts; of each row from where it begins.
    texts: Vec<u8>,
    /// Where the cells end, counted from the beginning of their row.
    ends: Vec<usize>,
    rows: Vec<Extent>,
}

/// Where a row of a batch ends, and so the next begins.
#[derive(Clone, Copy, Debug, Default)]
struct Extent {
    texts: usize,
    ends: usize,
    place: RowPlace,
}

/// Where a row is in its file, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RowPlace {
    /// The line that it begins on.
    Line(u64),
    /// Its number, where there are no lines.
    #[cfg(feature = "parquet")]
    Row(u64),
}

impl Default for RowPlace {
    fn default() -> RowPlace {
        RowPlace::Line(1)
    }
}

/// One row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row<'a> {
    texts: &'a [u8],
    ends: &'a [usize],
    place: RowPlace,
}

impl<'a> Row<'a> {
    /// How many cells it has.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// A cell; empty where there is none.
    #[inline]
    pub fn cell(&self, i: usize) -> &'a [u8] {
        let Some(&end) = self.ends.get(i) else { return &[] };
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        &self.texts[start..end]
    }

    /// All cells.
    pub fn cells(&self) -> impl ExactSizeIterator<Item = &'a [u8]> {
        (0..self.len()).map(|i| self.cell(i))
    }

    /// Where it is, for messages.
    pub fn place(&self) -> String {
        match self.place {
            RowPlace::Line(line) => format!("line {line}"),
            #[cfg(feature = "parquet")]
            RowPlace::Row(row) => format!("row {row}"),
        }
    }
}

impl Batch {
    /// Without rows; the memory is kept for others.
    pub fn clear(&mut self) {
        self.rows.clear();
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// A row; one without cells where there is none.
    #[inline]
    pub fn row(&self, i: usize) -> Row<'_> {
        let Some(&end) = self.rows.get(i) else {
            return Row { texts: &[], ends: &[], place: RowPlace::default() };
        };
        let start = if i == 0 { Extent::default() } else { self.rows[i - 1] };
        Row {
            texts: &self.texts[start.texts..end.texts],
            ends: &self.ends[start.ends..end.ends],
            place: end.place,
        }
    }

    fn last(&self) -> Extent {
        self.rows.last().copied().unwrap_or_default()
    }

    /// The room behind all rows and behind so many bytes and cells of the next one, for more bytes and the
    /// ends of more cells.
    pub fn room(&mut self, written: usize, cells: usize) -> (&mut [u8], &mut [usize]) {
        let last = self.last();
        (
            self.texts.get_mut(last.texts + written..).unwrap_or_default(),
            self.ends.get_mut(last.ends + cells..).unwrap_or_default(),
        )
    }

    /// Makes more room.
    pub fn grow(&mut self) {
        self.texts.resize((2 * self.texts.len()).max(1 << 12), 0);
        self.ends.resize((2 * self.ends.len()).max(1 << 9), 0);
    }

    /// Keeps what was written into the room as a row, so many bytes and cells.
    pub fn keep(&mut self, written: usize, cells: usize, place: RowPlace) {
        let last = self.last();
        self.rows.push(Extent { texts: last.texts + written, ends: last.ends + cells, place });
    }
}

/// Rows that are put together cell by cell.
#[cfg(feature = "parquet")]
impl Batch {
    /// Adds a row of these cells.
    pub fn push<'c>(&mut self, cells: impl Iterator<Item = &'c [u8]>, place: RowPlace) {
        let (mut written, mut count) = (0, 0);
        for cell in cells {
            loop {
                let (texts, ends) = self.room(written, count);
                if texts.len() >= cell.len() && !ends.is_empty() {
                    texts[..cell.len()].copy_from_slice(cell);
                    ends[0] = written + cell.len();
                    break;
                }
                self.grow();
            }
            written += cell.len();
            count += 1;
        }
        self.keep(written, count, place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_what_was_kept() {
        let mut batch = Batch::default();
        let cells = |i: usize| -> Vec<Vec<u8>> {
            (0..i % 4).map(|k| vec![b'a' + k as u8; (7 * i + k) % 50]).collect()
        };
        for round in 0..2 {
            batch.clear();
            for i in 0..3000 + round {
                let (mut written, mut count) = (0, 0);
                for cell in cells(i) {
                    while batch.room(written, count).0.len() < cell.len()
                        || batch.room(written, count).1.is_empty()
                    {
                        batch.grow();
                    }
                    let (texts, ends) = batch.room(written, count);
                    texts[..cell.len()].copy_from_slice(&cell);
                    written += cell.len();
                    ends[0] = written;
                    count += 1;
                }
                batch.keep(written, count, RowPlace::Line(i as u64));
            }
            assert_eq!(batch.len(), 3000 + round);
            for i in 0..batch.len() {
                assert!(batch.row(i).cells().eq(cells(i)), "{i}");
                assert_eq!(batch.row(i).place(), format!("line {i}"));
            }
        }
        assert_eq!((batch.row(9000).len(), batch.row(9000).cell(2)), (0, &[][..]));
    }
}
