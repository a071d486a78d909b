"""`skerry fleet` against the application in this process: all is real but the wire between them."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
import urllib3
from typer.testing import CliRunner, Result

from fleet_protocol.errors import SkerryError
from fleet_server import operator_cli
from fleet_server.accounts.roles import Role
from fleet_server.services import Services
from tests.unit.fleet_server.in_process_app import client_of

TIMEOUT_S = 60


@dataclass(frozen=True)
class Wire:
    """Carries the requests of a command, which waits in a thread, to the application's loop.

    Attributes:
        asked: the URLs so far.
    """

    client: httpx.AsyncClient
    loop: asyncio.AbstractEventLoop
    asked: list[str] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)

    def opened(self, *, headers: Mapping[str, str], **_: object) -> Self:
        """Go on for another command, as another account perhaps."""
        self.headers.clear()
        self.headers.update(headers)
        return self

    def request(  # noqa: PLR0913 (urllib3's)
        self,
        method: str,
        url: str,
        *,
        fields: Mapping[str, str] | None = None,
        json: object = None,
        timeout: object = None,
        preload_content: bool = True,
    ) -> urllib3.HTTPResponse:
        del timeout, preload_content  # nothing is slow here, and nothing comes in pieces
        sent = self.client.request(method, url, params=fields, json=json, headers=self.headers)
        self.asked.append(str(self.client.build_request(method, url, params=fields).url))
        answer = asyncio.run_coroutine_threadsafe(sent, self.loop).result(TIMEOUT_S)
        return urllib3.HTTPResponse(answer.content, status=answer.status_code)


@dataclass(frozen=True)
class Shell:
    """Gives commands as one account."""

    wire: Wire
    token_file: Path

    async def result(self, *arguments: str, given: str = "") -> Result:
        """Return how a command ended."""
        options = ("--server", "https://fleet", "--token-file", str(self.token_file))
        return await asyncio.to_thread(
            CliRunner().invoke, operator_cli.app, [*arguments, *options], input=given
        )

    async def __call__(self, *arguments: str, given: str = "") -> str:
        """Return what a command printed.

        Raises:
            SkerryError: it was refused.
        """
        done = await self.result(*arguments, given=given)
        if isinstance(done.exception, SkerryError):
            raise done.exception
        assert done.exit_code == 0, done.output
        return done.stdout

    async def json(self, *arguments: str, given: str = "") -> dict[str, Any]:
        """Return what a command printed with ``--json``."""
        found = json.loads(await self(*arguments, "--json", given=given))
        assert isinstance(found, dict)
        return found


@asynccontextmanager
async def shell_of(
    services: Services, monkeypatch: pytest.MonkeyPatch, folder: Path, role: Role = Role.ADMIN
) -> AsyncIterator[Shell]:
    """Make an account of a role and yield its shell."""
    token, _ = await services.accounts.create(
        name=role.value, role=role, lifetime=timedelta(hours=1)
    )
    file = folder / f"{role.value}-token"
    file.touch(mode=0o600)
    file.write_text(token)
    async with client_of(services) as client:
        wire = Wire(client, asyncio.get_running_loop())
        monkeypatch.setattr(urllib3, "PoolManager", wire.opened)
        yield Shell(wire, file)
