//! The made-up pickups as the table that a city would publish: a row for each, with its time and
//! place.

use std::io::{self, Read, Write as _};

use nneinfact_core::data::{Dense, uniform_u32};

/// Minutes, seconds and places within a cell are drawn from this stream of random numbers.
const STREAM: u32 = 0x5249_4445;

/// The south-western corner of the map and its size, in hundred-thousandths of a degree.
const SOUTH: u32 = 4_055_000;
const WEST: u32 = 7_420_000;
const HEIGHT: u32 = 40_000;
const WIDTH: u32 = 50_000;

/// A CSV of rides, written as it is read: `time,lat,lon`.
pub struct Rides<'a> {
    counts: &'a Dense,
    side: usize,
    seed: u64,
    /// The hours since the beginning that are written next.
    moment: usize,
    /// How many rides were written.
    rides: u64,
    bytes: Vec<u8>,
    read: usize,
}

impl<'a> Rides<'a> {
    /// The rides that counts over weeks, weekdays, hours and a square map are of.
    pub fn new(counts: &'a Dense, seed: u64) -> Rides<'a> {
        let side = counts.shape().last().copied().unwrap_or(1).max(1);
        let bytes = b"time,lat,lon\n".to_vec();
        Rides { counts, side, seed, moment: 0, rides: 0, bytes, read: 0 }
    }

    /// The modes that lead back from the table to the counts.
    pub fn modes(&self) -> String {
        let degrees = |x: u32| f64::from(x) / 1e5;
        let range = |from: f64, length: u32| {
            let short = |x: f64| format!("{x:.5}").trim_end_matches('0').to_string();
            let step = degrees(length) / self.side as f64;
            format!("{}:{}:{}", short(from), short(from + degrees(length)), short(step))
        };
        format!(
            "w=week(time),d=weekday(time),h=hour(time),i=bin(lat,{}),j=bin(lon,{})",
            range(degrees(SOUTH), HEIGHT),
            range(-degrees(WEST), WIDTH)
        )
    }

    /// Writes the rides of the next hour; `false` after the last.
    fn next_hour(&mut self) -> io::Result<bool> {
        let cells = self.side * self.side;
        let first = self.moment * cells;
        if first + cells > self.counts.len() {
            return Ok(false);
        }
        let mut counts = vec![0.0; cells];
        self.counts.load(first, 1, &mut counts);
        // The first day is a Monday.
        let (day, hour) = (self.moment / 24, self.moment % 24);
        let (month, date) = date(day);
        let hour = format!("2014-{month:02}-{date:02} {hour:02}:");
        let step = |length: u32| length / self.side as u32;
        for (cell, &count) in counts.iter().enumerate() {
            for _ in 0..count as u64 {
                let random = uniform_u32(self.seed, STREAM, self.rides);
                self.rides += 1;
                let second = random % 3600;
                // Not at the edges of a cell, where rounding would decide.
                let inside = |step: u32, bits: u32| step / 8 + bits % (step * 3 / 4).max(1);
                let [south, west] = [step(HEIGHT), step(WIDTH)];
                let lat = SOUTH + (cell / self.side) as u32 * south + inside(south, random >> 4);
                let lon = WEST - (cell % self.side) as u32 * west - inside(west, random >> 18);
                writeln!(
                    self.bytes,
                    "{hour}{:02}:{:02},{}.{:05},-{}.{:05}",
                    second / 60,
                    second % 60,
                    lat / 100_000,
                    lat % 100_000,
                    lon / 100_000,
                    lon % 100_000
                )?;
            }
        }
        self.moment += 1;
        Ok(true)
    }
}

/// The month and the day of so many days after Monday, 31 March 2014.
fn date(day: usize) -> (usize, usize) {
    let lengths = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let (mut month, mut rest) = (2, 30 + day);
    while rest >= lengths[month % 12] {
        rest -= lengths[month % 12];
        month += 1;
    }
    (month % 12 + 1, rest + 1)
}

impl Read for Rides<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        while self.read == self.bytes.len() {
            self.bytes.clear();
            self.read = 0;
            if !self.next_hour()? {
                return Ok(0);
            }
        }
        let n = to.len().min(self.bytes.len() - self.read);
        to[..n].copy_from_slice(&self.bytes[self.read..self.read + n]);
        self.read += n;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::super::planted::{Planted, Size};
    use super::*;
    use nneinfact_table::Table;

    #[test]
    fn the_table_leads_back_to_the_counts() {
        for side in [5, 20, 100] {
            let planted = Planted::new(Size { weeks: 3, side, mean: 20.0 / (side * side) as f64 });
            let counts = planted.counts(4).unwrap();
            let rides = Rides::new(&counts, 4);
            let modes = rides.modes();
            let table = Table::from_reader(rides, "rides.csv").modes(&modes).unwrap();
            let table = table.read().unwrap();
            assert_eq!(table.shape(), counts.shape());
            assert_eq!(table.counts.rows, table.counts.kept());
            assert_eq!(table.modes[0].labels, ["2014-W14", "2014-W15", "2014-W16"]);
            let mut all = vec![0.0; counts.len()];
            for (entry, &value) in table.values.iter().enumerate() {
                let place = table.coords.iter().zip(counts.shape());
                let place = place.fold(0, |at, (list, n)| at * n + list[entry] as usize);
                all[place] = value;
            }
            assert!(counts.iter().eq(all), "{side}");
        }
    }
}
