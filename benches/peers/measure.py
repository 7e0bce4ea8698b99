"""Runs a command; writes its exit status, seconds and peak memory: measure.py OUT.json COMMAND…

It is a program of its own because Linux counts into a process's peak memory what the process that
started it held at that moment. This one holds next to nothing; the one that makes tensors does not.
"""

import json
import os
import subprocess
import sys
import time

began = time.perf_counter()
process = subprocess.Popen(sys.argv[2:])
_, status, usage = os.wait4(process.pid, 0)
seconds = time.perf_counter() - began
# Kilobytes on Linux, bytes on macOS.
mib = usage.ru_maxrss / (1024**2 if sys.platform == "darwin" else 1024)
with open(sys.argv[1], "w") as out:
    json.dump({"status": os.waitstatus_to_exitcode(status), "seconds": seconds, "mib": mib,
               "cpu_seconds": usage.ru_utime + usage.ru_stime}, out)
