"""schemathesis for a long time, as every caller, on SQLite and on two servers over PostgreSQL.

``make soak`` runs it for ``SOAK_S`` seconds on each database; as part of all tests it is left out,
`tests/conformance/test_openapi.py` asks once for each operation. ``OPENAPI_REFUSALS`` names a file
that gets what the servers said when they refused, to be read by a person.
"""

import asyncio
import contextlib
import itertools
import json
import os
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from schemathesis import GenerationMode

from fleet_server.accounts.roles import Role
from fleet_server.tenant_names import DEFAULT
from fleet_server.token_issue import issue
from tests.integration.server.running_server import EnrolledDevice, RunningServer, serving
from tests.simulators.openapi_callers import Callers
from tests.simulators.postgresql_cluster import Cluster
from tests.unit.fleet_server.authority import Fleet

pytestmark = pytest.mark.timeout(0)

_DEVICE = "asking"
_FOREIGN = "others"
_EXAMPLES = 2
_SHARED = ("repository", "director")


@pytest.fixture(params=["sqlite", "postgresql"])
def servers(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[RunningServer]]:
    """One server on SQLite; two over one database of PostgreSQL and one repository."""
    fleet = Fleet.provision(tmp_path / "one")
    if request.param == "sqlite":
        for server in serving(fleet):
            yield [server]
        return
    cluster = request.getfixturevalue("cluster")
    assert isinstance(cluster, Cluster)
    url = asyncio.run(cluster.create())
    monkeypatch.setenv("SKERRY_SERVER_DATABASE_URL", url)  # for what is made beside the servers
    other = fleet.copy_to(tmp_path / "other")
    for name in _SHARED:
        shared = other.data.root / name
        shared.rename(tmp_path / name)
        shared.symlink_to(fleet.data.root / name)
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(contextlib.contextmanager(serving)(each)) for each in (fleet, other)
        ]
    asyncio.run(cluster.drop(url))


def tokens(device: EnrolledDevice) -> dict[str, Callable[[], str | None]]:
    """Every role in two tenants, a device, one that is unknown, and nobody."""
    server = device.server

    def of(role: Role, tenant: str) -> str:
        lifetime = timedelta(days=1)
        root = server.fleet.data.root
        made = issue(root, name=role.value, role=role, lifetime=lifetime, tenant=tenant)
        return asyncio.run(made)[0]

    done = server.skerry("server", "tenant", _FOREIGN)
    assert done.returncode == 0, done.stderr
    made = {role.value: of(role, DEFAULT) for role in Role}
    made |= {f"{_FOREIGN} {role.value}": of(role, _FOREIGN) for role in Role}
    made["unknown"] = "no such token"
    said = {who: partial(str, token) for who, token in made.items()}
    return {"nobody": lambda: None, "device": device.key.token, **said}


def test_no_answer_is_a_surprise(servers: list[RunningServer]) -> None:
    device = servers[0].enroll(_DEVICE)
    callers = Callers(servers, partial(tokens, device), {"device_id": _DEVICE})
    until = time.monotonic() + float(os.environ["SOAK_S"])
    for turn in itertools.count():
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            callers.ask_all(mode, examples=_EXAMPLES, start=turn, until=until)
        print(f"round {turn}: {callers.count} requests, {len(callers.failures)} failures")  # noqa: T201
        if time.monotonic() > until:
            break
    if "OPENAPI_REFUSALS" in os.environ:
        told = {label: sorted(texts) for label, texts in callers.refusals.items()}
        Path(os.environ["OPENAPI_REFUSALS"]).write_text(json.dumps(told, indent=1))
    assert not callers.failures, "\n\n".join(
        f"{label} as {who}: {told}" for (label, who), told in callers.failures.items()
    )
