//! Every function and setting on small tables.

use nneinfact_table::{Implicit, LabelKind, Table, TableTensor, Values};

pub fn read(text: &str, modes: &str) -> TableTensor {
    table(text).modes(modes).unwrap().read().unwrap()
}

pub fn table(text: &str) -> Table<'_> {
    Table::from_reader(text.as_bytes(), "t.csv")
}

/// The entries as `label label value`.
pub fn entries(tensor: &TableTensor) -> Vec<String> {
    let entry = |(i, value): (usize, &f64)| {
        let labels = tensor.modes.iter().zip(&tensor.coords);
        let labels: Vec<&str> = labels.map(|(m, c)| m.labels[c[i] as usize].as_str()).collect();
        format!("{} {value}", labels.join(" "))
    };
    tensor.values.iter().enumerate().map(entry).collect()
}

#[test]
fn times() {
    let text = "time\n2016-02-29T23:59\n2016-12-31 00:00:01\n2017-01-02\n2014-12-29 12:30\n";
    let tensor =
        read(text, "year(time),month(time),week(time),weekday(time),hour(time),minute(time)");
    assert_eq!(tensor.shape(), [4, 12, 106, 7, 24, 60]);
    assert_eq!(
        entries(&tensor),
        [
            "2014 Dec 2015-W01 Mon 12:00 :30 1",
            "2016 Feb 2016-W09 Mon 23:00 :59 1",
            "2016 Dec 2016-W52 Sat 00:00 :00 1",
            "2017 Jan 2017-W01 Mon 00:00 :00 1",
        ]
    );
    let kinds: Vec<bool> = tensor.modes.iter().map(|m| m.kind == LabelKind::Cycle).collect();
    assert_eq!(kinds, [false, true, false, true, true, true]);
    assert_eq!(tensor.modes[0].labels, ["2014", "2015", "2016", "2017"]);
    // A year of 53 weeks.
    let tensor = read("t\n2015-12-28\n2016-01-03\n2016-01-04\n", "week(t),date(t)");
    assert_eq!(tensor.modes[0].labels, ["2015-W53", "2016-W01"]);
    assert_eq!(tensor.modes[1].labels.len(), 8);
    assert_eq!(tensor.values, [1.0, 1.0, 1.0]);
}

#[test]
fn months_of_years_run_without_gaps() {
    let tensor = read("t\n2015-02-28\n2014-11-30\n2015-02-01\n", "yearmonth(t)");
    assert_eq!(tensor.modes[0].labels, ["2014-11", "2014-12", "2015-01", "2015-02"]);
    assert_eq!(tensor.modes[0].kind, LabelKind::Date);
    assert_eq!((&tensor.coords[0][..], &tensor.values[..]), (&[0, 3][..], &[1.0, 2.0][..]));
    // Before the year 1, months still count upwards.
    let tensor = read("t\n-000001-12-31\n0000-01-01\n", "yearmonth(t)");
    assert_eq!(tensor.modes[0].labels.len(), 2);
}

#[test]
fn codes_begin_with_their_class() {
    let tensor = read("code\n0311\n031\n190\n19\n1\n", "prefix(code,2)");
    assert_eq!(entries(&tensor), ["03 2", "1 1", "19 2"]);
    // Characters, not bytes.
    assert_eq!(entries(&read("c\n東京都\n東京\n", "prefix(c,2)")), ["東京 2"]);
    let error = table("c\nab\n").modes("prefix(c,0)").err().unwrap().to_string();
    assert!(error.contains("how many characters"), "{error}");
    assert!(table("c\nab\n").modes("prefix(c)").is_err());
    let error = Table::from_reader(&b"c\n\xff\xfe\n"[..], "t.csv").modes("prefix(c,1)").unwrap();
    assert!(error.read().unwrap_err().to_string().contains("not UTF-8"));
}

#[test]
fn zones_change_the_day() {
    let text = "t\n1404172800\n1404187200000\n2014-07-01T00:00:00+00:00\n";
    let tensor = table(text)
        .time_zone("America/New_York")
        .unwrap()
        .modes("date(t),hour(t)")
        .unwrap()
        .read()
        .unwrap();
    assert_eq!(entries(&tensor), ["2014-06-30 20:00 2", "2014-07-01 00:00 1"]);
    let tensor = read(text, "date(t),hour(t)");
    assert_eq!(entries(&tensor), ["2014-07-01 00:00 2", "2014-07-01 04:00 1"]);
}

#[test]
fn bins() {
    let text = "x,y\n-74.0,1\n-73.5,2\n-73.0,3\n-73.75,11\n";
    let tensor = read(text, "bin(x,2)");
    assert_eq!(entries(&tensor), ["[-74.0, -73.5) 2", "[-73.5, -73.0] 2"]);
    assert_eq!(tensor.modes[0].kind, LabelKind::Bins { edges: vec![-74.0, -73.5, -73.0] });
    let tensor = read(text, "x=bin(x,-74:-73.5:0.25),bin(y,0:10:1)");
    assert_eq!(entries(&tensor), ["[-74.00, -73.75) [1, 2) 1", "[-73.75, -73.50] [2, 3) 1"]);
    assert_eq!((tensor.counts.outside, tensor.counts.kept()), (2, 2));
    assert_eq!(tensor.shape(), [2, 10]);
    assert_eq!(tensor.modes[0].letter, Some('x'));
    // All the same.
    assert_eq!(read("x\n5\n5\n", "bin(x,2)").coords, [[1]]);
    // A row that another mode drops still counts for the range.
    let tensor = read("x,y\n0,1\n10,99\n", "bin(x,2),bin(y,0:2:1)");
    assert_eq!(tensor.modes[0].kind, LabelKind::Bins { edges: vec![0.0, 5.0, 10.0] });
}

#[test]
fn top_and_round() {
    let text = "c,v\nb,1\na,2\nb,4\nc,8\na,16\nd,32\n";
    let tensor = table(text).sum("v").modes("top(c,2)").unwrap().read().unwrap();
    assert_eq!(entries(&tensor), ["a 18", "b 5"]);
    assert_eq!(tensor.counts.rare, 2);
    let tensor = table(text).sum("v").modes("top(c,3,other)").unwrap().read().unwrap();
    assert_eq!(entries(&tensor), ["a 18", "b 5", "c 8", "other 32"]);
    assert_eq!(read(text, "top(c,9,other)").shape(), [4]);
    let tensor = read("x\nother\nother\n1\n", "top(x,1,other)");
    assert_eq!(entries(&tensor), ["other 2", "(other) 1"]);
    let tensor = read("x\n0.25\n-0.04\n0.35\n0.04\n10\n", "round(x,1)");
    assert_eq!(entries(&tensor), ["0.0 2", "0.2 1", "0.4 1", "10.0 1"]);
    assert_eq!(tensor.modes[0].kind, LabelKind::Number);
    assert_eq!(entries(&read("x\n1250\n1350\n", "round(x,-2)")), ["1200 1", "1400 1"]);
}

#[test]
fn values() {
    let text = "c,v\na,1\nb,-5\na,2.5\n";
    let of = |values: Values| {
        let tensor = table(text).values(values).modes("c").unwrap().read().unwrap();
        (tensor.values, tensor.implicit)
    };
    let v = || "v".to_string();
    assert_eq!(of(Values::Count), (vec![2.0, 1.0], Implicit::Zero));
    assert_eq!(of(Values::Sum(v())), (vec![3.5, -5.0], Implicit::Zero));
    assert_eq!(of(Values::Mean(v())), (vec![1.75, -5.0], Implicit::Missing));
    assert_eq!(of(Values::Max(v())), (vec![2.5, -5.0], Implicit::Missing));
    let tensor = table(text).mean("v").implicit(Implicit::Zero).modes("c").unwrap().read().unwrap();
    assert_eq!(tensor.implicit, Implicit::Zero);
    // Sums begin at zero.
    let tensor = table("c,v\na,-0\n").sum("v").modes("c").unwrap().read().unwrap();
    assert_eq!(tensor.values[0].to_bits(), 0);
}

#[test]
fn filters_and_orders() {
    let text = "y,c,t\n2009,a,x\n2010,b,x\n2011,NA,x\n,a,x\n2012,c,x\n";
    let of = |filter: &str| {
        let table = table(text).filter(filter).unwrap().modes("t").unwrap();
        let tensor = table.read().unwrap();
        (tensor.values[0], tensor.counts.filtered)
    };
    assert_eq!(of("y >= 2010"), (3.0, 2));
    assert_eq!(of("y != 2010"), (4.0, 1));
    assert_eq!(of("c = a"), (2.0, 3));
    assert_eq!(of("c = 'a' and y < 2010"), (1.0, 4));
    assert_eq!(of("y = '2010'"), (1.0, 4));
    assert_eq!(of("c > a"), (2.0, 3));

    let order = |labels: &[&str]| {
        let labels = labels.iter().map(|s| s.to_string()).collect();
        let text = "d\nb\na\nb\n";
        table(text).order("d", labels).modes("d=d").unwrap().read()
    };
    let tensor = order(&["b", "never", "a"]).unwrap();
    assert_eq!((tensor.shape(), entries(&tensor)), (vec![3], vec!["b 2".into(), "a 1".into()]));
    assert_eq!(
        order(&["b"]).unwrap_err().to_string(),
        "the label 'a' of the mode d is not in the order given for it"
    );
    assert!(order(&["b", "a", "b"]).unwrap_err().to_string().contains("twice"));
    let error = table("d\nb\n").order("q", vec![]).modes("d").unwrap().read().unwrap_err();
    assert_eq!(error.to_string(), "an order is given for 'q', which is no mode: the modes are 'd'");

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("days.txt");
    std::fs::write(&path, "\u{feff}# Day\r\nSun\r\nMon\r\nTue\r\nWed\r\nThu\r\nFri\r\nSat\r\n\r\n")
        .unwrap();
    let table = table("t\n2014-04-06\n").order_file("w", &path).unwrap();
    let tensor = table.modes("w=weekday(t)").unwrap().read().unwrap();
    assert_eq!((tensor.modes[0].labels[0].as_str(), tensor.coords[0][0]), ("Sun", 0));
    assert_eq!(tensor.modes[0].kind, LabelKind::Cycle);
}

#[test]
fn orders_of_labels() {
    let tensor = read("x\n10\n9\n-1\n10\n", "x");
    assert_eq!(entries(&tensor), ["-1 1", "9 1", "10 2"]);
    // Mixed types are texts.
    assert_eq!(read("x\n10\n9\nx\n", "x").modes[0].labels, ["10", "9", "x"]);
    assert_eq!(read("x\n007\n7\n", "x").shape(), [2]);
    let tensor = table("x,v\n1,1\n1.0,2\n2,4\n").sum("v").modes("x").unwrap().read().unwrap();
    assert_eq!(entries(&tensor), ["1 3", "2 4"]);
    let tensor = table("x,v\n1,1\n1.0,2\n2,4\n").mean("v").modes("x").unwrap().read().unwrap();
    assert_eq!(entries(&tensor), ["1 1.5", "2 4"]);
    assert_eq!(read("x\nSun\nTue\nMon\n", "x").modes[0].labels, ["Mon", "Tue", "Sun"]);
    assert_eq!(read("x\n東京\nمكة\nz\n", "x").modes[0].labels, ["z", "مكة", "東京"]);
}

#[test]
fn several_files() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("r-1.csv", "a,v\nx,1\ny,2\n");
    write("r-2.csv", "v,a\n4,x\n");
    let pattern = format!("{}/r-*.csv", folder.path().display());
    let table = Table::matching(&pattern).unwrap().sum("v").modes("a").unwrap();
    assert_eq!(entries(&table.read().unwrap()), ["x 5", "y 2"]);
    let paths = [folder.path().join("r-2.csv"), folder.path().join("r-1.csv")];
    let tensor = Table::open_all(paths).modes("bin(v,3),a").unwrap().read().unwrap();
    assert_eq!(entries(&tensor), ["[1, 2) x 1", "[2, 3) y 1", "[3, 4] x 1"]);
    assert!(Table::matching(&format!("{}/q-*", folder.path().display())).is_err());
    assert!(Table::open_all(Vec::<String>::new()).modes("a").unwrap().read().is_err());
}
