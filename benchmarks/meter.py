# SPDX-License-Identifier: Apache-2.0
"""Runs a command and accounts for all its processes, those that detach themselves too (Linux).

This process makes itself the reaper of orphans among its descendants: a helper in a session of its
own, or one that outlives its parent, is handed to it and waited for, and with it its CPU time.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

_PR_SET_CHILD_SUBREAPER = 36
_POLL_S = 0.02
_SAMPLE_EVERY = 10  # polls: looking at memory takes time, from the processes looked at as well
_ORPHANS_MAY_TAKE_S = 120.0


def run(
    command: Sequence[str],
    *,
    log: IO[Any],
    sample_memory: bool,
    env: Mapping[str, str] | None = None,
    cwd: str | Path | None = None,
    timeout: float = 600.0,
) -> dict[str, Any]:
    """Runs `command` and waits for it and everything that it started.

    There must be no other children of this process meanwhile.

    Returns:
      `cpu_s`, user and system time of all processes; `peak_memory_all_mb`, the largest sum of their
      proportional resident sizes seen (0 if not sampled); `processes`, how many of them were handed
      to this process; `outlived_s`, how long the last outlived the command.

    Raises:
      RuntimeError: The command failed, or it or what it started did not end in time.
    """
    become_reaper()
    child = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, cwd=cwd
    )
    cpu_s, peak, processes, status, ended, polls = 0.0, 0.0, 0, 0, None, 0
    deadline = time.monotonic() + timeout
    while True:
        try:
            pid, code, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            break
        now = time.monotonic()
        if pid:
            cpu_s += usage.ru_utime + usage.ru_stime
            processes += 1
            if pid == child.pid:
                status = child.returncode = os.waitstatus_to_exitcode(code)
                ended = now
                deadline = now + _ORPHANS_MAY_TAKE_S
            continue
        if now > deadline:
            _kill(descendants())
            who = "The command" if ended is None else "Something that it started"
            raise RuntimeError(f"{who} did not end in time.")
        if sample_memory and polls % _SAMPLE_EVERY == 0:
            peak = max(peak, memory_mb(descendants()))
        polls += 1
        try:
            time.sleep(_POLL_S)
        except KeyboardInterrupt:
            _kill(descendants())
            raise
    if status:
        raise RuntimeError(f"The command ended with {status}.")
    outlived_s = time.monotonic() - ended if ended is not None else 0.0
    return {
        "cpu_s": cpu_s,
        "peak_memory_all_mb": peak,
        "processes": processes,
        "outlived_s": outlived_s,
    }


def descendants(root: int | None = None) -> list[int]:
    """Returns the processes below `root` (this one), wherever they have gone."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                stat = Path(f"/proc/{entry}/stat").read_text()
                parent = int(stat.rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry))
    found, todo = [], [root or os.getpid()]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found


def memory_mb(pids: Sequence[int]) -> float:
    """Returns the sum of proportional resident sizes: shared pages count once."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
    return total / 1e3


def become_reaper() -> None:
    """Lets orphans below this process become its children, instead of those of init."""
    if ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise RuntimeError("This kernel has no child subreapers (Linux 3.4); see prctl(2).")


def _kill(pids: Sequence[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)
