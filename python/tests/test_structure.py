"""Ties, smooth modes, rows that add up to 1, bases."""

import numpy as np
import nneinfact as nn
import pytest

RNG = np.random.default_rng(5)
SQUARE = RNG.poisson(4.0, (8, 8)) + 1.0
TABLE = RNG.poisson(4.0, (12, 7)) + 1.0


def test_tied_factors_are_one():
    tied = nn.fit("ir,jr->ij", SQUARE, {"r": 2}, tie="ir=jr", max_iter=40)
    assert np.array_equal(tied["ir"], tied["jr"])
    whole = tied.reconstruct()
    assert np.array_equal(whole, whole.T)
    same = nn.fit("ir,jr->ij", SQUARE, {"r": 2}, tie=[("ir", "jr")], max_iter=40)
    assert np.array_equal(tied["ir"], same["ir"])


def test_smooth_profiles_are_smoother():
    def rough(**more):
        found = nn.fit("hr,ir->hi", TABLE, {"r": 2}, simplex="ir:i", max_iter=100, **more)
        assert np.allclose(found["ir"].sum(axis=0), 1.0)
        return np.square(np.diff(found["hr"], axis=0)).sum()

    free = rough()
    assert rough(smooth={"hr": 5.0}) < 0.5 * free
    assert rough(smooth={"hr": nn.Smooth(5.0, cyclic=True)}) < 0.5 * free
    line = np.diag(np.ones(11), 1)
    by_graph = rough(smooth={"hr": nn.Smooth(5.0, graph=line)})
    by_edges = rough(smooth={"hr": nn.Smooth(5.0, graph=[(i, i + 1, 1.0) for i in range(11)])})
    assert by_graph == by_edges == rough(smooth={"hr": 5.0})


def test_a_basis_is_multiplied_out():
    found = nn.fit("hr,ir->hi", TABLE, {"r": 2}, basis={"h": nn.Splines(5, cyclic=True)})
    assert found["hr"].shape == (12, 2)
    assert found.model == "hr,ir->hi"


@pytest.mark.parametrize(
    ("error", "settings", "said"),
    [
        (ValueError, {"tie": "hr=ir"}, "sizes"),
        (ValueError, {"tie": "hr"}, "two or more"),
        (TypeError, {"tie": 3}, "'ir=jr'"),
        (ValueError, {"smooth": {"hr": -1.0}}, "at least 0"),
        (TypeError, {"smooth": 0.1}, "Smooth"),
        (ValueError, {"smooth": {"hr": nn.Smooth(1.0, along="i")}}, "not one of its letters"),
        (TypeError, {"smooth": {"hr": nn.Smooth(1.0, graph=3.0)}}, "graph"),
        (ValueError, {"simplex": "hr:i"}, "not one of its letters"),
        (ValueError, {"basis": {"h": 13}}, "12 indices"),
        (ValueError, {"basis": {"r": 3}}, "not a mode"),
    ],
)
def test_what_cannot_be_is_refused(error, settings, said):
    with pytest.raises(error, match=said):
        nn.fit("hr,ir->hi", TABLE, {"r": 2}, **settings)
