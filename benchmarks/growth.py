# SPDX-License-Identifier: Apache-2.0
"""Whether recording stays as it was when a dataset grows: `python -m benchmarks.growth`.

Records 1,000,000 steps of Catch in episodes of 100, and 100,000 episodes of ten steps, each in one
session, and looks at every block of 10,000 steps: time per step, resident memory, CPU time of the
other processes, and how far publishing is behind. Then appends to a growing dataset, one session of
one episode at a time, and times opening and closing it. Saves the curves and their numbers.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import installs, machine, report

_BLOCK = 10_000  # steps
_STEPS = 1_000_000
_SESSIONS_AT = 10  # sizes of the dataset at which sessions are timed
_EPISODES_BETWEEN = 5_000
_TIMED_SESSIONS = 5
_QUICKER = 20
_RESULTS = installs.ROOT / "benchmarks" / "results"


def main() -> None:
    """Records, and saves and prints what was seen."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=main.__doc__)
    parser.add_argument("--quick", action="store_true", help="a twentieth of the steps")
    parser.add_argument("--directory", help="where to record; the system's temporary directory")
    parser.add_argument("--output", type=Path, default=_RESULTS, help="where results are saved")
    arguments = parser.parse_args()
    installs.run_inside("growth", "growth")
    from benchmarks import meter

    meter.become_reaper()  # so that the helper is found wherever it goes
    steps = _STEPS // (_QUICKER if arguments.quick else 1)
    document: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "quick": arguments.quick,
        "machine": machine.describe(arguments.directory or tempfile.gettempdir()),
        "curves": {},
    }
    for episode_steps in (100, 10):
        name = f"{steps:,} steps in {steps // episode_steps:,} episodes"
        with tempfile.TemporaryDirectory(dir=arguments.directory) as folder:
            document["curves"][name] = list(_record(folder, episode_steps, steps, name))
    with tempfile.TemporaryDirectory(dir=arguments.directory) as folder:
        document["sessions"] = list(
            _sessions(folder, _EPISODES_BETWEEN // (_QUICKER if arguments.quick else 1))
        )
    from benchmarks import growth_plots  # late: Matplotlib takes memory

    arguments.output.mkdir(parents=True, exist_ok=True)
    stem = arguments.output / f"{document['date']}-growth"
    stem.with_suffix(".json").write_text(json.dumps(document, indent=1) + "\n")
    growth_plots.draw(document, stem.with_suffix(".png"))
    print(_markdown(document))
    print(f"Saved as {stem}.json, {stem}.png")


def _record(folder: str, episode_steps: int, steps: int, name: str) -> Iterator[dict[str, float]]:
    """Yields what each block of steps showed."""
    import numpy as np
    import tqdm

    import envlogger
    from benchmarks import measure, meter

    environment, actions = _catch(episode_steps)
    logger = envlogger.EnvLogger(environment, data_directory=os.path.join(folder, "1.0.0"))
    others_before = 0.0
    with logger, tqdm.tqdm(total=steps, desc=name, unit="step") as bar:
        for done in range(_BLOCK, steps + 1, _BLOCK):
            loop = measure.Loop(
                logger, environment, actions, _is_last, _BLOCK, begin_with_reset=True
            )
            bar.update(_BLOCK)
            helpers = meter.descendants()
            others = sum(map(_cpu_s, helpers))
            times = loop.step_ns / 1e3
            yield {
                "steps": done,
                "mean_us": float(times.mean()),
                "p99_us": float(np.percentile(times, 99)),
                "p99_9_us": float(np.percentile(times, 99.9)),
                "memory_mb": measure.memory_mb("VmRSS"),
                "memory_all_mb": meter.memory_mb([os.getpid(), *helpers]),
                "helper_us_per_step": max(others - others_before, 0.0) * 1e6 / _BLOCK,
                "episodes": done // episode_steps,
                "published": _published(Path(folder) / "1.0.0"),
            }
            others_before = others


def _sessions(folder: str, episodes_between: int) -> Iterator[dict[str, float]]:
    """Yields what sessions of one episode take while the dataset grows."""
    import tqdm

    import envlogger
    from benchmarks import measure

    environment, actions = _catch(10)
    directory = os.path.join(folder, "1.0.0")
    recorded = 0
    for i in tqdm.trange(_SESSIONS_AT + 1, desc="sessions", unit="size"):
        if i:
            with envlogger.EnvLogger(environment, data_directory=directory) as logger:
                measure.Loop(
                    logger,
                    environment,
                    actions,
                    _is_last,
                    10 * episodes_between,
                    begin_with_reset=True,
                )
            recorded += episodes_between
        opened, closed = [], []
        for _ in range(_TIMED_SESSIONS):
            begin = time.perf_counter()
            logger = envlogger.EnvLogger(environment, data_directory=directory)
            opened.append(time.perf_counter() - begin)
            measure.Loop(logger, environment, actions, _is_last, 10, begin_with_reset=True)
            begin = time.perf_counter()
            logger.close()
            closed.append(time.perf_counter() - begin)
        yield {
            "episodes": recorded,
            "open_ms": statistics.median(opened) * 1e3,
            "close_ms": statistics.median(closed) * 1e3,
        }
        recorded += _TIMED_SESSIONS


def _catch(episode_steps: int) -> Any:
    from benchmarks import workloads

    made = workloads.make("catch", 0, 0, episode_steps)
    return made.environment, made.actions


def _is_last(timestep: Any) -> bool:
    return bool(timestep.last())


def _cpu_s(pid: int) -> float:
    """Returns the CPU time of a process so far; 0 if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / float(os.sysconf("SC_CLK_TCK"))


def _published(directory: Path) -> int:
    """Returns how many episodes a reader would see."""
    try:
        info = json.loads((directory / "dataset_info.json").read_text())
    except FileNotFoundError:
        return 0
    return sum(int(n) for split in info["splits"] for n in split["shardLengths"])


def _markdown(document: dict[str, Any]) -> str:
    """Returns the first and the last tenth of each curve side by side."""
    lines = []
    for name, points in document["curves"].items():
        tenth = max(len(points) // 10, 1)
        for key, label in (
            ("mean_us", "µs per step, mean"),
            ("p99_9_us", "µs per step, p99.9"),
            ("memory_mb", "MB, environment's process"),
            ("memory_all_mb", "MB, all processes"),
            ("helper_us_per_step", "µs of CPU per step, helper"),
        ):
            # The first block has the start, too.
            first = statistics.median(p[key] for p in points[1 : 1 + tenth] or points)
            last = statistics.median(p[key] for p in points[-tenth:])
            lines.append([name, label, report.number(first), report.number(last)])
    sessions = document["sessions"]
    name = f"sessions of one episode, {sessions[-1]['episodes']:,} before"
    for key, label in (("open_ms", "ms to open"), ("close_ms", "ms to close")):
        first, last = report.number(sessions[0][key]), report.number(sessions[-1][key])
        lines.append([name, label, first, last])
    return report.table(("", "number", "at first", "at last"), lines)


if __name__ == "__main__":
    main()
