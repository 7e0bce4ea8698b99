//! Days, weeks and months, by the proleptic Gregorian calendar.

/// The days from 1970-01-01 to a date. The date is not checked.
pub(crate) fn days_from_civil(year: i32, month: u32, day: u32) -> i32 {
    // Howard Hinnant's days_from_civil: years from March, eras of 400 years.
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month = (month as i32 + 9) % 12;
    let day_of_year = (153 * month + 2) / 5 + day as i32 - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// Year, month and day of a date given by its days from 1970-01-01.
pub(crate) fn civil_from_days(days: i32) -> (i32, u32, u32) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day = days.rem_euclid(146_097);
    let year_of_era = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i32::from(month <= 2);
    (year, month as u32, day_of_month as u32)
}

/// How many days a month has.
pub(crate) fn days_in_month(year: i32, month: u32) -> u32 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// The weekday, counted from Monday.
pub(crate) fn weekday(days: i32) -> u32 {
    (days + 3).rem_euclid(7) as u32
}

/// The number of the week from Monday to Sunday, counted from that of 1970-01-01.
pub(crate) fn week(days: i32) -> i32 {
    (days + 3).div_euclid(7)
}

/// A date as text.
pub(crate) fn date_text(days: i32) -> String {
    let (year, month, day) = civil_from_days(days);
    format!("{year:04}-{month:02}-{day:02}")
}

/// A week as text, `2014-W14`: the year is that of its Thursday.
pub(crate) fn week_text(week: i32) -> String {
    let thursday = week * 7;
    let (year, _, _) = civil_from_days(thursday);
    let number = (thursday - days_from_civil(year, 1, 1)) / 7 + 1;
    format!("{year:04}-W{number:02}")
}

/// Names of weekdays, from Monday.
pub(crate) const WEEKDAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

/// Names of months.
pub(crate) const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

const LONG_WEEKDAYS: [&str; 7] =
    ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

const LONG_MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// The place of an English name of a weekday, long or short.
pub(crate) fn weekday_named(name: &str) -> Option<usize> {
    named(name, &WEEKDAYS, &LONG_WEEKDAYS)
}

/// The place of an English name of a month, long or short.
pub(crate) fn month_named(name: &str) -> Option<usize> {
    named(name, &MONTHS, &LONG_MONTHS)
}

fn named(name: &str, short: &[&str], long: &[&str]) -> Option<usize> {
    let is = |other: &&str| other.eq_ignore_ascii_case(name);
    short.iter().position(is).or_else(|| long.iter().position(is))
}

/// Whether the text is an ISO date, alone or with a time after it. Such texts are in the order of
/// the times that they stand for, as far as they have the same form.
pub(crate) fn is_iso(text: &str) -> bool {
    let bytes = text.as_bytes();
    crate::time::iso(bytes).is_some_and(|time| time.offset.is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_agree_with_jiff() {
        for days in (-800_000..2_000_000).step_by(17).chain(-800..800) {
            let (year, month, day) = civil_from_days(days);
            assert_eq!(days_from_civil(year, month, day), days);
            assert!((1..=days_in_month(year, month)).contains(&day));
            if (-9999..=9999).contains(&year) {
                let date = jiff::civil::date(year as i16, month as i8, day as i8);
                let weekday = date.weekday().to_monday_zero_offset() as u32;
                assert_eq!(super::weekday(days), weekday);
                if year >= 1 {
                    let iso = date.iso_week_date();
                    let text = format!("{:04}-W{:02}", iso.year(), iso.week());
                    assert_eq!(week_text(week(days)), text);
                }
            }
        }
    }
}
