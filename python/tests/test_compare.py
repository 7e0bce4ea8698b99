"""Many fits to the same data."""

import pytest

import nneinfact as nn


def test_a_study(counts, tmp_path):
    pytest.importorskip("pandas")
    told = []
    study = nn.compare(
        counts, {"cp": "ir,jr,kr->ijk", "tucker": "ia,jb,kc,abc->ijk"},
        {"r": [1, 3], "a": 2, "b": 2, "c": 2}, splits=2, max_iter=15, folder=tmp_path / "study",
        callback=lambda run, runs, label, left: told.append((run, runs)),
    )
    assert study.complete and len(study) == 3 and len(told) == 6 and told[0][1] == 6
    losses = [row["heldout_loss"]["mean"] for row in study.rows]
    assert losses == sorted(losses)
    assert study.best.model in ("ir,jr,kr->ijk", "ia,jb,kc,abc->ijk")
    assert len(study.frame()) == 3 and "cp" in str(study) and "<pre>" in study._repr_html_()
    kept = []
    again = nn.compare(
        counts, {"cp": "ir,jr,kr->ijk"}, {"r": 3}, splits=2, max_iter=15, folder=tmp_path / "study",
        callback=lambda run, *_: kept.append(run),
    )
    assert again.rows[0]["heldout_loss"]["mean"] == pytest.approx(
        next(r["heldout_loss"]["mean"] for r in study.rows if r["ranks"] == {"r": 3})
    )


def test_losses_and_penalties(matrix):
    study = nn.compare(
        matrix, "ir,jr->ij", {"r": 2}, losses=["kl", nn.beta(1.5)], penalties=[None, nn.l1(1.0)],
        max_iter=5, score="rmse",
    )
    assert len(study) == 4
    assert {row["penalty"] for row in study.rows} == {"none", "l1=1"}
    assert all(fit is not None for fit in study.fits)


def test_a_callback_stops_and_raises(matrix):
    # So many that small runs, which go on at once, are not all over before the first is told of.
    study = nn.compare(
        matrix, "ir,jr->ij", {"r": [1, 2, 3]}, starts=200, max_iter=5, callback=lambda *_: True
    )
    assert not study.complete

    def callback(*_):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        nn.compare(matrix, "ir,jr->ij", {"r": [1, 2]}, max_iter=5, callback=callback)
