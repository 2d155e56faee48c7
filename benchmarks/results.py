# SPDX-License-Identifier: Apache-2.0
"""Runs to results: one dictionary for each regime, workload and peer."""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks import installs, measure, meter, plan


def do(run: plan.Run, directory: str | None) -> dict[str, Any]:
    """Does one run, in a temporary folder in `directory`; returns what was measured.

    Raises:
      RuntimeError: It failed; the message has the end of what it printed.
    """
    begin = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="envlogger-benchmark-", dir=directory))
    try:
        (folder / "data").mkdir()
        result = folder / "result.json"
        description = {
            **dataclasses.asdict(run),
            "directory": str(folder / "data"),
            "result": str(result),
        }
        name = plan.PEERS[run.peer][0]
        with (folder / "log").open("w") as log:
            try:
                used = meter.run(
                    installs.command(name, "worker", json.dumps(description)),
                    log=log,
                    # Looking at memory would show in the paced times.
                    sample_memory=run.regime == "saturated",
                    env=installs.variables(name),
                    cwd=folder,
                )
            except RuntimeError as e:
                printed = (folder / "log").read_text(errors="replace")[-4000:]
                raise RuntimeError(f"{run}: {e}\n{printed}") from e
        measured = {**json.loads(result.read_text()), **used}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    measured["run_s"] = time.monotonic() - begin
    measured["cpu_per_step_us"] = _cpu_per_step_us(measured)
    return measured


def _cpu_per_step_us(measured: dict[str, Any]) -> float:
    """Returns what recording took of the CPU in all processes, start and close included."""
    others = ("cpu_s_before", "cpu_s_environment", "cpu_s_loop")
    cpu_s = measured["cpu_s"] - sum(measured[part] for part in others)
    return float(cpu_s * 1e6 / measured["steps"])


def collect(done: Iterable[tuple[plan.Run, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Returns the medians over repetitions, in order of regime, workload and peer."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for run, measured in done:
        groups.setdefault((run.regime, run.workload, run.peer), []).append(measured)
    order = list(plan.PEERS)
    return [
        {
            "regime": regime,
            "workload": workload,
            "peer": peer,
            "repetitions": len(runs),
            **measure.median(runs),
        }
        for (regime, workload, peer), runs in sorted(
            groups.items(), key=lambda item: (*_place(item[0]), order.index(item[0][2]))
        )
    ]


def _place(key: tuple[str, str, str]) -> tuple[int, int]:
    return plan.REGIMES.index(key[0]), plan.WORKLOADS.index(key[1])
