"""The page's lines, pasted in order."""

import pathlib
import re

import pytest

PAGE = pathlib.Path(__file__).parent.parent / "README.md"


def test_the_lines_of_the_page(tmp_path, monkeypatch):
    pytest.importorskip("pandas")
    pytest.importorskip("sklearn")
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
    assert len(blocks) >= 7
    names = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    assert (tmp_path / "fit.html").exists()
