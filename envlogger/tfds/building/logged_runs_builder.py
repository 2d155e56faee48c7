# SPDX-License-Identifier: Apache-2.0
"""The base class of TFDS builders over logged runs."""

from __future__ import annotations

import abc
import contextlib
import functools
import inspect
import itertools
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from envlogger import errors, step_data
from envlogger.converters import json_codec
from envlogger.tfds import dataset, dataset_files, index_file
from envlogger.tfds.building import documentation, encoding, engines, planning, runs
from envlogger.tfds.building.hooks import Hooks, LoggedEpisode

_HOOKS = ("filter_episode", "filter_step", "map_step", "map_episode", "split_of")


class _Info(tfds.core.DatasetInfo):  # type: ignore[misc]
    """A DatasetInfo that learns what the features are when the dataset has been made."""

    def learn(self, features: Any, metadata: Mapping[str, Any]) -> None:
        self._features = features
        self._metadata = tfds.core.MetadataDict(json_codec.encode(metadata))


class LoggedRunsBuilder(tfds.core.dataset_builder.FileReaderBuilder):  # type: ignore[misc]
    """A TFDS builder that makes one dataset of logged runs.

        class Builder(envlogger.tfds.LoggedRunsBuilder):
            VERSION = tfds.core.Version("1.0.0")
            SPLITS = {"train": 0.9, "test": 0.1}

            def sources(self, dl_manager, scratch):
                return ["~/runs/*/catch/1.0.0"]

    `tfds build`, or `Builder(data_dir=…).download_and_prepare()`, makes the dataset: ArrayRecord shards with
    the features of the runs, which `tfds.load`, `tfds.data_source` and `envlogger.Reader` read. Episodes are
    in the order of the sources. The same sources give the same bits, wherever the work is done: by Beam, if
    Beam's options or a runner are given (`--beam_pipeline_options=runner=DirectRunner`), otherwise here.

    Records are copied, byte for byte, unless `filter_step`, `map_step` or `map_episode` is there. These three
    see steps as they were logged: a step left out is as if it had not been recorded. Changed episodes are
    encoded as `EnvLogger` does, images as PNG unless all were stored raw.

    Description and citation are `DESCRIPTION` and `CITATION`, or else, as TFDS has it, `README.md` and
    `CITATIONS.bib` beside a module that is named `<name>_dataset_builder.py`.

    Attributes:
      DESCRIPTION: What the dataset is.
      CITATION: How to cite it, as BibTeX.
      SPLITS: The share of the episodes that each split gets; the split of an episode depends on its
        `episode_id` alone. Without it, and without `split_of`, episodes keep the split that they are in.
    """

    DESCRIPTION: ClassVar[str] = ""
    CITATION: ClassVar[str] = ""
    SPLITS: ClassVar[Mapping[str, float]] = {}

    @abc.abstractmethod
    def sources(self, dl_manager: Any, scratch: str) -> Iterable[str | os.PathLike[str]]:
        """Returns the runs: directories, directories above them, and globs.

        A run is a directory that `EnvLogger` recorded into, of this version or (Riegeli) of 1.x, or any
        other dataset in RLDS form, in ArrayRecord or TFRecord. What is named twice is taken once.

        Args:
          dl_manager: TFDS's `DownloadManager`: what `--manual_dir` says, and downloads.
          scratch: An empty directory, removed afterwards, for a builder that records its runs itself.
        """

    def filter_episode(self, episode: LoggedEpisode) -> bool:
        """Returns whether an episode is taken. It sees what was recorded."""
        return True

    def filter_step(self, step: step_data.StepData) -> bool:
        """Returns whether a step is taken."""
        return True

    def map_step(self, step: step_data.StepData) -> step_data.StepData:
        """Returns the step that is stored instead of one."""
        return step

    def map_episode(self, episode: LoggedEpisode) -> LoggedEpisode:
        """Returns the episode that is stored instead of one (`dataclasses.replace`), after all others."""
        return episode

    def split_of(self, episode: LoggedEpisode) -> str:
        """Returns the split that an episode, as it will be stored, goes to."""
        return episode.split

    def _info(self) -> tfds.core.DatasetInfo:
        info = _Info(
            builder=self,
            description=self.DESCRIPTION or self._beside("README.md") or type(self).__doc__,
            citation=self.CITATION or self._beside("CITATIONS.bib"),
        )
        info.set_file_format(dataset_files.FILE_FORMAT)
        return info

    def _beside(self, name: str) -> str:
        """Returns the text of a file beside the builder's module, if that is named as TFDS asks for."""
        try:
            module = pathlib.Path(inspect.getfile(type(self)))
        except (OSError, TypeError):  # typed into an interpreter
            return ""
        path = module.with_name(name)
        is_named = module.stem.endswith("_dataset_builder")
        return path.read_text(encoding="utf-8") if is_named and path.is_file() else ""

    def _download_and_prepare(self, dl_manager: Any, download_config: Any) -> None:
        directory = os.path.abspath(self.data_dir)  # where TFDS prepares it
        with _scratch(directory) as scratch:
            made = os.path.join(scratch, "runs")
            os.mkdir(made)
            engine: engines.Engine = engines.HereEngine()
            if download_config.beam_options or download_config.beam_runner:
                engine = engines.BeamEngine(
                    download_config.beam_runner, download_config.beam_options, scratch
                )
            self._prepare(
                runs.find(self.sources(dl_manager, made)), made, scratch, engine, download_config
            )

    def _prepare(
        self,
        paths: list[str],
        made: str,
        scratch: str,
        engine: engines.Engine,
        config: Any,
    ) -> None:
        hooks = self._hooks()
        choice = planning.Choice(hooks, self.SPLITS)
        found = encoding.open_runs(paths, hooks, engine, scratch)
        node, want = runs.unite(found)
        files = [file for run in found for file in run.files]
        surveys = engine.map(
            "Looking through", functools.partial(planning.survey, choice, found), files
        )
        splits = planning.plan(
            found,
            files,
            surveys,
            ignore_duplicates=config.ignore_duplicates,
            max_episodes=config.max_examples_per_split,
        )
        self._check_splits(splits, sum(len(survey.names) for survey in surveys))
        infos, shards = [], []
        for name, split in splits.items():
            info, of_split = self._cut(name, split, config.get_shard_config())
            infos.append(info)
            shards += of_split
        engine.map("Writing", functools.partial(planning.write, found, files, want), shards)
        if all(run.is_ours for run in found):
            state = os.path.join(os.fspath(self.data_dir), dataset.STATE)
            for name, split in splits.items():
                index_file.write(state, name, 0, split.step_counts)
        self.info.set_splits(tfds.core.splits.SplitDict(infos))
        features = tfds.features.FeaturesDict.from_json(documentation.document(node))
        for name, text in found[0].texts.items():
            with open(os.path.join(scratch, name), "w", encoding="utf-8") as file:
                file.write(text)
        features.load_metadata(scratch, feature_name=None)
        self.info.learn(
            features,
            runs.unite_metadata(found, made, keep_specs=not (hooks.map_step or hooks.map_episode)),
        )

    def _hooks(self) -> Hooks:
        """Returns the hooks that the subclass has."""
        found: dict[str, Callable[..., Any]] = {
            name: getattr(self, name)
            for name in _HOOKS
            if getattr(type(self), name) is not getattr(LoggedRunsBuilder, name)
        }
        return Hooks(**found)

    def _check_splits(self, splits: Mapping[str, planning.Split], num_episodes: int) -> None:
        if not splits:
            raise errors.DatasetError(
                f"{self.name}: no episode of {num_episodes} is left. Name other sources, or let "
                "filter_episode keep some."
            )
        if empty := [split for split in self.SPLITS if split not in splits]:
            raise errors.DatasetError(
                f"{self.name}: of {num_episodes} episodes none falls into the split {empty[0]!r}, and TFDS "
                "cannot read an empty one. Add episodes, or give it a larger fraction."
            )

    def _cut(
        self, name: str, split: planning.Split, shard_config: Any
    ) -> tuple[Any, list[planning.Shard]]:
        """Returns TFDS's description of a split, and its shards."""
        count = len(split.places)
        num_shards = min(shard_config.get_number_shards(split.num_bytes, count), count)
        bounds = [round(count * index / num_shards) for index in range(num_shards + 1)]
        template = self._get_filename_template(split_name=name)
        lengths, shards = [], []
        for index, (start, stop) in enumerate(itertools.pairwise(bounds)):
            path = template.sharded_filepath(shard_index=index, num_shards=num_shards)
            shards.append(planning.Shard(os.path.abspath(path), split.places[start:stop]))
            lengths.append(stop - start)
        info = tfds.core.SplitInfo(
            name=name,
            shard_lengths=lengths,
            num_bytes=split.num_bytes,
            filename_template=template,
        )
        return info, shards


@contextlib.contextmanager
def _scratch(directory: str) -> Iterator[str]:
    """Gives a directory on the same file system, which Beam's workers see as well."""
    path = tempfile.mkdtemp(prefix="incomplete.scratch-", dir=directory)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


__all__ = ["LoggedRunsBuilder"]
