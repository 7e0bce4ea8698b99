//! A table that several processes read together: each reads some of its files, all agree on the labels,
//! and every entry goes to the process that is to have it.

use std::ops::Range;
use std::path::{Path, PathBuf};

use nneinfact_core::engine::Reducer;
use nneinfact_core::engine::collectives::{Shares, all_gather, all_to_all, together};

use crate::encoder::Encoder;
use crate::entry_store::{EntryStore, Finish, refused};
use crate::error::{Error, Result};
use crate::finish::{given, within_limit};
use crate::labels::Ordered;
use crate::reading::{self, ReadFile};
use crate::settings::{Settings, Source, Values};
use crate::table::Table;
use crate::tensor::{Counts, Mode, TableTensor};
use crate::wire::{Reader, Writer, broken};

impl Table<'_> {
    /// Reads the table together with other processes, which all make this call with the same files and
    /// settings, and gives each the entries of its share. Labels, shape and counts are those of all rows.
    ///
    /// Of F files every process reads every P-th: a table in one file is read by one process. What a
    /// process holds at a time is the entries of its files and those of its share.
    ///
    /// The result does not depend on the number of processes. Counts and maxima are those of
    /// [`read`](Table::read), and so are labels; sums and means are first added up within each file and then
    /// from file to file, so that their last bits may differ from those of `read`.
    ///
    /// # Errors
    /// Those of [`read`](Table::read), and [`Error::Process`] where another process has one;
    /// [`Error::Setting`] where the table is a stream, or processes see different files.
    pub fn read_shared(
        self,
        reducer: &mut dyn Reducer,
        shares: &Shares<'_>,
    ) -> Result<TableTensor> {
        let (source, settings) = self.into_parts();
        let begun = settings.check().and_then(|()| files(source)).and_then(|files| {
            let (encoders, cells) = reading::nothing(&settings)?;
            Ok((files, encoders, cells))
        });
        let (files, encoders, cells) = together(reducer, begun)?;
        same_files(reducer, &files)?;
        let mut shared = SharedTable { settings: &settings, files: &files, encoders, reducer };
        shared.survey()?;
        let own = shared.fill()?;
        let (own, used, counts) = shared.agree_on_codes(own)?;
        shared.distribute(own, &used, counts, cells, shares)
    }
}

/// The files of a table.
fn files(source: Source<'_>) -> Result<Vec<PathBuf>> {
    match source {
        Source::Files(paths) if paths.is_empty() => {
            Err(Error::Setting("no file is given to read a table from".into()))
        }
        Source::Files(paths) => Ok(paths),
        Source::Stream { name, .. } => Err(Error::Setting(format!(
            "{} cannot be read by several processes: give files, one or more for each",
            name.display()
        ))),
    }
}

/// Refuses processes that see different files, as on machines whose folders are not shared.
fn same_files(reducer: &mut dyn Reducer, files: &[PathBuf]) -> Result<()> {
    let mut names = Writer::default();
    files.iter().for_each(|file| names.bytes(file.as_os_str().as_encoded_bytes()));
    let all = all_gather(reducer, &names.0)?;
    let other = all.iter().position(|names| *names != all[0]);
    let checked = match other {
        None => Ok(()),
        Some(other) => Err(Error::Setting(format!(
            "process {other} sees other files than process 0 by the same name or pattern: all have to \
             see the same folder"
        ))),
    };
    together(reducer, checked)
}

/// A table that is being read by several processes.
struct SharedTable<'a> {
    settings: &'a Settings,
    files: &'a [PathBuf],
    /// What is known of all files.
    encoders: Vec<Encoder>,
    reducer: &'a mut dyn Reducer,
}

/// A file that this process has read, with the code that each of its codes has in all processes.
struct OwnFile {
    number: usize,
    cells: EntryStore,
    codes: Vec<Vec<u32>>,
}

impl SharedTable<'_> {
    /// The files that this process reads, by their numbers.
    fn own(&self) -> impl Iterator<Item = (usize, &Path)> + use<'_> {
        let (rank, size) = (self.reducer.rank(), self.reducer.size());
        let own = self.files.iter().enumerate().filter(move |(number, _)| number % size == rank);
        own.map(|(number, path)| (number, path.as_path()))
    }

    /// Gives every file's bytes to all processes, and goes through them in the order of the files.
    fn tell(
        &mut self,
        own: Vec<(usize, Vec<u8>)>,
        mut hear: impl FnMut(&mut [Encoder], usize, &mut Reader<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut said = Writer::default();
        for (number, bytes) in own {
            said.u64(number as u64);
            said.bytes(&bytes);
        }
        let all = all_gather(self.reducer, &said.0)?;
        let mut heard = Vec::with_capacity(self.files.len());
        for said in &all {
            let mut said = Reader(said);
            while !said.is_empty() {
                heard.push((said.u64()?, said.bytes()?));
            }
        }
        heard.sort_by_key(|(number, _)| *number);
        for (number, bytes) in heard {
            hear(&mut self.encoders, number as usize, &mut Reader(bytes))?;
        }
        Ok(())
    }

    /// Has all rows seen before any is placed, where modes ask for it.
    fn survey(&mut self) -> Result<()> {
        if !self.encoders.iter().any(Encoder::looks_ahead) {
            return Ok(());
        }
        let noted = |(number, path): (usize, &Path)| {
            let encoders = reading::survey(path, self.settings)?;
            let mut notes = Writer::default();
            encoders.iter().for_each(|encoder| encoder.tell_notes(&mut notes));
            Ok((number, notes.0))
        };
        let own: Result<Vec<(usize, Vec<u8>)>> = self.own().map(noted).collect();
        let own = together(self.reducer, own)?;
        self.tell(own, |encoders, _, notes| {
            encoders.iter_mut().try_for_each(|encoder| encoder.note_all(notes))
        })?;
        for encoder in &mut self.encoders {
            let finished = encoder.finish_column();
            finished.map_err(|reason| Error::format(&self.files[0], reason))?;
        }
        Ok(())
    }

    /// Reads the files of this process.
    fn fill(&mut self) -> Result<Vec<(usize, ReadFile)>> {
        let mut room = self.settings.clone();
        let mut own = Vec::new();
        let mut read = Ok(());
        for (number, path) in self.own() {
            match reading::fill(path, &room, &self.encoders) {
                Ok(file) => {
                    // Of the limit the files before have taken their part.
                    room.memory = room.memory.map(|n| n.saturating_sub(file.cells.memory()));
                    own.push((number, file));
                }
                Err(error) => {
                    read = Err(error);
                    break;
                }
            }
        }
        together(self.reducer, read.map(|()| own))
    }

    /// Has all processes give one code to one label, in the order in which labels stand in the files; tells
    /// which codes entries have, and what became of all rows.
    fn agree_on_codes(
        &mut self,
        own: Vec<(usize, ReadFile)>,
    ) -> Result<(Vec<OwnFile>, Vec<Vec<bool>>, Counts)> {
        let mut said = Vec::with_capacity(own.len());
        let mut used: Vec<Vec<Vec<u32>>> = Vec::with_capacity(own.len());
        for (number, file) in &own {
            let mut to = Writer::default();
            tell_counts(&file.counts, &mut to);
            let codes = codes_of_entries(file);
            for (encoder, codes) in file.encoders.iter().zip(&codes) {
                to.u64(codes.len() as u64);
                codes.iter().for_each(|&code| encoder.tell_code(code, &mut to));
            }
            said.push((*number, to.0));
            used.push(codes);
        }
        let mut counts = Counts::default();
        let mut maps: Vec<(usize, Vec<Vec<u32>>)> = Vec::new();
        let mut all_used: Vec<Vec<bool>> = vec![Vec::new(); self.encoders.len()];
        let (rank, size) = (self.reducer.rank(), self.reducer.size());
        self.tell(said, |encoders, number, from| {
            hear_counts(&mut counts, from)?;
            let mut file = Vec::with_capacity(encoders.len());
            for (encoder, used) in encoders.iter_mut().zip(&mut all_used) {
                let mut codes = Vec::new();
                for _ in 0..from.u64()? {
                    let code = encoder.code_of(from)?;
                    used.resize(used.len().max(code as usize + 1), false);
                    used[code as usize] = true;
                    codes.push(code);
                }
                file.push(codes);
            }
            if number % size == rank {
                maps.push((number, file));
            }
            Ok(())
        })?;
        for (used, encoder) in all_used.iter_mut().zip(&self.encoders) {
            used.resize(encoder.codes(), false);
        }
        let own = own.into_iter().zip(used).zip(maps).map(|(((number, file), used), (_, map))| {
            let widened = |((encoder, used), map): ((&Encoder, &Vec<u32>), Vec<u32>)| {
                let mut codes = vec![0; encoder.codes()];
                used.iter().zip(map).for_each(|(&from, to)| codes[from as usize] = to);
                codes
            };
            let codes = file.encoders.iter().zip(&used).zip(map).map(widened).collect();
            OwnFile { number, cells: file.cells, codes }
        });
        Ok((own.collect(), all_used, counts))
    }

    /// Sends every entry to the process that is to have it, and puts together what arrives here.
    fn distribute(
        self,
        own: Vec<OwnFile>,
        used: &[Vec<bool>],
        counts: Counts,
        mut cells: EntryStore,
        shares: &Shares<'_>,
    ) -> Result<TableTensor> {
        let SharedTable { settings, files, encoders, reducer } = self;
        // All processes know the same here, and so fail alike.
        if counts.kept() == 0 {
            let reason = format!("no row is left for the tensor: {counts}");
            return Err(Error::format(&files[0], reason));
        }
        let held: u64 = own.iter().map(|file| file.cells.memory()).sum();
        let needed = together(reducer, within_limit(&encoders, used, held, settings))?;
        let names = settings.modes.names();
        let mut all: Vec<Ordered> =
            encoders.into_iter().zip(used).map(|(encoder, used)| encoder.finish(used)).collect();
        for (called, order) in &settings.orders {
            let mode = settings.mode_called(called)?;
            all[mode] = given(&all[mode], &used[mode], order, &names[mode])?;
        }
        let shape: Vec<usize> = all.iter().map(|mode| mode.labels.len()).collect();
        let (mode, ranges) = shares(&shape)?;
        let counted = matches!(settings.values, Values::Mean(_));
        let parts = Outgoing { places: &all[mode].places, mode, ranges: &ranges, counted };
        let arrived = all_to_all(reducer, parts.of(own)?)?;
        if let Some(limit) = settings.memory {
            let waiting: u64 = arrived.iter().map(|part| part.len() as u64).sum();
            cells.allowance = limit.saturating_sub(needed + waiting);
        }
        let stored = store(&mut cells, &arrived, all.len(), counted, settings);
        drop(arrived);
        let entries = stored.and_then(|()| {
            let finish = Finish {
                maps: all.iter().map(|mode| &mode.places[..]).collect(),
                shape: &shape,
                merges: all.iter().any(Ordered::merges),
            };
            cells.finish(&finish).map_err(|e| refused(e, settings.memory))
        });
        let entries = together(reducer, entries)?;
        let modes = all.into_iter().zip(names).zip(settings.modes.as_slice());
        Ok(TableTensor {
            modes: modes
                .map(|((mode, name), spec)| Mode {
                    name,
                    letter: spec.letter,
                    labels: mode.labels,
                    kind: mode.kind,
                })
                .collect(),
            coords: entries.coords,
            values: entries.values,
            implicit: settings.implicit.unwrap_or(settings.values.implicit()),
            counts,
        })
    }
}

/// The codes that entries of a file have, of every mode, each once and in order.
fn codes_of_entries(file: &ReadFile) -> Vec<Vec<u32>> {
    let mut used: Vec<Vec<bool>> =
        file.encoders.iter().map(|encoder| vec![false; encoder.codes()]).collect();
    file.cells.visit(&mut |codes| {
        for (used, &code) in used.iter_mut().zip(codes) {
            if let Some(used) = used.get_mut(code as usize) {
                *used = true;
            }
        }
    });
    let codes = |used: &Vec<bool>| {
        (0u32..).zip(used).filter(|(_, used)| **used).map(|(code, _)| code).collect()
    };
    used.iter().map(codes).collect()
}

/// How entries are sent.
struct Outgoing<'a> {
    /// The index of every code of the mode along which they are shared.
    places: &'a [u32],
    mode: usize,
    ranges: &'a [Range<usize>],
    /// Whether it matters how many rows a sum has.
    counted: bool,
}

impl Outgoing<'_> {
    /// What goes to each process: of every file its number, the bytes that follow, and the entries.
    fn of(&self, own: Vec<OwnFile>) -> Result<Vec<Vec<u8>>> {
        let mut parts: Vec<Writer> = self.ranges.iter().map(|_| Writer::default()).collect();
        for file in own {
            let mut entries: Vec<Writer> = self.ranges.iter().map(|_| Writer::default()).collect();
            let mut lost = false;
            file.cells.visit_sums(&mut |codes, sum, count| {
                let code = |mode: usize| file.codes[mode][codes[mode] as usize];
                let at = self.places[code(self.mode) as usize] as usize;
                let owner = self.ranges.partition_point(|range| range.end <= at);
                let Some(to) = entries.get_mut(owner) else {
                    lost = true;
                    return;
                };
                (0..codes.len()).for_each(|mode| to.u32(code(mode)));
                to.f64(sum);
                if self.counted {
                    to.u64(count);
                }
            });
            if lost {
                return Err(Error::Internal("an entry is in no process's share".into()));
            }
            for (part, entries) in parts.iter_mut().zip(entries) {
                if !entries.0.is_empty() {
                    part.u64(file.number as u64);
                    part.bytes(&entries.0);
                }
            }
        }
        Ok(parts.into_iter().map(|part| part.0).collect())
    }
}

/// Puts the entries that arrived into a store, in the order of their files.
fn store(
    cells: &mut EntryStore,
    arrived: &[Vec<u8>],
    modes: usize,
    counted: bool,
    settings: &Settings,
) -> Result<()> {
    let mut files = Vec::new();
    for part in arrived {
        let mut part = Reader(part);
        while !part.is_empty() {
            files.push((part.u64()?, part.bytes()?));
        }
    }
    files.sort_by_key(|(number, _)| *number);
    let mut codes = vec![0; modes];
    for (_, entries) in files {
        let mut entries = Reader(entries);
        while !entries.is_empty() {
            for code in &mut codes {
                *code = entries.u32()?;
            }
            let sum = entries.f64()?;
            let count = if counted { entries.u64()? } else { 0 };
            cells.add_sum(&codes, sum, count).map_err(|e| refused(e, settings.memory))?;
        }
    }
    Ok(())
}

fn tell_counts(counts: &Counts, to: &mut Writer) {
    for n in [counts.rows, counts.filtered, counts.bad, counts.outside, counts.rare] {
        to.u64(n);
    }
    to.bytes(counts.first_bad.as_deref().unwrap_or_default().as_bytes());
}

/// Adds the counts of the next file.
fn hear_counts(counts: &mut Counts, from: &mut Reader<'_>) -> Result<()> {
    let Counts { rows, filtered, bad, first_bad, outside, rare } = counts;
    for n in [rows, filtered, bad, outside, rare] {
        *n += from.u64()?;
    }
    let text = std::str::from_utf8(from.bytes()?).map_err(|_| broken())?;
    if first_bad.is_none() && !text.is_empty() {
        *first_bad = Some(text.into());
    }
    Ok(())
}
