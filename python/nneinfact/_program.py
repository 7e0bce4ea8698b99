"""The program ``nneinfact``, as the wheel has it."""

from __future__ import annotations

import signal
import sys


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line, and gives its exit status.

    Examples
    --------
    >>> from nneinfact._program import main
    >>> main(["explain", "--model", "ir,jr->ij", "--shape", "3,4"])
    2
    """
    from ._device import _quiet_drivers
    from ._nneinfact import program

    _quiet_drivers()

    if arguments is None:
        # The program ends on Ctrl-C, or catches it itself; Python is not there to do it.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    return program(["nneinfact", *(sys.argv[1:] if arguments is None else arguments)])


if __name__ == "__main__":
    sys.exit(main())
