//! The table of a study as text: what is printed, and what is written beside it.

use std::fmt::{self, Write as _};

use super::ranks::ranks_text;
use super::stability::Stability;
use super::study_table::{Mean, Row, StudyTable, number, stopped};
use nneinfact_core::data::SplitKind;

impl fmt::Display for StudyTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.about().join(", "))?;
        if !self.complete {
            let (over, all) = self.progress();
            writeln!(f, "not complete: {over} of {all} runs are done")?;
        }
        if let Some(score) = self.score {
            writeln!(f, "{score}: {}", score.describe())?;
        }
        if self.rows.iter().any(|row| row.stability.is_some()) {
            writeln!(
                f,
                "agreement: of the components of each latent index between the better half of the runs, median and minimum of their cosines"
            )?;
        }
        if self.several_rows() {
            writeln!(f, "*: the best row of its model")?;
        }
        for loss in self.losses() {
            let rows: Vec<&Row> = self.rows.iter().filter(|row| row.loss == loss).collect();
            writeln!(f, "\nloss {loss}")?;
            f.write_str(&self.group(&rows))?;
            for row in rows {
                for failure in &row.failures {
                    // Messages about models have carets under them.
                    let failure = failure.replace('\n', "\n    ");
                    writeln!(f, "  {} failed: {failure}", row.label())?;
                }
            }
        }
        if let (Some(score), true) = (self.score, self.losses().len() > 1) {
            writeln!(
                f,
                "\nby {score}, whatever the loss (losses of different kinds cannot be compared)"
            )?;
            let rows = self.by_score();
            let several = rows.iter().any(|row| row.several);
            let fields = |row: &&Row| -> Vec<String> {
                let value = row.score.map_or(String::new(), |m| m.to_string());
                let mut fields = vec![
                    row.name.clone(),
                    ranks_text(&row.ranks),
                    row.loss.clone(),
                    row.penalty.clone(),
                ];
                fields.extend(several.then(|| row.algorithm.clone()));
                fields.push(value);
                fields
            };
            let mut titles = vec!["model", "ranks", "loss", "penalty"];
            titles.extend(several.then_some("algorithm"));
            titles.push(score.name());
            let mut lines: Vec<Vec<String>> = vec![titles.into_iter().map(String::from).collect()];
            lines.extend(rows.iter().map(fields));
            f.write_str(&aligned(&lines, &[]))?;
        }
        self.write_files(f)?;
        if !self.notes.is_empty() {
            writeln!(f)?;
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "note: {note}"))
    }
}

impl StudyTable {
    /// The data, and how often they were split: the shape first.
    pub(crate) fn about(&self) -> Vec<String> {
        let shape: Vec<String> = self.shape.iter().map(ToString::to_string).collect();
        let plural = |n: usize, what: &str| match n {
            1 => format!("1 {what}"),
            n => format!("{n} {what}s"),
        };
        let mut about = vec![
            shape.join(" × "),
            plural(self.splits, "split"),
            plural(self.starts, "start") + " each",
        ];
        if self.heldout > 0.0 {
            about.push(format!("{} % held out", 100.0 * self.heldout));
        }
        if self.validation > 0.0 {
            about.push(format!("{} % of the rest for validation", 100.0 * self.validation));
        }
        about.extend((self.heldout_as == Some(SplitKind::Strata)).then(|| "by strata".into()));
        about
    }

    /// Whether some model has several rows under a loss, so that it tells something which is the best.
    fn several_rows(&self) -> bool {
        let marked = self.rows.iter().filter(|row| row.best_of_model).count();
        marked < self.rows.iter().filter(|row| row.training_loss.is_some()).count()
    }

    /// Where the best run of every row is, and what makes a page of it.
    fn write_files(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = |file: &String| match &self.folder {
            Some(folder) => folder.join(file).display().to_string(),
            None => file.clone(),
        };
        let files: Vec<(&Row, String)> = self
            .rows
            .iter()
            .filter_map(|row| Some((row, place(row.best.as_ref()?.file.as_ref()?))))
            .collect();
        let Some((_, first)) = files.first() else { return Ok(()) };
        let mut lines = vec![vec!["best run of".to_string(), "file".to_string()]];
        lines.extend(files.iter().map(|(row, file)| vec![row.label(), file.clone()]));
        writeln!(
            f,
            "\n{}\na page of a run, as of the first: nneinfact report {}",
            aligned(&lines, &[]).trim_end(),
            shell(first)
        )
    }

    /// The components of the best row of every model, each with how far other runs agree.
    pub(super) fn components(&self) -> String {
        let mut text = String::from(
            "Components of the best row of each model, largest first, counted from 0 as in the file. A cosine of 1 means that a run has the component too, up to its scale.\n\
             starts: mean over the other starts of its split; splits: over the best starts of the other splits;\n\
             better half: over the better half of the runs, which gives the verdict; all: over all runs, mean and minimum.\n",
        );
        for row in self.rows.iter().filter(|row| row.best_of_model) {
            let (Some(stability), Some(best)) = (&row.stability, &row.best) else { continue };
            let file = best.file.as_ref().map_or(String::new(), |file| format!(", {file}"));
            let _ = writeln!(
                text,
                "\n{}: the components of split {}, start {}{file}; {} of {} other runs in the better half",
                row.label(),
                best.split,
                best.start,
                stability.better,
                stability.fits.saturating_sub(1)
            );
            let mut components = stability.indices.iter().flat_map(|index| &index.components);
            let named = components.any(|component| !component.largest.is_empty());
            let titles = [
                "component",
                "weight",
                "share",
                "starts",
                "splits",
                "better half",
                "all",
                "verdict",
            ];
            let mut lines = vec![titles.map(String::from).to_vec()];
            lines[0].extend(named.then(|| "largest at".into()));
            let cosine = |x: Option<f64>| x.map_or("-".into(), |x| format!("{x:.2}"));
            for index in &stability.indices {
                let mut components: Vec<_> = index.components.iter().collect();
                components.sort_by(|a, b| b.weight.total_cmp(&a.weight));
                for c in components {
                    lines.push(vec![
                        format!("{} {}", index.index, c.component),
                        number(c.weight),
                        format!("{:.1} %", 100.0 * c.share),
                        cosine(c.starts),
                        cosine(c.splits),
                        similarity(c.better),
                        format!("{:.2}/{:.2}", c.mean, c.min),
                        c.verdict.name().into(),
                    ]);
                    if let Some(line) = lines.last_mut().filter(|_| named) {
                        line.push(c.largest.join(", "));
                    }
                }
            }
            text += &aligned(&lines, &[false, true, true, true, true, true, true]);
            for note in &stability.notes {
                let _ = writeln!(text, "  {note}");
            }
        }
        text
    }

    fn group(&self, rows: &[&Row]) -> String {
        let some = |has: &dyn Fn(&Row) -> bool| self.rows.iter().any(has);
        let mean = |value: Option<Mean>| value.map_or("-".into(), |m| m.to_string());
        type Column<'a> = (&'a str, bool, Box<dyn Fn(&Row) -> String + 'a>);
        let several = self.several_rows();
        let name = move |row: &Row| match several && row.best_of_model {
            true => format!("{} *", row.name),
            false => row.name.clone(),
        };
        let mut columns: Vec<Column<'_>> = vec![
            ("model", false, Box::new(name)),
            ("ranks", false, Box::new(|row| ranks_text(&row.ranks))),
        ];
        if some(&|row| row.penalty != "none") {
            columns.push(("penalty", false, Box::new(|row| row.penalty.clone())));
        }
        if some(&|row| row.algorithm != self.rows[0].algorithm) {
            columns.push(("algorithm", false, Box::new(|row| row.algorithm.clone())));
        }
        if some(&|row| row.matched != self.rows[0].matched) {
            let asked = |row: &Row| row.matched.map_or("-".into(), |n| n.to_string());
            columns.push(("asked for", true, Box::new(asked)));
        }
        columns.push(("parameters", true, Box::new(|row| row.parameters.to_string())));
        // Where something is not there, how many splits the means are over.
        if some(&|row| row.runs.iter().any(|run| run.outcome.result().is_none())) {
            let splits = self.splits;
            let of = move |row: &Row| {
                format!("{} of {splits}", row.training_loss.map_or(0, |mean| mean.count))
            };
            columns.push(("splits", true, Box::new(of)));
        }
        if some(&|row| row.heldout_loss.is_some()) {
            columns.push(("held-out", false, Box::new(move |row| mean(row.heldout_loss))));
        }
        if let Some(score) = self.score {
            columns.push((score.name(), false, Box::new(move |row| mean(row.score))));
        }
        if some(&|row| row.validation_loss.is_some()) {
            columns.push(("validation", false, Box::new(move |row| mean(row.validation_loss))));
        }
        columns.push(("training", false, Box::new(move |row| mean(row.training_loss))));
        if self.path.is_some() {
            columns.push(("kept", false, Box::new(Row::kept)));
            let share = |x: f64| format!("{:.0} %", 100.0 * x);
            columns.push(("zeros", true, Box::new(move |row| row.zeros.map_or("-".into(), share))));
            if some(&|row| row.penalty != "none") {
                let penalty = move |row: &Row| mean(row.penalty_value);
                columns.push(("penalty of it", false, Box::new(penalty)));
            }
        }
        let rounded = |value: Option<f64>, digits: usize| {
            value.map_or("-".into(), |x: f64| format!("{x:.digits$}"))
        };
        columns.push(("sweeps", true, Box::new(move |row| rounded(row.sweeps, 0))));
        columns.push((
            "seconds",
            true,
            Box::new(move |row| rounded(row.seconds, if row.seconds < Some(9.95) { 2 } else { 0 })),
        ));
        if some(&|row| row.kkt_residual.is_some()) {
            let residual = |row: &Row| row.kkt_residual.map_or("-".into(), |x| format!("{x:.0e}"));
            columns.push(("KKT", true, Box::new(residual)));
        }
        columns.push(("stopped by", false, Box::new(|row| stopped(&row.stopped_by))));
        if some(&|row| row.stability.is_some()) {
            columns.push(("agreement", false, Box::new(agreement)));
        }
        let mut lines = vec![columns.iter().map(|(title, ..)| title.to_string()).collect()];
        lines.extend(
            rows.iter()
                .map(|row| columns.iter().map(|(_, _, field)| field(row)).collect::<Vec<_>>()),
        );
        let right: Vec<bool> = columns.iter().map(|(_, right, _)| *right).collect();
        aligned(&lines, &right)
    }
}

/// A path as an argument on a command line.
fn shell(path: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,@%\\".contains(c);
    match path.chars().all(plain) {
        true => path.into(),
        false => format!("'{}'", path.replace('\'', "'\\''")),
    }
}

/// Median and least similarity of the components of every latent index, over the better half of the runs.
fn agreement(row: &Row) -> String {
    let Some(stability) = &row.stability else { return "-".into() };
    let each: Vec<String> = stability
        .indices
        .iter()
        .map(|l| format!("{} {:.2}/{:.2}", l.index, l.better_median(), l.better_min()))
        .collect();
    if each.is_empty() { "-".into() } else { each.join(", ") }
}

/// A similarity to two digits, rounded down where rounding would say that it reaches the bound from
/// which on a component is stable.
fn similarity(x: f64) -> String {
    let rounded = (100.0 * x).round() / 100.0;
    let digits = if x < Stability::STABLE && rounded >= Stability::STABLE {
        (100.0 * x).floor() / 100.0
    } else {
        rounded
    };
    format!("{digits:.2}")
}

/// Lines of fields as columns of equal width.
fn aligned(lines: &[Vec<String>], right: &[bool]) -> String {
    let columns = lines.first().map_or(0, Vec::len);
    let width = |c: usize| lines.iter().map(|line| line[c].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for line in lines {
        let fields: Vec<String> = line
            .iter()
            .zip(&widths)
            .enumerate()
            .map(|(c, (field, &width))| match right.get(c) {
                Some(true) => format!("{field:>width$}"),
                _ => format!("{field:<width$}"),
            })
            .collect();
        text.push_str("  ");
        text.push_str(fields.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_by_characters() {
        let lines = vec![vec!["é".into(), "n".into()], vec!["abc".into(), "12".into()]];
        assert_eq!(aligned(&lines, &[false, true]), "  é     n\n  abc  12\n");
    }

    #[test]
    fn what_is_printed_is_on_the_side_of_the_verdict() {
        for (x, text) in [(0.8499, "0.84"), (0.85, "0.85"), (0.846, "0.84"), (0.996, "1.00")] {
            assert_eq!(similarity(x), text);
        }
        assert_eq!([0.843, 0.8449, f64::NAN].map(similarity), ["0.84", "0.84", "NaN"]);
    }

    #[test]
    fn paths_are_quoted_for_a_shell() {
        assert_eq!(shell("study/runs/0a.npz"), "study/runs/0a.npz");
        assert_eq!(shell("my study/it's.npz"), "'my study/it'\\''s.npz'");
    }
}
