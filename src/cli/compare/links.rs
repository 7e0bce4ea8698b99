//! Links from a page to others.

use std::path::{Component, Path};

/// What a page links to another file with: the way from the page's folder, so that both can be moved together, and
/// nothing is told of the folders above.
pub fn relative_link(page: &Path, file: &Path) -> Option<String> {
    let (page, file) = (std::path::absolute(page).ok()?, std::path::absolute(file).ok()?);
    let from: Vec<Component<'_>> = page.parent()?.components().collect();
    let to: Vec<Component<'_>> = file.components().collect();
    let shared = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
    let up = from[shared..].iter().map(|_| "..".to_string());
    let down = to[shared..].iter().map(|part| escaped_url(&part.as_os_str().to_string_lossy()));
    Some(up.chain(down).collect::<Vec<String>>().join("/"))
}

/// A part of a path as a link has it.
fn escaped_url(part: &str) -> String {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-_.~".contains(b);
    part.bytes()
        .map(|b| if plain(&b) { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_from_the_page_to_the_file() {
        for (page, file, link) in [
            ("study/page.html", "study/runs/a.html", "runs/a.html"),
            ("page.html", "study/runs/a.html", "study/runs/a.html"),
            ("pages/here/p.html", "a study/runs/50%#1.html", "../../a%20study/runs/50%25%231.html"),
            ("study/p.html", "a.html", "../a.html"),
        ] {
            assert_eq!(relative_link(Path::new(page), Path::new(file)).as_deref(), Some(link));
        }
    }
}
