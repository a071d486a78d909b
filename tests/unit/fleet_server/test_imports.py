"""What the package and the operator's commands may load."""

import json
import subprocess
import sys

import pytest

HEAVY = {"sqlalchemy", "alembic", "fastapi", "uvicorn", "amqtt", "gmqtt", "pydantic", "numpy"}


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("fleet_server", HEAVY | {"tuf", "cryptography"}),
        ("fleet_server.cli", HEAVY),
        ("fleet_server.operator_cli", HEAVY | {"tuf", "cryptography"}),
        # They read settings, which pydantic checks.
        ("fleet_server.assignments.signer", HEAVY - {"pydantic"} | {"typer", "rich"}),
        ("fleet_server.process", HEAVY - {"pydantic"} | {"typer", "rich"}),
        ("fleet_server.serving", {"typer", "rich", "numpy", "onnxruntime", "httpx", "authlib"}),
    ],
)
def test_light_modules(module: str, forbidden: set[str]) -> None:
    program = f"import sys, json, {module}; print(json.dumps(list(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    loaded = {name.split(".")[0] for name in json.loads(done.stdout)}
    assert not loaded & forbidden
