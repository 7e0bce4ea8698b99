"""The losses of a fit, sweep by sweep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def _floats(values: Any) -> np.ndarray:
    array = np.array([np.nan if value is None else value for value in values or ()], dtype=np.float64)
    array.flags.writeable = False
    return array


class History:
    """The losses of a fit, sweep by sweep.

    All losses are weighted means over their entries. Element 0 belongs to the start, element n to the
    factors after ``sweeps[n]`` sweeps.

    Attributes
    ----------
    loss, penalty, validation_loss, heldout_loss : arrays
        Over the training entries; the penalties in the same unit; over the validation and the
        held-out entries. Empty where there are none.
    seconds, sweeps : arrays
        When each element was known, and after how many sweeps.
    stopped_by : str
        ``"tolerance"``, ``"max_iter"``, ``"validation"``, ``"interrupted"`` or ``"observer"`` (a
        callback).
    iterations, returned : int
        The number of completed sweeps, and the element that the factors belong to.
    loss_name, algorithm, device, precision, seed
        What was fitted how.
    kkt_residual : float or None
        How far the factors are from a point where no small change lowers what the fit lowers: the
        largest ``abs(min(x / s, q))`` over all entries x that are fitted, with s the largest of their
        factor and q the derivative over its positive part. None where it was not asked for.
    heldout_as : str or None
        How entries were withheld at random, ``"cells"`` or ``"strata"``; None where none were.
    """

    def __init__(self, record: Mapping[str, Any]) -> None:
        self.loss = _floats(record.get("loss"))
        self.penalty = _floats(record.get("penalty"))
        self.validation_loss = _floats(record.get("validation_loss"))
        self.heldout_loss = _floats(record.get("heldout_loss"))
        self.seconds = _floats(record.get("seconds"))
        self.sweeps = np.array(record.get("sweeps") or (), dtype=np.int64)
        self.stopped_by = str(record.get("stopped_by", ""))
        self.loss_name = str(record.get("loss_name", ""))
        self.algorithm = str(record.get("algorithm", ""))
        self.device = str(record.get("device", ""))
        self.precision = str(record.get("precision", ""))
        self.seed = int(record.get("seed", 0))
        self.iterations = int(record.get("iterations", 0))
        self.returned = int(record.get("returned", 0))
        self.kkt_residual = record.get("kkt_residual")
        self.heldout_as = record.get("heldout_as")

    def __len__(self) -> int:
        return len(self.loss)

    def frame(self) -> Any:
        """The losses as a pandas DataFrame, a row for each element."""
        import pandas

        columns = {
            name: getattr(self, name)
            for name in ("sweeps", "seconds", "loss", "penalty", "validation_loss", "heldout_loss")
            if len(getattr(self, name)) == len(self.loss)
        }
        return pandas.DataFrame(columns)

    def __repr__(self) -> str:
        last = f", loss {self.loss[self.returned]:.6g}" if len(self.loss) > self.returned else ""
        kkt = "" if self.kkt_residual is None else f", KKT residual {self.kkt_residual:.1e}"
        return f"<History: {self.iterations} sweeps{last}, stopped by {self.stopped_by}{kkt}>"
