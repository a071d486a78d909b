"""Makes the parts of alerts."""

from dataclasses import dataclass

from fleet_server.alerts.book import AlertBook
from fleet_server.alerts.deliveries import Deliveries
from fleet_server.alerts.loop import AlertLoop
from fleet_server.alerts.sender import Sender
from fleet_server.alerts.targets import TargetPolicy
from fleet_server.alerts.watch import Watch
from fleet_server.alerts.webhooks import Webhooks
from fleet_server.clock import Clock
from fleet_server.database import Database
from fleet_server.settings import ServerSettings


@dataclass(frozen=True, slots=True)
class AlertServices:
    """What the routes call, and the loop that runs beside them."""

    book: AlertBook
    webhooks: Webhooks
    loop: AlertLoop


def wired(database: Database, clock: Clock, settings: ServerSettings) -> AlertServices:
    """Return the parts, made and not yet started.

    Raises:
        SettingsError: the certificates of receivers' authorities cannot be read.
    """
    policy = TargetPolicy(
        plain_http=settings.webhook_plain_http,
        private_addresses=settings.webhook_private_addresses,
    )
    return AlertServices(
        book=AlertBook(database=database, clock=clock),
        webhooks=Webhooks(database=database, clock=clock, policy=policy),
        loop=AlertLoop(
            watch=Watch(database=database, clock=clock, interval_s=settings.alert_interval_s),
            deliveries=Deliveries(database=database, clock=clock),
            sender=Sender(policy=policy, clock=clock, ca=settings.webhook_ca),
            interval_s=settings.alert_interval_s,
        ),
    )
