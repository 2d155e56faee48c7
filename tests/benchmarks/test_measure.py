# SPDX-License-Identifier: Apache-2.0
import subprocess
import sys
import time

import numpy as np
import pytest

from benchmarks import measure, meter, plan, report, targets, workloads


def test_summarize_is_in_microseconds():
    summary = measure.summarize(np.arange(1, 1001) * 1000)
    assert summary["mean"] == pytest.approx(500.5)
    assert summary["percentiles"]["50"] == pytest.approx(500.5)
    assert summary["percentiles"]["100"] == 1000


def test_median_goes_number_by_number_and_keeps_the_rest():
    runs = [{"a": {"b": n}, "name": "x", "is": True} for n in (1, 9, 2)]
    assert measure.median(runs) == {"a": {"b": 2}, "name": "x", "is": True}


def test_busy_environment_is_busy_as_long_as_it_says():
    environment = workloads.make("catch", 200_000, seed=0).environment
    environment.reset()
    times = []
    for _ in range(200):
        begin = time.perf_counter_ns()
        environment.step(0)
        times.append(time.perf_counter_ns() - begin)
    assert np.percentile(times, 10) == pytest.approx(200_000, rel=0.05)
    assert 0 < environment.cpu_ns <= 201 * 250_000


@pytest.mark.parametrize("episode_steps", [10, 100])
def test_pool_gives_episodes_of_the_length_asked_for(episode_steps):
    made = workloads.make("catch", 0, 0, episode_steps)
    for _ in range(3):
        timestep, length = made.environment.reset(), 1
        assert timestep.first()
        while not timestep.last():
            timestep = made.environment.step(next(made.actions))
            length += 1
        assert length == episode_steps


def test_the_same_seed_makes_the_same_workload():
    one, other = (workloads.make("control", 0, 7) for _ in range(2))
    first, second = one.environment.reset(), other.environment.reset()
    np.testing.assert_equal(first.observation, second.observation)
    np.testing.assert_array_equal(next(one.actions), next(other.actions))


def test_loop_subtracts_what_is_the_environments_own():
    made = workloads.make("catch", 50_000, seed=0)
    loop = measure.Loop(
        made.environment,
        made.environment,
        made.actions,
        lambda timestep: timestep.last(),
        300,
        begin_with_reset=True,
    )
    assert len(loop.added_ns) == 300
    assert np.median(loop.added_ns) < 25_000
    assert loop.wall_ns >= 300 * 49_000


def test_plain_loop_does_what_the_timed_one_does():
    calls = []

    class Environment:
        def reset(self):
            calls.append("reset")
            return 0

        def step(self, action):
            calls.append(action)
            return action

    loop = measure.PlainLoop(
        Environment(), iter(range(1, 100)), lambda n: n % 3 == 0, 7, begin_with_reset=False
    )

    assert calls == [1, 2, 3, "reset", "reset", "reset", "reset"]
    assert loop.wall_ns > 0


def test_meter_counts_a_process_that_detached_itself(tmp_path):
    busy = "import time\nwhile time.process_time() < 0.5: pass"
    detaching = (
        "import os\n"
        "if os.fork() == 0:\n"
        "  os.setsid()\n"
        "  if os.fork() == 0:\n"
        f"    exec({busy!r})\n"
        "os._exit(0)\n"
    )
    code = (
        f"import json, sys; sys.path[:] = {sys.path!r}\n"
        "from benchmarks import meter\n"
        f"used = meter.run([sys.executable, '-c', {detaching!r}], log=sys.stderr, "
        "sample_memory=True)\n"
        "print(used['cpu_s'], used['processes'], used['peak_memory_all_mb'], used['outlived_s'])"
    )
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout
    cpu_s, processes, memory_mb, outlived_s = map(float, printed.split())
    assert cpu_s >= 0.5
    assert processes >= 2
    assert memory_mb > 0
    assert outlived_s > 0.2


def test_meter_tells_of_failure(tmp_path):
    code = (
        f"import sys; sys.path[:] = {sys.path!r}\n"
        "from benchmarks import meter\n"
        "meter.run([sys.executable, '-c', 'raise SystemExit(3)'], log=sys.stderr, "
        "sample_memory=False)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "The command ended with 3." in done.stderr


def test_no_descendants_of_a_process_without_children():
    assert meter.memory_mb(meter.descendants(1 << 30)) == 0


def test_table_is_aligned():
    lines = report.table(("a", "b", "n"), [["x", "yy", "1"], ["xxx", "y", "23"]]).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[-1] == "| xxx | y  | 23 |"
    assert lines[1].endswith("---:|")


@pytest.mark.parametrize(
    ("value", "text"), [(0.1234, "0.12"), (12.34, "12.3"), (1234.5, "1,234"), (None, "-")]
)
def test_number(value, text):
    assert report.number(value) == text


def _row(peer, regime, mean, p999, cpu, rate):
    return {
        "peer": peer,
        "regime": regime,
        "workload": "catch",
        "mean_added_us": mean,
        "added": {"percentiles": {"99.9": p999}},
        "cpu_per_step_us": cpu,
        "steps_per_s": rate,
        "peak_memory_mb": 80,
        "start_up_s": 0.4,
    }


def test_targets_are_met_or_not():
    rows = [
        _row(plan.OURS, "paced", 1, 60, 3, 0),
        _row(plan.REFERENCE, "paced", 40, 170, 46, 0),
        _row(plan.OURS, "saturated", 1, 1, 1, 500_000),
        _row(plan.REFERENCE, "saturated", 1, 1, 1, 21_000),
    ]
    found = {(t.name, t.workload): t for t in targets.check(rows)}
    met = {name: target.is_met for (name, workload), target in found.items() if workload == "catch"}
    assert met == {
        "paced: mean time added per step": True,
        "paced: p99.9 added": False,
        "paced: CPU over all processes": True,
        "saturated: steps per second": False,
        "environment's process, peak resident": True,
        "start-up, import included": False,
    }
    assert found["paced: mean time added per step", "robot"].is_met is None
    assert "✓ 1/40 (≤ 1/25)" in report.targets_table(rows)


def test_peers_take_turns_and_episodes_are_whole():
    runs = list(plan.runs(["catch"], [plan.OURS, plan.REFERENCE], ["paced"], 2, True))
    assert [run.peer for run in runs] == [plan.OURS, plan.REFERENCE] * 2
    assert [run.seed for run in runs] == [1000, 1000, 1001, 1001]
    assert all((run.steps + 1) % plan.EPISODE_STEPS == 0 for run in runs)
    assert runs[0].steps == runs[1].steps
