"""The program in the wheel, and the same bits as it gives."""

import subprocess
import sys

import numpy as np
import pytest

import nneinfact as nn


def program(*arguments, cwd=None):
    return subprocess.run(
        [sys.executable, "-m", "nneinfact", *map(str, arguments)], capture_output=True, text=True,
        cwd=cwd,
    )


def test_the_program_is_there():
    assert nn.__version__ in program("--version").stdout
    done = program("explain", "--model", "ir,jr->ij", "--rank", "r=2", "--shape", "3,4")
    assert done.returncode == 0 and "ir,jr->ij" in done.stdout
    wrong = program("fit", "nothing.npy", "--model", "ir,jr->ij", "--rank", "r=2")
    assert wrong.returncode == 2 and "nothing.npy" in wrong.stderr


# The program's options, and the same in Python.
SAME = [
    (["--loss", "kl"], {}),
    (["--loss", "euclidean", "--seed", 3], {"loss": "euclidean", "seed": 3}),
    (["--loss", "alpha-beta", "--alpha", 0.7, "--beta", 0.2], {"loss": nn.alpha_beta(0.7, 0.2)}),
    (["--loss", "negative-binomial", "--dispersion", 2], {"loss": nn.negative_binomial(2)}),
    (["--precision", "f64"], {"precision": "f64"}),
    (["--algorithm", "block"], {"algorithm": "block"}),
    (["--algorithm", "grouped", "--inner-cycles", 2], {"algorithm": "grouped", "inner_cycles": 2}),
    (["--algorithm", "adam"], {"algorithm": "adam"}),
    (["--heldout", 0.1, "--validation", 0.1, "--early-stopping", "--split-seed", 5],
     {"heldout": 0.1, "validation": 0.1, "early_stopping": True, "split_seed": 5}),
    (["--l1", 0.1, "--bounds", "ir=0:2"], {"penalty": nn.l1(0.1), "bounds": {"ir": (0, 2)}}),
    (["--start", "svd"], {"init": "svd"}),
    (["--start", "gamma", "--gamma-shape", 0.5, "--starts", 2], {"init": ("gamma", 0.5), "starts": 2}),
    (["--threads", 1, "--data-as", "sparse"], {"threads": 1, "data_as": "sparse"}),
]


@pytest.mark.parametrize("options, settings", SAME, ids=lambda x: str(x)[:40])
def test_the_same_bits_as_the_program(options, settings, counts, tmp_path):
    np.save(tmp_path / "y.npy", counts)
    done = program(
        "fit", "y.npy", "--model", "ir,jr,kr->ijk", "--rank", "r=3", "--max-iter", 20, "--device", "cpu",
        "--out", "fit.npz", *options, cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    theirs = nn.load(tmp_path / "fit.npz")
    for data in (np.load(tmp_path / "y.npy"), tmp_path / "y.npy"):
        ours = nn.fit("ir,jr,kr->ijk", data, {"r": 3}, max_iter=20, device="cpu", **settings)
        assert [f.tobytes() for f in ours.factors] == [f.tobytes() for f in theirs.factors]
        assert ours.history.loss.tobytes() == theirs.history.loss.tobytes()


RNG = np.random.default_rng(3)
SQUARE = RNG.poisson(4.0, (9, 9)).astype(float)
TABLE = RNG.poisson(4.0, (12, 7)) + 1
FLOATS = RNG.gamma(1.0, 2.0, (6, 5, 7, 4))
HOLES = np.where(RNG.random((12, 7)) < 0.1, np.nan, TABLE)
SEEN = RNG.random((12, 7)) < 0.8
WEIGHTS = RNG.random((12, 7))
KNOWN = RNG.random((12, 2))
EDGES = np.diag(np.ones(11), 1)
STARTS = [RNG.random((12, 2)), RNG.random((7, 2))]

# Models of other kinds, data of other types, and what holds within and among factors: model, ranks, data,
# files beside them, the program's options, and the same in Python.
OTHERS = {
    "spatial": ("wr,hr,ikr,jkr->whij", "r=2,k=2", FLOATS, {}, ["--loss", "euclidean"], {"loss": "euclidean"}),
    "tucker": ("ia,jb,kc,ld,abcd->ijkl", "a=2,b=2,c=2,d=2", FLOATS, {}, ["--loss", "itakura-saito"],
               {"loss": "itakura-saito"}),
    "train": ("ia,jab,kbc,lc->ijkl", "a=2,b=3,c=2", FLOATS, {}, ["--loss", "hellinger"], {"loss": "hellinger"}),
    "fortran": ("hr,ir->hi", "r=2", np.asfortranarray(TABLE), {}, [], {}),
    "half": ("hr,ir->hi", "r=2", TABLE.astype(np.float16), {}, [], {}),
    "signed": ("hr,ir->hi", "r=2", TABLE - 3.0, {}, ["--loss", "euclidean"], {"loss": "euclidean"}),
    "tied": ("ir,jr->ij", "r=2", SQUARE, {}, ["--tie", "ir=jr"], {"tie": "ir=jr"}),
    "smooth": ("hr,ir->hi", "r=2", TABLE, {}, ["--smooth", "hr=0.5,cyclic", "--simplex", "ir:i"],
               {"smooth": {"hr": nn.Smooth(0.5, cyclic=True)}, "simplex": "ir:i"}),
    "graph": ("hr,ir->hi", "r=2", TABLE, {"edges": EDGES},
              ["--smooth", "hr=0.5,graph=edges.npy", "--simplex", "ir:i"],
              {"smooth": {"hr": nn.Smooth(0.5, graph=EDGES)}, "simplex": "ir:i"}),
    "shares": ("hr,ir->hi", "r=2", TABLE, {}, ["--simplex", "hr"], {"simplex": "hr"}),
    "splines": ("hr,ir->hi", "r=2", TABLE, {}, ["--basis", "h=spline:5,cyclic"],
                {"basis": {"h": nn.Splines(5, cyclic=True)}}),
    "known": ("hr,ir->hi", "r=2", TABLE, {"known": KNOWN}, ["--fix", "hr=known.npy"], {"fixed": {"hr": KNOWN}}),
    "missing": ("hr,ir->hi", "r=2", HOLES, {}, ["--nan-missing", "--heldout", 0.2],
                {"missing": "nan", "heldout": 0.2}),
    "mask": ("hr,ir->hi", "r=2", TABLE, {"seen": SEEN}, ["--mask", "seen.npy"], {"mask": SEEN}),
    "weights": ("hr,ir->hi", "r=2", TABLE, {"w": WEIGHTS}, ["--weights", "w.npy"], {"weights": WEIGHTS}),
    "withheld": ("hr,ir->hi", "r=2", TABLE, {"out": ~SEEN}, ["--heldout-mask", "out.npy"], {"heldout": ~SEEN}),
    "penalties": ("hr,ir->hi", "r=2", TABLE, {}, ["--penalty", "hr:l1=0.5", "--penalty", "ir:l2=0.1",
                                                   "--balance", "start"],
                  {"penalty": {"hr": nn.l1(0.5), "ir": nn.l2(0.1)}, "balance": "start"}),
    "grown": ("hr,ir->hi", "r=3", TABLE, {"small.npz": {"theta_1": STARTS[0], "theta_2": STARTS[1]}},
              ["--grow", "small.npz"], {"init": ("grow", STARTS)}),
    "begun": ("hr,ir->hi", "r=2", TABLE, {"small.npz": {"theta_1": STARTS[0], "theta_2": STARTS[1]}},
              ["--init", "small.npz"], {"init": STARTS}),
}


def same_as_the_program(folder, model, ranks, data, files, options, settings, device="cpu"):
    np.save(folder / "y.npy", data)
    for name, array in files.items():
        if isinstance(array, dict):
            np.savez(folder / name, **array)
        else:
            np.save(folder / f"{name}.npy", array)
    done = program(
        "fit", "y.npy", "--model", model, "--rank", ranks, "--max-iter", 20, "--device", device,
        "--out", "fit.npz", *options, cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    theirs = nn.load(folder / "fit.npz")
    sizes = {pair[0]: int(pair[2:]) for pair in ranks.split(",")}
    ours = nn.fit(model, np.load(folder / "y.npy"), sizes, max_iter=20, device=device, **settings)
    assert [f.tobytes() for f in ours.factors] == [f.tobytes() for f in theirs.factors]
    assert ours.history.loss.tobytes() == theirs.history.loss.tobytes()
    assert ours.history.heldout_loss.tobytes() == theirs.history.heldout_loss.tobytes()


@pytest.mark.parametrize("name", OTHERS)
def test_the_same_bits_of_other_models_and_constraints(name, tmp_path):
    same_as_the_program(tmp_path, *OTHERS[name])


def test_the_same_bits_of_stored_entries(tmp_path):
    scipy = pytest.importorskip("scipy.sparse")
    data = scipy.random_array((40, 30), density=0.1, rng=np.random.default_rng(1), format="csr")
    scipy.save_npz(tmp_path / "y.npz", data)
    for more, settings in (([], {}), (["--unlisted-missing"], {"implicit": "missing"})):
        done = program(
            "fit", "y.npz", "--model", "ir,jr->ij", "--rank", "r=3", "--max-iter", 20, "--device", "cpu",
            "--out", "fit.npz", *more, cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
        theirs = nn.load(tmp_path / "fit.npz")
        ours = nn.fit("ir,jr->ij", data, {"r": 3}, max_iter=20, device="cpu", **settings)
        assert [f.tobytes() for f in ours.factors] == [f.tobytes() for f in theirs.factors]


def test_the_program_reports_on_fits_of_python(counts, tmp_path):
    nn.fit("ir,jr,kr->ijk", counts, {"r": 2}, max_iter=5).save(tmp_path / "fit.npz")
    done = program("report", "fit.npz", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "fit.html").exists()
