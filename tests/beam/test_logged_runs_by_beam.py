# SPDX-License-Identifier: Apache-2.0
"""Builders over logged runs on Beam's DirectRunner: the same bits as without it."""

from __future__ import annotations

import helpers
import pytest
import riegeli_samples
import runs_builders
import sample_datasets
import snapshots
import tensorflow_datasets as tfds

import envlogger

pytestmark = pytest.mark.filterwarnings("ignore")  # Beam's and TFDS's own


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return runs_builders.record_runs(tmp_path_factory.mktemp("runs"))


def _options():
    beam = tfds.core.lazy_imports.apache_beam
    return beam.options.pipeline_options.PipelineOptions(["--runner=DirectRunner"])


@pytest.mark.parametrize(
    "kind", [runs_builders.Runs, runs_builders.SplitRuns, runs_builders.ChangedRuns]
)
def test_same_bits(kind, runs, tmp_path):
    here = runs_builders.build(kind, tmp_path / "here", runs, num_shards=3)
    there = runs_builders.build(
        kind, tmp_path / "there", runs, num_shards=3, beam_options=_options()
    )

    assert snapshots.contents(there) == snapshots.contents(here)


def test_records_are_copied(tmp_path):
    directory = runs_builders.build(
        runs_builders.Runs, tmp_path, [sample_datasets.GOLDEN], beam_options=_options()
    )

    copies = runs_builders.records(directory, "train")
    assert copies == runs_builders.records(sample_datasets.GOLDEN, "train")


def test_logs_of_envlogger_1(tmp_path):
    log = riegeli_samples.log("opt_brotli")
    directory = runs_builders.build(runs_builders.Runs, tmp_path, [log], beam_options=_options())

    with envlogger.Reader(log) as reader:
        expected = [list(episode) for episode in reader.episodes]
    got = helpers.read(directory)
    assert repr(helpers.sort_keys(got)) == repr(helpers.sort_keys(expected))
