//! Reads the part of the data that one of several processes has, without reading the rest.

use std::path::Path;

use super::part_files::{PartFiles, part_shape};
use super::processes::{Process, part, parts};
use super::read_data::{self, ReadData, ReadOptions};
use super::read_table::{self, DataKind};
use super::{complain, summary};
use crate::io::{
    NamedTensor, arrangement, is_coordinates, is_scipy, labels_of_part, read_scipy_part,
};
use nneinfact_core::data::{Column, CooTensor, Observations, Part};
use nneinfact_core::engine::collectives::together;
use nneinfact_core::error::{Error, Result};
use nneinfact_fit::DataRecord;
use nneinfact_fit::io::{self, FileKind, TnsOptions};
use nneinfact_table::{self as table, TableTensor};

/// Reads what this process has to have of the data: its part, or all where they are not read in parts.
/// All processes make this call; where one fails all do.
pub fn read(
    record: &DataRecord,
    options: ReadOptions<'_>,
    slabs: usize,
    process: &mut Process,
) -> Result<(ReadData, Option<Part>)> {
    let kind = together(process.reducer.as_mut(), kind_of(record, options))?;
    match kind {
        DataKind::File(FileKind::Npy) => npy(record, options, slabs, process),
        DataKind::File(FileKind::Tns) | DataKind::PackedTns => tns(record, options, slabs, process),
        DataKind::Table => tables(record, options, slabs, process),
        DataKind::MatrixMarket | DataKind::TenX => matrix(record, options, slabs, process),
        DataKind::File(FileKind::Npz) => match together(process.reducer.as_mut(), held(record))? {
            Held::Array => npz(record, slabs, process),
            Held::Matrix => matrix(record, options, slabs, process),
            Held::Coordinates => coordinates(record, options, slabs, process),
        },
    }
}

fn kind_of(record: &DataRecord, options: ReadOptions<'_>) -> Result<DataKind> {
    if read_table::is_standard_input(&record.path) {
        return Err(Error::Setting("several processes cannot read one standard input".into()));
    }
    let kind = DataKind::of(record)?;
    read_data::refuse_options(record, options, kind)?;
    Ok(kind)
}

/// A `.npy`, along its slowest mode.
fn npy(
    record: &DataRecord,
    options: ReadOptions<'_>,
    slabs: usize,
    process: &mut Process,
) -> Result<(ReadData, Option<Part>)> {
    let path = &record.path;
    let opened = || -> Result<(Observations, Part)> {
        let extent = io::npy_extent(path)?;
        let own = part(&extent.shape, Some(extent.slowest), slabs, process);
        let values = match read_data::streams(path, options)? {
            true => io::map_npy_part(path, own.range.clone())?,
            false => io::read_npy_part(path, own.range.clone())?,
        };
        let observations = Observations::new(values);
        // A process that has nothing only tells of the other modes.
        let observations = match own.range.is_empty() {
            true => observations,
            false => read_data::with_roles(observations, record, &PartFiles(Some(&own)))?,
        };
        Ok((observations, own))
    };
    let opened = opened();
    let (observations, own) = together(process.reducer.as_mut(), opened)?;
    let letters = vec![None; observations.shape().len()];
    Ok((ReadData { observations, letters, rows: None }, Some(own)))
}

/// What is read of a `.npz` file.
enum Held {
    Array,
    /// A matrix of scipy.
    Matrix,
    /// A list, with what goes with it.
    Coordinates,
}

fn held(record: &DataRecord) -> Result<Held> {
    if record.key.is_some() {
        return Ok(Held::Array);
    }
    let names = io::npz_names(&record.path)?;
    Ok(match (is_coordinates(&names), is_scipy(&names)) {
        (true, _) => Held::Coordinates,
        (false, true) => Held::Matrix,
        (false, false) => Held::Array,
    })
}

/// A list of an `.npz`, with names: each process goes through all of it and keeps its part.
fn coordinates(
    record: &DataRecord,
    options: ReadOptions<'_>,
    slabs: usize,
    process: &mut Process,
) -> Result<(ReadData, Option<Part>)> {
    let opened = || -> Result<(NamedTensor, Part)> {
        let keep = |shape: &[usize]| {
            let own = part(shape, None, slabs, process);
            (own.mode, own.range)
        };
        let read = NamedTensor::load_part(&record.path, options.letters, &keep)?;
        let (named, own) =
            read.ok_or_else(|| Error::format(&record.path, "it has changed while it was read"))?;
        let files = PartFiles(Some(&own));
        let observations = read_data::with_roles(named.observations, record, &files)?;
        Ok((NamedTensor { observations, ..named }, own))
    };
    let opened = opened();
    let (NamedTensor { observations, letters }, own) = together(process.reducer.as_mut(), opened)?;
    Ok((ReadData { observations, letters, rows: None }, Some(own)))
}

/// An array of a `.npz`, along its slowest mode.
fn npz(
    record: &DataRecord,
    slabs: usize,
    process: &mut Process,
) -> Result<(ReadData, Option<Part>)> {
    let (path, key) = (&record.path, record.key.as_deref());
    let opened = || -> Result<(Observations, Part)> {
        let extent = io::npz_extent(path, key)?;
        let own = part(&extent.shape, Some(extent.slowest), slabs, process);
        let values = Observations::new(io::read_npz_part(path, key, own.range.clone())?);
        let observations = match own.range.is_empty() {
            true => values,
            false => read_data::with_roles(values, record, &PartFiles(Some(&own)))?,
        };
        Ok((observations, own))
    };
    let opened = opened();
    let (observations, own) = together(process.reducer.as_mut(), opened)?;
    let letters = vec![None; observations.shape().len()];
    Ok((ReadData { observations, letters, rows: None }, Some(own)))
}

/// A matrix in coordinates: each process goes through it and keeps its part.
fn matrix(
    record: &DataRecord,
    options: ReadOptions<'_>,
    slabs: usize,
    process: &mut Process,
) -> Result<(ReadData, Option<Part>)> {
    let (path, size, rank) = (&record.path, process.size, process.rank);
    let keep = |shape: [usize; 2]| {
        let (mode, mut ranges) = parts(&shape, None, slabs, size);
        (mode, ranges.swap_remove(rank))
    };
    let opened = || -> Result<(Observations, Part)> {
        let (mut matrix, shape) = match DataKind::of(record)? {
            DataKind::TenX => table::read_10x_part(path, &keep)?,
            DataKind::File(_) => read_scipy_part(path, &keep)?
                .ok_or_else(|| Error::format(path, "it has changed while it was read"))?,
            _ => table::read_matrix_market_part(path, &keep)?,
        };
        let (mode, range) = keep(shape);
        let all = |axis: usize| if axis == mode { range.clone() } else { 0..shape[axis] };
        if let Some(path) = &record.row_names {
            table::read_names_part(path, &mut matrix.rows, shape[0], &all(0))?;
        }
        if let Some(path) = &record.column_names {
            table::read_names_part(path, &mut matrix.columns, shape[1], &all(1))?;
        }
        if matrix.duplicates > 0 && !options.quiet {
            complain(
                "notice",
                &format!(
                    "{}: of the part of process {rank}, {} stand at the same place as another one and \
                     were added to it",
                    path.display(),
                    summary::entries(matrix.duplicates)
                ),
            );
        }
        let own = Part { mode, range, whole: shape[mode] };
        let observations = matrix.observations()?;
        drop(matrix);
        Ok((read_data::with_roles(observations, record, &PartFiles(Some(&own)))?, own))
    };
    let opened = opened();
    let (observations, own) = together(process.reducer.as_mut(), opened)?;
    Ok((ReadData { observations, letters: vec![None; 2], rows: None }, Some(own)))
}

/// Coordinates as text, each file by one process or a part of it by each.
fn tns(
    record: &DataRecord,
    options: ReadOptions<'_>,
    slabs: usize,
    process: &mut Process,
) -> Result<(ReadData, Option<Part>)> {
    let files = together(process.reducer.as_mut(), table::files_matching(&record.path))?;
    let how = TnsOptions {
        shape: record.shape.as_deref(),
        zero_based: record.zero_based,
        value_optional: false,
    };
    let unpack = |path: &Path| match is_packed(path) {
        true => table::open_unpacked(path).map(Some),
        false => Ok(None),
    };
    let size = process.size;
    let shares = |shape: &[usize]| Ok(parts(shape, None, slabs, size));
    let list = io::read_tns_shared(&files, &unpack, &how, process.reducer.as_mut(), &shares)?;
    let own = part(list.shape(), None, slabs, process);
    if list.duplicates() > 0 && !options.quiet {
        complain(
            "notice",
            &format!(
                "{}: of the part of process {}, {} stand at the same place as another one and were \
                 added to it",
                record.path.display(),
                process.rank,
                summary::entries(list.duplicates())
            ),
        );
    }
    let letters = vec![None; list.shape().len()];
    let observations = || -> Result<Observations> {
        let observations = Observations::new(list.into_part(own.mode, own.range.clone())?);
        read_data::with_roles(observations, record, &PartFiles(Some(&own)))
    };
    let observations = together(process.reducer.as_mut(), observations())?;
    Ok((ReadData { observations, letters, rows: None }, Some(own)))
}

/// A table, each file by one process.
fn tables(
    record: &DataRecord,
    options: ReadOptions<'_>,
    slabs: usize,
    process: &mut Process,
) -> Result<(ReadData, Option<Part>)> {
    let opened = read_table::opened(record, options.letters);
    let opened = together(process.reducer.as_mut(), opened)?;
    let size = process.size;
    let shares = |shape: &[usize]| Ok(parts(shape, None, slabs, size));
    let tensor = opened.read_shared(process.reducer.as_mut(), &shares)?;
    let shape = tensor.shape();
    let own = part(&shape, None, slabs, process);
    let letters: Vec<Option<char>> = tensor.modes.iter().map(|mode| mode.letter).collect();
    let counts = tensor.counts.clone();
    let observations = || -> Result<Observations> {
        if let Some(wanted) = options.letters.filter(|_| letters.iter().any(Option::is_some)) {
            // The modes were read in this order; what is wrong with the letters is said here.
            arrangement(&letters, wanted)?;
        }
        let mut labels = tensor.labels();
        labels[own.mode] = labels_of_part(&labels[own.mode], &own);
        let TableTensor { mut coords, values, implicit, .. } = tensor;
        coords[own.mode].iter_mut().for_each(|index| *index -= own.range.start as u32);
        let columns: Vec<Column<'_>> = coords.iter().map(|list| Column::U32(list)).collect();
        let list = CooTensor::from_columns(Some(&part_shape(&shape, &own)), &columns, &values)?;
        drop((coords, values));
        let mut observations = Observations::new(list);
        if implicit == table::Implicit::Missing {
            observations = observations.unlisted_missing();
        }
        let observations = observations.with_labels(labels)?;
        read_data::with_roles(observations, record, &PartFiles(Some(&own)))
    };
    let observations = together(process.reducer.as_mut(), observations())?;
    Ok((ReadData { observations, letters, rows: Some(counts) }, Some(own)))
}

/// Whether a file is packed by gzip, by its name.
fn is_packed(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gz"))
}
