//! Made-up tables with the columns and about the shape and the sparsity of the paper's two other data
//! sets, for its studies `events.toml` and `trade.toml`:
//!
//!     cargo run --release --example paper_tables -- examples/paper [ROWS]
//!
//! Events between countries are drawn from the paper's own model, `ir,jr,ak,kr,tr->ijat`: pairs of
//! blocs r that act on each other in their own times, each by some of the kinds k of action. Trade is
//! drawn from `er,ir,gr,tk,kr->eigt`, with values that spread over nine orders of magnitude.

use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;

use nneinfact::data::uniform_u32;

const COUNTRIES: usize = 249;
/// Classes of action, each with some codes.
const ACTIONS: usize = 20;
/// Months from January 1995.
const MONTHS: usize = 228;
/// Chapters of goods, and products of each.
const CHAPTERS: usize = 96;
const PRODUCTS: usize = 40;
/// Years from 1995.
const YEARS: usize = 24;
/// Blocs, and kinds of action.
const BLOCS: usize = 20;
const KINDS: usize = 6;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, rows @ ..] = arguments.as_slice() else {
        return Err("usage: cargo run --release --example paper_tables -- FOLDER [ROWS]".into());
    };
    let rows: u64 = match rows {
        [] => 500_000,
        [rows] => rows.parse().map_err(|_| format!("{rows} is no number of rows"))?,
        _ => return Err("a folder and a number of rows are expected".into()),
    };
    let folder = Path::new(folder);
    write(&folder.join("events.tsv"), |to| events(to, rows))?;
    write(&folder.join("trade.csv"), |to| trade(to, rows))
}

fn write(
    path: &Path,
    table: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>,
) -> Result<(), Box<dyn Error>> {
    let done = File::create(path).and_then(|file| {
        let mut to = BufWriter::new(file);
        table(&mut to)?;
        to.flush()
    });
    done.map_err(|e| format!("{}: {e}", path.display()))?;
    println!("{}", path.display());
    Ok(())
}

/// Random numbers in (0, 1), one after the other.
struct Random {
    stream: u32,
    next: u64,
}

impl Random {
    fn uniform(&mut self) -> f64 {
        self.next += 1;
        (f64::from(uniform_u32(0, self.stream, self.next)) + 0.5) / 4_294_967_296.0
    }

    /// An exponential variable.
    fn exponential(&mut self) -> f64 {
        -self.uniform().ln()
    }

    /// A normal variable.
    fn normal(&mut self) -> f64 {
        let radius = (2.0 * self.exponential()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

/// A distribution that is drawn from, as its sums.
struct Distribution(Vec<f64>);

impl Distribution {
    /// A few values have most of it: the weights are e^(spread · normal).
    fn uneven(n: usize, spread: f64, random: &mut Random) -> Distribution {
        Distribution::of((0..n).map(|_| (spread * random.normal()).exp()))
    }

    /// A hill over an ordered mode, somewhere, on level ground.
    fn hill(n: usize, random: &mut Random) -> Distribution {
        let (middle, width) =
            (random.uniform() * n as f64, (0.05 + 0.3 * random.uniform()) * n as f64);
        Distribution::of(
            (0..n).map(move |i| 0.1 + (-0.5 * ((i as f64 - middle) / width).powi(2)).exp()),
        )
    }

    fn of(weights: impl Iterator<Item = f64>) -> Distribution {
        let mut sum = 0.0;
        Distribution(
            weights
                .map(|weight| {
                    sum += weight;
                    sum
                })
                .collect(),
        )
    }

    fn draw(&self, random: &mut Random) -> usize {
        let whole = self.0.last().copied().unwrap_or(1.0);
        let at = random.uniform() * whole;
        self.0.partition_point(|&sum| sum < at).min(self.0.len() - 1)
    }
}

/// What a bloc is: who acts, on whom, by which kinds, and when.
struct Bloc {
    from: Distribution,
    to: Distribution,
    kinds: Distribution,
    times: Distribution,
}

fn blocs(times: usize, random: &mut Random) -> Vec<Bloc> {
    (0..BLOCS)
        .map(|_| Bloc {
            from: Distribution::uneven(COUNTRIES, 2.2, random),
            to: Distribution::uneven(COUNTRIES, 2.2, random),
            kinds: Distribution::uneven(KINDS, 1.5, random),
            times: Distribution::hill(times, random),
        })
        .collect()
}

fn country(i: usize) -> String {
    format!("Country {:03}", i + 1)
}

/// The events, one a row.
fn events(to: &mut impl Write, rows: u64) -> std::io::Result<()> {
    let random = &mut Random { stream: 1, next: 0 };
    let blocs = blocs(MONTHS, random);
    let weights = Distribution::uneven(BLOCS, 1.0, random);
    let kinds: Vec<Distribution> =
        (0..KINDS).map(|_| Distribution::uneven(ACTIONS, 1.5, random)).collect();
    writeln!(to, "Event ID\tEvent Date\tSource Country\tCAMEO Code\tTarget Country")?;
    for row in 0..rows {
        let bloc = &blocs[weights.draw(random)];
        let action = kinds[bloc.kinds.draw(random)].draw(random) + 1;
        let month = bloc.times.draw(random);
        writeln!(
            to,
            "{}\t{}-{:02}-{:02}\t{}\t{action:02}{}\t{}",
            row + 1,
            1995 + month / 12,
            month % 12 + 1,
            1 + (28.0 * random.uniform()) as u32,
            country(bloc.from.draw(random)),
            (10.0 * random.uniform()) as u32,
            country(bloc.to.draw(random)),
        )?;
    }
    Ok(())
}

/// The trade, a row for each sale of a product in a year.
fn trade(to: &mut impl Write, rows: u64) -> std::io::Result<()> {
    let random = &mut Random { stream: 2, next: 0 };
    let blocs = blocs(YEARS, random);
    let weights = Distribution::uneven(BLOCS, 1.0, random);
    let goods: Vec<Distribution> =
        (0..BLOCS).map(|_| Distribution::uneven(CHAPTERS, 1.5, random)).collect();
    let courses: Vec<Distribution> =
        (0..KINDS).map(|_| Distribution::hill(YEARS, random)).collect();
    writeln!(to, "t,i,j,k,v,q")?;
    for _ in 0..rows {
        let r = weights.draw(random);
        let bloc = &blocs[r];
        let year = 1995 + courses[bloc.kinds.draw(random)].draw(random);
        let product = (PRODUCTS as f64 * random.uniform()) as usize;
        let chapter = goods[r].draw(random) + 1;
        let value = (4.0 + 2.5 * random.normal()).exp().max(0.001);
        writeln!(
            to,
            "{year},{},{},{chapter:02}{:02}{:02},{value:.3},",
            bloc.from.draw(random) + 1,
            bloc.to.draw(random) + 1,
            10 + product / 10,
            10 * (product % 10),
        )?;
    }
    Ok(())
}
