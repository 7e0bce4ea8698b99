"""Progress: a bar where a person looks, else nothing."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import Any


def someone_looks() -> bool:
    """Whether standard error is a terminal, or this is a notebook."""
    if _in_notebook():
        return True
    try:
        return bool(sys.stderr.isatty())
    except (AttributeError, ValueError):
        return False


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and hasattr(shell, "kernel")


class Progress:
    """A bar of sweeps (or runs), by tqdm where that is installed, else a line on a terminal."""

    def __init__(self, unit: str) -> None:
        self._unit, self._bar, self._line = unit, None, False

    def tell(self, done: int, total: int, text: str) -> None:
        """Shows where it stands."""
        if self._bar is None and not self._line:
            try:
                with warnings.catch_warnings():
                    # That ipywidgets would make it prettier.
                    warnings.simplefilter("ignore")
                    from tqdm.auto import tqdm
            except ImportError:
                self._line = True
            else:
                self._bar = tqdm(total=total, unit=self._unit, leave=False)
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(done - self._bar.n)
        elif not _in_notebook():
            print(f"\r{done}/{total} {self._unit}s, {text}   ", end="", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Takes it away."""
        if self._bar is not None:
            self._bar.close()
        elif self._line and not _in_notebook():
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def progress_of(wanted: Any, unit: str) -> Progress | None:
    """The bar of the argument ``progress``."""
    if wanted is None:
        wanted = someone_looks()
    if not isinstance(wanted, bool):
        raise TypeError(f"progress is {wanted!r}; expected True, False, or None where it depends")
    return Progress(unit) if wanted else None


Callback = Callable[..., Any]
