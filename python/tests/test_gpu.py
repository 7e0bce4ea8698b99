"""Fits on a GPU from Python: a software one where there is no other, as `.ci/drivers` installs it."""

import os

import numpy as np
import pytest
from conftest import run_python
from test_program import OTHERS, same_as_the_program

import nneinfact as nn

CP = "ir,jr,kr->ijk"


@pytest.fixture(scope="module")
def gpu():
    """The GPU; where there is none, that is an error unless the person who runs the tests says so."""
    if os.environ.get("NNEINFACT_NO_GPU") == "1":
        pytest.skip("NNEINFACT_NO_GPU=1")
    return nn.Device("gpu")


x, y = nn.x, nn.y
POISSON = nn.loss("poisson", a=x / y, b=1, loss=y - x * nn.log(y), majorizer=("power", -1, 0))
CASES = {
    "kl": {},
    "euclidean": {"loss": "euclidean", "algorithm": "grouped"},
    "alpha-beta": {"loss": nn.alpha_beta(0.7, 0.2)},
    "one's own": {"loss": POISSON},
    "withheld": {"heldout": 0.1, "validation": 0.1},
    "penalty": {"penalty": nn.l1(0.5)},
    "stored": {"data_as": "sparse"},
    "slabs": {"slabs": 3},
}


@pytest.mark.parametrize("name", CASES)
def test_it_comes_to_what_the_cpu_comes_to(name, gpu, counts):
    settings = {"ranks": {"r": 3}, "max_iter": 10, "seed": 2, **CASES[name]}
    there = nn.fit(CP, counts, device=gpu, **settings)
    here = nn.fit(CP, counts, device="cpu", **settings)
    assert "gpu" in there.history.device and "cpu" in here.history.device
    assert there.loss < there.history.loss[0]
    assert there.loss == pytest.approx(here.loss, rel=1e-3)
    largest = here.reconstruct().max()
    np.testing.assert_allclose(there.reconstruct(), here.reconstruct(), atol=1e-2 * largest)


def test_a_gpu_gives_the_same_bits_again_and_to_the_program(gpu, tmp_path):
    for name in ("spatial", "tied"):
        same_as_the_program(tmp_path, *OTHERS[name], device="gpu")


def test_a_callback_stops_a_fit_on_a_gpu(gpu, counts):
    told = []
    fit = nn.fit(CP, counts, {"r": 2}, device=gpu, callback=lambda s: told.append(s) or s.iteration == 2)
    assert fit.stopped_by == "observer" and len(told) == 3 and told[-1].device_memory > 0


def test_what_a_gpu_cannot_do_is_said(gpu, counts):
    with pytest.raises(ValueError, match="f64 is not available on a GPU"):
        nn.fit(CP, counts, {"r": 2}, device=gpu, precision="f64")


FORKED = """
import os, warnings
warnings.simplefilter("ignore", DeprecationWarning)
import numpy as np, nneinfact as nn
y = np.random.default_rng(0).poisson(2.0, (12, 10))
gpu = nn.Device("gpu")
nn.fit("ir,jr->ij", y, {"r": 2}, max_iter=2, device=gpu)
child = os.fork()
if child == 0:
    said = ""
    try:
        nn.fit("ir,jr->ij", y, {"r": 2}, max_iter=2, device=gpu)
    except RuntimeError as error:
        said = str(error)
    here = nn.fit("ir,jr->ij", y, {"r": 2}, max_iter=2)
    os._exit(0 if "spawn" in said and "cpu" in here.history.device else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_fork_after_a_fit_on_a_gpu_says_so(gpu):
    out, err = run_python(FORKED).communicate(timeout=120)
    assert out == "0\n", err
