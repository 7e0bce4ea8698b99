//! Values of a column as texts.

use std::io::Write;

use parquet::basic::{ConvertedType, LogicalType, TimeUnit, Type};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{DataType, Int96};
use parquet::errors::ParquetError;
use parquet::schema::types::ColumnDescriptor;

use crate::calendar;

const DAY: i64 = 86_400;
/// The days of the years from -9999 to 9999, counted from 1970.
const DAYS: std::ops::RangeInclusive<i64> = -4_371_587..=2_932_896;

/// What the values of a column are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Form {
    /// Numbers, truth values or text, by what they are stored as.
    Plain,
    /// Whole numbers without a sign.
    Unsigned,
    Date,
    /// Parts of a second from midnight.
    Time {
        parts: i64,
    },
    /// Parts of a second from 1970, by the clock of some place or of UTC.
    Timestamp {
        parts: i64,
        utc: bool,
    },
    /// Whole numbers over a power of ten.
    Decimal {
        digits: u32,
    },
    Uuid,
}

impl Form {
    /// What a column holds, or why it is not read, as what follows its name.
    pub fn of(column: &ColumnDescriptor) -> Result<Form, String> {
        if column.max_rep_level() > 0 {
            return Err("holds lists, and a cell has to be one value: explode it first".into());
        }
        let stored = column.physical_type();
        let parts = |unit: &TimeUnit| match unit {
            TimeUnit::MILLIS => 1_000,
            TimeUnit::MICROS => 1_000_000,
            TimeUnit::NANOS => 1_000_000_000,
        };
        let form = match (column.logical_type_ref(), column.converted_type()) {
            (Some(LogicalType::Date), _) | (_, ConvertedType::DATE) => Form::Date,
            (Some(LogicalType::Time(time)), _) => Form::Time { parts: parts(&time.unit) },
            (Some(LogicalType::Timestamp(time)), _) => {
                Form::Timestamp { parts: parts(&time.unit), utc: time.is_adjusted_to_u_t_c }
            }
            (_, ConvertedType::TIME_MILLIS) => Form::Time { parts: 1_000 },
            (_, ConvertedType::TIME_MICROS) => Form::Time { parts: 1_000_000 },
            (_, ConvertedType::TIMESTAMP_MILLIS) => Form::Timestamp { parts: 1_000, utc: true },
            (_, ConvertedType::TIMESTAMP_MICROS) => Form::Timestamp { parts: 1_000_000, utc: true },
            (Some(LogicalType::Decimal(_)), _) | (_, ConvertedType::DECIMAL) => {
                // So many fit in 16 bytes.
                if column.type_precision() > 38 {
                    return Err(
                        "holds decimals of more than 38 digits: write fewer, or floats".into()
                    );
                }
                match u32::try_from(column.type_scale()).ok().filter(|&digits| digits <= 38) {
                    Some(digits) => Form::Decimal { digits },
                    None => return Err("holds decimals with a scale outside 0 to 38".into()),
                }
            }
            (Some(LogicalType::Uuid), _) => Form::Uuid,
            (Some(LogicalType::Integer(whole)), _) if !whole.is_signed => Form::Unsigned,
            (
                _,
                ConvertedType::UINT_8
                | ConvertedType::UINT_16
                | ConvertedType::UINT_32
                | ConvertedType::UINT_64,
            ) => Form::Unsigned,
            (Some(LogicalType::Float16), _) => {
                return Err("holds floats of 16 bits: write them as float32".into());
            }
            (Some(LogicalType::Bson), _) | (_, ConvertedType::BSON | ConvertedType::INTERVAL) => {
                return Err("holds neither text nor numbers nor times".into());
            }
            _ => Form::Plain,
        };
        let fits = match form {
            Form::Plain => stored != Type::FIXED_LEN_BYTE_ARRAY,
            Form::Unsigned => matches!(stored, Type::INT32 | Type::INT64),
            Form::Date => stored == Type::INT32,
            Form::Time { .. } | Form::Timestamp { .. } => {
                matches!(stored, Type::INT32 | Type::INT64)
            }
            Form::Uuid => stored == Type::FIXED_LEN_BYTE_ARRAY,
            Form::Decimal { .. } => matches!(
                stored,
                Type::INT32 | Type::INT64 | Type::BYTE_ARRAY | Type::FIXED_LEN_BYTE_ARRAY
            ),
        };
        match fits {
            true => Ok(form),
            false => Err(format!("holds {stored} without saying what they mean")),
        }
    }
}

/// Some rows of a column as texts. A missing value is an empty text.
pub(super) struct Cells {
    texts: Vec<u8>,
    ends: Vec<usize>,
    /// How much of the path to the value there is, for every row.
    levels: Vec<i16>,
    /// The level of values that are there.
    highest: i16,
}

impl Cells {
    pub fn of(column: &ColumnDescriptor) -> Cells {
        let highest = column.max_def_level();
        Cells { texts: Vec::new(), ends: Vec::new(), levels: Vec::new(), highest }
    }

    pub fn get(&self, row: usize) -> &[u8] {
        let start = if row == 0 { 0 } else { self.ends[row - 1] };
        &self.texts[start..self.ends[row]]
    }

    /// Reads the next rows, and says how many there were.
    pub fn read(
        &mut self,
        reader: &mut ColumnReader,
        rows: usize,
        form: Form,
    ) -> Result<usize, ParquetError> {
        match reader {
            ColumnReader::BoolColumnReader(reader) => self.fill(reader, rows, |to, x| {
                to.extend_from_slice(if *x { b"true" } else { b"false" });
            }),
            ColumnReader::Int32ColumnReader(reader) => {
                self.fill(reader, rows, |to, &x| match form {
                    Form::Unsigned => write_text(to, x as u32),
                    _ => write_whole(to, x.into(), form),
                })
            }
            ColumnReader::Int64ColumnReader(reader) => {
                self.fill(reader, rows, |to, &x| match form {
                    Form::Unsigned => write_text(to, x as u64),
                    _ => write_whole(to, x, form),
                })
            }
            ColumnReader::Int96ColumnReader(reader) => self.fill(reader, rows, write_int96),
            // The shortest text that is this number, as a CSV file has it.
            ColumnReader::FloatColumnReader(reader) => {
                self.fill(reader, rows, |to, &x| match is_long(x.into()) {
                    true => write_text(to, format_args!("{x:e}")),
                    false => write_text(to, x),
                })
            }
            ColumnReader::DoubleColumnReader(reader) => {
                self.fill(reader, rows, |to, &x| match is_long(x) {
                    true => write_text(to, format_args!("{x:e}")),
                    false => write_text(to, x),
                })
            }
            ColumnReader::ByteArrayColumnReader(reader) => {
                self.fill(reader, rows, |to, x| write_bytes(to, x.data(), form))
            }
            ColumnReader::FixedLenByteArrayColumnReader(reader) => {
                self.fill(reader, rows, |to, x| write_bytes(to, x.data(), form))
            }
        }
    }

    fn fill<T: DataType>(
        &mut self,
        reader: &mut ColumnReaderImpl<T>,
        rows: usize,
        write: impl Fn(&mut Vec<u8>, &T::T),
    ) -> Result<usize, ParquetError> {
        let Cells { texts, ends, levels, highest } = self;
        texts.clear();
        ends.clear();
        levels.clear();
        let mut values: Vec<T::T> = Vec::with_capacity(rows);
        let (read, _, _) = reader.read_records(rows, Some(levels), None, &mut values)?;
        let mut values = values.iter();
        for row in 0..read {
            if *highest == 0 || levels.get(row) == Some(highest) {
                let Some(value) = values.next() else { return Ok(row) };
                write(texts, value);
            }
            ends.push(texts.len());
        }
        Ok(read)
    }
}

fn write_text(to: &mut Vec<u8>, text: impl std::fmt::Display) {
    // Writing into a vector does not fail.
    let _ = write!(to, "{text}");
}

/// Whether a number has many zeros when it is written without an exponent.
fn is_long(x: f64) -> bool {
    x.is_finite() && x != 0.0 && !(1e-5..1e16).contains(&x.abs())
}

fn write_whole(to: &mut Vec<u8>, x: i64, form: Form) {
    match form {
        Form::Plain | Form::Unsigned | Form::Uuid => write_text(to, x),
        Form::Date => match date(x) {
            Some(date) => write_text(to, date),
            None => write_text(to, x),
        },
        Form::Time { parts } => write_clock(to, x.div_euclid(parts), x.rem_euclid(parts), parts),
        Form::Timestamp { parts, utc } => {
            if !write_moment(to, x.div_euclid(parts), x.rem_euclid(parts), parts) {
                write_text(to, x);
            } else if utc {
                to.push(b'Z');
            }
        }
        Form::Decimal { digits } => write_decimal(to, x.into(), digits),
    }
}

/// Days and nanoseconds of the day, as Spark and Impala have written times.
fn write_int96(to: &mut Vec<u8>, x: &Int96) {
    const NANOS: i64 = 1_000_000_000;
    let [low, high, days] = [0, 1, 2].map(|i| i64::from(x.data().get(i).copied().unwrap_or(0)));
    let nanos = (high << 32) | low;
    // They are counted from noon of -4713-11-24.
    let seconds = (days - 2_440_588) * DAY + nanos.div_euclid(NANOS);
    if !write_moment(to, seconds, nanos.rem_euclid(NANOS), NANOS) {
        write_text(to, seconds);
    }
}

/// A date of the calendar.
fn date(days: i64) -> Option<String> {
    let days = DAYS.contains(&days).then(|| i32::try_from(days).ok())??;
    Some(calendar::date_text(days))
}

/// Writes the time so many seconds and parts after 1970; `false` where the calendar has no such.
fn write_moment(to: &mut Vec<u8>, seconds: i64, fraction: i64, parts: i64) -> bool {
    let Some(date) = date(seconds.div_euclid(DAY)) else { return false };
    write_text(to, date);
    to.push(b' ');
    write_clock(to, seconds.rem_euclid(DAY), fraction, parts);
    true
}

fn write_clock(to: &mut Vec<u8>, seconds: i64, fraction: i64, parts: i64) {
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    write_text(to, format_args!("{hour:02}:{minute:02}:{second:02}"));
    if fraction != 0 {
        let digits = parts.ilog10() as usize;
        write_text(to, format_args!(".{fraction:0digits$}"));
    }
}

fn write_decimal(to: &mut Vec<u8>, x: i128, digits: u32) {
    let whole = 10u128.pow(digits);
    let sign = if x < 0 { "-" } else { "" };
    let (before, after) = (x.unsigned_abs() / whole, x.unsigned_abs() % whole);
    match digits as usize {
        0 => write_text(to, x),
        digits => write_text(to, format_args!("{sign}{before}.{after:0digits$}")),
    }
}

fn write_bytes(to: &mut Vec<u8>, bytes: &[u8], form: Form) {
    match form {
        Form::Decimal { digits } => match whole_of(bytes) {
            Some(x) => write_decimal(to, x, digits),
            None => write_text(to, format_args!("a decimal of {} bytes", bytes.len())),
        },
        Form::Uuid => {
            for (i, byte) in bytes.iter().enumerate() {
                let dash = if matches!(i, 4 | 6 | 8 | 10) { "-" } else { "" };
                write_text(to, format_args!("{dash}{byte:02x}"));
            }
        }
        _ => to.extend_from_slice(bytes),
    }
}

/// A whole number that fits in 16 bytes, the highest first, with a sign.
fn whole_of(bytes: &[u8]) -> Option<i128> {
    let negative = bytes.first()? & 0x80 != 0;
    let sign = if negative { 0xff } else { 0 };
    // Bytes that say the sign and nothing else.
    let (above, bytes) = bytes.split_at(bytes.len().saturating_sub(16));
    let same = bytes.first().is_some_and(|byte| (byte & 0x80 != 0) == negative);
    if !same || above.iter().any(|&byte| byte != sign) {
        return None;
    }
    let mut all = [sign; 16];
    all[16 - bytes.len()..].copy_from_slice(bytes);
    Some(i128::from_be_bytes(all))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl Fn(&mut Vec<u8>)) -> String {
        let mut text = Vec::new();
        write(&mut text);
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn times_and_dates() {
        let timestamp =
            |x, parts, utc| written(|to| write_whole(to, x, Form::Timestamp { parts, utc }));
        assert_eq!(timestamp(1_396_311_060_000, 1_000, false), "2014-04-01 00:11:00");
        assert_eq!(
            timestamp(1_396_311_060_000_007, 1_000_000, true),
            "2014-04-01 00:11:00.000007Z"
        );
        assert_eq!(timestamp(-1, 1_000_000_000, false), "1969-12-31 23:59:59.999999999");
        // No calendar has them: numbers that no time is read from.
        assert_eq!(timestamp(i64::MIN, 1_000, true), i64::MIN.to_string());
        assert_eq!(written(|to| write_whole(to, -719_528, Form::Date)), "0000-01-01");
        assert_eq!(written(|to| write_whole(to, *DAYS.end(), Form::Date)), "9999-12-31");
        assert_eq!(written(|to| write_whole(to, i64::MAX, Form::Date)), i64::MAX.to_string());
        assert_eq!(
            written(|to| write_whole(to, 61_500, Form::Time { parts: 1_000 })),
            "00:01:01.500"
        );
        let mut old = Int96::new();
        old.set_data(0x7fff_ffff, 0, 2_440_589);
        assert_eq!(written(|to| write_int96(to, &old)), "1970-01-02 00:00:02.147483647");
        old.set_data(u32::MAX, u32::MAX, u32::MAX);
        assert!(!written(|to| write_int96(to, &old)).is_empty());
    }

    #[test]
    fn numbers_and_bytes() {
        let decimal =
            |bytes: &[u8]| written(|to| write_bytes(to, bytes, Form::Decimal { digits: 2 }));
        assert_eq!(decimal(&[0x04, 0xd2]), "12.34");
        assert_eq!(decimal(&[0xff]), "-0.01");
        assert_eq!(
            decimal(&[0x80; 16]),
            format!("{}", i128::from_be_bytes([0x80; 16])).chars().rev().enumerate().fold(
                String::new(),
                |text, (i, c)| {
                    if i == 2 { format!("{c}.{text}") } else { format!("{c}{text}") }
                }
            )
        );
        assert_eq!(written(|to| write_decimal(to, -7, 0)), "-7");
        assert_eq!(written(|to| write_decimal(to, 7, 38)), format!("0.{}7", "0".repeat(37)));
        assert!(decimal(&[1; 17]).contains("17 bytes"));
        assert!(decimal(&[0; 0]).contains("0 bytes"));
        // What is stored in more bytes than it needs.
        let wide = |sign: u8, last: u8| {
            let mut bytes = [sign; 32];
            bytes[31] = last;
            decimal(&bytes)
        };
        assert_eq!((wide(0, 0x7b), wide(0xff, 0x85)), ("1.23".into(), "-1.23".into()));
        let mut above = [0; 17];
        above[1] = 0x80;
        assert!(decimal(&above).contains("17 bytes"));
        let uuid: Vec<u8> = (0..16).collect();
        assert_eq!(
            written(|to| write_bytes(to, &uuid, Form::Uuid)),
            "00010203-0405-0607-0809-0a0b0c0d0e0f"
        );
        for (x, long) in [(0.0, false), (2013.0, false), (1e-6, true), (-1e300, true), (0.1, false)]
        {
            assert_eq!(is_long(x), long, "{x}");
        }
    }
}
