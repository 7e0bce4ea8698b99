//! Parquet files, against the same rows as text.

use std::path::PathBuf;

use nneinfact_table::{Error, Table, TableTensor, describe_foreign};

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/parquet").join(name)
}

const FORMS: [&str; 3] = ["snappy.parquet", "zstd.parquet", "gzip.parquet"];

fn read(name: &str, modes: &str, with: impl Fn(Table<'static>) -> Table<'static>) -> TableTensor {
    with(Table::open(file(name))).modes(modes).unwrap().read().unwrap()
}

fn same(modes: &str, with: impl Fn(Table<'static>) -> Table<'static>) {
    let want = read("rows.csv", modes, &with);
    for form in FORMS {
        let got = read(form, modes, &with);
        assert_eq!(got.coords, want.coords, "{form} {modes}");
        let bits =
            |tensor: &TableTensor| tensor.values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&got), bits(&want), "{form} {modes}");
        for (got, want) in got.modes.iter().zip(&want.modes) {
            assert_eq!(got.labels, want.labels, "{form} {modes}");
            assert_eq!(got.kind, want.kind, "{form} {modes}");
        }
        assert_eq!(got.counts.rows, want.counts.rows);
        assert_eq!(got.counts.bad, want.counts.bad, "{form} {modes}");
        assert_eq!(got.counts.filtered, want.counts.filtered);
    }
}

#[test]
fn the_tensor_is_that_of_the_same_rows_as_text() {
    let plain = |table: Table<'static>| table;
    let skipping = |table: Table<'static>| table.skip_bad(true);
    for modes in [
        "small,large",
        "hour(at),weekday(at),week(day)",
        "date(day),ok",
        "hour(utc),year(utc)",
        "round(f,1),bin(f,-1:9:0.5)",
        "minute(utc),month(day)",
    ] {
        same(modes, plain);
    }
    for modes in [
        "who,n",
        "bin(x,5),top(who,2,other)",
        "place.lat,price",
        "x,at",
        "clock",
        "who,prefix(who,1)",
    ] {
        same(modes, skipping);
    }
    same("hour(utc)", |table| table.time_zone("America/New_York").unwrap());
    same("who", |table| table.skip_bad(true).sum("x"));
    same("ok", |table| table.sum("price"));
    same("day", |table| table.max("f"));
    same("ok", |table| table.skip_bad(true).mean("far"));
    same("who", |table| table.skip_bad(true).filter("n > 3 and utc >= 2014-03-09").unwrap());
}

#[test]
fn labels_are_those_of_the_types() {
    let labels = |modes: &str| read("zstd.parquet", modes, |t| t).modes[0].labels.clone();
    assert_eq!(labels("large")[2], u64::MAX.to_string());
    assert_eq!(labels("far"), ["-2.5e17", "0", "1e-9", "1e300"]);
    assert_eq!(labels("ok"), ["false", "true"]);
    assert_eq!(labels("price")[0], "-4.00");
    assert_eq!(labels("at")[0], "1969-12-30 22:05:07");
    assert_eq!(labels("utc")[0], "2014-03-08 01:00:00Z");
    assert!(labels("clock").contains(&"13:37:05".to_string()));
    let old = read("int96.parquet", "hour(at),date(at)", |t| t);
    let now = read("zstd.parquet", "hour(at),date(at)", |t| t);
    assert_eq!((old.coords, old.values), (now.coords, now.values));
    let columns = Table::open(file("gzip.parquet")).columns().unwrap();
    assert_eq!((columns.len(), &columns[13][..]), (15, "place.lat"));
}

#[test]
fn what_cannot_be_read_is_said() {
    let says = |table: Table<'static>, modes: &str, words: &[&str]| {
        let error = table.modes(modes).unwrap().read().unwrap_err();
        let text = error.to_string();
        for word in words {
            assert!(text.contains(word), "{word}: {text}");
        }
        error
    };
    let open = |name: &str| Table::open(file(name));
    says(
        open("gzip.parquet"),
        "who",
        &["gzip.parquet", "row 11, column 1 (who): the cell is empty"],
    );
    says(open("gzip.parquet"), "bin(who,3)", &["row 1", "'ann' is not a finite number"]);
    says(open("gzip.parquet"), "whom", &["no column 'whom'", "'who', 'n'"]);
    let columns = open("gzip.parquet").columns().unwrap();
    let error =
        says(open("gzip.parquet"), &format!("\"{}\"", columns[14]), &["holds lists", "tags"]);
    assert!(matches!(error, Error::Unsupported(_)));
    says(open("lz4.parquet"), "hour(at)", &["packed by LZ4", "compression='zstd'"]);
    says(open("gzip.parquet").header(false), "who", &["names its columns", "--no-header"]);
    says(open("empty.parquet"), "who", &["no row is left"]);
    says(open("refused.parquet"), "half", &["column 'half' holds floats of 16 bits", "float32"]);
    says(open("refused.parquet"), "wide", &["column 'wide' holds decimals of more than 38 digits"]);
    // A duration is a number of its unit, as nothing in the file says what it is.
    assert_eq!(read("refused.parquet", "span", |t| t).modes[0].labels, ["90"]);
    assert!(describe_foreign("events.parquet").is_none());

    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        Table::open(path)
    };
    let whole = std::fs::read(file("snappy.parquet")).unwrap();
    says(
        put("text.parquet", b"who\nann\n"),
        "who",
        &["text.parquet: this cannot be read as Parquet"],
    );
    says(put("cut.parquet", &whole[..whole.len() - 9]), "who", &["cannot be read as Parquet"]);
    // The beginning tells where the name does not.
    let unnamed = put("events", &whole).skip_bad(true).modes("who").unwrap().read().unwrap();
    assert_eq!(unnamed.coords, read("snappy.parquet", "who", |t| t.skip_bad(true)).coords);
    // What comes through a pipe cannot be read from its end.
    let piped = Table::from_reader(&whole[..], "-").modes("who").unwrap().read().unwrap_err();
    assert!(piped.to_string().contains("name the file"), "{piped}");
    // A table may be in files of both kinds.
    let both = Table::open_all([file("rows.csv"), file("zstd.parquet")]).modes("ok").unwrap();
    let one = read("rows.csv", "ok", |t| t);
    assert_eq!(
        both.read().unwrap().values.iter().sum::<f64>(),
        2.0 * one.values.iter().sum::<f64>()
    );
}

/// Files with a few wrong bytes are read or refused.
#[test]
fn damaged_files_never_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("damaged.parquet");
    let mut state = 1u64;
    let mut draw = |n: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % n
    };
    let runs =
        std::env::var("NNEINFACT_MUTATIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(150);
    let mut refused = 0;
    for name in FORMS.iter().chain(&["int96.parquet"]) {
        let whole = std::fs::read(file(name)).unwrap();
        for _ in 0..runs {
            let mut bytes = whole.clone();
            for _ in 0..1 + draw(3) {
                let at = draw(bytes.len());
                bytes[at] = draw(256) as u8;
            }
            std::fs::write(&path, &bytes).unwrap();
            for modes in ["who", "hour(at)", "n,price,bin(x,3),place.lat"] {
                let table = Table::open(&path).skip_bad(true).memory_limit(64 << 20);
                refused += usize::from(table.modes(modes).unwrap().read().is_err());
            }
        }
    }
    assert!(refused > 0);
}
