"""What the long-lived processes of a device keep in memory."""

import json
import subprocess
import sys

import pytest

HEAVY = {
    "aiosqlite",
    "alembic",
    "amqtt",
    "fastapi",
    "gmqtt",
    "httptools",
    "numpy",
    "onnxruntime",
    "pydantic",
    "requests",
    "rich",
    "sqlalchemy",
    "typer",
    "uvloop",
}
LIST = """
import importlib, json, sys
importlib.import_module(sys.argv[1])
print(json.dumps(list({name.partition('.')[0] for name in sys.modules})))
"""


@pytest.mark.parametrize(
    ("module", "without"),
    [
        ("edge_agent.control.process", HEAVY),
        ("edge_agent.control.__main__", HEAVY),
        (
            "edge_agent.supervisor",
            HEAVY | {"tuf", "paho", "joserfc", "cryptography", "urllib3", "sqlite3", "asyncio"},
        ),
    ],
)
def test_a_process_loads_nothing_heavy(module: str, without: set[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIST, module], capture_output=True, text=True, check=True
    )
    assert not without & set(json.loads(done.stdout))
