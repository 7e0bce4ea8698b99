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


def test_the_program_reports_on_fits_of_python(counts, tmp_path):
    nn.fit("ir,jr,kr->ijk", counts, {"r": 2}, max_iter=5).save(tmp_path / "fit.npz")
    done = program("report", "fit.npz", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "fit.html").exists()
