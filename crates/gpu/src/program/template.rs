//! Filling in the templates of shaders.
//!
//! In a template, `$name` stands for a word. Lines of their own are `{{include NAME}}` for a file of
//! `shaders/include`, and `{{if FLAG}}`, `{{else}}` and `{{end}}` around lines that are kept where a
//! flag is set. Included lines take the indentation of the line that includes them.

use nneinfact_core::error::{Error, Result};

/// Fills in a template.
///
/// `flags` decide about `{{if}}`. `words` are the texts of the `$name`s: where a line holds nothing
/// but `$name`, the lines of the text take that line's indentation, and an empty text takes the line
/// away.
///
/// A name that is not given, and one that the template lacks, is an error: both are slips of the
/// generator, not of a user.
pub(crate) fn fill(
    template: &str,
    flags: &[(&str, bool)],
    words: &[(&str, String)],
) -> Result<String> {
    let template = included(template)?;
    for (flag, _) in flags {
        if !template.contains(&format!("{{{{if {flag}}}}}")) {
            return fault(format!("no place for the flag {flag} in a shader"));
        }
    }
    for (name, _) in words {
        if !names(&template).any(|n| n == *name) {
            return fault(format!("no place for ${name} in a shader"));
        }
    }
    substituted(&chosen(&template, flags)?, words)
}

fn fault<T>(what: String) -> Result<T> {
    Err(Error::Device(what))
}

/// The instruction of a line `{{…}}`.
fn instruction(line: &str) -> Option<&str> {
    line.trim().strip_prefix("{{")?.strip_suffix("}}").map(str::trim)
}

fn indentation(line: &str) -> &str {
    &line[..line.len() - line.trim_start().len()]
}

/// Appends lines, indented.
fn push(out: &mut String, indent: &str, text: &str) {
    for line in text.lines() {
        if !line.is_empty() {
            out.push_str(indent);
            out.push_str(line);
        }
        out.push('\n');
    }
}

/// The template with its includes, and theirs.
fn included(template: &str) -> Result<String> {
    let mut out = String::with_capacity(2 * template.len());
    for line in template.lines() {
        match instruction(line).and_then(|i| i.strip_prefix("include ")) {
            Some(name) => match nneinfact_shaders::include(name) {
                Some(text) => push(&mut out, indentation(line), &included(text)?),
                None => return fault(format!("a shader includes {name}, which is not there")),
            },
            None => {
                out.push_str(line);
                out.push('\n');
            }
        }
    }
    Ok(out)
}

/// The lines that the flags leave.
fn chosen(template: &str, flags: &[(&str, bool)]) -> Result<String> {
    // Of every open `{{if}}`, whether its present branch is kept.
    let mut open: Vec<bool> = Vec::new();
    let mut out = String::with_capacity(template.len());
    for line in template.lines() {
        match instruction(line) {
            Some("else") => match open.last_mut() {
                Some(kept) => *kept = !*kept,
                None => return fault("a shader has {{else}} without {{if}}".into()),
            },
            Some("end") if open.pop().is_none() => {
                return fault("a shader has {{end}} without {{if}}".into());
            }
            Some("end") => {}
            Some(other) => {
                let name = other.strip_prefix("if ").unwrap_or(other);
                match flags.iter().find(|(flag, _)| *flag == name) {
                    Some(&(_, set)) => open.push(set),
                    None => return fault(format!("a shader asks for {name}, which nothing gives")),
                }
            }
            None if open.iter().all(|&kept| kept) => {
                out.push_str(line);
                out.push('\n');
            }
            None => {}
        }
    }
    match open.is_empty() {
        true => Ok(out),
        false => fault("a shader has {{if}} without {{end}}".into()),
    }
}

/// The names after dollar signs.
fn names(template: &str) -> impl Iterator<Item = &str> {
    template.split('$').skip(1).map(|after| &after[..word_end(after)])
}

/// Where the word that a text begins with ends.
fn word_end(text: &str) -> usize {
    text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len())
}

/// The template with its words.
fn substituted(template: &str, words: &[(&str, String)]) -> Result<String> {
    let find = |name: &str| match words.iter().find(|(n, _)| *n == name) {
        Some((_, text)) => Ok(text.as_str()),
        None => fault(format!("a shader asks for ${name}, which nothing gives")),
    };
    let mut out = String::with_capacity(template.len() * 2);
    for line in template.lines() {
        if let Some(name) = line.trim().strip_prefix('$')
            && word_end(name) == name.len()
        {
            push(&mut out, indentation(line), find(name)?);
            continue;
        }
        let mut rest = line;
        while let Some(at) = rest.find('$') {
            out.push_str(&rest[..at]);
            let after = &rest[at + 1..];
            let end = word_end(after);
            out.push_str(find(&after[..end])?);
            rest = &after[end..];
        }
        out.push_str(rest);
        out.push('\n');
    }
    Ok(out)
}

/// Lines, indented by one step.
pub(crate) fn indented(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 8);
    push(&mut out, "    ", text);
    out
}

#[cfg(test)]
mod tests {
    use super::{fill, included};

    #[test]
    fn fills_words_and_blocks() {
        let template = "let k = $k;\n    $block\n    $none\nend($k)\n";
        let words = [("k", "3u".into()), ("block", "a\n\nb".into()), ("none", String::new())];
        let text = fill(template, &[], &words).unwrap();
        assert_eq!(text, "let k = 3u;\n    a\n\n    b\nend(3u)\n");
        assert!(fill("$x", &[], &[]).is_err());
        assert!(fill("x", &[], &[("x", String::new())]).is_err());
    }

    #[test]
    fn flags_choose_lines() {
        let template =
            "a\n{{if b}}\n  b $x\n  {{if c}}\n  c\n  {{end}}\n{{else}}\n  d\n{{end}}\n\ne\n";
        let words = [("x", "1".to_string())];
        let text = |b, c| fill(template, &[("b", b), ("c", c)], &words).unwrap();
        assert_eq!(text(true, true), "a\n  b 1\n  c\n\ne\n");
        assert_eq!(text(true, false), "a\n  b 1\n\ne\n");
        assert_eq!(text(false, true), "a\n  d\n\ne\n");
        for wrong in ["{{if b}}", "{{end}}", "{{else}}", "{{if c}}\n{{end}}", "{{what}}"] {
            assert!(fill(wrong, &[("b", true)], &[]).is_err(), "{wrong}");
        }
        assert!(fill("a", &[("b", true)], &[]).is_err());
    }

    #[test]
    fn includes_are_there_and_indented() {
        for (name, text) in nneinfact_shaders::INCLUDES {
            let found = included(&format!("    {{{{include {name}}}}}\n")).unwrap();
            let first = text.lines().next().unwrap();
            assert!(found.starts_with(&format!("    {first}")) || first.starts_with("{{"));
        }
        assert!(included("{{include nothing}}").is_err());
    }
}
