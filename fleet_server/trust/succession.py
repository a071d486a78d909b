"""One device CA follows another while the server runs; `skerry server ca` makes and retires them.

1. A new authority lies in ``online/`` and waits. It is trusted from now on, by this process, by the
   embedded broker or by the Mosquitto beside it.
2. The broker is shown a certificate of it. When it takes that, the authority is put into office:
   what is issued from now on comes from it, the ingest service's own certificate first.
3. Devices hear of it (`fleet_server.trust.device_authorities`) and renew their certificates.

A process that dies anywhere finds the files as they are and goes on from there.
"""

import asyncio
import logging
import time
from collections.abc import Callable

from fleet_server.complaints import Complaints
from fleet_server.devices.authorities import CaFiles, DeviceCas
from fleet_server.devices.certificates import DeviceCa
from fleet_server.errors import FleetError
from fleet_server.releases import durable_files

logger = logging.getLogger(__name__)

_LOOK_S = 5.0


class Succession:
    """Follows the authorities of one data directory."""

    def __init__(
        self,
        *,
        cas: DeviceCas,
        tell_broker: Callable[[], None],
        check_taken: Callable[[DeviceCa], None],
        renew_ingest: Callable[[], bool],
    ) -> None:
        """Take what has to follow.

        Args:
            cas: the authorities, shared with whoever issues.
            tell_broker: makes the broker trust those that are trusted now.
            check_taken: raises `UnavailableError` unless the broker takes certificates of one.
            renew_ingest: signs the certificate of the ingest service anew if there is need.
        """
        self._cas = cas
        self._tell_broker = tell_broker
        self._check_taken = check_taken
        self._renew_ingest = renew_ingest
        self._complaints = Complaints(time.monotonic)

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_S)
            try:
                if await asyncio.to_thread(self._cas.take):
                    logger.info("device_cas_taken", extra={"keys": self._cas.key_ids})
                    self._tell_broker()
                await asyncio.to_thread(self.advance)
            except (FleetError, OSError) as error:
                self._complaints.log("device_ca_waits", reason=str(error))

    def advance(self) -> None:
        """Put an authority that waits into office if the broker trusts it.

        Raises:
            UnavailableError: the broker does not yet.
            SetupError: key or certificate of the ingest service cannot be read.
            OSError: the disk refuses.
        """
        if self._cas.waiting is None:
            return
        files, ca = self._cas.waiting
        self._check_taken(ca)
        put_into_office(files)
        self._cas.take()
        logger.info("device_ca_in_office", extra={"key": ca.key_id, "number": files.number})
        self._renew_ingest()


def put_into_office(files: CaFiles) -> None:
    """Let an authority that waits issue.

    Raises:
        OSError: the disk refuses; it waits on.
    """
    files.certificate.rename(files.in_office().certificate)
    durable_files.sync_folder(files.online)
