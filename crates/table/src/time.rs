//! Times in cells: ISO 8601, Unix time, or a format that the user gives; and zones.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::fmt::strtime::BrokenDownTime;
use jiff::fmt::temporal::Pieces;
use jiff::tz::TimeZone;

use crate::calendar::{days_from_civil, days_in_month};
use crate::error::{Error, Result};
use crate::number;
use crate::text::{plain, shown};

const DAY: i64 = 86_400;
/// The years from -9999 to 9999, in seconds.
const MOST_SECONDS: i64 = 253_402_300_799;
const LEAST_SECONDS: i64 = -377_705_116_800;

/// A time of the clock and calendar at some place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Moment {
    /// Days from 1970-01-01.
    pub days: i32,
    /// Seconds from midnight.
    pub second: u32,
}

/// How times are written.
#[derive(Clone, Debug, PartialEq, Default)]
pub(crate) enum TimeFormat {
    /// ISO 8601, or Unix time in seconds or milliseconds where the number of digits tells.
    #[default]
    Automatic,
    /// Unix time, in so many parts of a second.
    Unix(f64),
    /// As `strptime`.
    Custom(String),
}

impl TimeFormat {
    pub fn parse(text: &str) -> Result<TimeFormat> {
        Ok(match text {
            "auto" | "iso" => TimeFormat::Automatic,
            "unix" => TimeFormat::Unix(1.0),
            "unix-ms" => TimeFormat::Unix(1e3),
            "unix-us" => TimeFormat::Unix(1e6),
            "unix-ns" => TimeFormat::Unix(1e9),
            _ => {
                // A directive that is not known cannot be written either.
                let example = DateTime::constant(2014, 4, 1, 0, 11, 0, 0);
                let known = example
                    .to_zoned(TimeZone::UTC)
                    .and_then(|time| jiff::fmt::strtime::format(text, &time));
                if !text.contains('%') || known.is_err() {
                    return Err(Error::Setting(format!(
                        "the time format {} cannot be read{}: auto, unix, unix-ms, unix-us, unix-ns or a format as '%m/%d/%Y %H:%M:%S' is expected",
                        shown(text.as_bytes()),
                        known.err().map(|e| format!(" ({e})")).unwrap_or_default()
                    )));
                }
                TimeFormat::Custom(text.into())
            }
        })
    }
}

/// Where times are from and where they are shown.
#[derive(Clone, Debug, Default)]
pub(crate) struct Zones {
    /// The zone of times that do not say theirs; without one they are taken as they stand.
    pub from: Option<TimeZone>,
    /// The zone that times are shown in.
    pub to: Option<TimeZone>,
}

impl Zones {
    /// `America/New_York`, or `UTC->America/New_York`.
    pub fn parse(text: &str) -> Result<Zones> {
        let zone = |name: &str| {
            let name = name.trim();
            if name.eq_ignore_ascii_case("utc") || name.eq_ignore_ascii_case("z") {
                return Ok(TimeZone::UTC);
            }
            TimeZone::get(name).map_err(|_| {
                Error::Setting(format!(
                    "the time zone {} is not known: a name as America/New_York is expected, or two as UTC->America/New_York",
                    shown(name.as_bytes())
                ))
            })
        };
        Ok(match text.split_once("->") {
            Some((from, to)) => Zones { from: Some(zone(from)?), to: Some(zone(to)?) },
            None => Zones { from: None, to: Some(zone(text)?) },
        })
    }
}

/// Reads the times of a column.
#[derive(Debug)]
pub(crate) struct TimeReader {
    format: TimeFormat,
    zones: Zones,
    /// The last cell and its time: many rows have the same.
    last: (Vec<u8>, Moment),
}

impl TimeReader {
    pub fn new(format: TimeFormat, zones: Zones) -> TimeReader {
        TimeReader { format, zones, last: Default::default() }
    }

    /// The time in a cell, or why there is none.
    pub fn read(&mut self, cell: &[u8]) -> Result<Moment, String> {
        if !cell.is_empty() && cell == self.last.0 {
            return Ok(self.last.1);
        }
        let time = match &self.format {
            TimeFormat::Automatic => automatic(cell.trim_ascii()),
            TimeFormat::Unix(parts) => match number::parse(cell) {
                Some(x) => seconds_of(x / parts).ok_or_else(|| beyond(cell)),
                None => Err(format!("{} is not a Unix time", shown(cell))),
            },
            TimeFormat::Custom(format) => custom(format, cell.trim_ascii()),
        }?;
        let moment = self.place(time).ok_or_else(|| beyond(cell))?;
        self.last.0.clear();
        self.last.0.extend_from_slice(cell);
        self.last.1 = moment;
        Ok(moment)
    }

    /// Brings a time to the zone that it is shown in.
    fn place(&self, time: Time) -> Option<Moment> {
        let Zones { from, to } = &self.zones;
        let instant = match (time.offset, from) {
            (Some(offset), _) if to.is_some() => Some(time.seconds - i64::from(offset)),
            (None, Some(from)) => {
                let civil =
                    jiff::tz::Offset::UTC.to_datetime(Timestamp::from_second(time.seconds).ok()?);
                // In the hour that there is twice the first; in that which is skipped, later.
                Some(from.to_ambiguous_timestamp(civil).compatible().ok()?.as_second())
            }
            _ => None,
        };
        let seconds = match (instant, to) {
            (Some(instant), Some(to)) => {
                let offset = to.to_offset(Timestamp::from_second(instant).ok()?);
                instant + i64::from(offset.seconds())
            }
            _ => time.seconds,
        };
        if !(LEAST_SECONDS..=MOST_SECONDS).contains(&seconds) {
            return None;
        }
        let days = i32::try_from(seconds.div_euclid(DAY)).ok()?;
        Some(Moment { days, second: seconds.rem_euclid(DAY) as u32 })
    }
}

fn beyond(cell: &[u8]) -> String {
    format!("{} is beyond the years -9999 to 9999", shown(cell))
}

/// A time as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Time {
    /// Seconds from 1970-01-01 00:00 by the clock that it was read from.
    seconds: i64,
    /// How far that clock is ahead of UTC, in seconds, where the text says so.
    pub offset: Option<i32>,
}

fn seconds_of(unix: f64) -> Option<Time> {
    let seconds = unix.floor();
    let inside = (LEAST_SECONDS as f64..=MOST_SECONDS as f64).contains(&seconds);
    inside.then_some(Time { seconds: seconds as i64, offset: Some(0) })
}

/// ISO 8601, or Unix time where the number of digits tells which: 9 or 10 digits are seconds from
/// 1973 to 2286, 12 or 13 are milliseconds of the same years.
fn automatic(cell: &[u8]) -> Result<Time, String> {
    if let Some(time) = iso(cell) {
        return Ok(time);
    }
    if let Some(x) = number::parse(cell) {
        let digits = cell.iter().take_while(|b| b.is_ascii_digit()).count();
        let parts = match digits {
            9 | 10 => 1.0,
            12 | 13 => 1e3,
            // The year, the month or the hour in a column of its own.
            1..=4 if digits == cell.len() => {
                return Err(format!(
                    "{} is a number and no time: a column that holds the year, the month or the hour already is a mode by its name alone; a time of few digits needs its format, %H%M say",
                    shown(cell)
                ));
            }
            _ => {
                return Err(format!(
                    "the number {} could be a date or a Unix time: give the time format, '%Y%m%d' or unix, say",
                    shown(cell)
                ));
            }
        };
        return seconds_of(x / parts).ok_or_else(|| beyond(cell));
    }
    other_iso(cell).ok_or_else(|| {
        format!(
            "{} is not a time in ISO 8601 or Unix time: give the time format, as '%m/%d/%Y %H:%M'",
            shown(cell)
        )
    })
}

/// The usual forms of ISO 8601: `2014-04-01`, or with `T` or a space `00:11`, `00:11:30`,
/// `00:11:30.5` and after it nothing, `Z`, `-04:00` or `-0400`.
pub(crate) fn iso(cell: &[u8]) -> Option<Time> {
    let two = |at: usize| -> Option<u32> {
        let (a, b) = (cell.get(at)?.wrapping_sub(b'0'), cell.get(at + 1)?.wrapping_sub(b'0'));
        (a <= 9 && b <= 9).then(|| u32::from(a) * 10 + u32::from(b))
    };
    let is = |at: usize, byte: u8| cell.get(at) == Some(&byte);
    if !(is(4, b'-') && is(7, b'-')) {
        return None;
    }
    let (year, month, day) = ((two(0)? * 100 + two(2)?) as i32, two(5)?, two(8)?);
    if !(1..=12).contains(&month) || day < 1 || day > days_in_month(year, month) {
        return None;
    }
    let midnight = i64::from(days_from_civil(year, month, day)) * DAY;
    if cell.len() == 10 {
        return Some(Time { seconds: midnight, offset: None });
    }
    if !(is(10, b'T') || is(10, b' ') || is(10, b't')) || !is(13, b':') {
        return None;
    }
    let (hour, minute) = (two(11)?, two(14)?);
    let mut at = 16;
    let mut second = 0;
    if is(at, b':') {
        second = two(17)?;
        at = 19;
        if is(at, b'.') || is(at, b',') {
            let digits = cell.get(at + 1..)?.iter().take_while(|b| b.is_ascii_digit()).count();
            if digits == 0 {
                return None;
            }
            at += 1 + digits;
        }
    }
    // A leap second is in the minute before it.
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let second = second.min(59);
    let seconds = midnight + i64::from(hour * 3600 + minute * 60 + second);
    let offset = match cell.get(at..)? {
        [] => None,
        [b'Z' | b'z'] => Some(0),
        [sign @ (b'+' | b'-'), rest @ ..] => {
            let minutes = match rest.len() {
                2 => 0,
                4 => two(at + 3)?,
                5 if rest[2] == b':' => two(at + 4)?,
                _ => return None,
            };
            let hours = two(at + 1)?;
            if hours > 24 || minutes > 59 {
                return None;
            }
            let seconds = (hours * 3600 + minutes * 60) as i32;
            Some(if *sign == b'-' { -seconds } else { seconds })
        }
        _ => return None,
    };
    Some(Time { seconds, offset })
}

fn of_civil(civil: DateTime, offset: Option<i32>) -> Time {
    let days = days_from_civil(civil.year().into(), civil.month() as u32, civil.day() as u32);
    let second =
        i64::from(civil.hour()) * 3600 + i64::from(civil.minute()) * 60 + i64::from(civil.second());
    Time { seconds: i64::from(days) * DAY + second, offset }
}

/// Rarer forms: without separators, with the name of a zone, years with a sign.
fn other_iso(cell: &[u8]) -> Option<Time> {
    // Digits come first, or a sign before a year.
    if !cell.first().is_some_and(|b| b.is_ascii_digit() || matches!(b, b'+' | b'-')) {
        return None;
    }
    let pieces = Pieces::parse(cell).ok()?;
    let civil = pieces.date().to_datetime(pieces.time().unwrap_or_default());
    let offset = match pieces.to_numeric_offset() {
        Some(offset) => Some(offset.seconds()),
        None => match pieces.to_time_zone().ok()? {
            Some(zone) => Some(
                zone.to_ambiguous_timestamp(civil)
                    .compatible()
                    .ok()
                    .map(|instant| zone.to_offset(instant).seconds())?,
            ),
            None => None,
        },
    };
    Some(of_civil(civil, offset))
}

fn custom(format: &str, cell: &[u8]) -> Result<Time, String> {
    let fault = |reason: String| {
        let (cell, format) = (shown(cell), shown(format.as_bytes()));
        format!("{cell} is not a time as {format}: {}", plain(&reason))
    };
    let time = BrokenDownTime::parse(format, cell).map_err(|e| fault(e.to_string()))?;
    let offset = time.offset().map(|offset| offset.seconds());
    let civil = match time.to_datetime() {
        Ok(civil) => civil,
        Err(_) => match time.to_date() {
            Ok(date) => date.to_datetime(jiff::civil::Time::midnight()),
            Err(reason) => {
                let instant = time.to_timestamp().map_err(|_| fault(reason.to_string()))?;
                return Ok(Time { seconds: instant.as_second(), offset: Some(0) });
            }
        },
    };
    Ok(of_civil(civil, offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(format: &str, zone: Option<&str>, cell: &str) -> Result<String, String> {
        let format = TimeFormat::parse(format).unwrap();
        let zones = zone.map(|zone| Zones::parse(zone).unwrap()).unwrap_or_default();
        let m = TimeReader::new(format, zones).read(cell.as_bytes())?;
        let (hour, minute) = (m.second / 3600, m.second / 60 % 60);
        Ok(format!("{} {hour:02}:{minute:02}", crate::calendar::date_text(m.days)))
    }

    #[test]
    fn forms_of_iso() {
        for (cell, expected) in [
            ("2014-04-01", "2014-04-01 00:00"),
            ("2014-04-01T13:05", "2014-04-01 13:05"),
            (" 2014-04-01 13:05:59.999 ", "2014-04-01 13:05"),
            ("2014-04-01T13:05:59Z", "2014-04-01 13:05"),
            ("2014-04-01T13:05:59-0400", "2014-04-01 13:05"),
            ("2014-04-01T13:05:59+05:30", "2014-04-01 13:05"),
            ("20140401T130559", "2014-04-01 13:05"),
            ("2014-04-01T13:05[America/New_York]", "2014-04-01 13:05"),
            ("2016-02-29", "2016-02-29 00:00"),
            ("2016-12-31T23:59:60Z", "2016-12-31 23:59"),
            ("1396310400", "2014-04-01 00:00"),
            ("1396310400000", "2014-04-01 00:00"),
            ("1396310400.75", "2014-04-01 00:00"),
            ("0001-01-01", "0001-01-01 00:00"),
        ] {
            assert_eq!(read("auto", None, cell).as_deref(), Ok(expected), "{cell}");
        }
        for cell in ["2015-02-29", "2014-13-01", "2014-04-01T25:00", "x", "20140401", "2014", "-"] {
            assert!(read("auto", None, cell).is_err(), "{cell}");
        }
    }

    #[test]
    fn zones_and_formats() {
        let ny = Some("America/New_York");
        let read_ny = |cell| read("auto", ny, cell).unwrap();
        // Winter and summer; the hour that is skipped and that which is there twice.
        assert_eq!(read_ny("2014-01-01T12:00Z"), "2014-01-01 07:00");
        assert_eq!(read_ny("2014-07-01T12:00Z"), "2014-07-01 08:00");
        assert_eq!(read_ny("2014-03-09T06:59Z"), "2014-03-09 01:59");
        assert_eq!(read_ny("2014-03-09T07:00Z"), "2014-03-09 03:00");
        assert_eq!(read_ny("2014-11-02T05:30Z"), "2014-11-02 01:30");
        assert_eq!(read_ny("2014-11-02T06:30Z"), "2014-11-02 01:30");
        assert_eq!(read_ny("2014-07-01T12:00"), "2014-07-01 12:00");
        assert_eq!(read_ny("1404216000"), "2014-07-01 08:00");
        let from = Some("UTC->America/New_York");
        assert_eq!(read("auto", from, "2014-07-01T12:00").unwrap(), "2014-07-01 08:00");
        let from = Some("America/New_York->UTC");
        assert_eq!(read("auto", from, "2014-11-02T01:30").unwrap(), "2014-11-02 05:30");
        assert_eq!(read("auto", from, "2014-03-09T02:30").unwrap(), "2014-03-09 07:30");

        let us = "%m/%d/%Y %H:%M:%S";
        assert_eq!(read(us, None, "4/1/2014 0:11:00").unwrap(), "2014-04-01 00:11");
        assert_eq!(read("%Y%m%d", None, "20140401").unwrap(), "2014-04-01 00:00");
        assert_eq!(
            read("%Y-%m-%d %H:%M %z", ny, "2014-07-01 12:00 +0000").unwrap(),
            "2014-07-01 08:00"
        );
        assert_eq!(read("%d.%m.%y", None, "1.4.14").unwrap(), "2014-04-01 00:00");
        assert_eq!(read("unix-ms", None, "-1").unwrap(), "1969-12-31 23:59");
        assert_eq!(read("%s", ny, "1404216000").unwrap(), "2014-07-01 08:00");
        assert!(read(us, None, "13/1/2014 0:11:00").is_err());
        assert!(TimeFormat::parse("%J").is_err());
        assert!(TimeFormat::parse("seconds").is_err());
        assert!(Zones::parse("Mars/Base").is_err());
    }
}
