//! Tables that several processes read together, against the same table read by one.

use std::ops::Range;
use std::path::PathBuf;

use nneinfact::io::{Table, TableTensor};
use nneinfact::transport::Threads;
use nneinfact::{Error, Result};
use tempfile::TempDir;

/// Events in so many files: texts and numbers as labels, whose order in the files is not that of the labels.
fn write(folder: &TempDir, files: usize) -> String {
    for file in 0..files {
        let mut text = String::from("time,zone,lat,fare\n");
        for i in 0..40 {
            let n = 40 * file + i;
            let (day, hour) = (1 + (n * 7) % 27, (n * 5) % 24);
            // 1 and 1.0 are one label, and which text it has is decided by the first file with either.
            let zone = if n % 11 == 0 { "1.0".into() } else { format!("{}", (n * n + 3) % 13) };
            let lat = 40.0 + f64::from((n * 37 % 100) as u32) / 7.0;
            text += &format!("2014-04-{day:02} {hour:02}:15:00,{zone},{lat},{}\n", n % 9);
        }
        std::fs::write(folder.path().join(format!("part-{file}.csv")), text).unwrap();
    }
    folder.path().join("part-*.csv").to_str().unwrap().into()
}

fn even(shape: &[usize], size: usize) -> Result<(usize, Vec<Range<usize>>)> {
    let bound = |i: usize| shape[0] * i / size;
    Ok((0, (0..size).map(|i| bound(i)..bound(i + 1)).collect()))
}

fn shared<'a>(
    size: usize,
    table: impl Fn() -> Result<Table<'a>> + Sync,
) -> Result<Vec<TableTensor>> {
    Threads::run(size, |mut process| {
        table()?.read_shared(&mut process, &|shape: &[usize]| even(shape, size))
    })
}

/// The shares one after the other.
fn whole(parts: &[TableTensor]) -> TableTensor {
    let mut all = parts[0].clone();
    for part in &parts[1..] {
        assert_eq!((&part.modes, &part.counts), (&all.modes, &all.counts));
        all.values.extend(&part.values);
        all.coords.iter_mut().zip(&part.coords).for_each(|(all, part)| all.extend(part));
    }
    all
}

#[test]
fn labels_counts_and_entries_are_those_of_one_process() {
    let folder = tempfile::tempdir().unwrap();
    let modes = [
        "zone,hour(time)",
        "date(time),zone",
        "zone,bin(lat,5),weekday(time)",
        "top(zone,4),date(time)",
        "top(zone,3,other),bin(lat,3)",
        "round(lat,0),bin(lat,40:50:2.5)",
    ];
    for files in [1, 3, 7] {
        std::fs::remove_dir_all(folder.path()).unwrap();
        std::fs::create_dir(folder.path()).unwrap();
        let pattern = write(&folder, files);
        for modes in modes {
            let Ok(plain) = Table::matching(&pattern).unwrap().modes(modes) else {
                panic!(
                    "{modes}: {}",
                    Table::matching(&pattern).unwrap().modes(modes).err().unwrap()
                )
            };
            let expected = plain.read().unwrap();
            for size in [1, 2, 3, 8] {
                let parts = shared(size, || Table::matching(&pattern)?.modes(modes)).unwrap();
                assert_eq!(whole(&parts), expected, "{files} files, {modes}, {size} processes");
            }
        }
    }
}

#[test]
fn sums_means_and_maxima() {
    let folder = tempfile::tempdir().unwrap();
    let pattern = write(&folder, 5);
    let table = |values: usize| {
        let table = Table::matching(&pattern)?.modes("zone,hour(time)")?;
        Ok(match values {
            0 => table.sum("fare"),
            1 => table.mean("fare"),
            2 => table.max("fare"),
            _ => table.sum("lat"),
        })
    };
    for values in 0..3 {
        let expected = table(values).and_then(Table::read).unwrap();
        for size in [1, 2, 4] {
            let parts = shared(size, || table(values)).unwrap();
            assert_eq!(whole(&parts), expected, "{size} processes");
        }
    }
    // Sums of fractions differ from those of one process by rounding, and not among numbers of processes.
    let alone = table(3).and_then(Table::read).unwrap();
    let one = whole(&shared(1, || table(3)).unwrap());
    assert_eq!(whole(&shared(3, || table(3)).unwrap()), one);
    for (a, b) in alone.values.iter().zip(&one.values) {
        assert!((a - b).abs() <= 1e-12 * a.abs(), "{a} {b}");
    }
}

#[test]
fn filters_orders_and_bad_rows() {
    let folder = tempfile::tempdir().unwrap();
    let pattern = write(&folder, 3);
    let last = folder.path().join("part-2.csv");
    let text = std::fs::read_to_string(&last).unwrap() + "soon,1,41,2\n2014-04-03 01:00:00,1,x,2\n";
    std::fs::write(&last, text).unwrap();
    let order: Vec<String> = (0..13).rev().map(|zone| zone.to_string()).collect();
    let mut order = order;
    order[11] = "1.0".into();
    let table = || {
        let table = Table::matching(&pattern)?.modes("hour(time),zone")?.skip_bad(true);
        Ok(table.filter("fare > 2")?.order("zone", order.clone()))
    };
    let expected = table().and_then(Table::read).unwrap();
    assert!(expected.counts.filtered > 0);
    for size in [1, 2, 5] {
        assert_eq!(whole(&shared(size, table).unwrap()), expected, "{size} processes");
    }
    // Without that the bad row is an error everywhere, with its place.
    let strict = || Table::matching(&pattern)?.modes("date(time),zone");
    let error = shared(3, strict).unwrap_err().to_string();
    assert!(error.contains("part-2.csv") && error.contains("line 42"), "{error}");
    // So is a label that is not in the order, which all find out alike.
    let order = || {
        Ok(Table::matching(&pattern)?.modes("zone")?.skip_bad(true).order("zone", vec!["7".into()]))
    };
    let error = shared(2, order).unwrap_err().to_string();
    assert!(error.contains("is not in the order given for it"), "{error}");
}

#[test]
fn what_several_processes_cannot_read() {
    let stream = || Table::from_reader(&b"a\n1\n"[..], "stdin").modes("a");
    let error = shared(2, stream).unwrap_err().to_string();
    assert!(error.contains("cannot be read by several processes"), "{error}");
    // Processes that see different files.
    let folder = tempfile::tempdir().unwrap();
    let paths: Vec<PathBuf> = ["x.csv", "y.csv"].map(|name| folder.path().join(name)).into();
    paths.iter().for_each(|path| std::fs::write(path, "a\n1\n").unwrap());
    let done = Threads::run(2, |mut process| {
        use nneinfact::engine::Reducer;
        let table = Table::open(&paths[process.rank()]).modes("a")?;
        table.read_shared(&mut process, &|shape: &[usize]| even(shape, 2))
    });
    let error = done.unwrap_err();
    assert!(matches!(error, Error::Setting(_)), "{error}");
    assert!(error.to_string().contains("process 1 sees other files"), "{error}");
}

#[test]
fn a_limit_of_memory_holds() {
    let folder = tempfile::tempdir().unwrap();
    let pattern = write(&folder, 4);
    let table = || Ok(Table::matching(&pattern)?.modes("zone,date(time)")?.memory_limit(100));
    let error = shared(2, table).unwrap_err();
    assert!(matches!(error, Error::Memory { .. } | Error::Process { .. }), "{error}");
}
