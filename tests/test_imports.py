# SPDX-License-Identifier: Apache-2.0
"""What importing, recording and reading load; and which module may import which."""

from __future__ import annotations

import ast
import graphlib
import pathlib
import textwrap

import processes
import pytest

import envlogger

_PACKAGE = pathlib.Path(envlogger.__file__).parent

_HEAVY = {"tensorflow", "tensorflow_datasets", "apache_beam", "torch", "jax"}

# From top to bottom. Each module belongs to the longest prefix; it may import what is in its own layer
# and below. Imports inside functions count, too.
_LAYERS = (
    ("envlogger.cli", "envlogger.testing"),
    ("envlogger", "envlogger.tfds.building", "envlogger.tfds.loaders"),
    ("envlogger.backends", "envlogger.environment_wrapper"),
    ("envlogger.tfds", "envlogger.riegeli"),
    ("envlogger.tfds.schema",),
    ("envlogger.tfds.feature_json",),
    ("envlogger.tfds.features", "envlogger.tfds.structure"),
    (
        "envlogger.tfds.example",
        "envlogger.tfds.images",
        "envlogger.tfds.partial_record",
        "envlogger.tfds.png",
    ),
    ("envlogger.converters",),
    ("envlogger.options",),
    (
        "envlogger._lazy",
        "envlogger.closing",
        "envlogger.errors",
        "envlogger.fork_safe_lock",
        "envlogger.memory",
        "envlogger.step_data",
        "envlogger.varints",
        "envlogger.version",
        "envlogger.zstd",
    ),
)

_RECORD = """
    import numpy as np
    import dm_env
    from dm_env import specs

    import envlogger
    from envlogger.testing import catch_env

    class CatchOnCamera(catch_env.Catch):
        def observation_spec(self):
            board = super().observation_spec()
            return {"board": board, "image": specs.Array((8, 8, 3), np.uint8)}

        def _observation(self):
            image = np.full((8, 8, 3), 7, np.uint8)
            return {"board": super()._observation(), "image": image}

    with envlogger.EnvLogger(
        CatchOnCamera(),
        step_fn=lambda timestep, action, env: {"text": "step"},
        episode_fn=lambda timestep, action, env: {"text": "episode"},
        data_directory="catch/1.0.0",
    ) as env:
        for _ in range(3):
            timestep = env.reset()
            while not timestep.last():
                timestep = env.step(1)
"""

_READ = """
    import envlogger

    with envlogger.Reader("catch/1.0.0") as reader:
        assert len(reader.steps) == 30
        assert all(step.custom_data == {"text": "step"} for step in reader.steps)
        assert reader.steps[0].timestep.observation["image"].sum() == 7 * 8 * 8 * 3
        assert list(reader.episode_metadata()) == [{"text": "episode"}] * 3
"""


def _loaded_by(program, cwd):
    """Runs a program in a process of its own; returns which of the heavy packages it loaded."""
    program = textwrap.dedent(program) + f"\nimport sys; print(*({_HEAVY} & sys.modules.keys()))"
    return set(processes.python(program, cwd=cwd).stdout.split())


def test_importing_is_light(tmp_path):
    assert _loaded_by("import envlogger", tmp_path) == set()


def test_importing_the_tfds_extension_is_light(tmp_path):
    assert _loaded_by("import envlogger.tfds", tmp_path) == set()


def test_recording_and_reading_are_light(tmp_path):
    assert _loaded_by(_RECORD, tmp_path) == set()
    assert _loaded_by(_READ, tmp_path) == set()


_CONVERT = """
    import envlogger

    assert "convert" in dir(envlogger) and "tqdm" not in __import__("sys").modules
    assert envlogger.convert("catch/1.0.0", "copy/1.0.0", workers=2).num_episodes == 3
    envlogger.convert("copy/1.0.0", file_format="tfrecord")
"""


def test_converting_is_light(tmp_path):
    assert _loaded_by(_RECORD, tmp_path) == set()
    assert _loaded_by(_CONVERT, tmp_path) == set()
    assert _loaded_by(_READ.replace("catch/", "copy/"), tmp_path) == set()


def test_packages_and_modules_are_attributes(tmp_path):
    code = """
        import envlogger
        assert envlogger.riegeli.verify and envlogger.reader.Reader is envlogger.Reader
        assert envlogger.step_data.StepData is envlogger.StepData
    """
    assert _loaded_by(code, tmp_path) == set()


def test_what_is_loaded_is_noticed(tmp_path):
    assert _loaded_by("import tensorflow_datasets", tmp_path) == {"tensorflow_datasets"}


def _imports(path):
    """Yields the modules of this package that a file imports."""
    tree = ast.parse(path.read_text())
    if path.name == "__init__.py":
        # Names that the package imports when they are first used: type checkers see them at once.
        tree.body = [node for node in tree.body if not isinstance(node, ast.If)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            found = {f"{node.module}.{alias.name}" for alias in node.names}
            names = [node.module if name not in _MODULES else name for name in found]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] == "envlogger")


def _module_name(path):
    parts = path.relative_to(_PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


_MODULES = {_module_name(path): path for path in sorted(_PACKAGE.rglob("*.py"))}
_IMPORTS = {name: sorted(set(_imports(path))) for name, path in _MODULES.items()}


def _layer(module):
    prefixes = [
        (len(prefix), index)
        for index, layer in enumerate(_LAYERS)
        for prefix in layer
        if module == prefix or module.startswith(prefix + ".")
    ]
    return max(prefixes)[1]


@pytest.mark.parametrize("module", _MODULES)
def test_imports_point_down(module):
    for imported in _IMPORTS[module]:
        assert _layer(module) <= _layer(imported), f"{module} may not import {imported}"


def test_no_module_imports_itself_by_way_of_others():
    # `from package import module` counts as an import of the module alone.
    try:
        graphlib.TopologicalSorter(_IMPORTS).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" imports ".join(error.args[1]))
