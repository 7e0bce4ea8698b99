"""One fit on several processes: threads here, mpi4py and torch where they are installed."""

import queue
import re
import shutil
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest

import nneinfact as nn
from nneinfact import parallel


class Thread:
    """A process that is a thread; rank is an attribute, size a method, as both are allowed."""

    def __init__(self, rank, mail):
        self.rank, self._mail = rank, mail

    def size(self):
        return len(self._mail)

    def exchange(self, other, send, receive):
        self._mail[other][self.rank].put(send.copy())
        receive[:] = self._mail[self.rank][other].get(timeout=60)

    def agree(self, word):
        others = [rank for rank in range(self.size()) if rank != self.rank]
        for rank in others:
            self._mail[rank][self.rank].put(word)
        return max([word] + [self._mail[self.rank][rank].get(timeout=60) for rank in others])


def threads(size):
    mail = [[queue.Queue() for _ in range(size)] for _ in range(size)]
    return [Thread(rank, mail) for rank in range(size)]


def together(size, work):
    """The results of `work` on so many threads; an exception of one is raised."""
    found, raised = [None] * size, []

    def run(process):
        try:
            found[process.rank] = work(process)
        except BaseException as error:
            raised.append(error)

    running = [threading.Thread(target=run, args=(process,)) for process in threads(size)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    if raised:
        raise raised[0]
    return found


def bits(fit):
    return [factor.tobytes() for factor in fit.factors]


MODEL, RANKS = "ir,jr,kr->ijk", {"r": 3}
ASKED = {"max_iter": 15, "tol": 0.0, "heldout": 0.1, "device": "cpu", "threads": 1, "seed": 3}


@pytest.mark.parametrize("size", [1, 2, 3])
def test_any_number_of_processes_gives_the_same_bits(counts, size):
    alone = nn.fit(MODEL, counts, RANKS, slabs=8, **ASKED)

    def whole(process):
        return nn.fit(MODEL, counts, RANKS, shared_by=process, **ASKED)

    def in_parts(process):
        here = parallel.part(counts.shape, process.rank, process.size(), axis=0)
        own = counts[here.range]
        return nn.fit(MODEL, own, RANKS, shared_by=process, part=here, **ASKED)

    for work in (whole, in_parts):
        for fit in together(size, work):
            assert bits(fit) == bits(alone)
            assert fit.history.loss.tobytes() == alone.history.loss.tobytes()


def test_a_callback_of_one_stops_all(counts):
    def work(process):
        stop = (lambda sweep: sweep.iteration == 4) if process.rank == 1 else None
        return nn.fit(MODEL, counts, RANKS, shared_by=process, callback=stop, **ASKED)

    for fit in together(2, work):
        assert fit.history.iterations == 4


def test_an_exception_of_the_object_is_raised(counts):
    class Broken(Thread):
        def exchange(self, other, send, receive):
            raise ConnectionError("the cable is out")

        def agree(self, word):
            return word

    mail = [[queue.Queue() for _ in range(2)] for _ in range(2)]
    with pytest.raises(ConnectionError, match="the cable is out"):
        nn.fit(MODEL, counts, RANKS, shared_by=Broken(0, mail), **ASKED)


def test_what_is_no_process_is_refused(counts):
    with pytest.raises(TypeError, match="has no rank"):
        nn.fit(MODEL, counts, RANKS, shared_by=object())
    with pytest.raises(ValueError, match="part goes with shared_by"):
        nn.fit(MODEL, counts, RANKS, part=parallel.Part(0, 0, 3, 12))
    (alone,) = threads(1)
    with pytest.raises(TypeError, match="expected an nneinfact.parallel.Part"):
        nn.fit(MODEL, counts, RANKS, shared_by=alone, part=(0, 3))
    with pytest.raises(ValueError, match="no part of 2"):
        nn.fit(MODEL, counts, RANKS, shared_by=alone, part=(0, 0, 3, 2))
    with pytest.raises(ValueError, match="its part is"):
        nn.fit(MODEL, counts[:5], RANKS, shared_by=alone, part=(0, 0, 5, 12))
    with pytest.raises(ValueError, match="expected at least 1"):
        nn.fit(MODEL, counts, RANKS, slabs=0)


def test_parts_follow_each_other():
    for size in range(1, 12):
        parts = [parallel.part((100, 7), rank, size, slabs=5) for rank in range(size)]
        assert parts[0].start == 0 and parts[-1].stop == 100
        assert all(a.stop == b.start for a, b in zip(parts, parts[1:]))
    with pytest.raises(ValueError, match="no axis 2"):
        parallel.part((100, 7), 0, 1, axis=2)
    with pytest.raises(ValueError, match="no part of process 3 of 2"):
        parallel.part((100, 7), 3, 2)


PROGRAM = """
    import hashlib, sys
    import numpy as np
    import nneinfact as nn
    y = np.random.default_rng(5).poisson(3.0, (40, 30))
    {begin}
    here = nn.parallel.part(y.shape, comm.rank, comm.size)
    fit = nn.fit("ir,jr->ij", y[here.range], {{"r": 3}}, shared_by=comm, part=here, max_iter=20, tol=0.0,
                 device="cpu", threads=1)
    sys.stdout.write("digest " + hashlib.sha256(b"".join(f.tobytes() for f in fit.factors)).hexdigest() + "\\n")
    sys.stdout.flush()
    {end}
"""


def digest():
    y = np.random.default_rng(5).poisson(3.0, (40, 30))
    fit = nn.fit("ir,jr->ij", y, {"r": 3}, slabs=8, max_iter=20, tol=0.0, device="cpu", threads=1)
    import hashlib

    return hashlib.sha256(b"".join(f.tobytes() for f in fit.factors)).hexdigest()


def digests(command, program):
    done = subprocess.run(
        [*command, sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    # mpirun may put lines of processes into each other's.
    return re.findall("digest ([0-9a-f]{64})", done.stdout)


@pytest.mark.parametrize("size", [1, 3])
def test_mpi4py(size):
    pytest.importorskip("mpi4py")
    if shutil.which("mpirun") is None:
        pytest.skip("there is no mpirun")
    program = PROGRAM.format(begin="comm = nn.parallel.mpi()", end="")
    command = ["mpirun", "--allow-run-as-root", "--oversubscribe", "-n", str(size)]
    assert digests(command, program) == [digest()] * size


def test_torch(tmp_path):
    pytest.importorskip("torch")
    begin = f"""
    import torch.distributed as dist
    dist.init_process_group("gloo", init_method="file://{tmp_path}/meet", rank=int(sys.argv[1]), world_size=2)
    comm = nn.parallel.torch()
    """
    program = textwrap.dedent(PROGRAM).format(begin=textwrap.dedent(begin), end="dist.destroy_process_group()")
    command = [sys.executable, "-c", program]
    running = [
        subprocess.Popen([*command, str(rank)], stdout=subprocess.PIPE, text=True) for rank in range(2)
    ]
    for process in running:
        out, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        assert out.split() == ["digest", digest()]
