# SPDX-License-Identifier: Apache-2.0
"""Runs the code of the documents as a reader would: block after block, in an empty directory."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]


def python_blocks(path: pathlib.Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE)


def test_the_code_blocks_run_one_after_the_other(tmp_path: pathlib.Path) -> None:
    names = ("README.md", "docs/reading.md", "docs/building.md", "docs/gymnasium.md")
    documents = [python_blocks(ROOT / name) for name in names]
    assert list(map(len, documents)) == [11, 5, 3, 3]
    blocks = [block for document in documents for block in document]
    script = tmp_path / "readme.py"
    script.write_text("\n\n".join(blocks))
    run = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=240
    )
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "data/catch/1.0.0/dataset_info.json").exists()


def test_the_files_that_the_documents_link_to_exist() -> None:
    for document in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)", document.read_text()):
            if "://" not in target:
                assert (document.parent / target).exists(), f"{document.name}: {target}"
