//! What goes with the data in files of its own, of all of them or of the part that a process has.

use std::ops::Range;
use std::path::Path;

use ndarray::ArrayD;

use nneinfact_core::data::{CooTensor, Dense, Part};
use nneinfact_core::error::{Error, Result};
use nneinfact_fit::io::{self, FileKind, TnsOptions};
use nneinfact_table as table;

/// Reads coordinates as text, packed or not.
pub fn read_tns(path: &Path, options: &TnsOptions<'_>) -> Result<CooTensor> {
    match path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gz")) {
        true => io::read_tns_from_with(table::open_unpacked(path)?, path, options),
        false => io::read_tns_with(path, options),
    }
}

/// Reads what goes with the data: of all of them, or of the part that a process has.
pub struct PartFiles<'a>(pub Option<&'a Part>);

impl PartFiles<'_> {
    /// A mask, into memory or left in its file.
    pub fn mask(&self, path: &Path) -> Result<ArrayD<bool>> {
        match self.0 {
            None => io::read_bool(path),
            Some(part) => io::read_bool_part(path, self.range(path, part)?),
        }
    }

    /// A mask that stays in its file.
    pub fn mapped_mask(&self, path: &Path) -> Result<Dense> {
        match self.0 {
            None => io::map_bool(path),
            Some(part) => io::map_bool_part(path, self.range(path, part)?),
        }
    }

    /// Weights; `streamed` where the data stay in their file.
    pub fn weights(&self, path: &Path, streamed: bool) -> Result<Dense> {
        match (FileKind::of(path)?, self.0) {
            (FileKind::Npy, None) if streamed => io::map_npy(path),
            (_, None) => io::read_dense(path, None),
            (FileKind::Npy, Some(part)) if streamed => {
                io::map_npy_part(path, self.range(path, part)?)
            }
            (FileKind::Npy, Some(part)) => io::read_npy_part(path, self.range(path, part)?),
            (FileKind::Npz | FileKind::Tns, Some(_)) => Err(Error::format(
                path,
                "several processes read weights from a .npy, of which each reads its part",
            )),
        }
    }

    /// The places of entries that have a role.
    pub fn coordinates(&self, path: &Path, own: &[usize], zero_based: bool) -> Result<CooTensor> {
        let shape = self.0.map_or_else(|| own.to_vec(), |part| part.shape(own));
        let options = TnsOptions { shape: Some(&shape), zero_based, value_optional: true };
        let list = read_tns(path, &options)?;
        match self.0 {
            None => Ok(list),
            Some(part) => list.into_part(part.mode, part.range.clone()),
        }
    }

    /// The range of a part in a file that goes with the data: along the mode that is slowest there.
    fn range(&self, path: &Path, part: &Part) -> Result<Range<usize>> {
        let extent = io::npy_extent(path)?;
        let length = extent.shape.get(part.mode).copied();
        if length != Some(part.whole) {
            return Err(Error::format(
                path,
                format!(
                    "its shape is {:?}, which is not that of the data: mode {} has {} indices there",
                    extent.shape,
                    part.mode + 1,
                    part.whole
                ),
            ));
        }
        if extent.slowest != part.mode {
            return Err(Error::format(
                path,
                format!(
                    "several processes read it in parts along mode {}, but it lies along mode {} in its \
                     file: save it in the same order of memory as the data",
                    part.mode + 1,
                    extent.slowest + 1
                ),
            ));
        }
        Ok(part.range.clone())
    }
}

/// The shape of a part: at least one index, as no tensor has none. A process without slabs has one index,
/// and nothing there.
pub fn part_shape(shape: &[usize], part: &Part) -> Vec<usize> {
    let mut shape = shape.to_vec();
    shape[part.mode] = part.range.len().max(1);
    shape
}
