"""The base install is the agent's control plane and nothing heavier, in a clean environment.

The environment is made offline from the wheels that `make test` has just installed, with the
pinned requirements that a device gets.
"""

import json
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
UV = Path(sysconfig.get_path("scripts")) / "uv"
HEAVY = ("fastapi", "sqlalchemy", "numpy", "onnxruntime")
NOT_IN_LONG_RUNNING_PROCESSES = (*HEAVY, "typer", "rich", "pydantic")
PROCESSES = ("edge_agent.control.process", "edge_agent.supervisor", "edge_agent.enroll")


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with the base install of Skerry only."""
    environment = tmp_path_factory.mktemp("base") / "venv"
    uv(environment, "venv", "--python", sys.executable, str(environment))
    requirements = str(REPOSITORY / "requirements" / "agent.txt")
    uv(environment, "pip", "install", "--offline", "--require-hashes", "-r", requirements)
    project = ["--offline", "--no-deps", "--no-build-isolation", "-e", str(REPOSITORY)]
    uv(environment, "pip", "install", *project)
    return environment / "bin" / "python"


def uv(environment: Path, *arguments: str) -> None:
    subprocess.run(
        [UV, *arguments],
        check=True,
        capture_output=True,
        env={"VIRTUAL_ENV": str(environment), "HOME": str(Path.home()), "PATH": "/usr/bin:/bin"},
    )


def loaded_after_import(python: Path, module: str) -> set[str]:
    program = f"import json, sys, {module}; print(json.dumps(sorted(sys.modules)))"
    output = subprocess.run(
        [python, "-c", program], check=True, capture_output=True, text=True, cwd="/"
    ).stdout
    return {name.partition(".")[0] for name in json.loads(output)}


@pytest.mark.parametrize("module", PROCESSES)
def test_the_agent_loads_without_the_heavy_libraries(python: Path, module: str) -> None:
    loaded = loaded_after_import(python, module)
    assert module.partition(".")[0] in loaded
    assert not loaded & set(NOT_IN_LONG_RUNNING_PROCESSES)


@pytest.mark.parametrize("library", HEAVY)
def test_the_heavy_libraries_are_not_even_installed(python: Path, library: str) -> None:
    found = subprocess.run([python, "-c", f"import {library}"], capture_output=True, check=False)
    assert b"ModuleNotFoundError" in found.stderr


def test_the_runtime_names_the_extra_that_it_lacks(python: Path, tmp_path: Path) -> None:
    run = subprocess.run(
        [python, "-m", "edge_agent.inference", "--state", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert run.returncode == 1
    assert "skerry[onnx]" in run.stderr
    assert "Traceback" not in run.stderr
