"""What this process may use of its machine, by its control group, too."""

import os
from contextlib import suppress
from pathlib import Path

import psutil

CGROUP = Path("/sys/fs/cgroup")


def usable_cores() -> float:
    """Return how many cores this process may use."""
    process = psutil.Process()
    # macOS binds no process to some of them.
    mine = process.cpu_affinity() if hasattr(process, "cpu_affinity") else None
    cores = float(len(mine) if mine else os.cpu_count() or 1)
    quota, _, period = control_group("cpu.max").partition(" ")
    return min(cores, int(quota) / int(period)) if quota.isdecimal() else cores


def free_memory() -> int:
    """Return the bytes that this process may still get, without swap."""
    free = int(psutil.virtual_memory().available)
    limit, used = control_group("memory.max"), control_group("memory.current")
    if limit.isdecimal() and used.isdecimal():
        # Files that were read lately count as used, and make room for whoever needs it.
        kept = dict(line.split() for line in control_group("memory.stat").splitlines())
        free = min(free, int(limit) - int(used) + int(kept.get("inactive_file", 0)))
    return free


def control_group(name: str) -> str:
    """Return a value of this process's control group, version 2; empty without one."""
    with suppress(OSError, ValueError):
        lines = Path("/proc/self/cgroup").read_text().splitlines()
        [path] = [line.removeprefix("0::") for line in lines if line.startswith("0::")]
        return (CGROUP / path.lstrip("/") / name).read_text().strip()
    return ""
