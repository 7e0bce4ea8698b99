//! Texts in an `.npz` that are no entries of it.
//!
//! Programs take what an archive lists for arrays: a text among them would be in numpy's `files`. So
//! texts stand between the last entry and the directory, which readers of archives pass over, as the
//! signatures of Android's packages do: an archive of their own, its length, and a mark.

use std::io::{self, Read, Seek, SeekFrom, Write};

use super::write::Sink;

/// What the texts end in.
const MARK: &[u8; 8] = b"nneinfa\x01";
/// The mark, behind the length of the texts' archive.
const TRAILER: u64 = 8 + MARK.len() as u64;
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

    /// Puts the texts' archive in front of the directory of the one that was written.
    pub fn insert(self, texts: &[u8]) -> io::Result<()> {
        let Recorder { to, start, tail, .. } = self;
        let unlike = || io::Error::other("the archive does not end as archives do");
        let end = tail.len().checked_sub(END).ok_or_else(unlike)?;
        let number = |at: usize| -> Option<u32> {
            let bytes = tail.get(end + at..end + at + 4)?;
            Some(u32::from_le_bytes(bytes.try_into().ok()?))
        };
        let (size, offset) = (number(LENGTH_AT), number(OFFSET_AT));
        let (Some(size), Some(offset)) = (size, offset) else { return Err(unlike()) };
        let directory =
            u64::from(offset).checked_sub(start).and_then(|at| usize::try_from(at).ok());
        let directory = directory.filter(|at| at + size as usize == end).ok_or_else(unlike)?;
        if !tail[end..].starts_with(SIGNATURE) {
            return Err(unlike());
        }

        to.seek(SeekFrom::Start(u64::from(offset)))?;
        let length = texts.len() as u64;
        to.write_all(texts)?;
        to.write_all(&length.to_le_bytes())?;
        to.write_all(MARK)?;
        let moved = u32::try_from(u64::from(offset) + length + TRAILER)
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

/// Reads the texts' archive from in front of the directory, if it is there and at most so long.
pub(super) fn read(
    from: &mut (impl Read + Seek),
    directory: u64,
    longest: u64,
) -> io::Result<Option<Vec<u8>>> {
    let Some(trailer) = directory.checked_sub(TRAILER) else { return Ok(None) };
    from.seek(SeekFrom::Start(trailer))?;
    let (mut length, mut mark) = ([0; 8], [0; MARK.len()]);
    from.read_exact(&mut length)?;
    from.read_exact(&mut mark)?;
    let length = u64::from_le_bytes(length);
    let Some(start) = trailer.checked_sub(length).filter(|_| mark == *MARK && length <= longest)
    else {
        return Ok(None);
    };
    // As long as what is there, since it ends before the directory.
    let mut texts = vec![0; length as usize];
    from.seek(SeekFrom::Start(start))?;
    from.read_exact(&mut texts)?;
    Ok(Some(texts))
}
