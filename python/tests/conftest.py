import os
import subprocess
import sys

import numpy as np
import pytest

# Before anything imports scipy: one of scikit-learn's checks of estimators is skipped without it.
os.environ.setdefault("SCIPY_ARRAY_API", "1")


@pytest.fixture
def counts():
    """Counts of a CP model of rank 3."""
    rng = np.random.default_rng(7)
    factors = [rng.gamma(1.0, 1.0, (n, 3)) for n in (12, 10, 8)]
    return rng.poisson(np.einsum("ir,jr,kr->ijk", *factors)).astype(np.int64)


@pytest.fixture
def matrix():
    """Counts of an NMF of rank 3."""
    rng = np.random.default_rng(11)
    return rng.poisson(rng.gamma(1.0, 1.0, (30, 3)) @ rng.gamma(1.0, 1.0, (3, 20)))


class Running(subprocess.Popen):
    """A process that is ended where it takes too long."""

    def communicate(self, input=None, timeout=120):
        try:
            return super().communicate(input, timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise


def run_python(code, **environment):
    """Runs code in a process of its own; gives it."""
    # Whoever starts tests in the background has Ctrl-C ignored, and what is ignored is inherited.
    code = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n" + code
    return Running(
        [sys.executable, "-u", "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, **environment},
    )
