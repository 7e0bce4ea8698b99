//! Texts of users in messages.

use std::ops::Range;

/// The text on a line of its own, with carets under a range of its bytes; one under the place where
/// something is missing.
pub(crate) fn carets(text: &str, at: &Range<usize>) -> String {
    let end = at.end.max(at.start + 1);
    let mut shown = String::from("\n  ");
    // Control characters (a tab, say) would shift the carets.
    shown.extend(text.chars().map(|c| if c.is_control() { ' ' } else { c }));
    shown.push_str("\n  ");
    for (byte, c) in text.char_indices() {
        if byte >= end {
            break;
        }
        shown.push(if byte >= at.start { '^' } else { ' ' });
        let _ = c;
    }
    if at.start >= text.len() {
        shown.push('^');
    }
    shown
}
