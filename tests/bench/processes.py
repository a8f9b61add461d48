"""What a running program takes: processor time and resident memory, read from ``/proc``, its children counted in."""

import os
from pathlib import Path
from typing import NamedTuple

_TICK_US = 1_000_000 / os.sysconf("SC_CLK_TCK")


class Spent(NamedTuple):
    """Processor time in microseconds."""

    user: float
    system: float


def descendants(pid: int) -> list[int]:
    """The process and all below it, parents first."""
    children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [pid, *(one for child in children for one in descendants(child))]


def spent(pid: int) -> Spent:
    """Processor time of a process and all living ones below it, so far; the kernel counts in hundredths of a second."""
    fields = [Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split() for one in descendants(pid)]
    return Spent(sum(int(each[11]) for each in fields) * _TICK_US, sum(int(each[12]) for each in fields) * _TICK_US)


def resident(pid: int) -> float:
    """Resident memory of one process in MiB."""
    return _mib(pid, "VmRSS")


def own(pid: int) -> float:
    """What of it is the process's own, in MiB; the rest is programs and libraries, which others that run the same share."""
    return _mib(pid, "RssAnon")


def _mib(pid: int, field: str) -> float:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024
