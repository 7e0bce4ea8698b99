"""What notebooks show."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from ._data import _texts

#: A page that is longer is not put into a notebook: the figure is.
LONGEST = 3_000_000


class Page:
    """A report, shown in a notebook in a frame; ``str`` of it is the page."""

    def __init__(self, text: str, height: int = 700) -> None:
        self._text, self._height = text, height

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"<a report of {len(self._text)} characters>"

    def _repr_html_(self) -> str:
        return (
            f'<iframe srcdoc="{html.escape(self._text, quote=True)}" '
            f'style="width:100%;height:{self._height}px;border:1px solid #8884"></iframe>'
        )


def appearance(
    fit: Any,
    title: str | None,
    names: Mapping[str, str] | None,
    labels: Mapping[str, Sequence[Any]] | None,
    upwards: str,
) -> tuple[str | None, dict[str, tuple[str | None, list[str] | None]], list[str]]:
    """How the report of a fit looks."""
    names = {**fit._names, **(names or {})}
    texts = {**fit._labels, **{x: _texts(given) for x, given in (labels or {}).items()}}
    modes = {x: (names.get(x), texts.get(x)) for x in [*names, *texts]}
    return title, modes, list(upwards)


def of_fit(fit: Any) -> str:
    """Model, loss, sizes of factors, and the report."""
    def cell(text: Any) -> str:
        return html.escape(str(text))

    rows = [("model", fit.model), ("shape", " × ".join(map(str, fit.shape)))]
    if fit.ranks:
        rows.append(("ranks", ", ".join(f"{x} = {n}" for x, n in fit.ranks.items())))
    if fit.loss is not None:
        rows.append((f"{fit.loss_name} loss", f"{fit.loss:.6g}"))
    for what in ("validation_loss", "heldout_loss"):
        value = getattr(fit, what)
        if value is not None:
            rows.append((what.replace("_", " "), f"{value:.6g}"))
    if len(fit.history):
        rows.append(("sweeps", f"{fit.history.iterations}, stopped by {fit.stopped_by}"))
    if fit.history.kkt_residual is not None:
        rows.append(("KKT residual", f"{fit.history.kkt_residual:.1e}"))
    sizes = ", ".join(
        f"{letters}: {' × '.join(map(str, factor.shape))}"
        for letters, factor in zip(fit.letters, fit.factors)
    )
    rows.append(("factors", sizes))
    table = "".join(f"<tr><th>{cell(a)}</th><td>{cell(b)}</td></tr>" for a, b in rows)
    page = fit._saved.html(appearance(fit, None, None, None, ""), None, None)
    if len(page) <= LONGEST:
        shown = Page(page, 500)._repr_html_()
    else:
        figure = fit._saved.svg(appearance(fit, None, None, None, ""))
        shown = figure if len(figure) <= LONGEST else ""
    return f"<table>{table}</table>{shown}"
