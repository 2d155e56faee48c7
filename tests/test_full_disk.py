# SPDX-License-Identifier: Apache-2.0
"""Where the disk is full, a step raises and is not stored; nothing else is lost."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

_PROGRAM = str(pathlib.Path(__file__).with_name("full_disk.py"))
_SIZE = 64 << 20


def _run(command, **options):
    result = subprocess.run(command, capture_output=True, text=True, timeout=280, **options)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "all is there" in result.stdout


def _can_mount() -> bool:
    command = [
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "mount",
        "-t",
        "tmpfs",
        "x",
        "/mnt",
    ]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("sealing", ["helper", "inline"])
def test_a_small_disk(tmp_path, sealing):
    """On a tmpfs in a name space of its own; where that is forbidden, files may not grow large."""
    program = [sys.executable, _PROGRAM, str(tmp_path), sealing]
    if not _can_mount():
        _run([*program, str(1 << 20)])
        return
    mount = f'mount -t tmpfs -o size={_SIZE} tmpfs "$1" && shift && exec "$@"'
    name_space = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh"]
    _run([*name_space, str(tmp_path), *program])
    assert os.listdir(tmp_path) == []  # all of it was on the small disk


@pytest.mark.parametrize("sealing", ["helper", "inline"])
def test_files_may_not_grow_large(tmp_path, sealing):
    _run([sys.executable, _PROGRAM, str(tmp_path), sealing, str(1 << 20)])
