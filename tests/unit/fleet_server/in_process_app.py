"""The server's application as `serving` wires it, called in this process; nothing listens."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from fleet_server import serving
from fleet_server.app import create_app
from fleet_server.database import Database
from fleet_server.lifetime import Lifetime
from fleet_server.listening import Ports
from fleet_server.services import Services
from fleet_server.settings import ServerSettings
from tests.unit.fleet_server.authority import Fleet


async def wired(fleet: Fleet, database: Database, **settings: object) -> Services:
    """Return the services of a server that was not started."""
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as two,
    ):
        ports = Ports(https=one, mqtt=two)
        config = ServerSettings.model_validate(settings)
        return (await serving._made(fleet.data, config, ports, database, Lifetime())).services


@asynccontextmanager
async def client_of(services: Services) -> AsyncIterator[httpx.AsyncClient]:
    """Call the application; an exception that no handler takes is answered with 500."""
    transport = httpx.ASGITransport(create_app(services), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="https://fleet") as client:
        yield client


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}
