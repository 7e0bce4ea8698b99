//! A made-up city: pickups by week, weekday, hour and place, as a sum of a few patterns.
//!
//! It has the shape of the Uber tensor of the NNEinFact paper, its mean (0.1 pickups per entry), and
//! about its share of entries that are not zero: nearly all pickups are in few cells of the map.
//!
//! The patterns overlap in time and touch on the map, as real ones do. (Isolated spots would be hard
//! in another way than real data are: any fit that climbs from a random start would get stuck with
//! two spots in one component.)

use ndarray::{Array2, Array3, ArrayD};
use rayon::prelude::*;

use nneinfact_core::data::{Dense, DenseBuilder, Order, uniform_u32};
use nneinfact_core::error::Result;

/// Blobs on the map that each pattern has.
pub const BLOBS: usize = 3;

/// Days of a week and hours of a day.
const DAYS: usize = 7;
const HOURS: usize = 24;

/// The sizes of the tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Size {
    /// Weeks.
    pub weeks: usize,
    /// Rows and columns of the map.
    pub side: usize,
    /// The mean of the counts.
    pub mean: f64,
}

impl Size {
    /// Weeks, weekdays, hours, rows, columns.
    pub fn shape(self) -> [usize; 5] {
        [self.weeks, DAYS, HOURS, self.side, self.side]
    }
}

/// A blob: how far its centre is from that of the map (down, across), how large it is (in height,
/// in width), all in cells, and its weight.
struct Blob(f64, f64, f64, f64, f64);

/// A pattern: when things happen, and where.
pub struct PlantedPattern {
    /// What it stands for.
    pub name: &'static str,
    /// How strong it is in each week.
    pub week: Vec<f64>,
    /// On each weekday, from Monday.
    pub weekday: Vec<f64>,
    /// In each hour.
    pub hour: Vec<f64>,
    /// Rows of the map × blobs.
    rows: Array2<f64>,
    /// Columns of the map × blobs.
    columns: Array2<f64>,
}

impl PlantedPattern {
    /// How strong it is in each cell of the map.
    pub fn map(&self) -> Array2<f64> {
        self.rows.dot(&self.columns.t())
    }

    /// Scales it to a total, and every profile but that of the weeks to a sum of 1.
    fn scaled(mut self, total: f64) -> PlantedPattern {
        let sum = |values: &[f64]| values.iter().sum::<f64>();
        for profile in [&mut self.weekday, &mut self.hour] {
            let scale = 1.0 / sum(profile);
            profile.iter_mut().for_each(|x| *x *= scale);
        }
        let scale = 1.0 / self.map().sum();
        self.rows.mapv_inplace(|x| x * scale);
        let scale = total / sum(&self.week);
        self.week.iter_mut().for_each(|x| *x *= scale);
        self
    }
}

/// The truth behind a tensor of counts: the mean of every entry.
pub struct Planted {
    size: Size,
    components: Vec<PlantedPattern>,
}

/// A bump of width `width` around `centre`, on a circle where there is a `period`.
fn bump(centre: f64, width: f64, period: Option<f64>) -> impl Fn(usize) -> f64 {
    move |x| {
        let distance = (x as f64 - centre).abs();
        let distance = period.map_or(distance, |period| distance.min(period - distance));
        (-0.5 * (distance / width).powi(2)).exp()
    }
}

impl Planted {
    /// The five patterns.
    pub fn new(size: Size) -> Planted {
        let last = (size.weeks.max(2) - 1) as f64;
        let weeks = |f: &dyn Fn(f64) -> f64| -> Vec<f64> {
            (0..size.weeks).map(|w| f(w as f64 / last)).collect()
        };
        let hours = |f: &dyn Fn(usize) -> f64| -> Vec<f64> { (0..HOURS).map(f).collect() };
        let day = |centre, width| bump(centre, width, Some(HOURS as f64));
        let (morning, evening) = (day(8.0, 1.1), day(18.0, 1.4));
        let (night, supper, noon) = (day(23.0, 2.0), day(20.0, 3.0), day(13.5, 2.6));
        let (takeoff, landing) = (day(6.0, 1.5), day(16.0, 3.0));
        let pulse = |x: f64, centre: f64, width: f64| (-0.5 * ((x - centre) / width).powi(2)).exp();

        let total = size.mean * size.shape().iter().map(|&n| n as f64).product::<f64>();
        let component =
            |name, share: f64, week, weekday: [f64; DAYS], hour, blobs: [Blob; BLOBS]| {
                let side = size.side;
                let middle = side as f64 / 2.0;
                // In cells, so that small maps are as sharp as large ones.
                let profile = |at: f64, width: f64| bump(middle + at, width, None);
                let mut rows = Array2::zeros((side, BLOBS));
                let mut columns = Array2::zeros((side, BLOBS));
                for (k, Blob(row, column, height, width, weight)) in blobs.into_iter().enumerate() {
                    let (down, across) = (profile(row, height), profile(column, width));
                    let down: Vec<f64> = (0..side).map(down).collect();
                    let across: Vec<f64> = (0..side).map(across).collect();
                    let scale = weight / (down.iter().sum::<f64>() * across.iter().sum::<f64>());
                    for x in 0..side {
                        rows[[x, k]] = scale * down[x];
                        columns[[x, k]] = across[x];
                    }
                }
                let weekday = weekday.to_vec();
                PlantedPattern { name, week, weekday, hour, rows, columns }.scaled(share * total)
            };
        let components = vec![
            component(
                "commuters",
                0.34,
                weeks(&|x| 1.0 - 0.25 * pulse(x, 0.6, 0.12)),
                [1.0, 1.05, 1.05, 1.05, 0.95, 0.12, 0.08],
                hours(&|h| morning(h) + 0.9 * evening(h) + 0.03),
                [
                    Blob(-3.0, -2.0, 1.6, 0.5, 0.45),
                    Blob(-3.0, -1.0, 0.5, 1.2, 0.3),
                    Blob(-1.5, -2.0, 0.9, 0.9, 0.25),
                ],
            ),
            component(
                "nightlife",
                0.20,
                weeks(&|x| 1.0 + 0.15 * (std::f64::consts::TAU * x).sin()),
                [0.1, 0.12, 0.2, 0.4, 1.0, 1.1, 0.15],
                hours(&|h| night(h) + 0.01),
                [
                    Blob(-3.0, 2.0, 0.5, 1.4, 0.45),
                    Blob(-2.0, 2.0, 1.2, 0.5, 0.3),
                    Blob(-3.0, 0.5, 0.8, 0.8, 0.25),
                ],
            ),
            component(
                "airports",
                0.14,
                weeks(&|_| 1.0),
                [1.0, 0.9, 0.9, 0.95, 1.05, 0.85, 1.1],
                hours(&|h| 0.6 + takeoff(h) + 0.7 * landing(h)),
                [
                    Blob(1.0, 3.0, 0.6, 0.6, 0.5),
                    Blob(2.0, 4.0, 0.6, 0.9, 0.25),
                    Blob(0.0, 3.0, 1.4, 0.5, 0.25),
                ],
            ),
            component(
                "new districts",
                0.18,
                weeks(&|x| (2.2 * (x - 1.0)).exp()),
                [0.8, 0.85, 0.9, 0.95, 1.1, 1.2, 1.0],
                hours(&|h| supper(h) + 0.1),
                [
                    Blob(2.0, -1.0, 1.4, 0.5, 0.4),
                    Blob(3.0, 0.0, 0.5, 1.4, 0.35),
                    Blob(2.0, 0.0, 0.9, 0.9, 0.25),
                ],
            ),
            component(
                "summer weekends",
                0.14,
                weeks(&|x| 0.08 + pulse(x, 0.55, 0.16)),
                [0.06, 0.05, 0.05, 0.06, 0.2, 1.1, 1.0],
                hours(&|h| noon(h) + 0.01),
                [
                    Blob(0.0, -4.0, 0.6, 0.7, 0.4),
                    Blob(1.0, -3.5, 0.5, 1.2, 0.35),
                    Blob(-1.0, -4.0, 1.2, 0.5, 0.25),
                ],
            ),
        ];
        Planted { size, components }
    }

    /// The patterns.
    pub fn components(&self) -> &[PlantedPattern] {
        &self.components
    }

    /// The patterns as factors of `wr,dr,hr,irk,jrk->wdhij`.
    pub fn factors(&self) -> Vec<ArrayD<f64>> {
        let ranks = self.components.len();
        let vectors = |profile: &dyn Fn(&PlantedPattern) -> &[f64]| {
            let n = self.components.first().map_or(0, |c| profile(c).len());
            Array2::from_shape_fn((n, ranks), |(x, r)| profile(&self.components[r])[x]).into_dyn()
        };
        let maps = |profile: &dyn Fn(&PlantedPattern) -> &Array2<f64>| {
            Array3::from_shape_fn((self.size.side, ranks, BLOBS), |(x, r, k)| {
                profile(&self.components[r])[[x, k]]
            })
            .into_dyn()
        };
        vec![
            vectors(&|c| &c.week),
            vectors(&|c| &c.weekday),
            vectors(&|c| &c.hour),
            maps(&|c| &c.rows),
            maps(&|c| &c.columns),
        ]
    }

    /// A way to the means of the entries, one map after another.
    pub fn means(&self) -> PlantedMeans<'_> {
        let maps = self.components.iter().map(|c| c.map().into_raw_vec_and_offset().0).collect();
        PlantedMeans { components: &self.components, maps, days: DAYS, hours: HOURS }
    }

    /// Draws the counts: independent Poisson variables, each a function of the seed and its index.
    pub fn counts(&self, seed: u64) -> Result<Dense> {
        let means = self.means();
        let shape = self.size.shape();
        let (moments, cells) = (DAYS * HOURS, self.size.side * self.size.side);
        let mut builder = DenseBuilder::new(shape.iter().product());
        // Week by week, so that the counts are never there twice.
        let mut week = vec![0u16; moments * cells];
        for w in 0..self.size.weeks {
            week.par_chunks_mut(cells).enumerate().for_each_init(
                || vec![0.0; cells],
                |map, (moment, counts)| {
                    let moment = w * moments + moment;
                    means.at(moment, map);
                    let first = (moment * cells) as u64;
                    for (i, (count, &rate)) in counts.iter_mut().zip(&*map).enumerate() {
                        *count = poisson(rate, seed, first + i as u64);
                    }
                },
            );
            builder.push(&week);
        }
        builder.finish(&shape, Order::C)
    }
}

/// The means of the entries: see [`Planted::means`].
pub struct PlantedMeans<'a> {
    components: &'a [PlantedPattern],
    /// The map of each component, row by row.
    maps: Vec<Vec<f64>>,
    days: usize,
    hours: usize,
}

impl PlantedMeans<'_> {
    /// The means of all cells of the map in an hour; `moment` counts the hours from the start.
    pub fn at(&self, moment: usize, map: &mut [f64]) {
        let (hour, rest) = (moment % self.hours, moment / self.hours);
        let (day, week) = (rest % self.days, rest / self.days);
        map.fill(0.0);
        for (component, places) in self.components.iter().zip(&self.maps) {
            let strength = component.week[week] * component.weekday[day] * component.hour[hour];
            for (to, place) in map.iter_mut().zip(places) {
                *to += strength * place;
            }
        }
    }
}

/// Above this mean, the inversion is done in parts: a sum of Poisson variables is one.
const LARGEST_PART: f64 = 16.0;

/// A Poisson variable by inversion of one uniform number (of one for every part of a large mean).
fn poisson(mean: f64, seed: u64, index: u64) -> u16 {
    if mean <= LARGEST_PART {
        return poisson_part(mean, seed, 0, index);
    }
    let parts = (mean / LARGEST_PART).ceil();
    (0..parts as u32)
        .fold(0u16, |sum, part| sum.saturating_add(poisson_part(mean / parts, seed, part, index)))
}

/// The streams of random numbers that the counts are drawn from begin here.
const STREAM: u32 = 0x4445_4d4f;

#[inline(always)]
fn poisson_part(mean: f64, seed: u64, part: u32, index: u64) -> u16 {
    let uniform = f64::from(uniform_u32(seed, STREAM.wrapping_add(part), index));
    let uniform = (uniform + 0.5) / 4_294_967_296.0;
    // exp(−m) ≥ 1 − m decides nearly all entries, whose mean is tiny, without an exponential.
    if uniform < 1.0 - mean {
        return 0;
    }
    let mut probability = (-mean).exp();
    let mut below = probability;
    let mut count = 0u16;
    // The probability reaches 0 long before the count ends.
    while uniform > below && probability > 0.0 {
        count += 1;
        probability *= mean / f64::from(count);
        below += probability;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Size = Size { weeks: 9, side: 20, mean: 0.3 };

    #[test]
    fn the_mean_is_as_asked() {
        for size in [SMALL, Size { weeks: 1, side: 5, mean: 2.0 }] {
            let planted = Planted::new(size);
            let means = planted.means();
            let mut map = vec![0.0; size.side * size.side];
            let mut sum = 0.0;
            for moment in 0..size.weeks * DAYS * HOURS {
                means.at(moment, &mut map);
                assert!(map.iter().all(|&x| x >= 0.0 && x.is_finite()));
                sum += map.iter().sum::<f64>();
            }
            let mean = sum / size.shape().iter().product::<usize>() as f64;
            assert!((mean / size.mean - 1.0).abs() < 1e-10, "{mean}");
        }
    }

    #[test]
    fn factors_and_rates_are_the_same_model() {
        let planted = Planted::new(SMALL);
        let factors = planted.factors();
        let mut map = vec![0.0; SMALL.side * SMALL.side];
        let (w, d, h, i, j) = (4, 5, 23, 7, 9);
        planted.means().at((w * DAYS + d) * HOURS + h, &mut map);
        let mut sum = 0.0;
        for r in 0..planted.components().len() {
            for k in 0..BLOBS {
                sum += factors[0][[w, r]]
                    * factors[1][[d, r]]
                    * factors[2][[h, r]]
                    * factors[3][[i, r, k]]
                    * factors[4][[j, r, k]];
            }
        }
        let rate = map[i * SMALL.side + j];
        assert!((sum / rate - 1.0).abs() < 1e-12, "{sum} {rate}");
    }

    #[test]
    fn counts_are_poisson() {
        // Mean and variance are both the rate; the tolerance is five standard errors.
        let n = 200_000u64;
        for rate in [0.01f64, 0.7, 5.0, 15.9, 16.1, 300.0] {
            let counts: Vec<f64> = (0..n).map(|i| f64::from(poisson(rate, 3, i))).collect();
            let mean = counts.iter().sum::<f64>() / n as f64;
            let variance = counts.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n as f64;
            let zero = counts.iter().filter(|&&x| x == 0.0).count() as f64 / n as f64;
            assert!((mean - rate).abs() < 5.0 * (rate / n as f64).sqrt(), "{rate}: {mean}");
            let spread = ((rate + 2.0 * rate * rate) / n as f64).sqrt();
            assert!((variance - rate).abs() < 5.0 * spread, "{rate}: {variance}");
            assert!((zero - (-rate).exp()).abs() < 5.0 * (0.25 / n as f64).sqrt(), "{rate}");
        }
        assert_eq!(poisson(0.0, 0, 0), 0);
    }

    #[test]
    fn the_seed_decides() -> Result<()> {
        let planted = Planted::new(SMALL);
        assert_eq!(planted.counts(1)?, planted.counts(1)?);
        assert_ne!(planted.counts(1)?, planted.counts(2)?);
        assert_eq!(planted.counts(1)?.shape(), SMALL.shape());
        Ok(())
    }
}
