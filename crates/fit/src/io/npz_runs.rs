//! Arrays of an `.npz` file that are read side by side, a block of each at a time: lists of which a process
//! keeps no more than its part.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use zip::CompressionMethod;

use super::dtype::Dtype;
use super::file::open;
use super::header::Header;
use super::npy::{check, fault_in};
use super::npz::{Npz, zip_fault};
use super::npz_part::skip;
use nneinfact_core::error::{Error, Result, escaped};

/// Where an array of an `.npz` file is read from.
#[derive(Clone, Copy, Debug)]
pub struct NpzRun<'a> {
    /// The name of the array.
    pub name: &'a str,
    /// The first of its elements that is read, counted in the order in which they lie in the file.
    pub first: usize,
    /// How many of its elements go together, at least 1.
    pub width: usize,
}

/// Steps at a time.
const BLOCK: usize = 1 << 12;

/// Reads arrays of an `.npz` file side by side: `steps` times as many elements of each as its run is wide.
/// `each` gets them block by block, of every run those of as many steps, whatever their type as `f64`.
///
/// Of an array that is stored as it is, as `numpy.savez` and `scipy.sparse.save_npz(…, compressed=False)` write
/// it, no other elements are read, and the archive's sum over all of them is not checked. One that is
/// compressed is unpacked from its beginning to its end. Memory holds a block of each.
///
/// ```
/// use nneinfact::io::{self, NpzRun};
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("list.npz");
/// let of = |from: f64| ndarray::Array1::from_shape_fn(10, |i| from + i as f64);
/// io::write_npz(&path, &[("place", of(0.0)), ("value", of(100.0))])?;
/// let run = |name| NpzRun { name, first: 4, width: 1 };
/// let mut sum = 0.0;
/// io::read_npz_runs(&path, &[run("place"), run("value")], 3, &mut |blocks| {
///     sum += blocks[0].iter().zip(&blocks[1]).map(|(place, value)| place * value).sum::<f64>();
///     Ok(())
/// })?;
/// assert_eq!(sum, 4.0 * 104.0 + 5.0 * 105.0 + 6.0 * 106.0);
/// # Ok::<(), nneinfact::Error>(())
/// ```
///
/// # Errors
/// As [`read_npz`](super::read_npz); [`Error::Format`] also where an array does not have these elements; those
/// of `each`.
pub fn read_npz_runs(
    path: impl AsRef<Path>,
    runs: &[NpzRun<'_>],
    steps: usize,
    each: &mut dyn FnMut(&[Vec<f64>]) -> Result<()>,
) -> Result<()> {
    let path = path.as_ref();
    let archive = |_| Npz::new(BufReader::with_capacity(1 << 16, open(path)?.0), path);
    let mut archives = runs.iter().map(archive).collect::<Result<Vec<_>>>()?;
    let member = |(archive, run)| Member::open(archive, run, steps, path);
    let mut members = archives.iter_mut().zip(runs).map(member).collect::<Result<Vec<_>>>()?;
    let mut blocks = vec![Vec::new(); runs.len()];
    for start in (0..steps).step_by(BLOCK) {
        let steps = BLOCK.min(steps - start);
        for (member, block) in members.iter_mut().zip(&mut blocks) {
            member.read(steps, block)?;
        }
        each(&blocks)?;
    }
    members.into_iter().try_for_each(Member::end)
}

/// An array that is being read.
struct Member<'a> {
    run: NpzRun<'a>,
    path: &'a Path,
    dtype: Dtype,
    from: Box<dyn Read + 'a>,
    /// Whether it is unpacked, and so checked at its end.
    packed: bool,
    raw: Vec<u8>,
}

impl<'a> Member<'a> {
    fn open(
        archive: &'a mut Npz<'_, BufReader<File>>,
        run: &NpzRun<'a>,
        steps: usize,
        path: &'a Path,
    ) -> Result<Member<'a>> {
        let wrong = |reason: String| {
            Error::format(path, format!("array \"{}\": {reason}", escaped(run.name)))
        };
        let Some(mut member) = archive.entry(run.name)? else {
            return Err(Error::format(
                path,
                format!("there is no array \"{}\"", escaped(run.name)),
            ));
        };
        let stored = member.compression() == CompressionMethod::Stored;
        let (start, len) = (member.data_start().filter(|_| stored), member.size());
        let header = Header::read(&mut member).map_err(|fault| fault_in(path, fault))?;
        let dtype = check(&header, None).map_err(wrong)?;
        header.check_len(dtype, len).map_err(wrong)?;
        let end = steps.checked_mul(run.width).and_then(|n| n.checked_add(run.first));
        if end.is_none_or(|end| end > header.entries) || run.width == 0 {
            return Err(wrong(format!(
                "there are {} elements, and {steps} times {} are to be read from number {} on",
                header.entries, run.width, run.first
            )));
        }
        let before = run.first as u64 * dtype.size();
        let failed = |e: io::Error| zip_fault(path, e.into());
        let from: Box<dyn Read> = match start {
            Some(start) => {
                let mut file = open(path)?.0;
                file.seek(SeekFrom::Start(start + header.len + before)).map_err(failed)?;
                // No further than the member goes: what comes behind it is another one.
                let left = header.entries as u64 * dtype.size() - before;
                Box::new(BufReader::with_capacity(1 << 16, file.take(left)))
            }
            None => {
                skip(&mut member, before).map_err(failed)?;
                Box::new(member)
            }
        };
        Ok(Member { run: *run, path, dtype, from, packed: start.is_none(), raw: Vec::new() })
    }

    fn read(&mut self, steps: usize, block: &mut Vec<f64>) -> Result<()> {
        let elements = steps * self.run.width;
        self.raw.resize(elements * self.dtype.size() as usize, 0);
        self.from.read_exact(&mut self.raw).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => Error::format(
                self.path,
                format!("the file ends before the array \"{}\" in it does", escaped(self.run.name)),
            ),
            _ => zip_fault(self.path, e.into()),
        })?;
        block.resize(elements, 0.0);
        self.dtype.load(&self.raw, 0, 1, block);
        Ok(())
    }

    /// Reads what follows, where the archive's sum is checked at the end.
    fn end(mut self) -> Result<()> {
        if self.packed {
            let rest = io::copy(&mut self.from, &mut io::sink());
            rest.map_err(|e| zip_fault(self.path, e.into()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::path::PathBuf;

    use ndarray::{Array1, Array2};
    use tempfile::TempDir;
    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::super::{write_npy, write_npy_integers};
    use super::*;

    /// An archive of 10,000 indices, 3 × 10,000 values and a list of texts.
    fn write(folder: &TempDir, method: CompressionMethod) -> PathBuf {
        let at = |name: &str| folder.path().join(name);
        write_npy(at("index.npy"), &Array1::from_shape_fn(10_000, |i| (i * 7 % 1000) as u16))
            .unwrap();
        write_npy(
            at("value.npy"),
            &Array2::from_shape_fn((3, 10_000), |(m, i)| (m * 20_000 + i) as f32 / 4.0),
        )
        .unwrap();
        write_npy_integers(at("few.npy"), &ndarray::array![1i64, 2, 3]).unwrap();
        let path = at("list.npz");
        let mut zip = ZipWriter::new(File::create(&path).unwrap());
        for name in ["few", "value", "index"] {
            let options = SimpleFileOptions::default().compression_method(method);
            zip.start_file(format!("{name}.npy"), options).unwrap();
            zip.write_all(&std::fs::read(at(&format!("{name}.npy"))).unwrap()).unwrap();
        }
        zip.finish().unwrap();
        path
    }

    fn run(name: &str, first: usize, width: usize) -> NpzRun<'_> {
        NpzRun { name, first, width }
    }

    #[test]
    fn runs_are_what_the_arrays_have_there() {
        let folder = tempfile::tempdir().unwrap();
        for method in [CompressionMethod::Stored, CompressionMethod::Deflated] {
            let path = write(&folder, method);
            for (first, steps) in [(0, 10_000), (9_999, 1), (17, 0), (3, 4096), (1000, 8999)] {
                let runs = [run("index", first, 1), run("value", 10_000 + first, 1)];
                let mut found = 0;
                read_npz_runs(&path, &runs, steps, &mut |blocks| {
                    assert_eq!(blocks[0].len(), blocks[1].len());
                    for (&index, &value) in blocks[0].iter().zip(&blocks[1]) {
                        let i = first + found;
                        assert_eq!(
                            (index, value),
                            ((i * 7 % 1000) as f64, (20_000 + i) as f64 / 4.0)
                        );
                        found += 1;
                    }
                    Ok(())
                })
                .unwrap();
                assert_eq!(found, steps);
            }
            // Two elements of one array to each of another.
            let mut sums = Vec::new();
            read_npz_runs(&path, &[run("value", 1, 2), run("index", 0, 1)], 5000, &mut |blocks| {
                assert_eq!(blocks[0].len(), 2 * blocks[1].len());
                sums.extend(blocks[0].chunks(2).map(|pair| pair[0] + pair[1]));
                Ok(())
            })
            .unwrap();
            assert_eq!((sums.len(), sums[4999]), (5000, (9_999.0 + 20_000.0) / 4.0));
        }
    }

    #[test]
    fn what_is_not_there_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = write(&folder, CompressionMethod::Deflated);
        let error = |runs: &[NpzRun<'_>], steps| {
            read_npz_runs(&path, runs, steps, &mut |_| Ok(())).unwrap_err().to_string()
        };
        let said = error(&[run("index", 0, 1), run("few", 2, 1)], 2);
        assert!(said.contains("\"few\": there are 3 elements"), "{said}");
        assert!(error(&[run("index", usize::MAX, 1)], 2).contains("10000 elements"));
        assert!(error(&[run("index", 0, 0)], 0).contains("\"index\""));
        assert!(error(&[run("none", 0, 1)], 1).contains("there is no array \"none\""));
        // An error of what they are for.
        let stop = |_: &[Vec<f64>]| Err(Error::Setting("enough".into()));
        let said = read_npz_runs(&path, &[run("index", 0, 1)], 9000, &mut { stop }).unwrap_err();
        assert_eq!(said.to_string(), "enough");
    }

    #[test]
    fn damage_is_seen_at_the_end_of_what_is_packed() {
        let folder = tempfile::tempdir().unwrap();
        let path = write(&folder, CompressionMethod::Deflated);
        let mut bytes = std::fs::read(&path).unwrap();
        let late = bytes.len() * 3 / 4;
        bytes[late] ^= 0x55;
        std::fs::write(&path, &bytes).unwrap();
        let both = [run("index", 0, 1), run("value", 0, 1)];
        let said = read_npz_runs(&path, &both, 2, &mut |_| Ok(())).unwrap_err().to_string();
        assert!(said.contains("list.npz"), "{said}");
    }
}
