//! Values of arguments, from text.

use std::path::PathBuf;

use clap::ValueEnum;

use nneinfact_core::engine::Precision;
use nneinfact_core::error::{Error, Result};
use nneinfact_core::loss::EntryParameter;
use nneinfact_fit::io;
use nneinfact_fit::{Algorithm, Format};

/// The values of `--algorithm`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AlgorithmArg {
    /// One factor at a time, a pass over the data for each: Algorithm 1 of NNEinFact
    Block,
    /// Several factors from one pass over the data
    Grouped,
    /// Grouped, with a guarded extrapolation: fewer sweeps to the same loss
    Accelerated,
    /// Adam on the logarithms of the factors, for comparison: the loss may rise on its way (see
    /// --learning-rate)
    Adam,
    /// Newton steps with a logarithmic barrier, in double precision on the processor, for the euclidean loss:
    /// many digits in few sweeps, for data that are mostly zeros or missing, or fit into memory as dense tensors
    Barrier,
}

impl From<AlgorithmArg> for Algorithm {
    fn from(algorithm: AlgorithmArg) -> Algorithm {
        match algorithm {
            AlgorithmArg::Block => Algorithm::Block,
            AlgorithmArg::Grouped => Algorithm::Grouped,
            AlgorithmArg::Accelerated => Algorithm::Accelerated,
            AlgorithmArg::Adam => Algorithm::Adam,
            AlgorithmArg::Barrier => Algorithm::Barrier,
        }
    }
}

/// The values of `--precision`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PrecisionArg {
    /// Single precision
    F32,
    /// Double precision
    F64,
}

impl From<PrecisionArg> for Precision {
    fn from(precision: PrecisionArg) -> Precision {
        match precision {
            PrecisionArg::F32 => Precision::F32,
            PrecisionArg::F64 => Precision::F64,
        }
    }
}

/// The values of `--data-as`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DataAsArg {
    /// Whichever is predicted to be faster
    Auto,
    /// A value for every entry
    Dense,
    /// The entries that are not zero, with their coordinates
    Sparse,
}

impl From<DataAsArg> for Format {
    fn from(format: DataAsArg) -> Format {
        match format {
            DataAsArg::Auto => Format::Auto,
            DataAsArg::Dense => Format::Dense,
            DataAsArg::Sparse => Format::Sparse,
        }
    }
}

/// A parameter of a loss: one number, or a file with a number per entry.
#[derive(Clone, Debug, PartialEq)]
pub enum NumberOrFile {
    /// One number for all entries.
    Number(f64),
    /// A `.npy` or `.npz` of the data's shape.
    File(PathBuf),
}

impl NumberOrFile {
    /// What reads as a number is one, everything else is a path.
    pub fn parse(text: &str) -> Result<NumberOrFile, String> {
        match text.trim() {
            "" => Err("a number or a file is expected".into()),
            text => Ok(text.parse().map_or_else(|_| Self::File(text.into()), Self::Number)),
        }
    }

    /// The parameter itself; reads the file.
    pub fn entry_parameter(&self) -> Result<EntryParameter> {
        match self {
            NumberOrFile::Number(number) => Ok(EntryParameter::Scalar(*number)),
            NumberOrFile::File(path) => Ok(EntryParameter::Tensor(io::read_array_f64(path, None)?)),
        }
    }
}

/// A rank, as in `r=10`.
pub fn rank(text: &str) -> Result<(char, usize), String> {
    let expected = "a letter and its rank are expected, as in r=10";
    let (letter, size) = text.split_once('=').ok_or(expected)?;
    let mut letters = letter.trim().chars();
    let (Some(letter), None) = (letters.next(), letters.next()) else {
        return Err(format!("`{}` is not one letter: {expected}", letter.trim()));
    };
    let size = size.trim();
    let size = size.parse().map_err(|_| {
        format!("the rank of {letter} is `{size}`, but a whole number of at least 1 is expected")
    })?;
    Ok((letter, size))
}

/// A number of bytes, as in `512MiB` or `2GB`. As usual, `2G` is 2 · 1024³ bytes and `2GB` is
/// 2 · 1000³.
pub fn bytes(text: &str) -> Result<u64, String> {
    let expected = "a number of bytes is expected, as in 512MiB or 2GB";
    let text = text.trim();
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: f64 = number.parse().map_err(|_| expected)?;
    let unit = unit.trim().to_ascii_lowercase();
    let (prefix, base) = match unit.as_str() {
        "" | "b" => ("", 1.0),
        unit => match unit.strip_suffix("ib").or((unit.len() == 1).then_some(unit)) {
            Some(prefix) => (prefix, 1024f64),
            None => (unit.strip_suffix('b').ok_or(expected)?, 1000.0),
        },
    };
    let power = match prefix {
        "" if base == 1.0 => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        _ => return Err(expected.into()),
    };
    // The cast saturates: more than 2⁶⁴ bytes are no limit either way.
    Ok((number * base.powi(power)) as u64)
}

/// One of the values that an option has, as a key of a file.
pub fn value<T: ValueEnum>(key: &str, text: &str) -> Result<T> {
    T::from_str(text, false).map_err(|_| {
        let names: Vec<String> = T::value_variants()
            .iter()
            .filter_map(|v| Some(v.to_possible_value()?.get_name().to_string()))
            .collect();
        Error::Setting(format!("{key}: {text:?} is not one of {}", names.join(", ")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks() {
        assert_eq!(rank("r=10"), Ok(('r', 10)));
        assert_eq!(rank(" K = 3 "), Ok(('K', 3)));
        for bad in ["", "r", "r10", "=4", "rs=4", "r=", "r=-1", "r=2.5", "r=two", "r=3=4"] {
            assert!(rank(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn numbers_of_bytes() {
        let good = [
            ("0", 0),
            ("123", 123),
            ("123B", 123),
            ("4k", 4096),
            ("512MiB", 512 << 20),
            ("512 mib", 512 << 20),
            ("2GB", 2_000_000_000),
            ("1.5G", 3 << 29),
            ("1TiB", 1 << 40),
            ("99999999999T", u64::MAX),
        ];
        for (text, expected) in good {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
        for bad in ["", "GB", "-1", "1X", "1XB", "1.2.3", "2 G B", "ib", "1ib", "1e9", "1µ"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn numbers_and_files() {
        assert_eq!(NumberOrFile::parse("2.5"), Ok(NumberOrFile::Number(2.5)));
        assert_eq!(NumberOrFile::parse("-1e3"), Ok(NumberOrFile::Number(-1000.0)));
        assert_eq!(NumberOrFile::parse("n.npy"), Ok(NumberOrFile::File("n.npy".into())));
        assert!(NumberOrFile::parse(" ").is_err());
    }
}
