"""Callers of every kind who ask a server what schemathesis makes of its OpenAPI document."""

import contextlib
import itertools
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.integration.server.running_server import RunningServer

DOCUMENT = Path(__file__).parents[2] / "docs" / "api" / "openapi.json"
_CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
_TIMEOUT_S = 60.0


def _bearing(token: str, request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Say who asks, after schemathesis, which takes the header out of wrong requests."""
    request.headers["Authorization"] = f"Bearer {token}"
    return request


def _logs_out(operation: object) -> bool:
    """Put last what ends the callers' own sessions, or nobody would be let in afterwards."""
    assert isinstance(operation, Ok)
    return bool(operation.ok().label.endswith("/logout"))


@dataclass
class Callers:
    """Each case is asked by every caller, of one server after the other.

    Attributes:
        meet: returns how each caller says who it is from now on; none if it does not.
        known: names that exist, by path parameter; every other case uses them.
        failures: answers that are not in the document, each once for an operation and a caller.
        asked: the operations that were asked.
        count: how many requests that were.
        refusals: what each operation refused requests with.
        recognised: how many requests of each caller were not answered with 401.
    """

    servers: Sequence[RunningServer]
    meet: Callable[[], Mapping[str, Callable[[], str | None]]]
    known: Mapping[str, str] = field(default_factory=dict)
    failures: dict[tuple[str, str], str] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)
    count: int = 0
    refusals: dict[str, set[str]] = field(default_factory=dict)
    recognised: Counter[str] = field(default_factory=Counter)
    _tokens: Mapping[str, Callable[[], str | None]] = field(default_factory=dict, init=False)
    _cases: int = field(default=0, init=False)

    def ask_all(
        self, mode: GenerationMode, *, examples: int = 1, start: int = 0, until: float | None = None
    ) -> None:
        """Ask for so many examples of every operation; ``until`` is a monotonic time to stop at."""
        schema = schemathesis.openapi.from_path(DOCUMENT)
        self._tokens = self.meet()
        with requests.Session() as session:
            for found in sorted(schema.get_all_operations(), key=_logs_out):
                if until is not None and time.monotonic() > until:
                    return
                assert isinstance(found, Ok)
                strategy = found.ok().as_strategy(generation_mode=mode)

                @settings(
                    max_examples=examples,
                    deadline=None,
                    database=None,
                    phases=[Phase.generate],
                    suppress_health_check=list(HealthCheck),
                )
                @seed(start)
                @given(case=strategy)
                def ask(case: schemathesis.Case[Any]) -> None:
                    self._ask(case, session)

                with contextlib.suppress(Unsatisfiable):  # there is nothing in it to get wrong
                    ask()

    def _ask(self, case: schemathesis.Case[Any], session: requests.Session) -> None:
        self.asked.add(case.operation.label)
        self._cases += 1
        if self._cases % 2 and case.path_parameters:
            case.path_parameters |= {
                name: value for name, value in self.known.items() if name in case.path_parameters
            }
        for (who, token), server in zip(self._tokens.items(), itertools.cycle(self.servers)):
            self.count += 1
            said = token()
            answer = case.call(
                base_url=server.url,
                auth=None if said is None else partial(_bearing, said),
                session=session,
                verify=str(server.ca),
                timeout=_TIMEOUT_S,
            )
            self.recognised[who] += answer.status_code != HTTPStatus.UNAUTHORIZED
            if answer.status_code in {400, 409, 422}:
                told = f"{answer.status_code} {answer.text}"
                self.refusals.setdefault(case.operation.label, set()).add(told)
            try:
                case.validate_response(answer, checks=_CHECKS)
            except schemathesis.errors.FailureGroup as error:
                told = "; ".join(map(str, error.exceptions))
                self.failures.setdefault((case.operation.label, who), told)
