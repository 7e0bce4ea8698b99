//! Powers of two that keep the products of factors in the range of single precision.

use nneinfact_core::parallel;

/// The largest entry of a tensor, which is at least 0. NaN counts as less than any number.
pub(crate) fn largest(tensor: &[f64]) -> f64 {
    let larger = |a: f64, b: f64| if b > a { b } else { a };
    // Sixteen maxima side by side, as each comparison waits for the one before.
    let of = |share: &[f64]| {
        let mut most = [0.0; 16];
        let chunks = share.chunks_exact(most.len());
        let rest = chunks.remainder().iter().copied().fold(0.0, larger);
        for chunk in chunks {
            most.iter_mut().zip(chunk).for_each(|(most, &x)| *most = larger(*most, x));
        }
        most.into_iter().fold(rest, larger)
    };
    let shares: Vec<&[f64]> = tensor.chunks(parallel::ENTRIES).collect();
    parallel::map(shares.len(), &|n| of(shares[n])).into_iter().fold(0.0, larger)
}

/// Powers of two, one for each tensor with the largest entry given, that bring these near 1 but leave
/// the product of all as it is: products of factors may be far out of the range of single precision
/// although ŷ is not.
pub(crate) fn normalizers(largest: &[f64]) -> Vec<f64> {
    let exponents: Vec<i32> = largest
        .iter()
        .map(|&x| if x > 0.0 && x.is_finite() { x.log2().floor() as i32 } else { 0 })
        .collect();
    let total: i32 = exponents.iter().sum();
    let mut shifts: Vec<i32> = exponents.iter().map(|e| -e).collect();
    if let Some(last) = shifts.last_mut() {
        *last += total;
    }
    shifts.iter().map(|&s| 2f64.powi(s)).collect()
}
