#!/usr/bin/env python3
"""Two network namespaces of this machine as two nodes, with a link between them that delays what it carries.

    sudo python3 namespaces.py --delay 1000 [--rate 100mbit] -- mpirun … -n 2 PROGRAM …

Each node has a tun device; what one sends comes out at the other `--delay` microseconds later, by way of this
program. (So no kernel module is needed, as `tc … netem` is one.) `--rate` limits both devices by `tc … tbf`. The
command runs in the first node; a command that begins with mpirun gets the options that make it start its second
half of processes in the other one, as on a cluster, and talk over this link alone. Needs root.
"""

import argparse
import contextlib
import ctypes
import fcntl
import heapq
import os
import select
import struct
import subprocess
import sys
import tempfile
import threading
import time

NODES = {"nnnode0": "10.77.0.1", "nnnode1": "10.77.0.2"}
TUNSETIFF, NO_INFO, TUN, NEW_NET = 0x400454CA, 0x1000, 0x0001, 0x40000000


def call(*command, **how):
    return subprocess.run(list(command), check=True, **how)


def device(node):
    """The file of a tun device in a namespace."""
    libc, here = ctypes.CDLL(None, use_errno=True), os.open("/proc/self/ns/net", os.O_RDONLY)
    there = os.open(f"/var/run/netns/{node}", os.O_RDONLY)
    try:
        if libc.setns(there, NEW_NET):
            raise OSError(ctypes.get_errno(), "setns")
        tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", b"wire", TUN | NO_INFO))
        return tun
    finally:
        libc.setns(here, NEW_NET)
        os.close(here)
        os.close(there)


def relay(one, other, delay, ended):
    """Carries packets from each device to the other one, each after the delay."""
    waiting, number = [], 0
    while not ended.is_set():
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            _, _, to, packet = heapq.heappop(waiting)
            with contextlib.suppress(BlockingIOError):
                os.write(to, packet)
            now = time.monotonic()
        longest = 0.05 if not waiting else max(0.0, min(0.05, waiting[0][0] - now))
        for device in select.select([one, other], [], [], longest)[0]:
            with contextlib.suppress(BlockingIOError):
                for _ in range(64):
                    packet, to = os.read(device, 65535), other if device == one else one
                    heapq.heappush(waiting, (time.monotonic() + delay, number, to, packet))
                    number += 1


@contextlib.contextmanager
def nodes(delay, rate=None):
    """The two nodes, as long as the block lasts."""
    ended = threading.Event()
    try:
        tuns = []
        for node, address in NODES.items():
            call("ip", "netns", "add", node)
            tuns.append(device(node))
            inside = ["ip", "netns", "exec", node]
            call(*inside, "ip", "link", "set", "lo", "up")
            call(*inside, "ip", "address", "add", f"{address}/24", "dev", "wire")
            call(*inside, "ip", "link", "set", "dev", "wire", "up", "mtu", "9000", "txqueuelen", "10000")
            if rate:
                call(*inside, "tc", "qdisc", "add", "dev", "wire", "root", "tbf", "rate", rate, "burst", "64kb",
                     "latency", "1s")
        carrier = threading.Thread(target=relay, args=(*tuns, delay * 1e-6, ended))
        carrier.start()
        yield
    finally:
        ended.set()
        for node in NODES:
            subprocess.run(["ip", "netns", "del", node], stderr=subprocess.DEVNULL)


def started(command, folder):
    """The command as it runs in the first node."""
    first, second = NODES.values()
    if os.path.basename(command[0]) == "mpirun":
        agent = os.path.join(folder, "agent")
        with open(agent, "w") as file:
            # As ssh: the name of a node, and a command for its shell.
            file.write('#!/bin/bash\nnode=$1; shift\n'
                       'exec ip netns exec nnnode1 unshare --uts bash -c \'hostname "$0"; eval "$1"\' "$node" "$*"\n')
        os.chmod(agent, 0o755)
        half = (int(command[command.index("-n") + 1]) + 1) // 2
        network = "10.77.0.0/24"
        command = [command[0], "--allow-run-as-root", "--host", f"{first}:{half},{second}:{half}",
                   "--mca", "plm_rsh_agent", agent, "--mca", "btl", "tcp,self,vader",
                   "--mca", "btl_tcp_if_include", network, "--mca", "oob_tcp_if_include", network, *command[1:]]
    return ["ip", "netns", "exec", "nnnode0", "unshare", "--uts", "bash", "-c", 'hostname "$0"; exec "$@"', first,
            *command]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--delay", type=float, default=0, help="microseconds, one way")
    parser.add_argument("--rate", help="as tc has it: 1gbit")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    with nodes(options.delay, options.rate), tempfile.TemporaryDirectory() as folder:
        sys.exit(subprocess.run(started(options.command, folder)).returncode)


if __name__ == "__main__":
    main()
