//! `nneinfact demo`: makes a table of rides with a known structure, fits it, and tells how much of the
//! structure was found again.

mod planted;
mod recovery;
mod rides;

use std::fmt::Write as _;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use clap::{Args, ValueEnum};
use ndarray::ArrayView;
use rayon::prelude::*;

use self::planted::{BLOBS, Planted, PlantedMeans, Size};
use self::rides::Rides;
use super::fit::device;
use super::fit_progress::{FitProgress, Show};
use super::output::{OutputFiles, named};
use super::summary::{self, FitSummary, duration, number};
use super::{print, read_data};
use nneinfact_core::data::{Dense, Observations, Prepared, Role, Storage};
use nneinfact_core::error::{Error, Result};
use nneinfact_core::loss::Loss;
use nneinfact_fit::io;
use nneinfact_fit::{DataRecord, NNEinFact, TableRecord};
use nneinfact_table::{Table, TableTensor};

/// The model of the planted tensor, and what is fitted to it.
const MODEL: &str = "wr,dr,hr,irk,jrk->wdhij";
/// The cosine similarity from which on a pattern counts as found.
const FOUND: f64 = 0.95;
/// The share of the entries that is withheld.
const HELD_OUT: f64 = 0.1;

/// The arguments of `demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// The folder to write to; it is made where it does not exist
    #[arg(long, value_name = "DIR", default_value = "nneinfact-demo")]
    out: PathBuf,

    /// full: 27 weeks × 7 days × 24 hours × 100 × 100 map cells, 45 million entries; small: 9 weeks
    /// and 20 × 20 cells
    #[arg(long, value_enum, default_value = "full")]
    scale: DemoScale,

    /// The seed of the data, the split and the start
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,

    /// How many threads to use [default: all]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,

    /// Write the table of rides as well, rides.csv, to begin from it with other modes and models
    /// (--scale full: 190 MB)
    #[arg(long)]
    keep: bool,

    /// Write the counts as well, an array Y in counts.npz
    #[arg(long)]
    save_data: bool,

    /// No progress and no summary
    #[arg(long)]
    quiet: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum DemoScale {
    Small,
    Full,
}

impl DemoScale {
    fn size(self) -> Size {
        match self {
            // The same pickups per hour on a smaller map.
            DemoScale::Small => Size { weeks: 9, side: 20, mean: 2.5 },
            DemoScale::Full => Size { weeks: 27, side: 100, mean: 0.1 },
        }
    }
}

/// Makes, fits, compares, reports.
pub fn run(args: &DemoArgs) -> Result<()> {
    let began = Instant::now();
    let folder = &args.out;
    std::fs::create_dir_all(folder).map_err(|e| {
        Error::Setting(format!("--out {}: the folder cannot be made: {e}", folder.display()))
    })?;
    let (factors, history) = (folder.join("factors.npz"), folder.join("history.json"));
    let mut outputs =
        OutputFiles { factors: Some(factors), history: Some(history), ..OutputFiles::default() };
    outputs.check(&[])?;
    let device = device("auto", args.threads)?;
    let planted = Planted::new(args.scale.size());

    let counts = Arc::new(device.install(|| planted.counts(args.seed))?);
    let modes = Rides::new(&counts, args.seed).modes();
    let rides_file = folder.join("rides.csv");
    let rides = read_rides(args, &counts, &modes, &rides_file)?;
    if args.keep {
        outputs.data = Some(record(args, &modes, &rides_file));
    }
    let making = began.elapsed().as_secs_f64();
    let observations = rides.observations()?.held_out(HELD_OUT, args.seed)?;

    let loss = Loss::kl();
    let settings = NNEinFact::new(MODEL)?
        .ranks([('r', planted.components().len()), ('k', BLOBS)])
        .loss(loss.clone())
        .device(device.clone())
        .seed(args.seed);
    let show = if args.quiet { Show::Never } else { Show::OnTerminal };
    let (settings, progress) = FitProgress::attach(settings, show, &device);
    let fitting = Instant::now();
    let fit = settings.fit(&observations)?;
    let fitting = fitting.elapsed().as_secs_f64();
    drop(progress);

    outputs.write(&fit)?;
    let truth_file = folder.join("planted.npz");
    io::write_npz(&truth_file, &named(&planted.factors()))?;
    let data_file = folder.join("counts.npz");
    if args.save_data {
        save(&data_file, &counts)?;
    }
    if args.quiet {
        return Ok(());
    }

    let (roles, truth) = device.install(|| -> Result<_> {
        let dense = Observations::shared(Arc::clone(&counts)).held_out(HELD_OUT, args.seed)?;
        Ok((summary::roles(&observations)?, true_loss(&planted.means(), &dense.prepare()?)))
    })?;
    let mut summary = FitSummary::default();
    add_rides(&mut summary, &rides, &observations, &counts);
    summary.add("", roles.join(", "));
    summary.add_model(&fit, &loss);
    summary.add_fit(&fit, NNEinFact::TOLERANCE);
    let [train, held_out] = truth.map(number);
    summary.add("yardstick", format!("the truth itself: training {train}, held-out {held_out}"));
    let whole = began.elapsed().as_secs_f64();
    let [making, fitting, whole] = [making, fitting, whole].map(duration);
    summary
        .add("time", format!("{making} to make the data, {fitting} to fit them, {whole} in all"));
    summary.add_memory();
    summary.add_outputs(&outputs, &fit);
    let kept = [
        (true, &truth_file, "the factors of the truth"),
        (args.keep, &rides_file, "the table"),
        (args.save_data, &data_file, "the data"),
    ];
    for (_, file, what) in kept.into_iter().filter(|(kept, ..)| *kept) {
        summary.add("", format!("{}: {what}", file.display()));
    }
    let mut text = summary.into_text();
    text += &commands(args, &modes, folder);
    if let Some(matches) = recovery::matches(&planted, fit.factors()) {
        text += &table(&matches);
    }
    print(&text)
}

/// The table, as any other is read: made as it is read, or from its file where that is kept.
fn read_rides(args: &DemoArgs, counts: &Dense, modes: &str, file: &Path) -> Result<TableTensor> {
    let source = if args.keep {
        write_rides(file, Rides::new(counts, args.seed))?;
        Table::open(file)
    } else {
        Table::from_reader(Rides::new(counts, args.seed), "rides.csv")
    };
    source.modes(modes)?.read()
}

/// Where the table is kept, for `nneinfact report`.
fn record(args: &DemoArgs, modes: &str, file: &Path) -> DataRecord {
    read_data::absolute(&DataRecord {
        path: file.into(),
        table: Some(TableRecord { modes: modes.into(), ..TableRecord::default() }),
        heldout: Some(HELD_OUT),
        split_seed: args.seed,
        ..DataRecord::default()
    })
}

/// What became of the table.
fn add_rides(
    summary: &mut FitSummary,
    rides: &TableTensor,
    observations: &Observations,
    counts: &Dense,
) {
    summary.add("table", format!("made-up rides: {}", rides.counts));
    summary.add("data", summary::tensor(counts));
    let letters = rides.modes.iter().map(|mode| mode.letter);
    for mode in summary::modes(observations.labels(), observations.shape(), letters) {
        summary.add("", mode);
    }
}

/// Writes the table.
fn write_rides(path: &Path, mut rides: Rides<'_>) -> Result<()> {
    let copied = std::fs::File::create(path).and_then(|file| {
        let mut to = BufWriter::with_capacity(1 << 16, file);
        std::io::copy(&mut rides, &mut to)?;
        to.flush()
    });
    copied.map_err(|e| Error::file(path, e))
}

/// What to type for the same, and for a look at it.
fn commands(args: &DemoArgs, modes: &str, folder: &Path) -> String {
    let table = folder.join("rides.csv");
    let factors = folder.join("factors.npz");
    let keep = if args.keep { "" } else { " (with --keep)" };
    format!(
        "\nThe same from the table{keep}, and a page of it:\n\n  nneinfact fit {} --modes '{modes}' \
         --count \\\n    --model '{MODEL}' --rank r=5,k={BLOBS} --heldout {HELD_OUT} --out {}\n  \
         nneinfact report {}\n",
        table.display(),
        factors.display(),
        factors.display()
    )
}

/// The recovery as text.
fn table(matches: &[recovery::Match]) -> String {
    let mut text = String::from(
        "\nHow well each planted pattern was found again (cosine similarity; 1 is perfect):\n\n",
    );
    let width = matches.iter().map(|m| m.name.len()).max().unwrap_or(0);
    let _ = writeln!(
        text,
        "  {:width$}  {:>7}  {:>7}  {:>7}  {:>7}  {:>7}",
        "pattern", "week", "weekday", "hour", "map", "whole"
    );
    for m in matches {
        let [week, weekday, hour, map] = m.cosines;
        let _ = writeln!(
            text,
            "  {:width$}  {week:7.4}  {weekday:7.4}  {hour:7.4}  {map:7.4}  {:7.4}",
            m.name,
            m.whole()
        );
    }
    let lost = matches.iter().filter(|m| m.whole() < FOUND).count();
    text += &match lost {
        0 => format!("\nAll {} patterns were found.\n", matches.len()),
        _ => format!(
            "\n{lost} of {} patterns were not found (below {FOUND}): from this random start the fit \
             ended in a local optimum. Another --seed may do better.\n",
            matches.len()
        ),
    };
    text
}

/// The mean KL loss of the truth over the training and the held-out entries: about what the best
/// model there is could reach on entries that it has not seen.
fn true_loss(means: &PlantedMeans<'_>, data: &Prepared) -> [f64; 2] {
    let cells: usize = data.values().shape().iter().rev().take(2).product();
    let moments = data.values().len() / cells.max(1);
    // The tensor is in C order: one map after another.
    let sums: Vec<[f64; 2]> = (0..moments)
        .into_par_iter()
        .map_init(
            || (vec![0.0; cells], vec![0.0; cells]),
            |(map, counts), moment| {
                means.at(moment, map);
                let first = moment * cells;
                data.values().load(first, 1, counts);
                let mut sums = [0.0; 2];
                for (i, (&x, &y)) in counts.iter().zip(&*map).enumerate() {
                    match data.roles().map_or(Role::Train, |roles| roles.get(first + i)) {
                        Role::Train => sums[0] += kl(x, y),
                        Role::HeldOut => sums[1] += kl(x, y),
                        Role::Missing | Role::Validation => {}
                    }
                }
                sums
            },
        )
        .collect();
    let mean = |which: usize, role| {
        sums.iter().map(|s| s[which]).sum::<f64>() / data.count(role).max(1) as f64
    };
    [mean(0, Role::Train), mean(1, Role::HeldOut)]
}

/// The generalised Kullback–Leibler divergence of the loss `kl`.
fn kl(x: f64, y: f64) -> f64 {
    if x == 0.0 { y } else { x * (x / y).ln() - x + y }
}

/// Writes the counts, in C order.
fn save(path: &Path, counts: &Dense) -> Result<()> {
    fn write<T: Copy + Into<f64>>(path: &Path, shape: &[usize], v: &[T]) -> Result<()> {
        let array = ArrayView::from_shape(shape, v).map_err(|e| Error::Numeric(e.to_string()))?;
        io::write_npz(path, &[("Y", array)])
    }
    let shape = counts.shape();
    match counts.storage() {
        Storage::U8(v) => write(path, shape, v),
        Storage::U16(v) => write(path, shape, v),
        Storage::U32(v) => write(path, shape, v),
        Storage::F32(v) => write(path, shape, v),
        Storage::F64(v) => write(path, shape, v),
        Storage::Mapped(_) => write(path, shape, &counts.iter().collect::<Vec<f64>>()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_yardstick_is_the_loss_of_the_truth() -> Result<()> {
        let loss = Loss::kl();
        for (x, y) in [(0.0, 0.25), (3.0, 0.5), (7.0, 7.0), (1.0, 1e-9)] {
            assert!((kl(x, y) - loss.eval_loss(x, y, &[])).abs() < 1e-9 * (1.0 + kl(x, y)));
        }
        let planted = Planted::new(Size { weeks: 2, side: 6, mean: 0.5 });
        let counts = Arc::new(planted.counts(5)?);
        let observations = Observations::shared(Arc::clone(&counts)).held_out(0.3, 5)?;
        let prepared = observations.prepare()?;
        let means = planted.means();
        let mut map = vec![0.0; 36];
        let (mut sums, mut cells) = ([0.0; 2], [0.0; 2]);
        for (at, x) in counts.iter().enumerate() {
            means.at(at / 36, &mut map);
            let role = prepared.roles().map_or(Role::Train, |roles| roles.get(at));
            let which = usize::from(role == Role::HeldOut);
            sums[which] += loss.eval_loss(x, map[at % 36], &[]);
            cells[which] += 1.0;
        }
        let found = true_loss(&means, &prepared);
        for which in 0..2 {
            let expected = sums[which] / cells[which];
            assert!((found[which] - expected).abs() < 1e-9, "{found:?} {expected}");
        }
        Ok(())
    }
}
