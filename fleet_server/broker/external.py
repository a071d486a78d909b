"""A broker of its own: keeps it from serving devices that are shut out.

The server says whom it refuses by a revocation list, which the broker reads when it is told to
(SIGHUP). A list ends no session, so the server does. A device may have slipped in between list and
end, so each session is ended again by the next look. The broker may be away at any time; what could
not be done is done by a later look, and a new server process does all of it again.
"""

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import or_, select

from fleet_server import tenancy
from fleet_server.broker import client_authorities, revocation_list, sessions
from fleet_server.broker.mosquitto import MosquittoFiles
from fleet_server.clock import Clock, unix_ms
from fleet_server.complaints import Complaints
from fleet_server.database import Database
from fleet_server.devices.authorities import DeviceCas
from fleet_server.devices.tables import Device
from fleet_server.errors import FleetError, UnavailableError

logger = logging.getLogger(__name__)

REPLACED_AFTER = timedelta(hours=1)
"""A key that its device let go is listed by then; each list makes the broker's checks dearer."""

_ENDED_TIMES = 2
_PROGRAM = "mosquitto"


class ExternalBroker:
    """Looks again and again at who is shut out, and tells the broker."""

    def __init__(
        self,
        *,
        database: Database,
        cas: DeviceCas,
        files: MosquittoFiles,
        connected: Callable[[], bool],
        clock: Clock,
    ) -> None:
        """Know nothing yet.

        Args:
            database: says who is shut out.
            cas: sign the revocation lists.
            files: where list, process id and socket of the broker are.
            connected: whether the server's own connection to the broker is up.
            clock: the wall clock.
        """
        self._database = database
        self._cas = cas
        self._files = files
        self._connected = connected
        self._clock = clock
        self._wanted = asyncio.Event()
        self._complaints = Complaints(time.monotonic)
        self._listed: frozenset[int] | None = None
        self._listed_by: list[str] = []
        self._listed_at = datetime.fromtimestamp(0, UTC)
        self._read: tuple[int, int] | None = None
        """The list and the server's certificate that the broker has been told to read."""
        self._ended: dict[str, int] = {}

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
            UnavailableError: database or broker do not answer; the rest is left for the next look.
            OSError: the list cannot be written.
        """
        now = self._clock()
        revoked = await revocation_list.revoked(self._database, now=now)
        if self._must_list(revoked, now):
            self._listed_by = await asyncio.to_thread(self._list, revoked, now)
            self._listed, self._listed_at = frozenset(revoked.serials), now
            logger.info("revocation_list_written", extra={"certificates": len(self._listed)})
        await asyncio.to_thread(self._reload)
        shut_out = await self._shut_out(now)
        self._ended = {each: self._ended.get(each, 0) for each in shut_out}
        for device_id in (each for each in shut_out if self._ended[each] < _ENDED_TIMES):
            await asyncio.to_thread(sessions.end, self._files.control, device_id)
            self._ended[device_id] += 1

    def _list(self, revoked: revocation_list.Revoked, now: datetime) -> list[str]:
        """Write authorities and lists; returns the authorities' key ids."""
        authorities = self._cas.trusted
        client_authorities.write(self._files.authorities, authorities)
        revocation_list.write(self._files.revoked, authorities, revoked.serials, now=now)
        return [each.key_id for each in authorities]

    def _must_list(self, revoked: revocation_list.Revoked, now: datetime) -> bool:
        if self._listed is None or not revoked.shut_out <= self._listed:
            return True
        if self._listed_by != self._cas.key_ids:
            return True
        age = now - self._listed_at
        return age > revocation_list.RENEWED_AFTER or (
            age > REPLACED_AFTER and not revoked.replaced <= self._listed
        )

    def _reload(self) -> None:
        """Make the broker read the list, and the server's certificate, if they are new."""
        found = (_stamp(self._files.revoked), _stamp(self._files.data.online / "tls.crt"))
        if found == self._read:
            return
        try:
            pid = int(self._files.pid.read_text())
            if Path(f"/proc/{pid}/comm").read_text().strip() != _PROGRAM:
                raise ProcessLookupError(f"process {pid} is not {_PROGRAM}")
            os.kill(pid, signal.SIGHUP)
        except (OSError, ValueError) as error:
            raise UnavailableError(
                "the broker cannot be told whom it has to refuse: start it with what `skerry "
                f"server broker-config` writes, as the server's user ({error})"
            ) from error
        self._read = found
        logger.info("broker_reloaded", extra={"broker_pid": pid})

    async def _shut_out(self, now: datetime) -> list[str]:
        """Return the devices that may still have a session and must have none."""
        recently = unix_ms(now - revocation_list.LIFETIME)
        query = select(Device.id).where(
            Device.certificate_expires_ms > recently,
            or_(revocation_list.is_shut_out(), Device.certificate_expires_ms <= unix_ms(now)),
        )
        with tenancy.everything():
            async with self._database.reading() as session:
                return list(await session.scalars(query.order_by(Device.id)))


def _stamp(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
