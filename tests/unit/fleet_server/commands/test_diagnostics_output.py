"""`skerry fleet command show` of diagnostics: what serves, and how the newest update stands."""

from typing import Any

import pytest

from fleet_server.commands import cli

SERVES = {
    "family": "animals",
    "version": "1.0.0",
    "variant": "int8",
    "backend": "onnxruntime",
    "accelerator": "cpu",
    "committed": True,
}
FAILED = {
    "family": "animals",
    "version": "1.1.0",
    "state": "failed",
    "attempts": 3,
    "detail": "it is wrong",
}


@pytest.mark.parametrize(
    ("result", "lines"),
    [
        (
            {"serving": [SERVES], "updates": [FAILED]},
            [
                "  serves: animals 1.0.0 (int8, onnxruntime on cpu)",
                "  newest update: animals 1.1.0, failed at attempt 3 (it is wrong)",
            ],
        ),
        (
            {"serving": [SERVES | {"committed": False}]},
            ["  serves: animals 1.0.0 (int8, onnxruntime on cpu), on probation"],
        ),
        ({"serving": []}, ["  serves: nothing"]),
        ({"serving": None}, []),
        ({}, []),
    ],
    ids=["failed update", "probation", "nothing", "runtime silent", "older agent"],
)
def test_what_serves_stands_beside_the_newest_update(
    capsys: pytest.CaptureFixture[str], result: dict[str, Any], lines: list[str]
) -> None:
    answered = {
        "id": "1",
        "device_id": "cam-1",
        "state": "done",
        "detail": "",
        "result": {"kind": "diagnostics", "agent_version": "1", **result},
    }
    cli._shown([answered], as_json=False)
    assert capsys.readouterr().out.splitlines() == [
        "cam-1: done",
        "  agent_version: 1",
        *lines,
    ]
