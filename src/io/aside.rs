//! Texts in an `.npz` that are no entries of it.
//!
//! Programs take what an archive lists for arrays: a text among them would be in numpy's `files`. So
//! texts stand between the last entry and the directory, which readers of archives pass over, as the
//! signatures of Android's packages do. Each is followed by its name, the length of both, and a mark;
//! they are read backwards from where the directory begins.

use std::io::{self, Read, Seek, SeekFrom, Write};

use super::write::Sink;

/// What every text ends in.
const MARK: &[u8; 8] = b"nneinfa\x01";
/// The mark, behind the lengths of name and text.
const TRAILER: u64 = 8 + 8 + MARK.len() as u64;
/// The end of an archive: a signature, and at these places the directory's length and offset.
const END: usize = 22;
const SIGNATURE: &[u8; 4] = b"PK\x05\x06";
const LENGTH_AT: usize = 12;
const OFFSET_AT: usize = 16;

/// Passes on what is written, and keeps the end of it.
pub(super) struct Recorder<'a> {
    to: &'a mut dyn Sink,
    at: u64,
    /// Where `tail` begins.
    start: u64,
    tail: Vec<u8>,
}

impl<'a> Recorder<'a> {
    /// Far more than the directory of an archive of factors takes.
    const KEPT: usize = 1 << 20;

    pub fn new(to: &'a mut dyn Sink) -> Recorder<'a> {
        Recorder { to, at: 0, start: 0, tail: Vec::new() }
    }

    /// Puts texts, under their names, in front of the directory of the archive that was written.
    pub fn insert(self, texts: &[(&str, &str)]) -> io::Result<()> {
        let Recorder { to, start, tail, .. } = self;
        let unlike = || io::Error::other("the archive does not end as archives do");
        let end = tail.len().checked_sub(END).ok_or_else(unlike)?;
        let number = |at: usize| -> Option<u32> {
            let bytes = tail.get(end + at..end + at + 4)?;
            Some(u32::from_le_bytes(bytes.try_into().ok()?))
        };
        let (length, offset) = (number(LENGTH_AT), number(OFFSET_AT));
        let (Some(length), Some(offset)) = (length, offset) else { return Err(unlike()) };
        let directory =
            u64::from(offset).checked_sub(start).and_then(|at| usize::try_from(at).ok());
        let directory = directory.filter(|at| at + length as usize == end).ok_or_else(unlike)?;
        if !tail[end..].starts_with(SIGNATURE) {
            return Err(unlike());
        }

        to.seek(SeekFrom::Start(u64::from(offset)))?;
        let mut inserted = 0u64;
        for (name, text) in texts {
            let lengths = [name.len() as u64, text.len() as u64];
            to.write_all(text.as_bytes())?;
            to.write_all(name.as_bytes())?;
            lengths.iter().try_for_each(|length| to.write_all(&length.to_le_bytes()))?;
            to.write_all(MARK)?;
            inserted += lengths.iter().sum::<u64>() + TRAILER;
        }
        let moved = u32::try_from(u64::from(offset) + inserted)
            .map_err(|_| io::Error::other("the archive is larger than 4 GiB"))?;
        to.write_all(&tail[directory..end + OFFSET_AT])?;
        to.write_all(&moved.to_le_bytes())?;
        to.write_all(&tail[end + OFFSET_AT + 4..])
    }
}

impl Write for Recorder<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        let bytes = &bytes[..written];
        let end = self.start + self.tail.len() as u64;
        // Headers are put right once the length of an entry is known.
        for (at, &byte) in (self.at..end).zip(bytes) {
            if let Some(i) = at.checked_sub(self.start) {
                self.tail[i as usize] = byte;
            }
        }
        let known = usize::try_from(end.saturating_sub(self.at)).unwrap_or(usize::MAX);
        self.tail.extend_from_slice(bytes.get(known..).unwrap_or_default());
        self.at += written as u64;
        if self.tail.len() > 2 * Self::KEPT {
            let gone = self.tail.len() - Self::KEPT;
            self.tail.drain(..gone);
            self.start += gone as u64;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

impl Seek for Recorder<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.at = self.to.seek(to)?;
        Ok(self.at)
    }
}

/// Reads the text of this name from in front of the directory, if it is there and at most so long.
pub(super) fn read(
    from: &mut (impl Read + Seek),
    directory: u64,
    name: &str,
    longest: u64,
) -> io::Result<Option<Vec<u8>>> {
    let mut end = directory;
    loop {
        let Some(trailer) = end.checked_sub(TRAILER) else { return Ok(None) };
        from.seek(SeekFrom::Start(trailer))?;
        let mut bytes = [0; TRAILER as usize];
        from.read_exact(&mut bytes)?;
        let number = |at: usize| -> u64 {
            bytes[at..at + 8].iter().rev().fold(0, |sum, &byte| sum << 8 | u64::from(byte))
        };
        let (name_length, length) = (number(0), number(8));
        let start = name_length.checked_add(length).and_then(|all| trailer.checked_sub(all));
        let Some(start) = start.filter(|_| bytes.ends_with(MARK)) else { return Ok(None) };
        if name_length == name.len() as u64 && length <= longest {
            let mut text = vec![0; (length + name_length) as usize];
            from.seek(SeekFrom::Start(start))?;
            from.read_exact(&mut text)?;
            if text[length as usize..] == *name.as_bytes() {
                text.truncate(length as usize);
                return Ok(Some(text));
            }
        }
        end = start;
    }
}
