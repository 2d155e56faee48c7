# SPDX-License-Identifier: Apache-2.0
"""`envlogger convert SRC [DST]`: converts logs and datasets of other kinds."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from envlogger.conversion import converting
from envlogger.tfds import dataset_files, shard_files


def add_parser(subparsers: Any) -> None:
    """Adds the subcommand to a parser."""
    parser = subparsers.add_parser(
        "convert",
        help="convert logs and datasets of other kinds",
        description="Converts a log of EnvLogger 1.x, a Minari dataset, or a dataset in RLDS form into "
        "a TFDS dataset in RLDS form. If it was killed, the same command goes on with what is missing.",
    )
    parser.add_argument("source", metavar="SRC", help="the directory of the log or dataset")
    parser.add_argument(
        "destination",
        metavar="DST",
        nargs="?",
        help="a new directory, such as data/<name>/1.0.0; without one (or with SRC again) the format "
        "is added to the dataset in SRC, beside the one that it has",
    )
    parser.add_argument(
        "--format",
        choices=tuple(shard_files.READERS),
        default=dataset_files.FILE_FORMAT,
        help="the file format (%(default)s)",
    )
    parser.add_argument(
        "--workers", metavar="N", type=int, default=1, help="processes that share the work"
    )
    parser.add_argument(
        "--max-episodes-per-file",
        metavar="N",
        type=int,
        default=1000,
        help="episodes in a shard (%(default)s), where records are not copied as they are",
    )
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    try:
        report = converting.convert(
            arguments.source,
            arguments.destination,
            file_format=arguments.format,
            workers=arguments.workers,
            max_episodes_per_file=arguments.max_episodes_per_file,
        )
    except KeyboardInterrupt:
        print("Interrupted. The same command goes on with what is missing.", file=sys.stderr)
        return 130
    print(report)
    return 0
