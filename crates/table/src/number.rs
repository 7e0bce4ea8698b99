//! Numbers in cells.

/// The finite number that a cell holds, with or without spaces around it.
pub(crate) fn parse(cell: &[u8]) -> Option<f64> {
    let cell = cell.trim_ascii();
    // Whole numbers of up to 15 digits are exact, and the usual case.
    if cell.len() <= 15
        && let Some(n) = whole(cell)
    {
        return Some(n as f64);
    }
    let x: f64 = std::str::from_utf8(cell).ok()?.parse().ok()?;
    x.is_finite().then_some(x)
}

/// A number of digits only, of at most 19 of them.
pub(crate) fn whole(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 19 {
        return None;
    }
    digits.iter().try_fold(0u64, |n, &b| {
        let digit = b.wrapping_sub(b'0');
        (digit <= 9).then(|| n * 10 + u64::from(digit))
    })
}

/// Rounds as numpy does: half to even, of the number scaled by a power of ten.
pub(crate) fn round(x: f64, digits: i32) -> f64 {
    let power = 10f64.powi(digits.abs());
    let rounded = if digits >= 0 {
        (x * power).round_ties_even() / power
    } else {
        (x / power).round_ties_even() * power
    };
    // A negative zero is a zero; a number that is too large to scale has no digits to round.
    if rounded.is_finite() { rounded + 0.0 } else { x }
}
