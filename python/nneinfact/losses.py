"""Losses: named ones with their parameters, and those of one's own.

A loss is given to :func:`nneinfact.fit` by its name (``"kl"``), or made here where it has
parameters. One's own are written with the operators of :data:`x`, the datum, and :data:`y`, the
model's value: no Python runs for each entry, and the same loss runs on a GPU.

>>> import nneinfact as nn
>>> nn.alpha_beta(0.7, 0)
Loss('alpha-beta(0.7, 0)')
>>> x, y = nn.x, nn.y
>>> nn.loss("poisson", a=x / y, b=1, loss=y - x * nn.log(y), majorizer=("power", -1, 0))
Loss('poisson')
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np

from . import _check
from . import _nneinfact as _rust

__all__ = [
    "NAMES", "Expression", "Loss", "alpha", "alpha_beta", "beta", "binomial", "exp", "log", "loss",
    "negative_binomial", "parameter", "sqrt", "where_positive", "x", "y",
]

NAMES: dict[str, tuple[str, ...]] = {name: tuple(p) for name, p in _rust.loss_names()}
"""The named losses, each with the names of its parameters."""


class Expression:
    """A formula of the datum :data:`x`, the model's value :data:`y` and entry parameters.

    Formulas are made with ``+ - * / **`` and :func:`log`, :func:`exp`, :func:`sqrt`,
    :func:`where_positive`. The exponent of ``**`` is a number.

    Examples
    --------
    >>> import nneinfact as nn
    >>> (nn.y - nn.x) ** 2 / 2
    (y - x)**2 / 2
    """

    __slots__ = ("_number", "_parts", "_what")
    # Of numpy's numbers and arrays, which else would take the operators for themselves.
    __array_ufunc__ = None

    def __init__(self, what: str, parts: tuple[Expression, ...] = (), number: float = 0.0) -> None:
        self._what, self._parts, self._number = what, parts, float(number)

    def __add__(self, other: Any) -> Expression:
        return _two("add", self, other)

    def __radd__(self, other: Any) -> Expression:
        return _two("add", other, self)

    def __sub__(self, other: Any) -> Expression:
        return _two("sub", self, other)

    def __rsub__(self, other: Any) -> Expression:
        return _two("sub", other, self)

    def __mul__(self, other: Any) -> Expression:
        return _two("mul", self, other)

    def __rmul__(self, other: Any) -> Expression:
        return _two("mul", other, self)

    def __truediv__(self, other: Any) -> Expression:
        return _two("div", self, other)

    def __rtruediv__(self, other: Any) -> Expression:
        return _two("div", other, self)

    def __neg__(self) -> Expression:
        return Expression("neg", (self,))

    def __pos__(self) -> Expression:
        return self

    def __pow__(self, exponent: Any) -> Expression:
        if isinstance(exponent, Expression):
            if exponent._what != "constant":
                raise TypeError("the exponent of ** has to be a number in the formula of a loss")
            exponent = exponent._number
        return Expression("pow", (self,), _check.real("the exponent of **", exponent))

    def __rpow__(self, base: Any) -> Expression:
        base = _check.real("the base of **", base)
        if not base > 0:
            raise ValueError(f"the base of ** is {base}; expected a number above 0")
        return exp(self * math.log(base))

    def __bool__(self) -> bool:
        raise TypeError(
            "a formula of a loss is neither true nor false: where_positive(condition, then, "
            "otherwise) chooses entry by entry"
        )

    def _nodes(self) -> list[tuple[str, list[int], float]]:
        """All parts once each, those before the ones that take them."""
        place: dict[int, int] = {}
        nodes: list[tuple[str, list[int], float]] = []
        stack: list[tuple[Expression, bool]] = [(self, False)]
        while stack:
            node, done = stack.pop()
            if id(node) in place:
                continue
            if not done:
                stack.append((node, True))
                stack.extend((part, False) for part in node._parts)
                continue
            place[id(node)] = len(nodes)
            nodes.append((node._what, [place[id(part)] for part in node._parts], node._number))
        return nodes

    def __repr__(self) -> str:
        # From the parts on, so that deep formulas need no deep calls.
        made: list[tuple[str, int]] = []
        for what, takes, number in self._nodes():
            made.append(_text(what, [made[i] for i in takes], number))
            if len(made[-1][0]) > 10_000:
                return f"<a formula of {len(self._nodes())} parts>"
        return made[-1][0]

    def __getstate__(self) -> Any:
        return self._nodes()

    def __setstate__(self, nodes: Any) -> None:
        made: list[Expression] = []
        for what, takes, number in nodes:
            made.append(Expression(what, tuple(made[i] for i in takes), number))
        last = made[-1]
        self._what, self._parts, self._number = last._what, last._parts, last._number


def _text(what: str, parts: list[tuple[str, int]], number: float) -> tuple[str, int]:
    """A formula, and how strongly it binds: 1 sums, 2 products, 3 powers, 4 all else."""
    def inside(i: int, least: int) -> str:
        text, binds = parts[i]
        return text if binds >= least else f"({text})"

    signs = {"add": ("+", 1, 1), "sub": ("-", 1, 2), "mul": ("*", 2, 2), "div": ("/", 2, 3)}
    if what in signs:
        sign, left, right = signs[what]
        return f"{inside(0, left)} {sign} {inside(1, right)}", left
    if what == "constant":
        return f"{number:g}", 4 if number >= 0 else 1
    if what == "s":
        return f"parameter({int(number)})", 4
    if what == "neg":
        return f"-{inside(0, 3)}", 1
    if what == "pow":
        return f"{inside(0, 4)}**{number:g}", 3
    if what in ("x", "y"):
        return what, 4
    return f"{what}({', '.join(part[0] for part in parts)})", 4


def _expression(value: Any) -> Expression:
    if isinstance(value, Expression):
        return value
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        return Expression("constant", (), float(value))
    raise TypeError(f"{value!r} cannot be part of the formula of a loss; x, y and numbers can")


def _two(what: str, left: Any, right: Any) -> Expression:
    return Expression(what, (_expression(left), _expression(right)))


x = Expression("x")
"""The datum, in the formula of a loss."""
y = Expression("y")
"""The model's value, in the formula of a loss."""


def parameter(i: int = 0) -> Expression:
    """The ``i``-th entry parameter of a loss of one's own: see ``parameters`` of :func:`loss`."""
    return Expression("s", (), _check.whole("the number of a parameter", i))


def log(value: Any) -> Expression:
    """The natural logarithm, in the formula of a loss."""
    return Expression("log", (_expression(value),))


def exp(value: Any) -> Expression:
    """The exponential, in the formula of a loss."""
    return Expression("exp", (_expression(value),))


def sqrt(value: Any) -> Expression:
    """The square root, in the formula of a loss."""
    return _expression(value) ** 0.5


def where_positive(condition: Any, then: Any, otherwise: Any) -> Expression:
    """``then`` where ``condition`` is above 0, else ``otherwise``."""
    parts = (_expression(condition), _expression(then), _expression(otherwise))
    return Expression("where_positive", parts)


class Loss:
    """A loss with its parameters. Made by the functions of :mod:`nneinfact.losses`; never changed."""

    __slots__ = ("_arguments", "_kind", "_rust")

    def __init__(self, kind: str, arguments: dict[str, Any]) -> None:
        self._kind, self._arguments = kind, arguments
        if kind == "custom":
            self._rust = _rust.Loss.custom(arguments)
        else:
            self._rust = _rust.Loss.named(kind, *(arguments.get(p) for p in _PARAMETERS))

    @property
    def name(self) -> str:
        """The name with its parameters, as ``alpha-beta(0.7, 0)``."""
        return self._rust.name

    def describe(self) -> str:
        """What it is and which data it accepts."""
        return self._rust.describe()

    def __repr__(self) -> str:
        return f"Loss({self.name!r})"

    def __eq__(self, other: Any) -> bool:
        if not isinstance(other, Loss):
            return NotImplemented
        return self is other or (self._kind == other._kind and _same(self._arguments, other._arguments))

    def __hash__(self) -> int:
        return hash((self._kind, self.name))

    def __copy__(self) -> Loss:
        return self

    def __deepcopy__(self, memo: Any) -> Loss:
        return self

    def __reduce__(self) -> Any:
        return Loss, (self._kind, self._arguments)


_PARAMETERS = ("alpha", "beta", "dispersion", "trials", "power")


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return np.array_equal(a, b)
    return bool(a == b)


def _number_or_array(name: str, value: Any) -> Any:
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        return float(value)
    array = np.array(value, dtype=np.float64, order="C")
    return float(array) if array.ndim == 0 else array


def alpha_beta(alpha: float, beta: float) -> Loss:
    """The αβ-divergence (Cichocki, Cruces & Amari 2011)."""
    return Loss(
        "alpha-beta", {"alpha": _check.real("alpha", alpha), "beta": _check.real("beta", beta)}
    )


def alpha(alpha: float) -> Loss:
    """The α-divergence."""
    return Loss("alpha", {"alpha": _check.real("alpha", alpha)})


def beta(beta: float) -> Loss:
    """The β-divergence as scikit-learn writes it: 2 is Euclidean, 1 KL, 0 Itakura–Saito."""
    return Loss("beta", {"beta": _check.real("beta", beta)})


def negative_binomial(dispersion: Any) -> Loss:
    """The negative binomial's deviance for counts.

    ``dispersion`` is a number, or an array of one for each entry of the data.
    """
    return Loss("negative-binomial", {"dispersion": _number_or_array("dispersion", dispersion)})


def binomial(trials: Any) -> Loss:
    """The binomial's deviance on odds, of ``trials`` each: a number, or one for each entry."""
    return Loss("binomial", {"trials": _number_or_array("trials", trials)})


def loss(
    name: str,
    *,
    a: Any = None,
    b: Any = None,
    loss: Any = None,
    majorizer: Any = None,
    curvature_constant: float | None = None,
    domain: Any = "nonnegative",
    parameters: Sequence[Any] = (),
    homogeneity: float | None = None,
    alpha: float | None = None,
    beta: float | None = None,
    dispersion: Any = None,
    trials: Any = None,
    power: float | None = None,
) -> Loss:
    """A loss by its name, or one of one's own.

    With none of ``a``, ``b``, ``loss`` and ``majorizer`` the name is one of ``losses.NAMES``, and
    its parameters are given as ``alpha``, ``beta``, ``dispersion``, ``trials``, ``power``. Else it is a loss of
    one's own, which is checked when it is made: the derivative of ``loss`` has to be what ``a``, ``b``
    and the majorizer say, and the surrogate has to lie above it.

    Parameters
    ----------
    name : str
        Its name.
    a, b : Expression or number
        The numerator's and the denominator's formula in :data:`x` and :data:`y`. With ``c`` the
        curvature constant, the derivative of the loss in y is ``c * (b - a)`` (``-c * a`` under the
        logarithm).
    loss : Expression
        The loss of one entry.
    majorizer : ("power", p_a, p_b) or "log"
        How an update is made of the sums A of a and B of b: its factor is
        ``(A / B) ** (1 / (p_b - p_a))``, or ``exp(A / B)``.
    curvature_constant : float, optional
        Read off the derivative where it is not given.
    domain : "nonnegative", "positive", "binary" or ("upto", trials)
        Which data are accepted; trials is a number or ``nn.parameter(i)``.
    parameters : sequence of arrays
        What ``nn.parameter(0)``, ``nn.parameter(1)``, ... are, each of the shape of the data.
    homogeneity : float, optional
        The d with loss(s x, s y) = s**d loss(x, y), if there is one.

    Examples
    --------
    >>> import nneinfact as nn
    >>> x, y = nn.x, nn.y
    >>> nn.loss("half square", a=x, b=y, loss=(x - y) ** 2 / 2, majorizer=("power", 0, 1))
    Loss('half square')
    >>> nn.loss("wrong", a=x, b=y, loss=(x - y) ** 4, majorizer=("power", 0, 1))
    Traceback (most recent call last):
    ValueError: the custom loss "wrong": the derivative of the loss is ...
    """
    if not isinstance(name, str):
        raise TypeError(f"the name of a loss is {name!r}; expected a text")
    named = {"alpha": alpha, "beta": beta, "dispersion": dispersion, "trials": trials,
             "power": power}
    if a is None and b is None and loss is None and majorizer is None:
        given: dict[str, Any] = {}
        for key, value in named.items():
            if value is not None:
                check = _check.real if key in ("alpha", "beta", "power") else _number_or_array
                given[key] = check(key, value)
        return Loss(name, given)
    for key, value in named.items():
        if value is not None:
            raise TypeError(f"{key} is for named losses; a loss of one's own has parameters=[...]")
    for key, value in (("a", a), ("b", b), ("loss", loss), ("majorizer", majorizer)):
        if value is None:
            raise ValueError(f"the custom loss {name!r}: {key} is missing")
    arrays = [np.array(p, dtype=np.float64, order="C") for p in parameters]
    return Loss(
        "custom",
        {
            "name": name,
            "a": _expression(a)._nodes(),
            "b": _expression(b)._nodes(),
            "loss": _expression(loss)._nodes(),
            "powers": _powers(majorizer),
            "curvature_constant": _check.optional(
                _check.real, "curvature_constant", curvature_constant
            ),
            "domain": _domain(domain),
            "entry_parameters": arrays,
            "homogeneity": _check.optional(_check.real, "homogeneity", homogeneity),
        },
    )


def _powers(majorizer: Any) -> tuple[float, float] | None:
    if majorizer == "log":
        return None
    if isinstance(majorizer, (tuple, list)) and len(majorizer) == 3 and majorizer[0] == "power":
        return _check.real("p_a", majorizer[1]), _check.real("p_b", majorizer[2])
    raise ValueError(f"majorizer is {majorizer!r}; expected ('power', p_a, p_b) or 'log'")


def _domain(domain: Any) -> tuple[str, float | None, int | None]:
    if isinstance(domain, str) and domain in ("nonnegative", "positive", "binary"):
        return domain, None, None
    if isinstance(domain, (tuple, list)) and len(domain) == 2 and domain[0] == "upto":
        trials = domain[1]
        if isinstance(trials, Expression) and trials._what == "s":
            return "upto", None, int(trials._number)
        return "upto", _check.real("the trials of the domain", trials), None
    raise ValueError(
        f"domain is {domain!r}; expected 'nonnegative', 'positive', 'binary' or ('upto', trials)"
    )


def loss_of(value: Any) -> Loss:
    """The argument ``loss``: a name or a Loss."""
    if isinstance(value, Loss):
        return value
    if isinstance(value, str):
        return Loss(value, {})
    raise TypeError(f"loss is {value!r}; expected a name, as 'kl', or a loss, as nn.beta(1.5)")
