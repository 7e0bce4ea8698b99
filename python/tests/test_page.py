"""The page's lines, pasted in order."""

import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

PAGE = pathlib.Path(__file__).parent.parent / "README.md"


def test_the_lines_of_the_page(tmp_path, monkeypatch):
    for package in ("pandas", "sklearn", "scipy", "anndata"):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
    assert len(blocks) >= 7
    names = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    assert (tmp_path / "fit.html").exists()


def test_the_lines_for_r(tmp_path):
    """What the page for R has, in R; skipped where R, reticulate, or a numpy that it knows is not there."""
    pytest.importorskip("pandas")
    pytest.importorskip("scipy")
    if shutil.which("Rscript") is None:
        pytest.skip("there is no Rscript")
    start = f'library(reticulate); use_python("{sys.executable}", required = TRUE)\n'

    def run(lines):
        (tmp_path / "page.R").write_text(lines)
        return subprocess.run(
            ["Rscript", "page.R"], cwd=tmp_path, capture_output=True, text=True, timeout=120
        )

    if run(start + 'np <- import("numpy"); library(Matrix); stopifnot(sum(np$arange(4L)) == 6)').returncode != 0:
        pytest.skip("R has no reticulate that knows this numpy")
    text = (PAGE.parent / "other-languages.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```r\n(.*?)^```", text, re.M | re.S)
    assert len(blocks) == 4
    page = "".join(blocks).replace("/path/to/python", sys.executable)
    done = run(page + 'stopifnot(fit$stopped_by == "observer", dim(W) == c(30, 5))\ncat("whole page")')
    assert "whole page" in done.stdout, done.stderr


def test_the_lines_of_the_first_page(tmp_path, monkeypatch):
    """The root's README begins with Python."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    np.save("pickups.npy", rng.poisson(1.0, (6, 8, 7, 11, 12)))
    text = (PAGE.parent.parent / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
    exec(compile(block, "README.md", "exec"), {})
    assert (tmp_path / "pickups.html").exists()
