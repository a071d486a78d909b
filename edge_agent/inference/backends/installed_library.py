"""Finds a Python library without importing it, and imports it with an error of ours."""

import importlib
import importlib.machinery
import importlib.util
from pathlib import Path
from types import ModuleType

from edge_agent.inference.errors import LoadError


def files_of(package: str) -> list[Path]:
    """Return a file that changes when the package is replaced; none if it is not installed."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return []
    if spec is None:
        return []
    if spec.origin is not None:
        return [Path(spec.origin)]
    return [Path(folder) for folder in spec.submodule_search_locations or ()]


def imported(module: str, *, library: str, extra: str) -> ModuleType:
    """Import a library.

    Raises:
        LoadError: it is not installed, or does not fit this machine.
    """
    try:
        return importlib.import_module(module)
    except (ImportError, OSError) as error:
        raise LoadError(
            f"{library} is not usable here ({error}); install it with: pip install "
            f"'skerry[{extra}]'"
        ) from error
