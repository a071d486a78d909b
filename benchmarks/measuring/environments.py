"""What the benchmarks install for themselves: environments of their own below one cache folder.

Nothing of it is a requirement of the project. Each environment is pinned by a file of
``benchmarks/requirements/`` and named by the hash of what went into it, so a changed pin makes a
new one and an unchanged one is made once.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

PROJECT = Path(__file__).parents[2]
REQUIREMENTS = PROJECT / "benchmarks" / "requirements"
CACHE_VARIABLE = "SKERRY_BENCH_CACHE"
_STAMP = ".complete"


def cache_folder() -> Path:
    """Return the folder of all that is cached: ``$SKERRY_BENCH_CACHE`` or ~/.cache/skerry-bench."""
    return Path(os.environ.get(CACHE_VARIABLE, "~/.cache/skerry-bench")).expanduser().absolute()


def environment(
    pins: str, *, before: Sequence[str] = (), after: Sequence[str] = (), dependencies: bool = True
) -> Path:
    """Return the Python of an environment, which is made if it is not there.

    Args:
        pins: name of a file below ``requirements/``, without its suffix.
        before: requirements that pip installs first, with what they need.
        after: requirements that pip installs last, without what they need.
        dependencies: check that the file names all that its packages need; False where it names
            less, since ``before`` brought the rest.

    Raises:
        subprocess.CalledProcessError: pip failed; it has printed why.
    """
    file = REQUIREMENTS / f"{pins}.txt"
    folder = _folder(pins, file, [*before, *after])
    python = folder / "bin" / "python"
    if not (folder / _STAMP).exists():
        _announce(pins, folder)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        _pip(python, before)
        hashed = ["--require-hashes", "-r", str(file)]
        _pip(python, hashed if dependencies else ["--no-deps", *hashed])
        _pip(python, ["--no-deps", *after] if after else [])
        (folder / _STAMP).touch()
    return python


def of_the_demo() -> Path:
    """Return the Python of an environment with what a user installs, and no tool of the tests.

    Raises:
        subprocess.CalledProcessError: pip failed; it has printed why.
    """
    pins = PROJECT / "requirements" / "demo.txt"
    folder = _folder("demo", pins, [str(PROJECT)])
    python = folder / "bin" / "python"
    if not (folder / _STAMP).exists():
        _announce("demo", folder)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        _pip(python, ["--require-hashes", "-r", str(pins)])
        _pip(python, ["--no-deps", "--no-build-isolation", "--editable", str(PROJECT)])
        (folder / _STAMP).touch()
    return python


def digest(*contents: bytes) -> str:
    """Return a short name for the contents."""
    joined = hashlib.sha256()
    for content in contents:
        joined.update(hashlib.sha256(content).digest())
    return joined.hexdigest()[:16]


def _folder(pins: str, file: Path, extra: Sequence[str]) -> Path:
    key = digest(sys.version.encode(), file.read_bytes(), "\n".join(extra).encode())
    return cache_folder() / f"{pins}-{key}"


def _announce(pins: str, folder: Path) -> None:
    print(f"Installing {pins} into {folder}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)


def _pip(python: Path, arguments: Sequence[str]) -> None:
    if arguments:
        quiet = ["--quiet", "--quiet", "--disable-pip-version-check"]
        subprocess.run([str(python), "-m", "pip", "install", *quiet, *arguments], check=True)
