//! Reads a table as the command line would and prints the tensor as JSON, floats to the bit.
//!
//! `table_json FILE --modes … [--sum C | --mean C | --max C] [--where …] [--order d=FILE]
//! [--skip-bad] [--no-header] [--separator C] [--time-format F] [--time-zone Z] [--quiet]`

use std::fmt::Write as _;
use std::time::Instant;

use nneinfact_table::{LabelKind, Table, TableTensor, read_matrix_market};

fn main() {
    if let Err(e) = run() {
        eprintln!("error: {e}");
        std::process::exit(2);
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let path = arguments.first().ok_or("a file is expected")?;
    if path.contains(".mtx") {
        let matrix = read_matrix_market(path)?;
        let (shape, bits) = ([matrix.rows.len, matrix.columns.len], bits(&matrix.values));
        println!("{{\"shape\":{shape:?},\"coords\":{:?},\"values\":{bits}}}", matrix.coords);
        return Ok(());
    }
    let mut table = match path.as_str() {
        "-" => Table::standard_input(),
        path => Table::matching(path)?,
    };
    let mut rest = arguments[1..].iter();
    let mut quiet = false;
    while let Some(option) = rest.next() {
        let mut value = || rest.next().cloned().ok_or(format!("{option} takes a value"));
        table = match option.as_str() {
            "--modes" => table.modes(&value()?)?,
            "--sum" => table.sum(value()?),
            "--mean" => table.mean(value()?),
            "--max" => table.max(value()?),
            "--where" => table.filter(&value()?)?,
            "--order" => {
                let order = value()?;
                let (mode, file) = order.split_once('=').ok_or("an order is mode=FILE")?;
                table.order_file(mode, file)?
            }
            "--skip-bad" => table.skip_bad(true),
            "--no-header" => table.header(false),
            "--separator" => table.separator(value()?.as_bytes()[0]),
            "--time-format" => table.time_format(&value()?)?,
            "--time-zone" => table.time_zone(&value()?)?,
            "--memory" => table.memory_limit(value()?.parse()?),
            "--quiet" => {
                quiet = true;
                table
            }
            _ => return Err(format!("{option} is not known").into()),
        };
    }
    let started = Instant::now();
    let tensor = table.read()?;
    let seconds = started.elapsed().as_secs_f64();
    eprintln!(
        "{}; shape {:?}, {} entries, {seconds:.3} s, at most {} MiB",
        tensor.counts,
        tensor.shape(),
        tensor.values.len(),
        peak()
    );
    if !quiet {
        println!("{}", json(&tensor));
    }
    Ok(())
}

/// The most memory that the process had, in MiB, where the system tells.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024
}

fn bits(values: &[f64]) -> String {
    format!("{:?}", values.iter().map(|x| x.to_bits()).collect::<Vec<_>>())
}

fn json(tensor: &TableTensor) -> String {
    let mut out = String::from("{\"modes\":[");
    for (i, mode) in tensor.modes.iter().enumerate() {
        let (kind, edges) = match &mode.kind {
            LabelKind::Number => ("number", String::from("[]")),
            LabelKind::Date => ("date", String::from("[]")),
            LabelKind::Cycle => ("cycle", String::from("[]")),
            LabelKind::Bins { edges } => ("bins", bits(edges)),
            _ => ("text", String::from("[]")),
        };
        let comma = if i > 0 { "," } else { "" };
        let labels: Vec<String> = mode.labels.iter().map(|label| quoted(label)).collect();
        let _ = write!(
            out,
            "{comma}{{\"name\":{},\"kind\":\"{kind}\",\"labels\":[{}],\"edges\":{edges}}}",
            quoted(&mode.name),
            labels.join(",")
        );
    }
    let c = &tensor.counts;
    let _ = write!(
        out,
        "],\"coords\":{:?},\"values\":{},\"rows\":{},\"filtered\":{},\"bad\":{},\"outside\":{},\"rare\":{}}}",
        tensor.coords,
        bits(&tensor.values),
        c.rows,
        c.filtered,
        c.bad,
        c.outside,
        c.rare
    );
    out
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out + "\""
}
