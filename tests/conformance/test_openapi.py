"""schemathesis against the running server: what the document says is what every role is answered.

``OPENAPI_EXAMPLES`` asks for more examples of each operation than `make test` has time for.
"""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from fleet_server.accounts.roles import Role
from tests.integration.server.running_server import RunningServer, serving
from tests.unit.fleet_server.authority import Fleet

DOCUMENT = Path(__file__).parents[2] / "docs" / "api" / "openapi.json"
EXAMPLES = int(os.environ.get("OPENAPI_EXAMPLES", "1"))
CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
)
SETTINGS = settings(
    max_examples=EXAMPLES,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    fleet = Fleet.provision(tmp_path_factory.mktemp("authority") / "a")
    yield from serving(fleet)


@pytest.fixture(scope="module")
def credentials(server: RunningServer) -> dict[str, dict[str, str]]:
    """What each caller sends to say who it is."""
    tokens = {role.value: server.api_token(role.value) for role in Role}
    tokens["device"] = server.enroll("asking").key.token()
    bearers = {who: {"Authorization": f"Bearer {token}"} for who, token in tokens.items()}
    return {"nobody": {}, **bearers}


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_every_answer_is_in_the_document(
    server: RunningServer, credentials: dict[str, dict[str, str]], mode: GenerationMode
) -> None:
    schema = schemathesis.openapi.from_path(DOCUMENT)
    failures: list[str] = []
    asked: set[str] = set()
    with requests.Session() as session:

        def ask(case: schemathesis.Case[Any]) -> None:
            asked.add(case.operation.label)
            for who, headers in credentials.items():
                try:
                    case.call_and_validate(
                        base_url=server.url,
                        headers=headers,
                        session=session,
                        verify=str(server.ca),
                        checks=list(CHECKS),
                    )
                except schemathesis.errors.FailureGroup as error:
                    failures.append(
                        f"{case.operation.label} as {who}: " + "; ".join(map(str, error.exceptions))
                    )

        for found in schema.get_all_operations():
            assert isinstance(found, Ok)
            operation = found.ok()
            cases = operation.as_strategy(generation_mode=mode)

            @SETTINGS
            @given(case=cases)
            def ask_all(case: schemathesis.Case[Any]) -> None:
                ask(case)

            with contextlib.suppress(Unsatisfiable):  # there is nothing in it to get wrong
                ask_all()
    assert not failures, "\n\n".join(failures)
    if mode is GenerationMode.POSITIVE:
        paths = json.loads(DOCUMENT.read_bytes())["paths"]
        assert asked == {
            f"{method.upper()} {path}" for path, methods in paths.items() for method in methods
        }
