"""The interface of the authors' program (Hood & Schein 2026): their lines with another import.

>>> import numpy as np
>>> from nneinfact.einfact import NNEinFact
>>> Y = np.random.default_rng(0).poisson(2.0, (6, 5, 4))
>>> model_str = "ik,jk,tk->ijt"
>>> shape_dict = {**dict(zip(model_str.split("->")[-1], Y.shape)), "k": 2}
>>> model = NNEinFact(model_str=model_str, alpha=0.5, beta=0.5, shape_dict=shape_dict, device="cuda")
>>> history = model.fit(Y, max_iter=20, verbose=False)
>>> [factor.shape for factor in model.get_params()]
[(6, 2), (5, 2), (4, 2)]
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from . import losses
from ._fit import Fit, Sweep, fit

__all__ = ["NNEinFact"]


class NNEinFact:
    """A model to be fitted, as the authors' program has it.

    What differs: the algorithm is this package's (fewer sweeps to the same loss), losses are in its
    units (for alpha = beta = 1 half the squared difference), the device is what there is (``"cuda"``
    takes a GPU where one is found, of any make), and numpy's seed decides starts and splits.

    Attributes
    ----------
    fit_ : Fit or None
        The fit.
    history : dict or None
        Lists: ``loss``, ``validation_loss``, ``heldout_loss``, ``time``.
    """

    def __init__(
        self,
        model_str: str,
        shape_dict: Mapping[str, int],
        device: Any = None,
        alpha: float = 1.0,
        beta: float = 1.0,
    ) -> None:
        self.model_str = model_str
        self.shape_dict = dict(shape_dict)
        self.device = device
        self.alpha, self.beta = alpha, beta
        self.data_str = model_str.partition("->")[2].strip()
        self.param_strs = [factor.strip() for factor in model_str.partition("->")[0].split(",")]
        missing = sorted(set(self.data_str + "".join(self.param_strs)) - set(self.shape_dict))
        if missing:
            raise ValueError(
                f"shape_dict has no {', '.join(map(repr, missing))}; expected the size of each letter of "
                f"{model_str}"
            )
        self._loss = losses.alpha_beta(alpha, beta)
        self.history: dict[str, list[float]] | None = None
        self.fit_: Fit | None = None

    def fit(
        self,
        Y: Any,
        max_iter: int = 200,
        verbose: bool = True,
        mask: Any = None,
        early_stopping: bool = False,
    ) -> dict[str, list[float]]:
        """Fits the model; gives the history.

        As there, a twentieth of the entries is set aside for validation, and entries where ``mask`` is
        False are held out: not fitted, and their loss is reported.
        """
        expected = tuple(int(self.shape_dict[letter]) for letter in self.data_str)
        if tuple(np.shape(Y)) != expected:
            raise ValueError(f"Y has shape {tuple(np.shape(Y))}; expected {expected}, as shape_dict says")
        latent = sorted(set("".join(self.param_strs)) - set(self.data_str))
        seeds = np.random.randint(2**31 - 1, size=2)
        heldout = None if mask is None else ~np.asarray(mask, dtype=bool)
        if heldout is not None and not heldout.any():
            heldout = None
        device = self.device if isinstance(self.device, str) else str(self.device or "auto")
        began = time.perf_counter()

        def shown(sweep: Sweep) -> None:
            if verbose:
                seconds = time.perf_counter() - began
                print(f"iteration {sweep.iteration:3d}  {seconds:8.3f} s  loss {sweep.loss:.6e}")

        self.fit_ = fit(
            self.model_str, Y, {letter: self.shape_dict[letter] for letter in latent},
            loss=self._loss, heldout=heldout, validation=0.05, early_stopping=early_stopping,
            max_iter=max_iter, seed=int(seeds[0]), split_seed=int(seeds[1]), progress=False,
            device="cpu" if device.startswith("cpu") else "auto", callback=shown if verbose else None,
        )
        history = self.fit_.history
        self.history = {
            "loss": history.loss.tolist(),
            "validation_loss": history.validation_loss.tolist(),
            "heldout_loss": history.heldout_loss.tolist(),
            "time": history.seconds.tolist(),
        }
        return self.history

    def get_params(self) -> list[np.ndarray]:
        """The factors, in the model's order."""
        if self.fit_ is None:
            raise ValueError("the model is not fitted yet: call fit(Y) first")
        return [factor.copy() for factor in self.fit_.factors]
