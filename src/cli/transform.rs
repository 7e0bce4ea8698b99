//! `nneinfact transform`: a fit taken to new data, with some of its factors fitted again.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;

use super::answer::check_output;
use super::fit::device;
use super::output::OutputFiles;
use super::predict::FitFile;
use super::read_data::{self, ReadOptions};
use super::read_table::{DataKind, with_bins_of};
use super::summary::{self, FitSummary, duration};
use super::table_args::TableArgs;
use super::{complain, print};
use nneinfact_core::error::{Error, Result};
use nneinfact_fit::{DataRecord, NNEinFact, Saved, TableRecord};

/// The arguments of `transform`.
#[derive(Debug, Args)]
pub struct TransformArgs {
    #[command(flatten)]
    fit: FitFile,

    /// The new data, like those of the fit, of any length in modes that only the free factors have: an
    /// array, a .tns, a sparse matrix, what `nneinfact table` wrote, or a table, which is read as that of
    /// the fit was. Labels that both have are matched, whatever their order
    #[arg(value_name = "NEWDATA")]
    data: PathBuf,

    /// The factors that are fitted to the new data, by their letters, as in wr or wr,dr; all others
    /// stay as they are
    #[arg(long, value_name = "FACTORS", value_delimiter = ',', required = true)]
    free: Vec<String>,

    /// The array to read from an .npz
    #[arg(long, value_name = "NAME")]
    key: Option<String>,

    /// The shape of a .tns [default: its largest indices, but what fixed factors say]
    #[arg(long, value_name = "N,N,…", value_delimiter = ',')]
    shape: Option<Vec<usize>>,

    /// A .npy of booleans like the new data: true is observed
    #[arg(long, value_name = "FILE.npy")]
    mask: Option<PathBuf>,

    /// NaN in the new data means missing
    #[arg(long)]
    nan_missing: bool,

    /// What a .tns does not list is missing, and not 0
    #[arg(long)]
    unlisted_missing: bool,

    /// The seed of the free factors' start
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,

    /// The most sweeps
    #[arg(long, value_name = "N", default_value_t = NNEinFact::MAX_ITER)]
    max_iter: usize,

    /// Stop when a sweep lowers the loss by less than this fraction of it, three times in a row
    #[arg(long, value_name = "T", default_value_t = NNEinFact::TOLERANCE, allow_negative_numbers = true)]
    tol: f64,

    /// What to run on: auto, cpu, gpu or part of a name; see `nneinfact devices`
    #[arg(long, value_name = "NAME", default_value = "auto")]
    device: String,

    /// How many threads to use [default: all]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,

    /// Where to write the factors
    #[arg(long, value_name = "NEW.npz")]
    out: Option<PathBuf>,

    #[command(flatten)]
    table: TableArgs,
}

/// Reads, fits, writes.
pub fn run(args: &TransformArgs) -> Result<()> {
    let began = Instant::now();
    let mut inputs: Vec<&Path> = vec![&args.fit.fit, &args.data];
    inputs.extend(args.mask.as_deref());
    inputs.extend(args.table.inputs());
    if let Some(out) = &args.out {
        check_output("--out", out, &inputs)?;
    }
    let saved = args.fit.load()?;
    let Some(known) = &saved.record().loss else {
        return Err(Error::format(
            &args.fit.fit,
            "it does not say the loss of the fit, which has to be the same for the new data",
        ));
    };
    let loss = known.loss()?;
    let device = device(&args.device, args.threads)?;
    let free: Vec<&str> = args.free.iter().map(String::as_str).collect();
    let settings = NNEinFact::new(saved.model().text())?
        .loss(loss.clone())
        .transform_factors(&saved, &free)?
        .device(device.clone())
        .seed(args.seed)
        .max_iter(args.max_iter)
        .tolerance(args.tol)
        .kkt_residual(true);
    settings.check()?;
    let known_modes = known_modes(&saved, &free)?;
    let record = args.record(&saved, &known_modes)?;
    let letters: Vec<char> = saved.model().output().iter().map(|&x| x.into()).collect();
    let options = ReadOptions { letters: Some(&letters), stream: None, quiet: false };
    let observations = device.install(|| read_data::observations(&record, options))?;
    let (observations, told) = saved.relabeled(observations, &known_modes)?;
    told.iter().for_each(|note| complain("notice", note));
    let fit = settings.fit(&observations)?;
    fit.warnings().iter().for_each(|warning| complain("warning", warning));
    let outputs = OutputFiles {
        factors: args.out.clone(),
        loss: Some(known.clone()),
        data: Some(read_data::recorded(&record, false)),
        ..OutputFiles::default()
    };
    let written = outputs.write(&fit);
    let mut summary = FitSummary::default();
    summary.add_model(&fit, &loss);
    summary.add("data", summary::data(&args.data, &observations));
    summary.add("free", args.free.join(", "));
    summary.add_fit(&fit, args.tol);
    summary.add("time", duration(began.elapsed().as_secs_f64()));
    summary.add_outputs(&written, args.out.is_some(), &fit);
    print(&summary.into_text())?;
    written.check()
}

/// The modes that factors which stay know something of: what an index means there is settled.
fn known_modes(saved: &Saved, free: &[&str]) -> Result<String> {
    let model = saved.model();
    let free: Result<Vec<usize>, _> = free.iter().map(|name| model.factor_named(name)).collect();
    let free = free?;
    let fixed = |letter: &char| {
        let mut factors = model.factors().iter().enumerate().filter(|(l, _)| !free.contains(l));
        factors.any(|(_, factor)| factor.iter().any(|&x| char::from(x) == *letter))
    };
    Ok(model.output().iter().map(|&x| char::from(x)).filter(fixed).collect())
}

impl TransformArgs {
    /// Where the new data are, and how they are read: a table as that of the fit, if nothing else is said.
    fn record(&self, saved: &Saved, known_modes: &str) -> Result<DataRecord> {
        let record = self.table.apply(DataRecord {
            path: self.data.clone(),
            key: self.key.clone(),
            shape: self.shape.clone(),
            mask: self.mask.clone(),
            nan_missing: self.nan_missing,
            unlisted_missing: self.unlisted_missing,
            ..DataRecord::default()
        })?;
        let known = saved.record().data.as_ref();
        let Some(table) = known.and_then(|data| data.table.as_ref()) else { return Ok(record) };
        if record.table.is_some() {
            return Ok(record);
        }
        let mut record = DataRecord { table: Some(table.clone()), ..record };
        if DataKind::of(&record)? != DataKind::Table {
            return Ok(DataRecord { table: None, ..record });
        }
        record.unlisted_zero |= known.is_some_and(|data| data.unlisted_zero);
        record.unlisted_missing |= known.is_some_and(|data| data.unlisted_missing);
        let table = TableRecord {
            modes: with_bins_of(saved, known_modes, &table.modes)?,
            // The labels of known modes are those of the fit, and free modes may have others.
            orders: Vec::new(),
            ..table.clone()
        };
        let conditions: String =
            table.filters.iter().map(|condition| format!(" --where '{condition}'")).collect();
        complain(
            "notice",
            &format!(
                "{} is read as the table of the fit was, with --modes '{}'{conditions}; give --modes to have it otherwise",
                self.data.display(),
                table.modes
            ),
        );
        record.table = Some(table);
        Ok(record)
    }
}
