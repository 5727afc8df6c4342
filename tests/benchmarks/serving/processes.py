"""What a server and all processes that it started have used, from /proc."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Usage:
    """What a process and its living descendants use.

    Attributes:
        cpu_seconds: user and system time since they started, that of ended children included.
        resident_bytes: sum of resident memory; pages that they share count once for each.
    """

    cpu_seconds: float
    resident_bytes: int


def usage(pid: int) -> Usage:
    """Usage of a process and its descendants.

    Raises:
        ProcessLookupError: there is no such process.
    """
    fields = {int(path.name): found for path in Path("/proc").glob("[0-9]*") if (found := _fields(path))}
    if pid not in fields:
        raise ProcessLookupError(f"there is no process {pid}")
    family = {pid}
    while more := {child for child, found in fields.items() if int(found[1]) in family} - family:
        family |= more
    ticks = sum(int(value) for member in family for value in fields[member][11:15])
    pages = sum(int(fields[member][21]) for member in family)
    return Usage(ticks / _TICK, pages * _PAGE)


def _fields(process: Path) -> list[str]:
    """Fields of /proc/PID/stat after the name, the state first; empty for a process that ended meanwhile."""
    try:
        return (process / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
