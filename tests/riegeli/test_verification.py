# SPDX-License-Identifier: Apache-2.0
"""`verify` finds what is wrong, and nothing else."""

from __future__ import annotations

import os
import shutil

import damage
import pytest
import riegeli_samples as samples

from envlogger import errors, riegeli
from envlogger.riegeli import records_file


@pytest.mark.parametrize("case", [*samples.CASES, "images"])
def test_nothing_is_wrong_with_whole_logs(case):
    assert riegeli.verify(samples.log(case)) == []


@pytest.mark.parametrize("case", samples.KILLED)
def test_what_a_kill_left_is_said(case):
    (problem,) = riegeli.verify(samples.log(case))
    assert "its writer was killed" in problem


@pytest.mark.parametrize(
    "path", sorted(samples.log("catch_default").rglob("*.riegeli")), ids=lambda p: p.name
)
def test_every_flipped_bit_is_found(tmp_path, path):
    target = shutil.copytree(samples.log("catch_default"), tmp_path / "log")
    path = target / path.relative_to(samples.log("catch_default"))
    raw = path.read_bytes()
    with records_file.RecordsFile(path) as file:
        # Padding has no hash; block headers are only looked at where they are needed.
        checked = [
            (24, 64),
            *((c.begin, c.begin + 40 + c.data_size) for c in list(file.scan())[1:]),
        ]
    for begin, end in checked:
        for at in range(begin, end, (end - begin) // 7 + 1):
            path.write_bytes(raw[:at] + bytes([raw[at] ^ 4]) + raw[at + 1 :])
            assert any(f"{path}, offset " in problem for problem in riegeli.verify(target))


def test_all_problems_are_listed(tmp_path):
    target = shutil.copytree(samples.log("opt_transpose_tinychunk"), tmp_path / "log")
    first, second = sorted(target.glob("*/steps.riegeli"))
    with records_file.RecordsFile(first) as file:
        begins = [chunk.begin for chunk in file.scan()]
    damage.flip(first, begins[3] + 45, begins[9] + 45)
    os.truncate(second, second.stat().st_size - 5)
    problems = "\n".join(riegeli.verify(target))
    for begin in (begins[3], begins[9]):
        assert f"{first}, offset {begin}: the data of the chunk does not fit its hash" in problems
    assert (
        f"{first}, offset {begins[3]}: the index refers to a record that is not there" in problems
    )
    assert "the file ends within this chunk" in problems
    assert "ends early: the last" in problems


def test_other_directories_are_refused(tmp_path):
    with pytest.raises(errors.DatasetError, match=r"that EnvLogger 1\.x wrote"):
        riegeli.verify(tmp_path)
