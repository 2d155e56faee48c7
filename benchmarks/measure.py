# SPDX-License-Identifier: Apache-2.0
"""The timed loop, and what is made of its times."""

from __future__ import annotations

import array
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

# Of the curves in the picture; the tables show some of them.
PERCENTILES = (1, 5, 10, 25, 50, 75, 90, 95, 98, 99, 99.5, 99.8, 99.9, 99.95, 99.98, 99.99, 100)


class Loop:
    """Times a number of calls of `reset` and `step`, one by one.

    Attributes:
      step_ns: int64, the time of each call.
      own_ns: int64, the environment's own part of it.
      wall_ns: The time of the whole loop.
      cpu_ns: CPU time of this thread in the loop, the environment's own apart.
      is_over: Whether an episode ended with the last call.
    """

    def __init__(
        self,
        environment: Any,
        timed: Any,
        actions: Iterator[Any],
        is_last: Callable[[Any], bool],
        steps: int,
        *,
        begin_with_reset: bool,
    ) -> None:
        step_ns, own_ns = (array.array("q", bytes(8 * steps)) for _ in range(2))
        reset, step, clock = environment.reset, environment.step, time.perf_counter_ns
        is_over = begin_with_reset
        own_cpu, cpu, wall = timed.cpu_ns, time.thread_time_ns(), clock()
        for i in range(steps):
            action = next(actions)
            start = clock()
            result = reset() if is_over else step(action)
            end = clock()
            step_ns[i] = end - start
            own_ns[i] = timed.own_ns
            is_over = is_last(result)
        self.wall_ns = clock() - wall
        self.cpu_ns = time.thread_time_ns() - cpu - (timed.cpu_ns - own_cpu)
        self.is_over = is_over
        self.step_ns = np.frombuffer(step_ns, np.int64)
        self.own_ns = np.frombuffer(own_ns, np.int64)

    @property
    def added_ns(self) -> np.ndarray:
        """What each call took beyond the environment's own part, int64."""
        return self.step_ns - self.own_ns


class PlainLoop:
    """Makes a number of calls of `reset` and `step`, and looks at no clock in between.

    Where the environment costs nothing, to time each call would take a good part of the time.

    Attributes:
      wall_ns: The time of the whole loop.
      cpu_ns: CPU time of this thread in it.
    """

    def __init__(
        self,
        environment: Any,
        actions: Iterator[Any],
        is_last: Callable[[Any], bool],
        steps: int,
        *,
        begin_with_reset: bool,
    ) -> None:
        reset, step = environment.reset, environment.step
        is_over = begin_with_reset
        cpu, wall = time.thread_time_ns(), time.perf_counter_ns()
        for _ in range(steps):
            action = next(actions)
            is_over = is_last(reset() if is_over else step(action))
        self.wall_ns = time.perf_counter_ns() - wall
        self.cpu_ns = time.thread_time_ns() - cpu


def summarize(times_ns: np.ndarray) -> dict[str, Any]:
    """Returns mean, std and percentiles ({"99.9": …}; "100" is the maximum) in µs."""
    times = np.asarray(times_ns) / 1e3
    values = np.percentile(times, PERCENTILES)
    return {
        "mean": float(times.mean()),
        "std": float(times.std()),
        "percentiles": {f"{p:g}": float(v) for p, v in zip(PERCENTILES, values, strict=True)},
    }


def median(runs: Sequence[Any]) -> Any:
    """Returns the medians, number by number, of results of one form; the rest is the first's."""
    first = runs[0]
    if isinstance(first, Mapping):
        return {key: median([run[key] for run in runs]) for key in first}
    if isinstance(first, bool) or not isinstance(first, int | float):
        return first
    return statistics.median(runs)


def memory_mb(field: str = "VmHWM") -> float:
    """Returns the resident memory of this process: VmHWM its peak, VmRSS now."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1e3
    raise ValueError(f"/proc/self/status has no {field}.")


def forget_peak_memory() -> None:
    """Lets VmHWM begin anew, where the kernel has this."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def bytes_below(directory: str | Path) -> int:
    """Returns the sum of the sizes of all files in `directory` and below."""
    return sum(path.stat().st_size for path in Path(directory).rglob("*") if path.is_file())
