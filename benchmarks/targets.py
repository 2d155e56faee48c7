# SPDX-License-Identifier: Apache-2.0
"""What recording is to reach, against EnvLogger 1.2 in the same run."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from benchmarks import plan

# Name, regime, the number compared, is more better, bounds in the order of plan.POOLED: ours is to be
# at most 1/bound, or at least bound times, the reference's.
_RATIOS = (
    ("paced: mean time added per step", "paced", "mean", False, (25, 25, 15, 40)),
    ("paced: p99.9 added", "paced", "p99.9", False, (3, 3, 10, 15)),
    ("paced: CPU over all processes", "paced", "cpu", False, (12, 9, 4, 5)),
    ("saturated: steps per second", "saturated", "rate", True, (25, 25, 5, 5)),
)


@dataclasses.dataclass(frozen=True)
class Target:
    """A number to reach.

    Attributes:
      reached: What was measured, as text.
      bound: What was to be reached, as text.
      is_met: None where it was not measured.
    """

    name: str
    workload: str
    reached: str
    bound: str
    is_met: bool | None


def value(row: dict[str, Any], number: str) -> float:
    """Returns one of the compared numbers of a result."""
    if number == "mean":
        return float(row["mean_added_us"])
    if number == "cpu":
        return float(row["cpu_per_step_us"])
    if number == "rate":
        return float(row["steps_per_s"])
    return float(row["added"]["percentiles"][number.removeprefix("p")])


def ratio(row: dict[str, Any], reference: dict[str, Any] | None, number: str) -> float | None:
    """Returns how many times better than the reference `row` is; None if that says nothing."""
    if reference is None:
        return None
    own, other = value(row, number), value(reference, number)
    if own <= 0 or other <= 0:
        return None
    return own / other if number == "rate" else other / own


def check(rows: list[dict[str, Any]]) -> Iterator[Target]:
    """Yields every target with what `rows`, the results, show of it."""
    found = {(row["regime"], row["workload"], row["peer"]): row for row in rows}
    for name, regime, number, is_more, bounds in _RATIOS:
        for workload, bound in zip(plan.POOLED, bounds, strict=True):
            own = found.get((regime, workload, plan.OURS))
            reference = found.get((regime, workload, plan.REFERENCE))
            times = ratio(own, reference, number) if own else None
            form = "{} x" if is_more else "1/{}"
            yield Target(
                name,
                workload,
                "-" if times is None else form.format(f"{times:.{0 if times >= 10 else 1}f}"),
                ("≥ " if is_more else "≤ ") + form.format(bound),
                None if times is None else times >= bound,
            )
    yield from _absolute(found)


def _absolute(found: dict[tuple[str, str, str], dict[str, Any]]) -> Iterator[Target]:
    catch = found.get(("paced", "catch", plan.OURS))
    for name, key, bound, unit in (
        ("environment's process, peak resident", "peak_memory_mb", 100, "MB"),
        ("start-up, import included", "start_up_s", 0.3, "s"),
    ):
        got = None if catch is None else catch[key]
        yield Target(
            name,
            "catch",
            "-" if got is None else f"{got:.3g} {unit}",
            f"≤ {bound} {unit}",
            None if got is None else got <= bound,
        )
    own, reference = (found.get(("real", "humanoid", peer)) for peer in (plan.OURS, plan.REFERENCE))
    part = own["disk_bytes_per_step"] / reference["disk_bytes_per_step"] if own and reference else 0
    yield Target(
        "bytes on disk, of EnvLogger 1.2's",
        "humanoid",
        f"{part:.2f} x" if part else "-",
        "≤ 1 x",
        part <= 1 if part else None,
    )
