# SPDX-License-Identifier: Apache-2.0
"""Shows what a directory that `EnvLogger` wrote holds: specs, metadata, totals, the first steps.

    python examples/read_episodes.py demo_data/bsuite_catch/1.0.0

Needs no TensorFlow.
"""

from __future__ import annotations

import argparse
import pprint
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

import envlogger


def main(argv: Sequence[str] | None = None) -> None:
    """Reads as the command line says."""
    parser = argparse.ArgumentParser(description="Shows what EnvLogger recorded.")
    parser.add_argument("directory", help="what was passed to EnvLogger as data_directory")
    parser.add_argument("--split", help="the split to read (all of them)")
    parser.add_argument("--steps", type=int, default=3, help="how many steps to show (%(default)s)")
    args = parser.parse_args(argv)
    if args.steps < 0:
        parser.error(f"--steps: got {args.steps}, expected at least 0")

    try:
        with envlogger.Reader(args.directory, args.split) as reader:
            show_specs(reader)
            show_metadata(reader)
            show_totals(reader)
            show_steps(reader, args.steps)
    except envlogger.errors.EnvLoggerError as error:
        sys.exit(f"error: {error}")


def show_specs(reader: envlogger.Reader) -> None:
    """Prints the environment's specs."""
    print("Specs")
    for name in ("observation", "action", "reward", "discount"):
        for path, spec in flatten(getattr(reader, f"{name}_spec")(), name):
            print(f"  {path:<28} {spec}")


def show_metadata(reader: envlogger.Reader) -> None:
    """Prints the metadata of the dataset and of its first episode."""
    metadata = {k: v for k, v in reader.metadata().items() if k != "environment_specs"}
    print("\nMetadata of the dataset")
    print(f"  {pprint.pformat(metadata, width=90, compact=True)}".replace("\n", "\n  "))
    if reader.episodes:
        print("\nMetadata of the first episode")
        print(f"  {reader.episode_metadata()[0]}")


def show_totals(reader: envlogger.Reader) -> None:
    """Prints how much there is, and how episodes end."""
    lengths = np.array([len(episode) for episode in reader.episodes])
    print("\nTotals")
    print(f"  {len(lengths)} episodes, {len(reader.steps)} steps")
    if len(lengths):
        print(f"  episode length: {lengths.min()} to {lengths.max()}, mean {lengths.mean():.1f}")
        ended = sum(episode[-1].timestep.last() for episode in reader.episodes)
        print(f"  {ended} of the episodes end with a LAST step")


def show_steps(reader: envlogger.Reader, num_steps: int) -> None:
    """Prints the first steps, as they were logged."""
    for index, step in enumerate(reader.steps[:num_steps]):
        print(f"\nStep {index}: {step.timestep.step_type.name}")
        values = {
            "observation": step.timestep.observation,
            "reward": step.timestep.reward,
            "discount": step.timestep.discount,
            "action": step.action,
            "custom_data": step.custom_data,
        }
        for path, value in flatten(values):
            print(f"  {path:<28} {describe(value)}")


def describe(value: Any) -> str:
    """Returns a value in a few lines."""
    array = np.asarray(value)
    if array.ndim == 0:
        return str(value)
    if array.ndim > 2:
        return f"{array.dtype} of shape {array.shape}, from {array.min()} to {array.max()}"
    return np.array2string(array, threshold=60, precision=4, max_line_width=100, prefix=" " * 31)


def flatten(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the leaves of a nest of dicts, lists and tuples, each with its path."""
    if isinstance(value, Mapping):
        items = list(value.items())
    elif isinstance(value, list | tuple):
        items = list(enumerate(value))
    else:
        yield path, value
        return
    for key, item in items:
        yield from flatten(item, f"{path}/{key}" if path else str(key))


if __name__ == "__main__":
    main()
