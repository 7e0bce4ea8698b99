//! `nneinfact match`: which components of two fits belong together.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;

use super::answer::check_output;
use super::predict::load;
use super::print;
use super::summary::{number, percent};
use nneinfact_core::error::{Error, Result};
use nneinfact_fit::io;
use nneinfact_insight::matching::{Matching, matching_by_labels};
use nneinfact_insight::report::match_page;

/// The arguments of `match`.
#[derive(Debug, Args)]
pub struct MatchArgs {
    /// A fit as `nneinfact fit --out` writes it, or a known truth as such a file
    #[arg(value_name = "A.npz")]
    first: PathBuf,

    /// Another one, of the same model or of one that has modes in common with it
    #[arg(value_name = "B.npz")]
    second: PathBuf,

    /// Compare the columns of this factor, named by its letters, in place of the parts of ŷ
    #[arg(long, value_name = "FACTOR")]
    on: Option<String>,

    /// The model of files that do not say it
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,

    /// Where to write the pairs
    #[arg(long, value_name = "MATCH.json")]
    out: Option<PathBuf>,

    /// Where to write a page with the pairs side by side
    #[arg(long, value_name = "PAGE.html")]
    report: Option<PathBuf>,
}

/// Reads two fits, pairs their components, and writes what was asked for.
pub fn run(args: &MatchArgs) -> Result<()> {
    let inputs = [args.first.as_path(), args.second.as_path()];
    for (option, path) in [("--out", &args.out), ("--report", &args.report)] {
        if let Some(path) = path {
            check_output(option, path, &inputs)?;
        }
    }
    if args.out.is_some() && args.out == args.report {
        return Err(Error::Setting("--out and --report are the same file".into()));
    }
    let model = |path: &Path| match &args.model {
        // A file that says its model is taken at its word.
        Some(model) => load(path, None).or_else(|_| load(path, Some(model))),
        None => load(path, None),
    };
    let (first, second) = (model(&args.first)?, model(&args.second)?);
    let found = matching_by_labels(&first, &second, args.on.as_deref())?;
    let mut text = shown(&found);
    if let Some(path) = &args.out {
        io::write_json(path, &found)?;
        let _ = writeln!(text, "written    {}", path.display());
    }
    if let Some(path) = &args.report {
        let name =
            |path: &Path| path.file_name().map_or(String::new(), |n| n.to_string_lossy().into());
        let page =
            match_page(&found, (&first, &name(&args.first)), (&second, &name(&args.second)))?;
        io::write_text(path, &page)?;
        let _ = writeln!(text, "page       {}", path.display());
    }
    print(&text)
}

/// The pairs as a table.
fn shown(found: &Matching) -> String {
    let mut text = String::new();
    // Formatting into a string does not fail.
    let _ = match &found.factor {
        Some(factor) => writeln!(text, "compared   the columns of {factor}"),
        None => writeln!(text, "compared   the parts of ŷ over {}", found.modes),
    };
    for index in &found.indices {
        let _ = write!(
            text,
            "{} and {}    {} pairs, mean cosine {}",
            index.first,
            index.second,
            index.pairs.len(),
            number(index.mean_cosine)
        );
        let _ = match index.factor_match_score {
            Some(score) => writeln!(text, ", factor match score {}", number(score)),
            None => writeln!(text),
        };
        let _ = writeln!(text, "  first second    cosine  share of ŷ");
        for pair in &index.pairs {
            let _ = writeln!(
                text,
                "  {:>5} {:>6} {:>9.4}  {} and {}",
                pair.first,
                pair.second,
                pair.cosine,
                percent(100.0 * pair.first_share),
                percent(100.0 * pair.second_share)
            );
        }
        for (which, alone) in
            [("first", &index.unmatched_first), ("second", &index.unmatched_second)]
        {
            if !alone.is_empty() {
                let list: Vec<String> = alone.iter().map(ToString::to_string).collect();
                let _ = writeln!(text, "  without a match in the {which}: {}", list.join(", "));
            }
        }
    }
    for note in &found.notes {
        let _ = writeln!(text, "note       {note}");
    }
    text
}
