//! From what was read to the data of a fit.

use nneinfact_core::data::{Column, CooTensor, Labels, Observations};

use crate::coo::{Axis, SparseMatrix};
use crate::error::Result;
use crate::tensor::{Implicit, Mode, TableTensor};

impl TableTensor {
    /// The tensor as the data of a fit, with its labels.
    ///
    /// ```
    /// use nneinfact_table::Table;
    ///
    /// let rides = "who,hour\nann,7\nbob,8\nann,8\n";
    /// let data = Table::from_reader(rides.as_bytes(), "rides.csv").modes("who,hour")?.read()?;
    /// let data = data.observations()?;
    /// assert_eq!(data.shape(), [2, 2]);
    /// assert_eq!(data.labels()[0].index_of("bob"), Some(1));
    /// # Ok::<(), nneinfact_table::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) where coordinates or modes were changed so that they do
    /// not go together.
    pub fn observations(&self) -> Result<Observations> {
        let coords: Vec<&[u32]> = self.coords.iter().map(Vec::as_slice).collect();
        let data = Observations::new(coo(&self.shape(), &coords, &self.values)?);
        let data = match self.implicit {
            Implicit::Zero => data,
            Implicit::Missing => data.unlisted_missing(),
        };
        data.with_labels(self.labels())
    }

    /// What the modes and their indices are called.
    #[must_use]
    pub fn labels(&self) -> Vec<Labels> {
        self.modes.iter().map(Mode::to_labels).collect()
    }
}

impl Mode {
    /// What it and its indices are called.
    #[must_use]
    pub fn to_labels(&self) -> Labels {
        Labels::new(self.labels.iter().cloned()).with_name(&self.name).with_kind(self.kind.clone())
    }
}

impl SparseMatrix {
    /// The matrix as the data of a fit, with the names of its rows and columns.
    ///
    /// # Errors
    /// As [`TableTensor::observations`].
    pub fn observations(&self) -> Result<Observations> {
        let shape = [self.rows.len, self.columns.len];
        let coords: [&[u32]; 2] = [&self.coords[0], &self.coords[1]];
        let labels = vec![self.rows.to_labels(), self.columns.to_labels()];
        let data = Observations::new(coo(&shape, &coords, &self.values)?);
        // Nothing is known of most matrices.
        if labels.iter().all(Labels::is_empty) { Ok(data) } else { data.with_labels(labels) }
    }
}

impl Axis {
    /// What it and its indices are called.
    #[must_use]
    pub fn to_labels(&self) -> Labels {
        let labels = self
            .labels
            .as_ref()
            .map_or_else(Labels::default, |all| Labels::new(all.iter().cloned()));
        match &self.name {
            Some(name) => labels.with_name(name),
            None => labels,
        }
    }
}

fn coo(shape: &[usize], coords: &[&[u32]], values: &[f64]) -> Result<CooTensor> {
    let columns: Vec<Column<'_>> = coords.iter().map(|&list| Column::U32(list)).collect();
    CooTensor::from_columns(Some(shape), &columns, values)
}
