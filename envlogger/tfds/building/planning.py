# SPDX-License-Identifier: Apache-2.0
"""Which episodes a dataset has, in which splits and in which shards."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import math
import operator
from collections.abc import Iterator, Mapping, Sequence

from envlogger import errors
from envlogger.tfds import dataset_files, record, schema, shard_files
from envlogger.tfds.building.episodes import RecordDecoder, identity
from envlogger.tfds.building.hooks import Hooks
from envlogger.tfds.building.runs import RecordFile, Run


@dataclasses.dataclass(frozen=True)
class Choice:
    """How the split of an episode is chosen.

    Attributes:
      hooks: The builder's.
      fractions: The share of the episodes that each split gets; empty where another rule says it.
    """

    hooks: Hooks
    fractions: Mapping[str, float]

    def __post_init__(self) -> None:
        """Refuses fractions that are none.

        Raises:
          OptionError: See there.
        """
        for split in self.fractions:
            dataset_files.check_split_name(split)
        values = self.fractions.values()
        if values and not (min(values) > 0 and math.isclose(math.fsum(values), 1)):
            raise errors.OptionError(
                f"SPLITS: got {dict(self.fractions)}, expected fractions above 0 that come to 1, such as "
                "{'train': 0.9, 'test': 0.1}."
            )
        if self.fractions and self.hooks.split_of is not None:
            raise errors.OptionError(
                "SPLITS: got fractions, but the builder has a split_of, too. Leave one of them out."
            )

    def by_fraction(self, name: str) -> str:
        """Returns the split of an episode; it depends on nothing but its name and the fractions."""
        digest = hashlib.blake2b(name.encode(errors="surrogateescape"), digest_size=8).digest()
        place = int.from_bytes(digest, "big") / 2**64
        for split, fraction in self.fractions.items():
            if place < fraction:
                return split
            place -= fraction
        return split  # the fractions come to a bit less than 1


@dataclasses.dataclass
class Survey:
    """What is to be known of the records of a file to plan with them.

    Attributes:
      splits: The split of each; None for a record that is left out.
      names: What names the episode.
      digests: What tells its record from others.
      sizes: The size in bytes.
      step_counts: The number of steps; 0 where EnvLogger did not record it.
    """

    splits: list[str | None] = dataclasses.field(default_factory=list)
    names: list[str] = dataclasses.field(default_factory=list)
    digests: list[bytes] = dataclasses.field(default_factory=list)
    sizes: list[int] = dataclasses.field(default_factory=list)
    step_counts: list[int] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Split:
    """The episodes of a split, in order.

    Attributes:
      places: The number of the file, and that of the record in it.
      num_bytes: The size of all records.
      step_counts: The number of steps of each.
    """

    places: list[tuple[int, int]] = dataclasses.field(default_factory=list)
    num_bytes: int = 0
    step_counts: list[int] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Shard:
    """A shard that is to be written.

    Attributes:
      path: The file.
      places: Where its records are, as in `Split`.
    """

    path: str
    places: Sequence[tuple[int, int]]


def survey(choice: Choice, runs: Sequence[Run], file: RecordFile) -> Survey:
    """Looks through the records of a file.

    Raises:
      CorruptDatasetError: The file is missing or damaged.
      OptionError: A split has a name that TFDS cannot read.
    """
    run, hooks = runs[file.run], choice.hooks
    # What is changed was filtered before.
    keep = None if hooks.change_records else hooks.filter_episode
    decoder = None
    if keep is not None or hooks.split_of is not None:
        decoder = RecordDecoder(run.path, run.schema, run.own_metadata)
    found = Survey()
    for content in shard_files.read_all(file.path, file.file_format, file.num_records):
        name = identity(content)
        split: str | None = file.split
        if choice.fractions:
            split = choice.by_fraction(name)
        if decoder is not None:
            episode, _ = decoder.decode(content, file.split)
            if keep is not None and not keep(episode):
                split = None
            elif hooks.split_of is not None:
                split = hooks.split_of(episode)
                if not isinstance(split, str):
                    raise errors.OptionError(
                        f"split_of: got {split!r} for the episode {name}, expected the name of a split. "
                        "To leave it out, use filter_episode."
                    )
                dataset_files.check_split_name(split)
        found.splits.append(split)
        found.names.append(name)
        found.digests.append(hashlib.blake2b(content, digest_size=16).digest())
        found.sizes.append(len(content))
        found.step_counts.append(record.count_steps(content, run.schema) if run.is_ours else 0)
    return found


def plan(
    runs: Sequence[Run],
    files: Sequence[RecordFile],
    surveys: Sequence[Survey],
    *,
    ignore_duplicates: bool,
    max_episodes: int | None,
) -> dict[str, Split]:
    """Returns the splits of a dataset, each with its episodes in the order of the sources.

    Args:
      runs: The runs.
      files: Their files.
      surveys: What was found in each of these.
      ignore_duplicates: Whether an episode that is there twice is taken once; otherwise it is an error.
      max_episodes: How many episodes a split has at most.

    Raises:
      DatasetError: An episode is there twice.
    """
    splits: dict[str, Split] = {}
    seen: dict[tuple[str, bytes], int] = {}
    for number, (file, found) in enumerate(zip(files, surveys, strict=True)):
        for index, split in enumerate(found.splits):
            if split is None:
                continue
            if runs[file.run].is_ours:  # others' episodes may be equal by chance
                # An id that a caller gave need not be unique.
                key = (found.names[index], found.digests[index])
                first = seen.setdefault(key, file.run)
                if first != file.run and ignore_duplicates:
                    continue
                if first != file.run:
                    raise errors.DatasetError(
                        f"{runs[file.run].path}: the episode {found.names[index]} is in {runs[first].path} "
                        "as well. Name one of the two, or build with ignore_duplicates."
                    )
            to = splits.setdefault(split, Split())
            if max_episodes is None or len(to.places) < max_episodes:
                to.places.append((number, index))
                to.num_bytes += found.sizes[index]
                to.step_counts.append(found.step_counts[index])
    return splits


def write(
    runs: Sequence[Run], files: Sequence[RecordFile], want: schema.Schema | None, shard: Shard
) -> None:
    """Writes a shard: records as they are, but for features that their run does not have.

    Args:
      runs: The runs.
      files: Their files.
      want: What to adapt the records to; None to copy them.
      shard: The shard.

    Raises:
      CorruptDatasetError: A file of a run is missing or damaged.
      OSError: The shard could not be written.
    """
    writer: shard_files.ShardWriter | None = None
    try:
        for content in _read(runs, files, want, shard):
            if writer is None:
                writer = shard_files.open_writer(shard.path, dataset_files.FILE_FORMAT, content)
            writer.add(content)
        assert writer is not None, "a shard has records"
        writer.close()
    except BaseException:
        if writer is not None:
            writer.abandon()
        raise


def _read(
    runs: Sequence[Run], files: Sequence[RecordFile], want: schema.Schema | None, shard: Shard
) -> Iterator[bytes]:
    for number, places in itertools.groupby(shard.places, operator.itemgetter(0)):
        file = files[number]
        reader = shard_files.READERS[file.file_format](file.path, file.num_records)
        with contextlib.closing(reader):
            for _, index in places:
                content = reader.read(index)
                if want is not None:
                    content = record.adapt(content, runs[file.run].schema, want)
                yield content
