//! The summary of a fit in plain words.

use std::fmt::Write as _;
use std::path::Path;

use rayon::prelude::*;

use super::output::Written;
use super::read_data::ReadData;
use nneinfact_core::data::{
    CooTensor, Dense, Labels, Observations, Part, Role, SplitKind, Storage, Strata, printable,
};
use nneinfact_core::error::{Result, bytes};
use nneinfact_core::loss::Loss;
use nneinfact_fit::{Fit, StoppedBy};

/// The KKT residual of a fit.
pub fn kkt(residual: f64) -> String {
    format!("KKT residual {residual:.1e} (0 where no small change helps)")
}

/// A list of facts, each under a short title.
#[derive(Default)]
pub struct FitSummary {
    text: String,
}

impl FitSummary {
    const WIDTH: usize = 11;

    /// Adds a fact.
    pub fn add(&mut self, title: &str, fact: impl AsRef<str>) {
        // Formatting into a string does not fail.
        let _ = writeln!(self.text, "{title:<width$}{}", fact.as_ref(), width = Self::WIDTH);
    }

    /// The text.
    pub fn into_text(self) -> String {
        self.text
    }

    /// What was fitted: the model, the ranks, the loss.
    pub fn add_model(&mut self, fit: &Fit, loss: &Loss) {
        let shapes = fit.shapes();
        let ranks: Vec<String> = fit
            .model()
            .latent()
            .iter()
            .map(|index| format!("{index} = {}", shapes.size(index)))
            .collect();
        let ranks = if ranks.is_empty() { "no ranks".into() } else { ranks.join(", ") };
        let parameters = count(shapes.parameters());
        self.add("model", format!("{}, {ranks}: {parameters} parameters", fit.model()));
        self.add("loss", loss.describe());
        for note in loss.notes() {
            self.add("", format!("note: {note}"));
        }
    }

    /// How it was fitted, and how that ended.
    pub fn add_fit(&mut self, fit: &Fit, tolerance: f64) {
        let history = fit.history();
        self.add("device", format!("{}, {}", history.device, history.precision));
        let passes = fit.plan().groups().len();
        self.add(
            "algorithm",
            format!(
                "{}: {} ({passes} pass{} over the data a sweep)",
                history.algorithm,
                fit.plan().cut(),
                if passes == 1 { "" } else { "es" }
            ),
        );
        if let (Some(sparse), Some(implicit)) =
            (fit.plan().settings().sparse, fit.plan().implicit_entries())
        {
            let stored = sparse.stored + sparse.masked;
            self.add("passes", format!("over {}; {implicit}", stored_entries(stored)));
        }
        if !fit.structure().is_empty() {
            self.add("structure", fit.structure().join("; "));
        }
        let why = match history.stopped_by {
            StoppedBy::Tolerance => format!(
                "stopped because the loss fell by less than {tolerance:e} of itself three times in \
                 a row (--tol)"
            ),
            StoppedBy::Precision => format!(
                "stopped because rounding hides changes of the loss as small as {tolerance:e} of \
                 itself (--tol); a larger --tol or --precision f64 can tell"
            ),
            StoppedBy::MaxIter => "all that were asked for (--max-iter)".into(),
            StoppedBy::Validation => "stopped because the validation loss kept rising".into(),
            StoppedBy::Interrupted => "interrupted".into(),
            StoppedBy::Observer => "stopped by the program".into(),
        };
        self.add("sweeps", format!("{}, {why}", history.iterations));
        let returned = history.sweeps.get(history.returned).copied();
        if let Some(sweep) = returned.filter(|&sweep| sweep != history.iterations) {
            self.add("", format!("the factors are those of sweep {sweep}, the best"));
        }
        if let Some(slabs) = history.slabs {
            self.add("data", format!("{slabs}, whose sums are added up in a fixed order"));
        }
        if let Some(residual) = history.kkt_residual {
            self.add("", kkt(residual));
        }
        let losses = [
            ("training", &history.loss),
            ("penalty", &history.penalty),
            ("validation", &history.validation_loss),
            ("held-out", &history.heldout_loss),
        ];
        for (title, losses) in losses {
            if let (Some(&first), Some(&last)) = (losses.first(), losses.get(history.returned)) {
                let what = match (title, history.heldout_as) {
                    ("penalty", _) => "per entry",
                    ("validation" | "held-out", Some(SplitKind::Strata)) => "mean loss, by strata,",
                    _ => "mean loss",
                };
                self.add(title, format!("{what} {} -> {}", number(first), number(last)));
            }
        }
    }

    /// The most memory that this process ever took, where the system tells.
    pub fn add_memory(&mut self) {
        if let Some(peak) = peak_memory() {
            self.add("memory", format!("{} at the peak", bytes(peak)));
        }
    }

    /// The files that were written; whether factors were asked for.
    pub fn add_outputs(&mut self, written: &Written, asked_for: bool, fit: &Fit) {
        match &written.factors {
            Some(path) => {
                let last = fit.factors().len();
                let names =
                    if last == 1 { "theta_1".into() } else { format!("theta_1 … theta_{last}") };
                let weights = fit.weights().map_or("", |_| ", weights");
                self.add("written", format!("{}: {names}{weights}", path.display()));
            }
            None if asked_for => self.add("written", "no factors: see the error"),
            None => self.add("written", "no factors: give --out FACTORS.npz to keep them"),
        }
        if let Some(path) = &written.history {
            self.add("", format!("{}: the losses sweep by sweep", path.display()));
        }
        if let Some(path) = &written.report {
            self.add("", format!("{}: the report", path.display()));
        }
    }
}

/// What is said of the data of a fit.
pub struct DataSummary {
    data: String,
    rows: Option<String>,
    modes: Vec<String>,
    roles: Vec<String>,
}

impl DataSummary {
    /// Of data whose modes have these letters.
    pub fn new(path: &Path, read: &ReadData, letters: &[char]) -> Result<DataSummary> {
        let observations = &read.observations;
        let letters = letters.iter().map(|&letter| Some(letter));
        Ok(DataSummary {
            data: data(path, observations),
            rows: read.rows.as_ref().map(ToString::to_string),
            modes: modes(observations.labels(), observations.shape(), letters),
            roles: roles(observations)?,
        })
    }

    /// Of the part that this process has, where so many share the data.
    pub fn of_part(
        path: &Path,
        read: &ReadData,
        letters: &[char],
        (part, processes): (&Part, usize),
    ) -> DataSummary {
        let observations = &read.observations;
        let own = match observations.coordinates() {
            Some(coo) => coordinates(coo),
            None => tensor(observations.values()),
        };
        let shape: Vec<String> =
            part.shape(observations.shape()).iter().map(ToString::to_string).collect();
        let plural = if processes == 1 { "" } else { "es" };
        let letters = letters.iter().map(|&letter| Some(letter));
        DataSummary {
            data: format!(
                "{}: {}, shared by {processes} process{plural} along mode {}; this one has {own}",
                path.display(),
                shape.join(" × "),
                part.mode + 1
            ),
            rows: read.rows.as_ref().map(ToString::to_string),
            modes: modes(observations.labels(), observations.shape(), letters),
            // A part alone may have nothing to train on.
            roles: roles(observations).unwrap_or_default(),
        }
    }
}

impl FitSummary {
    /// What data these are.
    pub fn add_data(&mut self, data: DataSummary) {
        self.add("data", data.data);
        if let Some(rows) = data.rows {
            self.add("", rows);
        }
        data.modes.iter().for_each(|mode| self.add("", mode));
        if !data.roles.is_empty() {
            self.add("", data.roles.join(", "));
        }
    }
}

/// A line for each mode that has labels: its letter, its name, how many there are, and the first and
/// the last of them.
pub fn modes(
    labels: &[Labels],
    shape: &[usize],
    letters: impl Iterator<Item = Option<char>>,
) -> Vec<String> {
    let each = labels.iter().zip(shape).zip(letters).filter(|((labels, _), _)| !labels.is_empty());
    each.map(|((labels, &size), letter)| {
        let parts = [letter.map(String::from), labels.name().map(printable)];
        let called = parts.into_iter().flatten().collect::<Vec<_>>().join(" = ");
        let last = size.saturating_sub(1);
        let ends = match (labels.get(0), labels.get(1)) {
            (None, _) => String::new(),
            (Some(_), None) => format!(", {}", labels.describe(0)),
            _ if size == 2 => format!(", {}, {}", labels.describe(0), labels.describe(1)),
            _ => format!(", {} … {}", labels.describe(0), labels.describe(last)),
        };
        format!("{called}: {}{ends}", count(size as u64))
    })
    .collect()
}

/// What data these are: shape, how many entries are not zero, how they are kept.
pub fn data(path: &Path, observations: &Observations) -> String {
    let text = match observations.coordinates() {
        Some(coo) => coordinates(coo),
        None => tensor(observations.values()),
    };
    format!("{}: {text}", path.display())
}

fn coordinates(coo: &CooTensor) -> String {
    let shape: Vec<String> = coo.shape().iter().map(ToString::to_string).collect();
    let all = match coo.volume() {
        n if n < 1e15 => entries(n as u64),
        n => format!("{n:.1e} entries"),
    };
    let stored = coo.len() as f64 / coo.volume();
    format!(
        "{}, {all}, {} of them stored ({}); values kept as {}",
        shape.join(" × "),
        count(coo.len() as u64),
        percent(100.0 * stored),
        coo.values().type_name()
    )
}

/// As [`data`], without a file.
pub fn tensor(values: &Dense) -> String {
    let shape: Vec<String> = values.shape().iter().map(ToString::to_string).collect();
    if let Some(mapped) = values.storage().mapped() {
        // Counting would read all of the file once more.
        return format!(
            "{}, {}; {} of {} are streamed from the file in every pass, {} at a time",
            shape.join(" × "),
            entries(values.len() as u64),
            bytes(mapped.file_bytes()),
            mapped.file_type(),
            bytes(mapped.slab_bytes())
        );
    }
    let nonzeros = nonzeros(values);
    format!(
        "{}, {}, {} of them not zero ({}); kept as {} in {}",
        shape.join(" × "),
        entries(values.len() as u64),
        count(nonzeros),
        share(nonzeros, values.len() as u64),
        values.storage().type_name(),
        bytes(values.bytes())
    )
}

/// Which entries take part in what, a phrase each; none where all are trained on.
pub fn roles(observations: &Observations) -> Result<Vec<String>> {
    if observations.all_train() && observations.coordinates().is_none() {
        // Nothing to count, and counting would read all of a file that is streamed.
        return Ok(Vec::new());
    }
    let prepared = observations.prepare()?;
    if prepared.is_all_train() {
        return Ok(Vec::new());
    }
    let drawn = |role| drawn(prepared.strata()?, role, prepared.count(role));
    let all = Role::ALL.iter().fold(0, |all: u64, &role| all.saturating_add(prepared.count(role)));
    let roles = [
        (Role::Train, "to train on"),
        (Role::Validation, "for validation"),
        (Role::HeldOut, "held out"),
        (Role::Missing, "missing"),
    ];
    Ok(roles
        .into_iter()
        .map(|(role, what)| (role, prepared.count(role), what))
        .filter(|&(_, entries, _)| entries > 0)
        .map(|(role, entries, what)| match (drawn(role), entries) {
            (Some(drawn), _) => format!("{drawn} {what}"),
            (None, u64::MAX) => format!("{:.1e} {what}", all as f64),
            (None, _) => format!("{} {what} ({})", count(entries), share(entries, all)),
        })
        .collect())
}

/// The entries that a split by strata drew for a role; `None` for other splits, and where other entries of
/// the role are withheld, too.
fn drawn(strata: &Strata, role: Role, entries: u64) -> Option<String> {
    let drawn = strata.of(role).filter(|drawn| drawn.stored + drawn.zeros == entries)?;
    let zeros = match strata.zeros_each(role) {
        Some(each) => format!("{} zeros, each for {each:.3e},", count(drawn.zeros)),
        None => "no zeros".into(),
    };
    Some(format!("{} stored entries and {zeros}", count(drawn.stored)))
}

fn nonzeros(values: &Dense) -> u64 {
    fn of<T: Copy + Sync + PartialEq + Default>(values: &[T]) -> u64 {
        let zero = T::default();
        let part = |part: &[T]| part.iter().filter(|&&x| x != zero).count() as u64;
        values.par_chunks(1 << 16).map(part).sum()
    }
    match values.storage() {
        Storage::U8(v) => of(v),
        Storage::U16(v) => of(v),
        Storage::U32(v) => of(v),
        Storage::F32(v) => of(v),
        Storage::F64(v) => of(v),
        Storage::Mapped(_) => values.iter().filter(|&x| x != 0.0).count() as u64,
    }
}

/// The most memory that this process ever took, in bytes, where the system tells.
pub fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// A whole number with separators: 45,360,000.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// So many entries, as [`count`] writes the number.
pub fn entries(n: u64) -> String {
    format!("{} {}", count(n), if n == 1 { "entry" } else { "entries" })
}

fn stored_entries(n: u64) -> String {
    format!("{} stored {}", count(n), if n == 1 { "entry" } else { "entries" })
}

/// A share in per cent, with the digits that say something.
pub fn share(part: u64, all: u64) -> String {
    percent(100.0 * part as f64 / all.max(1) as f64)
}

/// A number of per cent, with the digits that say something.
pub fn percent(percent: f64) -> String {
    match percent {
        p if p == 0.0 || p >= 10.0 => format!("{p:.0} %"),
        p if p >= 0.01 => format!("{p:.2} %"),
        p => format!("{p:.1e} %"),
    }
}

/// A loss, with six digits that count.
pub fn number(x: f64) -> String {
    let size = x.abs();
    if size == 0.0 || !size.is_finite() {
        return x.to_string();
    }
    let magnitude = size.log10().floor();
    if (-4.0..6.0).contains(&magnitude) {
        format!("{x:.*}", (5.0 - magnitude) as usize)
    } else {
        format!("{x:.5e}")
    }
}

/// Seconds as people say them.
pub fn duration(seconds: f64) -> String {
    let whole = seconds.round();
    if seconds < 9.95 {
        format!("{seconds:.1} s").replace(".0 s", " s")
    } else if whole < 120.0 {
        format!("{whole:.0} s")
    } else if whole < 7200.0 {
        format!("{:.0} min", (whole / 60.0).floor())
    } else {
        format!("{:.0} h {:.0} min", (whole / 3600.0).floor(), (whole % 3600.0 / 60.0).floor())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1000), "1,000");
        assert_eq!(count(45_360_000), "45,360,000");
        assert_eq!(share(1, 4), "25 %");
        assert_eq!(share(63, 10_000), "0.63 %");
        assert_eq!(share(1, 1_000_000_000), "1.0e-7 %");
        assert_eq!(share(0, 7), "0 %");
        assert_eq!(number(0.0), "0");
        assert_eq!(number(0.0131234567), "0.0131235");
        assert_eq!(number(-12.5), "-12.5000");
        assert_eq!(number(123456.0), "123456");
        assert_eq!(number(1.5e-9), "1.50000e-9");
        assert_eq!(number(f64::NAN), "NaN");
    }

    #[test]
    fn durations() {
        assert_eq!(duration(0.04), "0 s");
        assert_eq!(duration(3.21), "3.2 s");
        assert_eq!(duration(18.0), "18 s");
        assert_eq!(duration(9.97), "10 s");
        assert_eq!(duration(300.0), "5 min");
        assert_eq!(duration(7260.0), "2 h 1 min");
    }

    #[test]
    fn nonzeros_of_every_type() -> Result<()> {
        for factor in [1.0, 1e3, 1e6, 0.5, 1e-300] {
            let values = [0.0, 1.0, 0.0, 2.0, 3.0].map(|x| x * factor).to_vec();
            assert_eq!(nonzeros(&Dense::from_vec(&[5], values)?), 3, "{factor}");
        }
        Ok(())
    }
}
