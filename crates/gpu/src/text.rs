//! Filling in the marked places of the shaders.

use nneinfact_core::error::{Error, Result};

/// Replaces every `$name` of a template. Where a line holds nothing but `$name`, the lines of the
/// text take that line's indentation, and an empty text takes the line away.
///
/// A name that is not given, and one that the template lacks, is an error: both are slips of the
/// generator, not of a user.
pub(super) fn fill(template: &str, words: &[(&str, String)]) -> Result<String> {
    let find =
        |name: &str| {
            words.iter().find(|(n, _)| *n == name).map(|(_, text)| text.as_str()).ok_or_else(|| {
                Error::Device(format!("a shader asks for ${name}, which nothing gives"))
            })
        };
    let mut used = vec![false; words.len()];
    let mut mark = |name: &str| {
        if let Some(at) = words.iter().position(|(n, _)| *n == name) {
            used[at] = true;
        }
    };
    let mut out = String::with_capacity(template.len() * 2);
    for line in template.lines() {
        let bare = line.trim();
        if let Some(name) = bare.strip_prefix('$')
            && name.chars().all(is_word)
        {
            mark(name);
            let indent = &line[..line.len() - line.trim_start().len()];
            for text in find(name)?.lines() {
                if !text.is_empty() {
                    out.push_str(indent);
                    out.push_str(text);
                }
                out.push('\n');
            }
            continue;
        }
        let mut rest = line;
        while let Some(at) = rest.find('$') {
            out.push_str(&rest[..at]);
            let after = &rest[at + 1..];
            let end = after.find(|c| !is_word(c)).unwrap_or(after.len());
            mark(&after[..end]);
            out.push_str(find(&after[..end])?);
            rest = &after[end..];
        }
        out.push_str(rest);
        out.push('\n');
    }
    match used.iter().position(|&u| !u) {
        Some(at) => Err(Error::Device(format!("no place for ${} in a shader", words[at].0))),
        None => Ok(out),
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::fill;

    #[test]
    fn fills_words_and_blocks() {
        let template = "let k = $k;\n    $block\n    $none\nend($k)\n";
        let words = [("k", "3u".into()), ("block", "a\n\nb".into()), ("none", String::new())];
        let text = fill(template, &words).unwrap();
        assert_eq!(text, "let k = 3u;\n    a\n\n    b\nend(3u)\n");
        assert!(fill("$x", &[]).is_err());
        assert!(fill("x", &[("x", String::new())]).is_err());
    }
}
