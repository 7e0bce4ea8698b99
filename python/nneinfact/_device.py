"""What fits run on."""

from __future__ import annotations

import os
import sys
from typing import Any, NamedTuple

from . import _check
from . import _nneinfact as _rust


class DeviceInfo(NamedTuple):
    """A device of this machine."""

    name: str
    """What ``device=`` takes; a part of it will do."""
    description: str
    """What it is."""
    auto: bool
    """Whether ``"auto"`` takes it."""
    reason: str
    """Why, or why not."""


class Device:
    """What fits run on, opened once and used by many of them.

    Parameters
    ----------
    name : str
        ``"auto"`` (a GPU where there is a real one, else the CPU), ``"cpu"``, ``"gpu"``, or part of a
        name that :func:`devices` lists.
    threads : int, optional
        How many threads of this machine to use; all by default. Results do not depend on it.
    memory : int, optional
        At most so many bytes of a GPU's memory. Larger data take turns on it.

    Examples
    --------
    >>> import nneinfact as nn
    >>> nn.Device("cpu", threads=1)
    Device('cpu', threads=1)
    """

    __slots__ = ("_arguments", "_process", "_rust")

    def __init__(
        self, name: str = "auto", *, threads: int | None = None, memory: int | None = None
    ) -> None:
        if not isinstance(name, str):
            raise TypeError(f"device is {name!r}; expected its name, as 'cpu', or a Device")
        threads = _check.optional(_check.whole, "threads", threads)
        memory = _check.optional(_check.whole, "memory", memory, 1)
        _quiet_drivers()
        self._arguments = (name, threads, memory)
        self._process = os.getpid()
        self._rust = _rust.Device(name, threads, memory)

    def _open(self) -> Any:
        # The threads of a parent process are not there after a fork.
        if self._process != os.getpid():
            self._rust = _rust.Device(*self._arguments)
            self._process = os.getpid()
        return self._rust

    @property
    def description(self) -> str:
        """What it is, as ``cpu (2 threads, avx512)``."""
        return str(self._open())

    def __repr__(self) -> str:
        name, threads, memory = self._arguments
        more = [f"{k}={v}" for k, v in (("threads", threads), ("memory", memory)) if v is not None]
        return f"Device({', '.join([repr(name), *more])})"

    def __reduce__(self) -> Any:
        return _made_again, self._arguments


def _made_again(name: str, threads: int | None, memory: int | None) -> Device:
    return Device(name, threads=threads, memory=memory)


def _quiet_drivers() -> None:
    # Mesa has a Vulkan layer that picks the GPU of the desktop. The library picks for itself, and where
    # there is no desktop the layer complains on standard error.
    if sys.platform == "linux":
        os.environ.setdefault("NODEVICE_SELECT", "1")


def device_of(device: Any, threads: int | None) -> Any:
    """The opened device of the arguments ``device`` and ``threads``."""
    if isinstance(device, Device):
        if threads is not None:
            raise ValueError("threads is given beside a Device: give it to the Device")
        return device._open()
    return Device("auto" if device is None else device, threads=threads)._open()


def devices() -> list[DeviceInfo]:
    """All devices of this machine, the one that ``"auto"`` takes first.

    Examples
    --------
    >>> import nneinfact as nn
    >>> any(device.name == "cpu" for device in nn.devices())
    True
    """
    _quiet_drivers()
    return [DeviceInfo(*device) for device in _rust.devices()]
