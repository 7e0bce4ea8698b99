//! Tables as they come: bytes, quotes, missing values, wrong rows.

use std::io::{Read, Write};

use nneinfact_table::{Error, Table, TableTensor, describe_foreign};

use crate::functions::{entries, read, table};

fn fault(text: &[u8], modes: &str) -> String {
    let read = Table::from_reader(text, "t.csv").modes(modes).unwrap().read();
    read.unwrap_err().to_string()
}

fn skipping(text: &[u8], modes: &str) -> TableTensor {
    Table::from_reader(text, "t.csv").skip_bad(true).modes(modes).unwrap().read().unwrap()
}

#[test]
fn bytes_before_and_between() {
    let expected = ["a 1", "b 1"];
    for text in [
        "\u{feff}x,y\na,1\nb,2\n",
        "x,y\r\na,1\r\nb,2\r\n",
        "x,y\ra,1\rb,2",
        "\n\nx,y\n\na,1\n\n\nb,2",
        "\u{feff}\"x\",\"y\"\na,1\nb,2\n",
        "x,y\na,1\nb,2\r\n\r\n",
    ] {
        assert_eq!(entries(&read(text, "x")), expected, "{text:?}");
    }
    // A reader that gives a byte at a time.
    struct Slow<'a>(&'a [u8]);
    impl Read for Slow<'_> {
        fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
            let n = self.0.len().min(1).min(to.len());
            to[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }
    let slow = Slow("\u{feff}x,y\r\na,1\r\nb,2\r\n".as_bytes());
    let tensor = Table::from_reader(slow, "t").modes("x").unwrap().read().unwrap();
    assert_eq!(entries(&tensor), expected);
}

#[test]
fn quotes_and_separators() {
    let text = "x,y\n\"a,\r\nb\",1\n\"say \"\"hi\"\"\",2\n";
    assert_eq!(read(text, "x").modes[0].labels, ["a,\r\nb", "say \"hi\""]);
    // The line of an error after a break in quotes.
    assert!(fault(b"x,y\n\"a\nb\",1\nc,z\n", "bin(y,2)").contains("line 4, column 2 (y): 'z'"));
    assert!(fault(b"x,y\r\n\r\n\"a\r\nb\",1\r\nc,z\r\n", "bin(y,2)").contains("line 5,"));
    let tensor = Table::from_reader("x;y\na,b;1\n".as_bytes(), "t").separator(b';');
    assert_eq!(tensor.modes("x").unwrap().read().unwrap().modes[0].labels, ["a,b"]);
    let tensor = Table::from_reader("x\ty\na,b\t1\n".as_bytes(), "T.TSV");
    assert_eq!(tensor.modes("x").unwrap().read().unwrap().modes[0].labels, ["a,b"]);
    let tensor = table("x,y\n\"a,1\n").quote(None).modes("x").unwrap().read().unwrap();
    assert_eq!(tensor.modes[0].labels, ["\"a"]);
    let tensor = table("x,y\n'a,b',1\n").quote(Some(b'\'')).modes("x").unwrap().read().unwrap();
    assert_eq!(tensor.modes[0].labels, ["a,b"]);
    let tensor = table("a,1\nb,2\n").header(false).modes("k=1").unwrap().read().unwrap();
    assert_eq!(
        (entries(&tensor), tensor.modes[0].name.as_str()),
        (vec!["a 1".into(), "b 1".into()], "1")
    );
}

#[test]
fn columns_that_are_not_there() {
    let of = |text: &[u8], modes| fault(text, modes);
    assert_eq!(
        of(b"lat,lon\n1,2\n", "Lat"),
        "t.csv: there is no column 'Lat'; the columns are 'lat', 'lon' (upper and lower case count: 'lat')"
    );
    assert!(of(b"lat;lon\n1;2\n", "lat").ends_with("is the separator ';'?"));
    let twice = of(b"x,y,x\n1,2,3\n", "x");
    assert!(twice.contains("2 columns are called 'x', the 1st and the 3rd"), "{twice}");
    assert_eq!(read("x,y,x\n1,2,3\n", "y").shape(), [1]);
    assert_eq!(read(" x ,y\n1,2\n", "x").shape(), [1]);
    assert!(of(b"", "x").contains("nothing in the table"));
    assert_eq!(of(b"x\n", "x"), "t.csv: no row is left for the tensor: 0 rows read");
}

#[test]
fn rows_that_cannot_be_read() {
    let bad = [
        (&b"x,y\na,1\nb\n"[..], "x", "line 3: 1 cells, but the first row has 2"),
        (b"x,y\na,1\nb,2,3\n", "x", "line 3: 3 cells, but the first row has 2"),
        (b"x,y\na,1\n,2\n", "x", "line 3, column 1 (x): the cell is empty"),
        (b"x,y\na,1\n  ,2\n", "x", "line 3, column 1 (x): the cell is empty"),
        (b"x,y\na,1\nNA,2\n", "x", "line 3, column 1 (x): 'NA' stands for a missing value"),
        (
            b"x,y\na,1\nb,NaN\n",
            "bin(y,2)",
            "line 3, column 2 (y): 'NaN' stands for a missing value",
        ),
        (b"x,y\na,1\nb,inf\n", "bin(y,2)", "line 3, column 2 (y): 'inf' is not a finite number"),
        (b"x,y\na,1\nb,one\n", "round(y,2)", "line 3, column 2 (y): 'one' is not a finite number"),
        (b"x,y\na,1\nb\xff,2\n", "x", "line 3, column 1 (x): 'b\u{fffd}' is not UTF-8"),
        (b"x,y\na,1\nb\xff,2\n", "top(x,2)", "line 3, column 1 (x): 'b\u{fffd}' is not UTF-8"),
        (
            b"x,y\na,2014-01-01\nb,2014-02-30\n",
            "date(y)",
            "line 3, column 2 (y): '2014-02-30' is not a time",
        ),
        (
            b"x,y\na,2014-01-01\nb,20140230\n",
            "date(y)",
            "line 3, column 2 (y): the number '20140230' could be a date or a Unix time",
        ),
        (
            b"x,y\na,2014-01-01\nb,2014\n",
            "date(y)",
            "line 3, column 2 (y): '2014' is a number and no time: a column that holds the year,",
        ),
    ];
    for (text, modes, reason) in bad {
        let error = fault(text, modes);
        assert!(error.starts_with(&format!("t.csv: {reason}")), "{error}");
        let tensor = skipping(text, modes);
        assert_eq!((tensor.counts.bad, tensor.counts.kept()), (1, 1));
        assert!(tensor.counts.first_bad.as_ref().unwrap().starts_with(&format!("t.csv: {reason}")));
        assert_eq!(tensor.values, [1.0]);
        let bins = modes.starts_with("bin");
        assert_eq!(tensor.shape(), if bins { [2] } else { [1] }, "{modes}");
    }
    let error = table("x,y\na,1\nb,\n").sum("y").modes("x").unwrap().read().unwrap_err();
    assert_eq!(error.to_string(), "t.csv: line 3, column 2 (y): the cell is empty");
    // A column that is not asked for may hold anything; so may rows that the filter drops.
    assert_eq!(skipping(b"x,y\na,\xff\n", "x").counts.bad, 0);
    let text = "x,y\na,1\nb,\nc,2\n";
    assert_eq!(
        table(text).filter("x != b").unwrap().modes("bin(y,2)").unwrap().read().unwrap().values,
        [1.0, 1.0]
    );
    // What stands for a missing value can be said.
    let tensor =
        table("x\nNA\n-\n").missing(["-"]).skip_bad(true).modes("x").unwrap().read().unwrap();
    assert_eq!((tensor.modes[0].labels[0].as_str(), tensor.counts.bad), ("NA", 1));
    // A bad row must not count for the range, nor its label.
    let tensor = skipping(b"x,y,z\na,1,1\nb,100,\nc,3,1\n", "x,bin(y,2),bin(z,1)");
    assert_eq!(tensor.modes[0].labels, ["a", "c"]);
    assert_eq!(tensor.modes[1].labels, ["[1, 2)", "[2, 3]"]);
}

#[test]
fn packed_and_foreign() {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(b"x\na\n").unwrap();
    let mut packed = packed.finish().unwrap();
    let mut second = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    second.write_all(b"b\n").unwrap();
    packed.extend(second.finish().unwrap());
    let of = |bytes: &[u8]| {
        let read = Table::from_reader(bytes, "t.csv.gz").modes("x").unwrap().read();
        read.map(|tensor| entries(&tensor)).map_err(|e| e.to_string())
    };
    assert_eq!(of(&packed).unwrap(), ["a 1", "b 1"]);
    for cut in 3..packed.len() {
        // Cut where the first member ends, it is whole.
        match of(&packed[..cut]) {
            Ok(entries) => assert_eq!(entries, ["a 1"]),
            Err(e) => assert!(e.contains("damaged"), "{cut}: {e}"),
        }
    }
    assert!(of(b"PK\x03\x04....").unwrap_err().contains("zip"));
    assert!(of(b"PAR1....").unwrap_err().contains("Parquet"));
    assert!(of(b"\xff\xfex\0").unwrap_err().contains("UTF-16"));
    for (bytes, name) in [
        (&b"\xfe\xff\0x"[..], "UTF-16"),
        (b"\x28\xb5\x2f\xfd\x04\x00", "zstdcat"),
        (b"\x04\x22\x4d\x18\x64\x40\xa7\x0d", "lz4cat"),
        (b"\xfd7zXZ\0\0\x04\xe6\xd6\xb4\x46", "xzcat"),
        (b"BZh91AY&SY\x12\x34\x56", "bzcat"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"ARROW1\0\0\xff\xff", "Arrow"),
        (b"SQLite format 3\0", "SQLite"),
    ] {
        let error = of(bytes).unwrap_err();
        assert!(error.contains("t.csv.gz: this is not a text but"), "{error}");
        assert!(error.contains(name), "{error}");
    }
    // Columns may be called so.
    for header in ["BZh9", "ARROW1", "SQLite f", "SQL", "PAR"] {
        let text = format!("{header},x\n1,a\n");
        assert_eq!(of(text.as_bytes()).unwrap(), ["a 1"]);
    }

    let folder = tempfile::tempdir().unwrap();
    let mut foreign = vec!["a.h5ad", "a.mat", "a.nc", "a.zarr", "a.xlsx", "a.feather", "a.RDS"];
    foreign.extend([
        "a.json", "a.ndjson", "a.orc", "a.sqlite", "a.duckdb", "a.loom", "a.sav", "a.xpt",
    ]);
    if cfg!(not(feature = "parquet")) {
        foreign.push("a.parquet");
    }
    for name in foreign {
        let path = folder.path().join(name);
        std::fs::write(&path, "x\na\n").unwrap();
        let error = Table::open(&path).modes("x").unwrap().read().unwrap_err();
        assert!(matches!(error, Error::Unsupported(_)));
        let text = error.to_string();
        assert!(text.contains(", which is not read: convert it first, "), "{text}");
        assert!(text.contains(".csv") || text.contains(".np"), "{text}");
        assert_eq!(Some(text), describe_foreign(&path));
    }
    let gone = Table::open(folder.path().join("b.mat")).modes("x").unwrap().read().unwrap_err();
    assert!(matches!(gone, Error::File { .. }));
    let word = describe_foreign("it's.sqlite").unwrap();
    assert!(word.contains("-csv 'it'\\''s.sqlite' '"), "{word}");
    let quoted = describe_foreign("it's.mat").unwrap();
    assert!(quoted.contains("loadmat('it\\'s.mat')"), "{quoted}");
}

#[test]
fn memory_is_bounded() {
    let mut text = String::from("x,y\n");
    for i in 0..100_000 {
        text += &format!("label {i},{i}\n");
    }
    assert_eq!(read(&text, "x").shape(), [100_000]);
    for modes in ["x", "bin(y,10)", "top(x,5)", "round(y,0)"] {
        let table = table(&text).memory_limit(200_000).modes(modes).unwrap();
        let error = table.read().unwrap_err();
        assert!(matches!(error, Error::Memory { .. }), "{error}");
    }
    // A file is read twice instead.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.csv");
    std::fs::write(&path, &text).unwrap();
    for skip in [false, true] {
        let table = Table::open(&path).memory_limit(200_000).skip_bad(skip);
        let tensor = table.modes("bin(y,10)").unwrap().read().unwrap();
        assert_eq!(tensor.values, [10_000.0; 10]);
        assert_eq!(tensor.counts.rows, 100_000);
    }
    let whole = Table::open(&path).modes("top(x,100),bin(y,7)").unwrap().read().unwrap();
    let twice = Table::open(&path).memory_limit(9_000_000).modes("top(x,100),bin(y,7)").unwrap();
    assert_eq!(twice.read().unwrap(), whole);
    // Dates that are far apart.
    let far = table("t\n0001-01-01\n9999-12-31\n").memory_limit(1 << 20).modes("date(t)").unwrap();
    assert!(matches!(far.read().unwrap_err(), Error::Memory { .. }));
    // More bins than fit, and more than there can be.
    let bins = table("x\n1\n2\n").memory_limit(1 << 20).modes("bin(x,100000)").unwrap();
    assert!(matches!(bins.read().unwrap_err(), Error::Memory { .. }));
    assert!(table("").modes("bin(x,4000000000)").is_err());
    assert!(table("").modes("bin(x,0:1:1e-9)").is_err());
    assert!(table("x\n1\n").separator(b'"').modes("x").unwrap().read().is_err());
    assert!(table("x\n1\n").separator(0xe9).modes("x").unwrap().read().is_err());
    // A quote that is not closed.
    let mut open = String::from("x,y\n\"a,1\n");
    open.extend(std::iter::repeat_n("b,2\n", 5_000_000));
    assert!(fault(open.as_bytes(), "x").contains("is a quote not closed?"));
}
