"""The services of one running server, as the routes get them."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from fleet_server.accounts.logins import Logins
from fleet_server.accounts.openid import OpenId
from fleet_server.accounts.service import Accounts
from fleet_server.accounts.users import Users
from fleet_server.alerts.wiring import AlertServices
from fleet_server.assignments.service import Assignments
from fleet_server.broker.followers import Followers
from fleet_server.broker.publication import Publication
from fleet_server.commands.wiring import CommandServices
from fleet_server.components import Components
from fleet_server.database import Database
from fleet_server.deltas.service import Deltas
from fleet_server.devices.enrollment import Enrollment
from fleet_server.devices.groups import Groups
from fleet_server.devices.polls import Polls
from fleet_server.devices.renewal import Renewal
from fleet_server.devices.service import Devices
from fleet_server.monitoring.fleet_state import FleetState
from fleet_server.monitoring.metrics import ServerMetrics
from fleet_server.releases.service import Releases
from fleet_server.rollouts.founding import Founding
from fleet_server.rollouts.service import Rollouts
from fleet_server.settings import ServerSettings
from fleet_server.telemetry.service import Telemetry
from fleet_server.trust.device_authorities import DeviceAuthorities
from fleet_server.trust.service import Trust


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Everything that the routes call."""

    settings: ServerSettings
    database: Database
    accounts: Accounts
    users: Users
    logins: Logins
    openid: OpenId
    enrollment: Enrollment
    renewal: Renewal
    devices: Devices
    groups: Groups
    polls: Polls
    releases: Releases
    deltas: Deltas
    assignments: Assignments
    founding: Founding
    rollouts: Rollouts
    telemetry: Telemetry
    metrics: ServerMetrics
    fleet_state: FleetState
    trust: Trust
    authorities: DeviceAuthorities
    publication: Publication
    followers: Followers
    alerts: AlertServices
    commands: CommandServices
    components: Components


def of_request(request: Request) -> Services:
    """Return the services of the application that got the request."""
    services: Services = request.app.state.services
    return services


Wired = Annotated[Services, Depends(of_request)]
"""Parameter type of routes that need services."""
