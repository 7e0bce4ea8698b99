//! Coordinates as text that several processes read together.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::tns::{TnsOptions, no_entries, read_lines};
use nneinfact_core::data::{CooBuilder, CooTensor};
use nneinfact_core::engine::Reducer;
use nneinfact_core::engine::collectives::{Shares, all_gather, all_to_all, together};
use nneinfact_core::error::{Error, Result};
use nneinfact_core::memory::refused;

/// Opens a file that is packed; `None` for one that is not.
pub type Unpack<'a> = dyn Fn(&Path) -> Result<Option<Box<dyn Read>>> + 'a;

/// Reads the entries of several `.tns` files together with other processes, which all make this call with
/// the same files, and gives each the entries of its share. The shape is that of all entries; indices are
/// those of the whole.
///
/// Where there are as many files as processes, each reads some of them; of fewer files each process reads a
/// part of every file, by bytes. Files that `unpack` says are packed are read as a whole by one process.
/// What a process holds at a time is what it has read and its share.
///
/// The result does not depend on the number of processes: it is that of [`read_tns`](super::read_tns) on
/// all lines, to the bit. `duplicates` are those of the share.
///
/// # Errors
/// As [`read_tns`](super::read_tns); [`Error::Process`] where another process failed.
pub fn read_tns_shared(
    files: &[PathBuf],
    unpack: &Unpack<'_>,
    options: &TnsOptions<'_>,
    reducer: &mut dyn Reducer,
    shares: &Shares<'_>,
) -> Result<CooTensor> {
    let own = read_own(files, unpack, options, (reducer.rank(), reducer.size()));
    let own = together(reducer, own)?;
    let shape = agree_on_shape(files, &own, options, reducer)?;
    let (mode, ranges) = shares(&shape)?;
    let short = shape.iter().all(|&n| u32::try_from(n).is_ok());
    let parts = sent(own, shape.len(), mode, &ranges, short);
    let parts = together(reducer, parts)?;
    let arrived = all_to_all(reducer, parts)?;
    let stored = gathered(arrived, &shape, short);
    together(reducer, stored)
}

/// What one process has read: a builder for each piece of a file.
fn read_own(
    files: &[PathBuf],
    unpack: &Unpack<'_>,
    options: &TnsOptions<'_>,
    (rank, size): (usize, usize),
) -> Result<Vec<CooBuilder>> {
    let mut own = Vec::new();
    for (number, path) in files.iter().enumerate() {
        let mine = number % size == rank;
        let read = match unpack(path)? {
            Some(from) if mine => {
                read_lines(BufReader::new(from), path, options, &mut |_, _| true)?
            }
            Some(_) => None,
            None if files.len() >= size && !mine => None,
            None if files.len() >= size => read_piece(path, options, (0, 1))?,
            None => read_piece(path, options, (rank, size))?,
        };
        own.extend(read.filter(|builder| !builder.is_empty()));
    }
    Ok(own)
}

/// Reads the lines of a file that begin in one of several parts of its bytes.
fn read_piece(
    path: &Path,
    options: &TnsOptions<'_>,
    (piece, pieces): (usize, usize),
) -> Result<Option<CooBuilder>> {
    let (mut file, len) = super::file::open(path)?;
    let Some(len) = len else {
        return Err(Error::format(path, "only ordinary files can be read in parts; this is none"));
    };
    let bound = |i: usize| (u128::from(len) * i as u128 / pieces as u128) as u64;
    let bytes = bound(piece)..bound(piece + 1);
    let start = first_line(&mut file, &bytes).map_err(|e| Error::file(path, e))?;
    file.seek(SeekFrom::Start(start)).map_err(|e| Error::file(path, e))?;
    // A line that begins here is read to its end, wherever that is.
    let mut begins = |_: u64, at: u64| start + at < bytes.end;
    let read = read_lines(BufReader::with_capacity(1 << 20, file), path, options, &mut begins);
    match read {
        // Lines are counted from the beginning of the file; that costs time only where one is wrong.
        Err(Error::Format { path, reason }) if start > 0 => {
            let before = lines_before(&path, start).map_err(|e| Error::file(&path, e))?;
            Err(Error::Format { reason: renumbered(&reason, before), path })
        }
        read => read,
    }
}

/// Where the first line begins that begins within these bytes.
fn first_line(file: &mut File, bytes: &Range<u64>) -> std::io::Result<u64> {
    if bytes.start == 0 {
        return Ok(0);
    }
    // The byte before tells whether a line begins right here.
    file.seek(SeekFrom::Start(bytes.start - 1))?;
    let mut reader = BufReader::new(file);
    let mut at = bytes.start - 1;
    loop {
        let found = reader.fill_buf()?;
        if found.is_empty() || at >= bytes.end {
            return Ok(at.max(bytes.end));
        }
        if let Some(end) = found.iter().position(|&byte| byte == b'\n') {
            return Ok(at + end as u64 + 1);
        }
        let n = found.len();
        at += n as u64;
        reader.consume(n);
    }
}

fn lines_before(path: &Path, bytes: u64) -> std::io::Result<u64> {
    let mut reader = BufReader::with_capacity(1 << 20, File::open(path)?.take(bytes));
    let mut lines = 0;
    loop {
        let found = reader.fill_buf()?;
        if found.is_empty() {
            return Ok(lines);
        }
        lines += found.iter().filter(|&&byte| byte == b'\n').count() as u64;
        let n = found.len();
        reader.consume(n);
    }
}

/// A reason "line 3: …" with the number of the line in the file.
fn renumbered(reason: &str, before: u64) -> String {
    let parts = reason.strip_prefix("line ").and_then(|rest| rest.split_once(':'));
    match parts.and_then(|(number, what)| Some((number.parse::<u64>().ok()?, what))) {
        Some((number, what)) => format!("line {}:{what}", number + before),
        None => reason.to_string(),
    }
}

/// The shape of the entries of all processes: the one given, or as long as the largest indices ask for.
fn agree_on_shape(
    files: &[PathBuf],
    own: &[CooBuilder],
    options: &TnsOptions<'_>,
    reducer: &mut dyn Reducer,
) -> Result<Vec<usize>> {
    let mut said = Vec::new();
    for builder in own {
        said.extend((builder.largest().len() as u64).to_le_bytes());
        said.extend(builder.largest().iter().flat_map(|n| n.to_le_bytes()));
    }
    let all = all_gather(reducer, &said)?.concat();
    let numbers: Vec<u64> = all
        .chunks_exact(8)
        .map(|eight| u64::from_le_bytes(eight.try_into().unwrap_or_default()))
        .collect();
    let first = files.first().map_or(Path::new(""), PathBuf::as_path);
    let mut largest: Vec<u64> = Vec::new();
    let mut rest = numbers.as_slice();
    while let Some((&modes, more)) = rest.split_first() {
        let (found, more) = more.split_at_checked(modes as usize).ok_or_else(unreadable)?;
        if largest.is_empty() {
            largest = found.to_vec();
        }
        if largest.len() != found.len() {
            return Err(Error::format(
                first,
                format!(
                    "some lines of the files have {} indices and others {}",
                    largest.len(),
                    found.len()
                ),
            ));
        }
        largest.iter_mut().zip(found).for_each(|(largest, &n)| *largest = n.max(*largest));
        rest = more;
    }
    match options.shape {
        _ if largest.is_empty() => Err(no_entries(first, options)),
        Some(shape) => Ok(shape.to_vec()),
        None => Ok(largest.iter().map(|&n| (n as usize).saturating_add(1)).collect()),
    }
}

/// What goes to each process: entries one after the other, their indices and their values.
fn sent(
    own: Vec<CooBuilder>,
    modes: usize,
    mode: usize,
    ranges: &[Range<usize>],
    short: bool,
) -> Result<Vec<Vec<u8>>> {
    let owner = |at: u64| ranges.partition_point(|range| range.end as u64 <= at);
    let lost = || Error::Internal("an entry is in no process's share".into());
    let mut index = vec![0; modes];
    // Counted beforehand, so that no more memory is asked for than is sent.
    let mut counts = vec![0usize; ranges.len()];
    for builder in &own {
        for i in 0..builder.len() {
            if builder.entry(i, &mut index).is_some() {
                *counts.get_mut(owner(index[mode])).ok_or_else(lost)? += 1;
            }
        }
    }
    let bytes = modes * if short { 4 } else { 8 } + 8;
    let mut parts = vec![Vec::new(); ranges.len()];
    for (part, count) in parts.iter_mut().zip(counts) {
        let room = part.try_reserve_exact(count * bytes);
        room.map_err(|_| {
            refused("the entries that go to other processes", (count * bytes) as u64)
        })?;
    }
    for builder in own {
        for i in 0..builder.len() {
            let Some(value) = builder.entry(i, &mut index) else { break };
            let to = parts.get_mut(owner(index[mode])).ok_or_else(lost)?;
            for &i in &index {
                match short {
                    true => to.extend_from_slice(&(i as u32).to_le_bytes()),
                    false => to.extend_from_slice(&i.to_le_bytes()),
                }
            }
            to.extend_from_slice(&value.to_le_bytes());
        }
    }
    Ok(parts)
}

/// The entries that arrived.
fn gathered(arrived: Vec<Vec<u8>>, shape: &[usize], short: bool) -> Result<CooTensor> {
    let width = if short { 4 } else { 8 };
    let entries = arrived.iter().map(Vec::len).sum::<usize>() / (width * shape.len() + 8);
    let mut builder = CooBuilder::with_room(shape.len(), entries)?;
    let mut index = vec![0; shape.len()];
    for part in arrived {
        let entries = part.chunks_exact(width * shape.len() + 8);
        if !entries.remainder().is_empty() {
            return Err(unreadable());
        }
        for entry in entries {
            let (indices, value) = entry.split_at(width * shape.len());
            for (to, from) in index.iter_mut().zip(indices.chunks_exact(width)) {
                let mut eight = [0; 8];
                eight[..width].copy_from_slice(from);
                *to = u64::from_le_bytes(eight);
            }
            builder.push(&index, f64::from_le_bytes(value.try_into().unwrap_or_default()))?;
        }
    }
    builder.finish(Some(shape))
}

fn unreadable() -> Error {
    Error::Internal("what another process sent of the coordinates cannot be read".into())
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::super::read_tns;
    use super::*;
    use crate::transport::Threads;

    /// Lines of all lengths, comments, empty lines and duplicates whose sum depends on the order.
    fn text() -> String {
        let mut text = String::from("# a comment\n\n");
        for i in 0..200u64 {
            let value = 0.1 * (i * i % 97) as f64;
            let _ = writeln!(text, "{} {} {value}", 1 + i * 7 % 30, 1 + i * 31 % 11);
            if i % 17 == 0 {
                text += "   # nothing here\n";
            }
        }
        text
    }

    fn even(shape: &[usize], size: usize) -> Result<(usize, Vec<Range<usize>>)> {
        let bound = |i: usize| shape[0] * i / size;
        Ok((0, (0..size).map(|i| bound(i)..bound(i + 1)).collect()))
    }

    fn together_as(files: &[PathBuf], size: usize) -> Result<Vec<CooTensor>> {
        let plain = |_: &Path| Ok(None);
        Threads::run(size, |mut process| {
            let options = TnsOptions::default();
            read_tns_shared(files, &plain, &options, &mut process, &|shape: &[usize]| {
                even(shape, size)
            })
        })
    }

    fn entries(parts: &[CooTensor]) -> Vec<(Vec<u64>, u64)> {
        let mut all = Vec::new();
        for part in parts {
            for i in 0..part.len() {
                let index = part.indices().iter().map(|list| list.get(i).unwrap()).collect();
                all.push((index, part.values().get(i).unwrap().to_bits()));
            }
        }
        all
    }

    #[test]
    fn shares_are_those_of_one_file_read_by_one() {
        let folder = tempfile::tempdir().unwrap();
        let (whole, text) = (folder.path().join("whole.tns"), text());
        std::fs::write(&whole, &text).unwrap();
        let expected = read_tns(&whole, None).unwrap();
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        for count in [1, 2, 5] {
            let files: Vec<PathBuf> = (0..count)
                .map(|i| {
                    let path = folder.path().join(format!("part-{i}.tns"));
                    let own = lines.iter().skip(i).step_by(count).copied();
                    std::fs::write(&path, own.collect::<String>()).unwrap();
                    path
                })
                .collect();
            for size in [1, 2, 3, 8, 40] {
                let parts = together_as(&files, size).unwrap();
                assert!(parts.iter().all(|part| part.shape() == expected.shape()));
                assert_eq!(entries(&parts), entries(std::slice::from_ref(&expected)), "{size}");
            }
        }
    }

    #[test]
    fn what_is_wrong_is_said_by_all_with_the_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wrong.tns");
        let text: String = text().lines().enumerate().fold(String::new(), |mut text, (i, line)| {
            let _ = writeln!(text, "{}", if i == 150 { "3 x 1" } else { line });
            text
        });
        std::fs::write(&path, text).unwrap();
        for size in [1, 4] {
            let error = together_as(std::slice::from_ref(&path), size).unwrap_err().to_string();
            assert!(error.contains("line 151: 'x' is not an index"), "{error}");
        }
        std::fs::write(&path, "# nothing\n").unwrap();
        let error = together_as(&[path], 3).unwrap_err().to_string();
        assert!(error.contains("there are no entries"), "{error}");
    }

    #[test]
    fn modes_have_to_agree() {
        let folder = tempfile::tempdir().unwrap();
        let files = ["a", "b"].map(|name| folder.path().join(name)).to_vec();
        std::fs::write(&files[0], "1 2 3.0\n").unwrap();
        std::fs::write(&files[1], "1 2 3 4.0\n").unwrap();
        let error = together_as(&files, 2).unwrap_err().to_string();
        assert!(error.contains("have 2 indices and others 3"), "{error}");
    }
}
