"""Makes the Parquet files of the tests, and the same rows as text: pip install pyarrow; python make.py"""

import datetime as dt
import decimal
import pathlib

import pyarrow as pa
import pyarrow.parquet as pq

HERE = pathlib.Path(__file__).parent
ROWS = range(60)
UTC = dt.timezone.utc


def or_none(i, every, value):
    return None if i % every == every - 1 else value


COLUMNS = {
    "who": (pa.string(), lambda i: or_none(i, 11, ["ann", "bob", "zoë, jr", "דנה", "李"][i * i % 5])),
    "n": (pa.int64(), lambda i: or_none(i, 13, (-1) ** i * i * 37 % 19 - 4)),
    "small": (pa.uint8(), lambda i: 250 + i % 6),
    "large": (pa.uint64(), lambda i: 2**64 - 1 - i % 3),
    "x": (pa.float64(), lambda i: or_none(i, 17, (i - 30) / 7)),
    "far": (pa.float64(), lambda i: [1e300, 1e-9, -2.5e17, 0.0][i % 4]),
    "f": (pa.float32(), lambda i: i / 8),
    "ok": (pa.bool_(), lambda i: i % 3 == 0),
    "day": (pa.date32(), lambda i: dt.date(2016, 2, 20) + dt.timedelta(days=i % 23)),
    "at": (pa.timestamp("us"), lambda i: dt.datetime(1969, 12, 30, 22, 5, 7, 1000 * (i % 2)) + dt.timedelta(hours=5 * i)),
    "utc": (pa.timestamp("ms", tz="UTC"), lambda i: dt.datetime(2014, 3, 8, 1, tzinfo=UTC) + dt.timedelta(minutes=97 * i)),
    "clock": (pa.time64("us"), lambda i: dt.time(i % 24, i, 5)),
    "price": (pa.decimal128(9, 2), lambda i: decimal.Decimal(i * i - 400) / 100),
    "place": (pa.struct([("lat", pa.float64())]), lambda i: or_none(i, 19, {"lat": 40.5 + i % 4 / 4})),
    "tags": (pa.list_(pa.string()), lambda i: ["a"] * (i % 3)),
}


def text(value):
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case dt.datetime():
            written = value.replace(tzinfo=None).isoformat(" ")
            return written + ("Z" if value.tzinfo else "")
        case dict():
            return text(value["lat"])
        case decimal.Decimal():
            return f"{value:.2f}"
        case float():
            return repr(value).removesuffix(".0")
        case str():
            return f'"{value}"' if "," in value else value
        case _:
            return str(value)


def main():
    table = pa.table({
        name: pa.array([value(i) for i in ROWS], type=kind) for name, (kind, value) in COLUMNS.items()
    })
    names = [name for name in COLUMNS if name != "tags"]
    lines = [",".join(name.replace("place", "place.lat") for name in names)]
    lines += [",".join(text(COLUMNS[name][1](i)) for name in names) for i in ROWS]
    (HERE / "rows.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def write(name, table=table, **settings):
        pq.write_table(table, HERE / name, store_schema=False, **settings)

    write("snappy.parquet", compression="snappy", row_group_size=25, version="1.0", data_page_size=64)
    write("zstd.parquet", compression="zstd", data_page_version="2.0", data_page_size=64)
    write("gzip.parquet", compression="gzip", use_dictionary=False, row_group_size=7)
    few = table.select(["who", "at"])
    write("lz4.parquet", few, compression="lz4")
    write("int96.parquet", few, use_deprecated_int96_timestamps=True)
    write("empty.parquet", few.slice(0, 0))
    write("refused.parquet", pa.table({
        "half": pa.array([1.5], type=pa.float16()),
        "wide": pa.array([decimal.Decimal("1.25")], type=pa.decimal256(40, 2)),
        "span": pa.array([dt.timedelta(seconds=90)], type=pa.duration("s")),
    }))


main()
