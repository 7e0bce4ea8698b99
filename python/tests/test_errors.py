"""Wrong calls, and what each says."""

import numpy as np
import pytest

import nneinfact as nn

Y = np.arange(12.0).reshape(3, 4)


def fit(model="ir,jr->ij", data=Y, ranks=None, **settings):
    return nn.fit(model, data, {"r": 2} if ranks is None else ranks, max_iter=2, **settings)


WRONG = [
    (lambda: fit("ir,jr-ij"), ValueError, "->"),
    (lambda: fit("ir,jr->ij?"), ValueError, r"\^"),
    (lambda: fit(ranks={}), ValueError, r"\br\b"),
    (lambda: fit(ranks={"r": 2, "q": 3}), ValueError, r"\bq\b"),
    (lambda: fit(ranks={"r": 0}), ValueError, "the rank of r is 0; expected at least 1"),
    (lambda: fit(ranks={"r": 2.5}), TypeError, "the rank of r is 2.5; expected a whole number"),
    (lambda: fit(ranks=10), TypeError, r"ranks is 10; expected a dict, as \{'r': 10\}"),
    (lambda: fit(data=Y[0]), ValueError, "the data have 1 mode"),
    (lambda: fit(data=-Y), ValueError, "outside the domain of the kl loss"),
    (lambda: fit(data=np.where(Y > 3, Y, np.nan)), ValueError, r'say so \(missing="nan"\), or mask'),
    (lambda: fit(data=Y + 1j), TypeError, "complex128, but real numbers are expected"),
    (lambda: fit(data=Y.astype(object)), TypeError, r"\.astype\(float\)"),
    (lambda: fit(data=print), TypeError, "expected an array"),
    (lambda: fit(data="nothing.npy"), FileNotFoundError, "nothing.npy"),
    (lambda: fit(loss="poison"), ValueError,
     r'there is no loss named "poison"; did you mean poisson\? The names are kl'),
    (lambda: fit(loss=nn.alpha), TypeError, "expected a name, as 'kl'"),
    (lambda: nn.loss("alpha"), ValueError, "alpha is missing"),
    (lambda: fit(mask=np.ones((4, 3), bool)), ValueError, "wrong shape of the mask"),
    (lambda: fit(mask=np.ones((3, 4))), TypeError, r"mask is of type float64; expected booleans"),
    (lambda: fit(weights=-Y), ValueError, r"weights must be finite and at least 0"),
    (lambda: fit(heldout=1.5), ValueError, "held-out"),
    (lambda: fit(heldout=0.1, heldout_as="stratum"), ValueError, "strata"),
    (lambda: fit(heldout=0.1, heldout_as="strata"), ValueError, r'\(heldout_as="cells"\)'),
    (lambda: fit(heldout=0.1, zeros_per_nonzero=0.0), ValueError, "zeros per nonzero"),
    (lambda: fit(heldout=np.zeros((2, 3), int)), ValueError, r"of shape \(n, 2\)"),
    (lambda: fit(missing="NaN"), ValueError, "missing is 'NaN'; expected one of 'nan'"),
    (lambda: fit(penalty=0.1), TypeError, r"expected nn.l1\(0.1\)"),
    (lambda: fit(penalty={"xr": nn.l1(0.1)}), ValueError, "xr"),
    (lambda: fit(penalty=nn.Penalty(1.0, 0.5)), ValueError, "power|1"),
    (lambda: fit(bounds={"ir": 3}), TypeError, r"expected two numbers, as \(0, 1\)"),
    (lambda: fit(fixed={"ir": np.ones((2, 2))}), ValueError, r"\[2, 2\]"),
    (lambda: fit(init="nndsvd"), ValueError, "expected one of 'random', 'gamma', 'svd'"),
    (lambda: fit(algorithm="als"), ValueError, 'no algorithm "als": the names are accelerated'),
    (lambda: fit(precision="f16"), ValueError, 'no precision "f16": f32 and f64 are'),
    (lambda: fit(device="tpu"), ValueError, "tpu"),
    (lambda: fit(threads=0), ValueError, "at least 1"),
    (lambda: fit(seed=-1), ValueError, "seed is -1; expected a whole number from 0"),
    (lambda: fit(tol=-1.0), ValueError, "tolerance"),
    (lambda: fit(callback=3), TypeError, "callback is 3; expected a function of a Sweep"),
    (lambda: fit(early_stopping=True), ValueError, "validation"),
    (lambda: fit(resume=True), ValueError, "go with checkpoint"),
    (lambda: nn.fit("ir,jr->ij", Y, {"r": 2}, max_iter="many"), TypeError,
     "max_iter is 'many'; expected a whole number"),
    (lambda: fit(rank={"r": 2}), TypeError, "there is no argument 'rank': did you mean 'ranks'?"),
    (lambda: fit(maxiter=3), TypeError, "there is no argument 'maxiter': did you mean 'max_iter'?"),
    (lambda: nn.explain("ir,jr->ij", (3, 4), {"r": 2}, ratio=3), TypeError, "there is no argument 'ratio'"),
    (lambda: nn.load("nothing.npz"), FileNotFoundError, "nothing.npz"),
    (lambda: nn.load("nothing.csv"), ValueError, ".npz"),
    (lambda: fit().save("/nothing/fit.npz"), FileNotFoundError, "/nothing/fit.npz"),
    (lambda: fit(checkpoint="/nothing/fit"), FileNotFoundError, "/nothing/fit"),
    (lambda: fit(seed=1.5), TypeError, "seed is 1.5; expected a whole number"),
    (lambda: fit(data=np.zeros((0, 4))), ValueError, "has size 0: there is nothing to fit"),
    (lambda: fit(ranks={"r": 10**12}), MemoryError, "lower the ranks"),
    (lambda: fit()["xr"], KeyError, "xr"),
    (lambda: fit().predict([[0, 9]]), ValueError, "index 9 along mode 2, expected indices from 0 to 3"),
    (lambda: fit().predict([0.5, 1]), TypeError, "whole numbers"),
    (lambda: fit().slice(z=1), ValueError, "'z' is no mode of ir,jr->ij: its modes are ij"),
    (lambda: fit().normalize("l3"), ValueError, 'no norm "l3": the names are l1, l2 and max'),
    (lambda: nn.x ** nn.y, TypeError, "the exponent"),
    (lambda: nn.x + "y", TypeError, "cannot be part of the formula"),
    (lambda: bool(nn.x), TypeError, "neither true nor false"),
    (lambda: nn.loss("a", a=nn.x, b=nn.y, loss=nn.x, majorizer=("power", 0, 1)), ValueError, "custom loss"),
    (lambda: nn.from_table({"a": [1]}, ["b"]), ValueError, "no column 'b': its columns are a"),
    (lambda: nn.from_table({"a": [1]}, "hour(a"), ValueError, r"\^"),
    (lambda: nn.from_table(3, ["a"]), TypeError, "expected a frame"),
    (lambda: nn.compare(Y, ["ir,jr->ij"], {"q": 2}), ValueError, "'q' of ranks is a latent letter of none"),
    (lambda: nn.explain("ir,jr->ij", (10**9, 10**9), {"r": 10**6}), MemoryError, "memory"),
    (lambda: nn.Fit.from_factors("ir,jr->ij", [Y, Y.T]), ValueError, "theta_2 has size 3 along r, but another factor has 4"),
]


@pytest.mark.parametrize("number", range(len(WRONG)))
def test_a_wrong_call_says_what_is_expected(number):
    call, kind, message = WRONG[number]
    with pytest.raises(kind, match=message):
        call()


def test_a_mistake_in_a_model_is_shown_with_carets():
    with pytest.raises(ValueError) as caught:
        fit("ir,jr->ijj")
    lines = str(caught.value).splitlines()
    assert any("ir,jr->ijj" in line for line in lines) and "^" in lines[-1]
