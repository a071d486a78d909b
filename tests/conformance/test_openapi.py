"""schemathesis against the running server: what the document says is what every role is answered.

`tests/soak/test_openapi_campaign.py` asks for longer, and on PostgreSQL as well.
"""

import json
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from schemathesis import GenerationMode

from fleet_server.accounts.roles import Role
from tests.integration.server.running_server import EnrolledDevice, RunningServer, serving
from tests.simulators.openapi_callers import DOCUMENT, Callers
from tests.unit.fleet_server.authority import Fleet


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    fleet = Fleet.provision(tmp_path_factory.mktemp("authority") / "a")
    yield from serving(fleet)


@pytest.fixture(scope="module")
def device(server: RunningServer) -> EnrolledDevice:
    return server.enroll("asking")


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_every_answer_is_in_the_document(
    server: RunningServer, device: EnrolledDevice, mode: GenerationMode
) -> None:
    def meet() -> dict[str, Callable[[], str | None]]:
        made = {role.value: partial(str, server.api_token(role.value)) for role in Role}
        return {"nobody": lambda: None, "device": device.key.token, **made}

    callers = Callers([server], meet)
    callers.ask_all(mode)
    assert min(callers.recognised[role.value] for role in Role) > 0.5 * len(callers.asked)
    assert not callers.failures, "\n\n".join(
        f"{label} as {who}: {told}" for (label, who), told in callers.failures.items()
    )
    if mode is GenerationMode.POSITIVE:
        paths = json.loads(DOCUMENT.read_bytes())["paths"]
        assert callers.asked == {
            f"{method.upper()} {path}" for path, methods in paths.items() for method in methods
        }
