"""Tables of events: what the program makes of a file of them."""

import subprocess
import sys

import numpy as np
import pytest

import nneinfact as nn

RIDES = {
    "time": ["2014-04-01 00:11:00", "2014-04-02 00:17:00", "2014-04-02 07:21:00", "2014-04-03 23:59:59"],
    "who": ["b", "a", "a", "c, d"],
    "lat": [40.5, 40.7, 40.7, 41.0],
    "fare": [10.0, 2.5, 4.25, 1.0],
}


def same(a, b):
    assert a.shape == b.shape and a.names == b.names and a.labels == b.labels
    assert [list(c) for c in a.columns] == [list(c) for c in b.columns]
    assert a.values.tobytes() == b.values.tobytes()


def write(path):
    import csv

    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(RIDES)
        writer.writerows(zip(*RIDES.values()))


MODES = [
    (["who", nn.hour("time")], "who,hour(time)"),
    ({"d": nn.date("time"), "i": nn.bins("lat", 5)}, "d=date(time),i=bin(lat,5)"),
    ({"w": nn.weekday("time"), "i": nn.bins("lat", start=40, stop=41, step=0.25)},
     "w=weekday(time),i=bin(lat,40:41:0.25)"),
    ([nn.top("who", 1, other=True), nn.rounded("lat")], "top(who,1,other),round(lat,0)"),
    ([nn.month("time"), nn.week("time"), nn.year("time"), nn.minute("time")],
     "month(time),week(time),year(time),minute(time)"),
]


@pytest.mark.parametrize("modes, text", MODES, ids=lambda x: str(x)[:30])
def test_frames_and_files_give_the_same_tensor(modes, text, tmp_path):
    write(tmp_path / "rides.csv")
    wanted = nn.from_table(tmp_path / "rides.csv", text)
    same(nn.from_table(RIDES, modes), wanted)
    same(nn.from_table(RIDES, text), wanted)
    for package in ("pandas", "polars", "pyarrow"):
        module = pytest.importorskip(package)
        make = module.table if package == "pyarrow" else module.DataFrame
        same(nn.from_table(make(RIDES), modes), wanted)


def test_times_of_frames(tmp_path):
    write(tmp_path / "rides.csv")
    wanted = nn.from_table(tmp_path / "rides.csv", "hour(time),date(time)")
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(RIDES).assign(time=lambda f: pandas.to_datetime(f["time"]))
    modes = [nn.hour("time"), nn.date("time")]
    same(nn.from_table(frame, modes), wanted)
    polars = pytest.importorskip("polars")
    same(nn.from_table(polars.from_pandas(frame), modes), wanted)
    same(nn.from_table({"time": frame["time"].to_numpy()}, modes), wanted)


def test_values_and_what_has_no_row():
    total = nn.from_table(RIDES, ["who"], "fare")
    assert total.values.tolist() == [6.75, 10.0, 1.0] and not total.implicit_missing
    mean = nn.from_table(RIDES, ["who", nn.hour("time")], "fare", aggregate="mean")
    assert mean.implicit_missing and np.isnan(mean.to_dense()).any()
    cheap = nn.from_table(RIDES, ["who"], filter="fare < 5")
    assert cheap.labels == [["a", "c, d"]] and cheap.counts["filtered"] == 1
    ordered = nn.from_table(RIDES, ["who"], order={"who": ["c, d", "b", "a", "e"]})
    assert ordered.to_dense().tolist() == [1, 1, 2, 0]


def test_rows_that_cannot_be_read():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"who": ["a", None, "b"], "n": [1, 2, None]})
    with pytest.raises(ValueError, match="line 3"):
        nn.from_table(frame, ["who"])
    with pytest.warns(nn.NNEinFactWarning, match="1 row was skipped, of 3"):
        assert nn.from_table(frame, ["who"], skip_bad=True).shape == (2,)
    # Whole numbers stay so beside missing ones.
    with pytest.warns(nn.NNEinFactWarning):
        assert nn.from_table(frame, ["n"], skip_bad=True).labels == [["1", "2"]]


def test_labels_reach_the_report(tmp_path):
    t = nn.from_table(RIDES, {"h": nn.hour("time"), "w": "who"})
    fit = nn.fit("wr,hr->wh", t, {"r": 1}, max_iter=20)
    assert fit.names == {"h": "hour(time)", "w": "who"} and fit.shape == (3, 24)
    fit.report(tmp_path / "fit.html", t)
    assert "c, d" in (tmp_path / "fit.html").read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="the modes of the data are h, w"):
        nn.fit("wr,jr->wj", t, {"r": 1})


def test_the_same_fit_as_the_program_from_the_table(tmp_path):
    write(tmp_path / "rides.csv")
    done = subprocess.run(
        [sys.executable, "-m", "nneinfact", "fit", "rides.csv", "--modes", "w=who,h=hour(time)",
         "--model", "wr,hr->wh", "--rank", "r=2", "--out", "fit.npz", "--max-iter", "10"],
        cwd=tmp_path, capture_output=True, text=True,
    )
    assert done.returncode == 0, done.stderr
    theirs = nn.load(tmp_path / "fit.npz")
    t = nn.from_table(RIDES, {"w": "who", "h": nn.hour("time")})
    ours = nn.fit("wr,hr->wh", t, {"r": 2}, max_iter=10)
    assert [f.tobytes() for f in ours.factors] == [f.tobytes() for f in theirs.factors]
    assert ours.labels == theirs.labels


def test_files_of_the_program_have_names(tmp_path):
    write(tmp_path / "rides.csv")
    subprocess.run(
        [sys.executable, "-m", "nneinfact", "table", "rides.csv", "--modes", "w=who,h=hour(time)",
         "--out", "rides.npz"], cwd=tmp_path, check=True, capture_output=True,
    )
    data = nn.open_data(tmp_path / "rides.npz")
    assert data.letters == ["w", "h"] and data.labels[0] == ["a", "b", "c, d"]
    fit = nn.fit("hr,wr->hw", tmp_path / "rides.npz", {"r": 1}, max_iter=3)
    assert fit.shape == (24, 3) and fit.labels["w"] == ["a", "b", "c, d"]
