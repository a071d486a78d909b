"""What is done to a Mosquitto on this machine so that it serves nobody who is shut out.

It is told whom to refuse by files, which it reads when it gets SIGHUP. A revocation list ends no
session, so sessions are ended here. A device may have slipped in between list and end, so each
session is ended a second time by the next look. Mosquitto may be away at any time; what could not
be done is done by a later look, and a new process does all of it again.
"""

import logging
import os
import signal
from collections.abc import Sequence
from pathlib import Path

from fleet_server.broker import client_authorities, sessions
from fleet_server.broker.acceptance import Held
from fleet_server.broker.mosquitto_files import MosquittoFiles
from fleet_server.errors import UnavailableError
from fleet_server.releases import durable_files

logger = logging.getLogger(__name__)

_ENDED_TIMES = 2
_PROGRAM = "mosquitto"


class Hand:
    """The one that acts on one Mosquitto; blocking."""

    def __init__(self, files: MosquittoFiles) -> None:
        self._files = files
        self._read: tuple[int, int] | None = None
        """The list and the certificate that Mosquitto has been told to read."""
        self._ended: dict[str, int] = {}

    def write(self, held: Held) -> None:
        """Put authorities and lists in place, if they are not there.

        Raises:
            OSError: the disk refuses; each file is the old one or the new one.
        """
        client_authorities.write(self._files.authorities, held.certificates)
        content = held.lists_pem
        if not self._files.revoked.exists() or self._files.revoked.read_bytes() != content:
            durable_files.write(self._files.revoked, content)
            serials = {one.serial_number for each in held.lists for one in each}
            logger.info("revocation_list_written", extra={"certificates": len(serials)})

    def enforce(self, shut_out: Sequence[str]) -> int:
        """Let Mosquitto read what is new, and end the sessions of devices; returns how many.

        Raises:
            UnavailableError: it does not run here, or does not answer.
        """
        self._reload()
        self._ended = {each: self._ended.get(each, 0) for each in shut_out}
        wanted = [each for each in shut_out if self._ended[each] < _ENDED_TIMES]
        for device_id in wanted:
            sessions.end(self._files.control, device_id)
            self._ended[device_id] += 1
        return len(wanted)

    def _reload(self) -> None:
        found = (_stamp(self._files.revoked), _stamp(self._files.certificate))
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
                f"server broker-config` writes, as the user to whom that belongs ({error})"
            ) from error
        self._read = found
        logger.info("broker_reloaded", extra={"broker_pid": pid})


def _stamp(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
