"""A broker of its own: keeps it from serving devices that are shut out.

One beside the server is told by this process (`fleet_server.broker.hand`). One on another machine
is told by what runs there (`fleet_server.follower`) and asks for it; here is only seen to it that
somebody asks.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from datetime import timedelta

from fleet_server.broker.acceptance import Held
from fleet_server.broker.followers import Followers
from fleet_server.broker.hand import Hand
from fleet_server.broker.mosquitto_files import MosquittoFiles
from fleet_server.broker.publication import Publication
from fleet_server.broker.told import Told
from fleet_server.clock import Clock
from fleet_server.complaints import Complaints
from fleet_server.errors import FleetError, UnavailableError

logger = logging.getLogger(__name__)

_ASKED_WITHIN = timedelta(minutes=2)


class ExternalBroker:
    """Looks again and again at who is shut out, and tells the broker."""

    def __init__(
        self,
        *,
        publication: Publication,
        followers: Followers,
        files: MosquittoFiles,
        connected: Callable[[], bool],
        clock: Clock,
    ) -> None:
        """Know nothing yet.

        Args:
            publication: says what brokers are told.
            followers: who tell brokers on other machines.
            files: where list, process id and socket of a broker beside the server are.
            connected: whether the server's own connection to the broker is up.
            clock: the wall clock.
        """
        self._publication = publication
        self._followers = followers
        self._files = files
        self._hand = Hand(files)
        self._connected = connected
        self._clock = clock
        self._wanted = asyncio.Event()
        self._complaints = Complaints(time.monotonic)

    @property
    def serving(self) -> bool:
        """Whether the broker serves, as far as this process can tell."""
        return self._connected()

    @property
    def connections(self) -> None:
        """How many devices are connected: the broker's own metrics say it."""

    async def disconnect(self, device_id: str) -> None:
        """End a device's session soon: it has been shut out."""
        logger.info("broker_told_soon", extra={"device": device_id})
        self._wanted.set()

    def authorities_changed(self) -> None:
        """Tell the broker soon whom it has to trust."""
        self._wanted.set()

    async def run(self, *, interval_s: float) -> None:
        """Look at intervals, and when a device was shut out here, until cancelled."""
        while True:
            self._wanted.clear()
            try:
                await self.look()
            except (FleetError, OSError) as error:
                self._complaints.log("broker_not_told", reason=str(error))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(interval_s):
                    await self._wanted.wait()

    async def look(self) -> None:
        """Bring list and sessions to what the database says.

        Raises:
            UnavailableError: database or broker do not answer, or nobody tells the broker; the rest
                is left for the next look.
            OSError: the list cannot be written.
        """
        if not self._files.configuration.exists():
            await self._check_followed()
            return
        told = await self._publication.current()
        await asyncio.to_thread(self._tell, told)

    def _tell(self, told: Told) -> None:
        self._hand.write(Held.of(told.authorities))
        self._hand.enforce(told.shut_out)

    async def _check_followed(self) -> None:
        if not await self._followers.asked_since(self._clock() - _ASKED_WITHIN):
            raise UnavailableError(
                "nobody tells the broker whom it has to refuse: for one on this machine run "
                "`skerry server broker-config`, for one on another machine `skerry server "
                "broker-follow` there"
            )
