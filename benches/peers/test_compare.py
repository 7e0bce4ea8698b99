"""What the tables of compare.py rest on: python -m unittest discover benches/peers (numpy and scipy are enough)."""

import argparse
import sys
import unittest
from pathlib import Path

import numpy as np
import scipy.sparse

sys.path.insert(0, str(Path(__file__).resolve().parent))

import compare
import problems
import report
import uber


def options(**given):
    return argparse.Namespace(**{"only": None, "splits": False, **given})


class Cases(unittest.TestCase):
    def test_splits_chooses_what_withholds_cells(self):
        self.assertEqual(compare.chosen(options(only="uber-kl,sklearn-nmf", splits=True)), ["uber-kl-splits"])
        self.assertEqual(compare.chosen(options(only="uber-kl-splits", splits=True)), ["uber-kl-splits"])
        self.assertIn("rcppml", compare.chosen(options()))
        with self.assertRaisesRegex(ValueError, "leave no cells out"):
            compare.chosen(options(only="sklearn-nmf", splits=True))
        with self.assertRaisesRegex(ValueError, "no case pyttb-cpr; there are uber-kl"):
            compare.chosen(options(only="pyttb-cpr"))


class Ratios(unittest.TestCase):
    def test_slower_neighbour_and_median_count(self):
        ours = [{"loss": [9, 5, 1], "seconds": [0, 1, second]} for second in (2.0, 4.0, 3.0, 2.0)]
        peers = [{"iterations": [1, 7], "seconds": [1.0, seconds]} for seconds in (40.0, 80.0, 30.0)]
        goal = {"iterations": 7, "loss": 2}
        compare.judge(goal, peers, ours)
        # 40 / 4, 80 / 4 and 30 / 3.
        self.assertEqual(goal["ratio"], 10.0)
        self.assertEqual(goal["ratios"], [10.0, 20.0])
        self.assertEqual(goal["our_sweeps"], 2)

    def test_what_is_not_reached_has_no_ratio(self):
        goal = {"iterations": 1, "loss": 0.5, "peer_seconds": 3.0}
        compare.judge(goal, [{"iterations": [1], "seconds": [3.0]}], [{"loss": [9, 1], "seconds": [0, 1]}] * 2)
        self.assertNotIn("ratio", goal)

    def test_replayed_curve_is_compared_after_whole_iterations(self):
        problem = argparse.Namespace(replayed=True, curve_from="x", curve={"iteration": [1, 2, 3], "loss": [4, 2, 1]})
        found = {"iterations": [1, 2], "loss": [5, 3], "seconds": [4.0, 6.0], "loss_recomputed": 2.2}
        along = compare.along_curve(problem, found)
        self.assertAlmostEqual(along["recorded_apart"], 0.1)
        self.assertEqual(along["seconds"], [2.0, 4.0, 6.0])

    def test_tables_beside_each_other(self):
        goal = {"iterations": 50, "peer_seconds": 100.0, "our_seconds": 0.5, "ratio": 200.0}
        lines = report.beside([{"case": "uber-kl", "goals": [goal]},
                               {"case": "uber-kl-splits", "goals": [{**goal, "our_seconds": 2.0, "ratio": 50.0}]},
                               {"case": "rcppml", "goals": [goal]}])
        self.assertEqual(lines[2], "| `uber-kl`, 50 | 100 and 0.5 s | 200× | 100 and 2 s | 50× |")
        self.assertEqual(len(lines), 4)


class Losses(unittest.TestCase):
    def setUp(self):
        random = np.random.default_rng(0)
        self.x = random.poisson(0.5, (6, 5, 4)).astype(float)
        self.factors = [random.uniform(0.2, 1.0, (size, 2)) for size in self.x.shape]
        self.y = np.einsum("ir,jr,kr->ijk", *self.factors)

    def test_lists_have_the_loss_of_dense_data(self):
        sparse = scipy.sparse.coo_array(self.x)
        for beta, of_list in ((0.0, problems.sparse_kl), (1.0, problems.sparse_euclidean)):
            dense = problems.divergence(self.x, self.y, 1.0, beta).mean()
            self.assertAlmostEqual(of_list(sparse, *self.factors), dense, places=12)

    def test_losses_of_withheld_cells_do_not_count(self):
        training = np.random.default_rng(1).random(self.x.shape) < 0.7
        problem = problems.Problem(
            title="", model="ir,jr,kr->ijk", ranks={"r": 2}, loss=[], alpha=1.0, beta=0.0, data="", init="",
            runner="", sweeps=1, tensor=lambda: self.x, training=training)
        wanted = problems.divergence(self.x, self.y, 1.0, 0.0)[training].mean()
        self.assertAlmostEqual(problem.evaluate(self.factors), wanted, places=12)

    def test_splits_are_apart_and_of_the_protocol(self):
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            _, files, training = uber.draw_splits(Path(folder), (40, 50, 30))
            held_out, validation = np.load(files["held_out"]), np.load(files["validation"])
            listed = np.loadtxt(Path(folder) / "validation.tns", dtype=int) - 1
        self.assertFalse((held_out & validation).any())
        self.assertTrue((training == ~(held_out | validation)).all())
        np.testing.assert_array_equal(listed, np.argwhere(validation))
        self.assertAlmostEqual(held_out.mean(), 0.1, delta=0.01)
        self.assertAlmostEqual(validation.mean(), 0.045, delta=0.01)


if __name__ == "__main__":
    unittest.main()
