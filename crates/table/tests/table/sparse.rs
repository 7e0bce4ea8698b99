//! Matrix Market, 10x Genomics, scipy.

use nneinfact_table::{
    Error, ScipyArrays, SparseMatrix, is_10x, read_10x, read_10x_part, read_matrix_market_from,
    read_matrix_market_part, read_names,
};
use proptest::prelude::*;

fn read(text: &str) -> Result<SparseMatrix, Error> {
    read_matrix_market_from(text.as_bytes(), "m.mtx")
}

#[test]
fn matrix_market() {
    let matrix = read(
        "%%MatrixMarket MATRIX Coordinate Real general\r\n% by hand\r\n\r\n2 3 4\r\n2 1 5\r\n1 3 1e-1\r\n\r\n2 1 .5\r\n1 1 0\r\n",
    )
    .unwrap();
    assert_eq!(matrix.coords, [[0, 0, 1], [0, 2, 0]]);
    assert_eq!((matrix.values, matrix.duplicates), (vec![0.0, 0.1, 5.5], 1));
    assert_eq!((matrix.rows.len, matrix.columns.len), (2, 3));
    let pattern =
        read("%%MatrixMarket matrix coordinate pattern symmetric\n2 2 2\n2 1\n2 2\n").unwrap();
    assert_eq!((pattern.coords, pattern.values), ([vec![0, 1, 1], vec![1, 0, 1]], vec![1.0; 3]));
    let skew =
        read("%%MatrixMarket matrix coordinate integer skew-symmetric\n2 2 1\n2 1 3\n").unwrap();
    assert_eq!(skew.values, [-3.0, 3.0]);
    let array = read("%%MatrixMarket matrix array real general\n2 2\n1\n0\n3\n4\n").unwrap();
    assert_eq!((array.coords, array.values), ([vec![0, 0, 1], vec![0, 1, 1]], vec![1.0, 3.0, 4.0]));
    let array = read("%%MatrixMarket matrix array integer symmetric\n2 2\n1\n2\n3\n").unwrap();
    assert_eq!(array.values, [1.0, 2.0, 2.0, 3.0]);
    let array = read("%%MatrixMarket matrix array real skew-symmetric\n2 2\n2\n").unwrap();
    assert_eq!(array.values, [-2.0, 2.0]);
}

#[test]
fn mistakes_in_matrix_market() {
    for (text, reason) in [
        ("", "the file is empty"),
        ("1 1 1\n", "line 1: a Matrix Market file begins with"),
        ("%%MatrixMarket matrix coordinate complex general\n", "complex numbers are not read"),
        ("%%MatrixMarket matrix coordinate real hermitian\n", "hermitian matrices are not read"),
        ("%%MatrixMarket matrix array pattern general\n1 1\n", "line 1: a Matrix Market file"),
        ("%%MatrixMarket matrix coordinate real general\n", "ends before the size"),
        (
            "%%MatrixMarket matrix coordinate real general\n2 2\n",
            "line 2: the numbers of rows, columns and entries",
        ),
        ("%%MatrixMarket matrix coordinate real general\n2 2 1 x\n", "line 2: the numbers of"),
        (
            "%%MatrixMarket matrix coordinate real symmetric\n2 3 1\n",
            "a symmetric matrix of 2 by 3",
        ),
        (
            "%%MatrixMarket matrix coordinate real general\n2 2 2\n1 1 1\n",
            "2 entries are announced, but the file ends after 1",
        ),
        (
            "%%MatrixMarket matrix coordinate real general\n2 2 1\n1 1 1\n1 2 1\n",
            "line 4: there are more entries",
        ),
        (
            "%%MatrixMarket matrix coordinate real general\n2 2 1\n3 1 1\n",
            "line 3: row 3 and column 1 are not in",
        ),
        (
            "%%MatrixMarket matrix coordinate real general\n2 2 1\n0 1 1\n",
            "line 3: '0 1 1' is no entry",
        ),
        (
            "%%MatrixMarket matrix coordinate real general\n2 2 1\n1 1 nan\n",
            "line 3: '1 1 nan' is no entry",
        ),
        ("%%MatrixMarket matrix coordinate real general\n0 2 0\n", "no rows"),
        ("%%MatrixMarket matrix coordinate real general\n9999999999 2 1\n", "more than 2^32"),
        ("%%MatrixMarket matrix coordinate real general\n2 2 0\n", "there are no entries"),
        (
            "%%MatrixMarket matrix array real general\n2 2\n1\n2\n",
            "4 entries are announced, but the file ends after 2",
        ),
        ("%%MatrixMarket matrix array real general\n4000000000 4000000000\n1\n", "ends after 1"),
    ] {
        let error = read(text).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn folders_of_10x() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let write = |name: &str, text: &str| std::fs::write(path.join(name), text).unwrap();
    assert!(!is_10x(path));
    assert!(read_10x(path).unwrap_err().to_string().contains("matrix.mtx.gz or matrix.mtx"));
    write("matrix.mtx", "%%MatrixMarket matrix coordinate integer general\n3 2 2\n1 1 4\n3 2 1\n");
    write("genes.tsv", "E1\tA\nE2\tB\nE3\tA\n");
    write("barcodes.tsv", "AAC-1\nAAG-1\n");
    assert!(is_10x(path));
    let matrix = read_10x(path).unwrap();
    assert_eq!(matrix.rows.labels.as_deref().unwrap(), ["A (E1)", "B", "A (E3)"]);
    assert_eq!(matrix.columns.labels.as_deref().unwrap(), ["AAC-1", "AAG-1"]);
    assert_eq!(matrix.rows.name.as_deref(), Some("feature"));
    // The newer form goes first, and is packed.
    let file = std::fs::File::create(path.join("features.tsv.gz")).unwrap();
    let mut packed = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
    std::io::Write::write_all(&mut packed, b"E1\tX\tGene Expression\nE2\tY\tg\nE3\tZ\tg\n")
        .unwrap();
    packed.finish().unwrap();
    assert_eq!(read_10x(path).unwrap().rows.labels.unwrap(), ["X", "Y", "Z"]);
    write("barcodes.tsv", "barcode\nAAC-1\nAAG-1\n");
    assert!(
        read_10x(path)
            .unwrap_err()
            .to_string()
            .contains("3 names for 2 rows or columns; if 'barcode'")
    );

    let mut matrix = read("%%MatrixMarket matrix array real general\n2 1\n1\n2\n").unwrap();
    write("rows.txt", "# Gene\none\ntwo\n");
    read_names(path.join("rows.txt"), &mut matrix.rows).unwrap();
    assert_eq!(matrix.rows.labels.as_deref().unwrap(), ["one", "two"]);
    assert!(read_names(path.join("rows.txt"), &mut matrix.columns).is_err());
}

#[test]
fn scipy() {
    let csr = ScipyArrays {
        format: "csr",
        shape: &[2, 3],
        data: &[1.0, 2.0, 3.0, 4.0],
        indices: &[2, 0, 1, 1],
        indptr: &[0, 2, 4],
        ..Default::default()
    };
    let matrix = csr.matrix().unwrap();
    assert_eq!(
        (&matrix.coords, &matrix.values[..]),
        (&[vec![0, 0, 1], vec![0, 2, 1]], &[2.0, 1.0, 7.0][..])
    );
    let csc = ScipyArrays { format: "csc", shape: &[3, 2], ..csr };
    assert_eq!(csc.matrix().unwrap().coords, [[0, 1, 2], [0, 1, 0]]);
    let (row, col) = (&[1, 0, 1, 1][..], &[2, 0, 2, 1][..]);
    let coo = ScipyArrays { format: "coo", row, col, indices: &[], indptr: &[], ..csr };
    assert_eq!(coo.matrix().unwrap().values, [2.0, 4.0, 4.0]);
    for wrong in [
        ScipyArrays { format: "bsr", ..csr },
        ScipyArrays { shape: &[2], ..csr },
        ScipyArrays { shape: &[-2, 3], ..csr },
        ScipyArrays { indices: &[0], ..csr },
        ScipyArrays { indices: &[2, 0, 1, 3], ..csr },
        ScipyArrays { indices: &[2, 0, 1, -1], ..csr },
        ScipyArrays { indptr: &[0, 4], ..csr },
        ScipyArrays { indptr: &[0, 5, 4], ..csr },
        ScipyArrays { indptr: &[-1, 2, 4], ..csr },
        ScipyArrays { data: &[1.0, 2.0, 3.0, f64::NAN], ..csr },
        ScipyArrays { col: &[0], ..coo },
    ] {
        assert!(wrong.matrix().is_err(), "{wrong:?}");
    }
}

const PIECES: &[&str] = &[
    "%%MatrixMarket matrix coordinate real general\n",
    "%%MatrixMarket matrix array integer symmetric\n",
    "%%MatrixMarket matrix coordinate pattern skew-symmetric\n",
    "1 1 1\n",
    "2 2\n",
    "2 2 1\n",
    "1",
    " ",
    "\n",
    "%",
    "-1",
    "1e400",
    "99999999999999999999",
    "18446744073709551615",
    "0",
    "\r",
];

proptest! {
    #[test]
    fn no_panic(start in 0..3usize, pieces in proptest::collection::vec(proptest::sample::select(PIECES), 0..20)) {
        let _ = read(&[PIECES[start], &pieces.concat()].concat());
        let _ = read(&pieces.concat());
    }

    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let _ = read(&[PIECES[0], "2 2 2\n", &text].concat());
        let _ = read_matrix_market_from(&bytes[..], "m");
    }
}

/// Every cut of both axes, in text and in a folder of 10x, against the whole.
#[test]
fn parts_of_matrices_are_what_the_whole_has_there() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    for kind in ["general", "symmetric"] {
        let header = format!("%%MatrixMarket matrix coordinate integer {kind}\n4 4 5\n");
        write("matrix.mtx", &format!("{header}1 1 5\n3 1 7\n4 2 1\n3 1 2\n4 4 9\n"));
        write("genes.tsv", "g1\ta\ng2\tb\ng3\tc\ng4\td\n");
        write("barcodes.tsv", "w\nx\ny\nz\n");
        let path = folder.path().join("matrix.mtx");
        let whole = read_10x(folder.path()).unwrap();
        for axis in 0..2 {
            for start in 0..=4usize {
                for end in start..=4 {
                    let keep = |shape: [usize; 2]| {
                        assert_eq!(shape, [4, 4]);
                        (axis, start..end)
                    };
                    let (part, shape) = read_matrix_market_part(&path, &keep).unwrap();
                    assert_eq!(shape, [4, 4]);
                    let inside =
                        |i: &usize| (start..end).contains(&(whole.coords[axis][*i] as usize));
                    let kept: Vec<usize> = (0..whole.values.len()).filter(inside).collect();
                    let values: Vec<f64> = kept.iter().map(|&i| whole.values[i]).collect();
                    assert_eq!(part.values, values, "{kind} {axis} {start}..{end}");
                    for other in 0..2 {
                        let first = if other == axis { start as u32 } else { 0 };
                        let own = kept.iter().map(|&i| whole.coords[other][i] - first);
                        assert_eq!(part.coords[other], own.collect::<Vec<u32>>());
                    }
                    let length = (end - start).max(1);
                    let lengths = [part.rows.len, part.columns.len];
                    assert_eq!(lengths, if axis == 0 { [length, 4] } else { [4, length] });

                    let (part, _) = read_10x_part(folder.path(), &keep).unwrap();
                    assert_eq!(part.values, values);
                    let (rows, columns) = (part.rows.labels.unwrap(), part.columns.labels.unwrap());
                    assert_eq!([rows.len(), columns.len()], lengths);
                    if start < end {
                        let first = if axis == 0 { &rows[0] } else { &columns[0] };
                        let all =
                            if axis == 0 { &whole.rows.labels } else { &whole.columns.labels };
                        assert_eq!(*first, all.as_ref().unwrap()[start]);
                    }
                }
            }
        }
    }
    write("none.mtx", "%%MatrixMarket matrix coordinate integer general\n4 4 0\n");
    let none = read_matrix_market_part(folder.path().join("none.mtx"), &|_| (0, 0..2));
    assert!(none.unwrap_err().to_string().contains("there are no entries"));
}
