//! Reading texts of `.npz` files that earlier versions wrote.
//!
//! They stand between the last member and the directory, which readers of archives pass over: an archive
//! of their own, its length, and a mark.

use std::io::{self, Read, Seek, SeekFrom};

/// What the texts end in.
const MARK: &[u8; 8] = b"nneinfa\x01";
/// The mark, behind the length of the texts' archive.
const TRAILER: u64 = 8 + MARK.len() as u64;

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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::{npz_names, read_npz_arrays, read_npz_text};
    use super::*;
    use nneinfact_core::error::Error;

    /// Of version 0.1.0 before texts were ordinary members.
    const OLD: &[u8] = include_bytes!("fixtures/texts_aside.npz");

    #[test]
    fn texts_that_are_not_listed_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("old.npz");
        fs::write(&path, OLD).unwrap();
        let names: Vec<String> = npz_names(&path).unwrap().into_iter().map(|a| a.name).collect();
        assert_eq!(names, ["theta_1", "theta_2"]);
        let text = |name: &str| read_npz_text(&path, name);
        assert!(text("fit.json").unwrap().is_some_and(|text| text.contains("ir,jr->ij")));
        assert_eq!(text("theta").unwrap(), None);

        // A length that leads out of the file.
        let mark = OLD.windows(8).rposition(|w| w == MARK).unwrap();
        let mut damaged = OLD.to_vec();
        damaged[mark - 8..mark].fill(0xff);
        fs::write(&path, &damaged).unwrap();
        assert_eq!(text("fit.json").unwrap(), None);
        assert_eq!(read_npz_arrays(&path).unwrap().len(), 2);
        // And one that does not lead to where the texts begin.
        damaged[mark - 8..mark].copy_from_slice(&30u64.to_le_bytes());
        fs::write(&path, &damaged).unwrap();
        assert!(matches!(text("fit.json"), Err(Error::Format { .. })));
    }
}
