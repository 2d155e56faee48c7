# SPDX-License-Identifier: Apache-2.0
"""What reading costs: `Reader` against EnvLogger 1.2's and `tfds.data_source`.

    python -m benchmarks.reading

Both libraries record the same steps; then each reads its own files, in turn, each time in a new process,
from the page cache. Runs in the Python that it is called with; EnvLogger 1.2 gets an environment of its
own.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import tqdm

from benchmarks import installs, machine, report

_RESULTS = Path(__file__).resolve().parent / "results"
_PEER = "envlogger-1.2"
_PASSES = 3
_TURNS = 2
_QUICKER = 5
_FITS = 4 << 30


@dataclasses.dataclass(frozen=True)
class Data:
    """A run to record, and what is to be reached.

    Attributes:
      workload: One of `workloads`.
      steps: In all.
      episode_steps: Per episode.
      random: How many steps are read at random.
      sequential: How many times faster than EnvLogger 1.2 reading in order is to be.
      image_format: As EnvLogger takes it.
    """

    workload: str
    steps: int
    episode_steps: int
    random: int
    sequential: float
    image_format: str = "raw"


_DATA = {
    "catch": Data("catch", 50_000, 100, 1000, 10),
    "catch, episodes of 10": Data("catch", 50_000, 10, 1000, 10),
    "control": Data("control", 30_000, 100, 500, 10),
    "control, episodes of 10": Data("control", 30_000, 10, 500, 10),
    "control, episodes of 1000": Data("control", 30_000, 1000, 500, 10),
    "atari, raw": Data("atari", 4_000, 100, 200, 4),
    "robot, raw": Data("robot", 600, 100, 40, 4),
    "robot, PNG": Data("robot", 600, 100, 40, 1, "png"),
}
_RANDOM_FITS, _RANDOM_DOES_NOT_FIT, _COLUMNS = 25.0, 5.0, 10.0


def main() -> None:
    """Records, reads, and saves and prints the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reading", description=main.__doc__)
    parser.add_argument("--quick", action="store_true", help="a fifth of the steps, one turn")
    parser.add_argument("--only", nargs="+", choices=_DATA, default=list(_DATA))
    parser.add_argument("--directory", help="where to record; the system's temporary directory")
    parser.add_argument("--output", type=Path, default=_RESULTS, help="where results are saved")
    arguments = parser.parse_args()
    installs.ensure(_PEER)
    document: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "quick": arguments.quick,
        "machine": machine.describe(arguments.directory or tempfile.gettempdir()),
        "results": {},
    }
    for name in tqdm.tqdm(arguments.only, unit="dataset"):
        data = _DATA[name]
        if arguments.quick:
            steps = max(data.steps // _QUICKER, 2 * data.episode_steps)
            data = dataclasses.replace(data, steps=steps, random=data.random // _QUICKER)
        with tempfile.TemporaryDirectory(dir=arguments.directory) as folder:
            document["results"][name] = _measure(data, folder, 1 if arguments.quick else _TURNS)
    text = _markdown(document)
    arguments.output.mkdir(parents=True, exist_ok=True)
    stem = arguments.output / f"{document['date']}-reading"
    stem.with_suffix(".json").write_text(json.dumps(document, indent=1) + "\n")
    stem.with_suffix(".md").write_text(text)
    print(text)


def _measure(data: Data, folder: str, turns: int) -> dict[str, Any]:
    ours, theirs = os.path.join(folder, "ours", "1.0.0"), os.path.join(folder, "theirs")
    os.makedirs(theirs)
    about = {"workload": data.workload, "steps": data.steps, "episode_steps": data.episode_steps}
    _call("ours", call="record", path=ours, image_format=data.image_format, **about)
    _call(_PEER, call="record", path=theirs, **about)
    shards = list(Path(ours).glob("*.array_record-*"))
    some = {"count": data.random, "passes": _PASSES}
    calls: dict[str, dict[str, Any]] = {
        "sequential": {"call": "sequential", "path": ours, "passes": _PASSES},
        "sequential 1.2": {"call": "sequential", "path": theirs, "passes": 1},
        "fits": {"call": "at_random", "path": ours, "warm": True, "cache_bytes": _FITS, **some},
        "does not fit": {
            "call": "at_random",
            "path": ours,
            "warm": False,
            "cache_bytes": 0,
            **some,
        },
        "random 1.2": {"call": "at_random", "path": theirs, "warm": True, **some},
        "columns": {"call": "columns", "path": ours, "passes": _PASSES},
        "data_source": {"call": "data_source", "path": ours, "passes": 1},
    }
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in calls}
    for _ in range(turns):
        for name, call in calls.items():
            runs[name].append(_call(_PEER if name.endswith("1.2") else "ours", **call))
    results = {name: _summary(found) for name, found in runs.items()}
    return {
        **results,
        "steps": data.steps,
        "bytes": sum(path.stat().st_size for path in shards),
        "cat_s": _cat(shards),
    }


def _call(peer: str, **request: Any) -> dict[str, Any]:
    """Has a worker do something in the environment of a peer; returns what it printed."""
    if peer == "ours":
        command = [sys.executable, "-m", "benchmarks.reading_worker", json.dumps(request)]
        variables = {**os.environ, "PYTHONPATH": str(installs.ROOT)}
    else:
        command = installs.command(peer, "reading_worker", json.dumps(request))
        variables = {k: v for k, v in installs.variables(peer).items() if k != "PYTHONPATH"}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, cwd=installs.ROOT)
    if done.returncode:
        raise SystemExit(f"{request} failed with {peer}:\n{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns steps per second, of the median pass, and by how much memory grew."""
    times = [seconds for run in runs for seconds in run["times_s"]]
    grown = [run["memory_mb"][-1] - run["memory_mb"][0] for run in runs]
    return {
        "steps_per_s": runs[0]["steps"] / statistics.median(times),
        "memory_mb": statistics.median(run["memory_mb"][-1] for run in runs),
        "grown_mb": statistics.median(grown),
    }


def _cat(paths: list[Path]) -> float:
    """Returns the seconds that `cat` takes to read files, the best of five."""
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        # Through a pipe: cat notices that /dev/null is not read, on some systems.
        with subprocess.Popen(["cat", *paths], stdout=subprocess.PIPE) as cat:
            assert cat.stdout is not None
            while cat.stdout.read(1 << 20):
                pass
        times.append(time.perf_counter() - begin)
    return min(times)


# --- tables ----------------------------------------------------------------------------------------


def _markdown(document: dict[str, Any]) -> str:
    about = document["machine"]
    return "\n\n".join(
        [
            f"# Reading, {document['date']}",
            f"{about['cpu']}, {about['cores']} cores, Linux {about['kernel']}; load when it began "
            f"{about['load_average_at_start']:.1f}.",
            *(["**A quick run: start-up counts for more than it does.**"] * document["quick"]),
            "## Steps, against EnvLogger 1.2 (Riegeli)",
            _steps_table(document["results"]),
            "Steps per second; x is how many times more than EnvLogger 1.2's `Reader`, which reads its "
            "own log of the same steps. At random, all episodes fit into the cache, or only the last one "
            "does. An episode is one record: where it is not in the cache, one step of it takes reading "
            "all of it, or decompressing what lies before an image; of camera images, which are not "
            "compressed, it is read alone.",
            "## Columns, against `tfds.data_source`",
            _columns_table(document["results"]),
            "Megabytes are those of the arrays' files; `cat` reads the same files through a pipe. "
            "Memory is that of the process which reads in order, and by how much it grew from the "
            "second pass to the last.\n",
        ]
    )


def _steps_table(results: dict[str, Any]) -> str:
    headers = ["", "in order", "1.2", "x", "random, fits", "1.2", "x", "random, does not fit", "x"]
    rows = []
    for name, found in results.items():
        rate = {key: run["steps_per_s"] for key, run in found.items() if isinstance(run, dict)}
        rows.append(
            [
                name,
                report.number(rate["sequential"]),
                report.number(rate["sequential 1.2"]),
                _ratio(rate["sequential"], rate["sequential 1.2"], _DATA[name].sequential),
                report.number(rate["fits"]),
                report.number(rate["random 1.2"]),
                _ratio(rate["fits"], rate["random 1.2"], _RANDOM_FITS),
                report.number(rate["does not fit"]),
                _ratio(rate["does not fit"], rate["random 1.2"], _RANDOM_DOES_NOT_FIT),
            ]
        )
    return report.table(headers, rows)


def _columns_table(results: dict[str, Any]) -> str:
    headers = [
        "",
        "columns, steps/s",
        "data_source",
        "x",
        "MB/s",
        "cat, MB/s",
        "memory, MB",
        "grown",
    ]
    rows = []
    for name, found in results.items():
        rate = found["columns"]["steps_per_s"]
        rows.append(
            [
                name,
                report.number(rate),
                report.number(found["data_source"]["steps_per_s"]),
                _ratio(rate, found["data_source"]["steps_per_s"], _COLUMNS),
                report.number(found["bytes"] / 1e6 * rate / found["steps"]),
                report.number(found["bytes"] / 1e6 / found["cat_s"]),
                report.number(found["sequential"]["memory_mb"]),
                report.number(found["sequential"]["grown_mb"]),
            ]
        )
    return report.table(headers, rows)


def _ratio(ours: float, theirs: float, target: float) -> str:
    times = ours / theirs
    return f"{'✓' if times >= target else '✗'} {report.number(times)} (≥ {target:g})"


if __name__ == "__main__":
    main()
