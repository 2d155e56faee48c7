# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

import helpers
import pytest
import riegeli_samples

import envlogger
from envlogger.cli import main
from envlogger.testing.comparison import assert_same


@pytest.fixture
def log():
    return str(riegeli_samples.log("opt_zstd"))


def test_converts(log, tmp_path, capsys):
    target = tmp_path / "catch" / "1.0.0"
    assert main.main(["convert", log, str(target), "--max-episodes-per-file", "5"]) == 0
    output = capsys.readouterr()
    assert "converted: 12 episodes in 3 shards (array_record)" in output.out
    assert output.err == ""  # no bar where there is no terminal
    assert_same(helpers.read(target), helpers.read(log))


def test_adds_a_format_in_place(log, tmp_path, capsys):
    target = str(tmp_path / "catch" / "1.0.0")
    main.main(["convert", log, target, "--workers", "2"])
    assert main.main(["convert", target, target, "--format", "tfrecord"]) == 0
    assert "(tfrecord, array_record)" in capsys.readouterr().out
    assert main.main(["convert", target, "--format", "tfrecord"]) == 0
    assert "was converted before" in capsys.readouterr().out
    assert_same(helpers.read(target), helpers.read(log))


def test_what_cannot_be_is_said(tmp_path, capsys):
    assert main.main(["convert", str(tmp_path / "no"), str(tmp_path / "new")]) == 1
    assert capsys.readouterr().err.startswith("error: ")
    assert os.listdir(tmp_path) == []


def test_interrupted(log, tmp_path, capsys, monkeypatch):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("envlogger.conversion.tasks.encode", interrupt)
    assert main.main(["convert", log, str(tmp_path / "x")]) == 130
    assert "goes on" in capsys.readouterr().err
    monkeypatch.undo()
    assert main.main(["convert", log, str(tmp_path / "x")]) == 0
    assert_same(helpers.read(tmp_path / "x"), helpers.read(log))


_PROGRAM = "from envlogger.cli import main; main.main()"


def test_shows_a_bar_on_a_terminal(log, tmp_path):
    terminal, end = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, "convert", log, str(tmp_path / "x")],
        stdout=subprocess.DEVNULL,
        stderr=end,
    ) as process:
        os.close(end)
        shown = b""
        try:
            while data := os.read(terminal, 4096):
                shown += data
        except OSError:  # its way of saying that nobody has the other end
            pass
        os.close(terminal)
        assert process.wait(60) == 0
    assert re.search(rb"12/12 \[\d\d:\d\d<\d\d:\d\d, +[\d.]+ episodes/s\]", shown), shown


def test_the_function_is_there():
    assert envlogger.convert.__doc__
