//! Lists in `.npz` files of which a process reads its part: matrices of scipy, and coordinates with names.

use std::ops::Range;
use std::path::Path;

use super::named_tensor::{NamedTensor, TensorRecord, arrangement, lengths};
use nneinfact_core::data::{CooBuilder, CooTensor, Labels, Observations, Part};
use nneinfact_core::error::{Error, Result};
use nneinfact_fit::io::{self, ArrayInfo, NpzRun};
use nneinfact_table::{Keep, ScipyArrays, SparseMatrix, SparsePart};

/// [`read_scipy`](super::read_scipy) of some rows or columns: `keep` says which, given the shape. The matrix
/// has as many rows or columns as the range, or one where that is empty. Gives the shape of the whole
/// matrix too.
///
/// Memory holds the part, and of `csr` and `csc` where their rows or columns begin. Of rows of `csr`, and columns
/// of `csc`, no others are read where the file is not compressed; else all entries are gone through, and those
/// of the part kept.
///
/// # Errors
/// As [`read_scipy`](super::read_scipy); a part may have no entries.
pub fn read_scipy_part(
    path: impl AsRef<Path>,
    keep: &Keep<'_>,
) -> Result<Option<(SparseMatrix, [usize; 2])>> {
    let path = path.as_ref();
    let found = io::npz_names(path)?;
    if !is_scipy(&found) {
        return Ok(None);
    }
    let format = io::read_npz_strings(path, "format")?.and_then(|texts| texts.into_iter().next());
    let format = format.unwrap_or_default();
    let wrong = |reason: String| {
        let what = "the arrays are not those of a sparse matrix of scipy";
        Error::format(path, format!("{what}: {reason}"))
    };
    let about = |e: Error| match e {
        Error::Unsupported(why) => Error::Unsupported(format!("{}: {why}", path.display())),
        Error::Setting(why) => Error::format(path, why),
        e => e,
    };
    let shape: Vec<usize> = whole_numbers(path, "shape")?;
    let &[rows, columns] = shape.as_slice() else {
        return Err(wrong(format!("the shape is {shape:?}, not that of a matrix")));
    };
    let (axis, range) = keep([rows, columns]);
    let part = SparsePart::new([rows, columns], axis, range.clone()).map_err(about)?;
    let mut list = List { path, found: &found, part };
    match format.as_str() {
        // A process without a part has nothing to read.
        "csr" | "csc" | "coo" if range.is_empty() => {}
        "coo" => list.coordinates()?,
        "csr" | "csc" => {
            let along = usize::from(format == "csc");
            let own = if axis == along { range } else { 0..[rows, columns][along] };
            list.compressed(along, [rows, columns][along], own)?;
        }
        // Which says what can be done.
        _ => {
            let arrays = ScipyArrays { format: &format, shape: &[1, 1], ..ScipyArrays::default() };
            arrays.matrix().map_err(about)?;
        }
    }
    Ok(Some((list.part.finish().map_err(about)?, [rows, columns])))
}

/// Whether an `.npz` with these arrays is one of scipy's matrices.
pub fn is_scipy(found: &[ArrayInfo]) -> bool {
    ["format", "shape", "data"].iter().all(|name| found.iter().any(|info| info.name == *name))
}

/// Whether an `.npz` with these arrays is a list of coordinates.
pub fn is_coordinates(found: &[ArrayInfo]) -> bool {
    ["coords", "values"].iter().all(|name| found.iter().any(|info| info.name == *name))
}

/// A matrix of scipy of which a part is read.
struct List<'a> {
    path: &'a Path,
    found: &'a [ArrayInfo],
    part: SparsePart,
}

impl List<'_> {
    fn wrong(&self, reason: &str) -> Error {
        let what = "the arrays are not those of a sparse matrix of scipy";
        Error::format(self.path, format!("{what}: {reason}"))
    }

    /// The length of these lists, all of which have it.
    fn length(&self, names: &[&str]) -> Result<usize> {
        let lengths: Vec<Option<usize>> = names
            .iter()
            .map(|name| {
                let info = self.found.iter().find(|info| info.name == *name)?;
                if let [length] = info.shape[..] { Some(length) } else { None }
            })
            .collect();
        match lengths[..] {
            [Some(length), ..] if lengths.iter().all(|other| *other == Some(length)) => Ok(length),
            _ => Err(self.wrong(&format!("{} differ in length", names.join(", ")))),
        }
    }

    /// Adds entries in the order in which they lie in the file: numbers of lists, the last of which has the
    /// values. `place` tells row and column of an entry, from its number and what the other lists have of it.
    fn entries(
        &mut self,
        names: &[&str],
        own: Range<usize>,
        place: &mut dyn FnMut(usize, &[u64]) -> [u64; 2],
    ) -> Result<()> {
        let List { path, part, .. } = self;
        let runs: Vec<NpzRun<'_>> =
            names.iter().map(|&name| NpzRun { name, first: own.start, width: 1 }).collect();
        let mut number = own.start;
        let mut index = vec![0; names.len() - 1];
        io::read_npz_runs(*path, &runs, own.len(), &mut |blocks| {
            let Some((values, lists)) = blocks.split_last() else { return Ok(()) };
            for (i, &value) in values.iter().enumerate() {
                for (to, list) in index.iter_mut().zip(lists) {
                    *to = counted(list[i]).map_err(|why| Error::format(*path, why))?;
                }
                let [row, column] = place(number, &index);
                part.push(row, column, value).map_err(|e| Error::format(*path, e.to_string()))?;
                number += 1;
            }
            Ok(())
        })
    }

    fn coordinates(&mut self) -> Result<()> {
        let names = ["row", "col", "data"];
        let all = 0..self.length(&names)?;
        self.entries(&names, all, &mut |_, index| [index[0], index[1]])
    }

    /// Entries by rows (`along` 0) or by columns, of which there are so many: those of the ones in `own`.
    fn compressed(&mut self, along: usize, lines: usize, own: Range<usize>) -> Result<()> {
        let names = ["indices", "data"];
        let stored = self.length(&names)?;
        let starts = whole_numbers(self.path, "indptr")?;
        let whole = starts.first() == Some(&0)
            && starts.last() == Some(&stored)
            && starts.len() == lines + 1
            && starts.is_sorted();
        if !whole {
            return Err(self.wrong(
                "indptr does not rise from 0 to the number of values, once for each row or column",
            ));
        }
        let mut line = own.start;
        self.entries(&names, starts[own.start]..starts[own.end], &mut |number, index| {
            while starts[line + 1] <= number {
                line += 1;
            }
            match along {
                0 => [line as u64, index[0]],
                _ => [index[0], line as u64],
            }
        })
    }
}

/// An array of whole numbers that count something.
fn whole_numbers(path: &Path, name: &str) -> Result<Vec<usize>> {
    let numbers = io::read_npz(path, Some(name))?;
    let number = |x: f64| Ok(counted(x).map_err(|why| Error::format(path, why))? as usize);
    numbers.iter().map(number).collect()
}

fn counted(x: f64) -> Result<u64, String> {
    // Beyond 2⁵³ not all whole numbers are there.
    match (0.0..9_007_199_254_740_992.0).contains(&x) && x.fract() == 0.0 {
        true => Ok(x as u64),
        false => Err(format!("an array holds {x}, but whole numbers from 0 on are expected")),
    }
}

/// What a process keeps of a tensor, from its shape: along which mode, and which indices.
pub type KeepPart<'a> = dyn Fn(&[usize]) -> (usize, Range<usize>) + 'a;

impl NamedTensor {
    /// [`load`](NamedTensor::load) of some indices of a mode, which `keep` says given the shape: all entries are
    /// gone through, and those of the part kept. The modes are in the order of `letters`, as
    /// [`arranged`](NamedTensor::arranged) puts them. Labels are those of the part. Where the range is empty the
    /// mode has one index.
    ///
    /// # Errors
    /// As [`load`](NamedTensor::load) and [`arranged`](NamedTensor::arranged).
    pub fn load_part(
        path: impl AsRef<Path>,
        letters: Option<&[char]>,
        keep: &KeepPart<'_>,
    ) -> Result<Option<(NamedTensor, Part)>> {
        let path = path.as_ref();
        let found = io::npz_names(path)?;
        if !is_coordinates(&found) {
            return Ok(None);
        }
        let shape_of = |name: &str| {
            found.iter().find(|info| info.name == name).map_or(&[][..], |info| &info.shape)
        };
        let values = shape_of("values").iter().product();
        let [modes, entries] = lengths(path, shape_of("coords"), values)?;
        let record = TensorRecord::read(path, &found, modes)?;
        let own: Vec<Option<char>> = record.modes.iter().map(|mode| mode.letter).collect();
        let order = match letters.filter(|_| own.iter().any(Option::is_some)) {
            Some(letters) => arrangement(&own, letters)?,
            None => (0..modes).collect(),
        };
        let coordinates = Coordinates { path, entries, order: &order };
        let shape = match found.iter().any(|info| info.name == "shape") {
            true => coordinates.shape(&whole_numbers(path, "shape")?)?,
            false => coordinates.largest()?.into_iter().map(|most| most as usize + 1).collect(),
        };
        if let Some(mode) = shape.iter().position(|&n| n == 0) {
            return Err(Error::format(path, format!("mode {} has the length 0", mode + 1)));
        }
        let (mode, range) = keep(&shape);
        let whole = shape.get(mode).copied().unwrap_or(0);
        if range.start > range.end || range.end > whole {
            return Err(Error::Setting(format!(
                "{range:?} along mode {} is no part of the shape {shape:?}",
                mode + 1
            )));
        }
        let part = Part { mode, range, whole };
        let mut observations = Observations::new(coordinates.part(&shape, &part)?);
        if record.unlisted_missing {
            observations = observations.unlisted_missing();
        }
        let labels = record.labels(path)?;
        if !labels.iter().all(Labels::is_empty) {
            let mut labels: Vec<Labels> = order.iter().map(|&mode| labels[mode].clone()).collect();
            if let Some(all) = labels.get(mode).and_then(Labels::indices)
                && all.len() != whole
            {
                return Err(Error::format(
                    path,
                    format!(
                        "there are {} labels for the {whole} indices of mode {}",
                        all.len(),
                        mode + 1
                    ),
                ));
            }
            labels[mode] = labels_of_part(&labels[mode], &part);
            let labelled = observations.with_labels(labels);
            observations = labelled.map_err(|e| Error::format(path, e.to_string()))?;
        }
        let letters = order.iter().map(|&mode| own[mode]).collect();
        Ok(Some((NamedTensor { observations, letters }, part)))
    }
}

/// The labels of the indices of a part; of none that of the first, as no mode has none.
pub fn labels_of_part(labels: &Labels, part: &Part) -> Labels {
    let Some(all) = labels.indices() else { return labels.clone() };
    let range = if part.range.is_empty() { 0..1 } else { part.range.clone() };
    let own = all.get(range).unwrap_or_default();
    let own = Labels::new(own.iter().cloned()).with_kind(labels.kind().clone());
    match labels.name() {
        Some(name) => own.with_name(name),
        None => own,
    }
}

/// The arrays `coords` (modes × entries) and `values` of an archive.
struct Coordinates<'a> {
    path: &'a Path,
    entries: usize,
    /// Which of the file's modes each one is.
    order: &'a [usize],
}

impl Coordinates<'_> {
    /// That of the file, with the modes in their order.
    fn shape(&self, given: &[usize]) -> Result<Vec<usize>> {
        match given.len() == self.order.len() {
            true => Ok(self.order.iter().map(|&mode| given[mode]).collect()),
            false => Err(Error::format(
                self.path,
                format!("shape has {} modes, and coords has {}", given.len(), self.order.len()),
            )),
        }
    }

    /// Goes through all entries, with the index of each and, where `values` are read, its value.
    fn each(&self, values: bool, entry: &mut dyn FnMut(&[u64], f64) -> Result<()>) -> Result<()> {
        let modes = self.order.len();
        // In Fortran order the indices of an entry stand together.
        let by_entry = io::npz_extent(self.path, Some("coords"))?.slowest == 1;
        let run = |name, first, width| NpzRun { name, first, width };
        let mut runs = match by_entry {
            true => vec![run("coords", 0, modes)],
            false => self.order.iter().map(|&mode| run("coords", mode * self.entries, 1)).collect(),
        };
        runs.extend(values.then(|| run("values", 0, 1)));
        let mut index = vec![0; modes];
        io::read_npz_runs(self.path, &runs, self.entries, &mut |blocks| {
            let steps = blocks.first().map_or(0, |block| block.len() / runs[0].width);
            for i in 0..steps {
                for (mode, to) in index.iter_mut().enumerate() {
                    let x = match by_entry {
                        true => blocks[0][i * modes + self.order[mode]],
                        false => blocks[mode][i],
                    };
                    *to = counted(x).map_err(|why| Error::format(self.path, why))?;
                }
                let value = blocks.last().filter(|_| values).map_or(0.0, |block| block[i]);
                entry(&index, value)?;
            }
            Ok(())
        })
    }

    /// The largest index along each mode.
    fn largest(&self) -> Result<Vec<u64>> {
        let mut largest = vec![0; self.order.len()];
        self.each(false, &mut |index, _| {
            largest.iter_mut().zip(index).for_each(|(most, &i)| *most = i.max(*most));
            Ok(())
        })?;
        Ok(largest)
    }

    /// The entries of a part.
    fn part(&self, shape: &[usize], part: &Part) -> Result<CooTensor> {
        let mut own = shape.to_vec();
        if let Some(length) = own.get_mut(part.mode) {
            *length = part.range.len().max(1);
        }
        let mut builder = CooBuilder::new(shape.len());
        let mut local = vec![0; shape.len()];
        let mut keep = |index: &[u64], value: f64| -> Result<()> {
            let outside = |(&i, &n): (&u64, &usize)| i >= n as u64;
            if let Some(mode) = index.iter().zip(shape).position(outside) {
                return Err(Error::format(
                    self.path,
                    format!(
                        "coords holds the index {} (counted from 0) along a mode of {} indices",
                        index[mode], shape[mode]
                    ),
                ));
            }
            if part.range.contains(&(index[part.mode] as usize)) {
                local.copy_from_slice(index);
                local[part.mode] -= part.range.start as u64;
                builder.push(&local, value)?;
            }
            Ok(())
        };
        if !part.range.is_empty() {
            self.each(true, &mut keep)?;
        }
        builder.finish(Some(&own)).map_err(|e| match e {
            Error::Shape { .. } => Error::format(self.path, e.to_string()),
            e => e,
        })
    }
}
