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


def labelled(array, labels):
    return nn.Dataset(array=array, names=[None, None], labels=labels)


def test_parts_are_the_same_things_by_their_labels_and_have_a_basis():
    people, other = ["a", "b", "c", "d"], ["d", "e", "a"]
    first = labelled(RNG.poisson(4.0, (12, 4)) + 1.0, [None, people])
    second = labelled(RNG.poisson(4.0, (3, 5)) + 1.0, [other, None])
    # Either part lacks what the other has alone.
    with (
        pytest.warns(UserWarning, match="tensor 1 has 4 of the 5 labels of i"),
        pytest.warns(UserWarning, match="tensor 2 has 3 of the 5 labels of i"),
    ):
        found = nn.fit_coupled(
            [nn.Part("hr,ir->hi", first), nn.Part("ir,kr->ik", second)],
            {"r": 2}, basis={"h": nn.Splines(5, cyclic=True)}, max_iter=40,
        )
    assert found["ir"].shape == (5, 2) and found["hr"].shape == (12, 2)
    assert [part.model for part in found.parts] == ["hr,ir->hi", "ir,kr->ik"]
    assert np.isfinite(found.history.kkt_residual)


def test_how_far_a_fit_is_from_its_end():
    short = nn.fit("hr,ir->hi", TABLE, {"r": 2}, precision="f64", max_iter=3, tol=0)
    long = nn.fit("hr,ir->hi", TABLE, {"r": 2}, precision="f64", max_iter=2000, tol=0)
    assert 0 <= long.history.kkt_residual < 1e-3 < short.history.kkt_residual
    assert "KKT residual" in repr(long.history) and "KKT residual" in long._repr_html_()
    without = nn.fit("hr,ir->hi", TABLE, {"r": 2}, max_iter=3, kkt_residual=False)
    assert without.history.kkt_residual is None


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
