//! Texts that were damaged on the way, for tests of what reads them.

use std::path::Path;

use nneinfact_core::error::Result;

/// Checks that a reader of damaged copies of a text gives what it read, or an error that names the file.
pub fn check_reader<T>(text: &str, read: impl Fn(&str, &Path) -> Result<T>) {
    let (mut good, mut bad) = (0, 0);
    for text in damaged_texts(text, 17) {
        match read(&text, Path::new("asked.toml")) {
            Ok(_) => good += 1,
            Err(error) => {
                bad += 1;
                assert!(error.to_string().starts_with("asked.toml: "), "{error}");
            }
        }
    }
    // Changes that are all refused, or all harmless, would test nothing.
    assert!(good > 10 && bad > 10, "{good} {bad}");
}

/// Copies of a text with some changes each: as many as NNEINFACT_MUTATIONS says, or 300.
fn damaged_texts(text: &str, seed: u64) -> impl Iterator<Item = String> {
    const TOKENS: [&str; 16] = [
        "\"",
        "'",
        "[",
        "]",
        "{",
        "}",
        "=",
        "\n",
        "-1",
        "1e400",
        "99999999999999999999",
        "nan",
        "true",
        "[[model]]",
        "->",
        "\u{202e}",
    ];
    let count = std::env::var("NNEINFACT_MUTATIONS").ok().and_then(|n| n.parse().ok());
    let mut state = seed;
    let mut next = move |below: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) as usize) % below.max(1)
    };
    let whole: Vec<char> = text.chars().collect();
    (0..count.unwrap_or(300)).map(move |_| {
        let mut text = whole.clone();
        for _ in 0..1 + next(4) {
            let at = next(text.len());
            let end = (at + next(12)).min(text.len());
            let token = TOKENS[next(TOKENS.len())].chars();
            match next(4) {
                0 => drop(text.splice(at..end, token)),
                1 => drop(text.splice(at..at, token)),
                2 => drop(text.drain(at..end)),
                _ => {
                    let piece = text[at..end].to_vec();
                    let to = next(text.len());
                    drop(text.splice(to..to, piece));
                }
            }
        }
        text.into_iter().collect()
    })
}
