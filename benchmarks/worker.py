# SPDX-License-Identifier: Apache-2.0
"""One run of one peer on one workload, in a process of its own.

Needs dm_env, numpy and the peer. The run is described by a JSON object (`plan.Run`) in argv, and
its result written as one to the file `result`.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import signal
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import measure, recorders, workloads

_VERSIONS_OF = (
    "envlogger",
    "array_record",
    "tensorflow-datasets",
    "tensorflow",
    "rlds",
    "minari",
    "h5py",
    "protobuf",
    "opencv-python-headless",
    "dm_control",
    "mujoco",
)


def run(description: dict[str, Any]) -> dict[str, Any]:
    """Takes the steps without and with the logger; returns what was measured, times in µs."""
    made = workloads.make(
        description["workload"], description["busy_us"] * 1000, description["seed"]
    )
    gc.collect()
    measure.forget_peak_memory()
    memory_before = measure.memory_mb("VmRSS")
    clock = time.perf_counter
    begin = clock()
    recorder = recorders.load(description["peer"])
    import_s = clock() - begin

    environment = recorder.bare(made.environment)
    baseline = measure.Loop(
        environment,
        made.environment,
        made.actions,
        recorder.is_last,
        description["baseline_steps"],
        begin_with_reset=True,
    )
    num_timed = description["timed_steps"]
    num_plain = description["steps"] - num_timed
    plain_baseline = measure.PlainLoop(
        environment,
        made.actions,
        recorder.is_last,
        description["baseline_steps"] if num_plain else 0,
        begin_with_reset=True,
    )
    cpu_before = _cpu_s()
    environment_cpu = made.environment.cpu_ns
    begin = clock()
    recorded = recorder.open(environment, description["directory"])
    recorded.reset()
    open_s = clock() - begin
    loop = measure.Loop(
        recorded,
        made.environment,
        made.actions,
        recorder.is_last,
        num_timed,
        begin_with_reset=False,
    )
    plain = measure.PlainLoop(
        recorded, made.actions, recorder.is_last, num_plain, begin_with_reset=loop.is_over
    )
    begin = clock()
    recorder.close(recorded)
    close_s = clock() - begin
    if signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN:
        raise RuntimeError("SIGCHLD is ignored, so the CPU time of child processes is lost.")
    counted, wall_s = num_timed, loop.wall_ns / 1e9
    if num_plain:
        counted, wall_s = num_plain, plain.wall_ns / 1e9
    cpu_of_loops_ns = baseline.cpu_ns * num_timed + plain_baseline.cpu_ns * num_plain
    return {
        "steps": description["steps"],
        "baseline": {
            "added": measure.summarize(baseline.added_ns),
            "step": measure.summarize(baseline.step_ns),
        },
        "added": measure.summarize(loop.added_ns),
        "step": measure.summarize(loop.step_ns),
        "mean_added_us": float(loop.added_ns.mean() - baseline.added_ns.mean()) / 1e3,
        "import_s": import_s,
        "open_s": open_s,
        "start_up_s": import_s + open_s,
        "loop_s": wall_s,
        "close_s": close_s,
        "steps_per_s": counted / (wall_s + close_s),
        "loop_steps_per_s": counted / wall_s,
        "memory_before_mb": memory_before,
        "peak_memory_mb": measure.memory_mb("VmHWM"),
        "disk_bytes_per_step": measure.bytes_below(description["directory"]) / description["steps"],
        # For the process that started this one and sees the CPU time of all processes.
        "cpu_s_before": cpu_before,
        "cpu_s_environment": (made.environment.cpu_ns - environment_cpu) / 1e9,
        "cpu_s_loop": cpu_of_loops_ns / 1e9 / description["baseline_steps"],
        "versions": _versions(),
    }


def main() -> None:
    """Does the run that argv describes."""
    description = json.loads(sys.argv[1])
    result = run(description)
    Path(description["result"]).write_text(json.dumps(result))
    sys.stdout.flush()
    sys.stderr.flush()
    # The recording is closed, and unloading libraries is nobody's cost of recording.
    os._exit(0)


def _cpu_s() -> float:
    """Returns the CPU time of this process and the children that it has waited for."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _versions() -> dict[str, str]:
    found = {"python": sys.version.split()[0], "numpy": np.__version__}
    for name in _VERSIONS_OF:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
