#!/usr/bin/env python3
"""One of the processes of a fit, as the example `processes` is, by way of mpi4py: for processes.py --example, where
the program was not built with MPI. Each process makes its own rows; what it had to do is told in the same words.

    mpirun -n 2 python3 processes_mpi4py.py --rows 8000 --columns 500 --rank 10 --sweeps 20 --slabs 16
"""

import argparse
import hashlib
import math
import sys
import time

import nneinfact as nn
import numpy as np
from mpi4py import MPI


class Metered:
    """A transport that counts, and whose messages may take longer."""

    def __init__(self, inner, delay):
        self._inner, self._delay = inner, delay
        self.rank, self.size = inner.rank, inner.size
        self.messages = self.agreements = self.bytes = 0
        self.seconds = 0.0

    def exchange(self, other, send, receive):
        began = time.perf_counter()
        time.sleep(self._delay)
        self._inner.exchange(other, send, receive)
        self.messages, self.bytes = self.messages + 1, self.bytes + send.nbytes
        self.seconds += time.perf_counter() - began

    def agree(self, word):
        began = time.perf_counter()
        time.sleep(self._delay * math.ceil(math.log2(self.size)))
        found = self._inner.agree(word)
        self.agreements += 1
        self.seconds += time.perf_counter() - began
        return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in [("rows", 4000), ("columns", 300), ("rank", 8), ("sweeps", 10), ("slabs", 8)]:
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--delay", type=float, default=0, help="microseconds")
    parser.add_argument("--mpi", action="store_true", help="as the example has it; says nothing here")
    options = parser.parse_args()
    comm = Metered(nn.parallel.mpi(), options.delay * 1e-6)
    shape = (options.rows, options.columns)
    here = nn.parallel.part(shape, comm.rank, comm.size, axis=0, slabs=options.slabs)
    rows = range(here.start, here.stop)
    # A process without slabs shows one row, which is not looked at.
    own = np.stack([np.random.default_rng(row).poisson(2.0, options.columns) for row in rows or range(1)])
    MPI.COMM_WORLD.Barrier()
    began = time.perf_counter()
    fit = nn.fit("ir,jr->ij", own.astype(np.uint8), {"r": options.rank}, shared_by=comm, part=here, slabs=options.slabs,
                 max_iter=options.sweeps, tol=0.0, device="cpu", threads=1, seed=1)
    seconds = time.perf_counter() - began
    bits = hashlib.sha256(b"".join(factor.tobytes() for factor in fit.factors)).hexdigest()[:16]
    sys.stdout.write(f"process {comm.rank} with {len(rows)} rows: {seconds:.4f} s, of which {comm.seconds:.4f} s in the "
                     f"transport; {comm.messages} messages, {comm.agreements} agreements, {comm.bytes} bytes; "
                     f"bits {bits}\n")


if __name__ == "__main__":
    main()
