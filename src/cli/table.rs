//! `nneinfact table`.

use std::path::PathBuf;

use clap::Args;

use super::output::{check_writable, same_file};
use super::read_data::{self, ReadOptions};
use super::summary::{self, FitSummary, number};
use super::table_args::TableArgs;
use super::{complain, print};
use crate::io::{FileKind, NamedTensor};
use nneinfact_core::error::{Error, Result};
use nneinfact_fit::DataRecord;

/// The arguments of `table`.
#[derive(Debug, Args)]
#[group(skip)]
#[command(after_help = HELP)]
pub struct TableCommandArgs {
    /// The table: .csv, .tsv, any text with a separator, packed by gzip or not; a quoted pattern as
    /// 'rides-*.csv' for several; - for standard input. Also what other commands read as coordinates
    #[arg(value_name = "DATA")]
    data: PathBuf,

    /// Entries without a row are missing, not zeros, also with --count and --sum
    #[arg(long, conflicts_with = "unlisted_zero")]
    unlisted_missing: bool,

    /// Where to write the tensor with its labels, which `fit` and `compare` read
    #[arg(long, value_name = "COUNTS.npz")]
    out: Option<PathBuf>,

    /// Print nothing
    #[arg(long)]
    quiet: bool,

    #[command(flatten)]
    table: TableArgs,
}

const HELP: &str = "\
The file holds the arrays coords (modes × entries, counted from 0), values, shape, modes (their names) \
and, for every mode, labels_w by its letter or labels_NAME by its name. In Python:

  a = numpy.load(\"counts.npz\")
  y = numpy.zeros(a[\"shape\"]); y[tuple(a[\"coords\"])] = a[\"values\"]";

/// Reads, tells, writes.
pub fn run(args: &TableCommandArgs) -> Result<()> {
    if let Some(path) = &args.out {
        check_writable("--out", path)?;
        if !matches!(FileKind::of(path), Ok(FileKind::Npz)) {
            return Err(Error::Setting(format!(
                "--out {}: a .npz is written, so the name has to end in .npz",
                path.display()
            )));
        }
        let mut inputs = std::iter::once(args.data.as_path()).chain(args.table.inputs());
        if let Some(input) = inputs.find(|input| same_file(input, path)) {
            return Err(Error::Setting(format!(
                "--out {} would replace {}, which is read: choose another name",
                path.display(),
                input.display()
            )));
        }
    }
    let record = args.table.apply(DataRecord {
        path: args.data.clone(),
        unlisted_missing: args.unlisted_missing,
        ..DataRecord::default()
    })?;
    let options = ReadOptions { quiet: args.quiet, ..ReadOptions::default() };
    let read = read_data::read(&record, options)?;
    if let Some(path) = &args.out {
        let named =
            NamedTensor { observations: read.observations.clone(), letters: read.letters.clone() };
        named.save(path)?;
    }
    if args.quiet {
        return Ok(());
    }
    let mut text = FitSummary::default();
    text.add("data", summary::data(&args.data, &read.observations));
    if let Some(rows) = &read.rows {
        text.add("rows", rows.to_string());
    }
    let observations = &read.observations;
    let letters = read.letters.iter().copied();
    let modes = summary::modes(observations.labels(), observations.shape(), letters);
    for (i, mode) in modes.iter().enumerate() {
        text.add(if i == 0 { "modes" } else { "" }, mode);
    }
    if let Some(coo) = observations.coordinates() {
        let values = || (0..coo.len()).filter_map(|i| coo.values().get(i));
        let (least, most) = values()
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), x| {
                (least.min(x), most.max(x))
            });
        let rest = match observations.is_unlisted_missing() {
            true => "all others missing",
            false => "all others zero",
        };
        let [least, most, sum] = [least, most, values().sum()].map(number);
        text.add("values", format!("{least} to {most}, in sum {sum}; {rest}"));
    }
    match &args.out {
        Some(path) => text.add("written", path.display().to_string()),
        None => complain("notice", "nothing was written: --out counts.npz keeps the tensor"),
    }
    print(&text.into_text())
}
