//! What factors are multiplied with in an engine.

use ndarray::ArrayD;

/// Beyond this power of two either way, the unit of the data is shared by all factors.
const FIRST_ALONE: i32 = 60;

/// Powers of two, one for each factor, whose product is 1 / `unit`: what an engine on the host multiplies
/// each with to have ŷ in the unit of the data.
///
/// The first takes all of it. Where the unit is far from 1, single precision could hold neither such a first
/// factor nor the others: then they are [level](level_scales), or those of `before`, where a fit goes on that
/// had them.
#[must_use]
pub fn host_scales(
    start: &[ArrayD<f64>],
    factors: usize,
    unit: f64,
    before: Option<&[f64]>,
) -> Vec<f64> {
    if exponent(unit).abs() > FIRST_ALONE {
        return match before {
            Some(scales) if scales.len() == factors && multiply_to(scales, unit) => scales.to_vec(),
            _ => level_scales(start, factors, unit),
        };
    }
    (0..factors).map(|l| if l == 0 { 1.0 / unit } else { 1.0 }).collect()
}

/// Powers of two, one for each factor, that bring their largest entries to the same size and their
/// product to 1 / `unit`: single precision holds neither very large nor very small factors, and ŷ
/// depends on their product alone. `start` may be empty, where a program is compiled and not run.
#[must_use]
pub fn level_scales(start: &[ArrayD<f64>], factors: usize, unit: f64) -> Vec<f64> {
    let exponents: Vec<i32> = (0..factors)
        .map(|l| {
            let entries = start.get(l).into_iter().flatten();
            let largest = entries.copied().fold(0.0, f64::max);
            if largest > 0.0 && largest.is_finite() { largest.log2().floor() as i32 } else { 0 }
        })
        .collect();
    let goal = exponents.iter().sum::<i32>() - exponent(unit);
    let count = exponents.len().max(1) as i32;
    exponents
        .iter()
        .enumerate()
        .map(|(l, e)| {
            // The remainder goes to the first factors.
            let share = goal.div_euclid(count) + i32::from((l as i32) < goal.rem_euclid(count));
            2f64.powi(share - e)
        })
        .collect()
}

/// Whether these are powers of two whose product is 1 / `unit`.
fn multiply_to(scales: &[f64], unit: f64) -> bool {
    let power = |&scale: &f64| scale.is_normal() && scale == 2f64.powi(exponent(scale));
    let sum: i64 = scales.iter().map(|&scale| i64::from(exponent(scale))).sum();
    scales.iter().all(power) && sum == -i64::from(exponent(unit))
}

fn exponent(unit: f64) -> i32 {
    unit.log2().round() as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_of_before_are_kept_where_they_fit() {
        let unit = 2f64.powi(-332);
        let of = |before: &[f64]| host_scales(&[], 2, unit, Some(before));
        let level = [2f64.powi(166), 2f64.powi(166)];
        let before = [2f64.powi(200), 2f64.powi(132)];
        assert_eq!(of(&before), before);
        for wrong in [&[2f64.powi(332)][..], &[0.0, 1.0], &[f64::NAN; 2], &[3.0, 1.0], &[1.0; 2]] {
            assert_eq!(of(wrong), level, "{wrong:?}");
        }
        assert_eq!(host_scales(&[], 2, 0.5, Some(&before)), [2.0, 1.0]);
    }

    #[test]
    fn products_are_one_over_the_unit() {
        let start = |sizes: &[f64]| -> Vec<ArrayD<f64>> {
            sizes.iter().map(|&x| ArrayD::from_elem(vec![2, 3], x)).collect()
        };
        for e in [-1000, -332, -61, -60, -7, 0, 13, 60, 61, 400, 997] {
            let unit = 2f64.powi(e);
            // One of the factors may be given, and be of any size.
            let each = unit.powf(1.0 / 3.0);
            for start in [start(&[each; 3]), start(&[1.0, unit, 1.0]), start(&[0.0, unit, 3.0])] {
                let scales = host_scales(&start, 3, unit, None);
                let product: i32 = scales.iter().map(|s| exponent(*s)).sum();
                assert_eq!(product, -e);
                if e.abs() <= 60 {
                    assert_eq!(scales, [1.0 / unit, 1.0, 1.0]);
                } else if start[0][[0, 0]] > 0.0 {
                    let sizes = start.iter().zip(&scales).map(|(f, s)| f[[0, 0]] * s);
                    assert!(sizes.clone().all(|x| (0.1..10.0).contains(&x)), "{e} {sizes:?}");
                }
            }
        }
    }
}
