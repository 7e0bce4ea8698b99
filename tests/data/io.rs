//! Files, as numpy and others write them and as they arrive damaged.

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use ndarray::{Array1, Array2, ArrayD, IxDyn, ShapeBuilder, arr0, array};
use nneinfact::Error;
use nneinfact::data::Storage;
use nneinfact::io::{
    FileKind, npz_names, read_array_f64, read_bool, read_dense, read_npy, read_npy_from, read_npz,
    read_npz_arrays, read_npz_from, read_npz_text, read_tns, read_tns_from, write_json, write_npy,
    write_npz, write_npz_with,
};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn fixtures() -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> =
        fs::read_dir(fixture("")).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.sort();
    assert!(all.len() > 35);
    all
}

/// What the fixtures hold: 0, 5, 10, … in C order.
fn fives() -> ArrayD<f64> {
    ArrayD::from_shape_fn(IxDyn(&[2, 3, 4]), |i| (i[0] * 12 + i[1] * 4 + i[2]) as f64 * 5.0)
}

fn evens() -> ArrayD<f64> {
    fives().mapv(|x| f64::from(u8::from(x % 10.0 == 0.0)))
}

fn message<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn every_numeric_type_in_both_orders_of_bytes() {
    let mut read = 0;
    for path in fixtures() {
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.starts_with("c_") || name.starts_with("version_") {
            let expected = if name == "c_b1.npy" { evens() } else { fives() };
            let dense = read_npy(&path).unwrap();
            assert_eq!(dense.to_array(), expected, "{name}");
            assert!(matches!(dense.storage(), Storage::U8(_)), "{name}");
            assert!(dense.is_c_order());
            read += 1;
        }
    }
    assert_eq!(read, 24);
}

#[test]
fn fortran_order_is_kept() {
    let dense = read_npy(fixture("fortran_i4.npy")).unwrap();
    assert_eq!(dense.to_array(), fives());
    assert_eq!(dense.strides(), [1, 2, 6]);
    let mask = read_bool(fixture("fortran_b1.npy")).unwrap();
    assert_eq!(mask.mapv(|m| f64::from(u8::from(m))), evens());
    assert_eq!(read_bool(fixture("c_b1.npy")).unwrap(), mask);
}

#[test]
fn what_is_not_numbers_is_refused_by_name() {
    for (name, says) in [
        ("refused_c16.npy", "complex"),
        ("refused_string.npy", "strings"),
        ("refused_object.npy", "objects"),
        ("refused_structured.npy", "structured"),
        ("refused_longdouble.npy", "long double"),
        ("refused_datetime.npy", "dates"),
        ("refused_scalar.npy", "at least one mode"),
        ("refused_empty.npy", "no entries"),
    ] {
        let found = message(read_npy(fixture(name)));
        assert!(found.contains(says) && found.contains(name), "{found}");
    }
    let found = message(read_bool(fixture("c_u1.npy")));
    assert!(found.contains("type bool") && found.contains("|u1"), "{found}");
}

#[test]
fn npz_arrays_by_name_or_alone() {
    for name in ["one_stored.npz", "one_deflated.npz", "no_suffix.npz"] {
        let path = fixture(name);
        for key in [None, Some("Y")] {
            assert_eq!(read_npz(&path, key).unwrap().to_array(), fives(), "{name}");
            assert_eq!(read_array_f64(&path, key).unwrap(), fives());
        }
        let found = message(read_npz(&path, Some("Z")));
        assert!(found.contains("\"Z\"") && found.contains("\"Y\" (shape [2, 3, 4]"), "{found}");
    }
    assert_eq!(read_npz(fixture("one_stored.npz"), Some("Y.npy")).unwrap().to_array(), fives());
    let found = message(read_npz(fixture("several.npz"), None));
    for part in ["\"a\" (shape [2, 3, 4], type <f4)", "\"b\" (shape [5], type <i8)", "name one"] {
        assert!(found.contains(part), "{found}");
    }
    let found = message(read_npz(fixture("none.npz"), None));
    assert!(found.contains("no array of numbers"), "{found}");
    let found = message(read_npz(fixture("one_stored.npz"), Some("note")));
    assert!(found.contains("array \"note\": the array holds strings"), "{found}");
    assert!(message(read_npz_arrays(fixture("none.npz"))).contains("no array of numbers"));

    let names = npz_names(fixture("one_stored.npz")).unwrap();
    assert_eq!(
        names.iter().map(|i| i.name.as_str()).collect::<Vec<_>>(),
        ["Y", "note", "mask", "step"]
    );
    assert_eq!(names.iter().map(|i| i.numeric).collect::<Vec<_>>(), [true, false, false, true]);
    let all = read_npz_arrays(fixture("several.npz")).unwrap();
    assert_eq!(all.iter().map(|a| a.0.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(all[1].1, Array1::from_iter((0..5).map(f64::from)).into_dyn());
    assert_eq!(all[0].1[[1, 2, 3]], f64::from(23f32 / 3.0));
}

#[test]
fn kinds_of_file() {
    assert_eq!(FileKind::of("a/b.npy").unwrap(), FileKind::Npy);
    assert_eq!(FileKind::of("a/b.Npz").unwrap(), FileKind::Npz);
    assert_eq!(FileKind::of("b.TNS").unwrap(), FileKind::Tns);
    for other in ["b.csv", "npy", "", "b.npy.gz"] {
        let found = message(FileKind::of(other));
        assert!(found.contains(".npy, .npz and .tns"), "{found}");
    }
    assert!(message(read_dense(fixture("c_u1.npy"), Some("Y"))).contains("without a name"));
    assert!(message(read_dense(fixture("small.tns"), None)).contains("coordinates"));
    assert_eq!(read_dense(fixture("c_u1.npy"), None).unwrap().to_array(), fives());
}

#[test]
fn files_that_cannot_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing.npy");
    for error in [
        read_npy(&missing).unwrap_err(),
        read_npz(&missing, None).unwrap_err(),
        read_tns(&missing, None).unwrap_err(),
        read_npy(folder.path()).unwrap_err(),
        read_npz(folder.path(), None).unwrap_err(),
        read_tns(folder.path(), None).unwrap_err(),
        write_npy(folder.path(), &array![1.0]).unwrap_err(),
        write_npy(missing.join("deeper.npy"), &array![1.0]).unwrap_err(),
    ] {
        assert!(matches!(error, Error::File { .. }), "{error}");
        assert!(error.is_input(), "{error}");
    }
    for name in ["empty.npy", "empty.npz", "empty.tns"] {
        fs::write(folder.path().join(name), "").unwrap();
    }
    assert!(message(read_npy(folder.path().join("empty.npy"))).contains("empty"));
    assert!(message(read_npz(folder.path().join("empty.npz"), None)).contains("empty"));
    assert!(message(read_tns(folder.path().join("empty.tns"), None)).contains("no entries"));
    assert!(message(read_npz(fixture("c_u1.npy"), None)).contains("not an .npz archive"));
    assert!(message(read_npy(fixture("one_stored.npz"))).contains("not an .npy array"));
}

/// An `.npy` file with this text as its header.
fn npy(header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

#[test]
fn headers_are_not_believed() {
    let from = |bytes: Vec<u8>| {
        // From memory, and from a file, where the length is known beforehand.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.npy");
        fs::write(&path, &bytes).unwrap();
        let file = read_npy(&path);
        let memory = read_npy_from(bytes.as_slice(), "x.npy");
        assert_eq!(file.is_ok(), memory.is_ok());
        (message(file), message(memory))
    };
    let header =
        |shape: &str| format!("{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}\n");
    // A petabyte that is not there.
    let (file, memory) = from(npy(&header("(1000000, 1000000, 128)"), &[0; 800]));
    assert!(file.contains("800 bytes follow"), "{file}");
    assert!(memory.contains("ends before"), "{memory}");
    let (file, memory) = from(npy(&header("(2, 3)"), &[0; 49]));
    assert!(file.contains("49 bytes follow"), "{file}");
    assert!(memory.contains("more data follow"), "{memory}");
    let (file, memory) = from(npy(&header("(2, 3)"), &[0; 47]));
    assert!(file.contains("47 bytes follow") && memory.contains("ends before"));
    for (bytes, says) in [
        (npy(&header("(-2, 3)"), &[0; 48]), "negative"),
        (npy(&header("(4294967296, 4294967296)"), &[]), "impossible shape"),
        (npy(&header("()"), &[0; 8]), "single number"),
        (npy(&header("(0, 3)"), &[]), "no entries"),
        (npy("not a dictionary", &[]), "cannot be read"),
        (npy("", &[]), "cannot be read"),
        (b"\x93NUMPY\x01\x00\xff\xff{".to_vec(), "ends inside the header"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff{".to_vec(), "announces 4294967295 bytes"),
        (b"\x93NUMPY\x07\x03\x00\x00".to_vec(), "version 7.3"),
        (b"\x93NUM".to_vec(), "ends inside the header"),
        (b"PK\x03\x04 and so on".to_vec(), "does not begin"),
        (b"".to_vec(), "empty"),
    ] {
        let (file, memory) = from(bytes);
        assert!(file.contains(says) && memory.contains(says), "{file} / {memory}");
    }
}

#[test]
fn archives_are_not_believed() {
    let intact = fs::read(fixture("one_deflated.npz")).unwrap();
    let at = |bytes: &[u8], what: &[u8]| bytes.windows(4).position(|w| w == what).unwrap();
    // The central directory's claim of the uncompressed size, made larger and smaller.
    let central = at(&intact, b"PK\x01\x02");
    for size in [u32::MAX - 1, 1 << 30, 100, 0] {
        let mut bytes = intact.clone();
        bytes[central + 24..central + 28].copy_from_slice(&size.to_le_bytes());
        let found = message(read_npz_from(Cursor::new(bytes), "x.npz", None));
        assert!(found.contains("x.npz"), "{found}");
    }
    // A wrong sum.
    let mut bytes = intact.clone();
    bytes[central + 16] ^= 1;
    assert!(message(read_npz_from(Cursor::new(bytes), "x.npz", None)).contains("damaged"));
    // Cut off anywhere.
    for end in 0..intact.len() {
        assert!(read_npz_from(Cursor::new(&intact[..end]), "x.npz", None).is_err());
    }
    assert!(read_npz_from(Cursor::new(&intact), "x.npz", None).is_ok());
}

#[test]
fn tns_files() {
    let c = read_tns(fixture("small.tns"), None).unwrap();
    assert_eq!(c.shape(), [2, 3, 4]);
    assert_eq!((c.len(), c.duplicates()), (3, 1));
    let dense = c.to_dense(1 << 20).unwrap();
    assert_eq!(dense.get(&[0, 0, 1]), Some(3.0));
    assert_eq!(dense.get(&[0, 1, 3]), Some(-1e-3));
    assert_eq!(dense.get(&[1, 2, 0]), Some(2.0));
    let c = read_tns(fixture("small.tns"), Some(&[5, 5, 5])).unwrap();
    assert_eq!(c.shape(), [5, 5, 5]);

    let read = |text: &str, shape: Option<&[usize]>| read_tns_from(text.as_bytes(), "x.tns", shape);
    assert_eq!(
        read("1 1 123456789012345678", None).unwrap().values().get(0),
        Some(123456789012345678.0)
    );
    assert_eq!(read("1 1 00000000000000000003", None).unwrap().values().get(0), Some(3.0));
    assert_eq!(read("18446744073709551615 1.5e3", None).map(|c| c.shape()[0]).unwrap(), usize::MAX);
    // A byte order mark stands before the first line, and nowhere else.
    let marked = read("\u{feff}1 2 5\n2 1 3\n", None).unwrap();
    assert_eq!((marked.shape(), marked.len()), (&[2, 2][..], 2));
    // Nothing of a file steers the terminal that a message is written to.
    let steering = read("1 \u{1b}[31m\u{202e} 1\n", None).unwrap_err().to_string();
    assert!(!steering.contains(['\u{1b}', '\u{202e}']), "{steering:?}");
    assert!(steering.contains("'\\u{1b}[31m\\u{202e}' is not an index"), "{steering:?}");
    let long = "1 ".repeat(40_000);
    for (text, shape, says) in [
        ("1 1 1\n\u{feff}1 1 1\n", None, "is not an index"),
        ("1 1 1\n0 1 1\n", None, "line 2: index 0"),
        ("1 1 1\n\n# c\n1 1\n", None, "line 4: 1 indices"),
        ("1 1 x\n", None, "line 1: 'x' is not a number"),
        ("1.0 1 1\n", None, "'1.0' is not an index"),
        ("-1 1 1\n", None, "'-1' is not an index"),
        ("18446744073709551616 1 1\n", None, "is not an index"),
        ("7\n", None, "'7' alone"),
        ("1 1 1\n", Some(&[2usize, 2, 2][..]), "2 indices, but the shape"),
        ("1 1 1\n1 3 1\n", Some(&[2, 2]), "line 2: index 3 along mode 2"),
        ("# nothing\n", Some(&[2, 2]), "no entries"),
        ("\u{e9} 1 1", None, "is not an index"),
        ("1 1 \u{e9}", None, "is not a number"),
        (&long, None, "longer than"),
        (&long[..200], None, "more than 64 indices"),
    ] {
        let found = message(read(text, shape));
        assert!(found.contains(says) && found.contains("x.tns"), "{found}");
    }
}

#[test]
fn texts_beside_arrays_are_seen_by_those_who_ask() {
    let folder = tempfile::tempdir().unwrap();
    let npz = folder.path().join("factors.npz");
    // Numbers that do not compress.
    let mut state = 1u64;
    let noise = Array1::from_shape_simple_fn(400_000, || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 11) as f64
    });
    for arrays in [
        vec![("theta_1", array![1.0, 2.0].into_dyn())],
        vec![("theta_1", noise.into_dyn()), ("theta_2", array![3.0].into_dyn())],
    ] {
        let long = "é".repeat(100_000);
        write_npz_with(&npz, &arrays, &[("fit.json", &long), ("notes", "")]).unwrap();
        let names: Vec<String> = npz_names(&npz).unwrap().into_iter().map(|a| a.name).collect();
        // Ordinary members, after the arrays.
        let expected: Vec<&str> =
            arrays.iter().map(|(name, _)| *name).chain(["fit.json", "notes"]).collect();
        assert_eq!(names, expected);
        for ((name, found), (_, array)) in read_npz_arrays(&npz).unwrap().iter().zip(&arrays) {
            assert_eq!(found, array, "{name}");
        }
        let text = |name: &str| read_npz_text(&npz, name);
        assert_eq!(text("fit.json").unwrap().as_deref(), Some(long.as_str()));
        assert_eq!(text("notes").unwrap().as_deref(), Some(""));
        assert_eq!(text("theta").unwrap(), None);
    }
    write_npz(&npz, &[("theta_1", array![1.0])]).unwrap();
    assert_eq!(read_npz_text(&npz, "fit.json").unwrap(), None);
}

#[test]
fn what_is_written_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let npz = folder.path().join("factors.npz");
    let mut fortran = Array2::<f64>::zeros((3, 4).f());
    fortran.iter_mut().enumerate().for_each(|(i, x)| *x = 0.1 * i as f64);
    let odd = array![f64::NAN, f64::INFINITY, -1.5, 1e-320, f64::MAX].into_dyn();
    let arrays = [("theta_1", fortran.clone().into_dyn()), ("theta_2", odd.clone())];
    write_npz(&npz, &arrays).unwrap();
    let back = read_npz_arrays(&npz).unwrap();
    assert_eq!(back[0], ("theta_1".to_string(), fortran.clone().into_dyn()));
    assert_eq!(back[1].0, "theta_2");
    assert!(back[1].1[0].is_nan());
    assert_eq!(back[1].1.as_slice().unwrap()[1..], odd.as_slice().unwrap()[1..]);
    let first = fs::read(&npz).unwrap();
    write_npz(&npz, &arrays).unwrap();
    assert_eq!(first, fs::read(&npz).unwrap());

    let npy = folder.path().join("a.npy");
    write_npy(&npy, &fortran.mapv(|x| x as f32)).unwrap();
    assert_eq!(
        read_npy(&npy).unwrap().to_array(),
        fortran.mapv(|x| f64::from(x as f32)).into_dyn()
    );
    let bytes = fs::read(&npy).unwrap();
    assert_eq!((bytes.len() - 12 * 8) % 64, 0);
    write_npy(&npy, &arr0(2.0)).unwrap();
    assert!(message(read_npy(&npy)).contains("its shape is ()"));

    let json = folder.path().join("history.json");
    write_json(&json, &serde_json::json!({"loss": [1.0, 0.5]})).unwrap();
    let text = fs::read_to_string(&json).unwrap();
    assert!(text.ends_with("}\n"));
    assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap()["loss"][1], 0.5);

    for names in [["a", "a"], ["a", ""]] {
        let twice = names.map(|n| (n, odd.clone()));
        assert!(matches!(write_npz(&npz, &twice), Err(Error::Format { .. })));
    }
    assert_eq!(first, fs::read(&npz).unwrap());
    // Nothing is left beside the three.
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
}

#[test]
fn a_failed_write_leaves_what_was_there() {
    struct Fails;
    impl serde::Serialize for Fails {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("no"))
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("history.json");
    fs::write(&path, "before").unwrap();
    assert!(matches!(write_json(&path, &Fails), Err(Error::File { .. })));
    assert_eq!(fs::read_to_string(&path).unwrap(), "before");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[cfg(unix)]
#[test]
fn written_files_are_ordinary_files() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let folder = tempfile::tempdir().unwrap();
    let ordinary = folder.path().join("ordinary");
    fs::write(&ordinary, "x").unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
    let path = folder.path().join("a.npy");
    write_npy(&path, &array![1.0]).unwrap();
    assert_eq!(mode(&path), mode(&ordinary));
    // Replacing keeps the permissions, and goes through links.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let link = folder.path().join("link.npy");
    symlink(&path, &link).unwrap();
    write_npy(&link, &array![1.0, 2.0]).unwrap();
    assert_eq!(mode(&path) & 0o777, 0o600);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(read_npy(&path).unwrap().shape(), [2]);
}

/// A small generator, so that a failure can be repeated.
pub struct Mutator(pub u64);

impl Mutator {
    pub fn next(&mut self, below: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % below.max(1)
    }

    /// One to eight changes: flipped bits, other bytes, pieces cut out, doubled or swapped in,
    /// the end cut off.
    pub fn mutate(&mut self, bytes: &[u8]) -> Vec<u8> {
        const TOKENS: [&[u8]; 14] = [
            b"\xff\xff\xff\xff",
            b"\x00\x00\x00\x00",
            b"PK\x01\x02",
            b"PK\x03\x04",
            b"PK\x05\x06",
            b"-1",
            b"99999999999999999999",
            b"4294967296",
            b"(",
            b")",
            b"'",
            b"0",
            b"#",
            b"\n",
        ];
        let mut out = bytes.to_vec();
        for _ in 0..1 + self.next(8) {
            let len = out.len();
            let at = self.next(len);
            match self.next(8) {
                0 | 1 if len > 0 => out[at] ^= 1 << self.next(8),
                2 if len > 0 => out[at] = self.next(256) as u8,
                3 if len > 0 => {
                    let end = (at + 1 + self.next(16)).min(len);
                    out.drain(at..end);
                }
                4 if len > 0 => {
                    let end = (at + 1 + self.next(64)).min(len);
                    let piece = out[at..end].to_vec();
                    let to = self.next(len);
                    out.splice(to..to, piece);
                }
                5 => {
                    let token = TOKENS[self.next(TOKENS.len())];
                    out.splice(at..at, token.iter().copied());
                }
                6 => {
                    let token = TOKENS[self.next(TOKENS.len())];
                    let end = (at + token.len()).min(len);
                    out.splice(at..end, token.iter().copied());
                }
                _ => out.truncate(len - self.next(len.min(64))),
            }
        }
        out
    }
}

/// How many mutations of each file; more with NNEINFACT_MUTATIONS, for a long search.
pub fn mutations() -> usize {
    std::env::var("NNEINFACT_MUTATIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(400)
}

#[test]
fn damaged_files_never_panic() {
    let (mut good, mut bad) = (0u64, 0u64);
    for (i, path) in fixtures().into_iter().enumerate() {
        let bytes = fs::read(&path).unwrap();
        let kind = FileKind::of(&path).unwrap();
        let mut mutator = Mutator(i as u64);
        for _ in 0..mutations() {
            let bytes = mutator.mutate(&bytes);
            let result = match kind {
                FileKind::Npy => read_npy_from(bytes.as_slice(), "x").map(|d| d.len()),
                FileKind::Npz => {
                    let key = [None, Some("Y"), Some("b")][mutator.next(3)];
                    read_npz_from(Cursor::new(&bytes), "x", key).map(|d| d.len())
                }
                FileKind::Tns => {
                    let shape = [None, Some(&[2usize, 3, 4][..])][mutator.next(2)];
                    read_tns_from(bytes.as_slice(), "x", shape).map(|c| c.len())
                }
            };
            match result {
                Ok(len) => {
                    good += 1;
                    assert!(len > 0);
                }
                Err(error) => {
                    bad += 1;
                    assert!(matches!(
                        error,
                        Error::Format { .. } | Error::Shape { .. } | Error::File { .. }
                    ));
                    assert!(!error.to_string().is_empty());
                }
            }
        }
    }
    // Mutations that are all refused, or all harmless, would test nothing.
    assert!(good > 100 && bad > 100, "{good} {bad}");
}

#[test]
fn damaged_trains_never_panic() {
    use nneinfact::density::{NonnegativeTrain, SavedTrain};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("train.npz");
    let train = NonnegativeTrain::random(&[2, 3, 2], &[2, 2], 1).unwrap().into_train();
    SavedTrain::new(train.clone()).save(&path).unwrap();
    let bytes = fs::read(&path).unwrap();
    assert_eq!(SavedTrain::train_from(Cursor::new(&bytes), "x").unwrap(), train);
    let mut mutator = Mutator(3);
    let (mut good, mut bad) = (0u64, 0u64);
    for _ in 0..mutations() {
        match SavedTrain::train_from(Cursor::new(mutator.mutate(&bytes)), "x") {
            Ok(_) => good += 1,
            Err(error) => {
                bad += 1;
                assert!(matches!(error, Error::Format { .. } | Error::File { .. }), "{error}");
            }
        }
    }
    assert!(good + bad == mutations() as u64 && bad > 10, "{good} {bad}");
}

#[test]
fn damaged_models_never_panic() {
    use nneinfact::model::{Model, Shapes};
    let mut mutator = Mutator(1);
    for text in ["wr,hr,dr,ikr,jkr->whdij", "ir,jr->ij", " i , k -> i k", "ik,jqk,aiq,q->ija"] {
        for _ in 0..mutations() * 5 {
            let text = String::from_utf8_lossy(&mutator.mutate(text.as_bytes())).into_owned();
            if let Ok(model) = Model::parse(&text) {
                let shape: Vec<usize> = (0..mutator.next(7)).map(|_| mutator.next(5)).collect();
                let ranks: Vec<(char, usize)> =
                    model.latent().iter().map(|l| (char::from(l), mutator.next(1 << 30))).collect();
                let _ = Shapes::new(&model, &shape, &ranks).map(|s| s.parameters());
                let _ = model.warnings();
            }
        }
    }
}
