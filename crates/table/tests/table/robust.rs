//! Whatever the bytes and the texts are: an answer or an error, never a panic.

use nneinfact_table::{Error, Filter, Modes, Table};
use proptest::prelude::*;

const MODES: [&str; 7] = [
    "a",
    "week(a),hour(b)",
    "bin(a,3),top(b,2)",
    "bin(a,0:1:0.5),round(b,2)",
    "date(a),year(b),month(a),minute(b)",
    "top(a,1,other),weekday(b)",
    "prefix(a,1),yearmonth(b)",
];

fn try_all(bytes: &[u8]) {
    for modes in MODES {
        for skip in [false, true] {
            let table = Table::from_reader(bytes, "t.csv").skip_bad(skip).memory_limit(1 << 24);
            if let Ok(tensor) = table.modes(modes).unwrap().read() {
                let shape = tensor.shape();
                for (list, n) in tensor.coords.iter().zip(&shape) {
                    assert!(list.iter().all(|&i| (i as usize) < *n));
                    assert_eq!(list.len(), tensor.values.len());
                }
                assert!(tensor.counts.kept() >= tensor.values.len() as u64);
            }
        }
    }
}

/// Pieces that tables are made of, and some that they are not.
const PIECES: &[&[u8]] = &[
    b"a,b\n",
    b"a",
    b"b",
    b",",
    b"\n",
    b"\r\n",
    b"\"",
    b"\"\"",
    b"2014-04-01",
    b"T00:11",
    b"Z",
    b"-04:00",
    b"1396310400",
    b"1e308",
    b"-1e308",
    b"9999-12-31",
    b"0000-01-01",
    b"-9999",
    b"NaN",
    b"1",
    b"1.0",
    b"0.5",
    b"\xff",
    b"\xef\xbb\xbf",
    b" ",
    b"Mon",
    b"Tue",
    b"Jan",
    b"inf",
    b"\0",
    b"[Europe/Berlin]",
    b"-009999-01-01T00:00",
    b"99999999999999999999",
    b"20140401T00",
    b"24:00",
    b"999999999999",
    b"9223372036854775807",
    b"+14:00",
];

#[test]
fn threads_change_nothing() {
    let mut text = String::from("a,b,c\n");
    for i in 0..60_000u32 {
        text += &format!(
            "2014-{:02}-{:02} {:02}:00,\"x {}\",{}\n",
            1 + i % 12,
            1 + i % 28,
            i % 24,
            i % 97,
            i % 13
        );
    }
    let folder = tempfile::tempdir().unwrap();
    let good = folder.path().join("good.csv");
    std::fs::write(&good, &text).unwrap();
    // A row that is none, far behind the first block, and then one that could not be read either.
    let bad = folder.path().join("bad.csv");
    std::fs::write(&bad, format!("{text}2014-01-01,y\n2014-13-01,y,1\n")).unwrap();
    let pool = |n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap();
    for modes in ["date(a),b", "hour(a),top(b,7),bin(c,4)"] {
        let read = |path, threads: usize, skip| {
            let table = || Table::open(path).modes(modes).unwrap().sum("c").skip_bad(skip);
            pool(threads).install(|| table().read())
        };
        let whole = read(&good, 1, false).unwrap();
        assert_eq!(whole.counts.rows, 60_000);
        assert_eq!(read(&good, 3, false).unwrap(), whole);
        assert_eq!(read(&bad, 3, true).unwrap(), read(&bad, 1, true).unwrap());
        let faults = [1, 3].map(|threads| read(&bad, threads, false).unwrap_err().to_string());
        assert_eq!(faults[0], faults[1]);
        assert!(faults[0].contains("line 60002: 2 cells"), "{}", faults[0]);
    }
}

#[test]
fn a_table_is_cancelled_at_any_row() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    // Throws the switch itself in the middle of rows that have no end.
    struct Endless(Arc<AtomicBool>, usize);
    impl std::io::Read for Endless {
        fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
            self.1 += 1;
            if self.1 == 50 {
                self.0.store(true, Ordering::Relaxed);
            }
            let row = b"1,2\n";
            let rows = to.len() / row.len();
            (0..rows).for_each(|i| to[4 * i..4 * i + 4].copy_from_slice(row));
            Ok(4 * rows)
        }
    }
    for modes in ["a", "bin(a,3)"] {
        let switch = Arc::new(AtomicBool::new(false));
        let rows = std::io::Read::chain(&b"a,b\n"[..], Endless(Arc::clone(&switch), 0));
        let table = Table::from_reader(rows, "t.csv").modes(modes).unwrap().cancel(switch);
        let error = table.read().unwrap_err();
        assert!(matches!(&error, Error::Cancelled(what) if what == "reading t.csv"), "{error}");
        assert!(!error.is_input());
    }
}

proptest! {
    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        try_all(&bytes);
        let mut with_header = b"a,b\n".to_vec();
        with_header.extend(bytes);
        try_all(&with_header);
    }

    #[test]
    fn pieces(pieces in proptest::collection::vec(proptest::sample::select(PIECES), 0..40)) {
        let mut bytes = b"a,b\n".to_vec();
        bytes.extend(pieces.concat());
        try_all(&bytes);
    }

    #[test]
    fn rows(cells in proptest::collection::vec(proptest::sample::select(PIECES), 0..20)) {
        let mut bytes = b"a,b\n".to_vec();
        for pair in cells.chunks(2) {
            bytes.extend([pair.concat().as_slice(), b",", pair[0], b"\n"].concat());
        }
        try_all(&bytes);
    }

    #[test]
    fn any_text(text in "\\PC{0,40}", other in "[a-z(),=:'\"<>! 0-9é]{0,40}") {
        for text in [text, other] {
            if let Ok(modes) = Modes::parse(&text) {
                prop_assert_eq!(Modes::parse(&modes.to_string()).unwrap(), modes);
            }
            if let Ok(filter) = Filter::parse(&text) {
                prop_assert_eq!(Filter::parse(&filter.to_string()).unwrap(), filter);
            }
            let table = || Table::open("x");
            let _ = table().time_format(&text);
            let _ = table().time_zone(&text);
        }
    }
}
