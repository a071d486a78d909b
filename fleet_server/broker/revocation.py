"""Ends the connections of devices that have been shut out since they connected.

Whoever shuts a device out in this process cuts its connection at once; this finds those that were
shut out by another process, whose certificate expired, or that have confirmed another key.
"""

import asyncio
import logging

from fleet_server.broker.admission import Registry
from fleet_server.broker.embedded import EmbeddedBroker
from fleet_server.errors import FleetError

logger = logging.getLogger(__name__)


async def run(broker: EmbeddedBroker, registry: Registry, *, interval_s: float) -> None:
    """Look at all connections again and again, until cancelled."""
    while True:
        await asyncio.sleep(interval_s)
        try:
            await once(broker, registry)
        except FleetError as error:
            logger.warning("revocation_not_checked", extra={"reason": str(error)})


async def once(broker: EmbeddedBroker, registry: Registry) -> None:
    """Cut the connections that would not be admitted now.

    Raises:
        UnavailableError: the database failed.
    """
    keys = broker.connected_keys()
    for device_id, reason in (await registry.refusals(keys)).items():
        if broker.connected_keys().get(device_id) == keys[device_id]:
            logger.warning("mqtt_cut_off", extra={"client": device_id, "reason": reason})
            await broker.disconnect(device_id)
