# SPDX-License-Identifier: Apache-2.0
"""Environments of their own for the peers, in `.venv-bench/` of the checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_FOLDER = ROOT / ".venv-bench"
# The newest Python that EnvLogger 1.2 has a wheel for; everything runs on it.
_PYTHON = (3, 11)
_REAL_ENVIRONMENT = ("dm_control>=1.0.30", "mujoco<4")
_TENSORFLOW = (
    "tensorflow-datasets==4.9.10",
    "tensorflow>=2.20,<2.22",
    "importlib_resources",  # TFDS imports it and does not declare it
)
REQUIREMENTS: dict[str, tuple[str, ...]] = {
    "ours": ("-e", str(ROOT), *_REAL_ENVIRONMENT),
    "envlogger-1.2": ("envlogger==1.2", "numpy<2", "protobuf<6", *_REAL_ENVIRONMENT),
    "tfds": (*_TENSORFLOW, *_REAL_ENVIRONMENT),
    "rlds": ("rlds==0.1.8", *_TENSORFLOW, *_REAL_ENVIRONMENT),
    # `create` brings JAX, which recording imports; Pillow it imports, too, and does not declare.
    "minari": ("minari[create,hdf5]==0.5.*", "pillow", *_REAL_ENVIRONMENT),
    # What these programs themselves need.
    "report": ("matplotlib>=3.8", "numpy", "tqdm>=4.66"),
    "growth": ("-e", str(ROOT), "matplotlib>=3.8", "tqdm>=4.66"),
    "codecs": (
        "imagecodecs",
        "isal>=1.7",
        "numpy",
        "opencv-python-headless>=4.8",
        "pillow",
        "tqdm>=4.66",
    ),
}
# Run in a peer's environment: the checkout comes last on the path, so that `import envlogger`
# finds what is installed there, and `-P` keeps the current directory off it.
_BOOTSTRAP = (
    "import sys; sys.path.append({root!r}); from benchmarks import {module}; {module}.main()"
)
# EnvLogger 1.2's wheel needs the C++ half of GMP, which it does not bring along.
_GMP = ("libgmpxx.so.4", "libgmpxx4ldbl")


def command(name: str, module: str, *arguments: str) -> list[str]:
    """Returns the command that runs `benchmarks.<module>` in the environment called `name`."""
    return [str(_python_of(name)), "-P", "-c", _bootstrap(module), *arguments]


def variables(name: str) -> dict[str, str]:
    """Returns the environment variables to run it with."""
    found = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"}
    found.pop("PYTHONPATH", None)  # it would hide what is installed
    libraries = [str(path.parent) for path in (_FOLDER / name / "debian").rglob(_GMP[0])]
    if libraries:
        found["LD_LIBRARY_PATH"] = ":".join([*libraries, os.environ.get("LD_LIBRARY_PATH", "")])
    return found


def ensure(name: str) -> None:
    """Makes the environment called `name`, unless it is there with these requirements."""
    stamp = _FOLDER / name / "installed.json"
    wanted = json.dumps([*REQUIREMENTS[name], _own_requirements(name)])
    if not stamp.is_file() or stamp.read_text() != wanted:
        _install(name, stamp, wanted)
    if "-e" in REQUIREMENTS[name]:
        # As pip does with what it copies: otherwise each process might compile the sources anew.
        _call([str(_python_of(name)), "-m", "compileall", "-q", str(ROOT / "envlogger")])


def _install(name: str, stamp: Path, wanted: str) -> None:
    print(f"Installing {name} into {stamp.parent.relative_to(ROOT)} …", flush=True)
    shutil.rmtree(stamp.parent, ignore_errors=True)
    stamp.parent.mkdir(parents=True)
    _call([_find_python(), "-m", "venv", str(stamp.parent)])
    pip = [str(_python_of(name)), "-m", "pip", "--disable-pip-version-check", "install", "-q"]
    _call([*pip, *REQUIREMENTS[name]])
    if name == "envlogger-1.2":
        _provide_gmp(name)
    stamp.write_text(wanted)


def run_inside(name: str, module: str) -> None:
    """Goes on as `benchmarks.<module>` in the environment called `name`; returns if it is there."""
    if Path(sys.prefix).resolve() == (_FOLDER / name).resolve():
        return
    ensure(name)
    arguments = command(name, module, *sys.argv[1:])
    os.execve(arguments[0], arguments, variables(name))


def _bootstrap(module: str) -> str:
    return _BOOTSTRAP.format(root=str(ROOT), module=module)


def _python_of(name: str) -> Path:
    return _FOLDER / name / "bin" / "python"


def _own_requirements(name: str) -> str:
    return (ROOT / "pyproject.toml").read_text() if "-e" in REQUIREMENTS[name] else ""


def _find_python() -> str:
    """Returns an interpreter of version _PYTHON."""
    if sys.version_info[:2] == _PYTHON:
        return sys.executable
    version = ".".join(map(str, _PYTHON))
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    choices = [shutil.which(f"python{version}")]
    choices += [str(path) for path in sorted(pyenv.glob(f"{version}.*/bin/python"), reverse=True)]
    for choice in choices:
        if choice and subprocess.run([choice, "-V"], capture_output=True).returncode == 0:
            return choice
    raise SystemExit(
        f"The benchmark needs Python {version}: EnvLogger 1.2 has no wheel for newer ones. Install "
        f"it, or run this with it."
    )


def _provide_gmp(name: str) -> None:
    """Puts GMP's C++ library beside EnvLogger 1.2, where the system has none (Debian, Ubuntu)."""
    check = [str(_python_of(name)), "-P", "-c", "import envlogger"]
    if subprocess.run(check, capture_output=True).returncode == 0:
        return
    folder = _FOLDER / name / "debian"
    folder.mkdir(exist_ok=True)
    _call(["apt-get", "download", _GMP[1]], cwd=folder)
    for package in folder.glob("*.deb"):
        _call(["dpkg-deb", "-x", str(package), str(folder)])
    _call(check, env=variables(name))


def _call(arguments: list[str], **options: object) -> None:
    done = subprocess.run(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
    )  # type: ignore[call-overload]
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed:\n{done.stdout}")
