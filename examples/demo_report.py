# SPDX-License-Identifier: Apache-2.0
"""The demo's tables and its picture."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

import demo_loading
import matplotlib as mpl
import numpy as np

mpl.use("Agg")  # no display
from matplotlib import pyplot as plt
from matplotlib import ticker

_BLUE, _ORANGE, _GREY = "#1f6f8b", "#e07a1f", "#9aa5b1"


def print_dataset(run: demo_loading.Run, element_spec: dict[str, Any]) -> None:
    """Prints what an element looks like and the first and last steps of an episode."""
    print(f"\n{run.name}: tfds.load(...).element_spec")
    episode = {key: spec for key, spec in element_spec.items() if key != "steps"}
    rows = leaf_rows(episode, "")
    rows.append(("steps", "tf.data.Dataset of", ""))
    rows += leaf_rows(element_spec["steps"].element_spec, "  ")
    print_table(("feature", "dtype", "shape"), rows, align="<<<")

    last = len(run.steps["reward"]) - 1
    names = [name for name in run.steps if not name.startswith("is_")]
    rows = []
    for t in (0, 1, 2, last - 1, last):
        flags = [name for name in ("first", "last", "terminal") if run.steps[f"is_{name}"][t]]
        rows.append((str(t), *(show(run.steps[n][t]) for n in names), " ".join(flags)))
    rows.insert(3, ("…",) + ("",) * (len(names) + 1))
    titles = [name.removeprefix("observation/") for name in names]
    print(
        f"\n{run.name}: steps of the first episode (action, reward, discount of the last: padding)"
    )
    print_table(("t", *titles, "is"), rows, align=">" * (len(names) + 1) + "<")


def leaf_rows(spec: dict[str, Any], indent: str) -> list[tuple[str, ...]]:
    """Returns path, dtype and shape of each leaf."""
    leaves = demo_loading.flatten(spec, indent).items()
    return [(path, leaf.dtype.name, str(leaf.shape)) for path, leaf in leaves]


def print_totals(runs: Sequence[demo_loading.Run]) -> None:
    """Prints one line for each dataset."""
    print("\nTotals")
    titles = ("dataset", "episodes", "transitions", "length", "return: mean", "least", "most")
    rows = [
        (
            run.name,
            f"{len(run.returns):,}",
            f"{run.lengths.sum():,}",
            f"{run.lengths.mean():,.1f}",
            f"{run.returns.mean():.2f}",
            f"{run.returns.min():.2f}",
            f"{run.returns.max():.2f}",
            f"{run.num_terminal:,}",
        )
        for run in runs
    ]
    print_table((*titles, "terminal"), rows, align="<" + ">" * len(titles))


def print_table(titles: Sequence[str], rows: Sequence[Sequence[str]], align: str) -> None:
    """Prints aligned columns; `align` has `<` or `>` for each."""
    widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
    for row in (titles, ["─" * width for width in widths], *rows):
        cells = [f"{cell:{a}{w}}" for cell, a, w in zip(row, align, widths, strict=True)]
        print(f"  {'  '.join(cells)}".rstrip())


def show(value: Any) -> str:
    """Returns a step's value in little room."""
    value = np.asarray(value)
    if value.ndim == 0:
        return f"{value:.3f}" if value.dtype.kind == "f" else str(value)
    if value.ndim == 1:
        return " ".join(f"{x:.2f}" for x in value[:2]) + (" …" if len(value) > 2 else "")
    return f"({' x '.join(map(str, value.shape))})"


def draw(runs: Sequence[demo_loading.Run], path: pathlib.Path) -> None:
    """Draws returns, lengths and a trace, a row for each dataset."""
    figure, axes = plt.subplots(
        len(runs), 3, figsize=(15, 4.2 * len(runs)), width_ratios=(1, 1, 1.3), squeeze=False
    )
    draw_trace = {"walker_walk": draw_walker_trace, "bsuite_catch": draw_catch_trace}
    for (returns, lengths, trace), run in zip(axes, runs, strict=True):
        draw_returns(returns, run)
        draw_lengths(lengths, run)
        draw_trace[run.name](trace, run)
        for axis in (returns, lengths):
            axis.set_xlim(0, len(run.returns) + 1)
            axis.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
        for axis in (returns, lengths, trace):
            axis.spines[["top", "right"]].set_visible(False)
            axis.grid(axis="y", color="#e4e7eb")
            axis.set_axisbelow(True)
    total = sum(len(run.returns) for run in runs)
    figure.suptitle(f"A random agent, {total} episodes, read by tfds.load", fontweight="bold")
    figure.tight_layout(h_pad=2.5, w_pad=2.5)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def draw_returns(axis: Any, run: demo_loading.Run) -> None:
    """Draws each episode's return and the mean so far."""
    episodes = np.arange(1, len(run.returns) + 1)
    axis.plot(episodes, run.returns, "o", color=_BLUE, markersize=4, alpha=0.7, label="episode")
    mean = np.cumsum(run.returns) / episodes
    axis.plot(episodes, mean, color=_ORANGE, linewidth=2, label="mean so far")
    axis.set(title=f"{run.name}: returns", xlabel="episode", ylabel="sum of rewards")
    axis.margins(y=0.25)  # room for the legend
    axis.legend(frameon=False, ncols=2, loc="upper center")


def draw_lengths(axis: Any, run: demo_loading.Run) -> None:
    """Draws each episode's number of transitions."""
    episodes = np.arange(1, len(run.lengths) + 1)
    axis.bar(episodes, run.lengths, width=0.8 if len(episodes) <= 50 else 1, color=_GREY)
    axis.set(title=f"{run.name}: lengths", xlabel="episode", ylabel="transitions")
    axis.set_ylim(0, run.lengths.max() * 1.15)


def draw_walker_trace(axis: Any, run: demo_loading.Run) -> None:
    """Draws the torso's height and the walker's speed in the first episode."""
    height, speed = run.steps["observation/height"], run.steps["speed"]
    axis.plot(height, color=_BLUE, zorder=3, label="torso height (m), observation")
    axis.plot(speed, color=_ORANGE, linewidth=0.8, label="speed (m/s), step metadata")
    axis.set(title=f"{run.name}: the first episode", xlabel="step", ylabel="m, m/s")
    axis.margins(y=0.25)
    axis.legend(frameon=False, loc="upper right")


def draw_catch_trace(axis: Any, run: demo_loading.Run) -> None:
    """Draws the columns of ball and paddle in the first episode, read off the boards."""
    boards = run.steps["observation"]  # (steps, rows, columns)
    steps = np.arange(len(boards))
    paddle = boards[:, -1].argmax(axis=-1)
    # In the last step the ball is in the paddle's row: it is where the paddle isn't, if anywhere.
    rows = boards.copy()
    rows[steps, -1, paddle] -= 0.5
    ball = rows.reshape(len(boards), -1).argmax(axis=-1) % boards.shape[-1]
    axis.step(steps, ball, "o-", where="mid", color=_BLUE, label="ball")
    axis.step(steps, paddle, "s-", where="mid", color=_ORANGE, markersize=4, label="paddle")
    outcome = "caught" if run.returns[0] > 0 else "missed"
    axis.set(title=f"{run.name}: the first episode, {outcome}", xlabel="step", ylabel="column")
    axis.set(xticks=steps, yticks=range(boards.shape[-1]), ylim=(-0.5, boards.shape[-1] + 0.3))
    axis.legend(frameon=False, ncols=2, loc="upper right")
