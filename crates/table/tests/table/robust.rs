//! Whatever the bytes and the texts are: an answer or an error, never a panic.

use nneinfact_table::{Filter, Modes, Table};
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
