"""Routes of the desired settings of agents."""

from typing import Annotated, Any, Self

import msgspec
from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel

from fleet_protocol.unreadable import problem
from fleet_server.accounts.authorization import Commander, Reader
from fleet_server.commands.configurations import ConfigurationBody
from fleet_server.commands.tables import AgentConfiguration
from fleet_server.errors import MalformedError
from fleet_server.services import Wired
from fleet_server.text_form import Form

router = APIRouter(prefix="/api/v1", tags=["commands"])

ConfigurationPath = Annotated[
    str,
    Form(
        "^[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?$",
        "use 1 to 64 of a-z, 0-9 and hyphens, no hyphen at an end",
    ),
    Path(min_length=1, max_length=64),
]


class ConfigurationView(BaseModel):
    """A configuration; its version is higher than all before it."""

    name: str
    version: int
    selector: str
    rank: int
    settings: dict[str, Any]
    description: str
    changed_ms: int

    @classmethod
    def of(cls, row: AgentConfiguration) -> Self:
        """Return what is shown of a stored configuration."""
        return cls(
            name=row.name,
            version=row.version,
            selector=row.selector,
            rank=row.rank,
            settings=msgspec.json.decode(row.settings),
            description=row.description,
            changed_ms=row.changed_ms,
        )


class ConfigurationList(BaseModel):
    """All configurations, in the order in which they count."""

    configurations: list[ConfigurationView]


@router.get("/configurations")
async def list_configurations(services: Wired, _account: Reader) -> ConfigurationList:
    """List the desired settings of agents; the first that selects a device counts for it."""
    rows = await services.commands.configurations.all()
    return ConfigurationList(configurations=[ConfigurationView.of(row) for row in rows])


@router.get("/configurations/{name}")
async def get_configuration(
    name: ConfigurationPath, services: Wired, _account: Reader
) -> ConfigurationView:
    """Show one configuration."""
    return ConfigurationView.of(await services.commands.configurations.get(name))


@router.put("/configurations/{name}")
async def put_configuration(
    name: ConfigurationPath, request: Request, services: Wired, _account: Commander
) -> ConfigurationView:
    """Store a configuration, in the place of the one of its name; devices take it up soon.

    The body is a `ConfigurationBody`. A device keeps new settings only if it works with them, and
    says in its reported state which version is in effect, and why not if it is another one.
    """
    try:
        body = msgspec.json.decode(await request.body(), type=ConfigurationBody)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedError(f"the configuration: {problem(error, ConfigurationBody)}") from error
    row = await services.commands.configurations.put(name, body)
    return ConfigurationView.of(row)


@router.delete("/configurations/{name}", status_code=204)
async def delete_configuration(
    name: ConfigurationPath, services: Wired, _account: Commander
) -> Response:
    """Remove a configuration; its devices take up what counts for them without it."""
    await services.commands.configurations.delete(name)
    return Response(status_code=204)
