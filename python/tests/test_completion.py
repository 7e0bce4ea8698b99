"""A table with most entries missing, fitted and completed by the program; what it says is worked out again here
with NumPy alone."""

import csv
import itertools
import subprocess
import sys

import numpy as np

SHOPS = [f"shop {i}" for i in range(14)]
ITEMS = ["bread", "tea", "rice, white", "salt", "oil", "milk", "eggs", "jam", "flour"]
MONTHS = [f"2026-{m:02}" for m in range(1, 13)]


def program(*arguments, cwd):
    done = subprocess.run(
        [sys.executable, "-m", "nneinfact", *map(str, arguments)], capture_output=True, text=True, cwd=cwd
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def prices():
    """Prices of rank 2 with one percent of noise, and which of them are in the table: two of five."""
    rng = np.random.default_rng(31)
    shop = 0.5 + rng.random((len(SHOPS), 2))
    item = rng.gamma(2.0, 1.0, (len(ITEMS), 2))
    angle = 2 * np.pi * np.arange(len(MONTHS))[:, None] / 12 + np.array([0.0, 2.0])
    truth = np.einsum("sr,ir,mr->sim", shop, item, 1.5 + np.sin(angle))
    noisy = truth * np.exp(0.01 * rng.standard_normal(truth.shape))
    return truth, noisy, rng.random(truth.shape) < 0.4


def test_a_table_with_sixty_percent_missing_is_completed(tmp_path):
    truth, noisy, there = prices()
    assert 0.58 < 1 - there.mean() < 0.62
    with open(tmp_path / "prices.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["shop", "item", "month", "price"])
        # Two rows of an entry, whose mean is its price; in no order.
        rows = [at for at in itertools.product(*map(range, truth.shape)) if there[at]]
        for s, i, m in [rows[n] for n in np.random.default_rng(1).permutation(len(rows))]:
            price = noisy[s, i, m]
            table.writerow([SHOPS[s], ITEMS[i], MONTHS[m], repr(float(price) * 1.25)])
            table.writerow([SHOPS[s], ITEMS[i], MONTHS[m], repr(float(price) * 0.75)])
    program(
        "fit", "prices.csv", "--modes", "shop,item,month", "--mean", "price", "--model", "sr,ir,mr->sim",
        "--rank", "r=2", "--loss", "gaussian", "--precision", "f64", "--max-iter", 2000, "--tol", 1e-9,
        "--starts", 4, "--quiet", "--out", "fit.npz", cwd=tmp_path,
    )
    said = program("predict", "fit.npz", "--missing-only", "prices.csv", "--out", "completed.csv", cwd=tmp_path)
    assert f"{(~there).sum():,} missing entries of {there.size:,}" in said

    # What stands in the file of factors, multiplied out; rows are in the order of their labels.
    with np.load(tmp_path / "fit.npz") as file:
        factors = [file[f"theta_{k}"] for k in (1, 2, 3)]
    order = [sorted(labels) for labels in (SHOPS, ITEMS, MONTHS)]
    predicted = np.einsum("sr,ir,mr->sim", *factors)
    known = [labels.index for labels in order]
    own = [labels.index for labels in (SHOPS, ITEMS, MONTHS)]
    with open(tmp_path / "completed.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["shop", "item", "month", "prediction"]
    found = {}
    for *labels, value in rows[1:]:
        place = tuple(index(label) for index, label in zip(known, labels))
        assert np.isclose(float(value), predicted[place], rtol=1e-12)
        found[tuple(index(label) for index, label in zip(own, labels))] = float(value)
    # Exactly the entries that are missing, each once.
    missing = [tuple(map(int, at)) for at in np.argwhere(~there)]
    assert sorted(found) == missing and len(rows) - 1 == len(missing)

    # The errors there, against what was planted.
    errors = np.array([found[at] - truth[at] for at in missing])
    scale = np.sqrt(np.mean([truth[at] ** 2 for at in missing]))
    rmse = np.sqrt(np.mean(errors**2)) / scale
    assert rmse < 0.02, rmse
    # Where nothing is known but the mean of the rest, they are fifty times as large.
    mean = noisy[there].mean()
    blind = np.sqrt(np.mean([(mean - truth[at]) ** 2 for at in missing])) / scale
    assert blind > 20 * rmse, (blind, rmse)

    # As an array: the data where there are some, and the same predictions elsewhere.
    program("predict", "fit.npz", "--missing-only", "prices.csv", "--out", "whole.npy", cwd=tmp_path)
    whole = np.load(tmp_path / "whole.npy")
    moved = whole[np.ix_(*[[index(x) for x in labels] for index, labels in zip(known, (SHOPS, ITEMS, MONTHS))])]
    assert np.allclose(moved[there], noisy[there], rtol=1e-6)
    assert np.array_equal([moved[at] for at in missing], [found[at] for at in missing])
