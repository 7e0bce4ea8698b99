"""One fit on several processes: each works on a part of the data, and all get the same fit.

Every process makes the same call of :func:`nneinfact.fit` with ``shared_by``, an object that connects it
with the others. The fit has the same bits for any number of processes.

>>> import nneinfact as nn
>>> from mpi4py import MPI                                          # doctest: +SKIP
>>> comm = nn.parallel.mpi(MPI.COMM_WORLD)                          # doctest: +SKIP
>>> here = nn.parallel.part((10**6, 500), comm.rank, comm.size)     # doctest: +SKIP
>>> y = read_rows(here.start, here.stop)                            # doctest: +SKIP
>>> fit = nn.fit("ir,jr->ij", y, {"r": 10}, shared_by=comm, part=here)  # doctest: +SKIP

Any object will do that has ``rank`` and ``size``, as attributes or methods, and

``exchange(other, send, receive)``
    sends all of ``send`` to the process ``other``, which makes the same call with this one's rank, and fills
    ``receive`` with what that one sends. Both are one-dimensional numpy arrays of float64, of any length;
    numbers have to arrive with their bits.
``agree(word)``
    the largest of the whole numbers (from 0 to 2**63 - 1) that all processes give.

They are called in the thread that has called :func:`nneinfact.fit`, a few times a sweep. An exception in
one of them ends the fit there and is raised; the other processes have to learn of it by themselves, as
they do where scripts are started by ``python -m mpi4py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from . import _check
from . import _nneinfact as _rust

__all__ = ["Part", "mpi", "part", "torch"]

_SLABS = 8


class Part(NamedTuple):
    """What one process has of the data: along one axis the indices from start to stop."""

    axis: int
    """The axis that the data are cut along."""
    start: int
    """The first index along it that is here."""
    stop: int
    """The one after the last."""
    whole: int
    """How many there are in the whole data."""

    @property
    def range(self) -> slice:
        """The indices as a slice."""
        return slice(self.start, self.stop)


def part(
    shape: Sequence[int], rank: int, size: int, *, axis: int | None = None, slabs: int = _SLABS
) -> Part:
    """The part of data of a shape that one of several processes has to have.

    Data are cut into slabs, whatever the number of processes, and every process has some of them; of more
    processes than slabs the last ones have none. ``slabs`` is the setting of the fit.

    Examples
    --------
    >>> import nneinfact as nn
    >>> nn.parallel.part((1000, 50), rank=1, size=3)
    Part(axis=0, start=250, stop=625, whole=1000)
    >>> nn.parallel.part((1000, 50), rank=0, size=2, axis=1)
    Part(axis=1, start=0, stop=25, whole=50)
    """
    lengths = [_check.whole("a length of shape", n, 1) for n in shape]
    asked = _check.optional(_check.whole, "axis", axis)
    counts = (_check.whole("slabs", slabs, 1), _check.whole("rank", rank), _check.whole("size", size, 1))
    return Part(*_rust.part_of(lengths, asked, *counts))


class _Mpi:
    """Processes of a communicator of mpi4py."""

    def __init__(self, comm: Any) -> None:
        from mpi4py import MPI

        # Messages of its own, which no others are taken for.
        self._comm, self._double, self._max = comm.Dup(), MPI.DOUBLE, MPI.MAX
        self.rank, self.size = comm.Get_rank(), comm.Get_size()

    def exchange(self, other: int, send: np.ndarray, receive: np.ndarray) -> None:
        # MPI counts with 31 bits.
        longest = 1 << 27
        for at in range(0, max(len(send), len(receive), 1), longest):
            here = slice(at, at + longest)
            self._comm.Sendrecv(
                [send[here], self._double], dest=other, recvbuf=[receive[here], self._double], source=other
            )

    def agree(self, word: int) -> int:
        return int(self._comm.allreduce(word, op=self._max))


def mpi(comm: Any = None) -> Any:
    """The processes of a communicator of mpi4py, all of them if nothing is said.

    Start the script with ``mpirun -n 4 python -m mpi4py script.py``: so an exception in one process ends
    the others, too.
    """
    if comm is None:
        from mpi4py import MPI

        comm = MPI.COMM_WORLD
    return _Mpi(comm)


class _Torch:
    """Processes of torch.distributed."""

    def __init__(self, group: Any) -> None:
        import torch
        import torch.distributed as dist

        if not dist.is_initialized():
            raise ValueError(
                "torch.distributed is not initialised: call torch.distributed.init_process_group('gloo')"
            )
        backend = dist.get_backend(group)
        if backend not in ("gloo", "mpi"):
            raise ValueError(
                f"the group's backend is {backend}, which moves memory of GPUs; give a group whose backend "
                "is gloo: group=torch.distributed.new_group(backend='gloo')"
            )
        self._torch, self._dist, self._group = torch, dist, group
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)

    def exchange(self, other: int, send: np.ndarray, receive: np.ndarray) -> None:
        other = other if self._group is None else self._dist.get_global_rank(self._group, other)
        # As whole numbers: the bits of a float may not be touched.
        bits = [self._torch.from_numpy(array.view(np.int64)) for array in (send, receive)]
        waiting = []
        if len(receive):
            waiting.append(self._dist.irecv(bits[1], other, group=self._group))
        if len(send):
            waiting.append(self._dist.isend(bits[0], other, group=self._group))
        for work in waiting:
            work.wait()

    def agree(self, word: int) -> int:
        largest = self._torch.tensor([word], dtype=self._torch.int64)
        self._dist.all_reduce(largest, op=self._dist.ReduceOp.MAX, group=self._group)
        return int(largest[0])


def torch(group: Any = None) -> Any:
    """The processes of a group of torch.distributed with the backend gloo; all of them if nothing is said."""
    return _Torch(group)
