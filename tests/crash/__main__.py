# SPDX-License-Identifier: Apache-2.0
"""Runs crash trials; see the package. Ends with 1 if anything was lost."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from typing import Any

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--trials", type=int, default=0, help="how many random trials to run")
    parser.add_argument("--first", type=int, default=0, help="the number of the first trial")
    parser.add_argument("--sweep", action="store_true", help="strike at each sub-step")
    parser.add_argument("--scenario", action="append", help="of the sweep; default: all")
    parser.add_argument("--every", type=int, default=1, help="only each so-many-th sub-step")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--directory", help="where to record; default: in memory")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        _work(json.loads(arguments.worker))
        return 0
    if not arguments.trials and not arguments.sweep:
        arguments.trials = 50
    return _coordinate(arguments)


def _coordinate(arguments: argparse.Namespace) -> int:
    """Spreads the work over processes; prints what they find."""
    root = tempfile.mkdtemp(prefix="envlogger-crash-", dir=arguments.directory or _fast_directory())
    tasks: list[dict[str, object]] = []
    if arguments.sweep:
        from tests.crash import sweep

        for name in arguments.scenario or sweep.SCENARIOS:
            tasks.append({"scenario": name, "every": arguments.every})
    last = arguments.first + arguments.trials
    tasks += [{"trial": number} for number in range(arguments.first, last)]
    reading, writing = os.pipe()
    workers = [
        _start({"root": os.path.join(root, str(i)), "tasks": tasks[i :: arguments.jobs]}, writing)
        for i in range(arguments.jobs)
    ]
    os.close(writing)
    done = losses = 0
    total = 0 if arguments.sweep else len(tasks)  # how many sub-steps there are shows in the end
    for line in os.fdopen(reading):
        result = json.loads(line)
        done += 1
        if result["problem"]:
            losses += 1
            print(f"\rLOSS in {result['what']}: {result['problem']}", flush=True)
        _show(done, total, losses)
    failed = [worker.wait() for worker in workers]
    shutil.rmtree(root, ignore_errors=True)
    print(f"{done} trials, {losses} losses")
    if any(failed) or (total and done != total):
        print("error: a worker failed; see above")
        return 1
    return 1 if losses else 0


def _fast_directory() -> str | None:
    """Returns a directory in memory, where fsync costs nothing: SIGKILL asks nothing of a disk."""
    path = "/dev/shm"
    is_large = os.access(path, os.W_OK) and shutil.disk_usage(path).free > 1 << 30
    return path if is_large else None


def _start(task: dict[str, object], results: int) -> subprocess.Popen[bytes]:
    # A process with threads must not be forked.
    env = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": _ROOT}
    worker = json.dumps({**task, "results": results})
    command = [sys.executable, "-m", "tests.crash", "--worker", worker]
    return subprocess.Popen(command, cwd=_ROOT, env=env, pass_fds=[results])


def _show(done: int, total: int, losses: int) -> None:
    if sys.stderr.isatty():
        share = f"{done}/{total}" if total else str(done)
        bar = "#" * (done * 40 // total) if total else ""
        sys.stderr.write(f"\r[{bar:<40}] {share} trials, {losses} losses ")
        sys.stderr.flush()
        if done == total:
            sys.stderr.write("\n")


def _work(task: dict[str, Any]) -> None:
    """Does a worker's share; prints a line of JSON for each result."""
    from tests.crash import sweep, trials
    from tests.crash.nursery import Nursery

    os.set_inheritable(task["results"], False)
    nursery = Nursery()
    for item in task["tasks"]:
        place = os.path.join(str(task["root"]), "task")
        shutil.rmtree(place, ignore_errors=True)
        os.makedirs(place)
        if "scenario" in item:
            for what, problem in sweep.run_scenario(
                nursery, item["scenario"], place, every=item["every"]
            ):
                _report(task, what, problem)
            continue
        problem = story = ""
        try:
            story = trials.run_trial(nursery, item["trial"], place)
        except Exception as error:
            problem = str(error) if isinstance(error, AssertionError) else repr(error)
        what = f"trial {item['trial']} ({story})"
        _report(task, what, problem)
    nursery.close()


def _report(task: dict[str, Any], what: str, problem: str) -> None:
    os.write(task["results"], json.dumps({"what": what, "problem": problem}).encode() + b"\n")


if __name__ == "__main__":
    sys.exit(main())
